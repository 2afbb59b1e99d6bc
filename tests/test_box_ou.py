"""Boxes and the Ornstein-Uhlenbeck process against mpmath, scipy and differences."""
from __future__ import annotations

import pickle

import mpmath as mp
import numpy as np
import pytest
from scipy import stats

from rdks import RDKSEstimator
from rdks.errors import PointError, UnsupportedError
from rdks.manifolds import Box, OrnsteinUhlenbeck, from_name
from rdks.sampling import heat_sample

EPS = np.finfo(float).eps


def difference(f, h):
    """Derivative of f at 0 by differences of order four; error h^4 f^(5) / 30 and rounding eps / h."""
    return (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)


# --------------------------------------------------------------------------------------------- box


def log_images(x, y, t, side):
    """Theory 2.3: the sum over mirror images."""
    x, y, t, side = map(mp.mpf, (x, y, t, side))
    reach = int(mp.ceil(mp.sqrt(800 * t) / (2 * side))) + 3
    gaps = [z + 2 * m * side for m in range(-reach, reach + 1) for z in (x - y, x + y)]
    least = min(z * z for z in gaps)
    total = sum(mp.exp((least - z * z) / (2 * t)) for z in gaps)
    return mp.log(total) - least / (2 * t) - mp.log(2 * mp.pi * t) / 2


def log_cosines(x, y, t, side):
    """Theory 2.3: the sum over cosines, which are the eigenfunctions."""
    x, y, t, side = map(mp.mpf, (x, y, t, side))
    total, k = mp.mpf(1), 1
    while True:
        decay = mp.exp(-((k * mp.pi / side) ** 2) * t / 2)
        total += 2 * decay * mp.cos(k * mp.pi * x / side) * mp.cos(k * mp.pi * y / side)
        if decay < mp.mpf(10) ** (-mp.mp.dps):
            return mp.log(total / side)
        k += 1


@pytest.mark.parametrize("t", [1e-4, 1e-2, 0.3, 10.0])
@pytest.mark.parametrize("side", [1.0, 7.0])
def test_box_kernel_is_that_of_both_sums(t, side):
    """To 1e-12 of max(1, |log k|); at walls too."""
    t = t * side**2
    space = Box([(0.0, side)])
    places = side * np.array([0.0, 1e-9, 0.3, 0.5, 0.97, 1.0])
    x, y = (a.reshape(-1, 1) for a in np.meshgrid(places, places))
    found = space.log_heat_kernel(space.embed(x), space.embed(y), t)
    for a, b, value in zip(x[:, 0], y[:, 0], found, strict=True):
        with mp.workdps(60):
            want = log_images(a, b, t, side)
            if (a - b) ** 2 / (2 * t) < 60:
                assert abs(want - log_cosines(a, b, t, side)) < 1e-25
            assert abs(value - want) <= 1e-12 * max(1, abs(want))


def test_box_kernel_is_a_product_over_sides():
    space = Box([(-1.0, 2.0), (5.0, 5.5), (0.0, 1.0)])
    corner, inside, t = np.array([-1.0, 5.5, 1.0]), np.array([0.4, 5.1, 0.2]), 0.05
    for x, y in ((corner, inside), (corner, corner), (inside, inside)):
        found = space.log_heat_kernel(space.embed(x[None]), space.embed(y[None]), t)[0]
        with mp.workdps(40):
            want = sum(log_images(mp.mpf(a) - low, mp.mpf(b) - low, t, mp.mpf(high) - low)
                       for a, b, (low, high) in zip(x, y, space.bounds, strict=True))
            assert abs(found - want) <= 1e-12 * max(1, abs(want))


def test_box_sizes():
    space = Box([(-1.0, 2.0), (5.0, 5.5)])
    assert (space.dim, space.n_images, space.point_shape) == (2, 4, (2,))
    assert space.volume == pytest.approx(1.5, rel=8 * EPS)
    assert space.smallest_eigenvalue == pytest.approx((np.pi / 3) ** 2, rel=4 * EPS)
    assert from_name("box", 3) == Box([(0, 1)] * 3)
    again = pickle.loads(pickle.dumps(space))
    assert again == space and hash(again) == hash(space) and not space.is_homogeneous
    assert Box(np.array([[0, 1], [2, 3]])) == Box([(0, 1), (2, 3)])
    Z = space.random(300, np.random.default_rng(2))
    assert (Z <= [3.0, 0.5]).all() and (Z >= 0).all() and (Z.max(axis=0) > [2.9, 0.48]).all()
    # in a convex box the shortest way is straight
    X, Y = space.unembed(space.random(50, np.random.default_rng(0))), space.unembed(space.random(
        50, np.random.default_rng(1)))
    np.testing.assert_allclose(space.dist(space.embed(X), space.embed(Y)), np.linalg.norm(X - Y, axis=1), rtol=1e-13)
    np.testing.assert_allclose(space.log(space.embed(X), space.embed(Y)), Y - X, atol=1e-14)


def test_geodesics_are_reflected_at_walls():
    space = Box([(-1.0, 2.0), (5.0, 5.5)])
    start, V = np.array([[1.0, 5.25]]), np.array([[4.0, -1.1]])
    end = space.unembed(space.exp(space.embed(start), V))
    # 1 + 4 = 5 -> 2 - 3 = -1; 5.25 - 1.1 = 4.15 -> 5 + 0.85 = 5.85 -> 5.5 - 0.35 = 5.15
    np.testing.assert_allclose(end, [[-1.0, 5.15]], atol=1e-14)
    Z = space.embed(start) + np.array([[6.0 * 3, -1.0 * 7]])  # whole periods change nothing
    np.testing.assert_allclose(space.unembed(Z), start, atol=1e-13)
    assert set(map(tuple, np.sign(space.images(np.array([[1.0, 0.2]]))[:, 0]))) == {(1, 1), (1, -1), (-1, 1), (-1, -1)}
    assert np.array_equal(space.images(Z)[0], Z)


@pytest.mark.parametrize("t", [1e-3, 0.1, 2.0])
def test_box_score(t):
    """Differences of the log density inside, and no flow through the walls."""
    rng = np.random.default_rng(0)
    space = Box([(-1.0, 2.0), (5.0, 5.5)])
    X = space.unembed(space.random(20, rng))
    est = RDKSEstimator(space, bandwidth=np.sqrt(t)).fit(X)
    Q = np.concatenate([X[:4] * 0.98 + 0.02 * np.array([1.9, 5.49]), [[1.99, 5.499], [-0.999, 5.002]]])
    score, h = est.score_field(Q), 2e-4 * min(1.0, np.sqrt(t))
    for q, s in zip(Q, score, strict=True):
        for e, part in zip(np.eye(2), s, strict=True):
            slope = difference(lambda k, q=q, e=e: est.score_samples((q + k * e)[None])[0], h)
            assert part == pytest.approx(slope, abs=1e-6 / t)
    walls = np.array([[-1.0, 5.2], [2.0, 5.2], [0.3, 5.0], [0.3, 5.5]])
    field = est.score_field(walls)
    assert np.abs(field[[0, 1, 2, 3], [0, 0, 1, 1]]).max() < 1e-9 / t
    assert np.abs(field[[0, 1, 2, 3], [1, 1, 0, 0]]).max() > 1e-3


@pytest.mark.parametrize("h", [0.05, 0.4, 3.0])
def test_box_density_has_mass_one_in_the_box(h):
    rng = np.random.default_rng(1)
    space = Box([(-1.0, 2.0), (5.0, 5.5)])
    est = RDKSEstimator(space, bandwidth=h).fit(space.unembed(space.random(15, rng)))
    u, w = np.polynomial.legendre.leggauss(120)
    x, y = 0.5 + 1.5 * u, 5.25 + 0.25 * u
    Q = np.column_stack([np.repeat(x, 120), np.tile(y, 120)])
    assert np.outer(1.5 * w, 0.25 * w).ravel() @ np.exp(est.score_samples(Q)) == pytest.approx(1.0, abs=1e-10)


def test_box_samples_stay_inside_and_damp_cosines():
    space, n, rng = Box([(-1.0, 2.0), (5.0, 5.5)]), 20000, np.random.default_rng(0)
    for t in (0.01, 0.5):
        start = np.array([1.7, 5.1])
        Y = space.unembed(heat_sample(space, np.repeat(space.embed(start[None]), n, axis=0), t, rng))
        assert (Y >= [-1.0, 5.0]).all() and (Y <= [2.0, 5.5]).all()
        for j, (low, high) in enumerate(space.bounds):
            for k in (1, 2):
                wave = k * np.pi / (high - low)
                values = np.cos(wave * (Y[:, j] - low))
                want = np.exp(-0.5 * wave**2 * t) * np.cos(wave * (start[j] - low))
                assert abs(values.mean() - want) < 5 * values.std() / np.sqrt(n) + 1e-12
    wide = RDKSEstimator(space, bandwidth=100.0).fit([[0.0, 5.2]])  # uniform
    assert wide.score_samples([[1.0, 5.4]])[0] == pytest.approx(-np.log(1.5), abs=1e-12)
    Y = wide.sample(5000, random_state=0)
    assert stats.kstest(Y[:, 0], "uniform", (-1.0, 3.0)).pvalue > 1e-4


def test_nothing_lies_outside():
    space = Box([(0.0, 1.0), (10.0, 30.0)])
    X = np.array([[0.2, 12.0], [0.5, 28.0]])
    est = RDKSEstimator(space, bandwidth=0.2).fit(X)
    for bad, size in (([1.25, 20.0], "0.25"), ([0.5, 9.0], "0.05"), ([-2.0, 35.0], "2")):
        with pytest.raises(PointError, match=rf"X\[1\] is not on Box.*relative to the side.* = {size} exceeds.*wall"):
            est.score_samples(np.array([X[0], bad]))
    nearest = RDKSEstimator(space, bandwidth=0.2, check_points="project").fit([[1.25, 20.0], [0.5, 9.0]])
    want = RDKSEstimator(space, bandwidth=0.2).fit([[1.0, 20.0], [0.5, 10.0]])
    assert np.array_equal(nearest.score_samples(X), want.score_samples(X))
    # what rounding leaves outside is on the wall
    assert est.score_samples([[1.0 + 1e-15, 20.0]])[0] == est.score_samples([[1.0, 20.0]])[0]
    with pytest.raises(PointError, match=r"X\[1\] is not on Box.*= 27 exceeds 1e-06 \(and 1 more rows\)"):
        RDKSEstimator("box", bandwidth=0.2).fit(X)
    assert np.isfinite(RDKSEstimator("box", bandwidth=0.2).fit(X / [1.0, 30.0]).score(X / [1.0, 30.0]))


def test_high_dimensions():
    rng = np.random.default_rng(0)
    space = Box([(0.0, 1.0)] * 6)
    est = RDKSEstimator(space, bandwidth=0.3).fit(rng.uniform(size=(5, 6)))
    assert np.isfinite(est.score_samples(rng.uniform(size=(3, 6)))).all()
    assert Box([(0, 1)] * 12).n_images == 4096
    with pytest.raises(UnsupportedError, match=r"dimension 13 has 2\^13 mirror images"):
        Box([(0, 1)] * 13)


@pytest.mark.parametrize("bounds, message", [
    (3.0, "expected a sequence of pairs"), ([], "empty"), ([1.0, 2.0], "expected a sequence of pairs"),
    ([(0, 1, 2)], "expected a sequence of pairs"),
    ([(0, 1), (2, 2)], r"bounds\[1\] = \(2.0, 2.0\): expected low < high"),
    ([(1, 0)], "expected low < high"), ([(0, np.inf)], r"bounds\[0\]\[1\] = inf must be finite"),
    ([("a", 1)], r"bounds\[0\]\[0\] = 'a' must be a real number"), ([(-1e308, 1e308)], "finite length")])
def test_what_is_no_box(bounds, message):
    with pytest.raises(ValueError, match=message):
        Box(bounds)


# --------------------------------------------------------------------------- Ornstein-Uhlenbeck


def log_mehler(x, y, t):
    """Theory 2.3: the density is the invariant one times sum_n e^{-n t / 2} He_n(x) He_n(y) / n!."""
    x, y, t = map(mp.mpf, (x, y, t))
    rho, power, total, n = mp.exp(-t / 2), mp.mpf(1), mp.mpf(0), 0
    hx, hy = [mp.mpf(0), mp.mpf(1)], [mp.mpf(0), mp.mpf(1)]  # He_n / sqrt(n!), the last two
    while power > mp.mpf(10) ** (-mp.mp.dps):
        total += power * hx[1] * hy[1]
        power *= rho
        for z, pair in ((x, hx), (y, hy)):
            pair[:] = pair[1], (z * pair[1] - mp.sqrt(n) * pair[0]) / mp.sqrt(n + 1)
        n += 1
    return mp.log(total) - y * y / 2 - mp.log(2 * mp.pi) / 2


@pytest.mark.parametrize("t", [0.2, 1.0, 5.0, 40.0])
def test_ou_kernel_is_mehlers(t):
    points = np.array([-2.0, 0.0, 1.3])
    x, y = (a.reshape(-1, 1) for a in np.meshgrid(points, points))
    found = OrnsteinUhlenbeck(1).log_heat_kernel(x, y, t)
    for a, b, value in zip(x[:, 0], y[:, 0], found, strict=True):
        with mp.workdps(int(35 + (a - b) ** 2 / (2 * t) / 2.3)):  # for the cancellation of the series in the tail
            want = log_mehler(a, b, t)
            assert abs(value - want) <= 1e-12 * max(1, abs(want))


def test_ou_density_is_a_normal_mixture_of_scipy():
    rng = np.random.default_rng(0)
    X, Q, w = rng.standard_normal((8, 3)), rng.standard_normal((6, 3)), rng.uniform(0.5, 2, 8)
    est = RDKSEstimator(OrnsteinUhlenbeck(3), bandwidth=0.6).fit(X, sample_weight=w)
    for later in (0.0, 0.9):
        t = 0.36 + later
        laws = [stats.multivariate_normal(np.exp(-0.5 * t) * x, (1 - np.exp(-t)) * np.eye(3)) for x in X]
        want = np.log(sum(v * law.pdf(Q) for v, law in zip(w / w.sum(), laws, strict=True)))
        np.testing.assert_allclose(est.score_samples(Q, later), want, rtol=1e-11)


def test_ou_symmetry_invariant_law_and_limits():
    rng = np.random.default_rng(1)
    process = OrnsteinUhlenbeck(2)
    Z, W = rng.standard_normal((2, 20, 2))
    np.testing.assert_allclose(process.log_invariant(Z), stats.multivariate_normal(np.zeros(2)).logpdf(Z), rtol=1e-12)
    for t in (1e-3, 0.5, 3.0):
        there, back = process.log_heat_kernel(Z, W, t), process.log_heat_kernel(W, Z, t)
        # k / pi is symmetric, k is not
        np.testing.assert_allclose(there - process.log_invariant(W), back - process.log_invariant(Z), rtol=1e-10,
                                   atol=1e-10)
        assert np.abs(there - back).max() > 0.1
    np.testing.assert_allclose(process.log_heat_kernel(Z, W, 100.0), process.log_invariant(W), rtol=1e-13)
    assert np.array_equal(process.drift(Z), -0.5 * Z)
    assert process.volume == np.inf and process.smallest_eigenvalue == 1.0 and process.has_drift
    # tiny times keep their digits
    assert process.flow(Z, 1e-18)[1] == 1e-18
    assert pickle.loads(pickle.dumps(process)) == process and from_name("ornstein_uhlenbeck", 2) == process
    for dim in (0, 1.5, "2"):
        with pytest.raises(ValueError, match="dim"):
            OrnsteinUhlenbeck(dim)


def test_ou_flow_is_a_semigroup():
    """Where, and how wide, after s and then t: what s + t says at once; one time per row too."""
    process, Z = OrnsteinUhlenbeck(2), np.array([[1.0, -2.0], [0.5, 3.0]])
    where, width = process.flow(Z, 0.3)
    later, more = process.flow(where, 0.9)
    at_once, total = process.flow(Z, 1.2)
    np.testing.assert_allclose(later, at_once, rtol=4 * EPS)
    assert np.exp(-0.9) * width + more == pytest.approx(total, rel=4 * EPS)
    rows, widths = process.flow(Z, np.array([0.3, 1.2]))
    assert np.array_equal(rows, [where[0], at_once[1]]) and np.array_equal(widths, [width, total])


@pytest.mark.parametrize("t", [0.02, 0.5, 3.0])
def test_ou_forward_equation(t):
    """dk/dt = (1/2) k'' + (1/2) (y k)', the Fokker-Planck equation of dX = -X/2 dt + dB, by differences."""
    process, x = OrnsteinUhlenbeck(1), 0.8
    width = np.sqrt(-np.expm1(-t))
    for y in x * np.exp(-0.5 * t) + width * np.array([-1.5, 0.2, 1.1]):
        def k(y, t):
            return float(np.exp(process.log_heat_kernel(np.array([[x]]), np.array([[y]]), t)[0]))
        h = 2e-3
        rate = difference(lambda e, y=y, k=k: k(y, t * (1 + e)), h) / t
        first = difference(lambda e, y=y, k=k: k(y + e * width, t), h) / width
        second = difference(lambda e, y=y, k=k: difference(lambda u: k(y + (e + u) * width, t), 1e-2), 1e-2) / width**2
        assert rate == pytest.approx(0.5 * second + 0.5 * (k(y, t) + y * first), abs=1e-6 * k(y, t) / t)


def test_ou_score_divergence_and_samples():
    rng = np.random.default_rng(2)
    X, Q = rng.standard_normal((10, 2)), rng.standard_normal((4, 2))
    est = RDKSEstimator(OrnsteinUhlenbeck(2), bandwidth=0.5).fit(X)
    for q, s, div in zip(Q, est.score_field(Q), est.score_divergence(Q), strict=True):
        slope = [difference(lambda k, q=q, e=e: est.score_samples((q + k * e)[None])[0], 1e-3) for e in np.eye(2)]
        np.testing.assert_allclose(s, slope, atol=1e-8)
        bend = sum(difference(lambda k, q=q, e=e: est.score_field((q + k * e)[None])[0] @ e, 1e-3) for e in np.eye(2))
        assert div == pytest.approx(bend, abs=1e-7)
    process, n, t = OrnsteinUhlenbeck(2), 20000, 0.7
    Y = heat_sample(process, np.tile([2.0, -1.0], (n, 1)), t, rng)
    spread = np.sqrt(-np.expm1(-t))
    assert np.abs(Y.mean(axis=0) - np.exp(-0.5 * t) * np.array([2.0, -1.0])).max() < 5 * spread / np.sqrt(n)
    assert np.abs(Y.var(axis=0) / spread**2 - 1).max() < 5 * np.sqrt(2 / n)
    # standardised data keep their variance
    X = rng.standard_normal((5000, 1))
    Y = RDKSEstimator(OrnsteinUhlenbeck(1), bandwidth=0.8).fit(X).sample(20000, random_state=0)
    assert Y.var() == pytest.approx(1.0, abs=0.06)
