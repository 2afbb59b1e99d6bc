"""Numbers that papers print, each with a mark that says how it came to us."""
from __future__ import annotations

from typing import NamedTuple

__all__ = ["EARTH", "MARKS", "SO3", "TOY2D", "Row", "Value", "best"]

#: How a number came to us.
MARKS = {
    "P": "read in the paper itself",
    "N": "second-hand: quoted from the paper by others",
    "R": "in the authors' repository",
    "M": "from memory, not verified: do not cite",
}


class Value(NamedTuple):
    """One printed number.

    Attributes
    ----------
    mean : float
    spread : float or None
        What the paper prints behind ±: a standard deviation over runs. None if we have none.
    mark : str
        A key of `MARKS`.
    spread_mark : str or None
        The mark of the spread where it is another one.
    """

    mean: float
    spread: float | None
    mark: str
    spread_mark: str | None = None


class Row(NamedTuple):
    """One method of a published table.

    Attributes
    ----------
    method, source : str
    values : dict of str to Value
        By data set. A number that nobody printed, or that we have not seen, is not there.
    note : str
        What one must know to read the numbers; "" for nothing.
    """

    method: str
    source: str
    values: dict
    note: str = ""


def _row(method, source, mark, volcano=None, earthquake=None, flood=None, fire=None, *, note=""):
    """Return a row of the earth table; a number may be a float, (mean, spread), or a Value."""
    values = {}
    given = {"volcano": volcano, "earthquake": earthquake, "flood": flood, "fire": fire}
    for name, value in given.items():
        if isinstance(value, Value):
            values[name] = value
        elif value is not None:
            mean, spread = value if isinstance(value, tuple) else (value, None)
            values[name] = Value(mean, spread, mark)
    return Row(method, source, values, note)


_OLDER = "older protocol, on 829, 6124, 4877 and 12810 rows"
_GFM = "Generalised Flow Maps (Davis et al., ICLR 2026, arXiv:2510.21608)"
_BOUND = "a bound by importance weights, not the likelihood itself"

#: Mean negative log-likelihood of held-out points in nats, densities per area of the unit sphere.
EARTH = (
    _row("mixture of von Mises-Fisher", "Moser Flow (Rozen et al. 2021), table 1", "P",
         (-0.31, 0.07), (0.59, 0.01), (1.09, 0.01), (-0.23, 0.02), note=_OLDER),
    _row("Riemannian CNF, first protocol", "Moser Flow (Rozen et al. 2021), table 1", "P",
         (-0.97, 0.15), (0.19, 0.04), (0.90, 0.03), (-0.66, 0.05), note=_OLDER),
    _row("Moser Flow, first protocol", "Moser Flow (Rozen et al. 2021), table 1", "P",
         (-1.68, 0.23), (0.03, 0.02), (0.71, 0.02), (-0.78, 0.01), note=_OLDER),
    _row("mixture of Kent", "RSGM (De Bortoli et al. 2022), table 4", "P",
         (-0.80, 0.47), (0.33, 0.05), (0.73, 0.07), (-1.18, 0.06),
         note="the README of its repository prints +1.18 for fire, a typing error"),
    _row("Riemannian CNF", "RSGM (De Bortoli et al. 2022), table 4", "P",
         (-6.05, 0.61), (0.14, 0.23), (1.11, 0.19), (-0.80, 0.54)),
    _row("Moser Flow", "RSGM (De Bortoli et al. 2022), table 4", "P",
         (-4.21, 0.17), (-0.16, 0.06), (0.57, 0.10), (-1.28, 0.05)),
    _row("stereographic SGM", "RSGM (De Bortoli et al. 2022), table 4", "P",
         (-3.80, 0.27), (-0.19, 0.05), (0.59, 0.07), (-1.28, 0.12)),
    _row("RSGM", "RSGM (De Bortoli et al. 2022), table 4", "P",
         (-4.92, 0.25), (-0.19, 0.07), (0.45, 0.17), (-1.33, 0.06),
         note="the README of its repository prints 0.48 ± 0.09 for flood"),
    _row("RSGM, first version", "the first arXiv version, as quoted by RDM, table 1", "N",
         (-5.56, 0.26), (-0.21, 0.03), (0.52, 0.02), (-1.24, 0.07)),
    _row("RDM", "Riemannian Diffusion Models (Huang et al. 2022), table 1", "N",
         (-6.61, 0.97), (-0.40, 0.05), (0.43, 0.07), (-1.38, 0.05), note=_BOUND),
    _row("CNF Matching", "Riemannian Flow Matching (Chen and Lipman 2024), table 2", "N", fire=(-1.40, 0.02),
         note="its other numbers were not seen"),
    _row("Riemannian Flow Matching", "Riemannian Flow Matching (Chen and Lipman 2024), table 2", "N",
         (-7.93, 1.67), (-0.28, 0.08), Value(0.42, 0.05, "N", "M"), (-1.86, 0.11),
         note="flood: the mean as quoted by GFM"),
    _row("Riem. Diffusion Mixture", "Riemannian Diffusion Mixture (Jo and Hwang 2024)", "M",
         (-9.52, 0.87), (-0.30, 0.06), (0.42, 0.08), (-2.47, 0.11)),
    _row("GFM, best of four", _GFM, "N",
         -4.96, -1.08, -0.88, -2.48, note="the best variant of each column, chosen after the fact"),
    _row("GFM, G-LSD", _GFM, "N", -4.96, -0.93, -0.38, -2.14),
    _row("GFM, G-PSD", _GFM, "N", -3.50, -0.63, -0.76, -2.48),
    _row("GFM, G-ESD", _GFM, "N", -4.49, -0.67, -0.88, -2.29),
    _row("GFM, G-MF", _GFM, "N", -3.73, -1.08, -0.72, -2.24),
)

_RSGM5 = "RSGM (De Bortoli et al. 2022), table 5"

#: Mean log-likelihood (not negative) of fresh draws in nats, by number of components.
SO3 = (
    Row("Moser Flow", _RSGM5, {16: Value(0.82, 0.03, "P"), 32: Value(0.12, 0.03, "P"), 64: Value(-0.49, 0.02, "P")},
        "the README of the repository prints 0.85 and 0.17 for 16 and 32 components"),
    Row("Exp-wrapped SGM", _RSGM5, {16: Value(0.87, 0.04, "P"), 32: Value(0.16, 0.03, "P"),
                                    64: Value(-0.58, 0.04, "P")}),
    Row("RSGM", _RSGM5, {16: Value(0.89, 0.03, "P"), 32: Value(0.20, 0.03, "P"), 64: Value(-0.49, 0.02, "P")}),
)


def _toy(method, spirals, gaussians, pinwheel):
    """Return a row of the table of laws in the plane."""
    values = {"2spirals": spirals, "8gaussians": gaussians, "pinwheel": pinwheel}
    return Row(method, "the authors' answers to the reviewers of operator-informed score matching (Shen, Wang, Riabiz "
               "and Oates, arXiv:2406.09084), repository oism_rebuttal, file u3iK.md",
               {name: Value(value, None, "R") for name, value in values.items()},
               "Likelihoods by the probability flow, noise by truncated Brownian motion, H and L a large and a small "
               "basis, NN a network. The scale of the data, the box, the size of the basis and the number of draws "
               "are not given")


#: Mean log-likelihood (not negative) of held-out points in nats, in units of length that are not given.
TOY2D = (
    _toy("OISM(H)", -2.262, -2.036, -1.576),
    _toy("OISM(L)", -3.150, -2.581, -1.792),
    _toy("OISM(L) + NN", -2.337, -2.169, -1.686),
    _toy("NN, pre-trained", -2.289, -2.195, -1.829),
    _toy("NN only", -2.375, -2.132, -1.842),
)


def best(rows, name, marks="PRN", sign=1):
    """Return the best number of a column among those that came to us in certain ways.

    Parameters
    ----------
    rows : sequence of Row
    name : hashable
        The column.
    marks : str
        Marks that count; by default all but "M".
    sign : {1, -1}
        1 if smaller is better, -1 if larger is.

    Returns
    -------
    tuple of (Row, Value), or None
        None if the column has no such number.

    Examples
    --------
    >>> from rdks.benchmarks.published import EARTH, best
    >>> row, value = best(EARTH, "volcano")
    >>> row.method, value.mean, value.mark
    ('Riemannian Flow Matching', -7.93, 'N')
    """
    found = [(row, row.values[name]) for row in rows if name in row.values and row.values[name].mark in marks]
    return min(found, key=lambda pair: sign * pair[1].mean) if found else None
