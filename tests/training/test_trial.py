"""A few steps on trial: what they tell, what they refuse, and that they leave nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training import trial
from training.recipe import Recipe, TrainingError
from training.rows import chat
from training.watch import Progress

QUICK = Recipe(rank=8, alpha=16, learning_rate=1e-2, batch_size=4)


def test_a_trial_tells_seconds_losses_and_the_peak_and_leaves_nothing(
    small_base: Path, rows: Callable[..., Path], tmp_path: Path
) -> None:
    tried = trial.run(small_base, rows(), QUICK)
    assert (trial.STEPS, True, True) == (tried.steps, tried.step_s > 0, tried.peak_bytes > 100_000_000)
    assert tried.last_loss < tried.first_loss
    assert ["rows.jsonl"] == [file.name for file in tmp_path.iterdir()]


def rising(*losses: float) -> Callable[..., None]:
    def train(base: Path, rows: Path, recipe: Recipe, out: Path, progress: Any, stop: Any) -> None:
        for step, loss in enumerate(losses, start=1):
            progress(Progress(step, len(losses), loss, 0.0))

    return train


def test_a_loss_that_explodes_ends_it(
    small_base: Path, rows: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.trial.train", rising(2.0, 3.0, 9.0, 40.0))
    with pytest.raises(TrainingError, match=r"the loss rose from 2.00 to 40.00; lower the learning rate"):
        trial.run(small_base, rows(), QUICK)


def test_the_longest_rows_are_tried_and_some_of_the_others(rows: Callable[..., Path]) -> None:
    file = rows(*(chat("word " * number, "yes") for number in range(1, 60)))
    lines = sorted(file.read_bytes().splitlines(), key=len, reverse=True)
    tried = trial.chosen(file, batch=4, steps=3, seed=0)
    assert (lines[:4], 12, 12) == (tried[:4], len(tried), len(set(tried)))


@pytest.mark.parametrize(("count", "worth"), [(24, False), (2_000, True)])
def test_a_short_run_is_its_own_trial(count: int, worth: bool) -> None:
    assert worth is trial.worth(QUICK, count)


def test_tokens_a_second_are_those_of_a_step_by_its_seconds() -> None:
    tried = trial.Trial(4, 2.0, 1.0, 0.5, 0)
    assert 4 * 100 * 1.15 / 2 == pytest.approx(tried.tokens_per_s(QUICK, mean_tokens=100))
