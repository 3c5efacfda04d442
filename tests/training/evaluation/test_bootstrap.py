"""Bounds that hold what they say."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.bootstrap import difference, mean


def test_bounds_hold_the_true_mean_about_as_often_as_they_say() -> None:
    dice = np.random.default_rng(0)
    held = 0
    for seed in range(200):
        found = mean(list((dice.random(80) < 0.3).astype(float)), seed=seed)
        held += found.low <= 0.3 <= found.high
    assert 0.89 <= held / 200 <= 0.99


def test_pairs_are_drawn_together() -> None:
    dice = np.random.default_rng(1)
    hard = dice.random(300)
    one, other = hard + 0.02, hard + dice.normal(0, 0.01, 300)
    paired, apart = difference(list(one), list(other)), mean(list(one))
    assert paired.low > 0.01 and paired.high - paired.low < (apart.high - apart.low) / 10


def test_the_same_seed_gives_the_same_bounds() -> None:
    values = list(np.random.default_rng(2).random(50))
    assert mean(values, seed=3) == mean(values, seed=3) != mean(values, seed=4)


def test_rows_that_are_no_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="2 rows of one and 1 of the other are no pairs"):
        difference([1.0, 0.0], [1.0])


def test_of_nothing_there_is_no_mean() -> None:
    with pytest.raises(ValueError, match="nothing to take the mean of"):
        mean([])
