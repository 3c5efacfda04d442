"""Several models before the same questions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from training.ask import Answered, ask_all
from training.evaluation.bootstrap import Interval, difference, mean
from training.evaluation.metrics import METRICS
from training.recipe import TrainingError
from training.rows import Row
from training.score import Question

MILLION = 1e6


@dataclass(frozen=True, slots=True)
class Arm:
    """One model at one endpoint; `url` ends in /v1.

    `shown` are rows that stand as examples before each question (few-shot). Prices are in US dollars a
    million tokens; None where nobody said.
    """

    name: str
    url: str
    key: str = field(repr=False)
    model: str = ""
    shown: tuple[Row, ...] = ()
    prompt_price: float | None = None
    completion_price: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an arm did: its answers, and of each metric the figure of every row, in the rows' order."""

    arm: Arm
    answers: tuple[Answered, ...]
    figures: Mapping[str, tuple[float, ...]]

    def interval(self, metric: str) -> Interval:
        """The mean of a metric over all rows."""
        return mean(self.figures[metric])

    @property
    def seconds(self) -> tuple[float, float]:
        """Median and 95th percentile of the time to a whole answer."""
        import numpy as np

        times = [answer.seconds for answer in self.answers]
        return float(np.quantile(times, 0.5)), float(np.quantile(times, 0.95))

    @property
    def tokens(self) -> tuple[int, int]:
        """Of all prompts, of all answers."""
        return (
            sum(answer.prompt_tokens for answer in self.answers),
            sum(answer.completion_tokens for answer in self.answers),
        )

    @property
    def dollars_per_thousand(self) -> float | None:
        """What a thousand such requests cost: tokens x price, over the rows that were asked."""
        if self.arm.prompt_price is None or self.arm.completion_price is None:
            return None
        prompt, completion = self.tokens
        dollars = (prompt * self.arm.prompt_price + completion * self.arm.completion_price) / MILLION
        return dollars / len(self.answers) * 1000


def questions(rows: Sequence[Row]) -> list[Question]:
    """The last learned answer of each row, and what leads to it. Rows without one are none."""
    found = []
    for row in rows:
        last = max((at for at, message in enumerate(row.messages) if message.learn), default=None)
        if last is not None:
            before = tuple(message.as_dict() for message in row.messages[:last])
            found.append(Question(before, row.messages[last].content))
    return found


def fitting(asked: Sequence[Question]) -> tuple[str, ...]:
    """The metrics that say something of such answers: JSON's where every expected answer is an object."""
    for question in asked:
        try:
            if not isinstance(json.loads(question.expected), dict):
                return "exact", "rouge_l"
        except ValueError:
            return "exact", "rouge_l"
    return "exact", "json_valid", "json_fields"


async def evaluate(
    asked: Sequence[Question],
    arms: Sequence[Arm],
    metrics: Sequence[str],
    *,
    max_tokens: int = 256,
    concurrency: int = 16,
    progress: Callable[[str, int, int], None] = lambda arm, done, total: None,
    unremembered: bool = False,
) -> list[Outcome]:
    """Every question to every arm, one arm after the other. `unremembered`: see `ask_all`.

    Raises `TrainingError` when an endpoint fails, or for a metric that is not known or does not fit.
    """
    if not asked:
        raise TrainingError("there is nothing to ask: no row has an answer to compare with")
    for name in metrics:
        if name not in METRICS:
            raise TrainingError(f"there is no metric {name!r}; known are {', '.join(METRICS)}")
    outcomes = []
    for arm in arms:

        def told(done: int, total: int, name: str = arm.name) -> None:
            progress(name, done, total)

        answers = await ask_all(
            [_with_examples(question, arm.shown) for question in asked],
            url=arm.url,
            key=arm.key,
            model=arm.model,
            concurrency=concurrency,
            max_tokens=max_tokens,
            progress=told,
            unremembered=unremembered,
        )
        outcomes.append(Outcome(arm, tuple(answers), _figures(asked, answers, metrics)))
    return outcomes


def gain(candidate: Outcome, other: Outcome, metric: str) -> Interval:
    """By how much the candidate is better, with 95 % bounds, over pairs of answers to the same question."""
    return difference(candidate.figures[metric], other.figures[metric])


def _figures(
    asked: Sequence[Question], answers: Sequence[Answered], metrics: Sequence[str]
) -> dict[str, tuple[float, ...]]:
    try:
        return {
            name: tuple(
                METRICS[name](answer.text, question.expected)
                for question, answer in zip(asked, answers, strict=True)
            )
            for name in metrics
        }
    except ValueError as error:
        raise TrainingError(str(error)) from error


def _with_examples(question: Question, shown: Sequence[Row]) -> list[Mapping[str, str]]:
    """A system message stays in front; examples stand between it and the question."""
    system = [message for message in question.messages if message["role"] == "system"]
    rest = [message for message in question.messages if message["role"] != "system"]
    examples: list[Mapping[str, str]] = [
        message.as_dict() for row in shown for message in row.messages if message.role != "system"
    ]
    return [*system, *examples, *rest]
