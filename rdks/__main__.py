"""Command line: ``python -m rdks demo``."""
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
    return parser


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
    if args.points is not None and args.points < 100:
        parser.error(f"--points {args.points}: expected at least 100")
    from . import demo  # brings scikit-learn's estimators and the data with it: not needed for --help

    demo.main(args.out, points=args.points, n_jobs=args.jobs, seed=args.seed, verbose=not args.quiet)
    return 0


if __name__ == "__main__":
    sys.exit(main())
