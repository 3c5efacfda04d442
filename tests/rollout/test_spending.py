"""Bounds that spend an error probability: known ones, and what they spend in all."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.rollout.spending import bounds, spent


def test_five_looks_have_the_bounds_that_are_in_every_table() -> None:
    """Lan-DeMets spending of O'Brien and Fleming's kind, two-sided 0.05: gsDesign's sfLDOF."""
    assert bounds(0.05, 5) == pytest.approx([4.8769, 3.3569, 2.6803, 2.2898, 2.0310], abs=2e-3)


def test_one_look_is_the_ordinary_test() -> None:
    assert bounds(0.05, 1) == pytest.approx([1.95996], abs=1e-4)


def test_all_is_spent_at_the_end_and_nothing_before_the_beginning() -> None:
    assert (spent(0.0, 0.04), spent(1.0, 0.04)) == (0.0, pytest.approx(0.04))


@pytest.mark.parametrize("looks", [10, 100])
def test_looking_often_errs_no_more_often_than_it_may(looks: int) -> None:
    alpha, paths = 0.04, 40_000
    draw = np.random.default_rng(7)
    crossed = np.zeros(paths, bool)
    naive = np.zeros(paths, bool)
    place = np.zeros(paths)
    for look, limit in enumerate(bounds(alpha, looks), start=1):
        place += draw.normal(scale=looks**-0.5, size=paths)
        z = np.abs(place) / (look / looks) ** 0.5
        crossed |= z >= limit
        naive |= z >= 2.054  # of one look at 0.04
    assert crossed.mean() == pytest.approx(alpha, abs=3.5 * (alpha / paths) ** 0.5)
    assert naive.mean() > 3 * alpha


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0])
def test_an_alpha_that_is_none_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        bounds(alpha, 5)
