"""Our plugin in the fake engine: the real one's door and routes, before adapters that are not there."""

from __future__ import annotations

import shutil
import tempfile
import uuid
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapters.vllm_plugin.admission import Admission
from adapters.vllm_plugin.answer import App
from adapters.vllm_plugin.door import Door
from adapters.vllm_plugin.routes import EngineRefused, Routes
from adapters.vllm_plugin.shelf import Shelf
from gateway.fleet.fake_faults import Faults
from gateway.fleet.fake_loras import FakeLoras, Refused, internal

VERSION = "0.32.0"
OURS = "hotswap"
DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."
STORE_BYTES = 1 << 30


class FakePlugin:
    """`about` is what the report says of the process. Fetched files are in a folder that goes with this."""

    def __init__(
        self,
        loras: FakeLoras,
        faults: Faults,
        about: Mapping[str, Any],
        *,
        base: str,
        key: str | None,
        admission: bool,
        prompt_logprobs_fixed: bool,
    ) -> None:
        self.boot_id = str(uuid.uuid4())
        self.admission = Admission(about["loras"]["max_loras"], enabled=admission)
        self._base = base
        self._loras = loras
        self._faults = faults
        self._about = about
        self._prompt_logprobs_fixed = prompt_logprobs_fixed
        store = Path(tempfile.gettempdir()) / f"hotswap-fake-engine-{uuid.uuid4().hex}"
        weakref.finalize(self, shutil.rmtree, store, ignore_errors=True)
        self._shelf = Shelf(store, key or "", STORE_BYTES)
        self.routes = Routes(_Worker(loras, faults, self.report), self.admission, self._shelf, self.about)

    def restart(self) -> None:
        self.boot_id = str(uuid.uuid4())
        self._shelf.close()
        self._loras.clear()

    def door(self, app: App) -> Door:
        return Door(
            app,
            self.admission,
            is_base=lambda name: name == self._base,
            routes=lambda: self.routes,
            safe_logprobs=lambda: self._fixed,
        )

    def obey_faults(self) -> None:
        self.admission.apart = self._kernel != OURS and self.admission.enabled

    @property
    def _version(self) -> str:
        return self._faults.vllm_version or VERSION

    @property
    def _kernel(self) -> str:
        return self._faults.lora_kernel or (OURS if self._version == VERSION else "stock")

    @property
    def _fixed(self) -> bool:
        return self._prompt_logprobs_fixed and self._kernel == OURS

    def about(self) -> dict[str, Any]:
        other = {"base_fingerprint": "f" * 64} if self._faults.other_base else {}
        return {**self._about, "boot_id": self.boot_id, "vllm_version": self._version, **other}

    def report(self) -> dict[str, Any]:
        """What the real plugin's workers report."""
        told = "a fake engine has no kernel"
        if self._version != VERSION:
            told = f"vLLM {self._version} is not one that is known here ({VERSION})"
        return {
            "device": "cpu",
            "lora_kernel": self._kernel,
            "prompt_logprobs_fixed": self._fixed,
            "self_test": {"passed": self._kernel == OURS, "details": told},
            "adapters": self._loras.residency(),
            "counters": dict(self._loras.counters),
        }


class _Worker:
    """`adapters.vllm_plugin.routes.Engine` over `FakeLoras`."""

    def __init__(self, loras: FakeLoras, faults: Faults, report: Any) -> None:
        self._loras = loras
        self._faults = faults
        self._report = report

    def registered(self, name: str) -> bool:
        return name in self._loras.paths

    async def residency(self) -> dict[str, Any]:
        self._alive()
        told: dict[str, Any] = self._report()
        return told

    async def load(self, name: str, path: str | None, evict: str | None = None) -> None:
        self._alive()
        if evict is not None:
            self._loras.remove(evict)
        if path is None:
            await self._loras.use(name, self._faults.load_delay_s)
            return
        refusal = internal("Call to add_lora method failed: refused") if self._faults.refuse_loads else None
        try:
            request = {"lora_name": name, "lora_path": path}
            await self._loras.load(request, self._faults.load_delay_s, refusal)
        except Refused as problem:
            raise EngineRefused(problem.status, str(problem)) from problem

    async def remove(self, name: str) -> bool:
        self._alive()
        return self._loras.remove(name)

    async def tensors(self, name: str) -> dict[str, Any]:
        self._alive()
        raise EngineRefused(501, "a fake engine has no weights", "no_weights")

    async def pin(self, name: str, pinned: bool) -> None:
        self._alive()
        if pinned:
            await self._loras.use(name, self._faults.load_delay_s)
        if not self._loras.pin(name, pinned):
            raise EngineRefused(409, f"{name!r} cannot be pinned: too many are", "no_room")

    def _alive(self) -> None:
        if self._faults.dead:
            raise EngineRefused(503, f"the engine behind this server is dead: {DEAD}", "engine_dead")
