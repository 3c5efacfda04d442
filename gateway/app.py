"""Composition root: the only place that wires rooms together.

`build(settings)` is an ASGI app. Its lifespan starts Postgres (unless a DSN is given), migrates, fills the
in-memory tables and lets the fleet start in the background, so that the gateway answers within a second or
two while an engine may take forty. /v1 goes to the data plane, below ASGI (`gateway.api.connection`).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.base.manifest import BaseManifest
from adapters.registry import Registry
from adapters.store import Store
from adapters.version import Version
from gateway.access import Keys
from gateway.api.admin import Admin
from gateway.api.enginefiles import EngineFiles
from gateway.api.openai import DataPlane
from gateway.datasets import Datasets
from gateway.db import Database, EmbeddedPostgres
from gateway.files.blobs import Blobs
from gateway.files.files import Files
from gateway.fleet import Fleet
from gateway.fleet.budget import RetryBudget
from gateway.fleet.client import Address
from gateway.fleet.wishes import Wishes
from gateway.jobs.beside import has_worker, keep_working
from gateway.jobs.jobs import Jobs, Terms
from gateway.memory import keep_giving_back, settle_heap
from gateway.relay import Outbox, Silence, Upstream
from gateway.retraining import Retraining
from gateway.rollout.routes import Routes
from gateway.settings import Settings, SettingsError
from gateway.telemetry import Exchanges
from gateway.traffic.traffic import Traffic, keep_shipping

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Say = Callable[[str], None]

log = logging.getLogger("hotswap")


@dataclass(frozen=True, slots=True)
class Place:
    """What a process does for others of the same state folder (`gateway.workers`).

    `engines` are where its local engines listen, so that they find them. `tally` is the file that it counts
    in.
    One that does not delete files leaves those of removed versions to the next start; one that does not
    remember has no journal, for it serves nothing itself, and one that does not ship leaves the journal to
    another. One that joins others
    which serve waits for its fleet, up to `patience_s`, before it takes a connection from them.
    """

    engines: Sequence[Address] = ()
    tally: Path | None = None
    deletes_files: bool = True
    remembers: bool = True
    ships: bool = True
    patience_s: float = 0.0


ALONE = Place()


@dataclass(frozen=True, slots=True)
class Rooms:
    """Everything that lives as long as the process does."""

    database_url: str
    fleet: Fleet
    data_plane: DataPlane
    admin: Admin
    engine_files: EngineFiles


@asynccontextmanager
async def rooms(settings: Settings, say: Say, place: Place = ALONE) -> AsyncIterator[Rooms]:
    """The whole service, wired and started; left in the opposite order."""
    base = BaseManifest.read(settings.base_path)
    async with AsyncExitStack() as stack:
        database_url = await _database_url(settings, stack)
        database = Database(database_url)
        stack.push_async_callback(database.close)
        await database.migrate()

        store = Store(settings.store_path)
        keys = Keys(database.engine)
        await keys.refresh()
        if await keys.ensure_admin(settings.state_dir / "admin.key"):
            say(f"admin key written to {settings.state_dir / 'admin.key'}")
        wishes = Wishes(database.engine)
        await wishes.refresh()
        exchanges = Exchanges(place.tally)
        fleet = Fleet(
            settings,
            desired=lambda: routes.desired(wishes.pinned),
            path_of=lambda version: store.path(version.digest),
            say=say,
            local=place.engines,
            base_fingerprint=base.fingerprint,
            listeners=(lambda event: exchanges.fleet_event(event.kind),),
        )

        async def unload(version: Version) -> bool:
            """Lets the engines go of it. Its files stay: streams of another worker may still need them."""
            await fleet.forget(version)
            return False

        registry = Registry(
            database.engine,
            store,
            quota_bytes=settings.registry.quota_bytes,
            keep_versions=settings.registry.keep_versions,
            require_card=settings.registry.require_card,
            drain=fleet.forget if place.deletes_files else unload,
        )
        routes = Routes(registry, base=settings.base.name)
        await routes.refresh()
        upstream = Upstream(Outbox())
        stack.push_async_callback(upstream.close)
        traffic = None
        if place.remembers:
            traffic = Traffic(settings, database.engine, base.fingerprint, exchanges)
            await traffic.start()
            stack.push_async_callback(traffic.stop)
        silence = Silence(begin_s=settings.fleet.answer_timeout_s, stall_s=settings.fleet.stall_timeout_s)
        retries = RetryBudget(settings.fleet.retry_share)
        recorder = None if traffic is None else traffic.recorder
        feedback = None if traffic is None else traffic.feedback
        stored = None if traffic is None else traffic.stored
        data_plane = DataPlane(
            keys,
            routes,
            fleet,
            upstream,
            settings.server,
            exchanges,
            silence,
            retries,
            recorder,
            feedback,
            stored,
        )
        files = Files(
            database.engine,
            Blobs(settings.files_path),
            max_bytes=settings.files.max_file_bytes,
            quota_bytes=settings.files.quota_bytes,
        )
        with_worker = has_worker(settings)
        jobs = Jobs(
            database.engine,
            files,
            Terms(
                base=settings.base.name,
                methods=settings.jobs.methods,
                resolve=lambda model: routes.resolve(model).version,
                has_worker=with_worker,
                webhook=settings.jobs.webhook_url is not None,
            ),
        )
        retraining = None
        if traffic is not None:
            retraining = Retraining(
                database.engine,
                jobs,
                traffic.feedback,
                registry.card,
                base=settings.base.name,
                every_s=settings.jobs.retrain_every_s,
            )
        admin = Admin(
            settings=settings,
            base=base,
            keys=keys,
            registry=registry,
            store=store,
            routes=routes,
            fleet=fleet,
            wishes=wishes,
            tally=exchanges.tally,
            traffic=traffic,
            datasets=Datasets(database.engine),
            files=files,
            jobs=jobs,
            retraining=retraining,
        )

        def follow() -> None:
            superseded = [version.name for version in routes.superseded(settings.fleet.keep_resident)]
            fleet.follow(pinned=wishes.pinned, drained=wishes.drained, superseded=superseded)

        async def changed() -> None:
            await keys.refresh()
            await routes.refresh()
            await wishes.refresh()
            if traffic is not None:
                await traffic.refresh()
            follow()

        channels = ("hotswap_registry", "hotswap_keys", "hotswap_fleet", "hotswap_traffic")
        async with asyncio.TaskGroup() as tasks:
            listener = tasks.create_task(database.listen(channels, changed))
            watchers = [tasks.create_task(silence.watch()), tasks.create_task(keep_giving_back())]
            if traffic is not None:
                watchers.append(tasks.create_task(traffic.keep_counting()))
            if place.ships and (shipping := keep_shipping(settings, database_url, say)) is not None:
                watchers.append(tasks.create_task(shipping))
            if place.ships and with_worker:
                watchers.append(tasks.create_task(keep_working(settings, database_url)))
            if place.ships and retraining is not None:
                watchers.append(tasks.create_task(retraining.keep_watching()))
            follow()
            await fleet.start()
            collector = tasks.create_task(admin.keep_collecting())
            try:
                engine_files = EngineFiles(store, lambda: fleet.keys)
                yield Rooms(database_url, fleet, data_plane, admin, engine_files)
            finally:
                collector.cancel()
                for watcher in watchers:
                    watcher.cancel()
                await fleet.stop()
                listener.cancel()


async def _database_url(settings: Settings, stack: AsyncExitStack) -> str:
    name = settings.database.url_env
    if name is None:
        postgres = EmbeddedPostgres(
            settings.state_dir / "postgres",
            settings.log_path / "postgres.log",
            processes=1 + settings.server.workers,
        )
        url = await postgres.start()
        stack.push_async_callback(postgres.stop)
        return url
    if not os.environ.get(name):
        raise SettingsError(f"database.url_env names {name}, but that environment variable is empty")
    return os.environ[name]


class Hotswap:
    """The ASGI app: /healthz and /readyz here, the rest to the control plane. `plane` serves /v1."""

    def __init__(self, settings: Settings, say: Say, place: Place) -> None:
        self._settings = settings
        self._say = say
        self._place = place
        self._rooms: Rooms | None = None
        self.failure: BaseException | None = None

    def plane(self) -> DataPlane | None:
        """What serves /v1 on a `ClientConnection`; None before the start and after the end."""
        return None if self._rooms is None else self._rooms.data_plane

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        path = scope["path"]
        if self._rooms is None:
            await _answer(send, 503, {"ready": False, "reason": "starting"})
        elif path == "/healthz":
            await _answer(send, 200, {"ok": True})
        elif path == "/readyz":
            ready, reason = self._rooms.fleet.ready, self._rooms.fleet.reason
            await _answer(send, 200 if ready else 503, {"ready": ready, "reason": reason})
        elif path.startswith("/engine/"):
            await self._rooms.engine_files(scope, receive, send)
        else:
            await self._rooms.admin.app(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            async with rooms(self._settings, self._say, self._place) as started:
                self._rooms = started
                with contextlib.suppress(TimeoutError):  # then it answers that it is not ready, and why
                    await started.fleet.wait_ready(self._place.patience_s)
                settle_heap()
                await send({"type": "lifespan.startup.complete"})
                await receive()
                self._rooms = None
                gc.unfreeze()
        except Exception as error:
            self.failure = _first(error)
            log.exception("the gateway could not start or stop cleanly")
            stage = "startup" if self._rooms is None else "shutdown"
            await send({"type": f"lifespan.{stage}.failed", "message": str(error)})
            raise
        await send({"type": "lifespan.shutdown.complete"})


def _first(error: BaseException) -> BaseException:
    """What really went wrong, out of the groups that task groups make."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _answer(send: Send, status: int, body: dict[str, Any]) -> None:
    content = json.dumps(body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def build(settings: Settings, say: Say = lambda text: None, place: Place = ALONE) -> Hotswap:
    """The whole service as an ASGI app. `say` hears progress, one line at a time."""
    return Hotswap(settings, say, place)
