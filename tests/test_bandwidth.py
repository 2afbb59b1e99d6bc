"""Bandwidth rules against independent computations: quadrature, series, brute force, the oracle."""
import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import eval_legendre, poch

from rdks import RDKSEstimator
from rdks.bandwidth import _Curves, _energy_norms, _isj, search_range, select
from rdks.engines import DirectSum
from rdks.manifolds import Circle, Euclidean, Sphere, Torus

RULES = ["lcv", "lscv", "isj", "rot"]


def mixture(rng, n, d=2):
    """Three clusters of different width on the sphere."""
    centres = np.eye(d + 1)[:3]
    which = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    X = centres[which] + np.array([0.15, 0.3, 0.5])[which, None] * rng.standard_normal((n, d + 1))
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def engine(manifold, Z, w=None):
    return DirectSum(manifold, Z, np.ones(len(Z)) if w is None else w, 0.0)


def quiet(t):
    pass


def test_least_squares_curve_is_the_integral_minus_twice_the_leave_one_out_mean():
    """LSCV by quadrature of the squared density and by refitting without each point."""
    rng = np.random.default_rng(0)
    X = mixture(rng, 25)
    h = 0.4
    est = RDKSEstimator(Sphere(2), bandwidth=h).fit(X)
    z, wz = np.polynomial.legendre.leggauss(60)
    phi = 2 * np.pi * np.arange(120) / 120
    zz, pp = np.meshgrid(z, phi, indexing="ij")
    s = np.sqrt(1 - zz**2)
    grid = np.stack([s * np.cos(pp), s * np.sin(pp), zz], -1).reshape(-1, 3)
    square = np.exp(2 * est.score_samples(grid)).reshape(zz.shape).sum(1) @ wz * 2 * np.pi / 120
    loo = [np.exp(RDKSEstimator(Sphere(2), bandwidth=h).fit(np.delete(X, i, 0)).score_samples(X[i:i + 1])[0])
           for i in range(25)]
    curves = _Curves(engine(Sphere(2), X), quiet, 1.0)
    assert curves.lscv(h * h) * np.exp(curves.log_unit) == pytest.approx(square - 2 * np.mean(loo), rel=1e-11)
    assert -curves.lcv(h * h) == pytest.approx(np.mean(np.log(loo)), rel=1e-11)


def legendre_energies(X, top):
    """A_l = sum_m c_lm^2 of the empirical measure on S^2, by the addition theorem."""
    u = X @ X.T
    return np.array([(2 * lev + 1) / (4 * np.pi) * eval_legendre(lev, u).mean() for lev in range(top)])


def test_sheather_jones_norms_are_those_of_the_series():
    """theta_s(t) = sum_l (l(l+1))^s exp(-l(l+1)t) A_l, differentiated by us, summed here."""
    rng = np.random.default_rng(1)
    X = mixture(rng, 150)
    A = legendre_energies(X, 140)
    lam = np.arange(140) * np.arange(1, 141)
    log_theta = _energy_norms(_Curves(engine(Sphere(2), X), quiet, 1.0), 5e-4, 2.0, 5)
    for s in range(6):
        for t in (0.005, 0.03, 0.2):
            assert np.exp(log_theta(s, t)) == pytest.approx((lam.astype(float) ** s * np.exp(-lam * t)) @ A, rel=1e-5)


def test_sheather_jones_on_the_circle_is_botevs_recursion():
    """The published one-dimensional recursion, written out with a Fourier series on the circle."""
    rng = np.random.default_rng(2)
    x = np.concatenate([rng.normal(1, 0.3, 200), rng.normal(3.5, 0.6, 200)])
    n = x.size
    k = np.arange(1, 400)
    power = np.abs(np.exp(1j * np.outer(k, x)).mean(1)) ** 2

    def norm_of(s, t):  # ||p^(s)||^2 with diffusion time t in both factors
        return (k ** (2.0 * s) * np.exp(-k**2 * t) * power).sum() * 2 / (2 * np.pi)

    def stages(t, last=5):
        f = norm_of(last, t)
        for s in range(last - 1, 1, -1):
            const = (1 + 0.5 ** (s + 0.5)) / 3
            odd = np.prod(np.arange(1, 2 * s, 2.0))
            f = norm_of(s, (2 * const * odd / (n * np.sqrt(2 * np.pi) * f)) ** (2 / (3 + 2 * s)))
        return t - (2 * n * np.sqrt(np.pi) * f) ** (-0.4)

    grid = np.geomspace(1e-4, 0.3, 200)
    values = np.array([stages(t) for t in grid])
    i = np.flatnonzero((values[:-1] < 0) & (values[1:] >= 0))[0]
    botev = brentq(stages, grid[i], grid[i + 1])
    found = select(engine(Circle(), x[:, None]), "isj")
    assert found.rule == "isj"
    assert found.bandwidth**2 == pytest.approx(botev, rel=1e-5)
    # the d-dimensional stage constant at d = 1 is the published one
    s = np.arange(2, 6)
    ours = 2 / 3 * (1 + 2 ** (-s - 0.5)) * 2.0**s * poch(0.5, s) / np.sqrt(2 * np.pi)
    theirs = 2 * (1 + 0.5 ** (s + 0.5)) / 3 * [np.prod(np.arange(1, 2 * j, 2.0)) for j in s] / np.sqrt(2 * np.pi)
    assert np.allclose(ours, theirs)


@pytest.mark.parametrize("rule", RULES)
def test_rules_are_invariant(rule):
    rng = np.random.default_rng(3)
    X = mixture(rng, 200)
    h = select(engine(Sphere(2), X), rule).bandwidth
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    assert select(engine(Sphere(2), X @ turn.T), rule).bandwidth == pytest.approx(h, rel=1e-4)
    assert select(engine(Sphere(2), rng.permutation(X)), rule).bandwidth == pytest.approx(h, rel=1e-4)
    assert select(engine(Sphere(2), X, np.full(200, 3.0)), rule).bandwidth == pytest.approx(h, rel=1e-4)
    km = Sphere(2, radius=6371.0)
    assert select(engine(km, 6371 * X), rule).bandwidth == pytest.approx(6371 * h, rel=1e-4)
    angles = rng.vonmises(0, 3, (200, 2))
    h = select(engine(Torus(2), angles), rule).bandwidth
    moved = np.mod(angles + [1.0, 5.0], 2 * np.pi)
    assert select(engine(Torus(2), moved), rule).bandwidth == pytest.approx(h, rel=1e-4)


@pytest.mark.parametrize("rule, worst", [("lcv", 1.25), ("lscv", 1.3), ("isj", 1.1), ("rot", 1.1)])
def test_rules_are_near_the_best_bandwidth_on_a_normal(rule, worst):
    """Median over samples of MISE(chosen) / MISE(best), MISE of N(0, 1) in closed form."""
    n = 400

    def mise(h):  # integral of (p_h - p)^2, expectation over samples; all terms are Gaussian overlaps
        v = h * h
        overlap = 1 / np.sqrt(4 * np.pi)
        smooth = 1 / np.sqrt(2 * np.pi * (2 + 2 * v))
        cross = 1 / np.sqrt(2 * np.pi * (2 + v))
        return smooth * (1 - 1 / n) + 1 / (n * h * np.sqrt(4 * np.pi)) - 2 * cross + overlap

    best = min(mise(h) for h in np.geomspace(0.1, 0.8, 300))
    ratios = [mise(select(engine(Euclidean(1), np.random.default_rng(seed).standard_normal((n, 1))), rule).bandwidth)
              / best for seed in range(11)]
    assert np.median(ratios) <= worst


def test_isolated_points_do_not_spoil_the_likelihood():
    """The own term is skipped, not subtracted: one far point gives a finite, right value."""
    rng = np.random.default_rng(4)
    Z = np.concatenate([0.1 * rng.standard_normal((300, 1)), [[50.0]]])
    curves = _Curves(engine(Euclidean(1), Z), quiet, 1.0)
    t = 0.05**2
    d = Z - Z.T
    np.fill_diagonal(d, np.inf)
    from scipy.special import logsumexp
    logs = logsumexp(-(d**2) / (2 * t), axis=1) - np.log(300) - 0.5 * np.log(2 * np.pi * t)
    assert -curves.lcv(t) == pytest.approx(logs.mean(), rel=1e-12)
    # so the likelihood rule must cover the gap
    assert select(engine(Euclidean(1), Z), "lcv").bandwidth > 0.5


def test_range_curve_and_reason():
    X = mixture(np.random.default_rng(5), 100)
    low, high = search_range(engine(Sphere(2), X))
    assert 0 < low < high == pytest.approx(np.log(2))
    est = RDKSEstimator(Sphere(2)).fit(X)
    curve = est.selection_
    assert curve.rule == "lcv" and "leave-one-out" in curve.reason
    assert (np.diff(curve.times) > 0).all() and curve.criterion.shape == curve.times.shape
    best = curve.bandwidths[np.argmax(curve.criterion)]
    assert est.bandwidth_ == pytest.approx(best, rel=1e-12)
    assert RDKSEstimator(Sphere(2), min_bandwidth=0.6).fit(X).bandwidth_ >= 0.6


def test_data_more_even_than_uniform():
    Z = (np.arange(64) * 2 * np.pi / 64)[:, None]
    for rule in ("lcv", "lscv"):
        found = select(engine(Circle(), Z), rule)
        assert "uniform" in found.reason and found.bandwidth > 2
    t, _, _ = _isj(_Curves(engine(Circle(), Z), quiet, 1.0), 1e-3, 1.4)
    assert t is None
    assert "no fixed point" in select(engine(Circle(), Z), "isj").reason


def test_a_criterion_that_falls_for_ever_warns(monkeypatch):
    monkeypatch.setattr(_Curves, "lscv", lambda self, t: np.log(t))
    Z = np.arange(9.0)[:, None] ** 1.5
    assert "low end" in select(engine(Euclidean(1), Z), "lscv").warning
    with pytest.warns(UserWarning, match="low end of the range") as record:
        RDKSEstimator(Euclidean(1), bandwidth="lscv").fit(Z)
    assert record[0].filename == __file__  # blamed on the caller of fit


def test_progress_bar(capsys):
    X = mixture(np.random.default_rng(6), 30)
    RDKSEstimator(Sphere(2), verbose=True).fit(X)
    assert "bandwidth" in capsys.readouterr().err


def test_a_far_point_among_thousands_is_seen_in_any_order():
    """The first scan looks at some of the data only; the choice must not depend on which."""
    rng = np.random.default_rng(8)
    Z = rng.standard_normal((4500, 1))
    Z[1] = 300.0
    data = engine(Euclidean(1), Z)
    chosen = select(data, "lcv")
    curves = _Curves(data, quiet, 1.0)
    assert curves.lcv(chosen.bandwidth**2) < min(curves.lcv(h * h) for h in (0.3, 1.0, 2.5, 10.0, 40.0))
    assert np.argmax(chosen.criterion) == np.flatnonzero(chosen.bandwidths == chosen.bandwidth)[0]
    for _ in range(2):
        again = select(engine(Euclidean(1), rng.permutation(Z)), "lcv").bandwidth
        assert again == pytest.approx(chosen.bandwidth, rel=1e-6)
    w = np.ones(4500)
    w[rng.choice(4500, 10)] = 3000.0
    heavy = engine(Euclidean(1), Z, w)
    h = select(heavy, "lcv").bandwidth
    curves = _Curves(heavy, quiet, 1.0)
    assert curves.lcv(h * h) <= min(curves.lcv(h * h * f) for f in (0.2, 0.5, 2.0, 5.0))


@pytest.mark.parametrize("rule", RULES)
def test_rules_do_not_know_the_unit_of_length(rule):
    Z = np.random.default_rng(9).standard_normal((50, 120))
    h = [select(engine(Euclidean(120), scale * Z), rule).bandwidth / scale for scale in (1.0, 1e-3, 1e5)]
    assert h[1] == pytest.approx(h[0], rel=1e-3) and h[2] == pytest.approx(h[0], rel=1e-3)


@pytest.mark.parametrize("manifold", [Sphere(2), Circle()], ids=repr)
def test_rule_of_thumb_on_concentrated_data(manifold):
    rng = np.random.default_rng(10)
    centre = np.tile([[0.0, 0.6, 0.8]], (200, 1)) if manifold == Sphere(2) else np.ones((200, 1))
    noise = rng.standard_normal((200, manifold.dim))
    V = np.einsum("nd,ndm->nm", noise, manifold.frame(centre))
    h = [select(engine(manifold, manifold.exp(centre, s * V)), "rot").bandwidth / s for s in (1e-2, 1e-5, 1e-7)]
    assert h[1] == pytest.approx(h[0], rel=1e-2) and h[2] == pytest.approx(h[0], rel=1e-2)


def test_the_minimum_bandwidth_limits_and_does_not_distort():
    X = mixture(np.random.default_rng(11), 150)
    for rule in RULES:
        free = select(engine(Sphere(2), X), rule)
        raised = select(engine(Sphere(2), X), rule, min_bandwidth=2 * free.bandwidth)
        assert raised.rule == free.rule == rule and not raised.warning
        assert raised.bandwidth == pytest.approx(2 * free.bandwidth) and "min_bandwidth" in raised.reason
        same = select(engine(Sphere(2), X), rule, min_bandwidth=0.5 * free.bandwidth)
        assert same.bandwidth == pytest.approx(free.bandwidth, rel=0.02)


def test_weights_that_leave_nothing_to_predict_from():
    X = mixture(np.random.default_rng(12), 40)
    w = np.full(40, 1e-20)
    w[0] = 1.0
    for rule in RULES:
        assert 0 < select(engine(Sphere(2), X, w), rule).bandwidth < np.inf
    w[1:] = 1e-300
    with pytest.raises(ValueError, match="all the weight"):
        select(engine(Sphere(2), X, w), "lcv")


def test_points_that_no_bandwidth_can_tell_apart():
    Z = 1e-160 * np.arange(5.0)[:, None]
    with pytest.raises(ValueError, match="beyond the range"):
        select(engine(Euclidean(1), Z), "lcv")


@pytest.mark.parametrize("rule", ["lcv", "lscv", "isj", "rot"])
def test_a_minimum_beyond_the_range_searched(rule):
    X = np.random.default_rng(19).standard_normal((100, 2))
    found = RDKSEstimator(Euclidean(2), bandwidth=rule, min_bandwidth=50.0).fit(X)
    assert found.bandwidth_ == 50.0 and "min_bandwidth" in found.selection_.reason
