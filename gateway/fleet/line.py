"""Requests that wait: one line a key, and lines in rings."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass, field

from gateway.fleet.refusals import Key


@dataclass(slots=True, eq=False)
class Waiter:
    """One request. `outcome` becomes None when it is admitted, else the exception to raise."""

    key: Key
    since: float
    deadline: float
    outcome: asyncio.Future[Exception | None]
    movable: bool = False
    entered: bool = False

    def settle(self, outcome: Exception) -> None:
        """It will not enter. Nothing happens when its caller was cancelled meanwhile."""
        if not self.outcome.done():
            self.outcome.set_result(outcome)


@dataclass(slots=True, eq=False)
class Line:
    """The requests of one key, oldest first. `turn` is when the key took its place; `number` breaks ties."""

    key: Key
    turn: float
    number: int = 0
    passed_over: bool = False
    ring: Ring | None = None
    waiters: deque[Waiter] = field(default_factory=deque)

    @property
    def place(self) -> tuple[float, int]:
        """Earlier places have their turn first."""
        return self.turn, self.number

    def add(self, waiter: Waiter, *, front: bool) -> None:
        """Last, or, at the front, before all that came later."""
        place = 0 if front else len(self.waiters)
        while front and place < len(self.waiters) and self.waiters[place].since < waiter.since:
            place += 1
        self.waiters.insert(place, waiter)
        if self.ring is not None:
            self.ring.requests += 1

    def drop(self, waiter: Waiter) -> bool:
        """False when it was not in the line."""
        try:
            self.waiters.remove(waiter)
        except ValueError:
            return False
        if self.ring is not None:
            self.ring.requests -= 1
        return True

    def pop(self) -> Waiter:
        if self.ring is not None:
            self.ring.requests -= 1
        return self.waiters.popleft()


class Ring:
    """Lines by turn, those of one moment by number. `requests` is how many wait in all of them."""

    __slots__ = ("_lines", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self._lines: list[tuple[float, int, Line]] = []

    def __len__(self) -> int:
        return len(self._lines)

    def put(self, line: Line) -> None:
        insort(self._lines, (*line.place, line))
        self.requests += len(line.waiters)
        line.ring = self

    def take(self, line: Line) -> None:
        del self._lines[bisect_left(self._lines, line.place)]
        self.requests -= len(line.waiters)
        line.ring = None

    @property
    def head(self) -> Line | None:
        return self._lines[0][2] if self._lines else None

    def first(self, count: int) -> list[Line]:
        return [line for _, _, line in self._lines[:count]]
