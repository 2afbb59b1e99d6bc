"""The manifolds that every check runs on: one line each, and nothing else to do for a new one."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from rdks.manifolds import SPD, Circle, Euclidean, Manifold, Product, Sphere, Torus


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
    Product(SPD(2), Torus(2)),
    UserProduct((Euclidean(2), Sphere(3, radius=2.0))),
]


@pytest.fixture(params=MANIFOLDS, ids=repr)
def manifold(request):
    """Each manifold of the list in turn."""
    return request.param


@pytest.fixture
def rng():
    """A generator with a fixed seed."""
    return np.random.default_rng(20240917)
