"""The Ornstein-Uhlenbeck process: diffusion that forgets where it started."""
from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .base import Manifold, SpaceForm, parameter

__all__ = ["OrnsteinUhlenbeck"]


@dataclass(frozen=True)
class OrnsteinUhlenbeck(Manifold):
    r"""Euclidean space with the Ornstein-Uhlenbeck process, :math:`dX=-\tfrac12X\,dt+dB`.

    Parameters
    ----------
    dim : int
        Dimension d.

    Notes
    -----
    The density of :math:`X_t` per unit of Lebesgue volume, from x, is

    .. math:: k_t(x,\cdot)=N\big(e^{-t/2}x,\ (1-e^{-t})I\big),

    that of Brownian motion from :math:`e^{-t/2}x` after a time :math:`1-e^{-t}` (Mehler). It is not
    symmetric in x and y; divided by the invariant density :math:`\pi=N(0,I)` it is. For small t it is the
    Gaussian of variance t, for large t it is :math:`\pi`: a smoother of bandwidth h also
    shrinks data towards 0 by :math:`e^{-h^2/2}`, towards a standard normal law. This is the "variance
    preserving" process of diffusion models, with the same time: :math:`t=\int\beta`.

    Standardise data first, to mean 0 and variance 1 in each column: the process has its own centre and
    unit of length. On standardised data the fitted density has variance 1 too.

    Eigenvalues belong to :math:`-2L`, L being the generator, as on other manifolds: Hermite polynomials of
    degree k decay as :math:`e^{-kt/2}`.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.manifolds import OrnsteinUhlenbeck
    >>> process = OrnsteinUhlenbeck(1)
    >>> Z, s = process.flow(np.array([[2.0]]), 2 * np.log(2.0))
    >>> Z.round(12), round(s, 12)
    (array([[1.]]), 0.75)
    """

    dim: int = 2

    has_drift = True
    is_homogeneous = False

    def __post_init__(self):
        object.__setattr__(self, "dim", parameter("dim", self.dim, whole=True))

    @property
    def point_shape(self):
        return (self.dim,)

    def factors(self):
        return (SpaceForm(self.dim),)

    @property
    def smallest_eigenvalue(self):
        return 1.0

    def flow(self, Z, t):
        """Return the mean and the variance of the process at time `t`: where a Gaussian sits, and how wide it is.

        Parameters
        ----------
        Z : ndarray, shape (n, d)
        t : float or ndarray, shape (n,)

        Returns
        -------
        mean : ndarray, shape (n, d)
        variance : float or ndarray, shape (n,)
        """
        if np.ndim(t) == 0:
            return math.exp(-0.5 * t) * np.asarray(Z, dtype=float), -math.expm1(-t)
        t = np.asarray(t, dtype=float)
        return np.exp(-0.5 * t)[:, None] * Z, -np.expm1(-t)

    def drift(self, Z):
        """Return the drift, -Z/2; shape (n, d)."""
        return -0.5 * np.asarray(Z, dtype=float)

    def log_invariant(self, Z):
        """Return the log of the invariant density, the standard normal one; shape (n,)."""
        Z = np.asarray(Z, dtype=float)
        return -0.5 * np.einsum("nj,nj->n", Z, Z) - 0.5 * self.dim * np.log(2 * np.pi)
