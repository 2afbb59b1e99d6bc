"""Simple densities on the sphere that a benchmark should beat, each tuned on points that were held out."""
from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from .._validation import as_generator

__all__ = ["HaversineKDE", "UniformLaw", "VonMisesFisherMixture", "concentration", "haversine_log_mass"]


class UniformLaw:
    """The uniform law on the unit sphere: what a model that has learnt nothing scores, log 4 pi = 2.531.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.benchmarks.baselines import UniformLaw
    >>> UniformLaw().fit(None).score_samples(np.zeros((2, 3))).round(3)
    array([-2.531, -2.531])
    """

    #: What was chosen: nothing.
    details_ = {}

    def fit(self, X, validation=None):
        """Do nothing.

        Returns
        -------
        self
        """
        return self

    def score_samples(self, X):
        """Return minus the log of the area for each row; shape (n,)."""
        return np.full(len(X), -np.log(4 * np.pi))


def _hold_out(X, validation, rng):
    """Return rows to fit and rows to choose on: those given, or a random ninth of the former."""
    if validation is not None and len(validation):
        return X, validation
    order = rng.permutation(len(X))
    check, fit = np.split(order, [max(1, len(X) // 9)])
    return X[fit], X[check]


# mixture of von Mises-Fisher distributions


def _resultant(kappa):
    """Return the mean resultant length coth(kappa) - 1 / kappa, and its derivative."""
    small = kappa < 0.1
    k = np.where(small, 1.0, kappa)  # the closed form cancels near 0; the value there is not used
    coth = 1 + 2 / np.expm1(2 * np.minimum(k, 300.0))
    value, slope = coth - 1 / k, 1 / k**2 - (coth - 1) * (coth + 1)
    s = np.where(small, kappa, 0.0)
    return (np.where(small, s / 3 - s**3 / 45 + 2 * s**5 / 945 - s**7 / 4725, value),
            np.where(small, 1 / 3 - s**2 / 15 + 2 * s**4 / 189 - s**6 / 675, slope))


def concentration(resultant):
    r"""Invert :math:`A_3(\kappa)=\coth\kappa-1/\kappa`, the mean resultant length of a law on the sphere.

    Parameters
    ----------
    resultant : float or ndarray
        Mean resultant lengths, in [0, 1).

    Returns
    -------
    ndarray, shape of `resultant`
        Concentrations; infinite where the length is 1 or, by rounding, more.

    Notes
    -----
    This is the concentration of largest likelihood (Mardia and Jupp 2000, section 10.3). Newton's method, from the
    approximation :math:`\bar R(3-\bar R^2)/(1-\bar R^2)` of Banerjee et al. (2005); for :math:`\bar R>0.95`,
    :math:`1-\bar R=1/\kappa` to rounding.

    Examples
    --------
    >>> from rdks.benchmarks.baselines import concentration
    >>> concentration([0.0, 1 / 3, 0.99]).round(6)
    array([  0.      ,   1.074563, 100.      ])
    """
    R = np.asarray(resultant, dtype=float)
    with np.errstate(divide="ignore"):
        sharp = 1 / np.maximum(1 - R, 0.0)
    inner = np.clip(R, 0.0, 0.95)
    kappa = inner * (3 - inner**2) / (1 - inner**2)
    for _ in range(6):  # quadratic from three digits on
        value, slope = _resultant(kappa)
        kappa = np.maximum(kappa - (value - inner) / slope, 0.0)
    return np.where(R > 0.95, sharp, kappa)


class VonMisesFisherMixture:
    r"""Mixture of von Mises-Fisher distributions on the sphere, fitted by expectation and maximisation.

    .. math:: p(x)=\sum_k\pi_k\frac{\kappa_k}{2\pi(1-e^{-2\kappa_k})}e^{\kappa_k(\mu_k^\top x-1)}

    Parameters
    ----------
    n_components : int or sequence of int
        Number of components; of several, in increasing order, the one of the largest likelihood on held-out points
        is taken. The search ends when two numbers in a row have not been better.
    max_concentration : float
        Largest :math:`\kappa`: the standard deviation per coordinate is at least its inverse root.
    n_init : int
        Starts; that of the largest likelihood is kept.
    max_iter : int
        Largest number of iterations of a start.
    tol : float
        A start ends when an iteration gains less than this, in nats per point.
    random_state : None, int, RandomState or Generator

    Attributes
    ----------
    weights_ : ndarray, shape (K,)
    means_ : ndarray, shape (K, 3)
    concentrations_ : ndarray, shape (K,)
    history_ : list of float
        Mean log-likelihood of the fitted points after each iteration of the start that was kept.
    details_ : dict
        ``components``, the number chosen.

    References
    ----------
    Banerjee, Dhillon, Ghosh and Sra, "Clustering on the unit hypersphere using von Mises-Fisher distributions",
    JMLR 6 (2005), soft assignments, with the concentrations solved for exactly, so that the likelihood cannot fall.

    Examples
    --------
    >>> import numpy as np
    >>> from rdks.benchmarks.baselines import VonMisesFisherMixture
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((400, 3)) * 0.1 + np.where(rng.random((400, 1)) < 0.5, [0, 0, 1], [1, 0, 0])
    >>> X /= np.linalg.norm(X, axis=1, keepdims=True)
    >>> model = VonMisesFisherMixture([1, 2, 4], random_state=0).fit(X)
    >>> model.details_, model.means_[model.means_[:, 2] > 0.9].round(1)
    ({'components': 2}, array([[-0.,  0.,  1.]]))
    """

    def __init__(self, n_components=(8, 16, 32, 64, 128, 256, 512, 1024), *, max_concentration=1e8, n_init=1,
                 max_iter=200, tol=1e-3, random_state=None):
        self.n_components = n_components
        self.max_concentration = max_concentration
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    def fit(self, X, validation=None):
        """Fit the mixture.

        Parameters
        ----------
        X : ndarray, shape (n, 3)
            Unit vectors.
        validation : ndarray, shape (m, 3), optional
            Points on which the number of components is chosen; the mixture is then the one that was fitted to X.
            Without them a random ninth of X serves, and the mixture is fitted to all of X again.

        Returns
        -------
        self
        """
        rng = as_generator(self.random_state)
        counts = np.atleast_1d(self.n_components)
        if len(counts) > 1:
            fitted, check = _hold_out(X, validation, rng)
            chosen, found, worse = None, -np.inf, 0
            for count in counts[counts <= len(fitted)]:
                state = self._start(fitted, int(count), rng)
                value = self._log_density(check, *state[:3]).mean()
                if value > found:
                    chosen, found, worse = (int(count), state), value, 0
                else:
                    worse += 1
                if worse == 2:
                    break
            count, state = chosen
            if fitted is not X:
                state = self._start(X, count, rng)
        else:
            count = int(counts[0])
            state = self._start(X, count, rng)
        self.weights_, self.means_, self.concentrations_, self.history_ = state
        self.details_ = {"components": count}
        return self

    def score_samples(self, X):
        """Return the log density at unit vectors X, (n, 3), per area of the unit sphere; shape (n,)."""
        return self._log_density(X, self.weights_, self.means_, self.concentrations_)

    def _start(self, X, count, rng):
        """Return weights, means, concentrations and history of the best of some starts."""
        return max((self._climb(X, count, rng) for _ in range(self.n_init)), key=lambda state: state[3][-1])

    def _climb(self, X, count, rng):
        means = _spread(X, count, rng)
        nearest = np.argmax(X @ means.T, axis=1)
        size = np.bincount(nearest, minlength=count).astype(float)
        total = np.stack([np.bincount(nearest, weights=x, minlength=count) for x in X.T], axis=1)
        state = self._maximise(size, total, means, np.zeros(count))
        history = []
        while True:
            value, size, total = _expect(X, *state)
            history.append(value)
            if len(history) == self.max_iter or (len(history) > 1 and value - history[-2] < self.tol):
                return *state, history
            state = self._maximise(size, total, *state[1:])

    def _maximise(self, size, total, means, kappa):
        """Return the parameters of the largest expected likelihood, given the size and the sum of each component."""
        length = np.linalg.norm(total, axis=1)
        # a component that has lost all its points, or whose points cancel, has no direction: it keeps its own
        some = (size > 1e-12 * size.sum()) & (length > 0)
        means, kappa = means.copy(), kappa.copy()
        means[some] = total[some] / length[some, None]
        kappa[some] = np.minimum(concentration(length[some] / size[some]), self.max_concentration)
        return size / size.sum(), means, kappa

    @staticmethod
    def _log_density(X, *state):
        return np.concatenate([logsumexp(_terms(X[rows], *state), axis=1) for rows in _blocks(X, state)])


def _blocks(X, state):
    """List slices of the rows, so small that the tables of rows and components stay in cache."""
    step = max(16, 200_000 // len(state[0]))
    return [slice(i, i + step) for i in range(0, max(len(X), 1), step)]


def _expect(X, *state):
    """Return the mean log-likelihood, and the expected size (K,) and sum of points (K, 3) of each component."""
    value, size, total = 0.0, np.zeros(len(state[0])), np.zeros((len(state[0]), 3))
    for rows in _blocks(X, state):
        R = _terms(X[rows], *state)
        peak = R.max(axis=1, keepdims=True)
        R -= peak
        np.exp(R, out=R)
        each = R.sum(axis=1, keepdims=True)
        value += float((np.log(each) + peak).sum())
        R /= each
        size += R.sum(axis=0)
        total += R.T @ X[rows]
    return value / len(X), size, total


def _terms(X, weights, means, kappa):
    """Return the log of each component's part of the density; shape (n, K)."""
    k = np.maximum(kappa, 1e-9)  # log(k / (1 - exp(-2k))) -> -log 2
    with np.errstate(divide="ignore"):  # a component may have no weight left
        scale = np.log(weights) + np.log(k / -np.expm1(-2 * k)) - np.log(2 * np.pi)
    logs = X @ (means * k[:, None]).T
    logs += scale - k
    return logs


def _spread(X, count, rng):
    """Return rows of X far from one another: k-means++ (Arthur and Vassilvitskii 2007) in the chord."""
    chosen = [int(rng.integers(len(X)))]
    square = np.full(len(X), np.inf)
    for _ in range(count - 1):
        square = np.minimum(square, ((X - X[chosen[-1]]) ** 2).sum(axis=1))
        total = square.sum()
        chosen.append(int(rng.choice(len(X), p=square / total if total > 0 else None)))
    return X[chosen].copy()


# kernel density in scikit-learn's haversine metric


def haversine_log_mass(h):
    r"""Return the log of the mass on the sphere of the Gaussian of the great-circle distance.

    .. math:: M(h)=2\pi\int_0^\pi e^{-r^2/2h^2}\sin r\,dr

    scikit-learn divides by :math:`2\pi h^2` instead, the mass in the plane, which is larger by a fraction
    :math:`h^2/3` for small h.

    Parameters
    ----------
    h : float
        Bandwidth in radians, positive.

    Returns
    -------
    float

    Examples
    --------
    >>> import math
    >>> from rdks.benchmarks.baselines import haversine_log_mass
    >>> round(math.exp(haversine_log_mass(0.1)) / (2 * math.pi * 0.1**2), 6)
    0.996673
    """
    reach = min(np.pi / h, 12.0)  # exp(-72) beyond
    x, w = np.polynomial.legendre.leggauss(80)
    u = 0.5 * reach * (x + 1)
    return float(np.log(2 * np.pi * h * 0.5 * reach * (w @ (np.exp(-0.5 * u * u) * np.sin(h * u)))))


class HaversineKDE:
    """scikit-learn's kernel density in the haversine metric, with the mass that its kernel has on the sphere.

    Parameters
    ----------
    smallest, largest : float
        Bandwidths, in radians, between which the one of the largest held-out likelihood is looked for: first
        three per decade, then four between the neighbours of the best.
    rtol : float
        Relative accuracy of the sums; with 0, scikit-learn's tree prunes next to nothing.
    random_state : None, int, RandomState or Generator

    Attributes
    ----------
    bandwidth_ : float
        Radians.
    details_ : dict
        ``bandwidth``.

    Examples
    --------
    >>> from rdks.benchmarks.baselines import HaversineKDE
    >>> from rdks.datasets import load_airports
    >>> X = load_airports().data[::100]
    >>> model = HaversineKDE(0.01, 0.3, random_state=0).fit(X)
    >>> 0.01 < model.bandwidth_ < 0.3, model.score_samples(X).shape
    (True, (283,))
    """

    def __init__(self, smallest=1e-4, largest=0.5, *, rtol=1e-5, random_state=None):
        self.smallest = smallest
        self.largest = largest
        self.rtol = rtol
        self.random_state = random_state

    def fit(self, X, validation=None):
        """Choose the bandwidth and keep the points.

        Parameters
        ----------
        X : ndarray, shape (n, 2)
            Latitude and longitude in degrees.
        validation : ndarray, shape (m, 2), optional
            Points on which the bandwidth is chosen; without them a random ninth of X serves, and all of X
            is kept then.

        Returns
        -------
        self
        """
        fitted, check = _hold_out(X, validation, as_generator(self.random_state))
        decades = np.log10(self.largest / self.smallest)
        grid = list(np.geomspace(self.smallest, self.largest, max(3, round(3 * decades) + 1)))
        scores = {h: self._mean(fitted, check, h) for h in grid}
        place = grid.index(max(scores, key=scores.get))
        left, right = grid[max(place - 1, 0)], grid[min(place + 1, len(grid) - 1)]
        scores |= {h: self._mean(fitted, check, h) for h in np.geomspace(left, right, 6)[1:-1]}
        self.bandwidth_ = float(max(scores, key=scores.get))
        self.details_ = {"bandwidth": self.bandwidth_}
        self._kde = self._tree(X, self.bandwidth_)
        return self

    def score_samples(self, X):
        """Return the log density at latitudes and longitudes X, (n, 2), per area of the unit sphere; shape (n,)."""
        return self._logs(self._kde, X)

    def _tree(self, X, h):
        from sklearn.neighbors import KernelDensity

        return KernelDensity(bandwidth=h, metric="haversine", rtol=self.rtol).fit(np.deg2rad(X))

    def _logs(self, kde, X):
        h = kde.bandwidth
        return kde.score_samples(np.deg2rad(X)) + np.log(2 * np.pi * h * h) - haversine_log_mass(h)

    def _mean(self, X, check, h):
        return float(self._logs(self._tree(X, h), check).mean())
