"""Trigonometric and Hermite bases: eigenfunctions, and their matrix out of means, against quadrature."""
from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.polynomial.hermite_e import hermegauss

from rdks.eigenbases import basis_for, flat
from rdks.eigenbases.flat import HermiteBasis, TrigonometricBasis
from rdks.errors import UnsupportedError
from rdks.manifolds import Box, Circle, Euclidean, OrnsteinUhlenbeck, Product, Sphere, Torus

COMPACT = [(Circle(), 6), (Circle(period=24.0), 4), (Torus(2), 4), (Torus(2, period=(1.0, 2.5)), 5), (Torus(3), 2),
           (Box([(-1.0, 2.0)]), 6), (Box([(0.0, 1.0), (-1.0, 2.0)]), 7), (Box([(0.0, 1.0)] * 3), 2),
           (Product(Circle(), Torus(2, period=3.0), times=(1.0, 0.5)), 2)]


def lattice_rule(manifold, degree):
    """Nodes (q, d) and probabilities of the trapezoidal rule on the covering torus, exact up to `degree` per circle."""
    axes = [np.arange(degree + 1) * (f.period / (degree + 1)) for f in manifold.factors()]
    Z = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, manifold.dim)
    return Z, np.full(len(Z), 1 / len(Z))


def gauss_rule(dim, count, mean=0.0, root=None):
    """Nodes and probabilities of Gauss and Hermite for N(mean, root root^T)."""
    x, w = hermegauss(count)
    Z = np.stack(np.meshgrid(*[x] * dim, indexing="ij"), axis=-1).reshape(-1, dim)
    share = np.prod(np.stack(np.meshgrid(*[w] * dim, indexing="ij"), axis=-1).reshape(-1, dim), axis=1)
    return (Z if root is None else Z @ root.T) + mean, share / share.sum()


def tables(basis, Z):
    """Values (K, q), gradients (K, q, d) and Laplacians (K, q) of the functions, one at a time."""
    rows = [basis.evaluate(Z, unit, 2) for unit in np.eye(len(basis.decay))]
    return tuple(np.array(part) for part in zip(*rows, strict=True))


@pytest.mark.parametrize("manifold, level", COMPACT)
def test_functions_on_compact_spaces_are_orthonormal_eigenfunctions(manifold, level):
    basis = basis_for(manifold, level)
    most = max(int(np.abs(basis._index).max()), 1)
    Z, share = lattice_rule(manifold, 2 * most + 1)
    value, gradient, laplacian = tables(basis, Z)
    assert np.allclose((value * share) @ value.T, np.eye(len(value)), atol=1e-12)
    assert np.allclose(value @ share, 0, atol=1e-12)
    assert np.allclose(laplacian, -2 * basis.decay[:, None] * value, atol=1e-10 * basis.decay.max())
    # Green: gradients are those of the functions (the rule is exact for their products, on the covering torus)
    energy = np.einsum("kqd,lqd,q->kl", gradient, gradient, share)
    assert np.allclose(energy, np.diag(2 * basis.decay), atol=1e-10 * basis.decay.max())
    if isinstance(manifold, Box):
        wall = manifold.embed(np.array(manifold.bounds).T)
        assert np.allclose(tables(basis, wall)[1], 0, atol=1e-10 * basis.decay.max())


@pytest.mark.parametrize("manifold, level", COMPACT)
def test_all_functions_of_a_ball_of_frequencies_are_there_in_order(manifold, level):
    basis = basis_for(manifold, level)
    omega = np.array([2 * np.pi / f.period for f in manifold.factors()])
    reach = range(0 if isinstance(manifold, Box) else -level, level + 1)
    # frequencies k and -k make two functions together on a torus; every k makes one on a box
    lam = np.sort([((np.array(k) * omega) ** 2).sum() for k in itertools.product(reach, repeat=manifold.dim)])
    within = lam[(lam > 0) & (lam <= level**2 * omega.min() ** 2 * (1 + 1e-9))]
    assert np.allclose(2 * basis.decay, within)
    assert np.all(np.diff(basis.decay) >= -1e-9 * basis.decay[0])
    assert np.all(np.diff(basis.level) >= 0) and basis.level[0] == 1 and basis.level[-1] <= level
    edge = basis.level.astype(float) * omega.min()
    assert np.all(2 * basis.decay <= edge**2 * (1 + 1e-9))
    assert np.all(2 * basis.decay > (edge - omega.min()) ** 2 * (1 - 1e-9))
    assert np.isclose(omega.min() ** 2, manifold.smallest_eigenvalue)


@pytest.mark.parametrize("manifold, level", COMPACT)
def test_matrix_and_means_of_noisy_data_by_quadrature_with_the_heat_kernel(manifold, level):
    """E grad psi_i . grad psi_j / 2 under p_t, which is a sum of heat kernels: nothing in common with the means."""
    basis = basis_for(manifold, level)
    rng = np.random.default_rng(0)
    Z, w = manifold.random(4, rng), np.array([0.1, 0.2, 0.3, 0.4])
    # kernels of the time t have frequencies of size 6 / sqrt(t) to 1e-8, 8 / sqrt(t) to 1e-14
    omega = np.array([2 * np.pi / f.period for f in manifold.factors()])
    t = (8 / (omega.min() * (16 if manifold.dim < 3 else 6))) ** 2
    nodes, share = lattice_rule(manifold, int(2 * np.abs(basis._index).max() + 8 / np.sqrt(t) / omega.min()))
    log_kernel = np.stack([manifold.log_heat_kernel(np.broadcast_to(z, nodes.shape), nodes, t) for z in Z])
    density = share * (w @ np.exp(log_kernel)) * np.exp(manifold.log_volume)
    assert np.isclose(density.sum(), 1, atol=1e-12)
    value, gradient, _ = tables(basis, nodes)
    now = basis.moments(Z, w) * np.exp(-basis.moment_decay * t)
    A = 0.5 * np.einsum("kqd,lqd,q->kl", gradient, gradient, density, optimize=True)
    assert np.allclose(basis.gram(now), A, atol=1e-11 * basis.decay.max())
    assert np.allclose(basis.own(now), value @ density, atol=1e-12)
    assert np.linalg.eigvalsh(basis.gram(now))[0] > -1e-12 * basis.decay.max()


@pytest.mark.parametrize("dim, level", [(1, 9), (2, 5), (3, 3)])
def test_hermite_functions_matrix_and_means_by_gauss_quadrature(dim, level):
    process = OrnsteinUhlenbeck(dim)
    basis = basis_for(process, level)
    nodes, share = gauss_rule(dim, level + 1)
    value, gradient, laplacian = tables(basis, nodes)
    assert np.allclose((value * share) @ value.T, np.eye(len(value)), atol=1e-11)
    generator = 0.5 * laplacian + np.einsum("kqd,qd->kq", gradient, process.drift(nodes))
    size = np.abs(value).max()
    assert np.allclose(generator, -basis.decay[:, None] * value, atol=1e-11 * size)
    assert np.allclose(0.5 * np.einsum("kqd,lqd,q->kl", gradient, gradient, share), np.diag(basis.decay), atol=1e-11)
    # a Gaussian law that is not the invariant one; then the law of its noisy version, by Mehler's formula
    rng = np.random.default_rng(1)
    mean, root = 0.5 * rng.standard_normal(dim), np.tril(0.4 * rng.standard_normal((dim, dim))) + 0.8 * np.eye(dim)
    moments = basis.moments(*gauss_rule(dim, level + 1, mean, root))
    for t in (0.0, 0.7):
        now = np.linalg.cholesky(np.exp(-t) * root @ root.T + (1 - np.exp(-t)) * np.eye(dim))
        nodes, share = gauss_rule(dim, level + 1, np.exp(-t / 2) * mean, now)
        value, gradient, _ = tables(basis, nodes)
        A = 0.5 * np.einsum("kqd,lqd,q->kl", gradient, gradient, share, optimize=True)
        noisy = moments * np.exp(-basis.moment_decay * t)
        assert np.allclose(basis.gram(noisy), A, rtol=1e-10, atol=1e-11 * np.abs(A).max())
        assert np.allclose(basis.own(noisy), value @ share, atol=1e-11 * np.abs(moments).max())


def test_hermite_matrix_of_a_high_degree_is_right_to_the_ridge():
    """Rounding is multiplied by 3^degree."""
    basis = HermiteBasis(OrnsteinUhlenbeck(1), 24)
    Z, share = np.random.default_rng(7).standard_normal((300, 1)), np.full(300, 1 / 300)
    gradient = tables(basis, Z)[1][:, :, 0] / np.sqrt(basis.decay)[:, None]
    exact = 0.5 * (gradient * share) @ gradient.T
    found = basis.gram(basis.moments(Z, share)) / np.sqrt(np.outer(basis.decay, basis.decay))
    assert np.linalg.norm(found - exact, 2) < 1e-5


def test_hermite_degrees_have_all_polynomials():
    basis = HermiteBasis(OrnsteinUhlenbeck(3), 4)
    assert np.array_equal(np.bincount(basis.level), [0, 3, 6, 10, 15])
    assert np.array_equal(basis.decay, 0.5 * basis.level)
    # the leading coefficient of the polynomial of degree n is 1 / sqrt(n!)
    line = HermiteBasis(OrnsteinUhlenbeck(1), 6)
    far = line.evaluate(np.array([[1e6]]), np.eye(6)[5], 0)[0]
    assert np.isclose(far[0], 1e36 / np.sqrt(720), rtol=1e-9)


@pytest.mark.parametrize("manifold, level", [(Torus(2), 4), (Box([(0.0, 1.0), (-1.0, 2.0)]), 6),
                                             (OrnsteinUhlenbeck(2), 5)])
def test_gradient_and_laplacian_are_those_of_the_values(manifold, level):
    basis = basis_for(manifold, level)
    rng = np.random.default_rng(2)
    Z, coef = manifold.random(6, rng), rng.standard_normal(len(basis.decay)) / (1 + basis.decay)
    value, gradient, laplacian = basis.evaluate(Z, coef, 2)
    step, trace = 1e-4, 0.0
    for j, unit in enumerate(np.eye(manifold.dim)):
        ahead, back = (basis.evaluate(Z + s * unit, coef, 1) for s in (step, -step))
        assert np.allclose((ahead[0] - back[0]) / (2 * step), gradient[:, j], atol=1e-5 * np.abs(gradient).max())
        trace = trace + (ahead[1] - back[1])[:, j] / (2 * step)
    assert np.allclose(trace, laplacian, atol=1e-5 * np.abs(laplacian).max())
    assert basis.evaluate(Z, coef, 0)[1:] == (None, None) and basis.evaluate(Z, coef)[2] is None
    assert np.allclose(basis.evaluate(Z, coef, 0)[0], value)


@pytest.mark.parametrize("manifold, level", [(Torus(3), 3), (Box([(0.0, 1.0)] * 3), 4), (OrnsteinUhlenbeck(3), 4)])
@pytest.mark.parametrize("interactions", [1, 2])
def test_fewer_interactions_are_a_part_of_all(manifold, level, interactions):
    full, some = basis_for(manifold, level), basis_for(manifold, level, interactions)
    Z, share = manifold.random(5, np.random.default_rng(3)), np.full(5, 0.2)
    keep = np.count_nonzero(full._index, axis=1) <= interactions
    assert np.allclose(some.decay, full.decay[keep])
    A, m = full.gram(full.moments(Z, share)), full.own(full.moments(Z, share))
    moments = some.moments(Z, share)
    order = [np.flatnonzero((full._index == k).all(axis=1) & (full._factor == f))[0]
             for k, f in zip(some._index, some._factor, strict=True)]
    assert np.allclose(some.gram(moments), A[np.ix_(order, order)], atol=1e-12 * np.abs(A).max())
    assert np.allclose(some.own(moments), m[order])


@pytest.mark.parametrize("manifold, level", [(Torus(2), 5), (Box([(0.0, 1.0), (-1.0, 2.0)]), 8),
                                             (OrnsteinUhlenbeck(2), 6)])
def test_blocks_tables_and_leading_functions_change_nothing(manifold, level, monkeypatch):
    rng = np.random.default_rng(4)
    basis, Z = basis_for(manifold, level), manifold.random(50, rng)
    share, coef = np.full(50, 0.02), rng.standard_normal(len(basis.decay))
    moments = basis.moments(Z, share)
    A, found = basis.gram(moments), basis.evaluate(Z, coef, 2)
    for k in (1, 6, 11):
        assert np.array_equal(basis.leading_gram(moments, k), A[:k, :k])
        short = basis.evaluate(Z, coef[:k], 2)
        for part, other in zip(short, basis.evaluate(Z, np.where(np.arange(len(coef)) < k, coef, 0), 2), strict=True):
            assert np.allclose(part, other, atol=1e-10)
    assert not np.any(basis.evaluate(Z, coef[:0], 2)[0])
    monkeypatch.setattr(flat, "_BLOCK", 64)
    monkeypatch.setattr(flat, "_TABLE", 0)  # keys are hashed
    other = basis_for(manifold, level)
    assert not other._lookup.dense
    assert np.allclose(other.moments(Z, share), moments, rtol=1e-12, atol=1e-13)
    assert np.allclose(other.gram(moments), A, rtol=1e-13, atol=1e-13 * np.abs(A).max())
    for part, same in zip(other.evaluate(Z, coef, 2), found, strict=True):
        assert np.allclose(part, same, rtol=1e-11, atol=1e-11)


def test_high_dimension_with_functions_of_one_coordinate():
    torus, process = Torus(60), OrnsteinUhlenbeck(60)
    for space, line in ((torus, Circle()), (process, OrnsteinUhlenbeck(1))):
        basis, single = basis_for(space, 4, interactions=1), basis_for(line, 4)
        Z, share = space.random(10, np.random.default_rng(5)), np.full(10, 0.1)
        moments = basis.moments(Z, share)
        A = basis.gram(moments)
        at = np.flatnonzero(basis._index[:, 17])
        rest = np.flatnonzero(basis._index[:, 17] == 0)
        assert np.allclose(A[np.ix_(at, at)], single.gram(single.moments(Z[:, 17:18], share)), atol=1e-12)
        assert not A[np.ix_(at, rest)].any()


def test_high_dimension_with_all_pairs():
    box = Box([(0.0, 1.0)] * 9)
    basis = TrigonometricBasis(box, 2)
    Z, share = box.random(3, np.random.default_rng(6)), np.full(3, 1 / 3)
    _, gradient, _ = tables(basis, Z)
    A = 0.5 * np.einsum("kqd,lqd,q->kl", gradient, gradient, share, optimize=True)
    assert np.allclose(basis.gram(basis.moments(Z, share)), A, atol=1e-11 * np.abs(A).max())


def test_first_level_of_a_high_dimension_needs_no_limit():
    for space, line in ((Torus(60), Circle()), (OrnsteinUhlenbeck(60), OrnsteinUhlenbeck(1))):
        assert len(basis_for(space, 1).decay) == 60 * len(basis_for(line, 1).decay)


def test_spaces_that_have_no_such_basis():
    for space in (Sphere(2), Euclidean(2), Product(Circle(), Box([(0.0, 1.0)])), OrnsteinUhlenbeck(2)):
        with pytest.raises(UnsupportedError, match="has no trigonometric basis"):
            TrigonometricBasis(space, 3)
    with pytest.raises(UnsupportedError, match="Hermite"):
        HermiteBasis(Circle(), 3)
    with pytest.raises(UnsupportedError, match="Use RDKSEstimator"):
        basis_for(Euclidean(2), 3)


def test_levels_that_are_wrong_or_too_high():
    with pytest.raises(ValueError, match="max_level"):
        TrigonometricBasis(Circle(), 0)
    with pytest.raises(ValueError, match="interactions"):
        TrigonometricBasis(Circle(), 2, interactions=0)
    with pytest.raises(ValueError, match="at most 24"):
        HermiteBasis(OrnsteinUhlenbeck(1), 25)
    for space, level in ((Box([(0.0, 1.0)] * 8), 30), (OrnsteinUhlenbeck(100), 10), (Torus(20), 40)):
        with pytest.raises(ValueError, match="functions, which takes .* GiB.*lower max_level, or interactions=1"):
            basis_for(space, level)


def test_the_number_of_functions_is_known_before_they_are_made():
    values = [np.arange(40)] * 3
    costs = [(v * w) ** 2.0 for v, w in zip(values, (1.0, 0.7, 1.3), strict=True)]
    for interactions in (1, 2, 3):
        exact = len(flat._indices(values, costs, 300.0, interactions))
        assert abs(flat._count(costs, 300.0, interactions) / exact - 1) < 0.05
