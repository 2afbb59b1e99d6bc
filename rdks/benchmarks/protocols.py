"""Which rows are fitted and which are held out, and what is averaged over them."""
from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["PROTOCOLS", "Part", "Summary", "copies", "difference", "distinct", "parts", "summarise"]

#: The protocols of :func:`parts`, in words.
PROTOCOLS = {
    "splits": "random splits, 80 % fitted, 10 % for choices, 10 % held out",
    "cv": "10-fold cross-validation",
    "loo": "leave-one-out: a fit without each point",
}

# more points than this make leave-one-out by refitting a matter of hours
_LOO_LIMIT = 1000


class Part(NamedTuple):
    """One way to divide rows.

    Attributes
    ----------
    seed, fold : int
    train, validation, test : ndarray of int
        Row numbers; `validation` is empty where the protocol reserves none.
    """

    seed: int
    fold: int
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


class Summary(NamedTuple):
    """A negative log-likelihood and how sure it is.

    Attributes
    ----------
    mean : float
        Nats per point.
    spread : float or None
        "splits": standard deviation over the splits, ddof 1; None for a single one. "cv" and "loo": standard error
        of the mean over the points.
    count : int
        Number of splits or points behind `spread`.
    seconds : float
        Median over the fits, of a fit and the held-out densities.
    """

    mean: float
    spread: float
    count: int
    seconds: float


def parts(protocol, n, seeds=None, n_folds=10):
    """List the ways in which a protocol divides `n` rows.

    Parameters
    ----------
    protocol : {"splits", "cv", "loo"}
        "splits": for each seed a random tenth (rounded down) is held out and another is reserved for choices.
        "cv": for each seed a random division in folds, each held out once. "loo": each row held out once.
    n : int
        Number of rows.
    seeds : int, optional
        Number of seeds, counted from 0; 5 splits or 2 cross-validations by default. Leaving one out has nothing
        random.
    n_folds : int
        Folds of "cv".

    Returns
    -------
    list of Part

    Raises
    ------
    ValueError
        If the protocol is unknown, or `n` does not suit it.

    Examples
    --------
    >>> from rdks.benchmarks.protocols import parts
    >>> [len(rows) for rows in parts("splits", 827)[0][2:]]
    [663, 82, 82]
    >>> len(parts("cv", 100)), len(parts("loo", 100))
    (20, 100)
    """
    none = np.empty(0, dtype=int)
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol = {protocol!r}: expected one of {tuple(PROTOCOLS)}")
    if n < 20:
        raise ValueError(f"n = {n} rows: expected at least 20, so that a tenth holds two")
    if protocol == "loo":
        if n > _LOO_LIMIT:
            raise ValueError(f"protocol = 'loo' fits {n} times to {n} rows; at most {_LOO_LIMIT} are served. Use 'cv', "
                             "whose folds estimate the same number")
        every = np.arange(n)
        return [Part(0, i, np.delete(every, i), none, every[i:i + 1]) for i in range(n)]
    out = []
    for seed in range(seeds if seeds is not None else 5 if protocol == "splits" else 2):
        order = np.random.default_rng(seed).permutation(n)
        if protocol == "splits":
            test, validation, train = np.split(order, [n // 10, 2 * (n // 10)])
            out.append(Part(seed, 0, train, validation, test))
        else:
            folds = np.array_split(order, n_folds)
            out += [Part(seed, i, np.concatenate(folds[:i] + folds[i + 1:]), none, test)
                    for i, test in enumerate(folds)]
    return out


def distinct(X):
    """Return the distinct rows of X, in their lexicographic order; shape (m, p)."""
    return np.unique(X, axis=0)


def copies(train, test):
    """Count the rows of `test` that are, number by number, a row of `train`.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.benchmarks.protocols import copies
    >>> copies(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[3.0, 4.0], [3.0, 4.0], [2.0, 1.0]]))
    2
    """
    known = set(map(tuple, train))
    return sum(tuple(row) in known for row in test)


def summarise(protocol, records):
    """Average held-out log densities as a protocol prescribes.

    Parameters
    ----------
    protocol : {"splits", "cv", "loo"}
    records : list of dict
        One per fit, with ``test`` (row numbers), ``log_density`` at those rows, and ``seconds``.

    Returns
    -------
    Summary

    Notes
    -----
    Splits overlap in what they fit and in what they hold out, so their standard deviation is no standard
    error; it is what papers print. In cross-validation every row is held out once per seed: its log densities are
    averaged over the seeds, and the standard error is that of a mean of n independent numbers, which neglects
    that fits share data.
    """
    seconds = float(np.median([record["seconds"] for record in records]))
    if protocol == "splits":
        means = np.array([-np.mean(record["log_density"]) for record in records])
        spread = float(means.std(ddof=1)) if len(means) > 1 else None
        return Summary(float(means.mean()), spread, len(means), seconds)
    mean, error, count = _over_points(*_flat(records))
    return Summary(-mean, error, count, seconds)


def difference(records, reference):
    """Compare two methods on the same held-out points.

    Parameters
    ----------
    records, reference : list of dict
        One per fit, as for :func:`summarise`, in the same order and with the same held-out rows.

    Returns
    -------
    mean : float
        How much larger the negative log density of `records` is, in nats per point.
    error : float
        Standard error of that mean over the points, each averaged over the times it was held out.
    """
    rows, logs = _flat(records)
    mean, error, _ = _over_points(rows, _flat(reference)[1] - logs)
    return mean, error


def _flat(records):
    return (np.concatenate([record["test"] for record in records]),
            np.concatenate([record["log_density"] for record in records]))


def _over_points(rows, values):
    """Average over the times a row was held out, then over rows; return the mean, its standard error and how many."""
    times = np.bincount(rows)
    points = np.bincount(rows, weights=values)[times > 0] / times[times > 0]
    return float(points.mean()), float(points.std(ddof=1) / np.sqrt(len(points))), len(points)
