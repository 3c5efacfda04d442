"""What one boot of one engine has loaded, and how a version gets there exactly once.

"Loaded" means registered by name at this boot: vLLM keeps the `max_cpu_loras` most recently used ones in
memory and reads an evicted one again from its path, so the files must stay while the name is registered.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence, Set
from pathlib import Path
from typing import Any

from adapters.version import Version
from gateway.fleet.client import Client, LoadFailed, Lost
from gateway.fleet.lease import Entry

logger = logging.getLogger(__name__)

Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
"""Starts a task that a task group owns."""


class FilesGone(Exception):
    """The version's files are no longer in the store: it was removed from the registry."""


class Residency:
    """Owned by an engine boot; `close` it with the boot. Everything here happens on one event loop."""

    def __init__(
        self,
        client: Client,
        path_of: Callable[[Version], Path],
        spawn: Spawn,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.entries: dict[str, Entry] = {}
        self._client = client
        self._path_of = path_of
        self._spawn = spawn
        self._clock = clock
        self._loading: dict[str, asyncio.Future[Entry]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # Loads run inside the engine loop: each one that is sent stalls every stream there for its duration,
        # so they go one by one and the engine steps in between.
        self._turn = asyncio.Semaphore(1)
        self._over: str | None = None

    def loaded(self, name: str) -> Entry | None:
        """The entry, when the engine has the name. This is the hot path: one look-up, nothing awaited."""
        entry = self.entries.get(name)
        return entry if entry is not None and entry.loaded else None

    async def ensure(self, version: Version) -> Entry:
        """The entry of a loaded version; loads it when nobody has, joins the load when somebody is at it.

        A caller that is cancelled leaves the load running for the others. A failure is told to all who waited
        and then forgotten, so the next caller tries again. Raises `LoadFailed`, `FilesGone` or `Lost`.
        """
        entry = self.loaded(version.name)
        if entry is not None:
            return entry
        if self._over is not None:
            raise Lost(self._over)
        future = self._loading.get(version.name)
        if future is None:
            future = asyncio.get_running_loop().create_future()
            future.add_done_callback(_mark_retrieved)
            self._loading[version.name] = future
            task = self._spawn(self._load(version, future))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            # a task cancelled before its first step never reaches its own `finally`
            task.add_done_callback(lambda _: self._settle(version.name, future))
        return await asyncio.shield(future)

    async def reconcile(self, versions: Sequence[Version], refused: Set[str]) -> None:
        """Loads `versions` in order, one by one, but none whose name is in `refused` when its turn comes.

        One that fails is logged and left to its first request. Raises `Lost`.
        """
        for version in versions:
            if version.name in refused:
                continue
            try:
                await self.ensure(version)
            except (LoadFailed, FilesGone) as error:
                logger.warning("%s is not loaded: %s", version.name, error)

    async def drop(self, name: str, deadline_s: float) -> bool:
        """Waits until nothing in flight uses `name`, then unloads it. The caller must keep new leases away.

        False when the deadline came first: the name is unloaded if it was loaded, but its files must stay,
        for an engine dies when it reads an evicted adapter again and finds none.
        Raises `Lost`, `LoadFailed`.
        """
        drained = True
        try:
            async with asyncio.timeout(deadline_s):
                await self._settled(name)
                entry = self.entries.get(name)
                while entry is not None and entry.in_flight and self._over is None:
                    entry.idle.clear()
                    await entry.idle.wait()
        except TimeoutError:
            drained = False
        entry = self.entries.pop(name, None)
        if entry is not None and entry.loaded:
            entry.loaded = False
            await self._client.unload(name)
        return drained

    def close(self, reason: str) -> None:
        """The boot is over: whoever waits for a load gets `Lost(reason)`, and nothing counts as loaded."""
        self._over = reason
        for task in self._tasks:
            task.cancel()
        for entry in self.entries.values():
            entry.loaded = False
            entry.idle.set()

    async def _load(self, version: Version, future: asyncio.Future[Entry]) -> None:
        try:
            async with self._turn:
                path = self._path_of(version)
                if not path.is_dir():
                    raise FilesGone(f"the files of {version.name} are no longer in the store")
                began = self._clock()
                await self._client.load(version.name, path)
        except (Lost, LoadFailed, FilesGone) as error:
            del self._loading[version.name]
            future.set_exception(error)
            return
        logger.info("loaded %s in %.0f ms", version.name, 1000 * (self._clock() - began))
        entry = self.entries.setdefault(version.name, Entry(version.name))
        entry.loaded = True
        entry.generation += 1
        entry.last_used = self._clock()
        del self._loading[version.name]
        future.set_result(entry)

    def _settle(self, name: str, future: asyncio.Future[Entry]) -> None:
        if self._loading.get(name) is future:
            del self._loading[name]
        if not future.done():
            future.set_exception(Lost(self._over or "the load was abandoned"))

    async def _settled(self, name: str) -> None:
        future = self._loading.get(name)
        if future is not None:
            await asyncio.wait([future])


def _mark_retrieved(future: asyncio.Future[Entry]) -> None:
    """A failure that nobody waits for any more is not worth asyncio's complaint; it was told to who did."""
    if not future.cancelled():
        future.exception()
