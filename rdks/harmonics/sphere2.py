"""Spherical harmonics on the two-dimensional sphere."""
from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import Lock

import numpy as np

from .base import Harmonics

__all__ = ["SphericalHarmonics"]

# Points that are handled together: grids are made once for all of them, so fewer cost nothing and need less memory.
CHUNK = 2**18


class _Grid:
    r"""A fine grid on the double Fourier sphere, and the kernel that takes functions from it to points and back.

    Parameters
    ----------
    L, K : int
        Largest wave numbers of functions in longitude and along a meridian.
    eps : float
        Accuracy.

    Notes
    -----
    A non-uniform FFT that knows the symmetry :math:`f(-u,\varphi)=f(u,\varphi+\pi)` and that functions are
    real: a quarter of the grid of a general complex one serves. The grid is twice as fine as the functions need; the
    kernel is that of Kaiser and Bessel, :math:`I_0(\beta\sqrt{1-z^2})`, with Fourier transform :math:`2\sinh(s)/s`,
    :math:`s^2=\beta^2-\kappa^2` (Jackson et al., IEEE Trans. Med. Imaging 10 (1991) 473). With n lines its error is
    about :math:`10^{1-n}` of the largest value of a function; the factor 0.74 in :math:`\beta` is the best of those
    tried.

    Rows are meridians, from longitude 0 on. Columns go along them, from one pole to the other, with a margin of half as
    many more lines on each side as the kernel has.
    """

    def __init__(self, L, K, eps):
        from scipy.fft import next_fast_len
        from scipy.special import i0
        self.count = min(max(2 * int(np.ceil((1.0 - np.log10(eps)) / 2)), 4), 16)
        self.margin = self.count // 2
        self.steps = next_fast_len(max(2 * K + 2, 16), real=True)  # from pole to pole
        self.rows = 2 * next_fast_len(max(2 * L + 2, 16), real=True)
        self.columns = self.steps + 1 + self.count
        beta = 0.74 * np.pi * self.count
        self.table = _table(self.count, beta)

        def correction(wave, lines):
            s = np.sqrt(beta**2 - (np.pi * self.count * wave / lines)**2)
            return i0(beta) * s / np.sinh(s) / self.count

        self.meridian = correction(np.arange(K + 1), 2 * self.steps)
        self.parallel = correction(np.arange(L + 1), self.rows)
        m, n = self.margin, self.margin + self.steps
        # a column of the margin has the values of its mirror image, half a turn away: those of odd orders change sign
        self.mirror = ((slice(0, m), slice(2 * m, m, -1)), (slice(n + 1, n + 1 + m), slice(n - 1, n - 1 - m, -1)))

    def places(self, Z, even):
        """Return an order in which close points are together, and their rows and columns in that order; (n,) each."""
        from .._kernels import sort_cells
        x, y, z = Z.T
        if even:  # the northern one of the two opposite points
            x, y, z = np.copysign(1.0, z) * (x, y, z)
        phi, theta = np.arctan2(y, x), np.arctan2(np.sqrt(x * x + y * y), z)
        if np.isnan(phi.sum() + theta.sum()):  # compiled code would write anywhere
            raise ValueError("Points contain NaN; harmonics need finite coordinates.")
        phi += 2 * np.pi * (phi < 0)
        phi *= self.rows / (2 * np.pi)
        theta *= (2 if even else 1) * self.steps / np.pi
        theta += self.margin
        order, row, column = np.empty(len(Z), dtype=np.int32), np.empty(len(Z)), np.empty(len(Z))
        sort_cells(phi, theta, self.rows, self.columns, order, row, column)
        return order, row, column

    def values(self, fine, n_threads):
        """Return the functions on the grid (rows, columns, b) from their orders (degree + 1, columns, b)."""
        from scipy.fft import irfft
        for copy, source in self.mirror:
            fine[0::2, copy], fine[1::2, copy] = fine[0::2, source], -fine[1::2, source]
        return irfft(fine, self.rows, axis=0, norm="forward", workers=n_threads)

    def interpolate(self, places, grid, out, n_threads):
        """Fill values (n, b) at places."""
        from .._kernels import grid_values
        order, row, column = places

        def part(own):
            grid_values(order[own], row[own], column[own], self.count, self.table, grid, out)

        _share(part, _slices(len(row), n_threads))

    def add(self, places, weight, total, n_threads):
        """Add weighted places to a grid (rows + 2 margin + 1, columns + 16), margin rows first."""
        from .._kernels import grid_sums
        order, row, column = places
        weight = weight[order]
        lock = Lock()

        def part(own):
            # cells are in the order of rows: a thread's points are on few of them
            low, high = int(row[own].min()) - self.margin, int(row[own].max()) + self.margin + 1
            here = np.zeros((high - low, total.shape[1]))
            grid_sums(row[own], column[own], weight[own], self.count, self.table, low, here)
            with lock:
                total[low + self.margin:high + self.margin] += here

        _share(part, _slices(len(row), n_threads))

    def orders(self, total, degree, n_threads):
        """Return orders (degree + 1, steps + 1) of a grid to which points were added: the transpose of `values`."""
        from scipy.fft import rfft
        m, n = self.margin, self.rows
        inner = total[m:m + n, :self.columns]
        inner[:m + 1] += total[m + n:, :self.columns]
        inner[n - m:] += total[:m, :self.columns]
        out = rfft(inner, axis=0, workers=n_threads)[:degree + 1]
        for copy, source in self.mirror:
            out[0::2, source] += out[0::2, copy]
            out[1::2, source] -= out[1::2, copy]
        return out[:, m:m + self.steps + 1]


def _slices(size, count):
    """Cut a range into equal slices, none of them empty."""
    edges = np.unique(np.linspace(0, size, count + 1).astype(int))
    return [slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]


def _share(work, parts):
    """Call work(part) for all parts, each in a thread."""
    if len(parts) > 1:
        with ThreadPoolExecutor(len(parts)) as pool:
            list(pool.map(work, parts))
    elif parts:
        work(parts[0])


@lru_cache
def _table(count, beta):
    """Return the polynomials of degree 15 of the kernel at its `count` lines, in the place between lines; (16, 16)."""
    from numpy.polynomial import chebyshev
    from scipy.special import i0
    y = np.cos(np.pi * (np.arange(32) + 0.5) / 32)
    out = np.zeros((16, 16))
    for i in range(count):
        z = (y + 1 + 2 * i) / count - 1
        out[i] = chebyshev.cheb2poly(chebyshev.chebfit(y, i0(beta * np.sqrt(1 - z * z)) / i0(beta), 15))
    return out


class SphericalHarmonics(Harmonics):
    r"""Spherical harmonics on the sphere of radius R in space.

    Parameters
    ----------
    degree : int
        Largest level.
    radius : float
    even : bool
        Keep even levels only, for functions that do not tell a point from its antipode; `analyse` counts each point
        and its antipode. An odd degree is then lowered by one.

    Notes
    -----
    :math:`\phi_{lm}=Y_l^m/R`, :math:`Y_l^m(\theta,\varphi)=\bar P_l^m(\cos\theta)e^{im\varphi}`, :math:`m=-l..l`,
    with the phase :math:`(-1)^m` in :math:`\bar P_l^m` and eigenvalues :math:`l(l+1)/R^2`. Functions are real, so that
    :math:`C_{l,-m}=(-1)^m\overline{C_{lm}}`, and only m >= 0 is stored, level by level: (l, m) at l (l + 1) / 2 + m,
    or at (l / 2)^2 + m where only even levels are kept.

    Continued over the poles, a spherical harmonic is a trigonometric polynomial in both angles (the double Fourier
    sphere: Townsend, Wilber and Wright, SIAM J. Sci. Comput. 38 (2016) C403). Legendre sums on equally spaced rings,
    cosine and sine transforms along the meridians and the non-uniform Fourier transform of `_Grid` make up the
    values at points (Reinecke, Belkner and Carron, Astron. Astrophys. 678 (2023) A165), and the transposes of these
    steps, in the opposite order, the sums over points. No quadrature is involved. Even levels have even wave numbers in
    :math:`\theta`: there the angle u along the meridian is :math:`2\theta`, and half as many wave numbers serve.

    The gradient comes from the three fields :math:`x\times\nabla f`, which are spherical harmonics of
    the same levels, so that nothing is singular at the poles.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.harmonics.sphere2 import SphericalHarmonics
    >>> earth = SphericalHarmonics(1)
    >>> C = earth.analyse(np.array([[0.0, 0.0, 1.0]]), np.ones(1), 1e-12)
    >>> np.round(C * np.sqrt(4 * np.pi), 9).real + 0  # 1, sqrt(3) cos(theta), 0
    array([1.        , 1.73205081, 0.        ])
    """

    def __init__(self, degree, radius=1.0, even=False):
        self.degree = degree - degree % 2 if even else degree
        self.radius, self.even = radius, even
        self._level = np.arange(0, self.degree + 1, 2 if even else 1)
        self._first = np.append(0, np.cumsum(self._level + 1))  # where each level starts
        self.shape = (int(self._first[-1]),)
        self._first = self._first[:-1]
        self.eigenvalue = self._level * (self._level + 1.0) / radius**2
        self.multiplicity = 2.0 * self._level + 1.0

    def __eq__(self, other):
        return isinstance(other, SphericalHarmonics) and (
            (self.degree, self.radius, self.even) == (other.degree, other.radius, other.even))

    __hash__ = None

    @property
    def _waves(self):
        """Largest wave number along a meridian."""
        return self.degree // 2 if self.even else self.degree

    def _rings(self):
        """Return norm, polar, sin, cos, v as the compiled sums want them, and the number of steps along a meridian."""
        from scipy.fft import next_fast_len
        half = 2 * next_fast_len((self._waves + 2) // 2, real=True)
        # northern rings; where only even levels are kept, half a meridian is a whole period
        theta = np.arange(half + 1) * (0.5 * np.pi / half) if self.even else np.arange(half // 2 + 1) * (np.pi / half)
        sin, cos = np.sin(theta), np.cos(theta)
        polar = int(np.searchsorted(theta, 0.25 * np.pi))
        v = np.append(-sin[:polar]**2, cos[polar:]**2)
        m = np.arange(1.0, self.degree + 1)
        norm = np.sqrt(np.append(1.0, np.cumprod(1 + 0.5 / m)) / (4 * np.pi)) / self.radius
        norm[1::2] *= -1
        return norm, polar, sin, cos, v, half

    def _legendre(self, where, transpose, coef, rings, n_threads):
        """Fill rings (degree + 1, j, b) from coefficients (b, c), or the other way round."""
        from .._kernels import legendre
        coef, rings = (a.view(float).reshape(*a.shape, 2) for a in (coef, rings))

        def part(first):
            legendre(first, n_threads, self.degree, self.even, *where, transpose, coef, rings)

        _share(part, range(n_threads))

    def analyse(self, Z, weight, eps, n_threads=1):
        from scipy.fft import dct, dst
        K, L = self._waves, self.degree
        grid = _Grid(L, K, eps)
        total = np.zeros((grid.rows + grid.count + 1, grid.columns + 16))
        for a in range(0, len(Z), CHUNK):
            grid.add(grid.places(Z[a:a + CHUNK], self.even), weight[a:a + CHUNK], total, n_threads)
        fine = grid.orders(total, L, n_threads)
        fine *= grid.parallel[:, None]
        fine[:, 1:-1] *= 0.5
        *where, half = self._rings()
        rings = np.zeros((L + 1, half + 1, 1), dtype=complex)
        # each order is an even or an odd function of the angle along the meridian: cosines or sines
        waves = dct(fine[0::2], type=1, workers=n_threads)[:, :K + 1] * grid.meridian
        rings[0::2, :, 0] = dct(waves, type=1, n=half + 1, workers=n_threads)
        if L:
            waves = dst(fine[1::2, 1:-1], type=1, workers=n_threads)[:, :K] * grid.meridian[1:]
            rings[1::2, 1:-1, 0] = dst(waves, type=1, n=half - 1, workers=n_threads)
        rings /= half
        rings[:, [0, -1]] *= 0.5
        if not self.even:
            rings[:, half // 2] *= 0.5  # the equator is its own mirror image
        coef = np.empty((1, *self.shape), dtype=complex)
        self._legendre(where, True, coef, rings, n_threads)
        return 2 * coef[0] if self.even else coef[0]

    def synthesise(self, coefs, Z, eps, n_threads=1):
        grid = _Grid(self.degree, self._waves, eps)
        values = [self._on_grid(np.ascontiguousarray(coefs[f:f + 4], dtype=complex), grid, n_threads)
                  for f in range(0, len(coefs), 4)]
        out = np.empty((len(coefs), len(Z)))
        for a in range(0, len(Z), CHUNK):
            places = grid.places(Z[a:a + CHUNK], self.even)
            for f, some in enumerate(values):
                here = np.empty((len(places[1]), some.shape[2]))
                grid.interpolate(places, some, here, n_threads)
                out[4 * f:4 * f + 4, a:a + CHUNK] = here.T
        return out

    def _on_grid(self, coefs, grid, n_threads):
        """Return the functions of some coefficients (b, c) on a grid (rows, columns, b)."""
        from scipy.fft import dct, dst
        K, L, b = self._waves, self.degree, len(coefs)
        *where, half = self._rings()
        rings = np.empty((L + 1, half + 1, b), dtype=complex)
        self._legendre(where, False, coefs, rings, n_threads)
        fine = np.zeros((L + 1, grid.columns, b), dtype=complex)
        inner = fine[:, grid.margin:grid.margin + grid.steps + 1]
        scale = grid.meridian[:, None] / (2 * half)
        waves = dct(rings[0::2], type=1, axis=1, workers=n_threads)[:, :K + 1] * scale
        inner[0::2] = dct(waves, type=1, n=grid.steps + 1, axis=1, workers=n_threads)
        if L:
            waves = dst(rings[1::2, 1:-1], type=1, axis=1, workers=n_threads)[:, :K] * scale[1:]
            inner[1::2, 1:-1] = dst(waves, type=1, n=grid.steps - 1, axis=1, workers=n_threads)
        inner *= grid.parallel[:, None, None]
        return grid.values(fine, n_threads)

    def spread(self, per_level):
        return np.repeat(per_level, self._level + 1)

    def power(self, coef):
        square = 2 * (coef.real**2 + coef.imag**2)
        square[self._first] *= 0.5
        return np.add.reduceat(square, self._first)

    def fields(self, coef):
        level = self.spread(self._level)
        m = np.arange(level.size) - self.spread(self._first)
        step = np.sqrt((level - m) * (level + m + 1.0))  # factor of the ladder operators between m and m + 1
        lowered = step * np.append(coef[1:], 0.0)  # step is 0 at m = l
        raised = np.append(0.0, (step * coef)[:-1])
        raised[self._first] = -lowered[self._first].conj()  # from m = -1
        return np.array([0.5j * (raised + lowered), 0.5 * (raised - lowered), 1j * m * coef])

    def gradient(self, Z, values):
        return np.cross(values.T, Z) / self.radius**2

    def restrict(self, degree, coef):
        lower = SphericalHarmonics(degree, self.radius, self.even)
        return lower, coef[:lower.shape[0]].copy()
