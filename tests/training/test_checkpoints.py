"""A run that is killed or stopped goes on from its last whole checkpoint, and ends as if nothing had been."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from training.checkpoints import MARK, Checkpoint, Checkpoints
from training.mirror import Mirror
from training.recipe import Recipe, Stopped, TrainingError
from training.rows import chat, write_rows
from training.run import train
from training.stop import Stop
from training.watch import Progress, Validation

RECIPE = Recipe(rank=8, alpha=16, learning_rate=1e-2, epochs=2, batch_size=4, dropout=0.1, checkpoint_steps=3)
"""Twenty steps in two epochs; dropout, so that the state of the random numbers counts, too."""


def weights(folder: Path) -> str:
    return hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()


def quiet(progress: Progress) -> None:
    """Progress that nobody watches."""


def stopping(stop: Stop, at: int) -> Callable[[Progress], None]:
    """Progress that asks for a stop after step `at`."""

    def hear(progress: Progress) -> None:
        if progress.step == at:
            stop.set()

    return hear


@pytest.fixture
def uninterrupted(small_base: Path, rows: Callable[..., Path], tmp_path: Path) -> str:
    """What a run without any interruption ends with."""
    train(small_base, rows(), RECIPE, tmp_path / "whole", quiet)
    return weights(tmp_path / "whole")


def leave_part(folder: Path, step: int) -> Path:
    part = folder / f"checkpoint-{step}"
    part.mkdir(parents=True)
    (part / "adapter_model.safetensors").write_bytes(b"half")
    return part


def test_the_last_whole_checkpoint_is_found_and_half_ones_are_removed(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, "run")
    for step in (9, 10):
        leave_part(kept.folder, step)
        kept.finish(step, 1.5, 2.5)
    half = leave_part(kept.folder, 11)
    assert Checkpoint(kept.folder / "checkpoint-10", 10, 1.5, 2.5) == kept.latest()
    assert not half.exists()


def test_another_run_has_checkpoints_of_its_own(tmp_path: Path) -> None:
    leave_part(Checkpoints(tmp_path, "run").folder, 3)
    Checkpoints(tmp_path, "run").finish(3, 0.0, 0.0)
    assert Checkpoints(tmp_path, "other").latest() is None


@pytest.mark.parametrize("at", [1, 3, 10, 14])
def test_a_stopped_run_goes_on_where_it_was_and_ends_with_the_same_weights(
    at: int, small_base: Path, rows: Callable[..., Path], tmp_path: Path, uninterrupted: str
) -> None:
    stop, steps = Stop(), []
    file = rows()
    with pytest.raises(Stopped, match=f"after step {at} and can go on"):
        train(
            small_base,
            file,
            RECIPE,
            tmp_path / "out",
            stopping(stop, at),
            stop,
            checkpoints=tmp_path / "kept",
        )
    train(
        small_base,
        file,
        RECIPE,
        tmp_path / "out",
        lambda progress: steps.append(progress.step),
        checkpoints=tmp_path / "kept",
    )
    assert (list(range(at + 1, 21)), uninterrupted) == (steps, weights(tmp_path / "out"))


CHILD = """
import sys
from pathlib import Path
from tests.training.test_checkpoints import RECIPE
from training.run import train
base, rows, out, kept = map(Path, sys.argv[1:])
train(base, rows, RECIPE, out, lambda seen: print(seen.step, flush=True), checkpoints=kept)
"""


def test_a_run_that_is_killed_at_any_step_wastes_at_most_one_interval(
    small_base: Path, rows: Callable[..., Path], tmp_path: Path, uninterrupted: str
) -> None:
    places = [str(place) for place in (small_base, rows(), tmp_path / "out", tmp_path / "kept")]
    words = [sys.executable, "-W", "ignore", "-c", CHILD, *places]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for line in child.stdout:
        if int(line) == 11:
            child.send_signal(signal.SIGKILL)
            break
    child.wait(60)
    child.stdout.close()
    again = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, timeout=300)
    first = int(again.stdout.split()[0])
    assert (True, uninterrupted) == (11 - RECIPE.checkpoint_steps < first <= 13, weights(tmp_path / "out"))  # type: ignore[operator]


def test_another_machine_goes_on_from_the_store(
    small_base: Path, rows: Callable[..., Path], tmp_path: Path, uninterrupted: str
) -> None:
    store, stop = tmp_path / "store", Stop()
    here, there = tmp_path / "here", tmp_path / "there"
    with pytest.raises(Stopped):
        train(
            small_base,
            rows(),
            RECIPE,
            tmp_path / "out",
            stopping(stop, 8),
            stop,
            checkpoints=here,
            store=f"file://{store}",
        )
    assert {"checkpoint-3", "checkpoint-6", "checkpoint-8"} == {each.name for each in store.glob("*/*")}
    shutil.rmtree(here)
    steps: list[int] = []
    done = train(
        small_base,
        rows(),
        RECIPE,
        tmp_path / "out",
        lambda progress: steps.append(progress.step),
        checkpoints=there,
        store=f"file://{store}",
    )
    assert (9, uninterrupted) == (steps[0], weights(tmp_path / "out"))
    assert (store / done.run / "checkpoint-20" / MARK).is_file()  # until the adapter is registered
    Mirror(f"file://{store}", done.run).forget()
    assert not [each for each in store.rglob("*") if each.is_file()]


def test_the_best_checkpoint_of_another_machine_is_found(
    small_base: Path, rows: Callable[..., Path], tmp_path: Path
) -> None:
    """Early steps are the best here: what they learned is unlearned by too high a learning rate later."""
    store = f"file://{tmp_path / 'store'}"
    recipe = replace(RECIPE, epochs=1, learning_rate=0.5)
    whole = train(
        small_base, rows(), recipe, tmp_path / "whole", quiet, validation=rows(), checkpoints=tmp_path / "a"
    )
    stop = Stop()
    with pytest.raises(Stopped):
        train(
            small_base,
            rows(),
            recipe,
            tmp_path / "out",
            stopping(stop, 7),
            stop,
            validation=rows(),
            checkpoints=tmp_path / "b",
            store=store,
        )
    shutil.rmtree(tmp_path / "b")
    done = train(
        small_base,
        rows(),
        recipe,
        tmp_path / "out",
        quiet,
        validation=rows(),
        checkpoints=tmp_path / "c",
        store=store,
    )
    assert whole.validation_loss == done.validation_loss
    assert weights(tmp_path / "whole") == weights(tmp_path / "out")


def test_nothing_is_kept_of_a_run_that_is_done(
    small_base: Path, rows: Callable[..., Path], tmp_path: Path
) -> None:
    seen: list[Checkpoint] = []
    kept = tmp_path / "kept"
    train(small_base, rows(), RECIPE, tmp_path / "out", quiet, checkpoints=kept, saved=seen.append)
    assert ([3, 6, 9, 12, 15, 18, 20], []) == ([each.step for each in seen], list(kept.iterdir()))


def test_other_rows_are_another_run(small_base: Path, rows: Callable[..., Path], tmp_path: Path) -> None:
    stop, kept = Stop(), tmp_path / "kept"
    with pytest.raises(Stopped):
        train(small_base, rows(), RECIPE, tmp_path / "out", lambda _: stop.set(), stop, checkpoints=kept)
    steps: list[int] = []
    other = rows(*(chat(f"question {number}", "blue") for number in range(40)))
    train(small_base, other, RECIPE, tmp_path / "out", lambda seen: steps.append(seen.step), checkpoints=kept)
    assert 1 == steps[0]


def validation_rows(tmp_path: Path) -> Path:
    write_rows(tmp_path / "held-out.jsonl", [chat(f"query {number}", "green") for number in range(8)])
    return tmp_path / "held-out.jsonl"


def test_held_out_rows_are_looked_at_as_often_as_the_run_is_saved(
    small_base: Path, rows: Callable[..., Path], tmp_path: Path
) -> None:
    seen: list[Validation] = []
    trained = train(
        small_base,
        rows(),
        RECIPE,
        tmp_path / "out",
        quiet,
        validation=validation_rows(tmp_path),
        validated=seen.append,
    )
    assert [3, 6, 9, 12, 15, 18] == [each.step for each in seen][:6]
    assert min(each.loss for each in seen) == trained.validation_loss


def test_a_share_of_the_rows_can_be_held_out(
    small_base: Path, rows: Callable[..., Path], tmp_path: Path
) -> None:
    shared = replace(RECIPE, validation_share=0.25)
    seen: list[Validation] = []
    trained = train(small_base, rows(), shared, tmp_path / "out", quiet, validated=seen.append)
    assert (30, True) == (trained.rows, trained.validation_loss == min(each.loss for each in seen))


def test_a_run_ends_early_when_held_out_rows_say_so_and_the_best_weights_stay(
    small_base: Path, rows: Callable[..., Path], tmp_path: Path
) -> None:
    wild = Recipe(
        rank=8, learning_rate=3e-1, epochs=20, batch_size=4, checkpoint_steps=1, early_stop=2, warmup=0.0
    )
    seen: list[Validation] = []
    trained = train(
        small_base,
        rows(),
        wild,
        tmp_path / "out",
        quiet,
        validation=validation_rows(tmp_path),
        validated=seen.append,
    )
    best = min(seen, key=lambda each: each.loss)
    assert (best.step + 2, best.loss) == (trained.steps, trained.validation_loss)
    assert trained.steps < wild.steps(40)


def test_to_end_early_without_held_out_rows_is_refused(
    small_base: Path, rows: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="no rows are held out to evaluate on"):
        train(small_base, rows(), Recipe(early_stop=1, max_steps=2), tmp_path / "out", quiet)


def test_a_checkpoint_is_whole_only_when_its_mark_is_there(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, "run")
    folder = leave_part(kept.folder, 4)
    kept.finish(4, 0.0, 0.0)
    os.remove(folder / MARK)
    assert kept.latest() is None
