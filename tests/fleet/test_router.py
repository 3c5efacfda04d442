"""Which engine gets a request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from gateway.fleet.events import Kind
from gateway.fleet.health import Health
from gateway.fleet.placement import order
from gateway.fleet.router import SPREAD_FROM, Router


@dataclass(eq=False)
class FakeEngine:
    name: str
    fullness: float = 0.0
    takes_requests: bool = True
    draining: bool = False
    capacity: float = 8.0
    cache: int = 64
    in_flight: dict[str, int] = field(default_factory=dict)
    health: Health = field(default_factory=Health)

    def demand(self) -> dict[str, int]:
        return self.in_flight


def router_of(*engines: FakeEngine, told: list[Any] | None = None) -> Router:
    told = [] if told is None else told
    named = {engine.name: engine for engine in engines}
    return Router(cast(Any, named), lambda kind, version, reason: told.append((kind, version, reason)))


async def test_a_version_has_one_home_and_every_gateway_the_same() -> None:
    engines = [FakeEngine(f"engine-{number}") for number in range(5)]
    chosen = []
    for _ in range(2):
        router = router_of(*engines)
        await router.replace(["support"])
        chosen.append([engine.name for engine in router.homes("support")])
    assert 1 == len(chosen[0])
    assert chosen[0] == chosen[1]


async def test_a_hot_version_gets_more_homes_and_loses_them_again() -> None:
    told: list[Any] = []
    engines = [FakeEngine(f"engine-{number}") for number in range(4)]
    router = router_of(*engines, told=told)
    await router.replace(["hot", "cold"])
    engines[0].in_flight = {"hot": 40}
    for _ in range(6):
        router._demand.sample(engine.demand() for engine in engines)
        await router.replace(["hot", "cold"])
    assert len(router.homes("hot")) > 1
    assert 1 == len(router.homes("cold"))
    assert Kind.SPREAD in [kind for kind, *_ in told]
    engines[0].in_flight = {}
    for _ in range(40):
        router._demand.sample(engine.demand() for engine in engines)
        await router.replace(["hot", "cold"])
    assert 1 == len(router.homes("hot"))
    assert Kind.SHRUNK in [kind for kind, *_ in told]


async def test_versions_that_come_after_none_are_placed() -> None:
    router = router_of(*[FakeEngine(f"engine-{number}") for number in range(3)])
    await router.replace([])
    await router.replace(["first", "second"])
    assert router.placement is not None
    assert {1} == {len(router.placement.homes(name)) for name in ("first", "second")}
    await router.replace([])
    await router.replace(["second"])
    assert 1 == len(router.homes("second"))


async def test_a_placement_that_fails_leaves_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    router = router_of(*[FakeEngine(f"engine-{number}") for number in range(3)])
    await router.replace(["support"])
    before = router.placement

    def broken(*arguments: object, **options: object) -> None:
        raise IndexError("out of bounds")

    monkeypatch.setattr("gateway.fleet.router.place", broken)
    await router.replace(["support", "other"])
    assert before is router.placement


async def test_little_traffic_is_not_spread_however_alone_it_is() -> None:
    engines = [FakeEngine(f"engine-{number}") for number in range(4)]
    router = router_of(*engines)
    engines[0].in_flight = {"only": 1}
    assert SPREAD_FROM > 1
    for _ in range(6):
        router._demand.sample(engine.demand() for engine in engines)
        await router.replace(["only"])
    assert 1 == len(router.homes("only"))


def test_the_base_goes_where_the_prompt_was_seen_unless_that_is_too_full() -> None:
    engines = [FakeEngine(f"engine-{number}") for number in range(3)]
    router = router_of(*engines)
    near = router.choose(None, 12345)
    assert near is not None
    assert all(router.choose(None, 12345) is near for _ in range(5))
    cast(Any, near).fullness = 10.0
    assert router.choose(None, 12345) is not near


def test_different_prompts_are_dealt_out() -> None:
    engines = [FakeEngine(f"engine-{number}") for number in range(3)]
    router = router_of(*engines)
    assert 3 == len({router.choose(None, affinity) for affinity in range(1, 60)})


def test_without_a_prompt_the_emptiest_engine_is_chosen() -> None:
    engines = [FakeEngine("full", 3.0), FakeEngine("empty", 1.0), FakeEngine("fuller", 9.0)]
    assert engines[1] is cast(Any, router_of(*engines).choose(None, 0))


def test_when_no_home_is_left_the_next_in_the_versions_own_order_serves() -> None:
    engines = [FakeEngine(f"engine-{number}") for number in range(5)]
    router = router_of(*engines)
    names = tuple(engine.name for engine in engines)
    preferred = order("support", names)
    assert preferred[0] == cast(Any, router.choose("support", 0)).name
    assert preferred[1] == cast(Any, router.choose("support", 0, tried=preferred[:1])).name
    assert router.choose("support", 0, tried=names) is None


def test_an_engine_that_takes_nothing_is_no_home() -> None:
    engines = [FakeEngine(f"engine-{number}") for number in range(2)]
    router = router_of(*engines)
    home = cast(Any, router.homes("support")[0])
    home.takes_requests = False
    router.changed()
    assert home is not router.homes("support")[0]
    for engine in engines:
        engine.takes_requests = False
    router.changed()
    assert () == router.homes("support")
    assert router.choose("support", 0) is None
    assert router.choose(None, 0) is None
