r"""Functions of one part of a product each as regressors, for products of many dimensions."""
from __future__ import annotations

import numpy as np

from ..errors import UnsupportedError
from ..manifolds import Product
from .base import EigenBasis

__all__ = ["AdditiveBasis"]


class AdditiveBasis(EigenBasis):
    r"""Eigenfunctions of the parts of a product, without products of functions of different parts.

    Parameters
    ----------
    manifold : Product
    max_level : int
        Highest level in each part.
    make : callable
        ``make(part, max_level)`` returns the :class:`.EigenBasis` of a part.

    Attributes
    ----------
    bases : list of EigenBasis
        Of the parts, each in its own unit of length and time.
    shortest_time : float
        Noise level from which on the matrix is right: the largest of those of the parts, each in its own time.

    Notes
    -----
    The potential is a sum of functions of one part, its exponential a product: the score model knows the marginal laws
    of the parts and no dependence between them (theory section 6.3). Gradients with respect to different parts are
    orthogonal, so the matrix has one block per part, and its size grows linearly in the number of parts.

    Part i of the product diffuses with the generator :math:`\frac{a_i}2\Delta_i` (see
    :class:`rdks.manifolds.Product`), and embedded lengths are divided by :math:`\sqrt{a_i}`: rates, matrices and
    Laplacians of the part are times :math:`a_i`, gradients times :math:`\sqrt{a_i}`.

    The constant is one statistic for all parts, and the first.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.eigenbases.additive import AdditiveBasis
    >>> from rdks.eigenbases.quadrature import QuadratureBasis
    >>> from rdks.manifolds import Product, Sphere
    >>> basis = AdditiveBasis(Product(Sphere(2), Sphere(3), times=(1.0, 0.5)), 1, QuadratureBasis)
    >>> basis.decay  # a d / 2
    array([0.75, 0.75, 0.75, 0.75, 1.  , 1.  , 1.  ])
    """

    def __init__(self, manifold, max_level, make):
        if not isinstance(manifold, Product):
            raise UnsupportedError(f"{manifold!r} is no Product, which has parts")
        self.manifold, self.max_level = manifold, max_level
        self.bases = [make(part, max_level) for part in manifold.parts]
        speeds = manifold.times
        decay = np.concatenate([a * basis.decay for a, basis in zip(speeds, self.bases, strict=True)])
        order = np.argsort(decay, kind="stable")
        self.decay, self.level = decay[order], np.concatenate([basis.level for basis in self.bases])[order]
        place = np.argsort(order, kind="stable")
        ends = np.cumsum([len(basis.decay) for basis in self.bases])
        # where the functions of each part are, ascending as they are in the part
        self._place = np.split(place, ends[:-1])
        # and where its statistics are: all constants are the first
        self._statistics, rates, of_level = [], [np.zeros(1)], [np.zeros(1, dtype=int)]
        size = 1
        for a, basis in zip(speeds, self.bases, strict=True):
            kept = np.asarray(basis.moment_decay) > 0
            self._statistics.append(np.where(kept, size - 1 + np.cumsum(kept), 0))
            rates.append(a * basis.moment_decay[kept])
            of_level.append(basis.moment_level[kept])
            size += int(kept.sum())
        self.moment_decay, self.moment_level = np.concatenate(rates), np.concatenate(of_level)
        self.shortest_time = max(getattr(basis, "shortest_time", 0.0) / a
                                 for a, basis in zip(speeds, self.bases, strict=True))

    def _parts(self, Z):
        """Yield the square root of the speed, the points in the unit of the part, and the columns of each part."""
        start = 0
        for part, a in zip(self.manifold.parts, self.manifold.times, strict=True):
            columns = slice(start, start + part.embed_dim)
            yield np.sqrt(a), Z[:, columns] * np.sqrt(a), columns
            start = columns.stop

    def moments(self, Z, share):
        out = np.empty(len(self.moment_decay))
        parts = self._parts(np.asarray(Z, dtype=float))
        for basis, where, (_, P, _) in zip(self.bases, self._statistics, parts, strict=True):
            out[where] = basis.moments(P, share)
        return out

    def gram(self, moments):
        moments, out = np.asarray(moments, dtype=float), np.zeros((len(self.decay),) * 2)
        for basis, place, where, a in zip(self.bases, self._place, self._statistics, self.manifold.times, strict=True):
            out[np.ix_(place, place)] = a * basis.gram(moments[where])
        return out

    def own(self, moments):
        moments, out = np.asarray(moments, dtype=float), np.empty(len(self.decay))
        for basis, place, where in zip(self.bases, self._place, self._statistics, strict=True):
            out[place] = basis.own(moments[where])
        return out

    def evaluate(self, Z, coef, order=1):
        Z, coef = np.asarray(Z, dtype=float), np.asarray(coef, dtype=float)
        value = np.zeros(len(Z))
        gradient = np.zeros(Z.shape) if order > 0 else None
        laplacian = np.zeros(len(Z)) if order > 1 else None
        for basis, place, (root, P, columns) in zip(self.bases, self._place, self._parts(Z), strict=True):
            # the first functions of the product are the first ones of each part
            mine = coef[place[place < len(coef)]]
            if not mine.size:
                continue
            f, slope, curvature = basis.evaluate(P, mine, order)
            value += f
            if order > 0:
                gradient[:, columns] = root * slope
            if order > 1:
                laplacian += root**2 * curvature
        return value, gradient, laplacian
