"""Operator-informed score matching: identities of theory section 6 against quadrature and closed forms."""
from __future__ import annotations

import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.stats
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from rdks import RDKSEstimator
from rdks.errors import PointError, UnsupportedError
from rdks.manifolds import Box, Circle, Euclidean, OrnsteinUhlenbeck, Sphere, Torus
from rdks.sampling import log_likelihood, reverse_sde
from rdks.score_matching import (
    OperatorScoreMatching,
    _choose,
    _cut_levels,
    _part,
    _shrunken,
    _Sums,
    cross_validated_risk,
)
from rdks.wiener import monotone_weights


def rule(manifold, count):
    """Nodes of the trapezoidal rule on a circle, a torus or a box (as the user writes them), and cell volume."""
    if isinstance(manifold, Box):
        low, high = np.array(manifold.bounds).T
    else:
        low, high = np.zeros(manifold.dim), np.broadcast_to(manifold.period, manifold.dim)
    axes = [a + (np.arange(count) + 0.5) * (b - a) / count for a, b in zip(low, high, strict=True)]
    X = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, manifold.dim)
    return X, np.prod(high - low) / count**manifold.dim


def fit(manifold, X, **parameters):
    return OperatorScoreMatching(manifold, **{"max_level": 4, "ridge": 0.0, "min_time": 0.01, **parameters}).fit(X)


SPACES = [(Torus(2), 40), (Torus(2, period=(4.0, 6.0)), 40), (Box([(0.0, 2.0), (-1.0, 3.0)]), 60), (Circle(), 60)]


@pytest.mark.parametrize("manifold, count", SPACES)
def test_score_is_the_projection_of_the_kernel_score(manifold, count):
    """For all basis functions E grad psi . (grad f - s) = 0 under p_t; the least risk is -E |grad f|^2 / 2."""
    X = manifold.unembed(manifold.random(7, np.random.default_rng(0)))
    model = fit(manifold, X, max_level=3)
    t = 0.3
    kernels = RDKSEstimator(manifold, bandwidth=np.sqrt(t), engine="direct").fit(X)
    nodes, cell = rule(manifold, count)
    share = cell * np.exp(kernels.score_samples(nodes))
    assert np.isclose(share.sum(), 1, atol=1e-12)
    score, truth = model.score_field(nodes, t), kernels.score_field(nodes)
    basis = model._basis
    K = len(basis.decay)
    gradients = np.array([basis.evaluate(manifold.embed(nodes), unit, 1)[1] for unit in np.eye(K)])
    gap = np.einsum("kqd,qd,q->k", gradients, score - truth, share)
    assert np.abs(gap).max() < 1e-10 * np.abs(np.einsum("kqd,qd,q->k", gradients, truth, share)).max()
    assert np.abs(score - truth).max() > 1e-3  # it is not the score itself
    b = basis.decay * basis.own(model.moments_ * np.exp(-basis.moment_decay * t))
    energy = 0.5 * share @ (score**2).sum(axis=1)
    assert np.isclose(b @ model.coefficients(t), energy, rtol=1e-10)
    assert np.allclose(model.score_divergence(nodes, t) @ share, -(score * truth).sum(axis=1) @ share, rtol=1e-8)


def test_degree_two_is_the_gaussian_score_in_the_unit_of_the_data():
    rng = np.random.default_rng(1)
    X = rng.standard_normal((300, 3)) @ rng.standard_normal((3, 3)) * [1.0, 20.0, 0.1] + [5.0, -30.0, 0.0]
    weight = rng.uniform(0.5, 2.0, 300)
    model = OperatorScoreMatching(max_level=2, ridge=0.0, min_time=0.05).fit(X, sample_weight=weight)
    assert isinstance(model.manifold_, OrnsteinUhlenbeck) and "standard" not in model.manifold_reason_[:1]
    mean = weight @ X / weight.sum()
    cov = (X - mean).T @ ((X - mean) * weight[:, None]) / weight.sum()
    assert np.allclose(model.location_, mean) and np.allclose(model.scale_, np.sqrt(np.diag(cov)))
    for t in (0.05, 0.4, 2.0):
        # x = location + scale z: the law of the data about their mean, widened by noise in their unit
        S = np.exp(-t) * cov + (1 - np.exp(-t)) * np.diag(model.scale_**2)
        q = X[:20] + 0.1 * model.scale_
        assert np.allclose(model.score_field(q, t), -np.linalg.solve(S, (q - mean).T).T, rtol=1e-10,
                           atol=1e-10 / model.scale_.min())
        unit = S / np.outer(model.scale_, model.scale_)
        assert np.allclose(model.score_divergence(q, t), -np.trace(np.linalg.inv(unit)), rtol=1e-10)
    logs = model.score_samples(X[:5])
    S = np.exp(-0.05) * cov + (1 - np.exp(-0.05)) * np.diag(model.scale_**2)
    gap = X[:5] - mean
    exact = -0.5 * (gap * np.linalg.solve(S, gap.T).T).sum(axis=1) - 0.5 * np.linalg.slogdet(2 * np.pi * S)[1]
    assert np.allclose(logs, exact, atol=5e-3)  # the interpolation in time is what is not exact


def test_late_potential_is_the_first_harmonics():
    """A tends to diag(mu) and the coefficients to the means, of a relative error of their own size (theory 6.2)."""
    X = np.array([[0.3], [1.0], [2.5]])
    model = fit(Circle(), X)
    t = 14.0
    means = np.exp(-model._basis.decay * t) * model._basis.own(model.moments_)
    size = np.abs(means).max()
    assert 1e-4 < size < 1e-2
    assert np.abs(model.coefficients(t) - means).max() < 3 * size**2
    assert np.isclose(means[0], np.sqrt(2) * np.exp(-t / 2) * np.cos(X).mean())


def test_ridge_is_a_mixture_with_the_invariant_law():
    rng = np.random.default_rng(2)
    box = Box([(0.0, 1.0)])
    X = rng.beta(2, 5, (40, 1))
    eps, t = 0.05, 0.02
    ridged = fit(box, X, ridge=eps)
    # means of (1 - eps) data + eps uniform: those of the data times 1 - eps, but for the constant
    mixed = fit(box, X)
    mixed.moments_ = mixed.moments_ * np.where(np.arange(len(mixed.moments_)) == 0, 1.0, 1 - eps)
    assert np.allclose(ridged.coefficients(t), mixed.coefficients(t), rtol=1e-10)
    kernels = RDKSEstimator(box, bandwidth=np.sqrt(t)).fit(X)
    highest = np.exp(kernels.score_samples(rule(box, 500)[0])).max()
    assert 1 < ridged.conditioning(t) <= 1 + highest / eps
    assert ridged.conditioning(t) == pytest.approx(mixed.conditioning(t), rel=1e-10)  # the same matrix


def test_singular_matrix_says_what_to_do():
    with pytest.raises(ValueError, match="singular at the time.*ridge"):
        fit(Torus(2), np.zeros((1, 2)), max_level=14, min_time=1e-4).score_field(np.ones((1, 2)))


def test_density_is_that_of_the_kernels_where_the_basis_resolves_it():
    X = np.array([[0.3], [0.9], [2.5], [5.0]])
    model = fit(Circle(), X, max_level=48, ridge=1e-12, min_time=0.2)
    kernels = RDKSEstimator(Circle(), bandwidth=np.sqrt(0.2)).fit(X)
    nodes, cell = rule(Circle(), 60)
    logs = model.score_samples(nodes)
    assert np.abs(logs - kernels.score_samples(nodes)).max() < 1e-3
    assert np.isclose(np.exp(logs).sum() * cell, 1, atol=1e-4)
    assert np.isclose(model.score(nodes), logs.sum())
    for t in (0.2, 0.7, 5.0):
        assert np.allclose(model.score_field(nodes, t), kernels.score_field(nodes, t - 0.2), atol=2e-3)
    assert np.allclose(model.score_samples(nodes, 0.7), kernels.score_samples(nodes, 0.5), atol=1e-3)


def test_interpolation_in_time():
    rng = np.random.default_rng(3)
    box = Box([(0.0, 1.0)] * 2)
    X = np.clip(0.5 + 0.1 * rng.standard_normal((200, 2)), 0, 1)
    model = fit(box, X, max_level=8, ridge=1e-3, min_time=1e-3)
    for t in (1e-3, 1.7e-3, 0.0059, 0.0061, 0.05, 1.0, 30.0):
        Z = box.embed(np.clip(X[:80] + np.sqrt(t) * rng.standard_normal((80, 2)), 0, 1))
        exact, found = model._at(Z, model.coefficients(t), 2), model._evaluate(Z, t, 2)
        assert found.log_density is None
        # the tolerance is of the mean of t / 2 |error|^2
        error = ((found.gradient - exact.gradient) ** 2).sum(axis=1).mean()
        assert 0.5 * t * error < 1e-6
        assert np.allclose(found.laplacian, exact.laplacian, atol=2e-2 / t)
    assert all(error < 1e-6 for _, _, error in model._curve.panels.values())


@pytest.mark.parametrize("manifold", [Torus(2), Box([(0.0, 2 * np.pi)] * 2), OrnsteinUhlenbeck(2)])
def test_merging_weights_and_order(manifold):
    rng = np.random.default_rng(4)
    X = np.mod(rng.standard_normal((60, 2)) @ [[0.5, 0.2], [0.0, 0.4]] + [1.0, 2.0], 6.0)
    make = OperatorScoreMatching(manifold, max_level=3, min_time=0.02)
    whole = clone_fit(make, X)
    same(clone_fit(make, X[rng.permutation(60)]), whole, X)
    parts = clone_fit(make, X[:20]), clone_fit(make, X[20:])
    before = parts[0].moments_.copy()
    same(parts[0].merge(parts[1]), whole, X)
    assert np.array_equal(parts[0].moments_, before)
    same(clone_fit(make, X[:20]).partial_fit(X[20:]), whole, X)
    same(OperatorScoreMatching(**make.get_params()).partial_fit(X), whole, X)
    weight = rng.integers(0, 3, 60)
    same(clone_fit(make, X, weight), clone_fit(make, np.repeat(X, weight, axis=0)), X)
    with pytest.raises(ValueError, match="merge"):
        whole.merge(clone_fit(OperatorScoreMatching(manifold, max_level=5, min_time=0.02), X))


@pytest.mark.parametrize("manifold", [Circle(), OrnsteinUhlenbeck(1)])
def test_chosen_levels_are_those_of_the_law_of_the_data(manifold):
    """Whatever the order of the rows, and whether they are repeated or have weights."""
    rng = np.random.default_rng(4)
    X = np.where(rng.random((30, 1)) < 0.5, 0.5, -0.8) + 0.1 * rng.standard_normal((30, 1))
    make = OperatorScoreMatching(manifold, ridge="auto", min_time=0.02)
    weight = rng.integers(1, 3, 30)
    weighted = clone_fit(make, X, weight)
    assert weighted.max_level_ > 2
    # rounding of means is multiplied by 3^24 in the matrix of Hermite polynomials
    tol = 1e-8 if manifold == Circle() else 1e-3
    same(weighted, clone_fit(make, rng.permutation(np.repeat(X, weight, axis=0))), X, tol)
    same(weighted, make.fit(X).partial_fit(X[weight == 2]), X, tol)


def same(a, b, X, tol=1e-8):
    """Assert that two fits are one, but for how rows are counted."""
    assert (a.max_level_, a.min_time_, a.ridge_) == (b.max_level_, b.min_time_, b.ridge_)
    assert np.allclose(a.moments_, b.moments_, rtol=1e-13, atol=1e-13 * np.abs(b.moments_).max())
    assert np.allclose(a.score_field(X[:7] + 0.1), b.score_field(X[:7] + 0.1), rtol=tol, atol=tol)


def clone_fit(model, X, weight=None):
    return OperatorScoreMatching(**model.get_params()).fit(X, sample_weight=weight)


def test_cross_validated_risk_by_quadrature():
    """E [|grad f|^2 / 2 + 2 L f] of each part after the noise s, f from the other parts at 0.5 + s, integrated."""
    X = np.random.default_rng(5).vonmises(1.0, 3.0, (30, 1))
    circle, ridge = Circle(), 0.01
    model = fit(circle, X, max_level=6, ridge=ridge, min_time=0.5)
    basis, sums = model._basis, model._sums
    levels, sizes = _cut_levels(basis, len(basis.decay))
    risk = cross_validated_risk(basis, sums, 0.5, (ridge,), sizes)
    part = _part(circle.embed(X))
    assert np.array_equal(sums.weight, np.bincount(part, minlength=5))
    nodes, cell = rule(circle, 60)
    for level in (1, 4):
        total = 0.0
        for j in range(7):  # to t = 32, in factors of 2; the end of the trapezoidal rule in log t counts half
            t = 0.5 * 2.0**j
            for p in range(5):
                where, share = X[part == p], np.full((part == p).sum(), 1 / (part == p).sum())
                if j:
                    held = RDKSEstimator(circle, bandwidth=np.sqrt(t - 0.5)).fit(where)
                    where, share = nodes, cell * np.exp(held.score_samples(nodes))
                other = fit(circle, X[part != p], max_level=level, ridge=ridge, min_time=0.5)
                _, gradient, laplacian = basis.evaluate(circle.embed(where), other.coefficients(t), 2)
                value = share @ (0.5 * gradient[:, 0] ** 2 + laplacian)
                total += value * t * np.log(2) * (0.5 if j == 0 else 1) * np.mean(part == p)
        assert np.isclose(risk[0, np.flatnonzero(levels == level)[0]], total, rtol=1e-3)


def test_risk_is_the_held_out_log_density_up_to_the_bound():
    rng = np.random.default_rng(13)
    X, fresh = rng.vonmises(1.0, 3.0, (100, 1)), rng.vonmises(1.0, 3.0, (1000, 1))
    model = OperatorScoreMatching(Circle(), min_time=0.01).fit(X)
    bound = -np.log(2 * np.pi) - model.risks_.min()
    assert abs(model.score_samples(fresh).mean() - bound) < 0.1


def test_level_is_chosen_by_what_the_data_show():
    rng = np.random.default_rng(6)
    flat_data = rng.uniform(0, 2 * np.pi, (60, 1))
    spiky = np.concatenate([c + 0.05 * rng.standard_normal((20, 1)) for c in (1.0, 1.4, 4.0)])
    low, high = (OperatorScoreMatching(Circle(), min_time=1e-3).fit(X) for X in (flat_data, spiky))
    assert low.max_level_ <= 3 < 12 < high.max_level_
    assert high.risks_.shape == (1, len(high.levels_)) and high.levels_[np.argmin(high.risks_)] == high.max_level_
    ridged = OperatorScoreMatching(Circle(), ridge="auto", max_level=20, min_time=1e-3).fit(spiky)
    assert ridged.ridge_ in (1e-2, 1e-3, 1e-4) and ridged.risks_.shape == (3, 1) and ridged.max_level_ == 20
    # functions are added only as long as they may help
    size, _, levels, _ = _choose(low._basis, low._sums, 1e-3, (1e-3,), True, False)
    assert size < 20 and levels[-1] <= 150


def test_copies_of_a_point_are_in_one_part():
    """Else a level would be chosen that resolves them."""
    rng = np.random.default_rng(7)
    X = rng.uniform(0, 6, (30, 1))
    model = OperatorScoreMatching(Circle(), min_time=3e-3).fit(np.repeat(X, 6, axis=0))
    assert model.max_level_ <= 8


def test_shrinkage_removes_noise():
    rng = np.random.default_rng(8)
    X = rng.uniform(0, 2 * np.pi, (400, 2))
    plain, shrunken = (fit(Torus(2), X, max_level=5, shrinkage=s) for s in (None, "monotone"))
    assert np.isclose(shrunken.moments_[0], 1)
    assert np.linalg.norm(shrunken.moments_[1:]) < 0.2 * np.linalg.norm(plain.moments_[1:])
    # what remains of a level is a multiple of it, that falls with the level
    Y = rng.vonmises(0, 2.0, (400, 2))
    plain, shrunken = (fit(Torus(2), Y, max_level=5, shrinkage=s) for s in (None, "monotone"))
    ratio = shrunken.moments_ / plain.moments_
    levels = plain._basis.moment_level
    assert np.allclose(ratio, [ratio[levels == v].mean() for v in levels], atol=1e-10)
    assert np.all(np.diff(ratio[np.argsort(levels, kind="stable")]) < 1e-10)
    assert ratio[1] > 0.9 and ratio[-1] < 0.3
    with pytest.raises(ValueError, match="shrinkage=None"):
        fit(Torus(2), X[:1], ridge=0.1, shrinkage="monotone")


def test_sums_of_shrunken_noise_by_hand():
    basis = fit(Circle(), np.array([[1.0]]), max_level=1, ridge=0.1)._basis
    sums = _Sums(np.array([[2.0, 1.0, 0.4, 0.2, 0.0], [2.0, 1.4, 0.0, -0.2, 0.2], [0.0] * 5]),
                 np.array([2.0, 2.0, 0.0]))
    mean = np.array([1.0, 0.6, 0.1, 0.0, 0.05])
    assert np.allclose(sums.mean(), mean)
    noise = np.array([0.0, 0.1**2 + 0.1**2, 0.1**2 + 0.05**2])  # mean squares of differences of two parts from the mean
    power = np.array([1.0, 0.37, 0.0025])
    weight = monotone_weights(power, noise, np.array([1, 3, 5]))
    assert np.allclose(_shrunken(basis, sums, mean), mean * weight[[0, 1, 1, 2, 2]])


@pytest.mark.parametrize("method", ["reverse_sde", "probability_flow"])
def test_samples_have_the_means_of_noisy_data(method):
    rng = np.random.default_rng(9)
    X = rng.vonmises(1.0, 3.0, (200, 1))
    model = fit(Circle(), X, max_level=12, ridge=1e-5, min_time=0.1)
    Y = model.sample(1000, random_state=0, method=method)
    assert Y.shape == (1000, 1) and np.array_equal(Y[:0], model.sample(0, method=method))
    for f in (np.cos, np.sin):
        assert abs(f(Y).mean() - np.exp(-0.05) * f(X).mean()) < 5 * 0.7 / np.sqrt(1000)
    with pytest.raises(ValueError, match="method"):
        model.sample(2, method="direct")
    with pytest.raises(ValueError, match="n_steps"):
        model.sample(2, method="probability_flow", n_steps=5)


def test_automatic_smallest_time():
    rng = np.random.default_rng(10)
    X = rng.vonmises(1.0, 3.0, (200, 1))
    kernels = RDKSEstimator(Circle()).fit(X)
    model = OperatorScoreMatching(Circle(), max_level=5).fit(X)
    assert np.isclose(model.hold_time_, 3 * kernels.bandwidth_**2)
    assert np.isclose(model.min_time_, model.hold_time_ / 50)
    late = OperatorScoreMatching(Circle(), max_level=5).fit(X[:10])  # e^{-0.2} of the slowest function is left
    assert np.isclose(late.hold_time_, 0.4) and 3 * RDKSEstimator(Circle()).fit(X[:10]).bandwidth_**2 > 0.4
    given = OperatorScoreMatching(Circle(), max_level=5, min_time=0.02).fit(X)
    assert given.hold_time_ == given.min_time_ == 0.02
    with pytest.raises(ValueError, match="hold_time = 0.01 is below min_time = 0.02"):
        OperatorScoreMatching(Circle(), min_time=0.02, hold_time=0.01).fit(X)
    with pytest.raises(ValueError, match="n_samples=1"):
        OperatorScoreMatching(Circle()).fit(X[:1])


def test_held_score_narrows_a_normal_law():
    """Of the variance v the noise makes v + t, and the flow along the score held there (v + t) exp(-t/(v + t))."""
    rng = np.random.default_rng(14)
    X = rng.standard_normal((400, 1)) * 0.3
    X = (X - X.mean()) / X.std() * 0.3
    process = OrnsteinUhlenbeck(1)
    t, end = 0.05, 1e-6
    model = OperatorScoreMatching(process, max_level=2, ridge=0.0, min_time=end, hold_time=t).fit(X)
    plain = OperatorScoreMatching(process, max_level=2, ridge=0.0, min_time=t).fit(X)
    Y = np.array([[-0.4], [0.0], [0.7]])
    assert np.array_equal(model.score_field(Y, 0.01), plain.score_field(Y)) and np.array_equal(
        model.coefficients(0.02), plain.coefficients())
    noisy = 0.09 * np.exp(-t) + 1 - np.exp(-t)
    # backward dv/dtau = v - v / noisy, from noise to data, for the time t
    narrow = noisy * np.exp((t - end) * (1 - 1 / noisy))
    assert np.allclose(model.score_samples(Y), scipy.stats.norm(0, np.sqrt(narrow)).logpdf(Y[:, 0]), atol=1e-6)
    assert abs(narrow - 0.09) < 0.25 * abs(noisy - 0.09)
    late = OperatorScoreMatching(process, max_level=2, ridge=0.0, hold_time=t).fit(X)
    assert np.isclose(late.min_time_, t / 50)


def test_errors():
    X = np.random.default_rng(11).uniform(0, 1, (20, 2))
    box = Box([(0.0, 1.0)] * 2)
    model = fit(box, X, ridge=0.01, min_time=0.1)
    for call in (model.score_field, model.score_divergence):
        with pytest.raises(ValueError, match="below min_time_ = 0.1"):
            call(X, 0.09)
        assert np.array_equal(call(X), call(X, 0.1))
    with pytest.raises(PointError):
        model.score_field(X + 1)
    with pytest.raises(ValueError, match="features"):
        model.score_field(X[:, :1])
    with pytest.raises(UnsupportedError, match="Use RDKSEstimator"):
        fit(Euclidean(2), X)
    with pytest.raises(ValueError, match="GiB"):
        fit(Box([(0.0, 1.0)] * 10), np.zeros((3, 10)), max_level=30)
    for name, value in (("max_level", 0), ("max_level", "high"), ("ridge", 1.0), ("ridge", -0.1), ("min_time", 0.0),
                        ("shrinkage", "all"), ("interactions", 0), ("check_points", "no"), ("n_jobs", 0)):
        with pytest.raises(ValueError, match=name):
            fit(box, X, **{name: value})
    for other in (fit(box, X, ridge=0.02, min_time=0.1), RDKSEstimator(box, bandwidth=0.1).fit(X),
                  fit(Box([(0.0, 2.0)] * 2), X, ridge=0.01, min_time=0.1)):
        with pytest.raises(ValueError, match="merge"):
            model.merge(other)


def test_polynomials_are_not_followed_to_infinity():
    rng = np.random.default_rng(14)
    process = OrnsteinUhlenbeck(2)
    model = fit(process, np.clip(rng.standard_normal((60, 2)), -1, 1), max_level=5, ridge=1e-3, min_time=0.1)
    assert np.isclose(model.trusted_radius_**2, 24)
    assert fit(process, rng.standard_normal((60, 2)), max_level=2).trusted_radius_ == np.inf
    ray = np.array([[0.6, 0.8]]) * np.array([[2.0], [4.89], [4.91], [20.0]])
    potential = model.score_field(ray) + ray
    assert np.allclose(potential[2], potential[3]) and np.allclose(potential[1], potential[2], rtol=0.05)
    assert np.allclose(potential[0], model._basis.evaluate(ray[:1], model.coefficients(), 1)[1])
    trace, step = 0.0, 1e-5
    for j, unit in enumerate(np.eye(2)):
        trace = trace + (model.score_field(ray + step * unit) - model.score_field(ray - step * unit))[:, j] / (2 * step)
    assert np.allclose(model.score_divergence(ray), trace, rtol=1e-5)
    assert np.isfinite(model.score_samples([[30.0, 0.0]])).all()


def test_other_spaces_and_pickling():
    X = np.random.default_rng(12).standard_normal((50, 3))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    model = OperatorScoreMatching(max_level=3, ridge=0.01, min_time=0.1).fit(X)
    assert isinstance(model.manifold_, Sphere)
    V = model.score_field(X, 0.2)
    assert np.abs((V * X).sum(axis=1)).max() < 1e-10
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.score_field(X, 0.2), V)
    constant = OperatorScoreMatching(max_level=2, ridge=0.01, min_time=0.1).fit(np.c_[X[:, 0], np.ones(50)])
    assert constant.scale_[1] == 1.0 and np.isclose(constant.location_[1], 1.0)


@parametrize_with_checks([OperatorScoreMatching(), OperatorScoreMatching(max_level=2, min_time=0.1)])
def test_scikit_learn_checks(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        check(estimator)


def test_levels_are_found_quickly_where_two_suffice():
    # data of a normal law in the plane: degree 2 is the law, and few functions are looked at to see that
    X = np.random.default_rng(0).normal(size=(150, 2)) @ [[1, 0.6], [0, 0.5]]
    model = OperatorScoreMatching(min_time=0.1).fit(X)
    assert model.max_level_ == 2 and len(model.levels_) < 15


def test_coefficients_in_threads():
    model = OperatorScoreMatching(Circle(), max_level=3, min_time=0.01).fit(np.array([[0.1], [2.0], [2.2]]))
    times = 0.02 + np.random.default_rng(0).random(300)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(model.coefficients, times))
    assert all(np.array_equal(a, clone(model).fit(np.array([[0.1], [2.0], [2.2]])).coefficients(t))
               for a, t in zip(found[:3], times[:3], strict=True))


def test_a_process_cannot_begin_before_noise_has_taken_over():
    model = OperatorScoreMatching(Circle(), max_level=6, min_time=0.05).fit(
        np.random.default_rng(0).vonmises(1, 2, (120, 1)))
    for call in (lambda: log_likelihood(model, [[1.0]], max_time=0.1), lambda: reverse_sde(model, 5, max_time=0.1)):
        with pytest.raises(ValueError, match="has mixed"):
            call()
    # long after it the law is the invariant one
    wide = OperatorScoreMatching(max_level=3, min_time=1e3).fit(np.random.default_rng(0).normal(size=(150, 2)))
    assert wide.sample(2, random_state=0).shape == (2, 2)
    with pytest.raises(ValueError, match="no rows"):
        log_likelihood(model, np.zeros((0, 1)))


def test_few_points():
    with pytest.raises(ValueError, match="in one part"):
        OperatorScoreMatching("sphere", min_time=0.1).fit(np.array([[0, 0, 1.0], [0, 0, -1.0]] * 20))
    with pytest.raises(ValueError, match="min_time='auto' needs at least two distinct points"):
        OperatorScoreMatching("sphere", max_level=2).fit(np.array([[0, 0, 1.0]] * 3))
