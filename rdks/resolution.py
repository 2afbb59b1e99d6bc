r"""The resolution of data: the length below which they hold no information.

Two things end it. Coordinates are *rounded*, written with so many decimals, in minutes of arc or in single precision;
and rows are *copied*, exactly or up to rounding. Both invite a likelihood to put spikes on the numbers that happen to
be written: with a copy of a held-out row among the rest, its density grows as :math:`h^{-d}` without bound.

Rounding to a step g is convolution with a uniform law, of standard deviation :math:`g/\sqrt{12}`. Kernels of standard
deviation h on an evenly filled grid of step g add up, by Poisson's summation formula, to

.. math:: \sum_k\frac{g}{h\sqrt{2\pi}}e^{-(x-kg)^2/2h^2}=1+2e^{-2\pi^2h^2/g^2}\cos\frac{2\pi x}g+\dots

so at h = g/2 the grid leaves a ripple of 1.4 per cent, at the standard deviation of rounding one of 39 per cent.
Half a step is the least bandwidth at which the grid is gone, and it is the `floor` that follows.
"""
from __future__ import annotations

from dataclasses import dataclass, replace
from math import log, pi

import numpy as np

from .manifolds import Sphere

__all__ = ["Resolution", "merge_copies", "near_groups", "resolution"]

_VALUES = 20_000     # values of a column that are looked at
_SCREEN = 50         # and those that most steps are refuted by
_FEWEST = 6          # distinct values below which nothing can be said: chance makes them even, or round
_ROUND = 0.95        # share of the distinct values that are multiples of the step
_EVIDENCE = 12.0     # decades by which chance is excluded
_ROWS = 500          # rows at which a step is measured
_QUERIES = 20_000    # rows whose nearest neighbour is looked for
_WIDTH = 6           # columns of the tree of points
_GAP = 1e3           # factor between the distances of near-copies and all others
_PAIRS = 9.0         # decades by which chance is excluded
_TINY = 1e-5         # near-copies are closer than this part of the spread
_COMPANY = 8         # neighbours that are looked at to group near-copies


@dataclass(frozen=True)
class Resolution:
    """What data cannot tell apart.

    Attributes
    ----------
    length : float
        Length on the manifold below which the data hold no information; 0.0 if nothing was found.
    step : tuple of (float or None)
        By column of the data as written, the step of the grid that its values lie on.
    n, dim : int
        Rows of positive weight; dimension of the manifold.
    n_copies, n_near : int
        Rows that repeat an earlier row, and distinct points that nearly do; estimated where n > 20,000.
    n_shared : int
        Rows that have a copy or a near-copy.
    near_distance : float
        Distance up to which points are near-copies; 0.0 without any.
    reason : str
        In words.
    """

    length: float
    step: tuple
    n: int
    dim: int
    n_copies: int
    n_near: int
    n_shared: int
    near_distance: float
    reason: str

    @property
    def floor(self):
        """Least bandwidth that makes sense: half the `length`, at which a grid leaves a ripple of 1.4 per cent."""
        return 0.5 * self.length

    @property
    def nats_per_decade(self):
        """What a leave-one-out log-likelihood per row gains, by copies alone, when h is divided by ten."""
        return self.dim * log(10) * self.n_shared / self.n

    def describe(self):
        """Return the text of a :class:`~rdks.errors.DuplicatesWarning`: how many copies, and what they do.

        Examples
        --------
        >>> from rdks.resolution import Resolution
        >>> Resolution(0.0, (None, None), 827, 2, 560, 0, 698, 0.0, "").describe().split(". ")[0]
        '560 of 827 rows are copies of others (there are 267 distinct points)'
        """
        text = (f"{self.n_copies} of {self.n} rows are copies of others (there are {self.n - self.n_copies} distinct "
                "points)")
        if self.n_near:
            text += (f", and {self.n_near} distinct points are copies but for {self.near_distance:.2g}, much less than "
                     "a smooth density would bring two points together")
        return (f"{text}. They are merged into weights before a bandwidth is chosen. Mind likelihoods: "
                f"{100 * self.n_shared / self.n:.3g} % of the rows have a copy, so a held-out log-likelihood gains "
                f"{self.nats_per_decade:.2g} nats per row for each factor of ten by which a bandwidth is made smaller, "
                "without bound; remove copies before you compare models by it")


def resolution(manifold, X, Z, weight=None):
    """Find the length below which data hold no information.

    Parameters
    ----------
    manifold : Manifold
    X : ndarray, shape (n, p) or (n, *point_shape)
        Points as the user wrote them.
    Z : ndarray, shape (n, embed_dim)
        The same embedded.
    weight : ndarray, shape (n,), optional
        Rows of weight zero are not looked at.

    Returns
    -------
    Resolution

    Notes
    -----
    *Steps.* A column lies on a grid if 95 per cent of its distinct values, at least six, are multiples of one of 1, 2,
    2.5 or 5 times a power of ten, of a minute or second of arc or a tenth of one, or of these in degrees written in
    radians, to within rounding, and chance is excluded by twelve decades; the largest such step counts. Numbers with
    so many significant digits, and those of single precision, have a step that grows with them; its median is given.
    Unit vectors of the sphere in three columns are tried as latitude and longitude too. Rounded Euler angles, or any
    chart other than that in which the data are given, are not found.

    The length is that of the finest column: the median over rows of the distance that one step covers. If one column
    is on no grid it is zero, as the data do tell points apart along that one.

    *Near-copies.* Sorted distances to the nearest other point that jump by three decades, where chance is excluded, the
    lower group is below 1e-5 of the spread of the data, and most of it are pairs or triples: tight clusters are
    structure, not copies. Neighbours are looked for among embedded coordinates (of six combinations of them, if there
    are more), from at most 20,000 rows; images under a symmetry of a quotient are not.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.manifolds import Sphere
    >>> from rdks.resolution import resolution
    >>> earth = Sphere(2, coords="latlon_deg", radius=6371.0)
    >>> X = np.random.default_rng(0).uniform([-20, -180], [20, 180], (500, 2)).round(2)
    >>> found = resolution(earth, X, earth.embed(X))
    >>> found.step, round(found.length, 2)  # 0.01 degree of longitude at a latitude of 10 degrees, in km
    ((0.01, 0.01), 1.1)
    """
    X = np.asarray(X, dtype=float).reshape(len(X), -1)
    if weight is not None and not (weight > 0).all():
        X, Z = X[weight > 0], Z[weight > 0]
    n = len(Z)
    first, counts = _copies(Z)
    repeated = n - len(first)
    shared = int(counts[counts > 1].sum())
    if manifold.kernel == "basis":  # points are nodes of a net, which has a resolution of its own
        return Resolution(0.0, (None,) * X.shape[1], n, manifold.dim, repeated, 0, shared, 0.0,
                          "a discretised space, which has its own")
    length, steps, why = _rounding(manifold, X)
    near, distance, alone = _near(manifold, Z[first], counts)
    reasons = [why] if why else []
    if near:
        reasons.append(f"{near} near-copies within {distance:.3g}")
    return Resolution(max(length, distance), steps, n, manifold.dim, repeated, near, min(shared + alone, n), distance,
                      "; ".join(reasons) or "neither a grid nor near-copies were found")


# rounding


@dataclass(frozen=True)
class _Written:
    """How the numbers of a column are written: on a grid, with so many digits, or in single precision."""

    kind: str
    step: float
    digits: int = 0

    def steps(self, x):
        """Return the step at each of some numbers."""
        if self.kind == "grid":
            return np.full(len(x), self.step)
        x = np.maximum(np.abs(x), 1e-30)
        return np.spacing(x.astype(np.float32)).astype(float) if self.kind == "single" else _place(x, self.digits)

    def __str__(self):
        return {"grid": f"{self.step:.4g}", "digits": f"{self.digits} digits", "single": "single precision"}[self.kind]


def _place(x, digits):
    """Return the unit of the last of so many significant digits of positive numbers."""
    return 10.0 ** (np.floor(np.log10(x) + 1e-12) - digits + 1)


def _candidates(most, fine):
    """List steps, largest first: (step, whether it is a power of ten or a part of a degree)."""
    steps = []
    for k in range(int(np.floor(np.log10(fine))), int(np.ceil(np.log10(most))) + 1):
        steps += [(10.0**k, True)] + [(m * 10.0**k, False) for m in (2.0, 2.5, 5.0)]
    steps += [(1 / parts, True) for parts in (60, 600, 3600, 36000)]
    return sorted((step for step in steps if fine <= step[0] <= most), reverse=True)


def _written(x, error=0.0):
    """Find how numbers are written; None if with all their digits.

    Parameters
    ----------
    x : ndarray, shape (n,)
    error : float or ndarray, shape (n,)
        Absolute error of the numbers beyond their own rounding.
    """
    x, where = np.unique(np.abs(x), return_index=True)
    error = np.broadcast_to(error, np.max(where, initial=0) + 1) if np.ndim(error) == 0 else error
    x, error = x[x > 0], error[where][x > 0]
    if len(x) < _FEWEST:
        return None
    single = bool((x == x.astype(np.float32)).all())
    slack = (1.01 * 2.0**-24 * x if single else 8 * 2.0**-53 * x.max()) + error

    def on(g):
        return np.abs(x - g * np.rint(x / g)) <= slack

    def certain(g):
        # chance puts a number on a grid with the probability 2 slack / g
        chance = np.minimum(2 * slack / g, 1.0)
        return np.median(chance) <= 1 - _ROUND and -np.log10(chance).sum() >= _EVIDENCE

    # nearly all steps are refuted by some of the values
    some = np.linspace(0, len(x) - 1, min(_SCREEN, len(x))).astype(int)

    def possible(steps):
        steps = np.asarray(steps, dtype=float).reshape(len(steps), -1)
        ratio = x[some] / steps
        return (np.abs(ratio - np.rint(ratio)) * steps <= slack[some]).mean(axis=1) >= 0.8 * _ROUND

    best = None
    for unit in (1.0, pi / 180):
        steps = _candidates(x.max() / unit / 3, 4 * np.median(slack) / unit)
        for k in np.flatnonzero(possible([g * unit for g, _ in steps])) if steps and not best else ():
            g, plain = steps[k][0] * unit, steps[k][1]
            fits = on(g)
            if not plain:
                # half of the numbers that need one more decimal end in an even digit
                rest = ~on(10.0 ** np.ceil(np.log10(steps[k][0])) * unit)
                fits = fits[rest] if rest.sum() >= 3 * _FEWEST else np.zeros(1)
            if fits.mean() >= _ROUND and certain(g):
                best = _Written("grid", float(g))
                break
    counts = range(2, 16)
    for k in np.flatnonzero(possible([_place(x[some], digits) for digits in counts])):
        g = _place(x, counts[k])
        if on(g).mean() >= _ROUND:
            if certain(g) and (best is None or np.median(g) > best.step):
                best = _Written("digits", float(np.median(g)), counts[k])
            break
    if best is None and single:
        best = _Written("single", float(np.median(np.spacing(x.astype(np.float32)))))
    return best


def _rounding(manifold, X):
    """Return the length that rounding leaves, the step of each column, and both in words."""
    rows = np.linspace(0, len(X) - 1, min(_VALUES, len(X))).astype(int)
    X = X[rows]
    found, what = [_written(x) for x in X.T], "values"
    factors = manifold.factors()
    if None in found and manifold.point_shape == (3,) and len(factors) == 1 and factors[0].kind == "sphere" \
            and factors[0].dim == 2 and manifold.n_images == 1:
        # vectors that were computed from latitudes and longitudes; near a pole longitudes have lost their digits
        chart = Sphere(2, coords="latlon_deg", radius=factors[0].radius)
        angles = chart.unembed(X)
        across = np.cos(np.deg2rad(angles[:, 0]))
        angles, across = angles[across > 0.05], across[across > 0.05]
        pair = [_written(angles[:, 0], 3e-14), _written(angles[:, 1], 3e-14 / across)]
        if all(written is not None and written.kind != "single" for written in pair):
            manifold, X, found, what = chart, angles, pair, "latitudes and longitudes"
    steps = tuple(written and written.step for written in found)
    if None in steps:
        return 0.0, steps, ""
    X = X[np.linspace(0, len(X) - 1, min(_ROWS if manifold.kernel == "factors" else 50, len(X))).astype(int)]
    lengths = [_step_length(manifold, X, j, written.steps(X[:, j])) for j, written in enumerate(found)]
    lengths = [size for size in lengths if size > 0]  # a number that the chart does not read has none
    if not lengths:
        return 0.0, steps, ""
    names = list(map(str, found))
    return min(lengths), steps, f"{what} are rounded to {names[0] if len(set(names)) == 1 else ', '.join(names)}"


def _step_length(manifold, X, column, step):
    """Median over rows of the distance that a step in one column covers; 0.0 where that cannot be told."""
    small = 0.01  # of a step, so that a chart is straight on the way
    move = np.zeros_like(X)
    move[:, column] = 0.5 * small * step
    shape = (len(X), *manifold.point_shape)
    with np.errstate(all="ignore"):  # a step may leave the chart, as at a pole: that row does not count
        ends = [np.asarray(manifold.embed((X + sign * move).reshape(shape))) for sign in (-1, 1)]
    good = np.isfinite(ends[0]).all(axis=1) & np.isfinite(ends[1]).all(axis=1)
    if not good.any():
        return 0.0
    return float(np.median(manifold.dist(ends[0][good], ends[1][good]))) / small


# copies


def _copies(Z):
    """Return the first row of each distinct point, and how often it occurs."""
    Z = np.ascontiguousarray(Z) + 0.0  # one zero
    # rows with the same bits have the same sum: sorted by it, equal rows are neighbours
    odd = np.random.default_rng(0).integers(2**62, size=Z.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    bits = Z.view(np.uint64)
    key = ((bits ^ (bits >> np.uint64(29))) * odd).sum(axis=1, dtype=np.uint64)
    order = np.argsort(key, kind="stable")
    new = np.ones(len(Z), dtype=bool)
    new[1:] = (Z[order[1:]] != Z[order[:-1]]).any(axis=1)
    starts = np.flatnonzero(new)
    return order[starts], np.diff(np.append(starts, len(Z)))


class _Points:
    """Points in a tree in which near-copies are neighbours.

    Angles are points of a circle, and more than six columns are six combinations of them: what is close is close in
    every direction, and hardly anything else is in six of them.
    """

    def __init__(self, manifold, Z):
        from scipy.spatial import cKDTree

        self.manifold, self.Z = manifold, Z
        columns = []
        for f, s in manifold.pieces() if manifold.kernel == "factors" else ():
            angle = Z[:, s] / (f.scale or 1.0)
            columns += [f.scale * np.cos(angle), f.scale * np.sin(angle)] if f.kind == "circle" else [Z[:, s]]
        self.points = np.concatenate(columns, axis=1) if columns else Z
        if self.points.shape[1] > _WIDTH:
            turn = np.random.default_rng(1).standard_normal((self.points.shape[1], _WIDTH))
            self.points = self.points @ (turn / np.sqrt(self.points.shape[1]))
        self.tree = cKDTree(self.points, compact_nodes=False, balanced_tree=False)

    def others(self, rows, count, bound=np.inf):
        """Return the nearest other points, shape (len(rows), count); where there are fewer, the row itself."""
        index = self.tree.query(self.points[rows], k=range(1, min(count, len(self.Z) - 1) + 2),
                                distance_upper_bound=bound)[1]
        index = np.where(index == len(self.Z), rows[:, None], index)
        out = np.repeat(rows[:, None], count, axis=1)
        own = (index == rows[:, None]) & (np.cumsum(index == rows[:, None], axis=1) == 1)
        own[~own.any(axis=1), -1] = True  # among many at a distance of zero it may be missing
        out[:, :index.shape[1] - 1] = index[~own].reshape(len(rows), -1)
        return out

    def apart(self, i, j):
        """Return distances; those of embedded coordinates where Riemannian ones take long."""
        if self.manifold.kernel == "factors":
            return self.manifold.dist(self.Z[i], self.Z[j])
        return np.linalg.norm(self.Z[i] - self.Z[j], axis=1)


def _near(manifold, Z, counts):
    """Count near-copies among distinct points.

    Returns how many of them are surplus, up to which distance, and how many have a near-copy but no exact one.
    """
    n, nothing = len(Z), (0, 0.0, 0)
    if n < 3:
        return nothing
    rows = np.linspace(0, n - 1, min(_QUERIES, n)).astype(int)
    cloud = _Points(manifold, Z)
    other = cloud.others(rows, 1)[:, 0]
    distance = cloud.apart(rows, other)
    r = np.sort(distance)
    spread = np.median(cloud.apart(rows, np.roll(rows, len(rows) // 2)))
    low = int(np.searchsorted(r, _TINY * spread, side="right"))  # so many are close enough for near-copies
    if not 0 < low < len(r):
        return nothing
    least = np.finfo(float).eps * spread
    jump = np.log10(np.maximum(r[1:low + 1], least) / np.maximum(r[:low], least))
    k = int(np.argmax(jump))
    # by chance a pair is closer than the next by a factor q with a probability of at most 1/q
    if jump[k] < np.log10(_GAP) or 0.5 * (k + 1) * jump[k] < _PAIRS:
        return nothing
    near = rows[distance <= r[k]]
    company = cloud.others(near, 3)
    size = 1 + ((cloud.apart(np.repeat(near, 3), company.ravel()) <= 10 * r[k])
                & (company.ravel() != np.repeat(near, 3))).reshape(-1, 3).sum(axis=1)
    if np.median(size) > 3:
        return nothing
    scale, reach = n / len(rows), float(r[k])
    if manifold.kernel != "factors":
        some = np.argsort(distance)[:k + 1][-20:]
        reach = float(manifold.dist(Z[rows[some]], Z[other[some]]).max())
    return max(1, round(scale * float((1 - 1 / size).sum()))), reach, round(scale * int((counts[near] == 1).sum()))


def near_groups(manifold, Z, distance):
    """Group points that are near-copies of each other, directly or by way of others.

    Parameters
    ----------
    manifold : Manifold
    Z : ndarray, shape (n, embed_dim)
        Distinct points.
    distance : float
        `near_distance` of a :class:`Resolution`.

    Returns
    -------
    first : ndarray of int, shape (m,)
        First row of each group.
    which : ndarray of int, shape (n,)
        Group of each row.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.manifolds import Euclidean
    >>> from rdks.resolution import near_groups
    >>> first, which = near_groups(Euclidean(1), np.array([[0.0], [1.0], [1e-9]]), 1e-8)
    >>> first.tolist(), which.tolist()
    ([0, 1], [0, 1, 0])
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    n, rows = len(Z), np.arange(len(Z))
    cloud = _Points(manifold, Z)
    i, j = np.repeat(rows, _COMPANY), cloud.others(rows, _COMPANY).ravel()
    # most neighbours are too far by any measure, and Riemannian distances may take long
    close = cloud.apart(i, j) <= (distance if manifold.kernel == "factors" else _TINY * np.ptp(Z, axis=0).max())
    i, j = i[close & (i != j)], j[close & (i != j)]
    if manifold.kernel != "factors":
        close = manifold.dist(Z[i], Z[j]) <= distance
        i, j = i[close], j[close]
    _, which = connected_components(csr_array((np.ones(len(i)), (i, j)), shape=(n, n)), directed=False)
    _, first, which = np.unique(which, return_index=True, return_inverse=True)
    return first, which


def merge_copies(data, found=None):
    """Merge copies of a point, symmetric ones and near-copies included, into weights.

    Parameters
    ----------
    data : Sources
        Observations of positive weight.
    found : Resolution, optional
        That of the data; without it, only exact and symmetric copies are merged.

    Returns
    -------
    distinct : Sources
        `data` itself if there are no copies.
    which : ndarray of int, shape (n,)
        For each row, the one of them that stands for it.
    found : Resolution
        With what was counted here.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.engines import DirectSum
    >>> from rdks.manifolds import Circle
    >>> from rdks.resolution import merge_copies
    >>> distinct, which, found = merge_copies(DirectSum(Circle(), np.array([[1.0], [2.0], [1.0]]), np.ones(3), 0.0))
    >>> distinct.Z.ravel(), which, found.n_copies
    (array([1., 2.]), array([0, 1, 0]), 1)
    """
    manifold = data.manifold
    if manifold.n_images > 1:
        first, which = _orbits(manifold, data.Z)
        Z = data.Z[first]
    else:
        Z, which = np.unique(data.Z, axis=0, return_inverse=True)
    which, exact = which.ravel(), len(Z)
    if found is None:
        found = Resolution(0.0, (), 0, manifold.dim, 0, 0, 0, 0.0, "not looked for")
    if found.near_distance:
        first, group = near_groups(manifold, Z, found.near_distance)
        Z, which = Z[first], group[which]
    n, count = len(data.Z), np.bincount(which)
    found = replace(found, n=n, n_copies=n - exact, n_near=exact - len(Z), n_shared=int(count[count > 1].sum()))
    if len(Z) == n:
        return data, np.arange(n), found
    return data.like(Z, np.bincount(which, weights=data.weight), 0.0), which, found


def _orbits(manifold, Z):
    """Group points that the group of a quotient makes one, up to rounding.

    Returns the first row of each group, and the group of each row.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    # one image of each: the foremost in a direction in which no symmetry lies
    direction = np.cos(np.arange(1, Z.shape[1] + 1) ** 2 * 1.7)
    foremost = manifold._each("project", Z)
    best = foremost @ direction
    for image in manifold.images(Z)[1:]:
        image = manifold._each("project", image)
        place = image @ direction
        better = place > best + 1e-9 * (1 + np.abs(best))
        best[better], foremost[better] = place[better], image[better]
    # copies are off by rounding: those that share a cell are one, and so are neighbours across its walls
    fine = 1e-11 * np.abs(foremost).max()
    cells, first, which = np.unique(np.rint(foremost / fine), axis=0, return_index=True, return_inverse=True)
    which = which.ravel()
    close = cKDTree(cells).query_pairs(4.0, output_type="ndarray")
    if len(close):
        graph = csr_array((np.ones(len(close)), close.T), shape=(len(cells), len(cells)))
        count, group = connected_components(graph, directed=False)
        earliest = np.full(count, len(Z))
        np.minimum.at(earliest, group, first)
        return earliest, group[which]
    return first, which
