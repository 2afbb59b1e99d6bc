"""The reductions of :mod:`rdks._kernels` in numpy, argument for argument.

They serve small work, where compiling or even loading compiled code costs more than it saves,
and they are what the compiled code is tested against.
"""
from __future__ import annotations

import functools

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


def _hyperbolic_chords(X, Y, half):
    """Squared chords in the half-space: R^2 |x - y|^2 / (x_z y_z), z the height."""
    c = sum(_wrapped(X[:, j], Y[j], 0.0) ** 2 for j in range(len(Y)))
    c *= (0.25 * half * half / X[:, -1])[:, None]
    c /= Y[-1]
    return c


def _cells(X, Y, c, kind, half, period, pace):
    """Find the cell of each pair and its distance from the middle of the cell; `c` is overwritten."""
    if kind == 3:
        w = np.minimum(1.0 + _hyperbolic_chords(X, Y, half) * (4.0 / (half * half)), pace)
        fraction, octave = np.frexp(w)  # w = fraction 2^octave, 1/2 <= fraction < 1
        place = 32 * fraction - 16
        below = np.floor(place)
        return (16 * (octave - 1) + below).astype(np.intp), place - below - 0.5
    if kind == 2:
        # |x + y|^2 = 2 R^2 + 2 <x, y>: exact to rounding, which is enough where there are cells
        np.matmul(2 * X, Y, out=c)
        c += 0.5 * half * half
        np.sqrt(np.maximum(c, 0.0, out=c), out=c)
    else:
        np.abs(_wrapped(X[:, 0], Y[0], period[0], c), out=c)
        np.maximum(np.subtract(half, c, out=c), 0.0, out=c)
    c *= pace * (1 - 1e-15)  # so that the far end lies in the last cell
    below = np.floor(c)
    c -= below
    c -= 0.5
    return below.astype(np.intp), c


def kernel_sums(X, Y, w, skip, depth, middle, extent, load, first, start, period, kind, half, form, cut, poly, terms,
                pace, cell, rate, order, total, gradient, laplacian, left, pairs):
    """Add to each query the kernel sums over all sources; see :func:`rdks._kernels.kernel_sums`.

    Nothing is left out: `depth`, the tree and `rate` only save time in the compiled form.
    """
    n = w.size
    pairs += n
    if order < 0:
        return
    rows = max(1, _BLOCK // max(n, 1))
    work, spare = np.empty((2, min(rows, len(X)), n))
    for q0 in range(0, len(X), rows):
        q = slice(q0, min(q0 + rows, len(X)))
        shape = (q.stop - q0, n)
        root, exponent, local, factor = None, None, [], {}
        for f in range(kind.size):
            c = np.empty(shape) if order or f else work[:shape[0]]
            d = spare[:shape[0]]
            columns = range(start[f], start[f + 1])
            of = slice(columns.start, columns.stop)
            if form[f]:
                if kind[f] == 3:
                    c[...] = _hyperbolic_chords(X[q, of], Y[of], half[f])
                for j in columns if kind[f] != 3 else ():
                    _wrapped(X[q, j], Y[j], period[j], d if j > start[f] else c)
                    if j > start[f]:
                        d *= d
                        c += d
                    else:
                        c *= c
                local.append(c)
                if form[f] >= 2:
                    c *= -2 / cut[f]
                    c += 1.0
                    factor[f] = _horner(poly[f, 0], c * c if form[f] == 3 else c, np.empty(shape))
                    continue
                c *= 1 / cut[f]
                np.minimum(c, 1.0, out=c)
                p = _horner(poly[f, 0], c, np.empty(shape))
                root = p if root is None else root * p
            else:
                local.append(_cells(X[q, of], Y[of], c, kind[f], half[f], period[of], pace[f]))
                e = _panel(cell[f, 0], *local[f])
                exponent = e if exponent is None else exponent + e
        if root is not None:
            for _ in range(7):
                root *= root
        if exponent is not None:
            np.exp(np.maximum(exponent, -700.0, out=exponent), out=exponent)
        k = root if exponent is None else exponent if root is None else root * exponent
        base = np.ones(shape) if k is None else k  # the kernels of all factors but those in the series form
        k = functools.reduce(np.multiply, factor.values(), base)
        left_out = np.flatnonzero(skip[q] >= 0)
        k[left_out, skip[q][left_out]] = 0.0
        total[q] += k @ w
        if not order:
            continue
        weight = np.where(np.arange(n) == skip[q][:, None], 0.0, w) if factor else w
        k = k * w
        for f in range(kind.size):
            others = [v for g, v in factor.items() if g != f]
            around = functools.reduce(np.multiply, others, base * weight) if f in factor else k
            for slot in (1, 2)[:order]:
                if form[f] == 3:
                    h = _horner(poly[f, slot], local[f] ** 2, np.empty(shape))
                    h *= local[f] if slot == 1 else 1.0
                elif form[f]:
                    h = _horner(poly[f, slot], local[f], np.empty(shape))
                else:
                    h = _panel(cell[f, slot], *local[f])
                h *= around
                if slot == 2:
                    laplacian[q] += h.sum(axis=1)
                    continue
                if kind[f] == 3:
                    _add_hyperbolic(X[q, start[f]:start[f + 1]], Y[start[f]:start[f + 1]], 0.5 * half[f], h,
                                    gradient[q, start[f]:start[f + 1]])
                    continue
                for j in range(start[f], start[f + 1]):
                    gradient[q, j] += 2 * np.einsum("ij,ij->i", h, _wrapped(X[q, j], Y[j], period[j]))


def kernel_rows(X, Y, start, period, kind, half, form, cut, poly, terms, pace, cell, out):
    """Evaluate the kernel of one pair after another; see :func:`rdks._kernels.kernel_rows`."""
    out[...] = 1.0
    root = np.ones(out.size)
    for f in range(kind.size):
        of = slice(start[f], start[f + 1])
        D = X[of] - Y[of]
        P = period[of, None]
        D = D - P * np.rint(np.divide(D, P, out=np.zeros_like(D), where=P > 0))
        c = (D * D).sum(axis=0)
        if kind[f] == 3:
            c = c * (0.25 * half[f] ** 2 / X[of][-1]) / Y[of][-1]
        if form[f] == 1:
            root *= _horner(poly[f, 0], np.minimum(c / cut[f], 1.0), np.empty(out.size))
        elif form[f] == 2:
            out *= _horner(poly[f, 0], 1.0 - 2.0 * c / cut[f], np.empty(out.size))
        else:
            if kind[f] == 3:
                fraction, octave = np.frexp(np.minimum(1.0 + c * (4.0 / half[f] ** 2), pace[f]))
                base, place = 16 * (octave - 1), 32 * fraction - 16
            else:
                v = np.sqrt(np.maximum(half[f] ** 2 - c, 0.0)) if kind[f] == 2 else half[f] - np.sqrt(c)
                base, place = 0, np.maximum(v, 0.0) * pace[f] * (1 - 1e-15)  # the far end lies in the last cell
            below = np.floor(place)
            which = base + below.astype(np.intp)
            out *= np.exp(np.maximum(_panel(cell[f, 0], which, place - below - 0.5), -700.0))
    out *= root**128


def _add_hyperbolic(X, Y, radius, h, gradient):
    """Add sum_i h_i grad c_i of a hyperbolic factor; see :func:`rdks._kernels._add_hyperbolic`."""
    h = h / Y[-1]
    z = X[:, -1:]
    up = np.einsum("ij,ij->i", h, (z - Y[-1]) * (z + Y[-1]))
    for j in range(len(Y) - 1):
        u = _wrapped(X[:, j], Y[j], 0.0)
        gradient[:, j] += 2 * radius * np.einsum("ij,ij->i", h, u)
        up -= np.einsum("ij,ij->i", h, u * u)
    gradient[:, -1] += radius / X[:, -1] * up


def _slope(coefs, which, x):
    """Differentiate piecewise polynomials; `coefs` is (..., P)."""
    return _panel(np.arange(1.0, len(coefs))[:, None] * coefs[1:], which, x)


def tail_peaks(X, Y, log_w, skip, middle, extent, heaviest, first, start, period, kind, half, count, edge, mid, scale,
               panel, t, peak):
    """Find the log of the largest weighted kernel; not needed here, where all sources take part."""


def tail_sums(X, Y, log_w, skip, middle, extent, load, heaviest, first, start, period, kind, half, count, edge, mid,
              scale, panel, t, least, order, log_total, gradient, laplacian):
    """Evaluate log kernel sums by log-sum-exp; see :func:`rdks._kernels.tail_sums`.

    All sources take part: the tree and `least` only save time in the compiled form.
    """
    rows = max(1, _BLOCK // max(log_w.size, 1))
    for q0 in range(0, len(X), rows):
        q = slice(q0, min(q0 + rows, len(X)))
        steps = np.array([_wrapped(X[q, j], Y[j], period[j]) for j in range(X.shape[1])])
        log_k = np.tile(log_w, (len(X[q]), 1))
        bend = np.zeros_like(log_k)
        for f in range(kind.size):
            columns = slice(start[f], start[f + 1])
            dim = start[f + 1] - start[f]
            r = np.sqrt((steps[columns] ** 2).sum(axis=0))
            v = np.zeros_like(r)
            if kind[f] == 3:
                height = X[q, start[f + 1] - 1][:, None]
                r = half[f] * np.arcsinh(0.5 * r / np.sqrt(height) / np.sqrt(Y[start[f + 1] - 1]))
                v = r
            elif kind[f] == 1:
                v = np.maximum(half[f] - r, 0.0)
            elif kind[f] == 2:
                v = np.sqrt(sum(np.add.outer(X[q, j], Y[j]) ** 2 for j in range(start[f], start[f + 1])))
                r = half[f] * np.arctan2(r, v)
                v = np.minimum(v, half[f])
            which = np.searchsorted(edge[f, 1:count[f]], v, side="right")
            x = (v - mid[f][which]) * scale[f][which]
            log_k += _panel(panel[f, 0].T, which, x) - r * r / (2 * t)
            if not order:
                continue
            if kind[f] == 0:
                slope = np.full_like(r, -0.5 / t)
                bend -= dim / t
            elif kind[f] == 3:
                # the panels hold (d log k / dr) / r, and the gradient of r is -log_x(y) / r
                slope = _panel(panel[f, 1].T, which, x)
                angle = 2 * r / half[f]
                bend += slope + r * _slope(panel[f, 1].T, which, x) * scale[f][which]
                bend += (dim - 1) * slope * np.divide(angle, np.tanh(angle), out=np.ones_like(r), where=angle > 0)
                steps[columns] /= -height
                rise = steps[columns][-1]
                square = (steps[columns] ** 2).sum(axis=0)
                steps[columns.stop - 1] = rise + 0.5 * square
                size = np.sqrt((steps[columns] ** 2).sum(axis=0))
                steps[columns] *= np.divide(-slope * r, size, out=np.zeros_like(r), where=size > 0)
                continue
            else:
                slope = _panel(panel[f, 1].T, which, x)
                change = _slope(panel[f, 1].T, which, x) * scale[f][which]
                if kind[f] == 1:
                    bend += 2 * (slope - r * change)
                else:
                    angle = 2 * r / half[f]
                    bend += (2 * (dim - 1) * np.cos(angle) * slope
                             - half[f] * np.sin(angle) * np.sin(0.5 * angle) * change)
            steps[columns] *= 2 * slope
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
        first = steps[:, np.arange(len(weight)), weight.argmax(axis=1)]
        steps -= first[:, :, None]
        mean = np.einsum("qi,jqi->jq", weight, steps)
        gradient[q] = (first + mean).T
        spread = np.einsum("qi,qi->q", weight, _tangent_square(X[q], steps, start, kind, half))
        laplacian[q] = (np.einsum("qi,qi->q", weight, bend) + spread
                        - _tangent_square(X[q], mean[:, :, None], start, kind, half)[:, 0])


def _tangent_square(X, V, start, kind, half):
    """Square the lengths of the tangent parts of ambient vectors, (m, q, n), at points (q, m)."""
    square = np.zeros(V.shape[1:])
    for f in range(kind.size):
        columns = slice(start[f], start[f + 1])
        W = V[columns]
        if kind[f] == 2:
            x = X[:, columns] / (0.5 * half[f])
            W = W - x.T[:, :, None] * np.einsum("qj,jqi->qi", x, W)
        square += (W * W).sum(axis=0)
    return square
