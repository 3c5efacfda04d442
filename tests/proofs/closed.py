"""A fixed number of clients, each of which asks again as soon as it was answered: the engines stay full.

Closed on purpose, as in `loadtests.kernel.closed`: the question is what full engines do, not what a user
waits (for that: `loadtests.drive`). Here every request has an adapter of its own, and several servers take
turns.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from loadtests.answer import Answer
from loadtests.client import Client, Exchange, addresses
from loadtests.plan import Plan, Request
from loadtests.sample import Outcome, Sample
from loadtests.target import Target

STREAMED, WHOLE = "streamed", "whole"
PAUSE_S = 0.25
"""After a failure, so that a server that refuses is not asked without end."""
DRAIN_S = 60.0


class Crowd:
    """What the clients have seen so far. A sample's `phase` says how it was asked for: STREAMED or WHOLE.

    `samples` are those that have ended; all that were sent, once the clients have left. Times are seconds of
    `clock`.
    """

    def __init__(self, plan: Plan, targets: Sequence[Target], *, whole_every: int) -> None:
        self.samples: list[Sample] = []
        self._requests = plan.requests
        self._next = 0
        self._over = False
        self._whole_every = whole_every
        whole = plan.scenario.model_copy(update={"stream": False})
        self._streamed = [target.posts(plan.scenario) for target in targets]
        self._whole = [target.posts(whole) for target in targets]
        self._open: dict[int, tuple[Exchange, Answer]] = {}
        self._origin = time.monotonic()

    @property
    def in_flight(self) -> int:
        return len(self._open)

    def clock(self) -> float:
        return time.monotonic() - self._origin

    async def sit(self, clients: Sequence[Client]) -> None:
        """One client: the next request that nobody has sent, its answer, the next; until it is over."""
        while not self._over and self._next < len(self._requests):
            index, self._next = self._next, self._next + 1
            sample = await self._ask(index, clients[index % len(clients)])
            if not sample.ok and not self._over:
                await asyncio.sleep(PAUSE_S)

    async def leave(self, sitting: Sequence[asyncio.Task[None]], drain_s: float) -> None:
        """Nothing new is asked; what is open may end for `drain_s`."""
        self._over = True
        await asyncio.wait(sitting, timeout=drain_s)
        for exchange, answer in list(self._open.values()):
            exchange.abort()
            answer.on_lost(Outcome.UNFINISHED, f"still open after {drain_s:g} s", self.clock())

    async def _ask(self, index: int, client: Client) -> Sample:
        request, ended = self._requests[index], asyncio.Event()
        streamed = not self._whole_every or index % self._whole_every != 0
        now = self.clock()
        sample = Sample(index, now, request.route, STREAMED if streamed else WHOLE, begun=now)
        answer = Answer(sample, stream=streamed, done=lambda _: ended.set())
        self._open[index] = (client.send(self._bytes(index, request, streamed), answer), answer)
        await ended.wait()
        del self._open[index]
        self.samples.append(sample)
        return sample

    def _bytes(self, index: int, request: Request, streamed: bool) -> bytes:
        posts = self._streamed if streamed else self._whole
        return posts[index % len(posts)].encode(request)


@asynccontextmanager
async def crowd(
    plan: Plan,
    targets: Sequence[Target],
    clients: int,
    *,
    whole_every: int = 0,
    drain_s: float = DRAIN_S,
) -> AsyncIterator[Crowd]:
    """`clients` of them ask what `plan` says, in its order, request i of target i modulo their number.

    Each `whole_every`th is not streamed; 0: all are. They stop when the block ends, or the plan does, and
    hang up on what is open `drain_s` later.
    """
    seen = Crowd(plan, targets, whole_every=whole_every)
    async with asyncio.TaskGroup() as tasks:
        hosts = [await addresses(target) for target in targets]
        ways = [
            Client(target, where, tasks, seen.clock) for target, where in zip(targets, hosts, strict=True)
        ]
        sitting = [tasks.create_task(seen.sit(ways)) for _ in range(clients)]
        try:
            yield seen
        finally:
            await seen.leave(sitting, drain_s)
            for way in ways:
                await way.close()
