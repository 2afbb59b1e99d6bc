"""Reverse diffusion, probability flow, likelihoods: on every kind of manifold the law is that of the direct draw."""
import warnings

import numpy as np
import pytest
from scipy.stats import kstest
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from rdks import RDKSEstimator
from rdks.errors import PointError, ScoreError, UnsupportedError
from rdks.manifolds import (
    SO3,
    SPD,
    Box,
    Circle,
    Euclidean,
    Graph,
    Hyperbolic,
    OrnsteinUhlenbeck,
    Product,
    SpecialOrthogonal,
    Sphere,
    Torus,
)
from rdks.sampling import (
    ScoreModel,
    denoise,
    diffuse,
    geodesic_random_walk,
    langevin,
    log_likelihood,
    mixing_time,
    probability_flow,
    reverse_sde,
    transport,
)
from rdks.sampling.models import Field
from rdks.sampling.reverse import steps_for

STANDARD = OrnsteinUhlenbeck(2, location=(3.0, -4.0), scale=(2.0, 0.5))
# one of each kind: name -> manifold, bandwidth
SPACES = {"sphere": (Sphere(2), 0.4), "torus": (Torus(2), 0.5), "rotations": (SO3(), 0.5), "H3": (Hyperbolic(3), 0.4),
          "box": (Box([(0.0, 1.0), (0.0, 2.0)]), 0.2), "OU": (STANDARD, 0.4), "plane": (Euclidean(2), 0.4)}
CHARTS = {**SPACES, "earth": (Sphere(2, coords="latlon_deg", radius=6371.0), 2500.0),
          "ball": (Hyperbolic(2, coords="ball"), 0.4), "quaternions": (SO3(coords="quaternion", symmetry="D3"), 0.5),
          "speeds": (Product(Euclidean(1), Circle(period=24.0), times=(1.0, 16.0)), 0.4), "SPD": (SPD(2), 0.4),
          "SO4": (SpecialOrthogonal(4), 0.8)}


def fitted(name, n=7):
    manifold, h = CHARTS[name]
    # one pass serves all times
    engine = "spectral" if name in ("sphere", "torus", "box", "rotations", "earth") else "auto"
    X = manifold.unembed(manifold.random(n, np.random.default_rng(3)))
    return RDKSEstimator(manifold, bandwidth=h, engine=engine).fit(X, sample_weight=np.arange(1.0, n + 1))


class Stranger:
    """A model that knows no more than the protocol asks."""

    def __init__(self, est, **extra):
        self.est, self.manifold_, self.min_time_ = est, est.manifold_, 0.0
        self._kernel_time = est._kernel_time
        self.__dict__.update(extra)

    def score_field(self, X, t=None):
        return self.est.score_field(X, t)


@pytest.mark.parametrize("method", ["reverse_sde", "probability_flow"])
@pytest.mark.parametrize("name", SPACES)
def test_samplers_draw_from_the_law_of_the_direct_draw(name, method):
    # Under the same law a Kolmogorov-Smirnov test of 3000 against 20000 draws rejects at 1e-4 once in 10,000 times;
    # it sees laws that differ by 0.05.
    est = fitted(name)
    Y, X = est.sample(3000, random_state=1, method=method), est.sample(20_000, random_state=2)
    m = est.manifold_
    for a, b in [(est.score_samples(Y), est.score_samples(X)), *zip(m.embed(Y).T, m.embed(X).T, strict=True)]:
        assert kstest(a, b).pvalue > 1e-4


@pytest.mark.parametrize("name", CHARTS)
def test_likelihood_of_the_probability_flow_is_the_density(name):
    est = fitted(name)
    m = est.manifold_
    X = np.concatenate([m.unembed(m.random(3, np.random.default_rng(4))), est.sample(2, random_state=0)])
    expected = est.score_samples(X)
    assert np.abs(log_likelihood(est, X) - expected).max() < 1e-6
    if name in ("H3", "OU"):
        assert np.abs(log_likelihood(est, X, t=0.1) - est.score_samples(X, t=0.1)).max() < 1e-6


@pytest.mark.parametrize("name", CHARTS)
def test_charts_are_undone(name):
    # of a model that only has score_field; on quotients at points of the covering space that are not in the cell
    est = fitted(name)
    m = est.manifold_
    Z = m.random(6, np.random.default_rng(5))
    Z = np.concatenate([Z, *m.images(Z)[-1:]])
    assert isinstance(Stranger(est), ScoreModel)
    mine, theirs = Field(est)(Z, 0.1)[0], Field(Stranger(est))(Z, 0.1)[0]
    assert np.abs(mine - theirs).max() <= 1e-7 * np.abs(mine).max()  # pseudo-inverses square what frames lose


@pytest.mark.parametrize("name", ["sphere", "H3", "box", "OU", "quaternions"])
def test_divergence_by_differences(name):
    est = fitted(name)
    m = est.manifold_
    X = m.unembed(m.random(2, np.random.default_rng(6)))
    found = log_likelihood(est, X, divergence="differences", tol=1e-6)
    assert np.abs(found - est.score_samples(X)).max() < 1e-4


def test_hutchinson_is_unbiased_and_knows_its_error():
    est = fitted("sphere")
    X = est.sample(40, random_state=0)
    logs, error = log_likelihood(est, X, divergence="hutchinson", n_probes=8, tol=1e-3, random_state=0,
                                 return_error=True)
    z = (logs - est.score_samples(X)) / error
    assert 0.5 < np.sqrt(np.mean(z**2)) < 2.0 and abs(z.mean()) < 4 / np.sqrt(40) * 1.3


def test_a_foreign_model_gets_the_same_samples_and_likelihoods():
    est = fitted("torus")
    stranger = Stranger(est)
    X = est.sample(3, random_state=0)
    assert np.allclose(log_likelihood(stranger, X, tol=1e-6), est.score_samples(X), atol=1e-4)
    Y, mine = (reverse_sde(model, 4, n_steps=20, random_state=0) for model in (stranger, est))
    assert np.allclose(Y, mine)


def test_transport_is_invertible_and_composes():
    est = fitted("H3")
    X = est.sample(4, random_state=1)
    far = transport(est, X, 0.0, 2.0)
    assert np.allclose(transport(est, far, 2.0), X, atol=1e-4)
    assert np.allclose(transport(est, transport(est, X, 0.0, 0.7), 0.7, 2.0), far, atol=1e-4)
    assert np.allclose(transport(est, X, 0.5, 0.5), X, rtol=1e-14)


@pytest.mark.parametrize("method", ["midpoint", "euler"])
@pytest.mark.parametrize("manifold", [Euclidean(1), OrnsteinUhlenbeck(1)], ids=["line", "OU"])
def test_an_isolated_observation_is_exact_in_any_number_of_steps(manifold, method):
    # three steps over eleven e-folds of time, from the exact law: the variance is right to its standard error
    est = RDKSEstimator(manifold, bandwidth=0.01).fit(np.array([[0.4]]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        Y = reverse_sde(est, 20_000, method=method, n_steps=3, max_time=2.0, random_state=0)[:, 0]
    mean, var = est.manifold_.flow(np.array([[0.4]]), 1e-4)
    assert abs(Y.mean() - mean[0, 0]) < 5 * np.sqrt(var / 20_000)
    assert abs(Y.var() / var - 1) < 5 * np.sqrt(2 / 20_000)


def total_variation(est, edges, **options):
    Y = reverse_sde(est, 100_000, random_state=1, **options)[:, 0]
    fine = np.linspace(edges[0], edges[-1], 20 * (len(edges) - 1) + 1)
    middle = 0.5 * (fine[1:] + fine[:-1])
    p = (np.exp(est.score_samples(middle[:, None])) * np.diff(fine)).reshape(-1, 20).sum(axis=1)
    return 0.5 * np.abs(np.histogram(Y, edges)[0] / len(Y) - p).sum()


@pytest.mark.parametrize(("method", "few", "many"), [("midpoint", 8, 32), ("euler", 8, 32)])
def test_order_of_the_schemes(method, few, many):
    # draws add about 0.008; without it the errors at 8 and 32 steps are 0.030 and 0.002, 0.073 and 0.019
    est = RDKSEstimator("circle", bandwidth=0.15).fit(np.array([[0.5], [0.9], [2.5], [4.0]]),
                                                      sample_weight=[1.0, 2.0, 1.0, 0.5])
    edges = np.linspace(0, 2 * np.pi, 41)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        coarse, fine = (total_variation(est, edges, method=method, n_steps=n) for n in (few, many))
    assert (0.02, 0.06)[method == "euler"] < coarse < (0.045, 0.09)[method == "euler"]
    assert fine < (0.012, 0.03)[method == "euler"]
    if method == "midpoint":  # Langevin's steps mend what few steps have spoiled
        with pytest.warns(ConvergenceWarning, match="total variation"):
            mended = total_variation(est, edges, method="euler", n_steps=4, corrector_steps=20)
        assert mended < 0.08  # 0.14 without


def test_number_of_steps():
    assert steps_for("midpoint", 0.01, 8.0) == 26 and steps_for("euler", 0.01, 8.0) == 160
    assert steps_for("midpoint", 0.0025, 8.0) == 51  # second order


@pytest.mark.parametrize("manifold", [Sphere(2), Sphere(3, radius=2.0), Torus(2), SO3(), Box([(0.0, 3.0)]),
                                      SpecialOrthogonal(3)], ids=str)
def test_mixing_time(manifold):
    Z = manifold.unembed(manifold.random(2000, np.random.default_rng(0)))
    if isinstance(manifold, Box):
        Z = np.array([[0.0]])  # at a wall
    T = mixing_time(manifold, 1e-3)
    W = manifold.embed(Z)[:50]
    excess = np.exp(manifold.log_heat_kernel(W, W, T) + manifold.log_volume) - 1
    assert 0.9e-3 < excess.max() < 1.001e-3


def test_mixing_time_where_there_is_an_invariant_law_or_none():
    assert mixing_time(Hyperbolic(2)) == np.inf
    assert np.exp(-0.5 * mixing_time(STANDARD, 1e-3)) == pytest.approx(1e-3)


def test_geodesic_random_walk_tends_to_brownian_motion():
    rng = np.random.default_rng(0)
    n = 20_000
    Y = geodesic_random_walk(Sphere(2), np.tile([0.0, 0.0, 1.0], (n, 1)), 0.5, 40, rng)
    assert abs(Y[:, 2].mean() - np.exp(-0.5)) < 5 * Y[:, 2].std() / np.sqrt(n) + 0.5 / 40 * 0.1
    # the drift is followed exactly, in one step
    Y = geodesic_random_walk(OrnsteinUhlenbeck(1), np.full((n, 1), 2.0), 1.0, 1, rng)
    assert abs(Y.mean() - 2 * np.exp(-0.5)) < 5 * np.sqrt((1 - np.exp(-1)) / n)
    assert abs(Y.var() / (1 - np.exp(-1)) - 1) < 5 * np.sqrt(2 / n)


@pytest.mark.parametrize("manifold", [Euclidean(2), OrnsteinUhlenbeck(2)], ids=["plane", "OU"])
def test_denoising_is_the_posterior_mean(manifold):
    # of the point before a diffusion for t, under the fitted mixture: Gaussian conditioning, component by component
    rng = np.random.default_rng(0)
    X, t = rng.standard_normal((6, 2)), 0.4
    est = RDKSEstimator(manifold, bandwidth=0.5).fit(X)
    centres, v = manifold.flow(X, 0.25)
    a = np.exp(-0.5 * t) if manifold.has_drift else 1.0
    s = 1 - a * a if manifold.has_drift else t
    Y = rng.standard_normal((5, 2))
    D = Y[:, None] - a * centres
    w = np.exp(-0.5 * (D**2).sum(-1) / (a * a * v + s))
    w /= w.sum(axis=1, keepdims=True)
    mean = np.einsum("qn,qnd->qd", w, centres + a * v / (a * a * v + s) * D)
    assert np.allclose(denoise(est, Y, t), mean, atol=1e-8)


def test_langevin_keeps_the_law():
    est = fitted("rotations")
    X = est.sample(2000, random_state=0)
    Y = langevin(est, X, n_steps=10, step_size=0.02, random_state=1)
    assert kstest(est.score_samples(Y), est.score_samples(est.sample(20_000, random_state=2))).pvalue > 1e-4
    assert np.abs(Y - X).max() > 0.5


def test_trajectories():
    est = fitted("sphere")
    for path in (reverse_sde(est, 50, keep=5, random_state=0), probability_flow(est, 50, keep=5, random_state=0)):
        assert path.points.shape == (5, 50, 3) and np.all(np.diff(path.times) < 0) and path.times[-1] == 0
        assert path.times[0] == pytest.approx(mixing_time(Sphere(2)))
        assert np.allclose(np.linalg.norm(path.points, axis=2), 1)
    # of the times asked for
    path = reverse_sde(est, 4, keep=[0.2, 1.0], random_state=0)
    assert path.times.tolist() == [1.0, 0.2] and path.points.shape == (2, 4, 3)
    assert probability_flow(est, 4, keep=[0.2, 1.0], random_state=0).points.shape == (2, 4, 3)
    # noise is uniform at first, and the law at the time of each frame is the model's own
    path = reverse_sde(est, 2000, keep=4, random_state=1)
    for t, X in zip(path.times, path.points, strict=True):
        truth = est.score_samples(est.manifold_.unembed(est._draw(8000, t, np.random.default_rng(0))), t=t)
        assert kstest(est.score_samples(X, t=t), truth).pvalue > 1e-4


@pytest.mark.parametrize("method", ["midpoint", "euler"])
def test_what_is_kept_is_a_path(method):
    # of one observation on the line: neighbours in time are correlated as Brownian motion is, sqrt(v' / v)
    est = RDKSEstimator("euclidean", bandwidth=1.0).fit(np.zeros((1, 1)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        path = reverse_sde(est, 20_000, method=method, max_time=15.0, n_steps=4, keep=5, random_state=0)
    for k in range(4):
        expected = np.sqrt((path.times[k + 1] + 1) / (path.times[k] + 1))
        assert abs(np.corrcoef(path.points[k, :, 0], path.points[k + 1, :, 0])[0, 1] - expected) < 4 / np.sqrt(20_000)


def test_the_forward_process():
    rng = np.random.default_rng(0)
    X = Sphere(2).random(1, rng).repeat(20_000, axis=0)
    path = diffuse(Sphere(2), X, [0.5, 0.0, 0.2], random_state=1)
    assert path.times.tolist() == [0.0, 0.2, 0.5] and np.allclose(path.points[0], X)
    along = np.einsum("tni,mni->tm", path.points, path.points) / len(X)  # E cos(angle) = exp(-t)
    assert np.abs(along - np.exp(-np.abs(path.times[:, None] - path.times))).max() < 4 / np.sqrt(len(X))
    with pytest.raises(ValueError, match="times"):
        diffuse(Sphere(2), X, [-1.0])
    with pytest.raises(PointError):
        diffuse("sphere", 2 * X, [1.0])


def test_terminal_laws():
    est = fitted("plane")
    Y = reverse_sde(Stranger(est), 3000, max_time=3.0, random_state=0,
                    terminal=RDKSEstimator("euclidean", bandwidth=np.sqrt(3.0 + est.bandwidth_**2)).fit(
                        est._sum.Z, sample_weight=est._sum.weight))
    assert kstest(est.score_samples(Y), est.score_samples(est.sample(20_000, random_state=2))).pvalue > 1e-4
    with pytest.raises(UnsupportedError, match="no invariant law.*terminal"):
        reverse_sde(Stranger(est), 3)
    with pytest.raises(ValueError, match="terminal is a law on"):
        reverse_sde(est, 3, terminal=fitted("sphere"))
    # short of mixing a fitted density begins at its own law
    est = fitted("sphere")
    Y = reverse_sde(est, 3000, max_time=0.05, random_state=0)
    assert kstest(est.score_samples(Y), est.score_samples(est.sample(20_000, random_state=2))).pvalue > 1e-4


class Broken(Stranger):
    def score_field(self, X, t=None):
        return np.full(X.shape, np.nan) if t < 0.5 else super().score_field(X, t)


def test_bad_input():
    est = fitted("sphere")
    X = est.sample(2, random_state=0)
    for call in (lambda: reverse_sde(Broken(est), 5), lambda: log_likelihood(Broken(est), X),
                 lambda: probability_flow(Broken(est), 5)):
        with pytest.raises(ScoreError, match="not finite at time t = "):
            call()
    with pytest.raises(PointError, match="X\\[0\\] is not on"):
        log_likelihood(est, 2 * X)
    with pytest.raises(ValueError, match="is not finite"):
        log_likelihood(est, np.full((1, 3), np.nan))
    late = Stranger(est, min_time_=0.2)
    with pytest.raises(ValueError, match="0.1 is below min_time_ = 0.2"):
        log_likelihood(late, X, t=0.1)
    with pytest.raises(ValueError, match="time 0 of data without noise"):
        reverse_sde(Stranger(est, _kernel_time=0.0), 5)
    with pytest.raises(ValueError, match="time 0 of data without noise"):
        log_likelihood(Stranger(est, _kernel_time=0.0), X)
    for options, what in [({"method": "magic"}, "method"), ({"n_steps": 0}, "n_steps"), ({"tol": 2}, "tol"),
                          ({"max_time": -1.0}, "max_time"), ({"keep": 1}, "keep"),
                          ({"keep": [50.0]}, "keep"), ({"keep": 9, "n_steps": 4}, "at least 8 steps"),
                          ({"corrector_steps": -1}, "corrector")]:
        with pytest.raises(ValueError, match=what):
            reverse_sde(est, 5, **options)
    for options, what in [({"divergence": "magic"}, "divergence"), ({"n_probes": 0}, "n_probes"), ({"tol": 0}, "tol")]:
        with pytest.raises(ValueError, match=what):
            log_likelihood(est, X, **options)
    with pytest.raises(ValueError, match="no score_divergence"):
        log_likelihood(Stranger(est), X, divergence="exact")
    with pytest.raises(ValueError, match="n_samples"):
        reverse_sde(est, 2.5)
    with pytest.raises(ValueError, match="expected a fitted model of the score"):
        reverse_sde(object(), 5)
    with pytest.raises((NotFittedError, ValueError)):
        reverse_sde(RDKSEstimator("sphere"), 5)
    ring = Graph(np.roll(np.eye(8), 1, 0) + np.roll(np.eye(8), -1, 0))
    nodes = RDKSEstimator(ring, bandwidth=1.0).fit(np.array([[0.0], [3.0]]))
    with pytest.raises(UnsupportedError, match="no geodesics"):
        nodes.sample(3, method="reverse_sde")
    with pytest.raises(ValueError, match="n_steps"):
        est.sample(3, method="probability_flow", n_steps=4)
    assert est.sample(0, method="reverse_sde").shape == (0, 3)
    assert est.sample(0, method="probability_flow").shape == (0, 3)


def test_progress_bars(capsys):
    est = fitted("sphere")
    reverse_sde(est, 2, n_steps=30, verbose=True, random_state=0)
    probability_flow(est, 2, tol=1e-2, verbose=True, random_state=0)
    langevin(est, est.sample(2, random_state=0), n_steps=3, verbose=True)
    err = capsys.readouterr().err
    assert all(word in err for word in ("reverse diffusion", "probability flow", "Langevin"))
