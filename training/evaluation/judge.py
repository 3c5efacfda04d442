"""A judge's opinion of answers: any OpenAI endpoint that is given a rubric.

Each answer is judged alone, with its question and the expected answer beside it, at temperature 0. Two
figures come of it, both from 0 to 1: `judge` is (score - 1) / 4 of a score from 1 to 5, `grounded` is 0 for
an answer that states what neither the question nor the expected answer says, else 1.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from training.ask import Answered, ask_all
from training.dataset.endpoint import NEAR, host_of, json_in
from training.dataset.lineage import NONE_SAID
from training.dataset.sources.traffic import SCHEME
from training.evaluation.arms import Outcome
from training.recipe import TrainingError
from training.score import Question

SCORE, GROUNDED = "judge", "grounded"
RUBRIC = """\
You judge the answer of an assistant beside the answer that was expected.
Give a score from 1 to 5:
5: as useful as the expected answer, in the same form and style
4: right, with small differences of form or style
3: right in part, or right and hard to use
2: mostly wrong
1: wrong, empty, or beside the question
Say also whether the answer is unsupported: whether it states a fact that neither the question nor the
expected answer says."""
FORM = 'Answer with one JSON object and nothing else: {"score": 1 to 5, "unsupported": true or false}'
TRIES = 2
VERDICT_TOKENS = 1024
"""Room for a judge that thinks first."""


@dataclass(frozen=True, slots=True)
class Judge:
    """`url` ends in /v1."""

    url: str
    key: str = field(repr=False)
    model: str
    rubric: str = RUBRIC

    def record(self) -> dict[str, str]:
        """What a result says of who judged, and by what."""
        digest = hashlib.sha256(self.rubric.encode()).hexdigest()
        return {
            "model": self.model,
            "host": host_of(self.url),
            "rubric": self.rubric,
            "rubric_sha256": digest,
        }


async def judged(
    judge: Judge, asked: Sequence[Question], outcome: Outcome, *, concurrency: int = 16
) -> Outcome:
    """The outcome with the judge's figures beside the others.

    Raises `TrainingError` when the judge fails, or gives no verdict on an answer twice.
    """
    verdicts: dict[int, tuple[float, float]] = {}
    last = ""
    for _ in range(TRIES):
        left = [at for at in range(len(asked)) if at not in verdicts]
        said = await ask_all(
            [_case(judge, asked[at], outcome.answers[at]) for at in left],
            url=judge.url,
            key=judge.key,
            model=judge.model,
            concurrency=concurrency,
            max_tokens=VERDICT_TOKENS,
        )
        for at, answer in zip(left, said, strict=True):
            verdict = _verdict(answer.text)
            if verdict is None:
                last = answer.text
            else:
                verdicts[at] = verdict
    if missing := len(asked) - len(verdicts):
        raise TrainingError(
            f"{judge.model} gave no verdict on {missing} of {len(asked)} answers of {outcome.arm.name}; it "
            f"said {last[:120]!r}. Take another model as judge, or say in the rubric what to answer"
        )
    scores, grounded = zip(*(verdicts[at] for at in range(len(asked))), strict=True)
    return replace(outcome, figures={**outcome.figures, SCORE: scores, GROUNDED: grounded})


def check_hosts(data: Path, urls: Sequence[str], allowed: Sequence[str], gateway: str) -> None:
    """Raises `TrainingError` before captured rows would go where their consent does not cover it.

    `data` is a file of rows; of a dataset its manifest says whether users wrote them, and on what basis.
    Other files are their owner's.
    """
    manifest = data.resolve().parent / "dataset.json"
    if not manifest.is_file():
        return
    sources = json.loads(manifest.read_bytes())["lineage"]["sources"]
    captured = [source for source in sources if str(source["from"]).startswith(SCHEME)]
    strangers = {host_of(url) for url in urls} - {*NEAR, host_of(gateway)}
    if not captured or not strangers:
        return
    for host in sorted(strangers):
        if host not in allowed:
            raise TrainingError(
                f"{data.name} has rows that users wrote, and {host} would be sent them; allow it when their "
                f"consent covers that: HOTSWAP_EVALUATION__HOSTS='[\"{host}\"]'"
            )
    silent = sum(source["consent"].get(NONE_SAID, 0) for source in captured)
    if silent:
        raise TrainingError(
            f"{silent} rows that users wrote have no consent basis, so they go to no other host; set one in "
            "the route's policy (hotswap traffic policy), and build the dataset again"
        )


def _case(judge: Judge, question: Question, answer: Answered) -> list[Mapping[str, str]]:
    turns = "\n".join(f"[{message['role']}] {message['content']}" for message in question.messages)
    parts = (
        f"# Conversation\n{turns}",
        f"# Expected answer\n{question.expected}",
        f"# Answer to judge\n{answer.text}",
        FORM,
    )
    return [
        {"role": "system", "content": judge.rubric},
        {"role": "user", "content": "\n\n".join(parts)},
    ]


def _verdict(text: str) -> tuple[float, float] | None:
    value: Any = json_in(text)
    if not isinstance(value, dict):
        return None
    score, unsupported = value.get("score"), value.get("unsupported")
    if isinstance(score, bool) or not isinstance(score, int | float) or not 1 <= score <= 5:
        return None
    if not isinstance(unsupported, bool):
        return None
    return (float(score) - 1) / 4, float(not unsupported)
