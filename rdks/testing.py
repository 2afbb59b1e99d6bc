r"""The identities that every manifold of this package satisfies, as a conformance suite.

One call, :func:`check_manifold`, tests a manifold, one of this package or one of your own. Each check
is one identity of geometry, of the heat kernel or of kernel sums, with a tolerance that is an
*error model*: a bound computed from the size of the rounding, truncation or Monte-Carlo error
that the measurement itself commits. No check can be switched off. A check that cannot apply says why
from the attributes of the manifold (an infinite volume, a continuous spectrum, ...), and the
report lists it.

What goes into the error models
-------------------------------
*Rounding.* A coordinate is known to 2^-52 of its size. A tabulated log kernel is known to
:data:`rdks.radial.ERROR` relative to max(1, its value), per factor, and moves by r/t times the error
of a distance r.
*Truncation.* Derivatives are central differences of order eight. Their truncation error is bounded by
their difference from those of order six, integrals likewise from a coarser rule. Such a bound
must itself be small, or the check fails as unresolved: a tolerance that adapts cannot
swallow an error.
*Chance.* A mean over draws may lie ``SIGMA`` standard errors from its expectation. The seed is fixed, so
a run either always passes or always fails.

*Theory.* Where the heat kernel itself is an approximation (``exactness`` "asymptotic"), identities of the true
kernel hold to the manifold's own :meth:`~rdks.manifolds.Manifold.log_error`, which thereby is tested too.

Lengths are in the unit :func:`_scale` of the manifold: the smallest radius of a factor, a circle of
length L having radius L / 2 pi; 1 in Euclidean space.
"""
from __future__ import annotations

import functools
import math
import warnings
import zlib
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from . import _twins, choice, engines, radial
from .errors import AccuracyWarning, PointError
from .estimator import RDKSEstimator
from .manifolds import Manifold
from .sampling import heat_sample

__all__ = ["MANIFOLD_CHECKS", "SIGMA", "CheckReport", "Measurement", "Outcome", "check_manifold", "checks_of"]

#: A mean over draws may lie this many standard errors from its expectation (two-sided chance 6e-7).
SIGMA = 5.0
#: Rounding of a number of size one.
EPS = float(np.finfo(float).eps)
#: Identity checks in the order in which they run; each takes a manifold and a seed.
MANIFOLD_CHECKS = []

#: Times in units of the squared scale at which log densities must be finite and right.
_TIMES = (1e-6, 1e-3, 0.05, 1.0, 50.0)
_DRAWS = 20_000
_TOLERANCE = "the tolerance of"


def sources(manifold, Z, weight, time):
    """Make the engine that the checks are about: exact sums, whatever their number."""
    return choice.sources(manifold, Z, weight, time, engine="auto" if manifold.kernel == "basis" else "direct")



@dataclass(frozen=True)
class Measurement:
    """One measured number and the bound it keeps.

    Attributes
    ----------
    what : str
    value, bound : float
    """

    what: str
    value: float
    bound: float


@dataclass(frozen=True)
class Outcome:
    """What a check found on a manifold.

    Attributes
    ----------
    name : str
        Name of the check.
    measured : tuple of Measurement
    not_applicable : str or None
        Why the check does not apply, from the manifold's own attributes.
    """

    name: str
    measured: tuple[Measurement, ...] = ()
    not_applicable: str | None = None


@dataclass(frozen=True)
class CheckReport:
    """Summary of :func:`check_manifold`; ``str(report)`` is a table.

    Attributes
    ----------
    manifold : Manifold
    outcomes : tuple of Outcome
    """

    manifold: object
    outcomes: tuple[Outcome, ...]

    @property
    def ran(self):
        """Names of the checks that ran, in order."""
        return [o.name for o in self.outcomes if o.not_applicable is None]

    @property
    def not_applicable(self):
        """Mapping from the checks that do not apply to the reason."""
        return {o.name: o.not_applicable for o in self.outcomes if o.not_applicable is not None}

    def __str__(self):
        lines = [f"{len(self.ran)} checks passed on {self.manifold!r}:"]
        for o in self.outcomes:
            if o.not_applicable is None:
                shown = [m for m in o.measured if not m.what.startswith(_TOLERANCE)] or o.measured
                worst = max(shown, key=lambda m: m.value / m.bound if m.bound else 0.0)
                lines.append(f"  {o.name}: {worst.what} {worst.value:.2g} <= {worst.bound:.2g}")
        lines += [f"  {name}: not applicable, {why}" for name, why in self.not_applicable.items()]
        return "\n".join(lines)


def _as_check(measure, applies=None):
    """Make a check, from a manifold and a seed to an Outcome, of a generator of (what, values, bounds).

    `applies` maps a manifold to None, or to the reason why the check cannot apply.
    """
    @functools.wraps(measure)
    def check(manifold, *, seed=0):
        why = applies(manifold) if applies else None
        if why is not None:
            return Outcome(measure.__name__, not_applicable=why)
        from . import _kernels  # noqa: F401  from here on sums are compiled, as in real work
        # each check has its own stream: what one draws does not depend on the others
        rng = np.random.default_rng([seed, zlib.crc32(measure.__name__.encode())])
        measured = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AccuracyWarning)  # that is what log_error is for
            found = list(measure(manifold, rng))
        for what, value, bound in found:
            value, bound = np.broadcast_arrays(np.asarray(value, float), np.asarray(bound, float))
            excess = np.where(np.isnan(value), np.inf, value - bound).ravel()
            worst = int(np.argmax(excess)) if excess.size else 0
            m = Measurement(what, float(value.ravel()[worst]), float(bound.ravel()[worst]))
            if not m.value <= m.bound:
                raise AssertionError(f"{measure.__name__}: {what}: measured {m.value:.3g}, bound "
                                     f"{m.bound:.3g}, on {manifold!r}. {measure.__doc__}")
            measured.append(m)
        return Outcome(measure.__name__, tuple(measured))

    return check


def _identity(applies=None):
    """Register a generator as a check of manifolds."""
    def register(measure):
        check = _as_check(measure, applies)
        MANIFOLD_CHECKS.append(check)
        return check
    return register


def checks_of(manifold):
    """List the checks that :func:`check_manifold` runs: those of :data:`MANIFOLD_CHECKS`, or of discretised spaces.

    Parameters
    ----------
    manifold : Manifold

    Returns
    -------
    list of callable
        Each takes a manifold and the keyword `seed`, and returns an :class:`Outcome`.
    """
    if manifold.kernel != "basis":
        return MANIFOLD_CHECKS
    from ._discrete_checks import DISCRETE_CHECKS
    return [_as_check(measure, applies) for measure, applies in DISCRETE_CHECKS]


def check_manifold(manifold, *, seed=0):
    """Run every identity on a manifold.

    Parameters
    ----------
    manifold : Manifold
    seed : int
        Seed of the random points and draws.

    Returns
    -------
    CheckReport
        Which checks ran, their tightest measurements, and which did not apply, with the reason.

    Raises
    ------
    AssertionError
        If a check fails; names each failing check, what was measured and its bound.

    Examples
    --------
    >>> from rdks.manifolds import Euclidean
    >>> from rdks.testing import check_manifold
    >>> report = check_manifold(Euclidean(1))
    >>> len(report.ran) > 25
    True
    >>> for name, why in report.not_applicable.items():
    ...     print(name, "-", why)
    corrupted_row_is_named - any finite numbers are a point
    uniform_limit - the volume is infinite
    first_eigenvalue_sets_the_decay - there is no positive eigenvalue
    total_mass_of_a_mixture - the volume is infinite
    """
    outcomes, failures = [], []
    checks = checks_of(manifold)
    for check in checks:
        try:
            outcomes.append(check(manifold, seed=seed))
        except AssertionError as error:
            failures.append(str(error))
        except Exception as error:  # a manifold that raises fails the check; the others still run
            failures.append(f"{check.__name__}: raised {type(error).__name__}: {error}")
    if failures:
        raise AssertionError(f"{len(failures)} of {len(checks)} checks failed on {manifold!r}:\n"
                             + "\n".join(failures))
    return CheckReport(manifold, tuple(outcomes))


# ------------------------------------------------------------------------------------------ tools


def _scale(manifold):
    """Smallest radius of a factor, the unit of length; 1 if all are Euclidean.

    Of a quotient the radius of the sphere whose first eigenvalue is its own, where that is less.
    """
    unit = min(manifold.scales, default=1.0)
    if manifold.n_images > 1 and manifold.smallest_eigenvalue > 0:
        unit = min(unit, np.sqrt(manifold.dim / manifold.smallest_eigenvalue))
    return unit


def _wide(manifold):
    """Largest radius of a compact factor; 1 if none is compact."""
    return max((f.scale for f in manifold.factors() if np.isfinite(f.reach)), default=1.0)


def _times(manifold, *units):
    """Times in units of the squared scale, those left out for which an approximate kernel is not made."""
    times = [(s, s * _scale(manifold) ** 2) for s in units]
    return [(s, t) for s, t in times if t <= manifold.max_time]


def _reach(manifold):
    """A distance within which every pair of points of the covering space has one geodesic."""
    return min([f.reach for f in manifold.factors()], default=manifold.injectivity_radius)


def _injectivity(manifold, Z):
    """At each point, a distance up to which geodesics are shortest: half that to the nearest of its own images.

    Where there are no factors, what the manifold declares at the point, if it does: next to an edge that is little.
    """
    images = manifold.images(Z)[1:]
    near = [0.5 * manifold._cover_dist(Z, image) for image in images]
    if hasattr(manifold, "injectivity_radii"):
        near.append(manifold.injectivity_radii(Z))
    return np.min([np.full(len(Z), _reach(manifold)), *near], axis=0)


def _stretch(manifold, Z):
    """What the rounding of coordinates is multiplied by next to an edge, relative to elsewhere; 1 where none is; (n,).

    Coordinates that end at an edge at the distance R, as squares of lengths do, are off by their rounding over R.
    """
    F = manifold.frame(Z)
    ways = [manifold.geodesic_length(Z, sign * F[:, j]) for j in range(manifold.dim) for sign in (1, -1)]
    return np.maximum(1.0, np.abs(Z).max(axis=1) / np.min(ways, axis=0))


def _smoothing_time(manifold):
    """0.3 squared units, and less for an approximate kernel that is off by more than a twentieth then."""
    t = min(0.3 * _scale(manifold) ** 2, manifold.max_time)
    while manifold.log_error(t) > 0.05:  # of order t at least
        t *= 0.5
    return t


def _draws(manifold):
    """How many draws a mean is over: fewer where a kernel takes its time."""
    return _DRAWS if manifold.kernel == "factors" else _DRAWS // 10


def _size(*points):
    """Largest coordinate: what the rounding of coordinates is relative to."""
    return max(float(np.abs(Z).max()) for Z in points)


def _rows(manifold):
    """List (factor, columns, rows of the frame) of the factors."""
    out, row = [], 0
    for f, s in manifold.pieces():
        out.append((f, s, slice(row, row + f.dim)))
        row += f.dim
    return out


def _norm(V):
    return np.sqrt(np.einsum("...j,...j->...", V, V))


def _unit(manifold, Z, rng):
    """Draw a unit tangent vector at each point, in coordinates of its frame."""
    a = rng.standard_normal((len(Z), manifold.dim))
    return np.einsum("nd,ndm->nm", a / _norm(a)[:, None], manifold.frame(Z))


def _farthest(manifold, Z):
    """Move each point to its cut locus in every compact factor, and 20 away in others (12 radii where curved).

    In a quotient half as far, where copies of a point compete; where there are no factors, 0.9 of the reach.
    """
    V = np.zeros_like(Z)
    frame = manifold.frame(Z)
    if manifold.kernel != "factors":
        return manifold.exp(Z, 0.9 * min(manifold.injectivity_radius, 5.0) * frame[:, 0])
    for f, _, rows in _rows(manifold):
        far = f.reach if np.isfinite(f.reach) else 12.0 * f.scale if f.hyperbolic else 20.0
        V += (far if manifold.n_images == 1 else 0.5 * far) * frame[:, rows.start]
    return manifold.exp(Z, V)


def _at_distance(manifold, Z, r, rng):
    """Move each point by a distance r (at most the reach in every factor) in a random direction.

    Less far where an edge of the space is in the way: 0.9 of the way to it.
    """
    V = _unit(manifold, Z, rng)
    r = np.minimum(np.broadcast_to(np.asarray(r, dtype=float).ravel(), len(Z)), 0.9 * manifold.geodesic_length(Z, V))
    W = manifold.exp(Z, r[:, None] * V)
    # an angle may be written with any number of whole turns: sums must not depend on it
    for f, s in manifold.pieces() if manifold.kernel == "factors" else ():
        if f.period is not None:
            W[:, s] += f.period * rng.integers(-1, 2, (len(W), 1))
    return W


def _log_weight(manifold, Z):
    """Log of the invariant law's density relative to the uniform one: what a kernel with a drift tends to."""
    return manifold.log_invariant(Z) if manifold.has_drift else np.zeros(len(Z))


def _log_ratio(manifold, source, Z, t):
    """Log of k_t(source, z) relative to the invariant law, the symmetric form of the kernel."""
    return _log_k(manifold, source, Z, t) - _log_weight(manifold, Z)


def _heat(manifold, source, Z, t, order=0):
    """Evaluate the heat kernel of one source at queries on the public path."""
    return sources(manifold, source.reshape(1, -1), np.ones(1), t).evaluate(Z, 0.0, order)


def _log_k(manifold, source, Z, t):
    return _heat(manifold, source, Z, t).log_density


def _log_k_to(manifold, Z, target, t):
    """Evaluate the kernels of many sources at one query; tables serve it where the kernel is symmetric."""
    if manifold.has_drift:
        return manifold.log_heat_kernel(Z, np.tile(target, (len(Z), 1)), t)
    return _log_k(manifold, target, Z, t)


def _mixture(manifold, rng, n=12, t=None):
    """Make an engine of n random sources within about one unit, random weights; returns it and t.

    An approximate kernel, of the shortest geodesic alone, has a kink on the cut locus: sources and the queries of
    `_near` stay so close together that it is not between them.
    """
    t = 0.1 * _scale(manifold) ** 2 if t is None else t
    start = np.repeat(manifold.random(1, rng), n, axis=0)
    far = _scale(manifold) * 1.5
    if manifold.exactness == "asymptotic":
        far = min(far, 0.25 * _reach(manifold))
    Z = _at_distance(manifold, start, far * rng.uniform(0.0, 1.0, n), rng)
    return sources(manifold, Z, rng.uniform(0.5, 2.0, n), t), t


def _near(manifold, total, rng, count):
    """Draw queries near random sources of an engine, at distances of the order of the bandwidth."""
    start = total.Z[rng.integers(len(total.Z), size=count)]
    h = float(np.sqrt(total.time.max()))
    if manifold.exactness == "asymptotic":
        h = min(h, 0.15 * _reach(manifold))
    return _at_distance(manifold, start, h * rng.uniform(0.2, 2.0, count), rng)


def _deep(manifold, Z, t, rng, count):
    """Queries some 120 below the peak of a source, and how far they are; none where they would reach half around."""
    r = np.sqrt(2 * t * 120.0) * rng.uniform(0.8, 1.2, count)
    if r.max() > 0.5 * min(_reach(manifold), 1.5 * _scale(manifold)):
        return np.empty((0, manifold.embed_dim)), r
    return _at_distance(manifold, np.repeat(Z, count, 0), r, rng), r


def _log_error(manifold, log_k, r=0.0, t=1.0, size=0.0):
    """Model the error of a tabulated log kernel at distance r.

    The table's own, relative to max(1, |log k|) and per factor, of which up to eight meet in one
    comparison; and the rounding of coordinates, which moves r by about their size times 2^-52, a few
    times over, and log k by r/t times that.
    """
    table = len(manifold.factors()) * radial.ERROR if manifold.kernel == "factors" else manifold.rounding
    if any(f.hyperbolic for f in manifold.factors()):
        size = max(size, 1.0) * _scale(manifold)  # half-space coordinates have no unit
    return 8 * table * np.maximum(1.0, np.abs(log_k)) + 16 * EPS * size * np.asarray(r) / t


def _slope_error(manifold):
    """Relative error of a tabulated slope."""
    return radial.SLOPE_ERROR if manifold.kernel == "factors" else manifold.slope_rounding


def _log_gap(a, b):
    """Difference of logs; equal infinities do not count as equal."""
    with np.errstate(invalid="ignore"):
        return np.abs(a - b)


_FIRST8, _FIRST6 = np.array([[4 / 5, -1 / 5, 4 / 105, -1 / 280], [3 / 4, -3 / 20, 1 / 60, 0.0]])
_SECOND8, _SECOND6 = np.array([[8 / 5, -1 / 5, 8 / 315, -1 / 560], [3 / 2, -3 / 20, 1 / 90, 0.0]])
_OFFSETS = np.array([-4, -3, -2, -1, 0, 1, 2, 3, 4])


def _first_difference(values, step):
    """Differentiate along axis 0, sampled at the nine offsets; returns it and the order-six one."""
    odd = values[5:] - values[3::-1]
    return (np.tensordot(_FIRST8, odd, 1) / step, np.tensordot(_FIRST6, odd, 1) / step)


def _second_difference(values, step):
    """Differentiate twice along axis 0; returns it and the order-six one."""
    even = values[5:] + values[3::-1] - 2 * values[4]
    return (np.tensordot(_SECOND8, even, 1) / step**2, np.tensordot(_SECOND6, even, 1) / step**2)


def _laplacian(manifold, log_f, Z, length):
    """Take Laplacian(f)/f at points by second differences along the geodesics of the frame.

    `log_f` maps points to log f and a bound of its rounding error; `length` is the scale on which f
    varies at each point. Returns the ratio and a bound of its error, in units of 1/length^2: the
    difference between orders six and eight, and the rounding.
    """
    step = 0.08 * length
    frame = manifold.frame(Z)
    value, coarse, noise = 0.0, 0.0, 0.0
    centre, _ = log_f(Z)
    for j in range(manifold.dim):
        V = frame[:, j] * step[:, None]
        logs, errors = zip(*(log_f(manifold.exp(Z, k * V)) for k in _OFFSETS), strict=True)
        fine, rough = _second_difference(np.exp(np.array(logs) - centre), 0.08)
        value, coarse = value + fine, coarse + rough
        noise = noise + 8 * np.max(errors, axis=0) / 0.08**2
    return value, np.abs(value - coarse) + noise


def _resolved(what, bound, most):
    """Yield the demand that an adaptive tolerance be small."""
    return f"{_TOLERANCE} {what}, which must stay small", bound, most


def _area(manifold, x, V, W, r):
    """Area element of geodesic spheres at x in direction V: Jacobian of exp by differences.

    `W` spans the orthogonal directions, (k, m). Returns it, shape of r (for k = 0 ones), and its relative rounding
    error.
    """
    if not len(W):
        return np.ones_like(r), np.zeros_like(r)
    X = np.broadcast_to(x, (len(r), len(x)))

    def turned(w, angle):
        return manifold.exp(X, r[:, None] * (np.cos(angle)[:, None] * V + np.sin(angle)[:, None] * w))

    # steps of 0.05 radians, and less where that is more than 0.02 of the scale, as far out in hyperbolic space
    small = np.full(len(r), 1e-11)
    moved = manifold._cover_dist(turned(W[0], 0 * small), turned(W[0], small)) / 1e-11
    h = 0.05 * np.minimum(1.0, 0.4 * _scale(manifold) / np.maximum(moved, 1e-300))
    columns = []
    for w in W:
        around = [turned(w, k * h) for k in _OFFSETS]
        # displacements as tangent vectors at the middle: the coordinates themselves may have another metric
        moves = np.array([manifold._each("log", around[4], Y) for Y in around])
        columns.append(_first_difference(moves, 1.0)[0] / h[:, None])
    J = np.array(columns)
    # directions are known to their rounding, of which geodesics make `moved` times as much
    return np.sqrt(np.abs(np.linalg.det(np.einsum("inm,jnm->nij", J, J)))), len(W) * EPS / h


def _directions(dim, count):
    """Quadrature on the unit sphere of directions, total weight its area; dim at most 3."""
    if dim == 1:
        return np.array([[1.0], [-1.0]]), np.ones(2)
    if dim == 2:
        phi = 2 * np.pi * np.arange(count) / count
        return np.column_stack([np.cos(phi), np.sin(phi)]), np.full(count, 2 * np.pi / count)
    u, w = np.polynomial.legendre.leggauss(count // 2)
    phi = 2 * np.pi * np.arange(count) / count
    U, P = np.repeat(u, count), np.tile(phi, len(u))
    arm = np.sqrt(1 - U**2)
    return (np.column_stack([arm * np.cos(P), arm * np.sin(P), U]),
            np.repeat(w, count) * 2 * np.pi / count)


@dataclass(frozen=True)
class _Cover(Manifold):
    """The covering space of a quotient."""

    space_forms: tuple

    @property
    def dim(self):
        return sum(f.dim for f in self.space_forms)

    @property
    def point_shape(self):
        return (self.embed_dim,)

    def factors(self):
        return self.space_forms


def _polar_rule(manifold, x, t, count, full, rng):
    """Quadrature nodes and weights around x, in polar coordinates in every factor.

    Gauss-Legendre in the distance up to the cut locus, or to where a kernel of time t is
    negligible; all directions if `full`, otherwise one direction that stands for all.
    """
    frame = manifold.frame(x[None])[0]
    V, weight, rounding = np.zeros((1, len(x))), np.ones(1), np.zeros(1)
    for f, _, rows in _rows(manifold):
        basis = frame[rows]
        far = min(f.reach, (9.0 + np.sqrt(f.dim)) * np.sqrt(t))
        if f.hyperbolic:  # heat drifts away
            far += 0.5 * (f.dim - 1) * t / f.radius
        u, w = np.polynomial.legendre.leggauss(count)
        r, w = 0.5 * far * (1 + u), 0.5 * far * w
        if full:
            d, dw = _directions(f.dim, count)
        else:
            d = rng.standard_normal((1, f.dim))
            d /= _norm(d)
            dw = np.array([2 * np.pi ** (f.dim / 2) / math.gamma(f.dim / 2)])
        area, noise = _area(manifold, x, basis[0], basis[1:], r)
        w = w * area
        rounding = np.add.outer(rounding, np.repeat(noise, len(dw))).ravel()
        here = (r[:, None, None] * (d @ basis)[None]).reshape(-1, len(x))
        V = (V[:, None] + here[None]).reshape(-1, len(x))
        weight = np.multiply.outer(weight, np.multiply.outer(w, dw).ravel()).ravel()
    keep = weight > 0
    Z, weight = manifold.exp(np.broadcast_to(x, V.shape), V)[keep], weight[keep] * np.exp(-manifold.log_unit)
    rounding = rounding[keep]
    if manifold.n_images > 1:
        # The share of x among its images: the shares of all points over one point add to one. With shares of
        # heat, what is left to integrate is isotropic about x.
        orbit = manifold.images(x[None])[:, 0]
        cover = _Cover(manifold.factors())
        share = _log_k(cover, x, Z, t) - sources(cover, orbit, np.ones(len(orbit)), t).evaluate(Z).log_density
        weight = weight * np.exp(share) / len(orbit)
    return Z, weight, rounding


def _z_score(values, expected, bias=0.0):
    """Distance of the mean of draws (axis 0) from its expectation, in standard errors.

    `bias` is how far the expectation may be off, and is forgiven.
    """
    spread = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    # a mean is not known better than its rounding, however little the values spread
    floor = 16 * EPS * (np.abs(values).max(axis=0) + np.abs(expected))
    off = np.maximum(np.abs(values.mean(axis=0) - expected) - bias, 0.0)
    return off / np.maximum(spread, np.maximum(floor, 1e-300))


def _infinite_volume(manifold):
    return None if np.isfinite(manifold.volume) else "the volume is infinite"


def _no_uniform_limit(manifold):
    if manifold.max_time < np.inf:
        return "the kernel is an approximation for small times"
    return None if manifold.has_drift else _infinite_volume(manifold)


def _no_factors(manifold):
    return None if manifold.kernel == "factors" else "the kernel is not a product of those of space forms"


def _no_curvature(manifold):
    if manifold.has_drift:
        return "a drift adds terms of its own"
    return "the scalar curvature is not known" if manifold.scalar_curvature is None else None


# --------------------------------------------------------------------------------------- geometry


@_identity()
def random_points_are_valid(manifold, rng):
    """Random points are points, as written and embedded, and the shapes are as declared."""
    Z = manifold.random(50, rng)
    X = manifold.unembed(Z)
    yield "shape of embedded points off", float(Z.shape != (50, manifold.embed_dim)), 0.0
    yield "shape of points off", float(X.shape != (50, *manifold.point_shape)), 0.0
    # rounding of a norm over that many coordinates
    yield "violation", manifold.violation(X), 4 * EPS * manifold.embed_dim
    if manifold.kernel == "factors":
        sizes = sum(f.dim for f in manifold.factors()), sum(f.width for f in manifold.factors())
        yield "dim, embed_dim off those of the factors", float(
            sizes != (manifold.dim, manifold.embed_dim)), 0.0


def _every_row_is_a_point(manifold):
    X = manifold.unembed(manifold.random(20, np.random.default_rng(0)))
    wild = X + 1e3 * _size(X) * np.random.default_rng(1).standard_normal(X.shape)
    if X[0].size == manifold.dim and not (manifold.violation(wild) > manifold.tolerance).any():
        return "any finite numbers are a point"
    return None


@_identity(_every_row_is_a_point)
def corrupted_row_is_named(manifold, rng):
    """A row that is not a point raises PointError with its number, and leaves the estimator unfitted."""
    X = manifold.unembed(manifold.random(12, rng))
    est = RDKSEstimator(manifold, bandwidth=_scale(manifold))
    est.fit(X)
    for row in (0, 7):
        bad = X.copy()
        for _ in range(20):  # a chart of full dimension may hit a point by chance
            bad[row] = X[row] + 1e3 * _size(X) * rng.standard_normal(X[row].shape)
            if X[0].size > manifold.dim or manifold.violation(bad)[row] > manifold.tolerance:
                break
        for method in (RDKSEstimator(manifold, bandwidth=_scale(manifold)).fit, est.score_samples):
            try:
                method(bad)
                told = "nothing"
            except PointError as error:
                told = str(error)
            what = f"row {row} named" if f"X[{row}] " in told else f"row {row} not named in {told!r}"
            yield what, float(f"X[{row}] " not in told), 0.0


@_identity()
def project_is_a_projection(manifold, rng):
    """project lands on the manifold, leaves what it returned alone, and moves no point."""
    Z = manifold.random(50, rng)
    off = Z + 0.1 * _scale(manifold) * rng.standard_normal(Z.shape)
    once = manifold.project(off)
    once = once[np.isfinite(once).all(axis=1)]  # what has no nearest point
    yield "share of rows without a nearest point", 1 - len(once) / len(off), 0.5
    # a projection divides by a norm: a few roundings of every coordinate
    bound = 8 * EPS * _size(off) * np.sqrt(manifold.embed_dim)
    yield "change on a second projection", manifold.dist(manifold.project(once), once), bound * _stretch(manifold, once)
    yield "change of a point", manifold.dist(manifold.project(Z), Z), bound * _stretch(manifold, Z)
    yield "violation", manifold.violation(manifold.unembed(once)), 4 * EPS * manifold.embed_dim


@_identity()
def tangent_projection_is_orthogonal(manifold, rng):
    """to_tangent is an orthogonal projection of rank dim."""
    Z = manifold.random(20, rng)
    U, V = rng.standard_normal((2, *Z.shape))
    PU, PV = manifold.to_tangent(Z, U), manifold.to_tangent(Z, V)
    bound = 8 * EPS * manifold.embed_dim * _size(U, V)  # inner products of that many coordinates
    yield "change on a second projection", np.abs(manifold.to_tangent(Z, PV) - PV), bound
    yield "<Pu, v - Pv>", np.abs(np.sum(PU * (V - PV), axis=1)), bound * _size(U, V)
    trace = sum(manifold.to_tangent(Z, np.tile(e, (len(Z), 1)))[:, j]
                for j, e in enumerate(np.eye(manifold.embed_dim)))
    yield "rank off dim", np.abs(trace - manifold.dim), bound


@_identity()
def frame_is_orthonormal_and_tangent(manifold, rng):
    """frame is an orthonormal basis of the tangent space, at random points and far from them."""
    Z = manifold.random(20, rng)
    Z = np.concatenate([Z, _farthest(manifold, Z)])
    F = manifold.frame(Z)
    bound = 16 * EPS * manifold.embed_dim
    yield "F F^T - 1", np.abs(F @ F.transpose(0, 2, 1) - np.eye(manifold.dim)), bound
    for j in range(manifold.dim):
        yield f"normal part of row {j}", np.abs(manifold.to_tangent(Z, F[:, j]) - F[:, j]), bound


@_identity()
def exp_and_log_are_inverse(manifold, rng):
    """exp(0) = x, exp(log y) = y, the norm of log y is dist, and dist(x, exp v) = |v| near x."""
    Z, W = manifold.random(40, rng), manifold.random(40, rng)
    W[:10] = _at_distance(manifold, Z[:10], 1e-7 * _scale(manifold) * np.ones(10), rng)
    W[10] = Z[10]
    size = _size(Z, W) * (_scale(manifold) if any(f.hyperbolic for f in manifold.factors()) else 1.0)
    # a few roundings of each coordinate, through a sine and cosine and one normalisation
    bound = 32 * EPS * size
    yield "exp(0) - x", np.abs(manifold.exp(Z, np.zeros_like(Z)) - Z), bound
    V = manifold.log(Z, W)
    yield "dist(exp(log y), y)", manifold.dist(manifold.exp(Z, V), W), bound * np.sqrt(manifold.embed_dim)
    dist = manifold.dist(Z, W)
    yield "|log y| - dist", np.abs(_norm(V) - dist), bound
    far = _farthest(manifold, Z)
    V = manifold.log(Z, far)
    yield "|log y| - dist at the cut locus", np.abs(_norm(V) - manifold.dist(Z, far)), 8 * bound
    # neighbouring geodesics part like sinh(r/R) in hyperbolic space, and roundings with them
    apart = np.sinh(12.0) if any(f.hyperbolic for f in manifold.factors()) else 1.0
    yield "dist(exp(log y), y) at the cut locus", manifold.dist(manifold.exp(Z, V), far), 8 * bound * apart
    r = rng.uniform(0.0, 1.0, len(Z)) * np.minimum(_injectivity(manifold, Z), 10.0 * min(1.0, _scale(manifold)))
    V = r[:, None] * _unit(manifold, Z, rng)
    Y = manifold.exp(Z, V)
    yield "dist(x, exp v) - |v|", np.abs(manifold.dist(Z, Y) - r), 4 * bound + 4 * EPS * _size(Y)
    # within the cut locus the direction is recovered too, up to rounding over the sine of the angle
    V, r = 0.5 * V, 0.5 * r
    Y = manifold.exp(Z, V)
    back = manifold.log(Z, Y)
    yield "log(exp v) - v", np.abs(back - V), 4 * bound + 4 * EPS * _size(Y)
    yield "normal part of log", np.abs(manifold.to_tangent(Z, back) - back), bound


@_identity()
def geodesics_have_constant_speed(manifold, rng):
    """exp(x, s v) runs with speed |v|: the distance of two of its points is the time between them."""
    Z = manifold.random(10, rng)
    V = _unit(manifold, Z, rng)
    # the longest stretch below ends at 1.2 lengths: three quarters of the way to an edge
    length = np.minimum(_scale(manifold), 0.625 * manifold.geodesic_length(Z, V))
    yield _resolved("one over the length of the geodesics", _scale(manifold) / length, 1e4)
    V = length[:, None] * V
    dist = manifold._cover_dist if manifold.kernel == "factors" else manifold.dist
    for s in (0.0, 0.3, 1.1):
        for h in (0.1, 1e-3):
            here, there = manifold.exp(Z, s * V), manifold.exp(Z, (s + h) * V)
            yield f"distance - {h} at {s}", np.abs(dist(here, there) / length - h), (
                32 * EPS * (_size(here, there) * _stretch(manifold, there) / length + 1))


@_identity()
def dist_is_a_metric(manifold, rng):
    """dist is symmetric, zero only at equality, obeys the triangle inequality and ends at the reach."""
    A, B, C = manifold.random(200, rng), manifold.random(200, rng), manifold.random(200, rng)
    # of the distances themselves too: coordinates of hyperbolic spaces have no unit
    size = max(_size(A, B, C), float(manifold.dist(A, B).max()))
    bound = max(16 * EPS * size, manifold.rounding if manifold.kernel == "pairs" else 0.0)
    yield "asymmetry", np.abs(manifold.dist(A, B) - manifold.dist(B, A)), bound
    yield "dist(x, x)", manifold.dist(A, A), 0.0
    yield "excess over the triangle inequality", (
        manifold.dist(A, C) - manifold.dist(A, B) - manifold.dist(B, C)), bound
    yield "zero distances of different points", float((manifold.dist(A, B) <= 0).sum()), 0.0
    if np.isfinite(manifold.volume) and manifold.kernel == "factors" and manifold.n_images == 1:
        reach = np.sqrt(sum(f.reach**2 for f in manifold.factors()))
        yield "distance to the cut locus - reach", np.abs(
            manifold.dist(A, _farthest(manifold, A)) - reach), bound
        yield "distance beyond the reach", manifold.dist(A, B) - reach, bound


def _not_embedded(manifold):
    if any(f.hyperbolic for f in manifold.factors()):
        return "a hyperbolic factor is not embedded in Euclidean space"
    return _no_factors(manifold)


@_identity(_not_embedded)
def chord_is_distance_near_zero(manifold, rng):
    """The embedded chord is the distance to second order, the coefficient being curvature / 24."""
    Z = manifold.random(20, rng)
    V = _unit(manifold, Z, rng)
    curvature = max(f.curvature for f in manifold.factors())
    for s in (1e-1, 1e-2, 1e-3):
        r = s * _scale(manifold)
        W = manifold.exp(Z, r * V)
        # 2 R sin(r/2R) = r - r^3 / 24 R^2 + ...; the rounding of coordinates is relative to r
        yield f"1 - chord/dist at {s}", np.abs(1 - _norm(W - Z) / manifold._cover_dist(Z, W)), (
            1.01 * curvature * r**2 / 24 + 16 * EPS * _size(Z, W) / r)


@_identity()
def embed_and_unembed_are_inverse(manifold, rng):
    """Writing a point and reading it back changes neither the point nor how it is written."""
    Z = manifold.random(100, rng)
    X = manifold.unembed(Z)
    # a chart's numbers are rounded relative to the largest of them
    # and what that does to the point is measured, with numbers a millionth off: far out in hyperbolic
    # space it is more
    shaken = manifold.embed(X * (1 + 1e-6 * rng.uniform(-1, 1, X.shape)))
    shaken = np.nan_to_num(manifold.dist(shaken, Z)) * 1e6
    bound = 32 * EPS * np.maximum(max(_size(Z), _wide(manifold)), shaken)
    yield "dist(embed(unembed z), z)", manifold.dist(manifold.embed(X), Z), bound
    again = manifold.unembed(manifold.embed(X))
    yield "unembed(embed x) - x", np.median(np.abs(again - X), axis=0), 32 * EPS * max(1.0, _size(X))
    yield "dist after two rounds", manifold.dist(manifold.embed(again), Z), 2 * bound


@_identity()
def images_lie_over_one_point(manifold, rng):
    """A point has n_images images, itself first, all different; images of images are images, of equal density."""
    Z = manifold.random(6, rng)
    found = manifold.images(Z)
    yield "shape off", float(found.shape != (manifold.n_images, *Z.shape)), 0.0
    size = _size(found)
    yield "first image - point", np.abs(found[0] - Z), 4 * EPS * size
    cover = manifold._cover_dist if manifold.kernel == "factors" else manifold.dist
    orbit = found.transpose(1, 0, 2)
    again = np.array([manifold.images(image) for image in found]).transpose(2, 0, 1, 3).reshape(len(Z), -1, Z.shape[1])
    apart, off = np.inf, 0.0
    for here, there in zip(orbit, again, strict=True):
        gaps = np.array([cover(np.broadcast_to(z, there.shape), there) for z in here])
        off = max(off, gaps.min(axis=0).max(), gaps.min(axis=1).max())
        own = np.array([cover(np.broadcast_to(z, here.shape), here) for z in here])
        apart = min(apart, own[~np.eye(len(here), dtype=bool)].min(initial=np.inf))
    yield "distance of an image of an image from all images", off, 64 * EPS * size
    yield "images that coincide", float(apart < 1e-6 * _scale(manifold)), 0.0
    total, t = _mixture(manifold, rng)
    logs = np.array([total.evaluate(image).log_density for image in found])
    r = np.sqrt(2 * t * np.abs(logs[0])) + 4 * np.sqrt(t)
    yield "log density at an image - at the point", np.abs(logs - logs[0]), _log_error(manifold, logs[0], r, t, size)


@_identity()
def push_tangent_belongs_to_the_chart(manifold, rng):
    """push_tangent is linear, and an isometry of the tangent space or the differential of the chart."""
    Z = manifold.random(30, rng)
    X = manifold.unembed(Z)
    V, W = _unit(manifold, Z, rng), _unit(manifold, Z, rng)
    PV, PW = manifold.push_tangent(X, V), manifold.push_tangent(X, W)
    shape = (30, *manifold.point_shape)
    yield "shape off", float(PV.shape != shape), 0.0
    flat = [P.reshape(30, -1) for P in (PV, PW, manifold.push_tangent(X, 2.0 * V - 3.0 * W))]
    size = _size(*flat)
    bound = 64 * EPS * manifold.embed_dim * size
    yield "nonlinearity", np.abs(flat[2] - 2.0 * flat[0] + 3.0 * flat[1]), bound
    isometry = max(np.abs(np.sum(flat[0] * flat[1], 1) - np.sum(V * W, 1)).max(),
                   np.abs(np.sum(flat[0] ** 2, 1) - 1).max())
    h = 0.01 * _scale(manifold)
    run = np.array([manifold.unembed(manifold.exp(Z, k * h * V)).reshape(30, -1) for k in _OFFSETS])
    fine, rough = _first_difference(run, h)
    # the seam of a chart lies between some of these points: few of them, so medians pass it by
    differential = np.median(_norm(fine - flat[0]))
    error = np.median(_norm(fine - rough)) + 8 * EPS * _size(run) / h
    yield "distance from an isometry or the differential", min(
        isometry / (bound * size), differential / (error + bound)), 1.0
    # gradients are per unit of the user's length, tangent vectors in it: they part by the units of the two volumes
    F = manifold.frame(Z)
    frames = [np.stack([push(X, F[:, j]).reshape(30, -1) for j in range(manifold.dim)], axis=1)
              for push in (manifold.push_tangent, manifold.push_gradient)]
    stretch = [np.linalg.svd(A, compute_uv=False) for A in frames]
    off = np.log(stretch[0]).sum(axis=1) - np.log(stretch[1]).sum(axis=1) + 2 * manifold.log_unit
    yield "log volume of pushed velocities over that of pushed gradients, + 2 log_unit", np.abs(off), (
        64 * EPS * manifold.dim * sum(v[:, 0] / v[:, -1] for v in stretch))
    yield "share of rows in which a vector and the change of the chart along it are at odds", np.mean(
        np.sum(fine * flat[0], 1) <= 0), 0.1


# ------------------------------------------------------------------------------------ heat kernel


@_identity()
def kernel_is_symmetric(manifold, rng):
    """k_t(x, y) = k_t(y, x), relative to the invariant law, at random pairs and on the cut locus, at all times."""
    Z, W = manifold.random(3, rng), manifold.random(3, rng)
    W[0] = _farthest(manifold, Z[:1])[0]
    r, size = manifold.dist(Z, W), _size(Z, W)
    for s, t in _times(manifold, *_TIMES):
        there = np.array([_log_ratio(manifold, z, w[None], t)[0] for z, w in zip(Z, W, strict=True)])
        back = np.array([_log_ratio(manifold, w, z[None], t)[0] for z, w in zip(Z, W, strict=True)])
        yield f"asymmetry of log k at t = {s} units", _log_gap(there, back), _log_error(
            manifold, there, r, t, size)


@_identity()
def kernel_is_finite_everywhere(manifold, rng):
    """Log density, score and Laplacian are finite at tiny and huge times, at every distance."""
    Z = manifold.random(1, rng)
    far = _farthest(manifold, Z)
    beyond = _at_distance(manifold, far, [1e-9 * _scale(manifold)], rng)
    close = _at_distance(manifold, np.repeat(Z, 3, 0), _scale(manifold) * np.array([1e-12, 1e-4, 1.0]), rng)
    Q = np.concatenate([Z, far, beyond, close, manifold.random(6, rng)])
    longest = min(50.0 * _wide(manifold) ** 2, manifold.max_time)
    for t in [*(t for _, t in _times(manifold, *_TIMES)), longest]:
        found = _heat(manifold, Z[0], Q, t, 2)
        plain = _log_k(manifold, Z[0], Q, t)
        broken = sum(int((~np.isfinite(a)).sum()) for a in (plain, *found))
        yield f"values not finite at t = {t:.3g}", float(broken), 0.0
        yield f"log k at order 2 - at order 0, t = {t:.3g}", _log_gap(plain, found.log_density), _log_error(
            manifold, plain)
        # the kernel is a positive definite function
        weight = _log_weight(manifold, Q)
        peaks = manifold.log_heat_kernel(Q, Q, t) - weight
        excess = plain - weight - 0.5 * (peaks + peaks[0])
        yield f"excess of log k over Schwarz's bound, t = {t:.3g}", excess, (
            _log_error(manifold, plain, size=0.0) + 2 * manifold.log_error(t))


@_identity()
def tables_honour_their_error(manifold, rng):
    """The engine's tabulated kernel is the manifold's own formula, from the peak to the cut locus."""
    Z = manifold.random(1, rng)
    start = np.repeat(Z, 40, 0)
    for s, t in _times(manifold, *_TIMES):
        most = min(_reach(manifold), 20 * np.sqrt(t))
        Q = np.concatenate([_at_distance(manifold, start, np.linspace(0.0, most, 40), rng),
                            manifold.random(20, rng), _farthest(manifold, Z)])
        exact = manifold.log_heat_kernel(np.repeat(Z, len(Q), 0), Q, t)
        r = manifold.dist(np.repeat(Z, len(Q), 0), Q)
        yield f"error of log k at t = {s} units", _log_gap(_log_k(manifold, Z[0], Q, t), exact), _log_error(
            manifold, exact, r, t, _size(Z, Q))


@contextmanager
def _replaced(name, value):
    """Replace a decision of the engine for a while."""
    before = getattr(engines, name)
    setattr(engines, name, value)
    try:
        yield
    finally:
        setattr(engines, name, before)


@_identity(_no_factors)
def dense_form_is_tail_form(manifold, rng):
    """The dense sum, the tail's log-sum-exp and their numpy twins agree where all of them hold."""
    t = 0.02 * _scale(manifold) ** 2
    n = 7
    start = np.repeat(manifold.random(1, rng), n, 0)
    Y = _at_distance(manifold, start, 2.0 * np.sqrt(t) * rng.uniform(0, 1, n), rng)
    Q = _at_distance(manifold, start, np.sqrt(t) * np.linspace(0.0, 5.0, n), rng)
    total = sources(manifold, Y, rng.uniform(0.5, 1.0, n), t)

    def measure():
        return (*total.evaluate(Q, 0.0, 2), total.leave_one_out())

    dense, found = measure(), {}
    with _replaced("_TRUST", 0.0):  # trust no dense sum
        found["tail"] = measure()
    with _replaced("_kernels", lambda pairs: _twins):
        found["numpy dense"] = measure()
        with _replaced("_TRUST", 0.0):
            found["numpy tail"] = measure()
    size, r = _size(Q, Y), 7 * np.sqrt(t)
    logs = _log_error(manifold, dense[0][0], r, t, size)
    # slopes are known to SLOPE_ERROR of their largest value nearby, r/t; Laplacians to that of (r/t)^2
    slope = 8 * len(manifold.factors()) * (_slope_error(manifold) * r / t + EPS * size / t * (1 + r * r / t))
    for name, other in found.items():
        yield f"log density, {name} - dense", np.abs(other[0] - dense[0]), logs
        yield f"score, {name} - dense", np.abs(other[1] - dense[1]), slope
        yield f"Laplacian, {name} - dense", np.abs(other[2] - dense[2]), (
            manifold.dim * slope * (r / t + 1 / np.sqrt(t)))
        yield f"leave-one-out, {name} - dense", np.abs(other[3] - dense[3]), logs


def _kernel_queries(manifold, s, rng):
    """A source, queries from its peak to the tail, and the scale on which the kernel varies there."""
    t = s * _scale(manifold) ** 2
    Z = manifold.random(1, rng)
    # where the kernel is approximate its error is stated near the peak
    reach = min(_reach(manifold), (40 if manifold.exactness == "exact" else 3) * np.sqrt(t))
    r = np.minimum(np.sqrt(t) * np.array([0.0, 0.5, 1.3, 2.5]), 0.9 * reach)
    r = np.append(r, 0.9 * reach)
    Q = _at_distance(manifold, np.repeat(Z, len(r), 0), r, rng)
    length = 1.0 / (1.0 / np.sqrt(t) + r / t)
    return t, Z[0], Q, r, np.minimum(length, _scale(manifold))


@_identity()
def kernel_solves_the_heat_equation(manifold, rng):
    """dk/dt = Laplacian(k)/2 - div(b k), b the drift, by differences in time and along geodesics."""
    for s, _ in _times(manifold, 1e-3, 0.05, 0.6):
        t, z, Q, r, length = _kernel_queries(manifold, s, rng)
        size = _size(z, Q)

        def log_f(points, z=z, t=t, r=r, length=length, size=size):
            log_k = _log_k(manifold, z, points, t)
            return log_k, _log_error(manifold, log_k, r + length, t, size)

        half, bound = _laplacian(manifold, log_f, Q, length)
        half, bound = 0.5 * half, 0.5 * bound
        if manifold.has_drift:
            b, step = manifold.drift(Q), 1e-3
            F = manifold.frame(Q)
            spread = sum(np.sum((manifold.drift(Q + step * F[:, j]) - manifold.drift(Q - step * F[:, j])) * F[:, j], 1)
                         for j in range(manifold.dim)) / (2 * step)  # exact up to rounding, the drift being linear
            half = half - (spread + np.sum(b * _heat(manifold, z, Q, t, 1).gradient, 1)) * length**2
            bound = bound + 64 * EPS / step * length**2 + 8 * _slope_error(manifold) * np.abs(half)
        h = 0.02
        run = np.array([_log_k(manifold, z, Q, t * (1 + k * h)) for k in _OFFSETS])
        fine, rough = (g * length**2 / t for g in _first_difference(run, h))
        noise = 2 * _log_error(manifold, run[4], r, t, size) * length**2 / (t * h)
        bound = bound + np.abs(fine - rough) + noise
        # an error of the log kernel of e(t) is one of its time derivative of about e(t)/t, and less
        # than that in the Laplacian on the scale that is kept
        theory = 4 * manifold.log_error(t)
        yield _resolved("the heat equation", bound, 1e-4)
        bound = bound + theory
        yield f"residual at t = {s} units", np.abs(fine - half), bound


@_identity()
def laplacian_is_that_of_geodesics(manifold, rng):
    """The engine's Laplacian of a log density, plus |score|^2, is Laplacian(p)/p along geodesics."""
    for s, t in _times(manifold, *(1e-3, 0.1, 0.6)):
        total, _ = _mixture(manifold, rng, t=t)
        r = min(2.5 * _scale(manifold), 6 * np.sqrt(t))  # how far sources that matter are
        yield from _laplacian_of_geodesics(manifold, total, _near(manifold, total, rng, 6), np.full(6, r), np.full(
            6, min(np.sqrt(t) / 3, _scale(manifold))), f"t = {s} units")
        # far below the peak: one source, which nothing else comes near
        one = sources(manifold, total.Z[:1], np.ones(1), t)
        Q, r = _deep(manifold, one.Z, t, rng, 6)
        if len(Q):
            yield from _laplacian_of_geodesics(manifold, one, Q, r, 1 / (1 / np.sqrt(t) + r / t),
                                               f"t = {s} units, in the tail")


def _laplacian_of_geodesics(manifold, total, Q, r, length, where):
    """Compare Laplacians at queries whose sources that matter are at most r away; p varies on the scale `length`."""
    t = float(total.time[0])
    found = total.evaluate(Q, 0.0, 2)
    ratio = found.laplacian + np.sum(found.gradient**2, 1)
    size = _size(total.Z, Q)

    def log_f(points):
        log_p = total.evaluate(points).log_density
        return log_p, _log_error(manifold, log_p, r, t, size)

    value, bound = _laplacian(manifold, log_f, Q, length)
    yield f"difference at {where}", np.abs(ratio * length**2 - value), bound
    yield _resolved("the Laplacian", bound, 1e-4)


@_identity(_no_curvature)
def on_diagonal_limit(manifold, rng):
    """(2 pi t)^{d/2} k_t(x, x) = 1 + (scalar curvature) t / 12 + O(t^2)."""
    Z = manifold.random(50, rng)
    Z = Z[[np.argmax(_injectivity(manifold, Z))]]  # far from its own images
    t = 1e-3 * _scale(manifold) ** 2 / manifold.dim
    times = t * 0.5 ** np.arange(5)
    values = np.array([np.exp(_log_k(manifold, Z[0], Z, u)[0] + 0.5 * manifold.dim * np.log(2 * np.pi * u)
                              - manifold.log_unit) for u in times])
    scalar = manifold.scalar_curvature
    noise = _log_error(manifold, 0.5 * manifold.dim * np.log(times[-1]))
    # Richardson: polynomials through the last five and the last four
    fine, rough = np.polyfit(times / t, values, 4), np.polyfit(times[1:] / t, values[1:], 3)
    # extrapolating to 0 multiplies noise by the sum of |Lagrange coefficients|, below 20; slopes, 300
    yield "limit - 1", abs(fine[-1] - 1), abs(fine[-1] - rough[-1]) + 20 * noise
    yield "slope - scal/12, relative to d^2", (
        abs(fine[-2] / t - scalar / 12) * _scale(manifold) ** 2 / manifold.dim**2), (
        abs(fine[-2] - rough[-2]) + 300 * noise) / t * _scale(manifold) ** 2 / manifold.dim**2
    yield _resolved("the limit", abs(fine[-1] - rough[-1]) + 20 * noise, 1e-7)


@_identity(_no_factors)
def kernel_has_mass_one(manifold, rng):
    """The kernel integrates to one, in polar coordinates whose volume is measured from exp."""
    x = manifold.random(1, rng)[0]
    count = int(min(64, 2.5e5 ** (1 / len(manifold.factors()))))
    for s, t in _times(manifold, *(1e-3, 0.3, 3.0)):
        mass = []
        for n in (count, count - 10):
            Z, w, rounding = _polar_rule(manifold, manifold.flow(x[None], t)[0][0], t, n, False, rng)
            w = w * np.exp(_log_k(manifold, x, Z, t))
            mass.append(w.sum())
        # the density is relative to its own table error; the Jacobian to that of differences
        bound = abs(mass[0] - mass[1]) + _log_error(manifold, np.log(t)) + 1e-13 * manifold.dim + w @ rounding
        yield f"mass - 1 at t = {s} units", abs(mass[0] - 1), bound
        yield _resolved("the mass", bound, 1e-5)


@_identity()
def kernels_are_a_semigroup(manifold, rng):
    """k_s * k_t = k_{s+t}, by quadrature where three dimensions are not exceeded, else by draws."""
    unit = _scale(manifold) ** 2
    x = manifold.random(1, rng)[0]
    factors = manifold.factors()
    nodes = {1: lambda n: 2 * n, 2: lambda n: n**2, 3: lambda n: n * n * (n // 2)}
    quadrature = manifold.kernel == "factors" and all(f.dim <= 3 for f in factors)
    count = 48
    while quadrature and math.prod(nodes[f.dim](count) for f in factors) > 3e5:
        count -= 2
        quadrature = count >= 26
    for s, t in ((0.02, 0.03), (0.3, 0.2)):
        s, t = s * unit, t * unit
        if s + t > manifold.max_time:
            continue
        r = np.minimum(np.sqrt(s + t) * np.array([0.0, 1.0, 2.0]), _reach(manifold))
        Y = _at_distance(manifold, np.tile(x, (3, 1)), r, rng)
        want = _log_k(manifold, x, Y, s + t)
        if quadrature:
            found = []
            for n in (count, count - 8):
                Z, w, _ = _polar_rule(manifold, x, s, n, True, rng)
                w = w * np.exp(_log_k(manifold, x, Z, s))
                Z, w = Z[w > 0], w[w > 0]
                found.append(np.log(w.sum()) + sources(manifold, Z, w, t).evaluate(Y).log_density)
            bound = np.abs(found[0] - found[1]) + 4 * _log_error(manifold, want, r, t, _size(x, Y))
            yield f"log of k_s * k_t - log k_(s+t), s = {s / unit:.2g}", np.abs(found[0] - want), (
                bound + 1e-13 * manifold.dim)
            yield _resolved("the semigroup", bound, 1e-3)
        else:
            Z = heat_sample(manifold, np.tile(x, (_draws(manifold), 1)), s, rng)
            values = np.exp(np.array([_log_k_to(manifold, Z, y, t) for y in Y]).T - want)
            bias = manifold.log_error(s) + manifold.log_error(t) + manifold.log_error(s + t)
            yield f"z-score of E k_t(Z, y) against k_(s+t), s = {s / unit:.2g}", _z_score(
                values, 1.0, bias), SIGMA


@_identity()
def varadhan_limit(manifold, rng):
    """-2t log k_t tends to the squared distance, from where a drift has carried the source."""
    Z = manifold.random(1, rng)
    Q = np.concatenate([manifold.random(10, rng), _farthest(manifold, Z)])
    start = np.repeat(Z, len(Q), 0)
    unit = _scale(manifold)
    for s, t in _times(manifold, 1e-4, 1e-5, 1e-6):
        moved, time = manifold.flow(start, t)
        r2 = manifold.dist(moved, Q) ** 2
        log_k = _log_k(manifold, Z[0], Q, t) + manifold.dim * np.log(unit) - manifold.log_unit
        # k = t^{-m/2} e^{-r^2/2t} O(1) with d <= m <= 2d - 1, the latter at a sphere's antipode;
        # ratios of factors of unequal size enter the O(1), and so does the root of the area of a sphere of
        # radius r where it grows exponentially
        slack = 2 * time * (manifold.dim * (np.log(1 / s) + 4 + np.log(max(_wide(manifold) / unit, 1.0)))
                            + np.log(manifold.n_images))
        if manifold.kernel != "factors" or any(f.hyperbolic for f in manifold.factors()):
            slack = slack + 2 * time * manifold.dim * np.sqrt(r2) / unit
        yield f"|-2t log k - r^2| at t = {s} units", np.abs(-2 * time * log_k - r2), (
            slack + 2 * time * _log_error(manifold, log_k, np.sqrt(r2), t, _size(Z, Q)))


@_identity()
def volume_is_its_logarithm(manifold, rng):
    """The volume is the exponential of its logarithm, infinity included."""
    log_volume = manifold.log_volume
    if log_volume == np.inf:
        yield "finite volumes of an infinite logarithm", float(manifold.volume != np.inf), 0.0
    else:
        yield "log of the volume - log volume", abs(np.log(manifold.volume) - log_volume), 32 * EPS * max(
            1.0, abs(log_volume), manifold.dim)


@_identity(_no_uniform_limit)
def uniform_limit(manifold, rng):
    """At a huge time the density is 1 / volume, or the invariant law, to the decay of the first eigenfunctions."""
    Z = manifold.random(1, rng)
    Q = np.concatenate([manifold.random(10, rng), _farthest(manifold, Z)])
    modes = [(f.width, f.smallest_eigenvalue) for f in manifold.factors()]
    if manifold.has_drift or manifold.kernel != "factors":
        modes = [((manifold.dim + 1) ** 2, manifold.smallest_eigenvalue)]
    log_volume = -_log_weight(manifold, Q) if manifold.has_drift else manifold.log_volume
    for s in (3.0, 20.0, 60.0):
        t = s * _wide(manifold) ** 2
        log_k = _log_k(manifold, Z[0], Q, t)
        # each factor adds at most sum N_l exp(-lam_l t / 2), twice its first term at these times; a drift, up to
        # products of points with it
        spread = 1 + np.abs(Q).max() * np.abs(Z).max() if manifold.has_drift else 1.0
        rest = sum(2 * 2 * width * spread * np.exp(-0.5 * lam * t) for width, lam in modes)
        yield f"log k + log volume at t = {s} units", np.abs(log_k + log_volume), (
            np.expm1(np.minimum(rest, 50.0)) + _log_error(manifold, log_k))


def _no_decay(manifold):
    if manifold.max_time < np.inf:
        return "the kernel is an approximation for small times"
    return None if manifold.smallest_eigenvalue > 0 else "there is no positive eigenvalue"


@_identity(_no_decay)
def first_eigenvalue_sets_the_decay(manifold, rng):
    """k_t(x, x) * volume - 1 decays at the rate of the smallest positive eigenvalue."""
    lam = manifold.smallest_eigenvalue
    times = np.array([20.0, 30.0]) / lam
    # where the first eigenfunctions are largest: where they vanish, the next ones are what is seen
    Z = manifold.random(20, rng)
    Z = Z[[np.argmax(manifold.log_heat_kernel(Z, Z, times[0]) - _log_weight(manifold, Z))]]
    log_volume = -_log_weight(manifold, Z)[0] if manifold.has_drift else manifold.log_volume
    excess = np.array([np.expm1(_log_k(manifold, Z[0], Z, t)[0] + log_volume) for t in times])
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = -2 * np.diff(np.log(excess)) / np.diff(times)
    # the next modes: products of first ones, and those with at least 2 lam; and the table's error
    rest = 4 * manifold.embed_dim**2 * np.exp(-10.0)
    yield "rate / lam - 1", np.abs(rate / lam - 1), rest + 2 * _log_error(manifold, 1.0) * np.exp(15.0)


# ------------------------------------------------------------------------------- sums and samples


def _data(manifold, rng, n=10):
    total, t = _mixture(manifold, rng, n)
    return manifold.unembed(total.Z), total.weight, float(np.sqrt(t))


def _queries(manifold, rng, n=8):
    Z = manifold.random(1, rng)
    return manifold.unembed(np.concatenate([manifold.random(n, rng), _farthest(manifold, Z)]))


@_identity()
def estimator_is_the_engine(manifold, rng):
    """RDKSEstimator on points as written is the normalised sum of single kernels."""
    X, w, h = _data(manifold, rng)
    est = RDKSEstimator(manifold, bandwidth=h).fit(X, sample_weight=w)
    Q = _queries(manifold, rng)
    Zq, Z = manifold.embed(Q), manifold.embed(X)
    single = np.array([manifold.log_heat_kernel(np.tile(z, (len(Zq), 1)), Zq, h * h) for z in Z])
    want = np.logaddexp.reduce(single + np.log(w / w.sum())[:, None], axis=0)
    r = np.array([manifold.dist(np.tile(z, (len(Zq), 1)), Zq) for z in Z]).max(axis=0)
    error = _log_error(manifold, want, r, h * h, _size(Z, Zq))
    found = est.score_samples(Q)
    yield "log density - log sum of kernels", _log_gap(found, want), error
    for factor in (1e-3, 17.3):
        again = RDKSEstimator(manifold, bandwidth=h).fit(X, sample_weight=factor * w).score_samples(Q)
        yield f"change when weights are multiplied by {factor}", np.abs(again - found), error
    yield "score - sum of log densities", abs(est.score(Q) - found.sum()), len(Q) * error.max()
    G = est.score_field(Q)
    engine = sources(manifold, Z, w, h * h).evaluate(Zq, 0.0, 2)
    pushed = manifold.push_gradient(Q, engine.gradient)
    yield "shape of the score off", float(G.shape != (len(Q), int(np.prod(manifold.point_shape)))
                                          and G.shape != Q.shape), 0.0
    scale = np.abs(pushed).max() + 1 / h
    yield "score field - pushed gradient", np.abs(G.reshape(Q.shape) - pushed), 1e-10 * scale
    yield "divergence - Laplacian", np.abs(est.score_divergence(Q) - engine.laplacian), 1e-10 * (
        np.abs(engine.laplacian) + scale**2)


@_identity()
def sums_are_right_at_every_depth(manifold, rng):
    """Of many sources, and far below the peak too, the density is the sum of the manifold's log kernels."""
    t = 1e-3 * _scale(manifold) ** 2
    # a tight group, and many others so far from it that a cut kernel would count them as all alike
    near, n, q = 100, 1100 if manifold.kernel == "factors" else 300, 6
    start = np.repeat(manifold.random(1, rng), n, axis=0)
    r = np.where(np.arange(n) < near, 0.05, rng.uniform(1.0, 2.0, n)) * _scale(manifold)
    Z = _at_distance(manifold, start, r, rng)[rng.permutation(n)]
    w = rng.uniform(0.5, 2.0, n)
    depth = np.linspace(25.0, 75.0, q)
    Q = np.concatenate([_at_distance(manifold, start[:q], np.sqrt(2 * t * depth), rng), Z[:q]])
    pairs = np.repeat(np.arange(len(Q)), n), np.tile(np.arange(n), len(Q))
    single = manifold.log_heat_kernel(Z[pairs[1]], Q[pairs[0]], t).reshape(len(Q), n) + np.log(w / w.sum())
    total = sources(manifold, Z, w, t)
    own = single[q:].copy()
    own[np.arange(q), np.arange(q)] = -np.inf
    # of all rows, as fits ask for it; where each pair is computed of its own, those rows that are compared
    rows = None if manifold.kernel == "factors" else np.arange(q)
    for name, terms, found in (("log density", single, total.evaluate(Q).log_density),
                               ("leave-one-out", own, total.leave_one_out(0.0, rows)[:q])):
        want = np.logaddexp.reduce(terms, axis=1)
        # 1e-12 is what an engine may change a sum by when it decides between its two forms
        yield f"{name} - log sum of kernels", _log_gap(found, want), 2e-12 + _log_error(
            manifold, want, np.sqrt(2 * t * np.abs(want)), t, _size(Z, Q))


@_identity()
def weights_count_points(manifold, rng):
    """Weight 2 is the point twice, weight 0 no point, and the order of points does not matter."""
    X, _, h = _data(manifold, rng)
    w = rng.integers(0, 4, len(X)).astype(float)
    w[0] = 2.0
    Q = _queries(manifold, rng)
    weighted = RDKSEstimator(manifold, bandwidth=h).fit(X, sample_weight=w)
    repeated = RDKSEstimator(manifold, bandwidth=h).fit(np.repeat(X, w.astype(int), axis=0))
    order = rng.permutation(len(X))
    shuffled = RDKSEstimator(manifold, bandwidth=h).fit(X[order], sample_weight=w[order])
    logs = weighted.score_samples(Q)
    # the sums have the same terms: they differ by their own rounding
    yield "weighted - repeated", _log_gap(logs, repeated.score_samples(Q)), _log_error(manifold, logs)
    yield "permuted", _log_gap(logs, shuffled.score_samples(Q)), _log_error(manifold, logs)
    G = weighted.score_field(Q)
    size = np.abs(G).max() + 1 / h
    for name, other in (("repeated", repeated), ("permuted", shuffled)):
        yield f"score, {name}", np.abs(G - other.score_field(Q)), 8 * _slope_error(manifold) * size


@_identity()
def merging_is_fitting_together(manifold, rng):
    """merge is associative and commutative; it and partial_fit equal one fit to all data."""
    X, w, h = _data(manifold, rng, 12)
    Q = _queries(manifold, rng)
    parts = [RDKSEstimator(manifold, bandwidth=h).fit(X[i::3], sample_weight=w[i::3]) for i in range(3)]
    a, b, c = parts
    together = RDKSEstimator(manifold, bandwidth=h).fit(X, sample_weight=w).score_samples(Q)
    bound = _log_error(manifold, together)
    stream = RDKSEstimator(manifold, bandwidth=h)
    for i in range(3):
        stream.partial_fit(X[i::3], sample_weight=w[i::3])
    for name, est in (("(a + b) + c", a.merge(b).merge(c)), ("a + (b + c)", a.merge(b.merge(c))),
                      ("c + b + a", c.merge(b).merge(a)), ("partial_fit", stream)):
        yield f"{name} - one fit", _log_gap(est.score_samples(Q), together), bound
        yield f"{name}: rows seen off", abs(est.n_samples_seen_ - len(X)), 0.0


@_identity()
def leave_one_out_is_the_sum_of_others(manifold, rng):
    """The leave-one-out sum at a source is that over all others; with log_self, the source's own term, it is all."""
    start, t = _mixture(manifold, rng, 9)
    Z = np.concatenate([start.Z, _farthest(manifold, start.Z[:1])])
    w = np.append(start.weight, 1.0)
    # isolated sources, and so late that a source meets its own images
    for time, later in ((t, 0.0), (1e-3 * t, 0.0), (t, _scale(manifold) ** 2)):
        if time + later > manifold.max_time:
            continue
        total = sources(manifold, Z, w, time)
        found, rows = total.leave_one_out(later), rng.permutation(len(Z))[:4]
        yield "some rows - those of all", np.abs(total.leave_one_out(later, rows) - found[rows]), _log_error(
            manifold, found[rows])
        own = np.log(w / w.sum()) + total.log_self(later)
        want = total.evaluate(Z, later).log_density
        yield "others and own term - all", _log_gap(np.logaddexp(found, own), want), _log_error(manifold, want)
        for i in range(len(Z)):
            others = np.arange(len(Z)) != i
            want = sources(manifold, Z[others], w[others], time).evaluate(Z[i:i + 1], later).log_density
            want = want + np.log(w[others].sum() / w.sum())
            yield f"source {i}", _log_gap(found[i:i + 1], want), _log_error(manifold, want)


@_identity(_infinite_volume)
def total_mass_of_a_mixture(manifold, rng):
    """The mean density over uniform points is 1 / volume."""
    total, t = _mixture(manifold, rng, t=min(0.5 * _wide(manifold) ** 2, manifold.max_time))
    values = np.exp(total.evaluate(manifold.random(_draws(manifold), rng)).log_density + manifold.log_volume)
    yield "z-score of the mass", _z_score(values, 1.0, manifold.log_error(t)), SIGMA


@_identity()
def score_is_the_slope_of_log_density(manifold, rng):
    """log p along a geodesic leaves its tangent at second order: the log-log slope of the gap is 2."""
    for s, t in _times(manifold, *(1e-3, 0.1, 1.0)):
        total, _ = _mixture(manifold, rng, t=t)
        r = min(2.5 * _scale(manifold), 6 * np.sqrt(t))
        yield from _slope_of_log_density(manifold, rng, total, _near(manifold, total, rng, 20), r, f"t = {s} units")
        # far below the peak: one source, which nothing else comes near
        one = sources(manifold, total.Z[:1], np.ones(1), t)
        Q, r = _deep(manifold, one.Z, t, rng, 20)
        if len(Q):
            yield from _slope_of_log_density(manifold, rng, one, Q, r.max(), f"t = {s} units, in the tail")


def _slope_of_log_density(manifold, rng, total, Q, r, where):
    """Measure the slope at queries whose sources that matter are at most r away."""
    t = float(total.time[0])
    V = _unit(manifold, Q, rng)
    at = total.evaluate(Q, 0.0, 1)
    length = min(np.sqrt(t), _scale(manifold))
    steps = 0.05 * 0.5 ** np.arange(6)
    gap = np.array([total.evaluate(manifold.exp(Q, h * length * V)).log_density - at.log_density
                    - h * length * np.sum(at.gradient * V, 1) for h in steps])
    # twenty points together, so that none with a vanishing second derivative decides
    size = np.sqrt((gap**2).mean(axis=1))
    slope = np.polyfit(np.log(steps), np.log(size), 1)[0]
    noise = np.max(_log_error(manifold, at.log_density, r, t, _size(total.Z, Q)))
    # third-order terms shift the slope by about the largest step, the rounding by its share
    yield f"slope - 2 at {where}", abs(slope - 2), 2 * steps[0] + noise / size[-1]
    yield _resolved("the slope", noise / size[-1], 0.1)


@_identity()
def score_is_tangent(manifold, rng):
    """The score lies in the span of the frame."""
    total, t = _mixture(manifold, rng)
    Q = np.concatenate([_near(manifold, total, rng, 10), _farthest(manifold, total.Z[:2])])
    G = total.evaluate(Q, 0.0, 1).gradient
    F = manifold.frame(Q)
    normal = G - np.einsum("ndm,nd->nm", F, np.einsum("ndm,nm->nd", F, G))
    yield "normal part", np.abs(normal), 16 * EPS * manifold.embed_dim * (_size(G) + _scale(manifold) / t)


@_identity()
def divergence_of_the_score(manifold, rng):
    """The Laplacian of log p is the sum of d/ds <score, velocity> along the geodesics of the frame."""
    for s, t in _times(manifold, 1e-3, 0.1, 0.6):
        total, _ = _mixture(manifold, rng, t=t)
        Q = _near(manifold, total, rng, 6)
        length = min(np.sqrt(t), _scale(manifold))
        # between two sources the score turns over within t over their distance, a sixth of a bandwidth and less: with a
        # longer step the orders six and eight are about equally wrong, and their difference is no bound
        F, h = manifold.frame(Q), 0.03
        found = total.evaluate(Q, 0.0, 2).laplacian * length**2
        value, coarse, size = 0.0, 0.0, 0.0
        for j in range(manifold.dim):
            run = []
            for k in _OFFSETS:
                Y = manifold.exp(Q, k * h * length * F[:, j])
                G = total.evaluate(Y, 0.0, 1).gradient
                size = max(size, np.abs(G).max())
                # the velocity at Y points away from Q, in the covering space
                away = F[:, j] if k == 0 else -_cover_log(manifold, Y, Q) / (k * h * length)
                run.append(np.sum(G * away, 1))
            fine, rough = (g * length for g in _first_difference(np.array(run), h))
            value, coarse = value + fine, coarse + rough
        r = min(2.5 * _scale(manifold), 6 * np.sqrt(t))
        noise = (8 * manifold.dim * length / h * (_slope_error(manifold) * (size + r / t)
                 + EPS * max(_size(total.Z, Q), 1.0) * (1 / t * (1 + size * r) + size / (h * length))))
        bound = np.abs(value - coarse) + noise
        yield f"difference at t = {s} units", np.abs(found - value), bound
        yield _resolved("the divergence", bound, max(1e-4, 2e4 * _slope_error(manifold)))


def _cover_log(manifold, Z, W):
    return manifold._each("log", Z, W) if manifold.kernel == "factors" else manifold.log(Z, W)


@_identity()
def stein_identity(manifold, rng):
    """E[<score, grad f> + Laplacian f] = 0 under the density's own samples, f the log of another density."""
    total, t = _mixture(manifold, rng, t=_smoothing_time(manifold))
    est = RDKSEstimator(manifold, bandwidth=float(np.sqrt(t))).fit(
        manifold.unembed(total.Z), sample_weight=total.weight)
    # of slopes, which cost more than densities where they are differences
    count = _draws(manifold) // (1 if manifold.exactness == "exact" else 4)
    Y = manifold.embed(est.sample(count, random_state=rng))
    G = total.evaluate(Y, 0.0, 1).gradient
    for _ in range(2):
        # of sources somewhere else, and wider, so that f varies slowly where p lives
        other = sources(manifold, manifold.random(3, rng), np.ones(3), min(3 * t, manifold.max_time))
        f = other.evaluate(Y, 0.0, 2)
        values = (np.sum(G * f.gradient, 1) + f.laplacian) * t
        yield "z-score", _z_score(values, 0.0, 4 * manifold.log_error(t)), SIGMA


@_identity()
def fisher_information_two_ways(manifold, rng):
    """E |score|^2 = -E Laplacian(log p) under the density's own samples."""
    total, t = _mixture(manifold, rng, t=_smoothing_time(manifold))
    which = rng.choice(len(total.Z), _draws(manifold) // 4, p=total.weight / total.weight.sum())
    found = total.evaluate(heat_sample(manifold, total.Z[which], t, rng), 0.0, 2)
    values = (np.sum(found.gradient**2, 1) + found.laplacian) * t
    yield "z-score", _z_score(values, 0.0, 4 * manifold.log_error(t)), SIGMA


@_identity(_no_factors)
def sampler_damps_eigenfunctions(manifold, rng):
    """E f(Y) = exp(-lam t / 2) f(x) for draws Y of the kernel and the first eigenfunctions f."""
    start = manifold.random(1, rng)[0]
    Z = np.tile(start, (_DRAWS, 1))
    for s, t in _times(manifold, *(0.01, 0.3, 2.0)):
        Y = heat_sample(manifold, Z, t, rng)
        yield f"violation at t = {s} units", manifold.violation(manifold.unembed(Y)), (
            4 * EPS * manifold.embed_dim)
        origin, time = manifold.flow(start[None], t)
        for f, columns in manifold.pieces():
            x, y = origin[0, columns], Y[:, columns]
            if f.kind == "hyperbolic":
                # the log of the height is a Brownian motion with drift, seen from every point at infinity: from the
                # top, and from the origin after the inversion
                for name, log_height in (("height", lambda p: np.log(p[:, -1])),
                                         ("inverted height", lambda p: np.log(p[:, -1] / np.sum(p * p, 1)))):
                    d = (log_height(y) - log_height(x[None])) * f.radius + 0.5 * (f.dim - 1) * t / f.radius
                    yield f"z-score of log {name} at t = {s} units", _z_score(d / np.sqrt(t), 0.0), SIGMA
                    yield f"z-score of its square at t = {s} units", _z_score(d * d / t, 1.0), SIGMA
            elif f.kind == "sphere":
                # coordinates, lam = d/R^2; their products without trace, lam = 2(d + 1)/R^2
                decay = np.exp(-0.5 * f.dim * t / f.radius**2)
                yield f"z-score of coordinates at t = {s} units", _z_score(y, decay * x), SIGMA
                decay = np.exp(-(f.dim + 1) * t / f.radius**2)
                trace = f.radius**2 / (f.dim + 1)
                yield f"z-score of squares at t = {s} units", _z_score(
                    y**2 - trace, decay * (x**2 - trace)), SIGMA
            elif f.period is not None:
                for level in (1, 2):
                    k = 2 * np.pi * level / f.period
                    decay = np.exp(-0.5 * k * k * t)
                    for wave in (np.cos, np.sin):
                        yield f"z-score of waves at t = {s} units", _z_score(
                            wave(k * y), decay * wave(k * x)), SIGMA
            else:
                # no eigenfunctions: mean x and covariance t say the same
                d = (y - x) / np.sqrt(time)
                yield f"z-score of the mean at t = {s} units", _z_score(d, 0.0), SIGMA
                products = (d[:, :, None] * d[:, None]).reshape(len(d), -1)
                yield f"z-score of the covariance at t = {s} units", _z_score(
                    products, np.eye(f.dim).ravel()), SIGMA


@_identity()
def sampler_follows_the_density(manifold, rng):
    """Draws of the estimator and its density agree: E k_s(Y, x) is the density at a later time s."""
    X, w, h = _data(manifold, rng)
    est = RDKSEstimator(manifold, bandwidth=h).fit(X, sample_weight=w)
    Y = manifold.embed(est.sample(_draws(manifold), random_state=rng))
    Q = manifold.embed(X)[:3]
    later = h * h
    want = est.score_samples(X[:3], later)
    values = np.array([np.exp(_log_k_to(manifold, Y, q, later) - v) for q, v in zip(Q, want, strict=True)]).T
    bias = 2 * manifold.log_error(h * h) + manifold.log_error(2 * h * h)
    yield "z-score", _z_score(values, 1.0, bias), SIGMA


def _random_isometry(manifold, rng):
    """Return a random isometry of the covering space, acting on embedded points, and its action on tangent vectors."""
    moves, turns = [], []
    for f, _ in manifold.pieces():
        width = f.dim - 1 if f.hyperbolic else f.width
        Q, R = np.linalg.qr(rng.standard_normal((width, width)))
        Q = Q * np.sign(np.diag(R))
        if f.hyperbolic:
            # turn and shift sideways, dilate, and invert in the unit sphere about a point of the boundary
            shift, scale = rng.uniform(-1, 1, width), np.exp(rng.uniform(-1, 1))

            def slide(Z, Q=Q, shift=shift, scale=scale):
                return np.concatenate([scale * Z[:, :-1] @ Q.T + shift, scale * Z[:, -1:]], axis=1)

            def invert(Z, slide=slide):
                Z = slide(Z)
                return Z / np.sum(Z * Z, axis=1, keepdims=True)

            def reflect(Z, V, Q=Q, slide=slide):
                n = slide(Z)
                n = n / _norm(n)[:, None]
                V = np.concatenate([V[:, :-1] @ Q.T, V[:, -1:]], axis=1)
                return V - 2 * n * np.sum(n * V, axis=1, keepdims=True)

            moves.append(invert)
            turns.append(reflect)
            continue
        shift = np.zeros(width)
        if f.kind != "sphere" and not manifold.has_drift:
            shift = rng.uniform(-1, 1, width) * (f.period if f.period is not None else 1.0)
        moves.append(lambda Z, Q=Q, shift=shift, f=f: f.project(Z @ Q.T + shift))
        turns.append(lambda Z, V, Q=Q: V @ Q.T)

    def move(Z):
        return np.concatenate([g(Z[:, s]) for g, (_, s) in zip(moves, manifold.pieces(), strict=True)], axis=1)

    def turn(Z, V):
        return np.concatenate([g(Z[:, s], V[:, s]) for g, (_, s) in zip(turns, manifold.pieces(), strict=True)], axis=1)

    return move, turn


def _no_isometries(manifold):
    if manifold.kernel != "factors":
        return "no isometries are declared"
    rng = np.random.default_rng(0)
    move, _ = _random_isometry(manifold, rng)
    Z = manifold.random(1, rng)
    here, there = move(manifold.images(Z)[:, 0]), manifold.images(move(Z))[:, 0]
    gaps = np.array([manifold._cover_dist(np.tile(z, (len(there), 1)), there).min() for z in here])
    return None if (gaps < 1e-6 * _scale(manifold)).all() else "isometries of the covering space do not descend to this"


@_identity(_no_isometries)
def isometries_carry_density_and_score(manifold, rng):
    """p(gx; gX) = p(x; X) and the score turns with g: rotations of spheres, shifts of flat factors, inversions."""
    for s, t in _times(manifold, *(1e-3, 0.3)):
        total, _ = _mixture(manifold, rng, t=t)
        Q = np.concatenate([_near(manifold, total, rng, 8), _farthest(manifold, total.Z[:1])])
        move, turn = _random_isometry(manifold, rng)
        moved = sources(manifold, move(total.Z), total.weight, t)
        here, there = total.evaluate(Q, 0.0, 1), moved.evaluate(move(Q), 0.0, 1)
        r = np.sqrt(2 * t * np.abs(here.log_density)) + 4 * np.sqrt(t)
        size = _size(total.Z, Q, moved.Z, move(Q))
        if any(f.hyperbolic for f in manifold.factors()):
            # coordinates relative to their heights, of which distances are made
            size = _scale(manifold) * max(np.abs(Z / Z[:, s.stop - 1:s.stop]).max() for f, s in manifold.pieces()
                                          if f.hyperbolic for Z in (total.Z, Q, moved.Z, move(Q)))
        yield f"log density at t = {s} units", np.abs(here.log_density - there.log_density), _log_error(
            manifold, here.log_density, r, t, size)
        # at the cut locus the score is decided by rounding, so the last query counts for the density only
        G = turn(Q, here.gradient)[:-1]
        bound = 16 * len(manifold.factors()) * manifold.dim * (
            _slope_error(manifold) * (_size(G) + r.max() / t) + EPS * size / t * (1 + _scale(manifold) ** 2 / t))
        yield f"score at t = {s} units", np.abs(G - there.gradient[:-1]), bound


@_identity()
def later_time_is_a_wider_fit(manifold, rng):
    """The density at a later time t is that of a fit with bandwidth sqrt(h^2 + t), score included."""
    X, w, h = _data(manifold, rng)
    Q = _queries(manifold, rng)
    est = RDKSEstimator(manifold, bandwidth=h).fit(X, sample_weight=w)
    for t in (0.5 * h * h, 7.0 * h * h):
        wide = RDKSEstimator(manifold, bandwidth=float(np.sqrt(h * h + t))).fit(X, sample_weight=w)
        logs = est.score_samples(Q, t)
        bound = _log_error(manifold, logs)
        yield f"log density at t = {t / h**2:.1f} h^2", _log_gap(logs, wide.score_samples(Q)), bound
        G = est.score_field(Q[:-1], t)
        yield f"score at t = {t / h**2:.1f} h^2", np.abs(G - wide.score_field(Q[:-1])), (
            16 * _slope_error(manifold) * (np.abs(G).max() + 1 / h))
    now = est.score_samples(Q)
    yield "t = 0 - no t", np.abs(est.score_samples(Q, 0.0) - now), 0.0


@_identity()
def times_belong_to_sources(manifold, rng):
    """A sum with one time per source is the weighted sum of the single ones, score and Laplacian too."""
    total, t = _mixture(manifold, rng, 6)
    times = t * np.array([1.0, 0.3, 1.0, 2.0, 0.02, 0.3])
    mixed = sources(manifold, total.Z, total.weight, times)
    Q = np.concatenate([_near(manifold, total, rng, 6), _farthest(manifold, total.Z[:1])])
    for later in (0.0, 0.5 * t):
        found = mixed.evaluate(Q, later, 2)
        single = [_heat(manifold, z, Q, u + later, 2) for z, u in zip(total.Z, times, strict=True)]
        weight = np.log(total.weight / total.weight.sum())
        logs = np.array([e.log_density for e in single]) + weight[:, None]
        want = np.logaddexp.reduce(logs, axis=0)
        share = np.exp(logs - want)
        grads = np.array([e.gradient for e in single])
        G = np.einsum("sq,sqm->qm", share, grads)
        ratio = np.array([e.laplacian + np.sum(e.gradient**2, 1) for e in single])
        lap = np.sum(share * ratio, 0) - np.sum(G**2, 1)
        error = _log_error(manifold, want)
        yield "log density", _log_gap(found.log_density, want), error
        # a share is off by the error of its logs, and moves the score by that times the spread of slopes
        bound = 8 * (np.abs(logs) * (share > 1e-16)).max(0) * error * _norm(grads).max(0)
        yield "score", _norm(found.gradient - G), bound + 16 * _slope_error(manifold) * _norm(grads).max(0)
        size = np.abs(ratio).max(0)
        yield "Laplacian", np.abs(found.laplacian - lap), (
            (8 * (np.abs(logs) * (share > 1e-16)).max(0) * error + 32 * _slope_error(manifold)) * size)
