"""A server that stalls at regular times, and what an honest load test must say of it.

It answers `answer_s` after a request came, except that in the first `stall_s` of each `period_s` it answers
nothing: what falls into a stall is answered at the stall's end.

Open loop. A request that would be answered at an instant X of the period, X uniform on [0, period), has the
latency answer_s + max(0, stall_s - X). So P(latency > answer_s + y) = (stall_s - y) / period_s for
0 <= y < stall_s, and the quantile is

    L(p) = answer_s + max(0, stall_s - (1 - p) * period_s)

With 20 ms, 2 s and 10 s, L(0.99) is 1.92 s. Closed loop: each client sends (period_s - stall_s) / answer_s
requests a period, and one of them meets the stall. At 400 a period that is 0.25 % of them, so p99 is
answer_s: the load that would have shown the stall was never sent (coordinated omission; Tene, 2013).
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import uvloop

from loadtests.drive import Driven, Target, drive
from loadtests.plan import Plan
from tests.loadtests.plans import closed, plan
from tests.loadtests.servers import WHOLE, response


@dataclass(frozen=True, slots=True)
class Stalls:
    answer_s: float
    stall_s: float
    period_s: float

    def latency(self, share: float) -> float:
        """The quantile of the latency from the scheduled send, in open loop: L(p) above."""
        return self.answer_s + max(0.0, self.stall_s - (1 - share) * self.period_s)

    def answered(self, came: float, origin: float) -> float:
        """When a request that came at `came` is answered; stalls begin at `origin` and every period."""
        ready = came + self.answer_s
        into = (ready - origin) % self.period_s
        return ready + max(0.0, self.stall_s - into)


class _Connection(asyncio.Protocol):
    """Takes each request as one write: they are small, and loopback does not cut them."""

    def __init__(self, stalls: Stalls, origin: float) -> None:
        self._stalls, self._origin = stalls, origin

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        delay = self._stalls.answered(now, self._origin) - now
        asyncio.get_running_loop().call_later(delay, self._answer)

    def _answer(self) -> None:
        self._transport.write(response(WHOLE))  # type: ignore[attr-defined]


@contextmanager
def stalling(stalls: Stalls) -> Iterator[Target]:
    """Such a server, on a loop in a thread of its own, so that it is as late as a server is."""
    ready, over = threading.Event(), asyncio.Event()
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    port = listener.getsockname()[1]
    loops: list[asyncio.AbstractEventLoop] = []

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        origin = time.monotonic()
        async with await loops[0].create_server(lambda: _Connection(stalls, origin), sock=listener):
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: uvloop.run(main()))
    thread.start()
    ready.wait(10)
    try:
        yield Target(f"http://127.0.0.1:{port}")
    finally:
        loops[0].call_soon_threadsafe(over.set)
        thread.join(10)


def in_open_loop(stalls: Stalls, rate: float, periods: int) -> Driven:
    """A run at `rate` requests a second, evenly, over whole periods."""
    n = round(rate * periods * stalls.period_s)
    return _run(
        stalls,
        plan(
            [round(i / rate, 6) for i in range(n)],
            seconds=periods * stalls.period_s,
            stream=False,
            client={"drain_s": 2 * stalls.stall_s + 1},
        ),
    )


def in_closed_loop(stalls: Stalls, clients: int, periods: int) -> Driven:
    """A run of `clients` that each wait for their answer, over as many periods."""
    return _run(
        stalls, closed(10**5, clients, seconds=periods * stalls.period_s, stream=False, client={"drain_s": 5})
    )


def p99(run: Driven) -> float:
    """Of the latency from the scheduled send, seconds."""
    return float(np.percentile([sample.e2e for sample in run.samples if sample.e2e is not None], 99))


def _run(stalls: Stalls, asked: Plan) -> Driven:
    with stalling(stalls) as target:
        return uvloop.run(drive(asked, target))
