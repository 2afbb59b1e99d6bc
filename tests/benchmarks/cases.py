"""What is measured: each function yields rows of the table."""
from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from statistics import median

import numpy as np
import peers

from rdks import RDKSEstimator
from rdks.bandwidth import select
from rdks.engines import DirectSum
from rdks.manifolds import Euclidean, Sphere, Torus
from rdks.sampling import heat_sample

__all__ = ["CASES", "Row"]


@dataclass
class Row:
    """A row of the table.

    Attributes
    ----------
    what, size : str
    ours, peer : float or None
        Best time, or another amount, in `unit`.
    unit : str
    ratio : float or None
        Median of paired ratios, above one where rdks is faster.
    goal, verdict : str
        A condition, and "met", "missed" or "".
    note : str
    case : str
        Name of the function that measured it.
    """

    what: str
    size: str
    ours: float | None
    peer: float | None
    unit: str
    ratio: float | None = None
    goal: str = ""
    verdict: str = ""
    note: str = ""
    case: str = ""


def at_least(row, goal):
    """Ask for a ratio."""
    row.goal = f">= {goal:g}x"
    row.verdict = "met" if row.ratio >= goal else "missed"
    return row


def at_most(row, goal, value=None):
    """Ask for an amount, `row.ours` if not told."""
    row.goal = f"<= {goal:g} {row.unit}"
    row.verdict = "met" if (row.ours if value is None else value) <= goal else "missed"
    return row


# timing


def spend(work):
    """Return the CPU seconds of this process that a call takes."""
    start = time.process_time()
    work()
    return time.process_time() - start


def paired(what, size, ours, peer, quick, note=""):
    """Run both in turns and return a row; after at least 3 pairs, stop at about 12 s."""
    ours(), peer()
    gc.collect()
    times, started = [], time.perf_counter()
    while len(times) < (3 if quick else 15):
        if len(times) % 2:
            b, a = spend(peer), spend(ours)
        else:
            a, b = spend(ours), spend(peer)
        times.append((a, b))
        if len(times) >= 3 and time.perf_counter() - started > 12:
            break
    a, b = zip(*times, strict=True)
    return Row(what, size, min(a), min(b), "s", median(y / x for x, y in times), note=note)


def best(work, quick, repeats=7):
    """Return the best of some repeats, in CPU seconds, after a warm-up."""
    work()
    return min(spend(work) for _ in range(2 if quick else repeats))


def short(k):
    """Write a round number in few characters."""
    return f"{k // 10**6}M" if k >= 10**6 else f"{k // 1000}k" if k >= 1000 else str(k)


def size_of(n, q):
    """Write numbers of sources and queries."""
    return f"{short(n)} x {short(q)}"


def fresh(code, **environment):
    """Run code in a fresh interpreter, one thread, an empty numba cache; return what it prints."""
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False,
                              env={**os.environ, "NUMBA_CACHE_DIR": cache, **environment})
    if done.returncode:
        raise RuntimeError(f"a benchmark process failed:\n{done.stderr}")
    return done.stdout.split()


# data


def mixture(n, rng, dim=2, spread=0.3, parts=5):
    """Draw unit vectors from a mixture of projected normals."""
    centres = Sphere(dim).random(parts, np.random.default_rng(7))
    X = centres[rng.integers(parts, size=n)] + spread * rng.standard_normal((n, dim + 1))
    return X / np.linalg.norm(X, axis=1, keepdims=True)


MIXTURE = """
import numpy as np
rng = np.random.default_rng({seed})
centres = np.random.default_rng(7).standard_normal((5, {columns}))
centres /= np.linalg.norm(centres, axis=1, keepdims=True)
def data(n):
    X = centres[rng.integers(5, size=n)] + 0.3 * rng.standard_normal((n, {columns}))
    return X / np.linalg.norm(X, axis=1, keepdims=True) if {columns} == 3 else X
"""


def latlon(X):
    """Latitude and longitude in radians, as scikit-learn's haversine takes them."""
    return np.column_stack([np.arctan2(X[:, 2], np.hypot(X[:, 0], X[:, 1])), np.arctan2(X[:, 1], X[:, 0])])


# cases


def density(quick):
    """Log density on the sphere, true heat kernel, against numpy."""
    n, q, t = (4000, 1000, 0.005) if quick else (20_000, 5_000, 0.005)
    rng = np.random.default_rng(0)
    Y, X = mixture(n, rng), mixture(q, rng)
    ours = RDKSEstimator(Sphere(2), bandwidth=np.sqrt(t)).fit(Y)
    tiled = peers.TiledVonMises(Y, t).tune(X)
    off = np.abs(ours.score_samples(X) - tiled(X)).max()
    shape = "x".join(map(str, tiled.shape))
    yield at_least(paired("log density S2, heat kernel t=0.005 / tiled numpy, vMF kernel", size_of(n, q),
                          lambda: ours.score_samples(X), lambda: tiled(X), quick,
                          f"tile {shape}; kernels differ by {off:.1g} in the log"), 1.8)
    naive = peers.NaiveVonMises(Y, t)
    yield at_least(paired("  same / naive numpy, vMF kernel, row chunks", size_of(n, q),
                          lambda: ours.score_samples(X), lambda: naive(X), quick), 5)
    geodesic = peers.NaiveGeodesic(Y, t)
    yield paired("  same / naive numpy, geodesic Gaussian, row chunks", size_of(n, q),
                 lambda: ours.score_samples(X), lambda: geodesic(X), quick)


def score(quick):
    """Log density and score in one call, against the density alone in numpy."""
    n, q, t = (4000, 1000, 0.005) if quick else (20_000, 5_000, 0.005)
    rng = np.random.default_rng(0)
    Y, X = mixture(n, rng), mixture(q, rng)
    ours = DirectSum(Sphere(2), Y, np.ones(n), t)
    tiled = peers.TiledVonMises(Y, t).tune(X)
    yield at_least(paired("log density + score S2 t=0.005 / tiled numpy, vMF density only", size_of(n, q),
                          lambda: ours.evaluate(X, order=1), lambda: tiled(X), quick), 1)
    yield paired("log density + score + Laplacian S2 t=0.005 / same", size_of(n, q),
                 lambda: ours.evaluate(X, order=2), lambda: tiled(X), quick)


def sklearn(quick):
    """scikit-learn's haversine kernel density, exact and approximate."""
    from sklearn.neighbors import KernelDensity

    n, q = (4000, 300) if quick else (20_000, 1_000)
    rng = np.random.default_rng(0)
    Y, X = mixture(n, rng), mixture(q, rng)
    X_theirs = latlon(X)
    for h in (0.1, 0.02):
        ours = RDKSEstimator(Sphere(2), bandwidth=h).fit(Y)
        for rtol in (0, 1e-4):
            theirs = KernelDensity(bandwidth=h, metric="haversine", algorithm="ball_tree", rtol=rtol,
                                   atol=0).fit(latlon(Y))
            row = paired(f"log density S2 h={h:g} / scikit-learn haversine, rtol={rtol:g}",
                         size_of(n, q), lambda ours=ours: ours.score_samples(X),
                         lambda theirs=theirs: theirs.score_samples(X_theirs), quick)
            yield at_least(row, 30) if h == 0.1 and rtol == 0 else row


def scipy(quick):
    """scipy's two density estimators."""
    from scipy.stats import gaussian_kde

    n, q, t = (300, 500, 0.005) if quick else (2_000, 5_000, 0.005)
    rng = np.random.default_rng(0)
    Y, X = mixture(n, rng), mixture(q, rng)
    ours = RDKSEstimator(Sphere(2), bandwidth=np.sqrt(t)).fit(Y)
    loop = peers.ScipyLoop(Y, t)
    yield paired("log density S2 t=0.005 / scipy vonmises_fisher, loop over centres", size_of(n, q),
                 lambda: ours.score_samples(X), lambda: loop(X), quick)
    n, q, h = (4000, 500, 0.2) if quick else (20_000, 5_000, 0.2)
    Y, X = rng.standard_normal((n, 2)), rng.standard_normal((q, 2))
    Y -= Y.mean(axis=0)
    Y = np.linalg.solve(np.linalg.cholesky(np.cov(Y.T)), Y.T).T  # so that the bandwidths agree
    flat = RDKSEstimator(Euclidean(2), bandwidth=h).fit(Y)
    theirs = gaussian_kde(Y.T, bw_method=h)
    off = np.abs(flat.score_samples(X) - theirs.logpdf(X.T)).max()
    yield paired("log density R2 h=0.2 / scipy gaussian_kde.logpdf", size_of(n, q),
                 lambda: flat.score_samples(X), lambda: theirs.logpdf(X.T), quick,
                 f"same kernel, logs differ by {off:.1g}")


SMALL = MIXTURE + """
import time
import rdks
if {compiled}:
    import rdks._kernels
    rdks.RDKSEstimator(bandwidth=0.2).fit(data(10)).score_samples(data(10))
def once():
    X = data(1000)
    start = time.perf_counter()
    rdks.RDKSEstimator(**{options}).fit(X).score_samples(X)
    return time.perf_counter() - start
first = once()
later = sorted(once() for _ in range({repeats}))
print(first, later[len(later) // 2])
"""


def small(quick):
    """fit + score_samples on 1,000 points: wall seconds after import, median of fresh processes.

    "never compiled": an empty cache, so that numpy serves; first call and later calls. "warm": the compiled
    kernels are loaded. Each call has new data, so that tables are not found in the cache.
    """
    with tempfile.TemporaryDirectory() as cache:  # the compiled processes share theirs: compiled once
        for where, columns in (("S2", 3), ("R2", 2)):
            for what, options, goals in ((" bandwidth=0.2", {"bandwidth": 0.2}, (100, 20)),
                                         (" automatic bandwidth", {}, (400, 80))):
                runs = {}
                for compiled in (False, True):
                    place = {"NUMBA_CACHE_DIR": cache} if compiled else {}
                    runs[compiled] = np.array([
                        [1000 * float(s) for s in fresh(SMALL.format(
                            seed=seed, columns=columns, options=options, compiled=compiled,
                            repeats=3 if quick else 9), **place)]
                        for seed in range(2 if quick else 7)])
                for kind, times, goal in (("never compiled, first call", runs[False][:, 0], goals[0]),
                                          ("never compiled, later calls", runs[False][:, 1], None),
                                          ("warm", runs[True][:, 1], goals[1])):
                    row = Row(f"fit + score_samples {where}{what}, {kind}", "1k", median(times), None, "ms",
                              note=f"best {min(times):.3g} ms")
                    yield at_most(row, goal) if where == "S2" and goal else row


MEMORY = """
import time
import numpy as np
import rdks
def peak():
    # getrusage's maximum survives exec, so it would show the parent's; this one does not
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))
rng = np.random.default_rng(0)
Y = rng.standard_normal(({n}, 3))
Y /= np.linalg.norm(Y, axis=1, keepdims=True)
X = rng.standard_normal(({q}, 3))
X /= np.linalg.norm(X, axis=1, keepdims=True)
start = time.perf_counter()
if {work}:
    rdks.RDKSEstimator(rdks.manifolds.Sphere(2), bandwidth=0.05).fit(Y).score_samples(X)
print(peak(), time.perf_counter() - start)
"""


def memory(quick):
    """Peak memory of fit + score_samples beyond imports and inputs."""
    if not os.path.exists("/proc/self/status"):
        return
    n, q = (100_000, 500) if quick else (1_000_000, 2_000)
    RDKSEstimator(Sphere(2), bandwidth=0.05).fit(mixture(2000, np.random.default_rng(0)))
    cache = os.environ.get("NUMBA_CACHE_DIR", "")
    keep = {"NUMBA_CACHE_DIR": cache}  # compiled code from the cache, as after the first use
    base, _ = map(float, fresh(MEMORY.format(n=n, q=q, work=False), **keep))
    full, seconds = map(float, fresh(MEMORY.format(n=n, q=q, work=True), **keep))
    yield at_most(Row("peak memory S2 beyond imports and inputs", size_of(n, q), full - base, None, "MiB",
                      note=f"imports and inputs {base:.0f} MiB, {seconds:.1f} s wall"), 256 + q * 8 // 2**20)


IMPORT = """
import time
start = time.perf_counter()
import {module}
print(time.perf_counter() - start)
"""


def imports(quick):
    """Wall seconds of an import in a fresh process; sklearn.base is what any estimator needs."""
    times = []
    for _ in range(3 if quick else 11):
        times.append([float(fresh(IMPORT.format(module=module))[0]) for module in ("rdks", "sklearn.base")])
    ours, theirs = zip(*times, strict=True)
    more = median(a - b for a, b in times)
    row = Row("import rdks / import sklearn.base", "", min(ours), min(theirs), "s",
              median(b / a for a, b in times), note=f"median difference {1000 * more:+.0f} ms")
    row = at_most(row, 0.1, more)
    row.goal = "<= +0.1 s"
    yield row


def rates(quick):
    """Pairs per second, by manifold, time and order."""
    n, q = (4000, 200) if quick else (20_000, 1_000)
    rng = np.random.default_rng(0)
    jobs = [(Sphere(2), "S2", t) for t in (1e-4, 1e-3, 5e-3, 0.02, 0.1, 1.0)]
    jobs += [(Torus(2), "T2", 0.005), (Torus(2), "T2", 0.2), (Sphere(10), "S10", 0.005),
             (Sphere(10), "S10", 0.1), (Euclidean(2), "R2", 0.005)]
    for manifold, name, t in jobs:
        Y, X = manifold.random(n, rng), manifold.random(q, rng)
        ours = DirectSum(manifold, Y, np.ones(n), t)
        for order in (0, 1, 2):
            seconds = best(lambda ours=ours, X=X, order=order: ours.evaluate(X, order=order), quick, 5)
            yield Row(f"pairs per second {name} t={t:g} order {order}", size_of(n, q),
                      n * q / seconds / 1e9, None, "G/s")


def sampling(quick):
    """Exact draws, one step from each of many distinct centres."""
    n = 100_000 if quick else 1_000_000
    rng = np.random.default_rng(0)
    Y = mixture(n, rng)
    for t in (0.5, 0.01):
        seconds = best(lambda t=t: heat_sample(Sphere(2), Y, t, rng), quick, 3)
        yield Row(f"sampling S2 t={t:g}, a new centre per draw", short(n), n / seconds / 1e6, None, "M/s")
    from scipy.stats import vonmises_fisher

    few = Y[:200 if quick else 2000]
    seconds = best(lambda: [vonmises_fisher.rvs(y, 100.0, random_state=rng) for y in few], quick, 3)
    yield Row("  scipy vonmises_fisher.rvs, a new centre per draw", short(len(few)), None,
              len(few) / seconds / 1e6, "M/s")


def selection(quick):
    """Automatic bandwidth, one run each, with compiled sums."""
    many = mixture(2_000, np.random.default_rng(0))
    DirectSum(Sphere(2), many, np.ones(len(many)), 0.005).evaluate(many)  # loads the compiled sums
    for n in (1_000,) if quick else (1_000, 5_000, 20_000):
        Y = mixture(n, np.random.default_rng(0))
        data = DirectSum(Sphere(2), Y, np.ones(n), 0.0)
        start = time.process_time()
        found = select(data, "lcv")
        seconds = time.process_time() - start
        yield Row("bandwidth by leave-one-out likelihood S2", size_of(n, n), seconds, None, "s",
                  note=f"{found.times.size} times, h={found.bandwidth:.3f}")


CASES = {"density": density, "score": score, "sklearn": sklearn, "scipy": scipy, "small": small,
         "memory": memory, "imports": imports, "rates": rates, "sampling": sampling, "selection": selection}
