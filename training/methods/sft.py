"""Supervised fine-tuning: the answers are learned, what leads to them is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from training.methods.head import add_learned_head, has_plain_head, learned_only
from training.methods.setup import Data, Setup, ordered
from training.order import LengthOrder
from training.recipe import Recipe
from training.rows import Row
from training.tokens import examples


def prepare(tokenizer: Any, rows: Sequence[Row], stops: frozenset[int], recipe: Recipe) -> Data:
    """Rows as token ids and labels. Raises `TrainingError` with the line of one that cannot be."""
    found = examples(tokenizer, rows, set(stops), recipe.max_tokens)
    return Data(
        {"input_ids": [example.ids for example in found], "labels": [example.labels for example in found]},
        [len(example.ids) for example in found],
        sum(label >= 0 for example in found for label in example.labels),
    )


def trainer(setup: Setup, data: Data, validation: Data | None) -> Any:
    """trl's SFT trainer on rows that are tokenised and labelled already."""
    import torch
    from trl import SFTConfig, SFTTrainer

    recipe, kind = setup.recipe, SFTTrainer
    if not torch.cuda.is_available() and has_plain_head(setup.model):
        add_learned_head(setup.model)
        kind = learned_only(SFTTrainer)
    arguments = SFTConfig(
        **setup.arguments,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},  # the labels are ours; nothing is tokenised again
    )
    return ordered(kind, LengthOrder(data.lengths, recipe.batch_size, recipe.seed))(
        model=setup.model,
        args=arguments,
        train_dataset=data.dataset(),
        eval_dataset=validation.dataset() if validation is not None else None,
        processing_class=setup.tokenizer,
        peft_config=setup.lora(),
        callbacks=list(setup.callbacks),
    )
