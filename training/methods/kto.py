"""Kahneman-Tversky optimisation (Ethayarajh et al., 2024): answers that were judged one by one, good or bad.

The base without the adapter is the reference.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from training.methods.answers import answer, prepared
from training.methods.setup import Data, Setup
from training.preferences import Judged
from training.recipe import Recipe, TrainingError

LEAST_BATCH = 2
"""The KL term pairs each question with its neighbour's answer, so a batch has more than one."""


def prepare(tokenizer: Any, rows: Sequence[Judged], stops: frozenset[int], recipe: Recipe) -> Data:
    """Judged answers as token ids, in an order that `recipe.seed` draws.

    For the KL term each question of a batch gets another one's answer, the one before it, as trl does: so
    batches are what they are here, in every epoch. Raises `TrainingError` with the line of a row that cannot
    be used, or when all answers are judged alike.
    """
    if recipe.batch_size < LEAST_BATCH:
        raise TrainingError(f"batch_size is {recipe.batch_size}; kto needs at least {LEAST_BATCH}")
    if len({row.good for row in rows}) < 2:
        raise TrainingError("all answers are judged alike; kto learns from good ones and bad ones")
    drawn = list(rows)
    random.Random(f"kto {recipe.seed}").shuffle(drawn)  # noqa: S311
    cut = [answer(tokenizer, row.row, stops, recipe) for row in drawn]
    beside: list[list[int]] = []
    for start in range(0, len(cut), recipe.batch_size):
        batch = [each.answer for each in cut[start : start + recipe.batch_size]]
        beside += [batch[-1], *batch[:-1]]
    return Data(
        {
            "prompt_ids": [each.asked for each in cut],
            "completion_ids": [each.answer for each in cut],
            "KL_completion_ids": beside,
            "label": [row.good for row in drawn],
        },
        [len(each.asked) + len(each.answer) for each in cut],
        sum(len(each.answer) for each in cut),
    )


def trainer(setup: Setup, data: Data, validation: Data | None) -> Any:
    """trl's KTO trainer on answers that are tokenised already."""
    from trl import KTOConfig, KTOTrainer

    labels = data.columns["label"]
    good = sum(labels)
    # The paper's advice (section 4.2): weigh so that good and bad count alike within a factor of 4/3.
    ratio = (len(labels) - good) / good
    arguments = KTOConfig(
        **setup.arguments,
        max_length=None,
        beta=setup.recipe.beta,
        desirable_weight=max(1.0, ratio),
        undesirable_weight=max(1.0, 1 / ratio),
        disable_dropout=setup.recipe.dropout == 0,
    )
    return prepared(KTOTrainer)(
        model=setup.model,
        args=arguments,
        train_dataset=data.dataset(),
        eval_dataset=validation.dataset() if validation is not None else None,
        processing_class=setup.tokenizer,
        peft_config=setup.lora(),
        callbacks=list(setup.callbacks),
    )
