"""A running vLLM, as the plugin's routes act on it: through its own registry of names and its engine client.

Imports vLLM inside functions only. One change at a time goes to the engine loop, so that between two loads it
makes at least a step for everybody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from adapters.vllm_plugin.installation import PIN, REMOVE, REPORT, TENSORS
from adapters.vllm_plugin.routes import EngineRefused
from adapters.vllm_plugin.snapshot import Snapshot
from adapters.vllm_plugin.tensors import SHARDED

RPC_TIMEOUT_S = 30.0
DEAD = "the engine behind this server is dead"


class VllmEngine:
    """`client` is vLLM's AsyncLLM, `models` its OpenAIServingModels."""

    def __init__(self, client: Any, models: Any) -> None:
        self._client = client
        self._models = models
        self._change = asyncio.Lock()
        self.snapshot = Snapshot(self._ask)

    def is_base(self, name: str) -> bool:
        return bool(self._models.is_base_model(name))

    def registered(self, name: str) -> bool:
        return name in self._models.lora_requests

    async def residency(self) -> dict[str, Any]:
        async with _asking():
            return await self.snapshot.get()

    async def load(self, name: str, path: str | None, evict: str | None = None) -> None:
        if evict is None:
            async with self._changing():
                await self._load(name, path)
            return
        await self._unregister(evict)
        async with self._changing():
            # Both are sent before either is answered: the engine loop takes all that has come between steps.
            removal = asyncio.ensure_future(self._remove(evict))
            await asyncio.sleep(0)
            try:
                await self._load(name, path)
            finally:
                await removal

    async def _load(self, name: str, path: str | None) -> None:
        from vllm.entrypoints.serve.lora.protocol import LoadLoRAAdapterRequest

        known = self._models.lora_requests.get(name)
        if known is not None:
            await self._add(known)
            return
        assert path is not None
        request = LoadLoRAAdapterRequest(lora_name=name, lora_path=path)
        answer = await self._models.load_lora_adapter(request)
        if not isinstance(answer, str):
            self._alive()
            problem = answer.error
            raise EngineRefused(int(problem.code), str(problem.message).replace(path, name))

    async def remove(self, name: str) -> bool:
        known = await self._unregister(name)
        async with self._changing():
            removed = await self._remove(name)
        return known or removed

    async def _unregister(self, name: str) -> bool:
        """At once, so that no request for it begins from here on."""
        from vllm.entrypoints.serve.lora.protocol import UnloadLoRAAdapterRequest

        known = self.registered(name)
        if known:
            await self._models.unload_lora_adapter(UnloadLoRAAdapterRequest(lora_name=name))
        return known

    async def _remove(self, name: str) -> bool:
        return any(await self._client.collective_rpc(REMOVE, timeout=RPC_TIMEOUT_S, args=(name,)))

    async def pin(self, name: str, pinned: bool) -> None:
        async with self._changing():
            known = self._models.lora_requests.get(name)
            if pinned and known is not None:
                await self._add(known)
            problems = await self._client.collective_rpc(PIN, timeout=RPC_TIMEOUT_S, args=(name, pinned))
        problem = next((each for each in problems if each), "")
        if problem == "full":
            raise EngineRefused(
                409,
                f"{name!r} cannot be pinned: beside pinned adapters the CPU cache must have room for "
                "max_loras others. Unpin one, or start the engine with a larger --max-cpu-loras",
                "no_room",
            )
        if problem and pinned:
            raise EngineRefused(409, f"{name!r} was evicted before it could be pinned; try again", "evicted")

    async def tensors(self, name: str) -> dict[str, Any]:
        async with self._changing():
            known = self._models.lora_requests.get(name)
            if known is not None:
                await self._add(known)
            told = await self._client.collective_rpc(TENSORS, timeout=RPC_TIMEOUT_S, args=(name,))
        problem = next((each["problem"] for each in told if "problem" in each), None)
        if problem == SHARDED:
            raise EngineRefused(501, "each worker of this engine has parts of tensors only", SHARDED)
        if problem is not None:
            raise EngineRefused(409, f"{name!r} was evicted before it could be looked at; try again", problem)
        # A pipeline's workers have different layers.
        tensors = {layer: found for each in told for layer, found in each["tensors"].items()}
        return {"dtype": next((each["dtype"] for each in told if each["dtype"]), ""), "tensors": tensors}

    async def _add(self, known: Any) -> None:
        """Makes a registered adapter resident: vLLM reads its files again if it was evicted."""
        try:
            await self._client.add_lora(known)
        except Exception as problem:
            if self._client.errored:
                raise
            message = str(problem).replace(known.lora_path, known.lora_name)
            raise EngineRefused(500, message) from problem

    async def _ask(self) -> dict[str, Any]:
        async with asyncio.timeout(RPC_TIMEOUT_S):
            return agreed(await self._client.collective_rpc(REPORT, timeout=RPC_TIMEOUT_S))

    @asynccontextmanager
    async def _changing(self) -> AsyncIterator[None]:
        async with self._change, _asking():
            try:
                yield
            finally:
                self.snapshot.stale()

    def _alive(self) -> None:
        """vLLM's routes answer the death of their engine like any refusal."""
        if self._client.errored:
            raise EngineRefused(503, DEAD, "engine_dead")


def agreed(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """One answer for all workers: the first one's, or of the first that failed its self-test."""
    return next((each for each in reports if not each["self_test"]["passed"]), reports[0])


@asynccontextmanager
async def _asking() -> AsyncIterator[None]:
    """A worker's own error arrives as a bare Exception, whatever it was."""
    from vllm.v1.engine.exceptions import EngineDeadError

    try:
        yield
    except EngineRefused:
        raise
    except EngineDeadError as death:
        raise EngineRefused(503, f"{DEAD}: {death}", "engine_dead") from death
    except TimeoutError as late:
        raise EngineRefused(503, f"the engine did not answer in {RPC_TIMEOUT_S:g} s", "engine_slow") from late
    except Exception as problem:
        raise EngineRefused(500, f"{type(problem).__name__}: {problem}") from problem
