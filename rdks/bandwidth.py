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

import warnings
from dataclasses import dataclass, field
from math import log, pi

import numpy as np
from scipy.optimize import brentq, minimize_scalar
from scipy.special import poch

__all__ = ["RULES", "Selection", "search_range", "select"]

#: Names of the rules, and the one that "auto" stands for.
RULES = ("isj", "lcv", "lscv", "rot")
AUTO = "lcv"

_GRID = 4.0      # ratio of neighbouring times of the first scan
_SCAN = 2000     # sources at which the first scan evaluates a criterion, when there are more than twice as many
_XTOL = 0.02     # of log t: one per cent of a bandwidth, which the data never know as well
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
        to a constant for "lscv", the fixed-point gap log t - log g(t) for "isj". With more than 4000
        observations the values far from the choice are means over 2000 of them.
    reason : str
        The choice in words.
    """

    rule: str
    bandwidth: float
    times: np.ndarray = field(repr=False)
    criterion: np.ndarray = field(repr=False)
    reason: str

    @property
    def bandwidths(self):
        """sqrt(times)."""
        return np.sqrt(self.times)


def _neighbour_distance(manifold, Z):
    """Median distance of a source to its nearest other source."""
    from scipy.spatial import cKDTree

    box = np.concatenate([np.full(f.width, f.period or 0.0) for f in manifold.factors()])
    # a circle's coordinate may be any number: bring it into [0, period) for the tree
    wrapped = np.where(box > 0, np.mod(Z, np.where(box > 0, box, 1.0)), Z)
    wrapped = np.where((box > 0) & (wrapped >= box), 0.0, wrapped)
    tree = cKDTree(wrapped, boxsize=box if box.any() else None)
    chord = tree.query(wrapped, k=2)[0][:, 1]
    return float(np.median(chord))


def search_range(engine, min_bandwidth=0.0):
    """Return the range of times that a rule searches.

    Parameters
    ----------
    engine : DirectSum
        Distinct sources at time 0.
    min_bandwidth : float
        Lower limit of the bandwidth.

    Returns
    -------
    low, high : float
        From a quarter of the squared median nearest-neighbour distance to the time at which
        the slowest mode of the heat flow has decayed to one half; without a slowest mode, to
        the mean squared distance from the mean per dimension.
    """
    manifold, Z = engine.manifold, engine.Z
    low = 0.25 * _neighbour_distance(manifold, Z) ** 2
    w = engine.weight / engine.weight.sum()
    high = 0.0
    for f, s in manifold.pieces():
        if f.smallest_eigenvalue > 0:
            high = max(high, 2 * log(2) / f.smallest_eigenvalue)
        else:
            centred = Z[:, s] - w @ Z[:, s]
            high = max(high, float(w @ np.einsum("ij,ij->i", centred, centred)) / f.dim)
    low = max(low, min_bandwidth**2)
    return min(low, high / _GRID**3) if min_bandwidth**2 < high / _GRID**3 else low, max(high, low)


class _Curves:
    """The criteria by time, from leave-one-out sums that are computed once per time.

    With `rows`, the outer mean is over these sources instead of all: as exact for each of them, an
    unbiased estimate of the whole, and as much cheaper as they are fewer.
    """

    def __init__(self, engine, progress, rows=None):
        self.engine, self.progress, self.rows = engine, progress, rows
        self.w = engine.weight / engine.weight.sum()
        self.s2 = float(self.w @ self.w)
        self.known = {}

    def sums(self, t):
        """Return the mean leave-one-out log-likelihood and E_off at time t."""
        t = float(t)
        if t not in self.known:
            logs = self.engine.leave_one_out(t, self.rows)
            own = self.w if self.rows is None else self.w[self.rows]
            share = own / own.sum()
            self.known[t] = float(share @ (logs - np.log1p(-own))), float(share @ np.exp(logs))
            self.progress(t)
        return self.known[t]

    def peak(self, t):
        return np.exp(sum(float(f.log_kernel(np.zeros(1), t)[0])
                          for f in self.engine.manifold.factors()))

    def lcv(self, t):
        return -self.sums(t)[0]

    def lscv(self, t):
        return self.energy(2 * t) - 2 * self.sums(t)[1] / (1 - self.s2)

    def energy(self, t):
        return self.sums(t)[1] + self.s2 * self.peak(t)


def _minimise(scan, objective, low, high, floor):
    """Scan geometrically, extend where the best is at an end, then refine by Brent's method.

    Returns the time, the times and values of `objective` (and of `scan` elsewhere), and which end of the
    range the best is at, if any.
    """
    count = max(4, int(np.ceil(log(high / low) / log(_GRID))) + 1)
    times = list(np.geomspace(low, high, count))
    values = [scan(t) for t in times]
    for _ in range(_WIDER):
        if np.argmin(values) or times[0] / _GRID < floor:
            break
        times.insert(0, times[0] / _GRID)
        values.insert(0, scan(times[0]))
    for _ in range(_HIGHER):
        if np.argmin(values) < len(times) - 1:
            break
        times.append(times[-1] * _GRID)
        values.append(scan(times[-1]))
    best = int(np.argmin(values))
    at_end = "low" if best == 0 else "high" if best == len(times) - 1 else ""
    points = dict(zip(times, values, strict=True))
    refined = {times[best]: objective(times[best])}

    def along(x):
        t = float(np.exp(x))
        refined[t] = objective(t)
        return refined[t]

    minimize_scalar(along, bounds=(log(times[max(best - 1, 0)]), log(times[min(best + 1, len(times) - 1)])),
                    method="bounded", options={"xatol": _XTOL, "maxiter": 30})
    points.update(refined)
    order = sorted(points)
    return min(refined, key=refined.get), np.array(order), np.array([points[k] for k in order]), at_end


def _energy_norms(curves, low, high, most):
    r"""Return theta(s, t) = (-d/dt)^s E(2t) for s up to `most`, by differentiating an interpolant.

    E(2t) t^{d/2} is a smooth function of log t (analytic in a strip of half-width pi/2), so its
    Chebyshev interpolant converges geometrically and its derivatives do too.
    """
    dim = curves.engine.manifold.dim
    a, b = log(low), log(high)
    count = max(40, int(9 * (b - a)))
    x = 0.5 * (a + b) + 0.5 * (b - a) * np.cos(np.pi * (np.arange(count) + 0.5) / count)
    t = np.exp(x)
    scaled = np.array([curves.energy(2 * u) for u in t]) * t ** (0.5 * dim)
    f = np.polynomial.Chebyshev.fit(x, scaled, count - 1, domain=[a, b])
    functions = [f]
    for s in range(most):
        # E = f e^{-c x}  =>  -dE/dt = (c f - f') e^{-(c + 1) x}
        f = (0.5 * dim + s) * f - f.deriv()
        functions.append(f)

    def theta(s, t):
        return float(functions[s](log(t))) * t ** -(0.5 * dim + s)

    return theta


def _isj(curves, low, high):
    """Improved Sheather-Jones fixed point on a d-manifold; returns t or None, and the curve."""
    d = curves.engine.manifold.dim
    n = 1.0 / curves.s2
    last = 5 if d <= 2 else 4
    bottom, top = low / _GRID**2, high * _GRID
    theta = _energy_norms(curves, bottom, top, last)

    def fixed_point(t):
        norm = theta(last, t)
        for s in range(last - 1, 1, -1):
            if not norm > 0:
                return np.nan
            noise = 2 / 3 * (1 + 2 ** (-s - d / 2)) * 2**s * poch(d / 2, s)
            stage = (noise / (n * (2 * pi) ** (d / 2) * norm)) ** (2 / (d + 2 * s + 2))
            norm = theta(s, min(max(stage, bottom), top))
        if not norm > 0:
            return np.nan
        return (d / (n * (4 * pi) ** (d / 2) * norm)) ** (2 / (d + 4))

    def gap(x):
        return x - np.log(fixed_point(np.exp(x)))

    x = np.linspace(log(low / _GRID), log(high), 60)
    values = np.array([gap(u) for u in x])
    up = np.flatnonzero((values[:-1] < 0) & (values[1:] >= 0))
    t = float(np.exp(brentq(gap, x[up[0]], x[up[0] + 1], xtol=1e-8))) if up.size else None
    return t, np.exp(x), values


def _rule_of_thumb(engine):
    """Silverman's rule with the mean squared distance from the centre as the scale."""
    manifold, d = engine.manifold, engine.manifold.dim
    w = engine.weight / engine.weight.sum()
    n = 1.0 / float(w @ w)
    scale = 0.0
    for f, s in manifold.pieces():
        Z = engine.Z[:, s]
        if f.period is not None:
            # variance of the wrapped normal with the same resultant length
            resultant = abs(w @ np.exp(2j * pi * Z[:, 0] / f.period))
            spread = -2 * log(max(resultant, 1e-3)) * (f.period / (2 * pi)) ** 2
        elif f.radius is not None:
            resultant = np.linalg.norm(w @ Z) / f.radius
            # Brownian motion from a point has resultant exp(-d t / 2 R^2)
            spread = -2 * log(max(resultant, 1e-3)) * f.radius**2
        else:
            centred = Z - w @ Z
            spread = float(w @ np.einsum("ij,ij->i", centred, centred))
        scale += spread
    return scale / d * (4 / ((d + 2) * n)) ** (2 / (d + 4))


def select(engine, rule, *, min_bandwidth=0.0, verbose=False):
    """Choose a bandwidth.

    Parameters
    ----------
    engine : DirectSum
        Distinct sources of positive weight at time 0; at least two.
    rule : {"auto", "lcv", "lscv", "isj", "rot"}
        Leave-one-out likelihood (what "auto" stands for), least-squares cross-validation,
        Improved Sheather-Jones, rule of thumb.
    min_bandwidth : float
        The choice is not below this.
    verbose : bool
        Show a progress bar, one step per evaluated time.

    Returns
    -------
    Selection

    Raises
    ------
    ValueError
        If there is only one distinct source.

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
    rule = AUTO if rule == "auto" else rule
    n = len(engine.Z)
    if n < 2:
        raise ValueError(
            f"bandwidth={rule!r} needs at least two distinct points of positive weight to choose from, "
            "found n_samples=1. Pass a number as bandwidth")
    low, high = search_range(engine, min_bandwidth)
    floor = max(min_bandwidth**2, low * 1e-12)
    if rule == "rot":
        t = max(_rule_of_thumb(engine), floor)
        return Selection(rule, float(np.sqrt(t)), np.array([t]), np.array([0.0]),
                         f"rule of thumb for {n} distinct points")
    with _progress(verbose, rule) as step:
        curves = _Curves(engine, step)
        if rule == "isj":
            t, times, values = _isj(curves, low, high)
            if t is not None:
                t = max(t, floor)
                return Selection(rule, float(np.sqrt(t)), times, values,
                                 f"Sheather-Jones fixed point of {n} distinct points")
            rule, why = "lscv", "; Sheather-Jones has no fixed point here"
        else:
            why = ""
        scan = curves
        if n > 2 * _SCAN:
            scan = _Curves(engine, step, np.linspace(0, n - 1, _SCAN).astype(int))
        t, times, values, at_end = _minimise(getattr(scan, rule), getattr(curves, rule), low, high, floor)
    if at_end == "high" and engine.manifold.volume < np.inf:
        why += "; the data do not differ from uniform by this criterion"
    elif at_end == "low" and times[0] <= floor * (1 + 1e-9) and min_bandwidth > 0:
        why += "; limited by min_bandwidth"
    elif at_end:
        why += f"; the best value is at the {at_end} end of the range searched"
        warnings.warn(
            f"bandwidth={rule!r}: the criterion is best at the {at_end} end of the range of bandwidths "
            f"searched, {np.sqrt(times[0]):.4g} to {np.sqrt(times[-1]):.4g}. Data rounded to few distinct "
            "values, or on a curve, do this; look at selection_, or pass a number as bandwidth",
            UserWarning, stacklevel=5)
    name = "leave-one-out likelihood" if rule == "lcv" else "least-squares cross-validation"
    return Selection(rule, float(np.sqrt(t)), times, -values if rule == "lcv" else values,
                     f"{name} of {n} distinct points{why}")


class _progress:
    """A progress bar that counts times, or nothing."""

    def __init__(self, verbose, rule):
        self.bar = None
        if verbose:
            from tqdm.auto import tqdm
            self.bar = tqdm(desc=f"bandwidth by {rule}", unit="time")

    def __enter__(self):
        return self

    def __call__(self, t):
        if self.bar is not None:
            self.bar.set_postfix(bandwidth=f"{np.sqrt(t):.3g}")
            self.bar.update()

    def __exit__(self, *error):
        if self.bar is not None:
            self.bar.close()
