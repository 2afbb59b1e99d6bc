"""Identities of spaces known by finitely many nodes, for :mod:`rdks.testing`.

Each entry of :data:`DISCRETE_CHECKS` is a generator that takes a manifold and a random generator and yields
(what was measured, value, bound), as the checks of :mod:`rdks.testing` do, and a function that says why it does not
apply to a manifold, or None.

Error models. A flow of z expected jumps (:meth:`.DiscreteSpace.diffuse`) adds up positive terms after some z + 100
sparse products, so its log is off by a few roundings for each; a flow that sums eigenfunctions is accepted at 1e-10.
What holds for the discretised space exactly is tested to that. Slopes hold up to the discretisation, whose error is
known in powers of the node spacing over the bandwidth.
"""
from __future__ import annotations

import copy
import pickle

import numpy as np

from .bandwidth import select
from .errors import PointError, UnsupportedError
from .estimator import RDKSEstimator
from .manifolds.graph import read
from .nodal import NodalSum
from .sampling import heat_sample

__all__ = ["DISCRETE_CHECKS"]

_EPS = float(np.finfo(float).eps)
# A mean over draws may lie this many standard errors from its expectation (two-sided chance 6e-7).
_SIGMA = 5.0
_DRAWS = 20_000

DISCRETE_CHECKS = []


def _check(applies=None):
    def register(measure):
        DISCRETE_CHECKS.append((measure, applies))
        return measure
    return register


# ------------------------------------------------------------------------------------------ tools


def _times(manifold, *, extreme=False):
    """Times from a single jump to half the slowest mode, or from next to none to long after it."""
    first, last = 1 / manifold.rate, 2 * np.log(2) / manifold.smallest_eigenvalue
    times = np.geomspace(first, max(last, 4 * first), 4)
    return np.concatenate([[1e-60 * first, 1e-3 * first], times, [1e3 * last, 1e9 * last]]) if extreme else times


def _log_error(manifold, t):
    """Error of a log flow of time t: roundings of its products, or what a sum over eigenfunctions is accepted at."""
    z = manifold.rate * np.asarray(t, dtype=float)
    return np.where(z > 3000, 1e-9, 16 * _EPS * (np.minimum(z, 3000) + 100))


def _mixture(manifold, rng, n=10, t=None):
    """Engine of n random sources and random weights, at a time between the smallest and the largest; and that time."""
    t = float(_times(manifold)[2]) if t is None else t
    return NodalSum(manifold, manifold.random(n, rng), rng.uniform(0.5, 2.0, n), t), t


def _data(manifold, rng, n=10):
    total, t = _mixture(manifold, rng, n)
    return manifold.unembed(total.Z), total.weight, float(np.sqrt(t))


def _flat(X):
    return np.asarray(X).reshape(len(X), -1)


def _two_samples(one, two):
    """Distance of two means, in standard errors; arrays of draws along axis 0."""
    spread = np.sqrt(one.var(axis=0, ddof=1) / len(one) + two.var(axis=0, ddof=1) / len(two))
    floor = 16 * _EPS * (np.abs(one).max(axis=0) + np.abs(two).max(axis=0))
    return np.abs(one.mean(axis=0) - two.mean(axis=0)) / np.maximum(spread, floor)


# --------------------------------------------------------------------------------- points and values


@_check()
def random_points_are_valid(manifold, rng):
    """Random points are points, as written and embedded, and the shapes are as declared."""
    Z = manifold.random(50, rng)
    X = manifold.unembed(Z)
    yield "shape of embedded points off", float(Z.shape != (50, manifold.embed_dim)), 0.0
    yield "shape of points off", float(X.shape != (50, *manifold.point_shape)), 0.0
    yield "violation", manifold.violation(X), max(1e-12, manifold.tolerance * 1e-3)
    B = manifold.rows(Z)
    yield "weights below zero", -min(B.data.min(), 0.0), 0.0
    yield "sum of weights - 1", np.abs(np.asarray(B.sum(axis=1)).ravel() - 1), 1e-11


@_check()
def corrupted_row_is_named(manifold, rng):
    """A row that is not a point raises PointError with its number."""
    X = manifold.unembed(manifold.random(12, rng))
    h = float(np.sqrt(_times(manifold)[1]))
    est = RDKSEstimator(manifold, bandwidth=h).fit(X)
    for row in (0, 7):
        bad = X.copy()
        bad[row] += 1e3 * (1 + np.abs(X).max()) + 0.37
        for method in (RDKSEstimator(manifold, bandwidth=h).fit, est.score_samples):
            try:
                method(bad)
                told = "nothing"
            except PointError as error:
                told = str(error)
            named = f"X[{row}] " in told
            yield f"row {row} named" if named else f"row {row} not named in {told!r}", float(not named), 0.0


@_check()
def project_is_a_projection(manifold, rng):
    """project leaves what it returned alone, and moves no point."""
    Z = manifold.random(50, rng)
    once = manifold.project(Z)
    yield "change on a second projection", np.abs(manifold.project(once) - once), 8 * _EPS * (1 + np.abs(Z).max())
    gap = (manifold.rows(Z) - manifold.rows(once)).toarray()
    yield "change of a point", np.abs(gap), 1e-11


@_check()
def embed_and_unembed_are_inverse(manifold, rng):
    """Writing a point and reading it back gives the same point."""
    Z = np.concatenate([manifold.random(50, rng), manifold.nodes()[:20]])
    again = manifold.embed(manifold.unembed(Z))
    # weights of corners are coordinates over the length of an edge; the closest point is off by rounding of its size
    yield "change of the weights", np.abs((manifold.rows(Z) - manifold.rows(again)).toarray()), 1e-8
    spread = manifold.mass @ manifold.rows(manifold.nodes())
    yield "volume of the nodes when spread, relative", np.abs(spread / manifold.mass - 1), 1e-11


@_check()
def equal_by_content(manifold, rng):
    """Copies and pickles are equal and hash alike; eigenfunctions are not part of the value."""
    for name, other in (("pickle", pickle.loads(pickle.dumps(manifold))), ("copy", copy.deepcopy(manifold))):
        yield f"{name} differs", float(other != manifold or hash(other) != hash(manifold)), 0.0
        yield f"masses of the {name}", np.abs(other.mass - manifold.mass), 0.0
        yield f"masses of the {name} can be written to", float(other.mass.flags.writeable), 0.0
    bare = len(pickle.dumps(manifold))
    manifold.basis()
    yield "growth of the pickle by eigenfunctions", float(len(pickle.dumps(manifold)) - bare), 0.0


# -------------------------------------------------------------------------------- spectrum and flow


@_check()
def eigenfunctions_are_orthonormal(manifold, rng):
    """Phi^T M Phi = 1, S Phi = M Phi lam, the first eigenvalue is 0 and simple, the first function constant."""
    lam, phi = manifold.basis()
    m, S = manifold.mass, manifold.stiffness
    yield "orthonormality", np.abs(phi.T @ (m[:, None] * phi) - np.eye(len(lam))), 1e-9
    residual = S @ phi / m[:, None] - phi * lam
    size = np.sqrt((m[:, None] * residual**2).sum(axis=0))
    yield "residual relative to the largest rate", size / (2 * manifold.rate), 1e-9
    yield "order", -np.diff(lam), 1e-9 * manifold.rate
    yield "first eigenvalue", abs(lam[0]), 0.0
    yield "second eigenvalue not positive", float(not manifold.smallest_eigenvalue > 0), 0.0
    yield "first function - constant", np.abs(phi[:, 0] * np.sqrt(manifold.volume) - 1), 1e-12
    # Rayleigh: no function without mean does better than the second eigenvalue
    f = rng.standard_normal((manifold.n_nodes, 20))
    f -= m @ f / m.sum()
    quotient = np.einsum("vk,vk->k", f, S @ f) / np.einsum("v,vk->k", m, f**2)
    yield "smallest eigenvalue - Rayleigh quotient", manifold.smallest_eigenvalue - quotient, 0.0


@_check()
def conductances_are_positive(manifold, rng):
    """S is symmetric, negative off the diagonal, and its rows sum to zero; masses are positive."""
    S = manifold.stiffness.toarray()
    yield "asymmetry", np.abs(S - S.T), 1e-13 * np.abs(S).max()
    yield "row sums", np.abs(S.sum(axis=1)), 1e-12 * np.abs(S).max()
    yield "positive entries off the diagonal", np.max(S - np.diag(np.diag(S))), 0.0
    yield "masses not positive", float(not (manifold.mass > 0).all()), 0.0
    yield "log volume", abs(manifold.log_volume - np.log(manifold.mass.sum())), 4 * _EPS


@_check()
def maximum_principle(manifold, rng):
    """A flow stays between the smallest and the largest value of what it starts from, and keeps its mass."""
    F = rng.uniform(0.0, 1.0, (manifold.n_nodes, 3)) ** 4
    for t in _times(manifold, extreme=True)[1:]:
        flow, error = np.exp(manifold.diffuse(F, float(t))), _log_error(manifold, t)
        yield f"excess over the largest value, t = {t:.3g}", flow / F.max(axis=0) - 1, error
        yield f"excess below the smallest value, t = {t:.3g}", 1 - flow / F.min(axis=0), error
        yield f"mass, t = {t:.3g}", np.abs(manifold.mass @ flow / (manifold.mass @ F) - 1), error


@_check()
def flow_is_the_spectral_sum(manifold, rng):
    """A flow agrees with the sum over eigenfunctions, at a time at which those left out have decayed."""
    lam, phi = manifold.basis()
    F = rng.uniform(0.0, 1.0, (manifold.n_nodes, 3))
    complete = len(lam) == manifold.n_nodes
    for t in _times(manifold) if complete else [60.0 / lam[-1]]:
        want = phi @ (np.exp(-0.5 * lam * t)[:, None] * (phi.T @ (manifold.mass[:, None] * F)))
        rest = 0.0 if complete else np.exp(-0.5 * lam[-1] * t) * np.sqrt(manifold.mass @ F**2 / manifold.mass.min())
        yield f"difference at t = {t:.3g}", np.abs(np.exp(manifold.diffuse(F, float(t))) - want), rest + 1e-9


@_check()
def flow_solves_the_heat_equation(manifold, rng):
    """The change of log p in time is half of Laplacian(p)/p, at nodes."""
    # shorter times than those that points stand for do not change with the time one for one
    for t in np.maximum(_times(manifold), 3 * manifold.spread_time):
        total, _ = _mixture(manifold, rng, 4, float(t))
        h = 1e-3
        # fourth-order differences in log t, of which the next term is h^4 times a derivative of the order of the rate
        logs = [total.flow(float(t * np.expm1(k * h))) if k > 0 else total.at(float(t * np.exp(k * h))).flow()
                for k in (-2, -1, 1, 2)]
        slope = (8 * (logs[2] - logs[1]) - (logs[3] - logs[0])) / (12 * h * t)
        half = 0.5 * manifold.laplacian_ratio(total.flow())
        size = np.abs(half).max() + 1 / t
        yield f"residual at t = {t:.3g}, relative", np.abs(slope - half) / size, 1e-8 + 4 * _log_error(
            manifold, t) / (h * t * size)


@_check()
def kernel_is_symmetric(manifold, rng):
    """k_t(x, y) = k_t(y, x) at random pairs, at all times."""
    Z, W = manifold.random(5, rng), manifold.random(5, rng)
    for t in _times(manifold, extreme=True):
        there, back = (manifold.log_heat_kernel(A, B, float(t)) for A, B in ((Z, W), (W, Z)))
        yield f"asymmetry of log k at t = {t:.3g}", np.abs(there - back), (
            4 * _log_error(manifold, t) + 64 * _EPS * np.abs(there))


@_check()
def kernel_has_mass_one(manifold, rng):
    """The kernel from a point has mass one over the nodes."""
    Z = manifold.random(4, rng)
    for t in _times(manifold, extreme=True):
        for _, logs in manifold.columns(Z, float(t)):
            yield f"mass - 1 at t = {t:.3g}", np.abs(manifold.mass @ np.exp(logs) - 1), 1e-12 + _log_error(manifold, t)


@_check()
def kernels_are_a_semigroup(manifold, rng):
    """k_s * k_t = k_{s+t}, summed over nodes."""
    Z, W = manifold.random(3, rng), manifold.random(3, rng)
    for s in _times(manifold):
        s = float(s)
        (_, one), (_, two) = *manifold.columns(Z, s), *manifold.columns(W, 1.7 * s)
        (_, both), = manifold.columns(Z, 2.7 * s)
        whole = [read(manifold.rows(w[None]), column)[0] for w, column in zip(W, both.T, strict=True)]
        yield f"log of k_s * k_t - log k_(s+t), s = {s:.3g}", np.abs(
            np.log(manifold.mass @ np.exp(one + two)) - whole), 4 * _log_error(manifold, 2.7 * s)


@_check()
def kernel_is_finite_everywhere(manifold, rng):
    """Log density, score and Laplacian are finite at tiny and huge times, at every node."""
    source, Q = manifold.random(1, rng), np.concatenate([manifold.nodes(), manifold.random(20, rng)])
    order = 0 if manifold.positions is None else 2
    for t in _times(manifold, extreme=True):
        found = NodalSum(manifold, source, np.ones(1), float(t)).evaluate(Q, 0.0, order)
        broken = sum(int((~np.isfinite(a)).sum()) for a in found if a is not None)
        yield f"values not finite at t = {t:.3g}", float(broken), 0.0


@_check()
def uniform_limit(manifold, rng):
    """At a large time the density is 1 / volume, to the decay of the first eigenfunctions."""
    Z, W = manifold.random(5, rng), manifold.random(5, rng)
    for decay in (30.0, 60.0, 1e6):
        t = decay / manifold.smallest_eigenvalue
        rest = np.exp(-0.5 * decay) * manifold.volume / manifold.mass.min()
        yield f"log k + log volume after {decay:g} relaxation times", np.abs(
            manifold.log_heat_kernel(Z, W, t) + manifold.log_volume), rest + _log_error(manifold, t)


@_check()
def first_eigenvalue_sets_the_decay(manifold, rng):
    """k_t(x, x) * volume - 1 decays at the rates of the lowest eigenvalues, from the second on."""
    lam, phi = manifold.basis()
    some = rng.choice(manifold.n_nodes, 8, replace=False)
    Z = manifold.nodes()[some]
    for decay in (12.0, 20.0):
        t = decay / manifold.smallest_eigenvalue
        excess = np.expm1(manifold.log_heat_kernel(Z, Z, t) + manifold.log_volume)
        left = float(manifold.remaining(t, 2))
        want = manifold.volume * (manifold.rows(Z) @ phi[:, 1:]) ** 2 @ np.exp(-0.5 * lam[1:] * left)
        rest = np.exp(-0.5 * lam[-1] * left) * manifold.volume / manifold.mass[some] * (len(lam) < manifold.n_nodes)
        yield f"excess - eigenfunctions, after {decay:g} relaxation times", np.abs(excess - want), (
            rest + 1e-9 * want + 2 * _log_error(manifold, t))


# ------------------------------------------------------------------------------- sums and samples


@_check()
def estimator_is_the_engine(manifold, rng):
    """RDKSEstimator on points as written is the normalised sum of single kernels."""
    X, w, h = _data(manifold, rng)
    est = RDKSEstimator(manifold, bandwidth=h).fit(_flat(X), sample_weight=w)
    Q = manifold.unembed(manifold.random(8, rng))
    Zq, Z = manifold.embed(Q), manifold.embed(X)
    single = np.array([manifold.log_heat_kernel(np.tile(z, (len(Zq), 1)), Zq, h * h) for z in Z])
    want = np.logaddexp.reduce(single + np.log(w / w.sum())[:, None], axis=0)
    error = 8 * _log_error(manifold, h * h)
    found = est.score_samples(_flat(Q))
    yield "log density - log sum of kernels", np.abs(found - want), error
    again = RDKSEstimator(manifold, bandwidth=h).fit(_flat(X), sample_weight=1e-3 * w).score_samples(_flat(Q))
    yield "change when weights are multiplied", np.abs(again - found), error
    if manifold.positions is not None:
        total = NodalSum(manifold, Z, w, h * h).evaluate(Zq, 0.0, 2)
        pushed = _flat(manifold.push_tangent(Q, total.gradient))
        yield "score field - pushed gradient", np.abs(est.score_field(_flat(Q)) - pushed), 1e-9 * np.abs(pushed).max()
        yield "divergence - Laplacian", np.abs(est.score_divergence(_flat(Q)) - total.laplacian), (
            1e-9 * np.abs(total.laplacian).max())


@_check(lambda manifold: None if manifold.positions is None else "there are directions")
def score_is_refused(manifold, rng):
    """Where there are no directions, a score field is refused in words."""
    total, _ = _mixture(manifold, rng)
    try:
        total.evaluate(total.Z, 0.0, 1)
        told = "nothing"
    except UnsupportedError as error:
        told = str(error)
    yield "refused" if "score" in told else f"told {told!r}", float("score" not in told), 0.0


@_check()
def density_integrates_to_one(manifold, rng):
    """The mass of a density is one: exactly over nodes, and as a mean over uniform points."""
    total, t = _mixture(manifold, rng)
    sum_over_nodes = manifold.mass @ np.exp(total.evaluate(manifold.nodes()).log_density)
    yield "sum of mass times density - 1", abs(sum_over_nodes - 1), 1e-12 + _log_error(manifold, t)
    values = manifold.volume * np.exp(total.evaluate(manifold.random(_DRAWS, rng)).log_density)
    yield "z-score of the mean over uniform points", _two_samples(values[:, None], np.ones((2, 1))), _SIGMA


@_check()
def weights_count_points(manifold, rng):
    """Weight 2 is the point twice, weight 0 no point, and the order of points does not matter."""
    X, _, h = _data(manifold, rng)
    X = _flat(X)
    w = rng.integers(0, 4, len(X)).astype(float)
    w[0] = 2.0
    Q = _flat(manifold.unembed(manifold.random(8, rng)))
    order = rng.permutation(len(X))
    logs = RDKSEstimator(manifold, bandwidth=h).fit(X, sample_weight=w).score_samples(Q)
    for name, data, weight in (("repeated", np.repeat(X, w.astype(int), axis=0), None), ("permuted", X[order],
    w[order])):
        other = RDKSEstimator(manifold, bandwidth=h).fit(data, sample_weight=weight).score_samples(Q)
        yield f"weighted - {name}", np.abs(logs - other), 4 * _log_error(manifold, h * h)


@_check()
def merging_is_fitting_together(manifold, rng):
    """merge and partial_fit equal one fit to all data."""
    X, w, h = _data(manifold, rng, 12)
    X, Q = _flat(X), _flat(manifold.unembed(manifold.random(8, rng)))
    a, b = (RDKSEstimator(manifold, bandwidth=h).fit(X[i::2], sample_weight=w[i::2]) for i in range(2))
    together = RDKSEstimator(manifold, bandwidth=h).fit(X, sample_weight=w).score_samples(Q)
    stream = RDKSEstimator(manifold, bandwidth=h).fit(X[::2], sample_weight=w[::2])
    stream.partial_fit(X[1::2], sample_weight=w[1::2])
    for name, est in (("a + b", a.merge(b)), ("b + a", b.merge(a)), ("partial_fit", stream)):
        yield f"{name} - one fit", np.abs(est.score_samples(Q) - together), 4 * _log_error(manifold, h * h)


@_check()
def later_time_is_a_wider_fit(manifold, rng):
    """The density at a later time t is that of a fit with bandwidth sqrt(h^2 + t)."""
    X, w, h = _data(manifold, rng)
    X, Q = _flat(X), _flat(manifold.unembed(manifold.random(8, rng)))
    est = RDKSEstimator(manifold, bandwidth=h).fit(X, sample_weight=w)
    for t in (0.5 * h * h, 7.0 * h * h):
        wide = RDKSEstimator(manifold, bandwidth=float(np.sqrt(h * h + t))).fit(X, sample_weight=w)
        yield f"log density at t = {t / h**2:.1f} h^2", np.abs(est.score_samples(Q, t) - wide.score_samples(Q)), (
            4 * _log_error(manifold, t + h * h))


@_check()
def times_belong_to_sources(manifold, rng):
    """A sum with one time per source is the weighted sum of the single ones."""
    total, t = _mixture(manifold, rng, 6)
    times = t * np.array([1.0, 0.3, 1.0, 2.0, 0.1, 0.3])
    mixed = NodalSum(manifold, total.Z, total.weight, times)
    Q = manifold.random(8, rng)
    for later in (0.0, 0.5 * t):
        single = np.array([manifold.log_heat_kernel(np.tile(z, (len(Q), 1)), Q, float(u + later))
                           for z, u in zip(total.Z, times, strict=True)])
        want = np.logaddexp.reduce(single + np.log(total.share)[:, None], axis=0)
        yield "log density", np.abs(mixed.evaluate(Q, later).log_density - want), 8 * _log_error(manifold, 3 * t)


@_check()
def own_kernel_is_the_kernel(manifold, rng):
    """log_self is the kernel from a point to itself, by eigenfunctions and by moments."""
    for t in _times(manifold):
        total, _ = _mixture(manifold, rng, 6, float(t))
        want = manifold.log_heat_kernel(total.Z, total.Z, float(2 * t))
        yield f"difference at t = {2 * t:.3g}", np.abs(total.log_self(float(t)) - want), 1e-10 + 4 * _log_error(
            manifold, 2 * t)


@_check()
def leave_one_out_is_the_sum_of_others(manifold, rng):
    """The leave-one-out sum at a source is the sum over all others, close together and isolated."""
    for t in _times(manifold):
        total, _ = _mixture(manifold, rng, 9, float(t))
        found = total.leave_one_out()
        for i in range(len(total.Z)):
            others = np.arange(len(total.Z)) != i
            want = NodalSum(manifold, total.Z[others], total.weight[others], float(t)).evaluate(
                total.Z[i:i + 1]).log_density + np.log(1 - total.share[i])
            # where it is a thousandth of the whole, subtracting magnifies the error of the own term that much
            yield f"source {i} at t = {t:.3g}", np.abs(found[i] - want), 1e3 * (1e-11 + _log_error(manifold, t))
        some = total.leave_one_out(0.0, np.array([3, 0]))
        yield f"chosen rows at t = {t:.3g}", np.abs(some - found[[3, 0]]), 1e3 * (1e-11 + _log_error(manifold, t))


@_check()
def sampler_follows_the_density(manifold, rng):
    """Means over draws are those over uniform points weighted by the density, for one kernel and for a mixture."""
    total, t = _mixture(manifold, rng)
    one = NodalSum(manifold, total.Z[:1], np.ones(1), t)
    points = manifold.random(_DRAWS, rng)
    uniform = manifold.rows(points)
    functions = np.exp(np.concatenate([logs for _, logs in manifold.columns(total.Z[:4], t)], axis=1))
    for name, state, draws in (
            ("a mixture", total, total.sample(_DRAWS, rng)),
            ("one kernel", one, heat_sample(manifold, np.repeat(total.Z[:1], _DRAWS, axis=0), t, rng))):
        weight = manifold.volume * np.exp(state.evaluate(points).log_density)
        found, want = manifold.rows(draws) @ functions, weight[:, None] * (uniform @ functions)
        yield f"z-score, {name}", _two_samples(found, want), _SIGMA
        yield f"violation of draws, {name}", manifold.violation(manifold.unembed(draws)), 1e-9


@_check(lambda manifold: "there are no directions" if manifold.positions is None else None)
def score_is_the_slope_of_log_density(manifold, rng):
    """From node to node, log p changes by the mean score times the way, up to the discretisation."""
    P = manifold.positions
    t = 80.0 / manifold.rate
    total, _ = _mixture(manifold, rng, 3, t)
    found = total.evaluate(manifold.nodes(), 0.0, 1)
    link = manifold.stiffness.tocoo()
    u, v = link.row, link.col
    # where the density has not yet fallen so far that the slope changes from node to node
    near = found.log_density > found.log_density.max() - 4
    keep = (u < v) & near[u] & near[v]
    u, v = u[keep], v[keep]
    rise = found.log_density[v] - found.log_density[u]
    way = np.einsum("ej,ej->e", 0.5 * (found.gradient[u] + found.gradient[v]), P[v] - P[u])
    yield "mismatch relative to the change", np.sqrt(np.mean((rise - way) ** 2) / np.mean(rise**2)), 0.25
    yield "slope of the regression - 1", abs((rise @ way) / (way @ way) - 1), 0.2


@_check(lambda manifold: "there are no directions" if manifold.positions is None else None)
def score_is_tangent(manifold, rng):
    """The score lies in the tangent spaces."""
    total, _ = _mixture(manifold, rng)
    Q = manifold.random(20, rng)
    G = total.evaluate(Q, 0.0, 1).gradient
    yield "normal part", np.abs(manifold.to_tangent(Q, G) - G), 1e-10 * np.abs(G).max()


@_check(lambda manifold: "there are no directions" if manifold.positions is None else None)
def laplacian_has_no_mean(manifold, rng):
    """The integral of Laplacian(p) is zero: with weights p, Laplacian(log p) + |score|^2 has mean zero over nodes."""
    for t in _times(manifold):
        total, _ = _mixture(manifold, rng, 5, float(t))
        found = total.evaluate(manifold.nodes(), 0.0, 2)
        ratio = found.laplacian + np.einsum("ij,ij->i", found.gradient, found.gradient)
        weight = manifold.mass * np.exp(found.log_density)
        yield f"mean at t = {t:.3g}, relative", abs(weight @ ratio) / (weight @ np.abs(ratio)), (
            1e-9 + 4 * _log_error(manifold, t) * manifold.rate * t)


@_check()
def bandwidth_is_chosen(manifold, rng):
    """The rules find a bandwidth between a jump and the largest scale."""
    total, _ = _mixture(manifold, rng, 40)
    Z, which = np.unique(total.sample(40, rng), axis=0, return_inverse=True)
    data = NodalSum(manifold, Z, np.bincount(which.ravel()).astype(float), 0.0)
    for rule in ("lcv", "lscv") if manifold.dim == 0 else ("lcv", "lscv", "isj"):
        h = select(data, rule).bandwidth
        yield f"{rule}: not positive and finite", float(not 0 < h < np.inf), 0.0
        yield f"{rule}: bandwidth over the slowest mode's", h * np.sqrt(manifold.smallest_eigenvalue), 1e3
