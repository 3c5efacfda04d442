"""Rows in tokens: each one's length, what is learned of it, and whether the template renders it whole.

Exact for every row while time allows; the longest are counted first, so that none above the limit escapes
(a token stands for at least one byte in every tokenizer that knows its text), the rest is estimated.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.preflight.chat import BadTemplate, Chat
from training.preflight.findings import Finding, error
from training.recipe.resolve import Tokens
from training.rows import Row, read_rows
from training.tokens import tokenise

BUDGET_S = 2.0
"""Counting may take so long; about 10,000 short rows on one core."""


@dataclass(frozen=True, slots=True)
class Length:
    """Of one row, in tokens."""

    line: int
    tokens: int
    learned: int


@dataclass(frozen=True, slots=True)
class Counted:
    """`lengths` of the rows that were counted, in no order; `findings` of those that cannot be rendered."""

    tokens: Tokens
    lengths: tuple[Length, ...]
    findings: tuple[Finding, ...]


def count(
    chat: Chat,
    rows: Sequence[Row],
    file: str,
    budget_s: float = BUDGET_S,
    clock: Callable[[], float] = time.monotonic,
) -> Counted:
    """Tokens of the rows as an engine would see them."""
    bytes_of = {row.line: sum(len(message.content.encode()) for message in row.messages) for row in rows}
    order = sorted(rows, key=lambda row: -bytes_of[row.line])
    # The longest quarter in order, since those decide; the others by chance, so that a part stands for all.
    head = order[: len(order) // 4]
    rest = order[len(head) :]
    random.Random(0).shuffle(rest)  # noqa: S311
    lengths: list[Length] = []
    findings: list[Finding] = []
    until = clock() + budget_s
    done = 0
    for row in [*head, *rest]:
        if done >= 200 and done > len(head) and clock() > until:
            break
        done += 1
        try:
            example = tokenise(chat, row, set(chat.stops))
        except BadTemplate as problem:
            findings.append(
                error("row", str(problem), "write the row as the base's template wants it", file, row.line)
            )
            continue
        except ValueError as problem:
            message, _, fix = str(problem).partition("; ")
            findings.append(error("row", message, fix or "drop the row", file, row.line))
            continue
        learned = sum(label >= 0 for label in example.labels)
        lengths.append(Length(row.line, len(example.ids), learned))
    left = order if not lengths else [*head, *rest][done:]
    counted_bytes = sum(bytes_of[length.line] for length in lengths)
    scale = 1 + sum(bytes_of[row.line] for row in left) / counted_bytes if counted_bytes else 1.0
    ordered = sorted(length.tokens for length in lengths)
    return Counted(
        Tokens(
            total=round(sum(ordered) * scale),
            learned=round(sum(length.learned for length in lengths) * scale),
            longest=ordered[-1] if ordered else 0,
            typical=ordered[min(len(ordered) - 1, len(ordered) * 95 // 100)] if ordered else 0,
            exact=not left,
        ),
        tuple(lengths),
        tuple(findings),
    )


def too_long(counted: Counted, max_tokens: int, file: str) -> list[Finding]:
    """Rows that would have to be cut: a cut answer teaches to stop in the middle."""
    return [
        error(
            "too_long",
            f"is {length.tokens:,} tokens long; the recipe's max_tokens is {max_tokens:,}, and rows are "
            "never cut",
            f"shorten it by {length.tokens - max_tokens:,} tokens, split it, or raise max_tokens up to the "
            "base's context",
            file,
            length.line,
        )
        for length in sorted(counted.lengths, key=lambda each: each.line)
        if length.tokens > max_tokens
    ]


def typical(base: Path, data: Path | None) -> tuple[int, Tokens]:
    """Rows and tokens of a file; without one, of a thousand rows as a support desk has them."""
    if data is None:
        return 1_000, Tokens(total=120_000, learned=30_000, longest=400, typical=250)
    rows = read_rows(data)
    return len(rows), count(Chat.read(base), rows, str(data)).tokens
