r"""Sums over sources by eigenfunctions of the Laplacian: the cost of a query does not know how many sources there are.

The heat flow multiplies each coefficient of the data's own measure by a number,

.. math:: p_t(x)=\sum_ke^{-\lambda_kt/2}C_k\phi_k(x),\qquad C_k=\sum_iw_i\overline{\phi_k(X_i)},

so that one pass over the sources serves every query and every later time. Coefficients of two sets
of sources add: they are all that a stream needs to keep, but for the far tail of the density, which no expansion
knows: its error is a small part of the kernel's peak, everywhere, and where the density itself is no larger than that
it has no digits. Those queries are done again by the sources near them.
"""
from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from joblib import effective_n_jobs
from scipy.special import expit

from .cells import Cells
from .engines import Evaluation, Sources
from .errors import AccuracyWarning, UnsupportedError
from .harmonics import Harmonics, degrees, harmonics_for, moments_of, unsupported
from .neighbors import NeighborSum

__all__ = ["Moments", "SpectralSum"]

# Error of a density, in units of the accuracy of the transforms times the kernel's peak. Measured for points in all
# sorts of places it is at most 1.3, that of gradients 0.4 / sqrt(t), of Laplacians 4 / t.
_ERROR = 5.0
# Transforms are asked for the accuracy that serves densities down to this part of the uniform one, within the range of
# what they can give and what is worth while.
_LOW, _BEST, _WORST = 1e-3, 1e-13, 1e-8
# Below this many points and coefficients a transform is done by one thread: several would wait for each other.
_SERIAL = 200_000
# Queries whose gradients are worked on together.
_ROWS = 65536
# A stream keeps its sources up to this number, and sums them up by cells beyond.
_KEEP = 200_000
# Cells of a summary per bandwidth.
_CELLS = 4
# Cells that a summary has at most; beyond, they are made larger.
_MOST_CELLS = 2_000_000


def accuracy(manifold, t, rtol):
    """Return the accuracy to ask of transforms for densities that are right to `rtol` at a time, but in the tail."""
    factors = manifold.factors()
    log_ratio = sum(float(f.log_kernel(np.zeros(1), t)[0]) + f.log_volume for f in factors)  # of peak and uniform
    return float(np.clip(rtol * _LOW / _ERROR * np.exp(-log_ratio), _BEST, _WORST))


def _threads(n_jobs, work):
    """Return the number of threads for a transform of so many points and coefficients."""
    return effective_n_jobs(n_jobs) if work > _SERIAL else 1


def _slices(count):
    """Cut a range into pieces whose temporary arrays stay small."""
    return [slice(a, a + _ROWS) for a in range(0, count, _ROWS)]


def _serve(moments, time):
    """Say whether there are coefficients that serve a time."""
    return moments is not None and moments.shortest <= time * (1 + 1e-12)


@dataclass(frozen=True)
class Moments:
    """Coefficients of a set of weighted sources, whose weights are divided by their sum.

    Attributes
    ----------
    harmonics : Harmonics
    coef : ndarray, shape harmonics.shape
        Sources that are older than the youngest have diffused for the difference.
    log_weight : float
        Log of the sum of the weights.
    squares : float
        Sum of the squared weights, divided by the square of their sum.
    shortest : float
        Shortest time that the degree serves.
    eps : float
        Accuracy of the transform.
    """

    harmonics: Harmonics
    coef: np.ndarray
    log_weight: float
    squares: float
    shortest: float
    eps: float

    def shares(self, other):
        """Return the parts that both sets of sources have in the weight of both."""
        return expit(self.log_weight - other.log_weight), expit(other.log_weight - self.log_weight)

    def merge(self, other):
        """Return the coefficients of both sets of sources."""
        mine, theirs = self.shares(other)
        return Moments(self.harmonics, mine * self.coef + theirs * other.coef,
                       float(np.logaddexp(self.log_weight, other.log_weight)),
                       mine**2 * self.squares + theirs**2 * other.squares, self.shortest, max(self.eps, other.eps))


class SpectralSum(Sources):
    r"""Sums over all sources by eigenfunctions, on circles, spheres, products of these, and quotients of them all.

    Circles, tori and boxes of up to three dimensions, spheres of two and three and rotations have fast transforms;
    elsewhere products of matrices serve wide kernels, see :class:`.DenseHarmonics`.

    Parameters
    ----------
    manifold : Manifold
    Z, weight, time, n_jobs
        As for :class:`rdks.engines.Sources`.
    rtol : float
        Relative accuracy of the density at every query.

    Notes
    -----
    Sources of different times are brought to the clock of the youngest, coefficient by coefficient. The error of a
    density is at most five times the accuracy asked of the transforms, in units of the kernel's peak, by measurement
    (``tests/test_spectral.py``). That accuracy is chosen so that densities down to a thousandth of the uniform one are
    right to rtol; where this error is more than rtol of the density, the sum is done by
    :class:`rdks.neighbors.NeighborSum` instead.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.manifolds import Torus
    >>> from rdks.spectral import SpectralSum
    >>> Z = np.random.default_rng(0).uniform(0, 2 * np.pi, (1000, 2))
    >>> total = SpectralSum(Torus(2), Z, np.ones(1000), 0.1)
    >>> bool(np.allclose(total.evaluate(Z).log_density, -2 * np.log(2 * np.pi), atol=0.6))
    True
    """

    def __init__(self, manifold, Z, weight, time, n_jobs=None, rtol=1e-6):
        super().__init__(manifold, Z, weight, time, n_jobs)
        why = unsupported(manifold)
        if why:
            raise UnsupportedError(f"engine='spectral' cannot serve {manifold!r}: {why}")
        if not 0 < rtol < 1:
            raise ValueError(f"rtol = {rtol!r} must be positive and below 1")
        self.rtol = float(rtol)
        self.clock = float(self.time[self.weight > 0].min())
        self.cells = None      # where the sources were summed up: Z, weight and time are those of cells then
        self._moments = None
        self._rescuer = None

    def __getstate__(self):
        return {**self.__dict__, "_rescuer": None}

    def like(self, Z, weight, time):
        return type(self)(self.manifold, Z, weight, time, self.n_jobs, self.rtol)

    def at(self, time):
        if self.cells is not None:
            return self._of_cells(self.cells, self._moments, float(time))
        new = super().at(time)
        if np.ndim(time) == 0 and self._moments is not None and np.ptp(self.time) == 0:
            new._moments = self._moments  # of sources of one time, whatever that is
        return new

    def merge(self, other):
        """Return the engine that holds the sources of both: their coefficients are added, if both have them.

        Beyond 200,000 sources they are summed up by cells, once there are coefficients, so that what is kept
        does not grow with the number of sources.
        """
        mine, theirs = self._moments, other._moments
        alike = mine is not None and theirs is not None and mine.harmonics == theirs.harmonics
        if not alike and (self.cells is not None or other.cells is not None):
            raise ValueError("merge: coefficients of different degrees cannot be added, and the observations they came "
                             "from were not kept. Fit both with one bandwidth, or one min_bandwidth")
        moments = mine.merge(theirs) if alike else None
        if moments is not None and (self.cells is not None or other.cells is not None
                                    or len(self.Z) + len(other.Z) > _KEEP):
            shares = mine.shares(theirs)
            return self._of_cells(self._summary().merge(other._summary(), *shares), moments, self.clock)
        new = super().merge(other)
        new._moments = moments
        return new

    @property
    def squares(self):
        return super().squares if self.cells is None else self._moments.squares

    def log_self(self, t=0.0, rows=None):
        # cells have a spread of their own
        return super().log_self(t, rows) if self.cells is None else np.full(
            len(self.Z) if rows is None else len(rows),
            self.manifold.log_heat_kernel(self.Z[:1], self.Z[:1], self.clock + t)[0])

    def _summary(self):
        """Return the sources summed up by cells."""
        if self.cells is not None:
            return self.cells
        return Cells.of(self.manifold.project(self.Z), self.share, self._side())

    def _side(self):
        """Side of the cells of a summary: a part of the bandwidth, or what the number of cells allows."""
        m = self.manifold
        most = np.exp((m.log_volume - m.log_unit - np.log(_MOST_CELLS)) / m.dim)
        return max(np.sqrt(self._moments.shortest) / _CELLS, float(most))

    def _of_cells(self, cells, moments, clock):
        """Make the engine that knows sources by their coefficients and cells."""
        Z = self.manifold.project(cells.mean)
        new = type(self)(self.manifold, Z, cells.weight, clock + cells.spread / self.manifold.dim, self.n_jobs,
                         self.rtol)
        new.cells, new._moments, new.clock = cells, moments, clock
        return new

    def moments(self, t=0.0):
        """Return coefficients that serve times of at least `t` since the state; known ones if they do."""
        shortest, known = self.clock + t, self._moments  # which another thread may replace
        if _serve(known, shortest):
            return known
        if self.cells is not None:
            raise ValueError(f"a bandwidth of {np.sqrt(shortest):.4g} is below {np.sqrt(known.shortest):.4g}, which "
                             "the coefficients of this stream serve. Start it again with a smaller min_bandwidth")
        eps = accuracy(self.manifold, shortest, self.rtol)
        harmonics = harmonics_for(self.manifold, shortest, eps)
        if harmonics is None:
            raise UnsupportedError(f"engine='spectral': a bandwidth of {np.sqrt(shortest):.3g} needs more "
                                   f"eigenfunctions of {self.manifold!r} than fit into memory. Use engine='auto'")
        share, threads = self.share, _threads(self.n_jobs, len(self.Z) + np.prod(harmonics.shape))
        coef = 0.0
        times = np.unique(self.time[share > 0])
        for time in times:
            rows = slice(None) if len(times) == 1 else self.time == time
            part = moments_of(self.manifold, harmonics, self.Z[rows], share[rows], eps, threads)
            coef = coef + part * harmonics.spread(np.exp(-0.5 * harmonics.eigenvalue * (time - self.clock)))
        top = self.weight.max()
        self._moments = Moments(harmonics, coef, float(np.log(top) + np.log((self.weight / top).sum())),
                                float(share @ share), shortest, eps)
        return self._moments

    @property
    def shortest(self):
        """Shortest time that the coefficients at hand serve; None if there are none."""
        return None if self._moments is None else self._moments.shortest

    def knows(self, t=0.0):
        """Whether there are coefficients that serve times of at least `t` since the state."""
        return _serve(self._moments, self.clock + t)

    def _log_peak(self, t):
        """Log of the kernel's peak after a further time `t`, without images."""
        peak = sum(float(f.log_kernel(np.zeros(1), self.clock + t)[0]) for f in self.manifold.factors())
        return peak + self.manifold.log_unit

    def log_overlap(self, t):
        r"""Return :math:`\log\sum_{ij}w_iw_jk_t(X_i,X_j)` for weights that sum to 1, own terms included.

        Parameters
        ----------
        t : float
            Time since the state, which the coefficients serve; the integral of the squared density at time
            t/2.
        """
        known = self.moments(t)
        harmonics = known.harmonics
        terms = harmonics.power(known.coef) * np.exp(-0.5 * harmonics.eigenvalue * (self.clock + t))
        return float(np.log(terms.sum() / self.manifold.n_images)) + self.manifold.log_unit

    def expansion(self, Z, t=0.0, order=0, n_jobs=None):
        """Evaluate the expansion as it is: right relative to the kernel's peak, not relative to the density.

        Parameters
        ----------
        Z, t, order, n_jobs
            As for :meth:`.Sources.evaluate`.

        Returns
        -------
        p : ndarray, shape (q,)
            Density, which may come out zero or negative where it is smaller than the error.
        gradient : ndarray, shape (q, embed_dim), or None
            Of the density, not of its logarithm.
        laplacian : ndarray, shape (q,), or None
        error : float
            Bound on the error of p; that of the gradient is this over sqrt(t), that of the Laplacian over t.
        """
        known, time = self.moments(t), self.clock + t
        eps = accuracy(self.manifold, time, self.rtol)
        worst = max(eps, known.eps)
        harmonics, coef = known.harmonics, known.coef
        degree = degrees(self.manifold, time, worst)
        if np.max(np.subtract(harmonics.degree, degree)) > 0:
            harmonics, coef = harmonics.restrict(np.minimum(harmonics.degree, degree).tolist(), coef)
        unit = np.exp(self.manifold.log_unit)
        coef = coef * harmonics.spread(np.exp(-0.5 * harmonics.eigenvalue * time) * unit)
        batch = [coef]
        if order:
            batch.extend(harmonics.fields(coef))
        if order > 1:
            batch.append(coef * harmonics.spread(-harmonics.eigenvalue))
        threads = _threads(n_jobs, len(batch) * (len(Z) + np.prod(harmonics.shape)))
        values = harmonics.synthesise(np.array(batch), Z, eps, threads)
        gradient = None
        if order:
            gradient = np.empty(Z.shape)
            for rows in _slices(len(Z)):
                gradient[rows] = harmonics.gradient(Z[rows], values[1:len(batch) - (order > 1), rows])
        # images and all: at most that many kernels add up at one place
        error = _ERROR * worst * self.manifold.n_images * np.exp(self._log_peak(t))
        return values[0], gradient, values[-1] if order > 1 else None, error

    def _evaluate(self, Z, t, order, own, n_jobs):
        p, gradient, laplacian, error = self.expansion(Z, t, order, n_jobs)
        if own is not None:
            p = p - self.share[own] * np.exp(self.log_self(t, own))
        bad = np.flatnonzero(~(self.rtol * p > error))
        with np.errstate(divide="ignore", invalid="ignore"):
            log_density = np.log(p)
            if order:
                for rows in _slices(len(Z)):
                    gradient[rows] = self.manifold.to_tangent(Z[rows], gradient[rows] / p[rows, None])
            if order > 1:
                laplacian = laplacian / p - np.einsum("ij,ij->i", gradient, gradient)
        if bad.size:
            near = self._near()._evaluate(np.ascontiguousarray(Z[bad]), t, order, None if own is None else own[bad],
                                          n_jobs)
            log_density[bad] = near.log_density
            if order:
                gradient[bad] = near.gradient
            if order > 1:
                laplacian[bad] = near.laplacian
            if self.cells is not None:
                self._warn_of_cells(bad.size, len(Z), near.log_density, t)
        return Evaluation(log_density, gradient, laplacian)

    def _warn_of_cells(self, count, total, log_density, t):
        """Say how good the densities are that only the summary in cells knows."""
        depth = self._log_peak(t) - float(log_density.min())
        # the log kernel changes by g x along a distance x, g^2 = 2 depth / t: what the spread of the sources in their
        # cells changes on average, and what the place of a source in its cell changes at most
        time = self.clock + t
        usual = depth * self.cells.spread / self.manifold.dim / time
        most = np.sqrt(2 * depth / time * self.manifold.embed_dim) * self.cells.side
        warnings.warn(f"{count} of {total} points lie where the density is too low for the coefficients of the stream. "
                      "It was computed from its summary in cells there, with an error in its logarithm of about "
                      f"{min(usual, most):.2g}, at most {most:.2g}; its gradient is off by as much per bandwidth",
                      AccuracyWarning, stacklevel=2)

    def _near(self):
        """Return the engine that does the queries which the expansion cannot."""
        if self._rescuer is None:
            self._rescuer = NeighborSum(self.manifold, self.Z, self.weight, self.time, self.n_jobs, self.rtol)
        return self._rescuer
