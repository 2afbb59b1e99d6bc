"""Products of manifolds."""
from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from ..errors import UnsupportedError
from .base import Manifold, parameter

__all__ = ["Product"]

_MOST_IMAGES = 4096


@dataclass(frozen=True, init=False, repr=False)
class Product(Manifold):
    r"""Product of manifolds: a point is a point of each, written one after the other.

    Parameters
    ----------
    *parts : Manifold
        The manifolds, each with its own chart and unit; points are rows of all their numbers.
    times : sequence of float, optional
        How fast each part diffuses: part i has the time ``times[i] * t``, so its bandwidth is
        ``sqrt(times[i])`` times that of the fit. 1 for all by default.

    Notes
    -----
    Heat kernels multiply, :math:`k_t(x,y)=\prod_ik^{(i)}_{a_it}(x_i,y_i)`, with the generator
    :math:`\frac12\sum_ia_i\Delta_i`. Densities stay per unit of the parts' own volume and scores per unit of
    their own length. Distances, and tangent vectors in embedded coordinates, are in the metric in which
    that diffusion is Brownian motion, in which lengths of part i are divided by :math:`\sqrt{a_i}`;
    `score_divergence` is :math:`\sum_ia_i\Delta_i\log p`.

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

    A bandwidth of 0.1 radians with one of 0.5 hours:

    >>> Product(Sphere(2), Circle(period=24.0), times=(1.0, 25.0)).times
    (1.0, 25.0)
    """

    parts: tuple[Manifold, ...]
    times: tuple[float, ...]

    def __init__(self, *parts, times=None):
        bad = [part for part in parts if not isinstance(part, Manifold)]
        if bad or not parts:
            found = f"{bad[0]!r}" if bad else "nothing"
            raise ValueError(f"Product: expected one or more rdks manifolds, found {found}")
        for part in parts:
            if part.kernel != "factors":
                raise UnsupportedError(f"Product: {part!r} has no heat kernel in closed form, so a product with it has "
                                       "none that sums could use. Fit it alone")
            if part.has_drift:
                raise UnsupportedError(f"Product: {part!r} has a drift, and sums over a product have one clock for all "
                                       "parts. Fit it alone, or use OrnsteinUhlenbeck(d) for several coordinates")
        times = (1.0,) * len(parts) if times is None else tuple(times)
        if len(times) != len(parts):
            raise ValueError(f"times = {times!r}: expected one number per part, {len(parts)} in all")
        images = math.prod(part.n_images for part in parts)
        if images > _MOST_IMAGES:
            counts = " x ".join(str(part.n_images) for part in parts)
            raise UnsupportedError(f"Product: {counts} = {images} images of each point are more than the "
                                   f"{_MOST_IMAGES} that are supported")
        object.__setattr__(self, "parts", tuple(parts))
        object.__setattr__(self, "times", tuple(parameter(f"times[{i}]", a) for i, a in enumerate(times)))

    def __repr__(self):
        shown = [repr(part) for part in self.parts]
        if any(a != 1.0 for a in self.times):
            shown.append(f"times={self.times}")
        return f"Product({', '.join(shown)})"

    @property
    def dim(self):
        return sum(part.dim for part in self.parts)

    @property
    def point_shape(self):
        return (sum(self._sizes()),)

    def _sizes(self):
        return [int(np.prod(part.point_shape)) for part in self.parts]

    @property
    def log_unit(self):
        return sum(part.log_unit - 0.5 * part.dim * math.log(a) for part, a in zip(self.parts, self.times, strict=True))

    @property
    def smallest_eigenvalue(self):
        return min(a * part.smallest_eigenvalue for part, a in zip(self.parts, self.times, strict=True))

    def factors(self):
        out = []
        for part, a in zip(self.parts, self.times, strict=True):
            unit = math.sqrt(a)
            out += [replace(f, radius=f.radius and f.radius / unit, period=f.period and f.period / unit)
                    for f in part.factors()]
        return tuple(out)

    def _scaling(self):
        """Return, by embedded column, the number that columns of the parts are divided by."""
        return np.concatenate([np.full(f.width, 1.0 if f.hyperbolic else math.sqrt(a))
                               for part, a in zip(self.parts, self.times, strict=True) for f in part.factors()])

    def _split(self, Z, widths):
        return np.split(np.asarray(Z, dtype=float).reshape(len(Z), sum(widths)), np.cumsum(widths)[:-1], axis=1)

    def _points(self, X):
        """Pair each part with its points, in the shape it expects."""
        return [(part, piece.reshape(len(piece), *part.point_shape))
                for part, piece in zip(self.parts, self._split(X, self._sizes()), strict=True)]

    def _embedded(self, Z):
        """Pair each part with its embedded points, in its own length unit."""
        return zip(self.parts, self._split(Z * self._scaling(), [part.embed_dim for part in self.parts]), strict=True)

    def embed(self, X):
        return np.concatenate([part.embed(P) for part, P in self._points(X)], axis=1) / self._scaling()

    def unembed(self, Z):
        return np.concatenate([part.unembed(P).reshape(len(P), size)
                               for (part, P), size in zip(self._embedded(Z), self._sizes(), strict=True)], axis=1)

    def _push(self, X, V, power):
        pieces = self._split(V, [part.embed_dim for part in self.parts])
        return np.concatenate([
            part.push_tangent(P, W * a**power).reshape(len(P), size)
            for (part, P), W, a, size in zip(self._points(X), pieces, self.times, self._sizes(), strict=True)], axis=1)

    def push_tangent(self, X, V):
        return self._push(X, V, 0.5)

    def push_gradient(self, X, G):
        # the gradient in the metric of the diffusion is times a that in the part's own
        return self._push(X, G, -0.5)

    @property
    def n_images(self):
        return math.prod(part.n_images for part in self.parts)

    def images(self, Z):
        out = None
        for part, P in self._embedded(Z):
            here = part.images(P)
            if out is None:
                out = here
                continue
            shape = (len(out), len(here), len(Z))
            out = np.concatenate([np.broadcast_to(out[:, None], (*shape, out.shape[-1])),
                                  np.broadcast_to(here[None], (*shape, here.shape[-1]))], axis=-1)
            out = out.reshape(-1, *out.shape[2:])
        return out / self._scaling()

    @property
    def is_homogeneous(self):
        return all(part.is_homogeneous for part in self.parts)

    def random(self, n, rng):
        return np.concatenate([part.random(n, rng) for part in self.parts], axis=1) / self._scaling()

    def project(self, Z):
        return np.concatenate([part.project(P) for part, P in self._embedded(Z)], axis=1) / self._scaling()

    def violation(self, X):
        return np.max([part.violation(P) for part, P in self._points(X)], axis=0)

    def constraint(self):
        return "the worst of " + ", ".join(f"({part.constraint()})" for part in self.parts)
