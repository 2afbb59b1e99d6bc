"""The classifier: Bayes' rule by hand, scikit-learn's contract, and what happens at the edges."""
import pickle

import mpmath
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array
from scipy.spatial.transform import Rotation
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn import set_config
from sklearn.base import clone
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, cross_val_score
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

from rdks import RDKSEstimator
from rdks.choice import sources
from rdks.classifier import RDKSClassifier, _queries, select_by_log_loss
from rdks.errors import DuplicatesWarning, PointError, UnsupportedError
from rdks.manifolds import SO3, Circle, Euclidean, Sphere, Torus


def unit(X):
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def two_classes(rng, n):
    """Two von Mises-Fisher-like classes that overlap."""
    y = rng.integers(0, 2, n)
    return unit(rng.standard_normal((n, 3)) * 0.6 + np.where(y[:, None], [0.8, 0, 0.6], [0.0, 0, 1.0])), y


def flat_classes(rng, n):
    """Two normal classes in the plane that overlap."""
    y = rng.integers(0, 2, n)
    return rng.standard_normal((n, 2)) + 1.2 * y[:, None], y


@pytest.mark.filterwarnings("ignore:the classes:UserWarning")
@pytest.mark.filterwarnings("ignore:class .*:UserWarning")
@parametrize_with_checks([RDKSClassifier(), RDKSClassifier(bandwidth=0.7)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_is_a_classifier():
    tags = get_tags(RDKSClassifier())
    assert tags.estimator_type == "classifier" and tags.target_tags.required


# Bayes' rule, by other means

def test_flat_space_is_kernel_density_and_bayes():
    """Against scikit-learn's KernelDensity, whose bandwidth is the standard deviation too."""
    rng = np.random.default_rng(0)
    X, y, w = rng.standard_normal((60, 2)), rng.integers(0, 3, 60), rng.uniform(0.1, 2, 60)
    q = 3 * rng.standard_normal((25, 2))
    prior = np.array([w[y == c].sum() for c in range(3)]) / w.sum()
    for priors, expected in ((None, prior), ("uniform", np.full(3, 1 / 3)), ([0.5, 0.2, 0.3], [0.5, 0.2, 0.3])):
        model = RDKSClassifier(bandwidth=0.4, priors=priors).fit(X, y, sample_weight=w)
        joint = np.column_stack([
            KernelDensity(bandwidth=0.4, rtol=0, atol=0).fit(X[y == c], sample_weight=w[y == c]).score_samples(q)
            + np.log(expected[c]) for c in range(3)])
        np.testing.assert_allclose(model.class_prior_, expected, rtol=1e-14)
        np.testing.assert_allclose(model.predict_joint_log_proba(q), joint, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(model.decision_function(q), joint, rtol=1e-10, atol=1e-10)
        posterior = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
        np.testing.assert_allclose(model.predict_proba(q), posterior, rtol=1e-9, atol=1e-13)
        assert np.array_equal(model.predict(q), joint.argmax(axis=1))


def test_circle_by_theta_functions():
    """The heat kernel of the circle is theta_3(x/2, exp(-t/2)) / (2 pi)."""
    data = {"a": [0.3, 1.1, 6.0], "b": [2.5, 3.0]}
    X = np.concatenate(list(data.values()))[:, None]
    y = np.repeat(list(data), [3, 2])
    h, q = 0.6, [0.0, 1.7, 4.4]
    model = RDKSClassifier("circle", bandwidth=h).fit(X, y)
    with mpmath.workdps(30):
        for x, odds in zip(q, model.decision_function(np.array(q)[:, None]), strict=True):
            a, b = (sum(mpmath.jtheta(3, (mpmath.mpf(x) - mpmath.mpf(m)) / 2, mpmath.exp(-mpmath.mpf(h) ** 2 / 2))
                        for m in data[label]) for label in "ab")
            assert odds == pytest.approx(float(mpmath.log(b / a)), rel=1e-10, abs=1e-10)


def test_one_point_per_class_is_the_perpendicular_bisector():
    """log odds = x.(b - a) / h^2 - (|b|^2 - |a|^2) / (2 h^2): linear discriminant analysis with variance h^2."""
    rng = np.random.default_rng(1)
    a, b, h = np.array([0.5, -1.0, 2.0]), np.array([-0.3, 1.5, 0.4]), 0.7
    model = RDKSClassifier(bandwidth=h).fit([a, b], [0, 1])
    q = 2 * rng.standard_normal((20, 3))
    expected = (q @ (b - a) - 0.5 * (b @ b - a @ a)) / h**2
    np.testing.assert_allclose(model.decision_function(q), expected, rtol=1e-10, atol=1e-10)
    away = q - np.outer((q - 0.5 * (a + b)) @ (b - a), b - a) / ((b - a) @ (b - a))
    np.testing.assert_allclose(model.predict_proba(away), 0.5, rtol=1e-10)


def test_finite_where_all_densities_vanish():
    X = np.array([[0.0], [0.1], [1.0], [1.1]])
    model = RDKSClassifier(bandwidth=0.01).fit(X, ["a", "a", "b", "b"])
    q = np.array([[-50.0], [0.54], [0.56], [0.55], [60.0]])
    joint = model.predict_joint_log_proba(q)
    assert (joint[[0, 4]] < -1e5).all()
    with np.errstate(all="raise", under="ignore"):
        logs, p = model.predict_log_proba(q), model.predict_proba(q)
    assert np.isfinite(logs).all() and np.allclose(p.sum(axis=1), 1, rtol=1e-14)
    assert model.predict(q[[0, 1, 2, 4]]).tolist() == ["a", "a", "b", "b"]
    # at the middle only the two nearest rows count, and they balance
    assert p[3] == pytest.approx([0.5, 0.5], abs=1e-8)


def test_posteriors_are_those_of_the_law():
    """Two known laws on the sphere: the log loss comes near to that of the true posterior, as rows become more."""
    rng = np.random.default_rng(2)
    truth = [RDKSEstimator("sphere", bandwidth=0.5).fit([m]) for m in ([0, 0, 1.0], [0.6, 0, 0.8])]

    def draw(n):
        y = np.repeat([0, 1], [n // 4, n - n // 4])
        return np.concatenate([truth[c].sample((y == c).sum(), rng) for c in (0, 1)]), y

    q, label = draw(2000)
    joint = np.column_stack([truth[c].score_samples(q) + np.log([0.25, 0.75][c]) for c in (0, 1)])
    bayes = log_loss(label, np.exp(joint - logsumexp(joint, axis=1, keepdims=True)))
    X, y = draw(400)
    for rule in ("auto", "log_loss"):
        model = RDKSClassifier("sphere", bandwidth=rule).fit(X, y)
        assert bayes - 0.005 < log_loss(label, model.predict_proba(q)) < bayes + 0.03
        # calibrated: among points of predicted probability p, a share p. Standard errors are up to 0.025, and smoothing
        # draws probabilities towards each other, by up to 0.1 for 400 rows, 0.04 for ten times as many
        p = model.predict_proba(q)[:, 1]
        for part in np.array_split(np.argsort(p), 5):
            assert label[part].mean() == pytest.approx(p[part].mean(), abs=0.15)


# data of all kinds

def test_rotations():
    rotations = Rotation.concatenate([Rotation.from_rotvec(np.random.default_rng(3).normal(0, 0.4, (20, 3))) * turn
                                      for turn in (Rotation.identity(), Rotation.from_rotvec([0, 0, 2.0]))])
    y = np.repeat([True, False], 20)
    model = RDKSClassifier(bandwidth="log_loss").fit(rotations.as_matrix(), y)
    assert model.manifold_ == SO3() and model.classes_.tolist() == [False, True]
    assert model.score(rotations.as_matrix(), y) > 0.95
    X, label = model.sample(7, random_state=0)
    assert X.shape == (7, 3, 3) and label.shape == (7,) and label.dtype == bool
    flat = RDKSClassifier(SO3(), bandwidth="log_loss").fit(rotations.as_matrix().reshape(40, 9), y)
    np.testing.assert_allclose(flat.predict_proba(rotations.as_matrix().reshape(40, 9)),
                               model.predict_proba(rotations), rtol=1e-9)


def test_latitude_and_longitude_with_column_names():
    rng = np.random.default_rng(4)
    frame = pd.DataFrame({"lat": rng.normal(10, 15, 80), "lon": (rng.normal(180, 20, 80) + 180) % 360 - 180})
    y = np.where(frame["lat"] + rng.normal(0, 3, 80) > 10, "north", "south")
    earth = Sphere(2, coords="latlon_deg", radius=6371.0)
    model = RDKSClassifier(earth).fit(frame, pd.Series(y))
    assert list(model.feature_names_in_) == ["lat", "lon"] and model.n_features_in_ == 2
    assert (model.bandwidth_ > 100).all() and model.score(frame, y) > 0.85
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[["lon", "lat"]])
    X = unit(np.column_stack(earth.embed(frame.to_numpy()).T))
    by_vectors = RDKSClassifier(Sphere(2), bandwidth=0.1).fit(X, y)
    by_angles = RDKSClassifier(Sphere(2, coords="latlon_deg"), bandwidth=0.1).fit(frame, y)
    np.testing.assert_allclose(by_angles.predict_log_proba(frame), by_vectors.predict_log_proba(X), rtol=1e-8,
                               atol=1e-10)


def test_the_manifold_is_that_of_all_rows():
    """One class alone would be taken for points of a sphere."""
    rng = np.random.default_rng(5)
    X = np.concatenate([unit(rng.standard_normal((20, 2))), 3 * rng.standard_normal((20, 2))])
    model = RDKSClassifier(bandwidth=0.5).fit(X, np.repeat([0, 1], 20))
    assert model.manifold_ == Euclidean(2)
    assert all(est.manifold_ == Euclidean(2) for est in model.estimators_)


def test_weights_are_repetitions_and_zero_is_no_row():
    rng = np.random.default_rng(6)
    X, y = flat_classes(rng, 60)
    y[:5] = 2
    count = rng.integers(0, 4, 60)
    count[:5] = 0
    for rule in (0.4, "auto", "log_loss"):
        weighted = RDKSClassifier(bandwidth=rule).fit(X, y, sample_weight=count)
        with pytest.warns(DuplicatesWarning, match="class") if rule != 0.4 else _nothing():
            repeated = RDKSClassifier(bandwidth=rule).fit(np.repeat(X, count, axis=0), np.repeat(y, count))
        assert weighted.classes_.tolist() == [0, 1]
        np.testing.assert_allclose(weighted.predict_log_proba(X), repeated.predict_log_proba(X), rtol=1e-7, atol=1e-7)
        scaled = RDKSClassifier(bandwidth=rule).fit(X, y, sample_weight=1e-3 * count)
        np.testing.assert_allclose(weighted.predict_log_proba(X), scaled.predict_log_proba(X), rtol=1e-7, atol=1e-7)


class _nothing:
    def __enter__(self):
        return self

    def __exit__(self, *error):
        return False


def test_draws_follow_priors_and_densities():
    X = np.array([[0.0], [10.0], [10.0]])
    model = RDKSClassifier(bandwidth=0.5, priors=[0.3, 0.7]).fit(X, ["a", "b", "b"])
    Z, y = model.sample(4000, random_state=0)
    assert Z.shape == (4000, 1) and (y == "b").mean() == pytest.approx(0.7, abs=4 * np.sqrt(0.21 / 4000))
    assert np.array_equal(y == "b", Z[:, 0] > 5)
    assert Z[y == "a"].std() == pytest.approx(0.5, rel=4 / np.sqrt(2 * 1200))
    assert np.array_equal(model.sample(5, random_state=1)[0], model.sample(5, random_state=1)[0])
    assert model.sample(0)[0].shape == (0, 1)


def test_classes_choose_their_own_bandwidths():
    rng = np.random.default_rng(7)
    X, y = two_classes(rng, 120)
    model = RDKSClassifier(bandwidth="lscv").fit(X, y)
    for c in (0, 1):
        alone = RDKSEstimator("sphere", bandwidth="lscv").fit(X[y == c])
        assert model.bandwidth_[c] == model.estimators_[c].bandwidth_ == alone.bandwidth_


def test_one_class():
    model = RDKSClassifier(bandwidth=0.5).fit([[0.0], [1.0]], ["a", "a"])
    assert model.predict([[9.0]]).tolist() == ["a"] and model.predict_proba([[9.0]]).tolist() == [[1.0]]


# a class of one row

def test_a_class_of_one_row_borrows_a_bandwidth():
    rng = np.random.default_rng(8)
    X, y = flat_classes(rng, 90)
    X, y = np.vstack([X, [[4.0, -4.0]]]), np.append(y, 2)
    w = rng.uniform(0.5, 2, 91)
    with pytest.warns(UserWarning, match=r"\[2\] have one distinct row") as caught:
        model = RDKSClassifier().fit(X, y, sample_weight=w)
    assert len(caught) == 1
    # h n^{1/(d + 4)}, geometric mean by weight
    terms = [(w[y == c].sum(), model.bandwidth_[c] * (w[y == c].sum() ** 2 / (w[y == c] ** 2).sum()) ** (1 / 6))
             for c in (0, 1)]
    expected = np.exp(sum(weight * np.log(h) for weight, h in terms) / sum(weight for weight, _ in terms))
    assert model.bandwidth_[2] == pytest.approx(expected, rel=1e-10)
    assert model.bandwidth_[2] > model.bandwidth_[:2].max()
    X, y = X[-40:], y[-40:]
    for options in (dict(bandwidth="mixture"), dict(adaptive="knn"), dict(bandwidth="log_loss")):
        with pytest.warns(UserWarning, match="one distinct row"):
            assert np.isfinite(RDKSClassifier(**options).fit(X, y).predict_log_proba(X)).all()
    adaptive = RDKSClassifier(bandwidth=0.3, adaptive="abramson").fit(X, y)
    assert adaptive.bandwidth_[2] == 0.3
    with pytest.raises(ValueError, match=r"classes \['a', 'b'\] have one each.*Pass a number"):
        RDKSClassifier().fit(X[:2], ["a", "b"])


def test_errors_and_warnings_name_the_class():
    X = np.array([[0.0], [1.0], [5.0], [6.0], [6.0], [7.0]])
    y = ["x", "x", "y", "y", "y", "y"]
    with pytest.raises(ValueError, match="class 'x': bandwidth='mixture' needs at least 3"):
        RDKSClassifier(bandwidth="mixture").fit(X, y)
    with pytest.warns(DuplicatesWarning, match="class 'y': 1 of 4 rows"):
        RDKSClassifier(bandwidth="rot").fit(X, y)


# the bandwidth of the smallest log loss

def by_hand(X, y, h, priors=None, w=None):
    """Mean leave-one-out log loss by fitting the rest anew, row by row, in flat space."""
    w = np.ones(len(X)) if w is None else w
    classes, total = np.unique(y), 0.0
    for i in range(len(X)):
        rest = np.arange(len(X)) != i
        joint = []
        for c in classes:
            mine = rest & (y == c)
            kernel = multivariate_normal(X[i], h**2 * np.eye(X.shape[1])).pdf(X[mine])
            prior = w[mine].sum() / w[rest].sum() if priors is None else priors[c]
            joint.append(prior * (w[mine] @ kernel) / w[mine].sum())
        total -= w[i] * np.log(joint[np.flatnonzero(classes == y[i])[0]] / sum(joint))
    return total / w.sum()


@pytest.mark.parametrize("priors", [None, [0.3, 0.7]])
def test_log_loss_is_that_of_fits_without_each_row(priors):
    rng = np.random.default_rng(9)
    X, y = rng.standard_normal((40, 2)), np.repeat([0, 1], [12, 28])
    X[:, 0] += 1.2 * y
    w = rng.uniform(0.2, 3, 40)
    parts = [sources(Euclidean(2), X[y == c], w[y == c], 0.0) for c in (0, 1)]
    h, found = select_by_log_loss(parts, [0.5, 0.5], None if priors is None else np.array(priors))
    assert h[0] == h[1] == found.bandwidth
    for t, value in list(zip(found.times, found.criterion, strict=True))[::4]:
        assert -value == pytest.approx(by_hand(X, y, np.sqrt(t), priors, w), rel=1e-8)
    # the best of the curve, up to a twentieth of a nat in all, and the largest such
    slack = 0.05 * (w @ w) / w.sum() ** 2
    enough = found.times[found.criterion >= found.criterion.max() - slack]
    assert found.bandwidth == pytest.approx(np.sqrt(enough.max()), rel=1e-12)
    assert by_hand(X, y, 1.02 * found.bandwidth, priors, w) > -found.criterion.max() + slack


def test_log_loss_wins_where_classes_are_alike_in_many_dimensions():
    rng = np.random.default_rng(10)
    draws = []
    for n in (150, 3000):
        y = rng.integers(0, 2, n)
        draws.append((rng.standard_normal((n, 6)) + 0.7 * y[:, None], y))
    (X, y), (q, label) = draws
    loss = {rule: log_loss(label, RDKSClassifier(bandwidth=rule).fit(X, y).predict_proba(q))
            for rule in ("auto", "log_loss")}
    assert loss["log_loss"] < loss["auto"] - 0.01


def test_log_loss_keeps_the_proportion_of_different_classes():
    rng = np.random.default_rng(11)
    y = np.repeat(["narrow", "wide"], 100)
    X = rng.standard_normal((200, 2)) * np.where(y == "narrow", 0.1, 2.0)[:, None]
    own, common = (RDKSClassifier(bandwidth=rule).fit(X, y) for rule in ("auto", "log_loss"))
    assert common.bandwidth_[1] / common.bandwidth_[0] == pytest.approx(own.bandwidth_[1] / own.bandwidth_[0])
    assert "in the proportion" in common.selection_.reason and own.selection_ is None
    assert common.selection_.bandwidth == pytest.approx(np.sqrt(common.bandwidth_.prod()))


def test_classes_that_do_not_overlap_are_as_uncertain_as_the_rows_allow():
    """No leave-one-out loss can tell small bandwidths apart; the largest with a total loss of 0.05 is taken."""
    rng = np.random.default_rng(12)
    X = rng.standard_normal((60, 2)) * 0.3 + np.repeat([[0, 0], [3, 0]], 30, axis=0)
    y = np.repeat([0, 1], 30)
    model = RDKSClassifier(bandwidth="log_loss").fit(X, y)
    assert by_hand(X, y, model.bandwidth_[0]) * 60 == pytest.approx(0.05, rel=0.4)


def test_log_loss_and_the_floor():
    rng = np.random.default_rng(13)
    X, y = flat_classes(rng, 80)
    model = RDKSClassifier(bandwidth="log_loss", min_bandwidth=1.5).fit(X, y)
    assert (model.bandwidth_ >= 1.5).all()
    with pytest.raises(ValueError, match="1 class"):
        RDKSClassifier(bandwidth="log_loss").fit(X, np.zeros(80))
    with pytest.raises(ValueError, match="exclude each other"):
        RDKSClassifier(bandwidth="log_loss", adaptive="knn").fit(X, y)


def test_log_loss_of_some_rows_of_many(monkeypatch):
    """Seen from representatives the choice is near to that of all rows."""
    rng = np.random.default_rng(14)
    X, y = flat_classes(rng, 500)
    whole = RDKSClassifier(bandwidth="log_loss").fit(X, y)
    monkeypatch.setattr("rdks.classifier._ROWS", 200)
    some = RDKSClassifier(bandwidth="log_loss").fit(X, y)
    assert some.bandwidth_[0] != whole.bandwidth_[0]
    assert some.bandwidth_[0] == pytest.approx(whole.bandwidth_[0], rel=0.4)
    # each class counts by its weight
    parts = [sources(Euclidean(2), X[a:b], np.ones(b - a), 0.0) for a, b in ((0, 50), (50, 500))]
    for (rows, part), weight, n in zip(_queries(parts, np.array([30.0, 70.0])), (30, 70), (60, 140), strict=True):
        assert part.sum() == pytest.approx(weight, rel=1e-12) and len(rows) <= n


# streams

def test_partial_fit_equals_fit():
    rng = np.random.default_rng(15)
    X = rng.uniform(0, 2 * np.pi, (300, 2))
    y = np.array(["a", "b", "c"])[rng.integers(0, 3, 300)]
    w = rng.uniform(0, 2, 300)
    for engine in ("auto", "spectral"):
        whole = RDKSClassifier("torus", bandwidth=0.4, engine=engine).fit(X, y, sample_weight=w)
        parts = RDKSClassifier("torus", bandwidth=0.4, engine=engine)
        for rows in np.array_split(np.argsort(y), 4):  # one class after the other
            parts.partial_fit(X[rows], y[rows], classes=["c", "a", "b"], sample_weight=w[rows])
        np.testing.assert_allclose(parts.class_weight_, whole.class_weight_, rtol=1e-12)
        np.testing.assert_allclose(parts.predict_log_proba(X), whole.predict_log_proba(X), rtol=1e-5, atol=1e-5)


def test_partial_fit_before_all_classes_are_seen():
    model = RDKSClassifier("circle", bandwidth=0.5).partial_fit([[0.1], [2.0]], [1, 1], classes=[1, 2])
    assert model.predict([[3.0]]).tolist() == [1] and model.predict_proba([[3.0]]).tolist() == [[1.0, 0.0]]
    assert model.estimators_[1] is None and model.bandwidth_.tolist()[0] == 0.5 and np.isnan(model.bandwidth_[1])
    assert (model.sample(9, random_state=0)[1] == 1).all()
    before = model.predict_joint_log_proba([[3.0]])
    with pytest.raises(ValueError, match=r"y\[1\] = 3 is none of the classes \[1, 2\]"):
        model.partial_fit([[0.1], [0.2]], [1, 3])
    with pytest.raises(ValueError, match="differ from those"):
        model.partial_fit([[0.1]], [1], classes=[1, 2, 3])
    with pytest.raises(ValueError, match="features"):
        model.partial_fit([[0.1, 0.2]], [1])
    assert np.array_equal(model.predict_joint_log_proba([[3.0]]), before)
    model.partial_fit([[4.0]], [2])
    assert np.isfinite(model.predict_log_proba([[3.0]])).all()
    with pytest.raises(ValueError, match="first call"):
        RDKSClassifier(bandwidth=0.5).partial_fit([[0.1]], [1])
    assert not hasattr(RDKSClassifier(), "partial_fit") and not hasattr(RDKSClassifier(adaptive="knn"), "partial_fit")


def test_a_failure_in_one_class_leaves_no_trace_in_another(monkeypatch):
    model = RDKSClassifier(bandwidth=0.5).partial_fit([[0.0], [1.0]], ["a", "b"], classes=["a", "b"])
    before = model.predict_joint_log_proba([[0.5], [3.0]])
    grow = RDKSEstimator.partial_fit

    def fail_later(self, X, **options):
        if X[0, 0] > 5:
            raise ValueError("enough")
        return grow(self, X, **options)

    monkeypatch.setattr(RDKSEstimator, "partial_fit", fail_later)
    with pytest.raises(ValueError, match="class 'b': enough"):
        model.partial_fit([[2.0], [9.0]], ["a", "b"])
    assert np.array_equal(model.predict_joint_log_proba([[0.5], [3.0]]), before)


# in scikit-learn's company

def test_search_pipelines_and_cross_validation():
    rng = np.random.default_rng(16)
    X, y = flat_classes(rng, 80)
    pipe = make_pipeline(StandardScaler(), RDKSClassifier())
    search = GridSearchCV(pipe, {"rdksclassifier__bandwidth": [0.01, 0.3, "log_loss"]}, cv=3, scoring="neg_log_loss")
    assert search.fit(X, y).best_params_["rdksclassifier__bandwidth"] != 0.01
    halving = HalvingGridSearchCV(RDKSClassifier(), {"bandwidth": [0.01, 0.3, 0.9]}, cv=2, random_state=0)
    assert halving.fit(X, y).best_score_ > 0.6
    assert cross_val_score(RDKSClassifier(bandwidth=0.5), X, y, cv=3).mean() > 0.6


def test_weights_are_routed():
    rng = np.random.default_rng(17)
    X, y = two_classes(rng, 60)
    w = rng.uniform(0.1, 2, 60)
    set_config(enable_metadata_routing=True)
    try:
        model = RDKSClassifier(bandwidth=0.4).set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        assert GridSearchCV(model, {"bandwidth": [0.3, 0.6]}, cv=2).fit(X, y, sample_weight=w).best_score_ > 0.5
        pipe = make_pipeline(Normalizer(), model).fit(X, y, sample_weight=w)
        assert pipe[-1].class_weight_.sum() == pytest.approx(w.sum())
    finally:
        set_config(enable_metadata_routing=False)


def test_clone_and_pickle():
    rng = np.random.default_rng(18)
    X, y = two_classes(rng, 50)
    model = RDKSClassifier(Sphere(2), priors=[0.4, 0.6]).fit(X, y)
    assert clone(model).priors == [0.4, 0.6]
    assert np.array_equal(pickle.loads(pickle.dumps(model)).predict_proba(X), model.predict_proba(X))


# bad input: what was found, where, and nothing changed

X4, Y4 = np.array([[0.0, 0, 1], [0, 1, 0], [1, 0, 0], [0.6, 0.8, 0]]), np.array([0, 0, 1, 1])


@pytest.mark.parametrize(("options", "X", "y", "kind", "match"), [
    ({}, X4, None, ValueError, "requires y"),
    ({}, X4, Y4[:3], ValueError, "inconsistent"),
    ({}, X4, [0.1, 0.2, 0.3, 0.4], ValueError, "Unknown label type"),
    ({}, X4, [0, 1, np.nan, 1], ValueError, "y contains NaN"),
    ({}, X4, np.c_[Y4, Y4], ValueError, "1d array"),
    ({}, X4, csr_array(Y4[:, None]), TypeError, "[Ss]parse"),
    ({}, csr_array(X4), Y4, TypeError, "[Ss]parse"),
    ({"manifold": "sphere"}, 2 * X4, Y4, PointError, r"X\[0\]"),
    ({"priors": [0.5, 0.6]}, X4, Y4, ValueError, r"sum to 1\.1"),
    ({"priors": [0.0, 1.0]}, X4, Y4, ValueError, r"priors\[0\] = 0 of class 0.*positive"),
    ({"priors": [1.0]}, X4, Y4, ValueError, r"expected 2 numbers.*\[0, 1\]"),
    ({"priors": "equal"}, X4, Y4, ValueError, "expected None, 'uniform'"),
    ({"bandwidth": "best"}, X4, Y4, ValueError, "not a known rule.*log_loss"),
    ({"bandwidth": -1.0}, X4, Y4, ValueError, "positive"),
    ({"engine": "fast"}, X4, Y4, ValueError, "engine"),
    ({"n_jobs": 0}, X4, Y4, ValueError, "n_jobs"),
    ({"manifold": Euclidean(3), "engine": "spectral"}, X4, Y4, UnsupportedError, "cannot serve"),
])
def test_bad_input(options, X, y, kind, match):
    model = RDKSClassifier(bandwidth=0.5).fit(X4, Y4)
    before = model.predict_proba(X4)
    model.set_params(**options)
    with pytest.raises(kind, match=match):
        model.fit(X, y)
    model.set_params(**{name: getattr(RDKSClassifier(bandwidth=0.5), name) for name in options})
    assert np.array_equal(model.predict_proba(X4), before)


def test_torus_with_periods():
    """One turn more is the same point."""
    rng = np.random.default_rng(19)
    X, y = rng.uniform(0, 360, (50, 2)), rng.integers(0, 2, 50)
    model = RDKSClassifier(Torus(2, period=360.0), bandwidth=30.0).fit(X, y)
    np.testing.assert_allclose(model.predict_log_proba(X + [360, -720]), model.predict_log_proba(X), rtol=1e-9)
    clock = RDKSClassifier(Circle(24.0), bandwidth=1.0).fit([[23.0], [12.0]], ["night", "day"])
    assert clock.predict([[1.0]]) == "night"
