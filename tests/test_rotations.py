"""Rotations and unit quaternions against mpmath, scipy, geomstats and character theory."""
from __future__ import annotations

import pickle
import warnings

import mpmath as mp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from sklearn.model_selection import GridSearchCV

from rdks import RDKSEstimator
from rdks.errors import DuplicatesWarning, PointError
from rdks.manifolds import SO3, SU2, Quotient, load_geomstats
from rdks.manifolds.point_groups import point_group, quaternion_product, rotation_group
from rdks.sampling import heat_sample

EPS = np.finfo(float).eps
CHARTS = ("matrix", "quaternion", "quaternion_wxyz", "rotvec")
GROUPS = ("C2", "C3", "C4", "C6", "D2", "D3", "D4", "D6", "T", "O", "I")


def written(rotation, coords):
    """Write scipy's rotations in a chart."""
    return {"matrix": rotation.as_matrix, "quaternion": rotation.as_quat, "rotvec": rotation.as_rotvec,
            "quaternion_wxyz": lambda: rotation.as_quat(scalar_first=True)}[coords]()


def angle_mp(z, w):
    """Angle between two vectors of floats, in all digits."""
    z, w = mp.matrix(list(map(float, z))), mp.matrix(list(map(float, w)))
    z, w = z / mp.norm(z), w / mp.norm(w)
    return 2 * mp.atan2(mp.norm(z - w), mp.norm(z + w))


def log_so3_characters(omega, t):
    """Theory (11), first form: the sum of the characters."""
    digits = int(40 + omega**2 / (2 * t) / mp.log(10))
    with mp.workdps(digits):
        total, level = mp.mpf(0), 0
        while True:
            size = 2 * level + 1
            weight = size * mp.exp(-mp.mpf(level) * (level + 1) * t / 2)
            total += weight * (size if omega == 0 else mp.sin(size * omega / 2) / mp.sin(omega / 2))
            if level > 3 and weight * size < mp.mpf(10) ** -digits:
                return mp.log(total / (8 * mp.pi**2))
            level += 1


def log_so3_images(omega, t):
    """Theory (11), second form: the sum over windings."""
    with mp.workdps(80):
        def term(k):
            x = omega + 2 * mp.pi * k
            shape = 1 - x * x / t if omega == 0 else x / (2 * mp.sin(omega / 2))
            return (-1) ** k * shape * mp.exp((omega * omega - x * x) / (2 * t))
        total = sum(term(k) for k in range(-12, 13))
        return t / 8 - mp.mpf(3) / 2 * mp.log(2 * mp.pi * t) + mp.log(total) - omega * omega / (2 * t)


@pytest.mark.parametrize("t", [1e-4, 1e-2, 0.3, 1.0, 3.0, 10.0])
@pytest.mark.parametrize("omega", [0.0, 1e-8, 1e-3, 0.5, 2.0, np.pi - 1e-6, np.pi])
def test_so3_kernel_is_that_of_both_series(omega, t):
    """To 1e-12 of max(1, |log k|): formulas to 1e-14, distances to a few roundings, of which r/t times r."""
    axis = np.array([0.6, 0.0, 0.8])
    space = SO3(coords="quaternion")
    start = space.embed(np.array([[0.5, 0.1, -0.7, 0.5]]))
    step = np.append(np.sin(0.5 * omega) * axis, np.cos(0.5 * omega) if omega < np.pi else 0.0)
    end = space.embed(quaternion_product(0.5 * start, step))
    found = space.log_heat_kernel(start, end, t)[0]
    with mp.workdps(40):
        half = angle_mp(start[0], end[0])
        exact = 2 * min(half, mp.pi - half)
        assert abs(exact - omega) < 1e-14
        want = log_so3_images(exact, mp.mpf(t))
        if exact**2 / (2 * t) < 500:
            assert abs(want - log_so3_characters(exact, mp.mpf(t))) < 1e-30
        assert abs(found - want) <= 1e-12 * max(1, abs(want))


@pytest.mark.parametrize("t", [1e-4, 1e-2, 0.3, 1.0, 10.0])
def test_su2_kernel_is_that_of_the_three_sphere(t):
    """Theory 2.1: e^{t/2} (2 pi t)^{-3/2} sum_m (theta + 2 pi m) / sin(theta) e^{-(theta + 2 pi m)^2 / 2t}."""
    theta = np.array([1e-6, 0.1, 1.0, 2.0, 3.1, np.pi - 1e-5])
    Z = np.column_stack([np.sin(theta), 0 * theta, 0 * theta, np.cos(theta)])
    found = SU2().log_heat_kernel(np.tile([0.0, 0.0, 0.0, 1.0], (len(theta), 1)), Z, t)
    for z, value in zip(Z, found, strict=True):
        with mp.workdps(60):
            a, s = angle_mp(z, [0, 0, 0, 1]), mp.mpf(t)
            total = sum((a + 2 * mp.pi * m) / mp.sin(a) * mp.exp((a * a - (a + 2 * mp.pi * m) ** 2) / (2 * s))
                        for m in range(-12, 13))
            want = s / 2 - 1.5 * mp.log(2 * mp.pi * s) + mp.log(total) - a * a / (2 * s)
            assert abs(value - want) <= 1e-12 * max(1, abs(want))


def test_metrics():
    assert SO3().volume == pytest.approx(8 * np.pi**2, rel=4 * EPS)
    assert SU2().volume == pytest.approx(2 * np.pi**2, rel=4 * EPS)
    assert SO3().smallest_eigenvalue == 2.0 and SU2().smallest_eigenvalue == 3.0
    assert (SO3().dim, SO3().embed_dim, SO3().n_images, SU2().dim, SU2().n_images) == (3, 4, 2, 3, 1)
    # a full turn is far away in SU(2), and half the rotation angle
    q = Rotation.from_rotvec([[0, 0, 0], [0, 0, 1.2]]).as_quat()
    assert SU2().dist(q[:1], q[1:])[0] == pytest.approx(0.6, rel=4 * EPS)
    assert SU2().dist(q[:1], -q[1:])[0] == pytest.approx(np.pi - 0.6, rel=4 * EPS)
    assert SO3().dist(2 * q[:1], -2 * q[1:])[0] == pytest.approx(1.2, rel=4 * EPS)


def test_distance_is_the_angle_of_scipy_and_geomstats():
    A, B = Rotation.random(6, random_state=0), Rotation.random(6, random_state=1)
    want = (A.inv() * B).magnitude()
    for coords in CHARTS:
        space = SO3(coords=coords)
        Z, W = space.embed(written(A, coords)), space.embed(written(B, coords))
        np.testing.assert_allclose(space.dist(Z, W), want, rtol=0, atol=32 * EPS)
        np.testing.assert_allclose(np.linalg.norm(space.log(Z, W), axis=1), want, rtol=0, atol=32 * EPS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load_geomstats()
        from geomstats.geometry.special_orthogonal import SpecialOrthogonal
        theirs = SpecialOrthogonal(3, point_type="vector").metric
        found = [float(theirs.dist(a, b)) for a, b in zip(A.as_rotvec()[:3], B.as_rotvec()[:3], strict=True)]
    np.testing.assert_allclose(found, want[:3], rtol=1e-6)  # what their regularisation near pi leaves


# ------------------------------------------------------------------------------------------ charts


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-7, 0.3, 2.5, np.pi - 1e-9, np.pi])
def test_charts_agree_at_every_angle(angle):
    rng = np.random.default_rng(3)
    axis = rng.standard_normal((40, 3))
    axis[:3] = np.eye(3)
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    rotation = Rotation.from_rotvec(angle * axis)
    want = SO3(coords="quaternion").embed(rotation.as_quat())
    for coords in CHARTS:
        space = SO3(coords=coords)
        Z = space.embed(written(rotation, coords))
        assert space.dist(Z, want).max() <= 16 * EPS
        assert space.dist(space.embed(space.read(rotation)), want).max() <= 16 * EPS
        back = space.unembed(Z)
        assert back.shape == (40, *space.point_shape)
        assert space.dist(space.embed(back), want).max() <= 16 * EPS
        assert space.violation(back).max() <= 16 * EPS
        flat = space.embed(written(rotation, coords).reshape(40, -1))
        assert np.array_equal(flat, Z)
    # tiny angles keep their digits relative to themselves, at the identity
    M, vectors = SO3(), SO3(coords="rotvec")
    if 0 < angle < 1e-6:
        np.testing.assert_allclose(vectors.unembed(want), angle * axis, rtol=0, atol=8 * EPS * angle)
        hat = rotation.as_matrix() - np.eye(3)
        found = vectors.unembed(M.embed(np.eye(3) + 0.5 * (hat - hat.transpose(0, 2, 1))))
        np.testing.assert_allclose(found, angle * axis, rtol=0, atol=64 * EPS * angle)
    assert np.array_equal(vectors.unembed(vectors.embed([[0.0, 1e-200, 0.0]])), [[0.0, 1e-200, 0.0]])
    # angles come back in [0, pi]
    assert np.linalg.norm(vectors.unembed(want), axis=1).max() <= np.pi * (1 + EPS)


def test_copies_of_a_rotation_are_equal_to_the_last_bit():
    rotation = Rotation.random(50, random_state=5)
    half_turns = Rotation.from_quat(np.column_stack([np.random.default_rng(0).standard_normal((50, 3)), np.zeros(50)]))
    for r in (rotation, half_turns):
        q = r.as_quat()
        space = SO3(coords="quaternion")
        Z = space.embed(q)
        assert np.array_equal(Z, space.embed(-q)) and (Z[:, 3] >= 0).all() and not np.signbit(Z[Z == 0]).any()
        assert np.array_equal(Z, SO3(coords="quaternion_wxyz").embed(np.roll(-q, 1, axis=1)))
        M = r.as_matrix()
        copies = SO3().embed(np.concatenate([M, M[::-1], M[:7]]))
        assert np.array_equal(copies[:50], copies[50:100][::-1]) and np.array_equal(copies[:7], copies[100:])
    with pytest.warns(DuplicatesWarning, match="50 of 100"):
        RDKSEstimator(SO3(coords="quaternion")).fit(np.concatenate([q, -q]))


def test_long_rotation_vectors_are_wrapped():
    vectors = SO3(coords="rotvec")
    v = np.array([[0.0, 0.6, 0.8]]) * np.array([[0.7], [0.7 + 2 * np.pi], [0.7 - 2 * np.pi], [0.7 + 20 * np.pi]])
    Z = vectors.embed(v)
    # the vectors are rounded relative to their length
    assert vectors.dist(Z[:1], Z).max() < 70 * 4 * EPS
    np.testing.assert_allclose(vectors.unembed(Z), np.tile(v[0], (4, 1)), atol=70 * 4 * EPS)
    assert (vectors.violation(v) == 0).all()


def polar(M):
    """Nearest rotation by singular values, for matrices of positive determinant."""
    U, _, Vt = np.linalg.svd(M)
    return U @ Vt


def test_nearest_rotation():
    rng = np.random.default_rng(1)
    R = Rotation.random(100, random_state=2).as_matrix()
    for noise in (1e-7, 1e-3, 0.2):
        M = R + noise * rng.standard_normal(R.shape)
        assert (np.linalg.det(M) > 0).all()
        want = SO3().embed(polar(M))
        assert SO3().dist(SO3().embed(M), want).max() < 64 * EPS
        # the size of a matrix does not matter, however large
        assert SO3().dist(SO3().embed(1e308 * M / np.abs(M).max()), want).max() < 64 * EPS
    # det <= 0, where the nearest rotation flips the direction of the smallest singular value
    U, _, Vt = np.linalg.svd(rng.standard_normal((50, 3, 3)))
    sign = np.sign(np.linalg.det(U @ Vt))
    S = np.tile([2.0, 1.5, 0.5], (50, 1))
    S[:, 2] *= -sign  # determinant of the product is negative
    M, want = (U * S[:, None]) @ Vt, (U * np.column_stack([S[:, :2] * 0 + 1, sign])[:, None]) @ Vt
    assert (np.linalg.det(M) < 0).all() and (np.linalg.det(want) > 0).all()
    assert SO3().dist(SO3().embed(M), SO3().embed(want)).max() < 64 * EPS


def test_what_is_no_rotation():
    good = Rotation.random(5, random_state=0).as_matrix()
    for bad, message in ((-good[0], r"det R - 1\| \(2 for a reflection\) = 2 exceeds.*determinant -1 is a reflection"),
                         (np.diag([1.0, 1.0, -1.0]), r"= 2 exceeds"),
                         (2 * good[0], r"= 7 exceeds"), (np.zeros((3, 3)), "= 1 exceeds"),
                         (1e160 * good[0], "= (inf|nan) exceeds"),
                         (good[0] + 1e-3, "nearest rotation")):
        X = good.copy()
        X[3] = bad
        with pytest.raises(PointError, match=r"X\[3\] is not on SO3.*" + message):
            RDKSEstimator(SO3(), bandwidth=0.3).fit(X)
    # reflections and zero have no nearest rotation, and are not given one
    for bad in (-good[0], np.zeros((3, 3))):
        with pytest.raises(PointError, match="no nearest point"):
            RDKSEstimator(SO3(), bandwidth=0.3, check_points="project").fit(np.array([good[0], bad]))
    near = RDKSEstimator(SO3(), bandwidth=0.3, check_points="project").fit(good + 1e-3)
    assert np.isfinite(near.score_samples(good)).all()
    with pytest.raises(PointError, match=r"X\[1\].*\| \|\|q\|\| - 1 \| = 1 exceeds.*x, y, z, w"):
        RDKSEstimator(SO3(coords="quaternion"), bandwidth=0.3).fit(np.array([[0, 0, 0, 1.0], [0, 0, 0, 2.0]]))
    assert not SO3().violation(good + 1e-8).max() > SO3.tolerance
    with pytest.raises(ValueError, match="coords = 'euler' is not one of"):
        SO3(coords="euler")
    with pytest.raises(ValueError, match="single rotation"):
        SO3().read(Rotation.identity())


def test_scipy_rotations_are_points():
    rotation = Rotation.random(30, random_state=4)
    want = RDKSEstimator(SO3(), bandwidth=0.4).fit(rotation.as_matrix()).score_samples(rotation.as_matrix())
    for manifold in ("auto", "so3", *map(SO3, CHARTS)):
        est = RDKSEstimator(manifold, bandwidth=0.4).fit(rotation)
        np.testing.assert_allclose(est.score_samples(rotation), want, rtol=1e-12)
        assert est.sample(3, random_state=0).shape == (3, *est.manifold_.point_shape)
    with pytest.raises(ValueError, match="Rotation"):
        RDKSEstimator(SU2(), bandwidth=0.4).fit(rotation)


# ------------------------------------------------------------------------------------------ scores


def hat(w):
    return np.array([[0, -w[2], w[1]], [w[2], 0, -w[0]], [-w[1], w[0], 0]])


def test_tangent_vectors_in_every_chart():
    """The curve Z(h) = exp(Z, h V) turns the body frame at the rate that the charts say."""
    rng = np.random.default_rng(0)
    rotation = Rotation.random(20, random_state=7)
    space = SO3()
    Z = space.embed(rotation.as_matrix())
    V = space.to_tangent(Z, rng.standard_normal(Z.shape))
    h = 1e-4
    ends = [space.unembed(space.exp(Z, k * h * V)) for k in (-2, -1, 1, 2)]
    # truncation h^4 |V|^5 / 30, rounding eps / h
    velocity = (8 * (ends[2] - ends[1]) - (ends[3] - ends[0])) / (12 * h)
    body = rotation.as_matrix().transpose(0, 2, 1) @ velocity
    omega = SO3(coords="rotvec").push_tangent(rotation.as_rotvec(), V)
    np.testing.assert_allclose(body, [hat(w) for w in omega], atol=1e-10)
    np.testing.assert_allclose(np.linalg.norm(omega, axis=1), np.linalg.norm(V, axis=1), rtol=1e-13)
    pushed = space.push_tangent(rotation.as_matrix(), V)
    np.testing.assert_allclose(pushed, velocity, atol=1e-10)
    np.testing.assert_allclose(np.linalg.norm(pushed, axis=(1, 2)), np.sqrt(2) * np.linalg.norm(V, axis=1), rtol=1e-13)
    # quaternions, of either sign: q turns into q + h q', half the speed
    for coords in ("quaternion", "quaternion_wxyz"):
        for sign in (1, -1):
            q = sign * written(rotation, coords)
            W = SO3(coords=coords).push_tangent(q, V)
            np.testing.assert_allclose(np.sum(q * W, 1), 0, atol=1e-14)
            moved = Rotation.from_quat(q + 1e-7 * W, scalar_first=coords == "quaternion_wxyz")
            np.testing.assert_allclose((rotation.inv() * moved).as_rotvec(), 1e-7 * omega, atol=1e-13)


@pytest.mark.parametrize("options", [{}, {"symmetry": "O"}, {"symmetry": "D3", "specimen": "D2"}])
@pytest.mark.parametrize("t", [0.02, 0.7])
def test_score_is_the_gradient_of_the_log_density(options, t):
    rng = np.random.default_rng(2)
    X, Q = Rotation.random(8, random_state=1), Rotation.random(5, random_state=2)
    fits = {c: RDKSEstimator(SO3(coords=c, **options), bandwidth=np.sqrt(t)).fit(written(X, c)) for c in CHARTS}
    omega = fits["rotvec"].score_field(Q.as_rotvec())
    h = 1e-3 * np.sqrt(t)
    for e in np.eye(3):
        logs = [fits["matrix"].score_samples((Q * Rotation.from_rotvec(k * h * e)).as_matrix()) for k in (-2, -1, 1, 2)]
        slope = (8 * (logs[2] - logs[1]) - (logs[3] - logs[0])) / (12 * h)
        np.testing.assert_allclose(omega @ e, slope, atol=1e-7 / t)
    np.testing.assert_allclose(fits["matrix"].score_field(Q.as_matrix()), Q.as_matrix() @ [hat(w) for w in omega],
                               atol=1e-9 / t)
    flip = rng.choice([-1.0, 1.0], (5, 1))
    for c in ("quaternion", "quaternion_wxyz"):
        product = quaternion_product(Q.as_quat(), np.column_stack([0.5 * omega, np.zeros(5)]))
        want = product if c == "quaternion" else np.roll(product, 1, axis=1)
        np.testing.assert_allclose(fits[c].score_field(flip * written(Q, c)), flip * want, atol=1e-9 / t)


def test_score_of_one_rotation_is_radial():
    """Theory 2.4: (d/d omega log p) times the axis of R_0^T R, in the body frame."""
    t, axis, base = 0.3, np.array([0.6, 0.0, 0.8]), Rotation.from_rotvec([0.3, -0.7, 0.2])
    est = RDKSEstimator(SO3(coords="rotvec"), bandwidth=np.sqrt(t)).fit(np.tile(base.as_rotvec(), (2, 1)))
    for omega in (0.2, 1.5, 3.0):
        with mp.workdps(40):
            slope = float(mp.diff(lambda w: log_so3_images(w, mp.mpf(t)), mp.mpf(omega)))
        found = est.score_field((base * Rotation.from_rotvec(omega * axis)).as_rotvec()[None])
        np.testing.assert_allclose(found[0], slope * axis, rtol=0, atol=1e-8)


# ------------------------------------------------------------------------------------------ symmetry


@pytest.mark.parametrize("name", [*GROUPS, "C1", "C7", "D1", "D5", "D12"])
def test_point_groups_are_those_of_scipy(name):
    ours, theirs = rotation_group(name), Rotation.create_group(name).as_quat()
    overlap = np.abs(ours @ theirs.T)
    assert len(ours) == len(theirs) and np.array_equal(ours[0], [0, 0, 0, 1])
    assert overlap.max(axis=0).min() > 1 - 4 * EPS and overlap.max(axis=1).min() > 1 - 4 * EPS
    # every element in full precision: a product of two is an element, to rounding
    products = quaternion_product(ours[:, None], ours[None]).reshape(-1, 4)
    assert np.abs(products @ ours.T).max(axis=1).min() > 1 - 8 * EPS


def test_axes_are_as_documented():
    def axes(name, fold):
        """Axes about which the group has a turn by 2 pi / fold, up to sign."""
        vectors = Rotation.from_quat(rotation_group(name)).as_rotvec()
        angle = np.linalg.norm(vectors, axis=1)
        keep = np.isclose(angle, 2 * np.pi / fold)
        found = vectors[keep] / angle[keep, None]
        return {tuple(np.round(np.abs(v), 6)) for v in found}
    assert axes("C6", 6) == axes("D6", 6) == {(0, 0, 1)}
    assert (1, 0, 0) in axes("D3", 2)
    for name, fold in (("T", 2), ("O", 4), ("I", 2)):
        assert set(map(tuple, np.eye(3))) <= axes(name, fold)
        assert (0.57735, 0.57735, 0.57735) in axes(name, 3)
    golden = np.array([0, 1, 0.5 * (1 + np.sqrt(5))])
    assert tuple(np.round(golden / np.linalg.norm(golden), 6)) in axes("I", 5)


@pytest.mark.parametrize("names, symbol, order", [
    (("1", "triclinic", "-1"), "C1", 1), (("2", "monoclinic", "2/m"), "C2", 2), (("3", "-3"), "C3", 3),
    (("222", "orthorhombic", "mmm"), "D2", 4), (("32", "trigonal", "-3m"), "D3", 6), (("4", "4/m"), "C4", 4),
    (("422", "tetragonal", "4/mmm"), "D4", 8), (("622", "hexagonal", "6/mmm"), "D6", 12), (("6", "6/m"), "C6", 6),
    (("23", "m-3", "tetrahedral"), "T", 12), (("432", "cubic", "m-3m"), "O", 24), (("532", "icosahedral"), "I", 60)])
def test_names_of_point_groups(names, symbol, order):
    for name in (*names, symbol):
        assert point_group(name) == symbol and len(rotation_group(name)) == order
        space = SO3(symmetry=name)
        assert space == SO3(symmetry=symbol) and hash(space) == hash(SO3(symmetry=symbol))
        assert space.n_images == 2 * order
        assert space.volume == pytest.approx(8 * np.pi**2 / order, rel=8 * EPS)
    for bad in ("m3m", "C0", "D1000", "c4", "", 4, "mm2"):
        with pytest.raises(ValueError, match="symmetry = .*not the name of a group of rotations.*Laue class"):
            SO3(symmetry=bad)


@pytest.mark.parametrize("name", GROUPS)
def test_crystal_symmetry_acts_on_the_right(name):
    group = Rotation.create_group(name)
    X, Q = Rotation.random(7, random_state=1), Rotation.random(5, random_state=2)
    S = group[len(group) - 1]
    crystal = RDKSEstimator(SO3(symmetry=name), bandwidth=0.25).fit(X.as_matrix())
    specimen = RDKSEstimator(SO3(specimen=name), bandwidth=0.25).fit(X.as_matrix())
    plain = RDKSEstimator(SO3(), bandwidth=0.25).fit(X.as_matrix())
    logs = crystal.score_samples(Q.as_matrix())
    np.testing.assert_allclose(crystal.score_samples((Q * S).as_matrix()), logs, rtol=1e-11)
    assert np.abs(crystal.score_samples((S * Q).as_matrix()) - logs).max() > 0.1
    # the definition, with the plain manifold and scipy's group
    sums = np.logaddexp.reduce([plain.score_samples((Q * g).as_matrix()) for g in group], axis=0)
    np.testing.assert_allclose(logs, sums, rtol=1e-10, atol=1e-10)
    logs = specimen.score_samples(Q.as_matrix())
    np.testing.assert_allclose(specimen.score_samples((S * Q).as_matrix()), logs, rtol=1e-11)
    sums = np.logaddexp.reduce([plain.score_samples((g * Q).as_matrix()) for g in group], axis=0)
    np.testing.assert_allclose(logs, sums, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("options", [{"symmetry": "O"}, {"symmetry": "D3"}, {"symmetry": "T", "specimen": "D2"},
                                     {"specimen": "C4"}, {"symmetry": "I"}])
def test_disorientation_and_fundamental_zone(options):
    """Distances are the smallest of scipy's angles, and samples its reduced rotations."""
    A, B = Rotation.random(40, random_state=1), Rotation.random(40, random_state=2)
    left, right = (Rotation.create_group(options.get(key, "C1")) for key in ("specimen", "symmetry"))
    space = SO3(**options)
    Z, W = space.embed(A.as_matrix()), space.embed(B.as_matrix())
    want = np.min([((s * A * c).inv() * B).magnitude() for s in left for c in right], axis=0)
    np.testing.assert_allclose(space.dist(Z, W), want, atol=32 * EPS)
    reduced = A.reduce(left=left, right=right)
    found = Rotation.from_matrix(space.unembed(Z))
    np.testing.assert_allclose(found.magnitude(), reduced.magnitude(), atol=32 * EPS)
    if len(options) == 1:  # an element of both groups, once on each side, leaves the angle as it is
        assert (found * reduced.inv()).magnitude().max() < 64 * EPS
    # written and read back, a representative stays what it is
    assert np.array_equal(space.unembed(space.embed(space.unembed(Z))).round(12), space.unembed(Z).round(12))
    drawn = space.random(2000, np.random.default_rng(0))
    np.testing.assert_allclose(space.embed(space.unembed(drawn)), drawn, atol=16 * EPS)
    R = Rotation.from_matrix(space.unembed(drawn))
    assert (R.reduce(left=left, right=right).magnitude() > R.magnitude() - 1e-12).all()


def test_samples_come_from_the_fundamental_zone():
    """No cubic orientation is further than 62.8 degrees from the cube (Mackenzie 1958)."""
    limit = 2 * np.arctan(np.sqrt(23 - 16 * np.sqrt(2)))  # a corner of the truncated cube of Rodrigues vectors
    est = RDKSEstimator(SO3(coords="rotvec", symmetry="cubic"), bandwidth=1.5).fit(
        Rotation.random(20, random_state=0).as_rotvec())
    angle = np.linalg.norm(est.sample(4000, random_state=0), axis=1)
    assert limit - 0.1 < angle.max() <= limit + 1e-12
    assert np.rad2deg(limit) == pytest.approx(62.7994, abs=1e-4)


@pytest.mark.parametrize("options", [{}, *({"symmetry": name} for name in GROUPS), {"specimen": "O"},
                                     {"symmetry": "D6", "specimen": "D2"}])
def test_smallest_eigenvalue_counts_invariants_by_characters(options):
    """l(l+1) for the first l > 0 with an invariant: the mean character chi_l(s) chi_l(c) is positive."""
    def multiplicity(name, level):
        angle, size = Rotation.create_group(name).magnitude(), 2 * level + 1
        half = 0.5 * np.where(angle < 1e-9, 1.0, angle)
        return round(np.where(angle < 1e-9, size, np.sin(size * half) / np.sin(half)).mean())

    level, names = 1, [options.get(key, "C1") for key in ("symmetry", "specimen")]
    while not all(multiplicity(name, level) for name in names):
        level += 1
    assert SO3(**options).smallest_eigenvalue == pytest.approx(level * (level + 1), rel=1e-13)


def haar(n):
    """Quadrature of the Haar measure, total 8 pi^2, exact for functions of degree < n."""
    u, w = np.polynomial.legendre.leggauss(n)
    turn = 2 * np.pi * np.arange(n) / n
    a, b, c = (x.ravel() for x in np.meshgrid(turn, np.arccos(u), turn, indexing="ij"))
    weight = np.tile(np.repeat(w, n), n) * (2 * np.pi / n) ** 2
    return Rotation.from_euler("ZYZ", np.column_stack([a, b, c])), weight


@pytest.mark.parametrize("options, order", [({}, 1), ({"symmetry": "D3"}, 6), ({"symmetry": "O"}, 24),
                                            ({"symmetry": "C2", "specimen": "D2"}, 8)])
def test_mass_one(options, order):
    """Over all rotations the density has mass |G|, since they cover the quotient so often."""
    t = 0.4  # level 14 has decayed to exp(-42)
    R, weight = haar(14)
    space = SO3(**options)
    x = np.tile(space.embed(Rotation.from_rotvec([[0.3, 0.5, -1.0]]).as_matrix()), (len(weight), 1))
    values = np.exp(space.log_heat_kernel(x, space.embed(R.as_matrix()), t))
    assert weight @ values == pytest.approx(order, rel=1e-12)
    assert weight.sum() == pytest.approx(8 * np.pi**2, rel=1e-13)


@pytest.mark.parametrize("t", [0.01, 0.5, 4.0])
def test_mass_one_by_the_radial_law(t):
    """Theory 2.4: angles have the law 16 pi sin^2(omega / 2) p_t(omega) d omega."""
    u, w = np.polynomial.legendre.leggauss(200)
    omega, w = 0.5 * np.pi * (u + 1), 0.5 * np.pi * w
    vectors = SO3(coords="rotvec")
    Z = vectors.embed(omega[:, None] * [0.0, 0.6, 0.8])
    p = np.exp(vectors.log_heat_kernel(np.tile([0.0, 0.0, 0.0, 2.0], (200, 1)), Z, t))
    assert w @ (16 * np.pi * np.sin(0.5 * omega) ** 2 * p) == pytest.approx(1.0, rel=1e-12)


def test_sampler_damps_characters():
    """E trace(R_0^T R) = 3 e^{-t}: l = 1."""
    space, n, rng = SO3(), 20000, np.random.default_rng(0)
    for t in (0.05, 1.0):
        start = Rotation.from_rotvec([0.2, 1.0, -0.4]).as_matrix()
        R = space.unembed(heat_sample(space, np.repeat(space.embed(start[None]), n, axis=0), t, rng))
        traces = np.einsum("ij,nij->n", start, R)
        assert abs(traces.mean() - 3 * np.exp(-t)) < 5 * traces.std() / np.sqrt(n)
    M = space.unembed(space.random(n, rng))
    assert np.abs(M.mean(axis=0)).max() < 5 / np.sqrt(3 * n)  # uniform: entries have mean 0, variance 1/3
    assert np.abs((M**2).mean(axis=0) - 1 / 3).max() < 5 * 0.3 / np.sqrt(n)


def test_a_symmetry_is_a_quotient():
    """The group of 4 x 4 matrices that right multiplication by S means, given by hand."""
    group = [quaternion_product(np.eye(4), s).T for s in rotation_group("T")]
    byhand, named = Quotient(SO3(), group), SO3(symmetry="T")
    X, Q = Rotation.random(6, random_state=0).as_matrix(), Rotation.random(4, random_state=1).as_matrix()
    assert byhand.n_images == 24 and byhand.volume == pytest.approx(named.volume, rel=1e-14)
    assert byhand.smallest_eigenvalue == pytest.approx(named.smallest_eigenvalue, rel=1e-13) == pytest.approx(12.0)
    logs = [RDKSEstimator(space, bandwidth=0.3).fit(X).score_samples(Q) for space in (byhand, named)]
    np.testing.assert_allclose(logs[0], logs[1], rtol=1e-11)


def test_values():
    for space in (SO3(), SO3("rotvec", "cubic", specimen="222"), SU2()):
        again = pickle.loads(pickle.dumps(space))
        assert again == space and hash(again) == hash(space)
    assert repr(SO3(symmetry="cubic")) == "SO3(coords='matrix', symmetry='O', specimen=None)"
    assert SO3(symmetry="triclinic") == SO3() and SO3(symmetry="1").is_homogeneous
    # right and left symmetries do not commute with enough turns to carry any point to any other
    assert SO3(symmetry="O").is_homogeneous and not SO3(symmetry="O", specimen="D2").is_homogeneous


@pytest.mark.parametrize("options, equal", [({"symmetry": "O"}, True), ({"specimen": "D3"}, True),
                                            ({"symmetry": "O", "specimen": "D2"}, False)])
def test_homogeneous_where_it_says_so(options, equal):
    space = SO3(**options)
    Z = space.random(20, np.random.default_rng(0))
    peaks = space.log_heat_kernel(Z, Z, 0.3)
    assert (np.ptp(peaks) < 1e-12) == equal


# -------------------------------------------------------------------- rotations as scipy holds them, copies


def test_scipy_rotations_are_read_wherever_points_are():
    X = Rotation.random(60, random_state=0)
    for given, chart in (("so3", "matrix"), ("auto", "matrix"), (SO3(coords="rotvec"), "rotvec")):
        est = RDKSEstimator(given, bandwidth=0.4).fit(X)
        assert est.manifold_.coords == chart
        want = RDKSEstimator(SO3(), bandwidth=0.4).fit(X.as_matrix()).score_samples(X.as_matrix())
        for written in (X, list(X)):
            np.testing.assert_allclose(est.score_samples(written), want, rtol=1e-12)
        assert est.partial_fit(X).n_samples_seen_ == 120
    # a fit to quaternions reads rotations as quaternions, whatever the name it was given
    quaternions = RDKSEstimator("so3", bandwidth=0.4).fit(X.as_quat())
    np.testing.assert_allclose(quaternions.score_samples(X), want, rtol=1e-12)
    # cross-validation takes rows by index, which the matrices allow
    search = GridSearchCV(RDKSEstimator(SO3()), {"bandwidth": [0.2, 0.6]}, cv=3).fit(X.as_matrix())
    assert search.best_params_["bandwidth"] == 0.6


@pytest.mark.parametrize("manifold", ["auto", "so3", SO3()])
def test_a_single_rotation_is_no_data(manifold):
    with pytest.raises(ValueError, match="single rotation; expected a stack"):
        RDKSEstimator(manifold, bandwidth=0.3).fit(Rotation.from_rotvec([0.1, 0.2, 0.3]))


@pytest.mark.parametrize("manifold", ["sphere", "su2", SU2()])
def test_rotations_are_points_of_no_other_space(manifold):
    with pytest.raises(ValueError, match="X is a Rotation, but the points of"):
        RDKSEstimator(manifold, bandwidth=0.3).fit(Rotation.random(5, random_state=0))


@pytest.mark.parametrize("rule", ["lcv", "lscv"])
@pytest.mark.parametrize("coords", ["matrix", "quaternion"])
def test_symmetric_copies_are_copies(rule, coords):
    """A rotation and its copies under the crystal's symmetry are one observation, of the sum of their weights."""
    X = Rotation.random(60, random_state=0)
    S = Rotation.create_group("O")
    space = SO3(coords=coords, symmetry="cubic")
    once = RDKSEstimator(space, bandwidth=rule).fit(space.read(X))
    doubled = Rotation.concatenate([X, X * S[5]])
    with pytest.warns(DuplicatesWarning, match="60 of 120 rows are copies"):
        twice = RDKSEstimator(space, bandwidth=rule).fit(space.read(doubled))
    assert twice.bandwidth_ == pytest.approx(once.bandwidth_, rel=1e-9)
    np.testing.assert_allclose(twice.score_samples(space.read(X)), once.score_samples(space.read(X)), rtol=1e-9)
    # one copy of one row only: too few to warn, and merged all the same
    one = Rotation.concatenate([X] * 1 + [(X * S[7])[:1]])
    with pytest.warns(DuplicatesWarning, match="1 of 61"):
        assert RDKSEstimator(space, bandwidth=rule).fit(space.read(one)).bandwidth_ > 0.1


def test_rule_of_thumb_does_not_depend_on_the_order():
    X = Rotation.random(100, random_state=0).as_quat()
    space = SO3(coords="quaternion", symmetry="cubic")
    found = [RDKSEstimator(space, bandwidth="rot").fit(X[order]).bandwidth_
             for order in (slice(None), slice(None, None, -1), np.random.default_rng(0).permutation(100))]
    assert np.ptp(found) < 1e-9
