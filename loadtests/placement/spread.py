"""Where versions are placed: how even it is, what moves, how far gateways agree, and how calm it stays.

A *placement* is one (version, home) pair. What moves between two of them is the share of pairs that are new:
each is an adapter that an engine must load. Two gateways *part* by the share of all requests that one of them
sends to an engine that the other would not have (total variation).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.fleet.placement import Placement, order, place
from loadtests.placement import traffic

BITS = 20
"""Bits of an engine's number in a pair."""


@dataclass(frozen=True)
class Spread:
    """What is simulated. `samples` are requests that a gateway has seen, for each engine."""

    engines: int = 1000
    versions: int = 100_000
    exponent: float = 1.0
    events: int = 12
    replicas: int = 3
    samples: tuple[int, ...] = (100, 1000, 10_000)
    windows: int = 6
    seed: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)


class Fleet:
    """Versions and engines with numbers, so that placements can be compared as arrays."""

    def __init__(self, asked: Spread) -> None:
        self.asked = asked
        self.versions = traffic.versions(asked.versions)
        self.popular = traffic.shares(asked.versions, asked.exponent)
        self.engines = traffic.engines(asked.engines + asked.events)
        self._number = {name: at for at, name in enumerate(self.engines)}

    def place(
        self, demand: NDArray[np.float64], engines: Sequence[str], previous: Placement | None = None
    ) -> Placement:
        loads = dict(zip(self.versions, demand.tolist(), strict=True))
        return place(loads, dict.fromkeys(engines, 1.0), previous, **self.asked.options)

    def seen(self, per_engine: int, random: np.random.Generator) -> NDArray[np.float64]:
        """How often a gateway that has seen so many requests for each engine has seen each version."""
        return random.multinomial(per_engine * self.asked.engines, self.popular).astype(np.float64)

    def look(self, placement: Placement) -> Homes:
        homes = [placement.homes(version) for version in self.versions]
        degrees = np.fromiter(map(len, homes), dtype=np.int64, count=len(homes))
        number = self._number
        flat = np.fromiter((number[engine] for own in homes for engine in own), dtype=np.int64)
        first = np.fromiter((number[own[0]] for own in homes), dtype=np.int64, count=len(homes))
        version = np.repeat(np.arange(len(homes)), degrees)
        return Homes(first, degrees, (version << BITS) | flat, (self.popular / degrees)[version])


@dataclass(frozen=True)
class Homes:
    """`pairs` are the placements, in the order of versions; `carries` the share of requests of each."""

    first: NDArray[np.int64]
    degrees: NDArray[np.int64]
    pairs: NDArray[np.int64]
    carries: NDArray[np.float64]

    def loads(self) -> NDArray[np.float64]:
        """Of each engine that has any, over the mean."""
        load = np.bincount(self.pairs & ((1 << BITS) - 1), self.carries)
        load = load[load > 0]
        relative: NDArray[np.float64] = load / load.mean()
        return relative

    def holds(self, engine: int) -> float:
        """The share of all placements that are on this engine."""
        return float(((self.pairs & ((1 << BITS) - 1)) == engine).mean())


def moved(before: Homes, after: Homes) -> float:
    """The share of placements that are new."""
    return len(np.setdiff1d(after.pairs, before.pairs, assume_unique=True)) / len(before.pairs)


@dataclass(frozen=True)
class Parting:
    """How two gateways differ: share of versions whose first home, or any, is another; and of requests."""

    first: float
    any: float
    first_by_traffic: float
    requests: float


def parting(one: Homes, other: Homes, popular: NDArray[np.float64]) -> Parting:
    first = one.first != other.first
    _, here, there = np.intersect1d(one.pairs, other.pairs, assume_unique=True, return_indices=True)
    common = np.bincount(one.pairs[here] >> BITS, minlength=len(popular))
    differs = (common < one.degrees) | (common < other.degrees)
    both = np.minimum(one.carries[here], other.carries[there]).sum()
    return Parting(
        float(first.mean()), float(differs.mean()), float(popular[first].sum()), max(0.0, 1 - float(both))
    )


def study(asked: Spread) -> dict[str, Any]:
    """Every figure of one popularity, ready for JSON."""
    fleet = Fleet(asked)
    names = fleet.engines[: asked.engines]
    began, cpu = time.perf_counter(), time.process_time()
    known = fleet.place(fleet.popular, names)
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    homes = fleet.look(known)
    loads = homes.loads()
    preferred = [order(version, names)[0] for version in fleet.versions[:: max(1, asked.versions // 2000)]]
    firsts = [fleet.engines[at] for at in homes.first[:: max(1, asked.versions // 2000)]]
    return {
        "asked": asdict(asked),
        "place_s": took,
        "place_cpu_s": cpu,
        "loads": sorted(loads.tolist()),
        "placements": len(homes.pairs),
        "spread_versions": int((homes.degrees > 1).sum()),
        "most_homes": int(homes.degrees.max()),
        "homes_of_hottest": homes.degrees[:200].tolist(),
        "not_at_first_choice": float(np.mean([a != b for a, b in zip(firsts, preferred, strict=True)])),
        **_events(fleet, known, homes),
        "replicas": [_replicas(fleet, names, per_engine) for per_engine in asked.samples],
        "calm": [_calm(fleet, names, per_engine) for per_engine in asked.samples],
    }


def _events(fleet: Fleet, known: Placement, homes: Homes) -> dict[str, Any]:
    """Engines join one after the other, then others leave; demand is known and stays the same.

    `after_all` is how far the gateway that went through all this parts from one that has just been started.
    """
    asked = fleet.asked
    random = np.random.default_rng(asked.seed)
    names = fleet.engines[: asked.engines]
    leaving = random.choice(asked.engines, min(asked.events, asked.engines - 1), replace=False)
    events = [("join", name) for name in fleet.engines[asked.engines :]]
    events += [("leave", names[at]) for at in leaving]
    rows = []
    for kind, name in events:
        names = [*names, name] if kind == "join" else [each for each in names if each != name]
        known = fleet.place(fleet.popular, names, known)
        after = fleet.look(known)
        rows.append(
            {
                "kind": kind,
                "engines": len(names) + (kind == "leave"),
                "moved": moved(homes, after),
                "its_own": (after if kind == "join" else homes).holds(fleet.engines.index(name)),
                "worst_load": float(after.loads().max()),
            }
        )
        homes = after
    fresh = fleet.look(fleet.place(fleet.popular, names))
    return {"events": rows, "after_all": asdict(parting(homes, fresh, fleet.popular))}


def _replicas(fleet: Fleet, names: Sequence[str], per_engine: int) -> dict[str, Any]:
    """Gateways that were just started and have seen their own sample of the traffic each."""
    random = np.random.default_rng(fleet.asked.seed + per_engine)
    seen = [
        fleet.look(fleet.place(fleet.seen(per_engine, random), names)) for _ in range(fleet.asked.replicas)
    ]
    partings = [
        asdict(parting(one, other, fleet.popular)) for at, one in enumerate(seen) for other in seen[at + 1 :]
    ]
    together = np.mean([homes.loads() for homes in seen], axis=0)
    return {
        "seen_per_engine": per_engine,
        **{key: float(np.mean([each[key] for each in partings])) for key in partings[0]},
        "worst_load_of_one": float(max(homes.loads().max() for homes in seen)),
        "worst_load_together": float(together.max()),
    }


def _calm(fleet: Fleet, names: Sequence[str], per_engine: int) -> dict[str, Any]:
    """One gateway, its demand smoothed over windows (half of the old is kept): what moves at each window.

    It starts as gateways do, knowing no demand. With what it remembers and without; the traffic itself does
    not change, so that ideally nothing moves. At the end, how far it parts from a gateway that has just been
    started and sees the same demand.
    """
    asked = fleet.asked
    random = np.random.default_rng(asked.seed + per_engine)
    demand = fleet.seen(per_engine, random)
    last = [fleet.place(demand, names, fleet.place(np.ones(asked.versions), names))] * 2
    looks = [fleet.look(last[0])] * 2
    shares: list[list[float]] = [[], []]
    for _ in range(asked.windows):
        demand = 0.5 * demand + 0.5 * fleet.seen(per_engine, random)
        for which, previous in enumerate((last[0], None)):
            last[which] = fleet.place(demand, names, previous)
            after = fleet.look(last[which])
            shares[which].append(moved(looks[which], after))
            looks[which] = after
    return {
        "seen_per_engine": per_engine,
        "moved_a_window": float(np.mean(shares[0])),
        "moved_without_memory": float(np.mean(shares[1])),
        "parts_from_a_new_gateway": asdict(parting(looks[0], looks[1], fleet.popular)),
    }


def ramp(asked: Spread, top: float = 20.0, steps: int = 60) -> list[dict[str, Any]]:
    """One version gets hot and cold again: its load in loads of an engine, its homes, whether these nested.

    `nested`: the homes before are among those after, or the other way round.
    """
    fleet = Fleet(asked)
    names = fleet.engines[: asked.engines]
    rising = np.geomspace(0.02, top, steps)
    placement: Placement | None = None
    before: set[str] = set()
    rows = []
    for load in [*rising, *rising[::-1]]:
        demand = fleet.popular.copy()
        demand[0] = load / asked.engines * demand[1:].sum() / (1 - min(0.9, load / asked.engines))
        placement = fleet.place(demand, names, placement)
        homes = set(placement.homes(fleet.versions[0]))
        rows.append({"load": float(load), "homes": len(homes), "nested": before <= homes or homes <= before})
        before = homes
    return rows
