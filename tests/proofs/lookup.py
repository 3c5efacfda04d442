"""What the way from `model` to an engine costs inside the gateway, with its own parts and real engines."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from adapters.version import State, Version
from gateway.fleet.engine import Boot, Engine
from gateway.fleet.fleet import Fleet
from gateway.fleet.plugin import Resident
from gateway.rollout.routes import Routes
from gateway.settings import Base, RemoteEngine, Settings
from gateway.settings import Fleet as FleetSettings
from tests.fakes import KEY, Fake

LOOKUPS, ROUNDS = 50_000, 5
HOUR_S = 3600.0


@dataclass(frozen=True)
class Costs:
    """CPU seconds a look-up. `warm` has a figure a round; `fresh` is right after the homes were forgotten."""

    warm: list[float]
    fresh: float


@dataclass(frozen=True)
class _Everything:
    adapters: Mapping[str, Sequence[Version]]
    at: int = 1
    whole: bool = True

    async def changes(self, since: int = 0) -> _Everything:
        return self


async def measure(fakes: Sequence[Fake], adapters: int, each: int) -> Costs:
    """`Routes.resolve`, `Fleet.lease_now` and `Lease.release` over the names of `adapters` x `each` versions.

    Every version is taken for resident: what is measured is finding it, not loading it.
    """
    logging.getLogger("gateway.fleet").setLevel(logging.ERROR)  # there are no files to load before serving
    source = _Everything({name: _versions(name, each) for name in (f"a{n:05d}" for n in range(adapters))})
    everything = [version for versions in source.adapters.values() for version in versions]
    routes = Routes(source, base="tiny")
    await routes.refresh()
    settings = Settings(
        base=Base(name="tiny"),
        engines=tuple(RemoteEngine(url=fake.url, api_key_env=KEY, shared_store=True) for fake in fakes),
        # Nothing happens beside the loop that is timed.
        fleet=FleetSettings(probe_interval_s=HOUR_S, placement_interval_s=HOUR_S, dns_interval_s=HOUR_S),
    )
    nowhere = Path("/nonexistent")
    fleet = Fleet(settings, lambda: everything, lambda version: nowhere, environment={KEY: fakes[0].key})
    async with fleet:
        boots = [await _serving(engine) for engine in fleet._engines.values()]
        for boot in boots:
            boot.residency.sync([_resident(version) for version in everything])
        dice = random.Random(1)
        names = [_asked(dice, dice.choice(everything)) for _ in range(LOOKUPS)]
        fleet.follow(pinned=frozenset(), drained=frozenset())  # forgets what it knew of homes
        fresh = _round(routes, fleet, [_asked(dice, version) for version in everything])
        return Costs([_round(routes, fleet, names) for _ in range(ROUNDS)], fresh)


async def _serving(engine: Engine) -> Boot:
    async with asyncio.timeout(30):
        while engine.boot is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return engine.boot


def _round(routes: Routes, fleet: Fleet, names: Sequence[str]) -> float:
    began = time.process_time()  # nothing here waits, except for a busy machine
    for name in names:
        lease = fleet.lease_now(routes.resolve(name))
        assert lease is not None
        lease.release(answered=True)
    return (time.process_time() - began) / len(names)


def _asked(dice: random.Random, version: Version) -> str:
    """One of the ways to ask for it, the rare ones as often as the usual one."""
    ways = [version.name, f"{version.adapter}@v{version.number}", f"{version.adapter}@{version.digest}"]
    return dice.choice([*ways, version.adapter] if version.state is State.STABLE else ways)


def _versions(adapter: str, count: int) -> Sequence[Version]:
    return [
        Version(
            adapter=adapter,
            number=number,
            digest=hashlib.sha256(f"{adapter} {number}".encode()).hexdigest(),
            state=State.STABLE if number == 1 else State.REGISTERED,
            size_bytes=1,
            rank=1,
            manifest={},
            created_at=datetime.now(UTC),
        )
        for number in range(1, count + 1)
    ]


def _resident(version: Version) -> Resident:
    return Resident(version.name, None, False, 1, 1, None, 0)
