r"""Choosing the bandwidth from the data.

All rules see the data through one function of time, the leave-one-out sums
:math:`r_i(t)=\sum_{j\ne i}w_jk_t(X_i,X_j)` of an engine:

* likelihood: :math:`\mathrm{LCV}(t)=\sum_iw_i\log\frac{r_i(t)}{1-w_i}`, to be maximised;
* least squares: by the semigroup :math:`\int\hat p_t^2=\sum_{ij}w_iw_jk_{2t}(X_i,X_j)`, so
  :math:`\mathrm{LSCV}(t)=E(2t)-\frac{2}{1-S_2}E_{off}(t)`, with :math:`S_2=\sum w_i^2`,
  :math:`E_{off}(t)=\sum_iw_ir_i(t)` and :math:`E(t)=E_{off}(t)+S_2k_t(x,x)`: two exact sums, no
  quadrature;
* Improved Sheather-Jones: the norms :math:`\theta_s=\langle p,(-\Delta)^sp\rangle` that the
  asymptotic risk needs are derivatives of the same function,
  :math:`\hat\theta_s(t)=(-d/dt)^sE(2t)`, on every manifold.
"""
from __future__ import annotations

from dataclasses import dataclass, field
from math import log, pi

import numpy as np
from scipy.optimize import brentq, minimize_scalar
from scipy.special import logsumexp, poch

from .manifolds.base import wrap

__all__ = ["RULES", "Selection", "descend", "other_shares", "progress", "representatives", "search_range", "select"]

#: Names of the rules, and the one that "auto" stands for.
RULES = ("isj", "lcv", "lscv", "rot")
AUTO = "lcv"

_GRID = 4.0      # ratio of neighbouring times of the first scan
_SCAN = 500, 2000  # where that halves the work or better, a criterion is first minimised as seen from some sources: at
_PAIRS = 5e6       # least and at most so many, and between them so many that this is the number of pairs
_POLISH = 0.4      # step of log t, 20 per cent of the bandwidth, in which the full criterion's minimum is bracketed
_PROBES = 300    # sources whose nearest neighbour is looked for where no tree can
_XTOL = 0.02     # of log t: one per cent of a bandwidth, which the data never know as well
_CANCEL = 1e-6   # where E_off is a smaller part of the own terms, these are left out rather than subtracted
_WIDER = 6       # how often a range is extended downwards where the optimum is at its end
_HIGHER = 2      # and upwards: on a compact space the kernel is uniform by then


@dataclass(frozen=True)
class Selection:
    """The curve that chose a bandwidth.

    Attributes
    ----------
    rule : str
        Name of the rule.
    bandwidth : float
        The choice, sqrt(time).
    times : ndarray, shape (k,)
        Times at which the criterion was evaluated, ascending.
    criterion : ndarray, shape (k,)
        Its values: log-likelihood per observation for "lcv", estimated integrated squared error up
        to a constant for "lscv", the fixed-point gap log t - log g(t) for "isj".
    scan_times, scan_criterion : ndarray, shape (m,)
        With more than some 3000 observations, the criterion as seen from 500 to 1600 of them, spread in space, over
        the whole range; the choice is made by `criterion`, as seen from all. Empty otherwise.
    reason : str
        The choice in words.
    warning : str
        What a user should know about the choice; empty if nothing.
    """

    rule: str
    bandwidth: float
    times: np.ndarray = field(repr=False)
    criterion: np.ndarray = field(repr=False)
    scan_times: np.ndarray = field(repr=False)
    scan_criterion: np.ndarray = field(repr=False)
    reason: str
    warning: str = ""

    @property
    def bandwidths(self):
        """sqrt(times)."""
        return np.sqrt(self.times)


def _neighbour_distance(engine):
    """Median distance of a source to its nearest other source."""
    manifold = engine.manifold
    if manifold.kernel == "basis":
        return manifold.neighbour_distance(engine.Z)
    if manifold.kernel == "pairs" or any(f.hyperbolic for f in manifold.factors()):
        # the chord is not a Euclidean distance: compare some sources with all
        rows = representatives(engine, min(len(engine.Z), _PROBES))
        distance = manifold.distances(engine.Z[rows], engine.Z)
        distance[np.arange(len(rows)), rows] = np.inf
        return float(np.median(distance.min(axis=1)))
    from scipy.spatial import cKDTree

    box = np.concatenate([np.full(f.width, f.period or 0.0) for f in manifold.factors()])

    def wrapped(Z):
        return np.where(box > 0, wrap(Z, np.where(box > 0, box, 1.0)), Z)

    tree = cKDTree(wrapped(engine.Z), boxsize=box if box.any() else None)
    nearest = np.full(len(engine.Z), np.inf)
    for image in manifold.images(engine.Z):
        chord, which = tree.query(wrapped(image), k=2)
        own = which[:, 0] == np.arange(len(nearest))  # a source is not its own neighbour, nor are its images
        nearest = np.minimum(nearest, np.where(own, chord[:, 1], chord[:, 0]))
    return float(np.median(nearest))


def _mean_square(space, Z, w):
    """Mean squared distance of points of a manifold, or of a factor, from their Karcher mean."""
    centre = Z[np.lexsort(Z.T)[:1]]  # whatever the order of the rows
    for _ in range(8):  # one step is exact in flat space, and a few are enough for a scale elsewhere
        centre = space.exp(centre, (w @ space.log(np.broadcast_to(centre, Z.shape), Z))[None])
    return float(w @ space.dist(np.broadcast_to(centre, Z.shape), Z) ** 2)


def _spread(manifold, Z, w):
    """Mean squared distance from the mean per dimension, the largest of the parts that have no slowest mode."""
    if manifold.kernel != "factors":
        return _mean_square(manifold, Z, w) / manifold.dim
    return max(_mean_square(f, Z[:, s], w) / f.dim for f, s in manifold.pieces() if f.smallest_eigenvalue == 0)


def search_range(engine):
    """Return the range of times that a rule searches.

    Parameters
    ----------
    engine : Sources
        Distinct sources at time 0.

    Returns
    -------
    low, high : float
        From a quarter of the squared median nearest-neighbour distance to the time at which
        the slowest mode of the heat flow has decayed to one half; without a slowest mode, to
        the mean squared distance from the mean per dimension. At least a factor 64 apart.

    Raises
    ------
    ValueError
        If squares of distances leave the range of floats, or the points differ by rounding only.
    """
    manifold = engine.manifold
    low = 0.25 * _neighbour_distance(engine) ** 2
    modes = [manifold.smallest_eigenvalue]
    if manifold.kernel == "factors" and manifold.n_images == 1 and not manifold.has_drift:
        modes = [f.smallest_eigenvalue for f in manifold.factors()]
    high = max([2 * log(2) / mode for mode in modes if mode > 0], default=0.0)
    if min(modes) == 0:
        high = max(high, _spread(manifold, engine.Z, engine.share))
    if not (1e-280 < low < 1e280 and 1e-280 < high < 1e280):
        raise ValueError(f"the distances between the {len(engine.Z)} distinct points (a median of "
                         f"{2 * np.sqrt(low):.3g} to the nearest other, a spread of {np.sqrt(high):.3g}) are beyond "
                         "the range in which a bandwidth can be chosen: change the unit, or pass a number as bandwidth")
    return min(low, high / _GRID**3), high


def other_shares(share):
    """Return one minus each share, without cancellation where one observation has nearly all.

    Raises
    ------
    ValueError
        If one has all.
    """
    others = 1 - share
    most = int(np.argmax(share))
    others[most] = share[:most].sum() + share[most + 1:].sum()
    if not others[most] > 1e-280:
        raise ValueError(f"one observation has all the weight but for {others[most]:.3g} of it, which leaves nothing "
                         "to predict it from. Pass a number as bandwidth")
    return others


class _Curves:
    """The criteria by time, from leave-one-out sums that are computed once per time.

    With `rows`, the outer mean is over these sources instead of all, with equal shares: as exact for
    each of them, an estimate of the whole, and as much cheaper as they are fewer.

    Densities are in units of the kernel's peak at the time `unit`, so that no dimension and no length unit
    takes them out of the range of floats.
    """

    def __init__(self, engine, progress, unit, rows=None):
        self.engine, self.progress, self.rows = engine, progress, rows
        self.share = engine.share
        self.others = other_shares(self.share)
        self.s2 = engine.squares
        self.free = float(self.share @ self.others) if engine.cells is None else 1 - self.s2
        self.known, self.peaks = {}, {}
        self.unit, self.log_unit = unit, self.log_peak(unit)

    def sums(self, t):
        """Return the mean leave-one-out log-likelihood and log E_off at time t."""
        t = float(t)
        if t not in self.known:
            logs = self.engine.leave_one_out(t, self.rows)
            if self.rows is None:
                share, others = self.share, self.others
            else:
                share, others = np.full(len(self.rows), 1 / len(self.rows)), self.others[self.rows]
            self.known[t] = float(share @ (logs - np.log(others))), float(logsumexp(logs, b=share))
            self.progress(t)
        return self.known[t]

    def log_peak(self, t):
        """Return the log of sum_i w_i^2 k_t(x_i, x_i) / sum_i w_i^2: of the kernel's peak, where all are alike."""
        if t not in self.peaks:
            square = self.share**2
            self.peaks[t] = float(logsumexp(self.engine.log_self(t), b=square)) - log(square.sum())
        return self.peaks[t]

    def lcv(self, t):
        return -self.sums(t)[0]

    def lscv(self, t):
        return self.energy(2 * t) - 2 * self._exp(self.log_off(t)) / self.free

    def log_off(self, t):
        """Return log E_off at time t."""
        if self.rows is None and t not in self.known:
            # by coefficients, if there are any, unless the own terms are nearly all
            overlap = self.engine.log_overlap(t)
            if overlap is not None:
                self.progress(t)
                own = np.exp(log(self.s2) + self.log_peak(t) - overlap)
                if own < 1 / (1 + _CANCEL):
                    return overlap + np.log1p(-own)
        return self.sums(t)[1]

    def energy(self, t, log_factor=0.0):
        """Return E(t), times a factor given by its log."""
        return self._exp(self.log_off(t) + log_factor) + self.s2 * self._exp(self.log_peak(t) + log_factor)

    def _exp(self, log_density):
        # beyond exp(700) peaks the criterion is hopeless, and only its order matters
        return np.exp(min(log_density - self.log_unit, 700.0))


def representatives(engine, count):
    """Choose sources for a scan: spread in space, each as often as its weight asks for.

    The choice does not depend on the order of the data, as the engine's own order does not.
    """
    order = engine.compact_order()
    cumulated = np.cumsum(engine.share[order])
    at = (np.arange(count) + 0.5) / count * cumulated[-1]
    return order[np.minimum(np.searchsorted(cumulated, at), len(order) - 1)]


def descend(objective, low, high, least=0.0):
    """Scan geometrically, walk downhill on the same grid to a bracket, refine by Brent's method.

    Returns the log time of the best value, all log times and values, and the ends of the walk, which may leave the
    range, but not below `least`.
    """
    count = max(4, int(np.ceil(log(high / low) / log(_GRID))) + 1)
    origin, step = log(low), log(high / low) / (count - 1)
    values = {}  # by position on the grid: 0 is low, count - 1 is high

    def value(k):
        k = float(k)
        if k not in values:
            values[k] = objective(float(np.exp(origin + k * step)))
        return values[k]

    k = int(np.argmin([value(k) for k in range(count)]))
    bottom, top = 0 if low <= least else -_WIDER, count - 1 + _HIGHER
    while True:
        if k > bottom and value(k - 1) < value(k):
            k -= 1
        elif k < top and value(k + 1) < value(k):
            k += 1
        else:
            break
    if k == bottom == 0 and value(0) < value(1):  # at the floor, or just above it
        minimize_scalar(value, bounds=(0.0, 1.0), method="bounded", options={"xatol": 0.5 * _XTOL / step})
    if bottom < k < top and value(k) < min(value(k - 1), value(k + 1)):  # a plateau needs no refining
        # Brent's tolerance is relative: one is added to the position within the bracket
        minimize_scalar(lambda y: value(k - 2 + y), bracket=(1.0, 2.0, 3.0), method="brent",
                        options={"xtol": 0.5 * _XTOL / step})
    seen = sorted(values)
    return (origin + step * min(seen, key=values.get), origin + step * np.array(seen),
            np.array([values[k] for k in seen]), (origin + bottom * step, origin + top * step))


def _polish(objective, x, ends):
    """Walk downhill near log time x to a bracket, and take the vertex of the parabola through it.

    Where another function of the same shape has its minimum at x this is four values of the objective. The walk is on
    a grid that does not depend on x, so that neither does its end. Returns as `descend`.
    """
    x = min(ends[0] + _POLISH * round((x - ends[0]) / _POLISH), ends[1])
    values = {}

    def value(x):
        if x not in values:
            values[x] = objective(float(np.exp(x)))
        return values[x]

    step = 0.0
    while True:
        # on in the same direction, by ever longer steps, or else by the shortest to either side
        ahead = min(max(x + 3 * step, ends[0]), ends[1])
        if step and value(ahead) < value(x):
            x, step = ahead, 3 * step
            continue
        left, right = max(x - _POLISH, ends[0]), min(x + _POLISH, ends[1])
        # longer times first, which are cheaper on compact spaces
        if value(right) < value(x):
            x, step = right, _POLISH
        elif value(left) < value(x):
            x, step = left, -_POLISH
        else:
            break
    if left < x < right:
        a, b = (value(left) - value(x)) / (x - left), (value(right) - value(x)) / (right - x)
        if a + b > 0:
            # the parabola through three points: its slope vanishes where two secants' slopes balance
            value(x + 0.5 * (a * (right - x) - b * (x - left)) / (a + b))
    seen = sorted(values)
    return min(seen, key=values.get), np.array(seen), np.array([values[x] for x in seen]), ends


def _energy_norms(curves, low, high, most):
    r"""Return log theta(s, t), theta(s, t) = (-d/dt)^s E(2t), for s up to `most`.

    E(2t) t^{d/2} is a smooth function of log t (analytic in a strip of half-width pi/2), so its
    Chebyshev interpolant converges geometrically and its derivatives do too. NaN where the norm is not
    positive.
    """
    dim = curves.engine.manifold.dim
    a, b = log(low), log(high)
    count = max(40, int(9 * (b - a)))
    x = 0.5 * (a + b) + 0.5 * (b - a) * np.cos(np.pi * (np.arange(count) + 0.5) / count)
    scaled = [curves.energy(2 * np.exp(u), 0.5 * dim * (u - log(curves.unit))) for u in x]
    f = np.polynomial.Chebyshev.fit(x, scaled, count - 1, domain=[a, b])
    functions = [f]
    for s in range(most):
        # E = f e^{-c x}  =>  -dE/dt = (c f - f') e^{-(c + 1) x}
        f = (0.5 * dim + s) * f - f.deriv()
        functions.append(f)

    def log_theta(s, t):
        value = float(functions[s](log(t)))
        if not value > 0:
            return np.nan
        return log(value) - s * log(t) + 0.5 * dim * log(curves.unit / t) + curves.log_unit

    return log_theta


def _isj(curves, low, high, least=0.0):
    """Improved Sheather-Jones fixed point on a d-manifold, of times >= `least`; returns t or None, and the curve."""
    d, trace = curves.engine.manifold.dim, curves.engine.manifold.log_unit
    n = 1.0 / curves.s2
    last = 5 if d <= 2 else 4
    bottom, top = max(low / _GRID**2, least), high * _GRID
    log_theta = _energy_norms(curves, bottom, top, last)

    def log_fixed_point(t):
        norm = log_theta(last, t)
        for s in range(last - 1, 1, -1):
            noise = log(2 / 3 * (1 + 2 ** (-s - d / 2)) / n) + s * log(2) + log(poch(d / 2, s)) + trace
            stage = (noise - 0.5 * d * log(2 * pi) - norm) * 2 / (d + 2 * s + 2)
            if not np.isfinite(stage):
                return np.nan
            norm = log_theta(s, np.exp(min(max(stage, log(bottom)), log(top))))
        return (log(d / n) + trace - 0.5 * d * log(4 * pi) - norm) * 2 / (d + 4)

    def gap(x):
        return x - log_fixed_point(np.exp(x))

    x = np.linspace(log(low / _GRID), log(high), 60)
    values = np.array([gap(u) for u in x])
    up = np.flatnonzero((values[:-1] < 0) & (values[1:] >= 0))
    t = float(np.exp(brentq(gap, x[up[0]], x[up[0] + 1], xtol=1e-8))) if up.size else None
    return t, np.exp(x), values


def _rule_of_thumb(engine):
    """Silverman's rule with the variance about the mean as the scale, per dimension."""
    manifold, d = engine.manifold, engine.manifold.dim
    w = engine.share
    n = 1.0 / float(w @ w)
    if manifold.kernel == "basis":
        raise ValueError("bandwidth='rot' needs a mean and distances from it, which a discretised space has not; use "
                         "'lcv'")
    if manifold.kernel == "pairs" or manifold.n_images > 1:
        return _mean_square(manifold, engine.Z, w) / d * (4 / ((d + 2) * n)) ** (2 / (d + 4))
    spread = 0.0
    for f, s in manifold.pieces():
        if f.hyperbolic:
            spread += _mean_square(f, engine.Z[:, s], w)
            continue
        # angles relative to one of the data keep their digits when the data are concentrated
        Z = f.difference(engine.Z[:, s], engine.Z[:1, s])
        if f.period is not None:
            angle = 2 * pi * Z[:, 0] / f.period
            Z = np.column_stack([np.sin(angle), -2 * np.sin(0.5 * angle) ** 2]) * f.scale
        centred = Z - w @ Z
        variance = float(w @ np.einsum("ij,ij->i", centred, centred))
        if f.scale is not None:
            # 1 - variance / R^2 is the squared resultant, exp(-d t / R^2) after a time t
            variance = -f.scale**2 * np.log1p(-min(variance / f.scale**2, 1 - 1e-6))
        spread += variance
    return spread / d * (4 / ((d + 2) * n)) ** (2 / (d + 4))


def select(engine, rule, *, min_bandwidth=0.0, verbose=False):
    """Choose a bandwidth.

    Parameters
    ----------
    engine : Sources
        Distinct sources of positive weight at time 0; at least two.
    rule : {"auto", "lcv", "lscv", "isj", "rot"}
        Leave-one-out likelihood (what "auto" stands for), least-squares cross-validation,
        Improved Sheather-Jones, rule of thumb.
    min_bandwidth : float
        The choice is not below this: one that is, is raised to it.
    verbose : bool
        Show a progress bar, one step per evaluated time.

    Returns
    -------
    Selection

    Raises
    ------
    ValueError
        If there is only one distinct source, one that has all the weight, or none that differ by more
        than rounding.

    References
    ----------
    Bowman, Biometrika 71 (1984) 353, for least squares; Botev, Grotowski and Kroese, Annals of
    Statistics 38 (2010) 2916, equations 28-30, for Sheather-Jones in one dimension, here in d
    dimensions with the heat trace in place of the Gaussian's (exact for d = 1).

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.bandwidth import select
    >>> from rdks.engines import DirectSum
    >>> from rdks.manifolds import Euclidean
    >>> Z = np.random.default_rng(0).standard_normal((400, 1))
    >>> data = DirectSum(Euclidean(1), Z, np.ones(400), 0.0)
    >>> 0.1 < select(data, "lcv").bandwidth < 0.6
    True
    """
    rule, n = AUTO if rule == "auto" else rule, len(engine.Z)
    data = f"{n} distinct points"
    if engine.cells is not None:  # of a stream only the coefficients are left
        data = f"the coefficients of a stream, in {n} cells"
        if rule == "lcv":
            rule = "lscv"
    if rule in ("lscv", "isj") and engine.manifold.has_drift:
        raise ValueError(f"bandwidth={rule!r} estimates squared errors by the symmetry of the heat kernel, which a "
                         f"process with a drift, {engine.manifold!r}, has not. Use 'lcv', 'rot' or a number")
    if rule in ("isj", "rot") and engine.manifold.dim == 0:
        raise ValueError(f"bandwidth={rule!r} needs a space that has a dimension, which {engine.manifold!r} has not. "
                         "Use 'lcv', 'lscv' or a number")
    if n < 2:
        raise ValueError(
            f"bandwidth={rule!r} needs at least two distinct points of positive weight to choose from, "
            "found n_samples=1. Pass a number as bandwidth")
    low, high = search_range(engine)
    floor = max(min_bandwidth**2, engine.manifold.shortest_time)
    least = 0.0
    if floor > low:  # nothing below is chosen, and a stream cannot even evaluate it
        low = least = floor
        high = max(high, low * _GRID**3)
    warning, why = "", ""
    times, values, scan_times, scanned = (np.empty(0) for _ in range(4))
    with progress(verbose, rule) as step:
        curves = _Curves(engine, step, high)
        t = None
        if rule == "rot":
            t, why = _rule_of_thumb(engine), f"rule of thumb for {data}"
        if rule == "isj":
            t, times, values = _isj(curves, low, high, least if engine.cells is not None else 0.0)
            if t is not None:
                why = f"Sheather-Jones fixed point of {data}"
            else:
                rule, why = "lscv", "; Sheather-Jones has no fixed point here"
        if t is None:
            scan = curves
            count = int(np.clip(_PAIRS / n, *_SCAN))
            if n > 2 * count and not (rule == "lscv" and engine.log_overlap(high) is not None):
                scan = _Curves(engine, step, high, representatives(engine, count))
            best, times, values, ends = descend(getattr(scan, rule), low, high, least)
            if scan is not curves:
                scan_times, scanned = np.exp(times), values
                best, times, values, ends = _polish(getattr(curves, rule), best, ends)
            t, times = float(np.exp(best)), np.exp(times)
            at_end = "low" if best <= ends[0] + 1e-9 else "high" if best >= ends[1] - 1e-9 else ""
            name = "leave-one-out likelihood" if rule == "lcv" else "least-squares cross-validation"
            why = f"{name} of {data}{why}"
            if rule == "lcv":
                values, scanned = -values, -scanned
            if at_end == "high" and engine.manifold.log_volume < np.inf:
                why += "; the data do not differ from uniform by this criterion"
            elif at_end and t > floor * (1 + 1e-9):
                why += f"; the best value is at the {at_end} end of the range searched"
                warning = (
                    f"bandwidth={rule!r}: the criterion is best at the {at_end} end of the range of bandwidths "
                    f"searched, {np.sqrt(times[0]):.4g} to {np.sqrt(times[-1]):.4g}. Data rounded to few distinct "
                    "values, or on a curve, do this; look at selection_, or pass a number as bandwidth")
    if t <= floor * (1 + 1e-9) and floor > 0:
        t = floor
        why += "; raised to min_bandwidth" if floor == min_bandwidth**2 else "; raised to the resolution of the space"
    return Selection(rule, float(np.sqrt(t)), times, values, scan_times, scanned, why, warning)


class progress:
    """A progress bar that counts what a rule tries, or nothing."""

    def __init__(self, verbose, rule, unit="time"):
        self.bar = None
        if verbose:
            from tqdm.auto import tqdm
            self.bar = tqdm(desc=f"bandwidth by {rule}", unit=f" {unit}s")

    def __enter__(self):
        return self

    def __call__(self, what):
        if self.bar is not None:
            self.bar.set_postfix_str(what if isinstance(what, str) else f"bandwidth={np.sqrt(what):.3g}")
            self.bar.update()

    def __exit__(self, *error):
        if self.bar is not None:
            self.bar.close()
