"""The trainer as a program: `python -m training SPEC.json` (`training.spec`), for workers.

It tells what happens in lines of JSON on stdout, each beginning with `{"event"`; what else is there,
libraries wrote. SIGTERM has it save a checkpoint, where the trainer can, and end with status 75: the same
spec goes on.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training import chores
from training.methods.methods import METHODS
from training.recipe import Stopped, TrainingError
from training.rows import BadRows
from training.spec import Spec
from training.stop import Stop, on_signals

if TYPE_CHECKING:
    from training.watch import Progress

STOPPED = 75


def tell(event: str, **more: Any) -> None:
    print(json.dumps({"event": event, **more}), flush=True)


def main(argv: list[str]) -> int:
    try:
        spec = Spec.read(Path(argv[0]))
        with on_signals() as stop:
            _work(spec, stop)
    except Stopped:
        return STOPPED
    except TrainingError as error:
        tell("error", code="training_failed", message=str(error), param=None)
        return 1
    except _BadFile as error:
        tell("error", code=f"invalid_{error.param}", message=str(error), param=error.param)
        return 1
    return 0


def _work(spec: Spec, stop: Stop) -> None:
    if spec.check:
        check(spec)
    elif spec.build is not None:
        tell("built", **chores.build(spec, _say))
    elif spec.prove is not None:
        tell("proved", card=chores.prove(spec, _say))
    else:
        train(spec, stop)


def _say(text: str) -> None:
    """For the log."""
    print(text, flush=True)


class _BadFile(Exception):
    def __init__(self, param: str, why: TrainingError) -> None:
        super().__init__(str(why))
        self.param = param


def check(spec: Spec) -> None:
    """Reads every row, without torch. Raises `_BadFile`, or `TrainingError` for a method or grader."""
    read = METHODS[spec.recipe().method].read
    rows = 0
    for param, file in (("training_file", spec.rows), ("validation_file", spec.validation)):
        if file is None:
            continue
        try:
            rows += len(read(file))
        except TrainingError as error:
            raise _BadFile(param, error) from error
    tell("checked", rows=rows)


def train(spec: Spec, stop: Stop) -> None:
    """Trains, or finds that it has. Raises `TrainingError`, `_BadFile`."""
    recipe = spec.recipe()
    tell("started", hyperparameters=spec.resolved())
    if spec.out.exists():  # a run before this one ended before the worker heard of it
        lineage = json.loads((spec.out / "hotswap.json").read_text())["lineage"]
        tell("done", trained_tokens=round(lineage["learned_tokens"] * recipe.epochs))
        return

    from training import run

    def progress(step: Progress) -> None:
        accuracy = {} if step.accuracy is None else {"accuracy": step.accuracy}
        tell("step", step=step.step, total=step.total, loss=step.loss, eta_s=step.eta_s, **accuracy)

    try:
        result = run.train(
            spec.base,
            spec.rows,
            recipe,
            spec.out,
            progress,
            stop,
            validation=spec.validation,
            checkpoints=spec.checkpoints,
            store=spec.checkpoint_store,
            tensorboard=spec.tensorboard,
            continue_from=spec.continue_from,
            lineage=spec.lineage,
            validated=lambda seen: tell("validated", step=seen.step, loss=seen.loss, accuracy=seen.accuracy),
            saved=lambda checkpoint: tell("checkpoint", step=checkpoint.step),
        )
    except BadRows as error:
        bad_validation = spec.validation is not None and error.source == str(spec.validation)
        raise _BadFile("validation_file" if bad_validation else "training_file", error) from error
    tell(
        "done",
        trained_tokens=round(result.learned_tokens * recipe.epochs),
        steps=result.steps,
        final_loss=result.final_loss,
        seconds=result.seconds,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
