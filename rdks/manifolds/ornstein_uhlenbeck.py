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
    location, scale : float or sequence of float, optional
        Centre and unit of the process in each coordinate of the points as they are written, :math:`x=a+sz`, if these
        are not standardised: 0 and 1 by default. Densities are per unit of x and scores are gradients in x; times and
        bandwidths are those of z, in which the invariant law is standard normal.

    Notes
    -----
    The density of :math:`X_t` per unit of Lebesgue volume, from x, is

    .. math:: k_t(x,\cdot)=N\big(e^{-t/2}x,\ (1-e^{-t})I\big),

    that of Brownian motion from :math:`e^{-t/2}x` after a time :math:`1-e^{-t}` (Mehler). It is not
    symmetric in x and y; divided by the invariant density :math:`\pi=N(0,I)` it is. For small t it is the
    Gaussian of variance t, for large t it is :math:`\pi`: a smoother of bandwidth h also
    shrinks data towards 0 by :math:`e^{-h^2/2}`, towards a standard normal law. This is the "variance
    preserving" process of diffusion models, with the same time: :math:`t=\int\beta`.

    The process has its own centre and unit of length: standardise data first, to mean 0 and variance 1 in each column,
    or pass mean and standard deviation as `location` and `scale`. The fitted density then has these too. In terms of
    Brownian motion B, :math:`Z_t=e^{-t/2}B(e^t-1)`.

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

    Rooms of about 20 degrees, give or take 2:

    >>> rooms = OrnsteinUhlenbeck(1, location=20.0, scale=2.0)
    >>> rooms.embed(np.array([[23.0]])), rooms.unembed(np.array([[-1.0]]))
    (array([[1.5]]), array([[18.]]))
    """

    dim: int = 2
    location: tuple[float, ...] | None = None
    scale: tuple[float, ...] | None = None

    has_drift = True
    is_homogeneous = False

    def __post_init__(self):
        object.__setattr__(self, "dim", parameter("dim", self.dim, whole=True))
        for name in ("location", "scale"):
            value = getattr(self, name)
            if value is None:
                continue
            numbers = [value] * self.dim if np.ndim(value) == 0 else list(value)
            if len(numbers) != self.dim:
                raise ValueError(f"{name} = {value!r}: expected one number, or one for each of {self.dim} coordinates")
            checked = tuple(parameter(f"{name}[{j}]", x, positive=name == "scale") for j, x in enumerate(numbers))
            object.__setattr__(self, name, checked)

    @property
    def point_shape(self):
        return (self.dim,)

    def factors(self):
        return (SpaceForm(self.dim),)

    @property
    def smallest_eigenvalue(self):
        return 1.0

    @property
    def log_unit(self):
        return 0.0 if self.scale is None else -float(np.log(self.scale).sum())

    def embed(self, X):
        X = np.asarray(X, dtype=float).reshape(-1, self.dim)
        return (X - (0.0 if self.location is None else np.array(self.location))) / self._unit

    def unembed(self, Z):
        return np.asarray(Z, dtype=float) * self._unit + (0.0 if self.location is None else np.array(self.location))

    def push_tangent(self, X, V):
        return np.asarray(V) * self._unit

    def push_gradient(self, X, G):
        return np.asarray(G) / self._unit

    @property
    def _unit(self):
        return 1.0 if self.scale is None else np.array(self.scale)

    def clock(self, t):
        """Return m and u of :math:`Z_t=m\\,B_u`, B being Brownian motion from the same point: exp(-t/2), exp(t) - 1."""
        with np.errstate(over="ignore"):  # beyond t = 709 that clock is beyond the range of floats: inf
            return np.exp(-0.5 * t), np.expm1(t)

    def time_at(self, u):
        """Return the time at which the clock of Brownian motion shows u: log(1 + u)."""
        return np.log1p(u)

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
