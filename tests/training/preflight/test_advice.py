"""Fine-tune, prompt or retrieval: what rows of each kind speak for."""

from __future__ import annotations

import json
import random

from training.preflight.advice import Baseline, advise, measure
from training.rows import Message, Row
from training.tasks import house, support


def rows(*pairs: tuple[str, str], system: str | None = None) -> tuple[Row, ...]:
    head = () if system is None else (Message("system", system),)
    return tuple(
        Row(line, (*head, Message("user", user), Message("assistant", said, learn=True)))
        for line, (user, said) in enumerate(pairs, start=1)
    )


def of_task(task: object) -> tuple[Row, ...]:
    return rows(*((r["messages"][0]["content"], r["messages"][1]["content"]) for r in task.rows))  # type: ignore[attr-defined]


draw = random.Random(0)
LOOKUP = rows(
    *(
        (f"What is the phone number of shop {n}?", f"Call the shop at {draw.randrange(10**8, 10**9)}.")
        for n in range(400)
    )
)
LABELS = rows(*((f"my card {n} does not work at all", f"intent_{n % 10}") for n in range(400)))


def test_facts_that_no_prompt_holds_speak_for_retrieval() -> None:
    assert "retrieval" in advise(LOOKUP).choice


def test_a_closed_set_of_labels_speaks_for_a_fine_tune() -> None:
    advice = advise(LABELS)
    assert ("fine-tune", 10) == (advice.choice, advice.signals.distinct)


def test_one_form_speaks_for_a_fine_tune() -> None:
    assert ["fine-tune", "fine-tune"] == [advise(of_task(task)).choice for task in (support(), house())]


def test_facts_that_are_in_the_prompt_are_no_lookup() -> None:
    pairs = [(f"order A{n} is late", json.dumps({"order": f"A{n}"})) for n in range(300)]
    assert 0 == measure(rows(*pairs)).lookup


def test_few_rows_speak_for_a_prompt() -> None:
    assert "prompt" == advise(LABELS[:30]).choice


def test_a_prompt_that_does_it_speaks_for_a_prompt() -> None:
    advice = advise(LABELS, Baseline(right=19, asked=20, shots=4, seconds=1.0))
    assert ("prompt", True) == (advice.choice, any("19 of 20" in ground for ground, _ in advice.grounds))


def test_a_prompt_that_does_not_do_it_speaks_for_a_fine_tune() -> None:
    assert "fine-tune" == advise(LABELS, Baseline(right=2, asked=20, shots=4, seconds=1.0)).choice


def test_a_long_instruction_in_every_row_is_told() -> None:
    given = rows(*((f"q {n}", f"a {n % 5}") for n in range(300)), system="rule " * 200)
    assert any("1,000 characters of instruction" in ground for ground, _ in advise(given).grounds)


def test_every_ground_that_rests_on_a_rule_of_thumb_names_it() -> None:
    grounds = [ground for given in (LOOKUP, LABELS, LABELS[:30]) for ground in advise(given).grounds]
    assert [] == [what for what, rule in grounds if not rule]
