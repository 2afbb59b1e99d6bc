"""How accurate the manifolds are: one command, one requirement per line.

::

    python tests/benchmarks/manifold_accuracy.py [--quick] [--only NAME]

``kernels``: the log heat kernel against many digits, the largest error relative to max(1, \\|log k\\|) over a
spread of distances (next to nothing up to the cut locus, or far out) and times; of the formula, and of a fit to one
observation, whose kernel is tabulated. The references are those of the test-suite, which tests them against each
other; distances are worked out in many digits from the floats that the package sees. ``meshes``: the kernel of the
sphere on icospheres. ``clouds``: the density of a uniform sample on a learned surface, as in the notebook on unknown
manifolds. ``fits``: seconds, by the clock, to fit rotations with a chosen bandwidth.

Nothing is asserted: the exit code is 0 whatever the table says. One arithmetic thread, but for ``fits``.
"""
from __future__ import annotations

import sys
from pathlib import Path

import run  # first: it holds arithmetic libraries to one thread

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the references of the tests

import argparse
import os
import time
import warnings

import mpmath as mp
import numpy as np
import test_heat as sphere
import test_heat_hyperbolic as hyperbolic
from scipy.spatial.transform import Rotation
from test_box_ou import log_images
from test_discrete import icosphere
from test_quotients import log_projective
from test_rotations import angle_mp, log_so3_images

from rdks import RDKSEstimator, heat
from rdks.errors import AccuracyWarning
from rdks.manifolds import (
    SO3,
    SPD,
    SU2,
    Box,
    Circle,
    Hyperbolic,
    Mesh,
    OrnsteinUhlenbeck,
    PointCloud,
    ProjectiveSpace,
)

LAYOUT = "{:<52} {:>11}  {:<14} {:<7}{}"
#: Fractions of the distance to the cut locus.
FRACTIONS = np.array([0.0, 1e-9, 1e-3, 0.1, 0.4, 0.7, 0.97, 1 - 1e-6, 1.0])


def line(what, value, goal, met, note=""):
    """Format a requirement: the measured value, the goal in words and whether it is met."""
    return LAYOUT.format(what, f"{value:.3g}", goal, "met" if met else "missed", note).rstrip()


def at_most(what, value, goal, note="", unit=""):
    """Ask that a value be no larger than a goal; a value that is no number is not."""
    return line(what, value, f"<= {goal:g}{unit}", value <= goal, note)


# ---------------------------------------------------------------------------------------- heat kernels
#
# Each reference takes two embedded points, arrays of floats, and a time, and returns log k in many digits.


def _numbers(z):
    return [mp.mpf(float(a)) for a in z]


def circle(z, w, t):
    """One circle of length 2 pi: the images of the shortest distance."""
    (x,), (y,) = _numbers(z), _numbers(w)
    r = abs(x - y) % (2 * mp.pi)
    r = min(r, 2 * mp.pi - r)
    return sphere.log_odd(r, t, 1) - r * r / (2 * mp.mpf(t))


def box(bounds):
    """Images of both sides; embedded coordinates are those over the low end."""
    def log_k(z, w, t):
        return sum(log_images(x, y, t, mp.mpf(high) - mp.mpf(low))
                   for x, y, (low, high) in zip(_numbers(z), _numbers(w), bounds, strict=True))
    return log_k


def mehler(z, w, t):
    """Normal with the mean exp(-t/2) x and the variance 1 - exp(-t), in each coordinate."""
    t = mp.mpf(t)
    variance = -mp.expm1(-t)
    return sum(-(y - mp.exp(-t / 2) * x) ** 2 / (2 * variance) - mp.log(2 * mp.pi * variance) / 2
               for x, y in zip(_numbers(z), _numbers(w), strict=True))


def so3(z, w, t):
    """Windings of the rotation angle."""
    half = angle_mp(z, w)
    return log_so3_images(2 * min(half, mp.pi - half), mp.mpf(t))


def three_sphere(z, w, t):
    """Derivatives of the circle's images, at the angle between unit quaternions."""
    r = angle_mp(z, w)
    return sphere.log_odd(r, t, 3) - r * r / (2 * mp.mpf(t))


def half_space(dim):
    """Odd dimensions by the recursion from the line, the plane by McKean's integral."""
    def log_k(z, w, t):
        a, b = _numbers(z), _numbers(w)
        gap = sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / (4 * a[-1] * b[-1])
        r = 2 * mp.asinh(mp.sqrt(gap))
        scaled = hyperbolic.log_odd(r, t, dim) if dim % 2 else hyperbolic.log_cauchy(r, t, dim)
        return scaled - r * r / (2 * mp.mpf(t))
    return log_k


def covariances(x, y, t):
    r"""A line times a hyperbolic plane: h are the logs of the eigenvalues of :math:`X^{-1}Y`.

    :math:`(2\pi t)^{-1/2}e^{-(h_1+h_2)^2/4t}\,\frac12p_{t/2}(|h_1-h_2|/2)`; points are matrices here, (2, 2).
    """
    (a, b), (_, c) = (_numbers(row) for row in x)
    (d, e), (_, f) = (_numbers(row) for row in y)
    ratio = (d * f - e * e) / (a * c - b * b)  # of determinants: the product of the eigenvalues
    half = (a * f + c * d - 2 * b * e) / (a * c - b * b) / 2
    root = mp.sqrt(max(half * half - ratio, 0))
    first, second = mp.log(half + root), mp.log(ratio / (half + root))
    r, s, t = (first - second) / 2, 0.5 * t, mp.mpf(t)
    return (hyperbolic.log_cauchy(r, s, 2) - r * r / (2 * mp.mpf(s)) - mp.log(2) - (first + second) ** 2 / (4 * t)
            - mp.log(2 * mp.pi * t) / 2)


def projective(z, w, t):
    """Twice the even levels of the sphere's series."""
    angle = angle_mp(z, w)
    return log_projective(mp.cos(min(angle, mp.pi - angle)), t, len(z) - 1)


def away(manifold, start, distances, rng):
    """Move an embedded point by each of the distances, in a random direction each."""
    Z = np.repeat(start[None], len(distances), axis=0)
    V = manifold.to_tangent(Z, rng.standard_normal(Z.shape))
    V /= np.linalg.norm(V, axis=1)[:, None]
    return manifold.exp(Z, V * np.asarray(distances)[:, None])


def kernel_error(manifold, reference, Z, times, as_written=False):
    """Largest error of log k from the first point to all, of the formula and of a fit, and where the larger one is.

    `as_written` says that the reference wants points as the user writes them.
    """
    X, worst = manifold.unembed(Z), np.zeros(2)
    Z = manifold.embed(X)  # both see the same floats
    points, where = X if as_written else Z, ""
    for time_ in times:
        h = float(np.sqrt(time_))
        t = h * h
        found = (manifold.log_heat_kernel(np.repeat(Z[:1], len(Z), axis=0), Z, t),
                 RDKSEstimator(manifold, bandwidth=h).fit(X[:1]).score_samples(X))
        for i, point in enumerate(points):
            with mp.workdps(60):
                want = reference(points[0], point, t)
                errors = np.array([abs(mp.mpf(float(a[i])) - want) / max(1, abs(want)) for a in found], float)
            if not errors.max() <= worst.max():
                where = f"at t = {time_:g}, r = {manifold.dist(Z[:1], Z[i:i + 1])[0]:.3g}"
            worst = np.maximum(worst, errors)  # NaN stays
    return worst, where


def kernels(quick):
    """Log kernels against many digits."""
    rng = np.random.default_rng(0)
    out = np.array([0.0, 1e-9, 1e-3, 0.2, 1.0, 3.0, 10.0, 40.0])  # distances where there is no cut locus
    times = [1e-2, 1.0] if quick else [1e-4, 1e-2, 0.3, 1.0, 5.0]
    few = [1e-2, 1.0] if quick else [1e-3, 0.05, 0.5, 3.0]  # of references that take their time
    bounds = [(-1.0, 2.0), (5.0, 5.5)]
    walls = np.array([[0.4, 5.1], [-1.0, 5.0], [2.0, 5.5], [2.0, 5.1], [0.4, 5.1 + 1e-9], [-1.0, 5.3], [1.3, 5.25]])
    inside = Box(bounds)
    states = np.array([[0.3, -0.2], [0.3, -0.2 + 1e-9], [-2.0, 1.0], [1.0, 4.0], [-12.0, 30.0]])
    cases = [
        ("SO(3)", SO3(coords="quaternion"), so3, np.pi, times, 1e-12),
        ("SU(2)", SU2(), three_sphere, np.pi, times, 1e-12),
        ("circle", Circle(), circle, np.pi, times, 1e-12),
        ("box, walls and corners", inside, box(bounds), inside.embed(walls), times, 1e-12),
        ("Ornstein-Uhlenbeck", OrnsteinUhlenbeck(2), mehler, states, times, 1e-12),
        ("H^3", Hyperbolic(3, coords="half_space"), half_space(3), out, times, 1e-12),
        ("H^2", Hyperbolic(2, coords="half_space"), half_space(2), out, few, 1e-10),
        ("H^5", Hyperbolic(5, coords="half_space"), half_space(5), out, times, 1e-10),
        ("SPD(2), affine-invariant", SPD(2, metric="affine_invariant"), covariances, out[:-2], few, 1e-10),
        ("RP^2", ProjectiveSpace(2), projective, 0.5 * np.pi, few, 1e-10)]
    for name, manifold, reference, places, at, goal in cases:
        if np.ndim(places) < 2:  # a reach, or distances
            start = manifold.random(1, rng)[0]
            distances = FRACTIONS * places if np.ndim(places) == 0 else places
            places = np.concatenate([start[None], away(manifold, start, distances[1:], rng)])
        worst, where = kernel_error(manifold, reference, places, at, as_written=manifold.point_shape == (2, 2))
        yield at_most(f"log k, {name}", worst.max(), goal,
                      f"formula {worst[0]:.1e}, fit {worst[1]:.1e}; {len(at) * len(places)} values; {where}")


# ---------------------------------------------------------------------------------------------- meshes


def meshes(quick):
    """The heat kernel of the sphere on icospheres, sup norm relative to the peak, at a vertex of degree six."""
    times, errors, sizes = (0.1, 0.2, 0.5), [], []
    for level in (2, 3, 4) if quick else (3, 4, 5):
        V, F = icosphere(level)
        mesh = Mesh(V, F, coords="barycentric")
        X = mesh.nodes()
        angle = 2 * np.arctan2(np.linalg.norm(V - V[12], axis=1), np.linalg.norm(V + V[12], axis=1))
        sizes.append(len(V))
        errors.append([])
        for t in times:
            exact = np.exp(heat.log_sphere(angle, t, 2) - angle**2 / (2 * t))
            found = np.exp(RDKSEstimator(mesh, bandwidth=np.sqrt(t)).fit(X[12:13]).score_samples(X))
            errors[-1].append(np.abs(found - exact).max() / exact.max())
    errors = np.array(errors)
    for i, (more, less) in enumerate(zip(sizes[1:], sizes[:-1], strict=True)):
        for t, ratio, error in zip(times, errors[i] / errors[i + 1], errors[i + 1], strict=True):
            yield line(f"mesh: error of {less} vertices over that of {more}, t = {t:g}", ratio, "3.5 to 4.5",
                       3.5 <= ratio <= 4.5, f"error {error:.1e} of the peak")


# ---------------------------------------------------------------------------------------------- clouds

RATIO, WIDTH, RIM = 0.5, 10.0, 3.0


def length(a):
    """Length of the spiral r = a up to the angle a."""
    return 0.5 * (a * np.sqrt(1 + a * a) + np.arcsinh(a))


def torus(n, rng):
    """Draw n points of a torus, uniform in area; returns them and their distances to the rim, infinite."""
    u, v, w = rng.uniform(0, 1, (3, 4 * n))
    keep = w * (1 + RATIO) < 1 + RATIO * np.cos(2 * np.pi * v)
    u, v = 2 * np.pi * u[keep][:n], 2 * np.pi * v[keep][:n]
    arm = 1 + RATIO * np.cos(v)
    return np.column_stack([arm * np.cos(u), arm * np.sin(u), RATIO * np.sin(v)]), np.full(n, np.inf)


def roll(n, rng):
    """Draw n points of a swiss roll, uniform in area; returns them and their distances to the rim."""
    first, last = length(1.5 * np.pi), length(4.5 * np.pi)
    s, y = rng.uniform(first, last, n), rng.uniform(0, WIDTH, n)
    grid = np.linspace(1.5 * np.pi, 4.5 * np.pi, 4000)
    a = np.interp(s, length(grid), grid)
    return np.column_stack([a * np.cos(a), y, a * np.sin(a)]), np.minimum.reduce([s - first, last - s, y, WIDTH - y])


def clouds(quick):
    """Density times area of uniform samples, which must go to one: mean square, at bandwidths like n^(-1/6)."""
    sizes = (500, 1000, 2000) if quick else (500, 1000, 2000, 4000, 8000)
    repeats = (3, 2, 1) if quick else (5, 4, 3, 2, 1)
    area = {torus: 4 * np.pi**2 * RATIO, roll: WIDTH * (length(4.5 * np.pi) - length(1.5 * np.pi))}
    bandwidth = {torus: 0.25, roll: 3.0}  # for 1000 points
    for shape, name in ((torus, "torus"), (roll, "swiss roll")):
        rows = []
        for n, times_over in zip(sizes, repeats, strict=True):
            row = []
            for seed in range(times_over):
                X, rim = shape(n, np.random.default_rng([n, seed]))
                cloud = PointCloud(X)
                est = RDKSEstimator(cloud, bandwidth=bandwidth[shape] * (n / 1000) ** (-1 / 6)).fit(X)
                off = area[shape] * np.exp(est.score_samples(X)) - 1
                row.append([np.sqrt(np.mean(off**2)), np.sqrt(np.mean(off[rim > RIM] ** 2)),
                            abs(cloud.volume / area[shape] - 1)])
            rows.append(np.mean(row, axis=0))
        rows = np.array(rows).T
        for place, values in zip(("everywhere", "interior"), rows[:1 if shape is torus else 2], strict=False):
            rate = np.polyfit(np.log(sizes), np.log(values), 1)[0]
            yield at_most(f"{name}: power of n in the error, {place}", rate, -0.22,
                          f"theory -1/3; n = {sizes[0]} to {sizes[-1]}: {', '.join(f'{v:.3f}' for v in values)}")
        yield at_most(f"{name}: error of the density, n = {sizes[-1]}", rows[0, -1], 0.1, "root mean square, relative")
        yield at_most(f"{name}: error of the learned area, n = {sizes[-1]}", rows[2, -1], 0.05)


# ------------------------------------------------------------------------------------------------ fits


def fits(quick):
    """Fits of uniform rotations, bandwidth chosen, two threads, compiled before: seconds by the clock.

    On a machine that does other work they say nothing; the CPU seconds of both threads are then an upper bound of
    what the arithmetic takes.
    """
    n, seeds = (2_000, 2) if quick else (10_000, 8)
    seconds, spent = [], []
    for seed in range(-1, seeds):  # the first one is for compiling
        X = Rotation.random(n, random_state=seed + 1)
        clock, cpu = time.perf_counter(), time.process_time()
        RDKSEstimator(SO3(), n_jobs=2).fit(X)
        if seed >= 0:
            seconds.append(time.perf_counter() - clock)
            spent.append(time.process_time() - cpu)
    yield at_most(f"fit of {n} rotations, two threads, {seeds} seeds, slowest", max(seconds), 1.0,
                  f"median {np.median(seconds):.2f}; CPU seconds {min(spent):.2f} to {max(spent):.2f}; "
                  f"load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", " s")


CASES = {"kernels": kernels, "meshes": meshes, "clouds": clouds, "fits": fits}


def main():
    """Print the table that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="smaller and fewer runs; not for citing")
    parser.add_argument("--only", metavar="NAME", choices=list(CASES), help=f"one of {', '.join(CASES)}")
    options = parser.parse_args()
    warnings.simplefilter("ignore", AccuracyWarning)
    print(", ".join(f"{k} {v}" for k, v in run.machine().items()), flush=True)
    print(LAYOUT.format("what", "measured", "required", "", "note").rstrip(), flush=True)
    lines, start = [], time.perf_counter()
    for name in [options.only] if options.only else CASES:
        for text in CASES[name](options.quick):
            lines.append(text)
            print(text, flush=True)
    missed = sum(" missed" in text for text in lines)
    print(f"{len(lines) - missed} of {len(lines)} requirements met, {time.perf_counter() - start:.0f} s"
          f"{', sizes reduced' if options.quick else ''}")


if __name__ == "__main__":
    main()
