"""What the base can do with a few examples in its prompt: the rival that a fine-tune has to beat."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from training.preflight.advice import Baseline
from training.preflight.dataset import answer
from training.recipe import TrainingError
from training.rows import Message, Row
from training.score import Question, ask

SHOTS = 4
PIECE = 4
"""Rows that are asked together while time is short: what has come by its end counts."""
QUICK_S = 2.0
"""For a dry run, whose five seconds are promised."""


def few_shot(
    rows: Sequence[Row],
    held_out: Sequence[Row],
    *,
    url: str,
    key: str,
    model: str,
    count: int | None = None,
    budget_s: float = QUICK_S,
) -> Baseline | None:
    """Ask `model` the held-out rows, with `SHOTS` of the others before them. `url` ends in /v1.

    `count` rows however long they take; None: as many of twenty as `budget_s` allow. None comes back when
    nothing was answered. Without `held_out` the last rows are asked and are not among the examples. Raises
    `TrainingError` when `count` were asked for and the endpoint does not answer.
    """
    wanted = count or 20
    asked = list(held_out[:wanted]) or list(rows[-min(wanted, len(rows) // 2) :])
    lines = {id(row) for row in asked}
    shots = examples([row for row in rows if id(row) not in lines])
    if not asked or not shots:
        return None
    began = time.monotonic()
    score = _ask(
        [question(shots, row) for row in asked], url, key, model, None if count is not None else budget_s
    )
    right, done = asyncio.run(score)
    return Baseline(right, done, len(shots), round(time.monotonic() - began, 1)) if done else None


def examples(rows: Sequence[Row]) -> list[Row]:
    """`SHOTS` rows of distinct answers where there are so many, the shortest ones first: they cost least."""
    chosen: list[Row] = []
    for row in sorted(rows, key=lambda row: sum(len(message.content) for message in row.messages)):
        if len(chosen) < SHOTS and answer(row) not in {answer(each) for each in chosen}:
            chosen.append(row)
    return chosen


def question(shots: Sequence[Row], row: Row) -> Question:
    """The row's prompt after its system message and the shots' turns; its answer is the right one."""
    last = max(at for at, message in enumerate(row.messages) if message.learn)
    system = [message for message in row.messages[:1] if message.role == "system"]
    turns = [message for shot in shots for message in shot.messages if message.role != "system"]
    rest = [message for message in row.messages[:last] if message.role != "system"]
    listed: list[Message] = [*system, *turns, *rest]
    return Question(tuple(message.as_dict() for message in listed), answer(row).strip())


async def _ask(
    questions: Sequence[Question], url: str, key: str, model: str, budget_s: float | None
) -> tuple[int, int]:
    """Right and answered."""
    longest = max(len(question.expected) for question in questions)
    max_tokens = max(16, min(512, longest))
    if budget_s is None:
        score = await ask(questions, url=url, key=key, model=model, max_tokens=max_tokens)
        return score.right, score.asked
    right = done = 0
    try:
        async with asyncio.timeout(budget_s):
            for at in range(0, len(questions), PIECE):
                piece = questions[at : at + PIECE]
                score = await ask(piece, url=url, key=key, model=model, max_tokens=max_tokens)
                right, done = right + score.right, done + score.asked
    except (TimeoutError, TrainingError):
        return right, done  # a look in passing: what has come counts, and --baseline asks in earnest
    return right, done
