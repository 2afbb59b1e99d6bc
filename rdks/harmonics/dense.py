"""Eigenfunctions by matrix products: products of spheres and circles, spheres and tori of many dimensions."""
from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, lru_cache

import numpy as np
from scipy.special import gammaln

from ..manifolds.symmetry import affine_maps
from .base import Harmonics, degree_for, levels

__all__ = ["DenseHarmonics", "cutoff_for", "reflections", "sizes"]

# Values of basis functions that are worked on together, some 4 MB, and points at least and at most.
_VALUES, _ROWS = 2**19, (128, 512)
# Pieces in which pairs of functions are multiplied at most, and functions in each at least: each piece leaves out those
# pairs whose eigenvalues add up to too much.
_PIECES, _THIN = 8, 16
# Functions of one factor at most: recurrences of higher degree would leave the range of floats.
_WIDEST = 20_000
# Width of a bin of lam t / 2, where eigenvalues of many factors are counted.
_BIN = 0.05
# Eigenvalues that are equal up to rounding are on one side of the cutoff.
_SLACK = 1 + 1e-12


class DenseHarmonics(Harmonics):
    r"""Products of eigenfunctions of the factors, all with an eigenvalue up to a cutoff, as matrices of values.

    Parameters
    ----------
    factors : tuple of SpaceForm
        Circles and spheres of any dimension.
    cutoff : float
        Largest eigenvalue, that of the product; this is the `degree`.
    left : tuple of int, optional
        Which factors are on the left, see below; by default those that make both sides about equally many functions.

    Notes
    -----
    The factors are divided in two groups with real orthonormal eigenfunctions :math:`\phi_a` and :math:`\psi_b`; the
    coefficients are a matrix,

    .. math:: C=\Phi^\top\mathrm{diag}(w)\Psi,\qquad p(x)=\sum_{ab}\phi_a(x)C_{ab}\psi_b(x),

    zero where :math:`\lambda_a+\lambda_b` is beyond the cutoff. A point costs as many multiplications as there are
    coefficients, at the speed of a matrix product, and the values of the functions of both groups, of which there are
    far fewer. Products of matrices run on as many threads as BLAS is set to; the rest is shared between `n_threads`.
    Sums are exact up to rounding, whatever `eps` is asked of `analyse` and `synthesise`.

    Spherical harmonics are homogeneous harmonic polynomials, by recursion over the dimension (Dai and Xu,
    Approximation Theory and Harmonic Analysis on Spheres and Balls, 2013, Theorem 1.5.1): with
    :math:`x=(x',x_{d+1})\in R^{d+1}`, :math:`\alpha=m+(d-1)/2`, :math:`n=l-m`,

    .. math:: Y_{lm\mu}(x)=h_n^{-1/2}|x|^nC_n^\alpha(x_{d+1}/|x|)\,Y_{m\mu}(x'),\qquad
              h_n=\frac{\pi2^{1-2\alpha}\Gamma(n+2\alpha)}{n!(n+\alpha)\Gamma(\alpha)^2},

    which knows no angles, so that nothing is singular at a pole. Partial derivatives of such polynomials are
    harmonic too, of degree l - 1: the gradient is made from functions of the same basis.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.harmonics.dense import DenseHarmonics
    >>> from rdks.manifolds import Circle, Product, Sphere
    >>> space = Product(Sphere(2), Circle())
    >>> basis = DenseHarmonics(space.factors(), 2.0)
    >>> basis.shape  # 1, cos, sin; 1, x, y, z
    (3, 4)
    >>> basis.eigenvalue, basis.multiplicity
    (array([0., 2., 1.]), array([1., 3., 2.]))
    >>> C = basis.analyse(np.array([[0.0, 0.0, 1.0, 0.5]]), np.ones(1), 1e-12)
    >>> np.round(basis.power(C) * 8 * np.pi**2, 9)
    array([1., 3., 2.])
    """

    def __init__(self, factors, cutoff, left=None):
        self.factors, self.degree = tuple(factors), float(cutoff)
        self._left = _halves(self.factors, self.degree) if left is None else tuple(left)
        # of each side: which factors, and their functions
        self._who = self._left, tuple(i for i in range(len(self.factors)) if i not in self._left)
        self._sides = [_side(self.factors, who, self.degree) for who in self._who]
        a, b = self._sides
        self.shape = a.eigenvalue.size, b.eigenvalue.size
        # eigenvalues that are the same sum of levels are equal to the last bit
        (lam, self._row, many), (mu, self._column, more) = (
            np.unique(side.eigenvalue, return_inverse=True, return_counts=True) for side in self._sides)
        total = lam[:, None] + mu
        self._kept = total <= self.degree * _SLACK
        self.eigenvalue = total[self._kept]
        self.multiplicity = (many[:, None] * more)[self._kept].astype(float)

    def __eq__(self, other):
        return isinstance(other, DenseHarmonics) and (
            (self.factors, self.degree, self._left) == (other.factors, other.degree, other._left))

    __hash__ = None

    def _steps(self, rows, columns):
        """Yield pieces of the matrix of coefficients, as a range of `rows` and the number of `columns` that they need.

        Both are indices of functions in ascending order, and so are eigenvalues.
        """
        lam, mu = self._sides[0].eigenvalue[rows], self._sides[1].eigenvalue[columns]
        size = max(-(-len(rows) // _PIECES), _THIN)
        for a in range(0, len(rows), size):
            count = int(np.searchsorted(mu, self.degree * _SLACK - lam[a], side="right"))
            if count:
                yield slice(a, a + size), count

    def _values(self, Z):
        """Values of the functions of both sides, (K, n) each."""
        return [side.values(Z) for side in self._sides]

    def _blocks(self, n, n_threads):
        """Cut points into blocks, and share these between threads: a list of lists of slices."""
        size = int(np.clip(_VALUES // sum(self.shape), *_ROWS))
        blocks = [slice(a, min(a + size, n)) for a in range(0, n, size)]
        return [blocks[k::n_threads] for k in range(min(n_threads, len(blocks)))]

    def analyse(self, Z, weight, eps, n_threads=1):
        steps = list(self._steps(*(np.arange(k) for k in self.shape)))

        def work(blocks):
            total = np.zeros(self.shape)
            for rows in blocks:
                phi, psi = self._values(Z[rows])
                phi *= weight[rows]
                for a, count in steps:
                    total[a, :count] += phi[a] @ psi[:count].T
            return total

        out = np.zeros(self.shape)
        for part in _share(work, self._blocks(len(Z), n_threads)):
            out += part
        out[~self._kept[self._row][:, self._column]] = 0.0
        return out

    def synthesise(self, coefs, Z, eps, n_threads=1):
        coefs = np.asarray(coefs).real
        # symmetries make whole rows and columns zero
        rows, columns = (np.flatnonzero(coefs.any(axis=axes)) for axes in ((0, 2), (0, 1)))
        steps = [(a, count, coefs[:, rows[a, None], columns[:count]].reshape(-1, count))
                 for a, count in self._steps(rows, columns)]
        complete = (len(rows), len(columns)) == self.shape
        out = np.zeros((len(coefs), len(Z)))

        def work(blocks):
            for block in blocks:
                phi, psi = self._values(Z[block])
                if not complete:
                    phi, psi = phi[rows], psi[columns]
                for a, count, C in steps:
                    values = (C @ psi[:count]).reshape(len(coefs), -1, psi.shape[1])
                    out[:, block] += np.einsum("ban,an->bn", values, phi[a])

        _share(work, self._blocks(len(Z), n_threads))
        return out

    def spread(self, per_level):
        table = np.zeros(self._kept.shape)
        table[self._kept] = per_level
        return table[self._row][:, self._column]

    def power(self, coef):
        # functions are in the order of their levels
        first = [np.searchsorted(index, np.arange(index[-1] + 1)) for index in (self._row, self._column)]
        square = np.add.reduceat(np.add.reduceat(coef.real**2, first[0], axis=0), first[1], axis=1)
        return square[self._kept]

    def fields(self, coef):
        left, right = (side.slopes for side in self._sides)
        return np.array([D @ coef for D in left] + [(D @ coef.T).T for D in right])

    def gradient(self, Z, values):
        out, start = np.empty(Z.shape), 0
        for who in self._who:
            for i in who:
                f, piece = self.factors[i], _columns(self.factors, i)
                out[:, piece] = f.to_tangent(Z[:, piece], values[start:start + f.width].T)
                start += f.width
        return out

    def restrict(self, degree, coef):
        lower = DenseHarmonics(self.factors, degree, self._left)
        kept = lower._kept[lower._row][:, lower._column]
        return lower, coef[:lower.shape[0], :lower.shape[1]] * kept

    def mirrored(self, coef, factor, shift):
        """Return the coefficients of the sum over points and their images by a reflection of one factor.

        Parameters
        ----------
        coef : ndarray, shape `shape`
            Coefficients of a sum over points.
        factor : int
        shift : float
            The reflection is x -> shift - x; 0 on a sphere, where it takes a point to its antipode.

        Returns
        -------
        ndarray, shape `shape`
        """
        for k, who in enumerate(self._who):
            if factor in who:
                R = self._sides[k].reflection(_columns(self.factors, factor), shift)
                return coef + (R @ coef if k == 0 else (R @ coef.T).T)
        raise ValueError(f"factor = {factor!r} of {len(self.factors)}")


def _share(work, parts):
    """Return [work(part) for all parts], each in a thread."""
    if len(parts) < 2:
        return [work(part) for part in parts]
    with ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(work, parts))


def _columns(factors, i):
    """Return the embedded columns of a factor."""
    start = sum(f.width for f in factors[:i])
    return slice(start, start + factors[i].width)


@lru_cache(maxsize=32)
def _side(factors, who, cutoff):
    """Return the functions of some of the factors; kept, as their derivatives take a while to work out."""
    basis = _One()
    for i in who:
        make = _Circle if factors[i].width == 1 else _Sphere
        basis = _Pair(basis, make(factors[i], cutoff, _columns(factors, i)), cutoff)
    return basis


class _One:
    """The constant function 1, of no factor at all: the left side of a single sphere."""

    eigenvalue, slopes = np.zeros(1), ()

    def values(self, Z):
        return np.ones((1, len(Z)))

    def reflection(self, piece, shift):
        return None


class _Circle:
    """1, cos, sin, cos 2, sin 2, ... on a circle, in one column of the embedded coordinates."""

    def __init__(self, f, cutoff, piece):
        self.f, self.piece = f, piece
        self.degree = int(np.sqrt(cutoff * _SLACK) * f.scale)
        self.wave = (np.arange(2 * self.degree + 1) + 1) // 2
        self.eigenvalue = (self.wave / f.scale) ** 2

    def values(self, Z):
        x = Z[:, self.piece][:, 0]
        angle = (x - self.f.period * np.rint(x / self.f.period)) / self.f.scale
        return _waves(np.cos(angle) + 1j * np.sin(angle), self.degree) / np.sqrt(0.5 * self.f.period)

    def _turns(self, entry):
        """Make a matrix of 2 x 2 blocks entry(k) = ((cos -> cos, sin -> cos), (cos -> sin, sin -> sin))."""
        from scipy.sparse import block_diag
        (a, b), (c, d) = entry(np.arange(1, self.degree + 1))
        blocks = np.array([[a, b], [c, d]], dtype=float).transpose(2, 0, 1) if self.degree else []
        return block_diag([np.array([[entry(np.zeros(1))[0][0][0]]]), *blocks], format="csr")

    @cached_property
    def slopes(self):
        def entry(k):
            zero = 0.0 * k
            return (zero, k / self.f.scale), (-k / self.f.scale, zero)
        return [self._turns(entry)]

    def reflection(self, piece, shift):
        if piece != self.piece:
            return None

        def entry(k):
            cos, sin = np.cos(k * shift / self.f.scale), np.sin(k * shift / self.f.scale)
            return (cos, sin), (sin, -cos)
        return self._turns(entry)


class _Sphere:
    """Spherical harmonics on a sphere of dimension d, level by level.

    The functions of level l are those of all levels m <= l in one dimension less, in their order, each times a
    polynomial of degree l - m.

    Attributes
    ----------
    first : list of ndarray, shape (degree + 2,)
        For dimension 1, ..., d: where each level starts.
    """

    def __init__(self, f, cutoff, piece):
        self.f, self.piece = f, piece
        d, most = f.dim, cutoff * _SLACK * f.scale**2
        self.degree = int(np.sqrt(most + 0.25 * (d - 1) ** 2) - 0.5 * (d - 1) + 1e-9)
        self.first = [np.append(0, 2 * np.arange(self.degree + 1) + 1)]
        for _ in range(d - 1):
            self.first.append(np.append(0, np.cumsum(self.first[-1][1:])))
        level = self._levels(d)
        self.eigenvalue = level * (level + d - 1.0) / f.scale**2

    def _levels(self, dim):
        return np.repeat(np.arange(self.degree + 1), np.diff(self.first[dim - 1]))

    def values(self, Z):
        L, d, u = self.degree, self.f.dim, np.ascontiguousarray(Z[:, self.piece].T) / self.f.scale
        square = np.cumsum(u * u, axis=0)
        out = _waves(u[0] + 1j * u[1], L) / np.sqrt(np.pi)
        for dim in range(2, d + 1):
            lower, x = out, u[dim]
            start, rise, fall = _recurrence(dim, L)
            if dim == d:
                start = start * self.f.scale ** (-0.5 * d)
            first, below = self.first[dim - 1], self.first[dim - 2]
            out = np.empty((first[-1], len(Z)))
            before = here = np.empty((0, len(Z)))
            for n in range(L + 1):
                # level n, orders 0, ..., n
                new = np.empty((n + 1, len(Z)))
                new[n] = start[n]
                np.multiply(x, here, out=new[:n])
                new[:n] *= rise[n][:n]
                if n > 1:
                    # the last sum of squares is 1
                    new[:n - 1] -= (before if dim == d else square[dim] * before) * fall[n][:n - 1]
                before, here = here, new
                block = out[first[n]:first[n + 1]]
                if dim == 2:  # two functions of each order but the lowest
                    np.multiply(lower[0], new[0], out=block[0])
                    np.multiply(lower[1:2 * n + 1].reshape(n, 2, len(Z)), new[1:, None],
                                out=block[1:].reshape(n, 2, len(Z)))
                    continue
                for m in range(n + 1):
                    own = slice(below[m], below[m + 1])
                    np.multiply(lower[own], new[m], out=block[own])
        return out if d > 1 else out * self.f.scale**-0.5

    @cached_property
    def slopes(self):
        """Matrices of the partial derivatives, one for each coordinate; on the sphere of radius R."""
        from scipy.sparse import coo_matrix
        entries = _plane(self.degree)
        for dim in range(2, self.f.dim + 1):
            entries = self._lift(entries, dim)
        size = self.first[-1][-1]
        return [coo_matrix((v / self.f.scale, (i, j)), shape=(size, size)).tocsr() for i, j, v in entries]

    def _lift(self, entries, dim):
        r"""Return the derivatives in R^{dim + 1} from those in R^dim; each (row, column, value).

        With :math:`F=Q_n^\alpha Y_m`, :math:`Q_n^\alpha=|x|^nC_n^\alpha`: the last one is
        :math:`(n+2\alpha-1)Q_{n-1}^\alpha Y_m`; as :math:`\partial Q_n^\alpha/\partial|x|^2=-\alpha Q_{n-2}^{\alpha+1}`
        and :math:`x_jY_m=H_{m+1}+|x'|^2\partial_jY_m/(2m+d-2)` with a harmonic H, the others are
        :math:`\frac{(n+2\alpha-1)(n+2\alpha-2)}{(2\alpha-1)(2\alpha-2)}Q_n^{\alpha-1}\partial_jY_m
        -2\alpha Q_{n-2}^{\alpha+1}H_{m+1}`. H comes from the transpose of the derivative.
        """
        first, lower = self.first[dim - 1], self._levels(dim - 1)

        def put(row, column, value, m, least, factor):
            """Repeat entries from order m for all levels l >= m + least."""
            out = []
            for level in range(self.degree + 1):
                at = m + least <= level
                n, alpha = level - m[at], m[at] + 0.5 * (dim - 1)
                out.append((first[level - 1] + row[at], first[level] + column[at], value[at] * factor(n, alpha)))
            return [np.concatenate(part) for part in zip(*out, strict=True)]

        done = []
        for i, j, v in entries:
            down = put(i, j, v, lower[j], 0, lambda n, a: np.sqrt(
                (n + 2 * a - 1) * (n + 2 * a - 2) * (n + a) / (n + a - 1)) / (2 * a - 1))
            up = put(j, i, v, lower[i], 2, lambda n, a: -np.sqrt(
                n * (n - 1) * (n + a) / (n + a - 1)) / (2 * a + 1))
            done.append([np.concatenate(pair) for pair in zip(down, up, strict=True)])
        same = np.arange(len(lower))
        done.append(put(same, same, np.ones(len(lower)), lower, 1, lambda n, a: np.sqrt(
            n * (n + 2 * a - 1) * (n + a) / (n + a - 1))))
        return done

    def reflection(self, piece, shift):
        from scipy.sparse import diags
        return diags(1.0 - 2.0 * (self._levels(self.f.dim) % 2), format="csr") if piece == self.piece else None


class _Pair:
    """Products of the functions of two bases with an eigenvalue up to the cutoff, in the order of eigenvalues."""

    def __init__(self, left, right, cutoff):
        self.bases = left, right
        total = (left.eigenvalue[:, None] + right.eigenvalue).ravel()
        order = np.argsort(total, kind="stable")
        self.at = order[:np.searchsorted(total[order], cutoff * _SLACK, side="right")]
        self.eigenvalue = total[self.at]

    def values(self, Z):
        left, right = (basis.values(Z) for basis in self.bases)
        if len(left) == 1:  # already in order
            return right if isinstance(self.bases[0], _One) else left * right
        a, b = np.divmod(self.at, len(right))
        out = left[a]
        out *= right[b]
        return out

    def _lifted(self, matrix, which):
        """Make a matrix that acts on functions of one basis act on the pairs."""
        from scipy.sparse import identity, kron
        sizes = [basis.eigenvalue.size for basis in self.bases]
        pair = (matrix, identity(sizes[1])) if which == 0 else (identity(sizes[0]), matrix)
        return kron(*pair, format="csr")[self.at][:, self.at]

    @cached_property
    def slopes(self):
        return [self._lifted(D, k) for k, basis in enumerate(self.bases) for D in basis.slopes]

    def reflection(self, piece, shift):
        for k, basis in enumerate(self.bases):
            R = basis.reflection(piece, shift)
            if R is not None:
                return self._lifted(R, k)
        return None


def _waves(z, degree):
    """Return sqrt(1/2), Re z, Im z, Re z^2, Im z^2, ...; shape (2 degree + 1, n)."""
    out, power = np.empty((2 * degree + 1, len(z))), z
    out[0] = np.sqrt(0.5)
    for k in range(1, degree + 1):
        out[2 * k - 1], out[2 * k] = power.real, power.imag
        power = power * z
    return out


def _plane(degree):
    """Return the derivatives in the plane of 1/sqrt(2 pi), and of Re z^m, Im z^m over sqrt(pi)."""
    m = np.arange(2, degree + 1)
    cos, sin = 2 * m - 1, 2 * m
    size = np.concatenate([m, m]).astype(float)
    # the constant has a norm of its own
    along = [np.append(np.r_[cos - 2, sin - 2], [0]), np.append(np.r_[cos, sin], [1]), np.append(size, np.sqrt(2.0))]
    across = [np.append(np.r_[sin - 2, cos - 2], [0]), np.append(np.r_[cos, sin], [2]),
              np.append(np.r_[-m, m].astype(float), np.sqrt(2.0))]
    return [along, across] if degree else [[np.zeros(0, dtype=int)] * 2 + [np.zeros(0)]] * 2


@lru_cache(maxsize=64)
def _recurrence(dim, degree):
    r"""Return how orthonormal polynomials p_n on the sphere of dimension `dim` follow from each other.

    Returns
    -------
    start : ndarray, shape (degree + 1,)
        p_0 by order m.
    rise, fall : list of ndarray, shape (l, 1)
        By level l and order m < l: :math:`p_n=(xp_{n-1}-b_{n-1}|x|^2p_{n-2})/b_n`, n = l - m, with :math:`1/b_n` and
        :math:`b_{n-1}/b_n`.
    """
    m, n = np.arange(degree + 1.0)[:, None], np.arange(degree + 1.0)
    alpha = m + 0.5 * (dim - 1)
    start = np.exp(0.5 * (gammaln(alpha[:, 0] + 1) - gammaln(alpha[:, 0] + 0.5))) * np.pi**-0.25
    with np.errstate(invalid="ignore", divide="ignore"):  # n = 0 is not used
        b = np.sqrt(n * (n + 2 * alpha - 1) / (4 * (n + alpha) * (n + alpha - 1)))
    orders = [np.arange(k) for k in range(degree + 1)]
    rise = [1 / b[m, len(m) - m][:, None] for m in orders]
    fall = [(b[m, len(m) - m - 1] / b[m, len(m) - m])[:, None] for m in orders]
    return start, rise, fall


def _count(f, degree):
    """Return the number of functions of a factor up to a level."""
    if f.dim == 1:
        return 2.0 * degree + 1
    terms = [gammaln(degree + f.dim + 1 - k) - gammaln(degree + 1 - k) for k in (0, 1) if k <= degree]
    return float(np.exp(np.array(terms) - gammaln(f.dim + 1)).sum())


def _halves(factors, cutoff):
    """Choose the factors on the left: both sides have about equally many functions, the left one not more."""
    log_count = []
    for f in factors:
        half = 0.5 * (f.dim - 1)
        log_count.append(np.log(_count(f, int(np.sqrt(cutoff * f.scale**2 + half**2) - half + 1e-9))))
    sides, size = ([], []), [0.0, 0.0]
    for i in np.argsort(log_count, kind="stable")[::-1]:
        k = 0 if size[0] < size[1] else 1
        sides[k].append(int(i))
        size[k] += log_count[i]
    return tuple(sorted(sides[0] if size[0] <= size[1] else sides[1]))


@lru_cache(maxsize=256)
def cutoff_for(factors, t, eps):
    r"""Return the eigenvalue beyond which eigenfunctions of a product do not matter.

    Parameters
    ----------
    factors : tuple of SpaceForm
    t, eps : float
        As for :func:`.degree_for`: the terms beyond, times :math:`\max(1,\lambda t)`, are at most eps of the sum.

    Returns
    -------
    cutoff : float
        inf if one factor alone has too many.

    Notes
    -----
    For products sums over all levels of all factors are convolutions of sums over bins of :math:`\lambda t/2`.

    Examples
    --------
    >>> from rdks.harmonics.dense import cutoff_for
    >>> from rdks.manifolds import Sphere
    >>> cutoff_for(Sphere(4).factors(), 1.0, 1e-12)  # l (l + 3) at l = 7
    70.0
    """
    if len(factors) == 1:
        degree = degree_for(factors[0], t, eps)
        return degree * (degree + factors[0].dim - 1) / factors[0].scale**2 \
            if _count(factors[0], degree) <= _WIDEST else np.inf
    total = np.ones(1)
    for f in factors:
        degree = degree_for(f, t, 0.1 * eps / len(factors))
        if not _count(f, degree) <= _WIDEST:
            return np.inf
        eigenvalue, multiplicity = levels(f, degree)
        s = 0.5 * t * eigenvalue
        here = np.bincount(np.rint(s / _BIN).astype(int), multiplicity * np.exp(-s))
        total = np.convolve(total, here / here.sum())
    s = _BIN * np.arange(len(total))
    beyond = np.cumsum((total * np.maximum(1.0, 2 * s))[::-1])[::-1]
    return float(2 / t * (s[max(int(np.argmax(beyond <= 0.5 * eps)) - 1, 0)] + 0.5 * _BIN))


@lru_cache(maxsize=256)
def sizes(factors, cutoff):
    """Return the numbers of functions on the left and on the right, and of pairs of these, up to a cutoff.

    Parameters
    ----------
    factors : tuple of SpaceForm
    cutoff : float

    Returns
    -------
    left, right, pairs : float
        Those of products of several factors are counted by bins, to some per cent.

    Examples
    --------
    >>> from rdks.harmonics.dense import sizes
    >>> from rdks.manifolds import Circle, Product, Sphere
    >>> sizes(Product(Sphere(2), Circle()).factors(), 2.0)
    (3.0, 4.0, 6.0)
    """
    left = _halves(factors, cutoff)
    bins, counts = 2000, []
    for who in (left, [i for i in range(len(factors)) if i not in left]):
        total = np.ones(1)
        for i in who:
            f = factors[i]
            half = 0.5 * (f.dim - 1)
            degree = int(np.sqrt(cutoff * _SLACK * f.scale**2 + half**2) - half + 1e-9)
            eigenvalue, multiplicity = levels(f, degree)
            here = np.bincount((eigenvalue / max(cutoff, 1e-300) * bins).astype(int), multiplicity)
            total = np.convolve(total, here)[:bins + 1]
        counts.append(total)
    return float(counts[0].sum()), float(counts[1].sum()), float(np.convolve(*counts)[:bins + 1].sum())


@lru_cache(maxsize=64)
def reflections(manifold):
    """Return the reflections of single factors among the images, and images that make up all others with them.

    Parameters
    ----------
    manifold : Manifold
        Its covering space is a product of circles and spheres.

    Returns
    -------
    mirrors : list of (factor, shift)
        The images include x -> shift - x on this factor, all other factors as they are; shift is 0 on spheres.
    others : list of int
        Indices of images, of which the products of the mirrors make all.

    Examples
    --------
    >>> from rdks.harmonics.dense import reflections
    >>> from rdks.manifolds import Box, Product, ProjectiveSpace
    >>> reflections(Product(ProjectiveSpace(2), Box([(0.0, 1.0)])))
    ([(0, 0.0), (1, 0.0)], [0])
    """
    A, b = affine_maps(manifold)
    pieces, eye = list(manifold.pieces()), np.eye(manifold.embed_dim)
    mirrors = []
    for i, (_, piece) in enumerate(pieces):
        flip = eye.copy()
        flip[piece, piece] *= -1
        own = np.r_[piece]
        for g in np.flatnonzero(np.abs(A - flip).max(axis=(1, 2)) < 1e-9):
            if not np.delete(b[g], own).any():
                mirrors.append((i, float(b[g][own[0]]) + 0.0))  # no -0.0
                break
    # a point in general position, whose images are told apart; those of one class have one key
    Y = manifold.images(manifold.random(1, np.random.default_rng(0)))[:, 0]
    shifts = dict(mirrors)
    for i, (f, piece) in enumerate(pieces):
        if f.width == 1:
            Y[:, piece] = f.difference(Y[:, piece], 0.5 * shifts.get(i, 0.0)) / f.scale
            if i in shifts:
                Y[:, piece] = np.abs(Y[:, piece])
        elif i in shifts:
            Y[:, piece] *= np.sign(Y[:, piece][:, :1]) / f.scale
    others = np.unique(np.round(Y, 8), axis=0, return_index=True)[1]
    if len(others) << len(mirrors) != manifold.n_images:
        raise RuntimeError(f"{manifold!r}: {len(mirrors)} reflections do not divide its {manifold.n_images} images "
                           f"into classes, {len(others)} were found")
    return mirrors, np.sort(others).tolist()
