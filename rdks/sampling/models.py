"""What samplers know of a model: its score in embedded coordinates, and the law it ends in."""
from __future__ import annotations

import math
import numbers
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from .. import _validation as validation
from ..errors import ScoreError, UnsupportedError
from ..manifolds import Manifold

__all__ = ["Field", "ScoreModel", "Terminal", "Trajectory", "log_back", "mixing_time", "points_of", "progress"]

# Length, in units of the injectivity radius or of 1, by which tangent vectors are carried between charts.
_SHORT = 0.1
# Density of a law that has mixed, relative to the invariant one, may differ from 1 by this much.
_MIXED = 1e-4
# Points at which kernels without a closed form are asked how well they have mixed.
_PROBES = 4


@runtime_checkable
class ScoreModel(Protocol):
    """A model of the score of noisy data at every noise level: all that samplers and likelihoods need.

    Optional methods and attributes are used where they are there: ``score_divergence(X, t)`` -> (n,), the divergence
    of the score, for exact likelihoods.

    Attributes
    ----------
    manifold_ : Manifold
        A manifold of :mod:`rdks.manifolds`.
    min_time_ : float
        Smallest time that the model knows; its own law is that at this time.
    """

    manifold_: Manifold
    min_time_: float

    def score_field(self, X, t=None):
        """Return gradients of the log density at time `t`, tangent vectors in the layout of the points `X`."""


class Trajectory(NamedTuple):
    """Points on their way from noise to data, or from data to noise.

    Attributes
    ----------
    times : ndarray, shape (k,)
        Falling from noise to data, ascending from data to noise.
    points : ndarray, shape (k, n_samples, *point_shape)
    """

    times: np.ndarray
    points: np.ndarray


class Field:
    """The score of a model, in embedded coordinates and at checked times.

    Parameters
    ----------
    model : ScoreModel
        Models of this package bring ``_evaluate`` (Z, t, order), which works on embedded coordinates; the chart of any
        other is undone by carrying tangent vectors along short geodesics.
    stop : float, optional
        Time at which a process ends; the model's ``min_time_`` by default.

    Attributes
    ----------
    manifold : Manifold
    stop : float
    smoothed : float
        Time for which the model's law at its time 0 has been smoothed already: a fitted density's kernels have that
        age. 0 for models of the noise of the data.
    has_divergence : bool
    """

    def __init__(self, model, stop=None):
        manifold = getattr(model, "manifold_", None)
        if not isinstance(manifold, Manifold) or not callable(getattr(model, "score_field", None)):
            raise ValueError(f"expected a fitted model of the score, with manifold_ and score_field, found "
                             f"{type(model).__name__}" + ("" if manifold is None else f" with manifold_ {manifold!r}"))
        if manifold.kernel == "basis":
            raise UnsupportedError(f"{manifold!r} has no geodesics for a sampler or a flow to follow")
        self.model, self.manifold = model, manifold
        self.least = float(getattr(model, "min_time_", 0.0))
        self.stop = self.least if stop is None else validation.as_time(stop)
        if self.stop < self.least:
            raise ValueError(f"t = {self.stop:g} is below min_time_ = {self.least:g}, the smallest time that "
                             f"{type(model).__name__} knows")
        self._own = hasattr(model, "_evaluate")
        self.smoothed = float(getattr(model, "_kernel_time", 0.0))
        self.has_divergence = self._own or callable(getattr(model, "score_divergence", None))

    def __call__(self, Z, t, divergence=False):
        """Return the score, (n, embed_dim), and its divergence, (n,) or None, at embedded points."""
        if self._own:
            found = self.model._evaluate(Z, t, 2 if divergence else 1)
            score, div = found.gradient, found.laplacian if divergence else None
        else:
            score, div = self._foreign(Z, t, divergence)
        for what, values in (("score", score), ("divergence of the score", div)):
            bad = [] if values is None else np.flatnonzero(~np.isfinite(values.reshape(len(Z), -1)).all(axis=1))
            if len(bad):
                where = self.manifold.unembed(Z[bad[:1]])[0]
                raise ScoreError(f"the {what} of {type(self.model).__name__} is not finite at time t = {t:.4g} for "
                                 f"{len(bad)} of {len(Z)} points, the first of them {where}. The model does not serve "
                                 "this time and place: stop at a larger t, or begin at a smaller max_time")
        return score, div

    def _foreign(self, Z, t, divergence):
        m = self.manifold
        X = m.unembed(Z)
        flat = X.reshape(len(X), -1)
        V = np.asarray(self.model.score_field(flat, t), dtype=float)
        if V.size != X.size:
            raise ValueError(f"score_field returned the shape {V.shape} for points of the shape {X.shape}; expected "
                             "one tangent vector for each point, in its layout")
        W = m.embed(X)
        frame = m.frame(W)
        columns = np.stack([m.push_gradient(X, frame[:, i]).reshape(len(X), -1) for i in range(m.dim)], axis=2)
        parts = np.linalg.pinv(columns) @ V.reshape(len(X), -1, 1)
        score = np.einsum("nd,ndw->nw", parts[..., 0], frame)
        if m.kernel == "factors" and not np.array_equal(W, Z):
            score = _carried(m, W, Z, score)
        return score, np.asarray(self.model.score_divergence(flat, t), dtype=float) if divergence else None


def _carried(manifold, W, Z, V):
    """Carry tangent vectors from points W of the covering space to their images Z under the group; (n, embed_dim)."""
    size = np.linalg.norm(V, axis=1)
    reach = _SHORT * min(1.0, manifold.injectivity_radius)
    unit = V * np.divide(reach, size, out=np.zeros_like(size), where=size > 0)[:, None]
    # an isometry takes the geodesic from W to the one from Z
    here, there = manifold.images(W), manifold.images(Manifold.exp(manifold, W, unit))
    which = np.array([manifold._cover_dist(image, Z) for image in here]).argmin(axis=0)
    end = there[which, np.arange(len(Z))]
    return log_back(manifold, Z, end) * (size / reach)[:, None]


def log_back(manifold, Z, W):
    """Return initial velocities of geodesics from Z to W, near points of the covering space: not to images of W.

    Beside a wall the nearest image of the point that a step came from may be its mirror image.
    """
    if manifold.kernel == "factors":
        return Manifold._each(manifold, "log", Z, W)
    return manifold.log(Z, W)


def mixing_time(manifold, tol=_MIXED):
    r"""Return the time after which the heat flow has forgotten where it started.

    Parameters
    ----------
    manifold : Manifold
        Of finite volume V, or with a drift towards an invariant law.
    tol : float

    Returns
    -------
    float
        On compact space the smallest T, to one per cent, with :math:`V\,k_T(x,x)\le1+\epsilon`, which bounds
        :math:`|Vk_T(x,y)-1|` everywhere; of kernels without a closed form, at some points x. For the
        Ornstein-Uhlenbeck process :math:`e^{-T/2}=\epsilon`. inf where there is no invariant law.

    Examples
    --------
    >>> from rdks.manifolds import Euclidean, Sphere
    >>> from rdks.sampling import mixing_time
    >>> round(mixing_time(Sphere(2)), 1), mixing_time(Euclidean(2))
    (10.3, inf)
    """
    if manifold.has_drift:
        return -2 * math.log(tol)
    if not np.isfinite(manifold.log_volume):
        return np.inf

    # on the covering space, as at the corners of a box; where opposite points are one, the cover is far slower
    by_factors = manifold.kernel == "factors" and not manifold.antipodal

    def excess(t):
        if by_factors:
            return sum(float(f.log_kernel(np.zeros(1), t)[0]) + f.log_volume for f in manifold.factors())
        return float(manifold.log_heat_kernel(Z, Z, t).max()) + manifold.log_volume

    if not by_factors:
        Z = manifold.random(_PROBES, np.random.default_rng(0))
    slowest = manifold.smallest_eigenvalue
    high = 2 * math.log(1 / tol) / slowest if slowest else 1.0
    while high < manifold.max_time and excess(high) > math.log1p(tol):
        high *= 1.5
    low = high / 1.5
    while excess(low) <= math.log1p(tol):
        low, high = low / 1.5, low
    while high > 1.01 * low:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if excess(middle) > math.log1p(tol) else (low, middle)
    return high


class Terminal:
    """The law in which a diffusion ends, where processes that run backward begin.

    Parameters
    ----------
    field : Field
    max_time : float, optional
        By default the mixing time of the manifold; where there is none, the mean squared distance between
        observations over the dimension, if the model knows its own law.
    law : estimator, optional
        With ``sample(n_samples, random_state=...)`` and ``score_samples(X)``: the model's law at `max_time`. By default
        the invariant law of the manifold; where there is none, the model's own law at that time.
    tol : float
        For the mixing time.

    Attributes
    ----------
    time : float
    """

    def __init__(self, field, max_time=None, law=None, tol=_MIXED):
        m, model = field.manifold, field.model
        self.field, self.law, self.invariant = field, law, False
        if law is not None:
            other = getattr(law, "manifold_", m)
            if other != m:
                raise ValueError(f"terminal is a law on {other!r}, the model lives on {m!r}")
        mixed = mixing_time(m, tol)
        if max_time is None:
            time = mixed if mixed < m.max_time else self._far()
        elif isinstance(max_time, numbers.Real) and field.stop < max_time < np.inf:
            time = float(max_time)
            if law is None and time < mixed < np.inf and not self._knows_itself():
                raise ValueError(f"max_time = {time:g} is below {mixed:.4g}, when {m!r} has mixed, and "
                                 f"{type(model).__name__} cannot draw from its own law: leave max_time out, or pass "
                                 "`terminal`, the law at that time")
        else:
            raise ValueError(f"max_time = {max_time!r}: expected a finite number above {field.stop:g}, the time at "
                             "which the process stops")
        self.time = float(max(time, field.stop))
        # before it has mixed, the model's own law is right and the invariant one is not
        self.invariant = law is None and (time >= mixed or not self._knows_itself())
        if self.invariant and not np.isfinite(mixed):
            raise UnsupportedError(f"{m!r} has no invariant law, and {type(model).__name__} cannot draw from its own "
                                   "at a large time: pass `terminal`, an estimator of that law, and `max_time`")

    def _knows_itself(self):
        return hasattr(self.field.model, "_draw")

    def _far(self):
        if not hasattr(self.field.model, "_far_time"):
            raise UnsupportedError(f"{self.field.manifold!r} has no invariant law: pass `terminal`, an estimator of "
                                   "the law at a large time, and `max_time`, that time")
        return self.field.stop + self.field.model._far_time

    def sample(self, n, rng):
        """Draw n embedded points."""
        m = self.field.manifold
        if self.law is not None:
            X = np.asarray(self.law.sample(n, random_state=rng), dtype=float)
            return m.embed(X.reshape(n, *m.point_shape))
        if self.invariant:
            return rng.standard_normal((n, m.dim)) if m.has_drift else m.random(n, rng)
        return self.field.model._draw(n, self.time, rng)

    def log_density(self, Z):
        """Return log densities of embedded points, per the user's unit of volume; shape (n,)."""
        m = self.field.manifold
        if self.law is not None:
            return np.asarray(self.law.score_samples(m.unembed(Z).reshape(len(Z), -1)), dtype=float)
        if self.invariant:
            return m.log_invariant(Z) + m.log_unit if m.has_drift else np.full(len(Z), -m.log_volume)
        return self.field.model._evaluate(Z, self.time, 0).log_density


def points_of(field, X):
    """Return embedded points of a model's manifold, after checking them, and the shape they were in.

    Columns are taken in the order of the model's own, whatever their names.
    """
    X = np.atleast_1d(np.asarray(validation.as_numbers(X, field.manifold), dtype=float))
    if not len(X):
        raise ValueError("X has no rows: expected at least one point")
    bad = np.flatnonzero(~np.isfinite(X).reshape(len(X), -1).all(axis=1)) if X.ndim > 1 else []
    if X.ndim < 2 or len(bad):
        raise ValueError(f"X has the shape {X.shape}: expected one point per row" if X.ndim < 2 else
                         f"X[{bad[0]}] = {X[bad[0]]} is not finite")
    return validation.as_points(field.manifold, X.reshape(len(X), -1), "raise"), X.shape


def progress(verbose, total, what, unit):
    """Return a progress bar that counts to `total`; one that shows nothing unless `verbose`."""
    if verbose:
        from tqdm.auto import tqdm  # which warns in notebooks that lack its widgets, so only on request
    else:
        from tqdm import tqdm
    return tqdm(total=total, desc=what, unit=f" {unit}s", disable=not verbose)
