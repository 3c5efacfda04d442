"""Composition root: the only place that wires rooms together.

`build(settings)` is an ASGI app. Its lifespan starts Postgres (unless a DSN is given), migrates, fills the
in-memory tables and lets the fleet start in the background, so that the gateway answers within a second or
two while an engine may take forty. /v1 goes to the data plane, below ASGI (`gateway.api.connection`).
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from adapters.base.manifest import BaseManifest
from adapters.registry import Registry
from adapters.store import Store
from adapters.version import Version
from gateway.access import Keys
from gateway.api.admin import Admin
from gateway.api.openai import DataPlane
from gateway.db import Database, EmbeddedPostgres
from gateway.fleet import Fleet
from gateway.relay import Upstream
from gateway.rollout.routes import Routes
from gateway.settings import Settings, SettingsError

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Say = Callable[[str], None]

log = logging.getLogger("hotswap")


@dataclass(frozen=True, slots=True)
class Rooms:
    """Everything that lives as long as the process does."""

    fleet: Fleet
    data_plane: DataPlane
    admin: Admin


@asynccontextmanager
async def rooms(settings: Settings, say: Say) -> AsyncIterator[Rooms]:
    """The whole service, wired and started; left in the opposite order."""
    base = BaseManifest.read(settings.base_path)
    async with AsyncExitStack() as stack:
        database = Database(await _database_url(settings, stack))
        stack.push_async_callback(database.close)
        await database.migrate()

        store = Store(settings.store_path)
        keys = Keys(database.engine)
        await keys.refresh()
        if await keys.ensure_admin(settings.state_dir / "admin.key"):
            say(f"admin key written to {settings.state_dir / 'admin.key'}")
        fleet = Fleet(
            settings,
            desired=lambda: _desired(routes),
            path_of=lambda version: store.path(version.digest),
            say=say,
        )
        registry = Registry(
            database.engine,
            store,
            quota_bytes=settings.registry.quota_bytes,
            keep_versions=settings.registry.keep_versions,
            drain=fleet.forget,
        )
        routes = Routes(registry, base=settings.base.name)
        await routes.refresh()
        upstream = Upstream()
        stack.push_async_callback(upstream.close)
        data_plane = DataPlane(
            keys=keys, routes=routes, fleet=fleet, upstream=upstream, server=settings.server
        )
        admin = Admin(
            settings=settings,
            base=base,
            keys=keys,
            registry=registry,
            store=store,
            routes=routes,
            fleet=fleet,
        )

        async def changed() -> None:
            await keys.refresh()
            await routes.refresh()

        async with asyncio.TaskGroup() as tasks:
            listener = tasks.create_task(database.listen(("hotswap_registry", "hotswap_keys"), changed))
            await fleet.start()
            collector = tasks.create_task(admin.keep_collecting())
            try:
                yield Rooms(fleet=fleet, data_plane=data_plane, admin=admin)
            finally:
                collector.cancel()
                await fleet.stop()
                listener.cancel()


async def _database_url(settings: Settings, stack: AsyncExitStack) -> str:
    name = settings.database.url_env
    if name is None:
        postgres = EmbeddedPostgres(settings.state_dir / "postgres", settings.log_path / "postgres.log")
        url = await postgres.start()
        stack.push_async_callback(postgres.stop)
        return url
    if not os.environ.get(name):
        raise SettingsError(f"database.url_env names {name}, but that environment variable is empty")
    return os.environ[name]


class Hotswap:
    """The ASGI app: /healthz and /readyz here, the rest to the control plane. `plane` serves /v1."""

    def __init__(self, settings: Settings, say: Say) -> None:
        self._settings = settings
        self._say = say
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
        else:
            await self._rooms.admin.app(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            async with rooms(self._settings, self._say) as started:
                self._rooms = started
                # What is there now stays. A collection that walks all of it would hold every stream up for
                # tens of milliseconds, and would find nothing.
                gc.collect()
                gc.freeze()
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


async def _desired(routes: Routes) -> Sequence[Version]:
    return routes.desired()


async def _answer(send: Send, status: int, body: dict[str, Any]) -> None:
    content = json.dumps(body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def build(settings: Settings, say: Say = lambda text: None) -> Hotswap:
    """The whole service as an ASGI app. `say` hears progress, one line at a time."""
    return Hotswap(settings, say)
