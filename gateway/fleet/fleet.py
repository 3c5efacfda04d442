"""The engines of one base, as one thing that requests can lease from."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from adapters.version import Version
from gateway.errors import NotFound, Unavailable
from gateway.fleet.client import Address, LoadFailed, Lost
from gateway.fleet.engine import Boot, Context, Engine, Status
from gateway.fleet.launch import launch as launch_vllm
from gateway.fleet.lease import Lease
from gateway.fleet.local import Launch, Local
from gateway.fleet.remote import watch
from gateway.fleet.residency import FilesGone
from gateway.fleet.state import EngineState, look
from gateway.settings import Settings, SettingsError

logger = logging.getLogger(__name__)

LOAD_RETRY_S = 5.0
REPORT_S = 1.0
NO_ENGINE_RETRY_S = 30.0
LOCAL = "local"


class Target(Protocol):
    """What a request asks for, resolved; `version` is None for the base."""

    @property
    def version(self) -> Version | None: ...


class Fleet:
    """Starts, watches and lends engines. Use `start` and `stop`, or `async with`.

    `desired` gives the versions that an engine holds before it takes traffic, most wanted first; it is asked
    at every boot. `path_of` gives a version's absolute folder in the store. `say` hears how far a start is,
    one line at a time. `launch` gives the command of a local engine; tests run the fake engine with it.
    `local` is where a local engine listens at every start, so that other processes find it.
    """

    def __init__(
        self,
        settings: Settings,
        desired: Callable[[], Awaitable[Sequence[Version]]],
        path_of: Callable[[Version], Path],
        *,
        launch: Launch = launch_vllm,
        say: Callable[[str], None] = lambda line: None,
        environment: Mapping[str, str] = os.environ,
        local: Address | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._launch = launch
        self._local = local
        self._clock = clock
        self._refused: set[str] = set()
        self._group: asyncio.TaskGroup | None = None
        self._root: asyncio.Task[None] | None = None
        self._running = asyncio.Event()
        self._stop = asyncio.Event()
        self._ready = asyncio.Event()
        context = Context(
            settings=settings,
            desired=desired,
            path_of=path_of,
            refused=self._refused,
            spawn=self._spawn,
            on_change=self._on_change,
            say=say,
            watch_boot_id=bool(settings.engines),
            clock=clock,
        )
        self._remotes = [_address(remote.url, remote.api_key_env, environment) for remote in settings.engines]
        names = [f"{address.host}:{address.port}" for address in self._remotes]
        if not names and settings.engine.enabled:
            names = [LOCAL]
        self._engines = [Engine(name, context) for name in names]
        self._key = _key("engine.api_key_env", settings.engine.api_key_env, environment)

    async def start(self) -> None:
        """Starts every engine and returns at once; `wait_ready` waits for the first to serve."""
        if self._root is not None:
            raise RuntimeError("the fleet was started already")
        # The one task that no group owns: it is the group, and `stop` awaits it.
        self._root = asyncio.get_running_loop().create_task(self._run(), name="fleet")
        self._root.add_done_callback(self._on_end)
        await self._running.wait()

    async def stop(self) -> None:
        """Ends the local engine and all background work. Raises what had gone wrong there, if anything."""
        if self._root is None:
            return
        for engine in self._engines:
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
            return "no engine: name some in `engines`, or set engine.enabled = true"
        return "; ".join(
            f"engine {engine.name} is {engine.status}: {engine.reason or engine.stage}"
            for engine in self._engines
        )

    async def state(self) -> list[EngineState]:
        """Every engine, for people; serving ones are asked what is resident, for at most `REPORT_S`."""
        await asyncio.gather(*(engine.refresh_report(REPORT_S) for engine in self._engines))
        now = self._clock()
        return [look(engine, now) for engine in self._engines]

    def lease(self, target: Target) -> Leasing:
        """`async with fleet.lease(target) as lease:`, see `acquire`."""
        return Leasing(self, target)

    def lease_now(self, target: Target) -> Lease | None:
        """What `acquire` gives, when it is there without waiting; None when the version must be loaded first.

        The caller releases it. Raises as `acquire` does.
        """
        engine, boot = self._pick()
        version = target.version
        if version is None:
            return engine.lease(boot, boot.base)
        if version.name in self._refused:
            raise _removed(version)
        entry = boot.residency.loaded(version.name)
        return None if entry is None else engine.lease(boot, entry)

    async def acquire(self, target: Target) -> Lease:
        """A hold on an engine that has `target` loaded; the caller releases it.

        Awaits nothing when the version is loaded there. Raises `Unavailable` when no engine can serve it now
        and `NotFound` for a version that is being removed or whose files are gone.
        """
        version = target.version
        for _ in range(len(self._engines) + 2):
            lease = self.lease_now(target)
            if lease is not None:
                return lease
            assert version is not None  # the base waits for nothing
            engine, boot = self._pick()
            try:
                await boot.residency.ensure(version)
            except FilesGone as error:
                raise _removed(version) from error
            except LoadFailed as error:
                raise Unavailable(
                    f"the engine could not load {version.name}: {error}",
                    code="adapter_load_failed",
                    retry_after_s=LOAD_RETRY_S,
                ) from error
            except Lost as error:
                if engine.boot is boot:  # the engine itself is not known to be gone
                    engine.probe_soon()
                    raise Unavailable(
                        f"{version.name} could not be loaded: {error}", retry_after_s=LOAD_RETRY_S
                    ) from error
        raise Unavailable("engines come and go; try again", retry_after_s=1.0)

    async def forget(
        self, version: Version, *, deadline_s: float = 30.0, then: Callable[[], None] | None = None
    ) -> bool:
        """Takes a version out of every engine, so that its files may be deleted.

        New leases are refused from now on; those in flight may end until the deadline; then it is unloaded.
        True when nothing used it any more: only then `then` (delete the files) was called, in a thread and
        while leases were still refused. False: the files must stay, an engine may still read them.
        """
        name = version.name
        self._refused.add(name)
        try:
            drops = [self._drop(engine, name, deadline_s) for engine in self._engines]
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

    def _pick(self) -> tuple[Engine, Boot]:
        """The serving engine with the least in flight. Raises `Unavailable`."""
        best: tuple[Engine, Boot] | None = None
        for engine in self._engines:
            boot = engine.boot
            if boot is not None and (best is None or boot.load.in_flight < best[1].load.in_flight):
                best = engine, boot
        if best is not None:
            return best
        if not self._engines:
            raise Unavailable(
                "this gateway has no engine: name some in `engines`, or set engine.enabled = true",
                retry_after_s=NO_ENGINE_RETRY_S,
            )
        first = min(self._engines, key=lambda engine: engine.retry_after_s)
        how = {Status.STARTING: f"is starting ({first.stage})", Status.FAILED: "is out of service"}
        raise Unavailable(
            "no engine can answer right now: "
            f"engine {first.name} {how.get(first.status, f'is {first.status}')}",
            retry_after_s=first.retry_after_s,
        )

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            tasks = [group.create_task(self._supervise(at)) for at in range(len(self._engines))]
            self._running.set()
            await self._stop.wait()
            for task in tasks:
                task.cancel()

    async def _supervise(self, at: int) -> None:
        engine = self._engines[at]
        if self._remotes:
            await watch(engine, self._remotes[at], self._settings.fleet.probe_interval_s)
        else:
            local = Local(engine, self._settings, self._launch, self._clock, self._key, self._local)
            await local.run()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        assert self._group is not None
        return self._group.create_task(work)

    def _on_change(self) -> None:
        if any(engine.boot is not None for engine in self._engines):
            self._ready.set()
        else:
            self._ready.clear()

    def _on_end(self, root: asyncio.Task[None]) -> None:
        """A fleet that ends untold is a bug of ours: it must not look alive. `stop` raises it."""
        self._running.set()
        if not self._stop.is_set() and not root.cancelled():
            logger.critical("the fleet ended by itself", exc_info=root.exception())
            for engine in self._engines:
                engine.down("the fleet ended by itself; restart the gateway", NO_ENGINE_RETRY_S)


class Leasing:
    """`async with` around one lease."""

    __slots__ = ("_fleet", "_lease", "_target")

    def __init__(self, fleet: Fleet, target: Target) -> None:
        self._fleet = fleet
        self._target = target
        self._lease: Lease | None = None

    async def __aenter__(self) -> Lease:
        self._lease = await self._fleet.acquire(self._target)
        return self._lease

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lease is not None:
            self._lease.release()


def _removed(version: Version) -> NotFound:
    return NotFound(
        f"The model {version.name!r} was removed. GET /v1/models lists what this gateway serves.",
        code="model_not_found",
        param="model",
    )


def _address(url: str, key_env: str | None, environment: Mapping[str, str]) -> Address:
    try:
        return Address.parse(url, _key(f"engines: {url}", key_env, environment))
    except ValueError as error:
        raise SettingsError(f"engines: {error}") from error


def _key(setting: str, name: str | None, environment: Mapping[str, str]) -> str | None:
    if name is not None and not environment.get(name):
        raise SettingsError(f"{setting} names {name} for the key, but that environment variable is not set")
    return None if name is None else environment[name]
