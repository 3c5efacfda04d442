"""What `training.run` gives to a method, and what it wants back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adapters.base.manifest import BaseManifest
from training.order import LengthOrder
from training.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Setup:
    """A loaded base with what belongs to it.

    `arguments` are transformers' `TrainingArguments` that do not depend on the method; `callbacks` are
    transformers' too. `stops` are the ids that end generation.
    """

    model: Any
    tokenizer: Any
    stops: frozenset[int]
    manifest: BaseManifest
    recipe: Recipe
    arguments: dict[str, Any]
    callbacks: Sequence[Any]

    def lora(self) -> Any:
        """peft's configuration of the adapter."""
        from peft import EvaConfig, LoraConfig

        eva = self.recipe.init == "eva"
        return LoraConfig(
            r=self.recipe.rank,
            lora_alpha=self.recipe.alpha,
            lora_dropout=self.recipe.dropout,
            use_rslora=self.recipe.rslora,
            init_lora_weights="eva" if eva else True,
            eva_config=EvaConfig(rho=1.0) if eva else None,
            bias="none",
            task_type="CAUSAL_LM",
            # Full paths, so that nothing else (the output head, a vision tower) can match.
            target_modules=sorted(self.manifest.linears),
        )


@dataclass(frozen=True, slots=True)
class Data:
    """Rows as a method's trainer takes them. `learned_tokens` are those in one pass's loss."""

    columns: dict[str, list[Any]]
    lengths: list[int]
    learned_tokens: int

    def __len__(self) -> int:
        return len(self.lengths)

    def dataset(self) -> Any:
        """As `datasets.Dataset`."""
        from datasets import Dataset

        return Dataset.from_dict(self.columns)


def ordered(trainer: type[Any], order: LengthOrder) -> type[Any]:
    """The trainer's class, with rows in this order."""

    class Ordered(trainer):  # type: ignore[misc]
        def _get_train_sampler(self, dataset: Any = None) -> LengthOrder:
            return order

    return Ordered
