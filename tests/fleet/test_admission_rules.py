"""Random sequences of everything that can happen to an admission; what must always hold, always holds."""

from __future__ import annotations

import asyncio
from collections import Counter

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.fleet.admission import Admission, Late, Over, QueueFull
from tests.fleet.stage import Key
from tests.fleet.told_time import ToldLoop, settle

KEYS = st.sampled_from([None, "a", "b", "c", "d", "e"])
SLACK_S = 1e-6


class Request:
    """One request: waits, is in, or has ended, and how."""

    def __init__(self, key: Key, deadline: float) -> None:
        self.key = key
        self.deadline = deadline
        self.how = "waits"
        self.ended_at = 0.0
        self.task: asyncio.Task[None]


class Everything(RuleBasedStateMachine):
    """Requests of six keys come, go, are cancelled and refused; then all that are left must end."""

    @initialize(
        slots=st.sampled_from([None, 1, 2, 3]),
        seats=st.sampled_from([None, 1, 2, 4, 8]),
        queue=st.sampled_from([0, 3, 8, 100]),
        apart=st.booleans(),
        quantum=st.sampled_from([1, 3]),
        worth=st.sampled_from([0.0, 0.1, 4.0]),
        resident=st.sampled_from([None, {"a", "e"}.__contains__]),
    )
    def begin(self, slots, seats, queue, apart, quantum, worth, resident) -> None:  # type: ignore[no-untyped-def]
        self.loop = ToldLoop()
        self.slots, self.seats, self.queue, self.apart = slots, seats, queue, apart
        self.closed = self.refusing = False
        self.requests: list[Request] = []
        self.admission = Admission(
            slots=slots,
            seats=seats,
            queue=queue,
            apart=apart,
            quantum=quantum,
            worth=worth,
            age_bound_s=1.0,
            resident=resident,
            clock=self.loop.time,
            seed=1,
        )

    def run(self, seconds: float = 0.0) -> None:
        async def pass_time() -> None:
            await settle()
            if seconds:
                await asyncio.sleep(seconds)
                await settle()

        self.loop.run_until_complete(pass_time())

    def are(self, how: str) -> list[Request]:
        return [request for request in self.requests if request.how == how]

    def ask(self, request: Request, *, front: bool = False, since: float | None = None) -> None:
        async def enter() -> None:
            try:
                await self.admission.enter(request.key, request.deadline, front=front, since=since)
                request.how = "in"
            except (Late, Over, QueueFull) as error:
                request.how = type(error).__name__
            except asyncio.CancelledError:
                request.how = "cancelled"
                raise
            finally:
                request.ended_at = self.loop.time()

        request.how = "waits"
        request.task = self.loop.create_task(enter())

    @rule(key=KEYS, patience=st.sampled_from([0.0, 0.7, 30.0]), count=st.integers(1, 4))
    def enter(self, key: Key, patience: float, count: int) -> None:
        for _ in range(count):
            request = Request(key, self.loop.time() + patience)
            self.requests.append(request)
            self.ask(request)
        self.run()

    @rule(key=KEYS)
    def try_enter(self, key: Key) -> None:
        async def attempt() -> bool:
            return self.admission.try_enter(key)

        waiting = any(request.key == key for request in self.are("waits"))
        if self.loop.run_until_complete(attempt()):
            assert not waiting, f"{key} overtook its own"
            request = Request(key, self.loop.time())
            request.how = "in"
            self.requests.append(request)

    @precondition(lambda self: self.are("in"))
    @rule(data=st.data(), count=st.integers(1, 3))
    def leave(self, data: st.DataObject, count: int) -> None:
        for _ in range(min(count, len(self.are("in")))):
            self.leave_one(data.draw(st.sampled_from(self.are("in"))))
        self.run()

    def leave_one(self, request: Request) -> None:
        async def leave() -> None:
            self.admission.leave(request.key)

        request.how = "served"
        self.loop.run_until_complete(leave())

    @precondition(lambda self: self.are("waits"))
    @rule(data=st.data(), leaves=st.booleans())
    def cancel(self, data: st.DataObject, leaves: bool) -> None:
        """A client leaves, and perhaps somebody in the same turn of the loop, before or after."""
        request = data.draw(st.sampled_from(self.are("waits")))
        other = data.draw(st.sampled_from(self.are("in"))) if leaves and self.are("in") else None
        cancelled_first = data.draw(st.booleans())

        async def both() -> None:
            if cancelled_first:
                request.task.cancel()
            if other is not None:
                self.admission.leave(other.key)
                other.how = "served"
            if not cancelled_first:
                request.task.cancel()

        self.loop.run_until_complete(both())
        self.run()

    @precondition(lambda self: self.are("in"))
    @rule(data=st.data(), again=st.booleans(), aged=st.booleans())
    def refuse(self, data: st.DataObject, again: bool, aged: bool) -> None:
        async def not_now() -> None:
            self.admission.not_now(request.key)

        request = data.draw(st.sampled_from(self.are("in")))
        self.refusing = True
        self.loop.run_until_complete(not_now())
        request.how = "cancelled"
        if again:
            request.deadline = self.loop.time() + 5.0
            self.ask(request, front=True, since=self.loop.time() - 1.0 if aged else None)
        self.run()

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.1, 3.0]))
    def pass_time(self, seconds: float) -> None:
        self.run(seconds)

    @precondition(lambda self: len(self.requests) > 8)
    @rule(for_good=st.booleans())
    def close(self, for_good: bool) -> None:
        async def end() -> None:
            (self.admission.close if for_good else self.admission.disperse)()

        self.loop.run_until_complete(end())
        self.closed = self.closed or for_good
        self.run()
        assert [] == self.are("waits")

    @invariant()
    def the_counts_are_those_of_the_requests(self) -> None:
        counts = Counter(request.key for request in self.are("in"))
        assert counts == Counter(self.admission.flights)
        assert counts.total() == self.admission.in_flight
        assert len(self.are("waits")) == self.admission.waiting
        assert {k: n for k, n in counts.items() if k is not None} == self.admission.active

    @invariant()
    def no_bound_is_passed(self) -> None:
        assert self.slots is None or len(self.admission.active) <= self.slots
        assert self.seats is None or self.admission.in_flight <= self.seats
        assert not (self.apart and self.admission.active and None in self.admission.flights)
        if not self.refusing:
            assert self.admission.waiting <= self.queue

    @invariant()
    def nobody_waits_past_the_deadline(self) -> None:
        assert [] == [r for r in self.are("waits") if r.deadline + SLACK_S < self.loop.time()]
        assert [] == [r for r in self.are("Late") if r.ended_at > r.deadline + SLACK_S]

    @invariant()
    def nobody_waits_who_could_be_in(self) -> None:
        """Said anew, of what can be seen from outside; a pause after a refusal is left to the end."""
        if self.refusing or self.closed or self.admission.in_flight == self.seats:
            return
        standings = {standing.key: standing for standing in self.admission.standings()}
        active, base_in = self.admission.active, None in self.admission.flights
        waiting = {key for key, standing in standings.items() if standing.waiting}
        yields = {key for key, standing in standings.items() if standing.yields}
        seek = {k for k in waiting if k not in self.admission.flights and (k is not None or self.apart)}
        full = self.slots is not None and len(active) == self.slots
        free = 0 if full or (self.apart and base_in) else (self.slots or 1000) - len(active)
        assert waiting <= seek | yields, "a key with a slot waits though it does not yield"
        if self.apart and None in seek:
            assert active, "the base waits for an empty engine"
        elif seek:
            assert free == 0, "a key waits for a slot and one is free"
            assert len(yields) <= len(seek)
        if not seek:
            assert not waiting, "somebody yields to nobody"

    def teardown(self) -> None:
        """Whoever is in ends, one by one; whoever waits is then in, or late. Nobody waits for ever."""
        if not hasattr(self, "admission"):
            return
        while self.are("in") or self.are("waits"):
            for request in self.are("in")[:1]:
                self.leave_one(request)
            self.run(1.0)  # longer than any pause
            assert self.are("in") or not self.are("waits"), "an idle engine, and somebody waits"
            self.no_bound_is_passed()
            self.nobody_waits_past_the_deadline()
            self.nobody_waits_who_could_be_in()
        ends = {"served", "Late", "Over", "QueueFull", "cancelled"}
        assert ends >= {request.how for request in self.requests}
        assert (0, 0, {}) == (self.admission.in_flight, self.admission.waiting, self.admission.flights)
        self.loop.close()


TestEverything = Everything.TestCase
TestEverything.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
