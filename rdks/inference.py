r"""How well a fitted density is known: bands, influence, effective sample sizes, regions and their probabilities.

A fitted density is a weighted mean of kernels, :math:`\hat p(x)=\sum_iw_ik_{\tau_i}(x,X_i)`, so its sampling error
follows from the kernel values themselves. What is estimated here is the error about the *smoothed* density
:math:`E\hat p(x)=\int k(x,y)p(y)\,dy`: smoothing bias is not part of it, and one fit does not know it.

Everything is computed from the shares :math:`s_i(x)=w_ik_{\tau_i}(x,X_i)/\hat p(x)`, which sum to one at each point and
come from logarithms: nothing under- or overflows however far a point is from the data.
"""
from __future__ import annotations

import numbers
from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import csr_array
from scipy.special import logsumexp
from scipy.stats import t as student
from sklearn.utils.validation import check_is_fitted

from . import _validation as validation
from .balls import ball_law
from .errors import UnsupportedError
from .gram import log_kernel_blocks

__all__ = ["DensityBands", "HighestDensityRegion", "Influence", "RegionProbability", "ball_probability",
           "density_bands", "effective_sample_size", "highest_density_region", "influence", "region_probability"]

# Random numbers of a bootstrap that are held at a time.
_DRAWS = 4_000_000


def _state(est, t, observations=True):
    """Return the sources of a fitted estimator after a time `t`."""
    check_is_fitted(est)
    total = est._sum
    if observations and total.cells is not None:
        raise UnsupportedError("this fit is a stream that keeps coefficients and a summary in cells, not its "
                               "observations, on which sampling errors depend. Fit with engine='auto'")
    t = validation.as_time(t)
    return total.at(total.time + t) if t else total


def _level(name, value):
    """Return a number, or an array of numbers, between 0 and 1."""
    values = np.asarray(value)
    if values.dtype.kind not in "iuf" or not ((values > 0) & (values < 1)).all() or values.ndim > 1 or not values.size:
        raise ValueError(f"{name} = {value!r}: expected numbers between 0 and 1, both excluded")
    return values.astype(float)


def _count(name, value, least):
    """Return an integer of at least `least`."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} = {value!r}: expected an integer >= {least}")
    return int(value)


def _weights(est, total):
    """Return the weights of the observations, which sum to one."""
    return total.share if est._owner is None else est._owner[1]


def _shares(est, total, Z):
    """Yield (rows of Z, log density, shares by observation (rows, n)) in blocks; the rows of the shares sum to one.

    In a mixture an observation has all the sources that come from it, and its part of the uniform law.
    """
    with np.errstate(divide="ignore"):
        log_weight = np.log(total.share)
    if est._owner is not None:
        owner, weight = est._owner
        own = owner >= 0
        spread = csr_array((np.ones(own.sum()), (owner[own], np.flatnonzero(own))), shape=(len(weight), len(owner)))
    for rows, logs in log_kernel_blocks(total.manifold, Z, total.Z, total.time):
        logs += log_weight
        log_density = logsumexp(logs, axis=1)
        s = np.exp(logs - log_density[:, None])
        if est._owner is not None:
            s = (spread @ s.T).T + s[:, ~own].sum(axis=1)[:, None] * weight
        yield rows, log_density, s


# bands

@dataclass(frozen=True)
class DensityBands:
    """Pointwise confidence bands of a density, all on the log scale.

    Attributes
    ----------
    log_density : ndarray, shape (q,)
        The estimate.
    lower, upper : ndarray, shape (q,)
        Ends of the interval for the log of the smoothed density at each point.
    standard_error : ndarray, shape (q,)
        Of the log density: the standard error of the density relative to it.
    effective_sample_size : ndarray, shape (q,)
        Number of observations that matter at each point; below about 4 the interval is too short.
    level : float
    method : str
    """

    log_density: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    standard_error: np.ndarray
    effective_sample_size: np.ndarray
    level: float
    method: str


def density_bands(est, X, *, level=0.95, method="asymptotic", n_bootstrap=999, t=None, random_state=None):
    r"""Compute pointwise confidence bands for the smoothed density :math:`E\hat p(x)`.

    Parameters
    ----------
    est : RDKSEstimator
        Fitted. Observations are taken as independent, weights and bandwidth as fixed.
    X : array-like, shape (q, p) or (q, *point_shape)
        Where to compute them.
    level : float
        Probability that an interval covers, point by point (not for all points at once).
    method : {"asymptotic", "bootstrap"}
        A t interval from the variance of the kernel values, or the studentised Bayesian bootstrap: observations are
        given independent exponential weights.
    n_bootstrap : int
        Replicates of the bootstrap.
    t : float, optional
        Diffusion time since the fitted density.
    random_state : None, int, RandomState or Generator
        For the bootstrap.

    Returns
    -------
    DensityBands

    Raises
    ------
    UnsupportedError
        For a stream that has not kept its observations, and where kernels depend on neighbours.
    ValueError
        With a single observation, which says nothing of a spread, and for a wrong parameter.

    Notes
    -----
    With shares :math:`s_i=w_ik_i(x)/\hat p(x)` and :math:`S_m=\sum_iw_i^m`, the squared relative standard error is

    .. math:: V=\frac{S_2}{S_2-2S_3+S_2^2}\sum_i(s_i-w_i)^2
              =\frac{S_2}{S_2-2S_3+S_2^2}\sum_iw_i^2\Bigl(\frac{k_i}{\hat p}-1\Bigr)^2 ,

    which for independent observations and fixed weights is an unbiased estimate of the variance of
    :math:`\hat p(x)`, over :math:`\hat p^2` (for equal weights the usual sample variance over n; derived here). The
    interval is :math:`\log\hat p\pm q\sqrt V`, with q the quantile of Student's t with
    :math:`\max(n_\mathrm{eff}(x)-1,1)` degrees of freedom, :math:`n_\mathrm{eff}=1/\sum_is_i^2`: where few
    observations matter their spread is not known either. The bootstrap replaces q by quantiles of
    :math:`(\log\hat p^*-\log\hat p)/\sqrt{V^*}`. Exponential weights rather than counts, so that no replicate is
    without the observations near x. In adaptive fits and mixtures the kernel of an observation is all that comes from
    it; shapes and weights of smoothers are taken for fixed, which they are not: there, bands are too narrow.

    **What the bands are not.** They are bands for the smoothed density, the truth diffused for the time
    :math:`h^2`; the bias of smoothing is not corrected. Nor do they count that the bandwidth was chosen
    from the data. Coverage of nominal 0.95 for normal data (measured, 3000 replicates, n from 50 to 1000): 0.95 to 0.97
    where the effective sample size is above 4; 0.90 to 0.95 where it is about 2; no band helps where it is 1, as
    whether an observation came to lie there at all is the whole question.

    References
    ----------
    Wand and Jones, Kernel Smoothing (1995), section 2.5 for the variance; Rubin, Ann. Stat. 9 (1981) 130, and
    Praestgaard and Wellner, Ann. Prob. 21 (1993) 2053 for the weights; Hall, The Bootstrap and Edgeworth Expansion
    (1992), section 3.6, for studentising.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks import RDKSEstimator
    >>> from rdks.inference import density_bands
    >>> X = np.random.default_rng(0).standard_normal((500, 1))
    >>> bands = density_bands(RDKSEstimator(bandwidth=0.3).fit(X), [[0.0]])
    >>> smoothed = -0.5 * np.log(2 * np.pi * 1.09)  # N(0, 1) diffused for 0.09
    >>> bool(bands.lower[0] < smoothed < bands.upper[0])
    True
    """
    level = float(_level("level", level))
    if method not in ("asymptotic", "bootstrap"):
        raise ValueError(f"method = {method!r}: expected 'asymptotic' or 'bootstrap'")
    n_bootstrap = _count("n_bootstrap", n_bootstrap, 20)
    total = _state(est, t)
    _, Z, _ = est._query(X)
    w = _weights(est, total)
    correction = _correction(w)
    log_density, variance, effective = np.empty((3, len(Z)))
    quantile = np.empty((2, len(Z)))
    if method == "bootstrap":
        batches = -(-n_bootstrap // max(1, _DRAWS // len(w)))
        seeds = validation.as_generator(random_state).integers(2**63, size=batches)
    for rows, logs, s in _shares(est, total, Z):
        away = s - w
        log_density[rows] = logs
        variance[rows] = correction * np.einsum("qi,qi->q", away, away)
        effective[rows] = 1 / np.einsum("qi,qi->q", s, s)
        if method == "bootstrap":
            counts = np.diff(np.linspace(0, n_bootstrap, batches + 1).astype(int))
            ratio = np.concatenate([_replicates(s, away, w, count, seed)
                                    for count, seed in zip(counts, seeds, strict=True)])
            # of replicates over the estimate, studentised; both have the same correction
            quantile[:, rows] = np.quantile(ratio, [0.5 - 0.5 * level, 0.5 + 0.5 * level], axis=0) / np.sqrt(correction)
    if method == "asymptotic":
        quantile[1] = student.ppf(0.5 + 0.5 * level, np.maximum(effective - 1, 1))
        quantile[0] = -quantile[1]
    error = np.sqrt(variance)
    return DensityBands(log_density, log_density - quantile[1] * error, log_density - quantile[0] * error, error,
                        effective, level, method)


def _correction(w):
    """Factor that makes the sum of squares an unbiased variance; n / (n - 1) for equal weights."""
    if np.count_nonzero(w) < 2:
        raise ValueError("the fit has a single observation (n_samples=1), which says nothing of its spread; "
                         "expected at least 2")
    squares = w @ w
    # sum of w_i^2 ((1 - w_i)^2 + S_2 - w_i^2) in place of S_2 - 2 S_3 + S_2^2, which cancels for one heavy weight
    return squares / float(w**2 @ ((1 - w) ** 2 + np.maximum(squares - w**2, 0.0)))


def _replicates(s, away, w, count, seed):
    """Return (log p* - log p) / sqrt(sum of squares*) for exponential weights; shape (count, q).

    A replicate has weights w* = e w / W and shares s* = e s / P. Then p*/p = P / W, and s* - w* =
    (e / W) (away - s (P - W) / P), in which nothing cancels. The variance of the exponential weights' square
    doubles the sum of squares.
    """
    e = np.random.default_rng(seed).standard_exponential((count, len(w)))
    W = (e @ w)[:, None]
    P = e @ s.T
    shift = e @ away.T
    log_ratio = np.where(np.abs(shift) < 0.5 * W, np.log1p(np.maximum(shift / W, -0.5)), np.log(P / W))
    delta = shift / P
    e *= e
    squares = e @ (away * away).T - 2 * delta * (e @ (away * s).T) + delta**2 * (e @ (s * s).T)
    return log_ratio / np.sqrt(0.5 * squares) * W


# observations that matter

def effective_sample_size(est, X=None, *, t=None):
    r"""Return how many observations of equal weight a fit, or its value at a point, is worth.

    Parameters
    ----------
    est : RDKSEstimator
        Fitted.
    X : array-like, shape (q, p) or (q, *point_shape), optional
        Points; without them, the size for the whole fit.
    t : float, optional
        Diffusion time since the fitted density.

    Returns
    -------
    float or ndarray, shape (q,)
        :math:`1/\sum_iw_i^2` (Kish), or at each point
        :math:`(\sum_iw_ik_i)^2/\sum_i(w_ik_i)^2`, the number of equal kernels with that ratio: 1 where
        one observation is all there is, the former on a compact space after a long time.

    Raises
    ------
    UnsupportedError
        With points, for a stream that has not kept its observations.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks import RDKSEstimator
    >>> from rdks.inference import effective_sample_size
    >>> est = RDKSEstimator(bandwidth=0.1).fit(np.array([[0.0], [0.0], [5.0]]))
    >>> effective_sample_size(est), effective_sample_size(est, [[0.0], [5.0]]).round(9)
    (3.0, array([2., 1.]))
    """
    total = _state(est, t, observations=X is not None)
    if X is None:
        return float(1 / total.squares) if est._owner is None else float(1 / (est._owner[1] @ est._owner[1]))
    _, Z, _ = est._query(X)
    out = np.empty(len(Z))
    for rows, _, s in _shares(est, total, Z):
        out[rows] = 1 / np.einsum("qi,qi->q", s, s)
    return out


@dataclass(frozen=True)
class Influence:
    """What each observation does to a log density.

    Attributes
    ----------
    points : ndarray, shape (n, p) or (n, *point_shape)
        The observations as the fit holds them: those of weight zero left out, copies merged where a rule did so.
    weight : ndarray, shape (n,)
        Their weights, which sum to one.
    value : ndarray, shape (n,) or (q, n)
        Log density with the observation minus that without it: at the observation itself, or at each query.
    """

    points: np.ndarray
    weight: np.ndarray
    value: np.ndarray


def influence(est, X=None, *, t=None):
    r"""Compute what leaving out each observation changes.

    Parameters
    ----------
    est : RDKSEstimator
        Fitted, with at least two observations.
    X : array-like, shape (q, p) or (q, *point_shape), optional
        Points at which the log density is looked at; by default each observation at its own place.
    t : float, optional
        Diffusion time since the fitted density.

    Returns
    -------
    Influence
        With values, :math:`\hat p_{-i}` being the density of all other observations with weights
        :math:`w_j/(1-w_i)`,

        * without X: :math:`\log\hat p(X_i)-\log\hat p_{-i}(X_i)=\log(1-w_i+w_ik_{ii}/\hat p_{-i}(X_i))`,
          the term of the leave-one-out likelihood ratio that belongs to observation i: near 0 in a crowd, large for
          an outlier, which only itself explains;
        * with X: :math:`\log\hat p(x)-\log\hat p_{-i}(x)=\log(1-w_i)-\log(1-s_i(x))`, positive
          where observation i raises the density.

    Raises
    ------
    UnsupportedError
        For a stream that has not kept its observations, and where kernels depend on neighbours.
    ValueError
        With a single observation: without it nothing is left.

    Notes
    -----
    Deletion is exact, with the bandwidth fixed; nothing is linearised, and nothing is subtracted from sums: the
    other observations are added up by :meth:`rdks.engines.Sources.leave_one_out`, and where one share is near 1 the
    others are added up instead, in logarithms. With X the result has q n numbers. Belsley, Kuh and Welsch, Regression
    Diagnostics (1980), chapter 2, for influence by deletion.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks import RDKSEstimator
    >>> from rdks.inference import influence
    >>> est = RDKSEstimator(bandwidth=0.5).fit(np.array([[0.0], [0.1], [0.2], [9.0]]))
    >>> [round(float(v), 1) for v in influence(est).value]
    [0.1, 0.1, 0.1, 154.6]
    """
    total = _state(est, t)
    if est._owner is not None:
        raise UnsupportedError("in a mixture, and with adaptive='knn', an observation shapes the kernels of its "
                               "neighbours and the weights of the smoothers: leaving it out is another fit. Use one "
                               "bandwidth for all")
    w = total.share
    if len(w) < 2:
        raise ValueError("the fit has a single observation (n_samples=1): without it nothing is left; expected at "
                         "least 2")
    points = total.manifold.unembed(total.Z).reshape(len(w), *est._layout)
    if X is None:
        # log k_ii - log p_{-i}
        gap = total.log_self() - total.leave_one_out() + np.log1p(-w)
        with np.errstate(over="ignore"):
            value = np.where(gap < 1, np.log1p(w * np.expm1(gap)), np.logaddexp(np.log1p(-w), np.log(w) + gap))
        return Influence(points, w, value)
    _, Z, _ = est._query(X)
    value = np.empty((len(Z), len(w)))
    log_weight = np.log(w)
    for rows, logs in log_kernel_blocks(total.manifold, Z, total.Z, total.time):
        logs += log_weight
        log_density = logsumexp(logs, axis=1)
        # only the largest share can be near 1: what the others add up to
        each, top = np.arange(len(logs)), logs.argmax(axis=1)
        share = np.exp(logs - log_density[:, None])
        logs[each, top] = -np.inf
        share[each, top] = 0.0
        value[rows] = np.log1p(-w) - np.log1p(-share)
        value[rows.start + each, top] = np.log1p(-w[top]) - (logsumexp(logs, axis=1) - log_density)
    return Influence(points, w, value)


# regions

@dataclass(frozen=True)
class HighestDensityRegion:
    """The smallest region that holds a given probability: all points whose density is above a threshold.

    Fields are arrays of shape (k,) where several probabilities were asked for.

    Attributes
    ----------
    probability : float or ndarray
        As asked for.
    log_threshold : float or ndarray
        The region is where the log density is at least this.
    log_threshold_error : float or ndarray
        Its Monte-Carlo standard error.
    probability_error : float or ndarray
        Monte-Carlo standard error of the probability that the region with this threshold holds.
    volume, volume_error : float or ndarray
        Riemannian volume of this region, and its Monte-Carlo standard error.
    n_samples : int
    """

    probability: float | np.ndarray
    log_threshold: float | np.ndarray
    log_threshold_error: float | np.ndarray
    probability_error: float | np.ndarray
    volume: float | np.ndarray
    volume_error: float | np.ndarray
    n_samples: int
    _est: object = field(repr=False)
    _t: float = field(repr=False)

    def contains(self, X):
        """Say which points are in the region.

        Parameters
        ----------
        X : array-like, shape (n, p) or (n, *point_shape)

        Returns
        -------
        ndarray of bool, shape (n,), or (k, n) for several probabilities
        """
        return self._est.score_samples(X, t=self._t) >= np.expand_dims(self.log_threshold, -1)


def highest_density_region(est, probability=0.9, *, n_samples=10_000, t=None, random_state=None):
    r"""Find the smallest region that holds a probability under the fitted density.

    Parameters
    ----------
    est : RDKSEstimator
        Fitted.
    probability : float or sequence of float
        Between 0 and 1.
    n_samples : int
        Draws from the density.
    t : float, optional
        Diffusion time since the fitted density.
    random_state : None, int, RandomState or Generator

    Returns
    -------
    HighestDensityRegion

    Raises
    ------
    ValueError
        If a probability is so near 0 or 1 that fewer than ten draws decide.

    Notes
    -----
    The log density of a draw from p is a random variable of which the log threshold is the 1 - probability
    quantile (Hyndman, The American Statistician 50 (1996) 120, section 3.2): the order statistic of the draws, on any
    space. Its error is read off the order statistics one binomial standard error away. The volume is
    :math:`\int_R dx=E[1/p(Y);Y\in R]`, bounded by the inverse threshold, so its error is known too.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks import RDKSEstimator
    >>> from rdks.inference import highest_density_region
    >>> est = RDKSEstimator(bandwidth=1.0).fit(np.zeros((1, 1)))  # N(0, 1)
    >>> region = highest_density_region(est, 0.95, random_state=0)
    >>> bool(abs(region.volume - 2 * 1.96) < 4 * region.volume_error), region.contains([[0.0], [3.0]])
    (True, array([ True, False]))
    """
    a = _level("probability", probability)
    n = _count("n_samples", n_samples, 20)
    total = _state(est, t, observations=False)
    if (np.minimum(a, 1 - a) * n < 10).any():
        raise ValueError(f"probability = {probability!r} with n_samples = {n}: fewer than ten draws decide the "
                         "threshold; expected more samples")
    logs = np.sort(total.evaluate(total.sample(n, validation.as_generator(random_state))).log_density)[::-1]

    def order_statistic(part):
        return logs[np.clip(np.ceil(part * n).astype(int), 1, n) - 1]

    error = np.sqrt(a * (1 - a) / n)
    threshold = order_statistic(a)
    spread = 0.5 * (order_statistic(a - error) - order_statistic(a + error))
    volume, volume_error = np.empty((2, a.size))
    for j, c in enumerate(np.atleast_1d(threshold)):
        part = np.where(logs >= c, np.exp(np.minimum(c - logs, 0.0)), 0.0)
        with np.errstate(over="ignore"):
            volume[j], volume_error[j] = np.exp(-c) * np.array([part.mean(), part.std(ddof=1) / np.sqrt(n)])
    values = [a, threshold, spread, error, volume.reshape(a.shape), volume_error.reshape(a.shape)]
    return HighestDensityRegion(*(v if a.ndim else float(v) for v in values), n, est, validation.as_time(t))


@dataclass(frozen=True)
class RegionProbability:
    """Probability of a region under a fitted density.

    Attributes
    ----------
    probability : float
    standard_error : float
        Of the Monte-Carlo estimate; 0 for a method without sampling.
    method : {"exact", "monte_carlo"}
    """

    probability: float
    standard_error: float
    method: str


def _monte_carlo(inside):
    """Turn draws inside or outside into a probability; the error is that of a Jeffreys estimate, never 0."""
    n = len(inside)
    smooth = (np.count_nonzero(inside) + 0.5) / (n + 1)
    return RegionProbability(float(np.mean(inside)), float(np.sqrt(smooth * (1 - smooth) / n)), "monte_carlo")


def region_probability(est, indicator, *, n_samples=10_000, t=None, random_state=None):
    """Estimate the probability of a region by draws from the fitted density.

    Parameters
    ----------
    est : RDKSEstimator
        Fitted.
    indicator : callable
        Takes points, (n, p) or (n, *point_shape) as in `fit`, and returns booleans, (n,).
    n_samples : int
    t : float, optional
        Diffusion time since the fitted density.
    random_state : None, int, RandomState or Generator

    Returns
    -------
    RegionProbability
        The share of draws inside. Its standard error is sqrt(q (1 - q) / n) with q = (count + 1/2) / (n + 1), so that
        no draw inside is not taken for certainty.

    Raises
    ------
    ValueError
        If the callable does not return one boolean per point.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks import RDKSEstimator
    >>> from rdks.inference import region_probability
    >>> est = RDKSEstimator(bandwidth=1.0).fit(np.zeros((1, 2)))
    >>> half = region_probability(est, lambda X: X[:, 0] > 0, random_state=0)
    >>> bool(abs(half.probability - 0.5) < 4 * half.standard_error)
    True
    """
    n = _count("n_samples", n_samples, 1)
    total = _state(est, t, observations=False)
    Z = total.sample(n, validation.as_generator(random_state))
    inside = np.asarray(indicator(total.manifold.unembed(Z).reshape(n, *est._layout)))
    if inside.shape != (n,) or inside.dtype != bool:
        raise ValueError(f"indicator returned an array of shape {inside.shape} and type {inside.dtype} for {n} points; "
                         f"expected booleans of shape ({n},)")
    return _monte_carlo(inside)


def ball_probability(est, centre, radius, *, method="auto", n_samples=10_000, t=None, random_state=None):
    r"""Compute the probability of a geodesic ball under the fitted density.

    Parameters
    ----------
    est : RDKSEstimator
        Fitted.
    centre : array-like, shape (p,) or point_shape
        One point, in the layout of the data.
    radius : float
        In the length unit of the manifold, > 0.
    method : {"auto", "exact", "monte_carlo"}
        "auto" is "exact" where that is known, else draws; the result says which.
    n_samples : int
        Draws.
    t : float, optional
        Diffusion time since the fitted density.
    random_state : None, int, RandomState or Generator
        For the draws.

    Returns
    -------
    RegionProbability

    Raises
    ------
    UnsupportedError
        If the exact method was asked for and is not known: for products of curved spaces, kernels that are not those
        of space forms, and a ball of a quotient that overlaps its own images.

    Notes
    -----
    Exact on space forms (flat spaces, circles, spheres, hyperbolic spaces) and their quotients: the sum over
    observations of :func:`rdks.balls.ball_law`, the probability that a heat-kernel step from the observation
    ends in the ball.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks import RDKSEstimator
    >>> from rdks.inference import ball_probability
    >>> est = RDKSEstimator(bandwidth=1.0).fit(np.zeros((1, 2)))
    >>> round(ball_probability(est, [0.0, 0.0], 2.0).probability, 12)  # 1 - exp(-2)
    0.864664716763
    """
    if method not in ("auto", "exact", "monte_carlo"):
        raise ValueError(f"method = {method!r}: expected 'auto', 'exact' or 'monte_carlo'")
    if not isinstance(radius, numbers.Real) or not 0 < radius < np.inf:
        raise ValueError(f"radius = {radius!r}: expected a positive finite number")
    total = _state(est, t, observations=False)
    manifold = total.manifold
    _, Z, _ = est._query(np.asarray(centre)[None])
    why = "draws were asked for" if method == "monte_carlo" else _no_ball_law(manifold, Z, radius)
    if method == "exact" and total.cells is not None:
        why = "this fit is a stream that has not kept its observations"
    if why and method == "exact":
        raise UnsupportedError(f"method='exact': {why}. Use method='monte_carlo'")
    if why or total.cells is not None:
        draws = total.sample(_count("n_samples", n_samples, 1), validation.as_generator(random_state))
        return _monte_carlo(manifold.dist(draws, np.broadcast_to(Z, draws.shape)) <= radius)
    [factor], value, share = manifold.factors(), 0.0, total.share
    for time in np.unique(total.time):
        mine = total.time == time
        W, moved = manifold.flow(total.Z[mine], float(time))
        for image in manifold.images(Z)[:, 0]:
            rho = factor.dist(W, np.broadcast_to(image, W.shape))
            value += share[mine] @ ball_law(factor, rho, float(radius), moved)
    return RegionProbability(min(float(value), 1.0), 0.0, "exact")


def _no_ball_law(manifold, Z, radius):
    """Say why the probability of a ball around the embedded point Z is not known without draws; "" if it is."""
    if manifold.kernel != "factors" or len(manifold.factors()) != 1 or manifold.log_unit != 0:
        return f"{manifold!r} is not a space form or a quotient of one"
    images = manifold.images(Z)[:, 0]
    if len(images) > 1:
        [factor] = manifold.factors()
        nearest = factor.dist(images[1:], np.broadcast_to(images[0], images[1:].shape)).min()
        if nearest < 2 * radius:
            return (f"the ball overlaps its images on {manifold!r}, the nearest of which is at a distance of "
                    f"{nearest:.3g}")
    return ""
