"""Eigenfunctions of compact spaces, as a pair of fast sums over points."""
from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache

import numpy as np
from scipy.special import gammaln

__all__ = ["CHUNK", "Harmonics", "degree_for", "levels"]

_FAR = 100_000  # levels that are listed at most
#: Points that are handled together: temporary arrays stay below some 50 MB.
CHUNK = 2**20


def levels(factor, degree):
    r"""Return eigenvalues and multiplicities of the levels 0, ..., `degree` of a circle or a sphere.

    Parameters
    ----------
    factor : SpaceForm
        A circle or a sphere of dimension d: :math:`\lambda_l=l(l+d-1)/R^2`,
        :math:`N_l=\binom{l+d}{d}-\binom{l+d-2}{d}`.
    degree : int

    Returns
    -------
    eigenvalue, multiplicity : ndarray, shape (degree + 1,)

    Examples
    --------
    >>> from rdks.harmonics.base import levels
    >>> from rdks.manifolds import SpaceForm
    >>> levels(SpaceForm(2, radius=1.0), 3)[1]
    array([1., 3., 5., 7.])
    """
    d = factor.dim
    level = np.arange(degree + 1.0)
    eigenvalue = level * (level + d - 1) / factor.scale**2
    if d == 1:
        return eigenvalue, np.where(level > 0, 2.0, 1.0)
    log_count = gammaln(level + d - 1) - gammaln(level + 1) - gammaln(d - 1)
    multiplicity = np.rint((2 * level + d - 1) / (d - 1) * np.exp(log_count))
    return eigenvalue, multiplicity


@lru_cache(maxsize=256)
def degree_for(factor, t, eps):
    r"""Return the degree beyond which a heat kernel's eigenfunctions do not matter.

    Up to some ten thousand the smallest L with
    :math:`\sum_{l>L}\max(1,\lambda_lt)N_le^{-\lambda_lt/2}\le\epsilon\sum_lN_le^{-\lambda_lt/2}`,
    so that the Laplacian in units of 1/t is served as well as the density; above, about that.

    Parameters
    ----------
    factor : SpaceForm
        A circle or a sphere.
    t : float
        Time, positive.
    eps : float
        Error allowed, relative to the kernel's peak.

    Returns
    -------
    int

    Examples
    --------
    >>> from rdks.harmonics.base import degree_for
    >>> from rdks.manifolds import SpaceForm
    >>> degree_for(SpaceForm(2, radius=1.0), 0.01, 1e-12)
    79
    """
    # terms fall below 1e-40 of the largest well before this
    reach = np.sqrt(200.0 / t) * factor.scale
    if not reach <= _FAR:  # so many that nobody will want them all: without a list of levels
        return int(min(np.sqrt(-2 * np.log(eps) / t) * factor.scale, 1e15))
    far = int(np.ceil(reach)) + 2 * factor.dim + 2
    eigenvalue, multiplicity = levels(factor, far)
    term = multiplicity * np.exp(-0.5 * t * eigenvalue)
    beyond = np.cumsum((term * np.maximum(1.0, eigenvalue * t))[::-1])[::-1]  # of this level and all higher ones
    return max(int(np.argmax(beyond <= eps * term.sum())) - 1, 0)


class Harmonics(ABC):
    r"""Eigenfunctions :math:`\phi_k` of :math:`-\Delta` on a compact space, up to a degree.

    They are orthonormal with respect to the Riemannian volume. A function is known by its coefficients, an array of
    shape `shape`; coefficients of sums over points add, which is what makes them sufficient statistics: after a time t

    .. math:: p(x)=\sum_ke^{-\lambda_kt/2}C_k\phi_k(x),\qquad C_k=\sum_iw_i\overline{\phi_k(X_i)} .

    Attributes
    ----------
    degree : int or tuple of int
    eigenvalue : ndarray, shape (levels,)
    multiplicity : ndarray, shape (levels,)
        Number of eigenfunctions that are kept, by level.
    shape : tuple of int
        Shape of an array of coefficients.
    """

    degree: int | tuple[int, ...]
    eigenvalue: np.ndarray
    multiplicity: np.ndarray
    shape: tuple[int, ...]

    @abstractmethod
    def analyse(self, Z, weight, eps, n_threads=1):
        r"""Return the coefficients :math:`C_k=\sum_iw_i\overline{\phi_k(Z_i)}`.

        Parameters
        ----------
        Z : ndarray, shape (n, width)
            Points in embedded coordinates.
        weight : ndarray, shape (n,)
        eps : float
            Accuracy of the non-uniform Fourier transform.
        n_threads : int

        Returns
        -------
        ndarray of complex, shape `shape`
        """

    @abstractmethod
    def synthesise(self, coefs, Z, eps, n_threads=1):
        """Return the values of b real functions at points.

        Parameters
        ----------
        coefs : ndarray of complex, shape (b, *shape)
        Z : ndarray, shape (q, width)
        eps, n_threads
            As for `analyse`.

        Returns
        -------
        ndarray, shape (b, q)
        """

    @abstractmethod
    def spread(self, per_level):
        """Put a number per level, (levels,), where the coefficients of the level are; broadcasts to `shape`."""

    @abstractmethod
    def power(self, coef):
        r"""Return :math:`\sum_{k\in l}|C_k|^2` for each level l; shape (levels,)."""

    @abstractmethod
    def fields(self, coef):
        """Return the coefficients (r, *shape) of r real functions that make up the gradient; see `gradient`."""

    @abstractmethod
    def gradient(self, Z, values):
        """Return the gradient (q, width) at points Z from the values (r, q) of the functions `fields`."""

    @abstractmethod
    def restrict(self, degree, coef):
        """Return the harmonics of a lower degree, and their part of the coefficients."""
