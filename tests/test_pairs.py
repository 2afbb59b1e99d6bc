"""The sum over pairs, against the compiled sums, closed forms and direct additions."""
import pickle
from dataclasses import dataclass

import numpy as np
import pytest

from rdks import pairs
from rdks.engines import DirectSum
from rdks.errors import UnsupportedError
from rdks.manifolds import Euclidean, Sphere
from rdks.pairs import PairSum

EPS = np.finfo(float).eps


@dataclass(frozen=True)
class PairSphere(Sphere):
    """A sphere that gives its kernel pair by pair, as a manifold of kind "pairs" does."""

    kernel = "pairs"

    def pair_kernel(self, X, Y, t, order):
        f, = self.factors()
        A, B = X[:, None, :], Y[None, :, :]
        r = f.dist(A, B)
        log_k = f.log_kernel(r, t) - r * r / (2 * t)
        if order == 0:
            return log_k, None, None
        first, ratio = f.slopes(r, t)
        return log_k, f.to_tangent(A, 2 * first[..., None] * (A - B)), ratio if order > 1 else None


@dataclass(frozen=True)
class PairProjective(PairSphere):
    """The sphere with antipodes glued: every point has two images."""

    n_images = 2

    def images(self, Z):
        return np.array([Z, -Z])


@dataclass(frozen=True)
class Relaxing(Euclidean):
    """The Ornstein-Uhlenbeck process: Gaussians around sources that move to the origin."""

    kernel = "pairs"
    has_drift = True

    def flow(self, Z, t):
        return np.exp(-0.5 * t) * Z, -np.expm1(-t)

    def pair_kernel(self, X, Y, t, order):
        D = X[:, None, :] - Y[None, :, :]
        square = np.einsum("qnm,qnm->qn", D, D) / t
        log_k = -0.5 * square - 0.5 * self.dim * np.log(2 * np.pi * t)
        return log_k, -D / t if order else None, (square - self.dim) / t if order > 1 else None


def points(rng, n, dim=2):
    X = rng.standard_normal((n, dim + 1))
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def agree(found, expected, tol):
    """Compare evaluations, each part relative to the largest of its values (logs: absolutely)."""
    np.testing.assert_allclose(found.log_density, expected.log_density, atol=tol * (
        1 + np.abs(expected.log_density).max()), rtol=0)
    for name in ("gradient", "laplacian"):
        a, b = getattr(found, name), getattr(expected, name)
        assert (a is None) == (b is None)
        if b is not None:
            np.testing.assert_allclose(a, b, atol=tol * np.abs(b).max(), rtol=0)


@pytest.mark.parametrize("time", [0.002, 0.05, 3.0, "mixed"])
def test_pair_sum_is_the_compiled_sum(rng, time):
    # Both are exact sums; the compiled one is right to 1e-12 of the density in its far tail, and its
    # Laplacian loses |gradient|^2 / |Laplacian| < 1e3 of that.
    n = 37
    Z, w = points(rng, n), rng.uniform(0.1, 3.0, n)
    if time == "mixed":
        time = rng.choice([0.01, 0.03, 0.2], n)
    Q = np.concatenate([points(rng, 40), Z[:3], -Z[:3]])
    for order in (0, 1, 2):
        agree(PairSum(PairSphere(2), Z, w, time).evaluate(Q, 0.01, order),
              DirectSum(Sphere(2), Z, w, time).evaluate(Q, 0.01, order), 1e-9)
    np.testing.assert_allclose(PairSum(PairSphere(2), Z, w, time).leave_one_out(0.01),
                               DirectSum(Sphere(2), Z, w, time).leave_one_out(0.01), rtol=1e-10, atol=1e-10)


def test_blocks_and_threads_change_nothing(rng, monkeypatch):
    Z, w = points(rng, 50), rng.uniform(0.1, 3.0, 50)
    total = PairSum(PairSphere(2), Z, w, rng.choice([0.01, 0.3], 50))
    Q = points(rng, 31)
    whole, own = total.evaluate(Q, 0.1, 2), total.leave_one_out()
    for block, sources in ((1, 7), (60, 7), (300, 1000)):
        monkeypatch.setattr(pairs, "_BLOCK", block)
        monkeypatch.setattr(pairs, "_SOURCES", sources)
        # a sum of 50 positive terms in another order
        agree(total.evaluate(Q, 0.1, 2), whole, 100 * EPS)
        np.testing.assert_allclose(total.leave_one_out(), own, atol=100 * EPS * np.abs(own).max(), rtol=0)
        serial = total.evaluate(Q, 0.1, 2)
        monkeypatch.setattr(pairs, "_SERIAL", 0)
        for a, b in zip(total.evaluate(Q, 0.1, 2, n_jobs=2), serial, strict=True):
            assert (a == b).all()


def test_far_from_all_sources(rng):
    # Two Gaussians of variance s at +-a e1: log p = -(|x|^2 + a^2)/2s + log cosh(a x1/s) - log(2 pi s), hence the
    # gradient and the Laplacian -d/s + (a/s)^2 sech^2(a x1/s). Logs are numbers of size 5e7 here, rounded: the
    # shares are wrong by delta, which the gradient takes 2a/s times, and the Laplacian (2a/s)^2 times, besides
    # the rounding of |gradient|^2 in a single pair.
    total = PairSum(Relaxing(2), np.array([[1.0, 0.0], [-1.0, 0.0]]), np.ones(2), 5e-5)
    t = -np.log1p(-1e-4) - 5e-5
    s, a = 1e-4, np.sqrt(1 - 1e-4)
    Q = np.array([[0.0, 100.0], [1e-5, 100.0], [1e-4, -30.0], [50.0, 0.0]])
    found = total.evaluate(Q, t, 2)
    square = (Q**2).sum(axis=1) + a**2
    delta = 8 * EPS * square / (2 * s)
    steep = a * Q[:, 0] / s
    slope = np.column_stack([-Q[:, 0] + a * np.tanh(steep), -Q[:, 1]]) / s
    assert (np.abs(found.gradient - slope).max(axis=1) <= 2 * a / s * delta).all()
    bend = (a / s) ** 2 / np.cosh(np.minimum(np.abs(steep), 300)) ** 2
    rounding = (2 * a / s) ** 2 * delta * (bend > 0) + 4 * EPS * square / s**2
    assert (np.abs(found.laplacian + 2 / s - bend) <= rounding).all()
    log_cosh = np.logaddexp(steep, -steep) - np.log(2)
    assert (np.abs(found.log_density + square / (2 * s) - log_cosh + np.log(2 * np.pi * s)) <= delta).all()
    assert found.log_density.min() < -4e7


def test_leave_one_out_leaves_the_own_term_out(rng):
    # an isolated source: what is left is exp(-1700) of what is left out
    Z, w = points(rng, 6), rng.uniform(1.0, 2.0, 6)
    Z[1:] = Z[1] + 0.01 * (Z[1:] - Z[1])
    Z /= np.linalg.norm(Z, axis=1, keepdims=True)
    Z[0] = -Z[1]
    total = PairSum(PairSphere(2), Z, w, 2e-3)
    share = w / w.sum()
    for i in range(6):
        others = np.delete(np.arange(6), i)
        rest = PairSum(PairSphere(2), Z[others], w[others], 3e-3).evaluate(Z[[i]]).log_density
        np.testing.assert_allclose(total.leave_one_out(1e-3)[i], rest[0] + np.log1p(-share[i]), rtol=1e-13)
    assert total.leave_one_out()[0] < -1500
    rows = np.array([4, 0, 4])
    assert (total.leave_one_out(1e-3, rows) == total.leave_one_out(1e-3)[rows]).all()
    alone = PairSum(PairSphere(2), Z[:1], w[:1], 0.1)
    assert (alone.leave_one_out() == -np.inf).all()


def test_state(rng):
    Z, w, time = points(rng, 9), rng.uniform(0.1, 1.0, 9), rng.choice([0.1, 0.2], 9)
    w[4] = 0.0
    total = PairSum(PairSphere(2), Z, w, time)
    Q = points(rng, 5)
    np.testing.assert_allclose(total.share.sum(), 1.0, rtol=4 * EPS)
    assert total.share[4] == 0 and total.share[0] / total.share[1] == pytest.approx(w[0] / w[1], rel=4 * EPS)
    halves = PairSum(PairSphere(2), Z[:5], w[:5], time[:5]).merge(PairSum(PairSphere(2), Z[5:], w[5:], time[5:]))
    for other in (halves, PairSum(PairSphere(2), Z, 1e300 * w, time), total.at(0.5).at(time)):
        agree(other.evaluate(Q, 0.1, 2), total.evaluate(Q, 0.1, 2), 20 * EPS)
    agree(total.at(0.5).evaluate(Q, 0.1, 2), PairSum(PairSphere(2), Z, w, 0.6).evaluate(Q, 0.0, 2), 20 * EPS)
    own = [PairSphere(2).log_heat_kernel(Z[[i]], Z[[i]], time[i] + 0.3)[0] for i in range(9)]
    np.testing.assert_allclose(total.log_self(0.3), own, rtol=4 * EPS)
    assert sorted(total.compact_order()) == [0, 1, 2, 3, 5, 6, 7, 8]
    with pytest.raises(UnsupportedError, match="'factors'"):
        PairSum(Sphere(2), Z, w, time)
    many = PairSum(PairSphere(2), points(rng, 1000), np.ones(1000), 0.1)
    order = many.compact_order()
    assert sorted(order) == list(range(1000))
    step = np.linalg.norm(np.diff(many.Z[order], axis=0), axis=1).mean()
    assert step < 0.75 * np.linalg.norm(np.diff(many.Z, axis=0), axis=1).mean()


@dataclass(frozen=True)
class Counted(Relaxing):
    """Gives its kernel in two steps, and counts the first."""

    has_drift = False

    def flow(self, Z, t):
        return Z, t

    def pair_invariants(self, X, Y):
        CALLS.append(len(X) * len(Y))
        D = X[:, None, :] - Y[None, :, :]
        return np.einsum("qnm,qnm->qn", D, D)[..., None]

    def log_kernel_of_invariants(self, h, t):
        return -0.5 * h[..., 0] / t - 0.5 * self.dim * np.log(2 * np.pi * t)


CALLS = []


def test_invariants_are_kept_between_times(rng, monkeypatch):
    Z, w = rng.standard_normal((30, 2)), rng.uniform(0.5, 1.0, 30)
    monkeypatch.setattr(pairs, "_SOURCES", 7)
    monkeypatch.setattr(pairs, "_BLOCK", 100)
    total, plain = PairSum(Counted(2), Z, w, 0.1), DirectSum(Euclidean(2), Z, w, 0.1)
    for keep in (10**6, 200, 0):
        monkeypatch.setattr(pairs, "_KEEP", keep)
        total._kept = (None, {})
        for n_jobs in (1, 2):
            total.n_jobs = n_jobs
            for rows in (None, np.arange(20), np.arange(10, 30)):
                CALLS.clear()
                for t in (0.0, 0.3, 0.1):
                    np.testing.assert_allclose(total.leave_one_out(t, rows), plain.leave_one_out(t, rows), rtol=1e-12)
                count = 30 * (30 if rows is None else 20)
                kept = sum(block.size for block in total._kept[1].values())
                assert kept <= keep and sum(CALLS) == 3 * count - 2 * kept
                assert keep < 10**6 or kept == count
    assert pickle.loads(pickle.dumps(total))._kept == (None, {})


def test_every_image_of_a_source_counts(rng):
    Z, Q, w = points(rng, 5), points(rng, 8), rng.uniform(0.5, 1.0, 5)
    glued = PairSum(PairProjective(2), Z, w, 0.2)
    both = PairSum(PairSphere(2), np.concatenate([Z, -Z]), np.tile(w, 2), 0.2)
    found, expected = glued.evaluate(Q, 0.1, 2), both.evaluate(Q, 0.1, 2)
    agree(found._replace(log_density=found.log_density - np.log(2)), expected, 20 * EPS)
    # the images of the own source are left out with it
    alone = PairSum(PairProjective(2), Z[:1], w[:1], 0.2)
    assert (alone.leave_one_out() == -np.inf).all()


def test_sources_flow(rng):
    # Ornstein-Uhlenbeck: the law at time tau + t of a source is N(exp(-(tau + t)/2) X, 1 - exp(-tau - t))
    Z, Q, tau = rng.standard_normal((4, 2)), rng.standard_normal((6, 2)), np.array([0.1, 0.1, 0.7, 0.4])
    total = PairSum(Relaxing(2), Z, np.ones(4), tau)
    mean, s = np.exp(-0.5 * (tau + 0.3))[:, None] * Z, 1 - np.exp(-tau - 0.3)
    square = ((Q[:, None] - mean) ** 2).sum(axis=-1)
    expected = np.log((np.exp(-square / (2 * s)) / (2 * np.pi * s)).mean(axis=1))
    np.testing.assert_allclose(total.evaluate(Q, 0.3).log_density, expected, rtol=1e-13, atol=1e-13)
