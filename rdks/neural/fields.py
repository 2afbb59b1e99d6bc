r"""From points to the inputs of a network, and from its outputs to a tangent field, on every manifold.

A manifold is taken apart into pieces. Each says what a network is to know of a point, in numbers that are smooth on
the manifold (and alike at points that are one), and turns the outputs of the network into a tangent vector that a
smooth score can be:

=====================  ==============================================  ============================================
piece                  inputs                                          field of the outputs c
=====================  ==============================================  ============================================
line                   coordinates over their deviation, waves         c
circle                 cosines and sines                               c
side of a box          cosines                                         c times a window that is zero at the walls
sphere                 the unit vector u, waves                        c, projected on the tangent space
... antipodes one      products of two coordinates, even waves         C u, projected, C symmetric
hyperbolic             normal coordinates about the middle             c in the frame of the half-space
quotient               bumps, added up over the orbits of anchors      gradients of the bumps, with the weights c
group of matrices      entries, waves                                  c in the left-invariant frame
=====================  ==============================================  ============================================
"""
from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..errors import require
from ..manifolds import Box, Manifold, Product
from ..manifolds.symmetry import affine_maps

__all__ = ["Clock", "Layout", "backend"]

# Wave numbers on circles and boxes, of which those up to the resolution of the data are used.
_WAVE_NUMBERS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
# Random plane waves, and the largest dimension of the space in which they are of use.
_WAVES, _WAVES_DIM = 64, 9
# Anchors of the bumps on a quotient.
_ANCHORS = 48
# Width of the window at the walls of a box: sin(pi x / L) over the root of its square and the square of this.
_WINDOW = 0.25
# Deviation, relative to the size of the coordinate, below which a coordinate is constant.
_CONSTANT = 1e-12


def backend():
    """Return the module torch, or say how to get it."""
    return require("torch", feature="NeuralScoreMatching", extra="torch")


class Clock:
    """Noise levels of rows, as the pieces need them.

    Parameters
    ----------
    t : tensor, shape (n, 1)
    drift : bool
        Whether a point shrinks by exp(-t/2) on its way.

    Attributes
    ----------
    t : tensor, shape (n, 1)
    shrink, noise : tensor, shape (n, 1)
        By what a point is multiplied, and the variance of what is added, in flat space.
    """

    def __init__(self, t, drift):
        self.t = t
        self.shrink = (-0.5 * t).exp() if drift else t.new_ones(t.shape)
        self.noise = -(-t).expm1() if drift else t


class _Line:
    """Coordinates of flat space, with or without a drift."""

    def __init__(self, Z, resolution, rng):
        self.mean, self.deviation = Z.mean(axis=0), Z.std(axis=0)
        still = ~(self.deviation > _CONSTANT * np.maximum(np.abs(Z).max(axis=0), 1.0))
        self.deviation = np.where(still, 1.0, self.deviation)
        width = Z.shape[1]
        self.waves = _waves(width, float(self.deviation.max()) / resolution, rng)
        self.n_inputs, self.n_outputs = width + 2 * self.waves.shape[1], width

    def _moments(self, z, clock):
        mean, deviation = (z.new_tensor(x) for x in (self.mean, self.deviation))
        return clock.shrink * mean, clock.shrink * deviation, clock.shrink**2 * deviation**2 + clock.noise

    def inputs(self, z, clock):
        mean, _, variance = self._moments(z, clock)
        return _with_waves((z - mean) / variance.sqrt(), self.waves)

    def gaussian(self, z, clock):
        """Return the score of the normal law of the same means and variances."""
        mean, _, variance = self._moments(z, clock)
        return -(z - mean) / variance

    def field(self, z, c, clock):
        _, deviation, variance = self._moments(z, clock)
        return c * deviation / (clock.noise * variance).sqrt()


class _Circle:
    def __init__(self, period, resolution):
        self.period, self.frequency = period, _wave_numbers(period, resolution) * (2 * np.pi / period)
        self.slowest = (2 * np.pi / period) ** 2
        self.n_inputs, self.n_outputs = 2 * len(self.frequency), 1

    def inputs(self, z, clock):
        phase = z * z.new_tensor(self.frequency)
        return backend().cat([phase.cos(), phase.sin()], -1)

    def field(self, z, c, clock):
        return c * _fade(clock.t, self.slowest)


class _Side(_Circle):
    """One side of a box, as the half of a circle twice as long: even functions have no slope at the walls."""

    def __init__(self, period, resolution):
        super().__init__(period, resolution)
        self.n_inputs //= 2

    def inputs(self, z, clock):
        return (z * z.new_tensor(self.frequency)).cos()

    def field(self, z, c, clock):
        s = (z * (2 * np.pi / self.period)).sin()
        return c * (s / (s * s + _WINDOW**2).sqrt()) * _fade(clock.t, self.slowest)


class _Sphere:
    def __init__(self, factor, even, slowest, resolution, rng):
        self.radius, self.even, self.slowest = factor.radius, even, slowest
        w = factor.width
        self.waves = _waves(w, factor.radius / resolution, rng)
        self.pairs = np.array(np.triu_indices(w))
        if even:
            self.n_inputs = self.n_outputs = self.pairs.shape[1]
            self.n_inputs += self.waves.shape[1]
        else:
            self.n_inputs, self.n_outputs = w + 2 * self.waves.shape[1], w

    def inputs(self, z, clock):
        u = z / self.radius
        if not self.even:
            return _with_waves(u, self.waves)
        i, j = self.pairs
        return backend().cat([u[:, i] * u[:, j], (u @ u.new_tensor(self.waves)).cos()], -1)

    def field(self, z, c, clock):
        u = z / self.radius
        if self.even:
            i, j = self.pairs
            C = c.new_zeros(len(c), u.shape[1], u.shape[1])
            C[:, i, j] = c
            c = ((C + C.mT) @ u[..., None])[..., 0]
        return (c - (c * u).sum(-1, keepdim=True) * u) * _fade(clock.t, self.slowest)


class _Hyperbolic:
    def __init__(self, factor, resolution, rng):
        self.radius = factor.radius
        self.waves = _waves(factor.dim, factor.radius / resolution, rng)
        self.n_inputs, self.n_outputs = factor.dim + 2 * self.waves.shape[1], factor.dim

    def inputs(self, z, clock):
        aside, height = z[:, :-1], z[:, -1:]
        up = ((aside * aside).sum(-1, keepdim=True) + (height - 1) * (height + 1)) / (2 * height)
        X = backend().cat([aside / height, up], -1)  # of the hyperboloid; its length is sinh of the distance
        square = (X * X).sum(-1, keepdim=True) + 1e-12  # arsinh(s)/s is smooth; its root is not, at the middle
        size = square.sqrt()
        return _with_waves(X * (size.asinh() / size), self.waves)

    def field(self, z, c, clock):
        return c * (1 + 1 / clock.t).sqrt()


class _Orbits:
    """A quotient: bumps about anchors, added up over their copies, and their gradients."""

    def __init__(self, part, factors, unit, slowest, Z, resolution, rng):
        A, b = affine_maps(part)
        some = Z[rng.choice(len(Z), _ANCHORS // 2)]
        anchors = np.concatenate([some, part.random(_ANCHORS - len(some), rng) / unit])
        copies = np.einsum("gij,aj->gai", A, anchors) + (b / unit)[:, None]
        self.slowest, self.factors = slowest, factors
        # one length for all coordinates of flat space, as an isometry may exchange them
        lines = [Z[:, s].ravel() for f, s in factors if f.kind == "line"]
        self.scale = [float(np.concatenate(lines or [np.zeros(1)]).std()) or 1.0] * len(factors)
        self.copies = np.concatenate([_flat_numpy(f, copies[..., s], scale)
                                      for (f, s), scale in zip(factors, self.scale, strict=True)], axis=-1)
        sharp = np.clip(min((f.scale or x) for (f, _), x in zip(factors, self.scale, strict=True)) / resolution, 2, 8)
        self.sharpness = np.geomspace(1.0, sharp**2, 4)[np.arange(_ANCHORS) % 4]
        self.n_inputs = self.n_outputs = _ANCHORS

    def _bumps(self, z):
        """Return the points in flat coordinates (n, w), and the bumps of all copies (n, copies, anchors)."""
        torch = backend()
        flat = torch.cat([_flat(f, z[:, s], x) for (f, s), x in zip(self.factors, self.scale, strict=True)], -1)
        copies = z.new_tensor(self.copies)
        square = ((flat[:, None, None] - copies) ** 2).sum(-1)
        return flat, copies, (-0.5 * z.new_tensor(self.sharpness) * square).exp()

    def inputs(self, z, clock):
        return self._bumps(z)[2].sum(1)

    def field(self, z, c, clock):
        torch = backend()
        flat, copies, bumps = self._bumps(z)
        share = bumps * (c * z.new_tensor(self.sharpness))[:, None]
        pull = torch.einsum("nga,gaw->nw", share, copies) - share.sum((1, 2))[:, None] * flat
        out, start = [], 0
        for (f, s), x in zip(self.factors, self.scale, strict=True):
            width = _flat_width(f)
            out.append(_back(f, z[:, s], pull[:, start:start + width], x))
            start += width
        return torch.cat(out, -1) * _fade(clock.t, self.slowest)


class _Group:
    """A group of matrices, whose tangent spaces are those at the identity, moved."""

    def __init__(self, manifold, resolution, rng):
        self.manifold, self.slowest = manifold, manifold.smallest_eigenvalue
        self.unit = float(np.linalg.norm(manifold.random(1, np.random.default_rng(0)))) / np.sqrt(manifold.embed_dim)
        self.waves = _waves(manifold.embed_dim, 1.0 / resolution, rng)
        self.n_inputs, self.n_outputs = manifold.embed_dim + 2 * self.waves.shape[1], manifold.dim

    def inputs(self, z, clock):
        return _with_waves(z / self.unit, self.waves)

    def field(self, z, c, clock):
        frame = z.new_tensor(self.manifold.frame(z.detach().cpu().double().numpy()))
        return backend().einsum("nd,ndw->nw", c, frame) * _fade(clock.t, self.slowest)


def _wave_numbers(period, resolution):
    numbers = np.array(_WAVE_NUMBERS, dtype=float)
    return numbers[numbers <= max(period / (2 * np.pi * resolution), 4.0)]


def _waves(width, reach, rng):
    """Return wave vectors (width, count) of lengths from 1 to about `reach`; none in many dimensions."""
    if width > _WAVES_DIM:
        return np.zeros((width, 0))
    W = rng.standard_normal((width, _WAVES // 2 if width > 1 else _WAVES // 4))
    return W * np.geomspace(1.0, np.clip(reach, 2.0, 16.0), W.shape[1]) / np.sqrt(width)


def _with_waves(x, waves):
    phase = x @ x.new_tensor(waves)
    return backend().cat([x, phase.cos(), phase.sin()], -1)


def _fade(t, slowest):
    r"""Return the size of a score at time t: :math:`t^{-1/2}` at first, and later that of the slowest mode."""
    if not slowest > 0:
        return t**-0.5
    return (slowest / (slowest * t).expm1()).sqrt()


def _flat_width(f):
    return 2 if f.kind == "circle" else f.width


def _flat(f, z, scale):
    """Write the points of a factor in flat space, lengths being about 1; shape (n, width)."""
    if f.kind == "circle":
        phase = z * (2 * np.pi / f.period)
        return backend().cat([phase.cos(), phase.sin()], -1)
    return z / (f.radius or scale)


def _flat_numpy(f, z, scale):
    if f.kind == "circle":
        phase = z * (2 * np.pi / f.period)
        return np.concatenate([np.cos(phase), np.sin(phase)], axis=-1)
    return z / (f.radius or scale)


def _back(f, z, pull, scale):
    """Turn a gradient in flat coordinates into one of the factor, up to its unit of length; shape (n, width)."""
    if f.kind == "circle":
        phase = z * (2 * np.pi / f.period)
        return pull[:, 1:] * phase.cos() - pull[:, :1] * phase.sin()
    if f.kind == "sphere":
        u = z / f.radius
        return pull - (pull * u).sum(-1, keepdim=True) * u
    return pull


def _parts(manifold, unit=1.0):
    """Yield the parts of products, and the number that their lengths are divided by."""
    if isinstance(manifold, Product):
        for part, a in zip(manifold.parts, manifold.times, strict=True):
            yield from _parts(part, unit * float(np.sqrt(a)))
    else:
        yield manifold, unit


class Layout:
    """What a network is given of a point, and what becomes of its outputs.

    Parameters
    ----------
    manifold : Manifold
        With an exact heat kernel.
    Z : ndarray, shape (n, embed_dim)
        Data, for the scales of flat coordinates and the anchors on quotients.
    resolution : float
        Length that the features are to resolve.
    rng : numpy.random.Generator

    Attributes
    ----------
    n_inputs, n_outputs : int
    """

    def __init__(self, manifold, Z, resolution, rng):
        self.manifold = manifold
        self.pieces = []
        if manifold.kernel == "pairs":
            self.pieces.append((slice(0, manifold.embed_dim), _Group(manifold, resolution, rng)))
        else:
            start = 0
            single = not isinstance(manifold, Product)
            for part, unit in _parts(manifold):
                factors = [replace(f, radius=f.radius and f.radius / unit, period=f.period and f.period / unit)
                           for f in part.factors()]
                width = sum(f.width for f in factors)
                slowest = manifold.smallest_eigenvalue if single else unit**2 * part.smallest_eigenvalue
                self._add(part, factors, unit, slowest, slice(start, start + width), Z, resolution, rng)
                start += width
        self.n_inputs = sum(piece.n_inputs for _, piece in self.pieces)
        self.n_outputs = sum(piece.n_outputs for _, piece in self.pieces)

    def _add(self, part, factors, unit, slowest, columns, Z, resolution, rng):
        if part.n_images > 1 and not isinstance(part, Box) and not (part.antipodal and part.n_images == 2):
            slices, start = [], 0
            for f in factors:
                slices.append((f, slice(start, start + f.width)))
                start += f.width
            self.pieces.append((columns, _Orbits(part, slices, unit, slowest, Z[:, columns], resolution, rng)))
            return
        start = columns.start
        for f in factors:
            s = slice(start, start + f.width)
            start = s.stop
            if f.kind == "line":
                piece = _Line(Z[:, s], resolution, rng)
            elif f.kind == "circle":
                piece = (_Side if isinstance(part, Box) else _Circle)(f.period, resolution)
            elif f.kind == "hyperbolic":
                piece = _Hyperbolic(f, resolution, rng)
            else:
                piece = _Sphere(f, part.n_images > 1, slowest, resolution, rng)
            self.pieces.append((s, piece))

    def inputs(self, z, clock):
        """Return what a network is given of points (n, embed_dim); shape (n, n_inputs)."""
        return backend().cat([piece.inputs(z[:, s], clock) for s, piece in self.pieces], -1)

    def field(self, z, outputs, clock):
        """Return the tangent vectors that outputs (n, n_outputs) mean; shape (n, embed_dim)."""
        parts, start = [], 0
        for s, piece in self.pieces:
            parts.append(piece.field(z[:, s], outputs[:, start:start + piece.n_outputs], clock))
            start += piece.n_outputs
        return backend().cat(parts, -1)

    def gaussian(self, z, clock):
        """Return the score that the means and variances of flat coordinates alone give; shape (n, embed_dim)."""
        parts = [piece.gaussian(z[:, s], clock) if isinstance(piece, _Line) else z.new_zeros(z[:, s].shape)
                 for s, piece in self.pieces]
        return backend().cat(parts, -1)

    def directions(self, Z):
        """Return orthonormal frames at points, as tangent vectors and as rates of change of the coordinates.

        Parameters
        ----------
        Z : ndarray, shape (n, embed_dim)

        Returns
        -------
        frame, velocity : ndarray, shape (n, dim, embed_dim)
        """
        m = self.manifold
        frame = m.frame(Z)
        if m.kernel == "pairs" or not any(f.kind == "hyperbolic" for f in m.factors()):
            return frame, frame
        return frame, np.stack([Manifold.velocity(m, Z, frame[:, k]) for k in range(m.dim)], axis=1)

    def divergence(self, z, s, frame, velocity, create_graph=False):
        r"""Return the divergence of a field s that was computed from points z with a graph; shape (n,).

        Parameters
        ----------
        z, s : tensor, shape (n, embed_dim)
        frame, velocity : tensor, shape (n, k, embed_dim)
            :meth:`directions`, or one random combination of them for an estimate (Hutchinson).
        create_graph : bool
            Whether the result is to be differentiated again.

        Notes
        -----
        :math:`\sum_k\partial_{e_k}\langle s,e_k\rangle` with each :math:`e_k` held constant as a vector of the space
        around: the tangential part of the derivative, whose trace is the divergence. In the frame of the half-space
        the last field has a divergence of its own, :math:`-(d-1)/R`.
        """
        torch = backend()
        total = s.new_zeros(len(s))
        for k in range(frame.shape[1]):
            along = (s * frame[:, k]).sum()
            if not along.requires_grad:
                continue
            slope = torch.autograd.grad(along, z, create_graph=create_graph, retain_graph=True, allow_unused=True)[0]
            if slope is not None:
                total = total + (slope * velocity[:, k]).sum(-1)
        if self.manifold.kernel == "factors":
            for f, cols in self.manifold.pieces():
                if f.kind == "hyperbolic":
                    total = total - (f.dim - 1) / f.radius * s[:, cols.stop - 1]
        return total

