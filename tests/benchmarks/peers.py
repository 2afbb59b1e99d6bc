"""The opponents, each as good as its description allows.

Two of them compute a cheaper kernel than rdks does: the von Mises-Fisher kernel
exp(kappa (<x, y> - 1)), one exponential of one inner product, while rdks sums the true heat
kernel. Their constants are chosen so that they do the same amount of smoothing.

The two transforms are bare: they are given angles instead of points, and return values instead of
logarithms. ducc0 is optional and never a dependency; what needs it is None where it is not installed.
"""
from __future__ import annotations

import time

import finufft
import numpy as np

try:
    import ducc0
except ImportError:
    ducc0 = None

__all__ = ["Ducc", "Finufft", "NaiveGeodesic", "NaiveVonMises", "ScipyLoop", "TiledVonMises"]


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


class Ducc:
    r"""Heat kernel sum and its gradient on S^2 by the spherical harmonics of ducc0, one thread.

    Parameters
    ----------
    Y, X : ndarray, shapes (n, 3), (q, 3)
        Sources and queries, unit vectors.
    t : float
    degree : int
    eps : float
        Accuracy asked of the transforms.
    """

    def __init__(self, Y, X, t, degree, eps):
        self.sources, self.queries, self.weight = self.angles(Y), self.angles(X), np.full((1, len(Y)), 1 / len(Y))
        level = np.concatenate([np.arange(m, degree + 1.0) for m in range(degree + 1)])
        eigenvalue = level * (level + 1)
        self.decay, self.root = np.exp(-0.5 * eigenvalue * t), np.sqrt(eigenvalue)
        self.options = {"lmax": degree, "mmax": degree, "epsilon": eps, "nthreads": 1}

    @staticmethod
    def installed():
        """Tell whether it can be measured."""
        return ducc0 is not None

    @staticmethod
    def angles(X):
        """Colatitude and longitude, (n, 2)."""
        return np.column_stack([np.arctan2(np.hypot(X[:, 0], X[:, 1]), X[:, 2]),
                                np.mod(np.arctan2(X[:, 1], X[:, 0]), 2 * np.pi)])

    def __call__(self):
        """Return the density, shape (q,), and its gradient to the south and to the east, shape (2, q)."""
        coef = ducc0.sht.adjoint_synthesis_general(map=self.weight, spin=0, loc=self.sources, **self.options)
        coef *= self.decay
        density = ducc0.sht.synthesis_general(alm=coef, spin=0, loc=self.queries, **self.options)
        gradient = ducc0.sht.synthesis_general(alm=coef * self.root, spin=1, mode="GRAD_ONLY", loc=self.queries,
                                               **self.options)
        return density[0], gradient

    def gradient_of(self, log_density, score):
        """Write a score in embedded coordinates as the gradient that a call returns."""
        theta, phi = self.queries.T
        south = np.stack([np.cos(theta) * np.cos(phi), np.cos(theta) * np.sin(phi), -np.sin(theta)])
        east = np.stack([-np.sin(phi), np.cos(phi), np.zeros(len(phi))])
        return np.exp(log_density) * np.stack([(south * score.T).sum(axis=0), (east * score.T).sum(axis=0)])


class Finufft:
    """Two bare non-uniform Fourier transforms on the torus, one thread: sources to modes, modes to queries.

    Parameters
    ----------
    Y, X : ndarray, shapes (n, 2), (q, 2)
        Sources and queries, angles.
    shape : tuple of int
        Numbers of modes.
    eps : float
    """

    def __init__(self, Y, X, shape, eps):
        self.sources, self.queries = self.angles(Y), self.angles(X)
        self.weight, self.shape = np.full(len(Y), 1 / len(Y), dtype=complex), shape
        self.options = {"eps": eps, "nthreads": 1}

    @staticmethod
    def angles(X):
        """Angles in [-pi, pi), (2, n)."""
        return np.ascontiguousarray((np.mod(X + np.pi, 2 * np.pi) - np.pi).T)

    def moments(self):
        """Return the modes."""
        return finufft.nufft2d1(*self.sources, self.weight, self.shape, isign=-1, **self.options)

    def __call__(self):
        """Return what a density costs: no mode is damped."""
        return finufft.nufft2d2(*self.queries, self.moments(), isign=1, **self.options)
