r"""The reverse diffusion: noise turned into data.

Brownian motion run backward in time from its law :math:`p_T` is the diffusion
:math:`dY=s_{T-\tau}(Y)\,d\tau+dB` (Anderson, Reverse-time diffusion equation models, 1982; on manifolds De Bortoli et
al., Riemannian score-based generative modelling, 2022, theorem 1). With a linear drift the process is Brownian motion
on another clock and in shrinking coordinates (:meth:`.Manifold.clock`), in which the same steps are taken.
"""
from __future__ import annotations

import math
import numbers
import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from .. import _validation as validation
from .models import Field, Terminal, Trajectory, log_back, points_of, progress
from .steps import heat_sample

__all__ = ["denoise", "diffuse", "frames", "langevin", "reverse_sde", "steps_for"]

#: Ways to take a step.
METHODS = ("midpoint", "euler")
# Order in law, and error in total variation times that power of the number of steps per e-fold of time: at most this
# on mixtures of kernels, by measurement (tests/test_processes.py).
_COST = {"midpoint": (2, 0.1), "euler": (1, 0.2)}
# An error in total variation above which samples are not worth having without a word.
_POOR = 0.1
# Part of the time for which a correcting step of Langevin's runs.
_CORRECT = 0.1


def frames(field, start, keep):
    """Return the falling times at which points are kept, from `start` to where the field stops.

    `keep` is their number, even in the logarithm of the kernels' age, or the times.
    """
    if np.ndim(keep):
        times = np.sort(np.asarray(keep, dtype=float))[::-1]
        if times.ndim != 1 or not len(times) or not (field.stop <= times[-1] and times[0] <= start):
            raise ValueError(f"keep = {keep!r}: expected times from {field.stop:.4g} to {start:.4g}, where the process "
                             "runs")
        return times
    if not isinstance(keep, numbers.Integral) or isinstance(keep, bool) or keep < 2:
        raise ValueError(f"keep = {keep!r}: expected 0, a number of times >= 2, or times")
    times = np.geomspace(start + field.smoothed, _age(field), keep) - field.smoothed
    times[0], times[-1] = start, field.stop
    return times


def _age(field):
    """Return the variance of the kernels at the time at which the field stops, after checking that it is not 0."""
    age = field.stop + field.smoothed
    if age <= 0:
        raise ValueError(f"{type(field.model).__name__} is asked for the time 0 of data without noise, where a score "
                         "need not exist: stop at a time t > 0")
    return age


def _clock(field):
    """Return the scale and the clock of Brownian motion at the time at which the field stops."""
    scale, clock = field.manifold.clock(field.stop)
    if not np.isfinite(clock):
        raise ValueError(f"t = {field.stop:g} is so large that nothing is left of the data: use a smaller time")
    return scale, clock


def steps_for(method, tol, span):
    """Return the number of steps for an error in total variation, over so many e-folds of time."""
    order, cost = _COST[method]
    return max(2, math.ceil(span * (cost / tol) ** (1 / order)))


def reverse_sde(model, n_samples=1, *, t=None, method="midpoint", n_steps=None, tol=0.01, max_time=None, terminal=None,
                corrector_steps=0, keep=0, random_state=None, verbose=False):
    r"""Draw from a model by running its diffusion backward.

    Parameters
    ----------
    model : ScoreModel
    n_samples : int
    t : float, optional
        Time of the law to draw from; the model's ``min_time_`` by default.
    method : {"midpoint", "euler"}
        A scheme of second order in law with two scores per step, or the geodesic Euler-Maruyama scheme with one.
    n_steps : int, optional
        Number of steps, in geometric progression of the time (of the kernels' variance, for a fitted density).
        By default what `tol` needs.
    tol : float
        Error in total variation for which `n_steps` is chosen, from the errors measured on mixtures of kernels: an
        expectation, not a bound.
    max_time : float, optional
        Time at which to begin. By default the :func:`mixing_time` of the manifold; where nothing mixes, a time at which
        the model's own law is wide, if it can draw from it as a fitted density can.
    terminal : estimator, optional
        The law at `max_time`, with ``sample(n_samples, random_state=...)``. By default the invariant law: uniform on
        compact space, standard normal for the Ornstein-Uhlenbeck process; the model's own law where `max_time` is
        shorter than the mixing time or there is none.
    corrector_steps : int
        Steps of Langevin's after each step, at the time reached (a predictor-corrector scheme): they mend the law of
        steps that are too coarse, but no score.
    keep : int or sequence of float
        Number of times at which points are kept, even in the logarithm of the time from the beginning to the end, or
        these times; a :class:`Trajectory` is returned then. Steps end at these times.
    random_state : None, int, RandomState or Generator
    verbose : bool
        Show a progress bar.

    Returns
    -------
    ndarray, shape (n_samples, *point_shape), or Trajectory

    Raises
    ------
    ScoreError
        If a score on the way is not finite.

    Warns
    -----
    ConvergenceWarning
        If `n_steps` is so small that an error of more than 0.1 in total variation is expected.

    Notes
    -----
    From the variance :math:`\tau` to :math:`q\tau`, :math:`\delta=(1-q)\tau`, the midpoint scheme takes an exact step
    of Brownian motion of time :math:`\delta q/(1+q^2)`, follows the score for :math:`\delta` by a midpoint rule on
    geodesics, and takes such a random step again: a Strang splitting. For a single observation in flat space the
    law is exact, whatever the number of steps. Euler's scheme follows the score at the beginning of the step, and
    takes a random step of time :math:`\delta q`, which has the same property (Ho et al., Denoising diffusion
    probabilistic models, 2020, eq. 7).

    Examples
    --------
    >>> import numpy as np
    >>> from rdks import RDKSEstimator
    >>> from rdks.sampling import reverse_sde
    >>> est = RDKSEstimator("circle", bandwidth=0.2).fit(np.array([[1.0]]))
    >>> Y = reverse_sde(est, 500, random_state=0)
    >>> bool(abs(Y.mean() - 1.0) < 0.05 and abs(Y.std() - 0.2) < 0.03)
    True
    """
    if method not in METHODS:
        raise ValueError(f"method = {method!r}: expected one of {METHODS}")
    if not isinstance(tol, numbers.Real) or isinstance(tol, bool) or not 0 < tol < 1:
        raise ValueError(f"tol = {tol!r}: expected a number between 0 and 1")
    for name, value, least in (("n_steps", n_steps, 1), ("corrector_steps", corrector_steps, 0)):
        if value is not None and (not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least):
            raise ValueError(f"{name} = {value!r}: expected an integer >= {least}")
    n, rng = validation.as_count(n_samples), validation.as_generator(random_state)
    field = Field(model, t)
    end = Terminal(field, max_time, terminal)
    m = field.manifold
    walk = _Walk(field, rng)
    _age(field)
    # at a time so long that nothing is left of the data the law has been reached already
    span = math.log(walk.age(end.time) / walk.age(field.stop)) if end.time > field.stop else 0.0
    count = steps_for(method, tol, span) if n_steps is None else int(n_steps)
    shown = frames(field, end.time, keep) if np.ndim(keep) or keep else np.array([field.stop])
    stages = np.concatenate([[end.time], shown]) if shown[0] < end.time else shown
    if n_steps is not None and n_steps < len(stages) - 1:
        raise ValueError(f"keep = {keep!r}: points at {len(stages)} times need at least {len(stages) - 1} steps, and "
                         f"n_steps = {n_steps}")
    order, cost = _COST[method]
    expected = cost * (span / count) ** order
    if expected > _POOR and span > 0:
        warnings.warn(f"{count} steps of the reverse diffusion from t = {end.time:.3g} to {field.stop:.3g}: an error "
                      f"of about {min(expected, 1.0):.2g} in total variation is to be expected. "
                      f"{steps_for(method, 0.01, span)} steps bring it to 0.01", ConvergenceWarning, stacklevel=2)
    # what serves the last time serves all of them: coefficients of a spectral sum, for one
    Z = end.sample(n, rng)
    if n:
        field(Z[:1], field.stop)
    Z, path = Z / m.clock(end.time)[0], []
    with progress(verbose, count, "reverse diffusion", "step") as bar:
        for k, time in enumerate(stages):
            if k:
                Z = walk.stage(Z, stages[k - 1], time, method, count / max(span, 1e-300), corrector_steps, bar.update)
            path.append(m.unembed(m.clock(time)[0] * Z))
    path = path[len(stages) - len(shown):]
    return Trajectory(shown, np.stack(path)) if np.ndim(keep) or keep else path[-1]


class _Walk:
    """Steps of a reverse diffusion, in the coordinates and on the clock of Brownian motion."""

    def __init__(self, field, rng):
        self.field, self.manifold, self.rng = field, field.manifold, rng

    def noise(self, Z, u):
        """Take a step of Brownian motion of time u, exact where the manifold can."""
        m = self.manifold
        if u <= 0 or not len(Z):
            return Z
        if m.has_drift:  # flat space
            return Z + math.sqrt(u) * self.rng.standard_normal(Z.shape)
        return heat_sample(m, Z, u, self.rng)

    def age(self, t):
        """Return the variance of the kernels at time t on the clock of Brownian motion."""
        return float(self.manifold.clock(t)[1]) + self.field.smoothed

    def stage(self, Z, start, stop, method, density, corrector_steps, tick):
        """Go from one time to another in geometric progression of the age, with so many steps in an e-fold."""
        if start <= stop:
            return Z
        first, last = self.age(start), self.age(stop)
        count = max(1, round(density * math.log(first / last)))
        ages = np.geomspace(first, last, count + 1)
        step, owed = self.midpoint if method == "midpoint" else self.euler, 0.0
        for age, after in zip(ages[:-1], ages[1:], strict=True):
            Z, owed = step(Z, age, after, owed)
            for _ in range(corrector_steps):
                Z, owed = self.langevin(self.noise(Z, owed), after, _CORRECT * after), 0.0
            tick()
        return self.noise(Z, owed)

    def score(self, Z, age):
        """Return the score in the coordinates of Brownian motion."""
        m = self.manifold
        if not len(Z):
            return Z
        t = max(float(m.time_at(age - self.field.smoothed)), self.field.least)
        scale = m.clock(t)[0]
        return scale * self.field(scale * Z, t)[0]

    # steps return the points and the time of a random step that is owed to them, which the next one takes along

    def euler(self, Z, age, after, owed):
        delta = age - after
        Z = self.noise(Z, owed)
        return self.noise(self.manifold.exp(Z, delta * self.score(Z, age)), delta * after / age), 0.0

    def midpoint(self, Z, age, after, owed):
        m, delta, q = self.manifold, age - after, after / age
        noise = delta * q / (1 + q * q)
        Z = self.noise(Z, owed + noise)
        middle = m.exp(Z, 0.5 * delta * self.score(Z, age))
        back = log_back(m, middle, Z)
        return m.exp(middle, back + delta * self.score(middle, 0.5 * (age + after))), noise

    def langevin(self, Z, age, u):
        """Take a step of Langevin's of time u at the law of an age."""
        return self.noise(self.manifold.exp(Z, 0.5 * u * self.score(Z, age)), u)


def diffuse(manifold, X, times, *, random_state=None):
    """Run the forward process from points: data turned into noise.

    Parameters
    ----------
    manifold : Manifold
    X : array-like, shape (n, p) or (n, *point_shape)
        Points at time 0.
    times : sequence of float
        Times >= 0, at which the points are returned; in ascending order in the result.
    random_state : None, int, RandomState or Generator

    Returns
    -------
    Trajectory
        Each step is exact, so that the law at each time is, and that of points at several times.

    Raises
    ------
    ValueError
        If a time is negative or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.manifolds import Circle
    >>> from rdks.sampling import diffuse
    >>> path = diffuse(Circle(), np.ones((1000, 1)), [0.0, 0.01], random_state=0)
    >>> path.points.shape, bool(abs(path.points[1].std() - 0.1) < 0.01)
    ((2, 1000, 1), True)
    """
    manifold = validation.as_manifold(manifold, int(np.prod(np.shape(X)[1:])))
    times = np.sort(np.atleast_1d(np.asarray(times, dtype=float)))
    if times.ndim != 1 or not times.size or not ((times >= 0) & (times < np.inf)).all():
        raise ValueError(f"times = {times!r}: expected finite numbers >= 0")
    X = np.asarray(validation.as_numbers(X, manifold), dtype=float)
    Z = validation.as_points(manifold, X.reshape(len(X), int(np.prod(X.shape[1:]))), "raise")
    rng, before, path = validation.as_generator(random_state), 0.0, []
    for t in times:
        Z, before = (heat_sample(manifold, Z, float(t - before), rng) if t > before else Z), t
        path.append(manifold.unembed(Z))
    return Trajectory(times, np.stack(path))


def langevin(model, X, t=None, *, n_steps=100, step_size=None, random_state=None, verbose=False):
    r"""Run Langevin's diffusion, whose law tends to the model's at one time.

    Parameters
    ----------
    model : ScoreModel
    X : array-like, shape (n, p) or (n, *point_shape)
        Where the chains begin.
    t : float, optional
        Time of the law; the model's ``min_time_`` by default.
    n_steps : int
    step_size : float, optional
        Time :math:`\epsilon` of a step, on the clock of Brownian motion; by default a tenth of the variance of the
        kernels at time t.
    random_state : None, int, RandomState or Generator
    verbose : bool
        Show a progress bar.

    Returns
    -------
    ndarray, shape of X

    Notes
    -----
    :math:`dY=\tfrac12s_t(Y)\,du+dB` by steps :math:`Y\leftarrow\exp_Y(\tfrac\epsilon2s_t(Y))` and exact steps of
    Brownian motion, without a Metropolis test: the law in which the chains end is off by a share of the order of
    :math:`\epsilon` over the variance of the kernels. Chains do not find their way between modes that are far apart.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks import RDKSEstimator
    >>> from rdks.sampling import langevin
    >>> est = RDKSEstimator("circle", bandwidth=0.2).fit(np.array([[1.0]]))
    >>> Y = langevin(est, np.full((500, 1), 1.3), n_steps=60, random_state=0)
    >>> bool(abs(Y.mean() - 1.0) < 0.05 and abs(Y.std() - 0.2) < 0.03)
    True
    """
    field = Field(model, t)
    m = field.manifold
    Z, shape = points_of(field, X)
    if not isinstance(n_steps, numbers.Integral) or isinstance(n_steps, bool) or n_steps < 0:
        raise ValueError(f"n_steps = {n_steps!r}: expected an integer >= 0")
    scale, clock = _clock(field)
    _age(field)
    if step_size is None:
        step_size = _CORRECT * (clock + field.smoothed)
    elif not isinstance(step_size, numbers.Real) or not 0 < step_size < np.inf:
        raise ValueError(f"step_size = {step_size!r}: expected a positive finite number")
    walk = _Walk(field, validation.as_generator(random_state))
    Z = Z / scale
    with progress(verbose, n_steps, "Langevin", "step") as bar:
        for _ in range(n_steps):
            Z = walk.langevin(Z, clock + field.smoothed, float(step_size))
            bar.update()
    return m.unembed(scale * Z).reshape(shape)


def denoise(model, X, t):
    r"""Return the best guess of the points behind noisy ones: one step of Tweedie's.

    Parameters
    ----------
    model : ScoreModel
    X : array-like, shape (n, p) or (n, *point_shape)
        Points that have diffused for a time `t` since the model's time 0.
    t : float
        At least the model's ``min_time_``, which None stands for.

    Returns
    -------
    ndarray, shape of X

    Notes
    -----
    :math:`\exp_x\bigl(t\,s_t(x)\bigr)`, in flat space the posterior mean :math:`E[X_0|X_t=x]` (Robbins 1956; Miyasawa
    1961); on curved space for small t. For the Ornstein-Uhlenbeck process
    :math:`e^{t/2}\bigl(x+(1-e^{-t})s_t(x)\bigr)`, exactly.

    Raises
    ------
    UnsupportedError
        On discretised spaces.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks import RDKSEstimator
    >>> from rdks.sampling import denoise
    >>> est = RDKSEstimator("euclidean", bandwidth=1e-3).fit(np.array([[0.0], [4.0]]))
    >>> denoise(est, np.array([[0.3], [3.5]]), 0.1).round(3)
    array([[0.],
           [4.]])
    """
    field = Field(model, t)
    m = field.manifold
    Z, shape = points_of(field, X)
    scale, clock = _clock(field)
    score = scale * field(Z, field.stop)[0] if len(Z) else Z
    return m.unembed(m.exp(Z / scale, clock * score)).reshape(shape)
