"""The workers' report, asked for at most every `FRESH_S`: however many ask, the engine loop answers once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

FRESH_S = 0.2

Report = dict[str, Any]


class Snapshot:
    """`ask` reaches the workers between two steps of the engine: milliseconds, or a whole prefill."""

    def __init__(
        self, ask: Callable[[], Awaitable[Report]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.last: Report | None = None
        """The newest answer, however old; None before the first."""
        self._ask = ask
        self._clock = clock
        self._asking = asyncio.Lock()
        self._began = float("-inf")  # when the last answer was asked for
        self._stale = False

    def stale(self) -> None:
        """Something was changed: an answer that was asked for before is not to be given again."""
        self._stale = True

    async def get(self) -> Report:
        """An answer that was asked for at most `FRESH_S` before this call. Raises what `ask` raises."""
        arrived = self._clock()
        async with self._asking:
            # Whoever waited for another's question shares the next one's answer.
            if self.last is None or self._stale or self._began < arrived - FRESH_S:
                self._stale = False
                began = self._clock()
                self.last = await self._ask()
                self._began = began
            return self.last
