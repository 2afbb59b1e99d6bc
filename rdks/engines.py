"""Kernel sums over sources: what every density, score and bandwidth of the package comes from.

A fitted density is one thing: sources, weights, and a time for each source,

.. math:: p(x)=\\sum_i w_i\\,k_{\\tau_i}(x,X_i),\\qquad \\sum_i w_i=1 .

It is positive, has mass one, and the heat flow keeps its form: after a time t every
:math:`\\tau_i` has become :math:`\\tau_i+t`. An *engine* holds that state and evaluates the log
density, its gradient and its Laplacian at any later time.
"""
from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from joblib import effective_n_jobs

from . import _twins, hierarchy, radial
from .errors import UnsupportedError
from .sampling import heat_sample

__all__ = ["DirectSum", "Evaluation", "Sources"]

# Below this many pairs per call numpy serves, as long as the compiled kernels are not loaded: loading
# them costs 0.5 s (compiling them, once per machine, some 20 s). A process that has spent about as
# much on small calls loads them after all.
_SMALL = 3_000_000
_ENOUGH = 300_000_000
# Sources that share a box in the compiled sums.
_BOX = hierarchy.BOX
# Below this many pairs one thread is faster than several.
_SERIAL = 5_000_000
# Queries that are worked on at a time, so that temporary arrays stay small.
_ROWS = 65536
# With more queries and sources than this, queries are put in an order too, so that neighbours share what they read.
_FEW, _MANY = 64, 16384
# A kernel that is exp(-_NOTHING) of its peak, or a few powers of 1/sqrt(t) more on a sphere, adds nothing to that peak.
_NOTHING = 100.0
# A sum is recomputed in the log domain where what it lacks could change it by more than this.
_TRUST = 1e-12
# Likewise its derivatives, in units of 1/sqrt(t) and 1/t, of which tables have fewer digits.
_TRUST_SLOPES = 1e-9


class Evaluation(NamedTuple):
    """What an engine computes at q queries.

    Attributes
    ----------
    log_density : ndarray, shape (q,)
    gradient : ndarray, shape (q, embed_dim), or None
        Gradient of the log density, tangent to the manifold, in embedded coordinates.
    laplacian : ndarray, shape (q,), or None
        Laplacian of the log density.
    """

    log_density: np.ndarray
    gradient: np.ndarray | None
    laplacian: np.ndarray | None


_spent = 0


def _kernels(pairs):
    """Return the compiled reductions, or their numpy twins for small work not worth loading them."""
    global _spent
    if "rdks._kernels" not in sys.modules and pairs <= _SMALL:
        _spent += pairs
        if _spent <= _ENOUGH:
            return _twins
    from . import _kernels
    return _kernels


def _run(part, todo, workers):
    """Call `part` with each of `todo`, in so many threads."""
    if workers == 1:
        for rows in todo:
            part(rows)
    else:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(part, todo))


def _log_to_itself(manifold, Z, t):
    """Return the log kernel from each point to itself; shape (n,)."""
    if manifold.kernel != "factors" or manifold.has_drift or manifold.n_images == 1:
        return manifold.log_heat_kernel(Z, Z, t)
    # most points are far from all their images, whose kernels need not be known then
    factors, zero = list(manifold.pieces()), np.zeros(1)
    out = np.full(len(Z), manifold.log_unit + sum(float(f.log_kernel(zero, t)[0]) for f, _ in factors))
    for image in manifold.images(Z)[1:]:
        r = np.array([f.dist(image[:, s], Z[:, s]) for f, s in factors])
        near = np.flatnonzero((r * r).sum(axis=0) <= 2 * t * _NOTHING)
        if near.size:
            log_k = sum(f.log_kernel(x, t) - x * x / (2 * t) for (f, _), x in zip(factors, r[:, near], strict=True))
            out[near] = np.logaddexp(out[near], manifold.log_unit + log_k)
    return out


class Sources:
    """Weighted sources on a manifold, each with a time: what every engine holds.

    Parameters
    ----------
    manifold : Manifold
    Z : ndarray, shape (n, embed_dim)
        Sources in embedded coordinates.
    weight : ndarray, shape (n,)
        Weights >= 0, not all zero, not necessarily normalised.
    time : float or ndarray, shape (n,)
        Time of each source. Sources of equal time are one block of the same sum.
    n_jobs : int, optional
        Number of threads, as in scikit-learn.

    Attributes
    ----------
    share : ndarray, shape (n,)
        Weights divided by their sum.
    squares : float
        Sum of the squared shares.
    cells : None
        The summary of the sources, in an engine that does not keep them; see :class:`rdks.spectral.SpectralSum`.
    """

    cells = None

    def __init__(self, manifold, Z, weight, time, n_jobs=None):
        self.manifold = manifold
        self.Z = np.ascontiguousarray(Z, dtype=float)
        self.weight = np.ascontiguousarray(weight, dtype=float)
        self.time = np.broadcast_to(np.asarray(time, dtype=float), self.weight.shape)
        self.n_jobs = n_jobs

    def merge(self, other):
        """Return the engine that holds the sources of both."""
        return self.like(np.concatenate([self.Z, other.Z]), np.concatenate([self.weight, other.weight]),
                         np.concatenate([self.time, other.time]))

    def at(self, time):
        """Return the same sources with another time (a number, or one per source)."""
        return self.like(self.Z, self.weight, time)

    def like(self, Z, weight, time):
        """Return an engine of this kind for other sources."""
        return type(self)(self.manifold, Z, weight, time, self.n_jobs)

    @property
    def share(self):
        """Weights divided by their sum, which may itself be beyond the largest float; shape (n,)."""
        share = self.weight / self.weight.max()
        return share / share.sum()

    @property
    def squares(self):
        """Sum of the squared shares."""
        share = self.share
        return float(share @ share)

    def compact_order(self):
        """Return the indices of the sources of positive weight, close ones together where that is known."""
        return np.flatnonzero(self.weight > 0)

    def evaluate(self, Z, t=0.0, order=0, n_jobs=None):
        """Evaluate the density of the state after a further time `t`.

        Parameters
        ----------
        Z : ndarray, shape (q, embed_dim)
            Queries in embedded coordinates.
        t : float
            Time since the state, >= 0.
        order : int
            0 for the log density, 1 for its gradient too, 2 for its Laplacian too.
        n_jobs : int, optional
            Number of threads; that of the engine by default. Sums on discretised spaces use one.

        Returns
        -------
        Evaluation
        """
        return self._evaluate(np.ascontiguousarray(Z, dtype=float), t, order, None,
                              self.n_jobs if n_jobs is None else n_jobs)

    def leave_one_out(self, t=0.0, rows=None):
        r"""Evaluate at sources the sum over all others.

        Parameters
        ----------
        t : float
            Time since the state, >= 0.
        rows : ndarray of int, shape (k,), optional
            Sources at which to evaluate; all of them by default.

        Returns
        -------
        ndarray, shape (n,) or (k,)
            :math:`\log\sum_{j\ne i}w_jk_{\tau_j+t}(X_i,X_j)` with weights that sum to 1 in all;
            subtract :math:`\log(1-w_i)` for the leave-one-out density. The source's own term
            is skipped, never subtracted, so isolated points keep all their digits.
        """
        rows = np.arange(len(self.Z)) if rows is None else np.asarray(rows)
        return self._evaluate(self.Z[rows], t, 0, rows, self.n_jobs).log_density

    def log_self(self, t=0.0, rows=None):
        """Return the log kernel from each source to itself after a further time `t`.

        Parameters
        ----------
        t : float
        rows : ndarray of int, shape (k,), optional
            Sources for which to compute it; all of them by default.

        Returns
        -------
        ndarray, shape (n,) or (k,)
            Images included.
        """
        Z, time = (self.Z, self.time) if rows is None else (self.Z[rows], self.time[rows])
        out = np.empty(len(Z))
        for tau in np.unique(time):
            here = time == tau
            W = Z[here][:1] if self.manifold.is_homogeneous else Z[here]
            out[here] = _log_to_itself(self.manifold, W, float(tau) + t)
        return out

    def log_overlap(self, t):
        r"""Return :math:`\log\sum_{ij}w_iw_jk_t(X_i,X_j)` after a further time `t`, or None.

        None where that is no less work than all leave-one-out sums.
        """
        return None

    def sample(self, n_samples, rng):
        """Draw from the density of the state: a source by weight, and one step of Brownian motion from it.

        Parameters
        ----------
        n_samples : int
        rng : numpy.random.Generator

        Returns
        -------
        ndarray, shape (n_samples, embed_dim)
        """
        which = rng.choice(len(self.Z), size=n_samples, p=self.share)
        return heat_sample(self.manifold, self.Z[which], self.time[which], rng)


class DirectSum(Sources):
    """Exact sums over all sources, on products of space forms and their quotients.

    Parameters as for :class:`Sources`. Sources of equal time are one block of the same sum; the images of
    the sources under the group of a quotient are blocks too.

    Notes
    -----
    Dense sums of tabulated kernels (:mod:`rdks.radial`), relative to the kernel's peak; boxes of
    sources (:mod:`rdks.hierarchy`) where the kernel is below exp(-60) of its peak are left out. A query
    whose sum is so small that this or the cut of the kernel could matter at 1e-12, because it is far from
    all sources, is evaluated again by log-sum-exp with accurate distances, where nothing
    underflows: the density is never zero, negative or NaN. Compiled and numpy sums agree to
    rounding, not to the last bit.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.engines import DirectSum
    >>> from rdks.manifolds import Sphere
    >>> north = np.array([[0.0, 0.0, 1.0]])
    >>> total = DirectSum(Sphere(2), north, np.ones(1), 1e-4)
    >>> round(float(total.evaluate(-north).log_density[0]))  # the antipode: exp(-49334)
    -49334
    """

    def __init__(self, manifold, Z, weight, time, n_jobs=None):
        super().__init__(manifold, Z, weight, time, n_jobs)
        if manifold.kernel != "factors":
            raise UnsupportedError(f"{manifold!r} has no heat kernel in closed form, which engine='direct' sums")
        self._blocks = None

    def __getstate__(self):
        return {**self.__dict__, "_blocks": None}

    def at(self, time):
        new = super().at(time)
        if np.ndim(time) == 0 and self._blocks is not None and len({block[0] for block in self._blocks}) == 1:
            # one time for all: the blocks differ in nothing but that number
            new._blocks = [(float(time), *block[1:]) for block in self._blocks]
        return new

    def compact_order(self):
        own = self.blocks()[::self.manifold.n_images]
        return np.concatenate([index for _, index, *_ in own])

    def blocks(self):
        """List the sources of equal time, and their images.

        Returns
        -------
        list of tuple
            (time, indices of the sources, sources as columns, normalised weights, tree of boxes), in an order
            in which neighbours in space are neighbours in memory; for each time a block by image, the sources
            themselves first.
        """
        if self._blocks is None:
            share, factors = self.share, self.manifold.factors()
            times, which = np.unique(self.time, return_inverse=True)
            blocks = []
            for b, t in enumerate(times):
                index = np.flatnonzero((which == b) & (share > 0))
                if not index.size:
                    continue
                index = index[hierarchy.compact(self.Z[index], factors)]
                for Z in self.manifold.images(self.Z[index]):
                    blocks.append((float(t), index, np.ascontiguousarray(Z.T), share[index],
                                   hierarchy.tree(Z, share[index], factors)))
            self._blocks = blocks  # complete before another thread can see it
        return self._blocks

    def _evaluate(self, Z, t, order, own, n_jobs):
        nq = len(Z)
        pairs = nq * len(self.Z) * self.manifold.n_images
        kernels = _kernels(pairs)
        log_density = np.empty(nq)
        gradient = np.zeros((nq, self.manifold.embed_dim)) if order else None
        laplacian = np.zeros(nq) if order > 1 else None
        blocks = self._moved(t, nq, own)
        sequence = (hierarchy.compact(Z, self.manifold.factors())
                    if kernels is not _twins and nq > _FEW and len(self.Z) > _MANY else np.arange(nq))

        def part(rows):
            logs = np.empty(len(rows))
            g = np.zeros((len(rows), self.manifold.embed_dim)) if order else np.zeros((1, 1))
            lap = np.zeros(len(rows)) if order else np.zeros(1)
            self._part(kernels, blocks, Z[rows], rows, order, logs, g, lap)
            log_density[rows] = logs
            if order:
                gradient[rows] = g
            if order > 1:
                laplacian[rows] = lap

        workers = 1 if pairs < _SERIAL else min(effective_n_jobs(n_jobs), nq)
        # more pieces than threads: tail queries cost more than others
        pieces = max(-(-nq // _ROWS), 1 if workers == 1 else min(nq, 8 * workers))
        edges = np.linspace(0, nq, pieces + 1).astype(int)
        todo = [sequence[a:b] for a, b in zip(edges[:-1], edges[1:], strict=True)]
        _run(part, todo, workers)
        return Evaluation(log_density, gradient, laplacian)

    def _moved(self, t, nq, own):
        """List the blocks after a time t: (time, sources as columns, weights, tree, which source each query skips)."""
        blocks = []
        for tau, index, Y, w, tree in self.blocks():
            columns = Y.T
            moved, time = self.manifold.flow(columns, tau + t)
            if moved is not columns:  # a drift
                Y, tree = np.ascontiguousarray(moved.T), hierarchy.tree(moved, w, self.manifold.factors())
            skip = np.full(nq, -1, dtype=np.int64)
            if own is not None:
                place = np.full(len(self.Z), -1, dtype=np.int64)
                place[index] = np.arange(index.size)
                skip = place[own]
            blocks.append((time, Y, w, tree, skip))
        return blocks

    @property
    def is_ordered(self):
        """Whether sources have been put in order, which the first evaluation does."""
        return self._blocks is not None

    def _first_depth(self, order):
        """Depth, in the exponent below the peak, at which boxes are left out at first."""
        return radial.DEPTH

    def _reach(self, depth, tb, reference, order):
        """Depth, below its own peak, to which a block is searched: a lower peak needs less."""
        return depth + (tb.log_peak - reference)

    def _trust(self):
        """What may be lacking of a sum, relative to it, and of its derivatives."""
        return _TRUST, _TRUST_SLOPES

    def _tables(self, blocks, order, series=True):
        """Return the blocks that are to be summed, and the tables of their kernels."""
        factors, antipodal = self.manifold.factors(), self.manifold.antipodal
        tables = [radial.table(factors, time, order, series, antipodal) for time, *_ in blocks]
        if not antipodal:
            return blocks, tables
        # the even part of the series serves an image and its antipode at once
        half, n_images = self.manifold.n_images // 2, self.manifold.n_images
        use = [b for b, tb in enumerate(tables) if tb.form[0] != 3 or b % n_images < half]
        return [blocks[b] for b in use], [tables[b] for b in use]

    def _part(self, kernels, blocks, Z, rows, order, log_density, gradient, laplacian, series=True):
        """Fill the outputs for some rows of the queries: dense sums, those without series, then the tail."""
        every, (blocks, tables) = blocks, self._tables(blocks, order, series)
        todo, depth = np.arange(len(Z)), np.full(len(Z), self._first_depth(order))
        far = []
        while todo.size:
            logs, g, lap, lack, cut, hope = self._dense(kernels, blocks, tables, Z[todo], rows[todo], order,
                                                        depth[todo])
            log_density[todo] = logs
            if order:
                gradient[todo], laplacian[todo] = g, lap
            short = ~((lack <= 1) & (cut <= 1))
            again = short & hope & (depth[todo] < radial.DEPTH)
            far.append(todo[short & ~again])
            todo, lack = todo[again], lack[again]
            step = np.where(lack < np.inf, 1 + np.log(np.maximum(lack, 1)), depth[todo])
            depth[todo] = np.minimum(depth[todo] + np.maximum(step, 0.2 * depth[todo]), radial.DEPTH)
        far = np.concatenate(far)
        if far.size and any((tb.form >= 2).any() for tb in tables):
            # not far enough for the tail, perhaps: the piecewise form is right relative to each kernel
            logs, g, lap = np.empty(far.size), np.zeros((far.size, Z.shape[1])), np.zeros(far.size)
            self._part(kernels, every, Z[far], rows[far], order, logs, g, lap, series=False)
            log_density[far] = logs
            if order:
                gradient[far], laplacian[far] = g, lap
        elif far.size:
            self._tail(kernels, blocks, Z, rows, far, order, log_density, gradient, laplacian)

    def _sums(self, kernels, blocks, tables, Z, rows, order, depth):
        """Sum the kernels relative to the highest peak, down to a depth for each query.

        Returns the sums, of gradients and of Laplacians too, a bound of what the boxes left out add to the sum, times
        1 + depth for derivatives, what the tables lack, and the number of sources not left out.
        """
        nq = len(Z)
        reference = max(tb.log_peak for tb in tables)
        total, left, pairs, doubt = np.zeros(nq), np.zeros(nq), np.zeros(nq), 0.0
        gradient = np.zeros((nq, self.manifold.embed_dim)) if order else np.zeros((1, 1))
        laplacian = np.zeros(nq) if order else np.zeros(1)
        for tb, block in zip(tables, blocks, strict=True):
            g, lap = np.zeros_like(gradient), np.zeros_like(laplacian)
            reach = self._reach(depth, tb, reference, order)
            s, out = self._block(kernels, block, tb, Z, rows, order, reach, g, lap, pairs)
            height = np.exp(tb.log_peak - reference)
            total += height * s
            left += height * out
            if order:
                gradient += height * g
                laplacian += height * lap
            doubt += height * tb.floor * block[2].sum()
        return total, gradient, laplacian, left, doubt, pairs

    def _block(self, kernels, block, tb, Z, rows, order, reach, gradient, laplacian, pairs):
        """Sum the kernels of one block relative to its peak, down to a reach for each query; see `_sums`."""
        time, Y, w, tree, skip = block
        s, out = np.zeros((2, len(Z)))
        rate = hierarchy.rates(self.manifold.factors(), time)
        if (tb.form == 3).any():
            # the even series serves two images, and what is far from one is near the other: none is left out
            rate, reach = np.zeros_like(rate), np.maximum(reach, 0.0)
        kernels.kernel_sums(Z, Y, w, skip[rows], reach, tree.middle, tree.extent, tree.load, tree.first, *tb.arrays,
                            rate, order, s, gradient, laplacian, out, pairs)
        return s, out

    def shallow(self, Z, depth, n_jobs=None):
        """Evaluate the log density without the kernels that are far below their own peak.

        Parameters
        ----------
        Z : ndarray, shape (q, embed_dim)
            Queries in embedded coordinates.
        depth : float
            Boxes of sources in which every kernel is below exp(-depth) of its peak are left out. Nothing makes up for
            them, as `evaluate` does.
        n_jobs : int, optional

        Returns
        -------
        ndarray, shape (q,)
            -inf where nothing was found.
        """
        Z = np.ascontiguousarray(Z, dtype=float)
        kernels = _kernels(len(Z) * len(self.Z) * self.manifold.n_images)
        blocks, tables = self._tables(self._moved(0.0, len(Z), None), 0)
        sequence = hierarchy.compact(Z, self.manifold.factors())
        out, zero = np.full(len(Z), -np.inf), np.zeros((1, 1))

        def part(rows):
            X, logs, reach = Z[rows], out[rows], np.full(len(rows), float(depth))
            for tb, block in zip(tables, blocks, strict=True):
                s, _ = self._block(kernels, block, tb, X, rows, 0, reach, zero, zero[0], np.zeros(len(rows)))
                found = np.flatnonzero(s > 0)
                logs[found] = np.logaddexp(logs[found], np.log(s[found]) + tb.log_peak)
            out[rows] = logs

        workers = min(effective_n_jobs(self.n_jobs if n_jobs is None else n_jobs), len(Z))
        todo = np.array_split(sequence, max(-(-len(Z) // _ROWS), 1 if workers == 1 else min(len(Z), 4 * workers)))
        _run(part, todo, workers)
        return out + self.manifold.log_unit

    def _dense(self, kernels, blocks, tables, Z, rows, order, depth):
        """Evaluate by sums down to a depth for each query.

        Returns log density, gradient and Laplacian; what the boxes left out could add to them, in units of 1, 1/sqrt(t)
        and 1/t, and of what may be lacking; likewise what the tables lack; and whether that may be little enough if
        more boxes are added.
        """
        trust, trust_slopes = self._trust()
        total, gradient, laplacian, left, doubt, _ = self._sums(kernels, blocks, tables, Z, rows, order, depth)
        hope = doubt <= trust * (total + left)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            logs = np.log(total)
            logs += max(tb.log_peak for tb in tables) + self.manifold.log_unit
            if order:
                gradient /= total[:, None]
                gradient = self.manifold.to_tangent(Z, gradient)
                laplacian /= total
                square = np.einsum("ij,ij->i", gradient, gradient)
                laplacian -= square
                # A source at depth x adds k |grad log k| to the numerator of the gradient, at most 1 + x in units of
                # 1/sqrt(t), and takes k |grad log p|; for the Laplacian likewise.
                unit = min(time for time, *_ in blocks)
                pull = np.sqrt(unit * square)
                scale = 1 + pull
                if order > 1:
                    scale *= self.manifold.dim + pull + unit * np.abs(laplacian)
                scale *= trust / trust_slopes
                # where the tables are cut, derivatives are by the depth of the cut more than the kernel
                reference = max(tb.log_peak for tb in tables)
                lowest = np.maximum(np.min([self._reach(depth, tb, reference, order) for tb in tables], axis=0), 0.0)
                left = left * np.maximum(1 / (1 + lowest), scale)
                doubt = doubt * np.maximum(1, scale * (1 + radial.DEPTH))
            lack, cut = np.where(total > 0, [left / (trust * total), doubt / (trust * total)], np.inf)
        return logs, gradient, laplacian, lack, cut, hope

    def _tail(self, kernels, blocks, Z, rows, far, order, log_density, gradient, laplacian):
        """Evaluate the queries `far` by log-sum-exp in every block, and combine the blocks."""
        factors = self.manifold.factors()
        Z, rows = Z[far], rows[far]
        tables = [radial.tail_table(factors, time, order) for time, *_ in blocks]
        peak = np.full(far.size, -np.inf)
        for tail, (time, Y, w, tree, skip) in zip(tables, blocks, strict=True):
            kernels.tail_peaks(Z, Y, np.log(w), skip[rows], tree.middle, tree.extent, tree.heaviest, tree.first,
                               *tail.arrays, time, peak)
        # all sources that are so much below the largest term add up to less than what may be lacking
        margin = 2 + np.log(sum(w.size for _, _, w, *_ in blocks)) - np.log(max(self._trust()[0], 1e-16))
        if order:
            # of the gradient too, which grows as the root of the depth, and of the Laplacian, which grows as its square
            top = max(sum(float(f.log_kernel(np.zeros(1), time)[0]) for f in factors) for time, *_ in blocks)
            slope = 2 + 2 * np.sqrt(2 * (np.maximum(top - peak, 0.0) + margin))
            margin = margin + order * np.log(slope) + np.log(self.manifold.dim)
        logs, grads, laps = [], [], []
        for tail, (time, Y, w, tree, skip) in zip(tables, blocks, strict=True):
            s = np.full(far.size, -np.inf)
            g = np.zeros((far.size, Z.shape[1]))
            lap = np.zeros(far.size)
            kernels.tail_sums(Z, Y, np.log(w), skip[rows], tree.middle, tree.extent, tree.load, tree.heaviest,
                              tree.first, *tail.arrays, time, peak - margin, order, s, g, lap)
            logs.append(s)
            grads.append(g)
            laps.append(lap)
        logs = np.array(logs)
        total = np.logaddexp.reduce(logs, axis=0)
        log_density[far] = total + self.manifold.log_unit
        if order:
            with np.errstate(invalid="ignore"):
                share = np.nan_to_num(np.exp(logs - total))
            grads = np.array([self.manifold.to_tangent(Z, g) for g in grads])
            gradient[far] = np.einsum("bi,bij->ij", share, grads)
            # Laplacians within the blocks, and the variance of the gradients between them
            between = ((grads - gradient[far]) ** 2).sum(axis=-1)
            laplacian[far] = np.einsum("bi,bi->i", share, np.array(laps) + between)
