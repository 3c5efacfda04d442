"""What Hotswap puts into a vLLM process: hooks, each idempotent, and the report on what came of them.

vLLM calls `install` in the API server, the engine core and every worker. What matters happens in the
worker, when vLLM asks its platform for the class that applies LoRA: there the self-test runs and decides.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from functools import wraps
from typing import Any

from adapters.vllm_plugin.selftest import SelfTest, check

log = logging.getLogger("vllm.hotswap")  # under vLLM's logger, for its handler and level

GROUPED = "adapters.vllm_plugin.punica.GroupedPunica"
REPORT = "hotswap_report"
"""The method that workers gain; the endpoint asks for it through `collective_rpc` by this name."""


def install() -> None:
    from vllm.platforms import current_platform
    from vllm.v1.worker.worker_base import WorkerBase

    if hasattr(WorkerBase, REPORT):
        return
    engine = Installation(str(current_platform.device_type))
    setattr(WorkerBase, REPORT, lambda worker: engine.report(worker))
    engine.remember_names()
    if engine.device == "cpu":
        engine.replace_kernel(type(current_platform))


class Installation:
    """One per process: what was replaced, and the names of the adapters that the worker has loaded."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.kernel = "stock"
        self.self_test = SelfTest(True, f"LoRA on {device} is vLLM's own; nothing is replaced")
        self._names: dict[int, str] = {}

    def replace_kernel(self, platform: type[Any]) -> None:
        """From now on `platform` names our wrapper, if it passes the self-test when it is asked."""
        stock = platform.get_punica_wrapper
        self.self_test = SelfTest(True, "LoRA is not enabled in this engine; nothing is replaced")

        def get_punica_wrapper(cls: type[Any]) -> str:
            self.self_test = self._try()
            if self.self_test.passed:
                self.kernel = "hotswap"
                log.info("Hotswap's LoRA kernel is in use: %s", self.self_test.details)
                return GROUPED
            self.kernel = "stock"
            log.error(
                "HOTSWAP'S LORA KERNEL IS NOT IN USE: %s. vLLM's own gives base requests the last slot's "
                "adapter in mixed batches, and two requests with prompt_logprobs end the engine",
                self.self_test.details,
            )
            return str(stock())

        platform.get_punica_wrapper = classmethod(get_punica_wrapper)

    def _try(self) -> SelfTest:
        try:
            import vllm

            from adapters.vllm_plugin.punica import GroupedPunica

            return check(GroupedPunica, vllm.__version__)
        except Exception as error:  # noqa: BLE001  whatever another vLLM does here: stock must still start
            return SelfTest(False, f"the self-test raised {type(error).__name__}: {error}")

    def remember_names(self) -> None:
        """Note each adapter's name as the worker loads it; refuse those that our kernel does not apply."""
        from vllm.lora.worker_manager import WorkerLoRAManager

        load = WorkerLoRAManager._load_adapter

        @wraps(load)
        def load_named(manager: Any, lora_request: Any) -> Any:
            adapter = load(manager, lora_request)
            if self.kernel == "hotswap":
                refuse_lm_head(lora_request.lora_name, adapter.loras)
            self._names[lora_request.lora_int_id] = lora_request.lora_name
            return adapter

        WorkerLoRAManager._load_adapter = load_named

    def report(self, worker: Any) -> dict[str, Any]:
        """Plain data only: it crosses two processes as msgpack."""
        return {
            "device": self.device,
            "lora_kernel": self.kernel,
            # Elsewhere vLLM maps prompt rows with a mapping as long as the batch: no size can differ.
            "prompt_logprobs_fixed": self.device != "cpu" or self.kernel == "hotswap",
            "self_test": asdict(self.self_test),
            "resident": self._resident(getattr(worker.model_runner, "lora_manager", None)),
        }

    def _resident(self, lora_manager: Any) -> list[dict[str, Any]]:
        """Adapters in the worker's CPU cache, least recently used first; `slot` is None when not active."""
        if lora_manager is None:
            return []
        manager = lora_manager._adapter_manager
        slot_of = {held: slot for slot, held in enumerate(manager.lora_index_to_id) if held is not None}
        held = [int(each) for each in manager.list_adapters()]
        self._names = {each: name for each, name in self._names.items() if each in set(held)}
        return [{"name": self._names.get(each, f"#{each}"), "slot": slot_of.get(each)} for each in held]


def refuse_lm_head(name: str, modules: Any) -> None:
    """Raises ValueError if the adapter changes the output layer. vLLM's load route answers it as an error."""
    if any(module.rpartition(".")[2] == "lm_head" for module in modules):
        raise ValueError(
            f"adapter {name!r} has weights for lm_head, which are not served. Retrain without it"
        )
