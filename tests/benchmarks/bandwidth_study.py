"""Which bandwidth rule should be the default: a study on densities that are known.

::

    python tests/benchmarks/bandwidth_study.py [--n N ...] [--repeats R] [--spaces S2 ...] [--out FILE]
    python tests/benchmarks/bandwidth_study.py --requirement [--repeats R]
    python tests/benchmarks/bandwidth_study.py --read FILE ...

For each density of :mod:`densities` and each n, samples are drawn, every rule is fitted as a user would fit it, and its
estimate is compared with the truth: integrated squared error (exact), Kullback-Leibler divergence from the truth (the
expected loss of held-out log-likelihood, at draws of the truth), CPU seconds of `fit`. Both losses are given relative
to the oracle: "mean" to the fixed bandwidth whose mean loss over the same samples is least, "own" to the best
bandwidth of each sample. Bandwidths are those of a grid of ratio 1.15, the minimum of each curve that of the parabola
through its least value and its neighbours. Ratios of one are perfect for a single bandwidth; what adapts may be below
one.

Samples depend on the name of the density, n and the number of the repetition only, so studies can be compared and
continued. One thread. Standard errors are those of the jackknife over repetitions, the oracle included.

``--requirement`` measures one number by itself: the mean integrated squared error of "isj" against that of the best
fixed bandwidth on smooth multimodal densities of S^2 and S^3 at n = 300.
"""
from __future__ import annotations

import os

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"  # before anything imports numpy

import argparse  # noqa: E402
import itertools  # noqa: E402
import json  # noqa: E402
import time  # noqa: E402
import warnings  # noqa: E402
import zlib  # noqa: E402

import numpy as np  # noqa: E402
from densities import DENSITIES, Loss, draw, loss, overlap, sampled_loss  # noqa: E402
from threadpoolctl import threadpool_limits  # noqa: E402
from tqdm import tqdm  # noqa: E402

from rdks import RDKSEstimator  # noqa: E402
from rdks.errors import UnsupportedError  # noqa: E402
from rdks.wiener import WienerDensity  # noqa: E402

#: Estimator and its parameters by name of the rule. What a version or a space does not have is skipped, and said so.
SELECTORS = {
    **{rule: (RDKSEstimator, {"bandwidth": rule}) for rule in ("isj", "lscv", "lcv", "rot", "mixture")},
    **{rule: (RDKSEstimator, {"adaptive": rule}) for rule in ("knn", "abramson")},
    "wiener": (WienerDensity, {}),
}
_RATIO = 1.15
_PAD = 5          # grid points on either side of the first sample's minima
_FARTHEST = 40    # grid points that a search for a minimum may go
_HELD_OUT = 2000
_LIMIT = 2.0      # seconds that a default may take at the largest n
REQUIREMENT = ("S2 modes", "S3 modes"), 300, 1.05


class Curve:
    """Loss by fixed bandwidth for one sample, on the grid h = 1.15^k, computed where asked for."""

    def __init__(self, raw, measure):
        self.raw, self.measure, self.seen = raw, measure, {}

    def __call__(self, k):
        if k not in self.seen:
            self.seen[k] = self.measure(self.raw.at(_RATIO ** (2 * k)))
        return self.seen[k]

    def lowest(self, start, which):
        """Walk downhill to the grid point where a loss is least."""
        k = start
        while abs(k - start) < _FARTHEST:
            step = min((-1, 0, 1), key=lambda s: self(k + s)[which])
            if not step:
                break
            k += step
        return k


def minimum(values):
    """Return the least value of a curve on an even grid: the vertex of the parabola through the lowest three."""
    k = int(np.argmin(values))
    if not 0 < k < len(values) - 1:
        return float(values[k])
    a, b, c = values[k - 1:k + 2]
    bend = a - 2 * b + c
    return float(b - (a - c) ** 2 / (8 * bend)) if bend > 0 else float(b)


def fitted(density, X, rule):
    """Fit; return the estimator, CPU seconds, and whether the choice came with a warning."""
    kind, options = SELECTORS[rule]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        start = time.process_time()
        est = kind(density.truth.manifold, **options).fit(X)
        seconds = time.process_time() - start
    return est, seconds, any("bandwidth=" in str(w.message) for w in caught)


def study(density, n, repeats, rules, bar):
    """Run the repetitions of one density and one n.

    Returns
    -------
    dict
        name, space, kind, n; `bandwidths` and the `oracle` losses on them, (repeats, grid, 2); for each rule
        a list over repetitions of its losses, bandwidth, seconds, and whether it warned; `missing` says why there
        are rules without one.
    """
    square = overlap(density.truth, density.truth)
    curves, runs, missing, span = [], {rule: [] for rule in rules}, {}, None
    for repeat in range(repeats):
        rng = np.random.default_rng([zlib.crc32(density.name.encode()), n, repeat])
        X = draw(density, n, rng)
        Z = density.truth.sample(_HELD_OUT, rng)
        log_p = density.truth.evaluate(Z).log_density

        def measure(state, Z=Z, log_p=log_p):
            return loss(density, state, Z, log_p, square)

        for rule in list(runs):
            try:
                est, seconds, warned = fitted(density, X, rule)
            except UnsupportedError as error:
                missing[rule] = str(error)
                del runs[rule]
                continue
            found = (measure(est._sum) if isinstance(est, RDKSEstimator) else
                     sampled_loss(est.score_samples(density.truth.manifold.unembed(Z)), log_p))
            runs[rule].append({"ise": found.ise, "kl": found.kl, "h": getattr(est, "bandwidth_", None),
                               "seconds": seconds, "warned": warned})
        curve = Curve(RDKSEstimator(density.truth.manifold, bandwidth=1.0).fit(X)._sum, measure)
        if span is None:
            first = [run[0]["h"] for run in runs.values() if run[0]["h"]]
            start = round(np.log(np.median(first)) / np.log(_RATIO))
            ends = [curve.lowest(start, which) for which in (0, 1)]
            span = range(min(ends) - _PAD, max(ends) + _PAD + 1)
        curves.append([curve(k) for k in span])
        bar.update()
    return {"name": density.name, "space": density.space, "kind": density.kind, "n": n,
            "bandwidths": [_RATIO**k for k in span], "oracle": curves, "rules": runs,
            "missing": missing}


def ratio(cell, rule, measure):
    """Compare a rule with the best fixed bandwidth.

    Parameters
    ----------
    cell : dict
        Of `study`.
    rule : str
    measure : {"ise", "kl"}

    Returns
    -------
    mean, error, own : float
        Ratio of mean losses and its standard error (NaN for less than three repetitions), and the median over
        samples of the ratio to the best bandwidth of each.
    """
    curves = np.array(cell["oracle"])[:, :, Loss._fields.index(measure)]
    mine = np.array([run[measure] for run in cell["rules"][rule]])
    n = len(mine)
    own = float(np.median([value / minimum(curve) for value, curve in zip(mine, curves, strict=True)]))
    error = np.nan
    if n > 2:
        left = [np.delete(mine, i).mean() / minimum(np.delete(curves, i, axis=0).mean(axis=0)) for i in range(n)]
        error = float(np.sqrt((n - 1) * np.var(left)))
    return float(mine.mean() / minimum(curves.mean(axis=0))), error, own


def table(cells, rules, n):
    """Write the table of one n."""
    cells = [cell for cell in cells if cell["n"] == n]
    lines = [f"n = {n}: ratio of mean losses to the best fixed bandwidth, with standard error (ISE | KL)",
             "{:<19}".format("density") + "".join(f"{rule:>27}" for rule in rules)]
    for cell in cells:
        row = f"{cell['name']:<19}"
        for rule in rules:
            if rule not in cell["rules"]:
                row += f"{'-':>27}"
                continue
            parts = []
            for measure in ("ise", "kl"):
                mean, error, _ = ratio(cell, rule, measure)
                parts.append(f"{mean:.2f}" + (f"±{error:.2f}" if np.isfinite(error) else "") if mean < 100
                             else f"{mean:.1e}")
            row += f"{parts[0] + ' | ' + parts[1]:>27}"
        lines.append(row)
    return "\n".join(lines)


def summary(cells, rules):
    """Summarise by n, rule and kind of sample: ratios of mean losses over densities, and seconds.

    Samples as drawn, and those that have been copied or rounded, are summarised apart.

    Returns
    -------
    list of dict
    """
    out = []
    for n in sorted({cell["n"] for cell in cells}):
        parts = {"as drawn": [], "copied, rounded": []}
        for cell in cells:
            if cell["n"] == n:
                parts["copied, rounded" if cell["kind"] in ("copies", "rounded") else "as drawn"].append(cell)
        for (samples, all_of_them), rule in itertools.product(parts.items(), rules):
            here = [cell for cell in all_of_them if rule in cell["rules"]]
            if not here:
                continue
            entry = {"n": n, "rule": rule, "samples": samples, "densities": len(here)}
            for measure in ("ise", "kl"):
                means = np.array([ratio(cell, rule, measure)[0] for cell in here])
                worst = int(np.argmax(means))
                entry[measure] = {"geometric_mean": float(np.exp(np.log(means).mean())),
                                  "median": float(np.median(means)), "worst": float(means[worst]),
                                  "worst_density": here[worst]["name"]}
            times = [np.median([run["seconds"] for run in cell["rules"][rule]]) for cell in here]
            entry["seconds"] = {"median": float(np.median(times)), "worst": float(max(times))}
            entry["warned"] = int(sum(run["warned"] for cell in here for run in cell["rules"][rule]))
            out.append(entry)
    return out


def conclusion(entries):
    """Say in words which rule the numbers support as the default."""
    most = max(entry["n"] for entry in entries)
    slow = {}
    for e in entries:
        if e["n"] == most and e["seconds"]["worst"] > _LIMIT and e["samples"] == "as drawn":
            slow[e["rule"]] = max(e["seconds"]["worst"], slow.get(e["rule"], 0.0))
    sets = {}
    for e in entries:
        sets[e["rule"]] = sets.get(e["rule"], 0) + e["densities"]
    few = sorted(rule for rule, count in sets.items() if count < max(sets.values()))
    rules = [rule for rule in sets if rule not in slow and rule not in few]
    said, winners = [], {}
    if few:
        said.append(f"Not on every density, so not compared here: {', '.join(few)}.")
    if slow:
        said.append(f"More than {_LIMIT:g} s at n = {most} on some density, so left out: "
                    + ", ".join(f"{rule} ({seconds:.1f} s)" for rule, seconds in slow.items()) + ".")
    if not rules:
        return "\n".join(said)
    said.append("Geometric means of the loss relative to the best fixed bandwidth, over densities and n (worst "
                "density in brackets):")
    for measure, samples in itertools.product(("kl", "ise"), dict.fromkeys(e["samples"] for e in entries)):
        score, worst = {}, {}
        for rule in rules:
            mine = [e for e in entries if e["rule"] == rule and e["samples"] == samples]
            score[rule] = float(np.exp(np.mean([np.log(e[measure]["geometric_mean"]) for e in mine])))
            worst[rule] = max(e[measure]["worst"] for e in mine)
        order = sorted(rules, key=score.get)
        winners[measure, samples] = order[0]
        what = {"kl": "divergence", "ise": "integrated squared error"}[measure]
        said.append(f"{what}, samples {samples}: "
                    + ", ".join(f"{rule} {score[rule]:.3f} ({worst[rule]:.3g})" for rule in order) + ".")
    by = {measure: sorted({rule for (m, _), rule in winners.items() if m == measure}) for measure in ("kl", "ise")}
    said.append(f"Recommended within {_LIMIT:g} s at n = {most}: for likelihood {' or '.join(by['kl'])}, "
                f"for squared error {' or '.join(by['ise'])}.")
    return "\n".join(said)


def report(cells, rules):
    """Write tables, summary and conclusion."""
    parts = [table(cells, rules, n) for n in sorted({cell["n"] for cell in cells})]
    entries = summary(cells, rules)
    lines = [f"{'n':>6} {'samples':<16} {'rule':<10}{'densities':>9}{'ISE: geom. mean':>16}{'median':>8}{'worst':>9}"
             f"{'KL: geom. mean':>16}{'median':>8}{'worst':>9}{'s median':>10}{'s worst':>9}{'warned':>8}"]
    for e in entries:
        line = f"{e['n']:>6} {e['samples']:<16} {e['rule']:<10}{e['densities']:>9}"
        for measure in ("ise", "kl"):
            line += "{geometric_mean:>16.3f}{median:>8.3f}{worst:>9.3g}".format(**e[measure])
        lines.append(line + "{median:>10.3f}{worst:>9.3f}".format(**e["seconds"]) + f"{e['warned']:>8}")
    missing = [f"{rule} on {cell['name']}: {why}" for cell in cells for rule, why in cell["missing"].items()]
    return "\n\n".join([*parts, "\n".join(lines), *(["\n".join(dict.fromkeys(missing))] if missing else []),
                        conclusion(entries)])


def requirement(cells):
    """Say how the fixed point rule does on the densities for which a bound is required."""
    lines, bound = [], REQUIREMENT[2]
    for cell in cells:
        mean, error, own = ratio(cell, "isj", "ise")
        verdict = ("met" if mean + 2 * error <= bound else "missed" if mean - 2 * error > bound
                   else "met, within the error" if mean <= bound else "missed, within the error")
        lines.append(f"{cell['name']}, n = {cell['n']}, {len(cell['oracle'])} samples: mean ISE(isj) / least mean "
                     f"ISE(h) = {mean:.4f} ± {error:.4f} (required: at most {bound:g}): {verdict}. Median ratio to "
                     f"the best bandwidth of each sample: {own:.3f}")
    return "\n".join(lines)


def finish(cells, rules, options):
    """Write what was asked for: the text, and the file."""
    text = requirement(cells) if options.requirement else report(cells, rules)
    if options.out:
        with open(options.out, "w", encoding="utf-8") as out:
            json.dump({"held_out": _HELD_OUT, "ratio": _RATIO, "cells": cells, "summary": summary(cells, rules),
                       "text": text}, out, indent=1)
    return text


def main():
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, nargs="+", default=[100, 1000], help="sample sizes")
    parser.add_argument("--repeats", type=int, help="samples per density and size; 10, or 100 for --requirement")
    parser.add_argument("--spaces", nargs="+", choices=sorted({d.space for d in DENSITIES}), help="all by default")
    parser.add_argument("--rules", nargs="+", choices=list(SELECTORS), help="all by default")
    parser.add_argument("--out", metavar="FILE", help="where the JSON goes; none is written by default")
    parser.add_argument("--requirement", action="store_true", help="measure 'isj' on S^2 and S^3 at n = 300 only")
    parser.add_argument("--read", metavar="FILE", nargs="+", help="make the tables of studies that were written before")
    options = parser.parse_args()
    if options.read:
        cells = []
        for name in options.read:
            with open(name, encoding="utf-8") as text:
                cells += json.load(text)["cells"]
        print(finish(cells, [rule for rule in SELECTORS if any(rule in cell["rules"] for cell in cells)], options))
        return
    densities, sizes = DENSITIES, options.n
    if options.spaces:
        densities = [d for d in densities if d.space in options.spaces]
    rules = options.rules or list(SELECTORS)
    if options.requirement:
        densities, sizes, rules = [d for d in DENSITIES if d.name in REQUIREMENT[0]], [REQUIREMENT[1]], ["isj"]
    repeats = options.repeats or (100 if options.requirement else 10)
    import rdks._kernels  # noqa: F401  compiled sums from the start, so that seconds compare
    cells = []
    with threadpool_limits(limits=1), tqdm(total=len(densities) * len(sizes) * repeats, unit="sample") as bar:
        for n in sizes:
            for density in densities:
                bar.set_postfix_str(f"{density.name}, n={n}")
                cells.append(study(density, n, repeats, rules, bar))
                text = finish(cells, rules, options)  # each time, so that nothing is lost if the study is stopped
    print(text)


if __name__ == "__main__":
    main()
