r"""Mixtures of smoothers: several bandwidths at once, weighted by what they predict of the observations left out.

One bandwidth is a compromise between the places where data are dense and those where they are sparse. Here the density
is a convex combination :math:`\hat p=\sum_c\pi_c\hat p_c` of

* smoothers with one time for all observations, on a geometric grid;
* smoothers whose times, or whose shapes, follow the k nearest neighbours (:mod:`rdks.adaptive`);
* the uniform law, where the volume is finite.

The weights maximise the leave-one-out log-likelihood

.. math:: \ell(\pi)=\sum_iw_i\log\sum_c\pi_c\,\hat p_{c,-i}(X_i),

a concave function, by expectation-maximisation. To the observations one more is added, that nothing but the uniform law
reaches (the widest kernel, where the volume is infinite), as a draw yet to come may lie where no kernel reaches: narrow
kernels would give it a likelihood of almost nothing, and no observation tells. So that law keeps a weight of 1/(n + 1)
or more, which costs the observations together no more than one nat, and no log density is below
:math:`-\log((n+1)V)` on a space of volume V. Every part is a sum of heat kernels, so the mixture is one too: as
many sources as observations and levels of time, and, for the uniform law, one source of a time so long that nothing
else is left of its kernel.
"""
from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
from joblib import effective_n_jobs

from .adaptive import Grid, Neighborhoods
from .bandwidth import other_shares, progress, representatives, search_range
from .errors import UnsupportedError

__all__ = ["Component", "Mixture", "abramson_times", "fit_knn", "fit_mixture", "maximise_weights"]

_NEIGHBOURS = (3, 6, 12, 24, 48)
_SCALES = {"knn": (0.5, 1.0, 2.0), "local": (0.5, 1.0)}
_SHRINK = {"knn": lambda d: 1.0, "local": lambda d: 0.1 if d == 2 else 0.25}  # what is made isotropic, by dimension
_BEYOND = 64.0         # and beyond it, in spaces without end, whose tails want longer times
_SPAN = 1024.0         # how far adaptive times may be from the square of a given bandwidth
_BELOW = 64.0          # how far the grid goes below the range that a rule searches, if nothing is known of a resolution
_ROWS = 3000           # observations that are left out, one at a time, at most
_LEAST = 1e-4          # weight below which a component is dropped
_WORTH = 2.0           # nats of log-likelihood of all observations together that a component must be worth
_GAP = 1e-5            # nats per observation that the weights may be from the best ones
_CLIP = 32.0           # the most that the times of Abramson's rule differ from the given one, a power of two
_UNIFORM = 80.0        # time of the uniform law, in units of one over the smallest eigenvalue: exp(-40) is left


@dataclass(frozen=True)
class Component:
    """A smoother of a mixture.

    Attributes
    ----------
    kind : {"fixed", "knn", "local", "uniform"}
        One bandwidth for all; times by the mean square distance of the k nearest neighbours; shapes by their second
        moments; the uniform law.
    weight : float
    bandwidth : float or None
        Of a "fixed" one.
    k : int or None
    scale : float or None
        Factor on the standard deviation of the neighbours.
    """

    kind: str
    weight: float = 0.0
    bandwidth: float | None = None
    k: int | None = None
    scale: float | None = None

    def __str__(self):
        what = {"fixed": f"bandwidth {self.bandwidth:.4g}" if self.bandwidth else "", "uniform": "uniform",
                "knn": f"{self.k} neighbours, scale {self.scale:g}" if self.k else "",
                "local": f"{self.k} neighbours, scale {self.scale:g}, local metric" if self.k else ""}[self.kind]
        return f"{self.weight:.3f} {what}"


@dataclass(frozen=True)
class Mixture:
    """What a mixture of smoothers is made of.

    Attributes
    ----------
    components : tuple of Component
        Those of positive weight, the heaviest first. Weights sum to 1.
    bandwidth : float
        Root of the geometric mean of the times, the uniform part left out.
    log_likelihood : float
        Mean leave-one-out log-likelihood per observation, in nats.
    gap : float
        Bound of what other weights of these components could add to the mean that they maximise, in which one
        observation more counts: see :mod:`rdks.mixture`.
    floor : float
        Smallest bandwidth that was allowed.
    n_tried : int
        Components that were tried.
    n_iter : int
        Steps of expectation-maximisation.
    """

    components: tuple
    bandwidth: float
    log_likelihood: float
    gap: float
    floor: float
    n_tried: int
    n_iter: int

    def __str__(self):
        head = f"mixture of {len(self.components)} of {self.n_tried} smoothers, leave-one-out {self.log_likelihood:.4g}"
        return "\n".join([head, *map(str, self.components)])


def maximise_weights(logs, share, start=None, gap=_GAP, most=20_000):
    r"""Find the convex combination of densities that makes observations most likely.

    Parameters
    ----------
    logs : ndarray, shape (n, c)
        Log densities of c components at n observations; each row has a finite one.
    share : ndarray, shape (n,)
        Weights of the observations, which sum to 1.
    start : ndarray, shape (c,), optional
        Weights to begin with; equal ones by default.
    gap : float
        Stop when no other weights can gain more than this, in nats.
    most : int
        Steps at most.

    Returns
    -------
    weight : ndarray, shape (c,)
    value : float
        :math:`\sum_iw_i\log\sum_c\pi_cF_{ic}`.
    gap : float
        By concavity :math:`\max_c\sum_iw_iF_{ic}/(F\pi)_i-1` bounds what is missing from the best value.
    steps : int

    Notes
    -----
    Expectation-maximisation, :math:`\pi_c\leftarrow\pi_c\sum_iw_iF_{ic}/(F\pi)_i`, never decreases the value. Every
    third step extrapolates the last two by squared polynomial extrapolation (Varadhan and Roland, Scandinavian Journal
    of Statistics 35 (2008) 335, scheme S3, equation 9); it is taken back where the value would fall.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.mixture import maximise_weights
    >>> F = np.array([[1.0, 0.1], [0.1, 1.0], [1.0, 0.1]])
    >>> weight, *_ = maximise_weights(np.log(F), np.full(3, 1 / 3))
    >>> weight.round(2)
    array([0.7, 0.3])
    """
    top = logs.max(axis=1)
    F = np.exp(logs - top[:, None])
    base = float(share @ top)
    pi = np.full(F.shape[1], 1 / F.shape[1]) if start is None else start / start.sum()

    def step(pi):
        """One step of expectation-maximisation from pi; with the value and the gap at pi."""
        q = F @ pi
        slope = (share / q) @ F
        return pi * slope, float(share @ np.log(q)) + base, float(slope.max()) - 1.0

    done = 0
    one, value, missing = step(pi)
    while missing > gap and done < most:
        two, *_ = step(one)
        r, v = one - pi, (two - one) - (one - pi)
        size = np.sqrt(v @ v)
        alpha = -max(np.sqrt(r @ r) / size, 1.0) if size > 0 else -1.0
        leap = pi - 2 * alpha * r + alpha * alpha * v
        # never out of the simplex, nor on a face of it, which steps of expectation-maximisation cannot leave
        leap = np.maximum(leap, 0.1 * two)
        leap /= leap.sum()
        onward, level, rest = step(leap)
        done += 3
        if level < value or not np.isfinite(level):
            leap = two
            onward, level, rest = step(leap)
        pi, one, value, missing = leap, onward, level, rest
    return pi, value, missing, done


def _family(manifold, grid, n, uniform):
    """List the components to try."""
    parts = [Component("fixed", bandwidth=float(np.sqrt(t))) for t in grid.times]
    if manifold.kernel != "basis":
        kinds = ("knn", "local") if manifold.dim > 1 else ("knn",)
        parts += [Component(kind, k=k, scale=s) for kind in kinds for k in _NEIGHBOURS if k + 2 <= n
                  for s in _SCALES[kind]]
    return parts + [Component("uniform")] * uniform


@dataclass
class _Family:
    """Components on given observations."""

    data: object
    grid: Grid
    copies: np.ndarray
    others: np.ndarray
    workers: int
    near: Neighborhoods | None = field(default=None, repr=False)

    def shrink(self, part):
        return _SHRINK[part.kind](self.data.manifold.dim)

    def neighborhoods(self):
        if self.near is None:
            self.near = Neighborhoods(self.data, min(_NEIGHBOURS[-1], len(self.data.Z) - 2))
        return self.near

    def leave_one_out(self, part, rows):
        """Return the log of what a component predicts at `rows` from the other observations; (r,)."""
        data, copies = self.data, self.copies[rows]
        share = data.share[rows]
        others = np.log(np.where(copies > 1, 1 - share / copies, self.others[rows]))
        if part.kind == "uniform":
            return np.full(len(rows), -data.manifold.log_volume)
        if part.kind == "fixed":
            logs = data.leave_one_out(part.bandwidth**2, rows)
            more = np.flatnonzero(copies > 1)
            if more.size:
                own = data.log_self(part.bandwidth**2, rows[more])
                logs[more] = np.logaddexp(logs[more], own + np.log(share[more] * (1 - 1 / copies[more])))
            return logs - others
        logs = self.neighborhoods().leave_one_out(part.k, part.scale, self.grid, self.shrink(part), rows, self.copies)
        return logs - others

    def table(self, parts, rows, tick):
        """Return `leave_one_out` of all components, (r, c), a thread for each."""
        out = np.empty((len(rows), len(parts)))

        def one(c):
            out[:, c] = self.leave_one_out(parts[c], rows)
            tick(parts[c].kind)

        if any(part.kind in _SHRINK for part in parts):
            self.neighborhoods()  # before threads ask for them
        if self.workers == 1:
            for c in range(len(parts)):
                one(c)
        else:
            with ThreadPoolExecutor(self.workers) as pool:
                list(pool.map(one, range(len(parts))))
        return out

    def state(self, parts):
        """Return sources, weights and times of the mixture, and the observation that each source belongs to."""
        data = self.data
        n, levels = len(data.Z), self.grid.count
        plain = np.zeros((levels, n))  # sources at the observations themselves, by level of time
        Z, weight, time, whose = [], [], [], []
        for part in parts:
            if part.kind == "uniform":
                whose.append([-1])
                Z.append(data.Z[:1])
                weight.append([part.weight])
                time.append([_UNIFORM / data.manifold.smallest_eigenvalue])
            elif part.kind == "fixed":
                plain[self.grid.nearest(np.array([part.bandwidth**2]))[0]] += part.weight * data.share
            else:
                owner, Y, w, level = self.neighborhoods().state(part.k, part.scale, self.grid, self.shrink(part))
                own = np.bincount(owner, minlength=n)[owner] == 1  # a single node is the observation itself
                np.add.at(plain, (level[own], owner[own]), part.weight * w[own])
                whose.append(owner[~own])
                Z.append(Y[~own])
                weight.append(part.weight * w[~own])
                time.append(self.grid.times[level[~own]])
        level, which = np.nonzero(plain)
        return (np.concatenate([data.Z[which], *Z]), np.concatenate([plain[level, which], *weight]),
                np.concatenate([self.grid.times[level], *time]), np.concatenate([which, *whose]))

    def result(self, parts, value, gap, tried, steps):
        """Return the mixture, and what `state` returns."""
        Z, weight, time, owner = self.state(parts)
        kernels = time <= self.grid.times[-1]  # all but the uniform law, if there is anything else
        kernels |= not weight[kernels].any()
        bandwidth = float(np.exp(0.5 * np.average(np.log(time[kernels]), weights=weight[kernels])))
        floor = float(np.sqrt(self.grid.first))
        return Mixture(tuple(parts), bandwidth, value, gap, floor, tried, steps), Z, weight, time, owner


def _make_family(data, floor, copies, what, least, bandwidth=None):
    """Return the family of components on a grid of times from the floor upwards."""
    n = len(data.Z)
    if n < least:
        raise ValueError(f"{what} needs at least {least} distinct points of positive weight to choose from, found "
                         f"n_samples={n}. Pass a number as bandwidth")
    if what != "bandwidth='mixture'" and data.manifold.kernel == "basis":
        raise UnsupportedError(f"{what} needs geodesics between observations, which {data.manifold!r} has not; use "
                               "bandwidth='mixture', which takes fixed bandwidths there")
    low, high = search_range(data)
    if data.manifold.log_volume == np.inf:
        high *= _BEYOND
    first = max(floor**2, data.manifold.shortest_time)
    grid = Grid(first or low / _BELOW, max(high, 4 * first))
    if bandwidth is not None:
        if bandwidth**2 < first:
            raise ValueError(f"bandwidth = {bandwidth!r} is below the smallest that is allowed, {np.sqrt(first):.4g}")
        grid = Grid(max(first, bandwidth**2 / _SPAN), bandwidth**2 * _SPAN)
    # threads are for components: the sums of each use one
    single = data.like(data.Z, data.weight, 0.0)
    single.n_jobs = 1
    return _Family(single, grid, np.ones(n) if copies is None else copies, other_shares(data.share),
                   effective_n_jobs(data.n_jobs))


def _with_one_unseen(logs, share, wide, n):
    """Return the table and the weights of n observations with one more, that only the component `wide` reaches."""
    row = np.full((1, logs.shape[1]), -np.inf)
    row[0, wide] = 0.0
    return np.concatenate([logs, row]), np.append(n * share, 1.0) / (n + 1)


def _left_out(data):
    """Return the observations that are left out in turn, and the weights of what they say."""
    if len(data.Z) <= 1.25 * _ROWS:
        return np.arange(len(data.Z)), data.share
    # a heavy one stands for several
    rows, times = np.unique(representatives(data, _ROWS), return_counts=True)
    return rows, times / times.sum()


def fit_mixture(data, *, floor=0.0, copies=None, verbose=False):
    """Fit a mixture of smoothers.

    Parameters
    ----------
    data : Sources
        Distinct observations of positive weight at time 0; at least three.
    floor : float
        Smallest bandwidth; 0 for one far below the distances between neighbours.
    copies : ndarray, shape (n,), optional
        Rows of the data that each observation stands for, if a copy of the row that is left out is to count as
        evidence; by default the copies of an observation are left out together.
    verbose : bool
        Show a progress bar.

    Returns
    -------
    mixture : Mixture
    Z : ndarray, shape (P, embed_dim)
    weight, time : ndarray, shape (P,)
        The density: sources, their weights and times.
    owner : ndarray of int, shape (P,)
        The observation that each source belongs to, -1 for the uniform law.

    Notes
    -----
    With more than 3750 observations, the likelihood is that of 3000 of them, spread in space, each left out of all:
    weights that are chosen by so many are as good, to about a thousandth of a nat. Components whose weight is below
    1e-4 are dropped, and one after the other, the lightest first, those without which the log-likelihood of the
    observations together is less by no more than 2 nats: about what a component gains by chance. The one that reaches
    the observation that has not been seen is always kept.

    Raises
    ------
    ValueError
        If there are fewer than three distinct observations.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.choice import sources
    >>> from rdks.manifolds import Circle
    >>> from rdks.mixture import fit_mixture
    >>> Z = np.random.default_rng(0).normal(1.0, 0.1, (300, 1))
    >>> mixture, Z, weight, time, _ = fit_mixture(sources(Circle(), Z, np.ones(300), 0.0))
    >>> round(float(weight.sum()), 12), mixture.log_likelihood > 0.8
    (1.0, True)
    """
    n, manifold = len(data.Z), data.manifold
    family = _make_family(data, floor, copies, "bandwidth='mixture'", 3)
    uniform = bool(np.isfinite(manifold.log_volume) and manifold.smallest_eigenvalue > 0)
    parts = _family(manifold, family.grid, n, uniform)
    tried = len(parts)
    with progress(verbose, "mixture", "component") as tick:
        rows, weight = _left_out(data)
        worth = _WORTH * float(weight @ weight)  # nats of all observations as nats of one
        wide = len(parts) - 1 if uniform else family.grid.count - 1
        logs, weight = _with_one_unseen(family.table(parts, rows, tick), weight, wide, n)
        pi, _, _, steps = maximise_weights(logs, weight, gap=10 * _GAP)
        keep = np.flatnonzero((pi > _LEAST) | (np.arange(tried) == wide))
        if not np.isfinite(logs[:, keep].max(axis=1)).all():
            keep = np.flatnonzero(pi > 0)  # a light observation is out of the reach of all others
        parts, logs = [parts[c] for c in keep], logs[:, keep]
        pi, value, gap, count = maximise_weights(logs, weight, pi[keep])
        for c in np.argsort(pi, kind="stable"):
            rest = [b for b in range(len(parts)) if pi[b] > 0 and b != c]
            if not rest or not np.isfinite(logs[:, rest].max(axis=1)).all():
                continue  # some observation is out of the reach of all others
            less, level, missing, more = maximise_weights(logs[:, rest], weight, pi[rest])
            count += more
            if level > value - worth:
                pi[:] = 0.0
                pi[rest], value, gap = less, level, missing
    parts, logs, pi = [part for part, p in zip(parts, pi, strict=True) if p > 0], logs[:-1, pi > 0], pi[pi > 0]
    value = float(weight[:-1] @ np.logaddexp.reduce(logs + np.log(pi), axis=1)) * (n + 1) / n
    order = np.argsort(-pi, kind="stable")
    parts = [replace(parts[c], weight=float(pi[c])) for c in order]
    return family.result(parts, value, gap, tried, steps + count)


def fit_knn(data, *, floor=0.0, bandwidth=None, copies=None, verbose=False):
    """Fit one smoother whose times follow the nearest neighbours.

    Parameters
    ----------
    data, floor, copies, verbose
        As for :func:`fit_mixture`.
    bandwidth : float, optional
        Root of the geometric mean of the times. By default the scale is chosen with the number of neighbours.

    Returns
    -------
    As :func:`fit_mixture`: of all numbers of neighbours and scales the one of the highest leave-one-out likelihood, in
    which a wide kernel with the weight of one observation is mixed, as a far one would make all candidates alike.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.choice import sources
    >>> from rdks.manifolds import Circle
    >>> from rdks.mixture import fit_knn
    >>> Z = np.random.default_rng(0).normal(1.0, 0.1, (300, 1))
    >>> mixture, Z, weight, time, _ = fit_knn(sources(Circle(), Z, np.ones(300), 0.0), bandwidth=0.03)
    >>> mixture.components[0].kind, bool(abs(np.log(time) @ weight / 2 - np.log(0.03)) < 0.05)
    ('knn', True)
    """
    family = _make_family(data, floor, copies, "adaptive='knn'", _NEIGHBOURS[0] + 2, bandwidth)
    n, share = len(data.Z), data.share
    rows, weight = _left_out(data)
    # an observation that no kernel reaches must not make all candidates alike: one in n of a wide kernel is added
    wide = Component("fixed", bandwidth=float(np.sqrt(family.grid.times[-1])))
    tried = []
    for k in _NEIGHBOURS:
        if k + 2 > n:
            break
        scales = np.geomspace(0.25, 4.0, 9)
        if bandwidth is not None:
            size = np.trace(family.neighborhoods().moments(k), axis1=1, axis2=2) / data.manifold.dim
            scales = [bandwidth / np.exp(0.5 * share @ np.log(size))]
        tried += [Component("knn", 1.0, k=k, scale=float(s)) for s in scales]
    with progress(verbose, "knn", "component") as tick:
        logs = family.table([wide, *tried], rows, tick)
    values = weight @ np.logaddexp(logs[:, 1:], logs[:, :1] - np.log(n))
    best = int(np.argmax(values))
    return family.result([tried[best]], float(values[best]), 0.0, len(tried), 0)


def abramson_times(data, bandwidth, floor=0.0):
    r"""Return times that are inversely proportional to the density.

    Parameters
    ----------
    data : Sources
        Distinct observations at time 0.
    bandwidth : float
    floor : float
        Smallest bandwidth.

    Returns
    -------
    ndarray, shape (n,)
        :math:`h^2G/\tilde p(X_i)`, with the density :math:`\tilde p` of bandwidth h, the own kernel included so that an
        observation that is far from all others counts for no more than that, and G, its geometric mean; not more than a
        factor 32 from h^2, on a geometric grid.

    References
    ----------
    Abramson, Annals of Statistics 10 (1982) 1217: bandwidths as the inverse square root of the density.
    """
    own = data.log_self(bandwidth**2)
    with np.errstate(divide="ignore"):
        pilot = np.logaddexp(data.leave_one_out(bandwidth**2), own + np.log(data.share))
    grid = Grid(bandwidth**2 / _CLIP, bandwidth**2 * _CLIP)
    time = bandwidth**2 * np.exp(np.clip(data.share @ pilot - pilot, -np.log(_CLIP), np.log(_CLIP)))
    return np.maximum(grid.times[grid.nearest(time)], max(floor**2, data.manifold.shortest_time))
