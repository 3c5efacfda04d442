"""An event loop whose time is told: a sleep of an hour takes no time, and every run is the same run."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class _Selector(selectors.SelectSelector):
    """Waits for nothing: when the loop would wait, the time has come."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if not events:
            assert timeout is not None, "nothing will ever happen"
            self.now += max(0.0, timeout)
        return events


class ToldLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._told = _Selector()
        super().__init__(self._told)

    def time(self) -> float:
        return self._told.now


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """What `work` gives, on a loop of its own that begins at 0 s."""
    loop = ToldLoop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


async def settle() -> None:
    """Lets all that can happen now happen."""
    for _ in range(5):
        await asyncio.sleep(0)


def told(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Runs a test on a loop of told time."""

    def on_told_loop() -> None:
        async def work() -> None:
            await test()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
                await asyncio.wait([task])

        run(work())

    on_told_loop.__name__ = test.__name__
    return on_told_loop
