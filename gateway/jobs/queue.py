"""How work gets into the queue: procrastinate's own SQL function, in the transaction that records the work.

A row and its entry are there both or neither. The gateway does not import procrastinate for this (0.2 s, in
which every stream would stand still); the functions' names carry their version, and a test holds the schema
to the one that this was written for. Workers run procrastinate itself (`worker`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

TRAIN, LIGHT = "train", "light"
"""Queues: training takes a device for hours; the rest takes seconds and does not wait behind it."""
TRAIN_TASK, CHECK_TASK, WEBHOOK_TASK = "hotswap.train", "hotswap.check", "hotswap.webhook"

_DEFER = sa.text(
    """
    SELECT (procrastinate_defer_jobs_v1(ARRAY[
        ROW(:queue, :task, 0, :lock, NULL, CAST(:args AS jsonb), NULL)
    ]::procrastinate_job_to_defer_v1[]))[1]
    """
)


async def enqueue(
    connection: AsyncConnection, queue: str, task: str, args: Mapping[str, Any], lock: str | None = None
) -> int:
    """The number of the new entry. Of entries with the same `lock`, one runs at a time."""
    values = {"queue": queue, "task": task, "lock": lock, "args": json.dumps(args)}
    return int((await connection.execute(_DEFER, values)).scalar_one())


async def enqueue_webhook(connection: AsyncConnection, event: str, kind: str, job: str, at: int) -> None:
    """Has a webhook told that job `job` ended; `event` is the event's id, `kind` its type."""
    await enqueue(connection, LIGHT, WEBHOOK_TASK, {"event": event, "type": kind, "job": job, "at": at})
