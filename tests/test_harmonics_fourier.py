"""Fourier modes on tori: against their definition, and sums over images."""
import numpy as np
import pytest

from rdks.harmonics import Fourier, degree_for, harmonics_for, moments_of, unsupported
from rdks.harmonics.base import levels
from rdks.manifolds import Box, Circle, Euclidean, Product, Quotient, SpaceForm, Sphere, Torus

SPACES = [Circle(period=24.0), Torus(2), Torus(2, period=(1.0, 360.0)), Torus(3, period=(2.0, 5.0, 1.0)), Sphere(1),
          Product(Circle(), Sphere(1, radius=3.0))]

TURN = np.array([[0.0, -1.0], [1.0, 0.0]])
SCREW = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])


def modes(manifold, harmonics, Z):
    """Eigenfunctions at points by their definition; (n, *shape)."""
    out, column = np.ones((len(Z), 1), dtype=complex), 0
    for f, k in zip(manifold.factors(), harmonics.degree, strict=True):
        x = Z[:, column]
        angle = np.arctan2(Z[:, column + 1], x) if f.width == 2 else 2 * np.pi * x / f.period
        column += f.width
        here = np.exp(1j * np.arange(-k, k + 1) * angle[:, None]) / np.sqrt(f.volume)
        out = (out[:, :, None] * here[:, None, :]).reshape(len(Z), -1)
    return out.reshape(len(Z), *harmonics.shape)


@pytest.mark.parametrize("manifold", SPACES, ids=repr)
def test_coefficients_and_values_are_sums_of_modes(manifold, monkeypatch):
    monkeypatch.setattr("rdks.harmonics.fourier.CHUNK", 17)  # pieces of points of different lengths
    rng = np.random.default_rng(0)
    harmonics = Fourier(manifold.factors(), (5, 3, 2)[:len(manifold.factors())])
    Z, w = manifold.random(40, rng) + (manifold.factors()[0].period or 0.0) * 3, rng.uniform(0.5, 2, 40)
    Z = manifold.project(Z) if manifold.factors()[0].width == 2 else Z
    phi = modes(manifold, harmonics, Z)
    want = np.tensordot(w, phi.conj(), 1)
    C = harmonics.analyse(Z, w, 1e-13)
    np.testing.assert_allclose(C, want, atol=1e-11 * w.sum() * np.abs(phi).max())
    # a real function has C_{-k} = conj C_k; three of them share two transforms
    coefs = np.array([C, 2 * C, C * harmonics.spread(np.exp(-0.1 * harmonics.eigenvalue))])
    values = harmonics.synthesise(coefs, Z, 1e-13)
    want = coefs.reshape(3, -1) @ phi.reshape(40, -1).T
    assert np.abs(want.imag).max() < 1e-12 * np.abs(want).max()
    np.testing.assert_allclose(values, want.real, rtol=0, atol=1e-11 * np.abs(want).max())


@pytest.mark.parametrize("manifold", SPACES, ids=repr)
def test_gradient_and_laplacian(manifold):
    rng = np.random.default_rng(1)
    harmonics = Fourier(manifold.factors(), (4, 3, 2)[:len(manifold.factors())])
    C = harmonics.analyse(manifold.random(5, rng), np.ones(5), 1e-13)
    Z = manifold.random(20, rng)
    gradient = harmonics.gradient(Z, harmonics.synthesise(harmonics.fields(C), Z, 1e-13))
    V = manifold.to_tangent(Z, rng.standard_normal(Z.shape))
    step = 1e-4 * min(manifold.scales)

    def along(s):
        return harmonics.synthesise(C[None], manifold.exp(Z, s * step * V), 1e-13)[0]

    slope = (along(-2) - 8 * along(-1) + 8 * along(1) - along(2)) / (12 * step)
    np.testing.assert_allclose(np.einsum("ij,ij->i", gradient, V), slope, atol=1e-8 * np.abs(slope).max())
    laplacian = harmonics.synthesise((C * harmonics.spread(-harmonics.eigenvalue))[None], Z, 1e-13)[0]
    frame, second = manifold.frame(Z), 0.0
    for j in range(manifold.dim):
        steps = [harmonics.synthesise(C[None], manifold.exp(Z, s * 30 * step * frame[:, j]), 1e-13)[0]
                 for s in (-2, -1, 0, 1, 2)]
        second = second + np.array([-1, 16, -30, 16, -1]) @ steps / (12 * (30 * step) ** 2)
    np.testing.assert_allclose(laplacian, second, atol=1e-5 * np.abs(second).max())


@pytest.mark.parametrize("manifold", SPACES, ids=repr)
def test_power_of_one_point_is_the_volume(manifold):
    harmonics = Fourier(manifold.factors(), (4, 3, 2)[:len(manifold.factors())])
    power = harmonics.power(harmonics.analyse(manifold.random(1, np.random.default_rng(2)), np.ones(1), 1e-13))
    np.testing.assert_allclose(power, harmonics.multiplicity / np.exp(manifold.log_volume), rtol=1e-10)


@pytest.mark.parametrize("manifold", [
    Box([(0.0, 1.0)]), Box([(-1.0, 1.0), (0.0, 3.0)]), Box([(0.0, 1.0)] * 3), Product(Circle(), Box([(0.0, 2.0)])),
    Quotient(Torus(2, period=1.0), [np.eye(2), np.array([[0.0, 1.0], [1.0, 0.0]])]),
    Quotient(Circle(period=360.0), [[[1.0]]] * 3, shifts=[[0.0], [120.0], [240.0]]),
    Quotient(Torus(2, period=1.0), [np.linalg.matrix_power(TURN, k) for k in range(4)],
             shifts=[[0.0, 0.0], [0.3, 0.1], [0.2, 0.4], [0.9, 0.3]]),
    Quotient(Torus(3, period=1.0), [np.linalg.matrix_power(SCREW, k) for k in range(3)],
             shifts=[[0.0] * 3, [0.1, 0.2, 0.7], [0.3, 0.9, 0.8]])], ids=repr)
def test_images_are_permuted_coefficients(manifold):
    rng = np.random.default_rng(3)
    Z, w = manifold.random(30, rng), rng.uniform(0.5, 2, 30)
    harmonics = Fourier(manifold.factors(), (4, 4, 4)[:len(manifold.factors())])
    want = sum(harmonics.analyse(image, w, 1e-13) for image in manifold.images(Z))
    np.testing.assert_allclose(moments_of(manifold, harmonics, Z, w, 1e-13), want, atol=1e-11 * np.abs(want).max())


def test_restricting_is_leaving_out():
    torus = Torus(2, period=(1.0, 3.0))
    Z = torus.random(20, np.random.default_rng(4))
    large, small = Fourier(torus.factors(), (6, 5)), Fourier(torus.factors(), (2, 3))
    found, coef = large.restrict((2, 3), large.analyse(Z, np.ones(20), 1e-13))
    assert found == small and found != large
    np.testing.assert_allclose(coef, small.analyse(Z, np.ones(20), 1e-13), atol=1e-10)


@pytest.mark.parametrize("factor", [SpaceForm(1, period=5.0), SpaceForm(1, radius=2.0), SpaceForm(2, radius=1.0),
                                    SpaceForm(3, radius=2.0), SpaceForm(7, radius=0.1)], ids=repr)
@pytest.mark.parametrize("eps", [1e-6, 1e-12])
def test_the_degree_is_the_smallest_that_serves(factor, eps):
    for t in factor.scale**2 * np.array([1e-4, 0.01, 1.0, 30.0]):
        degree = degree_for(factor, t, eps)
        lam, count = levels(factor, degree + 2000)
        term = count * np.exp(-0.5 * lam * t)
        tail = term * np.maximum(1, lam * t)
        assert tail[degree + 1:].sum() <= eps * term.sum() * (1 + 1e-12)
        assert degree == 0 or tail[degree:].sum() > eps * term.sum()
        # the terms add up to the kernel at distance zero times the volume
        log_k = float(factor.log_kernel(np.zeros(1), t)[0])
        assert abs(np.log(term.sum()) - factor.log_volume - log_k) < 1e-10


def test_who_has_no_transform():
    from rdks.manifolds import SPD, OrnsteinUhlenbeck
    for manifold in (Euclidean(2), OrnsteinUhlenbeck(1), SPD(2), Product(Sphere(2), Euclidean(1))):
        assert unsupported(manifold)
    assert not unsupported(Sphere(2))


def test_who_has_too_many_eigenfunctions():
    for manifold in (Torus(2), Sphere(2), Sphere(3)):
        assert harmonics_for(manifold, 1.0, 1e-9) is not None and harmonics_for(manifold, 1e-9, 1e-9) is None
