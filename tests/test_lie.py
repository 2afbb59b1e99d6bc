"""Compact groups against isometric spaces, characters in many digits, quadrature, matrix functions and samples."""
import itertools
import pickle

import mpmath as mp
import numpy as np
import pytest
from scipy.linalg import expm, logm

from rdks.errors import PointError
from rdks.manifolds import SpaceForm, load_geomstats
from rdks.manifolds.lie import SpecialOrthogonal, SpecialUnitary, Unitary, _log_spread, _plan, _torus
from rdks.pairs import PairSum

EPS = np.finfo(float).eps
GROUPS = [SpecialOrthogonal(2), SpecialOrthogonal(3), SpecialOrthogonal(4), SpecialOrthogonal(5), Unitary(1),
          Unitary(2), Unitary(3), SpecialUnitary(2), SpecialUnitary(3), SpecialUnitary(4)]
group = pytest.mark.parametrize("group", GROUPS, ids=repr)


def matrices(group, Z):
    """Matrices of embedded points, by the documented layout."""
    X = group.unembed(Z)
    return X[:, 0] + 1j * X[:, 1] if X.ndim == 4 else X


def written(M):
    """Points as a user writes them."""
    return np.stack([M.real, M.imag], axis=1) if np.iscomplexobj(M) else M


def with_angles(group, angles, rng):
    """Pairs (x, y) of embedded points for which x^{-1} y has the given eigenvalue angles, (N, number of angles)."""
    angles = np.atleast_2d(angles)
    Z = group.random(len(angles), rng)
    if isinstance(group, SpecialOrthogonal):
        T = np.tile(np.eye(group.n), (len(angles), 1, 1))
        for i, h in enumerate(angles.T):
            T[:, 2 * i, 2 * i] = T[:, 2 * i + 1, 2 * i + 1] = np.cos(h)
            T[:, 2 * i + 1, 2 * i] = np.sin(h)
            T[:, 2 * i, 2 * i + 1] = -np.sin(h)
    else:
        T = np.exp(1j * angles)[:, :, None] * np.eye(group.n)
    U = matrices(group, group.random(len(angles), rng))
    W = matrices(group, Z) @ U @ T @ np.conj(np.swapaxes(U, 1, 2))
    return Z, group.embed(written(W))


# the kernel


def sphere(r, t, radius):
    """Log heat kernel of the sphere S^3 at distances r; independent code."""
    f = SpaceForm(3, radius=radius)
    return f.log_kernel(r, t) - r * r / (2 * t)


def line(x, t, period):
    f = SpaceForm(1, period=period)
    r = np.abs(x - period * np.rint(x / period))
    return f.log_kernel(r, t) - r * r / (2 * t)


@pytest.mark.parametrize("t", [1e-3, 0.1, 1.0, 4.0, 30.0])
def test_isometric_spaces(t, rng):
    # log kernels of size r^2 / 2t, whose r is known to a few roundings; sums of few terms besides
    special = [0, 1.0, np.pi / 2, np.pi - 1e-4, np.pi]
    grid = np.concatenate([rng.uniform(0, np.pi, (30, 2)), list(itertools.product(special, repeat=2))])
    tol = dict(rtol=20 * EPS, atol=1e-13 + 100 * EPS / t)
    a, b = grid.T
    half = np.pi * np.sqrt(2)  # the distance of antipodes on the sphere of radius sqrt(2)

    for circle in (SpecialOrthogonal(2), Unitary(1)):
        found = circle.log_heat_kernel(*with_angles(circle, grid[:, :1], rng), t)
        np.testing.assert_allclose(found, line(a, t, 2 * np.pi), **tol)

    so3 = SpecialOrthogonal(3)
    want = np.logaddexp(sphere(a, t, 2.0), sphere(2 * np.pi - a, t, 2.0))
    np.testing.assert_allclose(so3.log_heat_kernel(*with_angles(so3, grid[:, :1], rng), t), want, **tol)

    su2 = SpecialUnitary(2)
    pair = np.column_stack([a, -a])
    np.testing.assert_allclose(su2.log_heat_kernel(*with_angles(su2, pair, rng), t),
                               sphere(np.sqrt(2) * a, t, np.sqrt(2)), **tol)

    so4 = SpecialOrthogonal(4)
    left, right = (a + b) / np.sqrt(2), np.abs(a - b) / np.sqrt(2)
    want = np.logaddexp(sphere(left, t, np.sqrt(2)) + sphere(right, t, np.sqrt(2)),
                        sphere(half - left, t, np.sqrt(2)) + sphere(half - right, t, np.sqrt(2)))
    np.testing.assert_allclose(so4.log_heat_kernel(*with_angles(so4, grid, rng), t), want, **tol)

    u2 = Unitary(2)
    want = np.logaddexp(line((a - b) / np.sqrt(2), t, 2 * half) + sphere(left, t, np.sqrt(2)),
                        line((a - b) / np.sqrt(2) + half, t, 2 * half) + sphere(half - left, t, np.sqrt(2)))
    np.testing.assert_allclose(u2.log_heat_kernel(*with_angles(u2, np.column_stack([a, -b]), rng), t), want, **tol)


def complete(z, top):
    """Complete symmetric polynomials h_0, ..., h_top of numbers z."""
    h = [mp.mpf(1)] + [mp.mpf(0)] * top
    for x in z:
        for k in range(1, top + 1):
            h[k] += x * h[k - 1]
    return h


def by_characters(group, angles, t, top):
    """Log kernel as the sum over irreducible representations, characters by Jacobi and Trudi, in many digits.

    The trace of a representation is a determinant of complete symmetric polynomials of the eigenvalues, its dimension
    the same at the identity, its eigenvalue a sum over the boxes of the diagram: no roots, no lattices.
    """
    n, t = group.n, mp.mpf(t)
    total = mp.mpf(0)
    if isinstance(group, SpecialOrthogonal):
        rows = n // 2
        eigenvalues = [mp.mpc(1)] * (n % 2) + [mp.expj(s * mp.mpf(float(a))) for a in angles for s in (1, -1)]
    else:
        rows = n - 1
        free = [mp.mpf(float(a)) for a in angles[:-1]]
        eigenvalues = [mp.expj(a) for a in [*free, -sum(free)]]  # a determinant of 1 in all digits
    h, h1 = complete(eigenvalues, 2 * top + 2 * n), complete([mp.mpf(1)] * n, 2 * top + 2 * n)

    def schur(part, h):
        def at(k):
            return h[k] if k >= 0 else mp.mpf(0)
        m = len(part)
        if isinstance(group, SpecialOrthogonal):
            return mp.det(mp.matrix([[at(part[i] - i + j) - at(part[i] - i - j - 2) for j in range(m)]
                                     for i in range(m)]))
        return mp.det(mp.matrix([[at(part[i] - i + j) for j in range(m)] for i in range(m)]))

    for part in itertools.product(range(top + 1), repeat=rows):
        if any(part[i] < part[i + 1] for i in range(rows - 1)):
            continue
        if isinstance(group, SpecialOrthogonal):
            lam = sum(p * (p + n - 2 * i - 2) for i, p in enumerate(part))
            # for even n the two representations of a diagram of full height are taken together
            weight = mp.mpf(1) if n % 2 or part[-1] == 0 else mp.mpf(1) / 2
        else:
            size = sum(part)
            lam = sum(p * (p + n - 2 * i - 1) for i, p in enumerate(part)) - mp.mpf(size) ** 2 / n
            weight = mp.mpf(1)
        total += weight * schur(part, h1) * mp.re(schur(part, h)) * mp.exp(-lam * t / 2)
    return float(mp.log(total) - mp.mpf(group.log_volume))


@pytest.mark.parametrize("group, angles", [
    (SpecialUnitary(3), [0.3, 0.4, -0.7]),
    (SpecialUnitary(3), [0.0, 0.0, 0.0]),
    (SpecialUnitary(3), [2 * np.pi / 3, 2 * np.pi / 3, 2 * np.pi / 3]),   # in the centre, farthest of all
    (SpecialUnitary(3), [np.pi - 1e-3, -np.pi + 1e-3, 0.0]),              # near the cut locus
    (SpecialUnitary(4), [np.pi, np.pi, 1.0, -1.0]),
    (SpecialOrthogonal(5), [0.4, 1.9]),
    (SpecialOrthogonal(5), [np.pi, np.pi]),
    (SpecialOrthogonal(5), [np.pi - 1e-3, 0.0]),
    (SpecialOrthogonal(6), [2.0, 1.0, 1.0]),
])
@pytest.mark.parametrize("t", [0.5, 1.1, 4.0])
def test_characters(group, angles, t, rng):
    t *= 1 + (group.n > 4)  # fewer representations
    with mp.workdps(40):
        want = by_characters(group, angles, t, top=int(np.sqrt((110 if group.n > 4 else 240) / t)) + 2)
    found = group.log_heat_kernel(*with_angles(group, angles, rng), t)[0]
    # The sum over geodesics loses exp(|delta|^2 t/2) <= 500, that over characters exp(far^2 / 2t), which is as much.
    # Angles are known to a few roundings, and the kernel is |h| / t times as steep.
    np.testing.assert_allclose(found, want, atol=1e-12 + 50 * EPS / t, rtol=0)


@group
def test_both_sums_agree_where_they_meet(group, rng):
    """Sum over geodesics and sum over characters, either side of the switch: values, slopes and Laplacians."""
    X, Y = group.random(6, rng), group.random(30, rng)
    Y[:6] = X  # coinciding eigenvalues
    _, delta, *_ = _torus(group)
    square = delta @ delta
    t = group._farthest / np.sqrt(square) if square else group._farthest**2 / 18
    assert not _plan(group, t * (1 - 1e-9)).characters and _plan(group, t * (1 + 1e-9)).characters
    here, there = (group.pair_kernel(X, Y, t * (1 + s * 1e-9), 2) for s in (-1, 1))
    # the difference of the times itself changes log k by 2e-9 t |ratio| / 2
    for a, b, tol in zip(here, there, (1e-11, 1e-10, 1e-9), strict=True):
        np.testing.assert_allclose(a, b, atol=tol + 2e-8 * (1 + np.abs(here[2]).max()), rtol=0)


@pytest.mark.parametrize("group", [SpecialOrthogonal(4), SpecialOrthogonal(5), Unitary(2), SpecialUnitary(3)], ids=repr)
def test_mass_and_semigroup_by_weyl_integration(group):
    r"""Class functions integrate as :math:`\int f=\frac{V}{|W|(2\pi)^r}\int f\prod_\alpha4\sin^2\frac\alpha2\,dh`.

    The trapezoid rule is exact for the frequencies below the number of nodes.
    """
    roots, *_ = _torus(group)
    count = 60
    line = 2 * np.pi * (np.arange(count) + 0.3) / count
    if isinstance(group, SpecialUnitary):
        free = np.array(list(itertools.product(line, repeat=group.n - 1)))
        theta, order = np.column_stack([free, -free.sum(axis=1)]), 6
    elif isinstance(group, Unitary):
        theta, order = np.array(list(itertools.product(line, repeat=group.n))), 2
    else:
        theta, order = np.array(list(itertools.product(line, repeat=2))), {4: 4, 5: 8}[group.n]
    theta = np.angle(np.exp(1j * theta))
    if isinstance(group, SpecialOrthogonal):
        h = np.sort(np.abs(theta), axis=1)[:, ::-1]
    else:
        h = group._fold(theta)
    measure = group.volume * np.prod(4 * np.sin(0.5 * (theta @ roots.T)) ** 2, axis=1) / (order * len(theta))
    np.testing.assert_allclose(measure.sum(), group.volume, rtol=1e-12)
    values = {t: np.exp(group._log_kernel(h, t, 0)[0]) for t in (0.1, 0.3, 1.0, 8.0)}
    for t in values:
        np.testing.assert_allclose(measure @ values[t], 1.0, rtol=1e-11)
    for s, t in ((0.1, 0.1), (0.1, 0.3), (0.3, 1.0)):
        origin = np.exp(group._log_kernel(np.zeros((1, h.shape[1])), s + t, 0)[0][0])
        np.testing.assert_allclose(measure @ (values[s] * values[t]), origin, rtol=1e-11)


@group
@pytest.mark.parametrize("t", [0.02, 0.4, 5.0])
def test_slopes_are_those_along_geodesics(group, t, rng):
    """Gradients and Laplacians against differences along geodesics of a frame, also where eigenvalues meet."""
    X = group.random(4, rng)
    Y = np.concatenate([group.random(3, rng), X[:1], with_angles(group, np.zeros(_angles(group)), rng)[0]])
    if isinstance(group, SpecialOrthogonal) and group.n > 3:
        X[0], Y[4] = (Z[0] for Z in with_angles(group, np.full(2, 1.2), rng))  # two equal angles
    log_k, grad, ratio = group.pair_kernel(X, Y, t, 2)
    np.testing.assert_array_equal(group.pair_kernel(X, Y, t, 0)[0], log_k)
    np.testing.assert_array_equal(group.pair_kernel(X, Y, t, 1)[1], grad)
    assert group.pair_kernel(X, Y, t, 0)[1:] == (None, None) and group.pair_kernel(X, Y, t, 1)[2] is None
    for i in range(len(Y)):
        np.testing.assert_allclose(group.log_heat_kernel(X, np.broadcast_to(Y[i], X.shape), t), log_k[:, i],
                                   atol=1e-12 * (1 + 1 / t), rtol=0)
        np.testing.assert_allclose(group.to_tangent(X, grad[:, i]), grad[:, i], atol=1e-12 * (1 + 1 / t), rtol=0)
    step = 1e-3 * np.sqrt(t)
    size = 1 / np.sqrt(t) + np.abs(grad).max()
    total = np.zeros_like(log_k)
    for E in np.swapaxes(group.frame(X), 0, 1):
        ahead, back, ahead2, back2 = (group.pair_kernel(group.exp(X, c * step * E), Y, t, 0)[0] for c in (1, -1, 2, -2))
        along = np.einsum("qnm,qm->qn", grad, E)
        slope = (8 * (ahead - back) - (ahead2 - back2)) / (12 * step)
        # a fifth derivative of at most (size)^5 step^4 / 30, and rounding
        tol = size * (size * step) ** 4 + 1e-13 / step * (1 + 1 / t)
        np.testing.assert_allclose(slope, along, atol=tol, rtol=0)
        total += (16 * (ahead + back) - (ahead2 + back2) - 30 * log_k) / (12 * step**2)
    square = np.einsum("qnm,qnm->qn", grad, grad)
    np.testing.assert_allclose(total, ratio - square, atol=group.dim * (
        size**2 * (size * step) ** 4 + 1e-13 / step**2 * (1 + 1 / t)), rtol=0)


def _angles(group):
    return group.n // 2 if isinstance(group, SpecialOrthogonal) else group.n


@group
def test_limits(group, rng):
    Z = group.random(40, rng)
    X = np.broadcast_to(Z[0], Z.shape)
    np.testing.assert_allclose(group.log_heat_kernel(X, Z, 400.0), -group.log_volume, atol=1e-12, rtol=0)
    assert group.volume == pytest.approx(np.exp(group.log_volume), rel=4 * EPS)
    # the rate at which it gets there is the first eigenvalue; the next one is further by a third at least
    times = np.array([40.0, 44.0]) / group.smallest_eigenvalue
    a, b = (np.expm1(group.log_heat_kernel(X[:1], X[:1], t) + group.log_volume)[0] for t in times)
    assert 2 * np.log(a / b) / (times[1] - times[0]) == pytest.approx(group.smallest_eigenvalue, rel=3e-3)
    # k_t(x, x) (2 pi t)^{d/2} = 1 + t scal / 12 + ...; here it is exp(|delta|^2 t / 2) but for other geodesics
    t = 1e-3
    peak = group.log_heat_kernel(X[:1], X[:1], t)[0] + 0.5 * group.dim * np.log(2 * np.pi * t)
    assert peak / t == pytest.approx(group.scalar_curvature / 12, abs=1e-11)
    # Varadhan: -2 t log k -> r^2
    r = group.dist(X, Z)
    gap = -2e-6 * group.log_heat_kernel(X, Z, 1e-6) - r**2
    assert np.abs(gap).max() < 2e-6 * (group.dim * 8 + 40)
    assert group.log_error(1e-3) < 2e-14 and group.log_error(100.0) < 2e-11


VOLUMES = {SpecialOrthogonal(3): 8 * np.pi**2, SpecialOrthogonal(4): (2 * np.pi**2 * 2**1.5) ** 2 / 2,
           Unitary(1): 2 * np.pi, Unitary(2): 2 * np.pi * 2**0.5 * 2 * np.pi**2 * 2**1.5 / 2,
           SpecialUnitary(2): 2 * np.pi**2 * 2**1.5, SpecialOrthogonal(2): 2 * np.pi}


@pytest.mark.parametrize("group", VOLUMES, ids=repr)
def test_volume_is_that_of_the_isometric_space(group):
    assert group.volume == pytest.approx(VOLUMES[group], rel=1e-14)


def test_kernel_is_finite_everywhere(rng):
    for group in GROUPS:
        X = group.random(20, rng)
        pi, zero = np.full(_angles(group), np.pi), np.zeros(_angles(group))
        if isinstance(group, SpecialUnitary):
            pi[-1] = -pi[:-1].sum()
        Y = np.concatenate([with_angles(group, pi, rng)[0], X, with_angles(group, zero, rng)[0]])
        for t in (1e-8, 1e-3, 0.3, 3.0, 1e3):
            log_k, grad, ratio = group.pair_kernel(X, Y, t, 2)
            assert np.isfinite(log_k).all() and np.isfinite(grad).all() and np.isfinite(ratio).all()
            back = group.pair_kernel(Y, X, t, 0)[0].T
            np.testing.assert_allclose(log_k, back, rtol=1e-12, atol=1e-12 + 200 * EPS / t)
    with pytest.raises(ValueError, match="positive"):
        group.pair_kernel(X, Y, 0.0, 0)


def test_log_spread():
    x = np.array([0.0, 1e-9, 1e-3, 0.2999, 0.3001, 1.0, 5.0, -2.0, 6.28])
    with mp.workdps(40):
        value = [mp.mpf(0) if v == 0 else mp.log(mp.mpf(v) / 2 / mp.sin(mp.mpf(v) / 2)) for v in map(float, x)]
        slope = [mp.mpf(0) if v == 0 else 1 / mp.mpf(v) - mp.cot(mp.mpf(v) / 2) / 2 for v in map(float, x)]
    found = _log_spread(x)
    # 1 / x - cot(x / 2) / 2 beyond 0.3 cancels by a factor of 130; close to 2 pi the sine has lost some digits
    np.testing.assert_allclose(found[0], np.array(value, dtype=float), rtol=1e-13, atol=EPS)
    np.testing.assert_allclose(found[1], np.array(slope, dtype=float), rtol=1e-12, atol=0)


# geometry


@group
def test_exp_log_dist_are_matrix_functions(group, rng):
    X, Y = group.random(8, rng), group.random(8, rng)
    A, B = matrices(group, X), matrices(group, Y)
    V = group.log(X, Y)
    np.testing.assert_allclose(group.exp(X, V), Y, atol=1e-14 * group.n, rtol=0)
    assert (group.dist(X, X) == 0).all()
    np.testing.assert_allclose(np.linalg.norm(V, axis=1), group.dist(X, Y), rtol=1e-13)
    np.testing.assert_allclose(group.to_tangent(X, V), V, atol=1e-13, rtol=0)
    unit = np.sqrt(0.5) if isinstance(group, SpecialOrthogonal) else 1.0
    for i in range(8):
        L = logm(A[i].conj().T @ B[i])
        if abs(np.trace(L)) < 1e-10:  # else the principal logarithm is not in the Lie algebra of SU(n)
            assert group.dist(X[i:i + 1], Y[i:i + 1])[0] == pytest.approx(unit * np.linalg.norm(L), rel=1e-12)
        W = 3.0 * group.frame(X[i:i + 1])[0, -1]
        direction = group.push_tangent(group.unembed(X[i:i + 1]), W[None])[0]
        direction = direction[0] + 1j * direction[1] if direction.ndim == 3 else direction
        want = A[i] @ expm(A[i].conj().T @ direction)
        np.testing.assert_allclose(matrices(group, group.exp(X[i:i + 1], W[None]))[0], want, atol=1e-13, rtol=0)
    # SU(n): every logarithm of shortest length, by trial
    if isinstance(group, SpecialUnitary):
        theta = np.angle(np.linalg.eigvals(np.conj(np.swapaxes(A, 1, 2)) @ B))
        shifts = 2 * np.pi * np.array(list(itertools.product((-1, 0, 1), repeat=group.n)))
        h = theta[:, None] + shifts
        length = np.where(np.abs(h.sum(axis=-1)) < 1e-6, np.linalg.norm(h, axis=-1), np.inf)
        np.testing.assert_allclose(group.dist(X, Y), length.min(axis=1), rtol=1e-13)


@group
def test_frame_and_layout(group, rng):
    Z = group.random(5, rng)
    E = group.frame(Z)
    assert E.shape == (5, group.dim, group.embed_dim)
    np.testing.assert_allclose(np.einsum("nim,njm->nij", E, E), np.broadcast_to(np.eye(group.dim), (
        5, group.dim, group.dim)), atol=1e-14, rtol=0)
    for i in range(group.dim):
        np.testing.assert_allclose(group.to_tangent(Z, E[:, i]), E[:, i], atol=1e-14, rtol=0)
    X = group.unembed(Z)
    assert X.shape == (5, *group.point_shape)
    np.testing.assert_allclose(group.embed(X), Z, atol=1e-15, rtol=0)
    np.testing.assert_allclose(group.embed(X.reshape(5, -1)), Z, atol=1e-15, rtol=0)
    assert group.violation(X).max() < 1e-14 and group.violation(X.reshape(5, -1)).max() < 1e-14
    M = matrices(group, Z)
    gram = M @ np.conj(np.swapaxes(M, 1, 2))
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(group.n), M.shape), atol=1e-14, rtol=0)
    if not isinstance(group, Unitary):
        np.testing.assert_allclose(np.linalg.det(M), 1.0, atol=1e-14, rtol=0)
    # the tangent vector that moves the matrix by push_tangent
    V = 1e-6 * np.einsum("nim,i->nm", E, rng.standard_normal(group.dim))
    moved = group.unembed(group.exp(Z, V)) - group.unembed(group.exp(Z, -V))
    np.testing.assert_allclose(moved / 2, group.push_tangent(X, V), atol=1e-15, rtol=0)
    assert pickle.loads(pickle.dumps(group)) == group and hash(group) == hash(type(group)(group.n))
    assert group.injectivity_radius <= group._farthest and len(group.scales) == 1 and group.factors() == ()


@pytest.mark.parametrize("group, angles", [(Unitary(2), [1.8, 0.4]), (Unitary(3), [1.8, 0.4, -2.0]),
                                           (SpecialOrthogonal(4), [1.4, 0.8]), (SpecialUnitary(3), [1.8, 0.4, -2.2])])
def test_eigenvalues_that_mirror_each_other(group, angles, rng):
    """Eigenvalues whose mean is the direction in which they are first looked for, exactly and nearly."""
    for nudge in (0.0, 1e-15, 1e-9, 1e-4):
        angles = np.array(angles) + nudge * np.eye(len(angles))[0]
        if isinstance(group, SpecialUnitary):
            angles[-1] = -angles[:-1].sum()
        X, Y = with_angles(group, angles, rng)
        V = group.log(X, Y)
        np.testing.assert_allclose(group.exp(X, V), Y, atol=1e-14 * group.n, rtol=0)
        assert group.dist(X, Y)[0] == pytest.approx(np.linalg.norm(angles), rel=1e-14)
        # at small times the gradient is log / t, but for the volume density, which does not depend on t
        steep = [t * group.pair_kernel(X, Y, t, 1)[1][:, 0] for t in (1e-6, 2e-6)]
        np.testing.assert_allclose(2 * steep[0] - steep[1], V, atol=1e-11, rtol=0)


@pytest.mark.parametrize("group", GROUPS[:4], ids=repr)
def test_logarithm_of_half_turns(group, rng):
    """Eigenvalue -1, double or fourfold, and nearly so: any shortest logarithm will do, but it must be real."""
    r = group.n // 2
    for first in (np.pi, np.pi - 1e-14, np.pi - 1e-9, np.pi - 1e-5, -np.pi):
        for rest in (np.pi, np.pi - 1e-10, 1.0, 0.0):
            angles = np.full(r, rest)
            angles[0] = first
            X, Y = with_angles(group, angles, rng)
            V = group.log(X, Y)
            np.testing.assert_allclose(group.to_tangent(X, V), V, atol=1e-13, rtol=0)
            assert np.linalg.norm(V) == pytest.approx(np.linalg.norm(angles), rel=1e-13)
            np.testing.assert_allclose(group.exp(X, V), Y, atol=1e-13, rtol=0)
            assert group.dist(X, Y)[0] == pytest.approx(np.linalg.norm(angles), rel=1e-13)


@group
def test_beyond_the_injectivity_radius_geodesics_are_not_shortest(group, rng):
    r = group.injectivity_radius
    X = group.random(1, rng)
    turn = np.zeros(_angles(group))
    turn[0] = 1.0
    if isinstance(group, SpecialUnitary):
        turn[1] = -1.0
        turn /= np.sqrt(2)
    for s, shortest in ((r - 1e-3, True), (r + 1e-3, False)):
        X, Y = with_angles(group, s * turn, rng)
        assert (group.dist(X, Y)[0] > s - 1e-9) == shortest
    V = rng.standard_normal((200, group.dim)) @ group.frame(X)[0]
    V *= 0.999 * r / np.linalg.norm(V, axis=1, keepdims=True)
    X = np.broadcast_to(X, V.shape)
    np.testing.assert_allclose(group.dist(X, group.exp(X, V)), 0.999 * r, rtol=1e-12)


def test_rotations_of_geomstats(rng):
    load_geomstats()
    from geomstats.geometry.special_orthogonal import SpecialOrthogonal as Theirs

    for n in (3, 4):
        theirs, group = Theirs(n, point_type="matrix"), SpecialOrthogonal(n)
        X = group.unembed(group.random(6, rng))
        Y = group.unembed(group.random(6, rng))
        assert theirs.belongs(X).all()
        # their metric: the Frobenius norm in 4 dimensions, half of its square in 3
        want = np.array([np.linalg.norm(theirs.log(y, x)) for x, y in zip(X, Y, strict=True)]) / np.sqrt(2)
        np.testing.assert_allclose(group.dist(group.embed(X), group.embed(Y)), want, rtol=1e-8)


# samples


@pytest.mark.parametrize("group", [SpecialOrthogonal(2), SpecialOrthogonal(3), SpecialOrthogonal(5), Unitary(1),
                                   Unitary(3), SpecialUnitary(3)], ids=repr)
@pytest.mark.parametrize("t", [0.05, 2.0])
def test_samples_damp_eigenfunctions(group, t, rng):
    """The entries of the matrix have the first eigenvalue, and those of its tensor square are as exactly known."""
    n, lam = 4000, group.smallest_eigenvalue
    x = group.random(1, rng)
    Z = np.repeat(x, n, axis=0)
    Y = group.heat_sample(Z, t, rng)
    assert group.violation(group.unembed(Y)).max() < 1e-13
    g = np.conj(np.swapaxes(matrices(group, Z), 1, 2)) @ matrices(group, Y)
    trace = np.einsum("nii->n", g)
    other = trace.imag if np.iscomplexobj(g) else g[:, 0, 1]
    # E g = exp(-lam t/2) 1; the trace of the symmetric square is (tr^2 + tr g^2) / 2
    square = 0.5 * (trace**2 + np.einsum("nij,nji->n", g, g)).real
    for value, want in ((trace.real, group.n * np.exp(-0.5 * lam * t)), (other, 0.0),
                        (square, _symmetric_square(group, t))):
        error = value.std() / np.sqrt(n)
        assert abs(value.mean() - want) < 4.5 * error + 1e-12
    # a time for each row
    mixed = group.heat_sample(Z, np.where(np.arange(n) % 2, t, 0.0), rng)
    np.testing.assert_array_equal(mixed[::2], Z[::2])
    g = np.conj(np.swapaxes(matrices(group, Z[1::2]), 1, 2)) @ matrices(group, mixed[1::2])
    trace = np.einsum("nii->n", g).real
    assert abs(trace.mean() - group.n * np.exp(-0.5 * lam * t)) < 4.5 * trace.std() / np.sqrt(n / 2)


def _symmetric_square(group, t):
    n = group.n
    if isinstance(group, SpecialOrthogonal):  # one plus the harmonic polynomials of degree 2, l (l + n - 2) = 2 n
        return 1 + (n * (n + 1) / 2 - 1) * np.exp(-0.5 * 2 * n * t)
    lam = 2 * n + 2 - (4 / n if isinstance(group, SpecialUnitary) else 0)
    return n * (n + 1) / 2 * np.exp(-0.5 * lam * t)


@pytest.mark.parametrize("group", [SpecialOrthogonal(3), SpecialOrthogonal(4), Unitary(2), SpecialUnitary(3)], ids=repr)
def test_acceptance(group, rng):
    """The probability of acceptance never exceeds 1, and its mean over the proposals is exp(-|delta|^2 t/2)."""
    _, delta, _, _, algebra = _torus(group)
    for t in (0.1, 1.5 / (delta @ delta)):
        A = np.sqrt(t) * np.einsum("nd,dij->nij", rng.standard_normal((20000, group.dim)), algebra)
        p = group._acceptance(group._fold(group._diagonal(group._exponential(A))[0]), t)
        assert p.min() >= 0 and p.max() <= 1 + 1e-9
        assert abs(p.mean() - np.exp(-0.5 * delta @ delta * t)) < 4.5 * p.std() / np.sqrt(len(p))


@group
def test_random_is_uniform(group, rng):
    M = matrices(group, group.random(20000, rng))
    trace = np.einsum("nii->n", M)
    # irreducible representations, not trivial: mean 0, mean square 1 (SO(2) is two of them)
    assert abs(trace.mean()) < 4.5 * trace.std() / np.sqrt(20000)
    square = np.abs(trace) ** 2
    want = 2.0 if group == SpecialOrthogonal(2) else 1.0
    assert abs(square.mean() - want) < 4.5 * square.std() / np.sqrt(20000) + 1e-12
    # invariance under a fixed element
    moved = np.einsum("nii->n", matrices(group, group.random(1, rng)) @ M)
    for f in (lambda z: np.cos(z.real), lambda z: np.sin(z.real + z.imag)):
        a, b = f(moved), f(trace)
        assert abs(a.mean() - b.mean()) < 4.5 * (a - b).std() / np.sqrt(20000) + 1e-12


def test_uniform_at_long_times(rng):
    group = SpecialOrthogonal(3)
    Z = np.repeat(group.random(1, rng), 10000, axis=0)
    trace = np.einsum("nii->n", matrices(group, group.heat_sample(Z, 1e9, rng)))
    assert abs(trace.mean()) < 4.5 / 100 and abs((trace**2).mean() - 1) < 0.1


# what users get wrong


def test_bad_points_are_named():
    group = SpecialOrthogonal(3)
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    cases = {"reflection": np.diag([1.0, 1, -1]), "scaled": 1.001 * turn, "sheared": turn + 1e-3 * np.eye(3)[[1, 2, 0]],
             "zero": np.zeros((3, 3)), "huge": 1e200 * turn, "inf": np.full((3, 3), np.inf)}
    off = group.violation(np.array([turn, *cases.values()]))
    assert off[0] < 1e-15 and (off[1:] > 1e-4).all()
    assert off[1] == pytest.approx(2.0) and off[2] == pytest.approx(0.002001, rel=1e-6)
    Z = group.embed(np.array([turn, *cases.values()]))
    lost = np.isnan(Z).any(axis=1)
    assert list(lost) == [False, True, False, False, True, False, True]
    # the nearest rotation: that of the polar decomposition
    np.testing.assert_allclose(group.unembed(Z[2:3])[0], turn, atol=1e-15, rtol=0)
    special = SpecialUnitary(2)
    U = np.array([np.eye(2), np.diag([1j, 1]), 1.01 * np.eye(2)])
    off = special.violation(written(U + 0j))
    np.testing.assert_allclose(off, [0.0, np.sqrt(2), 0.0201], atol=1e-15, rtol=0)
    assert Unitary(2).violation(written(U + 0j))[1] == 0.0
    assert all(len(g.constraint()) > 20 for g in (group, special, Unitary(2)))
    assert "reflection" in SpecialOrthogonal(3).remedy() and "np.stack" in Unitary(2).remedy()


@pytest.mark.parametrize("make, n", [(SpecialOrthogonal, 1), (SpecialOrthogonal, 7), (Unitary, 0), (Unitary, 5),
                                     (SpecialUnitary, 1), (SpecialUnitary, 2.0), (SpecialOrthogonal, True)])
def test_sizes_are_checked(make, n):
    with pytest.raises(ValueError, match="n = "):
        make(n)


def test_estimator(rng):
    from rdks import RDKSEstimator

    group = Unitary(2)
    X = group.unembed(group.heat_sample(np.repeat(group.random(2, rng), 20, axis=0), 0.05, rng))
    est = RDKSEstimator(group, bandwidth=0.2).fit(X)
    Q = group.unembed(group.random(5, rng))
    total = PairSum(group, group.embed(X), np.ones(40), 0.04)
    found = total.evaluate(group.embed(Q), 0.0, 1)
    np.testing.assert_allclose(est.score_samples(Q), found.log_density, rtol=1e-12)
    np.testing.assert_allclose(est.score_field(Q), group.push_tangent(Q, found.gradient), rtol=1e-12)
    assert est.sample(3, random_state=0).shape == (3, 2, 2, 2)
    X[3] *= 1.1
    with pytest.raises(PointError, match=r"X\[3\]"):
        RDKSEstimator(group, bandwidth=0.2).fit(X)
