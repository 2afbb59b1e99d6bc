"""Manifolds: what a point is, how far apart two points are, and how heat spreads.

>>> from rdks.manifolds import Sphere
>>> Sphere(2)
Sphere(dim=2, coords='extrinsic', radius=1.0)
"""
from __future__ import annotations

from math import isqrt

from ..errors import UnsupportedError
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


def _sphere(p):
    if p < 2:
        raise ValueError(f"manifold = 'sphere': X has {p} column (n_features = {p}), but a sphere needs at least "
                         "2 columns, the coordinates of a vector; for angles use 'circle'")
    return Sphere(p - 1)


_NAMES = {
    "circle": lambda p: Circle(),
    "euclidean": Euclidean,
    "spd": _spd,
    "sphere": _sphere,
    "torus": Torus,
}

# names kept for manifolds to come
_PLANNED = ("box", "hyperbolic", "ornstein_uhlenbeck", "projective", "so3", "su2")


def from_name(name, n_features):
    """Return the manifold of a name, its dimension taken from the number of features.

    Parameters
    ----------
    name : {"circle", "euclidean", "spd", "sphere", "torus"}
    n_features : int
        Numbers per row of the data.

    Raises
    ------
    ValueError
        For an unknown name, or a number of features that no such manifold has.
    UnsupportedError
        For the name of a manifold that this version does not have.

    Examples
    --------
    >>> from rdks.manifolds import from_name
    >>> from_name("sphere", 3)
    Sphere(dim=2, coords='extrinsic', radius=1.0)
    """
    if name in _PLANNED:
        raise UnsupportedError(f"manifold={name!r} is not part of this version, which has {sorted(_NAMES)}")
    try:
        make = _NAMES[name]
    except KeyError:
        raise ValueError(f"manifold = {name!r} is not a known name; expected 'auto' or one of "
                         f"{sorted(_NAMES)}, or a manifold object") from None
    return make(n_features)
