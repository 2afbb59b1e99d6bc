r"""Densities, scores and samples on manifolds by Riemannian diffusion kernel smoothing.

Conventions, stated once and kept everywhere
--------------------------------------------
* Brownian motion with generator :math:`\tfrac12\Delta`. Diffusion time ``t`` is a variance; the
  bandwidth ``h = sqrt(t)`` is the standard deviation per coordinate for small ``t``, in the
  manifold's own length unit (radians on the unit sphere).
* Eigenvalues ``lam >= 0`` are those of :math:`-\Delta`; modes decay as ``exp(-lam t / 2)``.
* Densities are with respect to the Riemannian volume; logarithms are natural.
* The score is the Riemannian gradient of the log density: a tangent vector in the layout of the
  point. Because scikit-learn owns the word ``score``, the method is ``score_field``.
* Time runs forward: of a fitted density from that density, ``t >= 0``; of models of the score it is the noise level of
  the data, ``t >= min_time_``.

Map
---
``RDKSEstimator``       the density (:mod:`rdks.estimator`)
:mod:`rdks.manifolds`   where data live
:mod:`rdks.heat`        heat kernels, in the log domain
:mod:`rdks.radial`      heat kernels as arrays
:mod:`rdks.choice`      which engine sums over observations: all of them (:mod:`rdks.engines`; :mod:`rdks.pairs`: pair
                        by pair), those that matter (:mod:`rdks.neighbors`), eigenfunctions (:mod:`rdks.spectral`;
                        :mod:`rdks.nodal`: on discretised spaces)
:mod:`rdks.hierarchy`   boxes around sources, and how far a kernel reaches
:mod:`rdks.harmonics`   eigenfunctions, with transforms between points and coefficients
:mod:`rdks.bandwidth`   choosing how much to smooth
:mod:`rdks.mixture`     several smoothers at once, weighted by what they predict (:mod:`rdks.adaptive`: kernels that
                        follow the data)
:mod:`rdks.sampling`    drawing points: steps of Brownian motion, reverse diffusion, probability flow, likelihoods
``OperatorScoreMatching``  the score of noisy data in closed form (:mod:`rdks.score_matching`; :mod:`rdks.eigenbases`:
                        its regressors)
``NeuralScoreMatching``  the same by a network, with torch (:mod:`rdks.neural`)
``RDKSClassifier``      Bayes' rule from one density per class (:mod:`rdks.classifier`)
``RDKSOutlierDetector``  rows whose density is low as all other rows see it (:mod:`rdks.outliers`)
:mod:`rdks.variance`    targets and losses of score matching with little noise
:mod:`rdks.memorisation`  whether samples repeat the data
:mod:`rdks.wiener`      an alternative: coefficients shrunk level by level
:mod:`rdks.logdomain`   an alternative: smoothing the log density (:mod:`rdks.smoothers`: what the two share)
:mod:`rdks.inference`   bands, influence, regions and their probabilities (:mod:`rdks.gram`: kernel matrices;
                        :mod:`rdks.balls`: steps into balls)
:mod:`rdks.hypothesis`  tests: two samples, a sample and a density, uniformity
:mod:`rdks.resolution`  rounding and copies
:mod:`rdks.benchmarks`  the published benchmarks, by ``python -m rdks benchmark``
:mod:`rdks.distributed` fitting and scoring on Dask collections
:mod:`rdks.testing`     the checks a manifold must pass
"""
from __future__ import annotations

from importlib import import_module

from .estimator import RDKSEstimator

# loaded when they are asked for
_LATE = {"NeuralScoreMatching": "neural", "OperatorScoreMatching": "score_matching", "RDKSClassifier": "classifier",
         "RDKSOutlierDetector": "outliers"}

__all__ = ["NeuralScoreMatching", "OperatorScoreMatching", "RDKSClassifier", "RDKSEstimator", "RDKSOutlierDetector",
           "__version__"]
__version__ = "0.6.0.dev0"


def __getattr__(name):
    if name in _LATE:
        return getattr(import_module(f".{_LATE[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(set(globals()) | set(__all__))
