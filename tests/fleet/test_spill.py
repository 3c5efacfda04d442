"""Who has waited for a slot at home goes to an engine that has one free."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from adapters.version import Version
from gateway.errors import Unavailable
from gateway.fleet import Fleet
from gateway.fleet.engine import Boot, Engine
from tests.fleet.conftest import Ask, Remote, Shelf, until
from tests.fleet.stub import Stub, report

ONE_SLOT = {"max_loras": 1, "max_lora_rank": 32, "max_cpu_loras": 8}


@asynccontextmanager
async def two(remote: Remote, spill_after_s: float) -> AsyncIterator[Fleet]:
    """Engines with one slot each."""
    async with AsyncExitStack() as stack:
        stubs = [
            await stack.enter_async_context(Stub(plugin=report(loras=ONE_SLOT)).listening()) for _ in "12"
        ]
        fleet = await stack.enter_async_context(
            remote(*stubs, spill_after_s=spill_after_s, queue_timeout_s=1.5)
        )
        await until("all serve", lambda: all(engine.boot for engine in fleet._engines.values()))
        yield fleet


def neighbours(fleet: Fleet, shelf: Shelf) -> tuple[Version, Version]:
    """Two versions with the same home."""
    versions = [shelf.add(f"adapter-{number}") for number in range(3)]
    for one in versions:
        for other in versions:
            if one is not other and home(fleet, one) is home(fleet, other):
                return one, other
    raise AssertionError("three versions on two engines, and no two at one")


def home(fleet: Fleet, version: Version) -> Engine:
    return fleet._router.homes(version.name)[0]


def boot_of(engine: Engine) -> Boot:
    assert engine.boot is not None
    return engine.boot


async def test_who_waited_for_a_slot_goes_to_the_engine_with_a_free_one(shelf: Shelf, remote: Remote) -> None:
    async with two(remote, spill_after_s=0.1) as fleet:
        one, other = neighbours(fleet, shelf)
        held = await fleet.acquire(Ask(one))
        began = asyncio.get_running_loop().time()
        spilled = await fleet.acquire(Ask(other))
        assert asyncio.get_running_loop().time() - began >= 0.1
        assert spilled.port != held.port
        for lease in (held, spilled):
            lease.release(answered=True)
        again = await fleet.acquire(Ask(other))
        assert again.port == held.port, "its home is its home still"
        assert all(not boot_of(each).admission.waiting for each in fleet._engines.values())


async def test_who_may_wait_longer_waits_at_home(shelf: Shelf, remote: Remote) -> None:
    async with two(remote, spill_after_s=60.0) as fleet:
        one, other = neighbours(fleet, shelf)
        await fleet.acquire(Ask(one))
        with pytest.raises(Unavailable, match="no turn came"):
            await fleet.acquire(Ask(other))


async def test_a_full_fleet_does_not_spill(shelf: Shelf, remote: Remote) -> None:
    async with two(remote, spill_after_s=0.0) as fleet:
        one, other = neighbours(fleet, shelf)
        held = await fleet.acquire(Ask(one))
        elsewhere = next(each for each in fleet._engines.values() if each is not home(fleet, one))
        assert boot_of(elsewhere).admission.try_enter("somebody")
        waiting = asyncio.create_task(fleet.acquire(Ask(other)))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        held.release(answered=True)
        assert (await waiting).port == held.port


async def test_nobody_spills_to_an_engine_that_is_ejected_or_drained(shelf: Shelf, remote: Remote) -> None:
    async with two(remote, spill_after_s=0.0) as fleet:
        one, other = neighbours(fleet, shelf)
        await fleet.acquire(Ask(one))
        elsewhere = next(each for each in fleet._engines.values() if each is not home(fleet, one))
        fleet.follow(pinned=frozenset(), drained=frozenset({elsewhere.name}))
        with pytest.raises(Unavailable, match="no turn came"):
            await fleet.acquire(Ask(other))
        fleet.follow(pinned=frozenset(), drained=frozenset())
        elsewhere.failed("reset", fatal=True, began=fleet._clock())
        with pytest.raises(Unavailable, match="no turn came"):
            await fleet.acquire(Ask(other))


async def test_a_slot_that_is_there_already_is_taken_before_an_emptier_engine(
    shelf: Shelf, remote: Remote
) -> None:
    async with AsyncExitStack() as stack:
        stubs = [
            await stack.enter_async_context(Stub(plugin=report(loras=ONE_SLOT)).listening()) for _ in "123"
        ]
        fleet = await stack.enter_async_context(remote(*stubs, spill_after_s=0.1))
        await until("all serve", lambda: all(engine.boot for engine in fleet._engines.values()))
        version = shelf.add("support")
        first, *others = fleet._engines.values()
        at = home(fleet, version)
        holder = next(each for each in (first, *others) if each is not at)
        await boot_of(holder).residency.ensure(version)
        assert boot_of(holder).admission.try_enter(None)  # busier than the third, but with its slot free
        assert boot_of(at).admission.try_enter("somebody")
        lease = await fleet.acquire(Ask(version))
        assert lease.engine == holder.name
