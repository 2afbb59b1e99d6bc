r"""Spherical harmonics as regressors: spheres of any dimension, rotations, axes and other quotients of a sphere."""
from __future__ import annotations

import numpy as np
from scipy.linalg import svd
from scipy.sparse import block_diag
from scipy.special import roots_jacobi

from .. import smoothers
from ..errors import UnsupportedError
from ..harmonics import DenseHarmonics, SphericalHarmonics, WignerFunctions
from ..harmonics.base import levels
from ..manifolds import SpaceForm
from ..manifolds.base import parameter
from .base import EigenBasis

__all__ = ["QuadratureBasis", "sphere_rule"]

#: Accuracy of fast transforms, relative to the coefficients.
EPS = 1e-13
# Values of functions at nodes that are kept at most, in GiB.
_GIB = 1.0
# From this many values of functions at data points on, fast transforms are used instead of matrices.
_MANY = 2e7
# Values that are worked on together.
_BLOCK = 2**20
# Singular values below this part of what an invariant function has belong to no function.
_RANK = 1e-6


class QuadratureBasis(EigenBasis):
    r"""Eigenfunctions of a sphere, or those of them that a finite group of isometries leaves alone.

    Parameters
    ----------
    manifold : Manifold
        Its covering space is one sphere, of any dimension and radius: ``Sphere``, ``ProjectiveSpace``, ``SU2``,
        ``SO3`` with or without symmetries, a ``Quotient`` of these.
    max_level : int
        Highest degree l of the harmonic polynomials, on the covering sphere :math:`S^d`. Axes have the even ones; a
        rotation is a point of :math:`S^3` up to sign, and the matrix elements of its representation of spin j have
        the degree 2j.

    Attributes
    ----------
    n_nodes : int
        Nodes of the quadrature.

    Raises
    ------
    UnsupportedError
        If the covering space is no sphere.
    ValueError
        If no function up to `max_level` is left alone by the symmetries, or the values of all functions at all nodes
        would take more than 1 GiB.

    Notes
    -----
    With the density :math:`\rho` of the law with respect to the uniform probability :math:`\pi`, from
    :math:`\Gamma(f,g)=\frac12(L(fg)-fLg-gLf)` and the symmetry of L,

    .. math:: E_\rho\Gamma(\psi_i,\psi_j)
              =\tfrac12\big[(\mu_i+\mu_j)\,\pi(\psi_i\psi_j\rho)+\pi(\psi_i\psi_jL\rho)\big],\qquad
              \rho=\sum_k m_k\psi_k,\quad L\rho=-\sum_k\mu_km_k\psi_k .

    Products of two functions have twice the level at most, so that only means up to that level matter, and a
    quadrature that is exact up to four times the level makes the matrix exact: no gradients, and no table of the
    integrals of triple products, which are Gaunt's coefficients and their relatives (theory section 6.3). The rule is
    :func:`rdks.smoothers.quadrature` in two and three dimensions, and :func:`sphere_rule` elsewhere.

    Functions are those of :class:`.DenseHarmonics`, level by level. Those that a group leaves alone are found from
    sums over images of random points, which span them.

    Examples
    --------
    Under a law with the mean (0, 0, m) and no other means, :math:`\psi_z=\sqrt3z` has
    :math:`E\,\Gamma(\psi_z,\psi_z)=\frac32E(1-z^2)=1`, which is its rate:

    >>> import numpy as np
    >>> from rdks.eigenbases.quadrature import QuadratureBasis
    >>> from rdks.manifolds import Sphere
    >>> basis = QuadratureBasis(Sphere(2), 2)
    >>> basis.level, basis.decay
    (array([1, 1, 1, 2, 2, 2, 2, 2]), array([1., 1., 1., 3., 3., 3., 3., 3.]))
    >>> m = basis.moments(np.array([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]]), np.array([0.5, 0.5]))
    >>> bool(np.allclose(np.diag(basis.gram(m))[:3], [0.0, 1.5, 1.5]))  # at the poles: along x and y only
    True
    """

    def __init__(self, manifold, max_level):
        max_level = parameter("max_level", max_level, whole=True)
        factors = manifold.factors()
        if len(factors) != 1 or factors[0].kind != "sphere" or manifold.has_drift:
            raise UnsupportedError(f"{manifold!r} is neither a sphere nor a quotient of one: there is a quadrature for "
                                   "Sphere, ProjectiveSpace, SU2, SO3, and Quotient of these")
        self.manifold, self.max_level, self._tables = manifold, max_level, {}
        self._radius, self._unit = factors[0].radius, SpaceForm(factors[0].dim, radius=1.0)
        eigenvalue, count = levels(self._unit, 2 * max_level)
        self._check_size(count)
        # columns: the invariant functions, in terms of those of the sphere
        self._mix = self._invariants(count.astype(int))
        self.moment_level = np.repeat(np.arange(2 * max_level + 1), self._per_level)
        self.moment_decay = 0.5 * eigenvalue[self.moment_level] / self._radius**2
        own = self._own()
        self.level, self.decay = self.moment_level[own], self.moment_decay[own]
        if not len(self.decay):
            first = np.sqrt(manifold.smallest_eigenvalue * self._radius**2 + 0.25 * (self._unit.dim - 1) ** 2)
            raise ValueError(f"max_level = {max_level}: {manifold!r} has no eigenfunction but the constant up to this "
                             f"level. Its first one has level {round(first - 0.5 * (self._unit.dim - 1))}")

    def __getstate__(self):
        return {**self.__dict__, "_tables": {}}

    def _own(self):
        return slice(1, int(np.sum(self._per_level[:self.max_level + 1])))

    def _check_size(self, count):
        dim, degree = self._unit.dim, 4 * self.max_level
        if dim in (2, 3):
            self.n_nodes = int(smoothers.nodes(self.manifold, degree))
        else:  # as many as sphere_rule makes
            turn = degree // 2 + 1 if self.manifold.antipodal else degree + 1
            self.n_nodes = turn * (degree // 2 + 1) ** (dim - 1)
        functions = float(np.ceil(count[:self.max_level + 1].sum() / self.manifold.n_images))
        gib = 8.0 * self.n_nodes * functions / 2**30
        if gib > _GIB:
            raise ValueError(f"max_level = {self.max_level} on {self.manifold!r}: some {functions:.6g} functions at "
                             f"{self.n_nodes} nodes of the quadrature would take {gib:.3g} GiB, more than the "
                             f"{_GIB:g} GiB that are allowed. Lower max_level")

    def _harmonics(self, level):
        """Real harmonics of the unit sphere up to a level."""
        key = "harmonics", level
        if key not in self._tables:
            dim = self._unit.dim
            self._tables[key] = DenseHarmonics((self._unit,), float(level * (level + dim - 1)))
        return self._tables[key]

    def _invariants(self, count):
        """Return orthonormal invariant functions as columns of a sparse matrix; sets their number by level."""
        manifold = self.manifold
        order = manifold.n_images // (2 if manifold.antipodal else 1)
        start = np.append(0, np.cumsum(count))
        blocks = [np.eye(n) for n in count]
        if manifold.antipodal:
            blocks[1::2] = [np.zeros((n, 0)) for n in count[1::2]]
        if order > 1:
            harmonics = self._harmonics(2 * self.max_level)
            # so many that they span every level
            Z = manifold.random(int(count.max()) + 8, np.random.default_rng(0))
            images = np.moveaxis(manifold.images(Z)[:order], 0, 1) / self._radius
            sums = np.column_stack([harmonics.analyse(orbit, np.ones(order), EPS).ravel() for orbit in images])
            least = _RANK * order * np.sqrt(len(Z) / self._unit.volume)
            for level, block in enumerate(blocks):
                if block.shape[1]:
                    U, size, _ = svd(sums[start[level]:start[level + 1]], full_matrices=False)
                    blocks[level] = U[:, size > least]
            blocks[0] = np.ones((1, 1))
        self._per_level = [block.shape[1] for block in blocks]
        return block_diag(blocks, format="csr")

    def _rule(self):
        """Nodes of the unit sphere, or of half of it, and weights that sum to one."""
        if "rule" not in self._tables:
            dim, degree = self._unit.dim, 4 * self.max_level
            if dim in (2, 3):
                Z, weight, _ = smoothers.quadrature(self.manifold, degree)
                Z = Z / self._radius
            else:
                Z, weight = sphere_rule(dim, degree, self.manifold.antipodal)
            self._tables["rule"] = Z, weight / weight.sum()
        return self._tables["rule"]

    def _values(self):
        """Values of the K functions at the q nodes, (K, q)."""
        if "values" not in self._tables:
            coefs = self._coefficients(np.eye(len(self.decay))).T[:, None]
            self._tables["values"] = self._harmonics(self.max_level).synthesise(coefs, self._rule()[0], EPS)
        return self._tables["values"]

    def _coefficients(self, coef, whole=False):
        """Turn coefficients (k, ...) of the first functions into those of the sphere up to their level."""
        first = 0 if whole else 1
        level = 2 * self.max_level if whole else int(self.level[len(coef) - 1])
        size = int(levels(self._unit, level)[1].sum())
        return np.sqrt(self._unit.volume) * (self._mix[:size, first:first + len(coef)] @ coef)

    def moments(self, Z, share):
        Z, harmonics = np.asarray(Z, dtype=float) / self._radius, self._harmonics(2 * self.max_level)
        weight = np.asarray(share, dtype=float)
        if self._unit.dim in (2, 3) and len(Z) * harmonics.shape[1] > _MANY:
            Z, weight = self._as_nodes(Z, weight)
        found = harmonics.analyse(Z, weight, EPS)[0]
        return np.sqrt(self._unit.volume) * (self._mix.T @ found)

    def _fast(self, level):
        """Complex harmonics with fast transforms, and the volume that makes sums over the nodes integrals for them."""
        make = SphericalHarmonics if self._unit.dim == 2 else WignerFunctions
        # where only even functions are kept, each point counts as two
        volume = self._unit.volume / (2 if self.manifold.antipodal else 1)
        return make(level, 1.0, even=self.manifold.antipodal), volume

    def _as_nodes(self, Z, weight):
        """Put points off to the nodes of the quadrature, by fast transforms: the means stay the same."""
        (fast, volume), (nodes, share) = self._fast(2 * self.max_level), self._rule()
        coef = fast.analyse(Z, weight, EPS)
        return nodes, volume * share * fast.synthesise(coef[None], nodes, EPS)[0]

    def _as_fast(self, harmonics, coef, level):
        """Expand a function in the harmonics of `_fast`, from its values at the nodes."""
        (fast, volume), (nodes, share) = self._fast(level), self._rule()
        return fast, fast.analyse(nodes, volume * share * harmonics.synthesise(coef[None], nodes, EPS)[0], EPS)

    def gram(self, moments):
        moments = np.asarray(moments, dtype=float)
        both = np.column_stack([moments, -self.moment_decay * moments])
        nodes, weight = self._rule()
        rho, flow = weight * self._harmonics(2 * self.max_level).synthesise(
            self._coefficients(both, whole=True).T[:, None], nodes, EPS)
        values, half = self._values(), np.zeros((len(self.decay),) * 2)
        step = max(_BLOCK // len(self.decay), 1)
        for a in range(0, len(nodes), step):
            V = values[:, a:a + step]
            half += V @ (V * (np.outer(self.decay, rho[a:a + step]) + 0.5 * flow[a:a + step])).T
        # the terms of mu_i and mu_j are each other's transpose
        return 0.5 * (half + half.T)

    def own(self, moments):
        return np.asarray(moments)[self._own()]

    def evaluate(self, Z, coef, order=1):
        Z, coef = np.asarray(Z, dtype=float) / self._radius, np.asarray(coef, dtype=float)
        level = int(self.level[len(coef) - 1])
        harmonics, c = self._harmonics(level), self._coefficients(coef)[None]
        if self._unit.dim == 2 and len(Z) * harmonics.shape[1] > _MANY:  # on S^3 matrices are as fast
            harmonics, c = self._as_fast(harmonics, c, level)
        parts = [c[None]]
        if order > 0:
            parts.append(harmonics.fields(c))
        if order > 1:
            parts.append(-(harmonics.spread(harmonics.eigenvalue) * c)[None] / self._radius**2)
        found = harmonics.synthesise(np.concatenate(parts), Z, EPS)
        gradient = laplacian = None
        if order > 0:
            gradient = harmonics.gradient(Z, found[1:1 + len(parts[1])]) / self._radius
        if order > 1:
            laplacian = found[-1]
        return found[0], gradient, laplacian


def sphere_rule(dim, degree, even=False):
    r"""Return a quadrature that is exact for polynomials up to a degree on the unit sphere.

    Gauss and Gegenbauer's nodes for the last coordinate u, with the weight :math:`(1-u^2)^{(d-2)/2}`, times the
    rule of the sphere of one dimension less scaled by :math:`\sqrt{1-u^2}`, down to equally spaced points on a circle
    (Stroud, Approximate Calculation of Multiple Integrals, 1971, section 2.6).

    Parameters
    ----------
    dim : int
        Dimension d >= 1 of the sphere :math:`S^d`.
    degree : int
        >= 0.
    even : bool
        Whether functions are the same at x and -x: one of each two opposite nodes is then enough.

    Returns
    -------
    Z : ndarray, shape (q, dim + 1)
    weight : ndarray, shape (q,)
        Positive, they sum to one.

    Examples
    --------
    >>> from rdks.eigenbases.quadrature import sphere_rule
    >>> Z, weight = sphere_rule(4, 6)
    >>> len(Z), round(float(weight @ Z[:, 0] ** 4), 12)  # 3 / ((d + 1) (d + 3))
    (448, 0.085714285714)
    """
    half = degree // 2 + 1
    # an even number of points on the circle has opposite ones
    angle = np.arange(half) * (np.pi / half) if even else np.arange(degree + 1) * (2 * np.pi / (degree + 1))
    Z, weight = np.column_stack([np.cos(angle), np.sin(angle)]), np.full(len(angle), 1 / len(angle))
    for d in range(2, dim + 1):
        u, part = roots_jacobi(half, 0.5 * (d - 2), 0.5 * (d - 2))
        across = np.sqrt((1 - u) * (1 + u))
        Z = np.concatenate([(across[:, None, None] * Z).reshape(-1, d), np.repeat(u, len(Z))[:, None]], axis=1)
        weight = np.outer(part / part.sum(), weight).ravel()
    return Z, weight
