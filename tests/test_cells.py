"""Summaries by cell: what they keep, and that they add up."""
import numpy as np

from rdks.cells import Cells


def test_weight_mean_and_spread_are_those_of_the_points():
    rng = np.random.default_rng(0)
    Z, w = 3 + rng.standard_normal((500, 3)), rng.uniform(0.1, 2.0, 500)
    cells = Cells.of(Z, w, 0.7)
    place = np.floor(Z / 0.7)
    spread = 0.0
    for key, weight, mean in zip(cells.key, cells.weight, cells.mean, strict=True):
        mine = (place == key).all(axis=1)
        np.testing.assert_allclose(weight, w[mine].sum())
        np.testing.assert_allclose(mean, w[mine] @ Z[mine] / w[mine].sum())
        spread += w[mine] @ ((Z[mine] - mean) ** 2).sum(axis=1)
    assert len(cells.key) == len(np.unique(place, axis=0))
    np.testing.assert_allclose(cells.spread, spread / w.sum())


def test_parts_add_up_in_any_order():
    rng = np.random.default_rng(1)
    Z, w = 1e6 + rng.standard_normal((1000, 2)), rng.uniform(0.1, 2.0, 1000)
    whole = Cells.of(Z, w, 0.3)
    a, b, c = (Cells.of(Z[i::3], w[i::3], 0.3) for i in range(3))
    for parts in (a.merge(b).merge(c), c.merge(a.merge(b))):
        np.testing.assert_array_equal(parts.key, whole.key)
        np.testing.assert_allclose(parts.mean, whole.mean, rtol=0, atol=1e-9)
        np.testing.assert_allclose(parts.spread, whole.spread, rtol=1e-6)


def test_a_single_point_has_no_spread():
    cells = Cells.of(np.full((7, 2), 0.1), np.ones(7), 0.5)
    assert len(cells.key) == 1 and 0 <= cells.spread < 1e-15
