"""What `python -m training` is told: one JSON file, written by the worker of `gateway.jobs`."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from training.recipe import Recipe, TrainingError


@dataclass(frozen=True, slots=True)
class Spec:
    """`check`: look at the rows and stop. `checkpoints` is a folder: what is saved there is gone on from.

    `hyperparameters` are OpenAI's, each "auto" or a value; `continue_from` is the folder of an adapter whose
    weights are the first ones.
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
    max_rank: int = 16
    grader: dict[str, Any] | None = None

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
        for name in ("base", "rows", "out", "checkpoints", "validation", "continue_from"):
            if found.get(name) is not None:
                found[name] = Path(found[name])
        return cls(**found)

    def recipe(self) -> Recipe:
        """Of supervised fine-tuning: `auto` is the recipe's own default, and a multiplier scales it."""
        default, asked = Recipe(), self.hyperparameters or {}
        chosen: dict[str, Any] = {"seed": self.seed}
        rank = min(default.rank, self.max_rank)
        chosen |= {"rank": rank, "alpha": 2 * rank}
        if (epochs := asked.get("n_epochs", "auto")) != "auto":
            chosen["epochs"] = float(epochs)
        if (batch := asked.get("batch_size", "auto")) != "auto":
            chosen["batch_size"] = int(batch)
        if (scale := asked.get("learning_rate_multiplier", "auto")) != "auto":
            chosen["learning_rate"] = default.learning_rate * float(scale)
        return Recipe(**chosen)

    def resolved(self) -> dict[str, Any]:
        """OpenAI's hyperparameters with no `auto` among them."""
        recipe = self.recipe()
        return {
            "n_epochs": round(recipe.epochs),
            "batch_size": recipe.batch_size,
            "learning_rate_multiplier": recipe.learning_rate / Recipe().learning_rate,
        }
