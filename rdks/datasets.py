"""Data to try things on: real ones, and laws in the plane whose densities are known."""
from __future__ import annotations

import hashlib
import numbers
import os
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import erfcx, logsumexp
from sklearn.utils import Bunch, check_array

from ._validation import as_generator
from .errors import require

__all__ = ["EARTH_SETS", "TOY2D_SETS", "fetch_earth", "load_airports", "make_toy2d", "toy2d_log_density"]

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


_TOY2D_DESCR = """\
{title}
{line}

One of the three laws in the plane on which flows and diffusion models are compared, in the units of the code that
papers on continuous flows share. Everything about it is known: `toy2d_log_density` is its log density.

:Number of rows: {n}, drawn for this call.
:Law: {law}
:Entropy: {entropy:.6f} nats, to within {error:g}. No density has a larger mean log-likelihood of draws than minus this.
:Bounds: {bounds}: a box that holds all but a part of less than 1e-8 of the law.
"""


class _Toy(NamedTuple):
    """A law in the plane."""

    title: str
    law: str
    entropy: float  # by quadrature of the density, to within _TOY_ERROR


_TOY_ERROR = 1e-6
_TOY_BOUNDS = ((-5.5, 5.5), (-5.5, 5.5))

_TOYS = {
    "2spirals": _Toy("Two spirals", "x = +-v/3 + 0.1 z with v = (-r cos r + U/2, r sin r + U'/2), r = 3 pi sqrt(U''), "
                     "z normal,\n    each U uniform on [0, 1], and each sign on one half of the rows.", 2.64545),
    "8gaussians": _Toy("Eight Gaussians", "x = (4 (cos k pi/4, sin k pi/4) + z/2) / 1.414, k uniform on 0, ..., 7, z "
                       "normal.", 2.83188),
    "pinwheel": _Toy("Pinwheel", "x = 2 (a cos f + b sin f, -a sin f + b cos f) with a = 1 + 0.3 z, b = 0.1 z', "
                     "f = 2 pi j/5 + exp(a)/4,\n    z and z' normal, and each j = 0, ..., 4 on one fifth of the rows.",
                     2.317788),
}

#: Names that :func:`make_toy2d` knows.
TOY2D_SETS = tuple(_TOYS)


def _toy(name):
    if name not in _TOYS:
        raise ValueError(f"name = {name!r}: expected one of {TOY2D_SETS}")
    return _TOYS[name]


def _balanced(n, kinds, rng):
    """Return labels 0, ..., kinds - 1 in random order, each as often as the others or once more."""
    start = rng.permutation(kinds)  # which labels occur once more
    return rng.permutation(start[np.arange(n) % kinds])


def make_toy2d(name, n_samples=1000, *, random_state=None):
    r"""Draw from one of the three laws in the plane on which flows and diffusion models are compared.

    Parameters
    ----------
    name : {"2spirals", "8gaussians", "pinwheel"}
        The laws of theory section 6.7: ``DESCR`` writes them out.
    n_samples : int
        Number of rows, at least 1.
    random_state : None, int, RandomState or Generator

    Returns
    -------
    sklearn.utils.Bunch
        With the attributes

        data : ndarray, shape (n_samples, 2)
        target : None
            There is nothing to predict.
        name : str
        entropy, entropy_error : float
            Differential entropy in nats, found by quadrature of :func:`toy2d_log_density`, and a bound of its error.
            Its negative is the largest mean log-likelihood that any density can have at draws.
        bounds : tuple of (low, high)
            A box for both coordinates, [-5.5, 5.5], that holds all but a part of less than 1e-8 of the law.
        DESCR : str

    Raises
    ------
    ValueError
        If the name is unknown, or `n_samples` is not a positive integer.

    See Also
    --------
    toy2d_log_density : The log density of the law.

    References
    ----------
    Grathwohl, Chen, Bettencourt, Sutskever and Duvenaud, "FFJORD" (ICLR 2019): the file ``toy_data.py`` of its
    repository. The pinwheel is that of Johnson, Duvenaud, Wiltschko, Datta and Adams (NeurIPS 2016).

    Examples
    --------
    >>> from rdks.datasets import make_toy2d
    >>> toy = make_toy2d("pinwheel", 500, random_state=0)
    >>> toy.data.shape, toy.bounds, round(toy.entropy, 3)
    ((500, 2), ((-5.5, 5.5), (-5.5, 5.5)), 2.318)
    """
    toy = _toy(name)
    if not isinstance(n_samples, numbers.Integral) or isinstance(n_samples, bool) or n_samples < 1:
        raise ValueError(f"n_samples = {n_samples!r}: expected a positive integer")
    rng = as_generator(random_state)
    z = rng.standard_normal((n_samples, 2))
    if name == "8gaussians":
        angle = np.pi / 4 * rng.integers(8, size=n_samples)
        data = (4 * np.column_stack([np.cos(angle), np.sin(angle)]) + 0.5 * z) / 1.414
    elif name == "pinwheel":
        a, b = 1 + 0.3 * z[:, 0], 0.1 * z[:, 1]
        angle = 2 * np.pi / 5 * _balanced(n_samples, 5, rng) + 0.25 * np.exp(a)
        data = 2 * np.column_stack([a * np.cos(angle) + b * np.sin(angle), b * np.cos(angle) - a * np.sin(angle)])
    else:
        r = 3 * np.pi * np.sqrt(rng.random(n_samples))
        v = np.column_stack([-r * np.cos(r), r * np.sin(r)]) + 0.5 * rng.random((n_samples, 2))
        data = (1 - 2 * _balanced(n_samples, 2, rng))[:, None] * v / 3 + 0.1 * z
    description = _TOY2D_DESCR.format(title=toy.title, line="-" * len(toy.title), n=n_samples, law=toy.law,
                                      entropy=toy.entropy, error=_TOY_ERROR, bounds=_TOY_BOUNDS)
    return Bunch(data=data, target=None, name=name, entropy=toy.entropy, entropy_error=_TOY_ERROR,
                 bounds=_TOY_BOUNDS, DESCR=description)


def toy2d_log_density(name, X):
    r"""Evaluate the log density of a law of :func:`make_toy2d`.

    Parameters
    ----------
    name : {"2spirals", "8gaussians", "pinwheel"}
    X : array-like, shape (n, 2)
        Points of the plane.

    Returns
    -------
    ndarray, shape (n,)
        Natural log, per unit of area; 1e-9 or less from the exact value within the bounds.

    Raises
    ------
    ValueError
        If the name is unknown, or X is not finite or not (n, 2).

    Notes
    -----
    Eight Gaussians: the sum of their densities.

    Pinwheel: blade j is the image of a normal law of (a, b) under a map that keeps lengths up to the factor 2 and
    turns by an angle that depends on a, whose Jacobian is :math:`4(1+\tfrac14be^a)`. At x of length
    :math:`2\rho` and angle :math:`\psi`, :math:`(a,b)=\rho(\cos\theta,\sin\theta)` for all roots of
    :math:`\theta-\tfrac14e^{\rho\cos\theta}=\psi+2\pi j/5`, so

    .. math:: p(x)=\frac1{20}\sum_j\sum_\theta\frac{g(a,b)}{|1+\tfrac14be^a|} .

    Spirals: with r fixed, each coordinate is a constant plus a uniform and a normal variable, of density
    :math:`q(s)=6[\Phi(10s)-\Phi(10s-\tfrac{10}6)]`, and so

    .. math:: p(x)=\tfrac12\sum_\pm\int_0^{3\pi}\frac{2r}{9\pi^2}\,q(\pm x_1+\tfrac13r\cos r)\,
              q(\pm x_2-\tfrac13r\sin r)\,dr ,

    an integral by Gauss and Legendre's rule, whose nodes are closer than the width of the integrand.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.datasets import make_toy2d, toy2d_log_density
    >>> toy = make_toy2d("2spirals", 2000, random_state=0)
    >>> bool(abs(toy2d_log_density("2spirals", toy.data).mean() + toy.entropy) < 0.05)
    True
    """
    _toy(name)
    X = check_array(X, dtype=float, ensure_min_samples=0)
    if X.shape[1] != 2:
        raise ValueError(f"X has shape {X.shape}: expected points of the plane, (n, 2)")
    log_density = {"2spirals": _spirals, "8gaussians": _gaussians, "pinwheel": _pinwheel}[name]
    return np.concatenate([np.empty(0), *(log_density(X[a:a + 250]) for a in range(0, len(X), 250))])


def _gaussians(X):
    angle = np.pi / 4 * np.arange(8)
    centres, scale = 4 / 1.414 * np.column_stack([np.cos(angle), np.sin(angle)]), 0.5 / 1.414
    square = ((X[:, None] - centres) ** 2).sum(axis=-1)
    return logsumexp(-0.5 * square / scale**2, axis=1) - np.log(8 * 2 * np.pi * scale**2)


def _pinwheel(X):
    radius, angle = 0.5 * np.hypot(X[:, 0], X[:, 1]), np.arctan2(X[:, 1], X[:, 0])
    # roots: where (turned - angle) / (a fifth of a turn) is a whole number; brackets of them are refined by bisection
    theta = np.linspace(-np.pi, np.pi, 513)

    def turns(row, theta):
        return (theta - 0.25 * np.exp(radius[row] * np.cos(theta)) - angle[row]) * (5 / (2 * np.pi))

    value = np.floor(turns(np.arange(len(X))[:, None], theta))
    row, cell = np.nonzero(value[:, 1:] != value[:, :-1])
    goal = np.maximum(value[row, cell], value[row, cell + 1])
    low, high = theta[cell], theta[cell + 1]
    rising = value[row, cell + 1] > value[row, cell]
    for _ in range(48):
        middle = 0.5 * (low + high)
        beyond = (turns(row, middle) >= goal) == rising
        low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
    a, b = radius[row] * np.cos(low), radius[row] * np.sin(low)
    logs = -0.5 * (((a - 1) / 0.3) ** 2 + (b / 0.1) ** 2) - np.log(2 * np.pi * 0.03)
    logs -= np.log(20 * np.abs(1 + 0.25 * b * np.exp(a)))
    top = np.full(len(X), -np.inf)
    np.maximum.at(top, row, logs)
    return np.log(np.bincount(row, np.exp(logs - top[row]), len(X))) + top


def _spirals(X):
    x, w = np.polynomial.legendre.leggauss(600)
    r, weight = 1.5 * np.pi * (x + 1), 1.5 * np.pi * w
    weight *= 0.5 * 2 * r / (9 * np.pi**2)
    c = 10 / 12

    def parts(s):
        """Return e and f with q = f exp(-e): u is the distance from the middle of the jitter, about which q is even."""
        u = 10 * np.abs(s - 1 / 12)
        f = erfcx((u - c) / np.sqrt(2)) - np.exp(-2 * c * u) * erfcx((u + c) / np.sqrt(2))
        return 0.5 * (u - c) ** 2, 3 * f

    out = []
    for sign in (1, -1):
        (e, f), (g, h) = parts(sign * X[:, :1] + r / 3 * np.cos(r)), parts(sign * X[:, 1:] - r / 3 * np.sin(r))
        e += g
        least = e.min(axis=1)
        out.append(np.log((np.exp(np.maximum(least[:, None] - e, -100.0)) * f * h) @ weight) - least)
    return np.logaddexp(*out)
