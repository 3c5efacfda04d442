"""Two engines as users see them: real Postgres, the command line, and engines that die and come back.

The engines see none of the gateway's disk: they fetch adapters by their sha256.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import TINY
from tests.fakes import Fake, before
from tests.house import House, wait_for
from tests.peft_folder import random_adapter

ADAPTERS = 6
SEATS, QUEUE = 4, 2
SETTINGS = {
    "HOTSWAP_FLEET__MAX_IN_FLIGHT": str(SEATS),
    "HOTSWAP_FLEET__QUEUE": str(QUEUE),
    "HOTSWAP_FLEET__PROBE_INTERVAL_S": "0.1",
    "HOTSWAP_FLEET__LOADS_PER_S": "100",
    "HOTSWAP_FLEET__PLACEMENT_INTERVAL_S": "0.5",
}


@pytest.fixture(scope="module")
def fakes() -> Iterator[tuple[Fake, Fake]]:
    with Fake() as one, Fake(key=one.key) as other:
        yield one, other


@pytest.fixture(scope="module")
def house(
    fakes: tuple[Fake, Fake], tiny_base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    """A Hotswap before both."""
    with House(tmp_path_factory.mktemp("two"), tiny_base, before(fakes, **SETTINGS)) as running:
        wait_for("both serve", lambda: ["serving"] * 2 == [each["status"] for each in running.fleet()])
        yield running


@pytest.fixture(scope="module")
def versions(house: House, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Route -> version."""
    folder = tmp_path_factory.mktemp("adapters")
    return {
        f"adapter-{number}": house.add(
            f"adapter-{number}", random_adapter(folder / str(number), TINY, seed=number)
        )["name"]
        for number in range(ADAPTERS)
    }


def client(house: House) -> httpx.Client:
    return httpx.Client(base_url=house.url, headers=house.headers, timeout=30)


def chat(http: httpx.Client, model: str = "tiny", max_tokens: int = 4) -> httpx.Response:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": max_tokens,
        "ignore_eos": True,
    }
    return http.post("/v1/chat/completions", json=body)


def told(house: House, *words: str) -> Any:
    done = house.cli(*words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def events(house: House, kind: str, engine: Fake | None = None) -> list[dict[str, Any]]:
    url = f"{house.url}/admin/v1/fleet/events"
    data = httpx.get(url, headers=house.headers, timeout=30).json()["data"]
    return [e for e in data if e["kind"] == kind and (engine is None or e["engine"] == engine.name)]


def asked_for_adapters(fake: Fake) -> bool:
    state = fake.state()
    return bool(state["loras"] and state["served"])


def test_adapters_of_both_engines_answer(
    house: House, fakes: tuple[Fake, Fake], versions: dict[str, str]
) -> None:
    with client(house) as http:
        for route, version in versions.items():
            answer = chat(http, route).json()
            assert version == answer["model"]
            assert answer["choices"][0]["message"]["content"].startswith(version)
    held = [set(fake.state()["loras"]) for fake in fakes]
    assert all(held)
    assert set(versions.values()) == held[0] | held[1]


@pytest.mark.usefixtures("versions")
def test_ps_shows_what_each_engine_holds(house: House, fakes: tuple[Fake, Fake]) -> None:
    shown = {engine["engine"]: engine for engine in told(house, "ps")}
    assert {fake.name for fake in fakes} == set(shown)
    for fake in fakes:
        engine = shown[fake.name]
        assert ("serving", fake.url) == (engine["status"], engine["url"])
        assert set(fake.state()["loras"]) == {version["name"] for version in engine["versions"]}
        assert {"active", "resident"} >= {version["residency"] for version in engine["versions"]}


@pytest.mark.usefixtures("versions")
def test_events_tell_what_was_loaded_where_and_why(house: House, fakes: tuple[Fake, Fake]) -> None:
    happened = told(house, "fleet", "events")
    assert 2 == [event["kind"] for event in happened].count("joined")
    loads = [event for event in happened if event["kind"] == "loaded"]
    assert all(event["reason"] for event in loads)
    told_of = {(event["engine"], event["version"]) for event in loads}
    assert {(fake.name, version) for fake in fakes for version in fake.state()["loras"]} <= told_of


def test_a_drained_engine_gets_nothing_until_it_is_resumed(
    house: House, fakes: tuple[Fake, Fake], versions: dict[str, str]
) -> None:
    drained, _ = fakes
    mine = next(route for route, version in versions.items() if version in drained.state()["loras"])
    with client(house) as http:
        assert told(house, "fleet", "drain", drained.name)["draining"]
        wait_for("it is drained", lambda: events(house, "drained", drained), 10)
        served = drained.state()["served"]
        assert {200} == {chat(http, model).status_code for model in [*versions, "tiny"]}
        assert served == drained.state()["served"]
        lines = house.cli("ps").stdout.splitlines()
        shown = [next(line.split()[2] for line in lines if line.startswith(fake.name)) for fake in fakes]
        assert ["drained", "serving"] == shown
        assert not told(house, "fleet", "resume", drained.name)["draining"]
        wait_for(
            "it is asked again",
            lambda: chat(http, mine).status_code == 200 and drained.state()["served"] > served,
            20,
        )


def test_draining_an_engine_that_is_none_says_which_there_are(house: House, fakes: tuple[Fake, Fake]) -> None:
    with client(house) as http:
        refused = http.post("/admin/v1/fleet/nobody/drain")
    assert (404, True) == (refused.status_code, fakes[0].name in refused.text)


def test_a_pinned_version_is_shown_as_such_until_it_is_unpinned(
    house: House, versions: dict[str, str]
) -> None:
    route, version = next(iter(versions.items()))

    def pinned() -> set[str]:
        return {v["name"] for engine in house.fleet() for v in engine["versions"] if v["pinned"]}

    assert {"version": version, "pinned": True} == told(house, "adapters", "pin", route)
    assert {version} == pinned()
    assert {"version": version, "pinned": False} == told(house, "adapters", "unpin", version)
    assert set() == pinned()
    assert [version] == [event["version"] for event in events(house, "pinned")]
    assert [version] == [event["version"] for event in events(house, "unpinned")]


def test_requests_that_find_the_queue_full_are_told_when_to_come_again(
    house: House, fakes: tuple[Fake, Fake]
) -> None:
    for fake in fakes:
        fake.faults(token_delay_s=0.05)
    try:
        with client(house) as http, ThreadPoolExecutor(24) as pool:
            answers = list(pool.map(lambda _: chat(http, max_tokens=10), range(24)))
    finally:
        for fake in fakes:
            fake.faults(token_delay_s=0.005)
    refused = [answer for answer in answers if answer.status_code != 200]
    assert 0 < len(refused) <= 24 - 2 * SEATS
    assert {(429, "queue_full")} == {(a.status_code, a.json()["error"]["code"]) for a in refused}
    assert all(1 <= int(answer.headers["retry-after"]) <= 120 for answer in refused)


def test_no_request_fails_when_an_engine_is_killed_and_it_recovers_with_its_adapters(
    house: House, fakes: tuple[Fake, Fake], versions: dict[str, str]
) -> None:
    killed, other = fakes
    outcomes: Counter[int] = Counter()
    over = threading.Event()

    def keep_asking(models: list[str]) -> None:
        with client(house) as http:
            while not over.is_set():
                for model in models:
                    outcomes[chat(http, model).status_code] += 1

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(keep_asking, [*versions, "tiny"]) for _ in range(2)]
        try:
            killed.kill()
            wait_for("its death is noticed", lambda: events(house, "left", killed), 10)
            wait_for(
                "the other holds everything",
                lambda: set(versions.values()) <= set(other.state()["loras"]),
                10,
            )
            killed.start()
            wait_for("it has recovered", lambda: events(house, "recovered", killed), 20)
            wait_for("it has adapters and is asked", lambda: asked_for_adapters(killed), 20)
        finally:
            over.set()
        for task in asking:
            task.result()
    assert {200} == set(outcomes)
    assert all(event["reason"] for event in events(house, "left") + events(house, "recovered"))
