"""Test densities whose values, draws and integrals of products are known: mixtures of heat kernels.

A mixture of heat kernels is what :class:`rdks.engines.Sources` holds, so the true log density and exact draws come from
the package itself. The uniform law is a kernel after a time in which the slowest mode decays to exp(-40). By the
semigroup property the integral of the product of two mixtures is one again,

.. math:: \\int pq=\\sum_{ij}a_ib_jk_{\\tau_i+\\sigma_j}(x_i,y_j),

so integrated squared errors need no quadrature.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rdks.engines import DirectSum
from rdks.manifolds import SO3, Box, Euclidean, Hyperbolic, Sphere, Torus
from rdks.sampling import heat_sample

__all__ = ["DENSITIES", "Density", "Loss", "draw", "loss", "overlap", "sampled_loss"]

_FLAT = 80.0  # times the slowest eigenvalue is the time of the kernel that stands for the uniform law


@dataclass(frozen=True)
class Density:
    """A density of the study.

    Attributes
    ----------
    name, space, kind : str
        The space in two or three characters; what the density is like.
    truth : DirectSum
        The mixture.
    copies : float
        Share of the rows of a sample that are copies of others.
    jitter : float
        Length by which the copies are off.
    step : float
        Grid on which the coordinates of a sample are written, in the unit of the chart; 0 for none.
    """

    name: str
    space: str
    kind: str
    truth: DirectSum
    copies: float = 0.0
    jitter: float = 0.0
    step: float = 0.0


class Loss(NamedTuple):
    """Integrated squared error, and Kullback-Leibler divergence of the estimate from the truth in nats."""

    ise: float
    kl: float


def draw(density, n, rng):
    """Draw a sample as a user would have it: in the chart, with its copies and its rounding.

    Parameters
    ----------
    density : Density
    n : int
        Rows, copies included.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape (n, p)
    """
    manifold, repeated = density.truth.manifold, round(density.copies * n)
    Z = density.truth.sample(n - repeated, rng)
    if repeated:
        again = Z[rng.integers(len(Z), size=repeated)]
        if density.jitter:
            again = heat_sample(manifold, again, density.jitter**2, rng)
        Z = np.concatenate([Z, again])
    X = manifold.unembed(Z).reshape(n, -1)
    return np.round(X / density.step) * density.step if density.step else X


def overlap(p, q):
    """Integrate the product of two mixtures.

    Parameters
    ----------
    p, q : Sources
        On the same manifold, one without a drift.

    Returns
    -------
    float
    """
    share, total = q.share, 0.0
    for t in np.unique(q.time):
        rows = (q.time == t) & (share > 0)
        total += float(share[rows] @ np.exp(p.evaluate(q.Z[rows], float(t)).log_density))
    return total


def loss(density, estimate, Z, log_p, square):
    r"""Measure how far an estimate is from the truth.

    Parameters
    ----------
    density : Density
    estimate : Sources
    Z : ndarray, shape (m, embed_dim)
        Held-out draws from the truth.
    log_p : ndarray, shape (m,)
        The true log density there.
    square : float
        Integral of the squared true density.

    Returns
    -------
    Loss

    Notes
    -----
    With :math:`r=\hat p/p` both :math:`E_p[-\log r]` and :math:`E_p[r-1-\log r]` are the divergence, as
    :math:`E_pr=1`; the latter is used, whose terms are never negative and small of second order.
    """
    ise = square - 2 * overlap(density.truth, estimate) + overlap(estimate, estimate)
    return Loss(ise, sampled_loss(estimate.evaluate(Z).log_density, log_p).kl)


def sampled_loss(log_q, log_p):
    """Measure both losses from log densities at draws of the truth, for an estimate that is no mixture of kernels.

    Parameters
    ----------
    log_q, log_p : ndarray, shape (m,)
        Of the estimate and of the truth.

    Returns
    -------
    Loss
        The squared error is the mean of p (1 - q/p)^2, without bias but with the noise of the draws.
    """
    change = np.expm1(log_q - log_p)
    return Loss(float(np.mean(np.exp(log_p) * change**2)), float(np.mean(change - (log_q - log_p))))


# the densities


def _mixture(manifold, Z, time, weight=None, uniform=0.0):
    """Make a mixture: centres, their times and weights, and the share of the uniform law."""
    Z = np.asarray(Z, dtype=float)
    weight = np.ones(len(Z)) if weight is None else np.asarray(weight, dtype=float)
    weight, time = weight / weight.sum(), np.broadcast_to(np.asarray(time, dtype=float), len(Z))
    if uniform:
        Z = np.concatenate([Z, Z[:1]])
        weight = np.append((1 - uniform) * weight, uniform)
        # the slowest mode of any factor: a box and a product are uniform when all of their factors are
        slowest = min(f.smallest_eigenvalue for f in manifold.factors())
        time = np.append(time, _FLAT / slowest)
    return DirectSum(manifold, Z, weight, time)


def _scattered(manifold, count, seed, spread=None):
    """Draw centres: uniform where that is possible, else by one step of Brownian motion from the origin."""
    rng = np.random.default_rng(seed)
    if spread is None:
        return manifold.random(count, rng)
    origin = np.zeros((count, manifold.embed_dim))
    if isinstance(manifold, Hyperbolic):
        origin[:, -1] = 1.0
    return heat_sample(manifold, origin, spread**2, rng)


def _small_circle(count, height):
    angle = 2 * np.pi * np.arange(count) / count
    across = np.sqrt(1 - height**2)
    Z = np.column_stack([across * np.cos(angle), across * np.sin(angle), np.full(count, height)])
    turn = np.array([[0.6, 0.0, 0.8], [0.0, 1.0, 0.0], [-0.8, 0.0, 0.6]])
    return Z @ turn


def _densities():
    earth, ball3, torus, torus4 = Sphere(2), Sphere(3), Torus(2), Torus(4)
    turns, plane, flat = SO3(coords="quaternion"), Hyperbolic(2), Euclidean(2)
    degrees, room = Sphere(2, coords="latlon_deg"), Box([(0.0, 1.0), (0.0, 2.0)])
    north = np.array([[0.0, 0.0, 1.0]])
    s2, s3 = _scattered(earth, 5, 1), _scattered(ball3, 5, 2)
    five, weights = (0.03, 0.06, 0.1, 0.05, 0.15), (3.0, 2.0, 2.0, 1.0, 2.0)
    t2, t4 = _scattered(torus, 5, 3), _scattered(torus4, 4, 4)
    so3, h2 = _scattered(turns, 5, 5), _scattered(plane, 5, 6, 1.2)
    r2 = np.array([[-2.0, 0.0], [1.0, 1.5], [1.5, -1.0], [0.0, 0.0]])
    circle = _small_circle(60, 0.5)
    line = np.linspace(0, 2 * np.pi, 80, endpoint=False)
    winding = np.column_stack([line, 2 * line % (2 * np.pi)])
    turn = np.linspace(1.0, 3.5 * np.pi, 80)
    spiral = 0.3 * turn[:, None] * np.column_stack([np.cos(turn), np.sin(turn)])
    half = np.linspace(0, np.pi, 60, endpoint=False)  # half the angle of turns about one axis
    fibre = 2 * np.column_stack([np.zeros((60, 2)), np.sin(half), np.cos(half)])
    ray = np.linspace(-2.5, 2.5, 60)  # two geodesics that cross, in the half-plane
    height = np.concatenate([np.ones(60), 1 / np.cosh(ray)]) * np.concatenate([np.exp(ray), np.ones(60)])
    branches = np.column_stack([np.concatenate([np.zeros(60), np.tanh(ray)]), height])
    corners = np.array([[0.0, 0.0], [1.0, 1.2], [0.5, 2.0], [0.3, 0.8]])
    smooth = _mixture(earth, s2, five, weights)
    return [
        Density("S2 one mode", "S2", "unimodal", _mixture(earth, north, 0.15)),
        Density("S2 modes", "S2", "multimodal", smooth),
        Density("S2 curve", "S2", "curve", _mixture(earth, circle, 0.003, uniform=0.1)),
        Density("S2 scales", "S2", "multimodal", _mixture(earth, s2, (0.3, 0.02, 0.002, 0.0005, 0.1), weights, 0.05)),
        Density("S2 nearly uniform", "S2", "nearly uniform", _mixture(earth, s2[:2], 0.4, uniform=0.7)),
        Density("S2 copies", "S2", "copies", smooth, copies=0.5),
        Density("S2 near copies", "S2", "copies", smooth, copies=0.3, jitter=1e-8),
        Density("S2 rounded", "S2", "rounded", _mixture(degrees, s2, (0.03, 0.003, 0.01, 0.002, 0.15), weights),
                step=1.0),
        Density("S3 one mode", "S3", "unimodal", _mixture(ball3, s3[:1], 0.1)),
        Density("S3 modes", "S3", "multimodal", _mixture(ball3, s3, five, weights)),
        Density("T2 modes", "T2", "multimodal", _mixture(torus, t2, np.array(five) * 4, weights)),
        Density("T2 curve", "T2", "curve", _mixture(torus, winding, 0.02, uniform=0.05)),
        Density("T2 nearly uniform", "T2", "nearly uniform", _mixture(torus, t2[:2], 0.6, uniform=0.8)),
        Density("T4 modes", "T4", "multimodal", _mixture(torus4, t4, (0.1, 0.2, 0.3, 0.2))),
        Density("T4 background", "T4", "multimodal", _mixture(torus4, t4, (0.05, 0.02, 0.1, 0.05), uniform=0.3)),
        Density("SO3 modes", "SO3", "multimodal", _mixture(turns, so3, np.array(five) * 3, weights)),
        Density("SO3 fibre", "SO3", "curve", _mixture(turns, fibre, 0.02, uniform=0.1)),
        Density("H2 modes", "H2", "multimodal", _mixture(plane, h2, five, weights)),
        Density("H2 tree", "H2", "curve", _mixture(plane, branches, 0.01)),
        Density("R2 modes", "R2", "multimodal", _mixture(flat, r2, (0.5, 0.2, 0.1, 1.0))),
        Density("R2 spiral", "R2", "curve", _mixture(flat, spiral, 0.02)),
        Density("R2 rounded", "R2", "rounded", _mixture(flat, r2, (0.3, 0.02, 0.05, 1.0)), step=0.1),
        Density("Box corners", "Box", "multimodal", _mixture(room, corners, (0.01, 0.02, 0.05, 0.02), uniform=0.1)),
        Density("Box nearly uniform", "Box", "nearly uniform", _mixture(room, corners[:1], 0.1, uniform=0.7)),
    ]


DENSITIES = _densities()
