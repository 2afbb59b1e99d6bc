"""Batches of noised points, losses, and the loop that trains a network on them."""
from __future__ import annotations

import math
import signal
import threading
import warnings
from typing import NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from ..manifolds import Box, Torus
from ..sampling import heat_sample
from ..variance import (
    carried_control,
    denoising_loss,
    heat_score,
    implicit_loss,
    noise_levels,
    rao_blackwell_score,
    variance_factor,
)
from .fields import backend

__all__ = ["LOSSES", "Loader", "Plan", "Trainer", "circle_score"]

#: Losses that a network may be trained by.
LOSSES = ("dsm", "ism", "sliced", "stein", "carried", "rao_blackwell")
# Noise levels that occur in training.
_LEVELS = 128
# Batches that are made together: tables and baselines are asked for a noise level once.
_BLOCK = 20
# Noise levels of one batch of averaged targets, whose sums run level by level.
_AVERAGED = 16
# Pairs on which the validation loss is measured.
_VALIDATION = 4096
# Largest norm of a gradient that is followed in full.
_CLIP = 10.0
# Share of the iterations in which the rate rises, and falls.
_RISE, _FALL = 0.05, 0.3
# Bins of log t in which the mixing of denoising and implicit score matching is chosen, and their memory.
_BINS, _MEMORY = 16, 0.98
# Batches by which the variance of the gradient is measured.
_MEASURED = 32
# Largest dimension in which a divergence is computed, not estimated, while training.
_EXACT = 3


def circle_score(D, t, period):
    r"""Evaluate the slope of the log heat kernel of a circle.

    Parameters
    ----------
    D : ndarray, shape (...)
        Differences of query and source, of any number of turns.
    t : ndarray
        Times, broadcast against D.
    period : float

    Returns
    -------
    ndarray
        :math:`\partial_x\log\sum_ke^{-(D+kL)^2/2t}` to 1e-12 of its size, or by the eigenfunctions.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.neural.training import circle_score
    >>> circle_score(np.array([0.5, 5.5]), np.array([0.01, 0.02]), 6.0)
    array([-50.,  25.])
    """
    return _circle(D, t, period)[1]


def _circle(D, t, period):
    """Return the log of the kernel up to a number that depends on t alone, and its slope."""
    x = D / period
    x = x - np.rint(x)
    tau = np.broadcast_to(t / period**2, x.shape)
    early = tau < 0.1  # images at two turns are eight deviations off; later, a fifth wave is 1e-21
    log_k, slope = np.empty(x.shape), np.empty(x.shape)
    y, s = x[early][..., None] + np.arange(-2.0, 3.0), tau[early][..., None]
    power = -0.5 * (y * y - y[..., 2:3] ** 2) / s
    weight = np.exp(power)
    total = weight.sum(-1)
    log_k[early] = np.log(total) - 0.5 * y[..., 2] ** 2 / s[..., 0]
    slope[early] = -(weight * y).sum(-1) / total / s[..., 0]
    k = np.arange(1.0, 6.0)
    amplitude = 2 * np.exp(-2 * np.pi**2 * k * k * tau[~early][..., None])
    phase = 2 * np.pi * k * x[~early][..., None]
    value = 1 + (amplitude * np.cos(phase)).sum(-1)
    log_k[~early] = np.log(value)
    slope[~early] = -(2 * np.pi * k * amplitude * np.sin(phase)).sum(-1) / value
    return log_k, slope / period


def _target(manifold, Z0, Zt, t):
    """Evaluate :func:`.heat_score`, coordinate by coordinate on boxes and tori, where it is a hundred times faster."""
    if isinstance(manifold, Torus):
        period = np.array([f.period for f in manifold.factors()])
        return np.stack([circle_score(Zt[:, j] - Z0[:, j], t, period[j]) for j in range(manifold.dim)], axis=1)
    if isinstance(manifold, Box):
        v = np.empty_like(Zt)
        for j, f in enumerate(manifold.factors()):
            images = np.stack([Zt[:, j] - Z0[:, j], Zt[:, j] + Z0[:, j]])
            log_k, slope = _circle(images, t, f.period)
            share = np.exp(log_k - log_k.max(axis=0))
            v[:, j] = (share * slope).sum(axis=0) / share.sum(axis=0)
        return v
    return heat_score(manifold, Z0, Zt, t)


class Plan(NamedTuple):
    """What is trained, and on what; nothing in it changes while training.

    Attributes
    ----------
    manifold : Manifold
    network : Network
    Z : ndarray, shape (n, embed_dim)
    probability : ndarray, shape (n,) or None
        Of each row; None for all alike.
    valid : ndarray, shape (m, embed_dim)
        Rows that are held out.
    valid_probability : ndarray or None
    times : (float, float)
    loss : str
    weighting : str
    baseline, pretrain : callable or None
        ``(Z, t)`` -> score at one noise level.
    pretrain_until : int
        Iteration up to which the score of `pretrain` is the target.
    n_iter, batch_size, check_every : int
    learning_rate, ema : float
    patience : int or None
    device : str
    verbose : bool
    """

    manifold: object
    network: object
    Z: np.ndarray
    probability: object
    valid: np.ndarray
    valid_probability: object
    times: tuple
    loss: str
    weighting: str
    baseline: object
    pretrain: object
    pretrain_until: int
    n_iter: int
    batch_size: int
    check_every: int
    learning_rate: float
    ema: float
    patience: object
    device: str
    verbose: bool

    def weight(self, t):
        """Return the weights of the loss at noise levels; shape of t."""
        if self.weighting == "likelihood" or not self.manifold.has_drift:
            return t
        return -np.expm1(-t)


class Loader:
    """Draws noised points and their targets.

    Parameters
    ----------
    plan : Plan
    """

    def __init__(self, plan):
        self.plan = plan
        self.levels = noise_levels(*plan.times, _LEVELS)
        self.slow = plan.loss in ("ism", "sliced", "stein")

    def block(self, rng, first=0):
        """Make the batches of `_BLOCK` iterations, the first of which has the number `first`; a dict of arrays."""
        p = self.plan
        shape = (_BLOCK, p.batch_size)
        if p.probability is None:
            rows = rng.integers(0, len(p.Z), shape)
        else:
            rows = rng.choice(len(p.Z), shape, p=p.probability)
        level = self._draw_levels(shape, rng)
        out = self.pairs(p.Z[rows.ravel()], level.ravel(), rng)
        if p.loss == "rao_blackwell":
            v = out["v"].reshape(*shape, -1)
            Zt, t = (out[name].reshape(*shape, *out[name].shape[1:]) for name in ("Z", "t"))
            for b in range(_BLOCK):
                v[b] = rao_blackwell_score(p.manifold, Zt[b], p.Z[rows[b]], t[b])
            out["v"] = v.reshape(len(out["Z"]), -1)
        if p.pretrain is not None and first < p.pretrain_until:
            early = np.repeat(np.arange(first, first + _BLOCK) < p.pretrain_until, p.batch_size)
            out["v"][early] = _by_level(p.pretrain, out["Z"][early], out["t"][early])
            out["early"] = early
        if self.slow:
            frame, velocity = p.network.layout.directions(out["Z"])
            if p.loss == "sliced" or p.manifold.dim > _EXACT:
                sign = rng.choice([-1.0, 1.0], frame.shape[:2])
                frame, velocity = (np.einsum("nk,nkw->nw", sign, x)[:, None] for x in (frame, velocity))
            out["frame"], out["velocity"] = frame, velocity
        return {name: x.reshape(*shape, *x.shape[1:]) for name, x in out.items()}

    def _draw_levels(self, shape, rng):
        """Draw noise levels: even over the range in every batch."""
        if self.plan.loss == "rao_blackwell":
            strata = (np.arange(_AVERAGED) + rng.random((shape[0], _AVERAGED))) / _AVERAGED
            strata = strata[:, np.arange(shape[1]) * _AVERAGED // shape[1]]
        else:
            strata = (np.arange(shape[1]) + rng.random(shape)) / shape[1]
        return self.levels[(strata * _LEVELS).astype(int)]

    def pairs(self, Z, t, rng):
        """Return noised points, noise levels, targets and the baseline's score."""
        p = self.plan
        Zt = p.manifold.project(heat_sample(p.manifold, Z, t, rng))
        out = {"Z": Zt, "t": t, "weight": p.weight(t), "v": _target(p.manifold, Z, Zt, t)}
        if p.loss == "carried":
            out["Z0"] = Z
        if p.baseline is not None:
            out["r"] = _by_level(p.baseline, Zt, t)
        return out

    def validation(self, rng):
        """Return pairs of held-out points, each noised several times; always the same ones."""
        p = self.plan
        n = max(_VALIDATION, len(p.valid))
        rows = (np.arange(n) % len(p.valid) if p.valid_probability is None
                else rng.choice(len(p.valid), n, p=p.valid_probability))
        level = self.levels[((np.arange(n) + rng.random(n)) / n * _LEVELS).astype(int)]
        return self.pairs(p.valid[rng.permutation(rows)], level, rng)


def _by_level(score, Z, t):
    out = np.empty_like(Z)
    for time in np.unique(t):
        rows = t == time
        out[rows] = score(Z[rows], float(time))
    return out


class _Deferred:
    """Puts off an interrupt from the keyboard until the iteration is complete."""

    def __enter__(self):
        self.asked = False
        self.before = None
        if threading.current_thread() is threading.main_thread():
            self.before = signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, number, frame):
        if self.asked:  # twice: at once
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *error):
        if self.before is not None:
            signal.signal(signal.SIGINT, self.before)


class Trainer:
    """Trains a network; everything that it needs to go on is in :meth:`state`.

    Parameters
    ----------
    plan : Plan
    state : dict, optional
        Of an earlier training, to be continued.
    seeds : sequence of int
        Of the weights, the batches and the validation noise; used without `state` and for the validation.
    """

    def __init__(self, plan, seeds, state=None):
        torch = backend()
        self.plan, self.loader = plan, Loader(plan)
        self.device = torch.device(plan.device)
        start = state is None
        weights = plan.network.initial(np.random.default_rng(seeds[0])) if start else state["weights"]
        self.weights = {name: self._tensor(w).requires_grad_() for name, w in weights.items()}
        self.mean = {name: self._tensor(w) for name, w in (weights if start else state["mean"]).items()}
        self.best = {k: w.copy() for k, w in (weights if start else state["best"]).items()}
        self.optimiser = torch.optim.Adam(self.weights.values(), lr=plan.learning_rate)
        self.iteration, self.best_loss, self.stale = 0, math.inf, 0
        self.losses, self.checks = [], []
        self.mixing = np.zeros((4, _BINS))
        self.block_state = np.random.default_rng(seeds[1]).bit_generator.state
        if not start:
            for name in ("iteration", "best_loss", "stale", "block_state"):
                setattr(self, name, state[name])
            self.losses, self.checks = list(state["losses"]), list(state["checks"])
            self.mixing = state["mixing"].copy()
            for w, (step, *moments) in zip(self.weights.values(), state["adam"], strict=True):
                if moments:
                    self.optimiser.state[w] = {"step": torch.tensor(float(step)), "exp_avg": self._tensor(moments[0]),
                                               "exp_avg_sq": self._tensor(moments[1])}
        self.held = None
        if len(plan.valid):
            held = self.loader.validation(np.random.default_rng(seeds[2]))
            self.held = {name: self._tensor(x) for name, x in held.items()}

    def _tensor(self, x):
        torch = backend()
        return torch.tensor(np.asarray(x), dtype=torch.float32, device=self.device)

    def state(self):
        """Return everything that training needs to go on, as arrays of numpy."""
        adam = []
        for w in self.weights.values():
            s = self.optimiser.state.get(w)
            adam.append((float(s["step"]), _array(s["exp_avg"]), _array(s["exp_avg_sq"])) if s else (0.0,))
        return {"weights": _arrays(self.weights), "mean": _arrays(self.mean), "best": self.best, "adam": adam,
                "iteration": self.iteration, "best_loss": self.best_loss, "stale": self.stale,
                "block_state": self.block_state, "losses": list(self.losses), "checks": list(self.checks),
                "mixing": self.mixing.copy()}

    # losses

    def _loss(self, batch, kind):
        """Return the loss of each row, of which gradients flow to the weights."""
        z, t = batch["Z"], batch["t"][:, None]
        slow = kind in ("ism", "sliced", "stein")
        network = self.plan.network
        s = network.score(self.weights, z.requires_grad_(slow), t)
        own = s
        if "r" in batch:
            s = s + batch["r"]
        if slow:
            div = network.layout.divergence(z, own, batch["frame"], batch["velocity"], create_graph=True)
        if kind in ("ism", "sliced"):
            per_row = implicit_loss(s, div)
        elif kind == "dsm" or kind == "rao_blackwell":
            per_row = denoising_loss(s, batch["v"])
        elif kind == "stein":
            per_row = self._controlled(s, batch, (s * batch["v"]).sum(-1) + div)
        else:
            clean = network.score(self.weights, batch["Z0"], t)
            per_row = self._controlled(s, batch, carried_control(self.plan.manifold, clean, batch["Z0"], z, batch["v"]))
        return batch["weight"] * per_row

    def _bin(self, t):
        low, high = np.log(self.plan.times)
        place = (t.log() - low) / (high - low)
        return (place * _BINS).long().clamp(0, _BINS - 1)

    def _controlled(self, s, batch, control):
        """Add twice a control variate to the loss of denoising, times what earlier batches say is best for the level.

        For Stein's identity that mixes denoising and implicit score matching, as :func:`.stein_loss` does.
        """
        torch = backend()
        place = self._bin(batch["t"])
        mean_a, mean_g, product, square = self._tensor(self.mixing)
        spread = square - mean_g**2
        c = -(product - mean_a * mean_g) / torch.where(spread > 0, spread, torch.ones_like(spread))
        loss = denoising_loss(s, batch["v"])
        with torch.no_grad():
            # the square of the target is a number to the network
            a, g = loss - (batch["v"] * batch["v"]).sum(-1), 2 * control
            zero = self._tensor(np.zeros(_BINS))
            count = zero.index_add(0, place, torch.ones_like(a))
            now = torch.stack([zero.index_add(0, place, x) / count.clamp(min=1) for x in (a, g, a * g, g * g)])
            seen = _array(count) > 0
        keep = np.where(self.mixing.any(axis=0), _MEMORY, 0.0)
        new = keep * self.mixing + (1 - keep) * _array(now).astype(float)
        self.mixing = np.where(seen, new, self.mixing)
        return loss + 2 * c.clamp(0.0, 1.0)[place] * control

    def _validate(self):
        """Return the loss of denoising of the averaged weights on the held-out pairs."""
        torch = backend()
        with torch.no_grad():
            s = self.plan.network.score(self.mean, self.held["Z"], self.held["t"][:, None])
            if "r" in self.held:
                s = s + self.held["r"]
            return float((self.held["weight"] * denoising_loss(s, self.held["v"])).mean())

    # training

    def _rate(self):
        """Return the learning rate of this iteration: it rises, stays, and falls."""
        n, i = self.plan.n_iter, self.iteration
        rise = min((i + 1) / max(_RISE * n, 1.0), 1.0)
        fall = min((n - i) / max(_FALL * n, 1.0), 1.0)
        return self.plan.learning_rate * min(rise, fall)

    def _step(self, batch):
        """Take one step; False, and nothing done, if the loss or its gradient is not finite."""
        torch = backend()
        kind = "dsm" if "early" in batch and bool(batch["early"].all()) else self.plan.loss
        loss = self._loss(batch, kind).mean()
        value = float(loss.detach())
        if not math.isfinite(value):
            return False
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if not math.isfinite(float(torch.nn.utils.clip_grad_norm_(self.weights.values(), _CLIP))):
            return False
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate()
        self.optimiser.step()
        self.iteration += 1
        self.losses.append(value)
        keep = min(self.plan.ema, self.iteration / (self.iteration + 10))
        with torch.no_grad():
            for name, w in self.weights.items():
                self.mean[name].lerp_(w, 1 - keep)
        return True

    def _check(self):
        """Measure the validation loss, and keep the best weights; True if it is time to stop."""
        if self.held is None:
            self.best = _arrays(self.mean)
            return False
        loss = self._validate()
        self.checks.append((self.iteration, loss))
        if loss < self.best_loss:
            self.best_loss, self.stale, self.best = loss, 0, _arrays(self.mean)
        else:
            self.stale += 1
        return self.plan.patience is not None and self.stale >= self.plan.patience

    def run(self):
        """Train until the last iteration, or until the validation loss stops falling, or until interrupted.

        Returns
        -------
        str or None
            "interrupted", "not finite", "early" or None.
        """
        from tqdm.auto import tqdm

        p = self.plan
        with _Deferred() as keyboard, tqdm(total=p.n_iter, initial=self.iteration, desc="score matching",
                                           unit=" it", disable=not p.verbose) as bar:
            if not self.checks and self.held is not None:
                self._check()
            block = None
            while self.iteration < p.n_iter:
                within = self.iteration % _BLOCK
                if block is None or within == 0:
                    rng = np.random.default_rng()
                    rng.bit_generator.state = self.block_state
                    block = {k: self._tensor(x) for k, x in self.loader.block(rng, self.iteration - within).items()}
                    following = rng.bit_generator.state
                if not self._step({name: x[within] for name, x in block.items()}):
                    if self.held is None:
                        self._check()
                    return "not finite"
                if self.iteration % _BLOCK == 0:
                    self.block_state = following
                bar.update()
                if self.iteration % p.check_every == 0 or self.iteration == p.n_iter:
                    if self._check():
                        return "early"
                    bar.set_postfix(loss=f"{np.mean(self.losses[-p.check_every:]):.4g}",
                                    validation=f"{self.checks[-1][1]:.4g}" if self.checks else "none")
                if keyboard.asked:
                    if self.held is None:
                        self._check()
                    return "interrupted"
        return None

    def variance_factor(self, rng):
        """Return the variance of the gradient of denoising over that of the loss used, for batches of one size.

        At the weights as they are; 1 for denoising itself.
        """
        if self.plan.loss == "dsm":
            return 1.0
        before = self.mixing.copy()
        plain = Loader(self.plan._replace(loss="dsm", pretrain=None))
        mine = Loader(self.plan._replace(pretrain=None))
        gradients = []
        for loader in (plain, mine):
            rows = []
            while len(rows) < _MEASURED:
                block = {k: self._tensor(x) for k, x in loader.block(rng).items()}
                rows += [self._gradient({k: x[b] for k, x in block.items()}, loader.plan.loss) for b in range(_BLOCK)]
            gradients.append(np.array(rows))
        self.mixing = before
        return variance_factor(*gradients)

    def _gradient(self, batch, kind):
        torch = backend()
        loss = self._loss(batch, kind).mean()
        return np.concatenate([_array(g).ravel() for g in torch.autograd.grad(loss, list(self.weights.values()))])


def warn(outcome, trainer):
    """Warn of a loss that is not finite."""
    if outcome == "not finite":
        kept = "of the lowest validation loss before" if trainer.held is not None else "before it"
        warnings.warn(f"the loss of iteration {trainer.iteration} is not finite: training stops, and the weights are "
                      f"those {kept}. Lower learning_rate, or raise min_time", ConvergenceWarning, stacklevel=3)


def _array(x):
    return x.detach().cpu().numpy().copy()


def _arrays(tensors):
    return {name: _array(w) for name, w in tensors.items()}
