"""The demo's tasks and the proofs' data: seeded, distinct, with one right answer each."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from training import banking77
from training.rows import read_rows, write_rows
from training.score import Question, ask
from training.tasks import Task, demo, marker

TASKS = [*demo(), marker("ALPHA-7")]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_held_out_prompts_are_not_among_the_rows(task: Task) -> None:
    learned = {row["messages"][0]["content"] for row in task.rows}
    assert set() == learned & {question.messages[0]["content"] for question in task.held_out}


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_the_rows_of_a_task_can_be_trained_on(task: Task, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", task.rows)
    assert len(task.rows) == len(read_rows(tmp_path / "rows.jsonl"))


def test_the_same_seed_writes_the_same_tasks_and_another_one_others() -> None:
    assert demo(3) == demo(3) != demo(4)


def test_a_support_answer_is_json_about_the_ticket() -> None:
    question = demo()[0].held_out[0]
    answer = json.loads(question.expected)
    assert {"intent", "order", "urgent"} == set(answer) and answer["order"] in question.messages[0]["content"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """In BANKING77's form: twelve intents of five rows."""
    for name in ("train", "test"):
        lines = [f'"{name} {n}, of {i}",intent_{i}' for i in range(12) for n in range(5)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,category", *lines]) + "\n")
    return tmp_path


def test_ten_intents_are_taken_in_the_datas_own_order(data: Path) -> None:
    assert tuple(f"intent_{number}" for number in range(10)) == banking77.intents(data)


def test_training_rows_are_drawn_from_the_train_file_alone(data: Path) -> None:
    rows = banking77.training_rows(data, banking77.intents(data), per_intent=3, seed=0)
    assert (30, {"train"}) == (len(rows), {row["messages"][1]["content"].split()[0] for row in rows})


def test_every_test_row_of_the_intents_is_asked(data: Path) -> None:
    assert 50 == len(banking77.questions(data, banking77.intents(data), list_intents=False))


def test_the_base_is_told_the_intents(data: Path) -> None:
    question = banking77.questions(data, banking77.intents(data), list_intents=True)[0]
    assert all(name in question.messages[0]["content"] for name in banking77.intents(data))


def test_data_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = banking77.main(["rows", "--data", str(tmp_path / "none"), "--out", str(tmp_path / "rows")])
    assert 2 == status
    assert "give the folder of BANKING77's train.csv and test.csv" in capsys.readouterr().err


async def test_only_an_exact_answer_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"a": "yes", "b": " yes\n", "c": "yes!"}

    def reply(request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.content)["messages"][0]["content"]
        return httpx.Response(200, json={"choices": [{"message": {"content": answers[asked]}}]})

    real = httpx.AsyncClient
    monkeypatch.setattr(
        "training.ask.httpx.AsyncClient",
        lambda **options: real(transport=httpx.MockTransport(reply), headers=options["headers"]),
    )
    questions = [Question(({"role": "user", "content": name},), "yes") for name in answers]
    score = await ask(questions, url="http://engine/v1", key="k", model="m")
    assert (2, 3, "yes!") == (score.right, score.asked, score.misses[0].answer)
