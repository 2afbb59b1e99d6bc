r"""Does a model repeat its data? Distances to the nearest datum, neighbours that matter, and where to stop.

A diffusion model that knows the score of its own data exactly and runs all the way back to t = 0 ends on a datum: it
repeats. Stopped at a time t it draws from the kernel smoother of bandwidth :math:`\sqrt t`, so that early stopping *is*
the choice of a bandwidth (theory section 1.3), and what it trades can be measured: how far samples are from the data,
:func:`nearest_ratio`; how many data a score is made of, :func:`effective_neighbors`; and what new data think of the
model, the held-out likelihood, in :func:`stopping_curve` next to both.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from . import _validation as validation
from .adaptive import nearest
from .choice import sources
from .errors import require
from .estimator import RDKSEstimator
from .hypothesis import _points
from .inference import effective_sample_size
from .manifolds.base import wrap
from .resolution import merge_copies

__all__ = ["NearestRatio", "StoppingCurve", "effective_neighbors", "nearest_ratio", "neighbors_along", "stopping_curve"]

#: A sample is taken for a copy if its nearest datum is this much nearer than the second nearest.
COPY = 1 / 3
# Pairs whose distances are computed together.
_PAIRS = 2_000_000
# Candidates beyond the wanted number: on products of curved spaces chords do not quite sort as distances do.
_MORE = 3


@dataclass(frozen=True)
class NearestRatio:
    """How near samples are to the data.

    Attributes
    ----------
    distance : ndarray, shape (m,)
        Geodesic distance from each sample to the nearest datum, in the manifold's length unit.
    nearest : ndarray of int, shape (m,)
        Row of that datum.
    typical : float
        Median distance from a datum to the nearest other one.
    ratio : ndarray, shape (m,)
        ``distance / typical``: 0 for a repeated datum. For new points of the same law its median is about 1.
    gap : ndarray, shape (m,)
        Distance to the nearest datum over that to the second nearest, between 0 and 1.
    memorised : float
        Share of samples with ``gap < 1/3``. In flat space of dimension d new points have about :math:`3^{-d}` of them.
    """

    distance: np.ndarray
    nearest: np.ndarray
    typical: float
    ratio: np.ndarray
    gap: np.ndarray
    memorised: float

    @property
    def median(self):
        """Median of the ratios: 0 if most samples repeat the data, about 1 if they are as far as new data are."""
        return float(np.median(self.ratio))


def nearest_ratio(samples, X, manifold="auto", *, check_points="raise"):
    r"""Measure how near samples are to the data, next to how near the data are to each other.

    Parameters
    ----------
    samples : array-like, shape (m, p) or (m, *point_shape)
    X : array-like, shape (n, p) or (n, *point_shape)
        Data that the model was fitted to; at least three different points.
    manifold : Manifold, geomstats space or str
        As for :class:`rdks.RDKSEstimator`; "auto" looks at both.
    check_points : {"raise", "project", "ignore"}
        As for :class:`rdks.RDKSEstimator`.

    Returns
    -------
    NearestRatio

    Raises
    ------
    PointError
        If a row is not on the manifold.
    ValueError
        If fewer than three data are different from each other.

    Notes
    -----
    *Ratio.* The distance from a new point to the nearest of n data has the law of that from a datum to the nearest of
    n others, so dividing by the median of the latter (over n - 1 others) gives a median of 1 without memorisation, in
    every dimension and for every density: the distance to the closest record, as it is used in audits of
    synthetic data, made free of its unit. A median well below 1 says that samples crowd around the data, one above 1
    that they are more spread out than the data are.

    *Gap.* Whether a single sample is a copy is judged as Yoon et al. (2023) and Gu et al. (2023) do: nearest at less
    than a third of the distance of the second nearest datum. Near a point the density is flat, and then
    :math:`P(\text{gap}<g)=g^d` for a new point (derived here: the d-th power is uniform, as the volume of the smaller
    ball is given the larger): in low dimension the share has to be compared with :math:`3^{-d}`.

    Copies among the data count once. Neighbours come from a k-d tree of chords on products of flat spaces, circles and
    spheres and their quotients, elsewhere from all distances, in blocks.

    References
    ----------
    Yoon, Choi, Kwon and Ryu, Diffusion probabilistic models generalize when they fail to memorize, ICML workshop 2023.
    Gu et al., On memorization in diffusion models, arXiv:2310.02664.

    Examples
    --------
    >>> from rdks.memorisation import nearest_ratio
    >>> found = nearest_ratio([[0.0], [1.5]], [[0.0], [1.0], [3.0]])
    >>> found.typical, found.ratio, found.gap.round(3), found.memorised
    (1.0, array([0. , 0.5]), array([0.   , 0.333]), 0.5)
    """
    manifold, [Q, Z] = _points(manifold, check_points, samples=samples, X=X)
    return _compare(manifold, Q, _Data(manifold, Z))


class _Data:
    """What `nearest_ratio` needs of the data: different points, and how far they are apart."""

    def __init__(self, manifold, Z):
        self.Z = Z
        self.distinct = merge_copies(sources(manifold, Z, np.ones(len(Z)), 0.0))[0].Z  # Z itself if there are none
        if len(self.distinct) < 3:
            raise ValueError(f"X has {len(self.distinct)} different points; expected at least 3, to tell how far data "
                             "are apart")
        other = self.distinct[nearest(manifold, self.distinct, 1)[:, 0]]
        self.typical = float(np.median(manifold.dist(self.distinct, other)))


def _compare(manifold, Q, data):
    which, (first, second) = (x.T for x in _neighbors(manifold, Q, data.distinct, 2))
    gap = np.divide(first, second, out=np.zeros(len(Q)), where=second > 0)
    which = which[0] if len(data.distinct) == len(data.Z) else _neighbors(manifold, Q, data.Z, 1)[0][:, 0]
    return NearestRatio(first, which, data.typical, first / data.typical, gap, float(np.mean(gap < COPY)))


def _neighbors(manifold, Q, Z, k):
    """Find the k nearest of the points Z to each of Q: indices and geodesic distances, (len(Q), k) each."""
    which, distance = np.empty((len(Q), k), dtype=np.intp), np.empty((len(Q), k))
    treeless = manifold.kernel != "factors" or any(f.hyperbolic for f in manifold.factors())
    if not treeless:
        box = np.concatenate([np.full(f.width, f.period or 0.0) for f in manifold.factors()])

        def wrapped(W):
            return np.where(box > 0, wrap(W, np.where(box > 0, box, 1.0)), W)

        tree = cKDTree(wrapped(Z), boxsize=box if box.any() else None)
    few = min(k + _MORE, len(Z))
    step = max(1, _PAIRS // (len(Z) if treeless else few * manifold.n_images))
    for a in range(0, len(Q), step):
        rows = slice(a, min(a + step, len(Q)))
        if treeless:
            far = manifold.distances(Q[rows], Z)
            found = np.broadcast_to(np.arange(len(Z)), far.shape)
        else:
            images = manifold.images(Q[rows])
            found = np.array([tree.query(wrapped(image), k=[*range(1, few + 1)])[1] for image in images])
            far = manifold._cover_dist(images[:, :, None], Z[found])
            found, far = (np.moveaxis(x, 0, 1).reshape(len(Q[rows]), -1) for x in (found, far))
            if len(images) > 1:  # of a datum that was found by several images the nearest counts
                order = np.lexsort((far, found), axis=1)
                found, far = (np.take_along_axis(x, order, axis=1) for x in (found, far))
                far[:, 1:][found[:, 1:] == found[:, :-1]] = np.inf
        order = np.argsort(far, axis=1, kind="stable")[:, :k]
        which[rows] = np.take_along_axis(found, order, axis=1)
        distance[rows] = np.take_along_axis(far, order, axis=1)
    return which, distance


def effective_neighbors(model, X, t=None):
    r"""Return how many data the score at a point is made of.

    Parameters
    ----------
    model : RDKSEstimator
        Fitted.
    X : array-like, shape (q, p) or (q, *point_shape)
    t : float, optional
        Diffusion time since the fitted density.

    Returns
    -------
    ndarray, shape (q,)
        :math:`n_\mathrm{loc}(x)=1/\sum_iW_i(x)^2`, W the shares of the data in the density at x: 1 where a single
        datum decides, and the score points at it; n (of equal weights) on a compact space after a long time.

    See Also
    --------
    rdks.inference.effective_sample_size : The same number, also for a whole fit.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks import RDKSEstimator
    >>> from rdks.memorisation import effective_neighbors
    >>> est = RDKSEstimator(bandwidth=0.1).fit(np.array([[0.0], [1.0]]))
    >>> effective_neighbors(est, [[0.5], [1.0]]).round(9)
    array([2., 1.])
    """
    return effective_sample_size(model, X, t=t)


def neighbors_along(model, trajectory):
    r"""Follow samples from noise to data, and count the data that their score is made of on the way.

    Parameters
    ----------
    model : RDKSEstimator
        Fitted.
    trajectory : rdks.sampling.Trajectory, or (times, points)
        As :func:`rdks.sampling.reverse_sde` returns it with ``keep``: times (k,), counted from the fitted density, and
        points (k, q, \*point_shape).

    Returns
    -------
    ndarray, shape (k, q)
        :func:`effective_neighbors` at each point and time. Where a row falls to 1 the sample has chosen the datum
        that it is going to be near.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks import RDKSEstimator
    >>> from rdks.memorisation import neighbors_along
    >>> est = RDKSEstimator(bandwidth=0.1).fit(np.array([[0.0], [1.0]]))
    >>> neighbors_along(est, ([100.0, 0.0], [[[0.2]], [[0.1]]])).round(3)
    array([[2.],
           [1.]])
    """
    times, points = trajectory
    if len(times) != len(points):
        raise ValueError(f"the trajectory has {len(times)} times and points at {len(points)}; expected one set of "
                         "points for each time")
    return np.array([effective_neighbors(model, X, float(t)) for t, X in zip(times, points, strict=True)])


@dataclass(frozen=True)
class StoppingCurve:
    """What early stopping does: samples and likelihoods by the time at which a diffusion model of the data stops.

    Attributes
    ----------
    times : ndarray, shape (k,)
        Ascending; squared bandwidths.
    nearest_ratio : ndarray, shape (k,)
        Median distance from a sample to the nearest datum, over that between data; see :class:`NearestRatio`.
    memorised : ndarray, shape (k,)
        Share of samples that are copies of a datum.
    log_likelihood : ndarray, shape (k,)
        Mean log density of the held-out points.
    effective_neighbors : ndarray, shape (k,)
        Median number of data that the score at a held-out point is made of.
    fresh_ratio, fresh_memorised : float
        `nearest_ratio` and `memorised` of the held-out points in the place of samples: what to compare with.
    """

    times: np.ndarray
    nearest_ratio: np.ndarray
    memorised: np.ndarray
    log_likelihood: np.ndarray
    effective_neighbors: np.ndarray
    fresh_ratio: float
    fresh_memorised: float

    @property
    def best_time(self):
        """Stopping time of the highest held-out likelihood."""
        return float(self.times[np.argmax(self.log_likelihood)])

    def plot(self, axes=None):
        """Draw the nearest ratio above the held-out likelihood, by the stopping time.

        Parameters
        ----------
        axes : pair of matplotlib axes, optional
            By default those of a new figure.

        Returns
        -------
        pair of matplotlib axes

        Raises
        ------
        MissingDependencyError
            Without matplotlib.
        """
        if axes is None:
            pyplot = require("matplotlib.pyplot", feature="StoppingCurve.plot", extra="plot")
            _, axes = pyplot.subplots(2, 1, figsize=(6.4, 5.6), sharex=True, layout="constrained")
        top, bottom = axes
        top.plot(self.times, self.nearest_ratio, color="C0", marker="o", markersize=3)
        top.axhline(self.fresh_ratio, color="0.5", linestyle="--", linewidth=1)
        top.annotate("new data", (0.01, self.fresh_ratio), xycoords=("axes fraction", "data"), xytext=(0, 3),
                     textcoords="offset points", color="0.35", fontsize="small")
        top.set(yscale="log", ylabel="distance to nearest datum\n(median, relative to data)")
        bottom.plot(self.times, self.log_likelihood, color="C1", marker="o", markersize=3)
        best = float(self.log_likelihood.max())
        bottom.set(xscale="log", xlabel="stopping time t (squared bandwidth)",
                   ylabel="log-likelihood per held-out point")
        # far below the best one curve is as bad as another, and would flatten the top
        bottom.set_ylim(best - 1.05 * min(np.ptp(self.log_likelihood), _SHOWN) - 1e-3, best + 0.1 * _SHOWN)
        for ax in axes:
            ax.set_xscale("log")
            ax.axvline(self.best_time, color="0.5", linestyle=":", linewidth=1)
            ax.spines[["top", "right"]].set_visible(False)
        bottom.annotate("best for held-out data", (self.best_time, 0.04), xycoords=("data", "axes fraction"),
                        xytext=(4, 0), textcoords="offset points", color="0.35", fontsize="small")
        return axes


# Nats below the best likelihood that a picture shows.
_SHOWN = 4.0


def stopping_curve(X_train, X_test, times, manifold="auto", *, n_samples=1000, check_points="raise", random_state=None):
    r"""Compute what stopping at different times makes of an exact diffusion model of some data.

    Parameters
    ----------
    X_train : array-like, shape (n, p) or (n, *point_shape)
        Data that the model knows.
    X_test : array-like, shape (m, p) or (m, *point_shape)
        Data of the same law that it does not know.
    times : array-like, shape (k,)
        Stopping times, positive.
    manifold : Manifold, geomstats space or str
        As for :class:`rdks.RDKSEstimator`; "auto" looks at both.
    n_samples : int
        Samples per time. The same random numbers serve all times, so that curves are smooth.
    check_points : {"raise", "project", "ignore"}
        As for :class:`rdks.RDKSEstimator`.
    random_state : None, int, RandomState or Generator

    Returns
    -------
    StoppingCurve
        With the times in ascending order.

    Raises
    ------
    PointError, ValueError
        As :func:`nearest_ratio`; also for times that are not positive.

    Notes
    -----
    Running the exact reverse diffusion back to t gives exactly the kernel smoother of bandwidth :math:`\sqrt t` (theory
    section 1.3), so nothing is integrated here: each time is one fit, one draw and one likelihood.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.memorisation import stopping_curve
    >>> rng = np.random.default_rng(0)
    >>> train, test = rng.standard_normal((2, 100, 2))
    >>> curve = stopping_curve(train, test, [1e-6, 0.1], random_state=0)
    >>> bool(curve.memorised[0] > 0.99), bool(curve.nearest_ratio[0] < 0.05 < 0.5 < curve.nearest_ratio[1])
    (True, True)
    >>> curve.best_time
    0.1
    """
    times = np.sort(np.atleast_1d(np.asarray(times, dtype=float)))
    if times.ndim != 1 or not times.size or not ((times > 0) & (times < np.inf)).all():
        raise ValueError(f"times = {times!r}: expected positive, finite numbers")
    manifold, [Z, W] = _points(manifold, check_points, X_train=X_train, X_test=X_test)
    train, test = (manifold.unembed(A).reshape(len(A), -1) for A in (Z, W))
    data = _Data(manifold, Z)
    seed = int(validation.as_generator(random_state).integers(2**63))
    ratio, memorised, likelihood, count = (np.empty(len(times)) for _ in range(4))
    for i, t in enumerate(times):
        est = RDKSEstimator(manifold, bandwidth=float(np.sqrt(t)), check_points="project").fit(train)
        drawn = est.sample(n_samples, random_state=np.random.default_rng(seed))
        found = _compare(manifold, manifold.embed(drawn.reshape(n_samples, *manifold.point_shape)), data)
        ratio[i], memorised[i] = found.median, found.memorised
        likelihood[i] = est.score_samples(test).mean()
        count[i] = np.median(effective_neighbors(est, test))
    fresh = _compare(manifold, W, data)
    return StoppingCurve(times, ratio, memorised, likelihood, count, fresh.median, fresh.memorised)
