"""What `python -m training` is told: one JSON file, written by the worker of `gateway.jobs`."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from training.recipe import Recipe, TrainingError

METHODS = {"supervised": "sft", "dpo": "dpo", "reinforcement": "grpo"}
"""OpenAI's names, and ours."""
GENTLER = 20
"""Preferences and rewards want so much a smaller learning rate than answers that are copied."""


@dataclass(frozen=True, slots=True)
class Spec:
    """`check`: look at the rows and stop. `checkpoints` is a folder: what is saved there is gone on from.

    `checkpoint_store` is an object store for them (`training.mirror`), `tensorboard` a folder for losses.
    `hyperparameters` are OpenAI's, each "auto" or a value; `continue_from` is the folder of an adapter whose
    weights are the first ones. `lineage` goes into the adapter's. `build` and `prove` are other work around
    the same rows (`training.chores`). So many `processes` share the run, started as `launch` says (local or
    ray).
    """

    method: str
    base: Path
    rows: Path
    out: Path
    checkpoints: Path
    validation: Path | None = None
    continue_from: Path | None = None
    hyperparameters: dict[str, Any] | None = None
    seed: int = 0
    check: bool = False
    job: str = ""
    checkpoint_store: str | None = None
    tensorboard: Path | None = None
    max_rank: int = 16
    grader: dict[str, Any] | None = None
    lineage: dict[str, Any] | None = None
    build: dict[str, Any] | None = None
    prove: dict[str, Any] | None = None
    processes: int = 1
    launch: str = "local"

    @classmethod
    def read(cls, file: Path) -> Spec:
        """Raises `TrainingError`."""
        try:
            found = json.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise TrainingError(f"cannot read the spec {file}: {error}") from error
        known = {field.name for field in fields(cls)}
        if strange := sorted(found.keys() - known):
            raise TrainingError(
                f"{file} has {', '.join(strange)}, which no spec has; is the worker a newer one?"
            )
        return cls.of(found)

    @classmethod
    def of(cls, found: dict[str, Any]) -> Spec:
        """From what JSON has of it."""
        paths = ("base", "rows", "out", "checkpoints", "validation", "continue_from", "tensorboard")
        return cls(**found | {name: Path(found[name]) for name in paths if found.get(name) is not None})

    @property
    def checkpoint_adapters(self) -> Path:
        """Where the run leaves the adapters of its last checkpoints."""
        return self.out.with_name(f"{self.out.name}-checkpoints")

    def recipe(self) -> Recipe:
        """`auto` is the recipe's default; a multiplier scales it. Who goes on from an adapter has its rank.

        Raises `TrainingError` for a method or a grader that there is none of.
        """
        if self.method not in METHODS:
            raise TrainingError(f"there is no method {self.method!r}; there are {', '.join(METHODS)}")
        asked = self.hyperparameters or {}
        method = METHODS[self.method]
        rank, alpha = self._rank()
        chosen: dict[str, Any] = {"seed": self.seed, "rank": rank, "alpha": alpha, "method": method}
        chosen["learning_rate"] = self._rate() * float(_given(asked, "learning_rate_multiplier") or 1)
        if (epochs := _given(asked, "n_epochs")) is not None:
            chosen["epochs"] = float(epochs)
        if (batch := _given(asked, "batch_size")) is not None:
            chosen["batch_size"] = int(batch)
        if method in ("dpo", "kto") and (beta := _given(asked, "beta")) is not None:
            chosen["beta"] = float(beta)
        if method == "grpo":
            chosen["rewards"] = (_reward(self.grader or {}),)
        return Recipe(**chosen)

    def resolved(self) -> dict[str, Any]:
        """OpenAI's hyperparameters with no `auto` among them."""
        recipe = self.recipe()
        beta = {"beta": recipe.beta} if recipe.method == "dpo" else {}
        return {
            "n_epochs": round(recipe.epochs),
            "batch_size": recipe.batch_size,
            "learning_rate_multiplier": recipe.learning_rate / self._rate(),
            **beta,
        }

    def _rate(self) -> float:
        """The peak learning rate that a multiplier of 1 means."""
        rate = Recipe().learning_rate
        return rate if METHODS[self.method] == "sft" else rate / GENTLER

    def _rank(self) -> tuple[int, int]:
        if self.continue_from is None:
            rank = min(Recipe().rank, self.max_rank)
            return rank, 2 * rank
        try:
            config = json.loads((self.continue_from / "adapter_config.json").read_text())
            return int(config["r"]), int(config["lora_alpha"])
        except (OSError, ValueError, KeyError) as error:
            raise TrainingError(f"cannot go on from the adapter in {self.continue_from}: {error}") from error


def _given(asked: dict[str, Any], name: str) -> Any:
    """None for what is left out, or to be chosen."""
    value = asked.get(name, "auto")
    return None if value == "auto" else value


GRADERS = {
    ("string_check", "operation"): {"eq": "exact", "ne": "other", "like": "contains", "ilike": "icontains"},
    ("text_similarity", "evaluation_metric"): {"fuzzy_match": "fuzzy", "rouge_l": "rouge_l"},
}
"""Of OpenAI's graders, by type and the field that says how: our rewards."""
ANSWER = "{{sample.output_text}}"


def _reward(grader: dict[str, Any]) -> str:
    """OpenAI's grader as a reward of ours: of the answer, against the row's own. Raises `TrainingError` for
    those that there is none of."""
    for (kind, field), rewards in GRADERS.items():
        how = grader.get(field)
        if grader.get("type") == kind and how in rewards and grader.get("input", ANSWER) == ANSWER:
            return rewards[how]
    fields = ("type", "operation", "evaluation_metric", "input")
    told = " ".join(str(grader[name]) for name in fields if name in grader) or "none"
    known = "; ".join(f"{kind} with {field} {', '.join(all_)}" for (kind, field), all_ in GRADERS.items())
    raise TrainingError(
        f"the grader ({told}) cannot be used here; there is {known}, of {ANSWER} against the row's answer. "
        "Other rewards (JSON schema, pattern, a grading model) are those of `hotswap train --set method=grpo`"
    )
