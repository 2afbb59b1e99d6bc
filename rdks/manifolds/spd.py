r"""Symmetric positive definite matrices, with two metrics.

The affine-invariant metric and its heat kernel
-----------------------------------------------
With :math:`\langle A,B\rangle_X=\operatorname{tr}X^{-1}AX^{-1}B` every map :math:`X\mapsto gXg^\top` is an isometry. Up
to these, a pair of points is known by the logarithms :math:`h_1\ge\dots\ge h_n` of the eigenvalues of
:math:`X^{-1}Y`; the squared distance is :math:`\sum h_i^2`, and in these coordinates

.. math:: \Delta f=\sum_if_{ii}+\tfrac12\sum_{i<j}\coth\frac{h_i-h_j}2\,(f_i-f_j),\qquad
          dV\propto\prod_{i<j}\sinh\frac{h_i-h_j}2\,dh .

For n = 2 the space is a line times a hyperbolic plane of curvature -1/2, and the kernel is exact. For n > 2 write
:math:`k_t=(2\pi t)^{-m/2}e^{-|h|^2/2t}\prod_{i<j}\bigl(\frac{\delta_{ij}/2}{\sinh\delta_{ij}/2}\bigr)^{1/2}\Phi_t`,
with :math:`\delta_{ij}=h_i-h_j` and :math:`m=n(n+1)/2`. The heat equation for :math:`\Phi` has the potential

.. math:: -\frac{n(n^2-1)}{96}+\sum_{i<j}\Bigl(\frac1{16\sinh^2(\delta_{ij}/2)}-\frac1{4\delta_{ij}^2}\Bigr),

a sum over pairs. So we take for :math:`\Phi` the product over pairs of the exact solutions for n = 2:

.. math:: \log k_t\approx-\frac{|h|^2}{2t}+\sum_{i<j}F_{t/2}\Bigl(\frac{\delta_{ij}}2\Bigr)+\frac{n(n-3)}4\log2\pi t
          -\frac{n(n-1)}2\log2-\frac{n(n-1)(n-2)}{96}\,t,

where :math:`F_\tau(r)=\log p_\tau(r)+r^2/2\tau` comes from the kernel of the hyperbolic plane of curvature -1. This is
exact for n = 2, has the first coefficient of the expansion in t right at all distances, and the right powers of
times and distances where they are large. Only triples of eigenvalues make an error, near the peak
:math:`-\binom n3\,t^2/1920` in log k to leading order.
"""
from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, comb, log, pi, sqrt

import numpy as np
from numpy.polynomial import chebyshev

from .. import heat
from .base import Manifold, SpaceForm, parameter

__all__ = ["SPD"]

_METRICS = ("log_euclidean", "affine_invariant")
# Largest estimated error of a log kernel that is not refused.
_MEANINGLESS = 1.0
# Ratio of singular values below which digits of the small ones need care.
_WIDE = 1e-5
# Two eigenvalues that are closer count as equal in the Laplacian, where their difference would be divided by.
_EQUAL = 1e-5


def _transpose(M):
    return np.swapaxes(M, -1, -2)


@dataclass(frozen=True, repr=False)
class SPD(Manifold):
    r"""Symmetric positive definite n x n matrices.

    Parameters
    ----------
    n : int
        Size of the matrices.
    metric : {"log_euclidean", "affine_invariant"}
        The metric; both have their own distances, volumes and densities.

    Notes
    -----
    **Log-Euclidean.** The matrix logarithm is an isometry onto the symmetric matrices with the Frobenius norm:
    :math:`d(X,Y)=\|\log X-\log Y\|_F`. The space is flat, so the heat kernel is a Gaussian in
    logarithms and exact. Scores are symmetric matrices, the tangent vectors at X: the gradient in logarithms carried by
    the differential of the matrix exponential, :math:`U(\Gamma\circ U^\top WU)U^\top` with
    :math:`\Gamma_{ij}=(\lambda_i-\lambda_j)/(\log\lambda_i-\log\lambda_j)`.

    **Affine-invariant.** :math:`\langle A,B\rangle_X=\operatorname{tr}X^{-1}AX^{-1}B` and
    :math:`d(X,Y)=\|\log X^{-1/2}YX^{-1/2}\|_F`: data and their images under :math:`X\mapsto gXg^\top` have the same
    densities. The space is negatively curved, between -1/2 and 0. The heat kernel is exact for n = 1 and n = 2, and
    for n > 2 a product over pairs of eigenvalues, off by about :math:`\binom n3t^2/1920` in log k near its peak
    (`log_error`): for n = 3, 2e-5 at a bandwidth of 0.45 and 5e-4 at a bandwidth of 1; see
    :mod:`rdks.manifolds.spd`. Times at which the error exceeds 1 are refused. Scores are symmetric matrices, the
    Riemannian gradients :math:`X\,\partial\log p\,X`.

    Points are held as points of a half-plane (n = 2) or as Cholesky factors (n > 2), not as logarithms of small
    eigenvalues, so that ill-conditioned matrices lose no digits that their entries have. Densities are with respect to
    the volume of the metric.

    References
    ----------
    Arsigny, Fillard, Pennec and Ayache, SIAM J. Matrix Anal. Appl. 29 (2007) 328, theorem 3.8 for
    the log-Euclidean metric; Daleckii-Krein for the differential; Terras, Harmonic Analysis on Symmetric Spaces,
    volume 2, for the affine-invariant one. The kernel for n > 2: derived here.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.manifolds import SPD
    >>> Z = SPD(2).embed(np.array([np.eye(2), np.diag([np.e, 1.0])]))
    >>> round(float(SPD(2).dist(Z[:1], Z[1:])[0]), 12)
    1.0
    >>> space = SPD(3, metric="affine_invariant")
    >>> Z = space.embed(np.array([np.eye(3), np.e * np.eye(3)]))
    >>> round(float(space.dist(Z[:1], Z[1:])[0] ** 2), 12)
    3.0
    >>> space.exactness, bool(space.log_error(0.2) < 2.1e-5)
    ('asymptotic', True)
    """

    n: int = 2
    metric: str = "log_euclidean"

    def __new__(cls, n=2, metric="log_euclidean"):
        if cls is SPD and metric == "affine_invariant":
            n = parameter("n", n, whole=True)
            if n > 1:  # one number: both metrics are that of its logarithm
                cls = AffineInvariantPlane if n == 2 else AffineInvariantSPD
        return super().__new__(cls)

    def __post_init__(self):
        object.__setattr__(self, "n", parameter("n", self.n, whole=True))
        if self.metric not in _METRICS:
            raise ValueError(f"metric = {self.metric!r} is not one of {_METRICS}")

    def __repr__(self):
        return f"SPD(n={self.n!r}, metric={self.metric!r})"

    @property
    def dim(self):
        return self.n * (self.n + 1) // 2

    @property
    def point_shape(self):
        return (self.n, self.n)

    def factors(self):
        return (SpaceForm(self.dim),)

    def _symmetric(self, X):
        X = np.asarray(X, dtype=float).reshape(-1, self.n, self.n)
        return 0.5 * (X + _transpose(X))

    def _coordinates(self, S):
        """Write symmetric matrices as vectors with the same norm: off-diagonal entries times sqrt(2)."""
        i, j = np.triu_indices(self.n)
        return S[..., i, j] * np.where(i == j, 1.0, np.sqrt(2.0))

    def _matrices(self, V):
        """Undo `_coordinates`."""
        i, j = np.triu_indices(self.n)
        S = np.empty((*V.shape[:-1], self.n, self.n))
        S[..., i, j] = S[..., j, i] = V * np.where(i == j, 1.0, np.sqrt(0.5))
        return S

    def embed(self, X):
        lam, U = np.linalg.eigh(self._symmetric(X))
        with np.errstate(invalid="ignore", divide="ignore"):
            log_lam = np.where(lam > 0, np.log(lam), np.nan)
        return self._coordinates((U * log_lam[:, None, :]) @ _transpose(U))

    def unembed(self, Z):
        lam, U = np.linalg.eigh(self._matrices(np.asarray(Z, dtype=float)))
        return (U * np.exp(lam)[:, None, :]) @ _transpose(U)

    def push_tangent(self, X, V):
        log_lam, U = np.linalg.eigh(self._matrices(self.embed(X)))
        half = 0.5 * (log_lam[:, :, None] - log_lam[:, None, :])
        middle = 0.5 * (log_lam[:, :, None] + log_lam[:, None, :])
        # (e^a - e^b) / (a - b) = e^{(a+b)/2} sinh(h)/h, h = (a-b)/2, also where eigenvalues meet
        ratio = np.divide(np.sinh(half), half, out=np.ones_like(half), where=half != 0)
        inner = _transpose(U) @ self._matrices(np.asarray(V)) @ U
        return U @ (np.exp(middle) * ratio * inner) @ _transpose(U)

    def violation(self, X):
        X = np.asarray(X, dtype=float).reshape(-1, self.n, self.n)
        size = np.abs(X).max(axis=(1, 2))
        with np.errstate(invalid="ignore", divide="ignore"):
            asymmetry = np.abs(X - _transpose(X)).max(axis=(1, 2)) / size
            lam = np.linalg.eigvalsh(0.5 * (X + _transpose(X)))
            indefinite = np.where(lam[:, 0] > 0, 0.0, 1 - lam[:, 0] / size)
        return np.where(size > 0, np.maximum(asymmetry, indefinite), np.inf)

    def constraint(self):
        return ("the asymmetry (relative to the largest entry) or, where the smallest eigenvalue is not positive, 1 "
                "minus that eigenvalue relative to the largest entry")

    def remedy(self):
        return ("Symmetrise with (X + X.T) / 2, and add a multiple of the identity to a singular matrix; "
                "check_points='project' symmetrises, but cannot mend an eigenvalue that is not positive.")


def _determinant(a, b, c):
    """Return a c - b b with an error of two units in its last place, however much cancels.

    The rounding errors of the products are found exactly, by splitting factors in halves (Dekker 1971, Kahan).
    """
    def error(x, y, product):
        def halves(x):
            high = 134217729.0 * x
            high = high - (high - x)
            return high, x - high
        (x1, x2), (y1, y2) = halves(x), halves(y)
        return ((x1 * y1 - product) + x1 * y2 + x2 * y1) + x2 * y2

    p, q = a * c, b * b
    return (p - q) + (error(a, c, p) - error(b, b, q))


class AffineInvariantPlane(SPD):
    r"""SPD(2) with the affine-invariant metric: a line times a hyperbolic plane.

    The coordinates of :math:`X=\sqrt{\det X}\begin{pmatrix}a&b\\b&c\end{pmatrix}`, :math:`ac-b^2=1`, are
    :math:`\log\det X/\sqrt2` on the line and :math:`z=(b+i)/c` in the upper half-plane. For
    :math:`X=gg^\top`, :math:`\det g=1`, that is the image of i under the Moebius map g, so that
    :math:`X\mapsto gXg^\top` moves the half-plane by isometries.
    """

    def factors(self):
        return (SpaceForm(1), SpaceForm(2, radius=sqrt(2), hyperbolic=True))

    def embed(self, X):
        S = self._symmetric(X)
        with np.errstate(invalid="ignore", divide="ignore"):
            # a power of two takes out the size, so that nothing overflows and no digit changes
            exponent = np.frexp(np.abs(S).max(axis=(1, 2)))[1]
            S = np.ldexp(S, -exponent[:, None, None])
            a, b, c = S[:, 0, 0], S[:, 0, 1], S[:, 1, 1]
            det = np.where((a > 0) & (c > 0), _determinant(a, b, c), np.nan)
            det = np.where(det > 0, det, np.nan)
            return np.column_stack([(np.log(det) + 2 * log(2) * exponent) / sqrt(2), b / c, np.sqrt(det) / c])

    def unembed(self, Z):
        u, x, y = np.asarray(Z, dtype=float).T
        root = np.exp(u / sqrt(2))
        out = np.empty((len(u), 2, 2))
        out[:, 0, 0] = root * (x * (x / y) + y)
        out[:, 0, 1] = out[:, 1, 0] = root * (x / y)
        out[:, 1, 1] = root / y
        return out

    def push_tangent(self, X, V):
        Z = self.embed(X)
        root = np.exp(Z[:, 0] / sqrt(2))
        b, (along, aside, up) = Z[:, 1] / Z[:, 2], np.asarray(V, dtype=float).T / sqrt(2)
        # the differentials of (x^2 + y^2) / y, x / y and 1 / y for dx = y aside and dy = y up
        out = np.empty((len(b), 2, 2))
        out[:, 0, 0] = 2 * Z[:, 1] * aside + (Z[:, 2] - b * Z[:, 1]) * up
        out[:, 0, 1] = out[:, 1, 0] = aside - b * up
        out[:, 1, 1] = -up / Z[:, 2]
        return root[:, None, None] * out + along[:, None, None] * self.unembed(Z)


class AffineInvariantSPD(SPD):
    r"""SPD(n) with the affine-invariant metric, for n > 2.

    Embedded, a point :math:`X=LL^\top` is its Cholesky factor :math:`L=ND`, D diagonal: the entries of :math:`\log D`
    and those of N below its diagonal of ones, in the order of `tril_indices`. Every vector is a point. These are
    horospherical coordinates, as those of the half-plane are for n = 2. A tangent vector :math:`LSL^\top` is the
    symmetric matrix S, its entries off the diagonal times :math:`\sqrt2`.
    """

    exactness = "asymptotic"
    kernel = "pairs"
    is_homogeneous = True
    log_volume = np.inf
    volume = np.inf
    smallest_eigenvalue = 0.0
    injectivity_radius = np.inf
    scales = (sqrt(2),)

    def factors(self):
        return ()

    @property
    def embed_dim(self):
        return self.dim

    @property
    def scalar_curvature(self):
        return -self.n * (self.n - 1) * (self.n + 2) / 8

    def log_error(self, t):
        r"""Estimate the error of log k near its peak: :math:`\binom n3\,t^2/1920(1+0.16\,t+0.002\,t^2)`.

        The leading term as t goes to zero, times a factor found by comparison with the exact peak, which
        is an integral over eigenvalues (Harish-Chandra's Plancherel formula). For n = 3 it is right to 0.2 per cent up
        to t = 10 and to 8 per cent at all times; for larger n it is a bound, up to 40 per cent too large for n = 6.
        """
        return comb(self.n, 3) * t * t / (1920 * (1 + 0.16 * t + 0.002 * t * t))

    def _check_time(self, t):
        if not t > 0:
            raise ValueError(f"time t = {t!r} must be positive")
        if self.log_error(t) > _MEANINGLESS:
            raise ValueError(
                f"time t = {t:.4g}: the log heat kernel of {self!r} is known to about {self.log_error(t):.2g} only at "
                f"that time, a bandwidth of {sqrt(t):.3g}. Use a smaller one, data closer together, or "
                "metric='log_euclidean', which is exact")

    # points

    def _entries(self):
        i, j = np.tril_indices(self.n)
        return i, j, i == j

    def _factor(self, Z):
        """Return the Cholesky factors of embedded points."""
        i, j, diagonal = self._entries()
        Z = np.asarray(Z, dtype=float)
        L = np.zeros((*Z.shape[:-1], self.n, self.n))
        L[..., i, j] = np.where(diagonal, 1.0, Z)
        return L * np.exp(Z[..., diagonal])[..., None, :]

    def _from_factor(self, L):
        i, j, diagonal = self._entries()
        scale = np.einsum("...jj->...j", L)
        return np.where(diagonal, np.log(scale)[..., j], (L / scale[..., None, :])[..., i, j])

    def embed(self, X):
        S = self._symmetric(X)
        L = np.zeros_like(S)
        with np.errstate(invalid="ignore", divide="ignore"):
            for j in range(self.n):  # a row that is not positive definite becomes NaN
                rest = S[:, j:, j] - np.einsum("nik,nk->ni", L[:, j:, :j], L[:, j, :j])
                L[:, j:, j] = rest / np.sqrt(np.where(rest[:, :1] > 0, rest[:, :1], np.nan))
        lost = np.isnan(L).any(axis=(1, 2))[:, None]
        return np.where(lost, np.nan, self._from_factor(np.where(lost[..., None], np.eye(self.n), L)))

    def unembed(self, Z):
        L = self._factor(Z)
        return L @ _transpose(L)

    def push_tangent(self, X, V):
        L = self._factor(self.embed(X))
        return L @ self._matrices(np.asarray(V, dtype=float)) @ _transpose(L)

    def project(self, Z):
        return np.asarray(Z, dtype=float)

    def to_tangent(self, Z, V):
        return V

    # geometry

    def _inverse_factor(self, Z):
        """Return L^{-1}, by forward substitution."""
        L = self._factor(Z)
        out = np.zeros_like(L)
        for i in range(self.n):
            out[..., i, :] = np.eye(self.n)[i] - np.einsum("...k,...kj->...j", L[..., i, :i], out[..., :i, :])
            out[..., i, :] /= L[..., i, i, None]
        return out

    def _between(self, Z, W):
        """Return L_x^{-1} L_y, whose singular values are exp(h/2)."""
        return self._inverse_factor(Z) @ self._factor(W)

    def exp(self, Z, V):
        lam, U = np.linalg.eigh(self._matrices(np.asarray(V, dtype=float)))
        # exp(S) = Q^T Q with Q = exp(lam/2) U^T; its Cholesky factor is R^T of Q = (orthogonal) R. With large rows
        # first, small ones keep their digits.
        R = np.linalg.qr((np.exp(0.5 * lam)[..., None] * _transpose(U))[..., ::-1, :], mode="r")
        sign = np.where(np.einsum("...ii->...i", R) < 0, -1.0, 1.0)
        return self._from_factor(self._factor(Z) @ _transpose(sign[..., None] * R))

    def log(self, Z, W):
        U, s = _singular(self._between(Z, W))
        return self._coordinates((U * (2 * np.log(s))[..., None, :]) @ _transpose(U))

    def dist(self, Z, W):
        h = 2 * np.log(_singular(self._between(Z, W), vectors=False)[1])
        same = (np.asarray(Z) == np.asarray(W)).all(axis=-1)
        return np.where(same, 0.0, np.sqrt(np.einsum("...i,...i->...", h, h)))

    def frame(self, Z):
        return np.broadcast_to(np.eye(self.dim), (*np.shape(Z), self.dim)).copy()

    def random(self, n, rng):
        """Draw n embedded points, exponentials of standard normal matrices; shape (n, embed_dim)."""
        return self.exp(np.zeros((n, self.dim)), rng.standard_normal((n, self.dim)))

    # heat kernel

    def log_heat_kernel(self, Z, W, t):
        _, s = _singular(self._between(Z, W), vectors=False)
        return self._log_kernel(2 * np.log(s), t, 0)[0]

    def pair_invariants(self, X, Y):
        """Return h for all pairs of embedded points; shape (q, n, size of the matrices)."""
        T = self._between(np.asarray(X)[:, None, :], np.asarray(Y)[None, :, :])
        return 2 * np.log(_singular(T, vectors=False)[1])

    def log_kernel_of_invariants(self, h, t):
        """Return log k for the result of `pair_invariants`; shape (q, n)."""
        return self._log_kernel(h, t, 0)[0]

    def pair_kernel(self, X, Y, t, order):
        T = self._between(np.asarray(X)[:, None, :], np.asarray(Y)[None, :, :])
        U, s = _singular(T, vectors=order > 0)
        log_k, slope, ratio = self._log_kernel(2 * np.log(s), t, order)
        if order == 0:
            return log_k, None, None
        # moving X by S changes h by minus the diagonal of U^T S U
        return log_k, self._coordinates((U * -slope[..., None, :]) @ _transpose(U)), ratio

    def _log_kernel(self, h, t, order):
        """Return log k, its slopes in h (order >= 1) and (Laplacian of k) / k (order 2) for descending h, (..., n)."""
        self._check_time(t)
        n = self.n
        i, j = np.triu_indices(n, 1)
        r = 0.5 * (h[..., i] - h[..., j])
        value, first, second = _plane(r, 0.5 * t, order)
        log_k = (value.sum(axis=-1) - np.einsum("...i,...i->...", h, h) / (2 * t) + 0.25 * n * (n - 3) * log(2 * pi * t)
                 - 0.5 * n * (n - 1) * log(2) - n * (n - 1) * (n - 2) / 96 * t)
        if order == 0:
            return log_k, None, None
        signs = np.eye(n)[i] - np.eye(n)[j]
        slope = 0.5 * first @ signs - h / t
        if order == 1:
            return log_k, slope, None
        rise = slope[..., i] - slope[..., j]
        near = r < 0.5 * _EQUAL
        # coth(r) (f_i - f_j) where h_i and h_j meet: the difference of slopes by its derivative along h_i - h_j
        bends = second @ np.abs(signs)
        meeting = 0.5 * (second + 0.5 * (bends[..., i] + bends[..., j])) - 2 / t
        apart = rise / np.tanh(np.where(near, 1.0, r))
        laplacian = 0.5 * second.sum(axis=-1) - n / t + 0.5 * np.where(near, meeting, apart).sum(axis=-1)
        return log_k, slope, laplacian + np.einsum("...i,...i->...", slope, slope)

    def heat_sample(self, Z, t, rng):
        r"""Draw one step of Brownian motion from each point.

        Parameters and result as for :func:`rdks.sampling.heat_sample`.

        Notes
        -----
        Rejection, with no discretisation in time: the law is that of the kernel of this class, normalised, over steps
        of at most 4/n. What constant the kernel is off by does not matter here; means of
        :math:`\operatorname{tr}X^{-1}Y` are off by 2e-5 of themselves per unit of time for n = 3.

        In normal coordinates S at X the density is that of a Gaussian times
        :math:`\prod_{i<j}e^{\omega(r_{ij})}`, :math:`\omega=F+\log(\sinh r/r)`, a concave function of :math:`r^2`,
        so that its tangent, a Gaussian factor, bounds it.
        """
        out = np.array(Z, dtype=float)
        times, which = np.unique(np.broadcast_to(np.asarray(t, dtype=float), len(out)), return_inverse=True)
        for b, time in enumerate(times):
            rows = np.flatnonzero(which == b)
            steps = ceil(0.25 * self.n * time)
            for _ in range(steps):
                out[rows] = self._step(out[rows], float(time) / steps, rng)
        return out

    def _step(self, Z, t, rng):
        n = self.n
        i, j = np.triu_indices(n, 1)
        # the tangent at the typical square of r, n/4 |trace-free part|^2 shared by the pairs
        square = 0.25 * (n + 2) * t
        middle, slope = _spread(np.array([sqrt(square)]), t)
        tilt = float(slope[0]) / (2 * sqrt(square))
        scale = sqrt(1 / (1 / t - 0.5 * n * tilt))
        V = np.empty((len(Z), self.dim))
        pending = np.arange(len(Z))
        while pending.size:
            S = self._matrices(scale * rng.standard_normal((pending.size, self.dim)))
            trace = np.einsum("nii->n", S)[:, None, None] / n * np.eye(n)
            S += trace * (sqrt(t) / scale - 1)
            h = np.linalg.eigvalsh(S)
            r = 0.5 * np.abs(h[:, i] - h[:, j])
            log_accept = (_spread(r, t)[0] - middle - tilt * (r * r - square)).sum(axis=1)
            accept = np.log1p(-rng.uniform(size=pending.size)) < log_accept
            V[pending[accept]] = self._coordinates(S[accept])
            pending = pending[~accept]
        return self.exp(Z, V)


def _singular(T, vectors=True):
    """Return the left singular vectors (or None) and the singular values, descending, of matrices (..., n, n).

    Where the values differ much, the rows or columns of T = L_x^{-1} L_y do, and a decomposition keeps the digits of
    small values if it meets large rows and columns first. Else it would know them relative to the largest only.
    """
    def decompose(T):
        if not vectors:
            return None, np.linalg.svd(T, compute_uv=False)
        return np.linalg.svd(T)[:2]

    U, s = decompose(T)
    wide = s[..., -1] <= _WIDE * s[..., 0]
    if wide.any():
        A = T[wide]
        columns = np.argsort(-np.einsum("nij,nij->nj", A, A), axis=1)[:, None, :]
        rows = np.argsort(-np.einsum("nij,nij->ni", A, A), axis=1)[:, :, None]
        sorted_U, s[wide] = decompose(np.take_along_axis(np.take_along_axis(A, columns, axis=2), rows, axis=1))
        if vectors:
            U[wide] = np.take_along_axis(sorted_U, np.argsort(rows, axis=1), axis=1)
    return U, s


def _spread(r, t):
    """Return F + log(sinh r / r) at time t of the SPD matrices, and its slope; shape of r."""
    value, slope, _ = _plane(r, 0.5 * t, 1)
    safe = np.where(r > 1e-4, r, 1.0)
    growth = np.where(r > 1e-4, safe + np.log(-np.expm1(-2 * safe) / (2 * safe)), r * r / 6)
    return value + growth, slope + np.where(r > 1e-4, 1 / np.tanh(safe) - 1 / safe, r / 3)


def _plane(r, t, order):
    r"""Evaluate :math:`F=\log p+r^2/2t` of the hyperbolic plane, and its first and second derivative.

    Parameters
    ----------
    r : ndarray
        Distances.
    t : float
    order : int
        0 for the value only; else the derivatives too.

    Returns
    -------
    tuple of ndarray
        F, F', F'' in the shape of `r`; None for what was not asked for.

    Notes
    -----
    A Chebyshev polynomial, because a block of pairs needs millions of values of one smooth function: F is even and
    analytic for :math:`|\operatorname{Im}r|<\pi`, hence a function of the square of
    :math:`x=\operatorname{arsinh}(r/\pi)`, analytic in a strip around the real axis.
    """
    reach = 2.0 ** max(2, ceil(np.log2(max(float(r.max(initial=0.0)), 1e-300))))
    coefficients = _plane_table(t, reach)
    top = float(np.arcsinh(reach / pi))
    x = np.arcsinh(r / pi)
    y = 2 * (x / top) ** 2 - 1
    if order == 0:
        return chebyshev.chebval(y, coefficients[:, 0]), None, None
    value, first, second = chebyshev.chebval(y, coefficients)
    slope = 1 / np.hypot(pi, r)  # of x
    rise = 4 * x * slope / top**2
    bend = 4 * slope * slope / top**2 * (1 - x * r * slope)
    return value, first * rise, second * rise * rise + first * bend


@lru_cache(maxsize=64)
def _plane_table(t, reach):
    """Return the coefficients of F and of its derivatives in y, see `_plane`; shape (count, 3)."""
    top = float(np.arcsinh(reach / pi))
    count = 10 + ceil(8 * top)
    angle = pi * (np.arange(count) + 0.5) / count
    r = pi * np.sinh(top * np.cos(0.5 * angle))  # y = cos(angle)
    peak = float(heat.log_hyperbolic(0.0, t, 2))
    value = 2 / count * np.cos(np.outer(np.arange(count), angle)) @ (heat.log_hyperbolic(r, t, 2) - peak)
    value[0] = 0.5 * value[0]
    out = np.zeros((count, 3))
    out[:, 0], out[:-1, 1], out[:-2, 2] = value, chebyshev.chebder(value), chebyshev.chebder(value, 2)
    out[0, 0] += peak
    return out
