"""The estimator: a density on a manifold, in scikit-learn's terms."""
from __future__ import annotations

import warnings

import numpy as np
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from . import _validation as validation
from .bandwidth import RULES, select
from .base import ManifoldDensity
from .choice import ENGINES, describe, sources
from .errors import AccuracyWarning, DuplicatesWarning, UnsupportedError
from .mixture import abramson_times, fit_knn, fit_mixture
from .resolution import merge_copies, resolution
from .sampling import heat_sample, probability_flow, reverse_sde

__all__ = ["RDKSEstimator"]

# Different bandwidths of rows that are used as they are: each costs a table and a block of every sum.
_DIFFERENT = 500
#: What `adaptive` may be.
ADAPTIVE = (None, "knn", "abramson")


class RDKSEstimator(ManifoldDensity):
    r"""Density on a manifold by Riemannian diffusion kernel smoothing.

    Each observation is spread by the manifold's own heat flow for a time :math:`h^2`:

    .. math:: \hat p(x)=\sum_i w_i\,k_{h^2}(x,X_i).

    The estimate is positive, has mass one with respect to the Riemannian volume, and is the
    start of a diffusion model whose density and score at every later time are known in closed
    form.

    Parameters
    ----------
    manifold : Manifold, geomstats space or str
        Where the data live: an object of :mod:`rdks.manifolds`, a geomstats space, a name
        ("sphere", "torus", "so3", ...; see :func:`rdks.manifolds.from_name`), or "auto": rotations or SPD
        matrices if X is (n, k, k) and all are, the sphere if every row has unit norm (and none is one-hot),
        otherwise Euclidean space. ``manifold_reason_`` says why.
    bandwidth : float or str
        Standard deviation h per coordinate of the kernel, in the length unit of the manifold; or a
        rule: "lcv" leave-one-out likelihood, "lscv" least-squares cross-validation, "isj"
        Improved Sheather-Jones, "rot" rule of thumb; "auto" is "lcv". "mixture" is a convex combination of
        many smoothers, fixed, adaptive and local ones; see :mod:`rdks.mixture`.
    adaptive : {None, "knn", "abramson"}
        One time for all observations; or times by the distances to the nearest neighbours, whose number, and
        with a rule as bandwidth the scale, are those of the highest leave-one-out likelihood; or times by the inverse
        of a pilot density of the given or chosen bandwidth. A given bandwidth is then about the geometric mean of all.
    min_bandwidth : float or "auto"
        A rule chooses no bandwidth below this. "auto" is half the step to which the data are rounded, and nothing for
        data with all their digits; near-copies are then merged as copies are. With "mixture" and "knn", a number
        says that structure is real down to this scale: copies of a row count as evidence for it.
    engine : {"auto", "direct", "neighbors", "spectral"}
        How sums over observations are computed: "direct" adds all of them, "neighbors" those near the query,
        "spectral" expands in eigenfunctions (compact spaces), which is the fastest for many observations and the one
        that streams: its coefficients are all that `partial_fit` and `merge` need to keep. "auto" is whichever is
        expected to be done first, call by call; ``engine_`` and ``engine_reason_`` say what that is for as many
        queries as observations.
        A bandwidth rule searches by "auto" in any case.
    rtol : float
        Relative accuracy of the density at every query, which all engines reach; "direct" has 1e-12 anyway.
    check_points : {"raise", "project", "ignore"}
        What to do with a row that is not on the manifold to within 1e-6: raise PointError, use
        the nearest point, or do not look (rows are rounded to the nearest point in any case).
    n_jobs : int, optional
        Threads for the sums, as in scikit-learn.
    verbose : bool
        Show a progress bar while a rule chooses the bandwidth.

    Attributes
    ----------
    manifold_ : Manifold
    manifold_reason_ : str
    bandwidth_ : float
        Where observations have several, the root of the geometric mean of their times, the uniform part left out.
    selection_ : Selection or None
        The curve that chose the bandwidth; None for a given one, and for a mixture.
    resolution_ : Resolution or None
        What rounding and copies leave of the data, where a rule chose.
    mixture_ : Mixture or None
        The smoothers of a mixture, or the one of ``adaptive="knn"``, and their weights.
    engine_ : str
    engine_reason_ : str
    min_time_ : float
        Smallest time of the score model, 0: time runs forward from the fitted density.
    n_samples_seen_ : int
        Rows seen, repeated and weightless ones included.
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        If X had column names.

    See Also
    --------
    sklearn.neighbors.KernelDensity : Flat space; its other metrics are not normalised.

    Notes
    -----
    With a given bandwidth, rows are used as they are. A rule merges duplicates into weights first, as it would
    otherwise take a repeated row for evidence of a spike; above one per cent a
    :class:`~rdks.errors.DuplicatesWarning` says so, and what they do to a likelihood.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks import RDKSEstimator
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((500, 3)) + [0, 0, 2]
    >>> X /= np.linalg.norm(X, axis=1, keepdims=True)
    >>> est = RDKSEstimator().fit(X)
    >>> est.manifold_
    Sphere(dim=2, coords='extrinsic', radius=1.0)
    >>> est.score_samples(X).shape, est.score_field(X).shape
    ((500,), (500, 3))
    >>> est.sample(3, random_state=0).shape
    (3, 3)
    """

    def __init__(self, manifold="auto", *, bandwidth="auto", adaptive=None, min_bandwidth="auto",
                 engine="auto", rtol=1e-6, check_points="raise", n_jobs=None, verbose=False):
        self.manifold = manifold
        self.bandwidth = bandwidth
        self.adaptive = adaptive
        self.min_bandwidth = min_bandwidth
        self.engine = engine
        self.rtol = rtol
        self.check_points = check_points
        self.n_jobs = n_jobs
        self.verbose = verbose

    # fitting

    def fit(self, X, y=None, sample_weight=None, sample_bandwidth=None):
        """Fit the density to data.

        Parameters
        ----------
        X : array-like, shape (n, p) or (n, *point_shape)
            Points of the manifold, one per row.
        y : None
            Ignored.
        sample_weight : array-like, shape (n,), optional
            Weights >= 0; weight 2 is the row twice, weight 0 is no row.
        sample_bandwidth : array-like, shape (n,), optional
            A bandwidth for each row, such as the error of its measurement. Nothing is chosen then: `bandwidth` must be
            "auto" and `adaptive` None. More than 500 different ones are rounded to one per cent (which may change a
            log density by half a per cent for each dimension), since sums over rows of equal bandwidth are one sum.

        Returns
        -------
        self

        Raises
        ------
        PointError
            If a row is not on the manifold.
        ValueError
            If a parameter, the shape of X or a weight is wrong, or a rule has a single distinct
            point to choose from. The estimator is left as it was.
        """
        self._check_parameters()
        read = self._observe(X, sample_weight)
        names = read.attributes.get("feature_names_in_")
        order = validation.geographic_order(names)
        if isinstance(self.manifold, str) and self.manifold == "auto":
            if order:
                hint = "manifold=Sphere(2, coords='latlon_deg')" + (
                    " and the columns in the order latitude, longitude" if order == "lonlat" else "")
                read.attributes["manifold_reason_"] += ("; the columns are named like geographic coordinates: for the "
                                                        f"sphere pass {hint}")
                warnings.warn(f"manifold='auto' takes the columns {list(names)} as flat coordinates. For points "
                              f"of a sphere pass {hint}", UserWarning, stacklevel=2)
        elif order == "lonlat" and getattr(read.manifold, "coords", "").startswith("latlon"):
            warnings.warn(f"the columns are named {list(names)}, but {read.manifold!r} takes the first for the "
                          "latitude and the second for the longitude", UserWarning, stacklevel=2)
        each = self._each_bandwidth(sample_bandwidth, read.weight)
        raw = self._gather(self._sources(read.manifold, read.Z, read.weight))
        used = read.weight > 0
        state = self._state(raw, len(used), None if each is None else each[used], read.X[used])
        self._accept(state | read.attributes)
        return self

    def partial_fit(self, X, y=None, sample_weight=None):
        """Add data to the fit; an automatic bandwidth is chosen again from all data.

        Parameters and errors as in :meth:`fit`; UnsupportedError where bandwidths are adaptive, a mixture, or given by
        row.

        Returns
        -------
        self
        """
        self._check_parameters()
        self._check_growing()
        if not hasattr(self, "_raw"):
            self._check_stream(self._resolve(*self._read(X)[:2], None)[0])
            return self.fit(X, y, sample_weight)
        self._check_stream(self.manifold_)
        X, _, _ = self._read(X, reset=False)
        weight = validation.as_weights(sample_weight, len(X))
        Z = validation.as_points(self.manifold_, X, self.check_points)
        before = self._current(self._raw)
        raw = before.merge(self._gather(self._sources(self.manifold_, Z, weight), before))
        if isinstance(self.bandwidth, str) and raw.cells is not None and before.cells is None:
            changes = ["copies of a row are no longer merged"] * (len(np.unique(before.Z, axis=0)) < len(before.Z))
            if self.bandwidth in ("auto", "lcv"):
                changes.append(f"bandwidth={self.bandwidth!r} chooses by 'lscv', which needs no observations")
            if changes:
                warnings.warn(f"after {self.n_samples_seen_ + len(X)} rows a stream keeps coefficients and a summary "
                              f"in cells: from here on {' and '.join(changes)}", UserWarning, stacklevel=2)
        self._accept(self._state(raw, self.n_samples_seen_ + len(X)))
        return self

    def merge(self, other):
        """Combine two fits into a new one, as if fitted to both data sets at once.

        Parameters
        ----------
        other : RDKSEstimator
            Fitted, with the same parameters on the same manifold.

        Returns
        -------
        RDKSEstimator
            A new estimator; both operands are unchanged.

        Raises
        ------
        ValueError
            If parameters or manifolds differ.
        UnsupportedError
            If bandwidths are adaptive, a mixture, or given by row.
        """
        check_is_fitted(self)
        if not isinstance(other, RDKSEstimator):
            raise ValueError(f"merge: expected a fitted RDKSEstimator, found {type(other).__name__}")
        check_is_fitted(other)
        for est in (self, other):
            est._check_growing()
        mine, theirs = self.get_params(), other.get_params()
        # the manifold is compared as fitted: geomstats spaces are never equal to one another
        differ = sorted(k for k in mine if k not in ("manifold", "n_jobs", "verbose") and mine[k] != theirs[k])
        names = [list(getattr(est, "feature_names_in_", ())) for est in (self, other)]
        if differ or self.manifold_ != other.manifold_ or names[0] != names[1]:
            what = (f"the parameters {differ}" if differ else f"the column names {names[0]} and {names[1]}"
                    if names[0] != names[1] else f"the manifolds {self.manifold_!r} and {other.manifold_!r}")
            raise ValueError(f"merge: {what} differ; fit both with the same parameters")
        new = clone(self)
        new.__dict__.update({k: v for k, v in self.__dict__.items() if k not in mine})
        left, right = self._current(self._raw), self._current(other._raw)
        new._accept(new._state(left.merge(self._gather(right, left)), self.n_samples_seen_ + other.n_samples_seen_))
        return new

    def _check_growing(self):
        """Raise an error where every kernel depends on all observations, or on more than the parameters say."""
        what = ("bandwidth='mixture'" if self.bandwidth == "mixture" else f"adaptive={self.adaptive!r}"
                if self.adaptive is not None else "sample_bandwidth" if getattr(self, "_each", False) else "")
        if what:
            raise UnsupportedError(f"a fit with {what} cannot grow: fit all data at once")

    def _check_parameters(self):
        """Raise ValueError for parameters that cannot be right, before anything is touched."""
        self._check_common()
        h = self.bandwidth
        if isinstance(h, str):
            if h not in ("auto", "mixture", *RULES):
                raise ValueError(f"bandwidth = {h!r} is not a known rule; expected a positive number, "
                                 f"'auto', 'mixture' or one of {RULES}")
        else:
            validation.check_number("bandwidth", h, low=1e-140, high=1e140,
                                    expected=f"a positive finite number, or a rule: 'auto' or one of {RULES}")
        if self.adaptive not in ADAPTIVE:
            raise ValueError(f"adaptive = {self.adaptive!r}: expected one of {ADAPTIVE}")
        if self.adaptive is not None and h == "mixture":
            raise ValueError(f"adaptive={self.adaptive!r} and bandwidth='mixture' exclude each other: a mixture has "
                             "adaptive parts already. Use adaptive=None")
        if not (isinstance(self.min_bandwidth, str) and self.min_bandwidth == "auto"):
            validation.check_number("min_bandwidth", self.min_bandwidth, low=0.0, high=1e140,
                                    expected="'auto' or a finite number >= 0")
        if self.engine not in ENGINES:
            raise ValueError(f"engine = {self.engine!r}: expected one of {ENGINES}")
        validation.check_number("rtol", self.rtol, low=1e-300, high=1 - 1e-9, expected="a number between 0 and 1")

    def _each_bandwidth(self, value, weight):
        """Return the bandwidths of rows as an array, or None if none are given; a row of no weight may have any."""
        n = len(weight)
        if value is None:
            return None
        if self.bandwidth != "auto" or self.adaptive is not None:
            raise ValueError(f"sample_bandwidth gives each row its bandwidth, but bandwidth = {self.bandwidth!r} and "
                             f"adaptive = {self.adaptive!r} ask for others; leave them at 'auto' and None")
        each = np.asarray(value, dtype=float)
        if each.shape != (n,):
            raise ValueError(f"sample_bandwidth has shape {each.shape}, but X has {n} rows: expected ({n},)")
        wrong = np.flatnonzero(~((each >= 1e-140) & (each <= 1e140)) & (weight > 0))
        if wrong.size:
            raise ValueError(f"sample_bandwidth[{wrong[0]}] = {each[wrong[0]]!r} must be a positive finite number")
        if len(np.unique(each[weight > 0])) <= _DIFFERENT:
            return each
        with np.errstate(divide="ignore", invalid="ignore"):  # of rows of no weight
            return np.exp(np.rint(100 * np.log(each)) / 100)

    def _sources(self, manifold, Z, weight):
        """Return the observations as sources at time 0, held by the engine that was asked for."""
        used = weight > 0
        return sources(manifold, Z[used], weight[used], 0.0, self.n_jobs, self.engine, self.rtol)

    def _check_stream(self, manifold):
        """Raise an error where a stream of coefficients could not choose its bandwidth."""
        if self.engine != "spectral" or not isinstance(self.bandwidth, str) or manifold.kernel != "factors":
            return
        if not self._smallest() > 0:
            raise ValueError(f"partial_fit with engine='spectral' and bandwidth={self.bandwidth!r}: the degree of the "
                             "expansion is fixed at the first block. Pass the smallest bandwidth that may be chosen as "
                             "min_bandwidth, or a number as bandwidth")
        if not manifold.is_homogeneous:
            raise UnsupportedError(f"a stream on {manifold!r} cannot choose a bandwidth: points of that space are not "
                                   "all alike, and observations are not kept. Pass a number as bandwidth")

    def _current(self, raw):
        """Return the observations as the engine that the parameters ask for now holds them."""
        new = sources(raw.manifold, raw.Z, raw.weight, 0.0, self.n_jobs, self.engine, self.rtol)
        same = type(new) is type(raw) and getattr(new, "rtol", None) == getattr(raw, "rtol", None)
        if same or raw.cells is None:
            return self._gather(raw if same else new)
        raise ValueError(f"a stream that keeps no observations, fitted with engine='spectral' and rtol={raw.rtol:g}, "
                         f"cannot go on with engine={self.engine!r} and rtol={self.rtol:g}")

    def _gather(self, raw, like=None):
        """Compute the coefficients that are to be added up, where the shortest time they must serve is known.

        With `like`, which has coefficients already, the shortest time that those serve.
        """
        shortest = self._smallest()
        if not isinstance(self.bandwidth, str):
            shortest = min(shortest or np.inf, float(self.bandwidth))
        plain = self.bandwidth != "mixture" and self.adaptive is None
        if self.engine == "spectral" and raw.manifold.kernel == "factors" and shortest > 0 and plain:
            known = getattr(like, "shortest", None)
            raw.moments(shortest**2 if known is None else known)
        return raw

    def _smallest(self):
        """Smallest bandwidth that a rule may choose, 0 if none is given."""
        return 0.0 if self.min_bandwidth == "auto" else float(self.min_bandwidth)

    def _state(self, raw, seen, each=None, X=None):
        """Compute the fitted attributes for all data; nothing is assigned here.

        `each` is the bandwidth of each row, if they have their own, and X the data as written, if they are at hand.
        """
        raw.n_jobs = self.n_jobs  # of a fit that was merged elsewhere too
        manifold, selection, mixture, found, owner = raw.manifold, None, None, None, None
        several = self.bandwidth == "mixture" or self.adaptive == "knn"
        if each is not None:
            total = raw.at(each**2)
            h = float(np.exp(raw.share @ np.log(each)))
        elif self.adaptive is None and not isinstance(self.bandwidth, str):
            h = float(self.bandwidth)
            total = raw.at(h * h)
        else:
            distinct, data, copies, floor = raw, raw, None, self._smallest()
            if getattr(raw, "cells", None) is None:
                if self.min_bandwidth == "auto":
                    found = resolution(manifold, manifold.unembed(raw.Z) if X is None else X, raw.Z)
                    floor = found.floor
                distinct, which, found = merge_copies(raw, found)
                copies = np.bincount(which)
                if found.n - len(distinct.Z) > 0.01 * found.n and len(distinct.Z) > 1:  # a single one is an error later
                    warnings.warn(found.describe(), DuplicatesWarning, stacklevel=3)
                # a search asks for many times, each of which has an engine that is best
                data = sources(manifold, distinct.Z, distinct.weight, 0.0, self.n_jobs, rtol=self.rtol)
            if not isinstance(self.bandwidth, str):
                floor = self._smallest()  # a given bandwidth is not questioned
            if several:
                options = {"floor": floor, "copies": copies if self._smallest() else None, "verbose": self.verbose}
                if self.bandwidth == "mixture":
                    mixture, *state, owner = fit_mixture(data, **options)
                else:
                    given = None if isinstance(self.bandwidth, str) else float(self.bandwidth)
                    mixture, *state, owner = fit_knn(data, bandwidth=given, **options)
                h, total = mixture.bandwidth, distinct.like(*state)
                owner = owner, distinct.share
            else:
                h = self.bandwidth
                if isinstance(h, str):
                    selection = select(data, h, min_bandwidth=floor, verbose=self.verbose)
                    if selection.warning:
                        warnings.warn(selection.warning, UserWarning, stacklevel=3)
                    h = selection.bandwidth
                total = distinct.at(float(h) ** 2 if self.adaptive is None else abramson_times(data, float(h), floor))
                if self.adaptive is not None:
                    h = np.exp(0.5 * (total.share @ np.log(total.time)))
                h = float(h)
        if manifold.exactness == "asymptotic":
            warnings.warn(f"the heat kernel of {manifold!r} is a small-time approximation. "
                          f"{manifold.error_report(raw.Z, float(total.time.max()))}", AccuracyWarning, stacklevel=3)
        return {"manifold_": manifold, "bandwidth_": h, "selection_": selection, "mixture_": mixture,
                "resolution_": found, "n_samples_seen_": seen, "min_time_": 0.0, "_raw": raw, "_sum": total,
                "_each": each is not None, "_owner": owner, "_given": self.engine != "auto"}

    # asked for when somebody looks: an estimate takes as long as a thousand pairs

    @property
    def engine_(self):
        """Name of the engine that serves as many queries as there are observations."""
        check_is_fitted(self)
        return describe(self._sum)[0]

    @property
    def engine_reason_(self):
        """Why, in words."""
        check_is_fitted(self)
        return ("given; " if self._given else "") + describe(self._sum)[1]

    # using

    def score_samples(self, X, t=None):
        """Evaluate the log density at points.

        Parameters
        ----------
        X : array-like, shape (n, p) or (n, *point_shape)
        t : float, optional
            Diffusion time since the fitted density, >= 0; 0 by default.

        Returns
        -------
        ndarray, shape (n,)
            Natural log of the density per unit of Riemannian volume.
        """
        _, Z, _ = self._query(X)
        return self._sum.evaluate(Z, validation.as_time(t), n_jobs=self.n_jobs).log_density

    def score_field(self, X, t=None):
        r"""Evaluate the score :math:`\nabla\log p_t` at points.

        Parameters
        ----------
        X : array-like, shape (n, p) or (n, *point_shape)
        t : float, optional
            Diffusion time since the fitted density, >= 0.

        Returns
        -------
        ndarray, shape of X
            Riemannian gradients, tangent vectors in the layout of the points; in latitude and
            longitude (north, east) per unit length. The manifold says what they are in its other charts.
        """
        X, Z, layout = self._query(X)
        gradient = self._sum.evaluate(Z, validation.as_time(t), 1, self.n_jobs).gradient
        V = self.manifold_.push_gradient(X.reshape(len(X), *self.manifold_.point_shape), gradient)
        return V.reshape(len(X), *layout)

    def score_divergence(self, X, t=None):
        r"""Evaluate :math:`\Delta\log p_t`, the divergence of the score, at points.

        Exact and without second derivatives: :math:`\Delta\log p=\Delta p/p-|\nabla\log p|^2`, and
        the Laplacian of each kernel is known.

        Parameters
        ----------
        X : array-like, shape (n, p) or (n, *point_shape)
        t : float, optional
            Diffusion time since the fitted density, >= 0.

        Returns
        -------
        ndarray, shape (n,)
        """
        _, Z, _ = self._query(X)
        return self._sum.evaluate(Z, validation.as_time(t), 2, self.n_jobs).laplacian

    def sample(self, n_samples=1, random_state=None, *, method="direct", n_steps=None):
        """Draw from the fitted density.

        Parameters
        ----------
        n_samples : int
        random_state : None, int, RandomState or Generator
        method : {"direct", "reverse_sde", "probability_flow"}
            Pick an observation by weight and take one exact step of Brownian motion from it; or run the diffusion
            backward from noise, with :func:`rdks.sampling.reverse_sde` or :func:`rdks.sampling.probability_flow`, which
            draw from the same law, up to their steps, at a much higher price.
        n_steps : int, optional
            Number of steps of "reverse_sde"; by default chosen for an error of 0.01 in total variation.

        Returns
        -------
        ndarray, shape (n_samples, p) or (n_samples, *point_shape)
            Points in the layout that X had in `fit`.
        """
        check_is_fitted(self)
        n_samples = validation.as_count(n_samples)
        if method not in ("direct", "reverse_sde", "probability_flow"):
            raise ValueError(f"method = {method!r}: expected 'direct', 'reverse_sde' or 'probability_flow'")
        if n_steps is not None and method != "reverse_sde":
            raise ValueError(f"n_steps = {n_steps!r}: method={method!r} "
                             + ("draws exactly, without steps" if method == "direct" else "chooses its own steps")
                             + "; leave it out")
        if method == "direct":
            X = self.manifold_.unembed(self._draw(n_samples, 0.0, validation.as_generator(random_state)))
        elif method == "reverse_sde":
            X = reverse_sde(self, n_samples, n_steps=n_steps, random_state=random_state, verbose=self.verbose)
        else:
            X = probability_flow(self, n_samples, random_state=random_state, verbose=self.verbose)
        return X.reshape(n_samples, *self._layout)

    # what samplers ask of a model of the score, in embedded coordinates

    def _evaluate(self, Z, t, order):
        return self._sum.evaluate(Z, t, order, self.n_jobs)

    def _draw(self, n_samples, t, rng):
        """Draw embedded points from the density at time t."""
        m, Z = self.manifold_, self._sum.sample(n_samples, rng)
        return heat_sample(m, Z, t, rng) if t > 0 and n_samples else Z

    @property
    def _kernel_time(self):
        """Variance of the narrowest kernel of the fitted density."""
        return float(self.manifold_.flow(self._sum.Z[:1], float(self._sum.time.min()))[1])

    @property
    def _far_time(self):
        """Time after which the kernels are about as wide as the data: the variance of pairs of observations."""
        m, Z = self.manifold_, self._sum.Z
        some = Z[np.linspace(0, len(Z) - 1, min(len(Z), 200)).astype(int)]
        spread = float(np.mean(m.distances(some[:20], some) ** 2)) / m.dim
        return min(spread + self._kernel_time, m.max_time - self._kernel_time)
