"""Score matching by a network: its fields, its training, and what becomes of a training that is broken off."""
import pickle
import signal
import warnings

import numpy as np
import pytest
from scipy.special import ive
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from rdks import RDKSEstimator, errors
from rdks.manifolds import (
    SO3,
    SPD,
    Box,
    Circle,
    Euclidean,
    Hyperbolic,
    OrnsteinUhlenbeck,
    PointCloud,
    Product,
    ProjectiveSpace,
    Quotient,
    SpecialOrthogonal,
    Sphere,
    Torus,
)
from rdks.neural import NeuralScoreMatching
from rdks.sampling import log_likelihood
from rdks.sampling.flow import _divergences
from rdks.sampling.models import Field
from rdks.score_matching import OperatorScoreMatching
from rdks.variance import heat_score

try:
    import torch
except ImportError:
    torch = None


def test_without_torch_there_is_a_clear_error_and_nothing_else(monkeypatch):
    def missing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(errors.importlib, "import_module", missing)
    model = NeuralScoreMatching(Circle(), min_time=0.1)
    with pytest.raises(errors.MissingDependencyError, match=r'pip install "rdks\[torch\]"'):
        model.fit(np.zeros((5, 1)))
    assert not [name for name in vars(model) if name.endswith("_")]
    assert clone(model).get_params()["min_time"] == 0.1


@pytest.fixture(autouse=True)
def one_thread(request):
    if torch is None:
        if request.function is not test_without_torch_there_is_a_clear_error_and_nothing_else:
            pytest.skip("the extra torch is not installed")
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def small(manifold, **options):
    options = {"hidden": (24, 24), "batch_size": 128, "n_iter": 200, "min_time": 0.05, "random_state": 0, **options}
    return NeuralScoreMatching(manifold, **options)


def von_mises(n, seed=0):
    return np.random.default_rng(seed).vonmises(1.0, 4.0, (n, 1))


def trained(loss):
    return small(Circle(), loss=loss, n_iter=250, min_time=0.1, batch_size=64).fit(von_mises(500))


@pytest.fixture(scope="module")
def plain():
    return trained("dsm") if torch else None


# fields

SPACES = [Circle(period=3.0), Torus(2, period=(2.0, 5.0)), Box([(-1.0, 2.0), (0.0, 1.0)]), Sphere(2),
          Sphere(3, radius=2.0), OrnsteinUhlenbeck(2, location=(1.0, 2.0), scale=(3.0, 0.5)), Euclidean(2),
          Hyperbolic(2, radius=1.5), SO3(), SO3(symmetry="222"), ProjectiveSpace(2), SPD(2), SpecialOrthogonal(4),
          Quotient.generated(Sphere(2), [np.diag([1.0, -1.0, 1.0])]),
          Quotient(Torus(2), [np.eye(2), -np.eye(2)]),
          Product(Sphere(2), Circle(), times=(1.0, 2.0)), Product(ProjectiveSpace(2), Box([(0.0, 1.0)]), Hyperbolic(2)),
          Product(SO3(symmetry="C2"), Euclidean(1), times=(0.5, 3.0))]


def untrained(manifold, seed=0):
    """A model whose last layer is random instead of zero."""
    rng = np.random.default_rng(seed)
    X = manifold.unembed(manifold.random(40, rng))
    model = small(manifold, n_iter=0, max_time=2.0, validation_fraction=0).fit(X.reshape(40, -1))
    for name in ("W", "T"):
        model.weights_[name] = rng.standard_normal(model.weights_[name].shape).astype(np.float32)
    return model


@pytest.mark.parametrize("manifold", SPACES, ids=str)
def test_fields_are_tangent_equivariant_and_have_the_divergence(manifold):
    model = untrained(manifold)
    Z = manifold.random(6, np.random.default_rng(1))
    found = model._evaluate(Z, 0.3, 2)
    s = found.gradient
    assert (np.abs(s).sum(axis=1) > 1e-3).all()
    assert np.allclose(manifold.to_tangent(Z, s), s, atol=1e-12 * np.abs(s).max())
    # independent: central differences along geodesics
    differences = _divergences(Field(model), Z, 0.3, None)[:, 0]
    assert np.allclose(found.laplacian, differences, rtol=1e-3, atol=1e-3 * np.abs(found.laplacian).max())
    if manifold.n_images == 1:
        return
    # an image of a point has the image of the score: images of the points from which a short step is made
    step = 1e-6 / np.abs(s).max()
    for g, (here, there) in enumerate(zip(manifold.images(Z), manifold.images(Z + step * s), strict=True)):
        turned = (there - here) / step
        assert np.allclose(model._evaluate(here, 0.3, 1).gradient, turned, atol=1e-4 * np.abs(s).max()), g


@pytest.mark.parametrize("manifold", SPACES, ids=str)
def test_every_tangent_vector_is_the_field_of_some_outputs(manifold):
    from rdks.neural.fields import Clock, Layout
    rng = np.random.default_rng(2)
    Z = manifold.random(5, rng)
    if manifold in (ProjectiveSpace(2), SO3()):
        Z = manifold.project(np.eye(manifold.embed_dim))
    layout = Layout(manifold, manifold.random(100, rng), 0.3, rng)
    c = torch.eye(layout.n_outputs, dtype=torch.float64)
    for z in torch.tensor(Z):
        clock = Clock(torch.full((len(c), 1), 0.2, dtype=torch.float64), manifold.has_drift)
        vectors = layout.field(z.repeat(len(c), 1), c, clock)
        assert np.linalg.matrix_rank(vectors.numpy(), tol=1e-6) == manifold.dim


@pytest.mark.parametrize("manifold", [
    Quotient(Euclidean(2), [np.eye(2), -np.eye(2)], shifts=[[0.0, 0.0], [1.0, 0.0]]), SO3(symmetry="222"),
    Quotient(Product(Euclidean(1), Euclidean(1)), [np.eye(2), [[0.0, 1.0], [1.0, 0.0]]]),
    Quotient(Torus(2), [np.eye(2), -np.eye(2)])], ids=str)
def test_field_on_a_quotient_is_a_gradient(manifold):
    from rdks.neural.fields import Clock, Layout
    rng = np.random.default_rng(0)
    layout = Layout(manifold, manifold.random(100, rng) * [1.0, 3.0, 1.0, 1.0][:manifold.embed_dim], 0.3, rng)
    z = torch.tensor(manifold.random(8, rng), requires_grad=True)
    clock = Clock(torch.full((8, 1), 0.2, dtype=torch.float64), False)
    c = torch.tensor(rng.standard_normal((8, layout.n_outputs)))
    slope = torch.autograd.grad((c * layout.inputs(z, clock)).sum(), z)[0].numpy()
    slope = manifold.to_tangent(z.detach().numpy(), slope)
    field = layout.field(z, c, clock).detach().numpy()
    unit = (slope * field).sum() / (slope * slope).sum()  # the field has a unit of its own
    assert unit > 0 and np.allclose(field, unit * slope, atol=1e-9 * np.abs(field).max())
    for image in manifold.images(z.detach().numpy()):
        assert np.allclose(layout.inputs(torch.tensor(image), clock), layout.inputs(z, clock).detach(), atol=1e-9)


def test_field_is_along_the_walls_of_a_box():
    model = untrained(Box([(-1.0, 2.0), (0.0, 1.0)]))
    walls = np.array([[-1.0, 0.3], [2.0, 0.7], [0.4, 0.0], [0.1, 1.0]])
    s = model.score_field(walls, 0.2)
    assert np.abs(s[[0, 1, 2, 3], [0, 0, 1, 1]]).max() < 1e-12
    assert np.abs(s[[0, 1, 2, 3], [1, 1, 0, 0]]).min() > 1e-3


@pytest.mark.parametrize("manifold", [Torus(2, period=(2.0, 5.0)), Box([(-1.0, 2.0), (0.0, 0.5)])], ids=str)
def test_targets_by_coordinates_are_those_of_the_heat_kernel(manifold):
    from rdks.neural.training import _target
    rng = np.random.default_rng(0)
    t = np.exp(rng.uniform(np.log(1e-3), np.log(20.0), 400))
    Z = manifold.random(400, rng)
    W = manifold.random(400, rng)
    W[:200] = manifold.project(Z[:200] + np.sqrt(t[:200, None]) * rng.standard_normal((200, 2)))
    exact = heat_score(manifold, Z, W, t)
    # at the cut locus and where it has mixed, slopes are differences of equal numbers
    assert np.allclose(_target(manifold, Z, W, t), exact, rtol=1e-9, atol=1e-9 * np.sqrt(1 / t).max())


# baselines

def test_untrained_network_is_the_baseline():
    X = von_mises(80)
    operator = OperatorScoreMatching(Circle(), max_level=4, min_time=0.05).fit(X)
    model = small("auto", n_iter=0, baseline=operator, min_time="auto", baseline_time=0.0).fit(X)
    assert model.min_time_ == operator.min_time_ and model.manifold_ == Circle()
    for t in (0.05, 0.4):
        assert np.array_equal(model.score_field(X, t), operator._at(X % (2 * np.pi), operator._curve(t), 1).gradient)
    assert np.allclose(model.score_samples(X[:5]), operator.score_samples(X[:5]), atol=1e-6)


def test_baseline_that_is_not_fitted_is_fitted_without_the_points_held_out():
    X = von_mises(50)
    model = small("circle", n_iter=3, baseline=RDKSEstimator(bandwidth=0.5), validation_fraction=0.2).fit(X)
    assert model.baseline_.n_samples_seen_ == 40 and model.baseline_.manifold_ == Circle()
    assert not hasattr(model.baseline, "manifold_")
    again = clone(small("circle", n_iter=3, baseline=model.baseline_))  # as cross-validation does
    assert np.array_equal(again.set_params(validation_fraction=0.2).fit(X).score_field(X), model.score_field(X))


def test_baseline_is_not_asked_for_what_it_does_not_resolve():
    X = von_mises(80)
    operator = OperatorScoreMatching(Circle(), max_level=4, min_time=0.05).fit(X)
    model = small(Circle(), n_iter=0, baseline=operator).fit(X)
    t = 7.0 / (4**2 / 2)  # the fourth harmonic decays as exp(-16 t / 2)
    assert model.baseline_time_ == t
    assert np.allclose(model.score_field(X, 0.05), operator.score_field(X, t), rtol=1e-4)
    assert np.allclose(model.score_field(X, 2.0), operator.score_field(X, 2.0), rtol=1e-4)
    normal = OperatorScoreMatching("auto", max_level=2, min_time=0.05).fit(X)
    assert small("auto", n_iter=0, baseline=normal).fit(X).baseline_time_ == 0.0


@pytest.mark.parametrize("loss", ["dsm", "stein"])
def test_network_corrects_a_wrong_baseline(plain, loss):
    X = von_mises(500)
    wrong = OperatorScoreMatching(Circle(), max_level=3, min_time=0.1).fit(X + 2.5)
    model = small(Circle(), baseline=wrong, loss=loss, n_iter=250, min_time=0.1).fit(X)
    first, last = model.validation_curve_[0, 1], model.best_loss_
    assert first > 1.5 * plain.validation_curve_[0, 1]  # worse than nothing
    assert abs(last - plain.best_loss_) < 0.15 * (plain.validation_curve_[0, 1] - plain.best_loss_)
    differences = _divergences(Field(model), X[:9], 0.3, None)[:, 0]
    assert np.allclose(model.score_divergence(X[:9], 0.3), differences, rtol=1e-4, atol=1e-3)


def test_fitted_density_is_asked_for_the_noise_that_it_lacks():
    X = von_mises(80)
    kernels = RDKSEstimator(Circle(), bandwidth=0.5).fit(X)
    assert small(Circle(), n_iter=0, baseline=kernels, min_time="auto").fit(X).min_time_ == 0.25
    model = small(Circle(), n_iter=0, baseline=kernels).fit(X)
    assert np.array_equal(model.score_field(X, 0.75), kernels.score_field(X, 0.5))
    assert np.array_equal(model.score_field(X, 0.1), kernels.score_field(X, 0.0))
    assert np.allclose(model.score_divergence(X, 0.75), kernels.score_divergence(X, 0.5))


def test_untrained_network_without_baseline_is_the_normal_law_in_flat_space():
    rng = np.random.default_rng(0)
    X = 3.0 + 2.0 * rng.standard_normal((500, 1))
    model = small("auto", n_iter=0, validation_fraction=0).fit(X)
    for t in (0.1, 2.0):
        variance = np.exp(-t) + 1 - np.exp(-t)  # of the standardised data, which is 1
        assert np.allclose(model.score_field(X, t), -(X - X.mean()) / X.var() / variance)
    plane = small(Euclidean(1), n_iter=0, validation_fraction=0).fit(X)
    assert np.allclose(plane.score_field(X, 1.5), -(X - X.mean()) / (X.var() + 1.5))


# training

def test_score_of_a_von_mises_law():
    t, k = 0.1, np.arange(1, 40)
    model = small(Circle(), n_iter=700, hidden=(32, 32), min_time=t, validation_fraction=0.1).fit(von_mises(4000))
    x = von_mises(500, 1).ravel()
    moments = np.exp(-k * k * t / 2) * ive(k, 4.0) / ive(0, 4.0)
    density = 1 + 2 * np.cos(k * (x[:, None] - 1)) @ moments
    score = -2 * np.sin(k * (x[:, None] - 1)) @ (k * moments) / density
    # for the 4000 points alone, about 8 modes of the density that count are known to 1/sqrt(4000) each: 0.01
    assert ((model.score_field(x[:, None]).ravel() - score) ** 2).mean() < 0.03 * (score**2).mean()
    assert model.validation_curve_[-1, 1] < 0.6 * model.validation_curve_[0, 1]
    assert np.mean(model.loss_curve_[-100:]) < 0.6 * np.mean(model.loss_curve_[:20])
    assert model.n_iter_ == 700 and model.best_loss_ == model.validation_curve_[:, 1].min()
    grid = np.linspace(0, 2 * np.pi, 200, endpoint=False)[:, None]
    assert abs(np.exp(model.score_samples(grid)).sum() * 2 * np.pi / 200 - 1) < 1e-3
    draws = model.sample(2000, random_state=0)
    assert abs(np.mean(np.exp(1j * draws)) - np.exp(1j) * moments[0]) < 5 / np.sqrt(2000)
    slow = log_likelihood(model, grid[:5], divergence="differences")
    assert np.allclose(slow, model.score_samples(grid[:5]), atol=1e-3)


def test_score_of_a_correlated_normal_law():
    rng = np.random.default_rng(0)
    C = np.array([[1.0, 0.8], [0.8, 1.0]])
    X = rng.multivariate_normal([0.0, 0.0], C, 4000)
    model = small(OrnsteinUhlenbeck(2), n_iter=700, hidden=(32, 32), min_time=0.1).fit(X)
    Q = rng.multivariate_normal([0.0, 0.0], C, 500)
    for t in (0.1, 0.5, 2.0):
        noisy = np.exp(-t) * C + (1 - np.exp(-t)) * np.eye(2)
        exact = -Q @ np.linalg.inv(noisy)
        gap = ((model.score_field(Q, t) - exact) ** 2).mean() / (exact**2).mean()
        assert gap < 0.03, t  # the diagonal law alone, from which it starts, has 0.31, 0.17 and 0.01
        assert t > 1 or ((-Q - exact) ** 2).mean() / (exact**2).mean() > 0.1


@pytest.mark.parametrize("loss", ["ism", "sliced", "stein", "carried", "rao_blackwell"])
def test_every_loss_has_the_same_minimiser(plain, loss):
    model = trained(loss)
    first, last = model.validation_curve_[0, 1], model.best_loss_
    assert last < 0.7 * first
    # within a tenth of the way, by another noise
    assert abs(last - plain.best_loss_) < 0.1 * (first - plain.best_loss_)
    assert plain.variance_factor_ == 1.0


@pytest.mark.parametrize("loss, least", [("stein", 1.15), ("carried", 1.15), ("rao_blackwell", 4.0)])
def test_gradients_vary_less(loss, least):
    # the expected gradient is the same: at one state, over many batches, of the losses as they are in training
    from rdks.neural.training import Trainer
    seen = []
    gradient = Trainer._gradient

    def note(self, batch, kind):
        seen.append((kind, gradient(self, batch, kind)))
        return seen[-1][1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_gradient", note)
        model = small(Circle(), loss=loss, n_iter=200, min_time=0.002, feature_length=0.4, batch_size=64)
        model.fit(von_mises(300))
    assert model.variance_factor_ > least
    plain, mine = (np.array([g for kind, g in seen if kind == name]) for name in ("dsm", loss))
    assert len(plain) == len(mine) >= 32
    gap = plain.mean(axis=0) - mine.mean(axis=0)
    error = plain.var(axis=0).sum() / len(plain) + mine.var(axis=0).sum() / len(mine)
    assert (gap @ gap) < 2.5 * error  # its expectation is the error itself


def test_pretraining_follows_the_given_score():
    X = von_mises(300)
    operator = OperatorScoreMatching(Circle(), max_level=4, min_time=0.1).fit(X)
    # targets without noise for all iterations but the last
    model = small(Circle(), pretrain=operator, pretrain_share=0.999, n_iter=500, min_time=0.1, ema=0.98).fit(X)
    plain = small(Circle(), n_iter=500, min_time=0.1, ema=0.98).fit(X)
    Q = von_mises(200, 1)
    exact = operator.score_field(Q, 0.3)
    gap, far = (((m.score_field(Q, 0.3) - exact) ** 2).mean() for m in (model, plain))
    assert gap < 0.02 * (exact**2).mean() and gap < far


def test_weights_are_probabilities():
    X = np.array([[0.5], [2.0], [4.0]]).repeat(60, axis=0) + 0.2 * np.random.default_rng(0).standard_normal((180, 1))
    weight = np.repeat([1.0, 0.0, 3.0], 60)
    model = small(Circle(), n_iter=300).fit(X, sample_weight=weight)
    same = small(Circle(), n_iter=300).fit(X[weight > 0], sample_weight=weight[weight > 0])
    assert np.array_equal(model.score_field(X), same.score_field(X))
    draws = model.sample(1000, random_state=0)
    assert abs(np.mean(draws < 2.2) - 0.25) < 0.1  # a fair half without the weights


def test_network_sees_noise_in_space_without_an_invariant_law():
    X = np.random.default_rng(0).standard_normal((400, 2)) * 0.5
    model = small(Euclidean(2), n_iter=100).fit(X)
    assert 25 * 0.25 * 0.8 < model.max_time_ < 25 * 0.25 * 1.2
    draws = model.sample(1500, random_state=0)
    assert np.allclose(draws.var(axis=0), 0.25 + 0.05, rtol=0.15)
    law = -0.5 * (X[:20] ** 2).sum(axis=1) / 0.3 - np.log(2 * np.pi * 0.3)
    assert abs(np.mean(model.score_samples(X[:20]) - law)) < 0.1
    # where it begins: kernels of the largest noise, drawn from and as a density
    far = model._draw(20_000, model.max_time_, np.random.default_rng(0))
    assert np.allclose(far.var(axis=0), X.var(axis=0) + model.max_time_, rtol=0.05)
    density = RDKSEstimator(Euclidean(2), bandwidth=np.sqrt(model.max_time_ + 1)).fit(X).score_samples(X[:5])
    assert np.allclose(model._evaluate(X[:5], model.max_time_ + 1, 0).log_density, density, rtol=1e-5)
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.sample(5, random_state=1), model.sample(5, random_state=1))


# state

def test_same_seed_same_model():
    X = von_mises(100)
    first, second = (small(Circle(), n_iter=60).fit(X) for _ in range(2))
    other = small(Circle(), n_iter=60, random_state=1).fit(X)
    assert np.array_equal(first.score_field(X), second.score_field(X))
    assert not np.array_equal(first.score_field(X), other.score_field(X))


@pytest.mark.parametrize("loss", ["dsm", "stein"])
@pytest.mark.parametrize("stop", [33, 40])
def test_interrupted_training_goes_on_as_if_nothing_had_happened(monkeypatch, loss, stop):
    from rdks.neural.training import Trainer
    X = von_mises(100)
    whole = small(Circle(), n_iter=90, loss=loss).fit(X)
    step = Trainer._step

    def interrupted(self, batch):
        if self.iteration == stop - 1:
            signal.raise_signal(signal.SIGINT)
        return step(self, batch)

    monkeypatch.setattr(Trainer, "_step", interrupted)
    model = small(Circle(), n_iter=90, loss=loss)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X)
    monkeypatch.undo()
    assert model.n_iter_ == stop and np.isfinite(model.score_field(X)).all()
    model = pickle.loads(pickle.dumps(model)).set_params(warm_start=True).fit(X)
    assert model.n_iter_ == 90
    assert np.array_equal(model.loss_curve_, whole.loss_curve_)
    assert np.array_equal(model.validation_curve_, whole.validation_curve_)
    assert np.array_equal(model.score_field(X), whole.score_field(X))


def test_warm_start_adds_iterations_and_takes_new_points():
    X = von_mises(200)
    model = small(Circle(), n_iter=40, warm_start=True).fit(X)
    first = model.loss_curve_
    assert len(model.fit(X).loss_curve_) == 40
    model.set_params(n_iter=90).fit(von_mises(200, 1))
    assert np.array_equal(model.loss_curve_[:40], first) and len(model.loss_curve_) == 90
    assert model.best_loss_ == model.validation_curve_[model.validation_curve_[:, 0] > 40, 1].min()
    assert len(model.set_params(warm_start=False, n_iter=5).fit(X).loss_curve_) == 5


def test_pickle_needs_no_tensors():
    X = von_mises(60)
    model = small(Circle(), n_iter=20).fit(X)
    expected = model.score_field(X)  # which makes tensors
    text = pickle.dumps(model)
    assert b"torch" not in text
    assert np.array_equal(pickle.loads(text).score_field(X), expected)


@pytest.mark.parametrize("fraction", [0.0, 0.2])
def test_loss_that_is_not_finite_keeps_the_last_good_weights(monkeypatch, fraction):
    from rdks.neural.training import Trainer
    loss = Trainer._loss

    def broken(self, batch, kind):
        return loss(self, batch, kind) * (np.nan if self.iteration >= 50 else 1.0)

    monkeypatch.setattr(Trainer, "_loss", broken)
    X = von_mises(60)
    with pytest.warns(ConvergenceWarning, match="iteration 50 is not finite"):
        model = small(Circle(), n_iter=100, validation_fraction=fraction).fit(X)
    assert model.n_iter_ == 50 and np.isfinite(model.score_field(X)).all()
    assert np.abs(model.score_field(X)).max() > 0.1  # something has been learnt


def test_patience():
    X = von_mises(200)
    model = small(Circle(), n_iter=2000, patience=2, learning_rate=0.02, ema=0.0).fit(X)
    assert model.n_iter_ < 2000
    losses = model.validation_curve_[:, 1]
    assert np.argmin(losses) == len(losses) - 3


# errors

def test_errors():
    X = von_mises(20)
    with pytest.raises(ValueError, match="leaves no point to hold out"):
        small(Circle(), validation_fraction=0.1).fit(X[:2])
    with pytest.raises(ValueError, match="leaves no point to hold out"):
        small(Circle()).fit(np.zeros((50, 1)))
    with pytest.raises(errors.UnsupportedError, match="between its nodes"):
        cloud = PointCloud(np.random.default_rng(0).standard_normal((60, 2)))
        small(cloud).fit(cloud.unembed(cloud.random(20, np.random.default_rng(0))))
    with pytest.raises(errors.UnsupportedError, match="small-time approximation"):
        small(SPD(3, metric="affine_invariant")).fit(np.tile(np.eye(3), (20, 1, 1)))
    torus = OperatorScoreMatching(Torus(1, period=1.0), max_level=2, min_time=0.1).fit(X % 1.0)
    for name in ("baseline", "pretrain"):
        with pytest.raises(ValueError, match=f"{name} is a model on Torus"):
            small(Circle(), **{name: torus}).fit(X)
    operator = OperatorScoreMatching(Circle(), max_level=2, min_time=0.1).fit(X)
    with pytest.raises(ValueError, match=r"min_time = 0.05 is below 0.1"):
        small(Circle(), baseline=operator).fit(X)
    with pytest.raises(ValueError, match="fitted model"):
        small(Circle(), baseline="rdks").fit(X)
    for device in ("cuda:99", "abacus"):
        with pytest.raises(ValueError, match="cannot be used"):
            small(Circle(), device=device).fit(X)
    bad = {"loss": "mse", "weighting": "none", "n_iter": -1, "batch_size": 1, "ema": 1.0, "validation_fraction": 1.0,
           "learning_rate": 0.0, "hidden": (), "min_time": 0.0, "max_time": "long", "patience": 0,
           "feature_length": -1.0, "baseline_time": -1.0, "pretrain_share": 2, "check_points": "no"}
    for name, value in bad.items():
        with pytest.raises(ValueError, match=name):
            small(Circle(), **{name: value}).fit(X)
    with pytest.raises(ValueError, match="must be below max_time"):
        small(Circle(), max_time=0.01).fit(X)
    model = small(Circle(), n_iter=3).fit(X)
    with pytest.raises(ValueError, match="below min_time_"):
        model.score_field(X, 0.01)
    model.set_params(warm_start=True)
    with pytest.raises(ValueError, match="warm_start: hidden"):
        model.set_params(hidden=(3,)).fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert small(Circle(), n_iter=3).fit(X.astype(np.float32)).n_iter_ == 3
