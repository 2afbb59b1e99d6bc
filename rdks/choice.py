"""Which engine does a sum: the one that is expected to be done first."""
from __future__ import annotations

import numpy as np

from . import radial
from .engines import DirectSum, Sources
from .errors import UnsupportedError
from .harmonics import cost_of, unsupported
from .hierarchy import rates
from .neighbors import NeighborSum, first_depth
from .spectral import SpectralSum, accuracy

__all__ = ["ENGINES", "AutoSum", "choose_engine", "sources"]

#: What `engine` may be.
ENGINES = ("auto", "direct", "neighbors", "spectral")

# Up to this many pairs it takes as long to look for sources that are near as to sum over all.
_FEW = 2_000_000
# Then coefficients must take less than this part of the time of all pairs: boxes that are left out save some of it.
_CLEAR = 0.5
# Seconds on the class of machine in the README: of a pair of query and source for each factor, by form of its table
# (the even series, which serves two images at once, is the last) and order.
_PAIR = np.array([[5e-9, 7.5e-9, 9.5e-9], [1.9e-9, 3.2e-9, 4e-9], [2e-9, 3.6e-9, 4.8e-9], [1e-9, 1.8e-9, 2.4e-9]])
# Of a column beyond the third; of a query and an image; of a source and of an image, to put them in order.
_COLUMN, _QUERY, _ORDER = 2e-10, 1.5e-6, (7e-7, 1.5e-7)
# Sources and queries in the sample that tells how many are near each other.
_SAMPLE = 1024, 32
# Pairs of that sample that tell it.
_TELLING = 64


def sources(manifold, Z, weight, time, n_jobs=None, engine="auto", rtol=1e-6):
    """Make the engine for weighted sources.

    Parameters
    ----------
    manifold, Z, weight, time, n_jobs
        As for :class:`rdks.engines.Sources`.
    engine : {"auto", "direct", "neighbors", "spectral"}
    rtol : float
        Relative accuracy of the engines that are not exact.

    Raises
    ------
    UnsupportedError
        If this engine cannot serve this manifold.
    """
    if manifold.kernel == "basis":
        if engine not in ("auto", "spectral"):
            raise UnsupportedError(f"engine={engine!r} cannot serve {manifold!r}, which is known by the heat flow "
                                   "between its nodes; use 'spectral' or 'auto'")
        from .nodal import NodalSum
        return NodalSum(manifold, Z, weight, time, n_jobs)
    if manifold.kernel == "pairs":
        if engine not in ("auto", "direct"):
            raise UnsupportedError(f"engine={engine!r} cannot serve {manifold!r}, whose kernel is known pair by pair; "
                                   "use 'direct' or 'auto'")
        from .pairs import PairSum
        return PairSum(manifold, Z, weight, time, n_jobs)
    if engine == "direct":
        return DirectSum(manifold, Z, weight, time, n_jobs)
    make = {"auto": AutoSum, "neighbors": NeighborSum, "spectral": SpectralSum}[engine]
    return make(manifold, Z, weight, time, n_jobs, rtol)


class AutoSum(Sources):
    """Sums over sources by whichever engine is expected to be the fastest for the number of queries asked.

    Parameters as for :class:`rdks.neighbors.NeighborSum`. The rule is that of :func:`choose_engine`. What an engine has
    computed is kept for its next turn.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.choice import AutoSum
    >>> from rdks.manifolds import Circle
    >>> total = AutoSum(Circle(), np.zeros((1, 1)), np.ones(1), 0.5)
    >>> choose_engine(total, 10)[0]
    'direct'
    """

    def __init__(self, manifold, Z, weight, time, n_jobs=None, rtol=1e-6):
        super().__init__(manifold, Z, weight, time, n_jobs)
        self.rtol = rtol
        self._made, self._near = {}, None

    def __getstate__(self):
        # coefficients are few and took a pass over the data; trees are neither
        made = {name: engine for name, engine in self._made.items() if name == "spectral"}
        return {**self.__dict__, "_made": made, "_near": None}

    def like(self, Z, weight, time):
        return type(self)(self.manifold, Z, weight, time, self.n_jobs, self.rtol)

    def at(self, time):
        new = super().at(time)
        new._made = {name: engine.at(time) for name, engine in self._made.items()}
        new._near = self._near
        return new

    def near(self, t, depth):
        """Estimate the share of pairs of source and source in which the kernel is not below exp(-depth) of its peak."""
        factors = self.manifold.factors()
        if self._near is None:
            # chords do not depend on the time; the hyperbolic rate is that of squared distances
            counts = max(64, _SAMPLE[0] // self.manifold.n_images), _SAMPLE[1]
            # from all over the data, and not the same ones twice
            some, few = (self.Z[((np.arange(k) + 0.5) / k * len(self.Z)).astype(int)] for k in counts)
            images = self.manifold.images(some)[:, None]
            squares = []
            for f, piece in self.manifold.pieces():
                x, y = few[None, :, None, piece], images[..., piece]
                squares.append(f.dist(x, y) ** 2 if f.hyperbolic else (f.difference(x, y) ** 2).sum(axis=-1))
            self._near = squares  # complete before another thread can see it
        rate = rates(factors, t)
        fall = sum(lam * c for lam, c in zip(rate, self._near, strict=True)).ravel()
        count = int((fall <= depth).sum())
        if count >= _TELLING or fall.size <= _TELLING:
            return count / fall.size
        # too few to tell: as many as there would be if those that are nearest were spread evenly
        reach = np.partition(fall, _TELLING - 1)[_TELLING - 1]
        return _TELLING / fall.size * (depth / reach) ** (0.5 * self.manifold.dim)

    def engine(self, name):
        """Return the engine of that name for these sources."""
        if name not in self._made:
            new = sources(self.manifold, self.Z, self.weight, self.time, self.n_jobs, name, self.rtol)
            self._made = {**self._made, name: new}  # a new dict: other threads may be reading the old
        return self._made[name]

    def compact_order(self):
        return self.engine("neighbors").compact_order()

    def _evaluate(self, Z, t, order, own, n_jobs):
        return self.engine(choose_engine(self, len(Z), t, order)[0])._evaluate(Z, t, order, own, n_jobs)

    def log_overlap(self, t):
        if unsupported(self.manifold) or len(self.Z) ** 2 * self.manifold.n_images <= _FEW:
            return None
        seconds = expected_seconds(self, len(self.Z), t, 0)
        return self.engine("spectral").log_overlap(t) if seconds["spectral"] < min(seconds.values()) * 2 else None


def expected_seconds(total, n_queries, t=0.0, order=0):
    """Estimate how long each engine takes, on one thread of the class of machine in the README.

    Parameters
    ----------
    total : AutoSum
    n_queries : int
        Queries that lie where the sources do.
    t : float
        Time since the state.
    order : int
        0 for the log density, 1 for its gradient too, 2 for its Laplacian too.

    Returns
    -------
    dict
        Seconds by name of the engine; inf for one that cannot serve. Putting sources in order, and coefficients, count
        if they are not there yet.
    """
    manifold, n, images = total.manifold, len(total.Z), total.manifold.n_images
    shortest = float(total.time.min())
    seconds = {}
    for name, depth in (("direct", radial.DEPTH), ("neighbors", first_depth(manifold.dim, total.rtol, order))):
        ready = name in total._made and total._made[name].is_ordered
        seconds[name] = 0.0 if ready else n * (_ORDER[0] + images * _ORDER[1])
        for time, count in zip(*_times(total), strict=True):
            seconds[name] += n_queries * images * (
                _QUERY + count * _pair_seconds(total, float(time) + t, order, depth, name == "neighbors"))
    # boxes that are partly near, and second searches, of which there are more in many dimensions
    seconds["neighbors"] *= 1.2 + 0.06 * max(manifold.dim - 3, 0)
    seconds["spectral"] = _spectral_seconds(total, n_queries, shortest, t, order)
    return seconds


def _times(total):
    """Return the different times of the sources, and how many have each."""
    if total.time.strides == (0,):  # one for all
        return total.time[:1], np.array([len(total.Z)])
    return np.unique(total.time, return_counts=True)


def _pair_seconds(total, time, order, depth=None, always=False):
    """Estimate the seconds of a pair of a query and a source, without those that are too far apart if `depth` is given.

    Where a series serves, sums over all leave none out; `always` says that boxes are left out all the same.
    """
    manifold = total.manifold
    _, time = manifold.flow(total.Z[:1], time)
    form = radial.table(manifold.factors(), time, order, True, manifold.antipodal).form
    share = 1.0 if depth is None or (not always and (form >= 2).any()) else total.near(time, depth)
    return share * (_PAIR[form, order].sum() + _COLUMN * max(manifold.embed_dim - 3, 0))


def _spectral_seconds(total, n_queries, shortest, t, order):
    """Estimate the seconds of coefficients and of values at queries; inf where there are none."""
    manifold = total.manifold
    if unsupported(manifold):
        return np.inf
    _, time = manifold.flow(total.Z[:1], shortest + t)
    known = "spectral" in total._made and total._made["spectral"].knows(t)
    functions = (1, 1 + manifold.dim, 2 + manifold.dim)[order]
    eps = accuracy(manifold, time, total.rtol)
    return cost_of(manifold, time, eps, 0 if known else len(total.Z), n_queries, functions, len(_times(total)[0]))


def choose_engine(total, n_queries, t=0.0, order=0):
    """Choose the engine for a number of queries, and say why.

    The rule, in order:

    1. Up to two million pairs of a query and a source (images counted): ``"spectral"`` if that is expected to take less
       than half as long as all pairs, else ``"direct"``; up to a hundredth of that: ``"direct"``.
    2. ``"spectral"`` if that is expected to take less than the search for sources that are near.
    3. Else the engine with the least :func:`expected_seconds`.

    Parameters as for :func:`expected_seconds`.

    Returns
    -------
    name, reason : str
    """
    n, images, shortest = len(total.Z), total.manifold.n_images, float(total.time.min())
    pairs = n * n_queries * images
    if pairs <= 0.01 * _FEW:
        return "direct", f"few enough pairs of {n} sources and {n_queries} queries"
    spectral = _spectral_seconds(total, n_queries, shortest, t, order)
    least = n * (_ORDER[0] + images * _ORDER[1]) + n_queries * images * _QUERY
    if pairs <= _FEW:
        every = least + pairs * _pair_seconds(total, shortest + t, order)
        if spectral < _CLEAR * every:
            return "spectral", f"expected to take {spectral:.2g} s, and sums over all pairs {every:.2g} s"
        return "direct", f"few enough pairs of {n} sources and {n_queries} queries"
    if spectral < least:
        return "spectral", (f"expected to take {spectral:.2g} s for {n_queries} queries on {n} sources, and the search "
                            f"for those that are near {least:.2g} s")
    seconds = expected_seconds(total, n_queries, t, order)
    name = min(seconds, key=seconds.get)
    others = ", ".join(f"{other} {value:.2g} s" for other, value in seconds.items() if other != name)
    return name, (f"expected to take {seconds[name]:.2g} s on one thread of a common processor for {n_queries} queries "
                  f"on {n} sources ({others})")


def describe(total):
    """Return name and reason of the engine that serves as many queries as there are sources."""
    if total.manifold.kernel == "basis":
        return "spectral", f"{total.manifold!r} is known by the heat flow between its nodes"
    if total.manifold.kernel == "pairs":
        return "direct", f"sums over {len(total.Z)} sources, the kernel evaluated pair by pair"
    if isinstance(total, AutoSum):
        return choose_engine(total, len(total.Z))
    n, images = len(total.Z), total.manifold.n_images
    further = f" and their {images - 1} further images" if images > 1 else ""
    if isinstance(total, SpectralSum):
        kept = f"{n} cells that sum up" if total.cells is not None else f"{n}"
        size = total.moments().coef.size
        return "spectral", f"{size} coefficients of {kept} sources{further}; exact sums where the density is low"
    if isinstance(total, NeighborSum):
        return "neighbors", f"sums over those of {n} sources{further} that matter to rtol={total.rtol:g}"
    return "direct", f"exact sums over {n} sources{further}"
