"""The demo's parts: data, map, comparison, picture, command line."""
import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
from matplotlib import image, pyplot
from matplotlib.figure import Figure

from rdks import RDKSEstimator, demo, errors
from rdks.__main__ import build_parser
from rdks.__main__ import main as command
from rdks.datasets import load_airports
from rdks.manifolds import Euclidean, Sphere
from rdks.plotting import DensityDisplay


@pytest.fixture(scope="module")
def airports():
    return load_airports()


@pytest.fixture(scope="module")
def fitted(airports):
    return RDKSEstimator(Sphere(2, coords="latlon_deg"), bandwidth=0.08).fit(airports.data[::20])


@pytest.fixture
def ax():
    return Figure().add_subplot(projection="mollweide")


# data


def test_airports(airports):
    assert airports.data.shape == (len(airports.codes), 2) and len(airports.data) > 20_000
    assert airports.target is None and airports.frame is None
    assert np.isfinite(airports.data).all()
    assert np.abs(airports.data).max(axis=0)[0] <= 90 and np.abs(airports.data).max(axis=0)[1] <= 180
    assert len(set(airports.codes)) == len(airports.codes)
    assert f"{len(airports.data)} in " in airports.DESCR.replace(",", "")


def test_airports_order_is_latitude_longitude(airports):
    place = dict(zip(airports.codes, airports.data, strict=True))
    np.testing.assert_allclose(place["KJFK"], [40.64, -73.78], atol=0.02)
    np.testing.assert_allclose(place["YSSY"], [-33.95, 151.18], atol=0.02)


def test_airports_description_counts_copies(airports):
    copies = len(airports.data) - len(np.unique(airports.data, axis=0))
    assert f"{copies} rows repeat" in airports.DESCR


def test_airports_as_frame(airports):
    bunch = load_airports(as_frame=True)
    assert list(bunch.data.columns) == bunch.feature_names
    assert list(bunch.frame.columns) == ["latitude", "longitude", "country"]
    assert bunch.data.loc["LSZH"].round(1).tolist() == [47.5, 8.5]
    np.testing.assert_array_equal(bunch.data.to_numpy(), airports.data)


# map


def test_display_holds_the_density_in_the_middle_of_cells(fitted, ax):
    display = DensityDisplay.from_estimator(fitted, resolution=24, ax=ax)
    assert display.log_density.shape == (24, 48)
    assert (display.latitude[0], display.latitude[-1]) == (-86.25, 86.25)
    assert (display.longitude[0], display.longitude[-1]) == (-176.25, 176.25)
    where = np.array([[display.latitude[20], display.longitude[7]]])
    np.testing.assert_allclose(display.log_density[20, 7], fitted.score_samples(where)[0], rtol=1e-12)
    np.testing.assert_allclose(display.log_uniform, -np.log(4 * np.pi))
    assert display.ax_ is ax and display.figure_ is ax.figure
    assert display.colorbar_.ax.get_xlabel()


def test_display_has_mass_one(fitted, ax):
    display = DensityDisplay.from_estimator(fitted, resolution=120, ax=ax, refine=1, colorbar=False)
    cell = (np.pi / 120) ** 2 * np.cos(np.deg2rad(display.latitude))
    assert abs(cell @ np.exp(display.log_density).sum(axis=1) - 1) < 1e-4
    assert display.colorbar_ is None


@pytest.mark.parametrize("coords, radius", [("extrinsic", 1.0), ("latlon_rad", 1.0), ("latlon_deg", 6371.0)])
def test_display_does_not_depend_on_the_chart(fitted, ax, airports, coords, radius):
    manifold = Sphere(2, coords=coords, radius=radius)
    X = manifold.unembed(Sphere(2, coords="latlon_deg", radius=radius).embed(airports.data[::20]))
    est = RDKSEstimator(manifold, bandwidth=0.08 * radius).fit(X)
    one, other = (DensityDisplay.from_estimator(e, resolution=12, ax=ax, colorbar=False)
                  for e in (fitted, est))
    np.testing.assert_allclose(other.log_density - other.log_uniform, one.log_density - one.log_uniform,
                               rtol=1e-9)


def test_display_takes_column_names_and_a_time(ax, airports):
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame(airports.data[::100], columns=airports.feature_names)
    est = RDKSEstimator(Sphere(2, coords="latlon_deg"), bandwidth=0.2).fit(X)
    now, later = (DensityDisplay.from_estimator(est, t=t, resolution=10, ax=ax, colorbar=False)
                  for t in (None, 100.0))
    assert np.ptp(now.log_density) > 1
    np.testing.assert_allclose(later.log_density, later.log_uniform, rtol=1e-9)


def test_interpolation_goes_around_the_sphere_and_over_the_poles(ax):
    from rdks.plotting import _refined

    def smooth(rows):
        lat = np.deg2rad((np.arange(rows) + 0.5) * (180 / rows) - 90)[:, None]
        lon = np.deg2rad((np.arange(2 * rows) + 0.5) * (180 / rows) - 180)
        return np.sin(lat) + np.cos(lat) * (np.cos(lon) + 0.3 * np.sin(lon))  # linear in x, y, z

    np.testing.assert_allclose(_refined(smooth(60), 3), smooth(180), atol=2e-5)


def test_far_tails_are_drawn_in_the_last_colour_and_marked(ax):
    X = np.array([[10.0, 20.0], [11.0, 21.0]])
    est = RDKSEstimator(Sphere(2, coords="latlon_deg"), bandwidth=0.01).fit(X)
    display = DensityDisplay.from_estimator(est, resolution=60, ax=ax)
    assert display.log_density.min() < -10_000
    assert np.isfinite(display.log_density).all()
    drawn = display.mesh_.get_array()
    assert not np.ma.getmaskarray(drawn).any() and drawn.min() > 0
    assert display.colorbar_.extend == "min"
    display.plot(ax, vmin=1e-2, vmax=2.0)
    assert display.colorbar_.extend == "both"
    assert display.mesh_.norm.vmin == 1e-2


def test_nearly_uniform_density_gets_numbers_on_its_bar(ax):
    est = RDKSEstimator(Sphere(2, coords="latlon_deg"), bandwidth=2.0).fit(np.array([[0.0, 0.0]]))
    display = DensityDisplay.from_estimator(est, resolution=10, ax=ax)
    assert display.colorbar_.extend == "neither"
    assert len(display.colorbar_.get_ticks()) >= 3


def test_display_makes_its_own_axes(fitted):
    display = DensityDisplay.from_estimator(fitted, resolution=10)
    assert display.ax_.name == "mollweide"
    pyplot.close(display.figure_)


def test_display_refuses(fitted, ax):
    with pytest.raises(errors.UnsupportedError, match="Euclidean"):
        DensityDisplay.from_estimator(RDKSEstimator(Euclidean(2), bandwidth=1.0).fit(np.eye(2)))
    with pytest.raises(errors.UnsupportedError, match="dim=3"):
        DensityDisplay.from_estimator(RDKSEstimator(Sphere(3), bandwidth=1.0).fit(np.eye(4)))
    with pytest.raises(ValueError, match="resolution"):
        DensityDisplay.from_estimator(fitted, resolution=1)
    with pytest.raises(ValueError, match="geographic"):
        DensityDisplay.from_estimator(fitted, resolution=10, ax=Figure().add_subplot())
    for bad in ({"vmin": 0.0}, {"vmin": 2.0, "vmax": 1.0}):
        with pytest.raises(ValueError, match="vmin"):
            DensityDisplay.from_estimator(fitted, resolution=10, ax=ax, **bad)
    with pytest.raises(ValueError, match="refine"):
        DensityDisplay.from_estimator(fitted, resolution=10, ax=ax, refine=0)


# demo


def test_comparison_is_a_tie_well_above_uniform(airports):
    result = demo.compare(airports.data[::15], n_jobs=1, verbose=False)
    automatic, heat, haversine, uniform = (row["log_density"] for row in result.rows)
    assert len(result.held_out) + len(result.fitted) == len(airports.data[::15])
    assert result.rows[1]["bandwidth"] == result.rows[2]["bandwidth"]
    assert abs(np.median(heat - haversine)) < 5e-3
    assert (heat - uniform).mean() > 1.5 and (automatic - uniform).mean() > 1.5


def test_comparison_counts_copies():
    X = np.array([[0.0, 0.0], [0.0, 1.0], [5.0, 5.0]])
    assert demo.Comparison([], X[[0, 0, 2]], X[[0, 1]]).copies == 2


def test_parser():
    args = build_parser().parse_args(["demo", "--out", "somewhere", "--points", "500"])
    assert (args.command, args.out, args.points, args.jobs) == ("demo", "somewhere", 500, -1)
    assert build_parser().parse_args(["demo"]).out == "."


@pytest.mark.parametrize("argv, status", [([], 2), (["--help"], 0), (["demo", "--help"], 0), (["no"], 2)])
def test_parser_exits(argv, status, capsys):
    with pytest.raises(SystemExit) as stop:
        command(argv)
    assert stop.value.code == status
    assert "demo" in "".join(capsys.readouterr())


def test_command_line_writes_the_picture(tmp_path, capsys):
    out = tmp_path / "new" / "folder"
    assert command(["demo", "--out", str(out), "--points", "800", "--jobs", "1", "--quiet"]) == 0
    printed = capsys.readouterr()
    assert not printed.err
    for word in ("manifold", "Sphere", "bandwidth", "km", "engine", "uniform law", "scikit-learn", "Seconds"):
        assert word in printed.out
    assert str(out / "airports.png") in printed.out
    picture = image.imread(out / "airports.png")
    assert picture.shape[0] > 1000 and picture.shape[1] > 1500
    assert (out / "airports.png").stat().st_size < 1.5e6
    # the map is dark where there are no airports and bright where there are
    assert picture[..., :3].std() > 0.2


def test_too_few_points(tmp_path):
    with pytest.raises(ValueError, match="points = 5"):
        demo.main(tmp_path, points=5, verbose=False)
