"""A bounded summary of any number of points: weight, mean and spread by cell of a grid."""
from __future__ import annotations

import numpy as np

__all__ = ["Cells"]


class Cells:
    """Points summed up by cell of a grid in embedded coordinates.

    Summaries on the same grid add up: however the points were divided, the result is the same to rounding.

    Parameters
    ----------
    side : float
        Side of the cells.
    key : ndarray of int64, shape (c, m)
        The occupied cells, in lexicographic order.
    sums : ndarray, shape (c, m + 2)
        By cell: weight, weighted sum of the coordinates, counted from the middle of the cell, and weighted sum of
        the squares of these.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.cells import Cells
    >>> left = Cells.of(np.array([[0.2], [0.4], [7.1]]), np.ones(3), 1.0)
    >>> both = left.merge(Cells.of(np.array([[0.6]]), np.ones(1), 1.0))
    >>> both.weight, both.mean.ravel().round(9)
    (array([3., 1.]), array([0.4, 7.1]))
    """

    def __init__(self, side, key, sums):
        self.side, self.key, self.sums = side, key, sums

    @classmethod
    def of(cls, Z, weight, side):
        """Sum up points Z, (n, m), with weights, (n,)."""
        key = np.floor(Z / side).astype(np.int64)
        away = Z - (key + 0.5) * side
        terms = np.column_stack([weight, weight[:, None] * away, weight * np.einsum("ij,ij->i", away, away)])
        return cls(side, *_add_up(key, terms))

    def merge(self, other, mine=1.0, theirs=1.0):
        """Return the summary of the points of both, weights multiplied by two numbers; the grids are the same."""
        return Cells(self.side, *_add_up(np.concatenate([self.key, other.key]),
                                         np.concatenate([mine * self.sums, theirs * other.sums])))

    @property
    def weight(self):
        """Weight by cell; shape (c,)."""
        return self.sums[:, 0]

    @property
    def mean(self):
        """Weighted mean of the points by cell; shape (c, m)."""
        return (self.key + 0.5) * self.side + self.sums[:, 1:-1] / self.sums[:, :1]

    @property
    def spread(self):
        """Mean squared distance of the points from the mean of their cell."""
        weight, first, second = self.sums[:, 0], self.sums[:, 1:-1], self.sums[:, -1]
        scatter = second - np.einsum("ij,ij->i", first, first) / weight
        return float(max(scatter.sum(), 0.0) / weight.sum())


def _add_up(key, terms):
    """Add the rows of `terms` that have the same key; returns the keys in order, and the sums."""
    order = np.lexsort(key.T[::-1])
    key = key[order]
    first = np.flatnonzero(np.concatenate([[True], (key[1:] != key[:-1]).any(axis=1)]))
    return key[first], np.add.reduceat(terms[order], first, axis=0)
