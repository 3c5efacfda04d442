"""A version gets to an engine exactly once, and out of it only when nothing uses it."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import NotFound, Unavailable
from tests.fleet.conftest import Ask, Remote, Shelf, authorization, leased, only
from tests.fleet.stub import Stub


async def test_fifty_concurrent_first_requests_make_one_load(
    stub: Stub, shelf: Shelf, remote: Remote
) -> None:
    version = shelf.add("support")
    async with remote(stub) as fleet:
        leases = await asyncio.gather(*(fleet.acquire(Ask(version)) for _ in range(50)))
        assert [version.name] == stub.loads
        assert 50 == len(leases)


async def test_a_load_names_the_version_and_its_absolute_folder(
    stub: Stub, shelf: Shelf, remote: Remote
) -> None:
    version = shelf.add("support")
    async with remote(stub) as fleet:
        await fleet.acquire(Ask(version))
        assert {version.name: str(shelf.path_of(version))} == stub.loaded


async def test_two_versions_are_never_sent_at_the_same_time(stub: Stub, shelf: Shelf, remote: Remote) -> None:
    versions = [shelf.add(f"adapter-{number}") for number in range(5)]
    async with remote(stub) as fleet, asyncio.TaskGroup() as group:
        stub.load_gate.clear()
        for version in versions:
            group.create_task(fleet.acquire(Ask(version)))
        await stub.load_asked.wait()
        await fleet.state()  # a round trip to the engine: a second load would have come along
        assert 1 == len(stub.loads)
        stub.load_gate.set()
    assert 5 == len(stub.loaded)


async def test_the_base_needs_no_load(stub: Stub, remote: Remote) -> None:
    async with remote(stub) as fleet, leased(fleet, Ask(None)) as lease:
        assert (stub.port, "Bearer engine-key") == (lease.port, authorization(lease))
        assert [] == stub.loads


async def test_a_failed_load_is_told_to_all_waiters_and_tried_again_by_the_next(
    stub: Stub, shelf: Shelf, remote: Remote
) -> None:
    version = shelf.add("support")
    async with remote(stub) as fleet:
        stub.refuse_loads = 1
        answers = await asyncio.gather(
            *(fleet.acquire(Ask(version)) for _ in range(3)), return_exceptions=True
        )
        assert ["adapter_load_failed"] * 3 == [getattr(answer, "code", None) for answer in answers]
        await fleet.acquire(Ask(version))
        assert [version.name] * 2 == stub.loads


async def test_a_failed_load_does_not_tell_clients_where_the_store_is(
    stub: Stub, shelf: Shelf, remote: Remote
) -> None:
    version = shelf.add("support")
    async with remote(stub) as fleet:
        stub.refuse_loads = 1
        with pytest.raises(Unavailable) as refused:
            await fleet.acquire(Ask(version))
        assert f"rank 64 at {version.name} is too large" in refused.value.message
        assert str(shelf.root) not in refused.value.message


async def test_an_engine_that_already_has_the_version_counts_as_loaded(
    stub: Stub, shelf: Shelf, remote: Remote
) -> None:
    version = shelf.add("support")
    stub.loaded[version.name] = "earlier"
    async with remote(stub) as fleet, leased(fleet, Ask(version)) as lease:
        assert stub.port == lease.port


async def test_a_waiter_that_leaves_does_not_cancel_the_load_for_the_others(
    stub: Stub, shelf: Shelf, remote: Remote
) -> None:
    version = shelf.add("support")
    async with remote(stub) as fleet, asyncio.TaskGroup() as group:
        stub.load_gate.clear()
        leaver, stayer = (group.create_task(fleet.acquire(Ask(version))) for _ in range(2))
        await stub.load_asked.wait()
        leaver.cancel()
        await asyncio.wait([leaver])
        stub.load_gate.set()
        assert stub.port == (await stayer).port
        assert [version.name] == stub.loads


async def test_a_version_whose_files_are_gone_is_not_found_and_never_sent(
    stub: Stub, shelf: Shelf, remote: Remote
) -> None:
    version = shelf.add("support")
    shelf.path_of(version).rmdir()
    async with remote(stub) as fleet:
        with pytest.raises(NotFound) as gone:
            await fleet.acquire(Ask(version))
        assert "model_not_found" == gone.value.code
        assert [] == stub.loads


async def test_a_load_slower_than_its_timeout_is_unavailable(
    stub: Stub, shelf: Shelf, remote: Remote
) -> None:
    version = shelf.add("support")
    async with remote(stub, load_timeout_s=0.05) as fleet:
        stub.load_gate.clear()
        with pytest.raises(Unavailable, match="did not answer within"):
            await fleet.acquire(Ask(version))
        stub.load_gate.set()


async def test_a_stale_lease_has_its_version_loaded_again(stub: Stub, shelf: Shelf, remote: Remote) -> None:
    version = shelf.add("support")
    async with remote(stub) as fleet:
        async with leased(fleet, Ask(version)) as lease:
            stub.loaded.clear()
            lease.stale()
        async with leased(fleet, Ask(version)):
            assert [version.name] * 2 == stub.loads


async def test_old_news_of_a_stale_version_is_ignored_after_it_was_loaded_again(
    stub: Stub, shelf: Shelf, remote: Remote
) -> None:
    version = shelf.add("support")
    async with remote(stub) as fleet:
        first, second = [await fleet.acquire(Ask(version)) for _ in range(2)]
        first.stale()
        await fleet.acquire(Ask(version))
        second.stale()
        await fleet.acquire(Ask(version))
        assert [version.name] * 2 == stub.loads


async def test_forgetting_waits_for_requests_in_flight_then_unloads_then_deletes(
    stub: Stub, shelf: Shelf, remote: Remote
) -> None:
    version = shelf.add("support")
    happened: list[str] = []
    async with remote(stub) as fleet, asyncio.TaskGroup() as group:
        lease = await fleet.acquire(Ask(version))
        forgetting = group.create_task(
            fleet.forget(version, then=lambda: happened.append(f"unloaded {stub.unloads}"))
        )
        await asyncio.sleep(0)
        with pytest.raises(NotFound):
            await fleet.acquire(Ask(version))
        assert ([], []) == (stub.unloads, happened)
        lease.release()
        assert await forgetting
        assert [f"unloaded ['{version.name}']"] == happened


async def test_forgetting_past_its_deadline_leaves_the_files(
    stub: Stub, shelf: Shelf, remote: Remote
) -> None:
    version = shelf.add("support")
    happened: list[str] = []
    async with remote(stub) as fleet, leased(fleet, Ask(version)):
        drained = await fleet.forget(version, deadline_s=0.01, then=lambda: happened.append("deleted"))
        assert (False, []) == (drained, happened)


async def test_forgetting_a_version_that_is_just_being_loaded_unloads_it(
    stub: Stub, shelf: Shelf, remote: Remote
) -> None:
    version = shelf.add("support")
    async with remote(stub) as fleet, asyncio.TaskGroup() as group:
        stub.load_gate.clear()
        first = group.create_task(_outcome(fleet.acquire(Ask(version))))
        await stub.load_asked.wait()
        forgetting = group.create_task(fleet.forget(version))
        await asyncio.sleep(0)
        stub.load_gate.set()
        assert "NotFound" == await first
        assert await forgetting
        assert {} == stub.loaded


async def test_forgetting_a_version_that_the_engine_does_not_know_is_done(
    stub: Stub, shelf: Shelf, remote: Remote
) -> None:
    version = shelf.add("support")
    async with remote(stub) as fleet:
        (await fleet.acquire(Ask(version))).release()
        stub.loaded.clear()
        assert await fleet.forget(version)


async def test_a_version_may_come_back_after_it_was_forgotten(
    stub: Stub, shelf: Shelf, remote: Remote
) -> None:
    version = shelf.add("support")
    async with remote(stub) as fleet:
        await fleet.acquire(Ask(version))
        lease = await fleet.acquire(Ask(version))
        lease.release()
        await fleet.forget(version, deadline_s=0.01)
        async with leased(fleet, Ask(version)):
            assert {version.name} == set(stub.loaded)


async def test_state_shows_versions_with_their_requests_in_flight(
    stub: Stub, shelf: Shelf, remote: Remote
) -> None:
    version = shelf.add("support")
    async with remote(stub) as fleet:
        async with leased(fleet, Ask(version)):
            (shown,) = (await only(fleet)).versions
            assert (version.name, "active", 1) == (shown.name, shown.residency, shown.in_flight)
        assert 0 == (await only(fleet)).in_flight


async def _outcome(work: object) -> str:
    try:
        await work  # type: ignore[misc]
    except (NotFound, Unavailable) as error:
        return type(error).__name__
    return "leased"
