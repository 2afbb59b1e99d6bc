"""Eigenfunctions by matrix products: against special functions, addition theorems and exact sums."""
import numpy as np
import pytest
from mpmath import gegenbauer, mp
from scipy.special import eval_gegenbauer, sph_harm_y

from rdks import RDKSEstimator, harmonics
from rdks.engines import DirectSum
from rdks.errors import UnsupportedError
from rdks.harmonics import DenseHarmonics, cost_of, degrees, dense, harmonics_for, moments_of, unsupported
from rdks.harmonics.base import degree_for, levels
from rdks.harmonics.dense import cutoff_for, reflections, sizes
from rdks.manifolds import (
    SO3,
    SU2,
    Box,
    Circle,
    Euclidean,
    Hyperbolic,
    OrnsteinUhlenbeck,
    Product,
    ProjectiveSpace,
    Quotient,
    Sphere,
    Torus,
)
from rdks.spectral import SpectralSum

SWAP = np.roll(np.eye(6), 3, axis=0)
TURNED = np.diag([1.0, 1.0, 1.0, -1.0])
SPACES = [Product(Sphere(2), Circle(24.0), times=(1.0, 10.0)), Product(Sphere(2), Sphere(2, radius=1.5)), Sphere(4),
          Sphere(7, radius=2.0), Torus(4, period=(1.0, 2.0, 1.5, 2.0)), Product(Circle(), SU2()),
          Product(Sphere(2), Torus(2)), Product(Sphere(4), Sphere(1, radius=2.0))]
QUOTIENTS = [Product(SO3(symmetry="222"), Circle()), Product(Sphere(2), Box([(0.0, 3.0), (-1.0, 2.0)])),
             ProjectiveSpace(4), Product(ProjectiveSpace(2), Circle()), Box([(0.0, 1.0)] * 4),
             Quotient(Product(Sphere(2), Sphere(2)), [np.eye(6), SWAP]),
             Quotient(Product(Sphere(2), Circle()), [np.eye(4), TURNED], shifts=[[0.0] * 4, [0.0, 0.0, 0.0, 2.0]])]


def unit(manifold):
    return min(manifold.scales)


def small(manifold):
    """Harmonics with a few functions of each factor."""
    return DenseHarmonics(manifold.factors(), 14.0 / unit(manifold) ** 2)


def layouts(manifold, rng, n=60):
    """Yield a name, sources and queries."""
    Z, Q = manifold.random(n, rng), manifold.random(30, rng)
    one = Z[:1]
    yield "even", Z, np.concatenate([Z[:5], Q])
    yield "one point", np.repeat(one, 20, axis=0), np.concatenate([one, Q])
    axis = manifold.frame(one)[:, 0] * np.linspace(0, 2 * np.pi * unit(manifold), n)[:, None]
    line = manifold.project(manifold.exp(np.repeat(one, n, axis=0), axis))
    yield "a meridian", line, np.concatenate([line[:10], Q])
    pole = np.zeros_like(Z)
    for f, piece in manifold.pieces():  # both poles, and so close to them that angles have no digits
        if f.width > f.dim:
            pole[:, piece.stop - 1] = np.where(np.arange(n) % 2, 1, -1) * f.scale
            pole[2:, piece] += 1e-9 * f.scale * rng.standard_normal((n - 2, f.width))
    pole = manifold.project(pole)
    yield "poles", pole, np.concatenate([pole[:10], Q])


def test_the_two_sphere_is_that_of_scipy():
    """Each function, up to its sign: real parts of Y_lm times sqrt(2), and imaginary ones."""
    basis, rng = DenseHarmonics(Sphere(2, radius=3.0).factors(), 72 / 9), np.random.default_rng(0)
    Z = np.concatenate([Sphere(2, radius=3.0).random(40, rng), [[0, 0, 3.0], [0, 0, -3.0]]])
    x, y, z = Z.T / 3
    theta, phi = np.arctan2(np.hypot(x, y), z), np.arctan2(y, x)
    found = np.array([basis.analyse(p[None], np.ones(1), 0)[0] for p in Z]).T
    k = 0
    for level in range(9):
        for m in range(level + 1):
            Y = sph_harm_y(level, m, theta, phi) / 3 * (np.sqrt(2) * (-1) ** m if m else 1.0)
            for want in (Y.real, Y.imag)[:2 if m else 1]:
                np.testing.assert_allclose(found[k], want, rtol=0, atol=1e-14 * np.sqrt(2 * level + 1))
                k += 1
    assert k == basis.shape[1] == 81


@pytest.mark.parametrize("manifold", [Sphere(3, radius=2.0), Sphere(4), Sphere(10), SU2()], ids=repr)
def test_addition_theorem(manifold):
    """The sum over a level of Y(x) Y(y) is N_l / V C_l^a(x.y) / C_l^a(1), a = (d - 1) / 2: no basis enters."""
    f, rng = manifold.factors()[0], np.random.default_rng(1)
    L, a = 5, 0.5 * (f.dim - 1)
    basis = DenseHarmonics((f,), levels(f, L)[0][-1])
    Z = manifold.random(12, rng)
    Z[0], Z[1] = -Z[2], Z[3]
    Z[4], Z[5] = 0.0, 0.0
    Z[4, -1], Z[5, -1] = f.scale, -f.scale
    phi = np.array([basis.analyse(p[None], np.ones(1), 0)[0] for p in Z])
    level = np.repeat(np.arange(L + 1), basis.multiplicity.astype(int))
    np.testing.assert_array_equal(basis.multiplicity, levels(f, L)[1])
    np.testing.assert_array_equal(basis.eigenvalue, levels(f, L)[0])
    u = np.clip(Z @ Z.T / f.scale**2, -1, 1)
    for n in range(L + 1):
        want = basis.multiplicity[n] / f.volume * eval_gegenbauer(n, a, u) / eval_gegenbauer(n, a, 1.0)
        np.testing.assert_allclose(phi[:, level == n] @ phi[:, level == n].T, want, rtol=0, atol=1e-13 * want.max())


def test_a_few_values_in_high_precision():
    """A function of high order near a pole of the sphere of dimension four, and a high level far from it."""
    L = 40
    basis = dense._Sphere(Sphere(4).factors()[0], L * (L + 3), slice(0, 5))
    Z = Sphere(4).project(np.array([[1e-3, 2e-4, -3e-4, 7e-4, 1.0], [0.3, 0.1, -0.5, 0.2, -0.7]]))
    values = basis.values(Z)
    with mp.workdps(40):
        for point, value in zip(Z, values.T, strict=True):
            x = [mp.mpf(c) for c in point]
            for level, order in ((40, 0), (40, 7), (3, 3), (25, 2)):
                # zonal on S^3 below: order m there, then order 0 on S^2 and on the circle
                total, above = mp.sqrt(1 / (2 * mp.pi)), [(2, 0, 0), (3, order, 0), (4, level, order)]
                for d, n, m in above:
                    a = m + mp.mpf(d - 1) / 2
                    size = mp.sqrt(sum(c * c for c in x[:d + 1]))
                    h = mp.pi * 2 ** (1 - 2 * a) * mp.gamma(n - m + 2 * a) / (
                        mp.factorial(n - m) * (n - m + a) * mp.gamma(a) ** 2)
                    total *= size ** (n - m) * gegenbauer(n - m, a, x[d] / size) / mp.sqrt(h)
                at = basis.first[3][level] + basis.first[2][order]
                assert abs(value[at] - float(total)) < 1e-13 * max(abs(float(total)), 1e-3)


@pytest.mark.parametrize("manifold", SPACES, ids=repr)
def test_functions_are_orthonormal_and_complete(manifold, monkeypatch):
    """The product of the addition theorems of the factors, and the number of functions of all levels."""
    monkeypatch.setattr(dense, "_ROWS", (7, 7))  # blocks of points of different lengths
    basis, rng = small(manifold), np.random.default_rng(2)
    Z, w = manifold.random(40, rng), rng.uniform(0.5, 2.0, 40)
    per_level, found = {(): (0.0, 1.0)}, {}
    for f in manifold.factors():
        eigenvalue, many = levels(f, 60)
        per_level = {(*k, n): (lam + mu, c * m) for k, (lam, c) in per_level.items()
                     for n, (mu, m) in enumerate(zip(eigenvalue, many, strict=True)) if lam + mu <= basis.degree}
    for lam, many in per_level.values():
        found[round(lam, 9)] = found.get(round(lam, 9), 0) + many
    ours = {}
    for lam, many in zip(basis.eigenvalue, basis.multiplicity, strict=True):
        ours[round(lam, 9)] = ours.get(round(lam, 9), 0) + many
    assert ours == found
    assert (basis.multiplicity.sum() < np.prod(basis.shape)) == (len(manifold.factors()) > 1)
    one = basis.power(basis.analyse(Z[:1], np.ones(1), 0))
    np.testing.assert_allclose(one, basis.multiplicity / np.exp(sum(f.log_volume for f in manifold.factors())),
                               rtol=1e-12)
    # sums over points: coefficients are linear, values of the same functions
    C = basis.analyse(Z, w, 0)
    values = basis.synthesise(np.array([basis.analyse(p[None], np.ones(1), 0) for p in Z]), Z, 0)
    total = basis.synthesise(C[None], Z, 0)[0]
    np.testing.assert_allclose(total, w @ values, rtol=0, atol=1e-12 * np.abs(values).max())
    np.testing.assert_allclose(values, values.T, rtol=0, atol=1e-13 * values.max())
    np.testing.assert_allclose(basis.analyse(Z, w, 0, n_threads=3), C, rtol=0, atol=1e-13 * np.abs(C).max())
    np.testing.assert_array_equal(basis.synthesise(C[None], Z, 0, n_threads=3), basis.synthesise(C[None], Z, 0))
    assert np.sum(C**2) == pytest.approx(basis.power(C).sum(), rel=1e-13)
    marked = basis.spread(np.arange(1.0, len(basis.eigenvalue) + 1))
    np.testing.assert_array_equal(np.bincount(marked.ravel().astype(int))[1:], basis.multiplicity)


@pytest.mark.parametrize("manifold", SPACES, ids=repr)
def test_gradient_and_laplacian(manifold):
    rng = np.random.default_rng(3)
    basis = small(manifold)
    C = basis.analyse(manifold.random(5, rng), np.ones(5), 0)
    poles = next(Z for name, Z, _ in layouts(manifold, rng) if name == "poles")
    Z = np.concatenate([manifold.random(10, rng), poles[:6]])
    gradient = basis.gradient(Z, basis.synthesise(basis.fields(C), Z, 0))
    np.testing.assert_allclose(gradient, manifold.to_tangent(Z, gradient), atol=1e-12 * np.abs(gradient).max())
    frame, step, second = manifold.frame(Z), 1e-3 * unit(manifold), 0.0
    # differences of order four, in every direction
    for j in range(manifold.dim):
        at = [basis.synthesise(C[None], manifold.exp(Z, s * step * frame[:, j]), 0)[0] for s in (-2, -1, 0, 1, 2)]
        slope = (at[0] - 8 * at[1] + 8 * at[3] - at[4]) / (12 * step)
        np.testing.assert_allclose(np.einsum("ij,ij->i", gradient, frame[:, j]), slope, rtol=0,
                                   atol=1e-8 * np.abs(gradient).max())
        second = second + np.array([-1, 16, -30, 16, -1]) @ at / (12 * step**2)
    laplacian = basis.synthesise((C * basis.spread(-basis.eigenvalue))[None], Z, 0)[0]
    np.testing.assert_allclose(laplacian, second, rtol=0, atol=1e-6 * np.abs(second).max())


@pytest.mark.parametrize("manifold", SPACES, ids=repr)
def test_a_lower_degree_is_a_part(manifold):
    rng = np.random.default_rng(4)
    basis, Z = small(manifold), manifold.random(9, rng)
    C = basis.analyse(Z, np.ones(9), 0)
    lower, part = basis.restrict(0.4 * basis.degree, C)
    np.testing.assert_allclose(part, lower.analyse(Z, np.ones(9), 0), rtol=0, atol=1e-13 * np.abs(C).max())
    assert lower.eigenvalue.max() <= 0.4 * basis.degree and np.prod(lower.shape) < np.prod(basis.shape)
    # values are those of the functions that are left
    want = basis.synthesise((C * basis.spread(basis.eigenvalue <= 0.4 * basis.degree))[None], Z, 0)
    np.testing.assert_allclose(lower.synthesise(part[None], Z, 0), want, rtol=0, atol=1e-12 * np.abs(want).max())
    assert basis == small(manifold) and basis != lower and basis != "basis"


@pytest.mark.parametrize("manifold", QUOTIENTS, ids=repr)
def test_images_are_summed(manifold):
    rng = np.random.default_rng(5)
    basis, Z, w = small(manifold), manifold.random(20, rng), rng.uniform(0.5, 2.0, 20)
    images = manifold.images(Z)
    want = basis.analyse(images.reshape(-1, Z.shape[1]), np.tile(w, len(images)), 0)
    found = moments_of(manifold, basis, Z, w, 0)
    np.testing.assert_allclose(found, want, rtol=0, atol=1e-13 * manifold.n_images * np.abs(want).max())


def test_reflections_of_factors_spare_images():
    for manifold, mirrors, others in ((QUOTIENTS[0], [(0, 0.0)], 4), (QUOTIENTS[1], [(1, 0.0), (2, 0.0)], 1),
                                      (QUOTIENTS[2], [(0, 0.0)], 1), (QUOTIENTS[5], [], 2),
                                      (QUOTIENTS[6], [(1, 2.0)], 1), (Sphere(4), [], 1)):
        found, rest = reflections(manifold)
        assert found == mirrors and len(rest) == others and rest[0] == 0
    # what is zero by symmetry is zero to the last bit, so that no work is done for it
    C = moments_of(QUOTIENTS[2], small(QUOTIENTS[2]), QUOTIENTS[2].random(9, np.random.default_rng(0)), np.ones(9), 0)
    level = np.repeat(np.arange(3), [1, 5, 14])
    assert not C[0, :20][level == 1].any() and C[0, :20][level == 2].all()
    with pytest.raises(ValueError, match="factor = 3 of 1"):
        small(Sphere(4)).mirrored(small(Sphere(4)).analyse(np.eye(5), np.ones(5), 0), 3, 0.0)


@pytest.mark.parametrize("manifold", SPACES[:4] + SPACES[5:6] + QUOTIENTS, ids=repr)
def test_the_error_bar_is_honest(manifold):
    """Density, gradient and Laplacian against exact sums, below the error that is declared, wherever points lie."""
    rng, worst = np.random.default_rng(6), 0.0
    for t in unit(manifold) ** 2 * np.array([1.0, 5.0]):
        for name, Z, Q in layouts(manifold, rng):
            w = rng.uniform(0.5, 2.0, len(Z))
            exact = DirectSum(manifold, Z, w, t).evaluate(Q, 0.0, 2)
            p, gradient, laplacian, error = SpectralSum(manifold, Z, w, t).expansion(Q, 0.0, 2)
            want = np.exp(exact.log_density)
            bend = want * (exact.laplacian + (exact.gradient**2).sum(axis=1))
            off = (np.abs(p - want).max() / error,
                   np.abs(gradient - want[:, None] * exact.gradient).max() / error * np.sqrt(t),
                   np.abs(laplacian - bend).max() / error * t)
            assert max(off) <= 1, (name, t, off)
            worst = max(worst, *off)
    assert worst > 1e-6


def test_the_cutoff_leaves_out_what_it_may():
    """Against the sum over all levels, one by one."""
    for manifold in (SPACES[0], SPACES[1], Torus(4), Product(Sphere(5), Circle(12.0))):
        factors = manifold.factors()
        for t in unit(manifold) ** 2 * np.array([0.5, 2.0]):
            for eps in (1e-6, 1e-12):
                cutoff = cutoff_for(factors, t, eps)
                lam, weight = np.zeros(1), np.ones(1)
                for f in factors:
                    eigenvalue, many = levels(f, 1 + degree_for(f, t, 1e-3 * eps))
                    lam = (lam[:, None] + eigenvalue).ravel()
                    weight = (weight[:, None] * many * np.exp(-0.5 * t * eigenvalue)).ravel()
                beyond = lam > cutoff
                lost = (weight * np.maximum(1.0, lam * t))[beyond].sum() / weight.sum()
                assert 0.05 * eps < lost <= eps, (manifold, t, eps)
                left, right, pairs = sizes(factors, cutoff)
                basis = DenseHarmonics(factors, cutoff)
                assert left <= right
                np.testing.assert_allclose((left, right, pairs), (*basis.shape, basis.multiplicity.sum()), rtol=0.05)
    degree = degree_for(Sphere(5).factors()[0], 0.5, 1e-9)
    assert cutoff_for(Sphere(5).factors(), 0.5, 1e-9) == degree * (degree + 4)


def test_who_is_served():
    for manifold in (*SPACES, *QUOTIENTS, Torus(6)):
        assert unsupported(manifold) == ""
        t = 5 * unit(manifold) ** 2
        assert isinstance(harmonics_for(manifold, t, 1e-9), DenseHarmonics)
        few, many = (cost_of(manifold, t, 1e-9, n, n, 1) for n in (1000, 100_000))
        assert 0 < few < many < cost_of(manifold, t, 1e-9, 100_000, 100_000, 2 + manifold.dim) < np.inf
    # images that are no reflections of one factor are work, the others are not
    alone, half, turned = (cost_of(m, 2.0, 1e-9, 10**6, 0, 1) for m in (
        Product(Sphere(3, radius=2.0), Circle()), Product(SO3(), Circle()), QUOTIENTS[0]))
    assert half == pytest.approx(alone) and turned == pytest.approx(4 * alone, rel=0.01)
    for manifold, why in ((Product(Sphere(2), Euclidean(1)), "not compact"), (Product(Hyperbolic(2), Circle()),
                          "not compact"), (OrnsteinUhlenbeck(4), "drift")):
        assert why in unsupported(manifold)
    # however narrow the kernel, nobody lists the functions that it would need
    for manifold in (SPACES[0], Sphere(10), Torus(4), Torus(12), Product(Sphere(2), Circle(1e9))):
        for t in (1e-3, 1e-9, 1e-15):
            assert harmonics_for(manifold, t, 1e-12) is None and cost_of(manifold, t, 1e-12, 10, 10, 1) == np.inf
    with pytest.raises(UnsupportedError, match="more eigenfunctions"):
        SpectralSum(Sphere(4), np.eye(5), np.ones(5), 1e-3).moments()
    assert degrees(SPACES[0], 1.0, 1e-9) == cutoff_for(SPACES[0].factors(), 1.0, 1e-9)


@pytest.mark.parametrize("manifold", [SPACES[0], Sphere(4), Torus(4), QUOTIENTS[0]], ids=repr)
def test_parts_add_up(manifold, monkeypatch):
    monkeypatch.setattr(harmonics, "CHUNK", 300)
    rng = np.random.default_rng(7)
    X, w = manifold.unembed(manifold.random(700, rng)), rng.uniform(0.0, 2.0, 700)
    h = 1.2 * unit(manifold)
    make = lambda: RDKSEstimator(manifold, bandwidth=h, engine="spectral")  # noqa: E731
    whole, stream, parts = make().fit(X, sample_weight=w), make(), []
    for piece in np.array_split(np.arange(700), 5):
        stream.partial_fit(X[piece], sample_weight=w[piece])
        parts.append(make().fit(X[piece], sample_weight=w[piece]))
    left = parts[0].merge(parts[1]).merge(parts[2].merge(parts[3].merge(parts[4])))
    want = whole._raw.moments(h * h)
    for est in (stream, left):
        found = est._raw.moments(h * h)
        np.testing.assert_allclose(found.coef, want.coef, rtol=0, atol=1e-13 * np.abs(want.coef).max())
    np.testing.assert_allclose(stream.score_samples(X), whole.score_samples(X), rtol=0, atol=1e-12)
    # later times from the same coefficients, of which fewer matter
    np.testing.assert_allclose(left.score_samples(X[:99], t=h * h), RDKSEstimator(
        manifold, bandwidth=h, engine="direct").fit(X, sample_weight=w).score_samples(X[:99], t=h * h), atol=1e-6)


def test_sources_of_different_times_and_overlap():
    rng, manifold = np.random.default_rng(8), SPACES[0]
    Z, Q, w = manifold.random(90, rng), manifold.random(40, rng), rng.uniform(0.0, 2.0, 90)
    time = rng.choice([0.5, 0.7, 1.5], 90)
    exact = DirectSum(manifold, Z, w, time).evaluate(Q, 0.05, 2)
    for a, b in zip(exact, SpectralSum(manifold, Z, w, time).evaluate(Q, 0.05, 2), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)
    one = SpectralSum(manifold, Z, w, 0.5)
    want = one.share @ np.exp(manifold.log_heat_kernel(np.repeat(Z, 90, axis=0), np.tile(Z, (90, 1)), 0.5)
                              ).reshape(90, 90) @ one.share
    assert one.log_overlap(0.0) == pytest.approx(np.log(want), abs=1e-9)
