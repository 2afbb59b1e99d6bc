"""Sums over the sources that matter: what is left out is bounded, and the bound is honest."""
import pickle

import numpy as np
import pytest

from rdks import _kernels, _twins, engines, hierarchy, radial
from rdks.engines import DirectSum
from rdks.manifolds import (
    SO3,
    SPD,
    Box,
    Circle,
    Euclidean,
    Hyperbolic,
    OrnsteinUhlenbeck,
    Product,
    Sphere,
    Torus,
)
from rdks.manifolds.base import SpaceForm
from rdks.neighbors import NeighborSum

SPACES = [Torus(2), Torus(4, period=(1.0, 2.0, 1.0, 3.0)), Sphere(2), Sphere(10), Sphere(2, radius=100.0), Euclidean(2),
          Euclidean(3), Box([(0.0, 1.0)] * 2), SO3(symmetry="cubic"), Hyperbolic(2),
          Product(Sphere(2), Circle(24.0), times=(1.0, 30.0)), OrnsteinUhlenbeck(2), SPD(2)]
NAMES = [repr(M) for M in SPACES]
# in units of the squared size of the space: from points that do not see each other to a uniform density
TIMES = [1e-8, 1e-5, 1e-3, 0.03, 0.3, 10.0]


@pytest.fixture(autouse=True)
def compiled(monkeypatch):
    monkeypatch.setattr(engines, "_kernels", lambda pairs: _kernels)


def exact(manifold, Z, w, t, Q, order, later=0.0):
    """The numpy form, which leaves nothing out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "_kernels", lambda pairs: _twins)
        return DirectSum(manifold, Z, w, t).evaluate(Q, later, order)


def unit_time(manifold):
    return min(((f.reach / np.pi) ** 2 for f in manifold.factors() if np.isfinite(f.reach)), default=1.0)


def errors(found, expected, t):
    """Largest errors, in units of what was promised: 1, 1/sqrt(t), 1/t; rounding of the exact form taken off."""
    size = np.abs(expected.log_density).clip(1)
    out = [(np.abs(found.log_density - expected.log_density) - 4e-12 * size).max()]
    if found.gradient is not None:
        slope = np.sqrt((expected.gradient**2).sum(axis=1)) + t**-0.5
        difference = np.sqrt(((found.gradient - expected.gradient) ** 2).sum(axis=1))
        out.append(((difference - 2e-9 * slope) * t**0.5).max())
    if found.laplacian is not None:
        out.append(((np.abs(found.laplacian - expected.laplacian) - 2e-9 * slope**2) * t).max())
    return np.array(out)


def layout(name, rng, n=2500):
    """Sources, weights and queries on the sphere."""
    M = Sphere(2)
    w = np.ones(n)
    spread = M.random(50, rng)
    if name == "cluster":
        Z = M.project(np.array([0.3, -0.5, 0.8]) + 1e-3 * rng.standard_normal((n, 3)))
    elif name == "poles":
        Z = M.random(n, rng)
        Z[0], Z[1] = (0, 0, 1), (0, 0, -1)
    elif name == "meridian":
        angle = rng.uniform(-np.pi, np.pi, n)
        Z = np.column_stack([np.sin(angle), np.zeros(n), np.cos(angle)])
    elif name == "duplicates":
        Z = M.random(n, rng)
        Z[: n - 200] = Z[0]
    elif name == "weights":
        Z = M.random(n, rng)
        w = 10.0 ** rng.uniform(-30, 0, n)
    Q = np.concatenate([spread, Z[:20], -Z[:20], M.exp(Z[:10], 0.02 * M.frame(Z[:10])[:, 0]), -Z[-10:]])
    return Z, w, Q


@pytest.mark.parametrize("t", TIMES)
@pytest.mark.parametrize("manifold", SPACES, ids=NAMES)
def test_errors_are_below_what_is_promised(manifold, t):
    rng = np.random.default_rng(1)
    Z, w = manifold.random(2500, rng), rng.uniform(0.1, 1.0, 2500)
    Q = np.concatenate([manifold.random(60, rng), Z[:10]])
    t = t * unit_time(manifold)
    drift = t if manifold.has_drift else 0.0  # half of the time with a drift
    expected = exact(manifold, Z, w, t, Q, 2, drift)
    times = [manifold.flow(Z[:1], t + drift)[1]]
    for rtol in (1e-2, 1e-6, 1e-9):
        engine = NeighborSum(manifold, Z, w, t, rtol=rtol)
        for order in (0, 1, 2):
            assert (errors(engine.evaluate(Q, drift, order), expected, min(times)) <= rtol).all()


@pytest.mark.parametrize("t", [1e-8, 1e-5, 1e-3, 0.03, 1.0])
@pytest.mark.parametrize("name", ["cluster", "poles", "meridian", "duplicates", "weights"])
def test_sources_in_every_arrangement(name, t):
    Z, w, Q = layout(name, np.random.default_rng(2))
    expected = exact(Sphere(2), Z, w, t, Q, 2)
    for rtol in (1e-3, 1e-6):
        found = NeighborSum(Sphere(2), Z, w, t, rtol=rtol).evaluate(Q, order=2)
        assert np.isfinite(found.log_density).all()
        # next to a cut locus the numpy form sums over sources in another order, at slopes of pi/t
        assert errors(found, expected, t)[0] <= rtol
        near = expected.log_density > expected.log_density.max() - 2.0 / t
        found, known = (type(found)(*(a[near] for a in some)) for some in (found, expected))
        assert (errors(found, known, t) <= rtol).all()


def test_the_promise_is_not_kept_by_summing_everything():
    """Errors grow with what is allowed, by orders of magnitude, and so does what is saved."""
    rng = np.random.default_rng(3)
    for manifold, t in ((Sphere(2), 1e-3), (Torus(2), 3e-3), (Euclidean(3), 0.01), (Hyperbolic(2), 3e-3)):
        Z, Q = manifold.random(20_000, rng), manifold.random(200, rng)
        direct = DirectSum(manifold, Z, np.ones(len(Z)), t).evaluate(Q).log_density
        off, pairs = [], []
        for rtol in (1e-1, 1e-3, 1e-5, 1e-7):
            engine = NeighborSum(manifold, Z, np.ones(len(Z)), t, rtol=rtol)
            off.append(np.abs(engine.evaluate(Q).log_density - direct).max() / rtol)
            pairs.append(engine.expected_pairs(0.0, Q).mean())
        assert max(off) <= 1 and min(off) > 1e-5
        assert (np.diff(pairs) > 0).all() and pairs[-1] < 0.3 * len(Z)


@pytest.mark.parametrize("t", [1e-4, 3e-3, 0.03, 0.3])
@pytest.mark.parametrize("manifold", SPACES, ids=NAMES)
def test_what_is_left_out_is_bounded_box_by_box(manifold, t):
    """At every depth the bound exceeds what is missing, images and blocks of other times included."""
    rng = np.random.default_rng(4)
    Z, w = manifold.random(1500, rng), rng.uniform(0.1, 1.0, 1500)
    Q = np.concatenate([manifold.random(40, rng), Z[:20]])
    rows = np.arange(len(Q))
    # a promise that asks for little: no block is searched less deep than its first search would go
    engine = NeighborSum(manifold, Z, w, t * unit_time(manifold) * rng.choice([1.0, 0.3, 8.0], 1500), rtol=0.999)
    blocks, tables = engine._tables(engine._moved(1e-9, len(Q), None), 0)
    everything = engine._sums(_twins, blocks, tables, Q, rows, 0, np.full(len(Q), 60.0))[0]
    seen = False
    for depth in (0.5, 3.0, 8.0, 20.0):
        total, _, _, left, doubt, pairs = engine._sums(_kernels, blocks, tables, Q, rows, 0, np.full(len(Q), depth))
        missing = everything - total
        assert (missing <= left * (1 + 1e-9) + 2 * doubt + 1e-13 * everything).all()
        seen |= bool((left > 0).any() and (left <= 50 * missing.max()).any())
        alone = engine._sums(_kernels, blocks, tables, Q, rows, -1, np.full(len(Q), depth))
        assert np.array_equal(alone[-1], pairs) and np.array_equal(alone[3], left)
    assert seen or t > 0.01 or manifold.dim > 3


def test_what_a_group_of_queries_leaves_out_counts_for_each():
    """A cluster far from all of some neighbouring queries is left out for all at once, before its boxes are seen."""
    rng = np.random.default_rng(15)
    for manifold, far in ((Euclidean(2), [4.0, 1.0]), (Torus(2), [4.0, 1.0]), (Hyperbolic(2), [0.0, np.exp(4.0)])):
        Z = np.repeat([[0.0, 1.0], far], 40_000, axis=0) * (1 + 1e-6 * rng.uniform(0, 1, (80_000, 1)))
        Q = Z[:100]
        engine = NeighborSum(manifold, Z, np.ones(len(Z)), 0.5, rtol=0.999)
        blocks, tables = engine._tables(engine._moved(0.0, len(Q), None), 0)
        rows = np.arange(len(Q))
        everything = engine._sums(_kernels, blocks, tables, Q, rows, 0, np.full(len(Q), 60.0))[0]
        total, _, _, left, _, pairs = engine._sums(_kernels, blocks, tables, Q, rows, 0, np.full(len(Q), 2.0))
        missing = everything - total
        assert (pairs < 50_000).all() and (missing > 1e-9).all()
        # derivatives, in units of 1/sqrt(t) and 1/t
        blocks, tables = engine._tables(engine._moved(0.0, len(Q), None), 2)
        _, slope, bend, *_ = engine._sums(_kernels, blocks, tables, Q, rows, 2, np.full(len(Q), 60.0))
        _, found, bent, more, _, _ = engine._sums(_kernels, blocks, tables, Q, rows, 2, np.full(len(Q), 2.0))
        assert (np.sqrt(0.5 * ((slope - found) ** 2).sum(axis=1)) <= more).all()
        assert (0.5 * np.abs(bend - bent) <= manifold.dim * more).all()
        assert (missing <= left).all() and (left <= 1000 * missing).all()


@pytest.mark.parametrize("factor", [SpaceForm(2, radius=1.0), SpaceForm(3, radius=2.0), SpaceForm(10, radius=1.0),
                                    SpaceForm(60, radius=1.0), SpaceForm(1, period=1.0), SpaceForm(1, radius=1.0),
                                    SpaceForm(2, radius=1.0, hyperbolic=True), SpaceForm(3),
                                    SpaceForm(9, radius=3.0, hyperbolic=True)], ids=repr)
def test_kernels_fall_at_the_rate_they_are_said_to(factor):
    unit = factor.scale or 1.0
    for t in np.geomspace(1e-8, 10.0, 19) * unit**2:
        reach = min(factor.reach, 40 * np.sqrt(t) + 5 * unit)
        near = 1e-3 * min(np.sqrt(t), unit)
        r = np.concatenate([np.geomspace(near, reach, 500), np.linspace(near, reach, 500),
                            reach - np.geomspace(1e-8, 0.3, 300) * reach])
        fall = factor.log_kernel(np.zeros(1), t) - factor.log_kernel(r, t) + r * r / (2 * t)
        if factor.kind == "sphere":
            measure = (2 * unit * np.sin(r / (2 * unit))) ** 2
        else:
            measure = r * r
        rate = hierarchy.rates((factor,), float(t))[0]
        assert (rate * measure <= fall * (1 + 1e-12) + 1e-11).all()
        if t < 0.01 * unit**2 / factor.dim:
            assert rate > 0.98 / (2 * t)  # and not much more slowly


@pytest.mark.parametrize("manifold", SPACES, ids=NAMES)
def test_boxes_hold_their_points(manifold):
    rng = np.random.default_rng(5)
    factors, period = manifold.factors(), radial.table(manifold.factors(), 1.0).period
    for n in (1, 31, 32, 33, 256, 257, 3000):
        Z, w = manifold.random(n, rng), rng.uniform(0.1, 1.0, n)
        for f, s in manifold.pieces():
            if f.period is not None:
                Z[:, s] += f.period * rng.integers(-2, 3, (n, 1))  # angles need not be within one period
        order = hierarchy.compact(Z, factors)
        assert np.array_equal(np.sort(order), np.arange(n))
        Z, w = Z[order], w[order]
        tree = hierarchy.tree(Z, w, factors)
        for level in range(1, len(tree.first)):
            width = hierarchy.BOX * hierarchy.FAN ** (level - 1)
            nodes = slice(tree.first[level - 1], tree.first[level])
            child = np.arange(n) // width
            middle = tree.middle[nodes].transpose(0, 2, 1).reshape(-1, Z.shape[1])[child]
            extent = tree.extent[nodes].transpose(0, 2, 1).reshape(-1, Z.shape[1])[child]
            away = Z - middle
            away -= np.where(period > 0, period * np.rint(away / np.where(period > 0, period, 1.0)), 0.0)
            slack = np.where(period > 0, 1e-13 * period, 0.0)
            assert (np.abs(away) <= extent + slack).all()
            assert np.allclose(tree.load[nodes].ravel()[:child[-1] + 1], np.bincount(child, w), rtol=1e-12)
            assert tree.load[nodes].ravel()[child[-1] + 1:].sum() == 0.0
            assert np.array_equal(tree.heaviest[nodes].ravel()[:child[-1] + 1],
                                  np.maximum.reduceat(w, np.arange(0, n, width)))
        assert tree.first[-1] - tree.first[-2] == 1


def test_order_of_the_data_does_not_matter():
    rng = np.random.default_rng(6)
    Z = Sphere(2).random(5000, rng)
    again = rng.permutation(5000)
    factors = Sphere(2).factors()
    assert np.array_equal(Z[hierarchy.compact(Z, factors)], Z[again][hierarchy.compact(Z[again], factors)])


def test_neighbours_across_the_seam_of_a_circle():
    """Sources on one side of the seam, queries on the other."""
    rng = np.random.default_rng(7)
    for manifold in (Torus(2), Product(Circle(), Sphere(2))):
        Z, Q = manifold.random(3000, rng), manifold.random(50, rng)
        Z[:, 0], Q[:, 0] = 1e-3 * rng.uniform(0, 1, 3000), 2 * np.pi - 1e-3 * rng.uniform(0, 1, 50)
        found = NeighborSum(manifold, Z, np.ones(3000), 1e-3).evaluate(Q, order=2)
        assert (errors(found, exact(manifold, Z, np.ones(3000), 1e-3, Q, 2), 1e-3) <= 1e-6).all()
        Q[:, 0] += 4 * np.pi
        again = NeighborSum(manifold, Z, np.ones(3000), 1e-3).evaluate(Q)
        assert np.abs(again.log_density - found.log_density).max() <= 1e-6


@pytest.mark.parametrize("manifold", [Sphere(2), SO3(symmetry="cubic"), Box([(0.0, 1.0)] * 2), Torus(2), Hyperbolic(2)],
                         ids=repr)
def test_leave_one_out_skips_the_own_term(manifold):
    rng = np.random.default_rng(8)
    Z, w = manifold.random(800, rng), rng.uniform(0.1, 1.0, 800)
    Z[400:420] = Z[0]
    for t in (1e-6, 1e-3, 0.3):
        t = t * unit_time(manifold)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engines, "_kernels", lambda pairs: _twins)
            expected = DirectSum(manifold, Z, w, t).leave_one_out()
        engine = NeighborSum(manifold, Z, w, t)
        found, rows = engine.leave_one_out(), np.array([5, 700, 0, 410])
        assert (np.abs(found - expected) <= 1e-6 + 4e-12 * np.abs(expected)).all()
        assert (np.abs(engine.leave_one_out(rows=rows) - found[rows]) <= 1e-6 + 4e-12 * np.abs(found[rows])).all()


def test_many_duplicates_and_far_queries():
    rng = np.random.default_rng(9)
    Z = Euclidean(2).random(101_000, rng)
    Z[:100_000] = Z[0]
    Q = np.concatenate([Z[:2], Z[-20:], 100 + Z[-3:]])
    for t in (1e-8, 1e-3):
        found = NeighborSum(Euclidean(2), Z, np.ones(len(Z)), t).evaluate(Q, order=2)
        logs = -0.5 * ((Q[:, None] - Z[None, 99_999:]) ** 2).sum(axis=2) / t
        logs[:, 0] += np.log(100_000)
        expected = np.logaddexp.reduce(logs, axis=1) - np.log(2 * np.pi * t) - np.log(len(Z))
        assert (np.abs(found.log_density - expected) <= 1e-6 + 1e-11 * np.abs(expected)).all()


@pytest.mark.parametrize("t", [1e-10, 1e-8, 1e-6])
def test_distances_at_the_antipode_keep_their_digits(t):
    """A tight cluster of 20,000 sources seen from its antipode, where the squared chord has no digits left."""
    rng = np.random.default_rng(10)
    M = Sphere(2)
    Z = M.project(np.array([0.6, -0.64, 0.48]) + 1e-5 * rng.standard_normal((20_000, 3)))
    Q = np.concatenate([-Z[:5], M.project(-Z[:5] + 1e-5 * rng.standard_normal((5, 3)))])
    found = NeighborSum(M, Z, np.ones(len(Z)), t).evaluate(Q).log_density
    r = 2 * np.arctan2(np.sqrt(((Q[:, None] - Z) ** 2).sum(-1)), np.sqrt(((Q[:, None] + Z) ** 2).sum(-1)))
    factor = M.factors()[0]
    logs = factor.log_kernel(r.ravel(), t).reshape(r.shape) - r * r / (2 * t)
    expected = np.logaddexp.reduce(logs, axis=1) - np.log(len(Z))
    assert (np.abs(found - expected) <= 1e-6 + 1e-11 * np.abs(expected)).all()


def test_times_and_weights_of_many_sizes():
    """A wide kernel of tiny weight is all there is between the clusters of narrow ones."""
    rng = np.random.default_rng(11)
    Z, Q = Sphere(2).random(3000, rng), Sphere(2).random(300, rng)
    times = rng.choice([1e-7, 1e-4, 0.05], 3000, p=[0.8, 0.19, 0.01])
    w = np.where(times > 0.01, 1e-25, 1.0)
    found = NeighborSum(Sphere(2), Z, w, times).evaluate(Q, order=2)
    assert (errors(found, exact(Sphere(2), Z, w, times, Q, 2), 1e-7) <= 1e-6).all()
    assert np.isfinite(found.log_density).all()


def test_more_sources_than_a_chunk_and_more_queries_than_a_group():
    rng = np.random.default_rng(12)
    for manifold, t in ((Sphere(2), 2e-4), (Torus(3), 1e-3), (Sphere(2), 0.1)):
        Z, Q = manifold.random(40_000, rng), manifold.random(17_000, rng)
        w = rng.uniform(0.1, 1, 40_000)
        engine = NeighborSum(manifold, Z, w, t, n_jobs=2)
        found = engine.evaluate(Q, order=1)
        some = rng.choice(len(Q), 40, replace=False)
        expected = exact(manifold, Z, w, t, Q[some], 1)
        assert (errors(type(found)(found.log_density[some], found.gradient[some], None), expected, t) <= 1e-6).all()


def test_the_state_is_kept():
    rng = np.random.default_rng(13)
    Z, Q = Torus(2).random(500, rng), Torus(2).random(20, rng)
    engine = NeighborSum(Torus(2), Z, np.ones(500), 1e-3, rtol=1e-3)
    logs = engine.evaluate(Q).log_density
    for other in (engine.at(1e-3), engine.merge(engine), pickle.loads(pickle.dumps(engine))):
        assert other.rtol == 1e-3
        assert np.abs(other.evaluate(Q).log_density - logs).max() <= 2e-3
    assert np.array_equal(engine.at(2e-3).evaluate(Q).log_density, engine.evaluate(Q, 1e-3).log_density)
    assert sorted(engine.compact_order()) == list(range(500))
    for rtol in (0.0, 1.0, np.nan, -1e-6):
        with pytest.raises(ValueError, match="rtol"):
            NeighborSum(Torus(2), Z, np.ones(500), 1e-3, rtol=rtol)


def test_the_numpy_form_serves_small_work(monkeypatch):
    monkeypatch.setattr(engines, "_kernels", lambda pairs: _twins)
    monkeypatch.setattr("rdks.neighbors._kernels", lambda pairs: _twins)
    rng = np.random.default_rng(14)
    Z, Q = Sphere(2).random(300, rng), Sphere(2).random(20, rng)
    for t in (1e-7, 1e-3, 1.0):
        engine = NeighborSum(Sphere(2), Z, np.ones(300), t)
        assert (errors(engine.evaluate(Q, order=2), exact(Sphere(2), Z, np.ones(300), t, Q, 2), t) <= 1e-6).all()
        assert (engine.expected_pairs(0.0, Q) == 300).all()


def test_the_box_of_the_hierarchy_is_that_of_the_kernels():
    assert (hierarchy.BOX, hierarchy.FAN) == (_kernels.BOX, _kernels.FAN)
