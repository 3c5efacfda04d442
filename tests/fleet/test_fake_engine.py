"""What the fake engine does beyond the contract: faults to order, and caches like vLLM's."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.fleet.fake_engine import FakeEngine
from gateway.fleet.fake_faults import NOT_HTTP
from tests.relay.serving import serving


class House:
    def __init__(self, engine: FakeEngine, port: int, http: httpx.AsyncClient, folder: Path) -> None:
        self.engine = engine
        self.port = port
        self.http = http
        self.folder = folder

    async def load(self, *names: str) -> None:
        for name in names:
            body = {"lora_name": name, "lora_path": str(self.folder)}
            (await self.http.post("/v1/load_lora_adapter", json=body)).raise_for_status()

    async def ask(self, model: str = "base", **more: Any) -> httpx.Response:
        body = {"model": model, "prompt": "hi", "max_tokens": 3} | more
        return await self.http.post("/v1/completions", json=body)

    async def raw(self, path: str, body: dict[str, Any] | None = None) -> bytes:
        """All the bytes of an answer, until the connection is closed."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        content = b"" if body is None else json.dumps(body).encode()
        method = "GET" if body is None else "POST"
        head = f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(content)}\r\n\r\n"
        writer.write(head.encode() + content)
        try:
            async with asyncio.timeout(5):
                return await reader.read()
        finally:
            writer.close()

    def slots(self) -> dict[str, int | None]:
        return {each["name"]: each["slot"] for each in self.engine.loras.residency()}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 8}))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    engine = FakeEngine(max_loras=2, max_cpu_loras=3, base_fingerprint="ab" * 32)
    async with serving(engine) as port:
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=5) as http:
            yield House(engine, port, http, tmp_path)


async def report(house: House) -> dict[str, Any]:
    body: dict[str, Any] = (await house.http.get("/hotswap/v1/plugin")).json()
    return body


COMPLETION = {"model": "base", "prompt": "hi"}


async def test_garbage_is_no_http(house: House) -> None:
    house.engine.faults.garbage = "bytes"
    assert NOT_HTTP == await house.raw("/v1/completions", COMPLETION)


async def test_garbage_can_be_a_web_page_with_status_200(house: House) -> None:
    house.engine.faults.garbage = "html"
    answer = await house.ask()
    assert (200, "text/html") == (answer.status_code, answer.headers["content-type"])


async def test_probes_get_none_of_it_unless_it_is_everywhere(house: House) -> None:
    house.engine.faults.garbage = "bytes"
    assert 200 == (await house.http.get("/health")).status_code
    house.engine.faults.everywhere = True
    assert NOT_HTTP == await house.raw("/health")
    assert 200 == (await house.http.get("/fake/state")).status_code


async def test_after_the_head_nothing_comes(house: House) -> None:
    house.engine.faults.hang_after_head = True
    body = COMPLETION | {"stream": True}
    async with house.http.stream("POST", "/v1/completions", json=body) as answer:
        assert 200 == answer.status_code
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await anext(answer.aiter_bytes())


async def test_a_stream_ends_in_the_middle_of_an_http_chunk(house: House) -> None:
    house.engine.faults.half_chunk = 1
    head, _, chunks = (await house.raw("/v1/completions", COMPLETION | {"stream": True})).partition(
        b"\r\n\r\n"
    )
    assert head.startswith(b"HTTP/1.1 200")
    first, _, rest = chunks.partition(b"\r\n")
    second = rest[int(first, 16) + 2 :]
    size, _, part = second.partition(b"\r\n")
    assert 0 < len(part) < int(size, 16)
    assert part.startswith(b"data: {")


async def test_it_can_claim_another_base(house: House) -> None:
    assert "ab" * 32 == (await report(house))["base_fingerprint"]
    house.engine.faults.other_base = True
    assert "ab" * 32 != (await report(house))["base_fingerprint"]


async def test_an_unknown_vllm_keeps_its_own_kernel_and_base_and_adapters_apart(house: House) -> None:
    house.engine.faults.vllm_version = "9.9.9"
    told = await report(house)
    assert ("9.9.9", "stock", False, False, True) == (
        told["vllm_version"],
        told["lora_kernel"],
        told["prompt_logprobs_fixed"],
        told["self_test"]["passed"],
        told["admission"]["apart"],
    )


async def test_a_kernel_can_be_claimed(house: House) -> None:
    house.engine.faults.lora_kernel = "stock"
    assert ("stock", True) == (
        (await report(house))["lora_kernel"],
        (await report(house))["admission"]["apart"],
    )


@pytest.mark.parametrize(("admission", "expected"), [(True, 503), (False, 200)])
async def test_without_admission_everybody_enters(admission: bool, expected: int) -> None:
    engine = FakeEngine(max_loras=1, admission=admission)
    engine.loras.paths |= {"a": "/x", "b": "/x"}
    engine.faults.token_delay_s = 0.01
    endless = {"model": "a", "prompt": "hi", "stream": True, "max_tokens": 900, "ignore_eos": True}
    async with serving(engine) as port:
        url = f"http://127.0.0.1:{port}"
        async with (
            httpx.AsyncClient(base_url=url, trust_env=False, timeout=5) as http,
            http.stream("POST", "/v1/completions", json=endless) as first,
        ):
            parts = first.aiter_bytes()
            assert (await anext(parts)).startswith(b"data: ")
            body = {"model": "b", "prompt": "hi", "max_tokens": 1}
            assert expected == (await http.post("/v1/completions", json=body)).status_code


async def test_an_evicted_adapter_is_read_again_which_takes_its_time(house: House) -> None:
    await house.load("a", "b", "c", "d")
    assert {"b": None, "c": 0, "d": 1} == house.slots()
    house.engine.faults.load_delay_s = 0.1
    before = time.monotonic()
    assert 200 == (await house.ask("a")).status_code
    assert 0.1 <= time.monotonic() - before
    assert {"disk_loads": 5, "activations": 5, "evictions": 2} == house.engine.loras.counters
    assert "b" not in house.slots()


async def test_a_resident_adapter_without_a_slot_is_activated_and_not_read(house: House) -> None:
    await house.load("a", "b", "c")
    await house.ask("a")
    assert {"disk_loads": 3, "activations": 4, "evictions": 0} == house.engine.loras.counters
    assert {"b": None, "c": 0, "a": 1} == house.slots()
    await house.load("d")
    assert ["c", "a", "d"] == list(house.slots())


async def test_two_requests_for_an_evicted_adapter_read_it_once(house: House) -> None:
    await house.load("a", "b", "c", "d")
    house.engine.faults.load_delay_s = 0.02
    await asyncio.gather(house.ask("a"), house.ask("a"))
    assert 5 == house.engine.loras.counters["disk_loads"]


async def test_a_restart_forgets_everything(house: House) -> None:
    await house.load("a")
    before = (await report(house))["boot_id"]
    await house.http.post("/fake/restart")
    told = await report(house)
    assert before != told["boot_id"]
    assert ([], 0) == (told["resident"], told["counters"]["disk_loads"])


async def test_its_state_tells_what_it_took(house: House) -> None:
    await house.load("a")
    state = (await house.http.get("/fake/state")).json()
    assert (1, 1, 0, ["a"]) == (state["disk_loads"], state["activations"], state["not_now"], state["loras"])
