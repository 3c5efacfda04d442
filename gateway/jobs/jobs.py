"""The jobs as their owners see and change them. What a worker does to them is in `progress`.

The row is the truth. A worker that runs a job watches it, and a change here is an order to it: a row that is
no longer `running` under the worker's own queue entry is stopped within a second or two.

    validating_files → queued → running → succeeded | failed
    any of the first three → cancelled; queued, running → paused → queued
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from adapters.version import Version
from gateway.errors import BadRequest, NotFound, Unavailable
from gateway.files.files import Files, new_id
from gateway.jobs import shown
from gateway.jobs.queue import CHECK_TASK, LIGHT, TRAIN, TRAIN_TASK, enqueue, enqueue_webhook
from gateway.jobs.request import TRAFFIC, NewJob
from gateway.jobs.source import parse
from gateway.jobs.tables import checkpoints, events, jobs, workers

ENDED = ("succeeded", "failed", "cancelled")
MAX_PAGE = 100
PROPOSED = "hotswap.retraining.proposed"
"""Type of the webhook; its `data.id` is the job's."""

Page: TypeAlias = tuple[Sequence[dict[str, Any]], bool]
"""What is on it, and whether there are more."""

_J = jobs.c
_ID = re.compile(r"ftjob-[A-Za-z0-9]{1,64}")
_EVENT = re.compile(r"ftevent-([0-9]{1,18})")
_CHECKPOINT = re.compile(r"ftckpt_[A-Za-z0-9]{1,64}")


@dataclass(frozen=True, slots=True)
class Terms:
    """What this deployment trains. `resolve` gives the version that a name means, None for the base."""

    base: str
    methods: Sequence[str]
    resolve: Callable[[str], Version | None]
    has_worker: bool
    webhook: bool


@dataclass(frozen=True, slots=True)
class Start:
    """By which plan (`gateway.retraining`) a job is started, why, and which licences it accepts."""

    plan: str
    why: str
    accept: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """What a plan wants to know of its job; `why` it failed."""

    id: str
    status: str
    created_at: datetime
    version: str | None
    why: str


class Jobs:
    """Every job; a tenant sees its own."""

    def __init__(self, engine: AsyncEngine, files: Files, terms: Terms) -> None:
        self._engine = engine
        self._files = files
        self._terms = terms

    async def create(
        self, tenant: str, key: str, asked: NewJob, start: Start | None = None
    ) -> dict[str, Any]:
        """Records a job and has it checked. `start`: nobody asked for it by hand.

        Raises `BadRequest`, `Unavailable` (code `no_worker`).
        """
        method = asked.chosen()
        if method["type"] not in self._terms.methods:
            raise BadRequest(
                f"The method {method['type']!r} is not available here; there is "
                f"{', '.join(self._terms.methods)}.",
                code="unsupported_method",
                param="method.type",
            )
        continues = self._model(asked.model)
        await self._file(tenant, asked.training_file, "training_file")
        if asked.validation_file is not None:
            await self._file(tenant, asked.validation_file, "validation_file")
        job_id = new_id("ftjob-")
        org, suffix = tenant.replace(":", "-"), asked.suffix or ""
        row: dict[str, Any] = {
            "id": job_id,
            "tenant": tenant,
            "key": key,
            "status": "validating_files",
            "model": asked.model,
            "continues": None if continues is None else continues.name,
            "adapter": _adapter(asked.suffix, job_id),
            "name": f"ft:{_piece(self._terms.base)}:{org}:{suffix}:{new_id('', 8)}",
            "training_file": asked.training_file,
            "validation_file": asked.validation_file,
            "suffix": asked.suffix,
            "seed": secrets.randbelow(2**31) if asked.seed is None else asked.seed,
            "method": method,
            "metadata": asked.metadata,
            "result_files": [],
            "plan": None if start is None else start.plan,
            "accept": None if start is None else list(start.accept),
        }
        why = "" if start is None else f", for {start.why}"
        async with self._engine.begin() as connection:
            await self._check_workers(connection)
            await connection.execute(sa.insert(jobs).values(row))
            await _tell(connection, job_id, f"Created fine-tuning job: {job_id}{why}")
            await _tell(connection, job_id, f"Validating training file: {asked.training_file}")
            entry = await enqueue(connection, LIGHT, CHECK_TASK, {"job": job_id}, lock=job_id)
            return await _changed(connection, job_id, queue_id=entry)

    async def retrieve(self, tenant: str, id: str) -> dict[str, Any]:
        """Raises `NotFound`, code `fine_tune_not_found`."""
        async with self._engine.connect() as connection:
            return shown.job(await _mine(connection, tenant, id))

    async def of_plan(self, plan: str) -> PlannedJob | None:
        """The last job that a plan has started."""
        query = sa.select(jobs).where(_J.plan == plan).order_by(_J.number.desc()).limit(1)
        async with self._engine.connect() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            return None
        why = (row.error or {}).get("message", "")
        return PlannedJob(row.id, row.status, row.created_at, row.version, why)

    async def propose(self, id: str) -> None:
        """Has a webhook told that the version of a plan's job is proposed, where one is told of anything."""
        if self._terms.webhook:
            async with self._engine.begin() as connection:
                await enqueue_webhook(connection, new_id("evt_"), PROPOSED, id, int(time.time()))

    async def list(
        self, tenant: str, after: str | None, limit: int, metadata: Mapping[str, str] | None, without: bool
    ) -> Page:
        """A page, newest first, and whether there are more; those that have all of `metadata`, or, `without`,
        have none. Raises `BadRequest` for an `after` that is no job."""
        query = sa.select(jobs).where(_J.tenant == tenant)
        if metadata:
            query = query.where(_J.metadata.contains(dict(metadata)))
        if without:
            query = query.where(_J.metadata.is_(None))
        async with self._engine.connect() as connection:
            if after is not None:
                try:
                    number = (await _mine(connection, tenant, after)).number
                except NotFound:
                    raise _no_place(after) from None
                query = query.where(_J.number < number)
            rows = (await connection.execute(query.order_by(_J.number.desc()).limit(limit + 1))).all()
        return [shown.job(row) for row in rows[:limit]], len(rows) > limit

    async def cancel(self, tenant: str, id: str) -> dict[str, Any]:
        """Ends a job for good; a worker that runs it stops. Raises `NotFound`, `BadRequest`."""
        async with self._engine.begin() as connection:
            await self._in(connection, tenant, id, "cancel", set(_all_but(ENDED)))
            await _tell(connection, id, "Fine-tuning job cancelled")
            job = await _changed(connection, id, status="cancelled", finished_at=sa.func.now(), queue_id=None)
            if self._terms.webhook:
                kind, at = "fine_tuning.job.cancelled", job["finished_at"]
                await enqueue_webhook(connection, new_id("evt_"), kind, id, at)
            return job

    async def pause(self, tenant: str, id: str) -> dict[str, Any]:
        """A worker that runs it saves a checkpoint and lets go. Raises `NotFound`, `BadRequest`."""
        async with self._engine.begin() as connection:
            await self._in(connection, tenant, id, "pause", {"queued", "running"})
            await _tell(connection, id, "Fine-tuning job paused")
            return await _changed(connection, id, status="paused", queue_id=None)

    async def resume(self, tenant: str, id: str) -> dict[str, Any]:
        """Back to the queue; it goes on from its last checkpoint. Raises `NotFound`, `BadRequest`."""
        async with self._engine.begin() as connection:
            await self._in(connection, tenant, id, "resume", {"paused"})
            await _tell(connection, id, "Fine-tuning job resumed")
            entry = await enqueue(connection, TRAIN, TRAIN_TASK, {"job": id}, lock=id)
            return await _changed(connection, id, status="queued", queue_id=entry)

    async def events(self, tenant: str, id: str, after: str | None, limit: int) -> Page:
        """A page, newest first, and whether there are more."""
        async with self._engine.connect() as connection:
            await _mine(connection, tenant, id)
            query = sa.select(events).where(events.c.job == id)
            if after is not None:
                if not (found := _EVENT.fullmatch(after)):
                    raise _no_place(after)
                query = query.where(events.c.id < int(found[1]))
            rows = (await connection.execute(query.order_by(events.c.id.desc()).limit(limit + 1))).all()
        return [shown.event(row) for row in rows[:limit]], len(rows) > limit

    async def events_since(
        self, tenant: str, id: str, after: int
    ) -> tuple[Sequence[dict[str, Any]], int, bool]:
        """Events after number `after`, oldest first, the number to go on from, and whether that is all."""
        async with self._engine.connect() as connection:
            # The status first: what ends a job writes its last event in the same transaction.
            ended = (await _mine(connection, tenant, id)).status in ENDED
            query = sa.select(events).where(events.c.job == id, events.c.id > after).order_by(events.c.id)
            rows = (await connection.execute(query.limit(1000))).all()
        newest = rows[-1].id if rows else after
        return [shown.event(row) for row in rows], newest, ended and len(rows) < 1000

    async def checkpoints(self, tenant: str, id: str, after: str | None, limit: int) -> Page:
        """A page, newest first, and whether there are more."""
        table = checkpoints.c
        async with self._engine.connect() as connection:
            await _mine(connection, tenant, id)
            query = sa.select(checkpoints).where(table.job == id)
            if after is not None:
                known = query.with_only_columns(table.step).where(table.id == after)
                step = await connection.scalar(known) if _CHECKPOINT.fullmatch(after) else None
                if step is None:
                    raise _no_place(after)
                query = query.where(table.step < step)
            rows = (await connection.execute(query.order_by(table.step.desc()).limit(limit + 1))).all()
        return [shown.checkpoint(row) for row in rows[:limit]], len(rows) > limit

    def _model(self, model: str) -> Version | None:
        try:
            return self._terms.resolve(model)
        except NotFound:
            raise BadRequest(
                f"Model {model[:100]} is not available for fine-tuning or does not exist. Name the base, "
                f"{self._terms.base}, or an adapter of it to go on from; GET /v1/models lists them.",
                code="model_not_available",
                param="model",
            ) from None

    async def _file(self, tenant: str, id: str, param: str) -> None:
        if id.startswith(TRAFFIC) and param == "training_file":
            parse(id)
            return
        try:
            file = await self._files.get(id, tenant)
        except NotFound:
            raise BadRequest(f"invalid {param}: {id[:100]!a}", code="invalid_file", param=param) from None
        if file.purpose != "fine-tune":
            raise BadRequest(
                f"{param} {file.id} has the purpose {file.purpose!r}; upload it with purpose 'fine-tune'.",
                code="invalid_file_purpose",
                param=param,
            )

    async def _check_workers(self, connection: AsyncConnection) -> None:
        if self._terms.has_worker:
            return
        if await connection.scalar(sa.select(workers.c.name).limit(1)) is None:
            raise Unavailable(
                "No worker has ever been here, so nothing would train this. Start one: pip install "
                "'hotswap[training]', then `hotswap worker`.",
                retry_after_s=30,
                code="no_worker",
            )

    async def _in(
        self, connection: AsyncConnection, tenant: str, id: str, verb: str, statuses: set[str]
    ) -> None:
        """Locks the job's row and sees that it may be changed so."""
        status = (await _mine(connection, tenant, id, lock=True)).status
        if status not in statuses:
            raise BadRequest(
                f"Job {id} is {status} and cannot {verb}; only {', '.join(sorted(statuses))} jobs can.",
                code="invalid_job_state",
                param="fine_tune_id",
            )


def _all_but(ended: Sequence[str]) -> Sequence[str]:
    return [
        status
        for status in ("validating_files", "queued", "running", "paused", *ENDED)
        if status not in ended
    ]


async def _mine(connection: AsyncConnection, tenant: str, id: str, lock: bool = False) -> sa.Row[Any]:
    query = sa.select(jobs).where(_J.id == id, _J.tenant == tenant)
    row = None
    if _ID.fullmatch(id):
        row = (await connection.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise NotFound(
            f"Could not find fine tune: {id[:100]!a}", code="fine_tune_not_found", param="fine_tune_id"
        )
    return row


async def _changed(connection: AsyncConnection, id: str, **values: Any) -> dict[str, Any]:
    changed = sa.update(jobs).where(_J.id == id).values(values).returning(jobs)
    return shown.job((await connection.execute(changed)).one())


async def _tell(connection: AsyncConnection, job: str, message: str) -> None:
    await connection.execute(sa.insert(events).values(job=job, level="info", type="message", message=message))


def _no_place(after: str) -> BadRequest:
    return BadRequest(
        f"`after` is {after[:100]!a}, which is nothing in this list.", code="invalid_value", param="after"
    )


def _adapter(suffix: str | None, job_id: str) -> str:
    """The adapter that the result is a version of: the suffix's, or one of its own."""
    if suffix is None:
        return job_id.lower()
    return suffix.lower()[:63].strip("._-")


def _piece(name: str) -> str:
    """A base's name as a piece of `ft:…`."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", name)
