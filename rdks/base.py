"""What all estimators share: reading data as points of a manifold."""
from __future__ import annotations

import numbers
from typing import NamedTuple

import numpy as np
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from . import _validation as validation
from .manifolds import Euclidean, Manifold, OrnsteinUhlenbeck
from .sampling import probability_flow, reverse_sde

__all__ = ["ManifoldDensity", "ManifoldEstimator", "NoiseLevelModel", "Reading"]


class Reading(NamedTuple):
    """Data as `fit` reads them.

    Attributes
    ----------
    X : ndarray, shape (n, p)
        As written, a row flat.
    weight : ndarray, shape (n,)
    manifold : Manifold
    Z : ndarray, shape (n, embed_dim)
        The points embedded.
    attributes : dict
        Fitted attributes that follow from these: ``manifold_``, ``manifold_reason_``, ``n_features_in_``,
        ``_layout`` (the shape of a row as the user wrote it), and ``feature_names_in_`` if columns have names.
    """

    X: np.ndarray
    weight: np.ndarray
    manifold: Manifold
    Z: np.ndarray
    attributes: dict


class ManifoldEstimator(BaseEstimator):
    """Estimator whose X are points of a manifold.

    A subclass has the parameters ``manifold`` and ``check_points``, perhaps ``n_jobs``, and defines
    ``_check_parameters``, which begins with :meth:`_check_common`. Its `fit` calls :meth:`_observe` first and
    :meth:`_accept` last, so that an error leaves the estimator as it was.
    """

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        tags.input_tags.three_d_array = True
        return tags

    def _check_common(self):
        """Raise ValueError for parameters of all estimators that cannot be right."""
        if self.check_points not in validation.CHECK_POINTS:
            raise ValueError(f"check_points = {self.check_points!r}: expected one of {validation.CHECK_POINTS}")
        n_jobs = getattr(self, "n_jobs", None)
        if n_jobs is not None and (not isinstance(n_jobs, numbers.Integral) or n_jobs == 0):
            raise ValueError(f"n_jobs = {n_jobs!r}: expected None or an integer that is not 0")

    def _check_parameters(self):
        self._check_common()

    def _read(self, X, reset=True):
        """Return X as finite floats (n, p), the shape of its rows, and what scikit-learn notes of it.

        The last is a dict of ``n_features_in_`` and, if columns have names, ``feature_names_in_``. With `reset` false
        X must agree with those of the fit.
        """
        probe = object.__new__(type(self))  # so that a failure leaves this estimator as it was
        probe.__dict__.update(self.__dict__)
        X = validation.as_numbers(X, self.manifold if reset else self.manifold_)
        layout = None
        shape = getattr(X, "shape", None)
        if shape is None and isinstance(X, (list, tuple)):
            X = np.asarray(X)
            shape = X.shape
        if shape is not None and len(shape) > 2 and isinstance(X, np.ndarray):
            layout = shape[1:]
            X = X.reshape(shape[0], -1) if shape[0] else X.reshape(0, int(np.prod(layout)))
        X = validate_data(probe, X, reset=reset, dtype=np.float64, order="C")
        noted = {name: probe.__dict__[name] for name in ("n_features_in_", "feature_names_in_")
                 if name in probe.__dict__}
        return X, layout or (X.shape[1],), noted

    def _resolve(self, X, layout, weight):
        """Return the manifold of data as read, and why."""
        if isinstance(self.manifold, str) and self.manifold == "auto":
            return validation.automatic_manifold(X, layout)
        return validation.as_manifold(self.manifold, X.shape[1]), "given"

    def _observe(self, X, sample_weight=None):
        """Read the data of a fit; nothing is assigned here."""
        X, layout, noted = self._read(X)
        weight = validation.as_weights(sample_weight, len(X))
        manifold, reason = self._resolve(X, layout, weight)
        Z = validation.as_points(manifold, X, self.check_points)
        return Reading(X, weight, manifold, Z,
                       {"manifold_": manifold, "manifold_reason_": reason, "_layout": layout, **noted})

    def _accept(self, state):
        """Take over the fitted attributes of a whole fit, or new ones of a fit that goes on."""
        if "n_features_in_" in state:
            self.__dict__.pop("feature_names_in_", None)
        self.__dict__.update(state)

    def _query(self, X):
        """Return queries as written, (n, p), embedded, and the shape of their rows."""
        check_is_fitted(self)
        self._check_parameters()
        X, layout, _ = self._read(X, reset=False)
        return X, validation.as_points(self.manifold_, X, self.check_points), layout


class ManifoldDensity(DensityMixin, ManifoldEstimator):
    """Density on a manifold: a :class:`ManifoldEstimator` with `score_samples`."""

    def score(self, X, y=None, sample_weight=None):
        """Return the total log-likelihood of data, as :class:`sklearn.neighbors.KernelDensity` does.

        Parameters
        ----------
        X : array-like, shape (n, p) or (n, *point_shape)
        y : None
            Ignored.
        sample_weight : array-like, shape (n,), optional

        Returns
        -------
        float
            Sum, not mean, of the (weighted) log densities.
        """
        logs = self.score_samples(X)
        return float(validation.as_weights(sample_weight, len(logs)) @ logs)


class NoiseLevelModel(ManifoldDensity):
    """Model of the score of noisy data, whose time is the noise level: t >= ``min_time_``.

    Its own density and draws are those at ``min_time_``. A subclass has the parameter ``verbose`` and defines
    ``_evaluate(Z, t, order)``, which samplers call: an :class:`rdks.engines.Evaluation` at embedded points.
    """

    def _resolve(self, X, layout, weight):
        """Return the manifold of data as read, and why."""
        manifold, reason = super()._resolve(X, layout, weight)
        if not isinstance(self.manifold, str) or self.manifold != "auto" or not isinstance(manifold, Euclidean):
            return manifold, reason
        rows, w = X[weight > 0], weight[weight > 0]
        mean = w @ rows / w.sum()
        scale = np.sqrt(w @ (rows - mean) ** 2 / w.sum())
        scale[~(scale > 1e-12 * np.abs(rows).max(axis=0))] = 1.0
        return (OrnsteinUhlenbeck(X.shape[1], location=tuple(mean.tolist()), scale=tuple(scale.tolist())),
                f"an Ornstein-Uhlenbeck process about the mean on {reason}")

    def _time(self, t):
        """Return a noise level as a float, `min_time_` for None."""
        check_is_fitted(self)
        if t is None:
            return self.min_time_
        t = validation.as_time(t)
        if t < self.min_time_ * (1 - 1e-12):  # a solver in log t comes back with rounding
            raise ValueError(f"t = {t:g} is below min_time_ = {self.min_time_:g}, the smallest noise level of the data "
                             "that the model knows; pass a smaller min_time to fit it for less")
        return max(t, self.min_time_)

    def _score(self, Z, t, order):
        """Return the score, and with order 2 its divergence, as :meth:`score_field` is to give them."""
        return self._evaluate(Z, t, order)

    def score_field(self, X, t=None):
        r"""Evaluate the score :math:`\nabla\log p_t` at points.

        Parameters
        ----------
        X : array-like, shape (n, p) or (n, *point_shape)
        t : float, optional
            Noise level of the data, at least ``min_time_``, which is the default.

        Returns
        -------
        ndarray, shape of X
            Riemannian gradients, as :meth:`rdks.RDKSEstimator.score_field` writes them.
        """
        X, Z, layout = self._query(X)
        gradient = self._score(Z, t, 1).gradient
        V = self.manifold_.push_gradient(X.reshape(len(X), *self.manifold_.point_shape), gradient)
        return V.reshape(len(X), *layout)

    def score_divergence(self, X, t=None):
        r"""Evaluate the divergence of the score at points.

        Parameters
        ----------
        X : array-like, shape (n, p) or (n, *point_shape)
        t : float, optional
            Noise level of the data, at least ``min_time_``, which is the default.

        Returns
        -------
        ndarray, shape (n,)
        """
        _, Z, _ = self._query(X)
        return self._score(Z, t, 2).laplacian

    def sample(self, n_samples=1, random_state=None, *, method="reverse_sde", n_steps=None):
        """Draw from the model's law at ``min_time_``.

        Parameters
        ----------
        n_samples : int
        random_state : None, int, RandomState or Generator
        method : {"reverse_sde", "probability_flow"}
            See :func:`rdks.sampling.reverse_sde` and :func:`rdks.sampling.probability_flow`.
        n_steps : int, optional
            Of the reverse diffusion. The probability flow chooses its own.

        Returns
        -------
        ndarray, shape (n_samples, p) or (n_samples, *point_shape)
            Points in the layout that X had in `fit`.
        """
        check_is_fitted(self)
        if method == "reverse_sde":
            X = reverse_sde(self, n_samples, n_steps=n_steps, random_state=random_state, verbose=self.verbose)
        elif method == "probability_flow":
            if n_steps is not None:
                raise ValueError(f"n_steps = {n_steps!r}: method='probability_flow' chooses its steps; leave it out")
            X = probability_flow(self, n_samples, random_state=random_state, verbose=self.verbose)
        else:
            raise ValueError(f"method = {method!r}: expected 'reverse_sde' or 'probability_flow'")
        return X.reshape(n_samples, *self._layout)
