"""Alternatives to heat-kernel sums: shrunken series, and smoothing in the log domain.

Oracles: explicit sums over pairs and modes, scipy's and mpmath's quadrature, a single source, and identities.
"""
import pickle

import mpmath
import numpy as np
import pytest
from scipy.integrate import quad, simpson
from scipy.spatial import cKDTree
from scipy.special import eval_legendre
from scipy.stats import norm, special_ortho_group
from sklearn.base import clone

from rdks import RDKSEstimator
from rdks.engines import DirectSum
from rdks.errors import PointError, UnsupportedError
from rdks.harmonics import moments_of
from rdks.logdomain import LogSmoothedDensity
from rdks.manifolds import SO3, Box, Circle, Euclidean, Hyperbolic, Product, ProjectiveSpace, Quotient, Sphere, Torus
from rdks.sampling import heat_sample
from rdks.smoothers import Series, harmonics_of, quadrature
from rdks.wiener import WienerDensity, monotone_weights, own_power, own_value

MIRROR = Quotient(Sphere(2), [np.eye(3), np.diag([1.0, 1.0, -1.0])])
SPACES = [(Circle(period=24.0), (9,)), (Sphere(1), (7,)), (Torus(2, period=(1.0, 2.0)), (5, 6)), (Torus(3), (3, 3, 3)),
          (Box([(0.0, 1.0), (-1.0, 1.0)]), (6, 6)), (Sphere(2, radius=3.0), 8), (ProjectiveSpace(2), 8), (MIRROR, 7),
          (Sphere(3), 6), (SO3(), 8), (SO3(symmetry="222"), 8),
          (Product(Circle(), Circle(period=24.0), times=(1.0, 25.0)), (4, 5))]
MIXTURE = (np.array([0.5, 0.3, 0.2]), np.array([0.05, 0.15, 0.5]),
           np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [-0.6, -0.8, 0.0]]))
AXIAL = (np.array([0.5, 0.5]), np.array([0.1, 0.1]), np.array([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]]))


def ids(value):
    return repr(value[0])


def two_lumps(manifold, n, seed=0):
    """Points as the user writes them, around two places."""
    rng = np.random.default_rng(seed)
    places = manifold.random(2, np.random.default_rng(1))
    Z = heat_sample(manifold, places[rng.integers(0, 2, n)], 0.2 * min(manifold.scales) ** 2, rng)
    return manifold.unembed(Z)


def draw(mixture, n, seed):
    share, time, place = mixture
    rng = np.random.default_rng(seed)
    which = rng.choice(len(share), size=n, p=share)
    return heat_sample(Sphere(2), place[which], time[which], rng)


def wrapped(angle, time):
    """Heat kernel of the circle of length 2 pi, by its definition."""
    m = np.arange(-6, 7)
    return np.exp(-(np.asarray(angle)[..., None] + 2 * np.pi * m) ** 2 / (2 * time)).sum(-1) / np.sqrt(2 * np.pi * time)


def zonal(level, u):
    """Sums over the levels' spherical harmonics at pairs of points, (levels, *u.shape)."""
    level = level.reshape(-1, *[1] * np.ndim(u))
    return (2 * level + 1) / (4 * np.pi) * eval_legendre(level, np.clip(u, -1, 1))


def slopes(est, Z, V, step):
    """Derivatives of the log density along geodesics with velocities V, by central differences of fourth order."""
    m = est.manifold_
    f = [est._log_density(m.project(m.exp(Z, k * step * V))) for k in (-2, -1, 1, 2)]
    return (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * step)


# quadrature

@pytest.mark.parametrize("space", SPACES, ids=ids)
def test_quadrature_gives_back_the_coefficients_of_a_sum(space):
    manifold, degree = space
    harmonics = harmonics_of(manifold, degree)
    Z = manifold.random(5, np.random.default_rng(0))
    coef = moments_of(manifold, harmonics, Z, np.full(5, 0.2), 1e-13) * np.exp(manifold.log_unit)
    twice = tuple(2 * k for k in degree) if isinstance(degree, tuple) else 2 * degree
    rule = quadrature(manifold, twice)
    assert rule.weight.sum() == pytest.approx(manifold.volume, rel=1e-12)
    values = Series(harmonics, coef).values(rule.Z)
    assert rule.weight @ values == pytest.approx(1.0, abs=1e-10)
    found = Series.of_values(manifold, harmonics, rule, values).coef
    np.testing.assert_allclose(found, coef, rtol=0, atol=1e-10 * np.abs(coef).max())
    # no point is further from the nodes than promised, and some are not much nearer
    if manifold.factors()[0].kind == "sphere" and manifold.n_images == 1:
        points = manifold.random(3000, np.random.default_rng(1))
        radius = manifold.factors()[0].radius
        far = 2 * radius * np.arcsin(cKDTree(rule.Z).query(points)[0].max() / (2 * radius))
        assert 0.4 * rule.reach < far <= rule.reach * (1 + 1e-9)


# monotone Wiener shrinkage

@pytest.mark.parametrize("space", SPACES, ids=ids)
def test_own_power_is_that_of_the_points_one_by_one(space):
    manifold, degree = space
    harmonics = harmonics_of(manifold, degree)
    rng = np.random.default_rng(2)
    Z, weight = manifold.random(4, rng), rng.uniform(0.5, 1, 4)
    alone = np.array([harmonics.power(moments_of(manifold, harmonics, z[None], np.ones(1), 1e-13)) for z in Z])
    found, expected = own_power(manifold, harmonics, Z, weight), weight @ alone
    key = np.round(harmonics.eigenvalue / harmonics.eigenvalue.max(), 9)
    for value in np.unique(key):  # modes of equal eigenvalue are one level
        assert found[key == value].sum() == pytest.approx(expected[key == value].sum(), rel=1e-9,
                                                               abs=1e-11 * alone.max())
    factor = np.exp(-0.1 * harmonics.eigenvalue / harmonics.eigenvalue[-1])
    for z, value in zip(Z, own_value(manifold, harmonics, Z, factor), strict=True):
        kernel = Series(harmonics, moments_of(manifold, harmonics, z[None], np.ones(1), 1e-13)).weighted(factor)
        assert value == pytest.approx(kernel.values(z[None])[0], rel=1e-9)


def test_weights_are_the_best_monotone_ones():
    rng = np.random.default_rng(0)
    count = np.cumsum(np.arange(1, 40, 2))
    for _ in range(20):
        noise = np.append(0.0, rng.uniform(0.5, 1.5, len(count) - 1) * 0.01)
        signal = rng.exponential(0.1, len(count) - 1) * np.exp(-0.5 * np.arange(len(count) - 1))
        power = np.append(1.0, (noise[1:] + signal) * rng.uniform(0.3, 1.2, len(signal)))
        w = monotone_weights(power, noise, count)
        assert w[0] == 1 and (np.diff(w) <= 0).all() and w.min() >= 0
        # isotonic regression by its min-max formula
        penalised = (1 + np.append(0.0, count[1:] ** -0.25)) * noise
        mean = np.array([[1 - penalised[s:e + 1].sum() / power[s:e + 1].sum() if e >= s else np.nan
                          for e in range(len(w))] for s in range(len(w))])
        best = [min(max(mean[s, e] for e in range(k, len(w))) for s in range(k + 1)) for k in range(len(w))]
        np.testing.assert_allclose(w, np.clip(best, 0, 1), atol=1e-12)


def test_shrunken_series_on_the_sphere_from_pairs_of_points():
    X, rng = draw(MIXTURE, 150, 0), np.random.default_rng(0)
    weight = rng.uniform(0.2, 1.0, len(X))
    est = WienerDensity(Sphere(2), bandwidth=0.3).fit(X, sample_weight=weight)
    share = weight / weight.sum()
    squares = share @ share
    level = np.arange(len(est.shrinkage_))
    np.testing.assert_allclose(est.eigenvalue_, level * (level + 1.0))
    legendre = zonal(level, X @ X.T)
    power = np.einsum("lij,i,j->l", legendre, share, share)
    others = np.einsum("lij,i,j->l", legendre * (1 - np.eye(len(X))), share, share) / (1 - squares)
    w = monotone_weights(power, power - others, (level + 1.0) ** 2)
    np.testing.assert_allclose(est.shrinkage_, w, atol=1e-9)
    assert w[-1] == 0 < w[3] < 1
    Q = draw(MIXTURE, 30, 1)
    series = np.einsum("l,lij,j->i", w, zonal(level, Q @ X.T), share)
    kernels = RDKSEstimator(Sphere(2), bandwidth=0.3).fit(X, sample_weight=weight).score_samples(Q)
    assert est.kernel_share_ == pytest.approx(np.sqrt(squares), rel=1e-12)
    expected = (1 - np.sqrt(squares)) * np.maximum(series - est.cut_, 0) + np.sqrt(squares) * np.exp(kernels)
    np.testing.assert_allclose(est.score_samples(Q), np.log(expected), atol=1e-9)
    # mass one, by Simpson's rule; the positive part has a kink
    z, phi = np.linspace(-1, 1, 401), np.linspace(0, 2 * np.pi, 401)
    r = np.sqrt(1 - z**2)
    grid = np.stack([np.outer(r, np.cos(phi)), np.outer(r, np.sin(phi)), np.outer(z, np.ones_like(phi))], -1)
    p = np.exp(est.score_samples(grid.reshape(-1, 3))).reshape(401, 401)
    assert simpson(simpson(p, x=phi), x=z) == pytest.approx(1, abs=2e-5)
    assert est.mass_error_ < 3e-4


def test_shrunken_series_on_a_circle_by_quadrature():
    X = np.random.default_rng(3).vonmises(1.0, 2.0, (80, 1))
    est = WienerDensity(Circle(), bandwidth=0.4, kernel_share=0.25).fit(X)
    k = np.arange(len(est.shrinkage_))
    np.testing.assert_allclose(est.eigenvalue_, k**2, atol=1e-9)

    def density(x):
        modes = np.where(k > 0, 2.0, 1.0) * est.shrinkage_ * np.cos(k * (x - X)).mean(0) / (2 * np.pi)
        return 0.75 * max(modes.sum() - est.cut_, 0.0) + 0.25 * wrapped(x - X[:, 0], 0.16).mean()

    Q = np.linspace(-3, 3, 13)
    np.testing.assert_allclose(np.exp(est.score_samples(Q[:, None])), [density(x) for x in Q], rtol=1e-9)
    assert quad(density, -np.pi, np.pi, limit=500, epsabs=1e-8)[0] == pytest.approx(1, abs=2e-6)


@pytest.mark.parametrize("mixture", [MIXTURE, AXIAL], ids=["mixture", "axial"])
def test_squared_error_is_less_than_of_any_heat_kernel(mixture):
    share, time, place = mixture
    rule = quadrature(Sphere(2), 40)
    truth = np.exp(DirectSum(Sphere(2), place, share, time).evaluate(rule.Z).log_density)
    times = np.geomspace(0.009, 0.04, 5)
    ours, raw, fixed = [], [], np.zeros((5, 5))
    for r in range(5):
        X = draw(mixture, 300, r)
        est = WienerDensity(Sphere(2), bandwidth=0.2).fit(X)
        ours.append(rule.weight @ (np.exp(est._log_density(rule.Z)) - truth) ** 2)
        series = est._series.values(rule.Z)
        raw.append(rule.weight @ (series - truth) ** 2)
        # the nearest density to the series is nearer to the truth than it
        assert rule.weight @ (np.maximum(series - est.cut_, 0) - truth) ** 2 < raw[-1]
        total = DirectSum(Sphere(2), X, np.ones(300), 0.0)
        fixed[r] = [rule.weight @ (np.exp(total.at(t).evaluate(rule.Z).log_density) - truth) ** 2 for t in times]
    # measured with 40 repetitions: 0.0234 and 0.0280, 0.0123 and 0.0175
    assert np.mean(ours) < 0.93 * fixed.mean(axis=0).min()


@pytest.mark.parametrize("make", [lambda **k: WienerDensity(Sphere(2), bandwidth=0.25, **k),
                                  lambda **k: LogSmoothedDensity(Sphere(2), bandwidth=0.25, **k)],
                         ids=["wiener", "log"])
def test_order_copies_and_rotations_do_not_matter(make):
    X, Q = draw(MIXTURE, 100, 0), draw(MIXTURE, 20, 1)
    one = make().fit(X)
    order = np.random.default_rng(0).permutation(100)
    np.testing.assert_allclose(make().fit(X[order]).score_samples(Q), one.score_samples(Q), atol=1e-9)
    weight = np.ones(100)
    weight[:7] = 2.0
    with pytest.warns(UserWarning) if isinstance(one, WienerDensity) else np.errstate():
        copies = make().fit(np.concatenate([X, X[:7]])).score_samples(Q)
    np.testing.assert_allclose(copies, make().fit(X, sample_weight=weight).score_samples(Q), atol=1e-9)
    R = special_ortho_group.rvs(3, random_state=1)
    turned = make().fit(X @ R.T)
    # the quadrature does not turn with the data
    np.testing.assert_allclose(turned.score_samples(Q @ R.T), one.score_samples(Q), atol=1e-4)
    np.testing.assert_allclose(turned.score_field(Q @ R.T), one.score_field(Q) @ R.T, atol=1e-3)


def test_share_by_likelihood_is_the_best_for_points_left_out():
    X = draw(MIXTURE, 120, 4)
    est = WienerDensity(Sphere(2), kernel_share="lcv").fit(X)
    level = np.arange(len(est.shrinkage_))
    K = np.einsum("l,lij->ij", est.shrinkage_, zonal(level, X @ X.T)) * (1 - np.eye(120))
    series = np.maximum(K.sum(1) / 119 - est.cut_, 0)
    kernels = np.exp(Sphere(2).log_heat_kernel(np.repeat(X, 120, 0), np.tile(X, (120, 1)), est.bandwidth_**2))
    others = (kernels.reshape(120, 120) * (1 - np.eye(120))).sum(1) / 119

    def criterion(e):  # with half an observation for the kernels, and half for the series' own share of one more
        return np.log(e * others + (1 - e) * series).sum() + 0.5 * np.log(e) + 0.5 * np.log(1 - e)

    e = est.kernel_share_
    assert 0.1 < e < 0.95
    assert criterion(e) > max(criterion(e - 1e-3), criterion(e + 1e-3))


WIENER_SPACES = [SPACES[i][0] for i in (0, 1, 4, 5, 7, 10, 11)]


@pytest.mark.parametrize("manifold", WIENER_SPACES, ids=repr)
@pytest.mark.parametrize("kind", [WienerDensity, LogSmoothedDensity])
def test_mass_score_bound_and_sample_on_every_kind_of_space(kind, manifold):
    X = two_lumps(manifold, 60)
    unit = min(manifold.scales)
    est = kind(manifold, bandwidth=0.5 * unit).fit(X)
    # mass, by the mean over random points
    rng = np.random.default_rng(0)
    U = manifold.random(6000, rng)
    p = np.exp(est._log_density(U)) * np.exp(manifold.log_volume)
    assert abs(p.mean() - 1) < 5 * p.std() / np.sqrt(len(U)) + 1e-4
    # score
    Z = manifold.embed(X[:10])
    V = manifold.frame(Z)[:, 0]
    expected = slopes(est, Z, V, 1e-3 * unit)
    found = np.einsum("ij,ij->i", est._gradient(Z), V)
    np.testing.assert_allclose(found * unit, expected * unit, rtol=1e-6, atol=1e-6)
    # sampling: no probability of acceptance above one, and means as by the density
    S = est.sample(400, random_state=0)
    assert S.shape == (400, *X.shape[1:])
    if kind is WienerDensity:
        assert est._series.values(U).max() - est.cut_ <= est._bound
    else:
        _, log_probability = est._potential.propose(2000, rng)
        assert log_probability.max() <= 1e-9
    K = est._log_density(manifold.embed(S)), est._log_density(U)
    mean, spread = (p * K[1]).mean(), np.sqrt((p * K[1] - (p * K[1]).mean()).var() / len(U) + K[0].var() / 400)
    assert abs(K[0].mean() - mean) < 5 * spread + 1e-4


# smoothing in the log domain

def test_log_smoothing_on_a_circle_by_quadrature():
    X = np.array([[0.3], [0.9], [1.0], [3.5]])
    est = LogSmoothedDensity(Circle(), bandwidth=0.5, tau=0.1).fit(X)

    def log_p(x):
        return np.log(wrapped(x - X[:, 0], 0.25).mean())

    def smoothed(x):
        return quad(lambda u: norm.pdf(u, 0, np.sqrt(0.1)) * log_p(x + u), -3, 3, epsabs=1e-10, limit=200)[0]

    grid = np.arange(24) * 2 * np.pi / 24  # periodic and smooth: equal weights are exact
    ell = np.array([smoothed(x) for x in grid])
    log_z = np.log(np.exp(ell).mean() * 2 * np.pi)
    assert est.log_normaliser_ == pytest.approx(log_z, abs=1e-7)
    assert est.normaliser_error_ < 1e-5
    np.testing.assert_allclose(est.score_samples(grid[:, None]), ell - log_z, atol=1e-6)


def test_log_smoothing_against_many_digits():
    est = LogSmoothedDensity(Circle(), bandwidth=0.6, tau=0.2).fit(np.array([[0.0], [2.0]]))
    mp = mpmath.mp.clone()
    mp.dps = 25

    def log_p(x):
        return mp.log(sum(mp.jtheta(3, (x - c) / 2, mp.exp(mp.mpf("-0.18"))) for c in (0, 2)) / (4 * mp.pi))

    def coefficient(k):  # of cos and sin, by the rule that is exact for them
        nodes = [2 * mp.pi * j / 64 for j in range(64)]
        return [sum(log_p(x) * f(k * x) for x in nodes) / 32 for f in (mp.cos, mp.sin)]

    C = [coefficient(k) for k in range(16)]
    ell = C[0][0] / 2 + sum(mp.exp(-mp.mpf("0.1") * k * k) * (C[k][0] * mp.cos(k) + C[k][1] * mp.sin(k))
                            for k in range(1, 16))
    assert est._potential.values(np.array([[1.0]]))[0] == pytest.approx(float(ell), abs=1e-9)


def test_log_smoothing_on_the_sphere_by_quadrature_around_a_point():
    X = draw(MIXTURE, 8, 3)
    est = LogSmoothedDensity(Sphere(2), bandwidth=0.6, tau=0.2).fit(X)
    level = np.arange(40)

    def kernel(u, t):
        return np.einsum("l,l...->...", np.exp(-level * (level + 1) * t / 2), zonal(level, u))

    u, v = np.polynomial.legendre.leggauss(60)
    phi = np.arange(120) * 2 * np.pi / 120
    for x in draw(MIXTURE, 4, 4):
        frame = Sphere(2).frame(x[None])[0]
        Y = u[:, None, None] * x + np.sqrt(1 - u * u)[:, None, None] * (
            np.cos(phi)[:, None] * frame[0] + np.sin(phi)[:, None] * frame[1])
        log_p = np.log(kernel(Y @ X.T, 0.36).mean(axis=-1))
        expected = (v * kernel(u, 0.2) * log_p.sum(axis=1)).sum() * 2 * np.pi / 120
        assert est._potential.values(x[None])[0] == pytest.approx(expected, abs=1e-6)


def test_short_times_give_the_kernel_density_and_half_its_laplacian():
    X, Q = draw(MIXTURE, 40, 0), draw(MIXTURE, 15, 1)
    plain = RDKSEstimator(Sphere(2), bandwidth=0.5).fit(X)
    for tau in (4e-3, 1e-3):
        est = LogSmoothedDensity(Sphere(2), bandwidth=0.5, tau=tau).fit(X)
        change = est.score_samples(Q) + est.log_normaliser_ - plain.score_samples(Q)
        # next order: tau^2 / 8 times two Laplacians of log p, some 1 / t each with t = 0.25 and the curvature
        np.testing.assert_allclose(change, 0.5 * tau * plain.score_divergence(Q), atol=60 * tau**2)
        assert -0.02 < est.log_normaliser_ < 0
        assert np.abs(est.score_field(Q) - plain.score_field(Q)).max() < 60 * tau


def test_jensen():
    X, U = draw(MIXTURE, 30, 0), Sphere(2).random(500, np.random.default_rng(0))
    est = LogSmoothedDensity(Sphere(2), bandwidth=0.3).fit(X)
    assert est.tau_ == pytest.approx(0.09)
    later = RDKSEstimator(Sphere(2), bandwidth=0.3).fit(X).score_samples(U, t=0.09)
    assert (est._potential.values(U) < later).all()
    assert est.log_normaliser_ < 0


@pytest.mark.parametrize("d", [1, 5])
def test_one_source_in_flat_space_keeps_its_width(d):
    tau = 0.1  # P_tau (-r^2 / 2t) = -(r^2 + d tau) / 2t
    est = LogSmoothedDensity(Euclidean(d), bandwidth=0.5, tau=tau).fit(np.full((1, d), 2.0))
    assert est.log_normaliser_ < 0
    Q = 2 + np.random.default_rng(0).standard_normal((7, d))
    moment = d if d <= 3 else (est._potential.step**2).sum(axis=1).mean() / tau  # nodes drawn once for all
    assert abs(est.log_normaliser_ + moment * tau / 0.5) < 6 * est.normaliser_error_ < 0.1
    expected = norm.logpdf(Q, 2, 0.5).sum(axis=1) - moment * tau / 0.5 - est.log_normaliser_
    np.testing.assert_allclose(est.score_samples(Q), expected, atol=1e-8)
    np.testing.assert_allclose(est.score_field(Q), -(Q - 2) / 0.25, atol=1e-8)
    S = est.sample(60, random_state=0)
    assert np.abs(S.mean(axis=0) - 2).max() < 5 * 0.5 / np.sqrt(60)
    assert np.abs(S.var(axis=0) - 0.25).max() < 5 * 0.25 * np.sqrt(2 / 60)


def test_log_smoothing_on_a_line_by_quadrature():
    X = np.array([[0.0], [1.0], [2.5]])
    est = LogSmoothedDensity(Euclidean(1), bandwidth=0.6, tau=0.2).fit(X)

    def log_p(x):
        return np.log(norm.pdf(x, X[:, 0], 0.6).mean())

    def smoothed(x):
        return quad(lambda u: norm.pdf(u, 0, np.sqrt(0.2)) * log_p(x + u), -4, 4, epsabs=1e-9, limit=200)[0]

    grid = np.linspace(-3, 5.8, 23)
    ell = np.array([smoothed(x) for x in grid])
    z = np.exp(ell).sum() * 0.4  # zero at both ends, and smooth: equal weights are exact
    assert abs(np.exp(est.log_normaliser_) / z - 1) < 5 * est.normaliser_error_
    assert est.normaliser_error_ < 0.01
    np.testing.assert_allclose(est.score_samples(grid[:, None]) + est.log_normaliser_, ell, atol=1e-6)
    expected = slopes(est, grid[:, None], np.ones((23, 1)), 1e-2)
    np.testing.assert_allclose(est.score_field(grid[:, None])[:, 0], expected, atol=1e-5)


# both, as scikit-learn's estimators

@pytest.mark.parametrize("kind", [WienerDensity, LogSmoothedDensity])
def test_charts_layouts_and_copies_of_an_estimator(kind):
    X = draw(MIXTURE, 50, 0)
    est = kind(bandwidth=0.3).fit(X)
    assert est.manifold_ == Sphere(2) and est.n_features_in_ == 3 and est.bandwidth_ == 0.3
    latlon = np.degrees(np.column_stack([np.arcsin(X[:, 2]), np.arctan2(X[:, 1], X[:, 0])]))
    chart = kind(Sphere(2, coords="latlon_deg"), bandwidth=0.3).fit(latlon)
    np.testing.assert_allclose(chart.score_samples(latlon), est.score_samples(X), atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(chart.score_field(latlon), axis=1),
                               np.linalg.norm(est.score_field(X), axis=1), atol=1e-8)
    assert chart.sample(3, random_state=0).shape == (3, 2) and est.sample(0).shape == (0, 3)
    assert est.score(X) == pytest.approx(est.score_samples(X).sum())
    again = pickle.loads(pickle.dumps(est))
    np.testing.assert_array_equal(again.score_samples(X), est.score_samples(X))
    np.testing.assert_array_equal(again.sample(4, random_state=1), est.sample(4, random_state=1))
    assert clone(est).get_params() == est.get_params()
    # lengths in km
    earth = kind(Sphere(2, radius=6371.0), bandwidth=0.3 * 6371).fit(6371 * X)
    np.testing.assert_allclose(earth.score_samples(6371 * X), est.score_samples(X) - 2 * np.log(6371), atol=1e-6)
    R = two_lumps(SO3(), 20)
    turns = kind(SO3(), bandwidth=0.9).fit(R)
    assert turns.score_field(R).shape == R.shape == turns.sample(20, random_state=0).shape
    np.testing.assert_allclose(turns.score_samples(R.reshape(20, 9)), turns.score_samples(R))


def test_errors():
    X = draw(MIXTURE, 20, 0)
    with pytest.raises(UnsupportedError, match="not compact"):
        WienerDensity(Euclidean(2)).fit(np.zeros((3, 2)) + np.arange(3)[:, None])
    for manifold, Z in ((Hyperbolic(2), np.zeros((2, 3))), (Sphere(5), np.eye(6))):
        Z = manifold.unembed(manifold.random(5, np.random.default_rng(0)))
        with pytest.raises(UnsupportedError, match="RDKSEstimator"):
            LogSmoothedDensity(manifold, bandwidth=0.5).fit(Z)
    for share in (0, 1.5, True, "isj"):
        with pytest.raises(ValueError, match="kernel_share"):
            WienerDensity(kernel_share=share).fit(X)
    for tau in (0, -1.0, np.inf, "lcv", True):
        with pytest.raises(ValueError, match="tau"):
            LogSmoothedDensity(tau=tau).fit(X)
    for kind in (WienerDensity, LogSmoothedDensity):
        with pytest.raises(UnsupportedError, match="mixture"):
            kind(bandwidth="mixture").fit(X)
        with pytest.raises(PointError, match=r"X\[2\]"):
            kind(Sphere(2)).fit(np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 2]]))
        est = kind(bandwidth=0.4).fit(X)
        with pytest.raises(ValueError, match="n_samples"):
            est.sample(-1)
    with pytest.raises(ValueError, match="n_samples=1"):
        WienerDensity(Sphere(2), bandwidth=0.3).fit(X[:1])
    with pytest.raises(UnsupportedError, match="longer"):
        LogSmoothedDensity(Sphere(2), bandwidth=0.3, tau=1e-7).fit(X)
    with pytest.raises(UnsupportedError, match="too long"):
        LogSmoothedDensity(Euclidean(1), bandwidth=0.1, tau=1.0).fit(X[:3, :1]).sample(3)
