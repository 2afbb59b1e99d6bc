r"""Kernels that follow the data: times by nearest neighbours, and kernels along curves and sheets.

An observation in a dense region needs a short time, one in a sparse region a long time, and one on a curve a kernel
that is long in one direction only. All three come from one thing, the second moments of the k nearest other
observations in normal coordinates,

.. math:: M_j=\frac1k\sum_{i\in N_k(j)}v_{ji}v_{ji}^\top,\qquad v_{ji}=\log_{X_j}X_i .

* ``knn``: one heat kernel per observation, of time :math:`s^2\operatorname{tr}M_j/d`.
* ``local``: a Gaussian of covariance :math:`\Sigma_j=s^2((1-\lambda)M_j+\lambda\operatorname{tr}(M_j)/d)` in normal
  coordinates, written as heat kernels: the shortest axis gives the time, and along longer axes the kernel is spread
  over *nodes* :math:`\exp_{X_j}(a)` with Gaussian weights. So it is a density of the same form as any other here,
  closed under the heat flow, on every manifold.

Times are rounded to a geometric grid, because sums over observations of equal time are one sum.

What leaves an observation out must leave it out of its neighbours' neighbourhoods too: with i gone, the (k+1)-th
neighbour moves up in every :math:`N_k(j)` that contains i. Then the leave-one-out likelihood is exact.
"""
from __future__ import annotations

import numpy as np

from . import radial
from .engines import DirectSum, _kernels
from .manifolds.base import wrap

__all__ = ["Grid", "Neighborhoods", "log_kernel_rows", "nearest", "spread_out"]

_DEPTH = 32.0     # kernels below exp(-32) = 1e-14 of their peak count as nothing in leave-one-out sums
_REST = 1e-9      # what is left of a sum after a subtraction counts as rounding below this part of it
_RIPPLE = 2.0     # distance between nodes, in bandwidths: a sum of equal kernels is flat to 1.4 per cent
_NODES = 3.0      # how far nodes go, in standard deviations
_ROWS = 2**18     # pairs that are worked on together

# Nodes along an axis by their number to either side, 0, 1, 2, ..., one after the other (those of s sides begin at s^2):
# at equal gaps, with Gaussian weights, of variance 1. A gap balances what the sum lacks between the nodes with what it
# lacks beyond them, and does not let them go further than that.
_SIDES = 63
_GAP = np.minimum(np.sqrt(2 * np.pi / (2 * np.arange(1, _SIDES + 1) + 1)), _NODES / np.arange(1, _SIDES + 1))


def _unit_nodes():
    """Return positions and weights of the nodes of all numbers of sides."""
    places, shares = [np.zeros(1)], [np.ones(1)]
    for s in range(1, _SIDES + 1):
        x = np.arange(-s, s + 1) * _GAP[s - 1]
        w = np.exp(-0.5 * x * x)
        w /= w.sum()
        places.append(x / np.sqrt(w @ (x * x)))
        shares.append(w)
    return np.concatenate(places), np.concatenate(shares)


_PLACE, _SHARE = _unit_nodes()


def nearest(manifold, Z, k):
    """Find the nearest other points of each point.

    Parameters
    ----------
    manifold : Manifold
    Z : ndarray, shape (n, embed_dim)
        Embedded points, n > k.
    k : int

    Returns
    -------
    ndarray of int, shape (n, k)
        By distance, the nearest first: the geodesic one, or on products of space forms the chord's, which sorts
        neighbours alike where they are near.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.adaptive import nearest
    >>> from rdks.manifolds import Circle
    >>> nearest(Circle(), np.array([[0.1], [6.2], [3.0]]), 1).ravel()
    array([1, 0, 0])
    """
    n = len(Z)
    if manifold.kernel != "factors" or any(f.hyperbolic for f in manifold.factors()):
        # the chord is not a Euclidean distance, so no tree serves
        out = np.empty((n, k), dtype=np.intp)
        for a in range(0, n, max(1, 4_000_000 // n)):
            rows = np.arange(a, min(a + max(1, 4_000_000 // n), n))
            distance = manifold.distances(Z[rows], Z)
            distance[np.arange(len(rows)), rows] = np.inf
            few = np.sort(np.argpartition(distance, k - 1, axis=1)[:, :k], axis=1) if k < n else np.argsort(distance)
            order = np.argsort(np.take_along_axis(distance, few, axis=1), axis=1, kind="stable")
            out[rows] = np.take_along_axis(few, order, axis=1)
        return out
    from scipy.spatial import cKDTree

    box = np.concatenate([np.full(f.width, f.period or 0.0) for f in manifold.factors()])

    def wrapped(W):
        return np.where(box > 0, wrap(W, np.where(box > 0, box, 1.0)), W)

    tree = cKDTree(wrapped(Z), boxsize=box if box.any() else None)
    out, step = np.empty((n, k), dtype=np.intp), max(1, _ROWS // ((k + 1) * manifold.n_images))
    for a in range(0, n, step):
        rows, found, far = np.arange(a, min(a + step, n)), [], []
        for image in manifold.images(Z[rows]):
            chord, which = tree.query(wrapped(image), k=min(k + 1, n))
            chord[which == rows[:, None]] = np.inf  # a point is not its own neighbour, nor are its images
            found.append(which)
            far.append(chord)
        found, far = np.concatenate(found, axis=1), np.concatenate(far, axis=1)
        if manifold.n_images > 1:
            # of a neighbour that was found by several images the nearest counts
            order = np.lexsort((far, found), axis=1)
            found, far = (np.take_along_axis(x, order, axis=1) for x in (found, far))
            far[:, 1:][found[:, 1:] == found[:, :-1]] = np.inf
        order = np.argsort(far, axis=1, kind="stable")[:, :k]
        out[rows] = np.take_along_axis(found, order, axis=1)
    return out


class Grid:
    """Times in geometric progression: `first` 2^g, g = 0, ..., `count` - 1.

    Parameters
    ----------
    low, high : float
        The first time, and one that the last is not below.
    """

    def __init__(self, low, high):
        self.first = float(low)
        self.count = max(int(np.ceil(np.log2(high / low))), 0) + 1
        self.times = self.first * 2.0 ** np.arange(self.count)

    def nearest(self, time):
        """Return the index of the time next to each of `time`, in the ratio; those beyond an end are the end."""
        with np.errstate(divide="ignore"):
            place = np.rint(np.log2(np.maximum(time, 0.0) / self.first))
        return np.clip(place, 0, self.count - 1).astype(np.intp)


def _axes(M):
    """Return eigenvalues, the largest first, and eigenvectors as rows, of symmetric matrices (N, d, d)."""
    if M.shape[-1] == 2:  # many small matrices: in closed form
        a, b, c = M[:, 0, 0], M[:, 0, 1], M[:, 1, 1]
        middle, half = 0.5 * (a + c), np.hypot(0.5 * (a - c), b)
        angle = 0.5 * np.arctan2(2 * b, a - c)
        cos, sin = np.cos(angle), np.sin(angle)
        value = np.column_stack([middle + half, middle - half])
        return value, np.stack([np.column_stack([cos, sin]), np.column_stack([-sin, cos])], axis=1)
    value, vector = np.linalg.eigh(M)
    return value[:, ::-1], vector[:, :, ::-1].transpose(0, 2, 1)


def spread_out(M, grid, shrink=0.0):
    r"""Write Gaussians in normal coordinates as sums of isotropic ones.

    Parameters
    ----------
    M : ndarray, shape (N, d, d)
        Covariances.
    grid : Grid
        The times that isotropic Gaussians may have; variances are not above its last.
    shrink : float
        The part :math:`\lambda` of a covariance that is made isotropic.

    Returns
    -------
    owner : ndarray of int, shape (P,)
        The Gaussian that each node belongs to, ascending.
    place : ndarray, shape (P, d)
        Coordinates of the nodes.
    share : ndarray, shape (P,)
        Weights, which sum to 1 for each Gaussian.
    level : ndarray of int, shape (P,)
        Index of the time on the grid.

    Notes
    -----
    The time is the least eigenvalue (in more than three dimensions the geometric mean of all but the largest two), and
    what the others exceed it by is the variance of the nodes: 2m + 1 of them along an axis, equally spaced by at most
    twice the bandwidth, with Gaussian weights; the variance is kept exactly.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.adaptive import Grid, spread_out
    >>> _, place, share, level = spread_out(np.diag([0.09, 0.01])[None], Grid(0.01, 1.0))
    >>> len(share), round(float(share @ place[:, 0] ** 2), 9)  # 0.08 from the nodes, 0.01 from the kernels
    (11, 0.08)
    """
    d = M.shape[-1]
    mean = np.trace(M, axis1=1, axis2=2) / d
    value, axes = _axes(M)
    value = np.minimum((1 - shrink) * np.maximum(value, 0.0) + shrink * mean[:, None], grid.times[-1])
    with np.errstate(divide="ignore"):
        level = grid.nearest(np.exp(np.log(value[:, min(2, d - 1):]).mean(axis=1)))
    time = grid.times[level]
    sigma = np.sqrt(np.maximum(value[:, :2] - time[:, None], 0.0))
    if d == 2:
        sigma[:, 1] = 0.0  # the time has it all, up to its rounding to the grid
    # the fewest nodes that are close enough
    with np.errstate(divide="ignore"):
        sides = np.minimum(np.searchsorted(-_GAP, -_RIPPLE * np.sqrt(time)[:, None] / sigma), _SIDES - 1) + 1
    sides[sigma < 0.25 * np.sqrt(time)[:, None]] = 0
    counts = (2 * sides + 1).prod(axis=1)
    owner = np.repeat(np.arange(len(M)), counts)
    which = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    if d == 2:
        entry = which + (sides[:, 0] ** 2)[owner]
        return owner, (_PLACE[entry] * sigma[owner, 0])[:, None] * axes[owner, 0], _SHARE[entry], level[owner]
    per = (2 * sides[:, 1] + 1)[owner]
    place, share = np.zeros((len(owner), d)), np.ones(len(owner))
    for axis, position in enumerate((which // per, which % per)):
        entry = position + (sides[:, axis] ** 2)[owner]
        place += (_PLACE[entry] * sigma[owner, axis])[:, None] * axes[owner, axis]
        share *= _SHARE[entry]
    return owner, place, share, level[owner]


def log_kernel_rows(manifold, Y, X, t):
    """Evaluate the log heat kernel of one pair of points after another.

    Parameters
    ----------
    manifold : Manifold
    Y, X : ndarray, shape (n, embed_dim)
        Sources and queries.
    t : float

    Returns
    -------
    ndarray, shape (n,)
        -inf where the kernel is below exp(-32) of its peak, on products of space forms.
    """
    if manifold.kernel != "factors":
        return manifold.log_heat_kernel(Y, X, t)
    Y, time = manifold.flow(Y, t)
    table = radial.table(manifold.factors(), time, 0, True, False)
    kernels = _kernels(len(X) * manifold.n_images)
    columns, total, value = np.ascontiguousarray(X.T), np.zeros(len(X)), np.empty(len(X))
    for image in manifold.images(Y):
        kernels.kernel_rows(columns, np.ascontiguousarray(image.T), *table.arrays, value)
        total += np.where(value > np.exp(-_DEPTH), value, 0.0)
    with np.errstate(divide="ignore"):
        return np.log(total) + table.log_peak + manifold.log_unit


def _log_sums(which, logs, count):
    """Add numbers given by their logs, by group."""
    top = np.full(count, -np.inf)
    np.maximum.at(top, which, logs)
    base = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return np.log(np.bincount(which, np.exp(logs - base[which]), count)) + base


class Neighborhoods:
    """The nearest other observations of each, and kernels made from them.

    Parameters
    ----------
    data : Sources
        Distinct observations, with weights.
    k : int
        Neighbours that a kernel may use; one more is looked for, which takes the place of one that is left out.

    Attributes
    ----------
    index : ndarray of int, shape (n, k + 1)
    frame : ndarray, shape (n, d, embed_dim)
        The frame of the normal coordinates at each observation.
    coordinates : ndarray, shape (n, k + 1, d)
        Normal coordinates of the neighbours.
    """

    def __init__(self, data, k):
        manifold, Z = data.manifold, data.Z
        self.data, self._moments = data, {}
        self.index = nearest(manifold, Z, k + 1)
        self.frame = manifold.frame(Z)
        self.coordinates = np.empty((*self.index.shape, manifold.dim))
        for a in range(k + 1):
            V = manifold.log(Z, Z[self.index[:, a]])
            self.coordinates[:, a] = np.einsum("nij,nj->ni", self.frame, V)

    def moments(self, k):
        """Return the second moments of the k nearest, (n, d, d)."""
        if k not in self._moments:
            V = self.coordinates[:, :k].transpose(0, 2, 1)
            self._moments[k] = V @ V.transpose(0, 2, 1) / k
        return self._moments[k]

    def members(self, k, rows):
        """List who is among whose neighbours.

        Parameters
        ----------
        k : int
        rows : ndarray of int, shape (r,)

        Returns
        -------
        row, j, rank : ndarray of int
            Observation rows[row] is neighbour number `rank` < k of observation j.
        """
        place = np.full(len(self.index), -1)
        place[rows] = np.arange(len(rows))
        hit = place[self.index[:, :k]]
        j, rank = np.nonzero(hit >= 0)
        return hit[j, rank], j, rank

    def _nodes(self, M, at, grid, shrink):
        """Return owner, embedded nodes, weights and levels of kernels at the observations `at`."""
        if shrink == 1.0:
            owner = np.arange(len(at))
            level = grid.nearest(np.trace(M, axis1=1, axis2=2) / M.shape[-1])
            return owner, self.data.Z[at], np.ones(len(at)), level
        owner, place, share, level = spread_out(M, grid, shrink)
        V = np.einsum("pi,pij->pj", place, self.frame[at[owner]])
        return owner, self.data.manifold.exp(self.data.Z[at[owner]], V), share, level

    def state(self, k, scale, grid, shrink):
        """Return the density that a kernel shape makes of all observations.

        Parameters
        ----------
        k : int
        scale : float
            Factor on the standard deviations.
        grid : Grid
        shrink : float
            1 for kernels of one time each (``knn``), less for ``local`` ones; see :func:`spread_out`.

        Returns
        -------
        owner : ndarray of int, shape (P,)
        Z : ndarray, shape (P, embed_dim)
        weight : ndarray, shape (P,)
            They sum to 1.
        level : ndarray of int, shape (P,)
            Index of the time on the grid.
        """
        everyone = np.arange(len(self.index))
        owner, Z, share, level = self._nodes(scale**2 * self.moments(k), everyone, grid, shrink)
        return owner, Z, share * self.data.share[owner], level

    def leave_one_out(self, k, scale, grid, shrink, rows, copies):
        r"""Evaluate the density at observations from which they themselves are left out.

        Parameters
        ----------
        k, scale, grid, shrink
            As for `state`.
        rows : ndarray of int, shape (r,)
        copies : ndarray, shape (n,)
            Number of rows of the data that each observation stands for. One row is left out: a copy of it stays, and
            then neighbourhoods are as they were.

        Returns
        -------
        ndarray, shape (r,)
            Log of the sum over what is left, with weights that sum to 1 in all; -inf where kernels do not reach.

        Notes
        -----
        Kernels below 1e-14 of their own peak count as nothing. What an observation adds itself, and what its
        neighbours' kernels were with it, is subtracted; what is then below 1e-9 of the sum is left out as rounding.
        """
        data, manifold = self.data, self.data.manifold
        owner, Z, weight, level = self.state(k, scale, grid, shrink)
        X = data.Z[rows]
        if manifold.kernel == "factors":
            whole = DirectSum(manifold, Z, weight, grid.times[level]).shallow(X, _DEPTH)
        else:
            whole = data.like(Z, weight, grid.times[level]).evaluate(X, n_jobs=1).log_density
        row, j, rank = self.members(k, rows)
        alone = copies[rows] <= 1
        row, j, rank = (a[alone[row]] for a in (row, j, rank))
        # what goes: one row's part of its own kernel, and all of the neighbours' that it is a member of
        gone_row = np.concatenate([np.arange(len(rows)), row])
        gone = np.concatenate([rows, j])
        part = np.concatenate([-np.log(np.maximum(copies[rows], 1)), np.zeros(len(row))])
        first = np.searchsorted(owner, np.arange(len(data.Z) + 1))
        removed = np.full(len(rows), -np.inf)
        for a in range(0, len(gone), _ROWS):
            here = slice(a, a + _ROWS)
            count = np.diff(first)[gone[here]]
            which = np.repeat(np.arange(len(count)), count)
            node = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count) + first[gone[here]][which]
            logs = self._logs(Z[node], weight[node], level[node], X, gone_row[here][which], grid) + part[here][which]
            removed = np.logaddexp(removed, _log_sums(gone_row[here][which], logs, len(rows)))
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            rest = -np.expm1(removed - whole)
            left = np.where(rest > _REST, whole + np.log(rest), -np.inf)
            left = np.where(np.isneginf(removed), whole, left)
        if not len(row):
            return left
        # what comes: the same neighbours' kernels with the next neighbour in the place of the one that is gone
        V, moments = self.coordinates, self.moments(k)
        mean = np.trace(moments, axis1=1, axis2=2)
        for a in range(0, len(row), _ROWS):
            here = slice(a, a + _ROWS)
            at = j[here]
            old, new = V[at, rank[here]], V[at, k]
            if shrink == 1.0:  # all that matters is the mean of the diagonal
                change = np.einsum("ni,ni->n", new, new) - np.einsum("ni,ni->n", old, old)
                M = ((mean[at] + change / k) / V.shape[2])[:, None, None]
            else:
                M = moments[at] + (new[:, :, None] * new[:, None] - old[:, :, None] * old[:, None]) / k
            by, Y, share, level = self._nodes(scale**2 * M, at, grid, shrink)
            logs = self._logs(Y, share * data.share[at[by]], level, X, row[here][by], grid)
            left = np.logaddexp(left, _log_sums(row[here][by], logs, len(rows)))
        return left

    def _logs(self, Z, weight, level, X, row, grid):
        """Return the log of weight times kernel from each node to the query X[row]."""
        with np.errstate(divide="ignore"):
            out = np.log(weight)
        order = np.argsort(level, kind="stable")
        edges = np.flatnonzero(np.diff(level[order])) + 1
        for here in np.split(order, edges) if len(order) else ():
            out[here] += log_kernel_rows(self.data.manifold, Z[here], X[row[here]], float(grid.times[level[here[0]]]))
        return out
