"""How fast a queue drains, measured, so that Retry-After is no guess."""

from __future__ import annotations

import math

WINDOW_S = 20.0
"""Evidence that is this old, in seconds of a queue that was not empty, weighs 1/e."""
FIRST_SERVICE_S = 5.0
"""The first guess: a request takes this long, so each in flight leaves at 1/5 a second."""
TRUSTED_S = 1.0
"""The first guess fills up to this much time, until as much has been measured."""
SHORTEST_S, LONGEST_S = 1.0, 120.0
"""Bounds of Retry-After. The `openai` clients obey at most 120 s."""


class Drain:
    """Leaves a second while somebody waits. What leaves an idle engine does not say what a full one can do.

    `left` is the caller's own count of leaves, so that a leave costs no more than that count. Time and leaves
    of busy stretches both decay with `WINDOW_S`, so the rate is their quotient:
    rate = sum(leaves * w) / sum(seconds * w), w = exp(-busy seconds since / WINDOW_S).
    """

    __slots__ = ("_at", "_busy", "_leaves", "_left", "_seconds")

    def __init__(self) -> None:
        self._busy = False
        self._at = 0.0
        self._left = 0
        self._seconds = 0.0
        self._leaves = 0.0

    def busy(self, now: float, left: int) -> None:
        """Somebody waits at `now`: begins a stretch, or goes on with it."""
        if self._busy:
            self._advance(now, left)
        else:
            self._busy, self._at, self._left = True, now, left

    def idle(self, now: float, left: int) -> None:
        """Nobody waits any more."""
        if self._busy:
            self._advance(now, left)
            self._busy = False

    def rate(self, now: float, left: int, in_flight: int) -> float:
        """Leaves a second; with nothing measured `in_flight` / `FIRST_SERVICE_S`, of at least one request."""
        if self._busy:
            self._advance(now, left)
        guessed_s = max(0.0, TRUSTED_S - self._seconds)
        guess = max(1, in_flight) / FIRST_SERVICE_S
        return (self._leaves + guess * guessed_s) / (self._seconds + guessed_s)

    def retry_after_s(self, ahead: int, now: float, left: int, in_flight: int) -> float:
        """(`ahead` + 1) / rate, in seconds: when one more would be through; at least 1, at most 120."""
        rate = self.rate(now, left, in_flight)
        return LONGEST_S if rate <= 0.0 else min(LONGEST_S, max(SHORTEST_S, (ahead + 1) / rate))

    def _advance(self, now: float, left: int) -> None:
        elapsed = now - self._at
        if elapsed <= 0.0:
            return
        keep = math.exp(-elapsed / WINDOW_S)
        weighed = WINDOW_S * (1.0 - keep)  # the integral of w over the stretch since last time
        self._seconds = self._seconds * keep + weighed
        self._leaves = self._leaves * keep + weighed * (left - self._left) / elapsed
        self._at, self._left = now, left
