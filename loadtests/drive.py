"""One run of a plan from this process: every request at its time, whatever becomes of the others.

Open loop: the schedule alone decides when a request is sent. With `client.max_open` in flight a send is
dropped and counted, never queued: a server that stalls cannot thin out the load that shows it.

Three instants belong to each request: `at` (due), `begun` (we took it up: from `at` to here the generator was
late), `sent` (its bytes were handed to the socket: from `begun` to here a connection was set up, the server's
time). Connections for the first second are opened beforehand. The bytes of a request are made beforehand too,
up to `READY_BYTES` of them; beyond, making them is part of the generator's lateness.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import time
from array import array
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from loadtests.alarm import Alarm
from loadtests.answer import Answer
from loadtests.arrivals import Closed
from loadtests.client import Client, Exchange, addresses
from loadtests.faults import Event, Faults
from loadtests.lateness import Generator, Kept, judge, starved_s
from loadtests.plan import Plan, Request
from loadtests.sample import Outcome, Sample
from loadtests.target import Target

__all__ = ["Driven", "Generator", "Progress", "Target", "drive"]

READY_BYTES = 256 << 20
WARM_CONNECTIONS = 512
"""The most that are opened before the start: those for the requests due within `FIRST_S`, or this many."""

FIRST_S = 1.0
TELL_S = 0.5
TICK_S = 0.05
"""How often a run looks for requests that are overdue, and for how late the loop itself is."""

BURST = 16
"""Sends in one turn of the loop: bytes leave at its end, so a longer burst would hold the first ones back."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A run under way, `at` seconds from its start. `lag_s` is the worst since the last time it was told."""

    at: float
    due: int
    sent: int
    in_flight: int
    answered: int
    errors: int
    dropped: int
    lag_s: float


@dataclass(frozen=True, slots=True)
class Driven:
    """What came of a run. `started` is unix time; `samples` are in order of index, one for each request.

    In closed loop, a request that no client came to in time has none. `events` are the faults that were done.
    """

    samples: list[Sample]
    started: float
    generator: Generator
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class Share:
    """A run, or one process's part of one. Parts are judged together, so this has only what judges need."""

    samples: list[Sample]
    started: float
    kept: Kept
    events: tuple[Event, ...]


Tell = Callable[[Progress], None]
Begin = Callable[[], Awaitable[float]]


async def drive(plan: Plan, target: Target, *, tell: Tell | None = None) -> Driven:
    """Sends every request of `plan` to `target`, and waits for the answers until the drain ends.

    `tell` hears of the progress at most twice a second, inside the loop: it must not block. Run this under
    uvloop, with nothing in the process that takes long. Raises `TargetError` for a host that cannot be found
    and `FaultError` for a fault that may not be done. A server that is wrong does not raise: samples say so.
    """
    share = await drive_share(plan, target, tell=tell)
    return Driven(share.samples, share.started, judge([share.kept], plan.scenario.client), share.events)


async def drive_share(
    plan: Plan, target: Target, *, tell: Tell | None = None, begin: Begin | None = None
) -> Share:
    """As `drive`. `begin` is awaited when all is ready; it gives the instant to start at (monotonic)."""
    hosts = await addresses(target)
    run = _Run(plan, target, Faults(plan.scenario.faults), tell)
    with _steady(run.fail):
        async with asyncio.TaskGroup() as tasks:
            await run.drive(tasks, hosts, begin)
    return run.share()


class _Run:
    """The state of a run. `fail` ends it with an error that is ours, not the server's."""

    def __init__(self, plan: Plan, target: Target, faults: Faults, tell: Tell | None) -> None:
        self._scenario = scenario = plan.scenario
        self._closed = scenario.arrivals if isinstance(scenario.arrivals, Closed) else None
        self._max_open = scenario.client.max_open
        self._requests = plan.requests
        self._target = target
        self._encode = target.posts(scenario).encode
        self._ready = list(_encoded(self._encode, plan.requests))
        self._faults = faults
        self._tell = tell
        self._samples: list[Sample] = []
        self._open: dict[int, tuple[Exchange, Answer]] = {}  # in order of sending, so of running out of time
        self._waiting: dict[int, asyncio.Event] = {}  # closed loop: who waits for which answer
        self._next = self._answered = self._errors = self._dropped = self._most_open = 0
        self._lags, self._turns = array("d"), array("d")
        self._lag = 0.0  # the worst since it was told
        self._tick_at = self._tell_at = 0.0
        self._started = self._cpu = self._starved = self._wall = self._origin = 0.0
        self._failure: BaseException | None = None
        self._over = asyncio.Event()

    def clock(self) -> float:
        """Seconds from the start of the run."""
        return time.monotonic() - self._origin

    def fail(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self._over.set()

    async def drive(self, tasks: asyncio.TaskGroup, hosts: list[str], begin: Begin | None) -> None:
        self._client = Client(self._target, hosts, tasks, self.clock)
        self._alarm, self._ticks = Alarm(self._send_due), Alarm(self._tick)
        try:
            await self._client.warm(self._warm())
            self._origin = time.monotonic() + 0.01 if begin is None else await begin()
            self._started = time.time() - self.clock()
            cpu, starved = time.process_time(), starved_s()
            faults = tasks.create_task(self._faults.strike(self.clock))
            self._ticks.set(self._origin)
            if self._closed is None:
                self._send_due()
            else:
                clients = [
                    tasks.create_task(self._sit(self._closed.think_s))
                    for _ in range(self._closed.concurrency)
                ]
                tasks.create_task(self._all_gone(clients))
            await self._over.wait()
            self._wall, self._cpu = self.clock(), time.process_time() - cpu
            self._starved = starved_s() - starved
            if self._failure is not None:
                faults.cancel()
            await asyncio.wait([faults])
        finally:
            self._alarm.close()
            self._ticks.close()
            self._give_up(Outcome.UNFINISHED, "the run was broken off", 0)
            await self._client.close()

    def share(self) -> Share:
        """What came of it. Raises what `fail` was given."""
        if self._failure is not None:
            raise self._failure
        kept = Kept(
            lags=self._lags,
            turns=self._turns,
            cpu_share=self._cpu / self._wall,
            starved_share=self._starved / self._wall,
            most_open=self._most_open,
            dropped=self._dropped,
            out_of_files=self._client.out_of_files,
        )
        self._samples.sort(key=lambda sample: sample.index)
        return Share(self._samples, self._started, kept, tuple(self._faults.events))

    def _warm(self) -> int:
        if self._closed is not None:
            return min(self._closed.concurrency, WARM_CONNECTIONS)
        first = sum(request.at < FIRST_S and not request.slow for request in self._requests)
        return min(first, self._max_open, WARM_CONNECTIONS)

    # The open loop.

    def _send_due(self) -> None:
        requests, sent = self._requests, 0
        while self._next < len(requests):
            at = requests[self._next].at
            if at > self.clock() or sent == BURST:
                self._alarm.set(self._origin + at)
                return
            self._next += 1
            sent += 1
            self._send(self._next - 1, at)
        if not self._open:
            self._over.set()

    def _send(self, position: int, at: float | None) -> None:
        """Sends the request at `position`, due `at`, or now for None."""
        request = self._requests[position]
        data = self._ready[position] or self._encode(request)
        self._ready[position] = None
        begun = self.clock()
        sample = Sample(
            index=request.index,
            at=begun if at is None else at,
            route=request.route,
            phase=request.phase,
            session=request.session,
            turn=request.turn,
            begun=begun,
            slow=request.slow,
        )
        self._samples.append(sample)
        lag = begun - sample.at
        self._lags.append(lag)
        self._lag = max(self._lag, lag)
        if at is not None and len(self._open) >= self._max_open:
            sample.outcome, sample.detail = Outcome.DROPPED, f"{self._max_open} requests were in flight"
            self._errors += 1
            self._dropped += 1
            return
        answer = Answer(sample, stream=self._scenario.stream, done=self._ended)
        slow = self._scenario.client.slow_bytes_per_s if request.slow else None
        self._open[request.index] = (self._client.send(data, answer, slow_bytes_per_s=slow), answer)
        self._most_open = max(self._most_open, len(self._open))

    def _ended(self, answer: Answer) -> None:
        sample = answer.sample
        del self._open[sample.index]
        self._answered += sample.ok
        self._errors += not sample.ok
        self._dropped += sample.outcome is Outcome.DROPPED
        if self._closed is not None:
            self._waiting.pop(sample.index).set()
        elif not self._open and self._next == len(self._requests):
            self._over.set()

    # The closed loop.

    async def _sit(self, think_s: float) -> None:
        """One client: a request, its answer, a pause, the next; until the plan or the time is over."""
        await asyncio.sleep(max(0.0, -self.clock()))
        while self._next < len(self._requests) and self.clock() < self._scenario.total_s:
            position, self._next = self._next, self._next + 1
            answered = asyncio.Event()
            self._waiting[self._requests[position].index] = answered
            self._send(position, None)
            await answered.wait()
            if think_s:
                await asyncio.sleep(think_s)

    async def _all_gone(self, clients: list[asyncio.Task[None]]) -> None:
        await asyncio.wait(clients)
        self._over.set()

    # 20 times a second.

    def _tick(self) -> None:
        now, client = self.clock(), self._scenario.client
        self._turns.append(max(0.0, now - self._tick_at))
        self._tick_at = max(self._tick_at + TICK_S, now)
        self._give_up(
            Outcome.TIMEOUT,
            f"no whole answer within client.timeout_s = {client.timeout_s:g} s",
            client.timeout_s,
        )
        if now >= self._tell_at and self._tell is not None:
            self._tell_at = now + TELL_S
            self._tell(self._progress(now))
            self._lag = 0.0
        if now >= self._scenario.total_s + client.drain_s:
            self._give_up(Outcome.UNFINISHED, f"still open {client.drain_s:g} s after the last was due", 0)
            self._over.set()
        else:
            self._ticks.set(self._origin + self._tick_at)

    def _give_up(self, outcome: Outcome, why: str, after_s: float) -> None:
        """Ends the requests that have been open for `after_s`."""
        now = self.clock()
        while self._open:
            exchange, answer = next(iter(self._open.values()))
            if now - (answer.sample.begun or 0.0) < after_s:
                return
            exchange.abort()
            answer.on_lost(outcome, why, now)

    def _progress(self, now: float) -> Progress:
        due = self._next
        while self._closed is None and due < len(self._requests) and self._requests[due].at <= now:
            due += 1
        return Progress(
            at=now,
            due=due,
            sent=self._next - self._dropped,
            in_flight=len(self._open),
            answered=self._answered,
            errors=self._errors,
            dropped=self._dropped,
            lag_s=self._lag,
        )


def _encoded(encode: Callable[[Request], bytes], requests: tuple[Request, ...]) -> Iterator[bytes | None]:
    """The bytes of each request, up to `READY_BYTES` of them; None for the rest."""
    room = READY_BYTES
    for request in requests:
        if room <= 0:
            yield None
            continue
        data = encode(request)
        room -= len(data)
        yield data


@contextmanager
def _steady(fail: Callable[[BaseException], None]) -> Iterator[None]:
    """While a run lasts: no garbage collection (it pauses for 50 ms and more), as many files as we may have,
    and an error in one of the loop's callbacks ends the run.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    loop = asyncio.get_running_loop()
    before, collecting = loop.get_exception_handler(), gc.isenabled()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        fail(context.get("exception") or RuntimeError(context["message"]))

    loop.set_exception_handler(handle)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if collecting:
            gc.enable()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        loop.set_exception_handler(before)
