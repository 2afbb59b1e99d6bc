"""Three laws in the plane by which score models are compared, and whose true densities are known."""
from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
from sklearn.mixture import GaussianMixture

from .. import __version__
from ..datasets import TOY2D_SETS, make_toy2d, toy2d_log_density
from ..estimator import RDKSEstimator
from ..manifolds import Box
from . import published, report

__all__ = ["METHODS", "LikelyGaussians", "Method", "main", "render", "run"]


class LikelyGaussians:
    """Mixture of Gaussians of scikit-learn, whose number of components the Bayesian information criterion chooses.

    Parameters
    ----------
    n_components : sequence of int
        Numbers to choose from; those above a tenth of the rows are left out.
    random_state : int

    Attributes
    ----------
    n_components_ : int
        The number of smallest criterion.
    model_ : sklearn.mixture.GaussianMixture

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.benchmarks.toy2d import LikelyGaussians
    >>> X = np.random.default_rng(0).normal([[-2.0, 0.0], [2.0, 0.0]] * 100)
    >>> LikelyGaussians((1, 2, 4)).fit(X).n_components_
    2
    """

    def __init__(self, n_components=(4, 8, 16, 32, 64), random_state=0):
        self.n_components = n_components
        self.random_state = random_state

    def fit(self, X):
        """Fit every number of components to X, (n, 2), and keep the likeliest model; returns self."""
        counts = [count for count in self.n_components if 10 * count <= len(X)] or [1]
        models = [GaussianMixture(count, random_state=self.random_state).fit(X) for count in counts]
        self.model_ = min(models, key=lambda model: model.bic(X))
        self.n_components_ = self.model_.n_components
        return self

    def score_samples(self, X):
        """Return the log density in the plane at X, (n, 2); shape (n,)."""
        return self.model_.score_samples(X)


class Method(NamedTuple):
    """A way to estimate a density.

    Attributes
    ----------
    label : str
    make : callable
        ``make(manifold, seed, n_jobs)`` returns an object with ``fit(X)`` and ``score_samples(X)``.
    chosen : str
        The fitted attribute that says what was chosen.
    ours : bool
        Whether it is this package's.
    """

    label: str
    make: object
    chosen: str
    ours: bool = True


def _smoother(label, bandwidth):
    def make(manifold, seed, n_jobs):
        return RDKSEstimator(manifold, bandwidth=bandwidth, n_jobs=n_jobs)

    return Method(f"rdks, {label}", make, "bandwidth_")


def _operator(level):
    def make(manifold, seed, n_jobs):
        from ..score_matching import OperatorScoreMatching

        return OperatorScoreMatching(manifold, max_level=level)

    return Method(f"operator score matching, {level}", make, "max_level_")


def _gaussians(manifold, seed, n_jobs):
    return LikelyGaussians(random_state=seed)


#: The methods of the tables, by name. Nothing in them depends on the data set.
METHODS = {
    "mixture": _smoother("mixture", "mixture"),
    "lcv": _smoother("lcv", "lcv"),
    "lscv": _smoother("lscv", "lscv"),
    "isj": _smoother("isj", "isj"),
    "oism-8": _operator(8),
    "oism-16": _operator(16),
    "oism-24": _operator(24),
    "oism-auto": _operator("auto"),
    "gaussians": Method("scikit-learn, Gaussian mixture", _gaussians, "n_components_", ours=False),
}


def _fit(name, toy, fresh, best, seed, n_jobs):
    """Fit a method to draws; return what it says of fresh ones, and how long each took."""
    method = METHODS[name]
    start = time.perf_counter()
    model = method.make(Box(toy.bounds), seed, n_jobs).fit(toy.data)
    fitted = time.perf_counter()
    logs = model.score_samples(fresh)
    scored = time.perf_counter()
    lack = best - logs
    value = getattr(model, method.chosen)
    return {"set": toy.name, "seed": seed, "method": name, "n": len(toy.data), "n_test": len(fresh),
            "log_likelihood": float(logs.mean()), "optimum": float(best.mean()), "gap": float(lack.mean()),
            "gap_error": float(lack.std(ddof=1) / np.sqrt(len(fresh))), "fit_seconds": fitted - start,
            "score_seconds": (scored - fitted) * 1000 / len(fresh),
            "details": {method.chosen.rstrip("_"): np.asarray(value).tolist()}, "log_density": logs}


def run(*, sets=TOY2D_SETS, seeds=3, n=5000, n_test=10_000, methods=tuple(METHODS), n_jobs=None, verbose=True):
    """Fit draws from each law on a box with reflecting walls, and compare densities at fresh draws with the true one.

    Parameters
    ----------
    sets : sequence of str
        Laws, of :data:`rdks.datasets.TOY2D_SETS`.
    seeds : int
        Fits of each law to draws of its own, with seeds 0, 1, ...
    n, n_test : int
        Draws that are fitted, and fresh ones.
    methods : sequence of str
        Keys of :data:`METHODS`.
    n_jobs : int, optional
        Threads of the smoothers, as in scikit-learn.
    verbose : bool
        Show a progress bar.

    Returns
    -------
    dict
        ``fits``: one dict per fit, with ``set``, ``seed``, ``method``, ``log_likelihood`` (mean log density of the
        fresh draws in nats, per unit of area), ``optimum`` (that of the true density), ``gap`` (optimum minus
        log_likelihood), ``gap_error`` (its standard error over the draws), ``fit_seconds``, ``score_seconds`` (per
        1,000 fresh draws), ``details`` (what was chosen) and ``log_density``, (n_test,). ``summaries``: what the
        tables show. ``entropy``: by set. ``n``, ``n_test``, ``seeds``.

    Raises
    ------
    ValueError
        If a number is too small or a name unknown.
    """
    from tqdm.auto import tqdm

    for what, given, known in (("methods", methods, tuple(METHODS)), ("sets", sets, TOY2D_SETS)):
        unknown = sorted(set(given) - set(known))
        if unknown or not given:
            raise ValueError(f"{what} = {unknown}: expected names of {known}")
    for name, value, low in (("seeds", seeds, 1), ("n", n, 10), ("n_test", n_test, 2)):
        if value < low:
            raise ValueError(f"{name} = {value}: expected at least {low}")
    fits, entropy = [], {}
    with tqdm(total=len(sets) * seeds * len(methods), unit="fit", disable=not verbose, desc="benchmark toy2d") as bar:
        for name in sets:
            for seed in range(seeds):
                rng = np.random.default_rng([seed, TOY2D_SETS.index(name)])
                toy = make_toy2d(name, n, random_state=rng)
                fresh = make_toy2d(name, n_test, random_state=rng).data
                entropy[name], best = toy.entropy, toy2d_log_density(name, fresh)
                for method in methods:
                    bar.set_postfix_str(f"{name}, {method}")
                    fits.append(_fit(method, toy, fresh, best, seed, n_jobs))
                    bar.update()
    summaries = []
    for name in sets:
        for method in methods:
            mine = _select(fits, name, method)
            summary = {"set": name, "method": method}
            for key in ("fit_seconds", "score_seconds"):
                summary[key] = float(np.median([r[key] for r in mine]))
            for key in ("log_likelihood", "optimum", "gap"):
                values = np.array([r[key] for r in mine])
                summary[key] = float(values.mean())
                summary[f"{key}_spread"] = float(values.std(ddof=1)) if seeds > 1 else None
            summaries.append(summary)
    return {"n": n, "n_test": n_test, "seeds": seeds, "entropy": entropy, "fits": fits, "summaries": summaries}


def _select(entries, name, method):
    return [entry for entry in entries if (entry["set"], entry["method"]) == (name, method)]


def render(result):
    """Write the table of a run, the published one beside it, and how to read both.

    Parameters
    ----------
    result : dict
        What :func:`run` returned.

    Returns
    -------
    str
    """
    sets = list(result["entropy"])
    methods = list(dict.fromkeys(s["method"] for s in result["summaries"]))
    found = {(s["method"], s["set"]): s for s in result["summaries"]}

    def line(label, method, key, digits=3):
        cells = [found[method, name] for name in sets]
        return [label, *(report.number(s[key], s.get(f"{key}_spread"), digits) for s in cells)]

    def lines(key, digits=3):
        return [line(METHODS[method].label, method, key, digits) for method in methods]

    rows = [["measured here: mean log density of fresh draws"],
            ["minus the entropy: the floor", *(f"{-result['entropy'][name]:.3f}" for name in sets)],
            line("the true density, at the same draws", methods[0], "optimum"), *lines("log_likelihood"),
            ["gap: the true density minus the estimate, at the same draws"], *lines("gap", 4),
            ["seconds to fit, median"], *lines("fit_seconds", 2),
            ["seconds per 1,000 points scored, median"], *lines("score_seconds", 2),
            ["published, in units that are not given"]]
    for row in published.TOY2D:
        rows.append([row.method, *(f"{report.number(*row.values[name][:2], 3)} [{row.values[name].mark}]"
                                   if name in row.values else "" for name in sets)])
    source, mark = published.TOY2D[0], published.TOY2D[0].values[TOY2D_SETS[0]].mark
    head = (f"{result['n']:,} draws are fitted on the box [-5.5, 5.5]² with reflecting walls, and {result['n_test']:,} "
            "fresh ones scored, in nats per unit of area: larger is better, the uniform law scores "
            f"{-2 * np.log(11):.3f}. ± is the standard deviation over {result['seeds']} sets of draws.")
    return "\n".join([
        f"rdks {__version__}: three laws in the plane", "", report.paragraph(head), "",
        report.table(["", *sets], rows), "",
        report.paragraph(f"[{mark}] {published.MARKS[mark]}: {source.source}. {source.note}.") + "\n",
        "How to read this", "", *(report.paragraph(text) + "\n" for text in _reading(result, sets, methods, found))])


def _reading(result, sets, methods, found):
    """Yield paragraphs about a run, from its numbers."""
    yield ("What is possible. The density of each law is known, so the gap is between two densities at the same draws: "
           "their luck, by which the log-likelihoods of one set of draws and of another differ, cancels. The mean gap "
           "is the Kullback-Leibler divergence of the estimate from the law; no estimate has a negative one but by "
           "chance.")
    for name in sets if len(methods) > 1 else ():
        order = sorted(methods, key=lambda method: found[method, name]["gap"])
        first = order[0]
        text = (f"{name}: the smallest gap is that of {METHODS[first].label}, "
                f"{report.number(found[first, name]['gap'], found[first, name]['gap_spread'], 4)}. ")
        behind = []
        for method in order[1:]:
            more, error = _behind(result["fits"], name, method, first)
            verdict = "no difference that these draws can show" if more <= 2 * error else f"{more:.4f} nats worse"
            behind.append(f"{METHODS[method].label}: {verdict} (two standard errors: {2 * error:.4f})")
        text += "; ".join(behind) + "."
        best = {own: next((m for m in order if METHODS[m].ours == own), None) for own in (True, False)}
        if None not in best.values():
            more, error = _behind(result["fits"], name, best[False], best[True])
            verdict = ("neither a win nor a loss" if abs(more) <= 2 * error else
                       f"a {'win' if more > 0 else 'loss'} by {abs(more):.4f} nats")
            text += f" The best of ours, {METHODS[best[True]].label}, against {METHODS[best[False]].label}: {verdict}."
        yield text
    if "gaussians" in methods and "8gaussians" in sets:
        yield ("The Gaussian mixture knows the shape of 8gaussians, which is a mixture of eight Gaussians; the other "
               "methods do not, and no other law here is one.")
    above = [f"{name} ({value.mean:.3f} against {-result['entropy'][name]:.3f})" for name, (_, value) in
             ((name, published.best(published.TOY2D, name, sign=-1)) for name in sets)
             if value.mean > -result["entropy"][name]]
    yield ("The published numbers. Neither the scale of the data nor the box, the number of draws or the size of the "
           "basis is given with them. " + (f"On {', '.join(above)} they exceed minus the entropy in the units of the "
           "code that generates these laws, which no density can: the data were rescaled. " if above else "")
           + "So they cannot be compared with ours, and nothing here is a win or a loss against them.")


def _behind(fits, name, method, first):
    """Return how much less likely fresh draws are by a method than by another, and the standard error of that."""
    pairs = zip(_select(fits, name, method), _select(fits, name, first), strict=True)
    lack = np.array([b["log_density"] - a["log_density"] for a, b in pairs])
    points = lack.std(ddof=1) / np.sqrt(lack.size)
    draws = lack.mean(axis=1).std(ddof=1) / np.sqrt(len(lack)) if len(lack) > 1 else 0.0
    return float(lack.mean()), float(max(points, draws))


def main(*, out=None, **options):
    """Run the benchmark, print its table and, if asked, write its numbers.

    Parameters
    ----------
    out : str or path, optional
        File for the numbers, .json or .csv.
    **options
        Of :func:`run`.

    Returns
    -------
    dict
        What :func:`run` returned.
    """
    if out is not None:
        report.check_path(out)
    result = run(**options)
    print(render(result))
    if out is not None:
        fits = [{key: value for key, value in record.items() if key != "log_density"} for record in result["fits"]]
        header = {"benchmark": "toy2d", "rdks": __version__, "unit": "nats, per unit of area",
                  "entropy": result["entropy"], "published": [row._asdict() for row in published.TOY2D]}
        report.save(out, header, fits, result["summaries"])
        print(f"Numbers: {out}")
    return result
