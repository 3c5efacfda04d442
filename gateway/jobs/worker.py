"""`hotswap worker`: takes jobs from the queue, one a device, and has a trainer's process do each.

The worker itself stays light: it imports no torch. What it promises:

- SIGTERM: trainers save a checkpoint, their jobs go back to the queue, and it ends.
- kill -9, or a machine that is gone: its trainers end with it, and when it has been silent for
  `jobs.lost_after_s` the other workers put its jobs back; they go on from their last checkpoint.
- A job that is cancelled or paused stops within seconds.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa
from procrastinate import App, JobContext, PsycopgConnector, RetryStrategy
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job
from procrastinate.retry import BaseRetryStrategy, RetryDecision
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError

from gateway.db import Database
from gateway.jobs.house import House, HouseError
from gateway.jobs.leftovers import clear
from gateway.jobs.progress import NotOurs, Progress
from gateway.jobs.queue import CHECK_TASK, LIGHT, TRAIN, TRAIN_TASK, WEBHOOK_TASK
from gateway.jobs.run import Bench, PutBack, Run
from gateway.jobs.tables import workers
from gateway.jobs.trainer import Command, local
from gateway.jobs.webhook import body_of, deliver
from gateway.settings import Settings, SettingsError

log = logging.getLogger("hotswap.jobs")

LIGHT_AT_ONCE = 2
AGAIN_IN_S = 10
"""A job whose worker met with a fault (the gateway was away for long) is tried again after so long."""
MOST_TIMES = 20
WEBHOOK_TRIES = 10
WEBHOOK_BASE_S = 3
"""Between tries of a webhook: 3, 9, 27 s and so on."""
_LOCK = 0x6A6F6273
"""Key of the advisory lock under which lost jobs are put back ("jobs")."""


class _Again(BaseRetryStrategy):
    """At once after a `PutBack`; after anything else in a while. How often is counted in the job's row."""

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        if isinstance(exception, PutBack):
            return RetryDecision()
        if job.attempts >= MOST_TIMES:  # a fault of ours, which `rescue` then tells of
            return None
        return RetryDecision(retry_in={"seconds": AGAIN_IN_S})


class Worker:
    """`run` until `stop`. `command` makes the trainer's command line from its spec; tests have another."""

    def __init__(
        self,
        settings: Settings,
        database_url: str,
        *,
        command: Command | None = None,
        poll_s: float = 5.0,
    ) -> None:
        jobs = settings.jobs
        self._settings = settings
        self._poll_s = poll_s
        self._database = Database(database_url)
        self._webhook = _webhook(settings)
        if jobs.launch == "ray":  # which gives its workers theirs
            self._devices: list[str | None] = [None] * (jobs.devices or 1)
        else:
            self._devices = devices(jobs.devices, jobs.processes)
        self._free: asyncio.Queue[str | None] = asyncio.Queue()
        for device in self._devices:
            self._free.put_nowait(device)
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._bench = Bench(
            settings,
            Progress(self._database.engine, webhook=self._webhook is not None),
            House(settings.state_dir),
            command or local(jobs.python),
        )
        self._running: list[asyncio.Task[None]] = []
        self._stopped = False
        url = self._database.url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._app = App(
            connector=PsycopgConnector(
                conninfo=url, min_size=1, max_size=4, kwargs={"application_name": "hotswap worker"}
            )
        )
        self._add_tasks()

    async def run(self) -> None:
        """Works until `stop`. Raises what the database raises when it is away for long."""
        await self._database.migrate()
        try:
            async with self._app.open_async():
                await self._seen()
                self._running = [
                    asyncio.create_task(self._serve(TRAIN, len(self._devices))),
                    asyncio.create_task(self._serve(LIGHT, LIGHT_AT_ONCE)),
                    asyncio.create_task(self._keep_rescuing()),
                ]
                if self._bench.stopping.is_set():
                    self.stop()
                log.info("worker %s takes jobs on %d devices", self.name, len(self._devices))
                done, rest = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
                self.stop()
                ended = await asyncio.gather(*done, *rest, return_exceptions=True)
                for error in ended:
                    if isinstance(error, Exception):
                        raise error
        finally:
            await self._database.close()

    def stop(self) -> None:
        """No more jobs; those that run save, and go back to the queue."""
        if self._stopped:
            return  # procrastinate takes a second cancellation for an order to drop what runs
        self._stopped = bool(self._running)
        for task in self._running:
            task.cancel()  # first: what goes back to the queue is not to be taken again here
        self._bench.house.stopping.set()
        self._bench.stopping.set()

    async def _serve(self, queue: str, at_once: int) -> None:
        await self._app.run_worker_async(
            queues=[queue],
            name=f"{self.name} {queue}",
            concurrency=at_once,
            fetch_job_polling_interval=self._poll_s,
            install_signal_handlers=False,
            update_heartbeat_interval=self._settings.jobs.heartbeat_s,
            stalled_worker_timeout=self._settings.jobs.lost_after_s,
            delete_jobs="successful",
        )

    def _add_tasks(self) -> None:
        @self._app.task(name=CHECK_TASK, queue=LIGHT, pass_context=True, retry=_Again())
        async def check(context: JobContext, job: str) -> None:
            await self._do(context, job, ("validating_files",), lambda run: run.check())

        @self._app.task(name=TRAIN_TASK, queue=TRAIN, pass_context=True, retry=_Again())
        async def train(context: JobContext, job: str) -> None:
            device = await self._free.get()
            try:
                await self._do(context, job, ("queued", "running"), lambda run: run.train(), device)
            finally:
                self._free.put_nowait(device)

        tries = RetryStrategy(max_attempts=WEBHOOK_TRIES, exponential_wait=WEBHOOK_BASE_S)

        @self._app.task(name=WEBHOOK_TASK, queue=LIGHT, retry=tries)
        async def webhook(event: str, type: str, job: str, at: int) -> None:
            if self._webhook is not None:
                await deliver(*self._webhook, event, body_of(event, type, job, at))

    async def _do(
        self,
        context: JobContext,
        job: str,
        statuses: Sequence[str],
        work: Callable[[Run], Awaitable[None]],
        device: str | None = None,
    ) -> None:
        entry = context.job.id
        assert entry is not None
        row = await self._bench.progress.take(job, entry, statuses)
        if row is None:  # cancelled, paused or put into the queue anew meanwhile
            await self._clear_cancelled(job)
            return
        if self._bench.stopping.is_set():
            raise PutBack
        run = Run(self._bench, row, entry, device)
        try:
            await work(run)
        except NotOurs:
            log.info("job %s was taken away: cancelled, paused or somebody else's", job)
            await self._clear_cancelled(job)
        except (HouseError, OSError, SQLAlchemyError, httpx.HTTPError) as error:
            log.exception("job %s met with a fault", job)
            why = f"The worker met with a fault ({error})"
            if await self._bench.progress.lost(job, entry, self._settings.jobs.attempts, why):
                raise

    async def _clear_cancelled(self, job: str) -> None:
        """What a cancelled job has here; of one that was still waiting, the rows that were to be checked."""
        if await self._bench.progress.cancelled(job):
            await asyncio.to_thread(clear, self._settings, job)

    async def _keep_rescuing(self) -> None:
        """Says that this one lives, and puts back the jobs of those that do not."""
        while True:
            try:
                await self._seen()
                await self.rescue()
            except (SQLAlchemyError, ConnectorException) as error:
                log.warning("looking for lost jobs failed, it is tried again: %s", error)
            await asyncio.sleep(self._settings.jobs.heartbeat_s)

    async def rescue(self) -> None:
        """Once. Of several workers, one does it at a time."""
        manager, jobs = self._app.job_manager, self._settings.jobs
        async with self._database.engine.begin() as connection:
            if not await connection.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(_LOCK))):
                return
            stalled = await manager.get_stalled_jobs(seconds_since_heartbeat=jobs.lost_after_s)
            for entry in stalled:
                assert entry.id is not None
                job = entry.task_kwargs.get("job")
                log.warning("the worker of %s (entry %s) is gone", job, entry.id)
                try:
                    if entry.task_name in (TRAIN_TASK, CHECK_TASK):
                        await self._bench.progress.lost(str(job), entry.id, jobs.attempts)
                except NotOurs:
                    log.info("job %s had been taken away from it", job)
                await manager.retry_job(entry)
            for job, number in await self._bench.progress.stranded():
                log.error("job %s is in no queue any more", job)
                try:
                    await self._bench.progress.failed(
                        job, number, "worker_error", "a worker failed on this job; its log says why", None
                    )
                except NotOurs:
                    continue

    async def _seen(self) -> None:
        row = {"name": self.name, "devices": len(self._devices)}
        made = insert(workers).values(row)
        made = made.on_conflict_do_update(index_elements=["name"], set_={"seen_at": sa.func.now()})
        async with self._database.engine.begin() as connection:
            await connection.execute(made)


def devices(count: int | None, processes: int = 1) -> list[str | None]:
    """What a job has to itself: numbers for CUDA_VISIBLE_DEVICES, one for each of its processes, or None for
    a CPU, which is one device."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        found: list[str | None] = [name for name in given.split(",") if name.strip()]
    else:
        try:
            found = [str(number) for number, _ in enumerate(Path("/proc/driver/nvidia/gpus").iterdir())]
        except OSError:
            found = []
    firsts = range(0, len(found) - processes + 1, processes)
    found = [",".join(map(str, found[at : at + processes])) for at in firsts] or found
    if count is None:
        return found or [None]
    return (found or [None] * count)[:count]


def _webhook(settings: Settings) -> tuple[str, str] | None:
    """Where to and with which secret. Raises `SettingsError` when the secret is not there."""
    url, name = settings.jobs.webhook_url, settings.jobs.webhook_secret_env
    if url is None or name is None:
        return None
    secret: Any = os.environ.get(name)
    if not secret:
        raise SettingsError(f"jobs.webhook_secret_env names {name}, but that environment variable is empty")
    return url, secret
