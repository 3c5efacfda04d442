"""What happened in the fleet lately, and why: for `hotswap ps`, /admin/v1/fleet, /metrics and the log."""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from types import MappingProxyType

logger = logging.getLogger(__name__)

NOT_NOW_EVERY_S = 1.0
"""An engine that is full says so to every request; once a second is told of it."""

LONGEST_REASON = 500


class Kind(StrEnum):
    """docs/fleet.md says what each means to an operator; a test compares."""

    LOADED = "loaded"
    EVICTED = "evicted"
    REMOVED = "removed"
    PINNED = "pinned"
    UNPINNED = "unpinned"
    EJECTED = "ejected"
    RECOVERED = "recovered"
    DEGRADED = "degraded"
    DRAINING = "draining"
    DRAINED = "drained"
    JOINED = "joined"
    LEFT = "left"
    SPREAD = "spread"
    SHRUNK = "shrunk"
    NOT_NOW = "not_now"


WARNED = frozenset({Kind.EJECTED, Kind.DEGRADED, Kind.LEFT})
"""Less serves after these than before."""


@dataclass(frozen=True, slots=True)
class Event:
    """`id` grows by one an event from 1 on, in one process. `at` is seconds since 1970, for people: a clock
    may be set back, an id never. `version` is None where the event is about the engine itself."""

    id: int
    at: float
    kind: Kind
    engine: str
    version: str | None
    reason: str

    def __str__(self) -> str:
        about = f" {self.version}" if self.version else ""
        return f"engine {self.engine}: {self.kind}{about}" + (f": {self.reason}" if self.reason else "")


class Events:
    """The last `size` events, and how many there ever were of each kind.

    `listeners` are called with each event, after it was kept and logged; what they raise goes to whoever
    added it. `now` gives the time for people, `clock` monotonic seconds.
    """

    def __init__(
        self,
        size: int = 1000,
        *,
        listeners: Sequence[Callable[[Event], None]] = (),
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises `ValueError` for a size below 1."""
        if size < 1:
            raise ValueError(f"size = {size}: at least one event is kept")
        self._ring: deque[Event] = deque(maxlen=size)
        self._counts = dict.fromkeys(Kind, 0)
        self._listeners = listeners
        self._now = now
        self._clock = clock
        self._last = 0
        self._told: dict[str, float] = {}

    @property
    def counts(self) -> Mapping[Kind, int]:
        """How often each kind was added since the start: every kind is there. For counters in /metrics."""
        return MappingProxyType(self._counts)

    def add(self, kind: Kind, engine: str, version: str | None = None, reason: str = "") -> None:
        """Keeps, counts and logs one event: one line, without keys, at WARNING for the kinds in `WARNED`.

        Of `not_now` only one a second and engine is kept and logged; all are counted.
        """
        self._counts[kind] += 1
        if kind is Kind.LEFT:
            self._told.pop(engine, None)
        if kind is Kind.NOT_NOW and not self._worth_telling(engine):
            return
        self._last += 1
        event = Event(self._last, self._now(), kind, engine, version, clean(reason))
        self._ring.append(event)
        logger.log(logging.WARNING if kind in WARNED else logging.INFO, "%s", event)
        for listener in self._listeners:
            listener(event)

    def recent(self, count: int) -> list[Event]:
        """The last `count` events that are kept, oldest first."""
        return self._from(len(self._ring) - count)

    def since(self, id: int) -> list[Event]:
        """Those after the one with this id, oldest first; 0 gives all that are kept.

        The first is not id + 1 when more came since than are kept. An id that was never given is another
        process's (the gateway was started again): then, too, all are given.
        """
        if not self._ring or id > self._last:
            return self._from(0)
        return self._from(id - self._ring[0].id + 1)

    def _from(self, at: int) -> list[Event]:
        return list(islice(self._ring, max(0, at), None))

    def _worth_telling(self, engine: str) -> bool:
        now = self._clock()
        if now - self._told.get(engine, float("-inf")) < NOT_NOW_EVERY_S:
            return False
        self._told[engine] = now
        return True


def clean(reason: str) -> str:
    """One line of at most `LONGEST_REASON` characters, without keys: a reason may quote an engine."""
    line = reason
    if not line.isprintable():
        line = " ".join("".join(c if c.isprintable() else " " for c in reason).split())
    for secret, shown in _SECRETS:
        line = secret.sub(shown, line)
    return line if len(line) <= LONGEST_REASON else f"{line[: LONGEST_REASON - 1]}…"


_SECRETS = (
    (re.compile(r"//[^/\s@]+@"), "//…@"),
    (re.compile(r"(?i)\b(bearer)\s+[^\s\"',}]+"), r"\1 …"),
    (re.compile(r"(?i)\b(api[_-]?key|password)([\"']?\s*[=:]\s*[\"']?)[^\s\"',}]+"), r"\1\2…"),
    (re.compile(r"\b(?:hs|sk)-[\w-]{16,}"), "…"),
)
