"""Compare rdks with its peers: one command, one thread, one table.

::

    python tests/benchmarks/run.py [--quick] [--only NAME] [--space NAME] [--json FILE] [--plot FILE]

Every row that has a peer runs both in this process, warmed up, in turns (ours, peer, peer, ours,
...): the ratio is the median of the ratios of neighbouring runs, the times are the best of
each. Times in one process are CPU seconds, so that a shared machine disturbs them less; all
arithmetic libraries are held to one thread, so CPU and wall time would agree on an idle machine.
Cold starts and imports are wall seconds of fresh processes.

A ratio above one means that rdks is faster. Rows with a goal end in "met" or "missed"; rows
without one are information. Nothing is asserted: the exit code is 0 whatever the table says.

``rates`` counts pairs (source, query) per second. ``memory`` counts from a process that has imported
rdks and made the inputs, so loading compiled code counts against rdks. What the opponents do is
in :mod:`peers`, what each row measures in :mod:`cases`, :mod:`engine_cases` and :mod:`scaling`. ``stream``
makes 1e8 points and takes some minutes, ``choice`` takes half an hour, or a part of it for one ``--space``.
``--only scaling --plot FILE`` draws the picture of the README.
"""
from __future__ import annotations

import os

THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS",
           "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS")
os.environ.update(dict.fromkeys(THREADS, "1"))  # before anything imports numpy

import argparse  # noqa: E402
import dataclasses  # noqa: E402
import json  # noqa: E402
import platform  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from importlib.metadata import version  # noqa: E402

import cases  # noqa: E402
import engine_cases  # noqa: E402
import scaling  # noqa: E402
from threadpoolctl import threadpool_limits  # noqa: E402

CASES = {**cases.CASES, **engine_cases.CASES, "scaling": scaling.scaling}


def machine():
    """Describe the class of machine: processor, cores, versions. No names, no paths.

    Returns
    -------
    dict
    """
    processor = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            processor = next(line.split(":", 1)[1].strip() for line in lines
                             if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {"processor": processor, "cores": os.cpu_count(), "system": platform.system(),
            "python": platform.python_version(),
            **{name: version(name) for name in ("rdks", "numpy", "scipy", "scikit-learn", "numba", "finufft")}}


WIDTHS = "{:<70} {:>10} {:>11} {:>11} {:>8} {:>10} {:<7}{}"
HEADER = WIDTHS.format("what", "size", "ours", "peer", "ratio", "goal", "", "note").rstrip()


def line(row):
    """Format a row of the table."""
    def amount(value):
        return "" if value is None else f"{float(f'{value:.3g}'):g} {row.unit}"

    ratio = "" if row.ratio is None else f"{row.ratio:.2f}x"
    return WIDTHS.format(row.what, row.size, amount(row.ours), amount(row.peer), ratio, row.goal, row.verdict,
                         row.note).rstrip()


def main():
    """Run the benchmarks that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="smaller and fewer runs; not for citing")
    parser.add_argument("--only", metavar="NAME", choices=list(CASES), help=f"one of {', '.join(CASES)}")
    parser.add_argument("--space", metavar="NAME", choices=list(engine_cases.SPACES),
                        help=f"with --only choice, one of {', '.join(engine_cases.SPACES)}")
    parser.add_argument("--json", metavar="FILE", help="where the JSON goes; a temporary file by default")
    parser.add_argument("--plot", metavar="FILE", help="draw the rows of 'scaling' as a picture")
    options = parser.parse_args()
    if options.plot and options.only not in (None, "scaling"):
        parser.error("--plot draws the rows of 'scaling'")
    if options.space and options.only != "choice":
        parser.error("--space is for '--only choice'")

    about = machine()
    print(", ".join(f"{k} {v}" for k, v in about.items()), flush=True)
    print(HEADER, flush=True)
    rows, start = [], time.perf_counter()
    with threadpool_limits(limits=1):
        for name in [options.only] if options.only else CASES:
            for row in CASES[name](options.quick, **({"only": options.space} if options.space else {})):
                row.case = name
                rows.append(row)
                print(line(row), flush=True)
    seconds = time.perf_counter() - start
    met = sum(row.verdict == "met" for row in rows)
    goals = sum(bool(row.verdict) for row in rows)
    print(f"{met} of {goals} goals met, {seconds:.0f} s{', sizes reduced' if options.quick else ''}")

    path = options.json
    if path is None:
        handle, path = tempfile.mkstemp(prefix="rdks-benchmarks-", suffix=".json")
        os.close(handle)
    with open(path, "w", encoding="utf-8") as out:
        json.dump({"machine": about, "quick": options.quick, "seconds": round(seconds, 1),
                   "rows": [dataclasses.asdict(row) for row in rows]}, out, indent=1)
    print(f"JSON: {path}")
    if options.plot:
        scaling.plot([row for row in rows if row.case == "scaling"], options.plot)
        print(f"picture: {options.plot}")


if __name__ == "__main__":
    main()
