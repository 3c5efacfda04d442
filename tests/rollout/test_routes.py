"""From `model` to one version."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace
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
class Changed:
    adapters: dict[str, list[Version]]
    at: int = 1
    whole: bool = True


class Registry:
    """A registry that answers from memory; `broken` makes it fail as a lost database does."""

    def __init__(self, *versions: Version) -> None:
        self.versions = versions or (replace(ONE, state=State.STABLE), TWO)
        self.broken = False
        self.asked: list[int] = []

    def promote(self, name: str) -> None:
        states = {True: State.STABLE, False: State.RETIRED}
        self.versions = tuple(replace(v, state=states[v.name == name]) for v in self.versions)

    async def changes(self, since: int = 0) -> Changed:
        self.asked.append(since)
        if self.broken:
            raise OSError("no database")
        return self.now()

    def now(self) -> Changed:
        adapters: dict[str, list[Version]] = {}
        for each in self.versions:
            adapters.setdefault(each.adapter, []).append(each)
        return Changed(adapters)


class Told(Registry):
    """Gives these answers, one after the other."""

    def __init__(self, *answers: Changed) -> None:
        super().__init__()
        self.answers = list(answers)

    def now(self) -> Changed:
        return self.answers.pop(0)


class SlowFirst(Registry):
    """Its first reading is held back until `go`, with the state that it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.reading, self.go = asyncio.Event(), asyncio.Event()

    async def changes(self, since: int = 0) -> Changed:
        seen = self.now()
        if not self.reading.is_set():
            self.reading.set()
            await self.go.wait()
        return seen


async def read(source: Registry, times: int = 1) -> Routes:
    made = Routes(source, base="base")
    for _ in range(times):
        await made.refresh()
    return made


def listed(routes: Routes) -> list[str]:
    return [model["id"] for model in json.loads(routes.models())["data"]]


@pytest.fixture
async def routes() -> Routes:
    return await read(Registry())


@pytest.mark.parametrize(
    "model", ["support", "support@v1", ONE.name, f"support@{ONE.digest}", ONE.name + "1a1"]
)
def test_a_route_and_every_form_of_a_pin_lead_to_the_version(routes: Routes, model: str) -> None:
    target = routes.resolve(model)
    assert target.version and target.version.digest == ONE.digest
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
    routes = await read(registry)
    registry.promote(TWO.name)
    await routes.refresh()
    assert routes.resolve("support").engine_name == TWO.name
    assert routes.resolve("support@v1").engine_name == ONE.name


async def test_a_failed_refresh_leaves_the_last_table_in_force() -> None:
    registry = Registry()
    routes = await read(registry)
    registry.broken = True
    with pytest.raises(OSError, match="no database"):
        await routes.refresh()
    assert routes.resolve("support").engine_name == ONE.name


async def test_a_slow_reading_of_an_older_state_does_not_win() -> None:
    slow = SlowFirst()
    routes = Routes(slow, base="base")
    older = asyncio.create_task(routes.refresh())
    await slow.reading.wait()
    slow.promote(TWO.name)
    newer = asyncio.create_task(routes.refresh())
    await asyncio.sleep(0)
    slow.go.set()
    await asyncio.gather(older, newer)
    assert routes.resolve("support").engine_name == TWO.name


async def test_a_refresh_asks_for_what_has_changed_since_the_last_one() -> None:
    registry = Told(Changed({"support": [ONE]}, at=7), Changed({}, at=9, whole=False), Changed({}, at=9))
    await read(registry, times=3)
    assert registry.asked == [0, 7, 9]


async def test_a_failed_refresh_is_asked_for_again() -> None:
    registry = Told(Changed({"support": [ONE]}, at=7), Changed({}, at=9))
    routes = await read(registry)
    registry.broken = True
    with pytest.raises(OSError, match="no database"):
        await routes.refresh()
    registry.broken = False
    await routes.refresh()
    assert registry.asked == [0, 7, 7]


async def test_a_change_of_one_adapter_leaves_the_others() -> None:
    other = replace(version("other", 1, "ab"), state=State.STABLE)
    stable = replace(ONE, state=State.STABLE)
    routes = await read(
        Told(
            Changed({"support": [stable, TWO], "other": [other]}),
            Changed({"support": [stable]}, whole=False),
        ),
        times=2,
    )
    assert listed(routes) == ["base", "other", "support", other.name, ONE.name]
    assert routes.resolve("other").version == other
    with pytest.raises(NotFound):
        routes.resolve(TWO.name)


@pytest.mark.parametrize("gone", [Changed({"support": []}, whole=False), Changed({})])
async def test_nothing_is_left_of_an_adapter_that_is_gone(gone: Changed) -> None:
    versions = [replace(ONE, state=State.STABLE), replace(TWO, state=State.RETIRED)]
    routes = await read(Told(Changed({"support": versions}), gone), times=2)
    assert (["base"], [], []) == (listed(routes), list(routes.desired()), list(routes.superseded(0)))
    for name in ("support", "support@v1", ONE.name, f"support@{ONE.digest}"):
        with pytest.raises(NotFound):
            routes.resolve(name)


async def test_an_adapter_with_the_name_of_the_base_does_not_take_its_place() -> None:
    routes = await read(Registry(replace(version("base", 1, "ab"), state=State.STABLE)))
    assert routes.resolve("base").version is None


def test_models_lists_base_routes_and_versions(routes: Routes) -> None:
    assert listed(routes) == ["base", "support", ONE.name, TWO.name]


async def test_models_lists_what_there_is_now_and_not_what_there_was() -> None:
    registry = Registry()
    routes = await read(registry)
    before = listed(routes)
    registry.versions = (*registry.versions, replace(version("more", 1, "cd"), state=State.STABLE))
    await routes.refresh()
    assert {"more", "more@cdcdcdcdcdcd"} == set(listed(routes)) - set(before)


@pytest.mark.parametrize(
    ("name", "root"),
    [
        ("base", None),
        ("support", ONE.name),
        (ONE.name, "base"),
        ("support@v1", ONE.name),
        (f"support@{ONE.digest}", ONE.name),
    ],
)
def test_a_model_is_shown_under_the_name_it_was_asked_by(routes: Routes, name: str, root: str | None) -> None:
    made = 0 if root is None else int(MADE.timestamp())
    assert {
        "id": name,
        "object": "model",
        "created": made,
        "owned_by": "hotswap",
        "root": root,
    } == json.loads(routes.model(name))


def test_what_is_listed_is_what_each_name_shows(routes: Routes) -> None:
    everything = json.loads(routes.models())
    assert everything["object"] == "list"
    assert [json.loads(routes.model(model["id"])) for model in everything["data"]] == everything["data"]


def test_engines_should_hold_the_stable_version_of_every_route(routes: Routes) -> None:
    assert [version.name for version in routes.desired()] == [ONE.name]


def test_engines_should_hold_what_is_named_too_and_nothing_twice(routes: Routes) -> None:
    named = routes.desired({TWO.name, ONE.name, "support@ffffffffffff"})
    assert [version.name for version in named] == [ONE.name, TWO.name]


async def test_superseded_are_retired_versions_but_the_newest_that_a_rollback_goes_to() -> None:
    retired = [
        replace(version("support", number, f"{number}{number}"), state=State.RETIRED) for number in (1, 2, 3)
    ]
    other = replace(version("other", 1, "ab"), state=State.RETIRED)
    routes = await read(Registry(*retired, other, ONE))
    assert retired[:2][::-1] == list(routes.superseded(1))
    assert {v.name for v in (*retired, other)} == {v.name for v in routes.superseded(0)}


NAMED = "ft:base:acme:care:AbCd1234"


async def test_a_fine_tuned_models_name_means_its_version_whatever_is_stable() -> None:
    registry = Registry(replace(ONE, state=State.STABLE, names=(NAMED,)), TWO)
    routes = Routes(registry, base="base")
    await routes.refresh()
    registry.promote(TWO.name)
    await routes.refresh()
    assert ONE.name == routes.resolve(NAMED).engine_name
    listed = {model["id"]: model["root"] for model in json.loads(routes.models())["data"]}
    assert ONE.name == listed[NAMED]
    assert ONE.name == json.loads(routes.model(NAMED))["root"]


async def test_a_fine_tuned_models_name_goes_with_its_version() -> None:
    registry = Registry(replace(ONE, state=State.STABLE), replace(TWO, names=(NAMED,)))
    routes = Routes(registry, base="base")
    await routes.refresh()
    registry.versions = registry.versions[:1]
    await routes.refresh()
    with pytest.raises(NotFound):
        routes.resolve(NAMED)
