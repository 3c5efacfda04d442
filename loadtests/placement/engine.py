"""One engine as placement sees it: steps, slots, a cache of adapters, and loads that stall it.

Modelled on vLLM: a step gives every running request one token. Before it, waiting requests join in the order
of their arrival, but those whose adapter would be one more than `max_loras` are passed over. An adapter that
has no slot is activated (copied from the host's cache; the least recently used idle slot is taken); one that
the cache does not have is read from disk first. Both happen inside the loop: nobody gets a token meanwhile.
"""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Proportions:
    """An engine's times in seconds, and its limits. `source` says where the numbers come from.

    A step takes `step_s`, `row_s` more for each running request, and for adapters `adapter_s` for each
    distinct one and `adapter_row_s` for each request that uses one. A prompt takes `prefill_s`, a load from
    disk `load_s`, and the copy of an adapter into a slot `activate_s`.
    """

    name: str
    source: str
    step_s: float
    row_s: float
    adapter_s: float
    adapter_row_s: float
    prefill_s: float
    load_s: float
    activate_s: float
    max_loras: int
    max_cpu_loras: int
    seats: int

    def step(self, rows: int, adapters: int) -> float:
        return self.step_s + rows * (self.row_s + self.adapter_row_s) + adapters * self.adapter_s


CPU = Proportions(
    name="CPU",
    source="measured with a 135M base in bf16, rank 8, on 2 cores, one matmul for each distinct adapter: 47 "
    "tok/s at 1 stream and 460 at 32 without adapters; 330 at 32 streams of one adapter, 75 at 8 streams of "
    "five; 0.88 s for a prompt of 800 tokens; 20 to 46 ms for a load. The copy into a slot is a guess",
    step_s=0.0197,  # 1/47 s at one row and 32/460 s at 32 are 19.7 + 1.56 n ms
    row_s=0.00156,
    adapter_s=0.0144,  # 32/330 s at 32 rows of one and 8/75 s at 8 rows of five are 14.4 d + 0.395 n ms more
    adapter_row_s=0.000395,
    prefill_s=0.110,  # 100 tokens
    load_s=0.033,
    activate_s=0.004,
    max_loras=4,
    max_cpu_loras=32,
    seats=32,
)

GPU = Proportions(
    name="GPU",
    source="assumed, for a 7B base on one card: 25 ms a step with 32 requests, a quarter more with adapters "
    "(28 s become 35 in vLLM's issue 10062); rank 32, about 100 MB, read from disk in 100 ms (50 to 200) and "
    "copied into a slot in 10 ms; prompts of 500 tokens at 10,000 tok/s",
    step_s=0.020,
    row_s=0.00015,
    adapter_s=0.00015,
    adapter_row_s=0.0001,
    prefill_s=0.050,
    load_s=0.100,
    activate_s=0.010,
    max_loras=16,
    max_cpu_loras=64,
    seats=64,
)


@dataclass(slots=True)
class Request:
    """Times are simulated seconds; `first` and `done` are set when they come."""

    version: int
    tokens: int
    arrived: float
    first: float = 0.0
    done: float = 0.0


@dataclass(slots=True)
class Counts:
    steps: int = 0
    tokens: int = 0
    loads: int = 0
    activations: int = 0
    busy_s: float = 0.0
    stalled_s: float = 0.0


@dataclass(slots=True, eq=False)
class Engine:
    """`loads_a_step` bounds how many adapters are read from disk in one step; vLLM does as many as come."""

    proportions: Proportions
    loads_a_step: int | None = None
    waiting: deque[Request] = field(default_factory=deque)
    counts: Counts = field(default_factory=Counts)
    slots: OrderedDict[int, None] = field(default_factory=OrderedDict)
    cache: OrderedDict[int, None] = field(default_factory=OrderedDict)
    _running: Counter[int] = field(default_factory=Counter)
    _rows: int = 0
    _ends: list[tuple[int, int, Request]] = field(default_factory=list)
    _fresh: list[Request] = field(default_factory=list)
    _number: int = 0

    @property
    def idle(self) -> bool:
        return not self._rows and not self.waiting

    def begin_step(self) -> float:
        """Lets waiting requests join and says how long the step takes, in seconds."""
        shape, counts = self.proportions, self.counts
        stall = 0.0
        loads = 0
        skipped: deque[Request] = deque()
        while self.waiting and self._rows < shape.seats:
            request = self.waiting.popleft()
            version = request.version
            if version not in self._running and len(self._running) >= shape.max_loras:
                skipped.append(request)
                continue
            if version not in self.cache and loads == self.loads_a_step:
                skipped.append(request)
                continue
            if version not in self.slots:
                if version not in self.cache:
                    self._load(version)
                    loads += 1
                    stall += shape.load_s
                self._activate(version)
                stall += shape.activate_s
            self.slots.move_to_end(version)
            self.cache.move_to_end(version)
            self._running[version] += 1
            self._rows += 1
            self._number += 1
            heapq.heappush(self._ends, (counts.steps + request.tokens, self._number, request))
            self._fresh.append(request)
        skipped.extend(self.waiting)
        self.waiting = skipped
        length = stall + len(self._fresh) * shape.prefill_s
        if self._rows:
            length += shape.step(self._rows, len(self._running))
        counts.loads += loads
        counts.stalled_s += stall
        counts.busy_s += length
        return length

    def end_step(self, now: float) -> list[Request]:
        """Everyone has a token more; those that are done leave and are returned."""
        counts = self.counts
        counts.steps += 1
        counts.tokens += self._rows
        for request in self._fresh:
            request.first = now
        self._fresh.clear()
        done = []
        while self._ends and self._ends[0][0] <= counts.steps:
            request = heapq.heappop(self._ends)[2]
            request.done = now
            self._rows -= 1
            self._running[request.version] -= 1
            if not self._running[request.version]:
                del self._running[request.version]
            done.append(request)
        return done

    def _load(self, version: int) -> None:
        if len(self.cache) >= self.proportions.max_cpu_loras:
            del self.cache[next(each for each in self.cache if each not in self.slots or self._may_go(each))]
        self.cache[version] = None

    def _activate(self, version: int) -> None:
        self.counts.activations += 1
        if len(self.slots) >= self.proportions.max_loras:
            del self.slots[next(each for each in self.slots if each not in self._running)]
        self.slots[version] = None

    def _may_go(self, version: int) -> bool:
        """An idle slot goes with its adapter's place in the cache."""
        if version in self._running:
            return False
        self.slots.pop(version, None)
        return True
