"""All compiled code: the reductions over sources, on plain arrays.

Rules. Serial and ``nogil`` (threads belong to the engine); float64 and C-contiguous, so that
each kernel compiles once; no Python objects, no functions as arguments; inner loops run over
slices, because indexing with a computed index defeats vectorisation. The fast-math flags are
named: sums may be reassociated, but infinities and NaN keep their meaning.

:mod:`rdks._twins` holds the same reductions in numpy, for small work and as the check.
"""
from __future__ import annotations

from functools import partial

import numba as nb
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

jit = partial(nb.njit, cache=True, nogil=True, error_model="numpy",
              fastmath={"reassoc", "contract", "nsz", "arcp"})
strict = partial(nb.njit, cache=True, nogil=True, error_model="numpy")

BOX = 32         # sources that share a leaf of the tree: neighbours in space, left out together where they are far
FAN = 8          # children of a node, a vector register full of them
CHUNK_LEVEL = 3  # nodes of this level hold CHUNK sources
CHUNK = BOX * FAN**CHUNK_LEVEL  # sources that stay in the second-level cache while a group of queries passes over them
SLACK = 1.7      # how much further out of reach a box must be by level: it may hold so much more, as a logarithm
GROUP = 64       # queries in such a group: neighbours in space, so that what is far from one is far from all
TILE = 512       # sources whose intermediate values stay in the first-level cache


@intrinsic
def _wide_vectors(typingctx):
    """Ask LLVM for 512-bit vectors in the calling function, where the processor has them.

    LLVM's default for several processors is half their width. llvmlite writes function
    attributes out verbatim but its front door only admits a fixed list of names.
    """
    def codegen(context, builder, signature, args):
        attributes = builder.function.attributes
        if isinstance(attributes, set):
            set.add(attributes, '"prefer-vector-width"="512"')
            set.add(attributes, '"min-legal-vector-width"="512"')
        return context.get_dummy_value()
    return types.void(), codegen


@intrinsic
def _rint(typingctx, x):
    """Round to the nearest integer as one vector instruction."""
    def codegen(context, builder, signature, args):
        fn = builder.module.declare_intrinsic("llvm.rint", [ir.DoubleType()])
        return builder.call(fn, args)
    return types.float64(types.float64), codegen


@intrinsic
def _power_of_two(typingctx, shifted):
    """Turn n + 1.5 * 2^52 into 2^n through its bits."""
    def codegen(context, builder, signature, args):
        word = ir.IntType(64)
        bits = builder.bitcast(args[0], word)
        bits = builder.shl(bits, ir.Constant(word, 52))
        bits = builder.add(bits, ir.Constant(word, 1023 << 52))
        return builder.bitcast(bits, ir.DoubleType())
    return types.float64(types.float64), codegen


@intrinsic
def _bits(typingctx, x):
    """Read the bits of a float as an integer."""
    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.IntType(64))
    return types.int64(types.float64), codegen


@jit(inline="always")
def _exp(x):
    """Exponential that compilers can vectorise; arguments below -700 give exp(-700)."""
    x = max(x, -700.0)
    n = _rint(x * 1.4426950408889634)
    r = (x - n * 0.6931471803691238) - n * 1.9082149292705877e-10
    p = 1 / 479001600 * r + 1 / 39916800
    p = p * r + 1 / 3628800
    p = p * r + 1 / 362880
    p = p * r + 1 / 40320
    p = p * r + 1 / 5040
    p = p * r + 1 / 720
    p = p * r + 1 / 120
    p = p * r + 1 / 24
    p = p * r + 1 / 6
    p = p * r + 0.5
    p = p * r + 1.0
    p = p * r + 1.0
    return p * _power_of_two(n + 6755399441055744.0)


@jit(inline="always")
def _root_power(p):
    """Raise the tabulated 128th root of the kernel to its power."""
    p = p * p
    p = p * p
    p = p * p
    p = p * p
    p = p * p
    p = p * p
    return p * p


@jit(inline="always")
def _chords(xq, Y, j0, nb_, lo, hi, period, kind, half, c):
    """Squared chords of one query to the sources j0, ..., j0 + nb_ - 1 in columns lo, ..., hi - 1."""
    _differences(xq, Y, j0, nb_, lo, hi, period, c)
    if kind == 3:
        h = 0.25 * half * half / xq[hi - 1]
        y = Y[hi - 1, j0:j0 + nb_]
        for i in range(c.size):
            c[i] = c[i] * h / y[i]


@jit(inline="always")
def _differences(xq, Y, j0, nb_, lo, hi, period, c):
    """Squared Euclidean distances in the columns lo, ..., hi - 1, modulo periods."""
    if hi - lo == 3 and period[lo] + period[lo + 1] + period[lo + 2] == 0.0:
        a, b, d = xq[lo], xq[lo + 1], xq[lo + 2]
        y0, y1, y2 = Y[lo, j0:j0 + nb_], Y[lo + 1, j0:j0 + nb_], Y[lo + 2, j0:j0 + nb_]
        for i in range(c.size):
            u, v, w = a - y0[i], b - y1[i], d - y2[i]
            c[i] = u * u + v * v + w * w
        return
    for j in range(lo, hi):
        x = xq[j]
        y = Y[j, j0:j0 + nb_]
        p = period[j]
        if p > 0.0:
            inverse = 1.0 / p
            if j == lo:
                for i in range(c.size):
                    u = x - y[i]
                    u = u - p * _rint(u * inverse)
                    c[i] = u * u
            else:
                for i in range(c.size):
                    u = x - y[i]
                    u = u - p * _rint(u * inverse)
                    c[i] = c[i] + u * u
        elif j == lo:
            for i in range(c.size):
                u = x - y[i]
                c[i] = u * u
        else:
            for i in range(c.size):
                u = x - y[i]
                c[i] = c[i] + u * u


@jit(inline="always")
def _four(p, d, c, b, a, x):
    """Continue Horner's scheme by four coefficients."""
    return (((p * x + d) * x + c) * x + b) * x + a


@jit(inline="always")
def _horner12(a, x):
    p = ((a[11] * x + a[10]) * x + a[9]) * x + a[8]
    return _four(_four(p, a[7], a[6], a[5], a[4], x), a[3], a[2], a[1], a[0], x)


@jit(inline="always")
def _horner20(a, x):
    p = ((a[19] * x + a[18]) * x + a[17]) * x + a[16]
    p = _four(_four(p, a[15], a[14], a[13], a[12], x), a[11], a[10], a[9], a[8], x)
    return _four(_four(p, a[7], a[6], a[5], a[4], x), a[3], a[2], a[1], a[0], x)


@jit(inline="always")
def _coefficients12(a):
    """Copy coefficients into registers, out of the reach of aliasing."""
    return (a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11])


@jit(inline="always")
def _coefficients20(a):
    return (a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11], a[12], a[13],
            a[14], a[15], a[16], a[17], a[18], a[19])


@jit(inline="always")
def _horner28(a, x):
    p = ((a[27] * x + a[26]) * x + a[25]) * x + a[24]
    p = _four(_four(p, a[23], a[22], a[21], a[20], x), a[19], a[18], a[17], a[16], x)
    p = _four(_four(p, a[15], a[14], a[13], a[12], x), a[11], a[10], a[9], a[8], x)
    return _four(_four(p, a[7], a[6], a[5], a[4], x), a[3], a[2], a[1], a[0], x)


@jit(inline="always")
def _coefficients28(a):
    return (a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11], a[12], a[13],
            a[14], a[15], a[16], a[17], a[18], a[19], a[20], a[21], a[22], a[23], a[24], a[25], a[26], a[27])


@jit(inline="always")
def _length(a):
    """How many coefficients of the gauss form there are: 12, 20 or 28."""
    for k in range(27, 19, -1):
        if a[k] != 0.0:
            return 28
    for k in range(19, 11, -1):
        if a[k] != 0.0:
            return 20
    return 12


def _gauss_loops(coefficients, horner):
    """Make the loops over sources for one number of coefficients.

    Returns
    -------
    tile
        Evaluate one slot of the gauss form for a tile; `times` multiplies what is there.
    plain_sum
        Sum the kernel in one pass: three plain columns.
    plain_slope
        Sum the kernel and its gradient in one pass: three plain columns.
    """
    @jit(inline="always")
    def tile(c, cut, coef, out, times):
        a = coefficients(coef)
        unit = 1.0 / cut
        if times:
            for i in range(c.size):
                out[i] = out[i] * horner(a, min(c[i] * unit, 1.0))
        else:
            for i in range(c.size):
                out[i] = horner(a, min(c[i] * unit, 1.0))

    @jit(inline="always")
    def plain_sum(a, b, d, y0, y1, y2, w, cut, coef):
        p = coefficients(coef)
        unit = 1.0 / cut
        s = 0.0
        for i in range(w.size):
            u, v, z = a - y0[i], b - y1[i], d - y2[i]
            s += w[i] * _root_power(horner(p, min((u * u + v * v + z * z) * unit, 1.0)))
        return s

    @jit(inline="always")
    def plain_slope(a, b, d, y0, y1, y2, w, cut, coef, slope):
        p = coefficients(coef)
        h = coefficients(slope)
        unit = 1.0 / cut
        s, g0, g1, g2 = 0.0, 0.0, 0.0, 0.0
        for i in range(w.size):
            u, v, z = a - y0[i], b - y1[i], d - y2[i]
            c = min((u * u + v * v + z * z) * unit, 1.0)
            k = w[i] * _root_power(horner(p, c))
            s += k
            k = 2.0 * k * horner(h, c)
            g0 += k * u
            g1 += k * v
            g2 += k * z
        return s, g0, g1, g2

    return tile, plain_sum, plain_slope


_tile12, _plain_sum12, _plain_slope12 = _gauss_loops(_coefficients12, _horner12)
_tile20, _plain_sum20, _plain_slope20 = _gauss_loops(_coefficients20, _horner20)
_tile28, _plain_sum28, _plain_slope28 = _gauss_loops(_coefficients28, _horner28)


@jit(inline="always")
def _gauss_poly(c, cut, coef, out, times):
    """Evaluate one slot of the gauss form for a tile; `times` multiplies what is there."""
    length = _length(coef)
    if length == 12:
        _tile12(c, cut, coef, out, times)
    elif length == 20:
        _tile20(c, cut, coef, out, times)
    else:
        _tile28(c, cut, coef, out, times)


@jit(inline="always")
def _series(y, coef, terms, even, out):
    """Evaluate one slot of the series form for a tile: Horner's scheme, twelve coefficients at a time."""
    for i in range(y.size):
        out[i] = 0.0
    for top in range(terms - 12, -1, -12):
        a = coef[top:top + 12]
        a0, a1, a2, a3, a4, a5 = a[0], a[1], a[2], a[3], a[4], a[5]
        a6, a7, a8, a9, a10, a11 = a[6], a[7], a[8], a[9], a[10], a[11]
        if even:
            for i in range(y.size):
                x = y[i] * y[i]
                p = _four(_four(out[i], a11, a10, a9, a8, x), a7, a6, a5, a4, x)
                out[i] = _four(p, a3, a2, a1, a0, x)
        else:
            for i in range(y.size):
                x = y[i]
                p = _four(_four(out[i], a11, a10, a9, a8, x), a7, a6, a5, a4, x)
                out[i] = _four(p, a3, a2, a1, a0, x)


@jit(inline="always")
def _times_others(h, base, factor, form, f):
    """Multiply by the weights and the kernels of all factors but f."""
    for i in range(h.size):
        h[i] *= base[i]
    for g in range(form.size):
        if g != f and form[g] >= 2:
            v = factor[g, :h.size]
            for i in range(h.size):
                h[i] *= v[i]


@jit(inline="always")
def _find_cells(c, kind, half, pace, top, which):
    """Replace chords by the distance from the middle of their cell; `which` receives the cells."""
    if kind == 3:
        # the first bits of w = 1 + c/R^2 count its cells, sixteen to the octave; the others are the place within
        inverse = 4.0 / (half * half)
        for i in range(c.size):
            b = _bits(min(1.0 + c[i] * inverse, pace))
            which[i] = (b >> 48) - 16368
            c[i] = np.float64(b & 281474976710655) * 3.552713678800501e-15 - 0.5
        return
    if kind == 2:
        for i in range(c.size):
            c[i] = np.sqrt(max(half * half - c[i], 0.0)) * pace
    else:
        for i in range(c.size):
            c[i] = max(half - np.sqrt(c[i]), 0.0) * pace
    for i in range(c.size):
        k = min(np.int64(c[i]), top)
        which[i] = k
        c[i] -= k + 0.5


@jit(inline="always")
def _cell_poly(x, which, table, out, add):
    """Evaluate one slot of the cells form for a tile; `table` is (8, N)."""
    a0, a1, a2, a3 = table[0], table[1], table[2], table[3]
    a4, a5, a6, a7 = table[4], table[5], table[6], table[7]
    for i in range(x.size):
        # unsigned: a signed index would be tested for counting from the end
        k = np.uint64(which[i])
        y = x[i]
        p = ((a7[k] * y + a6[k]) * y + a5[k]) * y + a4[k]
        p = _four(p, a3[k], a2[k], a1[k], a0[k], y)
        out[i] = p + out[i] if add else p


@jit(inline="always")
def _depths(x, spread, middle, extent, start, period, kind, half, rate, near, far, c, e):
    """How far below its peak the kernel is, in the exponent, in the boxes of a node's children.

    `near` receives a lower bound for every pair of a source in the box and a point of the box x +- spread, `far` an
    upper bound of that bound: it says where looking more closely saves nothing.
    """
    for b in range(FAN):
        near[b] = 0.0
        far[b] = 0.0
    for f in range(kind.size):
        for b in range(FAN):
            c[b] = 0.0
            e[b] = 0.0
        for j in range(start[f], start[f + 1]):
            at, wide = x[j], spread[j]
            y, w = middle[j], extent[j]
            p = period[j]
            inverse = 1.0 / p if p > 0.0 else 0.0
            for b in range(FAN):
                u = at - y[b]
                u = abs(u - p * _rint(u * inverse))
                v = u + (w[b] + wide)
                u = max(u - (w[b] + wide), 0.0)
                c[b] += u * u
                e[b] += v * v
        r = rate[f]
        if kind[f] == 3:
            # here the rate is that of the squared distance, not of the chord, which grows exponentially
            last = start[f + 1] - 1
            high = x[last] + spread[last]
            low = max(x[last] - spread[last], 0.0)
            y, w = middle[last], extent[last]
            for b in range(FAN):
                c[b] = half[f] * np.arcsinh(0.5 * np.sqrt(c[b] / (high * (y[b] + w[b]))))
                e[b] = half[f] * np.arcsinh(0.5 * np.sqrt(e[b] / (low * max(y[b] - w[b], 0.0))))
                near[b] += r * (c[b] * c[b])
                far[b] += r * (e[b] * e[b])
        else:
            for b in range(FAN):
                near[b] += r * c[b]
                far[b] += r * e[b]


@jit(inline="always")
def _left_out(near, depth, load, lift):
    """Bound the sum over the children that lie deeper than `depth`: of kernels, times 1 + lift depth."""
    s = 0.0
    for b in range(FAN):
        x = min(near[b], 700.0)
        s += load[b] * _exp(-x) * (1.0 + lift * x) if near[b] > depth else 0.0
    return s


@jit
def _find_chunks(low, high, deepest, lift, middle, extent, load, first, n, start, period, kind, half, rate, near, far,
                 c, e, stack, stage, chunks):
    """List the first sources of the chunks that are not too deep for all queries in a box.

    Returns their number and a bound of what the others would add to the sum of any of these queries.
    """
    x = np.empty(low.size)
    spread = np.empty(low.size)
    for j in range(low.size):
        x[j] = 0.5 * (low[j] + high[j])
        spread[j] = max(high[j] - x[j], x[j] - low[j]) * (1.0 + 1e-15)
    top = first.size - 1
    stack[0], stage[0] = 0, top
    size = 1
    count = 0
    left = 0.0
    while size > 0:
        size -= 1
        place, level = stack[size], stage[size]
        if level <= CHUNK_LEVEL:
            chunks[count] = place
            count += 1
            continue
        node = first[level - 1] + place
        _depths(x, spread, middle[node], extent[node], start, period, kind, half, rate, near, far, c, e)
        limit = deepest + SLACK * (level - 1)
        left += _left_out(near, limit, load[node], lift)
        width = BOX * FAN ** (level - 1)
        for b in range(FAN):
            if near[b] <= limit and (place * FAN + b) * width < n:
                stack[size], stage[size] = place * FAN + b, level - 1
                size += 1
    return count, left


@jit
def _find_runs(x, still, depth, lift, place, level, middle, extent, load, first, n, start, period, kind, half, rate,
               near, far, c, e, stack, stage, begin, end):
    """List runs of sources below a node, those of its boxes that are not deeper than `depth`.

    Returns their number and a bound of what the others would add to the sum.
    """
    stack[0], stage[0] = place, level
    size = 1
    count = 0
    left = 0.0
    while size > 0:
        size -= 1
        place, level = stack[size], stage[size]
        if level <= 0:  # all of it, level 0 being a leaf
            width = BOX * FAN ** (-level)
            j0 = place * width
            if count > 0 and end[count - 1] == j0:
                count -= 1
            else:
                begin[count] = j0
            end[count] = min(j0 + width, n)
            count += 1
            continue
        node = first[level - 1] + place
        _depths(x, still, middle[node], extent[node], start, period, kind, half, rate, near, far, c, e)
        limit = depth + SLACK * (level - 1)
        left += _left_out(near, limit, load[node], lift)
        width = BOX * FAN ** (level - 1)
        for b in range(FAN - 1, -1, -1):
            if near[b] <= limit and (place * FAN + b) * width < n:
                stack[size] = place * FAN + b
                stage[size] = 1 - level if far[b] <= depth else level - 1
                size += 1
    return count, left


@jit(inline="always")
def _add_hyperbolic(xq, Y, j0, nb_, lo, last, radius, h, gradient):
    """Add sum_i h_i grad c_i of a hyperbolic factor, in the orthonormal frame of the half-space; `h` is overwritten.

    With D = x - y and z the height: 2 R D_j / z_y across, R ((x_z - y_z)(x_z + y_z) - |D across|^2) / (x_z z_y) up.
    """
    z = xq[last]
    y = Y[last, j0:j0 + nb_]
    up = 0.0
    for i in range(h.size):
        h[i] = h[i] / y[i]
        up += h[i] * ((z - y[i]) * (z + y[i]))
    for j in range(lo, last):
        x = xq[j]
        y = Y[j, j0:j0 + nb_]
        g = 0.0
        square = 0.0
        for i in range(h.size):
            u = x - y[i]
            g += h[i] * u
            square += h[i] * (u * u)
        gradient[j] += 2.0 * radius * g
        up -= square
    gradient[last] += radius / z * up


@jit
def kernel_sums(X, Y, w, skip, depth, middle, extent, load, first, start, period, kind, half, form, cut, poly, terms,
                pace, cell, rate, order, total, gradient, laplacian, left, pairs):
    """Add to each query the kernel sums over the sources that matter, relative to the kernel's peak.

    Parameters
    ----------
    X : float64 (q, m)
        Queries, embedded; neighbours in memory should be neighbours in space.
    Y : float64 (m, n)
        Sources, embedded, one row per column of X.
    w : float64 (n,)
        Weights.
    skip : int64 (q,)
        A source that each query leaves out, or -1.
    depth : float64 (q,)
        Boxes of sources whose kernels are below exp(-depth) of the peak are left out.
    middle, extent, load, first
        :class:`rdks.hierarchy.Tree`.
    start, ..., cell
        :attr:`rdks.radial.KernelTable.arrays`.
    rate : float64 (F,)
        :func:`rdks.hierarchy.rates`.
    order : int
        0: `total`; 1: `gradient` too; 2: `laplacian` too; -1: nothing but `left` and `pairs`.
    total : float64 (q,)
        sum_i w_i k_i / k(0), added to.
    gradient : float64 (q, m)
        sum_i w_i k_i / k(0) * (d log k / dc) grad c_i, added to; grad c = 2 (x - y_i) but in hyperbolic factors.
    laplacian : float64 (q,)
        sum_i w_i Laplacian(k_i) / k(0), added to.
    left : float64 (q,)
        Upper bound of sum_i w_i k_i / k(0), for order > 0 times 1 + depth_i, of the sources left out, added to.
    pairs : float64 (q,)
        Number of sources that were not left out, added to.
    """
    _wide_vectors()
    n = w.size
    nf = kind.size
    any_gauss, all_gauss, any_cells, any_series = False, True, False, False
    for f in range(nf):
        any_gauss |= form[f] == 1
        all_gauss &= form[f] == 1
        any_cells |= form[f] == 0
        any_series |= form[f] >= 2
    length = max(_length(poly[0, 0]), _length(poly[0, 1]))
    plain3 = nf == 1 and all_gauss and X.shape[1] == 3 and period[0] == 0.0 and kind[0] != 3
    chord = np.empty((nf, TILE))
    value = np.empty(TILE)
    exponent = np.empty(TILE)
    slope = np.empty(TILE)
    factor = np.empty((nf, TILE))  # values of the series form
    base = np.empty(TILE)          # weights times the kernels of all other factors
    which = np.empty((nf, TILE), dtype=np.int64)
    light = np.empty(TILE)         # weights, that of a source left out zero
    near, far, c8, e8 = np.empty(FAN), np.empty(FAN), np.empty(FAN), np.empty(FAN)
    stack, stage = np.empty((2, FAN * (first.size + 1)), dtype=np.int64)
    begin, stop = np.empty((2, CHUNK // BOX + 1), dtype=np.int64)
    chunks = np.empty(n // CHUNK + 1, dtype=np.int64)
    still = np.zeros(X.shape[1])
    low, high = np.empty((2, X.shape[1]))
    lift = 1.0 if order > 0 else 0.0
    for group in range(0, X.shape[0], GROUP):
        last = min(group + GROUP, X.shape[0])
        low[:] = X[group]
        high[:] = X[group]
        deepest = depth[group]
        for q in range(group + 1, last):
            deepest = max(deepest, depth[q])
            for j in range(X.shape[1]):
                low[j] = min(low[j], X[q, j])
                high[j] = max(high[j], X[q, j])
        count, out = _find_chunks(low, high, deepest, lift, middle, extent, load, first, n, start, period, kind, half,
                                  rate, near, far, c8, e8, stack, stage, chunks)
        for q in range(group, last):
            left[q] += out
        for turn in range(count * (last - group)):
            # every query of the group on one chunk of the sources, then on the next
            q = group + turn % (last - group)
            xq = X[q]
            runs, out = _find_runs(xq, still, depth[q], lift, chunks[turn // (last - group)],
                                   min(first.size - 1, CHUNK_LEVEL), middle, extent, load, first, n, start, period,
                                   kind, half, rate, near, far, c8, e8, stack, stage, begin, stop)
            left[q] += out
            run = 0
            j0 = end = 0  # what is left of the run
            s = 0.0
            while j0 < end or run < runs:
                if j0 >= end:
                    j0, end = begin[run], stop[run]
                    run += 1
                    pairs[q] += end - j0
                if order < 0:
                    j0 = end
                    continue
                whole = plain3 and order < 2 and not j0 <= skip[q] < end
                size = end - j0 if whole else min(TILE, end - j0)
                wt = w[j0:j0 + size]
                if j0 <= skip[q] < j0 + size:
                    for i in range(size):
                        light[i] = wt[i]
                    light[skip[q] - j0] = 0.0
                    wt = light[:size]
                if plain3 and order < 2:
                    y0, y1, y2 = Y[0, j0:j0 + size], Y[1, j0:j0 + size], Y[2, j0:j0 + size]
                    if order == 0 and length == 12:
                        s += _plain_sum12(xq[0], xq[1], xq[2], y0, y1, y2, wt, cut[0], poly[0, 0])
                    elif order == 0 and length == 20:
                        s += _plain_sum20(xq[0], xq[1], xq[2], y0, y1, y2, wt, cut[0], poly[0, 0])
                    elif order == 0:
                        s += _plain_sum28(xq[0], xq[1], xq[2], y0, y1, y2, wt, cut[0], poly[0, 0])
                    else:
                        if length == 12:
                            t, g0, g1, g2 = _plain_slope12(xq[0], xq[1], xq[2], y0, y1, y2, wt, cut[0],
                                                           poly[0, 0], poly[0, 1])
                        elif length == 20:
                            t, g0, g1, g2 = _plain_slope20(xq[0], xq[1], xq[2], y0, y1, y2, wt, cut[0],
                                                           poly[0, 0], poly[0, 1])
                        else:
                            t, g0, g1, g2 = _plain_slope28(xq[0], xq[1], xq[2], y0, y1, y2, wt, cut[0],
                                                           poly[0, 0], poly[0, 1])
                        s += t
                        gradient[q, 0] += g0
                        gradient[q, 1] += g1
                        gradient[q, 2] += g2
                    j0 += size
                    continue
                k = value[:size]
                e = exponent[:size]
                times, plus = False, False
                for f in range(nf):
                    c = chord[f, :size]
                    _chords(xq, Y, j0, size, start[f], start[f + 1], period, kind[f], half[f], c)
                    if form[f] == 1:
                        _gauss_poly(c, cut[f], poly[f, 0], k, times)
                        times = True
                    elif form[f] >= 2:
                        unit = 2.0 / cut[f]
                        for i in range(c.size):
                            c[i] = 1.0 - c[i] * unit
                        _series(c, poly[f, 0], terms[f], form[f] == 3, factor[f, :size])
                    else:
                        top = np.int64(half[f] * pace[f] + 0.5) - 1
                        _find_cells(c, kind[f], half[f], pace[f], top, which[f, :size])
                        _cell_poly(c, which[f, :size], cell[f, 0], e, plus)
                        plus = True
                if all_gauss:
                    for i in range(k.size):
                        k[i] = wt[i] * _root_power(k[i])
                elif any_gauss and any_cells:
                    for i in range(k.size):
                        k[i] = wt[i] * _root_power(k[i]) * _exp(e[i])
                elif any_gauss:
                    for i in range(k.size):
                        k[i] = wt[i] * _root_power(k[i])
                elif any_cells:
                    for i in range(k.size):
                        k[i] = wt[i] * _exp(e[i])
                else:
                    for i in range(k.size):
                        k[i] = wt[i]
                if any_series:
                    b = base[:size]
                    for i in range(k.size):
                        b[i] = k[i]
                    for f in range(nf):
                        if form[f] >= 2:
                            v = factor[f, :size]
                            for i in range(k.size):
                                k[i] *= v[i]
                for i in range(k.size):
                    s += k[i]
                if order == 0:
                    j0 += size
                    continue
                h = slope[:size]
                for f in range(nf):
                    c = chord[f, :size]
                    if form[f] >= 2:
                        _series(c, poly[f, 1], terms[f], form[f] == 3, h)
                        if form[f] == 3:
                            for i in range(c.size):
                                h[i] *= c[i]
                        _times_others(h, base[:size], factor, form, f)
                    else:
                        if form[f] == 1:
                            _gauss_poly(c, cut[f], poly[f, 1], h, False)
                        else:
                            _cell_poly(c, which[f, :size], cell[f, 1], h, False)
                        for i in range(k.size):
                            h[i] = h[i] * k[i]
                    if kind[f] == 3:
                        _add_hyperbolic(xq, Y, j0, size, start[f], start[f + 1] - 1, 0.5 * half[f], h, gradient[q])
                        continue
                    for j in range(start[f], start[f + 1]):
                        x = xq[j]
                        y = Y[j, j0:j0 + size]
                        g = 0.0
                        if period[j] > 0.0:
                            p = period[j]
                            inverse = 1.0 / p
                            for i in range(h.size):
                                u = x - y[i]
                                g += h[i] * (u - p * _rint(u * inverse))
                        else:
                            for i in range(h.size):
                                g += h[i] * (x - y[i])
                        gradient[q, j] += 2.0 * g
                if order == 2:
                    d = 0.0
                    for f in range(nf):
                        c = chord[f, :size]
                        if form[f] >= 2:
                            _series(c, poly[f, 2], terms[f], form[f] == 3, h)
                            _times_others(h, base[:size], factor, form, f)
                        else:
                            if form[f] == 1:
                                _gauss_poly(c, cut[f], poly[f, 2], h, False)
                            else:
                                _cell_poly(c, which[f, :size], cell[f, 2], h, False)
                            for i in range(k.size):
                                h[i] = h[i] * k[i]
                        for i in range(k.size):
                            d += h[i]
                    laplacian[q] += d
                j0 += size
            total[q] += s


@jit
def kernel_rows(X, Y, start, period, kind, half, form, cut, poly, terms, pace, cell, out):
    """Evaluate the kernel of one pair after another, relative to its peak.

    Parameters
    ----------
    X, Y : float64 (m, n)
        Embedded points, one pair per column.
    start, ..., cell
        :attr:`rdks.radial.KernelTable.arrays`, without even parts of series.
    out : float64 (n,)
        k / k(0), written; beyond the cut of the gauss form its value there.
    """
    _wide_vectors()
    nf = kind.size
    chord = np.empty(TILE)
    value = np.empty(TILE)
    exponent = np.empty(TILE)
    other = np.empty(TILE)
    which = np.empty(TILE, dtype=np.int64)
    for j0 in range(0, out.size, TILE):
        size = min(TILE, out.size - j0)
        c, k, e, v = chord[:size], value[:size], exponent[:size], other[:size]
        o = out[j0:j0 + size]
        for i in range(size):
            o[i] = 1.0
        roots, exponents = False, False
        for f in range(nf):
            lo, hi = start[f], start[f + 1]
            for i in range(size):
                c[i] = 0.0
            for j in range(lo, hi):
                x, y = X[j, j0:j0 + size], Y[j, j0:j0 + size]
                p = period[j]
                inverse = 1.0 / p if p > 0.0 else 0.0
                for i in range(size):
                    u = x[i] - y[i]
                    u = u - p * _rint(u * inverse)
                    c[i] += u * u
            if kind[f] == 3:
                x, y = X[hi - 1, j0:j0 + size], Y[hi - 1, j0:j0 + size]
                for i in range(size):
                    c[i] = c[i] * (0.25 * half[f] * half[f] / x[i]) / y[i]
            if form[f] == 1:
                _gauss_poly(c, cut[f], poly[f, 0], k, roots)
                roots = True
            elif form[f] == 2:
                unit = 2.0 / cut[f]
                for i in range(size):
                    c[i] = 1.0 - c[i] * unit
                _series(c, poly[f, 0], terms[f], False, v)
                for i in range(size):
                    o[i] *= v[i]
            else:
                _find_cells(c, kind[f], half[f], pace[f], np.int64(half[f] * pace[f] + 0.5) - 1, which[:size])
                _cell_poly(c, which[:size], cell[f, 0], e, exponents)
                exponents = True
        if roots:
            for i in range(size):
                o[i] *= _root_power(k[i])
        if exponents:
            for i in range(size):
                o[i] *= _exp(e[i])


@strict
def _panel_value(a, x):
    """Evaluate a panel's polynomial."""
    p = a[15]
    for k in range(14, -1, -1):
        p = p * x + a[k]
    return p


@strict
def _panel_slope(a, x):
    """Differentiate a panel's polynomial."""
    p = 15 * a[15]
    for k in range(14, 0, -1):
        p = p * x + k * a[k]
    return p


@strict
def _tail_value(v, r, f, count, edge, mid, scale, panel, t):
    """Log kernel of a factor at distance r, v being the variable of the panels; and the panel and the place in it."""
    k = np.searchsorted(edge[f, :count[f]], v, side="right") - 1
    x = (v - mid[f, k]) * scale[f, k]
    return _panel_value(panel[f, 0, k], x) - r * r / (2 * t), k, x


@strict
def _tail_pair(x, Y, i, start, period, kind, half, count, edge, mid, scale, panel, t, least, order, pull, found):
    """Log kernel of a pair and its Laplacian, if it is not below `least`; `pull` receives the ambient gradient."""
    log_k = 0.0
    for f in range(kind.size):
        r, v = _tail_distance(x, Y, i, start[f], start[f + 1], period, kind[f], half[f])
        value, k, place = _tail_value(v, r, f, count, edge, mid, scale, panel, t)
        log_k += value
        found[f, 0], found[f, 1], found[f, 2] = r, k, place
    bend = 0.0
    if order == 0 or not log_k >= least:
        return log_k, bend
    for f in range(kind.size):
        r, k, place = found[f, 0], np.int64(found[f, 1]), found[f, 2]
        dim = start[f + 1] - start[f]
        last = start[f + 1] - 1
        for j in range(start[f], start[f + 1]):
            u = x[j] - Y[j, i]
            if period[j] > 0.0:
                u -= period[j] * np.rint(u / period[j])
            pull[j] = u
        if kind[f] == 0:
            slope = -0.5 / t
            bend -= dim / t
        elif kind[f] == 3:
            # the panels hold (d log k / dr) / r, and the gradient of r is -log_x(y) / r
            slope = _panel_value(panel[f, 1, k], place)
            change = _panel_slope(panel[f, 1, k], place) * scale[f, k]
            angle = 2 * r / half[f]
            bend += slope + r * change + (dim - 1) * slope * (angle / np.tanh(angle) if angle > 0 else 1.0)
            across = 0.0
            for j in range(start[f], last):
                pull[j] /= -x[last]
                across += pull[j] * pull[j]
            rise = pull[last] / -x[last]
            pull[last] = rise + 0.5 * (across + rise * rise)
            size = np.sqrt(across + pull[last] * pull[last])
            for j in range(start[f], start[f + 1]):
                pull[j] *= -slope * r / size if size > 0 else 0.0
            continue
        else:
            slope = _panel_value(panel[f, 1, k], place)
            change = _panel_slope(panel[f, 1, k], place) * scale[f, k]  # d slope / dv
            if kind[f] == 1:
                bend += 2 * (slope - r * change)
            else:
                angle = 2 * r / half[f]
                bend += (2 * (dim - 1) * np.cos(angle) * slope
                         - half[f] * np.sin(angle) * np.sin(0.5 * angle) * change)
        for j in range(start[f], start[f + 1]):
            pull[j] *= 2 * slope
    return log_k, bend


@strict
def _tail_distance(x, Y, i, lo, hi, period, kind, half):
    """Distance of a pair in a factor, accurate at the cut locus too, and the variable of the panels."""
    c = 0.0
    opposite = 0.0
    for j in range(lo, hi):
        u = x[j] - Y[j, i]
        if period[j] > 0.0:
            u -= period[j] * np.rint(u / period[j])
        c += u * u
        u = x[j] + Y[j, i]
        opposite += u * u
    r = np.sqrt(c)
    if kind == 3:
        r = half * np.arcsinh(0.5 * r / np.sqrt(x[hi - 1]) / np.sqrt(Y[hi - 1, i]))
        return r, r
    if kind == 1:
        return r, max(half - r, 0.0)
    if kind == 2:
        v = np.sqrt(opposite)
        return half * np.arctan2(r, v), min(v, half)
    return r, 0.0


@jit
def _leaf_chords(x, Y, place, n, period, kind, half, c):
    """Squared chords, over all columns, to the sources of a leaf; return the first of them and how many there are."""
    _wide_vectors()
    j0 = place * BOX
    size = min(BOX, n - j0)
    _chords(x, Y, j0, size, 0, x.size, period, kind, half, c[:size])
    return j0, size


@strict
def _one_kind(kind):
    """What kind of factor the sum of all squared chords is that of: the only one's, flat if all are; -1 if of none."""
    if kind.size == 1:
        return kind[0]
    for f in range(kind.size):
        if kind[f] > 1:
            return -1
    return 0


@strict
def _highest(kind, count, panel):
    """Largest log k + r^2/2t."""
    total = 0.0
    for f in range(kind.size):
        top = -np.inf
        for k in range(count[f]):
            for x in (-1.0, 0.0, 1.0):
                top = max(top, _panel_value(panel[f, 0, k], x))
        total += top
    return total


@strict
def _chord_limit(one, half, count, edge, mid, scale, panel, t, highest, gap):
    """Squared chord beyond which log k < highest - gap, or more; inf where there is no one chord."""
    if one < 0 or not gap < np.inf:
        return np.inf
    square = 2 * t * gap
    if one == 2:
        for _ in range(3):
            # log k + r^2/2t increases with r, so that it is less than at the limit found so far
            r = np.sqrt(max(square, 0.0))
            if r >= 0.5 * np.pi * half:
                return np.inf
            v = half * np.cos(r / half)
            square = 2 * t * (gap - highest + _tail_value(v, 0.0, 0, count, edge, mid, scale, panel, t)[0])
    r = np.sqrt(max(square, 0.0))
    if one == 2:
        r = half * np.sin(r / half)
    elif one == 3:
        r = half * np.sinh(r / half)
    return r * r * (1 + 1e-12)


@strict
def _tail_bounds(x, middle, extent, start, period, kind, half, count, edge, mid, scale, panel, t, one, highest, limit,
                 most):
    """Upper bounds of the log kernel in the boxes of a node's children; -inf where the chord is beyond a limit."""
    for b in range(FAN):
        most[b] = 0.0
        whole = 0.0
        for f in range(kind.size):
            c = 0.0
            for j in range(start[f], start[f + 1]):
                u = x[j] - middle[j, b]
                if period[j] > 0.0:
                    u -= period[j] * np.rint(u / period[j])
                u = max(abs(u) - extent[j, b], 0.0)
                c += u * u
            last = start[f + 1] - 1
            if kind[f] == 3:
                c *= 0.25 * half[f] * half[f] / x[last] / (middle[last, b] + extent[last, b])
            whole += c
            if one >= 0 and whole > limit:
                continue
            if one >= 0 and kind[f] != 3 and (one == 0 or c < 0.25 * half[f] * half[f]):
                most[b] = highest - 0.5 * whole / t  # the chord is not longer than the distance, and not much shorter
                continue
            # the kernel at the smallest distance
            r = np.sqrt(c)
            v = 0.0
            if kind[f] == 3:
                r = half[f] * np.arcsinh(r / half[f])
                v = r
            elif kind[f] == 1:
                r = min(r, half[f])
                v = half[f] - r
            elif kind[f] == 2:
                # from the chord, which is accurate near the query, and from that to the antipode, which is near there
                square = min(c * (1 - 1e-14), half[f] * half[f])
                r = half[f] * np.arcsin(min(np.sqrt(square) / half[f], 1.0))
                v = np.sqrt(half[f] * half[f] - square)
                opposite = 0.0
                for j in range(start[f], start[f + 1]):
                    u = abs(x[j] + middle[j, b]) + extent[j, b]
                    opposite += u * u
                other = np.sqrt(opposite) * (1 + 1e-14)
                if other < v:
                    v = other
                    r = half[f] * np.arccos(v / half[f])
            most[b] += _tail_value(v, r, f, count, edge, mid, scale, panel, t)[0]
        if whole > limit:
            most[b] = -np.inf


@strict
def tail_peaks(X, Y, log_w, skip, middle, extent, heaviest, first, start, period, kind, half, count, edge, mid, scale,
               panel, t, peak):
    """Find the log of the largest weighted kernel for each query, or of one at most a unit below it.

    Parameters as in :func:`tail_sums`, and

    peak : float64 (q,)
        Raised to that logarithm where it is less.
    """
    n = log_w.size
    stack, stage = np.empty((2, FAN * (first.size + 1)), dtype=np.int64)
    bound = np.empty(FAN * (first.size + 1))
    most = np.empty(FAN)
    chord = np.empty(BOX)
    found = np.empty((kind.size, 3))
    pull = np.empty(X.shape[1])
    one, highest = _one_kind(kind), _highest(kind, count, panel)
    above = highest + np.log(heaviest[first[-1] - 1].max())
    for q in range(X.shape[0]):
        limit = _chord_limit(one, half[0], count, edge, mid, scale, panel, t, highest, above - peak[q])
        stack[0], stage[0], bound[0] = 0, first.size - 1, np.inf
        size = 1
        while size > 0:
            size -= 1
            if not bound[size] > peak[q] + 1.0:
                continue
            place, level = stack[size], stage[size]
            if level == 0:
                i, size_here = _leaf_chords(X[q], Y, place, n, period, max(one, 0), half[0], chord)
                for c in chord[:size_here]:
                    if i != skip[q] and c <= limit:
                        log_k = log_w[i] + _tail_pair(X[q], Y, i, start, period, kind, half, count, edge, mid, scale,
                                                      panel, t, np.inf, 0, pull, found)[0]
                        if log_k > peak[q]:
                            peak[q] = log_k
                            limit = _chord_limit(one, half[0], count, edge, mid, scale, panel, t, highest,
                                                 above - peak[q])
                    i += 1
                continue
            node = first[level - 1] + place
            _tail_bounds(X[q], middle[node], extent[node], start, period, kind, half, count, edge, mid, scale, panel, t,
                         one, highest, limit, most)
            base = size
            for b in range(FAN):
                value = most[b] + np.log(heaviest[node, b])
                if (place * FAN + b) * BOX * FAN ** (level - 1) < n and value > peak[q] + 1.0:
                    # the most promising last, which is the first to be looked at
                    at = size
                    while at > base and bound[at - 1] > value:
                        stack[at], stage[at], bound[at] = stack[at - 1], stage[at - 1], bound[at - 1]
                        at -= 1
                    stack[at], stage[at], bound[at] = place * FAN + b, level - 1, value
                    size += 1


@strict
def tail_sums(X, Y, log_w, skip, middle, extent, load, heaviest, first, start, period, kind, half, count, edge, mid,
              scale, panel, t, least, order, log_total, gradient, laplacian):
    """Evaluate log kernel sums by log-sum-exp over the sources that matter.

    Distances are accurate at the cut locus too, and nothing underflows. Parameters as in
    :func:`kernel_sums`, with log weights and with :attr:`rdks.radial.TailTable.arrays`, and

    heaviest : float64 (N, FAN)
        Largest weight below each child of the nodes.
    t : float
        Time.
    least : float64 (q,)
        Boxes of sources, and sources, whose log weighted kernels are below that are left out.
    log_total, gradient, laplacian
        Overwritten: log sum_i w_i k_i, its ambient gradient, and its Laplacian in the form
        sum_i s_i Laplacian(log k_i) + variance of the gradients, s_i the shares of the sum, in which no
        large numbers cancel.
    """
    n = log_w.size
    m = X.shape[1]
    stack, stage = np.empty((2, FAN * (first.size + 1)), dtype=np.int64)
    most = np.empty(FAN)
    chord = np.empty(BOX)
    found = np.empty((kind.size, 3))
    one, highest = _one_kind(kind), _highest(kind, count, panel)
    above = highest + np.log(heaviest[first[-1] - 1].max())
    pull = np.empty(m)     # ambient gradient of log k_i
    base = np.empty(m)     # of the first source that counts: gradients are taken relative to it
    mean = np.empty(m)     # sum of weights times (gradient - base)
    for q in range(X.shape[0]):
        limit = _chord_limit(one, half[0], count, edge, mid, scale, panel, t, highest, above - least[q])
        # a box as a whole may weigh as much as all sources together
        box_limit = _chord_limit(one, half[0], count, edge, mid, scale, panel, t, highest,
                                 above + np.log(n) - least[q])
        top = -np.inf
        total = 0.0
        bend = 0.0    # sum of weights times Laplacians of log k_i
        spread = 0.0  # sum of weights times |tangent part of (gradient - base)|^2
        mean[:] = 0.0
        stack[0], stage[0] = 0, first.size - 1
        size = 1
        while size > 0:
            size -= 1
            place, level = stack[size], stage[size]
            if level > 0:
                node = first[level - 1] + place
                _tail_bounds(X[q], middle[node], extent[node], start, period, kind, half, count, edge, mid, scale,
                             panel, t, one, highest, box_limit, most)
                for b in range(FAN - 1, -1, -1):
                    value = most[b] + np.log(load[node, b])
                    if (place * FAN + b) * BOX * FAN ** (level - 1) < n and value >= least[q]:
                        stack[size], stage[size] = place * FAN + b, level - 1
                        size += 1
                continue
            i, size_here = _leaf_chords(X[q], Y, place, n, period, max(one, 0), half[0], chord)
            i -= 1
            for c in chord[:size_here]:
                i += 1
                if i == skip[q] or not c <= limit:
                    continue
                log_k, bend_i = _tail_pair(X[q], Y, i, start, period, kind, half, count, edge, mid, scale, panel, t,
                                           least[q] - log_w[i], order, pull, found)
                log_k += log_w[i]
                if log_k == -np.inf or not log_k >= least[q]:
                    continue
                if total == 0.0:
                    base[:] = pull
                if log_k > top:
                    shrink = np.exp(top - log_k)
                    total *= shrink
                    bend *= shrink
                    spread *= shrink
                    mean *= shrink
                    top = log_k
                weight = np.exp(log_k - top)
                total += weight
                if order > 0:
                    bend += weight * bend_i
                    for j in range(m):
                        pull[j] -= base[j]
                        mean[j] += weight * pull[j]
                    spread += weight * _tangent_square(X[q], pull, start, kind, half)
        if total == 0.0:
            log_total[q] = -np.inf
            continue
        log_total[q] = top + np.log(total)
        if order > 0:
            for j in range(m):
                mean[j] /= total
                gradient[q, j] = base[j] + mean[j]
            laplacian[q] = (bend + spread) / total - _tangent_square(X[q], mean, start, kind, half)


@strict
def _tangent_square(x, V, start, kind, half):
    """Square the length of the tangent part of an ambient vector at an embedded point."""
    s = 0.0
    for f in range(kind.size):
        along = 0.0
        if kind[f] == 2:
            for j in range(start[f], start[f + 1]):
                along += x[j] * V[j]
            along /= (0.5 * half[f]) ** 2
        for j in range(start[f], start[f + 1]):
            u = V[j] - along * x[j]
            s += u * u
    return s


# Associated Legendre functions, for rdks.harmonics.sphere2.
#
# For one order m, P_l^m at l = m + 1 + 2k is x r_k(x^2), and at l = m + 2k it is eps_{l+1} r_k + eps_l r_{k-1}, with
# eps_l = sqrt((l^2 - m^2) / (4 l^2 - 1)). So one recurrence in steps of two levels serves both parities
# (K. Ishioka, J. Meteorol. Soc. Japan 96 (2018) 241). Scaled, q_k = r_k / s_k, it reads
# q_{k+1} = (shift_k + slope_k v) q_k - q_{k-1}: two fused multiply-adds.
#
# v is x^2 near the equator and -sin^2 near the poles: each is accurate where it is small, and there the functions are
# sensitive to it.

_STEPS = 8       # terms of the recurrence that are made, then used, together
_RINGS = 256     # rings that stay in the first-level cache
_BIG = 2.0**256  # a ring on which sin^m underflows carries whole powers of this


@strict
def _recurrence(m, degree, norm, slope, shift, turn, scale, up, down):
    """Fill the recurrence of one order; return its number of terms, padded to a multiple of _STEPS.

    The term k of q needs entry k of `slope`, `shift` (v = x^2) or `turn` (v = -sin^2). Entry k of the others makes
    coefficients of q from those of the levels l = m + 2k, l + 1 and l + 2: up a_l + down a_{l+2}, and scale a_{l+1}.
    """
    count = (degree - m) // 2 + 1
    padded = (count + _STEPS - 1) // _STEPS * _STEPS
    mm = m * m
    slope[0] = shift[0] = turn[0] = 0.0
    before, now = 0.0, norm * np.sqrt(2 * m + 3.0)
    e0, e1 = 0.0, 1.0 / (2 * m + 3.0)  # squares of eps at l and l + 1
    for k in range(padded):
        if k >= count:
            scale[k] = up[k] = down[k] = 0.0
            if k + 1 < padded:
                slope[k + 1] = shift[k + 1] = turn[k + 1] = 0.0
            continue
        level = m + 2 * k + 2
        e2 = (level * level - mm) / (4.0 * level * level - 1.0)
        level += 1
        e3 = (level * level - mm) / (4.0 * level * level - 1.0)
        scale[k], up[k], down[k] = now, now * np.sqrt(e1), now * np.sqrt(e2)
        after = now if k == 0 else before * np.sqrt(e0 * e1 / (e2 * e3))
        if k + 1 < padded:
            slope[k + 1] = now / (after * np.sqrt(e2 * e3))
            shift[k + 1] = -slope[k + 1] * (e1 + e2)
            turn[k + 1] = slope[k + 1] * (1.0 - e1 - e2)
        before, now = now, after
        e0, e1 = e2, e3
    return padded


@jit
def _terms(k0, slope, shift, v, T):
    """Fill rows 2, 3, ... of T with the terms k0, k0 + 1, ...; rows 0 and 1 hold the two terms before."""
    for c in range(_STEPS):
        a, b = slope[k0 + c], shift[k0 + c]
        before, now, after = T[c, :v.size], T[c + 1, :v.size], T[c + 2, :v.size]
        for i in range(v.size):
            after[i] = (b + a * v[i]) * now[i] - before[i]


@strict
def _advance(scaled, first, T):
    """Move the last two terms to the front, rescaled; return the first ring from which on none is scaled."""
    for c in range(2):
        old, new = T[_STEPS + c], T[c]
        for i in range(scaled.size):
            new[i] = old[i]
    still = 0
    for i in range(first):
        if scaled[i] > 0.0 and abs(T[0, i]) + abs(T[1, i]) > 1.0:
            T[0, i] *= 1.0 / _BIG
            T[1, i] *= 1.0 / _BIG
            scaled[i] -= 1.0
        if scaled[i] > 0.0:
            still = i + 1
    return still


@jit
def _accumulate(coef, k0, T, a, b, value, place):
    """Add the terms k0, ... times coefficients (outputs, terms) to values (outputs, rings), on a block's rings a:b."""
    t0, t1, t2, t3 = T[2, a:b], T[3, a:b], T[4, a:b], T[5, a:b]
    t4, t5, t6, t7 = T[6, a:b], T[7, a:b], T[8, a:b], T[9, a:b]
    for o in range(coef.shape[0]):
        c = coef[o, k0:k0 + _STEPS]
        c0, c1, c2, c3, c4, c5, c6, c7 = c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]
        s = value[o, place + a:place + b]
        for i in range(s.size):
            s[i] += (c0 * t0[i] + c1 * t1[i] + c2 * t2[i] + c3 * t3[i]
                     + (c4 * t4[i] + c5 * t5[i] + c6 * t6[i] + c7 * t7[i]))


@jit
def _project(coef, k0, T, a, b, value, place):
    """Add sums over a block's rings a:b of the terms k0, ... times values (outputs, rings) to coefficients."""
    for o in range(0, coef.shape[0], 2):
        u, w = value[o, place + a:place + b], value[o + 1, place + a:place + b]
        for c in range(0, _STEPS, 4):
            t0, t1, t2, t3 = T[c + 2, a:b], T[c + 3, a:b], T[c + 4, a:b], T[c + 5, a:b]
            u0 = u1 = u2 = u3 = w0 = w1 = w2 = w3 = 0.0
            for i in range(u.size):
                u0 += u[i] * t0[i]
                u1 += u[i] * t1[i]
                u2 += u[i] * t2[i]
                u3 += u[i] * t3[i]
                w0 += w[i] * t0[i]
                w1 += w[i] * t1[i]
                w2 += w[i] * t2[i]
                w3 += w[i] * t3[i]
            p, q = coef[o, k0 + c:k0 + c + 4], coef[o + 1, k0 + c:k0 + c + 4]
            p[0] += u0
            p[1] += u1
            p[2] += u2
            p[3] += u3
            q[0] += w0
            q[1] += w1
            q[2] += w2
            q[3] += w3


@strict
def _times_sine(sin, times, power, scaled):
    """Multiply powers of the sine by more of it; they are numbers times whole powers of 1 / _BIG."""
    for _ in range(times):
        for i in range(sin.size):
            power[i] *= sin[i]
            if 0.0 < power[i] < 1.0 / _BIG:
                power[i] *= _BIG
                scaled[i] += 1.0


@strict
def _north(m, degree, count, polar, sin, v, power, scaled, slope, shift, turn, transpose, coef, value):
    """Sum over terms (`transpose` False: coef -> value) or over rings (True: value -> coef) on the northern rings."""
    T, level = np.empty((_STEPS + 2, _RINGS)), np.empty(_RINGS)
    start = 0
    # on rings nearer to the pole all functions of this order are below 1e-20
    while start < sin.size and sin[start] * degree < m - max(100.0, 0.01 * degree):
        start += 1
    while start < sin.size:
        stop = min(start + _RINGS, sin.size)
        base = shift
        if start < polar:
            stop, base = min(stop, polar), turn
        size = stop - start
        here = level[:size]
        first = 0
        for i in range(size):
            here[i] = scaled[start + i]
            T[0, i], T[1, i] = -power[start + i], 0.0
            if here[i] > 0.0:
                first = i + 1
        for k0 in range(0, count, _STEPS):
            _terms(k0, slope, base, v[start:stop], T)
            if transpose:
                _project(coef, k0, T, first, size, value, start)
            else:
                _accumulate(coef, k0, T, first, size, value, start)
            first = _advance(here, first, T)
        start = stop


@strict
def _index(level, m, even):
    """Return where the coefficient of a level and an order is."""
    return level // 2 * (level // 2) + m if even else level * (level + 1) // 2 + m


@strict
def _take_levels(a, m, odd, degree, even, scale, up, down, count, out):
    """Turn coefficients of the levels m + odd, m + odd + 2, ... into those of the terms."""
    for k in range(count):
        level = m + 2 * k + odd
        x = a[_index(level, m, even)] if level <= degree else 0.0
        if odd:
            out[k] = scale[k] * x
        else:
            out[k] = up[k] * x + (down[k] * a[_index(level + 2, m, even)] if level + 2 <= degree else 0.0)


@strict
def _put_levels(terms, m, odd, degree, even, scale, up, down, a):
    """Turn sums of the terms into those of the functions of the levels m + odd, m + odd + 2, ..."""
    for k in range((degree - m - odd) // 2 + 1):
        if odd:
            x = scale[k] * terms[k]
        else:
            x = up[k] * terms[k] + (down[k - 1] * terms[k - 1] if k > 0 else 0.0)
        a[_index(m + 2 * k + odd, m, even)] = x


@strict
def _take_rings(g, odd, even, cos, out):
    """Add or subtract the two hemispheres; the terms of odd l - m want another factor, the cosine."""
    last = g.size - 1
    for i in range(cos.size):
        x = g[i] if even else (g[i] - g[last - i] if odd else g[i] + g[last - i])
        out[i] = x * cos[i] if odd else x


@strict
def _put_rings(north, odd, even, cos, g):
    """Put values of even l - m on both hemispheres, then add those of odd l - m."""
    last = g.size - 1
    for i in range(cos.size):
        x = north[i] * cos[i] if odd else north[i]
        if even:
            g[i] = x
        elif odd:
            y = g[i]
            g[i], g[last - i] = y + x, y - x
        else:
            g[i] = g[last - i] = x


@strict
def legendre(first, step, degree, even, norm, polar, sin, cos, v, transpose, coef, rings):
    r"""Sum over levels, :math:`g_{mj}=\sum_la_{lm}\bar P_l^m(\cos\theta_j)`, or over rings, the transpose of that.

    Parameters
    ----------
    first, step : int
        The orders first, first + step, ... are served.
    degree : int
    even : bool
        Whether only even levels are there; rings are northern then.
    norm : ndarray, shape (degree + 1,)
        Factor of :math:`\sin^m\theta` in :math:`\bar P_m^m`.
    polar : int
        The number of rings with v = -sin^2, the first ones; the others have v = cos^2.
    sin, cos, v : ndarray, shape (r,)
        Northern rings, from the pole to the equator.
    transpose : bool
        Whether `coef` is overwritten from `rings`, :math:`a_{lm}=\sum_j\bar P_l^m(\cos\theta_j)g_{mj}`, or `rings`
        from `coef`.
    coef : ndarray, shape (b, c, 2)
        Coefficients of b functions, real and imaginary part: (l, m) at l (l + 1) / 2 + m, or at (l / 2)^2 + m if even.
    rings : ndarray, shape (degree + 1, j, b, 2)
        Values at each order and ring. Ring j - 1 - i is the mirror image of ring i.
    """
    b, r = coef.shape[0], sin.size
    terms = degree // 2 + 1 + _STEPS
    slope, shift, turn = np.empty(terms), np.empty(terms), np.empty(terms)
    scale, up, down = np.empty(terms), np.empty(terms), np.empty(terms)
    outputs = 2 * b if even else 4 * b
    packed, value = np.empty((outputs, terms)), np.empty((outputs, r))
    power, scaled = np.ones(r), np.zeros(r)
    _times_sine(sin, first, power, scaled)
    for m in range(first, degree + 1, step):
        if m > first:
            _times_sine(sin, step, power, scaled)
        count = _recurrence(m, degree, norm[m], slope, shift, turn, scale, up, down)
        for o in range(outputs):
            # functions, real and imaginary part, l - m even and odd
            f, c, odd = (o // 2, o % 2, m % 2) if even else (o // 4, o // 2 % 2, o % 2)
            if transpose:
                _take_rings(rings[m, :, f, c], odd, even, cos, value[o])
            else:
                _take_levels(coef[f, :, c], m, odd, degree, even, scale, up, down, count, packed[o])
        (packed if transpose else value)[:] = 0.0
        _north(m, degree, count, polar, sin, v, power, scaled, slope, shift, turn, transpose, packed, value)
        for o in range(outputs):
            f, c, odd = (o // 2, o % 2, m % 2) if even else (o // 4, o // 2 % 2, o % 2)
            if transpose:
                _put_levels(packed[o], m, odd, degree, even, scale, up, down, coef[f, :, c])
            else:
                _put_rings(value[o], odd, even, cos, rings[m, :, f, c])


# Values of functions at points from those on a fine grid of the torus, and the transpose: the part of a non-uniform
# FFT that knows the points. A point is served by the `count` grid lines around it in both directions; its weight on
# a line is a polynomial of its place between lines. Rows are periodic. Unsigned indices are taken as they are,
# without a test for negative ones, which would defeat vectorisation.

_POINTS = 64     # points whose weights are made together
_LINES = 16      # lines at most; spreading passes over so many columns


@strict
def sort_cells(row, column, rows, columns, order, near_row, near_column):
    """Put points in the same cell of 4 x 16 grid lines together, by rows: fill their indices and places."""
    across = columns // 16 + 1
    start = np.zeros((rows // 4 + 1) * across + 1, dtype=np.int64)
    cell = np.empty(row.size, dtype=np.int32)
    for i in range(row.size):
        k = int(row[i]) // 4 * across + int(column[i]) // 16
        cell[i] = k
        start[k + 1] += 1
    for k in range(start.size - 1):
        start[k + 1] += start[k]
    for i in range(row.size):
        k = start[cell[i]]
        start[cell[i]] = k + 1
        order[k], near_row[k], near_column[k] = i, row[i], column[i]


@intrinsic
def _add_eights(typingctx, a, start, weight, count, i, out):
    """Set out[i:i + 8] to the sum of weight[r] a[start[r] + i:start[r] + i + 8] over r < count, as one vector.

    LLVM leaves loops of this size to scalars.
    """
    def codegen(context, builder, signature, args):
        vector, index = ir.VectorType(ir.DoubleType(), 8), ir.IntType(32)

        def at(array, place):
            data = context.make_array(signature.args[array])(context, builder, args[array]).data
            return builder.gep(data, [place])

        def eight(pointer):
            return builder.bitcast(pointer, vector.as_pointer())

        total = cgutils.alloca_once_value(builder, ir.Constant(vector, [0.0] * 8))
        with cgutils.for_range(builder, args[3]) as loop:
            empty = ir.Constant(vector, ir.Undefined)
            first = builder.insert_element(empty, builder.load(at(2, loop.index)), ir.Constant(index, 0))
            factor = builder.shuffle_vector(first, empty, ir.Constant(ir.VectorType(index, 8), [0] * 8))
            place = builder.add(builder.load(at(1, loop.index)), args[4])
            product = builder.fmul(factor, builder.load(eight(at(0, place)), align=8), flags=("contract",))
            builder.store(builder.fadd(builder.load(total), product, flags=("contract",)), total)
        builder.store(builder.load(total), eight(at(5, args[4])), align=8)
        return context.get_dummy_value()
    return types.void(a, start, weight, count, i, out), codegen


@jit
def _lines(place, count, table, first, between, weight):
    """Fill the first line of each point and the weights (lines, points) of its lines."""
    _wide_vectors()
    y = between[:place.size]
    for i in range(y.size):
        x = place[i]
        low = np.ceil(x - 0.5 * count)
        first[i] = int(low)
        y[i] = 2.0 * (low - x + 0.5 * count) - 1.0
    for j in range(count):
        c = table[j]
        c0, c1, c2, c3, c4, c5, c6, c7 = c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]
        c8, c9, c10, c11, c12, c13, c14, c15 = c[8], c[9], c[10], c[11], c[12], c[13], c[14], c[15]
        out = weight[j, :y.size]
        for i in range(y.size):
            x = y[i]
            p = c15 * x + c14
            p = p * x + c13
            p = p * x + c12
            p = p * x + c11
            p = p * x + c10
            p = p * x + c9
            p = p * x + c8
            p = p * x + c7
            p = p * x + c6
            p = p * x + c5
            p = p * x + c4
            p = p * x + c3
            p = p * x + c2
            p = p * x + c1
            out[i] = p * x + c0


@jit
def grid_values(order, row, column, count, table, grid, out):
    """Evaluate b functions at points from their values on a grid.

    Parameters
    ----------
    order : ndarray of int, shape (n,)
        Where the values of each point go.
    row, column : ndarray, shape (n,)
        Places of points in units of lines: rows in [0, rows], columns in [count / 2, columns - count / 2 - 1].
        It is fast where close points are close in memory.
    count : int
        Number of lines, even, at most 16.
    table : ndarray, shape (16, 16)
        Polynomial (degree 15, in the place between lines from -1 to 1) of each line.
    grid : ndarray, shape (rows, columns, b)
    out : ndarray, shape (n, b)
        Overwritten.
    """
    _wide_vectors()
    across, along = np.empty((_LINES, _POINTS)), np.empty((_LINES, _POINTS))
    i0, j0, y = np.empty(_POINTS, dtype=np.int64), np.empty(_POINTS, dtype=np.int64), np.empty(_POINTS)
    flat, b, lines = grid.reshape(-1), np.uint64(out.shape[1]), np.uint64(count)
    stride = np.uint64(grid.shape[1]) * b
    t = np.empty((count * out.shape[1] + 7) // 8 * 8)
    start, weight = np.empty(_LINES, dtype=np.int64), np.empty(_LINES)
    for q0 in range(0, row.size, _POINTS):
        _lines(row[q0:q0 + _POINTS], count, table, i0, y, across)
        _lines(column[q0:q0 + _POINTS], count, table, j0, y, along)
        for q in range(min(_POINTS, row.size - q0)):
            place = np.uint64(j0[q]) * b
            line = i0[q] % grid.shape[0]
            for r in range(count):
                start[r] = np.uint64(line) * stride + place
                weight[r] = across[r, q]
                line = line + 1 if line + 1 < grid.shape[0] else 0
            for i in range(0, t.size, 8):
                _add_eights(flat, start, weight, count, i, t)
            values = out[order[q0 + q]]
            if b == 4:
                a0 = a1 = a2 = a3 = 0.0
                for c in range(lines):
                    w, s = along[c, q], np.uint64(4) * c
                    a0 += w * t[s]
                    a1 += w * t[s + np.uint64(1)]
                    a2 += w * t[s + np.uint64(2)]
                    a3 += w * t[s + np.uint64(3)]
                values[0], values[1], values[2], values[3] = a0, a1, a2, a3
            else:
                for f in range(b):
                    a0 = 0.0
                    for c in range(lines):
                        a0 += along[c, q] * t[c * b + f]
                    values[f] = a0


@jit
def grid_sums(row, column, weight, count, table, start, grid):
    """Add weighted points to the lines around them: the transpose of :func:`grid_values`, for one function.

    Parameters as there, but for

    weight : ndarray, shape (n,)
    start : int
        The row that is the first one of `grid`; no row is periodic.
    grid : ndarray, shape (rows, columns + 16)
        To this is added.
    """
    _wide_vectors()
    across, along = np.zeros((_LINES, _POINTS)), np.zeros((_LINES, _POINTS))
    i0, j0, y = np.empty(_POINTS, dtype=np.int64), np.empty(_POINTS, dtype=np.int64), np.empty(_POINTS)
    flat, stride = grid.reshape(-1), np.uint64(grid.shape[1])
    t = np.empty(_LINES)
    for q0 in range(0, row.size, _POINTS):
        _lines(row[q0:q0 + _POINTS], count, table, i0, y, across)
        _lines(column[q0:q0 + _POINTS], count, table, j0, y, along)
        for q in range(min(_POINTS, row.size - q0)):
            p = np.uint64(i0[q] - start) * stride + np.uint64(j0[q])
            scale = weight[q0 + q]
            for i in range(_LINES):
                t[i] = along[i, q] * scale
            for r in range(count):
                w = across[r, q]
                for i in range(np.uint64(_LINES)):
                    flat[p + i] += w * t[i]
                p += stride
