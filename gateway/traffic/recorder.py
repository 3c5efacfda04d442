"""What the request path calls: whether an exchange is remembered, and the record when it is over.

Neither waits for anything. Records are written down some at a time: together they cost less than half of
what each does between two requests, when nothing that it touches is in the processor's caches. The bytes go
to the journal as they are, unless the policy keeps less than all of them: then a thread cleans the record
first (`gateway.traffic.cleaner`), for what is not to be kept must not touch the disk.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from gateway.traffic.answer import EMBEDDINGS
from gateway.traffic.journal import Journal
from gateway.traffic.policy import Policies, Policy
from gateway.traffic.record import FULL, METADATA, Exchanged, encode


class Key(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def tenant(self) -> str: ...


class Exchange(Protocol):
    """What is read of an exchange, and where it keeps what it is to remember."""

    id: str
    path: str
    route: str | None
    version: str | None
    engine: tuple[str, int] | None
    unit: bytes | None
    status: int
    outcome: Any
    error: str | None
    streaming: bool
    began: float
    ready: float
    first: float | None
    ended: float | None
    loaded_s: float | None
    sent_bytes: int
    body: bytes | bytearray
    request: bytes | bytearray
    kept: list[bytes] | None
    memory: Memory | None


GATHERED = 32
"""So many exchanges that are over are written down at once."""
GATHER_S = 0.005
"""Or those that there are after so long."""
TOGETHER_BYTES = 256 * 1024
"""Of requests and answers that are handed to the journal as one; what is longer goes alone."""

Memory = tuple[Policy, str, Key]
"""How one exchange is remembered: its policy, its route, whose it is. Bare, because it is made for each."""


class Recorder:
    """`base` is the fingerprint of the base that is served. `clean` takes records whose policy keeps less
    than all of them, and appends what is left."""

    def __init__(
        self,
        journal: Journal,
        policies: Policies,
        base: str,
        clean: Callable[[Exchanged], None],
    ) -> None:
        self._journal = journal
        self._policies = policies
        self._base = base
        self._clean = clean
        self._over: list[Exchange] = []
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, exchange: Exchange, route: str, key: Key, request: Mapping[str, msgspec.Raw]) -> None:
        """Decides, before the request is sent, whether and what will be remembered of it."""
        policy = self._policies.of(route, key.id)
        if policy.capture == "off" or (policy.sample < 1.0 and random.random() >= policy.sample):  # noqa: S311
            return
        stored = request.get("store")
        if stored is not None and bytes(stored) == b"false":
            return
        exchange.memory = (policy, route, key)
        exchange.request = exchange.body
        if exchange.path != EMBEDDINGS or policy.capture == "metadata":
            exchange.kept = []

    def ended(self, exchange: Exchange) -> None:
        """An exchange is over: its record goes to the journal in a moment, if it is to be remembered."""
        if exchange.memory is None:
            return
        over = self._over
        over.append(exchange)
        if len(over) >= GATHERED:
            self.write_down()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_S, self._due)

    def write_down(self) -> None:
        """Hands over what was gathered."""
        over, self._over = self._over, []
        since_1970 = time.time() - time.monotonic()
        records: list[Exchanged] = []
        size = 0
        for exchange in over:
            record = self._record(exchange, since_1970)
            if record.redacted or record.level != FULL:
                self._clean(record)
                continue
            length = len(record.request) + len(record.answer)
            if records and size + length > TOGETHER_BYTES:
                self._journal.append(encode(*records), len(records))
                records, size = [], 0
            records.append(record)
            size += length
        if records:
            self._journal.append(encode(*records), len(records))

    def _due(self) -> None:
        self._timer = None
        self.write_down()

    def _record(self, exchange: Exchange, since_1970: float) -> Exchanged:
        assert exchange.memory is not None  # `ended` saw it
        policy, route, key = exchange.memory
        exchange.memory = None
        began, ended, first = exchange.began, exchange.ended or exchange.began, exchange.first
        kept, exchange.kept = exchange.kept, None
        request, exchange.request = exchange.request, b""
        engine = exchange.engine
        return Exchanged(  # in the order of its fields: by their names it takes five times as long
            exchange.id,
            since_1970 + began,
            exchange.path,
            route,
            exchange.version or "",
            "" if engine is None else f"{engine[0]}:{engine[1]}",
            self._base,
            key.tenant,
            key.id,
            "" if exchange.unit is None else exchange.unit.decode("utf-8", "replace"),
            exchange.status,
            str(exchange.outcome),
            exchange.error or "",
            exchange.ready - began,
            None if first is None else first - began,
            ended - began,
            exchange.loaded_s,
            exchange.streaming,
            FULL if policy.capture == "full" else METADATA,
            False,
            policy.redact == "strict",
            policy.consent,
            policy.sample,
            policy.retention_days,
            bytes(request),
            b"".join(kept) if kept else b"",
            exchange.sent_bytes,
        )
