"""What the engines are to hold, and seeing to it: ahead of requests, and not for longer than wanted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

from adapters.version import Version
from gateway.fleet.client import LoadFailed, Lost
from gateway.fleet.engine import Engine
from gateway.fleet.events import Events, Kind
from gateway.fleet.residency import FilesGone, Spawn
from gateway.fleet.router import Router

logger = logging.getLogger(__name__)


class Holdings:
    """`desired` gives the versions that engines are to hold; which engine holds which, the router says.

    `refused` are names being removed: it is shared with whoever leases. `spawn` starts background work.
    """

    def __init__(
        self,
        engines: Mapping[str, Engine],
        router: Router,
        desired: Callable[[], Sequence[Version]],
        refused: set[str],
        events: Events,
        spawn: Spawn,
    ) -> None:
        self.pinned: frozenset[str] = frozenset()
        self._engines = engines
        self._router = router
        self._desired = desired
        self._refused = refused
        self._events = events
        self._spawn = spawn
        self._known: frozenset[str] = frozenset()

    def names(self) -> list[str]:
        """Of every version that is desired."""
        return [version.name for version in self._desired()]

    def at(self, engine: str) -> Sequence[Version]:
        """What that engine is to hold, most wanted first: pinned ones, then by load."""
        placement, load = self._router.placement, self._router.load
        here = [
            version for version in self._desired() if not placement or engine in placement.homes(version.name)
        ]
        here.sort(key=lambda version: (version.name not in self.pinned, -load.get(version.name, 0.0)))
        return here

    def remember(self) -> None:
        """What is desired now is no news: engines load it before they serve."""
        self._known = frozenset(self.names())

    def follow(self, pinned: frozenset[str], superseded: Collection[str]) -> None:
        """Loads what is newly desired at its homes; unloads `superseded` names where nothing uses them."""
        before, self.pinned = self.pinned, pinned
        for name in sorted(pinned - before):
            self._events.add(Kind.PINNED, "-", name, "an operator wants it resident")
            self._everywhere(name, partial(self._pin, name=name, pinned=True))
        for name in sorted(before - pinned):
            self._events.add(Kind.UNPINNED, "-", name, "an operator let it go")
            self._everywhere(name, partial(self._pin, name=name, pinned=False))
        known = self._known
        desired = self._desired()
        self._known = frozenset(version.name for version in desired)
        served = {name.partition("@")[0] for name in known}
        for version in desired:
            if version.name not in known:
                # A route that had another version may have traffic; one that is new has none yet.
                wanted = version.adapter in served or version.name in pinned
                self.prefetch(version, "it is newly desired", evicting=wanted)
        for name in superseded:
            if name not in self._known:
                self._everywhere(name, partial(self._retire, name=name))

    def spread(self, name: str) -> None:
        """It has more homes now."""
        for version in self._desired():
            if version.name == name:
                self.prefetch(version, "its traffic wants more engines")

    def prefetch(self, version: Version, reason: str, *, evicting: bool = True) -> None:
        """Loads it at its homes; not `evicting`: only where there is room, so that many new ones neither
        drive out what is used nor stall the streams there."""
        for engine in self._router.homes(version.name):
            self._spawn(self._load(engine, version, reason, evicting))

    async def forget(self, version: Version, deadline_s: float, then: Callable[[], None] | None) -> bool:
        """Takes a version out of every engine, so that its files may be deleted.

        New leases are refused from now on; those in flight may end until the deadline; then it is unloaded.
        True when nothing used it any more: only then `then` (delete the files) was called, in a thread and
        while leases were still refused. False: the files must stay, an engine may still read them.
        """
        name = version.name
        self._refused.add(name)
        try:
            drops = [self._drop(engine, name, deadline_s) for engine in list(self._engines.values())]
            drained = all(await asyncio.gather(*drops))
            if drained and then is not None:
                await asyncio.to_thread(then)
            return drained
        finally:
            self._refused.discard(name)

    async def _drop(self, engine: Engine, name: str, deadline_s: float) -> bool:
        if engine.residency is None:
            return True
        try:
            return await engine.residency.drop(name, deadline_s)
        except Lost:
            return True  # whatever it held went with it
        except LoadFailed as error:
            logger.warning("engine %s did not unload %s: %s", engine.name, name, error)
            return False

    async def _load(self, engine: Engine, version: Version, reason: str, evicting: bool) -> None:
        residency = engine.residency
        if engine.boot is None or residency is None or version.name in self._refused:
            return  # an engine that comes loads what is desired before it serves
        if not evicting and not residency.has_room:
            return  # its first request loads it
        try:
            await residency.ensure(version, reason)
        except (Lost, LoadFailed, FilesGone) as error:
            logger.warning(
                "engine %s did not load %s ahead of requests: %s", engine.name, version.name, error
            )

    def _everywhere(self, name: str, work: Callable[[Engine], Coroutine[Any, Any, None]]) -> None:
        """Starts `work` for each engine that holds `name`."""
        for engine in self._engines.values():
            if engine.residency is not None and engine.residency.loaded(name) is not None:
                self._spawn(work(engine))

    async def _pin(self, engine: Engine, name: str, pinned: bool) -> None:
        try:
            if engine.residency is not None:
                await engine.residency.pin(name, pinned)
        except (Lost, LoadFailed) as error:
            logger.warning(
                "engine %s did not %s %s: %s", engine.name, "pin" if pinned else "unpin", name, error
            )

    async def _retire(self, engine: Engine, name: str) -> None:
        try:
            if engine.residency is not None:
                await engine.residency.evict(name, "it was retired, and newer ones are kept for a rollback")
        except (Lost, LoadFailed) as error:
            logger.warning("engine %s did not unload %s: %s", engine.name, name, error)
