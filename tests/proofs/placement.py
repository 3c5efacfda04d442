"""Placement, simulated: even load, few moves, gateways that agree; and what homes are worth to a fleet.

The simulations are `python -m loadtests.placement`, with the gateway's own placement; docs/placement.md has
their tables, pictures and assumptions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gateway.fleet.placement import Placement, place
from loadtests.placement import traffic
from loadtests.placement.__main__ import spread_results
from loadtests.placement.scenes import Size, all_of
from loadtests.placement.tables import popularity, times_n
from tests.proofs.result import Result, median

ENGINES, VERSIONS, EVENTS, SEED = 1000, 100_000, 12, 1
SEEN = 1000
"""Requests that a gateway has seen, for each engine, when gateways are compared."""
HOT = 0.5
"""The default of `place`: what one home carries at most, in loads of an engine."""


def prove(folder: Path, base: Path, data: Path | None) -> Result:
    result = Result(
        "placement",
        f"Simulated, seed {SEED}, with the gateway's own placement. Spread: {ENGINES:,} engines, "
        f"{VERSIONS:,} versions, {EVENTS} engines join one by one and {EVENTS} leave. Fleet: requests "
        "through engines of given step times, medians of three seeds; docs/placement.md says what is "
        "assumed. Times are CPU time, on a machine that does other things besides.",
    )
    _look_up(result)
    for study in spread_results(ENGINES, VERSIONS, EVENTS, SEED)["spread"]:
        _spread(result, study)
    _fleet(result, all_of(Size()))
    return result


def _look_up(result: Result) -> None:
    versions, engines = traffic.versions(10_000), dict.fromkeys(traffic.engines(16), 1.0)
    demand = dict(zip(versions, traffic.shares(10_000, 1.0).tolist(), strict=True))
    place({"warm": 1.0}, engines)  # imports numpy
    first_s, placed = _timed(lambda: place(demand, engines))
    again_s = median([_timed(lambda: place(demand, engines, placed))[0] for _ in range(5)])
    said = f"{first_s * 1e3:.0f} ms, and {again_s * 1e3:.0f} ms from the last one"
    result.must("placing 10,000 versions on 16 engines < 50 ms", max(first_s, again_s) < 0.050, said)
    known_s = median([_timed(lambda: _ask(placed, versions))[0] for _ in range(5)]) / len(versions)
    unknown = [f"unknown-{number}" for number in range(1000)]
    unknown_s = median([_timed(lambda: _ask(placed, unknown))[0] for _ in range(5)]) / len(unknown)
    said = f"{known_s * 1e6:.2f} µs; {unknown_s * 1e6:.1f} µs for a version that was not placed"
    result.must("look-up < 20 µs with 10,000 versions", max(known_s, unknown_s) < 20e-6, said)


def _spread(result: Result, study: Mapping[str, Any]) -> None:
    name = popularity(study["asked"]["exponent"])
    result.must(
        f"{name}: load per engine ≤ 1.25 times the mean",
        max(study["loads"]) <= 1.25,
        f"{max(study['loads']):.3f}",
    )
    for kind in ("join", "leave"):
        moved = times_n(study["events"], kind)
        said = f"{median(moved):.2f}/N in the median, {max(moved):.2f}/N at worst"
        result.must(f"{name}: ≤ 1.3/N of placements move when an engine {kind}s", max(moved) <= 1.3, said)
    worst = max(event["worst_load"] for event in study["events"])
    result.must(f"{name}: and load stays ≤ 1.25 times the mean", worst <= 1.25, f"{worst:.3f}")
    if study["asked"]["exponent"]:
        share = traffic.shares(study["asked"]["versions"], study["asked"]["exponent"])[0] * ENGINES
        most = study["most_homes"]
        said = f"{share:.1f} loads of an engine on {most} engines; {study['spread_versions']} are spread"
        result.must(f"{name}: hot versions spread", share / most <= HOT, said)
    (seen,) = [each for each in study["replicas"] if each["seen_per_engine"] == SEEN]
    said = f"{seen['any']:.2%} of versions, {seen['requests']:.1%} of requests"
    result.must(
        f"{name}: gateways that saw {SEEN:,} requests an engine agree but for 1 %", seen["any"] < 0.01, said
    )
    result.figure(f"{name}: place(), CPU", f"{study['place_cpu_s']:.1f} s")


def _fleet(result: Result, groups: Mapping[str, list[dict[str, Any]]]) -> None:
    for exponent in (1.0, 0.0):
        for cache, least in ((32, 10.0), (4, 1.1)):
            scenes = [
                each
                for each in groups["two engines"]
                if each["scene"]["exponent"] == exponent
                and each["scene"]["proportions"]["max_cpu_loras"] == cache
            ]
            fewer = [_fewer(each["ways"], "homes") for each in scenes]
            name = f"2 engines, {popularity(exponent)}, cache {cache}"
            said = ", ".join(
                f"{_times(each)} with {scene['scene']['clients']} clients"
                for each, scene in zip(fewer, scenes, strict=True)
            )
            busy = [each for each, scene in zip(fewer, scenes, strict=True) if scene["scene"]["clients"] > 8]
            result.must(
                f"{name}: disk loads a request ≥ {least:g} times fewer from 16 clients on",
                min(busy) >= least,
                said,
            )
            for way in ("homes", "homes, spill"):
                speeds = [f"{each['ways'][way]['speed']:.2f}" for each in scenes]
                result.figure(f"{name}: tok/s of {way}, over round robin", ", ".join(speeds))
    small = median([each["ways"]["homes"]["speed"] for each in groups["two engines"]])
    large = [each["ways"]["homes"]["speed"] for each in groups["sixteen engines"]]
    said = f"{min(large):.2f} to {max(large):.2f} times round robin; 2 of a CPU's: {small:.2f} in the median"
    result.must("16 engines of a GPU's proportions: affinity pays more", min(large) > small, said)


def _fewer(ways: Mapping[str, Mapping[str, float]], way: str) -> float:
    loads = ways[way]["loads_per_request"]
    return ways["round robin"]["loads_per_request"] / loads if loads else float("inf")


def _times(ratio: float) -> str:
    return "none at all" if ratio == float("inf") else f"{ratio:.1f} times"


def _ask(placed: Placement, versions: list[str]) -> None:
    for version in versions:
        placed.homes(version)


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.thread_time()
    done = work()
    return time.thread_time() - began, done
