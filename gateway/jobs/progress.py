"""What a worker writes about the jobs that it does.

Every write asks whether the job is still this worker's: its row names the queue entry under which it was
taken. A job that was cancelled or paused meanwhile, or went to another worker, is left as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gateway.files.files import new_id
from gateway.jobs.queue import TRAIN, TRAIN_TASK, enqueue, enqueue_webhook
from gateway.jobs.tables import checkpoints, events, jobs

MOST_STEPS = 2000
"""Steps of a job that become events; of a longer one, every second, third…"""

_J = jobs.c


class NotOurs(Exception):
    """The job is not this worker's any more: it was cancelled or paused, or another one has it."""


@dataclass(frozen=True, slots=True)
class Step:
    """After `step` of `total`. Losses are in nats a token, `accuracy` is a share of tokens."""

    step: int
    total: int
    loss: float
    eta_s: float
    accuracy: float | None = None
    valid_loss: float | None = None
    valid_accuracy: float | None = None

    @property
    def metrics(self) -> dict[str, float | int | None]:
        """As OpenAI calls them."""
        return {
            "step": self.step,
            "train_loss": self.loss,
            "train_mean_token_accuracy": self.accuracy,
            "valid_loss": self.valid_loss,
            "valid_mean_token_accuracy": self.valid_accuracy,
        }

    @property
    def told(self) -> bool:
        """Whether it becomes an event."""
        return self.step == self.total or self.step % (self.total // MOST_STEPS + 1) == 0


class Progress:
    """The jobs as workers see them. `webhook`: the end of a job is told by one."""

    def __init__(self, engine: AsyncEngine, *, webhook: bool) -> None:
        self._engine = engine
        self._webhook = webhook

    async def take(self, job: str, entry: int, statuses: Collection[str]) -> sa.Row[Any] | None:
        """The job, when it waits in one of `statuses` under this entry of the queue."""
        query = sa.select(jobs).where(_J.id == job, _J.queue_id == entry, _J.status.in_(statuses))
        async with self._engine.connect() as connection:
            return (await connection.execute(query)).one_or_none()

    async def holds(self, job: str, entry: int) -> bool:
        """Whether it is still to go on under this entry."""
        return await self.take(job, entry, ("validating_files", "queued", "running")) is not None

    async def cancelled(self, job: str) -> bool:
        """Whether it has ended so; what is left of it is of no use."""
        async with self._engine.connect() as connection:
            status = await connection.scalar(sa.select(_J.status).where(_J.id == job))
        return bool(status == "cancelled")

    async def checked(self, job: str, entry: int) -> None:
        """Its files are good: it waits for a device. Raises `NotOurs`."""
        async with self._engine.begin() as connection:
            await _ours(connection, job, entry)
            await _tell(connection, job, "Files validated, moving job to queued state")
            next_entry = await enqueue(connection, TRAIN, TRAIN_TASK, {"job": job}, lock=job)
            await _put(connection, job, status="queued", queue_id=next_entry)

    async def began(self, job: str, entry: int) -> None:
        """Raises `NotOurs`."""
        async with self._engine.begin() as connection:
            row = await _ours(connection, job, entry)
            if row.status != "running":
                await _tell(connection, job, "Fine-tuning job started")
                await _put(connection, job, status="running")

    async def built(self, job: str, entry: int, lineage: Mapping[str, Any], message: str) -> None:
        """Its rows are frozen as a dataset. Raises `NotOurs`."""
        async with self._engine.begin() as connection:
            await _ours(connection, job, entry)
            await _tell(connection, job, message, lineage)
            await _put(connection, job, lineage=dict(lineage))

    async def said(self, job: str, entry: int, message: str, level: str) -> None:
        """Raises `NotOurs`."""
        async with self._engine.begin() as connection:
            await _ours(connection, job, entry)
            await _tell(connection, job, message, level=level)

    async def resolved(self, job: str, entry: int, hyperparameters: Mapping[str, Any]) -> None:
        """What `auto` came to. Raises `NotOurs`."""
        async with self._engine.begin() as connection:
            method = dict((await _ours(connection, job, entry)).method)
            part = dict(method[method["type"]])
            part["hyperparameters"] = {**part["hyperparameters"], **hyperparameters}
            await _put(connection, job, method={**method, method["type"]: part})

    async def steps(self, job: str, entry: int, steps: Sequence[Step]) -> None:
        """Raises `NotOurs`."""
        rows = [
            {
                "job": job,
                "level": "info",
                "type": "metrics",
                "message": f"Step {step.step}/{step.total}: training loss={step.loss:.4f}",
                "data": {**step.metrics, "total_steps": step.total},
            }
            for step in steps
            if step.told
        ]
        finish = datetime.now(UTC) + timedelta(seconds=steps[-1].eta_s)
        async with self._engine.begin() as connection:
            await _ours(connection, job, entry)
            if rows:
                await connection.execute(sa.insert(events), rows)
            await _put(connection, job, estimated_finish=finish)

    async def checkpoint(self, job: str, entry: int, step: int, metrics: Mapping[str, Any]) -> None:
        """A state to go on from. Told once, however often it is reached. Raises `NotOurs`."""
        async with self._engine.begin() as connection:
            row = await _ours(connection, job, entry)
            if await _add_checkpoint(connection, job, step, f"{row.name}:ckpt-step-{step}", metrics):
                await _tell(connection, job, f"Checkpoint created at step {step}")

    async def succeeded(
        self, job: str, entry: int, *, version: str, tokens: int, results: str, last: Step | None
    ) -> None:
        """Raises `NotOurs`."""
        async with self._engine.begin() as connection:
            row = await _ours(connection, job, entry)
            if last is not None:
                await _add_checkpoint(connection, job, last.step, row.name, last.metrics)
            await _tell(connection, job, f"New fine-tuned model created: {row.name}", {"version": version})
            await _tell(connection, job, "The job has successfully completed")
            values = {"version": version, "trained_tokens": tokens, "result_files": [results]}
            await self._end(connection, job, "succeeded", **values)

    async def failed(self, job: str, entry: int | None, code: str, message: str, param: str | None) -> None:
        """Raises `NotOurs`."""
        async with self._engine.begin() as connection:
            await _ours(connection, job, entry)
            message = message.replace("\0", "?")
            await _tell(connection, job, message, level="error")
            error = {"code": code, "message": message, "param": param}
            await self._end(connection, job, "failed", error=error)

    async def put_back(self, job: str, entry: int) -> None:
        """Raises `NotOurs`."""
        async with self._engine.begin() as connection:
            row = await _ours(connection, job, entry)
            if row.status == "running":
                await _tell(connection, job, "The worker stops; the job goes back to the queue")
                await _put(connection, job, status="queued", estimated_finish=None)

    async def lost(self, job: str, entry: int, most: int, why: str = "The worker was lost") -> bool:
        """It was given up because of `why`: whether it is tried again; else it fails. Raises `NotOurs`."""
        async with self._engine.begin() as connection:
            row = await _ours(connection, job, entry)
            count = row.lost + 1
            status = "queued" if row.status == "running" else row.status
            await _put(connection, job, lost=count, status=status, estimated_finish=None)
            if count <= most:
                await _tell(connection, job, f"{why}; the job goes back to the queue", level="warn")
                return True
        why = f"{why}, for the {count}th time with this job; see the logs of workers (out of memory?)"
        await self.failed(job, entry, "worker_lost", why, None)
        return False

    async def stranded(self) -> Sequence[tuple[str, int | None]]:
        """Jobs that go on in no queue, though they have not ended: (id, entry)."""
        query = sa.text(
            """
            SELECT id, queue_id FROM fine_tuning_jobs AS job
            WHERE status IN ('validating_files', 'queued', 'running') AND NOT EXISTS (
                SELECT FROM procrastinate_jobs AS entry
                WHERE entry.id = job.queue_id AND entry.status IN ('todo', 'doing')
            )
            """
        )
        async with self._engine.connect() as connection:
            return [(row.id, row.queue_id) for row in await connection.execute(query)]

    async def _end(self, connection: AsyncConnection, job: str, status: str, **values: Any) -> None:
        at = datetime.now(UTC)
        await _put(connection, job, status=status, finished_at=at, queue_id=None, **values)
        if self._webhook:
            kind = f"fine_tuning.job.{status}"
            await enqueue_webhook(connection, new_id("evt_"), kind, job, int(at.timestamp()))


async def _ours(connection: AsyncConnection, job: str, entry: int | None) -> sa.Row[Any]:
    open_ = _J.status.in_(("validating_files", "queued", "running"))
    query = sa.select(jobs).where(_J.id == job, _J.queue_id.is_not_distinct_from(entry), open_)
    row = (await connection.execute(query.with_for_update())).one_or_none()
    if row is None:
        raise NotOurs(job)
    return row


async def _put(connection: AsyncConnection, job: str, **values: Any) -> None:
    await connection.execute(sa.update(jobs).where(_J.id == job).values(values))


async def _tell(
    connection: AsyncConnection,
    job: str,
    message: str,
    data: Mapping[str, Any] | None = None,
    *,
    level: str = "info",
) -> None:
    row = {"job": job, "level": level, "type": "message", "message": message, "data": data}
    await connection.execute(sa.insert(events).values(row))


async def _add_checkpoint(
    connection: AsyncConnection, job: str, step: int, name: str, metrics: Mapping[str, Any]
) -> bool:
    """Whether it is a new one; the last name of a step stays."""
    row = {"id": new_id("ftckpt_"), "job": job, "step": step, "name": name, "metrics": dict(metrics)}
    made = insert(checkpoints).values(row)
    made = made.on_conflict_do_update(
        index_elements=["job", "step"], set_={"name": name, "metrics": dict(metrics)}
    )
    # xmax is 0 of a row that was inserted, and not of one that was there.
    return bool(await connection.scalar(made.returning(sa.literal_column("xmax = 0"))))
