"""All 77 intents of BANKING77: our trainer beside plain trl, in quality and in time, and beside the base."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.house import House
from tests.proofs.result import Result
from tests.proofs.swap import house_base
from tests.proofs.training_speed import PLAIN
from training.ask import ask_all
from training.banking77 import intents, questions, training_rows
from training.evaluation.bootstrap import Interval, difference, mean
from training.recipe import Recipe
from training.rows import write_rows
from training.run import train
from training.score import Question, same_text

NEEDS = "data"
INTENTS, ROWS_PER_INTENT = 77, 26
SHOWN = 8
"""Rows that the few-shot base sees: more do not fit beside the names of all intents without slowing it."""
TIME_SHARE, POINT = 0.67, 0.01


def prove(folder: Path, base: Path, data: Path) -> Result:
    result = Result(
        "banking77_all",
        f"All {INTENTS} intents of BANKING77 (Casanueva et al., 2020), at most {ROWS_PER_INTENT} rows each; "
        "every test row asked through the gateway on the NF4 base, greedily. `plain` is docs/plain_sft.py on "
        "the same rows: trl's own trainer, same rank, learning rate, batch and epochs, without gradient "
        "checkpointing. Bounds are 95 %, by bootstrap over test rows, paired where two are compared. Nothing "
        "else ran during training.",
    )
    folder.mkdir(parents=True, exist_ok=True)
    names = intents(data, INTENTS)
    rows = training_rows(data, names, ROWS_PER_INTENT, seed=0)
    file = folder / "rows.jsonl"
    write_rows(file, rows)
    recipe = Recipe()
    result.figure("recipe", recipe)
    ours = train(base, file, recipe, folder / "ours", lambda step: None)
    result.figure("hotswap", f"{ours.rows} rows, {ours.steps} steps in {ours.seconds:.0f} s")
    plain = _plain(base, file, folder / "plain", recipe)
    result.figure("plain trl", f"{plain['steps']} steps in {plain['seconds']:.0f} s")
    share = ours.seconds / plain["seconds"]
    result.must(f"in <= {TIME_SHARE} of plain trl's time", share <= TIME_SHARE, f"{share:.2f}")
    with House(folder / "house", base) as house:
        # plain trl says nothing of the base that its adapter is for.
        _named(folder / "plain", folder / "ours")
        house.add("ours", folder / "ours")
        house.add("plain", folder / "plain")
        asked = questions(data, names, list_intents=False)
        listed = questions(data, names, list_intents=True)
        shown = [
            message for row in rows[:SHOWN] for message in row["messages"] if message["role"] != "system"
        ]
        right = {
            "hotswap": _right(house, "ours", asked),
            "plain trl": _right(house, "plain", asked),
            "base, all intents listed": _right(house, house_base(house), listed),
            f"base, all intents listed and {SHOWN} examples": _right(
                house, house_base(house), [_with(question, shown) for question in listed]
            ),
        }
    for name, found in right.items():
        result.figure(f"{name}: exact", f"{_shown(mean(found))} of {len(found)}")
    apart = difference(right["hotswap"], right["plain trl"])
    result.must(
        "exact match >= plain trl's - 1 point", apart.mean >= -POINT, f"{_shown(apart, sign='+')} apart"
    )
    return result


def _plain(base: Path, rows: Path, out: Path, recipe: Recipe) -> dict[str, Any]:
    words = [sys.executable, "-W", "ignore", str(PLAIN), str(base), str(rows), str(out)]
    more = ["--epochs", str(recipe.epochs), "--rank", str(recipe.rank)]
    done = subprocess.run([*words, *more], capture_output=True, text=True, timeout=7200)
    if done.returncode:
        raise AssertionError(f"plain trl ended with {done.returncode}: {done.stderr[-2000:]}")
    told: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return told


def _named(plain: Path, ours: Path) -> None:
    said = json.loads((ours / "hotswap.json").read_text())
    (plain / "hotswap.json").write_text(json.dumps({"base_fingerprint": said["base_fingerprint"]}))


def _right(house: House, model: str, asked: list[Question]) -> list[float]:
    """1 for each question that was answered exactly, else 0."""
    answers = asyncio.run(
        ask_all(
            [question.messages for question in asked],
            url=f"{house.url}/v1",
            key=house.key,
            model=model,
            max_tokens=24,
        )
    )
    return [
        float(same_text(answer.text, question.expected))
        for answer, question in zip(answers, asked, strict=True)
    ]


def _with(question: Question, shown: list[dict[str, str]]) -> Question:
    system, *rest = question.messages
    return Question((system, *shown, *rest), question.expected)


def _shown(found: Interval, sign: str = "") -> str:
    return f"{found.mean:{sign}.1%} ({found.low:{sign}.1%} to {found.high:{sign}.1%})"
