r"""Kernel sums over sources on manifolds whose heat kernel is known pair by pair.

A manifold of kind "pairs" gives :math:`\log k_t(x_i,y_j)`, its gradient in x and
:math:`\Delta_xk/k` for a block of pairs at a time. This engine adds them up: every pair is computed, in blocks of
bounded memory, and every sum is a log-sum-exp, so nothing underflows at any distance.
"""
from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from joblib import effective_n_jobs

from .engines import Evaluation, Sources
from .errors import UnsupportedError

__all__ = ["PairSum"]

# Numbers in one temporary array of a block of pairs: 8 MB, which is about what stays in cache.
_BLOCK = 1_000_000
# Sources in one block at most; with fewer, numpy's cost per call counts.
_SOURCES = 1000
# Below this many pairs one thread is faster than several.
_SERIAL = 20_000
# Sources that share a leaf of the tree that puts neighbours next to each other.
_LEAF = 256
# Numbers of invariants of pairs that are kept between calls: 200 MB.
_KEEP = 25_000_000


class PairSum(Sources):
    r"""Exact sums over all sources by the manifold's kernel of pairs.

    Parameters as for :class:`rdks.engines.Sources`; the manifold is of kind "pairs". Sources of equal time are
    summed together, and the images of the sources under the group of a quotient with them.

    Notes
    -----
    With shares :math:`W_i=w_ik_i/\sum_jw_jk_j` and :math:`g_i=\nabla\log k_i`,

    .. math:: \nabla\log p=\bar g=\sum_iW_ig_i,\qquad
              \Delta\log p=\sum_iW_i\Bigl(\frac{\Delta k_i}{k_i}-|g_i|^2\Bigr)+\sum_iW_i|g_i-\bar g|^2 .

    The second is :math:`\Delta p/p-|\nabla\log p|^2` as a mean of the Laplacians of the single log kernels plus a
    variance, so that no two sums over sources cancel. Blocks of sources are combined by the same formulas. Errors:
    a log density is right to a few units in its last digit, :math:`\delta`, and shares, hence gradients, to
    :math:`\delta` relative to the spread of the :math:`g_i`.

    A manifold may take the step from a pair to its kernel in two: `pair_invariants` (X, Y) -> (q, n, r), numbers that
    do not depend on time, and `log_kernel_of_invariants` (those, t) -> (q, n). Leave-one-out sums, which a search for a
    bandwidth asks for at many times, then keep the invariants of the pairs of the last call, up to 200 MB.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.manifolds import SpecialOrthogonal
    >>> from rdks.pairs import PairSum
    >>> group = SpecialOrthogonal(3)
    >>> Z = group.embed(np.array([np.eye(3), np.diag([1.0, -1.0, -1.0])]))
    >>> total = PairSum(group, Z, np.ones(2), 0.01)
    >>> bool(np.allclose(total.evaluate(Z).log_density, total.log_self() - np.log(2)))  # far apart: half a kernel each
    True
    """

    def __init__(self, manifold, Z, weight, time, n_jobs=None):
        super().__init__(manifold, Z, weight, time, n_jobs)
        if manifold.kernel != "pairs":
            raise UnsupportedError(f"{manifold!r} is of kind {manifold.kernel!r} and gives no kernel of pairs of "
                                   "points, which PairSum adds up")
        self._kept = (None, {})  # rows of the last leave-one-out, and invariants by block of pairs

    def __getstate__(self):
        return {**self.__dict__, "_kept": (None, {})}

    def compact_order(self):
        index = np.flatnonzero(self.weight > 0)
        if len(index) <= _LEAF:
            return index
        from scipy.spatial import cKDTree
        return index[cKDTree(self.Z[index], leafsize=_LEAF).indices]

    def log_self(self, t=0.0):
        """Return the log kernel from each source to itself, its images included, after a further time `t`; (n,)."""
        out = np.empty(len(self.Z))
        for tau in np.unique(self.time):
            rows = self.time == tau
            out[rows] = self.manifold.log_heat_kernel(self.Z[rows], self.Z[rows], float(tau) + t)
        return out

    def _pieces(self, t):
        """List (time, indices, sources, log weights) of at most _SOURCES sources of equal time."""
        share = self.share
        pieces = []
        for time in np.unique(self.time):
            index = np.flatnonzero((self.time == time) & (share > 0))
            Z, s = self.manifold.flow(self.Z[index], float(time) + t)
            images = self.manifold.images(Z)
            log_weight = np.log(share[index])
            for a in range(0, index.size, _SOURCES):
                part = slice(a, a + _SOURCES)
                for Y in images:
                    pieces.append((s, index[part], Y[part], log_weight[part]))
        return pieces

    def _evaluate(self, Z, t, order, own, n_jobs):
        manifold, nq = self.manifold, len(Z)
        pieces = self._pieces(t)
        most = max((len(index) for _, index, *_ in pieces), default=1)
        step = max(1, _BLOCK // (most * manifold.embed_dim))
        log_density = np.full(nq, -np.inf)
        gradient = np.zeros((nq, manifold.embed_dim)) if order else None
        laplacian = np.zeros(nq) if order > 1 else None
        parts = [slice(a, a + step) for a in range(0, nq, step)]
        limit = _KEEP // max(1, len(parts) * len(pieces))
        if own is not None and self._kept[0] != own.tobytes():
            self._kept = (own.tobytes(), {})
        kept = self._kept[1] if own is not None and order == 0 and hasattr(manifold, "pair_invariants") else None

        def part(rows):
            state = None
            for place, (time, index, Y, log_weight) in enumerate(pieces):
                if kept is None:
                    log_k, grad, ratio = manifold.pair_kernel(Z[rows], Y, time, order)
                else:
                    log_k = self._from_invariants(Z[rows], Y, time, kept, (rows.start, place), limit)
                    grad = ratio = None
                logs = log_k + log_weight
                if own is not None:
                    logs[own[rows][:, None] == index] = -np.inf
                new = _reduce(logs, grad, ratio)
                state = new if state is None else _combine(state, new)
            log_density[rows] = state.log_density
            if order:
                gradient[rows] = state.gradient
            if order > 1:
                laplacian[rows] = state.laplacian

        workers = 1 if nq * len(self.Z) < _SERIAL else min(effective_n_jobs(n_jobs), len(parts))
        if workers <= 1:
            for rows in parts:
                part(rows)
        else:
            with ThreadPoolExecutor(workers) as pool:
                list(pool.map(part, parts))
        return Evaluation(log_density, gradient, laplacian)

    def _from_invariants(self, X, Y, t, kept, place, limit):
        """Return log k for a block of pairs, by the invariants kept from an earlier time if there are any."""
        invariants = kept.get(place)
        if invariants is None:
            invariants = self.manifold.pair_invariants(X, Y)
            if invariants.size <= limit:
                kept[place] = invariants
        return self.manifold.log_kernel_of_invariants(invariants, t)


def _shares(logs, axis):
    """Return the log of the sum of exponentials along an axis, and the share of each term in it.

    Where every term is zero there is nothing to share: the log is -inf and all shares are 0.
    """
    peak = logs.max(axis=axis, keepdims=True)
    peak = np.where(np.isfinite(peak), peak, 0.0)
    share = np.exp(logs - peak)
    total = share.sum(axis=axis, keepdims=True)
    share = np.divide(share, total, out=share, where=total > 0)
    with np.errstate(divide="ignore"):
        log_total = np.log(total) + peak
    return log_total.squeeze(axis), share


def _reduce(logs, grad, ratio):
    """Sum over the sources of one block: logs (q, n), gradients (q, n, m), ratios (q, n) -> Evaluation."""
    log_density, share = _shares(logs, 1)
    if grad is None:
        return Evaluation(log_density, None, None)
    gradient = np.einsum("qn,qnm->qm", share, grad)
    if ratio is None:
        return Evaluation(log_density, gradient, None)
    curvature = ratio - np.einsum("qnm,qnm->qn", grad, grad)
    away = grad - gradient[:, None, :]
    curvature += np.einsum("qnm,qnm->qn", away, away)
    return Evaluation(log_density, gradient, np.einsum("qn,qn->q", share, curvature))


def _combine(one, two):
    """Add two sums: the same formulas with the sums in place of the kernels."""
    log_density, share = _shares(np.array([one.log_density, two.log_density]), 0)
    if one.gradient is None:
        return Evaluation(log_density, None, None)
    gradients = np.array([one.gradient, two.gradient])
    gradient = np.einsum("bq,bqm->qm", share, gradients)
    if one.laplacian is None:
        return Evaluation(log_density, gradient, None)
    between = ((gradients - gradient) ** 2).sum(axis=-1)
    laplacian = np.einsum("bq,bq->q", share, np.array([one.laplacian, two.laplacian]) + between)
    return Evaluation(log_density, gradient, laplacian)
