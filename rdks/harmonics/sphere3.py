"""Wigner functions: eigenfunctions of the three-dimensional sphere and of the rotations."""
from __future__ import annotations

from functools import lru_cache

import numpy as np

from .base import CHUNK, Harmonics

__all__ = ["WignerFunctions"]

# A coarser grid of the non-uniform transform saves FFT at the price of a wider kernel at each point. By (smallest
# eps, points per mode): measured break-even in three dimensions.
_GRIDS = ((1e-9, 0.05, 1.25), (1e-12, 0.2, 1.5))


class WignerFunctions(Harmonics):
    r"""Wigner functions on the sphere :math:`S^3` of radius R, unit quaternions times R.

    Parameters
    ----------
    degree : int
        Largest level l; that of the rotations is :math:`j=l/2`.
    radius : float
        R; rotations are the sphere of radius 2 up to sign.
    even : bool
        Keep even levels only, functions that are the same at x and -x; sums over points then run over x and -x.

    Attributes
    ----------
    level : ndarray of int, shape (levels,)
        l = 0, ..., `degree`, or the even ones.

    Notes
    -----
    The level l has the eigenvalue :math:`l(l+2)/R^2` and the :math:`(l+1)^2` functions

    .. math:: \phi_{jmn}=\sqrt{\tfrac{l+1}{2\pi^2R^3}}\,D^j_{mn},\qquad
              D^j_{mn}(\alpha,\beta,\gamma)=e^{-im\alpha}d^j_{mn}(\beta)e^{-in\gamma},\qquad
              d^j_{mn}(\beta)=(-i)^{m-n}\sum_k\Delta_{mk}\Delta_{nk}e^{-ik\beta}

    of :math:`q=e^{\mathbf k\alpha/2}e^{\mathbf j\beta/2}e^{\mathbf k\gamma/2}`, with :math:`\Delta=d^j(\pi/2)`. So
    sums over points are three-dimensional non-uniform Fourier transforms (FINUFFT: Barnett, Magland and af Klinteberg,
    SIAM J. Sci. Comput. 41 (2019) C479), and sums over k for each (m, n), one transform for integer j and another for
    half-integer j. There is no singularity where :math:`\beta` is 0 or :math:`\pi` and the angles are not unique.
    Formulas: Varshalovich, Moskalev and Khersonskii, Quantum Theory of Angular Momentum (1988), chapter 4.

    Coefficients of real functions obey :math:`C_{-m,-n}=(-1)^{m-n}\overline{C_{mn}}`: those of :math:`m\ge0` are kept,
    in a vector with integer j first, level by level, m by m.

    The gradient follows from the fields :math:`X_af(q)=\partial_sf(qe^{se_a/R})` for the three quaternion units
    :math:`e_a`: ladder operators on the index n, so they are band-limited as f is.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.harmonics.sphere3 import WignerFunctions
    >>> turns = WignerFunctions(8, radius=2.0, even=True)
    >>> turns.eigenvalue  # j (j + 1)
    array([ 0.,  2.,  6., 12., 20.])
    >>> C = turns.analyse(np.array([[0.0, 0.0, 0.0, 2.0]]), np.ones(1), 1e-12)
    >>> np.round(turns.power(C) * 16 * np.pi**2 / (2 * np.array([0, 1, 2, 3, 4]) + 1)**2, 9)  # two points, x and -x
    array([4., 4., 4., 4., 4.])
    """

    def __init__(self, degree, radius=1.0, even=False):
        self.degree, self.radius, self.even = int(degree), float(radius), bool(even)
        self.level = np.arange(0, self.degree + 1, 2 if even else 1)
        self.eigenvalue = self.level * (self.level + 2) / self.radius**2
        self.multiplicity = (self.level + 1.0) ** 2
        self._parts = [_Part(first, self.degree) for first in (0, 1)[:1 if even else 2] if first <= self.degree]
        # of each coefficient: its level, and how many of the complete set it stands for
        self._of = np.concatenate([p.l for p in self._parts]) // (2 if even else 1)
        self._count = np.concatenate([np.where(p.m > 0, 2.0, 1.0) for p in self._parts])
        self._height = np.sqrt((self.level + 1) / (2 * np.pi**2 * self.radius**3))
        self.shape = (self._of.size,)

    def __eq__(self, other):
        return isinstance(other, WignerFunctions) and \
            (self.degree, self.radius, self.even) == (other.degree, other.radius, other.even)

    __hash__ = None

    def _split(self, coef):
        """Split coefficients (..., K) into those of the parts."""
        return np.split(coef, [p.l.size for p in self._parts][:-1], axis=-1)

    def analyse(self, Z, weight, eps, n_threads=1):
        found = []
        for part in self._parts:
            size, centre = part.modes(1)
            plan, F = _plan(1, size, len(Z), eps, n_threads), np.zeros(size, dtype=complex)
            for a in range(0, len(Z), CHUNK):
                angles = _angles(Z[a:a + CHUNK])
                plan.setpts(*angles)
                F += plan.execute(weight[a:a + CHUNK] * _turn(centre, angles))
            found.append(part.contract(F))
        return np.concatenate(found) * self.spread((2.0 if self.even else 1.0) * self._height)

    def synthesise(self, coefs, Z, eps, n_threads=1):
        coefs = self.spread(self._height) * coefs
        out = np.zeros((len(coefs), len(Z)))
        paired = len(coefs) // 2 * 2
        for rows, together in ((slice(0, paired), 2), (slice(paired, None), 1)):
            values = out[rows].reshape(-1, together, len(Z))
            for part, C in zip(self._parts, self._split(coefs[rows]), strict=True):
                if len(values):
                    _add_values(part, C.reshape(*values.shape[:2], -1), Z, eps, n_threads, values)
        return out

    def spread(self, per_level):
        return np.asarray(per_level)[self._of]

    def power(self, coef):
        return np.bincount(self._of, self._count * (coef.real**2 + coef.imag**2), minlength=len(self.level))

    def fields(self, coef):
        n, raised = (np.concatenate([getattr(p, name) for p in self._parts]) for name in ("n", "raised"))
        # D(q e^{s e/R}) = D(q) exp(-2i (s/R) J): J acts on the coefficients of each row, which are neighbours;
        # the factor `raised` is zero at the end of a row
        up, down = np.zeros_like(coef), np.zeros_like(coef)
        up[1:] = (raised * coef)[:-1]
        down[:-1] = raised[:-1] * coef[1:]
        return np.array([-1j * (up + down), down - up, -2j * n * coef]) / self.radius

    def gradient(self, Z, values):
        x, y, z, w = Z.T / self.radius
        a, b, c = values
        # the products of the unit quaternion with i, j, k
        return np.stack([a * w - b * z + c * y, a * z + b * w - c * x, b * x - a * y + c * w, -a * x - b * y - c * z],
                        axis=1)

    def restrict(self, degree, coef):
        lower = WignerFunctions(degree, self.radius, self.even)
        return lower, np.concatenate([C[..., :p.l.size]
                                      for C, p in zip(self._split(coef), lower._parts, strict=False)], axis=-1)

    def average(self, coef, left, right):
        r"""Return the coefficients of the sum over images of the points under two finite groups.

        Parameters
        ----------
        coef : ndarray, shape `shape`
            Coefficients of a sum over points.
        left, right : ndarray, shapes (g, 4), (h, 4)
            Unit quaternions (x, y, z, w): the images of q are :math:`sqc` for all s of `left` and c of `right`. With
            ``even=True`` one of :math:`\pm s` is enough.

        Returns
        -------
        ndarray, shape `shape`

        Notes
        -----
        The matrices of a level are multiplied by :math:`\sum_s\overline{D^j(s)}` from the left and
        :math:`\sum_c\overline{D^j(c)}` from the right, as D is a homomorphism.

        Examples
        --------
        >>> import numpy as np
        >>> from rdks.harmonics.sphere3 import WignerFunctions
        >>> turns = WignerFunctions(8, radius=2.0, even=True)
        >>> Z, half_turn = np.array([[0.0, 0.0, 0.0, 2.0]]), np.array([[0.0, 0, 0, 1], [0, 0, 1, 0]])
        >>> C = turns.average(turns.analyse(Z, np.ones(1), 1e-12), half_turn[:1], half_turn)
        >>> both = turns.analyse(2 * half_turn, np.ones(2), 1e-12)
        >>> bool(np.allclose(C, both, rtol=0, atol=1e-11))
        True
        """
        out = []
        for part, C in zip(self._parts, self._split(coef), strict=True):
            sums = [part.contract(part.moments(np.asarray(group, dtype=float))) for group in (left, right)]
            for S, M, T in zip(*(part.matrices(c) for c in (sums[0], C, sums[1])), strict=True):
                out.append((S[len(S) // 2:] @ M @ T).ravel())
        return np.concatenate(out)


class _Part:
    """The levels of one parity: integer or half-integer j.

    Attributes
    ----------
    half : float
        0 or 1/2, the smallest j; j, and m and k where they are not negative, are half + 0, 1, ..., count - 1.
    count, width : int
        Number of values of j, and of m, n or k of both signs.
    l, m, n : ndarray, shape (K,)
        Indices of the coefficients that are kept.
    raised : ndarray, shape (K,)
        sqrt(j (j + 1) - n (n + 1)), the factor of the step from n to n + 1.
    """

    def __init__(self, first, degree):
        self.half, self.count = 0.5 * first, (degree - first) // 2 + 1
        self.width = 2 * self.count - 1 + first
        j = self.half + np.arange(self.count)
        signed = j[-1] - np.arange(self.width)[::-1]
        self.zero = self.width - self.count  # where m, n, k >= 0 begin among both signs
        # an array by j, m >= 0, n of both signs has the coefficients that are kept at these places
        self.at = np.flatnonzero((j[:, None] <= j[:, None, None]) & (np.abs(signed) <= j[:, None, None]))
        a, b, c = np.unravel_index(self.at, (self.count, self.count, self.width))
        self.l = 2 * a + first
        self.m, self.n = j[b], signed[c]
        self.raised = np.sqrt(j[a] * (j[a] + 1) - self.n * (self.n + 1))
        steps = np.rint(self.m - self.n).astype(int)
        self.phase = np.array([1, 1j, -1, -1j])[steps % 4]
        self.sign = 1.0 - 2.0 * ((np.arange(self.count)[:, None] + np.arange(self.width) + self.zero) % 2)
        self.Delta = _quarter_turns(first, self.count)

    def modes(self, functions):
        """Return the numbers of m, n, k of the transform of one real function or two, and which are in their middle.

        One function is the real part of the sum over m >= 0.
        """
        if functions == 1:
            return (self.count, self.width, self.width), (self.half + self.count // 2, self.half, self.half)
        return (self.width,) * 3, (self.half,) * 3

    def _products(self, m):
        """Return Delta_mk Delta_nk for n = half, ..., m and j >= m; shape (n, j, k)."""
        return self.Delta[m, m:] * self.Delta[:m + 1, m:]

    def _take(self, X, m, start):
        """Gather from X (m >= 0, n, s, b) what belongs to (m, n), (m, -n), (n, m), (n, -m); shape (n, s, 4, b).

        Delta_{-n,k} = (-1)^{j-k} Delta_{nk}, so one array of products serves all four if signs alternate with s, which
        is j or k from `half` + `start` on, where one index is negative.
        """
        zero, last = self.zero, self.count - 1
        out = np.stack([X[m, zero:zero + m + 1], X[m, last - m:last + 1][::-1],
                        X[:m + 1, zero + m], X[:m + 1, last - m]], axis=2)
        out[:, (start + 1) % 2::2, 1::2] *= -1
        return out

    def _put(self, X, m, start, values):
        """Put back what was gathered by `_take`."""
        zero, last = self.zero, self.count - 1
        values[:, (start + 1) % 2::2, 1::2] *= -1
        X[m, zero:zero + m + 1], X[m, last - m:last + 1] = values[:, :, 0], values[::-1, :, 1]
        X[:m + 1, zero + m], X[:m + 1, last - m] = values[:, :, 2], values[:, :, 3]

    def contract(self, F):
        r"""Return :math:`i^{m-n}\sum_k\Delta_{mk}\Delta_{nk}F_{mnk}`; F (m >= 0, n, k) to shape (K,)."""
        # Delta_{m,-k} Delta_{n,-k} = (-1)^{m-n} Delta_mk Delta_nk
        G = F[..., self.zero:].copy()
        again = 1 if self.half == 0 else 0  # k = 0 is there once
        G[..., again:] += self.sign[..., None] * F[..., self.count - 1::-1][..., again:]
        H = np.zeros((self.count, self.width, self.count, 1), dtype=complex)
        for m in range(self.count):
            X = self._take(G[..., None], m, 0)
            Y = self._products(m) @ X.reshape(m + 1, self.count, -1).view(float)
            self._put(H[:, :, m:], m, m, Y.view(complex).reshape(m + 1, -1, 4, 1))
        return self.phase * H[..., 0].transpose(2, 0, 1).ravel()[self.at]

    def expand(self, C):
        """Return the Fourier modes of one real function, or of two as real and imaginary part.

        Parameters
        ----------
        C : ndarray, shape (1, K) or (2, K)

        Returns
        -------
        ndarray
            Of exp(-i (m alpha + n gamma + k beta)), see `modes`.
        """
        H = np.zeros((self.count * self.count * self.width, len(C)), dtype=complex)
        H[self.at] = (self.phase.conj() * C).T
        H = H.reshape(self.count, self.count, self.width, -1).transpose(1, 2, 0, 3)
        G = np.zeros((self.count, self.width, self.count, len(C)), dtype=complex)
        for m in range(self.count):
            X = self._take(H[:, :, m:], m, m)
            Y = self._products(m).swapaxes(1, 2) @ X.reshape(*X.shape[:2], -1).view(float)
            self._put(G, m, 0, Y.view(complex).reshape(m + 1, self.count, 4, -1))
        F = np.empty(self.modes(len(C))[0], dtype=complex)
        if len(C) == 1:
            self._unfold(F, G[..., 0])
            F[1 if self.half == 0 else 0:] *= 2
            return F
        # the modes at -(m, n, k) of a real function are the conjugates of those at (m, n, k)
        self._unfold(F[self.count - 1::-1, ::-1, ::-1], (G[..., 0] - 1j * G[..., 1]).conj())
        self._unfold(F[self.zero:], G[..., 0] + 1j * G[..., 1])
        return F

    def _unfold(self, F, G):
        """Fill F (m >= 0, n, k) from the modes G of k >= 0."""
        F[..., self.count - 1::-1] = self.sign[..., None] * G
        F[..., self.zero:] = G

    def moments(self, q):
        """Return the sums over a few unit quaternions of exp(i (m alpha + n gamma + k beta)); (m >= 0, n, k)."""
        n = self.half + np.arange(self.width) - self.width // 2
        first, second, third = (np.exp(1j * np.outer(angle, n)) for angle in _angles(q))
        return np.tensordot(first[:, self.zero:], second[:, :, None] * third[:, None, :], axes=(0, 0))

    def matrices(self, C):
        """Yield the matrices (l + 1, l + 1) of the levels, negative m included."""
        start = 0
        for a in range(self.count):
            size = 2 * a + 1 + round(2 * self.half)
            upper = C[start:start + (a + 1) * size].reshape(a + 1, size)
            start += upper.size
            sign = self.sign[:a + 1, self.zero + a + 1 - size:self.zero + a + 1]
            lower = (sign * upper).conj()[::-1, ::-1]
            yield np.concatenate([lower[:size - a - 1], upper])


@lru_cache(maxsize=8)
def _quarter_turns(first, count):
    r"""Return :math:`d^j_{mk}(\pi/2)` for j, m, k = first/2 + 0, ..., count - 1; shape (m, j, k), 0 for m > j or k > j.

    The columns are eigenvectors of :math:`J_x`: its three-term recurrence from m = j down to m >= 0, where the
    solution grows or oscillates and errors do not grow, then divided by the norm.
    """
    j = 0.5 * first + np.arange(count)[:, None]
    k = j.T
    Delta = np.zeros((count, count, count))
    before, here = np.zeros((count, count)), np.where(k <= j, 1.0 - 2.0 * (np.rint(j - k) % 2), 0.0)
    norm = np.zeros((count, count))
    for step in range(count):  # m = j - step, for all j at once
        m = j[step:] - step
        which = np.arange(step, count)
        Delta[which - step, which] = here
        norm[step:] += np.where(m > 0, 2.0, 1.0) * here**2
        if step + 1 < count:
            m, here, before, top = m[1:], here[1:], before[1:], j[step + 1:]
            rise, fall = top * (top + 1) - m * (m + 1), top * (top + 1) - m * (m - 1)
            before, here = here, (2 * k * here - np.sqrt(rise) * before) / np.sqrt(fall)
    Delta /= np.sqrt(np.where(norm > 0, norm, 1.0))
    Delta.setflags(write=False)
    return Delta


def _angles(Z):
    """Return the Euler angles alpha, gamma, beta of quaternions of any length; alpha, gamma in [-2 pi, 2 pi]."""
    x, y, z, w = np.ascontiguousarray(Z.T)
    plus, minus = np.arctan2(z, w), np.arctan2(-x, y)
    return plus + minus, plus - minus, 2 * np.arctan2(np.hypot(x, y), np.hypot(z, w))


def _turn(centre, angles):
    """Return exp(i centre . angles), which moves the modes of a transform by `centre`; shape (n,)."""
    phase = sum(c * a for c, a in zip(centre, angles, strict=True))
    return np.cos(phase) + 1j * np.sin(phase)


def _add_values(part, groups, Z, eps, n_threads, out):
    """Add to out (g, 1 or 2, q) the values at Z of groups (g, 1 or 2, K) of functions that share a transform."""
    size, centre = part.modes(groups.shape[1])
    plan = _plan(2, size, len(Z), eps, n_threads)
    for a in range(0, len(Z), CHUNK):
        angles = _angles(Z[a:a + CHUNK])
        plan.setpts(*angles)
        back = _turn(centre, angles).conj() if any(centre) else 1.0
        for C, values in zip(groups, out, strict=True):
            # the modes anew for each chunk: those of all functions at once would be most of the memory
            v = plan.execute(part.expand(C)) * back
            values[0, a:a + CHUNK] += v.real
            if len(C) == 2:
                values[1, a:a + CHUNK] += v.imag


def _plan(kind, size, n_points, eps, n_threads):
    import finufft
    density = min(n_points, CHUNK) / np.prod(size, dtype=float)
    grid = next((grid for least, most, grid in _GRIDS if eps >= least and density < most), 2.0)
    return finufft.Plan(kind, size, 1, eps=eps, isign=1 if kind == 1 else -1, nthreads=n_threads, upsampfac=grid)
