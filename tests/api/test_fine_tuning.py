"""Fine-tuning jobs by the openai SDK, without any worker: what is recorded, listed and changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import sqlalchemy as sa
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent

from gateway.db import Database
from gateway.jobs.tables import checkpoints, events, jobs
from tests.api.control import Control, running
from tests.api.test_files import ROW


@pytest.fixture
async def control(db: Database, tmp_path: Path) -> AsyncIterator[Control]:
    async with running(db, tmp_path) as started:
        yield started


async def upload(control: Control, purpose: Any = "fine-tune") -> str:
    return (await control.sdk.files.create(file=("rows.jsonl", ROW), purpose=purpose)).id


async def create(control: Control, **more: Any) -> FineTuningJob:
    asked = {"model": "base", "training_file": await upload(control)} | more
    return await control.sdk.fine_tuning.jobs.create(**asked)


async def put(control: Control, id: str, **values: Any) -> None:
    """What a worker would write."""
    async with control.database.engine.begin() as connection:
        await connection.execute(sa.update(jobs).where(jobs.c.id == id).values(values))


async def queued(control: Control) -> list[tuple[str, str, Any, str]]:
    async with control.database.engine.connect() as connection:
        query = "SELECT queue_name, task_name, args, lock FROM procrastinate_jobs ORDER BY id"
        return [tuple(row) for row in await connection.exec_driver_sql(query)]


async def test_a_job_is_recorded_as_it_was_asked_for(control: Control) -> None:
    train, check = await upload(control), await upload(control)
    job = await control.sdk.fine_tuning.jobs.create(
        model="base",
        training_file=train,
        validation_file=check,
        suffix="Support-v2",
        seed=7,
        metadata={"team": "care"},
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
    )
    assert ("base", train, check, 7, {"team": "care"}, "acme", "validating_files") == (
        job.model,
        job.training_file,
        job.validation_file,
        job.seed,
        job.metadata,
        job.organization_id,
        job.status,
    )
    assert (2, "auto", "auto") == (
        job.hyperparameters.n_epochs,
        job.hyperparameters.batch_size,
        job.hyperparameters.learning_rate_multiplier,
    )
    assert (None, None, None, [], None) == (
        job.fine_tuned_model,
        job.finished_at,
        job.error,
        job.result_files,
        job.trained_tokens,
    )
    assert job == await control.sdk.fine_tuning.jobs.retrieve(job.id)


async def test_the_deprecated_hyperparameters_mean_the_same(control: Control) -> None:
    job = await create(control, hyperparameters={"n_epochs": 4, "learning_rate_multiplier": 0.5})
    assert job.method is not None and job.method.supervised is not None
    assert ("supervised", job.hyperparameters.model_dump()) == (
        job.method.type,
        (job.method.supervised.hyperparameters or job.hyperparameters).model_dump(),
    )
    assert (4, 0.5) == (job.hyperparameters.n_epochs, job.hyperparameters.learning_rate_multiplier)


async def test_a_job_and_its_place_in_the_queue_are_there_together(control: Control) -> None:
    job = await create(control)
    assert [("light", "hotswap.check", {"job": job.id}, job.id)] == await queued(control)


async def test_rows_may_come_out_of_the_traffic(control: Control) -> None:
    job = await create(control, training_file="traffic://support?since=7d&feedback=up")
    assert "traffic://support?since=7d&feedback=up" == job.training_file


async def test_jobs_are_listed_in_pages_newest_first(control: Control) -> None:
    made = [(await create(control, metadata={"n": str(n)})).id for n in range(5)]
    assert made[::-1] == [job.id async for job in control.sdk.fine_tuning.jobs.list(limit=2)]
    some = control.sdk.fine_tuning.jobs.list(metadata={"n": "3"})
    assert [made[3]] == [job.id async for job in some]


async def test_jobs_without_metadata_can_be_asked_for(control: Control) -> None:
    await create(control, metadata={"a": "b"})
    bare = await create(control)
    answer = await control.http.get("/v1/fine_tuning/jobs?metadata=null")
    assert [bare.id] == [job["id"] for job in answer.json()["data"]]


async def test_another_tenant_sees_nothing_of_a_job(control: Control) -> None:
    job = await create(control)
    async with control.sdk_of("other") as other:
        theirs = other.fine_tuning.jobs
        assert [] == [found.id async for found in theirs.list()]
        for call in (
            theirs.retrieve,
            theirs.cancel,
            theirs.pause,
            theirs.list_events,
            theirs.checkpoints.list,
        ):
            with pytest.raises(openai.NotFoundError):
                await call(job.id)
        with pytest.raises(openai.BadRequestError, match="invalid training_file"):
            await theirs.create(model="base", training_file=job.training_file)
    assert "validating_files" == (await control.sdk.fine_tuning.jobs.retrieve(job.id)).status


async def test_a_cancelled_job_has_ended(control: Control) -> None:
    job = await create(control)
    ended = await control.sdk.fine_tuning.jobs.cancel(job.id)
    assert ("cancelled", True) == (ended.status, ended.finished_at is not None)
    with pytest.raises(openai.BadRequestError, match="is cancelled and cannot cancel"):
        await control.sdk.fine_tuning.jobs.cancel(job.id)


async def test_a_paused_job_goes_back_to_the_queue(control: Control) -> None:
    job = await create(control)
    await put(control, job.id, status="running")
    assert "paused" == (await control.sdk.fine_tuning.jobs.pause(job.id)).status  # type: ignore[comparison-overlap]
    assert "queued" == (await control.sdk.fine_tuning.jobs.resume(job.id)).status
    assert ("train", "hotswap.train", {"job": job.id}, job.id) == (await queued(control))[-1]


async def test_events_are_listed_newest_first_and_in_pages(control: Control) -> None:
    job = await create(control)
    async with control.database.engine.begin() as connection:
        for step in range(1, 6):
            row = {"job": job.id, "level": "info", "type": "metrics", "message": f"Step {step}"}
            await connection.execute(sa.insert(events).values(**row, data={"step": step}))
    found = [event async for event in control.sdk.fine_tuning.jobs.list_events(job.id, limit=2)]
    assert [f"Step {step}" for step in range(5, 0, -1)] == [event.message for event in found[:5]]
    assert f"Created fine-tuning job: {job.id}" == found[-1].message
    assert ("metrics", {"step": 5}, "fine_tuning.job.event") == (
        found[0].type,
        found[0].data,
        found[0].object,
    )


async def test_a_stream_of_events_goes_on_until_the_job_has_ended(control: Control) -> None:
    job = await create(control)
    stream = await control.sdk.get(
        f"/fine_tuning/jobs/{job.id}/events",
        cast_to=FineTuningJobEvent,
        options={"params": {"stream": "true"}},
        stream=True,
        stream_cls=openai.AsyncStream[FineTuningJobEvent],
    )
    heard = []
    async with asyncio.timeout(20):
        async for event in stream:
            heard.append(event.message)
            if len(heard) == 2:  # all that there was when it began
                await control.sdk.fine_tuning.jobs.cancel(job.id)
    assert [
        f"Created fine-tuning job: {job.id}",
        f"Validating training file: {job.training_file}",
        "Fine-tuning job cancelled",
    ] == heard


async def test_a_stream_of_events_ends_as_openai_ends_it(control: Control) -> None:
    job = await create(control)
    await control.sdk.fine_tuning.jobs.cancel(job.id)
    answer = await control.http.get(f"/v1/fine_tuning/jobs/{job.id}/events?stream=true")
    assert ("text/event-stream", True) == (
        answer.headers["content-type"].partition(";")[0],
        answer.text.endswith("\n\ndata: [DONE]\n\n"),
    )


async def test_checkpoints_are_listed_newest_first_and_in_pages(control: Control) -> None:
    job = await create(control)
    async with control.database.engine.begin() as connection:
        for step in (10, 20, 30):
            row = {
                "id": f"ftckpt_{step}",
                "job": job.id,
                "step": step,
                "name": f"ft:b:o:s:i:ckpt-step-{step}",
            }
            await connection.execute(
                sa.insert(checkpoints).values(**row, metrics={"step": step, "train_loss": 0.5})
            )
    found = [each async for each in control.sdk.fine_tuning.jobs.checkpoints.list(job.id, limit=2)]
    assert [30, 20, 10] == [each.step_number for each in found]
    assert ("ft:b:o:s:i:ckpt-step-30", 0.5, job.id) == (
        found[0].fine_tuned_model_checkpoint,
        found[0].metrics.train_loss,
        found[0].fine_tuning_job_id,
    )


async def test_without_any_worker_ever_seen_a_job_is_refused(db: Database, tmp_path: Path) -> None:
    async with running(db, tmp_path, has_worker=False) as control:
        with pytest.raises(openai.InternalServerError, match="hotswap worker"):
            await create(control)
        async with db.engine.begin() as connection:
            await connection.exec_driver_sql("INSERT INTO job_workers (name, devices) VALUES ('w', 1)")
        assert "validating_files" == (await create(control)).status
