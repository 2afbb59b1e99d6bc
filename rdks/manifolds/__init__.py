"""Manifolds: what a point is, how far apart two points are, and how heat spreads.

>>> from rdks.manifolds import Sphere
>>> Sphere(2)
Sphere(dim=2, coords='extrinsic', radius=1.0)
"""
from __future__ import annotations

from math import isqrt

from ._geomstats import load_geomstats
from .base import Manifold, SpaceForm
from .euclidean import Euclidean
from .product import Product
from .spd import SPD
from .sphere import Sphere
from .torus import Circle, Torus

__all__ = ["SPD", "Circle", "Euclidean", "Manifold", "Product", "SpaceForm", "Sphere", "Torus", "from_name",
           "load_geomstats"]



def _spd(p):
    n = isqrt(p)
    if n * n != p:
        raise ValueError(f"manifold = 'spd': {p} features are not the entries of a square matrix")
    return SPD(n)


_NAMES = {
    "circle": lambda p: Circle(),
    "euclidean": Euclidean,
    "spd": _spd,
    "sphere": lambda p: Sphere(p - 1),
    "torus": Torus,
}


def from_name(name, n_features):
    """Return the manifold of a name, its dimension taken from the number of features.

    Parameters
    ----------
    name : {"circle", "euclidean", "spd", "sphere", "torus"}
    n_features : int
        Numbers per row of the data.

    Examples
    --------
    >>> from rdks.manifolds import from_name
    >>> from_name("sphere", 3)
    Sphere(dim=2, coords='extrinsic', radius=1.0)
    """
    try:
        make = _NAMES[name]
    except KeyError:
        raise ValueError(f"manifold = {name!r} is not a known name; expected 'auto' or one of "
                         f"{sorted(_NAMES)}, or a manifold object") from None
    return make(n_features)
