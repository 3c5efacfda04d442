"""From `model` to one version."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from adapters.version import State, Version
from gateway.errors import NotFound
from gateway.rollout.routes import Routes

MADE = datetime(2026, 11, 22, tzinfo=UTC)


def version(adapter: str, number: int, digest: str) -> Version:
    return Version(adapter, number, digest * (64 // len(digest)), State.REGISTERED, 1, 8, {}, MADE)


ONE, TWO = version("support", 1, "1a"), version("support", 2, "2b")


@dataclass
class Registry:
    """A registry that answers from memory; `broken` makes it fail as a lost database does."""

    stable: Version = ONE
    broken: bool = False
    routes: dict[str, Version] = field(default_factory=dict)
    versions: dict[str, Version] = field(default_factory=dict)
    numbers: dict[tuple[str, int], Version] = field(default_factory=dict)

    async def snapshot(self) -> Registry:
        if self.broken:
            raise OSError("no database")
        both = (ONE, TWO)
        return Registry(
            routes={"support": self.stable},
            versions={v.name: v for v in both},
            numbers={(v.adapter, v.number): v for v in both},
        )


class SlowFirst(Registry):
    """Its first reading is held back until `go`, with the state that it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.reading, self.go = asyncio.Event(), asyncio.Event()

    async def snapshot(self) -> Registry:
        seen = await super().snapshot()
        if not self.reading.is_set():
            self.reading.set()
            await self.go.wait()
        return seen


@pytest.fixture
async def routes() -> Routes:
    made = Routes(Registry(), base="base")
    await made.refresh()
    return made


@pytest.mark.parametrize(
    "model", ["support", "support@v1", ONE.name, f"support@{ONE.digest}", ONE.name + "1a1"]
)
def test_a_route_and_every_form_of_a_pin_lead_to_the_version(routes: Routes, model: str) -> None:
    target = routes.resolve(model)
    assert target.version == ONE
    assert target.engine_name == "support@1a1a1a1a1a1a"


def test_the_base_has_no_version(routes: Routes) -> None:
    assert routes.resolve("base").version is None


def test_the_base_answers_before_the_registry_was_ever_read() -> None:
    assert Routes(Registry(), base="base").resolve("base").engine_name == "base"


@pytest.mark.parametrize(
    "model",
    ["", "nobody", "support@v3", "support@ffffffffffff", ONE.name + "2", "support@1a1a", "Support", "../x"],
)
def test_what_does_not_exist_is_not_found(routes: Routes, model: str) -> None:
    with pytest.raises(NotFound) as refused:
        routes.resolve(model)
    assert refused.value.code == "model_not_found"


def test_an_unknown_pin_names_what_the_route_serves(routes: Routes) -> None:
    with pytest.raises(NotFound, match="'support' is at v1"):
        routes.resolve("support@v9")


def test_a_very_long_model_is_not_repeated_whole(routes: Routes) -> None:
    with pytest.raises(NotFound) as refused:
        routes.resolve("x" * 10_000)
    assert len(refused.value.message) < 300


async def test_a_refresh_moves_the_route_and_leaves_the_pins() -> None:
    registry = Registry()
    routes = Routes(registry, base="base")
    await routes.refresh()
    registry.stable = TWO
    await routes.refresh()
    assert routes.resolve("support").version == TWO
    assert routes.resolve("support@v1").version == ONE


async def test_a_failed_refresh_leaves_the_last_table_in_force() -> None:
    registry = Registry()
    routes = Routes(registry, base="base")
    await routes.refresh()
    registry.broken = True
    with pytest.raises(OSError, match="no database"):
        await routes.refresh()
    assert routes.resolve("support").version == ONE


async def test_a_slow_reading_of_an_older_state_does_not_win() -> None:
    slow = SlowFirst()
    routes = Routes(slow, base="base")
    older = asyncio.create_task(routes.refresh())
    await slow.reading.wait()
    slow.stable = TWO
    newer = asyncio.create_task(routes.refresh())
    await asyncio.sleep(0)
    slow.go.set()
    await asyncio.gather(older, newer)
    assert routes.resolve("support").version == TWO


def test_models_lists_base_routes_and_versions(routes: Routes) -> None:
    assert [model["id"] for model in routes.models()] == ["base", "support", ONE.name, TWO.name]


def test_engines_should_hold_the_stable_version_of_every_route(routes: Routes) -> None:
    assert routes.desired() == [ONE]
