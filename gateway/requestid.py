"""Request ids: UUIDs of version 7 as 32 hex digits, ours alone.

    48 bits of milliseconds since 1970 | 0111 | 12 random | 10, 00 | 60 random   (RFC 9562, 5.7)

So an id says when its request came, which is where the lake keeps it, and ids of one day sort together.
"""

from __future__ import annotations

import os
import re
import time
from datetime import UTC, datetime

BATCH = 4096
"""Ids that one read of the kernel's random numbers makes. One read an id is a tenth of a small request."""

ID = re.compile(r"[0-9a-f]{12}7[0-9a-f]{19}")

DIGITS = 18
"""Of random numbers that an id takes."""


class RequestIds:
    """`next(ids)`. Nobody can guess one from another: 72 bits of each come from the kernel."""

    __slots__ = ("_at", "_hex", "_ms", "_prefix")

    def __init__(self) -> None:
        self._hex = ""
        self._at = 0
        self._ms = 0
        self._prefix = ""

    def __iter__(self) -> RequestIds:
        return self

    def __next__(self) -> str:
        at, digits = self._at, self._hex
        if at == len(digits):
            self._hex = digits = os.urandom(BATCH * DIGITS // 2).hex()
            at = 0
        self._at = at + DIGITS
        now_ms = time.time_ns() // 1_000_000
        if now_ms != self._ms:
            self._ms, self._prefix = now_ms, f"{now_ms:012x}7"
        return f"{self._prefix}{digits[at : at + 3]}8{digits[at + 3 : at + DIGITS]}"


def when(request_id: str) -> datetime:
    """When the request of this id came, to the millisecond. Raises `ValueError` for what is no id of ours."""
    if ID.fullmatch(request_id) is None:
        raise ValueError(f"{request_id[:64]!r} is no request id")
    return datetime.fromtimestamp(int(request_id[:12], 16) / 1000, UTC)
