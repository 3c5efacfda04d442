"""The configuration of a training run, small and complete, so that a run can be repeated from its record."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


class TrainingError(Exception):
    """A run cannot start or has no usable result; the message says what was wrong and what to do."""


class Stopped(TrainingError):
    """The run was asked to end before it was done. Nothing was written."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """LoRA by supervised fine-tuning on a 4-bit base.

    `learning_rate` is the peak, after `warmup` (a share of all steps), of a cosine to zero. LoRA wants about
    ten times the rate of full fine-tuning; 1e-3 is measured for the 135M default base, take 2e-4 for 7B up.
    `alpha / rank` scales the adapter. `max_tokens` bounds a row; a longer one is refused, not cut.
    Raises `TrainingError` for values that cannot work.
    """

    rank: int = 16
    alpha: int = 32
    learning_rate: float = 1e-3
    epochs: float = 3.0
    max_steps: int | None = None
    batch_size: int = 8
    warmup: float = 0.05
    dropout: float = 0.0
    max_grad_norm: float = 1.0
    max_tokens: int = 2048
    gradient_checkpointing: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rank", "alpha", "batch_size", "max_tokens", "learning_rate", "epochs", "max_grad_norm"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise TrainingError(f"recipe: {name} is {value}; it must be above 0")
        if self.max_steps is not None and self.max_steps < 1:
            raise TrainingError(f"recipe: max_steps is {self.max_steps}; it must be at least 1, or left out")
        for name in ("warmup", "dropout"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise TrainingError(f"recipe: {name} is {value}; it must be at least 0 and below 1")

    def steps(self, rows: int) -> int:
        """Optimizer steps for so many rows."""
        return self.max_steps or math.ceil(math.ceil(rows / self.batch_size) * self.epochs)

    def record(self) -> dict[str, Any]:
        """As it goes into the adapter's lineage."""
        return asdict(self)
