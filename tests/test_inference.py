"""Sampling errors of a fitted density: bands, influence, effective sizes, regions, and kernel matrices."""
import itertools

import numpy as np
import pytest
from scipy import stats
from scipy.special import eval_legendre

from rdks import RDKSEstimator
from rdks.balls import ball_law
from rdks.errors import UnsupportedError
from rdks.gram import log_kernel_blocks
from rdks.inference import (
    _replicates,
    ball_probability,
    density_bands,
    effective_sample_size,
    highest_density_region,
    influence,
    region_probability,
)
from rdks.manifolds import (
    SO3,
    Box,
    Circle,
    Euclidean,
    Graph,
    Hyperbolic,
    OrnsteinUhlenbeck,
    PointCloud,
    Product,
    ProjectiveSpace,
    SpecialUnitary,
    Sphere,
    Torus,
)
from rdks.manifolds.base import SpaceForm
from rdks.sampling import heat_sample

RING = Graph(np.roll(np.eye(7), 1, 0) + np.roll(np.eye(7), -1, 0))
CLOUD = PointCloud(np.random.default_rng(0).uniform(0, 1, (150, 2)))
SPACES = [Euclidean(2), Circle(24.0), Torus(2), Sphere(2), Sphere(5), Hyperbolic(3, coords="ball", radius=2.0),
          Box([(0.0, 1.0), (0.0, 2.0)]), SO3(symmetry="cubic"), ProjectiveSpace(2), OrnsteinUhlenbeck(2),
          Product(Sphere(2), Euclidean(1), times=(0.2, 1.0)), SpecialUnitary(2), RING, CLOUD]


# kernel matrices

@pytest.mark.parametrize("manifold", SPACES, ids=repr)
def test_kernel_matrix_is_the_kernel_pair_by_pair(manifold, rng):
    Z, W = manifold.random(7, rng), manifold.random(5, rng)
    W[:2] = Z[:2]
    unit = min(manifold.scales, default=1.0) ** 2
    times = np.array([0.01, 0.3, 0.3, 0.01, 0.05]) * unit
    logs = np.concatenate([block for _, block in log_kernel_blocks(manifold, Z, W, times)])
    for j, t in enumerate(times):
        expected = manifold.log_heat_kernel(np.tile(W[j], (7, 1)), Z, float(t))
        np.testing.assert_allclose(logs[:, j], expected, rtol=1e-12, atol=1e-12)


def test_kernel_matrix_comes_in_blocks(monkeypatch, rng):
    monkeypatch.setattr("rdks.gram._BLOCK", 10)
    Z = rng.standard_normal((11, 1))
    blocks = list(log_kernel_blocks(Euclidean(1), Z, Z[:5], 0.5))
    assert [rows.stop - rows.start for rows, _ in blocks] == [2, 2, 2, 2, 2, 1]
    np.testing.assert_allclose(np.exp(np.concatenate([b for _, b in blocks])),
                               stats.norm.pdf(Z - Z[:5].T, scale=np.sqrt(0.5)), rtol=1e-13)


# bands

def test_standard_error_is_the_textbook_one(rng):
    X, x = rng.standard_normal((40, 1)), np.array([[0.0], [1.5], [4.0]])
    k = stats.norm.pdf(x - X.T, scale=0.4)
    est = RDKSEstimator(bandwidth=0.4).fit(X)
    bands = density_bands(est, x, level=0.8)
    error = k.std(axis=1, ddof=1) / np.sqrt(40) / k.mean(axis=1)
    effective = k.sum(axis=1) ** 2 / (k**2).sum(axis=1)
    half = stats.t.ppf(0.9, np.maximum(effective - 1, 1)) * error
    np.testing.assert_allclose(bands.standard_error, error, rtol=1e-11)
    np.testing.assert_allclose(bands.effective_sample_size, effective, rtol=1e-11)
    np.testing.assert_allclose(bands.log_density, np.log(k.mean(axis=1)), rtol=1e-11)
    np.testing.assert_allclose(bands.upper - bands.log_density, half, rtol=1e-10)
    np.testing.assert_allclose(bands.log_density - bands.lower, half, rtol=1e-10)
    later = density_bands(est, x, t=0.2)
    np.testing.assert_allclose(later.standard_error,
                               density_bands(RDKSEstimator(bandwidth=0.6).fit(X), x).standard_error, rtol=1e-12)


def test_variance_is_unbiased_for_any_weights():
    # observations take one of two places; all eight outcomes are summed
    weight, chance, places = np.array([5.0, 1.0, 2.0]), 0.3, np.array([0.0, 0.7])
    moments = np.zeros(3)
    for outcome in itertools.product([0, 1], repeat=3):
        probability = np.prod([chance if o else 1 - chance for o in outcome])
        est = RDKSEstimator(bandwidth=0.5).fit(places[list(outcome)][:, None], sample_weight=weight)
        bands = density_bands(est, [[0.2]])
        p = float(np.exp(bands.log_density[0]))
        moments += probability * np.array([p, p * p, (bands.standard_error[0] * p) ** 2])
    assert moments[2] == pytest.approx(moments[1] - moments[0] ** 2, rel=1e-12)


@pytest.mark.parametrize("method, replicates", [("asymptotic", 150), ("bootstrap", 60)])
@pytest.mark.parametrize("manifold", [Circle(), Sphere(2)], ids=repr)
def test_bands_cover_the_smoothed_density(manifold, method, replicates, rng):
    # heat-kernel data: the smoothed density is the heat kernel at a later time
    origin = manifold.random(1, rng)
    places = np.concatenate([manifold.exp(origin, a * manifold.frame(origin)[:, 0]) for a in (0.0, 0.8, 1.3)])
    truth = manifold.log_heat_kernel(np.tile(origin, (3, 1)), places, 0.5 + 0.09)
    X = heat_sample(manifold, np.tile(origin, (replicates * 80, 1)), 0.5, rng).reshape(replicates, 80, -1)
    hit = np.zeros(3)
    for sample in X:
        est = RDKSEstimator(manifold, bandwidth=0.3).fit(manifold.unembed(sample))
        bands = density_bands(est, manifold.unembed(places), level=0.9, method=method, n_bootstrap=99,
                              random_state=rng)
        hit += (bands.lower <= truth) & (truth <= bands.upper)
    # measured coverage is 0.88 to 0.95; four binomial standard deviations
    assert (np.abs(hit / replicates - 0.92) < 0.03 + 4 * np.sqrt(0.09 / replicates)).all(), hit / replicates


def test_bootstrap_replicates_are_fits_with_random_weights(rng):
    k, w = rng.uniform(0.1, 1.0, (2, 6)), rng.uniform(0.5, 2.0, 6)
    w /= w.sum()
    p = k @ w
    s = k * w / p[:, None]
    found = _replicates(s, s - w, w, 4, 11)
    for b, e in enumerate(np.random.default_rng(11).standard_exponential((4, 6))):
        v = e * w / (e @ w)
        q = k @ v
        spread = np.sqrt(0.5 * (v**2 * (k / q[:, None] - 1) ** 2).sum(axis=1))
        np.testing.assert_allclose(found[b], np.log(q / p) / spread, rtol=1e-11)


def test_bootstrap_interval_is_the_studentised_one():
    X, weight = np.array([[0.0], [0.3], [1.0], [2.5]]), np.array([1.0, 2.0, 1.0, 3.0])
    bands = density_bands(RDKSEstimator(bandwidth=0.6).fit(X, sample_weight=weight), [[0.2]], level=0.8,
                          method="bootstrap", n_bootstrap=50, random_state=5)
    w, k = weight / 7, stats.norm.pdf(0.2 - X[:, 0], scale=0.6)
    seed = np.random.default_rng(5).integers(2**63, size=1)[0]
    v = np.random.default_rng(seed).standard_exponential((50, 4)) * w
    v /= v.sum(axis=1, keepdims=True)
    q, p = v @ k, w @ k
    # the correction of both standard errors is the same
    student = np.log(q / p) / np.sqrt(0.5 * (v**2 * (k / q[:, None] - 1) ** 2).sum(axis=1))
    error = np.sqrt((w**2 * (k / p - 1) ** 2).sum())
    assert bands.lower[0] == pytest.approx(np.log(p) - np.quantile(student, 0.9) * error, rel=1e-10)
    assert bands.upper[0] == pytest.approx(np.log(p) - np.quantile(student, 0.1) * error, rel=1e-10)


def test_bootstrap_and_normal_theory_agree_for_many_observations(rng):
    est = RDKSEstimator(bandwidth=0.3).fit(rng.standard_normal((3000, 1)))
    one = density_bands(est, [[0.0], [1.0]])
    two = density_bands(est, [[0.0], [1.0]], method="bootstrap", n_bootstrap=1500, random_state=1)
    np.testing.assert_allclose(two.upper - two.lower, one.upper - one.lower, rtol=0.12)  # 4 / sqrt(1500)
    again = density_bands(est, [[0.0], [1.0]], method="bootstrap", n_bootstrap=1500, random_state=1)
    np.testing.assert_array_equal(two.lower, again.lower)


def test_bands_are_finite_where_no_kernel_is(rng):
    est = RDKSEstimator(bandwidth=0.1).fit(rng.standard_normal((20, 1)))
    for method in ("asymptotic", "bootstrap"):
        bands = density_bands(est, [[1000.0]], method=method, random_state=0)
        assert bands.log_density[0] < -1e7 and bands.effective_sample_size[0] == pytest.approx(1)
        assert -np.inf < bands.lower[0] < bands.log_density[0] < bands.upper[0] < np.inf


# effective sample sizes

def test_effective_sample_size_counts_observations():
    est = RDKSEstimator(Circle(), bandwidth=0.1).fit([[0.0], [0.0], [3.0]], sample_weight=[1, 1, 2])
    assert effective_sample_size(est) == pytest.approx(16 / 6)
    np.testing.assert_allclose(effective_sample_size(est, [[0.0], [3.0]]), [2, 1], rtol=1e-12)
    assert effective_sample_size(est, [[1.0]], t=60.0)[0] == pytest.approx(16 / 6, rel=1e-9)


# influence

@pytest.mark.parametrize("manifold", [Euclidean(1), Sphere(2), SO3(), RING], ids=repr)
def test_influence_is_what_fitting_without_an_observation_changes(manifold, rng):
    X, Q = manifold.unembed(manifold.random(8, rng)), manifold.unembed(manifold.random(4, rng))
    weight = rng.uniform(0.5, 3.0, 8)
    est = RDKSEstimator(manifold, bandwidth=0.4).fit(X, sample_weight=weight)
    own, at = influence(est), influence(est, Q)
    np.testing.assert_allclose(own.weight, weight / weight.sum(), rtol=1e-14)
    np.testing.assert_allclose(own.points, X, atol=1e-12)
    for i in range(8):
        others = np.arange(8) != i
        without = RDKSEstimator(manifold, bandwidth=0.4).fit(X[others], sample_weight=weight[others])
        np.testing.assert_allclose(own.value[i], est.score_samples(X[i:i + 1]) - without.score_samples(X[i:i + 1]),
                                   atol=1e-9)
        np.testing.assert_allclose(at.value[:, i], est.score_samples(Q) - without.score_samples(Q), atol=1e-9)


def test_influence_of_outliers_and_crowds_keeps_its_digits():
    X = np.array([[0.0], [0.0], [100.0]])
    est = RDKSEstimator(bandwidth=1.0).fit(X)
    own = influence(est)
    # alone: half of one kernel at a distance of 100 is what the other two leave
    np.testing.assert_allclose(own.value[2], 5000 - np.log(3), rtol=1e-13)
    np.testing.assert_allclose(influence(est, X).value[2, 2], own.value[2], rtol=1e-13)
    # all kernels equal to 1e-9: the change is of that size, and has digits
    wide = RDKSEstimator(bandwidth=1e6).fit(np.array([[0.0], [1.0], [5.0]]))
    d = np.array([1.0, 25.0, 16.0]) * 0.5e-12
    exact = np.array([d[0] + d[1], d[0] + d[2], d[1] + d[2]]) / 6
    np.testing.assert_allclose(influence(wide).value, exact, rtol=1e-3, atol=1e-16)
    assert (np.abs(influence(est, t=4.0).value[:2] - np.log(2 / 3 / 0.5) ) < 1e-9).all()


# regions

def test_highest_density_region_of_a_normal_law():
    est = RDKSEstimator(bandwidth=2.0).fit(np.zeros((1, 2)))
    probability = np.array([0.5, 0.9])
    region = highest_density_region(est, probability, n_samples=20000, random_state=3)
    square = stats.chi2.ppf(probability, 2)
    threshold = -np.log(2 * np.pi * 4) - 0.5 * square
    assert (np.abs(region.log_threshold - threshold) < 4 * region.log_threshold_error).all()
    # the log density of a draw is exponential: its quantiles have this error
    np.testing.assert_allclose(region.log_threshold_error, np.sqrt(probability / (1 - probability) / 20000), rtol=0.3)
    assert (np.abs(region.volume - 4 * np.pi * square) < 4 * region.volume_error).all()
    np.testing.assert_allclose(region.probability_error, np.sqrt(probability * (1 - probability) / 20000), rtol=1e-12)
    np.testing.assert_array_equal(region.contains([[0.0, 0.0], [3.5, 0.0], [6.0, 0.0]]),
                                  [[True, False, False], [True, True, False]])
    later = highest_density_region(est, 0.5, t=12.0, random_state=3)
    assert later.volume == pytest.approx(16 * np.pi * square[0], rel=0.06)
    assert later.contains([[4.0, 0.0], [5.0, 0.0]]).tolist() == [True, False]


def test_monte_carlo_errors_of_a_region_are_what_they_say(rng):
    est = RDKSEstimator(Circle(), bandwidth=0.7).fit([[1.0]])
    runs = [highest_density_region(est, 0.8, n_samples=400, random_state=rng) for _ in range(150)]
    for value, error in (("log_threshold", "log_threshold_error"), ("volume", "volume_error")):
        spread = np.std([getattr(r, value) for r in runs])
        said = np.mean([getattr(r, error) for r in runs])
        if value == "volume":  # the error is about the region with the threshold found, whose volume varies too
            arc = [2 * np.sqrt(2 * 0.49 * (-0.5 * np.log(2 * np.pi * 0.49) - r.log_threshold)) for r in runs]
            spread = np.std(np.array([r.volume for r in runs]) - arc)
        assert said == pytest.approx(spread, rel=0.25), value  # 4 / sqrt(2 * 150) is 0.23


def test_region_on_a_graph_is_the_heaviest_nodes():
    est = RDKSEstimator(RING, bandwidth=0.5).fit([[0.0]])
    region = highest_density_region(est, 0.5, random_state=0)
    assert region.contains(np.arange(7.0)[:, None]).tolist() == [True] + [False] * 6
    assert region.volume == pytest.approx(RING.mass[0], abs=4 * region.volume_error)


def test_region_probability_counts_draws():
    est = RDKSEstimator(Sphere(2, coords="latlon_deg"), bandwidth=0.5).fit([[90.0, 0.0]])
    north = region_probability(est, lambda X: X[:, 0] > 45.0, random_state=0)
    assert north.method == "monte_carlo"
    exact = ball_probability(est, [90.0, 0.0], np.pi / 4)
    assert exact.method == "exact" and exact.standard_error == 0
    assert abs(north.probability - exact.probability) < 4 * north.standard_error
    p = exact.probability
    assert north.standard_error == pytest.approx(np.sqrt(p * (1 - p) / 10000), rel=0.1)
    none = region_probability(est, lambda X: X[:, 0] > 91.0, n_samples=100, random_state=0)
    assert none.probability == 0 and none.standard_error == pytest.approx(np.sqrt(0.5 / 101 * 100.5 / 101 / 100))


# balls

@pytest.mark.parametrize("dim", [1, 2, 3, 7])
def test_ball_law_in_flat_space_is_noncentral_chi_square(dim):
    rho = np.array([0.0, 1e-6, 0.3, 1.0, 2.0, 8.0])
    for radius, t in itertools.product((0.3, 1.0, 4.0), (0.05, 1.0, 30.0)):
        expected = stats.ncx2.cdf(radius**2 / t, dim, rho**2 / t)
        some = expected > 1e-150  # below, the reference gives zero
        np.testing.assert_allclose(ball_law(SpaceForm(dim), rho, radius, t)[some], expected[some], rtol=1e-11)


@pytest.mark.parametrize("radius, t", [(0.2, 0.03), (1.0, 0.3), (2.5, 1.0), (3.0, 5.0)])
def test_ball_law_on_the_sphere_is_its_legendre_series(radius, t):
    rho, x = np.array([0.0, 0.1, 1.2, 2.9, np.pi]), np.cos(radius)
    level = np.arange(1, 80)
    # the integral of P_l over a cap is (P_{l-1} - P_{l+1})(x) / (2 l + 1)
    terms = 0.5 * (eval_legendre(level - 1, x) - eval_legendre(level + 1, x)) * np.exp(-0.5 * level * (level + 1) * t)
    expected = 0.5 * (1 - x) + eval_legendre(level, np.cos(rho)[:, None]) @ terms
    np.testing.assert_allclose(ball_law(Sphere(2).factors()[0], rho, radius, t), expected, rtol=1e-10, atol=1e-14)
    scaled = ball_law(Sphere(2, radius=3.0).factors()[0], 3 * rho, 3 * radius, 9 * t)
    np.testing.assert_allclose(scaled, expected, rtol=1e-10, atol=1e-14)


def test_ball_law_on_the_circle_and_in_hyperbolic_space():
    t, radius = 0.7, 1.1
    lag = np.arange(1, 40)
    rho = np.array([0.0, 1.0, 3.0])
    series = (radius + 2 * np.cos(np.outer(rho, lag)) @ (np.sin(lag * radius) / lag * np.exp(-lag**2 * t / 2))) / np.pi
    np.testing.assert_allclose(ball_law(Circle().factors()[0], rho, radius, t), series, rtol=1e-12)
    np.testing.assert_allclose(ball_law(Circle().factors()[0], rho, radius, 1e4), radius / np.pi, rtol=1e-12)
    # H^3: the law of the distance from the centre of the ball, by the kernel around the starting point, in closed form:
    # with u = s / tanh s and the sphere of radius s seen from rho, integrated in both variables
    s, w = np.polynomial.legendre.leggauss(200)
    angle, weight = 0.5 * np.pi * (s + 1), 0.5 * np.pi * w
    r, wr = 0.5 * radius * (s + 1), 0.5 * radius * w
    cosh = np.cosh(r[:, None]) * np.cosh(0.8) - np.sinh(r[:, None]) * np.sinh(0.8) * np.cos(angle)
    d = np.arccosh(cosh)
    kernel = (2 * np.pi * t) ** -1.5 * d / np.sinh(d) * np.exp(-d * d / (2 * t) - t / 2)
    expected = 2 * np.pi * (wr * np.sinh(r) ** 2) @ kernel @ (weight * np.sin(angle))
    found = ball_law(Hyperbolic(3).factors()[0], np.array([0.8]), radius, t)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_ball_probability_adds_up_observations_and_images():
    X = np.array([[0.0], [1.0]])
    est = RDKSEstimator(OrnsteinUhlenbeck(1), bandwidth=0.8).fit(X, sample_weight=[1, 3])
    law = stats.norm(X[:, 0] * np.exp(-0.32), np.sqrt(1 - np.exp(-0.64)))
    expected = (law.cdf(0.9) - law.cdf(0.1)) @ [0.25, 0.75]
    assert ball_probability(est, [0.5], 0.4).probability == pytest.approx(expected, rel=1e-12)
    # axes: both ends of the axis are in the ball
    axes = RDKSEstimator(ProjectiveSpace(2), bandwidth=0.6).fit([[0.0, 0.0, 1.0]])
    sphere = Sphere(2).factors()[0]
    both = ball_law(sphere, np.array([0.4, np.pi - 0.4]), 0.5, 0.36).sum()
    centre = [np.sin(0.4), 0.0, np.cos(0.4)]
    assert ball_probability(axes, centre, 0.5).probability == pytest.approx(both, rel=1e-12)
    assert ball_probability(axes, centre, 0.5, t=0.2).probability == pytest.approx(
        ball_law(sphere, np.array([0.4, np.pi - 0.4]), 0.5, 0.56).sum(), rel=1e-12)


def test_ball_probability_draws_where_it_must_and_says_so():
    est = RDKSEstimator(Box([(0.0, 1.0)]), bandwidth=0.3).fit([[0.2]])
    wall = ball_probability(est, [0.0], 0.25, random_state=0)  # overlaps its image behind the wall
    assert wall.method == "monte_carlo"
    law = stats.norm(0.2, 0.3)
    inside = sum(law.cdf(m + 0.25) - law.cdf(m - 0.25) for m in (-2, 0, 2))
    assert abs(wall.probability - inside) < 4 * wall.standard_error
    for centre, radius in ((0.0, 0.25), (0.1, 0.15)):
        with pytest.raises(UnsupportedError, match="overlaps its images"):
            ball_probability(est, [centre], radius, method="exact")
    assert ball_probability(est, [0.5], 0.1).method == "exact"
    both = RDKSEstimator(Torus(2), bandwidth=0.3).fit([[0.2, 0.1]])
    with pytest.raises(UnsupportedError, match="not a space form"):
        ball_probability(both, [0.0, 0.0], 0.25, method="exact")


def test_bad_input_is_refused():
    est = RDKSEstimator(bandwidth=1.0).fit(np.array([[0.0], [1.0]]))
    one = RDKSEstimator(bandwidth=1.0).fit(np.array([[0.0]]))
    for call, message in [
            (lambda: density_bands(est, [[0.0]], level=95), "level = 95"),
            (lambda: density_bands(est, [[0.0]], method="jackknife"), "jackknife"),
            (lambda: density_bands(est, [[0.0]], n_bootstrap=2.5), "n_bootstrap"),
            (lambda: density_bands(est, [[0.0]], t=-1.0), "t = -1"),
            (lambda: density_bands(one, [[0.0]]), "n_samples=1"),
            (lambda: influence(one), "n_samples=1"),
            (lambda: highest_density_region(est, 0.0), "probability"),
            (lambda: highest_density_region(est, 0.9999, n_samples=1000), "fewer than ten"),
            (lambda: region_probability(est, lambda X: X), "one boolean|booleans"),
            (lambda: ball_probability(est, [0.0], -1.0), "radius"),
            (lambda: ball_probability(est, [0.0], 1.0, method="series"), "series")]:
        with pytest.raises(ValueError, match=message):
            call()


def test_streams_have_no_observations(monkeypatch, rng):
    monkeypatch.setattr("rdks.spectral._KEEP", 100)
    est = RDKSEstimator(Circle(), bandwidth=0.3, engine="spectral")
    for _ in range(2):
        est.partial_fit(rng.vonmises(0.0, 3.0, (80, 1)))
    for call in (lambda: density_bands(est, [[0.0]]), lambda: influence(est),
                 lambda: effective_sample_size(est, [[0.0]]),
                 lambda: ball_probability(est, [0.0], 0.5, method="exact")):
        with pytest.raises(UnsupportedError, match="stream"):
            call()
    assert effective_sample_size(est) == pytest.approx(160)
    drawn = ball_probability(est, [0.0], 0.5, random_state=0)
    assert drawn.method == "monte_carlo" and 0.2 < drawn.probability < 0.9
    assert highest_density_region(est, 0.5, random_state=0).contains([[0.0]])[0]


def test_in_a_mixture_an_observation_is_all_its_sources():
    rng = np.random.default_rng(21)
    X = np.concatenate([[0, 3] + 0.05 * rng.standard_normal((20, 2)), rng.standard_normal((20, 2)) * [2.0, 0.05]])
    X = np.concatenate([X, rng.uniform(0, 6, (10, 2))]) % (2 * np.pi)
    weight = rng.uniform(0.5, 1.5, 50)
    est = RDKSEstimator(Torus(2), bandwidth="mixture").fit(X, sample_weight=weight)
    total, (owner, share) = est._sum, est._owner
    assert len(owner) > 60 and np.isclose(share.sum(), 1)
    Q = rng.uniform(0, 2 * np.pi, (7, 2))
    kernel = np.zeros((7, 50))  # of each observation, with its part of the uniform law
    for i in range(50):
        mine = np.flatnonzero(owner == i)
        part = total.like(total.Z[mine], total.weight[mine], total.time[mine])
        kernel[:, i] = np.exp(part.evaluate(Q).log_density) * total.share[mine].sum() / share[i]
    kernel += total.share[owner < 0].sum() / (4 * np.pi**2)
    p = kernel @ share
    np.testing.assert_allclose(np.log(p), est.score_samples(Q), atol=1e-6)
    s = kernel * share / p[:, None]
    bands = density_bands(est, Q)
    s2, s3 = share @ share, (share**3).sum()
    np.testing.assert_allclose(bands.standard_error**2, s2 / (s2 - 2 * s3 + s2**2) * ((s - share) ** 2).sum(axis=1),
                               rtol=1e-6)
    np.testing.assert_allclose(effective_sample_size(est, Q), 1 / (s**2).sum(axis=1), rtol=1e-6)
    assert effective_sample_size(est) == pytest.approx(1 / s2) and effective_sample_size(est) <= 50
    with pytest.raises(UnsupportedError, match="another fit"):
        influence(est)
