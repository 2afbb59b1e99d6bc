"""The opponents, each as good as its description allows.

Two of them compute a cheaper kernel than rdks does: the von Mises-Fisher kernel
exp(kappa (<x, y> - 1)), one exponential of one inner product, while rdks sums the true heat
kernel. Their constants are chosen so that they do the same amount of smoothing.
"""
from __future__ import annotations

import time

import numpy as np

__all__ = ["NaiveGeodesic", "NaiveVonMises", "ScipyLoop", "TiledVonMises"]


class TiledVonMises:
    r"""Log density of a von Mises-Fisher kernel sum: numpy at its best.

    The exponent kappa (<x, y> - 1) is one matrix product: a column -kappa next to kappa x, and a row
    of ones under y. It is written into one preallocated tile, exponentiated in place, and summed by a
    matrix-vector product. The shape of the tile is the fastest of the eleven that are tried.

    Parameters
    ----------
    Y : ndarray, shape (n, 3)
        Sources, unit vectors.
    t : float
        Time; kappa = 1 / t.
    """

    SHAPES = ((8, 2000), (16, 2000), (16, 4000), (32, 1000), (32, 2000), (64, 500), (64, 1000), (64, 2000),
              (128, 500), (128, 1000), (256, 500))

    def __init__(self, Y, t):
        self.kappa = 1.0 / t
        self.Y = np.ascontiguousarray(np.column_stack([Y, np.ones(len(Y))]).T)
        self.log_constant = np.log(self.kappa / (2 * np.pi * len(Y))) - np.log(-np.expm1(-2 * self.kappa))
        self.shape = self.SHAPES[0]

    def tune(self, X, rounds=3):
        """Choose the fastest tile on some of the queries."""
        X = X[:512]
        spent = dict.fromkeys(self.SHAPES, np.inf)
        for _ in range(rounds):
            for shape in self.SHAPES:
                self.shape = shape
                start = time.process_time()
                self(X)
                spent[shape] = min(spent[shape], time.process_time() - start)
        self.shape = min(spent, key=spent.get)
        return self

    def __call__(self, X):
        """Return the log density at X, shape (q, 3)."""
        rows, columns = self.shape
        X = np.column_stack([self.kappa * X, np.full(len(X), -self.kappa)])
        n = self.Y.shape[1]
        total = np.zeros(len(X))
        tile = np.empty(rows * columns)
        ones = np.ones(columns)
        for j in range(0, n, columns):
            Y = self.Y[:, j:j + columns]
            for i in range(0, len(X), rows):
                x = X[i:i + rows]
                u = tile[:len(x) * Y.shape[1]].reshape(len(x), Y.shape[1])
                np.matmul(x, Y, out=u)
                np.exp(u, out=u)
                total[i:i + rows] += u @ ones[:Y.shape[1]]
        return np.log(total) + self.log_constant


class NaiveVonMises:
    """The same sum in one line, in chunks of rows that fill 128 MiB.

    Parameters
    ----------
    Y : ndarray, shape (n, 3)
        Sources, unit vectors.
    t : float
        Time; kappa = 1 / t.
    """

    CHUNK = 2**24  # numbers

    def __init__(self, Y, t):
        self.Y, self.t = Y, t
        self.rows = max(1, self.CHUNK // len(Y))

    def kernel(self, X):
        """Return the matrix of unnormalised kernel values."""
        return np.exp((X @ self.Y.T - 1) / self.t)

    def __call__(self, X):
        """Return the log of the mean of the unnormalised kernel at X, shape (q, 3)."""
        return np.concatenate([np.log(self.kernel(X[i:i + self.rows]).mean(axis=1))
                               for i in range(0, len(X), self.rows)])


class NaiveGeodesic(NaiveVonMises):
    """The Gaussian of the geodesic distance, arccos of the inner product, in the same chunks."""

    def kernel(self, X):
        return np.exp(-np.arccos(np.clip(X @ self.Y.T, -1, 1)) ** 2 / (2 * self.t))


class ScipyLoop:
    """scipy.stats.vonmises_fisher, which takes one centre at a time: a log-sum-exp over centres.

    Parameters
    ----------
    Y : ndarray, shape (n, 3)
        Sources, unit vectors.
    t : float
        Time; kappa = 1 / t.
    """

    def __init__(self, Y, t):
        self.Y, self.kappa = Y, 1.0 / t

    def __call__(self, X):
        """Return the log density at X, shape (q, 3)."""
        from scipy.stats import vonmises_fisher

        total = np.full(len(X), -np.inf)
        for y in self.Y:
            np.logaddexp(total, vonmises_fisher.logpdf(X, y, self.kappa), out=total)
        return total - np.log(len(self.Y))
