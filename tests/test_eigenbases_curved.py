"""Bases for operator score matching on curved spaces: against direct means, quadrature, Wigner symbols and edges."""
import pickle
from fractions import Fraction
from math import factorial, gamma

import numpy as np
import pytest
from scipy.linalg import expm
from scipy.special import lpmv

from rdks import RDKSEstimator
from rdks.eigenbases import nodal, quadrature
from rdks.eigenbases.additive import AdditiveBasis
from rdks.eigenbases.nodal import NodalBasis
from rdks.eigenbases.quadrature import QuadratureBasis, sphere_rule
from rdks.errors import UnsupportedError
from rdks.manifolds import SO3, SU2, Circle, Graph, Mesh, PointCloud, Product, ProjectiveSpace, Quotient, Sphere, Torus
from rdks.manifolds.symmetry import affine_maps
from rdks.smoothers import quadrature as rule_of

# Sums of some thousand terms of size one: a hundred times their rounding.
ROUNDING = 1e-12

OCTANT = Quotient.generated(Sphere(2), [np.diag([-1, 1, 1]), np.diag([1, -1, 1]), np.diag([1, 1, -1])])
SCREW = Quotient.generated(Sphere(3), [np.kron([[1, 0], [0, 0]], [[0, -1], [1, 0]])
                                       + np.kron([[0, 0], [0, 1]], [[0, -1], [1, 0]])])

SPHERES = {
    "circle": (Sphere(1, radius=2.0), 4),
    "sphere": (Sphere(2), 5),
    "earth": (Sphere(2, coords="latlon_deg", radius=3.0), 3),
    "three": (Sphere(3, radius=0.5), 3),
    "quaternions": (SU2(), 3),
    "four": (Sphere(4), 2),
    "five": (Sphere(5, radius=1.5), 1),
    "axes": (ProjectiveSpace(2), 5),
    "axes of space-time": (ProjectiveSpace(4), 2),
    "rotations": (SO3(), 4),
    "crystal": (SO3(symmetry="cubic"), 8),
    "both sides": (SO3(coords="rotvec", symmetry="222", specimen="2"), 4),
    "octant": (OCTANT, 4),
    "lens": (SCREW, 4),
    "slow": (Product(Sphere(2), times=(0.25,)), 3),
}


def unit(n, dim, rng):
    X = rng.standard_normal((n, dim + 1))
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def lopsided(manifold, n, rng):
    """Points of a law far from uniform, and weights."""
    Z = manifold.random(3 * n, rng)
    W = manifold.project(Z[:1] + 0.0)
    near = np.argsort(manifold.dist(np.broadcast_to(W, Z.shape), Z))[:n]
    return Z[near], rng.dirichlet(np.ones(n))


def gradients(basis, Z):
    """Gradients of all functions at points, (K, q, m), and their values, (K, q)."""
    found = [basis.evaluate(Z, row) for row in np.eye(len(basis.decay))]
    return np.array([g for _, g, _ in found]), np.array([f for f, _, _ in found])


def carre_du_champ(basis, Z, weight):
    """Weighted sum of half the inner products of gradients."""
    G = gradients(basis, Z)[0]
    return 0.5 * np.einsum("q,iqm,jqm->ij", weight, G, G)


def at(basis, moments, t):
    return moments * np.exp(-basis.moment_decay * t)


def solve(basis, moments):
    return np.linalg.solve(basis.gram(moments), basis.decay * basis.own(moments))


@pytest.mark.parametrize("name", SPHERES)
def test_matrix_is_the_mean_of_gradients_over_the_data(name, rng):
    manifold, level = SPHERES[name]
    basis = QuadratureBasis(manifold, level)
    Z, share = lopsided(manifold, 40, rng)
    moments = basis.moments(Z, share)
    A = basis.gram(moments)
    assert np.allclose(A, carre_du_champ(basis, Z, share), rtol=0, atol=ROUNDING * basis.decay[-1] * np.abs(A).max())
    assert np.array_equal(A, A.T)
    _, f = gradients(basis, Z)
    assert np.allclose(basis.own(moments), f @ share, rtol=0, atol=ROUNDING)
    assert np.isclose(moments[0], 1.0, rtol=0, atol=ROUNDING)
    assert np.allclose(basis.gram((basis.moment_decay == 0) * 1.0), np.diag(basis.decay), rtol=0,
                       atol=ROUNDING * basis.decay[-1])
    assert basis.n_nodes == len(basis._rule()[0])
    # ascending, consistent, up to twice the level
    assert (np.diff(basis.decay) >= 0).all() and (np.diff(basis.level) >= 0).all()
    assert basis.level[-1] <= level and basis.moment_level[-1] <= 2 * level
    d, R = manifold.dim, manifold.factors()[0].radius
    assert np.allclose(basis.decay, 0.5 * basis.level * (basis.level + d - 1) / R**2)
    assert np.allclose(basis.moment_decay, 0.5 * basis.moment_level * (basis.moment_level + d - 1) / R**2)


@pytest.mark.parametrize("name", [k for k, (m, _) in SPHERES.items() if m.n_images > 1])
def test_symmetries_leave_as_many_functions_as_characters_say(name, rng):
    manifold, level = SPHERES[name]
    basis = QuadratureBasis(manifold, level)
    Z = manifold.random(20, rng)
    coef = rng.standard_normal(len(basis.decay))
    value = basis.evaluate(Z, coef, order=0)[0]
    for image in manifold.images(Z):
        assert np.allclose(basis.evaluate(image, coef, order=0)[0], value, rtol=0, atol=1e-11)
    # mean of the traces on harmonic polynomials: the series (1 - s^2) / det(1 - s A), by powers of s
    A = affine_maps(manifold)[0]
    traces = np.zeros((len(A), 2 * level + 1))
    for a, M in zip(traces, A, strict=True):
        inverse = np.zeros(2 * level + 1)
        inverse[0] = 1.0
        det = np.poly(M)  # coefficients of det(1 - s A) in s
        for k in range(1, 2 * level + 1):
            inverse[k] = -sum(det[j] * inverse[k - j] for j in range(1, min(k, len(det) - 1) + 1))
        a[:] = inverse - np.append([0, 0], inverse[:-2])
    expected = np.rint(traces.mean(axis=0)).astype(int)
    assert np.array_equal(np.bincount(basis.moment_level, minlength=2 * level + 1), expected)


def test_functions_are_orthonormal_by_another_rule(rng):
    basis = QuadratureBasis(Sphere(2, radius=2.0), 6)
    z, weight = np.polynomial.legendre.leggauss(20)
    turn = np.arange(23) * (2 * np.pi / 23)
    arm = np.sqrt(1 - z * z)
    # along another axis than the basis has
    X = np.stack([np.repeat(z, 23), np.outer(arm, np.cos(turn)).ravel(), np.outer(arm, np.sin(turn)).ravel()], axis=1)
    f = np.array([basis.evaluate(2 * X, row, order=0)[0] for row in np.eye(len(basis.decay))])
    weight = np.repeat(weight / 46, 23)
    assert np.allclose((f * weight) @ f.T, np.eye(len(f)), rtol=0, atol=1e-12)
    assert np.allclose(f @ weight, 0, atol=1e-12)


@pytest.mark.parametrize("dim", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("even", [False, True])
def test_rule_integrates_monomials(dim, even, rng):
    degree = 6
    Z, weight = sphere_rule(dim, degree, even)
    assert np.allclose(np.linalg.norm(Z, axis=1), 1) and (weight > 0).all()
    for _ in range(30):
        power = rng.multinomial(degree - rng.integers(4), np.full(dim + 1, 1 / (dim + 1)))
        if even and power.sum() % 2:
            continue
        # of independent normal coordinates, over that of the radius
        exact = 0.0 if (power % 2).any() else (
            np.prod([gamma(0.5 * k + 0.5) / gamma(0.5) for k in power])
            * gamma(0.5 * (dim + 1)) / gamma(0.5 * (dim + 1 + power.sum())))
        assert np.isclose(weight @ np.prod(Z**power, axis=1), exact, rtol=0, atol=1e-14)


DENSITIES = {"sphere": (Sphere(2, radius=2.0), 3, 1.0), "axes": (ProjectiveSpace(2), 4, 0.3),
             "three": (Sphere(3), 2, 0.3), "rotations": (SO3(coords="quaternion"), 4, 1.0)}


@pytest.mark.parametrize("name", DENSITIES)
def test_noise_and_projection_of_the_score_by_quadrature_of_the_kernel_density(name, rng):
    """Means decay as the heat flow says, and the solution projects the kernel score on gradients (theory, 6.2)."""
    manifold, level, t = DENSITIES[name]
    basis = QuadratureBasis(manifold, level)
    Z = manifold.project(manifold.random(1, rng) + 0.9 * rng.standard_normal((30, manifold.embed_dim)))
    est = RDKSEstimator(manifold, bandwidth=np.sqrt(t)).fit(manifold.unembed(Z))
    nodes, weight, _ = rule_of(manifold, 36)
    nodes = manifold.project(nodes)
    X = manifold.unembed(nodes)
    share = weight * np.exp(est.score_samples(X))
    assert np.isclose(share.sum(), 1.0, atol=1e-10)
    moments = at(basis, basis.moments(Z, np.full(30, 1 / 30)), t)
    A = basis.gram(moments)
    assert np.allclose(A, carre_du_champ(basis, nodes, share), rtol=0, atol=1e-9 * basis.decay[-1])
    score = est.score_field(X)
    if isinstance(manifold, SO3):  # unit quaternions of either sign
        score = 2 * score * np.sign(np.einsum("qm,qm->q", X, nodes))[:, None]
    right = 0.5 * np.einsum("q,iqm,qm->i", share, gradients(basis, nodes)[0], score)
    assert np.allclose(right, basis.decay * basis.own(moments), rtol=0, atol=1e-9 * basis.decay[-1])
    alpha = solve(basis, moments)
    assert np.allclose(alpha, np.linalg.solve(carre_du_champ(basis, nodes, share), right), rtol=0, atol=1e-7)
    rest = score - basis.evaluate(nodes, alpha)[1]
    assert np.allclose(np.einsum("q,iqm,qm->i", share, gradients(basis, nodes)[0], rest), 0, atol=1e-8)


def wigner(j1, j2, j3, m1, m2, m3):
    """Wigner's 3j symbol of whole numbers: a rational number times the root of one (Racah's sum)."""
    if m1 + m2 + m3 or not abs(j1 - j2) <= j3 <= j1 + j2 or max(abs(m1) - j1, abs(m2) - j2, abs(m3) - j3) > 0:
        return 0.0
    f = factorial
    square = Fraction(f(j1 + j2 - j3) * f(j1 - j2 + j3) * f(-j1 + j2 + j3), f(j1 + j2 + j3 + 1))
    square *= f(j1 + m1) * f(j1 - m1) * f(j2 + m2) * f(j2 - m2) * f(j3 + m3) * f(j3 - m3)
    total = Fraction(0)
    for k in range(max(0, j2 - j3 - m1, j1 - j3 + m2), min(j1 + j2 - j3, j1 - m1, j2 + m2) + 1):
        total += Fraction((-1) ** k, f(k) * f(j1 + j2 - j3 - k) * f(j1 - m1 - k) * f(j2 + m2 - k)
                          * f(j3 - j2 + m1 + k) * f(j3 - j1 - m2 + k))
    return (-1.0) ** (j1 - j2 - m3) * float(total) * float(square) ** 0.5


def gaunt(p, q, r):
    """Integral of three complex spherical harmonics, each (level, order)."""
    level, m = zip(p, q, r, strict=True)
    return np.sqrt(np.prod(2 * np.array(level) + 1) / (4 * np.pi)) * wigner(*level, 0, 0, 0) * wigner(*level, *m)


def test_matrix_is_the_sum_over_gaunt_coefficients(rng):
    """A_ij = 1/2 sum_k C_ijk (mu_i + mu_j - mu_k) m_k, in complex harmonics, carried to the real functions."""
    basis = QuadratureBasis(Sphere(2), 2)
    index = [(n, m) for n in range(5) for m in range(-n, n + 1)]
    Z, share = lopsided(Sphere(2), 25, rng)

    def harmonic(X, n, m):
        if m < 0:
            return (-1) ** m * harmonic(X, n, -m).conj()
        height = np.sqrt((2 * n + 1) * factorial(n - m) / factorial(n + m))
        return height * lpmv(m, n, X[:, 2]) * np.exp(1j * m * np.arctan2(X[:, 1], X[:, 0]))

    def harmonics(X, some):
        return np.array([harmonic(X, n, m) for n, m in some]).T

    own = index[1:9]
    X = unit(60, 2, rng)
    real = np.array([basis.evaluate(X, row, order=0)[0] for row in np.eye(8)]).T
    turn = np.linalg.lstsq(harmonics(X, own), real, rcond=None)[0]  # (complex, real), unitary
    assert np.allclose(turn.conj().T @ turn, np.eye(8), atol=1e-12)
    means = share @ harmonics(Z, index)
    rate = {(n, m): 0.5 * n * (n + 1) for n, m in index}
    A = np.zeros((8, 8), dtype=complex)
    for i, p in enumerate(own):
        for j, q in enumerate(own):
            for k, (n, m) in enumerate(index):
                # the coefficient of (n, m) in a product: the integral with its conjugate (-1)^m (n, -m)
                C = np.sqrt(4 * np.pi) * (-1) ** m * gaunt(p, q, (n, -m))
                A[i, j] += 0.5 * C * (rate[p] + rate[q] - rate[n, m]) * means[k]
    expected = turn.T @ A @ turn
    assert np.allclose(expected.imag, 0, atol=1e-12)
    assert np.allclose(basis.gram(basis.moments(Z, share)), expected.real, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["circle", "earth", "three", "four", "axes", "rotations", "lens", "slow"])
def test_derivatives_along_geodesics(name, rng):
    manifold, level = SPHERES[name]
    check_derivatives(QuadratureBasis(manifold, level), rng)


def check_derivatives(basis, rng):
    """Differences of fourth order along geodesics: errors of some h^4 and of rounding / h^2."""
    manifold = basis.manifold
    Z = manifold.random(7, rng)
    coef = rng.standard_normal(len(basis.decay))
    f, gradient, laplacian = basis.evaluate(Z, coef, order=2)
    assert basis.evaluate(Z, coef, order=0)[1:] == (None, None) and basis.evaluate(Z, coef)[2] is None
    h = 2e-3 / np.sqrt(2 * basis.decay[-1])
    first, second = [], 0.0
    for e in np.moveaxis(manifold.frame(Z), 1, 0):
        a, b, c, d = (basis.evaluate(manifold.exp(Z, s * h * e), coef, order=0)[0] for s in (-2, -1, 1, 2))
        first.append((a - 8 * b + 8 * c - d) / (12 * h))
        second = second + (-a + 16 * b - 30 * f + 16 * c - d) / (12 * h * h)
    scale = np.linalg.norm(coef) * np.sqrt(len(coef))
    frame = manifold.frame(Z)
    assert np.allclose(np.einsum("qdm,qm->dq", frame, gradient), first, rtol=0, atol=1e-9 * scale / h * 1e-2)
    assert np.allclose(np.einsum("qd,qdm->qm", np.array(first).T, frame), gradient, rtol=0, atol=1e-9 * scale / h)
    assert np.allclose(laplacian, second, rtol=0, atol=1e-13 * scale / h**2)


@pytest.mark.parametrize("name", ["earth", "axes", "three", "rotations", "octant"])
def test_fast_transforms_give_the_same(name, rng, monkeypatch):
    manifold, level = SPHERES[name]
    basis = QuadratureBasis(manifold, level)
    Z, share = lopsided(manifold, 50, rng)
    coef = rng.standard_normal(len(basis.decay))
    dense = basis.moments(Z, share), *basis.evaluate(Z, coef, order=2)
    monkeypatch.setattr(quadrature, "_MANY", 0)
    fast = basis.moments(Z, share), *basis.evaluate(Z, coef, order=2)
    # transforms are right to 1e-13 of the sum of all terms
    for a, b in zip(dense, fast, strict=True):
        assert np.allclose(a, b, rtol=0, atol=1e-11 * max(1, np.abs(a).max()))


def test_lower_levels_are_the_leading_block(rng):
    high, low = QuadratureBasis(Sphere(2), 5), QuadratureBasis(Sphere(2), 3)
    k = len(low.decay)
    Z, share = lopsided(Sphere(2), 30, rng)
    A = high.gram(high.moments(Z, share))
    assert np.allclose(A[:k, :k], low.gram(low.moments(Z, share)), rtol=0, atol=1e-11)
    coef = rng.standard_normal(k)
    for mine, other in zip(high.evaluate(Z, coef, 2), low.evaluate(Z, coef, 2), strict=True):
        assert np.allclose(mine, other, rtol=0, atol=1e-11)
    padded = high.evaluate(Z, np.append(coef, np.zeros(len(high.decay) - k)), 2)
    assert all(np.allclose(a, b, rtol=0, atol=1e-11) for a, b in zip(padded, high.evaluate(Z, coef, 2), strict=True))
    part = high.evaluate(Z, coef[:5], 2)  # of a part of a level
    whole = high.evaluate(Z, np.append(coef[:5], np.zeros(len(high.decay) - 5)), 2)
    assert all(np.allclose(a, b, rtol=0, atol=1e-11) for a, b in zip(part, whole, strict=True))


def test_nodes_in_blocks_give_the_same_matrix(rng, monkeypatch):
    basis = QuadratureBasis(ProjectiveSpace(3), 4)
    moments = basis.moments(*lopsided(ProjectiveSpace(3), 30, rng))
    whole = basis.gram(moments)
    monkeypatch.setattr(quadrature, "_BLOCK", 50 * len(basis.decay))
    assert basis.n_nodes > 100 and basis.n_nodes % 50
    assert np.allclose(basis.gram(moments), whole, rtol=0, atol=1e-12 * np.abs(whole).max())


def test_a_basis_is_pickled_without_its_tables(rng):
    basis = QuadratureBasis(Sphere(2), 8)
    Z, share = lopsided(Sphere(2), 30, rng)
    A = basis.gram(basis.moments(Z, share))
    text = pickle.dumps(basis)
    assert len(text) < 8 * basis.n_nodes * len(basis.decay) / 4
    again = pickle.loads(text)
    assert np.array_equal(again.gram(again.moments(Z, share)), A)


def test_scores_approach_those_of_the_kernel_sum():
    rng = np.random.default_rng(3)
    X = unit(1, 2, rng) + 0.8 * rng.standard_normal((400, 3))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    q, t = unit(200, 2, rng), 0.5
    truth = RDKSEstimator(Sphere(2), bandwidth=np.sqrt(t)).fit(X).score_field(q)
    errors = []
    for level in (2, 5, 10):
        basis = QuadratureBasis(Sphere(2), level)
        alpha = solve(basis, at(basis, basis.moments(X, np.full(400, 1 / 400)), t))
        errors.append(np.abs(basis.evaluate(q, alpha)[1] - truth).mean())
    assert errors[0] < 0.05 and errors[1] < errors[0] / 10 and errors[2] < errors[1] / 100


def test_spaces_without_a_quadrature_and_bases_out_of_size():
    for manifold in (Torus(2), Circle(), Product(Sphere(2), Sphere(2))):
        with pytest.raises(UnsupportedError, match="ProjectiveSpace"):
            QuadratureBasis(manifold, 2)
    with pytest.raises(ValueError, match=r"2079 functions at 2756193 nodes .* 42\.7 GiB.*Lower max_level"):
        QuadratureBasis(Sphere(5), 8)
    with pytest.raises(ValueError, match="level 8"):
        QuadratureBasis(SO3(symmetry="cubic"), 7)
    with pytest.raises(ValueError, match="max_level"):
        QuadratureBasis(Sphere(2), 0)


# ------------------------------------------------------------------------------------------------ nodes


def ball(n, rng):
    return unit(n, 2, rng)


def octahedron(level):
    V = np.concatenate([np.eye(3), -np.eye(3)])
    F = np.array([[0, 1, 2], [1, 3, 2], [3, 4, 2], [4, 0, 2], [1, 0, 5], [3, 1, 5], [4, 3, 5], [0, 4, 5]])
    for _ in range(level):
        edges = np.sort(np.concatenate([F[:, [0, 1]], F[:, [1, 2]], F[:, [2, 0]]]), axis=1)
        ends, which = np.unique(edges, axis=0, return_inverse=True)
        a, b, c = len(V) + which.reshape(3, -1)
        middle = V[ends].sum(axis=1)
        V = np.concatenate([V, middle / np.linalg.norm(middle, axis=1, keepdims=True)])
        F = np.concatenate([np.c_[F[:, 0], a, c], np.c_[F[:, 1], b, a], np.c_[F[:, 2], c, b], np.c_[a, b, c]])
    return V, F


def network(laplacian="combinatorial"):
    rng = np.random.default_rng(0)
    W = np.triu((rng.random((40, 40)) < 0.1) * rng.random((40, 40)), 1)
    i = np.arange(39)
    W[i, i + 1] = 0.5
    return Graph(W + W.T, laplacian=laplacian)


def mesh(level=2):
    pytest.importorskip("robust_laplacian", reason="robust_laplacian is not installed (extra mesh)")
    V, F = octahedron(level)
    return Mesh(V * [1.0, 1.5, 0.7], F)


SPACES = {"graph": network, "walk": lambda: network("random_walk"), "mesh": mesh,
          "cloud": lambda: PointCloud(ball(150, np.random.default_rng(1)))}


def over_edges(space, law, f):
    """E of 1/2 sum_v q_uv (f_v - f_u)(g_v - g_u) for functions (N, K), edge by edge."""
    S = space.stiffness.tocoo()
    total = np.zeros((f.shape[1],) * 2)
    for u, v, s in zip(S.row, S.col, S.data, strict=True):
        if u != v:
            total += law[u] * 0.5 * (-0.5 * s / space.mass[u]) * np.outer(f[v] - f[u], f[v] - f[u])
    return total


@pytest.mark.parametrize("name", SPACES)
def test_matrix_on_nodes_is_the_sum_over_edges(name, rng):
    space = SPACES[name]()
    basis, t, s = NodalBasis(space, 9), 0.4, space.spread_time
    Z = space.random(20, rng)
    share = rng.dirichlet(np.ones(20))
    generator = -0.5 * space.stiffness.toarray() / space.mass[:, None]
    # functions, and their rates, from the definition
    assert len(basis.moment_decay) == space.n_nodes and basis.shortest_time == s
    law = space.mass / space.mass.sum()
    f = np.array([np.linalg.lstsq(space.rows(space.nodes()).toarray(), basis.evaluate(space.nodes(), row, order=0)[0]
                                  * np.exp(-mu * s), rcond=None)[0]
                  for mu, row in zip(basis.decay, np.eye(9), strict=True)]).T
    assert np.allclose(generator @ f, -f * basis.decay, atol=1e-7) and np.allclose(f.T @ (law[:, None] * f), np.eye(9))
    assert np.array_equal(basis.level, np.arange(1, 10)) and (np.diff(basis.decay) >= 0).all()
    # spreading over nodes has taken the time s
    after = expm((t - s) * generator).T @ (space.rows(Z).T @ share)
    moments = at(basis, basis.moments(Z, share), t)
    expected = over_edges(space, after, f)
    assert np.allclose(basis.gram(moments), expected, rtol=0, atol=1e-9 * np.abs(expected).max())
    assert np.allclose(basis.own(moments), after @ f, rtol=0, atol=1e-9)
    assert np.allclose(basis.gram((basis.moment_decay == 0) * 1.0), np.diag(basis.decay), atol=1e-9)
    assert np.isclose(moments[0], 1.0)


def test_derivatives_on_nodes_are_those_of_the_space(rng):
    for name in ("mesh", "cloud"):
        space = SPACES[name]()
        basis, Z, coef = NodalBasis(space, 9), space.random(12, rng), rng.standard_normal(6)
        value, gradient, laplacian = basis.evaluate(Z, coef, order=2)
        lam, phi = space.basis()
        psi, s = phi[:, 1:7] * np.sqrt(space.mass.sum()), space.spread_time
        grown = coef * np.exp(0.5 * lam[1:7] * s)
        assert np.allclose(value, space.rows(Z) @ psi @ grown)
        assert np.allclose(gradient, space.gradient(Z, psi @ coef))
        assert np.allclose(laplacian, -(space.rows(Z) @ psi @ (lam[1:7] * grown)))
    with pytest.raises(UnsupportedError, match="no tangent vectors"):
        NodalBasis(network(), 3).evaluate(np.zeros((1, 1)), np.ones(3))


def test_scores_on_a_mesh_approach_those_of_its_kernel_sum(rng):
    space = mesh(3)
    Z = space.random(100, rng)
    Z = Z[space.unembed(Z)[:, 2] > -0.2]
    q, t = space.random(50, rng), 0.5
    truth = RDKSEstimator(space, bandwidth=np.sqrt(t)).fit(space.unembed(Z)).score_field(space.unembed(q))
    errors = []
    for count in (3, 15, 35):
        basis = NodalBasis(space, count)
        alpha = solve(basis, at(basis, basis.moments(Z, np.full(len(Z), 1 / len(Z))), t))
        errors.append(np.abs(basis.evaluate(q, alpha)[1] - truth).mean())
    size = np.abs(truth).mean()
    # what remains is the chain rule between nodes
    assert errors[0] < size and errors[1] < errors[0] / 2 and errors[2] < 0.02 * size


def test_eigenvectors_that_are_left_out_are_within_the_bound(rng, monkeypatch):
    space = mesh(3)
    whole = NodalBasis(space, 8)
    monkeypatch.setattr(nodal, "_ALL", 100)
    part = NodalBasis(space, 8)
    assert len(part.moment_decay) == 100 == space.n_eigen and part.shortest_time > 0
    more = NodalBasis(space, 20)
    assert len(more.moment_decay) == 126 and more.shortest_time < part.shortest_time
    Z = space.nodes()[[np.argmin(space.mass)]]
    a, b = whole.moments(Z, np.ones(1)), part.moments(Z, np.ones(1))
    root = np.sqrt(np.outer(whole.decay, whole.decay))
    sign = np.sign(np.einsum("ni,ni->i", whole._psi[:, 1:9], part._psi[:, 1:9]))
    errors = []
    for t in (0.02, 0.5 * part.shortest_time, part.shortest_time):
        gap = (whole.gram(at(whole, a, t)) - sign * part.gram(at(part, b, t)) * sign[:, None]) / root
        bound = np.exp(-part.moment_decay[-1] * t) * space.mass.sum() / space.mass.min()
        errors.append(np.abs(np.linalg.eigvalsh(gap)).max())
        assert errors[-1] <= bound
    assert np.isclose(bound, 1e-4) and errors[0] > 1e-3


def test_nodal_bases_out_of_size(monkeypatch):
    with pytest.raises(UnsupportedError, match="mesh, graph or point cloud"):
        NodalBasis(Sphere(2), 3)
    with pytest.raises(ValueError, match="39 eigenvectors"):
        NodalBasis(network(), 40)
    assert len(NodalBasis(network(), 39).decay) == 39
    monkeypatch.setattr(nodal, "_GIB", 1e-6)
    with pytest.raises(ValueError, match=r"40 eigenvectors at 40 nodes would take 1\.19e-05 GiB.*Lower max_level"):
        NodalBasis(network(), 3)


# --------------------------------------------------------------------------------------------- products

SPACE_AND_AXES = Product(Sphere(2, radius=2.0), ProjectiveSpace(2), Sphere(1), times=(0.3, 1.0, 4.0))


def test_matrix_of_a_product_is_the_mean_of_gradients(rng):
    basis = AdditiveBasis(SPACE_AND_AXES, 3, QuadratureBasis)
    Z, share = lopsided(SPACE_AND_AXES, 40, rng)
    moments = basis.moments(Z, share)
    A = basis.gram(moments)
    assert np.allclose(A, carre_du_champ(basis, Z, share), rtol=0, atol=1e-11 * np.abs(A).max())
    assert np.allclose(basis.own(moments), gradients(basis, Z)[1] @ share, rtol=0, atol=1e-12)
    assert (np.diff(basis.decay) >= 0).all() and np.isclose(moments[0], 1) and (basis.moment_decay == 0).sum() == 1
    assert np.allclose(basis.gram((basis.moment_decay == 0) * 1.0), np.diag(basis.decay), atol=1e-11)
    # 15 + 5 + 6 functions; of the part with speed a and radius R: a l (l + d - 1) / 2 R^2
    assert np.allclose(basis.decay, np.sort(np.concatenate([
        np.repeat(0.3 * np.array([1, 3, 6]) / 4, [3, 5, 7]), np.repeat(3.0, 5),
        np.repeat(2.0 * np.array([1, 4, 9]), 2)])))
    assert np.array_equal(np.sort(basis.level), np.sort(np.repeat([1, 2, 3, 2, 1, 2, 3], [3, 5, 7, 5, 2, 2, 2])))
    check_derivatives(basis, rng)


def test_means_of_a_product_decay_in_the_time_of_each_part(rng):
    basis, t = AdditiveBasis(SPACE_AND_AXES, 2, QuadratureBasis), 0.7
    Z, share = lopsided(SPACE_AND_AXES, 30, rng)
    moments = at(basis, basis.moments(Z, share), t)
    alpha = solve(basis, moments)
    gradient, start = basis.evaluate(Z, alpha)[1], 0
    for part, a in zip(SPACE_AND_AXES.parts, SPACE_AND_AXES.times, strict=True):
        columns = slice(start, start + part.embed_dim)
        single = QuadratureBasis(part, 2)
        P = Z[:, columns] * np.sqrt(a)
        own = solve(single, at(single, single.moments(P, share), a * t))
        # d/dz of the product's coordinate z = P / sqrt(a)
        assert np.allclose(gradient[:, columns], np.sqrt(a) * single.evaluate(P, own)[1], rtol=0, atol=1e-10)
        start = columns.stop
    for k in (1, 4, len(basis.decay)):
        coef = rng.standard_normal(k)
        padded = np.append(coef, np.zeros(len(basis.decay) - k))
        pairs = zip(basis.evaluate(Z, coef, 2), basis.evaluate(Z, padded, 2), strict=True)
        assert all(np.allclose(p, q, rtol=0, atol=1e-11) for p, q in pairs)


def test_additive_bases_are_for_products():
    with pytest.raises(UnsupportedError, match="Product"):
        AdditiveBasis(Sphere(2), 2, QuadratureBasis)
    assert AdditiveBasis(SPACE_AND_AXES, 2, QuadratureBasis).shortest_time == 0.0

    def make(part, level):
        basis = QuadratureBasis(part, level)
        basis.shortest_time = 0.6
        return basis

    # the slowest part has the time 0.3 t
    assert np.isclose(AdditiveBasis(SPACE_AND_AXES, 2, make).shortest_time, 2.0)
