"""The plugin's routes over an engine that notes what it was told; the contract tests cover the rest."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from adapters.vllm_plugin.admission import Admission
from adapters.vllm_plugin.answer import Answer
from adapters.vllm_plugin.routes import EngineRefused, Routes
from adapters.vllm_plugin.shelf import FetchFailed

DIGEST = "ab" * 32
NAME = f"support@{DIGEST[:12]}"
REPORT = {
    "device": "cpu",
    "lora_kernel": "hotswap",
    "prompt_logprobs_fixed": True,
    "self_test": {"passed": True, "details": "fine"},
    "counters": {"disk_loads": 1, "activations": 2, "evictions": 3},
}


class Engine:
    def __init__(self) -> None:
        self.names: set[str] = set()
        self.held: list[str] = []
        self.calls: list[Any] = []
        self.refusal: EngineRefused | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.at_once = 0
        self.most_at_once = 0

    def registered(self, name: str) -> bool:
        return name in self.names

    async def load(self, name: str, path: str | None, evict: str | None = None) -> None:
        self.calls.append(("load", name, path) if evict is None else ("load", name, path, evict))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await self.gate.wait()
        await asyncio.sleep(0)
        self.at_once -= 1
        self._check()
        self.names.add(name)
        self.held.append(name)

    async def remove(self, name: str) -> bool:
        self.calls.append(("remove", name))
        self._check()
        known = name in self.names
        self.names.discard(name)
        return known

    async def pin(self, name: str, pinned: bool) -> None:
        self.calls.append(("pin", name, pinned))

    async def residency(self) -> dict[str, Any]:
        self._check()
        adapters = [{"name": name, "slot": 0, "pinned": False, "rank": 8} for name in self.held]
        return REPORT | {"adapters": adapters}

    def _check(self) -> None:
        if self.refusal is not None:
            raise self.refusal


class Shelf:
    def __init__(self) -> None:
        self.held: set[str] = set()
        self.failure: FetchFailed | None = None

    def get(self, name: str, digest: str, source: str) -> tuple[Path, bool]:
        if self.failure is not None:
            raise self.failure
        self.held.add(name)
        return Path("/shelf/sha256") / digest, True

    def release(self, name: str) -> None:
        self.held.discard(name)


class House:
    def __init__(self, **more: Any) -> None:
        self.engine = Engine()
        self.shelf = Shelf()
        self.admission = Admission(4)
        about = {"boot_id": "boot-1", "loras": {"max_loras": 4, "max_cpu_loras": 9}, "max_num_seqs": 16}
        self.routes = Routes(self.engine, self.admission, self.shelf, lambda: about, **more)

    async def ask(self, method: str, path: str, /, **body: Any) -> Answer:
        answer = await self.routes.answer(method, f"/hotswap/v1/{path}", json.dumps(body).encode())
        assert answer is not None
        return answer

    async def put(self, **body: Any) -> Answer:
        wanted = {"sha256": DIGEST, "source": "http://gw:8000"} | body
        return await self.ask("PUT", f"adapters/{NAME}", **wanted)


def code(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.body["error"]["code"]


async def test_a_put_with_a_path_loads_from_there():
    house = House()
    answer = await house.put(path=f"/store/sha256/{DIGEST}")
    assert (200, False) == (answer.status, answer.body["fetched"])
    assert [("load", NAME, f"/store/sha256/{DIGEST}")] == house.engine.calls
    assert set() == house.shelf.held


async def test_a_put_without_a_path_fetches_and_holds_the_files():
    house = House()
    assert (await house.put()).body["fetched"]
    assert [("load", NAME, f"/shelf/sha256/{DIGEST}")] == house.engine.calls
    assert {NAME} == house.shelf.held


OTHER = "other@" + "1" * 12


async def test_a_put_that_evicts_does_it_in_the_same_call_and_lets_the_files_go():
    house = House()
    house.shelf.held.add(OTHER)
    answer = await house.put(evict=OTHER)
    assert (200, True) == (answer.status, answer.body["evicted"])
    assert [("load", NAME, f"/shelf/sha256/{DIGEST}", OTHER)] == house.engine.calls
    assert {NAME} == house.shelf.held


async def test_a_put_of_what_is_resident_evicts_nothing():
    house = House()
    await house.put()
    answer = await house.put(evict=OTHER)
    assert (200, False) == (answer.status, answer.body["evicted"])
    assert 1 == len(house.engine.calls)


async def test_a_put_does_not_evict_what_is_in_use():
    house = House()
    house.admission.enter(OTHER)
    assert (409, "in_flight") == code(await house.put(evict=OTHER))
    assert [] == house.engine.calls


async def test_files_of_a_version_that_the_engine_refused_are_held_no_more():
    house = House()
    house.engine.refusal = EngineRefused(500, "rank 64 is too large")
    assert (500, "engine_error") == code(await house.put())
    assert set() == house.shelf.held


async def test_files_of_a_removed_version_are_held_no_more():
    house = House()
    await house.put()
    assert 200 == (await house.ask("DELETE", f"adapters/{NAME}")).status
    assert set() == house.shelf.held


async def test_a_failed_fetch_is_told_with_its_code_and_nothing_is_loaded():
    house = House()
    house.shelf.failure = FetchFailed(422, "another digest", "digest_mismatch")
    assert (422, "digest_mismatch") == code(await house.put())
    assert [] == house.engine.calls


async def test_a_source_that_is_not_named_is_refused_but_a_path_needs_none():
    house = House(sources=frozenset({"http://other:1"}))
    assert (403, "source_not_allowed") == code(await house.put())
    assert 200 == (await house.put(path=f"/store/sha256/{DIGEST}")).status


async def test_a_registered_version_that_is_resident_is_not_touched():
    house = House()
    await house.put()
    await house.put()
    assert 1 == len(house.engine.calls)


async def test_a_registered_version_that_was_evicted_is_made_resident_again():
    house = House()
    await house.put()
    house.engine.held.clear()
    await house.put()
    assert ("load", NAME, None) == house.engine.calls[-1]


async def test_two_puts_of_one_name_load_once():
    house = House()
    answers = await asyncio.gather(house.put(), house.put())
    assert [200, 200] == [answer.status for answer in answers]
    assert 1 == len(house.engine.calls)


async def test_a_delete_waits_for_the_load_of_the_same_name():
    house = House()
    house.engine.gate.clear()
    async with asyncio.TaskGroup() as group:
        put = group.create_task(house.put())
        deleted = group.create_task(house.ask("DELETE", f"adapters/{NAME}"))
        await asyncio.sleep(0)
        house.engine.gate.set()
    assert (200, 200) == (put.result().status, deleted.result().status)
    assert ["load", "remove"] == [call[0] for call in house.engine.calls]


async def test_what_requests_use_is_not_removed():
    house = House()
    await house.put()
    house.admission.enter(NAME)
    assert (409, "in_flight") == code(await house.ask("DELETE", f"adapters/{NAME}"))
    assert NAME in house.engine.names


async def test_the_listing_counts_who_is_in_flight():
    house = House()
    await house.put()
    house.admission.enter(NAME)
    body = (await house.ask("GET", "adapters")).body
    assert ("boot-1", 4, 9) == (body["boot_id"], body["max_loras"], body["max_cpu_loras"])
    assert [(NAME, 1)] == [(each["name"], each["in_flight"]) for each in body["adapters"]]
    assert {"disk_loads": 1, "activations": 2, "evictions": 3, "not_now": 0} == body["counters"]


async def test_a_dead_engine_is_a_503_on_every_route():
    house = House()
    await house.put()
    house.engine.refusal = EngineRefused(503, "it is dead", "engine_dead")
    routes = [("GET", "plugin"), ("GET", "adapters"), ("DELETE", f"adapters/{NAME}")]
    assert [(503, "engine_dead")] * 3 == [code(await house.ask(*route)) for route in routes]


async def test_a_worker_that_does_not_report_is_told_in_the_report():
    house = House()
    house.engine.refusal = EngineRefused(500, "no attribute hotswap_report")
    report = (await house.ask("GET", "plugin")).body
    assert (False, "stock") == (report["self_test"]["passed"], report["lora_kernel"])
    assert "no attribute hotswap_report" in report["self_test"]["details"]


async def test_the_report_has_the_process_the_worker_and_the_admission():
    house = House()
    await house.put()
    report = (await house.ask("GET", "plugin")).body
    assert ("boot-1", 16, "cpu") == (report["boot_id"], report["max_num_seqs"], report["device"])
    assert {"enabled": True, "apart": False} == report["admission"]
    assert [{"name": NAME, "slot": 0}] == report["resident"]
    assert "adapters" in report["routes"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("POST", "plugin"), ("PUT", "adapters"), ("GET", "adapters/x"), ("POST", "adapters/x")),
        *(("POST", "adapters/x/steal"), ("POST", "adapters/x/pin/y"), ("GET", ""), ("GET", "adapters/x/y/z")),
    ],
)
async def test_anything_else_is_no_route(method, path):
    assert await House().routes.answer(method, f"/hotswap/v1/{path}", b"") is None
