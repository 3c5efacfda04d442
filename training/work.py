"""What a spec asks for: its rows looked at, or an adapter trained. `tell` hears of it, an event at a time
(`gateway.jobs.trainer` lists them)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol

from adapters.archive import MANIFEST
from training.launch.together import part
from training.left import left
from training.methods.methods import METHODS
from training.recipe import TrainingError
from training.rows import BadRows
from training.spans import event, note, span, tracing
from training.spec import Spec
from training.stop import Stop

if TYPE_CHECKING:
    from training.checkpoints import Checkpoint
    from training.watch import Progress, Validation


class Tell(Protocol):
    def __call__(self, event: str, /, **more: Any) -> None: ...


class BadFile(TrainingError):
    """`param` is OpenAI's name for the file."""

    def __init__(self, param: str, why: TrainingError) -> None:
        super().__init__(str(why))
        self.param = param


def tell_problem(error: TrainingError, tell: Tell) -> None:
    """The run's last word when it has failed."""
    param = error.param if isinstance(error, BadFile) else None
    code = "training_failed" if param is None else f"invalid_{param}"
    tell("error", code=code, message=str(error), param=param)


def check(spec: Spec, tell: Tell) -> None:
    """Reads every row, without torch. Raises `BadFile`, or `TrainingError` for what cannot be asked for."""
    recipe = spec.recipe()
    part(recipe, spec.processes)
    read = METHODS[recipe.method].read
    rows = 0
    for param, file in (("training_file", spec.rows), ("validation_file", spec.validation)):
        if file is None:
            continue
        try:
            rows += len(read(file))
        except TrainingError as error:
            raise BadFile(param, error) from error
    tell("checked", rows=rows)


def train(spec: Spec, stop: Stop, tell: Tell) -> None:
    """Trains, or finds that it has. Raises `TrainingError`, `BadFile`."""
    recipe = spec.recipe()
    tell("started", hyperparameters=spec.resolved())
    if spec.out.exists():  # a run before this one ended before the worker heard of it
        lineage = json.loads((spec.out / MANIFEST).read_text())["lineage"]
        tokens = round(lineage["learned_tokens"] * recipe.epochs)
        tell("done", trained_tokens=tokens, checkpoints=left(spec.checkpoint_adapters))
        return

    from training import run

    def validated(seen: Validation) -> None:
        event("validated", step=seen.step, loss=seen.loss)
        tell("validated", step=seen.step, loss=seen.loss, accuracy=seen.accuracy)

    def saved(checkpoint: Checkpoint) -> None:
        event("checkpoint", step=checkpoint.step)
        tell("checkpoint", step=checkpoint.step)

    def progress(step: Progress) -> None:
        accuracy = {} if step.accuracy is None else {"accuracy": step.accuracy}
        tell("step", step=step.step, total=step.total, loss=step.loss, eta_s=step.eta_s, **accuracy)

    try:
        with tracing(), span("train", job=spec.job, method=recipe.method, base=spec.base.name):
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
                validated=validated,
                saved=saved,
                leave_in=spec.checkpoint_adapters,
            )
            note(
                rows=result.rows,
                learned_tokens=result.learned_tokens,
                steps=result.steps,
                final_loss=result.final_loss,
            )
    except BadRows as error:
        bad_validation = spec.validation is not None and error.source == str(spec.validation)
        raise BadFile("validation_file" if bad_validation else "training_file", error) from error
    tell(
        "done",
        trained_tokens=round(result.learned_tokens * recipe.epochs),
        steps=result.steps,
        final_loss=result.final_loss,
        seconds=result.seconds,
        checkpoints=left(spec.checkpoint_adapters),
    )
