"""What the plugin's routes do, whoever carries the HTTP: vLLM's server, or the fake engine's.

    GET    /hotswap/v1/plugin                what this engine really runs
    GET    /hotswap/v1/adapters              what is resident, truly
    PUT    /hotswap/v1/adapters/{name}       make it registered and resident
    DELETE /hotswap/v1/adapters/{name}       forget it, and free its slot and its place in the CPU cache
    POST   /hotswap/v1/adapters/{name}/pin   never evict it (and /unpin)
    GET    /hotswap/v1/adapters/{name}/tensors   digests of the weights in its slot (`tensors`)

`Routes` checks and orders; `Engine` is what acts. Neither needs torch or vLLM.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Protocol
from weakref import WeakValueDictionary

import msgspec

from adapters.version import SHORT, Reference
from adapters.vllm_plugin.admission import Admission
from adapters.vllm_plugin.answer import Answer, error
from adapters.vllm_plugin.shelf import FetchFailed, Shelf, check_source

PREFIX = "/hotswap/v1/"
FEATURES = ("adapters", "pin", "metrics", "tensors")
"""What a report lists as `routes`, so that a gateway tells a newer plugin from an older one."""


class EngineRefused(Exception):
    """The engine's own no, with its status and words."""

    def __init__(self, status: int, message: str, code: str = "engine_error") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Engine(Protocol):
    """What acts on adapters. Every call may raise `EngineRefused`."""

    def registered(self, name: str) -> bool: ...

    async def load(self, name: str, path: str | None, evict: str | None = None) -> None:
        """Registers `name`, if it is not, from the absolute folder `path`, and makes it resident.

        `evict` is removed first, without a step of the engine between: else a request that waits for a load
        into a full cache would wait for that step as well.
        """

    async def remove(self, name: str) -> bool:
        """Forgets the name at once, then frees what it holds. False when nothing was known by it."""

    async def pin(self, name: str, pinned: bool) -> None:
        """`name` is registered."""

    async def tensors(self, name: str) -> dict[str, Any]:
        """What `tensors.digests` tells of it, in a slot. `name` is registered."""

    async def residency(self) -> dict[str, Any]:
        """The workers' report (`installation`)."""


class Wanted(msgspec.Struct):
    """The body of a PUT."""

    sha256: str
    source: str | None = None
    path: str | None = None
    evict: str | None = None


class Routes:
    """`about` is what the report says of the process itself: boot_id, loras and the rest. `sources` are the
    origins that files may come from; empty: any. Whoever calls holds the engine's key.
    """

    def __init__(
        self,
        engine: Engine,
        admission: Admission,
        shelf: Shelf,
        about: Callable[[], Mapping[str, Any]],
        *,
        sources: frozenset[str] = frozenset(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._admission = admission
        self._shelf = shelf
        self._about = about
        self._sources = sources
        self._clock = clock
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def answer(self, method: str, path: str, body: bytes) -> Answer | None:
        """None when there is no such route."""
        try:
            match method, *path.removeprefix(PREFIX).split("/"):
                case "GET", "plugin":
                    return await self.report()
                case "GET", "adapters":
                    return Answer(200, self.listed(await self._engine.residency()))
                case "PUT", "adapters", name:
                    return await self.put(name, body)
                case "DELETE", "adapters", name:
                    return await self.delete(name)
                case "GET", "adapters", name, "tensors":
                    return await self.tensors(name)
                case "POST", "adapters", name, ("pin" | "unpin") as verb:
                    return await self.pin(name, verb == "pin")
        except EngineRefused as refusal:
            return error(refusal.status, str(refusal), refusal.code)
        except FetchFailed as failure:
            return error(failure.status, str(failure), failure.code)
        return None

    async def report(self) -> Answer:
        try:
            told = await self._engine.residency()
        except EngineRefused as refusal:
            if refusal.status == 503:
                raise
            told = without_report(f"the worker did not report: {refusal}")
        admission = {"enabled": self._admission.enabled, "apart": self._admission.apart}
        body = {name: told[name] for name in ("device", "lora_kernel", "prompt_logprobs_fixed", "self_test")}
        body |= {"resident": [{"name": each["name"], "slot": each["slot"]} for each in told["adapters"]]}
        body |= {"admission": admission, "counters": self._counters(told), "routes": list(FEATURES)}
        return Answer(200, dict(self._about()) | body)

    def listed(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """The body of `GET /hotswap/v1/adapters`, of a workers' report."""
        about = self._about()
        in_flight = self._admission.in_flight
        return {
            "boot_id": about["boot_id"],
            "max_loras": about["loras"]["max_loras"],
            "max_cpu_loras": about["loras"]["max_cpu_loras"],
            "adapters": [each | {"in_flight": in_flight(each["name"])} for each in told["adapters"]],
            "counters": self._counters(told),
        }

    def _counters(self, told: Mapping[str, Any]) -> dict[str, int]:
        counted: dict[str, int] = told["counters"]
        return counted | {"not_now": self._admission.not_now}

    async def put(self, name: str, body: bytes) -> Answer:
        began = self._clock()
        try:
            wanted = msgspec.json.decode(body, type=Wanted)
        except (msgspec.DecodeError, UnicodeDecodeError) as problem:
            return error(400, f"the body is not {{sha256, source, path?}}: {problem}", "bad_body")
        reference = Reference.parse(name)
        if reference is None or Reference.parse(f"{reference.adapter}@{wanted.sha256}") is None:
            return error(400, f"{ascii(name)[:120]} is no version's name, or its sha256 is none", "bad_name")
        if len(wanted.sha256) != 64 or name != f"{reference.adapter}@{wanted.sha256[:SHORT]}":
            expected = f"{reference.adapter}@{wanted.sha256[:SHORT]}"
            return error(400, f"a version with this sha256 is called {expected!r}, not {name!r}", "bad_name")
        if wanted.path is not None:
            if not wanted.path.startswith("/") or not wanted.path.endswith(f"/sha256/{wanted.sha256}"):
                return error(400, "path must be absolute and end in /sha256/<sha256>", "bad_path")
            source = ""
        else:
            source = check_source(wanted.source, self._sources)
        # In one order, whoever asks: two that want to evict each other's adapter must not wait for ever.
        async with AsyncExitStack() as turns:
            for each in sorted({name, wanted.evict or name}):
                await turns.enter_async_context(self._turn(each))
            if wanted.evict is not None and self._admission.in_flight(wanted.evict):
                return _in_flight(wanted.evict, self._admission.in_flight(wanted.evict))
            fetched, evicted = await self._load(name, wanted, source)
            if evicted and wanted.evict is not None:
                self._shelf.release(wanted.evict)
        took_ms = round(1000 * (self._clock() - began), 1)
        done = {"name": name, "loaded": True, "fetched": fetched, "evicted": evicted, "ms": took_ms}
        return Answer(200, done)

    async def _load(self, name: str, wanted: Wanted, source: str) -> tuple[bool, bool]:
        """Whether its files were fetched, and whether the other adapter was evicted."""
        evict = wanted.evict
        if self._engine.registered(name):
            held = (await self._engine.residency())["adapters"]
            if any(each["name"] == name for each in held):
                return False, False  # a resident one is left alone: to touch it would take somebody's slot
            await self._engine.load(name, None, evict)
            return False, evict is not None
        if wanted.path is not None:
            await self._engine.load(name, wanted.path, evict)
            return False, evict is not None
        folder, fetched = await asyncio.to_thread(self._shelf.get, name, wanted.sha256, source)
        try:
            await self._engine.load(name, str(folder), evict)
        finally:
            if not self._engine.registered(name):
                self._shelf.release(name)
        return fetched, evict is not None

    async def delete(self, name: str) -> Answer:
        async with self._turn(name):
            if running := self._admission.in_flight(name):
                return _in_flight(name, running)
            if not await self._engine.remove(name):
                return _unknown(name)
            self._shelf.release(name)
        return Answer(200, {"name": name, "removed": True})

    async def pin(self, name: str, pinned: bool) -> Answer:
        async with self._turn(name):
            if not self._engine.registered(name):
                return _unknown(name)
            await self._engine.pin(name, pinned)
        return Answer(200, {"name": name, "pinned": pinned})

    async def tensors(self, name: str) -> Answer:
        async with self._turn(name):
            if not self._engine.registered(name):
                return _unknown(name)
            return Answer(200, {"name": name} | await self._engine.tensors(name))

    def _turn(self, name: str) -> asyncio.Lock:
        """What is done to one name is done one after the other."""
        return self._turns.setdefault(name, asyncio.Lock())


def without_report(reason: str) -> dict[str, Any]:
    """What is said of workers that do not report."""
    return {
        "device": "unknown",
        "lora_kernel": "stock",
        "prompt_logprobs_fixed": False,
        "self_test": {"passed": False, "details": reason},
        "adapters": [],
        "counters": {"disk_loads": 0, "activations": 0, "evictions": 0},
    }


def _in_flight(name: str, running: int) -> Answer:
    return error(409, f"{running} requests use {name!r}; remove it when they are done", "in_flight")


def _unknown(name: str) -> Answer:
    return error(404, f"this engine knows no adapter called {name!r}", "unknown_adapter")
