"""Manifolds that are known by points on them only."""
from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import numpy as np
import scipy.sparse as sp
from scipy.special import gammainc, gammaln, ndtr
from scipy.stats import chi2

from .base import parameter
from .graph import DiscreteSpace, check_connected, frozen

__all__ = ["PointCloud"]

# Neighbours that tell the dimension.
_DIM_NEIGHBOURS = 20
# Neighbours the kernel weighs: this times n^(2/(d+2)), within bounds.
_NEIGHBOURS, _FEWEST, _MOST = 0.5, 10, 100
# The kernel is cut where this share of a Gaussian's mass is within.
_KEPT_MASS = 0.99
# A point may be this many bandwidths from the cloud.
_REACH = 2.0
# Chance that a point far from any boundary is taken for one near it.
_FALSE_BOUNDARY = 0.01


def _dimension(tree):
    """Estimate the dimension from the distances to the nearest neighbours, averaged as logarithms."""
    r = tree.query(tree.data, k=min(_DIM_NEIGHBOURS, tree.n - 1) + 1)[0][:, 1:]
    return float(1 / np.mean(np.log(r[:, -1:] / r[:, :-1])))


def _variance(d, cut):
    """Variance per direction of a standard normal vector in d dimensions, given that it is not longer than `cut`."""
    return gammainc(0.5 * d + 1, 0.5 * cut**2) / gammainc(0.5 * d, 0.5 * cut**2)


def _depth(shift):
    """Depth in bandwidths below a flat boundary, at which a Gaussian kernel's mean is shifted inwards by `shift`."""
    depth = np.linspace(0.0, 5.0, 1001)
    mills = np.exp(-0.5 * depth**2) / (np.sqrt(2 * np.pi) * ndtr(depth))
    return np.interp(-shift, -mills, depth)


def _balanced(W, mass):
    """Return u > 0 for which the rows of diag(u) W diag(u) sum to the masses; W is symmetric, its diagonal > 0."""
    u = np.sqrt(mass / np.asarray(W.sum(axis=1)).ravel())
    while True:
        ratio = mass / (u * (W @ u))
        if np.abs(ratio - 1).max() < 1e-12:
            return u
        u = u * np.sqrt(ratio)


def _tangent(X, w):
    """Centre points, (k, D), by their weights; return them and orthonormal directions, the widest spread first."""
    away = X - (w / w.sum()) @ X
    return away, np.linalg.svd(np.sqrt(w)[:, None] * away, full_matrices=False)[2]


@dataclass(frozen=True, eq=False, repr=False)
class PointCloud(DiscreteSpace):
    r"""Unknown manifold learned from points on it.

    Parameters
    ----------
    X : array-like, shape (n, D)
        Points on the manifold, in the coordinates of the space around it; no two of them equal. They need not be
        uniform on it.
    n_eigen : int
        Number of eigenfunctions to find when they are needed.
    bandwidth : float or "auto"
        Standard deviation of the Gaussian kernel that links neighbours, in the unit of X: the resolution
        of the learned manifold, to be smaller than its radii of curvature and than the gaps between its sheets. "auto":
        the kernel weighs as much as :math:`\tfrac12n^{2/(d+2)}` neighbours, 10 to 100 of them, at the median point.
    dim : int, optional
        Dimension d of the manifold; estimated by default (`dim_estimate`, rounded).
    boundary : bool
        Whether to look for a boundary and correct for it. Without one, False avoids a bias of about one per cent.

    Attributes
    ----------
    bandwidth : float
        As used.
    dim_estimate : float
        :math:`1/\overline{\log(r_{20}/r_j)}`, the mean over points and over their 19 nearest neighbours.
    resolution : float
        Variance per direction of one step of the learned walk; the square of the bandwidth, a little less for the cut.

    Raises
    ------
    ValueError
        If X is not usable, or the points fall into parts that no link joins.

    Notes
    -----
    With :math:`W_{ij}=e^{-|x_i-x_j|^2/2h^2}` (cut where it has lost 1 % of its mass) and its sums
    :math:`q_i`, the volume that belongs to a point is the reciprocal of the density of points there,

    .. math:: m_i=c_i\,(2\pi h^2)^{d/2}/q_i ,

    and one step of the walk goes from i to j with probability :math:`u_iW_{ij}u_j/m_i`, where the factors u, nearly
    :math:`m_i`, make these sum to one: the density-normalised walk of Coifman and Lafon (alpha = 1) [1]_, balanced so
    that it keeps the volume exactly [2]_. Minus half the Laplacian is one minus the step, over the variance of a step.
    In :math:`q_i` a point weighs :math:`2^{-d/2}` itself, which removes the bias of :math:`1/q_i` by the noise of
    :math:`q_i` to first order [derived]. At a boundary part of the kernel has nothing to weigh. The mean of the
    neighbours is shifted inwards there, which tells the depth, and with it the part :math:`c_i\in[\tfrac12,1]` of the
    kernel that is inside (after [3]_); shifts that noise explains, at a level of 1 %, do not count. Where two
    boundaries meet :math:`c_i` is too large, and a steep change of the density of points is taken for a boundary.

    Densities are per unit of the learned volume :math:`\sum m_i`: the density of a uniform sample tends to one over
    the volume. The error is of first order in :math:`h^2` times squared curvatures, plus noise.

    Every point x, one of the cloud or another near it, is spread over the cloud by a narrower step of the same kind, of
    half the variance, :math:`b_j(x)\propto W(x,x_j)^2v_j` (Nystrom extension), and the time of these steps is taken off
    the time of the flow: :math:`k_t(x,y)=b(x)\,e^{-(t-s)L/2}M^{-1}b(y)^\top`, s about the square of the bandwidth. So
    densities are smooth functions between the points, and errors are of second order in s/t. Bandwidths below that of
    the cloud are not resolved: the flow then takes a time t/4. Points more than two bandwidths from the cloud are not
    on the manifold. The score is the slope of a linear regression of the log density on the neighbours, in the d
    directions in which they spread most: tangent to the manifold. Only the points of the cloud are known to be on the
    manifold: samples are drawn from them.

    References
    ----------
    .. [1] Coifman and Lafon, Applied and Computational Harmonic Analysis 21 (2006) 5.
    .. [2] Wormell and Reich, SIAM Journal on Numerical Analysis 59 (2021) 1687, on bistochastic normalisation.
    .. [3] Berry and Sauer, Computational Statistics & Data Analysis 107 (2017) 1.
       Dimension: Levina and Bickel, NIPS 17 (2004), averaged as MacKay and Ghahramani propose.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.manifolds import PointCloud
    >>> angle = np.random.default_rng(0).uniform(0, 2 * np.pi, 1000)
    >>> cloud = PointCloud(np.column_stack([np.cos(angle), np.sin(angle)]))
    >>> cloud.dim, round(cloud.volume, 1)  # a circle of length 2 pi
    (1, 6.3)
    """

    X: object
    _: KW_ONLY
    n_eigen: int = 100
    bandwidth: object = "auto"
    dim: int | None = None
    boundary: bool = True

    def __post_init__(self):
        from scipy.spatial import cKDTree

        self._set_eigen()
        given = (self.bandwidth, self.dim)
        X = np.array(self.X, dtype=float)
        if X.ndim != 2 or len(X) <= _FEWEST:
            raise ValueError(f"X has shape {X.shape}: expected (n, D), more than {_FEWEST} points")
        bad = np.flatnonzero(~np.isfinite(X).all(axis=1))
        if bad.size:
            raise ValueError(f"X[{bad[0]}] = {X[bad[0]]} is not finite ({bad.size} such rows). Remove the row")
        if not isinstance(self.boundary, (bool, np.bool_)):
            raise ValueError(f"boundary = {self.boundary!r} must be True or False")
        _, first, which = np.unique(X, axis=0, return_index=True, return_inverse=True)
        first = first[which.ravel()]
        bad = np.flatnonzero(first != np.arange(len(X)))
        if bad.size:
            raise ValueError(f"X[{bad[0]}] repeats X[{first[bad[0]]}] ({bad.size} rows are copies of others). Remove "
                             "them, with numpy.unique(X, axis=0), and give their number as sample_weight to the fit")
        tree = cKDTree(X)
        estimate = _dimension(tree)
        d = max(1, round(estimate)) if self.dim is None else parameter("dim", self.dim, whole=True)
        if d > X.shape[1]:
            raise ValueError(f"dim = {d} exceeds the {X.shape[1]} coordinates of X")
        if isinstance(self.bandwidth, str):
            if self.bandwidth != "auto":
                raise ValueError(f"bandwidth = {self.bandwidth!r}: expected a positive number or 'auto'")
            k = int(np.clip(round(_NEIGHBOURS * len(X) ** (2 / (d + 2))), _FEWEST, min(_MOST, len(X) - 1)))
            # a ball of k points weighs as much as the kernel: V_d r^d = (2 pi h^2)^(d/2)
            log_ball = 0.5 * d * np.log(np.pi) - gammaln(0.5 * d + 1)
            h = float(np.median(tree.query(X, k=k + 1)[0][:, -1]) * np.exp(log_ball / d) / np.sqrt(2 * np.pi))
        else:
            h = parameter("bandwidth", self.bandwidth)
        for name, value in (("X", frozen(X)), ("dim", d), ("bandwidth", h), ("dim_estimate", estimate),
                            ("boundary", bool(self.boundary)), ("_given", given)):
            object.__setattr__(self, name, value)
        self._learn(tree)

    def _learn(self, tree):
        """Find neighbours, masses and conductances."""
        X, d, h = self.X, self.dim, self.bandwidth
        cut = float(np.sqrt(chi2.ppf(_KEPT_MASS, d)))
        object.__setattr__(self, "_cut", cut * h)
        object.__setattr__(self, "resolution", float(h * h * _variance(d, cut)))
        pairs = tree.query_pairs(cut * h, output_type="ndarray")
        w = np.exp(-0.5 * np.sum((X[pairs[:, 0]] - X[pairs[:, 1]]) ** 2, axis=1) / h**2)
        i, j = np.concatenate([pairs, pairs[:, ::-1]]).T
        W = sp.csr_array((np.concatenate([w, w]), (i, j)), shape=(len(X), len(X)))
        check_connected(W, f"the cloud, linked over distances up to {cut * h:.3g},",
                        f"Give more points, a larger bandwidth than {h:.3g}, or fit each part by itself")
        others = np.asarray(W.sum(axis=1)).ravel()
        q = others + 2 ** (-0.5 * d)
        inside = self._part_inside(W, q) if self.boundary else np.ones(len(X))
        mass = inside * _KEPT_MASS * (2 * np.pi * h * h) ** (0.5 * d) / q
        D = sp.diags_array(_balanced(W + sp.eye_array(len(X)), mass))
        # the square of the kernel is one of half the variance
        narrow = W * W + sp.eye_array(len(X))
        pull = _balanced(narrow, mass)
        object.__setattr__(self, "_pull", pull)
        spread = sp.csr_array(sp.diags_array(pull / mass) @ narrow @ sp.diags_array(pull))
        spread.sort_indices()
        object.__setattr__(self, "_spread", frozen(spread))
        self._settle(mass, (2 / self.resolution) * (D @ W @ D), (X, self.n_eigen, self._given, self.boundary))

    def _part_inside(self, W, q):
        """Estimate which part of the kernel at each point is inside the manifold; shape (n,)."""
        X, d, h = self.X, self.dim, self.bandwidth
        inside = np.ones(len(X))
        drift = (W @ X - W.sum(axis=1)[:, None] * X) / (q * h)[:, None]
        # variance of the mean of the neighbours of a point far from any boundary, and what it may reach by chance
        noise = d / (2 ** (0.5 * d + 1) * q)
        limit = noise * chi2.ppf(1 - _FALSE_BOUNDARY, d) / d
        for i in np.flatnonzero(np.einsum("ij,ij->i", drift, drift) > limit):
            part = slice(W.indptr[i], W.indptr[i + 1])
            _, basis = _tangent(X[W.indices[part]], W.data[part])
            # across the manifold neighbours are shifted by its curvature
            along = basis[:d] @ drift[i]
            square = along @ along
            if square > limit[i]:
                inside[i] = ndtr(_depth(np.sqrt(square - noise[i])))
        return inside

    def __repr__(self):
        n, width = self.X.shape
        return f"PointCloud({n} points in {width}-d, dim={self.dim}, bandwidth={self.bandwidth:.3g})"

    # points

    @property
    def point_shape(self):
        return (self.X.shape[1],)

    @property
    def embed_dim(self):
        return self.X.shape[1]

    @property
    def _tree(self):
        from scipy.spatial import cKDTree
        return self._once("tree", lambda: cKDTree(self.X))

    def _nearest(self, Z):
        """Return the distance to the nearest point of the cloud, in bandwidths, and which it is."""
        distance, which = self._tree.query(np.asarray(Z, dtype=float))
        return distance / self.bandwidth, which

    def project(self, Z):
        """Leave points near the cloud where they are, and move others to the nearest point of the cloud."""
        Z = np.asarray(Z, dtype=float)
        far, which = self._nearest(Z)
        return np.where((far > _REACH)[:, None], self.X[which], Z)

    def violation(self, X):
        return np.maximum(self._nearest(np.asarray(X, dtype=float).reshape(len(X), -1))[0] - _REACH, 0.0)

    def constraint(self):
        return (f"the distance to the nearest point of the cloud, in bandwidths of {self.bandwidth:.3g}, in excess of "
                f"{_REACH:g},")

    def remedy(self):
        return ("A manifold learned from points is known near them only: add points there to the cloud, or pass "
                "check_points='project' to use the nearest point of the cloud.")

    # the discretised space

    @property
    def positions(self):
        return self.X

    def nodes(self):
        return self.X

    def _kernel(self, Z, variance):
        """Gaussian kernel at points to the nodes around them; csr, (n, N)."""
        found = self._tree.query_ball_point(Z, self._cut, return_sorted=True)
        count = np.array([len(f) for f in found], dtype=np.int64)
        node = np.concatenate([np.asarray(f, dtype=np.int64) for f in found])
        away = np.repeat(Z, count, axis=0) - self.X[node]
        w = np.exp(-0.5 * np.einsum("ij,ij->i", away, away) / variance)
        return sp.csr_array((w, node, np.concatenate([[0], np.cumsum(count)])), shape=(len(Z), self.n_nodes))

    def rows(self, Z):
        Z = np.asarray(Z, dtype=float)
        distance, which = self._nearest(Z)
        off = np.flatnonzero(distance > 0)
        if not off.size:
            return self._spread[which]
        pull = self._kernel(Z[off], 0.5 * self.bandwidth**2) @ sp.diags_array(self._pull)
        pull = sp.csr_array(sp.diags_array(1 / np.asarray(pull.sum(axis=1)).ravel()) @ pull)
        if off.size == len(Z):
            return pull
        place, on = np.empty(len(Z), np.int64), np.flatnonzero(distance == 0)
        place[off], place[on] = np.arange(off.size), np.arange(off.size, len(Z))
        return sp.vstack([pull, self._spread[which[on]]], format="csr")[place]

    @property
    def spread_time(self):
        return float(0.5 * self.bandwidth**2 * _variance(self.dim, np.sqrt(2) * self._cut / self.bandwidth))

    def draw(self, log_p, n_samples, rng):
        p = self.mass * np.exp(log_p - log_p.max())
        return self.X[rng.choice(self.n_nodes, size=n_samples, p=p / p.sum())]

    def _regressions(self, Z):
        """Yield, for each point, the nodes around it, their weights, and their places in a tangent basis with it."""
        links = self._kernel(np.asarray(Z, dtype=float), self.bandwidth**2)
        for a, b in zip(links.indptr[:-1], links.indptr[1:], strict=True):
            node, w = links.indices[a:b], links.data[a:b] / links.data[a:b].sum()
            away, basis = _tangent(self.X[node], w)
            yield node, w, away @ basis[:self.dim].T, basis[:self.dim]

    def gradient(self, Z, log_p):
        out = np.zeros((len(Z), self.embed_dim))
        for row, (node, w, place, basis) in enumerate(self._regressions(Z)):
            values = log_p[node] - w @ log_p[node]
            # a pseudo-inverse: a point with fewer neighbours than dimensions has a slope along them only
            spread = np.linalg.pinv((w[:, None] * place).T @ place, rcond=1e-10, hermitian=True)
            out[row] = spread @ (place.T @ (w * values)) @ basis
        return out

    def frame(self, Z):
        """Return orthonormal bases of the tangent spaces, (n, dim, D): where neighbours spread most."""
        return np.array([basis for *_, basis in self._regressions(Z)])

    def to_tangent(self, Z, V):
        F = self.frame(Z)
        return np.einsum("ndj,nd->nj", F, np.einsum("ndj,nj->nd", F, V))

    def neighbour_distance(self, Z):
        """Return the median distance in space of points, (n, D), all different, to the nearest other of them."""
        from scipy.spatial import cKDTree
        return float(np.median(cKDTree(Z).query(Z, k=2)[0][:, 1]))
