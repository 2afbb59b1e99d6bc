"""Wigner functions on the three-dimensional sphere: against their definition, the exact sums and group averages."""
import mpmath
import numpy as np
import pytest
from scipy.linalg import expm

from rdks.engines import DirectSum
from rdks.harmonics import degree_for, moments_of, sphere3
from rdks.harmonics.base import levels
from rdks.harmonics.sphere3 import WignerFunctions
from rdks.manifolds import SO3, SU2, ProjectiveSpace, SpaceForm, Sphere
from rdks.manifolds.point_groups import quaternion_product, rotation_group

CASES = [(7, 1.0, False), (6, 3.0, False), (8, 2.0, True), (9, 2.0, True), (1, 1.0, False), (0, 2.0, False)]


def spin(level):
    """Matrices of the angular momentum j = level/2 in the basis m = -j, ..., j; (3, level + 1, level + 1)."""
    j, m = 0.5 * level, np.arange(level + 1) - 0.5 * level
    up = np.diag(np.sqrt(j * (j + 1) - m[:-1] * (m[:-1] + 1)), -1)
    return np.array([0.5 * (up + up.T), -0.5j * (up - up.T), np.diag(m)])


def matrices(level, q):
    """Matrices D^j of unit quaternions: exponentials of the angular momentum about the axis of the turn."""
    size = np.linalg.norm(q[:, :3], axis=1)
    axis = np.divide(q[:, :3], size[:, None], out=np.zeros((len(q), 3)), where=size[:, None] > 0)
    turn = (2 * np.arctan2(size, q[:, 3]))[:, None] * axis
    return np.array([expm(-1j * np.tensordot(t, spin(level), 1)) for t in turn])


def functions(harmonics, Z):
    """Every function of every level at points, by level; list of (n, level + 1, level + 1)."""
    scale = 1 / np.sqrt(2 * np.pi**2 * harmonics.radius**3)
    return [np.sqrt(level + 1) * scale * matrices(level, Z / harmonics.radius) for level in harmonics.level]


def by_level(harmonics, coef):
    """The complete matrix of each level."""
    found = {}
    for part, C in zip(harmonics._parts, harmonics._split(coef), strict=True):
        for a, M in enumerate(part.matrices(C)):
            found[2 * a + round(2 * part.half)] = M
    return [found[level] for level in harmonics.level]


def layouts(radius):
    """Points spread out, in a cluster, all equal, and where the Euler angles are not unique, or nearly so."""
    rng = np.random.default_rng(7)
    u = rng.standard_normal((40, 4))
    cluster = np.array([0.3, -0.2, 0.9, 0.1]) + 1e-3 * u
    angle = rng.uniform(0, 2 * np.pi, 40)
    zero, c, s = np.zeros(40), np.cos(angle), np.sin(angle)
    flat, half = np.stack([zero, zero, s, c], axis=1), np.stack([s, c, zero, zero], axis=1)
    Z = {"uniform": u, "cluster": cluster, "equal": cluster[[0] * 40], "identity": np.tile([0, 0, 0, 1.0], (40, 1)),
         "beta 0": flat, "beta pi": half, "beta near 0": flat + 1e-9 * u, "beta near pi": half + 1e-9 * u}
    return {name: radius * v / np.linalg.norm(v, axis=1)[:, None] for name, v in Z.items()}


@pytest.mark.parametrize("first", [0, 1])
def test_quarter_turns(first):
    Delta = sphere3._quarter_turns(first, 65)
    rng = np.random.default_rng(first)
    with mpmath.workdps(60):
        f, h = mpmath.factorial, mpmath.sqrt(0.5)
        for _ in range(40):
            a = rng.choice([64, 63, 40, 7, 1, 0])
            b, c = rng.integers(0, a + 1, 2)
            twice_j, plus, minus = 2 * a + first, a + b + first, a + c + first  # 2j, j + m, j + k
            # Wigner's sum; every power of cosine and sine of pi/4 together is that of 2j
            total = sum((-1) ** (b - c + s) / (f(minus - s) * f(s) * f(b - c + s) * f(a - b - s))
                        for s in range(max(0, c - b), min(minus, a - b) + 1))
            exact = total * h**twice_j * mpmath.sqrt(f(plus) * f(a - b) * f(minus) * f(a - c))
            assert abs(Delta[b, a, c] - float(exact)) < 1e-15
    assert Delta[3, 2].any() == Delta[2, 3, 4] == 0


@pytest.mark.parametrize("degree, radius, even", CASES)
def test_coefficients_and_values_are_sums_of_functions(degree, radius, even, monkeypatch):
    monkeypatch.setattr(sphere3, "CHUNK", 60)  # pieces of points of different lengths
    harmonics = WignerFunctions(degree, radius, even)
    Z = np.concatenate([z[:20] for z in layouts(radius).values()])
    w = np.random.default_rng(0).uniform(0.5, 2, len(Z))
    phi = functions(harmonics, Z)
    C = harmonics.analyse(Z, w, 1e-13)
    assert C.shape == harmonics.shape and C.dtype == complex
    for found, values in zip(by_level(harmonics, C), phi, strict=True):
        want = np.tensordot(w, values.conj(), 1) * (2 if even else 1)
        np.testing.assert_allclose(found, want, rtol=0, atol=1e-11 * w.sum() * np.abs(values).max())
    coefs = np.array([C, -2 * C, C * harmonics.spread(np.exp(-0.1 * harmonics.eigenvalue))])
    want = np.array([sum(np.tensordot(v, M, 2) for v, M in zip(phi, by_level(harmonics, c), strict=True))
                     for c in coefs])
    assert np.abs(want.imag).max() < 1e-11 * np.abs(want).max()
    for count in (1, 2, 3):  # the last one has a transform of its own
        values = harmonics.synthesise(coefs[:count], Z, 1e-13)
        np.testing.assert_allclose(values, want[:count].real, rtol=0, atol=1e-11 * np.abs(want).max())


@pytest.mark.parametrize("degree, radius, even", CASES)
def test_levels(degree, radius, even):
    harmonics = WignerFunctions(degree, radius, even)
    eigenvalue, multiplicity = levels(SpaceForm(3, radius=radius), degree)
    step = 2 if even else 1
    np.testing.assert_allclose(harmonics.eigenvalue, eigenvalue[::step])
    np.testing.assert_allclose(harmonics.multiplicity, multiplicity[::step])
    # a complete level, negative m included, counts as the real functions there are
    assert harmonics.power(np.ones(harmonics.shape)).tolist() == multiplicity[::step].tolist()
    # addition theorem
    one = harmonics.analyse(layouts(radius)["uniform"][:1], np.ones(1), 1e-13)
    want = multiplicity[::step] / SpaceForm(3, radius=radius).volume * (4 if even else 1)
    np.testing.assert_allclose(harmonics.power(one), want, rtol=1e-10)
    assert harmonics == WignerFunctions(degree, radius, even) != WignerFunctions(degree + 2, radius, even)


@pytest.mark.parametrize("degree, radius, even", [(11, 2.0, True), (10, 0.5, False)])
def test_functions_are_orthonormal(degree, radius, even):
    harmonics = WignerFunctions(degree, radius, even)
    # Gauss-Legendre in cos beta and equal steps in the other angles integrate products exactly; gamma runs twice
    # around where q and -q are two points
    cosine, weight = np.polynomial.legendre.leggauss(degree + 1)
    n = 2 * degree + 2
    alpha, gamma = 2 * np.pi * np.arange(n) / n, 4 * np.pi * np.arange(2 * n) / (2 * n)
    b, a, c = (x.ravel() for x in np.meshgrid(np.arccos(cosine), alpha, gamma, indexing="ij"))
    plus, minus, cb, sb = (a + c) / 2, (a - c) / 2, np.cos(b / 2), np.sin(b / 2)
    Z = radius * np.stack([-sb * np.sin(minus), sb * np.cos(minus), cb * np.sin(plus), cb * np.cos(plus)], axis=1)
    w = np.repeat(weight, n * 2 * n) * (2 * np.pi**2 * radius**3) / (2 * n * 2 * n)
    rng = np.random.default_rng(1)
    C = harmonics.analyse(rng.standard_normal((3, 4)), rng.standard_normal(3), 1e-13)  # some real function
    f = harmonics.synthesise(C[None], Z, 1e-13)[0]
    back = harmonics.analyse(Z, w * f, 1e-13) / (2 if even else 1)
    np.testing.assert_allclose(back, C, rtol=0, atol=1e-11 * np.abs(C).max())
    np.testing.assert_allclose(np.sum(w * f * f), harmonics.power(C).sum(), rtol=1e-11)


@pytest.mark.parametrize("degree, radius, even", CASES[:4])
def test_gradient(degree, radius, even):
    rng = np.random.default_rng(2)
    harmonics, space = WignerFunctions(degree, radius, even), Sphere(3, radius=radius)
    C = harmonics.analyse(space.random(5, rng), np.ones(5), 1e-13)
    Z = space.random(20, rng)
    gradient = harmonics.gradient(Z, harmonics.synthesise(harmonics.fields(C), Z, 1e-13))
    step, V = 1e-3 * radius, space.to_tangent(Z, rng.standard_normal(Z.shape))

    def along(s):
        return harmonics.synthesise(C[None], space.exp(Z, s * step * V), 1e-13)[0]

    slope = (along(-2) - 8 * along(-1) + 8 * along(1) - along(2)) / (12 * step)
    np.testing.assert_allclose(np.einsum("ij,ij->i", gradient, V), slope, rtol=0, atol=1e-8 * np.abs(slope).max())
    np.testing.assert_allclose(np.einsum("ij,ij->i", gradient, Z), 0, atol=1e-11 * np.abs(gradient).max() * radius)


@pytest.mark.parametrize("manifold, t, eps", [
    (SO3(), 0.06, 1e-9), (SO3(), 0.2, 1e-12), (SO3(), 10.0, 1e-9), (SO3(), 1.0, 1e-14),
    (ProjectiveSpace(3), 0.1, 1e-6), (SU2(), 0.05, 1e-12), (SU2(), 3.0, 1e-9), (Sphere(3, radius=3.0), 0.9, 1e-6)],
    ids=repr)
def test_density_against_the_exact_sum(manifold, t, eps):
    factor, = manifold.factors()
    harmonics = WignerFunctions(degree_for(factor, t, eps), factor.radius, even=manifold.antipodal)
    places = layouts(factor.radius)
    Q = np.concatenate([z[:6] for z in places.values()])
    peak = np.exp(manifold.log_heat_kernel(Q[:1], Q[:1], t)[0])
    for Z in places.values():
        w = np.arange(1.0, 41.0) / 820
        a = harmonics.analyse(Z, w, eps) * harmonics.spread(np.exp(-0.5 * t * harmonics.eigenvalue))
        p, *fields, laplacian = harmonics.synthesise(
            np.array([a, *harmonics.fields(a), -a * harmonics.spread(harmonics.eigenvalue)]), Q, eps)
        gradient = harmonics.gradient(Q, np.array(fields))
        exact = DirectSum(manifold, Z, w, t).evaluate(Q, order=2)
        density = np.exp(exact.log_density)
        np.testing.assert_allclose(p, density, rtol=0, atol=5 * eps * peak)
        np.testing.assert_allclose(gradient, density[:, None] * exact.gradient, rtol=0,
                                   atol=5 * eps * peak / np.sqrt(t))
        np.testing.assert_allclose(laplacian, density * (exact.laplacian + (exact.gradient**2).sum(axis=1)), rtol=0,
                                   atol=30 * eps * peak / t)


@pytest.mark.parametrize("degree, radius, even", CASES[:4])
def test_restriction_is_the_lower_levels(degree, radius, even):
    harmonics, places = WignerFunctions(degree, radius, even), layouts(radius)
    C = harmonics.analyse(places["uniform"], np.ones(40), 1e-13)
    for lower in (degree - 3, degree - 2, 0):
        few, c = harmonics.restrict(lower, C)
        assert few == WignerFunctions(lower, radius, even) and c.shape == few.shape
        want = few.analyse(places["uniform"], np.ones(40), 1e-13)
        np.testing.assert_allclose(c, want, rtol=0, atol=1e-10)
        np.testing.assert_array_equal(few.restrict(lower, np.array([c, c]))[1], [c, c])


@pytest.mark.parametrize("manifold", [SO3(symmetry="cubic"), SO3(symmetry="32", specimen="222"), SO3(specimen="6")],
                         ids=repr)
def test_average_is_the_sum_over_images(manifold):
    rng = np.random.default_rng(3)
    harmonics = WignerFunctions(12, 2.0, even=True)
    Z, w = SO3().random(9, rng), rng.uniform(0.5, 2, 9)
    groups = [rotation_group(name or "C1") for name in (manifold.specimen, manifold.symmetry)]
    found = harmonics.average(harmonics.analyse(Z, w, 1e-13), *groups)
    images = manifold.images(Z)[:manifold.n_images // 2]
    want = harmonics.analyse(images.reshape(-1, 4), np.tile(w, len(images)), 1e-13)
    np.testing.assert_allclose(found, want, rtol=0, atol=1e-11 * np.abs(want).max())
    np.testing.assert_allclose(moments_of(manifold, harmonics, Z, w, 1e-13), want, rtol=0,
                               atol=1e-11 * np.abs(want).max())


def test_average_over_any_unit_quaternions():
    # groups that do not commute with anything, and half-integer levels
    rng = np.random.default_rng(4)
    harmonics, space = WignerFunctions(9, 0.5), Sphere(3)
    left, right, q = space.random(2, rng), space.random(3, rng), space.random(6, rng)
    found = harmonics.average(harmonics.analyse(0.5 * q, np.ones(6), 1e-13), left, right)
    images = quaternion_product(quaternion_product(left[:, None, None], q), right[:, None]).reshape(-1, 4)
    want = harmonics.analyse(0.5 * images, np.ones(36), 1e-13)
    np.testing.assert_allclose(found, want, rtol=0, atol=1e-11 * np.abs(want).max())
