r"""Manifolds as products of space forms.

Half a page that explains every trick of the package
-----------------------------------------------------
A **space form** is a complete space of constant curvature: :math:`R^d`, a circle, a sphere.
Its isometries carry any pair of points to any other pair at the same distance, so its heat
kernel depends on the distance alone. All spaces here are products of space forms (the
*factors*), written in coordinates in which distance is easy:

* a flat factor is written in its own coordinates (a circle as an angle with a period);
* a sphere of radius R as a vector of length R in one dimension more.

In these **embedded** coordinates the squared **chord** :math:`c=|x-y|^2` (differences modulo
the period on circles) is a smooth, strictly increasing function of the squared distance, and
it keeps its digits for close pairs, where :math:`1-\langle x,y\rangle` has lost them. The log
heat kernel is therefore :math:`\sum_f\log k^{(f)}_t(c_f)`: functions of one variable, which can
be put in tables that compiled code reads. The gradient in the embedding is
:math:`2\,\partial_c\log k\,(x-y)`, projected on the tangent space once at the end.

So a manifold is: its factors, a way to write its points (`embed`, `unembed`), and nothing
else. Geometry, heat kernel, sums, sampling and bandwidths follow from the factors.
"""
from __future__ import annotations

import math
import numbers
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from scipy.special import xlogy

from .. import heat

__all__ = ["Manifold", "SpaceForm", "parameter"]


def parameter(name, value, whole=False, positive=True):
    """Return a parameter of a manifold as an int or a float, after checking it.

    Parameters
    ----------
    name : str
        For the message.
    value : object
        What the user passed.
    whole : bool
        Whether it must be an integer >= 1; otherwise it must be a finite real number.
    positive : bool
        Whether a real number must be positive.

    Raises
    ------
    ValueError
        Also for a value of a wrong type, so that every bad parameter fails alike.

    Examples
    --------
    >>> from rdks.manifolds.base import parameter
    >>> parameter("radius", 2)
    2.0
    """
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    kind, expected = (numbers.Integral, "an integer") if whole else (numbers.Real, "a real number")
    if isinstance(value, bool) or not isinstance(value, kind):
        raise ValueError(f"{name} = {value!r} must be {expected}")
    if whole:
        if value < 1:
            raise ValueError(f"{name} = {value!r} must be at least 1")
        return int(value)
    try:
        number = float(value)
    except OverflowError:  # an int or a Fraction beyond the range of floats
        number = math.inf
    if not math.isfinite(number) or (positive and number <= 0):
        raise ValueError(f"{name} = {value!r} must be {'positive and ' if positive else ''}finite")
    return number


def _exp(x):
    """Exponentiate a logarithm; beyond the range of floats the answer is inf, without a warning."""
    with np.errstate(over="ignore"):
        return np.exp(x)


def wrap(X, period, start=0.0):
    """Reduce numbers to [start, start + period); shape of X."""
    with np.errstate(invalid="ignore"):
        X = start + np.mod(X - start, period)
    # mod of a tiny negative number rounds up to the period itself, which is the start
    return np.where(X >= start + period, start, X)


def _norm(V):
    return np.sqrt(np.einsum("...j,...j->...", V, V))


@dataclass(frozen=True)
class SpaceForm:
    """A space of constant curvature: one isotropic factor of a manifold.

    Parameters
    ----------
    dim : int
        Dimension d >= 1.
    radius : float, optional
        Radius of a sphere; None for a flat factor.
    period : float, optional
        Length of a circle (``dim`` must be 1); None for a factor that is not periodic.

    Attributes
    ----------
    width : int
        Number of embedded coordinates: ``dim``, or ``dim + 1`` for a sphere.
    reach : float
        Largest distance between two points.
    volume : float
        Riemannian volume: ``inf`` for Euclidean space, and where it exceeds the range of floats.
    log_volume : float
        Its logarithm, ``inf`` for Euclidean space only.

    Examples
    --------
    >>> from rdks.manifolds.base import SpaceForm
    >>> SpaceForm(2, radius=1.0).width, SpaceForm(1, period=24.0).reach
    (3, 12.0)
    """

    dim: int
    radius: float | None = None
    period: float | None = None

    @property
    def width(self):
        return self.dim if self.radius is None else self.dim + 1

    @property
    def scale(self):
        """Radius of the sphere, or of the circle drawn in the plane; None for Euclidean space."""
        return self.radius if self.period is None else self.period / (2 * np.pi)

    @property
    def curvature(self):
        """Sectional curvature, 1/radius^2 or 0."""
        return 0.0 if self.radius is None else self.radius**-2

    @property
    def reach(self):
        if self.radius is not None:
            return np.pi * self.radius
        return np.inf if self.period is None else 0.5 * self.period

    @property
    def volume(self):
        if self.radius is not None:
            return float(_exp(self.log_volume))
        return np.inf if self.period is None else self.period

    @property
    def log_volume(self):
        if self.radius is not None:
            return float(heat.log_sphere_area(self.dim) + self.dim * np.log(self.radius))
        return np.inf if self.period is None else float(np.log(self.period))

    @property
    def smallest_eigenvalue(self):
        """First positive eigenvalue of minus the Laplacian, 0 where the spectrum is continuous."""
        if self.radius is not None:
            return self.dim / self.radius**2
        return 0.0 if self.period is None else (2 * np.pi / self.period) ** 2

    # geometry, on arrays of shape (n, width)

    def difference(self, X, Y):
        """Return X - Y, taken modulo the period; shape (..., width)."""
        D = X - Y
        return D if self.period is None else D - self.period * np.rint(D / self.period)

    def violation(self, X):
        """Measure how far each row is from the constraint, relative to its size; shape (n,)."""
        return np.zeros(len(X)) if self.radius is None else np.abs(_norm(X) / self.radius - 1.0)

    def project(self, X):
        """Return the nearest points; shape (n, width). The centre of a sphere gives NaN."""
        if self.period is not None:
            # one number per point of the circle: copies of a point are seen only if they are equal
            return wrap(X, self.period)
        if self.radius is None:
            return X
        with np.errstate(invalid="ignore", divide="ignore"):
            return X * (self.radius / _norm(X))[..., None]

    def to_tangent(self, X, V):
        """Project ambient vectors V on the tangent spaces at X; shape (n, width)."""
        if self.radius is None:
            return V
        unit = X / self.radius
        return V - np.einsum("...j,...j->...", unit, V)[..., None] * unit

    def exp(self, X, V):
        """Follow the geodesic from X with velocity V for unit time; shape (n, width)."""
        if self.radius is None:
            return X + V  # not wrapped: a geodesic on a circle is a continuous curve
        angle = _norm(V)[..., None] / self.radius
        return self.project(np.cos(angle) * X + np.sinc(angle / np.pi) * V)

    def log(self, X, Y):
        """Return the initial velocity of the shortest geodesic from X to Y; shape (n, width).

        At the antipode every direction is shortest: one of them is returned, of full length.
        """
        if self.radius is None:
            return self.difference(Y, X)
        V = self.to_tangent(X, Y - X)
        size = _norm(V)
        flat = size < 1e-8 * self.radius  # coincident or antipodal: the direction is rounding
        far = flat & (np.einsum("...j,...j->...", X, Y) < 0)
        if np.any(far):
            V = np.where(far[..., None], self.frame(X)[..., 0, :], V)
            size = _norm(V)
        angle = self.dist(X, Y)
        scale = np.divide(angle, size, out=np.ones_like(angle), where=size > 0)
        return V * scale[..., None]

    def dist(self, X, Y):
        """Return the geodesic distance of each pair of rows; shape (n,)."""
        chord = _norm(self.difference(X, Y))
        if self.radius is None:
            return chord
        return 2 * self.radius * np.arctan2(chord, _norm(X + Y))

    def frame(self, X):
        """Return an orthonormal basis of each tangent space; shape (n, dim, width)."""
        X = np.asarray(X, dtype=float)
        eye = np.eye(self.width)
        if self.radius is None:
            return np.broadcast_to(eye, X.shape[:-1] + eye.shape).copy()
        # The reflection that carries the last axis to -sign * x carries the others to a basis.
        unit = X / self.radius
        sign = np.where(unit[..., -1:] < 0, -1.0, 1.0)
        u = unit.copy()
        u[..., -1:] += sign
        u = u / _norm(u)[..., None]
        return eye[:-1] - 2 * u[..., :-1, None] * u[..., None, :]

    def random(self, n, rng):
        """Draw uniform points, standard normal ones in Euclidean space; shape (n, width)."""
        if self.period is not None:
            return rng.uniform(0.0, self.period, (n, 1))
        Z = rng.standard_normal((n, self.width))
        return self.project(Z)

    # heat kernel

    def log_kernel(self, r, t):
        r"""Evaluate :math:`\log k_t(r)+r^2/2t` at distances `r`; see :mod:`rdks.heat`."""
        R = self.scale
        if R is None:
            return np.full(np.shape(r), -0.5 * self.dim * np.log(2 * np.pi * t))
        return heat.log_sphere(np.asarray(r) / R, t / R**2, self.dim) - self.dim * np.log(R)

    def slopes(self, r, t):
        r"""Return :math:`\partial_c\log k_t` and :math:`\Delta k_t/k_t` at distances `r`.

        Here c is the squared chord in embedded coordinates, :math:`4R^2\sin^2(r/2R)` on a
        sphere and :math:`r^2` on a flat factor.
        """
        r = np.asarray(r, dtype=float)
        R = self.scale
        if R is None:
            return np.full(r.shape, -0.5 / t), (r * r / t - self.dim) / t
        first, laplacian = heat.sphere_slopes(r / R, t / R**2, self.dim)
        if self.period is not None:
            # The circle is S^1 of radius R: chain rule from the chord 2 - 2 cos(r/R) to r^2.
            first = first * np.sinc(r / (np.pi * R))
        return first / R**2, laplacian / R**2

    def area(self, r):
        """Return the area of the geodesic sphere of radius `r`; shape of `r`."""
        return _exp(self.log_area(r))

    def log_area(self, r):
        """Return the log of `area`, which a high dimension takes out of the range of floats; shape of `r`."""
        r = np.asarray(r, dtype=float)
        arm = r if self.radius is None else self.radius * np.sin(r / self.radius)
        return heat.log_sphere_area(self.dim - 1) + xlogy(self.dim - 1, np.maximum(arm, 0.0))


class Manifold(ABC):
    """A Riemannian manifold: an immutable, hashable, picklable value.

    A subclass is a frozen dataclass that defines `factors`, `point_shape`, and, where points
    are not written in embedded coordinates, `embed`, `unembed`, `push_tangent` and
    `violation`. See :mod:`rdks.manifolds.sphere` for the model.

    Geometry works on **embedded** coordinates, arrays of shape (n, embed_dim), so that a
    sampler converts a chart once on the way in and once on the way out.
    """

    #: Largest violation taken for the rounding of a point on the manifold.
    tolerance = 1e-6

    @abstractmethod
    def factors(self):
        """Return the space forms whose product this is, in the order of the coordinates."""

    @property
    @abstractmethod
    def point_shape(self):
        """Shape of one point as the user writes it, e.g. ``(3,)``."""

    # sizes

    #: Dimension d of the manifold; a field or a property of the subclass.
    dim: int

    @property
    def embed_dim(self):
        """Number of embedded coordinates."""
        return sum(f.width for f in self.factors())

    @property
    def volume(self):
        """Riemannian volume in the manifold's own length unit.

        ``inf`` for a space of infinite volume, and for a volume beyond the range of floats, as spheres of
        high dimension in a small unit have: `log_volume` tells them apart.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            product = float(np.prod([f.volume for f in self.factors()]))
        # huge and tiny factors may leave the range of floats on the way to a product within it
        return product if 0 < product < np.inf else float(_exp(self.log_volume))

    @property
    def log_volume(self):
        """Log of the Riemannian volume: the sum over the factors; ``inf`` for an infinite volume only."""
        return float(sum(f.log_volume for f in self.factors()))

    @property
    def smallest_eigenvalue(self):
        """First positive eigenvalue of minus the Laplacian; 0 on a space of infinite volume."""
        return min(f.smallest_eigenvalue for f in self.factors())

    def pieces(self):
        """Yield (factor, slice of embedded columns)."""
        start = 0
        for f in self.factors():
            yield f, slice(start, start + f.width)
            start += f.width

    # points as the user writes them

    def embed(self, X):
        """Convert points, shape (n, *point_shape), to embedded coordinates, (n, embed_dim)."""
        return self.project(np.asarray(X, dtype=float).reshape(len(X), -1))

    def unembed(self, Z):
        """Convert embedded coordinates, (n, embed_dim), to points, (n, *point_shape)."""
        return self.project(np.asarray(Z, dtype=float)).reshape((len(Z), *self.point_shape))

    def push_tangent(self, X, V):
        """Write embedded tangent vectors V, (n, embed_dim), in the chart of the points X."""
        return np.asarray(V).reshape((len(V), *self.point_shape))

    def violation(self, X):
        """Measure how far each point as written is from being valid; shape (n,)."""
        Z = np.asarray(X, dtype=float).reshape(len(X), -1)
        return np.max([f.violation(Z[:, s]) for f, s in self.pieces()], axis=0)

    def constraint(self):
        """Say in words what `violation` measures, for error messages."""
        return "the distance from the manifold, relative to its size,"

    def remedy(self):
        """Say what a user can do about a row that is not a point."""
        return ("Correct the data, or pass check_points='project' to use the nearest point of the "
                "manifold.")

    # geometry in embedded coordinates

    def _each(self, name, X, *others):
        return np.concatenate([getattr(f, name)(X[..., s], *(Y[..., s] for Y in others))
                               for f, s in self.pieces()], axis=-1)

    def project(self, Z):
        """Return the nearest embedded points; shape (n, embed_dim)."""
        return self._each("project", Z)

    def to_tangent(self, Z, V):
        """Project ambient vectors on the tangent spaces at Z; shape (n, embed_dim)."""
        return self._each("to_tangent", Z, V)

    def exp(self, Z, V):
        """Follow geodesics from Z with velocities V for unit time; shape (n, embed_dim)."""
        return self._each("exp", Z, V)

    def log(self, Z, W):
        """Return initial velocities of shortest geodesics from Z to W; shape (n, embed_dim)."""
        return self._each("log", Z, W)

    def dist(self, Z, W):
        """Return the distance of each pair of rows; shape (n,)."""
        return np.sqrt(sum(f.dist(Z[..., s], W[..., s]) ** 2 for f, s in self.pieces()))

    def frame(self, Z):
        """Return orthonormal bases of the tangent spaces; shape (n, dim, embed_dim)."""
        out = np.zeros(Z.shape[:-1] + (self.dim, self.embed_dim))
        row = 0
        for f, s in self.pieces():
            out[..., row:row + f.dim, s] = f.frame(Z[..., s])
            row += f.dim
        return out

    def random(self, n, rng):
        """Draw n embedded points, uniform on compact factors, standard normal on Euclidean ones.

        Parameters
        ----------
        n : int
        rng : numpy.random.Generator

        Returns
        -------
        ndarray, shape (n, embed_dim)
        """
        return np.concatenate([f.random(n, rng) for f in self.factors()], axis=1)

    # analysis

    def log_heat_kernel(self, Z, W, t):
        r"""Evaluate :math:`\log k_t` for each pair of rows of embedded points.

        Parameters
        ----------
        Z, W : ndarray, shape (n, embed_dim)
        t : float
            Time, positive.

        Returns
        -------
        ndarray, shape (n,)
        """
        total = 0.0
        for f, s in self.pieces():
            r = f.dist(Z[..., s], W[..., s])
            total = total + f.log_kernel(r, t) - r * r / (2 * t)
        return total
