r"""Sums over sources on spaces known by finitely many nodes: meshes, graphs and point clouds.

All sources of one time are one vector of node values, whose heat flow (:meth:`.DiscreteSpace.diffuse`) is the density
at every point of the space at once. What depends on the number of sources is only that vector, so the cost of a
density, a score and any number of draws is one flow. Leave-one-out sums need the kernel from each source to itself as
well: it comes from eigenfunctions at large times, and from Chebyshev moments, computed once for all smaller times.
"""
from __future__ import annotations

import numpy as np
from scipy.special import gammaln, ive

from .engines import Evaluation, Sources
from .errors import UnsupportedError
from .manifolds.graph import read

__all__ = ["NodalSum"]

# Where a leave-one-out sum is a smaller part of the whole than this, the own term is left out rather than subtracted.
_SUBTRACT = 1e-3
# Relative error at which eigenfunctions serve for the kernel from a point to itself.
_SELF = 1e-12
# Below this many expected jumps the highest modes have hardly decayed, and eigenfunctions are not asked for.
_MODES = 100
# Beyond this many expected jumps there are too many moments: flows change their method there too.
_LONG = 20_000
# Isolated sources that are worked on together.
_BLOCK = 256
# Up to this many expected jumps, sums over other sources are counted by the number of jumps, up to that many.
_NEAR, _JUMPS = 4.0, 40
# Columns of the heat matrix that are computed together.
_COLUMNS = 64
# Flows kept by an engine: a density, its score and its samples ask for the same one.
_KEPT = 4


class NodalSum(Sources):
    r"""Sums over all sources on a discretised space.

    Parameters
    ----------
    manifold : DiscreteSpace
        Of kind "basis": a mesh, a graph or a point cloud.
    Z, weight, time, n_jobs
        As for :class:`rdks.engines.Sources`. Flows are sparse matrix products on one thread.

    Notes
    -----
    With b(x) the weights that spread a point over nodes,

    .. math:: p(x)=b(x)\sum_\tau e^{-(\tau+t)L/2}M^{-1}\sum_{i:\tau_i=\tau}w_ib(X_i)^\top .

    One flow per different time of the sources. The flow is exact for the discretised space except where
    :meth:`.DiscreteSpace.diffuse` says otherwise. Leave-one-out sums subtract the own term where the others are at
    least a thousandth of the whole, with a relative error of about 1e-9; for sources more isolated than that, the
    kernel is computed as a column of the heat matrix, one for each of them, and nothing is subtracted. The time that
    takes is linear in the number of sources: some 10 ms for each on 10,000 vertices, once for all times; minutes for a
    thousand sources on a mesh that has tiny triangles.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.manifolds import Graph
    >>> from rdks.nodal import NodalSum
    >>> ring = Graph(np.roll(np.eye(8), 1, 0) + np.roll(np.eye(8), -1, 0))
    >>> total = NodalSum(ring, np.array([[0.0], [3.0]]), np.ones(2), 0.5)
    >>> p = np.exp(total.evaluate(np.arange(8.0)[:, None]).log_density)
    >>> round(float(p.sum()), 12), int(p.argmax()) in (0, 3)
    (1.0, True)
    """

    def __init__(self, manifold, Z, weight, time, n_jobs=None):
        super().__init__(manifold, Z, weight, time, n_jobs)
        if manifold.kernel != "basis":
            raise UnsupportedError(f"{manifold!r} is no mesh, graph or point cloud, which engine='spectral' serves")
        self._flows = {}
        # what does not depend on times, shared with the same sources at other times
        self._spread = {}

    def __getstate__(self):
        return {**self.__dict__, "_flows": {}, "_spread": {}}

    def at(self, time):
        new = super().at(time)
        new._spread = self._spread
        return new

    def _rows(self):
        """Sources spread over nodes, (n, N)."""
        if "rows" not in self._spread:
            self._spread["rows"] = self.manifold.rows(self.Z)
        return self._spread["rows"]

    def flow(self, t=0.0, spread=True):
        """Return the log density of the state at all nodes after a further time `t`; shape (N,).

        Parameters
        ----------
        t : float
        spread : bool
            Whether the values are to be read by points that are spread over nodes, whose own time is then left out.
        """
        key = (float(t), 2 if spread and self.manifold.spread_time else 1)
        if key not in self._flows:
            flows = dict(list(self._flows.items())[-_KEPT + 1:])  # a new dict: other threads may be reading the old
            flows[key] = self._flow(*key)
            self._flows = flows
        return self._flows[key]

    def _flow(self, t, count):
        B, share = self._rows(), self.share
        remaining = self.manifold.remaining(self.time + t, count)
        total = np.full(self.manifold.n_nodes, -np.inf)
        for time in np.unique(remaining[share > 0]):
            source = B.T @ np.where(remaining == time, share, 0.0)
            total = np.logaddexp(total, self.manifold.diffuse(source / self.manifold.mass, float(time)))
        return total

    def _evaluate(self, Z, t, order, own, n_jobs):
        if own is not None:
            return Evaluation(self._others(t, own), None, None)
        manifold, B, log_p = self.manifold, self.manifold.rows(Z), self.flow(t)
        log_density, gradient, laplacian = read(B, log_p), None, None
        if order:
            gradient = manifold.gradient(Z, self.flow(t, spread=False))
        if order > 1:
            # the Laplacian of p is spread like p itself: its ratio to p is a mean of ratios with weights b p
            rows = np.repeat(np.arange(len(Z)), np.diff(B.indptr))
            with np.errstate(divide="ignore"):
                weight = np.exp(np.log(B.data) + log_p[B.indices] - log_density[rows])
            ratio = np.bincount(rows, weight * manifold.laplacian_ratio(log_p)[B.indices], len(Z))
            laplacian = ratio - np.einsum("ij,ij->i", gradient, gradient)
        return Evaluation(log_density, gradient, laplacian)

    def log_self(self, t=0.0):
        r"""Return the log kernel from each source to itself after a further time `t`; shape (n,)."""
        return self._log_self(np.arange(len(self.Z)), t)

    def _log_self(self, rows, t):
        B, out = self._rows(), np.empty(len(rows))
        times = self.manifold.remaining(self.time[rows] + t, 2)
        for time in np.unique(times):
            mine = np.flatnonzero(times == time)
            value = self._self_by_modes(B[rows[mine]], float(time))
            if value is None and self.manifold.rate * time <= _LONG:
                value = self._self_by_moments(rows[mine], float(time))
            out[mine] = np.log(value) if value is not None else self._log_self_by_columns(rows[mine], float(time))
        return out

    def _log_self_by_columns(self, rows, t):
        """Let each source flow by itself: slow, where tiny triangles leave neither modes nor moments."""
        manifold, out = self.manifold, np.empty(len(rows))
        for a in range(0, len(rows), _COLUMNS):
            B = self._rows()[rows[a:a + _COLUMNS]]
            F = B.T.toarray() / manifold.mass[:, None]
            out[a:a + _COLUMNS] = manifold.diffuse(F, t, (B, np.eye(F.shape[1])))
        return out

    def _self_by_modes(self, B, t):
        """Sum over eigenfunctions; None where the rest could matter."""
        manifold = self.manifold
        if manifold.rate * t < _MODES:
            return None
        lam, phi = manifold.basis()
        value = (B @ phi) ** 2 @ np.exp(-0.5 * lam * t)
        if len(lam) == manifold.n_nodes:
            return value
        rest = np.exp(-0.5 * lam[-1] * t) * (B**2 @ (1 / manifold.mass))
        return value if np.all(rest <= _SELF * value) else None

    def _degree(self, t):
        """Number of moments for a time: terms fall below 1e-17 from about sqrt(2 * 39 z) on, for small z from 20 on."""
        return 2 * int(np.ceil(0.5 * np.sqrt(78 * self.manifold.rate * t))) + 24

    def _modes_suffice(self):
        """Time from which eigenfunctions are likely to serve, if they are known already; else 0."""
        known = self.manifold.known_basis()
        return 0.0 if known is None else 2 * (np.log(len(self.manifold.mass)) - np.log(_SELF)) / known[0][-1]

    def _self_by_moments(self, rows, t):
        """Sum Chebyshev moments, found for a source when asked for, and kept until a time needs more of them."""
        z, degree = self.manifold.rate * t, self._degree(t)
        known = self._spread.get("moments")
        if known is None or known.shape[1] <= degree:
            degree = max(degree, self._degree(min(self._modes_suffice(), _LONG / self.manifold.rate)))
            known = np.full((len(self.Z), degree + 1), np.nan)
        missing = rows[np.isnan(known[rows, 0])]
        if missing.size:
            known = known.copy()  # other threads may be reading it
            known[missing] = self.manifold.moments(self._rows()[missing], known.shape[1] - 1)
            self._spread["moments"] = known
        coefficient = ive(np.arange(known.shape[1]), z)
        coefficient[1:] *= 2
        return known[rows] @ coefficient

    def _others(self, t, rows):
        """Evaluate at the sources `rows` the sum over all others; shape of `rows`."""
        out, rest = np.empty(len(rows)), np.arange(len(rows))
        times = np.unique(self.time + t)
        if times.size == 1 and self.manifold.rate * times[0] <= _NEAR and not self.manifold.spread_time:
            out = self._sum_of_few_jumps(rows, float(times[0]))
            rest = np.flatnonzero(np.isnan(out))
        else:
            total = self.evaluate(self.Z[rows], t).log_density
            with np.errstate(divide="ignore"):
                own = np.exp(np.log(self.share[rows]) + self._log_self(rows, t) - total)
                out = total + np.log1p(-np.minimum(own, 1.0))
            rest = np.flatnonzero(own > 1 - _SUBTRACT)
        for a in range(0, rest.size, _BLOCK):
            out[rest[a:a + _BLOCK]] = self._sum_of_others(rows[rest[a:a + _BLOCK]], t)
        return out

    def _sum_of_few_jumps(self, rows, t):
        """Add up the other sources by the number of jumps to them; NaN where more jumps than are counted matter.

        The sums by number do not depend on the time, and are kept.
        """
        B, z = self._rows(), self.manifold.rate * t
        table = self._spread.get("jumps", np.full((len(self.Z), _JUMPS + 1), np.nan)).copy()
        missing = rows[np.isnan(table[rows, 0])]
        for a in range(0, missing.size, _BLOCK):
            part = missing[a:a + _BLOCK]
            weight = np.repeat(self.share[:, None], part.size, axis=1)
            weight[part, np.arange(part.size)] = 0.0
            term = B[part].T.toarray() / self.manifold.mass[:, None]
            for k in range(_JUMPS + 1):
                table[part, k] = np.einsum("nk,nk->k", weight, B @ term)
                if k < _JUMPS:
                    term = self.manifold.jump @ term
        self._spread["jumps"] = table  # complete before other threads can see it
        k = np.arange(_JUMPS + 2)
        log_c = k * (np.log(self.manifold.rate) + np.log(t)) - z - gammaln(k + 1)
        with np.errstate(divide="ignore"):
            out = np.logaddexp.reduce(np.log(table[rows]) + log_c[:-1], axis=1)
        # no sum by number exceeds the largest value of a source, one over the mass there
        log_rest = log_c[-1] - np.log1p(-z / (_JUMPS + 2)) - np.log(self.manifold.mass.min())
        return np.where(log_rest < out + np.log(_SELF), out, np.nan)

    def _sum_of_others(self, rows, t):
        """Add up, for a few sources, the kernel to every other source: columns of the heat matrix, read at sources."""
        manifold, B, share = self.manifold, self._rows(), self.share
        out = np.full(len(rows), -np.inf)
        # by symmetry one column serves a source as a query; its time is that of the other sources
        times = manifold.remaining(self.time + t, 2)
        for time in np.unique(times):
            for a in range(0, len(rows), _COLUMNS):
                part = slice(a, a + _COLUMNS)
                weight = np.repeat(np.where(times == time, share, 0.0)[:, None], len(rows[part]), axis=1)
                weight[rows[part], np.arange(len(rows[part]))] = 0.0
                some = np.flatnonzero(weight.any(axis=0))
                if some.size:
                    F = B[rows[part][some]].T.toarray() / manifold.mass[:, None]
                    found = manifold.diffuse(F, float(time), (B, weight[:, some]))
                    out[a + some] = np.logaddexp(out[a + some], found)
        return out

    def sample(self, n_samples, rng):
        """Draw from the density of the state, all draws from one flow; see :meth:`.Sources.sample`."""
        log_p = self.evaluate(self.manifold.nodes()).log_density
        return self.manifold.draw(log_p, n_samples, rng)
