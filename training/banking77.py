"""The proof on real data: ten intents of BANKING77 (Casanueva et al., 2020), learned, then answered exactly.

    python -m training.banking77 rows  --data DIR --out rows.jsonl
    python -m training.banking77 score --data DIR --url http://127.0.0.1:8000/v1 --key KEY --model banking
    python -m training.banking77 score --list-intents ...   # for the base: its prompt names the intents

DIR holds train.csv and test.csv with the columns `text,category`; the data is not part of this project.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.recipe import TrainingError
from training.rows import chat, write_rows
from training.score import Question, Score, ask

INTENTS = 10
ROWS_PER_INTENT = 58
INSTRUCTION = "Name the intent."
"""All that the adapter is told. It is short because every row pays for it, in training and in serving."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One customer's question and its intent."""

    text: str
    intent: str


def intents(data: Path, count: int = INTENTS) -> tuple[str, ...]:
    """The first `count` intents in the data's own order."""
    return tuple(dict.fromkeys(sample.intent for sample in _read(data / "train.csv")))[:count]


def training_rows(data: Path, names: Sequence[str], per_intent: int, seed: int) -> list[dict[str, Any]]:
    """At most `per_intent` rows of each intent, drawn and shuffled by `seed`."""
    draw = random.Random(seed)  # noqa: S311
    found = []
    for name in names:
        samples = [sample for sample in _read(data / "train.csv") if sample.intent == name]
        found += draw.sample(samples, min(per_intent, len(samples)))
    draw.shuffle(found)
    return [chat(sample.text, sample.intent, system=INSTRUCTION) for sample in found]


def questions(data: Path, names: Sequence[str], list_intents: bool) -> list[Question]:
    """Every test row of these intents; with `list_intents` the instruction names them all, for the base."""
    instruction = INSTRUCTION
    if list_intents:
        instruction = (
            "Classify the bank customer's message. Answer with exactly one of these intents and nothing "
            "else: " + ", ".join(names)
        )
    return [
        Question(
            messages=({"role": "system", "content": instruction}, {"role": "user", "content": sample.text}),
            expected=sample.intent,
        )
        for sample in _read(data / "test.csv")
        if sample.intent in names
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m training.banking77", description="BANKING77: learn ten intents, then answer exactly"
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    rows = verbs.add_parser("rows", help="write the training rows")
    rows.add_argument("--out", type=Path, required=True)
    rows.add_argument("--per-intent", type=int, default=ROWS_PER_INTENT)
    rows.add_argument("--seed", type=int, default=0)
    score = verbs.add_parser("score", help="answer every test row and count exact matches")
    score.add_argument("--url", default="http://127.0.0.1:8000/v1")
    score.add_argument("--key", default=os.environ.get("OPENAI_API_KEY", ""), help="default: OPENAI_API_KEY")
    score.add_argument("--model", required=True)
    score.add_argument("--list-intents", action="store_true", help="name the intents in the prompt")
    score.add_argument("--concurrency", type=int, default=16)
    score.add_argument("--at-least", type=float, default=0.0, help="exit 1 below this share of exact answers")
    for verb in (rows, score):
        verb.add_argument("--data", type=Path, required=True, help="folder with train.csv and test.csv")
        verb.add_argument("--intents", type=int, default=INTENTS, help="how many of the 77")
    given = parser.parse_args(arguments)
    try:
        names = intents(given.data, given.intents)
        if given.verb == "rows":
            count = write_rows(given.out, training_rows(given.data, names, given.per_intent, given.seed))
            print(f"{count} rows of {len(names)} intents in {given.out}", file=sys.stderr)
            return 0
        result = asyncio.run(
            ask(
                questions(given.data, names, given.list_intents),
                url=given.url,
                key=given.key,
                model=given.model,
                concurrency=given.concurrency,
                max_tokens=24,
            )
        )
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    _show(given.model, result)
    return 0 if result.share >= given.at_least else 1


def _show(model: str, score: Score) -> None:
    for miss in score.misses[:5]:
        print(f"  wanted {miss.expected!r}, got {miss.answer[:60]!r}", file=sys.stderr)
    figures = {"model": model, "share": round(score.share, 4), "right": score.right, "asked": score.asked}
    print(json.dumps(figures | {"seconds": score.seconds}))


def _read(file: Path) -> list[Sample]:
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            return [Sample(row["text"], row["category"]) for row in csv.DictReader(stream)]
    except FileNotFoundError:
        raise TrainingError(
            f"there is no {file}; give the folder of BANKING77's train.csv and test.csv (text,category)"
        ) from None
    except KeyError as error:
        raise TrainingError(f"{file} has no column {error}; it needs text,category") from error


if __name__ == "__main__":
    sys.exit(main())
