"""Finite groups of isometries x -> A x + b, as arrays of matrices and shifts: reading, checking, generating."""
from __future__ import annotations

import numpy as np

from ..errors import UnsupportedError
from .base import Manifold, wrap

__all__ = ["MAX_ORDER", "as_maps", "check_base", "check_group", "find_identity", "generate"]

#: Elements of a group at most; each is one image of every source.
MAX_ORDER = 1000
# A group is given to the rounding of its coefficients or not at all: what they are off, distances are off.
_EXACT = 1e-12
# Two elements are one if their coefficients differ by less than this: more than the rounding of products, and far
# less than the difference between elements of a group of at most MAX_ORDER.
_SAME = 1e-9


def check_base(base):
    """Raise unless matrices and shifts can be isometries of a manifold."""
    if not isinstance(base, Manifold):
        raise ValueError(f"Quotient: expected an rdks manifold, found {base!r}")
    if base.kernel != "factors" or any(f.hyperbolic for f in base.factors()):
        raise UnsupportedError(f"Quotient: {base!r} is not a product of spheres and flat factors, the spaces whose "
                               "isometries are matrices and shifts")
    if base.has_drift:
        raise UnsupportedError(f"Quotient: {base!r} has a drift; only Brownian motion is taken to a quotient")


def as_maps(base, matrices, shifts, name):
    """Return isometries as arrays, after checking each of them.

    Parameters
    ----------
    base : Manifold
    matrices : array-like, shape (g, m, m)
    shifts : array-like, shape (g, m), or None
    name : str
        What the matrices are called, for messages.

    Returns
    -------
    A : ndarray, shape (g, m, m)
    b : ndarray, shape (g, m)
        Shifts of circles are reduced to one turn.

    Raises
    ------
    ValueError
        If a shape is wrong, or a map is no isometry of the manifold.
    """
    A = np.array(matrices, dtype=float)
    m = base.embed_dim
    if A.ndim != 3 or A.shape[1:] != (m, m) or not len(A):
        raise ValueError(f"{name} has shape {A.shape}, expected (g, {m}, {m}): matrices that act on the {m} embedded "
                         f"coordinates of {base!r}")
    b = np.zeros((len(A), m)) if shifts is None else np.array(shifts, dtype=float)
    if b.shape != (len(A), m):
        raise ValueError(f"shifts has shape {b.shape}, expected ({len(A)}, {m}), one per element of {name}")
    for i in range(len(A)):
        if not (np.isfinite(A[i]).all() and np.isfinite(b[i]).all()):
            raise ValueError(f"{name}[{i}] or its shift is not finite")
        _check_isometry(base, A[i], b[i], f"{name}[{i}]")
    for f, s in base.pieces():
        if f.period is not None:
            b[:, s] = wrap(b[:, s], f.period)
    return A, b


def _check_isometry(base, A, b, name):
    """Raise ValueError unless x -> A x + b is an isometry of the covering space."""
    off = np.abs(A @ A.T - np.eye(len(A))).max()
    if off > _EXACT:
        raise ValueError(f"{name} is not an isometry: A @ A.T differs from the identity by {off:.3g}, more than "
                         f"{_EXACT:g}. Give orthogonal matrices, with all digits of their coefficients")
    pieces = list(base.pieces())
    for f, s in pieces:
        if f.radius is not None and b[s].any():
            raise ValueError(f"{name} is not an isometry: its shift moves columns {s.start} to {s.stop - 1}, a sphere; "
                             "only flat factors can be shifted")
        if f.kind == "line":
            continue  # Euclidean factors may mix
        into = [h for h, t in pieces if np.abs(A[t, s]).max() > _EXACT]
        if into != [f]:
            raise ValueError(f"{name} is not an isometry of {base!r}: it carries columns {s.start} to {s.stop - 1}, "
                             f"{f!r}, to {' and '.join(map(repr, into))} instead of one equal factor")


def _marks(base, A, b):
    """Write isometries as rows of numbers that are equal where the isometries are: shifts of circles as angles."""
    columns = [A.reshape(len(A), -1)]
    for f, s in base.pieces():
        if f.period is not None:
            angle = 2 * np.pi * b[:, s] / f.period
            columns += [np.cos(angle), np.sin(angle)]
        else:
            columns.append(b[:, s])
    return np.concatenate(columns, axis=1)


def _identity(base):
    return np.eye(base.embed_dim)[None], np.zeros((1, base.embed_dim))


def find_identity(base, A, b):
    """Return the number of the element that is nearest to the identity."""
    return int(np.abs(_marks(base, A, b) - _marks(base, *_identity(base))).max(axis=1).argmin())


def check_group(base, A, b, n_given):
    """Raise ValueError unless isometries are distinct and form a group.

    Parameters
    ----------
    base : Manifold
    A, b : ndarray, shapes (g, m, m) and (g, m)
        What :func:`as_maps` returned, once for each image in the base.
    n_given : int
        Number of elements that the user gave, for messages.
    """
    from scipy.spatial import cKDTree

    tree = cKDTree(_marks(base, A, b))
    alike = tree.query_pairs(_SAME, p=np.inf)
    if alike:
        i, j = min(alike)
        raise ValueError(f"group[{i % n_given}] and group[{j % n_given}] act alike on {base!r}: list each element once")
    if tree.query(_marks(base, *_identity(base)), p=np.inf)[0][0] > _SAME:
        raise ValueError("the identity is not in the group")
    for i in range(len(A)):
        off, _ = tree.query(_marks(base, A[i] @ A, b @ A[i].T + b[i]), p=np.inf)
        j = int(np.argmax(off))
        if off[j] > _SAME:
            raise ValueError(f"group[{i % n_given}] after group[{j % n_given}] is not in the group: the nearest "
                             f"element differs by {off[j]:.3g}. Quotient.generated adds what is missing")


def generate(base, A, b):
    """Return the smallest group that contains some isometries; shapes (g, m, m) and (g, m), the identity first.

    Raises
    ------
    ValueError
        If it has more than MAX_ORDER elements.
    """
    M, v = _identity(base)
    marks = _marks(base, M, v)
    done = 0
    while done < len(M):
        for G, u in zip(A, b, strict=True):
            N, w = (G @ M[done])[None], (G @ v[done] + u)[None]
            mark = _marks(base, N, w)
            if np.abs(marks - mark).max(axis=1).min() > _SAME:
                M, v, marks = (np.concatenate(pair) for pair in ((M, N), (v, w), (marks, mark)))
        done += 1
        if len(M) > MAX_ORDER:
            raise ValueError(f"the generators have more than {MAX_ORDER} products: either the group is not finite, or "
                             "coefficients are not given to full precision")
    return M, v
