"""SPD matrices with the affine-invariant metric, against geomstats, exact integrals, differences and exact means."""
import pickle
from fractions import Fraction
from math import comb, gamma, pi

import mpmath as mp
import numpy as np
import pytest
from scipy.linalg import eigvalsh

from rdks import RDKSEstimator, heat
from rdks.errors import AccuracyWarning, PointError
from rdks.manifolds import SPD, load_geomstats
from rdks.manifolds.spd import AffineInvariantPlane, AffineInvariantSPD, _determinant, _plane, _spread
from rdks.pairs import PairSum

EPS = np.finfo(float).eps
AFFINE = [SPD(n, metric="affine_invariant") for n in (1, 2, 3, 4)]
space = pytest.mark.parametrize("space", AFFINE, ids=repr)


def matrices(rng, count, n, condition=10.0):
    """Random SPD matrices with eigenvalues spread over a factor of `condition`."""
    Q = np.linalg.qr(rng.standard_normal((count, n, n)))[0]
    lam = np.exp(rng.uniform(-0.5, 0.5, (count, n)) * np.log(condition))
    X = (Q * lam[:, None, :]) @ np.swapaxes(Q, 1, 2)
    return 0.5 * (X + np.swapaxes(X, 1, 2))


def logs(X, Y):
    """Logarithms of the eigenvalues of X^{-1} Y, by another algorithm."""
    return np.array([np.log(eigvalsh(y, x)) for x, y in zip(X, Y, strict=True)])


# geometry


@space
def test_distances_are_those_of_the_eigenvalues(space, rng):
    X, Y = matrices(rng, 20, space.n), matrices(rng, 20, space.n)
    Z, W = space.embed(X), space.embed(Y)
    np.testing.assert_allclose(space.dist(Z, W), np.linalg.norm(logs(X, Y), axis=1), rtol=1e-13)
    g = rng.standard_normal((space.n, space.n))
    np.testing.assert_allclose(space.dist(space.embed(g @ X @ g.T), space.embed(g @ Y @ g.T)), space.dist(Z, W),
                               rtol=1e-12)
    np.testing.assert_allclose(space.dist(space.embed(np.linalg.inv(X)), space.embed(np.linalg.inv(Y))),
                               space.dist(Z, W), rtol=1e-12)
    np.testing.assert_allclose(space.unembed(Z), X, rtol=1e-14, atol=1e-14)
    assert space.violation(X).max() == 0.0 and space.point_shape == (space.n, space.n)
    np.testing.assert_array_equal(space.embed(X.reshape(20, -1)), Z)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_exp_and_log_of_geomstats(n, rng):
    load_geomstats()
    from geomstats.geometry.spd_matrices import SPDAffineMetric, SPDMatrices

    theirs = SPDMatrices(n, equip=False)
    theirs.equip_with_metric(SPDAffineMetric)
    space = SPD(n, metric="affine_invariant")
    X, Y = matrices(rng, 8, n), matrices(rng, 8, n)
    Z, W = space.embed(X), space.embed(Y)
    V = space.log(Z, W)
    np.testing.assert_allclose(space.dist(Z, W), theirs.metric.dist(X, Y), rtol=1e-12)
    np.testing.assert_allclose(space.push_tangent(X, V), theirs.metric.log(Y, X), rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(np.linalg.norm(V, axis=1), theirs.metric.dist(X, Y), rtol=1e-12)
    np.testing.assert_allclose(space.unembed(space.exp(Z, V)), Y, rtol=1e-12, atol=1e-12)
    half = space.unembed(space.exp(Z, 0.5 * V))
    np.testing.assert_allclose(half, theirs.metric.exp(0.5 * theirs.metric.log(Y, X), X), rtol=1e-11, atol=1e-11)


@space
def test_tangent_vectors_have_riemannian_products(space, rng):
    X = matrices(rng, 6, space.n)
    Z = space.embed(X)
    E = space.frame(Z)
    assert E.shape == (6, space.dim, space.embed_dim) and space.dim == space.n * (space.n + 1) // 2
    pushed = np.stack([space.push_tangent(X, E[:, i]) for i in range(space.dim)], axis=1)
    np.testing.assert_allclose(pushed, np.swapaxes(pushed, 2, 3), atol=1e-13, rtol=0)
    inner = np.linalg.solve(X[:, None], pushed)  # X^{-1} V
    gram = np.einsum("naij,nbji->nab", inner, inner)
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(space.dim), gram.shape), atol=1e-12, rtol=0)
    V = 1e-5 * rng.standard_normal((6, space.embed_dim))
    moved = space.unembed(space.exp(Z, V)) - space.unembed(space.exp(Z, -V))
    np.testing.assert_allclose(moved / 2, space.push_tangent(X, V), atol=1e-13, rtol=0)
    np.testing.assert_array_equal(space.to_tangent(Z, V), V)
    np.testing.assert_array_equal(space.project(Z), Z)


def test_ill_conditioned_matrices(rng):
    """Condition 1e10 and beyond: the distance has the digits that the entries have."""
    plane, triple = SPD(2, metric="affine_invariant"), SPD(3, metric="affine_invariant")
    for condition in (1e5, 1e10, 1e14):
        a, b = 1.0, 1.0 - 2.0**-np.round(np.log2(condition))
        X = np.array([[a, b], [b, a]])  # exact in floats, eigenvalues 1 - b and 1 + b
        Y = np.array([[3 * a, b], [b, a]])
        with mp.workdps(60):
            det_x, det_y = (mp.mpf(M[0, 0]) * mp.mpf(M[1, 1]) - mp.mpf(M[0, 1]) ** 2 for M in (X, Y))
            trace = (mp.mpf(X[0, 0]) * mp.mpf(Y[1, 1]) + mp.mpf(X[1, 1]) * mp.mpf(Y[0, 0])
                     - 2 * mp.mpf(X[0, 1]) * mp.mpf(Y[0, 1])) / det_x
            root = mp.sqrt(trace**2 / 4 - det_y / det_x)
            want = float(mp.sqrt(mp.log(trace / 2 + root) ** 2 + mp.log(det_y / det_x / (trace / 2 + root)) ** 2))
        found = plane.dist(plane.embed(X[None]), plane.embed(Y[None]))[0]
        assert found == pytest.approx(want, rel=1e-14)
        # as a block of a 3 x 3 matrix: Cholesky factors know the small eigenvalue to EPS condition
        bordered = [np.block([[M, np.zeros((2, 1))], [np.zeros((1, 2)), np.eye(1)]])[None] for M in (X, Y)]
        assert triple.dist(*map(triple.embed, bordered))[0] == pytest.approx(want, rel=4 * EPS * condition)
        same = matrices(rng, 5, 3, condition)
        Z = triple.embed(same)
        assert triple.dist(Z, Z).max() < 20 * EPS * np.sqrt(condition)
    graded = np.diag([1e-12, 1.0, 1e12])
    Z = triple.embed(np.array([graded, np.e * graded]))
    assert triple.dist(Z[:1], Z[1:])[0] == pytest.approx(np.sqrt(3), rel=1e-13)
    Z = plane.embed(np.array([np.diag([1e-120, 1e150]), np.diag([1e150, 1e-120])]))
    assert plane.dist(Z[:1], Z[1:])[0] == pytest.approx(np.sqrt(2) * 270 * np.log(10), rel=1e-13)


@pytest.mark.parametrize("n", [3, 5])
def test_points_far_apart(n, rng):
    """Eigenvalues that differ by a factor of 1e39: singular values keep their own digits."""
    space = SPD(n, metric="affine_invariant")
    Z = np.concatenate([np.zeros((20, space.dim)), space.random(20, rng)])
    h = np.linspace(45.0, -45.0, n) + rng.uniform(-3, 3, (40, n))
    Q = np.linalg.qr(rng.standard_normal((40, n, n)))[0]
    V = space._coordinates((Q * h[:, None, :]) @ np.swapaxes(Q, 1, 2))
    W = space.exp(Z, V)
    np.testing.assert_allclose(space.dist(Z, W), np.linalg.norm(h, axis=1), rtol=1e-12)
    np.testing.assert_allclose(space.dist(W, Z), np.linalg.norm(h, axis=1), rtol=1e-12)
    np.testing.assert_allclose(space.log(Z, W), V, atol=1e-9, rtol=0)
    np.testing.assert_allclose(np.linalg.norm(space.log(W, Z), axis=1), np.linalg.norm(h, axis=1), rtol=1e-12)
    graded = np.diag([1e-30, 1.0, 1e30] + [1.0] * (n - 3))
    turned = np.diag([1e30, 1e-30, 1.0] + [1.0] * (n - 3))
    ends = space.embed(np.array([graded, turned]))
    assert space.dist(ends[:1], ends[1:])[0] == pytest.approx(np.log(1e30) * np.sqrt(6), rel=1e-13)
    log_k, grad, ratio = space.pair_kernel(Z[:5], W, 0.5, 2)
    assert np.isfinite(log_k).all() and np.isfinite(grad).all() and np.isfinite(ratio).all()
    # k_t depends on the sorted h alone
    want = space._log_kernel(-np.sort(-h, axis=1), 0.5, 0)[0]
    np.testing.assert_allclose(space.log_heat_kernel(Z, W, 0.5), want, rtol=1e-11)
    assert (space.dist(W, W) == 0).all()


def test_determinant(rng):
    a, c = rng.uniform(0.1, 1.0, (2, 200))
    b = np.sqrt(a * c) * (1 - 10.0 ** -rng.uniform(0, 16, 200))
    found = _determinant(a, b, c)
    exact = np.array([float(Fraction(x) * Fraction(z) - Fraction(y) ** 2) for x, y, z in zip(a, b, c, strict=True)])
    np.testing.assert_allclose(found, exact, rtol=4 * EPS)


# the heat kernel


def test_plane_is_the_exact_kernel_of_the_theory(rng):
    r"""n = 2: :math:`(2\pi t)^{-1/2}e^{-(h_1+h_2)^2/4t}\,\tfrac12p_{t/2}(|h_1-h_2|/2)`, McKean's integral for p."""
    space, general = SPD(2, metric="affine_invariant"), AffineInvariantSPD(2, "affine_invariant")
    assert type(space) is AffineInvariantPlane and space.exactness == "exact" and space.log_error(1.0) == 0.0
    X, Y = matrices(rng, 5, 2, 100.0), matrices(rng, 5, 2, 100.0)
    Y[0] = X[0]
    h = logs(X, Y)
    for t in (0.01, 0.5, 4.0):
        want = []
        with mp.workdps(25):
            for a, b in h:
                r, s = mp.mpf(abs(a - b)) / 2, mp.mpf(t) / 2

                def integrand(v, r=r, s=s):
                    x = 2 * mp.acosh(mp.cosh(r / 2) * mp.cosh(v))
                    half = mp.sqrt(mp.cosh(r / 2) ** 2 * mp.sinh(v) ** 2 + mp.sinh(r / 2) ** 2)
                    return (x / half if x else 2) * mp.exp((r * r - x * x) / (2 * s))
                top = mp.acosh(mp.cosh(mp.sqrt(r * r + 120 * s) / 2) / mp.cosh(r / 2))
                p = 2 * mp.exp(-s / 8) * (2 * mp.pi * s) ** mp.mpf(-1.5) * mp.quad(integrand, mp.linspace(0, top, 9))
                want.append(float(mp.log(p / 2) - r * r / (2 * s) - mp.mpf(a + b) ** 2 / (4 * t)
                                  - mp.log(2 * mp.pi * t) / 2))
        tol = dict(rtol=1e-12, atol=1e-12 + 1e-13 / t)
        np.testing.assert_allclose(space.log_heat_kernel(space.embed(X), space.embed(Y), t), want, **tol)
        # the formula for any n, with n = 2
        Z, W = general.embed(X), general.embed(Y)
        np.testing.assert_allclose(general.log_heat_kernel(Z, W, t), want, **tol)
        found = general.pair_kernel(Z, W, t, 2)
        one = RDKSEstimator(space, bandwidth=np.sqrt(t)).fit(Y[:1])
        np.testing.assert_allclose(one.score_field(X), general.push_tangent(X, found[1][:, 0]), rtol=1e-9,
                                   atol=1e-9 / t)
        np.testing.assert_allclose(one.score_divergence(X), (found[2] - (found[1] ** 2).sum(axis=-1))[:, 0],
                                   rtol=1e-8, atol=1e-9 / t**2)


def chamber(t, count=120):
    r"""Quadrature of functions of h with mean 0, over the chamber of SPD(3), with the affine-invariant volume.

    The volume of matrices of eigenvalues h is :math:`C\prod|h_i-h_j|dh`, C by Mehta's integral; here
    :math:`2\sinh(\delta/2)` takes the place of :math:`\delta`. The direction of the trace is integrated exactly.
    """
    C = 6 * (2 * pi) ** (3 - 1.5) / np.prod([gamma(1 + j / 2) / gamma(1.5) for j in (1, 2, 3)])
    x, w = np.polynomial.legendre.leggauss(count)
    top = t + 13 * np.sqrt(t)
    x, w = 0.5 * top * (x + 1), 0.5 * top * w
    a, b = (v.ravel() for v in np.meshgrid(x, x))
    h = np.column_stack([2 * a + b, b - a, -a - 2 * b]) / 3
    sinh = 2 * np.sinh(a / 2) * 2 * np.sinh(b / 2) * 2 * np.sinh((a + b) / 2)
    return h, C * np.outer(w, w).ravel() / np.sqrt(3) * np.sqrt(2 * pi * t) * sinh


@pytest.mark.parametrize("t", [0.05, 0.5, 2.0, 10.0])
def test_mass_and_the_growth_of_the_trace(t):
    """The mass is 1 and E tr X^{-1} Y = 3 exp(t), up to the error of the kernel, which is t^2/1920 as t -> 0."""
    space = SPD(3, metric="affine_invariant")
    h, weight = chamber(t)
    k = np.exp(space._log_kernel(h, t, 0)[0]) * weight
    mass = k.sum()
    assert -space.log_error(t) < mass - 1 < 0
    trace = (k * np.exp(h).sum(axis=1)).sum() * np.exp(t / 6) / (3 * np.exp(t))
    assert abs(trace - mass) < 0.2 * space.log_error(t)
    if t == 0.05:
        assert (mass - 1) / t**2 * 1920 == pytest.approx(-1, abs=0.03)  # O(t)


def exact_peak(n, t, count=48):
    r"""Log of k_t(X, X), Harish-Chandra: the mean of :math:`\prod\tanh\pi|\lambda_i-\lambda_j|` over the law

    :math:`e^{-|\lambda|^2t/2}\prod|\lambda_i-\lambda_j|`, times :math:`(2\pi t)^{-m/2}e^{-n(n^2-1)t/96}`.
    """
    x, w = np.polynomial.legendre.leggauss(count)
    x, w = 6 * (x + 1), 6 * w  # gaps of ordered eigenvalues, in units of t^{-1/2}
    gaps = np.stack([v.ravel() for v in np.meshgrid(*[x] * (n - 1), indexing="ij")], axis=1)
    weight = np.prod(np.meshgrid(*[w] * (n - 1), indexing="ij"), axis=0).ravel()
    lam = np.concatenate([np.zeros((len(gaps), 1)), np.cumsum(gaps, axis=1)], axis=1)
    lam -= lam.mean(axis=1, keepdims=True)
    i, j = np.triu_indices(n, 1)
    apart = lam[:, j] - lam[:, i]
    law = weight * np.exp(-0.5 * (lam**2).sum(axis=1)) * apart.prod(axis=1)
    mean = (law * np.tanh(pi * apart / np.sqrt(t)).prod(axis=1)).sum() / law.sum()
    # for n = 4 the nodes are few: 1e-9
    return np.log(mean) - 0.25 * n * (n + 1) * np.log(2 * pi * t) - n * (n * n - 1) / 96 * t


@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("t", [0.1, 0.5, 2.0, 10.0, 60.0])
def test_peak_against_the_exact_one(n, t):
    space = AffineInvariantSPD(n, "affine_invariant")
    found = space._log_kernel(np.zeros(n), t, 0)[0] - exact_peak(n, t, 48 if n == 4 else 200)
    if n == 2:
        assert abs(found) < 1e-10
    else:
        error = space.log_error(t)
        assert -1.002 * error - 1e-7 < found < -0.85 * error + 1e-7  # an estimate, not only a bound


@pytest.mark.parametrize("n", [3, 4, 5])
def test_residual_of_the_heat_equation(n):
    r"""At the peak :math:`(\partial_tk-\tfrac12\Delta k)/k` is :math:`-\binom n3t/960`: what the error grows by."""
    space = SPD(n, metric="affine_invariant")
    h = 1e-2 * np.arange(n)[::-1]
    for t in (0.1, 0.2):
        step = 1e-3 * t
        ratio = space._log_kernel(h, t, 2)[2]
        k = {c: space._log_kernel(h, t + c * step, 0)[0] for c in (-2, -1, 1, 2)}
        rate = (8 * (k[1] - k[-1]) - k[2] + k[-2]) / (12 * step)
        assert rate - 0.5 * ratio == pytest.approx(-comb(n, 3) * t / 960, rel=0.05 * n * t + 0.03)


@pytest.mark.parametrize("n", [3, 4])
@pytest.mark.parametrize("t", [0.05, 1.0])
def test_slopes_are_those_along_geodesics(n, t, rng):
    space = SPD(n, metric="affine_invariant")
    X = space.embed(matrices(rng, 4, n))
    Y = space.embed(np.concatenate([matrices(rng, 4, n), space.unembed(X[:1]), 2 * space.unembed(X[1:2])]))
    spread = np.zeros(space.dim)
    spread[0] = 1.0  # with Y: one eigenvalue apart, the others equal
    Y = np.concatenate([Y, space.exp(X[2:3], spread[None])])
    log_k, grad, ratio = space.pair_kernel(X, Y, t, 2)
    np.testing.assert_array_equal(space.pair_kernel(X, Y, t, 1)[1], grad)
    assert space.pair_kernel(X, Y, t, 0)[1:] == (None, None) and space.pair_kernel(X, Y, t, 1)[2] is None
    for i in range(len(Y)):
        np.testing.assert_allclose(space.log_heat_kernel(X, np.broadcast_to(Y[i], X.shape), t), log_k[:, i],
                                   rtol=1e-13, atol=1e-13)
    step = 2e-3 * np.sqrt(t)
    size = 1 / np.sqrt(t) + np.abs(grad).max()
    noise = 1e-13 * (1 + np.abs(log_k).max())
    total = np.zeros_like(log_k)
    for E in np.swapaxes(space.frame(X), 0, 1):
        ahead, back, ahead2, back2 = (space.pair_kernel(space.exp(X, c * step * E), Y, t, 0)[0] for c in (1, -1, 2, -2))
        slope = (8 * (ahead - back) - (ahead2 - back2)) / (12 * step)
        # log k bends on the scale of the curvature: a fifth derivative of the order 1 / t
        tol = step**4 * size**2 + 2 * noise / step
        np.testing.assert_allclose(slope, np.einsum("qnm,qm->qn", grad, E), atol=tol, rtol=0)
        total += (16 * (ahead + back) - (ahead2 + back2) - 30 * log_k) / (12 * step**2)
    square = np.einsum("qnm,qnm->qn", grad, grad)
    tol = space.dim * (step**4 * size**2 + 6 * noise / step**2)
    np.testing.assert_allclose(total, ratio - square, atol=tol, rtol=0)


def test_laplacian_where_eigenvalues_nearly_meet():
    """Either side of the switch from coth(r) (f_i - f_j) to its limit."""
    space = SPD(4, metric="affine_invariant")
    base = np.array([1.5, 0.2, 0.0, 0.0])
    for t in (0.03, 1.0):
        values = [space._log_kernel(base + gap * np.array([0, 0, 0.5, -0.5]), t, 2)[2]
                  for gap in (0.0, 0.9e-5, 1.1e-5, 1e-3)]
        scale = 1 + np.abs(values[0])
        # the limit is wrong by gap^2, the difference by rounding / gap
        np.testing.assert_allclose(values[:3], values[0], atol=1e-9 * scale, rtol=0)
        assert abs(values[3] - values[0]) < 1e-5 * scale


def test_plane_table(rng):
    """Chebyshev series against the function itself and its exact slopes, up to where it has fallen to exp(-250)."""
    for t in (1e-6, 1e-2, 1.0, 50.0):
        for reach in (0.0, 3.9, 40.0, 500.0):
            r = np.concatenate([[0.0, 1e-9, 1e-3], rng.uniform(0, max(reach, 1e-9), 50), [reach]])
            value, first, second = _plane(r, t, 2)
            exact = heat.log_hyperbolic(r, t, 2)
            np.testing.assert_allclose(value, exact, atol=2e-14 * (10 + np.abs(exact).max()), rtol=0)
            assert (_plane(r, t, 0)[0] == value).all() and _plane(r, t, 0)[1:] == (None, None)
            slope, laplacian = heat.hyperbolic_slopes(r, t, 2)
            want = 2 * np.sinh(r) * slope + r / t
            np.testing.assert_allclose(first, want, atol=1e-11 + 1e-14 * reach + 2e-12 * r.max() / t, rtol=0)
            near = r < 3
            bend = laplacian - (2 * np.sinh(r) * slope) ** 2 - 2 * np.cosh(r) * slope + 1 / t
            np.testing.assert_allclose(second[near], bend[near], atol=1e-8 + 1e-13 * (3 / t) ** 2, rtol=0)


@space
def test_isometries_leave_the_kernel_alone(space, rng):
    X, Y = matrices(rng, 6, space.n), matrices(rng, 6, space.n)
    g = rng.standard_normal((space.n, space.n))
    for t in (0.05, 2.0):
        want = space.log_heat_kernel(space.embed(X), space.embed(Y), t)
        for move in (lambda M: g @ M @ g.T, np.linalg.inv):
            found = space.log_heat_kernel(space.embed(move(X)), space.embed(move(Y)), t)
            # moving and inverting rounds the matrices, relative to a condition number that is squared
            np.testing.assert_allclose(found, want, rtol=1e-9, atol=1e-9)
        back = space.log_heat_kernel(space.embed(Y), space.embed(X), t)
        np.testing.assert_allclose(back, want, rtol=1e-12, atol=1e-12)


def test_kernel_is_finite_everywhere(rng):
    space = SPD(3, metric="affine_invariant")
    X = space.embed(np.concatenate([matrices(rng, 5, 3), matrices(rng, 5, 3, 1e10)]))
    Y = np.concatenate([X, space.embed(np.array([np.diag([1e-9, 1.0, 1e9]), 1e100 * np.eye(3)]))])
    for t in (1e-8, 1e-3, 1.0, 200.0):
        log_k, grad, ratio = space.pair_kernel(X, Y, t, 2)
        assert np.isfinite(log_k).all() and np.isfinite(grad).all() and np.isfinite(ratio).all()
        np.testing.assert_allclose(log_k, space.pair_kernel(Y, X, t, 0)[0].T, rtol=1e-5, atol=1e-10)


@pytest.mark.parametrize("n", [5, 8])
def test_times_that_are_refused(n):
    space = SPD(n, metric="affine_invariant")
    Z = np.zeros((1, space.dim))
    with pytest.raises(ValueError, match="metric='log_euclidean'"):
        space.log_heat_kernel(Z, Z, 2000.0)
    with pytest.raises(ValueError, match="positive"):
        space.pair_kernel(Z, Z, 0.0, 0)


@space
def test_constants(space):
    assert space.log_volume == np.inf and space.volume == np.inf and space.injectivity_radius == np.inf
    assert space.smallest_eigenvalue == 0.0 and space.is_homogeneous
    n = space.n
    assert space.scalar_curvature == pytest.approx(-n * (n - 1) * (n + 2) / 8)
    # k_t(x, x) (2 pi t)^{m/2} = 1 + t scal / 12 + ...
    Z, t = space.embed(np.eye(n)[None]), 1e-3
    peak = space.log_heat_kernel(Z, Z, t)[0] + 0.5 * space.dim * np.log(2 * pi * t)
    assert peak / t == pytest.approx(space.scalar_curvature / 12, abs=n**4 * 1e-5)


# samples


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("t", [0.05, 0.6, 2.0])
def test_means_of_samples_grow_as_eigenfunctions_do(n, t, rng):
    r"""With A = X^{-1} Y: E tr A = n exp((n+1) t/4), the same for the inverse, E det A^a = exp(n a^2 t/2)."""
    from rdks.sampling import heat_sample

    space, count = SPD(n, metric="affine_invariant"), 20000
    x = matrices(rng, 1, n)
    Z = np.repeat(space.embed(x), count, axis=0)
    Y = space.unembed(heat_sample(space, Z, t, rng))
    A = np.linalg.solve(x, Y)
    log_det = np.linalg.slogdet(A)[1]
    trace, inverse = np.einsum("nii->n", A), np.einsum("nii->n", np.linalg.inv(A))
    growth = n * np.exp(0.25 * (n + 1) * t)
    for value, want in ((trace, growth), (inverse, growth), (log_det, 0.0), (log_det**2, n * t),
                        (np.exp(0.5 * log_det), np.exp(n * t / 8)), (A[:, 0, 0], growth / n)):
        # besides: the law of the steps is that of a kernel that is off by log_error at most
        slack = want * space.log_error(min(t, 4 / n)) * np.ceil(t * n / 4)
        assert abs(value.mean() - want) < 4.5 * value.std() / np.sqrt(count) + slack
    if n > 2:
        same = space.heat_sample(Z[:4], np.array([0.0, t, 0.0, t]), rng)
        np.testing.assert_array_equal(same[::2], Z[:4:2])
        assert (same[1::2] != Z[1:4:2]).all()


def test_radial_law_of_samples(rng):
    """The gaps of the eigenvalues against the quadrature over the chamber: what rejection must get right."""
    space, t, count = SPD(3, metric="affine_invariant"), 1.3, 40000
    Y = space.heat_sample(np.zeros((count, 6)), t, rng)
    h = np.sort(np.log(np.linalg.eigvalsh(space.unembed(Y))), axis=1)
    nodes, weight = chamber(t)
    k = np.exp(space._log_kernel(nodes, t, 0)[0]) * weight
    k /= k.sum()
    for f in (lambda h: h.max(axis=1) - h.min(axis=1), lambda h: np.exp(-np.diff(np.sort(h, axis=1), axis=1)[:, 0]),
              lambda h: ((h - h.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)):
        found = f(h)
        assert abs(found.mean() - k @ f(nodes)) < 4.5 * found.std() / np.sqrt(count)


def test_the_bound_of_the_rejection_holds():
    """The logarithm of the weight is concave in r^2, so that its tangent lies above it."""
    for t in (1e-3, 0.1, 0.4, 4 / 3):
        q = np.linspace(1e-6, 400, 4000)
        value, slope = _spread(np.sqrt(q), t)
        assert np.diff(value, 2).max() < 1e-11
        np.testing.assert_allclose(slope, np.gradient(value, np.sqrt(q), edge_order=2), atol=2e-3, rtol=0)
        for at in (0.01, 1.0, 30.0):
            middle, tilt = _spread(np.array([np.sqrt(at)]), t)
            assert (value - middle - tilt / (2 * np.sqrt(at)) * (q - at)).max() < 1e-11
    near = np.array([0.0, 1e-5, 0.99e-4, 1.01e-4, 1e-3])
    value, slope = _spread(near, 0.5)  # a multiple of r^2 + O(r^4)
    np.testing.assert_allclose(value - value[0], 0.5 * slope * near, atol=1e-13, rtol=0)


# the class


def test_dispatch():
    flat, plane, many = SPD(3), SPD(2, metric="affine_invariant"), SPD(3, metric="affine_invariant")
    assert type(flat) is SPD and type(plane) is AffineInvariantPlane and type(many) is AffineInvariantSPD
    assert type(SPD(1, metric="affine_invariant")) is SPD
    same = SPD(np.int64(3), "affine_invariant")
    assert flat != many and many == same and hash(many) == hash(same)
    for each in (flat, plane, many):
        assert pickle.loads(pickle.dumps(each)) == each and type(pickle.loads(pickle.dumps(each))) is type(each)
        assert eval(repr(each), {"SPD": SPD}) == each
    assert (many.kernel, many.exactness, many.factors()) == ("pairs", "asymptotic", ())
    assert (plane.kernel, plane.exactness, len(plane.factors())) == ("factors", "exact", 2)
    with pytest.raises(ValueError, match="^metric = 'affine' is not one of"):
        SPD(3, metric="affine")
    for bad in (0, 2.5, "3", None):
        with pytest.raises(ValueError, match="^n = "):
            SPD(bad, metric="affine_invariant")


@space
def test_bad_points(space):
    n = space.n
    bad = [-np.eye(n), np.zeros((n, n)), np.diag([1.0] * (n - 1) + [-1e-3])]
    Z = space.embed(np.array([np.eye(n), *bad]))
    assert np.isfinite(Z[0]).all() and np.isnan(Z[1:]).any(axis=1).all()
    with pytest.raises(PointError, match=r"X\[1\] is not on SPD.*eigenvalue"):
        RDKSEstimator(space, bandwidth=0.5).fit(np.array([np.eye(n), bad[2]]))
    if n > 1:
        skewed = np.eye(n)
        skewed[0, 1] = 0.1
        with pytest.raises(PointError, match="asymmetry"):
            RDKSEstimator(space, bandwidth=0.5).fit(np.array([np.eye(n), skewed]))


def test_estimator_warns_and_is_the_sum_of_kernels(rng):
    space = SPD(3, metric="affine_invariant")
    X, Q = matrices(rng, 30, 3), matrices(rng, 6, 3)
    with pytest.warns(AccuracyWarning, match="1.3e-05"):
        est = RDKSEstimator(space, bandwidth=0.4).fit(X)
    total = PairSum(space, space.embed(X), np.ones(30), 0.16).evaluate(space.embed(Q), 0.0, 1)
    np.testing.assert_allclose(est.score_samples(Q), total.log_density, rtol=1e-12)
    np.testing.assert_allclose(est.score_field(Q), space.push_tangent(Q, total.gradient), rtol=1e-10, atol=1e-12)
    assert est.sample(4, random_state=0).shape == (4, 3, 3)
    with pytest.warns(AccuracyWarning):
        chosen = RDKSEstimator(space).fit(X)
    assert 0.05 < chosen.bandwidth_ < 2
