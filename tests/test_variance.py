"""Targets of denoising against differences and quadrature; losses of one mean and less variance."""
import numpy as np
import pytest

from rdks import heat
from rdks.engines import DirectSum
from rdks.errors import UnsupportedError
from rdks.manifolds import (
    SO3,
    SPD,
    Box,
    Circle,
    Euclidean,
    Graph,
    Hyperbolic,
    Manifold,
    OrnsteinUhlenbeck,
    Product,
    ProjectiveSpace,
    Quotient,
    SpecialOrthogonal,
    SpecialUnitary,
    Sphere,
    Torus,
)
from rdks.manifolds.spd import AffineInvariantSPD
from rdks.pairs import PairSum
from rdks.smoothers import quadrature
from rdks.variance import (
    _sphere,
    best_coefficient,
    best_mixing,
    carried_control,
    denoising_loss,
    heat_score,
    implicit_loss,
    noise_levels,
    noisy_pairs,
    rao_blackwell_score,
    residual_loss,
    stein_loss,
    variance_factor,
)

OCTANT = Quotient.generated(Sphere(2), [np.diag([-1, 1, 1]), np.diag([1, -1, 1]), np.diag([1, 1, -1])])
MANIFOLDS = [
    Euclidean(2), Circle(period=24.0), Torus(2), Sphere(2), Sphere(4, radius=2.0), Hyperbolic(2),
    Hyperbolic(3, radius=1.5), Box([(0, 1), (0, 2)]), SO3(), SO3(symmetry="cubic"), ProjectiveSpace(2), OCTANT, SPD(2),
    OrnsteinUhlenbeck(2, location=1.0, scale=(2.0, 0.5)), Product(Sphere(2), Torus(1), times=(1.0, 0.25)),
    Product(Hyperbolic(2), ProjectiveSpace(1)), SpecialUnitary(3), SpecialOrthogonal(4)]


def name(manifold):
    return repr(manifold)[:30]


def start(manifold, n, rng):
    if manifold.kernel == "factors":
        return manifold.random(n, rng)
    return manifold.project(manifold.random(n, rng))


def tilt(manifold, rng):
    """A density whose log is the potential of a smooth field with a known divergence."""
    engine = DirectSum if manifold.kernel == "factors" else PairSum
    return engine(manifold, start(manifold, 2, rng), np.array([1.0, 2.0]), 1.5)


def within(values, sigmas=4.0):
    assert abs(values.mean()) <= sigmas * values.std() / np.sqrt(len(values))


# the target

@pytest.mark.parametrize("manifold", MANIFOLDS, ids=name)
def test_target_is_the_gradient_of_the_log_kernel(manifold):
    rng = np.random.default_rng(1)
    n, step = 5, 1e-4
    Z0, t = start(manifold, n, rng), np.array([0.05, 0.3, 0.3, 1.0, 2.7])
    Zt, v = noisy_pairs(manifold, Z0, t, rng)
    assert np.array_equal(v, heat_score(manifold, Z0, Zt, t))
    assert np.allclose(manifold.to_tangent(Zt, v), v, atol=1e-12 * np.abs(v).max())
    frame, ahead, back = manifold.frame(Zt), np.empty((n, manifold.dim)), np.empty((n, manifold.dim))
    for j in range(manifold.dim):
        for out, sign in ((ahead, 1), (back, -1)):
            # the geodesic of the covering space, which sees no walls
            W = (Manifold.exp if manifold.kernel == "factors" else type(manifold).exp)(
                manifold, Zt, sign * step * frame[:, j])
            out[:, j] = [manifold.log_heat_kernel(Z0[i:i + 1], W[i:i + 1], float(t[i]))[0] for i in range(n)]
    slope = np.einsum("nij,nj->ni", frame, v)
    # third derivatives of log k are at most of the order t^(-3/2) here, and rounding is 1e-12 / step
    assert np.abs(slope - (ahead - back) / (2 * step)).max() <= 1e-6 * (1 + t.min()**-1.5)


def test_slopes_of_rows_are_those_of_heat():
    for dim in (1, 2, 3, 7, 40):
        t = np.geomspace(1e-6, 40, 33)
        r = np.minimum(np.sqrt(t)[:, None] * np.array([0.0, 0.1, 1.0, 3.0, 9.0]), 3.0)
        log_k, slope = (x.reshape(r.shape) for x in _sphere(r.ravel(), np.repeat(t, 5), dim))
        for i in range(len(t)):
            assert np.allclose(log_k[i], heat.log_sphere(r[i], t[i], dim), rtol=1e-12, atol=1e-12)
            found, want = slope[i], heat.sphere_slopes(r[i], t[i], dim)[0]
            assert np.allclose(found, want, rtol=2e-12, atol=1e-300), (dim, t[i])


def test_antipode_and_equal_points():
    Z = np.array([[0.0, 0.0, 1.0]])
    for t in (1e-4, 0.1, 5.0):
        assert np.abs(heat_score(Sphere(2), Z, -Z, t)).max() < 1e-9 / t**2  # by symmetry zero, and finite
        assert np.array_equal(heat_score(Sphere(2), Z, Z, t), np.zeros((1, 3)))
    H = np.array([[0.3, 2.0]])
    assert np.array_equal(heat_score(Hyperbolic(2), H, H, 0.3), np.zeros((1, 2)))


def rule(manifold, x0, t):
    """Nodes, weights by volume times kernel from x0, where a rule of product form is at hand."""
    if isinstance(manifold, OrnsteinUhlenbeck | Euclidean):
        x, w = np.polynomial.hermite_e.hermegauss(40)
        X, Y = np.meshgrid(x, x)
        mean, var = manifold.flow(x0[None], t)
        return mean + np.sqrt(var) * np.column_stack([X.ravel(), Y.ravel()]), np.outer(w, w).ravel() / w.sum()**2
    if isinstance(manifold, Hyperbolic):
        r, w = np.polynomial.legendre.leggauss(60)
        far = 9 * np.sqrt(t) + 3 * t
        r, w = 0.5 * far * (1 + r), 0.5 * far * w
        if manifold.dim == 2:
            a = 2 * np.pi * np.arange(120) / 120
            U, c = np.column_stack([np.cos(a), np.sin(a)]), np.full(120, 2 * np.pi / 120)
        else:
            U, c, _ = quadrature(Sphere(2), 60)
        R = manifold.radius
        V = (r[:, None, None] * U).reshape(-1, manifold.dim)
        Q = manifold.exp(np.repeat(x0[None], len(V), 0), V)
        weight = np.outer(w * (R * np.sinh(r / R)) ** (manifold.dim - 1), c).ravel()
    elif isinstance(manifold, Product):
        A, a, _ = quadrature(Sphere(2), 30)
        B = 2 * np.pi * np.arange(24)[:, None] / 24
        Q = np.concatenate([np.repeat(A, 24, 0), np.tile(B, (len(A), 1))], axis=1)
        weight = np.repeat(a, 24) * 2 * np.pi / 24
    else:
        Q, weight, _ = quadrature(manifold, (48,) * manifold.dim if manifold.factors()[0].dim == 1 else 32)
    return Q, weight * np.exp(manifold.log_heat_kernel(np.repeat(x0[None], len(Q), 0), Q, t))


BY_RULE = [Circle(period=9.0), Torus(2), Box([(0, 1), (0, 2)]), Sphere(2, radius=1.5), Sphere(3), SO3(),
           Hyperbolic(2, radius=1.5), Hyperbolic(3), OrnsteinUhlenbeck(2), Product(Sphere(2), Torus(1))]


@pytest.mark.parametrize("manifold", BY_RULE, ids=name)
def test_stein_identity_by_quadrature(manifold):
    rng = np.random.default_rng(2)
    x0, t = manifold.random(1, rng)[0], 0.1 if isinstance(manifold, Hyperbolic) else 0.4
    Q, weight = rule(manifold, x0, t)
    assert abs(weight.sum() - 1) < 1e-9
    v = heat_score(manifold, np.repeat(x0[None], len(Q), 0), Q, t)
    f = tilt(manifold, rng).evaluate(Q, 0.0, 2)
    product = np.einsum("nj,nj->n", f.gradient, v)
    assert abs(weight @ product) > 1e-3  # that it is not zero is what the divergence has to make up for
    # smooth integrands: the rule and the tables of f are good to 1e-8
    assert abs(weight @ (product + f.laplacian)) < 1e-7 * max(1, np.abs(weight @ f.laplacian))
    if manifold.n_images == 1:
        # of vectors across the sphere too, for which neither of the two terms has mean zero alone
        n0 = rng.standard_normal((1, manifold.embed_dim))
        control = carried_control(manifold, n0, x0[None], Q, v)
        assert abs(weight @ control) < 1e-8
        assert weight @ control**2 > 0.01
        if manifold.factors()[0].kind in ("sphere", "hyperbolic"):
            assert abs(weight @ np.einsum("nj,nj->n", np.broadcast_to(n0, v.shape), v)) > 1e-2


@pytest.mark.parametrize("manifold", [SpecialUnitary(3), OCTANT, SPD(2)], ids=name)
def test_stein_identity_of_draws(manifold):
    rng = np.random.default_rng(3)
    n = 1000 if manifold.kernel == "pairs" else 2000
    Z0 = np.repeat(start(manifold, 2, rng), n // 2, 0)
    Zt, v = noisy_pairs(manifold, Z0, np.repeat([0.2, 0.6], n // 2), rng)
    f = tilt(manifold, rng).evaluate(Zt, 0.0, 2)
    within(np.einsum("nj,nj->n", f.gradient, v) + f.laplacian)


def test_refusals_say_why():
    rng = np.random.default_rng(0)
    graph = Graph(np.array([[0.0, 1, 0], [1, 0, 1], [0, 1, 0]]))
    with pytest.raises(UnsupportedError, match="between its nodes"):
        heat_score(graph, np.zeros((1, graph.embed_dim)), np.zeros((1, graph.embed_dim)), 0.1)
    space = AffineInvariantSPD(3)
    Z = space.random(2, rng)
    for call in (lambda: noisy_pairs(space, Z, 0.1, rng), lambda: rao_blackwell_score(space, Z, Z, 0.1)):
        with pytest.raises(UnsupportedError, match="small-time approximation"):
            call()
    Z = Sphere(2).random(3, rng)
    with pytest.raises(ValueError, match=r"expected \(n, 3\) twice"):
        heat_score(Sphere(2), Z, Z[:, :2], 0.1)
    with pytest.raises(ValueError, match=r"t has shape \(2,\)"):
        heat_score(Sphere(2), Z, Z, np.ones(2))
    with pytest.raises(ValueError, match=r"t\[1\] = .* positive"):
        heat_score(Sphere(2), Z, Z, np.array([1.0, 0.0, np.inf]))
    for bad in ((0.0, 1.0), (1.0, 1.0), (1.0, np.inf)):
        with pytest.raises(ValueError, match="0 < t_min < t_max"):
            noise_levels(*bad)
    with pytest.raises(ValueError, match="n_levels"):
        noise_levels(0.1, 1.0, 1)
    for manifold in (SO3(), OCTANT, SpecialUnitary(3)):
        with pytest.raises(UnsupportedError, match="cannot be carried"):
            carried_control(manifold, None, None, None, None)


def test_noise_levels_are_geometric():
    levels = noise_levels(1e-3, 10.0, 41)
    assert np.allclose(levels[1:] / levels[:-1], 10**0.1, rtol=1e-12) and levels[[0, -1]].tolist() == [1e-3, 10.0]


# the target of a batch

@pytest.mark.parametrize("manifold", [Sphere(2), SO3(), Hyperbolic(2), Box([(0, 1)]), OrnsteinUhlenbeck(2),
                                      SpecialUnitary(2)], ids=name)
def test_target_of_a_batch_is_the_conditional_mean(manifold):
    rng = np.random.default_rng(4)
    batch, q = start(manifold, 5, rng), 7
    own, share = rng.integers(0, 5, q), np.array([1.0, 2.0, 0.5, 0.0, 1.0])
    own = np.where(own == 3, 0, own)
    t = rng.choice([0.1, 0.4], q)
    Zt, _ = noisy_pairs(manifold, batch[own], t, rng)

    def mean(i, weight):
        every = np.repeat(Zt[i:i + 1], 5, 0)
        k = weight * np.exp(manifold.log_heat_kernel(batch, every, float(t[i])))
        return k @ heat_score(manifold, batch, every, float(t[i])) / k.sum()

    size = 1 / np.sqrt(t.min())
    for weight, given in ((np.ones(5), None), (share, share), (share, 3 * share)):
        want = np.array([mean(i, weight) for i in range(q)])
        assert np.allclose(rao_blackwell_score(manifold, Zt, batch, t, given), want, atol=1e-9 * size)
    want = np.array([mean(i, np.where(np.arange(5) == own[i], 0.0, share)) for i in range(q)])
    assert np.allclose(rao_blackwell_score(manifold, Zt, batch, t, share, own), want, atol=1e-9 * size)


def test_target_of_a_batch_checks_its_arguments():
    batch = Sphere(2).random(3, np.random.default_rng(0))
    for bad in (np.ones(2), np.zeros(3), np.array([1.0, -1.0, 1.0]), np.array([1.0, np.nan, 1.0])):
        with pytest.raises(ValueError, match="share: expected 3"):
            rao_blackwell_score(Sphere(2), batch, batch, 0.1, bad)
    for bad in (np.arange(2), np.array([0, 1, 3]), np.array([0, 1, -1]), np.zeros(3)):
        with pytest.raises(ValueError, match="integers from 0 to 2"):
            rao_blackwell_score(Sphere(2), batch, batch, 0.1, own=bad)
    with pytest.raises(ValueError, match="nothing of the batch is left for row 1"):
        rao_blackwell_score(Sphere(2), batch, batch, 0.1, np.array([0.0, 1.0, 0.0]), np.array([0, 1, 2]))


def two_von_mises(t, count=4096):
    """Two opposite von Mises laws of concentration 5, and their score after a time t, by a fast Fourier transform."""
    angle = 2 * np.pi * np.arange(count) / count
    p = np.cosh(5 * np.cos(angle))
    p /= p.mean() * 2 * np.pi
    k = np.arange(count // 2 + 1)
    c = np.fft.rfft(p) * np.exp(-0.5 * k * k * t)
    q, slope = np.fft.irfft(c), np.fft.irfft(1j * k * c)
    return angle, p, q, slope / q


def test_variance_of_the_target_on_the_circle():
    """Theory section 7: t = 0.2, batches of 32: the mean squared error falls from 3.31 to 0.27."""
    t, rng, circle = 0.2, np.random.default_rng(5), Circle()
    angle, p, q, score = two_von_mises(t)
    # exactly: E|v|^2 - E|score|^2
    start = np.zeros((len(angle), 1))
    kernel = np.exp(circle.log_heat_kernel(start, angle[:, None], t))
    power = kernel @ heat_score(circle, start, angle[:, None], t)[:, 0] ** 2 / kernel.sum()
    exact = power - q @ score**2 / q.sum()
    assert abs(exact - 3.31) < 0.02
    plain, reduced, moment = [], [], []
    for _ in range(250):
        batch = angle[np.searchsorted(np.cumsum(p) / p.sum(), rng.uniform(size=32))][:, None]
        Zt, v = noisy_pairs(circle, batch, t, rng)
        mean = rao_blackwell_score(circle, Zt, batch, t)
        truth = np.interp(Zt, np.append(angle, 2 * np.pi), np.append(score, score[0]))
        plain.append(v - truth)
        reduced.append(mean - truth)
        moment.append(((v - mean) * np.sin(Zt + 1.0)).mean())
    within(np.array(moment))
    one, two = ((np.concatenate(x) ** 2).mean() for x in (plain, reduced))
    assert abs(one - exact) < 4 * exact * np.sqrt(2 / 8000)
    assert abs(two - 0.27) < 0.04  # four standard errors of 250 batches, at most
    assert 10 < variance_factor(np.concatenate(plain), np.concatenate(reduced)) < 15


@pytest.mark.parametrize("manifold", [Sphere(2), SO3(), Hyperbolic(2), OrnsteinUhlenbeck(2)], ids=name)
def test_target_of_a_batch_has_the_same_mean_and_less_variance(manifold):
    rng = np.random.default_rng(6)
    field, t, centre = tilt(manifold, rng), 0.3, np.repeat(manifold.random(1, rng), 6, 0)
    plain, reduced, biased = [], [], []
    for _ in range(160):
        batch = manifold.exp(centre, 0.5 * manifold.to_tangent(centre, rng.standard_normal(centre.shape)))
        Zt, v = noisy_pairs(manifold, batch, t, rng)
        F = field.evaluate(Zt, 0.0, 1).gradient
        for out, target in ((plain, v), (reduced, rao_blackwell_score(manifold, Zt, batch, t)),
                            (biased, rao_blackwell_score(manifold, Zt, batch, t, own=np.arange(6)))):
            out.append(np.einsum("nj,nj->n", F, target))
    plain, reduced, biased = np.array(plain), np.array(reduced), np.array(biased)
    within((plain - reduced).mean(axis=1))
    bias = (plain - biased).mean(axis=1)
    assert abs(bias.mean()) > 4 * bias.std() / np.sqrt(160)  # as its documentation says
    # the score itself varies too, as plain does in the mean over noise: what is left out of it is noise
    assert np.mean((plain - reduced) ** 2) > 0.1 * plain.var()
    assert variance_factor(plain.ravel(), reduced.ravel()) > 1.15


# arithmetic

def samples(manifold, t, n, rng):
    """A field that is not the score, its divergence, and the targets."""
    Z0 = manifold.random(n, rng)
    Zt, v = noisy_pairs(manifold, Z0, t, rng)
    field = tilt(manifold, rng)
    f = field.evaluate(Zt, 0.0, 2)
    return Z0, Zt, v, f.gradient, f.laplacian, field.evaluate(Z0, 0.0, 1).gradient


FLAT_AND_CURVED = [Torus(2), Sphere(2), Hyperbolic(3), OrnsteinUhlenbeck(2)]


@pytest.mark.parametrize("manifold", [*FLAT_AND_CURVED, SO3()], ids=name)
def test_losses_have_one_mean(manifold):
    rng = np.random.default_rng(7)
    _, _, v, s, divergence, _ = samples(manifold, np.repeat([0.05, 0.5], 5000), 10000, rng)
    base = denoising_loss(s, v) - (v * v).sum(-1)
    assert np.allclose(base, stein_loss(s, v, divergence, 0.0), rtol=1e-9, atol=1e-9 * (v * v).max())
    assert np.allclose(implicit_loss(s, divergence), stein_loss(s, v, divergence, 1.0), rtol=1e-12)
    for c in (0.3, 1.0, np.repeat([0.9, 0.2], 5000)):
        within(stein_loss(s, v, divergence, c) - base)


@pytest.mark.parametrize("manifold", FLAT_AND_CURVED, ids=name)
def test_best_mixing_is_the_regression(manifold):
    rng = np.random.default_rng(8)
    parts = [samples(manifold, t, 5000, np.random.default_rng(8)) for t in (0.01, 0.3, 2.0)]
    v, s = (np.array([p[i] for p in parts]) for i in (2, 3))
    divergence = np.array([p[4] for p in parts])
    c = best_mixing(s, v, divergence)
    assert c.shape == (3,)
    for i in range(3):
        A = np.column_stack([np.ones(5000), stein_loss(s[i], v[i], divergence[i], 1.0)
                             - stein_loss(s[i], v[i], divergence[i], 0.0)])
        slope = np.linalg.lstsq(A, stein_loss(s[i], v[i], divergence[i], 0.0), rcond=None)[0][1]
        assert np.isclose(c[i], -slope, rtol=1e-8)
        assert np.isclose(best_mixing(s[i], v[i], divergence[i]), c[i], rtol=1e-12)
        best = stein_loss(s[i], v[i], divergence[i], c[i])
        for other in (0.0, 1.0, c[i] - 0.1, c[i] + 0.1):
            assert variance_factor(stein_loss(s[i], v[i], divergence[i], other), best) >= 1
    assert c[0] > 0.9  # little time: implicit
    plain = stein_loss(s[0], v[0], divergence[0], 0.0)
    assert variance_factor(plain, stein_loss(s[0], v[0], divergence[0], c[0])) > 20
    assert best_mixing(0 * s[0], v[0], 0 * divergence[0]) == 0.0  # a network that starts at zero
    assert rng is not None


@pytest.mark.parametrize("manifold", FLAT_AND_CURVED, ids=name)
def test_carried_control_takes_the_noise_of_small_times(manifold):
    rng = np.random.default_rng(9)
    for t, least in ((0.003, 20), (0.03, 2.5)):
        Z0, Zt, v, n, _, n0 = samples(manifold, t, 8000, rng)
        r = 0.5 * n
        loss = residual_loss(n, v, r)
        assert np.allclose(loss, denoising_loss(r + n, v) - denoising_loss(r, v), atol=1e-9 * (v * v).max())
        control = carried_control(manifold, n0, Z0, Zt, v)
        within(control)
        assert variance_factor(loss, loss + 2 * control) > least
        a = best_coefficient(loss, control)
        assert 1.5 < a < 2.3 and variance_factor(loss + 2 * control, loss + a * control) >= 1


def test_variance_factor():
    assert variance_factor(np.array([[0.0, 1.0], [2.0, 5.0]]), np.array([1.0, 2.0])) == pytest.approx(20.0)
    assert variance_factor(np.array([0.0, 1.0]), np.ones(2)) == np.inf


def test_arithmetic_takes_tensors():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(10)
    for manifold in (Sphere(2), Product(Hyperbolic(2), Sphere(2), Circle())):
        arrays = samples(manifold, 0.1, 50, rng)
        Z0, Zt, v, s, divergence, n0 = (torch.tensor(x, requires_grad=i == 3) for i, x in enumerate(arrays))
        calls = [lambda Z0, Zt, v, s, d, n0: denoising_loss(s, v), lambda Z0, Zt, v, s, d, n0: implicit_loss(s, d),
                 lambda Z0, Zt, v, s, d, n0: stein_loss(s, v, d, 0.3),
                 lambda Z0, Zt, v, s, d, n0: best_mixing(s, v, d),
                 lambda Z0, Zt, v, s, d, n0: best_coefficient((s * v).sum(-1), d),
                 lambda Z0, Zt, v, s, d, n0: residual_loss(s, v, 0.5 * v),
                 lambda Z0, Zt, v, s, d, n0, m=manifold: carried_control(m, s, Z0, Zt, v)]
        for call in calls:
            out = call(Z0, Zt, v, s, divergence, n0)
            assert np.allclose(out.detach().numpy(), call(*arrays), rtol=1e-10)
            s.grad = None
            out.sum().backward()
            assert torch.isfinite(s.grad).all() and s.grad.abs().sum() > 0
        assert variance_factor(v, s.detach()) == pytest.approx(variance_factor(arrays[2], arrays[3]))
