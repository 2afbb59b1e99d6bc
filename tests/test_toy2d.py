"""Laws in the plane: draws and densities, published numbers, the benchmark and its table."""
from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import integrate, stats

from rdks import datasets
from rdks.__main__ import build_parser
from rdks.__main__ import main as command
from rdks.benchmarks import published, report, toy2d
from rdks.datasets import TOY2D_SETS, make_toy2d, toy2d_log_density
from rdks.manifolds import Box

# half the side of the square, its cells for a chi-square test, and points per cell and axis: the rule of midpoints is
# exact to 1e-6 for densities as smooth as these, once its step is below their scale
GRIDS = {"2spirals": (4.0, 16, 5), "8gaussians": (5.5, 22, 6), "pinwheel": (5.5, 22, 10)}


@pytest.fixture(scope="module", params=TOY2D_SETS)
def law(request):
    """The name of a law; the midpoints of a grid, their log densities, and the area of each."""
    side, cells, per = GRIDS[request.param]
    step = 2 * side / (cells * per)
    x = -side + step * (np.arange(cells * per) + 0.5)
    X = np.stack(np.meshgrid(x, x, indexing="ij"), axis=-1)
    return request.param, X, toy2d_log_density(request.param, X.reshape(-1, 2)).reshape(X.shape[:2]), step**2


def second_moment(name):
    """Return the mean of the square of the length, from the definition of each law."""
    if name == "8gaussians":
        return (16 + 2 * 0.25) / 1.414**2
    if name == "pinwheel":
        return 4 * (1 + 0.09 + 0.01)

    def mean(f):
        return integrate.quad(lambda r: f(r) * 2 * r / (9 * np.pi**2), 0, 3 * np.pi, limit=200)[0]

    # E|v|^2 + noise, v the sum of a point of the spiral and two uniform variables on [0, 1/2]
    square = mean(lambda r: r * r) + 2 * 0.25 * mean(lambda r: r * np.sin(r) - r * np.cos(r)) + 2 / 12
    return square / 9 + 2 * 0.01


def test_densities_have_mass_one_and_the_moments_of_the_definition(law):
    name, X, logs, area = law
    p = np.exp(logs) * area
    np.testing.assert_allclose(p.sum(), 1.0, atol=1e-7)
    np.testing.assert_allclose((p * (X**2).sum(axis=-1)).sum(), second_moment(name), rtol=1e-6)
    np.testing.assert_allclose([(p * X[..., i]).sum() for i in (0, 1)], 0.0, atol=1e-6)  # all three are symmetric
    toy = make_toy2d(name, 1)
    np.testing.assert_allclose(-(p * logs).sum(), toy.entropy, atol=toy.entropy_error + 2e-6)


def test_draws_follow_the_density(law):
    name, _, logs, area = law
    side, cells, per = GRIDS[name]
    draws = make_toy2d(name, 60_000, random_state=3).data
    edges = np.linspace(-side, side, cells + 1)
    seen = np.histogram2d(*draws.T, bins=[edges, edges])[0].ravel()
    expected = 60_000 * area * np.exp(logs).reshape(cells, per, cells, per).sum(axis=(1, 3)).ravel()
    assert seen.sum() == 60_000
    many = expected >= 5
    seen, expected = (np.append(a[many], a[~many].sum()) for a in (seen, expected))
    assert len(seen) > 60 and stats.chisquare(seen, expected * 60_000 / expected.sum()).pvalue > 1e-3
    some = draws[:2000]
    value = toy2d_log_density(name, some)
    assert abs(value.mean() + make_toy2d(name, 1).entropy) < 4 * value.std() / np.sqrt(2000)


def test_a_density_between_the_blades_sums_all_of_them():
    """At a point that several blades reach: the mass of a small disc, from the latent normal law by brute force."""
    centre, radius = np.array([0.25, 0.1]), 0.08
    a, b = np.meshgrid(np.linspace(-0.6, 1.0, 1601), np.linspace(-0.6, 0.6, 1201), indexing="ij")
    mass = stats.norm.pdf(a, 1, 0.3) * stats.norm.pdf(b, 0, 0.1) * 1e-6
    total = 0.0
    for j in range(5):
        turn = np.exp(-1j * (2 * np.pi * j / 5 + 0.25 * np.exp(a)))
        total += mass[np.abs(2 * (a + 1j * b) * turn - complex(*centre)) < radius].sum() / 5
    q, w = np.polynomial.legendre.leggauss(8)
    r, angle = radius * (q + 1) / 2, 2 * np.pi * np.arange(16) / 16
    disc = centre + np.stack([np.outer(r, np.cos(angle)), np.outer(r, np.sin(angle))], axis=-1)
    value = np.exp(toy2d_log_density("pinwheel", disc.reshape(-1, 2))).reshape(8, 16)
    np.testing.assert_allclose(w / 2 * radius * r @ value.mean(axis=1) * 2 * np.pi, total, rtol=3e-3)  # edge of a disc


def test_far_points_have_a_density_too():
    corner = np.array([[5.5, -5.5]])
    for name in TOY2D_SETS:
        value = toy2d_log_density(name, corner)
        assert value.shape == (1,) and -2000 < value[0] < -30
    assert toy2d_log_density("pinwheel", np.empty((0, 2))).shape == (0,)


def test_bunches():
    toy = make_toy2d("pinwheel", 7, random_state=np.random.default_rng(1))
    assert toy.data.shape == (7, 2) and toy.name == "pinwheel" and toy.target is None
    assert "Rows: 7".lower() in toy.DESCR.lower().replace("number of ", "") and "2.317788" in toy.DESCR
    np.testing.assert_array_equal(make_toy2d("2spirals", 5, random_state=4).data,
                                  make_toy2d("2spirals", 5, random_state=4).data)
    assert sorted(np.bincount(datasets._balanced(13, 5, np.random.default_rng(0)))) == [2, 2, 3, 3, 3]
    first = [datasets._balanced(13, 5, np.random.default_rng(s))[:5] for s in range(40)]
    assert {labels[0] for labels in first} == set(range(5)) and any(len(set(labels)) < 5 for labels in first)


@pytest.mark.parametrize("call, match", [
    (lambda: make_toy2d("moons"), "name = 'moons'"), (lambda: make_toy2d("pinwheel", 0), "n_samples = 0"),
    (lambda: make_toy2d("pinwheel", 2.5), "n_samples = 2.5"), (lambda: make_toy2d("pinwheel", True), "n_samples"),
    (lambda: toy2d_log_density("moons", [[0.0, 0.0]]), "name = 'moons'"),
    (lambda: toy2d_log_density("pinwheel", [[0.0, np.nan]]), "NaN"),
    (lambda: toy2d_log_density("pinwheel", [[0.0, 1.0, 2.0]]), r"\(1, 3\)")])
def test_wrong_input(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_published_table():
    rows = {row.method: tuple(row.values[name].mean for name in TOY2D_SETS) for row in published.TOY2D}
    assert rows == {"OISM(H)": (-2.262, -2.036, -1.576), "OISM(L)": (-3.150, -2.581, -1.792),
                    "OISM(L) + NN": (-2.337, -2.169, -1.686), "NN, pre-trained": (-2.289, -2.195, -1.829),
                    "NN only": (-2.375, -2.132, -1.842)}
    assert {value[1:3] for row in published.TOY2D for value in row.values.values()} == {(None, "R")}


# the benchmark


class Known:
    """A stand-in with the interface of a score model: the law itself, or the uniform law on the box."""

    def __init__(self, manifold, shift=None):
        self.manifold, self.shift = manifold, shift
        self.max_level_ = 3

    def fit(self, X):
        assert X.shape[1] == 2
        return self

    def score_samples(self, X):
        if self.shift is None:
            return np.full(len(X), -self.manifold.log_volume)
        return toy2d_log_density("8gaussians", X) - self.shift * (1 + 0.1 * np.sign(X[:, 0]))


@pytest.fixture
def stand_ins(monkeypatch):
    methods = {"law": toy2d.Method("the law", lambda manifold, seed, n_jobs: Known(manifold, 0.0), "max_level_"),
               "near": toy2d.Method("near the law", lambda manifold, seed, n_jobs: Known(manifold, 0.25), "max_level_"),
               "flat": toy2d.Method("flat", lambda manifold, seed, n_jobs: Known(manifold), "max_level_", False)}
    monkeypatch.setattr(toy2d, "METHODS", methods)
    return tuple(methods)


def test_gaps_are_to_the_true_density_at_the_same_draws(stand_ins):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy2d, "time", SimpleNamespace(perf_counter=iter(range(100)).__next__))
        result = toy2d.run(sets=("8gaussians",), seeds=2, n=20, n_test=400, methods=stand_ins, verbose=False)
    assert {(s["fit_seconds"], s["score_seconds"]) for s in result["summaries"]} == {(1.0, 2.5)}
    assert len(result["fits"]) == 6 and [s["method"] for s in result["summaries"]] == list(stand_ins)
    by = {(r["method"], r["seed"]): r for r in result["fits"]}
    for seed in (0, 1):
        law, near, flat = (by[method, seed] for method in stand_ins)
        assert law["gap"] == 0 and law["gap_error"] == 0 and law["details"] == {"max_level": 3}
        np.testing.assert_allclose(near["gap"], 0.25, atol=4 * 0.025 / np.sqrt(400))
        np.testing.assert_allclose(near["gap_error"], 0.025 / np.sqrt(400), rtol=0.05)
        np.testing.assert_allclose(flat["gap"], flat["optimum"] + np.log(121))
        np.testing.assert_allclose(flat["log_likelihood"], -np.log(121))
    optima = [by["law", seed]["optimum"] for seed in (0, 1)]
    assert optima[0] != optima[1]  # each seed has its own draws
    summary = result["summaries"][2]
    np.testing.assert_allclose(summary["optimum_spread"], np.std(optima, ddof=1))
    text = " ".join(toy2d.render(result).split())
    more = result["summaries"][2]["gap"]
    for words in ("8gaussians: the smallest gap is that of the law, 0.0000 ± 0.0000.", "near the law: 0.2",
                  f"The best of ours, the law, against flat: a win by {more:.4f} nats.",
                  "nats worse",
                  "the law 0.0000 ± 0.0000", "flat -4.796 ± 0.000", "-2.036 [R]", "8gaussians (-2.036 against -2.832)",
                  "cannot be compared with ours", "± is the standard deviation over 2 sets of draws", "-4.796",
                  "minus the entropy: the floor -2.832"):
        assert words in text, words
    assert max(map(len, toy2d.render(result).splitlines())) <= report.WIDTH


@pytest.mark.parametrize("shift, words", [(-0.4, "a loss by 0.4"), (1e-3, "neither a win nor a loss"),
                                          (0.3, "a win by")])
def test_wins_and_losses_are_those_of_ours(shift, words, stand_ins, monkeypatch):
    class Noisy(Known):
        def score_samples(self, X):
            return super().score_samples(X) - shift * (1 + np.sin(50 * X[:, 0]))

    label = toy2d.Method("theirs", lambda manifold, seed, n_jobs: Noisy(manifold, 0.0), "max_level_", False)
    monkeypatch.setitem(toy2d.METHODS, "flat", label)
    result = toy2d.run(sets=("8gaussians",), seeds=1, n=20, n_test=300, methods=("flat", "law"), verbose=False)
    if shift == 1e-3:
        result["fits"][0]["log_density"] += 0.1 * np.random.default_rng(0).standard_normal(300)
    assert f"The best of ours, the law, against theirs: {words}" in " ".join(toy2d.render(result).split())


@pytest.mark.parametrize("behind, words", [(0.001, "no difference that these draws can show"),
                                           (0.2, "0.2000 nats worse")])
def test_differences_are_weighed_against_their_errors(behind, words, monkeypatch):
    noise = 0.1 * np.random.default_rng(0).standard_normal((2, 100))
    noise -= noise.mean(axis=1, keepdims=True)
    fits, summaries = [], []
    for method, less in (("law", 0.0), ("near", behind)):
        for seed in (0, 1):
            logs = -2 - less + less * noise[seed] / behind
            fits.append({"set": "pinwheel", "method": method, "seed": seed, "log_density": logs})
        summaries.append({"set": "pinwheel", "method": method, "log_likelihood": -2 - less, "gap": less,
                          "optimum": -2.0, "gap_spread": None, "fit_seconds": 1.0, "score_seconds": 2.0})
    labels = {name: toy2d.Method(name, None, "") for name in ("law", "near")}
    monkeypatch.setattr(toy2d, "METHODS", labels)
    text = " ".join(toy2d.render({"n": 5, "n_test": 100, "seeds": 2, "entropy": {"pinwheel": 2.318}, "fits": fits,
                                  "summaries": summaries}).split())
    error = 2 * noise.std(ddof=1) / np.sqrt(200)
    assert f"near: {words} (two standard errors: {error:.4f})" in text
    assert "knows the shape" not in text
    # where sets of draws differ by more than points of one do, that is the error
    for record in fits[2:]:
        record["log_density"] = record["log_density"] - 0.4 * record["seed"]
    more, error = toy2d._behind(fits, "pinwheel", "near", "law")
    np.testing.assert_allclose((more, error), (behind + 0.2, 0.2), atol=1e-12)


def test_score_matching_fits_the_interface():
    toy = make_toy2d("8gaussians", 200, random_state=0)
    method = toy2d.METHODS["oism-8"]
    model = method.make(Box(toy.bounds), 0, None).fit(toy.data)
    assert getattr(model, method.chosen) == 8
    logs = model.score_samples(toy.data[:5])
    assert logs.shape == (5,) and np.isfinite(logs).all()


def test_gaussians_choose_their_number():
    toy = make_toy2d("8gaussians", 600, random_state=1)
    model = toy2d.LikelyGaussians((4, 8, 16)).fit(toy.data)
    assert model.n_components_ == 8
    assert toy2d.LikelyGaussians().fit(toy.data[:12]).n_components_ == 1


def test_command(tmp_path, capsys):
    for name in ("x.json", "x.csv"):
        argv = ["benchmark", "toy2d", "--sets", "8gaussians", "--n", "60", "--test", "50", "--seeds", "1", "--methods",
                "lcv", "gaussians", "--jobs", "1", "--quiet", "--out", str(tmp_path / name)]
        assert command(argv) == 0
    printed = capsys.readouterr()
    assert not printed.err
    for words in ("rdks, lcv", "scikit-learn, Gaussian mixture", "knows the shape", "8gaussians: the smallest gap"):
        assert words in printed.out
    read = json.loads((tmp_path / "x.json").read_text())
    assert read["benchmark"] == "toy2d" and len(read["fits"]) == 2 and len(read["published"]) == 5
    for fit in read["fits"]:
        np.testing.assert_allclose(fit["gap"], fit["optimum"] - fit["log_likelihood"], atol=1e-12)
        assert "log_density" not in fit
    assert len((tmp_path / "x.csv").read_text().splitlines()) == 3


def test_parser_and_wrong_options():
    args = build_parser().parse_args(["benchmark", "toy2d"])
    assert (args.sets, args.seeds, args.n, args.test, args.jobs) == (list(TOY2D_SETS), 3, 5000, 10_000, -1)
    assert args.methods == list(toy2d.METHODS) and set(args.methods) >= {"mixture", "lcv", "lscv", "isj", "oism-auto"}
    with pytest.raises(SystemExit):
        build_parser().parse_args(["benchmark", "toy2d", "--sets", "moons"])
    for options, match in (({"methods": ("kent",)}, r"methods = \['kent'\]"), ({"sets": ("moons",)}, "sets"),
                           ({"seeds": 0}, "seeds = 0"), ({"n_test": 1}, "n_test = 1"), ({"n": 3}, "n = 3"),
                           ({"methods": ()}, "methods")):
        with pytest.raises(ValueError, match=match):
            toy2d.run(verbose=False, **options)
