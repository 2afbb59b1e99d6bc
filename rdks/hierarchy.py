r"""Boxes around points, boxes around boxes, and what a heat kernel is at most in a box.

Sums over sources are short where the kernel is narrow, if the sources that matter are found quickly. Sources are put in
an order in which neighbours in space are neighbours in memory; each ``BOX`` consecutive ones share a leaf, each ``FAN``
consecutive leaves a node, each ``FAN`` consecutive nodes a node above. A query goes down from the top and leaves out
every box in which the kernel is small enough, by

.. math:: k_t(c)\le k_t(0)\,e^{-\lambda_tc},

c the smallest squared chord to the box. The exponent of a product of factors is the sum over them.
"""
from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from . import radial

__all__ = ["BOX", "FAN", "Tree", "compact", "rates", "tree"]

#: Sources that share a leaf, and children of a node; the compiled kernels know them too.
BOX, FAN = 32, 8
_GRID = 1e-3  # what the smallest value on a grid is above the smallest of all, at most


class Tree(NamedTuple):
    """Boxes around consecutive points, and around those: N nodes of FAN children, m columns.

    A node of level l = 1, 2, ... holds BOX FAN^l consecutive points. Levels follow one another, the lowest first;
    the last node is the root. Children beyond the last point have no load.

    Attributes
    ----------
    middle, extent : float64 (N, m, FAN)
        Middle and half-width of the box around each child. Angles are within one period.
    load, heaviest : float64 (N, FAN)
        Sum and largest of the weights in each child.
    first : int64 (levels + 1,)
        First node of each level from 1 on, and their number.
    """

    middle: np.ndarray
    extent: np.ndarray
    load: np.ndarray
    heaviest: np.ndarray
    first: np.ndarray


def _flat(Z, factors, heights=False):
    """Write points so that close ones have close numbers: angles within one period, heights as logarithms."""
    Z = np.array(Z, dtype=float)
    column = 0
    for f in factors:
        if f.period is not None:
            Z[:, column] -= f.period * np.floor(Z[:, column] / f.period)
        column += f.width
        if heights and f.hyperbolic:
            Z[:, column - 1] = np.log(Z[:, column - 1])
    return Z


def compact(Z, factors):
    """Order points so that consecutive ones are close.

    Parameters
    ----------
    Z : ndarray, shape (n, m)
        Embedded points.
    factors : tuple of SpaceForm

    Returns
    -------
    ndarray of int, shape (n,)
        Indices. Boxes are halved along their longest side until they hold BOX points; all but the last are full.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.hierarchy import compact
    >>> from rdks.manifolds import Euclidean
    >>> compact(np.array([[3.0], [1.0], [2.0]]), Euclidean(1).factors())
    array([1, 2, 0])
    """
    n = len(Z)
    columns = np.ascontiguousarray(_flat(Z, factors, True).T)
    size = BOX
    while size < n:
        size *= 2
    # points at infinity fill the last boxes: they are the largest in every column, and stay the last
    columns = np.pad(columns, ((0, 0), (0, size - n)), constant_values=np.inf)
    index = np.arange(size)
    while True:
        used = -(-n // size)
        here = columns[:, :used * size].reshape(len(columns), used, size)
        wide = here.max(axis=2) - here.min(axis=2)
        wide[:, -1] = np.ptp(columns[:, (used - 1) * size:n], axis=1)
        keys = here[wide.argmax(axis=0), np.arange(used)]
        # in the last boxes sorted, so that equal points, shuffled, have equal places
        place = keys.argpartition(size // 2, axis=1) if size > BOX else keys.argsort(axis=1)
        place = (place + size * np.arange(used)[:, None]).ravel()
        index[:place.size] = index[place]
        if size <= BOX:
            return index[:n]
        for column in columns:
            column[:place.size] = column[place]
        size //= 2


def _extended(a, count, times):
    """Append the last row so many times, multiplied by a number."""
    return np.concatenate([a, np.repeat(times * a[-1:], count, axis=0)]) if count else a


def tree(Z, weight, factors):
    """Put boxes around consecutive points.

    Parameters
    ----------
    Z : ndarray, shape (n, m)
        Embedded points, in the order of `compact`.
    weight : ndarray, shape (n,)
    factors : tuple of SpaceForm

    Returns
    -------
    Tree
    """
    if any(f.period is not None for f in factors):
        Z = _flat(Z, factors)
    first = np.arange(0, len(Z), BOX)
    low, high = np.minimum.reduceat(Z, first), np.maximum.reduceat(Z, first)
    load, heaviest = np.add.reduceat(weight, first), np.maximum.reduceat(weight, first)
    levels = []
    while True:
        count = len(low)
        spare = -count % FAN
        # a child that is not there has the box of the last one, and no load
        boxes = _extended(0.5 * (low + high), spare, 1.0)
        # where a box is as small as the rounding of its coordinates, it must hold its points all the same
        half = 0.5 * (high - low) + 2 * np.spacing(np.maximum(np.abs(low), np.abs(high)))
        half = _extended(half, spare, 1.0)
        levels.append([*(a.reshape(-1, FAN, Z.shape[1]).transpose(0, 2, 1) for a in (boxes, half)),
                       *(_extended(a, spare, 0.0).reshape(-1, FAN) for a in (load, heaviest))])
        if count <= FAN:
            break
        first = np.arange(0, count, FAN)
        low, high = np.minimum.reduceat(low, first), np.maximum.reduceat(high, first)
        load, heaviest = np.add.reduceat(load, first), np.maximum.reduceat(heaviest, first)
    sizes = [len(level[0]) for level in levels]
    return Tree(*(np.concatenate(parts) for parts in zip(*levels, strict=True)),
                np.concatenate([[0], np.cumsum(sizes)]))


@lru_cache(maxsize=512)
def rates(factors, t):
    r"""Return how fast a heat kernel falls at least with the squared chord.

    Parameters
    ----------
    factors : tuple of SpaceForm
    t : float

    Returns
    -------
    ndarray, shape (F,)
        Largest :math:`\lambda` with :math:`k_t(c)\le k_t(0)e^{-\lambda c}` for all c, by factor; for hyperbolic
        factors that with the squared distance in place of c.

    Notes
    -----
    In flat and hyperbolic space it is 1/2t: there :math:`\log k_t+r^2/2t` does not increase with r. On a sphere
    it is less, because of :math:`(r/\sin r)^{(d-1)/2}` and in spite of :math:`r^2\ge c`, and on a circle it is less
    where the two ways round meet. There it is the smallest quotient on a grid, which is at one of the ends.

    Examples
    --------
    >>> from rdks.hierarchy import rates
    >>> from rdks.manifolds import Euclidean, Sphere
    >>> float(rates(Euclidean(2).factors(), 0.01)[0])
    50.0
    >>> round(float(rates(Sphere(2).factors(), 0.01)[0]), 3)
    49.867
    """
    out = []
    for f in factors:
        if not np.isfinite(f.reach):
            out.append(0.5 / t)
            continue
        near = min(0.1 * np.sqrt(t), 0.01 * f.reach)  # nearer the exponent has no digits, and the quotient is even
        r = np.concatenate([np.geomspace(near, f.reach, 60), np.linspace(near, f.reach, 60),
                            f.reach - np.geomspace(1e-3 * near, 0.1 * f.reach, 30)])
        fall = f.log_kernel(np.zeros(1), t) - f.log_kernel(r, t) + r * r / (2 * t)
        out.append(max((fall / radial._chord_from_distance(f, r)).min() * (1 - _GRID), 0.0))
    return np.array(out)
