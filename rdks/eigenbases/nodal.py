r"""Eigenvectors of a mesh, a graph or a point cloud as regressors."""
from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..errors import UnsupportedError
from ..manifolds.base import parameter
from ..manifolds.graph import DiscreteSpace
from .base import EigenBasis

__all__ = ["NodalBasis"]

# Up to this many nodes the means of all eigenvectors are the statistics, and nothing is left out.
_ALL = 2000
# Beyond, so many times as many as there are functions: products of two have about twice the frequency, below which
# there are four times as many eigenfunctions on a surface.
_TIMES = 6
# Error that `shortest_time` stands for: a tenth of the usual ridge.
_ERROR = 1e-4
# Values of eigenvectors at nodes that are kept at most, in GiB.
_GIB = 1.0


class NodalBasis(EigenBasis):
    r"""Lowest eigenvectors of the generator of a discretised space.

    Parameters
    ----------
    manifold : DiscreteSpace
        A ``Mesh``, a ``Graph`` or a ``PointCloud``.
    max_level : int
        Number of eigenvectors, the constant left out: the level of eigenvector k is k.

    Attributes
    ----------
    shortest_time : float
        Noise level from which on the matrix is right to 1e-4, in the sense below.

    Raises
    ------
    UnsupportedError
        If the manifold is no discretised space.
    ValueError
        If there are no `max_level` eigenvectors besides the constant, or their values would take more than 1 GiB.

    Notes
    -----
    With the generator :math:`L=-\frac12M^{-1}S` of the walk between nodes, the node law :math:`\pi_v=m_v/\sum m` and
    :math:`q_{uv}=-S_{uv}/2m_u` its rates,

    .. math:: \Gamma(f,g)(u)=\tfrac12\sum_vq_{uv}(f_v-f_u)(g_v-g_u)=\tfrac12\big(L(fg)-fLg-gLf\big)(u),

    so that :math:`E_\rho\Gamma(\psi_i,\psi_j)=\frac12[(\mu_i+\mu_j)\pi(\psi_i\psi_j\rho)+\pi(\psi_i\psi_jL\rho)]`
    holds exactly between nodes, as on a manifold.

    A point has the functions :math:`\psi_k(x)=e^{\mu_ks}b(x)\psi_k`, with the weights b(x) that spread it over nodes,
    which in a point cloud stands for a time s, `spread_time`.

    *Statistics* are the means of all eigenvectors up to 2000 nodes. Beyond, there are M of them, six times as many as
    functions and at least ``manifold.n_eigen``. What is left out of the density is, at noise level t, at most
    :math:`\delta=e^{-\mu_M(t-s)}/\min_v\pi_v` anywhere, and as :math:`|\int\delta\rho\,\Gamma(f,f)|
    \le\sup|\delta\rho|\int\Gamma(f,f)d\pi`, the matrix scaled by :math:`\mathrm{diag}(\mu)^{-1/2}` from both sides is
    off by at most :math:`\delta` in the spectral norm. `shortest_time` is where that bound is 1e-4, and s where
    nothing is left out. What is missing at shorter times is for the most part the roughness that :math:`\Gamma` has
    from node to node; a larger ``n_eigen`` of the manifold puts the limit down.

    *Scores*. That the minimiser of :math:`E_\rho[\Gamma(f,f)+2Lf]` is the log density comes from the chain rule, which
    differences along edges obey up to terms of third order. On a mesh or a cloud that is part of the error of
    discretisation. On a graph the potential is the log density as far as that differs little between neighbours; a
    graph has no gradients, and `evaluate` works with ``order=0`` only.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.eigenbases.nodal import NodalBasis
    >>> from rdks.manifolds import Graph
    >>> ring = Graph(np.roll(np.eye(8), 1, 0) + np.roll(np.eye(8), -1, 0))
    >>> basis = NodalBasis(ring, 2)
    >>> basis.decay.round(6), len(basis.moment_decay)  # 1 - cos(pi / 4)
    (array([0.292893, 0.292893]), 8)
    >>> m = basis.moments(np.array([[0.0]]), np.ones(1))
    >>> A = basis.gram(m)  # at node 0: half of the jumps' rates times squared differences
    >>> f = basis.evaluate(np.array([[7.0], [0.0], [1.0]]), np.array([1.0, 0.0]), order=0)[0]
    >>> bool(np.isclose(A[0, 0], 0.25 * ((f[0] - f[1]) ** 2 + (f[2] - f[1]) ** 2)))
    True
    """

    def __init__(self, manifold, max_level):
        if not isinstance(manifold, DiscreteSpace):
            raise UnsupportedError(f"{manifold!r} is no mesh, graph or point cloud, whose nodes have eigenvectors")
        self.manifold, self.max_level = manifold, parameter("max_level", max_level, whole=True)
        n = manifold.n_nodes
        if self.max_level >= n:
            raise ValueError(f"max_level = {max_level}: {manifold!r} has {n - 1} eigenvectors besides the constant. "
                             "Lower max_level")
        count = n if n <= _ALL else min(n, max(manifold.n_eigen, _TIMES * (self.max_level + 1)))
        gib = 8.0 * n * count / 2**30
        if gib > _GIB:
            raise ValueError(f"max_level = {max_level}: the values of {count} eigenvectors at {n} nodes would take "
                             f"{gib:.3g} GiB, more than the {_GIB:g} GiB that are allowed. Lower max_level")
        lam, phi = (manifold if count <= manifold.n_eigen else replace(manifold, n_eigen=count)).basis()
        self._law = manifold.mass / manifold.mass.sum()
        self._psi = phi * np.sqrt(manifold.mass.sum())  # (N, M), orthonormal in the law
        self.moment_decay, self.moment_level = 0.5 * lam, np.arange(count)
        self.decay, self.level = self.moment_decay[1:max_level + 1], self.moment_level[1:max_level + 1]
        self.shortest_time = spread = manifold.spread_time
        if count < n:
            self.shortest_time = spread + float(-np.log(_ERROR * self._law.min()) / self.moment_decay[-1])
        # of a point's value, for the time that spreading it over nodes takes
        self._gain = np.exp(self.moment_decay * spread)

    def moments(self, Z, share):
        source = self.manifold.rows(np.asarray(Z, dtype=float)).T @ np.asarray(share, dtype=float)
        return self._gain * (self._psi.T @ source)

    def gram(self, moments):
        moments = np.asarray(moments, dtype=float)
        rho, flow = self._psi @ moments, -(self._psi @ (self.moment_decay * moments))
        values = self._psi[:, 1:self.max_level + 1]
        # half of the sum of this and its transpose
        half = values.T @ ((self._law * rho)[:, None] * (values * self.decay)
                           + 0.5 * (self._law * flow)[:, None] * values)
        return 0.5 * (half + half.T)

    def own(self, moments):
        return np.asarray(moments)[1:self.max_level + 1]

    def evaluate(self, Z, coef, order=1):
        Z, coef = np.asarray(Z, dtype=float), np.asarray(coef, dtype=float)
        own, rows = slice(1, len(coef) + 1), self.manifold.rows(Z)
        psi, spread = self._psi[:, own], self._gain[own] * coef
        gradient = laplacian = None
        if order > 0:
            gradient = self.manifold.gradient(Z, psi @ coef)
        if order > 1:
            laplacian = rows @ (psi @ (-2 * self.decay[:len(coef)] * spread))
        return rows @ (psi @ spread), gradient, laplacian
