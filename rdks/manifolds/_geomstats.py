r"""The only file that imports geomstats: its spaces as manifolds of rdks.

:func:`recognise` returns the rdks manifold, with its exact kernel, that equals a geomstats space, and
:class:`FromGeomstats` wraps any other space that has an exponential map and a logarithm. Its kernel is the first term
of the expansion for small times,

.. math:: k_t(x,y)\approx(2\pi t)^{-d/2}\,\theta(x,y)^{-1/2}\,e^{-r^2/2t}\,e^{st/12},                            (1)

where :math:`\theta` is the Jacobian determinant of the exponential map from orthonormal coordinates and s the scalar
curvature where it is constant (0 where it is not). Everything is measured from the exponential map.

How it is computed
------------------
Let :math:`w` be the orthonormal coordinates of :math:`\log_y x`, and :math:`J=\partial\exp_y/\partial w` there, with
values in an orthonormal frame at x, by central differences of order four. Then :math:`r=|w|`, :math:`\theta=|\det J|`
and :math:`\log_xy=-Jw`, as a geodesic has constant speed. With :math:`F=\log\theta` as a function of w,

.. math:: \nabla_x\log k=\log_xy/t-\tfrac12J^{-\top}\partial_wF,\qquad
          \frac{\Delta_xk}k=\frac{r^2}{t^2}-\frac dt+c,\quad c=\tfrac14|\nabla F|^2-\tfrac12\Delta F.            (2)

The terms of order 1/t have no others because :math:`\Delta r^2=2d+2\langle w,\partial_wF\rangle` (what makes
(1) the right leading term). In the coordinates w the metric is :math:`g=J^\top J`, so that
:math:`\Delta F=\theta^{-1}\partial_i(\theta g^{ij}\partial_jF)`; differences along the eigenvectors of g need
no mixed ones. All of it needs one logarithm per pair, however many derivatives.

*Steps.* A difference of order four with step h has a truncation error of :math:`h^4/30\ell^4` (:math:`\ell` the length
on which the exponential map bends) and a rounding error of :math:`1.5\,\epsilon\sigma/h`, with :math:`\epsilon` the
measured noise of exp relative to its coordinates and :math:`\sigma` the length in which these change by
their own size. They balance at :math:`h=(30\epsilon\sigma\ell^4)^{1/5}`, 1.5e-3 on a unit sphere, where J is good to
2e-13. The first h is that for :math:`\ell=1`; where differences of order two and four disagree by more than the noise
allows it is made smaller. Second differences, of log theta, take steps of 2h: c is good to about :math:`h^2`, 2e-6.

*Closed forms.* On Stiefel manifolds with the canonical metric and on Grassmann manifolds exp, log and J are those of
:mod:`rdks.manifolds._stiefel`, exact to rounding; only log theta is differenced, with :math:`h=(\epsilon\sigma)^{1/4}`,
so that c is good to about 1e-7. geomstats' own exp is still compared with ours when a space is examined.
"""
from __future__ import annotations

import hashlib
import importlib
import threading
import types
import warnings
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..errors import PointError, UnsupportedError
from .base import Manifold

__all__ = ["FromGeomstats", "load_geomstats", "recognise"]

_EPS = float(np.finfo(float).eps)
# Points that geomstats sees in one call; more do not make it faster.
_ROWS = 60_000
# Bytes of distances and volume densities that a manifold keeps, so that other times need no geomstats.
_KEPT = 128 * 2**20
# Newton steps from a start that is close, and from one that is not.
_NEWTON, _SHOTS = 10, 30
# Calls of geomstats: it warns process-wide and its random points come from process-wide state.
_LOCK = threading.RLock()


def load_geomstats():
    """Import geomstats, also on versions of numpy newer than its newest release knows.

    geomstats 2.8.0 imports ``numpy.trapz``, which numpy 2.4 removed in favour of
    ``numpy.trapezoid``. The old name is lent to numpy for the duration of the import only. Call
    this once before importing geomstats yourself.

    Returns
    -------
    module
        The package ``geomstats``.

    Examples
    --------
    >>> from rdks.manifolds import load_geomstats
    >>> load_geomstats().__name__
    'geomstats'
    """
    lent = not hasattr(np, "trapz")
    if lent:
        np.trapz = np.trapezoid  # noqa: NPY201
    try:
        with warnings.catch_warnings():
            # its loader uses a protocol that Python is retiring
            warnings.simplefilter("ignore", ImportWarning)
            module = importlib.import_module("geomstats")
            importlib.import_module("geomstats.backend")
    finally:
        if lent:
            del np.trapz  # noqa: NPY201
    return module


# ------------------------------------------------------------------------------------ equal spaces


def recognise(space):
    """Return the rdks manifold that equals a geomstats space, or the space wrapped.

    Parameters
    ----------
    space : geomstats space
        Equipped with a metric.

    Returns
    -------
    Manifold
        With an exact kernel for: ``Euclidean`` and ``Matrices``; ``Hypersphere`` in extrinsic coordinates and
        ``Stiefel(n, 1)``; ``SpecialOrthogonal(n)`` with its bi-invariant metric, as matrices up to size six, and as
        rotation vectors for n = 3; ``Hyperboloid``, ``PoincareBall`` and ``PoincareHalfSpace`` (dimension two or
        more); ``SPDMatrices`` with the log-Euclidean metric, and with the affine-invariant one (exact up to size two);
        products of these. Each with the metric that geomstats gives it, unscaled, and points written as geomstats
        writes them. Any other space as :class:`FromGeomstats`, whose kernel is approximate.

    Raises
    ------
    ValueError
        If `space` is not a geomstats space.
    UnsupportedError
        If the space lacks what :class:`FromGeomstats` needs; the message says what.

    Examples
    --------
    >>> from rdks.manifolds import load_geomstats
    >>> from rdks.manifolds._geomstats import recognise
    >>> _ = load_geomstats()
    >>> from geomstats.geometry.hypersphere import Hypersphere
    >>> from geomstats.geometry.grassmannian import Grassmannian
    >>> recognise(Hypersphere(2))
    Sphere(dim=2, coords='extrinsic', radius=1.0)
    >>> recognise(Grassmannian(3, 1)).exactness
    'asymptotic'
    """
    return _equal(_checked(space)) or FromGeomstats(space)


def _checked(space):
    load_geomstats()
    from geomstats.geometry.complex_manifold import ComplexManifold
    from geomstats.geometry.manifold import Manifold as TheirManifold

    if isinstance(space, ComplexManifold):
        raise UnsupportedError(f"the geomstats space {type(space).__name__} has complex points, and data here are "
                               "real. Use a real form of the space")
    if not isinstance(space, TheirManifold):
        raise ValueError(f"manifold = {space!r}: expected a geomstats space, an instance of "
                         "geomstats.geometry.manifold.Manifold")
    return space


def _equal(space):
    """Return the rdks manifold that equals a space, None if there is none."""
    from geomstats.geometry.nfold_manifold import NFoldManifold, NFoldMetric
    from geomstats.geometry.product_manifold import ProductManifold, ProductRiemannianMetric

    from .product import Product

    # types are compared, not instances: a subclass may have changed anything
    kind, metric = type(space), type(getattr(space, "metric", None))
    if (kind, metric) == (ProductManifold, ProductRiemannianMetric):
        # points are those of the factors one after the other once they are flat, stacked or not
        parts = [_equal(factor) for factor in space.factors]
        return Product(*parts) if all(part and part.kernel == "factors" for part in parts) else None
    if (kind, metric) == (NFoldManifold, NFoldMetric):
        part = _equal(space.base_manifold) if space.metric.scales is None else None
        return Product(*[part] * space.n_copies) if part and part.kernel == "factors" else None
    return _equal_single(space, kind, metric)


def _equal_single(space, kind, metric):
    from geomstats.geometry.euclidean import CanonicalEuclideanMetric
    from geomstats.geometry.euclidean import Euclidean as TheirEuclidean
    from geomstats.geometry.hyperboloid import Hyperboloid, HyperboloidMetric
    from geomstats.geometry.hypersphere import Hypersphere, HypersphereMetric
    from geomstats.geometry.invariant_metric import BiInvariantMetric
    from geomstats.geometry.matrices import Matrices, MatricesMetric
    from geomstats.geometry.poincare_ball import PoincareBall, PoincareBallMetric
    from geomstats.geometry.poincare_half_space import PoincareHalfSpace, PoincareHalfSpaceMetric
    from geomstats.geometry.spd_matrices import SPDAffineMetric, SPDLogEuclideanMetric, SPDMatrices
    from geomstats.geometry.special_orthogonal import _SpecialOrthogonal3Vectors, _SpecialOrthogonalMatrices
    from geomstats.geometry.stiefel import Stiefel, StiefelCanonicalMetric
    from geomstats.geometry.symmetric_matrices import SymmetricMatrices

    from .euclidean import Euclidean
    from .hyperbolic import Hyperbolic
    from .lie import SpecialOrthogonal
    from .rotations import SO3
    from .spd import SPD
    from .sphere import Sphere

    dim = space.dim
    charts = {Hyperboloid: "hyperboloid", PoincareBall: "ball", PoincareHalfSpace: "half_space"}
    match (kind, metric):
        case (K, M) if (K, M) in ((TheirEuclidean, CanonicalEuclideanMetric), (Matrices, MatricesMetric)):
            return Euclidean(dim)
        case (K, M) if (K, M) == (Hypersphere, HypersphereMetric) and not space.intrinsic:
            return Sphere(dim)
        case (K, M) if (K, M) == (Stiefel, StiefelCanonicalMetric) and space.p == 1:
            return Sphere(dim)
        case (K, M) if (K, M) == (_SpecialOrthogonalMatrices, BiInvariantMetric) and 2 <= space.n <= 6:
            return SO3(coords="matrix") if space.n == 3 else SpecialOrthogonal(space.n)
        case (K, M) if (K, M) == (_SpecialOrthogonal3Vectors, BiInvariantMetric):
            return SO3(coords="rotvec")
        case (K, M) if dim >= 2 and (K, M) in ((Hyperboloid, HyperboloidMetric), (PoincareBall, PoincareBallMetric),
                                               (PoincareHalfSpace, PoincareHalfSpaceMetric)):
            return Hyperbolic(dim, coords=charts[kind])
        case (K, M) if (K, M) == (SPDMatrices, SPDAffineMetric):
            return SPD(space.n, metric="affine_invariant")
        case (K, M) if (K, M) == (SPDMatrices, SPDLogEuclideanMetric):
            image = space.metric.image_space
            if (type(image), type(image.metric)) == (SymmetricMatrices, MatricesMetric):
                return SPD(space.n)
    return None


# ---------------------------------------------------------------------------------- calls, safely


@contextmanager
def _quiet():
    """Call geomstats: one thread at a time, its warnings ignored.

    It warns of 0/0 and of iterations that do not converge; every result used here is checked instead.
    """
    with _LOCK, warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _global_draws(rng):
    """Let numpy's global functions, from which geomstats draws, draw from `rng`; the user's state is untouched."""
    from numpy.random import get_bit_generator, set_bit_generator

    with _LOCK:
        own = get_bit_generator()
        set_bit_generator(rng.bit_generator)
        try:
            yield
        finally:
            set_bit_generator(own)


class _Calls:
    """The functions of a geomstats space on flat rows: points and vectors are (n, m), m = prod(shape).

    `single` lists the functions that are called row by row, as they do not take batches.
    """

    def __init__(self, space, single=()):
        self.space, self.shape, self.single = space, tuple(space.shape), set(single)
        self.width = int(np.prod(self.shape))

    def _function(self, name):
        metric, space = self.space.metric, self.space
        return {"exp": metric.exp, "log": metric.log, "inner": metric.inner_product, "to_tangent": space.to_tangent,
                "projection": space.projection, "belongs": space.belongs}[name]

    def call(self, name, *rows, single=None, **keywords):
        """Return the values at each row as an array (n, ...), whatever geomstats squeezes."""
        function, n = self._function(name), len(rows[0])
        rows = [np.array(a, dtype=float).reshape(n, *self.shape) for a in rows]
        with _quiet():
            if name in self.single if single is None else single:
                found = [np.asarray(function(*(a[i] for a in rows), **keywords)).ravel() for i in range(n)]
            else:
                found = function(*rows, **keywords)
            found = np.asarray(found)
            if np.iscomplexobj(found):  # a matrix logarithm that has no real value
                found = np.where(np.abs(found.imag) <= 1e-9 * (1 + np.abs(found.real)), found.real, np.nan)
        return found.reshape(n) if name in ("belongs", "inner") else found.reshape(n, self.width)

    def settle(self, name, *rows):
        """Find out whether a function takes batches, and return its values; its own error if it has none."""
        one_by_one = self.call(name, *rows, single=True)
        try:
            batch = self.call(name, *rows, single=False)
            agree = np.allclose(batch, one_by_one, rtol=1e-5, atol=1e-7, equal_nan=True)
        except Exception:  # of whatever type: the rows one by one raised nothing
            agree = False
        if not agree:
            self.single.add(name)
        return one_by_one

    def exp(self, V, X):
        return self.call("exp", V, X)

    def log(self, Y, X):
        """Return logarithms; NaN for a row of which geomstats' log raises an error."""
        try:
            return self.call("log", Y, X)
        except Exception:
            # one row that fails takes its batch along; what failed is found out, and raised, by `_connect`
            out = np.full(np.shape(Y), np.nan)
            for i in range(len(out)):
                try:
                    out[i] = self.call("log", Y[i:i + 1], X[i:i + 1], single=True)
                except Exception:
                    continue
            return out

    def gram(self, vectors, X):
        """Return the inner products of k tangent vectors, (n, k, m), at each point; shape (n, k, k)."""
        n, k = vectors.shape[:2]
        a, b = np.triu_indices(k)
        values = self.call("inner", vectors[:, a].reshape(-1, self.width), vectors[:, b].reshape(-1, self.width),
                           np.repeat(X, len(a), axis=0)).reshape(n, len(a))
        out = np.empty((n, k, k))
        out[:, a, b] = out[:, b, a] = values
        return out

    def random(self, n, rng):
        """Draw points; shape (n, m)."""
        with _global_draws(rng), _quiet():
            # random_point(1) has no axis of points in some spaces and one in others
            return np.asarray(self.space.random_point(n_samples=n)).reshape(n, self.width)

    def declared_radius(self, X):
        """Return the injectivity radius that geomstats gives at each point, None where it gives none."""
        metric = self.space.metric
        with _quiet():
            try:
                radius = metric.injectivity_radius(X.reshape(len(X), *self.shape))
            except (NotImplementedError, AttributeError):
                return None
        # a ScalarProductMetric hands on that of the metric it scales
        radius = np.asarray(radius, dtype=float) * np.sqrt(getattr(metric, "scale", 1.0))
        return np.maximum(np.broadcast_to(radius.reshape(-1) if radius.size > 1 else radius, len(X)), 0.0)


class _ClosedCalls(_Calls):
    """The same where exp, its differential and log have closed forms of ours, `geodesics`."""

    def __init__(self, space, geodesics, single=()):
        super().__init__(space, single)
        self.geodesics = geodesics

    def _rows(self, function, *rows):
        """Call a function on the finite rows; NaN for the others, and for what becomes of them."""
        rows = [np.asarray(a, dtype=float) for a in rows]
        good = np.isfinite(np.concatenate([a.reshape(len(a), -1) for a in rows], axis=1)).all(axis=1)
        out = np.full(rows[0].shape, np.nan)
        out[good] = function(*(a[good].reshape(-1, *self.shape) for a in rows)).reshape(-1, self.width)
        return out

    def exp(self, V, X):
        return self._rows(self.geodesics.exp, X, V)

    def log(self, Y, X):
        return self._rows(self.geodesics.log, X, Y)

    def random(self, n, rng):
        Z = super().random(n, rng)
        # geomstats' own are off by the condition number of a random matrix, squared
        return self.call("projection", Z)

    def differential(self, V, X, T):
        """Return exp_X(V), (n, m), and its derivatives in the directions T, (n, k, m), for finite rows."""
        n, k = T.shape[:2]
        end, D = self.geodesics.differential(
            X.reshape(n, *self.shape), V.reshape(n, *self.shape), T.reshape(n, k, *self.shape))
        return end.reshape(n, self.width), D.reshape(n, k, self.width)


def _calls_of(space, single=()):
    """Return the functions of a space: closed forms where there are any, else those of geomstats."""
    from geomstats.geometry.grassmannian import Grassmannian, GrassmannianCanonicalMetric
    from geomstats.geometry.scalar_product_metric import ScalarProductMetric
    from geomstats.geometry.stiefel import Stiefel, StiefelCanonicalMetric

    from ._stiefel import GrassmannGeodesics, StiefelGeodesics

    metric = space.metric
    if type(metric) is ScalarProductMetric:  # geodesics do not depend on the unit of length
        metric = metric.underlying_metric
    # types are compared, not instances: a subclass may have changed anything
    match (type(space), type(metric)):
        case (K, M) if (K, M) == (Stiefel, StiefelCanonicalMetric):
            return _ClosedCalls(space, StiefelGeodesics(space.n, space.p), single)
        case (K, M) if (K, M) == (Grassmannian, GrassmannianCanonicalMetric):
            return _ClosedCalls(space, GrassmannGeodesics(space.n, space.p), single)
    return _Calls(space, single)


class _Frames(NamedTuple):
    """Points with an orthonormal basis each: `vector` and `dual` (coordinates = dual @ tangent vector) are (n, d, m).

    `unit` is the length of a tangent vector of Euclidean length one, in the root mean square; `noise` is how far off,
    as a length, geomstats' exponential map is from this point.
    """

    point: np.ndarray
    vector: np.ndarray
    dual: np.ndarray
    unit: np.ndarray
    noise: np.ndarray

    @property
    def size(self):
        """Length in which the coordinates of the point change by their own size; (n,)."""
        return self.unit * _norm(self.point)

    def take(self, rows):
        return _Frames(*(a[rows] for a in self))

    def repeat(self, count):
        return _Frames(*(np.repeat(a, count, axis=0) for a in self))


class _Geodesics(NamedTuple):
    """Shortest geodesics from points y to points x: what `_connect` finds for each pair."""

    w: np.ndarray        # (n, d) initial velocity in the frame at y
    J: np.ndarray        # (n, d, d) differential of exp_y at w, in the frames at y and x
    step: np.ndarray     # (n,) step of the differences
    by_log: np.ndarray   # (n,) whether differences of points are logarithms, not differences of coordinates


def _norm(V):
    return np.sqrt(np.einsum("...j,...j->...", V, V))


def _edge(space, V, X):
    """Return the parameters s at which the geodesics exp_X(s V) meet an edge of the space, inf where none is known.

    V and X have shape (n, *space.shape); the result has shape (n,).
    """
    from geomstats.geometry.nfold_manifold import NFoldManifold, NFoldMetric
    from geomstats.geometry.product_manifold import ProductManifold, ProductRiemannianMetric
    from geomstats.geometry.scalar_product_metric import ScalarProductMetric
    from geomstats.geometry.spd_matrices import SPDBuresWassersteinMetric, SPDEuclideanMetric, SPDMatrices

    metric = space.metric
    if type(metric) is ScalarProductMetric:  # geodesics do not depend on the unit of length
        metric = metric.underlying_metric
    # types are compared, not instances: a subclass may have changed anything
    match (type(space), type(metric)):
        case (K, M) if (K, M) == (ProductManifold, ProductRiemannianMetric):
            parts = zip(space.factors, space.project_from_product(V), space.project_from_product(X), strict=True)
            return np.min([_edge(factor, *(np.reshape(A, (len(X), *factor.shape)) for A in rows))
                           for factor, *rows in parts], axis=0)
        case (K, M) if (K, M) == (NFoldManifold, NFoldMetric):
            rows = (A.reshape(-1, *space.base_manifold.shape) for A in (V, X))
            return _edge(space.base_manifold, *rows).reshape(len(X), -1).min(axis=1)
        case (K, M) if K is SPDMatrices and M in (SPDBuresWassersteinMetric, SPDEuclideanMetric):
            lam, U = np.linalg.eigh(X)
            rows, columns = lam[:, :, None], lam[:, None, :]
            # exp_X(s V) = (1 + s L) X (1 + s L) with L X + X L = V, or X^(1/2) (1 + s L) X^(1/2): while 1 + s L > 0
            weight = rows + columns if M is SPDBuresWassersteinMetric else np.sqrt(rows * columns)
            lowest = np.linalg.eigvalsh(U.transpose(0, 2, 1) @ V @ U / weight)[:, 0]
            return np.where(lowest < 0, 1 / np.where(lowest < 0, -lowest, 1.0), np.inf)
    return np.full(len(X), np.inf)


def _span(T, dim):
    """Orthonormalise (as flat vectors) the most independent `dim` of the candidates T, (n, k, m).

    Gram-Schmidt that takes the first candidate of nearly the largest remaining length, so that ties are not
    decided by rounding. Returns the bases, (n, dim, m), and for each point whether the rank is `dim`.
    """
    rest, basis = T.copy(), np.zeros((len(T), dim, T.shape[2]))
    rows = np.arange(len(T))
    top = _norm(T).max(axis=1)
    good = top > 0
    for k in range(dim):
        length = _norm(rest)
        pick = (length >= 0.7 * length.max(axis=1, keepdims=True)).argmax(axis=1)
        u = rest[rows, pick]
        for _ in range(2):  # once more removes what rounding left
            u = u - np.einsum("njm,nj->nm", basis[:, :k], np.einsum("njm,nm->nj", basis[:, :k], u))
        size = _norm(u)
        good &= size > 1e-7 * top
        basis[:, k] = u / np.where(size > 0, size, 1.0)[:, None]
        rest = rest - np.einsum("nk,nm->nkm", np.einsum("nkm,nm->nk", rest, basis[:, k]), basis[:, k])
    good &= _norm(rest).max(axis=1) <= 1e-6 * top
    return basis, good


def _structure(value, seen):
    """Describe a value by its type and its parameters, equal for a copy; hashable."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (str, bytes, bool, int, float, complex, type, types.FunctionType,
                                           types.BuiltinFunctionType)):
        return value
    if isinstance(value, np.ndarray):
        return value.shape, value.dtype.str, value.tobytes()
    if isinstance(value, (list, tuple)):
        return tuple(_structure(v, seen) for v in value)
    if isinstance(value, dict):
        return tuple((str(k), _structure(v, seen)) for k, v in sorted(value.items(), key=lambda item: str(item[0])))
    if isinstance(value, types.MethodType):
        return value.__func__, _structure(value.__self__, seen)
    if id(value) in seen:  # metrics refer back to their spaces
        return "seen", seen[id(value)]
    seen[id(value)] = len(seen)
    fields = getattr(value, "__dict__", {})
    if type(value).__name__ == "ScalarProductMetric":  # the rest are its own wrappers of the metric it scales
        fields = {name: fields[name] for name in ("_space", "scale", "underlying_metric")}
    # private arrays are what a space has computed so far
    kept = {name: v for name, v in fields.items()
            if not (name.startswith("_") and (v is None or isinstance(v, np.ndarray)))}
    return type(value), _structure(kept, seen)


# ------------------------------------------------------------------------------------ the manifold


@dataclass(frozen=True, eq=False, repr=False)
class FromGeomstats(Manifold):
    r"""Any space of geomstats that has an exponential map and a logarithm, with an approximate heat kernel.

    Parameters
    ----------
    space : geomstats space
        Equipped with a metric. It must not be changed afterwards.

    Raises
    ------
    ValueError
        If `space` is not a geomstats space.
    UnsupportedError
        If it lacks a metric, an exponential map or a logarithm, if these contradict one another, if the metric is not
        positive definite, or if points are complex.

    Notes
    -----
    **Kernel.** Equation (1) of this module: the first term of the expansion for small times, symmetric in
    x and y, times :math:`e^{st/12}` where the scalar curvature s is the same at a few random points, as it is on
    homogeneous spaces. Its relative error is :math:`O(t)` where s varies and, where it is constant,
    :math:`O(t^2)` (exact on hyperbolic space of dimension three). Its mass is not exactly one, for the same
    reason. :meth:`estimate_error` measures the error, and fitting warns with it. Near points where geodesics
    focus (the antipode on a sphere) :math:`\theta\to0`: it is kept above :math:`(2+r^2/t)^{1-d}`, which is its
    effective size there, with no derivative. Geodesics other than the shortest one are left out.
    Edges of the space, where it has any, are not seen by the kernel: geodesics that leave geomstats' domain count.

    **Edges.** Some spaces are not complete: covariance matrices with the Bures-Wasserstein metric end at the singular
    ones, at the distance :math:`\sqrt{\lambda_{\min}}` from a matrix. :meth:`geodesic_length` says where a geodesic
    meets the edge. On that space geomstats' exponential map, :math:`(1+L)X(1+L)` with :math:`LX+XL=V`, goes on beyond
    it: the matrix is positive definite again, on the geodesic as the edge reflects it (the space is the quotient of all
    square matrices A by the rotations, :math:`X=AA^\top`, and the straight lines of A that are its geodesics pass
    through the singular ones). Such a geodesic has constant speed but is not the shortest way to its end. The walk of
    :meth:`heat_sample` therefore is reflected, as on :class:`Box`; the kernel leaves that out, and
    :meth:`estimate_error` counts it. Where geomstats' map leaves the space instead, :meth:`exp` raises an error.

    **Embedded coordinates.** A point is its array, flattened. A tangent vector is written in an orthonormal frame at
    its point, the first `dim` of the `embed_dim` numbers, the others zero: so Euclidean inner products are
    Riemannian ones, whatever the metric is, and :meth:`frame` returns unit vectors. The frame is a
    function of the point alone: tangent projections of the coordinate axes, orthonormalised. Hence a tangent
    vector must not be added to a point; :meth:`exp` and :meth:`push_tangent` know the frame. Scores are
    tangent vectors in the coordinates of geomstats.

    **What is asked of geomstats.** Its logarithm is only a start: each one is checked with the exponential map, and
    mended by Newton's method where it is wrong. Where the logarithm is an iteration of its own, Newton's method from
    the chord is tried first; its result is used if it is shorter than the injectivity radius, which proves it the
    shortest. Stiefel manifolds with the canonical metric and Grassmann manifolds have closed forms of our own for
    exp, its differential and log (:mod:`rdks.manifolds._stiefel`), some twenty to a hundred times as fast. Two spaces
    are equal if their types and parameters are. Random points are geomstats' own, drawn from the generator passed.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.manifolds import load_geomstats
    >>> from rdks.manifolds._geomstats import FromGeomstats
    >>> _ = load_geomstats()
    >>> from geomstats.geometry.spd_matrices import SPDBuresWassersteinMetric, SPDMatrices
    >>> space = SPDMatrices(2, equip=False).equip_with_metric(SPDBuresWassersteinMetric)
    >>> manifold = FromGeomstats(space)
    >>> manifold
    FromGeomstats(SPDMatrices, shape=(2, 2), metric=SPDBuresWassersteinMetric)
    >>> Z = manifold.embed(np.array([np.eye(2), np.diag([4.0, 1.0])]))
    >>> round(float(manifold.dist(Z[:1], Z[1:])[0]), 9)
    1.0
    """

    space: object

    exactness = "asymptotic"
    kernel = "pairs"
    #: Unknown: the volume is taken for infinite and the spectrum for continuous, which no rule relies on.
    log_volume = np.inf
    smallest_eigenvalue = 0.0
    is_homogeneous = False
    scales = ()
    #: Of log theta, relative to one; its slopes are good to some 1e-6, see the notes of the module.
    rounding, slope_rounding = 3e-12, 1e-6

    def __post_init__(self):
        _checked(self.space)
        self._set(_calls=None, _noise=_EPS, _key=None, _memo={}, _kept=_Kept(_KEPT))
        if getattr(self.space, "metric", None) is None:
            raise UnsupportedError(f"the geomstats space {type(self.space).__name__} has no metric. Give it one with "
                                   "space.equip_with_metric(...)")
        self._set(_calls=_calls_of(self.space))
        self._examine()
        # last: looking at a space fills in what it computes on demand
        self._set(_key=_structure(self.space, {}))

    def _set(self, **attributes):
        for name, value in attributes.items():
            object.__setattr__(self, name, value)

    def __getstate__(self):
        return {"space": self.space, "single": self._calls.single, "noise": self._noise, "memo": dict(self._memo)}

    def __setstate__(self, state):
        load_geomstats()
        self._set(space=state["space"], _calls=_calls_of(state["space"], state["single"]), _noise=state["noise"],
                  _memo=dict(state["memo"]), _kept=_Kept(_KEPT), _key=_structure(state["space"], {}))

    def __eq__(self, other):
        return isinstance(other, FromGeomstats) and self._key == other._key

    def __hash__(self):
        return hash(self._key)

    def __repr__(self):
        return f"FromGeomstats({self._name}, metric={type(self.space.metric).__name__})"

    @property
    def _name(self):
        return f"{type(self.space).__name__.lstrip('_')}, shape={self.point_shape}"

    # what the space must have

    def _refuse(self, why, error=None):
        found = f" ({type(error).__name__}: {error})" if error else ""
        raise UnsupportedError(
            f"the geomstats space {self._name} with metric {type(self.space.metric).__name__} {why}{found}. "
            "Equip the space with another metric, use a manifold of rdks, or write a subclass of "
            "rdks.manifolds.Manifold with a kernel of its own") from error

    def _examine(self):
        """Try everything that is needed at a few random points; raise UnsupportedError for what is missing."""
        calls, d = self._calls, self.dim
        try:
            P = calls.random(3, np.random.default_rng(0))
        except Exception as error:
            self._refuse("cannot draw random points", error)
        if np.iscomplexobj(P):
            self._refuse("has complex points, and data here are real")
        if not np.isfinite(P).all():
            self._refuse("draws random points that are not finite")
        try:
            candidates = np.eye(calls.width)[:3] + 0.1
            for name, *rows in (("to_tangent", np.resize(candidates, P.shape), P), ("belongs", P)):
                calls.settle(name, *rows)
            T = calls.call("to_tangent", np.resize(candidates, P.shape), P)
            calls.settle("inner", T, T, P)
        except Exception as error:
            self._refuse("lacks tangent spaces or an inner product", error)
        at = self._frames(P, self._refuse, exp_works=False)
        # a geodesic short enough to have its end within the unknown injectivity radius
        gap = np.inf
        for length in (0.1, 0.01, 0.001):
            w = length / np.sqrt(d) * np.ones((3, d))
            V = np.einsum("nd,ndm->nm", w, at.vector)
            try:
                Q = calls.settle("exp", V, P)
            except Exception as error:
                self._refuse("has no exponential map that works", error)
            if not np.isfinite(Q).all():
                continue
            if self._closed and not np.abs(calls.exp(V, P) - Q).max() <= 1e-12 * np.abs(Q).max():
                self._refuse("has geodesics other than those known for it: geomstats must have changed it")
            try:
                if self._closed:
                    back = np.einsum("ndm,nm->nd", at.dual, calls.log(Q, P))
                elif self._log_iterates:
                    back = self._shoot(at, self._frames(Q))
                else:
                    back = np.einsum("ndm,nm->nd", at.dual, calls.settle("log", Q, P))
            except Exception as error:
                self._refuse("has no logarithm that works", error)
            gap = _norm(back - w).max() / length
            if gap <= 1e-2:
                break
        else:
            self._refuse(f"has a logarithm that does not invert its exponential map: of vectors v of length {length}, "
                         f"log(exp(v)) - v has length {gap * length:.2g}")
        # noise: deviations of exp from a parabola along a stretch so short that it is one
        s = 1 + 1e-6 * np.arange(-4, 5)
        run = calls.exp((V[:, None] * s[:, None]).reshape(-1, calls.width), np.repeat(P, 9, axis=0)).reshape(3, 9, -1)
        smooth = np.polynomial.polynomial.polyvander(np.arange(-4, 5) / 4, 2)
        smooth = smooth @ np.linalg.pinv(smooth)
        rough = np.abs(run - np.einsum("ij,njm->nim", smooth, run)).max(axis=(1, 2)) / np.abs(run).max(axis=(1, 2))
        self._set(_noise=max(_EPS, float(rough.max())))
        if self._noise > 1e-4:
            self._refuse(f"has an exponential map that is known to {self._noise:.1g} only, too little to differentiate")
        at = self._frames(P)
        start, good = self._differential(at, np.zeros((3, d)), at)[1::3]
        if not (good.all() and np.abs(start - np.eye(d)).max() <= 1e-3):
            self._refuse("has an exponential map whose geodesics do not start with the velocities it is given")
        _, J, _, _, good = self._differential(at, w, self._frames(Q))
        speed = _norm(np.einsum("nkj,nj->nk", J, w)) / _norm(w)
        if not (good.all() and np.abs(speed - 1).max() <= 0.01):
            self._refuse("has an exponential map and an inner product that contradict each other: the speed of a "
                         f"geodesic changes by factors of {speed.min():.3g} to {speed.max():.3g}")

    # sizes

    def factors(self):
        return ()

    @property
    def dim(self):
        return int(self.space.dim)

    @property
    def point_shape(self):
        return tuple(self.space.shape)

    @property
    def embed_dim(self):
        return int(np.prod(self.point_shape))

    @property
    def volume(self):
        return np.inf

    @property
    def injectivity_radius(self):
        """What geomstats gives, at three random points, halved until logarithms there invert exponentials.

        Where geomstats gives nothing, 1 halved in that way: a length, not a proof.
        """
        if "radius" not in self._memo:
            self._memo["radius"] = self._measured_radius()
        return self._memo["radius"]

    @property
    def max_time(self):
        r"""Time at which the bandwidth reaches the curvature: :math:`\min(1/\kappa,R^2/8)` at a few random points.

        With the largest Ricci curvature :math:`\kappa` and the injectivity radius R that geomstats gives, if any.
        """
        if "max_time" not in self._memo:
            size = self._curvatures()[1]
            radius = self._calls.declared_radius(self.random(3, np.random.default_rng(2)))
            by_curvature = np.inf if size < 1e-6 else 1 / size
            self._memo["max_time"] = min(by_curvature, np.inf if radius is None else float(radius.min()) ** 2 / 8)
        return self._memo["max_time"]

    @property
    def scalar_curvature(self):
        """Scalar curvature, measured from the exponential map, if it is the same at four random points; else None."""
        return self._curvatures()[0]

    # points as the user writes them

    def embed(self, X):
        return self.project(np.asarray(X, dtype=float).reshape(len(X), self.embed_dim))

    def unembed(self, Z):
        return np.array(Z, dtype=float).reshape(len(Z), *self.point_shape)

    def push_tangent(self, X, V):
        at = self._frames(self.embed(X))
        return np.einsum("nd,ndm->nm", np.asarray(V)[:, :self.dim], at.vector).reshape(len(V), *self.point_shape)

    def _projected(self, Z):
        """Project points by geomstats, NaN where it cannot; None if the space has no projection."""
        if len(Z) == 0:
            return Z
        try:
            out = self._calls.call("projection", Z)
        except NotImplementedError:
            return None
        except Exception:  # a row that has no projection: the others still have one
            out = np.full(Z.shape, np.nan)
            for i in range(len(Z)):
                try:
                    out[i] = self._calls.call("projection", Z[i:i + 1], single=True)
                except Exception:
                    continue
        return out

    def _looseness(self, Z):
        """Return the least tolerance, a power of ten relative to the size, at which `belongs` holds; inf for none."""
        size = 10.0 ** np.ceil(np.log10(np.maximum(1.0, (Z**2).sum(axis=1))))
        loose = np.full(len(Z), np.inf)
        for atol in 10.0 ** np.arange(3, -13, -1):
            for unit in np.unique(size):
                rows = np.flatnonzero((size == unit) & np.isfinite(Z).all(axis=1))
                if rows.size:
                    holds = self._calls.call("belongs", Z[rows], atol=atol * unit).astype(bool)
                    loose[rows[holds]] = atol
        return loose

    def violation(self, X):
        Z = np.asarray(X, dtype=float).reshape(len(X), self.embed_dim)
        out = np.zeros(len(Z))
        if not len(Z):
            return out
        off = np.flatnonzero(~self._calls.call("belongs", Z).astype(bool))
        if off.size:
            out[off] = self._looseness(Z[off])
            projected = self._projected(Z[off])
            if projected is not None:
                moved = self._distance(projected, Z[off])
                # geomstats' projection moves points that are off by rounding far away in some spaces, and takes a
                # point beyond an edge to one upon it: then what `belongs` says counts
                near = np.isfinite(out[off])
                out[off] = np.where(near, np.fmin(out[off], moved), np.fmax(1.0, moved))
            out[off] = np.where(np.isfinite(out[off]), out[off], 1.0)
        return out

    def constraint(self):
        return (f"the distance to the nearest point of geomstats' {type(self.space).__name__.lstrip('_')}, relative to "
                "its size (at least 1 where geomstats' belongs() is false at every tolerance),")

    def remedy(self):
        return ("Correct the data (space.belongs(point) of geomstats tells points from others), or pass "
                "check_points='project' to use geomstats' projection.")

    def project(self, Z):
        """Return geomstats' projections of points, or points as they are where it moves ones that are right.

        NaN for a row that neither belongs to the space nor has a projection.
        """
        Z = np.array(Z, dtype=float)
        if not len(Z):
            return Z
        projected = self._projected(Z)
        if projected is None:
            projected = np.full(Z.shape, np.nan)
        far = np.flatnonzero(~(self._distance(projected, Z) <= 10 * self.tolerance))
        if far.size:
            right = self._calls.call("belongs", Z[far]).astype(bool)
            right[~right] = self._looseness(Z[far[~right]]) <= self.tolerance
            projected[far[right]] = Z[far[right]]
        return projected

    @staticmethod
    def _distance(moved, Z):
        """Return how far points are moved, relative to their size where that is above one; (n,)."""
        return _norm(moved - Z) / np.maximum(1.0, _norm(Z))

    # geometry

    def _frames(self, Z, fail=None, exp_works=True):
        """Return orthonormal frames at points; `fail` is called with the reason where there is none."""
        at, why = self._frames_where_any(Z, exp_works)
        row = next((i for i, reason in enumerate(why) if reason), None)
        if row is not None:
            if fail is not None:
                fail(why[row])
            raise PointError(f"{self!r} {why[row]}: no density can be defined there. Remove such points")
        return at

    def _frames_where_any(self, Z, exp_works=True):
        """Return orthonormal frames at points, and for each of them why it has none, None where it has one."""
        d, m, n = self.dim, self.embed_dim, len(Z)
        axes = np.tile(np.eye(m), (n, 1))
        T = self._calls.call("to_tangent", axes, np.repeat(Z, m, axis=0)).reshape(n, m, m)
        finite = np.isfinite(T).all(axis=(1, 2))
        basis, good = _span(np.where(finite[:, None, None], T, 0.0), d)
        good &= finite
        why = [None if g else f"has no tangent space of dimension {d} at the point {z}"
               for g, z in zip(good, Z, strict=True)]
        G = self._calls.gram(basis, Z)
        G_finite = np.isfinite(G).all(axis=(1, 2))
        lowest = np.linalg.eigvalsh(np.where(G_finite[:, None, None], G, 0.0))
        bad = ~(G_finite & (lowest[:, 0] > 1e-14 * lowest[:, -1]))
        for row in np.flatnonzero(bad & good):
            why[row] = ("has an inner product that is not positive definite, with eigenvalues "
                        f"{lowest[row]}, at the point {Z[row]}")
        G[bad | ~good] = np.eye(d)
        L = np.linalg.cholesky(G)
        dual = L.transpose(0, 2, 1) @ basis
        unit = np.sqrt((dual**2).sum(axis=(1, 2)) / d)
        # rounding of the coordinates, or what geomstats makes of it: exp(0) shows that, far out in some models
        noise = np.maximum(self._noise * unit * _norm(Z), 1e-3 * _EPS)
        if exp_works:
            noise = np.fmax(noise, unit * _norm(self._calls.exp(np.zeros_like(Z), Z) - Z))
        return _Frames(np.asarray(Z, dtype=float), np.linalg.solve(L, basis), dual, unit, noise), why

    def frame(self, Z):
        """Return the first `dim` unit vectors: tangent vectors are written in a frame; shape (n, dim, embed_dim)."""
        return np.broadcast_to(np.eye(self.dim, self.embed_dim), (*np.shape(Z)[:-1], self.dim, self.embed_dim)).copy()

    def _pad(self, V):
        return np.concatenate([V, np.zeros((*V.shape[:-1], self.embed_dim - self.dim))], axis=-1)

    def to_tangent(self, Z, V):
        """Set the numbers after the first `dim` to zero; shape (n, embed_dim)."""
        return self._pad(np.asarray(V, dtype=float)[..., :self.dim])

    def exp(self, Z, V):
        """Return the ends of the geodesics that start at Z with velocities V; shape (n, embed_dim).

        Where a geodesic meets an edge of the space (see :meth:`geodesic_length`) and geomstats' exponential map
        reflects it there, as in the Bures-Wasserstein cone, the end of the reflected one.

        Raises
        ------
        PointError
            If a geodesic meets a known edge and geomstats' exponential map leaves the space there.
        """
        Z, V = np.broadcast_arrays(Z, V)
        at = self._frames(Z)
        T = np.einsum("nd,ndm->nm", V[:, :self.dim], at.vector)
        ends = self._calls.exp(T, at.point)
        if self._has_edges:
            out = np.flatnonzero(self._edge_parameter(T, at.point) <= 1)
            out = out[~self._calls.call("belongs", ends[out]).astype(bool)]
            if out.size:
                row = out[0]
                length = self.geodesic_length(Z[row:row + 1], V[row:row + 1])[0]
                raise PointError(f"{self!r} has an edge: the geodesic from row {row} of Z meets it at length "
                                 f"{length:.3g}, and V[{row}] has length {_norm(V[row]):.3g} (and {out.size - 1} more "
                                 f"of {len(Z)} rows). Take shorter vectors: geodesic_length(Z, V) says how long")
        return ends

    def geodesic_length(self, Z, V):
        r"""Return the length at which geodesics meet an edge of the space.

        Parameters
        ----------
        Z : ndarray, shape (n, embed_dim)
            Points where they start.
        V : ndarray, shape (n, embed_dim)
            Tangent vectors there, in whose direction they start; of any length but zero.

        Returns
        -------
        ndarray, shape (n,)
            ``inf`` where the geodesic has no end, and on spaces of which no edge is known here. Known are those of
            ``SPDMatrices`` with the Bures-Wasserstein metric, where it is :math:`|V|/\max(0,-\lambda_{\min}(L))` with
            :math:`LX+XL=V`, and with the Euclidean one, where :math:`L=X^{-1/2}VX^{-1/2}`; scaled ones; and of products
            with them.

        Examples
        --------
        >>> import numpy as np
        >>> from rdks.manifolds import load_geomstats
        >>> from rdks.manifolds._geomstats import FromGeomstats
        >>> _ = load_geomstats()
        >>> from geomstats.geometry.spd_matrices import SPDBuresWassersteinMetric, SPDMatrices
        >>> space = SPDMatrices(2, equip=False).equip_with_metric(SPDBuresWassersteinMetric)
        >>> manifold = FromGeomstats(space)
        >>> Z = manifold.embed(np.array([np.diag([9.0, 4.0])]))  # standard deviations of 3 and 2
        >>> V = manifold.log(Z, manifold.embed(np.array([np.diag([9.0, 1.0])])))
        >>> manifold.geodesic_length(Z, V).round(9), manifold.geodesic_length(Z, -V)
        (array([2.]), array([inf]))
        """
        Z, V = np.broadcast_arrays(np.asarray(Z, dtype=float), np.asarray(V, dtype=float))
        if not self._has_edges:
            return np.full(len(Z), np.inf)
        at = self._frames(Z)
        return _norm(V) * self._edge_parameter(np.einsum("nd,ndm->nm", V[:, :self.dim], at.vector), at.point)

    @property
    def _has_edges(self):
        """Whether an edge of the space is known."""
        if "edges" not in self._memo:
            Z = self.random(1, np.random.default_rng(0))
            axes = self._calls.call("to_tangent", np.concatenate([np.eye(self.embed_dim), -np.eye(self.embed_dim)]),
                                    np.repeat(Z, 2 * self.embed_dim, axis=0))
            self._memo["edges"] = bool(np.isfinite(self._edge_parameter(axes, np.repeat(Z, len(axes), axis=0))).any())
        return self._memo["edges"]

    def _edge_parameter(self, T, X):
        """Return s at which exp_X(s T) meets an edge, for tangent vectors T in geomstats' coordinates; (n,)."""
        return _edge(self.space, *(A.reshape(len(A), *self.point_shape) for A in (T, X)))

    def injectivity_radii(self, Z):
        """Return, for each point, a length below which geodesics from it are shortest, as far as is known; (n,).

        What geomstats gives at the point, and not more than `injectivity_radius` where that was measured to be less.
        """
        return self._proof_radius(np.asarray(Z, dtype=float))

    def log(self, Z, W):
        Z, W = np.broadcast_arrays(Z, W)
        return self._pad(self._connect(self._frames(Z), self._frames(W)).w)

    def dist(self, Z, W):
        Z, W = np.broadcast_arrays(Z, W)
        return _norm(self._connect(self._frames(Z), self._frames(W)).w)

    def distances(self, X, Y):
        """Return the distances between all points of two sets, (q, m) and (n, m); shape (q, n).

        They come from, and go to, what `pair_kernel` keeps: with the same sets each pair is computed once.
        """
        return np.sqrt(self._pairs(np.asarray(X, dtype=float), np.asarray(Y, dtype=float), False)[0])

    def random(self, n, rng):
        """Draw points as geomstats does: uniform on some compact spaces, of an unspecified law elsewhere."""
        return self._calls.random(n, rng)

    # differentials of the exponential map

    def _stencil(self, at, w, h, by_log):
        """Evaluate exp_y around w: its value (n, m), and its derivatives (n, d, m) to orders four and two."""
        n, d = w.shape
        eye = np.eye(d)
        moves = np.concatenate([np.zeros((1, d)), eye, -eye, 2 * eye, -2 * eye])
        W = w[:, None] + h[:, None, None] * moves
        V = np.einsum("nkd,ndm->nkm", W, at.vector)
        Q = self._calls.exp(V.reshape(-1, self.embed_dim), np.repeat(at.point, len(moves), axis=0)).reshape(V.shape)
        centre, D = Q[:, 0], Q[:, 1:] - Q[:, :1]
        if by_log.any():
            ends = Q[by_log, 1:].reshape(-1, self.embed_dim)
            D[by_log] = self._calls.log(ends, np.repeat(centre[by_log], 4 * d, axis=0)).reshape(D[by_log].shape)
        D = D.reshape(n, 2, 2, d, -1)
        near, far = ((D[:, k, 0] - D[:, k, 1]) / (2 * (k + 1) * h)[:, None, None] for k in (0, 1))
        return centre, (4 * near - far) / 3, near

    def _differential(self, at, w, to):
        """Differentiate exp_y at w, in the frames `at` y and `to` x = exp_y(w); see the module's notes on steps.

        Returns
        -------
        centre : (n, m), J : (n, d, d), step : (n,), by_log : (n,) bool, good : (n,) bool
        """
        n, d = w.shape
        noise = np.maximum(np.maximum(at.noise, to.noise), self._noise * _norm(w))
        if self._closed:
            return self._differential_closed(at, w, to, noise)
        first = (30 * noise) ** 0.2
        h, by_log, good = first.copy(), np.zeros(n, bool), np.zeros(n, bool)
        centre, J = np.full((n, self.embed_dim), np.nan), np.full((n, d, d), np.nan)
        todo = np.flatnonzero(np.isfinite(w).all(axis=1))
        for attempt in range(12):
            if not todo.size:
                break
            if attempt == 6 and not self._log_iterates:
                # no step is small enough: the coordinates jump, as angles do; log does not
                by_log[todo], h[todo] = True, first[todo]
            centre[todo], fine, rough = self._stencil(at.take(todo), w[todo], h[todo], by_log[todo])
            J[todo] = np.einsum("nkm,njm->nkj", to.dual[todo], fine)
            # NaN beyond the domain of exp: the step is too long there
            size = np.maximum(np.abs(J[todo]).max(axis=(1, 2)), 1e-300)
            gap = np.abs(np.einsum("nkm,njm->nkj", to.dual[todo], fine - rough)).max(axis=(1, 2)) / size
            # gap = h^2/6 f''' gives the truncation h^4/30 f^(5) of the fine one, if derivatives grow geometrically
            truncation, rounding = 1.2 * gap**2, 1.5 * noise[todo] / (h[todo] * size)
            # a geodesic keeps its speed, and differences of nothing are no derivative
            speed = np.abs(_norm(np.einsum("nkj,nj->nk", J[todo], w[todo])) - _norm(w[todo]))
            done = (truncation <= 10 * rounding + 1e-14) & (speed <= 0.1 * _norm(w[todo])) & (size * d >= 0.5)
            good[todo[done]] = True
            shrink = (rounding[~done] / np.maximum(truncation[~done], 1e-300)) ** 0.2
            todo = todo[~done]
            h[todo] *= np.where(np.isfinite(shrink), np.clip(shrink, 1 / 16, 0.7), 1 / 16)
        return centre, J, h, by_log, good

    def _differential_closed(self, at, w, to, noise):
        """Return what `_differential` does, J by its closed form; `step` is that of second differences of log theta."""
        n, d = w.shape
        good = np.isfinite(w).all(axis=1)
        centre, J = np.full((n, self.embed_dim), np.nan), np.full((n, d, d), np.nan)
        here = at.take(good)
        V = np.einsum("nd,ndm->nm", w[good], here.vector)
        centre[good], images = self._calls.differential(V, here.point, here.vector)
        J[good] = np.einsum("nkm,njm->nkj", to.dual[good], images)
        # rounding over h^2 balances the truncation, h^2
        return centre, J, noise**0.25, np.zeros(n, bool), good

    def _slopes(self, at, w, J, step, by_log):
        """Differentiate log theta at w: its gradient there, (n, d), and the c of equation (2), (n,).

        `J` is the differential of exp_y at w in any orthonormal frame at its end.
        """
        n, d = w.shape
        squares, axes = np.linalg.eigh(np.einsum("nkj,nkl->njl", J, J))
        squares = np.where(squares > 0, squares, np.nan)  # none at a conjugate point, where there is no slope
        here = 0.5 * np.log(squares).sum(axis=1)
        e = 2 * step
        ways = np.concatenate([axes.transpose(0, 2, 1), -axes.transpose(0, 2, 1)], axis=1)
        W = (w[:, None] + e[:, None, None] * ways).reshape(-1, d)
        around, steps, logs = at.repeat(2 * d), np.repeat(step, 2 * d), np.repeat(by_log, 2 * d)
        if self._closed:
            ends, partial = self._calls.differential(np.einsum("nd,ndm->nm", W, around.vector), around.point,
                                                     around.vector)
        else:
            ends, partial, rough = self._stencil(around, W, steps, logs)
            size = np.abs(partial).max(axis=(1, 2))
            jumps = np.flatnonzero(~(np.abs(partial - rough).max(axis=(1, 2)) <= 0.1 * size))
            if jumps.size and not self._log_iterates:
                ends[jumps], partial[jumps], _ = self._stencil(around.take(jumps), W[jumps], steps[jumps],
                                                               np.ones(jumps.size, bool))
        G = self._calls.gram(partial, ends)
        finite = np.isfinite(G).all(axis=(1, 2))
        lam, U = np.linalg.eigh(np.where(finite[:, None, None], G, np.eye(d)))
        lam = np.where(finite[:, None] & (lam > 0), lam, np.nan)
        there = (0.5 * np.log(lam).sum(axis=1)).reshape(n, 2, d)
        first = (there[:, 0] - there[:, 1]) / (2 * e[:, None])
        second = (there[:, 0] + there[:, 1] - 2 * here[:, None]) / e[:, None] ** 2
        # theta g^{-1} along the axes; theta relative to that at w
        inverse = ((U / lam[:, None, :]) @ U.transpose(0, 2, 1)).reshape(n, 2, d, d, d)
        flux = np.exp(there - here[:, None, None])[..., None, None] * np.einsum(
            "naj,nskab,nbl->nskjl", axes, inverse, axes)
        drift = np.einsum("niij->nj", flux[:, 0] - flux[:, 1]) / (2 * e[:, None])
        laplacian = (second / squares + drift * first).sum(axis=1)
        c = 0.25 * (first**2 / squares).sum(axis=1) - 0.5 * laplacian
        return np.einsum("njk,nk->nj", axes, first), c

    # geodesics

    def _connect(self, at, to):
        """Find the shortest geodesics between paired points, from `at` to `to`."""
        n, d = len(at.point), self.dim
        found = _Geodesics(np.zeros((n, d)), np.empty((n, d, d)), np.empty(n), np.zeros(n, bool))
        left = np.arange(n)

        def attempt(left, start, jumps=False, proof=False):
            here = at.take(left)
            best, good = self._newton(here, start, to.take(left), jumps)
            if proof:
                good &= _norm(best.w) < self._proof_radius(here.point)
            for old, new in zip(found, best, strict=True):
                old[left[good]] = new[good]
            return left[~good]

        def chord(left):
            return np.einsum("ndm,nm->nd", at.dual[left], to.point[left] - at.point[left])

        def their_log(left, ends):
            return np.einsum("ndm,nm->nd", at.dual[left], self._calls.log(ends, at.point[left]))

        # a point to itself: no logarithm is needed, and some have none there
        same = (at.point == to.point).all(axis=1)
        left = np.concatenate([attempt(left[same], np.zeros((same.sum(), d))), left[~same]])
        if self._log_iterates and left.size:
            left = attempt(left, self._shoot(at.take(left), to.take(left)))
        if left.size:
            left = attempt(left, their_log(left, to.point[left]), jumps=not self._log_iterates)
        if left.size:
            left = attempt(left, chord(left), proof=True)
        for k in range(d):
            if left.size:
                # a pair for which log has no unique value, as it has none on a cut locus: aim beside it first
                aside = self._calls.exp(1e-3 * to.vector[left, k], to.point[left])
                left = attempt(left, their_log(left, aside))
        if left.size:
            i = left[0]
            raise ValueError(
                f"geomstats finds no geodesic of {self!r} from {at.point[i].reshape(self.point_shape).tolist()} to "
                f"{to.point[i].reshape(self.point_shape).tolist()} (and {left.size - 1} more of {n} pairs): exp(log) "
                "misses the end, also after Newton's method. Such pairs may be too far apart for its logarithm; drop "
                "far outliers, or use another metric")
        return found

    @property
    def _log_iterates(self):
        """Whether geomstats' logarithm is an iteration of its own, slow and no better than ours."""
        return hasattr(self.space.metric, "log_solver") and not self._closed

    @property
    def _closed(self):
        """Whether exp, its differential and log are closed forms of ours."""
        return isinstance(self._calls, _ClosedCalls)

    def _shoot(self, at, to):
        """Find w with exp_y(w) = x by Gauss-Newton on the coordinates; returns it, NaN where it does not converge.

        From the chord first. Where the geodesic found is not shorter than the injectivity radius geomstats
        gives, other starts are tried and the shortest is taken; there geomstats' own logarithm knows no more.
        """
        n, d = len(at.point), self.dim
        radius = self._calls.declared_radius(at.point)
        chord = np.einsum("ndm,nm->nd", at.dual, to.point - at.point)
        if radius is None:
            return self._approach(at, chord, to, np.full(n, np.inf))
        limit = np.where((radius > 0) & np.isfinite(radius), radius / 3, np.inf)
        best = self._approach(at, chord, to, limit)
        unproved = np.flatnonzero(~(_norm(best) < radius))
        for k in range(min(d, 3)):
            if not unproved.size:
                break
            away = np.zeros((unproved.size, d))
            away[:, k] = np.fmin(limit[unproved], _norm(chord[unproved]))
            other = self._approach(at.take(unproved), away, to.take(unproved), limit[unproved])
            nearer = ~(_norm(other) >= _norm(best[unproved])) & np.isfinite(other).all(axis=1)
            best[unproved[nearer]] = other[nearer]
            unproved = unproved[~(_norm(best[unproved]) < radius[unproved])]
        return best

    def _approach(self, at, w, to, limit):
        """Take Gauss-Newton steps, of length at most `limit` (n,), to where `_newton` can start; NaN if that fails."""
        n, d = w.shape

        def cut(V, limit):
            return V * np.minimum(1.0, limit / np.maximum(_norm(V), 1e-300))[:, None]

        h = 1e-4 * np.maximum(at.size, 1e-3)
        w, done, todo = cut(w, limit), np.zeros(n, bool), np.arange(n)
        moves = np.concatenate([np.zeros((1, d)), np.eye(d)])
        for _ in range(_SHOTS):
            V = np.einsum("nkd,ndm->nkm", w[todo][:, None] + h[todo][:, None, None] * moves, at.vector[todo])
            Q = self._calls.exp(V.reshape(-1, self.embed_dim), np.repeat(at.point[todo], d + 1, axis=0))
            Q = Q.reshape(V.shape)
            miss, partial = Q[:, 0] - to.point[todo], (Q[:, 1:] - Q[:, :1]) / h[todo][:, None, None]
            done[todo] = to.unit[todo] * _norm(miss) <= 1e-4 * np.maximum(at.size[todo], to.size[todo])
            on = ~done[todo] & np.isfinite(Q).all(axis=(1, 2))
            todo = todo[on]
            if not todo.size:
                break
            w[todo] -= cut(np.einsum("nmd,nm->nd", np.linalg.pinv(partial[on]), miss[on]), limit[todo])
        w[~done] = np.nan
        return w

    def _newton(self, at, w, to, jumps):
        """Solve exp_y(w) = x from a start; returns the _Geodesics and which rows are solved.

        With `jumps`, an end that is far off in coordinates is compared with x by log, as coordinates may jump.
        """
        n, d = w.shape
        scale = np.maximum(np.maximum(at.size, to.size), _norm(w))
        noise = np.maximum(at.noise, to.noise)
        best = _Geodesics(w.copy(), np.full((n, d, d), np.nan), np.full(n, np.nan), np.zeros(n, bool))
        least, good = np.full(n, np.inf), np.zeros(n, bool)
        w, todo = w.copy(), np.arange(n)
        for _ in range(_NEWTON):
            todo = todo[np.isfinite(w[todo]).all(axis=1)]
            if not todo.size:
                break
            goal = to.take(todo)
            centre, J, step, by_log, resolved = self._differential(at.take(todo), w[todo], goal)
            miss = np.einsum("nkm,nm->nk", goal.dual, centre - goal.point)
            off = goal.unit * _norm(centre - goal.point)  # the antipode of a point is beyond its tangent coordinates
            apart = np.flatnonzero(off > 1e-3 * scale[todo]) if jumps else []
            if len(apart):
                back = self._calls.log(centre[apart], goal.point[apart])
                across = np.einsum("nkm,nm->nk", goal.dual[apart], back)
                # the logarithm of an antipode can be of length 0: it must lead back
                again = self._calls.exp(np.nan_to_num(back), goal.point[apart])
                nearer = (_norm(across) < off[apart]) & (
                    np.abs(again - centre[apart]).max(axis=1) <= 1e-6 * np.abs(centre[apart]).max(axis=1))
                miss[apart[nearer]], off[apart[nearer]] = across[nearer], _norm(across[nearer])
            off = np.where(resolved, off, np.inf)
            better = off < least[todo]
            for old, new in zip(best, (w[todo], J, step, by_log), strict=True):
                old[todo[better]] = new[better]
            slow = ~(off < 0.5 * least[todo])  # no better than before: as good as it gets, or hopeless
            least[todo] = np.fmin(least[todo], off)
            good[todo] = least[todo] <= np.maximum(1e-7 * scale[todo], noise[todo])
            on = (off > 30 * noise[todo]) & ~(slow & good[todo]) & np.isfinite(J).all(axis=(1, 2))
            w[todo[on]] -= np.einsum("nij,nj->ni", np.linalg.pinv(J[on], rcond=1e-10), miss[on])
            todo = todo[on]
        return best, good

    def _proof_radius(self, Y):
        """Length below which any geodesic from a point is the shortest one, as far as is known."""
        declared = self._calls.declared_radius(Y)
        if declared is not None and self._log_iterates:
            return declared  # from the literature; its own logarithm is too weak to check it
        if self._log_iterates:
            return np.zeros(len(Y))
        measured = np.full(len(Y), self.injectivity_radius)
        return measured if declared is None else np.minimum(declared, measured)

    def _measured_radius(self):
        rng = np.random.default_rng(2)
        at = self._frames(self.random(3, rng))
        declared = self._calls.declared_radius(at.point)
        radius = 1.0 if declared is None else float(declared.min())
        infinite = np.isinf(radius)
        radius = 4.0 if infinite else radius
        at = at.repeat(2 * self.dim)
        ways = rng.standard_normal((len(at.point), self.dim))
        ways /= _norm(ways)[:, None]
        for _ in range(40):
            V = 0.95 * radius * np.einsum("nd,ndm->nm", ways, at.vector)
            back = self._calls.log(self._calls.exp(V, at.point), at.point)
            if (_norm(np.einsum("ndm,nm->nd", at.dual, back - V)) <= 1e-3 * radius).all():
                return np.inf if infinite else radius
            radius, infinite = 0.5 * radius, False
        return 0.0

    # the heat kernel

    def _curvatures(self):
        """Return the scalar curvature if constant, else None, and the largest Ricci curvature, at four random points.

        log theta = -Ric(w, w)/6 + O(|w|^3): second differences at two distances, extrapolated.
        """
        if "curvature" not in self._memo:
            d = self.dim
            if d == 1:
                return 0.0, 0.0
            at = self._frames(self.random(4, np.random.default_rng(1))).repeat(4 * d)
            unit, e = np.concatenate([np.eye(d), -np.eye(d)]), np.full(4, 0.03)
            for _ in range(2):
                w = (e[:, None, None] * np.concatenate([unit, 2 * unit])).reshape(-1, d)
                V = np.einsum("nd,ndm->nm", w, at.vector)
                _, J, step, _, _ = self._differential(at, w, self._frames(self._calls.exp(V, at.point)))
                used, step = e, step.reshape(4, -1).min(axis=1)
                # the steps of the first look tell the length on which the space bends
                e = np.minimum(30 * step, 0.05)
            log_theta = np.linalg.slogdet(J)[1].reshape(4, 2, 2, d).sum(axis=2)
            near, far = (-3 * log_theta[:, k] / ((k + 1) * used[:, None]) ** 2 for k in (0, 1))
            ricci = (4 * near - far) / 3
            scalar, size = ricci.sum(axis=1), float(np.abs(ricci).max())
            # in flat space rounding is all there is
            rounding = 50 * self._noise * float((at.size[::4 * d] / step / used**2).max())
            constant = np.ptp(scalar) <= 1e-3 * size + rounding
            self._memo["curvature"] = ((float(scalar.mean()) if size > rounding else 0.0) if constant else None, size)
        return self._memo["curvature"]

    def _pairs(self, X, Y, slopes):
        """Return, for all pairs, r^2 and log theta, (q, n) each; with `slopes` also v, grad log theta and c.

        None of them depends on time. v = log_x(y) and the gradients are (q, n, d), in the frame at x.
        """
        key = (slopes, *(hashlib.blake2b(np.ascontiguousarray(A)).digest() for A in (X, Y)), X.shape, Y.shape)
        kept = self._kept.get(key) or (None if slopes else self._kept.get((True, *key[1:])))
        if kept is not None:
            return kept if slopes else kept[:2]
        q, n, d = len(X), len(Y), self.dim
        at_x, at_y = self._frames(X), self._frames(Y)
        mirrored = not slopes and X.shape == Y.shape and bool((X == Y).all())
        i, j = np.triu_indices(q) if mirrored else (a.ravel() for a in np.indices((q, n)))
        out = [np.empty((q, n)), np.empty((q, n))]
        if slopes:
            out += [np.empty((q, n, d)), np.empty((q, n, d)), np.empty((q, n))]
        chunk = max(1, _ROWS // ((4 * d + 1) * (2 * d if slopes else 1)))
        for a in range(0, len(i), chunk):
            rows, columns = i[a:a + chunk], j[a:a + chunk]
            at = at_y.take(columns)
            w, J, step, by_log = self._connect(at, at_x.take(rows))
            values = [(w * w).sum(axis=1), np.linalg.slogdet(J)[1]]
            if slopes:
                partial, c = self._slopes(at, w, J, step, by_log)
                gradient = np.einsum("njk,nj->nk", np.linalg.pinv(J), partial)
                # at a conjugate point log theta has no derivative; its floor, constant, is used there
                usable = np.isfinite(c) & np.isfinite(gradient).all(axis=1)
                values += [-np.einsum("nkj,nj->nk", J, w), np.where(usable[:, None], gradient, 0.0),
                           np.where(usable, c, 0.0)]
            for whole, part in zip(out, values, strict=True):
                whole[rows, columns] = part
                if mirrored:
                    whole[columns, rows] = part
        self._kept.put(key, tuple(out))
        return tuple(out)

    def _log_kernel(self, square, log_theta, t):
        """Equation (1), and where the floor of theta is in force."""
        floor = -(self.dim - 1) * np.log(2 + square / t)
        log_k = -square / (2 * t) - 0.5 * self.dim * np.log(2 * np.pi * t) - 0.5 * np.maximum(log_theta, floor)
        return log_k + (self.scalar_curvature or 0.0) * t / 12, log_theta < floor

    def pair_kernel(self, X, Y, t, order):
        r"""Evaluate the kernel between all points of two sets.

        Parameters
        ----------
        X : ndarray, shape (q, embed_dim)
        Y : ndarray, shape (n, embed_dim)
        t : float
            Time, positive.
        order : {0, 1, 2}

        Returns
        -------
        log_k : ndarray, shape (q, n)
            :math:`\log k_t(x_i,y_j)`, equation (1).
        gradient : ndarray, shape (q, n, embed_dim), or None
            From order 1: its gradient in x, in the frame at x.
        ratio : ndarray, shape (q, n), or None
            From order 2: :math:`\Delta_xk/k`, equation (2).
        """
        X, Y = np.asarray(X, dtype=float), np.asarray(Y, dtype=float)
        square, log_theta, *slopes = self._pairs(X, Y, order > 0)
        log_k, floored = self._log_kernel(square, log_theta, t)
        if order == 0:
            return log_k, None, None
        v, gradient, c = slopes
        slope = self._pad(v / t - 0.5 * np.where(floored[..., None], 0.0, gradient))
        if order == 1:
            return log_k, slope, None
        return log_k, slope, square / t**2 - self.dim / t + np.where(floored, 0.0, c)

    def log_heat_kernel(self, Z, W, t):
        Z, W = np.broadcast_arrays(Z, W)
        logs = []
        chunk = max(1, _ROWS // (4 * self.dim + 1))
        for a in range(0, len(Z), chunk):
            ends = self._frames(Z[a:a + chunk]), self._frames(W[a:a + chunk])
            way = self._connect(*ends)
            logs.append(self._log_kernel((way.w**2).sum(axis=1), np.linalg.slogdet(way.J)[1], t)[0])
        return np.concatenate(logs) if logs else np.zeros(0)

    def heat_sample(self, Z, t, rng):
        r"""Take a step of Brownian motion from each point, as a geodesic random walk.

        Parameters and result as for :func:`rdks.sampling.heat_sample`.

        Notes
        -----
        N steps :math:`\exp(\sqrt{t/N}\,\xi)` of normal vectors, :math:`N=1+\lceil100\,t\,\kappa\rceil` with
        :math:`\kappa` the largest Ricci curvature at a few random points. The weak error is :math:`O(t^2/N)`,
        relative to the spread of the kernel about :math:`\kappa t/12N\le10^{-3}`. Edges reflect: where geomstats'
        exponential map does it, as in the Bures-Wasserstein cone, exactly so; else by not taking a step that leaves
        the space. Nor is one taken to a point so near an edge that it has no tangent space in floats.
        """
        Z = np.array(Z, dtype=float)
        t = np.broadcast_to(np.asarray(t, dtype=float), len(Z))
        if not len(Z):
            return Z
        steps = 1 + int(np.ceil(100 * t.max() * self._curvatures()[1]))
        vector = self._frames(Z).vector
        for _ in range(steps):
            xi = rng.standard_normal((len(Z), self.dim)) * np.sqrt(t / steps)[:, None]
            new = self._calls.exp(np.einsum("nd,ndm->nm", xi, vector), Z)
            inside = np.flatnonzero(np.isfinite(new).all(axis=1))
            inside = inside[self.violation(new[inside]) <= self.tolerance]
            at, why = self._frames_where_any(new[inside])
            regular = np.array([reason is None for reason in why], dtype=bool)
            Z[inside[regular]] = new[inside[regular]]
            vector[inside[regular]] = at.vector[regular]
        return Z

    # how good it is

    def estimate_error(self, Z, t, rng, n_points=4, n_ends=3, n_bridge=8):
        r"""Estimate the error of the log kernel where the kernel is large.

        Parameters
        ----------
        Z : ndarray, shape (n, embed_dim)
            Data in embedded coordinates; a few of them are looked at.
        t : float
        rng : numpy.random.Generator

        Returns
        -------
        median, worst : float
            Of the estimated :math:`|\log k_t-\log k_t^{true}|` over pairs of a data point y and an end x drawn
            about it at the distance of the bandwidth, y itself included.

        Notes
        -----
        Duhamel's formula gives the difference from the true kernel: with :math:`k` of equation (1), of which
        :math:`(\partial_t-\frac12\Delta)k=(\frac s{12}-\frac c2)k`,

        .. math:: k^{true}_t(x,y)-k_t(x,y)=\int_0^t\!\!\int k^{true}_{t-u}(x,z)
                  \bigl(\tfrac12c(z,y)-\tfrac s{12}\bigr)k_u(z,y)\,dz\,du .

        To leading order in t the product of the kernels is that of a Brownian bridge from y to x in the normal
        coordinates w of y, and the relative difference t times the mean of :math:`c/2-s/12` along it: one draw of
        the bridge at each of `n_bridge` times. That is the walk in infinitely many steps which (1) makes in one.
        Relative to itself the estimate is right to :math:`O(t)`. Where geomstats gives an injectivity
        radius R, :math:`\log(1+2e^{-2R(R-r)/t})` is added for the next shortest geodesic.
        """
        rows = rng.choice(len(Z), min(n_points, len(Z)), replace=False)
        centres = np.asarray(Z, dtype=float)[rows]
        ends = np.sqrt(t) * rng.standard_normal((len(centres), n_ends, self.dim))
        ends[:, 0] = 0.0
        error = np.abs(self._correction(centres, ends, t, rng, n_bridge))
        radius = self._calls.declared_radius(centres)
        if radius is not None:
            finite = np.where(np.isfinite(radius), radius, 0.0)[:, None]
            exponent = np.where(np.isfinite(radius)[:, None], -2 * finite * (finite - _norm(ends)) / t, -np.inf)
            error = error + np.log1p(2 * np.exp(np.minimum(exponent, 0.0)))
        # where the expansion breaks down within reach nothing is known
        error = np.where(np.isfinite(error), error, np.inf)
        return float(np.median(error)), float(error.max())

    def _correction(self, Y, ends, t, rng, n_bridge):
        """Estimate log of the true kernel minus log k between y and exp_y(w), for the rows w of ends, (n, k, d).

        The integral over bridges in the notes of `estimate_error`; shape (n, k).
        """
        n, k, d = ends.shape
        part = (np.arange(n_bridge) + rng.uniform(size=(n, k, n_bridge))) / n_bridge
        spread = np.sqrt(t * part * (1 - part))[..., None]
        w = (part[..., None] * ends[:, :, None] + spread * rng.standard_normal((*part.shape, d))).reshape(-1, d)
        at = self._frames(Y).repeat(k * n_bridge)
        V = np.einsum("nd,ndm->nm", w, at.vector)
        _, J, step, by_log, _ = self._differential(at, w, self._frames(self._calls.exp(V, at.point)))
        c = self._slopes(at, w, J, step, by_log)[1].reshape(n, k, n_bridge)
        return t * (0.5 * c.mean(axis=2) - (self.scalar_curvature or 0.0) / 12)

    def error_report(self, Z, t):
        """Say in words how large the error of the log density is at time `t`, for a warning.

        Parameters
        ----------
        Z : ndarray, shape (n, embed_dim)
            Data in embedded coordinates.
        t : float

        Returns
        -------
        str
        """
        median, worst = self.estimate_error(Z, t, np.random.default_rng(0))
        if not median <= 1:
            text = (f"At bandwidth {np.sqrt(t):.3g} it is not valid: the kernel reaches as far as the curvature of the "
                    "space, or its edge, lets it. Choose a smaller bandwidth.")
        else:
            power = "the fourth power" if self.scalar_curvature is not None else "the square"
            text = (f"At bandwidth {np.sqrt(t):.3g} the log density is off by about {median:.2g}, at worst {worst:.2g} "
                    f"(estimated near a few of the data); the error falls with {power} of the bandwidth.")
        if self._calls.declared_radius(np.asarray(Z, dtype=float)[:1]) is None:
            text += " geomstats gives no injectivity radius: longer geodesics are not in the estimate."
        return text

    def log_error(self, t):
        """Estimate the error of the log kernel at time `t` near its peak: the worst at a few random points."""
        known = self._memo.setdefault("log_error", {})
        if t not in known:
            known[t] = self.estimate_error(self.random(4, np.random.default_rng(3)), t, np.random.default_rng(4))[1]
        return known[t]


class _Kept:
    """The blocks of pairs used last, up to a number of bytes; safe to use from several threads."""

    def __init__(self, limit):
        self.limit, self.size = limit, 0
        self.blocks, self.lock = OrderedDict(), threading.Lock()

    def get(self, key):
        with self.lock:
            if key in self.blocks:
                self.blocks.move_to_end(key)
            return self.blocks.get(key)

    def put(self, key, arrays):
        size = sum(a.nbytes for a in arrays)
        with self.lock:
            if size > self.limit or key in self.blocks:
                return
            for a in arrays:
                a.flags.writeable = False
            self.blocks[key] = arrays
            self.size += size
            while self.size > self.limit:
                self.size -= sum(a.nbytes for a in self.blocks.popitem(last=False)[1])
