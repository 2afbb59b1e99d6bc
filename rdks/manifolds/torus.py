"""Circles and flat tori."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .base import Manifold, SpaceForm

__all__ = ["Circle", "Torus"]


@dataclass(frozen=True)
class Torus(Manifold):
    """Flat torus: a product of circles, points written as one number per circle.

    Parameters
    ----------
    dim : int
        Number of circles.
    period : float or sequence of float
        Length of each circle in the unit of the data: 2 pi for radians, 360 for degrees, 24
        for hours. Bandwidth and density are in that unit.
    start : float
        Results are written in [start, start + period); any finite number is accepted.

    Notes
    -----
    Distances are those of the flat metric: the length of the shortest straight line modulo
    the periods. The volume is the product of the periods.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.manifolds import Torus
    >>> day = Torus(1, period=24.0)
    >>> float(day.dist(np.array([[23.0]]), np.array([[2.0]]))[0])
    3.0
    """

    dim: int = 2
    period: float | tuple[float, ...] = 2 * np.pi
    start: float = 0.0

    def __post_init__(self):
        if self.dim < 1:
            raise ValueError(f"Torus(dim={self.dim!r}): the dimension must be at least 1")
        period = np.asarray(self.period, dtype=float)
        if period.ndim > 1 or (period.ndim == 1 and period.size != self.dim):
            raise ValueError(f"Torus(dim={self.dim}, period={self.period!r}): give one period, "
                             f"or {self.dim} of them")
        if not (np.isfinite(period).all() and (period > 0).all()):
            raise ValueError(f"period = {self.period!r} must be positive and finite")
        hashable = float(period) if period.ndim == 0 else tuple(float(p) for p in period)
        object.__setattr__(self, "period", hashable)

    def factors(self):
        return tuple(SpaceForm(1, period=float(p)) for p in np.broadcast_to(self.period, self.dim))

    @property
    def point_shape(self):
        return (self.dim,)

    def unembed(self, Z):
        period = np.broadcast_to(self.period, self.dim)
        X = self.start + np.mod(np.asarray(Z) - self.start, period)
        # mod of a tiny negative number rounds up to the period itself, which is the start
        return np.where(X >= self.start + period, self.start, X)


@dataclass(frozen=True)
class Circle(Torus):
    """Circle of a given length: points are one column of angles, hours, degrees, ...

    Parameters
    ----------
    period : float
        Length of the circle in the unit of the data, 2 pi by default.
    start : float
        Results are written in [start, start + period).

    Examples
    --------
    >>> from rdks.manifolds import Circle
    >>> Circle(period=360.0).volume
    360.0
    """

    dim: int = 1

    def __init__(self, period=2 * np.pi, start=0.0):
        object.__setattr__(self, "dim", 1)
        object.__setattr__(self, "period", period)
        object.__setattr__(self, "start", start)
        self.__post_init__()

    def __repr__(self):
        return f"Circle(period={self.period!r}, start={self.start!r})"
