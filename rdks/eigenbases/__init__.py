"""Eigenfunctions of a diffusion as regressors: see :mod:`rdks.eigenbases.base`."""
from __future__ import annotations

from ..errors import UnsupportedError
from ..manifolds import Box, OrnsteinUhlenbeck, Product
from .base import EigenBasis

__all__ = ["EigenBasis", "basis_for"]


def basis_for(manifold, max_level, interactions=None):
    """Return the eigenfunctions of a manifold up to a level.

    Parameters
    ----------
    manifold : Manifold
        An Ornstein-Uhlenbeck process (Hermite polynomials); a circle, a torus, a box or a product of circles or of
        boxes (trigonometric functions); any other product, with ``interactions=1``; a mesh, a graph or a point cloud
        (eigenvectors); a sphere, rotations and other compact spaces of one factor (quadrature).
    max_level : int
    interactions : int, optional
        Coordinates, or parts of a product, that a function may depend on; all if None.

    Returns
    -------
    EigenBasis

    Raises
    ------
    UnsupportedError
        For other manifolds.
    ValueError
        For a wrong level, and for more functions than fit into memory.

    Examples
    --------
    >>> from rdks.eigenbases import basis_for
    >>> from rdks.manifolds import Torus
    >>> len(basis_for(Torus(2), 3).decay)
    28
    """
    if isinstance(manifold, OrnsteinUhlenbeck):
        from .flat import HermiteBasis
        return HermiteBasis(manifold, max_level, interactions)
    if manifold.kernel == "basis":
        from .nodal import NodalBasis
        return NodalBasis(manifold, max_level)
    factors = manifold.factors()
    parts = manifold.parts if isinstance(manifold, Product) else (manifold,)
    folded = all(isinstance(part, Box) for part in parts)
    if factors and all(f.kind == "circle" for f in factors) and (folded or manifold.n_images == 1):
        from .flat import TrigonometricBasis
        return TrigonometricBasis(manifold, max_level, interactions)
    if len(parts) > 1 and interactions == 1:
        from .additive import AdditiveBasis
        return AdditiveBasis(manifold, max_level,
                             lambda part, level: basis_for(part, level, 1 if isinstance(part, Product) else None))
    if manifold.kernel == "factors" and len(factors) == 1 and factors[0].kind == "sphere":
        from .quadrature import QuadratureBasis
        return QuadratureBasis(manifold, max_level)
    raise UnsupportedError(f"{manifold!r} has no basis of eigenfunctions to match scores with: expected an "
                           "OrnsteinUhlenbeck process, a circle, a torus, a box, a sphere, rotations, a mesh, a graph, "
                           "a point cloud, or, with interactions=1, a product of these. Use RDKSEstimator")
