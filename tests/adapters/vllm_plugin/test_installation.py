"""What is replaced in a vLLM process, and what is said when something is not right. In process, no server."""

from __future__ import annotations

import logging
import subprocess
import sys
from types import SimpleNamespace

import pytest
import vllm
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from adapters.vllm_plugin import selftest
from adapters.vllm_plugin.installation import GROUPED, Installation, refuse_lm_head
from adapters.vllm_plugin.punica import GroupedPunica
from adapters.vllm_plugin.selftest import check

STOCK = "vllm.lora.punica_wrapper.punica_cpu.PunicaWrapperCPU"


def platform() -> type:
    class Platform:
        @classmethod
        def get_punica_wrapper(cls) -> str:
            return STOCK

    return Platform


def test_the_kernel_passes_its_self_test_on_the_installed_vllm():
    assert check(GroupedPunica, vllm.__version__).passed


def test_an_unknown_vllm_fails_the_self_test_with_both_versions_named():
    assert "9.9.9" in check(GroupedPunica, "9.9.9").details
    assert selftest.KNOWN_VERSIONS[0] in check(GroupedPunica, "9.9.9").details


def test_the_self_test_sees_that_vllms_own_kernel_changes_base_rows():
    class Stock(PunicaWrapperCPU):
        def add_lora_logits(self, *args, **kwargs):
            """Without this the prompt logits end it first."""

    assert "belongs to the base and was changed" in check(Stock, vllm.__version__).details


def test_the_self_test_sees_a_delta_that_is_twice_too_large():
    class Loud(GroupedPunica):
        def add_lora_linear(self, y, x, a, b, scale, *args, **kwargs):
            super().add_lora_linear(y, x, a, b, 2 * scale, *args, **kwargs)

    assert "is off by" in check(Loud, vllm.__version__).details


def test_the_self_test_sees_a_signature_that_changed(monkeypatch):
    monkeypatch.setattr(PunicaWrapperCPU, "add_shrink", lambda self, y, x: None)
    assert "add_shrink takes ('self', 'y', 'x')" in check(GroupedPunica, vllm.__version__).details


def test_a_passed_self_test_puts_the_kernel_in_place():
    engine, cpu = Installation("cpu"), platform()
    engine.replace_kernel(cpu)
    assert cpu.get_punica_wrapper() == GROUPED
    assert engine.kernel == "hotswap"


def test_a_failed_self_test_leaves_stock_and_says_so_loudly(monkeypatch, caplog):
    monkeypatch.setattr(selftest, "KNOWN_VERSIONS", ("0.0.1",))
    engine, cpu = Installation("cpu"), platform()
    engine.replace_kernel(cpu)
    with caplog.at_level(logging.ERROR, "vllm.hotswap"):
        # vLLM's logger does not propagate to the root, where caplog listens.
        monkeypatch.setattr(logging.getLogger("vllm"), "propagate", True)
        assert cpu.get_punica_wrapper() == STOCK
    assert "IS NOT IN USE" in caplog.text
    assert (engine.kernel, engine.self_test.passed) == ("stock", False)


def test_a_self_test_that_raises_leaves_stock_with_the_reason(monkeypatch):
    def broken(*args):
        raise RuntimeError("no such op")

    monkeypatch.setattr("adapters.vllm_plugin.installation.check", broken)
    engine, cpu = Installation("cpu"), platform()
    engine.replace_kernel(cpu)
    assert cpu.get_punica_wrapper() == STOCK
    assert "RuntimeError: no such op" in engine.self_test.details


def test_on_a_gpu_nothing_is_replaced_and_the_report_says_so():
    report = Installation("cuda").report(Worker(None))
    assert ("cuda", "stock", True) == (report["device"], report["lora_kernel"], report["self_test"]["passed"])


def test_the_stock_kernel_can_be_asked_for(monkeypatch):
    monkeypatch.setenv("HOTSWAP_KERNEL", "stock")
    engine, cpu = Installation("cpu"), platform()
    engine.replace_kernel(cpu)
    assert cpu.get_punica_wrapper() == STOCK
    assert "HOTSWAP_KERNEL=stock" in engine.self_test.details
    assert False is engine.report(Worker(None))["prompt_logprobs_fixed"]


def test_the_report_has_what_the_worker_holds_and_what_it_took():
    report = Installation("cpu").report(Worker(Manager([None, 7], [7, 8])))
    assert [("#7", 1), ("#8", None)] == [(each["name"], each["slot"]) for each in report["adapters"]]
    assert {"disk_loads": 0, "activations": 0, "evictions": 0} == report["counters"]


def test_a_worker_without_lora_holds_nothing():
    engine, worker = Installation("cpu"), Worker(None)
    assert [] == engine.report(worker)["adapters"]
    assert (0, "gone") == (engine.remove(worker, "a"), engine.pin(worker, "a", True))


def test_an_adapter_for_the_output_layer_is_refused():
    with pytest.raises(ValueError, match="'big' has weights for lm_head"):
        refuse_lm_head("big", {"model.layers.0.self_attn.q_proj", "lm_head"})


def test_what_the_fake_engine_shares_imports_neither_torch_nor_vllm():
    heavy = "{'torch', 'vllm', 'fastapi', 'prometheus_client'}"
    parts = "adapters.vllm_plugin.door, adapters.vllm_plugin.routes, adapters.vllm_plugin.gauges"
    code = f"import adapters.vllm_plugin, {parts}, sys; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


class Manager:
    """The parts of vLLM's LoRA manager that the report reads."""

    def __init__(self, slots: list[int | None], held: list[int]) -> None:
        self._adapter_manager = self
        self.lora_index_to_id = slots
        self._held = held
        self._registered_adapters = SimpleNamespace(pinned_items=set())

    def list_adapters(self) -> dict[int, None]:
        return dict.fromkeys(self._held)


class Worker:
    def __init__(self, manager: Manager | None) -> None:
        self.model_runner = type("Runner", (), {"lora_manager": manager})() if manager else object()
