"""Who may send to one boot of one engine now, and who waits for it, for how long, and behind whom.

A request holds a *seat*. Its key, the version that it asks for, holds a *slot* while any request of that key
is in flight. The base (key None) takes seats only. Whose turn it is, is decided in `fairness`; what follows
from an engine's "not now", in `refusals`; what Retry-After says, in `drain`; how a wait ends, in `outcomes`.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gateway.fleet.drain import Drain
from gateway.fleet.fairness import WORTH, Turns
from gateway.fleet.line import Line, Waiter
from gateway.fleet.outcomes import Late, Over, QueueFull, Taken
from gateway.fleet.places import NoPlace, Places
from gateway.fleet.refusals import Key, Refusals

QUANTUM = 4
AGE_BOUND_S = 2.0


@dataclass(frozen=True, slots=True)
class Standing:
    """How one key stands at one moment. `yields`: it starts nothing, so that another may have its slot."""

    key: Key
    in_flight: int
    waiting: int
    oldest_wait_s: float
    yields: bool


class Admission:
    """The way into one boot of one engine. Everything here happens on one event loop.

    `slots`: distinct adapters in flight at most, `seats`: requests in flight at most; None is without limit.
    `queue`: requests that wait at most, and half of that of one key (`Places`); but a request that the engine
    refused (`front`) had its place already, and is never `QueueFull`.
    `apart`: base and adapters are never in flight together. `quantum`, `age_bound_s`, `worth` and `resident`
    are for `Turns`.
    `seed` is for the jitter of pauses; None draws one, so that gateways differ.
    """

    __slots__ = (
        "_apart",
        "_clock",
        "_drain",
        "_left",
        "_over",
        "_places",
        "_refusals",
        "_seats",
        "_slots",
        "_slow",
        "_timer",
        "_turns",
        "flights",
        "in_flight",
    )

    def __init__(
        self,
        *,
        slots: int | None,
        seats: int | None,
        queue: int,
        apart: bool = False,
        age_bound_s: float = AGE_BOUND_S,
        quantum: int = QUANTUM,
        worth: float = WORTH,
        resident: Callable[[str], bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
        seed: int | None = None,
    ) -> None:
        if (slots is not None and slots < 1) or (seats is not None and seats < 1) or quantum < 1 or queue < 0:
            raise ValueError(f"nobody would ever enter or wait: {slots=}, {seats=}, {quantum=}, {queue=}")
        self.flights: dict[Key, int] = {}
        """Requests in flight by key, never zero, the base under None. Others only read it."""
        self.in_flight = 0
        self._apart = apart
        self._slots = sys.maxsize if slots is None else slots
        self._seats = sys.maxsize if seats is None else seats
        self._places = Places(queue)
        self._clock = clock
        self._refusals = Refusals(seed)
        self._drain = Drain()
        self._turns = Turns(
            self.flights,
            self._refusals,
            slots=self._slots,
            seats=self._seats,
            apart=apart,
            quantum=quantum,
            age_bound_s=age_bound_s,
            worth=worth,
            resident=resident,
        )
        self._slow = False  # somebody waits, or was refused, or all is over: counting is not enough
        self._over = False
        self._left = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        return self._turns.waiting

    @property
    def active(self) -> Mapping[str, int]:
        """Requests in flight by adapter: a copy of `flights` without the base."""
        return {key: count for key, count in self.flights.items() if key is not None}

    @property
    def waiting_by_key(self) -> Mapping[str, int]:
        """Requests that wait by adapter: a copy, without the base."""
        return {key: len(line.waiters) for key, line in self._turns.lines.items() if key is not None}

    def try_enter(self, key: Key) -> bool:
        """Whether a request is in, at once. It overtakes nobody who could have had its place."""
        if self._slow:
            return self._try_in_turn(key)
        if self.in_flight >= self._seats:
            return False
        flights = self.flights
        count = flights.get(key)
        if count is not None:
            flights[key] = count + 1
        else:
            if key is None:
                if self._apart and flights:
                    return False
            elif len(flights) - (None in flights) >= self._slots or (self._apart and None in flights):
                return False
            flights[key] = 1
        self.in_flight += 1
        return True

    async def enter(
        self,
        key: Key,
        deadline: float,
        *,
        front: bool = False,
        since: float | None = None,
        movable: bool = False,
    ) -> None:
        """In when it returns: `leave` must follow. Waits its turn until `deadline`, a time of the clock.

        `front`: the engine refused it; it goes before all of its key that came later than `since`, the time
        from which it has waited. `movable`: it may be told to go elsewhere (`hand_over`). Raises `QueueFull`,
        `Late`, `Over` and `Taken`. A caller that is cancelled holds nothing: its place is given up, or its
        seat given back.
        """
        if self._over:
            raise Over
        if self.try_enter(key):
            return
        now = self._clock()
        if deadline <= now:
            raise Late(self.retry_after_s())
        if not front:
            self._claim_place(key)
        loop = asyncio.get_running_loop()
        waiter = Waiter(key, now if since is None else since, deadline, loop.create_future(), movable)
        self._turns.join(waiter, front=front)
        self._drain.busy(now, self._left)
        self._dispatch(now)
        if waiter.entered:
            return
        timer = loop.call_later(deadline - now, self._late, waiter)
        try:
            outcome = await waiter.outcome
        except asyncio.CancelledError:
            self._abandon(waiter)
            raise
        finally:
            timer.cancel()
        if outcome is not None:
            raise outcome

    def leave(self, key: Key) -> None:
        """A request that was in has ended, however."""
        self._left += 1
        flights = self.flights
        count = flights[key] - 1
        if count:
            flights[key] = count
        else:
            del flights[key]
        self.in_flight -= 1
        if self._slow:
            self._after_leave(key)

    def not_now(self, key: Key) -> None:
        """The engine refused a request that was in: it is fuller than we know. The request has left.

        `enter` it again with `front`. No key that has nothing in flight, and nobody of this key, starts until
        a slot of ours is free again or a pause has passed (`Refusals`).
        """
        self._uncount(key)
        if self._over:
            return
        pause_s = self._refusals.refused(key)
        if key not in self.flights:
            self._turns.emptied(key)
        self._turns.replace(key)
        if pause_s is not None:
            self._pause(pause_s)
        self._dispatch(self._clock())

    def close(self) -> None:
        """The boot has ended: whoever waits gets `Over`, and so does whoever comes."""
        self._over = self._slow = True
        self._set_timer(None)
        self.disperse()

    def disperse(self) -> None:
        """Whoever waits gets `Over`, and may find another engine: this one was put out of service."""
        for waiter in self._turns.all():
            self._turns.drop(waiter)
            waiter.settle(Over())
        if not self._over:
            self._dispatch(self._clock())

    @property
    def sought(self) -> bool:
        """Whether somebody waits for a slot here."""
        return self._turns.sought

    def overdue(self, before: float) -> list[Waiter]:
        """Who waits for a slot since `before` and may be moved, the next in turn first.

        When one is handed over, others may get in: look at `outcome` before each.
        """
        return self._turns.overdue(before)

    def hand_over(self, waiter: Waiter, to: Admission) -> None:
        """`to` has let `waiter` in: it waits here no more."""
        self._turns.drop(waiter)
        waiter.settle(Taken(to))
        self._dispatch(self._clock())

    def retry_after_s(self) -> float:
        """(waiting + 1) / leaves a second, at least 1 and at most 120: see `Drain`."""
        return self._drain.retry_after_s(self.waiting, self._clock(), self._left, self.in_flight)

    def standings(self) -> list[Standing]:
        """Every key that is in flight or waits, the base first, then by name."""
        now, lines = self._clock(), self._turns.lines
        return [
            Standing(
                key,
                self.flights.get(key, 0),
                len(lines[key].waiters) if key in lines else 0,
                now - lines[key].waiters[0].since if key in lines else 0.0,
                key in self._turns.yielding,
            )
            for key in sorted(self.flights.keys() | lines.keys(), key=lambda key: key or "")
        ]

    def _try_in_turn(self, key: Key) -> bool:
        turns = self._turns
        if self._over or self.in_flight >= self._seats or key in turns.lines:
            return False
        if not turns.may_start(key, self._clock()):
            return False
        self._count(key, 1)
        turns.started(key)
        return True

    def _count(self, key: Key, count: int) -> None:
        """`count` of `key` are in. If it had none, and the engine refused somebody lately, it is a trial."""
        before = self.flights.get(key, 0)
        self.flights[key] = before + count
        self.in_flight += count
        if not before and self._refusals.fresh:
            self._pause(self._refusals.opened(key))

    def _uncount(self, key: Key) -> None:
        count = self.flights[key] - 1
        if count:
            self.flights[key] = count
        else:
            del self.flights[key]
        self.in_flight -= 1

    def _after_leave(self, key: Key, *, served: bool = True) -> None:
        if self._over:
            return
        refusals = self._refusals
        emptied = key not in self.flights
        if (served and refusals.took(key)) or (emptied and refusals.pausing):
            self._resume(refusals.resume())
        if emptied:
            self._turns.emptied(key)
        self._dispatch(self._clock())

    def _dispatch(self, now: float) -> None:
        """Lets in whoever may start. Called after everything that happens."""
        turns = self._turns
        while self.in_flight < self._seats and (line := turns.next(now)) is not None:
            self._admit(line, now)
        if not turns.waiting:
            turns.rest()
            self._drain.idle(now, self._left)
        self._slow = turns.waiting > 0 or self._refusals.fresh

    def _admit(self, line: Line, now: float) -> None:
        turns = self._turns
        most = min(turns.batch(line, now), self._seats - self.in_flight)
        started = 0
        while started < most and line.waiters:
            waiter = turns.pop(line)
            if waiter.outcome.done():
                continue  # its caller was cancelled, and hears of it in this turn of the loop
            if waiter.deadline <= now:
                waiter.settle(Late(self.retry_after_s()))
                continue
            waiter.entered = True
            waiter.outcome.set_result(None)
            started += 1
        if started:
            self._count(line.key, started)
        turns.served(line, started, now)

    def _claim_place(self, key: Key) -> None:
        turns = self._turns
        alone = self.in_flight == self.flights.get(key, 0)
        try:
            giver = self._places.claim(key, turns.lines, turns.waiting, alone=alone)
        except NoPlace:
            raise QueueFull(self.retry_after_s()) from None
        if giver is not None:
            turns.drop(giver)
            giver.settle(QueueFull(self.retry_after_s()))

    def _late(self, waiter: Waiter) -> None:
        if self._turns.drop(waiter):
            waiter.settle(Late(self.retry_after_s()))
            self._dispatch(self._clock())

    def _abandon(self, waiter: Waiter) -> None:
        """Its caller was cancelled: out of the queue, or out of the seat that it had just been given."""
        if waiter.entered:
            self._uncount(waiter.key)
            if self._slow:
                self._after_leave(waiter.key, served=False)
        elif self._turns.drop(waiter):
            self._dispatch(self._clock())
        elif waiter.outcome.done() and isinstance(taken := waiter.outcome.result(), Taken):
            taken.by.leave(waiter.key)

    def _pause(self, length_s: float) -> None:
        self._slow = True
        self._set_timer(asyncio.get_running_loop().call_later(length_s, self._paused))

    def _paused(self) -> None:
        self._resume(self._refusals.passed())
        if not self.waiting:
            self._refusals.forget()
        self._dispatch(self._clock())

    def _resume(self, refused: list[Key]) -> None:
        self._set_timer(None)
        for key in refused:
            self._turns.replace(key)

    def _set_timer(self, timer: asyncio.TimerHandle | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = timer
