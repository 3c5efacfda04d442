"""An engine takes requests only while it is well, checked, and holds what it should."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gateway.errors import Unavailable
from gateway.fleet import Fleet, Stage
from gateway.fleet.client import Address
from gateway.settings import Engine, RemoteEngine, Settings, SettingsError
from tests.fleet.conftest import Ask, Remote, Shelf, leased, only, until
from tests.fleet.stub import Stub, report


async def test_desired_versions_are_loaded_in_order_before_the_first_request(
    stub: Stub, shelf: Shelf, remote: Remote
) -> None:
    versions = [shelf.add(f"adapter-{number}", desired=True) for number in range(20)]
    async with remote(stub):
        assert [version.name for version in versions] == stub.loads


async def test_an_engine_that_is_still_loading_adapters_takes_no_requests(
    stub: Stub, shelf: Shelf, remote: Remote
) -> None:
    shelf.add("support", desired=True)
    stub.load_gate.clear()
    async with remote(stub, ready=False) as fleet:
        await stub.load_asked.wait()
        with pytest.raises(Unavailable, match="reconciling"):
            await fleet.acquire(Ask(None))
        assert "reconciling" == (await only(fleet)).status
        stub.load_gate.set()
        await fleet.wait_ready(5)


async def test_no_more_versions_are_loaded_beforehand_than_the_engine_keeps_in_memory(
    stub: Stub, shelf: Shelf, remote: Remote
) -> None:
    for number in range(5):
        shelf.add(f"adapter-{number}", desired=True)
    stub.plugin = report(loras={"max_loras": 1, "max_cpu_loras": 3})
    async with remote(stub):
        assert 3 == len(stub.loads)


async def test_a_version_that_cannot_be_loaded_does_not_keep_an_engine_out_of_service(
    stub: Stub, shelf: Shelf, remote: Remote
) -> None:
    shelf.add("broken", desired=True)
    sound = shelf.add("sound", desired=True)
    stub.refuse_loads = 1
    async with remote(stub):
        assert {sound.name} == set(stub.loaded)


async def test_a_changed_boot_id_loads_everything_again(stub: Stub, shelf: Shelf, remote: Remote) -> None:
    version = shelf.add("support", desired=True)
    async with remote(stub) as fleet:
        stub.reboot("boot-2")
        await until("the new boot holds the adapter", lambda: version.name in stub.loaded)
        await fleet.wait_ready(5)
        assert "boot-2" == (await only(fleet)).boot_id


async def test_an_engine_that_says_it_is_dead_is_out_of_service_until_it_is_well(
    stub: Stub, remote: Remote
) -> None:
    async with remote(stub) as fleet:
        stub.health = 503
        await until("the fleet noticed", lambda: not fleet.ready)
        with pytest.raises(Unavailable):
            await fleet.acquire(Ask(None))
        stub.health = 200
        await fleet.wait_ready(5)


async def test_a_connection_that_was_closed_under_a_probe_does_not_put_a_well_engine_out_of_service(
    stub: Stub, shelf: Shelf, remote: Remote
) -> None:
    shelf.add("support", desired=True)
    async with remote(stub) as fleet:
        stub.cut = 1
        await until("a probe was cut", lambda: stub.cut == 0)
        await fleet.acquire(Ask(shelf.add("probed-after-that")))
        assert 0 == (await only(fleet)).restarts
        assert fleet.ready


async def test_an_engine_that_went_away_is_unavailable_and_comes_back(shelf: Shelf, remote: Remote) -> None:
    version = shelf.add("support", desired=True)
    async with AsyncExitStack() as stack:
        stub = Stub()
        async with stub.listening():
            fleet = await stack.enter_async_context(remote(stub))
        await until("the fleet noticed", lambda: not fleet.ready)
        with pytest.raises(Unavailable) as refused:
            await fleet.acquire(Ask(version))
        assert 1 <= (refused.value.retry_after_s or 0) <= 30
        stub.reboot("boot-2")
        await stack.enter_async_context(stub.listening(stub.port))
        await fleet.wait_ready(5)
        assert [version.name] * 2 == stub.loads


async def test_an_engine_without_our_plugin_is_not_taken_into_service(stub: Stub, remote: Remote) -> None:
    stub.plugin = None
    async with remote(stub, ready=False) as fleet:
        await until("it was judged", lambda: "plugin" in (fleet.reason or ""))
        with pytest.raises(Unavailable):
            await fleet.acquire(Ask(None))
        assert "failed" == (await only(fleet)).status


async def test_an_engine_without_our_plugin_serves_when_none_is_required(
    stub: Stub, remote: Remote, caplog: pytest.LogCaptureFixture
) -> None:
    stub.plugin = None
    async with remote(stub, require_plugin=False) as fleet, leased(fleet, Ask(None)) as lease:
        assert not lease.prompt_logprobs_safe
        assert "fleet.require_plugin is off" in caplog.text


async def test_an_engine_that_serves_another_base_is_not_taken_into_service(
    stub: Stub, remote: Remote
) -> None:
    stub.base = "some-other-base"
    async with remote(stub, ready=False) as fleet:
        await until("it was judged", lambda: "some-other-base" in (fleet.reason or ""))


async def test_a_wrong_engine_key_is_shown_as_the_reason(stub: Stub, remote: Remote) -> None:
    stub.key = "another-key"
    async with remote(stub, ready=False) as fleet:
        await until("it is said", lambda: "/health answered 401" in (fleet.reason or ""))


async def test_every_request_to_an_engine_carries_its_key(stub: Stub, shelf: Shelf, remote: Remote) -> None:
    async with remote(stub) as fleet:
        await fleet.acquire(Ask(shelf.add("support")))
        await fleet.forget(shelf.add("other"))
        assert 0 == stub.unauthorized


async def test_requests_go_to_the_engine_with_the_least_in_flight(remote: Remote) -> None:
    async with AsyncExitStack() as stack:
        stubs = [await stack.enter_async_context(Stub().listening()) for _ in range(2)]
        fleet = await stack.enter_async_context(remote(*stubs))
        await until("both serve", lambda: all(engine.boot for engine in fleet._engines.values()))
        ports = [(await fleet.acquire(Ask(None))).port for _ in range(4)]
        assert [2, 2] == [ports.count(stub.port) for stub in stubs]


async def test_a_lease_released_twice_counts_once(stub: Stub, remote: Remote) -> None:
    async with remote(stub) as fleet:
        leases = [await fleet.acquire(Ask(None)) for _ in range(2)]
        leases[0].release()
        leases[0].release()
        assert 1 == (await only(fleet)).in_flight


async def test_a_lease_of_a_loaded_version_never_yields_to_the_event_loop(
    stub: Stub, shelf: Shelf, remote: Remote
) -> None:
    version = shelf.add("support", desired=True)
    async with remote(stub) as fleet:
        with pytest.raises(StopIteration):
            fleet.acquire(Ask(version)).send(None)


def test_waiting_for_a_start_takes_the_last_start_less_what_has_passed_and_at_least_a_second(
    shelf: Shelf,
) -> None:
    now = [100.0]
    engine = Fleet(Settings(), shelf.wanted, shelf.path_of, clock=lambda: now[0])._engines["local"]
    engine.took_s = 12.0
    engine.starting(Address("127.0.0.1", 1), pid=1)
    waits = [engine.retry_after_s]
    for now[0] in (105.0, 120.0):
        waits.append(engine.retry_after_s)
    assert [12.0, 7.0, 1.0] == waits


def test_a_step_of_a_start_that_is_past_is_not_told(shelf: Shelf) -> None:
    said: list[str] = []
    engine = Fleet(Settings(), shelf.wanted, shelf.path_of, say=said.append)._engines["local"]
    engine.starting(Address("127.0.0.1", 1), pid=1)
    engine.progress(Stage.LOADING_ADAPTERS)
    engine.progress(Stage.OPENING)
    assert 2 == len(said)


async def test_a_fleet_without_engines_says_so(shelf: Shelf, tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, engine=Engine(enabled=False))
    async with Fleet(settings, shelf.wanted, shelf.path_of) as fleet:
        with pytest.raises(Unavailable, match="this gateway has no engine"):
            await fleet.acquire(Ask(None))


@pytest.mark.parametrize("url", ["https://engine:8000", "engine:8000", "http://engine/prefix"])
def test_an_engine_url_that_the_relay_cannot_speak_to_is_refused(url: str, shelf: Shelf) -> None:
    settings = Settings(engines=(RemoteEngine(url=url),))
    with pytest.raises(SettingsError, match="is not http://host:port"):
        Fleet(settings, shelf.wanted, shelf.path_of)


def test_a_named_engine_key_that_is_not_set_is_refused(shelf: Shelf) -> None:
    settings = Settings(engines=(RemoteEngine(url="http://engine:1", api_key_env="NOWHERE"),))
    with pytest.raises(SettingsError, match="NOWHERE"):
        Fleet(settings, shelf.wanted, shelf.path_of, environment={})


async def test_stopping_leaves_no_task_behind(stub: Stub, shelf: Shelf, remote: Remote) -> None:
    before = asyncio.all_tasks()
    version = shelf.add("support")
    async with remote(stub) as fleet:
        stub.load_gate.clear()
        waiter = asyncio.ensure_future(fleet.acquire(Ask(version)))
        await stub.load_asked.wait()
    stub.load_gate.set()
    with pytest.raises(Unavailable):
        await waiter
    assert {task for task in asyncio.all_tasks() - before if "_serve" not in repr(task)} == set()
