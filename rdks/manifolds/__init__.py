"""Manifolds: what a point is, how far apart two points are, and how heat spreads.

>>> from rdks.manifolds import Sphere
>>> Sphere(2)
Sphere(dim=2, coords='extrinsic', radius=1.0)
"""
from __future__ import annotations

from importlib import import_module
from math import isqrt

from .base import Manifold, SpaceForm
from .box import Box
from .euclidean import Euclidean
from .hyperbolic import Hyperbolic
from .ornstein_uhlenbeck import OrnsteinUhlenbeck
from .product import Product
from .quotient import ProjectiveSpace, Quotient
from .rotations import SO3, SU2
from .spd import SPD
from .sphere import Sphere
from .torus import Circle, Torus

__all__ = ["SO3", "SPD", "SU2", "Box", "Circle", "Euclidean", "FromGeomstats", "Graph", "Hyperbolic", "Manifold",
           "Mesh", "OrnsteinUhlenbeck", "PointCloud", "Product", "ProjectiveSpace", "Quotient", "SpaceForm",
           "SpecialOrthogonal", "SpecialUnitary", "Sphere", "Torus", "Unitary", "from_name", "load_geomstats"]

# what few programs use is imported when it is asked for: importing the package stays cheap
_LATE = {"FromGeomstats": "_geomstats", "Graph": "graph", "Mesh": "mesh", "PointCloud": "cloud",
         "SpecialOrthogonal": "lie", "SpecialUnitary": "lie", "Unitary": "lie", "load_geomstats": "_geomstats"}


def __getattr__(name):
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_LATE[name]}", __name__), name)


def __dir__():
    return sorted({*globals(), *_LATE})


def _spd(p):
    n = isqrt(p)
    if n * n != p:
        raise ValueError(f"manifold = 'spd': {p} features are not the entries of a square matrix")
    return SPD(n)


def _so3(p):
    charts = {9: "matrix", 4: "quaternion", 3: "rotvec"}
    if p not in charts:
        raise ValueError(f"manifold = 'so3': X has {p} columns (n_features = {p}), expected 9 (rotation matrices), 4 "
                         "(quaternions, scalar last) or 3 (rotation vectors)")
    return SO3(coords=charts[p])


def _su2(p):
    if p != 4:
        raise ValueError(f"manifold = 'su2': X has {p} columns (n_features = {p}), expected 4, a unit quaternion")
    return SU2()


def _vectors(name, make, least):
    """Make manifolds whose points have one number more than dimensions."""
    def of_columns(p):
        if p < least + 1:
            plural = "column" if p == 1 else "columns"
            hint = "; for angles use 'circle'" if name == "sphere" else ""
            raise ValueError(f"manifold = {name!r}: X has {p} {plural} (n_features = {p}), but its points are written "
                             f"with at least {least + 1} numbers{hint}")
        return make(p - 1)
    return of_columns


_NAMES = {
    "box": lambda p: Box([(0.0, 1.0)] * p),
    "circle": lambda p: Circle(),
    "euclidean": Euclidean,
    "hyperbolic": _vectors("hyperbolic", Hyperbolic, 2),
    "ornstein_uhlenbeck": OrnsteinUhlenbeck,
    "projective": _vectors("projective", ProjectiveSpace, 1),
    "so3": _so3,
    "spd": _spd,
    "sphere": _vectors("sphere", Sphere, 1),
    "su2": _su2,
    "torus": Torus,
}


def from_name(name, n_features):
    """Return the manifold of a name, its dimension taken from the number of features.

    Parameters
    ----------
    name : {"box", "circle", "euclidean", "hyperbolic", "ornstein_uhlenbeck", "projective", "so3", "spd", "sphere", \
            "su2", "torus"}
        "box" is the unit cube, whatever the range of the data; "hyperbolic" the hyperboloid; "so3" matrices,
        quaternions or rotation vectors by the number of columns.
    n_features : int
        Numbers per row of the data.

    Raises
    ------
    ValueError
        For an unknown name, or a number of features that no such manifold has.

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
