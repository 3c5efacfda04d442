"""The trainer as a program: `python -m training SPEC.json` (`training.spec`), for workers.

It tells what happens in lines of JSON on stdout, each beginning with `{"event"`; what else is there,
libraries wrote. SIGTERM has it save a checkpoint, where the trainer can, and end with status 75: the same
spec goes on.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.recipe import Stopped, TrainingError
from training.rows import BadRows, read_rows
from training.spec import Spec
from training.stop import Stop, on_signals

if TYPE_CHECKING:
    from training.sft import Progress

STOPPED = 75
_CHECKPOINT = re.compile(r"checkpoint-([0-9]+)")


def tell(event: str, **more: Any) -> None:
    print(json.dumps({"event": event, **more}), flush=True)


def main(argv: list[str]) -> int:
    try:
        spec = Spec.read(Path(argv[0]))
        with on_signals() as stop:
            check(spec) if spec.check else train(spec, stop)
    except Stopped:
        return STOPPED
    except TrainingError as error:
        tell("error", code="training_failed", message=str(error), param=None)
        return 1
    except _BadFile as error:
        tell("error", code=f"invalid_{error.param}", message=str(error), param=error.param)
        return 1
    return 0


class _BadFile(Exception):
    def __init__(self, param: str, why: TrainingError) -> None:
        super().__init__(str(why))
        self.param = param


def check(spec: Spec) -> None:
    """Reads every row, without torch. Raises `_BadFile`."""
    rows = 0
    for param, file in (("training_file", spec.rows), ("validation_file", spec.validation)):
        if file is None:
            continue
        try:
            rows += len(read_rows(file))
        except TrainingError as error:
            raise _BadFile(param, error) from error
    tell("checked", rows=rows)


def train(spec: Spec, stop: Stop) -> None:
    """Trains, or finds that it has. Raises `TrainingError`, `_BadFile`."""
    if spec.method != "supervised":
        raise TrainingError(f"the method {spec.method!r} is not built; there is supervised")
    recipe = spec.recipe()
    tell("started", hyperparameters=spec.resolved())
    if spec.out.exists():  # a run before this one ended before the worker heard of it
        lineage = json.loads((spec.out / "hotswap.json").read_text())["lineage"]
        tell("done", trained_tokens=round(lineage["learned_tokens"] * recipe.epochs))
        return

    from training import sft

    asked: dict[str, Any] = {"checkpoints": spec.checkpoints, "validation": spec.validation}
    if spec.continue_from is not None:
        asked["continue_from"] = spec.continue_from
    known = inspect.signature(sft.train).parameters
    if spec.continue_from is not None and "continue_from" not in known:
        raise TrainingError("this trainer cannot go on from an adapter yet; name the base as the model")
    seen = _saved(spec.checkpoints)

    def progress(step: Progress) -> None:
        tell("step", step=step.step, total=step.total, loss=step.loss, eta_s=step.eta_s)
        saved = _saved(spec.checkpoints)
        for number in sorted(saved - seen):
            tell("checkpoint", step=number)
        seen.update(saved)

    try:
        result = sft.train(
            spec.base,
            spec.rows,
            recipe,
            spec.out,
            progress,
            stop,
            **{name: value for name, value in asked.items() if name in known and value is not None},
        )
    except BadRows as error:
        raise _BadFile("training_file", error) from error
    tell(
        "done",
        trained_tokens=round(result.learned_tokens * recipe.epochs),
        steps=result.steps,
        final_loss=result.final_loss,
        seconds=result.seconds,
    )


def _saved(folder: Path) -> set[int]:
    """Steps of the checkpoints that are there."""
    if not folder.is_dir():
        return set()
    return {int(found[1]) for path in folder.iterdir() if (found := _CHECKPOINT.fullmatch(path.name))}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
