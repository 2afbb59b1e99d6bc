"""Pictures of fitted densities, in the style of scikit-learn's displays.

matplotlib is imported where something is drawn and not before.
"""
from __future__ import annotations

import numpy as np
from sklearn.utils.validation import check_is_fitted

from .errors import UnsupportedError, require
from .manifolds import Sphere

__all__ = ["DensityDisplay", "style_map"]

# queries per call while a map is computed: enough to keep all threads busy, few enough for a bar to move
_BLOCK = 4096


class DensityDisplay:
    """Map of a density on the two-dimensional sphere.

    Make one with :meth:`from_estimator`, which computes and draws; :meth:`plot` draws again, with
    other colours or on other axes, without computing again.

    Parameters
    ----------
    latitude : ndarray, shape (rows,)
        Latitudes of the middles of the cells in degrees, ascending and equally spaced from pole
        to pole.
    longitude : ndarray, shape (columns,)
        Longitudes of the middles of the cells in degrees, likewise from -180 to 180.
    log_density : ndarray, shape (rows, columns)
        Natural logarithm of the density in the middles of the cells, per unit of area of the
        manifold (steradians on the unit sphere).
    log_uniform : float
        Natural logarithm of the uniform density on the manifold, in the same unit.

    Attributes
    ----------
    ax_ : matplotlib axes
        The map.
    figure_ : matplotlib figure
    mesh_ : matplotlib.collections.QuadMesh
    colorbar_ : matplotlib.colorbar.Colorbar or None

    Notes
    -----
    The density is evaluated in the middles of cells that end exactly at the poles and at the date
    line, so each cell is one value and no strip of the map is left blank or drawn twice.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from rdks import RDKSEstimator
    >>> from rdks.manifolds import Sphere
    >>> from rdks.plotting import DensityDisplay
    >>> cities = np.array([[48.9, 2.4], [51.5, -0.1], [40.7, -74.0], [35.7, 139.7]])
    >>> est = RDKSEstimator(Sphere(2, coords="latlon_deg"), bandwidth=0.3).fit(cities)
    >>> ax = Figure().add_subplot(projection="mollweide")
    >>> display = DensityDisplay.from_estimator(est, resolution=30, ax=ax)
    >>> display.log_density.shape
    (30, 60)
    >>> display.colorbar_.ax.get_xlabel()
    'density relative to uniform (1 = spread evenly over the sphere)'
    """

    def __init__(self, *, latitude, longitude, log_density, log_uniform):
        self.latitude = latitude
        self.longitude = longitude
        self.log_density = log_density
        self.log_uniform = log_uniform

    @classmethod
    def from_estimator(cls, estimator, *, t=None, resolution=180, ax=None, verbose=False, **plot_params):
        """Evaluate a fitted density on a grid and draw it.

        Parameters
        ----------
        estimator : RDKSEstimator
            Fitted on a ``Sphere(2)``, in any chart.
        t : float, optional
            Diffusion time since the fitted density, >= 0; 0 by default.
        resolution : int
            Cells from pole to pole; there are twice as many around the equator.
        ax : matplotlib axes, optional
            Axes with a geographic projection. By default a new figure with a Mollweide map, which
            keeps areas.
        verbose : bool
            Show a progress bar while the density is evaluated.
        **plot_params
            Passed to :meth:`plot`.

        Returns
        -------
        DensityDisplay

        Raises
        ------
        UnsupportedError
            If the manifold is not a two-dimensional sphere.
        """
        check_is_fitted(estimator)
        manifold = estimator.manifold_
        if not (isinstance(manifold, Sphere) and manifold.dim == 2):
            raise UnsupportedError(
                f"DensityDisplay draws densities on Sphere(2), found one on {manifold!r}. Evaluate "
                "score_samples on points of your choice and plot those")
        if resolution < 2:
            raise ValueError(f"resolution = {resolution!r}: expected at least 2 cells from pole to pole")
        latitude = (np.arange(resolution) + 0.5) * (180 / resolution) - 90
        longitude = (np.arange(2 * resolution) + 0.5) * (180 / resolution) - 180
        grid = np.stack(np.meshgrid(latitude, longitude, indexing="ij"), axis=-1).reshape(-1, 2)
        points = manifold.unembed(Sphere(2, coords="latlon_deg", radius=manifold.radius).embed(grid))
        log_density = _evaluate(estimator, points, t, verbose).reshape(len(latitude), len(longitude))
        display = cls(latitude=latitude, longitude=longitude, log_density=log_density,
                      log_uniform=-float(np.log(manifold.volume)))
        return display.plot(ax, **plot_params)

    def plot(self, ax=None, *, cmap="magma", vmin=None, vmax=None, refine=2, colorbar=True):
        """Draw the map with logarithmic colours.

        Parameters
        ----------
        ax : matplotlib axes, optional
            Axes with a geographic projection; by default those of a new figure with a Mollweide
            map.
        cmap : str or matplotlib colour map
        vmin, vmax : float, optional
            Densities, in units of the uniform density, at the ends of the colours; the colour bar
            has an arrow at an end that cuts something off. By default the largest value on the
            map, and the smallest or 1e-5 of the largest: far from all data a density falls to
            exp(-1000) and less, which would leave one colour for everything else.
        refine : int
            Draw each cell as this many by this many, with the log density between the middles of
            the cells interpolated by cubic splines; 1 draws what was computed and nothing else.
        colorbar : bool

        Returns
        -------
        DensityDisplay
            Itself.
        """
        geo = require("matplotlib.projections.geo", feature="DensityDisplay", extra="plot")
        colors = require("matplotlib.colors", feature="DensityDisplay", extra="plot")
        if refine < 1:
            raise ValueError(f"refine = {refine!r}: expected an integer >= 1")
        relative = self.log_density - self.log_uniform
        low, high = float(relative.min()), float(relative.max())
        vmax = np.exp(high) if vmax is None else vmax
        # a density that is uniform to rounding still gets a range of colours
        vmin = min(max(np.exp(low), 1e-5 * vmax), 0.99 * vmax) if vmin is None else vmin
        if not 0 < vmin < vmax:
            raise ValueError(f"vmin = {vmin:g}, vmax = {vmax:g}: expected 0 < vmin < vmax, densities in "
                             "units of the uniform density")
        if ax is None:
            pyplot = require("matplotlib.pyplot", feature="DensityDisplay", extra="plot")
            _, ax = pyplot.subplots(figsize=(9, 5.2), subplot_kw={"projection": "mollweide"},
                                    layout="constrained")
        elif not isinstance(ax, geo.GeoAxes):
            raise ValueError(f"ax has the projection {ax.name!r}; expected a geographic one, as made by "
                             "add_subplot(projection='mollweide')")
        # cut in the log domain: the exponential of a far tail is 0, which a logarithmic norm leaves blank
        shown = np.exp(np.maximum(_refined(relative, refine), np.log(vmin) - 1))
        below, above = low < np.log(vmin) - 1e-9, high > np.log(vmax) + 1e-9
        extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[below, above]
        rows, columns = shown.shape
        self.mesh_ = ax.pcolormesh(
            np.linspace(-np.pi, np.pi, columns + 1), np.linspace(-0.5 * np.pi, 0.5 * np.pi, rows + 1), shown,
            norm=colors.LogNorm(vmin, vmax), cmap=cmap, rasterized=True)
        style_map(ax)
        self.ax_, self.figure_ = ax, ax.figure
        self.colorbar_ = None
        if colorbar:
            # at least three numbers on the bar, also where the range is less than a decade
            ticks = None if vmax >= 100 * vmin else np.geomspace(vmin, vmax, 4)
            self.colorbar_ = ax.figure.colorbar(
                self.mesh_, ax=ax, orientation="horizontal", extend=extend, fraction=0.05, pad=0.03,
                aspect=45, shrink=0.7, ticks=ticks, format="{x:.3g}",
                label="density relative to uniform (1 = spread evenly over the sphere)")
            self.colorbar_.ax.minorticks_off()
            self.colorbar_.outline.set_visible(False)
        return self


def style_map(ax, *, grid="0.6"):
    """Give geographic axes a quiet graticule every 30 degrees, and no labels on top of the map.

    Parameters
    ----------
    ax : matplotlib axes
        With a geographic projection.
    grid : matplotlib colour

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from rdks.plotting import style_map
    >>> ax = Figure().add_subplot(projection="mollweide")
    >>> style_map(ax)
    """
    ax.set_longitude_grid(30)
    ax.set_latitude_grid(30)
    ax.set_longitude_grid_ends(90)
    ax.grid(color=grid, linewidth=0.4, alpha=0.45)
    ax.tick_params(labelbottom=False, labelleft=False)
    ax.spines["geo"].set(linewidth=0.6, edgecolor=grid)


def _refined(values, factor):
    """Interpolate values in the middles of cells to the middles of smaller ones, around the sphere."""
    if factor == 1:
        return values
    from scipy.ndimage import map_coordinates

    rows, columns = values.shape
    # a meridian goes on beyond the pole as the opposite one; splines forget their ends within ten cells
    pad = min(10, rows)
    around = np.concatenate([np.roll(values[:pad][::-1], columns // 2, axis=1), values,
                             np.roll(values[-pad:][::-1], columns // 2, axis=1)])
    i = (np.arange(rows * factor) + 0.5) / factor - 0.5 + pad
    j = (np.arange(columns * factor) + 0.5) / factor - 0.5
    return map_coordinates(around, np.meshgrid(i, j, indexing="ij"), order=3, mode="grid-wrap")


def _evaluate(estimator, points, t, verbose):
    """Return the log density at points, block by block."""
    if hasattr(estimator, "feature_names_in_"):
        pandas = require("pandas", feature="an estimator fitted with column names", extra="test")
        points = pandas.DataFrame(points, columns=estimator.feature_names_in_)
    starts = range(0, len(points), _BLOCK)
    if verbose:
        from tqdm.auto import tqdm  # which warns in notebooks that lack its widgets, so only on request
        starts = tqdm(starts, desc="map", unit="block")
    return np.concatenate([estimator.score_samples(points[a:a + _BLOCK], t) for a in starts])
