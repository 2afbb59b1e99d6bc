"""Euclidean space."""
from __future__ import annotations

from dataclasses import dataclass

from .base import Manifold, SpaceForm, parameter

__all__ = ["Euclidean"]


@dataclass(frozen=True)
class Euclidean(Manifold):
    """Euclidean space :math:`R^d`; its heat kernel is the Gaussian of variance `t`.

    Parameters
    ----------
    dim : int
        Dimension d >= 1.

    Examples
    --------
    >>> from rdks.manifolds import Euclidean
    >>> Euclidean(2).volume
    inf
    """

    dim: int = 2

    def __post_init__(self):
        object.__setattr__(self, "dim", parameter("dim", self.dim, whole=True))

    def factors(self):
        return (SpaceForm(self.dim),)

    @property
    def point_shape(self):
        return (self.dim,)
