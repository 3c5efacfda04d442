"""Several gateway processes on one port.

A supervisor owns what there is once a machine: Postgres, the local engine, the files of the store. It starts
`server.workers` workers and starts each again when it ends. A worker is a gateway as ever (`python -m
gateway.worker`), told by its settings where Postgres and the engines are: the same code as a replica on
another machine. The kernel deals connections out (SO_REUSEPORT).
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import uvloop

from gateway.app import Place, Rooms, Say, rooms
from gateway.fleet.client import Address
from gateway.fleet.launch import HOST
from gateway.settings import RemoteEngine, Settings
from gateway.supervise import Child, free_port, keep

SETTINGS = "HOTSWAP_WORKER_SETTINGS"
NUMBER = "HOTSWAP_WORKER_NUMBER"
DATABASE_URL = "HOTSWAP_WORKER_DATABASE_URL"
ENGINE_KEY = "HOTSWAP_WORKER_ENGINE_KEY"
PATIENCE = "HOTSWAP_WORKER_PATIENCE_S"

JOINS_WITHIN_S = 10.0
"""A worker that joins others waits this long for its own view of the engines before it takes connections."""

log = logging.getLogger("hotswap.workers")


def supervise(settings: Settings, port: int, say: Say) -> None:
    """Runs the workers until SIGTERM or SIGINT, then lets them drain.

    Raises what kept Postgres or the fleet from starting, by itself and not in a group.
    """
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_supervise(settings, port, say))
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from group


def tally_path(settings: Settings, number: int) -> Path:
    """The file that worker `number` counts in."""
    return settings.state_dir.absolute() / "run" / "tally" / f"worker-{number}.tally"


async def _supervise(settings: Settings, port: int, say: Say) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def tell(text: str) -> None:
        log.error("%s", text)
        say(text)

    engines = _local_engines(settings)
    _forget_tallies(settings)
    async with (
        rooms(settings, say, Place(engines=engines, remembers=False)) as house,
        asyncio.TaskGroup() as group,
    ):
        environment = _environment(settings, port, house, engines)
        workers = [
            group.create_task(keep(partial(_worker, settings, number, environment, house), tell))
            for number in range(1, settings.server.workers + 1)
        ]
        await stop.wait()
        for worker in workers:
            worker.cancel()


def _worker(settings: Settings, number: int, environment: Mapping[str, str], house: Rooms) -> Child:
    return Child(
        f"worker-{number}",
        [sys.executable, "-m", "gateway.worker"],
        state_dir=settings.state_dir,
        log_path=settings.log_path / f"worker-{number}.out",
        env={
            **environment,
            NUMBER: str(number),
            PATIENCE: str(JOINS_WITHIN_S if house.fleet.ready else 0),
        },
        grace_s=settings.server.drain_s + 5,
    )


def _local_engines(settings: Settings) -> tuple[Address, ...]:
    """Where our own engines are to listen, for as long as we live."""
    if settings.engines or not settings.engine.enabled:
        return ()
    key = _engine_key(settings)
    return tuple(Address(HOST, free_port(), key) for _ in range(settings.engine.count))


def _engine_key(settings: Settings) -> str:
    name = settings.engine.api_key_env
    return (os.environ.get(name) if name else None) or secrets.token_urlsafe(32)


def _environment(settings: Settings, port: int, house: Rooms, local: Sequence[Address]) -> Mapping[str, str]:
    """What a worker is told; secrets by the environment alone, as everywhere."""
    engines = settings.engines or tuple(
        RemoteEngine(url=address.url, api_key_env=ENGINE_KEY, shared_store=True) for address in local
    )
    told = settings.model_copy(
        update={
            "state_dir": settings.state_dir.absolute(),
            "server": settings.server.model_copy(update={"port": port}),
            "engine": settings.engine.model_copy(update={"enabled": False}),
            "engines": engines,
            "database": settings.database.model_copy(update={"url_env": DATABASE_URL}),
        }
    )
    return {
        **os.environ,
        SETTINGS: told.model_dump_json(),
        DATABASE_URL: house.database_url,
        ENGINE_KEY: (local[0].key or "") if local else "",
    }


def _forget_tallies(settings: Settings) -> None:
    """Counters begin with the supervisor; a worker that is started again goes on with its own."""
    for file in tally_path(settings, 1).parent.glob("*.tally"):
        file.unlink()
