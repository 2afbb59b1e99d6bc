"""The resolution of data: grids, copies and near-copies are found where they are, and nowhere else."""
import numpy as np
import pytest

from rdks.engines import DirectSum
from rdks.manifolds import SPD, Box, Circle, Euclidean, Hyperbolic, Product, SpecialOrthogonal, Sphere, Torus
from rdks.resolution import near_groups, resolution

EARTH = Sphere(2, coords="latlon_deg", radius=6371.0)


def looked_at(manifold, X, weight=None):
    X = np.asarray(X, dtype=float)
    return resolution(manifold, X, manifold.embed(X.reshape(len(X), *manifold.point_shape)), weight)


def places(n, seed=0):
    """Latitudes and longitudes in degrees, uniform on the sphere, all digits."""
    rng = np.random.default_rng(seed)
    return np.column_stack([np.rad2deg(np.arcsin(rng.uniform(-1, 1, n))), rng.uniform(-180, 180, n)])


# grids


@pytest.mark.parametrize("step", [1.0, 0.25, 0.1, 0.02, 1e-3, 1e-6, 1 / 60, 1 / 3600])
def test_latitudes_and_longitudes_on_a_grid(step):
    X = np.rint(places(400) / step) * step
    found = looked_at(EARTH, X)
    assert found.step == pytest.approx((step, step), rel=1e-12)
    # a parallel at latitude a is shorter than the equator by cos a, and longitudes are the finer column
    assert found.length == pytest.approx(np.deg2rad(step) * 6371 * np.median(np.cos(np.deg2rad(X[:, 0]))), rel=1e-5)
    assert found.floor == found.length / 2


def test_the_finest_column_decides_and_one_with_all_digits_means_nothing_is_lost():
    X = places(300)
    assert looked_at(EARTH, np.column_stack([X[:, 0].round(3), X[:, 1].round(1)])).length == pytest.approx(
        np.deg2rad(0.001) * 6371, rel=1e-6)
    found = looked_at(EARTH, np.column_stack([X[:, 0].round(3), X[:, 1]]))
    assert found.step == (0.001, None)
    assert found.length == 0.0


def test_the_step_that_all_values_share_not_the_one_that_most_do():
    X = places(2000)
    X[:1200], X[1200:] = X[:1200].round(1), X[1200:].round(3)  # as lists of earthquakes are
    assert looked_at(EARTH, X).step == (0.001, 0.001)
    X = places(2000).round(3)
    X[::50] = places(40, 1)  # two per cent with all digits are taken for mistakes
    assert looked_at(EARTH, X).step == (0.001, 0.001)
    X[::10] = places(200, 2)
    assert looked_at(EARTH, X).step == (None, None)


def test_vectors_computed_from_rounded_degrees():
    X = places(500).round(2)
    Z = EARTH.embed(X) / 6371
    found, written = resolution(Sphere(2), Z, Z), looked_at(EARTH, X)
    assert found.step == (0.01, 0.01)
    assert found.length == pytest.approx(written.length / 6371, rel=0.1)  # rows next to a pole are left out
    assert "latitudes" in found.reason
    assert resolution(Sphere(2), EARTH.embed(places(500)) / 6371, Z).length == 0.0


def test_angles_in_degrees_written_in_radians():
    X = np.deg2rad(np.random.default_rng(0).integers(0, 720, (200, 2)) / 2)
    assert looked_at(Torus(2), X).length == pytest.approx(np.deg2rad(0.5), rel=1e-9)


def test_integers_and_the_ripple_of_their_grid():
    X = np.arange(-100, 101.0)[:, None]
    found = looked_at(Euclidean(1), X)
    assert found.step == (1.0,)
    between = DirectSum(Euclidean(1), X, np.ones(len(X)), found.floor**2).evaluate(np.array([[0.0], [0.5]]))
    high, low = np.exp(between.log_density)
    assert (high - low) / (high + low) == pytest.approx(2 * np.exp(-np.pi**2 / 2), rel=1e-6)  # Poisson's formula
    assert looked_at(Euclidean(1), 10 * X).step == (10.0,)
    assert looked_at(Euclidean(1), 0.07 * X).step == (0.01,)


def test_even_numbers_by_chance_are_no_coarser_grid():
    rng = np.random.default_rng(1)
    for n in (6, 8, 12):
        assert looked_at(Euclidean(1), 2.0 * rng.choice(1000, size=(n, 1), replace=False)).step[0] in (1.0, 10.0)
    assert looked_at(Euclidean(1), 2.0 * np.arange(1, 101)[:, None]).step == (2.0,)
    # longitudes of which few need five decimals, and half of these few end in an even digit
    X = rng.uniform(10, 180, 1000).round(4)
    X[:100] = rng.uniform(1, 10, 100).round(5)
    assert looked_at(Euclidean(1), X[:, None]).step[0] in (1e-5, 1e-4)


def test_codes_and_constants_are_no_grids():
    rng = np.random.default_rng(0)
    assert looked_at(Euclidean(3), np.eye(3)[rng.integers(3, size=90)]).length == 0.0
    assert looked_at(Euclidean(2), np.column_stack([np.ones(50), rng.standard_normal(50)])).length == 0.0
    rare = np.where(rng.uniform(size=(2000, 1)) < 0.97, 0.0, rng.standard_normal((2000, 1)))
    assert looked_at(Euclidean(1), rare).length == 0.0  # mostly zero, otherwise with all digits


def test_single_precision_and_significant_digits():
    X = np.random.default_rng(0).uniform(1, 2, (300, 2))
    found = looked_at(Euclidean(2), X.astype(np.float32))
    assert found.length == pytest.approx(2.0**-23, rel=1e-9)  # spacing between 1 and 2
    assert "single" in found.reason
    X = places(2000)
    short = np.array([[float(f"{value:.6g}") for value in row] for row in X])
    assert looked_at(EARTH, short).step == (1e-4, 1e-4)
    assert "6 digits" in looked_at(EARTH, short).reason
    assert looked_at(EARTH, X.round(2).astype(np.float32)).step == (0.01, 0.01)


def test_lengths_are_those_of_the_manifold():
    rng = np.random.default_rng(0)
    hours, lengths = rng.uniform(0, 24, 200), rng.standard_normal(200)
    rounded = np.column_stack([np.rint(2 * hours) / 2, lengths.round(1)])
    # the second part diffuses a hundredth as fast, so its lengths count ten times
    space = Product(Circle(24.0), Euclidean(1), times=(4.0, 0.01))
    assert looked_at(space, rounded).length == pytest.approx(0.5 / 2, rel=1e-6)
    assert looked_at(Box([(0.0, 24.0)]), rounded[:, :1]).length == pytest.approx(0.5, rel=1e-6)
    half_plane = np.column_stack([lengths.round(2), (0.5 + rng.uniform(size=200)).round(2)])
    found = looked_at(Hyperbolic(2, coords="half_space", radius=3.0), half_plane)
    assert found.length == pytest.approx(3 * 0.01 / np.median(half_plane[:, 1]), rel=1e-6)
    # a diagonal matrix: log-Euclidean lengths are those of the logarithms
    diagonal = np.exp(rng.standard_normal(100)).round(2) + 0.01
    matrices = diagonal[:, None, None] * np.eye(2)
    assert looked_at(SPD(2), matrices).length == 0.0  # off the diagonal there is nothing to tell


def test_nothing_is_found_in_continuous_data(manifold):
    rng = np.random.default_rng(5)
    slow = manifold.kernel != "factors"
    for n in (2, 3, 10) if slow else (2, 3, 6, 10, 30, 300):
        X = manifold.unembed(manifold.random(n, rng))
        found = looked_at(manifold, X)
        assert (found.length, found.n_copies, found.n_near) == (0.0, 0, 0), found
        assert found.nats_per_decade == 0.0


@pytest.mark.parametrize("space", [Sphere(2), Torus(2), Euclidean(1), Hyperbolic(2)], ids=repr)
def test_nothing_is_found_in_many_continuous_data(space):
    X = space.unembed(space.random(10_000, np.random.default_rng(0)))
    assert looked_at(space, X).reason == "neither a grid nor near-copies were found"


# copies


def test_copies_are_counted_and_cost_what_is_said():
    rng = np.random.default_rng(0)
    space, n = Sphere(2), 300
    Z = space.random(n, rng)
    Z[200:260] = Z[rng.integers(150, size=60)]
    found = resolution(space, Z, Z)
    distinct, counts = np.unique(Z, axis=0, return_counts=True)
    assert (found.n, found.n_copies, found.n_shared) == (n, n - len(distinct), counts[counts > 1].sum())
    assert (found.length, found.n_near) == (0.0, 0)
    data = DirectSum(space, Z, np.ones(n), 0.0)
    gain = data.leave_one_out(1e-12) - data.leave_one_out(1e-10)  # a decade of bandwidth
    gain = gain[gain > 0].sum() / n  # rows without a copy lose without bound
    assert found.nats_per_decade == pytest.approx(gain, rel=1e-6)
    assert f"{found.n_copies} of 300 rows are copies" in found.describe()
    assert f"{found.nats_per_decade:.2g} nats" in found.describe()


def test_zeros_of_both_signs_and_weightless_rows():
    X = np.array([[0.0, 1.5], [-0.0, 1.5], [0.3, 0.1], [0.3, 0.1], [0.7, 0.2]])
    assert looked_at(Euclidean(2), X).n_copies == 2
    found = looked_at(Euclidean(2), X, np.array([1.0, 0.0, 1.0, 1.0, 2.0]))
    assert (found.n, found.n_copies, found.n_shared) == (4, 1, 2)


def nearly_copied(space, n, copies, jitter, rng):
    """Points, the last of which are some of the first but for a jitter; the distances of these pairs."""
    Z = space.random(n, rng)
    which = rng.choice(n - copies, size=copies, replace=False)
    V = space.to_tangent(Z[which], rng.standard_normal((copies, Z.shape[1])))
    if isinstance(space, Hyperbolic):
        V = rng.standard_normal((copies, Z.shape[1]))
    Z[n - copies:] = space.exp(Z[which], jitter * V)
    return Z, which, space.dist(Z[which], Z[n - copies:])


@pytest.mark.parametrize("space", [Sphere(2, radius=6371.0), Torus(2), Euclidean(1), Euclidean(30), Hyperbolic(3),
                                   SPD(3)], ids=repr)
def test_near_copies(space):
    rng = np.random.default_rng(3)
    n, copies = 600, 60
    unit = getattr(space, "radius", 1.0)
    Z, which, distance = nearly_copied(space, n, copies, 1e-9 * unit, rng)
    found = resolution(space, space.unembed(Z).reshape(n, -1), Z)
    assert (found.n_copies, found.n_near, found.n_shared) == (0, copies, 2 * copies)
    assert found.near_distance == pytest.approx(distance.max(), rel=1e-4)  # digits that a jitter of 1e-9 has
    assert found.length == found.near_distance
    assert "60 distinct points are copies but for" in found.describe()
    first, group = near_groups(space, Z, found.near_distance)
    assert len(first) == n - copies
    np.testing.assert_array_equal(group[n - copies:], group[which])
    np.testing.assert_array_equal(first[group[: n - copies]], np.arange(n - copies))


def test_near_copies_on_a_matrix_group():
    rng = np.random.default_rng(0)
    space = SpecialOrthogonal(4)
    Z = space.random(200, rng)
    Z[150:] = space.project(Z[:50] + 1e-10 * rng.standard_normal((50, Z.shape[1])))
    found = resolution(space, Z, Z)
    assert found.n_near == 50
    assert found.near_distance == pytest.approx(space.dist(Z[:50], Z[150:]).max(), rel=0.2)
    assert len(near_groups(space, Z, found.near_distance)[0]) == 150


def test_copies_across_a_seam_and_groups_of_several():
    rng = np.random.default_rng(0)
    X = rng.uniform(0.0, 24.0, (300, 1))
    X[:5] = 1e-9 * np.arange(1, 6)[:, None]  # just after midnight
    X[200:205] = 24.0 - 1e-9 * np.arange(5)[:, None]  # and before: ten in one chain
    X[210:240] = X[10:40] + 1e-9
    day = Circle(24.0)
    found = looked_at(day, X)
    assert found.n_near == pytest.approx(30 + 8, abs=1.5)  # of ten, only four are seen at once
    first, group = near_groups(day, X, found.near_distance * 1.1)
    assert len(first) == 300 - 30 - 9
    assert len(set(group[[0, 4, 200, 204]])) == 1


def test_exact_and_near_copies_together():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((500, 2))
    X[400:450] = X[:50]
    X[450:] = X[50:100] + 1e-11
    found = looked_at(Euclidean(2), X)
    assert (found.n_copies, found.n_near, found.n_shared) == (50, 50, 200)
    X[450:] = X[:50] + 1e-11  # of rows that have an exact copy already
    found = looked_at(Euclidean(2), X)
    assert (found.n_copies, found.n_near, found.n_shared) == (50, 50, 150)


def test_many_rows_are_counted_by_a_sample():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60_000, 2))
    X[50_000:] = rng.permutation(X[:50_000])[:10_000] + 1e-10
    found = looked_at(Euclidean(2), X[rng.permutation(len(X))])
    assert found.n_near == pytest.approx(10_000, rel=0.08)  # four standard errors of 20,000 rows
    assert found.n_shared == pytest.approx(20_000, rel=0.08)


def test_structure_is_not_copies():
    rng = np.random.default_rng(0)
    broad = rng.standard_normal((200, 2))
    spike = 1e-7 * rng.standard_normal((200, 2))
    centres = rng.standard_normal((20, 2))
    clusters = np.repeat(centres, 10, axis=0) + 1e-6 * rng.standard_normal((200, 2))
    line = np.column_stack([rng.standard_normal(200), np.zeros(200) + 1e-8 * rng.standard_normal(200)])
    for X in (np.concatenate([broad, spike]), np.concatenate([broad, clusters]), np.concatenate([broad, line])):
        assert looked_at(Euclidean(2), X).n_near == 0
    # heavy tails and a fractal have pairs at all distances
    assert looked_at(Euclidean(1), rng.standard_cauchy((2000, 1)) ** 3).n_near == 0
    dust = (rng.integers(0, 2, (2000, 20)) * 2 / 3.0 ** np.arange(1, 21)).sum(axis=1)[:, None]
    assert looked_at(Euclidean(1), dust).n_near == 0


def test_a_single_point_and_equal_points():
    assert looked_at(Euclidean(2), np.ones((1, 2))).reason == "neither a grid nor near-copies were found"
    found = looked_at(Euclidean(2), np.ones((7, 2)))
    assert (found.n_copies, found.n_shared, found.length) == (6, 7, 0.0)


def test_a_close_pair_or_two_decades_are_not_enough():
    assert looked_at(Euclidean(1), np.array([[0.0], [1e-6], [1.03], [2.31], [3.17]]) * np.pi).n_near == 0
    grid = np.linspace(0.0, 1.0, 10_001)[:, None]
    grid[5000:5100:2] = grid[5001:5101:2] - 1e-6  # a hundredth of the spacing
    assert looked_at(Euclidean(1), grid).n_near == 0
    grid[5000:5100:2] = grid[5001:5101:2] - 1e-9
    assert looked_at(Euclidean(1), grid).n_near == 50
