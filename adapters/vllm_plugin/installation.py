"""What Hotswap puts into a vLLM process: hooks, each idempotent, and the report on what came of them.

vLLM calls `install` in the API server, the engine core and every worker. What matters happens in the
worker, when vLLM asks its platform for the class that applies LoRA: there the self-test runs and decides.
`HOTSWAP_KERNEL=stock` in the engine's environment keeps vLLM's own kernel, to compare with.
"""

from __future__ import annotations

import logging
import os
from dataclasses import asdict
from typing import Any

from adapters.vllm_plugin import linger
from adapters.vllm_plugin.ledger import Ledger
from adapters.vllm_plugin.selftest import SelfTest, check

log = logging.getLogger("vllm.hotswap")  # under vLLM's logger, for its handler and level

GROUPED = "adapters.vllm_plugin.punica.GroupedPunica"
KERNEL = "HOTSWAP_KERNEL"
REPORT, REMOVE, PIN, TENSORS = "hotswap_report", "hotswap_remove", "hotswap_pin", "hotswap_tensors"
"""The methods that workers gain; the endpoint asks for them through `collective_rpc` by these names."""


def install() -> None:
    from vllm.platforms import current_platform
    from vllm.v1.worker.worker_base import WorkerBase

    if hasattr(WorkerBase, REPORT):
        return
    engine = Installation(str(current_platform.device_type))
    setattr(WorkerBase, REPORT, lambda worker: engine.report(worker))
    setattr(WorkerBase, REMOVE, lambda worker, name: engine.remove(worker, name))
    setattr(WorkerBase, PIN, lambda worker, name, pinned: engine.pin(worker, name, pinned))
    setattr(WorkerBase, TENSORS, lambda worker, name: engine.tensors(worker, name))
    engine.keep_ledger()
    _linger()
    if engine.device == "cpu":
        engine.replace_kernel(type(current_platform))


def _linger() -> None:
    """A vLLM whose loop is another one goes without."""
    try:
        from vllm.v1.engine import EngineCoreRequestType
        from vllm.v1.engine.core import EngineCoreProc

        linger.install(EngineCoreProc, EngineCoreRequestType.ADD)
    except (ImportError, AttributeError) as other:
        log.warning("cold versions wait for a step more: this vLLM has another loop (%s)", other)


class Installation:
    """One per process: what was replaced, and the ledger of the adapters that the worker holds."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.kernel = "stock"
        self.self_test = SelfTest(True, f"LoRA on {device} is vLLM's own; nothing is replaced")
        # On CPU neither kernel may see weights for the output layer: ours applies none, and vLLM's own
        # gives the last slot's to every base row.
        self.ledger = Ledger(refuse_lm_head) if device == "cpu" else Ledger()

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
        if os.environ.get(KERNEL) == "stock":
            return SelfTest(False, f"{KERNEL}=stock is set: vLLM's own kernel is in use")
        try:
            import vllm

            from adapters.vllm_plugin.punica import GroupedPunica

            return check(GroupedPunica, vllm.__version__)
        except Exception as error:  # noqa: BLE001  whatever another vLLM does here: stock must still start
            return SelfTest(False, f"the self-test raised {type(error).__name__}: {error}")

    def keep_ledger(self) -> None:
        from vllm.lora.model_manager import LRUCacheLoRAModelManager
        from vllm.lora.worker_manager import LRUCacheWorkerLoRAManager, WorkerLoRAManager

        self.ledger.follow(WorkerLoRAManager, LRUCacheWorkerLoRAManager, LRUCacheLoRAModelManager)

    def report(self, worker: Any) -> dict[str, Any]:
        """Plain data only: it crosses two processes as msgpack."""
        manager = _adapters_of(worker)
        return {
            "device": self.device,
            "lora_kernel": self.kernel,
            # Elsewhere vLLM maps prompt rows with a mapping as long as the batch: no size can differ.
            "prompt_logprobs_fixed": self.device != "cpu" or self.kernel == "hotswap",
            "self_test": asdict(self.self_test),
            "adapters": [] if manager is None else self.ledger.residency(manager),
            "counters": self.ledger.counted(),
        }

    def remove(self, worker: Any, name: str) -> int:
        manager = _adapters_of(worker)
        return 0 if manager is None else self.ledger.remove(manager, name)

    def pin(self, worker: Any, name: str, pinned: bool) -> str:
        manager = _adapters_of(worker)
        return "gone" if manager is None else self.ledger.pin(manager, name, pinned)

    def tensors(self, worker: Any, name: str) -> dict[str, Any]:
        """Plain data, as `tensors.digests` tells it."""
        from adapters.vllm_plugin.tensors import NOT_IN_A_SLOT, digests

        manager = _adapters_of(worker)
        lora_id = None if manager is None else self.ledger.find(manager, name)
        return {"problem": NOT_IN_A_SLOT} if lora_id is None else digests(manager, lora_id)


def _adapters_of(worker: Any) -> Any:
    """vLLM's manager of the adapters that a worker holds; None without LoRA."""
    lora_manager = getattr(worker.model_runner, "lora_manager", None)
    return None if lora_manager is None else lora_manager._adapter_manager


def refuse_lm_head(name: str, modules: Any) -> None:
    """Raises ValueError if the adapter changes the output layer. vLLM's load route answers it as an error."""
    if any(module.rpartition(".")[2] == "lm_head" for module in modules):
        raise ValueError(
            f"adapter {name!r} has weights for lm_head, which are not served. Retrain without it"
        )
