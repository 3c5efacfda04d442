"""Rows cut where the answer begins, as trl's preference trainers take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from training.recipe import Recipe, TrainingError
from training.rows import Row
from training.tokens import IGNORED, tokenise


@dataclass(frozen=True, slots=True)
class Answer:
    """Token ids of what was asked and of the answer, which ends with the token that ends generation."""

    asked: list[int]
    answer: list[int]


def answer(tokenizer: Any, row: Row, stops: frozenset[int], recipe: Recipe) -> Answer:
    """The row's last answer. Raises `TrainingError` naming the line of a row that cannot be used."""
    try:
        example = tokenise(tokenizer, row, set(stops))
    except ValueError as error:
        raise TrainingError(f"line {row.line}: {error}") from error
    learned = [at for at, label in enumerate(example.labels) if label != IGNORED]
    first, last = learned[0], learned[-1] + 1
    if last > recipe.max_tokens:
        raise TrainingError(
            f"line {row.line} is {last} tokens long, the recipe's max_tokens is {recipe.max_tokens}; "
            "shorten or split it, or raise max_tokens up to the base's context"
        )
    return Answer(example.ids[:first], example.ids[first:last])


def prepared(trainer: type[Any]) -> type[Any]:
    """The trainer's class, for rows that are tokenised already."""

    class Prepared(trainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

    return Prepared
