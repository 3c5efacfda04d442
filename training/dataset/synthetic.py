"""Rows that a model writes: like those that are there, or the questions to given good answers (reverse).

They are written after the split, from rows of the training half only, and what is near a row of the
validation half is not kept: a generated row must not carry the one into the other. A judge or a reward model
scores them, and those that score too little go.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from training.dataset.candidate import Candidate, Kind, Ledger
from training.dataset.endpoint import Answers, json_in
from training.dataset.plan import DatasetError, Synthetic
from training.rows import Message

SHOWN = 4
"""Rows that the writer sees each time."""
AT_A_TIME = 4
"""New rows that it writes each time."""
SPARE = 1.5
"""So many more are asked for than are wanted: some are no rows, some are like others, some are not good."""
WRITE = """Here are examples of what users ask an assistant, with the right answers.

{examples}

Write {count} new ones, of the same kind and in the same style and format of answer, but about different \
cases. \
Answer with a JSON array only, of objects with the members "question" and "answer"."""
REVERSE = """Here is a good answer of an assistant:

---
{answer}
---

Write the message of a user to which this is the right answer. Answer with a JSON object only, with the \
member \
"question"."""
JUDGE = """A user asked:
---
{question}
---
An assistant answered:
---
{answer}
---
How good is the answer: right, complete, and nothing made up? Answer with a JSON object only, with the \
member \
"score", a number from 0 (useless) to 10 (as good as can be)."""


def written(wanted: Synthetic, rows: Sequence[Candidate], writer: Answers, ledger: Ledger) -> list[Candidate]:
    """About `wanted.rows` times `SPARE` new rows. Dropped as `not_pairs` is what is no list of pairs.
    Raises `DatasetError`."""
    if not wanted.rows:
        return []
    if not rows:
        raise DatasetError("synthetic.rows needs rows to write others like them; there are none")
    choice = random.Random(wanted.seed)  # noqa: S311 (which examples are shown is no secret)
    calls = -(-round(wanted.rows * SPARE) // AT_A_TIME)
    shown = [choice.sample(range(len(rows)), min(SHOWN, len(rows))) for _ in range(calls)]
    questions = [
        WRITE.format(examples=_examples([rows[at] for at in some]), count=AT_A_TIME) for some in shown
    ]
    found = []
    for number, (answer, some) in enumerate(zip(writer.all(questions), shown, strict=True), start=1):
        seeds = [rows[at] for at in some]
        pairs = _pairs(answer)
        if not pairs:
            ledger.drop("not_pairs", f"synthetic call {number}")
        for at, (question, said) in enumerate(pairs, start=1):
            found.append(_candidate(question, said, f"synthetic {number}.{at}", seeds))
    return found


def reversed_from(file: Path, source: int, licence: str, writer: Answers, ledger: Ledger) -> list[Candidate]:
    """A row for each line of a file of good answers (text, or JSON strings where a line begins with a
    quote)."""
    try:
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        outputs = [str(json.loads(line)) if line.startswith('"') else line for line in lines]
    except (OSError, ValueError) as error:
        raise DatasetError(f"cannot read the answers in {file}: {error}") from error
    answers = writer.all([REVERSE.format(answer=output) for output in outputs])
    found = []
    for number, (output, answer) in enumerate(zip(outputs, answers, strict=True), start=1):
        value = json_in(answer)
        question = value.get("question") if isinstance(value, dict) else None
        place = f"{file.name}:{number}"
        if not isinstance(question, str) or not question.strip():
            ledger.drop("not_pairs", place)
            continue
        made = _candidate(question.strip(), output, place, [])
        found.append(
            Candidate(
                messages=made.messages, kind=Kind.SYNTHETIC, source=source, place=place, licence=licence
            )
        )
    return found


Scorer = Callable[[Sequence[Candidate]], Sequence[float]]
"""How good each answer is, from 0 to 1; -1 where that cannot be said."""


def judge_of(judge: Answers) -> Scorer:
    """A model that is asked."""

    def scores(candidates: Sequence[Candidate]) -> list[float]:
        questions = [JUDGE.format(question=each.prompt, answer=each.answer) for each in candidates]
        return [_score(answer) for answer in judge.all(questions, temperature=0.0)]

    return scores


def judged(
    candidates: Sequence[Candidate], least: float, scorer: Scorer | None, ledger: Ledger
) -> list[Candidate]:
    """The best first, each at least `least` (0 to 1) good; all of them where there is no scorer. What it
    says nothing usable of is dropped, too: `bad_score`."""
    if scorer is None:
        return list(candidates)
    good = []
    for candidate, score in zip(candidates, scorer(candidates), strict=True):
        if score < least:
            ledger.drop("bad_score", candidate.place)
        else:
            good.append((score, candidate))
    return [candidate for _, candidate in sorted(good, key=lambda each: -each[0])]


def _score(answer: str) -> float:
    """From 0 to 1; -1 for no score."""
    value = json_in(answer)
    score = value.get("score") if isinstance(value, dict) else None
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 10:
        return -1.0
    return float(score) / 10


def _candidate(question: str, answer: str, place: str, seeds: Sequence[Candidate]) -> Candidate:
    system = next((each.messages[0] for each in seeds if each.system), None)
    head = () if system is None else (system,)
    return Candidate(
        messages=(*head, Message("user", question), Message("assistant", answer, learn=True)),
        kind=Kind.SYNTHETIC,
        source=seeds[0].source if seeds else 0,
        place=place,
        seeds=tuple(sorted({id for seed in seeds for id in seed.ids})),
        licence=seeds[0].licence if seeds else "",
        consent=seeds[0].consent if seeds else "",
    )


def _examples(rows: Sequence[Candidate]) -> str:
    return "\n".join(
        json.dumps({"question": row.prompt, "answer": row.answer}, ensure_ascii=False) for row in rows
    )


def _pairs(answer: str) -> list[tuple[str, str]]:
    found = json_in(answer)
    pairs = []
    for each in found if isinstance(found, list) else ():
        if isinstance(each, dict):
            question, said = each.get("question"), each.get("answer")
            if isinstance(question, str) and isinstance(said, str) and question.strip() and said.strip():
                pairs.append((question.strip(), said.strip()))
    return pairs
