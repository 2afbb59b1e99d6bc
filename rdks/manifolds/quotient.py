"""Quotients by finite groups of isometries: points that a symmetry makes one."""
from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..errors import UnsupportedError
from . import isometries
from .base import Manifold, SpaceForm, parameter
from .symmetry import affine_maps, smallest_invariant_eigenvalue, upper

__all__ = ["ProjectiveSpace", "Quotient"]


@dataclass(frozen=True)
class ProjectiveSpace(Manifold):
    r"""Projective space :math:`RP^d`: axes, that is unit vectors up to sign.

    Parameters
    ----------
    dim : int
        Dimension d >= 1; an axis is written as a unit vector of d + 1 numbers, of either sign.

    Notes
    -----
    The sphere :math:`S^d` with opposite points made one: :math:`k_t(x,y)=p_t(u)+p_t(-u)`,
    :math:`u=\langle x,y\rangle`, with the heat kernel p of the sphere; the spectrum is that of its even levels.
    Distance is the angle between axes, at most a right angle; the volume is half that of the sphere. Results
    are written with a positive last coordinate. The score at -x is minus that at x: both are the tangent
    vector of the same axis. Axes in latitude and longitude are a
    :class:`~rdks.manifolds.Quotient` of ``Sphere(2, coords="latlon_deg")``.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.manifolds import ProjectiveSpace
    >>> axes = ProjectiveSpace(2)
    >>> Z = axes.embed(np.array([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]]))
    >>> np.round(axes.dist(Z[:1], Z), 12)
    array([0.        , 0.        , 1.57079633])
    """

    dim: int = 2

    antipodal = True

    def __post_init__(self):
        object.__setattr__(self, "dim", parameter("dim", self.dim, whole=True))

    @property
    def point_shape(self):
        return (self.dim + 1,)

    def factors(self):
        return (SpaceForm(self.dim, radius=1.0),)

    @property
    def n_images(self):
        return 2

    def images(self, Z):
        Z = np.asarray(Z, dtype=float)
        return np.stack([Z, -Z])

    def project(self, Z):
        return upper(super().project(Z))

    def random(self, n, rng):
        return self.project(super().random(n, rng))

    @property
    def is_homogeneous(self):
        return True

    def push_tangent(self, X, V):
        X = np.asarray(X, dtype=float)
        # V is tangent at embed(X), which is X or -X
        sign = np.where(np.einsum("nj,nj->n", X, self.embed(X)) < 0, -1.0, 1.0)
        return sign[:, None] * V

    @property
    def smallest_eigenvalue(self):
        return 2.0 * (self.dim + 1)

    def constraint(self):
        return "| ||x|| - 1 |"


@dataclass(frozen=True, repr=False)
class Quotient(Manifold):
    r"""Quotient M/G of a manifold by a finite group of isometries.

    Parameters
    ----------
    manifold : Manifold
        M, a product of spheres and flat factors, or itself a quotient of one. Points are written as those of M,
        in its chart.
    group : array-like, shape (g, m, m)
        All elements of G, as matrices that act on embedded coordinates: orthogonal, to the rounding
        of their coefficients. See :meth:`generated` for a group given by a few of its elements.
    shifts : array-like, shape (g, m), optional
        Translations of the flat factors: element i is ``Z -> group[i] @ Z + shifts[i]``; 0 by default.

    Raises
    ------
    ValueError
        If an element is no isometry of M, two act alike, the identity is missing, or a product of two is
        missing; the message names them.
    UnsupportedError
        If M has a hyperbolic factor, whose isometries are not matrices, a drift, or no heat kernel in closed form; or
        the group has more than 1000 elements.

    Notes
    -----
    :math:`k^{M/G}_t(x,y)=\sum_gk^M_t(gx,y)`: heat does not know which copy of a point it came from. The
    distance is that to the nearest copy, the volume that of M divided by the order of G. A density is constant on
    orbits; its score at gx is that at x, turned by g. Samples are written as one of their copies.

    G need not act freely. Where a reflection leaves points alone, they are a wall that reflects; where a rotation
    does, an edge or the tip of a cone: the sum over images is right there too.

    Copies of a point count as one observation where a rule chooses the bandwidth. The smallest eigenvalue is exact
    on compact M; otherwise it is that of M, a lower bound.

    Examples
    --------
    The angle of a molecule with a threefold axis: turns by 120 degrees are no turns.

    >>> import numpy as np
    >>> from rdks.manifolds import Circle, Quotient
    >>> methyl = Quotient(Circle(period=360.0), [[[1.0]]] * 3, shifts=[[0.0], [120.0], [240.0]])
    >>> float(methyl.dist(np.array([[10.0]]), np.array([[245.0]]))[0])
    5.0
    """

    manifold: Manifold
    group: tuple = ()
    shifts: tuple | None = None
    _maps: tuple = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        base = self.manifold
        isometries.check_base(base)
        A, b = isometries.as_maps(base, self.group, self.shifts, "group")
        if len(A) * base.n_images > isometries.MAX_ORDER:
            raise UnsupportedError(f"Quotient: {len(A)} elements with the {base.n_images} images of {base!r} are more "
                                   f"than the {isometries.MAX_ORDER} that are supported")
        object.__setattr__(self, "_maps", (A, b))
        isometries.check_group(base, *affine_maps(self), len(A))
        first = isometries.find_identity(base, A, b)  # the identity first, as `images` promises
        order = np.r_[first, 0:first, first + 1:len(A)]
        A, b = A[order], b[order]
        object.__setattr__(self, "_maps", (A, b))
        object.__setattr__(self, "group", tuple(tuple(map(tuple, a)) for a in A.tolist()))
        object.__setattr__(self, "shifts", tuple(map(tuple, b.tolist())) if b.any() else None)

    @classmethod
    def generated(cls, manifold, generators, shifts=None):
        """Return the quotient by the smallest group that contains some isometries.

        Parameters
        ----------
        manifold : Manifold
        generators : array-like, shape (k, m, m)
        shifts : array-like, shape (k, m), optional
            As in the class.

        Raises
        ------
        ValueError
            Also if the isometries generate more than 1000 others.

        Examples
        --------
        An eighth of the sphere, with mirrors for walls:

        >>> import numpy as np
        >>> from rdks.manifolds import Quotient, Sphere
        >>> octant = Quotient.generated(Sphere(2), [np.diag([-1, 1, 1]), np.diag([1, -1, 1]), np.diag([1, 1, -1])])
        >>> octant.n_images, round(octant.volume / np.pi, 12), round(octant.smallest_eigenvalue, 12)
        (8, 0.5, 6.0)
        """
        isometries.check_base(manifold)
        A, b = isometries.as_maps(manifold, generators, shifts, "generators")
        return cls(manifold, *isometries.generate(manifold, A, b))

    def __repr__(self):
        return f"Quotient({self.manifold!r}, <group of {len(self.group)}>)"

    @property
    def n_images(self):
        return len(self._maps[0]) * self.manifold.n_images

    def images(self, Z):
        A, b = self._maps
        Z = np.asarray(Z, dtype=float)
        moved = np.einsum("gij,nj->gni", A, Z) + b[:, None]
        # the images, in the base, of each copy
        return self.manifold.images(moved.reshape(-1, Z.shape[1])).reshape(-1, *Z.shape)

    @property
    def is_homogeneous(self):
        return len(self.group) == 1 and self.manifold.is_homogeneous

    @property
    def smallest_eigenvalue(self):
        if np.isfinite(self.log_volume):
            return smallest_invariant_eigenvalue(self)
        return self.manifold.smallest_eigenvalue

    # everything else is that of the base

    @property
    def dim(self):
        return self.manifold.dim

    @property
    def tolerance(self):
        return self.manifold.tolerance

    @property
    def point_shape(self):
        return self.manifold.point_shape

    @property
    def log_unit(self):
        return self.manifold.log_unit

    def factors(self):
        return self.manifold.factors()

    def read(self, X):
        return self.manifold.read(X)

    def embed(self, X):
        return self.manifold.embed(X)

    def unembed(self, Z):
        return self.manifold.unembed(Z)

    def push_tangent(self, X, V):
        return self.manifold.push_tangent(X, V)

    def push_gradient(self, X, G):
        return self.manifold.push_gradient(X, G)

    def violation(self, X):
        return self.manifold.violation(X)

    def constraint(self):
        return self.manifold.constraint()

    def remedy(self):
        return self.manifold.remedy()

    def project(self, Z):
        return self.manifold.project(Z)

    def random(self, n, rng):
        return self.manifold.random(n, rng)
