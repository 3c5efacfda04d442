"""Random sequences of everything that can happen to an admission; what must always hold, always holds.

hypothesis finds short ones and shrinks them; long seeded ones get deeper, to many waiting and yielding keys.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.fleet.admission import Admission
from gateway.fleet.outcomes import Late, Over, QueueFull, Taken
from tests.fleet.stage import Key
from tests.fleet.told_time import ToldLoop, settle

KEYS: tuple[Key, ...] = (None, "a", "a", "a", "b", "c", "d", "e")
CHOICES: dict[str, tuple[Any, ...]] = {
    "slots": (1, 2, 2, 3, None),
    "seats": (None, 12, 8, 4, 1),
    "queue": (100, 100, 8, 3, 0),
    "apart": (False, True),
    "quantum": (1, 3),
    "worth": (0.0, 0.1, 4.0),
    "resident": (None, {"a", "e"}.__contains__),
}
SLACK_S = 1e-6


class Request:
    """One request: waits, is in, or has ended, and how."""

    def __init__(self, key: Key, deadline: float) -> None:
        self.key = key
        self.deadline = deadline
        self.how = "waits"
        self.ended_at = 0.0
        self.task: asyncio.Task[None]


class World:
    """An admission and its requests. Every method is one thing that can happen."""

    def __init__(self, given: dict[str, Any], *, refuses: bool) -> None:
        self.loop = ToldLoop()
        self.slots, self.seats = given["slots"], given["seats"]
        self.queue, self.apart = given["queue"], given["apart"]
        self.refuses, self.closed = refuses, False
        self.requests: list[Request] = []
        self.admission = Admission(**given, age_bound_s=1.0, clock=self.loop.time, seed=1)
        self.elsewhere = Admission(slots=None, seats=None, queue=0, clock=self.loop.time)

    def are(self, how: str) -> list[Request]:
        return [request for request in self.requests if request.how == how]

    def run(self, seconds: float = 0.0) -> None:
        async def pass_time() -> None:
            await settle()
            if seconds:
                await asyncio.sleep(seconds)
                await settle()

        self.loop.run_until_complete(pass_time())

    def enter(self, key: Key, patience: float, count: int) -> None:
        for _ in range(count):
            request = Request(key, self.loop.time() + patience)
            self.requests.append(request)
            self._ask(request)
        self.run()

    def try_enter(self, key: Key) -> None:
        async def attempt() -> bool:
            return self.admission.try_enter(key)

        waiting = any(request.key == key for request in self.are("waits"))
        if self.loop.run_until_complete(attempt()):
            assert not waiting, f"{key} overtook its own"
            request = Request(key, self.loop.time())
            request.how = "in"
            self.requests.append(request)

    def leave(self, request: Request) -> None:
        async def leave() -> None:
            self.admission.leave(request.key)

        request.how = "served"
        self.loop.run_until_complete(leave())
        self.run()

    def cancel(self, gone: list[Request], leaving: Request | None, *, cancelled_first: bool) -> None:
        """Clients go, and perhaps a request ends in the same turn of the loop."""

        async def both() -> None:
            for request in gone if cancelled_first else ():
                request.task.cancel()
            if leaving is not None:
                self.admission.leave(leaving.key)
                leaving.how = "served"
            for request in () if cancelled_first else gone:
                request.task.cancel()

        self.loop.run_until_complete(both())
        self.run()

    def refuse(self, request: Request, *, again: bool, aged: bool) -> None:
        async def not_now() -> None:
            self.admission.not_now(request.key)

        self.loop.run_until_complete(not_now())
        request.how = "cancelled"
        if again:
            request.deadline = self.loop.time() + 5.0
            self._ask(request, front=True, since=self.loop.time() - 1.0 if aged else None)
        self.run()

    def hand_over(self, older_s: float, *, cancelled: bool) -> None:
        """Whoever has waited for a slot that long goes elsewhere, or its client just then."""
        active = set(self.admission.flights)

        async def both() -> None:
            for waiter in self.admission.overdue(self.loop.time() - older_s):
                if waiter.outcome.done():
                    continue  # it came in when an earlier one left
                assert waiter.key not in active or self.refuses, "it has a slot"
                assert self.elsewhere.try_enter(waiter.key)
                self.admission.hand_over(waiter, self.elsewhere)
            for request in self.are("waits") if cancelled else ():
                request.task.cancel()

        self.loop.run_until_complete(both())
        self.run()

    def end(self, *, for_good: bool) -> None:
        async def end() -> None:
            (self.admission.close if for_good else self.admission.disperse)()

        self.loop.run_until_complete(end())
        self.closed = self.closed or for_good
        self.run()
        assert [] == self.are("waits")

    def drain(self) -> None:
        """Whoever is in ends, one by one; whoever waits is then in, or late. Nobody waits for ever."""
        while self.are("in") or self.are("waits"):
            for request in self.are("in")[:1]:
                self.leave(request)
            self.run(1.0)  # longer than any pause
            assert self.are("in") or not self.are("waits"), "an idle engine, and somebody waits"
            self.check()
        ends = {"served", "Late", "Over", "QueueFull", "Taken", "cancelled"}
        assert ends >= {request.how for request in self.requests}
        assert (0, 0, {}) == (self.admission.in_flight, self.admission.waiting, self.admission.flights)
        self.loop.close()

    def check(self) -> None:
        self.counts_are_those_of_the_requests()
        self.no_bound_is_passed()
        self.nobody_waits_past_the_deadline()
        self.nobody_waits_who_could_be_in()

    def counts_are_those_of_the_requests(self) -> None:
        counts = Counter(request.key for request in self.are("in"))
        assert counts == Counter(self.admission.flights)
        assert counts.total() == self.admission.in_flight
        assert len(self.are("waits")) == self.admission.waiting
        assert Counter(request.key for request in self.are("Taken")) == Counter(self.elsewhere.flights)
        assert {k: n for k, n in counts.items() if k is not None} == self.admission.active

    def no_bound_is_passed(self) -> None:
        assert self.slots is None or len(self.admission.active) <= self.slots
        assert self.seats is None or self.admission.in_flight <= self.seats
        assert not (self.apart and self.admission.active and None in self.admission.flights)
        assert self.refuses or self.admission.waiting <= self.queue

    def nobody_waits_past_the_deadline(self) -> None:
        assert [] == [r for r in self.are("waits") if r.deadline + SLACK_S < self.loop.time()]
        assert [] == [r for r in self.are("Late") if r.ended_at > r.deadline + SLACK_S]

    def nobody_waits_who_could_be_in(self) -> None:
        """Said anew, of what can be seen from outside; a pause after a refusal is left to `drain`."""
        standings = {standing.key: standing for standing in self.admission.standings()}
        yields = {key for key, standing in standings.items() if standing.yields}
        assert yields <= self.admission.flights.keys()
        if self.refuses or self.closed or self.admission.in_flight == self.seats:
            return
        active, base_in = self.admission.active, None in self.admission.flights
        waiting = {key for key, standing in standings.items() if standing.waiting}
        seek = {k for k in waiting if k not in self.admission.flights and (k is not None or self.apart)}
        full = self.slots is not None and len(active) == self.slots
        free = 0 if full or (self.apart and base_in) else (self.slots or 1000) - len(active)
        assert waiting <= seek | yields, "a key with a slot waits though it does not yield"
        assert seek or not waiting, "somebody yields to nobody"
        if self.apart and None in seek:
            assert active, "the base waits for an empty engine"
        elif seek:
            assert free == 0, "a key waits for a slot and one is free"
            assert len(yields) <= len(seek)

    def _ask(self, request: Request, *, front: bool = False, since: float | None = None) -> None:
        async def enter() -> None:
            try:
                await self.admission.enter(
                    request.key, request.deadline, front=front, since=since, movable=True
                )
                request.how = "in"
            except (Late, Over, QueueFull, Taken) as error:
                request.how = type(error).__name__
            except asyncio.CancelledError:
                request.how = "cancelled"
                raise
            finally:
                request.ended_at = self.loop.time()

        request.how = "waits"
        request.task = self.loop.create_task(enter())


class Everything(RuleBasedStateMachine):
    world: World | None = None

    @initialize(
        given=st.fixed_dictionaries({name: st.sampled_from(values) for name, values in CHOICES.items()}),
        refuses=st.booleans(),
    )
    def begin(self, given: dict[str, Any], refuses: bool) -> None:
        self.world = World(given, refuses=refuses)

    def are(self, how: str) -> list[Request]:
        return [] if self.world is None else self.world.are(how)

    @rule(key=st.sampled_from(KEYS), patience=st.sampled_from([30.0, 0.7, 0.0]), count=st.integers(1, 4))
    def enter(self, key: Key, patience: float, count: int) -> None:
        assert self.world is not None
        self.world.enter(key, patience, count)

    @rule(key=st.sampled_from(KEYS))
    def try_enter(self, key: Key) -> None:
        assert self.world is not None
        self.world.try_enter(key)

    @precondition(lambda self: self.are("in"))
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        assert self.world is not None
        self.world.leave(data.draw(st.sampled_from(self.are("in"))))

    @precondition(lambda self: self.are("waits"))
    @rule(data=st.data(), leaves=st.booleans(), all_of_them=st.booleans(), first=st.booleans())
    def cancel(self, data: st.DataObject, leaves: bool, all_of_them: bool, first: bool) -> None:
        assert self.world is not None
        one = data.draw(st.sampled_from(self.are("waits")))
        gone = [each for each in self.are("waits") if each is one or (all_of_them and each.key == one.key)]
        leaving = data.draw(st.sampled_from(self.are("in"))) if leaves and self.are("in") else None
        self.world.cancel(gone, leaving, cancelled_first=first)

    @precondition(lambda self: self.world and self.world.refuses and self.are("in"))
    @rule(data=st.data(), again=st.booleans(), aged=st.booleans())
    def refuse(self, data: st.DataObject, again: bool, aged: bool) -> None:
        assert self.world is not None
        self.world.refuse(data.draw(st.sampled_from(self.are("in"))), again=again, aged=aged)

    @rule(older_s=st.sampled_from([0.0, 0.5]), cancelled=st.booleans())
    def hand_over(self, older_s: float, cancelled: bool) -> None:
        assert self.world is not None
        self.world.hand_over(older_s, cancelled=cancelled)

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.1, 3.0]))
    def pass_time(self, seconds: float) -> None:
        assert self.world is not None
        self.world.run(seconds)

    @precondition(lambda self: self.world and len(self.world.requests) > 20)
    @rule(for_good=st.booleans())
    def end(self, for_good: bool) -> None:
        assert self.world is not None
        self.world.end(for_good=for_good)

    @invariant()
    def always(self) -> None:
        if self.world is not None:
            self.world.check()

    def teardown(self) -> None:
        if self.world is not None:
            self.world.drain()


TestEverything = Everything.TestCase
TestEverything.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.mark.parametrize("seed", range(40))
def test_what_must_always_hold_holds_for_long(seed: int) -> None:
    draw = random.Random(seed)
    given = {name: draw.choice(values) for name, values in CHOICES.items()}
    world = World(given, refuses=draw.random() < 0.3)
    for _ in range(300):
        waiting, inside, what = world.are("waits"), world.are("in"), draw.random()
        if what < 0.3:
            world.enter(draw.choice(KEYS), draw.choice([30.0, 30.0, 0.7, 0.0]), draw.randint(1, 3))
        elif what < 0.45:
            world.try_enter(draw.choice(KEYS))
        elif what < 0.7 and inside:
            world.leave(draw.choice(inside))
        elif what < 0.8 and waiting:
            key, many = draw.choice(waiting).key, draw.random() < 0.5
            gone = [each for each in waiting if each.key == key][: None if many else 1]
            leaving = draw.choice(inside) if inside and draw.random() < 0.5 else None
            world.cancel(gone, leaving, cancelled_first=draw.random() < 0.5)
        elif what < 0.85 and inside and world.refuses:
            world.refuse(draw.choice(inside), again=draw.random() < 0.8, aged=draw.random() < 0.5)
        elif what < 0.855:
            world.end(for_good=False)
        elif what < 0.88:
            world.hand_over(draw.choice([0.0, 0.5]), cancelled=draw.random() < 0.3)
        else:
            world.run(draw.choice([0.01, 0.01, 0.3, 1.1]))
        world.check()
    if draw.random() < 0.2:
        world.end(for_good=True)
    world.drain()
