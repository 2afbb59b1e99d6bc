"""Steps of Brownian motion."""
from __future__ import annotations

import numpy as np

from ..errors import UnsupportedError
from ..radial import radial_law

__all__ = ["geodesic_random_walk", "heat_sample"]


def heat_sample(manifold, Z, t, rng):
    r"""Draw one exact step of Brownian motion from each point.

    Parameters
    ----------
    manifold : Manifold
    Z : ndarray, shape (n, embed_dim)
        Starting points in embedded coordinates.
    t : float or ndarray, shape (n,)
        Time of each step.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape (n, embed_dim)
        :math:`Y_i\sim k_{t_i}(Z_i,\cdot)`.

    Notes
    -----
    Flat factors: a normal vector of variance t. Spheres and hyperbolic spaces: the direction of a normal
    tangent vector, its length mapped by :class:`rdks.radial.RadialLaw`. No discretisation in time. On a quotient, a
    step of the covering space. Manifolds whose kernel is not a product of these bring a step of their own.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.manifolds import Sphere
    >>> from rdks.sampling import heat_sample
    >>> north = np.tile([0.0, 0.0, 1.0], (10000, 1))
    >>> Y = heat_sample(Sphere(2), north, 0.5, np.random.default_rng(0))
    >>> bool(abs(Y[:, 2].mean() - np.exp(-0.5)) < 0.02)  # E cos(angle) = exp(-t)
    True
    """
    Z = np.asarray(Z, dtype=float)
    if manifold.kernel != "factors":
        return manifold.heat_sample(Z, t, rng)
    times, which = np.unique(np.broadcast_to(np.asarray(t, dtype=float), len(Z)), return_inverse=True)
    if manifold.has_drift:
        Z = Z.copy()
        for b, time in enumerate(times):
            Z[which == b], times[b] = manifold.flow(Z[which == b], float(time))
    out = np.empty_like(Z)
    for f, s in manifold.pieces():
        V = f.to_tangent(Z[:, s], rng.standard_normal((len(Z), f.width)))
        V *= np.sqrt(times)[which][:, None]
        if f.kind in ("sphere", "hyperbolic"):
            length = np.sqrt(np.einsum("ij,ij->i", V, V))
            stretched = np.empty_like(length)
            for b, time in enumerate(times):
                rows = which == b
                stretched[rows] = radial_law(f, float(time))(length[rows])
            V *= np.divide(stretched, length, out=np.ones_like(length), where=length > 0)[:, None]
        out[:, s] = f.exp(Z[:, s], V)
    return out


def geodesic_random_walk(manifold, Z, t, n_steps, rng):
    r"""Approximate Brownian motion by steps along geodesics.

    Parameters
    ----------
    manifold : Manifold
    Z : ndarray, shape (n, embed_dim)
        Starting points in embedded coordinates.
    t : float
        Time of the whole walk.
    n_steps : int
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape (n, embed_dim)

    Raises
    ------
    UnsupportedError
        On discretised spaces, which have no geodesics.

    Notes
    -----
    Each step is :math:`Y\leftarrow\exp_Y(\sqrt{t/N}\,\xi)` with a standard normal tangent vector :math:`\xi`; as N
    grows the walk tends to Brownian motion (Jorgensen, The central limit problem for geodesic random walks, 1975),
    with an error of order 1/N in law. Where :func:`heat_sample` is exact, it is better and needs no steps; this is
    for manifolds without one. On flat space both agree, and a drift is followed exactly.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.manifolds import Sphere
    >>> from rdks.sampling import geodesic_random_walk
    >>> north = np.tile([0.0, 0.0, 1.0], (10000, 1))
    >>> Y = geodesic_random_walk(Sphere(2), north, 0.5, 50, np.random.default_rng(0))
    >>> bool(abs(Y[:, 2].mean() - np.exp(-0.5)) < 0.02)  # E cos(angle) = exp(-t)
    True
    """
    if manifold.kernel == "basis":
        raise UnsupportedError(f"{manifold!r} has no geodesics: its points are nodes and faces. Use heat_sample")
    Z = np.array(Z, dtype=float)
    scale, clock = manifold.clock(float(t))
    length = np.sqrt(clock / n_steps)
    for _ in range(n_steps):
        xi = np.einsum("nd,ndw->nw", rng.standard_normal((len(Z), manifold.dim)), manifold.frame(Z))
        Z = manifold.exp(Z, length * xi)
    return scale * Z
