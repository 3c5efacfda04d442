"""The part of an engine's HTTP that a fleet speaks, with a script of faults, in this process.

Tests that need a process to kill run the fake engine that ships; this one shows what it was asked, exactly.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any


def report(boot_id: str = "boot-1", **changes: Any) -> dict[str, Any]:
    """A plugin's report of a sound CPU engine, with `changes`."""
    return {
        "plugin_version": "0.1.0",
        "vllm_version": "0.32.0",
        "boot_id": boot_id,
        "device": "cpu",
        "lora_kernel": "hotswap",
        "prompt_logprobs_fixed": True,
        "self_test": {"passed": True, "details": "ok"},
        "loras": {"max_loras": 8, "max_lora_rank": 32, "max_cpu_loras": 64},
        "max_num_seqs": 256,
        "admission": {"enabled": True, "apart": False},
        "routes": ["adapters"],
    } | changes


@dataclass
class Stub:
    """`load_gate` holds loads back while it is clear; so many loads as `refuse_loads` get an error.

    The next `cut` requests get their connection closed instead of an answer.
    """

    key: str = "engine-key"
    base: str = "base"
    plugin: dict[str, Any] | None = field(default_factory=report)
    loaded: dict[str, str] = field(default_factory=dict)
    loads: list[str] = field(default_factory=list)
    unloads: list[str] = field(default_factory=list)
    pins: list[str] = field(default_factory=list)
    refuse_loads: int = 0
    health: int = 200
    cut: int = 0
    load_gate: asyncio.Event = field(default_factory=asyncio.Event)
    load_asked: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0
    unauthorized: int = 0
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.load_gate.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def reboot(self, boot_id: str) -> None:
        self.loaded.clear()
        self.plugin = report(boot_id)

    def listing(self) -> dict[str, Any]:
        assert self.plugin is not None
        adapters = [
            {"name": name, "slot": slot, "pinned": False, "rank": 8, "bytes": 1}
            | {"last_used_s": None, "in_flight": 0}
            for slot, name in enumerate(self.loaded)
        ]
        loras = {"max_loras": 8, "max_cpu_loras": 64}
        return {"boot_id": self.plugin["boot_id"], "adapters": adapters, "counters": {}} | loras

    @asynccontextmanager
    async def listening(self, port: int = 0) -> Any:
        server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                method, path, _ = head[0].split(" ")
                headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
                raw = await reader.readexactly(int(headers.get("content-length", 0)))
                if self.cut:
                    self.cut -= 1
                    writer.transport.abort()
                    return
                if headers.get("authorization") != f"bearer {self.key}":
                    self.unauthorized += 1
                    status, answer = 401, {"error": "Unauthorized"}
                else:
                    status, answer = await self._answer(method, path, json.loads(raw) if raw else {})
                body = json.dumps(answer).encode()
                writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.transport.abort()
        finally:
            self._writers.discard(writer)

    async def _answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path == "/health":
            return self.health, {}
        if path == "/v1/models":
            return 200, {"data": [{"id": name} for name in (self.base, *self.loaded)]}
        if path == "/hotswap/v1/plugin" and self.plugin is not None:
            return 200, self.plugin
        if path == "/hotswap/v1/adapters" and self.plugin is not None:
            return 200, self.listing()
        if path.startswith("/hotswap/v1/adapters/"):
            name = path.rpartition("/")[2]
            if method == "PUT":
                put = {"lora_name": name, "lora_path": body.get("path", "fetched")}
                self.loaded.pop(name, None)  # one that is there already is success
                evict = body.get("evict")
                if evict is not None:
                    self.unloads.append(evict)
                    self.loaded.pop(evict, None)
                status, answer = await self._load(put)
                done = {"name": name, "loaded": True, "fetched": False, "evicted": evict is not None}
                return status, done | {"ms": 1.0} | (answer or {})
            if method == "POST":
                self.pins.append(path.removeprefix("/hotswap/v1/adapters/"))
                return 200, {}
            self.unloads.append(name)
            return (200, {}) if self.loaded.pop(name, None) else (404, {})
        if path == "/v1/load_lora_adapter":
            return await self._load(body)
        if path == "/v1/unload_lora_adapter":
            self.unloads.append(body["lora_name"])
            known = self.loaded.pop(body["lora_name"], None)
            return (200, {}) if known else (404, {"error": {"message": "cannot be found"}})
        return 404, {"detail": "Not Found"}

    async def _load(self, body: dict[str, Any]) -> tuple[int, Any]:
        name, path = body["lora_name"], body["lora_path"]
        self.loads.append(name)
        self.load_asked.set()
        await self.load_gate.wait()
        if self.refuse_loads:
            self.refuse_loads -= 1
            return 500, {"error": {"message": f"rank 64 at {path} is too large"}}
        if name in self.loaded:
            message = f"The lora adapter '{name}' has already been loaded. If you want ..."
            return 400, {"error": {"message": message}}
        self.loaded[name] = path
        return 200, {}
