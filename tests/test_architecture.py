"""Who may import whom. Arrows point down only; heavy packages load where they are needed."""
import ast
from pathlib import Path

import rdks

ROOT = Path(rdks.__file__).parent

# lowest first; a module may import modules of lower rank, at any depth
RANK = {"errors": -1, "heat": 0, "_kernels": 0, "_twins": 0, "cells": 0, "manifolds": 1, "radial": 2, "_validation": 2,
        "harmonics": 2, "resolution": 2, "hierarchy": 3, "sampling": 3, "gram": 3, "engines": 4, "balls": 4, "pairs": 5,
        "nodal": 5, "neighbors": 5, "adaptive": 5, "spectral": 6, "choice": 7, "bandwidth": 7, "mixture": 8, "base": 8,
        "estimator": 9, "__init__": 10, "datasets": 10, "distributed": 10, "plotting": 10, "_discrete_checks": 10,
        "inference": 10, "hypothesis": 10, "variance": 10, "smoothers": 10, "memorisation": 11, "wiener": 11,
        "logdomain": 11, "testing": 11, "classifier": 11, "outliers": 11, "eigenbases": 12, "score_matching": 13,
        "neural": 14, "demo": 15, "benchmarks": 15, "__main__": 16}
ONLY_IN = {"numba": {"_kernels"}, "llvmlite": {"_kernels"}, "geomstats": {"manifolds._geomstats"}}
NEVER_AT_TOP = {"numba", "geomstats", "matplotlib", "pandas", "airportsdata", "torch", "dask", "tqdm", "finufft"}


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        yield ".".join(path.relative_to(ROOT).with_suffix("").parts), ast.parse(path.read_text())


def imports(tree, name):
    """Yield (imported module, whether at module level); relative names resolved within rdks."""
    top = set(map(id, tree.body))
    package = name.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in top
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - node.level + 1]
                stems = [node.module] if node.module else [alias.name for alias in node.names]
                for stem in stems:
                    yield ".".join(["rdks", *base, stem]), id(node) in top
            else:
                yield node.module, id(node) in top


def test_every_module_has_a_rank():
    assert {name.split(".")[0] for name, _ in modules()} == set(RANK)


def test_arrows_point_down():
    for name, tree in modules():
        mine = RANK[name.split(".")[0]]
        for target, at_top in imports(tree, name):
            if name == "__init__" and not at_top:
                continue  # the front door shows all rooms, and enters those upstairs when asked to
            if target.startswith("rdks.") and name.split(".")[0] != target.split(".")[1]:
                # a name that is no module comes from rdks/__init__.py
                assert RANK.get(target.split(".")[1], RANK["__init__"]) < mine, f"rdks.{name} imports {target}"


def test_heavy_packages_load_late_and_in_one_place():
    for name, tree in modules():
        for target, at_top in imports(tree, name):
            package = target.split(".")[0]
            if package in ONLY_IN:
                assert name in ONLY_IN[package], f"rdks.{name} imports {target}"
            if package in NEVER_AT_TOP and name != "_kernels":
                assert not at_top, f"rdks.{name} imports {target} at module level"


def test_no_global_random_numbers():
    for name, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
                if node.value.attr == "random" and getattr(node.value.value, "id", "") in ("np", "numpy"):
                    allowed = {"Generator", "RandomState", "default_rng"}
                    assert node.attr in allowed, f"rdks.{name} uses numpy.random.{node.attr}"
