"""Direct preference optimisation (Rafailov et al., 2023): of two answers the preferred becomes likelier.

The base without the adapter is the reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from training.methods.answers import answer, prepared
from training.methods.setup import Data, Setup, ordered
from training.order import LengthOrder
from training.preferences import Pair
from training.recipe import Recipe, TrainingError


def prepare(tokenizer: Any, pairs: Sequence[Pair], stops: frozenset[int], recipe: Recipe) -> Data:
    """Pairs as token ids. Raises `TrainingError` with the line of one that cannot be."""
    columns: dict[str, list[Any]] = {"prompt_ids": [], "chosen_ids": [], "rejected_ids": []}
    for pair in pairs:
        chosen = answer(tokenizer, pair.preferred, stops, recipe)
        rejected = answer(tokenizer, pair.other, stops, recipe)
        if chosen.asked != rejected.asked:
            raise TrainingError(
                f"line {pair.line}: the base's chat template writes the question differently before each of "
                "the two answers; remove the pair"
            )
        for column, ids in zip(columns, (chosen.asked, chosen.answer, rejected.answer), strict=True):
            columns[column].append(ids)
    asked, preferred, other = columns.values()
    return Data(
        columns,
        [len(a) + max(len(p), len(o)) for a, p, o in zip(asked, preferred, other, strict=True)],
        sum(len(p) + len(o) for p, o in zip(preferred, other, strict=True)),
    )


def trainer(setup: Setup, data: Data, validation: Data | None) -> Any:
    """trl's DPO trainer on pairs that are tokenised already."""
    from trl import DPOConfig, DPOTrainer

    recipe = setup.recipe
    arguments = DPOConfig(
        **setup.arguments,
        max_length=None,
        beta=recipe.beta,
        disable_dropout=recipe.dropout == 0,
    )
    order = LengthOrder(data.lengths, recipe.batch_size, recipe.seed)
    return ordered(prepared(DPOTrainer), order)(
        model=setup.model,
        args=arguments,
        train_dataset=data.dataset(),
        eval_dataset=validation.dataset() if validation is not None else None,
        processing_class=setup.tokenizer,
        peft_config=setup.lora(),
        callbacks=list(setup.callbacks),
    )
