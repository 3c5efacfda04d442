"""An admission in told time, and requests before it."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.fleet.admission import Admission
from tests.fleet.told_time import settle

Key = str | None
FAR = 1e6
"""A deadline that never comes."""


class Stage:
    """On the running loop. `order` tells who came in, in order."""

    def __init__(self, **settings: Any) -> None:
        self.clock = asyncio.get_running_loop().time
        given = {"slots": None, "seats": None, "queue": 100, "clock": self.clock, "seed": 1} | settings
        self.admission = Admission(**given)
        self.order: list[str] = []

    def ask(self, name: str, key: Key, deadline: float = FAR, **how: Any) -> asyncio.Task[None]:
        """A request that waits if it must, and stays in once it is in."""

        async def request() -> None:
            await self.admission.enter(key, deadline, **how)
            self.order.append(name)

        return asyncio.ensure_future(request())

    async def asked(self, name: str, key: Key, deadline: float = FAR, **how: Any) -> asyncio.Task[None]:
        task = self.ask(name, key, deadline, **how)
        await settle()
        return task

    def enter(self, *keys: Key) -> None:
        assert [True] * len(keys) == [self.admission.try_enter(key) for key in keys]
