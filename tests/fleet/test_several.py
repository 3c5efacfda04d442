"""Several engines as one: homes, failing over, draining, pins, turns, and making room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import pytest

from adapters.version import Version
from gateway.errors import Overloaded, Unavailable
from gateway.fleet import Fleet
from gateway.fleet.events import Kind
from gateway.fleet.residency import Residency
from tests.fleet.conftest import Ask, Remote, Shelf, leased, until
from tests.fleet.stub import Stub, report


@asynccontextmanager
async def several(remote: Remote, count: int = 2, **settings: Any) -> AsyncIterator[tuple[Fleet, list[Stub]]]:
    """A fleet of `count` engines that all serve."""
    async with AsyncExitStack() as stack:
        stubs = [await stack.enter_async_context(Stub().listening()) for _ in range(count)]
        fleet = await stack.enter_async_context(remote(*stubs, **settings))
        await until("all serve", lambda: all(engine.boot for engine in fleet._engines.values()))
        yield fleet, stubs


def home_of(fleet: Fleet, stubs: list[Stub], version: Version) -> tuple[Stub, Stub]:
    """The stub that `version` is placed at, and another."""
    name = fleet._router.homes(version.name)[0].name
    home = next(stub for stub in stubs if name.endswith(f":{stub.port}"))
    return home, next(stub for stub in stubs if stub is not home)


def kinds(fleet: Fleet) -> list[Kind]:
    return [event.kind for event in fleet.events.recent(1000)]


async def test_a_version_is_loaded_at_its_home_alone_however_many_ask(shelf: Shelf, remote: Remote) -> None:
    version = shelf.add("support")
    async with several(remote) as (fleet, stubs):
        home, other = home_of(fleet, stubs, version)
        ports = []
        for _ in range(10):
            async with leased(fleet, Ask(version)) as lease:
                ports.append(lease.port)
        assert {home.port} == set(ports)
        assert ([version.name], []) == (home.loads, other.loads)


async def test_versions_are_dealt_out_over_the_engines(shelf: Shelf, remote: Remote) -> None:
    for number in range(40):
        shelf.add(f"adapter-{number}", desired=True)
    async with several(remote) as (_, stubs):
        held = sorted(len(stub.loaded) for stub in stubs)
        assert 40 == sum(held)
        assert held[1] <= 25 + 1  # 1.25 of the mean, in whole versions


async def test_a_version_whose_home_is_down_is_served_by_the_other_engine(
    shelf: Shelf, remote: Remote
) -> None:
    version = shelf.add("support", desired=True)
    async with several(remote) as (fleet, stubs):
        home, other = home_of(fleet, stubs, version)
        home.health = 503
        await until("it is out", lambda: sum(bool(engine.boot) for engine in fleet._engines.values()) == 1)
        async with leased(fleet, Ask(version)) as lease:
            assert other.port == lease.port
        home.health = 200
        await until("it is back", lambda: all(engine.boot for engine in fleet._engines.values()))
        async with leased(fleet, Ask(version)) as lease:
            assert home.port == lease.port
        assert Kind.RECOVERED in kinds(fleet)


async def test_an_ejected_engine_gets_nothing_until_its_time_is_over(shelf: Shelf, remote: Remote) -> None:
    version = shelf.add("support", desired=True)
    async with several(remote, eject_s=0.3) as (fleet, stubs):
        home, other = home_of(fleet, stubs, version)
        (await fleet.acquire(Ask(version))).failed("it reset the connection", fatal=True)
        assert other.port == (await fleet.acquire(Ask(version))).port
        engine = fleet._router.homes(version.name)[0]
        await until("its time is over", lambda: engine.health.ejected() is None)
        back = await fleet.acquire(Ask(version))
        assert home.port == back.port
        back.release(answered=True)
        assert Kind.RECOVERED is kinds(fleet)[-1]
        (ejected,) = [event for event in fleet.events.recent(100) if event.kind is Kind.EJECTED]
        assert "it reset the connection" in ejected.reason


async def test_when_all_are_ejected_all_may_be_tried(shelf: Shelf, remote: Remote) -> None:
    async with several(remote) as (fleet, _):
        for engine in fleet._engines.values():
            engine.failed("reset", fatal=True, began=fleet._clock())
        async with leased(fleet, Ask(None)) as lease:
            assert lease.port


async def test_an_engine_that_failed_a_request_is_not_asked_for_it_again(
    shelf: Shelf, remote: Remote
) -> None:
    version = shelf.add("support")
    async with several(remote) as (fleet, stubs):
        home, other = home_of(fleet, stubs, version)
        tried = (f"127.0.0.1:{home.port}",)
        assert other.port == (await fleet.acquire(Ask(version), tried=tried)).port
        both = tuple(f"127.0.0.1:{stub.port}" for stub in stubs)
        assert not fleet.has_other(both)
        with pytest.raises(Unavailable, match="no engine could answer"):
            await fleet.acquire(Ask(version), tried=both)


async def test_a_drained_engine_ends_what_it_has_and_gets_nothing_new(shelf: Shelf, remote: Remote) -> None:
    version = shelf.add("support", desired=True)
    async with several(remote) as (fleet, stubs):
        home, other = home_of(fleet, stubs, version)
        lease = await fleet.acquire(Ask(version))
        fleet.follow(pinned=frozenset(), drained=frozenset({f"127.0.0.1:{home.port}"}))
        assert other.port == (await fleet.acquire(Ask(version))).port
        assert Kind.DRAINING in kinds(fleet)
        assert Kind.DRAINED not in kinds(fleet)
        lease.release()
        await until("it is drained", lambda: Kind.DRAINED in kinds(fleet))
        fleet.follow(pinned=frozenset(), drained=frozenset())
        assert home.port == (await fleet.acquire(Ask(version))).port


async def test_loads_are_paced_while_an_engine_serves_and_not_before(
    stub: Stub, shelf: Shelf, remote: Remote
) -> None:
    for number in range(20):
        shelf.add(f"desired-{number}", desired=True)
    more = [shelf.add(f"more-{number}") for number in range(3)]
    began = asyncio.get_running_loop().time()
    async with remote(stub, loads_per_s=4, load_burst=1) as fleet:
        assert 20 == len(stub.loaded)
        assert asyncio.get_running_loop().time() - began < 4  # at four a second it were five
        began = asyncio.get_running_loop().time()
        for version in more:
            (await fleet.acquire(Ask(version))).release()
        assert asyncio.get_running_loop().time() - began >= 0.5


async def test_a_promoted_version_is_loaded_at_its_home_before_anyone_asks(
    shelf: Shelf, remote: Remote
) -> None:
    async with several(remote) as (fleet, stubs):
        version = shelf.add("support", desired=True)
        fleet.follow(pinned=frozenset(), drained=frozenset())
        home, other = home_of(fleet, stubs, version)
        await until("it is there", lambda: version.name in home.loaded)
        assert {} == other.loaded


async def test_a_superseded_version_is_unloaded_unless_a_request_uses_it(
    stub: Stub, shelf: Shelf, remote: Remote
) -> None:
    idle, used = shelf.add("idle"), shelf.add("used")
    async with remote(stub) as fleet:
        (await fleet.acquire(Ask(idle))).release()
        await fleet.acquire(Ask(used))
        fleet.follow(pinned=frozenset(), drained=frozenset(), superseded=[idle.name, used.name])
        await until("it is gone", lambda: idle.name not in stub.loaded)
        assert [used.name] == list(stub.loaded)


async def test_the_least_recently_used_makes_room_before_the_engine_would_evict(
    stub: Stub, shelf: Shelf, remote: Remote
) -> None:
    stub.plugin = report(loras={"max_loras": 2, "max_lora_rank": 32, "max_cpu_loras": 3})
    first, second, third, fourth = (shelf.add(f"adapter-{number}") for number in range(4))
    async with remote(stub) as fleet:
        for version in (first, second, third, first):
            (await fleet.acquire(Ask(version))).release()
        (await fleet.acquire(Ask(fourth))).release()
        assert [second.name] == stub.unloads
        assert {first.name, third.name, fourth.name} == set(stub.loaded)
        (evicted,) = [event for event in fleet.events.recent(100) if event.kind is Kind.EVICTED]
        assert (second.name, True) == (evicted.version, fourth.name in evicted.reason)


async def test_neither_pinned_versions_nor_those_in_flight_make_room(
    stub: Stub, shelf: Shelf, remote: Remote
) -> None:
    stub.plugin = report(loras={"max_loras": 2, "max_lora_rank": 32, "max_cpu_loras": 3})
    pinned, used, idle, new = (shelf.add(name) for name in ("pinned", "used", "idle", "new"))
    async with remote(stub) as fleet:
        fleet.follow(pinned=frozenset({pinned.name}), drained=frozenset())
        (await fleet.acquire(Ask(pinned))).release()
        await fleet.acquire(Ask(used))
        (await fleet.acquire(Ask(idle))).release()
        (await fleet.acquire(Ask(new))).release()
        assert [idle.name] == stub.unloads


async def test_more_distinct_versions_than_slots_wait_for_their_turn(
    stub: Stub, shelf: Shelf, remote: Remote
) -> None:
    stub.plugin = report(loras={"max_loras": 2, "max_lora_rank": 32, "max_cpu_loras": 8})
    versions = [shelf.add(f"adapter-{number}") for number in range(3)]
    async with remote(stub) as fleet:
        leases = [await fleet.acquire(Ask(version)) for version in versions[:2]]
        assert fleet.lease_now(Ask(versions[2])) is None
        waiting = asyncio.create_task(fleet.acquire(Ask(versions[2])))
        await until("it waits", lambda: next(iter(fleet._engines.values())).boot.admission.waiting == 1)  # type: ignore[union-attr]
        assert not waiting.done()
        leases[0].release()
        (await waiting).release()
        assert versions[2].name in stub.loaded


async def test_a_request_that_waited_too_long_is_told_when_to_come_again(
    stub: Stub, shelf: Shelf, remote: Remote
) -> None:
    stub.plugin = report(loras={"max_loras": 1, "max_lora_rank": 32, "max_cpu_loras": 8})
    one, other = shelf.add("one"), shelf.add("other")
    async with remote(stub, queue_timeout_s=0.05) as fleet:
        await fleet.acquire(Ask(one))
        with pytest.raises(Unavailable, match=r"no turn came within 0\.05 s") as raised:
            await fleet.acquire(Ask(other))
        assert 1 <= (raised.value.retry_after_s or 0) <= 120
        assert "queue_timeout" == raised.value.code


async def test_a_full_queue_is_a_429(stub: Stub, shelf: Shelf, remote: Remote) -> None:
    stub.plugin = report(loras={"max_loras": 1, "max_lora_rank": 32, "max_cpu_loras": 8})
    one, *others = (shelf.add(f"adapter-{number}") for number in range(3))
    async with remote(stub, queue=1) as fleet:
        await fleet.acquire(Ask(one))
        waiting = asyncio.create_task(fleet.acquire(Ask(others[0])))
        await until("it waits", lambda: next(iter(fleet._engines.values())).boot.admission.waiting == 1)  # type: ignore[union-attr]
        with pytest.raises(Overloaded):
            await fleet.acquire(Ask(others[1]))
        waiting.cancel()


async def test_waiters_of_an_engine_that_dies_go_to_another(shelf: Shelf, remote: Remote) -> None:
    version, blocker = shelf.add("support"), shelf.add("blocker")
    async with several(remote, max_in_flight=1) as (fleet, stubs):
        home, other = home_of(fleet, stubs, version)
        engine = fleet._router.homes(version.name)[0]
        assert engine.boot is not None
        assert engine.boot.admission.try_enter(blocker.name)
        waiting = asyncio.create_task(fleet.acquire(Ask(version)))
        await until("it waits", lambda: engine.boot is not None and engine.boot.admission.waiting == 1)
        home.health = 503
        assert other.port == (await waiting).port


async def test_an_engine_without_the_plugin_never_mixes_base_and_adapters(
    stub: Stub, shelf: Shelf, remote: Remote
) -> None:
    stub.plugin = None
    version = shelf.add("support")
    async with remote(stub, require_plugin=False) as fleet:
        base = await fleet.acquire(Ask(None))
        waiting = asyncio.create_task(fleet.acquire(Ask(version)))
        await asyncio.sleep(0)
        assert fleet.lease_now(Ask(version)) is None
        base.release()
        lease = await waiting
        assert fleet.lease_now(Ask(None)) is None
        lease.release()
        assert Kind.DEGRADED in kinds(fleet)


async def test_what_another_gateway_loads_or_removes_is_seen(
    stub: Stub, shelf: Shelf, remote: Remote
) -> None:
    mine, theirs = shelf.add("mine"), shelf.add("theirs")
    async with remote(stub) as fleet:
        (await fleet.acquire(Ask(mine))).release()
        del stub.loaded[mine.name]
        stub.loaded[theirs.name] = "fetched"
        residency = next(iter(fleet._engines.values())).residency
        assert residency is not None
        await until("both are seen", partial(_both, residency, mine.name, theirs.name))
        lease = fleet.lease_now(Ask(theirs))
        assert lease is not None
        assert [mine.name] == stub.loads


def _both(residency: Residency, gone: str, there: str) -> bool:
    return residency.loaded(gone) is None and residency.loaded(there) is not None
