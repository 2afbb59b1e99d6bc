r"""Manifolds as products of space forms.

Half a page that explains every trick of the package
-----------------------------------------------------
A **space form** is a complete space of constant curvature: :math:`R^d`, a circle, a sphere,
hyperbolic space. Its isometries carry any pair of points to any other pair at the same distance, so
its heat kernel depends on the distance alone. Most spaces here are products of space forms (the
*factors*), written in coordinates in which distance is easy:

* a flat factor is written in its own coordinates (a circle as an angle with a period);
* a sphere of radius R as a vector of length R in one dimension more;
* hyperbolic space as a point of the upper half-space.

In these **embedded** coordinates the squared **chord** c (:math:`|x-y|^2`, modulo the period on circles;
:math:`R^2|x-y|^2/x_dy_d` in hyperbolic space, the d-th coordinate being the height) is a smooth, strictly
increasing function of the squared distance, and it keeps its digits for close pairs, where
:math:`1-\langle x,y\rangle` has lost them. The log heat kernel is therefore
:math:`\sum_f\log k^{(f)}_t(c_f)`: functions of one variable, which can be put in tables that compiled code
reads. The gradient is :math:`\partial_c\log k` times that of the chord, projected on the tangent space once
at the end.

A tangent vector is written so that Euclidean inner products of its numbers are the Riemannian ones: in the
embedding on flat factors and spheres, in the orthonormal frame :math:`e_j=(x_d/R)\,\partial_j` of the
half-space on hyperbolic factors.

So a manifold is: its factors, a way to write its points (`embed`, `unembed`), and nothing else. Geometry,
heat kernel, sums, sampling and bandwidths follow from the factors. Two refinements carry further:

* **images**: a quotient by a finite group of isometries (rotations are unit quaternions up to sign, a box is a
  torus folded at its walls) says which points of the covering space lie over a point; its heat kernel is that
  of the cover summed over the images of the source (theory section 2.4 in words: heat does not know
  which copy it came from);
* **flow**: a process with a linear drift says where a source goes and which time its kernel then has.

Spaces that are not of this kind say so by `kernel` and bring a kernel for pairs of points, or a basis of
eigenfunctions.
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
    hyperbolic : bool
        Hyperbolic space of curvature -1/radius^2 and dimension >= 2 instead of a sphere.

    Attributes
    ----------
    kind : {"line", "circle", "sphere", "hyperbolic"}
    width : int
        Number of embedded coordinates: ``dim``, or ``dim + 1`` for a sphere.
    reach : float
        Largest distance between two points.
    volume : float
        Riemannian volume: ``inf`` for flat and hyperbolic space, and where it exceeds the range of floats.
    log_volume : float
        Its logarithm, ``inf`` for flat and hyperbolic space only.

    Examples
    --------
    >>> from rdks.manifolds.base import SpaceForm
    >>> SpaceForm(2, radius=1.0).width, SpaceForm(1, period=24.0).reach
    (3, 12.0)
    """

    dim: int
    radius: float | None = None
    period: float | None = None
    hyperbolic: bool = False

    @property
    def kind(self):
        if self.radius is not None:
            return "hyperbolic" if self.hyperbolic else "sphere"
        return "line" if self.period is None else "circle"

    @property
    def width(self):
        return self.dim + (self.kind == "sphere")

    @property
    def scale(self):
        """Radius of curvature, or of the circle drawn in the plane; None for Euclidean space."""
        return self.radius if self.period is None else self.period / (2 * np.pi)

    @property
    def curvature(self):
        """Sectional curvature: 1/radius^2, -1/radius^2 in hyperbolic space, or 0."""
        if self.radius is None:
            return 0.0
        return -(self.radius**-2) if self.hyperbolic else self.radius**-2

    @property
    def reach(self):
        return {"sphere": np.pi * (self.radius or 0.0), "circle": 0.5 * (self.period or 0.0)}.get(self.kind, np.inf)

    @property
    def volume(self):
        return float(_exp(self.log_volume)) if self.period is None else self.period

    @property
    def log_volume(self):
        if self.kind == "sphere":
            return float(heat.log_sphere_area(self.dim) + self.dim * np.log(self.radius))
        return np.inf if self.period is None else float(np.log(self.period))

    @property
    def smallest_eigenvalue(self):
        """First positive eigenvalue of minus the Laplacian, 0 where the spectrum is continuous."""
        if self.kind == "sphere":
            return self.dim / self.radius**2
        return 0.0 if self.period is None else (2 * np.pi / self.period) ** 2

    # geometry, on arrays of shape (n, width)

    def violation(self, X):
        """Measure how far each row is from the constraint, relative to its size; shape (n,)."""
        if self.kind == "sphere":
            return np.abs(_norm(X) / self.radius - 1.0)
        return np.where(X[..., -1] > 0, 0.0, 1.0 - X[..., -1]) if self.hyperbolic else np.zeros(len(X))

    def project(self, X):
        """Return the nearest points; shape (n, width). The centre of a sphere and a height <= 0 give NaN."""
        if self.kind == "circle":
            # one number per point of the circle: copies of a point are seen only if they are equal
            return wrap(X, self.period)
        if self.kind == "line":
            return X
        if self.kind == "hyperbolic":
            return np.where(X[..., -1:] > 0, X, np.nan)
        with np.errstate(invalid="ignore", divide="ignore"):
            return X * (self.radius / _norm(X))[..., None]

    def to_tangent(self, X, V):
        """Project ambient vectors V on the tangent spaces at X; shape (n, width)."""
        if self.kind != "sphere":
            return V
        unit = X / self.radius
        return V - np.einsum("...j,...j->...", unit, V)[..., None] * unit

    def velocity(self, X, V):
        """Write tangent vectors at X as rates of change of the embedded coordinates; shape (n, width)."""
        return V * (X[..., -1:] / self.radius) if self.hyperbolic else V

    def difference(self, X, Y):
        """Return X - Y, taken modulo the period; shape (..., width)."""
        D = X - Y
        return D if self.period is None else D - self.period * np.rint(D / self.period)

    def exp(self, X, V):
        """Follow the geodesic from X with velocity V for unit time; shape (n, width)."""
        if self.kind == "hyperbolic":
            # Seen from X the half-space is one in which X has height 1: with u the direction and s the length,
            # the height becomes 1 / (cosh s - u_d sinh s), in the form that does not cancel.
            length = _norm(V)
            u = V / np.where(length > 0, length, 1.0)[..., None]
            s, across, up = length / self.radius, np.einsum("...j,...j->...", u[..., :-1], u[..., :-1]), u[..., -1]
            less = np.where(up > 0, across / (1 + np.abs(up)), 1 - up)
            fall = 0.5 * (np.exp(s) * less + np.exp(-s) * (2 - less))
            height = X[..., -1:]
            aside = X[..., :-1] + height * (np.sinh(s) / fall)[..., None] * u[..., :-1]
            return np.concatenate([aside, height / fall[..., None]], axis=-1)
        if self.kind != "sphere":
            return X + V  # not wrapped: a geodesic on a circle is a continuous curve
        angle = _norm(V)[..., None] / self.radius
        return self.project(np.cos(angle) * X + np.sinc(angle / np.pi) * V)

    def log(self, X, Y):
        """Return the initial velocity of the shortest geodesic from X to Y; shape (n, width).

        At the antipode every direction is shortest: one of them is returned, of full length.
        """
        if self.kind == "hyperbolic":
            D = (Y - X) / X[..., -1:]  # seen from X, at height 1
            rise = D[..., -1]
            V = D.copy()
            V[..., -1] = rise + 0.5 * np.einsum("...j,...j->...", D[..., :-1], D[..., :-1]) + 0.5 * rise * rise
            size, r = _norm(V), self.dist(X, Y)
            return V * np.divide(r, size, out=np.zeros_like(r), where=size > 0)[..., None]
        if self.kind != "sphere":
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
        if self.kind == "hyperbolic":
            return 2 * self.radius * np.arcsinh(0.5 * chord / np.sqrt(X[..., -1]) / np.sqrt(Y[..., -1]))
        if self.kind != "sphere":
            return chord
        return 2 * self.radius * np.arctan2(chord, _norm(X + Y))

    def frame(self, X):
        """Return an orthonormal basis of each tangent space; shape (n, dim, width)."""
        X = np.asarray(X, dtype=float)
        eye = np.eye(self.width)
        if self.kind != "sphere":
            return np.broadcast_to(eye, X.shape[:-1] + eye.shape).copy()
        # The reflection that carries the last axis to -sign * x carries the others to a basis.
        unit = X / self.radius
        sign = np.where(unit[..., -1:] < 0, -1.0, 1.0)
        u = unit.copy()
        u[..., -1:] += sign
        u = u / _norm(u)[..., None]
        return eye[:-1] - 2 * u[..., :-1, None] * u[..., None, :]

    def random(self, n, rng):
        """Draw points: uniform ones where the volume is finite, else normal ones; shape (n, width)."""
        if self.kind == "circle":
            return rng.uniform(0.0, self.period, (n, 1))
        Z = rng.standard_normal((n, self.width))
        if self.kind == "hyperbolic":
            middle = np.zeros_like(Z)
            middle[:, -1] = 1.0
            return self.exp(middle, self.radius * Z)
        return self.project(Z)

    # heat kernel

    def log_kernel(self, r, t):
        r"""Evaluate :math:`\log k_t(r)+r^2/2t` at distances `r`; see :mod:`rdks.heat`."""
        R = self.scale
        if R is None:
            return np.full(np.shape(r), -0.5 * self.dim * np.log(2 * np.pi * t))
        log_unit = heat.log_hyperbolic if self.hyperbolic else heat.log_sphere
        return log_unit(np.asarray(r) / R, t / R**2, self.dim) - self.dim * np.log(R)

    def slopes(self, r, t):
        r"""Return :math:`\partial_c\log k_t` and :math:`\Delta k_t/k_t` at distances `r`.

        Here c is the squared chord in embedded coordinates, :math:`4R^2\sin^2(r/2R)` on a sphere,
        :math:`4R^2\sinh^2(r/2R)` in hyperbolic space and :math:`r^2` on a flat factor.
        """
        r = np.asarray(r, dtype=float)
        R = self.scale
        if R is None:
            return np.full(r.shape, -0.5 / t), (r * r / t - self.dim) / t
        slopes = heat.hyperbolic_slopes if self.hyperbolic else heat.sphere_slopes
        first, laplacian = slopes(r / R, t / R**2, self.dim)
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
        if self.kind == "hyperbolic":
            # log sinh x = x + log(1 - e^{-2x}) - log 2 does not overflow
            x = r / self.radius
            with np.errstate(divide="ignore"):
                log_arm = np.log(self.radius) + x + np.log(-0.5 * np.expm1(-2 * x))
            return heat.log_sphere_area(self.dim - 1) + (self.dim - 1) * log_arm
        arm = r if self.radius is None else self.radius * np.sin(r / self.radius)
        return heat.log_sphere_area(self.dim - 1) + xlogy(self.dim - 1, np.maximum(arm, 0.0))


class Manifold(ABC):
    """A Riemannian manifold: an immutable, hashable, picklable value.

    A subclass is a frozen dataclass that defines `factors`, `point_shape`, and, where points
    are not written in embedded coordinates, `embed`, `unembed`, `push_tangent` and
    `violation`. See :mod:`rdks.manifolds.sphere` for the model. A quotient defines `images`,
    `n_images` and `smallest_eigenvalue` too.

    Geometry works on **embedded** coordinates, arrays of shape (n, embed_dim), so that a
    sampler converts a chart once on the way in and once on the way out.
    """

    #: Largest violation taken for the rounding of a point on the manifold.
    tolerance = 1e-6
    #: How the heat kernel is known: "exact", "spectral" (eigenfunctions of a discretised space) or "asymptotic".
    exactness = "exact"
    #: Largest time for which the kernel is meaningful; finite where it is a small-time approximation.
    max_time = np.inf
    #: Shortest time that the space resolves; a rule chooses no bandwidth below its root.
    shortest_time = 0.0
    #: Relative error of a log kernel as computed, where it is not tabulated, and of its derivatives.
    rounding, slope_rounding = 1e-12, 1.6e-11
    #: What kernel sums use: "factors" (tables by space form), "pairs" (`pair_kernel`) or "basis".
    kernel = "factors"

    def factors(self):
        """Return the space forms whose product this (or its covering space) is, in the order of the coordinates."""
        return ()

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
        if self.n_images == 1 and self.log_unit == 0.0:
            with np.errstate(over="ignore", invalid="ignore"):
                product = float(np.prod([f.volume for f in self.factors()]))
            if 0 < product < np.inf:  # else huge and tiny factors left the range of floats on the way
                return product
        return float(_exp(self.log_volume))

    @property
    def log_volume(self):
        """Log of the Riemannian volume: the sum over the factors; ``inf`` for an infinite volume only."""
        return float(sum(f.log_volume for f in self.factors())) - self.log_unit - float(np.log(self.n_images))

    @property
    def log_unit(self):
        """Log of the embedded metric's unit of volume in the user's; 0 but where parts diffuse at different speeds."""
        return 0.0

    @property
    def scales(self):
        """Radii of curvature of the factors that have one: the lengths on which the space is not flat."""
        return tuple(f.scale for f in self.factors() if f.scale is not None)

    @property
    def injectivity_radius(self):
        """Distance up to which there is one shortest geodesic from every point, of the covering space in a quotient."""
        return min(f.reach for f in self.factors())

    @property
    def scalar_curvature(self):
        """Scalar curvature, for embedded lengths; None where it is not known."""
        return float(sum(f.dim * (f.dim - 1) * f.curvature for f in self.factors()))

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

    def read(self, X):
        """Turn an object that holds points, as scipy's Rotation does, into an array in the manifold's chart.

        Raises
        ------
        ValueError
            If the points of this manifold are not such objects.
        """
        raise ValueError(f"X is a {type(X).__name__}, but the points of {self!r} are arrays")

    def embed(self, X):
        """Convert points, shape (n, *point_shape), to embedded coordinates, (n, embed_dim)."""
        return self.project(np.asarray(X, dtype=float).reshape(len(X), -1))

    def unembed(self, Z):
        """Convert embedded coordinates, (n, embed_dim), to points, (n, *point_shape)."""
        return self.project(np.asarray(Z, dtype=float)).reshape((len(Z), *self.point_shape))

    def push_tangent(self, X, V):
        """Write embedded tangent vectors V, (n, embed_dim), in the chart of the points X."""
        return np.asarray(V).reshape((len(V), *self.point_shape))

    def push_gradient(self, X, G):
        """Write embedded gradients G, (n, embed_dim), in the chart of the points X, per unit length of the user."""
        return self.push_tangent(X, G)

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

    # what lies over a point, and where the flow carries it

    @property
    def n_images(self):
        """Order of the group of which this is the quotient; 1 if it is none."""
        return 1

    def images(self, Z):
        """Return the points of the covering space that lie over each point.

        Parameters
        ----------
        Z : ndarray, shape (n, embed_dim)

        Returns
        -------
        ndarray, shape (n_images, n, embed_dim)
            Z itself first. For a quotient by a finite group of isometries, the orbit of each point.
        """
        return np.asarray(Z)[None]

    #: Whether the covering space is one sphere and the second half of the images is minus the first.
    antipodal = False

    @property
    def is_homogeneous(self):
        """Whether isometries carry any point to any other, so that the kernel from a point to itself is the same."""
        return self.n_images == 1

    #: Whether the process has a drift, as an Ornstein-Uhlenbeck process has; see `flow`.
    has_drift = False

    def flow(self, Z, t):
        """Return where a source goes, and which time its kernel has, after a time `t`: nowhere, and `t`.

        Parameters
        ----------
        Z : ndarray, shape (n, embed_dim)
        t : float

        Returns
        -------
        Z : ndarray, shape (n, embed_dim)
        t : float
        """
        return Z, t

    def clock(self, t):
        r"""Return m and u such that the process at time `t` is m times Brownian motion at time u: 1 and `t`.

        Only flat space can be scaled; with a linear drift it is.
        """
        return 1.0, t

    def time_at(self, u):
        """Return the time t at which `clock` shows u."""
        return u

    def velocity(self, Z, V):
        """Write tangent vectors at Z as rates of change of the embedded coordinates; shape (n, embed_dim).

        They differ where tangent vectors are written in a frame of their own, as in the half-space. Manifolds that
        are no products of space forms have it by differences along geodesics, right to about 1e-10.
        """
        if self.factors():
            return self._each("velocity", Z, V)
        size = _norm(V)[..., None]
        unit = 1e-5 * np.divide(V, size, out=np.zeros_like(V), where=size > 0)
        return (self.exp(Z, unit) - self.exp(Z, -unit)) * (size / 2e-5)

    def log_error(self, t):
        """Bound, or estimate where the kernel is not exact, the error of a log kernel at time `t` near its peak."""
        return 0.0

    def error_report(self, Z, t):
        """Say in a sentence how large the error of the kernel is at embedded points Z and time `t`."""
        return f"Near the data its logarithm is off by about {self.log_error(t):.2g} at this bandwidth."

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
        if self.n_images == 1:
            return self._each("log", Z, W)
        Z, W = np.broadcast_arrays(Z, W)
        images = self.images(W)
        nearest = np.array([self._cover_dist(Z, image) for image in images]).argmin(axis=0)
        return self._each("log", Z, images[nearest, np.arange(len(W))])

    def dist(self, Z, W):
        """Return the distance of each pair of rows; shape (n,)."""
        if self.n_images == 1:
            return self._cover_dist(Z, W)
        return np.min([self._cover_dist(Z, image) for image in self.images(W)], axis=0)

    def distances(self, Z, W):
        """Return the distance of each row of Z to each of W; shape (len(Z), len(W))."""
        return np.array([self.dist(np.broadcast_to(z, W.shape), W) for z in Z])

    def _cover_dist(self, Z, W):
        return np.sqrt(sum(f.dist(Z[..., s], W[..., s]) ** 2 for f, s in self.pieces()))

    def geodesic_length(self, Z, V):
        """Return how far geodesics from Z in the directions V go before they meet an edge of the space; shape (n,).

        inf where there is none, as at the walls of a `Box`, which geodesics of the covering space do not see.
        """
        return np.full(len(Z), np.inf)

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
            Sources and queries: the heat kernel is symmetric, a kernel with a drift is not.
        t : float
            Time, positive.

        Returns
        -------
        ndarray, shape (n,)
        """
        Z, t = self.flow(np.asarray(Z, dtype=float), t)
        logs = []
        for image in self.images(Z):
            total = self.log_unit
            for f, s in self.pieces():
                r = f.dist(image[..., s], W[..., s])
                total = total + f.log_kernel(r, t) - r * r / (2 * t)
            logs.append(total)
        return logs[0] if len(logs) == 1 else np.logaddexp.reduce(logs, axis=0)
