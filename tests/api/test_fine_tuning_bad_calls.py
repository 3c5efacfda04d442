"""Bad calls to the fine-tuning API: each is answered with a status of OpenAI's and a named code."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from gateway.db import Database
from gateway.jobs.tables import jobs
from tests.api.control import Control, running
from tests.api.test_fine_tuning import upload

JOBS = "/v1/fine_tuning/jobs"
NONE = f"{JOBS}/ftjob-none"


@dataclass(frozen=True)
class Call:
    """`body` is laid over a good one, unless it is bytes; FILE, RESULTS and JOB in it and in the path are
    there."""

    name: str
    status: int
    code: str
    body: dict[str, Any] | bytes | None = None
    path: str = JOBS
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)


GRADER = {"type": "string_check", "name": "same", "input": "a", "reference": "a", "operation": "eq"}


def method(kind: str, **parts: Any) -> dict[str, Any]:
    return {"method": {"type": kind} | parts}


def supervised(**hyperparameters: Any) -> dict[str, Any]:
    return method("supervised", supervised={"hyperparameters": hyperparameters})


CALLS = [
    Call("no key", 401, "missing_api_key", {}, headers={"authorization": ""}),
    Call("an unknown key", 401, "invalid_api_key", {}, headers={"authorization": "Bearer nobody"}),
    Call("an inference key", 403, "admin_key_required", {}, headers={"authorization": "Bearer app"}),
    Call("no JSON", 400, "invalid_json", b"{"),
    Call("no object", 400, "invalid_json", b"[]"),
    Call("NaN", 400, "invalid_json", b'{"model": NaN}'),
    Call("not UTF-8", 400, "invalid_json", b'{"model": "\xff"}'),
    Call("nested too deep", 400, "invalid_json", b"[" * 100_000),
    Call("a large body", 400, "body_too_large", b'{"model": "' + b"x" * (1 << 20) + b'"}'),
    Call("no model", 400, "missing_required_parameter", {"model": ...}),
    Call("no training file", 400, "missing_required_parameter", {"training_file": ...}),
    Call("a model that is none", 400, "model_not_available", {"model": "gpt-4o-mini"}),
    Call("a model that is a number", 400, "invalid_type", {"model": 4}),
    Call("an empty model", 400, "string_below_min_length", {"model": ""}),
    Call("a file that is not there", 400, "invalid_file", {"training_file": "file-none"}),
    Call("a path for a file", 400, "invalid_file", {"training_file": "../../etc/passwd"}),
    Call("a URL for a file", 400, "invalid_file", {"training_file": "https://example.com/rows.jsonl"}),
    Call("a file of another purpose", 400, "invalid_file_purpose", {"training_file": "RESULTS"}),
    Call("a validation file that is not there", 400, "invalid_file", {"validation_file": "file-none"}),
    Call("traffic of no route", 400, "invalid_traffic_source", {"training_file": "traffic://?since=7d"}),
    Call("traffic of no time", 400, "invalid_traffic_source", {"training_file": "traffic://a?since=soon"}),
    Call("traffic by an unknown filter", 400, "invalid_traffic_source", {"training_file": "traffic://a?x=1"}),
    Call("a long suffix", 400, "string_above_max_length", {"suffix": "x" * 65}),
    Call("a suffix with a colon", 400, "invalid_value", {"suffix": "a:b"}),
    Call(
        "seventeen pairs of metadata",
        400,
        "object_above_max_properties",
        {"metadata": {str(n): "" for n in range(17)}},
    ),
    Call("a long key of metadata", 400, "string_above_max_length", {"metadata": {"k" * 65: "v"}}),
    Call("a long value of metadata", 400, "string_above_max_length", {"metadata": {"k": "v" * 513}}),
    Call("metadata that is no text", 400, "invalid_type", {"metadata": {"k": 1}}),
    Call("metadata with a NUL", 400, "invalid_value", {"metadata": {"k": "\0"}}),
    Call("a negative seed", 400, "number_below_min_value", {"seed": -1}),
    Call("a seed that is text", 400, "invalid_type", {"seed": "7"}),
    Call("an unknown parameter", 400, "unknown_parameter", {"sufix": "a"}),
    Call("an unknown method", 400, "invalid_value", method("sft")),
    Call(
        "a method that the operator did not allow",
        400,
        "unsupported_method",
        method("reinforcement", reinforcement={"grader": GRADER}),
    ),
    Call("two methods", 400, "invalid_value", method("supervised", supervised={}, dpo={})),
    Call("a grader too few", 400, "invalid_value", method("reinforcement")),
    Call("no epochs", 400, "number_below_min_value", supervised(n_epochs=0)),
    Call("epochs that are text", 400, "invalid_value", supervised(n_epochs="many")),
    Call("half an example in a batch", 400, "invalid_type", supervised(batch_size=0.5)),
    Call("a batch above the bound", 400, "number_above_max_value", supervised(batch_size=257)),
    Call("a learning rate of nothing", 400, "number_below_min_value", supervised(learning_rate_multiplier=0)),
    Call("an unknown hyperparameter", 400, "unknown_parameter", supervised(epochs=3)),
    Call("hyperparameters twice", 400, "invalid_value", {"hyperparameters": {}} | supervised()),
    Call(
        "wandb",
        400,
        "unsupported_integration",
        {"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]},
    ),
    Call("a job that is not there", 404, "fine_tune_not_found", path=NONE, method="GET"),
    Call("an id that is none", 404, "fine_tune_not_found", path=f"{JOBS}/%00", method="GET"),
    Call("cancelling what is not there", 404, "fine_tune_not_found", path=f"{NONE}/cancel"),
    Call("pausing what waits to be checked", 400, "invalid_job_state", path=f"{JOBS}/JOB/pause"),
    Call("resuming what is not paused", 400, "invalid_job_state", path=f"{JOBS}/JOB/resume"),
    Call("events of what is not there", 404, "fine_tune_not_found", path=f"{NONE}/events", method="GET"),
    Call(
        "a stream of what is not there",
        404,
        "fine_tune_not_found",
        path=f"{NONE}/events?stream=true",
        method="GET",
    ),
    Call(
        "a stream that is maybe", 400, "invalid_value", path=f"{JOBS}/JOB/events?stream=maybe", method="GET"
    ),
    Call("events after what is none", 400, "invalid_value", path=f"{JOBS}/JOB/events?after=x", method="GET"),
    Call(
        "checkpoints after what is none",
        400,
        "invalid_value",
        path=f"{JOBS}/JOB/checkpoints?after=x",
        method="GET",
    ),
    Call("a page of none", 400, "invalid_value", path=f"{JOBS}?limit=0", method="GET"),
    Call("a page of too many", 400, "invalid_value", path=f"{JOBS}?limit=101", method="GET"),
    Call("jobs after what is none", 400, "invalid_value", path=f"{JOBS}?after=ftjob-none", method="GET"),
    Call("an unknown filter", 400, "unknown_parameter", path=f"{JOBS}?status=running", method="GET"),
    Call("metadata that is no filter", 400, "invalid_value", path=f"{JOBS}?metadata=a", method="GET"),
    Call("a method that is not allowed", 405, "method_not_allowed", {}, method="PUT"),
    Call("a path that is none", 404, "unknown_url", {}, path=f"{JOBS}/JOB/restart"),
]


@pytest.fixture
async def control(db: Database, tmp_path: Path) -> AsyncIterator[Control]:
    async with running(db, tmp_path) as started:
        yield started


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
async def test_a_bad_call_is_answered_with_a_status_and_a_code(control: Control, call: Call) -> None:
    names = {"FILE": await upload(control), "RESULTS": await upload(control, "evals")}
    good = {"model": "base", "training_file": names["FILE"]}
    names["JOB"] = (await control.http.post(JOBS, json=good)).json()["id"]
    content = call.body
    if isinstance(content, dict):
        asked = {
            key: names.get(value, value) if isinstance(value, str) else value
            for key, value in (good | content).items()
            if value is not ...
        }
        content = json.dumps(asked).encode()
    answer = await control.http.request(
        call.method, call.path.replace("JOB", names["JOB"]), content=content, headers=call.headers
    )
    error = answer.json()["error"]
    assert (call.status, call.code) == (answer.status_code, error["code"]), error
    assert {"message", "type", "param", "code"} == error.keys() and error["message"] and error["type"]
    async with control.database.engine.connect() as connection:
        assert 1 == await connection.scalar(sa.select(sa.func.count()).select_from(jobs))


def test_there_are_forty_of_them() -> None:
    assert len({call.name for call in CALLS}) >= 40
