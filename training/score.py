"""Questions with one right answer each, asked of an OpenAI endpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from training.ask import ask_all


@dataclass(frozen=True, slots=True)
class Question:
    """Messages as the endpoint takes them, and the answer that is right."""

    messages: tuple[Mapping[str, str], ...]
    expected: str


@dataclass(frozen=True, slots=True)
class Miss:
    """A wrong answer."""

    expected: str
    answer: str


@dataclass(frozen=True, slots=True)
class Score:
    """`right` of `asked` answers were right, all of them within `seconds`."""

    right: int
    asked: int
    seconds: float
    misses: tuple[Miss, ...]

    @property
    def share(self) -> float:
        """Between 0 and 1."""
        return self.right / self.asked if self.asked else 0.0


def same_text(answer: str, expected: str) -> bool:
    """Equal but for white space around."""
    return answer.strip() == expected


async def ask(
    questions: Sequence[Question],
    *,
    url: str,
    key: str,
    model: str,
    concurrency: int = 16,
    max_tokens: int = 64,
    check: Callable[[str, str], bool] = same_text,
    timeout_s: float = 120.0,
) -> Score:
    """Ask each question once, greedily, `concurrency` at a time. `url` ends in /v1.

    Raises `TrainingError` at the first answer that is an error: a score with holes would be none.
    """
    began = time.monotonic()
    answered = await ask_all(
        [question.messages for question in questions],
        url=url,
        key=key,
        model=model,
        concurrency=concurrency,
        max_tokens=max_tokens,
        timeout_s=timeout_s,
    )
    answers = [each.text for each in answered]
    misses = tuple(
        Miss(question.expected, got)
        for question, got in zip(questions, answers, strict=True)
        if not check(got, question.expected)
    )
    return Score(len(questions) - len(misses), len(questions), round(time.monotonic() - began, 1), misses)
