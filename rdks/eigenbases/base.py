r"""Eigenfunctions of a diffusion as regressors: what operator-informed score matching needs to know of a space.

A reversible diffusion with the generator L and the invariant law :math:`\pi` has eigenfunctions
:math:`L\psi_k=-\mu_k\psi_k`. Means of eigenfunctions are the only statistics of the data that its noisy versions
depend on, :math:`m_k(t)=E\,\psi_k(X_t)=e^{-\mu_kt}E\,\psi_k(X_0)`, and products of eigenfunctions are finite sums of
eigenfunctions on all spaces here. So the mean of the carré du champ
:math:`\Gamma(\psi_i,\psi_j)=\tfrac12\langle\nabla\psi_i,\nabla\psi_j\rangle` at every noise level is linear in the
same few numbers (theory section 6.2).
"""
from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

__all__ = ["EigenBasis"]


class EigenBasis(ABC):
    r"""Real eigenfunctions :math:`\psi_1,\ldots,\psi_K` of a diffusion, the constant left out.

    They are orthonormal with respect to the invariant *probability* law (the uniform one on a compact space, N(0, I)
    for the Ornstein-Uhlenbeck process), and in ascending order of `decay`, so that those up to a lower level come
    first and their matrix is a leading block.

    Attributes
    ----------
    manifold : Manifold
    level : ndarray of int, shape (K,)
        Level of each function.
    decay : ndarray, shape (K,)
        Rates :math:`\mu_k=\lambda_k/2>0`, ascending.
    moment_decay : ndarray, shape (M,)
        Rates of the functions whose means are the statistics: those up to twice the level, the constant among them.
    moment_level : ndarray of int, shape (M,)
    automatic : int
        Number of functions among which a level is chosen automatically, at most: what is computed in reasonable time.
    most_level : int
        Highest level that is chosen automatically.
    shortest_time : float
        Noise level from which on the matrix is right, where it is known from a part of all eigenfunctions.
    max_level : int
    """

    automatic, most_level, shortest_time = 600, 512, 0.0

    manifold: object
    max_level: int
    level: np.ndarray
    decay: np.ndarray
    moment_decay: np.ndarray
    moment_level: np.ndarray

    @abstractmethod
    def moments(self, Z, share):
        r"""Return the means of the statistics over weighted points, :math:`\sum_iw_i\psi(Z_i)`.

        Parameters
        ----------
        Z : ndarray, shape (n, embed_dim)
        share : ndarray, shape (n,)
            Weights that sum to 1.

        Returns
        -------
        ndarray of float, shape (M,)
        """

    @abstractmethod
    def gram(self, moments):
        r"""Return :math:`E\,\Gamma(\psi_i,\psi_j)` under a law from its means, shape (K, K).

        Parameters
        ----------
        moments : ndarray, shape (M,)
            At the noise level asked for: those of the data times ``exp(-moment_decay * t)``. The matrix is linear in
            them. Under the invariant law it is ``diag(decay)``.
        """

    def leading_gram(self, moments, size):
        """Return the matrix of the first `size` functions, shape (size, size)."""
        return self.gram(moments)[:size, :size]

    @abstractmethod
    def own(self, moments):
        """Return the means of the K functions themselves, out of the statistics; shape (K,)."""

    @abstractmethod
    def evaluate(self, Z, coef, order=1):
        r"""Evaluate a potential :math:`f=\sum_kc_k\psi_k`.

        Parameters
        ----------
        Z : ndarray, shape (q, embed_dim)
        coef : ndarray, shape (K,) or (k,), k < K
            Of the first functions.
        order : int
            0 for the values, 1 for the gradient too, 2 for the Laplacian too.

        Returns
        -------
        value : ndarray, shape (q,)
        gradient : ndarray, shape (q, embed_dim), or None
            Tangent to the manifold, in embedded coordinates.
        laplacian : ndarray, shape (q,), or None
            Of the manifold, without the drift.
        """
