"""Kernel tests: statistics against direct formulas, levels and power by simulation."""
import numpy as np
import pytest
from scipy import stats

from rdks import RDKSEstimator
from rdks.errors import UnsupportedError
from rdks.hypothesis import (
    _Fitted,
    _matrix_sums,
    _Score,
    _spectral_sums,
    _stein_matrix,
    goodness_of_fit_test,
    two_sample_test,
)
from rdks.manifolds import (
    SPD,
    Box,
    Circle,
    Euclidean,
    Graph,
    Hyperbolic,
    OrnsteinUhlenbeck,
    Product,
    ProjectiveSpace,
    Sphere,
    Torus,
)

RING = Graph(np.roll(np.eye(7), 1, 0) + np.roll(np.eye(7), -1, 0))


def unbiased(K, first):
    """The estimate of the squared distance as it is defined, by loops over the labels."""
    x, y = np.flatnonzero(first), np.flatnonzero(1 - first)
    own = [K[np.ix_(a, a)][~np.eye(len(a), dtype=bool)].mean() for a in (x, y)]
    return own[0] + own[1] - 2 * K[np.ix_(x, y)].mean()


# two samples

def test_statistics_are_the_unbiased_distance(rng):
    X, Y = rng.standard_normal((7, 2)), rng.standard_normal((5, 2)) + 1
    h = [0.5, 2.0]
    result = two_sample_test(X, Y, bandwidth=h, n_permutations=39, random_state=0)
    Z = np.concatenate([X, Y])
    square = ((Z[:, None] - Z) ** 2).sum(axis=-1)
    expected = [unbiased(np.exp(-0.5 * square / t) / (2 * np.pi * t), np.repeat([1, 0], [7, 5]))
                for t in np.square(h)]
    np.testing.assert_allclose(result.statistics, expected, rtol=1e-11)
    np.testing.assert_array_equal(result.bandwidths, h)
    assert result.pvalue == (1 + np.sum(result.null >= result.statistic)) / 40 and len(result.null) == 39
    swapped = two_sample_test(Y, X, bandwidth=h, n_permutations=39, random_state=0)
    np.testing.assert_allclose(swapped.statistics, expected, rtol=1e-11)


def test_permutations_are_standardised_together_with_the_data(rng):
    X, Y = rng.standard_normal((6, 1)), rng.standard_normal((6, 1))
    result = two_sample_test(X, Y, bandwidth=1.0, n_permutations=200, random_state=0)
    every = np.append(result.null, result.statistic)
    assert every.mean() == pytest.approx(0, abs=1e-12) and every.std() == pytest.approx(1, rel=1e-12)
    assert result.pvalues[0] == result.pvalue


@pytest.mark.parametrize("manifold", [Sphere(2), Circle(24.0), Box([(0.0, 1.0), (0.0, 2.0)]), ProjectiveSpace(2)],
                         ids=repr)
def test_coefficients_and_kernel_matrix_agree(manifold, rng):
    Z = manifold.random(30, rng)
    labels = rng.permuted(np.tile(np.repeat([1.0, 0.0], [12, 18]), (5, 1)), axis=1)
    times = np.array([0.05, 0.4]) * min(manifold.scales) ** 2
    found = []
    for sums in (_matrix_sums, _spectral_sums):
        xx, yy, both, log_scale = sums(manifold, Z, labels, times)
        found.append((xx / 132 + yy / 306 - (both - xx - yy) / 216) * np.exp(log_scale))
    K = np.exp([manifold.log_heat_kernel(np.repeat(Z, 30, axis=0), np.tile(Z, (30, 1)), float(t)).reshape(30, 30)
                for t in times])
    expected = [[unbiased(k, first) for k in K] for first in labels]
    scale = np.exp(log_scale)
    np.testing.assert_allclose(found[0] / scale, expected / scale, atol=1e-12)
    np.testing.assert_allclose(found[1] / scale, expected / scale, atol=1e-11)


@pytest.mark.parametrize("manifold", [Hyperbolic(2), SPD(2, metric="affine_invariant"), RING,
                                      Product(Sphere(2), Euclidean(1), times=(0.1, 1.0))], ids=repr)
def test_two_samples_on_other_spaces(manifold, rng):
    X, Y = (manifold.unembed(manifold.random(15, rng)) for _ in range(2))
    result = two_sample_test(X, Y, manifold, n_permutations=19, random_state=0)
    assert np.isfinite(result.statistics).all() and len(result.bandwidths) == 8
    assert (np.diff(result.bandwidths) > 0).all() and 0.05 <= result.pvalue <= 1


def test_level_and_power_of_two_samples(rng):
    def pvalue(shift):
        X, Y = rng.vonmises(0.0, 2.0, (15, 1)), rng.vonmises(shift, 2.0, (25, 1))
        return two_sample_test(X, Y, Circle(), bandwidth=[0.3, 1.0], n_permutations=19, random_state=rng).pvalue

    null = np.array([pvalue(0.0) for _ in range(200)])
    assert abs((null <= 0.2).mean() - 0.2) < 4 * np.sqrt(0.16 / 200)
    assert abs((null <= 0.5).mean() - 0.5) < 4 * np.sqrt(0.25 / 200)
    assert np.mean([pvalue(1.5) <= 0.05 for _ in range(40)]) > 0.8


def test_equal_points_are_no_evidence():
    result = two_sample_test(np.ones((5, 1)), np.ones((6, 1)), bandwidth=1.0, n_permutations=19, random_state=0)
    assert result.pvalue == 1 and result.statistic == 0


def test_many_points_need_coefficients_or_a_subset(monkeypatch, rng):
    monkeypatch.setattr("rdks.hypothesis._MATRIX", 30)
    monkeypatch.setattr("rdks.hypothesis._MOST", 40)
    X, Y = rng.uniform(0, 6, (25, 1)), rng.uniform(0, 6, (25, 1))
    assert two_sample_test(X, Y, Circle(), bandwidth=1.0, n_permutations=9, random_state=0).method == "spectral"
    with pytest.raises(ValueError, match="50 points are too many .* subset=40"):
        two_sample_test(X, Y, bandwidth=1.0, n_permutations=9)
    part = two_sample_test(X, Y, bandwidth=1.0, n_permutations=9, subset=20, random_state=0)
    assert part.method == "matrix"


# a sample and a density

def test_distance_to_a_model_is_closed_form(rng):
    places, w = np.array([0.0, 2.0]), np.array([0.25, 0.75])
    est = RDKSEstimator(bandwidth=0.7).fit(places[:, None], sample_weight=w)
    X, h = rng.standard_normal(9), np.array([0.4, 1.5])
    result = goodness_of_fit_test(est, X[:, None], bandwidth=h, n_bootstrap=19, random_state=0)
    for value, t in zip(result.statistics, h**2, strict=True):
        own = stats.norm.pdf(X[:, None] - X, scale=np.sqrt(t))[~np.eye(9, dtype=bool)].mean()
        cross = stats.norm.pdf(X[:, None] - places, scale=np.sqrt(t + 0.49)) @ w
        overlap = w @ stats.norm.pdf(places[:, None] - places, scale=np.sqrt(t + 0.98)) @ w
        assert value == pytest.approx(own - 2 * cross.mean() + overlap, rel=1e-10)
    assert result.pvalue == (1 + np.sum(result.null >= result.statistic)) / 20


def test_overlap_of_sources_of_different_times():
    est = RDKSEstimator(bandwidth=0.7).fit([[0.0], [2.0]])
    est._sum = est._sum.at(np.array([0.3, 1.1]))
    gap, time = np.array([[0, 2], [2, 0]]), np.array([[0.6, 1.4], [1.4, 2.2]]) + 0.5
    expected = stats.norm.pdf(gap, scale=np.sqrt(time)).mean()
    assert _Fitted(est).log_overlap(0.5) == pytest.approx(np.log(expected), rel=1e-12)


def test_uniformity_at_large_bandwidth_is_the_rayleigh_test(rng):
    X = rng.vonmises(0.0, 0.5, (30, 1))
    result = goodness_of_fit_test(None, X, manifold=Circle(), bandwidth=3.0, n_bootstrap=19, random_state=0)
    square = np.abs(np.exp(1j * X).sum()) ** 2
    # the next mode is below exp(-13) of the first
    assert result.statistics[0] == pytest.approx(np.exp(-4.5) / np.pi * (square - 30) / 870, rel=1e-4)


@pytest.mark.parametrize("n", [20, 160])
def test_pairs_by_matrix_and_by_engine(n, rng):
    X = Sphere(2).random(n, rng)
    result = goodness_of_fit_test(None, X, manifold=Sphere(2), bandwidth=0.6, n_bootstrap=2, random_state=0)
    K = np.exp(Sphere(2).log_heat_kernel(np.repeat(X, n, axis=0), np.tile(X, (n, 1)), 0.36)).reshape(n, n)
    expected = K[~np.eye(n, dtype=bool)].mean() - 1 / (4 * np.pi)
    assert result.statistics[0] == pytest.approx(expected, abs=1e-7 * K[0, 0])


def test_level_and_power_of_goodness_of_fit(rng):
    est = RDKSEstimator(Circle(), bandwidth=0.4).fit(rng.vonmises(0.0, 2.0, (50, 1)))

    def pvalue(X, model=est):
        return goodness_of_fit_test(model, X, manifold=Circle(), bandwidth=[0.3, 1.0], n_bootstrap=19,
                                    random_state=rng).pvalue

    null = np.array([pvalue(est.sample(15, rng)) for _ in range(100)])
    assert abs((null <= 0.2).mean() - 0.2) < 4 * np.sqrt(0.16 / 100)
    assert abs((null <= 0.5).mean() - 0.5) < 4 * np.sqrt(0.25 / 100)
    assert np.mean([pvalue(rng.vonmises(1.5, 2.0, (25, 1))) <= 0.05 for _ in range(25)]) > 0.7
    assert np.mean([pvalue(rng.vonmises(1.5, 2.0, (25, 1)), None) <= 0.05 for _ in range(25)]) > 0.7


def test_models_on_other_spaces(rng):
    for manifold in (RING, Hyperbolic(2), Torus(2)):
        est = RDKSEstimator(manifold, bandwidth=0.5).fit(manifold.unembed(manifold.random(12, rng)))
        result = goodness_of_fit_test(est, est.sample(10, rng), n_bootstrap=9, random_state=0)
        assert np.isfinite(result.statistics).all() and 0.1 <= result.pvalue <= 1


# Stein

@pytest.mark.parametrize("t", [0.02, 0.5])
def test_stein_kernel_on_the_line(t, rng):
    # p = N(0, 1) and k(x - y): A_x A_y k = k'''' + (y - x) k''' - x y k''
    Z = rng.standard_normal((12, 1))
    D = Z - Z.T
    k = stats.norm.pdf(D, scale=np.sqrt(t))
    second, third = D**2 / t**2 - 1 / t, 3 * D / t**2 - D**3 / t**3
    fourth = 3 / t**2 - 6 * D**2 / t**3 + D**4 / t**4
    expected = (fourth - D * third - Z * Z.T * second) * k
    found, log_scale = _stein_matrix(Euclidean(1), Z, -Z, t)
    np.testing.assert_allclose(found * np.exp(log_scale), expected, atol=1e-7 * np.abs(expected).max())


def test_stein_kernel_on_the_circle_by_eigenfunctions(rng):
    Z, t, mode = rng.uniform(0, 2 * np.pi, (12, 1)), 0.1, np.arange(-60, 61)
    slope = -1.5 * np.sin(Z)  # von Mises
    image = (1j * mode * slope - mode**2) * np.exp(1j * mode * Z)
    expected = ((image * np.exp(-0.5 * mode**2 * t)) @ image.conj().T).real / (2 * np.pi)
    found, log_scale = _stein_matrix(Circle(), Z, slope, t)
    np.testing.assert_allclose(found * np.exp(log_scale), expected, atol=1e-7 * np.abs(expected).max())


def test_stein_kernel_has_mean_zero_on_the_sphere():
    height, weight = np.polynomial.legendre.leggauss(12)
    turn = np.arange(20) * np.pi / 10
    arm = np.sqrt(1 - height**2)
    Z = np.stack([np.outer(arm, np.cos(turn)), np.outer(arm, np.sin(turn)), np.outer(height, np.ones(20))], axis=-1)
    Z, p = Z.reshape(-1, 3), np.repeat(weight * np.exp(2 * height), 20)  # von Mises-Fisher
    slope = 2 * (np.array([0, 0, 1]) - Z[:, 2:] * Z)
    U, _ = _stein_matrix(Sphere(2), Z, slope, 0.5)
    assert np.abs(p @ U / p.sum()).max() < 1e-8 * np.abs(U).max()
    assert np.linalg.eigvalsh(U)[0] > -1e-7 * np.abs(U).max()
    wrong, _ = _stein_matrix(Sphere(2), Z, 1.1 * slope, 0.5)
    assert np.abs(p @ wrong / p.sum()).max() > 1e-3 * np.abs(U).max()


class _Model:
    """A score model that is no estimator."""

    def __init__(self, est):
        self.est, self.manifold_ = est, est.manifold_

    def score_field(self, X):
        return self.est.score_field(X)


@pytest.mark.parametrize("manifold", [Sphere(2, coords="latlon_deg"), Hyperbolic(2, coords="ball"),
                                      Product(Circle(24.0), Euclidean(1), times=(4.0, 1.0))], ids=repr)
def test_scores_in_charts_are_read_back(manifold, rng):
    est = RDKSEstimator(manifold, bandwidth=0.8).fit(manifold.unembed(manifold.random(9, rng)))
    Z = manifold.random(5, rng)
    np.testing.assert_allclose(_Score(_Model(est)).gradient(Z), est._sum.evaluate(Z, 0.0, 1).gradient, atol=1e-9)


def test_level_and_power_of_stein(rng):
    est = RDKSEstimator(Circle(), bandwidth=0.4).fit(rng.vonmises(0.0, 2.0, (50, 1)))

    def pvalue(X):
        return goodness_of_fit_test(_Model(est), X, method="stein", bandwidth=1.2, n_bootstrap=39,
                                    random_state=rng).pvalue

    null = np.array([pvalue(est.sample(40, rng)) for _ in range(100)])
    assert abs((null <= 0.2).mean() - 0.2) < 0.04 + 4 * np.sqrt(0.16 / 100)  # the wild bootstrap is asymptotic
    assert np.mean([pvalue(rng.vonmises(1.5, 2.0, (40, 1))) <= 0.05 for _ in range(20)]) > 0.7
    by_name = goodness_of_fit_test(est, est.sample(20, rng), method="stein", n_bootstrap=9, random_state=0)
    assert by_name.method == "stein" and len(by_name.bandwidths) == 3


# refusals

def test_bad_input_is_refused(rng):
    X = rng.standard_normal((5, 2))
    est = RDKSEstimator(bandwidth=0.5).fit(X)
    for call, message in [
            (lambda: two_sample_test(X, X[:1]), "5 and 1 points"),
            (lambda: two_sample_test(X, X[:, :1]), "different shapes"),
            (lambda: two_sample_test(X, X, bandwidth=-1.0), "bandwidth"),
            (lambda: two_sample_test(X, X, bandwidth="lcv"), "bandwidth"),
            (lambda: two_sample_test(X, X, method="fast"), "method"),
            (lambda: two_sample_test(X, X, n_permutations=0), "n_permutations"),
            (lambda: two_sample_test(np.ones((3, 1)), np.ones((3, 1))), "all points are equal"),
            (lambda: goodness_of_fit_test(None, X), "infinite volume"),
            (lambda: goodness_of_fit_test(est, X + 1, method="ks"), "method"),
            (lambda: goodness_of_fit_test(est, X[:1] + 1), "n_samples=1")]:
        with pytest.raises(ValueError, match=message):
            call()
    ou = RDKSEstimator(OrnsteinUhlenbeck(2), bandwidth=0.5).fit(X)
    nodes = RDKSEstimator(RING, bandwidth=0.5).fit([[0.0], [1.0]])
    for call, message in [
            (lambda: two_sample_test(X, X, OrnsteinUhlenbeck(2)), "drift"),
            (lambda: goodness_of_fit_test(ou, X + 1), "drift"),
            (lambda: two_sample_test(X, X, method="spectral"), "not compact"),
            (lambda: goodness_of_fit_test(_Model(est), X), "RDKSEstimator"),
            (lambda: goodness_of_fit_test(nodes, [[0.0], [1.0]], method="stein"), "exact heat kernel")]:
        with pytest.raises(UnsupportedError, match=message):
            call()
    with pytest.warns(UserWarning, match="5 of 5 rows of X are observations"):
        goodness_of_fit_test(est, X, bandwidth=1.0, n_bootstrap=1)
