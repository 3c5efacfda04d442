"""Rows as the engine sees them: token ids by the base's own chat template, and which of them are learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from training.recipe import TrainingError
from training.rows import Row

IGNORED = -100
"""A label that takes no part in the loss (PyTorch's and TRL's convention)."""


@dataclass(frozen=True, slots=True)
class Example:
    """`ids` are the whole conversation; `labels` equal them where the adapter shall learn, else `IGNORED`."""

    ids: list[int]
    labels: list[int]


def examples(tokenizer: Any, rows: Sequence[Row], stops: set[int], max_tokens: int) -> list[Example]:
    """Every row, tokenised. Raises `TrainingError` naming the line of a row that is too long or cannot be."""
    if not tokenizer.chat_template:
        raise TrainingError(
            "the base has no chat template, so there is no way to write a conversation for it"
        )
    found = []
    for row in rows:
        try:
            example = tokenise(tokenizer, row, stops)
        except ValueError as error:
            raise TrainingError(f"line {row.line}: {error}") from error
        if len(example.ids) > max_tokens:
            raise TrainingError(
                f"line {row.line} is {len(example.ids)} tokens long, the recipe's max_tokens is "
                f"{max_tokens}; shorten or split it, or raise max_tokens up to the base's context"
            )
        found.append(example)
    return found


def tokenise(tokenizer: Any, row: Row, stops: set[int]) -> Example:
    """The row rendered whole, as an engine renders it; learned are each answer and the token that ends it.

    Where an answer begins and ends is found by rendering the conversation up to it, once with the prompt for
    an answer and once with the answer. `stops` are the ids that end generation; what the template writes
    after one (SmolLM2: a newline) the engine never generates, so it is not learned.
    Raises `ValueError` when the template renders the beginning of a conversation otherwise than alone.
    """
    messages = [message.as_dict() for message in row.messages]

    def render(count: int, ask: bool) -> str:
        return str(tokenizer.apply_chat_template(messages[:count], tokenize=False, add_generation_prompt=ask))

    text = render(len(messages), ask=False)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids: list[int] = list(encoded["input_ids"])
    labels = [IGNORED] * len(ids)
    for index, message in enumerate(row.messages):
        if not message.learn:
            continue
        before, after = render(index, ask=True), render(index + 1, ask=False)
        if not (text.startswith(after) and after.startswith(before)):
            raise ValueError(
                f"the base's chat template writes messages[{index}] differently once the "
                "conversation goes on; split the row so that this answer is its last message"
            )
        begin, end = len(before), len(after)
        inside = [
            at for at, (left, right) in enumerate(encoded["offset_mapping"]) if begin <= left < right <= end
        ]
        last = max((at for at in inside if ids[at] in stops), default=inside[-1] if inside else -1)
        for at in inside:
            if at <= last:
                labels[at] = ids[at]
    if all(label == IGNORED for label in labels):
        raise ValueError("nothing is left to learn from")
    return Example(ids, labels)


def stop_ids(tokenizer: Any, generation_config: Any) -> set[int]:
    """The ids that end generation: the tokenizer's and the generation config's."""
    named = getattr(generation_config, "eos_token_id", None)
    ids = {tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])}
    return {int(token) for token in ids if token is not None}
