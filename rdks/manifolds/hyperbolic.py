"""Hyperbolic space."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .base import Manifold, SpaceForm, parameter

__all__ = ["Hyperbolic"]

_CHARTS = ("hyperboloid", "ball", "half_space")
#: Points may be this far from the origin, in radii of curvature: where a chart knows them to 1e-7, and in the
#: half-space where sinh of a distance stays within the range of floats.
_FARTHEST = {"hyperboloid": 20.0, "ball": 20.0, "half_space": 150.0}


@dataclass(frozen=True)
class Hyperbolic(Manifold):
    r"""Hyperbolic space :math:`H^d` of constant negative curvature.

    Parameters
    ----------
    dim : int
        Dimension d >= 2.
    coords : {"hyperboloid", "ball", "half_space"}
        How points are written. "hyperboloid": d + 1 numbers with :math:`-x_0^2+x_1^2+\dots+x_d^2=-R^2`,
        :math:`x_0>0`. "ball": the Poincare ball, d numbers with norm below 1. "half_space": d numbers, the last,
        the height, positive. The ball and the half-space are those of unit curvature for every radius.
    radius : float
        Radius of curvature R: the sectional curvature is :math:`-1/R^2`. It sets the length unit.

    Notes
    -----
    Heat kernel: :func:`rdks.heat.log_hyperbolic`. Inside, points are those of the half-space: there
    :math:`4\sinh^2(r/2R)=|x-y|^2/x_dy_d` cancels nothing, while Minkowski's product of two points far from the
    origin has no digits left. A point of the hyperboloid or the ball at a distance r from the origin is known to
    about :math:`10^{-16}e^{r/R}` only, whatever is done with it; the half-space has no such limit. Points may be up
    to 20 R from the origin in the former, 150 R in the latter.

    Scores are tangent vectors in the chart: d + 1 numbers on the hyperboloid, in the ball and the half-space
    the components of the Riemannian gradient, :math:`\lambda^{-2}` times the partial derivatives of the
    log density with :math:`\lambda=2R/(1-|x|^2)` and :math:`R/x_d`. There is no uniform law, and
    heat drifts away from where it was at the speed :math:`(d-1)/2R`.

    References
    ----------
    Ratcliffe, Foundations of Hyperbolic Manifolds, sections 3.2 and 4.5, for the models.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.manifolds import Hyperbolic
    >>> ball = Hyperbolic(2, coords="ball")
    >>> Z = ball.embed(np.array([[0.0, 0.0], [np.tanh(0.5), 0.0]]))
    >>> round(float(ball.dist(Z[:1], Z[1:])[0]), 12)
    1.0
    """

    dim: int = 2
    coords: str = "hyperboloid"
    radius: float = 1.0

    def __post_init__(self):
        object.__setattr__(self, "dim", parameter("dim", self.dim, whole=True))
        object.__setattr__(self, "radius", parameter("radius", self.radius))
        if self.dim < 2:
            raise ValueError(f"dim = {self.dim!r}: hyperbolic space has dimension 2 or more; a line is Euclidean(1)")
        if self.coords not in _CHARTS:
            raise ValueError(f"coords = {self.coords!r} is not one of {_CHARTS}")

    def factors(self):
        return (SpaceForm(self.dim, radius=self.radius, hyperbolic=True),)

    @property
    def point_shape(self):
        return (self.dim + 1,) if self.coords == "hyperboloid" else (self.dim,)

    def _points(self, X):
        return np.asarray(X, dtype=float).reshape(len(X), -1)

    def embed(self, X):
        X = self._points(X)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            if self.coords == "half_space":
                return np.where(X[:, -1:] > 0, X, np.nan)
            if self.coords == "ball":
                # an inversion about the north pole (0, ..., 0, 1), which becomes the point at infinity
                square = np.einsum("ij,ij->i", X, X)[:, None]
                below = np.einsum("ij,ij->i", X[:, :-1], X[:, :-1])[:, None] + (1 - X[:, -1:]) ** 2
                return np.where(square < 1, np.concatenate([2 * X[:, :-1], 1 - square], axis=1) / below, np.nan)
            aside, up = X[:, 1:-1] / self.radius, X[:, -1:] / self.radius
            # x_0 follows from the others; 1 / (x_0 - x_d) in the form that does not cancel
            square = np.einsum("ij,ij->i", aside, aside)[:, None]
            time = np.sqrt(1 + square + up * up)
            height = np.where(up > 0, (time + up) / (1 + square), 1 / (time - up))
            return np.where(X[:, :1] > 0, np.concatenate([aside * height, height], axis=1), np.nan)

    def unembed(self, Z):
        Z = np.asarray(Z, dtype=float)
        aside, height = Z[:, :-1], Z[:, -1:]
        square = np.einsum("ij,ij->i", aside, aside)[:, None]
        if self.coords == "half_space":
            return Z.copy()
        if self.coords == "ball":
            below = square + (1 + height) ** 2
            return np.concatenate([2 * aside, square + (height - 1) * (height + 1)], axis=1) / below
        half = (square + (height - 1) * (height + 1)) / (2 * height)
        return self.radius * np.concatenate([1 / height + half, aside / height, half], axis=1)

    def push_tangent(self, X, V):
        V = np.asarray(V, dtype=float)
        Z = self.embed(X)
        aside, height = Z[:, :-1], Z[:, -1:]
        W = V * height / self.radius  # velocity in the half-space
        if self.coords == "half_space":
            return W
        along = np.einsum("ij,ij->i", aside, W[:, :-1])[:, None]
        if self.coords == "ball":
            square = np.einsum("ij,ij->i", aside, aside)[:, None]
            below = square + (1 + height) ** 2
            rate = 2 * along + 2 * (1 + height) * W[:, -1:]
            top = np.concatenate([2 * aside, square + (height - 1) * (height + 1)], axis=1)
            change = np.concatenate([2 * W[:, :-1], 2 * along + 2 * height * W[:, -1:]], axis=1)
            return (change - top * rate / below) / below
        square = np.einsum("ij,ij->i", aside, aside)[:, None]
        rise = W[:, -1:] / height
        # half = (|a|^2 - 1) / 2h + h / 2 and x_0 = half + 1/h
        half = along / height + 0.5 * rise * (height - (square - 1) / height)
        return self.radius * np.concatenate(
            [half - rise / height, (W[:, :-1] - aside * rise) / height, half], axis=1)

    def violation(self, X):
        X = self._points(X)
        with np.errstate(invalid="ignore", over="ignore"):
            if self.coords == "half_space":
                size = np.maximum(np.abs(X).max(axis=1), 1.0)
                off = np.where(X[:, -1] > 0, 0.0, 1.0 - X[:, -1] / size)
            elif self.coords == "ball":
                norm = np.sqrt(np.einsum("ij,ij->i", X, X))
                off = np.where(norm < 1, 0.0, norm)
            else:
                Y = X / self.radius
                square = np.einsum("ij,ij->i", Y[:, 1:], Y[:, 1:])
                off = np.where(Y[:, 0] > 0, np.abs(Y[:, 0] / np.sqrt(1 + square) - 1.0), 1.0 - Y[:, 0])
            Z = self.embed(X)
            origin = np.zeros_like(Z)
            origin[:, -1] = 1.0
            far = self.dist(origin, Z) / self.radius
        return np.where((off <= self.tolerance) & ~(far <= _FARTHEST[self.coords]), far, off)

    def constraint(self):
        what = {"hyperboloid": "| x_0 / sqrt(R^2 + x_1^2 + ... + x_d^2) - 1 |, or 1 - x_0 / R where x_0 <= 0,",
                "ball": "the norm, which must be below 1,",
                "half_space": "1 - height (the last coordinate) where it is not positive"}[self.coords]
        return f"{what} or, beyond {_FARTHEST[self.coords]:g}, the distance from the origin in radii"

    def remedy(self):
        first = {"hyperboloid": "Give x_0, the coordinate with the minus sign, first.",
                 "ball": "A point of norm 1 is infinitely far away; next to it numbers have no digits left.",
                 "half_space": "Give the height last."}[self.coords]
        return (f"{first} Charts: coords={_CHARTS}; check_points='project' keeps the coordinates x_1, ..., x_d of a "
                "point of the hyperboloid and mends x_0.")
