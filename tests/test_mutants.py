"""A conformance suite is worth the mutants it kills: deliberate errors, and the checks that find them.

Each mutant is one plausible mistake. It must be killed by ``check_manifold``, among others by the
checks named beside it; the manifold without the mistake must pass.
"""
from __future__ import annotations

import functools
import inspect
import re
from dataclasses import dataclass

import numpy as np
import pytest

from rdks import _kernels, _twins, engines, heat, radial, sampling
from rdks.engines import DirectSum, Evaluation
from rdks.manifolds import Circle, Euclidean, SpaceForm, Sphere, Torus
from rdks.testing import check_manifold

BASE = SpaceForm


def with_factor(manifold, **overrides):
    """Return the manifold with methods of its space forms replaced.

    The replacement is a class of its own, so that cached tables of the original, which are keyed by
    the factors, are not served to it.
    """
    @dataclass(frozen=True)
    class Factor(SpaceForm):
        pass

    @dataclass(frozen=True)
    class Wrong(type(manifold)):
        def factors(self):
            return tuple(Factor(f.dim, f.radius, f.period) for f in super().factors())

        __init__ = type(manifold).__init__

    for name, method in overrides.items():
        setattr(Factor, name, method)
    if isinstance(manifold, Circle):
        return Wrong(manifold.period, manifold.start)
    return Wrong(**{k: getattr(manifold, k) for k in manifold.__dataclass_fields__})


def with_method(manifold, **overrides):
    """Return the manifold with methods of its own replaced."""
    return_type = dataclass(frozen=True)(type("Wrong", (type(manifold),), dict(overrides)))
    return return_type(**{k: getattr(manifold, k) for k in manifold.__dataclass_fields__})


def kernel(change):
    """Factor methods whose log kernel is changed by a constant or a function of (factor, r, t)."""
    return {"log_kernel": lambda self, r, t: BASE.log_kernel(self, r, t) + change(self, np.asarray(r), t)}


# ---------------------------------------------------------------- wrong kernels and wrong geometry


def wrong_time_factor(monkeypatch):
    def log_kernel(self, r, t):
        return BASE.log_kernel(self, r, 2 * t) + np.asarray(r) ** 2 / (4 * t)

    return with_factor(Sphere(2), log_kernel=log_kernel,
                       slopes=lambda self, r, t: BASE.slopes(self, r, 2 * t))


def missing_normalisation(monkeypatch):
    return with_factor(Sphere(2), **kernel(lambda f, r, t: np.log(4 * np.pi)))


def chord_as_distance(monkeypatch):
    return with_factor(Sphere(2), dist=lambda self, X, Y: np.sqrt(np.sum((X - Y) ** 2, axis=-1)))


def missing_volume_distortion(monkeypatch):
    """Without r / sin r on the three-sphere (capped, so that it stays finite)."""
    return with_factor(Sphere(3), **kernel(lambda f, r, t: np.log(np.sinc(np.minimum(r, 3.0) / np.pi))))


def missing_curvature_growth(monkeypatch):
    """Without exp(t/2) on the three-sphere; the slopes are right."""
    return with_factor(Sphere(3), **kernel(lambda f, r, t: -0.5 * t))


def wrong_power_of_the_radius(monkeypatch):
    return with_factor(Sphere(2, radius=3.0), **kernel(lambda f, r, t: np.log(f.radius)))


def wrong_chord_constant(monkeypatch):
    """The squared chord taken for 8 R^2 sin^2(r / 2R) in the dense tables."""
    right = radial._distance_from_chord
    monkeypatch.setattr(radial, "_distance_from_chord", lambda factor, c: right(factor, 0.5 * c))
    return Sphere(2)


def density_per_radian(monkeypatch):
    """The reference measure forgotten: a circle's density per radian, not per unit of length."""
    return with_factor(Circle(24.0), **kernel(lambda f, r, t: np.log(f.period / (2 * np.pi))))


def missing_images(monkeypatch):
    """A Gaussian of the shortest distance on a circle."""
    return with_factor(
        Circle(), log_kernel=lambda self, r, t: np.full(np.shape(r), -0.5 * np.log(2 * np.pi * t)),
        slopes=lambda self, r, t: (np.full(np.shape(r), -0.5 / t), (np.asarray(r) ** 2 / t - 1) / t))


def parametrix_for_the_kernel(monkeypatch):
    """The leading term of the small-time expansion on the two-sphere, kept finite at the antipode."""
    def log_kernel(self, r, t):
        return -np.log(2 * np.pi * t) - 0.5 * np.log(np.sinc(np.minimum(r, 3.0) / np.pi))

    return with_factor(Sphere(2), log_kernel=log_kernel)


def gradient_without_its_two(monkeypatch):
    def slopes(self, r, t):
        first, laplacian = BASE.slopes(self, r, t)
        return 0.5 * first, laplacian

    return with_factor(Sphere(2), slopes=slopes)


def half_laplacian(monkeypatch):
    def slopes(self, r, t):
        first, laplacian = BASE.slopes(self, r, t)
        return first, 0.5 * laplacian

    return with_factor(Sphere(2), slopes=slopes)


def radius_ignored_in_log(monkeypatch):
    return with_factor(Sphere(2, radius=3.0), log=lambda self, X, Y: BASE.log(self, X, Y) / self.radius)


def radius_ignored_in_exp(monkeypatch):
    return with_factor(Sphere(2, radius=3.0), exp=lambda self, X, V: BASE.exp(self, X, V * self.radius))


def period_ignored_in_dist(monkeypatch):
    return with_factor(Circle(24.0), difference=lambda self, X, Y: X - Y)


def frame_a_little_long(monkeypatch):
    return with_factor(Sphere(2), frame=lambda self, X: 1.001 * BASE.frame(self, X))


def tangent_projection_forgets_the_radius(monkeypatch):
    return with_factor(Sphere(2, radius=3.0), to_tangent=lambda self, X, V: V - np.einsum(
        "...j,...j->...", X, V)[..., None] * X)


def area_of_the_wrong_dimension(monkeypatch):
    """sin^d for sin^(d-1): the sampler's radius has the wrong law."""
    return with_factor(Sphere(3), log_area=lambda self, r: BASE.log_area(self, r) + np.log(
        np.maximum(np.sin(r), 1e-300)))


def wrong_volume(monkeypatch):
    return with_factor(Sphere(2, radius=3.0), volume=property(lambda self: 4 * np.pi))


def eigenvalue_of_the_next_dimension(monkeypatch):
    return with_factor(Sphere(2), smallest_eigenvalue=property(lambda self: (self.dim + 1) / self.radius**2))


def eigenvalue_too_small(monkeypatch):
    return with_factor(Sphere(2), smallest_eigenvalue=property(lambda self: 0.5 * self.dim / self.radius**2))


# ------------------------------------------------------------------------------------------ charts


def every_row_valid(monkeypatch):
    return with_method(Sphere(2), violation=lambda self, X: np.zeros(len(X)))


def longitude_in_radians(monkeypatch):
    def unembed(self, Z):
        return Sphere.unembed(self, Z) * [1.0, np.pi / 180]

    return with_method(Sphere(2, coords="latlon_deg"), unembed=unembed)


def east_per_degree(monkeypatch):
    """The east component not per unit of length but per unit of longitude."""
    def push_tangent(self, X, V):
        return Sphere.push_tangent(self, X, V) * np.column_stack(
            [np.ones(len(X)), np.cos(np.deg2rad(X[:, 0]))])

    return with_method(Sphere(2, coords="latlon_deg"), push_tangent=push_tangent)


def north_and_east_exchanged(monkeypatch):
    def push_tangent(self, X, V):
        return Sphere.push_tangent(self, X, V)[:, ::-1]

    return with_method(Sphere(2, coords="latlon_deg"), push_tangent=push_tangent)


# ---------------------------------------------------------------------------------- sums and tables


def change_evaluation(monkeypatch, change):
    right = DirectSum._evaluate

    def _evaluate(self, Z, t, order, own):
        return change(self, Z, right(self, Z, t, order, own))

    monkeypatch.setattr(DirectSum, "_evaluate", _evaluate)


def score_not_projected(monkeypatch):
    """The ambient gradient of the chord, 2 (d log k / dc) (x - y), returned as the score."""
    right = DirectSum._evaluate

    class Flat:
        def __init__(self, manifold):
            self.__dict__["manifold"] = manifold

        def __getattr__(self, name):
            return getattr(self.__dict__["manifold"], name)

        def to_tangent(self, Z, V):
            return V

    def _evaluate(self, Z, t, order, own):
        manifold, self.manifold = self.manifold, Flat(self.manifold)
        try:
            return right(self, Z, t, order, own)
        finally:
            self.manifold = manifold

    monkeypatch.setattr(DirectSum, "_evaluate", _evaluate)
    return Sphere(2)


def laplacian_of_p_for_that_of_log_p(monkeypatch):
    change_evaluation(monkeypatch, lambda self, Z, e: e if e.laplacian is None else Evaluation(
        e.log_density, e.gradient, e.laplacian + np.sum(e.gradient**2, 1)))
    return Circle()


def score_of_the_wrong_sign(monkeypatch):
    change_evaluation(monkeypatch, lambda self, Z, e: e if e.gradient is None else e._replace(
        gradient=-e.gradient))
    return Euclidean(1)


def weights_not_normalised(monkeypatch):
    change_evaluation(monkeypatch, lambda self, Z, e: e._replace(
        log_density=e.log_density + np.log(self.weight.sum())))
    return Circle()


def time_of_the_first_source(monkeypatch):
    right = DirectSum.blocks

    def blocks(self):
        return [(float(self.time[0]), *block[1:]) for block in right(self)]

    monkeypatch.setattr(DirectSum, "blocks", blocks)
    return Circle()


def later_time_twice_as_late(monkeypatch):
    right = DirectSum._evaluate
    monkeypatch.setattr(DirectSum, "_evaluate", lambda self, Z, t, order, own: right(
        self, Z, 2 * t, order, own))
    return Circle()


def merge_forgets_weights(monkeypatch):
    right = DirectSum.merge

    def merge(self, other):
        new = right(self, other)
        return DirectSum(new.manifold, new.Z, np.ones(len(new.Z)), new.time, new.n_jobs)

    monkeypatch.setattr(DirectSum, "merge", merge)
    return Euclidean(1)


def change_kernel(monkeypatch, name, change):
    """Replace the arguments or results of a compiled reduction."""
    monkeypatch.setattr(_kernels, name, functools.partial(change, getattr(_kernels, name)))


def argument(name, of):
    """Position of an argument of a reduction, the same in the compiled form and its numpy twin."""
    return list(inspect.signature(getattr(_twins, of)).parameters).index(name)


def forget_period(monkeypatch, name):
    place = argument("period", name)

    def change(right, *args):
        right(*args[:place], np.zeros_like(args[place]), *args[place + 1:])

    change_kernel(monkeypatch, name, change)
    return Circle()


def period_ignored_in_dense_sums(monkeypatch):
    return forget_period(monkeypatch, "kernel_sums")


def period_ignored_in_the_tail(monkeypatch):
    return forget_period(monkeypatch, "tail_sums")


def tail_score_of_the_wrong_sign(monkeypatch):
    place = argument("gradient", "tail_sums")

    def change(right, *args):
        right(*args)
        args[place][...] *= -1

    change_kernel(monkeypatch, "tail_sums", change)
    return Sphere(2)


def tail_exponent_of_the_wrong_time(monkeypatch):
    """exp(-r^2 / 4t) in the tail."""
    place = argument("t", "tail_sums")

    def change(right, *args):
        right(*args[:place], 2 * args[place], *args[place + 1:])

    change_kernel(monkeypatch, "tail_sums", change)
    return Euclidean(1)


def own_term_not_skipped(monkeypatch):
    place = argument("skip", "kernel_sums")

    def change(right, *args):
        right(*args[:place], np.full_like(args[place], -1), *args[place + 1:])

    change_kernel(monkeypatch, "kernel_sums", change)
    return Circle()


def far_sources_left_out(monkeypatch):
    """Only the first tile of the sources is summed."""
    w = argument("w", "kernel_sums")

    def change(right, *args):
        light = args[w].copy()
        light[512:] = 0.0
        right(*args[:w], light, *args[w + 1:])

    change_kernel(monkeypatch, "kernel_sums", change)
    return Circle()


def boxes_half_as_wide(monkeypatch):
    """Tiles of sources left out by boxes that do not hold them."""
    place = argument("extent", "kernel_sums")

    def change(right, *args):
        right(*args[:place], 0.5 * args[place], *args[place + 1:])

    change_kernel(monkeypatch, "kernel_sums", change)
    return Circle()


def no_tail(monkeypatch):
    """Queries far from all sources keep what the dense sum left of them."""
    monkeypatch.setattr(DirectSum, "_tail", lambda self, *args: None)
    return Sphere(2)


def tail_used_too_late(monkeypatch):
    """The cut of the dense form taken for the kernel down to exp(-60)."""
    monkeypatch.setattr(engines, "_TRUST", 1.0)
    return Sphere(2)


# ----------------------------------------------------------------------------------------- sampling


def flat_radius_on_the_sphere(monkeypatch):
    monkeypatch.setattr(sampling, "radial_law", lambda factor, t: lambda rho: rho)
    return Sphere(2)


def sampler_of_twice_the_time(monkeypatch):
    right = sampling.heat_sample
    monkeypatch.setattr("rdks.testing.heat_sample", lambda m, Z, t, rng: right(m, Z, 2 * np.asarray(t), rng))
    return Circle()


def estimator_samples_without_weights(monkeypatch):
    """A source picked uniformly, whatever its weight."""
    right = np.random.Generator

    class Careless(right):
        def choice(self, a, size=None, p=None):
            return super().choice(a, size=size)

    monkeypatch.setattr("rdks._validation.as_generator", lambda seed: Careless(seed.bit_generator))
    return Euclidean(1)


def sphere_law_of_the_wrong_dimension(monkeypatch):
    """The Gegenbauer sum of the next dimension: a plausible slip, a different kernel."""
    def log_kernel(self, r, t):
        R = self.radius
        return (heat.log_sphere(np.asarray(r) / R, t / R**2, self.dim + 1)
                + 0.5 * np.log(2 * np.pi * t / R**2) - self.dim * np.log(R))

    return with_factor(Sphere(2), log_kernel=log_kernel)


MUTANTS = [
    # the nine of the design, adapted to the manifolds there are
    (wrong_time_factor, Sphere(2), "kernel_solves_the_heat_equation on_diagonal_limit"),
    (missing_normalisation, Sphere(2), "kernel_has_mass_one on_diagonal_limit uniform_limit"),
    (chord_as_distance, Sphere(2), "exp_and_log_are_inverse varadhan_limit"),
    (missing_volume_distortion, Sphere(3), "kernel_solves_the_heat_equation kernel_has_mass_one"),
    (missing_curvature_growth, Sphere(3), "kernel_solves_the_heat_equation kernel_has_mass_one"),
    (wrong_power_of_the_radius, Sphere(2, radius=3.0), "kernel_has_mass_one on_diagonal_limit"),
    (wrong_chord_constant, Sphere(2), "tables_honour_their_error kernel_solves_the_heat_equation"),
    (density_per_radian, Circle(24.0), "kernel_has_mass_one uniform_limit"),
    (missing_images, Circle(), "kernel_has_mass_one uniform_limit"),
    # and others
    (parametrix_for_the_kernel, Sphere(2), "kernel_solves_the_heat_equation kernel_has_mass_one"),
    (sphere_law_of_the_wrong_dimension, Sphere(2), "kernel_solves_the_heat_equation kernel_has_mass_one"),
    (gradient_without_its_two, Sphere(2), "score_is_the_slope_of_log_density stein_identity"),
    (half_laplacian, Sphere(2), "laplacian_is_that_of_geodesics divergence_of_the_score"),
    (radius_ignored_in_log, Sphere(2, radius=3.0), "exp_and_log_are_inverse"),
    (radius_ignored_in_exp, Sphere(2, radius=3.0), "exp_and_log_are_inverse geodesics_have_constant_speed"),
    (period_ignored_in_dist, Circle(24.0), "dist_is_a_metric tables_honour_their_error"),
    (frame_a_little_long, Sphere(2), "frame_is_orthonormal_and_tangent"),
    (tangent_projection_forgets_the_radius, Sphere(2, radius=3.0), "tangent_projection_is_orthogonal"),
    (area_of_the_wrong_dimension, Sphere(3), "sampler_damps_eigenfunctions sampler_follows_the_density"),
    (wrong_volume, Sphere(2, radius=3.0), "uniform_limit total_mass_of_a_mixture"),
    (eigenvalue_of_the_next_dimension, Sphere(2), "first_eigenvalue_sets_the_decay"),
    (eigenvalue_too_small, Sphere(2), "first_eigenvalue_sets_the_decay"),
    (every_row_valid, Sphere(2), "corrupted_row_is_named"),
    (longitude_in_radians, Sphere(2, coords="latlon_deg"), "embed_and_unembed_are_inverse"),
    (east_per_degree, Sphere(2, coords="latlon_deg"), "push_tangent_belongs_to_the_chart"),
    (north_and_east_exchanged, Sphere(2, coords="latlon_deg"), "push_tangent_belongs_to_the_chart"),
    (score_not_projected, Sphere(2), "score_is_tangent"),
    (laplacian_of_p_for_that_of_log_p, Circle(), "divergence_of_the_score fisher_information_two_ways"),
    (score_of_the_wrong_sign, Euclidean(1), "score_is_the_slope_of_log_density"),
    (weights_not_normalised, Circle(), "estimator_is_the_engine total_mass_of_a_mixture"),
    (time_of_the_first_source, Circle(), "times_belong_to_sources"),
    (later_time_twice_as_late, Circle(), "later_time_is_a_wider_fit"),
    (merge_forgets_weights, Euclidean(1), "merging_is_fitting_together"),
    (period_ignored_in_dense_sums, Circle(), "tables_honour_their_error dense_form_is_tail_form"),
    (period_ignored_in_the_tail, Circle(), "tables_honour_their_error dense_form_is_tail_form"),
    (tail_score_of_the_wrong_sign, Sphere(2), "dense_form_is_tail_form"),
    (tail_exponent_of_the_wrong_time, Euclidean(1), "tables_honour_their_error dense_form_is_tail_form"),
    (own_term_not_skipped, Circle(), "leave_one_out_is_the_sum_of_others"),
    (far_sources_left_out, Circle(), "sums_are_right_at_every_depth"),
    (boxes_half_as_wide, Circle(), "sums_are_right_at_every_depth"),
    (no_tail, Sphere(2), "tables_honour_their_error sums_are_right_at_every_depth"),
    (tail_used_too_late, Sphere(2), "sums_are_right_at_every_depth"),
    (flat_radius_on_the_sphere, Sphere(2), "sampler_damps_eigenfunctions"),
    (sampler_of_twice_the_time, Circle(), "sampler_damps_eigenfunctions"),
    (estimator_samples_without_weights, Euclidean(1), "sampler_follows_the_density"),
]


@functools.cache
def control(manifold):
    return check_manifold(manifold)


def clear_tables():
    for cached in (radial.table, radial.tail_table, radial.radial_law):
        cached.cache_clear()


@pytest.fixture
def clean_tables():
    """Tables are cached by factors and time; a mutant that patches how they are made must not share."""
    yield
    clear_tables()


@pytest.mark.parametrize("base", dict.fromkeys(base for _, base, _ in MUTANTS), ids=repr)
def test_control_passes(base):
    assert control(base).manifold == base


@pytest.mark.parametrize("mutant, base, killers", MUTANTS, ids=lambda p: getattr(p, "__name__", None))
def test_mutant_is_killed(mutant, base, killers, monkeypatch, clean_tables):
    control(base)
    clear_tables()
    with pytest.raises(AssertionError) as told:
        check_manifold(mutant(monkeypatch))
    killed_by = re.findall(r"^(\w+): ", str(told.value), flags=re.MULTILINE)
    assert set(killers.split()) <= set(killed_by), f"killed by {killed_by}"


def test_mutated_factor_has_tables_of_its_own():
    t = 0.01
    right, wrong = Torus(1), with_factor(Torus(1), **kernel(lambda f, r, t: 1.0))
    assert radial.table(wrong.factors(), t).log_peak == pytest.approx(
        radial.table(right.factors(), t).log_peak + 1)
