"""A judge's opinion, and who may be sent what users wrote."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.relay.serving import serving
from training.ask import Answered
from training.evaluation.arms import Arm, Outcome
from training.evaluation.judge import RUBRIC, Judge, check_hosts, judged
from training.recipe import TrainingError
from training.score import Question


class Bench:
    """A judge that says what is written after `say:` in the answer; the second time, if that is a list."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = json.loads((await receive())["body"])
        self.asked.append(body)
        answer = body["messages"][-1]["content"].partition("# Answer to judge\n")[2].partition("\n")[0]
        times = sum(answer in each["messages"][-1]["content"] for each in self.asked)
        wanted = answer.removeprefix("say:").split(" | ")
        text = wanted[min(times, len(wanted)) - 1]
        told = {"choices": [{"message": {"role": "assistant", "content": text}}], "usage": {}}
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(told).encode()})


@pytest.fixture
async def bench() -> AsyncIterator[tuple[Bench, Judge]]:
    app = Bench()
    async with serving(app) as port:
        yield app, Judge(f"http://127.0.0.1:{port}/v1", "k", "wise")


def outcome(*answers: str) -> tuple[list[Question], Outcome]:
    asked = [Question(({"role": "user", "content": f"question {n}"},), "right") for n in range(len(answers))]
    told = tuple(Answered("", answer, 0.1, 1, 1) for answer in answers)
    exact = tuple(0.0 for _ in answers)
    return asked, Outcome(Arm("candidate", "http://x/v1", "k"), told, {"exact": exact})


GOOD, BAD = '{"score": 5, "unsupported": false}', '{"score": 2, "unsupported": true}'


async def test_scores_and_grounding_stand_beside_the_other_figures(bench: tuple[Bench, Judge]) -> None:
    asked, told = outcome(f"say:{GOOD}", f"say:I think ```json {BAD}```")
    found = await judged(bench[1], asked, told)
    assert (1.0, 0.25) == found.figures["judge"]
    assert (1.0, 0.0) == found.figures["grounded"]
    assert (0.0, 0.0) == found.figures["exact"]
    system, case = bench[0].asked[0]["messages"]
    assert system["content"] == RUBRIC
    assert "[user] question 0" in case["content"] and "right" in case["content"]


async def test_who_says_nothing_usable_is_asked_again(bench: tuple[Bench, Judge]) -> None:
    asked, told = outcome(f"say:hm | {GOOD}", f"say:{BAD}")
    found = await judged(bench[1], asked, told)
    assert (1.0, 0.25) == found.figures["judge"]
    assert 3 == len(bench[0].asked)


@pytest.mark.parametrize(
    "said", ["no idea", '{"score": 6, "unsupported": false}', '{"score": true, "unsupported": false}', "[5]"]
)
async def test_a_judge_without_a_verdict_is_told(bench: tuple[Bench, Judge], said: str) -> None:
    asked, told = outcome(f"say:{said}")
    with pytest.raises(TrainingError, match="no verdict on 1 of 1 answers of candidate"):
        await judged(bench[1], asked, told)


async def test_the_rubric_is_kept_with_the_result(bench: tuple[Bench, Judge]) -> None:
    kept = Judge(bench[1].url, "k", "wise", "be kind").record()
    assert ("wise", "127.0.0.1", "be kind", 64) == (
        *(kept[name] for name in ("model", "host", "rubric")),
        len(kept["rubric_sha256"]),
    )


# --- who may be sent what users wrote ---

GATEWAY, STRANGER = "http://10.1.2.3:8000/v1", "https://api.example.com/v1"


def rows(folder: Path, source: str, consent: dict[str, int]) -> Path:
    manifest = {"lineage": {"sources": [{"from": source, "consent": consent}]}}
    (folder / "dataset.json").write_text(json.dumps(manifest))
    return folder / "validation.jsonl"


TERMS = {"terms of 2026": 7}


def test_captured_rows_go_to_hosts_that_are_allowed_and_to_no_others(tmp_path: Path) -> None:
    data = rows(tmp_path, "traffic://support", TERMS)
    check_hosts(data, [GATEWAY, "http://127.0.0.1:1/v1"], (), GATEWAY)
    check_hosts(data, [STRANGER], ("api.example.com",), GATEWAY)
    with pytest.raises(TrainingError, match=r"api\.example\.com would be sent them"):
        check_hosts(data, [GATEWAY, STRANGER], ("other.example.com",), GATEWAY)


def test_captured_rows_without_a_basis_go_nowhere(tmp_path: Path) -> None:
    data = rows(tmp_path, "traffic://support", {**TERMS, "(none said)": 2})
    check_hosts(data, [GATEWAY], (), GATEWAY)
    with pytest.raises(TrainingError, match="2 rows that users wrote have no consent basis"):
        check_hosts(data, [STRANGER], ("api.example.com",), GATEWAY)


def test_rows_that_are_no_ones_but_the_operators_go_where_they_say(tmp_path: Path) -> None:
    check_hosts(rows(tmp_path, "faq.jsonl", {}), [STRANGER], (), GATEWAY)
    check_hosts(tmp_path / "elsewhere" / "rows.jsonl", [STRANGER], (), GATEWAY)
