"""Kernels that follow the data, and mixtures of smoothers."""
from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation
from scipy.stats import multivariate_normal

from rdks import RDKSEstimator, _kernels, _twins, radial
from rdks.adaptive import Grid, Neighborhoods, log_kernel_rows, nearest, spread_out
from rdks.choice import sources
from rdks.engines import DirectSum
from rdks.errors import UnsupportedError
from rdks.manifolds import (
    SO3,
    Box,
    Circle,
    Euclidean,
    Hyperbolic,
    Mesh,
    OrnsteinUhlenbeck,
    Product,
    ProjectiveSpace,
    SpecialOrthogonal,
    Sphere,
    Torus,
)
from rdks.mixture import abramson_times, fit_knn, fit_mixture, maximise_weights

SPACES = [Sphere(2), Torus(2), SO3(), Hyperbolic(2), Euclidean(3), Box([[0, 1], [0, 2]]), Product(Sphere(2), Circle()),
          SpecialOrthogonal(3)]


def points(manifold, n, seed=0):
    """Embedded points, clustered and spread."""
    rng = np.random.default_rng(seed)
    if isinstance(manifold, Box):
        return manifold.embed(rng.uniform(size=(n, 2)) ** 2 * [1, 2])
    Z = manifold.random(n, rng)
    half = n // 2
    V = manifold.to_tangent(Z[:half], 0.1 * rng.standard_normal(Z[:half].shape))
    return np.concatenate([manifold.exp(np.broadcast_to(Z[:1], V.shape), manifold.to_tangent(Z[:1], V)), Z[half:]])


@pytest.mark.parametrize("manifold", SPACES, ids=repr)
def test_nearest_neighbours_are_those_of_all_distances(manifold):
    Z = points(manifold, 60)
    distance = np.array([manifold.dist(np.broadcast_to(z, Z.shape), Z) for z in Z])
    np.fill_diagonal(distance, np.inf)
    found = np.take_along_axis(distance, nearest(manifold, Z, 4), axis=1)
    if isinstance(manifold, Product):  # by chord, which sorts close neighbours alike
        assert np.mean(found == np.sort(distance, axis=1)[:, :4]) > 0.9
    else:
        assert np.allclose(found, np.sort(distance, axis=1)[:, :4], atol=1e-7)


@pytest.mark.parametrize("manifold", SPACES, ids=repr)
@pytest.mark.parametrize("t", [1e-3, 0.1, 1.0])
def test_rows_of_kernels_are_the_heat_kernel(manifold, t):
    Z = points(manifold, 40)
    W = manifold.exp(Z, manifold.to_tangent(Z, np.sqrt(t) * np.random.default_rng(1).standard_normal(Z.shape)))
    exact = manifold.log_heat_kernel(Z, W, t)
    found = log_kernel_rows(manifold, Z, W, t)
    near = exact > exact.max() - 20
    # tables are right to 2e-13, of the peak where they are a series
    assert np.allclose(found[near], exact[near], atol=1e-6, rtol=0)
    assert np.allclose(found[exact > exact.max() - 8], exact[exact > exact.max() - 8], atol=1e-11, rtol=0)


@pytest.mark.parametrize("manifold", [m for m in SPACES if m.kernel == "factors"], ids=repr)
@pytest.mark.parametrize("t", [1e-3, 0.1, 1.0])
def test_rows_compiled_and_in_numpy(manifold, t):
    Z = np.tile(points(manifold, 40), (20, 1))  # more than a tile
    W = np.roll(Z, 7, axis=0)
    table = radial.table(manifold.factors(), t, 0, True, False)
    columns = np.ascontiguousarray(Z.T), np.ascontiguousarray(W.T)
    found, expected = np.empty((2, len(Z)))
    _kernels.kernel_rows(*columns, *table.arrays, found)
    _twins.kernel_rows(*columns, *table.arrays, expected)
    # powers of roots lose two digits; a series is right relative to the peak
    assert np.allclose(found, expected, rtol=1e-11, atol=1e-14)


def test_nodes_have_the_moments_of_the_gaussian_they_stand_for():
    rng = np.random.default_rng(0)
    for d in (2, 3, 5):
        A = rng.standard_normal((50, d, d)) * np.geomspace(1, 8, d)
        M = 0.01 * A @ A.transpose(0, 2, 1)
        grid = Grid(1e-6, 1e4)
        owner, place, share, level = spread_out(M, grid, shrink=0.2)
        assert np.array_equal(np.unique(owner), np.arange(50)) and (np.diff(owner) >= 0).all()
        shrunk = 0.8 * M + 0.2 * np.trace(M, axis1=1, axis2=2)[:, None, None] / d * np.eye(d)
        for i in range(50):
            mine = owner == i
            assert share[mine].sum() == pytest.approx(1, abs=1e-12)
            assert np.allclose(share[mine] @ place[mine], 0, atol=1e-12)
            time = grid.times[level[mine][0]]
            value, vector = np.linalg.eigh(shrunk[i])
            found = vector.T @ ((share[mine, None] * place[mine]).T @ place[mine]) @ vector
            wanted = np.maximum(value - time, 0.0)
            wanted[:-2 if d > 2 else -1] = 0.0
            wanted[wanted < 0.0625 * time] = 0.0  # that little is left out
            assert np.allclose(found, np.diag(wanted), atol=1e-9 * value.max())
            # the time is that of the axes that have no nodes, to the nearest of the grid
            rest = np.exp(np.log(value[:max(d - 2, 1)]).mean())
            assert abs(np.log(time / rest)) <= 0.5 * np.log(2) + 1e-9


def test_nodes_add_up_to_the_gaussian_itself():
    cov = np.diag([0.16, 0.01])
    _, place, share, _ = spread_out(cov[None], Grid(0.01, 1.0))
    X = np.random.default_rng(0).multivariate_normal(np.zeros(2), cov, 500)
    found = DirectSum(Euclidean(2), place, share, 0.01).evaluate(X).log_density
    error = found - multivariate_normal([0, 0], cov).logpdf(X)
    inside = np.abs(X[:, 0]) < 0.4  # one standard deviation
    # a sum of kernels two bandwidths apart is flat to 1.4 per cent, and nodes end at three standard deviations
    assert np.abs(error[inside]).max() < 0.03 and -0.015 < error.mean() < 0.005


@pytest.mark.parametrize("manifold", SPACES, ids=repr)
@pytest.mark.parametrize("shrink", [1.0, 0.1])
def test_leaving_out_is_fitting_without(manifold, shrink):
    n, rng = 30, np.random.default_rng(1)
    Z, w = points(manifold, n), rng.uniform(0.5, 1.5, n)
    data, grid = sources(manifold, Z, w, 0.0), Grid(1e-3, 1.0)
    rows = np.arange(0, n, 2)
    found = Neighborhoods(data, 6).leave_one_out(4, 1.0, grid, shrink, rows, np.ones(n))
    for i, value in zip(rows, found, strict=True):
        keep = np.arange(n) != i
        rest = sources(manifold, Z[keep], w[keep], 0.0)
        _, Y, weight, level = Neighborhoods(rest, 6).state(4, 1.0, grid, shrink)
        exact = rest.like(Y, weight, grid.times[level]).evaluate(Z[i:i + 1]).log_density[0] + np.log1p(-data.share[i])
        # what is subtracted is right to some 1e-15, what is left may be 1e-9 of it; kernels end at exp(-32)
        assert value == pytest.approx(exact, abs=1e-6) or (value < exact and exact < found.max() - 16)


def test_copies_stay_when_a_row_is_left_out():
    rng = np.random.default_rng(2)
    Z = rng.standard_normal((20, 2))
    twice = sources(Euclidean(2), Z, np.ones(20) + (np.arange(20) < 3), 0.0)
    copies = np.ones(20) + (np.arange(20) < 3)
    grid = Grid(1e-4, 1.0)
    near = Neighborhoods(twice, 6)
    found = near.leave_one_out(3, 1.0, grid, 1.0, np.arange(3), copies)
    _, Y, weight, level = near.state(3, 1.0, grid, 1.0)
    for i in range(3):
        w = weight.copy()
        w[i] /= 2
        exact = DirectSum(Euclidean(2), Y, w, grid.times[level]).evaluate(Z[i:i + 1]).log_density[0]
        assert found[i] == pytest.approx(exact + np.log(w.sum()), abs=1e-10)


def test_weights_are_those_of_a_general_optimiser():
    rng = np.random.default_rng(3)
    logs, share = rng.standard_normal((80, 5)) * 3, rng.dirichlet(np.ones(80))

    def loss(v):
        return -share @ np.log(np.exp(logs) @ v)

    exact = minimize(loss, np.full(5, 0.2), method="SLSQP", bounds=[(0, 1)] * 5, tol=1e-12,
                     constraints={"type": "eq", "fun": lambda v: v.sum() - 1})
    weight, value, gap, _ = maximise_weights(logs, share, gap=1e-9)
    assert gap <= 1e-9 and weight.sum() == pytest.approx(1) and (weight >= 0).all()
    assert value == pytest.approx(-exact.fun, abs=1e-7) and np.allclose(weight, exact.x, atol=1e-3)
    for loose in (1e-1, 1e-2, 1e-3):  # the bound holds before the end
        _, early, bound, _ = maximise_weights(logs, share, gap=loose)
        assert early <= value + 1e-9 and value - early <= bound <= loose


def test_steps_never_lose_likelihood():
    rng = np.random.default_rng(4)
    logs, share = rng.standard_normal((200, 12)), np.full(200, 1 / 200)
    values = [maximise_weights(logs, share, gap=0.0, most=m)[1] for m in range(0, 90, 3)]
    assert (np.diff(values) >= -1e-15).all()


def earth_like(n, seed=0):
    """Points along curves and in spots on the sphere, and some anywhere."""
    rng = np.random.default_rng(seed)
    a = rng.uniform(0, 2, n // 2)
    curve = np.column_stack([np.cos(a), np.sin(a), 0.3 * np.sin(3 * a)]) + 0.01 * rng.standard_normal((n // 2, 3))
    spot = np.array([0, 0.5, -1]) + 0.05 * rng.standard_normal((n // 4, 3))
    X = np.concatenate([curve, spot, rng.standard_normal((n - n // 2 - n // 4, 3))])
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def test_mixture_has_mass_one_and_flows():
    est = RDKSEstimator(Sphere(2), bandwidth="mixture", min_bandwidth=0.02).fit(earth_like(200))
    x, w = np.polynomial.legendre.leggauss(200)
    phi = 2 * np.pi * np.arange(400) / 400
    grid = np.stack(np.broadcast_arrays(np.sqrt(1 - x**2)[:, None] * np.cos(phi), np.sqrt(1 - x**2)[:, None]
                                        * np.sin(phi), x[:, None]), axis=-1).reshape(-1, 3)
    area = np.repeat(w, 400) * 2 * np.pi / 400
    for t in (0.0, 0.1):
        assert area @ np.exp(est.score_samples(grid, t)) == pytest.approx(1, abs=1e-6)
    assert est.mixture_.floor == 0.02 and est._sum.time.min() >= 0.02**2 * (1 - 1e-12)
    kinds = {part.kind for part in est.mixture_.components}
    assert "local" in kinds and len(kinds) > 1 and "local metric" in str(est.mixture_)
    assert sum(part.weight for part in est.mixture_.components) == pytest.approx(1)
    assert est._sum.share.sum() == pytest.approx(1)
    # drawing and evaluating are of one law: the mean of a smooth function
    draws = est.sample(20000, random_state=0)
    exact = area @ (np.exp(est.score_samples(grid)) * grid[:, 2])
    assert draws[:, 2].mean() == pytest.approx(exact, abs=5 * draws[:, 2].std() / np.sqrt(20000))


@pytest.mark.parametrize("copied", [False, True])
def test_its_likelihood_is_that_of_fits_without_each_point(copied, monkeypatch):
    """Weights count, and with a floor that is given a row is left out without its copies."""
    monkeypatch.setattr("rdks.adaptive._ROWS", 7)  # so that there are pieces
    X, rng = earth_like(30), np.random.default_rng(18)
    copies = 1 + (np.arange(30) % 4 == 0) * copied
    weight = copies * (1.0 if copied else rng.uniform(0.5, 1.5, 30))
    data = sources(Sphere(2), X, weight, 0.0)
    mixture, *_ = fit_mixture(data, floor=0.05, copies=copies if copied else None)
    grid, total = Grid(0.05**2, 1.0), 0.0
    for i in range(30):
        w = weight.copy()
        w[i] -= weight[i] / copies[i]
        keep = w > 0
        rest = sources(Sphere(2), X[keep], w[keep], 0.0)
        near, logs = Neighborhoods(rest, 27), []
        for part in mixture.components:
            if part.kind == "uniform":
                value = -np.log(4 * np.pi)
            elif part.kind == "fixed":
                value = rest.at(part.bandwidth**2).evaluate(X[i:i + 1]).log_density[0]
            else:
                _, Y, mass, level = near.state(part.k, part.scale, grid, 1.0 if part.kind == "knn" else 0.1)
                value = rest.like(Y, mass, grid.times[level]).evaluate(X[i:i + 1]).log_density[0]
            logs.append(np.log(part.weight) + value)
        total += data.share[i] * np.logaddexp.reduce(logs)
    assert mixture.log_likelihood == pytest.approx(total, abs=1e-7)


def test_many_observations_are_left_out_in_any_order(monkeypatch):
    """Of very many a part is left out, the same in any order; a heavy one counts by its weight."""
    monkeypatch.setattr("rdks.mixture._ROWS", 150)
    rng = np.random.default_rng(19)
    X = np.sort(rng.standard_normal((300, 1)), axis=0)
    weight = np.where(np.arange(300) % 20 == 0, 20.0, 1.0)
    order = rng.permutation(300)
    one, two = (fit_knn(sources(Euclidean(1), X[rows], weight[rows], 0.0))[0] for rows in (slice(None), order))
    assert one.components == two.components
    assert one.log_likelihood == pytest.approx(two.log_likelihood, abs=1e-9)
    # as seen from all
    monkeypatch.undo()
    every, *_ = fit_knn(sources(Euclidean(1), X, weight, 0.0))
    assert one.log_likelihood == pytest.approx(every.log_likelihood, abs=0.2)


def test_what_is_worth_nothing_is_dropped():
    X = np.random.default_rng(20).standard_normal((300, 1))
    est = RDKSEstimator("euclidean", bandwidth="mixture").fit(X)
    assert len(est.mixture_.components) <= 3


@pytest.mark.parametrize("manifold, least", [(Box([(-5, 5)] * 2), 1e-4), (Euclidean(2), 1e-4), (Circle(), 0.05)],
                         ids=["box", "plane", "light"])
def test_what_no_observation_reaches_has_the_weight_of_one(manifold, least, monkeypatch):
    """Where narrow kernels fit best, the law that reaches everywhere is kept, however light, at the cost of a nat."""
    monkeypatch.setattr("rdks.mixture._LEAST", least)
    n = 200
    X = np.random.default_rng(21).uniform(0.1, 0.5, (n, manifold.dim))
    data = sources(manifold, manifold.embed(X), np.ones(n), 0.0)
    sizes = []

    def spy(logs, *args, **options):
        sizes.append(logs.shape[1])
        return maximise_weights(logs, *args, **options)

    monkeypatch.setattr("rdks.mixture.maximise_weights", spy)
    mixture, Z, weight, time, _ = fit_mixture(data)
    assert sizes[0] == mixture.n_tried and sizes[1] <= 1 / least + 1  # the others are dropped all the same
    wide = [part for part in mixture.components if part.kind == "uniform" or (part.bandwidth or 0.0) > 1]
    assert len(wide) == 1 and wide[0].kind == ("fixed" if manifold == Euclidean(2) else "uniform")
    # from below the bound of the weights that expectation-maximisation leaves alone, up to where it stops
    assert (1 - 2e-5) / (n + 1) <= wide[0].weight < 3 / n
    far = data.like(Z, weight, time).evaluate(manifold.embed(np.full((1, manifold.dim), 3.0))).log_density[0]
    if wide[0].kind == "uniform":
        bound = -manifold.log_volume
    else:
        bound = -np.log(2 * np.pi * wide[0].bandwidth**2) - (2.9 / wide[0].bandwidth) ** 2  # from the farthest
    assert far >= bound - np.log(n + 1) - 1e-4
    best = max(data.leave_one_out(h * h).mean() for h in np.geomspace(0.01, 0.5, 9)) + np.log(n / (n - 1))
    assert best - 1.01 / n < mixture.log_likelihood < best + 0.1


def test_the_uniform_law_is_a_source_of_long_time():
    X = np.concatenate([np.eye(3), -np.eye(3)])
    est = RDKSEstimator(Sphere(2), bandwidth="mixture").fit(X)
    assert [part.kind for part in est.mixture_.components] == ["uniform"]
    assert np.allclose(est.score_samples(X), -np.log(4 * np.pi), atol=1e-12)
    est = RDKSEstimator(Sphere(2), bandwidth="mixture").fit(np.concatenate([X, earth_like(60)[:30]]))
    total = est._sum
    kernels = total.time < 10
    assert kernels.sum() < len(kernels) and est.bandwidth_ == pytest.approx(
        np.exp(0.5 * np.average(np.log(total.time[kernels]), weights=total.weight[kernels])))


@pytest.mark.parametrize("manifold", [Product(Sphere(2), Circle(), times=(0.5, 2.0)), ProjectiveSpace(3), Sphere(2)],
                         ids=repr)
def test_shallow_sums_are_sums(manifold):
    rng = np.random.default_rng(22)
    Z, Q = manifold.random(3000, rng), manifold.random(20, rng)
    for t in (0.01, 1.0):
        total = DirectSum(manifold, Z, rng.uniform(0.5, 1.5, 3000), t * np.where(np.arange(3000) < 1500, 1.0, 0.25))
        assert np.allclose(total.shallow(Q, 40.0), total.evaluate(Q).log_density, atol=1e-9)


def test_narrow_kernels_do_not_hide_wide_ones():
    """Neighbours of a query that only wide kernels reach are found, whatever the peak of narrow ones."""
    Z = np.concatenate([np.random.default_rng(23).standard_normal((2000, 2)), np.zeros((1, 2))])
    time = np.append(np.full(2000, 1e-8), 1.0)
    Q = np.array([[3.0, 3.0], [8.0, 0.0], [0.5, 0.5]])
    exact = DirectSum(Euclidean(2), Z, np.ones(2001), time).evaluate(Q, order=2)
    found = sources(Euclidean(2), Z, np.ones(2001), time, engine="neighbors").evaluate(Q, order=2)
    for a, b in zip(found, exact, strict=True):
        assert np.allclose(a, b, rtol=1e-6, atol=1e-6)


def test_mixture_beats_one_bandwidth_where_there_is_structure_and_loses_little_where_there_is_none():
    train, test = earth_like(300, 1), earth_like(4000, 2)
    one, many = (RDKSEstimator(Sphere(2), bandwidth=rule).fit(train) for rule in ("lcv", "mixture"))
    assert many.score(test) / 4000 > one.score(test) / 4000 + 0.3
    assert many.selection_ is None and one.mixture_ is None
    rng = np.random.default_rng(5)
    flat = RDKSEstimator(Torus(2), bandwidth="mixture").fit(rng.uniform(0, 2 * np.pi, (600, 2)))
    assert -2 * np.log(2 * np.pi) - flat.score(rng.uniform(0, 2 * np.pi, (2000, 2))) / 2000 < 0.01


@pytest.mark.parametrize("how", [{"bandwidth": "mixture"}, {"adaptive": "knn"}, {"adaptive": "knn", "bandwidth": 0.1},
                                 {"adaptive": "abramson"}, {"bandwidth": "lcv"}, {"bandwidth": "lscv"},
                                 {"bandwidth": "isj"}, {"bandwidth": "rot"}], ids=str)
def test_every_rule_is_invariant(how):
    X, Q = earth_like(150), earth_like(60, 9)
    rng = np.random.default_rng(6)
    plain = RDKSEstimator(Sphere(2), **how).fit(X)
    logs = plain.score_samples(Q)
    order = rng.permutation(150)
    assert np.allclose(RDKSEstimator(Sphere(2), **how).fit(X[order]).score_samples(Q), logs, atol=1e-6)
    turn = Rotation.random(random_state=7).as_matrix()
    # Brent's method stops within one per cent of a bandwidth
    loose = 1e-5 if "mixture" in how.values() else 0.05
    assert np.allclose(RDKSEstimator(Sphere(2), **how).fit(X @ turn.T).score_samples(Q @ turn.T), logs, atol=loose)
    times = 1 + (np.arange(150) % 3 == 0)
    with pytest.warns(Warning, match="copies"):
        copied = RDKSEstimator(Sphere(2), **how).fit(np.repeat(X, times, axis=0))
    weighted = RDKSEstimator(Sphere(2), **how).fit(X, sample_weight=times)
    assert np.allclose(copied.score_samples(Q), weighted.score_samples(Q), atol=1e-6)


def test_abramson_times_are_inverse_densities():
    X = np.random.default_rng(8).standard_normal((60, 1))
    time = abramson_times(sources(Euclidean(1), X, np.ones(60), 0.0), 0.3)
    pilot = (np.exp(-(X - X.T) ** 2 / 0.18) / np.sqrt(2 * np.pi * 0.09)).mean(axis=1)
    exact = 0.09 * np.clip(np.exp(np.log(pilot).mean()) / pilot, 1 / 32, 32)
    assert (np.abs(np.log2(time / exact)) <= 0.5 + 1e-9).all()
    est = RDKSEstimator(Euclidean(1), bandwidth=0.3, adaptive="abramson").fit(X)
    assert np.array_equal(np.sort(est._sum.time), np.sort(time))
    assert est.bandwidth_ == pytest.approx(np.exp(0.5 * np.log(time).mean()))
    assert RDKSEstimator(Euclidean(1), bandwidth=0.3, adaptive="abramson").fit(X[:1]).bandwidth_ == pytest.approx(0.3)
    low = RDKSEstimator(Euclidean(1), bandwidth=0.3, adaptive="abramson", min_bandwidth=0.28).fit(X)
    assert low._sum.time.min() == pytest.approx(0.28**2)


@pytest.mark.parametrize("how", [{"adaptive": "knn"}, {"bandwidth": "mixture"},
                                 {"adaptive": "abramson", "bandwidth": 0.3}], ids=str)
def test_a_far_point_is_one_of_many(how):
    rng = np.random.default_rng(16)
    X, Q = rng.standard_normal((300, 2)), rng.standard_normal((1000, 2))
    alone = RDKSEstimator("euclidean", **how).fit(X).score(Q) / 1000
    for far in (20.0, 1e6):
        est = RDKSEstimator("euclidean", **how).fit(np.vstack([X, [far, 0.0]]))
        assert est.score(Q) / 1000 > alone - 0.15


def test_one_observation_with_all_the_weight():
    X, weight = np.random.default_rng(17).standard_normal((30, 2)), np.ones(30)
    weight[0] = 1e20
    for how in ({"bandwidth": "mixture"}, {"adaptive": "knn"}):
        est = RDKSEstimator("euclidean", **how).fit(X, sample_weight=weight)
        assert np.isfinite(est.mixture_.log_likelihood) and np.isfinite(est.score_samples(X)).all()
    weight[1:] = 1e-290
    angle = Torus(2).random(30, np.random.default_rng(17))
    with pytest.raises(ValueError, match="all the weight"):
        RDKSEstimator(Torus(2), bandwidth="mixture").fit(angle, sample_weight=weight)


def test_nearest_neighbour_times():
    rng = np.random.default_rng(10)
    X = np.concatenate([0.01 * rng.standard_normal((100, 2)), 3 + rng.standard_normal((100, 2))])
    est = RDKSEstimator(Euclidean(2), adaptive="knn", bandwidth=0.1).fit(X)
    assert est.bandwidth_ == pytest.approx(0.1, rel=0.2)  # to the grid of times
    assert np.median(est._sum.time[:100]) < 1e-2 * np.median(est._sum.time[100:])
    free, *_ = fit_knn(sources(Euclidean(2), X, np.ones(200), 0.0))
    assert free.log_likelihood >= est.mixture_.log_likelihood


def test_bandwidths_given_by_row():
    X = np.random.default_rng(11).standard_normal((30, 2))
    each = np.random.default_rng(12).uniform(0.1, 0.5, 30)
    weight = np.arange(30) % 4
    est = RDKSEstimator(Euclidean(2)).fit(X, sample_weight=weight, sample_bandwidth=each)
    K = [multivariate_normal(x, h * h).pdf(X[:5]) for x, h in zip(X, each, strict=True)]
    assert np.allclose(np.exp(est.score_samples(X[:5])), weight @ np.array(K) / weight.sum(), rtol=1e-10)
    with pytest.raises(UnsupportedError, match="sample_bandwidth"):
        est.partial_fit(X)
    many = RDKSEstimator(Euclidean(2)).fit(np.repeat(X, 20, axis=0), sample_bandwidth=np.linspace(0.1, 0.5, 600))
    assert len(np.unique(many._sum.time)) < 170
    assert np.abs(np.sqrt(many._sum.time) / np.linspace(0.1, 0.5, 600) - 1).max() < 0.00502
    for wrong, match in [(each[:3], r"\(3,\)"), (-each, r"sample_bandwidth\[0\]"), (each * np.nan, "positive")]:
        with pytest.raises(ValueError, match=match):
            RDKSEstimator(Euclidean(2)).fit(X, sample_bandwidth=wrong)
    each[0] = np.nan  # of a row of weight zero, which is no row
    est = RDKSEstimator(Euclidean(2)).fit(X, sample_weight=weight, sample_bandwidth=each)
    assert est.bandwidth_ == pytest.approx(np.exp(weight[1:] @ np.log(each[1:]) / weight.sum()))
    with pytest.raises(ValueError, match="leave them"):
        RDKSEstimator(Euclidean(2), bandwidth=0.1).fit(X, sample_bandwidth=each)


def test_what_cannot_be():
    X = np.random.default_rng(13).standard_normal((30, 2))
    with pytest.raises(ValueError, match="exclude each other"):
        RDKSEstimator("euclidean", bandwidth="mixture", adaptive="knn").fit(X)
    with pytest.raises(ValueError, match="at least 3 distinct"):
        RDKSEstimator("euclidean", bandwidth="mixture").fit(X[:2])
    with pytest.raises(ValueError, match="at least 5 distinct"):
        RDKSEstimator("euclidean", adaptive="knn").fit(X[:4])
    assert np.isfinite(RDKSEstimator("euclidean", bandwidth="mixture").fit(X[:3]).score_samples(X)).all()
    for how in ({"bandwidth": "mixture"}, {"adaptive": "abramson"}):
        est = RDKSEstimator("euclidean", **how).fit(X)
        for call in (lambda est=est: est.partial_fit(X), lambda est=est: est.merge(est)):
            with pytest.raises(NotImplementedError, match="cannot grow"):
                call()


def test_discretised_spaces_take_fixed_bandwidths():
    phi = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    vertices = np.concatenate([np.column_stack([np.cos(phi), np.sin(phi), np.full(24, z)]) for z in (0, 0.3, 0.6)])
    ring = np.arange(24)
    faces = []
    for a in (0, 24):
        b, c = a + ring, a + (ring + 1) % 24
        faces += [*np.column_stack([b, c, b + 24]), *np.column_stack([c, c + 24, b + 24])]
    mesh = Mesh(vertices, np.array(faces))
    X = vertices[np.random.default_rng(14).integers(0, 36, 60)]
    est = RDKSEstimator(mesh, bandwidth="mixture")
    with pytest.warns(Warning, match="copies"):
        est.fit(X)
    assert {part.kind for part in est.mixture_.components} <= {"fixed", "uniform"}
    assert np.isfinite(est.score_samples(X)).all()
    with pytest.raises(UnsupportedError, match="geodesics"), pytest.warns(Warning, match="copies"):
        RDKSEstimator(mesh, adaptive="knn").fit(X)


def test_a_process_with_a_drift():
    X = np.random.default_rng(15).standard_normal((100, 2))
    est = RDKSEstimator(OrnsteinUhlenbeck(2), bandwidth="mixture").fit(X)
    assert est.score(X) / 100 > -3.2 and est.mixture_.log_likelihood > -3.2
