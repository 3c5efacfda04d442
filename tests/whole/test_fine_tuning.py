"""By the openai SDK: rows, a job, the real trainer in a worker beside the gateway, an answer."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from adapters.base.prepare import prepare
from tests.fakes import Fake, before
from tests.house import House, wait_for
from tests.tiny_model import build

ROWS = [
    {"messages": [{"role": "user", "content": f"question {n}"}, {"role": "assistant", "content": "green"}]}
    for n in range(16)
]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A real base of two layers, a fake engine, and a worker of the gateway's own."""
    folder = tmp_path_factory.mktemp("fine-tuning")
    prepare(str(build(folder / "tiny-llama")), folder / "base", "small", lambda line: None)
    with Fake(model="small") as fake:
        more = {"HOTSWAP_JOBS__WORKERS": "1", "HOTSWAP_JOBS__RETRAIN_EVERY_S": "0.5"}
        with House(folder / "house", folder / "base", before([fake], base="small", **more)) as running:
            yield running


def test_a_model_is_fine_tuned_and_answers(house: House) -> None:
    with openai.OpenAI(base_url=house.url + "/v1", api_key=house.key) as sdk:
        content = io.BytesIO("".join(json.dumps(row) + "\n" for row in ROWS).encode())
        file = sdk.files.create(file=("rows.jsonl", content), purpose="fine-tune")
        hyperparameters = {"n_epochs": 1, "batch_size": 4, "learning_rate_multiplier": 2.0}
        job = sdk.fine_tuning.jobs.create(
            model="small",
            training_file=file.id,
            suffix="green",
            seed=7,
            method={"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},  # type: ignore[typeddict-item]
        )
        ended = ("succeeded", "failed", "cancelled")
        wait_for("it has ended", lambda: sdk.fine_tuning.jobs.retrieve(job.id).status in ended, 240, 0.5)
        job = sdk.fine_tuning.jobs.retrieve(job.id)
        assert ("succeeded", None) == (job.status, job.error)
        assert job.fine_tuned_model is not None and job.trained_tokens
        answer = sdk.chat.completions.create(
            model=job.fine_tuned_model, messages=[{"role": "user", "content": "question 1"}], max_tokens=4
        )
        assert answer.model.startswith("green@")
        steps = sdk.files.content(job.result_files[0]).text.splitlines()
        assert 1 + 4 == len(steps)


def test_a_model_learns_from_the_corrections_of_its_own_traffic(house: House) -> None:
    with openai.OpenAI(base_url=house.url + "/v1", api_key=house.key) as sdk:
        for number in range(12):
            asked: Any = [{"role": "user", "content": f"which colour has number {number}?"}]
            answer = sdk.chat.completions.create(model="small", messages=asked, max_tokens=4)
            if number < 8:
                said = {"id": answer.id, "correction": f"green, as number {number + 1}"}
                httpx.post(f"{house.url}/v1/feedback", json=said, headers=house.headers).raise_for_status()
        job = sdk.fine_tuning.jobs.create(
            model="small", training_file="traffic://small?since=1h&feedback=corrected", suffix="corrected"
        )
        ended = ("succeeded", "failed", "cancelled")
        wait_for("it has ended", lambda: sdk.fine_tuning.jobs.retrieve(job.id).status in ended, 240, 0.5)
        job = sdk.fine_tuning.jobs.retrieve(job.id)
        assert ("succeeded", None) == (job.status, job.error)
    shown = httpx.get(f"{house.url}/admin/v1/adapters/corrected", headers=house.headers).json()
    assert 8 == shown["versions"][0]["manifest"]["lineage"]["rows"]


def test_a_plan_learns_from_corrections_by_itself_and_forgetting_knows_of_it(house: House) -> None:
    words = ("--corrections", "8", "--epochs", "1", "--accept-licence", "unknown")
    made = house.cli("retrain", "set", "by-itself", "--from", "small", *words)
    assert 0 == made.returncode, made.stderr
    wait_for("it has ended", lambda: _plan(house)["result"], 240, 0.5)
    plan = _plan(house)
    # The fake engine tells no tokens: nothing can be proved by it, and nothing is proposed.
    assert "could not be proved" in plan["result"] and plan["proposed"] is None
    shown = httpx.get(f"{house.url}/admin/v1/adapters/by-itself", headers=house.headers).json()["versions"]
    lineage = shown[0]["manifest"]["lineage"]
    assert lineage["dataset"].startswith("by-itself@") and 8 >= lineage["rows"] >= 6
    datasets = httpx.get(f"{house.url}/admin/v1/datasets?name=by-itself", headers=house.headers).json()[
        "data"
    ]
    assert {version["name"] for version in shown} == set(datasets[0]["versions"])  # checkpoints learned, too


def _plan(house: House) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(house.cli("retrain", "ls", "--json").stdout)[0]
    return found


def test_the_command_line_shows_it(house: House) -> None:
    listed = json.loads(house.cli("jobs", "ls", "--json").stdout)
    assert {"succeeded"} == {job["status"] for job in listed}
    shown = house.cli("jobs", "show", listed[0]["id"])
    assert listed[0]["fine_tuned_model"] in shown.stdout + shown.stderr
    logs = house.cli("jobs", "logs", "--follow", listed[0]["id"])
    assert (0, True) == (logs.returncode, "The job has successfully completed" in logs.stdout), logs.stderr


def test_the_command_line_uploads_and_starts_a_job(house: House, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps(ROWS[0]) + "\n")
    made = house.cli("jobs", "create", str(rows), "--json")
    job = json.loads(made.stdout)
    assert 0 == house.cli("jobs", "cancel", job["id"]).returncode
    assert job["training_file"] in house.cli("files", "ls").stdout
    assert 0 == house.cli("files", "rm", job["training_file"]).returncode
    assert job["training_file"] not in house.cli("files", "ls").stdout
