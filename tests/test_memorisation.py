"""Distances to the nearest datum by hand, by brute force and in law; neighbours at both ends of time; the picture."""
import numpy as np
import pytest

from rdks import RDKSEstimator
from rdks.errors import PointError
from rdks.manifolds import (
    SO3,
    Box,
    Circle,
    Euclidean,
    Hyperbolic,
    Product,
    ProjectiveSpace,
    SpecialUnitary,
    Sphere,
    Torus,
)
from rdks.memorisation import effective_neighbors, nearest_ratio, neighbors_along, stopping_curve


def cap(n, rng):
    """Points around two places of the sphere."""
    X = 0.35 * rng.standard_normal((n, 3)) + np.where(rng.uniform(size=(n, 1)) < 0.5, [[1, 0, 0.5]], [[0, -1, -0.3]])
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def test_by_hand():
    X = np.array([[7.0], [7.0], [0.0], [1.0], [3.0]])  # a copy counts once: to the nearest 1, 1, 2, 4
    found = nearest_ratio(np.array([[7.0], [0.2], [4.5], [100.0]]), X)
    assert found.typical == 1.5 and found.nearest[1:3].tolist() == [2, 4] and found.nearest[0] in (0, 1)
    assert np.allclose(found.distance, [0.0, 0.2, 1.5, 93.0], rtol=1e-14)
    assert np.allclose(found.ratio, [0.0, 0.4 / 3, 1.0, 62.0], rtol=1e-14)
    assert np.allclose(found.gap, [0.0, 0.25, 0.6, 93 / 97], rtol=1e-14)
    assert found.memorised == 0.5 and np.isclose(found.median, 1.7 / 3)
    # across the seam of a circle, and from one side of an axis to the other
    found = nearest_ratio([[23.5]], [[0.5], [3.0], [12.0]], Circle(period=24.0))
    assert np.isclose(found.distance[0], 1.0) and np.isclose(found.gap[0], 1 / 3.5) and found.typical == 2.5
    axes = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    found = nearest_ratio([[0.0, np.sin(0.1), -np.cos(0.1)]], axes, ProjectiveSpace(2))
    assert np.isclose(found.distance[0], 0.1) and np.isclose(found.typical, np.pi / 2)
    assert np.isclose(found.gap[0], 0.1 / (np.pi / 2 - 0.1))


@pytest.mark.parametrize("manifold", [Torus(2), Sphere(3, radius=2.0), Box([(0, 1), (0, 2)]), SO3(symmetry="cubic"),
                                      Hyperbolic(2), Product(Sphere(2), Sphere(2, radius=3.0)), SpecialUnitary(2)],
                         ids=lambda m: repr(m)[:20])
def test_against_all_distances(manifold):
    rng = np.random.default_rng(0)
    Z, Q = manifold.random(80, rng), manifold.random(15, rng)
    found = nearest_ratio(manifold.unembed(Q), manifold.unembed(Z), manifold)
    far = np.array([manifold.dist(np.repeat(q[None], 80, 0), Z) for q in Q])
    order = np.sort(far, axis=1)
    assert np.array_equal(found.nearest, far.argmin(axis=1))
    assert np.allclose(found.distance, order[:, 0], rtol=1e-6, atol=1e-9)
    assert np.allclose(found.gap, order[:, 0] / order[:, 1], rtol=1e-6)
    among = np.array([np.sort(manifold.dist(np.repeat(z[None], 80, 0), Z))[1] for z in Z])
    if not isinstance(manifold, Product):  # whose neighbours among the data are sorted by chords
        assert np.isclose(found.typical, np.median(among), rtol=1e-6)
    assert np.isclose(found.typical, np.median(among), rtol=0.05)


def test_copies_give_zero_and_new_data_one():
    rng = np.random.default_rng(1)
    X = cap(2000, rng)
    copies = nearest_ratio(X[::7], X, Sphere(2))
    assert copies.median == 0.0 and copies.memorised == 1.0 and np.array_equal(copies.nearest, np.arange(0, 2000, 7))
    fresh = nearest_ratio(cap(4000, rng), X)  # "auto" finds the sphere
    # the standard error of the median of a ratio whose square is exponential is 1.2 / sqrt(n) of itself; twice, for
    # the neighbourhoods of samples are not independent
    assert abs(fresh.median - 1) < 4 * 2 * 1.2 / np.sqrt(2000)
    # in two dimensions the squared gap is uniform
    assert abs(fresh.memorised - 1 / 9) < 4 * np.sqrt(8 / 81 / 2000)
    assert abs((fresh.gap**2).mean() - 0.5) < 4 * np.sqrt(1 / 12 / 2000) + 0.01


def test_wrong_data():
    with pytest.raises(ValueError, match="2 different points; expected at least 3"):
        nearest_ratio([[0.0]], [[1.0], [2.0], [1.0]])
    with pytest.raises(PointError):
        nearest_ratio([[0.0, 0.0, 1.0]], 2 * np.eye(3), Sphere(2))
    with pytest.raises(ValueError, match="different shapes"):
        nearest_ratio([[0.0, 1.0]], [[0.0], [1.0], [2.0]])
    for bad in ([], [0.0, 1.0], [np.inf], [[1.0]]):
        with pytest.raises(ValueError, match="positive, finite"):
            stopping_curve([[0.0], [1.0], [2.0]], [[0.5]], bad)


def test_neighbors_at_both_ends_of_time():
    rng = np.random.default_rng(2)
    X = cap(50, rng)
    est = RDKSEstimator(Sphere(2), bandwidth=1e-4).fit(X)
    Q = cap(20, rng)
    assert np.allclose(effective_neighbors(est, Q), 1.0, rtol=1e-6)
    assert np.allclose(effective_neighbors(est, Q, 40.0), 50.0, rtol=1e-6)
    times = [40.0, 1.0, 0.1, 0.01, 0.0]
    path = neighbors_along(est, (times, [Q] * 5))
    assert path.shape == (5, 20) and (np.diff(path.mean(axis=1)) < 0).all()
    assert np.allclose(path[2], effective_neighbors(est, Q, 0.1), rtol=1e-12)
    # by hand at one place
    k = np.exp(Sphere(2).log_heat_kernel(X, np.repeat(Q[:1], 50, 0), 0.1 + 1e-8))
    assert np.isclose(path[2, 0], k.sum() ** 2 / (k**2).sum(), rtol=1e-6)
    with pytest.raises(ValueError, match="2 times and points at 1"):
        neighbors_along(est, ([1.0, 0.0], [Q]))


def test_neighbors_along_a_reverse_diffusion():
    from rdks.sampling import reverse_sde
    rng = np.random.default_rng(3)
    est = RDKSEstimator(Sphere(2), bandwidth=0.05).fit(cap(30, rng))
    trajectory = reverse_sde(est, 20, tol=0.05, keep=5, random_state=0)
    count = neighbors_along(est, trajectory)
    assert count.shape == (5, 20)
    assert (count[0] > 29).all() and count[-1].mean() < 5


def test_stopping_curve():
    rng = np.random.default_rng(4)
    train, test = cap(200, rng), cap(400, rng)
    times = np.geomspace(1e-7, 1.0, 8)
    curve = stopping_curve(train, test, times[::-1], n_samples=500, random_state=0)
    assert np.array_equal(curve.times, times)
    assert (np.diff(curve.nearest_ratio) > 0).all()
    assert (np.diff(curve.memorised) < 0.03).all()  # nearly so
    assert curve.memorised[0] > 0.95 and abs(curve.memorised[-1] - 1 / 9) < 0.06
    assert (np.diff(curve.effective_neighbors) >= -1e-9).all() and abs(curve.effective_neighbors[0] - 1) < 1e-9
    # small times: the distance is that of a Gaussian step, of median sqrt(2 log 2 t) in two dimensions
    typical = nearest_ratio(test, train).typical
    assert np.isclose(curve.nearest_ratio[0], np.sqrt(2 * np.log(2) * times[0]) / typical, rtol=4 / np.sqrt(500))
    best = int(np.argmax(curve.log_likelihood))
    assert 0 < best < 7 and curve.best_time == times[best]
    est = RDKSEstimator(Sphere(2), bandwidth=float(np.sqrt(times[best]))).fit(train)
    assert np.isclose(curve.log_likelihood[best], est.score_samples(test).mean(), rtol=1e-9)
    assert np.isclose(curve.effective_neighbors[best], np.median(effective_neighbors(est, test)), rtol=1e-9)
    assert curve.fresh_ratio == nearest_ratio(test, train).median
    assert curve.fresh_memorised == nearest_ratio(test, train).memorised
    # stopping where held-out data are likeliest draws points that are about as far from the data as new ones
    assert 0.5 < curve.nearest_ratio[best] / curve.fresh_ratio < 2
    flat = stopping_curve(train[:, :2], test[:, :2], [0.01], Euclidean(2), n_samples=50, random_state=0)
    assert flat.times.shape == flat.nearest_ratio.shape == (1,)


def test_picture():
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure
    rng = np.random.default_rng(5)
    curve = stopping_curve(cap(50, rng), cap(50, rng), np.geomspace(1e-4, 1, 4), n_samples=50, random_state=0)
    axes = Figure().subplots(2, 1)
    top, bottom = curve.plot(axes)
    assert np.array_equal(top.lines[0].get_ydata(), curve.nearest_ratio)
    assert np.array_equal(bottom.lines[0].get_xdata(), curve.times)
    low, high = bottom.get_ylim()
    assert low < curve.log_likelihood.max() < high
    assert "held-out" in bottom.get_ylabel() and top.get_yscale() == "log"
