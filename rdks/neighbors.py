"""Placeholder until the neighbour engine lands (helper `near` writes this file)."""
from __future__ import annotations

from .engines import DirectSum

__all__ = ["NeighborSum"]


class NeighborSum(DirectSum):
    """Exact sums for now."""

    def __init__(self, manifold, Z, weight, time, n_jobs=None, rtol=1e-6):
        super().__init__(manifold, Z, weight, time, n_jobs)
        self.rtol = rtol

    def like(self, Z, weight, time):
        return type(self)(self.manifold, Z, weight, time, self.n_jobs, self.rtol)
