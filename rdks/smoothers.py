"""What density estimators other than the heat-kernel sum share: reading of data, and quadrature on compact spaces."""
from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from sklearn.utils.validation import check_is_fitted

from . import _validation as validation
from .base import ManifoldDensity
from .errors import UnsupportedError
from .estimator import RDKSEstimator
from .harmonics import Fourier, Harmonics, SphericalHarmonics, WignerFunctions, unsupported

__all__ = ["Quadrature", "Series", "Smoother", "harmonics_of", "quadrature"]

#: Accuracy of transforms, relative to the coefficients.
EPS = 1e-13
#: Nodes of a quadrature at most.
MOST_NODES = 2**21


class Quadrature(NamedTuple):
    """Nodes and weights on a compact space.

    Attributes
    ----------
    Z : ndarray, shape (q, embed_dim)
        Nodes, on the covering space.
    weight : ndarray, shape (q,)
        They sum to the volume of the space in the user's unit of volume, so that values at the nodes of a function that
        is constant on orbits are summed up to its integral.
    reach : float
        No point is further than this from the nearest node, in embedded lengths.
    """

    Z: np.ndarray
    weight: np.ndarray
    reach: float


def _turn(count):
    """Return equally spaced angles on a circle."""
    return np.arange(count) * (2 * np.pi / count)


def circle_points(factors, angles):
    """Return embedded points (q, width) of a product of circles from an angle (q,) on each."""
    columns = []
    for f, angle in zip(factors, angles, strict=True):
        columns.extend([angle * f.scale] if f.width == 1 else [f.radius * np.cos(angle), f.radius * np.sin(angle)])
    return np.column_stack(columns)


def nodes(manifold, degree):
    """Return the number of nodes of :func:`quadrature`."""
    dim = manifold.factors()[0].dim
    if dim == 1:
        return int(np.prod([float(k + 1) for k in degree]))
    if dim == 2:
        return (degree // 2 + 1) * (degree + 1)
    return (degree // 4 + 1) * (degree // 2 + 1) * ((degree // 2 if manifold.antipodal else degree) + 1)


def quadrature(manifold, degree):
    r"""Return a rule that integrates all eigenfunctions up to a degree exactly.

    Equally spaced angles on circles; Gauss and Legendre's nodes in :math:`\cos\theta` times equally spaced longitudes
    on the sphere; on the three-dimensional sphere the same in :math:`\cos\beta` and in the Euler angles
    :math:`\alpha,\gamma` of unit quaternions (see :class:`rdks.harmonics.WignerFunctions`).

    Parameters
    ----------
    manifold : Manifold
        One of those that :func:`check_spectral` lets pass.
    degree : int or tuple of int
        As harmonics of the manifold take it. The product of two functions has the sum of their degrees.

    Returns
    -------
    Quadrature

    Examples
    --------
    >>> from rdks.manifolds import Sphere
    >>> from rdks.smoothers import quadrature
    >>> Z, weight, reach = quadrature(Sphere(2), 4)
    >>> [round(float(weight @ Z[:, 2] ** k / (4 * np.pi)), 12) for k in (0, 2, 4)]  # 1, 1/3, 1/5
    [1.0, 0.333333333333, 0.2]
    """
    factors = manifold.factors()
    f = factors[0]
    if f.dim == 1:
        grid = np.meshgrid(*[_turn(k + 1) for k in degree], indexing="ij")
        Z = circle_points(factors, [angle.ravel() for angle in grid])
        part = np.ones(len(Z))
        reach = float(np.linalg.norm([np.pi * f.scale / (k + 1) for f, k in zip(factors, degree, strict=True)]))
    elif f.dim == 2:
        cos, part = np.polynomial.legendre.leggauss(degree // 2 + 1)
        sin, turn = np.sqrt(1 - cos * cos), _turn(degree + 1)
        Z = np.stack([np.outer(sin, np.cos(turn)), np.outer(sin, np.sin(turn)),
                      np.broadcast_to(cos[:, None], (len(cos), len(turn)))], axis=-1).reshape(-1, 3) * f.radius
        part = np.repeat(part, len(turn))
        # to the ring along the meridian, then along the ring
        reach = f.radius * (_gap(cos) + np.pi / len(turn))
    else:
        cos, part = np.polynomial.legendre.leggauss(degree // 4 + 1)
        half = 0.5 * np.arccos(cos)
        alpha = _turn(degree // 2 + 1)
        # with opposite points made one, half the turns of gamma are enough
        turns = 1 if manifold.antipodal else 2
        gamma = turns * _turn((degree // 2 if manifold.antipodal else degree) + 1)
        plus = 0.5 * (alpha[:, None] + gamma).ravel()
        minus = 0.5 * (alpha[:, None] - gamma).ravel()
        # exp(k alpha/2) exp(j beta/2) exp(k gamma/2) as (x, y, z, w)
        Z = np.stack([np.outer(np.sin(half), -np.sin(minus)), np.outer(np.sin(half), np.cos(minus)),
                      np.outer(np.cos(half), np.sin(plus)), np.outer(np.cos(half), np.cos(plus))],
                     axis=-1).reshape(-1, 4) * f.radius
        part = np.repeat(part, len(plus))
        # lengths are those of the angles by R/2
        reach = 0.5 * f.radius * (_gap(cos) + np.pi / len(alpha) + turns * np.pi / len(gamma))
    return Quadrature(Z, part * (manifold.volume / part.sum()), reach)


def _gap(cos):
    """Largest distance of a colatitude from the nearest ring."""
    theta = np.sort(np.arccos(cos))
    return max(theta[0], float(np.diff(theta).max(initial=0.0)) / 2)


def harmonics_of(manifold, degree):
    """Return the eigenfunctions of the covering space up to a degree, for a manifold that has fast transforms."""
    factors = manifold.factors()
    if factors[0].dim == 1:
        return Fourier(factors, degree)
    make = SphericalHarmonics if factors[0].dim == 2 else WignerFunctions
    return make(degree, factors[0].radius, even=manifold.antipodal)


@dataclass(frozen=True)
class Series:
    """A finite sum of eigenfunctions.

    Attributes
    ----------
    harmonics : Harmonics
    coef : ndarray of complex, shape harmonics.shape
    """

    harmonics: Harmonics
    coef: np.ndarray

    @classmethod
    def of_values(cls, manifold, harmonics, rule, values):
        """Project a function on the eigenfunctions, from its values (q,) at the nodes of a quadrature."""
        # the rule sums up to the integral over the quotient, coefficients are integrals over the cover; where opposite
        # points are one, the harmonics add the opposite points themselves
        cover = np.exp(manifold.log_unit) * manifold.n_images / (2 if manifold.antipodal else 1)
        return cls(harmonics, harmonics.analyse(rule.Z, cover * rule.weight * values, EPS))

    def weighted(self, factor):
        """Multiply each level by a number, (levels,)."""
        return Series(self.harmonics, self.coef * self.harmonics.spread(factor))

    def values(self, Z):
        """Evaluate at points (q, embed_dim); shape (q,)."""
        return self.harmonics.synthesise(self.coef[None], Z, EPS)[0]

    def gradient(self, manifold, Z):
        """Evaluate the gradient at points, tangent vectors (q, embed_dim)."""
        fields = self.harmonics.fields(self.coef)
        return manifold.to_tangent(Z, self.harmonics.gradient(Z, self.harmonics.synthesise(fields, Z, EPS)))


class Smoother(ManifoldDensity):
    """Density estimator that starts from a fitted :class:`rdks.RDKSEstimator`, ``_base``, which reads its data.

    A subclass has the parameters ``manifold``, ``bandwidth``, ``check_points`` and ``n_jobs``, and defines
    ``_check_parameters``, ``_prepare`` (which returns the fitted attributes for a base), ``_log_density``,
    ``_gradient`` and ``_draw`` in embedded coordinates.
    """

    def fit(self, X, y=None, sample_weight=None):
        """Fit the density to data.

        Parameters
        ----------
        X : array-like, shape (n, p) or (n, *point_shape)
            Points of the manifold, one per row.
        y : None
            Ignored.
        sample_weight : array-like, shape (n,), optional
            Weights >= 0; weight 2 is the row twice, weight 0 is no row.

        Returns
        -------
        self

        Raises
        ------
        PointError
            If a row is not on the manifold.
        UnsupportedError
            If the manifold is not one of those named in the class.
        ValueError
            If a parameter, the shape of X or a weight is wrong. The estimator is left as it was.
        """
        self._check_parameters()
        if isinstance(self.bandwidth, str) and self.bandwidth == "mixture":
            raise UnsupportedError(f"{type(self).__name__} starts from one bandwidth, not from a mixture; use 'auto', "
                                   "another rule or a number")
        base = RDKSEstimator(self.manifold, bandwidth=self.bandwidth, check_points=self.check_points,
                             n_jobs=self.n_jobs).fit(X, y, sample_weight)
        state = self._prepare(base)
        for name in ("manifold_", "manifold_reason_", "bandwidth_", "selection_", "n_features_in_",
                     "n_samples_seen_"):
            state[name] = getattr(base, name)
        if hasattr(base, "feature_names_in_"):
            state["feature_names_in_"] = base.feature_names_in_
        self._accept({**state, "_base": base})
        return self

    def score_samples(self, X):
        """Evaluate the log density at points.

        Parameters
        ----------
        X : array-like, shape (n, p) or (n, *point_shape)

        Returns
        -------
        ndarray, shape (n,)
            Natural log of the density per unit of Riemannian volume.
        """
        check_is_fitted(self)
        return self._log_density(self._base._query(X)[1])

    def score_field(self, X):
        r"""Evaluate the score, the Riemannian gradient of the log density, at points.

        Parameters
        ----------
        X : array-like, shape (n, p) or (n, *point_shape)

        Returns
        -------
        ndarray, shape of X
            Tangent vectors in the layout of the points, as :meth:`rdks.RDKSEstimator.score_field` writes them.
        """
        check_is_fitted(self)
        X, Z, layout = self._base._query(X)
        V = self.manifold_.push_gradient(X.reshape(len(X), *self.manifold_.point_shape), self._gradient(Z))
        return V.reshape(len(X), *layout)

    def sample(self, n_samples=1, random_state=None):
        """Draw from the fitted density, by rejection with a bound that is known: draws are exact and independent.

        Parameters
        ----------
        n_samples : int
        random_state : None, int, RandomState or Generator

        Returns
        -------
        ndarray, shape (n_samples, p) or (n_samples, *point_shape)
            Points in the layout that X had in `fit`.
        """
        check_is_fitted(self)
        n_samples = validation.as_count(n_samples)
        Z = self._draw(n_samples, validation.as_generator(random_state))
        return self.manifold_.unembed(Z).reshape(n_samples, *self._base._layout)


def check_spectral(manifold, name):
    """Raise UnsupportedError for a manifold without eigenfunctions or without :func:`quadrature`."""
    why = unsupported(manifold)
    dims = [f.dim for f in manifold.factors()]
    if not why and (len(dims) > (3 if max(dims) == 1 else 1) or max(dims) > 3):
        why = "there is no quadrature for it"
    if why:
        raise UnsupportedError(f"{name} cannot serve {manifold!r}: {why}. It is for circles, tori and boxes of up to "
                               "three dimensions, spheres of two and three, rotations, and quotients of these; use "
                               "RDKSEstimator")


def reject(n_samples, rate, propose, rng):
    """Draw by rejection.

    Parameters
    ----------
    n_samples : int
    rate : float
        Share of proposals that is expected to be accepted.
    propose : callable
        Takes a number of proposals and a generator; returns points and the log probabilities of accepting them.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape (n_samples, embed_dim)
    """
    found, missing = [], n_samples
    while missing > 0 or not found:
        count = int(np.clip(1.1 * missing / rate + 20, 1, 2**18))
        Z, log_probability = propose(count, rng)
        found.append(Z[-rng.standard_exponential(count) <= log_probability][:max(missing, 0)])
        missing -= len(found[-1])
    return np.concatenate(found)
