r"""Score matching with little noise: exact targets, averaged targets, and losses with control variates.

A network s that is to become the score of the noised data is trained on pairs of a datum :math:`X_0` and a point
:math:`X_t` to which heat has carried it. The regression target is :math:`v=\nabla_x\log k_t(X_0,x)` at :math:`X_t`;
its mean given :math:`X_t` is the score, but its variance is about d/t, and that noise is what most of the training
time is spent on. Three things take it away without moving the minimiser (theory section 7):

* the **target of a batch**: the mean of v given :math:`X_t` *and* the batch that :math:`X_0` came from is the score of
  kernel smoothing of that batch, :func:`rao_blackwell_score`;
* **Stein's identity**: for every smooth field F that does not know :math:`X_t`,

  .. math:: E\bigl[\langle F(X_t),v\rangle+\operatorname{div}F(X_t)\,\big|\,X_0\bigr]=0 ,

  so that any multiple of it may be added to a loss: :func:`stein_loss`, :func:`best_mixing`;
* a **baseline** r that is already near the score, so that the network learns a remainder, with the network at the
  clean point as control variate: :func:`residual_loss`, :func:`carried_control`.

The first half of this module makes data, in numpy. The second half is arithmetic on what a training loop has: it uses
operators, slices and ``.sum(-1)`` only, so arrays of numpy and tensors of torch both serve, gradients included.
"""
from __future__ import annotations

import numpy as np

from .engines import DirectSum
from .errors import UnsupportedError
from .heat import log_sphere_area
from .sampling import heat_sample

__all__ = ["best_coefficient", "best_mixing", "carried_control", "denoising_loss", "heat_score", "implicit_loss",
           "noise_levels", "noisy_pairs", "rao_blackwell_score", "residual_loss", "stein_loss", "variance_factor"]

# Nodes of the contour integral, and how far its integrand is followed; see rdks.heat. The slope takes four more.
_NODES, _REACH = 36, 36.0
# Levels of the series, which serves where the first of them has decayed below _DECAYED: 17 digits in every dimension.
_LEVELS, _DECAYED = 16, 0.25
# Pairs of a kernel of pairs that are computed for each that is wanted: a few, as numpy's cost per call counts.
_SQUARE = 8
# Pairs that are held at a time.
_PAIRS = 20_000


# data

def noise_levels(t_min, t_max, n_levels=64):
    r"""Return times in geometric progression, for a training loop to draw from.

    Parameters
    ----------
    t_min, t_max : float
        First and last time, 0 < t_min < t_max.
    n_levels : int
        At least 2.

    Returns
    -------
    ndarray, shape (n_levels,)

    Notes
    -----
    Log-uniform times with the weight t in the loss give every noise level the same say, because :math:`E|v|^2` is about
    d/t. On spheres and hyperbolic spaces an exact draw needs a table for each different time (30 ms, kept for 256
    times), so levels that repeat make training fast there; the network may be given any time afterwards. 64 levels
    between 1e-3 and 10 are 16 per cent apart.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.variance import noise_levels
    >>> noise_levels(0.01, 1.0, 5).round(4)
    array([0.01  , 0.0316, 0.1   , 0.3162, 1.    ])
    >>> t = np.random.default_rng(0).choice(noise_levels(0.01, 1.0), size=512)  # for a batch
    """
    if not 0 < t_min < t_max < np.inf:
        raise ValueError(f"t_min = {t_min!r}, t_max = {t_max!r}: expected 0 < t_min < t_max, both finite")
    if n_levels != int(n_levels) or n_levels < 2:
        raise ValueError(f"n_levels = {n_levels!r}: expected an integer >= 2")
    return np.geomspace(t_min, t_max, int(n_levels))


def heat_score(manifold, Z0, Zt, t):
    r"""Evaluate the target of denoising, the score of the heat kernel from one point at another.

    Parameters
    ----------
    manifold : Manifold
        One whose heat kernel is exact: products of space forms, their quotients, processes with a drift, and spaces
        whose kernel is known pair by pair.
    Z0, Zt : ndarray, shape (n, embed_dim)
        Sources and queries, row by row, in embedded coordinates.
    t : float or ndarray, shape (n,)
        Times, positive.

    Returns
    -------
    ndarray, shape (n, embed_dim)
        :math:`v_i=\nabla_x\log k_{t_i}(Z_{0,i},x)` at :math:`x=Z_{t,i}`, embedded tangent vectors.

    Raises
    ------
    UnsupportedError
        Where the kernel is an approximation, or known by eigenfunctions between nodes: v would not be the score of
        the law that :func:`rdks.sampling.heat_sample` draws from, and training on it would be biased.
    ValueError
        For a time that is not positive and finite, or arrays that do not fit.

    Notes
    -----
    On a sphere of radius 1 with :math:`u=\cos r`,

    .. math:: \partial_u\log k_t=2b\,
              \frac{\int e^{-s^2/2t}\sin s\,(2\cos s-2u)^{-b-1}ds}{\int e^{-s^2/2t}\sin s\,(2\cos s-2u)^{-b}ds},
              \qquad b=\tfrac{d+1}2,

    both integrals over the nodes of one contour, that of :mod:`rdks.heat`, which may have another time in every row:
    right to 1e-12 of the slope at every angle and time (a few digits less at the antipode, as there), in 15
    microseconds a row. Circles are the case d = 1. Hyperbolic factors and kernels of pairs are computed time by time:
    a tenth of a second for 512 different times, a tenth of that for 64 levels. On a quotient the scores from all
    images of the source are averaged with weights proportional to their kernels. A drift moves the source first: for
    an Ornstein-Uhlenbeck process :math:`v=(e^{-t/2}x_0-x)/(1-e^{-t})`, the score of the density per unit of Lebesgue
    volume.

    References
    ----------
    Denoising score matching: Vincent, Neural Computation 23 (2011). With exact heat kernels on manifolds instead of
    their short-time limit :math:`\log_x(x_0)/t`, in part: De Bortoli et al., Riemannian score-based generative
    modelling, NeurIPS 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.manifolds import Euclidean
    >>> from rdks.variance import heat_score
    >>> heat_score(Euclidean(1), np.array([[0.0], [0.0]]), np.array([[1.0], [1.0]]), np.array([1.0, 0.5]))
    array([[-1.],
           [-2.]])
    """
    _check_exact(manifold)
    Z0, Zt, t = _rows(manifold, Z0, Zt, t)
    if manifold.kernel == "pairs":
        return _score_of_pairs(manifold, Z0, Zt, t)
    if manifold.has_drift:
        Z0, t = manifold.flow(Z0, t)
    images = manifold.images(Z0)
    logs, slopes = np.zeros(images.shape[:2]), []
    for f, s in manifold.pieces():
        log_k, slope = _log_slope(f, images[..., s], Zt[:, s], t)
        logs += log_k
        slopes.append(slope)
    v = np.concatenate(slopes, axis=-1)
    if len(images) == 1:
        return v[0]
    share = np.exp(logs - logs.max(axis=0))
    return np.einsum("gn,gnj->nj", share / share.sum(axis=0), v)


def noisy_pairs(manifold, Z, t, rng):
    r"""Let heat carry each point, and return where it came and the target of denoising there.

    Parameters
    ----------
    manifold : Manifold
        As for :func:`heat_score`.
    Z : ndarray, shape (n, embed_dim)
        Clean points in embedded coordinates, each as often as it is wanted.
    t : float or ndarray, shape (n,)
        Times; see :func:`noise_levels`.
    rng : numpy.random.Generator

    Returns
    -------
    Zt : ndarray, shape (n, embed_dim)
        Exact draws of the heat kernel, each written as `manifold.project` writes a point: angles within one period,
        one of the copies of a point of a quotient.
    v : ndarray, shape (n, embed_dim)
        :func:`heat_score`.

    Examples
    --------
    The mean of :math:`\langle x,x_0\rangle v` is minus that of the divergence (here the field is the gradient of
    :math:`\langle x,x_0\rangle`, whose Laplacian is -2 times itself):

    >>> import numpy as np
    >>> from rdks.manifolds import Sphere
    >>> from rdks.variance import noisy_pairs
    >>> north = np.tile([0.0, 0.0, 1.0], (20000, 1))
    >>> Zt, v = noisy_pairs(Sphere(2), north, 0.5, np.random.default_rng(0))
    >>> bool(abs((v[:, 2] - 2 * Zt[:, 2]).mean()) < 0.02)
    True
    """
    _check_exact(manifold)
    Z, _, t = _rows(manifold, Z, Z, t)
    Zt = manifold.project(heat_sample(manifold, Z, t, rng))
    return Zt, heat_score(manifold, Z, Zt, t)


def rao_blackwell_score(manifold, Zt, batch, t, share=None, own=None):
    r"""Average the target of denoising over the points of a batch that a noised point may have come from.

    Parameters
    ----------
    manifold : Manifold
        As for :func:`heat_score`.
    Zt : ndarray, shape (q, embed_dim)
        Noised points, each from a point of the batch.
    batch : ndarray, shape (m, embed_dim)
    t : float or ndarray, shape (q,)
        Times of the noised points.
    share : ndarray, shape (m,), optional
        Probabilities, or numbers proportional to them, with which a noised point was started from each point of the
        batch; all equal by default.
    own : ndarray of int, shape (q,), optional
        The point of the batch that each noised point came from, which is then left out. **Biased**: the target no
        longer averages to the score of the noised data; it leans towards what the *other* points say, as the
        leave-one-out likelihood does, and away from repeating the data.

    Returns
    -------
    ndarray, shape (q, embed_dim)
        :math:`E[v\mid X_t,B]=\sum_{j\in B}W_j\nabla\log k_t(X_j,X_t)`, with :math:`W_j` proportional to
        :math:`\text{share}_jk_t(X_j,X_t)`: the score of kernel smoothing of the batch.

    Raises
    ------
    UnsupportedError
        As :func:`heat_score`.
    ValueError
        If nothing is left when a point's own origin is left out.

    Notes
    -----
    The mean over batches is still the score, because a conditional mean has the mean of what it averages; the
    variance never grows (Rao-Blackwell). On a circle at t = 0.2, for data of two opposite von Mises laws of
    concentration 5, the mean squared error of the target falls from 3.31 to 0.27 with 32 points. The batch must have
    been drawn independently of the noise, and :math:`X_0` from it. With all data for a batch there is no noise left,
    and the minimiser is the kernel smoother of the data at time t, which repeats them as t goes to 0: then stop at a
    time of the order of the squared bandwidth.

    References
    ----------
    Stable Target Field: Xu, Tong and Jaakkola, ICLR 2023, arXiv:2302.00670, who treat the weights as importance
    sampling of all data, biased by a part in the size of the batch. With :math:`X_0` from the batch the weights are the
    probabilities of its points given what is known, and there is no bias (theory section 7).

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.manifolds import Euclidean
    >>> from rdks.variance import rao_blackwell_score
    >>> batch = np.array([[-1.0], [1.0]])
    >>> rao_blackwell_score(Euclidean(1), np.array([[0.0], [50.0]]), batch, 1.0)
    array([[  0.],
           [-49.]])
    """
    _check_exact(manifold)
    batch = np.asarray(batch, dtype=float)
    Zt, _, t = _rows(manifold, Zt, Zt, t)
    share = np.ones(len(batch)) if share is None else np.asarray(share, dtype=float)
    if share.shape != (len(batch),) or not (np.isfinite(share) & (share >= 0)).all() or not share.any():
        raise ValueError(f"share: expected {len(batch)} finite numbers >= 0, not all of them 0, one per row of the "
                         "batch")
    if own is not None:
        own = np.asarray(own)
        if own.shape != (len(Zt),) or own.dtype.kind not in "iu" or (len(own) and not
                                                                   0 <= own.min() <= own.max() < len(batch)):
            raise ValueError(f"own: expected {len(Zt)} rows of the batch, integers from 0 to {len(batch) - 1}")
        alone = np.flatnonzero(np.count_nonzero(share) - (share[own] > 0) < 1)
        if alone.size:
            raise ValueError(f"own: without its origin nothing of the batch is left for row {alone[0]}; expected at "
                             "least two points of positive share")
    if manifold.kernel == "factors":
        total = DirectSum(manifold, batch, share, 0.0)

        def mean(Q, time, skip):
            return total._evaluate(np.ascontiguousarray(Q), time, 1, skip, None).gradient
    else:
        def mean(Q, time, skip):
            return _mean_of_pairs(manifold, Q, batch, share, time, skip)

    out = np.empty_like(Zt)
    for time in np.unique(t):
        rows = np.flatnonzero(t == time)
        out[rows] = mean(Zt[rows], float(time), None if own is None else own[rows])
    return out


def _check_exact(manifold):
    if manifold.kernel == "basis":
        raise UnsupportedError(f"{manifold!r} is known by the heat flow between its nodes: the score of its kernel is "
                               "an interpolation, not the score of the law that draws come from. Use a manifold with "
                               "a heat kernel in closed form")
    if manifold.exactness != "exact":
        raise UnsupportedError(f"the heat kernel of {manifold!r} is a small-time approximation, whose score is not "
                               "that of the law that draws come from, so that denoising targets would be biased. Use "
                               "a manifold whose heat kernel is exact, or implicit_loss, which needs none")


def _rows(manifold, Z0, Zt, t):
    """Return sources, queries and times as floats, (n, embed_dim) twice and (n,), after checking them."""
    Z0, Zt = np.asarray(Z0, dtype=float), np.asarray(Zt, dtype=float)
    if Z0.shape != Zt.shape or Z0.ndim != 2 or Z0.shape[1] != manifold.embed_dim:
        raise ValueError(f"found points of shape {Z0.shape} and {Zt.shape}, expected (n, {manifold.embed_dim}) twice: "
                         "embedded coordinates, row by row; see manifold.embed")
    t = np.asarray(t, dtype=float)
    if t.shape not in ((), (len(Z0),)):
        raise ValueError(f"t has shape {t.shape}, expected a number or one per row, ({len(Z0)},)")
    t = np.broadcast_to(t, len(Z0))
    bad = np.flatnonzero(~((t > 0) & (t < np.inf)))
    if bad.size:
        raise ValueError(f"t[{bad[0]}] = {t[bad[0]]!r} must be positive and finite")
    return Z0, Zt, t


def _score_of_pairs(manifold, Z0, Zt, t):
    """Evaluate `heat_score` by the manifold's kernel of pairs."""
    out = np.empty_like(Zt)
    for time in np.unique(t):
        rows = np.flatnonzero(t == time)
        for a in range(0, len(rows), _SQUARE):
            few = rows[a:a + _SQUARE]
            on = np.arange(len(few))
            Y, s = manifold.flow(Z0[few], float(time))
            logs, slopes = [], []
            for image in manifold.images(Y):
                log_k, slope, _ = manifold.pair_kernel(Zt[few], image, s, 1)
                logs.append(log_k[on, on])
                slopes.append(slope[on, on])
            share = np.exp(np.array(logs) - np.max(logs, axis=0))
            out[few] = np.einsum("gn,gnj->nj", share / share.sum(axis=0), np.array(slopes))
    return out


def _mean_of_pairs(manifold, Q, batch, share, t, skip):
    """Evaluate `rao_blackwell_score` at one time by the manifold's kernel of pairs."""
    Y, s = manifold.flow(batch, t)
    Y = manifold.images(Y)
    with np.errstate(divide="ignore"):
        log_share = np.log(share)
    step = max(1, _PAIRS // (len(Y) * len(batch)))
    out = np.empty_like(Q)
    for a in range(0, len(Q), step):
        rows = slice(a, a + step)
        logs, slopes, _ = zip(*(manifold.pair_kernel(Q[rows], image, s, 1) for image in Y), strict=True)
        logs = np.array(logs) + log_share
        if skip is not None:
            logs[:, np.arange(logs.shape[1]), skip[rows]] = -np.inf
        weight = np.exp(logs - logs.max(axis=(0, 2), keepdims=True))
        weight /= weight.sum(axis=(0, 2), keepdims=True)
        out[rows] = np.einsum("gqn,gqnj->qj", weight, np.array(slopes))
    return out


def _log_slope(factor, Y, X, t):
    """Return the log kernel, but for a number that depends on t alone, and its gradient at X; Y is (g, n, width)."""
    r = factor.dist(Y, X)
    if factor.kind == "line":
        return -r * r / (2 * t), factor.difference(Y, X) / t[:, None]
    R = factor.scale
    times = np.broadcast_to(t, r.shape)
    if factor.kind == "hyperbolic":
        log_k, slope = np.empty_like(r), np.empty_like(r)
        for time in np.unique(t):
            here = times == time
            log_k[here], slope[here] = factor.log_kernel(r[here], time), factor.slopes(r[here], time)[0]
        # dc/dr = 2 R sinh(r/R), and the gradient of r points away from the source
        x = r / R
        slope *= -2 * np.divide(np.sinh(x), x, out=np.ones_like(x), where=x > 0)
        return log_k - r * r / (2 * t), slope[..., None] * factor.log(np.broadcast_to(X, Y.shape), Y)
    log_k, slope = (x.reshape(r.shape) for x in _sphere(r.ravel() / R, times.ravel() / R**2, factor.dim))
    log_k = log_k - r * r / (2 * t)
    if factor.kind == "circle":
        # d log k / dr = 2 sin(r/R) R * slope / R^2, and r is the distance itself
        return log_k, (2 * np.sinc(r / (np.pi * R)) * slope / R**2)[..., None] * factor.difference(X, Y)
    return log_k, factor.to_tangent(np.broadcast_to(X, Y.shape), (-2 * slope / R**2)[..., None] * Y)


def _sphere(r, t, dim):
    r"""Evaluate :math:`\log p+r^2/2t` and :math:`\partial_c\log p` on the unit sphere, each row at its own time."""
    log_k, slope = np.empty_like(r), np.empty_like(r)
    uniform = (dim + 1) * np.exp(-0.5 * dim * t) < _DECAYED
    if uniform.any():
        u, s = np.cos(r[uniform]), t[uniform]
        value, shifted = _series(u, s, dim), _series(u, s, dim + 2)
        log_k[uniform] = np.log(value) - log_sphere_area(dim) + 0.5 * r[uniform] ** 2 / s
        area = np.exp(log_sphere_area(dim) - log_sphere_area(dim + 2))
        slope[uniform] = -np.pi * np.exp(-0.5 * dim * s) * area * shifted / value
    if not uniform.all():
        log_k[~uniform], slope[~uniform] = _contour(r[~uniform], t[~uniform], dim)
    return log_k, slope


def _series(u, t, dim):
    """Sum the eigenfunctions of the unit sphere, times its volume."""
    decay = np.exp(-0.5 * t)
    before, now, total, count = np.ones_like(u), u, np.ones_like(u), 1.0
    for lev in range(1, _LEVELS):
        # the number of harmonics of a level, from that of the one below: N_1 = d + 1
        count *= (dim + 1.0 if lev == 1 else
                  (2 * lev + dim - 1) * (lev + dim - 2) / ((2 * lev + dim - 3) * lev))
        total = total + count * decay ** (lev * (lev + dim - 1)) * now
        before, now = now, ((2 * lev + dim - 1) * u * now - lev * before) / (lev + dim - 1)
    return total


def _contour(r, t, dim):
    """Integrate over the parabola of :mod:`rdks.heat`, once for the kernel and for its slope."""
    b = 0.5 * (dim + 1)
    to_pole = np.maximum((np.pi - r) + 1.2246467991473532e-16, 0.0)  # np.pi is a little less than pi
    gap = 2 * np.pi * to_pole / t
    half = 0.5 * (2 * b - gap)
    root = np.sqrt(half * half + b * gap)
    mu = np.where(half > 0, half + root, b * gap / np.where(half > 0, 1.0, root - half))
    v = np.linspace(0.0, 1.0, _NODES) * np.sqrt(_REACH / mu)[:, None]
    step = v[:, 1]
    mu, r, t, to_pole = (x[:, None] for x in (mu, r, t, to_pole))
    side = 1 - 1j * v
    z = mu * side * side
    s = np.sqrt(r * r - 2 * t * z)
    s = np.where(s.imag < 0, -s, s)
    ahead = -2 * t * z / (s + r)
    across = np.where(r < 0.5 * np.pi, s + r, ahead - 2 * to_pole)
    log_gap = -1j * s + np.log(-np.expm1(1j * ahead)) + np.log(-np.expm1(1j * across))  # of 2 cos s - 2 cos r
    top = log_gap[:, :1].real
    f = np.exp(z - mu - b * (log_gap - top)) * (np.sin(s) / s) * (-2j * mu * side)
    f[:, 0] *= 0.5
    value = f.sum(axis=1).imag
    slope = -b * (f * np.exp(top - log_gap)).sum(axis=1).imag / value * np.exp(-top[:, 0])
    mu, t, top, a = mu[:, 0], t[:, 0], top[:, 0], 0.5 * (dim - 1)
    log_k = np.log(-4 * t * step * value) + mu - b * top + 0.5 * (a * a * t - np.log(2 * np.pi * t))
    return log_k - log_sphere_area(dim), slope


# arithmetic on arrays of numpy and on tensors of torch

def denoising_loss(s, v):
    r"""Return the loss of denoising score matching, :math:`|s-v|^2`, of each sample.

    Parameters
    ----------
    s : array or tensor, shape (..., embed_dim)
        What the network says at the noised point, embedded tangent vectors.
    v : array or tensor, shape (..., embed_dim)
        :func:`heat_score`, or :func:`rao_blackwell_score`, at the same point.

    Returns
    -------
    array or tensor, shape (...,)
        Multiply by t and average: then every noise level counts alike.

    References
    ----------
    Vincent, A connection between score matching and denoising autoencoders, Neural Computation 23 (2011) 1661.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.variance import denoising_loss
    >>> denoising_loss(np.array([[1.0, 0.0]]), np.array([[0.0, 2.0]]))
    array([5.])
    """
    return ((s - v) * (s - v)).sum(-1)


def implicit_loss(s, divergence):
    r"""Return the loss of implicit score matching, :math:`|s|^2+2\operatorname{div}s`, of each sample.

    Parameters
    ----------
    s : array or tensor, shape (..., embed_dim)
    divergence : array or tensor, shape (...,)
        Riemannian divergence of the network's field at the same point.

    Returns
    -------
    array or tensor, shape (...,)
        Its mean is that of :func:`denoising_loss` but for a number that does not depend on the network.

    References
    ----------
    Hyvarinen, Estimation of non-normalized statistical models by score matching, JMLR 6 (2005), theorem 1, times 2.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.variance import implicit_loss
    >>> implicit_loss(np.array([[-3.0]]), np.array([-1.0]))
    array([7.])
    """
    return (s * s).sum(-1) + 2 * divergence


def stein_loss(s, v, divergence, c):
    r"""Return the family of losses between denoising and implicit score matching.

    Parameters
    ----------
    s, v : array or tensor, shape (..., embed_dim)
        As for :func:`denoising_loss`.
    divergence : array or tensor, shape (...,)
        As for :func:`implicit_loss`.
    c : float or array or tensor, shape (...,)
        0 is denoising score matching but for :math:`|v|^2`, which does not depend on the network; 1 is implicit
        score matching.

    Returns
    -------
    array or tensor, shape (...,)
        :math:`|s|^2-2(1-c)\langle s,v\rangle+2c\operatorname{div}s`: the same mean for every c that does not depend
        on the noise.

    Notes
    -----
    At small t the divergence is bounded while :math:`\langle s,v\rangle` has the standard deviation
    :math:`|s|/\sqrt t`, so c = 1 has less noise if the divergence is exact; at large t, v is small and c = 0 has less.
    :func:`best_mixing` finds the best c of a noise level.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.variance import stein_loss
    >>> s, v, divergence = np.array([[1.0]]), np.array([[3.0]]), np.array([-1.0])
    >>> [float(stein_loss(s, v, divergence, c)[0]) for c in (0.0, 0.5, 1.0)]
    [-5.0, -3.0, -1.0]
    """
    return (s * s).sum(-1) - 2 * (1 - c) * (s * v).sum(-1) + 2 * c * divergence


def best_coefficient(loss, control):
    r"""Return the multiple of a control variate that takes the most variance from a loss.

    Parameters
    ----------
    loss : array or tensor, shape (..., n)
        Per sample; leading axes, such as noise levels, are kept apart.
    control : array or tensor, shape (..., n)
        Of mean zero.

    Returns
    -------
    array or tensor, shape (...,)
        :math:`-\operatorname{Cov}(\text{loss},\text{control})/\operatorname{Var}(\text{control})`: the coefficient a
        for which ``loss + a * control`` varies the least. 0 where the control does not vary.

    Notes
    -----
    A coefficient that was found from the samples it is applied to costs the loss its mean, by a part in n: use that of
    the last step, or a running mean, and do not let gradients flow through it.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.variance import best_coefficient
    >>> x = np.array([-1.0, 0.0, 1.0])
    >>> float(best_coefficient(5 + 3 * x, x))
    -3.0
    """
    n = control.shape[-1]
    loss = loss - (loss.sum(-1) / n)[..., None]
    control = control - (control.sum(-1) / n)[..., None]
    power = (control * control).sum(-1)
    return -(loss * control).sum(-1) / (power + (power == 0))


def best_mixing(s, v, divergence):
    r"""Return the c with which :func:`stein_loss` varies the least.

    Parameters
    ----------
    s, v : array or tensor, shape (..., n, embed_dim)
        Samples of one noise level, or of several along leading axes.
    divergence : array or tensor, shape (..., n)

    Returns
    -------
    array or tensor, shape (...,)
        The regression coefficient of :math:`|s|^2-2\langle s,v\rangle` on minus
        :math:`2\langle s,v\rangle+2\operatorname{div}s`; see :func:`best_coefficient`, also for what to mind.

    Examples
    --------
    A field that is linear in one dimension, at a small time: implicit score matching, nearly.

    >>> import numpy as np
    >>> from rdks.variance import best_mixing
    >>> rng = np.random.default_rng(0)
    >>> x0, noise = rng.standard_normal((2, 1000, 1))
    >>> t = 1e-4
    >>> xt, v = x0 + np.sqrt(t) * noise, -noise / np.sqrt(t)
    >>> round(float(best_mixing(-xt, v, -np.ones(1000))), 1)
    1.0
    """
    product = (s * v).sum(-1)
    return best_coefficient((s * s).sum(-1) - 2 * product, 2 * product + 2 * divergence)


def residual_loss(n, v, baseline):
    r"""Return the loss of a network that is added to a given score, :math:`s=r+n`.

    Parameters
    ----------
    n : array or tensor, shape (..., embed_dim)
        What the network says at the noised point.
    v : array or tensor, shape (..., embed_dim)
        Target of denoising there.
    baseline : array or tensor, shape (..., embed_dim)
        The given score r there.

    Returns
    -------
    array or tensor, shape (...,)
        :math:`|n|^2-2\langle n,v-r\rangle=|r+n-v|^2-|v-r|^2`: the second term does not depend on the network. Twice
        :func:`carried_control` may be added.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.variance import residual_loss
    >>> residual_loss(np.array([[1.0]]), np.array([[3.0]]), np.array([[2.5]]))  # (3.5 - 3)^2 - (3 - 2.5)^2
    array([0.])
    """
    return (n * (n - 2 * (v - baseline))).sum(-1)


def carried_control(manifold, n0, Z0, Zt, v):
    r"""Return a control variate for :func:`residual_loss` that costs no derivative: the network at the clean point.

    Parameters
    ----------
    manifold : Manifold
        A product of flat factors, circles, spheres and hyperbolic spaces, or an Ornstein-Uhlenbeck process; no
        quotient.
    n0 : array or tensor, shape (..., embed_dim)
        What the network says at the clean point and the same time, an embedded tangent vector there. (The mean is zero
        for any vector.)
    Z0, Zt : array or tensor, shape (..., embed_dim)
        Clean and noised points in embedded coordinates.
    v : array or tensor, shape (..., embed_dim)
        :func:`heat_score`, the target of this pair of points (not that of a batch).

    Returns
    -------
    array or tensor, shape (...,)
        :math:`\langle F(X_t),v\rangle+\operatorname{div}F(X_t)`, which has mean zero given :math:`X_0`; F is the
        vector :math:`n(X_0)`, carried to all other points.

    Raises
    ------
    UnsupportedError
        On quotients, where a vector that is carried to the cut locus arrives from several sides, differently, and on
        spaces that are no products of space forms.

    Notes
    -----
    ``residual_loss(n, v, r) + 2 * control`` has :math:`\langle n(X_t)-F(X_t),v\rangle` in place of
    :math:`\langle n(X_t),v\rangle`. For small t the difference is of the order :math:`\sqrt t` and v of the order
    :math:`1/\sqrt t`, so what remains is bounded. When t is not small, n at the two points has little in common: take
    :func:`best_coefficient` times the control.

    How a vector w is carried: in flat space and on circles it stays what it is, of divergence 0. On a sphere of
    radius R it is projected on the tangent space, :math:`F(x)=w-\langle w,x\rangle x/R^2`, of divergence
    :math:`-d\langle w,x\rangle/R^2`. That agrees with parallel transport to first order, which is all that the bound
    above needs, and is smooth everywhere, while the divergence of parallel transport,
    :math:`-(d-1)\langle w,x\rangle/(R^2+\langle x_0,x\rangle)`, has no finite variance on the two-sphere.
    In hyperbolic space it keeps its numbers in the frame of the half-space: divergence :math:`-(d-1)w_d/R`. (Formulas
    derived here.)

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.manifolds import Sphere
    >>> from rdks.variance import carried_control, noisy_pairs
    >>> Z0 = np.tile([0.0, 0.0, 1.0], (20000, 1))
    >>> Zt, v = noisy_pairs(Sphere(2), Z0, 0.5, np.random.default_rng(0))
    >>> control = carried_control(Sphere(2), np.array([2.0, -1.0, 0.0]), Z0, Zt, v)
    >>> bool(abs(control.mean()) < 4 * control.std() / np.sqrt(20000))
    True
    """
    if manifold.kernel != "factors" or manifold.n_images > 1:
        raise UnsupportedError(f"{manifold!r} is no product of flat spaces, spheres and hyperbolic spaces: a vector "
                               "cannot be carried from one point to all others smoothly there. Leave the control out, "
                               "or use stein_loss with the divergence of the network")
    total = (n0 * v).sum(-1)  # v is tangent: a projection does not change this product
    for f, s in manifold.pieces():
        if f.kind == "sphere":
            total = total - f.dim / f.radius**2 * (n0[..., s] * Zt[..., s]).sum(-1)
        elif f.kind == "hyperbolic":
            total = total - (f.dim - 1) / f.radius * n0[..., s.stop - 1]
    return total


def variance_factor(plain, reduced):
    r"""Return by how much a device lessens the variance.

    Parameters
    ----------
    plain, reduced : array or tensor, shape (n,) or (n, k)
        The same quantity of n samples without and with the device: losses, or vectors, whose variances are added up
        over the coordinates. For targets pass their errors, v minus the score, as the score is no noise.

    Returns
    -------
    float
        The ratio of the variances: so many times as many samples would be needed without.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.variance import variance_factor
    >>> variance_factor(np.array([0.0, 2.0]), np.array([0.5, 1.5]))
    4.0
    """
    below = _variance(reduced)
    return _variance(plain) / below if below > 0 else float("inf")


def _variance(x):
    """Return the variance of the rows of x, added up over columns, as a float."""
    x = x.reshape(len(x), -1).T
    x = x - (x.sum(-1) / x.shape[-1])[..., None]
    return float((x * x).sum(-1).sum(-1)) / x.shape[-1]
