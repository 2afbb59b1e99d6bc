"""The spectral engine: its error bar is honest, tails are rescued, coefficients add up, streams keep what matters."""
import re
import threading
import time

import numpy as np
import pytest

from rdks import RDKSEstimator, harmonics, spectral
from rdks.engines import DirectSum
from rdks.errors import AccuracyWarning, DuplicatesWarning, UnsupportedError
from rdks.harmonics import harmonics_for, moments_of
from rdks.manifolds import SO3, SU2, Box, Circle, Euclidean, Product, ProjectiveSpace, Quotient, Sphere, Torus
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
    if rule == "auto":
        with pytest.warns(UserWarning, match="after 600 rows .* from here on bandwidth='auto' chooses by"):
            est = a_stream(Torus(2), X, bandwidth=rule, min_bandwidth=0.05)
    else:
        est = a_stream(Torus(2), X, bandwidth=rule, min_bandwidth=0.05)
    once = RDKSEstimator(Torus(2), bandwidth="lscv" if rule == "auto" else rule).fit(X)
    assert est._raw.cells is not None
    assert abs(est.bandwidth_ / once.bandwidth_ - 1) < 0.02
    np.testing.assert_allclose(est.score_samples(X[:50]), once.score_samples(X[:50]), atol=0.02)


def test_a_stream_says_when_it_stops_merging_copies(short):
    X = np.random.default_rng(13).vonmises(0.0, 3.0, (600, 1))
    est = RDKSEstimator("circle", bandwidth="lscv", min_bandwidth=0.05, engine="spectral").partial_fit(X[:300])
    with pytest.warns(DuplicatesWarning):
        est.partial_fit(X[:150])
    with pytest.warns(UserWarning, match="from here on copies of a row are no longer merged$"):
        est.partial_fit(X[300:])


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


@pytest.mark.parametrize("manifold", [Torus(2), Sphere(2), SO3()], ids=repr)
def test_sources_of_different_times_in_the_tail(manifold):
    rng = np.random.default_rng(10)
    Z = manifold.project(manifold.random(1, rng) + 0.05 * rng.standard_normal((90, manifold.embed_dim)))
    time, w, Q = rng.choice([0.02, 0.03], 90), rng.uniform(0.5, 2, 90), manifold.random(60, rng)
    exact = DirectSum(manifold, Z, w, time).evaluate(Q, 0.01, 2)
    total = SpectralSum(manifold, Z, w, time)
    p, _, _, error = total.expansion(Q, 0.01)
    assert (total.rtol * p < error).sum() > 20
    for a, b in zip(exact, total.evaluate(Q, 0.01, 2), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rtol", [1e-4, 1e-9])
def test_the_error_bar_says_which_queries_are_done_again(rtol):
    """No more and no fewer; the others are done to rtol, not to a default."""
    torus, rng = Torus(2), np.random.default_rng(11)
    Z, w = torus.project(np.pi + 0.3 * rng.standard_normal((300, 2))), rng.uniform(0.5, 2, 300)
    Q = torus.random(2000, rng)
    total = SpectralSum(torus, Z, w, 0.02, rtol=rtol)
    found = total.evaluate(Q).log_density
    p, _, _, error = total.expansion(Q)
    good = p > error / rtol
    assert 100 < good.sum() < 1900 and total._near().rtol == rtol
    np.testing.assert_allclose(found[good], np.log(p[good]), rtol=1e-12)
    np.testing.assert_array_equal(found[~good], total._near().evaluate(Q[~good]).log_density)


def test_coefficients_are_kept_for_sources_of_one_time_only():
    torus, rng = Torus(2), np.random.default_rng(12)
    Z, w, time = torus.random(200, rng), rng.uniform(0.5, 2, 200), rng.choice([0.2, 0.4], 200)
    one, many = SpectralSum(torus, Z, w, 0.2), SpectralSum(torus, Z, w, time)
    known, _ = one.moments(), many.moments()
    assert one.at(0.3).moments() is known
    for engine, other in ((one, 0.3), (one, time), (many, 0.3), (many, time + 0.1)):
        exact = DirectSum(torus, Z, w, other).evaluate(Z[:20]).log_density
        np.testing.assert_allclose(engine.at(other).evaluate(Z[:20]).log_density, exact, atol=1e-6)


def test_coefficients_are_added_not_computed_again():
    X = np.random.default_rng(13).uniform(0, 6, (300, 2))
    fits = [RDKSEstimator("torus", bandwidth=0.3, engine="spectral").fit(part) for part in np.array_split(X, 2)]
    both = fits[0]._raw.merge(fits[1]._raw)
    assert both.knows(0.09) and not both.knows(0.08)


def test_a_summary_keeps_mean_and_variance(short, monkeypatch):
    """Whatever the size of the cells: what they lose of the spread of the sources is in their time."""
    monkeypatch.setattr(spectral, "_CELLS", 1)
    rng = np.random.default_rng(14)
    X = 3 + 0.3 * rng.standard_normal((3000, 2))
    est = a_stream(Torus(2), X, bandwidth=0.3)
    total = est._sum
    assert total.cells is not None and len(total.Z) < 300
    mean = total.share @ total.Z
    np.testing.assert_allclose(mean, X.mean(axis=0), atol=1e-12)
    variance = total.share @ ((total.Z - mean) ** 2).sum(axis=1) + 2 * total.time[0]
    np.testing.assert_allclose(variance, ((X - X.mean(axis=0)) ** 2).sum(axis=1).mean() + 2 * 0.09, rtol=1e-12)
    # but the own terms are those of the observations
    np.testing.assert_allclose(total.log_self(0.1), Torus(2).log_heat_kernel(X[:1], X[:1], 0.19)[0], rtol=1e-12)


@pytest.mark.parametrize("manifold", [Circle(), Torus(2), Sphere(2), Sphere(2, radius=100.0)], ids=repr)
def test_a_summary_is_bounded(manifold, short, monkeypatch):
    monkeypatch.setattr(spectral, "_MOST_CELLS", 100)
    Z = manifold.random(3000, np.random.default_rng(15))
    est = a_stream(manifold, manifold.unembed(Z), bandwidth=0.05 * min(manifold.scales))
    assert 50 < len(est._raw.Z) < 400


def test_error_bar_long_after_the_coefficients():
    """Coefficients of a short time are as accurate as that asks for, the values as the later time does."""
    for manifold in (Torus(2), Sphere(2), SO3()):
        rng = np.random.default_rng(16)
        Z, Q = manifold.random(300, rng), manifold.random(300, rng)
        total = SpectralSum(manifold, Z, np.ones(300), 0.02)
        known = total.moments()
        for t in (0.1, 3.0):
            p, _, _, error = total.expansion(Q, t)
            want = np.exp(DirectSum(manifold, Z, np.ones(300), 0.02 + t).evaluate(Q).log_density)
            fresh = SpectralSum(manifold, Z, np.ones(300), 0.02 + t).expansion(Q)[-1]
            assert total.moments(t) is known and np.abs(p - want).max() <= error
            assert error == pytest.approx(fresh, rel=1e-9)


@pytest.mark.parametrize("manifold", [Box([(0.0, 1.0)]), SO3(symmetry="cubic"), Torus(2, period=5.0),
                                      Product(Circle(), Circle(24.0), times=(1.0, 25.0))], ids=repr)
def test_error_bar_in_units_of_the_peak(manifold):
    Z = manifold.random(1, np.random.default_rng(17))
    t = 0.03 * min(manifold.scales) ** 2
    total = SpectralSum(manifold, Z, np.ones(1), t)
    peak = np.exp(sum(float(f.log_kernel(np.zeros(1), t)[0]) for f in manifold.factors()) + manifold.log_unit)
    want = 5 * spectral.accuracy(manifold, t, 1e-6) * peak * manifold.n_images
    assert total.expansion(Z)[-1] == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("manifold", [
    Quotient(Sphere(2), [np.eye(3), np.diag([1.0, 1.0, -1.0])]),
    Quotient(Sphere(3), [np.eye(4), np.diag([1.0, -1.0, 1.0, 1.0])]),
    Quotient(Sphere(2), [np.diag([a, b, c]) for a in (1.0, -1.0) for b in (1.0, -1.0) for c in (1.0, -1.0)]),
    SO3(symmetry="2"), SO3(specimen="2")], ids=["mirror", "mirror in 3", "octants", "symmetry", "specimen"])
def test_coefficients_of_images(manifold, monkeypatch):
    monkeypatch.setattr("rdks.harmonics.CHUNK", 7)
    rng = np.random.default_rng(5)
    Z, w, eps = manifold.random(30, rng), rng.uniform(0.5, 2, 30), 1e-12
    harmonics = harmonics_for(manifold, 0.3, eps)
    want = sum(harmonics.analyse(image, w, eps) for image in manifold.images(Z))
    if manifold.antipodal:  # the harmonics know the opposite points
        want = want / 2
    np.testing.assert_allclose(moments_of(manifold, harmonics, Z, w, eps), want, atol=1e-9 * np.abs(want).max())


def test_isolated_sources_leave_themselves_out():
    """The rows that are done again are those that were asked for, not the first of all sources."""
    torus, rng = Torus(2), np.random.default_rng(18)
    Z = np.concatenate([0.1 * rng.standard_normal((100, 2)) + 1, [[4.0, 4.0], [5.0, 3.0], [3.0, 5.0]]])
    w = rng.uniform(0.5, 2, 103)
    want, rows = DirectSum(torus, Z, w, 0.01).leave_one_out(), np.array([102, 5, 100, 101])
    np.testing.assert_allclose(SpectralSum(torus, Z, w, 0.01).leave_one_out(0.0, rows), want[rows], atol=1e-6)


@pytest.mark.parametrize("rule, part", [("lscv", 0.85), ("lscv", 3.0), ("isj", 3.0)])
def test_a_stream_looks_at_nothing_below_its_min_bandwidth(rule, part, short):
    """A best value just above it is found, and one below is raised to it."""
    X = np.random.default_rng(6).vonmises(0.0, 3.0, (3000, 2))
    free = RDKSEstimator(Torus(2), bandwidth=rule).fit(X).bandwidth_
    est = a_stream(Torus(2), X, bandwidth=rule, min_bandwidth=part * free)
    assert abs(est.bandwidth_ / (max(part, 1.0) * free) - 1) < 0.02
    assert ("min_bandwidth" in est.selection_.reason) == (part > 1)
