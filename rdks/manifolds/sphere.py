"""Spheres. This file is the model for a manifold of your own."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .base import Manifold, SpaceForm

__all__ = ["Sphere"]

_CHARTS = ("extrinsic", "latlon_deg", "latlon_rad")


@dataclass(frozen=True)
class Sphere(Manifold):
    r"""Sphere :math:`S^d` of any dimension and radius.

    Parameters
    ----------
    dim : int
        Dimension d >= 1; the points are vectors of d + 1 numbers.
    coords : {"extrinsic", "latlon_deg", "latlon_rad"}
        How points are written: as vectors of length `radius`, or (d = 2) as latitude and
        longitude. A chart changes how points look and nothing else.
    radius : float
        Radius, which sets the length unit: with 6371.0, bandwidths are in kilometres and
        densities per square kilometre.

    Notes
    -----
    Heat kernel: :func:`rdks.heat.log_sphere`. Score fields in latitude and longitude are
    (north, east) components per unit length; at a pole these are the directions of the
    meridian given by the longitude of that row.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.manifolds import Sphere
    >>> earth = Sphere(2, coords="latlon_deg", radius=6371.0)
    >>> paris, sydney = earth.embed(np.array([[48.9, 2.4], [-33.9, 151.2]]))
    >>> round(float(earth.dist(paris, sydney)))
    16957
    """

    dim: int = 2
    coords: str = "extrinsic"
    radius: float = 1.0

    def __post_init__(self):
        if self.dim < 1:
            raise ValueError(f"Sphere(dim={self.dim!r}): the dimension must be at least 1")
        if self.coords not in _CHARTS:
            raise ValueError(f"coords = {self.coords!r} is not one of {_CHARTS}")
        if self.coords != "extrinsic" and self.dim != 2:
            raise ValueError(f"coords = {self.coords!r} needs dim = 2, found dim = {self.dim}")
        if not (np.isfinite(self.radius) and self.radius > 0):
            raise ValueError(f"radius = {self.radius!r} must be positive and finite")

    def factors(self):
        return (SpaceForm(self.dim, radius=self.radius),)

    @property
    def point_shape(self):
        return (self.dim + 1,) if self.coords == "extrinsic" else (2,)

    def _radians(self, X):
        X = np.asarray(X, dtype=float).reshape(-1, 2)
        return np.deg2rad(X) if self.coords == "latlon_deg" else X

    def embed(self, X):
        if self.coords == "extrinsic":
            return super().embed(X)
        lat, lon = self._radians(X).T
        return self.radius * np.column_stack(
            [np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])

    def unembed(self, Z):
        if self.coords == "extrinsic":
            return super().unembed(Z)
        x, y, z = np.asarray(Z).T
        # atan2 keeps its digits at the poles, where arcsin does not
        out = np.column_stack([np.arctan2(z, np.hypot(x, y)), np.arctan2(y, x)])
        return np.rad2deg(out) if self.coords == "latlon_deg" else out

    def push_tangent(self, X, V):
        if self.coords == "extrinsic":
            return super().push_tangent(X, V)
        lat, lon = self._radians(X).T
        north = [-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)]
        east = [-np.sin(lon), np.cos(lon), np.zeros_like(lon)]
        return np.einsum("fjn,nj->nf", np.array([north, east]), V)

    def violation(self, X):
        if self.coords == "extrinsic":
            return super().violation(X)
        return np.maximum(np.abs(self._radians(X)[:, 0]) - 0.5 * np.pi, 0.0)

    def constraint(self):
        if self.coords == "extrinsic":
            return "| ||x|| / radius - 1 |"
        unit = "90 degrees" if self.coords == "latlon_deg" else "pi/2"
        return f"the excess of the latitude (first column) over {unit}, in radians,"

    def remedy(self):
        if self.coords == "extrinsic":
            return super().remedy()
        return ("Give latitude first, longitude second, in the unit of coords="
                f"{self.coords!r}; latitudes have no nearest point to project on.")
