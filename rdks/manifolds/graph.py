r"""Spaces of finitely many nodes: what all discretised spaces share, and graphs.

A discretised space is a list of nodes with masses :math:`m_v>0` (their shares of the volume) and a symmetric
matrix S of conductances: :math:`S_{uv}\le0` off the diagonal, rows that sum to zero. Minus its Laplacian is
:math:`L=M^{-1}S`, and the heat kernel between nodes is :math:`k_t=e^{-tL/2}M^{-1}`: symmetric, positive, of mass one
with respect to m, and a semigroup, all exactly. A point x that is no node is spread over nodes by weights
:math:`b(x)\ge0` that sum to one, so that

.. math:: k_t(x,y)=b(x)\,e^{-tL/2}M^{-1}b(y)^\top .

A fitted density is one vector of node values, and a time one *flow* of that vector; see :meth:`DiscreteSpace.diffuse`.
"""
from __future__ import annotations

import hashlib
import threading
from abc import abstractmethod
from dataclasses import KW_ONLY, dataclass

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components, dijkstra

from ..errors import UnsupportedError
from .base import Manifold, parameter

__all__ = ["DiscreteSpace", "Graph"]

# A flow of at most this many steps of the jump chain is cheaper than eigenfunctions.
_CHEAP = 3000
# A flow takes no more steps of the jump chain than this.
_MOST = 20_000
# Steps of implicit Euler where the jump chain would take more.
_IMPLICIT = 512
# Node values below this, relative to the largest, may have lost digits to underflow.
_UNDERFLOW = 1e-285
# Products of numbers that a flow in logarithms may take.
_WORK = 5e8
# Relative error at which a sum over eigenfunctions is accepted, at every node.
_SPECTRAL = 1e-10
# Up to this many nodes all eigenvectors are found at once.
_DENSE = 600
# Up to this many conductances per node a matrix is factorised to find eigenvectors, beyond it is only applied.
_SPARSE = 40
# Columns of the heat matrix that are computed together.
_COLUMNS = 64
# And where several of them are combined at each step, which is done faster while they are in cache.
_NARROW = 16


def as_index(name, value, n):
    """Return an array of whole numbers in [0, n) as integers, or say which entry is none."""
    value = np.asarray(value)
    if value.dtype.kind not in "iuf":
        raise ValueError(f"{name} must hold whole numbers, found an array of type {value.dtype}")
    with np.errstate(invalid="ignore"):
        whole = np.rint(value)
        bad = np.argwhere(~((whole == value) & (value >= 0) & (value < n)))
    if bad.size:
        where = tuple(int(i) for i in bad[0])
        raise ValueError(f"{name}{list(where)} = {value[where]:g} is no index of one of {n}: expected a whole number "
                         f"from 0 to {n - 1}")
    return whole.astype(np.int64)


def check_connected(adjacency, name, remedy):
    """Raise ValueError with the sizes of the parts unless a sparse symmetric matrix links all rows."""
    count, label = connected_components(adjacency, directed=False)
    if count == 1:
        return
    sizes = np.bincount(label)
    order = np.argsort(-sizes, kind="stable")
    shown = ", ".join(str(sizes[c]) for c in order[:8]) + (", ..." if count > 8 else "")
    row = int(np.flatnonzero(label == order[1])[0])
    raise ValueError(f"{name} falls into {count} parts that heat cannot cross between, of {shown} nodes (node {row} is "
                     f"not linked to the largest part): the density of one part would be zero on the others. {remedy}")


def segment_max(values, indptr):
    """Largest value in each row of a csr layout without empty rows."""
    return np.maximum.reduceat(values, indptr[:-1])


def segment_sum(values, indptr):
    """Sum of each row of a csr layout without empty rows."""
    return np.add.reduceat(values, indptr[:-1])


def frozen(value):
    """Make an array, or the arrays of a csr matrix, read-only; returns it."""
    for array in (value.data, value.indices, value.indptr) if sp.issparse(value) else (value,):
        array.setflags(write=False)
    return value


class DiscreteSpace(Manifold):
    r"""A space known by finitely many nodes: base class of :class:`Graph`, :class:`Mesh` and :class:`PointCloud`.

    A subclass is a frozen dataclass whose ``__post_init__`` ends with :meth:`_settle`, and which defines `rows`,
    `draw`, `gradient` and how points are written. Objects are immutable values: equal if their data are, hashable,
    picklable, and copied by reference. Eigenfunctions are computed when they are first needed and kept by the
    object, outside its value.

    Attributes
    ----------
    mass : ndarray, shape (N,)
        Volume that belongs to each node; read-only.
    stiffness : scipy.sparse.csr_array, shape (N, N)
        The matrix S.
    rate : float
        Largest rate at which the jump chain leaves a node, :math:`\max_vL_{vv}/2`.
    """

    kernel = "basis"
    exactness = "spectral"

    # construction and identity

    def _settle(self, mass, weights, parts):
        """Store masses and conductances, and the digest of the parts that make up the value.

        `weights` is a sparse symmetric matrix of conductances >= 0; its diagonal is ignored.
        """
        weights = sp.csr_array(weights, dtype=float)
        weights.setdiag(0.0)
        weights.eliminate_zeros()
        weights.sort_indices()
        total = np.asarray(weights.sum(axis=1)).ravel()
        stiffness = sp.csr_array(sp.diags_array(total) - weights)
        stiffness.sort_indices()
        digest = hashlib.blake2b(type(self).__qualname__.encode(), digest_size=16)
        for part in parts:
            if isinstance(part, np.ndarray):
                digest.update(f"{part.dtype}{part.shape}".encode())
                digest.update(np.ascontiguousarray(part))
            else:
                digest.update(repr(part).encode())
        for name, value in (("mass", frozen(np.array(mass, dtype=float))), ("stiffness", frozen(stiffness)),
                            ("rate", float((total / mass).max() / 2)), ("_digest", digest.digest())):
            object.__setattr__(self, name, value)
        self._clear()

    def _set_eigen(self):
        object.__setattr__(self, "n_eigen", parameter("n_eigen", self.n_eigen, whole=True))
        if self.n_eigen < 2:
            raise ValueError(f"n_eigen = {self.n_eigen} must be at least 2: the first eigenfunction is constant")

    def _clear(self):
        object.__setattr__(self, "_known", {})
        object.__setattr__(self, "_lock", threading.RLock())

    def _once(self, name, make):
        """Return what `make` gives, computed once per object, whichever thread asks first."""
        with self._lock:
            if name not in self._known:
                self._known[name] = make()
            return self._known[name]

    def __eq__(self, other):
        return type(self) is type(other) and self._digest == other._digest

    def __hash__(self):
        return hash(self._digest)

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if k not in ("_known", "_lock")}

    def __setstate__(self, state):
        self.__dict__.update(state)
        for value in state.values():
            if isinstance(value, np.ndarray) or sp.issparse(value):
                frozen(value)
        self._clear()

    # what a subclass defines

    @abstractmethod
    def rows(self, Z):
        """Spread points over nodes.

        Parameters
        ----------
        Z : ndarray, shape (n, embed_dim)

        Returns
        -------
        scipy.sparse.csr_array, shape (n, N)
            Weights >= 0 that sum to one in each row.
        """

    @abstractmethod
    def draw(self, log_p, n_samples, rng):
        """Draw embedded points, (n_samples, embed_dim), from the density with log values `log_p`, (N,), at nodes."""

    @abstractmethod
    def gradient(self, Z, log_p):
        """Return the gradient at points of the log density with values `log_p`, (N,), at nodes; shape (n, k)."""

    #: Time that spreading a point over nodes stands for.
    spread_time = 0.0

    @property
    def shortest_time(self):
        """Time below which densities hardly change, as points are spread that far; 0 where they are not."""
        return 2 * self.spread_time

    @abstractmethod
    def nodes(self):
        """Return the nodes as embedded points; shape (N, embed_dim)."""

    #: Places of the nodes in the space around, (N, k), of which gradients are vectors; None where there are none.
    positions = None

    @abstractmethod
    def neighbour_distance(self, Z):
        """Return the median distance of points, (n, embed_dim), all different, to the nearest other of them."""

    # geometry: volumes only

    def factors(self):
        return ()

    @property
    def log_volume(self):
        return float(np.log(self.mass.sum()))

    @property
    def volume(self):
        return float(self.mass.sum())

    @property
    def n_nodes(self):
        """Number N of nodes."""
        return len(self.mass)

    @property
    def is_homogeneous(self):
        return False

    @property
    def scales(self):
        return ()

    @property
    def injectivity_radius(self):
        return 0.0

    @property
    def scalar_curvature(self):
        return None

    @property
    def smallest_eigenvalue(self):
        return float(self.basis()[0][1])

    def _no_geodesics(self):
        return UnsupportedError(f"{self!r} is known by the heat flow between its nodes: geodesics and distances are "
                                "not part of this version")

    def exp(self, Z, V):
        raise self._no_geodesics()

    def log(self, Z, W):
        raise self._no_geodesics()

    def dist(self, Z, W):
        raise self._no_geodesics()

    def frame(self, Z):
        raise self._no_geodesics()

    def to_tangent(self, Z, V):
        raise self._no_geodesics()

    def random(self, n, rng):
        """Draw n uniform points; shape (n, embed_dim)."""
        return self.draw(np.zeros(self.n_nodes), n, rng)

    # spectrum

    def basis(self):
        r"""Return the lowest eigenvalues and eigenfunctions of minus the Laplacian.

        Returns
        -------
        lam : ndarray, shape (K,)
            Ascending, the first exactly zero; K is `n_eigen`, or N if that is smaller.
        phi : ndarray, shape (N, K)
            Values at nodes, orthonormal in the masses: :math:`\Phi^\top M\Phi=1`. The first is constant; the entry of
            largest size of each is positive.

        Notes
        -----
        Of the symmetric matrix :math:`M^{-1/2}SM^{-1/2}`: all eigenvectors (LAPACK) up to 600 nodes; Lanczos on the
        factorised inverse (SuperLU) where the matrix has few entries per row, and on the matrix itself otherwise.
        The starting vector is fixed. Computed once per object.
        """
        return self._once("basis", self._eigenpairs)

    def known_basis(self):
        """Return what `basis` returns if it has been computed, else None."""
        return self._known.get("basis")

    def _eigenpairs(self):
        n, count = self.n_nodes, min(self.n_eigen, self.n_nodes)
        root = np.sqrt(self.mass)
        A = sp.csr_array(sp.diags_array(1 / root) @ self.stiffness @ sp.diags_array(1 / root))
        if n <= _DENSE or count > n // 3:
            from scipy.linalg import eigh
            lam, U = eigh(A.toarray(), subset_by_index=[0, count - 1])
        else:
            from scipy.sparse.linalg import eigsh
            start = np.random.default_rng(0).standard_normal(n)
            if A.nnz <= _SPARSE * n:
                lam, U = eigsh(A.tocsc(), count, sigma=-1e-8 * self.rate, v0=start)
            else:
                # the top of 1 - A / 2 rate, whose spectrum is in [-1, 1]
                mu, U = eigsh(sp.eye_array(n) - A / (2 * self.rate), count, which="LA", v0=start)
                lam = 2 * self.rate * (1 - mu)
            order = np.argsort(lam, kind="stable")
            lam, U = lam[order], U[:, order]
        phi = U / root[:, None]
        phi[:, 0] = 1 / np.sqrt(self.mass.sum())
        phi *= np.where(phi[np.abs(phi).argmax(axis=0), np.arange(count)] < 0, -1.0, 1.0)
        lam[0] = 0.0
        return frozen(lam), frozen(phi)

    # heat flow

    @property
    def jump(self):
        """Transition matrix :math:`P=1-L/2q` of the jump chain, q the rate; csr, rows sum to one, entries >= 0."""
        def make():
            P = sp.csr_array(sp.diags_array(-0.5 / (self.rate * self.mass)) @ self.stiffness)
            P.setdiag(0.0)
            P.setdiag(np.maximum(1 - np.asarray(P.sum(axis=1)).ravel(), 0.0))
            P.eliminate_zeros()
            P.sort_indices()
            return P
        return self._once("jump", make)

    def diffuse(self, F, t, reader=None):
        r"""Let functions on nodes flow for a time: :math:`\log(e^{-tL/2}F)`.

        Parameters
        ----------
        F : ndarray, shape (N,) or (N, k)
            Values >= 0, in each column some > 0.
        t : float
            Time, positive.
        reader : tuple of (csr_array, shape (q, N); ndarray, shape (q, k)), optional
            Rows B and weights w, both >= 0, if only :math:`\log\sum_qw_{qk}(Be^{-tL/2}F)_{qk}` is asked for: the series
            then needs to be right there only, which takes fewer terms.

        Returns
        -------
        ndarray, shape of F, or (k,) with a reader
            Finite at every node.

        Notes
        -----
        With q the largest rate of the jump chain and P its transition matrix,
        :math:`e^{-tL/2}=\sum_ke^{-qt}(qt)^kP^k/k!`, in which every term is >= 0: no error in time, no cancellation, and
        each value is right to rounding however small it is. The series ends when the rest, which is bounded by a
        Poisson tail, is below rounding at every node. It takes about :math:`qt` sparse products, and is

        * done again in logarithms for columns in which a value falls below 1e-285 of the largest; where that
          would take more than some ten seconds (nodes thousands of steps from all data), such values continue with the
          rate function of a random walk instead;
        * replaced, beyond 3000 products, by the sum over eigenfunctions if that one's own error bound,
          :math:`e^{-\lambda_Kt/2}\|F\|_M/\sqrt{m_v}` and rounding, is below 1e-10 of the value at every node;
        * replaced, where neither that bound holds nor 20,000 products suffice (meshes with some tiny triangles), by 512
          steps of implicit Euler: positive and of mass one, with a relative error of 0.002 near the data and of 0.15
          where the density has fallen to exp(-20) of its peak (measured). Values below 1e-285 continue as above.
        """
        F = np.asarray(F, dtype=float)
        columns = F.reshape(self.n_nodes, -1)
        top = columns.max(axis=0)
        columns = columns / top
        z = self.rate * t
        out = None
        if z > _CHEAP:
            out = self._spectral_flow(columns, t)
        if out is None and z > _MOST:
            out = self._implicit_flow(columns, t)
        if out is None:
            out = self._poisson_flow(columns, t, reader)
        elif reader is not None:
            out = self._read_columns(out, reader)
        return (out + np.log(top)).reshape(F.shape if reader is None else -1)

    @staticmethod
    def _read_columns(log_p, reader):
        """Log of the weighted sum of rows, for each column."""
        B, weight = reader
        with np.errstate(divide="ignore"):
            return np.array([np.logaddexp.reduce(read(B, column) + np.log(w))
                             for column, w in zip(log_p.T, weight.T, strict=True)])

    def _spectral_flow(self, F, t):
        """Sum over eigenfunctions; None where its error bound is too large."""
        lam, phi = self.basis()
        weighted = self.mass[:, None] * F
        c = np.exp(-0.5 * lam * t)[:, None] * (phi.T @ weighted)
        p = phi @ c
        rounding = 8 * np.finfo(float).eps * np.sqrt(len(lam)) * (np.abs(phi) @ np.abs(c))
        rest = 0.0
        if len(lam) < self.n_nodes:
            norm = np.sqrt(np.einsum("ik,ik->k", weighted, F))
            rest = np.exp(-0.5 * lam[-1] * t) * norm / np.sqrt(self.mass)[:, None]
        if not np.all(rounding + rest <= _SPECTRAL * p):
            return None
        return np.log(p)

    def _poisson_flow(self, F, t, reader):
        """Sum the Poisson series, in logarithms where values underflow; at the nodes or at the reader."""
        z, P = self.rate * t, self.jump
        log_c, k, done = -z, 0, False

        def value(term):
            return term if reader is None else np.einsum("qk,qk->k", reader[1], reader[0] @ term)

        term, mass = F, np.exp(-z)
        total = mass * value(F)
        while not done:
            k += 1
            term = P @ term
            log_c += np.log(z / k)
            if log_c > -690:
                c = np.exp(log_c)
                mass += c
                total += c * value(term)
            if k % 8 == 0 and k > z:
                # the terms beyond k: none exceeds the largest value of F, which is 1
                log_rest = log_c + np.log(z / (k + 1)) - np.log1p(-z / (k + 2))
                done = log_rest < np.log(max(total.min(), 0.01 * _UNDERFLOW)) - 37
        with np.errstate(divide="ignore"):
            out = np.log(total / mass)  # the coefficients have rounding in common, and sum to one
        small = (total < _UNDERFLOW) if reader is not None else (total < _UNDERFLOW).any(axis=0)
        for column in np.flatnonzero(small):
            if reader is None:
                out[:, column] = self._tail(out[:, column], F[:, column], t)
            else:
                log_p = self._poisson_flow(F[:, [column]], t, None)
                out[column] = self._read_columns(log_p, (reader[0], reader[1][:, [column]]))[0]
        return out

    def _tail(self, log_p, f, t):
        """Find again, from what underflowed, the log density `log_p` after a time `t` from `f`."""
        hops = dijkstra(self.jump, unweighted=True, indices=np.flatnonzero(f > 0), min_only=True).max()
        if (hops + self.rate * t) * self.jump.nnz <= _WORK:
            return self._log_poisson_flow(f, t)
        return self._continued(log_p, log_p >= np.log(_UNDERFLOW), f, t)

    def _log_poisson_flow(self, f, t):
        """Sum the Poisson series for one column with logarithms throughout."""
        log_z, P = np.log(self.rate) + np.log(t), self.jump
        z, log_p = np.exp(log_z), np.log(P.data)
        rows = np.repeat(np.arange(self.n_nodes), np.diff(P.indptr))
        with np.errstate(divide="ignore", invalid="ignore"):
            term = np.log(f)
            log_c, total, k, done = -z, -z + term, 0, False
            while not done:
                k += 1
                away = log_p + term[P.indices]
                peak = segment_max(away, P.indptr)
                share = np.where(peak[rows] > -np.inf, np.exp(away - peak[rows]), 0.0)
                term = peak + np.log(segment_sum(share, P.indptr))
                term = np.where(peak > -np.inf, term, -np.inf)
                log_c += log_z - np.log(k)
                total = np.logaddexp(total, log_c + term)
                done = k > z and log_c - np.log1p(-z / (k + 1)) < total.min() - 37
        return total

    def _implicit_flow(self, F, t):
        """Take steps of implicit Euler, whose matrix has a nonnegative inverse."""
        from scipy.sparse.linalg import splu

        A = sp.csc_array(sp.diags_array(self.mass) + (t / (2 * _IMPLICIT)) * self.stiffness)
        # no pivoting: elimination of a symmetric M-matrix then adds numbers of one sign only
        solve = splu(A, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}).solve
        p = F
        for _ in range(_IMPLICIT):
            p = solve(self.mass[:, None] * p)
        with np.errstate(divide="ignore"):
            out = np.log(p)
        for column in np.flatnonzero(p.min(axis=0) < _UNDERFLOW):
            out[:, column] = self._continued(out[:, column], p[:, column] >= _UNDERFLOW, F[:, column], t)
        return out

    def lengths(self):
        r"""Return the length :math:`\sqrt{m/w}` of each conductance w, a symmetric csr matrix.

        On a line of nodes this is the spacing, and on a lattice too.
        """
        W = -sp.coo_array(self.stiffness)
        keep = W.row != W.col
        u, v, w = W.row[keep], W.col[keep], W.data[keep]
        return sp.csr_array((np.sqrt(0.5 * (self.mass[u] + self.mass[v]) / w), (u, v)), shape=W.shape)

    def _continued(self, log_p, known, f, t):
        """Continue a log density from the nodes where it is known, by the rate function of a random walk.

        A walk of rate z on a line is n steps away with log probability n asinh(n/z) - sqrt(n^2 + z^2) + z, which is
        n^2/2z for n << z (Varadhan's limit) and n log(2n/ez) for n >> z.
        """
        length = self.lengths()
        d = dijkstra(length, directed=False, indices=np.flatnonzero(f > 0), min_only=True)
        step = float(np.median(length.data))
        n, z = d / step, t / step**2
        cost = n * np.arcsinh(n / z) - n * n / (np.hypot(n, z) + z)
        edge = np.flatnonzero(known)[np.argmin(log_p[known])]
        return np.where(known, log_p, np.minimum(log_p[edge] - (cost - cost[edge]), log_p[edge]))

    # kernels, for a few pairs

    def columns(self, Z, t):
        """Yield (slice of the rows of Z, log kernel from these points to all nodes, (N, k)), in blocks."""
        B = self.rows(Z)
        for a in range(0, len(Z), _COLUMNS):
            part = slice(a, a + _COLUMNS)
            yield part, self.diffuse(B[part].T.toarray() / self.mass[:, None], t)

    def remaining(self, t, count):
        """Time that remains of `t` when `count` points have been spread over nodes: never less than a quarter."""
        return np.maximum(t - count * self.spread_time, 0.25 * t)

    def log_heat_kernel(self, Z, W, t):
        Z, W = np.asarray(Z, dtype=float), np.asarray(W, dtype=float)
        out, B = np.empty(len(Z)), self.rows(W)
        starts, which = np.unique(Z, axis=0, return_inverse=True)
        which = which.ravel()
        for part, logs in self.columns(starts, float(self.remaining(t, 2))):
            mine = (which >= part.start) & (which < part.stop)
            out[mine] = read(B[mine], logs, which[mine] - part.start)
        return out

    def heat_sample(self, Z, t, rng):
        """Draw one exact step of the discrete heat flow, of time t (a number, or one per row), from each point.

        Parameters and result as for :func:`rdks.sampling.heat_sample`. One flow per different point and time.
        """
        Z = np.asarray(Z, dtype=float)
        times = np.broadcast_to(np.asarray(t, dtype=float), len(Z))
        out, nodes = np.empty_like(Z), self.rows(self.nodes())
        for time in np.unique(times):
            now = np.flatnonzero(times == time)
            starts, which = np.unique(Z[now], axis=0, return_inverse=True)
            which = which.ravel()
            for part, logs in self.columns(starts, float(self.remaining(time, 2))):
                for column in range(logs.shape[1]):
                    mine = now[which == part.start + column]
                    out[mine] = self.draw(read(nodes, logs[:, column]), mine.size, rng)
        return out

    def moments(self, B, degree):
        r"""Return Chebyshev moments of the jump chain at points.

        Parameters
        ----------
        B : scipy.sparse.csr_array, shape (n, N)
            Points, spread over nodes.
        degree : int

        Returns
        -------
        ndarray, shape (n, degree + 1)
            :math:`\mu_j=\langle e,T_j(P)e\rangle_M` with :math:`e=M^{-1}b^\top`, from half as many products by
            :math:`2T_iT_j=T_{i+j}+T_{i-j}`. The kernel of a point to itself at any time is then
            :math:`k_t=e^{-qt}\sum_j(2-\delta_{j0})I_j(qt)\mu_j`.
        """
        degree += degree % 2
        root = np.sqrt(self.mass)
        # symmetric, so that inner products need no masses; doubled for the recurrence
        twice = sp.csr_array(sp.diags_array(2 * root) @ self.jump @ sp.diags_array(1 / root))
        out = np.empty((B.shape[0], degree + 1))
        for a in range(0, B.shape[0], _NARROW):
            part = slice(a, a + _NARROW)
            now = B[part].T.toarray() / root[:, None]
            after = 0.5 * (twice @ now)
            out[part, 0] = first = np.einsum("vk,vk->k", now, now)
            out[part, 1] = second = np.einsum("vk,vk->k", now, after)
            for j in range(1, degree // 2 + 1):
                now, before = after, now
                out[part, 2 * j] = 2 * np.einsum("vk,vk->k", now, now) - first
                if 2 * j < degree:
                    after = twice @ now
                    after -= before
                    out[part, 2 * j + 1] = 2 * np.einsum("vk,vk->k", now, after) - second
        return out

    def laplacian_ratio(self, log_p):
        r"""Return :math:`\Delta p/p` at nodes, (N,), for a density with log values `log_p`."""
        S = self.stiffness
        rows = np.repeat(np.arange(self.n_nodes), np.diff(S.indptr))
        return -segment_sum(S.data * np.exp(log_p[S.indices] - log_p[rows]), S.indptr) / self.mass


def read(B, log_p, column=None):
    """Evaluate log(B p) from log p, without underflow.

    Parameters
    ----------
    B : scipy.sparse.csr_array, shape (q, N)
        Weights >= 0, some positive in every row.
    log_p : ndarray, shape (N,) or (N, k)
        Log values at nodes.
    column : ndarray of int, shape (q,), optional
        Which column of `log_p` each row reads.

    Returns
    -------
    ndarray, shape (q,)
    """
    with np.errstate(divide="ignore"):
        logs = np.log(B.data)
    rows = np.repeat(np.arange(B.shape[0]), np.diff(B.indptr))
    logs += log_p[B.indices] if column is None else log_p[B.indices, column[rows]]
    peak = segment_max(logs, B.indptr)
    return peak + np.log(segment_sum(np.exp(logs - peak[rows]), B.indptr))


_LAPLACIANS = ("combinatorial", "random_walk")


@dataclass(frozen=True, eq=False, repr=False)
class Graph(DiscreteSpace):
    r"""Undirected graph with weights: the points are its nodes.

    Parameters
    ----------
    adjacency : array-like or scipy.sparse matrix, shape (N, N)
        Symmetric weights >= 0 (conductances: a large weight is a short way); zero where there is no edge.
    laplacian : {"combinatorial", "random_walk"}
        With the degrees :math:`d_v=\sum_uW_{uv}`: minus the Laplacian is :math:`D-W`, and densities are per node; or it
        is :math:`1-D^{-1}W`, and densities are with respect to the degrees, the stationary law of the random walk.
    n_eigen : int
        Number of eigenfunctions to find when they are needed, for large times.

    Raises
    ------
    ValueError
        If the matrix is not square, symmetric, finite and >= 0, or the graph is not connected.

    Notes
    -----
    Points are node numbers, rows of one whole number. The heat kernel :math:`e^{-tL/2}` is a law of a continuous-time
    random walk: positive everywhere, and summing to one over nodes (weighted by degrees for "random_walk"). Its time
    has no length unit: a node of degree d is left after a mean time of 2/d (2 for "random_walk"). A graph has no
    tangent vectors, so there is no score field. Loops count in the degrees and change nothing else.

    Examples
    --------
    Heat on a path of three nodes:

    >>> import numpy as np
    >>> from rdks.manifolds import Graph
    >>> path = Graph([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
    >>> path
    Graph(3 nodes, 2 edges)
    >>> start, nodes = np.zeros((3, 1)), np.arange(3)[:, None]
    >>> np.exp(path.log_heat_kernel(start, nodes, 2.0)).round(3)  # 1/3 + exp(-t/2)/2 + exp(-3t/2)/6, ...
    array([0.526, 0.317, 0.158])
    """

    adjacency: object
    _: KW_ONLY
    laplacian: str = "combinatorial"
    n_eigen: int = 100

    #: Nodes are points: there are no directions.
    dim = 0
    tolerance = 0.0

    def __post_init__(self):
        self._set_eigen()
        if self.laplacian not in _LAPLACIANS:
            raise ValueError(f"laplacian = {self.laplacian!r} is not one of {_LAPLACIANS}")
        W = self._checked(self.adjacency)
        object.__setattr__(self, "adjacency", W)
        degree = np.asarray(W.sum(axis=1)).ravel()
        mass = np.ones(W.shape[0]) if self.laplacian == "combinatorial" else degree
        self._settle(mass, W, (W.data, W.indices, W.indptr, self.laplacian, self.n_eigen))

    @staticmethod
    def _checked(adjacency):
        try:
            W = sp.csr_array(adjacency, dtype=float, copy=True)
        except (TypeError, ValueError) as error:
            raise ValueError(f"adjacency must be a square matrix of real numbers, dense or sparse: {error}") from error
        if W.ndim != 2 or W.shape[0] != W.shape[1] or W.shape[0] < 2:
            raise ValueError(f"adjacency has shape {W.shape}: expected (N, N) with at least 2 nodes")
        W.sum_duplicates()
        C = W.tocoo()
        bad = np.flatnonzero(~(np.isfinite(C.data) & (C.data >= 0)))
        if bad.size:
            i = bad[0]
            raise ValueError(f"adjacency[{C.row[i]}, {C.col[i]}] = {C.data[i]:g}: weights must be finite and >= 0. "
                             "Leave missing edges out (zero), and turn distances into weights first")
        gap = sp.coo_array(abs(W - W.T))
        limit = 1e-12 * W.data.max(initial=0.0)
        if gap.data.size and gap.data.max() > limit:
            i = int(gap.data.argmax())
            a, b = gap.row[i], gap.col[i]
            raise ValueError(f"adjacency[{a}, {b}] = {W[a, b]:g} and adjacency[{b}, {a}] = {W[b, a]:g} differ by "
                             f"{gap.data[i]:.3g}: edges have no direction. Symmetrise with (W + W.T) / 2")
        W = sp.csr_array(0.5 * (W + W.T))
        W.eliminate_zeros()
        W.sort_indices()
        check_connected(W, "the graph", "Fit each part by itself, or add edges")
        return frozen(W)

    def __repr__(self):
        loops = int((self.adjacency.diagonal() > 0).sum())
        edges = (self.adjacency.nnz + loops) // 2
        kind = "" if self.laplacian == "combinatorial" else f", laplacian={self.laplacian!r}"
        return f"Graph({self.n_nodes} nodes, {edges} edges{kind})"

    @property
    def point_shape(self):
        return (1,)

    @property
    def embed_dim(self):
        return 1

    def project(self, Z):
        return np.clip(np.rint(np.asarray(Z, dtype=float)), 0, self.n_nodes - 1) + 0.0

    def violation(self, X):
        X = np.asarray(X, dtype=float).reshape(len(X), -1)[:, 0]
        return np.abs(X - self.project(X))

    def constraint(self):
        return f"the distance from a node number, 0 to {self.n_nodes - 1},"

    def remedy(self):
        return "Number the nodes as the rows of the adjacency matrix, from 0."

    def nodes(self):
        return np.arange(self.n_nodes, dtype=float)[:, None]

    def rows(self, Z):
        node = np.asarray(Z)[:, 0].astype(np.int64)
        return sp.csr_array((np.ones(len(node)), node, np.arange(len(node) + 1)), shape=(len(node), self.n_nodes))

    def draw(self, log_p, n_samples, rng):
        p = self.mass * np.exp(log_p - log_p.max())
        return rng.choice(self.n_nodes, size=n_samples, p=p / p.sum())[:, None].astype(float)

    def gradient(self, Z, log_p):
        raise UnsupportedError("a graph has no tangent vectors, so a density on it has no score field and no "
                               "divergence of one; use score_samples, or a space with directions, as a Mesh is")

    def neighbour_distance(self, Z):
        """Return the median distance of different nodes, (n, 1), to the nearest other, along edges of `lengths`."""
        nodes = np.asarray(Z)[:, 0].astype(np.int64)
        length = self.lengths()
        d, _, nearest = dijkstra(length, directed=False, indices=nodes, min_only=True, return_predecessors=True)
        # a shortest way to another source leaves the cell of its own source by some edge, once
        E = length.tocoo()
        a, b = nearest[E.row], nearest[E.col]
        across = a != b
        best = np.full(self.n_nodes, np.inf)
        np.minimum.at(best, a[across], (d[E.row] + E.data + d[E.col])[across])
        return float(np.median(best[nodes]))
