"""The plugin in a real vLLM: what it says of itself, and that nobody gets in without the key."""

from __future__ import annotations

import httpx
import pytest

from adapters.base.manifest import BaseManifest
from tests.engine.talk import Talk
from tests.peft_folder import random_adapter

pytestmark = pytest.mark.engine


def test_the_worker_runs_our_kernel_and_passed_its_self_test(engine: Talk) -> None:
    plugin = engine.plugin()
    assert ("cpu", "hotswap", True) == (
        plugin["device"],
        plugin["lora_kernel"],
        plugin["prompt_logprobs_fixed"],
    )
    assert plugin["self_test"]["passed"] is True
    assert "base rows bit-identical" in plugin["self_test"]["details"]


def test_the_boot_id_stays_while_the_engine_runs(engine: Talk) -> None:
    assert engine.plugin()["boot_id"] == engine.plugin()["boot_id"]


def test_an_adapter_is_resident_once_it_is_loaded_and_stays_so_when_its_name_is_forgotten(
    engine: Talk, base: BaseManifest, tmp_path
) -> None:
    name = "resident@0123456789ab"
    engine.load(name, random_adapter(tmp_path, base, seed=9))
    assert name in {each["name"] for each in engine.plugin()["resident"]}
    engine.unload(name)
    assert name in {each["name"] for each in engine.plugin()["resident"]}


def test_a_put_that_evicts_leaves_the_new_one_in_the_place_of_the_old(
    engine: Talk, base: BaseManifest, tmp_path
) -> None:
    names = {digit: f"swap@{digit * 12}" for digit in "abc"}
    for seed, digit in enumerate(names):
        random_adapter(tmp_path / "sha256" / (digit * 64), base, seed=seed, scale=0.15)

    def put(digit: str, **more: str) -> dict[str, object]:
        wanted = {"sha256": digit * 64, "path": str(tmp_path / "sha256" / (digit * 64)), **more}
        answer = engine.client.put(f"/hotswap/v1/adapters/{names[digit]}", json=wanted)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def resident() -> set[str]:
        held = engine.client.get("/hotswap/v1/adapters").json()["adapters"]
        return {each["name"] for each in held} & set(names.values())

    put("a")
    first = engine.answer(names["a"], "Hello")
    assert put("b", evict=names["a"])["evicted"]
    assert resident() == {names["b"]}
    assert engine.complete(names["a"], "Hello", max_tokens=1).status_code == 404
    assert engine.answer(names["b"], "Hello").text != first.text
    assert put("a", evict=names["b"])["evicted"]
    assert engine.answer(names["a"], "Hello").text == first.text
    engine.client.delete(f"/hotswap/v1/adapters/{names['a']}")
    assert resident() == set()


def test_every_slot_is_told(engine: Talk, loud: list[str]) -> None:
    engine.at_once([(name, "Hello") for name in loud], tokens=1)
    slots = {each["name"]: each["slot"] for each in engine.plugin()["resident"]}
    assert set(range(len(loud))) == {slots[name] for name in loud}


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "HEAD"])
@pytest.mark.parametrize(
    "path",
    [
        *("/health", "/metrics", "/load", "/ping", "/version", "/docs", "/openapi.json", "/nowhere", "/"),
        *("/v1/models", "/v1/chat/completions", "/v1/load_lora_adapter", "/tokenize", "/invocations"),
        *("/hotswap/v1/plugin", "/hotswap/v1/adapters", "/hotswap/v1/adapters/x@1"),
    ],
)
def test_no_route_answers_without_the_key(engine: Talk, method: str, path: str) -> None:
    headers = {"origin": "http://elsewhere", "access-control-request-method": "GET"}
    assert 401 == httpx.request(method, f"{engine.client.base_url}{path}", headers=headers).status_code


def test_no_route_of_the_engines_own_document_answers_without_the_key(engine: Talk) -> None:
    operations = [
        (path, method)
        for path, item in engine.client.get("/openapi.json").json()["paths"].items()
        for method in item
    ]
    assert len(operations) > 20
    with httpx.Client(base_url=str(engine.client.base_url)) as stranger:
        assert [] == [each for each in operations if stranger.request(each[1], each[0]).status_code != 401]


def test_the_same_routes_answer_with_the_key(engine: Talk) -> None:
    for path in ("/health", "/metrics", "/v1/models"):
        assert 200 == engine.client.get(path).status_code
