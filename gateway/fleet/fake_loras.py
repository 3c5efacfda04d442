"""The fake engine's adapters: vLLM's checks, status codes and messages, and no weights."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any


class Refused(Exception):
    """An error answer in vLLM's shape, where `code` is the status."""

    def __init__(
        self, status: int, message: str, kind: str = "BadRequestError", param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": status}}


def internal(message: str) -> Refused:
    return Refused(500, message, "InternalServerError")


class FakeLoras:
    """Which adapters are registered, by the name they were loaded under."""

    def __init__(self, base: str, max_lora_rank: int) -> None:
        self.paths: dict[str, str] = {}
        self.loads = 0
        self._base = base
        self._max_lora_rank = max_lora_rank
        self._loading = asyncio.Lock()

    async def load(self, request: dict[str, Any], delay_s: float, refusal: Refused | None) -> str:
        """vLLM's answer to a load. One at a time: vLLM loads in its engine loop. Raises `Refused`."""
        name, path = _text(request, "lora_name"), _text(request, "lora_path")
        if name == self._base:
            message = f"The lora adapter '{name}' conflicts with a served base model."
            raise Refused(400, message, "InvalidUserInput")
        async with self._loading:
            if name in self.paths:
                message = (
                    f"The lora adapter '{name}' has already been loaded. If you want to load the adapter in "
                    "place, set 'load_inplace' to True."
                )
                raise Refused(400, message, "InvalidUserInput")
            await asyncio.sleep(delay_s)
            if refusal is not None:
                raise refusal
            self._check(name, Path(path))
            self.paths[name] = path
            self.loads += 1
        return f"Success: LoRA adapter '{name}' added successfully."

    def unload(self, request: dict[str, Any]) -> str:
        """vLLM's answer to an unload. Raises `Refused`."""
        name = _text(request, "lora_name")
        if name not in self.paths:
            raise Refused(404, f"The lora adapter '{name}' cannot be found.", "NotFoundError")
        del self.paths[name]
        return f"Success: LoRA adapter '{name}' removed successfully."

    def _check(self, name: str, folder: Path) -> None:
        config = folder / "adapter_config.json"
        if not config.is_file() or not (folder / "adapter_model.safetensors").is_file():
            message = f"Loading lora {name} failed: No adapter found for <path>"
            raise Refused(404, message, "NotFoundError")
        rank = json.loads(config.read_text()).get("r", 0)
        if rank > self._max_lora_rank:
            raise internal(
                f"Call to add_lora method failed: Worker failed with error 'LoRA rank {rank} is greater "
                f"than max_lora_rank {self._max_lora_rank}.', please check the stack trace above for the "
                "root cause"
            )


def _text(request: dict[str, Any], field: str) -> str:
    value = request.get(field)
    if not isinstance(value, str):
        where = f"body.{field}"
        problem = {"type": "missing", "loc": where, "msg": "Field required"}
        raise Refused(400, f"1 validation error:\n  {problem}", "Bad Request", where)
    return value
