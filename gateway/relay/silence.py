"""Engines that say nothing for too long: one look at all answers a second, instead of a timer each."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

LOOK_S = 1.0


class Answer(Protocol):
    """An answer that is being waited for, or carried."""

    @property
    def begun(self) -> bool:
        """Its head is there, or more."""

    @property
    def pieces(self) -> int: ...
    @property
    def waits_for_client(self) -> bool: ...
    def give_up(self, message: str, /) -> None: ...


@dataclass(slots=True)
class _Seen:
    pieces: int
    begun: bool
    silent_s: float = 0.0


class Silence:
    """`add` an answer, `discard` it at its end, and `watch` in the background.

    An answer whose engine has not begun it within `begin_s`, or has added nothing to it for `stall_s` though
    the client would take it, is given up; up to `LOOK_S` later than that. Seconds.
    """

    def __init__(self, *, begin_s: float, stall_s: float) -> None:
        self._begin_s = begin_s
        self._stall_s = stall_s
        self._answers: dict[Answer, _Seen | None] = {}

    def add(self, answer: Answer) -> None:
        self._answers[answer] = None

    def discard(self, answer: Answer) -> None:
        self._answers.pop(answer, None)

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.look(LOOK_S)

    def look(self, passed_s: float) -> None:
        """`passed_s` after the last look."""
        for answer, seen in list(self._answers.items()):
            pieces, begun = answer.pieces, answer.begun
            if seen is None or pieces != seen.pieces or begun != seen.begun or answer.waits_for_client:
                self._answers[answer] = _Seen(pieces, begun)
                continue
            seen.silent_s += passed_s
            limit_s = self._stall_s if begun else self._begin_s
            if seen.silent_s >= limit_s:
                del self._answers[answer]
                what = "added nothing to its answer" if begun else "did not begin an answer"
                answer.give_up(f"the engine {what} within {limit_s:g} s")
