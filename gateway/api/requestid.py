"""Request ids: 128 random bits as 32 hex digits, ours alone."""

from __future__ import annotations

import os

BATCH = 4096
"""Ids that one read of the kernel's random numbers makes. One read an id is a tenth of a small request."""

DIGITS = 32


class RequestIds:
    """`next(ids)`. Nobody can guess one from another: every bit comes from the kernel."""

    __slots__ = ("_at", "_hex")

    def __init__(self) -> None:
        self._hex = ""
        self._at = 0

    def __iter__(self) -> RequestIds:
        return self

    def __next__(self) -> str:
        at = self._at
        if at == len(self._hex):
            self._hex = os.urandom(BATCH * DIGITS // 2).hex()
            at = 0
        self._at = at + DIGITS
        return self._hex[at : at + DIGITS]
