r"""Heat kernels as arrays: the tables that the kernel sums read.

A kernel sum needs, for each factor of the manifold and for one time t, three functions of the
squared chord c: :math:`\log k_t`, its slope :math:`\partial_c\log k_t`, and
:math:`\Delta k_t/k_t`. Compiled code cannot call back into Python, so they travel as
polynomials, in one of three forms.

``gauss``
    One polynomial in c on :math:`[0,c_{cut}]`, where the kernel has fallen to
    :math:`e^{-60}` of its peak; beyond the cut that value is used. It gives the 128th root of
    k / k(0), which needs no exponential: a polynomial of degree 11 (19 or 27, when t is larger)
    resolves the root to the last digit, and seven squarings undo it at the price of two digits.
    This is the fast form. It exists when t is small (about t < 0.03 on the unit sphere).
``series``
    One polynomial in y = 1 - 2c/c_max over the whole of a compact factor, of k / k(0) itself and of its
    derivatives. It exists when t is large (about t > 0.03 on the unit sphere, t > 0.1 on the unit circle) and has
    at most 48 coefficients. On spheres they are positive, as those of every positive definite function of
    the cosine are (Schoenberg), so powers of y cancel nothing; but values are right relative to the peak only:
    a query whose sum is small is done again without this form. Where -x is an image of x, as for axes and
    rotations, the sum over both is the even part, twice: one polynomial in y^2 for two images.
``cells``
    Polynomials of degree 7 on equal cells of the distance from the cut locus, :math:`v=|x+y|` on a
    sphere and L/2 - |x-y| on a circle, over the whole manifold. Near the cut locus several
    geodesics compete and the log kernel bends within a layer of width t/pi: the cells resolve
    that layer. In hyperbolic space, which has no cut locus, the cells are sixteen equal parts of each octave
    of 1 + c/R^2, up to where the kernel has fallen to :math:`e^{-60}` of its peak: equal steps in the
    distance, nearly, that the bits of a number give without a logarithm. Used in the dense sums where
    the others do not serve.

In the tail, where a sum is smaller than the cut of a dense form, another table serves at every
t: panels in the same variable, geometrically fine at the cut locus, of log k + r^2/2t, the Gaussian
exponent left out so that nothing underflows. In hyperbolic space the panels are in the distance, and hold
the slope as (d log k / dr) / r, which does not underflow as that in c does.

All are fitted at Chebyshev nodes to the exact functions of :class:`SpaceForm`, so their
error is measured from the decay of the coefficients and is below ``ERROR``.
"""
from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

__all__ = ["ERROR", "KernelTable", "RadialLaw", "TailTable", "radial_law", "table", "tail_table"]

#: Bound on the error of a tabulated log kernel, relative to max(1, its value).
ERROR = 2e-13
#: Bound on the error of a tabulated slope or Laplacian ratio, relative to its largest value nearby;
#: next to the cut locus at small times, 4e-15 (size of the space)^2 / t where that is more.
SLOPE_ERROR = 1e-12
#: The ``gauss`` form reaches down to exp(-DEPTH) of the peak.
DEPTH = 60.0

#: The ``gauss`` form tabulates the 128th root of the kernel, which seven squarings undo.
ROOT = 128

_GAUSS = (12, 20, 28)  # coefficients of the gauss form: the fewest that resolve it
_SERIES, _TERMS = 48, 12  # coefficients of the series form at most, and the number by which they are read
_SERIES_ERROR = 3e-16     # its error relative to the peak, of which sums over many sources see less
_PANEL = 16   # coefficients of a panel
_CELL = 8     # coefficients of a cell
KINDS = {"line": 0, "circle": 1, "sphere": 2, "hyperbolic": 3}
#: Cells of an octave of 1 + c/R^2 in hyperbolic space; the kernels know it too.
OCTAVE = 16
#: Largest distance in hyperbolic space, in radii of curvature: beyond it sinh r leaves the range of floats.
FARTHEST = 690.0


def _chebyshev_to_powers(count, shift):
    """Matrix from values at Chebyshev nodes to power coefficients on [-1, 1] or [0, 1]."""
    nodes = np.cos(np.pi * (np.arange(count) + 0.5) / count)
    cheb = np.linalg.inv(np.polynomial.chebyshev.chebvander(nodes, count - 1))
    # T_{k+1} = 2 x T_k - T_{k-1}, with 2 x - 1 in place of x on [0, 1]
    powers = np.zeros((count, count))
    powers[0, 0] = 1.0
    for k in range(1, count):
        times_x = np.concatenate([[0.0], powers[:-1, k - 1]])
        if shift:
            times_x = 2 * times_x - powers[:, k - 1]
        powers[:, k] = times_x if k == 1 else 2 * times_x - powers[:, k - 2]
    return nodes, cheb, powers


_GAUSS_FITS = [_chebyshev_to_powers(count, True) for count in _GAUSS]
_SERIES_FIT = _chebyshev_to_powers(64, False)
_PANEL_NODES, _PANEL_CHEB, _PANEL_POWERS = _chebyshev_to_powers(_PANEL, False)
_CELL_NODES, _CELL_CHEB, _CELL_POWERS = _chebyshev_to_powers(_CELL, False)


@dataclass(frozen=True)
class KernelTable:
    """The heat kernel of a product of space forms at one time, as arrays.

    ``F`` factors, ``m`` embedded columns, three slots: log kernel relative to its peak, slope
    in c, Laplacian ratio.

    Attributes
    ----------
    start : int64 (F + 1,)
        First column of each factor.
    period : float64 (m,)
        Period of each column, 0 where there is none.
    kind : int64 (F,)
        0 flat, 1 circle, 2 sphere, 3 hyperbolic.
    half : float64 (F,)
        Distance from the cut locus at c = 0: half the period, or the diameter 2R, also where R is the radius of
        curvature of a hyperbolic factor.
    form : int64 (F,)
        0 cells, 1 gauss, 2 series, 3 the even part of it.
    cut, poly : float64 (F,), (F, 3, 48)
        The ``gauss`` form: power coefficients in min(c / cut, 1) of the root, slope, ratio, 28 at most.
        The ``series`` form: those in y = 1 - 2 c / cut of k, of its derivative in c and of its Laplacian, all / k(0).
        Its even part: those in y^2 of the sum over c and cut - c; of the derivative, divided by y.
    terms : int64 (F,)
        Coefficients of the ``series`` form, a multiple of 12.
    pace, cell : float64 (F,), (F, 3, 8, N)
        The ``cells`` form: cells per unit of v (the largest 1 + c/R^2 of a hyperbolic factor), and power
        coefficients in the distance from the middle of a cell, in cells.
    log_peak : float
        log k_t(x, x).
    floor : float
        Absolute error of k / k(0): where it is cut its value there, about exp(-60), or 1e-300 where only the range
        of floating-point numbers cuts; rounding of the ``series`` form.
    """

    start: np.ndarray
    period: np.ndarray
    kind: np.ndarray
    half: np.ndarray
    form: np.ndarray
    cut: np.ndarray
    poly: np.ndarray
    terms: np.ndarray
    pace: np.ndarray
    cell: np.ndarray
    log_peak: float
    floor: float

    @property
    def arrays(self):
        """The arrays in the order in which the kernels take them."""
        return (self.start, self.period, self.kind, self.half, self.form, self.cut, self.poly, self.terms,
                self.pace, self.cell)


@dataclass(frozen=True)
class TailTable:
    """log k + r^2/2t and slope in panels of the distance from the cut locus.

    Attributes as in :class:`KernelTable`; `spread` is the range of log k + r^2/2t.
    """

    start: np.ndarray
    period: np.ndarray
    kind: np.ndarray
    half: np.ndarray
    count: np.ndarray
    edge: np.ndarray
    mid: np.ndarray
    scale: np.ndarray
    panel: np.ndarray
    spread: float

    @property
    def arrays(self):
        """The arrays in the order in which the kernels take them."""
        return (self.start, self.period, self.kind, self.half, self.count, self.edge, self.mid,
                self.scale, self.panel)


def _half(factor):
    """What the kernels call `half`; see :class:`KernelTable`."""
    if factor.radius is not None:
        return 2 * factor.radius
    return 0.0 if factor.period is None else 0.5 * factor.period


def _distance_from_chord(factor, c):
    """Distance for a squared chord; at a sphere's antipode as accurate as the chord, not more."""
    r = np.sqrt(c)
    if factor.kind == "sphere":
        return 2 * factor.radius * np.arcsin(np.minimum(r / (2 * factor.radius), 1.0))
    return 2 * factor.radius * np.arcsinh(r / (2 * factor.radius)) if factor.hyperbolic else r


def _chord_from_distance(factor, r):
    """Squared chord for a distance."""
    if factor.radius is None:
        return r * r
    arm = np.sinh if factor.hyperbolic else np.sin
    return (2 * factor.radius * arm(r / (2 * factor.radius))) ** 2


def _distance_from_variable(factor, v):
    """Distance from the variable of the panels: the distance to the cut locus, or that itself."""
    if factor.kind == "circle":
        return 0.5 * factor.period - v
    if factor.kind == "hyperbolic":
        return v
    R = factor.radius
    return 2 * R * np.arccos(np.clip(v / (2 * R), 0.0, 1.0))


def _slots(factor, r, t, order, gaussian):
    """Evaluate the slots at distances r; slot 0 with or without the Gaussian exponent."""
    log_k = factor.log_kernel(r, t)
    first = log_k - r * r / (2 * t) if gaussian else log_k
    if order == 0:
        return [first]
    slope, ratio = factor.slopes(r, t)
    if gaussian:
        return [first, slope, ratio]
    if factor.hyperbolic:
        # dc/dr = 2 R sinh(r/R)
        x = r / factor.radius
        slope = slope * 2 * np.divide(np.sinh(x), x, out=np.ones_like(x), where=x > 0)
    return [first, slope]


def _resolved(cheb, bound):
    """Whether the last Chebyshev coefficients are below the bound, per row."""
    return np.abs(cheb[..., -2:]).max(axis=-1) <= bound


def _gauss_form(factor, t, order, peak):
    """Fit the ``gauss`` form: (cut, coefficients, value at the cut), or None if not resolved."""
    reach = factor.reach
    # On a sphere log k >= peak - r^2/2t, elsewhere it is less; a little more depth costs nothing.
    r = np.sqrt(2 * t * (DEPTH + 0.5 * factor.dim)) if factor.kind != "line" else np.sqrt(2 * t * DEPTH)
    if r > (4 * factor.radius if factor.hyperbolic else 0.75 * reach):
        return None
    cut = _chord_from_distance(factor, r)
    for fit in _GAUSS_FITS:
        nodes, to_cheb, to_powers = fit
        r = _distance_from_chord(factor, 0.5 * cut * (1 + nodes))
        values = _slots(factor, r, t, order, True)
        values[0] = np.exp((values[0] - peak) / ROOT)
        cheb = to_cheb @ np.array(values).T
        scale = np.abs(cheb).max(axis=0)
        # squaring the root back multiplies its error by ROOT
        bound = np.array([ERROR / ROOT, *SLOPE_ERROR * scale[1:]])
        if (_resolved(cheb.T, bound)).all():
            break
    else:
        return None
    cheb[np.abs(cheb) < 1e-19 * scale] = 0.0
    poly = np.zeros((3, _SERIES))
    poly[:len(values), :len(nodes)] = (to_powers @ cheb).T
    poly[0, 0] = 1.0  # exact: the kernel at distance zero is its peak
    return cut, poly, float(poly[0].sum()) ** ROOT


def _series_form(factor, t, order, peak, even):
    """Fit the ``series`` form: (largest c, coefficients, their number), or None if it does not serve."""
    if not np.isfinite(factor.reach):
        return None
    most = _chord_from_distance(factor, factor.reach)
    nodes, to_cheb, _ = _SERIES_FIT
    r = _distance_from_chord(factor, 0.5 * most * (1 - nodes))
    values = _slots(factor, r, t, order, True)
    k = np.exp(values[0] - peak)
    values = np.array([k, *(k * v for v in values[1:])])
    cheb = to_cheb @ values.T
    # the last coefficients are rounding, of which a polynomial of fewer is free
    size = np.abs(values).max(axis=1)
    noise = 4e-16 * size
    kept = np.flatnonzero((np.abs(cheb) > noise).any(axis=1))[-1] + 1
    if kept > _SERIES:
        return None
    poly = np.zeros((3, _SERIES))
    for slot in range(len(values)):
        coefs = np.polynomial.chebyshev.cheb2poly(cheb[:kept, slot])
        if np.abs(coefs).sum() > 4 * size[slot]:
            return None  # powers would cancel
        if even:
            coefs = 2 * coefs[slot == 1::2]
        poly[slot, :len(coefs)] = coefs
    return most, poly, -(-(kept // 2 + 1 if even else kept) // _TERMS) * _TERMS


def _panels(factor, t, order, gaussian, shift=0.0):
    """Fit panels in v on [0, half], geometrically fine at 0, bisected until resolved."""
    if factor.radius is None and factor.period is None:
        zero = np.zeros(1)
        value = _slots(factor, zero, t, 0, gaussian)[0][0] - shift
        coef = np.zeros((3, 1, _PANEL))
        coef[0, 0, 0] = value
        return zero, zero, np.ones(1), coef
    unit = factor.scale
    if factor.hyperbolic:
        half, layer = FARTHEST * unit, 0.5 * unit
    else:
        half = _half(factor)
        layer = min(0.5 * t / unit, 0.25 * half)
    # The rounding of a distance is magnified at the cut locus, where slopes are of the order of
    # pi unit / t: that noise must not be taken for structure.
    noise = max(SLOPE_ERROR, 4e-15 * unit**2 / t)
    steps = max(1, int(np.ceil(np.log2(half / layer))))
    todo = half * np.concatenate([[0.0], 0.5 ** np.arange(steps - 1, -1, -1)])
    todo = np.column_stack([todo[:-1], todo[1:]])
    done_edges, done_coefs = [], []
    for _ in range(30):
        low, high = todo.T
        mid, width = 0.5 * (low + high), 0.5 * (high - low)
        v = mid[:, None] + width[:, None] * _PANEL_NODES
        r = _distance_from_variable(factor, v)
        values = _slots(factor, r, t, order, gaussian)
        values[0] = values[0] - shift
        exponent = (r * r).max(axis=-1) / (2 * t)
        ok = np.ones(len(todo), dtype=bool)
        coef = np.zeros((3, len(todo), _PANEL))
        for slot, value in enumerate(values):
            cheb = value @ _PANEL_CHEB.T
            size = np.abs(value).max(axis=-1)
            # slopes at huge times fall to the smallest floats, which have no digits: 1e-280 is nothing
            bound = ERROR * np.maximum(size, 1 + exponent) if slot == 0 else noise * size + 1e-280
            ok &= _resolved(cheb, bound)
            coef[slot] = cheb @ _PANEL_POWERS.T
        done_edges.append(todo[ok])
        done_coefs.append(coef[:, ok])
        bad = todo[~ok]
        if not len(bad):
            break
        if len(bad) > 100:
            raise ArithmeticError(f"panels do not resolve the heat kernel of {factor} at t = {t}")
        middle = bad.mean(axis=1)
        todo = np.concatenate([np.column_stack([bad[:, 0], middle]),
                               np.column_stack([middle, bad[:, 1]])])
    else:
        raise ArithmeticError(f"panels do not resolve the heat kernel of {factor} at t = {t}")
    edges, coefs = np.concatenate(done_edges), np.concatenate(done_coefs, axis=1)
    order_ = np.argsort(edges[:, 0])
    edges, coefs = edges[order_], coefs[:, order_]
    return (edges[:, 0], edges.mean(axis=1), 2.0 / np.diff(edges, axis=1)[:, 0],
            np.ascontiguousarray(coefs))


def _octave_cells(factor, t, order, peak):
    """Fit the cells of a hyperbolic factor; returns the largest 1 + c/R^2, (3, 8, N) coefficients, the last value."""
    R = factor.radius
    low, high = 0.0, FARTHEST * R

    def depth(r):
        return peak - (float(factor.log_kernel(np.array([r]), t)[0]) - r * r / (2 * t))

    if depth(high) < DEPTH:
        raise ValueError(f"t = {t:.3g} spreads heat in hyperbolic space of radius {R:.3g} beyond {FARTHEST:g} radii, "
                         "where distances leave the range of floats")
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if depth(middle) < DEPTH else (low, middle)
    octaves = np.log2(1 + _chord_from_distance(factor, high) / R**2)
    count = OCTAVE * int(octaves) + int(OCTAVE * (2.0 ** (octaves % 1) - 1)) + 1
    cell = np.arange(count)
    inside = (cell % OCTAVE)[:, None] + 0.5 + 0.5 * _CELL_NODES
    c = R**2 * (2.0 ** (cell // OCTAVE)[:, None] * (1 + inside / OCTAVE) - 1)
    values = _slots(factor, _distance_from_chord(factor, c), t, order, True)
    values[0] = values[0] - peak
    out = np.zeros((3, _CELL, count))
    powers = (_CELL_POWERS @ _CELL_CHEB) * (2.0 ** np.arange(_CELL))[:, None]
    for slot, value in enumerate(values):
        out[slot] = powers @ value.T
    # the largest number below the end of the last cell
    top = float(np.nextafter(2.0 ** (count // OCTAVE) * (1 + (count % OCTAVE) / OCTAVE), 0.0))
    return top, out, float(np.exp(out[0, :, -1] @ 0.5 ** np.arange(_CELL)))


def _cells(factor, t, order, peak):
    """Resample the panels on equal cells; returns cells per unit of v, (3, 8, N) coefficients, what is cut off."""
    if factor.hyperbolic:
        return _octave_cells(factor, t, order, peak)
    edge, mid, scale, coef = _panels(factor, t, order, True, peak)
    half = _half(factor)
    unit = factor.scale
    # The log kernel is singular at imaginary v, nearest on the circle, at v = i t/2 (t in units of the
    # squared size). A cell of width h then has the error (h/t)^8 / 1000, measured; it may be 1e-13
    # times the size of the log kernel, which grows to pi^2/2t.
    small = t / unit**2
    width = small * (1e-10 * (1 + 5 / small)) ** (1 / 8)
    count = int(np.ceil(half / unit / width))
    v = (np.arange(count)[:, None] + 0.5 + 0.5 * _CELL_NODES) * (half / count)
    which = np.searchsorted(edge, v, side="right") - 1
    x = (v - mid[which]) * scale[which]
    powers = (_CELL_POWERS @ _CELL_CHEB) * (2.0 ** np.arange(_CELL))[:, None]
    out = np.zeros((3, _CELL, count))
    for slot in range(1 + 2 * (order > 0)):
        table = coef[slot].T
        value = table[-1][which]
        for k in range(_PANEL - 2, -1, -1):
            value *= x
            value += table[k][which]
        out[slot] = powers @ value.T
    return count / half, out, 0.0


def _stack_panels(forms):
    """Pad the panels of several factors to common arrays."""
    most = max(form[0].size for form in forms)
    count = np.ones(len(forms), dtype=np.int64)
    edge, mid = np.full((len(forms), most), np.inf), np.zeros((len(forms), most))
    scale, coef = np.zeros((len(forms), most)), np.zeros((len(forms), 3, most, _PANEL))
    for f, form in enumerate(forms):
        k = form[0].size
        count[f], edge[f, :k], mid[f, :k], scale[f, :k] = k, *form[:3]
        coef[f, :, :k] = form[3]
    return count, edge, mid, scale, coef


def _layout(factors):
    start = np.concatenate([[0], np.cumsum([f.width for f in factors])]).astype(np.int64)
    period = np.concatenate([np.full(f.width, f.period or 0.0) for f in factors])
    return (start, period, np.array([KINDS[f.kind] for f in factors], dtype=np.int64),
            np.array([_half(f) for f in factors]))


@lru_cache(maxsize=512)
def table(factors, t, order=0, series=True, even=False):
    """Tabulate the heat kernel of a product of space forms for the dense sums.

    Parameters
    ----------
    factors : tuple of SpaceForm
    t : float
        Time, positive.
    order : int
        0 for the log kernel alone, 1 or 2 for slopes and Laplacians too.
    series : bool
        Whether the ``series`` form may be used, which is right relative to the peak only.
    even : bool
        Whether, in that form, the kernel from the antipode is to be added; for one factor, a sphere.

    Returns
    -------
    KernelTable
    """
    count, peak, floor = len(factors), 0.0, 1e-300
    form, terms = np.zeros((2, count), dtype=np.int64)
    cut, poly, pace, cells = np.ones(count), np.zeros((count, 3, _SERIES)), np.zeros(count), {}
    for f, factor in enumerate(factors):
        top = float(factor.log_kernel(np.zeros(1), t)[0])
        peak += top
        found = _gauss_form(factor, t, order, top)
        if found and series and even and found[1][0, _GAUSS[1]:].any() and _series_form(factor, t, order, top, even):
            found = None  # one even series of as many coefficients is half the work
        if found:
            form[f], (cut[f], poly[f], error) = 1, found
        elif series and (found := _series_form(factor, t, order, top, even)):
            form[f], (cut[f], poly[f], terms[f]), error = 2 + even, found, (1 + even) * _SERIES_ERROR
        else:
            pace[f], cells[f], error = _cells(factor, t, order, top)
        floor = max(floor, error)
    cell = np.zeros((count, 3, _CELL, max([c.shape[-1] for c in cells.values()], default=1)))
    for f, c in cells.items():
        cell[f, ..., :c.shape[-1]] = c
    return KernelTable(*_layout(factors), form, cut, poly, terms, pace, cell, log_peak=peak, floor=floor)


@lru_cache(maxsize=512)
def tail_table(factors, t, order=0):
    """Tabulate the heat kernel, its Gaussian exponent left out, for the far tail.

    Parameters and errors as in :func:`table`.

    Returns
    -------
    TailTable
    """
    panels = [_panels(factor, t, order, False) for factor in factors]
    spread = 0.0
    for factor, form in zip(factors, panels, strict=True):
        if factor.reach < np.inf:  # elsewhere log k + r^2/2t does not increase with r
            values = form[3][0] @ np.vander([-1.0, 0.0, 1.0], _PANEL, increasing=True).T
            spread += float(np.ptp(values))
    return TailTable(*_layout(factors), *_stack_panels(panels), spread=spread)


class RadialLaw:
    r"""The distance that Brownian motion in a curved factor travels, as a map from that in flat space.

    In :math:`R^d` the distance after time t is :math:`\rho=\sqrt t\,|\xi|`, :math:`\xi` standard
    normal. On a sphere and in hyperbolic space it has the density :math:`p_t(r)A(r)`, A the area of the geodesic
    sphere. The increasing map T with :math:`F_{curved}(T(\rho))=F_{flat}(\rho)` is smooth and close
    to the identity for small t, so it is tabulated and interpolated, not the distribution
    function itself: the direction and length of one normal vector give an exact step.

    Parameters
    ----------
    factor : SpaceForm
        A sphere, or a hyperbolic space.
    t : float
        Time.

    Notes
    -----
    The distribution function is integrated by 16-point Gauss-Legendre panels, from both ends, and
    inverted by bisection at 1025 quantiles between 1e-10 and 1 - 1e-16. T is linear below the
    first and constant beyond the last. Error of F(T) below 1e-8. All tables are in multiples of
    :math:`\sqrt t`, and densities are multiplied as logarithms: in high dimension the kernel and the area
    leave the range of floats in opposite directions, while their product stays.

    Raises
    ------
    ArithmeticError
        If the density does not integrate to 1 within 1e-8.
    """

    _PANELS, _QUANTILES = 96, 1025

    def __init__(self, factor, t):
        from scipy.interpolate import CubicSpline
        from scipy.stats import chi

        unit = self._unit = float(np.sqrt(t))
        far = np.sqrt(factor.dim) + 11.0
        if factor.hyperbolic:  # where heat drifts away, at a speed of (d - 1) / 2R
            far += 0.5 * (factor.dim - 1) * unit / factor.radius
            if far * unit > FARTHEST * factor.radius:
                raise ValueError(f"t = {t:.3g} carries heat in hyperbolic space of radius {factor.radius:.3g} beyond "
                                 f"{FARTHEST:g} radii, where distances leave the range of floats: nothing can be drawn")
        far = min(factor.reach / unit, far)
        edges = np.linspace(0.0, far, self._PANELS + 1)
        nodes, weights = np.polynomial.legendre.leggauss(16)
        width = 0.5 * np.diff(edges)
        s = edges[:-1, None] + width[:, None] * (1 + nodes)
        r = unit * s
        values = np.exp(factor.log_kernel(r, t) - 0.5 * s * s + factor.log_area(r) + np.log(unit))
        fit = np.linalg.inv(np.polynomial.legendre.legvander(nodes, 15))
        integral = np.polynomial.legendre.legint((values @ fit.T).T, lbnd=-1) * width
        mass = (values @ weights) * width
        below = np.concatenate([[0.0], np.cumsum(mass)])
        above = np.concatenate([np.cumsum(mass[::-1])[::-1], [0.0]])
        self.mass = float(below[-1])
        if not abs(self.mass - 1) <= 1e-8:
            raise ArithmeticError(f"the distance of Brownian motion on {factor} at t = {t} has a density of integral "
                                  f"{self.mass:.12g}, not 1: the heat kernel is not accurate there")

        def scaled(s):
            k = np.clip(np.searchsorted(edges, s, side="right") - 1, 0, self._PANELS - 1)
            x = (s - edges[k]) / width[k] - 1
            part = np.polynomial.legendre.legval(x, integral[:, k], tensor=False)
            return below[k] + part, above[k] - part

        self.distribution = lambda r: scaled(np.asarray(r) / unit)
        flat = chi(factor.dim)
        x = np.linspace(flat.ppf(1e-10), flat.isf(1e-16), self._QUANTILES)
        low, high = np.zeros_like(x), np.full_like(x, far)
        want_below, want_above = flat.cdf(x), flat.sf(x)
        for _ in range(60):
            middle = 0.5 * (low + high)
            got_below, got_above = scaled(middle)
            less = np.where(want_below < 0.5, got_below < want_below, got_above > want_above)
            low, high = np.where(less, middle, low), np.where(less, high, middle)
        self._ends = x[0], x[-1]
        self._first = low[0] / x[0]
        self._spline = CubicSpline(x, low)
        self._last = low[-1]

    def __call__(self, rho):
        """Map flat distances to distances in the factor; shape of `rho`."""
        low, high = self._ends
        x = np.asarray(rho) / self._unit
        s = np.where(x < low, x * self._first, self._spline(np.clip(x, low, high)))
        return self._unit * np.clip(np.where(x > high, self._last, s), 0.0, None)


@lru_cache(maxsize=256)
def radial_law(factor, t):
    """Return the (cached) :class:`RadialLaw` of a factor at a time."""
    return RadialLaw(factor, t)
