"""Matrices of log heat kernels between two sets of points, block by block, on every manifold of the package."""
from __future__ import annotations

import numpy as np

from . import radial
from .manifolds.graph import read

__all__ = ["log_kernel", "log_kernel_blocks"]

# Numbers in one block: with the temporary arrays some 100 MB.
_BLOCK = 2_000_000


def log_kernel(factor, r, t):
    """Evaluate the log kernel of a space form at distances `r` by the panels of the far tail, right everywhere."""
    gaussian = -r * r / (2 * t)
    panels = radial.tail_table((factor,), t)
    count, edge, mid, scale, coef = panels.count[0], panels.edge[0], panels.mid[0], panels.scale[0], panels.panel[0, 0]
    if count == 1:
        which = np.zeros(r.shape, dtype=np.intp)
    # the variable of the panels: the distance to the cut locus, on a sphere as the chord to the antipode
    if factor.kind == "circle":
        v = np.maximum(0.5 * factor.period - r, 0.0)
    elif factor.kind == "sphere":
        v = 2 * factor.radius * np.cos(np.minimum(r / (2 * factor.radius), 0.5 * np.pi))
    else:
        v = r
    if count > 1:
        which = np.searchsorted(edge[1:count], v, side="right")
    x = (v - mid[which]) * scale[which]
    powers = coef.T
    value = powers[-1].take(which)
    for a in powers[-2::-1]:
        value *= x
        value += a.take(which)
    return value + gaussian


def _pairs(manifold, Z, W, t):
    """Return log k_t from each of W to each of Z, (len(Z), len(W)), for one time and few enough pairs."""
    if manifold.kernel == "pairs":
        logs = [manifold.pair_kernel(Z, image, t, 0)[0] for image in manifold.images(W)]
        return logs[0] if len(logs) == 1 else np.logaddexp.reduce(logs, axis=0)
    W, t = manifold.flow(W, t)
    total = None
    for image in manifold.images(W):
        logs = manifold.log_unit
        for f, s in manifold.pieces():
            logs = logs + log_kernel(f, f.dist(Z[:, None, s], image[None, :, s]), t)
        total = logs if total is None else np.logaddexp(total, logs, out=total)
    return total


def log_kernel_blocks(manifold, Z, W, t):
    r"""Yield the matrix :math:`\log k_{t_j}(Z_i,W_j)` in blocks of rows, which have bounded memory.

    Parameters
    ----------
    manifold : Manifold
    Z : ndarray, shape (q, embed_dim)
        Queries in embedded coordinates, the rows of the matrix.
    W : ndarray, shape (n, embed_dim)
        Sources, its columns. Without a drift the kernel is symmetric.
    t : float or ndarray, shape (n,)
        Time of all sources, or of each.

    Yields
    ------
    rows : slice
        Rows of Z.
    logs : ndarray, shape (rows, n)
        Images of quotients are added up. Nothing underflows: a log kernel is finite at every distance.

    Notes
    -----
    Products of space forms: accurate distances, and one polynomial per factor; errors as for the far tail of
    :class:`rdks.engines.DirectSum`, 1e-12 of max(1, \|log k\|). Some 0.1 microseconds per pair and factor. Spaces known
    by nodes: one flow per query and time.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.gram import log_kernel_blocks
    >>> from rdks.manifolds import Euclidean
    >>> Z = np.array([[0.0], [3.0]])
    >>> [(rows, logs)] = log_kernel_blocks(Euclidean(1), Z, Z, 1.0)
    >>> (logs - logs[0, 0]).round(12)
    array([[ 0. , -4.5],
           [-4.5,  0. ]])
    """
    times = np.broadcast_to(np.asarray(t, dtype=float), len(W))
    unique = np.unique(times)
    if manifold.kernel == "basis":
        yield from _nodal_blocks(manifold, Z, W, times, unique)
        return
    width = max(1, manifold.embed_dim if manifold.kernel == "pairs" else max(f.width for f in manifold.factors()))
    step = max(1, _BLOCK // (width * max(len(W), 1)))
    for a in range(0, len(Z), step):
        rows = slice(a, min(a + step, len(Z)))
        if len(unique) == 1:
            yield rows, _pairs(manifold, Z[rows], W, float(unique[0]))
            continue
        logs = np.empty((rows.stop - rows.start, len(W)))
        for time in unique:
            mine = times == time
            logs[:, mine] = _pairs(manifold, Z[rows], W[mine], float(time))
        yield rows, logs


def _nodal_blocks(manifold, Z, W, times, unique):
    """Yield the blocks on a space known by nodes: by symmetry, flows from the queries."""
    B = manifold.rows(W)
    for a in range(0, len(Z), 64):
        rows = slice(a, min(a + 64, len(Z)))
        logs = np.empty((rows.stop - rows.start, len(W)))
        for time in unique:
            mine = np.flatnonzero(times == time)
            for part, columns in manifold.columns(Z[rows], float(manifold.remaining(time, 2))):
                for k in range(columns.shape[1]):
                    logs[part.start + k, mine] = read(B[mine], columns[:, k])
        yield rows, logs
