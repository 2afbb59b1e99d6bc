"""The heat kernel of hyperbolic space against values computed here, in many digits, from other formulas.

The package adds positive Taylor coefficients, and integrates them on the real line. The references do neither:

* odd dimensions: the recursion -exp(-d t/2) / (2 pi sinh r) d/dr from the line up, in Taylor polynomials in r, with
  all the digits that the divisions by sinh r lose;
* every dimension: Cauchy's integral for the derivative of order (d-1)/2 with respect to cosh r, along a parabola;
* the plane: McKean's integral, by adaptive quadrature;
* every dimension: Gruet's integral (Semigroup Forum 53, 1996).

They are tested against each other first. Errors are measured relative to max(1, |log k|), and also to
max(1, |log k + r^2/2t|); a few roundings of the numbers that are added are 2e-14 at most.
"""
from __future__ import annotations

import functools

import mpmath as mp
import numpy as np
import pytest

from rdks.errors import UnsupportedError
from rdks.heat import hyperbolic_slopes, log_hyperbolic, log_sphere_area

DISTANCES = [0.0, 1e-9, 1e-3, 0.2, 1.0, 3.0, 10.0, 40.0, 300.0, 1400.0]
TIMES = [1e-8, 1e-4, 0.05, 0.3, 1.0, 5.0, 30.0, 1000.0]
ROUNDING = 2e-14


# ---------------------------------------------------------------------------------------- references


def odd_jet(r, t, dim, order=0):
    """Taylor coefficients in r of exp(r0^2/2t) times the kernel of an odd dimension."""
    steps = (dim - 1) // 2
    top = order + steps
    # exp(-(r + h)^2 / 2t): coefficients by (k + 1) a_{k+1} = -(r a_k + a_{k-1}) / t
    jet = [1 / mp.sqrt(2 * mp.pi * t)]
    for k in range(top):
        jet.append(-(r * jet[k] + (jet[k - 1] if k else 0)) / (t * (k + 1)))
    sine = [(mp.cosh(r) if k % 2 else mp.sinh(r)) / mp.factorial(k) for k in range(top + 1)]
    for step in range(steps):
        slope = [(k + 1) * jet[k + 1] for k in range(len(jet) - 1)]
        jet = []
        for k in range(len(slope)):
            jet.append((slope[k] - sum(jet[j] * sine[k - j] for j in range(k))) / sine[0])
        factor = -mp.exp(-(2 * step + 1) * t / 2) / (2 * mp.pi)
        jet = [factor * a for a in jet]
    return jet


def log_odd(r, t, dim):
    """log k_t(r) + r^2/2t in an odd dimension; a hair beside zero, where the recursion divides by zero."""
    with mp.workdps(60 + 45 * dim):
        return mp.log(odd_jet(mp.mpf(r) if r else mp.mpf(10) ** -40, mp.mpf(t), dim)[0])


def log_cauchy(r, t, dim):
    r"""log k_t(r) + r^2/2t in any dimension, by Cauchy's formula for a derivative of real order.

    (-d/dw)^a f(w) = Gamma(a+1) i/2pi times the integral of f(y) (w - y)^(-a-1) dy around [w, infinity). Here
    y = cosh sqrt(zeta), f = exp(-zeta/2t), on the parabola zeta = r^2 - X (1 + iv)^2. Any X will do that keeps the
    other singularities, (r + 2 pi i k)^2, outside, as long as there are digits for what cancels.
    """
    b = mp.mpf(dim + 1) / 2
    with mp.workdps(35 + dim + int(1.5 * max(0.0, -np.log10(t)))):
        r, t = mp.mpf(r), mp.mpf(t)
        w, x = mp.cosh(r), min(2 * (r + 1) * mp.log(1 + b * t / (r + 1)), 6 + 1.5 * r)

        def parts(v):
            side = mp.mpc(1, v)
            s = mp.sqrt(r * r - x * side * side)
            # (r^2 - zeta)/2t, w - y, and dy/dv without its factor 2i
            return x * side * side / (2 * t), w - mp.cosh(s), x * side * (mp.sinh(s) / (2 * s) if s else mp.mpf(0.5))

        def size(v):
            exponent, gap, speed = parts(v)
            return mp.re(exponent) - b * mp.log(abs(gap)) + mp.log(abs(speed))

        far = mp.mpf(1) / 100
        top = size(0)
        while size(far) > top - 45 - dim:
            far *= 1.2

        def trapezoid(count):
            total, turn = mp.mpf(0), mp.mpf(0)
            for j in range(count):
                exponent, gap, speed = parts(far * j / count)
                angle = mp.arg(gap)  # continued from node to node, not cut at pi
                turn = angle + 2 * mp.pi * mp.nint((turn - angle) / (2 * mp.pi))
                term = mp.re(mp.exp(exponent - b * mp.mpc(mp.log(abs(gap)), turn)) * speed)
                total += term if j else term / 2
            return far / count * total

        # Each doubling squares the error.
        count, before, now = 40, trapezoid(20), trapezoid(40)
        while abs(before / now - 1) > 1e-9:
            count, before, now = 2 * count, now, trapezoid(2 * count)
            assert count < 10000
        order = mp.mpf(dim - 1) / 2
        derivative = 2 * mp.gamma(order + 1) / mp.pi * now
        return mp.log(derivative) - order * order * t / 2 - mp.log(2 * mp.pi * t) / 2 - order * mp.log(2 * mp.pi)


def log_mckean(r, t):
    """log k_t(r) + r^2/2t in the plane: the integral of s exp(-s^2/2t) / sqrt(cosh s - cosh r) over s > r."""
    with mp.workdps(25):
        r, t = mp.mpf(r), mp.mpf(t)

        def integrand(root):  # the square root of s - r: no singularity is left
            x = root * root
            gap = 2 * mp.sinh(x / 2) * mp.sinh(r + x / 2)
            return 2 * root * (r + x) * mp.exp(-x * (2 * r + x) / (2 * t)) / mp.sqrt(gap)

        scale = min(mp.sqrt(t), t / r, mp.mpf(1))
        value = mp.quad(integrand, [mp.sqrt(c * scale) for c in (0, 0.3, 1, 3, 8, 20, 50, 100, 200)])
        return mp.log(value * mp.sqrt(2) * mp.exp(-t / 8) / (2 * mp.pi * t) ** 1.5)


def log_gruet(r, t, dim):
    """log k_t(r) + r^2/2t in any dimension; loses (r^2 + pi^2) / 2t of its logarithm."""
    a = mp.mpf(dim - 1) / 2
    with mp.workdps(25 + int((r * r + 10) / (4.6 * t))):
        r, t = mp.mpf(r), mp.mpf(t)
        reach = min(r + 2.4 * mp.mp.dps / a, mp.sqrt(4.8 * mp.mp.dps * t) + 1)
        step = 2 * mp.pi**2 / (5 * mp.mp.dps)  # analytic within pi of the real line, and there exp(5 pi^2 / 2t) large
        total = mp.mpf(0)
        for j in range(int(reach / step) + 1):
            x = j * step
            wave = mp.pi * mp.cos(mp.pi * x / t) - x * mp.sin(mp.pi * x / t)
            term = wave * mp.exp((mp.pi**2 - x * x) / (2 * t)) / (mp.cosh(x) + mp.cosh(r)) ** a
            total += term if j else term / 2
        value = mp.gamma(a) / (mp.pi * t) * step * total / (2 * mp.pi) ** a / mp.sqrt(2 * mp.pi * t)
        return mp.log(value) - a * a * t / 2 + r * r / (2 * t)


@functools.cache
def reference(r, t, dim):
    """log k_t(r) + r^2/2t at the float r, as a float with all its digits."""
    return float(log_odd(r, t, dim) if dim % 2 else log_cauchy(r, t, dim))


def check(r, t, dim, bound=ROUNDING):
    found = log_hyperbolic(np.array(r), t, dim)
    for x, value in zip(r, found, strict=True):
        want = reference(x, t, dim)
        error = abs(value - want)
        assert error <= bound * max(1.0, min(abs(want), abs(want - x * x / (2 * t)))), (x, t, dim, error)


# -------------------------------------------------------------------------- the references themselves


@pytest.mark.parametrize("dim", [3, 5, 11, 33])
def test_references_agree_in_odd_dimensions(dim):
    for r, t in ((0.2, 1e-4), (3.0, 0.3), (0.0, 5.0), (40.0, 1000.0))[: 4 if dim < 33 else 2]:
        assert abs(log_cauchy(r, t, dim) - log_odd(r, t, dim)) <= 1e-18


def test_references_agree_in_the_plane():
    for r, t in ((0.2, 1e-4), (3.0, 0.3), (10.0, 1.0)):
        assert abs(log_cauchy(r, t, 2) - log_mckean(r, t)) <= 1e-16


@pytest.mark.parametrize("dim", [2, 5, 24])
def test_references_agree_with_gruet(dim):
    for r, t in ((0.0, 0.3), (3.0, 5.0)):
        assert abs(log_cauchy(r, t, dim) - log_gruet(r, t, dim)) <= 1e-16


# ------------------------------------------------------------------------------------------- accuracy


@pytest.mark.parametrize("t", [1e-140, *TIMES, 1e6])
def test_three_space_is_a_closed_form(t):
    r = np.array([*DISTANCES, 1500.0])
    with mp.workdps(400):
        x = [mp.mpf(a) for a in r]
        want = [mp.log(a / mp.sinh(a) if a else 1) - mp.mpf(t) / 2 - 1.5 * mp.log(2 * mp.pi * mp.mpf(t)) for a in x]
    want = np.array([float(a) for a in want])
    assert (np.abs(log_hyperbolic(r, t, 3) - want) <= 1e-15 * np.maximum(1.0, np.abs(want))).all()


@pytest.mark.parametrize("t", TIMES)
@pytest.mark.parametrize("dim", [5, 7, 11])
def test_odd_dimensions(dim, t):
    check(DISTANCES, t, dim)


@pytest.mark.parametrize("t", TIMES)
@pytest.mark.parametrize("dim", [2, 4])
def test_even_dimensions(dim, t):
    check([0.0, 1.0, 10.0, 300.0] if dim == 2 else [0.2, 40.0], t, dim)


@pytest.mark.parametrize("dim", [6, 10, 24, 33, 64])
def test_high_dimensions(dim):
    for r, t in ((0.0, 0.05), (3.0, 0.3), (10.0, 1e-4), (1.0, 5.0), (40.0, 1.0)):
        check([r], t, dim)


@pytest.mark.parametrize("dim", [5, 7, 11, 33])
def test_no_seam_between_the_two_ways_of_the_recurrence(dim):
    """It is run upwards where tanh(r/2) ** (2 top) > 1/10, and there the continued fraction has least to spare."""
    seam = float(2 * np.arctanh(0.1 ** (0.5 / ((dim - 1) // 2 - 1))))
    for t in (0.1, 3.0, 100.0):
        check([0.99 * seam, seam * (1 - 1e-12), seam * (1 + 1e-12)], t, dim)


@pytest.mark.parametrize("dim", [2, 5, 10])
def test_long_times_and_long_distances(dim):
    for r, t in ((0.2, 1e6), (40.0, 1e6), (1400.0, 1e4), (1400.0, 30.0)):
        check([r], t, dim)


@pytest.mark.parametrize("dim", [2, 3, 4, 7, 10, 24, 33, 64, 100])
@pytest.mark.parametrize("t", [1e-140, 1e-60, 1e-20])
def test_times_so_short_that_the_expansion_is_exact(dim, t):
    """log k = -r^2/2t - d/2 log 2 pi t + (d-1)/2 log(r / sinh r) + O(t)."""
    r = np.array([0.0, 1e-160, 1e-75, 1e-9, 0.3, 3.0, 30.0, 700.0, 1500.0])
    x = np.maximum(r, 1e-9)
    shrink = np.log(2 * x / -np.expm1(-2 * x)) - x
    want = -0.5 * dim * np.log(2 * np.pi * t) + 0.5 * (dim - 1) * np.where(r < 1e-8, 0.0, shrink)
    # the largest of the numbers added is d/2 log t, and roundings of each of them count
    assert (np.abs(log_hyperbolic(r, t, dim) - want) <= 1e-15 * dim * (abs(np.log(t)) + r)).all()


@pytest.mark.parametrize("dim", range(2, 101, 14))
def test_finite_and_decreasing_at_every_time_and_distance(dim):
    r = np.concatenate([[0.0, 5e-324, 1e-160, 1e-80], np.geomspace(1e-12, 1500.0, 40)])
    for t in [*np.geomspace(1e-150, 1e6, 27), 1e100, 1e300]:
        log_k, (first, laplacian) = log_hyperbolic(r, t, dim), hyperbolic_slopes(r, t, dim)
        assert np.isfinite(log_k).all() and np.isfinite(first).all() and np.isfinite(laplacian).all(), t
        assert (first[r < 700.0] < 0).all() and (first <= 0).all()
        whole = log_k - r * r / (2 * t)
        assert (np.diff(whole) <= ROUNDING * np.maximum(1.0, np.abs(whole[1:]))).all(), t


# ---------------------------------------------------------------------------------------- derivatives


@pytest.mark.parametrize("t", [1e-140, *TIMES, 1e6])
def test_slopes_of_three_space_are_closed_forms(t):
    """d log k/dr = 1/r - coth r - r/t, and the Laplacian ratio is r^2/t^2 - 3/t - 1."""
    r = np.array([1e-9, 1e-3, 0.2, 1.0, 3.0, 10.0, 40.0, 300.0, 700.0])
    with mp.workdps(40):
        want = np.array([float((1 / x - mp.coth(x) - x / mp.mpf(t)) / (2 * mp.sinh(x))) for x in map(mp.mpf, r)])
    first, _ = hyperbolic_slopes(r, t, 3)
    np.testing.assert_allclose(first, want, rtol=4e-15)
    r = np.array([0.0, *r, 1500.0])
    _, laplacian = hyperbolic_slopes(r, t, 3)
    # two terms of the size of the square of d log k/dr and of coth r d log k/dr are subtracted
    terms = (r / t + 1) ** 2 + 3 / t
    assert (np.abs(laplacian - ((r / t) ** 2 - 3 / t - 1)) <= 4e-15 * terms).all()


@pytest.mark.parametrize("t", [1e-4, 0.05, 1.0, 30.0, 1e6])
@pytest.mark.parametrize("dim", [5, 11, 33])
def test_slopes_of_odd_dimensions(dim, t):
    for r in (1e-9, 0.2, 3.0, 40.0, 700.0) if dim < 33 else (0.2, 10.0):
        with mp.workdps(60 + 45 * (dim + 4)):
            x = mp.mpf(r)
            k, k1, k2 = odd_jet(x, mp.mpf(t), dim, order=2)
            want = float(k1 / k / (2 * mp.sinh(x)))
            terms = [float(2 * k2 / k), float((dim - 1) * mp.coth(x) * k1 / k)]
            laplacian = float(2 * k2 / k + (dim - 1) * mp.coth(x) * k1 / k)
        found = hyperbolic_slopes(r, t, dim)
        assert found[0] == pytest.approx(want, rel=ROUNDING)
        assert abs(found[1] - laplacian) <= ROUNDING * np.abs(terms).sum()


@pytest.mark.parametrize("dim, r, t", [(2, 0.3, 0.05), (2, 5.0, 3.0), (4, 1.0, 1e-3), (10, 3.0, 0.3)])
def test_slopes_of_even_dimensions(dim, r, t):
    """By five-point differences in many digits; their truncation is the fourth power of 1e-4."""
    with mp.workdps(40):
        x = mp.mpf(r)
        h = mp.mpf(1e-4) * min(r, np.sqrt(t), t / r)
        far, down, at, up, beyond = (log_cauchy(x + s * h, t, dim) - (x + s * h) ** 2 / (2 * mp.mpf(t))
                                     for s in (-2, -1, 0, 1, 2))
        slope = (8 * (up - down) - (beyond - far)) / (12 * h)
        bend = (16 * (up + down) - (beyond + far) - 30 * at) / (12 * h * h) + slope**2
        want = float(slope / (2 * mp.sinh(x)))
        terms = [float(bend), float((dim - 1) * mp.coth(x) * slope)]
    found = hyperbolic_slopes(r, t, dim)
    assert found[0] == pytest.approx(want, rel=1e-13)
    assert abs(found[1] - sum(terms)) <= 1e-12 * np.abs(terms).sum()


@pytest.mark.parametrize("dim", [2, 3, 4, 11, 64])
@pytest.mark.parametrize("t", [1e-6, 0.01, 0.4, 3.0, 100.0])
def test_laplacian_is_twice_the_time_derivative(dim, t):
    r = np.array([0.0, 0.4, 1.7, 10.0, 100.0, 1400.0])
    h = 0.01 * t
    logs = {k: log_hyperbolic(r, t + k * h, dim) for k in (-3, -2, -1, 1, 2, 3)}
    rate = (45 * (logs[1] - logs[-1]) - 9 * (logs[2] - logs[-2]) + logs[3] - logs[-3]) / (60 * h)
    _, laplacian = hyperbolic_slopes(r, t, dim)
    # truncation of order six at one per cent of t, and rounding of the log over the step
    bound = 1e-9 * (dim / t + (r / t + dim) ** 2) + 1e-14 * np.abs(logs[1]) / h
    assert (np.abs(2 * rate + (r / t) ** 2 - laplacian) <= bound).all()


@pytest.mark.parametrize("dim", [2, 3, 4, 7, 10, 33])
def test_dimension_shift(dim):
    """The slope in c of H^d is -pi exp(d t/2) times the quotient of the kernels of H^{d+2} and H^d."""
    r = np.array([0.0, 0.1, 1.0, 5.0, 50.0])
    for t in (1e-3, 0.1, 2.0):
        quotient = np.exp(log_hyperbolic(r, t, dim + 2) - log_hyperbolic(r, t, dim))
        # logs of up to 1000 are subtracted
        np.testing.assert_allclose(hyperbolic_slopes(r, t, dim)[0], -np.pi * np.exp(dim * t / 2) * quotient, rtol=1e-12)


# ------------------------------------------------------------------------------------------ identities


def gauss(low, high, count):
    x, w = np.polynomial.legendre.leggauss(count)
    return low + 0.5 * (high - low) * (1 + x), 0.5 * (high - low) * w


@pytest.mark.parametrize("dim", [2, 3, 5, 6, 11, 24])
@pytest.mark.parametrize("t", [1e-6, 0.01, 1.0, 20.0, 300.0])
def test_mass_is_one(dim, t):
    drift = 0.5 * (dim - 1) * t
    spread = (9 + np.sqrt(dim)) * np.sqrt(t)
    r, w = gauss(max(0.0, drift - spread), drift + spread, 200)
    log_area = log_sphere_area(dim - 1) + (dim - 1) * (r + np.log(-0.5 * np.expm1(-2 * r)))
    mass = w @ np.exp(log_area + log_hyperbolic(r, t, dim) - r * r / (2 * t))
    # logs of up to d^2 t/4 are added
    assert mass == pytest.approx(1.0, abs=1e-12 + 1e-15 * dim**2 * t)


@pytest.mark.parametrize("dim", [2, 3, 4, 7])
@pytest.mark.parametrize("s, t", [(0.05, 0.1), (1.5, 0.6)])
def test_kernels_are_a_semigroup(dim, s, t):
    """The integral over H^d of k_s(x, z) k_t(z, y), z in polar coordinates around x."""
    drift = 0.5 * (dim - 1) * s
    rho, w = gauss(0.0, drift + 10 * np.sqrt(s), 120)
    angle, v = gauss(0.0, np.pi, 240)
    for y in (0.0, 0.5, 2.0):
        away = np.sinh(0.5 * (rho[:, None] - y)) ** 2 + np.outer(np.sinh(rho) * np.sinh(y), np.sin(0.5 * angle) ** 2)
        sigma = 2 * np.arcsinh(np.sqrt(away))
        log_k = log_hyperbolic(sigma, t, dim) - sigma**2 / (2 * t)
        ring = np.exp(log_hyperbolic(rho, s, dim) - rho**2 / (2 * s)) * np.sinh(rho) ** (dim - 1)
        around = np.exp(log_k) @ (v * np.sin(angle) ** (dim - 2)) * np.exp(log_sphere_area(dim - 2))
        want = np.exp(log_hyperbolic(y, s + t, dim) - y * y / (2 * (s + t)))
        assert w @ (ring * around) == pytest.approx(float(want), rel=1e-11)


@pytest.mark.parametrize("dim", [2, 3, 4, 9])
def test_first_coefficient_of_the_small_time_expansion(dim):
    """log k - log Gaussian + log(theta)/2 = u_1(r) t + O(t^2), theta the volume distortion.

    u_1 = -(d-1)^2/8 + (d-1)(d-3)/8 (r coth r - 1)/r^2, which is scal/12 = -d(d-1)/12 at r = 0.
    """
    for r in (0.0, 0.5, 4.0):
        bend = 1 / 3 if r == 0 else (r / np.tanh(r) - 1) / r**2
        want = -((dim - 1) ** 2) / 8 + (dim - 1) * (dim - 3) / 8 * bend
        theta = 1.0 if r == 0 else (np.sinh(r) / r) ** (dim - 1)

        def excess(t, r=r, theta=theta):
            return float(log_hyperbolic(r, t, dim) + 0.5 * dim * np.log(2 * np.pi * t) + 0.5 * np.log(theta)) / t

        t = 1e-3
        richardson = (8 * excess(t / 4) - 6 * excess(t / 2) + excess(t)) / 3
        assert richardson == pytest.approx(want, abs=1e-7 * dim**3)


# --------------------------------------------------------------------------------------------- calling


@pytest.mark.parametrize("dim", [2, 3, 4, 5])
def test_shapes(dim):
    """Any shape, integers too; many rows in one call are those rows one by one, whatever the blocks."""
    r = np.linspace(0.0, 30.0, 3000).reshape(3, 500, 2)
    together = [log_hyperbolic(r, 0.7, dim), *hyperbolic_slopes(r, 0.7, dim)]
    for k in ((0, 0, 0), (0, 0, 1), (1, 321, 0), (2, 499, 1)):
        alone = [log_hyperbolic(r[k], 0.7, dim), *hyperbolic_slopes(float(r[k]), 0.7, dim)]
        for a, b in zip(together, alone, strict=True):
            assert a.shape == r.shape and b.shape == ()
            assert a[k] == pytest.approx(float(b), rel=1e-13)
    assert log_hyperbolic(np.zeros((0, 4)), 0.7, dim).shape == (0, 4)
    assert hyperbolic_slopes([], 0.7, dim)[1].shape == (0,)
    assert log_hyperbolic([0, 2], 1, dim)[1] == pytest.approx(float(log_hyperbolic(2.0, 1.0, dim)), rel=1e-13)


@pytest.mark.parametrize("function", [log_hyperbolic, hyperbolic_slopes])
def test_what_is_not_a_kernel_is_refused(function):
    with pytest.raises(UnsupportedError, match="dimension 101.*up to dimension 100"):
        function(np.zeros(1), 0.1, 101)
    for dim in (1, 0, -2):
        with pytest.raises(ValueError, match="at least 2"):
            function(0.5, 0.1, dim)
    for t in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="must be positive"):
            function(0.5, t, 2)
    with pytest.raises(ValueError, match="too small"):
        function(0.5, 1e-151, 2)
    for bad in (-1e-9, np.nan, np.inf):
        with pytest.raises(ValueError, match=r"entry 2 of 3.* must be finite and at least 0"):
            function([0.0, 1.0, bad], 0.1, 2)
