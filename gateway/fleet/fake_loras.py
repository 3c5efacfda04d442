"""The fake engine's adapters: vLLM's checks, status codes, messages and caches, and no weights."""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(slots=True)
class Cached:
    """One adapter in the CPU cache."""

    rank: int
    bytes: int
    used_at: float


class FakeLoras:
    """Which adapters are registered, by the name they were loaded under, and which of them are in memory.

    As in vLLM: `max_cpu_loras` are in memory, `max_loras` of them in slots, both by last use; a request for
    one that was dropped reads its files again. Reading is one at a time: vLLM does it in its engine loop.
    """

    def __init__(
        self,
        base: str,
        max_lora_rank: int,
        max_loras: int = 8,
        max_cpu_loras: int = 64,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.paths: dict[str, str] = {}
        self.loads = 0
        self.counters = {"disk_loads": 0, "activations": 0, "evictions": 0}
        self._cache: OrderedDict[str, Cached] = OrderedDict()
        self._active: OrderedDict[str, int] = OrderedDict()  # name -> slot
        self._pinned: set[str] = set()
        self._base = base
        self._max_lora_rank = max_lora_rank
        self._max_loras = max_loras
        self._max_cpu_loras = max_cpu_loras
        self._clock = clock
        self._loading = asyncio.Lock()

    def clear(self) -> None:
        """As a new process begins."""
        self.paths.clear()
        self._cache.clear()
        self._active.clear()
        self._pinned.clear()
        self.counters = dict.fromkeys(self.counters, 0)

    async def load(self, request: dict[str, Any], delay_s: float, refusal: Refused | None) -> str:
        """vLLM's answer to a load. Raises `Refused`."""
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
            rank = self._check(name, Path(path))
            self.paths[name] = path
            self.loads += 1
            self._read(name, rank)
            self._activate(name)
        return f"Success: LoRA adapter '{name}' added successfully."

    def unload(self, request: dict[str, Any]) -> str:
        """vLLM's answer to an unload, which only forgets the name. Raises `Refused`."""
        name = _text(request, "lora_name")
        if name not in self.paths:
            raise Refused(404, f"The lora adapter '{name}' cannot be found.", "NotFoundError")
        del self.paths[name]
        return f"Success: LoRA adapter '{name}' removed successfully."

    async def use(self, name: str, delay_s: float) -> None:
        """What a request for a registered adapter does: reads it if it was dropped, and gives it a slot."""
        if name not in self._cache:
            async with self._loading:
                if name not in self._cache:
                    await asyncio.sleep(delay_s)
                    config = Path(self.paths.get(name, "/")) / "adapter_config.json"
                    self._read(name, json.loads(config.read_text()).get("r", 0) if config.is_file() else 0)
        self._activate(name)

    def remove(self, name: str) -> bool:
        """Forgets the name and frees what it holds; whether there was anything."""
        known = self.paths.pop(name, None) is not None
        return self._drop(name) or known

    def pin(self, name: str, pinned: bool) -> bool:
        """False when there would be no room for `max_loras` others beside the pinned ones."""
        if not pinned:
            self._pinned.discard(name)
        elif name not in self._pinned and len(self._pinned) >= self._max_cpu_loras - self._max_loras:
            return False
        else:
            self._pinned.add(name)
        return True

    def residency(self) -> list[dict[str, Any]]:
        """As the plugin's `ledger` tells it."""
        now = self._clock()
        return [
            {
                "name": name,
                "slot": self._active.get(name),
                "pinned": name in self._pinned,
                "rank": held.rank,
                "bytes": held.bytes,
                "last_used_s": round(now - held.used_at, 3),
            }
            for name, held in self._cache.items()
        ]

    def _read(self, name: str, rank: int) -> None:
        self.counters["disk_loads"] += 1
        if len(self._cache) >= self._max_cpu_loras:
            self.counters["evictions"] += 1
            self._drop(next(each for each in self._cache if each not in self._pinned))
        self._cache[name] = Cached(rank, 4096 * rank, self._clock())

    def _activate(self, name: str) -> None:
        self._cache[name].used_at = self._clock()
        self._cache.move_to_end(name)
        if name not in self._active:
            self.counters["activations"] += 1
            if len(self._active) >= self._max_loras:
                self._active.popitem(last=False)
            taken = set(self._active.values())
            self._active[name] = next(slot for slot in range(self._max_loras) if slot not in taken)
        self._active.move_to_end(name)

    def _drop(self, name: str) -> bool:
        self._active.pop(name, None)
        self._pinned.discard(name)
        return self._cache.pop(name, None) is not None

    def _check(self, name: str, folder: Path) -> int:
        """The adapter's rank."""
        config = folder / "adapter_config.json"
        if not config.is_file() or not (folder / "adapter_model.safetensors").is_file():
            message = f"Loading lora {name} failed: No adapter found for <path>"
            raise Refused(404, message, "NotFoundError")
        rank: int = json.loads(config.read_text()).get("r", 0)
        if rank > self._max_lora_rank:
            raise internal(
                f"Call to add_lora method failed: Worker failed with error 'LoRA rank {rank} is greater "
                f"than max_lora_rank {self._max_lora_rank}.', please check the stack trace above for the "
                "root cause"
            )
        return rank


def _text(request: dict[str, Any], field: str) -> str:
    value = request.get(field)
    if not isinstance(value, str):
        where = f"body.{field}"
        problem = {"type": "missing", "loc": where, "msg": "Field required"}
        raise Refused(400, f"1 validation error:\n  {problem}", "Bad Request", where)
    return value
