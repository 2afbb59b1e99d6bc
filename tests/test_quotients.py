"""Quotients against other manifolds, mpmath, quadrature and spectra from the literature."""
from __future__ import annotations

import itertools
import pickle

import mpmath as mp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from rdks import RDKSEstimator
from rdks.errors import PointError, UnsupportedError
from rdks.manifolds import (
    SO3,
    Box,
    Circle,
    Euclidean,
    Manifold,
    OrnsteinUhlenbeck,
    Product,
    ProjectiveSpace,
    Quotient,
    SpaceForm,
    Sphere,
    Torus,
)
from rdks.manifolds.point_groups import quaternion_product, rotation_group
from rdks.manifolds.symmetry import smallest_invariant_eigenvalue

EPS = np.finfo(float).eps


def turn(angle):
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def block(*parts):
    """Block-diagonal matrix."""
    size = sum(len(p) for p in parts)
    out, at = np.zeros((size, size)), 0
    for p in parts:
        out[at:at + len(p), at:at + len(p)] = p
        at += len(p)
    return out


def directions(n, dim, rng):
    X = rng.standard_normal((n, dim + 1))
    return X / np.linalg.norm(X, axis=1, keepdims=True)


# ------------------------------------------------------------------------------- projective space


def log_projective(u, t, d):
    """Twice the even levels of the sphere's series (theory 2.1), in enough digits for the tail."""
    angle = mp.acos(abs(u))
    with mp.workdps(int(40 + angle**2 / (2 * t) / mp.log(10))):
        u, t = abs(u), mp.mpf(t)
        area = 2 * mp.pi ** (mp.mpf(d + 1) / 2) / mp.gamma(mp.mpf(d + 1) / 2)
        before, now, total, level = mp.mpf(1), u, mp.mpf(1), 1  # Gegenbauer polynomials that are 1 at u = 1
        while True:
            if d == 1:
                size = 2
            else:
                size = mp.mpf(2 * level + d - 1) / (d - 1) * mp.binomial(level + d - 2, level)
            weight = size * mp.exp(-mp.mpf(level) * (level + d - 1) * t / 2)
            if level % 2 == 0:
                total += weight * now
            if weight < mp.mpf(10) ** -mp.mp.dps:
                return mp.log(2 * total / area)
            before, now = now, ((2 * level + d - 1) * u * now - level * before) / (level + d - 1)
            level += 1


@pytest.mark.parametrize("d", [1, 2, 3, 5])
@pytest.mark.parametrize("t", [0.01, 0.2, 3.0])
def test_projective_kernel_is_the_sum_of_even_levels(d, t):
    """To 1e-12 of max(1, |log k|), up to the right angle, the cut locus."""
    theta = np.array([0.0, 1e-3, 0.7, 1.4, 0.5 * np.pi, 2.5])
    Y = np.zeros((len(theta), d + 1))
    Y[:, 0], Y[:, -1] = np.sin(theta), np.cos(theta)
    space = ProjectiveSpace(d)
    Z = space.embed(Y)
    found = space.log_heat_kernel(np.tile(np.eye(d + 1)[-1], (len(Z), 1)), Z, t)
    for z, value in zip(Z, found, strict=True):
        with mp.workdps(40):
            u = mp.mpf(float(z[-1])) / mp.norm(mp.matrix(list(map(float, z))))
            want = log_projective(u, t, d)
            assert abs(value - want) <= 1e-12 * max(1, abs(want))


@pytest.mark.parametrize("d", [1, 2, 4])
def test_an_axis_has_no_sign(d):
    rng = np.random.default_rng(d)
    space = ProjectiveSpace(d)
    X = directions(60, d, rng)
    X[:5, -1] = 0
    X[:5] /= np.linalg.norm(X[:5], axis=1, keepdims=True)
    Z = space.embed(X)
    assert np.array_equal(Z, space.embed(-X)) and (Z[:, -1] >= 0).all() and not np.signbit(Z[Z == 0]).any()
    est = RDKSEstimator(space, bandwidth=0.3).fit(X)
    assert np.array_equal(est.score_samples(X), est.score_samples(-X))
    assert np.array_equal(est.score_field(X), -est.score_field(-X))
    assert space.dist(Z[:20], Z[20:40]).max() <= 0.5 * np.pi
    want = np.arccos(np.abs(np.sum(X[:20] * X[20:40], 1)))
    np.testing.assert_allclose(space.dist(Z[:20], Z[20:40]), want, atol=1e-7)
    Y = est.sample(200, random_state=0)
    assert (Y[:, -1] >= 0).all() and space.violation(Y).max() < 8 * EPS
    assert (space.random(100, rng)[:, -1] >= 0).all()
    assert space.log_volume == pytest.approx(Sphere(d).log_volume - np.log(2), rel=1e-14)
    assert space.smallest_eigenvalue == pytest.approx(smallest_invariant_eigenvalue(space), rel=1e-13)
    with pytest.raises(PointError, match="= 1 exceeds"):
        est.score_samples(2 * X)


def test_score_of_axes_is_the_slope():
    rng = np.random.default_rng(0)
    X, Q, t = directions(10, 2, rng), directions(6, 2, rng), 0.1
    est = RDKSEstimator(ProjectiveSpace(2), bandwidth=np.sqrt(t)).fit(X)
    for q, s in zip(Q, est.score_field(Q), strict=True):
        for e in np.eye(3) - np.outer(q, q):
            e = e / np.linalg.norm(e)
            ends = np.array([np.cos(k * 1e-3) * q + np.sin(k * 1e-3) * e for k in (-2, -1, 1, 2)])
            logs = est.score_samples(ends)
            assert (8 * (logs[2] - logs[1]) - (logs[3] - logs[0])) / 12e-3 == pytest.approx(s @ e, abs=1e-7)


# ------------------------------------------------------------------------ quotients that are known


def test_turns_of_a_circle_make_a_shorter_circle():
    rng = np.random.default_rng(0)
    X, Q = rng.uniform(0, 360, (30, 1)), rng.uniform(-500, 500, (20, 1))
    third = Quotient(Circle(period=360.0), [[[1.0]]] * 3, shifts=[[120.0], [240.0], [0.0]])
    short = Circle(period=120.0)
    assert third.volume == pytest.approx(120.0, rel=1e-14)
    assert third.smallest_eigenvalue == pytest.approx(short.smallest_eigenvalue, rel=1e-13)
    for h in (3.0, 40.0):
        a, b = (RDKSEstimator(space, bandwidth=h).fit(X) for space in (third, short))
        np.testing.assert_allclose(a.score_samples(Q), b.score_samples(Q), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(a.score_field(Q), b.score_field(Q), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(a.score_divergence(Q), b.score_divergence(Q), rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(third.dist(X[:20], Q), short.dist(X[:20], Q), atol=1e-11)


def test_a_mirror_is_a_wall():
    """A circle folded at two mirrors is an interval; so is a torus, in both coordinates, a box."""
    rng = np.random.default_rng(1)
    X, Q = rng.uniform(0, 1, (25, 2)) * [1.0, 3.0], rng.uniform(0, 1, (10, 2)) * [1.0, 3.0]
    folded = Quotient.generated(Torus(2, period=(2.0, 6.0)), [np.diag([-1, 1]), np.diag([1, -1])])
    box = Box([(0, 1), (0, 3)])
    assert folded.n_images == 4 and folded.volume == pytest.approx(box.volume, rel=1e-14) == pytest.approx(3.0)
    assert folded.smallest_eigenvalue == pytest.approx(box.smallest_eigenvalue, rel=1e-13)
    a, b = (RDKSEstimator(space, bandwidth=0.3).fit(X) for space in (folded, box))
    np.testing.assert_allclose(a.score_samples(Q), b.score_samples(Q), rtol=1e-12)
    np.testing.assert_allclose(a.score_field(Q), b.score_field(Q), rtol=1e-9, atol=1e-10)


def test_antipodes_in_any_chart_are_projective_space():
    rng = np.random.default_rng(2)
    X, Q = directions(20, 2, rng), directions(10, 2, rng)
    plain = Quotient(Sphere(2), [np.eye(3), -np.eye(3)])
    chart = Quotient(Sphere(2, coords="latlon_deg"), [-np.eye(3), np.eye(3)])

    def latlon(X):
        return np.rad2deg(np.column_stack([np.arcsin(X[:, 2]), np.arctan2(X[:, 1], X[:, 0])]))

    want = RDKSEstimator(ProjectiveSpace(2), bandwidth=0.3).fit(X)
    est = RDKSEstimator(plain, bandwidth=0.3).fit(X)
    geo = RDKSEstimator(chart, bandwidth=0.3).fit(latlon(X))
    np.testing.assert_allclose(est.score_samples(Q), want.score_samples(Q), rtol=1e-12)
    np.testing.assert_allclose(est.score_field(Q), want.score_field(Q), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(geo.score_samples(latlon(Q)), want.score_samples(Q), rtol=1e-10)
    field = geo.score_field(latlon(Q))  # north, east
    np.testing.assert_allclose(np.linalg.norm(field, axis=1), np.linalg.norm(want.score_field(Q), axis=1), rtol=1e-8)
    assert geo.sample(7, random_state=0).shape == (7, 2)
    with pytest.raises(PointError, match="latitude"):
        geo.score_samples([[95.0, 0.0]])


def test_the_plane_folded_at_an_axis_is_a_half_plane():
    """Euclidean space: the images of charges, by hand."""
    half = Quotient(Euclidean(2), [np.eye(2), np.diag([-1, 1])])
    x, y, t = np.array([0.3, 1.0]), np.array([0.1, 0.5]), 0.2
    found = np.exp(half.log_heat_kernel(x[None], y[None], t)[0]) * 2 * np.pi * t
    gap, mirrored = y - x, y - x * [-1, 1]
    assert found == pytest.approx(np.exp(-gap @ gap / (2 * t)) + np.exp(-mirrored @ mirrored / (2 * t)), rel=1e-13)
    assert half.smallest_eigenvalue == 0.0 and half.volume == np.inf
    # turns by 120 degrees about a point, which is its own image
    centre, third = np.array([2.0, -1.0]), turn(2 * np.pi / 3)
    cone = Quotient(Euclidean(2), [np.eye(2), third, third @ third],
                    [np.zeros(2), centre - third @ centre, centre - third @ third @ centre])
    np.testing.assert_allclose(cone.images(centre[None]), np.tile(centre, (3, 1, 1)), atol=1e-14)
    np.testing.assert_allclose(cone.images(centre[None] + [[1.0, 0.0]])[1:, 0], centre + np.array(
        [[-0.5, np.sqrt(0.75)], [-0.5, -np.sqrt(0.75)]]), atol=1e-14)
    mirror = turn(0.4) @ np.diag([1.0, -1.0]) @ turn(-0.4)
    wedge = Quotient.generated(Euclidean(2), [third, mirror], [centre - third @ centre, centre - mirror @ centre])
    assert wedge.n_images == 6 and wedge.dist(centre[None], centre[None])[0] == 0
    # mirrors that do not pass through the origin need a shift: x -> 4 - x
    moved = Quotient(Euclidean(1), [[[1.0]], [[-1.0]]], shifts=[[0.0], [4.0]])
    assert moved.dist(np.array([[1.5]]), np.array([[2.4]]))[0] == pytest.approx(0.1)


# ----------------------------------------------------------------------------- groups on the sphere


def sphere_rule(n):
    """Quadrature of the sphere, exact for polynomials of degree < 2n."""
    u, w = np.polynomial.legendre.leggauss(n)
    phi = 2 * np.pi * np.arange(2 * n) / (2 * n)
    U, P = np.repeat(u, 2 * n), np.tile(phi, n)
    arm = np.sqrt(1 - U * U)
    return np.column_stack([arm * np.cos(P), arm * np.sin(P), U]), np.repeat(w, 2 * n) * np.pi / n


def matrices(name):
    return Rotation.from_quat(rotation_group(name)).as_matrix()


SPHERE_GROUPS = {
    "C5": (matrices("C5"), 2.0),  # z is invariant
    "D3": (matrices("D3"), 6.0),  # z^2
    "D3 with its mirror": (np.concatenate([matrices("D3"), matrices("D3") @ np.diag([1.0, 1, -1])]), 6.0),
    "O": (matrices("O"), 20.0),  # x^4 + y^4 + z^4, l = 4
    "T": (matrices("T"), 12.0),  # xyz, l = 3
    "I": (matrices("I"), 42.0),  # l = 6
    "Oh": (np.concatenate([matrices("O"), -matrices("O")]), 20.0),
    "mirror": (np.array([np.eye(3), np.diag([1.0, 1, -1])]), 2.0),
}


@pytest.mark.parametrize("name", SPHERE_GROUPS)
def test_symmetric_densities_on_the_sphere(name):
    """Invariant under the group and nothing less, of mass one, with the first invariant of Klein's lists."""
    G, eigenvalue = SPHERE_GROUPS[name]
    space = Quotient(Sphere(2), G)
    rng = np.random.default_rng(0)
    X, Q = directions(9, 2, rng), directions(6, 2, rng)
    est = RDKSEstimator(space, bandwidth=0.3).fit(X)
    logs, field = est.score_samples(Q), est.score_field(Q)
    for g in (G[1], G[-1]):
        np.testing.assert_allclose(est.score_samples(Q @ g.T), logs, rtol=1e-11, atol=1e-11)
        np.testing.assert_allclose(est.score_field(Q @ g.T), field @ g.T, rtol=1e-9, atol=1e-9)
    assert np.abs(est.score_samples(Q @ turn3().T) - logs).max() > 1e-2
    # over the whole sphere the density has mass |G|; degree 60 has decayed to exp(-164)
    Y, w = sphere_rule(60)
    assert w @ np.exp(est.score_samples(Y)) == pytest.approx(len(G), rel=1e-12)
    assert space.volume == pytest.approx(4 * np.pi / len(G), rel=1e-13)
    assert space.smallest_eigenvalue == pytest.approx(eigenvalue, rel=1e-12)
    assert space.dist(X[:6], Q) == pytest.approx(np.arccos((X[:6] @ np.swapaxes(Q @ G, 1, 2)).diagonal(
        axis1=1, axis2=2)).min(axis=0), abs=1e-7)


def turn3():
    return Rotation.from_rotvec([0.5, 0.2, 0.3]).as_matrix()


def test_no_flow_through_a_mirror():
    rng = np.random.default_rng(4)
    octant = Quotient.generated(Sphere(2), [np.diag(s) for s in ([-1, 1, 1], [1, -1, 1], [1, 1, -1])])
    est = RDKSEstimator(octant, bandwidth=0.4).fit(np.abs(directions(12, 2, rng)))
    wall = np.abs(directions(5, 2, rng))
    wall[:, 0] = 0
    wall /= np.linalg.norm(wall, axis=1, keepdims=True)
    field = est.score_field(wall)
    assert np.abs(field[:, 0]).max() < 1e-12 and np.abs(field).max() > 0.1


def test_nearest_copy():
    space = Quotient(Sphere(2), matrices("O"))
    rng = np.random.default_rng(0)
    Z, W = space.random(50, rng), space.random(50, rng)
    V = space.log(Z, W)
    r = space.dist(Z, W)
    np.testing.assert_allclose(np.linalg.norm(V, axis=1), r, atol=1e-14)
    assert space.dist(space.exp(Z, V), W).max() < 1e-14
    assert r.max() < np.deg2rad(62.8)  # no direction is further from another's copies than that of a cube's corner
    assert np.array_equal(space.images(Z)[0], Z)


# ------------------------------------------------------------------------------- the first eigenvalue


def decay_rate(space, guess):
    """Rate at which the heat trace approaches its limit, per unit of t / 2: the kernel alone decides."""
    rng = np.random.default_rng(0)
    Z = space.random(40, rng)
    times = np.array([18.0, 22.0]) / guess
    excess = [np.mean(np.expm1(space.log_heat_kernel(Z, Z, t) + space.log_volume)) for t in times]
    return -2 * np.diff(np.log(excess))[0] / np.diff(times)[0]


SWAP = np.array([[0.0, 1.0], [1.0, 0.0]])
SWAP3 = np.kron(SWAP, np.eye(3))


@pytest.mark.parametrize("space, eigenvalue", [
    # swapped angles: cos x + cos y
    (Quotient(Torus(2), [np.eye(2), SWAP]), 1.0),
    # a Klein bottle: x -> x + pi, y -> -y; cos y
    (Quotient(Torus(2), [np.eye(2), np.diag([1, -1])], shifts=[[0, 0], [np.pi, 0]]), 1.0),
    # a narrow one: y has period 1, so that cos 2x comes before cos(2 pi y)
    (Quotient(Torus(2, period=(2 * np.pi, 1.0)), [np.eye(2), np.diag([1, -1])], shifts=[[0, 0], [np.pi, 0]]), 4.0),
    # a torus of half the area: both angles by half a turn; cos(x + y)
    (Quotient(Torus(2), [np.eye(2)] * 2, shifts=[[0, 0], [np.pi, np.pi]]), 2.0),
    # the pillow, x -> -x; and with half turns of each angle; cos 2x
    (Quotient(Torus(2), [np.eye(2), -np.eye(2)]), 1.0),
    (Quotient.generated(Torus(2), [-np.eye(2), np.eye(2), np.eye(2)], [[0, 0], [np.pi, 0], [0, np.pi]]), 4.0),
    # a cyclic shift of four angles with a quarter turn of each, a full one around; with an eighth, half around
    (Quotient.generated(Torus(4), [np.roll(np.eye(4), 1, axis=0)], [[0.5 * np.pi] * 4]), 1.0),
    (Quotient.generated(Torus(4), [np.roll(np.eye(4), 1, axis=0)], [[0.25 * np.pi] * 4]), 2.0),
    (Quotient.generated(Torus(3), [np.roll(np.eye(3), 1, axis=0)], [[np.pi / 3] * 3]), 2.0),
    # a reflection about a quarter turn: sin x
    (Quotient(Circle(), [[[1.0]], [[-1.0]]], [[0.0], [np.pi]]), 1.0),
    # a swap with reflections and shifts, beside quarter turns of both
    (Quotient.generated(Torus(2), [np.eye(2), -SWAP], [[0.5 * np.pi] * 2, [1.5 * np.pi, 0.5 * np.pi]]), 8.0),
    # two directions without order, and with a sign that changes on the way
    (Quotient(Product(Sphere(2), Sphere(2)), [np.eye(6), SWAP3]), 2.0),
    (Quotient.generated(Product(Sphere(2), Sphere(2)), [SWAP3 @ block(np.eye(3), -np.eye(3))]), 4.0),
    # a sphere and a circle: a half turn of both; z, but not cos
    (Quotient(Product(Sphere(2), Circle()), [np.eye(4), np.diag([-1, -1, 1, 1])], [[0] * 4, [0, 0, 0, np.pi]]), 2.0),
    (Quotient(Product(Sphere(2, radius=0.1), Circle()), [np.eye(4)] * 2, [[0] * 4, [0, 0, 0, np.pi]]), 4.0),
    # quotients of quotients
    (Quotient(ProjectiveSpace(2), matrices("D2")), 6.0),
    (Quotient(Product(ProjectiveSpace(1), Box([(0, 1)])), [np.eye(3), block(turn(np.pi / 2), np.eye(1))]),
     np.pi**2),
])
def test_first_eigenvalue_against_the_heat_trace(space, eigenvalue):
    assert space.smallest_eigenvalue == pytest.approx(eigenvalue, rel=1e-12)
    # further modes are behind by exp(-9 (ratio - 1)); the trace is known to 1e-14 of exp(-11)
    assert decay_rate(space, eigenvalue) == pytest.approx(eigenvalue, rel=2e-2)


@pytest.mark.parametrize("p, q, eigenvalue", [(2, 1, 8.0), (3, 1, 8.0), (5, 2, 8.0), (7, 3, 8.0)])
def test_lens_spaces(p, q, eigenvalue):
    """|z_1|^2 - |z_2|^2 is invariant (Ikeda and Yamamoto 1979)."""
    g = block(turn(2 * np.pi / p), turn(2 * np.pi * q / p))
    space = Quotient(Sphere(3), [np.linalg.matrix_power(g, k) for k in range(p)])
    assert space.smallest_eigenvalue == pytest.approx(eigenvalue, rel=1e-12)


def test_dodecahedral_space():
    """The binary icosahedral group acts freely on S^3; its first invariant has degree 12 (Ikeda 1995)."""
    group = [quaternion_product(s, np.eye(4)).T for s in np.concatenate([rotation_group("I"), -rotation_group("I")])]
    space = Quotient(Sphere(3), group)
    assert space.n_images == 120
    assert space.smallest_eigenvalue == pytest.approx(12 * 14, rel=1e-11)
    assert space.volume == pytest.approx(2 * np.pi**2 / 120, rel=1e-13)
    # it looks the same from every point
    Z = space.random(3, np.random.default_rng(0))
    assert np.ptp(space.log_heat_kernel(Z, Z, 0.02)) < 1e-12


# ----------------------------------------------------------------------------- products and estimators


def test_quotients_of_products_and_products_of_quotients():
    rng = np.random.default_rng(3)
    base = Product(Sphere(2, coords="latlon_deg"), Circle(period=24.0))
    flip = np.diag([1.0, 1.0, -1.0, 1.0])
    space = Quotient(base, [np.eye(4), flip], shifts=[[0] * 4, [0, 0, 0, 12.0]])  # the other season
    X = np.column_stack([rng.uniform(-80, 80, 20), rng.uniform(-180, 180, 20), rng.uniform(0, 24, 20)])
    est = RDKSEstimator(space, bandwidth=0.5).fit(X)
    other = X * [-1, 1, 1] + [0, 0, 12]
    np.testing.assert_allclose(est.score_samples(other), est.score_samples(X), rtol=1e-11)
    np.testing.assert_allclose(est.score_field(other), est.score_field(X) * [-1, 1, 1], rtol=1e-8, atol=1e-9)
    single = RDKSEstimator(base, bandwidth=0.5).fit(np.concatenate([X, other]))
    np.testing.assert_allclose(est.score_samples(X), single.score_samples(X) + np.log(2), rtol=1e-11)
    assert est.sample(5, random_state=0).shape == (5, 3)
    product = Product(ProjectiveSpace(2), Quotient(Circle(period=24.0), [[[1.0]]] * 2, shifts=[[0.0], [12.0]]))
    x, y = np.array([[0.0, 0.6, 0.8, 1.0]]), np.array([[1.0, 0.0, 0.0, 14.0]])
    parts = [part.log_heat_kernel(part.embed(x[:, s]), part.embed(y[:, s]), 0.4)[0]
             for part, s in zip(product.parts, (slice(0, 3), slice(3, 4)), strict=True)]
    found = product.log_heat_kernel(product.embed(x), product.embed(y), 0.4)[0]
    assert found == pytest.approx(sum(parts), rel=1e-12)


def test_bandwidth_rules_and_weights():
    rng = np.random.default_rng(5)
    X = Rotation.from_rotvec(0.3 * rng.standard_normal((150, 3))).apply([0.0, 0.0, 1.0])
    space = Quotient(Sphere(2), matrices("O"))
    scattered = np.einsum("nij,nj->ni", matrices("O")[rng.integers(0, 24, 150)], X)
    fits = [RDKSEstimator(space, bandwidth="lcv").fit(points) for points in (X, scattered)]
    # the copies in which observations are given do not matter
    assert fits[0].bandwidth_ == pytest.approx(fits[1].bandwidth_, rel=1e-6)
    assert 0.02 < fits[0].bandwidth_ < 0.6
    np.testing.assert_allclose(fits[0].score_samples(X), fits[1].score_samples(scattered), rtol=1e-5)


def test_values():
    group = matrices("D3")
    for space in (ProjectiveSpace(3), Quotient(Sphere(2), group)):
        again = pickle.loads(pickle.dumps(space))
        assert again == space and hash(again) == hash(space)
        Z = space.random(3, np.random.default_rng(0))
        assert np.array_equal(again.images(Z), space.images(Z))
    assert repr(Quotient(Sphere(2), group)).endswith("<group of 6>)")
    first = Quotient(Sphere(2), np.roll(group, 2, axis=0))
    assert np.array_equal(first.group[0], np.eye(3)) and len(first.group) == 6
    assert Quotient(Sphere(2), [np.eye(3)]).is_homogeneous and ProjectiveSpace(2).is_homogeneous
    assert not Quotient(Sphere(2), group).is_homogeneous
    # whole turns of a shift make no difference
    turned = [Quotient(Circle(period=360.0), [[[1.0]]] * 2, shifts=[[0.0], [b]]) for b in (180.0, 540.0, -180.0)]
    assert turned[0] == turned[1] == turned[2]
    generated = Quotient.generated(Sphere(2), [matrices("O")[1], matrices("O")[5]])
    assert generated.n_images in (6, 8, 12, 24)
    assert Quotient(SO3(), [np.eye(4)]).read(Rotation.identity(2)).shape == (2, 3, 3)


@pytest.mark.parametrize("base, group, shifts, error, message", [
    (Sphere(2), [np.eye(3), 1.001 * np.eye(3)], None, ValueError, r"group\[1\] is not an isometry.*0.002.*all digits"),
    (Sphere(2), [np.eye(3), np.round(matrices("C3")[1], 4)], None, ValueError, r"group\[1\] is not an isometry"),
    (Sphere(2), matrices("C4")[:3], None, ValueError, r"group\[1\] after group\[2\] is not in the group.*generated"),
    (Sphere(2), matrices("C4")[1:2], None, ValueError, "the identity is not in the group"),
    (Sphere(2), matrices("C4")[[0, 1, 1, 2, 3]], None, ValueError, r"group\[1\] and group\[2\] act alike"),
    (Sphere(2), np.eye(3), None, ValueError, r"group has shape \(3, 3\), expected \(g, 3, 3\)"),
    (Sphere(2), [np.eye(2)], None, ValueError, r"expected \(g, 3, 3\)"),
    (Sphere(2), [np.full((3, 3), np.nan)], None, ValueError, r"group\[0\] or its shift is not finite"),
    (Sphere(2), [np.eye(3)], [[0, 0, 0.1]], ValueError, r"group\[0\].*shift moves columns 0 to 2, a sphere"),
    (Sphere(2), [np.eye(3)], [[0, 0]], ValueError, r"shifts has shape \(1, 2\), expected \(1, 3\)"),
    (Torus(2, period=(1.0, 2.0)), [np.eye(2), SWAP], None, ValueError, r"group\[1\].*carries columns 0 to 0"),
    (Torus(2), [np.eye(2), turn(0.5)], None, ValueError, r"group\[1\].*instead of one equal factor"),
    (Product(Euclidean(1), Circle()), [np.eye(2), SWAP], None, ValueError, r"group\[1\].*carries columns 1 to 1"),
    (Product(Sphere(2), Sphere(2, radius=2.0)), [np.eye(6), SWAP3], None, ValueError, "instead of one equal"),
    (Circle(), [[[1.0]]] * 2, [[0], [1.0]], ValueError, r"group\[1\] after group\[1\] is not in the group"),
    (Circle(), [[[1.0]]] * 2, [[0], [2 * np.pi]], ValueError, "act alike"),
    (ProjectiveSpace(2), [np.eye(3), -np.eye(3)], None, ValueError, r"group\[(0|1)\] and group\[(1|0)\] act"),
    (ProjectiveSpace(2), [np.eye(3), matrices("C3")[1]], None, ValueError, r"group\[1\] after group\[1\] is not"),
    ("sphere", [np.eye(3)], None, ValueError, "expected an rdks manifold"),
    (Circle(), [[[1.0]]] * 1500, [[k * 2 * np.pi / 1500] for k in range(1500)], UnsupportedError, "more than the 1000"),
])
def test_what_is_no_group(base, group, shifts, error, message):
    with pytest.raises(error, match=message):
        Quotient(base, group, shifts)


def test_what_generates_no_finite_group():
    with pytest.raises(ValueError, match="more than 1000 products"):
        Quotient.generated(Sphere(2), [block(turn(1.0), np.eye(1))])
    with pytest.raises(ValueError, match=r"generators\[1\] is not an isometry"):
        Quotient.generated(Sphere(2), [np.eye(3), 2 * np.eye(3)])


def test_spaces_without_matrices_for_isometries():
    class HalfSpace(Manifold):
        dim = 2
        point_shape = (2,)

        def factors(self):
            return (SpaceForm(2, radius=1.0, hyperbolic=True),)

    with pytest.raises(UnsupportedError, match="not a product of spheres and flat factors"):
        Quotient(HalfSpace(), [np.eye(2)])
    with pytest.raises(UnsupportedError, match="has a drift"):
        Quotient(OrnsteinUhlenbeck(1), [[[1.0]]])


def test_large_groups():
    """A dihedral group of 1000 elements: images, order and closure by brute force at a sample."""
    space = Quotient(Sphere(2), np.concatenate([matrices("C250"), matrices("C250") @ np.diag([1.0, -1, -1])]))
    assert space.n_images == 500 and space.smallest_eigenvalue == pytest.approx(6.0)
    generated = Quotient.generated(Circle(), [[[1.0]]], [[2 * np.pi / 800]])
    assert generated.n_images == 800
    assert generated.smallest_eigenvalue == pytest.approx(800.0**2, rel=1e-9)
    assert sorted(b[0] for b in generated.shifts) == pytest.approx(2 * np.pi * np.arange(800) / 800, abs=1e-11)


def test_every_finite_group_of_a_product_is_closed_by_hand():
    """Signed permutations of three angles: 48 elements, listed or generated."""
    listed = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product([1.0, -1.0], repeat=3):
            listed.append(np.eye(3)[list(order)] * np.array(signs)[:, None])
    generated = Quotient.generated(Torus(3), [listed[1], np.roll(np.eye(3), 1, axis=0), np.eye(3)[[1, 0, 2]]])
    assert Quotient(Torus(3), listed).n_images == generated.n_images == 48
    assert {tuple(np.ravel(g)) for g in generated.group} == {tuple(np.ravel(g + 0.0)) for g in listed}
