"""The engine's own say on who comes in: at most `max_loras` distinct adapters, before vLLM queues any.

vLLM's scheduler skips waiting requests of further adapters, so those starve; and only the engine sees what
every gateway sends it. So it says "not now", and the gateways queue. This module counts; `door` speaks HTTP.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping

Key = str | None
"""An adapter's name as the engine knows it; None for the base."""

TURN_S = 1.0
"""How long base or adapters go on taking new requests while the other side is refused."""
GIVEN_UP_S = 1.0
"""A side that was refused and did not ask again for so long waits no more."""


class Admission:
    """Which adapters are in flight, and who may join them. Lives on one event loop.

    `slots` is the engine's `max_loras`; None: no cap. An adapter that is in flight always enters. `apart`:
    base and adapters never at the same time, for a kernel that mixes them (vLLM's own on CPU); then they take
    turns. Not `enabled`: it counts and lets everybody in.
    """

    def __init__(
        self,
        slots: int | None,
        *,
        apart: bool = False,
        enabled: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.slots = slots
        self.apart = apart
        self.enabled = enabled
        self.not_now = 0
        self._in_flight: Counter[Key] = Counter()
        self._turns = _Turns(clock)

    @property
    def adapters(self) -> Mapping[str, int]:
        """Requests in flight by adapter, without the base."""
        return {key: count for key, count in self._in_flight.items() if key is not None}

    def in_flight(self, key: Key) -> int:
        return self._in_flight[key]

    def enter(self, key: Key) -> str | None:
        """None when the request is in, and must `leave`; else why not now: "slots" or "apart"."""
        reason = self._objection(key) if self.enabled else None
        if reason is not None:
            self.not_now += 1
            return reason
        self._in_flight[key] += 1
        self._turns.entered(adapter=key is not None)
        return None

    def leave(self, key: Key) -> None:
        self._in_flight[key] -= 1
        if not self._in_flight[key]:
            del self._in_flight[key]
        self._turns.left()

    def _objection(self, key: Key) -> str | None:
        if self.apart and self._turns.refuses(adapter=key is not None):
            return "apart"
        if key is None or key in self._in_flight or self.slots is None:
            return None
        return "slots" if len(self._in_flight) - (None in self._in_flight) >= self.slots else None


class _Turns:
    """Whose turn it is, base's or the adapters': the engine's until it is empty, and after `TURN_S` of
    somebody else's asking it takes no more, so that it becomes empty."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._adapters = False  # whose turn it is
        self._running = 0
        self._wanted_since: float | None = None  # by the other side
        self._asked_last = 0.0

    def refuses(self, *, adapter: bool) -> bool:
        now = self._clock()
        if now - self._asked_last > GIVEN_UP_S:
            self._wanted_since = None
        if adapter != self._adapters:
            if not self._running:
                return False
            self._asked_last = now
            if self._wanted_since is None:
                self._wanted_since = now
            return True
        if self._wanted_since is None:
            return False
        return not self._running or now - self._wanted_since > TURN_S

    def entered(self, *, adapter: bool) -> None:
        if adapter != self._adapters:
            self._adapters, self._wanted_since = adapter, None
        self._running += 1

    def left(self) -> None:
        self._running -= 1
