r"""The probability flow: curves along which the law of a diffusion moves without noise, and the density they carry.

With the forward drift b, the law :math:`p_t` of the diffusion is carried by the field (Song et al., Score-based
generative modeling through stochastic differential equations, 2021, eq. 13; on manifolds De Bortoli et al.,
Riemannian score-based generative modelling, 2022, section 3)

.. math:: \dot y=b(y)-\tfrac12s_t(y),\qquad
          \frac{d}{dt}\log p_t(y_t)=-\operatorname{div}\bigl(b-\tfrac12s_t\bigr)(y_t).

Equations are solved in :math:`\log(t+a)`, in which the flow away from an isolated observation is uniform.
"""
from __future__ import annotations

import numbers
import warnings

import numpy as np
from scipy.integrate import solve_ivp
from sklearn.exceptions import ConvergenceWarning

from .. import _validation as validation
from ..errors import ScoreError
from ..manifolds import Manifold
from .models import Field, Terminal, Trajectory, log_back, points_of, progress
from .reverse import frames

__all__ = ["log_likelihood", "probability_flow", "transport"]

# Points whose curves are solved for together: they share their steps.
_ROWS = 4096
# A speed that makes a solver take its step again.
_TOO_FAST = 1e30
# What is not right to this is an error.
_LOOSE = 1e-2
# Times at which an invariant law may replace the model's, for likelihoods: its error is this.
_MIXED = 1e-9
# Step of differences of the score along geodesics, in units of the root of the time that smoothed it.
_STEP = 1e-3
#: How the divergence of a score may be found.
DIVERGENCES = ("auto", "exact", "differences", "hutchinson")


def _check_tol(tol):
    if not isinstance(tol, numbers.Real) or isinstance(tol, bool) or not 1e-13 <= tol < 1:
        raise ValueError(f"tol = {tol!r}: expected a number from 1e-13 to 1")
    return float(tol)


def _onto(manifold, Z):
    """Return the nearest points (of the covering space, if there is one): a solver leaves the manifold by its error."""
    return Manifold.project(manifold, Z) if manifold.kernel == "factors" else manifold.project(Z)


def _velocity(manifold, Z, score):
    V = manifold.velocity(Z, -0.5 * score)
    return V + manifold.drift(Z) if manifold.has_drift else V


def _solve(field, Z, start, stop, tol, rates=None, keep=None, step=None):
    """Follow the flow of a field from one time to another.

    Parameters
    ----------
    field : Field
    Z : ndarray, shape (n, embed_dim)
    start, stop : float
    tol : float
        Error per point, in units of the root of the smallest time on the way.
    rates : callable, optional
        (Z, t, rows) -> velocity and rates of change (n, k) of further numbers, which are integrated too.
    keep : sequence of float, optional
        Times at which to return the points, from `start` to `stop`.
    step : callable, optional
        Called with the number of points done.

    Returns
    -------
    Z : ndarray, shape (n, embed_dim), or (len(keep), n, embed_dim)
    extra : ndarray, shape (n, k)
    """
    manifold = field.manifold
    age = field.smoothed
    if min(start, stop) + age <= 0:
        raise ValueError(f"{type(field.model).__name__} is asked for the time 0 of data without noise, where a score "
                         "need not exist: stop at a time t > 0")
    scale = np.sqrt(min(start, stop) + age)
    width = Z.shape[1]
    out, extras = [], []
    clock = np.log(np.array([start, stop]) + age)
    times = None if keep is None else np.clip(np.log(np.asarray(keep, dtype=float) + age), *sorted(clock))
    for a in range(0, len(Z), _ROWS):
        rows = slice(a, min(a + _ROWS, len(Z)))
        n = rows.stop - a

        def speed(u, state, n=n, rows=rows):
            t = max(np.exp(u) - age, field.least)
            points = _onto(manifold, state[:n * width].reshape(n, width))
            if not np.isfinite(points).all():
                # a step so long that it leaves the half-space: the solver finds its error to be large, and shortens it
                return np.full(state.size, _TOO_FAST)
            if rates is None:
                V = _velocity(manifold, points, field(points, t)[0])
                return (np.exp(u) * V).ravel()
            V, more = rates(points, t, rows)
            return np.exp(u) * np.concatenate([V.ravel(), more.ravel()])

        extra = 0 if rates is None else rates(Z[rows], start, rows)[1].size
        state = np.concatenate([Z[rows].ravel(), np.zeros(extra)])
        # Lengths as the coordinates have them; the solver's norm is a mean over points, of which none may be forgotten.
        unit = scale * np.abs(manifold.velocity(Z[rows], np.ones_like(Z[rows])))
        unit = np.concatenate([np.maximum(unit, 1e-3 * scale).ravel(), np.ones(extra)])
        achieved = tol
        while (found := solve_ivp(speed, clock, state, method="DOP853", atol=achieved / np.sqrt(n) * unit, rtol=1e-13,
                                  t_eval=times)).status != 0:
            achieved *= 100.0
            if achieved > _LOOSE:
                reached = np.exp(found.t[-1]) - age if found.t.size else start
                raise ScoreError(f"the probability flow of rows {a} to {rows.stop - 1} cannot be followed beyond "
                                 f"t = {reached:.4g} on its way from {start:.4g} to {stop:.4g}: {found.message} The "
                                 "score is not smooth there; stop at a larger time")
        if achieved > tol:
            warnings.warn(f"the probability flow of rows {a} to {rows.stop - 1} reaches a tolerance of {achieved:.2g}, "
                          f"not tol={tol:.2g}: the score is not smooth enough, or not precise enough",
                          ConvergenceWarning, stacklevel=4)
        states = found.y.T if times is not None else found.y[:, -1:].T
        out.append(np.stack([_onto(manifold, y[:n * width].reshape(n, width)) for y in states]))
        extras.append(found.y[n * width:, -1].reshape(n, -1))
        if step is not None:
            step(n)
    out = np.concatenate(out, axis=1)
    return out if keep is not None else out[0], np.concatenate(extras)


def transport(model, X, start, stop=None, *, tol=1e-6):
    """Carry points along the probability flow from one noise level to another.

    Parameters
    ----------
    model : ScoreModel
    X : array-like, shape (n, p) or (n, *point_shape)
    start : float
        Time of the points as they are.
    stop : float, optional
        Time of the points returned, larger (data to noise) or smaller (noise to data); the model's ``min_time_`` by
        default.
    tol : float
        Error allowed of a point, in units of the root of the smallest time on the way.

    Returns
    -------
    ndarray, shape of X
        If `X` has the law of the model at `start`, these have its law at `stop`. The map is invertible: back and forth
        returns the points.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks import RDKSEstimator
    >>> from rdks.sampling import transport
    >>> est = RDKSEstimator("circle", bandwidth=0.5).fit(np.array([[0.0], [1.0], [2.5]]))
    >>> X = np.array([[0.3], [2.0]])
    >>> there = transport(est, X, 0.0, 1.0)
    >>> bool(np.allclose(transport(est, there, 1.0, 0.0), X, atol=1e-4))
    True
    """
    tol = _check_tol(tol)
    field, other = Field(model, stop), Field(model, start)
    Z, shape = points_of(field, X)
    if field.stop != other.stop:
        Z, _ = _solve(field, Z, other.stop, field.stop, tol)
    return field.manifold.unembed(Z).reshape(shape)


def probability_flow(model, n_samples=1, *, t=None, tol=1e-4, max_time=None, terminal=None, keep=0, random_state=None,
                     verbose=False):
    """Draw from a model by its probability flow: noise is drawn once, and carried back along deterministic curves.

    Parameters
    ----------
    model : ScoreModel
    n_samples : int
    t : float, optional
        Time of the law to draw from; the model's ``min_time_`` by default.
    tol : float
        Error allowed of a point, in units of the root of `t` (of the bandwidth, for a fitted density).
    max_time, terminal
        Where the flow starts, see :func:`reverse_sde`.
    keep : int or sequence of float
        Times at which points are kept, see :func:`reverse_sde`; a :class:`Trajectory` is returned then.
    random_state : None, int, RandomState or Generator
    verbose : bool
        Show a progress bar.

    Returns
    -------
    ndarray, shape (n_samples, *point_shape), or Trajectory

    Warns
    -----
    ConvergenceWarning
        If the solver cannot reach `tol`: with the tolerance that it reached.

    Raises
    ------
    ScoreError
        If a score on the way is not finite, or the flow cannot be followed to 0.01.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks import RDKSEstimator
    >>> from rdks.sampling import probability_flow
    >>> est = RDKSEstimator("circle", bandwidth=0.2).fit(np.array([[1.0]]))
    >>> Y = probability_flow(est, 500, random_state=0)
    >>> bool(abs(Y.mean() - 1.0) < 0.05 and abs(Y.std() - 0.2) < 0.03)
    True
    """
    n, tol = validation.as_count(n_samples), _check_tol(tol)
    field = Field(model, t)
    end = Terminal(field, max_time, terminal)
    m = field.manifold
    Z = end.sample(n, validation.as_generator(random_state))
    times = frames(field, end.time, keep) if np.ndim(keep) or keep else None
    with progress(verbose, n, "probability flow", "point") as bar:
        if n:
            Z, _ = _solve(field, Z, end.time, field.stop, tol, keep=times, step=bar.update)
        elif times is not None:
            Z = np.broadcast_to(Z, (len(times), *Z.shape))
    if times is None:
        return m.unembed(Z)
    return Trajectory(times, np.stack([m.unembed(z) for z in Z]))


def log_likelihood(model, X, t=None, *, tol=1e-8, max_time=None, terminal=None, divergence="auto", n_probes=10,
                   random_state=None, return_error=False):
    r"""Evaluate the log density of the law that the probability flow of a model ends in.

    Parameters
    ----------
    model : ScoreModel
    X : array-like, shape (n, p) or (n, *point_shape)
    t : float, optional
        Time of the law; the model's ``min_time_`` by default.
    tol : float
        Error allowed in each step of the solver, of the logarithm and of points in units of the root of `t`.
    max_time, terminal
        Where the flow ends, see :func:`reverse_sde`; the invariant law is taken only where it is right to 1e-9.
    divergence : {"auto", "exact", "differences", "hutchinson"}
        Of the score: the model's own; by central differences along an orthonormal frame (2d scores, right to about
        1e-6 of its size); or estimated from differences along `n_probes` random directions (Hutchinson), which stay the
        same along a curve. "auto" is the first of these that costs no more than `n_probes` directions.
    n_probes : int
    random_state : None, int, RandomState or Generator
        For the directions.
    return_error : bool

    Returns
    -------
    log_density : ndarray, shape (n,)
        Natural logarithms, per unit of Riemannian volume.
    error : ndarray, shape (n,)
        With `return_error`: the standard error of Hutchinson's estimate, 0 for the others.

    Warns
    -----
    ConvergenceWarning
        If the solver cannot reach `tol`: with the tolerance that it reached.

    Raises
    ------
    ScoreError
        If a score on the way is not finite, or the flow cannot be followed to 0.01.

    Notes
    -----
    .. math:: \log p_{t}(x)=\log p_T(y_T)+\int_{t}^T\operatorname{div}\bigl(b-\tfrac12s_u\bigr)(y_u)\,du,
              \qquad y_{t}=x .

    For the score of a density that follows the heat equation this is that density. For any other field it is the
    density of what :func:`probability_flow` draws, and integrates to one.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks import RDKSEstimator
    >>> from rdks.sampling import log_likelihood
    >>> est = RDKSEstimator("circle", bandwidth=0.5).fit(np.array([[0.0], [1.0], [2.5]]))
    >>> X = np.array([[0.3], [4.0]])
    >>> bool(np.allclose(log_likelihood(est, X), est.score_samples(X), atol=1e-6))
    True
    """
    tol = _check_tol(tol)
    if divergence not in DIVERGENCES:
        raise ValueError(f"divergence = {divergence!r}: expected one of {DIVERGENCES}")
    if not isinstance(n_probes, numbers.Integral) or n_probes < 1:
        raise ValueError(f"n_probes = {n_probes!r}: expected a positive integer")
    field = Field(model, t)
    m = field.manifold
    Z, _ = points_of(field, X)
    end = Terminal(field, max_time, terminal, tol=_MIXED)
    if divergence == "auto":
        divergence = "exact" if field.has_divergence else "differences" if m.dim <= n_probes else "hutchinson"
    if divergence == "exact" and not field.has_divergence:
        raise ValueError(f"divergence='exact': {type(model).__name__} has no score_divergence; use 'differences' or "
                         "'hutchinson'")
    probes = None
    if divergence == "hutchinson":
        probes = validation.as_generator(random_state).standard_normal((n_probes, *Z.shape))
    # of the drift, which is linear
    constant = -0.5 * m.dim if m.has_drift else 0.0

    def rates(points, t, rows):
        score, exact = field(points, t, divergence == "exact")
        div = exact[:, None] if exact is not None else _divergences(
            field, points, t, None if probes is None else probes[:, rows])
        return _velocity(m, points, score), constant - 0.5 * div

    ends, total = _solve(field, Z, field.stop, end.time, tol, rates)
    logs = end.log_density(ends) + total.mean(axis=1)
    if not return_error:
        return logs
    error = total.std(axis=1, ddof=1) / np.sqrt(n_probes) if probes is not None and n_probes > 1 else np.zeros(len(Z))
    return logs, error


def _divergences(field, Z, t, probes):
    r"""Estimate divergences of the score by differences along geodesics; (n, 1) for a frame, (n, n_probes) for probes.

    Along the geodesic :math:`\gamma` with :math:`\dot\gamma(0)=v`, whose velocity is parallel,
    :math:`\langle\nabla_vs,v\rangle=\frac{d}{d\epsilon}\langle s(\gamma),\dot\gamma\rangle`.
    """
    m = field.manifold
    # directions that change smoothly from point to point, unlike those of a frame
    V = np.moveaxis(m.frame(Z), 1, 0) if probes is None else np.array([m.to_tangent(Z, xi) for xi in probes])
    scale = min(1.0, m.injectivity_radius, *m.scales) if m.scales else min(1.0, m.injectivity_radius)
    eps = _STEP * min(np.sqrt(t + field.smoothed), scale)
    size = np.linalg.norm(V, axis=2, keepdims=True)
    V = np.divide(V, size, out=np.zeros_like(V), where=size > 0)
    out = np.empty((len(Z), len(V)))
    for k, v in enumerate(V):
        slopes = []
        for sign in (eps, -eps):
            W = m.exp(Z, sign * v)
            along = -log_back(m, W, Z) / sign
            slopes.append(np.einsum("nw,nw->n", field(W, t)[0], along))
        out[:, k] = (slopes[0] - slopes[1]) / (2 * eps) * size[k, :, 0] ** 2
    return out.sum(axis=1, keepdims=True) if probes is None else out
