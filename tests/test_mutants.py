"""A conformance suite is worth the mutants it kills: deliberate errors, and the checks that find them.

Each mutant is one plausible mistake, made on a manifold that passes. Each check named beside it must find it, by
what it measures: an exception, as of a patch that has lost its place, does not count.
"""
from __future__ import annotations

import functools
import inspect
import math

import numpy as np
import pytest

from rdks import _kernels, _twins, engines, heat, radial
from rdks.engines import DirectSum, Evaluation, Sources
from rdks.manifolds import (
    SO3,
    Box,
    Circle,
    Euclidean,
    Hyperbolic,
    Manifold,
    OrnsteinUhlenbeck,
    Product,
    ProjectiveSpace,
    Quotient,
    SpaceForm,
    Sphere,
    Torus,
)
from rdks.sampling import steps
from rdks.testing import MANIFOLD_CHECKS

BASE = SpaceForm
CHECKS = {check.__name__: check for check in MANIFOLD_CHECKS}


def recast(value, overrides):
    """Return a frozen value as one of a class of its own, with methods replaced.

    Values of different classes are not equal, so that cached tables of the original are not served to it.
    """
    new = object.__new__(type("Wrong", (type(value),), overrides))
    new.__dict__.update(value.__dict__)
    return new


def with_method(manifold, **overrides):
    """Return the manifold with methods of its own replaced."""
    return recast(manifold, overrides)


def with_factor(manifold, **overrides):
    """Return the manifold with methods of its space forms replaced."""
    factors = tuple(recast(f, overrides) for f in manifold.factors())
    return with_method(manifold, factors=lambda self: factors)


def kernel(change):
    """Factor methods whose log kernel is changed by a constant or a function of (factor, r, t)."""
    return {"log_kernel": lambda self, r, t: BASE.log_kernel(self, r, t) + change(self, np.asarray(r), t)}


def below_three(x):
    """A smooth function, x but for 1e-8 up to x = 1, that stays below 3: formulas of r / sin r are finite there."""
    return x / (1 + (x / 3) ** 16) ** (1 / 16)


# ---------------------------------------------------------------- wrong kernels and wrong geometry


def wrong_time_factor(base, patch):
    def log_kernel(self, r, t):
        return BASE.log_kernel(self, r, 2 * t) + np.asarray(r) ** 2 / (4 * t)

    return with_factor(base, log_kernel=log_kernel, slopes=lambda self, r, t: BASE.slopes(self, r, 2 * t))


def missing_normalisation(base, patch):
    return with_factor(base, **kernel(lambda f, r, t: np.log(4 * np.pi)))


def chord_as_distance(base, patch):
    return with_factor(base, dist=lambda self, X, Y: np.sqrt(np.sum((X - Y) ** 2, axis=-1)))


def missing_volume_distortion(base, patch):
    """Without r / sin r on the three-sphere."""
    return with_factor(base, **kernel(lambda f, r, t: np.log(np.sinc(below_three(r) / np.pi))))


def missing_curvature_growth(base, patch):
    """Without exp(t/2) on the three-sphere; the slopes are right."""
    return with_factor(base, **kernel(lambda f, r, t: -0.5 * t))


def wrong_power_of_the_radius(base, patch):
    return with_factor(base, **kernel(lambda f, r, t: np.log(f.radius)))


def wrong_chord_constant(base, patch):
    """The squared chord taken for 8 R^2 sin^2(r / 2R) in the dense tables."""
    right = radial._distance_from_chord
    patch.setattr(radial, "_distance_from_chord", lambda factor, c: right(factor, 0.5 * c))
    return base


def density_per_radian(base, patch):
    """The reference measure forgotten: a circle's density per radian, not per unit of length."""
    return with_factor(base, **kernel(lambda f, r, t: np.log(f.period / (2 * np.pi))))


def no_winding(base, patch):
    """A Gaussian of the shortest distance on a circle."""
    return with_factor(
        base, log_kernel=lambda self, r, t: np.full(np.shape(r), -0.5 * np.log(2 * np.pi * t)),
        slopes=lambda self, r, t: (np.full(np.shape(r), -0.5 / t), (np.asarray(r) ** 2 / t - 1) / t))


def parametrix_for_the_kernel(base, patch):
    """The leading term of the small-time expansion on the two-sphere."""
    def log_kernel(self, r, t):
        return -np.log(2 * np.pi * t) - 0.5 * np.log(np.sinc(below_three(np.asarray(r)) / np.pi))

    return with_factor(base, log_kernel=log_kernel)


def sphere_law_of_the_wrong_dimension(base, patch):
    """The Gegenbauer sum of the next dimension: a plausible slip, a different kernel."""
    def log_kernel(self, r, t):
        R = self.radius
        return (heat.log_sphere(np.asarray(r) / R, t / R**2, self.dim + 1)
                + 0.5 * np.log(2 * np.pi * t / R**2) - self.dim * np.log(R))

    return with_factor(base, log_kernel=log_kernel)


def gradient_without_its_two(base, patch):
    def slopes(self, r, t):
        first, laplacian = BASE.slopes(self, r, t)
        return 0.5 * first, laplacian

    return with_factor(base, slopes=slopes)


def half_laplacian(base, patch):
    def slopes(self, r, t):
        first, laplacian = BASE.slopes(self, r, t)
        return first, 0.5 * laplacian

    return with_factor(base, slopes=slopes)


def radius_ignored_in_log(base, patch):
    return with_factor(base, log=lambda self, X, Y: BASE.log(self, X, Y) / self.radius)


def radius_ignored_in_exp(base, patch):
    return with_factor(base, exp=lambda self, X, V: BASE.exp(self, X, V * self.radius))


def radius_ignored_in_dist(base, patch):
    return with_factor(base, dist=lambda self, X, Y: BASE.dist(self, X, Y) / self.radius)


def radius_ignored_in_project(base, patch):
    return with_factor(base, project=lambda self, X: BASE.project(self, X) / self.radius)


def period_ignored_in_dist(base, patch):
    return with_factor(base, difference=lambda self, X, Y: X - Y)


def frame_a_little_long(base, patch):
    return with_factor(base, frame=lambda self, X: 1.001 * BASE.frame(self, X))


def tangent_projection_forgets_the_radius(base, patch):
    return with_factor(base, to_tangent=lambda self, X, V: V - np.einsum("...j,...j->...", X, V)[..., None] * X)


def area_of_the_wrong_dimension(base, patch):
    """sin^d for sin^(d-1): the sampler's radius has the wrong law."""
    return with_factor(base, log_area=lambda self, r: BASE.log_area(self, r) + np.log(np.maximum(np.sin(r), 1e-300)))


def wrong_volume(base, patch):
    return with_factor(base, log_volume=np.log(4 * np.pi))


def volume_without_its_log(base, patch):
    return with_method(base, volume=1.0)


def no_curvature(base, patch):
    return with_factor(base, curvature=0.0)


def eigenvalue_of_the_next_dimension(base, patch):
    return with_factor(base, smallest_eigenvalue=property(lambda self: (self.dim + 1) / self.radius**2))


def eigenvalue_too_small(base, patch):
    return with_factor(base, smallest_eigenvalue=property(lambda self: 0.5 * self.dim / self.radius**2))


def random_points_off_the_sphere(base, patch):
    return with_factor(base, random=lambda self, n, rng: rng.standard_normal((n, self.width)))


# ------------------------------------------------------------------------------- hyperbolic space


def sine_for_sinh(base, patch):
    """r / sin r for r / sinh r in the kernel of the three-dimensional space."""
    def change(f, r, t):
        x = r / f.radius
        return np.log(np.divide(np.sinh(x), x, out=np.ones_like(x), where=x > 0) / np.sinc(below_three(x) / np.pi))

    return with_factor(base, **kernel(change))


def missing_curvature_decay(base, patch):
    """Without exp(-t/2) in the three-dimensional space; the slopes are right."""
    return with_factor(base, **kernel(lambda f, r, t: 0.5 * t / f.radius**2))


def time_in_radii(base, patch):
    """Time divided by R where it is to be divided by R^2."""
    def log_kernel(self, r, t):
        x, R = np.asarray(r) / self.radius, self.radius
        return heat.log_hyperbolic(x, t / R, self.dim) - self.dim * np.log(R) + 0.5 * (x * x * (R * R - R) / t)

    return with_factor(base, log_kernel=log_kernel)


def curvature_of_a_sphere(base, patch):
    return with_factor(base, curvature=property(lambda self: self.radius**-2))


def slopes_per_radius(base, patch):
    """The chain rule forgotten: derivatives for the chord of the space of radius 1."""
    def slopes(self, r, t):
        first, laplacian = BASE.slopes(self, r, t)
        return first * self.radius**2, laplacian * self.radius**2

    return with_factor(base, slopes=slopes)


def partial_derivatives_for_the_score(base, patch):
    """The half-space gradient without the factor x_d / R of its frame."""
    change_evaluation(patch, lambda self, Z, e: e if e.gradient is None else e._replace(
        gradient=e.gradient * self.manifold.radius / Z[:, -1:]))
    return base


def dist_by_one_height(base, patch):
    """|x - y| / x_d for |x - y| / sqrt(x_d y_d)."""
    def dist(self, X, Y):
        chord = np.sqrt(np.sum((X - Y) ** 2, axis=-1))
        return 2 * self.radius * np.arcsinh(0.5 * chord / X[..., -1])

    return with_factor(base, dist=dist)


def geodesics_upside_down(base, patch):
    return with_factor(base, exp=lambda self, X, V: BASE.exp(self, X, V * np.r_[np.ones(self.dim - 1), -1.0]))


def straight_lines_in_the_half_space(base, patch):
    """The direction of the chord for that of the geodesic."""
    def log(self, X, Y):
        D = Y - X
        size, r = np.sqrt(np.sum(D * D, axis=-1)), self.dist(X, Y)
        return D * np.divide(r, size, out=np.zeros_like(r), where=size > 0)[..., None]

    return with_factor(base, log=log)


def area_with_a_sine(base, patch):
    """sin for sinh in the area of geodesic spheres."""
    return with_factor(base, log_area=lambda self, r: heat.log_sphere_area(self.dim - 1) + (self.dim - 1) * np.log(
        self.radius * np.maximum(np.sin(np.asarray(r) / self.radius), 1e-300)))


def velocity_per_height(base, patch):
    """Tangent vectors of the half-space chart without the division by R."""
    return with_method(base, push_tangent=lambda self, X, V: type(base).push_tangent(self, X, V) * self.radius)


def radius_ignored_in_the_chart(base, patch):
    """Points of the hyperboloid of radius R read as those of radius 1."""
    def embed(self, X):
        return type(base).embed(self, X * self.radius)

    return with_method(base, embed=embed)


# ------------------------------------------------------------------- quotients, and boxes of them


def image_left_out(base, patch):
    return with_method(base, images=lambda self, Z: type(base).images(self, Z)[:-1])


def only_the_source_itself(base, patch):
    return with_method(base, images=Manifold.images)


def image_counted_twice(base, patch):
    def images(self, Z):
        found = type(base).images(self, Z)
        return np.concatenate([found, found[-1:]])

    return with_method(base, images=images)


def density_averaged_over_images(base, patch):
    """The mean over the images for their sum: 1 / (order of the group) too much."""
    return with_factor(base, **kernel(lambda f, r, t: -np.log(base.n_images)))


def volume_of_the_cover(base, patch):
    return with_method(base, log_volume=base.log_volume + np.log(base.n_images))


def eigenvalue_of_the_cover(base, patch):
    return with_method(base, smallest_eigenvalue=Manifold.smallest_eigenvalue)


def dist_of_the_cover(base, patch):
    return with_method(base, dist=Manifold._cover_dist)


def log_of_the_cover(base, patch):
    return with_method(base, log=lambda self, Z, W: self._each("log", Z, W))


def reflected_about_the_middle(base, patch):
    """L - x for -x: the image of a point of a box behind a wall that is not there."""
    return with_method(base, images=lambda self, Z: np.stack([Z, self._sides[2] - Z]))


def wrapped_for_folded(base, patch):
    """A point beyond a wall comes back at the other one."""
    return with_method(base, project=lambda self, Z: np.mod(Z, self._sides[2]))


def own_images_left_in(base, patch):
    """Leave-one-out that leaves out the source and not its images."""
    right = DirectSum._part

    def _part(self, kernels, blocks, *args, **options):
        blocks = [block if i % base.n_images == 0 else (*block[:-1], np.full_like(block[-1], -1))
                  for i, block in enumerate(blocks)]
        right(self, kernels, blocks, *args, **options)

    patch.setattr(DirectSum, "_part", _part)
    return base


def kernel_to_itself_without_images(base, patch):
    """The kernel from a source to itself, of which bandwidth rules are made, in the cover."""
    cover = only_the_source_itself(base, patch)
    patch.setattr(DirectSum, "log_self", lambda self, t=0.0: cover.log_heat_kernel(self.Z, self.Z, self.time[0] + t))
    return base


def wall_taken_for_any_place(base, patch):
    """One kernel from a point to itself for all, where it is twice as high at a wall."""
    return with_method(base, is_homogeneous=True)


def antipode_in_the_tables_too(base, patch):
    """A mirror image taken for the antipode, which the even series adds."""
    return with_method(base, antipodal=True)


# ------------------------------------------------------------------------------------ with a drift


def mean_of_twice_the_time(base, patch):
    return with_method(base, flow=lambda self, Z, t: (math.exp(-t) * Z, -math.expm1(-t)))


def variance_without_friction(base, patch):
    return with_method(base, flow=lambda self, Z, t: (math.exp(-0.5 * t) * Z, t))


def clock_twice_as_fast(base, patch):
    """dX = -X dt + sqrt(2) dB: a semigroup with the same invariant law."""
    return with_method(base, flow=lambda self, Z, t: (math.exp(-t) * Z, -math.expm1(-2 * t)))


def drift_outwards(base, patch):
    return with_method(base, drift=lambda self, Z: 0.5 * Z)


def density_relative_to_the_invariant_law(base, patch):
    """Everywhere, derivatives included."""
    def change(self, Z, e):
        return Evaluation(e.log_density - base.log_invariant(Z), None if e.gradient is None else e.gradient + Z,
                          None if e.laplacian is None else e.laplacian + base.dim)

    change_evaluation(patch, change)
    return with_method(base, log_heat_kernel=lambda self, Z, W, t: (
        Manifold.log_heat_kernel(self, Z, W, t) - self.log_invariant(W)))


def kernel_taken_for_symmetric(base, patch):
    """The query, not the source, is carried along."""
    return with_method(base, log_heat_kernel=lambda self, Z, W, t: Manifold.log_heat_kernel(self, W, Z, t))


def invariant_law_of_half_the_variance(base, patch):
    return with_method(base, log_invariant=lambda self, Z: (
        -np.sum(Z * Z, axis=1) - 0.5 * self.dim * np.log(np.pi)))


def sampler_without_the_drift(base, patch):
    right = steps.heat_sample
    flat = Euclidean(base.dim)
    for module in ("testing", "engines"):
        patch.setattr(f"rdks.{module}.heat_sample", lambda m, Z, t, rng: right(flat, Z, t, rng))
    return base


# ------------------------------------------------------------------- products with a time per part


def lengths_divided_by_the_time(base, patch):
    """By a_i, where it is to be its root."""
    def scaling(self):
        return np.concatenate([np.full(f.width, a) for part, a in zip(self.parts, self.times, strict=True)
                               for f in part.factors()])

    squared = Product(*base.parts, times=[a * a for a in base.times])
    return with_method(base, factors=lambda self: squared.factors(), _scaling=scaling)


def unit_forgotten_in_sums(base, patch):
    change_evaluation(patch, lambda self, Z, e: e._replace(log_density=e.log_density - base.log_unit))
    return base


def unit_forgotten_in_the_volume(base, patch):
    return with_method(base, log_volume=base.log_volume + base.log_unit)


def eigenvalue_of_the_slowest_part(base, patch):
    return with_method(base, smallest_eigenvalue=min(part.smallest_eigenvalue for part in base.parts))


def unit_forgotten(base, patch):
    return with_method(base, log_unit=0.0)


def gradients_pushed_like_velocities(base, patch):
    return with_method(base, push_gradient=lambda self, X, G: self.push_tangent(X, G))


# ------------------------------------------------------------------------------------------ charts


def every_row_valid(base, patch):
    return with_method(base, violation=lambda self, X: np.zeros(len(X)))


def longitude_in_radians(base, patch):
    return with_method(base, unembed=lambda self, Z: Sphere.unembed(self, Z) * [1.0, np.pi / 180])


def east_per_degree(base, patch):
    """The east component not per unit of length but per unit of longitude."""
    def push_tangent(self, X, V):
        return Sphere.push_tangent(self, X, V) * np.column_stack(
            [np.ones(len(X)), np.cos(np.deg2rad(X[:, 0]))])

    return with_method(base, push_tangent=push_tangent)


def north_and_east_exchanged(base, patch):
    return with_method(base, push_tangent=lambda self, X, V: Sphere.push_tangent(self, X, V)[:, ::-1])


# ---------------------------------------------------------------------------------- sums and tables


def change_evaluation(patch, change):
    right = DirectSum._evaluate
    patch.setattr(DirectSum, "_evaluate", lambda self, Z, *args: change(self, Z, right(self, Z, *args)))


def score_not_projected(base, patch):
    """The ambient gradient of the chord, 2 (d log k / dc) (x - y), returned as the score."""
    return with_method(base, to_tangent=lambda self, Z, V: V)


def laplacian_of_p_for_that_of_log_p(base, patch):
    change_evaluation(patch, lambda self, Z, e: e if e.laplacian is None else Evaluation(
        e.log_density, e.gradient, e.laplacian + np.sum(e.gradient**2, 1)))
    return base


def score_of_the_wrong_sign(base, patch):
    change_evaluation(patch, lambda self, Z, e: e if e.gradient is None else e._replace(gradient=-e.gradient))
    return base


def weights_not_normalised(base, patch):
    change_evaluation(patch, lambda self, Z, e: e._replace(log_density=e.log_density + np.log(self.weight.sum())))
    return base


def weights_squared(base, patch):
    patch.setattr(DirectSum, "share", property(lambda self: self.weight**2 / np.sum(self.weight**2)))
    return base


def time_of_the_first_source(base, patch):
    right = DirectSum.blocks
    patch.setattr(DirectSum, "blocks", lambda self: [(float(self.time[0]), *block[1:]) for block in right(self)])
    return base


def later_time_twice_as_late(base, patch):
    right = DirectSum._evaluate
    patch.setattr(DirectSum, "_evaluate", lambda self, Z, t, *args: right(self, Z, 2 * t, *args))
    return base


def merge_forgets_weights(base, patch):
    right = Sources.merge

    def merge(self, other):
        new = right(self, other)
        return new.like(new.Z, np.ones(len(new.Z)), new.time)

    patch.setattr(Sources, "merge", merge)
    return base


def change_kernel(patch, name, change):
    """Replace the arguments or results of a compiled reduction."""
    patch.setattr(_kernels, name, functools.partial(change, getattr(_kernels, name)))


def argument(name, of):
    """Position of an argument of a reduction, the same in the compiled form and its numpy twin."""
    return list(inspect.signature(getattr(_twins, of)).parameters).index(name)


def forget_period(patch, name):
    place = argument("period", name)

    def change(right, *args):
        right(*args[:place], np.zeros_like(args[place]), *args[place + 1:])

    change_kernel(patch, name, change)


def period_ignored_in_dense_sums(base, patch):
    forget_period(patch, "kernel_sums")
    return base


def period_ignored_in_the_tail(base, patch):
    forget_period(patch, "tail_sums")
    return base


def tail_score_of_the_wrong_sign(base, patch):
    place = argument("gradient", "tail_sums")

    def change(right, *args):
        right(*args)
        args[place][...] *= -1

    change_kernel(patch, "tail_sums", change)
    return base


def tail_exponent_of_the_wrong_time(base, patch):
    """exp(-r^2 / 4t) in the tail."""
    place = argument("t", "tail_sums")

    def change(right, *args):
        right(*args[:place], 2 * args[place], *args[place + 1:])

    change_kernel(patch, "tail_sums", change)
    return base


def tail_that_underflows(base, patch):
    """The log of a sum of kernels, each in the range of floats or zero."""
    place = argument("log_total", "tail_sums")

    def change(right, *args):
        right(*args)
        args[place][args[place] < -745] = -np.inf

    change_kernel(patch, "tail_sums", change)
    return base


def change_deep_tail(patch, name):
    log_total, place = argument("log_total", "tail_sums"), argument(name, "tail_sums")

    def change(right, *args):
        right(*args)
        if len(args[place]) == len(args[log_total]):
            args[place][args[log_total] < -60] *= 2

    change_kernel(patch, "tail_sums", change)


def score_doubled_in_the_deep_tail(base, patch):
    change_deep_tail(patch, "gradient")
    return base


def laplacian_doubled_in_the_deep_tail(base, patch):
    change_deep_tail(patch, "laplacian")
    return base


def tail_slope_without_its_division(base, patch):
    """Panels of a hyperbolic factor that hold d log k / dr, read as that over r."""
    right = radial._slots

    def slots(factor, r, t, order, gaussian):
        values = right(factor, r, t, order, gaussian)
        if factor.hyperbolic and not gaussian and order:
            values[1] = values[1] * r
        return values

    patch.setattr(radial, "_slots", slots)
    return base


def own_term_not_skipped(base, patch):
    place = argument("skip", "kernel_sums")

    def change(right, *args):
        right(*args[:place], np.full_like(args[place], -1), *args[place + 1:])

    change_kernel(patch, "kernel_sums", change)
    return base


def later_time_ignored_in_leave_one_out(base, patch):
    right = DirectSum.leave_one_out
    patch.setattr(DirectSum, "leave_one_out", lambda self, t=0.0, rows=None: right(self, 0.0, rows))
    return base


def first_rows_for_chosen_ones(base, patch):
    right = DirectSum.leave_one_out

    def leave_one_out(self, t=0.0, rows=None):
        found = right(self, t)
        return found if rows is None else found[:len(rows)]

    patch.setattr(DirectSum, "leave_one_out", leave_one_out)
    return base


def far_sources_left_out(base, patch):
    """Only the first tile of the sources is summed."""
    w = argument("w", "kernel_sums")

    def change(right, *args):
        light = args[w].copy()
        light[512:] = 0.0
        right(*args[:w], light, *args[w + 1:])

    change_kernel(patch, "kernel_sums", change)
    return base


def boxes_half_as_wide(base, patch):
    """Tiles of sources left out by boxes that do not hold them."""
    place = argument("extent", "kernel_sums")

    def change(right, *args):
        right(*args[:place], 0.5 * args[place], *args[place + 1:])

    change_kernel(patch, "kernel_sums", change)
    return base


def no_tail(base, patch):
    """Queries far from all sources keep what the dense sum left of them."""
    patch.setattr(DirectSum, "_tail", lambda self, *args: None)
    return base


def tail_used_too_late(base, patch):
    """The cut of the dense form taken for the kernel down to exp(-60)."""
    patch.setattr(engines, "_TRUST", 1.0)
    return base


def series_right_everywhere(base, patch):
    """The series form trusted far below the peak, where its rounding is all there is."""
    patch.setattr(radial, "_SERIES_ERROR", 0.0)
    return base


def series_slope_without_the_other_factors(base, patch):
    names = "form", "poly", "start", "total", "gradient", "laplacian"
    form, poly, start, total, gradient, laplacian = (argument(name, "kernel_sums") for name in names)

    def change(right, *args):
        right(*args)
        series = np.flatnonzero(args[form] >= 2)
        for f in series if args[gradient].shape[0] == args[total].size else ():
            alone = list(args)
            for place in (total, gradient, laplacian):
                alone[place] = np.zeros_like(args[place])
            alone[poly] = args[poly].copy()
            alone[poly][series[series != f], 0] = np.eye(1, args[poly].shape[-1])  # the constant 1
            right(*alone)
            columns = slice(*args[start][f:f + 2])
            args[gradient][:, columns] = alone[gradient][:, columns]

    change_kernel(patch, "kernel_sums", change)
    return base


def even_series_counted_once(base, patch):
    """A source and its antipode served by the even part of the series, not doubled."""
    right = radial._series_form

    def series_form(*args):
        found = right(*args)
        return (found[0], 0.5 * found[1], found[2]) if found and args[-1] else found

    patch.setattr(radial, "_series_form", series_form)
    return base


def octave_cells_off_by_one(base, patch):
    right = radial._octave_cells

    def octave_cells(*args):
        top, cells, last = right(*args)
        return top, np.roll(cells, 1, axis=-1), last

    patch.setattr(radial, "_octave_cells", octave_cells)
    return base


def octave_cells_without_end(base, patch):
    """The last cell's end taken for the kernel at every distance beyond."""
    right = radial._octave_cells
    patch.setattr(radial, "_octave_cells", lambda *args: (*right(*args)[:2], 0.0))
    return base


# ----------------------------------------------------------------------------------------- sampling


def flat_radius(base, patch):
    patch.setattr(steps, "radial_law", lambda factor, t: lambda rho: rho)
    return base


def sampler_of_twice_the_time(base, patch):
    right = steps.heat_sample
    patch.setattr("rdks.testing.heat_sample", lambda m, Z, t, rng: right(m, Z, 2 * np.asarray(t), rng))
    return base


def estimator_samples_without_weights(base, patch):
    """A source picked uniformly, whatever its weight."""
    class Careless(np.random.Generator):
        def choice(self, a, size=None, p=None):
            return super().choice(a, size=size)

    patch.setattr("rdks._validation.as_generator", lambda seed: Careless(seed.bit_generator))
    return base


EARTH = Sphere(2, coords="latlon_deg")
THREEFOLD = Quotient(Circle(), [[[1.0]]] * 3, shifts=[[0.0], [2 * np.pi / 3], [4 * np.pi / 3]])
MIRROR = Quotient(Sphere(2), [np.eye(3), np.diag([1.0, 1.0, -1.0])])
UNIT = Box([(0.0, 1.0)])
FOLDED = Quotient(Euclidean(1), [[[1.0]], [[-1.0]]])
PACED = Product(Sphere(2), Circle(), times=(1.0, 4.0))

MUTANTS = [
    # wrong kernels and wrong geometry
    (wrong_time_factor, Sphere(2), "kernel_solves_the_heat_equation on_diagonal_limit"),
    (missing_normalisation, Sphere(2), "kernel_has_mass_one on_diagonal_limit uniform_limit"),
    (chord_as_distance, Sphere(2), "exp_and_log_are_inverse varadhan_limit"),
    (missing_volume_distortion, Sphere(3), "kernel_solves_the_heat_equation kernel_has_mass_one"),
    (missing_curvature_growth, Sphere(3), "kernel_solves_the_heat_equation kernel_has_mass_one"),
    (wrong_power_of_the_radius, Sphere(2, radius=3.0), "kernel_has_mass_one on_diagonal_limit"),
    (wrong_chord_constant, Sphere(2), "tables_honour_their_error kernel_solves_the_heat_equation"),
    (density_per_radian, Circle(24.0), "kernel_has_mass_one uniform_limit"),
    (no_winding, Circle(), "kernel_has_mass_one kernels_are_a_semigroup uniform_limit"),
    (parametrix_for_the_kernel, Sphere(2), "kernel_solves_the_heat_equation kernel_has_mass_one"),
    (sphere_law_of_the_wrong_dimension, Sphere(2), "kernel_solves_the_heat_equation kernel_has_mass_one"),
    (gradient_without_its_two, Sphere(2), "score_is_the_slope_of_log_density stein_identity"),
    (half_laplacian, Sphere(2), "laplacian_is_that_of_geodesics divergence_of_the_score"),
    (radius_ignored_in_log, Sphere(2, radius=3.0), "exp_and_log_are_inverse"),
    (radius_ignored_in_exp, Sphere(2, radius=3.0), "exp_and_log_are_inverse geodesics_have_constant_speed"),
    (radius_ignored_in_dist, Sphere(2, radius=3.0), "dist_is_a_metric chord_is_distance_near_zero"),
    (radius_ignored_in_project, Sphere(2, radius=3.0), "project_is_a_projection random_points_are_valid"),
    (period_ignored_in_dist, Circle(24.0), "dist_is_a_metric varadhan_limit"),
    (frame_a_little_long, Sphere(2), "frame_is_orthonormal_and_tangent"),
    (tangent_projection_forgets_the_radius, Sphere(2, radius=3.0), "tangent_projection_is_orthogonal"),
    (area_of_the_wrong_dimension, Sphere(3), "sampler_damps_eigenfunctions sampler_follows_the_density"),
    (wrong_volume, Sphere(2, radius=3.0), "uniform_limit total_mass_of_a_mixture"),
    (volume_without_its_log, Sphere(2), "volume_is_its_logarithm"),
    (no_curvature, Sphere(2), "on_diagonal_limit chord_is_distance_near_zero"),
    (eigenvalue_of_the_next_dimension, Sphere(2), "first_eigenvalue_sets_the_decay"),
    (eigenvalue_too_small, Sphere(2), "first_eigenvalue_sets_the_decay"),
    (random_points_off_the_sphere, Sphere(2), "project_is_a_projection"),
    # hyperbolic space
    (sine_for_sinh, Hyperbolic(3), "kernel_solves_the_heat_equation kernel_has_mass_one kernels_are_a_semigroup"),
    (missing_curvature_decay, Hyperbolic(3), "kernel_solves_the_heat_equation kernel_has_mass_one on_diagonal_limit"),
    (time_in_radii, Hyperbolic(2, radius=2.0), "kernel_solves_the_heat_equation on_diagonal_limit"),
    (curvature_of_a_sphere, Hyperbolic(2), "on_diagonal_limit"),
    (slopes_per_radius, Hyperbolic(2, radius=2.0), "score_is_the_slope_of_log_density laplacian_is_that_of_geodesics"),
    (wrong_chord_constant, Hyperbolic(2), "tables_honour_their_error dense_form_is_tail_form"),
    (partial_derivatives_for_the_score, Hyperbolic(2),
     "score_is_the_slope_of_log_density isometries_carry_density_and_score"),
    (dist_by_one_height, Hyperbolic(2), "dist_is_a_metric geodesics_have_constant_speed"),
    (radius_ignored_in_dist, Hyperbolic(2, radius=2.0), "geodesics_have_constant_speed"),
    (geodesics_upside_down, Hyperbolic(2), "exp_and_log_are_inverse"),
    (straight_lines_in_the_half_space, Hyperbolic(2), "exp_and_log_are_inverse"),
    (area_with_a_sine, Hyperbolic(3), "sampler_damps_eigenfunctions"),
    (flat_radius, Hyperbolic(3), "sampler_damps_eigenfunctions"),
    (velocity_per_height, Hyperbolic(2, coords="half_space", radius=2.0), "push_tangent_belongs_to_the_chart"),
    (radius_ignored_in_the_chart, Hyperbolic(2, radius=2.0), "embed_and_unembed_are_inverse"),
    (tail_slope_without_its_division, Hyperbolic(2), "dense_form_is_tail_form score_is_the_slope_of_log_density"),
    (octave_cells_off_by_one, Hyperbolic(2), "tables_honour_their_error"),
    (octave_cells_without_end, Hyperbolic(2), "tables_honour_their_error"),
    (boxes_half_as_wide, Hyperbolic(2), "sums_are_right_at_every_depth"),
    # quotients
    (image_left_out, THREEFOLD, "kernel_is_symmetric uniform_limit total_mass_of_a_mixture"),
    (image_left_out, FOLDED, "images_lie_over_one_point"),
    (only_the_source_itself, SO3(), "tables_honour_their_error estimator_is_the_engine"),
    (only_the_source_itself, UNIT, "uniform_limit total_mass_of_a_mixture"),
    (image_counted_twice, THREEFOLD, "kernel_is_symmetric uniform_limit total_mass_of_a_mixture"),
    (image_counted_twice, FOLDED, "images_lie_over_one_point"),
    (image_counted_twice, MIRROR, "uniform_limit total_mass_of_a_mixture"),
    (density_averaged_over_images, THREEFOLD, "kernel_has_mass_one kernels_are_a_semigroup on_diagonal_limit"),
    (volume_of_the_cover, SO3(), "uniform_limit total_mass_of_a_mixture"),
    (eigenvalue_of_the_cover, ProjectiveSpace(2), "first_eigenvalue_sets_the_decay"),
    (dist_of_the_cover, THREEFOLD, "exp_and_log_are_inverse varadhan_limit"),
    (log_of_the_cover, THREEFOLD, "exp_and_log_are_inverse"),
    (log_of_the_cover, UNIT, "exp_and_log_are_inverse"),
    (reflected_about_the_middle, UNIT, "total_mass_of_a_mixture sampler_follows_the_density"),
    (wrapped_for_folded, UNIT, "sampler_follows_the_density stein_identity"),
    (own_images_left_in, UNIT, "leave_one_out_is_the_sum_of_others"),
    (own_images_left_in, THREEFOLD, "leave_one_out_is_the_sum_of_others"),
    (kernel_to_itself_without_images, THREEFOLD, "leave_one_out_is_the_sum_of_others"),
    (wall_taken_for_any_place, UNIT, "leave_one_out_is_the_sum_of_others"),
    (even_series_counted_once, ProjectiveSpace(2), "tables_honour_their_error uniform_limit"),
    (antipode_in_the_tables_too, MIRROR, "tables_honour_their_error times_belong_to_sources"),
    # with a drift
    (mean_of_twice_the_time, OrnsteinUhlenbeck(1), "kernel_is_symmetric kernels_are_a_semigroup"),
    (variance_without_friction, OrnsteinUhlenbeck(1), "kernels_are_a_semigroup uniform_limit"),
    (clock_twice_as_fast, OrnsteinUhlenbeck(1), "kernel_solves_the_heat_equation first_eigenvalue_sets_the_decay"),
    (drift_outwards, OrnsteinUhlenbeck(1), "kernel_solves_the_heat_equation"),
    (density_relative_to_the_invariant_law, OrnsteinUhlenbeck(1),
     "kernel_has_mass_one kernel_solves_the_heat_equation fisher_information_two_ways"),
    (kernel_taken_for_symmetric, OrnsteinUhlenbeck(1), "tables_honour_their_error estimator_is_the_engine"),
    (invariant_law_of_half_the_variance, OrnsteinUhlenbeck(1), "kernel_is_symmetric uniform_limit"),
    (sampler_without_the_drift, OrnsteinUhlenbeck(1), "sampler_damps_eigenfunctions sampler_follows_the_density"),
    # products with a time per part
    (lengths_divided_by_the_time, PACED, "push_tangent_belongs_to_the_chart"),
    (unit_forgotten_in_sums, PACED, "on_diagonal_limit estimator_is_the_engine"),
    (unit_forgotten_in_the_volume, PACED, "uniform_limit total_mass_of_a_mixture"),
    (eigenvalue_of_the_slowest_part, PACED, "first_eigenvalue_sets_the_decay"),
    (unit_forgotten, PACED, "push_tangent_belongs_to_the_chart"),
    (gradients_pushed_like_velocities, PACED, "push_tangent_belongs_to_the_chart"),
    (series_slope_without_the_other_factors, PACED, "score_is_the_slope_of_log_density"),
    # charts
    (every_row_valid, Sphere(2), "corrupted_row_is_named"),
    (longitude_in_radians, EARTH, "embed_and_unembed_are_inverse"),
    (east_per_degree, EARTH, "push_tangent_belongs_to_the_chart"),
    (north_and_east_exchanged, EARTH, "push_tangent_belongs_to_the_chart"),
    # sums and tables
    (score_not_projected, Sphere(2), "score_is_tangent"),
    (laplacian_of_p_for_that_of_log_p, Circle(), "divergence_of_the_score fisher_information_two_ways"),
    (score_of_the_wrong_sign, Euclidean(1), "score_is_the_slope_of_log_density"),
    (weights_not_normalised, Circle(), "estimator_is_the_engine total_mass_of_a_mixture"),
    (weights_squared, Euclidean(1), "estimator_is_the_engine weights_count_points"),
    (time_of_the_first_source, Circle(), "times_belong_to_sources"),
    (later_time_twice_as_late, Circle(), "later_time_is_a_wider_fit"),
    (merge_forgets_weights, Euclidean(1), "merging_is_fitting_together"),
    (period_ignored_in_dense_sums, Circle(), "tables_honour_their_error dense_form_is_tail_form"),
    (period_ignored_in_the_tail, Circle(), "tables_honour_their_error dense_form_is_tail_form"),
    (tail_score_of_the_wrong_sign, Sphere(2), "dense_form_is_tail_form"),
    (score_doubled_in_the_deep_tail, Sphere(2), "score_is_the_slope_of_log_density"),
    (laplacian_doubled_in_the_deep_tail, Sphere(2), "laplacian_is_that_of_geodesics"),
    (tail_exponent_of_the_wrong_time, Euclidean(1), "tables_honour_their_error dense_form_is_tail_form"),
    (tail_that_underflows, Euclidean(1), "kernel_is_finite_everywhere"),
    (own_term_not_skipped, Circle(), "leave_one_out_is_the_sum_of_others"),
    (later_time_ignored_in_leave_one_out, Circle(), "leave_one_out_is_the_sum_of_others"),
    (first_rows_for_chosen_ones, Circle(), "leave_one_out_is_the_sum_of_others"),
    (far_sources_left_out, Circle(), "sums_are_right_at_every_depth"),
    (boxes_half_as_wide, Circle(), "sums_are_right_at_every_depth"),
    (no_tail, Sphere(2), "tables_honour_their_error sums_are_right_at_every_depth"),
    (tail_used_too_late, Sphere(2), "sums_are_right_at_every_depth"),
    (series_right_everywhere, Sphere(2), "tables_honour_their_error kernel_is_finite_everywhere"),
    # sampling
    (flat_radius, Sphere(2), "sampler_damps_eigenfunctions"),
    (sampler_of_twice_the_time, Circle(), "sampler_damps_eigenfunctions"),
    (estimator_samples_without_weights, Euclidean(1), "sampler_follows_the_density"),
]


@functools.cache
def control(name, manifold):
    """Run a check where nothing is wrong: it must apply, and pass."""
    assert CHECKS[name](manifold).not_applicable is None


def clear_tables():
    for cached in (radial.table, radial.tail_table, radial.radial_law):
        cached.cache_clear()


@pytest.fixture
def clean_tables():
    """Tables are cached by factors and time; a mutant that patches how they are made must not share."""
    yield
    clear_tables()


@pytest.mark.parametrize("mutant, base, killers", MUTANTS, ids=lambda p: getattr(p, "__name__", None))
def test_mutant_is_killed(mutant, base, killers, monkeypatch, clean_tables):
    for name in killers.split():
        control(name, base)
    clear_tables()
    wrong = mutant(base, monkeypatch)
    for name in killers.split():
        # the second is the guard of the sampler's radial law, which measures the mass of a density
        with pytest.raises((AssertionError, ArithmeticError), match="measured|has a density of integral"):
            CHECKS[name](wrong)


def test_every_check_kills_a_mutant():
    assert set(CHECKS) == {name for _, _, killers in MUTANTS for name in killers.split()}


def test_mutated_factor_has_tables_of_its_own():
    t = 0.01
    right, wrong = Torus(1), with_factor(Torus(1), **kernel(lambda f, r, t: 1.0))
    assert radial.table(wrong.factors(), t).log_peak == pytest.approx(
        radial.table(right.factors(), t).log_peak + 1)
