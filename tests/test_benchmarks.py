"""Published benchmarks: data, divisions, baselines, tables, command line. No file is downloaded, none is shared."""
import hashlib
import http.server
import json
import sys
import threading

import joblib
import numpy as np
import pytest
from scipy import integrate, stats
from scipy.spatial.transform import Rotation

from rdks import datasets
from rdks.__main__ import build_parser
from rdks.__main__ import main as command
from rdks.benchmarks import baselines, earth, protocols, published, report, so3
from rdks.datasets import EARTH_SETS, fetch_earth
from rdks.errors import MissingDependencyError
from rdks.manifolds import SO3, Sphere


def places(n, seed, copied=0):
    """Latitudes and longitudes around two cities, rounded, the first rows repeated."""
    rng = np.random.default_rng(seed)
    X = np.where(rng.random((n, 1)) < 0.5, [47.4, 8.5], [-33.9, 151.2]) + 5 * rng.standard_normal((n, 2))
    X = np.vstack([X, X[:copied]]).round(3)
    return X[rng.permutation(len(X))]


def published_files(tmp_path, monkeypatch):
    """Write four small files in the layout of the published ones, and have them count as published."""
    monkeypatch.delenv("RDKS_DATA", raising=False)
    files = {}
    for i, (name, file) in enumerate(datasets._EARTH.items()):
        X = places(60, i, copied=40 if name == "volcano" else 0)
        text = "# a comment\n" * (file.header - 1) + "lat,long\n" + "\r\n".join(f"{a:.3f},{b:.3f}" for a, b in X)
        (tmp_path / file.name).write_bytes(text.encode())
        files[name] = file._replace(sha256=hashlib.sha256(text.encode()).hexdigest())
    monkeypatch.setattr(datasets, "_EARTH", files)
    return tmp_path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    return published_files(tmp_path, monkeypatch)


# data


def test_names_headers_and_checksums_of_the_published_files():
    assert EARTH_SETS == ("volcano", "earthquake", "flood", "fire")
    table = {name: (file.name, file.header, file.sha256[:8]) for name, file in datasets._EARTH.items()}
    assert table == {"volcano": ("volerup.csv", 2, "f7bbaf32"), "earthquake": ("quakes_all.csv", 4, "3e5e1a10"),
                     "flood": ("flood.csv", 2, "ffb1e318"), "fire": ("fire.csv", 1, "c5c6c949")}
    assert datasets._EARTH_URL.startswith("https://") and len(datasets._EARTH_URL.split("/")[-3]) == 40


def test_fetch_from_a_folder(folder):
    for i, name in enumerate(EARTH_SETS):
        bunch = fetch_earth(name, data_home=folder, download_if_missing=False)
        np.testing.assert_array_equal(bunch.data, places(60, i, copied=40 if name == "volcano" else 0))
        assert bunch.feature_names == ["latitude", "longitude"] and bunch.target is None and bunch.frame is None
        assert bunch.filename == str(folder / datasets._EARTH[name].name)


def test_description_counts_copies(folder):
    text = fetch_earth("volcano", data_home=folder).DESCR
    # 40 places twice: 80 of 100 rows share theirs; a held-out one of them has its copy fitted with probability 0.8
    for words in ("rows: 100.", "points: 60. 80 rows (80.0%)", "occurs 2 times", "about 64% of the others"):
        assert words in text
    assert "Copies are few" in fetch_earth("fire", data_home=folder).DESCR


def test_fetch_as_frame(folder):
    bunch = fetch_earth("flood", data_home=folder, as_frame=True)
    assert list(bunch.data.columns) == bunch.feature_names and bunch.frame is bunch.data
    np.testing.assert_array_equal(bunch.data.to_numpy(), fetch_earth("flood", data_home=folder).data)


def test_fetch_from_the_environment(folder, monkeypatch, tmp_path_factory):
    monkeypatch.setenv("RDKS_DATA", str(folder))
    assert len(fetch_earth("flood").data) == 60
    other = tmp_path_factory.mktemp("empty")  # what is not in data_home is looked for there
    assert fetch_earth("flood", data_home=other).filename == str(folder / "flood.csv")
    (other / "flood.csv").write_bytes((folder / "flood.csv").read_bytes())
    assert fetch_earth("flood", data_home=other).filename == str(other / "flood.csv")  # and data_home comes first


def test_a_file_that_was_changed_is_refused(folder):
    path = folder / "fire.csv"
    path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n"))
    with pytest.raises(ValueError, match=r"fire\.csv is not the published file.*checksum.*expected"):
        fetch_earth("fire", data_home=folder)


def test_errors_of_fetch_say_what_to_do(folder, tmp_path_factory, monkeypatch):
    with pytest.raises(ValueError, match="name = 'storm': expected one of"):
        fetch_earth("storm")
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(OSError, match=r"flood\.csv is not in .*empty.*download_if_missing is False.*https:.*RDKS_DATA"):
        fetch_earth("flood", data_home=empty, download_if_missing=False)
    with pytest.raises(OSError, match="not in any folder"):
        fetch_earth("flood", download_if_missing=False)
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(MissingDependencyError, match=r"rdks\[data\]"):
        fetch_earth("flood", data_home=empty)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def test_download(folder, tmp_path_factory, monkeypatch):
    pytest.importorskip("pooch").get_logger().setLevel("ERROR")
    empty = tmp_path_factory.mktemp("new") / "folder"
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: _Quiet(*a, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        monkeypatch.setattr(datasets, "_EARTH_URL", f"http://127.0.0.1:{server.server_port}/")
        bunch = fetch_earth("flood", data_home=empty)
        assert bunch.filename == str(empty / "flood.csv") and len(bunch.data) == 60
        (folder / "fire.csv").write_bytes(b"1,2\n3,4")
        with pytest.raises(ValueError, match="hash"):
            fetch_earth("fire", data_home=empty)
        assert not (empty / "fire.csv").exists()
        (folder / "volerup.csv").unlink()
        with pytest.raises(OSError, match=r"downloading it failed.*404.*put it in a folder"):
            fetch_earth("volcano", data_home=empty)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# divisions


@pytest.mark.parametrize("protocol, n, number", [("splits", 107, 5), ("cv", 107, 20), ("loo", 107, 107)])
def test_parts_are_disjoint_cover_and_repeat(protocol, n, number):
    every = protocols.parts(protocol, n)
    assert len(every) == number
    for part in every:
        rows = np.concatenate([part.train, part.validation, part.test])
        np.testing.assert_array_equal(np.sort(rows), np.arange(n))
    for one, other in zip(every, protocols.parts(protocol, n), strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)
    if protocol == "splits":
        assert {(len(p.train), len(p.validation), len(p.test)) for p in every} == {(87, 10, 10)}
        assert len({tuple(p.test) for p in every}) == 5
    else:  # every row is held out once per seed
        tests = {}
        for part in every:
            assert not len(part.validation)
            tests.setdefault(part.seed, []).append(part.test)
        for folds in tests.values():
            np.testing.assert_array_equal(np.sort(np.concatenate(folds)), np.arange(n))
            assert max(map(len, folds)) - min(map(len, folds)) <= 1
        assert len(tests) == (2 if protocol == "cv" else 1)


def test_seeds_differ_and_do_not_depend_on_their_number():
    few, many = protocols.parts("splits", 50, 2), protocols.parts("splits", 50, 4)
    np.testing.assert_array_equal(few[1].test, many[1].test)
    assert set(few[0].test) != set(few[1].test)


def test_parts_refuse():
    with pytest.raises(ValueError, match="protocol = 'jackknife'"):
        protocols.parts("jackknife", 100)
    with pytest.raises(ValueError, match="n = 19"):
        protocols.parts("splits", 19)
    with pytest.raises(ValueError, match="Use 'cv'"):
        protocols.parts("loo", 1001)


def test_distinct_and_copies():
    X = places(60, 0, copied=40)
    assert len(X) == 100 and len(protocols.distinct(X)) == 60
    assert set(map(tuple, protocols.distinct(X))) == set(map(tuple, X))
    assert protocols.copies(X[:50], X[50:]) == sum(any((a == b).all() for b in X[:50]) for a in X[50:]) > 0


def test_summaries_by_hand():
    records = [{"test": np.array([0, 2]), "log_density": np.array([1.0, 2.0]), "seconds": 1.0},
               {"test": np.array([1, 2]), "log_density": np.array([4.0, 6.0]), "seconds": 3.0},
               {"test": np.array([0, 1]), "log_density": np.array([5.0, 0.0]), "seconds": 9.0}]
    splits = protocols.summarise("splits", records)  # means 1.5, 5, 2.5
    np.testing.assert_allclose(splits, (-3.0, np.sqrt((1.5**2 + 2.0**2 + 0.5**2) / 2), 3, 3.0))
    cv = protocols.summarise("cv", records)  # points 3, 2, 4
    np.testing.assert_allclose(cv, (-3.0, 1 / np.sqrt(3), 3, 3.0))
    assert protocols.summarise("splits", records[:1]).spread is None
    worse = [{**r, "log_density": r["log_density"] - [1.0, 3.0]} for r in records]
    mean, error = protocols.difference(worse, records)  # points 1, 2, 3
    np.testing.assert_allclose((mean, error), (2.0, 1 / np.sqrt(3)))


# baselines


def test_concentration_inverts_the_mean_resultant_length():
    mpmath = pytest.importorskip("mpmath").mp.clone()
    mpmath.dps = 40
    for kappa in (1e-3, 0.05, 0.099, 0.101, 0.7, 5.0, 19.9, 20.1, 700.0):
        resultant = float(mpmath.coth(kappa) - 1 / mpmath.mpf(kappa))
        # the length has 16 digits, of which 1 - length keeps those that a sharp law is known by; the series used up
        # to 0.1 leaves out 2 kappa^9 / 93555, and the closed form cancels 1 / kappa^2 there
        np.testing.assert_allclose(baselines.concentration(resultant), kappa, rtol=1e-12 + 1e-15 * kappa)
    assert baselines.concentration(0.0) == 0 and baselines.concentration(1.0) == np.inf
    assert baselines.concentration(1 + 1e-15) == np.inf
    grid = np.linspace(0, 0.9999, 2001)
    assert (np.diff(baselines.concentration(grid)) > 0).all()


def directions(n, rng, *laws):
    which = rng.integers(len(laws), size=n)
    draws = np.stack([law.rvs(n, random_state=rng) for law in laws])
    return draws[which, np.arange(n)]


def test_mixture_density_is_scipys():
    rng = np.random.default_rng(0)
    model = baselines.VonMisesFisherMixture()
    model.weights_ = np.array([0.2, 0.5, 0.3])
    model.means_ = stats.uniform_direction(3).rvs(3, random_state=1)
    model.concentrations_ = np.array([0.3, 12.0, 4000.0])
    X = np.vstack([model.means_, stats.uniform_direction(3).rvs(50, random_state=rng)])
    expected = sum(w * stats.vonmises_fisher(m, k).pdf(X) for w, m, k in
                   zip(model.weights_, model.means_, model.concentrations_, strict=True))
    np.testing.assert_allclose(np.exp(model.score_samples(X)), expected, rtol=1e-11)
    model.concentrations_ = np.zeros(3)  # the uniform law
    np.testing.assert_allclose(model.score_samples(X), baselines.UniformLaw().score_samples(X), atol=1e-8)
    assert model.score_samples(X[:0]).shape == (0,)


def test_one_component_is_the_fit_of_largest_likelihood():
    X = stats.vonmises_fisher([0, 0, 1], 30).rvs(500, random_state=0)
    model = baselines.VonMisesFisherMixture(1).fit(X)
    mean, kappa = stats.vonmises_fisher.fit(X)
    np.testing.assert_allclose(model.means_[0], mean, atol=1e-12)
    np.testing.assert_allclose(model.concentrations_[0], kappa, rtol=1e-6)  # scipy's root finder
    np.testing.assert_allclose(model.history_[-1], stats.vonmises_fisher(mean, kappa).logpdf(X).mean(), rtol=1e-9)


def test_mixture_recovers_what_was_drawn():
    rng = np.random.default_rng(1)
    laws = [stats.vonmises_fisher(m, k) for m, k in (([0, 0, 1.0], 80), ([0, 1.0, 0], 20))]
    X = directions(8000, rng, *laws)
    model = baselines.VonMisesFisherMixture([1, 2, 4], n_init=2, tol=1e-7, random_state=0).fit(X)
    assert model.details_["components"] in (2, 4)
    model = baselines.VonMisesFisherMixture(2, tol=1e-9, random_state=0).fit(X)
    order = np.argsort(-model.concentrations_)
    # standard errors: kappa / sqrt(n / 2), 1 / sqrt(kappa n / 2) and 1/2 sqrt(1/n); four of them
    np.testing.assert_allclose(model.concentrations_[order], [80, 20], rtol=4 / np.sqrt(4000))
    np.testing.assert_allclose(model.means_[order], [[0, 0, 1], [0, 1, 0]], atol=4 / np.sqrt(20 * 4000))
    np.testing.assert_allclose(model.weights_, 0.5, atol=4 * 0.5 / np.sqrt(8000))


def test_likelihood_rises_and_is_that_of_the_fit():
    X = directions(900, np.random.default_rng(2), stats.vonmises_fisher([1.0, 0, 0], 10), stats.uniform_direction(3))
    for cap in (1e8, 50.0):  # a cap keeps each step a maximum over what is allowed
        model = baselines.VonMisesFisherMixture(20, max_concentration=cap, tol=0.0, max_iter=60, random_state=0).fit(X)
        assert len(model.history_) > 10 and (np.diff(model.history_) > -1e-12).all()
        assert model.concentrations_.max() <= cap
        np.testing.assert_allclose(model.history_[-1], model.score_samples(X).mean(), rtol=1e-12)


def test_mixture_on_copies_stops_at_the_cap():
    X = np.repeat(stats.uniform_direction(3).rvs(6, random_state=0), 30, axis=0)
    model = baselines.VonMisesFisherMixture(6, max_concentration=1e6, random_state=0).fit(X)
    np.testing.assert_array_equal(model.concentrations_, 1e6)
    np.testing.assert_allclose(model.history_[-1], np.log(1e6 / (2 * np.pi * 6)), rtol=1e-6)


def test_number_of_components_is_chosen_on_the_points_given():
    laws = [stats.vonmises_fisher(m, 200) for m in np.eye(3)]
    X, check = directions(600, np.random.default_rng(3), *laws), laws[0].rvs(100, random_state=4)
    model = baselines.VonMisesFisherMixture([1, 3], random_state=0)
    assert model.fit(X, directions(200, np.random.default_rng(5), *laws)).details_ == {"components": 3}
    far = -X[:40]  # where a mixture that has found the clusters has no density
    assert model.fit(X, far).details_ == {"components": 1}
    before = model.fit(X, check).history_[-1]
    np.testing.assert_allclose(before, model.score_samples(X).mean(), rtol=1e-12)  # fitted to X alone


def test_without_validation_points_a_ninth_is_held_out_and_all_is_fitted():
    fitted, check = baselines._hold_out(np.arange(900), None, np.random.default_rng(0))
    assert len(check) == 100 and sorted([*fitted, *check]) == list(range(900))
    Z = stats.uniform_direction(3).rvs(300, random_state=0)
    model = baselines.VonMisesFisherMixture([2, 4], random_state=0).fit(Z)
    np.testing.assert_allclose(model.history_[-1], model.score_samples(Z).mean(), rtol=1e-9)
    X = places(90, 0)
    assert len(baselines.HaversineKDE(0.01, 0.3, random_state=0).fit(X)._kde.tree_.data) == 90
    assert len(baselines.HaversineKDE(0.01, 0.3).fit(X[:60], X[60:])._kde.tree_.data) == 60


@pytest.mark.parametrize("h", [1e-5, 0.03, 0.4, 2.0])
def test_haversine_mass_by_quadrature(h):
    mass, _ = integrate.quad(lambda r: 2 * np.pi * np.exp(-0.5 * (r / h) ** 2) * np.sin(r), 0, min(np.pi, 20 * h),
                             epsabs=0, epsrel=1e-12)
    np.testing.assert_allclose(np.exp(baselines.haversine_log_mass(h)), mass, rtol=1e-10)


def test_haversine_density_has_mass_one():
    X = np.array([[50.0, 10.0], [48.0, 20.0], [60.0, -10.0], [52.0, 12.0], [-20.0, 100.0]] * 4)
    model = baselines.HaversineKDE(0.25, 0.5, rtol=0.0, random_state=0).fit(X)
    sines, w = np.polynomial.legendre.leggauss(120)
    longitude = np.arange(240) * 1.5
    grid = np.stack(np.meshgrid(np.rad2deg(np.arcsin(sines)), longitude, indexing="ij"), axis=-1).reshape(-1, 2)
    density = np.exp(model.score_samples(grid)).reshape(120, 240)
    # wide kernels have a kink at the antipode: 1e-7 of the mass
    assert abs(w @ density.sum(axis=1) * 2 * np.pi / 240 - 1) < 1e-6


def test_haversine_bandwidth_is_the_best_of_a_fine_grid():
    X = places(400, 7)
    model = baselines.HaversineKDE(1e-3, 1.0).fit(X[:300], X[300:])
    sphere = Sphere(2, coords="latlon_deg")
    distance = sphere.distances(sphere.embed(X[300:]), sphere.embed(X[:300]))

    def held_out(h):
        total = np.exp(-0.5 * (distance / h) ** 2).mean(axis=1)
        return np.log(total).mean() - baselines.haversine_log_mass(h)

    grid = np.geomspace(1e-3, 1.0, 60)[15:]
    assert held_out(model.bandwidth_) > max(map(held_out, grid)) - 2e-3
    np.testing.assert_allclose(model.score_samples(X[300:]).mean(), held_out(model.bandwidth_), atol=1e-4)


# published numbers


def test_published_earth_table():
    table = {row.method: row.values for row in published.EARTH}
    means = {method: tuple(values[name].mean for name in EARTH_SETS) for method, values in table.items()
             if len(values) == 4}
    assert means == {
        "mixture of von Mises-Fisher": (-0.31, 0.59, 1.09, -0.23),
        "Riemannian CNF, first protocol": (-0.97, 0.19, 0.90, -0.66),
        "Moser Flow, first protocol": (-1.68, 0.03, 0.71, -0.78),
        "mixture of Kent": (-0.80, 0.33, 0.73, -1.18), "Riemannian CNF": (-6.05, 0.14, 1.11, -0.80),
        "Moser Flow": (-4.21, -0.16, 0.57, -1.28), "stereographic SGM": (-3.80, -0.19, 0.59, -1.28),
        "RSGM": (-4.92, -0.19, 0.45, -1.33), "RSGM, first version": (-5.56, -0.21, 0.52, -1.24),
        "RDM": (-6.61, -0.40, 0.43, -1.38), "Riemannian Flow Matching": (-7.93, -0.28, 0.42, -1.86),
        "Riem. Diffusion Mixture": (-9.52, -0.30, 0.42, -2.47), "GFM, best of four": (-4.96, -1.08, -0.88, -2.48),
        "GFM, G-LSD": (-4.96, -0.93, -0.38, -2.14), "GFM, G-PSD": (-3.50, -0.63, -0.76, -2.48),
        "GFM, G-ESD": (-4.49, -0.67, -0.88, -2.29), "GFM, G-MF": (-3.73, -1.08, -0.72, -2.24)}
    assert list(table["CNF Matching"]) == ["fire"] and table["CNF Matching"]["fire"][:2] == (-1.40, 0.02)
    marks = {method: {v.mark for v in values.values()} for method, values in table.items()}
    assert [m for m, mark in marks.items() if mark == {"M"}] == ["Riem. Diffusion Mixture"]
    assert all(mark == {"P"} for m, mark in marks.items() if m in means and "20" in m)
    assert sum(mark == {"P"} for mark in marks.values()) == 8
    assert table["Riemannian Flow Matching"]["flood"] == (0.42, 0.05, "N", "M")
    assert table["RSGM"]["flood"].spread == 0.17 and table["Riemannian CNF"]["volcano"].spread == 0.61
    assert {v.mark for row in (*published.EARTH, *published.SO3) for v in row.values.values()} <= set(published.MARKS)


def test_published_rotations_and_the_best():
    rows = {row.method: [row.values[m][:2] for m in (16, 32, 64)] for row in published.SO3}
    assert rows == {"Moser Flow": [(0.82, 0.03), (0.12, 0.03), (-0.49, 0.02)],
                    "Exp-wrapped SGM": [(0.87, 0.04), (0.16, 0.03), (-0.58, 0.04)],
                    "RSGM": [(0.89, 0.03), (0.20, 0.03), (-0.49, 0.02)]}
    assert published.best(published.SO3, 32, sign=-1)[1].mean == 0.20
    assert published.best(published.EARTH, "volcano", "M")[1].mean == -9.52
    assert published.best(published.EARTH, "volcano", "P")[1].mean == -6.05
    assert published.best(published.EARTH, "storm") is None


# the run on the globe, and its tables

FAST = ("lcv", "haversine", "uniform")


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = published_files(tmp_path_factory.mktemp("earth"), patch)
        return earth.run(data_home=folder, methods=FAST, sets=("volcano", "flood"), verbose=False, seeds=1)


def test_run_counts(result):
    sizes = {(d["set"], d["deduplicated"]): (d["n"], d["distinct"], d["floor"]) for d in result["data"]}
    assert sizes == {("volcano", False): (100, 60, 1e-5), ("volcano", True): (60, 60, 1e-4),
                     ("flood", False): (60, 60, 1e-5), ("flood", True): (60, 60, 1e-4)}
    assert len(result["fits"]) == 4 * 3 * (1 + 10) and len(result["summaries"]) == 4 * 3 * 2
    for s in result["summaries"]:
        assert (s["copies"] > 0.3) == (s["set"] == "volcano" and not s["deduplicated"])
        if s["method"] == "uniform":
            np.testing.assert_allclose((s["mean"], s["spread"] or 0.0), (np.log(4 * np.pi), 0.0), atol=1e-12)


def test_run_is_what_the_estimator_says(result, folder):
    from rdks import RDKSEstimator

    X = protocols.distinct(fetch_earth("flood", data_home=folder).data)
    part = protocols.parts("splits", len(X), 1)[0]
    est = RDKSEstimator(Sphere(2, coords="latlon_deg"), bandwidth="lcv", min_bandwidth=1e-4).fit(X[part.train])
    record = next(r for r in result["fits"] if (r["set"], r["deduplicated"], r["protocol"], r["seed"], r["method"])
                  == ("flood", True, "splits", 0, "lcv"))
    np.testing.assert_allclose(record["nll"], -est.score(X[part.test]) / len(part.test), rtol=1e-12)
    np.testing.assert_allclose(record["details"]["bandwidth"], est.bandwidth_, rtol=1e-12)


def test_floor_binds_every_method(folder):
    run = earth.run(data_home=folder, sets=("volcano",), deduplicate=(False,), floors={False: 0.3},
                    protocols=("splits",), seeds=1, methods=("lcv", "vmf", "haversine"), verbose=False)
    for record in run["fits"]:
        assert record["details"].get("bandwidth", 0.3) >= 0.3
    vmf = earth.METHODS["vmf"].make(0.3, 0)
    assert vmf.model.max_concentration == pytest.approx(1 / 0.09)
    assert earth.METHODS["haversine"].make(0.3, 0).smallest == 0.3


def test_each_kind_of_rows_has_its_floor(folder, monkeypatch):
    asked = []

    def make(floor, seed):
        asked.append((floor, seed))
        return baselines.UniformLaw()

    monkeypatch.setitem(earth.METHODS, "probe", earth.Method("probe", False, make))
    earth.run(data_home=folder, sets=("flood",), protocols=("splits",), seeds=2, methods=("probe",), verbose=False)
    assert asked == [(1e-5, 0), (1e-5, 1), (1e-4, 0), (1e-4, 1)]


def test_leave_one_out_refits(folder):
    run = earth.run(data_home=folder, sets=("flood",), deduplicate=(True,), protocols=("loo",),
                    methods=("uniform", "lcv"), verbose=False)
    assert len(run["fits"]) == 120 and {r["n_train"] for r in run["fits"]} == {59}
    bandwidths = {r["details"]["bandwidth"] for r in run["fits"] if r["method"] == "lcv"}
    assert len(bandwidths) > 50  # chosen again every time
    assert "leave-one-out" in earth.render(run)


def test_jobs_change_nothing(folder):
    options = {"data_home": folder, "sets": ("flood",), "deduplicate": (True,), "protocols": ("splits",), "seeds": 2,
               "methods": ("uniform", "haversine"), "verbose": False}
    with joblib.parallel_config(backend="threading"):  # processes would take seconds to start
        one, two = (earth.run(**options, n_jobs=n) for n in (1, 2))
    assert [r["nll"] for r in one["fits"]] == [r["nll"] for r in two["fits"]]


def test_unknown_methods_are_refused(folder):
    with pytest.raises(ValueError, match=r"methods = \['kent'\]"):
        earth.run(data_home=folder, methods=("kent",))
    with pytest.raises(ValueError, match=r"methods = \['kent'\]"):
        so3.run(methods=("kent",))


def test_tables_show_everything(result):
    text = earth.render(result)
    assert max(map(len, text.splitlines())) <= report.WIDTH
    flat = " ".join(text.split())
    for words in ("All rows, copies included: random splits", "Distinct points: 10-fold cross-validation", "1 of them",
                  "1e-05 rad = 64 m", "0.0001 rad = 637 m", "rdks, one bandwidth", "scikit-learn, haversine",
                  "uniform law", "2.53 ± 0.00", "-7.93 ± 1.67 [N]", "0.42 ± 0.05 [N,M]", "-4.92 ± 0.25 [P]",
                  "not verified: do not cite", "importance weights", "Artefacts.", "Flood, all rows", "Point by point",
                  "Protocol."):
        assert words in flat, words
    for s in result["summaries"]:
        assert report.number(s["mean"], s["spread"]) in text
    assert text.count("published, each on random splits of its own") == 1


def fake(own, spread):
    """A run with one number of ours on floods, as `render` reads it."""
    key = {"set": "flood", "deduplicated": False, "protocol": "splits", "method": "lcv"}
    fit = {**key, "seed": 0, "test": np.arange(2), "log_density": np.zeros(2)}
    return {"data": [{"set": "flood", "deduplicated": False, "n": 9, "distinct": 9, "floor": 1e-5}], "fits": [fit],
            "summaries": [{**key, "mean": own, "spread": spread, "count": 5, "seconds": 1.0, "copies": 0.004}]}


@pytest.mark.parametrize("own, paper, other", [
    (-2.0, "a win by 2.45", "a win by 1.12"), (0.33, "no difference", "a loss by 1.21"),
    (0.95, "a loss by 0.50", "a loss by 1.83")])
def test_wins_and_losses_are_computed(own, paper, other):
    text = " ".join(earth.render(fake(own, 0.05)).split())
    sentence = text[text.index("Flood, all rows"):text.index("Protocol.")]
    first, second = sentence.split("Against the best one second-hand")
    assert paper in first and "0.45 ± 0.17 [P] of RSGM" in first and "0.35" in first  # 2 hypot(0.05, 0.17)
    assert other in second and "-0.88 [N]" in second
    assert ("do not claim to match it" in second) == ("loss" in other)
    assert "claim" not in first


def test_results_as_files(folder, tmp_path):
    options = {"data_home": folder, "sets": ("flood",), "protocols": ("splits",), "seeds": 1, "methods": FAST,
               "verbose": False}
    result = earth.main(out=tmp_path / "r.json", **options)
    read = json.loads((tmp_path / "r.json").read_text())
    assert read["benchmark"] == "earth" and len(read["fits"]) == 6 and len(read["published"]) == len(published.EARTH)
    assert [f["nll"] for f in read["fits"]] == [f["nll"] for f in result["fits"]]
    assert read["summaries"][0]["spread"] is None
    earth.main(out=tmp_path / "r.csv", **options)
    lines = (tmp_path / "r.csv").read_text().splitlines()
    assert len(lines) == 7 and lines[0].startswith("set,deduplicated,protocol")
    for bad, error in ((tmp_path / "r.txt", ValueError), (tmp_path / "no" / "r.csv", FileNotFoundError)):
        with pytest.raises(error):
            earth.main(out=bad, **options)


# rotations


@pytest.mark.parametrize("scale", [0.07, 0.5, 1.5])
def test_wrapped_normal_has_mass_one(scale):
    mass, _ = integrate.quad(lambda a: 16 * np.pi * np.sin(a / 2) ** 2 * np.exp(so3.wrapped_normal(a, scale)), 1e-12,
                             np.pi, epsrel=1e-11, points=[min(3 * scale, 3.0)])
    np.testing.assert_allclose(mass, 1.0, rtol=1e-8)


def test_wrapped_normal_is_the_law_of_wrapped_draws():
    scale = 1.2  # wide enough that full turns matter
    vectors = scale * np.random.default_rng(0).standard_normal((40_000, 3))
    angles = Rotation.from_rotvec(vectors).magnitude()
    grid = np.linspace(0, np.pi, 4001)
    volume = 16 * np.pi * np.sin(grid[1:] / 2) ** 2 * np.exp(so3.wrapped_normal(grid[1:], scale))
    law = np.concatenate([[0], np.cumsum(volume)]) * (grid[1] - grid[0])
    assert stats.kstest(angles, lambda a: np.interp(a, grid, law / law[-1])).pvalue > 1e-3


def test_mixture_of_rotations():
    truth = so3.WrappedNormalMixture(5, np.random.default_rng(0))
    assert truth.means.shape == (5, 4) and (abs(truth.scales - np.sqrt(1 / 200)) < 0.02).all()
    X = truth.sample(10_000, np.random.default_rng(1))
    # the mass, by uniform draws
    uniform = SO3(coords="quaternion").unembed(SO3().random(50_000, np.random.default_rng(2)))
    values = 8 * np.pi**2 * np.exp(truth.score_samples(uniform))
    assert abs(values.mean() - 1) < 4 * values.std() / np.sqrt(len(values))
    # draws belong to their nearest mean: its scale is the root mean square of each component of the rotation vector
    relative = [(Rotation.from_quat(m).inv() * Rotation.from_quat(X)).as_rotvec() for m in truth.means]
    nearest = np.argmin([np.linalg.norm(v, axis=1) for v in relative], axis=0)
    for k, vectors in enumerate(relative):
        mine = vectors[nearest == k]
        assert abs(len(mine) - 2000) < 4 * np.sqrt(10_000 * 0.16)
        np.testing.assert_allclose(mine.std(axis=0), truth.scales[k], rtol=4 / np.sqrt(2 * len(mine)))
    # the density of one component, by scipy
    one = so3.WrappedNormalMixture(1, np.random.default_rng(3))
    vectors = (Rotation.from_quat(one.means[0]).inv() * Rotation.from_quat(X[:50])).as_rotvec()
    angle = np.linalg.norm(vectors, axis=1)
    expected = (stats.multivariate_normal(np.zeros(3), one.scales[0] ** 2).logpdf(vectors)
                - 2 * np.log(np.sin(angle / 2) / (angle / 2)))
    np.testing.assert_allclose(one.score_samples(X[:50]), expected, rtol=1e-9)


def test_best_possible_value_is_the_published_one():
    best = [so3.WrappedNormalMixture(32, np.random.default_rng(seed)) for seed in range(6)]
    values = [t.score_samples(t.sample(2000, np.random.default_rng(9))).mean() for t in best]
    assert abs(np.mean(values) - 0.20) < 0.06  # RSGM prints 0.20 ± 0.03; mixtures differ by 0.03


def test_rotations_command(tmp_path, capsys):
    out = tmp_path / "so3.json"
    argv = ["benchmark", "so3", "--components", "2", "16", "--seeds", "2", "--n", "300", "--test", "200", "--methods",
            "lcv", "--jobs", "1", "--quiet", "--out", str(out)]
    assert command(argv) == 0
    printed = capsys.readouterr()
    assert not printed.err
    for words in ("best possible: the true density", "rdks, one bandwidth", "0.89 ± 0.03 [P]", "2 mixtures", "-4.37",
                  "inference"):
        assert words in printed.out
    read = json.loads(out.read_text())
    assert len(read["fits"]) == 4
    for fit in read["fits"]:
        assert 0 < fit["gap"] < 1.5
        np.testing.assert_allclose(fit["gap"], fit["optimum"] - fit["log_likelihood"], atol=1e-12)
    with pytest.raises(ValueError, match="components = 0"):
        so3.run(components=[0])


# command line


def test_earth_command(folder, capsys, tmp_path):
    argv = ["benchmark", "earth", "--data", str(folder), "--sets", "fire", "--protocol", "splits", "--seeds", "2",
            "--deduplicate", "yes", "--floor", "0.02", "--methods", "lcv", "uniform", "--jobs", "1", "--quiet", "--out",
            str(tmp_path / "x.csv")]
    assert command(argv) == 0
    printed = capsys.readouterr()
    assert not printed.err and "0.02 rad = 127420 m" in printed.out and "All rows" not in printed.out
    assert str(tmp_path / "x.csv") in printed.out


def test_parser():
    args = build_parser().parse_args(["benchmark", "earth"])
    assert (args.sets, args.protocol, args.deduplicate, args.floor, args.seeds, args.jobs) == (
        list(EARTH_SETS), ["splits", "cv"], "both", None, None, -1)
    assert args.methods == ["mixture", "lcv", "vmf", "haversine", "uniform"]
    assert build_parser().parse_args(["benchmark", "so3"]).components == [16, 32, 64]


@pytest.mark.parametrize("argv, status", [
    (["benchmark"], 2), (["benchmark", "--help"], 0), (["benchmark", "earth", "--help"], 0),
    (["benchmark", "so3", "--help"], 0), (["benchmark", "earth", "--floor", "0"], 2),
    (["benchmark", "earth", "--floor", "inf"], 2), (["benchmark", "earth", "--seeds", "0"], 2),
    (["benchmark", "earth", "--sets", "storm"], 2), (["benchmark", "so3", "--components", "-1"], 2)])
def test_parser_exits(argv, status, capsys):
    with pytest.raises(SystemExit) as stop:
        command(argv)
    assert stop.value.code == status
    assert "benchmark" in "".join(capsys.readouterr())
