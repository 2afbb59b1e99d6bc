"""Time and memory of each engine against sizes and bandwidth, as rows and as a picture."""
from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from cases import Row, fresh, mixture, size_of
from engine_cases import CAP, MILLION, QUICK_CAP, cached, feasible, timings, warm_up

from rdks import RDKSEstimator
from rdks.choice import AutoSum
from rdks.manifolds import Sphere

__all__ = ["Point", "plot", "scaling"]

ENGINES = ("direct", "neighbors", "spectral")
BANDWIDTH = 0.05


@dataclass
class Point(Row):
    """A row that is a point of the picture.

    Attributes
    ----------
    panel : str
        "n", "m", "h" or "memory".
    engine : str
    x : float
    """

    panel: str = ""
    engine: str = ""
    x: float = 0.0


def scaling(quick):
    """fit + score_samples on the sphere against n, m and h, and peak memory against n = m, by engine."""
    cap = QUICK_CAP if quick else CAP
    most = 10**5 if quick else 10**6
    warm_up()
    rng = np.random.default_rng(0)
    Y, X = mixture(most, rng), mixture(most, rng)
    sizes = [k for k in (10**3, 3 * 10**3, 10**4, 3 * 10**4, 10**5, 3 * 10**5, 10**6) if k <= most]
    cells = [("n", n, n, 10**4, BANDWIDTH) for n in sizes]
    cells += [("m", m, 10**5, m, BANDWIDTH) for m in sizes]
    cells += [("h", h, 10**5, 10**5, h) for h in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)]
    for panel, x, n, q, h in cells:
        run, _, _ = feasible(AutoSum(Sphere(2), Y[:n], np.ones(n), h * h), q, cap, hopeless=np.inf)
        if not run:
            continue

        def once(engine, n=n, q=q, h=h):
            return RDKSEstimator(Sphere(2), bandwidth=h, engine=engine).fit(Y[:n]).score_samples(X[:q])

        works = {engine: lambda engine=engine, once=once: once(engine) for engine in [*run, "auto"]}
        for engine, seconds in zip(works, timings(works, 0.2).min(axis=0), strict=True):
            yield Point(f"fit + log density S2 h={h:g} {engine}", size_of(n, q), seconds, None, "s", panel=panel,
                        engine=engine, x=x)
    if not os.path.exists("/proc/self/status"):
        return
    keep = cached()
    for n in sizes[2::2] if quick else sizes[2:]:
        run, _, _ = feasible(AutoSum(Sphere(2), Y[:n], np.ones(n), BANDWIDTH**2), n, cap, hopeless=np.inf)
        for engine in [*run, "auto"] if run else ():
            amount, _ = map(float, fresh(MILLION.format(manifold="Sphere(2)", n=n, h=BANDWIDTH, engine=engine), **keep))
            yield Point(f"peak memory S2 h={BANDWIDTH:g} {engine}, beyond imports and inputs", size_of(n, n), amount,
                        None, "MiB", panel="memory", engine=engine, x=n)


COLOUR = {"direct": "#d55e00", "neighbors": "#0072b2", "spectral": "#009e73"}  # told apart by colour-blind eyes
PANELS = {"n": ("observations", "10,000 queries, h = 0.05", "seconds"),
          "m": ("queries", "100,000 observations, h = 0.05", "seconds"),
          "h": ("bandwidth h", "100,000 observations, 100,000 queries", "seconds"),
          "memory": ("observations, and as many queries", "peak memory, h = 0.05", "MiB beyond the inputs")}


def spaced(values, least):
    """Move numbers apart as little as needed: returns them in order, `least` between neighbours."""
    values = np.array(values, dtype=float)
    order = np.argsort(values)
    moved = values[order]
    for _ in range(100):
        gap = least - np.diff(moved)
        if not (gap > 1e-9).any():
            break
        push = np.maximum(gap, 0) / 2
        moved[:-1] -= push
        moved[1:] += push
    values[order] = moved
    return values


def plot(points, path):
    """Draw the rows of :func:`scaling`, one panel by kind.

    Parameters
    ----------
    points : list of Point
    path : str
        Where the picture goes.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    fig = Figure(figsize=(9.5, 6.4), layout="constrained")
    axes = fig.subplots(2, 2).ravel()
    for ax, (panel, (x_label, title, y_label)) in zip(axes, PANELS.items(), strict=True):
        lines = {engine: np.array([(p.x, p.ours) for p in points if p.panel == panel and p.engine == engine]).T
                 for engine in (*ENGINES, "auto")}
        lines = {engine: line for engine, line in lines.items() if line.size}
        logs = panel != "memory"
        ax.set(xscale="log", yscale="log" if logs else "linear", xlabel=x_label, ylabel=y_label)
        ax.set_title(title, fontsize=10)
        ends = {}
        for engine, (x, y) in lines.items():
            if engine == "auto":
                ax.plot(x, y, color="0.85", linewidth=9, solid_capstyle="round", zorder=1)
            else:
                ax.plot(x, y, "o-", color=COLOUR[engine], linewidth=1.8, markersize=4, zorder=2)
                ends[engine] = x[-1], y[-1]
        if logs:
            ax.yaxis.set_major_locator(LogLocator(subs=(1.0,)))
            ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
            ax.yaxis.set_minor_formatter(NullFormatter())
            low, high = ax.get_ylim()
            ax.set_ylim(min(low, 10 ** np.floor(np.log10(low * 3))), max(high, 10 ** np.ceil(np.log10(high / 3))))
        else:
            ax.set_ylim(0, 1.1 * ax.get_ylim()[1])
        low, high = ax.get_xlim()
        ax.set_xlim(low, high * (high / low) ** 0.25)
        scale, back = (np.log10, lambda y: 10**y) if logs else (np.asarray, np.asarray)
        heights = back(spaced([scale(y) for _, y in ends.values()], 0.07 * np.ptp(scale(np.array(ax.get_ylim())))))
        for (engine, (x, _)), y in zip(ends.items(), heights, strict=True):
            ax.annotate(engine, (x, y), xytext=(8, 0), textcoords="offset points", va="center", color=COLOUR[engine],
                        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1})
        ax.grid(color="0.93", linewidth=0.8)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
    fig.suptitle("Fit and evaluate a density on the sphere, one thread.   Wide grey line: engine=\"auto\"", fontsize=11)
    fig.savefig(path, dpi=130)
