"""Circles and flat tori."""
from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .base import Manifold, SpaceForm, parameter, wrap

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
        object.__setattr__(self, "dim", parameter("dim", self.dim, whole=True))
        if np.ndim(self.period) == 0:
            period = parameter("period", self.period)
        elif np.shape(self.period) == (self.dim,):
            period = tuple(parameter("period", p) for p in self.period)
        else:
            raise ValueError(f"Torus(dim={self.dim}, period={self.period!r}): give one period, "
                             f"or {self.dim} of them")
        object.__setattr__(self, "period", period)
        object.__setattr__(self, "start", parameter("start", self.start, positive=False))

    def factors(self):
        return tuple(SpaceForm(1, period=float(p)) for p in np.broadcast_to(self.period, self.dim))

    @property
    def point_shape(self):
        return (self.dim,)

    def unembed(self, Z):
        return wrap(np.asarray(Z), np.broadcast_to(self.period, self.dim), self.start)


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

    # a field that is not a parameter: not in the constructor, so that dataclasses.replace works
    dim: int = field(default=1, init=False, repr=False)
