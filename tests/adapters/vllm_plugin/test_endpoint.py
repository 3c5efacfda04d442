"""What the plugin does in vLLM's API server, with stand-ins for its engine. No server."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import REGISTRY
from vllm.v1.engine.exceptions import EngineDeadError

from adapters.vllm_plugin.endpoint import HotswapEndpoint, Options, fingerprint
from adapters.vllm_plugin.routes import without_report
from adapters.vllm_plugin.vllm_engine import agreed
from tests.conftest import TINY

REPORT = {
    "device": "cpu",
    "lora_kernel": "hotswap",
    "prompt_logprobs_fixed": True,
    "self_test": {"passed": True, "details": "fine"},
    "adapters": [],
    "counters": {"disk_loads": 0, "activations": 0, "evictions": 0},
}


class Engine:
    """vLLM's AsyncLLM, as far as the plugin knows it."""

    def __init__(self, report: Any, max_loras: int | None = 2) -> None:
        self._report = report
        loras = SimpleNamespace(max_loras=max_loras, max_lora_rank=16, max_cpu_loras=4)
        self.vllm_config = SimpleNamespace(
            lora_config=None if max_loras is None else loras,
            model_config=SimpleNamespace(model="/nowhere"),
            scheduler_config=SimpleNamespace(max_num_seqs=16),
        )

    async def collective_rpc(self, method: str, timeout: float, args: tuple[Any, ...] = ()) -> Any:
        if isinstance(self._report, Exception):
            raise self._report
        return [self._report]


async def opened(report: Any, max_loras: int | None = 2, **environment: str) -> HotswapEndpoint:
    endpoint = HotswapEndpoint({"VLLM_API_KEY": "k"} | environment)
    state = SimpleNamespace(openai_serving_models=SimpleNamespace(is_base_model=lambda name: name == "base"))
    await endpoint.init_state(Engine(report, max_loras), state, None)
    return endpoint


def test_without_an_environment_everybody_with_the_key_may_be_a_source():
    options = Options.read({})
    assert (True, frozenset(), 20 << 30) == (options.admission, options.sources, options.store_bytes)
    assert options.store.is_absolute()


def test_the_environment_is_read():
    given = {
        "HOTSWAP_ADMISSION": "off",
        "HOTSWAP_SOURCES": "http://a:1/, https://b ,",
        "HOTSWAP_ENGINE_STORE": "/fetched",
        "HOTSWAP_ENGINE_STORE_BYTES": "1000",
    }
    expected = Options(False, frozenset({"http://a:1", "https://b"}), Path("/fetched"), 1000)
    assert expected == Options.read(given)


async def test_the_door_has_as_many_slots_as_the_engine():
    endpoint = await opened(REPORT)
    admission = endpoint._admission
    assert (2, True, False) == (admission.slots, admission.enabled, admission.apart)


async def test_vllms_own_kernel_on_cpu_keeps_base_and_adapters_apart_and_refuses_prompt_logprobs():
    endpoint = await opened(REPORT | {"lora_kernel": "stock", "prompt_logprobs_fixed": False})
    assert (True, False) == (endpoint._admission.apart, endpoint._safe_logprobs)


async def test_vllms_own_kernel_on_a_gpu_is_right_and_keeps_nobody_apart():
    endpoint = await opened(REPORT | {"device": "cuda", "lora_kernel": "stock"})
    assert (False, True) == (endpoint._admission.apart, endpoint._safe_logprobs)


async def test_of_workers_that_do_not_report_the_worst_is_thought():
    endpoint = await opened(Exception("no method hotswap_report"))
    assert (True, False) == (endpoint._admission.apart, endpoint._safe_logprobs)


async def test_admission_can_be_switched_off():
    endpoint = await opened(REPORT | {"lora_kernel": "stock"}, HOTSWAP_ADMISSION="off")
    assert (False, False) == (endpoint._admission.enabled, endpoint._admission.apart)


async def test_an_engine_without_lora_has_nothing_to_admit():
    endpoint = await opened(REPORT, max_loras=None)
    assert False is endpoint._admission.enabled


async def test_a_dead_engine_is_a_503_that_says_so():
    endpoint = await opened(EngineDeadError())
    answer = await endpoint._routes.answer("GET", "/hotswap/v1/plugin", b"")
    assert (503, "engine_dead") == (answer.status, answer.body["error"]["code"])


async def test_a_server_without_an_engine_opens_no_routes():
    endpoint = HotswapEndpoint({})
    await endpoint.init_state(None, None, None)
    assert None is endpoint._routes


async def test_a_scrape_renews_the_listing_and_one_of_a_dead_engine_shows_the_last():
    endpoint = await opened(REPORT)
    endpoint._engine.snapshot.stale()
    endpoint._engine._client._report = EngineDeadError()
    await endpoint._refresh()
    assert 2 == endpoint._last_listing()["max_loras"]


def test_the_door_stands_inside_the_guard_and_the_gauges_are_in_vllms_registry():
    built = []
    app = SimpleNamespace(
        state=SimpleNamespace(args=SimpleNamespace(api_key=None)),
        build_middleware_stack=lambda: built.append("vllm"),
    )
    before = set(REGISTRY._collector_to_names)
    endpoint = HotswapEndpoint({"VLLM_API_KEY": "k"})
    endpoint.attach_router(app)
    guard = app.build_middleware_stack()
    added = set(REGISTRY._collector_to_names) - before
    assert ["Guard", "Door"] == [type(guard).__name__, type(guard._app).__name__]
    assert ["Gauges"] == [type(each).__name__ for each in added]
    for each in added:
        REGISTRY.unregister(each)
    assert ["vllm"] == built


def test_a_prepared_base_has_its_fingerprint_and_another_folder_none(tmp_path):
    assert None is fingerprint(str(tmp_path))
    TINY.write(tmp_path)
    assert "7" * 64 == fingerprint(str(tmp_path))


def test_the_answer_is_that_of_the_worker_that_failed():
    good = {"lora_kernel": "hotswap", "self_test": {"passed": True}}
    bad = without_report("x")
    assert agreed([good, bad]) is bad


@pytest.mark.parametrize("number", ["", "many"])
def test_a_store_size_that_is_no_number_is_an_error(number):
    with pytest.raises(ValueError, match="invalid literal"):
        Options.read({"HOTSWAP_ENGINE_STORE_BYTES": number})
