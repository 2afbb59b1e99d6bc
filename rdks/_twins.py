"""The reductions of :mod:`rdks._kernels` in numpy, argument for argument.

They serve small work, where compiling or even loading compiled code costs more than it saves,
and they are what the compiled code is tested against.
"""
from __future__ import annotations

import numpy as np

_BLOCK = 32768  # elements of a temporary that stay in the second-level cache


def _horner(coefs, x, out):
    """Evaluate a polynomial with scalar coefficients, trailing zeros left out."""
    keep = np.flatnonzero(coefs)
    top = keep[-1] if keep.size else 0
    out[...] = coefs[top]
    for a in coefs[top - 1::-1] if top else ():
        out *= x
        out += a
    return out


def _panel(coefs, which, x):
    """Evaluate piecewise polynomials; `coefs` is (..., P)."""
    value = coefs[-1].take(which)
    for a in coefs[-2::-1]:
        value *= x
        value += a.take(which)
    return value


def _wrapped(x, y, period, out=None):
    d = np.subtract(x[:, None], y, out=out)
    if period > 0:
        d -= period * np.rint(d / period)
    return d


def _cells(c, kind, half, pace, top):
    """Turn chords, in place, into cells and distances from their middles."""
    if kind == 2:
        np.subtract(half * half, c, out=c)
        np.sqrt(np.maximum(c, 0.0, out=c), out=c)
    else:
        np.subtract(half, np.sqrt(c, out=c), out=c)
        np.maximum(c, 0.0, out=c)
    c *= pace
    which = np.minimum(c.astype(np.intp), top)
    c -= which
    c -= 0.5
    return which, c


def kernel_sums(X, Y, w, skip, middle, extent, start, period, kind, half, is_gauss, cut, poly, pace, cell,
                order, total, gradient, laplacian):
    """Add to each query the kernel sums over all sources; see :func:`rdks._kernels.kernel_sums`.

    Nothing is left out: `middle` and `extent` only save time in the compiled form.
    """
    n = w.size
    rows = max(1, _BLOCK // max(n, 1))
    work, spare = np.empty((2, min(rows, len(X)), n))
    for q0 in range(0, len(X), rows):
        q = slice(q0, min(q0 + rows, len(X)))
        shape = (q.stop - q0, n)
        root, exponent, local = None, None, []
        for f in range(kind.size):
            c = np.empty(shape) if order or f else work[:shape[0]]
            d = spare[:shape[0]]
            for j in range(start[f], start[f + 1]):
                _wrapped(X[q, j], Y[j], period[j], d if j > start[f] else c)
                if j > start[f]:
                    d *= d
                    c += d
                else:
                    c *= c
            if is_gauss[f]:
                c *= 1 / cut[f]
                np.minimum(c, 1.0, out=c)
                p = _horner(poly[f, 0], c, np.empty(shape))
                root = p if root is None else root * p
                local.append(c)
            else:
                top = int(half[f] * pace[f] + 0.5) - 1
                local.append(_cells(c, kind[f], half[f], pace[f], top))
                e = _panel(cell[f, 0], *local[f])
                exponent = e if exponent is None else exponent + e
        if root is not None:
            for _ in range(7):
                root *= root
        if exponent is not None:
            np.exp(np.maximum(exponent, -700.0, out=exponent), out=exponent)
        k = root if exponent is None else exponent if root is None else root * exponent
        left_out = np.flatnonzero(skip[q] >= 0)
        k[left_out, skip[q][left_out]] = 0.0
        total[q] += k @ w
        if not order:
            continue
        k *= w
        for f in range(kind.size):
            for slot in (1, 2)[:order]:
                if is_gauss[f]:
                    h = _horner(poly[f, slot], local[f], np.empty(shape))
                else:
                    h = _panel(cell[f, slot], *local[f])
                h *= k
                if slot == 2:
                    laplacian[q] += h.sum(axis=1)
                    continue
                for j in range(start[f], start[f + 1]):
                    gradient[q, j] += 2 * np.einsum("ij,ij->i", h, _wrapped(X[q, j], Y[j], period[j]))


def tail_sums(X, Y, log_w, skip, start, period, kind, half, count, edge, mid, scale, panel, t, margin,
              monotone, order, log_total, gradient, laplacian):
    """Evaluate log kernel sums by log-sum-exp; see :func:`rdks._kernels.tail_sums`.

    All sources take part: `margin` and `monotone` only save time in the compiled form.
    """
    rows = max(1, _BLOCK // max(log_w.size, 1))
    for q0 in range(0, len(X), rows):
        q = slice(q0, min(q0 + rows, len(X)))
        steps = [_wrapped(X[q, j], Y[j], period[j]) for j in range(X.shape[1])]
        log_k = np.tile(log_w, (len(X[q]), 1))
        pieces = []
        for f in range(kind.size):
            columns = range(start[f], start[f + 1])
            c = sum(steps[j] ** 2 for j in columns)
            if kind[f] == 2:
                opposite = sum(np.add.outer(X[q, j], Y[j]) ** 2 for j in columns)
                v = np.sqrt(opposite)
                r = half[f] * np.arctan2(np.sqrt(c), v)
                v = np.minimum(v, half[f])
            else:
                r = np.sqrt(c)
                v = np.maximum(half[f] - r, 0.0) if kind[f] == 1 else np.zeros_like(r)
            which = np.searchsorted(edge[f, 1:count[f]], v, side="right")
            x = (v - mid[f][which]) * scale[f][which]
            log_k += _panel(panel[f, 0].T, which, x) - r * r / (2 * t)
            if order:
                if kind[f] == 0:
                    pieces.append((columns, np.full_like(c, -0.5 / t), (c / t - len(columns)) / t))
                else:
                    pieces.append((columns, _panel(panel[f, 1].T, which, x),
                                   _panel(panel[f, 2].T, which, x)))
        left_out = np.flatnonzero(skip[q] >= 0)
        log_k[left_out, skip[q][left_out]] = -np.inf
        top = log_k.max(axis=1)
        finite = np.where(np.isfinite(top), top, 0.0)
        weight = np.exp(log_k - finite[:, None])
        total = weight.sum(axis=1)
        with np.errstate(divide="ignore"):
            log_total[q] = finite + np.log(total)
        if not order:
            continue
        weight /= np.where(total > 0, total, 1.0)[:, None]
        laplacian[q] = sum((weight * third).sum(axis=1) for _, _, third in pieces)
        for columns, slope, _ in pieces:
            for j in columns:
                gradient[q, j] = 2 * np.einsum("ij,ij,ij->i", weight, slope, steps[j])
