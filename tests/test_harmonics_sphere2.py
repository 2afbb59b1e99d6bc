"""Spherical harmonics against scipy, mpmath, sums written out and the exact heat kernel."""
from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest
from scipy.special import sph_harm_y

from rdks import _twins, engines
from rdks.harmonics import degree_for, sphere2
from rdks.harmonics.sphere2 import SphericalHarmonics
from rdks.manifolds import ProjectiveSpace, Sphere


def unit(x):
    return x / np.linalg.norm(x, axis=1)[:, None]


def layouts(rng):
    """Points of the unit sphere, 12 or so in each layout."""
    angle = rng.uniform(-np.pi, np.pi, 12)
    zero, poles = np.zeros(12), np.array([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]])
    near = unit(np.column_stack([1e-9 * rng.standard_normal((12, 2)), np.tile([1.0, -1.0], 6)]))
    return {"random": unit(rng.standard_normal((12, 3))),
            "poles": np.tile(poles, (6, 1)),
            "near poles": near,
            "equal": np.repeat(unit(rng.standard_normal((1, 3))), 12, axis=0),
            "meridian": np.column_stack([np.sin(angle) * np.cos(2.0), np.sin(angle) * np.sin(2.0), np.cos(angle)]),
            # longitudes 0, -0, pi, -pi and next to them
            "seam": unit(np.column_stack([np.tile([1.0, -1.0], 6), np.tile([0.0, -0.0, 1e-18, -1e-18], 3),
                                          rng.standard_normal(12)])),
            "equator": np.column_stack([np.cos(angle), np.sin(angle), zero])}


def written_out(h, Z, weight):
    """C_lm = sum_i w_i conj(Y_lm(Z_i)) / R for m >= 0, over both of +-Z_i where only even levels are kept."""
    theta, phi = np.arctan2(np.hypot(Z[:, 0], Z[:, 1]), Z[:, 2]), np.arctan2(Z[:, 1], Z[:, 0])
    Y = [sph_harm_y(n, m, theta, phi) for n in range(0, h.degree + 1, 2 if h.even else 1) for m in range(n + 1)]
    return (2 if h.even else 1) * (np.conj(Y) @ weight) / h.radius


def doubled(h, coef):
    """Coefficients times 1 where m = 0 and 2 elsewhere: what the real part of a sum over m >= 0 wants."""
    m = np.concatenate([np.arange(n + 1) for n in range(0, h.degree + 1, 2 if h.even else 1)])
    return coef * np.where(m > 0, 2.0, 1.0)


def random_functions(h, count, rng):
    a = rng.standard_normal((count, *h.shape)) + 1j * rng.standard_normal((count, *h.shape))
    a[:, doubled(h, np.ones(h.shape)) == 1] = a[:, doubled(h, np.ones(h.shape)) == 1].real
    return a


@pytest.mark.parametrize("even", [False, True])
@pytest.mark.parametrize("degree", [0, 1, 2, 5, 60])
def test_sums_and_values_are_those_written_out(degree, even):
    rng = np.random.default_rng(degree)
    h = SphericalHarmonics(degree, radius=1.7, even=even)
    for name, X in layouts(rng).items():
        Z, weight = 1.7 * X, rng.uniform(0.1, 1.0, len(X))
        want = written_out(h, Z, weight)
        got = h.analyse(Z, weight, 1e-14)
        assert got.shape == h.shape and np.abs(got - want).max() < 1e-13 * np.abs(want).max(), name
        if name in ("random", "near poles"):
            for count in (1, 4, 6):  # groups of four functions, and less
                a = random_functions(h, count, rng)
                want = np.array([(np.conj(written_out(h, z[None], np.ones(1))) * doubled(h, a)).real.sum(1) for z in Z])
                want = want.T / (2 if even else 1)
                got = h.synthesise(a, Z, 1e-14)
                assert got.shape == (count, len(Z)) and np.abs(got - want).max() < 2e-13 * np.abs(want).max(), name


@pytest.mark.parametrize("eps, bound", [(1e-6, 1e-6), (1e-9, 2e-9), (1e-12, 1e-12)])
def test_accuracy_is_what_is_asked(eps, bound):
    """Of functions with a flat spectrum too, relative to their largest value."""
    rng = np.random.default_rng(0)
    h = SphericalHarmonics(80)
    Z, a = unit(rng.standard_normal((400, 3))), random_functions(h, 4, rng)
    want = h.synthesise(a, Z, 1e-15)
    error = np.abs(h.synthesise(a, Z, eps) - want).max() / np.abs(want).max()
    assert error < bound
    if eps > 1e-10:
        assert error > 1e-3 * eps  # no more work than asked


def exact(m, levels, theta):
    """Normalised associated Legendre functions of one order by the recurrence at 60 digits."""
    with mp.workdps(60):
        x = mp.cos(mp.mpf(theta))
        now = (-1)**m * mp.sqrt((2 * m + 1) / (4 * mp.pi))
        for k in range(1, m + 1):
            now *= mp.sqrt(mp.mpf(2 * k - 1) / (2 * k)) * mp.sin(mp.mpf(theta))
        before, out, n = mp.mpf(0), {m: float(now)}, m
        eps = [mp.sqrt(mp.mpf(k * k - m * m) / (4 * k * k - 1)) for k in range(m, levels[-1] + 2)]
        while n < levels[-1]:
            before, now = now, (x * now - eps[n - m] * before) / eps[n + 1 - m]
            n += 1
            out[n] = float(now)
    return [out[n] for n in levels]


@pytest.mark.parametrize("degree, even", [(300, False), (1000, False), (1000, True)])
def test_high_degrees_have_no_underflow(degree, even):
    """sin^m underflows on most rings; every kind of order is compared."""
    h = SphericalHarmonics(degree, even=even)
    for theta in (0.02, 0.7, 1.5, 3.1):
        C = h.analyse(np.array([[np.sin(theta), 0.0, np.cos(theta)]]), np.ones(1), 1e-14)
        for m in (0, 1, 6, degree // 4, degree // 2, 7 * degree // 8, degree):
            levels = [n for n in (m, m + 1, m + 2, (m + degree) // 2, degree - 1, degree)
                      if m <= n <= degree and not (even and n % 2)]
            place = [(n // 2)**2 + m if even else n * (n + 1) // 2 + m for n in levels]
            want = np.array(exact(m, sorted(levels), theta)) * (2 if even else 1)
            assert np.abs(C[np.sort(place)] - want).max() < 2e-12, (theta, m)


@pytest.mark.parametrize("even", [False, True])
@pytest.mark.parametrize("degree", [7, 40, 333])
def test_sums_are_the_transpose_of_values(degree, even):
    rng = np.random.default_rng(degree)
    h = SphericalHarmonics(degree, radius=0.3, even=even)
    Z, weight = 0.3 * unit(rng.standard_normal((50, 3))), rng.standard_normal(50)
    a, C = random_functions(h, 3, rng), h.analyse(Z, weight, 1e-13)
    got = (np.conj(doubled(h, a)) @ C).real / (2 if even else 1)
    want = h.synthesise(a, Z, 1e-13) @ weight
    np.testing.assert_allclose(got, want, atol=1e-11 * np.abs(want).max())


def test_addition_theorem():
    """The power of one point is (2l + 1) / area at each level."""
    rng = np.random.default_rng(1)
    for even in (False, True):
        h = SphericalHarmonics(300, radius=2.0, even=even)
        for x in (2 * unit(rng.standard_normal((1, 3))), np.array([[0.0, 0.0, -2.0]])):
            want = h.multiplicity / (16 * np.pi) * (4 if even else 1)
            np.testing.assert_allclose(h.power(h.analyse(x, np.ones(1), 1e-13)), want, rtol=1e-11)


@pytest.mark.parametrize("manifold", [Sphere(2), Sphere(2, radius=6371.0), ProjectiveSpace(2)], ids=str)
@pytest.mark.parametrize("eps", [1e-9, 1e-12])
def test_heat_flow_is_that_of_the_exact_sum(manifold, eps, monkeypatch):
    """Density, gradient and Laplacian, in units of the peak, peak / sqrt(t) and peak / t."""
    monkeypatch.setattr(engines, "_kernels", lambda pairs: _twins)  # the small sums need no compiling
    rng = np.random.default_rng(2)
    factor = manifold.factors()[0]
    R = factor.radius
    queries = R * np.concatenate([unit(rng.standard_normal((30, 3))), *layouts(rng).values()])
    for t in R**2 * np.array([0.003, 0.03, 0.3, 3.0]):
        h = SphericalHarmonics(degree_for(factor, t, eps), R, even=manifold.antipodal)
        peak = np.exp(manifold.log_heat_kernel(queries[:1], queries[:1], t)[0])
        for name, X in layouts(rng).items():
            weight = rng.uniform(0.1, 1.0, len(X))
            direct = engines.DirectSum(manifold, R * X, weight, t).evaluate(queries, order=2)
            p = np.exp(direct.log_density)
            slope = p[:, None] * direct.gradient
            bend = p * (direct.laplacian + (direct.gradient**2).sum(1))
            C = h.analyse(R * X, weight / weight.sum(), eps) * h.spread(np.exp(-0.5 * t * h.eigenvalue))
            v = h.synthesise(np.array([C, *h.fields(C), C * h.spread(-h.eigenvalue)]), queries, eps)
            assert np.abs(v[0] - p).max() < 3 * eps * peak, name
            assert np.abs(h.gradient(queries, v[1:4]) - slope).max() < 3 * eps * peak / np.sqrt(t), name
            assert np.abs(v[4] - bend).max() < 5 * eps * peak / t, name


def test_gradient_of_a_linear_function():
    """c . x has the gradient c - (c . x) x / R^2, at poles too."""
    c, R = np.array([0.3, -0.7, 1.1]), 5.0
    h = SphericalHarmonics(1, radius=R)
    # the even quadrature of the six points +-e_j is exact for degrees up to 3
    nodes = R * np.concatenate([np.eye(3), -np.eye(3)])
    C = h.analyse(nodes, nodes @ c * 4 * np.pi * R**2 / 6, 1e-14)
    for X in layouts(np.random.default_rng(3)).values():
        v = h.synthesise(np.array([C, *h.fields(C)]), R * X, 1e-14)
        np.testing.assert_allclose(v[0], R * X @ c, atol=1e-12)
        np.testing.assert_allclose(h.gradient(R * X, v[1:]), c - (X @ c)[:, None] * X, atol=1e-12)


@pytest.mark.parametrize("even", [False, True])
def test_threads_and_chunks_change_nothing(even, monkeypatch):
    rng = np.random.default_rng(4)
    h = SphericalHarmonics(30, even=even)
    Z, weight = unit(rng.standard_normal((1000, 3))), rng.random(1000)
    Z[:4] = [[1.0, 0.0, 0.0], [1.0, -1e-300, 0.0], [1.0, -1e-17, 0.0], [-1.0, 0.0, 0.0]]
    C = h.analyse(Z, weight, 1e-12)
    batch = np.array([C, *h.fields(C), C])
    values = h.synthesise(batch, Z, 1e-12)
    monkeypatch.setattr(sphere2, "CHUNK", 300)
    for n_threads in (1, 3, 40):
        np.testing.assert_allclose(h.analyse(Z, weight, 1e-12, n_threads), C, atol=1e-12 * np.abs(C).max())
        again = h.synthesise(batch, Z, 1e-12, n_threads)
        np.testing.assert_allclose(again, values, atol=1e-12 * np.abs(values).max())
    nothing = h.analyse(Z[:0], weight[:0], 1e-12)
    assert not nothing.any() and h.synthesise(batch, Z[:0], 1e-12).shape == (5, 0)


@pytest.mark.parametrize("even", [False, True])
def test_lower_degree(even):
    rng = np.random.default_rng(5)
    h = SphericalHarmonics(12, radius=2.0, even=even)
    Z, weight = 2 * unit(rng.standard_normal((9, 3))), rng.random(9)
    lower, C = h.restrict(7, h.analyse(Z, weight, 1e-14))
    assert lower == SphericalHarmonics(7, radius=2.0, even=even) and lower != h and C.shape == lower.shape
    np.testing.assert_allclose(C, lower.analyse(Z, weight, 1e-14), atol=1e-13)
    assert lower.degree == (6 if even else 7)
    np.testing.assert_allclose(lower.eigenvalue, [n * (n + 1) / 4 for n in range(0, 8, 2 if even else 1)])


def test_nan_is_refused():
    h, Z = SphericalHarmonics(3), np.array([[0.0, 0.0, 1.0], [0.0, np.nan, 1.0]])
    with pytest.raises(ValueError, match="NaN"):
        h.analyse(Z, np.ones(2), 1e-9)
    with pytest.raises(ValueError, match="NaN"):
        h.synthesise(np.zeros((1, *h.shape)), Z, 1e-9)
