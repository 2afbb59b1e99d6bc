"""What the engines for many observations are measured by: each function yields rows of the table.

Goals are ratios in one run on one thread. A goal ">= 1/2.5x" allows rdks 2.5 times the time of its peer.
"""
from __future__ import annotations

import os
import time
from statistics import median

import numpy as np
import peers
from cases import MIXTURE, Row, at_least, at_most, best, fresh, latlon, mixture, paired, short, size_of, spend

from rdks import RDKSEstimator
from rdks.choice import AutoSum, choose_engine, expected_seconds
from rdks.engines import DirectSum
from rdks.harmonics import degree_for
from rdks.manifolds import SO3, Box, Euclidean, Sphere, Torus
from rdks.sampling import heat_sample, log_likelihood
from rdks.spectral import SpectralSum, accuracy

__all__ = ["CASES"]

# Relative accuracy of the engines, the estimator's default.
RTOL = 1e-6
# Engines that are expected to take longer than this are not run, seconds.
CAP, QUICK_CAP = 20.0, 2.0
# And neither is an engine that is expected to take so many times as long as the best, unless that is nothing.
HOPELESS, NOTHING = 20.0, 0.5
# Expectations are compared with measurements from here on, seconds.
WORTH_JUDGING = 0.02


def within(row, times):
    """Allow so many times the peer's time."""
    row.goal = f">= 1/{times:g}x"
    row.verdict = "met" if row.ratio * times >= 1 else "missed"
    return row


def time_for(manifold, degree):
    """Return the shortest time for which the spectral engine takes no more than a degree, and the accuracy it asks."""
    low, high = 1e-6, 1e2
    while high / low > 1 + 1e-6:
        t = np.sqrt(low * high)
        enough = degree_for(manifold.factors()[0], t, accuracy(manifold, t, RTOL)) <= degree
        low, high = (low, t) if enough else (t, high)
    return float(high), accuracy(manifold, high, RTOL)


def spectral(quick):
    """Moments, density and score of uniform points on the sphere, against ducc0 and against the direct sum."""
    n = 100_000 if quick else 1_000_000
    S2, rng, w = Sphere(2), np.random.default_rng(0), np.ones(n)
    Y, X = S2.random(n, rng), S2.random(n, rng)
    yield transforms(Y, X, 128, 2.5, quick)
    yield transforms(Y, X, 512, 3, quick)
    t, _ = time_for(S2, 128)

    def ours():
        return SpectralSum(S2, Y, w, t).evaluate(X, order=1)

    few = X[:100 if quick else 300]
    direct, tiled = DirectSum(S2, Y, w, t), peers.TiledVonMises(Y, t)
    for name, work, goal in (("direct sum, far boxes left out", lambda: direct.evaluate(few, order=1), 500),
                             ("tiled numpy, vMF density only", lambda: tiled(few), None)):
        row = paired(f"  degree 128 / {name}", size_of(n, n), ours, work, quick,
                     f"at {len(few)} queries, times {n / len(few):g}")
        row.peer *= n / len(few)
        row.ratio *= n / len(few)
        yield at_least(row, goal) if goal else row
    # low densities are done again by the sources near them
    A, B = mixture(n, rng), mixture(n, rng)
    yield Row("  degree 128, five clusters instead of the uniform law", size_of(n, n),
              best(lambda: SpectralSum(S2, A, w, t).evaluate(B, order=1), quick, 2), None, "s")


def transforms(Y, X, degree, goal, quick):
    """Return the row of a degree against ducc0."""
    S2, w = Sphere(2), np.ones(len(Y))
    t, eps = time_for(S2, degree)

    def ours():
        return SpectralSum(S2, Y, w, t).evaluate(X, order=1)

    what, size = f"moments + log density + score S2 degree {degree} / bare ducc0", size_of(len(Y), len(X))
    if not peers.Ducc.installed():
        return Row(what, size, best(ours, quick, 3), None, "s", note="ducc0 is not installed")
    theirs = peers.Ducc(Y, X, t, degree, eps)
    mine, (density, gradient) = ours(), theirs()
    peak = np.exp(S2.log_heat_kernel(Y[:1], Y[:1], t)[0])
    off = np.abs(np.exp(mine.log_density) - density).max() / peak
    steep = np.abs(theirs.gradient_of(mine.log_density, mine.gradient) - gradient).max() / peak * np.sqrt(t)
    angles = spend(lambda: (theirs.angles(Y), theirs.angles(X)))
    return within(paired(what, size, ours, theirs, quick,
                         f"t={t:.3g}, eps={eps:.0e}; they differ by {off:.0e}, {steep:.0e} of the peak; angles, "
                         f"{angles:.2g} s, are made in our time and given to the peer"), goal)


def torus(quick):
    """Moments and density on the torus, against two bare transforms by FINUFFT."""
    n = 100_000 if quick else 1_000_000
    T2, rng, w = Torus(2), np.random.default_rng(0), np.ones(n)
    Y, X = T2.random(n, rng), T2.random(n, rng)
    t, eps = time_for(T2, 64)
    total = SpectralSum(T2, Y, w, t)
    theirs = peers.Finufft(Y, X, total.moments().harmonics.shape, eps)
    modes = "x".join(map(str, theirs.shape))
    off = np.abs(theirs.moments() / (2 * np.pi) - total.moments().coef).max() * (2 * np.pi)
    yield within(paired("moments + log density T2 / bare FINUFFT, angles given, no logs", size_of(n, n),
                        lambda: SpectralSum(T2, Y, w, t).evaluate(X), theirs, quick,
                        f"{modes} modes, eps={eps:.0e}; moments differ by {off:.0e}"), 1.2)
    yield paired("  moments alone / type 1 alone", short(n), lambda: SpectralSum(T2, Y, w, t).moments(), theirs.moments,
                 quick)


def criteria(quick):
    """Bandwidth criteria at 30 bandwidths: least squares from coefficients, exact leave-one-out likelihood."""
    S2, rng = Sphere(2), np.random.default_rng(0)
    times = np.geomspace(3.6e-4, 0.29, 30)
    n = 100_000 if quick else 1_000_000
    Y, w = mixture(n, rng), np.ones(n)

    def moments():
        total = SpectralSum(S2, Y, w, 0.0)
        total.moments(times[0])
        return total

    def least_squares():
        total = moments()
        own, squares = np.array([total.log_self(t, np.zeros(1, int))[0] for t in times]), total.squares
        both = np.exp([[total.log_overlap(2 * t), total.log_overlap(t)] for t in times])
        return both[:, 0] - 2 / (1 - squares) * (both[:, 1] - squares * np.exp(own))

    h = np.sqrt(times[np.argmin(least_squares())])
    yield within(paired("LSCV S2 at 30 bandwidths / one pass of moments", short(n), least_squares, moments, quick,
                        f"h={h:.3g} of {np.sqrt(times[0]):.2g} to {np.sqrt(times[-1]):.2g}"), 1.2)

    n = 10_000
    Y, away = mixture(n, rng, spread=0.15), []
    for places in S2.random(2500, rng).reshape(5, 500, 3):
        nearest = (places @ Y.T).max(axis=1)
        Y = np.concatenate([Y, places[[nearest.argmin()]]])
        away.append(np.arccos(nearest.min()))
    w = np.ones(n + 5)

    def likelihood():
        total = AutoSum(S2, Y, w, 0.0)
        return [total.leave_one_out(t) for t in times]

    direct = DirectSum(S2, Y, w, 0.0)
    off = max(np.abs(found - direct.leave_one_out(t)).max() for found, t in zip(likelihood(), times, strict=True))
    seconds = best(likelihood, quick)
    exact = spend(lambda: [direct.leave_one_out(t) for t in times])
    yield at_most(Row("leave-one-out likelihood S2 at 30 bandwidths, 5 isolated points / direct sum", short(n), seconds,
                      exact, "s", exact / seconds,
                      note=f"logs differ by {off:.1g} at most; isolated by {min(away):.2g} to {max(away):.2g} rad"),
                  0.3)


def narrow(quick):
    """A small bandwidth, against scikit-learn's approximate haversine sum."""
    from sklearn.neighbors import KernelDensity

    n, q, h = (20_000 if quick else 200_000), 500, 0.02
    rng = np.random.default_rng(0)
    Y, X = mixture(n, rng), mixture(q, rng)
    ours = RDKSEstimator(Sphere(2), bandwidth=h, engine="neighbors").fit(Y)
    X_theirs, Y_theirs = latlon(X), latlon(Y)

    def tree():
        return KernelDensity(bandwidth=h, metric="haversine", algorithm="ball_tree", rtol=1e-4, atol=0).fit(Y_theirs)

    theirs = tree()
    exact = DirectSum(Sphere(2), Y, np.ones(n), h * h).evaluate(X).log_density
    flat = peers.NaiveGeodesic(Y, h * h)(X) - np.log(2 * np.pi * h * h)
    off = np.abs(ours.score_samples(X) - exact).max()
    off_theirs = np.abs(theirs.score_samples(X_theirs) - flat).max()
    row = paired(f"log density S2 h={h:g}, neighbors / scikit-learn haversine, rtol=1e-4", size_of(n, q),
                 lambda: ours.score_samples(X), lambda: theirs.score_samples(X_theirs), quick,
                 f"trees built before; off their own exact sums by {off:.0e} and {off_theirs:.0e}")
    row = at_least(row, 5)
    if off > off_theirs:
        row.verdict = "missed"
    yield row
    for engine in ("neighbors", "auto"):
        est = RDKSEstimator(Sphere(2), bandwidth=h, engine=engine)
        took = choose_engine(est.fit(Y)._sum, q)[0] if engine == "auto" else engine
        yield paired(f"  same with fit, {engine}", size_of(n, q), lambda est=est: est.fit(Y).score_samples(X),
                     lambda: tree().score_samples(X_theirs), quick, took if engine == "auto" else "")


PEAK = """
def peak():
    # getrusage's maximum survives exec, so it would show the parent's; this one does not
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))
"""

MILLION = PEAK + """
import time
import numpy as np
import rdks
from rdks.manifolds import Sphere, Torus
manifold = {manifold}
rng = np.random.default_rng(0)
Y, X = (manifold.random({n}, rng) for _ in range(2))
before, start = peak(), time.perf_counter()
est = rdks.RDKSEstimator(manifold, bandwidth={h}, engine="{engine}").fit(Y)
logs, score = est.score_samples(X), est.score_field(X)
print(peak() - before, time.perf_counter() - start)
"""


def warm_up():
    """Load the compiled code of every engine, compiling it if need be."""
    X = mixture(3000, np.random.default_rng(0))
    for engine in ("direct", "neighbors", "spectral"):
        est = RDKSEstimator(Sphere(2), bandwidth=0.05, engine=engine).fit(X)
        est.score_samples(X)
        est.score_field(X)


def cached():
    """Environment of a process that finds the compiled code which this one has used."""
    warm_up()
    return {"NUMBA_CACHE_DIR": os.environ.get("NUMBA_CACHE_DIR", "")}


def million(quick):
    """Peak memory of fit + score_samples + score_field beyond imports and inputs."""
    if not os.path.exists("/proc/self/status"):
        return
    n, keep = 100_000 if quick else 1_000_000, cached()
    for manifold, name, h, engine in (("Sphere(2)", "S2", 0.05, "auto"), ("Torus(2)", "T2", 0.05, "auto"),
                                      ("Sphere(2)", "S2", 0.002, "neighbors")):
        amount, seconds = map(float, fresh(MILLION.format(manifold=manifold, n=n, h=h, engine=engine), **keep))
        outputs = n * (1 + (3 if name == "S2" else 2)) * 8 / 2**20
        yield at_most(Row(f"peak memory {name} h={h:g} {engine}: fit, density, score", size_of(n, n), amount, None,
                          "MiB", note=f"outputs {outputs:.0f} MiB, {seconds:.1f} s wall"), 256 + round(outputs))


STREAM = PEAK + MIXTURE + """
import time
import rdks
from rdks.manifolds import Sphere
est = rdks.RDKSEstimator(Sphere(2), bandwidth=0.05, engine="spectral")
for _ in range({blocks}):
    X = data({block})
    start = time.process_time()
    est.partial_fit(X)
    print(time.process_time() - start, peak())
assert est.n_samples_seen_ == {blocks} * {block}
"""


def stream(quick):
    """A stream of 1e8 points (quick: 1e7) by partial_fit, made on the fly: linear time, flat memory."""
    if not os.path.exists("/proc/self/status"):
        return
    blocks, block = (10 if quick else 100), 1_000_000
    seconds, peak = np.array(fresh(STREAM.format(seed=0, columns=3, blocks=blocks, block=block),
                                   **cached())).astype(float).reshape(-1, 2).T
    few = max(1, blocks // 10)
    first, middle, last = (median(seconds[a:a + few]) for a in (1, blocks // 2, blocks - few))
    size = f"{short(blocks * block)} by {short(block)}"
    row = Row("seconds per block of a stream S2 h=0.05, at the end / at the beginning", size, last, first, "s",
              first / last, note=f"middle {middle:.3g} s, {seconds.sum():.0f} s in all")
    yield within(row, 1.2)
    early, half, end = peak[max(few, 3) - 1], peak[blocks // 2 - 1], peak[-1]  # the first blocks are no stream yet
    yield within(Row("  peak memory, whole process, at the end / at a tenth", size, end, early, "MiB", early / end,
                     note=f"half way {half:.0f} MiB; cells of the summary fill up"), 1.1)


# diffusion models


def processes(quick):
    """Draws on the sphere by the reverse diffusion of a fit, in wall seconds on all cores; likelihoods by its flow."""
    n, rng = (2000 if quick else 10_000), np.random.default_rng(0)
    draw = clusters(Sphere(2), rng)
    X = draw(n)
    warm_up()
    for h in (0.1, 0.05, 0.03):
        est = RDKSEstimator(Sphere(2), bandwidth=h, n_jobs=-1).fit(X)
        seconds = []
        for seed in range(3):
            start = time.perf_counter()
            est.sample(n, random_state=seed, method="reverse_sde")
            seconds.append(time.perf_counter() - start)
        what = f"reverse diffusion S2 h={h:g}: draws from a fit, wall, {os.cpu_count()} cores"
        yield at_most(Row(what, size_of(n, n), min(seconds), None, "s",
                          note=f"of 3: {', '.join(f'{x:.2f}' for x in seconds)}"), 5)
    est = RDKSEstimator(Sphere(2), bandwidth=0.1).fit(X)
    few = draw(200)
    off = float(np.abs(log_likelihood(est, few) - est.score_samples(few)).max())
    yield at_most(Row("probability flow S2 h=0.1: log density of the flow minus that of the fit", size_of(n, len(few)),
                      off, None, "nats"), 1e-6)


# the choice of an engine

SPACES = {"S2": Sphere(2), "T2": Torus(2), "SO3": SO3(), "S10": Sphere(10), "R2": Euclidean(2),
          "box": Box([(0.0, np.pi)] * 2)}


def clusters(manifold, rng):
    """Return a source of points: five heat kernels of time 0.1, embedded."""
    centres = manifold.random(5, rng)

    def draw(n):
        return heat_sample(manifold, centres[rng.integers(5, size=n)], 0.1, rng)
    return draw


def feasible(total, n_queries, cap, hopeless=HOPELESS):
    """Return the engines worth running, the expected seconds of all that can serve, and the names left out."""
    seconds = {name: s for name, s in expected_seconds(total, n_queries).items() if s < np.inf}
    limit = min(cap, max(NOTHING, hopeless * min(seconds.values())))
    run = [name for name, s in seconds.items() if s <= limit]
    return run, seconds, [name for name in seconds if name not in run]


def timings(works, patience):
    """Run each of the works in turn, for some seconds at least three times; returns CPU seconds, (rounds, works)."""
    rounds, started = [], time.perf_counter()
    while len(rounds) < 9:
        order = list(works) if len(rounds) % 2 else list(works)[::-1]
        spent = {name: spend(works[name]) for name in order}
        rounds.append([spent[name] for name in works])
        if time.perf_counter() - started > (patience if len(rounds) >= 3 else 2.0):
            break
    return np.array(rounds[1:] or rounds)  # the first fills caches


def choice(quick, only=None):
    """engine="auto" against the best engine, fit + score_samples, by size, time and manifold (one, if named)."""
    cap, patience = (QUICK_CAP, 0.1) if quick else (CAP, 0.3)
    sizes = [(10**3, 10**3), (3 * 10**4, 10**3), (10**3, 3 * 10**4), (3 * 10**4, 3 * 10**4)]
    large = [] if quick else [(10**6, 10**3), (10**3, 10**6), (10**6, 10**6)]
    cells = [(n, q, t) for n, q in sizes for t in (1e-5, 1e-4, 1e-3, 0.01, 0.1, 1.0)]
    cells += [(n, q, t) for n, q in large for t in (1e-5, 1e-3, 0.1)]
    rows, estimates, skipped = [], {}, 0
    warm_up()
    for name in SPACES if only is None else [only]:
        manifold = SPACES[name]
        draw = clusters(manifold, np.random.default_rng(0))
        Y, X = (draw(max(sizes + large)[0]) for _ in range(2))
        for n, q, t in cells:
            total = AutoSum(manifold, Y[:n], np.ones(n), t)
            run, expected, left_out = feasible(total, q, cap)
            if not run or len(expected) == 1:
                skipped += not run
                continue  # too long, or nothing to choose from
            A, B = manifold.unembed(Y[:n]), manifold.unembed(X[:q])

            def once(engine, A=A, B=B, t=t, manifold=manifold):
                return RDKSEstimator(manifold, bandwidth=np.sqrt(t), engine=engine).fit(A).score_samples(B)

            spent = timings({engine: lambda engine=engine: once(engine) for engine in [*run, "auto"]}, patience)
            took = dict(zip(run, spent.min(axis=0), strict=False))
            winner = min(took, key=took.get)
            ratio = float(np.median(spent[:, run.index(winner)] / spent[:, -1]))
            chosen, _ = choose_engine(total, q)
            for engine in (name for name in run if took[name] > WORTH_JUDGING):
                estimates.setdefault(engine, []).append((took[engine] / expected[engine],
                                                         f"{name} {size_of(n, q)} t={t:g}"))
            note = ", ".join(f"{engine} {took[engine]:.2g}" for engine in run)
            if left_out:
                note += f"; not run: {', '.join(f'{engine} {expected[engine]:.2g}' for engine in left_out)} expected"
            rows.append(within(Row(f"auto {name} t={t:g}: {chosen} / {winner}", size_of(n, q), spent[:, -1].min(),
                                   took[winner], "s", ratio, note=note), 1.5))
            yield rows[-1]
    worst = min(rows, key=lambda row: row.ratio)
    misjudged = "; ".join(f"{engine} {min(found)[0]:.2g} to {max(found)[0]:.2g} times as long as expected "
                          f"(most at {max(found)[1]})" for engine, found in estimates.items())
    met = sum(row.verdict == "met" for row in rows)
    yield within(Row(f"worst choice, {worst.what}", worst.size, worst.ours, worst.peer, "s", worst.ratio,
                     note=f"{met} of {len(rows)} cells within 1.5 times the best; "
                          f"{skipped} skipped: every engine is expected to take more than {cap:g} s; {misjudged}"), 1.5)


CASES = {"spectral": spectral, "torus": torus, "criteria": criteria, "narrow": narrow, "million": million,
         "stream": stream, "processes": processes, "choice": choice}
