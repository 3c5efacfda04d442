"""How a request gets its engine: chosen, let in, and the version loaded there."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from adapters.version import Version
from gateway.errors import NotFound, Overloaded, Unavailable
from gateway.fleet.admission import Admission
from gateway.fleet.client import LoadFailed, Lost
from gateway.fleet.engine import Boot, Engine, Status
from gateway.fleet.lease import Lease
from gateway.fleet.outcomes import Late, Over, QueueFull, Taken
from gateway.fleet.residency import FilesGone
from gateway.fleet.router import Router

LOAD_RETRY_S = 5.0
NO_ENGINE_RETRY_S = 30.0
MOVES = 8
"""Engines that may go away under one waiting request before it is told so."""


class Target(Protocol):
    """What a request asks for, resolved; `version` is None for the base."""

    @property
    def version(self) -> Version | None: ...


class Leasing:
    """`lease_now` for what needs no waiting, `acquire` for the rest. `refused` are names being removed."""

    def __init__(
        self,
        engines: Mapping[str, Engine],
        router: Router,
        refused: Collection[str],
        *,
        patience_s: float,
        no_engine: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`patience_s`: how long a request may wait for its turn. `no_engine`: why there may be none."""
        self._engines = engines
        self._router = router
        self._refused = refused
        self._patience_s = patience_s
        self._no_engine = no_engine
        self._clock = clock

    def lease_now(self, target: Target, affinity: int = 0) -> Lease | None:
        """What `acquire` gives, when it is there without waiting; None when the request must wait its turn,
        or for a load. The caller releases it. Raises as `acquire` does.
        """
        version = target.version
        name = None if version is None else version.name
        if version is not None and name in self._refused:
            raise _removed(version)
        engine = self._router.choose(name, affinity)
        boot = None if engine is None else engine.boot
        if engine is None or boot is None:
            raise self._nobody(())
        entry = boot.base if name is None else boot.residency.loaded(name)
        if entry is None or not boot.admission.try_enter(name):
            return None
        return engine.lease(boot, entry)

    async def acquire(
        self,
        target: Target,
        affinity: int = 0,
        *,
        tried: Collection[str] = (),
        since: float | None = None,
        again: bool = False,
    ) -> Lease:
        """A hold on an engine that has `target` loaded, in the request's turn; the caller releases it.

        Never at an engine in `tried`. `since` is when the request came: it waits `patience_s` from then on.
        `again`: it has waited its turn before, and goes to the front. Raises `Overloaded` (429) when too many
        wait, `Unavailable` (503) when no engine can serve it in time, and `NotFound` for a version that is
        being removed or whose files are gone.
        """
        since = self._clock() if since is None else since
        version = target.version
        name = None if version is None else version.name
        for _ in range(MOVES):
            if version is not None and name in self._refused:
                raise _removed(version)
            engine, boot = self._choose(name, affinity, tried)
            try:
                await boot.admission.enter(
                    name, since + self._patience_s, front=again, since=since, movable=not tried
                )
            except Over:
                continue  # it went away while we waited
            except Taken as taken:
                found = self._boot_of(taken.by)
                if found is None:
                    continue  # and so did the other
                engine, boot = found
            except QueueFull as error:
                raise Overloaded(
                    f"too many requests wait for engine {engine.name}; send this one again in "
                    f"{error.retry_after_s:.0f} s, or add engines",
                    code="queue_full",
                    retry_after_s=error.retry_after_s,
                ) from error
            except Late as error:
                raise Unavailable(
                    f"no turn came within {self._patience_s:g} s (fleet.queue_timeout_s): the engines have "
                    "more to do than they can",
                    code="queue_timeout",
                    retry_after_s=error.retry_after_s,
                ) from error
            lease = await self._enter(engine, boot, version)
            if lease is not None:
                return lease
        raise Unavailable("engines come and go; try again", retry_after_s=1.0)

    def has_other(self, tried: Collection[str]) -> bool:
        """Whether some engine takes requests that is none of `tried`."""
        return any(engine.takes_requests and engine.name not in tried for engine in self._engines.values())

    async def _enter(self, engine: Engine, boot: Boot, version: Version | None) -> Lease | None:
        """The lease of a request that was let in; None when the engine went away meanwhile."""
        if version is None:
            return engine.lease(boot, boot.base)
        leased = False
        try:
            began = self._clock()
            entry = boot.residency.loaded(version.name)
            waited = entry is None
            if entry is None:
                entry = await boot.residency.ensure(version)
            if version.name in self._refused:
                raise _removed(version)
            if not entry.loaded:
                return None
            lease = engine.lease(boot, entry)
            if waited:
                lease.loaded_s = self._clock() - began
            leased = True
            return lease
        except FilesGone as error:
            raise _removed(version) from error
        except LoadFailed as error:
            raise Unavailable(
                f"the engine could not load {version.name}: {error}",
                code="adapter_load_failed",
                retry_after_s=LOAD_RETRY_S,
            ) from error
        except Lost as error:
            if engine.boot is not boot:
                return None
            engine.probe_soon()  # it is not known to be gone
            raise Unavailable(
                f"{version.name} could not be loaded: {error}", retry_after_s=LOAD_RETRY_S
            ) from error
        finally:
            if not leased:
                boot.admission.leave(version.name)

    def _boot_of(self, admission: Admission) -> tuple[Engine, Boot] | None:
        for engine in self._engines.values():
            if engine.boot is not None and engine.boot.admission is admission:
                return engine, engine.boot
        return None

    def _choose(self, name: str | None, affinity: int, tried: Collection[str]) -> tuple[Engine, Boot]:
        engine = self._router.choose(name, affinity, tried)
        boot = None if engine is None else engine.boot
        if engine is None or boot is None:
            raise self._nobody(tried)
        return engine, boot

    def _nobody(self, tried: Collection[str]) -> Unavailable:
        if not self._engines:
            return Unavailable(self._no_engine, retry_after_s=NO_ENGINE_RETRY_S)
        if tried:
            return Unavailable(
                f"no engine could answer ({', '.join(sorted(tried))} failed); send the request again",
                retry_after_s=1.0,
            )
        first = min(self._engines.values(), key=lambda engine: engine.retry_after_s)
        how = {Status.STARTING: f"is starting ({first.stage})", Status.FAILED: "is out of service"}
        what = "takes no new requests (it is drained)" if first.draining else how.get(first.status)
        return Unavailable(
            f"no engine can answer right now: engine {first.name} {what or f'is {first.status}'}",
            retry_after_s=first.retry_after_s,
        )


def _removed(version: Version) -> NotFound:
    return NotFound(
        f"The model {version.name!r} was removed. GET /v1/models lists what this gateway serves.",
        code="model_not_found",
        param="model",
    )
