"""Turning what users pass into what the package computes with; the only place that coerces."""
from __future__ import annotations

import numbers

import numpy as np

from .errors import PointError
from .manifolds import Manifold, from_name

__all__ = ["as_count", "as_generator", "as_manifold", "as_numbers", "as_points", "as_time", "as_weights",
           "automatic_manifold", "check_number"]

CHECK_POINTS = ("raise", "project", "ignore")


def as_count(n_samples):
    """Return a number of samples as an int, after checking that it is an integer >= 0."""
    if not isinstance(n_samples, numbers.Integral) or isinstance(n_samples, bool) or n_samples < 0:
        raise ValueError(f"n_samples = {n_samples!r}: expected an integer >= 0")
    return int(n_samples)


def check_number(name, value, *, low, high, expected):
    """Raise ValueError unless `value` is a real number in [low, high]."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool) and low <= value <= high:
        return
    beyond = (f" (its square must be within the range of floats: {low:g} to {high:g})"
              if isinstance(value, numbers.Real) and 0 < value < np.inf else "")
    raise ValueError(f"{name} = {value!r} must be {expected}{beyond}")


def as_generator(random_state):
    """Return a numpy Generator for whatever scikit-learn accepts as `random_state`.

    Parameters
    ----------
    random_state : None, int, numpy.random.RandomState or numpy.random.Generator
        A RandomState seeds the generator from its own next draw.
    """
    if isinstance(random_state, np.random.Generator):
        return random_state
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(0, 2**32, size=4, dtype=np.uint32))
    if random_state is None or isinstance(random_state, numbers.Integral):
        return np.random.default_rng(random_state)
    raise ValueError(f"random_state = {random_state!r}: expected None, an integer, "
                     "a numpy.random.RandomState or a numpy.random.Generator")


def as_numbers(X, manifold):
    """Turn scipy's rotations, stacked or a list of single ones, into arrays; leave everything else alone.

    Parameters
    ----------
    X : object
    manifold : Manifold, geomstats space or str
        Where X is said to live, which decides how rotations are written.

    Raises
    ------
    ValueError
        For a single rotation, and where points of the manifold are no rotations.
    """
    if isinstance(X, (list, tuple)) and X and all(_is_rotation(x) for x in X):
        X = type(X[0]).concatenate(list(X))
    if not _is_rotation(X):
        return X
    if isinstance(manifold, str):
        if manifold not in ("auto", "so3"):
            raise ValueError(f"X is a {type(X).__name__}, but the points of manifold={manifold!r} are arrays")
        from .manifolds import SO3
        manifold = SO3()
    return as_manifold(manifold, 9).read(X)


def _is_rotation(X):
    return type(X).__module__.startswith("scipy.spatial.transform")


def automatic_manifold(X, layout):
    """Choose a manifold for data, and say why.

    The rule, in order: matrices, (n, 3, 3), that are all rotations -> :class:`SO3`; matrices, (n, k, k), that
    are all symmetric positive definite -> :class:`SPD`; at least two columns, every row of unit norm to 1e-6
    and no one-hot rows -> the sphere; otherwise Euclidean space.

    Parameters
    ----------
    X : ndarray, shape (n, p)
    layout : tuple of int
        Shape of a row as the user gave it.

    Returns
    -------
    manifold : Manifold
    reason : str

    """
    from .manifolds import SO3, SPD, Euclidean, Sphere

    n, p = X.shape
    if len(layout) == 2 and layout[0] == layout[1]:
        M = X.reshape(n, *layout)
        size = max(1.0, np.abs(M).max(initial=0.0))
        gram = np.abs(M @ M.transpose(0, 2, 1) - np.eye(layout[0])).max(initial=0.0)
        if layout[0] == 3 and gram <= 1e-6 and (np.linalg.det(M) > 0).all():
            return SO3(), f"all {n} matrices are rotations"
        if (np.abs(M - M.transpose(0, 2, 1)).max(initial=0.0) <= 1e-6 * size
                and (np.linalg.eigvalsh(M)[:, 0] > 0).all()):
            return SPD(layout[0]), f"all {n} matrices are symmetric and positive definite"
    if p >= 2:
        off = np.abs(np.sqrt(np.einsum("ij,ij->i", X, X)) - 1.0)
        one_hot = bool(((X == 0) | (X == 1)).all(axis=1).any())
        if off.max(initial=0.0) <= 1e-6 and not one_hot:
            return Sphere(p - 1), f"all {n} rows have unit norm, so they are points of a sphere"
        why = ("some rows are one-hot, which looks like categories rather than directions" if one_hot
               and off.max(initial=0.0) <= 1e-6 else f"not all rows have unit norm (row {off.argmax()} "
               f"is off by {off.max():.3g})")
    else:
        why = "there is one column"
    return Euclidean(p), f"Euclidean space, because {why}"


def geographic_order(names):
    """Say what two column names stand for: "latlon", "lonlat" or None."""
    if names is None or len(names) != 2:
        return None
    kinds = ["lat" if str(name).strip().lower().startswith("lat") else
             "lon" if str(name).strip().lower().startswith(("lon", "lng")) else "?" for name in names]
    return {("lat", "lon"): "latlon", ("lon", "lat"): "lonlat"}.get(tuple(kinds))


def as_manifold(manifold, n_features):
    """Return an rdks manifold for a manifold, a geomstats space or a name.

    Parameters
    ----------
    manifold : Manifold, geomstats space or str
    n_features : int
        Number of numbers in a row of the data, which fixes the dimension for a name.
    """
    if isinstance(manifold, Manifold):
        return manifold
    if isinstance(manifold, str):
        return from_name(manifold, n_features)
    if any(kind.__module__.split(".")[0] == "geomstats" for kind in type(manifold).__mro__):
        from .manifolds._geomstats import recognise
        return recognise(manifold)
    raise ValueError(f"manifold = {manifold!r}: expected 'auto', a name, an rdks manifold or a "
                     "geomstats space")


def as_points(manifold, X, check_points):
    """Check points as the user wrote them and return them embedded.

    Parameters
    ----------
    manifold : Manifold
    X : ndarray, shape (n, p)
        Finite numbers.
    check_points : {"raise", "project", "ignore"}

    Returns
    -------
    ndarray, shape (n, embed_dim)

    Raises
    ------
    PointError
        If a row is not a point of the manifold; names the worst row and its violation.
    """
    size = int(np.prod(manifold.point_shape))
    if X.shape[1] != size:
        raise ValueError(f"X has {X.shape[1]} features, but a point of {manifold!r} is written "
                         f"with {size} ({'x'.join(map(str, manifold.point_shape))})")
    X = X.reshape(len(X), *manifold.point_shape)
    if check_points == "raise":
        off = manifold.violation(X)
        bad = np.flatnonzero(~(off <= manifold.tolerance))
        if bad.size:
            row = bad[np.argmax(off[bad])]
            more = f" (and {bad.size - 1} more rows)" if bad.size > 1 else ""
            raise PointError(
                f"X[{row}] is not on {manifold!r}: {manifold.constraint()} = {off[row]:.3g} exceeds "
                f"{manifold.tolerance:g}{more}. {manifold.remedy()}")
    Z = manifold.embed(X)
    bad = np.flatnonzero((np.abs(Z) > 1e140).any(axis=1))
    if bad.size:
        raise PointError(f"X[{bad[0]}] has a coordinate of size {np.abs(Z[bad[0]]).max():.3g}, whose square is beyond "
                         "the range of floats; expected at most 1e140. Choose a larger unit")
    bad = np.flatnonzero(~np.isfinite(Z).all(axis=1))
    if bad.size:
        raise PointError(f"X[{bad[0]}] = {X[bad[0]]} has no nearest point on {manifold!r}. "
                         f"Remove the row.")
    return Z


def as_weights(sample_weight, n):
    """Return weights as floats of shape (n,), after checking them.

    Raises
    ------
    ValueError
        If one is negative or not finite, all are zero, or the number is wrong.
    """
    if sample_weight is None:
        return np.ones(n)
    w = np.asarray(sample_weight)
    if w.dtype.kind == "c":
        raise ValueError("sample_weight is complex; expected real weights >= 0, one per row of X")
    w = w.astype(float)
    if w.ndim == 0:
        w = np.full(n, float(w))
    if w.shape != (n,):
        raise ValueError(f"sample_weight has shape {w.shape}, expected ({n},), one weight per row of X")
    bad = np.flatnonzero(~(np.isfinite(w) & (w >= 0)))
    if bad.size:
        raise ValueError(f"sample_weight[{bad[0]}] = {w[bad[0]]:g}: Negative values in data passed to "
                         "`sample_weight`, or NaN or infinity; weights must be finite and >= 0")
    if not w.max() > 0:
        raise ValueError("sample_weight: Sample weights must contain at least one non-zero number")
    return w


def as_time(t):
    """Return a forward time as a float >= 0; None means 0."""
    if t is None:
        return 0.0
    if not isinstance(t, numbers.Real) or not np.isfinite(t) or t < 0:
        raise ValueError(f"t = {t!r}: expected a finite number >= 0, the diffusion time (a variance) "
                         "counted from the fitted density")
    return float(t)
