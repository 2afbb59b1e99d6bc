"""All engines that can serve a space agree, from points that do not see each other to uniform densities."""
import numpy as np
import pytest

from rdks import _kernels, engines, harmonics
from rdks.choice import sources
from rdks.errors import UnsupportedError
from rdks.manifolds import (
    SO3,
    SPD,
    SU2,
    Box,
    Circle,
    Euclidean,
    Hyperbolic,
    OrnsteinUhlenbeck,
    Product,
    ProjectiveSpace,
    Sphere,
    Torus,
)

SPACES = [Circle(period=24.0), Torus(2, period=(1.0, 1.5)), Torus(3), Torus(4), Box([(0.0, 1.0), (2.0, 3.5)]),
          Sphere(1), Sphere(2), Sphere(2, radius=6371.0), Sphere(3), Sphere(6), ProjectiveSpace(2), ProjectiveSpace(4),
          SU2(), SO3(), SO3(symmetry="hexagonal"), SO3(symmetry="222", specimen="222"),
          Product(Circle(), Box([(0.0, 6.0)])), Product(Sphere(2), Circle(), times=(1.0, 2.0)),
          Product(Sphere(2), Sphere(2, radius=2.0)), Product(Circle(), SO3()),
          Product(ProjectiveSpace(2), Box([(0.0, 3.0)])), Product(Sphere(2), Euclidean(1)), Euclidean(2), Hyperbolic(2),
          SPD(2), OrnsteinUhlenbeck(2)]
TIMES = [1e-5, 1e-4, 1e-3, 0.01, 0.1, 1.0, 10.0]  # in units of the squared size of the space
RTOL = 1e-6


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Compiled sums everywhere, and an expansion only where it is not a matter of seconds."""
    monkeypatch.setattr(engines, "_kernels", lambda pairs: _kernels)
    monkeypatch.setattr(harmonics, "_MOST", 150_000)


def layouts(manifold, rng, n=150):
    """Yield a name, sources and queries."""
    unit = min(manifold.scales, default=1.0)
    Z, Q = manifold.random(n, rng), manifold.random(40, rng)
    one = Z[:1]

    def near(Z, size):
        V = manifold.to_tangent(Z, rng.standard_normal(Z.shape))
        return manifold.project(manifold.exp(Z, size * V))

    yield "even", Z, np.concatenate([Z[:5], Q])
    # the far end of a geodesic of half the length of a great circle
    across = manifold.frame(one)[:, 0] * np.pi * unit
    far = manifold.project(manifold.exp(one, across))
    tight = near(np.repeat(one, n, axis=0), 1e-3 * unit)
    yield "a tight cluster, and its antipode", tight, np.concatenate([one, far, Q])
    line = manifold.frame(np.repeat(one, n, axis=0))[:, 0] * (np.linspace(-1, 1, n) * np.pi * unit)[:, None]
    line = manifold.project(manifold.exp(np.repeat(one, n, axis=0), line))
    yield "a meridian", line, np.concatenate([line[:5], Q])
    f = manifold.factors()[0]
    if f.kind == "sphere" and manifold.embed_dim == f.width:
        pole = np.zeros((2, f.width))
        pole[:, -1] = f.scale, -f.scale
        pole = manifold.project(pole)
        yield "a point at each pole", pole, np.concatenate([pole, near(pole, 1e-9 * unit), Q])


def wrong(found, exact, t):
    """Largest errors in units of what is promised: rtol, rtol / sqrt(t), rtol / t; rounding taken off."""
    slope = np.sqrt((exact.gradient**2).sum(axis=1)) + t**-0.5
    bend = np.abs(exact.laplacian) + slope**2
    scales = RTOL + 1e-11 * np.abs(exact.log_density), 2 * RTOL * slope, 10 * RTOL * bend
    off = (np.abs(found.log_density - exact.log_density), np.sqrt(((found.gradient - exact.gradient) ** 2).sum(axis=1)),
           np.abs(found.laplacian - exact.laplacian))
    return max((a / b).max() for a, b in zip(off, scales, strict=True))


@pytest.mark.parametrize("manifold", SPACES, ids=repr)
def test_engines_agree(manifold):
    rng = np.random.default_rng(0)
    unit, served = min(manifold.scales, default=1.0) ** 2, set()
    for t in [t * unit for t in TIMES]:
        for name, Z, Q in layouts(manifold, rng):
            w = 10.0 ** rng.uniform(-2, 2, len(Z))
            exact = sources(manifold, Z, w, t, engine="direct").evaluate(Q, 0.0, 2)
            assert np.isfinite(exact.log_density).all()
            for engine in ("neighbors", "spectral", "auto"):
                try:
                    found = sources(manifold, Z, w, t, engine=engine, rtol=RTOL).evaluate(Q, 0.0, 2)
                except UnsupportedError as error:
                    assert engine == "spectral" and ("cannot serve" in str(error) or "fit into memory" in str(error))
                    continue
                served.add(engine)
                assert wrong(found, exact, t) <= 1, (engine, name, t / unit)
    assert {"neighbors", "auto"} <= served
    assert ("spectral" in served) == (not harmonics.unsupported(manifold))


@pytest.mark.parametrize("manifold", [Torus(2), Sphere(2), SO3(), Circle()], ids=repr)
def test_engines_agree_on_duplicates(manifold):
    rng = np.random.default_rng(1)
    Z = np.concatenate([np.repeat(manifold.random(1, rng), 100_000, axis=0), manifold.random(50, rng)])
    Q = np.concatenate([Z[-51:-20], manifold.random(20, rng)])
    for t in np.array([1e-4, 0.1]) * min(manifold.scales) ** 2:
        exact = sources(manifold, Z, np.ones(len(Z)), t, engine="direct").evaluate(Q, 0.0, 2)
        for engine in ("neighbors", "spectral", "auto"):
            try:
                found = sources(manifold, Z, np.ones(len(Z)), t, engine=engine, rtol=RTOL).evaluate(Q, 0.0, 2)
            except UnsupportedError:
                assert engine == "spectral" and t < 0.01 * min(manifold.scales) ** 2
                continue
            assert wrong(found, exact, t) <= 1, (engine, t)


def test_high_degrees(monkeypatch):
    """A narrow kernel on the sphere: more than half a million coefficients."""
    monkeypatch.setattr(harmonics, "_MOST", 2**23)
    rng = np.random.default_rng(2)
    sphere, t = Sphere(2), 1e-4
    pole = sphere.project([[0.0, 0.0, 1.0]] + 0.01 * rng.standard_normal((3000, 3)))
    Z = np.concatenate([sphere.random(3000, rng), pole])
    exact = sources(sphere, Z, np.ones(len(Z)), t, engine="direct").evaluate(Z[::50], 0.0, 2)
    spectral = sources(sphere, Z, np.ones(len(Z)), t, engine="spectral", rtol=RTOL)
    assert spectral.moments().coef.size > 250_000
    assert wrong(spectral.evaluate(Z[::50], 0.0, 2), exact, t) <= 1
