"""Kernel sums: compiled against numpy, both against per-pair kernels, near the data and far from it."""
import threading

import numpy as np
import pytest
from scipy.special import logsumexp

from rdks import _kernels, _twins, engines, radial
from rdks.engines import DirectSum
from rdks.manifolds import Box, Circle, Euclidean, Manifold, SpaceForm, Sphere, Torus


class Mixed(Manifold):
    """Sphere x circle x line: factors of every kind, which take different forms at one time."""

    dim = 4
    point_shape = (5,)

    def factors(self):
        return SpaceForm(2, radius=1.0), SpaceForm(1, period=6.0), SpaceForm(1)

    def __repr__(self):
        return "Mixed()"


class Flat(Manifold):
    """Line x circle x line: three columns, of which one has a period."""

    dim = 3
    point_shape = (3,)

    def factors(self):
        return SpaceForm(1), SpaceForm(1, period=6.0), SpaceForm(1)

    def __repr__(self):
        return "Flat()"


SPACES = [Euclidean(2), Circle(), Torus(2, period=(1.0, 6.0)), Sphere(1), Sphere(2), Sphere(2, radius=100.0),
          Sphere(3), Sphere(7), Mixed(), Flat()]
# from a point mass to uniform; 0.012 lies where a sphere changes from one polynomial to panels
TIMES = [1e-5, 1e-3, 0.012, 0.2, 3.0, 40.0]


@pytest.fixture(params=[_twins, _kernels], ids=["numpy", "compiled"])
def backend(request, monkeypatch):
    monkeypatch.setattr(engines, "_kernels", lambda pairs: request.param)
    return request.param


def unit_time(manifold):
    """Square of the size of the space, so that TIMES mean the same on each."""
    return min(((f.reach / np.pi) ** 2 for f in manifold.factors() if np.isfinite(f.reach)), default=1.0)


def data(manifold, n=40, q=30):
    """Random sources and queries, with coincident and (where there are such) antipodal pairs."""
    rng = np.random.default_rng(n)
    Z, Q = manifold.random(n, rng), manifold.random(q, rng)
    Q[0] = Z[0]
    Q[1] = manifold.exp(Z[1:2], 1e-7 * manifold.frame(Z[1:2])[:, 0])[0]
    for f, s in manifold.pieces():
        if f.radius is not None:
            Q[2, s] = -Z[2, s]
        elif f.period is not None:
            Q[2, s] = Z[2, s] + 0.5 * f.period
    return Z, Q, rng.uniform(0.2, 2.0, n)


def pair_logs(manifold, Q, Z, t):
    return np.array([manifold.log_heat_kernel(Q, np.broadcast_to(z, Q.shape), t) for z in Z]).T


@pytest.mark.parametrize("t", TIMES)
@pytest.mark.parametrize("manifold", SPACES, ids=repr)
def test_log_density_is_the_log_of_the_sum(manifold, t, backend):
    Z, Q, w = data(manifold)
    t = t * unit_time(manifold)
    expected = logsumexp(pair_logs(manifold, Q, Z, t), b=w / w.sum(), axis=1)
    found = DirectSum(manifold, Z, w, t).evaluate(Q).log_density
    assert np.abs(found - expected).max() <= 5e-12 * np.abs(expected).clip(1).max()
    assert np.abs((found - expected) / np.abs(expected).clip(1)).max() <= 2e-12


@pytest.mark.parametrize("t", TIMES)
@pytest.mark.parametrize("manifold", SPACES, ids=repr)
def test_score_and_laplacian_are_weighted_pair_values(manifold, t, backend):
    """Against pairwise exact slopes, with the softmax weights of exact pairwise logs."""
    Z, Q, w = data(manifold)
    t = t * unit_time(manifold)
    logs = pair_logs(manifold, Q, Z, t) + np.log(w)
    share = np.exp(logs - logsumexp(logs, axis=1, keepdims=True))
    gradient, ratio = np.zeros_like(Q), 0.0
    for f, s in manifold.pieces():
        r = np.array([f.dist(Q[:, s], np.broadcast_to(z[s], Q[:, s].shape)) for z in Z]).T
        first, second = f.slopes(r, t)
        step = f.difference(Q[:, None, s], Z[None, :, s])
        gradient[:, s] = 2 * np.einsum("qi,qi,qij->qj", share, first, step)
        ratio = ratio + np.einsum("qi,qi->q", share, second)
    gradient = manifold.to_tangent(Q, gradient)
    found = DirectSum(manifold, Z, w, t).evaluate(Q, order=2)
    size = np.abs(gradient).max() + 1 / np.sqrt(t)
    assert np.abs(found.gradient - gradient).max() <= 1e-9 * size
    assert np.abs(found.laplacian - (ratio - (gradient**2).sum(1))).max() <= 1e-9 * size**2


@pytest.mark.parametrize("manifold", SPACES, ids=repr)
def test_leave_one_out_skips_the_own_term(manifold, backend):
    Z, _, w = data(manifold)
    for t in (1e-4, 0.1):
        t = t * unit_time(manifold)
        logs = pair_logs(manifold, Z, Z, t)
        np.fill_diagonal(logs, -np.inf)
        expected = logsumexp(logs, b=w / w.sum(), axis=1)
        found = DirectSum(manifold, Z, w, t).leave_one_out()
        assert np.abs((found - expected) / np.abs(expected).clip(1)).max() <= 2e-12


def test_a_query_a_hemisphere_away(backend):
    """log p = -12337 here: the density is 10^-5358, far below the smallest float."""
    rng = np.random.default_rng(0)
    Z = np.array([0, 0, 1.0]) + 0.01 * rng.standard_normal((500, 3))
    Z /= np.linalg.norm(Z, axis=1, keepdims=True)
    Q = np.array([[1.0, 0, 0], [0, -1.0, 0], [0, 0, -1.0]])
    for t in (1e-4, 1e-5):
        expected = logsumexp(pair_logs(Sphere(2), Q, Z, t), axis=1) - np.log(len(Z))
        found = DirectSum(Sphere(2), Z, np.ones(500), t).evaluate(Q, order=2)
        assert np.abs(found.log_density / expected - 1).max() < 1e-12
        assert np.isfinite(found.gradient).all() and np.isfinite(found.laplacian).all()


def test_per_source_times_are_a_mixture(backend):
    Z, Q, w = data(Sphere(2))
    times = np.random.default_rng(1).choice([1e-4, 0.003, 0.02, 0.5], len(Z))
    engine = DirectSum(Sphere(2), Z, w, times)
    for later in (0.0, 0.1):
        logs = np.array([Sphere(2).log_heat_kernel(Q, np.broadcast_to(z, Q.shape), t + later)
                         for z, t in zip(Z, times, strict=True)]).T
        found = engine.evaluate(Q, later, order=2)
        expected = logsumexp(logs, b=w / w.sum(), axis=1)
        assert np.abs((found.log_density - expected) / np.abs(expected).clip(1)).max() <= 2e-12
        # score along a geodesic by central differences
        V, e = Sphere(2).frame(Q)[:, 0], 1e-5
        ahead, behind = (engine.evaluate(Sphere(2).exp(Q, s * e * V), later).log_density for s in (1, -1))
        slope = np.einsum("ij,ij->i", found.gradient, V)
        assert np.abs((ahead - behind) / (2 * e) - slope).max() < 1e-5 * np.abs(slope).max()


def test_the_box_of_the_engine_is_that_of_the_kernels():
    assert engines._BOX == _kernels.BOX and _kernels.CHUNK % _kernels.BOX == 0


@pytest.mark.parametrize("manifold", [Sphere(2), Torus(2), Euclidean(3), Mixed()], ids=repr)
def test_boxes_that_are_left_out_do_not_matter(manifold):
    """Thousands of sources in many boxes, against the numpy form, which leaves nothing out."""
    rng = np.random.default_rng(6)
    Z, Q = manifold.random(5000, rng), manifold.random(300, rng)
    w = rng.uniform(0.1, 1, 5000)
    for t in (1e-4, 3e-3, 0.05):
        found = DirectSum(manifold, Z, w, t)
        compiled = found.evaluate(Q, order=2)
        own = found.leave_one_out()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engines, "_kernels", lambda pairs: _twins)
            plain = found.evaluate(Q, order=2)
            assert np.abs(found.leave_one_out(rows=np.arange(0, 5000, 50)) / own[::50] - 1).max() < 1e-11
        for a, b, size in zip(compiled, plain, (1, t**-0.5, 1 / t), strict=True):
            assert np.abs(a - b).max() <= 1e-9 * (np.abs(b).max() + size)


def test_extreme_weights_in_the_tail(backend):
    """A far source of large weight can matter more than a near one of small weight."""
    Z = np.array([[0.0], [1.0], [1.5]])
    w = np.array([1.0, 1e-30, 1e-3])
    Q = np.array([[40.0]])
    t = 0.5
    expected = logsumexp(-0.5 * (Q - Z.T) ** 2 / t - 0.5 * np.log(2 * np.pi * t), b=w / w.sum(), axis=1)
    assert DirectSum(Euclidean(1), Z, w, t).evaluate(Q).log_density == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("manifold", [Sphere(2), Torus(2), Euclidean(5)], ids=repr)
def test_threads_change_nothing(manifold):
    rng = np.random.default_rng(2)
    Z, Q = manifold.random(3000, rng), manifold.random(2000, rng)
    one = DirectSum(manifold, Z, np.ones(3000), 1e-3, n_jobs=1).evaluate(Q, order=2)
    two = DirectSum(manifold, Z, np.ones(3000), 1e-3, n_jobs=2).evaluate(Q, order=2)
    for a, b in zip(one, two, strict=True):
        assert np.array_equal(a, b)


def test_many_python_threads_at_once():
    rng = np.random.default_rng(3)
    Z = Sphere(2).random(3000, rng)
    engine = DirectSum(Sphere(2), Z, np.ones(3000), 0.01, n_jobs=2)
    expected = engine.evaluate(Z).log_density
    found = [None] * 6

    def work(i):
        found[i] = engine.evaluate(Z).log_density

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(f, expected) for f in found)


def test_small_work_does_not_load_the_compiler():
    import subprocess
    import sys
    code = ("import sys, numpy as np, rdks\n"
            "X = np.random.default_rng(0).standard_normal((300, 2))\n"
            "rdks.RDKSEstimator().fit(X).score_samples(X)\n"
            "assert 'numba' not in sys.modules and 'geomstats' not in sys.modules\n"
            "assert 'matplotlib' not in sys.modules\n")
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("t", [1e-5, 1e-3, 0.011, 0.05, 0.7, 9.0])
@pytest.mark.parametrize("factor", [SpaceForm(2, radius=1.0), SpaceForm(1, period=2 * np.pi), SpaceForm(1),
                                    SpaceForm(9, radius=1.0)], ids=repr)
def test_tables_are_as_accurate_as_they_say(factor, t):
    """Tabulated log kernels against the functions they were fitted to, between the nodes."""
    reach = min(factor.reach, 60 * np.sqrt(t))
    r = np.concatenate([np.linspace(0, reach, 400), reach - np.geomspace(1e-9, 0.1, 30) * reach])
    if factor.radius is None:
        Z, Q = np.zeros((1, 1)), r[:, None]
    else:
        Z = np.eye(factor.width)[:1]
        Q = np.cos(r)[:, None] * Z + np.sin(r)[:, None] * np.eye(factor.width)[1]

    class One(Manifold):
        dim = factor.dim
        point_shape = (factor.width,)

        def factors(self):
            return (factor,)

    found = DirectSum(One(), Z, np.ones(1), t).evaluate(Q).log_density
    r = factor.dist(Q, np.broadcast_to(Z, Q.shape))
    expected = factor.log_kernel(r, t) - r * r / (2 * t)
    bound = 10 * radial.ERROR * np.abs(expected).clip(1)
    assert (np.abs(found - expected) <= bound).all()


def test_sources_of_weight_zero_are_no_sources(backend):
    Z = np.array([[0.0], [1.0], [2.0]])
    found = DirectSum(Euclidean(1), Z, np.array([1.0, 0.0, 1.0]), np.array([0.01, 0.02, 0.01]))
    less = DirectSum(Euclidean(1), Z[[0, 2]], np.ones(2), 0.01)
    Q = np.array([[0.5], [1.0], [50.0]])
    assert np.array_equal(found.evaluate(Q).log_density, less.evaluate(Q).log_density)
    assert np.isfinite(found.leave_one_out()).all()


@pytest.mark.parametrize("t", [1e-4, 1e-8, 1e-12])
def test_laplacian_far_from_the_data_keeps_its_digits(t, backend):
    """Laplacian(p)/p and |score|^2 agree to 1/t digits here; their difference must not be taken."""
    north = np.array([[0.0, 0.0, 1.0]])
    angle = 2.0
    Q = np.array([[np.sin(angle), 0.0, np.cos(angle)]])
    # log p = -r^2/2t + O(1), and Laplacian(r^2/2) = 1 + r cot r on the two-sphere
    found = DirectSum(Sphere(2), north, np.ones(1), t).evaluate(Q, order=2).laplacian
    assert found == pytest.approx(-(1 + angle / np.tan(angle)) / t, rel=4 * t + 1e-9)
    two = np.array([[0.0], [0.3 * np.sqrt(t)]])  # a mixture: the variance of the two gradients counts
    found = DirectSum(Euclidean(1), two, np.ones(2), t).evaluate(np.array([[2000 * t]]), order=2).laplacian
    x, y = 2000 * t, two[1, 0]
    weight = 1 / (1 + np.exp(-(x * y - y * y / 2) / t))
    assert found == pytest.approx(-1 / t + weight * (1 - weight) * y * y / t**2, rel=1e-9)


def test_threads_that_meet_a_fresh_engine():
    from concurrent.futures import ThreadPoolExecutor
    rng = np.random.default_rng(8)
    Z = Sphere(2).random(20000, rng)
    for _ in range(3):
        engine = DirectSum(Sphere(2), Z, np.ones(20000), 0.01)
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda i, e=engine: e.evaluate(Z[:3]).log_density, range(16)))
        assert all(np.array_equal(f, found[0]) for f in found)


def test_extreme_weights_and_distances(backend):
    rng = np.random.default_rng(9)
    Z = Sphere(2).random(40, rng)
    even = DirectSum(Sphere(2), Z, np.ones(40), 0.01).evaluate(-Z[:4]).log_density
    huge = DirectSum(Sphere(2), Z, np.full(40, 1e308), 0.01).evaluate(-Z[:4]).log_density
    assert np.allclose(even, huge, rtol=1e-12)
    w = np.ones(40)
    w[:2] = 1e-320, 1e10
    assert np.isfinite(DirectSum(Sphere(2), Z, w, 1e-5).evaluate(-Z[:4], order=2).log_density).all()
    found = DirectSum(Euclidean(2), np.zeros((3, 2)), np.ones(3), 1.0).evaluate(np.array([[1e140, 0.0]]))
    assert found.log_density == pytest.approx(-5e279, rel=1e-12)


def test_scores_in_the_tail_of_a_circle_at_every_time():
    """Slopes next to the cut locus are noisy by rounding, which is not to be taken for structure."""
    for period in (1.0, 2 * np.pi, 7.0, 14.0, 23.7, 360.0):
        for h in np.geomspace(3e-3, 0.05, 12):
            t = (h * period / (2 * np.pi)) ** 2
            data = DirectSum(Circle(period), np.zeros((1, 1)), np.ones(1), t)
            found = data.evaluate(np.array([[0.4 * period]]), 0.0, 1)
            assert found.gradient[0, 0] == pytest.approx(-0.4 * period / t, rel=1e-10)


def test_images_count_as_pairs():
    """Work is measured in pairs with images, so that large work on a quotient is compiled and threaded."""
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "_kernels", lambda pairs: seen.append(pairs) or _twins)
        M, rng = Box([(0.0, 1.0)] * 3), np.random.default_rng(0)
        DirectSum(M, M.random(5, rng), np.ones(5), 0.1).evaluate(M.random(7, rng))
    assert seen == [5 * 7 * 8]
