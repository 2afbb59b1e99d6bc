"""Fitting and scoring on Dask collections: a fit of each block, merged in a tree on the workers. No mathematics here.

What the machine that asks (the client) holds does not grow with the number of blocks: of a fit it gets one merged
estimator and one row; of scores nothing until they are computed.
"""
from __future__ import annotations

import copy
import numbers
from contextlib import contextmanager, nullcontext
from functools import reduce
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from . import _validation as validation
from .errors import require
from .estimator import RDKSEstimator
from .manifolds import Manifold

__all__ = ["fit", "score_field", "score_samples"]

# Fits that one task merges: more would hold as many in memory at once, fewer would copy more often.
_FAN_IN = 4


class _Seed(NamedTuple):
    """What the first block that has data decides for all, and a row of it that is left to the client."""

    block: int
    index: int
    row: object
    weight: float
    manifold: Manifold
    reason: str


class _Part(NamedTuple):
    """The fit of some blocks, None if no row of them has a weight, and their number of rows."""

    estimator: RDKSEstimator | None
    rows: int


def fit(estimator, collection, sample_weight=None):
    """Fit an estimator to a Dask collection, as if to all its rows on one machine.

    Parameters
    ----------
    estimator : RDKSEstimator
        Its parameters are used; it is not changed.
    collection : dask Array, DataFrame or Bag
        Array, shape (n, p) or (n, k, k), in blocks of rows (blocks of columns are put together). DataFrame: one
        column per number, names are kept. Bag: an element is a point (numbers, or a k x k matrix) or an array of
        points, shape (m, p) or (m, k, k); a square matrix is one point where the manifold's points are matrices
        and for ``manifold="auto"``. Blocks may be empty and their sizes unknown.
    sample_weight : dask Array, Series or Bag, or array-like, shape (n,), optional
        Weights >= 0. Arrays are cut like the collection where its sizes are known; otherwise as many blocks are
        needed, each as long as the block of the collection.

    Returns
    -------
    RDKSEstimator
        A new, fitted estimator.

    Raises
    ------
    PointError
        If a row is not on the manifold; the message says in which block, and X[i] counts from its first row.
    ValueError
        As :meth:`RDKSEstimator.fit`, and if weights cannot be matched with blocks.
    TypeError
        If `collection` is no Dask collection of these kinds.

    Notes
    -----
    Each block is fitted by ``partial_fit`` on a worker, by one thread, and fits are merged there four by four. One
    row is kept back, and the client adds it with ``partial_fit`` to the merged fit: so a bandwidth is chosen
    once, from all data, and what the estimator has to say about all data it says where it was asked. That step has
    ``n_jobs`` threads. Without a running ``distributed.Client``, Dask's default scheduler is used.

    Engines that keep observations keep all of them: the result grows with the data, and so do the merged fits on
    the workers. Engines that keep coefficients do not; if a rule chooses the bandwidth, they need a number as
    ``min_bandwidth``, with which the blocks are then fitted.

    ``manifold="auto"`` is decided by the first block with a row of positive weight. That block is looked at twice if
    sizes are unknown or weights are given: persist a collection that is expensive to make. A block that is lost
    with its worker is computed again from the collection.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> from rdks import RDKSEstimator
    >>> from rdks.distributed import fit
    >>> angles = da.from_array(np.random.default_rng(0).uniform(0, 6.28, (1000, 2)), chunks=(300, 2))
    >>> est = fit(RDKSEstimator("torus", bandwidth=0.3), angles)
    >>> est.manifold_, est.n_samples_seen_
    (Torus(dim=2, period=6.283185307179586, start=0.0), 1000)
    """
    dask = require("dask", feature="rdks.distributed", extra="dask")
    if not isinstance(estimator, RDKSEstimator):
        raise TypeError(f"estimator is a {type(estimator).__name__}: expected an RDKSEstimator")
    wanted = clone(estimator)
    wanted._check_parameters()  # now, and not after hours when the bandwidth is to be chosen
    blocks, rows = _blocks(collection)
    weights = _weights(sample_weight, collection, len(blocks), rows)
    where = _names(len(blocks), rows)
    worker = clone(wanted).set_params(n_jobs=1, verbose=False)
    # one node of the graph each, and names of their own: nothing is shared with, or mistaken for, another fit
    worker = dask.delayed(worker, pure=False, traverse=False)
    seed_, leaf, merge = (dask.delayed(f, pure=False, traverse=False) for f in (_seed, _leaf, _merge))

    first = _first(blocks, weights, rows, where)
    seed = seed_(worker, blocks[first], weights[first], first, where[first])
    parts = [leaf(worker, seed, *each) for each in zip(blocks, weights, range(len(blocks)), where, strict=True)]
    while len(parts) > 1:
        parts = [merge(*parts[i:i + _FAN_IN]) for i in range(0, len(parts), _FAN_IN)]
    part, seed = dask.compute(parts[0], seed)

    if part.estimator is None:  # there is no other row
        model = clone(wanted).set_params(manifold=seed.manifold).fit(seed.row, sample_weight=[seed.weight])
        model.set_params(manifold=wanted.manifold)
    else:
        model = part.estimator.set_params(**wanted.get_params(deep=False))
        model.partial_fit(seed.row, sample_weight=[seed.weight])
    if validation.geographic_order(getattr(model, "feature_names_in_", None)):
        # what fit says of such names it says here too
        clone(wanted).set_params(**_provisional(wanted)).fit(seed.row)
    model.n_samples_seen_ = part.rows
    model.manifold_reason_ = seed.reason
    return model


def score_samples(estimator, collection, t=None):
    """Evaluate the log density at the points of a Dask collection, when the result is computed.

    Parameters
    ----------
    estimator : RDKSEstimator, or a Delayed or Future of one
        Fitted. It is one node of the graph and reaches each worker once. One of many megabytes is better
        scattered: ``client.scatter(estimator, broadcast=True)``.
    collection : dask Array, DataFrame or Bag
        Points, as for :func:`fit`.
    t : float, optional
        Diffusion time since the fitted density, >= 0; 0 by default.

    Returns
    -------
    dask Array, shape (n,), or dask Bag
        A Bag for a Bag, with an element for each of its elements: a number, or an array for an array of points.

    Notes
    -----
    Each block is evaluated by one thread: workers have threads of their own.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> from rdks import RDKSEstimator
    >>> from rdks.distributed import score_samples
    >>> est = RDKSEstimator("circle", bandwidth=0.3).fit([[0.1], [0.2]])
    >>> logs = score_samples(est, da.linspace(0, 1, 6, chunks=2)[:, None])
    >>> logs.shape, logs.chunks, int(logs.argmax().compute())
    ((6,), ((2, 2, 2),), 1)
    """
    return _score("score_samples", estimator, collection, t)


def score_field(estimator, collection, t=None):
    r"""Evaluate the score :math:`\nabla\log p_t` at the points of a Dask collection, when the result is computed.

    Parameters
    ----------
    estimator, collection, t
        As for :func:`score_samples`.

    Returns
    -------
    dask Array, shape of the collection, or dask Bag
        Tangent vectors as :meth:`RDKSEstimator.score_field` returns them.

    Examples
    --------
    >>> import dask.array as da
    >>> from rdks import RDKSEstimator
    >>> from rdks.distributed import score_field
    >>> est = RDKSEstimator("circle", bandwidth=0.5).fit([[0.0]])
    >>> score_field(est, da.ones((1, 1)) / 4).compute().round(6)  # -x/t near the source
    array([[-1.]])
    """
    return _score("score_field", estimator, collection, t)


# collections

def _kind(collection):
    """Say what a collection is: "array", "frame" or "bag"."""
    require("dask", feature="rdks.distributed", extra="dask")
    import dask.array as da
    from dask.bag import Bag
    from dask.base import is_dask_collection
    from dask.utils import is_dataframe_like

    if isinstance(collection, da.Array):
        if collection.ndim < 2:
            raise ValueError(f"the dask Array has shape {collection.shape}: expected (n, p) or (n, k, k), a point per "
                             "row; numbers are x[:, None]")
        return "array"
    if isinstance(collection, Bag):
        return "bag"
    if is_dask_collection(collection) and is_dataframe_like(collection):
        return "frame"
    raise TypeError(f"collection is a {type(collection).__name__}: expected a dask Array, DataFrame or Bag "
                    "(dask.array.from_array makes one of an array)")


def _whole_rows(array):
    """Return a dask array whose blocks are not cut across columns."""
    if all(count == 1 for count in array.numblocks[1:]):
        return array
    return array.rechunk({axis: -1 for axis in range(1, array.ndim)})


def _blocks(collection):
    """Return a Delayed for each block, and their numbers of rows, or None where these are not known."""
    kind = _kind(collection)
    if kind == "array":
        collection = _whole_rows(collection)
        rows = collection.chunks[0]
        return collection.to_delayed().ravel().tolist(), None if np.isnan(rows).any() else rows
    blocks = collection.to_delayed()
    return ([_list(block) for block in blocks] if kind == "bag" else list(blocks)), None


def _list(block):
    import dask
    return dask.delayed(list, pure=False)(block)


def _weights(sample_weight, collection, n_blocks, rows):
    """Return the weights of each block: a Delayed, or None."""
    import dask.array as da
    from dask.bag import Bag
    from dask.base import is_dask_collection
    from dask.utils import is_series_like

    if sample_weight is None:
        return [None] * n_blocks
    weight = sample_weight
    if not is_dask_collection(weight):
        weight = np.asarray(weight)
        if rows is None:
            raise ValueError("sample_weight is no Dask collection, and how many rows the blocks have is not known; "
                             "pass a dask Array, Series or Bag with the blocks of the collection")
        weight = da.from_array(np.full(sum(rows), weight) if weight.ndim == 0 else weight, chunks=-1)
    if isinstance(weight, da.Array):
        if weight.ndim != 1:
            raise ValueError(f"sample_weight has shape {weight.shape}, expected (n,), one weight per row")
        known = not np.isnan(weight.chunks[0]).any()
        if known and rows is not None:
            if len(weight) != sum(rows):
                raise ValueError(f"sample_weight has shape {weight.shape}, expected ({sum(rows)},), one weight per row")
            weight = weight.rechunk((rows,))
        blocks = weight.to_delayed().ravel().tolist()
    elif isinstance(weight, Bag):
        blocks = [_list(block) for block in weight.to_delayed()]
    elif is_series_like(weight):
        ours = getattr(collection, "divisions", (None,))
        if weight.known_divisions and ours[0] is not None and weight.divisions != ours:
            raise ValueError("sample_weight and the DataFrame are cut at different places of the index; call "
                             "sample_weight.repartition(divisions=frame.divisions)")
        blocks = list(weight.to_delayed())
    else:
        raise TypeError(f"sample_weight is a {type(weight).__name__}: expected a dask Array, Series or Bag")
    if len(blocks) != n_blocks:
        raise ValueError(f"sample_weight has {len(blocks)} blocks and the collection {n_blocks}, and their sizes are "
                         "not known, so that they cannot be matched; call compute_chunk_sizes() on both arrays, or "
                         "cut both alike")
    return blocks


def _names(n_blocks, rows):
    """Say which block each is, for messages."""
    if rows is None:
        return [f"block {i} of 0..{n_blocks - 1} (X[0] is its first row)" for i in range(n_blocks)]
    first = accumulate(rows[:-1], initial=0)
    return [f"block {i} of 0..{n_blocks - 1} (X[0] is row {start} of the collection)" for i, start in enumerate(first)]


def _first(blocks, weights, rows, where):
    """Return the number of the first block with a row of positive weight."""
    import dask

    if rows is not None and weights[0] is None:
        first = next((i for i, count in enumerate(rows) if count), None)
    else:
        look = dask.delayed(_has_weight, pure=False, traverse=False)
        first = next((i for i, each in enumerate(zip(blocks, weights, where, strict=True))
                      if look(*each).compute()), None)
    if first is None:
        raise ValueError("the collection has no rows" if weights[0] is None else
                         "the collection has no rows with a weight. Sample weights must contain at least one non-zero "
                         "number")
    return first


# on the workers

@contextmanager
def _named(where):
    """Put the name of a block in front of the message of an error; kind and traceback stay."""
    try:
        yield
    except Exception as error:
        if len(error.args) == 1 and isinstance(error.args[0], str):
            error.args = (f"{where}: {error.args[0]}",)
        else:
            error.add_note(where)
        raise


def _points(block, manifold):
    """Return a block of rows as it is, and a list of a bag's elements as one array."""
    if not isinstance(block, list) or not block:
        return block
    items = [np.asarray(item) for item in block]
    return np.stack(items) if _is_point(items[0], manifold) else np.concatenate(items)


def _is_point(item, manifold):
    """Tell a point from an array of points."""
    if item.ndim != 2 or item.shape[0] != item.shape[1]:
        return item.ndim < 2
    if isinstance(manifold, str):
        return manifold in ("auto", "so3", "spd")
    return validation.as_manifold(manifold, item.size).point_shape == item.shape


def _read(block, weight, manifold):
    """Return the rows of a block and their weights."""
    X = _points(block, manifold)
    if weight is not None:
        weight = np.array(weight)
        if weight.shape != (len(X),):
            raise ValueError(f"sample_weight has shape {weight.shape}, expected ({len(X)},), one weight per row of X")
    return X, weight


def _has_weight(block, weight, where):
    with _named(where):
        return bool(len(block)) and (weight is None or bool((np.asarray(weight) > 0).any()))


def _provisional(estimator):
    """Return parameters with which blocks are collected before a rule has chosen the bandwidth."""
    low = estimator.min_bandwidth
    if not isinstance(estimator.bandwidth, str):
        return {}
    if isinstance(low, numbers.Real) and low > 0:
        return {"bandwidth": float(low)}  # coefficients for it serve whatever the rule will choose
    if estimator.engine == "spectral":
        return {}  # partial_fit will say that it needs a min_bandwidth
    return {"bandwidth": 1.0}  # any number will do where observations are kept: it is not used


def _seed(estimator, block, weight, number, where):
    """Decide the manifold, and pick the row that the client will add."""
    with _named(where):
        X, weight = _read(block, weight, estimator.manifold)
        index = 0 if weight is None else int(np.flatnonzero(weight > 0)[0])
        if isinstance(estimator.manifold, str) and estimator.manifold == "auto":
            # without names of columns: what they suggest is said by the client
            probe = RDKSEstimator(bandwidth=1.0).fit(X.to_numpy() if hasattr(X, "to_numpy") else X)
            manifold, reason = probe.manifold_, f"{probe.manifold_reason_} (decided on block {number})"
        else:
            manifold, reason = validation.as_manifold(estimator.manifold, int(np.prod(X.shape[1:]))), "given"
        row = X.iloc[index:index + 1] if hasattr(X, "iloc") else X[index:index + 1]
        return _Seed(number, index, row, 1.0 if weight is None else float(weight[index]), manifold, reason)


def _leaf(estimator, seed, block, weight, number, where):
    """Fit one block, without the row that the client will add."""
    with _named(where):
        X, weight = _read(block, weight, seed.manifold)
        if len(X) == 0:
            return _Part(None, 0)
        if number == seed.block:  # a weight of zero is no row, and all others keep their numbers
            weight = np.ones(len(X)) if weight is None else weight
            weight[seed.index] = 0
        estimator = clone(estimator).set_params(manifold=seed.manifold, **_provisional(estimator))
        if weight is not None and not weight.any():
            estimator.partial_fit(X)  # rows without weight must be points as well
            return _Part(None, len(X))
        return _Part(estimator.partial_fit(X, sample_weight=weight), len(X))


def _merge(*parts):
    """Merge fits of neighbouring blocks, in their order."""
    fits = [part.estimator for part in parts if part.estimator is not None]
    return _Part(reduce(lambda one, other: one.merge(other), fits) if fits else None, sum(part.rows for part in parts))


# scores

def _score(method, estimator, collection, t):
    dask = require("dask", feature="rdks.distributed", extra="dask")
    kind = _kind(collection)
    t = validation.as_time(t)
    if isinstance(estimator, RDKSEstimator):
        check_is_fitted(estimator)
        # a copy, so that what happens to the estimator before the result is computed does not matter;
        # its name is made from its contents, so that equal requests are one
        estimator = _one_thread(estimator)
        name = f"rdks-estimator-{dask.base.tokenize(estimator)}"
        estimator = dask.delayed(estimator, name=name, traverse=False)
    elif hasattr(estimator, "key"):
        estimator = dask.delayed(_one_thread, pure=True)(estimator)
    else:
        raise TypeError(f"estimator is a {type(estimator).__name__}: expected a fitted RDKSEstimator, or a Delayed or "
                        "Future of one")
    if kind == "bag":
        return collection.map_partitions(_score_items, estimator, method, t)
    if kind == "frame":
        return _score_frame(collection, estimator, method, t)
    collection = _whole_rows(collection)
    drop = list(range(1, collection.ndim)) if method == "score_samples" else []
    meta = np.empty((0,) * (collection.ndim - len(drop)))
    return collection.map_blocks(_score_block, estimator, method, t, drop_axis=drop, dtype=float, meta=meta)


def _one_thread(estimator):
    """Return a copy, of the same arrays, that uses one thread."""
    return copy.copy(estimator).set_params(n_jobs=1)


def _score_frame(frame, estimator, method, t):
    """Score by partitions; the index goes along, as Dask wants it, and is dropped."""
    meta = frame._meta.astype(float)
    if method == "score_samples":
        meta = meta.iloc[:, 0].rename("log_density")
    return frame.map_partitions(_score_part, estimator, method, t, meta=meta).to_dask_array()


def _score_block(X, estimator, method, t, block_id=None):
    """Score an array or data frame."""
    if len(X) == 0:
        return np.empty(0 if method == "score_samples" else X.shape)
    with _named(f"block {block_id[0]}, counted from 0") if block_id else nullcontext():
        return getattr(estimator, method)(X, t=t)


def _score_part(frame, estimator, method, t):
    """Score a partition of a DataFrame."""
    import pandas as pd

    values = _score_block(frame, estimator, method, t)
    if method == "score_samples":
        return pd.Series(values, frame.index, name="log_density")
    return pd.DataFrame(values, frame.index, frame.columns)


def _score_items(items, estimator, method, t):
    """Score a bag's elements together, and hand the values back element by element."""
    items = [np.asarray(item) for item in items]
    if not items:
        return []
    X = _points(items, estimator.manifold_)
    values = _score_block(X, estimator, method, t)
    if _is_point(items[0], estimator.manifold_):
        return list(values)
    return np.split(values, np.cumsum([len(item) for item in items])[:-1])
