"""A network with noise levels as its second input, written as functions of a dictionary of weights."""
from __future__ import annotations

import math

import numpy as np

from .fields import Clock, backend

__all__ = ["Network"]

# Harmonics of the logarithm of the noise level.
_HARMONICS = 8


class Network:
    r"""The score as a function of weights: a perceptron whose layers are stretched and shifted by the noise level.

    .. math:: h\leftarrow h+\operatorname{silu}\bigl((1+a_i(t))\odot W_ih+b_i(t)\bigr)

    with :math:`a_i,b_i` linear in sines and cosines of log t. The last layer starts at zero, so that an untrained
    network says nothing: the model is its baseline then, exactly.

    Parameters
    ----------
    layout : Layout
    hidden : sequence of int
        Widths of the layers.
    times : (float, float)
        Smallest and largest noise level; beyond the largest the outputs stay as they are there, and only their scale
        goes on falling.
    plain : bool
        Whether the score of the normal law of the same moments is part of the field, in flat space. A model without a
        baseline has it.
    """

    def __init__(self, layout, hidden, times, plain):
        self.layout, self.hidden, self.plain = layout, tuple(int(w) for w in hidden), plain
        self.low, self.high = math.log(times[0]), math.log(times[1])

    def initial(self, rng):
        """Draw weights; a dict of arrays of single precision."""
        weights, fan = {}, self.layout.n_inputs
        for i, width in enumerate(self.hidden):
            weights[f"W{i}"] = rng.standard_normal((fan, width)) * math.sqrt((1.0 if i == 0 else 2.0) / fan)
            weights[f"T{i}"] = rng.standard_normal((2 * _HARMONICS + 2, 2 * width)) * 0.1
            fan = width
        weights["W"] = np.zeros((fan, self.layout.n_outputs))
        weights["T"] = np.zeros((2 * _HARMONICS + 2, self.layout.n_outputs))
        return {name: w.astype(np.float32) for name, w in weights.items()}

    def _time(self, t):
        torch = backend()
        place = ((t.log() - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
        phase = place * (math.pi * torch.arange(1, _HARMONICS + 1, dtype=t.dtype, device=t.device))
        return torch.cat([torch.ones_like(place), 2 * place - 1, phase.cos(), phase.sin()], -1)

    def remainder(self, weights, z, t):
        """Return what the network adds at points z (n, embed_dim) and noise levels t (n, 1); (n, embed_dim)."""
        torch = backend()
        clock = Clock(t, self.layout.manifold.has_drift)
        h, u = self.layout.inputs(z, clock), self._time(t)
        for i, width in enumerate(self.hidden):
            stretch, shift = (u @ weights[f"T{i}"]).split(width, -1)
            new = torch.nn.functional.silu((1 + stretch) * (h @ weights[f"W{i}"]) + shift)
            h = h + new if h.shape[-1] == width and i else new
        return self.layout.field(z, h @ weights["W"] + u @ weights["T"], clock)

    def score(self, weights, z, t):
        """Return the score without the baseline: :meth:`remainder`, with the normal law's for a plain network."""
        s = self.remainder(weights, z, t)
        if self.plain:
            s = s + self.layout.gaussian(z, Clock(t, self.layout.manifold.has_drift))
        return s

    def evaluate(self, weights, Z, t, divergence):
        """Return the score and its divergence, or None, at one noise level; arrays of double precision."""
        torch = backend()
        like = next(iter(weights.values()))
        out, divs = [], []
        for a in range(0, len(Z), 4096):
            some = np.ascontiguousarray(Z[a:a + 4096])
            z = torch.as_tensor(some, dtype=like.dtype, device=like.device)
            time = z.new_full((len(z), 1), t)
            with torch.set_grad_enabled(divergence):
                s = self.score(weights, z.requires_grad_(divergence), time)
                if divergence:
                    frames = (torch.as_tensor(x, dtype=z.dtype, device=z.device)
                              for x in self.layout.directions(some))
                    divs.append(self.layout.divergence(z, s, *frames).detach().cpu().numpy().astype(float))
            out.append(s.detach().cpu().numpy().astype(float))
        if not out:
            return np.zeros(Z.shape), np.zeros(len(Z)) if divergence else None
        return np.concatenate(out), np.concatenate(divs) if divergence else None
