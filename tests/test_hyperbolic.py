"""Hyperbolic space: its charts against geomstats and Minkowski's form; products whose parts have times of their own."""
from __future__ import annotations

import mpmath
import numpy as np
import pytest

from rdks import RDKSEstimator
from rdks.errors import PointError, UnsupportedError
from rdks.manifolds import (
    SO3,
    Box,
    Circle,
    Euclidean,
    Hyperbolic,
    OrnsteinUhlenbeck,
    Product,
    Quotient,
    Sphere,
    Torus,
    load_geomstats,
)

CHARTS = ("hyperboloid", "ball", "half_space")


def hyperboloid(rng, n, d, spread=1.0):
    """Points of the unit hyperboloid, coordinate x_0 first."""
    x = spread * rng.standard_normal((n, d))
    return np.column_stack([np.sqrt(1 + np.sum(x * x, 1)), x])


def minkowski_distance(x, y):
    """Distance on the unit hyperboloid in 40 digits, x_0 mended from the others."""
    with mpmath.workdps(40):
        x, y = ([mpmath.mpf(float(v)) for v in p[1:]] for p in (x, y))
        times = [mpmath.sqrt(1 + sum(v * v for v in p)) for p in (x, y)]
        return float(mpmath.acosh(times[0] * times[1] - sum(a * b for a, b in zip(x, y, strict=True))))


# ------------------------------------------------------------------------------------------- charts


@pytest.mark.parametrize("d", [2, 3, 5])
@pytest.mark.parametrize("radius", [1.0, 2.5])
def test_distance_is_minkowskis(d, radius):
    rng = np.random.default_rng(d)
    X = hyperboloid(rng, 12, d)
    Y = X.copy()
    Y[:6] = hyperboloid(rng, 6, d)
    Y[6:, 1:] += 1e-7 * rng.standard_normal((6, d))  # close pairs
    Y[:, 0] = np.sqrt(1 + np.sum(Y[:, 1:] ** 2, 1))
    M = Hyperbolic(d, radius=radius)
    found = M.dist(M.embed(radius * X), M.embed(radius * Y)) / radius
    want = [minkowski_distance(x, y) for x, y in zip(X, Y, strict=True)]
    # a coordinate of size x is known to 1e-16 x, and moves the point by at most x times as much
    assert np.allclose(found, want, rtol=0, atol=1e-15 * np.abs(X).max() ** 2 * 8)


@pytest.mark.parametrize("d", [2, 3])
def test_charts_are_those_of_geomstats(d):
    load_geomstats()
    from geomstats.geometry.hyperboloid import Hyperboloid
    from geomstats.geometry.poincare_ball import PoincareBall
    X = hyperboloid(np.random.default_rng(0), 20, d)
    theirs = Hyperboloid(d)
    want = theirs.metric.dist(X[:10], X[10:])
    for M, points in ((Hyperbolic(d), X), (Hyperbolic(d, coords="ball"), theirs.to_coordinates(X, "ball"))):
        Z = M.embed(points)
        assert np.allclose(M.dist(Z[:10], Z[10:]), want, rtol=1e-10)
        assert np.allclose(M.unembed(Z), points, rtol=1e-12, atol=1e-13)
    ball = theirs.to_coordinates(X, "ball")
    assert np.allclose(PoincareBall(d).metric.dist(ball[:10], ball[10:]), want, rtol=1e-8)
    if d == 2:
        from geomstats.geometry.poincare_half_space import PoincareHalfSpace
        half = Hyperbolic(2, coords="half_space")
        Y = half.unembed(half.random(20, np.random.default_rng(1)))
        Z = half.embed(Y)
        assert np.allclose(half.dist(Z[:10], Z[10:]), PoincareHalfSpace(2).metric.dist(Y[:10], Y[10:]), rtol=1e-8)


@pytest.mark.parametrize("d", [2, 4])
def test_charts_are_one_space(d):
    """The same points in three charts: the same distances, densities and lengths of scores."""
    rng = np.random.default_rng(1)
    base = Hyperbolic(d, radius=1.7)
    Z = base.random(30, rng)
    logs, norms = [], []
    for coords in CHARTS:
        M = Hyperbolic(d, coords=coords, radius=1.7)
        X = M.unembed(Z)
        est = RDKSEstimator(M, bandwidth=0.6).fit(X[:20])
        logs.append(est.score_samples(X[20:]))
        V = est.score_field(X[20:])
        if coords == "hyperboloid":
            norms.append(np.sqrt(np.sum(V[:, 1:] ** 2, 1) - V[:, 0] ** 2))
            # tangent to the hyperboloid
            product = np.sum(V[:, 1:] * X[20:, 1:], 1) - V[:, 0] * X[20:, 0]
            assert np.allclose(product, 0, atol=1e-11 * np.abs(V).max() * np.abs(X).max())
        else:
            scale = 2 * 1.7 / (1 - np.sum(X[20:] ** 2, 1)) if coords == "ball" else 1.7 / X[20:, -1]
            norms.append(scale * np.sqrt(np.sum(V * V, 1)))
    for other in (1, 2):
        assert np.allclose(logs[other], logs[0], rtol=1e-11)
        assert np.allclose(norms[other], norms[0], rtol=1e-9)


def test_half_space_keeps_digits_far_away():
    """A pair at distance 0.1 has the same density wherever it is: dilations are isometries."""
    M = Hyperbolic(3, coords="half_space")
    pair = np.array([[0.0, 0.0, 1.0], [0.05, -0.03, 1.08]])
    logs = [RDKSEstimator(M, bandwidth=0.2).fit(scale * pair[:1]).score_samples(scale * pair[1:])[0]
            for scale in (1.0, 1e-40, 1e40, 3e60)]
    assert np.ptp(logs) < 1e-13


def test_far_pairs_are_finite_and_right():
    """Distance 280, log density of minus four hundred thousand: H^3 in closed form."""
    M = Hyperbolic(3, coords="half_space")
    X = np.array([[0.0, 0.0, np.exp(-140.0)], [0.0, 0.0, np.exp(140.0)]])
    t, r = 0.1, 280.0
    want = -1.5 * np.log(2 * np.pi * t) + np.log(r) + np.log(2) - r - t / 2 - r * r / (2 * t)
    est = RDKSEstimator(M, bandwidth=np.sqrt(t)).fit(X[:1])
    assert est.score_samples(X[1:])[0] == pytest.approx(want, rel=1e-13)
    # d/dr of it, downwards; the score is x_d^2 times the derivative in the height, of length |d/dr|
    slope = est.score_field(X[1:])[0]
    assert slope[2] / X[1, 2] == pytest.approx(1 / r - 1 - r / t, rel=1e-12) and not slope[:2].any()


@pytest.mark.parametrize("coords, row, match", [
    ("hyperboloid", [1.0, 0.5, 0.5], r"X\[2\] .*x_0"), ("hyperboloid", [-1.0, 0.0, 0.0], r"X\[2\] .*2 exceeds"),
    ("ball", [0.8, 0.7], r"X\[2\] .*norm.*1.06 exceeds"), ("half_space", [0.3, 0.0], r"X\[2\] .*height"),
    ("half_space", [0.0, 1e-100], r"X\[2\] .*distance from the origin in radii = 230"),
    ("hyperboloid", [np.cosh(40.0), np.sinh(40.0), 0.0], r"X\[2\] .*beyond 20, the distance .* = 40"),
    ("ball", [np.tanh(12.5), 0.0], r"X\[2\] .*beyond 20, the distance .* = 25")])
def test_bad_points(coords, row, match):
    M = Hyperbolic(2, coords=coords)
    X = M.unembed(M.random(5, np.random.default_rng(0)))
    X[2] = row
    with pytest.raises(PointError, match=match):
        RDKSEstimator(M, bandwidth=0.3).fit(X)


def test_projection_mends_the_first_coordinate_and_nothing_else():
    X = hyperboloid(np.random.default_rng(0), 5, 2)
    worse = X * np.array([1.02, 1.0, 1.0])
    M = Hyperbolic(2)
    est = RDKSEstimator(M, bandwidth=0.3, check_points="project")
    assert np.allclose(est.fit(worse).score_samples(worse), est.fit(X).score_samples(X), rtol=1e-12)
    outside = RDKSEstimator(Hyperbolic(2, coords="ball"), bandwidth=0.3, check_points="project")
    with pytest.raises(PointError, match="no nearest point"):
        outside.fit([[0.0, 0.1], [1.5, 0.0]])


@pytest.mark.parametrize("bad", [dict(dim=1), dict(dim=2, coords="disk"), dict(dim=2, radius=-1.0)])
def test_bad_parameters(bad):
    with pytest.raises(ValueError, match=next(reversed(bad))):
        Hyperbolic(**bad)


def test_heat_that_leaves_the_range_of_floats_is_refused():
    est = RDKSEstimator(Hyperbolic(2), bandwidth=1e6).fit([[1.0, 0.0, 0.0]])
    with pytest.raises(ValueError, match="beyond 690 radii"):
        est.sample(3, random_state=0)


def test_every_rule_chooses_a_bandwidth():
    M = Hyperbolic(2)
    X = M.unembed(M.random(150, np.random.default_rng(3)))
    for rule in ("lcv", "lscv", "isj", "rot"):
        assert 0.1 < RDKSEstimator(M, bandwidth=rule).fit(X).bandwidth_ < 1.0


# ------------------------------------------------------------------- products with a time per part


@pytest.mark.parametrize("part, unit", [
    (Sphere(2, radius=3.0), Sphere(2, radius=1.5)), (Torus(1, period=5.0), Torus(1, period=2.5)),
    (Euclidean(2), Euclidean(2)), (Hyperbolic(2, radius=3.0), Hyperbolic(2, radius=1.5)),
    (Box([(0.0, 4.0)]), Box([(0.0, 2.0)]))])
def test_a_time_of_four_is_a_unit_of_two(part, unit):
    """Diffusing four times as fast is measuring in units of two; the density is per the first unit, the score too."""
    rng = np.random.default_rng(0)
    other = Circle(period=7.0)
    fast, plain = Product(other, part, times=(1.0, 4.0)), Product(other, unit)
    X = fast.unembed(fast.random(30, rng))
    shrunk = X / np.array([1.0] + [2.0] * (X.shape[1] - 1))
    a = RDKSEstimator(fast, bandwidth=0.4).fit(X[:20])
    b = RDKSEstimator(plain, bandwidth=0.4).fit(shrunk[:20])
    logs = b.score_samples(shrunk[20:]) - part.dim * np.log(2)
    assert np.allclose(a.score_samples(X[20:]), logs, rtol=1e-12, atol=1e-12)
    scores = b.score_field(shrunk[20:])
    scores[:, 1:] /= 2
    assert np.allclose(a.score_field(X[20:]), scores, rtol=1e-9, atol=1e-9)
    assert np.allclose(a.score_divergence(X[20:]), b.score_divergence(shrunk[20:]), rtol=1e-9, atol=1e-9)
    if np.isfinite(part.volume):
        assert fast.volume == pytest.approx(7.0 * part.volume, rel=1e-14)
    assert fast.smallest_eigenvalue == pytest.approx(plain.smallest_eigenvalue, rel=1e-14)
    draws = a.sample(4000, random_state=0), b.sample(4000, random_state=0)
    draws[1][:, 1:] *= 2
    assert np.allclose(*draws, atol=1e-9)


def test_isj_does_not_depend_on_the_times_beyond_units():
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.vonmises(0, 4, 300) % (2 * np.pi), rng.normal(0, 0.4, 300)])
    scaled = X * [1, 3]
    one = RDKSEstimator(Product(Circle(), Euclidean(1)), bandwidth="isj").fit(X).bandwidth_
    two = RDKSEstimator(Product(Circle(), Euclidean(1), times=(1.0, 9.0)), bandwidth="isj").fit(scaled).bandwidth_
    assert two == pytest.approx(one, rel=1e-6)


def test_no_draws_and_too_many_images():
    M = Product(Sphere(2), Quotient(Product(Circle(), Euclidean(1)), [np.eye(2), -np.eye(2)]))
    X = M.unembed(M.random(9, np.random.default_rng(0)))
    assert RDKSEstimator(M, bandwidth=0.3).fit(X).sample(0).shape == (0, 5)
    with pytest.raises(UnsupportedError, match="64 x 128 = 8192 images"):
        Product(Box([(0, 1)] * 6), Box([(0, 1)] * 7))


def test_rigid_motions():
    """SE(3) as rotations and positions: fit, score in both parts, sample as written."""
    rng = np.random.default_rng(0)
    M = Product(SO3(coords="quaternion"), Euclidean(3), times=(0.04, 1.0))
    X = np.column_stack([SO3(coords="quaternion").unembed(SO3().random(40, rng)), rng.standard_normal((40, 3))])
    est = RDKSEstimator(M, bandwidth=0.5).fit(X)
    assert est.sample(7, random_state=0).shape == (7, 7) and M.n_images == 2 and M.volume == np.inf
    assert np.isfinite(est.score_field(X)).all()
    flipped = X * np.array([-1.0] * 4 + [1.0] * 3)
    assert np.allclose(est.score_samples(flipped), est.score_samples(X), rtol=1e-13)


def test_times_are_checked():
    with pytest.raises(ValueError, match="one number per part"):
        Product(Circle(), Euclidean(1), times=(1.0,))
    with pytest.raises(ValueError, match=r"times\[1\]"):
        Product(Circle(), Euclidean(1), times=(1.0, -2.0))
    with pytest.raises(UnsupportedError, match="drift"):
        Product(Circle(), OrnsteinUhlenbeck(1))
