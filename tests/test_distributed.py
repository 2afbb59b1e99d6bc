"""Fits and scores on Dask collections equal those on one machine, whatever the blocks and whoever dies."""
import os
import pickle
import signal
import threading
import time
import uuid
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rdks import RDKSEstimator
from rdks.errors import PointError
from rdks.manifolds import SO3, SPD, Euclidean, Graph, Sphere, Torus

dask = pytest.importorskip("dask", reason="dask is not installed (extra dask)")
distributed = pytest.importorskip("distributed", reason="distributed is not installed (extra dask)")
import dask.array as da  # noqa: E402
import dask.bag as db  # noqa: E402
from dask.base import tokenize  # noqa: E402

from rdks.distributed import fit, score_field, score_samples  # noqa: E402


class Watched(RDKSEstimator):
    """Notes in `folder` what is done with it, where: a file for each event, named kind-process-anything."""

    def __init__(self, manifold="auto", *, folder="", bandwidth="auto", min_bandwidth="auto", engine="auto",
                 n_jobs=None, verbose=False):
        super().__init__(manifold, bandwidth=bandwidth, min_bandwidth=min_bandwidth, engine=engine, n_jobs=n_jobs,
                         verbose=verbose)
        self.folder = folder

    def note(self, kind, what):
        (Path(self.folder) / f"{kind}-{os.getpid()}-{uuid.uuid4().hex}").write_text(str(what))

    def partial_fit(self, X, y=None, sample_weight=None):
        if (Path(self.folder) / "hold").exists() and len(notes(self.folder, "partial_fit")) >= 5:
            self.note("waiting", "")
            wait(lambda: (Path(self.folder) / "released").exists())
        super().partial_fit(X, y, sample_weight)
        self.note("partial_fit", [self.bandwidth, self.n_jobs, float(X[0][0])])
        return self

    def score_samples(self, X, t=None):
        self.note("score", self.n_jobs)
        return super().score_samples(X, t)

    def __setstate__(self, state):
        super().__setstate__(state)
        if hasattr(self, "n_samples_seen_"):
            self.note("arrival", len(pickle.dumps(state)))


def notes(folder, kind):
    """List the events of a kind, (process, text)."""
    return [(int(path.name.split("-")[1]), path.read_text()) for path in Path(folder).glob(f"{kind}-*")]


def wait(condition, seconds=40):
    """Wait until something is true; return it, or None if it never was."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    return None


def unit(rng, n):
    X = rng.standard_normal((n, 3))
    return X / np.linalg.norm(X, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def cluster():
    # worker processes are spawned: nothing is inherited but the path and the environment
    with (distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0",
                                   memory_limit=None, silence_logs=50) as cluster,
          distributed.Client(cluster, set_as_default=False) as client):
        yield client


@pytest.fixture
def client(cluster):
    cluster.wait_for_workers(2, timeout=30)
    with cluster.as_current():
        yield cluster


@pytest.fixture
def threads():
    """No client: a scheduler of Dask's own."""
    with dask.config.set(scheduler="threads"):
        yield


@pytest.fixture
def X():
    return unit(np.random.default_rng(0), 600)


@pytest.fixture
def q():
    return unit(np.random.default_rng(1), 40)


def assert_same(mine, theirs, q, tol=1e-11):
    assert np.allclose(mine.score_samples(q), theirs.score_samples(q), rtol=tol, atol=tol)
    assert mine.n_samples_seen_ == theirs.n_samples_seen_
    assert mine.manifold_ == theirs.manifold_
    assert mine.bandwidth_ == pytest.approx(theirs.bandwidth_, rel=1e-9)
    assert repr(mine) == repr(theirs)  # the parameters too
    assert (mine.selection_ is None) == (theirs.selection_ is None)
    assert list(getattr(mine, "feature_names_in_", [])) == list(getattr(theirs, "feature_names_in_", []))
    assert mine.n_features_in_ == theirs.n_features_in_


# one estimator, whatever the blocks


@pytest.mark.parametrize("bandwidth", [0.3, "lcv"])
def test_fit_equals_one_machine(client, X, q, bandwidth):
    est = RDKSEstimator(bandwidth=bandwidth)
    whole = RDKSEstimator(bandwidth=bandwidth).fit(X)
    mine = fit(est, da.from_array(X, chunks=(70, 2)))  # blocks of columns too
    assert_same(mine, whole, q)
    assert mine.manifold_reason_.startswith("all 70 rows have unit norm") and "block 0" in mine.manifold_reason_
    assert np.array_equal(mine.sample(3, random_state=0).shape, (3, 3))
    assert vars(est) == vars(RDKSEstimator(bandwidth=bandwidth))  # it is not changed


def test_fit_with_weights(client, X, q):
    w = np.random.default_rng(2).uniform(0, 2, len(X))
    w[:150] = 0  # blocks without weight
    w[200] = 0
    whole = RDKSEstimator(bandwidth=0.3).fit(X, sample_weight=w)
    x = da.from_array(X, chunks=(70, 3))
    assert_same(fit(RDKSEstimator(bandwidth=0.3), x, da.from_array(w, chunks=101)), whole, q)
    with dask.config.set(scheduler="threads"):
        for weight in (da.from_array(w, chunks=70), w):
            assert_same(fit(RDKSEstimator(bandwidth=0.3), x, weight), whole, q)
        rule = RDKSEstimator(bandwidth="lcv").fit(X, sample_weight=w)
        assert_same(fit(RDKSEstimator(bandwidth="lcv"), x, da.from_array(w, chunks=70)), rule, q)


def test_unknown_sizes_empty_blocks_and_single_rows(client, X, q):
    w = np.random.default_rng(2).uniform(0, 2, len(X))
    x, v = da.from_array(X, chunks=(100, 3)), da.from_array(w, chunks=100)
    keep = np.zeros(len(X), dtype=bool)
    keep[150] = keep[300:] = True  # blocks of 0, 1 and 100 rows
    mask = da.from_array(keep, chunks=100)
    est = RDKSEstimator("sphere", bandwidth=0.3)
    assert_same(fit(est, x[mask], v[mask]),
                RDKSEstimator("sphere", bandwidth=0.3).fit(X[keep], sample_weight=w[keep]), q)
    with dask.config.set(scheduler="threads"):
        mine, whole = fit(est, x[mask]), RDKSEstimator("sphere", bandwidth=0.3).fit(X[keep])
        assert_same(mine, whole, q)
        assert np.allclose(score_samples(mine, x[mask]).compute(), whole.score_samples(X[keep]))
        known = da.from_array(X[:203], chunks=((0, 1, 1, 100, 0, 101), 3))
        assert_same(fit(est, known), RDKSEstimator("sphere", bandwidth=0.3).fit(X[:203]), q)
        assert_same(fit(RDKSEstimator(), known), RDKSEstimator().fit(X[:203]), q)


def test_persisted(client, X, q):
    assert_same(fit(RDKSEstimator(bandwidth=0.3), da.from_array(X, chunks=(100, 3)).persist()),
                RDKSEstimator(bandwidth=0.3).fit(X), q)


def test_data_frame(client, X):
    dd = pytest.importorskip("dask.dataframe", reason="dask.dataframe is not installed (extra test)")
    frame = pd.DataFrame(X, columns=["x", "y", "z"]).assign(w=np.random.default_rng(2).uniform(0, 2, len(X)))
    lazy = dd.from_pandas(frame, npartitions=5)
    points, x = frame[["x", "y", "z"]], lazy[["x", "y", "z"]]
    whole = RDKSEstimator(bandwidth=0.3).fit(points, sample_weight=frame["w"])
    mine = fit(RDKSEstimator(bandwidth=0.3), x, lazy["w"])
    assert_same(mine, whole, points[:20])
    logs, field = score_samples(mine, x, t=0.1), score_field(mine, x, t=0.1)
    assert isinstance(logs, da.Array) and isinstance(field, da.Array)
    assert np.allclose(logs.compute(), whole.score_samples(points, t=0.1))
    with dask.config.set(scheduler="threads"):
        assert np.allclose(field.compute(), whole.score_field(points, t=0.1))
        some = x[lazy["x"] > 0.99]  # partitions without rows
        assert np.allclose(score_samples(mine, some), whole.score_samples(points[frame["x"] > 0.99]))
        assert_same(fit(RDKSEstimator(bandwidth=0.3), x), RDKSEstimator(bandwidth=0.3).fit(points), points[:20])
        with pytest.raises(ValueError, match="different places"):
            fit(mine, x, dd.from_pandas(frame["w"][::-1].reset_index(drop=True)[3:], npartitions=5))


def test_bag(client, X, q):
    """Of rows on the cluster, and of arrays of rows on threads."""
    w = np.random.default_rng(2).uniform(0, 2, len(X))
    whole = RDKSEstimator(bandwidth=0.3).fit(X, sample_weight=w)
    bag = db.from_sequence(list(map(list, X)), npartitions=4)
    mine = fit(RDKSEstimator(bandwidth=0.3), bag.filter(lambda row: True), db.from_sequence(w, npartitions=4))
    assert_same(mine, whole, q)
    logs = score_samples(mine, bag)
    assert isinstance(logs, db.Bag) and np.allclose(logs.compute(), whole.score_samples(X))
    with dask.config.set(scheduler="threads"):
        assert np.allclose(score_field(mine, bag).compute(), whole.score_field(X))
        items = np.array_split(X, 19)
        bag = db.from_sequence(items, npartitions=4)
        bag = db.concat([bag.filter(lambda item: False), bag])  # partitions without elements
        mine, whole = fit(RDKSEstimator(bandwidth=0.3), bag), RDKSEstimator(bandwidth=0.3).fit(X)
        assert_same(mine, whole, q)
        logs, field = score_samples(mine, bag).compute(), score_field(mine, bag).compute()
        assert list(map(len, logs)) == list(map(len, field)) == list(map(len, items))
        assert np.allclose(np.concatenate(logs), whole.score_samples(X))
        assert np.allclose(np.concatenate(field), whole.score_field(X))


def test_matrices(threads):
    rng = np.random.default_rng(3)
    A = rng.standard_normal((90, 2, 2))
    A = A @ A.transpose(0, 2, 1) + 0.1 * np.eye(2)
    whole = RDKSEstimator(bandwidth=0.5).fit(A)
    a = da.from_array(A, chunks=(20, 1, 2))
    for lazy in (a, db.from_sequence(A, npartitions=3), db.from_sequence([A[:40], A[40:]], npartitions=2)):
        mine = fit(RDKSEstimator(bandwidth=0.5), lazy)
        assert_same(mine, whole, A[:10])
        assert mine.manifold_ == SPD(2) and mine.sample(2, random_state=0).shape == (2, 2, 2)
    # three vectors of length three are no matrix where points are vectors
    vectors = db.from_sequence(np.split(unit(rng, 30), 10), npartitions=3)
    assert fit(RDKSEstimator(Sphere(2), bandwidth=0.5), vectors).n_samples_seen_ == 30
    assert score_field(mine, a).shape == (90, 2, 2)
    assert np.allclose(score_field(mine, a).compute(), whole.score_field(A))
    assert np.allclose(score_samples(mine, a).compute(), whole.score_samples(A))


@pytest.mark.parametrize("case", ["torus", "so3", "graph"])
def test_other_manifolds_without_a_client(threads, case):
    rng = np.random.default_rng(4)
    if case == "torus":
        manifold, Y = Torus(2, period=360.0), rng.uniform(0, 360, (200, 2))
    elif case == "so3":
        manifold, Y = SO3(coords="quaternion"), unit(rng, 200)[:, [0, 1, 2, 0]]
        Y /= np.linalg.norm(Y, axis=1, keepdims=True)
    else:
        ring = np.roll(np.eye(40), 1, axis=0)
        manifold, Y = Graph(ring + ring.T), rng.integers(0, 10, (200, 1)).astype(float)
    y = da.from_array(Y, chunks=(64, Y.shape[1]))
    for bandwidth in (2.0, "rot"):
        if case == "graph" and bandwidth == "rot":
            continue
        whole = RDKSEstimator(manifold, bandwidth=bandwidth).fit(Y)
        assert_same(fit(RDKSEstimator(manifold, bandwidth=bandwidth), y), whole, Y[:20])


@pytest.mark.parametrize("parameters", [{"bandwidth": 0.3}, {"bandwidth": "lscv", "min_bandwidth": 0.1}])
def test_coefficients(threads, parameters):
    Y = np.random.default_rng(9).normal(3, 0.5, (500, 2))
    est = RDKSEstimator(Torus(2), engine="spectral", **parameters)
    y = da.from_array(Y, chunks=(120, 2))
    assert_same(fit(est, y), RDKSEstimator(Torus(2), engine="spectral", **parameters).fit(Y), Y[:20], 1e-9)
    with pytest.raises(ValueError, match="smallest bandwidth that may be chosen"):
        fit(RDKSEstimator(Torus(2), engine="spectral"), y)


def test_schedulers_of_one_process(X, q):
    whole = RDKSEstimator(bandwidth=0.3).fit(X)
    for scheduler in ("synchronous", None):
        with dask.config.set(scheduler=scheduler):
            assert_same(fit(RDKSEstimator(bandwidth=0.3), da.from_array(X, chunks=(100, 3))), whole, q)


def test_automatic_manifold_is_decided_once(threads):
    rng = np.random.default_rng(5)
    X = rng.standard_normal((300, 3))
    X[100:200] = unit(rng, 100)  # this block alone would be taken for points of a sphere
    mine = fit(RDKSEstimator(bandwidth=0.5), da.from_array(X, chunks=(100, 3)))
    assert mine.manifold_ == Euclidean(3) and mine.manifold == "auto"
    assert_same(mine, RDKSEstimator(bandwidth=0.5).fit(X), X[:20])
    with pytest.raises(PointError, match=r"^block 1 of 0\.\.1 .*Sphere"):
        fit(RDKSEstimator(bandwidth=0.5), da.from_array(X[100:300], chunks=(100, 3)))


def test_what_fit_says_is_said_where_it_was_asked(client):
    rng = np.random.default_rng(6)
    X = np.repeat(unit(rng, 100), 2, axis=0)
    with pytest.warns(UserWarning, match="100 of 200 rows are copies"):
        fit(RDKSEstimator(), da.from_array(X, chunks=(50, 3)))
    dd = pytest.importorskip("dask.dataframe", reason="dask.dataframe is not installed (extra test)")
    frame = pd.DataFrame(rng.uniform(0, 50, (60, 2)), columns=["lat", "lon"])
    with pytest.warns(UserWarning, match="latlon_deg"):
        fit(RDKSEstimator(bandwidth=1.0), dd.from_pandas(frame, npartitions=3))


# what runs where, and what travels


def test_one_choice_of_bandwidth_one_thread_per_block(client, X, tmp_path):
    mine = fit(Watched(folder=str(tmp_path), bandwidth="lcv", n_jobs=2), da.from_array(X, chunks=(60, 3)))
    here, there = [], []
    for process, text in notes(tmp_path, "partial_fit"):
        (here if process == os.getpid() else there).append(text)
    assert len(there) == 10 and all(text.startswith("[1.0, 1, ") for text in there)
    assert len(here) == 1 and here[0].startswith("['lcv', 2, ")
    assert mine.n_jobs == 2 and mine.selection_.rule == "lcv"
    for path in tmp_path.glob("partial_fit-*"):
        path.unlink()
    mine = fit(Watched(folder=str(tmp_path), bandwidth="lcv", min_bandwidth=0.05), da.from_array(X, chunks=(60, 3)))
    assert sum(text.startswith("[0.05, 1, ") for _, text in notes(tmp_path, "partial_fit")) == 10
    assert mine.min_bandwidth == 0.05


@pytest.mark.parametrize("n_blocks", [8, 64])
def test_one_estimator_reaches_the_client_whatever_the_number_of_blocks(client, tmp_path, n_blocks):
    """The rows are the same, and what is received is one fit of them."""
    X = unit(np.random.default_rng(7), 6400)
    mine = fit(Watched(folder=str(tmp_path), bandwidth=0.3), da.from_array(X, chunks=(6400 // n_blocks, 3)))
    assert mine.n_samples_seen_ == 6400
    here = [int(text) for process, text in notes(tmp_path, "arrival") if process == os.getpid()]
    assert len(here) == 1 and here[0] == pytest.approx(len(pickle.dumps(RDKSEstimator(bandwidth=0.3).fit(X))), rel=0.1)


def test_a_fitted_estimator_travels_once(client, X, tmp_path):
    est = Watched(folder=str(tmp_path), bandwidth=0.3, n_jobs=2).fit(X)
    x = da.from_array(X, chunks=(20, 3))
    logs = score_samples(est, x)
    assert not notes(tmp_path, "score")  # lazy
    expected = RDKSEstimator(bandwidth=0.3).fit(X).score_samples(X)
    assert np.allclose(logs.compute(), expected)
    count = Counter(process for process, _ in notes(tmp_path, "arrival"))
    count.pop(os.getpid(), None)  # the scheduler's
    assert len(count) == 2 and max(count.values()) == 1
    assert Counter(text for _, text in notes(tmp_path, "score")) == {"1": 30}
    assert est.n_jobs == 2
    # the same with an estimator that is there already
    assert np.allclose(score_samples(client.scatter(est, broadcast=True), x).compute(), expected)


def test_names_of_tasks_follow_from_what_they_do(X):
    est = RDKSEstimator(bandwidth=0.3).fit(X)
    x = da.from_array(X, chunks=(100, 3))
    name = score_samples(est, x).name
    assert score_samples(est, x).name == name
    again = RDKSEstimator(bandwidth=0.3).fit(X)
    assert tokenize(est) == tokenize(again) and score_samples(again, x).name == name
    assert score_samples(est, x, t=0.1).name != name
    later = score_samples(again, x)
    expected = est.score_samples(X)
    again.partial_fit(X[:300])  # after the request
    assert score_samples(again, x).name != name
    with dask.config.set(scheduler="threads"):
        assert np.allclose(later.compute(), expected)


def test_a_killed_worker_loses_nothing(client, q, tmp_path):
    """Both workers stop in a block after five or six others are done; one that holds fits of those is killed."""
    X = unit(np.random.default_rng(8), 1200)
    (tmp_path / "hold").touch()
    pids = client.run(os.getpid)
    killed = {}

    def holder():
        """A worker whose results are those of finished fits, and what it holds."""
        fits = {worker: [key for key in keys if str(key).startswith(("_leaf", "_merge"))]
                for worker, keys in client.has_what().items()}
        worker = max(fits, key=lambda worker: len(fits[worker]))
        return (worker, fits[worker]) if fits[worker] else None

    def kill():
        try:
            if wait(lambda: len({process for process, _ in notes(tmp_path, "waiting")}) == 2):
                worker, fits = wait(holder)
                os.kill(pids[worker], signal.SIGKILL)
                killed[pids[worker]] = fits
        finally:
            (tmp_path / "released").touch()

    thread = threading.Thread(target=kill)
    thread.start()
    mine = fit(Watched(folder=str(tmp_path), bandwidth=0.3), da.from_array(X, chunks=(100, 3)))
    thread.join()
    assert len(killed) == 1
    assert not set(killed) & set(client.run(os.getpid).values())
    blocks = Counter(text for process, text in notes(tmp_path, "partial_fit") if process != os.getpid())
    assert len(blocks) == 12 and max(blocks.values()) == 2  # what was lost was done again
    whole = RDKSEstimator(bandwidth=0.3).fit(X)
    assert np.allclose(mine.score_samples(q), whole.score_samples(q), rtol=1e-11, atol=1e-11)
    assert mine.n_samples_seen_ == 1200


# what goes wrong


def test_an_error_names_its_block(client, X):
    X[333] *= 2
    expected = r"^block 5 of 0\.\.9 \(X\[0\] is row 300 of the collection\): X\[33\] is not on Sphere.* = 1 exceeds"
    with pytest.raises(PointError, match=expected):
        fit(RDKSEstimator("sphere", bandwidth=0.3), da.from_array(X, chunks=(60, 3)))
    with dask.config.set(scheduler="threads"):
        x = da.from_array(X, chunks=(60, 3))
        for w in (np.arange(600) < 300, np.arange(600) != 333):  # rows without weight are checked too
            with pytest.raises(PointError, match=expected):
                fit(RDKSEstimator("sphere", bandwidth=0.3), x, w.astype(float))
        with pytest.raises(PointError, match=r"^block 5 of 0\.\.9 \(X\[0\] is its first row\): X\[33\] is not"):
            fit(RDKSEstimator("sphere", bandwidth=0.3), x[da.from_array(np.ones(600, dtype=bool), chunks=60)])
        with pytest.raises(PointError, match=r"^block 5, .*X\[33\] is not on"):
            score_samples(RDKSEstimator("sphere", bandwidth=0.3).fit(X[:300]), x).compute()


def test_weights_must_match(threads, X):
    x = da.from_array(X, chunks=(60, 3))
    cut = x[da.from_array(X[:, 0] > 0, chunks=60)]
    est = RDKSEstimator("sphere", bandwidth=0.3)
    for collection, weight, message in [
            (x, np.ones(599), r"has shape \(599,\), expected \(600,\)"),
            (x, np.ones((600, 1)), r"expected \(n,\)"),
            (x, np.zeros(600), "at least one non-zero"),
            (x, -np.ones(600), "no rows with a weight|Negative values"),
            (x, np.r_[np.ones(599), -1], r"block 9 .*Negative values"),
            (x, np.r_[np.zeros(599), np.nan], r"finite and >= 0|at least one non-zero"),
            (cut, np.ones(600), "is not known"),
            (cut, da.ones(600, chunks=100), "10 blocks|6 blocks"),
            (cut, da.ones(600, chunks=60), "block 0 .*has shape"),
            (x, db.from_sequence([1.0], npartitions=1), "1 blocks")]:
        with pytest.raises(ValueError, match=message):
            fit(est, collection, weight)


def test_what_cannot_be_fitted(threads, X):
    x = da.from_array(X, chunks=(60, 3))
    with pytest.raises(TypeError, match="ndarray: expected a dask Array"):
        fit(RDKSEstimator(), X)
    with pytest.raises(TypeError, match="expected an RDKSEstimator"):
        fit("sphere", x)
    with pytest.raises(ValueError, match="a point per row"):
        fit(RDKSEstimator(), x[:, 0])
    with pytest.raises(ValueError, match="no rows"):
        fit(RDKSEstimator(), x[:0])
    with pytest.raises(ValueError, match="n_samples=1"):
        fit(RDKSEstimator(), x[:1])
    with pytest.raises(ValueError, match="not a known rule"):  # before any block is looked at
        fit(RDKSEstimator(bandwidth="best"), x.map_blocks(lambda block: 1 / 0, dtype=float, meta=np.empty((0, 0))))
    with pytest.raises(TypeError, match="a Delayed or Future"):
        score_samples("sphere", x)
    with pytest.raises(ValueError, match="not fitted"):
        score_samples(RDKSEstimator(), x)
    with pytest.raises(ValueError, match="t = -1"):
        score_samples(RDKSEstimator(bandwidth=0.3).fit(X), x, t=-1)


def test_one_row_is_enough_with_a_bandwidth(threads, X, q):
    assert_same(fit(RDKSEstimator("sphere", bandwidth=0.3), da.from_array(X[:1])),
                RDKSEstimator("sphere", bandwidth=0.3).fit(X[:1]), q)
