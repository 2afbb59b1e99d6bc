r"""Tests of hypotheses by heat kernels: two samples, a sample and a density, a sample and the uniform law.

The heat kernel is positive definite, and so a distance between laws,

.. math:: \mathrm{MMD}_t^2(P,Q)=\iint k_t\,d(P-Q)\,d(P-Q)=\int(P_{t/2}p-P_{t/2}q)^2 ,

the squared distance of the two densities after both have diffused for t/2; it is zero only if P = Q. Small times see
details, large ones the whole. Every test here looks at several times at once: each estimate of
:math:`\mathrm{MMD}_t^2` is standardised by mean and standard deviation over the resamples *and* the data, which treats
all of them alike, so that the largest of the standardised values still has an exact p-value.
"""
from __future__ import annotations

import numbers
import warnings
from dataclasses import dataclass, field

import numpy as np
from scipy.special import logsumexp
from sklearn.utils.validation import check_is_fitted

from . import _validation as validation
from .bandwidth import search_range
from .choice import sources
from .engines import Sources
from .errors import UnsupportedError
from .estimator import RDKSEstimator
from .gram import log_kernel_blocks
from .harmonics import harmonics_for, moments_of, unsupported

__all__ = ["KernelTest", "goodness_of_fit_test", "two_sample_test"]

# Points from which on coefficients replace the kernel matrix where there are any, and up to which a matrix is computed.
_MATRIX, _MOST = 1500, 20_000
# Points up to which a small matrix is faster than an engine.
_SMALL = 150
# Accuracy of the transforms, relative to the kernel's peak.
_EPS = 1e-12
# Bandwidths of "auto".
_COUNT = 8
# Steps of finite differences: along geodesics in units of sqrt(t), and in time relative to t.
_STEP, _TICK = 0.01, 0.005
_FIRST = {1: 8 / 12, 2: -1 / 12, -1: -8 / 12, -2: 1 / 12}
_SECOND = {0: -30 / 12, 1: 16 / 12, -1: 16 / 12, 2: -1 / 12, -2: -1 / 12}


@dataclass(frozen=True)
class KernelTest:
    """Result of a test.

    Attributes
    ----------
    statistic : float
        The largest of the standardised values over bandwidths.
    pvalue : float
        (1 + number of resamples with at least this statistic) / (1 + number of resamples).
    null : ndarray, shape (n_resamples,)
        The statistic of the resamples.
    bandwidths : ndarray, shape (k,)
    statistics : ndarray, shape (k,)
        Unbiased estimate of the squared distance at each bandwidth, in units of a density; may be negative.
    pvalues : ndarray, shape (k,)
        Of each bandwidth by itself: which scales differ. Not corrected for their number; `pvalue` is.
    method : str
    """

    statistic: float
    pvalue: float
    null: np.ndarray = field(repr=False)
    bandwidths: np.ndarray
    statistics: np.ndarray
    pvalues: np.ndarray
    method: str


def _conclude(scaled, log_scale, bandwidths, method):
    """Make the result from values (1 + resamples, k), the data first, in units exp(log_scale)."""
    spread = scaled.std(axis=0)
    size = np.abs(scaled).max(axis=0)
    away = scaled - scaled.mean(axis=0)
    # where rounding is all there is, there is no evidence
    away = np.divide(away, spread, out=np.zeros_like(away), where=spread > 1e-12 * size)
    largest = away.max(axis=1)

    def pvalue(values):
        return (1 + np.count_nonzero(values[1:] >= values[0] - 1e-9, axis=0)) / len(values)

    with np.errstate(over="ignore", under="ignore"):
        statistics = scaled[0] * np.exp(log_scale)
    return KernelTest(float(largest[0]), float(pvalue(largest)), largest[1:], np.asarray(bandwidths), statistics,
                      np.asarray(pvalue(away)), method)


def _bandwidths(bandwidth, manifold, Z):
    """Return the bandwidths asked for, or a geometric sequence on the scales of the points Z, whatever their order."""
    if isinstance(bandwidth, str):
        if bandwidth != "auto":
            raise ValueError(f"bandwidth = {bandwidth!r}: expected 'auto', a positive number or a sequence of these")
        distinct = np.unique(Z, axis=0)
        if len(distinct) < 2:
            raise ValueError("all points are equal: there is no scale to choose a bandwidth from; pass a number")
        low, high = search_range(sources(manifold, distinct, np.ones(len(distinct)), 0.0))
        low, high = max(4 * low, manifold.shortest_time), min(high, 0.5 * manifold.max_time)
        return np.sqrt(np.geomspace(min(low, high), high, _COUNT))
    values = np.atleast_1d(np.asarray(bandwidth))
    if values.dtype.kind not in "iuf" or values.ndim != 1 or not values.size or not (
            (values > 0) & np.isfinite(values)).all():
        raise ValueError(f"bandwidth = {bandwidth!r}: expected 'auto', a positive number or a sequence of these")
    return values.astype(float)


def _count(name, value, least):
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} = {value!r}: expected an integer >= {least}")
    return int(value)


def _symmetric(manifold):
    """Raise UnsupportedError where the kernel is not symmetric."""
    if manifold.has_drift:
        raise UnsupportedError(f"the kernel of {manifold!r} has a drift and is not symmetric; the points are those of "
                               "Euclidean space, whose kernel is")


# two samples

def two_sample_test(X, Y, manifold="auto", *, bandwidth="auto", n_permutations=499, method="auto", subset=None,
                    check_points="raise", random_state=None):
    r"""Test whether two samples come from one law.

    Parameters
    ----------
    X, Y : array-like, shape (n, p) and (m, p), or (n, *point_shape) and (m, *point_shape)
        Independent observations, at least two of each.
    manifold : Manifold, geomstats space or str
        As for :class:`rdks.RDKSEstimator`; "auto" looks at both samples.
    bandwidth : float, sequence of float or "auto"
        Bandwidths :math:`\sqrt t` of the kernels. "auto": eight in geometric sequence, from the median distance to
        the nearest neighbour in the pooled sample to the scale of the whole, whoever belongs to which sample.
    n_permutations : int
        Random permutations of the labels.
    method : {"auto", "matrix", "spectral"}
        Sums over the kernel matrix, never held as a whole, in a time that grows with :math:`(n+m)^2`; or
        eigenfunction coefficients of each permutation, linear in n + m, where there are fast transforms (circles, tori,
        boxes, spheres of up to three dimensions and quotients). "auto" is the latter from 1500 points on.
    subset : int, optional
        Use a random part of the pooled sample of this size, for kernel matrices of more than 20,000 points, which are
        refused.
    check_points : {"raise", "project", "ignore"}
        As for :class:`rdks.RDKSEstimator`.
    random_state : None, int, RandomState or Generator

    Returns
    -------
    KernelTest
        Under the null hypothesis :math:`P(\mathrm{pvalue}\le\alpha)\le\alpha` for every alpha and any
        sample size: the labels are exchangeable.

    Raises
    ------
    PointError
        If a row is not on the manifold.
    UnsupportedError
        For a process with a drift, and for ``method="spectral"`` where there is no transform.
    ValueError
        For wrong parameters and too few or too many points.

    Notes
    -----
    At each bandwidth the unbiased estimate

    .. math:: \frac1{n(n-1)}\sum_{i\ne j}k(x_i,x_j)+\frac1{m(m-1)}\sum_{i\ne j}k(y_i,y_j)
              -\frac2{nm}\sum_{ij}k(x_i,y_j)

    of Gretton et al., JMLR 13 (2012) 723, equation 3; several of them combined as the module says, in the spirit
    of Schrab et al., JMLR 24 (2023) 194. On spaces whose kernel is a small-time approximation it may not be positive
    definite: the level is exact nevertheless, the power against every alternative is not promised.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.hypothesis import two_sample_test
    >>> from rdks.manifolds import Circle
    >>> rng = np.random.default_rng(0)
    >>> X, Y = rng.normal(0.0, 1.0, (50, 1)), rng.normal(1.0, 1.0, (60, 1))
    >>> two_sample_test(X, Y, Circle(), n_permutations=99, random_state=0).pvalue
    0.01
    """
    n_permutations = _count("n_permutations", n_permutations, 1)
    if method not in ("auto", "matrix", "spectral"):
        raise ValueError(f"method = {method!r}: expected 'auto', 'matrix' or 'spectral'")
    manifold, [A, B] = _points(manifold, check_points, X=X, Y=Y)
    _symmetric(manifold)
    rng = validation.as_generator(random_state)
    Z, first = np.concatenate([A, B]), np.repeat([1.0, 0.0], [len(A), len(B)])
    if subset is not None and _count("subset", subset, 4) < len(Z):
        part = np.sort(rng.choice(len(Z), subset, replace=False))
        Z, first = Z[part], first[part]
    n, m = int(first.sum()), int((1 - first).sum())
    if min(n, m) < 2:
        raise ValueError(f"the samples have {n} and {m} points; expected at least 2 of each")
    h = _bandwidths(bandwidth, manifold, Z)
    why = unsupported(manifold) or (
        "" if harmonics_for(manifold, float(h.min())**2, _EPS) else "so many eigenfunctions do not fit into memory")
    if method == "spectral" and why:
        raise UnsupportedError(f"method='spectral' cannot serve {manifold!r}: {why}")
    spectral = method == "spectral" or (method == "auto" and len(Z) >= _MATRIX and not why)
    if not spectral and len(Z) > _MOST:
        raise ValueError(f"{len(Z)} points are too many for their kernel matrix; pass subset={_MOST} or less" +
                         (" or method='spectral'" if not why else f" (no method='spectral', as {why})"))
    labels = rng.permuted(np.tile(first, (n_permutations + 1, 1)), axis=1)
    labels[0] = first
    sums = _spectral_sums if spectral else _matrix_sums
    xx, yy, everything, log_scale = sums(manifold, Z, labels, h * h)
    xy = 0.5 * (everything - xx - yy)
    values = xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * xy / (n * m)
    return _conclude(values, log_scale, h, "spectral" if spectral else "matrix")


def _points(manifold, check_points, **samples):
    """Read samples as points of one manifold: the manifold, and the embedded samples."""
    reader = RDKSEstimator(manifold, check_points=check_points)
    reader._check_parameters()
    read = {name: reader._read(S)[:2] for name, S in samples.items()}
    shapes = {name: layout for name, (_, layout) in read.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"the samples have points of different shapes: {shapes}")
    pooled = np.concatenate([S for S, _ in read.values()])
    manifold, _ = reader._resolve(pooled, next(iter(shapes.values())), None)
    return manifold, [validation.as_points(manifold, S, check_points) for S, _ in read.values()]


def _matrix_sums(manifold, Z, labels, times):
    """Sum the kernel over pairs of different points.

    Parameters
    ----------
    manifold : Manifold
    Z : ndarray, shape (N, embed_dim)
    labels : ndarray, shape (B, N)
        1 for the first sample, 0 for the second.
    times : ndarray, shape (k,)

    Returns
    -------
    xx, yy, everything : ndarray, shape (B, k)
        Sums within the samples and over all pairs, i and j different, in units of exp(log_scale). A constant that all
        values of the kernel have in common is left out: it is no part of the differences.
    log_scale : ndarray, shape (k,)
    """
    labels_t = np.ascontiguousarray(labels.T)
    xx, yy, everything = np.zeros((3, len(labels), len(times)))
    log_scale = np.empty(len(times))
    for k, t in enumerate(times):
        log_scale[k] = Sources(manifold, Z, np.ones(len(Z)), float(t)).log_self().max()
        level = None
        for rows, logs in log_kernel_blocks(manifold, Z, Z, float(t)):
            with np.errstate(over="ignore"):
                K = np.exp(logs - log_scale[k])
            each = np.arange(rows.stop - rows.start)
            level = K.mean() if level is None else level
            K -= level
            K[each, rows.start + each] = 0.0
            total, inside = K.sum(axis=1), K @ labels_t
            mine = labels_t[rows]
            xx[:, k] += np.einsum("ib,ib->b", mine, inside)
            yy[:, k] += np.einsum("ib,ib->b", 1 - mine, total[:, None] - inside)
            everything[:, k] += total.sum()
    return xx, yy, everything, log_scale


def _spectral_sums(manifold, Z, labels, times):
    """Return what `_matrix_sums` does, by coefficients of the first sample in each permutation; one transform each."""
    shortest = float(times.min())
    harmonics = harmonics_for(manifold, shortest, _EPS)
    decay = np.exp(-0.5 * np.multiply.outer(harmonics.eigenvalue, times))
    # level 0 is what all values of the kernel have in common
    decay[harmonics.eigenvalue == 0] = 0.0
    peak = np.array([Sources(manifold, Z, np.ones(len(Z)), float(t)).log_self() for t in times])
    log_scale = peak.max(axis=1)
    constant = np.exp(-manifold.log_volume - log_scale)
    own = np.exp(peak - log_scale[:, None]) - constant[:, None]
    unit = np.exp(manifold.log_unit - log_scale) / manifold.n_images

    def pairs(coef, weight):
        return harmonics.power(coef) @ decay * unit - own @ weight

    ones = np.ones(len(Z))
    whole = moments_of(manifold, harmonics, Z, ones, _EPS)
    xx, yy = np.empty((2, len(labels), len(times)))
    for b, first in enumerate(labels):
        coef = moments_of(manifold, harmonics, Z, first, _EPS)
        xx[b], yy[b] = pairs(coef, first), pairs(whole - coef, 1 - first)
    return xx, yy, pairs(whole, ones), log_scale


# a sample and a density

class _Uniform:
    """The uniform law, as a model."""

    def __init__(self, manifold):
        if not manifold.log_volume < np.inf:
            raise ValueError(f"{manifold!r} has infinite volume, on which there is no uniform law")
        self.manifold = manifold

    def sample(self, n, rng):
        return self.manifold.random(n, rng)

    def log_density(self, Z, t):
        return np.full(len(Z), -self.manifold.log_volume)

    def log_overlap(self, t):
        return -self.manifold.log_volume

    def gradient(self, Z):
        return np.zeros((len(Z), self.manifold.embed_dim))


class _Fitted:
    """A fitted estimator, as a model."""

    def __init__(self, est):
        check_is_fitted(est)
        self.manifold, self.total = est.manifold_, est._sum

    def sample(self, n, rng):
        return self.total.sample(n, rng)

    def log_density(self, Z, t):
        return self.total.evaluate(Z, t).log_density

    def log_overlap(self, t):
        """Log of the integral of k_t over the law twice: sources of time a and b meet after a + b + t."""
        total = self.total
        if total.cells is not None:
            return total.log_overlap(total.clock + t)
        logs, share = np.empty(len(total.Z)), total.share
        for time in np.unique(total.time):
            mine = total.time == time
            logs[mine] = total.evaluate(total.Z[mine], float(time) + t).log_density
        return float(logsumexp(logs, b=share))

    def gradient(self, Z):
        return self.total.evaluate(Z, 0.0, 1).gradient


class _Score:
    """Any other object that knows its manifold and its score, as a model for the Stein test."""

    def __init__(self, model):
        self.manifold, self.model = model.manifold_, model

    def gradient(self, Z):
        """Embedded gradients: coordinates in an orthonormal frame, which the chart writes as `push_gradient` does."""
        manifold = self.manifold
        X = manifold.unembed(Z)
        written = np.asarray(self.model.score_field(X), dtype=float).reshape(len(Z), -1)
        frame = manifold.frame(Z)
        pushed = np.array([manifold.push_gradient(X, frame[:, j]).reshape(len(Z), -1) for j in range(manifold.dim)])
        return np.array([np.linalg.lstsq(pushed[:, i].T, written[i], rcond=None)[0] @ frame[i]
                         for i in range(len(Z))])


def goodness_of_fit_test(model, X, *, manifold="auto", method="mmd", bandwidth="auto", n_bootstrap=199,
                         random_state=None):
    r"""Test whether a sample comes from a given density, or from the uniform law.

    Parameters
    ----------
    model : RDKSEstimator, score model or None
        A fitted estimator; None for the uniform law on a space of finite volume; for ``method="stein"`` any object with
        ``manifold_`` and ``score_field(X)`` too.
    X : array-like, shape (n, p) or (n, *point_shape)
        Independent observations, at least two, **which the model was not fitted to**: the model is the null hypothesis,
        not an estimate of it.
    manifold : Manifold, geomstats space or str
        Where the data live; for ``model=None`` only.
    method : {"mmd", "stein"}
        The distance of sample and model, with the model's side in closed form and a p-value by samples from the model:
        exact in level. Or the kernel Stein discrepancy, which needs the score only, no normalisation and no samples,
        with a p-value by the wild bootstrap, which is right for large n.
    bandwidth : float, sequence of float or "auto"
        "auto": eight ("stein": three) in geometric sequence over the scales of a sample, of the model for "mmd", of X
        for "stein".
    n_bootstrap : int
        Samples, or wild bootstraps.
    random_state : None, int, RandomState or Generator

    Returns
    -------
    KernelTest

    Raises
    ------
    PointError
        If a row is not on the manifold.
    UnsupportedError
        For a process with a drift; for "mmd" and a model that is not an RDKSEstimator; for "stein" on spaces whose
        heat kernel is approximate or that have no tangent vectors.
    ValueError
        For wrong parameters, too few points, and a uniform law on a space of infinite volume.

    Notes
    -----
    *mmd.* For :math:`\hat p=\sum_iw_ik_{\tau_i}(\cdot,Z_i)` the semigroup gives the model's side exactly: the mean of
    the kernel over the model is the model at a later time, and so

    .. math:: \mathrm{MMD}_t^2\approx\frac1{n(n-1)}\sum_{a\ne b}k_t(x_a,x_b)-\frac2n\sum_a\hat p_t(x_a)
              +\sum_{ij}w_iw_jk_{\tau_i+\tau_j+t}(Z_i,Z_j),

    unbiased, without sampling from the model. Its law under the null hypothesis is that for samples
    from the model, which are drawn exactly. For the uniform law the last two terms are :math:`-1/\mathrm{vol}`: a
    Sobolev test of uniformity with weights :math:`e^{-\lambda t/2}` (Giné, Ann. Stat. 3 (1975) 1243).

    *stein.* With :math:`Af=\Delta f+\langle\nabla\log p,\nabla f\rangle`, whose mean under p is 0 for every smooth f
    (on closed spaces, with reflecting walls, or where p decays),

    .. math:: u(x,y)=A_xA_yk_t(x,y)=4\partial_t^2k_t+2\partial_t(S_x+S_y)k_t+S_xS_yk_t,\qquad
              S=\langle\nabla\log p,\nabla\rangle,

    as :math:`\Delta_xk_t=\Delta_yk_t=2\partial_tk_t` (derived here; the second-order Stein operator of Xu and Matsuda,
    ICML 2021, section 4). Slopes along geodesics and derivatives in time are differences of fourth order,
    with an error of some 1e-8 of the largest value of u (measured against closed forms). The statistic is the mean of
    u over pairs, and the wild bootstrap multiplies it by random signs (Chwialkowski, Strathmann and Gretton, ICML
    2016). The work is about 37 kernels for each pair of observations and bandwidth.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.hypothesis import goodness_of_fit_test
    >>> from rdks.manifolds import Circle
    >>> X = np.random.default_rng(0).normal(0.0, 1.0, (40, 1))
    >>> goodness_of_fit_test(None, X, manifold=Circle(), n_bootstrap=99, random_state=0).pvalue
    0.01
    """
    n_bootstrap = _count("n_bootstrap", n_bootstrap, 1)
    if method not in ("mmd", "stein"):
        raise ValueError(f"method = {method!r}: expected 'mmd' or 'stein'")
    if model is None:
        manifold, [Z] = _points(manifold, "raise", X=X)
        law = _Uniform(manifold)
    elif isinstance(model, RDKSEstimator):
        _, Z, _ = model._query(X)
        law = _Fitted(model)
        _warn_of_training(model, Z)
    elif method == "mmd":
        raise UnsupportedError(f"method='mmd' needs an RDKSEstimator or None, found {type(model).__name__}, of which "
                               "the diffused density is not known in closed form; use method='stein'")
    else:
        manifold, [Z] = _points(model.manifold_, "raise", X=X)
        law = _Score(model)
    _symmetric(law.manifold)
    if len(Z) < 2:
        raise ValueError("X has one point (n_samples=1); expected at least 2")
    rng = validation.as_generator(random_state)
    if method == "stein":
        return _stein_test(law, Z, bandwidth, n_bootstrap, rng)
    draws = law.sample(len(Z) * n_bootstrap, rng)
    # the scale must not depend on which of the samples is the data: a sample of its own
    h = _bandwidths(bandwidth, law.manifold, law.sample(min(max(len(Z), 100), 2000), rng))
    return _mmd_test(law, [Z, *np.split(draws, n_bootstrap)], h)


def _warn_of_training(model, Z):
    if model.manifold_.kernel == "basis" or model._sum.cells is not None:
        return
    known = {row.tobytes() for row in model._sum.Z}
    count = sum(row.tobytes() in known for row in np.ascontiguousarray(Z))
    if count:
        warnings.warn(f"{count} of {len(Z)} rows of X are observations that the model was fitted to; the test supposes "
                      "data that the model has not seen", UserWarning, stacklevel=3)


def _mmd_test(law, samples, h):
    """Compare each sample with the law."""
    n, manifold = len(samples[0]), law.manifold
    pooled, engines = np.concatenate(samples), [sources(manifold, S, np.ones(n), 0.0) for S in samples]
    values, log_scale = np.empty((len(samples), len(h))), np.empty(len(h))
    for k, t in enumerate(h * h):
        t = float(t)
        cross = logsumexp(law.log_density(pooled, t).reshape(len(samples), n), axis=1) - np.log(n)
        # leave-one-out sums have weights 1/n
        own = np.array([_log_pairs(engine, t) for engine in engines]) - np.log(n - 1)
        overlap = law.log_overlap(t)
        log_scale[k] = max(cross.max(), own.max(), overlap)
        values[:, k] = np.exp(own - log_scale[k]) - 2 * np.exp(cross - log_scale[k]) + np.exp(overlap - log_scale[k])
    return _conclude(values, log_scale, h, "mmd")


def _log_pairs(engine, t):
    """Log of the sum of the kernel over pairs of different sources, over their number."""
    if engine.manifold.kernel != "factors" or len(engine.Z) > _SMALL:
        logs = engine.leave_one_out(t)
    else:  # one small matrix takes less time than an engine's preparations
        [(_, logs)] = log_kernel_blocks(engine.manifold, engine.Z, engine.Z, t)
        np.fill_diagonal(logs, -np.inf)
        logs -= np.log(len(engine.Z))
    top = logs.max()
    return top + np.log(np.exp(logs - top).sum())


def _stein_test(law, Z, bandwidth, n_bootstrap, rng):
    manifold, n = law.manifold, len(Z)
    if manifold.kernel == "basis" or manifold.exactness == "asymptotic":
        raise UnsupportedError(f"method='stein' needs the exact heat kernel of a manifold, which {manifold!r} has not; "
                               "use method='mmd'")
    if n > _MOST // 4:
        raise ValueError(f"method='stein' with {n} points: expected at most {_MOST // 4}. Pass a random part of X")
    h = _bandwidths(bandwidth, manifold, Z)
    if isinstance(bandwidth, str):
        h = h[[_COUNT // 2 - 1, _COUNT // 2 + 1, _COUNT - 1]]
    gradient = law.gradient(Z)
    signs = rng.choice([-1.0, 1.0], (n_bootstrap + 1, n))
    signs[0] = 1.0
    values, log_scale = np.empty((n_bootstrap + 1, len(h))), np.empty(len(h))
    for k, t in enumerate(h * h):
        U, log_scale[k] = _stein_matrix(manifold, Z, gradient, float(t))
        np.fill_diagonal(U, 0.0)
        values[:, k] = np.einsum("bi,bi->b", signs, signs @ U) / (n * (n - 1))
    return _conclude(values, log_scale, h, "stein")


def _stein_matrix(manifold, Z, gradient, t):
    """Return A_x A_y k_t at all pairs of points, (n, n), in units exp(log_scale), and log_scale."""
    n = len(Z)
    size = np.sqrt(np.einsum("ij,ij->i", gradient, gradient))
    direction = np.divide(gradient, size[:, None], out=np.zeros_like(gradient), where=size[:, None] > 0)
    step = _STEP * np.sqrt(t)
    moved = {k: manifold.exp(Z, k * step * direction) for k in _FIRST}
    log_scale = float(Sources(manifold, Z, np.ones(n), t).log_self().max())

    def kernel(A, B, ticks=0):
        blocks = log_kernel_blocks(manifold, A, B, t * (1 + ticks * _TICK))
        return np.concatenate([np.exp(logs - log_scale) for _, logs in blocks])

    def slope(ticks):
        """S_x k, for x the rows."""
        return size[:, None] / step * sum(c * kernel(moved[k], Z, ticks) for k, c in _FIRST.items())

    U = 4 / (_TICK * t) ** 2 * sum(c * kernel(Z, Z, k) for k, c in _SECOND.items())
    mixed = 2 / (_TICK * t) * sum(c * slope(k) for k, c in _FIRST.items())
    U += mixed + mixed.T
    twice = sum(c * d * kernel(moved[k], moved[m]) for k, c in _FIRST.items() for m, d in _FIRST.items())
    U += np.multiply.outer(size, size) / step**2 * twice
    return 0.5 * (U + U.T), log_scale
