"""The manifolds that every check runs on: one line each, and nothing else to do for a new one."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from rdks.manifolds import (
    SO3,
    SPD,
    SU2,
    Box,
    Circle,
    Euclidean,
    FromGeomstats,
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
    Unitary,
    load_geomstats,
)


@dataclass(frozen=True)
class UserProduct(Manifold):
    """A product that a user might write: the least code that makes a manifold."""

    parts: tuple[Manifold, ...]

    @property
    def dim(self):
        return sum(part.dim for part in self.parts)

    @property
    def point_shape(self):
        return (self.embed_dim,)

    def factors(self):
        return tuple(f for part in self.parts for f in part.factors())


def bures_wasserstein():
    """A geomstats space that equals none of ours."""
    load_geomstats()
    from geomstats.geometry.spd_matrices import SPDBuresWassersteinMetric, SPDMatrices
    space = SPDMatrices(2, equip=False)
    space.equip_with_metric(SPDBuresWassersteinMetric)
    return FromGeomstats(space)


def subspaces(n, p):
    """The Grassmann manifold of geomstats."""
    load_geomstats()
    from geomstats.geometry.grassmannian import Grassmannian
    return FromGeomstats(Grassmannian(n, p))


def frames(n, p):
    """The Stiefel manifold of geomstats."""
    load_geomstats()
    from geomstats.geometry.stiefel import Stiefel
    return FromGeomstats(Stiefel(n, p))


MANIFOLDS = [
    Euclidean(1),
    Euclidean(3),
    Circle(),
    Circle(period=24.0),
    Torus(2),
    Torus(3, period=(1.0, 2.0, 360.0)),
    Sphere(1),
    Sphere(2),
    Sphere(2, coords="latlon_deg"),
    Sphere(2, radius=6371.0),
    Sphere(3),
    Sphere(5),
    Sphere(10),
    UserProduct((Sphere(2), Circle())),
    Product(Sphere(2, coords="latlon_deg"), Circle(period=24.0), Euclidean(1)),
    SPD(2),
    SPD(3),
    SPD(2, metric="affine_invariant"),
    SPD(3, metric="affine_invariant"),
    Product(SPD(2), Torus(2)),
    UserProduct((Euclidean(2), Sphere(3, radius=2.0))),
    Hyperbolic(2),
    Hyperbolic(2, coords="half_space", radius=100.0),
    Hyperbolic(3, coords="ball", radius=2.0),
    Hyperbolic(5),
    SO3(),
    SO3(coords="rotvec"),
    SO3(coords="quaternion", symmetry="222"),
    SU2(),
    ProjectiveSpace(2),
    ProjectiveSpace(3),
    Quotient(Sphere(2, coords="latlon_deg"), [np.eye(3), np.diag([1.0, 1.0, -1.0])]),
    Box([(-1.0, 2.0)]),
    Box([(0.0, 1.0), (0.0, 2.0)]),
    OrnsteinUhlenbeck(1),
    OrnsteinUhlenbeck(3),
    Product(SO3(), Euclidean(3), times=(1.0, 0.25)),
    Product(Hyperbolic(2), Box([(0.0, 1.0)])),
    SpecialOrthogonal(4),
    SpecialUnitary(3),
    Unitary(2),
    bures_wasserstein(),
    subspaces(4, 2),
    frames(4, 2),
]


@pytest.fixture(params=MANIFOLDS, ids=repr)
def manifold(request):
    """Each manifold of the list in turn."""
    return request.param


@pytest.fixture
def rng():
    """A generator with a fixed seed."""
    return np.random.default_rng(20240917)
