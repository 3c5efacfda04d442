"""Counts every exchange of the data plane: how it ended, how long it took, what it carried."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from gateway.telemetry.tally import Tally

OUTCOMES = ("complete", "client_left", "engine_lost")
STATUSES = ("none", "2xx", "4xx", "5xx")

DURATION_S = tuple(0.01 * 2**k for k in range(14))
FIRST_BYTE_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Buckets of OpenTelemetry's GenAI conventions, seconds."""

IN_FLIGHT, PIECES, BYTES, LOADS, LOAD_S = "in_flight", "pieces", "bytes", "loads", "load_s"
RECORDS, DROPPED, FULL = "journal records", "journal dropped", "journal full"
EVENTS = (
    *("loaded", "evicted", "removed", "pinned", "unpinned", "ejected", "recovered", "degraded"),
    *("draining", "drained", "joined", "left", "spread", "shrunk", "not_now"),
)
"""Kinds of events in the fleet (`gateway.fleet.events`; a test compares)."""
HISTOGRAMS = {"duration": DURATION_S, "first_byte": FIRST_BYTE_S}


class Measured(Protocol):
    """What is read of an exchange that is over. Times are monotonic seconds."""

    @property
    def outcome(self) -> object: ...
    @property
    def route(self) -> str | None: ...
    @property
    def status(self) -> int: ...
    @property
    def streaming(self) -> bool: ...
    @property
    def began(self) -> float: ...
    @property
    def first(self) -> float | None: ...
    @property
    def ended(self) -> float | None: ...
    @property
    def pieces(self) -> int: ...
    @property
    def sent_bytes(self) -> int: ...
    @property
    def loaded_s(self) -> float | None: ...


def _names() -> Iterator[str]:
    yield from (IN_FLIGHT, PIECES, BYTES, LOADS, LOAD_S, RECORDS, DROPPED, FULL)
    for outcome in OUTCOMES:
        for status in STATUSES:
            yield f"exchanges {outcome} {status}"
    for kind in EVENTS:
        yield f"fleet {kind}"
    for histogram, bounds in HISTOGRAMS.items():
        yield f"{histogram} sum"
        for bound in (*bounds, float("inf")):
            yield f"{histogram} {bound:g}"


NAMES = tuple(_names())
_AT = {name: i for i, name in enumerate(NAMES)}
_IN_FLIGHT, _PIECES, _BYTES, _LOADS, _LOAD_S = (
    _AT[name] for name in (IN_FLIGHT, PIECES, BYTES, LOADS, LOAD_S)
)
_ENDS = {outcome: _AT[f"exchanges {outcome} none"] for outcome in OUTCOMES}
_EVENTS = {kind: _AT[f"fleet {kind}"] for kind in EVENTS}
_DURATION, _FIRST_BYTE = _AT["duration sum"], _AT["first_byte sum"]


class Exchanges:
    """`began` and `ended` are called once an exchange each; together they take about a microsecond."""

    def __init__(self, file: Path | None = None) -> None:
        self.tally = Tally(NAMES, file)
        self.tally.values[_IN_FLIGHT] = 0.0  # those of an earlier process are not in flight any more

    def fleet_event(self, kind: str) -> None:
        """One more of this kind."""
        self.tally.values[_EVENTS[kind]] += 1

    def journal(self, *, records: int, dropped: int, full: bool) -> None:
        """So many more; `full`: it drops records now."""
        values = self.tally.values
        values[_AT[RECORDS]] += records
        values[_AT[DROPPED]] += dropped
        values[_AT[FULL]] = float(full)

    def began(self) -> None:
        self.tally.values[_IN_FLIGHT] += 1

    def ended(self, exchange: Measured) -> None:
        values = self.tally.values
        values[_IN_FLIGHT] -= 1
        status = exchange.status
        column = 0 if status == 0 else 1 if status < 400 else 2 if status < 500 else 3
        values[_ENDS[str(exchange.outcome)] + column] += 1
        values[_PIECES] += exchange.pieces
        values[_BYTES] += exchange.sent_bytes
        if exchange.loaded_s is not None:
            values[_LOADS] += 1
            values[_LOAD_S] += exchange.loaded_s
        if column != 1 or exchange.route is None or exchange.ended is None:
            return  # refused, or nothing that an engine does
        took = exchange.ended - exchange.began
        values[_DURATION] += took
        values[_DURATION + 1 + bisect_left(DURATION_S, took)] += 1
        if exchange.streaming and exchange.first is not None:
            waited = exchange.first - exchange.began
            values[_FIRST_BYTE] += waited
            values[_FIRST_BYTE + 1 + bisect_left(FIRST_BYTE_S, waited)] += 1
