"""Spheres. This file is the model for a manifold of your own."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .base import Manifold, SpaceForm, parameter

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
    meridian given by the longitude of that row. Longitudes may have whole turns more or less; all rows
    with latitude 90 degrees are one point. A latitude beyond a pole, by more than 1e-6 in the unit of the
    chart, has no point: `embed` gives NaN.

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
        object.__setattr__(self, "dim", parameter("dim", self.dim, whole=True))
        object.__setattr__(self, "radius", parameter("radius", self.radius))
        if self.coords not in _CHARTS:
            raise ValueError(f"coords = {self.coords!r} is not one of {_CHARTS}")
        if self.coords != "extrinsic" and self.dim != 2:
            raise ValueError(f"coords = {self.coords!r} needs dim = 2, found dim = {self.dim}")

    def factors(self):
        return (SpaceForm(self.dim, radius=self.radius),)

    @property
    def point_shape(self):
        return (self.dim + 1,) if self.coords == "extrinsic" else (2,)

    @property
    def _quarter(self):
        """A quarter turn in the unit of the chart."""
        return 90.0 if self.coords == "latlon_deg" else 0.5 * np.pi

    def _sines(self, X):
        """Return sine and cosine of the latitude, sine and cosine of the longitude; NaN beyond a pole.

        Rows that write one point, up to whole turns, give the same numbers to the last digit, so that
        copies of a point are seen.
        """
        lat, lon = np.asarray(X, dtype=float).reshape(-1, 2).T
        quarter = self._quarter
        size = np.abs(lat)
        lat = np.where(size > quarter + self.tolerance, np.nan, np.clip(lat, -quarter, quarter))
        # Reduced in the unit of the chart, where whole turns are whole numbers, to (-half, half] turn:
        # fmod is exact, and so is the difference of two numbers within a factor of two of each other.
        with np.errstate(invalid="ignore"):
            lon = np.fmod(lon, 4 * quarter)
        lon = np.where(lon > 2 * quarter, lon - 4 * quarter, np.where(lon <= -2 * quarter, lon + 4 * quarter, lon))
        if self.coords == "latlon_deg":
            lat, lon = np.deg2rad(lat), np.deg2rad(lon)
        # the cosine of the float nearest to pi/2 is not zero, that of a latitude of 90 degrees is
        across = np.where((size >= quarter) & np.isfinite(lat), 0.0, np.cos(lat))
        return np.sin(lat), across, np.sin(lon), np.cos(lon)

    def embed(self, X):
        if self.coords == "extrinsic":
            return super().embed(X)
        up, across, sin, cos = self._sines(X)
        return self.radius * np.column_stack([across * cos, across * sin, up]) + 0.0  # no -0.0

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
        up, across, sin, cos = self._sines(X)
        north = [-up * cos, -up * sin, across]
        east = [-sin, cos, np.zeros_like(sin)]
        return np.einsum("fjn,nj->nf", np.array([north, east]), V)

    def violation(self, X):
        if self.coords == "extrinsic":
            return super().violation(X)
        lat = np.asarray(X, dtype=float).reshape(-1, 2)[:, 0]
        return np.maximum(np.abs(lat) - self._quarter, 0.0)

    def constraint(self):
        if self.coords == "extrinsic":
            return "| ||x|| / radius - 1 |"
        limit = "90 degrees, in degrees," if self.coords == "latlon_deg" else "pi/2, in radians,"
        return f"the excess of the latitude (first column) over {limit}"

    def remedy(self):
        if self.coords == "extrinsic":
            return super().remedy()
        return ("Give latitude first, longitude second, in the unit of coords="
                f"{self.coords!r}; a latitude beyond a pole has no nearest point to project on.")
