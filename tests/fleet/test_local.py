"""The supervisor, with the fake engine as a real child process on a leash."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from gateway.errors import Unavailable
from gateway.fleet import Fleet, Stage
from gateway.fleet.client import Address
from gateway.fleet.launch import Command
from gateway.fleet.local import Launch
from gateway.fleet.precheck import CannotLaunch
from gateway.settings import Base, Engine, Settings
from gateway.settings import Fleet as FleetSettings
from tests.fleet.conftest import Ask, Shelf, authorization, leased, only, until


def kill(pid: int | None) -> None:
    """kill -9 of exactly one process: pid 0 would be our own whole group."""
    assert pid
    os.kill(pid, signal.SIGKILL)


def fake(settings: Settings, port: int, key: str, number: int = 0) -> Command:
    words = ("-m", "gateway.cli", "fake-engine", "--port", str(port), "--model", settings.base.name)
    return Command((sys.executable, *words), {**os.environ, "VLLM_API_KEY": key})


def deaf(settings: Settings, port: int, key: str, number: int = 0) -> Command:
    """An engine that never opens its port."""
    return Command((sys.executable, "-c", "import signal; signal.pause()"), dict(os.environ))


Home = Callable[..., AbstractAsyncContextManager[Fleet]]


@pytest.fixture
def home(shelf: Shelf, tmp_path: Path) -> Home:
    """`async with home() as fleet`: a started fleet that supervises one fake engine."""

    @asynccontextmanager
    async def run(
        launch: Launch = fake, said: list[str] | None = None, start_timeout_s: float = 30
    ) -> AsyncIterator[Fleet]:
        settings = Settings(
            state_dir=tmp_path / "state",
            base=Base(name="base"),
            engine=Engine(start_timeout_s=start_timeout_s, stop_timeout_s=5),
            fleet=FleetSettings(probe_interval_s=0.05),
        )
        say = (lambda line: None) if said is None else said.append
        fleet = Fleet(settings, shelf.wanted, shelf.path_of, launch=launch, say=say)
        async with fleet:
            yield fleet

    return run


def with_files(shelf: Shelf, name: str) -> Ask:
    version = shelf.add(name, desired=True)
    (shelf.path_of(version) / "adapter_config.json").write_text(json.dumps({"r": 8}))
    (shelf.path_of(version) / "adapter_model.safetensors").touch()
    return Ask(version)


async def answers(fleet: Fleet, ask: Ask) -> int:
    """The status of a completion through a lease, as the relay would send it."""
    async with leased(fleet, ask) as lease, httpx.AsyncClient(trust_env=False) as http:
        name = ask.version.name if ask.version else "base"
        answer = await http.post(
            f"http://{lease.host}:{lease.port}/v1/completions",
            json={"model": name, "prompt": "hello", "max_tokens": 2},
            headers={"authorization": authorization(lease)},
        )
        return answer.status_code


async def test_every_adapter_answers_again_after_a_kill_of_the_engine_with_twenty(
    home: Home, shelf: Shelf
) -> None:
    asks = [with_files(shelf, f"adapter-{number}") for number in range(20)]
    async with home() as fleet:
        await fleet.wait_ready(30)
        killed = await only(fleet)
        kill(killed.pid)
        await until("the death was noticed", lambda: not fleet.ready, 1)
        with pytest.raises(Unavailable) as refused:
            await fleet.acquire(asks[0])
        assert 1 <= (refused.value.retry_after_s or 0) <= 30
        await fleet.wait_ready(30)
        assert [200] * 20 == [await answers(fleet, ask) for ask in asks]
        back = await only(fleet)
        assert (1, True, True) == (back.restarts, back.pid != killed.pid, back.url != killed.url)


async def test_a_restarted_engine_has_another_key(home: Home) -> None:
    async with home() as fleet:
        await fleet.wait_ready(30)
        first = await fleet.acquire(Ask(None))
        kill((await only(fleet)).pid)
        await until("the death was noticed", lambda: not fleet.ready)
        await fleet.wait_ready(30)
        assert authorization(first) != authorization(await fleet.acquire(Ask(None)))


async def test_a_lease_during_a_start_is_told_to_wait_as_long_as_the_last_start_took(home: Home) -> None:
    async with home() as fleet:
        with pytest.raises(Unavailable) as first:
            await fleet.acquire(Ask(None))
        assert 25 < (first.value.retry_after_s or 0) <= 30
        await fleet.wait_ready(30)
        took_s = (await only(fleet)).start_s or 0
        kill((await only(fleet)).pid)
        await until("the death was noticed", lambda: not fleet.ready)
        with pytest.raises(Unavailable) as second:
            await fleet.acquire(Ask(None))
        assert (second.value.retry_after_s or 0) <= max(1.0, took_s + 0.5)


async def test_a_death_that_a_probe_saw_first_is_still_told_by_how_the_process_ended(home: Home) -> None:
    said: list[str] = []
    async with home(said=said) as fleet:
        await fleet.wait_ready(30)
        kill((await only(fleet)).pid)
        fleet._engines["local"].probe_soon()
        await until("it is said", lambda: any("ended by signal 9" in line for line in said))


async def test_stopping_ends_the_engine_and_everything_it_started(home: Home) -> None:
    async with home() as fleet:
        await fleet.wait_ready(30)
        process = psutil.Process((await only(fleet)).pid)
    assert not process.is_running()


async def test_a_start_is_told_step_by_step(home: Home) -> None:
    said: list[str] = []
    async with home(said=said) as fleet:
        await fleet.wait_ready(30)
    steps = [line.removeprefix("engine local: ").partition(" (")[0] for line in said]
    # The log is read ten times a second, so "opening its port" may be past when it is seen.
    assert ["importing", "loading adapters", "ready"] == [each for each in steps if each != Stage.OPENING]


async def test_an_engine_that_ends_at_once_is_started_again_and_says_why(home: Home) -> None:
    attempts: list[int] = []

    def flaky(settings: Settings, port: int, key: str, number: int = 0) -> Command:
        attempts.append(port)
        if len(attempts) == 1:
            script = "raise SystemExit('ValueError: To serve at least one request, 9 GiB are needed')"
            return Command((sys.executable, "-c", script), dict(os.environ))
        return fake(settings, port, key)

    said: list[str] = []
    async with home(flaky, said) as fleet:
        await fleet.wait_ready(30)
    assert 2 == len(set(attempts))
    assert any("exited with status 1: ValueError: To serve at least one request" in line for line in said)


async def test_what_keeps_an_engine_from_being_started_is_the_reason_shown(home: Home) -> None:
    def impossible(settings: Settings, port: int, key: str, number: int = 0) -> Command:
        raise CannotLaunch("torchvision does not import. Run: hotswap doctor --fix")

    async with home(impossible) as fleet:
        await until("it is said", lambda: "hotswap doctor --fix" in (fleet.reason or ""))
        state = await only(fleet)
        assert ("failed", None) == (state.status, state.pid)


async def test_a_child_that_dies_before_it_is_well_is_noticed_without_waiting_for_the_timeout(
    home: Home,
) -> None:
    async with home(deaf) as fleet:
        await until("it was started", lambda: fleet._engines["local"].pid is not None)
        kill(fleet._engines["local"].pid)
        await until("it was noticed", lambda: "signal 9" in (fleet.reason or ""), 2)


async def test_a_start_that_takes_too_long_is_given_up_and_told(home: Home) -> None:
    said: list[str] = []
    async with home(deaf, said, start_timeout_s=0.1) as fleet:
        await until("it is said", lambda: any("not ready" in line for line in said))
        await until("it was started again", lambda: fleet._engines["local"].starts == 2)


async def test_a_key_never_appears_where_an_engine_is_shown(home: Home) -> None:
    async with home() as fleet:
        await fleet.wait_ready(30)
        key = authorization(await fleet.acquire(Ask(None))).removeprefix("Bearer ")
        address = fleet._engines["local"].address
        assert isinstance(address, Address)
        assert key not in repr(address) + repr(await fleet.state())


async def test_an_engine_that_hangs_before_it_serves_does_not_block_the_stop(home: Home) -> None:
    async with asyncio.timeout(10):
        async with home(deaf) as fleet:
            await until("it was started", lambda: fleet._engines["local"].pid is not None)
