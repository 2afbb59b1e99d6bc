r"""Heat kernels of the space forms, in the log domain.

Every heat kernel of this package is a product of the functions below. Generator
:math:`\tfrac12\Delta`, so `t` is a variance; densities are with respect to the
Riemannian volume.

The sphere of any dimension, at any time and at any distance
------------------------------------------------------------
The textbook forms of the heat kernel of :math:`S^d` each fail somewhere: the
eigenfunction series cancels in the tail, the image sums cancel near the source, the
small-time expansion breaks at the antipode. One contour integral does not.

Write :math:`a=(d-1)/2`, :math:`b=(d+1)/2` and insert
:math:`e^{-(l+a)^2t/2}=\mathrm E[z^{l+a}]`, :math:`z=e^{iS}`, :math:`S\sim N(0,t)`, into the
eigenfunction series. The generating function of the Gegenbauer polynomials (the
Poisson kernel of the sphere) sums it to

.. math:: p_t(\theta)=\frac{e^{a^2t/2}}{\omega_d\sqrt{2\pi t}}
          \int_{\operatorname{Im} s=\eta>0} e^{-s^2/2t}\,
          \frac{-2i\sin s}{(2\cos s-2\cos\theta)^{b}}\,ds .

With :math:`\zeta=s^2` the integrand is single-valued off :math:`[\theta^2,\infty)`: its
singularities are :math:`(2\pi k\pm\theta)^2` only, all on the positive axis. So the line may
be replaced by the parabola :math:`\zeta=\theta^2-2t\mu(1+iv)^2`, which winds around the
singularities and crosses the axis at the saddle point
:math:`\theta^2-2t\mu`. There the factor :math:`e^{-\theta^2/2t}` comes out exactly, nothing
cancels, and the trapezoid rule in `v` converges geometrically: 32 nodes give about
1e-14 for every angle including 0 and the antipode, every :math:`d`, and every
:math:`t` that is not so large that the kernel is uniform to a factor of two; there the
eigenfunction series has no cancellation left and takes over.

Derivatives need no differentiation: :math:`\partial_u p^{(d)}_t=2\pi e^{-dt/2}p^{(d+2)}_t`,
:math:`u=\cos\theta`, so slopes and Laplacians are ratios of positive numbers. The circle
is the case :math:`d=1`.

Hyperbolic space of any dimension, at any time and at any distance
------------------------------------------------------------------
Write :math:`w=\cosh r` and :math:`\rho=(d-1)/2`. The same shift of the dimension,
:math:`-\partial_wp^{(d)}_t=2\pi e^{dt/2}p^{(d+2)}_t`, leads up from the line, and half a
derivative upwards or half an integral downwards is one dimension:

.. math:: p^{(d)}_t=\frac{e^{-\rho^2t/2}}{\sqrt{2\pi t}}\Bigl(-\frac{\partial_w}{2\pi}\Bigr)^{\rho}
          e^{-r(w)^2/2t}.

Here no contour is needed, because every derivative has one sign:

.. math:: \partial_w\operatorname{arccosh}^2w=\frac{2r}{\sinh r}=\int_{-\infty}^\infty\frac{dy}{w+\cosh y},

so the Taylor coefficients of :math:`r(w)^2` alternate in sign, and those of
:math:`e^{-r(w)^2/2t}` are sums of products of positive numbers. Odd dimensions are one such
coefficient. Even dimensions are the half integral of the odd dimension above them, of a positive
integrand again: with :math:`\cosh\tfrac s2=\cosh\tfrac r2\cosh u`,

.. math:: p^{(d)}_t(r)=4\,e^{(2d-1)t/8}\cosh\tfrac r2\int_0^\infty p^{(d+1)}_t(s)\cosh u\,du ,

where the trapezoid rule converges geometrically, the integrand being analytic for
:math:`|\operatorname{Im}u|<\pi/2`. Nothing cancels at any distance, time or dimension.
"""
from __future__ import annotations

import math

import numpy as np
from scipy.special import gammaln

from .errors import UnsupportedError

__all__ = ["hyperbolic_slopes", "log_hyperbolic", "log_sphere", "log_sphere_area", "sphere_levels", "sphere_slopes"]

# Trapezoid nodes on the parabola. The error is set by the strip of analyticity, which does
# not depend on t or theta: 20 nodes give 1e-8, 26 give 4e-12, 30 give 1e-13, 32 the rounding floor.
_NODES = 32
_MAX_DIM = 100
_REACH = 36.0  # the integrand is followed until it has fallen to exp(-36) of its peak

# Slopes are of the order 1/t^2 at the antipode, and pi^2/t^2 must be a float.
_SMALLEST = 1e-150
_BLOCK = 2**15  # nodes of an integral that are held at a time
_UNIFORM = 2e3  # the first level has decayed to exp(-1000 d): the kernel is uniform to the last bit


def _time(t):
    """Return a time as a float, after checking it."""
    if not t > 0:
        raise ValueError(f"time t = {t!r} must be positive")
    if t < _SMALLEST:
        raise ValueError(f"time t = {t!r}, in units of the squared radius, is too small: below {_SMALLEST:g} the "
                         "squares of slopes of the heat kernel leave the range of floating-point numbers")
    return float(t)


def log_sphere_area(dim):
    """Return the log of the volume of the unit sphere :math:`S^d`."""
    return np.log(2.0) + 0.5 * (dim + 1) * np.log(np.pi) - gammaln(0.5 * (dim + 1))


def sphere_levels(dim, t, tol=1e-17):
    r"""Weigh the eigenspaces of the unit sphere by their decay at time `t`.

    Parameters
    ----------
    dim : int
        Dimension d.
    t : float
        Time.
    tol : float
        The list ends where the remaining weights are below `tol` times the sum so far.

    Returns
    -------
    ndarray, shape (L,)
        :math:`N_l e^{-l(l+d-1)t/2}` for l = 0, 1, ..., with
        :math:`N_l` the multiplicity of level l.
    """
    t = min(t, _UNIFORM)  # the weights beyond the first are zero already: no overflow in their exponents
    top = int(np.ceil(np.sqrt(2 * (40 - np.log(tol)) / t))) + 4
    lev = np.arange(1, top + dim + 4, dtype=float)
    if dim == 1:
        log_mult = np.full(lev.shape, np.log(2.0))
    else:
        log_mult = (np.log(2 * lev + dim - 1) - np.log(dim - 1.0)
                    + gammaln(lev + dim - 1) - gammaln(lev + 1) - gammaln(dim - 1))
    weight = np.concatenate([[1.0], np.exp(log_mult - 0.5 * lev * (lev + dim - 1) * t)])
    keep = np.flatnonzero(weight > tol * weight.max())
    return weight[: keep[-1] + 1]


def log_sphere(r, t, dim):
    r"""Evaluate the log heat kernel of the unit sphere, plus :math:`r^2/2t`.

    The Gaussian exponent is left out so that the result keeps its digits where the
    kernel itself is far below the smallest float.

    Parameters
    ----------
    r : array_like
        Geodesic distance (angle) in [0, pi].
    t : float
        Time, at least 1e-150.
    dim : int
        Dimension d >= 1; d = 1 is the circle of length 2 pi.

    Returns
    -------
    ndarray
        :math:`\log p_t(r)+r^2/2t`, shape of `r`.

    Raises
    ------
    UnsupportedError
        In dimensions beyond 100: shortly before the kernel becomes uniform, the integral then cancels.

    Notes
    -----
    See the module docstring. Absolute error about 1e-14 near the data up to d = 20, 1e-11 at d = 64, 3e-8
    at d = 100; within a distance
    :math:`\delta` of the antipode the error of a float angle, 1e-16, is itself magnified to
    about :math:`10^{-16}\,\pi/t`.

    References
    ----------
    Gegenbauer generating function: DLMF 18.12.4. Uniform for all arguments: derived here,
    checked against series summed in up to thousands of digits.

    Examples
    --------
    On :math:`S^3` the main image is :math:`e^{t/2}(2\pi t)^{-3/2}(r/\sin r)e^{-r^2/2t}`:

    >>> import numpy as np
    >>> from rdks.heat import log_sphere
    >>> t, r = 0.01, 1.2
    >>> exact = t / 2 - 1.5 * np.log(2 * np.pi * t) + np.log(r / np.sin(r))
    >>> bool(np.isclose(log_sphere(r, t, 3), exact, rtol=1e-14))
    True
    """
    if dim > _MAX_DIM:
        raise UnsupportedError(f"the heat kernel of a sphere of dimension {dim}: it is evaluated up to dimension "
                               f"{_MAX_DIM}. Reduce the dimension of the data first")
    r, t = np.asarray(r, dtype=float), _time(t)
    shape, r = r.shape, r.ravel()
    if dim * t > 2.0:  # otherwise N_1 exp(-d t/2) alone exceeds one half
        weight = sphere_levels(dim, t)
        if weight[1:].sum() < 0.5:
            return (_log_series(r, weight, dim) + 0.5 * r * r / t).reshape(shape)
    return (_log_wrapped(r, t) if dim == 1 else _log_contour(r, t, dim)).reshape(shape)


def _log_wrapped(r, t):
    """Sum Gaussians around the circle; those left out are below exp(-40) of the first."""
    most = math.ceil(0.5 + math.sqrt(0.25 + 20 * t / math.pi**2))
    others = sum(np.exp(-2 * np.pi * m * (r + np.pi * m) / t) for m in range(-most, most + 1) if m)
    return np.log1p(others) - 0.5 * math.log(2 * math.pi * t)


def _log_series(r, weight, dim):
    """Sum the eigenfunction series; used only where its terms beyond the first add to < 1/2."""
    u = np.cos(r)
    before, now, total = np.ones_like(u), u, np.full_like(u, weight[0])
    for lev in range(1, weight.size):
        total += weight[lev] * now
        before, now = now, ((2 * lev + dim - 1) * u * now - lev * before) / (lev + dim - 1)
    return np.log(total) - log_sphere_area(dim)


def _log_contour(r, t, dim):
    """Integrate over the parabola of the module docstring; `r` is 1-D."""
    b = 0.5 * (dim + 1)
    # pi is a little more than np.pi: the distance from the antipode keeps its digits.
    to_pole = np.maximum((np.pi - r) + 1.2246467991473532e-16, 0.0)
    # Saddle of z - b log z - b log(z + gap), the two nearest branch points in z = (r^2 - zeta)/2t.
    gap = 2 * np.pi * to_pole / t
    half = 0.5 * (2 * b - gap)
    root = np.sqrt(half * half + b * gap)
    mu = np.where(half > 0, half + root, b * gap / np.where(half > 0, 1.0, root - half))
    v = np.linspace(0.0, 1.0, _NODES) * np.sqrt(_REACH / mu)[:, None]
    step = v[:, 1]
    mu, r, to_pole = mu[:, None], r[:, None], to_pole[:, None]
    side = 1 - 1j * v
    z = mu * side * side
    s = np.sqrt(r * r - 2 * t * z)
    s = np.where(s.imag < 0, -s, s)
    ahead = -2 * t * z / (s + r)  # s - r without cancellation
    # 2 cos s - 2 cos r = e^{-is} (1 - e^{i(s-r)}) (1 - e^{i(s+r)}), each log analytic above the axis
    across = np.where(r < 0.5 * np.pi, s + r, ahead - 2 * to_pole)  # s + r, modulo 2 pi, with its digits
    log_gap = -1j * s + np.log(-np.expm1(1j * ahead)) + np.log(-np.expm1(1j * across))
    sine = np.sin(s) / s
    top = log_gap[:, :1].real  # the modulus is largest at the vertex: kept out, so that nothing overflows
    f = np.exp(z - mu - b * (log_gap - top)) * sine * (-2j * mu * side)
    f[:, 0] *= 0.5
    value = -4 * t * step * f.sum(axis=1).imag
    a = 0.5 * (dim - 1)
    return np.log(value) + (mu - b * top)[:, 0] + 0.5 * (a * a * t - np.log(2 * np.pi * t)) - log_sphere_area(dim)


def sphere_slopes(r, t, dim, log_k=None):
    r"""Differentiate the log heat kernel of the unit sphere in the squared chord.

    Parameters
    ----------
    r : array_like
        Geodesic distance in [0, pi].
    t : float
        Time, at least 1e-150.
    dim : int
        Dimension d >= 1.
    log_k : array_like, optional
        ``log_sphere(r, t, dim)`` if already known.

    Returns
    -------
    first : ndarray
        :math:`\partial_c\log p_t`, with :math:`c=2-2\cos r`.
    laplacian : ndarray
        :math:`\Delta p_t/p_t`.

    Notes
    -----
    :math:`p'=2\pi e^{-dt/2}p^{(d+2)}`, :math:`p''=4\pi^2e^{-(d+1)t}p^{(d+4)}` in
    :math:`u=\cos r`, and :math:`\Delta=(1-u^2)\partial_u^2-d\,u\,\partial_u`. Both are free of
    cancellation, at the antipode too, where :math:`\partial_r/\sin r` would be 0/0.
    """
    r, t = np.asarray(r, dtype=float), _time(t)
    if log_k is None:
        log_k = log_sphere(r, t, dim)
    first = np.exp(log_sphere(r, t, dim + 2) - log_k + np.log(2 * np.pi) - 0.5 * dim * t)
    # the square root of the second derivative: that is of the order 1/t^4 where the sine is small
    root = 2 * np.pi * np.exp(0.5 * (log_sphere(r, t, dim + 4) - log_k - (dim + 1.0) * t))
    return -0.5 * first, (np.sin(r) * root) ** 2 - dim * np.cos(r) * first


def log_hyperbolic(r, t, dim):
    r"""Evaluate the log heat kernel of hyperbolic space of curvature -1, plus :math:`r^2/2t`.

    The Gaussian exponent is left out so that the result keeps its digits where the
    kernel itself is far below the smallest float.

    Parameters
    ----------
    r : array_like
        Geodesic distance, at least 0.
    t : float
        Time, at least 1e-150.
    dim : int
        Dimension d >= 2.

    Returns
    -------
    ndarray
        :math:`\log p_t(r)+r^2/2t`, shape of `r`.

    Raises
    ------
    ValueError
        In dimension 1, which has no curvature, for times that are not positive, and for distances that are negative
        or not finite.
    UnsupportedError
        In dimensions beyond 100.

    Notes
    -----
    See the module docstring. Nothing overflows or underflows, however large r or t may be. The error is below
    2e-14 of max(1, \|log kernel\|), with or without the Gaussian exponent: measured against integrals and derivatives
    in many digits for d up to 100, r up to 1500 and t from 1e-140 to 1e6. Odd dimensions cost a tenth of even ones.

    References
    ----------
    Shift of the dimension by two and the half integral that lowers it by one: Davies and Mandouvalos, Proc. London
    Math. Soc. 57 (1988); Yu and Zhao, arXiv:1807.05708, (1.1) and (1.2), where time counts double. The integral of
    positive fractions that gives every derivative one sign, and its recurrence: derived here.

    Examples
    --------
    On :math:`H^3` the kernel is :math:`e^{-t/2}(2\pi t)^{-3/2}(r/\sinh r)e^{-r^2/2t}`:

    >>> import numpy as np
    >>> from rdks.heat import log_hyperbolic
    >>> t, r = 0.4, 1.2
    >>> exact = -t / 2 - 1.5 * np.log(2 * np.pi * t) + np.log(r / np.sinh(r))
    >>> bool(np.isclose(log_hyperbolic(r, t, 3), exact, rtol=1e-14))
    True
    """
    return _hyperbolic(r, t, dim, 0)[0]


def hyperbolic_slopes(r, t, dim):
    r"""Differentiate the log heat kernel of hyperbolic space in the squared chord.

    Parameters
    ----------
    r : array_like
        Geodesic distance, at least 0.
    t : float
        Time, at least 1e-150.
    dim : int
        Dimension d >= 2.

    Returns
    -------
    first : ndarray
        :math:`\partial_c\log p_t`, with :math:`c=4\sinh^2(r/2)`. Beyond r = 708 it leaves the range of
        floats (c does so at 710), and is 0 from 745 on.
    laplacian : ndarray
        :math:`\Delta p_t/p_t`, at all distances.

    Raises
    ------
    ValueError, UnsupportedError
        As :func:`log_hyperbolic`.

    Notes
    -----
    First and second derivative in :math:`w=\cosh r` are the next Taylor coefficients of the module
    docstring, and :math:`\Delta=(w^2-1)\partial_w^2+d\,w\,\partial_w`. Error of the slope below 1e-13
    of itself, of the Laplacian below 1e-13 of the two terms, which nearly cancel only where it passes through zero.

    Examples
    --------
    Far from the source of :math:`H^3`, at :math:`r\gg t`, the density falls as
    :math:`e^{-r^2/2t}`, so the ratio is close to :math:`(r/t)^2`:

    >>> from rdks.heat import hyperbolic_slopes
    >>> _, laplacian = hyperbolic_slopes(5.0, 0.01, 3)
    >>> round(float(laplacian) / (5.0 / 0.01) ** 2, 2)
    1.0
    """
    _, slope, bend, square, scale = _hyperbolic(r, t, dim, 2)
    return -0.5 * slope * scale, slope * (square * bend - 0.5 * dim * (1 + square))


def _hyperbolic(r, t, dim, more):
    """Evaluate the kernel of hyperbolic space and its derivatives in w = cosh r.

    Returns log p + r^2/2t and, if `more` is 2: -(1 + w) p'/p; -(1 + w) p''/p'; the square of tanh(r/2); and
    1 / (1 + w), with which lengths in w are measured because w itself overflows. All in the shape of `r`.
    """
    if not dim >= 2:
        raise ValueError(f"hyperbolic space of dimension {dim!r}: the dimension must be at least 2. A line, which "
                         "has no curvature, is Euclidean(1)")
    if dim > _MAX_DIM:
        raise UnsupportedError(f"the heat kernel of hyperbolic space of dimension {dim}: it is evaluated up to "
                               f"dimension {_MAX_DIM}. Reduce the dimension of the data first")
    r, t = np.asarray(r, dtype=float), _time(t)
    shape, r = r.shape, r.ravel()
    bad = np.flatnonzero(~((r >= 0) & (r < np.inf)))
    if bad.size:
        raise ValueError(f"distance {r[bad[0]]!r} (entry {bad[0]} of {r.size}) must be finite and at least 0")
    half = np.tanh(0.5 * r)
    first = _arc(r, half)
    unit = np.maximum(1.0, first / (2 * t))  # terms of order k grow as unit^k, unit being up to 1e153
    order = dim // 2
    if dim % 2:
        terms = _taylor(half * half, first, t, unit, order + more)[order:]
        log_head = 0.0
    else:
        terms = _half_integral(r, half, first, t, unit, order, more)
        log_head = 1.5 * np.log(2.0)
    fall = np.exp(-r)
    rho = 0.5 * (dim - 1)
    log_k = (log_head + gammaln(order + 1) - order * np.log(2 * np.pi) - 0.5 * (np.log(2 * np.pi * t) + rho * rho * t)
             + order * np.log(unit) + np.log(terms[0]) - rho * (r + 2 * np.log1p(fall) - np.log(2.0)))
    out = [log_k]
    if more:
        out += [(order + 1) * unit * (terms[1] / terms[0]), (order + 2) * unit * (terms[2] / terms[1]),
                half * half, 2 * fall / (1 + fall) ** 2]
    return [x.reshape(shape) for x in out]


def _arc(r, half):
    """Return (1 + cosh r) 2r / sinh r = 2r / tanh(r/2), given that tangent, with the limit 4 at zero."""
    return np.divide(2 * r, half, out=np.full_like(r, 4.0), where=half > 1e-300)


def _taylor(square, first, t, unit, top):
    """Expand exp(-r(w)^2/2t) about w, its value there divided out.

    Returns the coefficients of the powers of -(step in w) unit / (1 + w), all positive: shape (top + 1, n).
    """
    slopes = _arc_taylor(square, first, top)
    power = 1 / (2 * t * unit)
    for q in slopes:
        q *= power
        power = power / unit
    terms = np.empty((top + 1, square.size))
    terms[0] = 1.0
    for k in range(1, top + 1):  # the derivative of an exponential is it times that of its exponent
        terms[k] = np.einsum("jn,jn->n", slopes[k - 1::-1], terms[:k]) / k
    return terms


def _arc_taylor(square, first, count):
    r"""Expand the derivative 2r / sinh r of arccosh^2 about w = cosh r.

    Parameters
    ----------
    square : ndarray, shape (n,)
        :math:`T=\tanh^2(r/2)`.
    first : ndarray, shape (n,)
        :math:`q_0`, see :func:`_arc`.
    count : int
        How many coefficients.

    Returns
    -------
    ndarray, shape (count, n)
        :math:`q_k=\int\bigl(\frac{1+w}{w+\cosh y}\bigr)^{k+1}dy`, the coefficient of
        :math:`(-h/(1+w))^k` in :math:`(1+w)\,\partial_w\operatorname{arccosh}^2(w+h)`.

    Notes
    -----
    They satisfy :math:`(k+1)T q_{k+1}=(k+\tfrac12)(1+T)q_k-kq_{k-1}`, in other words they are Legendre
    functions :math:`Q_k(\coth r)`: the decaying solution. Far away the recurrence is run upwards; near
    the source, where it would lose digits, downwards from the quotient of the last two, which is Gauss's
    continued fraction (DLMF 15.7.1).
    """
    q = np.empty((count, square.size))
    q[0] = first
    top = count - 1
    if top == 0:
        return q
    # upwards an error grows no more than the other solution does: T^-top, here at most tenfold
    limit = 0.1 ** (1 / top)
    far, near = np.flatnonzero(square > limit), np.flatnonzero(square <= limit)
    T, f = square[far], q[:, far]
    f[1] = (0.5 * (1 + T) * f[0] - 2) / T
    for k in range(1, top):
        f[k + 1] = ((k + 0.5) * (1 + T) * f[k] - k * f[k - 1]) / ((k + 1) * T)
    q[:, far] = f
    T, f = square[near], q[:, near]
    root = np.sqrt(1 - limit)
    tail = np.ones_like(T)
    for n in range(int(np.ceil(-_REACH / np.log((1 - root) / (1 + root)))), 0, -1):
        a = 0.5 * n if n % 2 else top + 0.5 * n
        tail = 1 - (a * a / ((top + n - 0.5) * (top + n + 0.5))) * T / tail
    f[top] = top / (top + 0.5) / tail  # quotients first: downwards they are stable, and q_0 is known
    for k in range(top - 1, 0, -1):
        f[k] = k / ((k + 0.5) * (1 + T) - (k + 1) * T * f[k + 1])
    for k in range(1, count):
        f[k] *= f[k - 1]
    q[:, near] = f
    return q


def _half_integral(r, half, first, t, unit, order, more):
    """Integrate the coefficients of the odd dimension above: shape (more + 1, n).

    The coefficient of order k is in units of (1 + cosh s)^-k = ((1 + cosh r) (cosh u)^2)^-k.
    """
    # log cosh u where the integrand has fallen by exp(-_REACH): s^2 - r^2 is at least 2 q_0 (log cosh u) and
    # 8/3 of its square more, and the rest of the integrand falls as (cosh u)^(1 - 2 order)
    pace = first / t + 2 * order - 1
    far = 2 * _REACH / (pace + np.hypot(pace, 4 * np.sqrt(_REACH / (3 * t))))
    far += np.log1p(np.sqrt(-np.expm1(-2 * far)))  # u itself
    # At a distance y < pi/2 from the real axis the integrand is cos(y)^-pace at most, and the rule errs by that
    # times exp(-2 pi y / step); with the best y that is exp(-_REACH) for this step, or a little less.
    count = int(np.ceil(np.max(far * np.sqrt(25.0**2 + 80 * pace), initial=0.0) / (2 * np.pi))) + 1
    out = np.empty((more + 1, r.size))
    size = max(1, _BLOCK // count)
    for start in range(0, r.size, size):
        rows = slice(start, start + size)
        u = far[rows, None] * (np.arange(count) / (count - 1))
        cosh, sinh, tau = np.cosh(u), np.sinh(u), half[rows, None]
        sinh_s = np.hypot(tau, sinh)  # sinh(s/2) / cosh(r/2)
        # s - r without cancellation; where both terms below are zero, so is it
        ahead = 2 * np.arcsinh(sinh * sinh / np.maximum(sinh_s + tau * cosh, 1e-300))
        s, half_s = r[rows, None] + ahead, sinh_s / cosh
        above = np.exp(-ahead / (2 * t) * (s + r[rows, None])) * cosh ** (1 - 2 * order)
        above[:, 0] *= 0.5
        above *= u[:, 1:2]
        s, half_s = s.ravel(), half_s.ravel()
        terms = _taylor(half_s * half_s, _arc(s, half_s), t, np.repeat(unit[rows], count), order + more)
        for k in range(more + 1):
            out[k, rows] = np.einsum("nj,nj->n", above, terms[order + k].reshape(u.shape))
            above /= cosh * cosh
    return out
