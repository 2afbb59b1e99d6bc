"""The estimator."""
from __future__ import annotations

import math
import numbers
import zlib

import numpy as np
from sklearn.base import clone

from .. import _validation as validation
from ..base import NoiseLevelModel
from ..engines import Evaluation
from ..estimator import RDKSEstimator
from ..manifolds import Manifold
from ..sampling import log_likelihood, mixing_time
from ..sampling.models import Field
from ..score_matching import OperatorScoreMatching
from ..variance import heat_score
from .fields import Layout, backend
from .network import Network
from .training import LOSSES, Plan, Trainer, warn

__all__ = ["NeuralScoreMatching"]

# An automatic smallest time is this part of the square of the bandwidth of greatest leave-one-out likelihood.
_SHARE = 0.5
# An invariant law is where training ends: its density is right to this.
_MIXED = 1e-3
# Where nothing mixes: noise of this times the variance of the data.
_FAR = 25.0
# Times that the validation loss is measured in all.
_CHECKS = 50
# Largest dimension in which densities take the exact divergence; beyond, estimates along random directions.
_EXACT_DIM = 10
# Length that features resolve, in units of the root of the smallest noise: measured, on the laws of make_toy2d. Finer
# ones learn faster and lower the loss of denoising, but make fields too rough for the density of the flow.
_COARSE = 6.0
# Decay, as a power of 1/e, of the functions that an operator model leaves out where it is asked for its score.
_RESOLVED = 7.0
# Tolerance of the flow for densities.
_FLOW_TOL = 1e-5


def _resolved_time(model):
    """Return the noise level above which the functions that an operator model leaves out have decayed; 0 of others."""
    if not isinstance(model, OperatorScoreMatching):
        return 0.0
    decay, level = model._basis.decay[:model._size], model._basis.level[:model._size]
    if model.manifold_.has_drift and level.max() <= 2:
        return 0.0  # the score of a normal law, which is smooth at every noise level
    return _RESOLVED / float(decay[level == level.max()].min())


class _AtNoise:
    """The score of any model at a noise level of the data.

    Operator and neural models count time so, and are asked for what they know. A fitted density counts time from
    itself, and its kernels have the time of the squared bandwidth already: noise of the level t is its time
    t - bandwidth^2, and where that is negative the density as it is, its time 0, is the nearest that it knows.

    Parameters
    ----------
    model : ScoreModel
    least : float or "auto"
        Below this noise level of the data the model is asked for this one; see `baseline_time`.
    """

    def __init__(self, model, least=0.0):
        self.model, self.field = model, Field(model)
        self.least = _resolved_time(model) if isinstance(least, str) else float(least)
        self.age = float(model.bandwidth_) ** 2 if isinstance(model, RDKSEstimator) else 0.0
        # noise of the data in the model's own law; one that holds its score has none, and is no floor
        self.own_time = 0.0 if getattr(model, "hold_time_", 0.0) > self.field.least else self.age + self.field.least

    def __call__(self, Z, t, divergence=False):
        """Return the score at embedded points, and its divergence if it is asked for."""
        score, div = self.field(Z, max(max(t, self.least) - self.age, self.field.least), divergence)
        return (score, div) if divergence else score


def _probability(weight):
    """Return weights as probabilities; None where all are alike, or there are none."""
    return weight / weight.sum() if len(weight) and np.ptp(weight) > 0 else None


class NeuralScoreMatching(NoiseLevelModel):
    r"""Diffusion model by a neural network: the score at every noise level, trained on noised data.

    The network :math:`n_\theta` is a remainder on a smooth tangent field,

    .. math:: s_t(x)=r_t(x)+\sigma_t^{-1}\,\Pi_x\,n_\theta(x,\log t),

    with a given score r (`baseline`), and :math:`\sigma_t` about :math:`\sqrt t`. Without a baseline r is zero, or in
    flat space the score of the normal law of the means and variances of the data. Targets are scores of the exact heat
    kernel at exact draws, never those of its small-time limit.

    Parameters
    ----------
    manifold : Manifold, geomstats space or str
        One whose heat kernel is exact (:func:`rdks.variance.heat_score`). "auto" on flat data is the
        :class:`~rdks.manifolds.OrnsteinUhlenbeck` process about the means of the columns, as for
        :class:`~rdks.score_matching.OperatorScoreMatching`.
    loss : {"dsm", "ism", "sliced", "stein", "carried", "rao_blackwell"}
        "dsm": denoising score matching. "ism": implicit score matching, with the divergence of the network (estimated
        along a random direction beyond three dimensions); "sliced": always estimated so. "stein": the mixture of both
        whose loss varies the least, level by level of the noise. "carried": denoising with the network at the clean
        point as control variate (:func:`rdks.variance.carried_control`; not on quotients). "rao_blackwell": denoising
        with targets that are averaged over the batch (:func:`rdks.variance.rao_blackwell_score`). All have the same
        minimiser; they differ in noise and price.
    baseline : ScoreModel or estimator, optional
        A model on the same manifold, to which the network adds a remainder. A fitted one is used as it is; of an
        estimator that is not, a copy is fitted to the points that are not held out (so under cross-validation, which
        copies estimators, it is fitted anew). A noise level t of the data is the time t of operator and neural models.
        It is :math:`\max(t-h^2,0)` for RDKSEstimator, which counts time from its density of bandwidth h; where that is
        0 the network has to sharpen it.
    baseline_time : float or "auto"
        Below this noise level the baseline's score is that at this level. "auto" is 0 but for operator models, of which
        it is where the eigenfunctions left out have decayed by a thousandth: at lower noise their score is a
        projection, and what it lacks oscillates, which a network learns hardly at all (measured: nothing in 1,500
        iterations on two spirals with 16 levels), while a smooth start does no harm. It is 0 for Hermite polynomials of
        degree 2, which make the score of a normal law.
    pretrain : ScoreModel or estimator, optional
        Likewise, a model whose score is the target of the first iterations.
    pretrain_share : float
        Share of the iterations for that.
    weighting : {"noise", "likelihood"}
        Weights of noise levels, which are drawn evenly in log t: the variance of the noise, by which every level counts
        alike, or t, by which the loss bounds the negative log-likelihood. They differ under a drift only.
    hidden : sequence of int
        Widths of the layers.
    feature_length : float or "auto"
        Length, in embedded coordinates, that harmonics and waves among the inputs resolve; "auto" is
        :math:`6\sqrt{t_{min}}`. The network resolves more than its inputs do.
    n_iter : int
        Iterations in all, also over several calls with `warm_start`. 0 leaves the baseline as it is.
    batch_size : int
    learning_rate : float
        Of Adam. It rises linearly for the first 5 per cent of the iterations and falls linearly to zero for the last
        30.
    device : str
        Of torch; "auto" is "cuda" if there is one, else "cpu".
    ema : float
        Weight of the past in the exponential average of the weights, which are what is used.
    validation_fraction : float
        Share of the distinct points that are held out; 0 for none.
    patience : int, optional
        Training stops when the validation loss, measured 50 times in all, has not been lower for so many times. None:
        never. The weights of lowest loss are used in any case.
    min_time, max_time : float or "auto"
        Noise levels between which the network is trained. "auto": the smallest is that of the given model's own law
        (the squared bandwidth of a fitted density), if there is one, else half the squared bandwidth of greatest
        leave-one-out likelihood; the largest is the
        :func:`~rdks.sampling.mixing_time`, or where there is none 25 times the variance of the data.
    warm_start : bool
        Continue the last training, until `n_iter` iterations in all.
    random_state : None, int, RandomState or Generator
        Everything random is drawn from it, so that on a CPU the same seed gives the same model.
    check_points : {"raise", "project", "ignore"}
        As for RDKSEstimator.
    verbose : bool
        Show a progress bar with the losses.

    Attributes
    ----------
    manifold_ : Manifold
    manifold_reason_ : str
    min_time_, max_time_ : float
    baseline_time_ : float
    baseline_, pretrain_ : ScoreModel or None
        The fitted models.
    weights_ : dict of ndarray
        Weights of the network, single precision.
    n_iter_ : int
        Iterations done.
    loss_curve_ : ndarray, shape (n_iter_,)
        Training loss of each iteration, of one batch.
    validation_curve_ : ndarray, shape (k, 2)
        Iteration, and the loss of denoising on the held-out points with noise that is always the same.
    best_loss_ : float
        Lowest of these; inf without validation.
    variance_factor_ : float
        Variance of the gradient of denoising over that of the loss used, for batches of one size, at the end.
    device_ : str
    n_samples_seen_ : int
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        If X had column names.

    Warns
    -----
    ConvergenceWarning
        From `fit`, if the loss is not finite: training stops, and the last good weights are kept.

    Notes
    -----
    An interrupt from the keyboard ends `fit` after the current iteration with KeyboardInterrupt; the model is fitted
    then, with the best weights so far, and with ``set_params(warm_start=True)`` another call of `fit` goes on as if
    nothing had happened. Weights, moments of Adam and the state of the generator are pickled, as arrays of numpy.

    Scores are evaluated in double precision. Beyond `max_time_` the outputs of the network stay as they are, and only
    their scale goes on falling.

    References
    ----------
    Vincent, A connection between score matching and denoising autoencoders, Neural Computation 23 (2011); Song et al.,
    Score-based generative modeling through stochastic differential equations, ICLR 2021; on manifolds De Bortoli et
    al., Riemannian score-based generative modelling, NeurIPS 2022; the scales of inputs and outputs in flat space:
    Karras et al., Elucidating the design space of diffusion-based generative models, NeurIPS 2022, table 1.

    See Also
    --------
    rdks.score_matching.OperatorScoreMatching : The same without training.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.manifolds import Circle
    >>> from rdks.neural import NeuralScoreMatching
    >>> X = np.random.default_rng(0).vonmises(1.0, 4.0, (500, 1))
    >>> model = NeuralScoreMatching(Circle(), n_iter=2000, random_state=0)
    >>> model.fit(X).score_field([[0.5], [1.5]]).shape  # doctest: +SKIP
    (2, 1)
    """

    def __init__(self, manifold="auto", *, loss="dsm", baseline=None, baseline_time="auto", pretrain=None,
                 pretrain_share=0.05, weighting="noise", hidden=(64, 64, 64), feature_length="auto", n_iter=10_000,
                 batch_size=512, learning_rate=4e-3, device="auto", ema=0.999, validation_fraction=0.1, patience=None,
                 min_time="auto", max_time="auto", warm_start=False, random_state=None, check_points="raise",
                 verbose=False):
        self.manifold = manifold
        self.loss = loss
        self.baseline = baseline
        self.baseline_time = baseline_time
        self.pretrain = pretrain
        self.pretrain_share = pretrain_share
        self.weighting = weighting
        self.hidden = hidden
        self.feature_length = feature_length
        self.n_iter = n_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.device = device
        self.ema = ema
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.min_time = min_time
        self.max_time = max_time
        self.warm_start = warm_start
        self.random_state = random_state
        self.check_points = check_points
        self.verbose = verbose

    # fitting

    def _check_parameters(self):
        """Raise ValueError for parameters that cannot be right, before anything is touched."""
        self._check_common()
        for name, allowed in (("loss", LOSSES), ("weighting", ("noise", "likelihood"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} = {getattr(self, name)!r}: expected one of {allowed}")
        for name, least in (("n_iter", 0), ("batch_size", 2), ("patience", 1)):
            value = getattr(self, name)
            if name == "patience" and value is None:
                continue
            if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} = {value!r}: expected an integer >= {least}")
        ranges = (("learning_rate", 1e-12, 10.0, "between 0 and 10"), ("ema", 0.0, 1.0, "in [0, 1)"),
                  ("validation_fraction", 0.0, 1.0, "in [0, 1)"), ("pretrain_share", 0.0, 1.0, "in [0, 1)"),
                  ("min_time", 1e-300, np.inf, "> 0"), ("max_time", 1e-300, np.inf, "> 0"),
                  ("feature_length", 1e-300, np.inf, "> 0"), ("baseline_time", 0.0, np.inf, ">= 0"))
        for name, low, high, words in ranges:
            value = getattr(self, name)
            if low in (0.0, 1e-300) and high == np.inf and isinstance(value, str) and value == "auto":
                continue
            if not isinstance(value, numbers.Real) or isinstance(value, bool) or not low <= value < high:
                raise ValueError(f"{name} = {value!r}: expected a number {words}")
        try:
            widths = [int(w) for w in self.hidden if w == int(w)]
        except TypeError:
            widths = []
        if not widths or len(widths) != len(self.hidden) or min(widths) < 1:
            raise ValueError(f"hidden = {self.hidden!r}: expected a sequence of widths, integers >= 1")

    def _device(self):
        torch = backend()
        cuda = torch.cuda.is_available()
        if self.device == "auto":
            return "cuda" if cuda else "cpu"
        try:
            torch.zeros(1, device=self.device)
        except (RuntimeError, AssertionError, TypeError) as error:
            raise ValueError(f"device = {self.device!r} cannot be used ({str(error).splitlines()[0]}). Expected "
                             f"'auto', 'cpu'{' or cuda' if cuda else '; torch sees no GPU here'}") from None
        return str(self.device)

    def _other(self, name, manifold, X, weight):
        """Return a model that is given as a parameter at noise levels of the data, fitted if it is not; or None."""
        model = getattr(self, name)
        if model is None:
            return None
        if hasattr(model, "fit") and not hasattr(model, "manifold_"):
            model = clone(model).set_params(manifold=manifold).fit(X, sample_weight=weight)
        if isinstance(getattr(model, "manifold_", None), Manifold) and model.manifold_ != manifold:
            raise ValueError(f"{name} is a model on {model.manifold_!r}, the data are on {manifold!r}: fit it on the "
                             "same manifold, or pass its manifold_ as manifold")
        return _AtNoise(model, self.baseline_time if name == "baseline" else 0.0)

    def fit(self, X, y=None, sample_weight=None):
        """Train the network.

        Parameters
        ----------
        X : array-like, shape (n, p) or (n, *point_shape)
            Points of the manifold, one per row.
        y : None
            Ignored.
        sample_weight : array-like, shape (n,), optional
            Weights >= 0; weight 2 is the row twice, weight 0 is no row.

        Returns
        -------
        self

        Raises
        ------
        MissingDependencyError
            If torch cannot be imported.
        PointError
            If a row is not on the manifold.
        UnsupportedError
            If the manifold's heat kernel is not exact.
        ValueError
            If a parameter, the shape of X or a weight is wrong, there are too few points to hold some out, or a model
            given is on another manifold. The estimator is left as it was.
        KeyboardInterrupt
            After an interrupt, with the model fitted as far as it went.
        """
        self._check_parameters()
        device = self._device()
        again = self.warm_start and hasattr(self, "_training")
        X, weight, manifold, Z, attributes = self._observe(X, sample_weight)
        seen = len(X)
        heat_score(manifold, Z[:1], Z[:1], 1.0)  # refuses what has no exact kernel, and says why
        used = weight > 0
        X, Z, weight = X[used], Z[used], weight[used]
        seeds = self._seeds if again else tuple(
            int(s) for s in validation.as_generator(self.random_state).integers(0, 2**62, 6))
        train, valid = self._split(Z, np.random.default_rng(seeds[0]))
        mark = zlib.crc32(np.ascontiguousarray(Z), zlib.crc32(weight))
        if again:
            network, others, times = self._network, self._others, (self.min_time_, self.max_time_)
            training = dict(self._training)
            if mark != self._mark:  # losses on other points cannot be compared
                training.update(best_loss=math.inf, stale=0, best=training["mean"])
        else:
            others = tuple(self._other(name, manifold, X[train], weight[train]) for name in ("baseline", "pretrain"))
            times = self._times(manifold, X, Z, weight, [other for other in others if other is not None])
            resolved = _COARSE * math.sqrt(times[0]) if self.feature_length == "auto" else float(self.feature_length)
            network = Network(Layout(manifold, Z[train], resolved, np.random.default_rng(seeds[1])), self.hidden, times,
                              plain=others[0] is None)
            training = None
        law, held_law = (_probability(weight[rows]) for rows in (train, valid))
        plan = Plan(manifold, network, Z[train], law, Z[valid], held_law, times, self.loss, self.weighting, *others,
                    int(self.pretrain_share * self.n_iter) if others[1] is not None else 0, int(self.n_iter),
                    int(self.batch_size), max(int(self.n_iter) // _CHECKS, 1), float(self.learning_rate),
                    float(self.ema), self.patience, device, self.verbose)
        trainer = Trainer(plan, seeds[2:5], training)
        outcome = trainer.run()
        fitted = (other and other.model for other in others)
        self._accept({
            **attributes, "device_": device, "n_samples_seen_": seen, "min_time_": times[0],
            "max_time_": times[1], "baseline_time_": others[0].least if others[0] else 0.0,
            "baseline_": next(fitted), "pretrain_": next(fitted), "weights_": trainer.best,
            "n_iter_": trainer.iteration, "loss_curve_": np.array(trainer.losses),
            "validation_curve_": np.array(trainer.checks).reshape(-1, 2), "best_loss_": trainer.best_loss,
            "_training": trainer.state(), "_seeds": seeds, "_mark": mark, "_network": network, "_others": others,
            "_ready": None})
        self._know_far_law(X, weight)
        if outcome == "interrupted":
            raise KeyboardInterrupt
        warn(outcome, trainer)
        self.variance_factor_ = trainer.variance_factor(np.random.default_rng(seeds[5]))
        return self

    def _resolve(self, X, layout, weight):
        """Return the manifold, and why: "auto" is that of a fitted model that is given, if there is one."""
        if self.warm_start and hasattr(self, "_training"):
            self._check_resumable(X)
            return self.manifold_, self.manifold_reason_
        if isinstance(self.manifold, str) and self.manifold == "auto":
            for name in ("baseline", "pretrain"):
                if isinstance(getattr(getattr(self, name), "manifold_", None), Manifold):
                    return getattr(self, name).manifold_, f"that of {name}"
        return super()._resolve(X, layout, weight)

    def _check_resumable(self, X):
        """Raise ValueError where the parameters are not those of the training that is to go on."""
        wrong = None
        if X.shape[1] != self.n_features_in_:
            wrong = f"the data have {X.shape[1]} features, not {self.n_features_in_}"
        elif not isinstance(self.manifold, str) and validation.as_manifold(self.manifold, X.shape[1]) != self.manifold_:
            wrong = f"manifold = {self.manifold!r}, not {self.manifold_!r}"
        elif self._network.hidden != tuple(self.hidden):
            wrong = f"hidden = {self.hidden!r}, not {self._network.hidden}"
        elif self._network.plain != (self.baseline is None):
            wrong = "there was a baseline or there is one now, not both"
        for name in ("min_time", "max_time"):
            value = getattr(self, name)
            if not isinstance(value, str) and float(value) != getattr(self, name + "_"):
                wrong = f"{name} = {value!r}, not {getattr(self, name + '_'):.6g}"
        if wrong:
            raise ValueError(f"warm_start: {wrong} as in the last fit; fit a new estimator")

    def _times(self, manifold, X, Z, weight, others):
        """Return the noise levels between which to train."""
        known = [other.field.least for other in others]
        own = [other.own_time for other in others]
        if self.min_time != "auto":
            low = float(self.min_time)
            if known and low < max(known):
                raise ValueError(f"min_time = {low:g} is below {max(known):g}, the smallest noise level that the given "
                                 "model knows; fit it for less, or raise min_time")
        elif own and max(own) > 0:
            low = max(own)
        else:
            kernels = RDKSEstimator(manifold, check_points=self.check_points, verbose=self.verbose)
            low = _SHARE * kernels.fit(X, sample_weight=weight).bandwidth_ ** 2
        if self.max_time != "auto":
            high = float(self.max_time)
        else:
            high = mixing_time(manifold, _MIXED)
            if not np.isfinite(high):
                some = Z[np.linspace(0, len(Z) - 1, min(len(Z), 200)).astype(int)]
                high = _FAR * 0.5 * float(np.mean(manifold.distances(some, some) ** 2)) / manifold.dim
        if not low < high:
            raise ValueError(f"min_time = {low:g} must be below max_time = {high:g}")
        return low, high

    def _split(self, Z, rng):
        """Return the rows to train on and those held out; copies of a point are on one side."""
        which = np.unique(Z, axis=0, return_inverse=True)[1].reshape(-1)
        n = int(which.max()) + 1
        held = round(self.validation_fraction * n)
        if self.validation_fraction > 0 and (held < 1 or n - held < 1):
            raise ValueError(f"validation_fraction = {self.validation_fraction:g} of n_samples={n} distinct points "
                             "leaves no point to hold out, or none to train on: pass more points, another fraction, or "
                             "0 to train without validation")
        out = np.zeros(n, dtype=bool)
        out[rng.permutation(n)[:held]] = True
        return np.flatnonzero(~out[which]), np.flatnonzero(out[which])

    def _know_far_law(self, X, weight):
        """Where there is no invariant law, keep the data: kernels of the largest noise are the law at that time."""
        self.__dict__.pop("_draw", None)
        self._far, self._far_time = None, self.max_time_ - self.min_time_
        if np.isfinite(mixing_time(self.manifold_)):
            return
        self._far = RDKSEstimator(self.manifold_, bandwidth=math.sqrt(self.max_time_), check_points="ignore")
        self._far.fit(X, sample_weight=weight)
        self._draw = self._draw_far

    def _draw_far(self, n_samples, t, rng):
        return self._far._draw(n_samples, max(t - self.max_time_, 0.0), rng)

    # using

    def _evaluate(self, Z, t, order):
        """Return the score and its divergence at embedded points."""
        t = self._time(t)
        if order == 0:
            return self._far._evaluate(Z, max(t - self.max_time_, 0.0), 0)
        if self._ready is None:
            torch = backend()
            device = self.device_ if torch.cuda.is_available() else "cpu"
            self._ready = {k: torch.tensor(w, dtype=torch.float64, device=device) for k, w in self.weights_.items()}
        score, div = self._network.evaluate(self._ready, Z, t, order == 2)
        if self._others[0] is not None:
            base = self._others[0](Z, t, order == 2)
            score, div = (score + base[0], div + base[1]) if order == 2 else (score + base, None)
        return Evaluation(None, score, div)

    def score_samples(self, X):
        """Evaluate the log density of the model's own law, by its probability flow (:func:`.log_likelihood`).

        Parameters
        ----------
        X : array-like, shape (n, p) or (n, *point_shape)

        Returns
        -------
        ndarray, shape (n,)
            Natural log of the density per unit of Riemannian volume; beyond ten dimensions an estimate along ten
            random directions, the same for every call.
        """
        X, Z, _ = self._query(X)
        return log_likelihood(self, self.manifold_.unembed(Z), tol=_FLOW_TOL, random_state=0,
                              divergence="exact" if self.manifold_.dim <= _EXACT_DIM else "hutchinson")

    def __getstate__(self):
        state = dict(super().__getstate__())
        for name in ("_ready", "_draw"):  # tensors of torch, and a method of this object
            if name in state:
                state[name] = None
        return state

    def __setstate__(self, state):
        super().__setstate__(state)
        self.__dict__.pop("_draw", None)
        if getattr(self, "_far", None) is not None:
            self._draw = self._draw_far
