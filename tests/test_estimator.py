"""The estimator as scikit-learn and its users see it."""
import io
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
from scipy.spatial.transform import Rotation
from sklearn import set_config
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from rdks import RDKSEstimator
from rdks.errors import DuplicatesWarning, PointError, UnsupportedError
from rdks.manifolds import SO3, SPD, Circle, Euclidean, Graph, Sphere, Torus, load_geomstats


def unit(rng, n, d=2):
    X = rng.standard_normal((n, d + 1))
    return X / np.linalg.norm(X, axis=1, keepdims=True)


@pytest.mark.filterwarnings("ignore::rdks.errors.DuplicatesWarning")
@pytest.mark.filterwarnings("ignore:bandwidth=:UserWarning")
@parametrize_with_checks([RDKSEstimator(), RDKSEstimator(bandwidth=0.7)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_is_a_density_estimator():
    from sklearn.utils import get_tags
    assert get_tags(RDKSEstimator()).estimator_type == "density_estimator"


def test_score_is_the_total_log_likelihood():
    rng = np.random.default_rng(0)
    X, w = unit(rng, 30), rng.uniform(0, 2, 30)
    est = RDKSEstimator(bandwidth=0.4).fit(X)
    assert est.score(X) == pytest.approx(est.score_samples(X).sum(), rel=1e-14)
    assert est.score(X, sample_weight=w) == pytest.approx(w @ est.score_samples(X), rel=1e-14)


@pytest.mark.parametrize("rule", [0.5, "auto", "lscv", "isj", "rot"])
def test_weights_are_repetitions(rule):
    rng = np.random.default_rng(1)
    X = unit(rng, 60)
    count = rng.integers(0, 4, 60)
    weighted = RDKSEstimator(bandwidth=rule).fit(X, sample_weight=count)
    with pytest.warns(DuplicatesWarning) if isinstance(rule, str) else _nothing():
        repeated = RDKSEstimator(bandwidth=rule).fit(np.repeat(X, count, axis=0))
    q = unit(rng, 20)
    assert np.allclose(weighted.score_samples(q), repeated.score_samples(q), rtol=1e-8)


class _nothing:
    def __enter__(self):
        return self

    def __exit__(self, *error):
        return False


def test_duplicates_with_a_given_bandwidth_are_used_as_they_are(recwarn):
    X = np.tile([0.0, 0.0, 1.0], (5, 1))
    RDKSEstimator("sphere", bandwidth=0.3).fit(X)
    assert not recwarn.list


def test_clone_pickle_joblib_and_repr():
    rng = np.random.default_rng(2)
    X = unit(rng, 50)
    est = RDKSEstimator(Sphere(2), bandwidth=0.3).fit(X)
    assert clone(est).manifold == Sphere(2)
    assert "Sphere(dim=2" in repr(est)
    again = pickle.loads(pickle.dumps(est))
    buffer = io.BytesIO()
    joblib.dump(est, buffer)
    buffer.seek(0)
    for other in (again, joblib.load(buffer)):
        assert np.array_equal(other.score_samples(X), est.score_samples(X))
        assert np.array_equal(other.sample(5, random_state=1), est.sample(5, random_state=1))


def test_random_state_is_what_scikit_learn_accepts():
    est = RDKSEstimator(bandwidth=0.3).fit(unit(np.random.default_rng(3), 20))
    assert np.array_equal(est.sample(4, random_state=7), est.sample(4, random_state=7))
    a = est.sample(4, random_state=np.random.RandomState(7))
    assert np.array_equal(a, est.sample(4, random_state=np.random.RandomState(7)))
    rng = np.random.default_rng(0)
    first, second = est.sample(4, random_state=rng), est.sample(4, random_state=rng)
    assert not np.array_equal(first, second)
    assert est.sample(0).shape == (0, 3)
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    est.sample(3)
    # the global generator is not touched
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_grid_search_and_cross_validation():
    rng = np.random.default_rng(4)
    X = unit(rng, 150) * [1, 1, 0.3]
    pipe = make_pipeline(Normalizer(), RDKSEstimator())
    search = GridSearchCV(pipe, {"rdksestimator__bandwidth": [0.05, 0.2, 0.8]}, cv=3).fit(X)
    assert search.best_params_["rdksestimator__bandwidth"] == 0.2
    assert np.isfinite(cross_val_score(RDKSEstimator(bandwidth=0.5), StandardScaler().fit_transform(X))).all()


def test_sample_weight_is_routed():
    rng = np.random.default_rng(5)
    X, w = unit(rng, 60), rng.uniform(0.1, 2, 60)
    set_config(enable_metadata_routing=True)
    try:
        est = RDKSEstimator().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        search = GridSearchCV(est, {"bandwidth": [0.3, 0.6]}, cv=2).fit(X, sample_weight=w)
        assert np.isfinite(search.best_score_)
        pipe = make_pipeline(Normalizer(), est).fit(X, sample_weight=w)
        plain = RDKSEstimator().fit(X, sample_weight=w)
        assert pipe[-1].bandwidth_ == pytest.approx(plain.bandwidth_, rel=1e-6)
    finally:
        set_config(enable_metadata_routing=False)


def test_column_names_are_kept_and_checked():
    frame = pd.DataFrame(unit(np.random.default_rng(6), 30), columns=["x", "y", "z"])
    est = RDKSEstimator(bandwidth=0.4).fit(frame)
    assert list(est.feature_names_in_) == ["x", "y", "z"]
    with pytest.raises(ValueError, match="feature names"):
        est.score_samples(frame[["z", "y", "x"]])


def test_columns_named_lat_lon_give_a_hint():
    frame = pd.DataFrame({"lat": [1.0, 2.0, 4.0], "lon": [5.0, 7.0, 6.0]})
    with pytest.warns(UserWarning, match="latlon_deg"):
        est = RDKSEstimator(bandwidth=1.0).fit(frame)
    assert "latlon_deg" in est.manifold_reason_


def test_longitude_before_latitude_is_noticed():
    frame = pd.DataFrame({"lon": [5.0, 7.0, 6.0], "lat": [1.0, 2.0, 4.0]})
    with pytest.warns(UserWarning, match="first for the latitude"):
        RDKSEstimator(Sphere(2, coords="latlon_deg"), bandwidth=0.1).fit(frame)
    with pytest.warns(UserWarning, match="order latitude, longitude"):
        RDKSEstimator(bandwidth=1.0).fit(frame)


def test_equal_points_in_different_numbers_are_duplicates():
    wind = [[0.0], [360.0], [90.0], [90.0], [180.0]]
    with pytest.warns(DuplicatesWarning, match="2 of 5 rows"):
        est = RDKSEstimator(Circle(360.0)).fit(wind)
    assert est.bandwidth_ > 10
    with pytest.raises(ValueError, match="n_samples=1"):
        RDKSEstimator(Circle(360.0)).fit([[0.0], [360.0]])
    with pytest.raises(ValueError, match="n_samples=1"):
        RDKSEstimator(Sphere(2, coords="latlon_deg")).fit([[10, 20], [10, 380], [10, -340]])
    with pytest.raises(ValueError, match="n_samples=1"):
        RDKSEstimator(Sphere(2, coords="latlon_deg")).fit([[90, 20], [90, 80], [90, -40]])


def test_automatic_manifold():
    rng = np.random.default_rng(7)
    assert RDKSEstimator(bandwidth=1.0).fit(unit(rng, 9, 4)).manifold_ == Sphere(4)
    assert RDKSEstimator(bandwidth=1.0).fit(rng.standard_normal((9, 2))).manifold_ == Euclidean(2)
    one_hot = RDKSEstimator(bandwidth=1.0).fit(np.eye(3)[[0, 1, 2, 0]])
    assert one_hot.manifold_ == Euclidean(3) and "one-hot" in one_hot.manifold_reason_
    assert RDKSEstimator("circle", bandwidth=1.0).fit([[0.1], [0.2]]).manifold_ == Circle()
    A = rng.standard_normal((9, 2, 2))
    spd = RDKSEstimator(bandwidth=1.0).fit(A @ A.transpose(0, 2, 1) + 0.1 * np.eye(2))
    assert spd.manifold_ == SPD(2) and "positive definite" in spd.manifold_reason_
    assert spd.sample(3, random_state=0).shape == (3, 2, 2)
    assert RDKSEstimator(bandwidth=1.0).fit(A).manifold_ == Euclidean(4)
    rotations = Rotation.random(5, random_state=0)
    for X in (rotations.as_matrix(), rotations):
        found = RDKSEstimator(bandwidth=1.0).fit(X)
        assert found.manifold_ == SO3() and "rotations" in found.manifold_reason_
        assert found.sample(3, random_state=0).shape == (3, 3, 3)


def test_geomstats_spaces_are_recognised():
    load_geomstats()
    from geomstats.geometry.hypersphere import Hypersphere
    X = unit(np.random.default_rng(8), 40)
    theirs = RDKSEstimator(Hypersphere(2), bandwidth=0.4).fit(X)
    assert theirs.merge(theirs).n_samples_seen_ == 80
    ours = RDKSEstimator("sphere", bandwidth=0.4).fit(X)
    assert np.array_equal(theirs.score_samples(X), ours.score_samples(X))


def test_partial_fit_and_merge_equal_one_fit():
    rng = np.random.default_rng(9)
    X, q = unit(rng, 90), unit(rng, 25)
    for rule in (0.3, "lcv"):
        whole = RDKSEstimator(bandwidth=rule).fit(X)
        parts = RDKSEstimator(bandwidth=rule)
        for block in np.array_split(X, 4):
            parts.partial_fit(block)
        first, second = RDKSEstimator(bandwidth=rule).fit(X[:30]), RDKSEstimator(bandwidth=rule).fit(X[30:])
        before = first.score_samples(q)
        merged = first.merge(second)
        for other in (parts, merged):
            assert other.n_samples_seen_ == 90
            assert other.bandwidth_ == pytest.approx(whole.bandwidth_, rel=1e-6)
            assert np.allclose(other.score_samples(q), whole.score_samples(q), rtol=1e-6, atol=1e-6)
        assert np.array_equal(first.score_samples(q), before)
    with pytest.raises(ValueError, match="bandwidth"):
        RDKSEstimator(bandwidth=0.1).fit(X).merge(RDKSEstimator(bandwidth=0.2).fit(X))
    with pytest.raises(ValueError, match="column names"):
        frame = pd.DataFrame(X, columns=list("abc"))
        RDKSEstimator("sphere", bandwidth=0.1).fit(frame).merge(
            RDKSEstimator("sphere", bandwidth=0.1).fit(frame[["c", "b", "a"]]))
    with pytest.raises(ValueError, match="manifolds"):
        RDKSEstimator(bandwidth=0.1).fit(X).merge(RDKSEstimator(bandwidth=0.1).fit(2 * X))


def test_forward_time_is_the_semigroup():
    rng = np.random.default_rng(10)
    X, q = unit(rng, 40), unit(rng, 10)
    early = RDKSEstimator(bandwidth=0.3).fit(X)
    late = RDKSEstimator(bandwidth=np.sqrt(0.09 + 0.4)).fit(X)
    assert np.allclose(early.score_samples(q, t=0.4), late.score_samples(q), rtol=1e-12)
    assert np.allclose(early.score_field(q, t=0.4), late.score_field(q), rtol=1e-9)
    assert np.allclose(early.score_divergence(q, t=0.4), late.score_divergence(q), rtol=1e-9)


def test_units_of_the_length():
    """A radius changes bandwidth and density by the scaling law of the heat kernel."""
    rng = np.random.default_rng(11)
    X, q, R = unit(rng, 40), unit(rng, 10), 6371.0
    one = RDKSEstimator(Sphere(2), bandwidth=0.1).fit(X)
    km = RDKSEstimator(Sphere(2, radius=R), bandwidth=0.1 * R).fit(R * X)
    assert np.allclose(km.score_samples(R * q), one.score_samples(q) - 2 * np.log(R), rtol=1e-12)
    assert np.allclose(km.score_field(R * q) * R, one.score_field(q), rtol=1e-9)
    hours = RDKSEstimator(Circle(24.0), bandwidth=1.5).fit([[23.0], [23.0]])
    assert hours.score_samples([[2.0]]) == pytest.approx(hours.score_samples([[26.0]]), rel=1e-13)
    degrees = RDKSEstimator(Torus(2, period=360.0), bandwidth=20.0).fit(360 * rng.random((50, 2)))
    assert (degrees.sample(100, random_state=0) < 360).all()


def test_three_dimensional_input_has_its_layout_back():
    X = unit(np.random.default_rng(12), 10, 3).reshape(10, 2, 2)
    est = RDKSEstimator(Sphere(3), bandwidth=0.5).fit(X)
    assert est.sample(4, random_state=0).shape == (4, 2, 2)
    assert est.score_field(X).shape == X.shape and est.n_features_in_ == 4
    assert np.array_equal(est.score_samples(X), est.score_samples(X.reshape(10, 4)))


# Bad input: the right type, what and where, what was expected, and nothing changed.

GOOD = np.array([[0.0, 0, 1], [0, 1, 0], [1, 0, 0], [0.6, 0.8, 0]])


def bad_row(row, value):
    X = GOOD.copy()
    X[row] = value
    return X


BAD_FIT = {
    "nan": (dict(manifold="sphere", bandwidth=0.3), bad_row(1, np.nan), {}, ValueError, "NaN"),
    "inf": (dict(manifold="sphere", bandwidth=0.3), bad_row(1, np.inf), {}, ValueError, "infinity"),
    "empty": (dict(manifold="sphere", bandwidth=0.3), np.zeros((0, 3)), {}, ValueError, "0 sample"),
    "one dimension": (dict(bandwidth=0.3), np.arange(3.0), {}, ValueError, "Expected 2D array"),
    "one point": (dict(manifold="sphere"), GOOD[:1], {}, ValueError, "n_samples=1"),
    "all equal": (dict(manifold="sphere"), GOOD[[0, 0, 0]], {}, ValueError, "two distinct points"),
    "width": (dict(manifold=Sphere(3), bandwidth=0.3), GOOD, {}, ValueError, "3 features.*written with 4"),
    "object": (dict(manifold="sphere", bandwidth=0.3), np.array([["a", "b", "c"]] * 5, dtype=object), {},
               ValueError, "could not convert|not allowed"),
    "complex": (dict(manifold="sphere", bandwidth=0.3), GOOD + 0j, {}, ValueError, "Complex"),
    "off the manifold": (dict(manifold="sphere", bandwidth=0.3), bad_row(2, [1, 1, 0]), {}, PointError,
                         r"X\[2\] is not on Sphere\(dim=2.*= 0.414 exceeds 1e-06.*check_points='project'"),
    "latitude": (dict(manifold=Sphere(2, coords="latlon_deg"), bandwidth=0.3), np.array([[0.0, 0], [95, 0]]), {},
                 PointError, r"X\[1\].*latitude.*90 degrees"),
    "negative weight": (dict(manifold="sphere", bandwidth=0.3), GOOD, dict(sample_weight=[1, -1, 1, 1]), ValueError,
                        r"sample_weight\[1\] = -1"),
    "zero weights": (dict(manifold="sphere", bandwidth=0.3), GOOD, dict(sample_weight=np.zeros(4)), ValueError,
                     "at least one non-zero"),
    "weight count": (dict(manifold="sphere", bandwidth=0.3), GOOD, dict(sample_weight=[1, 2]), ValueError,
                     r"shape \(2,\), expected \(4,\)"),
    "zero bandwidth": (dict(manifold="sphere", bandwidth=0.0), GOOD, {}, ValueError, "must be a positive"),
    "negative bandwidth": (dict(manifold="sphere", bandwidth=-1), GOOD, {}, ValueError, "must be a positive"),
    "nan bandwidth": (dict(manifold="sphere", bandwidth=np.nan), GOOD, {}, ValueError, "must be a positive"),
    "unknown rule": (dict(manifold="sphere", bandwidth="best"), GOOD, {}, ValueError, "not a known rule.*lcv"),
    "unknown manifold": (dict(manifold="klein", bandwidth=1.0), GOOD, {}, ValueError, "not a known name.*sphere"),
    "no manifold": (dict(manifold=3, bandwidth=1.0), GOOD, {}, ValueError, "expected 'auto'"),
    "unknown engine": (dict(bandwidth=1.0, engine="fast"), GOOD, {}, ValueError, "expected one of"),
    "engine of others": (dict(bandwidth=1.0, engine="spectral"), GOOD, {}, UnsupportedError, "cannot serve"),
    "adaptive": (dict(bandwidth=1.0, adaptive="yes"), GOOD, {}, ValueError, "adaptive"),
    "adaptive mixture": (dict(bandwidth="mixture", adaptive="knn"), GOOD, {}, ValueError, "exclude each other"),
    "n_jobs": (dict(bandwidth=1.0, n_jobs=0), GOOD, {}, ValueError, "n_jobs = 0"),
    "tiny bandwidth": (dict(bandwidth=1e-200), GOOD, {}, ValueError, "square must be within the range of floats"),
    "complex weight": (dict(bandwidth=1.0), GOOD, dict(sample_weight=np.ones(4) + 1j), ValueError, "complex"),
    "huge coordinate": (dict(bandwidth=1.0), bad_row(2, 1e200), {}, PointError, r"X\[2\].*beyond the range"),
    "rtol": (dict(bandwidth=1.0, rtol=0.0), GOOD, {}, ValueError, "rtol"),
    "min_bandwidth": (dict(bandwidth=1.0, min_bandwidth=-1), GOOD, {}, ValueError, "min_bandwidth"),
    "check_points": (dict(bandwidth=1.0, check_points="maybe"), GOOD, {}, ValueError, "check_points"),
}


@pytest.mark.parametrize("case", BAD_FIT)
def test_bad_input_to_fit(case):
    parameters, X, keywords, error, message = BAD_FIT[case]
    fresh = RDKSEstimator(**parameters)
    with pytest.raises(error, match=f"(?s){message}"):
        fresh.fit(X, **keywords)
    assert set(fresh.__dict__) == set(fresh.get_params())
    fitted = RDKSEstimator("sphere", bandwidth=0.5).fit(GOOD)
    before = fitted.score_samples(GOOD)
    state = {k: v for k, v in fitted.__dict__.items() if k.endswith("_")}
    fitted.set_params(**fresh.get_params())
    with pytest.raises(error):
        fitted.fit(X, **keywords)
    assert {k: v for k, v in fitted.__dict__.items() if k.endswith("_")} == state
    fitted.set_params(**RDKSEstimator("sphere", bandwidth=0.5).get_params())
    assert np.array_equal(fitted.score_samples(GOOD), before)


def test_sparse_input_raises():
    from scipy.sparse import csr_array
    with pytest.raises(TypeError, match="[Ss]parse"):
        RDKSEstimator("sphere", bandwidth=0.5).fit(csr_array(GOOD))


def test_using_before_fitting_raises():
    from sklearn.exceptions import NotFittedError
    for call in ("score_samples", "score_field", "score_divergence", "score"):
        with pytest.raises(NotFittedError):
            getattr(RDKSEstimator(), call)(GOOD)
    with pytest.raises(NotFittedError):
        RDKSEstimator().sample()


def test_bad_queries_raise():
    est = RDKSEstimator("sphere", bandwidth=0.5).fit(GOOD)
    with pytest.raises(ValueError, match="4 features, but RDKSEstimator is expecting 3"):
        est.score_samples(np.ones((2, 4)))
    with pytest.raises(PointError, match=r"X\[1\]"):
        est.score_samples(bad_row(1, [0, 0, 2]))
    with pytest.raises(ValueError, match="t = -1"):
        est.score_samples(GOOD, t=-1)
    with pytest.raises(ValueError, match="t = nan"):
        est.score_samples(GOOD, t=np.nan)
    with pytest.raises(ValueError, match="n_samples"):
        est.sample(-1)
    with pytest.raises(ValueError, match="random_state"):
        est.sample(1, random_state="seed")
    with pytest.raises(ValueError, match="n_steps"):
        est.sample(1, method="probability_flow", n_steps=10)
    with pytest.raises(ValueError, match="method"):
        est.sample(1, method="magic")
    with pytest.raises(ValueError, match="n_steps"):
        est.sample(1, n_steps=10)
    with pytest.raises(ValueError, match="check_points"):
        est.set_params(check_points="maybe").score_samples(GOOD)
    assert est.min_time_ == 0.0


def test_check_points():
    est = RDKSEstimator("sphere", bandwidth=0.5, check_points="project").fit(2 * GOOD)
    assert np.allclose(est.score_samples(3 * GOOD), est.score_samples(GOOD))
    with pytest.raises(PointError, match=r"X\[0\].*no nearest point"):
        est.score_samples(np.zeros((1, 3)))
    # rounding of single precision is not an error
    rng = np.random.default_rng(0)
    RDKSEstimator("sphere", bandwidth=0.5).fit(unit(rng, 50).astype(np.float32))


@pytest.mark.parametrize("make", [lambda: Sphere(0), lambda: Sphere(3, coords="latlon_deg"),
                                  lambda: Sphere(2, coords="xyz"), lambda: Sphere(2, radius=-1),
                                  lambda: Torus(2, period=(1.0, 2.0, 3.0)),
                                  lambda: Torus(0), lambda: Circle(period=0.0), lambda: Euclidean(0)])
def test_bad_manifolds_raise(make):
    with pytest.raises(ValueError, match=r"must be|at least|one of|needs|give"):
        make()


def test_parameters_reach_the_engine():
    X = np.random.default_rng(20).uniform(0, 6, (60, 2))
    for engine in ("auto", "neighbors", "spectral"):
        est = RDKSEstimator("torus", bandwidth=0.5, engine=engine, rtol=1e-3, n_jobs=1).fit(X)
        assert est._sum.rtol == 1e-3
        assert est.set_params(n_jobs=2).partial_fit(X)._sum.n_jobs == 2


def test_a_discretised_space_takes_spectral_for_its_own():
    ring = np.roll(np.eye(12), 1, axis=1)
    nodes = np.arange(12.0)[:, None]
    fits = [RDKSEstimator(Graph(ring + ring.T), bandwidth=0.5, engine=engine).fit(nodes) for engine in
            ("auto", "spectral")]
    np.testing.assert_array_equal(*(est.partial_fit(nodes[:3]).score_samples(nodes) for est in fits))
