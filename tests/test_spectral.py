"""The spectral engine: its error bar is honest, tails are rescued, coefficients add up, streams keep what matters."""
import re
import threading
import time

import numpy as np
import pytest

from rdks import RDKSEstimator, harmonics, spectral
from rdks.engines import DirectSum
from rdks.errors import AccuracyWarning, UnsupportedError
from rdks.manifolds import SO3, SU2, Box, Circle, Euclidean, Product, ProjectiveSpace, Sphere, Torus
from rdks.spectral import Moments, SpectralSum, accuracy

SPACES = [Circle(period=24.0), Torus(2), Torus(3, period=(2.0, 2.5, 3.0)), Box([(0.0, 1.0), (-3.0, 2.0)]), Sphere(1),
          Sphere(2), Sphere(2, radius=100.0), ProjectiveSpace(2), Sphere(3), SU2(), ProjectiveSpace(3), SO3(),
          SO3(symmetry="cubic"), SO3(symmetry="222", specimen="222"),
          Product(Circle(), Circle(24.0), times=(1.0, 25.0))]


def unit_time(manifold):
    return min(manifold.scales) ** 2


def times(manifold):
    """Times from narrow to wide; fewer eigenfunctions where a test would take long."""
    narrow = 0.2 if isinstance(manifold, Torus) and manifold.dim == 3 else 0.02
    return unit_time(manifold) * np.array([narrow, 2.0, 10.0])


def layouts(manifold, rng, n=400):
    """Sources in adversarial places, with queries; yields (name, sources, queries)."""
    Z, Q = manifold.random(n, rng), manifold.random(100, rng)
    one = Z[:1]
    yield "even", Z, Q
    yield "one point", np.repeat(one, 50, axis=0), np.concatenate([one, Q])
    axis = manifold.frame(one)[:, 0] * np.linspace(0, 2 * np.pi * min(manifold.scales), n)[:, None]
    line = manifold.project(manifold.exp(np.repeat(one, n, axis=0), axis))
    yield "a line", line, np.concatenate([line[:30], Q])
    near = 1e-9 * min(manifold.scales) * rng.standard_normal((n, manifold.embed_dim))
    start = np.zeros(manifold.embed_dim)
    if manifold.factors()[0].width > manifold.factors()[0].dim:  # poles of the angles that transforms use
        start[-1] = manifold.factors()[0].scale
    pole = manifold.project(np.where(np.arange(n)[:, None] % 2, 1, -1 if start[-1] else 1) * start + near)
    pole[0] = manifold.project(start[None] + 0.0)
    yield "poles", pole, np.concatenate([pole[:30], Q])


@pytest.mark.parametrize("manifold", SPACES, ids=repr)
def test_the_error_bar_is_honest(manifold):
    """The expansion's error is below the bar it declares, and the bar is not beyond all reason."""
    rng = np.random.default_rng(0)
    worst = []
    for t in times(manifold):
        for name, Z, Q in layouts(manifold, rng):
            w = rng.uniform(0.5, 2.0, len(Z))
            exact = DirectSum(manifold, Z, w, t).evaluate(Q, 0.0, 2)
            p, gradient, laplacian, error = SpectralSum(manifold, Z, w, t).expansion(Q, 0.0, 2)
            want = np.exp(exact.log_density)
            bend = want * (exact.laplacian + (exact.gradient**2).sum(axis=1))
            off = (np.abs(p - want).max() / error,
                   np.abs(gradient - want[:, None] * exact.gradient).max() / error * np.sqrt(t),
                   np.abs(laplacian - bend).max() / error * t)
            assert max(off) <= 1, (name, t, off)
            worst.append(off[0])
    assert max(worst) > 1e-3


@pytest.mark.parametrize("rtol", [1e-4, 1e-6, 1e-9])
@pytest.mark.parametrize("manifold", SPACES, ids=repr)
def test_every_query_is_right_to_rtol(manifold, rtol):
    rng = np.random.default_rng(1)
    unit = unit_time(manifold)
    for t in times(manifold)[:2]:
        for name, Z, Q in layouts(manifold, rng, 200):
            # a tight cluster and one source elsewhere: most queries lie in the tail of both
            Z = np.concatenate([Z, manifold.project(Z[:1] + 1e-3 * np.sqrt(unit) * rng.standard_normal(
                (200, manifold.embed_dim)))])
            w = 10.0 ** rng.uniform(-3, 3, len(Z))
            exact = DirectSum(manifold, Z, w, t).evaluate(Q, 0.1 * t, 2)
            found = SpectralSum(manifold, Z, w, t, rtol=rtol).evaluate(Q, 0.1 * t, 2)
            slope = np.sqrt((exact.gradient**2).sum(axis=1)) + 1 / np.sqrt(t)
            off = np.sqrt(((found.gradient - exact.gradient) ** 2).sum(axis=1))
            wrong = np.abs(found.log_density - exact.log_density)
            assert wrong.max() <= rtol + 2e-12 * np.abs(exact.log_density).max(), (name, t)
            assert (off <= 2 * rtol * slope).all(), (name, t)
            assert (np.abs(found.laplacian - exact.laplacian) <= 10 * rtol * (np.abs(exact.laplacian) + slope**2)).all()


@pytest.mark.parametrize("manifold", SPACES, ids=repr)
def test_leave_one_out_and_overlap(manifold):
    rng = np.random.default_rng(2)
    t = times(manifold)[0]
    Z = np.concatenate([manifold.random(150, rng), np.repeat(manifold.random(1, rng), 50, axis=0)])
    w = rng.uniform(0.5, 2.0, len(Z))
    exact, found = DirectSum(manifold, Z, w, t), SpectralSum(manifold, Z, w, t)
    for later in (0.0, 3 * t):
        want = exact.leave_one_out(later)
        np.testing.assert_allclose(found.leave_one_out(later), want, rtol=1e-11, atol=1e-6)
        rows = np.array([3, 170, 0])
        np.testing.assert_allclose(found.leave_one_out(later, rows), want[rows], rtol=1e-11, atol=1e-6)
        own = exact.share**2 * np.exp(exact.log_self(later))
        np.testing.assert_allclose(found.log_overlap(later), np.log(exact.share @ np.exp(want) + own.sum()), atol=1e-9)


def test_sources_of_different_times():
    rng = np.random.default_rng(3)
    for manifold in (Torus(2), SO3(), Sphere(2)):
        Z, Q, time = manifold.random(90, rng), manifold.random(40, rng), rng.choice([0.1, 0.13, 0.7], 90)
        w = rng.uniform(0, 2, 90) * (time != 0.1)  # of which the youngest weigh nothing
        exact = DirectSum(manifold, Z, w, time).evaluate(Q, 0.05, 2)
        found = SpectralSum(manifold, Z, w, time).evaluate(Q, 0.05, 2)
        for a, b in zip(exact, found, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("manifold", [Torus(2), Box([(0.0, 2.0)]), SO3(symmetry="cubic"), Sphere(2)], ids=repr)
def test_parts_add_up(manifold):
    """However the data are divided, and in whatever order they are merged, coefficients are those of all data."""
    rng = np.random.default_rng(4)
    X, w = manifold.unembed(manifold.random(2000, rng)), rng.uniform(0.0, 2.0, 2000)
    h = 0.3 * min(manifold.scales)
    make = lambda: RDKSEstimator(manifold, bandwidth=h, engine="spectral")  # noqa: E731
    whole = make().fit(X, sample_weight=w)
    parts, stream = [], make()
    for piece in np.array_split(np.arange(2000), 7):
        stream.partial_fit(X[piece], sample_weight=w[piece])
        parts.append(make().fit(X[piece], sample_weight=w[piece]))
    left = parts[0].merge(parts[1]).merge(parts[2].merge(parts[3])).merge(parts[4].merge(parts[5].merge(parts[6])))
    want = whole._raw.moments(h * h)
    for est in (stream, left):
        found = est._raw.moments(h * h)
        assert est.n_samples_seen_ == 2000
        np.testing.assert_allclose(found.coef, want.coef, rtol=0, atol=1e-13 * np.abs(want.coef).max())
        assert abs(found.log_weight - want.log_weight) < 1e-13 and abs(found.squares / want.squares - 1) < 1e-12
    Q = X[:200]
    np.testing.assert_allclose(stream.score_samples(Q), whole.score_samples(Q), rtol=0, atol=1e-12)
    np.testing.assert_allclose(left.score_field(Q), stream.score_field(Q), rtol=0, atol=1e-10)


@pytest.fixture
def short(monkeypatch):
    """Let a stream sum up its sources from 500 on."""
    monkeypatch.setattr(spectral, "_KEEP", 500)


def a_stream(manifold, X, **options):
    est = RDKSEstimator(manifold, engine="spectral", **options)
    for block in np.array_split(X, 10):
        est.partial_fit(block)
    return est


@pytest.mark.parametrize("manifold", [Torus(2), Sphere(2), SO3(), Circle(), Box([(0.0, 1.0), (0.0, 1.0)])], ids=repr)
def test_a_stream_keeps_cells_for_the_tail(manifold, short):
    rng = np.random.default_rng(5)
    scale = min(manifold.scales)
    centre = manifold.project(manifold.random(1, rng))
    Z = manifold.project(manifold.exp(np.repeat(centre, 3000, axis=0), manifold.to_tangent(
        np.repeat(centre, 3000, axis=0), 0.1 * scale * rng.standard_normal((3000, manifold.embed_dim)))))
    X, h = manifold.unembed(Z), 0.1 * scale
    exact = RDKSEstimator(manifold, bandwidth=h, engine="direct").fit(X)
    est = a_stream(manifold, X, bandwidth=h)
    assert est._raw.cells is not None and len(est._raw.Z) < 3000
    near, far = X[:100], manifold.unembed(manifold.random(300, rng))
    np.testing.assert_allclose(est.score_samples(near), exact.score_samples(near), atol=1e-6)
    want = exact.score_samples(far)
    with pytest.warns(AccuracyWarning, match=r"summary in cells there, with an error in its logarithm of") as said:
        found = est.score_samples(far)
    words = re.search(r"about ([\d.]+), at most ([\d.]+)", str(said[0].message))
    usual, most = float(words[1]), float(words[2])
    off = np.abs(found - want)
    assert off.max() <= most and off.mean() <= usual <= most < 0.1 * np.abs(want).max()
    # samples follow the density: the mean log density of draws is that of the exact estimator's draws
    a, b = (exact.score_samples(model.sample(4000, random_state=1)) for model in (est, exact))
    assert abs(a.mean() - b.mean()) < 4 * np.hypot(a.std(), b.std()) / np.sqrt(4000)


@pytest.mark.parametrize("rule", ["lscv", "isj", "auto"])
def test_a_stream_chooses_its_bandwidth_from_coefficients(rule, short):
    rng = np.random.default_rng(6)
    X = rng.vonmises(0.0, 3.0, (3000, 2))
    with pytest.warns(UserWarning, match="after 600 rows a stream keeps coefficients"):
        est = a_stream(Torus(2), X, bandwidth=rule, min_bandwidth=0.05)
    once = RDKSEstimator(Torus(2), bandwidth="lscv" if rule == "auto" else rule).fit(X)
    assert est._raw.cells is not None
    assert abs(est.bandwidth_ / once.bandwidth_ - 1) < 0.02
    np.testing.assert_allclose(est.score_samples(X[:50]), once.score_samples(X[:50]), atol=0.02)


def test_what_a_stream_cannot_do(short):
    X = np.random.default_rng(7).uniform(0, 1, (3000, 2))
    with pytest.raises(ValueError, match="min_bandwidth"):
        RDKSEstimator("torus", engine="spectral").partial_fit(X)
    with pytest.raises(UnsupportedError, match="points of that space are not all alike"):
        a_stream(Box([(0, 1), (0, 1)]), X, bandwidth="lscv", min_bandwidth=0.02)
    est = a_stream("torus", X, bandwidth=0.3)
    with pytest.raises(ValueError, match="smaller min_bandwidth"):
        est._raw.at(0.01).evaluate(X[:2])
    other = SpectralSum(est.manifold_, est._raw.Z, est._raw.weight, 0.0)
    other.moments(0.01)
    with pytest.raises(ValueError, match="different degrees"):
        est._raw.merge(other)


def test_the_error_of_a_stream_in_the_tail_is_bounded_for_outliers_too(short):
    """A cell of many copies and one other point, whose tail is that of the other."""
    X = np.full((1000, 1), 1e-4)
    X[0] = 0.0045
    exact = RDKSEstimator("circle", bandwidth=0.02, engine="direct").fit(X)
    est = a_stream("circle", X, bandwidth=0.02)
    with pytest.warns(AccuracyWarning, match="at most") as said:
        off = est.score_samples([[2.5]]) - exact.score_samples([[2.5]])
    assert 1 < abs(off[0]) <= float(re.search(r"at most ([\d.]+)", str(said[0].message))[1])


def test_parameters_may_change_between_calls(short):
    rng = np.random.default_rng(10)
    X = rng.vonmises(0.0, 2.0, (400, 2))
    want = RDKSEstimator("torus", bandwidth=0.3, engine="direct").fit(np.concatenate([X, X])).score_samples(X)
    for before in ("auto", "direct", "neighbors", "spectral"):
        for after in ("auto", "direct", "neighbors", "spectral"):
            est = RDKSEstimator("torus", bandwidth=0.3, engine=before).fit(X)
            other = RDKSEstimator("torus", bandwidth=0.3, engine=after).fit(X)
            est.set_params(engine=after)
            np.testing.assert_allclose(est.merge(other).score_samples(X), want, atol=1e-6)
            np.testing.assert_allclose(est.partial_fit(X).score_samples(X), want, atol=1e-6)
            assert type(est._raw) is type(other._raw)
    est = RDKSEstimator("torus", bandwidth=0.3, engine="spectral").fit(X).set_params(rtol=1e-3)
    assert est.partial_fit(X)._raw.rtol == 1e-3 and est._raw.cells is not None
    # a stream goes on with a larger bandwidth, down to min_bandwidth, and not below
    est = a_stream("torus", np.concatenate([X, X]), bandwidth=0.3, min_bandwidth=0.2)
    for more, h in ((1, 0.6), (2, 0.2)):
        est.set_params(bandwidth=h).partial_fit(X[:1])
        exact = RDKSEstimator("torus", bandwidth=h).fit(np.concatenate([X, X, np.repeat(X[:1], more, axis=0)]))
        np.testing.assert_allclose(est.score_samples(X), exact.score_samples(X), atol=1e-6)
    for change, words in (({"bandwidth": 0.1}, "smaller min_bandwidth"), ({"engine": "direct"}, "cannot go on"),
                          ({"rtol": 1e-3}, "cannot go on")):
        with pytest.raises(ValueError, match=words):
            est.set_params(**{"bandwidth": 0.2, "engine": "spectral", "rtol": 1e-6, **change}).partial_fit(X)


def test_estimates_cost_nothing():
    """However narrow the kernel, nobody lists the levels that it would need."""
    rng = np.random.default_rng(11)
    earth, circle = Sphere(2, radius=6371.0), Circle(360.0)
    start = time.perf_counter()
    for manifold, h in ((earth, 1e-3), (earth, 1e-7), (circle, 3e-6), (circle, 1e-12), (SO3(), 1e-9)):
        with pytest.raises(UnsupportedError, match="more eigenfunctions"):
            SpectralSum(manifold, manifold.random(2, rng), np.ones(2), h * h).moments()
        assert harmonics.cost_of(manifold, h * h, 1e-12, 10, 10, 1) == np.inf
    assert time.perf_counter() - start < 5


def test_weights_beyond_the_range_of_sums():
    rng = np.random.default_rng(8)
    X = rng.uniform(0, 6, (600, 1))
    plain = RDKSEstimator("circle", bandwidth=0.3, engine="spectral").fit(X)
    huge = RDKSEstimator("circle", bandwidth=0.3, engine="spectral")
    for part in np.array_split(X, 3):
        huge.partial_fit(part, sample_weight=np.full(len(part), 1e307))
    np.testing.assert_allclose(huge.score_samples(X), plain.score_samples(X), atol=1e-12)


def test_weights_of_a_stream_beyond_the_range_of_sums(short):
    X = np.random.default_rng(12).vonmises(1.0, 2.0, (2000, 1))
    plain, huge, tiny = (RDKSEstimator("circle", bandwidth=0.3, engine="spectral") for _ in range(3))
    for block in np.array_split(X, 4):
        plain.partial_fit(block)
        huge.partial_fit(block, sample_weight=np.full(len(block), 1e307))
        tiny.partial_fit(block, sample_weight=np.full(len(block), 1e-300))
    for est in (huge, tiny):
        np.testing.assert_allclose(est._raw.cells.spread, plain._raw.cells.spread, rtol=1e-9)
        np.testing.assert_allclose(est.score_samples(X), plain.score_samples(X), atol=1e-11)


def test_who_has_no_spectral_engine():
    with pytest.raises(UnsupportedError, match="not compact"):
        SpectralSum(Euclidean(2), np.zeros((1, 2)), np.ones(1), 1.0)
    with pytest.raises(UnsupportedError, match="more eigenfunctions"):
        SpectralSum(Torus(2), np.zeros((1, 2)), np.ones(1), 1e-9).evaluate(np.zeros((1, 2)))
    with pytest.raises(UnsupportedError, match="engine='auto'"):
        RDKSEstimator("torus", bandwidth=1e-5, engine="spectral").fit(np.zeros((1, 2)))


def test_threads_share_one_engine():
    rng = np.random.default_rng(9)
    torus = Torus(2)
    Z, Q = torus.random(3000, rng), torus.random(500, rng)
    want = SpectralSum(torus, Z, np.ones(3000), 0.02).evaluate(Q, 0.0, 2)
    total, found, errors = SpectralSum(torus, Z, np.ones(3000), 0.02), [], []

    def work():
        try:
            found.append(total.evaluate(Q, 0.0, 2, n_jobs=2))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and len(found) == 8
    for each in found:
        for a, b in zip(each, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_accuracy_is_asked_for_what_it_serves():
    for manifold in (Torus(2), Sphere(2), SO3()):
        wide, narrow = accuracy(manifold, 10.0, 1e-6), accuracy(manifold, 0.01, 1e-6)
        assert 1e-13 <= narrow < wide <= 1e-8
        assert accuracy(manifold, 10.0, 1e-4) > wide
    assert isinstance(SpectralSum(Circle(), np.zeros((1, 1)), np.ones(1), 1.0).moments(), Moments)
