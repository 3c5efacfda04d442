"""Versions in a store, an engine stub that listens, and a fleet before it."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from adapters.version import State, Version
from gateway.fleet import EngineState, Fleet
from gateway.fleet.lease import Lease
from gateway.settings import Base, Engine, RemoteEngine, Settings
from gateway.settings import Fleet as FleetSettings
from tests.fleet.stub import Stub


@dataclass(frozen=True)
class Ask:
    """What a request resolved to; None for the base."""

    version: Version | None


@dataclass
class Shelf:
    """Versions with files, and those that engines should hold."""

    root: Path
    desired: list[Version] = field(default_factory=list)

    def add(self, adapter: str, *, desired: bool = False) -> Version:
        digest = hashlib.sha256(adapter.encode()).hexdigest()
        version = Version(adapter, 1, digest, State.STABLE, 1, 8, {}, datetime.now(UTC))
        self.path_of(version).mkdir()
        if desired:
            self.desired.append(version)
        return version

    def path_of(self, version: Version) -> Path:
        return self.root / version.digest

    def wanted(self) -> Sequence[Version]:
        return list(self.desired)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    root = tmp_path / "store" / "sha256"
    root.mkdir(parents=True)
    return Shelf(root)


@pytest.fixture
async def stub() -> AsyncIterator[Stub]:
    async with Stub().listening() as listening:
        yield listening


Remote = Callable[..., AbstractAsyncContextManager[Fleet]]


@pytest.fixture
def remote(shelf: Shelf, tmp_path: Path) -> Remote:
    """`async with remote(stub, ...) as fleet`: a started fleet of engines that somebody else runs."""

    @asynccontextmanager
    async def run(*stubs: Stub, ready: bool = True, **fleet_settings: Any) -> AsyncIterator[Fleet]:
        settings = Settings(
            state_dir=tmp_path / "state",
            base=Base(name="base"),
            engine=Engine(max_cpu_loras=64),
            engines=tuple(
                RemoteEngine(url=each.url, api_key_env="ENGINE_KEY", shared_store=True) for each in stubs
            ),
            fleet=FleetSettings(**({"probe_interval_s": 0.02, "probe_timeout_s": 1.0} | fleet_settings)),
        )
        fleet = Fleet(settings, shelf.wanted, shelf.path_of, environment={"ENGINE_KEY": "engine-key"})
        async with fleet:
            if ready:
                await fleet.wait_ready(5)
            yield fleet

    return run


@asynccontextmanager
async def leased(fleet: Fleet, target: Ask) -> AsyncIterator[Lease]:
    """A lease for as long as the block lasts."""
    lease = await fleet.acquire(target)
    try:
        yield lease
    finally:
        lease.release(answered=True)


async def until(what: str, check: Callable[[], bool], deadline_s: float = 10.0) -> None:
    """Waits until `check()`; fails naming `what`."""
    end = time.monotonic() + deadline_s
    while not check():
        assert time.monotonic() < end, f"after {deadline_s} s still not: {what}"
        await asyncio.sleep(0.005)


async def only(fleet: Fleet) -> EngineState:
    """The state of a fleet's one engine."""
    (state,) = await fleet.state()
    return state


def authorization(lease: Lease) -> str:
    """The authorization header that requests under the lease carry; empty without one."""
    lines = dict(line.split(": ", 1) for line in lease.headers.decode().splitlines())
    return lines.get("authorization", "")
