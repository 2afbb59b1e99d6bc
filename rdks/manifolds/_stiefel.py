r"""Geodesics of Stiefel and Grassmann manifolds: exponential map, its differential and logarithm, many pairs at a time.

*Stiefel.* A point is an n x p matrix U with orthonormal columns, the metric the canonical one,
:math:`\langle S,T\rangle=\operatorname{tr}S^\top(1-\frac12UU^\top)T`. With
:math:`\hat X=UAU^\top+KU^\top-UK^\top`, where :math:`A=U^\top V` and :math:`K=V-UA`, the geodesic with velocity V is
:math:`e^{s\hat X}U`. Everything happens in the span of U and K, of dimension r = min(n, 2p). There
:math:`\hat X=W\,\mathrm{diag}(i\lambda)\,W^*`, and in the direction T

.. math:: D\exp_U(V)[T]=\int_0^1e^{(1-s)\hat X}\hat Te^{s\hat X}U\,ds
          =W\bigl(\Psi\circ W^*\hat TW\bigr)W^*U,\qquad
          \Psi_{ab}=e^{i(\lambda_a+\lambda_b)/2}\,\mathrm{sinc}\tfrac{\lambda_a-\lambda_b}2 .                      (1)

What of T is orthogonal to the span is multiplied from the right by :math:`\int_0^1U^\top e^{s\hat X}U\,ds`, for
:math:`\hat X` vanishes there. All of it is exact: no differences, no case where eigenvalues meet.

*Logarithm.* The shortest geodesics to Y that matter stay in the span of U and Y, which the rotations of its complement
fix. In coordinates with U = E (the first p columns of the unit matrix) a geodesic is
:math:`e^XE`, X skew with no lower right block, and its length is the least angle, :math:`\|\log Qh\|/\sqrt2`, over
rotations Q with QE = Y and h of the last r - p axes: the canonical metric makes SO(r) -> St a Riemannian submersion.
Newton's method, with (1), starts from the log of the Qh whose h makes the lower right block nearest to unity, the first
step of Zimmermann's algorithm. Where what it finds is not shorter than the radius below which any geodesic is the
shortest, Zimmermann's steps :math:`h\to he^{-C}`, C the lower right block of log Qh, are made from other h: C is the
gradient of half the squared distance, whose second derivatives are at most one where curvature is not negative, so that
each step shortens the way. The best are polished by Newton's method, and the shortest geodesic is taken.

*Grassmann.* A point is a projector :math:`P=UU^\top`, the metric that of Frobenius. A tangent vector T lifts to TU,
which has A = 0: the geodesics are those above, and lengths are :math:`\sqrt2` times those of the angles between the
subspaces. With the singular value decomposition :math:`Z^\top U=QCR^\top`, :math:`Z_*=ZQR^\top` and
:math:`N=(1-UU^\top)Z_*` the logarithm lifts to

.. math:: N\,R\,g(C)\,R^\top,\qquad g(c)=\arccos(c)/\sqrt{1-c^2},                                               (2)

which is smooth in c where angles vanish or meet; it is one of the shortest geodesics on the cut locus too.

Sources: A. Edelman, T. Arias, S. Smith, The geometry of algorithms with orthogonality constraints, SIAM J. Matrix Anal.
Appl. 20 (1998); R. Zimmermann, A matrix-algebraic algorithm for the Riemannian logarithm on the Stiefel manifold under
the canonical metric, ibid. 38 (2017); T. Bendokat, R. Zimmermann, P.-A. Absil, A Grassmann manifold handbook, Adv.
Comput. Math. 50 (2024).
"""
from __future__ import annotations

import numpy as np

__all__ = ["GrassmannGeodesics", "StiefelGeodesics"]

# Newton steps of a logarithm, and the longest of them.
_STEPS, _LONGEST = 20, 0.3 * np.pi
# Where one start proves nothing: others, steps downhill from each, how many of them Newton's method is tried from, and
# how many pairs are looked at together.
_STARTS, _DESCENT, _TRIED, _BLOCK = 24, 6, 4, 64
# Lengths below which any geodesic is the shortest (Rentmeesters 2013).
_PROVED = 0.89 * np.pi


def _t(A):
    return np.swapaxes(A, -1, -2)


def _spectrum(X):
    """Write skew matrices, (..., r, r), as W diag(i lam) W^*; returns lam, (..., r), and W."""
    return np.linalg.eigh(-1j * X)


def _sinc(x):
    return np.sinc(x / np.pi)


class StiefelGeodesics:
    """Geodesics of the canonical metric on n x p matrices with orthonormal columns.

    Parameters
    ----------
    n, p : int

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.manifolds._stiefel import StiefelGeodesics
    >>> geodesics = StiefelGeodesics(4, 2)
    >>> U, V = np.eye(4)[:, :2][None], np.zeros((1, 4, 2))
    >>> V[0, 2, 0] = V[0, 3, 1] = 0.3
    >>> Y = geodesics.exp(U, V)
    >>> bool(np.abs(geodesics.log(U, Y) - V).max() < 1e-14)
    True
    """

    def __init__(self, n, p):
        self.n, self.p = n, p
        self._basis = _skew_basis(min(n, 2 * p), p)

    # a point as an orthonormal frame U, and tangent vectors at it

    def _frame(self, X):
        return X

    def _lift(self, U, T):
        return T

    def _lower(self, Z, D):
        return D

    def _point(self, Z):
        return Z

    def exp(self, X, V):
        """Follow geodesics.

        Parameters
        ----------
        X, V : ndarray, shape (k, *shape)
            Points and tangent vectors as the space writes them.

        Returns
        -------
        ndarray, shape (k, *shape)
        """
        return self.differential(X, V, None)[0]

    def differential(self, X, V, T):
        """Follow geodesics and differentiate their ends, equation (1).

        Parameters
        ----------
        X, V : ndarray, shape (k, *shape)
            Points and tangent vectors as the space writes them.
        T : ndarray, shape (k, j, *shape), or None
            Directions, tangent vectors at X, in which to change V.

        Returns
        -------
        end : ndarray, shape (k, *shape)
            exp_X(V).
        D : ndarray, shape (k, j, *shape), or None
            Derivatives of the end, tangent vectors there.
        """
        U = self._frame(X)
        V = self._lift(U, V)
        span = np.linalg.qr(np.concatenate([U, V - U @ (_t(U) @ V)], axis=-1))[0]
        u = _t(span) @ U
        lam, W = _spectrum(_generator(u, _t(span) @ V))
        f = _t(W.conj()) @ u
        Z = span @ (W @ (np.exp(1j * lam)[..., None] * f)).real
        end = self._point(Z)
        if T is None:
            return end, None
        T = self._lift(U[:, None], T)
        inner = _t(span)[:, None] @ T
        D = span[:, None] @ _turn(lam[:, None], W[:, None], u[:, None], f[:, None], inner).real
        if span.shape[-1] < self.n:
            mean = (_t(f.conj()) @ ((np.exp(0.5j * lam) * _sinc(0.5 * lam))[..., None] * f)).real
            D = D + (T - span[:, None] @ inner) @ mean[:, None]
        return end, self._lower(Z[:, None], D)

    def log(self, X, Y):
        """Return the initial velocities of the shortest geodesics found from X to Y.

        Parameters
        ----------
        X, Y : ndarray, shape (k, n, p)

        Returns
        -------
        ndarray, shape (k, n, p)
            NaN where Newton's method does not converge, as for n = p between matrices of unlike determinants.
        """
        # all columns of the span, the first p of which are X up to signs
        span = np.linalg.qr(np.concatenate([X, Y], axis=-1))[0]
        span[..., :self.p] = X
        y = _t(span) @ Y
        Q = self._complete(y)
        best = self._newton(y, _logarithm(Q))
        unproved = np.flatnonzero(~(_length(best) < _PROVED))
        if Q.shape[-1] - self.p > 1:  # else there is no rotation to choose
            for a in range(0, unproved.size, _BLOCK):
                some = unproved[a:a + _BLOCK]
                best[some] = self._shortest(y[some], Q[some], best[some])
        return span @ best[..., :self.p]

    def _shortest(self, y, Q, best):
        """Return the shortest of the geodesics found from several starts and of those known, (k, r, r)."""
        p, r, k = self.p, Q.shape[-1], len(Q)
        turned = np.repeat(Q[None], _STARTS, axis=0)
        turned[..., p:] = turned[..., p:] @ _rotations(r - p)[:, None]
        for _ in range(_DESCENT):
            lam, W = _spectrum(_logarithm(turned)[..., p:, p:])
            turned[..., p:] = turned[..., p:] @ (W * np.exp(-1j * lam)[..., None, :] @ _t(W.conj())).real
        X = _logarithm(turned)
        first = np.argsort((X**2).sum(axis=(2, 3)), axis=0)[:_TRIED]
        X = np.take_along_axis(X, first[..., None, None], axis=0).reshape(-1, r, r)
        X = np.concatenate([best[None], self._newton(np.tile(y, (len(first), 1, 1)), X).reshape(-1, k, r, r)])
        length = np.nan_to_num((X**2).sum(axis=(2, 3)), nan=np.inf)
        return X[length.argmin(axis=0), np.arange(k)]

    def _complete(self, y):
        """Return rotations with the first columns y, (k, r, p), the lower right block as near to unity as can be."""
        p = self.p
        Q = np.linalg.qr(y, mode="complete")[0]
        Q[..., :p] = y
        if Q.shape[-1] == p:
            return Q
        left, _, right = np.linalg.svd(Q[..., p:, p:])
        Q[..., p:] = Q[..., p:] @ _t(left @ right)
        # the reflection that costs least
        odd, last = np.linalg.det(Q) < 0, left[..., -1:]
        Q[odd, :, p:] -= 2 * Q[odd, :, p:] @ last[odd] @ _t(last[odd])
        return Q

    def _newton(self, y, X):
        """Solve e^X E = y for skew X, (k, r, r), without a lower right block, from a start; NaN where that fails."""
        p, r = self.p, y.shape[-2]
        X = X.copy()
        X[..., p:, p:] = 0.0
        u = np.eye(r, p)
        found, todo = np.full(X.shape, np.nan), np.arange(len(X))
        for _ in range(_STEPS):
            lam, W = _spectrum(X[todo])
            f = _t(W.conj()) @ u
            back = (W * np.exp(-1j * lam)[..., None, :] @ _t(W.conj())).real
            miss = back @ y[todo] - u
            close = np.abs(miss).max(axis=(1, 2)) <= 1e-9
            D = back[:, None] @ _turn(lam[:, None], W[:, None], u, f[:, None], self._basis[..., :p]).real
            J = _coordinates(D, p)
            step = np.einsum("nij,nj->ni", np.linalg.pinv(_t(J), rcond=1e-10), _coordinates(miss, p))
            step *= np.minimum(1.0, _LONGEST / np.maximum(np.sqrt((step**2).sum(axis=1)), 1e-300))[:, None]
            X[todo] += np.einsum("ni,ijk->njk", step, self._basis)
            # convergence is quadratic: this step leaves rounding only
            found[todo[close]] = X[todo[close]]
            todo = todo[~close & np.isfinite(X[todo]).all(axis=(1, 2))]
            if not todo.size:
                break
        return found


class GrassmannGeodesics(StiefelGeodesics):
    """Geodesics of n x n projectors of rank p, with the metric of Frobenius.

    Parameters and methods are those of :class:`StiefelGeodesics`; a point is a matrix (n, n), and so is a tangent
    vector.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.manifolds._stiefel import GrassmannGeodesics
    >>> geodesics = GrassmannGeodesics(3, 1)
    >>> one, other = np.diag([1.0, 0.0, 0.0])[None], np.full((1, 3, 3), 1 / 3)
    >>> V = geodesics.log(one, other)
    >>> bool(np.isclose(np.linalg.norm(V), np.sqrt(2) * np.arccos(1 / np.sqrt(3)), atol=1e-15))
    True
    """

    def _frame(self, X):
        # eigenvalues 0 and 1; symmetrised, as eigh reads one half only
        return np.linalg.eigh(0.5 * (X + _t(X)))[1][..., self.n - self.p:]

    def _lift(self, U, T):
        return T @ U

    def _lower(self, Z, D):
        half = D @ _t(Z)
        return half + _t(half)

    def _point(self, Z):
        return Z @ _t(Z)

    def log(self, X, Y):
        """Return the initial velocities of shortest geodesics from X to Y, equation (2); shape (k, n, n)."""
        U, Z = self._frame(X), self._frame(Y)
        left, c, right = np.linalg.svd(_t(Z) @ U)
        Z = Z @ left @ right
        c = np.minimum(c, 1.0)
        sine = np.sqrt((1 - c) * (1 + c))
        g = np.where(sine > 0, 2 * np.arcsin(np.sqrt(0.5 * (1 - c))) / np.where(sine > 0, sine, 1.0), 1.0)
        N = Z - U @ (_t(U) @ Z)
        return self._lower(U, N @ (_t(right) * g[..., None, :]) @ right)


def _generator(u, v):
    """Return the skew matrices X, (..., r, r), with X u = v for tangent vectors v at frames u, (..., r, p)."""
    y = (v - 0.5 * u @ (_t(u) @ v)) @ _t(u)
    return y - _t(y)


def _turn(lam, W, u, f, t):
    """Evaluate (1) for tangent vectors t at u, (..., r, p), f = W^* u; the result is real up to rounding."""
    g = _t(W.conj()) @ (t - 0.5 * u @ (_t(u) @ t))
    M = g @ _t(f.conj())
    M = M - _t(M.conj())
    mean = 0.5 * (lam[..., :, None] + lam[..., None, :])
    psi = np.exp(1j * mean) * _sinc(0.5 * (lam[..., :, None] - lam[..., None, :]))
    return W @ ((psi * M) @ f)


def _skew_basis(r, p):
    """Return a basis of the skew r x r matrices without a lower right block, orthonormal in the canonical metric."""
    pairs = [(i, j) for j in range(p) for i in range(j + 1, r)]
    basis = np.zeros((len(pairs), r, r))
    for X, (i, j) in zip(basis, pairs, strict=True):
        X[i, j], X[j, i] = 1.0, -1.0
    return basis


def _coordinates(D, p):
    """Return the coordinates, in `_skew_basis`, of the tangent vectors at E next to matrices D, (..., r, p)."""
    D = D.copy()
    D[..., :p, :] = 0.5 * (D[..., :p, :] - _t(D[..., :p, :]))
    return np.concatenate([D[..., j + 1:, j] for j in range(p)], axis=-1)


def _length(X):
    """Return the lengths of skew matrices, (k, r, r), as rotation angles; NaN of NaN."""
    return np.sqrt(0.5 * (X**2).sum(axis=(1, 2)))


def _logarithm(Q):
    """Return logarithms of rotations, (k, r, r), by angles up to pi: starts, good to some digits where angles meet."""
    # a combination of the commuting Hermitian parts of Q of which unlike angles have like values by chance only
    _, W = np.linalg.eigh(0.6 * 0.5 * (Q + _t(Q)) - 0.8j * 0.5 * (Q - _t(Q)))
    angle = np.angle(np.einsum("...ij,...ik,...kj->...j", W.conj(), Q, W))
    X = (W * (1j * angle)[..., None, :] @ _t(W.conj())).real
    return 0.5 * (X - _t(X))


def _rotations(q):
    """Return the rotations of q axes from which other geodesics are sought, (_STARTS, q, q)."""
    if q == 2:
        a = 2 * np.pi * np.arange(1, _STARTS + 1) / (_STARTS + 1)
        return np.moveaxis(np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]), -1, 0)
    Q, R = np.linalg.qr(np.random.default_rng(0).standard_normal((_STARTS, q, q)))
    Q = Q * np.sign(np.einsum("...ii->...i", R))[..., None, :]
    Q[..., -1] *= np.linalg.det(Q)[:, None]
    return Q
