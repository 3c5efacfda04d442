"""So many turns a second and no more, first come, first served."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable


class Pace:
    """A token bucket to wait at: `await pace.turn()` returns `rate_per_s` times a second at most.

    After a pause up to `burst` turns come at once: in any window of w seconds there are at most
    burst + rate_per_s x w. `rate_per_s` None or infinite: no pacing. Who waits longest comes first; a waiter
    that is cancelled takes no turn, and the others keep their order.

    It keeps the time at which the bucket will be full instead of a number of tokens (the generic cell rate
    algorithm, ITU-T I.371): no rounding builds up. `clock` gives monotonic seconds, `sleep` waits for some.
    """

    def __init__(
        self,
        rate_per_s: float | None,
        burst: int = 1,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Raises `ValueError` for a rate that is not above 0 or a burst below 1."""
        if burst < 1 or (rate_per_s is not None and not rate_per_s > 0):
            raise ValueError(f"rate_per_s = {rate_per_s}, burst = {burst}: nobody would ever have a turn")
        self._interval_s = 0.0 if rate_per_s is None else 1.0 / rate_per_s
        self._slack_s = (burst - 1) * self._interval_s
        self._full_at = clock()
        self._clock = clock
        self._sleep = sleep
        self._first = asyncio.Lock()  # its waiters are first in, first out, and may be cancelled
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return self._waiting

    @property
    def wait_s(self) -> float:
        """How long somebody who came now would wait, if nobody ahead is cancelled."""
        ahead_s = self._waiting * self._interval_s
        return max(0.0, self._full_at + ahead_s - self._slack_s - self._clock())

    async def turn(self) -> None:
        """Returns when it is the caller's turn; at once, and without giving way, when that is now."""
        if not self._interval_s:
            return
        self._waiting += 1
        try:
            async with self._first:
                while (early_s := self._full_at - self._slack_s - self._clock()) > 0:
                    await self._sleep(early_s)
                # No await between here and the return: a turn is taken whole or not at all.
                self._full_at = max(self._full_at, self._clock()) + self._interval_s
        finally:
            self._waiting -= 1
