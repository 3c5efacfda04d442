"""The engines of one base, as one thing that requests can lease from."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from adapters.version import Version
from gateway.fleet.client import Address, LoadFailed, Lost
from gateway.fleet.discovery import Discovery, Removed, Resolve, Source, name_of, resolve
from gateway.fleet.engine import Context, Engine
from gateway.fleet.events import Event, Events, Kind
from gateway.fleet.holdings import Holdings
from gateway.fleet.launch import launch as launch_vllm
from gateway.fleet.leasing import NO_ENGINE_RETRY_S, Leasing, Target
from gateway.fleet.local import Launch, Local
from gateway.fleet.remote import watch
from gateway.fleet.residency import Residency
from gateway.fleet.router import Router
from gateway.fleet.spill import keep_spilling
from gateway.fleet.state import EngineState, look
from gateway.settings import Settings, SettingsError

logger = logging.getLogger(__name__)

REPORT_S = 1.0
DRAIN_POLL_S = 0.25
NO_ENGINE = "this gateway has no engine: name some in `engines`, or set engine.enabled = true"


class Fleet:
    """Finds, starts, watches and lends engines. Use `start` and `stop`, or `async with`.

    `desired` gives the versions that engines hold before they take traffic; which engine holds which, the
    router says. `path_of` gives a version's absolute folder in the store. `say` hears how far a start is, one
    line at a time. `launch` gives the command of a local engine; tests run the fake engine with it. `local`
    is where local engines listen at every start, so that other processes find them.
    """

    def __init__(
        self,
        settings: Settings,
        desired: Callable[[], Sequence[Version]],
        path_of: Callable[[Version], Path],
        *,
        launch: Launch = launch_vllm,
        say: Callable[[str], None] = lambda line: None,
        environment: Mapping[str, str] = os.environ,
        local: Sequence[Address] = (),
        base_fingerprint: str | None = None,
        listeners: Sequence[Callable[[Event], None]] = (),
        resolve: Resolve = resolve,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.events = Events(listeners=listeners)
        self._settings = settings
        self._launch = launch
        self._local = local
        self._resolve = resolve
        self._clock = clock
        self._refused: set[str] = set()
        self._drained: frozenset[str] = frozenset()
        self._group: asyncio.TaskGroup | None = None
        self._root: asyncio.Task[None] | None = None
        self._running = asyncio.Event()
        self._stop = asyncio.Event()
        self._ready = asyncio.Event()
        self._engines: dict[str, Engine] = {}
        self._watching: dict[str, asyncio.Task[None]] = {}
        self._router = Router(self._engines, self._on_placed)
        self._holdings = Holdings(
            self._engines, self._router, desired, self._refused, self.events, self._spawn
        )
        self._context = Context(
            settings=settings,
            desired=self._holdings.at,
            path_of=path_of,
            pinned=lambda: self._holdings.pinned,
            source=settings.source,
            events=self.events,
            refused=self._refused,
            base_fingerprint=base_fingerprint,
            spawn=self._spawn,
            on_change=self._on_change,
            say=say,
            watch_boot_id=bool(settings.engines),
            clock=clock,
        )
        self._sources = {
            shared: [_source(entry.url, entry.api_key_env, environment) for entry in entries]
            for shared in (False, True)
            if (entries := [entry for entry in settings.engines if entry.shared_store is shared])
        }
        self._key = _key("engine.api_key_env", settings.engine.api_key_env, environment)
        self._leasing = leasing = Leasing(
            self._engines,
            self._router,
            self._refused,
            patience_s=settings.fleet.queue_timeout_s,
            no_engine=NO_ENGINE,
            clock=clock,
        )
        self.lease_now = leasing.lease_now
        self.acquire = leasing.acquire
        self.has_other = leasing.has_other
        if not self._sources and settings.engine.enabled:
            count = settings.engine.count
            for name in ["local"] if count == 1 else [f"local-{at + 1}" for at in range(count)]:
                self._engines[name] = Engine(name, self._context)

    async def start(self) -> None:
        """Starts every engine and returns at once; `wait_ready` waits for the first to serve."""
        if self._root is not None:
            raise RuntimeError("the fleet was started already")
        # The one task that no group owns: it is the group, and `stop` awaits it.
        self._root = asyncio.get_running_loop().create_task(self._run(), name="fleet")
        self._root.add_done_callback(self._on_end)
        await self._running.wait()

    async def stop(self) -> None:
        """Ends local engines and all background work. Raises what had gone wrong there, if anything."""
        if self._root is None:
            return
        for engine in self._engines.values():
            engine.stopping()
        self._stop.set()
        await self._root

    async def __aenter__(self) -> Fleet:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def several(self) -> bool:
        """Whether there is more than one engine: only then does it matter what a prompt begins with."""
        return len(self._engines) > 1

    @property
    def ready(self) -> bool:
        """Whether some engine serves right now."""
        return self._ready.is_set()

    async def wait_ready(self, timeout_s: float | None = None) -> None:
        """Waits until some engine serves. Raises `TimeoutError`."""
        async with asyncio.timeout(timeout_s):
            await self._ready.wait()

    @property
    def reason(self) -> str | None:
        """Why nothing can be served now, None while something can."""
        if self.ready:
            return None
        if not self._engines:
            return NO_ENGINE
        return "; ".join(
            f"engine {engine.name} is {engine.status}: {engine.reason or engine.stage}"
            for engine in self._engines.values()
        )

    @property
    def keys(self) -> frozenset[str]:
        """The engines' own keys, by which they may fetch adapters from us."""
        addresses = (engine.address for engine in self._engines.values())
        return frozenset(address.key for address in addresses if address is not None and address.key)

    @property
    def pin_room(self) -> int | None:
        """Versions that may be pinned: every engine needs a place for the adapters in its slots, too."""
        reports = [engine.report for engine in self._engines.values() if engine.report is not None]
        rooms = [
            report.max_cpu_loras - report.max_loras
            for report in reports
            if report.max_cpu_loras and report.max_loras
        ]
        return min(rooms, default=None)

    @property
    def max_lora_rank(self) -> int:
        """The largest rank that every engine serves and that the registry takes."""
        reports = [engine.report for engine in self._engines.values() if engine.report is not None]
        served = [report.max_lora_rank for report in reports if report.max_lora_rank]
        return min([self._settings.engine.max_lora_rank, *served])

    async def state(self) -> list[EngineState]:
        """Every engine, for people; serving ones are asked what is resident, for at most `REPORT_S`."""
        engines = list(self._engines.values())
        await asyncio.gather(*(engine.refresh_report(REPORT_S) for engine in engines))
        now = self._clock()
        return [look(engine, now, self._holdings.pinned) for engine in engines]

    async def tensors(self, version: str) -> dict[str, dict[str, Any]]:
        """By the name of each engine that holds it: digests of the weights that are served there, or the
        `problem` for which it does not tell, with its `code`: None where the engine has no such route."""
        holders = {
            engine.name: engine.boot.residency
            for engine in self._engines.values()
            if engine.boot and engine.boot.residency.loaded(version)
        }

        async def of(residency: Residency) -> dict[str, Any]:
            try:
                return await residency.tensors(version)
            except LoadFailed as error:
                return {"problem": str(error), "code": error.code}
            except Lost as error:
                return {"problem": str(error), "code": "lost"}

        told = await asyncio.gather(*map(of, holders.values()))
        return dict(zip(holders, told, strict=True))

    def follow(
        self, *, pinned: frozenset[str], drained: frozenset[str], superseded: Collection[str] = ()
    ) -> None:
        """What is wanted may have changed: new versions are loaded at their homes before they are asked for,
        `superseded` ones (retired, and not kept for a rollback) are unloaded where nothing uses them.
        """
        self._drained = drained
        for engine in self._engines.values():
            self._heed(engine)
        self._on_change()
        if self._group is not None:
            self._holdings.follow(pinned, superseded)
        else:
            self._holdings.pinned = pinned

    async def forget(
        self, version: Version, *, deadline_s: float = 30.0, then: Callable[[], None] | None = None
    ) -> bool:
        """Takes a version out of every engine, so that its files may be deleted.

        Whether nothing used it any more: only then `then` (delete the files) was called; see `Holdings`.
        """
        return await self._holdings.forget(version, deadline_s, then)

    def _on_placed(self, kind: Kind, name: str | None, reason: str) -> None:
        self.events.add(kind, "-", name, reason)
        if kind is Kind.SPREAD and name is not None and self._group is not None:
            self._holdings.spread(name)

    def _heed(self, engine: Engine) -> None:
        draining = engine.name in self._drained
        if draining and not engine.draining:
            self.events.add(Kind.DRAINING, engine.name, None, "an operator drains it")
            if self._group is not None:
                self._spawn(self._until_drained(engine))
        engine.draining = draining

    async def _until_drained(self, engine: Engine) -> None:
        while engine.draining and engine.boot is not None and engine.boot.admission.in_flight:  # noqa: ASYNC110
            await asyncio.sleep(DRAIN_POLL_S)  # what a request costs is not worth an event on each leave
        if engine.draining:
            self.events.add(Kind.DRAINED, engine.name, None, "nothing is in flight there; it may be stopped")

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            tasks = []
            self._holdings.remember()
            if self._sources:
                for shared, sources in self._sources.items():
                    discovery = Discovery(
                        sources,
                        partial(self._on_discovered, shared),
                        interval_s=self._settings.fleet.dns_interval_s,
                        resolve=self._resolve,
                    )
                    tasks.append(group.create_task(discovery.watch()))
            else:
                await self._router.replace(self._holdings.names())
                for number, engine in enumerate(self._engines.values()):
                    address = self._local[number] if self._local else None
                    local = Local(
                        engine, self._settings, self._launch, self._clock, self._key, address, number=number
                    )
                    tasks.append(group.create_task(local.run()))
            interval_s = self._settings.fleet.placement_interval_s
            tasks.append(group.create_task(self._router.keep_placing(self._holdings.names, interval_s)))
            spilling = keep_spilling(self._engines, self._settings.fleet.spill_after_s, self._clock)
            tasks.append(group.create_task(spilling))
            self._running.set()
            await self._stop.wait()
            for task in (*tasks, *self._watching.values()):
                task.cancel()

    def _on_discovered(self, shared: bool, added: list[Address], removed: list[Removed]) -> None:
        assert self._group is not None
        for address, reason in removed:
            name = name_of(address)
            engine = self._engines.pop(name)
            self._watching.pop(name).cancel()
            engine.tell(Kind.LEFT, None, reason)
        for address in added:
            engine = self._engines[name_of(address)] = Engine(
                name_of(address), self._context, shared_store=shared
            )
            self._heed(engine)
        self._router.place_now(self._holdings.names())
        for address in added:
            again_in_s = self._settings.fleet.probe_interval_s
            work = watch(self._engines[name_of(address)], address, again_in_s)
            self._watching[name_of(address)] = self._group.create_task(work)
        self._on_change()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        assert self._group is not None
        return self._group.create_task(work)

    def _on_change(self) -> None:
        self._router.changed()
        if any(engine.boot is not None for engine in self._engines.values()):
            self._ready.set()
        else:
            self._ready.clear()

    def _on_end(self, root: asyncio.Task[None]) -> None:
        """A fleet that ends untold is a bug of ours: it must not look alive. `stop` raises it."""
        self._running.set()
        if not self._stop.is_set() and not root.cancelled():
            logger.critical("the fleet ended by itself", exc_info=root.exception())
            for engine in self._engines.values():
                engine.down("the fleet ended by itself; restart the gateway", NO_ENGINE_RETRY_S)


def _source(url: str, key_env: str | None, environment: Mapping[str, str]) -> Source:
    try:
        return Source.parse(url, _key(f"engines: {url}", key_env, environment))
    except ValueError as error:
        raise SettingsError(f"engines: {error}") from error


def _key(setting: str, name: str | None, environment: Mapping[str, str]) -> str | None:
    if name is not None and not environment.get(name):
        raise SettingsError(f"{setting} names {name} for the key, but that environment variable is not set")
    return None if name is None else environment[name]


__all__ = ["Fleet", "Target"]
