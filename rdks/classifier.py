r"""Classification by Bayes' rule from one density per class.

With class-conditional densities :math:`p_c` and priors :math:`\pi_c`, a point belongs to class c with the probability

.. math:: P(c\mid x)=\frac{\pi_cp_c(x)}{\sum_b\pi_bp_b(x)},

computed from the logs of the densities, which are finite however far x is from all data.
"""
from __future__ import annotations

import copy
import warnings

import numpy as np
from scipy.special import logsumexp
from sklearn.base import ClassifierMixin
from sklearn.utils import assert_all_finite, check_consistent_length, column_or_1d
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from . import _validation as validation
from .bandwidth import Selection, descend, other_shares, progress, representatives
from .base import ManifoldEstimator
from .choice import sources
from .errors import PointError, UnsupportedError
from .estimator import RDKSEstimator
from .resolution import merge_copies

__all__ = ["RDKSClassifier", "select_by_log_loss"]

# Observations whose loss is looked at where there are more than twice as many; each is left out of all.
_ROWS = 2000
# Nats of all observations together by which losses do not differ.
_EQUAL = 0.05
# Times of a first search, about those that the densities ask for.
_SPAN = 16.0
# Of log time: one per cent of a bandwidth.
_XTOL = 0.02


def _can_stream(self):
    """Tell whether classes can grow: nothing is chosen from the data."""
    return not isinstance(self.bandwidth, str) and self.adaptive is None


class RDKSClassifier(ClassifierMixin, ManifoldEstimator):
    r"""Classifier on a manifold: one heat-kernel density per class, and Bayes' rule.

    Parameters
    ----------
    manifold : Manifold, geomstats space or str
        Where the data live, as for :class:`rdks.RDKSEstimator`; "auto" looks at the rows of all classes.
    bandwidth : float or str
        A number for all classes; a rule of :class:`rdks.RDKSEstimator`, "auto" (the default), "lcv", "lscv", "isj",
        "rot" or "mixture", by which each class chooses its own, for its density to be right; or "log_loss", one for all
        classes or in the proportion of these, with the smallest leave-one-out log loss of the classification.
    adaptive : {None, "knn", "abramson"}
        Within each class, as for :class:`rdks.RDKSEstimator`; not with "log_loss".
    min_bandwidth, engine, rtol
        As for :class:`rdks.RDKSEstimator`.
    priors : None, "uniform" or array-like, shape (k,)
        Probabilities of the classes in the order of ``classes_``, all positive, which sum to one. None is their shares
        of the weight.
    check_points : {"raise", "project", "ignore"}
        What to do with a row that is not on the manifold, as for :class:`rdks.RDKSEstimator`.
    n_jobs : int, optional
        Threads for the sums, as in scikit-learn.
    verbose : bool
        Show a progress bar while a rule chooses a bandwidth.

    Attributes
    ----------
    classes_ : ndarray, shape (k,)
        Labels of the rows of positive weight, in ascending order.
    class_prior_ : ndarray, shape (k,)
    class_weight_ : ndarray, shape (k,)
        Total weight of the rows of each class: their number, without weights.
    estimators_ : list of RDKSEstimator
        The density of each class; None for a class that `partial_fit` has announced and not seen.
    bandwidth_ : ndarray, shape (k,)
        Bandwidth of each class; NaN for one not seen.
    selection_ : Selection or None
        The curve of "log_loss"; those of other rules are ``estimators_[c].selection_``.
    manifold_ : Manifold
    manifold_reason_ : str
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        If X had column names.

    See Also
    --------
    sklearn.discriminant_analysis.QuadraticDiscriminantAnalysis : The same with normal densities, in flat space.
    sklearn.naive_bayes.GaussianNB : Likewise, with independent columns.

    Notes
    -----
    *Which bandwidth.* The rules choose a good density for each class. That is too little smoothing for the boundary
    between classes of similar shape, as errors that the densities have in common cancel (Ghosh and Chaudhuri,
    Statistica Sinica 14 (2004) 457; Hall and Kang, Annals of Statistics 33 (2005) 284), and more so in more dimensions.
    "log_loss" asks what is good for the posterior probabilities; see :func:`select_by_log_loss`. Log loss on new data
    with "auto" and "log_loss" (measured, means of eight samples): ten digits in eight principal components, 0.55 and
    0.38 with 100 rows, 0.26 and 0.20 with 400; two normal laws in five dimensions, 0.56 and 0.54, 0.52 and 0.51; moons,
    a torus, a sphere, two normal laws of very different width, the same to 0.015; wine data in 13 dimensions, whose
    classes hardly overlap, 0.06 and 0.08, with as many errors. It takes two to three times as long to fit.

    *A class with a single distinct row* has nothing to choose a bandwidth from. It takes the one that the
    others would have if they had as few rows: the geometric mean, by weight, of :math:`h_cn_c^{1/(d+4)}`, with
    their effective sizes :math:`n_c=1/\sum w_i^2`, as good bandwidths shrink like that power. A UserWarning says so. If
    no class has two distinct rows, fit raises ValueError: pass a number.

    *Weights.* Weight 2 is the row twice, and weight 0 no row: a class without weight is none of the ``classes_``.

    *Far away* posteriors are as good as certain: the nearest class wins. `predict_joint_log_proba` tells how far that
    is: its logsumexp is the log density of all classes together.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.classifier import RDKSClassifier
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((200, 3)) + np.repeat([[0, 0, 2], [2, 0, 0]], 100, axis=0)
    >>> X /= np.linalg.norm(X, axis=1, keepdims=True)
    >>> y = np.repeat(["north", "east"], 100)
    >>> model = RDKSClassifier().fit(X, y)
    >>> model.predict([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    array(['north', 'east'], dtype='<U5')
    >>> bool((model.predict_proba([[0.0, -1.0, 0.0]]) > 0.05).all())
    True
    """

    def __init__(self, manifold="auto", *, bandwidth="auto", adaptive=None, min_bandwidth="auto", engine="auto",
                 rtol=1e-6, priors=None, check_points="raise", n_jobs=None, verbose=False):
        self.manifold = manifold
        self.bandwidth = bandwidth
        self.adaptive = adaptive
        self.min_bandwidth = min_bandwidth
        self.engine = engine
        self.rtol = rtol
        self.priors = priors
        self.check_points = check_points
        self.n_jobs = n_jobs
        self.verbose = verbose

    # reading

    def _density(self, **changes):
        """Return the estimator of a class, not fitted."""
        names = RDKSEstimator().get_params()
        given = {name: value for name, value in self.get_params(deep=False).items() if name in names}
        return RDKSEstimator(**{**given, **changes})

    def _check_parameters(self):
        if isinstance(self.bandwidth, str) and self.bandwidth == "log_loss":
            if self.adaptive is not None:
                raise ValueError(f"adaptive={self.adaptive!r} and bandwidth='log_loss' exclude each other: that is one "
                                 "bandwidth for all rows. Use adaptive=None")
            self._density(bandwidth="auto")._check_parameters()
        else:
            try:
                self._density()._check_parameters()
            except ValueError as error:
                if isinstance(self.bandwidth, str) and "not a known rule" in str(error):
                    raise ValueError(f"{error}, or 'log_loss'") from None
                raise
        if isinstance(self.priors, str) and self.priors != "uniform":
            raise ValueError(f"priors = {self.priors!r}: expected None, 'uniform' or an array of probabilities")

    def _labels(self, y):
        """Return labels as an array (n,)."""
        if y is None:
            raise ValueError(f"This {type(self).__name__} estimator requires y to be passed, but the target y is None.")
        y = column_or_1d(y, warn=True)
        assert_all_finite(y, input_name="y")
        check_classification_targets(y)
        return y

    def _priors(self, classes, weight):
        """Return the probabilities of the classes."""
        if self.priors is None:
            share = weight / weight.max()
            return share / share.sum()
        k = len(classes)
        if isinstance(self.priors, str):
            return np.full(k, 1 / k)
        priors = np.asarray(self.priors)
        if priors.dtype.kind not in "iuf" or priors.shape != (k,):
            raise ValueError(f"priors = {self.priors!r}: expected {k} numbers, one for each of the classes "
                             f"{classes.tolist()}")
        priors = priors.astype(float)
        wrong = np.flatnonzero(~(priors > 0))
        if wrong.size:
            raise ValueError(f"priors[{wrong[0]}] = {priors[wrong[0]]:g} of class {classes.tolist()[wrong[0]]!r}: "
                             "expected a positive probability; leave the rows of a class out to exclude it")
        if not abs(priors.sum() - 1) <= 1e-6:
            raise ValueError(f"priors sum to {priors.sum():.9g}: expected 1; divide them by their sum")
        return priors

    # fitting

    def fit(self, X, y, sample_weight=None):
        """Fit a density to each class.

        Parameters
        ----------
        X : array-like, shape (n, p) or (n, *point_shape)
            Points of the manifold, one per row.
        y : array-like, shape (n,)
            Labels: numbers, strings or booleans.
        sample_weight : array-like, shape (n,), optional
            Weights >= 0; weight 2 is the row twice, weight 0 is no row.

        Returns
        -------
        self

        Raises
        ------
        PointError
            If a row is not on the manifold.
        ValueError
            If a parameter, the shape of X, a label or a weight is wrong, or a rule finds no class with two distinct
            rows. Where it is about one class the message names it. The classifier is left as it was.

        Warns
        -----
        UserWarning
            If a class takes its bandwidth from the others, and whatever the estimator of a class has to say, with the
            name of the class.
        """
        self._check_parameters()
        y = self._labels(y)
        read = self._observe(X, sample_weight)
        check_consistent_length(read.X, y)
        used = read.weight > 0
        classes, code = np.unique(y[used], return_inverse=True)
        rows, weight = np.flatnonzero(used), read.weight[used]
        totals = np.bincount(code, weights=weight)
        priors = self._priors(classes, totals)
        members = [rows[code == c] for c in range(len(classes))]
        if self.bandwidth == "log_loss":
            estimators, selection = self._fit_by_log_loss(read, classes, members, priors)
        else:
            estimators, selection = self._fit_classes(read, classes, members, self.bandwidth), None
        self._accept({**read.attributes, "classes_": classes, "class_prior_": priors, "class_weight_": totals,
                      "estimators_": estimators, "selection_": selection,
                      "bandwidth_": np.array([est.bandwidth_ for est in estimators])})
        return self

    def _fit_classes(self, read, classes, members, bandwidth):
        """Fit the estimator of each class to its rows."""
        layout, manifold = read.attributes["_layout"], read.manifold
        single = np.zeros(len(classes), dtype=bool)
        if isinstance(bandwidth, str) or self.adaptive is not None:
            single[:] = [not (read.Z[rows] != read.Z[rows[0]]).any() for rows in members]

        def fit(c, density):
            rows = members[c]
            return _named(classes[c], density.fit, read.X[rows].reshape(len(rows), *layout),
                          sample_weight=read.weight[rows])

        found = {c: fit(c, self._density(manifold=manifold, bandwidth=bandwidth)) for c in np.flatnonzero(~single)}
        if single.any():
            lonely = classes[single].tolist()
            if isinstance(bandwidth, str):
                bandwidth = self._as_wide(found, manifold.dim, lonely)
            for c in np.flatnonzero(single):
                found[c] = fit(c, self._density(manifold=manifold, bandwidth=bandwidth, adaptive=None))
        return [found[c] for c in range(len(classes))]

    def _as_wide(self, found, dim, lonely):
        """Return the bandwidth that classes of one row take from the estimators of all others."""
        if not found:
            raise ValueError(f"bandwidth={self.bandwidth!r} needs a class with at least two distinct rows to choose "
                             f"from; the classes {lonely} have one each (n_samples={len(lonely)} distinct rows in "
                             f"{len(lonely)} class{'es' * (len(lonely) > 1)}). Pass a number as bandwidth")
        mean = scale = 0.0
        largest = max(est._raw.weight.max() for est in found.values())
        for est in found.values():
            distinct, _, _ = merge_copies(est._raw, est.resolution_)
            weight = float((distinct.weight / largest).sum())
            mean += weight * (np.log(est.bandwidth_) - np.log(distinct.squares) / (dim + 4))
            scale += weight
        h = float(np.exp(mean / scale))
        warnings.warn(f"the classes {lonely} have one distinct row each, from which bandwidth={self.bandwidth!r} "
                      f"cannot choose: they take {h:.4g}, as the other classes would if they had as few rows. Pass a "
                      "number as bandwidth to set it for all", UserWarning, stacklevel=4)
        return h

    def _fit_by_log_loss(self, read, classes, members, priors):
        """Fit the estimators with the bandwidths that the posterior probabilities ask for."""
        if len(classes) < 2:
            raise ValueError("bandwidth='log_loss' compares classes, and found 1 class: expected at least two. Use "
                             "'auto' or a number")
        pilots = self._fit_classes(read, classes, members, "lcv")
        parts = [merge_copies(est._raw, est.resolution_)[0] for est in pilots]
        parts = [sources(read.manifold, data.Z, data.weight, 0.0, self.n_jobs, rtol=self.rtol) for data in parts]
        floor = self.min_bandwidth
        if floor == "auto":
            floor = max((est.resolution_.floor for est in pilots if est.resolution_ is not None), default=0.0)
        h, selection = select_by_log_loss(parts, [est.bandwidth_ for est in pilots],
                                          None if self.priors is None else priors, min_bandwidth=float(floor),
                                          verbose=self.verbose)
        return [self._fit_classes(read, classes[c:c + 1], members[c:c + 1], float(h[c]))[0]
                for c in range(len(classes))], selection

    @available_if(_can_stream)
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Add rows to the fit; there is this method where `bandwidth` is a number and `adaptive` is None.

        Parameters
        ----------
        X, y, sample_weight
            As in :meth:`fit`.
        classes : array-like, shape (k,), optional
            All labels that will ever occur; needed in the first call, if no `fit` came before. One that has no
            rows yet has the probability 0, unless no class has.

        Returns
        -------
        self

        Raises
        ------
        PointError
            If a row is not on the manifold.
        ValueError
            If `classes` is missing in the first call or differs later, if a label is none of them, and as in
            :meth:`fit`. The classifier is left as it was.
        """
        self._check_parameters()
        y = self._labels(y)
        first = not hasattr(self, "classes_")
        known = self._announced(classes, first)
        if first:
            read = self._observe(X, sample_weight)
            X, weight, state = read.X, read.weight, dict(read.attributes)
            manifold, layout = read.manifold, read.attributes["_layout"]
            estimators, totals = [None] * len(known), np.zeros(len(known))
        else:
            X, _, _ = self._query(X)
            weight, state = validation.as_weights(sample_weight, len(X)), {}
            manifold, layout = self.manifold_, self._layout
            estimators, totals = list(self.estimators_), self.class_weight_
        check_consistent_length(X, y)
        strange = np.flatnonzero(~np.isin(y, known))
        if strange.size:
            raise ValueError(f"y[{strange[0]}] = {y.tolist()[strange[0]]!r} is none of the classes {known.tolist()}; "
                             "name all that will occur in the first call")
        code = np.searchsorted(known, y)
        for c in np.unique(code[weight > 0]):
            rows = np.flatnonzero((code == c) & (weight > 0))
            # `partial_fit` replaces what the estimator holds, and a failure in a later class must leave no trace
            density = self._density(manifold=manifold)
            if estimators[c] is not None:
                density = copy.copy(estimators[c]).set_params(**density.get_params(deep=False))
            estimators[c] = _named(known[c], density.partial_fit, X[rows].reshape(len(rows), *layout),
                                   sample_weight=weight[rows])
        totals = totals + np.bincount(code, weights=weight, minlength=len(known))
        self._accept({**state, "classes_": known, "class_prior_": self._priors(known, totals), "class_weight_": totals,
                      "estimators_": estimators, "selection_": None,
                      "bandwidth_": np.array([np.nan if est is None else est.bandwidth_ for est in estimators])})
        return self

    def _announced(self, classes, first):
        """Return the labels of a stream, in ascending order."""
        if classes is None:
            if first:
                raise ValueError("classes must be passed on the first call to partial_fit: all labels that will occur")
            return self.classes_
        known = np.unique(self._labels(classes))
        if not first and not np.array_equal(known, self.classes_):
            raise ValueError(f"classes = {known.tolist()} differ from those of the calls before, "
                             f"{self.classes_.tolist()}")
        return known

    # using

    def predict_joint_log_proba(self, X):
        r"""Evaluate the log joint density of point and class.

        Parameters
        ----------
        X : array-like, shape (n, p) or (n, *point_shape)

        Returns
        -------
        ndarray, shape (n, k)
            :math:`\log\pi_c+\log p_c(x)`, per unit of Riemannian volume.
        """
        _, Z, _ = self._query(X)
        out = np.full((len(Z), len(self.classes_)), -np.inf)
        for c, est in enumerate(self.estimators_):
            if est is not None:
                out[:, c] = est._sum.evaluate(Z, n_jobs=self.n_jobs).log_density + np.log(self.class_prior_[c])
        return out

    def predict_log_proba(self, X):
        """Evaluate the log probabilities of the classes.

        Parameters
        ----------
        X : array-like, shape (n, p) or (n, *point_shape)

        Returns
        -------
        ndarray, shape (n, k)
            In the order of ``classes_``; finite, also where all densities underflow.
        """
        joint = self.predict_joint_log_proba(X)
        return joint - logsumexp(joint, axis=1, keepdims=True)

    def predict_proba(self, X):
        """Evaluate the probabilities of the classes.

        Parameters
        ----------
        X : array-like, shape (n, p) or (n, *point_shape)

        Returns
        -------
        ndarray, shape (n, k)
            In the order of ``classes_``; rows sum to one.
        """
        return np.exp(self.predict_log_proba(X))

    def decision_function(self, X):
        """Evaluate what decides between the classes.

        Parameters
        ----------
        X : array-like, shape (n, p) or (n, *point_shape)

        Returns
        -------
        ndarray, shape (n,) or (n, k)
            Of two classes, the log odds of the second, ``classes_[1]``; else the log joint densities, the largest of
            which decides.
        """
        joint = self.predict_joint_log_proba(X)
        return joint[:, 1] - joint[:, 0] if len(self.classes_) == 2 else joint

    def predict(self, X):
        """Return the most probable class of each point.

        Parameters
        ----------
        X : array-like, shape (n, p) or (n, *point_shape)

        Returns
        -------
        ndarray, shape (n,)
            Labels; of two that are equally probable, the first.
        """
        best = self.predict_joint_log_proba(X).argmax(axis=1)
        return self.classes_[best]

    def sample(self, n_samples=1, random_state=None):
        """Draw points and their classes: a class by prior, and a point from its density.

        Parameters
        ----------
        n_samples : int
        random_state : None, int, RandomState or Generator

        Returns
        -------
        X : ndarray, shape (n_samples, p) or (n_samples, *point_shape)
            In the layout that X had in `fit`.
        y : ndarray, shape (n_samples,)
        """
        check_is_fitted(self)
        n_samples, rng = validation.as_count(n_samples), validation.as_generator(random_state)
        seen = np.array([est is not None for est in self.estimators_])
        chance = np.where(seen, self.class_prior_, 0.0)
        code = rng.choice(len(chance), size=n_samples, p=chance / chance.sum())
        Z = np.empty((n_samples, self.manifold_.embed_dim))
        for c in np.unique(code):
            mine = np.flatnonzero(code == c)
            Z[mine] = self.estimators_[c]._draw(len(mine), 0.0, rng)
        return self.manifold_.unembed(Z).reshape(n_samples, *self._layout), self.classes_[code]


def _named(label, fit, X, **options):
    """Fit the estimator of a class; its errors and warnings get the name of the class."""
    label = getattr(label, "tolist", lambda: label)()  # "a", not np.str_("a")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = fit(X, **options)
        except (PointError, UnsupportedError, ValueError) as error:
            raise type(error)(f"class {label!r}: {error}") from error
    for warning in caught:
        warnings.warn(f"class {label!r}: {warning.message}", warning.category, stacklevel=5)
    return result


# bandwidths for classification

def select_by_log_loss(classes, bandwidths, priors=None, *, min_bandwidth=0.0, verbose=False):
    r"""Choose the bandwidths of classes by the leave-one-out log loss of the posterior probabilities.

    Parameters
    ----------
    classes : list of Sources
        The distinct observations of each class at time 0; one class at least has two.
    bandwidths : array-like, shape (k,)
        Of the classes, as is good for their densities.
    priors : ndarray, shape (k,), optional
        Given probabilities of the classes; by default their shares of the weight, which change with what is left out.
    min_bandwidth : float
        None is chosen below this.
    verbose : bool
        Show a progress bar, one step per evaluated scale.

    Returns
    -------
    bandwidths : ndarray, shape (k,)
    selection : Selection
        Its bandwidths are geometric means by weight, its criterion is minus the loss: the mean log probability of the
        own class.

    Notes
    -----
    Two families are searched: one bandwidth for all classes, and all in the proportion of the given ones, which serves
    classes of different width. The loss at times :math:`t_c` is, with :math:`W_c` the weight of class c and the own
    term skipped,

    .. math:: L=-\sum_iw_i\log\frac{\pi_{y_i}\,r_i/(W_{y_i}-w_i)}
              {\pi_{y_i}\,r_i/(W_{y_i}-w_i)+\sum_{c\ne y_i}\pi_c\,p_c(X_i)},\qquad
              r_i=\sum_{j\ne i,\,y_j=y_i}w_jk_{t_{y_i}}(X_i,X_j).

    The second family has k - 1 numbers more, chosen from the same rows, and must be better than the first by as many
    nats for all observations together, as Akaike's criterion has it.

    Without given priors :math:`\pi_c` is that of the other rows, so that weights take the place of shares. The only
    observation of a class has no posterior probability without itself, and is not counted. With more than 4000
    observations the loss is that of 2000 of them, spread in space by weight, each left out of all.

    Of scales whose losses differ by less than 0.05 nats for all observations together, the largest is chosen.
    Classes that do not overlap have no best one: the loss vanishes as the bandwidths do, when all is as certain as the
    nearest row. The largest that predicts all rows is the least certain of these.

    References
    ----------
    Hall and Kang, Annals of Statistics 33 (2005) 284: bandwidths for classification by cross-validation. The log loss
    in place of the error rate, which is a step function of the bandwidth, and the two families are our choice.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.choice import sources
    >>> from rdks.classifier import select_by_log_loss
    >>> from rdks.manifolds import Circle
    >>> rng = np.random.default_rng(0)
    >>> parts = [sources(Circle(), rng.normal(m, 0.5, (50, 1)), np.ones(50), 0.0) for m in (0, 1)]
    >>> h, selection = select_by_log_loss(parts, [0.3, 0.2])
    >>> bool(h[0] == h[1] == selection.bandwidth), bool(0.2 < h[0] < 1.5)
    (True, True)
    """
    largest = max(data.weight.max() for data in classes)
    weights = np.array([(data.weight / largest).sum() for data in classes])
    log_scale = np.log(weights / weights.sum() if priors is None else priors)
    queries = _queries(classes, weights)
    outer = np.concatenate([part for _, part in queries])
    outer = outer / outer.sum()
    floor = max(min_bandwidth**2, classes[0].manifold.shortest_time)
    own = np.asarray(bandwidths, dtype=float) ** 2
    middle = float(np.exp(weights @ np.log(own) / weights.sum()))

    def loss(times):
        total = []
        for c, (rows, part) in enumerate(queries):
            if not rows.size:
                continue
            Z = classes[c].Z[rows]
            joint = np.column_stack([
                scale + (data.leave_one_out(t, rows) if b == c else data.evaluate(Z, t).log_density)
                for b, (scale, data, t) in enumerate(zip(log_scale, classes, times, strict=True))])
            if priors is not None:
                joint[:, c] -= np.log(other_shares(classes[c].share))[rows]
            total.append(part @ (logsumexp(joint, axis=1) - joint[:, c]))
        return float(sum(total)) / sum(part.sum() for _, part in queries)

    def search(shape, step):
        """Return the least loss, the times of the classes, and what `Selection` says, for times in a proportion."""
        def along(t):
            step(t)
            return loss(np.maximum(shape * t, floor))

        least = float((floor / shape).max())  # below, all are as short as they may be
        low, high = middle / _SPAN, middle * _SPAN
        if least > low:
            low, high = least, max(high, 64 * least)
        _, x, values, ends = descend(along, low, high, least)
        x, values, best = _largest(along, x, values, _EQUAL * float(outer @ outer))
        return values.min(), np.maximum(shape * np.exp(best), floor), (best, x, values, best >= ends[1] - 1e-9)

    with progress(verbose, "log_loss") as step:
        alike, apart = search(np.ones(len(own)), step), search(own / middle, step)
    worth = (len(classes) - 1) * float(outer @ outer)  # what as many more parameters gain on rows that chose them
    _, times, (best, x, values, at_end) = apart if apart[0] < alike[0] - worth else alike
    n = sum(len(data.Z) for data in classes)
    why = (f"leave-one-out log loss of {n} distinct points in {len(classes)} classes, the bandwidths "
           + ("equal" if times is alike[1] else "in the proportion of the best for the densities"))
    if at_end:
        why += "; the classes do not differ by this criterion"
    none = np.empty(0)
    return np.sqrt(times), Selection("log_loss", float(np.exp(0.5 * best)), np.exp(x), -values, none, none, why)


def _queries(classes, weights):
    """Return, for each class, the observations that are left out in turn, and the weights of their losses."""
    n = sum(len(data.Z) for data in classes)
    out = []
    for data, weight in zip(classes, weights, strict=True):
        if len(data.Z) < 2:
            out.append((np.empty(0, dtype=np.intp), np.empty(0)))
        elif n <= 2 * _ROWS:
            out.append((np.arange(len(data.Z)), data.share * weight))
        else:
            count = max(1, round(_ROWS * weight / weights.sum()))
            rows, times = np.unique(representatives(data, count), return_counts=True)
            out.append((rows, times / count * weight))
    return out


def _largest(loss, x, values, slack):
    """Return all log times and losses, and the largest log time whose loss is within `slack` of the least."""
    seen = dict(zip(x.tolist(), values.tolist(), strict=True))
    enough = min(seen.values()) + slack
    below = max(u for u in seen if seen[u] <= enough)
    above = min((u for u in seen if u > below), default=None)
    while above is not None and above - below > _XTOL:
        middle = 0.5 * (below + above)
        seen[middle] = loss(float(np.exp(middle)))
        below, above = (middle, above) if seen[middle] <= enough else (below, middle)
    x = np.array(sorted(seen))
    return x, np.array([seen[u] for u in x]), below
