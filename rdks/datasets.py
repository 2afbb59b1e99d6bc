"""Real data to try things on."""
from __future__ import annotations

import hashlib
import os
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.utils import Bunch

from .errors import require

__all__ = ["EARTH_SETS", "fetch_earth", "load_airports"]

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


class _File(NamedTuple):
    """A table of latitudes and longitudes in a public repository."""

    name: str
    header: int  # lines before the numbers
    sha256: str
    title: str
    origin: str


# one stored state of the repository, so that the bytes cannot change
_EARTH_URL = ("https://raw.githubusercontent.com/oxcsml/riemannian-score-sde/"
              "5b48a7f7e175894afb6933f5e5f367b5a0eb65d7/data/")

_EARTH = {
    "volcano": _File("volerup.csv", 2, "f7bbaf32a412f5fe82350f48e0c55100be260803969c16557343f687fd0593fc",
                     "Significant volcanic eruptions", "NOAA / NCEI (NGDC) volcano data base"),
    "earthquake": _File("quakes_all.csv", 4, "3e5e1a10fb2faf1899106264289334037d039f00f5265d13dad388a93d8ff2f7",
                        "Significant earthquakes", "NOAA / NCEI (NGDC) earthquake data base, events without a place "
                        "removed"),
    "flood": _File("flood.csv", 2, "ffb1e3182c3053afcdeceec4727c262a29da10255d20747c08144da5b0963486",
                   "Large floods", "Dartmouth Flood Observatory (Brakenridge 2017)"),
    "fire": _File("fire.csv", 1, "c5c6c9490b1d8c58ba9eb78d9e2f82d1c1e62694ca5cff917c54600d3d83f459",
                  "Active fires seen by satellites", "NASA FIRMS / EOSDIS, 2020"),
}

#: Names that :func:`fetch_earth` knows.
EARTH_SETS = tuple(_EARTH)

_EARTH_DESCR = """\
{title}
{line}

One of the four data sets on the globe by which papers on generative models on manifolds are compared, first put
together by Mathieu and Nickel (2020).

:Number of rows: {n}.
:Features: latitude and longitude in degrees, north and east positive.
:Missing values: none.
:Distinct points: {distinct}. {repeated} rows ({share:.1%}) share their coordinates with another row; one place
    occurs {most} times. Nothing was dropped.
:Source: {origin}; as the file {name}
    of https://github.com/oxcsml/riemannian-score-sde, folder data.
:Licence: none is stated with the file. It is downloaded, not distributed with this package; see the source.

{warning}
"""

_COPIES = """\
Mind the copies. When 80 % of these rows are fitted, about {held:.0%} of the others are exact copies of fitted ones,
and a density can put spikes there: its held-out likelihood grows without bound as the spikes get narrower, and says
nothing else about it. Compare densities on the distinct points, or with a smallest bandwidth that is printed beside
the result."""

_FEW_COPIES = """\
Copies are few: when 80 % of these rows are fitted, about {held:.1%} of the others are exact copies of fitted ones."""


def fetch_earth(name, *, data_home=None, download_if_missing=True, as_frame=False):
    """Load one of the four data sets on the globe that papers on generative models compare on.

    The file is looked for in `data_home`, then in the folder that the environment variable ``RDKS_DATA`` names;
    if it is in neither it is downloaded, by the package ``pooch`` (extra ``data``), to the first of them that is
    given, or to pooch's cache. Wherever it comes from, its SHA-256 checksum is compared with that of the published
    file.

    Parameters
    ----------
    name : {"volcano", "earthquake", "flood", "fire"}
    data_home : str or path, optional
        Folder that holds the files, or is to hold them: ``volerup.csv``, ``quakes_all.csv``, ``flood.csv``,
        ``fire.csv``.
    download_if_missing : bool
        Without this, a file that is not there is an error.
    as_frame : bool
        Return pandas objects.

    Returns
    -------
    sklearn.utils.Bunch
        With the attributes

        data : ndarray or DataFrame, shape (n, 2)
            Latitude and longitude in degrees, in this order, one row per event, copies included.
        target : None
            There is nothing to predict.
        feature_names : list of str
            ``["latitude", "longitude"]``.
        frame : DataFrame, shape (n, 2), or None
            With `as_frame`: `data`.
        filename : str
            Where the file is.
        DESCR : str
            What the rows are, how many are copies, and what that means for likelihoods.

    Raises
    ------
    ValueError
        If the name is unknown, or a file is not the published one.
    OSError
        If the file is not there and cannot be downloaded, or must not be.
    MissingDependencyError
        If it must be downloaded and ``pooch`` is not installed (or pandas, with `as_frame`).

    Examples
    --------
    >>> from rdks.datasets import EARTH_SETS
    >>> EARTH_SETS
    ('volcano', 'earthquake', 'flood', 'fire')

    ``fetch_earth("flood").data.shape`` is (4875, 2).
    """
    if name not in _EARTH:
        raise ValueError(f"name = {name!r}: expected one of {EARTH_SETS}")
    file = _EARTH[name]
    path = _locate(file, data_home, download_if_missing)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != file.sha256:
        raise ValueError(f"{path} is not the published file: its SHA-256 checksum is {found}, expected {file.sha256}. "
                         "Remove it, and it will be downloaded again; line ends that were converted also change it")
    data = np.loadtxt(path, delimiter=",", skiprows=file.header, encoding="utf-8")
    names = ["latitude", "longitude"]

    count = np.unique(data, axis=0, return_counts=True)[1]
    n = len(data)
    # a row that occurs c times is held out; each of the others is kept with probability 4/5, independently (nearly)
    held = float((count * (1 - 0.2 ** (count - 1))).sum() / n)
    warning = (_COPIES if held > 0.05 else _FEW_COPIES).format(held=held)
    description = _EARTH_DESCR.format(
        title=file.title, line="-" * len(file.title), n=n, distinct=len(count), repeated=int(count[count > 1].sum()),
        share=count[count > 1].sum() / n, most=count.max(), origin=file.origin, name=file.name, warning=warning)

    frame = None
    if as_frame:
        pandas = require("pandas", feature="fetch_earth(as_frame=True)", extra="test")
        data = frame = pandas.DataFrame(data, columns=names)
    return Bunch(data=data, target=None, feature_names=names, frame=frame, filename=str(path), DESCR=description)


def _locate(file, data_home, download_if_missing):
    """Return the path of a file, downloaded if need be."""
    folders = [Path(folder).expanduser() for folder in (data_home, os.environ.get("RDKS_DATA")) if folder]
    for folder in folders:
        if (folder / file.name).is_file():
            return folder / file.name
    where = " or ".join(map(str, folders)) or "any folder, for none was given"
    advice = (f"Get it from {_EARTH_URL}{file.name} and put it in a folder that you pass as data_home, or name in the "
              "environment variable RDKS_DATA")
    if not download_if_missing:
        raise OSError(f"{file.name} is not in {where}, and download_if_missing is False. {advice}")
    pooch = require("pooch", feature=f"downloading {file.name}", extra="data")
    try:
        found = pooch.retrieve(_EARTH_URL + file.name, known_hash=f"sha256:{file.sha256}", fname=file.name,
                               path=folders[0] if folders else pooch.os_cache("rdks"))
    except OSError as error:  # requests' errors are among them
        raise OSError(f"{file.name} is not in {where}, and downloading it failed ({error}). {advice}") from error
    return Path(found)
