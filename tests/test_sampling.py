"""Exact draws: the law itself, checked without and with random numbers."""
import numpy as np
import pytest
from scipy.special import eval_legendre
from scipy.stats import chi, kstest

from rdks import RDKSEstimator
from rdks.manifolds import Circle, Euclidean, SpaceForm, Sphere, Torus
from rdks.radial import RadialLaw
from rdks.sampling import heat_sample


@pytest.mark.parametrize("t", [1e-5, 0.01, 0.3, 2.0, 20.0])
@pytest.mark.parametrize("dim", [1, 2, 3, 10, 40])
def test_radial_map_carries_one_law_to_the_other(dim, t):
    """F_sphere(T(rho)) = F_flat(rho), with F_sphere integrated here by a dense trapezoid rule."""
    factor = SpaceForm(dim, radius=1.0)
    law = RadialLaw(factor, t)
    assert law.mass == pytest.approx(1.0, abs=1e-11)
    far = min(np.pi, np.sqrt(t) * (np.sqrt(dim) + 11))
    r = np.linspace(0, far, 20001)
    density = np.exp(factor.log_kernel(r, t) - r * r / (2 * t)) * factor.area(r)
    step = 0.5 * (density[1:] + density[:-1]) * np.diff(r)
    F = np.concatenate([[0.0], np.cumsum(step)])
    x = np.linspace(chi(dim).ppf(1e-9), chi(dim).isf(1e-12), 999)
    mapped = law(np.sqrt(t) * x)
    assert (np.diff(mapped) > 0).all() or t * dim > 5  # a uniform law is reached at the antipode
    assert np.abs(np.interp(mapped, r, F) - chi(dim).cdf(x)).max() < 2e-6  # the trapezoid's own error
    below, above = law.distribution(mapped)
    assert np.abs(below - chi(dim).cdf(x)).max() < 1e-8
    assert np.abs(above - chi(dim).sf(x)).max() < 1e-8


@pytest.mark.parametrize("t", [1e-4, 0.2, 3.0])
def test_zonal_moments_decay_at_their_rates(t):
    n = 200_000
    Z = np.tile([0.6, 0.0, 0.8], (n, 1))
    Y = heat_sample(Sphere(2), Z, t, np.random.default_rng(0))
    assert np.abs(np.linalg.norm(Y, axis=1) - 1).max() < 1e-14
    for level in (1, 2, 3, 4):
        value = eval_legendre(level, Y @ Z[0])
        assert abs(value.mean() - np.exp(-level * (level + 1) * t / 2)) < 4.5 * value.std() / np.sqrt(n)


def test_distances_follow_the_radial_law():
    factor = SpaceForm(3, radius=2.0)
    law = RadialLaw(factor, 0.9)
    Z = np.tile([0, 0, 0, 2.0], (50_000, 1))
    Y = heat_sample(Sphere(3, radius=2.0), Z, 0.9, np.random.default_rng(1))
    assert kstest(factor.dist(Z, Y), lambda r: law.distribution(r)[0]).pvalue > 1e-3
    direction = (Y / np.linalg.norm(Y[:, :3], axis=1, keepdims=True))[:, 0]
    assert kstest(direction, lambda u: 0.5 * (1 + u)).pvalue > 1e-3  # uniform on the 2-sphere of directions


def test_flat_factors_are_exact():
    n = 100_000
    Y = heat_sample(Euclidean(2), np.ones((n, 2)), 0.25, np.random.default_rng(2))
    assert kstest(2 * (Y.ravel() - 1), "norm").pvalue > 1e-3
    Y = heat_sample(Circle(24.0), np.full((n, 1), 23.0), 4.0, np.random.default_rng(3))
    value = np.exp(2j * np.pi * (Y - 23.0) / 24.0)
    assert abs(value.mean() - np.exp(-4.0 * (2 * np.pi / 24) ** 2 / 2)) < 5 / np.sqrt(n)


def test_per_source_times():
    n = 60_000
    t = np.tile([0.01, 0.5], n // 2)
    Z = np.tile([0.0, 0.0, 1.0], (n, 1))
    u = heat_sample(Sphere(2), Z, t, np.random.default_rng(4))[:, 2]
    for time in (0.01, 0.5):
        part = u[t == time]
        assert abs(part.mean() - np.exp(-time)) < 5 * part.std() / np.sqrt(part.size)


def test_sample_has_the_fitted_law():
    rng = np.random.default_rng(5)
    X, w = rng.uniform(0, 6, (50, 2)), rng.uniform(0, 1, 50)
    est = RDKSEstimator(Torus(2, start=-np.pi), bandwidth=0.4).fit(X, sample_weight=w)
    Y = est.sample(80_000, random_state=0)
    assert Y.min() >= -np.pi and Y.max() < np.pi
    for k in ([1, 0], [0, 1], [1, -2]):
        wave = np.exp(1j * Y @ k)
        expected = np.exp(-0.16 * np.dot(k, k) / 2) * (w @ np.exp(1j * X @ k)) / w.sum()
        assert abs(wave.mean() - expected) < 5 / np.sqrt(80_000)


def test_charts_come_back():
    est = RDKSEstimator(Sphere(2, coords="latlon_deg"), bandwidth=0.05).fit([[89.0, 10.0], [-20.0, 179.9]])
    Y = est.sample(5000, random_state=1)
    assert (np.abs(Y[:, 0]) <= 90).all() and (np.abs(Y[:, 1]) <= 180).all()
    assert (Y[Y[:, 0] < 0, 1] < 0).any()  # across the date line
