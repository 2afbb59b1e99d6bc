"""Fourier modes on circles and flat tori of up to three dimensions."""
from __future__ import annotations

import numpy as np

from .base import CHUNK, Harmonics

__all__ = ["Fourier"]


class Fourier(Harmonics):
    r"""Fourier modes on a product of up to three circles.

    Parameters
    ----------
    factors : tuple of SpaceForm
        Circles, written as an angle with a period or as points of the plane (spheres of dimension 1).
    degree : tuple of int
        Largest wave number on each circle.

    Notes
    -----
    :math:`\phi_k(x)=V^{-1/2}e^{2\pi i\sum_jk_jx_j/P_j}` with the periods :math:`P_j`, all
    :math:`\prod_j(2K_j+1)` of them; a level is one of them, as eigenvalues differ in general. Sums over points are
    non-uniform fast Fourier transforms (FINUFFT: Barnett, Magland and af Klinteberg, SIAM J. Sci. Comput. 41 (2019)
    C479); two real functions share one complex transform.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.harmonics import Fourier
    >>> from rdks.manifolds import Circle
    >>> day = Fourier(Circle(period=24.0).factors(), (3,))
    >>> C = day.analyse(np.array([[6.0]]), np.ones(1), 1e-12)
    >>> np.round(C * np.sqrt(24), 9) + 0  # exp(-2 pi i k 6 / 24)
    array([ 0.-1.j, -1.+0.j,  0.+1.j,  1.+0.j,  0.-1.j, -1.+0.j,  0.+1.j])
    """

    def __init__(self, factors, degree):
        self.factors, self.degree = tuple(factors), tuple(degree)
        self.shape = tuple(2 * k + 1 for k in self.degree)
        self._volume = float(np.prod([f.volume for f in self.factors]))
        self.wave_number = [np.arange(-k, k + 1) / f.scale for f, k in zip(self.factors, self.degree, strict=True)]
        grid = np.meshgrid(*[k**2 for k in self.wave_number], indexing="ij")
        self.eigenvalue = sum(grid).ravel()
        self.multiplicity = np.ones(self.eigenvalue.size)

    def __eq__(self, other):
        return isinstance(other, Fourier) and (self.factors, self.degree) == (other.factors, other.degree)

    __hash__ = None

    def _angles(self, Z):
        """Angles on each circle; list of (n,)."""
        out, start = [], 0
        for f in self.factors:
            x = Z[:, start:start + f.width]
            start += f.width
            if f.width == 2:
                out.append(np.arctan2(x[:, 1], x[:, 0]))
            else:
                angle = x[:, 0] * (1 / f.scale)
                if np.abs(angle).max(initial=0.0) > 4 * np.pi:  # some turns are taken care of by the transform
                    angle -= 2 * np.pi * np.rint(x[:, 0] / f.period)
                out.append(angle)
        return out

    def _plan(self, kind, count, eps, n_threads):
        import finufft
        return finufft.Plan(kind, self.shape, count, eps=eps, isign=1 if kind == 2 else -1, nthreads=n_threads)

    def analyse(self, Z, weight, eps, n_threads=1):
        total = np.zeros(self.shape, dtype=complex)
        plan = self._plan(1, 1, eps, n_threads)
        for a in range(0, len(Z), CHUNK):
            plan.setpts(*self._angles(Z[a:a + CHUNK]))
            total += plan.execute(weight[a:a + CHUNK].astype(complex))
        return total / np.sqrt(self._volume)

    def synthesise(self, coefs, Z, eps, n_threads=1):
        pairs = (len(coefs) + 1) // 2
        packed = np.array(coefs[::2], dtype=complex)
        packed[:len(coefs) // 2] += 1j * coefs[1::2]
        packed /= np.sqrt(self._volume)
        out = np.empty((len(coefs), len(Z)))
        plan = self._plan(2, pairs, eps, n_threads)
        for a in range(0, len(Z), CHUNK):
            part = slice(a, a + CHUNK)
            plan.setpts(*self._angles(Z[part]))
            values = plan.execute(packed if pairs > 1 else packed[0]).reshape(pairs, -1)
            out[::2, part] = values.real
            out[1::2, part] = values.imag[:len(coefs) // 2]
        return out

    def spread(self, per_level):
        return np.asarray(per_level).reshape(self.shape)

    def power(self, coef):
        return (coef.real**2 + coef.imag**2).ravel()

    def fields(self, coef):
        d = len(self.factors)
        return np.array([1j * k.reshape([-1 if i == j else 1 for i in range(d)]) * coef
                         for j, k in enumerate(self.wave_number)])

    def gradient(self, Z, values):
        out, start = np.empty(Z.shape), 0
        for f, slope in zip(self.factors, values, strict=True):
            if f.width == 2:
                out[:, start] = -slope * Z[:, start + 1] / f.scale
                out[:, start + 1] = slope * Z[:, start] / f.scale
            else:
                out[:, start] = slope
            start += f.width
        return out

    def restrict(self, degree, coef):
        inner = tuple(slice(k - least, k + least + 1) for k, least in zip(self.degree, degree, strict=True))
        return Fourier(self.factors, degree), np.ascontiguousarray(coef[inner])

    def images(self, coef, A, b):
        r"""Return the coefficients of the sum over images of the points.

        Parameters
        ----------
        coef : ndarray, shape `shape`
            Coefficients of a sum over points.
        A, b : ndarray, shapes (g, d, d), (g, d)
            Isometries :math:`x\to Ax+b` of the torus, each written as an angle; A permutes coordinates of equal
            periods and changes signs.

        Returns
        -------
        ndarray, shape `shape`

        Notes
        -----
        :math:`\sum_gC_k(gX)=\sum_ge^{-ik\cdot b}C_{A^\top k}(X)`.
        """
        total = np.zeros_like(coef)
        axes = np.arange(coef.ndim)
        for matrix, shift in zip(A, b, strict=True):
            source = np.abs(matrix).argmax(axis=1)  # coordinate j of the image is +- coordinate source[j] of the point
            sign = matrix[axes, source]
            turned = coef
            for j in axes:
                if sign[j] < 0:
                    turned = np.flip(turned, axis=source[j])
            turned = np.transpose(turned, source)
            for j, k in enumerate(self.wave_number):
                turned = turned * np.exp(-1j * k * shift[j]).reshape([-1 if i == j else 1 for i in axes])
            total += turned
        return total

