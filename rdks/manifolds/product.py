"""Products of manifolds."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .base import Manifold

__all__ = ["Product"]


@dataclass(frozen=True, init=False, repr=False)
class Product(Manifold):
    r"""Product of manifolds: a point is a point of each, written one after the other.

    Parameters
    ----------
    *parts : Manifold
        The manifolds, each with its own chart and unit; points are rows of all their numbers.

    Notes
    -----
    Heat kernels multiply, squared distances add: :math:`k_t(x,y)=\prod_ik^{(i)}_t(x_i,y_i)`. One
    bandwidth serves all parts, so bring them to comparable units: a radius or a period does that.

    Examples
    --------
    A direction and a time of day:

    >>> import numpy as np
    >>> from rdks.manifolds import Circle, Product, Sphere
    >>> space = Product(Sphere(2, coords="latlon_deg"), Circle(period=24.0))
    >>> space.dim, space.point_shape
    (3, (3,))
    >>> Z = space.embed(np.array([[90.0, 0.0, 23.0], [0.0, 0.0, 2.0]]))
    >>> round(float(space.dist(Z[:1], Z[1:])[0] ** 2 - (np.pi / 2) ** 2), 12)
    9.0
    """

    parts: tuple[Manifold, ...]

    def __init__(self, *parts):
        bad = [part for part in parts if not isinstance(part, Manifold)]
        if bad or not parts:
            found = f"{bad[0]!r}" if bad else "nothing"
            raise ValueError(f"Product: expected one or more rdks manifolds, found {found}")
        object.__setattr__(self, "parts", tuple(parts))

    def __repr__(self):
        return f"Product({', '.join(map(repr, self.parts))})"

    @property
    def dim(self):
        return sum(part.dim for part in self.parts)

    @property
    def point_shape(self):
        return (sum(self._sizes()),)

    def factors(self):
        return tuple(f for part in self.parts for f in part.factors())

    def _sizes(self):
        return [int(np.prod(part.point_shape)) for part in self.parts]

    def _split(self, X, sizes):
        return np.split(np.asarray(X).reshape(len(X), -1), np.cumsum(sizes)[:-1], axis=1)

    def _points(self, X):
        """Yield (part, its points as written)."""
        for part, P in zip(self.parts, self._split(X, self._sizes()), strict=True):
            yield part, P.reshape(len(P), *part.point_shape)

    def embed(self, X):
        return np.concatenate([part.embed(P) for part, P in self._points(X)], axis=1)

    def unembed(self, Z):
        pieces = self._split(Z, [part.embed_dim for part in self.parts])
        return np.concatenate([part.unembed(P).reshape(len(P), -1)
                               for part, P in zip(self.parts, pieces, strict=True)], axis=1)

    def push_tangent(self, X, V):
        pieces = self._split(V, [part.embed_dim for part in self.parts])
        return np.concatenate([part.push_tangent(P, W).reshape(len(P), -1)
                               for (part, P), W in zip(self._points(X), pieces, strict=True)], axis=1)

    def violation(self, X):
        return np.max([part.violation(P) for part, P in self._points(X)], axis=0)

    def constraint(self):
        return "the worst of " + ", ".join(f"({part.constraint()})" for part in self.parts)
