"""Charts and parameters: one point, one row of numbers; bad parameters say so; and the ends of the float range."""
from __future__ import annotations

import copy
import dataclasses
import pickle
from fractions import Fraction

import numpy as np
import pytest

from rdks import RDKSEstimator
from rdks.errors import DuplicatesWarning, PointError
from rdks.heat import log_sphere, log_sphere_area, sphere_levels, sphere_slopes
from rdks.manifolds import (
    SO3,
    SPD,
    SU2,
    Box,
    Circle,
    Euclidean,
    Hyperbolic,
    OrnsteinUhlenbeck,
    Product,
    ProjectiveSpace,
    SpaceForm,
    Sphere,
    Torus,
    from_name,
)
from rdks.radial import RadialLaw
from rdks.sampling import heat_sample

DEG, RAD = Sphere(2, coords="latlon_deg"), Sphere(2, coords="latlon_rad", radius=3.0)


def same(Z):
    """Whether all rows are equal to the last bit, the sign of zero included."""
    return len({np.ascontiguousarray(row).tobytes() for row in Z}) == 1


# --------------------------------------------------------------------------- one point, one embedding


@pytest.mark.parametrize("circle, rows", [
    (Circle(360.0), [0.0, 360.0, -360.0, -0.0, 720.0, 3600.0]),
    (Circle(360.0), [20.0, 380.0, -340.0]),
    (Circle(360.0), [-90, 270, 630]),
    (Circle(24.0, start=-12.0), [-12.0, 12.0, 36.0]),
    (Circle(1.0), [0.25, -0.75, 1.25]),
    (Circle(), [0.0, 2 * np.pi, -2 * np.pi]),
])
def test_angles_equal_modulo_the_period_embed_alike(circle, rows):
    Z = circle.embed(np.array(rows)[:, None])
    assert same(Z) and (Z >= 0).all() and (Z < circle.period).all()


def test_any_angle_of_the_second_half_and_its_negative_embed_alike():
    """There a - 360 is exact, so nothing is lost whatever the digits of a."""
    a = np.random.default_rng(0).uniform(180.0, 360.0, (1000, 1))
    for shifted in (a, a - 360.0):
        assert np.array_equal(Circle(360.0).embed(shifted), a)


def test_torus_wraps_each_column_by_its_own_period():
    torus = Torus(2, period=(1.0, 24.0))
    assert same(torus.embed([[0.5, 23.0], [-0.5, -1.0], [7.5, 47.0]]))
    product = Product(Circle(360.0), Euclidean(1))
    assert same(product.embed(np.array([[10.0, 400.0], [370.0, 400.0]])))


def test_tiny_negative_angles_embed_inside_the_period_and_come_back_in_range():
    for circle in (Circle(), Circle(360.0), Circle(24.0, start=-12.0), Circle(24.0, start=5.0)):
        tiny = np.array([[-1e-300], [-1e-17], [-5e-324], [circle.start - 1e-17]])
        Z = circle.embed(tiny)
        assert (Z >= 0).all() and (Z < circle.period).all()
        X = circle.unembed(np.concatenate([Z, tiny]))
        assert (X >= circle.start).all() and (X < circle.start + circle.period).all()


@pytest.mark.parametrize("chart, turn", [(DEG, 360.0), (RAD, 2 * np.pi)])
def test_longitudes_equal_modulo_a_turn_embed_alike(chart, turn):
    for share in (0.0, 0.25, 0.5, 0.75):
        lon = share * turn + turn * np.array([0.0, 1.0, -1.0])
        assert same(chart.embed(np.column_stack([np.full(3, 0.03 * turn), lon])))


@pytest.mark.parametrize("lon", [20, 0, 180, -180, 90, 123, -77.5, 179.75])
def test_whole_degrees_embed_alike_to_the_last_digit(lon):
    X = np.array([[41.3, lon + 360 * k] for k in (-10, -2, -1, 0, 1, 2, 10)])
    assert same(DEG.embed(X))
    # nor does the place of a row in an array matter
    assert same(np.concatenate([DEG.embed(row[None]) for row in X] + [DEG.embed(np.tile(X[0], (257, 1)))]))


def test_longitudes_keep_their_digits():
    """Beside the zero meridian, west as east: reduction is exact."""
    lon = np.array([1e-9, -1e-9, 359.0, -1.0])
    y = DEG.embed(np.column_stack([np.zeros(4), lon]))[:, 1]
    assert y[0] == -y[1] == pytest.approx(np.deg2rad(1e-9), rel=1e-15)
    assert y[2] == y[3]


@pytest.mark.parametrize("chart, quarter", [(DEG, 90.0), (RAD, 0.5 * np.pi)])
def test_a_pole_is_one_point_whatever_its_longitude(chart, quarter):
    lon = np.array([0.0, 37.0, -180.0, 180.0, 90.0, 1e6])
    for sign in (1.0, -1.0):
        Z = chart.embed(np.column_stack([np.full(6, sign * quarter), lon]))
        assert same(Z) and Z[0].tolist() == [0.0, 0.0, sign * chart.radius]


@pytest.mark.parametrize("manifold, X, turn", [
    (DEG, np.array([[10.0, 170.0], [20.0, -175.0], [90.0, 0.0], [35.5, 12.25]]), [0.0, 360.0]),
    (Circle(360.0), np.array([[0.0], [20.0], [33.0], [350.0]]), [360.0]),
    (Torus(2, period=(24.0, 7.0)), np.array([[0.0, 1.0], [5.0, 6.0], [23.5, 0.0], [2.0, 2.0]]), [-24.0, 7.0]),
])
def test_copies_are_seen_by_the_estimator(manifold, X, turn):
    """A bandwidth rule merges rows that write one point differently, and says so."""
    plain = RDKSEstimator(manifold, bandwidth="rot").fit(X)
    with pytest.warns(DuplicatesWarning):
        twice = RDKSEstimator(manifold, bandwidth="rot").fit(np.concatenate([X, X + turn, X - turn]))
    assert twice.bandwidth_ == pytest.approx(plain.bandwidth_, rel=0.5)


# ---------------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize("make, name", [(Sphere, "dim"), (Euclidean, "dim"), (Torus, "dim"), (SPD, "n")])
@pytest.mark.parametrize("value, message", [
    (2.0, "= 2.0 must be an integer"), (2.5, "= 2.5 must be an integer"), (True, "= True must be an integer"),
    (np.True_, "must be an integer"), ("2", "= '2' must be an integer"), (None, "= None must be an integer"),
    (np.float64(2.0), "must be an integer"), (0, "= 0 must be at least 1"), (-1, "= -1 must be at least 1"),
    (float("nan"), "must be an integer"), ([2], "must be an integer"),
])
def test_dimensions_that_are_no_positive_integers(make, name, value, message):
    with pytest.raises(ValueError, match=f"^{name} .*{message}"):
        make(value)


@pytest.mark.parametrize("make", [Sphere, Euclidean, Torus, SPD])
def test_numpy_integers_are_integers(make):
    for value in (np.int64(2), np.uint8(2), np.array(2)):
        assert make(value) == make(2) and hash(make(value)) == hash(make(2)) and repr(make(value)) == repr(make(2))


@pytest.mark.parametrize("name, make", [
    ("radius", lambda v: Sphere(2, radius=v)), ("period", lambda v: Torus(2, period=v)), ("period", Circle),
    ("period", lambda v: Torus(2, period=(1.0, v)))])
@pytest.mark.parametrize("value, message", [
    ("a", "= 'a' must be a real number"), (None, "= None must be a real number"), (True, "must be a real number"),
    (1j, "must be a real number"), (0.0, "positive and finite"), (-1.0, "positive and finite"),
    (float("nan"), "positive and finite"), (float("inf"), "positive and finite"), (10**400, "positive and finite"),
])
def test_lengths_that_are_no_positive_numbers(name, make, value, message):
    with pytest.raises(ValueError, match=f"^{name} .*{message}"):
        make(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0", None, [0.0]])
def test_starts_that_are_no_numbers(value):
    for make in (Circle, lambda start: Torus(2, start=start)):
        with pytest.raises(ValueError, match="^start .* must be"):
            make(start=value)


def test_numbers_of_any_type_are_taken():
    for value in (24, 24.0, np.float32(24), np.int64(24), np.array(24.0), Fraction(24)):
        assert Circle(value) == Circle(24.0) and hash(Circle(value)) == hash(Circle(24.0))
        assert repr(Sphere(2, radius=value)) == "Sphere(dim=2, coords='extrinsic', radius=24.0)"
    for value in ([1, 2], (1.0, 2.0), np.array([1, 2])):
        assert Torus(2, period=value).period == (1.0, 2.0)
    for value in ([1.0], (1.0, 2.0, 3.0), [[1.0, 2.0]]):
        with pytest.raises(ValueError, match="give one period, or 2 of them"):
            Torus(2, period=value)


def test_a_circle_is_a_value():
    circle = Circle(24.0)
    moved = dataclasses.replace(circle, start=-12.0)
    assert moved == Circle(24.0, -12.0) and moved.dim == 1 and type(moved) is Circle
    assert dataclasses.replace(circle, period=7) == Circle(7.0)
    assert repr(circle) == "Circle(period=24.0, start=0.0)"
    assert Circle() == Circle() and hash(Circle()) == hash(Circle()) and Circle() != circle != Torus(1, 24.0)
    for again in (pickle.loads(pickle.dumps(moved)), copy.deepcopy(moved)):
        assert again == moved and hash(again) == hash(moved) and again.factors() == moved.factors()
    assert dataclasses.replace(Torus(2), period=3.0) == Torus(2, 3.0)


# --------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize("name, columns, expected", [
    ("box", 2, Box([(0, 1), (0, 1)])), ("hyperbolic", 4, Hyperbolic(3)),
    ("ornstein_uhlenbeck", 3, OrnsteinUhlenbeck(3)), ("projective", 3, ProjectiveSpace(2)),
    ("so3", 9, SO3()), ("so3", 4, SO3(coords="quaternion")), ("so3", 3, SO3(coords="rotvec")),
    ("su2", 4, SU2()), ("torus", 2, Torus(2)), ("spd", 9, SPD(3))])
def test_names_take_their_dimension_from_the_columns(name, columns, expected):
    assert from_name(name, columns) == expected


@pytest.mark.parametrize("name, columns, match", [
    ("so3", 5, "expected 9"), ("su2", 3, "expected 4"), ("hyperbolic", 2, "at least 3 numbers"),
    ("projective", 1, "at least 2 numbers"), ("spd", 5, "square matrix")])
def test_names_refuse_columns_that_no_such_manifold_has(name, columns, match):
    with pytest.raises(ValueError, match=match):
        from_name(name, columns)


def test_every_name_is_documented():
    from rdks.manifolds import _NAMES
    assert all(f'"{name}"' in from_name.__doc__ for name in _NAMES)


def test_unknown_names_stay_errors_of_value():
    with pytest.raises(ValueError, match="'spere' is not a known name"):
        from_name("spere", 3)


def test_a_sphere_needs_two_columns():
    for call in (lambda: from_name("sphere", 1), lambda: RDKSEstimator("sphere", bandwidth=0.5).fit([[1.0]])):
        with pytest.raises(ValueError, match=r"X has 1 column \(n_features = 1\).*at least 2 numbers"):
            call()
    assert from_name("sphere", 2) == Sphere(1)


# ------------------------------------------------------------------------------------ latitudes beyond


@pytest.mark.parametrize("check", ["project", "ignore"])
def test_a_latitude_beyond_the_pole_is_not_folded_over(check):
    X = np.array([[0.0, 0.0], [95.0, 10.0]])
    with pytest.raises(PointError, match=r"X\[1\].*has no nearest point"):
        RDKSEstimator(DEG, bandwidth=0.3, check_points=check).fit(X)


@pytest.mark.parametrize("chart, beyond, told", [
    (DEG, [95.0, -90.5], r"X\[1\].*latitude.*90 degrees, in degrees, = 5 exceeds 1e-06"),
    (RAD, [2.0, -1.6], r"X\[1\].*latitude.*pi/2, in radians, = 0.429 exceeds 1e-06")])
def test_the_excess_of_a_latitude_is_in_the_unit_of_the_chart(chart, beyond, told):
    X = np.array([[0.0, 0.0], [beyond[0], 1.0], [beyond[1], 1.0]])
    np.testing.assert_allclose(chart.violation(X), [0.0, *(np.abs(beyond) - chart._quarter)])
    assert np.isnan(chart.embed(X)).all(axis=1).tolist() == [False, True, True]
    with pytest.raises(PointError, match=told):
        RDKSEstimator(chart, bandwidth=0.3).fit(X)


@pytest.mark.parametrize("chart", [DEG, RAD])
def test_a_latitude_that_rounds_beyond_the_pole_is_the_pole(chart):
    lat = chart._quarter + np.array([0.0, 1e-12, 0.9e-6])
    Z = chart.embed(np.column_stack([lat, [1.0, 2.0, 3.0]]))
    assert same(Z) and Z[0, 2] == chart.radius
    assert (chart.violation(np.column_stack([lat, lat])) <= chart.tolerance).all()
    assert np.isfinite(RDKSEstimator(chart, bandwidth=0.3).fit([[0.0, 0.0]]).score_field(
        np.column_stack([lat, lat]))).all()


def test_infinite_angles_have_no_embedding():
    assert np.isnan(DEG.embed(np.array([[0.0, np.inf]])))[0, :2].all()
    assert np.isnan(Circle().embed(np.array([[-np.inf]]))).all()


# -------------------------------------------------------------------------- high dimension, far scales


@pytest.mark.parametrize("dim, radius, h", [
    (64, 1.0, 1e-6), (64, 6.371e6, 1e5), (64, 6.371e6, 1e-3), (64, 1e-9, 1e-12), (96, 1.0, 1e-3), (2, 1e100, 1e95),
    (2, 1.0, 1e-70), (64, 1.0, 10.0)])
def test_distances_in_high_dimension_have_the_right_law(dim, radius, h):
    """E d^2 by quadrature of the law against a mean of draws, and E cos(d/R) = exp(-dim h^2 / 2 R^2)."""
    n, sphere = 4000, Sphere(dim, radius=radius)
    law = RadialLaw(sphere.factors()[0], h * h)
    assert law.mass == pytest.approx(1.0, abs=1e-11)
    rho = h * np.linalg.norm(np.random.default_rng(0).standard_normal((n, dim)), axis=1)
    d = law(rho)
    near = dim * (h / radius) ** 2
    if near < 0.2:
        # E d^2 = dim h^2 - dim (dim - 1) h^4 / 6 R^2 + ..., and d^2 / h^2 has the variance 2 dim
        want = 1 - (dim - 1) * (h / radius) ** 2 / 6
        assert np.mean((d / h) ** 2) / dim == pytest.approx(want, abs=4.5 * np.sqrt(2 / (dim * n)) + near**2)
    cosine = np.cos(d / radius)
    spread = cosine.std() / np.sqrt(n)
    assert cosine.mean() == pytest.approx(np.exp(-0.5 * near), abs=4.5 * spread + 1e-15)
    below, above = law.distribution(d)
    assert ((below >= -1e-12) & (above >= -1e-12)).all() and below + above == pytest.approx(1.0, abs=1e-11)


@pytest.mark.parametrize("radius, h", [(1.0, 1e-6), (6.371e6, 1e5)])
def test_samples_of_a_sphere_of_dimension_64(radius, h):
    sphere = Sphere(64, radius=radius)
    Z = np.tile(radius * np.eye(65)[3], (3000, 1))
    d = sphere.dist(Z, heat_sample(sphere, Z, h * h, np.random.default_rng(1)))
    want = 1 - 63 * (h / radius) ** 2 / 6
    assert np.mean((d / h) ** 2) / 64 == pytest.approx(want, abs=4.5 * np.sqrt(2 / (64 * 3000)) + (h / radius) ** 2)


def test_a_law_without_unit_mass_is_refused():
    @dataclasses.dataclass(frozen=True)
    class Heavy(SpaceForm):
        def log_kernel(self, r, t):
            return super().log_kernel(r, t) + 1e-7

    with pytest.raises(ArithmeticError, match="integral 1.0000001"):
        RadialLaw(Heavy(2, radius=1.0), 0.1)


def test_log_volumes():
    earth = Sphere(64, radius=6.371e6)
    assert earth.volume == np.inf  # truly beyond the range of floats
    assert earth.log_volume == pytest.approx(log_sphere_area(64) + 64 * np.log(6.371e6), rel=1e-15)
    assert Sphere(2).log_volume == pytest.approx(np.log(4 * np.pi), rel=1e-15)
    assert Torus(2, period=(1.0, 360.0)).log_volume == pytest.approx(np.log(360.0), rel=1e-15)
    assert Euclidean(2).log_volume == Euclidean(2).volume == np.inf
    assert Product(earth, Euclidean(1)).log_volume == np.inf == Product(Sphere(64, radius=1e-9), Euclidean(1)).volume
    # the product is a float, its parts are not
    both = Product(earth, Sphere(64, radius=1e-6))
    assert both.log_volume == pytest.approx(sum(p.log_volume for p in both.parts), rel=1e-15)
    assert np.isfinite(both.volume) and both.volume == pytest.approx(np.exp(both.log_volume), rel=1e-12)
    assert Product(Circle(1e200), Circle(1e200), Circle(1e-300)).volume == pytest.approx(1e100, rel=1e-12)
    assert Product(Circle(1e200), Circle(1e200)).volume == np.inf
    assert Product(Circle(1e-200), Circle(1e-200)).volume == 0.0


@pytest.mark.parametrize("factor", [SpaceForm(1, radius=2.0), SpaceForm(3, radius=2.0), SpaceForm(4), SpaceForm(1)])
def test_log_area_is_the_log_of_the_area(factor):
    r = np.array([0.0, 0.1, 1.0, 3.0])
    arm = r if factor.radius is None else 2.0 * np.sin(r / 2.0)
    around = {1: 2.0, 3: 4 * np.pi, 4: 2 * np.pi**2}[factor.dim]
    np.testing.assert_allclose(factor.area(r), around * arm ** (factor.dim - 1), rtol=1e-14)
    np.testing.assert_allclose(np.exp(factor.log_area(r)), factor.area(r), rtol=1e-14)


# -------------------------------------------------------------------------------- the ends of time


@pytest.mark.parametrize("t", [1e4, 1e100, 1e307, 1.7e308, np.float64(1.7e308)])
@pytest.mark.parametrize("dim", [1, 2, 3, 64])
def test_the_longest_times_are_uniform_to_the_last_bit(dim, t):
    r = np.array([0.0, 1.0, np.pi])
    assert np.array_equal(log_sphere(r, t, dim) - 0.5 * r * r / t, np.full(3, -log_sphere_area(dim)))
    assert all((value == 0).all() for value in sphere_slopes(r, t, dim))
    assert sphere_levels(dim, t).tolist() == [1.0]


@pytest.mark.parametrize("dim", [1, 2, 3, 64])
@pytest.mark.parametrize("t", [1e-150, 1e-100, 1e-30])
def test_the_shortest_times_are_flat(dim, t):
    """Within some sqrt(t) of the source the kernel is Gaussian, its slopes too; all is finite everywhere."""
    r = np.sqrt(t) * np.array([0.0, 0.5, 3.0])
    want = -0.5 * dim * (np.log(2 * np.pi) + np.log(t))
    np.testing.assert_allclose(log_sphere(r, t, dim), want, rtol=1e-13)
    first, laplacian = sphere_slopes(r, t, dim)
    np.testing.assert_allclose(first, -0.5 / t, rtol=1e-10)
    np.testing.assert_allclose(laplacian, ((r / np.sqrt(t)) ** 2 - dim) / t, rtol=1e-10, atol=1e-10 * dim / t)
    far = np.array([0.3, 2.0, 3.1, np.pi - 1e-9, np.pi])
    assert all(np.isfinite(v).all() for v in (log_sphere(far, t, dim), *sphere_slopes(far, t, dim)))
    np.testing.assert_allclose(sphere_slopes(far[:3], t, dim)[1] * t / far[:3], far[:3] / t, rtol=1e-9)


@pytest.mark.parametrize("t", [1e-151, 1e-300, 5e-324])
def test_times_below_the_range_are_refused(t):
    for function in (log_sphere, sphere_slopes):
        with pytest.raises(ValueError, match="is too small"):
            function(np.array([0.0, 1.0]), t, 2)
