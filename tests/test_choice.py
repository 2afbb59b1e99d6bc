"""The choice of the engine: its rule, that all engines agree, and that what one has computed is kept."""
import pickle

import numpy as np
import pytest

from rdks import RDKSEstimator, choice
from rdks.choice import ENGINES, AutoSum, choose_engine, describe, expected_seconds, sources
from rdks.engines import DirectSum
from rdks.errors import UnsupportedError
from rdks.hierarchy import rates
from rdks.manifolds import SO3, Box, Circle, Euclidean, Graph, Hyperbolic, OrnsteinUhlenbeck, Product, Sphere, Torus
from rdks.neighbors import NeighborSum
from rdks.pairs import PairSum
from rdks.spectral import SpectralSum

SPACES = [Circle(period=24.0), Torus(2), Box([(0.0, 1.0), (0.0, 3.0)]), Sphere(2), SO3(symmetry="222"), Euclidean(2),
          Hyperbolic(2), OrnsteinUhlenbeck(1)]
KINDS = {"direct": DirectSum, "neighbors": NeighborSum, "spectral": SpectralSum}


class Pairs(Euclidean):
    """A space whose kernel is known pair by pair only."""

    kernel = "pairs"

    def log_heat_kernel(self, X, Y, t):
        return Euclidean(self.dim).log_heat_kernel(X, Y, t)


def ring(n=12):
    edges = np.zeros((n, n))
    edges[np.arange(n), (np.arange(n) + 1) % n] = 1.0
    return Graph(edges + edges.T)


def data(manifold, n=300):
    rng = np.random.default_rng(0)
    return manifold.random(n, rng), rng.uniform(0.5, 2.0, n)


def served(manifold):
    return [name for name in ENGINES if name != "spectral" or choice.unsupported(manifold) == ""]


@pytest.fixture
def busy(monkeypatch):
    """Estimate times for small work too, which exact sums do otherwise."""
    monkeypatch.setattr(choice, "_FEW", 0)


@pytest.mark.parametrize("manifold", SPACES, ids=repr)
@pytest.mark.parametrize("few", [0, 10**9])
def test_every_engine_agrees(manifold, few, monkeypatch):
    monkeypatch.setattr(choice, "_FEW", few)
    Z, w = data(manifold)
    Q, time = Z[::7], np.where(np.arange(300) % 3, 0.06, 0.08)
    exact = DirectSum(manifold, Z, w, time)
    for name in served(manifold):
        total = sources(manifold, Z, w, time, engine=name, rtol=1e-8)
        assert type(total) is {**KINDS, "auto": AutoSum}[name]
        for later in (0.0, 0.01):
            for a, b in zip(exact.evaluate(Q, later, 2), total.evaluate(Q, later, 2), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6 * np.abs(a).max())
        np.testing.assert_allclose(total.leave_one_out(0.01), exact.leave_one_out(0.01), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["neighbors", "spectral", "auto"])
def test_rtol_is_passed_on(name, busy):
    Z, w = data(Torus(2))
    total = sources(Torus(2), Z, w, 0.5, engine=name, rtol=1e-3)
    assert total.rtol == total.at(0.1).rtol == total.merge(total).rtol == 1e-3
    assert name != "auto" or total.engine("neighbors").rtol == total.engine("spectral").rtol == 1e-3


def test_few_pairs_are_summed_directly_or_by_coefficients():
    """Images count as sources do; there, no time is spent on looking for neighbours."""
    flat, box = Torus(2), Box([(0.0, 1.0), (0.0, 1.0)])
    Z, w = data(flat, 1000)
    few = "direct", "few enough pairs of 1000 sources and 1000 queries"
    assert choose_engine(AutoSum(flat, Z, w, 1e-3), 1000) == few
    assert choose_engine(AutoSum(flat, Z, w, 0.1), 1000)[0] == "spectral"
    # coefficients cost about a millisecond at least, which is more than half of some hundred thousand pairs
    assert choose_engine(AutoSum(flat, Z, w, 1.0), 20)[0] == "direct"
    assert choose_engine(AutoSum(Euclidean(2), Z, w, 0.1), 2000)[1].startswith("few enough")
    assert "expected" in choose_engine(AutoSum(Euclidean(2), Z, w, 0.1), 2001)[1]
    Z, w = data(box, 1000)
    assert "few enough" in choose_engine(AutoSum(box, Z, w, 1e-4), 500)[1]
    assert "expected" in choose_engine(AutoSum(box, Z, w, 1e-4), 501)[1]


def test_the_engine_that_is_expected_first_is_chosen():
    """Exact sums for few queries, neighbours for narrow kernels, coefficients for wide ones and those at hand."""
    Z, w = data(Torus(2), 100_000)
    for time, n_queries, expected in ((1e-4, 1, "direct"), (1.0, 1, "spectral"), (1.0, 100_000, "spectral"),
                                      (1e-3, 100_000, "spectral")):
        total = AutoSum(Torus(2), Z, w, time)
        seconds = expected_seconds(total, n_queries)
        name, reason = choose_engine(total, n_queries)
        assert name == expected
        if "few" not in reason:
            assert name == min(seconds, key=seconds.get) and f"expected to take {seconds[name]:.2g} s" in reason
        if "on one thread" in reason:
            assert all(other in reason for other in set(seconds) - {name})
    assert choose_engine(AutoSum(Euclidean(2), *data(Euclidean(2), 100_000), 0.01), 100_000)[0] == "neighbors"
    # spaces without an expansion are never served by one
    for manifold in (Euclidean(2), OrnsteinUhlenbeck(1), Product(Sphere(2), Euclidean(1))):
        seconds = expected_seconds(AutoSum(manifold, *data(manifold), 0.01), 10**6)
        assert seconds["spectral"] == np.inf and min(seconds.values()) < np.inf


def test_what_is_there_costs_nothing():
    """Coefficients and the order of the sources count until they have been computed, for the times that they serve."""
    torus = Torus(2)
    Z, w = data(torus, 20_000)
    total = AutoSum(torus, Z, w, 0.01)
    fresh = expected_seconds(total, 10)
    total.engine("spectral").moments()
    total.engine("direct").evaluate(Z[:10])
    later = expected_seconds(total, 10)
    assert later["spectral"] < fresh["spectral"] and later["direct"] < fresh["direct"]
    assert later["neighbors"] == fresh["neighbors"]
    for engine, t, known in ((total, 0.1, True), (total.at(0.001), 0.0, False), (total.at(0.001), 0.01, True)):
        other = expected_seconds(AutoSum(torus, Z, w, engine.time), 10, t)["spectral"]
        assert (expected_seconds(engine, 10, t)["spectral"] < other) == known
    # derivatives cost more, and so do more queries
    for a, b in (((10, 0.0, 0), (10, 0.0, 2)), ((10, 0.0, 0), (1000, 0.0, 0))):
        less, more = expected_seconds(total, *a), expected_seconds(total, *b)
        assert all(less[name] < more[name] for name in KINDS)


def test_the_share_that_is_near():
    """Against all pairs, within what a sample tells."""
    for manifold in (Torus(2), Sphere(2), Box([(0.0, 6.0)]), Hyperbolic(2), Product(Circle(), Euclidean(1))):
        Z, w = data(manifold, 2000)
        total, t = AutoSum(manifold, Z, w, 0.0), 0.02
        image, some = manifold.images(Z)[:, None], Z[:100, None]
        depth = 0.0
        for rate, (f, s) in zip(rates(manifold.factors(), t), manifold.pieces(), strict=True):
            x, y = some[..., s], image[..., s]
            depth = depth + rate * (f.dist(x, y) ** 2 if f.hyperbolic else (f.difference(x, y) ** 2).sum(axis=-1))
        for deep in (1.0, 10.0, 60.0):
            want = np.mean(depth <= deep)
            assert abs(total.near(t, deep) - want) < 0.05 + 0.2 * want
        assert total.near(t, 1.0) <= total.near(t, 10.0) and total.near(1e9, 60.0) > total.near(1e-9, 60.0)


def test_engines_are_kept(busy):
    torus = Torus(2)
    Z, w = data(torus)
    total = AutoSum(torus, Z, w, 0.2)
    assert total.engine("spectral") is total.engine("spectral")
    known = total.engine("spectral").moments()
    total.engine("direct").evaluate(Z[:3])
    total.near(0.1, 3.0)
    later = total.at(0.3)
    assert later._near is total._near
    assert later.engine("spectral").moments() is known  # coefficients do not know the time
    assert later.engine("direct").is_ordered and not later.engine("neighbors").is_ordered
    for name in KINDS:
        assert (later.engine(name).time == 0.3).all() and (total.engine(name).time == 0.2).all()
    exact = DirectSum(torus, Z, w, 0.3)
    np.testing.assert_allclose(later.evaluate(Z).log_density, exact.evaluate(Z).log_density, atol=1e-6)
    time = np.where(np.arange(300) % 2, 0.1, 0.5)
    exact = DirectSum(torus, Z, w, time)
    mixed = total.at(time)
    for name in KINDS:
        np.testing.assert_allclose(mixed.engine(name).evaluate(Z).log_density, exact.evaluate(Z).log_density, atol=1e-6)


def test_merge_and_pickle(busy):
    torus = Torus(2)
    Z, w = data(torus)
    a, b = AutoSum(torus, Z[:100], w[:100], 0.2, rtol=1e-4), AutoSum(torus, Z[100:], w[100:], 0.3, rtol=1e-4)
    for part in (a, b):  # engines of the parts are not those of the whole
        part.evaluate(Z)
    both = a.merge(b)
    assert isinstance(both, AutoSum) and both.rtol == 1e-4
    exact = DirectSum(torus, Z, w, np.where(np.arange(300) < 100, 0.2, 0.3)).evaluate(Z, 0.0, 2)
    found = both.evaluate(Z, 0.0, 2)
    again = pickle.loads(pickle.dumps(both))
    # coefficients travel, trees of boxes do not
    both.engine("neighbors").evaluate(Z)
    assert "neighbors" in both._made and set(pickle.loads(pickle.dumps(both))._made) <= {"spectral"}
    for want, got, after in zip(exact, found, again.evaluate(Z, 0.0, 2), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(after, got, rtol=1e-9, atol=1e-9)


def test_overlap_is_by_coefficients_where_that_is_less_work():
    torus = Torus(2)
    Z, w = data(torus, 3000)
    total = AutoSum(torus, Z, w, 0.0)
    exact = DirectSum(torus, Z, w, 0.5)
    pairs = np.concatenate([np.log(exact.share) + exact.leave_one_out(), 2 * np.log(exact.share) + exact.log_self()])
    assert total.log_overlap(0.5) == pytest.approx(np.logaddexp.reduce(pairs), abs=1e-8)
    assert total.log_overlap(1e-9) is None
    assert AutoSum(torus, Z[:900], w[:900], 0.0).log_overlap(0.5) is None  # few
    plane = Euclidean(2)
    assert AutoSum(plane, *data(plane, 3000), 0.0).log_overlap(0.5) is None


def test_what_engines_cannot_serve():
    with pytest.raises(UnsupportedError, match="cannot serve .*not compact"):
        sources(Euclidean(2), np.zeros((1, 2)), np.ones(1), 1.0, engine="spectral")
    for name in ("direct", "neighbors"):
        with pytest.raises(UnsupportedError, match=f"engine='{name}' cannot serve .*use 'spectral' or 'auto'"):
            sources(ring(), np.zeros((1, 1)), np.ones(1), 1.0, engine=name)
    for name in ("neighbors", "spectral"):
        with pytest.raises(UnsupportedError, match=f"engine='{name}' cannot serve .*use 'direct' or 'auto'"):
            sources(Pairs(2), np.zeros((1, 2)), np.ones(1), 1.0, engine=name)
    for name in ("direct", "auto"):
        assert type(sources(Pairs(2), np.zeros((1, 2)), np.ones(1), 1.0, engine=name)) is PairSum


def test_reasons():
    rng = np.random.default_rng(1)
    X = rng.uniform(0.0, 1.0, (50, 2))
    box, torus = Box([(0.0, 1.0), (0.0, 1.0)]), Torus(2, period=1.0)
    for manifold, engine, name, reason in (
            (torus, "auto", "direct", "few enough pairs of 50 sources and 50 queries"),
            (torus, "direct", "direct", "given; exact sums over 50 sources"),
            (box, "direct", "direct", "given; exact sums over 50 sources and their 3 further images"),
            (box, "neighbors", "neighbors",
             "given; sums over those of 50 sources and their 3 further images that matter to rtol=1e-05"),
            (torus, "spectral", "spectral", "of 50 sources; exact sums where the density is low"),
            (Pairs(2), "auto", "direct", "sums over 50 sources, the kernel evaluated pair by pair")):
        est = RDKSEstimator(manifold, bandwidth=0.2, engine=engine, rtol=1e-5).fit(X)
        assert est.engine_ == name
        assert est.engine_reason_.endswith(reason) and est.engine_reason_.startswith("given; ") == (engine != "auto")
    est = RDKSEstimator(torus, bandwidth=0.2, engine="spectral").fit(X)
    assert est.engine_reason_.startswith(f"given; {est._sum.moments().coef.size} coefficients of 50 sources")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rdks.spectral._KEEP", 60)
        stream = RDKSEstimator(torus, bandwidth=0.2, engine="spectral").fit(X).partial_fit(rng.uniform(0, 1, (50, 2)))
    assert f"of {len(stream._raw.Z)} cells that sum up sources" in stream.engine_reason_
    found = RDKSEstimator(ring(), bandwidth=0.5).fit(np.arange(12.0)[:, None])
    assert found.engine_ == "spectral" and "heat flow between its nodes" in found.engine_reason_
    name, reason = describe(AutoSum(Torus(2), *data(Torus(2), 5000), 0.5))
    assert name == "spectral" and "5000 queries on 5000 sources" in reason
