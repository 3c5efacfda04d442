"""Open load on one engine of a few slots, in told time: through `Admission`, and as vLLM's scheduler does it.

`python -m tests.fleet.simulation` prints both for several loads. A request takes as long as it takes whatever
runs beside it: the simulation is of waiting, not of an engine's speed.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.fleet.admission import Admission
from tests.fleet.told_time import run

SERVICE_S = (0.5, 1.5)
"""Uniform; the mean is 1 s."""


@dataclass(frozen=True)
class Load:
    """`rates`: requests a second of each key, Poisson; key 0 is the hot one where there is one."""

    rates: Sequence[float]
    slots: int
    seats: int
    seconds: float = 300.0

    def requests(self, seed: int) -> list[tuple[float, str, float]]:
        """(arrival, key, service time), in order of arrival. Each key draws from its own stream."""
        made = []
        for number, rate in enumerate(self.rates):
            draw = random.Random(f"{seed}-{number}")
            at = draw.expovariate(rate)
            while at < self.seconds:
                made.append((at, f"key-{number}", draw.uniform(*SERVICE_S)))
                at += draw.expovariate(rate)
        return sorted(made)


@dataclass(frozen=True)
class Latencies:
    """Seconds from arrival to answer, by key."""

    by_key: Mapping[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    @property
    def median(self) -> float:
        return statistics.median(latency for latencies in self.by_key.values() for latency in latencies)

    @property
    def worst_p99(self) -> float:
        return max(p99(latencies) for latencies in self.by_key.values())

    @property
    def ratio(self) -> float:
        """The worst key's p99 / the overall median."""
        return self.worst_p99 / self.median

    def __str__(self) -> str:
        hot, cold = self.by_key["key-0"], [v for k, vs in self.by_key.items() if k != "key-0" for v in vs]
        return (
            f"median {self.median:5.2f}  worst p99 {self.worst_p99:6.2f}  ratio {self.ratio:6.2f}"
            f"  | key 0: p50 {statistics.median(hot):5.2f} p99 {p99(hot):6.2f}"
            f"  | others: p50 {statistics.median(cold):5.2f} p99 {p99(cold):6.2f}"
        )


def p99(latencies: Sequence[float]) -> float:
    return sorted(latencies)[min(len(latencies) - 1, int(0.99 * len(latencies)))]


def through_admission(load: Load, seed: int = 1, **settings: Any) -> Latencies:
    async def drive() -> Latencies:
        clock = asyncio.get_running_loop().time
        admission = Admission(
            slots=load.slots, seats=load.seats, queue=1_000_000, clock=clock, seed=seed, **settings
        )
        latencies = Latencies()

        async def one(at: float, key: str, takes_s: float) -> None:
            await asyncio.sleep(at)
            if not admission.try_enter(key):
                await admission.enter(key, deadline=at + 1e6)
            await asyncio.sleep(takes_s)
            admission.leave(key)
            latencies.by_key[key].append(clock() - at)

        await asyncio.gather(*(one(*request) for request in load.requests(seed)))
        return latencies

    return run(drive())


def through_vllm(load: Load, seed: int = 1) -> Latencies:
    """First come, first served, but who needs a slot while all are taken is skipped (FACTS, trap 12)."""
    latencies = Latencies()
    running: dict[str, int] = defaultdict(int)
    ends: list[tuple[float, float, str]] = []
    waiting: list[tuple[float, str, float]] = []
    arrivals = list(reversed(load.requests(seed)))
    while arrivals or ends:
        if ends and (not arrivals or ends[0][0] <= arrivals[-1][0]):
            now, at, key = heapq.heappop(ends)
            latencies.by_key[key].append(now - at)
            running[key] -= 1
            if not running[key]:
                del running[key]
        else:
            now = arrivals[-1][0]
            waiting.append(arrivals.pop())
        skipped = []
        for at, key, takes_s in waiting:
            if len(ends) < load.seats and (key in running or len(running) < load.slots):
                running[key] += 1
                heapq.heappush(ends, (now + takes_s, at, key))
            else:
                skipped.append((at, key, takes_s))
        waiting = skipped
    return latencies


ONE_HOT = Load([24.0] + 15 * [0.6], slots=4, seats=48)
FOUR_HOT = Load(4 * [12.0] + 12 * [0.1], slots=4, seats=64)
LOADS: Mapping[str, Load] = {
    "1 hot (24/s), 15 cold (0.6/s), 48 seats": ONE_HOT,
    "1 hot (8/s), 15 cold (0.4/s), 32 seats": Load([8.0] + 15 * [0.4], 4, 32),
    "1 hot (16/s), 15 cold (0.2/s), 32 seats": Load([16.0] + 15 * [0.2], 4, 32),
    "1 hot (24/s), 15 cold (0.4/s), 32 seats": Load([24.0] + 15 * [0.4], 4, 32),
    "4 hot (12/s), 12 cold (0.1/s), 64 seats": FOUR_HOT,
    "6 hot (8/s), 10 cold (0.1/s), 64 seats": Load(6 * [8.0] + 10 * [0.1], 4, 64),
    "16 warm (3/s), 64 seats": Load(16 * [3.0], 4, 64),
    "Zipf(1.0), 32 keys, 40/s, 64 seats": Load([40 / 4.06 / (n + 1) for n in range(32)], 4, 64),
}
WAYS: Mapping[str, Callable[[Load], Latencies]] = {
    "vLLM": through_vllm,
    "Admission": through_admission,
    "  worth=0": lambda load: through_admission(load, worth=0.0),
    "  no turns": lambda load: through_admission(load, quantum=10**9),
    "  no turns, no age": lambda load: through_admission(load, quantum=10**9, age_bound_s=1e9),
}

if __name__ == "__main__":
    for name, load in LOADS.items():
        print(name)
        for way, simulate in WAYS.items():
            print(f"  {way:20s}{simulate(load)}", flush=True)
