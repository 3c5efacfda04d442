"""What a run tells while it goes on, and how it is ended from outside."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from training.checkpoints import Checkpoint, Checkpoints
from training.launch.together import Together
from training.stop import Stop


@dataclass(frozen=True, slots=True)
class Progress:
    """After `step` of `total` optimizer steps; `loss` is that step's, per learned token, in nats.

    `accuracy` is the share of learned tokens that were the model's first choice, where the method tells.
    """

    step: int
    total: int
    loss: float
    eta_s: float
    accuracy: float | None = None
    learning_rate: float | None = None


@dataclass(frozen=True, slots=True)
class Validation:
    """Of the rows that are held out: `loss` per learned token, in nats, after `step` steps."""

    step: int
    loss: float
    accuracy: float | None = None


@dataclass(frozen=True, slots=True)
class Hearers:
    """Who is told of a step, of a validation, and of a checkpoint that can be resumed from."""

    progress: Callable[[Progress], None]
    validated: Callable[[Validation], None] = lambda _: None
    saved: Callable[[Checkpoint], None] = lambda _: None


class Clock:
    """Seconds of training, wall and CPU, with those before a run was resumed."""

    def __init__(self, earlier: Checkpoint | None) -> None:
        self._seconds = earlier.seconds if earlier else 0.0
        self._cpu_seconds = earlier.cpu_seconds if earlier else 0.0
        self.start()

    def start(self) -> None:
        """Training begins now; loading was before it."""
        self._began, self._cpu_began = time.monotonic(), time.process_time()

    @property
    def seconds(self) -> float:
        return self._seconds + time.monotonic() - self._began

    @property
    def cpu_seconds(self) -> float:
        return self._cpu_seconds + time.process_time() - self._cpu_began


def callback(
    hearers: Hearers, stop: Stop, clock: Clock, checkpoints: Checkpoints | None, together: Together
) -> Any:
    """A callback for transformers' trainer that tells `hearers`, marks checkpoints, and heeds `stop`.

    A run that is stopped saves a checkpoint first, when it keeps any. Of several processes that share the
    run the first tells and marks, and all are stopped after the same step.
    """
    from transformers import TrainerCallback

    class Watch(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.first, self.began = state.global_step, time.monotonic()
            clock.start()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> Any:
            if together.leads and logs and "loss" in logs:
                done, total = state.global_step, state.max_steps
                each_s = (time.monotonic() - self.began) / max(1, done - self.first)
                hearers.progress(
                    Progress(
                        done,
                        total,
                        float(logs["loss"]),
                        each_s * (total - done),
                        _number(logs.get("mean_token_accuracy")),
                        _number(logs.get("learning_rate")),
                    )
                )
            if together.any(stop.is_set()):
                control.should_training_stop = True
                control.should_save = checkpoints is not None
            return control

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
            if together.leads and metrics and "eval_loss" in metrics:
                accuracy = _number(metrics.get("eval_mean_token_accuracy"))
                hearers.validated(Validation(state.global_step, float(metrics["eval_loss"]), accuracy))

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            together.wait()  # each has written its random numbers
            if together.leads and checkpoints is not None:
                hearers.saved(checkpoints.finish(state.global_step, clock.seconds, clock.cpu_seconds))

    return Watch()


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
