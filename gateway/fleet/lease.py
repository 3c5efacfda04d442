"""One request's hold on one name at one engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.fleet.client import Address


@dataclass(slots=True)
class Entry:
    """What an engine boot knows a name by. `generation` counts loads, so that old news is told from new."""

    name: str
    loaded: bool = False
    generation: int = 0
    in_flight: int = 0
    last_used: float = 0.0
    idle: asyncio.Event = field(default_factory=asyncio.Event)


class Load:
    """Requests that one engine boot is working on."""

    __slots__ = ("in_flight",)

    def __init__(self) -> None:
        self.in_flight = 0


class Lease:
    """Where to send one request. Held while it runs; `release` is safe to call twice."""

    __slots__ = (
        "_engine_load",
        "_entry",
        "_generation",
        "_held",
        "_on_stale",
        "headers",
        "host",
        "port",
        "prompt_logprobs_safe",
    )

    def __init__(
        self,
        address: Address,
        *,
        prompt_logprobs_safe: bool,
        entry: Entry,
        engine_load: Load,
        now: float,
        on_stale: Callable[[], None],
    ) -> None:
        self.host = address.host
        self.port = address.port
        self.headers = address.headers
        self.prompt_logprobs_safe = prompt_logprobs_safe
        self._entry = entry
        self._generation = entry.generation
        self._engine_load = engine_load
        self._on_stale = on_stale
        self._held = True
        entry.in_flight += 1
        entry.last_used = now
        engine_load.in_flight += 1

    def stale(self) -> None:
        """The engine does not know the name after all (it answered 404): load it before the next lease.

        Nothing happens when it was loaded again since this lease began.
        """
        if self._entry.generation == self._generation:
            self._entry.loaded = False
            self._on_stale()

    def release(self) -> None:
        if self._held:
            self._held = False
            self._engine_load.in_flight -= 1
            self._entry.in_flight -= 1
            if self._entry.in_flight == 0:
                self._entry.idle.set()
