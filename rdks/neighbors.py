"""Kernel sums over the sources that matter, for narrow kernels and very many observations."""
from __future__ import annotations

import numpy as np
from scipy.special import gammainccinv

from . import radial
from .engines import DirectSum, _kernels

__all__ = ["NeighborSum", "first_depth"]


def first_depth(dim, rtol, order=0):
    """Return the depth below the peak that is enough for `rtol` where sources are spread evenly."""
    # the share of a kernel's mass that lies deeper, in flat space
    depth = gammainccinv(0.5 * dim, 0.0625 * max(rtol, 2e-12))
    return float(min(depth + order * np.log1p(depth), radial.DEPTH))


class NeighborSum(DirectSum):
    r"""Sums over the sources that matter, to a promised accuracy.

    Parameters
    ----------
    manifold, Z, weight, time, n_jobs
        As for :class:`rdks.engines.Sources`.
    rtol : float
        Largest error of the log density; that of its gradient is below ``rtol / sqrt(t)`` and that of its Laplacian
        below ``rtol / t``, t being the shortest time of the sources, beyond what :class:`rdks.engines.DirectSum` has.

    Notes
    -----
    As in :class:`~rdks.engines.DirectSum`, boxes of sources are left out by their depth, the exponent below the
    kernel's peak; here the depth is relative to what a query finds. The first search goes down to a depth that
    is enough where the data are spread evenly. On the way it adds up what each box that it leaves out
    could contribute at most, weight times exp(-depth). Where that is more than half of `rtol` times the sum found, the
    search is repeated, deeper by the logarithm of what is too much. Queries that are further from all sources than
    the dense form reaches find the largest term by a search that looks at the most promising box first, and add up
    the terms that are not negligible next to it, as logarithms. No query looks at all sources unless all matter.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.engines import DirectSum
    >>> from rdks.manifolds import Circle
    >>> from rdks.neighbors import NeighborSum
    >>> rng = np.random.default_rng(0)
    >>> Z, Q = rng.uniform(0, 2 * np.pi, (5000, 1)), rng.uniform(0, 2 * np.pi, (1000, 1))
    >>> found = NeighborSum(Circle(), Z, np.ones(5000), 1e-6, rtol=1e-4).evaluate(Q)
    >>> exact = DirectSum(Circle(), Z, np.ones(5000), 1e-6).evaluate(Q)
    >>> bool(np.abs(found.log_density - exact.log_density).max() <= 1e-4)
    True
    """

    def __init__(self, manifold, Z, weight, time, n_jobs=None, rtol=1e-6):
        super().__init__(manifold, Z, weight, time, n_jobs)
        if not 0 < rtol < 1:
            raise ValueError(f"rtol = {rtol!r} must be positive and below 1")
        self.rtol = float(rtol)

    def like(self, Z, weight, time):
        return type(self)(self.manifold, Z, weight, time, self.n_jobs, self.rtol)

    def _trust(self):
        return tuple(max(0.5 * self.rtol, least) for least in super()._trust())

    def _first_depth(self, order):
        return first_depth(self.manifold.dim, self.rtol, order)

    def _reach(self, depth, tb, reference, order):
        # next to much higher peaks a wide kernel would be left out where nothing but it is found
        return np.maximum(super()._reach(depth, tb, reference, order), self._first_depth(max(order, 0)))

    def expected_pairs(self, t, Z, order=0):
        """Count the sources that the first search finds for each query, images and boxes that are partly near included.

        Parameters
        ----------
        t : float
            Time since the state.
        Z : ndarray, shape (q, embed_dim)
            Some of the queries, in any order; a few hundred tell the mean.
        order : int
            As in `evaluate`.

        Returns
        -------
        ndarray, shape (q,)

        Examples
        --------
        >>> import numpy as np
        >>> from rdks.manifolds import Circle
        >>> from rdks.neighbors import NeighborSum
        >>> total = NeighborSum(Circle(), np.zeros((100, 1)), np.ones(100), 1e-3)
        >>> total.expected_pairs(0.0, np.zeros((1, 1)))
        array([100.])
        """
        Z = np.ascontiguousarray(Z, dtype=float)
        kernels = _kernels(len(Z) * len(self.Z) * self.manifold.n_images)
        blocks, tables = self._tables(self._moved(t, len(Z), None), order)
        depth = np.full(len(Z), self._first_depth(order))
        return self._sums(kernels, blocks, tables, Z, np.arange(len(Z)), -1, depth)[-1]
