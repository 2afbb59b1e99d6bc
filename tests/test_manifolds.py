"""Geometry: every identity on every manifold, geomstats as a second opinion, charts by hand."""
from __future__ import annotations

import inspect
import warnings

import numpy as np
import pytest

from rdks import RDKSEstimator
from rdks.engines import DirectSum
from rdks.manifolds import Circle, Euclidean, Sphere, Torus, load_geomstats
from rdks.testing import MANIFOLD_CHECKS, CheckReport, check_manifold

EPS = np.finfo(float).eps


# ------------------------------------------------------------------------------------ conformance


@pytest.mark.parametrize("check", MANIFOLD_CHECKS, ids=lambda check: check.__name__)
def test_identity(manifold, check):
    check(manifold)


def test_report_names_what_ran_and_what_did_not_apply():
    report = check_manifold(Euclidean(1))
    assert isinstance(report, CheckReport)
    assert report.not_applicable == {
        "corrupted_row_is_named": "any finite numbers are a point",
        "uniform_limit": "the volume is infinite",
        "first_eigenvalue_sets_the_decay": "there is no positive eigenvalue",
        "total_mass_of_a_mixture": "the volume is infinite",
    }
    assert len(report.ran) + len(report.not_applicable) == len(MANIFOLD_CHECKS)
    text = str(report)
    assert "uniform_limit: not applicable, the volume is infinite" in text
    assert all(name in text for name in report.ran)


def test_everything_applies_to_a_sphere():
    assert check_manifold(Sphere(2)).not_applicable == {}


def test_checks_cannot_be_switched_off():
    assert set(inspect.signature(check_manifold).parameters) == {"manifold", "seed"}
    for check in MANIFOLD_CHECKS:
        assert check.__doc__.strip()


def test_failure_names_check_value_and_bound():
    class Heavy(Sphere):
        @property
        def log_volume(self):
            return 0.0

    with pytest.raises(AssertionError, match=r"uniform_limit: log k \+ log volume .* measured .*, bound "):
        check_manifold(Heavy(2))


def test_an_exception_inside_a_check_is_a_failure_that_names_it():
    class Broken(Sphere):
        def push_tangent(self, X, V):
            raise KeyError("no such chart")

    with pytest.raises(AssertionError, match="push_tangent_belongs_to_the_chart: raised KeyError"):
        check_manifold(Broken(2))


# --------------------------------------------------------------------------------------- geomstats


@pytest.fixture(scope="module")
def geomstats():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load_geomstats()
        from geomstats.geometry.euclidean import Euclidean as TheirEuclidean
        from geomstats.geometry.hypersphere import Hypersphere

        return {"sphere": Hypersphere, "euclidean": TheirEuclidean}


@pytest.mark.parametrize("dim", [1, 2, 3, 10])
def test_sphere_agrees_with_geomstats(geomstats, dim, rng):
    theirs, ours = geomstats["sphere"](dim).metric, Sphere(dim)
    X, Y = ours.random(200, rng), ours.random(200, rng)
    angle = ours.dist(X, Y)
    # their distance is an arc cosine: its rounding is magnified by one over the sine
    keep = (angle > 0.05) & (angle < np.pi - 0.05)
    X, Y, angle = X[keep], Y[keep], angle[keep]
    bound = 16 * EPS / np.sin(angle)
    assert (np.abs(theirs.dist(X, Y) - angle) <= bound).all()
    V = ours.log(X, Y)
    bound = (np.pi * 16 * EPS / np.sin(angle) ** 2)[:, None]
    assert (np.abs(theirs.log(Y, X) - V) <= bound).all()
    np.testing.assert_allclose(ours.exp(X, V), theirs.exp(V, X), rtol=0, atol=64 * EPS)
    W = V * rng.uniform(0.0, 4.0, (len(V), 1))  # beyond the antipode too
    np.testing.assert_allclose(ours.exp(X, W), theirs.exp(W, X), rtol=0, atol=64 * EPS)


def test_euclidean_space_agrees_with_geomstats(geomstats, rng):
    theirs, ours = geomstats["euclidean"](3).metric, Euclidean(3)
    X, Y = ours.random(50, rng), ours.random(50, rng)
    np.testing.assert_allclose(ours.dist(X, Y), theirs.dist(X, Y), rtol=8 * EPS)
    np.testing.assert_allclose(ours.log(X, Y), theirs.log(Y, X), rtol=8 * EPS)
    np.testing.assert_allclose(ours.exp(X, Y), theirs.exp(Y, X), rtol=8 * EPS)


def test_geomstats_space_is_taken_for_the_manifold_it_is(geomstats, rng):
    X = Sphere(2).random(20, rng)
    given = RDKSEstimator(geomstats["sphere"](2), bandwidth=0.3).fit(X)
    assert given.manifold_ == Sphere(2)


def test_log_at_the_antipode_has_full_length():
    X = np.eye(4)
    V = Sphere(3).log(X, -X)
    np.testing.assert_allclose(np.linalg.norm(V, axis=1), np.pi, rtol=4 * EPS)
    np.testing.assert_allclose(Sphere(3).exp(X, V), -X, atol=4 * EPS)


def test_distance_keeps_its_digits_at_both_ends():
    for tiny in (1e-3, 1e-7, 1e-12):
        X, Y = np.array([[1.0, 0.0, 0.0]]), np.array([[np.cos(tiny), np.sin(tiny), 0.0]])
        assert Sphere(2).dist(X, Y)[0] == pytest.approx(tiny, rel=1e-14)
        assert np.pi - Sphere(2).dist(X, -Y)[0] == pytest.approx(tiny, abs=4e-16, rel=1e-14)


# -------------------------------------------------------------------------------- latitude, longitude


@pytest.mark.parametrize("coords, unit", [("latlon_deg", np.pi / 180), ("latlon_rad", 1.0)])
@pytest.mark.parametrize("radius", [1.0, 6371.0])
def test_latlon_by_hand(coords, unit, radius):
    chart = Sphere(2, coords=coords, radius=radius)
    lat, lon = np.array([0.0, 0.0, 0.5, -1.2, 0.5]), np.array([0.0, 0.5 * np.pi, -0.7, 3.0, -0.7 + 2 * np.pi])
    X = np.column_stack([lat, lon]) / unit
    by_hand = radius * np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)]).T
    np.testing.assert_allclose(chart.embed(X), by_hand, rtol=0, atol=4 * EPS * radius)
    np.testing.assert_allclose(chart.unembed(by_hand)[:4], X[:4], rtol=0, atol=8 * EPS / unit)
    # haversine
    a = np.sin((lat[0] - lat) / 2) ** 2 + np.cos(lat[0]) * np.cos(lat) * np.sin((lon[0] - lon) / 2) ** 2
    np.testing.assert_allclose(chart.dist(np.tile(by_hand[0], (5, 1)), by_hand),
                               2 * radius * np.arcsin(np.sqrt(a)), rtol=0, atol=8 * EPS * radius)


def test_chart_changes_nothing_but_the_writing(rng):
    plain, chart = Sphere(2, radius=6371.0), Sphere(2, coords="latlon_deg", radius=6371.0)
    Z = plain.random(30, rng)
    X = chart.unembed(Z)
    a = RDKSEstimator(plain, bandwidth=1500.0).fit(Z)
    b = RDKSEstimator(chart, bandwidth=1500.0).fit(X)
    np.testing.assert_allclose(b.score_samples(X[:9]), a.score_samples(Z[:9]), rtol=1e-12)
    np.testing.assert_allclose(b.score_divergence(X[:9]), a.score_divergence(Z[:9]), rtol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(b.score_field(X[:9]), axis=1),
                               np.linalg.norm(a.score_field(Z[:9]), axis=1), rtol=1e-10)
    one, other = a.sample(5, random_state=3), b.sample(5, random_state=3)
    np.testing.assert_allclose(chart.embed(other), one, atol=1e-9)


def test_units_scale_the_density():
    """Density per square kilometre, score per kilometre."""
    X = np.array([[10.0, 20.0], [-30.0, 100.0]])
    small = RDKSEstimator(Sphere(2, coords="latlon_deg"), bandwidth=0.4).fit(X)
    large = RDKSEstimator(Sphere(2, coords="latlon_deg", radius=6371.0), bandwidth=0.4 * 6371.0).fit(X)
    np.testing.assert_allclose(large.score_samples(X), small.score_samples(X) - 2 * np.log(6371.0),
                               rtol=1e-12)
    np.testing.assert_allclose(large.score_field(X), small.score_field(X) / 6371.0, rtol=1e-10)


def test_score_in_latlon_is_north_and_east():
    """The score points from a query to the only source: due north, east, south, west."""
    est = RDKSEstimator(Sphere(2, coords="latlon_deg"), bandwidth=0.3).fit([[0.0, 0.0]])
    score = est.score_field([[-10.0, 0.0], [0.0, -10.0], [10.0, 0.0], [0.0, 10.0]])
    length = score[0, 0]
    assert length > 0
    directions = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])
    np.testing.assert_allclose(score, length * directions, atol=1e-13 * length)


def test_score_in_latlon_is_the_derivative_in_arc_length():
    chart = Sphere(2, coords="latlon_rad", radius=2.0)
    rng = np.random.default_rng(5)
    est = RDKSEstimator(chart, bandwidth=0.8).fit(chart.unembed(chart.random(6, rng)))
    X = np.array([[0.4, 1.0], [-1.2, 2.5]])
    h = 1e-3
    for j, metres in ((0, np.full(2, 2.0)), (1, 2.0 * np.cos(X[:, 0]))):
        step = h * np.eye(2)[j]
        up1, down1, up2, down2 = (est.score_samples(X + k * step) for k in (1, -1, 2, -2))
        slope = (8 * (up1 - down1) - (up2 - down2)) / (12 * h)
        np.testing.assert_allclose(est.score_field(X)[:, j], slope / metres, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("pole", [90.0, -90.0])
def test_score_at_a_pole_is_finite_and_turns_with_the_meridian(pole):
    """At a pole, north and east are the directions of the meridian of the row's own longitude."""
    chart = Sphere(2, coords="latlon_deg")
    est = RDKSEstimator(chart, bandwidth=0.4).fit([[60.0, 30.0], [-50.0, 110.0], [10.0, -80.0]])
    lon = np.array([0.0, 37.0, 90.0, -135.0])
    X = np.column_stack([np.full(4, pole), lon])
    score = est.score_field(X)
    assert np.isfinite(score).all()
    phi = np.deg2rad(lon)
    north = np.sign(pole) * np.column_stack([-np.cos(phi), -np.sin(phi)])
    east = np.column_stack([-np.sin(phi), np.cos(phi)])
    ambient = score[:, :1] * north + score[:, 1:] * east
    np.testing.assert_allclose(ambient, np.tile(ambient[0], (4, 1)), atol=1e-12)
    # the density does not depend on how the pole is written
    np.testing.assert_allclose(est.score_samples(X), est.score_samples(X)[0], rtol=1e-13)


def test_score_is_continuous_across_a_pole():
    """Over the pole, north becomes south and east becomes west."""
    est = RDKSEstimator(Sphere(2, coords="latlon_deg"), bandwidth=0.4).fit([[70.0, 30.0], [50.0, 110.0]])
    d = 1e-7
    here, there = est.score_field([[90.0 - d, 25.0], [90.0 - d, -155.0]])
    np.testing.assert_allclose(here, -there, atol=1e-7)
    at = est.score_field([[90.0, 25.0]])[0]
    np.testing.assert_allclose(at, here, atol=1e-7)


def test_pole_is_written_with_latitude_ninety():
    chart = Sphere(2, coords="latlon_deg")
    X = chart.unembed(np.array([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0], [1e-9, 0.0, 1.0]]))
    assert X[0, 0] == 90.0 and X[1, 0] == -90.0
    # an arc sine would round this to the pole
    assert 90.0 - X[2, 0] == pytest.approx(np.rad2deg(1e-9), rel=1e-4)


def test_longitudes_may_be_written_with_whole_turns():
    est = RDKSEstimator(Sphere(2, coords="latlon_deg"), bandwidth=0.3).fit([[10.0, 170.0], [20.0, -175.0]])
    Q = np.array([[15.0, 179.0], [15.0, -181.0], [15.0, 539.0]])
    np.testing.assert_allclose(est.score_samples(Q), est.score_samples(Q)[0], rtol=1e-13)


# -------------------------------------------------------------------------------------------- tori


def test_torus_writes_angles_from_its_start():
    day = Circle(period=24.0, start=-12.0)
    X = day.unembed(np.array([[-12.0], [11.5], [12.0], [36.5], [-1e-18 - 12.0]]))
    np.testing.assert_allclose(X.ravel(), [-12.0, 11.5, -12.0, -11.5, -12.0], atol=1e-14)
    assert (X >= -12.0).all() and (X < 12.0).all()
    sample = RDKSEstimator(day, bandwidth=6.0).fit([[11.0]]).sample(200, random_state=0)
    assert (sample >= -12.0).all() and (sample < 12.0).all()
    assert (sample < 0).any() and (sample > 0).any()


def test_a_tiny_negative_angle_is_not_the_period():
    X = Circle().unembed(np.array([[-1e-300], [-1e-17]]))
    assert (X < 2 * np.pi).all() and (X >= 0).all()


def test_whole_turns_do_not_matter(rng):
    torus = Torus(3, period=(1.0, 2.0, 360.0))
    Z = torus.random(20, rng)
    turns = rng.integers(-3, 4, Z.shape) * np.array([1.0, 2.0, 360.0])
    a = RDKSEstimator(torus, bandwidth=0.2).fit(Z)
    b = RDKSEstimator(torus, bandwidth=0.2).fit(Z + turns)
    np.testing.assert_allclose(b.score_samples(Z[::-1]), a.score_samples(Z[::-1]), rtol=1e-12)
    np.testing.assert_allclose(b.score_field(Z + turns), a.score_field(Z), rtol=1e-9, atol=1e-9)


def test_circle_of_any_unit_is_the_unit_circle():
    hours, angles = np.array([[23.5], [0.5], [7.0]]), np.array([[23.5], [0.5], [7.0]]) * 2 * np.pi / 24
    day = RDKSEstimator(Circle(24.0), bandwidth=2.0)
    turn = RDKSEstimator(Circle(), bandwidth=2.0 * np.pi / 12)
    sphere = RDKSEstimator(Sphere(1), bandwidth=2.0 * np.pi / 12)
    a, b = day.fit(hours).score_samples(hours), turn.fit(angles).score_samples(angles)
    np.testing.assert_allclose(a, b - np.log(24 / (2 * np.pi)), rtol=1e-13)
    xy = np.column_stack([np.cos(angles), np.sin(angles)])
    np.testing.assert_allclose(sphere.fit(xy).score_samples(xy), b, rtol=1e-12)


def test_unequal_periods_are_separate_circles(rng):
    torus = Torus(2, period=(1.0, 360.0))
    Z = torus.random(9, rng)
    t = 0.04
    one = DirectSum(torus, Z[:1], np.ones(1), t).evaluate(Z).log_density
    parts = sum(DirectSum(Circle(p), Z[:1, j:j + 1], np.ones(1), t).evaluate(Z[:, j:j + 1]).log_density
                for j, p in enumerate((1.0, 360.0)))
    np.testing.assert_allclose(one, parts, rtol=1e-12)
    assert torus.volume == 360.0
    assert torus.smallest_eigenvalue == pytest.approx((2 * np.pi / 360) ** 2)
