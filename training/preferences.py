"""Rows that say which answer is better, one JSON object a line.

- A pair (DPO), as OpenAI's preference format has it: `{"input": {"messages": [...]}, "preferred_output":
  [{"role": "assistant", "content": "..."}], "non_preferred_output": [{"role": "assistant", ...}]}`.
- A judged answer (KTO): `{"messages": [..., {"role": "assistant", ...}], "label": true}`; true is good.

Also as trl has them, and datasets of ours: `{"prompt": [...], "chosen": [...], "rejected": [...]}` and
`{"prompt": [...], "completion": [...], "label": true}`, each a list of messages.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.rows import BadRow, Message, Row, conversation, only, parsed, value

PAIR_KEYS = {"input", "preferred_output", "non_preferred_output"}


@dataclass(frozen=True, slots=True)
class Pair:
    """One question with two answers, as two rows of the same beginning; `line` is where it stood, from 1."""

    line: int
    preferred: Row
    other: Row


@dataclass(frozen=True, slots=True)
class Judged:
    """One conversation and whether its last answer is good."""

    line: int
    row: Row
    good: bool


def read_pairs(file: Path) -> tuple[Pair, ...]:
    """Every pair of the file. Raises as `training.rows.read_rows`."""
    example = '{"input": {"messages": [...]}, "preferred_output": [...], "non_preferred_output": [...]}'
    return parsed(file, lambda number, line: _pair(number, value(line)), example)


def read_judged(file: Path) -> tuple[Judged, ...]:
    """Every judged answer of the file. Raises as `training.rows.read_rows`."""
    example = '{"messages": [...], "label": true}'
    return parsed(file, lambda number, line: _judged(number, value(line)), example)


def _pair(line: int, row: Any) -> Pair:
    if isinstance(row, dict) and "chosen" in row:
        only(row, {"prompt", "chosen", "rejected"}, "the row")
        row = {
            "input": {"messages": row.get("prompt")},
            "preferred_output": row["chosen"],
            "non_preferred_output": row.get("rejected"),
        }
    if not isinstance(row, dict) or "input" not in row:
        raise BadRow("is no pair", "a pair has 'input', 'preferred_output' and 'non_preferred_output'")
    only(row, PAIR_KEYS, "the row")
    asked = row["input"]
    if not isinstance(asked, dict):
        raise BadRow("'input' is no object", 'write it as {"messages": [...]}')
    only(asked, {"messages"}, "'input'")
    first = _learned(line, asked.get("messages"), row.get("preferred_output"), "preferred_output")
    second = _learned(line, asked.get("messages"), row.get("non_preferred_output"), "non_preferred_output")
    if first.messages == second.messages:
        raise BadRow("both outputs are the same answer", "drop the pair: it prefers nothing")
    return Pair(line, first, second)


def _learned(line: int, asked: Any, output: Any, name: str) -> Row:
    if not isinstance(output, list) or len(output) != 1:
        raise BadRow(f"{name!r} is no single answer", "it must be a list of one assistant message")
    if not isinstance(asked, list):
        raise BadRow("'input.messages' is no list", "it must be a list of messages")
    messages = conversation([*asked, *output])
    if not asked or messages[-1].role != "assistant":
        raise BadRow(
            f"{name!r} is no answer to 'input.messages'",
            "it must be one assistant message, and what it answers must be there",
        )
    return Row(line, last_learned(messages))


def _judged(line: int, row: Any) -> Judged:
    if isinstance(row, dict) and "completion" in row:
        only(row, {"prompt", "completion", "label"}, "the row")
        asked, answered = row.get("prompt"), row["completion"]
        if not isinstance(asked, list) or not isinstance(answered, list):
            raise BadRow("'prompt' or 'completion' is no list", "each must be a list of messages")
        row = {"messages": [*asked, *answered], "label": row.get("label")}
    if not isinstance(row, dict) or not isinstance(row.get("label"), bool):
        raise BadRow("is no judged answer", "it needs 'messages' and a 'label' that is true or false")
    only(row, {"messages", "label"}, "the row")
    messages = conversation(row.get("messages"))
    if len(messages) < 2 or messages[-1].role != "assistant":
        raise BadRow("does not end with an answer", "the last message must be the assistant's that is judged")
    return Judged(line, Row(line, last_learned(messages)), row["label"])


def last_learned(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The conversation with only its last message to learn."""
    return (
        *(Message(message.role, message.content) for message in messages[:-1]),
        Message("assistant", messages[-1].content, learn=True),
    )
