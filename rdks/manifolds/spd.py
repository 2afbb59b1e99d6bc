"""Symmetric positive definite matrices."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .base import Manifold, SpaceForm, parameter

__all__ = ["SPD"]


@dataclass(frozen=True)
class SPD(Manifold):
    r"""Symmetric positive definite n x n matrices with the log-Euclidean metric.

    Parameters
    ----------
    n : int
        Size of the matrices.

    Notes
    -----
    The matrix logarithm is an isometry onto the symmetric matrices with the Frobenius norm:
    :math:`d(X,Y)=\|\log X-\log Y\|_F`. The space is flat, so the heat kernel is a Gaussian in
    logarithms and exact. Densities are with respect to the volume of this metric. Scores are symmetric
    matrices, the tangent vectors at X: the gradient in logarithms carried by the differential of the
    matrix exponential, :math:`U(\Gamma\circ U^\top WU)U^\top` with
    :math:`\Gamma_{ij}=(\lambda_i-\lambda_j)/(\log\lambda_i-\log\lambda_j)`.

    References
    ----------
    Arsigny, Fillard, Pennec and Ayache, SIAM J. Matrix Anal. Appl. 29 (2007) 328, theorem 3.8 for
    the metric; Daleckii-Krein for the differential.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.manifolds import SPD
    >>> Z = SPD(2).embed(np.array([np.eye(2), np.diag([np.e, 1.0])]))
    >>> round(float(SPD(2).dist(Z[:1], Z[1:])[0]), 12)
    1.0
    """

    n: int = 2

    def __post_init__(self):
        object.__setattr__(self, "n", parameter("n", self.n, whole=True))

    @property
    def dim(self):
        return self.n * (self.n + 1) // 2

    @property
    def point_shape(self):
        return (self.n, self.n)

    def factors(self):
        return (SpaceForm(self.dim),)

    def _coordinates(self, S):
        """Write symmetric matrices as vectors with the same norm: off-diagonal entries times sqrt(2)."""
        i, j = np.triu_indices(self.n)
        return S[:, i, j] * np.where(i == j, 1.0, np.sqrt(2.0))

    def _matrices(self, V):
        """Undo `_coordinates`."""
        i, j = np.triu_indices(self.n)
        S = np.empty((len(V), self.n, self.n))
        S[:, i, j] = S[:, j, i] = V * np.where(i == j, 1.0, np.sqrt(0.5))
        return S

    def embed(self, X):
        X = np.asarray(X, dtype=float).reshape(-1, self.n, self.n)
        lam, U = np.linalg.eigh(0.5 * (X + X.transpose(0, 2, 1)))
        with np.errstate(invalid="ignore", divide="ignore"):
            log_lam = np.where(lam > 0, np.log(lam), np.nan)
        return self._coordinates((U * log_lam[:, None, :]) @ U.transpose(0, 2, 1))

    def unembed(self, Z):
        lam, U = np.linalg.eigh(self._matrices(np.asarray(Z, dtype=float)))
        return (U * np.exp(lam)[:, None, :]) @ U.transpose(0, 2, 1)

    def push_tangent(self, X, V):
        log_lam, U = np.linalg.eigh(self._matrices(self.embed(X)))
        half = 0.5 * (log_lam[:, :, None] - log_lam[:, None, :])
        middle = 0.5 * (log_lam[:, :, None] + log_lam[:, None, :])
        # (e^a - e^b) / (a - b) = e^{(a+b)/2} sinh(h)/h, h = (a-b)/2, also where eigenvalues meet
        ratio = np.divide(np.sinh(half), half, out=np.ones_like(half), where=half != 0)
        inner = U.transpose(0, 2, 1) @ self._matrices(np.asarray(V)) @ U
        return U @ (np.exp(middle) * ratio * inner) @ U.transpose(0, 2, 1)

    def violation(self, X):
        X = np.asarray(X, dtype=float).reshape(-1, self.n, self.n)
        size = np.abs(X).max(axis=(1, 2))
        with np.errstate(invalid="ignore", divide="ignore"):
            asymmetry = np.abs(X - X.transpose(0, 2, 1)).max(axis=(1, 2)) / size
            lam = np.linalg.eigvalsh(0.5 * (X + X.transpose(0, 2, 1)))
            indefinite = np.where(lam[:, 0] > 0, 0.0, 1 - lam[:, 0] / size)
        return np.where(size > 0, np.maximum(asymmetry, indefinite), np.inf)

    def constraint(self):
        return ("the asymmetry (relative to the largest entry) or, where the smallest eigenvalue is not positive, 1 "
                "minus that eigenvalue relative to the largest entry")

    def remedy(self):
        return ("Symmetrise with (X + X.T) / 2, and add a multiple of the identity to a singular matrix; "
                "check_points='project' symmetrises, but cannot mend an eigenvalue that is not positive.")
