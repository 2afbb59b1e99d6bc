"""The only file that imports geomstats."""
from __future__ import annotations

import importlib
import warnings

import numpy as np

from ..errors import UnsupportedError

__all__ = ["load_geomstats", "recognise"]


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


def recognise(space):
    """Return the rdks manifold that equals a geomstats space.

    Parameters
    ----------
    space : geomstats space
        With its default metric.

    Raises
    ------
    UnsupportedError
        If this version has no manifold for it.
    """
    from .euclidean import Euclidean
    from .sphere import Sphere

    load_geomstats()
    from geomstats.geometry.euclidean import CanonicalEuclideanMetric
    from geomstats.geometry.euclidean import Euclidean as TheirEuclidean
    from geomstats.geometry.hypersphere import Hypersphere, HypersphereMetric

    metric = getattr(space, "metric", None)
    if isinstance(space, Hypersphere) and type(metric) is HypersphereMetric and not space.intrinsic:
        return Sphere(space.dim)
    if isinstance(space, TheirEuclidean) and type(metric) is CanonicalEuclideanMetric:
        return Euclidean(space.dim)
    raise UnsupportedError(
        f"the geomstats space {type(space).__name__} with metric {type(metric).__name__} is none of "
        "the manifolds of this version. Spaces recognised: Hypersphere in extrinsic coordinates and "
        "Euclidean, each with its default metric")
