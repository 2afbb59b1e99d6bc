"""The outlier detector: leave-one-out densities by hand, thresholds, and scikit-learn's contract."""
import pickle

import mpmath
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array
from scipy.spatial.transform import Rotation
from scipy.stats import chi2
from sklearn.base import clone
from sklearn.metrics import make_scorer, recall_score
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

from rdks import RDKSEstimator
from rdks.errors import PointError
from rdks.manifolds import SO3, Circle, Euclidean, Sphere
from rdks.outliers import RDKSOutlierDetector, left_out_log_density


def unit(X):
    return X / np.linalg.norm(X, axis=1, keepdims=True)


@pytest.mark.filterwarnings("ignore::rdks.errors.DuplicatesWarning")
@pytest.mark.filterwarnings("ignore:bandwidth=:UserWarning")
@parametrize_with_checks([RDKSOutlierDetector(), RDKSOutlierDetector(bandwidth=0.7, contamination=0.1)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_is_an_outlier_detector():
    assert get_tags(RDKSOutlierDetector()).estimator_type == "outlier_detector"


# leave-one-out densities

def test_training_rows_are_scored_by_fits_without_them():
    """Against scikit-learn's KernelDensity, fitted anew without each row."""
    rng = np.random.default_rng(0)
    X, w = rng.standard_normal((40, 2)), rng.uniform(0.1, 2, 40)
    X[0] = 30.0  # nothing but the row itself would be seen there
    detector = RDKSOutlierDetector(bandwidth=0.5).fit(X, sample_weight=w)
    for i in range(40):
        rest = np.arange(40) != i
        kde = KernelDensity(bandwidth=0.5, rtol=0, atol=0).fit(X[rest], sample_weight=w[rest])
        assert detector.training_scores_[i] == pytest.approx(kde.score_samples(X[i:i + 1])[0], rel=1e-10)
    assert detector.training_scores_[0] < -1000
    assert np.array_equal(detector.score_samples(X[::-1]), detector.training_scores_[::-1])
    whole = KernelDensity(bandwidth=0.5, rtol=0, atol=0).fit(X, sample_weight=w)
    q = rng.standard_normal((10, 2))
    np.testing.assert_allclose(detector.score_samples(q), whole.score_samples(q), rtol=1e-10)
    assert detector.predict(X[:1]) == -1 and detector.predict(X[:1] + 1e-9) == 1 - 2 * (
        whole.score_samples(X[:1])[0] < detector.offset_)


def test_circle_by_theta_functions():
    """The heat kernel of the circle is theta_3(x/2, exp(-t/2)) / (2 pi)."""
    X, h = [0.2, 0.9, 1.4, 6.1], 0.7
    detector = RDKSOutlierDetector("circle", bandwidth=h).fit(np.array(X)[:, None])
    with mpmath.workdps(30):
        q = mpmath.exp(-mpmath.mpf(h) ** 2 / 2)
        for i, x in enumerate(X):
            others = [mpmath.jtheta(3, (mpmath.mpf(x) - mpmath.mpf(m)) / 2, q) for j, m in enumerate(X) if j != i]
            expected = float(mpmath.log(sum(others) / (3 * 2 * mpmath.pi)))
            assert detector.training_scores_[i] == pytest.approx(expected, rel=1e-10)


def test_an_isolated_row_does_not_vouch_for_itself():
    rng = np.random.default_rng(1)
    X = np.vstack([unit(rng.standard_normal((100, 3)) * 0.2 + [0, 0, 1]), [[0, 0, -1.0]]])
    for h in (0.02, 0.2):
        detector = RDKSOutlierDetector(bandwidth=h, contamination=0.01).fit(X)
        assert detector.predict(X[-1:]).item() == -1 and detector.fit_predict(X)[-1] == -1
        assert detector.training_scores_.argmin() == 100
    # by the density of all rows, its own kernel included, it would pass
    detector = RDKSOutlierDetector(bandwidth=0.02, contamination=0.1).fit(X)
    assert detector.estimator_.score_samples(X[-1:])[0] > detector.offset_


def test_copies_are_left_out_together():
    """Weight 2 is the row twice, in any unit: an outlier that was entered twice is one."""
    rng = np.random.default_rng(2)
    X = np.vstack([rng.standard_normal((60, 2)), [[9.0, 9.0]]])
    w = np.append(rng.integers(0, 3, 60), 2)
    q = rng.standard_normal((20, 2))
    for options in (dict(bandwidth=0.4), dict(bandwidth=0.4, contamination=0.1), dict(adaptive="abramson"),
                    dict(bandwidth="mixture")):
        weighted = RDKSOutlierDetector(**options).fit(X, sample_weight=w)
        scaled = RDKSOutlierDetector(**options).fit(X, sample_weight=1e-5 * w)
        with pytest.warns() if options.get("bandwidth") != 0.4 else _nothing():
            repeated = RDKSOutlierDetector(**options).fit(np.repeat(X, w, axis=0))
        for other in (scaled, repeated):
            assert other.offset_ == pytest.approx(weighted.offset_, rel=1e-6)
            np.testing.assert_allclose(other.decision_function(X), weighted.decision_function(X), rtol=1e-6, atol=1e-6)
            np.testing.assert_allclose(other.tail_probability(q), weighted.tail_probability(q), atol=1e-12)
        assert weighted.predict(X[-1:]).item() == -1
        # a row of no weight was never there
        free = np.flatnonzero(w == 0)
        np.testing.assert_allclose(weighted.score_samples(X[free]), weighted.training_scores_[free], rtol=1e-12)
        np.testing.assert_allclose(weighted.estimator_.score_samples(X[free]), weighted.training_scores_[free],
                                   rtol=1e-6, atol=1e-9)


class _nothing:
    def __enter__(self):
        return self

    def __exit__(self, *error):
        return False


def test_copies_by_symmetry_and_by_turns_are_copies():
    """Opposite quaternions are one rotation: none of the two vouches for the other."""
    rng = np.random.default_rng(3)
    Q = Rotation.from_rotvec(rng.normal(0, 0.3, (30, 3))).as_quat()
    far = Rotation.from_rotvec([3.0, 0, 0]).as_quat()
    both = np.vstack([-Q[:5], Q, [far, -far]])
    once = np.vstack([Q, [far]])
    space = SO3(coords="quaternion")
    pair = RDKSOutlierDetector(space, bandwidth=0.2).fit(both).training_scores_
    twice = np.ones(31)
    twice[[0, 1, 2, 3, 4, 30]] = 2
    single = RDKSOutlierDetector(space, bandwidth=0.2).fit(once, sample_weight=twice).training_scores_
    np.testing.assert_allclose(pair[5:36], single, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(pair[:5], single[:5], rtol=1e-9, atol=1e-9)
    assert pair[36] == pair[35] < single[:30].min()


def test_zero_has_no_sign():
    detector = RDKSOutlierDetector(bandwidth=0.5).fit([[0.0, 1.0], [1.0, -0.0], [2.0, 2.0]])
    assert np.array_equal(detector.score_samples([[-0.0, 1.0], [1.0, 0.0]]), detector.training_scores_[:2])


def test_mixtures_and_adaptive_times_leave_out_all_that_comes_from_a_row():
    """The sources of a fit, summed by hand without those of one observation."""
    rng = np.random.default_rng(4)
    X = np.concatenate([rng.normal(0, 0.1, 25), rng.normal(0, 2.0, 25), [9.0]])[:, None]
    for options in (dict(bandwidth="mixture"), dict(adaptive="knn"), dict(adaptive="abramson")):
        est = RDKSEstimator(Euclidean(1), **options).fit(X)
        total, logs = est._sum, left_out_log_density(est)
        owner = est._owner[0] if est._owner is not None else np.arange(len(total.Z))
        for i in (0, 20, 50):
            kernels = np.exp(-(X[i, 0] - total.Z[:, 0]) ** 2 / (2 * total.time)) / np.sqrt(2 * np.pi * total.time)
            left = (owner != i) * total.share
            assert logs[i] == pytest.approx(np.log(left @ kernels / left.sum()), rel=1e-8)


def test_the_uniform_part_of_a_mixture_stays():
    """On the circle a mixture has a uniform part, which belongs to no row."""
    rng = np.random.default_rng(5)
    X = np.concatenate([rng.normal(1, 0.05, 60), rng.uniform(0, 2 * np.pi, 40)])[:, None] % (2 * np.pi)
    est = RDKSEstimator("circle", bandwidth="mixture").fit(X)
    owner = est._owner[0]
    total, logs = est._sum, left_out_log_density(est)
    uniform = total.share[owner < 0].sum()
    assert uniform > 0.05
    for i in (0, 50, 99):
        # wrapped normals; the uniform law is one of them after a long time
        turns = X[i, 0] - total.Z + 2 * np.pi * np.arange(-30, 31)
        kernels = (np.exp(-turns**2 / (2 * total.time[:, None])).sum(axis=1) / np.sqrt(2 * np.pi * total.time))
        left = ((owner != i) & (owner >= 0)) * total.share
        expected = (1 - uniform) * (left @ kernels) / left.sum() + uniform / (2 * np.pi)
        assert logs[i] == pytest.approx(np.log(expected), rel=1e-7)


def test_a_mixture_of_the_uniform_law_alone():
    even = np.linspace(0, 2 * np.pi, 40, endpoint=False)[:, None]
    detector = RDKSOutlierDetector("circle", bandwidth="mixture").fit(even)
    assert (detector.estimator_._owner[0] < 0).all()
    np.testing.assert_allclose(detector.training_scores_, -np.log(2 * np.pi), rtol=1e-9)
    assert (detector.predict(even) == 1).all()


# thresholds

def test_contamination_is_a_share_of_the_training_weight():
    rng = np.random.default_rng(6)
    X, w = rng.standard_normal((200, 2)), rng.uniform(0, 2, 200)
    for part in (0.01, 0.1, 0.33, 0.5):
        assert (RDKSOutlierDetector(bandwidth=0.5, contamination=part).fit_predict(X) == -1).sum() == round(200 * part)
        detector = RDKSOutlierDetector(bandwidth=0.5, contamination=part).fit(X, sample_weight=w)
        scores, low = detector.training_scores_, detector.predict(X) == -1
        assert detector.offset_ in scores
        # as many as there may be: the next one would be too much
        order = np.argsort(scores)
        share = np.cumsum(w[order]) / w.sum()
        assert low[order].tolist() == (share <= part).tolist()


def test_a_given_contamination_is_the_probability_that_a_new_row_is_flagged():
    rng = np.random.default_rng(7)
    rate = [np.mean(RDKSOutlierDetector(bandwidth=0.4, contamination=0.2).fit(rng.standard_normal((150, 1)))
                    .predict(rng.standard_normal((300, 1))) == -1) for _ in range(30)]
    # a quantile of 150 rows: a standard error of 0.2 * 0.8 / 150 for each, and that of the queries
    assert np.mean(rate) == pytest.approx(0.2, abs=4 * np.sqrt(0.16 / 150 + 0.16 / 300) / np.sqrt(30) + 1 / 150)


def test_auto_is_the_outer_fence_of_the_log_densities():
    rng = np.random.default_rng(8)
    X = rng.standard_normal((401, 2))
    detector = RDKSOutlierDetector(bandwidth=0.4).fit(X)
    low, high = np.quantile(detector.training_scores_, [0.25, 0.75])
    assert detector.offset_ == pytest.approx(low - 3 * (high - low), rel=1e-12)
    assert np.array_equal(detector.fit_predict(X), np.where(detector.training_scores_ < detector.offset_, -1, 1))


def test_the_rates_that_are_documented():
    """Of normal data, -2 log density is chi-squared: what lies beyond the fence."""
    for d, percent in ((1, 2.6), (2, 0.93), (3, 0.51), (10, 0.09)):
        low, high = chi2(d).ppf([0.25, 0.75])
        assert 100 * chi2(d).sf(high + 3 * (high - low)) == pytest.approx(percent, rel=0.06)


def test_auto_finds_what_stands_out_and_little_else():
    rng = np.random.default_rng(9)
    X = unit(rng.standard_normal((300, 3)) * 0.3 + [0, 0, 1])
    X[:15] = unit(rng.standard_normal((15, 3)) * 0.5 - [0, 0, 1])
    found = RDKSOutlierDetector().fit_predict(X) == -1
    assert found[:15].all() and found[15:].mean() < 0.04
    # rows at equal distances, and one that is missing: its neighbours have half a nat less, and all others the same
    even = np.arange(24.0)[:, None]
    for X in (even, np.delete(even, 5, axis=0)):
        assert (RDKSOutlierDetector(Circle(24.0), bandwidth=1.0).fit_predict(X) == 1).all()


def test_tail_probability_counts_rows_that_are_no_more_usual():
    rng = np.random.default_rng(10)
    X, w = rng.standard_normal((50, 2)), rng.uniform(0.1, 2, 50)
    detector = RDKSOutlierDetector(bandwidth=0.4).fit(X, sample_weight=w)
    q = np.vstack([X[:5], rng.standard_normal((15, 2)), [[50.0, 50.0]], X.mean(axis=0)[None]])
    expected = [w[detector.training_scores_ <= s].sum() / w.sum() for s in detector.score_samples(q)]
    np.testing.assert_allclose(detector.tail_probability(q), expected, rtol=1e-12, atol=1e-15)
    assert expected[20] == 0 and 0 < expected[0] <= 1


# data of all kinds, and scikit-learn's company

def test_rotations_and_frames():
    rotations = Rotation.concatenate([Rotation.from_rotvec(np.random.default_rng(11).normal(0, 0.2, (40, 3))),
                                      Rotation.from_rotvec([[0, 3.0, 0]])])
    for X in (rotations.as_matrix(), rotations):
        detector = RDKSOutlierDetector().fit(X)
        assert detector.manifold_ == SO3() and detector.predict(X)[-1] == -1
        assert detector.fit_predict(X).shape == (41,)
    frame = pd.DataFrame({"lat": [10, 11, 12, 10.5, 11.5, -60], "lon": [179, -179, 180, 179.5, -179.5, 20.0]})
    detector = RDKSOutlierDetector(Sphere(2, coords="latlon_deg"), bandwidth=0.05).fit(frame)
    assert detector.predict(frame).tolist() == [1, 1, 1, 1, 1, -1]
    assert list(detector.feature_names_in_) == ["lat", "lon"]
    assert detector.predict(pd.DataFrame({"lat": [11.0, 60], "lon": [-180.0, 0]})).tolist() == [1, -1]
    with pytest.raises(ValueError, match="feature names"):
        detector.predict(frame[["lon", "lat"]])
    with pytest.warns(UserWarning, match="latlon_deg"):
        RDKSOutlierDetector(bandwidth=1.0).fit(frame)


def test_search_pipeline_clone_and_pickle():
    rng = np.random.default_rng(12)
    y = rng.permutation(np.repeat([1, -1], [80, 8]))
    X = unit(rng.standard_normal((88, 3)) * 0.2 + y[:, None] * [0, 0, 1.0])
    search = GridSearchCV(make_pipeline(Normalizer(), RDKSOutlierDetector(contamination=0.1)),
                          {"rdksoutlierdetector__bandwidth": [0.2, 3.0]}, cv=2,
                          scoring=make_scorer(recall_score, pos_label=-1))
    assert search.fit(X, y).best_score_ > 0.5
    detector = clone(RDKSOutlierDetector(Sphere(2), bandwidth=0.2)).fit(X)
    again = pickle.loads(pickle.dumps(detector))
    assert np.array_equal(again.decision_function(X), detector.decision_function(X))


X4 = np.array([[0.0, 0, 1], [0, 1, 0], [1, 0, 0], [0.6, 0.8, 0]])


@pytest.mark.parametrize(("options", "X", "fit", "kind", "match"), [
    ({"contamination": 0.6}, X4, {}, ValueError, r"contamination = 0\.6"),
    ({"contamination": 0.0}, X4, {}, ValueError, r"contamination = 0\.0"),
    ({"contamination": "some"}, X4, {}, ValueError, "contamination = 'some'"),
    ({"bandwidth": 0.0}, X4, {}, ValueError, "positive"),
    ({"manifold": "sphere"}, 2 * X4, {}, PointError, r"X\[0\]"),
    ({}, X4[:1], {}, ValueError, "n_samples=1"),
    ({}, X4[[0, 0, 0]], {}, ValueError, "two distinct rows"),
    ({}, X4, {"sample_weight": [1, 0, 0, 0]}, ValueError, "two distinct rows"),
    ({}, csr_array(X4), {}, TypeError, "[Ss]parse"),
])
def test_bad_input(options, X, fit, kind, match):
    detector = RDKSOutlierDetector(bandwidth=0.5).fit(X4)
    before = detector.decision_function(X4)
    detector.set_params(**options)
    with pytest.raises(kind, match=match):
        detector.fit(X, **fit)
    detector.set_params(**{name: getattr(RDKSOutlierDetector(bandwidth=0.5), name) for name in options})
    assert np.array_equal(detector.decision_function(X4), before)
