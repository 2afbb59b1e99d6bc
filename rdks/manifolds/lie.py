r"""Compact matrix groups with their bi-invariant metric: rotations SO(n), unitary matrices U(n) and SU(n).

The heat kernel depends on the conjugacy class of :math:`x^{-1}y` alone, that is on the angles
:math:`h=(h_1,\dots,h_r)` of its eigenvalues. With the positive roots :math:`\alpha` (linear forms in h), their
half sum :math:`\delta`, the lattice :math:`\Gamma` of those h whose exponential is the identity, and
:math:`\varepsilon(\gamma)=(-1)^{\sum_\alpha\alpha(\gamma)/2\pi}`, it is a sum over all geodesics from x to y,

.. math:: k_t=\frac{e^{|\delta|^2t/2}}{(2\pi t)^{d/2}}\,\frac1{\prod_\alpha2\sin\frac{\alpha(h)}2}\sum_{\gamma\in\Gamma}
          \varepsilon(\gamma)\,e^{-|h+\gamma|^2/2t}\prod_\alpha\alpha(h+\gamma),

and by Poisson's formula a sum over characters: with :math:`\mu` in the weight lattice shifted by :math:`\delta`,

.. math:: k_t=\frac{e^{|\delta|^2t/2}}{V\prod_\alpha\langle\alpha,\delta\rangle}\,
          \frac1{\prod_\alpha2i\sin\frac{\alpha(h)}2}
          \sum_\mu e^{-|\mu|^2t/2}e^{i\langle\mu,h\rangle}\prod_\alpha\langle\alpha,\mu\rangle .

The first serves small times, where away from the cut locus one term is left; the second serves large ones.
Where eigenvalues meet, both are 0/0. But k is an entire function of h: there it is the mean of its values on a circle
:math:`h+s\delta`, :math:`|s|=\rho`, in complex space, on which no sine vanishes. With :math:`\rho` so large that the
kernel changes by a factor of ten or so, nothing cancels badly either.
"""
from __future__ import annotations

import itertools
from abc import abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, exp, lgamma, log, pi, sqrt
from typing import NamedTuple

import numpy as np

from .base import Manifold, parameter

__all__ = ["SpecialOrthogonal", "SpecialUnitary", "Unitary"]

# Terms below exp(-_FALL) of the largest are left out.
_FALL = 40.0
# On a circle (no roots) the sum over characters takes over where the kernel is nowhere below exp(-_DEPTH) of its peak.
_DEPTH = 9.0
# Points on half of the circle around a point where eigenvalues meet; the other half is the complex conjugate. The
# mean of 24 points is wrong by a^24 / 24!, where exp(a) bounds the change of the kernel: 6e-15 for a = _STEEPEST.
_HALF_CIRCLE = 12
_STEEPEST = 2.5
# Direction in which eigenvalues are looked for first; any angle that is no simple fraction of a turn will do.
_SLANT = 1.1
# Numbers in one temporary array.
_BLOCK = 200_000


class _Torus(NamedTuple):
    """The maximal torus of a group."""

    roots: np.ndarray    # (p, r): positive roots
    delta: np.ndarray    # (r,): half their sum
    turns: np.ndarray    # basis of the lattice of angles that are no rotation, in turns
    weights: np.ndarray  # basis of the lattice of weights
    algebra: np.ndarray  # (d, n, n): orthonormal basis of the Lie algebra


class _Plan(NamedTuple):
    """What the sum over a lattice needs at one time."""

    characters: bool     # whether it is the sum over characters
    vectors: np.ndarray  # (L, r): gamma, shortest first, or mu
    weight: np.ndarray   # (L,): the sign, or exp(-(|mu|^2 - |delta|^2) t/2) prod <alpha, mu> / <alpha, delta>
    radius: float        # of the circle
    log_head: float      # log of the constant in front


@lru_cache(maxsize=32)
def _torus(group):
    roots, turns, weights, algebra = group._structure()
    return _Torus(roots, 0.5 * roots.sum(axis=0), turns, weights, algebra)


def _lattice(basis, shift, radius):
    """Return the points k @ basis + shift, k integer, of norm at most `radius`, shortest first; shape (L, r)."""
    reach = radius + sqrt(shift @ shift)
    bounds = np.floor(reach * np.sqrt((np.linalg.pinv(basis) ** 2).sum(axis=0)) + 1e-9).astype(int)
    k = np.array(list(itertools.product(*(range(-b, b + 1) for b in bounds))), dtype=float)
    points = k @ basis + shift
    square = np.einsum("lr,lr->l", points, points)
    order = np.argsort(square, kind="stable")
    return points[order[square[order] <= radius * radius * (1 + 1e-12)]]


def _geodesics(group, t):
    """Return the gamma that count at some h at time t; shape (L, r)."""
    far, turns = group._farthest, _torus(group).turns
    return 2 * pi * _lattice(turns, np.zeros(turns.shape[1]), (far + sqrt(far * far + 2 * _FALL * t)) / (2 * pi))


@lru_cache(maxsize=64)
def _plan(group, t):
    """Choose the sum for a time, and list its lattice points."""
    if not t > 0:
        raise ValueError(f"time t = {t!r} must be positive")
    roots, delta, _, weights, _ = _torus(group)
    square, far = float(delta @ delta), group._farthest
    # The sum over geodesics loses a factor exp(|delta|^2 t/2) of accuracy, that over characters exp(far^2 / 2t).
    if t < (far / sqrt(square) if square else far * far / (2 * _DEPTH)):
        vectors = _geodesics(group, t)
        odd = np.rint(vectors @ roots.T / (2 * pi)).sum(axis=1) % 2
        steep = pi * np.abs(delta).sum() / t + sqrt(square / t) + 1 + len(roots)
        return _Plan(False, vectors, 1.0 - 2.0 * odd, _STEEPEST / steep,
                     0.5 * square * t - 0.5 * group.dim * log(2 * pi * t))
    vectors = _lattice(weights, delta, sqrt(square + 2 * (_FALL + 2 * len(roots)) / t))
    # the products are halves of integers; those on a mirror, which may be shorter than delta, have the weight zero
    products = 0.5 * np.rint(2 * vectors @ roots.T)
    vectors, products = (a[(products != 0).all(axis=1)] for a in (vectors, products))
    weight = np.exp(-0.5 * t * (_square(vectors) - square)) * np.prod(products / (delta @ roots.T), axis=1)
    counts = np.abs(weight) > exp(-_FALL)
    steep = sqrt(square) * (sqrt(square) + 3 / sqrt(t)) + 1
    return _Plan(True, vectors[counts], weight[counts], _STEEPEST / steep, -group.log_volume)


def _adjoint(M):
    return np.conj(np.swapaxes(M, -1, -2))


def _square(h):
    return np.einsum("...r,...r->...", h, h)


def _log_spread(x):
    """Return log((x/2) / sin(x/2)) and its slope, which is x/12 + ... near zero; shape of x."""
    s = x * x
    series = x * (1 / 12 + s * (1 / 720 + s * (1 / 30240 + s * (1 / 1209600 + s / 47900160))))
    y = np.where(np.abs(x) < 0.3, 1.0, x)
    return -np.log(np.sinc(x / (2 * pi))), np.where(np.abs(x) < 0.3, series, 1 / y - 0.5 / np.tan(0.5 * y))


class _Group(Manifold):
    """What the three families share. A tangent vector at x is x A, with A in the Lie algebra."""

    kernel = "pairs"
    is_homogeneous = True
    _sizes: tuple[int, int]   # smallest and largest n
    _complex = True           # whether matrices are complex
    _unit = 1.0               # embedded coordinates are the numbers of the matrix times this

    def __post_init__(self):
        object.__setattr__(self, "n", parameter("n", self.n, whole=True))
        low, high = self._sizes
        if not low <= self.n <= high:
            raise ValueError(f"n = {self.n!r} must be between {low} and {high}: the group of smaller matrices is "
                             "trivial, and the heat kernel of larger ones is a sum over too many points of a lattice")

    # what a family says about itself

    @abstractmethod
    def _structure(self):
        """Return roots, turns, weights and algebra of :class:`_Torus`."""

    @abstractmethod
    def _fold(self, theta):
        """Return the angles h, (N, r), of shortest length, for the angles of the n eigenvalues, (N, n)."""

    def _unfold(self, theta, slope):
        """Return the slope in the angle of each eigenvalue, (N, n), for that in h, (N, r)."""
        return slope

    @property
    @abstractmethod
    def _farthest(self):
        """Largest distance of two points."""

    def _into_group(self, Q):
        """Carry unitary matrices into the group, uniform ones to uniform ones."""
        return Q

    def _wrong_component(self, Q):
        """Say which unitary matrices have no nearest element of the group; shape (N,)."""
        return np.zeros(len(Q), dtype=bool)

    # sizes

    def factors(self):
        return ()

    @property
    def point_shape(self):
        return (2, self.n, self.n) if self._complex else (self.n, self.n)

    @property
    def embed_dim(self):
        return int(np.prod(self.point_shape))

    @property
    def volume(self):
        return exp(self.log_volume)

    @property
    def scalar_curvature(self):
        return 6.0 * float(_square(_torus(self).delta))

    @property
    def scales(self):
        roots = _torus(self).roots
        # the longest root spans a sphere S^3 of radius 2 / |root|
        return (2 / sqrt(_square(roots).max()) if len(roots) else 1.0,)

    def log_error(self, t):
        """Bound the error of a log kernel at time `t` near its peak: rounding only, the kernel is exact."""
        root = sqrt(_square(_torus(self).delta))
        return 1e-14 * exp(0.5 * root * min(root * t, self._farthest))

    # points

    def _matrices(self, Z):
        Z = np.asarray(Z, dtype=float) / self._unit
        Z = Z.reshape(*Z.shape[:-1], *self.point_shape)
        return Z[..., 0, :, :] + 1j * Z[..., 1, :, :] if self._complex else Z

    def _numbers(self, M):
        """Undo `_matrices`."""
        Z = np.stack([M.real, M.imag], axis=-3) if self._complex else M.real
        return self._unit * Z.reshape(*M.shape[:-2], self.embed_dim)

    def _read(self, X):
        return self._unit * np.asarray(X, dtype=float).reshape(-1, self.embed_dim)

    def embed(self, X):
        return self.project(self._read(X))

    def unembed(self, Z):
        return self.project(Z).reshape(-1, *self.point_shape) / self._unit

    def push_tangent(self, X, V):
        return np.asarray(V, dtype=float).reshape(-1, *self.point_shape) / self._unit

    def violation(self, X):
        M = self._matrices(self._read(X))
        with np.errstate(over="ignore", invalid="ignore"):
            gram = np.abs(_adjoint(M) @ M - np.eye(self.n)).max(axis=(1, 2))
            # the determinant, its size left out, compared with that in the group; of matrices of bounded size
            near = np.where((gram < 1)[:, None, None], M, np.eye(self.n))
            det = np.linalg.det(near) / np.linalg.det(self._into_group(near.copy()))
        return np.where(gram < 1, np.maximum(gram, np.abs(det - 1)), np.where(gram >= 1, gram, np.inf))

    def project(self, Z):
        M = self._matrices(Z).reshape(-1, self.n, self.n)
        lost = ~np.isfinite(M).all(axis=(1, 2))
        U, s, V = np.linalg.svd(np.where(lost[:, None, None], 0.0, M))
        Q = U @ V
        lost |= (s[:, -1] <= 1e-12 * s[:, 0]) | self._wrong_component(Q)
        return np.where(lost[:, None], np.nan, self._numbers(self._into_group(Q))).reshape(np.shape(Z))

    # geometry

    def _between(self, Z, W):
        """Return x^{-1} y for all pairs of rows, as a list of matrices (N, n, n), and the shape of the rows."""
        M = _adjoint(self._matrices(Z)) @ self._matrices(W)
        return M.reshape(-1, self.n, self.n), M.shape[:-2]

    def _diagonal(self, M, tolerance=1e-13):
        """Return the angles (N, n) and an orthonormal basis of eigenvectors (N, n, n) of unitary matrices.

        The vectors are eigenvectors up to `tolerance`, or rounding; the angles to its square.
        """
        def look(M, slant):
            S = np.exp(-1j * slant)[:, None, None] * M
            U = np.linalg.eigh(0.5 * (S + _adjoint(S)))[1]  # commutes with M
            T = _adjoint(U) @ M @ U
            theta = np.angle(np.einsum("nii->ni", T))
            T[:, range(self.n), range(self.n)] = 0.0
            return theta, U, np.abs(T).max(axis=(1, 2))

        theta, U, off = look(M, np.full(len(M), _SLANT))
        # The Hermitian part along a slant does not tell apart two eigenvalues that mirror each other in it. Where
        # there are such, take the slant furthest from all mirrors.
        blurred = np.flatnonzero(off > tolerance * self.n)
        if blurred.size:
            exact = np.angle(np.linalg.eigvals(M[blurred]))
            i, j = np.triu_indices(self.n, 1)
            mirrors = np.sort(np.mod(0.5 * (exact[:, i] + exact[:, j]), pi), axis=1)
            gaps = np.diff(mirrors, axis=1, append=mirrors[:, :1] + pi)
            slants = np.take_along_axis(mirrors + 0.5 * gaps, gaps.argmax(axis=1)[:, None], axis=1)
            theta[blurred], U[blurred], _ = look(M[blurred], slants[:, 0])
        return theta, U

    def _skew(self, A):
        """Return the nearest elements of the Lie algebra."""
        return 0.5 * (A - _adjoint(A))

    def _exponential(self, A):
        lam, U = np.linalg.eigh(-1j * A)
        return (U * np.exp(1j * lam)[..., None, :]) @ _adjoint(U)

    def _logarithm(self, M):
        """Return shortest logarithms of matrices (N, n, n)."""
        theta, U = self._diagonal(M, tolerance=5e-15)
        return self._skew((U * (1j * self._fold(theta))[:, None, :]) @ _adjoint(U))

    def to_tangent(self, Z, V):
        X = self._matrices(Z)
        return self._numbers(X @ self._skew(_adjoint(X) @ self._matrices(V)))

    def exp(self, Z, V):
        X = self._matrices(Z)
        return self.project(self._numbers(X @ self._exponential(self._skew(_adjoint(X) @ self._matrices(V)))))

    def log(self, Z, W):
        M, shape = self._between(Z, W)
        return self._numbers(self._matrices(Z) @ self._logarithm(M).reshape(*shape, self.n, self.n))

    def dist(self, Z, W):
        M, shape = self._between(Z, W)
        r = np.sqrt(_square(self._fold(self._diagonal(M)[0]))).reshape(shape)
        return np.where((np.asarray(Z) == np.asarray(W)).all(axis=-1), 0.0, r)

    def frame(self, Z):
        return self._numbers(self._matrices(Z)[..., None, :, :] @ _torus(self).algebra)

    def random(self, n, rng):
        """Draw n uniform embedded points (Haar measure); shape (n, embed_dim)."""
        Q, R = np.linalg.qr(self._matrices(rng.standard_normal((n, self.embed_dim))))
        phase = np.einsum("nii->ni", R)
        return self._numbers(self._into_group(Q * (phase / np.abs(phase))[:, None, :]))

    # heat kernel

    def log_heat_kernel(self, Z, W, t):
        M, shape = self._between(Z, W)
        return self._log_kernel(self._fold(self._diagonal(M)[0]), t, 0)[0].reshape(shape)

    def pair_invariants(self, X, Y):
        """Return the angles h of all pairs of embedded points; shape (q, n, r)."""
        M, shape = self._between(np.asarray(X)[:, None, :], np.asarray(Y)[None, :, :])
        return self._fold(self._diagonal(M)[0]).reshape(*shape, -1)

    def log_kernel_of_invariants(self, h, t):
        """Return log k for the result of `pair_invariants`; shape (q, n)."""
        return self._log_kernel(h.reshape(-1, h.shape[-1]), t, 0)[0].reshape(h.shape[:-1])

    def pair_kernel(self, X, Y, t, order):
        X = np.asarray(X)[:, None, :]
        M, shape = self._between(X, np.asarray(Y)[None, :, :])
        theta, U = self._diagonal(M)
        log_k, slope, ratio = self._log_kernel(self._fold(theta), t, order)
        if order:
            # moving x by exp(A) moves x^{-1} y by exp(-A)
            A = (U * (-1j * self._unfold(theta, slope))[:, None, :]) @ _adjoint(U)
            slope = self._numbers(self._matrices(X) @ self._skew(A).reshape(*shape, self.n, self.n))
        return log_k.reshape(shape), slope, None if ratio is None else ratio.reshape(shape)

    def _log_kernel(self, h, t, order):
        """Return log k, its slopes in h (order >= 1) and (Laplacian of k) / k (order 2) at angles h, shape (N, r).

        The Laplacian is twice the slope in t, by the heat equation.
        """
        plan = _plan(self, float(t))
        roots, delta, *_ = _torus(self)
        square = _square(h)
        # one geodesic: what is left of the sum where no other counts
        log_k = plan.log_head - (np.zeros(len(h)) if plan.characters else square / (2 * t))
        slope = -h / t
        ratio = square / t**2 - self.dim / t + _square(delta)
        near = np.ones(len(h), dtype=bool)
        if not plan.characters:
            # the next one is by a shortest gamma; dividing by small sines it may gain a factor of 1/t for each root
            length = _square(plan.vectors)
            short = plan.vectors[1:][length[1:] < 1.01 * length[1]]
            gap = (length[1] + 2 * (h @ short.T).min(axis=1)) / (2 * t)
            near = gap < _FALL + len(roots) * np.log1p(_FALL / t)
            log_spread, spread_slope = _log_spread(h[~near] @ roots.T)
            log_k[~near] += log_spread.sum(axis=1)
            slope[~near] += spread_slope @ roots
        rows = np.flatnonzero(near)
        value, first, second = self._sum(h[rows], t, order, plan)
        log_k[rows] += np.log(value)
        if order:
            slope[rows] = first / value[:, None]
            ratio[rows] = second / value
        return log_k, slope if order else None, ratio if order > 1 else None

    def _sum(self, h, t, order, plan):
        """Return the sum over the lattice divided by the sines, its gradient in h and twice its slope in t."""
        roots, delta, *_ = _torus(self)
        out = np.empty(len(h)), np.zeros(h.shape), np.zeros(len(h))
        sine = np.abs(2 * np.sin(0.5 * (h @ roots.T))).min(axis=1, initial=np.inf)
        circle = plan.radius * np.exp(1j * pi * (np.arange(_HALF_CIRCLE) + 0.5) / _HALF_CIRCLE)
        for rows, offsets in ((np.flatnonzero(sine >= plan.radius), np.zeros(1)),
                              (np.flatnonzero(sine < plan.radius), circle)):
            size = max(1, _BLOCK // (len(offsets) * len(plan.weight)))
            for start in range(0, rows.size, size):
                block = rows[start:start + size]
                z = (h[block, None, :] + offsets[:, None] * delta).reshape(-1, h.shape[1])
                found = self._terms(z, np.repeat(h[block], len(offsets), axis=0), t, order, plan)
                for total, values in zip(out, found, strict=False):
                    total[block] = values.reshape(len(block), len(offsets), *total.shape[1:]).real.mean(axis=1)
        return out

    def _terms(self, z, h, t, order, plan):
        """Evaluate `_sum` at complex angles z; the sum over geodesics relative to exp(-|h|^2 / 2t)."""
        roots, delta, *_ = _torus(self)
        V, x = plan.vectors, z @ roots.T
        if plan.characters:
            w = plan.weight * np.exp(1j * (z @ V.T)) * (-1j) ** len(roots)
        else:
            square = 2 * z @ V.T + _square(V) + np.einsum("nr,nr->n", z - h, z + h)[:, None]  # |z + gamma|^2 - |h|^2
            w = plan.weight * np.exp(square / (-2 * t))
            shift = V @ roots.T
            for a in range(len(roots)):
                w *= x[:, a, None] + shift[:, a]
        sines = np.prod(2 * np.sin(0.5 * x), axis=1)
        value = w.sum(axis=1) / sines
        if not order:
            return (value,)
        if plan.characters:
            first = 1j * (w @ V)
            second = w @ (_square(delta) - _square(V))
        else:
            first = (w @ V + w.sum(axis=1)[:, None] * z) / -t
            for a, root in enumerate(roots):
                first += (w / (x[:, a, None] + shift[:, a])).sum(axis=1)[:, None] * root
            square += _square(h)[:, None]
            second = (w * (square / t**2 - self.dim / t + _square(delta))).sum(axis=1)
        first = first / sines[:, None] - value[:, None] * ((0.5 / np.tan(0.5 * x)) @ roots)
        return value, first, second / sines

    # sampling

    def heat_sample(self, Z, t, rng):
        r"""Draw one exact step of Brownian motion from each point.

        Parameters and result as for :func:`rdks.sampling.heat_sample`.

        Notes
        -----
        Rejection, with no discretisation in time. The exponential of a normal element of the Lie algebra has the
        density :math:`q=(2\pi t)^{-d/2}\sum_\gamma e^{-|h+\gamma|^2/2t}\prod_\alpha
        (\frac{\alpha(h+\gamma)}2/\sin\frac{\alpha(h)}2)^2`. Term by term, :math:`k_t\le e^{|\delta|^2t/2}q`, so a draw
        is accepted with probability :math:`k_t/(e^{|\delta|^2t/2}q)`, on average :math:`e^{-|\delta|^2t/2}`. Long
        times are several steps.
        """
        half = 0.5 * float(_square(_torus(self).delta))
        out = np.array(Z, dtype=float)
        times, which = np.unique(np.broadcast_to(np.asarray(t, dtype=float), len(out)), return_inverse=True)
        for b, time in enumerate(times):
            rows = np.flatnonzero(which == b)
            if 0.5 * self.smallest_eigenvalue * time > _FALL:  # uniform to the last digit
                out[rows] = self.random(rows.size, rng)
            elif time > 0:
                steps = max(1, ceil(half * time))
                for _ in range(steps):
                    out[rows] = self._step(out[rows], float(time) / steps, rng)
        return out

    def _step(self, Z, t, rng):
        """Draw a step of a time so short that at least one draw in three is accepted."""
        algebra = _torus(self).algebra
        moves = np.empty((len(Z), self.n, self.n), dtype=complex)
        pending = np.arange(len(Z))
        while pending.size:
            A = sqrt(t) * np.einsum("nd,dij->nij", rng.standard_normal((pending.size, self.dim)), algebra)
            M = self._exponential(A)
            accept = rng.uniform(size=pending.size) < self._acceptance(self._fold(self._diagonal(M)[0]), t)
            moves[pending[accept]] = M[accept]
            pending = pending[~accept]
        return self.project(self._numbers(self._matrices(Z) @ moves))

    def _acceptance(self, h, t):
        """Return k / (exp(|delta|^2 t/2) q) of `heat_sample` at angles h."""
        roots, delta, *_ = _torus(self)
        x = h @ roots.T
        log_q = np.full(len(h), -np.inf)
        with np.errstate(divide="ignore"):
            for gamma in _geodesics(self, t):
                log_q = np.logaddexp(log_q, 2 * np.log(np.abs(x + roots @ gamma)).sum(axis=1)
                                     - (2 * h @ gamma + gamma @ gamma) / (2 * t))
            log_q -= 2 * np.log(np.abs(2 * np.sin(0.5 * x))).sum(axis=1)
        log_k = self._log_kernel(h, t, 0)[0] + _square(h) / (2 * t) + 0.5 * self.dim * log(2 * pi * t)
        return np.exp(log_k - 0.5 * _square(delta) * t - log_q)


def _unit_matrices(n, pairs):
    """Return E_ij, the matrices with a one at (i, j), for the index arrays `pairs`; shape (count, n, n)."""
    eye = np.eye(n)
    return eye[pairs[0]][:, :, None] * eye[pairs[1]][:, None, :]


def _unitary_structure(n):
    """Return the roots of U(n) and SU(n), and the part of the Lie algebra off the diagonal."""
    i, j = np.triu_indices(n, 1)
    E = sqrt(0.5) * _unit_matrices(n, (i, j))
    return np.eye(n)[i] - np.eye(n)[j], np.concatenate([E - _adjoint(E), 1j * (E + _adjoint(E))])


@dataclass(frozen=True)
class SpecialOrthogonal(_Group):
    r"""Rotations of n-dimensional space: orthogonal matrices of determinant 1.

    Parameters
    ----------
    n : int
        Size of the matrices, 2 to 6. For n = 3, :class:`SO3` has more charts and is faster.

    Notes
    -----
    The metric is :math:`|xA|^2=\tfrac12\|A\|_F^2`: a rotation has one angle in each of :math:`\lfloor n/2\rfloor`
    planes, and distances are the root of the sum of their squares, for n = 3 the angle of rotation. The volume is
    that of :math:`S^1\times\dots\times S^{n-1}`.

    Points are matrices, (n, n) or flattened. Scores are xA, written as matrices; their Frobenius norm is
    :math:`\sqrt2` times the Riemannian one. ``check_points="project"`` takes the nearest rotation;
    a matrix of negative determinant has none here. At a rotation by :math:`\pi` the shortest geodesic is
    not unique, and `log` returns one.

    The kernel is exact: its logarithm has been compared with sums in 180 digits at random and at degenerate pairs, for
    t from 1e-3 to 10: error below 3e-15 of max(1, |log k|) for n <= 4, and 3e-13 for n = 5 and 6.

    References
    ----------
    L. D. Eskin, "The heat equation and the Weinstein transform on symmetric spaces", 1968; H. Urakawa, "The heat
    equation on a compact Lie group", Osaka J. Math. 12 (1975), for the sum over geodesics; H. Weyl, for the characters.
    The mean over a circle, and the rejection sampler: derived here.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.manifolds import SpecialOrthogonal
    >>> group = SpecialOrthogonal(4)
    >>> group.dim, group.point_shape
    (6, (4, 4))
    >>> Z = group.embed(np.array([np.eye(4), np.diag([-1.0, -1.0, 1.0, 1.0])]))
    >>> round(float(group.dist(Z[:1], Z[1:])[0] / np.pi), 12)
    1.0
    """

    n: int = 3

    _sizes = (2, 6)
    _complex = False
    _unit = sqrt(0.5)

    @property
    def dim(self):
        return self.n * (self.n - 1) // 2

    def _structure(self):
        r = self.n // 2
        eye = np.eye(r)
        i, j = np.triu_indices(r, 1)
        roots = np.concatenate([eye[i] - eye[j], eye[i] + eye[j], eye if self.n % 2 else eye[:0]])
        E = _unit_matrices(self.n, np.triu_indices(self.n, 1))
        return roots, eye, eye, E - _adjoint(E)

    @property
    def _farthest(self):
        return pi * sqrt(self.n // 2)

    def _planes(self, theta):
        """Return the places of one eigenvalue of each plane, and of its conjugate; shapes (N, r)."""
        order = np.argsort(-np.abs(theta), axis=1)
        r = self.n // 2
        return order[:, 0:2 * r:2], order[:, 1:2 * r:2]

    def _fold(self, theta):
        return np.take_along_axis(np.abs(theta), self._planes(theta)[0], axis=1)

    def _unfold(self, theta, slope):
        out = np.zeros_like(theta)
        for places in self._planes(theta):
            np.put_along_axis(out, places, slope, axis=1)
        return out * np.sign(theta)

    def _logarithm(self, M):
        theta, U = self._diagonal(M, tolerance=5e-15)
        A = self._skew(((U * (1j * theta)[:, None, :]) @ _adjoint(U)).real)
        # near half a turn, conjugate eigenvectors mix and the real part is lost
        for row in np.flatnonzero(np.abs(theta).max(axis=1) > pi - 1e-6):
            A[row] = _real_logarithm(M[row])
        return A

    def _wrong_component(self, Q):
        return np.linalg.det(Q) < 0

    def _into_group(self, Q):
        Q[..., 0] *= np.sign(np.linalg.det(Q))[:, None]
        return Q

    def constraint(self):
        return "the largest entry of | X^T X - 1 |, or | det X - 1 | = 2 for a reflection,"

    def remedy(self):
        return ("Columns must be orthonormal and right-handed: a matrix of determinant -1 is a reflection; check the "
                "order and the signs of the axes. check_points='project' takes the nearest rotation to a matrix of "
                "positive determinant.")

    @property
    def log_volume(self):
        return sum(log(2) + 0.5 * (k + 1) * log(pi) - lgamma(0.5 * (k + 1)) for k in range(1, self.n))

    @property
    def smallest_eigenvalue(self):
        return self.n - 1.0  # of the entries of the matrix

    @property
    def injectivity_radius(self):
        return pi


def _real_logarithm(M):
    """Return a shortest skew-symmetric logarithm of a rotation (n, n), also with eigenvalues -1."""
    from scipy.linalg import schur
    T, Q = schur(M, output="real")
    A = np.zeros_like(T)
    half_turns = []
    k = 0
    while k < len(T):
        if k + 1 < len(T) and T[k + 1, k] != 0:
            A[k + 1, k] = np.arctan2(T[k + 1, k] - T[k, k + 1], T[k, k] + T[k + 1, k + 1])
            k += 2
        else:
            half_turns += [k] if T[k, k] < 0 else []
            k += 1
    A[half_turns[1::2], half_turns[0::2]] = pi  # they come in pairs, the determinant being 1
    return Q @ (A - A.T) @ Q.T


@dataclass(frozen=True)
class Unitary(_Group):
    r"""Unitary matrices U(n).

    Parameters
    ----------
    n : int
        Size of the matrices, 1 to 4.

    Notes
    -----
    The metric is :math:`|xA|^2=\|A\|_F^2`, so that distances are the root of the sum of the squared angles of the
    eigenvalues of :math:`x^{-1}y`: U(1) is the circle of length :math:`2\pi`.

    Points are real arrays of shape (2, n, n), the real part first, or flattened: for complex matrices
    U, (N, n, n), pass ``np.stack([U.real, U.imag], axis=1)``. Scores are xA, written likewise, with the Frobenius norm.

    The kernel is exact, see :class:`SpecialOrthogonal` for the sources: error of its logarithm below 3e-15 of
    max(1, |log k|) for n <= 3 and 1e-12 for n = 4.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.manifolds import Unitary
    >>> U = np.array([np.eye(2), np.diag([1j, 1])])
    >>> group = Unitary(2)
    >>> Z = group.embed(np.stack([U.real, U.imag], axis=1))
    >>> round(float(group.dist(Z[:1], Z[1:])[0] / np.pi), 12)
    0.5
    """

    n: int = 2

    _sizes = (1, 4)

    @property
    def dim(self):
        return self.n * self.n

    def _structure(self):
        roots, off_diagonal = _unitary_structure(self.n)
        eye = np.eye(self.n)
        return roots, eye, eye, np.concatenate([1j * eye[:, :, None] * eye, off_diagonal])

    @property
    def _farthest(self):
        return pi * sqrt(self.n)

    def _fold(self, theta):
        return theta

    def constraint(self):
        return "the largest entry of | X^* X - 1 |"

    def remedy(self):
        return ("Points are real arrays, (2, n, n): np.stack([U.real, U.imag], axis=1) for complex matrices U. "
                "check_points='project' takes the nearest unitary matrix.")

    @property
    def log_volume(self):
        return 0.5 * self.n * (self.n + 1) * log(2 * pi) - sum(lgamma(k) for k in range(1, self.n + 1))

    @property
    def smallest_eigenvalue(self):
        return float(self.n)  # of the entries of the matrix

    @property
    def injectivity_radius(self):
        return pi


@dataclass(frozen=True)
class SpecialUnitary(_Group):
    r"""Unitary matrices of determinant 1, SU(n).

    Parameters
    ----------
    n : int
        Size of the matrices, 2 to 4. For n = 2, :class:`SU2` has more charts and is faster.

    Notes
    -----
    The metric is that of :class:`Unitary`, :math:`|xA|^2=\|A\|_F^2`. SU(2) is then the sphere :math:`S^3` of radius
    :math:`\sqrt2`; divide lengths by :math:`\sqrt2`, and times by 2, for the unit sphere.

    Points and scores are written as for :class:`Unitary`. ``check_points="project"`` takes the nearest unitary matrix
    and divides it by the root of its determinant that is nearest to 1. Error of the log kernel: below 3e-14 of
    max(1, |log k|) for n <= 3 and 1e-12 for n = 4.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.manifolds import SpecialUnitary
    >>> group = SpecialUnitary(2)
    >>> U = np.array([np.eye(2), -np.eye(2)])  # antipodes of the sphere
    >>> Z = group.embed(np.stack([U, 0 * U], axis=1))
    >>> round(float(group.dist(Z[:1], Z[1:])[0] / np.pi) ** 2, 12)
    2.0
    """

    n: int = 2

    _sizes = (2, 4)

    @property
    def dim(self):
        return self.n * self.n - 1

    def _structure(self):
        roots, off_diagonal = _unitary_structure(self.n)
        eye, k = np.eye(self.n), np.arange(1, self.n)[:, None]
        # diagonal matrices of trace zero: (1, ..., 1, -k, 0, ..., 0)
        D = (np.tri(self.n - 1, self.n) - k * np.eye(self.n - 1, self.n, 1)) / np.sqrt(k * (k + 1))
        return (roots, eye[:-1] - eye[1:], eye[:-1] - 1 / self.n,
                np.concatenate([1j * D[:, :, None] * eye, off_diagonal]))

    @property
    def _farthest(self):
        k = self.n // 2
        return 2 * pi * sqrt(k * (self.n - k) / self.n)

    def _fold(self, theta):
        # The angles sum to whole turns; shift the largest so that they sum to zero. Each by one at most.
        turns = np.rint(theta.sum(axis=1) / (2 * pi))[:, None]
        rank = np.argsort(np.argsort(-np.sign(turns) * theta, axis=1), axis=1)
        h = theta - 2 * pi * np.sign(turns) * (rank < np.abs(turns))
        return h - h.mean(axis=1, keepdims=True)

    def _skew(self, A):
        A = 0.5 * (A - _adjoint(A))
        return A - np.einsum("...ii->...", A)[..., None, None] * np.eye(self.n) / self.n

    def _into_group(self, Q):
        return Q * np.exp(-1j / self.n * np.angle(np.linalg.det(Q)))[:, None, None]

    def constraint(self):
        return "the largest entry of | X^* X - 1 |, or | det X - 1 |"

    def remedy(self):
        return ("Points are real arrays, (2, n, n): np.stack([U.real, U.imag], axis=1) for complex matrices U, whose "
                "determinant must be 1. check_points='project' takes the nearest unitary matrix and divides it by a "
                "root of its determinant.")

    @property
    def log_volume(self):
        return Unitary(self.n).log_volume + 0.5 * log(self.n) - log(2 * pi)

    @property
    def smallest_eigenvalue(self):
        return (self.n**2 - 1) / self.n  # of the entries of the matrix

    @property
    def injectivity_radius(self):
        return pi * sqrt(2)
