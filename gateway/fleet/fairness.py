"""Whose turn it is: keys that wait for an engine's slots and seats, and keys that must let a slot go.

Pure: no event loop, and the time is told. `admission` holds the counts and the futures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gateway.fleet.line import Line, Ring, Waiter
from gateway.fleet.refusals import Key, Refusals

NEAR = 4
"""Keys at the head of the ring that deserve a free slot about equally: a resident one of them goes first."""
WORTH = 0.1
"""The share of what a key pays for yielding that those who seek must be worth, see `_is_worth_it`. A dial: at
0 a hot key waits about as long as cold ones do; the higher it is, the more is left to the age bound."""


class Turns:
    """Deficit round robin over keys. Every request costs one, so a deficit is a number of requests.

    *Slots.* A turn is `quantum` requests, or the key's backlog when the turn began: a backlog runs side by
    side in one slot, so a smaller turn would only drain the slot more often, and a hot key never catch up.
    When keys seek a slot and none is free, an active key that has used up its turn *yields*: its new requests
    take their place behind those who seek, and its slot is free when its last request has left. No more keys
    yield than slots are sought, and none at a price above what it gives (`_is_worth_it`). If the place of a
    yielding key comes before it is empty, it keeps its slot.
    *Age.* When a key has sought a slot for `age_bound_s`, and for half that time no key was given one, the
    active key with the least in flight yields, whatever is left of its turn; for the base, kept apart, all
    do. Age is since the oldest request came or since the last turn, whichever is later: else the backlog of a
    hot key would make it the oldest for ever. Without the second condition, on a busy engine whose ring takes
    longer than `age_bound_s`, keys would be made to yield all the time, to nobody's gain.
    *Seats.* Keys with a slot, and the base, take seats in turn, one each: round robin is what deficit round
    robin comes to when all cost the same. A key that seeks a slot and could have one is one of them; it
    starts as much of its turn at once as there are seats.
    tests/fleet/test_fairness.py shows what this is worth.

    `flights` (requests in flight by key) is the caller's, and only read here. `resident` says whether a key
    needs no loading: of the first `NEAR` keys in the ring such a one goes first, but nobody is passed over
    twice.
    """

    def __init__(
        self,
        flights: Mapping[Key, int],
        refusals: Refusals,
        *,
        slots: int,
        seats: int,
        apart: bool,
        quantum: int,
        age_bound_s: float,
        worth: float,
        resident: Callable[[str], bool] | None,
    ) -> None:
        self.lines: dict[Key, Line] = {}
        self.yielding: set[Key] = set()
        self.waiting = 0
        self._flights = flights
        self._refusals = refusals
        self._slots = slots
        self._seats = seats
        self._apart = apart
        self._quantum = quantum
        self._age_bound_s = age_bound_s
        self._worth = worth
        self._resident = resident
        self._left: dict[Key, int] = {}  # of an active key's turn; none: a whole quantum
        self._number = 0
        self._opened_at = float("-inf")
        # Keys that wait for a seat only; that need a slot, too; that yield.
        self._staying, self._seeking, self._behind = Ring(), Ring(), Ring()

    def join(self, waiter: Waiter, *, front: bool) -> None:
        """`waiter` waits from now on."""
        line = self.lines.get(waiter.key)
        if line is None:
            line = self.lines[waiter.key] = Line(waiter.key, waiter.since)
            self._place(line)
        line.add(waiter, front=front)
        self.waiting += 1

    def drop(self, waiter: Waiter) -> bool:
        """`waiter` waits no more; False when it did not."""
        line = self.lines.get(waiter.key)
        if line is None or not line.drop(waiter):
            return False
        self.waiting -= 1
        if not line.waiters:
            self._forget(line)
        return True

    def all(self) -> list[Waiter]:
        """Everybody who waits."""
        return [waiter for line in self.lines.values() for waiter in line.waiters]

    @property
    def sought(self) -> bool:
        """Whether somebody waits for a slot."""
        return len(self._seeking) > 0

    def overdue(self, before: float) -> list[Waiter]:
        """Who waits for a slot since `before` and may be moved: lines by turn, in each the oldest first."""
        return [
            waiter
            for line in self._seeking.first(len(self._seeking))
            for waiter in line.waiters
            if waiter.movable and waiter.since <= before and not waiter.outcome.done()
        ]

    def pop(self, line: Line) -> Waiter:
        """The first of `line`; follow with `served`."""
        self.waiting -= 1
        return line.pop()

    def batch(self, line: Line, now: float) -> int:
        """How many of `line`, which was `next`, may start at once: one, or, with a slot, the whole turn."""
        if line.ring is not self._seeking:
            return 1
        self._opened_at = now
        head = self._seeking.head
        if head is not None and head is not line:
            head.passed_over = True
        return self._new_turn(line)

    def started(self, key: Key, count: int = 1) -> None:
        """`count` of `key` have begun, and are counted in `flights`."""
        self._left[key] = self._left.get(key, self._quantum) - count

    def served(self, line: Line, started: int, now: float) -> None:
        """`started` of `line` have begun: what is left of it has its next turn after the others."""
        self.started(line.key, started)
        if not line.waiters:
            self._forget(line)
        elif started:
            line.passed_over = False
            self._place(line, now)

    def emptied(self, key: Key) -> None:
        """The last of `key` has left, and with it the slot."""
        self._left.pop(key, None)
        self.yielding.discard(key)
        self.replace(key)

    def replace(self, key: Key) -> None:
        """`key` was refused, or may be tried again, or yields no more: its line moves to the right ring."""
        line = self.lines.get(key)
        if line is not None:
            self._place(line)

    def rest(self) -> None:
        """Nobody waits: nobody yields, and turns are forgotten."""
        self._left.clear()
        self.yielding.clear()

    def may_start(self, key: Key, now: float) -> bool:
        """Whether a newcomer may go in, there being a seat and nobody of its key waiting."""
        if key in self._refusals.keys:
            return False
        if key in self._flights:
            return not self._must_yield(key, now)
        if key is None and not self._apart:
            return True
        return not self._seeking and self._may_open(key)

    def next(self, now: float) -> Line | None:
        """Whose waiter has the next seat; None when nobody who waits may start."""
        self._relax()
        opening = self._next_to_open(now)
        while (line := self._staying.head) is not None:
            if opening is not None and opening.place < line.place:
                return opening
            if not self._must_yield(line.key, now):
                return line
        return opening

    def _next_to_open(self, now: float) -> Line | None:
        head = self._seeking.head
        if head is None or not self._may_open(head.key):
            return None
        if self._resident is None or head.passed_over or now - head.turn > self._age_bound_s:
            return head
        for line in self._seeking.first(NEAR):
            if line.key is None:
                break  # the base, kept apart: whoever overtakes it keeps the engine from getting empty for it
            if self._resident(line.key):
                return line
        return head

    def _may_open(self, key: Key) -> bool:
        """Whether a key with nothing in flight, which needs a slot, may have one now."""
        if key is None:
            return not self._flights and not self._refusals.pausing
        return self._room() > 0

    def _room(self) -> int:
        """Slots that new adapters could have now."""
        flights = self._flights
        if self._refusals.pausing or (self._apart and None in flights):
            return 0
        return self._slots - len(flights) + (None in flights)

    def _sought(self) -> int:
        """Slots that active keys should let go of. The base, kept apart, needs all of them."""
        if not self._seeking:
            return 0
        return len(self._flights) if self._base_seeks() else len(self._seeking) - self._room()

    def _base_seeks(self) -> bool:
        base = self.lines.get(None) if self._apart else None
        return base is not None and base.ring is self._seeking

    def _urgent(self, now: float) -> int:
        """Slots that must be let go of now, because somebody is too old."""
        head = self._seeking.head
        if head is None or now - head.turn <= self._age_bound_s:
            return 0
        if now - self._opened_at <= self._age_bound_s / 2:
            return 0
        return len(self._flights) if self._base_seeks() else 1

    def _must_yield(self, key: Key, now: float) -> bool:
        """Whether `key`, which is active, may not start another now."""
        sought = self._sought()
        if sought <= 0 or (key is None and not self._apart):
            return False
        if key in self.yielding:
            return True
        if self._left.get(key, self._quantum) <= 0 and len(self.yielding) < sought and self._is_worth_it(key):
            self._yield(key, now)
            return True
        urgent = min(sought, self._urgent(now))
        while len(self.yielding) < urgent and key not in self.yielding:
            self._yield(min(self._holders(), key=self._flights.__getitem__), now)
        return key in self.yielding

    def _is_worth_it(self, key: Key) -> bool:
        """Whether enough wait for a slot that `key` should give up its own.

        With n in flight, and so n arriving in a service time, a key that is away for A service times builds a
        queue of n A, and clears it with the free seats f: requests wait n A^2 / 2 * (n + f) / f in sum (two
        triangles). A is the same for all, so n (n + f) / f is the price. It buys a turn for those who seek.
        """
        count = self._flights[key]
        free = self._seats - sum(self._flights.values())
        return self._seeking.requests * free >= self._worth * count * (count + free)

    def _holders(self) -> list[Key]:
        """Active keys that hold a slot, or, kept apart, the engine, and do not yield."""
        return [key for key in self._flights if key not in self.yielding and (key is not None or self._apart)]

    def _yield(self, key: Key, now: float) -> None:
        self.yielding.add(key)
        line = self.lines.get(key)
        if line is not None:
            self._place(line, now)

    def _relax(self) -> None:
        """Nobody yields whose place has come, nor more keys than slots are sought."""
        sought = self._sought()
        if sought <= 0:
            self._left.clear()
        while (line := self._behind.head) is not None:
            seeking = self._seeking.head
            if sought > 0 and seeking is not None and seeking.place < line.place:
                break
            self._stay(line.key)
            self._new_turn(line)
        while len(self.yielding) > max(0, sought):
            self._stay(max(self.yielding, key=self._flights.__getitem__))

    def _stay(self, key: Key) -> None:
        self.yielding.discard(key)
        self.replace(key)

    def _new_turn(self, line: Line) -> int:
        turn = max(self._quantum, len(line.waiters))
        self._left[line.key] = turn
        return turn

    def _place(self, line: Line, turn: float | None = None) -> None:
        """Puts `line` into the ring where its key belongs now, at its turn or a new one."""
        if line.ring is not None:
            line.ring.take(line)
        if turn is not None:
            line.turn = turn
        if turn is not None or not line.number:
            self._number += 1
            line.number = self._number
        key = line.key
        if key in self._refusals.keys:
            self._seeking.put(line)
        elif key in self.yielding:
            self._behind.put(line)
        elif key in self._flights or (key is None and not self._apart):
            self._staying.put(line)
        else:
            self._seeking.put(line)

    def _forget(self, line: Line) -> None:
        if line.ring is not None:
            line.ring.take(line)
        del self.lines[line.key]
