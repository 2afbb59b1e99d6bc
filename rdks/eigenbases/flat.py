r"""Eigenfunctions that are products over coordinates: trigonometric functions, and Hermite polynomials.

Every function is the real part of a constant times :math:`\prod_jT_{k_j}(z_j)` for a vector k of whole numbers, so that
sums over functions are matrix products (n, last) x (last, leading), "leading" standing for the distinct first
:math:`d-1` numbers. Means of products of two are looked up among means of single ones: on a torus at the sum and the
difference of the frequencies, on a box at all combinations of signs, for Hermite polynomials by
:math:`He_mHe_n=\sum_k k!\binom mk\binom nkHe_{m+n-2k}` (theory section 6.3).
"""
from __future__ import annotations

import itertools
import math
import os

import numpy as np
from scipy.special import gammaln

from ..errors import UnsupportedError
from ..manifolds import Box, OrnsteinUhlenbeck, Product
from ..manifolds.base import parameter
from .base import EigenBasis

__all__ = ["HermiteBasis", "TrigonometricBasis"]

# Numbers in a block of a table, and in a table of means by frequency.
_BLOCK, _TABLE = 2**21, 2**23
# Two eigenvalues that differ by less, relatively, are equal.
_EQUAL = 1e-9
# Matrices of all functions that a fit holds at once.
_MATRICES = 5
# Highest degree of Hermite polynomials. Coefficients of a product of degree N add up to about 3^N, by which the
# rounding of means is multiplied: the matrix is off by 1e-13 at degree 10, 1e-8 at 20, 5e-7 at 24 and 3e-4 at 30.
_MOST_DEGREE = 24
# Layouts of leading functions that are kept.
_LAYOUTS = 64


def _memory():
    """Return how many bytes may be used: half of the machine's memory, or 8 GiB where the system does not say."""
    try:
        return 0.5 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not a POSIX system
        return 2.0**33


def _check_memory(basis, need, count):
    """Raise ValueError if a basis takes more than half of the machine's memory.

    Parameters
    ----------
    basis : EigenBasis
        With its parameters, for the message.
    need : float
        Bytes.
    count : float
        Number of functions, about.
    """
    most = _memory()
    if need > most:
        fewer = "" if basis.interactions == 1 else ", or interactions=1, functions of one coordinate each"
        raise ValueError(f"max_level={basis.max_level} with interactions={basis.interactions} on {basis.manifold!r} is "
                         f"a basis of about {count:.4g} functions, which takes {need / 2**30:.3g} GiB for its matrices "
                         f"and means; at most {most / 2**30:.3g} GiB, half of the machine's memory, are used. Use a "
                         f"lower max_level{fewer}")


def _count(costs, budget, interactions):
    """Return about how many index vectors :func:`_indices` finds, by their number for each rounded-up cost."""
    bins = 512
    table = np.zeros((interactions + 1, bins + 1))  # by entries that are not zero, and by cost
    table[0, 0] = 1.0
    for cost in costs:
        step = np.rint(bins * cost[(cost > 0) & (cost <= budget)] / budget).astype(int)
        for used in range(interactions, 0, -1):
            for shift, times in zip(*np.unique(step, return_counts=True), strict=True):
                table[used, shift:] += times * table[used - 1, :bins + 1 - shift]
    return float(table.sum())


def _indices(values, costs, budget, interactions):
    """Enumerate vectors of whole numbers of a total cost within the budget.

    Parameters
    ----------
    values, costs : sequence of ndarray
        For each coordinate the numbers it may be, among them 0, and what they cost; 0 costs nothing.
    budget : float
    interactions : int
        Entries that are not zero, at most.

    Returns
    -------
    ndarray of int, shape (count, d)
        In lexicographic order.
    """
    d, found = len(values), []
    budget *= 1 + _EQUAL
    cheapest = min(float(cost[cost > 0].min()) for cost in costs)
    for size in range(min(interactions, d, int(budget / cheapest)) + 1):
        for support in itertools.combinations(range(d), size):
            rows, total = np.zeros((1, d), dtype=np.int64), np.zeros(1)
            for j in support:
                some = (values[j] != 0) & (costs[j] <= budget)
                sums = total[:, None] + costs[j][some]
                row, column = np.nonzero(sums <= budget)
                rows, total = rows[row], sums[row, column]
                rows[:, j] = values[j][some][column]
            found.append(rows)
    rows = np.concatenate(found)
    return rows[np.lexsort(rows.T[::-1])]


def _is_dense(reach):
    """Say whether a table has room for all vectors with entries of these absolute values."""
    return float(np.prod(2.0 * reach + 1)) <= _TABLE


def _places(index, some):
    """Return the places of vectors in a list that has them."""
    index, some = np.ascontiguousarray(index), np.ascontiguousarray(some)
    place = {row.tobytes(): i for i, row in enumerate(index)}
    return np.array([place[row.tobytes()] for row in some], dtype=int)


class _Lookup:
    """Positions of vectors of whole numbers in a list, by a key that is linear: that of a sum is the sum of the keys.

    Parameters
    ----------
    index : ndarray of int, shape (m, d)
    reach : ndarray of int, shape (d,)
        Largest absolute value of an entry that is asked for.
    """

    def __init__(self, index, reach):
        size = 2 * reach + 1
        self.dense = _is_dense(reach)
        if self.dense:  # the key is a place in a table
            self.stride = np.append(np.cumprod(size[:0:-1])[::-1], 1).astype(np.int64)
            self.origin = int(self.stride @ reach)
            self.where = np.full(int(np.prod(size)), len(index), dtype=np.int64)
            self.where[index @ self.stride + self.origin] = np.arange(len(index))
            return
        # Random multipliers, modulo 2^64: that two of a million vectors share a key has the probability 1e-7, and
        # is found here.
        self.stride = np.random.default_rng(0).integers(-2**63, 2**63, index.shape[1], dtype=np.int64)
        keys = index @ self.stride
        self.order = np.argsort(keys)
        self.keys = keys[self.order]
        if (np.diff(self.keys) == 0).any():
            raise AssertionError("two index vectors have the same key")

    def key(self, index):
        """Return the keys of vectors; shape (m,)."""
        return index @ self.stride

    def table(self, values):
        """Return what `take` reads: values (m,) of the vectors in the list, 0 for all others."""
        values = np.append(values, 0.0)
        return values[self.where] if self.dense else values

    def take(self, table, left, right, folded=False):
        """Return the values of all sums of a vector of `left` and one of `right`; shape (left, right).

        With `folded` of the absolute values of the sums; a dense table must have all signs.
        """
        if self.dense:
            return table.take((self.key(left) + self.origin)[:, None] + self.key(right))
        if folded:
            key = self.key(np.abs(left[:, None] + right))
        else:
            key = self.key(left)[:, None] + self.key(right)  # wraps around
        place = np.minimum(np.searchsorted(self.keys, key), len(self.keys) - 1)
        return table[np.where(self.keys[place] == key, self.order[place], -1)]


class _Layout:
    """How index vectors sit in a matrix (leading numbers, last number).

    Parameters
    ----------
    index : ndarray of int, shape (k, d)
    """

    def __init__(self, index):
        lead, self.row = np.unique(index[:, :-1], axis=0, return_inverse=True)
        self.row = self.row.reshape(-1)
        self.lead = lead.reshape(len(lead), index.shape[1] - 1)
        low = index.min(axis=0)
        self.low, self.high = low, index.max(axis=0)
        self.column = index[:, -1] - low[-1]
        self.shape = len(self.lead), int(self.column.max()) + 1

    def matrix(self, values):
        """Add up values (k,) in the places of their vectors."""
        out = np.zeros(self.shape, dtype=values.dtype)
        np.add.at(out, (self.row, self.column), values)
        return out

    def leading(self, tables, derivative=None):
        """Multiply the functions of all coordinates but the last; shape (n, lead).

        `derivative` is (j, table) for a coordinate j whose table is replaced by another.
        """
        out = None
        for j in range(self.lead.shape[1]):
            table = tables[j] if derivative is None or derivative[0] != j else derivative[1]
            part = table[:, self.lead[:, j] - self.low[j]]
            out = part if out is None else np.multiply(out, part, out=out)
        return np.ones((len(tables[-1]), 1)) if out is None else out


class _ProductBasis(EigenBasis):
    """Real parts of products of functions of one coordinate each.

    A subclass sets ``_index`` (K, d) and ``_factor`` (K,), such that function k is the real part of the factor times
    the product with the indices ``_index[k]``; ``_all_index`` and ``_all_factor`` for the statistics; and ``_own``, the
    places of the functions among the statistics.
    """

    def __init__(self, manifold, max_level, interactions):
        self.manifold = manifold
        self.max_level = parameter("max_level", max_level, whole=True)
        if interactions is not None:
            interactions = parameter("interactions", interactions, whole=True)
        self.interactions = interactions
        self._layouts = {}

    def __repr__(self):
        return f"{type(self).__name__}({self.manifold!r}, {self.max_level}, {self.interactions})"

    def _enumerate(self, values, costs, budget, count):
        """Return index vectors of the functions and of the statistics, after checking the memory for both.

        `count` is about the number of functions.
        """
        d = self.manifold.dim
        few = min(self.interactions or d, d)
        _check_memory(self, 8.0 * _MATRICES * count**2, count)
        index = _indices(values, costs, budget, few)
        # Functions of no common coordinate have orthogonal gradients. So means are needed of products of functions
        # that share one of their coordinates at least.
        used = int(np.count_nonzero(index, axis=1).max())
        more = min(2 * used - 1, d)
        statistics = _count(costs, self._reach * budget, more)
        _check_memory(self, 8.0 * (4 * d + 8) * statistics, count)
        return index, _indices(values, costs, self._reach * budget, more)

    def _sides(self, Z, low, high, order):
        """Return the functions of each coordinate, and their derivatives if order > 0; lists of (n, high - low + 1)."""
        raise NotImplementedError

    def own(self, moments):
        return moments[self._own]

    def moments(self, Z, share):
        layout = _Layout(self._all_index)
        total = 0.0
        step = max(_BLOCK // sum(layout.shape), 1)
        for start in range(0, len(Z), step):
            tables, _ = self._sides(Z[start:start + step], layout.low, layout.high, 0)
            lead = layout.leading(tables)
            total = total + (lead * share[start:start + step, None]).T @ tables[-1]
        return np.real(self._all_factor * total[layout.row, layout.column])

    def _layout(self, k):
        if k not in self._layouts:
            if len(self._layouts) >= _LAYOUTS:
                self._layouts.clear()
            self._layouts[k] = _Layout(self._index[:k])
        return self._layouts[k]

    def evaluate(self, Z, coef, order=1):
        Z, coef = np.asarray(Z, dtype=float), np.asarray(coef, dtype=float)
        q, k = len(Z), len(coef)
        value = np.zeros(q)
        gradient = np.zeros(Z.shape) if order >= 1 else None
        laplacian = np.zeros(q) if order >= 2 else None
        if k == 0:
            return value, gradient, laplacian
        layout = self._layout(k)
        factor = self._factor[:k]
        matrix = layout.matrix(factor * coef).T
        curved = layout.matrix(factor * coef * (-2 * self.decay[:k])).T if order >= 2 else None
        step = max(_BLOCK // (4 * sum(layout.shape)), 1)
        for start in range(0, q, step):
            rows = slice(start, start + step)
            tables, slopes = self._sides(Z[rows], layout.low, layout.high, order)
            lead = layout.leading(tables)
            along = tables[-1] @ matrix
            value[rows] = _inner(lead, along)
            if order >= 1:
                for j in range(Z.shape[1] - 1):
                    gradient[rows, j] = _inner(layout.leading(tables, (j, slopes[j])), along)
                gradient[rows, -1] = _inner(lead, slopes[-1] @ matrix)
            if order >= 2:
                laplacian[rows] = _inner(lead, tables[-1] @ curved)
        if order >= 2 and self.manifold.has_drift:  # -2 mu f = 2 L f = Laplacian + 2 drift * gradient
            laplacian -= 2 * np.einsum("qj,qj->q", self.manifold.drift(Z), gradient)
        return value, gradient, laplacian


def _inner(A, B):
    """Return the real parts of the sums over rows of A * B; shape (n,)."""
    if np.iscomplexobj(A) or np.iscomplexobj(B):
        A, B = np.asarray(A, dtype=complex), np.asarray(B, dtype=complex)
        return np.einsum("nj,nj->n", A.real, B.real) - np.einsum("nj,nj->n", A.imag, B.imag)
    return np.einsum("nj,nj->n", A, B)


class TrigonometricBasis(_ProductBasis):
    r"""Fourier functions on circles and tori, products of cosines on boxes.

    On a torus :math:`\sqrt2\cos(k\cdot x)` and :math:`\sqrt2\sin(k\cdot x)`, one of k and -k for each pair; on a box
    :math:`\prod_{k_j>0}\sqrt2\cos(k_j\pi x_j/L_j)`, whose derivative along the normal of a wall is zero.

    Parameters
    ----------
    manifold : Manifold
        :class:`~rdks.manifolds.Circle`, :class:`~rdks.manifolds.Torus`, :class:`~rdks.manifolds.Box`, or a product of
        circles and tori, or of boxes.
    max_level : int
        All functions of an eigenvalue :math:`\lambda\le\ell^2\lambda_1` are of level at most :math:`\ell`,
        where :math:`\lambda_1` is the smallest positive eigenvalue, that of the longest side: the frequencies are those
        in a ball, and the resolution is the same in all directions.
    interactions : int, optional
        A function depends on so many coordinates at most; on all if None. With 1 the number of functions
        grows like the dimension, and the potential is a sum of functions of one coordinate each.

    Raises
    ------
    UnsupportedError
        For another manifold.
    ValueError
        For a level that is not a positive integer, and for more functions than the memory holds.

    Examples
    --------
    The score of a von Mises density on the circle is the gradient of its first harmonic:

    >>> import numpy as np
    >>> from rdks.eigenbases.flat import TrigonometricBasis
    >>> from rdks.manifolds import Circle
    >>> basis = TrigonometricBasis(Circle(), 3)
    >>> basis.decay
    array([0.5, 0.5, 2. , 2. , 4.5, 4.5])
    >>> angle = np.arange(1000)[:, None] * 2 * np.pi / 1000
    >>> share = np.exp(2 * np.cos(angle[:, 0]))
    >>> moments = basis.moments(angle, share / share.sum())
    >>> b = basis.decay * basis.own(moments)
    >>> np.abs(np.sqrt(2) * np.linalg.solve(basis.gram(moments), b)).round(9)
    array([2., 0., 0., 0., 0., 0.])
    """

    automatic = 2500
    # squared frequencies of products reach so many times as far
    _reach = 4

    def __init__(self, manifold, max_level, interactions=None):
        super().__init__(manifold, max_level, interactions)
        parts = manifold.parts if isinstance(manifold, Product) else (manifold,)
        self._folded = all(isinstance(part, Box) for part in parts)
        if not all(f.kind == "circle" for f in manifold.factors()) or not (self._folded or manifold.n_images == 1):
            raise UnsupportedError(f"{manifold!r} has no trigonometric basis: expected a circle, a torus, a box, or a "
                                   "product of circles and tori, or of boxes")
        self._frequency = np.array([1 / f.scale for f in manifold.factors()])
        smallest = float(self._frequency.min() ** 2)
        budget = self.max_level**2 * smallest
        most = (2 * self.max_level / self._frequency * np.sqrt(smallest) * (1 + _EQUAL)).astype(int)
        values = [np.arange(0 if self._folded else -m, m + 1) for m in most]
        costs = [(v * w) ** 2 for v, w in zip(values, self._frequency, strict=True)]
        count = _count(costs, budget, min(interactions or manifold.dim, manifold.dim)) - 1
        half, every = self._enumerate(values, costs, budget, count)
        self._half, decay = (part[1:] for part in self._ordered(half))
        every, all_decay = self._ordered(every)
        if self._folded:
            self._index, self._all_index = self._half, every
            self._factor, self._all_factor = (np.sqrt(2.0) ** np.count_nonzero(k, axis=1) for k in (self._half, every))
            self.decay, self.moment_decay = decay, all_decay
        else:  # the cosine, and the sine of the same frequency
            self._index, self._factor = np.repeat(self._half, 2, axis=0), _phases(len(self._half))
            self._all_index = np.concatenate([every[:1], np.repeat(every[1:], 2, axis=0)])
            self._all_factor = np.append(1.0, _phases(len(every) - 1))
            self.decay, self.moment_decay = np.repeat(decay, 2), np.append(0.0, np.repeat(all_decay[1:], 2))
        self.level = self._levels(self.decay, smallest)
        self.moment_level = self._levels(self.moment_decay, smallest)
        reach = 2 * np.abs(self._half).max(axis=0)
        # entries beyond what two functions reach are never asked for
        images, which = every, np.arange(len(every))
        if not self._folded:
            images, which = np.concatenate([every, -every[1:]]), None
        elif _is_dense(reach):
            images, which = _mirrored(every)
        self._needed = np.flatnonzero((np.abs(images) <= reach).all(axis=1))
        self._lookup = _Lookup(images[self._needed], reach)
        self._which = which if which is None else which[self._needed]
        at = _places(every, self._half)
        self._own = at if self._folded else np.column_stack([2 * at - 1, 2 * at]).ravel()

    def _ordered(self, index):
        """Sort index vectors by decay, of each pair k and -k the one that comes later."""
        if not self._folded:
            first = np.argmax(index != 0, axis=1)
            index = index[(index[np.arange(len(index)), first] >= 0)]
        decay = 0.5 * ((index * self._frequency) ** 2).sum(axis=1)
        # decays that are equal but for rounding keep the order of their vectors
        order = np.argsort(np.round(decay / decay[decay > 0].min(), 9), kind="stable")
        return index[order], decay[order]

    def _levels(self, decay, smallest):
        return np.ceil(np.sqrt(2 * decay / smallest) * (1 - _EQUAL)).astype(int)

    def _sides(self, Z, low, high, order):
        tables, slopes = [], []
        for j, w in enumerate(self._frequency):
            k = np.arange(low[j], high[j] + 1)
            angle = np.multiply.outer(w * Z[:, j], k)
            if self._folded:
                tables.append(np.cos(angle))
                slopes.append(-w * k * np.sin(angle) if order else None)
            else:
                tables.append(np.exp(1j * angle))
                slopes.append(1j * w * k * tables[-1] if order else None)
        return tables, slopes

    def gram(self, moments):
        return self.leading_gram(moments, len(self.decay))

    def leading_gram(self, moments, size):
        if self._folded:
            return self._gram_of_cosines(moments, size)
        return self._gram_of_waves(moments, (size + 1) // 2)[:size, :size]

    def _gram_of_waves(self, moments, count):
        # means of exp(i k.x) for k and for -k
        wave = np.append(moments[0], (moments[1::2] + 1j * moments[2::2]) / np.sqrt(2))
        table = self._lookup.table(np.concatenate([wave, wave[1:].conj()])[self._needed])
        half = self._half[:count]
        out = np.empty((2 * count, 2 * count))
        scaled = 0.5 * half * self._frequency**2
        step = max(_BLOCK // (8 * count), 1)
        for start in range(0, count, step):
            rows = slice(start, start + step)
            gap, total = (self._lookup.take(table, half[rows], sign * half) for sign in (-1, 1))
            weight = scaled[rows] @ half.T
            even, odd = slice(2 * start, 2 * (start + step), 2), slice(2 * start + 1, 2 * (start + step) + 1, 2)
            out[even, 0::2] = weight * (gap.real - total.real)
            out[odd, 1::2] = weight * (gap.real + total.real)
            cross = weight * (gap.imag + total.imag)
            out[even, 1::2] = -cross
            out[odd, 0::2] = weight * (gap.imag - total.imag)
        return out

    def _gram_of_cosines(self, moments, count):
        half, factor = self._half[:count], self._factor[:count]
        plain = moments / self._all_factor
        table = self._lookup.table(plain[self._which])
        signed, which = _mirrored(half)
        bounds = np.append(np.flatnonzero(np.append(True, np.diff(which) > 0)), len(signed))
        # a cosine of frequency k is the mean over the signs; two sines are minus, two cosines plus the sign
        share = factor * 0.5 ** np.count_nonzero(half, axis=1)
        scaled = -0.5 * signed * self._frequency**2 * share[which][:, None]
        out = np.empty((count, count))
        step = max(_BLOCK // (8 * count * (1 if self._lookup.dense else self.manifold.dim)), 1)
        row = 0
        while row < count:
            # rows whose signed copies fill a block
            last = max(int(np.searchsorted(bounds, bounds[row] + step, side="right")) - 1, row + 1)
            part = slice(bounds[row], bounds[last])
            block = self._lookup.take(table, signed[part], half, folded=True)
            block *= scaled[part] @ half.T
            np.add.reduceat(block, bounds[row:last] - bounds[row], axis=0, out=out[row:last])
            row = last
        out *= factor
        return out


def _phases(count):
    """Return the factors whose real parts make cosine and sine of each exponential; shape (2 count,)."""
    return np.tile(np.sqrt(2) * np.array([1.0, -1j]), count)


def _mirrored(index):
    """Return all vectors that differ from those given in signs only, and which each comes from, ascending."""
    rows, which = index, np.arange(len(index))
    for j in range(index.shape[1]):
        other = rows[:, j] != 0
        flipped = rows[other].copy()
        flipped[:, j] *= -1
        rows, which = np.concatenate([rows, flipped]), np.concatenate([which, which[other]])
    order = np.argsort(which, kind="stable")
    return rows[order], which[order]


class HermiteBasis(_ProductBasis):
    r"""Hermite polynomials of an Ornstein-Uhlenbeck process, normalised with respect to N(0, I).

    :math:`\prod_jHe_{k_j}(z_j)/\sqrt{k_j!}`, with the decay :math:`\sum_jk_j/2`.

    Parameters
    ----------
    manifold : rdks.manifolds.OrnsteinUhlenbeck
    max_level : int
        Largest total degree, at most 24: beyond, means in double precision do not determine the matrix. Degree 2 makes
        exactly the Gaussian score.
    interactions : int, optional
        A polynomial depends on so many coordinates at most; on all if None.

    Raises
    ------
    UnsupportedError
        For another manifold.
    ValueError
        For a level that is not an integer from 1 to 24, and for more functions than the memory holds.

    Notes
    -----
    Means of high degree are those of the outermost observations, and the noise level must make up for that: the
    polynomial of degree k has grown to :math:`e^{z^2/4}` at :math:`|z|<2\sqrt k`, as :math:`z^k` beyond.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.eigenbases.flat import HermiteBasis
    >>> from rdks.manifolds import OrnsteinUhlenbeck
    >>> basis = HermiteBasis(OrnsteinUhlenbeck(1), 2)
    >>> moments = basis.moments(np.array([[-1.0], [2.0]]), np.array([0.5, 0.5]))  # mean 0.5, mean square 2.5
    >>> basis.gram(moments).round(3)
    array([[0.5  , 0.354],
           [0.354, 2.5  ]])
    """

    automatic, most_level = 400, _MOST_DEGREE
    # degrees of products
    _reach = 2

    def __init__(self, manifold, max_level, interactions=None):
        super().__init__(manifold, max_level, interactions)
        if not isinstance(manifold, OrnsteinUhlenbeck):
            raise UnsupportedError(f"{manifold!r} has no basis of Hermite polynomials: expected an OrnsteinUhlenbeck "
                                   "process")
        if self.max_level > _MOST_DEGREE:
            raise ValueError(f"max_level = {max_level}: expected at most {_MOST_DEGREE} for Hermite polynomials: "
                             "beyond, their means in double precision do not determine the matrix")
        d, N = manifold.dim, self.max_level
        count = float(sum(math.comb(d, s) * math.comb(N, s) for s in range(1, min(interactions or d, d) + 1)))
        values = [np.arange(2 * N + 1)] * d
        found = self._enumerate(values, [v.astype(float) for v in values], float(N), count)
        index, every = (k[np.argsort(k.sum(axis=1), kind="stable")] for k in found)
        self._index, self._all_index = index[1:], every
        self._factor, self._all_factor = np.ones(len(index) - 1), np.ones(len(every))
        self.level, self.moment_level = self._index.sum(axis=1), every.sum(axis=1)
        self.decay, self.moment_decay = 0.5 * self.level, 0.5 * self.moment_level
        self._lookup = _Lookup(every, np.full(d, 2 * N))
        self._own = _places(every, self._index)
        self._root = np.exp(0.5 * gammaln(every + 1).sum(axis=1))
        self._plans = {}

    def _sides(self, Z, low, high, order):
        tables, slopes = [], []
        for j, top in enumerate(high):
            table = np.ones((len(Z), top + 1))
            if top >= 1:
                table[:, 1] = Z[:, j]
            for k in range(1, top):
                table[:, k + 1] = (Z[:, j] * table[:, k] - np.sqrt(k) * table[:, k - 1]) / np.sqrt(k + 1)
            tables.append(table[:, low[j]:])
            if order:
                slope = np.zeros_like(table)
                slope[:, 1:] = np.sqrt(np.arange(1, top + 1)) * table[:, :-1]
                slopes.append(slope[:, low[j]:])
        return tables, slopes

    def gram(self, moments):
        return self.leading_gram(moments, len(self.decay))

    def leading_gram(self, moments, size):
        out = np.zeros((size, size))
        table = self._lookup.table(self._root * moments)
        for j in range(self.manifold.dim):
            member, lower, plan = self._plan(j)
            count = int(np.searchsorted(member, size))
            member, lower = member[:count], lower[:count]
            weight = np.sqrt(0.5 * self._index[member, j])
            out[np.ix_(member, member)] += weight[:, None] * self._products(lower, plan, table) * weight
        return out

    def _plan(self, j):
        """Return which functions have a derivative along coordinate j, its index, and the products of two of these."""
        if j not in self._plans:
            member = np.flatnonzero(self._index[:, j] > 0)
            lower = self._index[member].copy()
            lower[:, j] -= 1
            plan = []
            for low in lower:
                rows = np.flatnonzero((lower >= low).all(axis=1))
                # binomial / root of the factorial, and the root of the factorial of low on each side
                log = (0.5 * gammaln(lower[rows] + 1) - gammaln(lower[rows] - low + 1) - 0.5 * gammaln(low + 1))
                plan.append((rows, _places(lower, lower[rows] - low), np.exp(log.sum(axis=1))))
            self._plans[j] = member, lower, plan
        return self._plans[j]

    def _products(self, index, plan, table):
        r"""Return the means of products of two normalised polynomials; shape (k, k).

        With :math:`u_a=\binom a\kappa/\sqrt{a!}`, the mean of the product of a and b is
        :math:`\sum_\kappa\kappa!\,u_au_b\,\sqrt{(a+b-2\kappa)!}\,m_{a+b-2\kappa}`: for each :math:`\kappa` a part of
        one matrix of means, scaled. All coefficients are positive.
        """
        hankel = self._lookup.take(table, index, index)
        out = np.zeros((len(index), len(index)))
        for rows, source, scale in plan:
            count = int(np.searchsorted(rows, len(index)))
            if not count:
                continue
            rows, source, scale = rows[:count], source[:count], scale[:count]
            out[np.ix_(rows, rows)] += scale[:, None] * hankel[np.ix_(source, source)] * scale
        return out
