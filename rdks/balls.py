r"""Probability that one step of Brownian motion ends in a geodesic ball, without sampling.

On a space form a step from x of length s ends anywhere on the geodesic sphere of radius s, evenly. The part of that
sphere that lies in a ball of radius r whose centre is at a distance :math:`\rho` is a cap of angle :math:`\alpha(s)`
given by the triangle of sides r, s and :math:`\rho`, so the probability is an integral over s alone,

.. math:: P(\rho)=\int_0^\infty A(s)\,k_t(s)\;\mathrm{cap}_{d-1}(\alpha(s))\,ds ,

with A(s) the area of the geodesic sphere. No term is negative: probabilities far in the tail keep their digits.
"""
from __future__ import annotations

import numpy as np
from scipy.special import betainc, betaincc, ndtr

from .gram import log_kernel

__all__ = ["ball_law"]

# Gauss-Legendre nodes of an integral over step lengths, and distances that are worked on together.
_NODES, _ROWS = 160, 4096
_X, _W = np.polynomial.legendre.leggauss(_NODES)


def ball_law(factor, distance, radius, t):
    r"""Return the probability that a step of time t ends within `radius` of a point at each distance.

    Parameters
    ----------
    factor : SpaceForm
    distance : ndarray, shape (n,)
        From where the step starts to the centre of the ball.
    radius : float
        Radius of the ball, >= 0.
    t : float
        Time, positive.

    Returns
    -------
    ndarray, shape (n,)
        Relative error some 1e-10 (160 nodes of Gauss-Legendre quadrature; on lines and circles closed form).

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.balls import ball_law
    >>> from rdks.manifolds import SpaceForm
    >>> ball_law(SpaceForm(2), np.zeros(1), 1.0, 1.0).round(12)  # a Rayleigh variable: 1 - exp(-1/2)
    array([0.39346934])
    """
    distance = np.asarray(distance, dtype=float)
    if radius >= factor.reach:
        return np.ones_like(distance)
    if factor.dim == 1:
        return _interval_law(factor, distance, radius, t)
    out = np.empty_like(distance)
    for a in range(0, len(distance), _ROWS):
        rows = slice(a, a + _ROWS)
        out[rows] = _cap_law(factor, distance[rows], radius, t)
    return out


def _interval_law(factor, distance, radius, t):
    """On a line or a circle: normal probabilities, wrapped."""
    shifts = [0.0]
    if factor.scale is not None:
        period = 2 * np.pi * factor.scale
        t = min(t, 9 * period**2)  # uniform to exp(-177) by then
        most = int(np.ceil(9 * np.sqrt(t) / period)) + 1
        shifts = period * np.arange(-most, most + 1)
    out = np.zeros_like(distance)
    for shift in shifts:
        near, far = (np.abs(distance + shift) + radius * np.array([[-1.0], [1.0]])) / np.sqrt(t)
        out += ndtr(-near) - ndtr(-far)  # tails on the side where they are small
    return out


def _reach(factor, t):
    """Step length beyond which nothing is left: radial drift, and twelve standard deviations."""
    drift = (factor.dim - 1) * t / factor.radius if factor.hyperbolic else 0.0
    return min(factor.reach, drift + np.sqrt(t) * (np.sqrt(factor.dim) + 12))


def _integral(low, high, integrand):
    """Integrate over [low, high] by rows; the substitution takes half-integer powers at both ends."""
    angle = 0.25 * np.pi * (1 + _X)
    s = low[:, None] + (high - low)[:, None] * np.sin(angle) ** 2
    weight = 0.25 * np.pi * np.sin(2 * angle) * _W
    return np.maximum(high - low, 0.0) * (integrand(s) @ weight)


def _cap_law(factor, distance, radius, t):
    def density(s):
        with np.errstate(divide="ignore"):
            return np.exp(factor.log_area(s) + log_kernel(factor, s, t))

    def cut(s):
        return density(s) * _cap(factor, distance[:, None], s, radius)

    reach = _reach(factor, t)
    first = np.abs(distance - radius)           # geodesic spheres between these lengths are cut by the ball
    last = distance + radius
    inside = np.zeros_like(distance)
    beyond = np.zeros_like(distance)
    if factor.reach < np.inf:
        last = np.minimum(last, 2 * factor.reach - last)
        # near the antipode, spheres are small again, and lie in a ball that reaches around
        beyond = np.where(distance + radius > factor.reach,
                          _integral(np.minimum(last, reach), np.full_like(last, reach), density), 0.0)
    # a far ball is reached by steps of one length, whose tail is as steep as exp(-first s / t)
    width = np.maximum(reach, np.minimum(first + 40 * t / np.maximum(first, np.sqrt(t)) + np.sqrt(t), last))
    inside = np.where(distance < radius, _integral(np.zeros_like(first), np.minimum(first, reach), density), 0.0)
    return inside + _integral(first, np.maximum(np.minimum(last, width), first), cut) + beyond


def _cap(factor, rho, s, radius):
    """Return the part of the geodesic sphere of radius `s` that lies in the ball: half-angle formulas of triangles."""
    if factor.scale is None:
        arm = np.asarray
    else:
        def arm(x):
            return (np.sinh if factor.hyperbolic else np.sin)(x / factor.scale)
    half = 0.5 * (rho + s + radius)
    with np.errstate(divide="ignore", invalid="ignore"):
        low = arm(half - s) * arm(half - rho)    # in proportion to sin^2 and cos^2 of half the angle
        high = arm(half) * arm(half - radius)
        low, high = np.maximum(low, 0.0), np.maximum(high, 0.0)
        part = np.where(low + high > 0, low / (low + high), 0.0)
    square = 4 * part * (1 - part)
    cap = 0.5 * betainc(0.5 * (factor.dim - 1), 0.5, square)
    return np.where(part <= 0.5, cap, 0.5 + 0.5 * betaincc(0.5 * (factor.dim - 1), 0.5, square))
