"""How many may wait, and how many of one key."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.fleet.line import Line, Waiter
from gateway.fleet.refusals import Key


class NoPlace(Exception):
    """The queue, or the key's share of it, is full."""


class Places:
    """`queue` places. A key that is not alone has at most half of them, so that a hot key cannot fill them.

    Alone is a key while no other waits or is in flight. It may have all places then, and gives up the one of
    its youngest for each newcomer of another key, until it has half.
    """

    __slots__ = ("_greedy", "_half", "_queue")

    def __init__(self, queue: int) -> None:
        self._queue = queue
        self._half = (queue + 1) // 2
        self._greedy: Key = None  # the last key that took more than half: no two can have that

    def claim(self, key: Key, lines: Mapping[Key, Line], waiting: int, *, alone: bool) -> Waiter | None:
        """A place for one more of `key`; the waiter that must give up its own for it, if one must.

        `alone`: nothing but `key` is in flight. Raises `NoPlace`.
        """
        line = lines.get(key)
        mine = len(line.waiters) if line is not None else 0
        if waiting < self._queue and mine < self._half:
            return None
        if waiting < self._queue and alone and mine == waiting:
            self._greedy = key
            return None
        greedy = lines.get(self._greedy)
        if mine >= self._half or greedy is None or len(greedy.waiters) <= self._half:
            raise NoPlace
        return greedy.waiters[-1]
