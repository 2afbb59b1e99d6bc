"""The main job on real data: the world's airports, from coordinates to a density, a score and draws."""
from __future__ import annotations

import textwrap
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import __version__
from .datasets import load_airports
from .errors import require
from .estimator import RDKSEstimator
from .manifolds import Sphere
from .plotting import DensityDisplay, style_map

__all__ = ["Comparison", "compare", "draw", "main"]

EARTH_KM = 6371.0

#: Bandwidths in degrees that every estimator of the comparison chooses from: ten per decade.
GRID_DEG = np.geomspace(0.3, 3.0, 11)


class _Clock:
    """Seconds per stage, in the order of the stages."""

    def __init__(self):
        self.seconds = {}

    @contextmanager
    def __call__(self, stage):
        start = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - start


@dataclass(frozen=True)
class Comparison:
    """Held-out likelihoods of several estimators on the same points.

    Attributes
    ----------
    rows : list of dict
        One per estimator, with ``name``, ``bandwidth`` in degrees (None for the uniform law),
        ``log_density`` on the held-out points (nats, with respect to area on the unit sphere) and
        ``seconds``, choice of bandwidth included.
    held_out, fitted : ndarray, shape (m, 2) and (n - m, 2)
        Latitude and longitude in degrees.
    """

    rows: list
    held_out: np.ndarray
    fitted: np.ndarray

    @property
    def copies(self):
        """Number of held-out rows that are exact copies of a fitted one."""
        fitted = set(map(tuple, self.fitted))
        return sum(tuple(row) in fitted for row in self.held_out)


def compare(X, *, grid=GRID_DEG, n_jobs=-1, seed=0, verbose=True):
    """Compare held-out likelihoods of this package, scikit-learn and the uniform law.

    One random fifth of the rows is held out. On the others, this package and scikit-learn's
    ``KernelDensity(metric="haversine")`` choose a bandwidth from the same grid by the same
    criterion: fit to a random four fifths, take the bandwidth of the largest likelihood on the last
    fifth, and fit to all of them with it. One more row is this package with its automatic bandwidth.

    Parameters
    ----------
    X : ndarray, shape (n, 2)
        Latitude and longitude in degrees.
    grid : ndarray, shape (k,)
        Bandwidths in degrees.
    n_jobs : int, optional
        Threads for this package; scikit-learn's tree uses one.
    seed : int
        Of the splits.
    verbose : bool
        Show progress bars.

    Returns
    -------
    Comparison
        Rows in the order: this package automatic, from the grid; scikit-learn; the uniform law.

    Examples
    --------
    >>> from rdks.datasets import load_airports
    >>> from rdks.demo import compare
    >>> result = compare(load_airports().data[::40], n_jobs=1, verbose=False)
    >>> len(result.held_out), result.rows[-1]["name"]
    (142, 'uniform law')
    """
    from sklearn.neighbors import KernelDensity
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer
    from tqdm.auto import tqdm

    order = np.random.default_rng(seed).permutation(len(X))
    test, train = np.split(order, [round(0.2 * len(X))])
    check, fit = np.split(train, [round(0.2 * len(train))])
    sphere = Sphere(2, coords="latlon_deg")

    def heat(degrees):
        return RDKSEstimator(sphere, bandwidth=np.deg2rad(degrees), n_jobs=n_jobs)

    def haversine(degrees):
        # its metric wants radians; rtol is how exact the sums are, without which the tree prunes little
        kde = KernelDensity(bandwidth=np.deg2rad(degrees), metric="haversine", rtol=1e-6)
        return make_pipeline(FunctionTransformer(np.deg2rad), kde)

    rows = []
    start = time.perf_counter()
    automatic = RDKSEstimator(sphere, n_jobs=n_jobs, verbose=verbose).fit(X[train])
    rows.append({"name": "rdks, automatic", "bandwidth": np.rad2deg(automatic.bandwidth_),
                 "log_density": automatic.score_samples(X[test]), "seconds": time.perf_counter() - start})
    for name, make in (("rdks, from the grid", heat), ("scikit-learn haversine, from the grid", haversine)):
        start = time.perf_counter()
        scores = [make(h).fit(X[fit]).score(X[check])
                  for h in tqdm(grid, desc=name, unit="bandwidth", disable=not verbose)]
        chosen = float(grid[int(np.argmax(scores))])
        logs = make(chosen).fit(X[train]).score_samples(X[test])
        rows.append({"name": name, "bandwidth": chosen, "log_density": logs,
                     "seconds": time.perf_counter() - start})
    rows.append({"name": "uniform law", "bandwidth": None,
                 "log_density": np.full(len(test), -np.log(sphere.volume)), "seconds": 0.0})
    return Comparison(rows, X[test], X[train])


def draw(estimator, X, samples, *, resolution=180, verbose=True):
    """Draw a fitted density on the globe over its data and as many of its draws.

    Parameters
    ----------
    estimator : RDKSEstimator
        Fitted on a ``Sphere(2)``.
    X, samples : ndarray, shape (n, 2)
        Data and draws, latitude and longitude in degrees.
    resolution : int
        Cells of the map from pole to pole.
    verbose : bool
        Show a progress bar.

    Returns
    -------
    figure : matplotlib.figure.Figure
    display : DensityDisplay

    Examples
    --------
    >>> from rdks import RDKSEstimator
    >>> from rdks.datasets import load_airports
    >>> from rdks.demo import draw
    >>> from rdks.manifolds import Sphere
    >>> X = load_airports().data[::100]
    >>> est = RDKSEstimator(Sphere(2, coords="latlon_deg"), bandwidth=0.1).fit(X)
    >>> figure, display = draw(est, X, est.sample(len(X), random_state=0), resolution=20, verbose=False)
    >>> [ax.get_title() for ax in figure.axes[2:]]
    ['the data: 283 airports', '283 draws from the density']
    """
    mpl = require("matplotlib", feature="the picture of the demo", extra="demo")
    figures = require("matplotlib.figure", feature="the picture of the demo", extra="demo")
    colors = mpl.colormaps["magma"]
    grey = "0.3"
    km = EARTH_KM * estimator.bandwidth_ / estimator.manifold_.radius
    figure = figures.Figure(figsize=(10.7, 9.9), dpi=150, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08, hspace=0.03, rect=(0, 0.008, 1, 0.984))
    places = figure.add_gridspec(2, 2, height_ratios=[2.25, 1])
    top = figure.add_subplot(places[0, :], projection="mollweide")
    display = DensityDisplay.from_estimator(estimator, resolution=resolution, ax=top, verbose=verbose,
                                            cmap=colors, vmin=1e-3, vmax=100.0, refine=3)
    bar = display.colorbar_.ax
    bar.tick_params(colors=grey, length=3, labelsize=11)
    bar.set_xlabel("airports per area, 1 = the mean over the globe (black: less than 0.001)", color=grey,
                   fontsize=11, labelpad=6)
    figure.suptitle("The world's airports as a probability density", fontsize=20, fontweight="bold")
    top.set_title(f"heat-kernel estimate on the sphere, bandwidth {km:.0f} km chosen by the data", color=grey,
                  fontsize=13, pad=12)
    for place, points, title in ((places[1, 0], X, f"the data: {len(X):,} airports"),
                                 (places[1, 1], samples, f"{len(samples):,} draws from the density")):
        ax = figure.add_subplot(place, projection="mollweide", facecolor=colors(0.0))
        style_map(ax)
        latitude, longitude = np.deg2rad(points).T
        ax.scatter(longitude, latitude, s=0.8, linewidths=0, alpha=0.4, color=colors(0.85), rasterized=True)
        ax.set_title(title, color=grey, fontsize=13, pad=8)
    return figure, display


def main(out=".", *, points=None, resolution=180, n_jobs=-1, seed=0, verbose=True):
    """Fit, compare, sample and draw the world's airports; print what was found.

    Parameters
    ----------
    out : str or path
        Folder for ``airports.png``; made if it does not exist.
    points : int, optional
        Take this many random airports instead of all.
    resolution : int
        Cells of the map from pole to pole.
    n_jobs : int, optional
        Threads, as in scikit-learn.
    seed : int
        Of everything that is random.
    verbose : bool
        Show progress bars (on stderr; results go to stdout).

    Returns
    -------
    dict
        ``estimator``, ``comparison`` (from :func:`compare`), ``samples``, ``display``, ``path`` of the
        picture and ``seconds`` by stage.
    """
    require("matplotlib", feature="the demo", extra="demo")  # before minutes of work, not after
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    clock = _Clock()
    with clock("load"):
        X = load_airports().data
        if points is not None:
            if not 100 <= points <= len(X):
                raise ValueError(f"points = {points}: expected 100 to {len(X)}, the number of airports")
            X = X[np.sort(np.random.default_rng(seed).choice(len(X), points, replace=False))]
    copies = len(X) - len(np.unique(X, axis=0))
    print(f"rdks {__version__} on the world's airports\n")

    with clock("fit, bandwidth chosen by the data"):
        est = RDKSEstimator(Sphere(2, coords="latlon_deg"), n_jobs=n_jobs, verbose=verbose).fit(X)
    _table([
        ("points", f"{len(X)}, of which {copies} repeat the coordinates of another (all are kept)"),
        ("manifold", f"{est.manifold_!r}"),
        ("bandwidth", f"{np.rad2deg(est.bandwidth_):.3f} degrees = {EARTH_KM * est.bandwidth_:.1f} km"),
        ("chosen by", est.selection_.reason),
        ("engine", f"{est.engine_}: {est.engine_reason_}"),
    ])

    with clock("held-out comparison"):
        comparison = compare(X, n_jobs=n_jobs, seed=seed, verbose=verbose)
    _print_comparison(comparison)

    with clock(f"{len(X)} draws"):
        samples = est.sample(len(X), random_state=seed)
    with clock("map and picture"):
        figure, display = draw(est, X, samples, resolution=resolution, verbose=verbose)
        path = out / "airports.png"
        figure.savefig(path)

    print("Seconds")
    _table([*((stage, f"{s:8.1f}") for stage, s in clock.seconds.items()),
            ("total", f"{sum(clock.seconds.values()):8.1f}")], width=36)
    print(f"Picture: {path}")
    return {"estimator": est, "comparison": comparison, "samples": samples, "display": display, "path": path,
            "seconds": clock.seconds}


def _table(rows, width=14):
    for name, value in rows:
        print(f"  {name:<{width}}{value}")
    print()


def _print_comparison(result):
    """Print a comparison as a table, and what is to be expected of it."""
    _, heat, haversine, uniform = result.rows
    print("Held-out log-likelihood, nats per point, of densities per unit of area of the unit sphere")
    _say(f"{len(result.held_out)} random airports are held out, {len(result.fitted)} fitted; {result.copies} "
         f"of the former are exact copies of the latter. From the grid: of {len(GRID_DEG)} bandwidths, "
         f"{GRID_DEG[0]:g}° to {GRID_DEG[-1]:g}°, the one that is best on a fifth of the fitted airports.")
    print(f"\n  {'':<38}{'bandwidth':>19}{'per point':>11}{'over uniform':>17}{'seconds':>9}")
    for row in result.rows:
        logs, h = row["log_density"], row["bandwidth"]
        size = "" if h is None else f"{h:.3f}° = {EARTH_KM * np.deg2rad(h):.1f} km"
        gain = "" if row is uniform else "{:+.3f} ± {:.3f}".format(*_mean(logs - uniform["log_density"]))
        print(f"  {row['name']:<38}{size:>19}{logs.mean():>11.4f}{gain:>17}{row['seconds']:>9.1f}")
    difference = heat["log_density"] - haversine["log_density"]
    print("\n  From the grid, rdks minus scikit-learn: mean {:+.5f} ± {:.5f}, ".format(*_mean(difference))
          + f"median {np.median(difference):+.5f}.")
    if heat["bandwidth"] == haversine["bandwidth"]:
        h = np.deg2rad(heat["bandwidth"])
        _say("A tie is expected: on the scale of this bandwidth the sphere is flat, and the heat kernel and "
             "scikit-learn's Gaussian of the great-circle distance differ by a fraction of the order "
             f"h² = {h * h:.0e}. Only the heat kernel has mass one at every bandwidth, and with it a score "
             "field, exact draws and every later time.")
        _explain(result, difference)
    print()


def _explain(result, difference, much=0.01):
    """Where two estimators differ by more than their kernels do, add up scikit-learn's term by term."""
    odd = np.flatnonzero(np.abs(difference) > much)
    if not odd.size:
        return
    from scipy.special import logsumexp
    from sklearn.metrics import pairwise_distances

    _, heat, haversine, _ = result.rows
    worst = odd[np.argmax(np.abs(difference[odd]))]
    h = np.deg2rad(haversine["bandwidth"])
    distance = pairwise_distances(np.deg2rad(result.held_out[[worst]]), np.deg2rad(result.fitted),
                                  metric="haversine")[0]
    added = logsumexp(-0.5 * (distance / h) ** 2) - np.log(2 * np.pi * h * h * distance.size)
    latitude, longitude = result.held_out[worst]
    _say(f"They differ by more than {much:g} at {odd.size} of the held-out points, most at latitude "
         f"{latitude:g}, longitude {longitude:g}: rdks says {heat['log_density'][worst]:.3f}, scikit-learn "
         f"{haversine['log_density'][worst]:.3f}; its own kernels, added up term by term, give {added:.3f}.")


def _say(text):
    print(textwrap.fill(text, 96, initial_indent="  ", subsequent_indent="  "))


def _mean(values):
    """Return the mean and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
