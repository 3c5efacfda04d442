"""Rows of a lake that are made up, columns at once, and the same for the same seed.

Days of several routes, of which the first has most of the traffic; many units and keys; some exchanges
failed. Words are as frequent as in a language, few often and most seldom, so that they compress as words do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]

from gateway.traffic.lake import COLUMNS

DAYS = 6
ROUTES: Mapping[str, float] = {"support": 0.62, "sales": 0.2, "search": 0.12, "drafts": 0.06}
"""The share of each of a day's rows."""
UNITS, KEYS = 300_000, 200
UNIT, OF_UNIT = "jane.roe@example.com", 240
"""One unit more, and how many rows it has, strewn over all days of the first two routes."""
FAILED = 0.02
PHRASES, ASKED, ANSWERED = 200_000, 12, 14
"""How many there are, and how many a question and an answer have on average: some 300 and 350 bytes."""
DAY_US = 86_400_000_000
_LETTERS = "etaoinshrdlucmfwypvbgkjqxz"
_HEX = np.frombuffer(bytes(range(256)).hex().encode(), np.uint8).reshape(256, 2)


@dataclass(frozen=True)
class Part:
    """Rows of one day and route, which are a partition of the lake."""

    day: datetime
    route: str
    rows: int


class MadeUp:
    """`parts` are what there is, of the days before `today`; `batches` the rows of one, the oldest first."""

    def __init__(self, rows: int, today: datetime, seed: int = 1) -> None:
        self._chance = np.random.default_rng(seed)
        self._phrases = _phrases(self._chance)
        self._units = pa.array([*(f"user-{number:06d}" for number in range(UNITS)), UNIT])
        self._keys = pa.array([f"key_{number:012x}" for number in range(KEYS)])
        self._engines = pa.array(["127.0.0.1:8000", "127.0.0.1:8001"])
        first = datetime(today.year, today.month, today.day, tzinfo=UTC) - timedelta(days=DAYS)
        self.parts = [
            Part(first + timedelta(days=day), route, round(rows / DAYS * share))
            for day in range(DAYS)
            for route, share in ROUTES.items()
        ]

    def batches(self, part: Part, size: int) -> Iterator[pa.RecordBatch]:
        """At most `size` rows at a time."""
        begins = round(part.day.timestamp() * 1e6)
        named = OF_UNIT // (2 * DAYS) if part.route in tuple(ROUTES)[:2] else 0
        whose = self._chance.choice(part.rows, min(named, part.rows), replace=False)
        for start in range(0, part.rows, size):
            end = min(start + size, part.rows)
            span = start * DAY_US // part.rows, end * DAY_US // part.rows
            at = begins + np.sort(self._chance.integers(*span, end - start))
            yield self._batch(part, at, whose[(whose >= start) & (whose < end)] - start)

    def _batch(self, part: Part, at: Any, whose: Any) -> pa.RecordBatch:
        rows, chance = len(at), self._chance
        failed = chance.random(rows) < FAILED
        prompt, completion = chance.poisson(90, rows), chance.poisson(100, rows)
        first = chance.gamma(4.0, 30.0, rows)
        units = chance.integers(0, UNITS, rows) * chance.integers(0, UNITS, rows) // UNITS  # some are busier
        units[whose] = UNITS
        versions = pa.array([f"{part.route}@3f9c2ab71e04", f"{part.route}@a07d11c2be53"])
        values = {
            "id": _ids(at, chance),
            "at": pa.array(at, pa.timestamp("us", tz="UTC")),
            "day": part.day.date().isoformat(),
            "route": part.route,
            "keep_days": 90,
            "version": versions.take(pa.array(chance.integers(0, 2, rows))),
            "engine": self._engines.take(pa.array(chance.integers(0, 2, rows))),
            "base": "7" * 64,
            "tenant": "default",
            "key": self._keys.take(pa.array(chance.integers(0, KEYS, rows))),
            "unit": self._units.take(pa.array(units)),
            "path": "/v1/chat/completions",
            "status": pa.array(np.where(failed, 503, 200)),
            "outcome": pc.if_else(pa.array(failed), "refused", "complete"),
            "error": pc.if_else(pa.array(failed), "queue_full", ""),
            "finish_reason": pc.if_else(pa.array(failed), "", "stop"),
            "streaming": pa.array(chance.random(rows) < 0.7),
            "prompt": pa.array(prompt, mask=failed),
            "completion": pa.array(completion, mask=failed),
            "cached": pa.array(prompt // 2, mask=failed),
            "counted": pa.array(~failed),
            "ttft_ms": pa.array(first, mask=failed),
            "duration_ms": pa.array(first + completion * chance.gamma(9.0, 1.0, rows)),
            "load_ms": pa.nulls(rows, pa.float64()),
            "full": True,
            "redacted": False,
            "cut": False,
            "consent": "terms of 2026",
            "sample": 1.0,
            "messages": self._said("user", ASKED, rows),
            "tools": pa.nulls(rows, pa.string()),
            "parameters": f'{{"model":"{part.route}","temperature":0.2,"max_tokens":400,"stream":true}}',
            "metadata": pa.nulls(rows, pa.string()),
            "response": pc.if_else(pa.array(failed), None, self._said("assistant", ANSWERED, rows)),
        }
        assert list(values) == list(COLUMNS)
        columns = [each if isinstance(each, pa.Array) else pa.repeat(each, rows) for each in values.values()]
        return pa.RecordBatch.from_arrays(columns, names=list(values))

    def _said(self, role: str, phrases: int, rows: int) -> pa.Array:
        """A message of about so many phrases for each row, as JSON."""
        ends = _ends(self._chance.poisson(phrases - 1, rows) + 1)
        chosen = self._phrases.take(pa.array(self._chance.integers(0, PHRASES, int(ends[-1]))))
        words = pc.binary_join(pa.ListArray.from_arrays(pa.array(ends), chosen), " ")
        return pc.binary_join_element_wise(f'[{{"role":"{role}","content":"', words, '"}]', "")


def _phrases(chance: np.random.Generator) -> pa.Array:
    """A few words each, of a vocabulary whose n-th word is about as frequent as 1/n."""
    frequent = 1 / np.arange(1, len(_LETTERS) + 1)
    ends = _ends(chance.integers(2, 11, 30_000))
    letters = chance.choice(list(_LETTERS), int(ends[-1]), p=frequent / frequent.sum())
    words = np.array(["".join(letters[a:b]) for a, b in pairwise(ends)])
    frequent = 1 / np.arange(10, len(words) + 10)
    ends = _ends(chance.integers(2, 6, PHRASES))
    drawn = chance.choice(words, int(ends[-1]), p=frequent / frequent.sum())
    return pa.array([" ".join(drawn[a:b]) for a, b in pairwise(ends)])


def _ids(at: Any, chance: np.random.Generator) -> pa.Array:
    """Request ids (`gateway.requestid`) of these times, in microseconds."""
    raw = chance.integers(0, 256, (len(at), 16), np.uint8)
    raw[:, :6] = (at // 1000).astype(">u8").view(np.uint8).reshape(-1, 8)[:, 2:]
    raw[:, 6] = raw[:, 6] & 0x0F | 0x70
    raw[:, 8] = raw[:, 8] & 0x0F | 0x80
    ends = np.arange(0, 32 * len(at) + 1, 32, dtype=np.int32)
    return pa.StringArray.from_buffers(len(at), pa.py_buffer(ends), pa.py_buffer(_HEX[raw].reshape(-1)))


def _ends(lengths: Any) -> Any:
    """Where each of so long pieces begins, and where the last ends."""
    return np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
