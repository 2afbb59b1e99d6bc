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
"""
from __future__ import annotations

import numpy as np
from scipy.special import gammaln

from .errors import UnsupportedError

__all__ = ["log_sphere", "log_sphere_area", "sphere_levels", "sphere_slopes"]

# Trapezoid nodes on the parabola. The error is set by the strip of analyticity, which does
# not depend on t or theta: 20 nodes give 1e-8, 26 give 4e-12, 30 give 1e-13, 32 the rounding floor.
_NODES = 32
_MAX_DIM = 100
_REACH = 36.0  # the integrand is followed until it has fallen to exp(-36) of its peak

# Slopes are of the order 1/t^2 at the antipode, and pi^2/t^2 must be a float.
_SMALLEST = 1e-150
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
    return _log_contour(r, t, dim).reshape(shape)


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
