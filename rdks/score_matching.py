r"""Operator-informed score matching: the score of noisy data at every noise level, by linear algebra.

With eigenfunctions :math:`\psi_k` of the generator, decay rates :math:`\mu_k` and a potential
:math:`f=\sum_k\alpha_k\psi_k`, the score-matching risk at the noise level t is (theory eq. 16)

.. math:: J_t(\alpha)=\alpha^\top A_t\alpha-2b_t^\top\alpha,\qquad
          A_t=E\,\Gamma(\psi_i,\psi_j)(X_t),\quad b_t=\mu\,m(t),\quad m_k(t)=e^{-\mu_kt}E\,\psi_k(X_0),

and A is linear in the means m(t) of eigenfunctions up to twice the level. So one pass over the data gives the best
potential at every noise level, the same means of parts of the data give its cross-validated risk, and means of two
data sets add up.
"""
from __future__ import annotations

import math
import numbers
import warnings
from typing import NamedTuple

import numpy as np
from scipy.linalg import solve_triangular
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from . import _validation as validation
from .base import NoiseLevelModel
from .eigenbases import basis_for
from .engines import Evaluation
from .estimator import RDKSEstimator
from .sampling import log_likelihood
from .wiener import monotone_weights

__all__ = ["OperatorScoreMatching"]

#: Parts into which data are divided for cross-validation.
_FOLDS = 5
# Ratios of noise levels, and of levels, that cross-validation compares; and the ridges it chooses from.
_TIMES_RATIO, _LEVEL_RATIO = 2.0, 1.2
_RIDGES = (1e-2, 1e-3, 1e-4)
# Functions whose means have decayed by exp(-_FORGOTTEN) are not tried by cross-validation.
_FORGOTTEN = 20.0
# Above this number of functions two parts of the data are enough to compare levels by.
_MANY = 1000
# Functions with which the choice of a level begins.
_FIRST = 80
# Solutions that are kept by time.
_KEPT = 32
# A panel of the interpolation in log t is a factor of this.
_PANEL = 6.0
# Root of the error of the mean log density that the interpolation may make in an e-fold of time.
_CURVE_TOL = 1e-3
_CURVE_NODES = (4, 8, 16, 32)
# Without holding, an automatic smallest time is this part of the square of the bandwidth of greatest leave-one-out
# likelihood; with it the score is learned down to three times that square (of 1 to 6 the best for two of the laws of
# make_toy2d, and near it for the third), if the slowest function has then not decayed by more than exp(-_HELD_DECAY),
# and the flow goes on to a fiftieth of that.
_SHARE, _HOLD, _HELD_DECAY, _END = 0.75, 3.0, 0.2, 0.02
# Tolerance of the flow for densities.
_FLOW_TOL = 1e-8
# Points at which levels are compared by the likelihood of the flow, at most and at least, and the tolerance of that.
_HELD, _FEW_HELD, _HELD_TOL = 1000, 100, 1e-4
# Step of differences of gradients.
_STEP = 1e-5


class _Sums(NamedTuple):
    """Weighted sums over data, by part.

    Attributes
    ----------
    total : ndarray, shape (parts, M)
        Sums of the statistics times the weights.
    weight : ndarray, shape (parts,)
    """

    total: np.ndarray
    weight: np.ndarray

    def mean(self, without=None):
        """Return the means of the statistics, over all data or without one part; shape (M,)."""
        rest = np.arange(len(self.weight)) != without
        return self.total[rest].sum(axis=0) / self.weight[rest].sum()

    def parts(self):
        """Return the numbers of the parts that have data."""
        return np.flatnonzero(self.weight > 0)


def _hash(Z):
    """Return a hash of the numbers of each point; shape (n,)."""
    bits = np.ascontiguousarray(Z + 0.0).view(np.uint64)
    odd = np.random.default_rng(0).integers(0, 2**64, Z.shape[1], dtype=np.uint64) | np.uint64(1)
    mixed = np.zeros(len(Z), dtype=np.uint64)
    for column, factor in zip(bits.T, odd, strict=True):
        mixed = (mixed ^ column) * factor
        mixed ^= mixed >> np.uint64(32)
    return mixed * np.uint64(0x9E3779B97F4A7C15)


def _part(Z):
    """Assign points to parts by their hash; shape (n,).

    Copies of a point are in the same part, whatever their order and wherever they come from.
    """
    return ((_hash(Z) >> np.uint64(40)) % np.uint64(_FOLDS)).astype(int)


class _Held(NamedTuple):
    """Different points of the first part of the data, those of the least hashes: the same in whatever order they come.

    Attributes
    ----------
    Z : ndarray, shape (k, embed_dim)
    weight : ndarray, shape (k,)
    """

    Z: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, Z, weight):
        rows = (_part(Z) == 0) & (weight > 0)
        Z, weight = Z[rows], weight[rows]
        _, first, which = np.unique(_hash(Z), return_index=True, return_inverse=True)
        return cls(Z[first][:_HELD], np.bincount(which.reshape(-1), weight, len(first))[:_HELD])

    def merge(self, other):
        return self.of(np.concatenate([self.Z, other.Z]), np.concatenate([self.weight, other.weight]))


def _sums(basis, Z, weight):
    """Return the sums over points, those of weight 0 left out."""
    part = _part(Z)
    total, weights = np.zeros((_FOLDS, len(basis.moment_decay))), np.zeros(_FOLDS)
    for p in range(_FOLDS):
        rows = (part == p) & (weight > 0)
        if rows.any():
            weights[p] = weight[rows].sum()
            total[p] = weights[p] * basis.moments(Z[rows], weight[rows] / weights[p])
    return _Sums(total, weights)


def _shrunken(basis, sums, mean):
    """Shrink means level by level, by weights that do not increase with the level (theory section 4.5).

    The noise is what the means of parts differ by.
    """
    parts = sums.parts()
    if len(parts) < 2:
        raise ValueError("shrinkage='monotone' tells noise from signal by how parts of the data differ, and needs at "
                         f"least two distinct points; found {len(parts)} part with data. Use shrinkage=None")
    share = sums.weight[parts] / sums.weight.sum()
    deviation = sums.total[parts] / sums.weight[parts][:, None] - mean
    variance = share @ deviation**2 / (len(parts) - 1)
    level = np.unique(basis.moment_level, return_inverse=True)[1].reshape(-1)
    power, noise, count = (np.bincount(level, x) for x in (mean**2, variance, np.ones(len(mean))))
    return mean * monotone_weights(power, noise, np.cumsum(count))[level]


class _System:
    """The normal equations at one noise level, of the first functions.

    Parameters
    ----------
    basis : EigenBasis
    mean : ndarray, shape (M,)
        Means of the statistics under the law of the data.
    t : float
    size : int
        Number of functions.
    repair : bool
        Whether A is brought back to a positive semidefinite matrix where it is none.

    Attributes
    ----------
    A : ndarray, shape (size, size)
        Scaled by :math:`\\mu^{-1/2}` on both sides: the identity under the invariant law.
    b : ndarray, shape (size,)
        Scaled likewise.
    """

    def __init__(self, basis, mean, t, size, repair=False):
        now = mean * np.exp(-basis.moment_decay * t)
        self.root = np.sqrt(basis.decay[:size])
        self.A = basis.leading_gram(now, size)
        self.A /= self.root[:, None]
        self.A /= self.root
        self.b = self.root * basis.own(now)[:size]
        self.t, self.repair = t, repair

    def factor(self, ridge):
        r"""Return the Cholesky factor of :math:`A_\epsilon`, and :math:`b_\epsilon` (theory eq. 17)."""
        mixed = (1 - ridge) * self.A
        mixed[np.diag_indices(len(mixed))] += ridge
        try:
            return np.linalg.cholesky(mixed), (1 - ridge) * self.b
        except np.linalg.LinAlgError:
            if self.repair and ridge > 0:
                # shrunken means may be those of no measure: the nearest matrix that is one of means takes its place
                value, vector = np.linalg.eigh(self.A)
                mixed = (1 - ridge) * (vector * np.maximum(value, 0.0)) @ vector.T
                mixed[np.diag_indices(len(mixed))] += ridge
                return np.linalg.cholesky(mixed), (1 - ridge) * self.b
            raise ValueError(f"the matrix of {len(mixed)} functions is singular at the time t = {self.t:.3g}: noisy "
                             "data do not fill the space enough to determine all of them. Use ridge > 0 (1e-3), a "
                             "lower max_level or a larger time") from None

    def solve(self, ridge):
        """Return the scaled coefficients."""
        L, b = self.factor(ridge)
        return _back(L, solve_triangular(L, b, lower=True, check_finite=False))

    def risk(self, scaled):
        """Return the score-matching risks of columns of scaled coefficients."""
        return np.einsum("kl,kl->l", scaled, self.A @ scaled) - 2 * self.b @ scaled


def _back(L, y):
    return solve_triangular(L, y, lower=True, trans=1, check_finite=False)


def _trusted(manifold, level):
    """Return the distance from the centre up to which polynomials are used as they are."""
    return math.sqrt(4 * level + 2 * manifold.dim) if manifold.has_drift and level > 2 else math.inf


def _remembered(basis, t, least=1):
    """Return the number of functions whose means have not decayed to nothing at time `t`."""
    return max(int(np.searchsorted(basis.decay, _FORGOTTEN / t)), min(least, len(basis.decay)))


def _cut_levels(basis, size):
    """Return levels to compare among the first functions, of a ratio of about 1.2, and the number up to each."""
    # of functions that come after one of a higher level, as in products of parts, the first ones are left
    reached = np.maximum.accumulate(basis.level)
    every = np.unique(reached[:size])
    if size < len(reached) and reached[size] == every[-1]:  # not all functions of that level
        every = every[:-1] if len(every) > 1 else every
    levels = [int(every[-1])]
    while levels[-1] > every[0]:
        below = every[every <= levels[-1] / _LEVEL_RATIO]
        levels.append(int(below[-1]) if len(below) else int(every[0]))
    levels = np.array(levels[::-1])
    return levels, np.searchsorted(reached, levels, side="right")


def cross_validated_risk(basis, sums, min_time, ridges, sizes, verbose=False):
    r"""Cross-validate the score-matching risk, integrated over time.

    Parameters
    ----------
    basis : EigenBasis
    sums : _Sums
        By part of the data.
    min_time : float
    ridges : sequence of float
    sizes : ndarray of int, shape (k,)
        Numbers of functions, ascending.
    verbose : bool

    Returns
    -------
    ndarray, shape (len(ridges), k)
        :math:`\int_0^\infty J_s(\alpha_{t_{min}+s})\,ds` with the risk :math:`J_s` of each part of the data after the
        noise s and the coefficients of the other parts.

    Notes
    -----
    With the log of the volume, on a compact space, it bounds the mean of :math:`-\log p` over observations, p being the
    law of the reverse diffusion that ends at `min_time` (Huang, Lim and Courville, A variational perspective on
    diffusion-based generative models and score matching, 2021, theorem 3; Song, Durkan, Murray and Ermon, Maximum
    likelihood training of score-based diffusion models, 2021, theorem 3). What the model has for data of the noise
    `min_time` is asked about data without noise: that is why noise levels differ by it.

    Functions of lower levels come first, so that one Cholesky factor serves all levels. With more than 1000 functions
    two of the five parts are held out, one after the other.
    """
    parts = sums.parts()
    if sizes[-1] > _MANY:
        parts = parts[:2]
    share = sums.weight / sums.weight[parts].sum()
    risk = np.zeros((len(ridges), len(sizes)))
    last = _FORGOTTEN / (2 * basis.decay[0])
    count = max(math.ceil(math.log(last / min_time, _TIMES_RATIO)), 0) + 1
    # the trapezoidal rule in log t
    times = min_time * _TIMES_RATIO ** np.arange(count)
    weight = times * math.log(_TIMES_RATIO)
    weight[0] *= 0.5
    for t, w in zip(_progress(times, verbose), weight, strict=True):
        used, which = np.unique(np.minimum(sizes, max(_remembered(basis, t), sizes[0])), return_inverse=True)
        inside = np.arange(used[-1])[:, None] < used
        for p in parts:
            train = _System(basis, sums.mean(p), t, used[-1])
            held = _System(basis, sums.total[p] / sums.weight[p], t - min_time, used[-1])
            for r, ridge in enumerate(ridges):
                L, b = train.factor(ridge)
                y = solve_triangular(L, b, lower=True, check_finite=False)
                # the solution of the first functions alone has the first numbers of y, and no others
                risk[r] += w * share[p] * held.risk(_back(L, np.where(inside, y[:, None], 0.0)))[which]
    return risk


def _choose(basis, sums, min_time, ridges, free, verbose):
    """Choose a level, if it is free, and a ridge by cross-validation.

    Functions are added as long as the best level is among the highest ones.

    Returns
    -------
    size : int
        Number of functions.
    ridge : float
    levels : ndarray of int, shape (k,)
    risks : ndarray, shape (len(ridges), k)
    """
    everything = len(basis.decay)
    size = min(_FIRST, everything) if free else everything
    while True:
        levels, sizes = _cut_levels(basis, size)
        if not free:
            levels, sizes = levels[-1:], sizes[-1:]
        risks = cross_validated_risk(basis, sums, min_time, ridges, sizes, verbose)
        r, best = np.unravel_index(np.argmin(risks), risks.shape)
        if size == everything or best < len(levels) - 2:
            return int(sizes[best]), float(ridges[r]), levels, risks
        size = min(2 * size, everything)


def _progress(times, verbose):
    if not verbose:
        return times
    from tqdm.auto import tqdm  # which warns in notebooks that lack its widgets, so only on request
    return tqdm(times, desc="cross-validation", unit=" noise levels")


class _Curve:
    r"""Coefficients as a function of time: polynomials in log t, in panels that are computed when they are asked for.

    Parameters
    ----------
    basis, mean, ridge, repair
    start : float
        Smallest time.
    size : int
        Number of functions.

    Notes
    -----
    Interpolation at Chebyshev points of the second kind, whose number is doubled until what the polynomial of half the
    degree gets wrong at the new points, :math:`\tfrac t2E|\nabla\delta f_t(X_t)|^2`, is below the square of the
    tolerance, 1e-6: so much can the mean log density change by in an e-fold of time.
    """

    def __init__(self, basis, mean, ridge, start, size, repair=False):
        self.basis, self.mean, self.ridge, self.start, self.most = basis, mean, ridge, start, size
        self.repair = repair
        self.panels = {}

    def _solve(self, t, size):
        system = _System(self.basis, self.mean, t, size, self.repair)
        return system, system.solve(self.ridge)

    def _start(self, t):
        """Return a solution, and the number of functions from a time on: those decayed to nothing are left out."""
        size = min(_remembered(self.basis, t), self.most)
        while True:
            _, scaled = self._solve(t, size)
            tail = scaled[int(0.7 * size):]
            # what the last functions add: more may do as much
            if size == self.most or t * (tail @ tail) < _CURVE_TOL**2:
                return scaled, size
            size = min(2 * size, self.most)

    def _panel(self, number):
        low = self.start * _PANEL**number
        first, size = self._start(low)
        coarse = None
        for n in _CURVE_NODES:
            nodes = 0.5 - 0.5 * np.cos(np.pi * np.arange(n + 1) / n)  # those of half the degree are every other one
            values, error = np.empty((n + 1, size)), 0.0
            values[0] = first
            for j in range(1, n + 1):
                if coarse is not None and j % 2 == 0:
                    values[j] = coarse[1][j // 2]
                    continue
                t = low * _PANEL ** nodes[j]
                system, values[j] = self._solve(t, size)
                if coarse is not None:
                    gap = _barycentric(*coarse, nodes[j]) - values[j]
                    error = max(error, t * (gap @ (system.A @ gap) + self.ridge * (gap @ gap)))
            done = coarse is not None and error <= _CURVE_TOL**2
            coarse = nodes, values
            if done:
                break
        return nodes, values / np.sqrt(self.basis.decay[:size]), error

    def __call__(self, t):
        """Return the coefficients at a time; shape (k,)."""
        place = max(math.log(t / self.start, _PANEL), 0.0)
        number = int(place)
        if number not in self.panels:
            self.panels[number] = self._panel(number)
        nodes, values, _ = self.panels[number]
        return _barycentric(nodes, values, place - number)


def _barycentric(nodes, values, x):
    """Interpolate values (n + 1, k) at Chebyshev points of the second kind in [0, 1] at a point; shape (k,)."""
    gap = x - nodes
    hit = np.flatnonzero(np.abs(gap) < 1e-14)
    if hit.size:
        return values[hit[0]]
    weight = (-1.0) ** np.arange(len(nodes)) / gap
    weight[[0, -1]] *= 0.5
    return (weight / weight.sum()) @ values


class OperatorScoreMatching(NoiseLevelModel):
    r"""Diffusion model by operator-informed score matching: the score in closed form at every noise level.

    .. math:: s_t=\nabla f_t\ (+\nabla\log\pi),\qquad f_t=\sum_k\alpha_k(t)\psi_k,\qquad
              \alpha_t=[(1-\epsilon)A_t+\epsilon\,\mathrm{diag}(\mu)]^{-1}(1-\epsilon)\,b_t

    see :mod:`rdks.score_matching` for A and b, which are linear in the means of eigenfunctions over the data. The
    ridge :math:`\epsilon` is exact score matching of data mixed with the invariant law, and holds the potential where
    there are no data (theory eq. 17). With :math:`\epsilon=0` and ever more functions :math:`s_t` tends to the score of
    :class:`rdks.RDKSEstimator` with the bandwidth :math:`\sqrt t`; of this score it is the projection in the mean
    square under the noisy data.

    Parameters
    ----------
    manifold : Manifold, geomstats space or str
        As for RDKSEstimator, of those that :func:`rdks.eigenbases.basis_for` serves. "auto" on flat data is the
        :class:`~rdks.manifolds.OrnsteinUhlenbeck` process about the means of the columns in units of their standard
        deviations (1 where a column is constant).
    max_level : int or "auto"
        Highest level (degree) of the eigenfunctions. "auto" has the least cross-validated risk,
        see :func:`cross_validated_risk`.
    ridge : float or "auto"
        Share :math:`\epsilon` in [0, 1) of the invariant law. "auto" is chosen with the level.
    shrinkage : {None, "monotone"}
        "monotone" multiplies the means by weights that do not increase with the level
        (:func:`rdks.wiener.monotone_weights`). These may be the means of no law, and A have negative eigenvalues, which
        are set to zero then: on the toy data in the plane this costs a tenth of a nat or more, so it is no default.
    min_time : float or "auto"
        Noise level at which the model ends: its own law is that of the data after this time. "auto" is nearly 0 where
        the score is held (below), else three quarters of the squared bandwidth of greatest leave-one-out likelihood.
    hold_time : float or "auto"
        Noise level down to which the score is learned; at lower ones it is held at what it is there. "auto" is three
        times that squared bandwidth (less on small spaces, see Notes) with ``min_time="auto"``, and `min_time` if that
        is given, so that nothing is held, as on meshes and clouds of points.
    interactions : int, optional
        Coordinates on which one eigenfunction may depend, at most; 1 for high dimensions.
    check_points : {"raise", "project", "ignore"}
        As for RDKSEstimator.
    n_jobs : int, optional
        Threads for choosing `min_time`.
    verbose : bool
        Show progress bars.

    Attributes
    ----------
    manifold_ : Manifold
    manifold_reason_ : str
    location_, scale_ : ndarray, shape (p,)
        Of the standardisation; zeros and ones but for an Ornstein-Uhlenbeck process with another centre and unit.
    max_level_ : int
    ridge_ : float
    min_time_, hold_time_ : float
    trusted_radius_ : float
        For an Ornstein-Uhlenbeck process, in its unit: the gradient of the potential is constant on rays beyond. inf
        for other spaces, and up to level 2.
    ridges_ : tuple of float or None
        The ridges compared, where one was chosen.
    levels_ : ndarray or None
        The levels compared, where the level or the ridge was chosen.
    risks_ : ndarray or None
        Their cross-validated risks; shape (ridges, levels).
    held_out_ : ndarray, shape (k, 2), or None
        The level of the least risk and higher ones, and the mean log-likelihood that the probability flow of four
        parts of the data has for points of the fifth: the highest decides.
    moments_ : ndarray
        Means of the statistics over the data, as :meth:`.EigenBasis.moments` orders them, shrunken ones if asked for.
    n_samples_seen_ : int
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        If X had column names.

    Notes
    -----
    **Holding.** Smoothing for a time t widens every feature, and ending the flow there leaves it so. Along a held score
    the flow undoes that to first order: of a normal law of variance :math:`\sigma^2` it leaves
    :math:`(\sigma^2+t)e^{-t/(\sigma^2+t)}=\sigma^2+O(t^2)` instead of :math:`\sigma^2+t`. As with kernels of higher
    order it pays then to smooth for longer, which averages over more data: on eight Gaussians (n = 5000) the divergence
    from the true law falls by a third. The reverse diffusion along a held score ends wider than the flow, at second
    order too; the density that `score_samples` gives is that of the flow. An automatic `hold_time` leaves at least
    :math:`e^{-0.2}` of the slowest eigenfunction.

    Polynomials of degree N oscillate where :math:`|z|^2<4N+2d`, and explode beyond: a flow along their gradient is at
    infinity after a finite time. There the gradient is that at the nearest point of that ball.

    See Also
    --------
    RDKSEstimator : All eigenfunctions and no ridge; a sum of heat kernels.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.manifolds import Circle
    >>> from rdks.score_matching import OperatorScoreMatching
    >>> X = np.random.default_rng(0).vonmises(1.0, 4.0, (500, 1))
    >>> model = OperatorScoreMatching(Circle(), max_level=8, min_time=0.01).fit(X)
    >>> model.score_field([[0.5], [1.5]]).round(1)  # of the density it is 1.9 and -1.9
    array([[ 1.9],
           [-2.4]])
    >>> model.sample(3, random_state=0).shape
    (3, 1)
    """

    def __init__(self, manifold="auto", *, max_level="auto", ridge=1e-3, shrinkage=None, min_time="auto",
                 hold_time="auto", interactions=None, check_points="raise", n_jobs=None, verbose=False):
        self.manifold = manifold
        self.max_level = max_level
        self.ridge = ridge
        self.shrinkage = shrinkage
        self.min_time = min_time
        self.hold_time = hold_time
        self.interactions = interactions
        self.check_points = check_points
        self.n_jobs = n_jobs
        self.verbose = verbose

    # fitting

    def _check_parameters(self):
        """Raise ValueError for parameters that cannot be right, before anything is touched."""
        self._check_common()
        for name in ("max_level", "interactions"):
            value = getattr(self, name)
            if value is (None if name == "interactions" else "auto"):
                continue
            if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
                other = "None" if name == "interactions" else "'auto'"
                raise ValueError(f"{name} = {value!r}: expected {other} or an integer >= 1")
        for name, low, high, words in (("ridge", 0.0, 1.0, "in [0, 1)"), ("min_time", 1e-300, np.inf, "> 0"),
                                       ("hold_time", 1e-300, np.inf, "> 0")):
            value = getattr(self, name)
            if isinstance(value, str) and value == "auto":
                continue
            if not isinstance(value, numbers.Real) or isinstance(value, bool) or not low <= value < high:
                raise ValueError(f"{name} = {value!r}: expected 'auto' or a number {words}")
        if "auto" not in (self.min_time, self.hold_time) and self.hold_time < self.min_time:
            raise ValueError(f"hold_time = {self.hold_time!r} is below min_time = {self.min_time!r}, at which the "
                             "model ends; leave it out, or pass a larger one")
        if self.shrinkage not in (None, "monotone"):
            raise ValueError(f"shrinkage = {self.shrinkage!r}: expected None or 'monotone'")

    def fit(self, X, y=None, sample_weight=None):
        """Fit the model to data.

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
            If the manifold has no basis of eigenfunctions here.
        ValueError
            If a parameter, the shape of X or a weight is wrong, there is a single distinct point to choose `min_time`
            from, the basis is too large for memory, or the matrix is singular without a ridge. The estimator is left as
            it was.
        """
        self._check_parameters()
        read = self._observe(X, sample_weight)
        distinct = len(np.unique(_hash(read.Z[read.weight > 0])))
        basis = self._largest_basis(read.manifold, distinct)
        times = self._times(read.manifold, basis, read.X, read.weight)
        state = self._state(basis, _sums(basis, read.Z, read.weight), _Held.of(read.Z, read.weight), times)
        self._accept({**state, **read.attributes, "n_samples_seen_": len(read.X)})
        return self

    def partial_fit(self, X, y=None, sample_weight=None):
        """Add data to the fit: sums of eigenfunctions are all that is kept of them.

        The first block fixes the manifold, its standardisation, `min_time`, `hold_time` and the largest level, whatever
        these parameters are set to afterwards; a level and a ridge are chosen again.

        Parameters and errors as in :meth:`fit`.

        Returns
        -------
        self
        """
        if not hasattr(self, "_sums"):
            return self.fit(X, y, sample_weight)
        _, Z, _ = self._query(X)
        weight = validation.as_weights(sample_weight, len(Z))
        more = _sums(self._basis, Z, weight)
        sums = _Sums(*(a + b for a, b in zip(self._sums, more, strict=True)))
        self._accept(self._state(self._basis, sums, self._held.merge(_Held.of(Z, weight)),
                                 (self.min_time_, self.hold_time_)))
        self.n_samples_seen_ += len(Z)
        return self

    def merge(self, other):
        """Combine two fits into a new one, as if fitted to both data sets at once.

        Automatic `min_time` and `hold_time` are the smaller of the two.

        Parameters
        ----------
        other : OperatorScoreMatching
            Fitted, with the same parameters on the same manifold.

        Returns
        -------
        OperatorScoreMatching
            A new estimator; both operands are unchanged.

        Raises
        ------
        ValueError
            If parameters, manifolds or the largest levels differ.
        """
        check_is_fitted(self)
        if not isinstance(other, OperatorScoreMatching):
            raise ValueError(f"merge: expected a fitted OperatorScoreMatching, found {type(other).__name__}")
        check_is_fitted(other)
        mine, theirs = self.get_params(), other.get_params()
        differ = sorted(k for k in mine if k not in ("manifold", "n_jobs", "verbose") and mine[k] != theirs[k])
        names = [list(getattr(est, "feature_names_in_", ())) for est in (self, other)]
        what = ""
        if differ:
            what = f"the parameters {differ}"
        elif self.manifold_ != other.manifold_:
            what = f"the manifolds {self.manifold_!r} and {other.manifold_!r}"
        elif names[0] != names[1]:
            what = f"the column names {names[0]} and {names[1]}"
        elif self._basis.max_level != other._basis.max_level:
            what = f"the largest levels {self._basis.max_level} and {other._basis.max_level}, which depend on the data,"
        if what:
            raise ValueError(f"merge: {what} differ; fit both with the same parameters: a manifold, and a number as "
                             "max_level")
        new = clone(self)
        new.__dict__.update({k: v for k, v in self.__dict__.items() if k not in mine})
        sums = _Sums(*(a + b for a, b in zip(self._sums, other._sums, strict=True)))
        new._accept(new._state(self._basis, sums, self._held.merge(other._held),
                               (min(self.min_time_, other.min_time_), min(self.hold_time_, other.hold_time_))))
        new.n_samples_seen_ = self.n_samples_seen_ + other.n_samples_seen_
        return new

    def _largest_basis(self, manifold, n):
        """Return the basis of the given level, or one of as many functions as a level is chosen among.

        These are twice as many as there are distinct points, at most.
        """
        if self.max_level != "auto":
            return basis_for(manifold, self.max_level, self.interactions)
        basis, level = None, 1
        while True:
            last, basis = basis, basis_for(manifold, level, self.interactions)
            most = min(basis.automatic, max(2 * n, 20))
            if len(basis.decay) > most or level >= basis.most_level:
                break
            level = min(2 * level, basis.most_level)
        if last is None:
            return basis
        reached = np.maximum.accumulate(basis.level)
        within = int(reached[most]) - 1 if len(basis.decay) > most else level
        return basis_for(manifold, max(within, last.max_level), self.interactions)

    def _times(self, manifold, basis, X, weight):
        """Return the smallest noise level, and the one below which the score is held."""
        if self.min_time != "auto":
            return float(self.min_time), float(self.min_time if self.hold_time == "auto" else self.hold_time)
        if self.hold_time != "auto":
            return max(_END * float(self.hold_time), basis.shortest_time), float(self.hold_time)
        rows = weight > 0
        if len(np.unique(X[rows], axis=0)) < 2:
            raise ValueError("min_time='auto' needs at least two distinct points of positive weight, found one, as "
                             "with n_samples=1. Pass a number as min_time")
        kernels = RDKSEstimator(manifold, check_points=self.check_points, n_jobs=self.n_jobs, verbose=self.verbose)
        with warnings.catch_warnings():
            # of nearly normal data a wide kernel is the best model, and there is nothing wrong with that here
            warnings.filterwarnings("ignore", message="bandwidth='lcv': the criterion is best at the high end")
            h = kernels.fit(X[rows], sample_weight=weight[rows]).bandwidth_
        least = max(_SHARE * h * h, basis.shortest_time)
        if manifold.kernel == "basis":  # where there is no flow to run along a held score
            return least, least
        hold = max(min(_HOLD * h * h, _HELD_DECAY / float(basis.decay[0])), least)
        return max(_END * hold, basis.shortest_time), hold

    def _state(self, basis, sums, held, times):
        """Compute the fitted attributes from sums; nothing is assigned here."""
        ridge, levels, risks, tried, ridges = self.ridge, None, None, None, None
        size = len(basis.decay)
        if self.max_level == "auto" or ridge == "auto":
            ridges = _RIDGES if ridge == "auto" else (float(ridge),)
            if len(sums.parts()) < 2:
                raise ValueError("max_level='auto' and ridge='auto' compare parts of the data, into which rows are "
                                 "divided by a hash of their numbers. Here all are in one part, because there are few "
                                 "distinct points, as with n_samples=1. Pass numbers as max_level and ridge")
            size, ridge, levels, risks = _choose(basis, sums, times[1], ridges, self.max_level == "auto", self.verbose)
            if self.max_level == "auto" and basis.manifold.kernel != "basis" and len(held.Z) >= _FEW_HELD:
                size, tried = self._climb(basis, sums, held, times, float(ridge), size)
        state = self._solution(basis, sums, sums.mean(), times, float(ridge), size)
        manifold = basis.manifold
        p = int(np.prod(manifold.point_shape))
        location, scale = (np.broadcast_to(np.asarray(default if (x := getattr(manifold, name, None)) is None else x,
                                                      dtype=float), p).copy()
                           for name, default in (("location", 0.0), ("scale", 1.0)))
        return {**state, "ridges_": ridges, "levels_": levels, "risks_": risks, "held_out_": tried,
                "location_": location, "scale_": scale, "_sums": sums, "_held": held}

    def _solution(self, basis, sums, mean, times, ridge, size):
        """Compute what a model of so many functions needs, from the means of the statistics."""
        if self.shrinkage is not None:
            mean = _shrunken(basis, sums, mean)
        level = int(basis.level[:size].max())
        return {"manifold_": basis.manifold, "max_level_": level, "ridge_": ridge, "min_time_": times[0],
                "hold_time_": times[1], "trusted_radius_": _trusted(basis.manifold, level), "moments_": mean,
                "_basis": basis, "_size": size, "_solved": {},
                "_curve": _Curve(basis, mean, ridge, times[1], size, self.shrinkage is not None)}

    def _climb(self, basis, sums, held, times, ridge, size):
        """Go on to higher levels until the likelihood of points that are held out has fallen twice from its highest.

        The risk bounds the likelihood of the reverse diffusion. That of the probability flow suffers less where
        there are few data, so its best level is higher.
        """
        reached = np.maximum.accumulate(basis.level)
        X, share = basis.manifold.unembed(held.Z), held.weight / held.weight.sum()
        model, tried = clone(self), []
        while True:
            model.__dict__.update(self._solution(basis, sums, sums.mean(0), times, ridge, size))
            value = float(share @ log_likelihood(model, X, tol=_HELD_TOL))
            tried.append((model.max_level_, size, value))
            best = max(range(len(tried)), key=lambda k: tried[k][2])
            if len(tried) - best > 2 or size == len(basis.decay):
                return tried[best][1], np.array([(level, value) for level, _, value in tried])
            size = int(np.searchsorted(reached, max(math.ceil(_LEVEL_RATIO * model.max_level_),
                                                    model.max_level_ + 1), side="right"))

    # using

    def _learned(self, t):
        """Return the noise level whose score is that at `t`."""
        return max(self._time(t), self.hold_time_)

    def coefficients(self, t=None):
        r"""Return the coefficients :math:`\alpha_t` of the potential.

        Parameters
        ----------
        t : float, optional
            Noise level of the data, at least ``min_time_``, which is the default.

        Returns
        -------
        ndarray, shape (K,)
            Of the eigenfunctions up to ``max_level_``, in ascending order of decay.
        """
        t = self._learned(t)
        found = self._solved.get(t)
        if found is None:
            system = _System(self._basis, self.moments_, t, self._size, self.shrinkage is not None)
            found = system.solve(self.ridge_) / system.root
            # a new dictionary: other threads may be reading the old one
            self._solved = dict([*list(self._solved.items())[1 - _KEPT:], (t, found)])
        return found

    def potential(self, X, t=None):
        r"""Evaluate the potential :math:`f_t`, whose gradient is the score (the drift's part left out).

        Parameters
        ----------
        X : array-like, shape (n, p) or (n, *point_shape)
        t : float, optional
            Noise level of the data, at least ``min_time_``, which is the default.

        Returns
        -------
        ndarray, shape (n,)
            Up to a constant the model's log density with respect to the invariant law. It is not normalised, and it is
            not the density that :meth:`score_samples` gives: that one follows the scores of all noise levels.
        """
        _, Z, _ = self._query(X)
        return self._basis.evaluate(Z, self.coefficients(t), 0)[0]

    def conditioning(self, t=None):
        r"""Return the condition number of the matrix that is solved, scaled by :math:`\mathrm{diag}(\mu)^{-1/2}`.

        With a ridge :math:`\epsilon` it is at most :math:`1+\sup r_t/\epsilon`, where :math:`r_t` is the density of the
        noisy data with respect to the invariant law (theory section 6.4).

        Parameters
        ----------
        t : float, optional
            Noise level of the data, at least ``min_time_``, which is the default.

        Returns
        -------
        float
        """
        system = _System(self._basis, self.moments_, self._learned(t), self._size)
        values = np.linalg.eigvalsh(system.A)
        if self.shrinkage is not None and (1 - self.ridge_) * values[0] + self.ridge_ <= 0:
            values = np.maximum(values, 0.0)  # as the system that is solved is repaired
        low, high = (1 - self.ridge_) * values[[0, -1]] + self.ridge_
        return float(high / low) if low > 0 else np.inf

    def _at(self, Z, coef, order):
        """Evaluate the score of given coefficients; see :meth:`_evaluate`."""
        if not self.manifold_.has_drift:
            return Evaluation(None, *self._basis.evaluate(Z, coef, order)[1:])
        size = np.linalg.norm(Z, axis=1)
        radius = self.trusted_radius_
        far = size > radius
        shrink = np.where(far, radius / np.where(far, size, 1.0), 1.0)
        nearest = Z * shrink[:, None]
        _, gradient, laplacian = self._basis.evaluate(nearest, coef, order)
        if order >= 2 and far.any():
            # only the parts of the Hessian across the ray are left, and shrink as the sphere widens
            ray = nearest[far] / radius
            ahead, back = (self._basis.evaluate(nearest[far] + step * ray, coef, 1)[1] for step in (_STEP, -_STEP))
            along = np.einsum("qj,qj->q", ahead - back, ray) / (2 * _STEP)
            laplacian[far] = shrink[far] * (laplacian[far] - along)
        # the score of the invariant law is twice the drift
        gradient = gradient + 2 * self.manifold_.drift(Z)
        return Evaluation(None, gradient, None if laplacian is None else laplacian - self.manifold_.dim)

    def _evaluate(self, Z, t, order):
        """Return the score and its divergence at embedded points, coefficients being interpolated in time."""
        return self._at(Z, self._curve(self._learned(t)), order)

    def _score(self, Z, t, order):
        """Return the same with the coefficients of that noise level."""
        return self._at(Z, self.coefficients(t), order)

    def score_samples(self, X, t=None):
        """Evaluate the log density of the model, by its probability flow (:func:`rdks.sampling.log_likelihood`).

        Parameters
        ----------
        X : array-like, shape (n, p) or (n, *point_shape)
        t : float, optional
            Noise level of the data, at least ``min_time_``, which is the default.

        Returns
        -------
        ndarray, shape (n,)
            Natural log of the density per unit of Riemannian volume.
        """
        _, Z, _ = self._query(X)
        return log_likelihood(self, self.manifold_.unembed(Z), self._time(t), tol=_FLOW_TOL)
