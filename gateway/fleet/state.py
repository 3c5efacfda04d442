"""What `hotswap ps` shows of an engine: plain values, taken at one moment."""

from __future__ import annotations

import time
from collections.abc import Mapping, Set
from dataclasses import dataclass

from gateway.fleet.engine import Engine


@dataclass(frozen=True, slots=True)
class LoadedVersion:
    """A version that an engine knows by name; `idle_s` since a request for it began or it was loaded.

    `residency` is "active" (in a slot), "resident" (in the CPU cache), "evicted" (read from its files at the
    next request), or "registered" where the engine does not say.
    """

    name: str
    residency: str
    in_flight: int
    idle_s: float
    pinned: bool
    waiting: int


@dataclass(frozen=True, slots=True)
class EngineState:
    """One engine. Durations are seconds; `start_s` is what its last start took."""

    engine: str
    url: str | None
    status: str
    stage: str
    reason: str | None
    boot_id: str | None
    pid: int | None
    uptime_s: float
    restarts: int
    start_s: float | None
    retry_after_s: float | None
    device: str | None
    vllm_version: str | None
    plugin_version: str | None
    lora_kernel: str | None
    in_flight: int
    waiting: int
    draining: bool
    ejected: str | None
    degraded: str | None
    versions: tuple[LoadedVersion, ...]


def look(engine: Engine, now: float | None = None, pinned: Set[str] = frozenset()) -> EngineState:
    now = time.monotonic() if now is None else now
    boot, report = engine.boot, engine.report
    entries = boot.residency.entries.values() if boot else ()
    waiting = boot.admission.waiting_by_key if boot else {}
    slots = boot.residency.slots if boot else None
    return EngineState(
        engine=engine.name,
        url=engine.address.url if engine.address else None,
        status=str(engine.status),
        stage=str(engine.stage),
        reason=engine.reason,
        boot_id=report.boot_id if report else (boot.id if boot else None),
        pid=engine.pid,
        uptime_s=now - engine.began,
        restarts=max(0, engine.starts - 1),
        start_s=engine.took_s,
        retry_after_s=None if boot else engine.retry_after_s,
        device=report.device if report else None,
        vllm_version=report.vllm_version if report else None,
        plugin_version=report.plugin_version if report else None,
        lora_kernel=report.lora_kernel if report else None,
        in_flight=boot.admission.in_flight if boot else 0,
        waiting=boot.admission.waiting if boot else 0,
        draining=engine.draining,
        ejected=engine.health.ejected(),
        degraded=engine.degraded,
        versions=tuple(
            LoadedVersion(
                entry.name,
                _residency(slots, entry.name),
                entry.in_flight,
                now - entry.last_used,
                entry.name in pinned,
                waiting.get(entry.name, 0),
            )
            for entry in sorted(entries, key=lambda entry: entry.name)
            if entry.loaded
        ),
    )


def _residency(slots: Mapping[str, int | None] | None, name: str) -> str:
    if slots is None:
        return "registered"
    if name not in slots:
        return "evicted"
    return "resident" if slots[name] is None else "active"
