"""A bad engine is named with its reason, and the rest keep serving."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.fleet import Fleet
from gateway.fleet.events import Kind
from gateway.settings import Base, RemoteEngine, Settings
from gateway.settings import Fleet as FleetSettings
from tests.fleet.conftest import Ask, Shelf, leased, until
from tests.fleet.stub import Stub, report

OURS, THEIRS = "a" * 64, "b" * 64


def another_base(stub: Stub) -> None:
    stub.plugin = report(base_fingerprint=THEIRS)


def another_name(stub: Stub) -> None:
    stub.base = "llama"


def no_plugin(stub: Stub) -> None:
    stub.plugin = None


def a_web_page(stub: Stub) -> None:
    stub.plugin = {"message": "It works!"}


def a_kernel_that_mixes(stub: Stub) -> None:
    stub.plugin = report(lora_kernel="stock", admission={"enabled": False, "apart": False})


@asynccontextmanager
async def fleet_of(shelf: Shelf, tmp_path: Path, *stubs: Stub, **more: Any) -> AsyncIterator[Fleet]:
    settings = Settings(
        state_dir=tmp_path / "state",
        base=Base(name="base"),
        engines=tuple(
            RemoteEngine(url=stub.url, api_key_env="ENGINE_KEY", shared_store=True) for stub in stubs
        ),
        fleet=FleetSettings(probe_interval_s=0.02, probe_timeout_s=1.0),
    )
    environment = {"ENGINE_KEY": "engine-key"}
    fleet = Fleet(
        settings, shelf.wanted, shelf.path_of, environment=environment, base_fingerprint=OURS, **more
    )
    async with fleet:
        await fleet.wait_ready(5)
        yield fleet


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (another_base, "it serves another base"),
        (another_name, "it does not serve the base 'base' but llama"),
        (no_plugin, "our plugin does not answer there"),
        (a_web_page, "the plugin's report is not one"),
        (a_kernel_that_mixes, "its LoRA kernel is 'stock'"),
    ],
)
async def test_an_engine_that_must_not_serve_is_told_why_and_the_other_serves(
    spoil: Callable[[Stub], None], reason: str, shelf: Shelf, tmp_path: Path
) -> None:
    bad = Stub()
    spoil(bad)
    async with Stub().listening() as good, bad.listening(), fleet_of(shelf, tmp_path, good, bad) as fleet:
        engine = fleet._engines[f"127.0.0.1:{bad.port}"]
        await until("it is told", lambda: reason in (engine.reason or ""))
        for ask in (Ask(None), Ask(shelf.add("support"))):
            async with leased(fleet, ask) as lease:
                assert good.port == lease.port
        left = [event.engine for event in fleet.events.recent(100) if event.kind is Kind.LEFT]
        assert [engine.name] == left


async def test_an_engine_of_another_vllm_serves_degraded_and_keeps_base_and_adapters_apart(
    shelf: Shelf, tmp_path: Path
) -> None:
    stub = Stub()
    stub.plugin = report(
        vllm_version="0.40.0",
        lora_kernel="stock",
        self_test={"passed": False, "details": "vLLM 0.40.0 is not one that is known here"},
        admission={"enabled": True, "apart": True},
    )
    version = shelf.add("support")
    async with stub.listening(), fleet_of(shelf, tmp_path, stub) as fleet:
        base = await fleet.acquire(Ask(None))
        assert fleet.lease_now(Ask(None)) is not None
        waiting = asyncio.create_task(fleet.acquire(Ask(version)))
        await asyncio.sleep(0)
        assert not waiting.done()
        (degraded,) = [event for event in fleet.events.recent(100) if event.kind is Kind.DEGRADED]
        assert "vLLM 0.40.0 is not one that is known here" in degraded.reason
        waiting.cancel()
        base.release()


async def test_an_engine_that_vanishes_from_dns_leaves_and_the_rest_keep_serving(
    shelf: Shelf, tmp_path: Path
) -> None:
    named = {"127.0.0.1", "127.0.0.2"}

    async def resolve(host: str, port: int) -> Collection[str]:
        return sorted(named)

    async with Stub().listening() as stub:
        settings = Settings(
            state_dir=tmp_path / "state",
            base=Base(name="base"),
            engines=(RemoteEngine(url=f"dns://engines:{stub.port}", api_key_env="ENGINE_KEY"),),
            fleet=FleetSettings(probe_interval_s=0.02, dns_interval_s=0.02),
        )
        environment = {"ENGINE_KEY": "engine-key"}
        fleet = Fleet(settings, shelf.wanted, shelf.path_of, environment=environment, resolve=resolve)
        async with fleet:
            await fleet.wait_ready(5)
            await until("both are known", lambda: len(fleet._engines) == 2)
            named.remove("127.0.0.2")
            await until("one is gone", lambda: len(fleet._engines) == 1)
            async with leased(fleet, Ask(None)) as lease:
                assert "127.0.0.1" == lease.host
            left = [event.reason for event in fleet.events.recent(100) if event.kind is Kind.LEFT]
            assert any("vanished from DNS" in reason for reason in left)


async def test_a_pinned_version_is_pinned_in_its_engine_too(shelf: Shelf, tmp_path: Path) -> None:
    version, late = shelf.add("support"), shelf.add("late")
    async with Stub().listening() as stub, fleet_of(shelf, tmp_path, stub) as fleet:
        (await fleet.acquire(Ask(version))).release()
        fleet.follow(pinned=frozenset({version.name, late.name}), drained=frozenset())
        await until("it is pinned", lambda: f"{version.name}/pin" in stub.pins)
        (await fleet.acquire(Ask(late))).release()
        assert f"{late.name}/pin" in stub.pins
        fleet.follow(pinned=frozenset(), drained=frozenset())
        await until("it is let go", lambda: f"{version.name}/unpin" in stub.pins)
