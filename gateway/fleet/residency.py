"""What one boot of one engine has loaded, how a version gets there exactly once, and what goes to make room.

"Loaded" means that the engine knows the name and, where our plugin is, that the weights are in its CPU
cache: before one more than `max_cpu_loras` is loaded, we take the least recently used one out, so that vLLM's
own LRU never evicts behind our back and reads it again in the engine loop, which would stall every stream.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence, Set
from pathlib import Path
from typing import Any

from adapters.version import Version
from gateway.fleet.client import Address, Client, InUse, LoadFailed, Lost
from gateway.fleet.events import Kind
from gateway.fleet.lease import Entry
from gateway.fleet.pace import Pace
from gateway.fleet.plugin import Resident

logger = logging.getLogger(__name__)

Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
"""Starts a task that a task group owns."""


Tell = Callable[[Kind, str | None, str], None]
"""Hears of an event: its kind, the version, and why."""


class FilesGone(Exception):
    """The version's files are no longer in the store: it was removed from the registry."""


class Shelf:
    """Where adapters of one engine are loaded from, and how many it holds.

    `path_of` gives a version's folder in our store. `shared`: the engine sees that folder too; otherwise it
    fetches from `source`, an origin. `by_plugin`: our plugin loads, evicts and tells what is resident;
    without it vLLM's own routes must do, and `capacity` (the engine's CPU cache) cannot be kept.
    """

    __slots__ = ("by_plugin", "capacity", "path_of", "shared", "source")

    def __init__(
        self,
        path_of: Callable[[Version], Path],
        *,
        shared: bool = True,
        source: str = "",
        by_plugin: bool = False,
        capacity: int | None = None,
    ) -> None:
        self.path_of = path_of
        self.shared = shared
        self.source = source
        self.by_plugin = by_plugin
        self.capacity = capacity


class Residency:
    """Owned by an engine boot; `close` it with the boot. Everything here happens on one event loop.

    `pinned` are names that are never evicted to make room. `tell` hears what was loaded and evicted, and why.
    """

    def __init__(
        self,
        client: Client,
        address: Address,
        shelf: Shelf,
        spawn: Spawn,
        pace: Pace,
        tell: Tell,
        pinned: Callable[[], Set[str]] = frozenset,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.entries: dict[str, Entry] = {}
        self.shelf = shelf
        self.changes = 0
        """Grows when something begins to be loaded or unloaded, and when that is done: a listing that was
        asked for before is not news."""
        self.slots: dict[str, int | None] | None = None
        """What the plugin said last: name -> its slot, None when it is only in the CPU cache."""
        self._client = client
        self._address = address
        self._spawn = spawn
        self._pace = pace
        self._tell = tell
        self._pinned = pinned
        self._clock = clock
        self._loading: dict[str, asyncio.Future[Entry]] = {}
        self._going: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        # Loads run inside the engine loop: each one that is sent stalls every stream there for its duration,
        # so they go one by one and the engine steps in between.
        self._turn = asyncio.Semaphore(1)
        self._over: str | None = None

    def loaded(self, name: str) -> Entry | None:
        """The entry, when the engine has the name. This is the hot path: one look-up, nothing awaited."""
        entry = self.entries.get(name)
        return entry if entry is not None and entry.loaded else None

    @property
    def has_room(self) -> bool:
        """Whether one more can be loaded without taking one out, after those that are being loaded."""
        if not self.shelf.by_plugin or self.shelf.capacity is None:
            return True
        held = sum(entry.loaded for entry in self.entries.values())
        return held + len(self._loading) < self.shelf.capacity

    async def ensure(
        self, version: Version, reason: str = "a request wants it", *, paced: bool = True
    ) -> Entry:
        """The entry of a loaded version; loads it when nobody has, joins the load when somebody is at it.

        A caller that is cancelled leaves the load running for the others. A failure is told to all who waited
        and then forgotten, so the next caller tries again. Raises `LoadFailed`, `FilesGone` or `Lost`. Not
        `paced` where there are no streams that loads could stall.
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
            task = self._spawn(self._load(version, future, reason, paced))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            # a task cancelled before its first step never reaches its own `finally`
            task.add_done_callback(lambda _: self._settle(version.name, future))
        return await asyncio.shield(future)

    async def reconcile(self, versions: Sequence[Version], refused: Set[str], *, paced: bool = False) -> None:
        """Loads `versions` in order, one by one, but none whose name is in `refused` when its turn comes.

        Not `paced`: nobody uses the engine yet. One that fails is logged and left to its first request.
        Raises `Lost`.
        """
        for version in versions:
            if version.name in refused:
                continue
            try:
                await self.ensure(version, "it is desired here", paced=paced)
            except (LoadFailed, FilesGone) as error:
                logger.warning("%s is not loaded: %s", version.name, error)

    def sync(self, resident: Sequence[Resident]) -> None:
        """Takes over what the plugin says is resident: what it evicted or another gateway removed is not
        loaded, what another gateway loaded is, and what others used is not the least recently used.
        """
        now, there = self._clock(), {each.name: each for each in resident}
        self.slots = {name: each.slot for name, each in there.items()}
        for name, entry in list(self.entries.items()):
            if name in self._going:
                continue
            if entry.loaded and name not in there and name not in self._loading:
                entry.loaded = False
                self._tell(Kind.EVICTED, name, "the engine does not hold it any more")
            if not entry.loaded and not entry.in_flight and name not in self._loading:
                del self.entries[name]
        for name, each in there.items():
            if name not in self.entries:
                if name in self._loading or name in self._going:
                    continue
                self.entries[name] = Entry.at(self._address, name, name, loaded=True)
            if each.last_used_s is not None:
                entry = self.entries[name]
                entry.last_used = max(entry.last_used, now - each.last_used_s)

    async def drop(self, name: str, deadline_s: float, reason: str = "it was removed") -> bool:
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
                    entry.awaited = True
                    await entry.idle.wait()
        except TimeoutError:
            drained = False
        entry = self.entries.pop(name, None)
        if entry is not None and entry.loaded:
            entry.loaded = False
            try:
                await self._unload(name)
            except InUse:  # through another gateway
                return False
            self._tell(Kind.REMOVED, name, reason)
        return drained

    async def evict(self, name: str, reason: str) -> bool:
        """Takes a version out when nothing uses it; False when something does, through us or another gateway.

        Raises `Lost`, `LoadFailed`.
        """
        entry = self.loaded(name)
        if entry is None or entry.in_flight:
            return entry is None
        entry.loaded = False  # from here on requests wait for a load
        try:
            await self._unload(name)
        except InUse:
            entry.loaded = True
            return False
        self._tell(Kind.EVICTED, name, reason)
        if not entry.in_flight and self.entries.get(name) is entry:
            del self.entries[name]
        return True

    async def pin(self, name: str, pinned: bool) -> None:
        """Tells the engine, too, that a version may (not) be evicted. Raises `Lost`, `LoadFailed`."""
        if self.shelf.by_plugin and self.loaded(name) is not None:
            await (self._client.pin(name) if pinned else self._client.unpin(name))

    async def tensors(self, name: str) -> dict[str, Any]:
        """As `Client.tensors`."""
        return await self._client.tensors(name)

    def close(self, reason: str) -> None:
        """The boot is over: whoever waits for a load gets `Lost(reason)`, and nothing counts as loaded."""
        self._over = reason
        for task in self._tasks:
            task.cancel()
        for entry in self.entries.values():
            entry.loaded = False
            entry.idle.set()

    async def _load(self, version: Version, future: asyncio.Future[Entry], reason: str, paced: bool) -> None:
        try:
            async with self._turn:
                path = self.shelf.path_of(version)
                if not path.is_dir():
                    raise FilesGone(f"the files of {version.name} are no longer in the store")
                if paced:
                    await self._pace.turn()
                began = self._clock()
                self.changes += 1
                if self.shelf.by_plugin:
                    await self._put(version, path if self.shelf.shared else None)
                    if version.name in self._pinned():
                        await self._client.pin(version.name)
                else:
                    await self._client.load(version.name, path)
                self.changes += 1
        except (Lost, LoadFailed, FilesGone) as error:
            del self._loading[version.name]
            future.set_exception(error)
            return
        self._tell(Kind.LOADED, version.name, f"{reason}; took {1000 * (self._clock() - began):.0f} ms")
        entry = self.entries.setdefault(version.name, Entry.at(self._address, version.name, version.name))
        entry.loaded = True
        entry.generation += 1
        entry.last_used = self._clock()
        del self._loading[version.name]
        future.set_result(entry)

    async def _put(self, version: Version, path: Path | None) -> None:
        """Loads through the plugin. Where the cache is full, the least recently used version that nothing
        uses and nobody has pinned goes in the same call."""
        busy: set[str] = set()
        while True:
            entry = self._least_used(busy)
            if entry is None:  # there is room; or all are in use, and vLLM's own LRU decides (`sync` sees it)
                await self._client.put_adapter(version.name, version.digest, self.shelf.source, path)
                return
            if len([each for each in self.entries.values() if each.loaded]) > (self.shelf.capacity or 0):
                reason = f"least recently used, to make room for {version.name}"
                if not await self.evict(entry.name, reason):
                    busy.add(entry.name)
                continue
            if await self._put_for(version, path, entry):
                return
            busy.add(entry.name)

    async def _put_for(self, version: Version, path: Path | None, entry: Entry) -> bool:
        """Loads `version` in the place of `entry`; False when that is used through another gateway."""
        name = entry.name
        entry.loaded = False  # from here on requests wait for a load
        self._going.add(name)
        try:
            done = await self._client.put_adapter(
                version.name, version.digest, self.shelf.source, path, evict=name
            )
        except InUse:
            entry.loaded = True
            return False
        finally:
            self._going.discard(name)
        if not done.evicted:
            entry.loaded = True
            return True
        self._tell(Kind.EVICTED, name, f"least recently used, to make room for {version.name}")
        if not entry.in_flight and self.entries.get(name) is entry:
            del self.entries[name]
        return True

    def _least_used(self, busy: Set[str]) -> Entry | None:
        """What goes next; None when there is room for one more, or nothing may go."""
        held = [entry for entry in self.entries.values() if entry.loaded]
        if self.shelf.capacity is None or len(held) < self.shelf.capacity:
            return None
        kept = self._pinned() | busy
        free = [entry for entry in held if not entry.in_flight and entry.name not in kept]
        return min(free, key=lambda entry: entry.last_used, default=None)

    async def _unload(self, name: str) -> None:
        self.changes += 1
        self._going.add(name)
        try:
            if self.shelf.by_plugin:
                await self._client.remove_adapter(name)
            else:
                await self._client.unload(name)
        finally:
            self._going.discard(name)
            self.changes += 1

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
