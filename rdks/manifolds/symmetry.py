"""What the symmetries of a space leave: one of two signs, and the eigenfunctions that are invariant."""
from __future__ import annotations

import heapq
from itertools import count

import numpy as np

__all__ = ["affine_maps", "smallest_invariant_eigenvalue", "upper"]


def upper(Z):
    """Choose between Z and -Z; shape (n, m).

    The last coordinate is positive; where it is zero, the first one that is not zero is. Both signs give
    the same numbers to the last bit.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.manifolds.symmetry import upper
    >>> upper(np.array([[1.0, 2.0, -2.0], [-1.0, 2.0, 0.0]]))
    array([[-1., -2.,  2.],
           [ 1., -2.,  0.]])
    """
    Z = np.asarray(Z, dtype=float)
    order = np.roll(np.arange(Z.shape[1]), 1)
    first = order[np.argmax(Z[:, order] != 0, axis=1)]
    return Z * np.where(Z[np.arange(len(Z)), first] < 0, -1.0, 1.0)[:, None] + 0.0  # no -0.0


def affine_maps(manifold):
    """Return the isometries x -> A x + b of the covering space behind `images`.

    Parameters
    ----------
    manifold : Manifold
        Its covering space is a product of spheres and flat factors.

    Returns
    -------
    A : ndarray, shape (n_images, embed_dim, embed_dim)
    b : ndarray, shape (n_images, embed_dim)
    """
    b = manifold.images(np.zeros((1, manifold.embed_dim)))[:, 0]
    return (manifold.images(np.eye(manifold.embed_dim)) - b[:, None]).transpose(0, 2, 1), b


def smallest_invariant_eigenvalue(manifold):
    r"""Return the first positive eigenvalue of minus the Laplacian on a compact quotient.

    Parameters
    ----------
    manifold : Manifold
        A quotient whose covering space is a product of spheres and circles.

    Returns
    -------
    float

    Notes
    -----
    The eigenfunctions of a quotient are those of the cover that the group leaves alone. Their number at
    an eigenvalue is the mean over the group of the trace on that eigenspace, a whole number. An eigenspace of
    a product is a tensor product of levels, one per factor. An isometry that carries factors around a cycle,
    all at one level, has there the trace of the isometry that it becomes once around.

    On a circle the level l is spanned by :math:`\cos(2\pi lx/L)` and the sine: a rotation by b has trace
    :math:`2\cos(2\pi lb/L)`, a reflection 0. On a sphere the traces of A are the coefficients of Molien's series
    :math:`(1-s^2)/\det(1-sA)`: homogeneous polynomials of degree l have the complete symmetric polynomial
    :math:`h_l` of the eigenvalues of A for trace, harmonic ones :math:`h_l-h_{l-2}`.

    Examples
    --------
    >>> from rdks.manifolds import Box, SO3
    >>> from rdks.manifolds.symmetry import smallest_invariant_eigenvalue
    >>> round(smallest_invariant_eigenvalue(SO3(symmetry="cubic")), 12)  # l = 4
    20.0
    """
    pieces = list(manifold.pieces())
    A, b = affine_maps(manifold)
    root, loops = _cycles(pieces, A, b)
    traces = [_Levels(f, *loop) for (f, _), loop in zip(pieces, loops, strict=True)]

    def eigenvalue(levels):
        return sum(n * (n + f.dim - 1) / f.scale**2 for (f, _), n in zip(pieces, levels, strict=True))

    start = (0,) * len(pieces)
    queue, seen = [(0.0, start)], {start}
    here, number = 0.0, 0.0
    while True:
        lam, levels = heapq.heappop(queue)
        if lam > here * (1 + 1e-9):  # a new eigenvalue: the last one has been counted
            if here > 0 and number > 0.5:
                return here
            here, number = lam, 0.0
        alike = (np.array(levels) == np.array(levels)[root]).all(axis=1)
        number += np.mean(alike * np.prod([trace[n] for trace, n in zip(traces, levels, strict=True)], axis=0))
        for i in range(len(pieces)):
            more = levels[:i] + (levels[i] + 1,) + levels[i + 1:]
            if more not in seen:
                seen.add(more)
                heapq.heappush(queue, (eigenvalue(more), more))


def _cycles(pieces, A, b):
    """Follow each factor around its cycle under each isometry.

    Returns
    -------
    root : ndarray of int, shape (g, F)
        First factor of the cycle of each factor.
    loops : list of tuple
        Per factor: the isometries whose cycle it is the first of, and what they become once around, x -> M x + v.
    """
    # into[i, g]: where the isometry carries factor i
    into = np.array([[np.abs(A[:, t, s]).max(axis=(1, 2)) for _, t in pieces] for _, s in pieces]).argmax(axis=1)
    root = np.full((len(A), len(pieces)), -1)
    loops = []
    for i, (f, _) in enumerate(pieces):
        first = np.flatnonzero(root[:, i] < 0)
        M, v = np.empty((len(first), f.width, f.width)), np.empty((len(first), f.width))
        for row, g in enumerate(first):
            m, u, j = np.eye(f.width), np.zeros(f.width), i
            while root[g, j] < 0:
                k = into[j, g]
                block = A[g][pieces[k][1], pieces[j][1]]
                m, u = block @ m, block @ u + b[g][pieces[k][1]]
                root[g, j] = i
                j = k
            M[row], v[row] = m, u
        loops.append((len(A), first, M, v))
    return root, loops


class _Levels:
    """Traces of isometries on the levels of a factor: a list (g,) per level, as long as it is asked for.

    Isometries whose cycle begins at another factor have trace one, so that traces can be multiplied.
    """

    def __init__(self, f, g, first, M, v):
        self.g, self.first, self.known = g, first, []
        self.series = self._circle(f, M, v) if f.period is not None else self._sphere(M)

    def __getitem__(self, level):
        while len(self.known) <= level:
            trace = np.ones(self.g)
            trace[self.first] = next(self.series)
            self.known.append(trace)
        return self.known[level]

    @staticmethod
    def _circle(f, M, v):
        angle = 2 * np.pi * v[:, 0] / f.period
        yield np.ones(len(M))
        for level in count(1):
            yield np.where(M[:, 0, 0] > 0, 2.0, 0.0) * np.cos(level * angle)

    @staticmethod
    def _sphere(M):
        x = np.linalg.eigvals(M)
        before, last = np.zeros((2, len(M)))
        h = np.ones_like(x)  # complete symmetric polynomials of the first 1, 2, ... eigenvalues
        while True:
            now = h[:, -1].real
            yield now - before
            before, last = last, now
            h = np.cumsum(x * h, axis=1)
