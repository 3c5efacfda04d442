"""One request's hold on one name at one engine."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from gateway.fleet.client import Address

ADAPTER = "x-hotswap-adapter"
"""The header that tells the plugin which adapter a request is for, before it has read the body."""


@dataclass(slots=True)
class Entry:
    """What an engine boot knows a name by. `generation` counts loads, so that old news is told from new.

    `key` is what admission counts it by: None for the base. `headers` are the lines that every request for it
    to this engine has. Times are monotonic seconds. `idle` is set when nothing is in flight any more, if that
    is `awaited`.
    """

    name: str
    key: str | None = None
    headers: bytes = b""
    loaded: bool = False
    generation: int = 0
    in_flight: int = 0
    last_used: float = 0.0
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    awaited: bool = False

    @classmethod
    def at(cls, address: Address, name: str, key: str | None, *, loaded: bool = False) -> Entry:
        return cls(name, key, address.headers + f"{ADAPTER}: {name}\r\n".encode(), loaded)


class Admission(Protocol):
    """Where it was let in, and is to leave again (`gateway.fleet.admission`)."""

    def leave(self, key: str | None) -> None: ...
    def not_now(self, key: str | None) -> None: ...


class Watched(Protocol):
    """The engine, which learns from what becomes of its requests."""

    name: str

    def succeeded(self, began: float) -> None: ...
    def failed(self, reason: str, *, fatal: bool, began: float) -> None: ...
    def probe_soon(self) -> None: ...


class Lease:
    """Where to send one request. Held while it runs; `release` is safe to call twice."""

    __slots__ = (
        "_admission",
        "_began",
        "_engine",
        "_entry",
        "_failed",
        "_generation",
        "_held",
        "headers",
        "host",
        "loaded_s",
        "port",
        "prompt_logprobs_safe",
    )

    def __init__(
        self,
        address: Address,
        prompt_logprobs_safe: bool,
        entry: Entry,
        admission: Admission,
        engine: Watched,
        now: float,
    ) -> None:
        self.host = address.host
        self.port = address.port
        self.headers = entry.headers
        self.prompt_logprobs_safe = prompt_logprobs_safe
        self.loaded_s: float | None = None  # what this request waited for a load
        self._entry = entry
        self._generation = entry.generation
        self._admission = admission
        self._engine = engine
        self._began = now
        self._held = True
        self._failed = False
        entry.in_flight += 1
        entry.last_used = now

    @property
    def engine(self) -> str:
        """The engine's name, so that another may be asked for instead."""
        return self._engine.name

    def stale(self) -> None:
        """The engine does not know the name after all (it answered 404): load it before the next lease.

        Nothing happens when it was loaded again since this lease began.
        """
        if self._entry.generation == self._generation:
            self._entry.loaded = False
            self._engine.probe_soon()

    def failed(self, reason: str, *, fatal: bool = False) -> None:
        """The engine did not answer as an engine should. `fatal`: it cannot be there any more."""
        self._failed = True
        self._engine.failed(reason, fatal=fatal, began=self._began)

    def not_now(self) -> None:
        """The engine's own door was shut (other gateways fill its slots). Ends the lease."""
        if self._held:
            self._held = False
            self._count_down()
            self._admission.not_now(self._entry.key)

    def release(self, *, answered: bool = False) -> None:
        """`answered`: something of an answer came, which is how an engine proves that it is well."""
        if self._held:
            self._held = False
            self._count_down()
            self._admission.leave(self._entry.key)
            if answered and not self._failed:
                self._engine.succeeded(self._began)

    def _count_down(self) -> None:
        entry = self._entry
        entry.in_flight -= 1
        if entry.in_flight == 0 and entry.awaited:
            entry.idle.set()
