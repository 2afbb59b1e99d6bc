"""Eigenfunctions of the Laplacian, with transforms between points and coefficients."""
from __future__ import annotations

import numpy as np

from ..manifolds.point_groups import rotation_group
from ..manifolds.rotations import SO3
from ..manifolds.symmetry import affine_maps
from .base import CHUNK, Harmonics, degree_for
from .dense import DenseHarmonics, cutoff_for, reflections, sizes
from .fourier import Fourier
from .sphere2 import SphericalHarmonics
from .sphere3 import WignerFunctions

__all__ = ["DenseHarmonics", "Fourier", "Harmonics", "SphericalHarmonics", "WignerFunctions", "cost_of", "degree_for",
           "degrees", "harmonics_for", "is_fast", "moments_of", "unsupported"]

# Seconds of a transform on the class of machine in the README, by kind: of a point and of a coefficient, for sums over
# points; of a point and of a coefficient, for each function that is evaluated.
_SECONDS = {"1": (7e-8, 1e-7, 2.7e-8, 5e-8), "2": (2e-7, 1.5e-7, 1.1e-7, 7.5e-8), "3": (1.3e-6, 3.3e-7, 8e-7, 1.7e-7),
            "sphere2": (1.5e-7, 5e-8, 8e-8, 4.5e-8), "sphere3": (1e-6, 1.8e-7, 8.5e-7, 1.9e-7)}
# Seconds of dense matrices: of a point; of the value of a function, and more for each dimension beyond the fourth;
# of a product of two values; of adding up those of one function on the left; of setting up; of working out derivatives,
# and more of it for each square of a dimension.
_DENSE = 5e-7, 4.7e-9, 5e-10, 5.7e-11, 7.5e-10, 2e-3, 8e-3, 2e-5
# Of Legendre functions on the sphere, by the power 3/2 of the number of coefficients: of their sums over degrees.
_LEGENDRE = 1.5e-11
# Size of a transform at most, so that its grids stay below some 500 MB; see `_size`.
_MOST = 2**22


def unsupported(manifold):
    """Say why a manifold has no expansion in eigenfunctions; an empty string if it has."""
    factors = manifold.factors() if manifold.kernel == "factors" else ()
    if not factors:
        return "its heat kernel is not a product of those of space forms"
    if manifold.has_drift:
        return "its process has a drift"
    if any(f.reach == np.inf for f in factors):
        return "it is not compact, so its spectrum is continuous"
    return ""


def is_fast(manifold):
    """Whether sums over points are fast Fourier transforms, on a manifold that is not `unsupported`.

    Elsewhere they are products of matrices, see :class:`.DenseHarmonics`.

    Examples
    --------
    >>> from rdks.harmonics import is_fast
    >>> from rdks.manifolds import Circle, Product, Sphere
    >>> is_fast(Sphere(2)), is_fast(Product(Sphere(2), Circle()))
    (True, False)
    """
    return _kind(manifold) != "dense"


def _kind(manifold):
    """Return which transforms serve a manifold: a key of `_SECONDS`, or "dense"."""
    dims = [f.dim for f in manifold.factors()]
    if max(dims) == 1 and len(dims) <= 3:
        return str(len(dims))
    return f"sphere{dims[0]}" if dims in ([2], [3]) else "dense"


def degrees(manifold, t, eps):
    """Return the degree that serves a time, as the harmonics of the manifold take it; see :func:`degree_for`."""
    factors, kind = manifold.factors(), _kind(manifold)
    if kind == "dense":
        return cutoff_for(factors, t, eps)
    found = [degree_for(f, t, eps) for f in factors]
    return found[0] if kind.startswith("sphere") else tuple(found)


def _size(manifold, degree):
    """Return the number of modes of the Fourier transform behind a degree, or of entries of a dense matrix."""
    dim, kind = manifold.factors()[0].dim, _kind(manifold)
    if kind == "dense":
        if degree == np.inf:
            return np.inf
        left, right, _ = sizes(manifold.factors(), degree)
        return left * right
    if dim == 1:
        return float(np.prod([2.0 * k + 1 for k in degree]))
    return (2.0 * degree + 2) ** 2 if dim == 2 else (degree + 1.0) ** 3


def harmonics_for(manifold, t, eps):
    """Return the eigenfunctions that serve a time, or None if there are too many.

    Parameters
    ----------
    manifold : Manifold
        One that is not `unsupported`.
    t : float
    eps : float
        Error allowed, relative to the kernel's peak.

    Returns
    -------
    Harmonics or None
        Of the covering space.

    Examples
    --------
    >>> from rdks.harmonics import harmonics_for
    >>> from rdks.manifolds import Torus
    >>> harmonics_for(Torus(2), 0.5, 1e-12).shape
    (23, 23)
    """
    factors, degree, kind = manifold.factors(), degrees(manifold, t, eps), _kind(manifold)
    if _size(manifold, degree) > _MOST:
        return None
    if kind == "dense":
        return DenseHarmonics(factors, degree)
    if factors[0].dim == 1:
        return Fourier(factors, degree)
    make = SphericalHarmonics if factors[0].dim == 2 else WignerFunctions
    return make(degree, factors[0].radius, even=manifold.antipodal)


def moments_of(manifold, harmonics, Z, weight, eps, n_threads=1):
    """Return the coefficients of weighted points and their images.

    Parameters
    ----------
    manifold : Manifold
    harmonics : Harmonics
        Of the covering space of `manifold`.
    Z : ndarray, shape (n, embed_dim)
    weight : ndarray, shape (n,)
    eps, n_threads
        As for :meth:`.Harmonics.analyse`.

    Returns
    -------
    ndarray, shape harmonics.shape
    """
    if manifold.n_images == 1:
        return harmonics.analyse(Z, weight, eps, n_threads)
    if isinstance(harmonics, DenseHarmonics):
        mirrors, others = reflections(manifold)
        coef = np.zeros(harmonics.shape)
        for a in range(0, len(Z), CHUNK // len(others) + 1):
            part = slice(a, a + CHUNK // len(others) + 1)
            images = manifold.images(Z[part])[others].reshape(-1, Z.shape[1])
            coef += harmonics.analyse(images, np.tile(weight[part], len(others)), eps, n_threads)
        for factor, shift in mirrors:
            coef = harmonics.mirrored(coef, factor, shift)
        return coef
    angles = isinstance(harmonics, Fourier)
    if angles and all(f.kind == "circle" for f in harmonics.factors):
        return harmonics.images(harmonics.analyse(Z, weight, eps, n_threads), *affine_maps(manifold))
    if isinstance(manifold, SO3):
        coef = harmonics.analyse(Z, weight, eps, n_threads)
        groups = [rotation_group(name) for name in (manifold.specimen or "C1", manifold.symmetry or "C1")]
        return harmonics.average(coef, *groups) if manifold.n_images > 2 else coef
    # spherical harmonics know the opposite points
    count = manifold.n_images // 2 if manifold.antipodal and not angles else manifold.n_images
    coef = np.zeros(harmonics.shape, dtype=complex)
    for a in range(0, len(Z), CHUNK // count + 1):
        part = slice(a, a + CHUNK // count + 1)
        images = manifold.images(Z[part])[:count]
        coef += harmonics.analyse(images.reshape(-1, Z.shape[1]), np.tile(weight[part], count), eps, n_threads)
    return coef


def cost_of(manifold, t, eps, n_sources, n_queries, n_functions, n_times=1):
    """Estimate the seconds that coefficients of sources and values of functions at queries take on one thread.

    Parameters
    ----------
    manifold : Manifold
        One that is not `unsupported`.
    t, eps : float
        As for :func:`harmonics_for`.
    n_sources, n_queries : int
        Of sources, 0 where their coefficients are known.
    n_functions : int
        Real functions, two of which share a transform.
    n_times : int
        Different times of the sources, each of which is a transform.

    Returns
    -------
    float
        inf where there are too many coefficients.
    """
    degree, kind = degrees(manifold, t, eps), _kind(manifold)
    modes = _size(manifold, degree)
    if modes > _MOST:
        return np.inf
    if kind == "dense":
        return _dense_cost(manifold, degree, n_sources, n_queries, n_functions)
    # half-integer degrees are a transform of their own
    parts = 2 if kind == "sphere3" and not manifold.antipodal else 1
    source, coefficient, query, value = _SECONDS[kind]
    shared = n_functions if kind == "sphere2" else 2 * ((n_functions + 1) // 2)  # two share a transform
    # sums over degrees, for every order on every ring
    legendre = _LEGENDRE * modes**1.5 if kind == "sphere2" else 0.0
    return 1e-3 + parts * (n_sources * source + (n_sources > 0) * n_times * (modes * coefficient + legendre)
                           + n_queries * shared * query + n_functions * (modes * value + legendre))


def _dense_cost(manifold, cutoff, n_sources, n_queries, n_functions):
    """Estimate seconds as `cost_of` does, for matrix products."""
    left, right, pairs = sizes(manifold.factors(), cutoff)
    sources = n_sources * len(reflections(manifold)[1])
    point, value, more, product, folded, ready, derivatives, square = _DENSE
    dim = max(f.dim for f in manifold.factors())
    value += more * max(dim - 4, 0)
    if n_functions > 1:  # derivatives along all coordinates
        n_functions += manifold.embed_dim - manifold.dim
        ready += derivatives + square * dim**2
    return ready + (point + value * (left + right)) * (sources + n_queries) + \
        product * pairs * (sources + n_queries * n_functions) + folded * left * n_queries * n_functions
