r"""Outliers: rows whose density is low as all other rows see it.

A kernel density is never low at a row it was fitted to: the row's own kernel :math:`w_ik_{h^2}(X_i,X_i)` is part of it,
and an isolated row vouches for itself. What says whether a row is unusual is its leave-one-out density

.. math:: \hat p_{-i}(X_i)=\sum_{j\ne i}\frac{w_j}{1-w_i}\,k_{h^2}(X_i,X_j),

in which that term is skipped, never subtracted, so that it keeps all its digits however far the row is from the others.
"""
from __future__ import annotations

import numpy as np
from scipy.special import logsumexp
from sklearn.base import OutlierMixin
from sklearn.utils.validation import check_is_fitted

from . import _validation as validation
from .bandwidth import other_shares
from .base import ManifoldEstimator
from .estimator import RDKSEstimator
from .gram import log_kernel_blocks
from .resolution import merge_copies

__all__ = ["RDKSOutlierDetector", "left_out_log_density"]

# Of "auto": distances of the quartiles below the lower one, and the least that this distance is taken for, in nats:
# where the density is the same all over, what differs is noise and rounding.
_FENCE, _LEAST = 3.0, 0.3
# Shares of weight are sums, which are rounded.
_ROUNDING = 1e-9


class RDKSOutlierDetector(OutlierMixin, ManifoldEstimator):
    r"""Outliers on a manifold: points at which the heat-kernel density of the training rows is low.

    Parameters
    ----------
    manifold : Manifold, geomstats space or str
        Where the data live, as for :class:`rdks.RDKSEstimator`.
    bandwidth, adaptive, min_bandwidth, engine, rtol
        Of the density, as for :class:`rdks.RDKSEstimator`.
    contamination : "auto" or float
        A number in (0, 0.5] is the share of the training rows (of their weight) that are outliers. "auto" makes no
        assumption on their number: an outlier is a row whose log density is below the lower quartile of all rows' by
        more than three times the distance between the quartiles.
    check_points : {"raise", "project", "ignore"}
        What to do with a row that is not on the manifold, as for :class:`rdks.RDKSEstimator`.
    n_jobs : int, optional
        Threads for the sums, as in scikit-learn.
    verbose : bool
        Show a progress bar while a rule chooses the bandwidth.

    Attributes
    ----------
    offset_ : float
        The threshold: outliers are points whose :meth:`score_samples` is below it.
    training_scores_ : ndarray, shape (n,)
        Leave-one-out log densities of the rows of `fit`; the ordinary one of a row of no weight.
    estimator_ : RDKSEstimator
        The density, of all rows.
    bandwidth_ : float
    manifold_ : Manifold
    manifold_reason_ : str
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        If X had column names.

    See Also
    --------
    sklearn.neighbors.LocalOutlierFactor : Compares the density at a point with that at its neighbours.
    rdks.inference.highest_density_region : The smallest region that holds a given probability.

    Notes
    -----
    *Training rows are scored without themselves*, and without rows that are copies of them, by `fit_predict` and by all
    other methods alike: a query that equals a row of `fit`, in all digits as written, is taken for that row. So
    ``fit(X).predict(X)`` is ``fit_predict(X)``; new points are scored by the density of all rows. Copies are left out
    together as a weight of 2 is the row twice, whatever the unit of the weights is; an erroneous record that was
    entered twice is not excused by that. Rows that are near but not equal do vouch for each other. With
    ``adaptive="knn"`` and ``bandwidth="mixture"`` all that comes from a row is left out; the shapes of the other rows'
    kernels and the weights of the smoothers stay as they were fitted.

    *A given contamination* c makes ``offset_`` the smallest of the leave-one-out log densities below which there is no
    more than a share c of the weight. A new row of the same law falls below it with a probability of about c (on
    average over data; the two densities differ by one row).

    *"auto"* is Tukey's outer fence (Exploratory Data Analysis, 1977, chapter 2) for log densities,
    :math:`Q_1-3(Q_3-Q_1)`. A quantile would flag its share of rows in clean data too, and no more than its share
    in data that are not; quartiles do not see outliers as long as these are less than a quarter of the rows. For
    normal data, whose log density is a constant less half a :math:`\chi^2_d`, the fence leaves out 2.6, 0.93, 0.51 and
    0.09 per cent of the law for d = 1, 2, 3 and 10. With 5 per cent of uniform outliers around normal, uniform and
    clustered data on the line, the plane, the sphere and in five dimensions (500 rows, measured) it found 51 to 99 per
    cent of them, and took 0 to 1.3 per cent of the others for outliers, where a quantile of 1 per cent finds a fifth.
    The distance between the quartiles is taken for 0.3 at least: rows at equal distances from each other have one
    density up to rounding, and none of them is an outlier.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.outliers import RDKSOutlierDetector
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((300, 3)) * 0.2 + [0, 0, 1]
    >>> X[:3] = [[1, 0, 0], [0, -1, 0], [0, 0, -1]]
    >>> X /= np.linalg.norm(X, axis=1, keepdims=True)
    >>> detector = RDKSOutlierDetector().fit(X)
    >>> detector.predict(X[:6])
    array([-1, -1, -1,  1,  1,  1])
    >>> detector.predict([[0.0, 0.0, 1.0], [0.0, 0.6, -0.8]])
    array([ 1, -1])
    """

    def __init__(self, manifold="auto", *, bandwidth="auto", contamination="auto", adaptive=None, min_bandwidth="auto",
                 engine="auto", rtol=1e-6, check_points="raise", n_jobs=None, verbose=False):
        self.manifold = manifold
        self.bandwidth = bandwidth
        self.contamination = contamination
        self.adaptive = adaptive
        self.min_bandwidth = min_bandwidth
        self.engine = engine
        self.rtol = rtol
        self.check_points = check_points
        self.n_jobs = n_jobs
        self.verbose = verbose

    def _density(self):
        """Return the estimator of the density, not fitted."""
        names = RDKSEstimator().get_params()
        return RDKSEstimator(**{name: value for name, value in self.get_params(deep=False).items() if name in names})

    def _check_parameters(self):
        self._density()._check_parameters()
        if not (isinstance(self.contamination, str) and self.contamination == "auto"):
            validation.check_number("contamination", self.contamination, low=np.nextafter(0, 1), high=0.5,
                                    expected="'auto' or a number in (0, 0.5]")

    def fit(self, X, y=None, sample_weight=None):
        """Fit the density and the threshold.

        Parameters
        ----------
        X : array-like, shape (n, p) or (n, *point_shape)
            Points of the manifold, one per row; at least two different ones.
        y : None
            Ignored.
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
            If a parameter, the shape of X or a weight is wrong, or there is a single distinct row. The detector is left
            as it was.
        """
        self._check_parameters()
        density = self._density().fit(X, sample_weight=sample_weight)
        X, Z, _ = density._query(X)
        weight = validation.as_weights(sample_weight, len(X))
        used = weight > 0
        scores = np.empty(len(X))
        scores[used] = left_out_log_density(density)
        if not used.all():
            scores[~used] = density._sum.evaluate(Z[~used], n_jobs=self.n_jobs).log_density
        share = weight[used] / weight.max()
        ordered, cumulated = _distribution(scores[used], share / share.sum())
        if self.contamination == "auto":
            low, high = (ordered[_first_above(cumulated, part)] for part in (0.25, 0.75))
            offset = low - _FENCE * max(high - low, _LEAST)
        else:
            offset = ordered[_first_above(cumulated, self.contamination)]
        keys, rows = np.unique(_keys(X[used]), return_index=True)
        state = {name: value for name, value in vars(density).items()
                 if name in ("manifold_", "manifold_reason_", "bandwidth_", "n_features_in_", "feature_names_in_")}
        self._accept({**state, "estimator_": density, "training_scores_": scores, "offset_": float(offset),
                      "_distribution": (ordered, cumulated), "_known": (keys, scores[used][rows])})
        return self

    def score_samples(self, X):
        """Evaluate the log density at points; at rows of `fit`, that of all other rows.

        Parameters
        ----------
        X : array-like, shape (n, p) or (n, *point_shape)

        Returns
        -------
        ndarray, shape (n,)
            Natural log of the density per unit of Riemannian volume; the lower, the more unusual.
        """
        X, Z, _ = self._query(X)
        keys, known = self._known
        mine = _keys(X)
        place = np.minimum(np.searchsorted(keys, mine), len(keys) - 1)
        scores = known[place]
        new = np.flatnonzero(keys[place] != mine)
        if new.size:
            scores[new] = self.estimator_._sum.evaluate(Z[new], n_jobs=self.n_jobs).log_density
        return scores

    def decision_function(self, X):
        """Return by how much the log density exceeds the threshold.

        Parameters
        ----------
        X : array-like, shape (n, p) or (n, *point_shape)

        Returns
        -------
        ndarray, shape (n,)
            ``score_samples(X) - offset_``: negative for outliers.
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X):
        """Tell outliers from inliers.

        Parameters
        ----------
        X : array-like, shape (n, p) or (n, *point_shape)

        Returns
        -------
        ndarray of int, shape (n,)
            -1 for outliers, 1 for all others.
        """
        return np.where(self.decision_function(X) < 0, -1, 1)

    def tail_probability(self, X):
        """Return the share of the training rows that are at most as usual as a point.

        Parameters
        ----------
        X : array-like, shape (n, p) or (n, *point_shape)

        Returns
        -------
        ndarray, shape (n,)
            Share of the weight of the training rows whose leave-one-out log density is not above the score of the
            point: an estimate of the probability that a new row of their law is as unusual as the point is or more.
            0 for a point that is more unusual than all of them.
        """
        check_is_fitted(self)
        ordered, cumulated = self._distribution
        count = np.searchsorted(ordered, self.score_samples(X), side="right")
        return np.append(0.0, cumulated)[count]


def _keys(X):
    """Return each row's bytes, as one sortable item; shape (n,)."""
    X = np.ascontiguousarray(X + 0.0)  # no negative zeros
    return X.view(f"S{X.itemsize * X.shape[1]}").ravel()


def _distribution(values, share):
    """Return values in ascending order and the cumulated shares."""
    order = np.argsort(values, kind="stable")
    cumulated = np.cumsum(share[order])
    return values[order], cumulated / cumulated[-1]


def _first_above(cumulated, part):
    """Return the first place at which cumulated shares exceed a part."""
    return int(np.searchsorted(cumulated, part + _ROUNDING, side="right"))


def left_out_log_density(est):
    r"""Evaluate at each row of a fit the log density of all other rows.

    Parameters
    ----------
    est : RDKSEstimator
        Fitted to at least two different rows, which it has kept.

    Returns
    -------
    ndarray, shape (n,)
        :math:`\log\hat p_{-i}(X_i)` in the order of the rows of positive weight; finite. Copies of a row, symmetric
        ones included, are left out with it, and near-copies where a rule has merged them.

    Raises
    ------
    ValueError
        If all rows are equal.

    Notes
    -----
    What is left is divided by its weight, :math:`1-w_i`. Of a mixture, the part that belongs to observations is
    divided, and the uniform law stays what it is; shapes of kernels and weights of smoothers are not fitted again.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks import RDKSEstimator
    >>> from rdks.outliers import left_out_log_density
    >>> est = RDKSEstimator(bandwidth=1.0).fit([[0.0], [3.0]])
    >>> bool(np.allclose(left_out_log_density(est), -0.5 * np.log(2 * np.pi) - 4.5))
    True
    """
    raw = est._raw
    distinct, which, _ = merge_copies(raw, est.resolution_)
    if len(distinct.Z) < 2:
        raise ValueError("expected at least two distinct rows of positive weight: the density at a row is that of all "
                         f"others, and there are none (n_samples={len(raw.Z)})")
    if est._owner is not None:
        logs = _without_own(est, distinct)
    else:
        total = distinct.at(est.bandwidth_**2) if est.adaptive is None else est._sum
        logs = total.leave_one_out() - np.log(other_shares(total.share))
    return logs[which]


def _without_own(est, distinct):
    """Return the log densities at distinct observations without all that comes from each, in a mixture."""
    total, owner = est._sum, est._owner[0]
    own = np.flatnonzero(owner >= 0)
    if not own.size:  # the uniform law alone
        return total.evaluate(distinct.Z).log_density
    out = np.empty(len(distinct.Z))
    if len(own) == len(owner) == len(out) and np.array_equal(total.Z, distinct.Z[owner]):  # one kernel of each
        out[owner] = total.leave_one_out() - np.log(other_shares(total.share))
        return out
    log_weight = np.log(total.share)
    mass = np.bincount(owner[own], weights=total.share[own], minlength=len(distinct.Z))
    log_rest = np.log(other_shares(mass / mass.sum()))
    for rows, logs in log_kernel_blocks(total.manifold, distinct.Z, total.Z, total.time):
        logs += log_weight
        left = np.where(np.arange(rows.start, rows.stop)[:, None] == owner[own], -np.inf, logs[:, own])
        out[rows] = np.logaddexp(logsumexp(left, axis=1) - log_rest[rows],
                                 logsumexp(logs[:, owner < 0], axis=1) if len(own) < len(owner) else -np.inf)
    return out
