"""Command line: ``python -m rdks demo``, ``python -m rdks benchmark``."""
from __future__ import annotations

import argparse
import sys

from . import __version__


def build_parser():
    """Return the parser of the command line.

    Returns
    -------
    argparse.ArgumentParser

    Examples
    --------
    >>> from rdks.__main__ import build_parser
    >>> build_parser().parse_args(["demo", "--out", "pictures"]).out
    'pictures'
    """
    parser = argparse.ArgumentParser(
        prog="python -m rdks", description="Densities, scores and samples on manifolds.")
    parser.add_argument("--version", action="version", version=f"rdks {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser(
        "demo", help="estimate the density of the world's airports and draw it",
        description="Fit the world's airports on the sphere, compare held-out likelihoods with "
                    "scikit-learn's, draw new points, and write airports.png. The first run on a machine "
                    "compiles, which takes some seconds more.")
    demo.add_argument("--out", metavar="DIR", default=".", help="folder for airports.png (default: here)")
    demo.add_argument("--points", metavar="N", type=int, help="take N random airports instead of all")
    demo.add_argument("--jobs", metavar="N", type=int, default=-1, help="threads (default: -1, all cores)")
    demo.add_argument("--seed", metavar="N", type=int, default=0, help="seed of all randomness (default: 0)")
    demo.add_argument("--quiet", action="store_true", help="no progress bars")
    _add_benchmarks(commands)
    return parser


def _positive(text):
    """Return a positive float, for argparse."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: expected a positive finite number")
    return value


def _whole(text):
    """Return a positive integer, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a positive integer")
    return value


def _add_benchmarks(commands):
    """Add ``benchmark earth``, ``benchmark so3`` and ``benchmark toy2d`` to the parser."""
    from .benchmarks import earth, so3, toy2d
    from .benchmarks.protocols import PROTOCOLS
    from .datasets import EARTH_SETS, TOY2D_SETS

    benchmark = commands.add_parser("benchmark", help="run published benchmarks again",
                                    description="Run published benchmarks again, and print what papers print beside.")
    which = benchmark.add_subparsers(dest="benchmark", required=True)
    globe = which.add_parser(
        "earth", help="volcanoes, earthquakes, floods and fires on the globe",
        description="Held-out likelihoods on four sets of places on the globe. Everything, by default, takes tens of "
                    "minutes, most of them for the baselines: see --methods, --sets and --protocol.")
    globe.add_argument("--data", metavar="DIR", help="folder that holds the files, or is to hold them (default: that "
                       "in the environment variable RDKS_DATA, or a cache; what is missing is downloaded)")
    globe.add_argument("--sets", nargs="+", choices=EARTH_SETS, default=list(EARTH_SETS), help="default: all")
    globe.add_argument("--protocol", nargs="+", choices=list(PROTOCOLS), default=["splits", "cv"],
                       help="; ".join(f"{name}: {words}" for name, words in PROTOCOLS.items()).replace("%", "%%")
                       + " (default: splits cv)")
    globe.add_argument("--seeds", metavar="N", type=_whole, help="random divisions (default: 5 splits, 2 "
                       "cross-validations)")
    globe.add_argument("--deduplicate", choices=["both", "yes", "no"], default="both",
                       help="keep one row per distinct place, before rows are divided (default: both)")
    globe.add_argument("--floor", metavar="RAD", type=_positive,
                       help=f"smallest bandwidth of every method, in radians (default: {earth.FLOORS[False]:g} on all "
                       f"rows, {earth.FLOORS[True]:g} on distinct points)")
    globe.add_argument("--methods", nargs="+", choices=list(earth.METHODS), default=list(earth.METHODS),
                       help="default: all")
    rotations = which.add_parser(
        "so3", help="a mixture on the rotations, whose best possible likelihood is known",
        description="Likelihoods of fresh draws from mixtures of wrapped normal laws on the rotations.")
    rotations.add_argument("--components", metavar="M", nargs="+", type=_whole, default=[16, 32, 64],
                           help="default: 16 32 64")
    rotations.add_argument("--seeds", metavar="N", type=_whole, default=5, help="mixtures of each size (default: 5)")
    rotations.add_argument("--n", metavar="N", type=_whole, default=20_000, help="draws to fit (default: 20000)")
    rotations.add_argument("--test", metavar="N", type=_whole, default=10_000, help="fresh draws (default: 10000)")
    rotations.add_argument("--methods", nargs="+", choices=list(so3.METHODS), default=list(so3.METHODS),
                           help="default: all")
    plane = which.add_parser(
        "toy2d", help="three laws in the plane, whose true densities are known",
        description="Likelihoods of fresh draws from two spirals, eight Gaussians and a pinwheel, on a box with "
                    "reflecting walls, against those of the true densities. Score matching takes most of the time: see "
                    "--methods and --test.")
    plane.add_argument("--sets", nargs="+", choices=TOY2D_SETS, default=list(TOY2D_SETS), help="default: all")
    plane.add_argument("--seeds", metavar="N", type=_whole, default=3, help="sets of draws of each law (default: 3)")
    plane.add_argument("--n", metavar="N", type=_whole, default=5000, help="draws to fit (default: 5000)")
    plane.add_argument("--test", metavar="N", type=_whole, default=10_000, help="fresh draws (default: 10000)")
    plane.add_argument("--methods", nargs="+", choices=list(toy2d.METHODS), default=list(toy2d.METHODS),
                       help="default: all")
    for one, what in ((globe, "fits at a time"), (rotations, "threads"), (plane, "threads of the smoothers")):
        one.add_argument("--jobs", metavar="N", type=int, default=-1, help=f"{what} (default: -1, one per core)")
        one.add_argument("--out", metavar="FILE", help="write the numbers too, as .json or .csv")
        one.add_argument("--quiet", action="store_true", help="no progress bar")


def _benchmark(args):
    """Run the benchmark that was asked for."""
    common = {"methods": tuple(args.methods), "n_jobs": args.jobs, "verbose": not args.quiet, "out": args.out}
    if args.benchmark == "so3":
        from .benchmarks import so3

        so3.main(components=args.components, seeds=args.seeds, n=args.n, n_test=args.test, **common)
        return
    if args.benchmark == "toy2d":
        from .benchmarks import toy2d

        toy2d.main(sets=tuple(args.sets), seeds=args.seeds, n=args.n, n_test=args.test, **common)
        return
    from .benchmarks import earth

    once = {"both": (False, True), "yes": (True,), "no": (False,)}[args.deduplicate]
    floors = earth.FLOORS if args.floor is None else dict.fromkeys((False, True), args.floor)
    earth.main(data_home=args.data, sets=args.sets, protocols=args.protocol, seeds=args.seeds, deduplicate=once,
               floors=floors, **common)


def main(argv=None):
    """Run the command line.

    Parameters
    ----------
    argv : list of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        Exit status.
    """
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.command == "benchmark":
        _benchmark(args)
        return 0
    if args.points is not None and args.points < 100:
        parser.error(f"--points {args.points}: expected at least 100")
    from . import demo  # brings scikit-learn's estimators and the data with it: not needed for --help

    demo.main(args.out, points=args.points, n_jobs=args.jobs, seed=args.seed, verbose=not args.quiet)
    return 0


if __name__ == "__main__":
    sys.exit(main())
