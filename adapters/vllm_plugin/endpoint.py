"""The plugin in the API server: its own routes, the doors before all routes, and its lines in /metrics.

Loaded by vLLM (entry point group `vllm.endpoint_plugins`) when VLLM_PLUGINS names `hotswap`. What it tells of
kernel, self-test and residency comes from the workers, through `collective_rpc`; so it waits for the engine's
current step, and an engine that is dead answers 503.

Read from the engine's environment:

    HOTSWAP_ADMISSION=off        let everybody in (to compare with)
    HOTSWAP_SOURCES              origins that adapter files may come from, with commas; unset: any
    HOTSWAP_ENGINE_STORE         where fetched files are kept; default ~/.cache/hotswap/engine-store
    HOTSWAP_ENGINE_STORE_BYTES   of which so many are kept at most; default 20 GiB
"""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.base.manifest import BaseError, BaseManifest
from adapters.vllm_plugin.admission import Admission
from adapters.vllm_plugin.answer import App
from adapters.vllm_plugin.door import Door
from adapters.vllm_plugin.gauges import Gauges
from adapters.vllm_plugin.guard import Guard
from adapters.vllm_plugin.routes import EngineRefused, Routes, without_report
from adapters.vllm_plugin.shelf import Shelf
from adapters.vllm_plugin.vllm_engine import VllmEngine

log = logging.getLogger("vllm.hotswap")

PLUGIN_VERSION = "0.2.0"
SCRAPE_S = 1.0
"""A scrape of /metrics waits so long for a fresh listing; then it gets the last one."""
STORE_BYTES = 20 << 30


@dataclass(frozen=True, slots=True)
class Options:
    """What the environment says."""

    admission: bool
    sources: frozenset[str]
    store: Path
    store_bytes: int

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Options:
        """Raises `ValueError` for a number that is none."""
        named = environment.get("HOTSWAP_ENGINE_STORE")
        sources = environment.get("HOTSWAP_SOURCES", "").split(",")
        return cls(
            admission=environment.get("HOTSWAP_ADMISSION", "on") != "off",
            sources=frozenset(source.strip().rstrip("/") for source in sources if source.strip()),
            store=Path(named) if named else Path.home() / ".cache" / "hotswap" / "engine-store",
            store_bytes=int(environment.get("HOTSWAP_ENGINE_STORE_BYTES", STORE_BYTES)),
        )


class HotswapEndpoint:
    name = "hotswap"
    required_tasks = None

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment
        self._options = Options.read(environment)
        self._admission = Admission(None, enabled=False)
        self._keys: list[str] = []
        self._engine: VllmEngine | None = None
        self._routes: Routes | None = None
        self._safe_logprobs = True

    def attach_router(self, app: Any) -> None:
        from prometheus_client import REGISTRY

        REGISTRY.register(Gauges(self._last_listing))
        # Outside every middleware, vLLM's CORS and key checks too, and whichever are added after us.
        build = app.build_middleware_stack
        given = getattr(app.state.args, "api_key", None)
        self._keys = [key for key in given or [self._environment.get("VLLM_API_KEY", "")] if key]
        app.build_middleware_stack = lambda: Guard(self._door(build()), self._keys)

    def _door(self, app: App) -> Door:
        return Door(
            app,
            self._admission,
            routes=lambda: self._routes,
            is_base=lambda name: self._engine is None or self._engine.is_base(name),
            safe_logprobs=lambda: self._safe_logprobs,
            changed=lambda: None if self._engine is None else self._engine.snapshot.stale(),
            before_metrics=self._refresh,
        )

    async def init_state(self, engine_client: Any, state: Any, args: Any) -> None:
        if engine_client is None:  # vLLM's render server, which has no engine
            return
        about = self._about(engine_client.vllm_config)
        self._engine = VllmEngine(engine_client, state.openai_serving_models)
        key = self._keys[0] if self._keys else ""
        shelf = Shelf(self._options.store, key, self._options.store_bytes)
        self._routes = Routes(
            self._engine, self._admission, shelf, lambda: about, sources=self._options.sources
        )
        if engine_client.vllm_config.lora_config is not None:
            await self._open(self._engine, about["loras"]["max_loras"])

    async def _open(self, engine: VllmEngine, slots: int) -> None:
        """From now on the door knows what this engine's kernel can do."""
        try:
            report = await engine.residency()
        except EngineRefused as refusal:
            report = without_report(str(refusal))
        mixes = report["lora_kernel"] == "stock" and report["device"] in ("cpu", "unknown")
        self._safe_logprobs = report["prompt_logprobs_fixed"]
        self._admission.slots = slots
        self._admission.enabled = self._options.admission
        self._admission.apart = mixes and self._options.admission
        if mixes:
            log.error(
                "vLLM's own LoRA kernel is in use: base and adapter requests %s; prompt_logprobs are refused",
                "take turns" if self._options.admission else "MIX, because HOTSWAP_ADMISSION=off",
            )

    def _about(self, config: Any) -> dict[str, Any]:
        import vllm

        limits = ("max_loras", "max_lora_rank", "max_cpu_loras")
        loras = config.lora_config
        return {
            "plugin_version": PLUGIN_VERSION,
            "vllm_version": vllm.__version__,
            "boot_id": str(uuid.uuid4()),
            "loras": {name: 0 if loras is None else getattr(loras, name) for name in limits},
            "base_fingerprint": fingerprint(config.model_config.model),
            "max_num_seqs": config.scheduler_config.max_num_seqs,
        }

    async def _refresh(self) -> None:
        if self._engine is None:
            return
        try:
            async with asyncio.timeout(SCRAPE_S):
                await self._engine.residency()
        except (TimeoutError, EngineRefused) as problem:
            log.info("a scrape gets the last listing: %s", problem)

    def _last_listing(self) -> dict[str, Any] | None:
        last = None if self._engine is None else self._engine.snapshot.last
        return None if last is None or self._routes is None else self._routes.listed(last)


def fingerprint(model: str) -> str | None:
    """What `hotswap base prepare` noted of the base in this folder; None for one that it did not prepare."""
    try:
        return BaseManifest.read(Path(model)).fingerprint
    except BaseError:
        return None
