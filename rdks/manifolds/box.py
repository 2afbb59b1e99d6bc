"""Boxes with walls that reflect."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import UnsupportedError
from .base import Manifold, SpaceForm, parameter, wrap

__all__ = ["Box"]

_MAX_DIM = 12


@dataclass(frozen=True)
class Box(Manifold):
    r"""A box with walls that reflect: data between bounds, without loss of mass at the bounds.

    Parameters
    ----------
    bounds : sequence of (low, high)
        The interval of each coordinate.

    Notes
    -----
    Brownian motion that is reflected at the walls is Brownian motion on the torus of twice the side lengths
    :math:`L_j`, folded: the kernel is a product over coordinates of

    .. math:: \sum_m\left[g_t(x-y+2mL)+g_t(x+y+2mL)\right]
              =\frac1L\Big[1+2\sum_{k\ge1}e^{-(k\pi/L)^2t/2}\cos\frac{k\pi x}{L}\cos\frac{k\pi y}{L}\Big]

    with the Gaussian :math:`g_t` of variance t, x and y counted from the lower bound (theory section 2.3). At a wall
    the derivative of a density along the normal is zero. A point has :math:`2^d` images, so dimensions
    beyond 12 are not supported.

    A point outside has no density: it raises PointError, and ``check_points="project"`` moves it to the nearest
    point of the box. Choose bounds from what the numbers mean, not from the range of the data: estimated
    walls touch the outermost observations. In the embedding a geodesic runs straight on through a wall; where it
    is read off, it has been reflected.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.manifolds import Box
    >>> unit = Box([(0.0, 1.0)])
    >>> X = np.array([[0.0], [0.3], [1.0]])
    >>> np.exp(unit.log_heat_kernel(unit.embed(X), unit.embed(X), 1e-2)).round(3)  # twice as high at the walls
    array([7.979, 3.989, 7.979])
    """

    bounds: tuple[tuple[float, float], ...]

    def __post_init__(self):
        try:
            pairs = [(low, high) for low, high in self.bounds]
        except (TypeError, ValueError):
            raise ValueError(f"bounds = {self.bounds!r}: expected a sequence of pairs (low, high), one per "
                             "coordinate") from None
        if not pairs:
            raise ValueError("bounds is empty: expected one pair (low, high) per coordinate")
        bounds = []
        for i, pair in enumerate(pairs):
            low, high = (parameter(f"bounds[{i}][{j}]", value, positive=False) for j, value in enumerate(pair))
            if not 0 < high - low < np.inf:
                raise ValueError(f"bounds[{i}] = {(low, high)}: expected low < high, and a finite length")
            bounds.append((low, high))
        if len(bounds) > _MAX_DIM:
            raise UnsupportedError(f"a box of dimension {len(bounds)} has 2^{len(bounds)} mirror images of each point; "
                                   f"at most {_MAX_DIM} dimensions are supported. Reduce the dimension first")
        object.__setattr__(self, "bounds", tuple(bounds))

    @property
    def dim(self):
        return len(self.bounds)

    @property
    def point_shape(self):
        return (self.dim,)

    @property
    def _sides(self):
        """Lower bounds, upper bounds and lengths, arrays of shape (d,)."""
        low, high = np.array(self.bounds).T
        return low, high, high - low

    def factors(self):
        return tuple(SpaceForm(1, period=2 * float(side)) for side in self._sides[2])

    @property
    def n_images(self):
        return 2**self.dim

    def images(self, Z):
        Z = np.asarray(Z, dtype=float)
        signs = np.array(np.meshgrid(*[[1.0, -1.0]] * self.dim, indexing="ij")).reshape(self.dim, -1).T
        return signs[:, None] * Z

    @property
    def smallest_eigenvalue(self):
        return float((np.pi / self._sides[2].max()) ** 2)

    def project(self, Z):
        side = self._sides[2]
        Z = wrap(np.asarray(Z, dtype=float), 2 * side)
        return np.minimum(Z, 2 * side - Z)

    def random(self, n, rng):
        return self.project(super().random(n, rng))

    def embed(self, X):
        low, _, side = self._sides
        # a point outside goes to the nearest wall, not to its mirror image
        return np.clip(np.asarray(X, dtype=float).reshape(-1, self.dim) - low, 0.0, side)

    def unembed(self, Z):
        low, high, _ = self._sides
        return np.clip(low + self.project(Z), low, high)  # the sum may round to beyond the upper bound

    def violation(self, X):
        low, high, side = self._sides
        X = np.asarray(X, dtype=float).reshape(-1, self.dim)
        return (np.maximum(np.maximum(low - X, X - high), 0.0) / side).max(axis=1)

    def constraint(self):
        return "the largest distance beyond a bound, relative to the side of the box,"

    def remedy(self):
        return ("Nothing lies beyond a wall: choose bounds that hold all data, Box([(low, high), ...]), or pass "
                "check_points='project' to move the point to the nearest wall.")
