"""Real data to try things on."""
from __future__ import annotations

from importlib.metadata import version

import numpy as np
from sklearn.utils import Bunch

from .errors import require

__all__ = ["load_airports"]

_AIRPORTS = """\
The world's airports
--------------------

{n} places where aircraft land, from heliports and grass strips to international airports, one row each.

:Number of rows: {n}, in {countries} countries and territories; {first_share:.1%} of them in one ({first}).
:Features: latitude and longitude in degrees, WGS84, north and east positive.
:Missing values: none.
:Dropped: nothing. {copies} rows repeat the coordinates of another row: one place under two codes (such as
    EBBR and EBMB, the civil and the military side of Brussels). They are kept, so there are {distinct}
    distinct points. {origin} at latitude 0, longitude 0, where placeholders usually end up.
:Source: the package airportsdata {version}, https://github.com/mborsetti/airportsdata, MIT licence.

Airports follow roads, money and registries as much as people: the country at the top of the list registers
private strips that others do not, so a density of these points is a density of *registered* airports.
"""


def load_airports(*, as_frame=False):
    """Load the positions of the world's airports: about 28,000 points of the sphere.

    The data come with the package ``airportsdata`` (extra ``demo``); nothing is downloaded.

    Parameters
    ----------
    as_frame : bool
        Return pandas objects, indexed by airport code.

    Returns
    -------
    sklearn.utils.Bunch
        With the attributes

        data : ndarray or DataFrame, shape (n, 2)
            Latitude and longitude in degrees, in this order.
        target : None
            There is nothing to predict.
        feature_names : list of str
            ``["latitude", "longitude"]``.
        frame : DataFrame, shape (n, 3), or None
            With `as_frame`: `data` and the country.
        codes : ndarray of str, shape (n,)
            ICAO code of each airport, or the local code if it has none.
        countries : ndarray of str, shape (n,)
            Two letters of ISO 3166-1.
        DESCR : str
            What the rows are, how many, and what was dropped.

    Raises
    ------
    MissingDependencyError
        If ``airportsdata`` is not installed (or pandas, with `as_frame`).

    Examples
    --------
    >>> from rdks.datasets import load_airports
    >>> airports = load_airports()
    >>> airports.data.shape[1], airports.feature_names
    (2, ['latitude', 'longitude'])
    >>> zurich = list(airports.codes).index("LSZH")
    >>> airports.data[zurich].round(1), str(airports.countries[zurich])
    (array([47.5,  8.5]), 'CH')
    """
    source = require("airportsdata", feature="load_airports", extra="demo")
    rows = source.load("ICAO")
    codes = np.array(list(rows))
    countries = np.array([row["country"] for row in rows.values()])
    data = np.array([[row["lat"], row["lon"]] for row in rows.values()], dtype=float)
    names = ["latitude", "longitude"]

    found, counts = np.unique(countries, return_counts=True)
    distinct = len(np.unique(data, axis=0))
    zeros = int((data == 0).all(axis=1).sum())
    description = _AIRPORTS.format(
        n=len(data), countries=len(found), first=found[counts.argmax()], first_share=counts.max() / len(data),
        copies=len(data) - distinct, distinct=distinct, version=version("airportsdata"),
        origin=f"{zeros} rows lie" if zeros else "No row lies")

    frame = None
    if as_frame:
        pandas = require("pandas", feature="load_airports(as_frame=True)", extra="test")
        data = pandas.DataFrame(data, columns=names, index=pandas.Index(codes, name="code"))
        frame = data.assign(country=countries)
    return Bunch(data=data, target=None, feature_names=names, frame=frame, codes=codes, countries=countries,
                 DESCR=description)
