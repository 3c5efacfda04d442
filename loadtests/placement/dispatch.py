"""Ways to deal requests out: as a load balancer does it that knows nothing of adapters, and the gateway's.

`Homes` is the gateway's way in short: `gateway.fleet.placement` itself, fed every few seconds with smoothed
samples of what is in flight, and before each engine a queue that lets at most `max_loras` distinct versions
in, by turns. The queue is simpler than `gateway.fleet.admission`: it has no age bound and no deadlines.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gateway.fleet.placement import Placement, place
from loadtests.placement import traffic
from loadtests.placement.engine import Engine, Proportions, Request

SAMPLE_S, COLD = 0.25, 0.01
"""As in `gateway.fleet.router`: how often demand is sampled; what a version without traffic counts as."""


class Dispatch(Protocol):
    """Is told of requests, answers and the time. `moved` counts placements that were new."""

    engines: Sequence[Engine]
    moved: int

    def arrived(self, request: Request) -> int:
        """Gives it to an engine, which is returned by its number."""

    def left(self, engine: int, request: Request) -> None: ...
    def passed(self, now: float) -> set[int]:
        """Returns the engines that got a request."""


class RoundRobin:
    """Each request to the next engine. With `turns`, the gateway's queue is before each, without homes."""

    def __init__(self, proportions: Proportions, engines: int, *, turns: bool) -> None:
        at_once = 1 if turns else None
        self.engines: Sequence[Engine] = [Engine(proportions, loads_a_step=at_once) for _ in range(engines)]
        self.moved = 0
        self._queues = [Queue(engine) for engine in self.engines] if turns else []
        self._next = 0

    def arrived(self, request: Request) -> int:
        at = self._next
        self._next = (at + 1) % len(self.engines)
        if self._queues:
            self._queues[at].add(request)
        else:
            self.engines[at].waiting.append(request)
        return at

    def left(self, engine: int, request: Request) -> None:
        if self._queues:
            self._queues[engine].left(request)

    def passed(self, now: float) -> set[int]:
        return set()


@dataclass(slots=True)
class Queue:
    """What waits for one engine, by version, and what is in flight there.

    A version that has a slot lets its requests in until its turn of `quantum` (or its backlog at the turn's
    beginning) is used up and others wait for a slot. A free slot goes to the next version in turn, or to one
    of the next four that needs no loading, but nobody is passed over twice.
    """

    engine: Engine
    quantum: int = 4
    flights: Counter[int] = field(default_factory=Counter)
    lines: OrderedDict[int, deque[Request]] = field(default_factory=OrderedDict)
    waiting: int = 0
    _left: dict[int, int] = field(default_factory=dict)
    _passed_over: int | None = None

    @property
    def load(self) -> int:
        return self.flights.total() + self.waiting

    def add(self, request: Request) -> None:
        self.lines.setdefault(request.version, deque()).append(request)
        self.waiting += 1
        self.dispatch()

    def admits(self, version: int) -> bool:
        """Whether a request for `version` would be in at once."""
        shape = self.engine.proportions
        if self.flights.total() >= shape.seats or version in self.lines:
            return False
        if version in self.flights:
            return True
        return len(self.flights) < shape.max_loras and all(each in self.flights for each in self.lines)

    def overdue(self, before: float) -> list[Request]:
        """Who waits for a slot since `before`."""
        seeking = [line for version, line in self.lines.items() if version not in self.flights]
        return [request for line in seeking for request in line if request.arrived <= before]

    def drop(self, request: Request) -> None:
        line = self.lines[request.version]
        line.remove(request)
        self.waiting -= 1
        if not line:
            del self.lines[request.version]

    def left(self, request: Request) -> None:
        self.flights[request.version] -= 1
        if not self.flights[request.version]:
            del self.flights[request.version]
            self._left.pop(request.version, None)
        self.dispatch()

    def dispatch(self) -> None:
        while self.flights.total() < self.engine.proportions.seats and (version := self._next()) is not None:
            line = self.lines[version]
            if version not in self.flights:
                self._left[version] = max(self.quantum, len(line))
            self._left[version] -= 1
            self.flights[version] += 1
            self.engine.waiting.append(line.popleft())
            self.waiting -= 1
            if not line:
                del self.lines[version]

    def _next(self) -> int | None:
        seeking = [version for version in self.lines if version not in self.flights]
        for version in self.lines:
            if version in self.flights and (not seeking or self._left[version] > 0):
                return version
        if not seeking or len(self.flights) >= self.engine.proportions.max_loras:
            return None
        if self._passed_over == seeking[0]:
            return seeking[0]
        near = next((version for version in seeking[:4] if version in self.engine.cache), seeking[0])
        self._passed_over = None if near == seeking[0] else seeking[0]
        return near


class Homes:
    """The gateway's way. `place_every_s` and `keep` (the part of the old demand that stays) smooth it.

    A request that has waited `spill_after_s` for a slot at home (None: for ever) goes to an engine that has
    one free, rather to one where its version is in the cache (`gateway.fleet.spill`).
    """

    def __init__(
        self,
        proportions: Proportions,
        engines: int,
        versions: int,
        *,
        place_every_s: float,
        keep: float,
        spill_after_s: float | None,
    ) -> None:
        self.engines: Sequence[Engine] = [Engine(proportions, loads_a_step=1) for _ in range(engines)]
        self.moved = 0
        self._queues = [Queue(engine) for engine in self.engines]
        self._versions = traffic.versions(versions)
        self._numbers = {name: at for at, name in enumerate(traffic.engines(engines))}
        self._keeps = dict.fromkeys(self._numbers, proportions.max_cpu_loras)
        self._every_s, self._keep, self._spill_after_s = place_every_s, keep, spill_after_s
        self._sums: Counter[int] = Counter()
        self._samples = 0
        self._demand: dict[int, float] = {}
        self._place_at, self._sample_at = place_every_s, 0.0
        self._homes: list[tuple[int, ...]] = []
        self._placement: Placement | None = None
        self._place()

    def arrived(self, request: Request) -> int:
        homes = self._homes[request.version]
        at = min(homes, key=lambda home: self._queues[home].load)
        self._queues[at].add(request)
        return at

    def left(self, engine: int, request: Request) -> None:
        self._queues[engine].left(request)

    def passed(self, now: float) -> set[int]:
        if now >= self._sample_at:
            self._sample_at = now + SAMPLE_S
            self._samples += 1
            for queue in self._queues:
                self._sums.update(queue.flights)
                for version, line in queue.lines.items():
                    self._sums[version] += len(line)
        if now >= self._place_at:
            self._place_at = now + self._every_s
            smooth = {version: self._keep * load for version, load in self._demand.items()}
            for version, total in self._sums.items():
                smooth[version] = smooth.get(version, 0.0) + (1 - self._keep) * total / self._samples
            self._demand, self._samples = smooth, 0
            self._sums.clear()
            self._place()
        return set() if self._spill_after_s is None else self._spill(now - self._spill_after_s)

    def _spill(self, before: float) -> set[int]:
        takers = set()
        for queue in self._queues:
            for request in queue.overdue(before):
                taker = self._taker(request.version)
                if taker is not None:
                    queue.drop(request)
                    self._queues[taker].add(request)
                    takers.add(taker)
        return takers

    def _taker(self, version: int) -> int | None:
        free = [at for at, queue in enumerate(self._queues) if queue.admits(version)]
        near = [at for at in free if version in self.engines[at].cache]
        return min(near or free, key=lambda at: self._queues[at].load, default=None)

    def _place(self) -> None:
        demand = {name: max(COLD, self._demand.get(at, 0.0)) for at, name in enumerate(self._versions)}
        engines = dict.fromkeys(self._numbers, 1.0)
        placement = self._placement = place(demand, engines, self._placement, keeps=self._keeps)
        homes = [tuple(self._numbers[each] for each in placement.homes(name)) for name in self._versions]
        self.moved += sum(len(set(new) - set(old)) for new, old in zip(homes, self._homes, strict=False))
        self._homes = homes
