"""`GET /hotswap/v1/plugin`: what this engine really runs, and the guard before all its routes.

Loaded by vLLM in the API server (entry point group `vllm.endpoint_plugins`) when VLLM_PLUGINS names
`hotswap`. The answer about kernel, self-test and residency comes from the workers, through
`collective_rpc`; so it waits for the engine's current step, and an engine that is dead answers 503.
"""

from __future__ import annotations

import os
import uuid
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from adapters.vllm_plugin.guard import Guard
from adapters.vllm_plugin.installation import REPORT

PATH = "/hotswap/v1/plugin"
PLUGIN_VERSION = "0.1.0"
RPC_TIMEOUT_S = 30.0


class HotswapEndpoint:
    name = "hotswap"
    required_tasks = None

    def __init__(self) -> None:
        self._boot_id = str(uuid.uuid4())
        self._client: Any = None
        self._loras: dict[str, int | None] = {"max_loras": 0, "max_lora_rank": 0, "max_cpu_loras": 0}

    def attach_router(self, app: FastAPI) -> None:
        app.add_api_route(PATH, self.plugin, methods=["GET"], include_in_schema=False)
        # Outside every middleware, vLLM's CORS and key checks too, and whichever are added after us.
        build = app.build_middleware_stack
        keys = getattr(app.state.args, "api_key", None) or [os.environ.get("VLLM_API_KEY", "")]
        app.build_middleware_stack = lambda: Guard(build(), keys)  # type: ignore[method-assign]

    async def init_state(self, engine_client: Any, state: Any, args: Any) -> None:
        self._client = engine_client
        config = engine_client.vllm_config.lora_config if engine_client is not None else None
        if config is not None:
            self._loras = {name: getattr(config, name) for name in self._loras}

    async def plugin(self) -> JSONResponse:
        import vllm
        from vllm.v1.engine.exceptions import EngineDeadError

        answer: dict[str, Any] = {
            "plugin_version": PLUGIN_VERSION,
            "vllm_version": vllm.__version__,
            "boot_id": self._boot_id,
        }
        try:
            reports = await self._client.collective_rpc(REPORT, timeout=RPC_TIMEOUT_S)
        except EngineDeadError as error:
            return _error(503, f"the engine behind this server is dead: {error}")
        except Exception as error:  # noqa: BLE001  the worker's own error arrives as a bare Exception
            reason = f"the worker did not report: {type(error).__name__}: {error}"
            return JSONResponse(answer | without_report(reason) | {"loras": self._loras})
        return JSONResponse(answer | agreed(reports) | {"loras": self._loras})


def agreed(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """One answer for all workers: the first one's, or of the first that failed its self-test."""
    return next((each for each in reports if not each["self_test"]["passed"]), reports[0])


def without_report(reason: str) -> dict[str, Any]:
    return {
        "device": "unknown",
        "lora_kernel": "stock",
        "prompt_logprobs_fixed": False,
        "self_test": {"passed": False, "details": reason},
        "resident": [],
    }


def _error(status: int, message: str) -> JSONResponse:
    body = {"message": message, "type": "server_error", "param": None, "code": "engine_dead"}
    return JSONResponse({"error": body}, status_code=status)
