"""The configuration of a training run, small and complete, so that a run can be repeated from its record."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Method = Literal["sft", "dpo", "kto", "grpo"]
Init = Literal["default", "eva"]


class TrainingError(Exception):
    """A run cannot start or has no usable result; the message says what was wrong and what to do."""


class Stopped(TrainingError):
    """The run was asked to end before it was done. Nothing was written."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """LoRA on a 4-bit base, every value decided.

    `learning_rate` is the peak, after `warmup` (a share of all steps), of a cosine to zero. LoRA wants about
    ten times the rate of full fine-tuning; 1e-3 is measured for the 135M default base, take 2e-4 for 7B up.
    `alpha / rank` scales the adapter, with `rslora` `alpha / sqrt(rank)` (Kalajdzievski, 2023). `max_tokens`
    bounds a row; a longer one is refused, not cut. `init` is how the adapter begins: "eva" reads the
    activations of the rows (Paischer et al., 2024).

    Every `checkpoint_steps`, None: a tenth of the run, it is saved and validated. `validation_share` of the
    rows is held out; `early_stop` ends the run after so many validations without a better one, None: never.
    `beta` is dpo's and kto's strength of the reference, `rewards` name grpo's reward functions.
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
    method: Method = "sft"
    init: Init = "default"
    rslora: bool = False
    checkpoint_steps: int | None = None
    early_stop: int | None = None
    beta: float = 0.1
    rewards: tuple[str, ...] = ()
    validation_share: float = 0.0

    def __post_init__(self) -> None:
        for name in (
            *("rank", "alpha", "batch_size", "max_tokens", "learning_rate", "epochs", "max_grad_norm"),
            "beta",
        ):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise TrainingError(f"recipe: {name} is {value}; it must be above 0")
        for name in ("max_steps", "checkpoint_steps", "early_stop"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise TrainingError(f"recipe: {name} is {value}; it must be at least 1, or left out")
        for name in ("warmup", "dropout", "validation_share"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise TrainingError(f"recipe: {name} is {value}; it must be at least 0 and below 1")
        for name, known in (("method", get_args(Method)), ("init", get_args(Init))):
            if getattr(self, name) not in known:
                raise TrainingError(
                    f"recipe: {name} is {getattr(self, name)!r}; known are {', '.join(known)}"
                )
        if (self.method == "grpo") != bool(self.rewards):
            raise TrainingError(
                "recipe: method grpo learns from rewards; name at least one in `rewards`"
                if self.method == "grpo"
                else f"recipe: `rewards` are grpo's, and the method is {self.method}; leave them out"
            )

    def steps(self, rows: int) -> int:
        """Optimizer steps for so many rows."""
        return self.max_steps or math.ceil(math.ceil(rows / self.batch_size) * self.epochs)

    def record(self) -> dict[str, Any]:
        """As it goes into the adapter's lineage: JSON's own kinds."""
        return asdict(self) | {"rewards": list(self.rewards)}
