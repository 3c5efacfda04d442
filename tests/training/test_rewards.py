"""What an answer earns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.relay.serving import serving_in_thread
from training.recipe import TrainingError
from training.rewards import GRADER_KEY, reward


@pytest.mark.parametrize(
    ("name", "answer", "expected", "earned"),
    [
        ("exact", " yes\n", "yes", 1),
        ("exact", "yes!", "yes", 0),
        ("other", "yes!", "yes", 1),
        ("other", "yes", "yes", 0),
        ("contains", "oh yes", "yes", 1),
        ("contains", "oh Yes", "yes", 0),
        ("icontains", "oh Yes", "yes", 1),
        ("rouge_l", "the cat sat", "the cat", 0.8),
        ("fuzzy", "abcd", "abxd", 0.75),
        ("json", '{"a": 1}', "", 1),
        ("json", "a: 1", "", 0),
        ("fields", '{"a": 1, "b": 3}', '{"a": 1, "b": 2}', 0.5),
        ("regex:[a-z]+ on", "lamp on", "", 1),
        ("regex:[a-z]+ on", "the lamp is on", "", 0),
    ],
)
def test_an_answer_earns_what_the_rule_says(name: str, answer: str, expected: str, earned: float) -> None:
    assert [pytest.approx(earned)] == reward(name)([answer], [expected])


def test_a_schema_allows_or_not(tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text(json.dumps({"type": "object", "required": ["intent"]}))
    assert [1, 0, 0] == reward(f"schema:{file}")(['{"intent": 1}', "{}", "intent"], ["", "", ""])


def test_an_operators_function_says_what_it_is_worth(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def half(answer, expected):\n    return 0.5 if answer == expected else 0\n")
    assert [0.5, 0] == reward(f"python:{file}#half")(["a", "b"], ["a", "a"])


def test_a_function_that_earns_too_much_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def rich(answer, expected):\n    return 7\n")
    with pytest.raises(TrainingError, match=r"gave 7\.0; it must be from 0 to 1"):
        reward(f"python:{file}#rich")(["a"], ["a"])


def test_a_grader_is_asked_and_its_number_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GRADER_KEY, "k")

    async def grader(scope: dict[str, object], receive: object, send: object) -> None:
        body = json.loads((await receive())["body"])  # type: ignore[operator]
        text = "Score: 8/10" if "good" in body["messages"][1]["content"].split("Answer:")[1] else "no idea"
        said = {"choices": [{"message": {"content": text}}], "usage": {}}
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})  # type: ignore[operator]
        await send({"type": "http.response.body", "body": json.dumps(said).encode()})  # type: ignore[operator]

    with serving_in_thread(grader) as port:
        graded = reward(f"grader:http://127.0.0.1:{port}/v1#judge")
        assert [0.8, 0.0] == graded(["good", "bad"], ["r", "r"])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("praise", "there is no reward 'praise'; known are exact, other, .*, fields, schema:…"),
        ("regex:(", "reward regex:\\(: missing \\)"),
        ("schema:/none.json", "reward schema:/none.json: .*No such file"),
        ("python:/none.py#f", "the file must be there"),
        ("grader:judge", "write grader:https://HOST/v1#MODEL"),
        ("grader:http://h/v1#m", "needs its key in HOTSWAP_GRADER_KEY"),
    ],
)
def test_a_reward_that_is_none_is_refused_with_the_way_to_write_it(
    name: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(GRADER_KEY, raising=False)
    with pytest.raises(TrainingError, match=reason):
        reward(name)
