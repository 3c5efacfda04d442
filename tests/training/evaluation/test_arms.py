"""The same questions to several arms."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.relay.serving import serving
from training.evaluation.arms import Arm, evaluate, fitting, gain, questions
from training.recipe import TrainingError
from training.rows import Message, Row
from training.score import Question


class Clerk:
    """An endpoint whose models answer by rule: `right` echoes the question's number, `wrong` never does."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = json.loads((await receive())["body"])
        self.asked.append(body)
        number = body["messages"][-1]["content"].split()[-1]
        known = body["model"] in ("right", "half", "wrong")
        right = body["model"] == "right" or (body["model"] == "half" and int(number) % 2 == 0)
        text = f"answer {number}" if right else "no idea"
        told = {
            "choices": [{"message": {"role": "assistant", "content": text}}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 4},
        }
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200 if known else 404, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(told).encode()})


@pytest.fixture
async def clerk() -> AsyncIterator[tuple[Clerk, str]]:
    app = Clerk()
    async with serving(app) as port:
        yield app, f"http://127.0.0.1:{port}/v1"


def asked(count: int) -> list[Question]:
    return [Question(({"role": "user", "content": f"question {n}"},), f"answer {n}") for n in range(count)]


def arm(url: str, model: str, **more: Any) -> Arm:
    return Arm(model, url, "k", model, **more)


async def test_each_arm_is_asked_everything_and_gains_are_over_pairs(clerk: tuple[Clerk, str]) -> None:
    arms = [arm(clerk[1], model) for model in ("right", "half", "wrong")]
    right, half, wrong = await evaluate(asked(40), arms, ["exact"])
    assert [1.0, 0.5, 0.0] == [each.interval("exact").mean for each in (right, half, wrong)]
    found = gain(right, half, "exact")
    assert (0.5, True) == (found.mean, 0.3 < found.low < 0.5 < found.high < 0.7)


async def test_costs_are_tokens_by_price(clerk: tuple[Clerk, str]) -> None:
    priced, unpriced = await evaluate(
        asked(5),
        [arm(clerk[1], "right", prompt_price=2.0, completion_price=10.0), arm(clerk[1], "wrong")],
        ["exact"],
    )
    assert (50, 20) == priced.tokens
    assert (pytest.approx(0.06), None) == (priced.dollars_per_thousand, unpriced.dollars_per_thousand)


async def test_examples_stand_between_the_system_message_and_the_question(clerk: tuple[Clerk, str]) -> None:
    shown = Row(
        1, (Message("system", "be brief"), Message("user", "q"), Message("assistant", "a", learn=True))
    )
    question = Question(
        ({"role": "system", "content": "be kind"}, {"role": "user", "content": "question 2"}), "x"
    )
    await evaluate([question], [arm(clerk[1], "right", shown=(shown,))], ["exact"])
    told = [(message["role"], message["content"]) for message in clerk[0].asked[0]["messages"]]
    assert [("system", "be kind"), ("user", "q"), ("assistant", "a"), ("user", "question 2")] == told


async def test_an_endpoint_that_fails_makes_no_score(clerk: tuple[Clerk, str]) -> None:
    with pytest.raises(TrainingError, match="nobody answered 404"):
        await evaluate(asked(3), [arm(clerk[1], "nobody")], ["exact"])


@pytest.mark.parametrize(
    ("rows", "metrics", "reason"),
    [(0, ["exact"], "there is nothing to ask"), (1, ["bleu"], "no metric 'bleu'; known are exact")],
)
async def test_what_cannot_be_evaluated_is_said(rows: int, metrics: list[str], reason: str) -> None:
    with pytest.raises(TrainingError, match=reason):
        await evaluate(asked(rows), [], metrics)


async def test_a_metric_that_does_not_fit_the_answers_is_an_error(clerk: tuple[Clerk, str]) -> None:
    with pytest.raises(TrainingError, match="the expected answer is no JSON: 'answer 0'"):
        await evaluate(asked(1), [arm(clerk[1], "right")], ["json_fields"])


def test_the_last_learned_answer_of_a_row_is_what_is_expected() -> None:
    talk = Row(
        1,
        (
            Message("user", "a"),
            Message("assistant", "b", learn=True),
            Message("user", "c"),
            Message("assistant", "d", learn=True),
        ),
    )
    (found,) = questions([talk, Row(2, (Message("user", "a"), Message("assistant", "b")))])
    assert (["a", "b", "c"], "d") == ([message["content"] for message in found.messages], found.expected)


def test_metrics_fit_the_answers() -> None:
    assert ("exact", "rouge_l") == fitting(asked(2))
    assert "json_fields" in fitting([Question((), '{"a": 1}')])


def test_a_key_is_in_nobodys_log() -> None:
    assert "secret" not in repr(Arm("a", "u", "secret", "m"))
