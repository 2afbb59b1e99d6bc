"""Products and SPD matrices against formulas written out here."""
import numpy as np
import pytest
from scipy.linalg import expm, logm

from rdks import RDKSEstimator
from rdks.errors import DuplicatesWarning, PointError
from rdks.manifolds import (
    SPD,
    Circle,
    Euclidean,
    Manifold,
    Product,
    SpaceForm,
    Sphere,
    from_name,
    load_geomstats,
)


def random_spd(rng, count, n):
    A = 0.5 * rng.standard_normal((count, n, n))
    return np.array([expm(a + a.T) for a in A])


@pytest.mark.parametrize("n", [1, 2, 4])
def test_spd_kernel_is_gaussian_in_matrix_logarithms(n):
    rng = np.random.default_rng(n)
    X, Q, t = random_spd(rng, 5, n), random_spd(rng, 4, n), 0.3
    d = n * (n + 1) // 2
    squares = np.array([[np.sum((logm(q) - logm(x)) ** 2) for x in X] for q in Q])
    expected = np.log(np.exp(-squares / (2 * t)).mean(1)) - 0.5 * d * np.log(2 * np.pi * t)
    est = RDKSEstimator(SPD(n), bandwidth=np.sqrt(t)).fit(X)
    assert np.allclose(est.score_samples(Q), expected, rtol=1e-10)
    assert np.allclose(RDKSEstimator("spd", bandwidth=np.sqrt(t)).fit(X.reshape(5, -1)).score_samples(
        Q.reshape(4, -1)), expected, rtol=1e-10)


def test_spd_score_is_the_gradient_in_the_log_euclidean_metric():
    """d/de log p along exp(log X + e W) is the metric product of the score with the velocity of that curve."""
    rng = np.random.default_rng(0)
    X, Q = random_spd(rng, 6, 3), random_spd(rng, 3, 3)
    est = RDKSEstimator(SPD(3), bandwidth=0.7).fit(X)
    score, e = est.score_field(Q), 1e-5
    assert score.shape == Q.shape and np.allclose(score, score.transpose(0, 2, 1))
    for q, s in zip(Q, score, strict=True):
        W = rng.standard_normal((3, 3))
        W = W + W.T
        curve = [expm(logm(q) + k * e * W) for k in (-1, 1)]
        slope = np.diff(est.score_samples(np.array(curve)))[0] / (2 * e)
        # the metric at q, by differences of the logarithm along the score
        log_score = (logm(q + e * s) - logm(q - e * s)) / (2 * e)
        assert slope == pytest.approx(np.sum(log_score * W), rel=1e-6)


def test_spd_distance_is_that_of_geomstats():
    load_geomstats()
    from geomstats.geometry.spd_matrices import SPDLogEuclideanMetric, SPDMatrices
    space = SPDMatrices(3, equip=False)
    space.equip_with_metric(SPDLogEuclideanMetric)
    rng = np.random.default_rng(1)
    X, Y = random_spd(rng, 6, 3), random_spd(rng, 6, 3)
    ours = SPD(3).dist(SPD(3).embed(X), SPD(3).embed(Y))
    assert np.allclose(ours, space.metric.dist(X, Y), rtol=1e-9)


@pytest.mark.parametrize("bad, message", [
    (np.array([[1.0, 0.2], [0.1, 1.0]]), "asymmetry"),
    (np.diag([1.0, 0.0]), r"= 1 exceeds"),
    (np.diag([1.0, -0.5]), r"= 1.5 exceeds"),
    (np.zeros((2, 2)), "= inf exceeds"),
])
def test_matrices_that_are_not_spd(bad, message):
    with pytest.raises(PointError, match=f"X\\[1\\] is not on SPD.*{message}"):
        RDKSEstimator(SPD(2), bandwidth=0.5).fit(np.array([np.eye(2), bad]))
    with pytest.raises(ValueError, match="square matrix"):
        from_name("spd", 5)


def test_product_factorises_with_charts_and_units():
    rng = np.random.default_rng(2)
    space = Product(Sphere(2, coords="latlon_deg"), Circle(period=24.0), SPD(2))
    parts = [(Sphere(2, coords="latlon_deg"), np.column_stack([rng.uniform(-80, 80, 1), rng.uniform(-180, 180, 1)])),
             (Circle(period=24.0), rng.uniform(0, 24, (1, 1))), (SPD(2), random_spd(rng, 1, 2).reshape(1, 4))]
    X = np.concatenate([x for _, x in parts], axis=1)
    Q = np.concatenate([parts[0][1] + 3.0, parts[1][1] + 1.0, random_spd(rng, 1, 2).reshape(1, 4)], axis=1)
    est = RDKSEstimator(space, bandwidth=0.4).fit(X)
    start, total, scores = 0, 0.0, []
    for part, x in parts:
        stop = start + x.shape[1]
        one = RDKSEstimator(part, bandwidth=0.4).fit(x)
        total += one.score_samples(Q[:, start:stop])[0]
        scores.append(one.score_field(Q[:, start:stop]))
        start = stop
    assert est.score_samples(Q)[0] == pytest.approx(total, rel=1e-12)
    assert np.allclose(est.score_field(Q), np.concatenate(scores, axis=1), rtol=1e-9)
    assert est.sample(5, random_state=0).shape == (5, 7)
    with pytest.raises(PointError, match="latitude"):
        est.score_samples(np.concatenate([[[95.0, 0.0]], Q[:, 2:]], axis=1))


def test_products_choose_a_bandwidth():
    rng = np.random.default_rng(3)
    X = np.column_stack([rng.vonmises(0, 4, 300), 0.5 * rng.standard_normal(300)])
    for rule in ("lcv", "lscv", "isj", "rot"):
        h = RDKSEstimator(Product(Circle(), Euclidean(1)), bandwidth=rule).fit(X).bandwidth_
        assert 0.05 < h < 0.6


@pytest.mark.parametrize("parts", [(), (3,), (Circle(), "sphere")])
def test_a_product_of_what_is_no_manifold(parts):
    with pytest.raises(ValueError, match="Product: expected one or more"):
        Product(*parts)


def test_a_circle_of_ones_own_wraps_like_those_of_the_package():
    """The least code that makes a cylinder: equal angles are equal points, draws lie within one turn."""
    class Cylinder(Manifold):
        dim = 2
        point_shape = (2,)

        def factors(self):
            return SpaceForm(1, period=6.0), SpaceForm(1)

    X = np.array([[0.0, 0.0], [6.0, 0.0], [3.0, 1.0], [-3.0, 1.0]])
    with pytest.warns(DuplicatesWarning, match="2 of 4 rows"):
        assert 0 < RDKSEstimator(Cylinder()).fit(X).bandwidth_ < np.inf
    Y = RDKSEstimator(Cylinder(), bandwidth=2.0).fit(X).sample(500, random_state=0)
    assert Y[:, 0].min() >= 0 and Y[:, 0].max() < 6
