"""What is simulated: the fleets of the issue, and sweeps that show where affinity pays.

Every scene is run with several seeds; a ratio is taken within a seed, between ways that saw the same
requests, and the median is shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

from loadtests.placement.engine import CPU, GPU
from loadtests.placement.fleet import WAYS, Outcome, Scene, Way, simulate

SWEEP: tuple[Way, ...] = ("round robin", "homes", "homes, spill")


@dataclass(frozen=True)
class Size:
    """How long it all takes: requests that are measured in a scene of two engines, and of sixteen; seeds."""

    few: int = 6000
    many: int = 20_000
    seeds: tuple[int, ...] = (1, 2, 3)


def two_engines(size: Size) -> Iterator[Scene]:
    """Two of a CPU's proportions, four slots each, 64 adapters."""
    for exponent in (1.0, 0.0):
        for cache in (32, 4):
            for clients in (8, 16, 32, 64):
                shape = replace(CPU, max_cpu_loras=cache)
                yield Scene(shape, 2, 64, exponent, clients, 64, size.few, size.few // 6)


def sixteen_engines(size: Size) -> Iterator[Scene]:
    """Sixteen of a GPU's proportions, 1,000 adapters, 32 clients each."""
    for exponent in (1.0, 0.0):
        for slots in (8, 16, 32):
            shape = replace(GPU, max_loras=slots)
            yield Scene(shape, 16, 1000, exponent, 512, 128, size.many, size.many // 2)


def sweep(size: Size) -> Iterator[Scene]:
    """Sixteen with 16 slots, Zipf(1.0): slow and fast loads, long and short answers."""
    for tokens in (32, 128, 512):
        for load_s in (0.025, 0.05, 0.1, 0.2):
            shape = replace(GPU, load_s=load_s)
            yield Scene(shape, 16, 1000, 1.0, 512, tokens, size.many // 2, size.many // 2)


def run(scene: Scene, ways: Sequence[Way], seeds: Sequence[int], *, roomy: bool) -> dict[str, Any]:
    """Each way's medians over the seeds; with `roomy`, waiting is also told over that without contention."""
    outcomes: dict[Way, list[Outcome]] = {way: [simulate(scene, way, seed) for seed in seeds] for way in ways}
    free = [simulate(scene.roomy(), "homes", seed) for seed in seeds] if roomy else []
    rows = {}
    for way, own in outcomes.items():
        row = {key: median(asdict(each)[key] for each in own) for key in asdict(own[0])}
        pairs = list(zip(own, outcomes["round robin"], strict=True))
        row["speed"] = median(each.tokens_per_s / other.tokens_per_s for each, other in pairs)
        if free:
            ratios = [each.ttft_p99_s / most.ttft_p99_s for each, most in zip(own, free, strict=True)]
            row["ttft_p99_over_roomy"] = median(ratios)
        rows[way] = row
    return {"scene": asdict(scene), "ways": rows}


def all_of(size: Size) -> dict[str, list[dict[str, Any]]]:
    return {
        "two engines": [run(scene, WAYS, size.seeds, roomy=True) for scene in two_engines(size)],
        "sixteen engines": [run(scene, WAYS, size.seeds, roomy=True) for scene in sixteen_engines(size)],
        "sweep": [run(scene, SWEEP, size.seeds[:1], roomy=False) for scene in sweep(size)],
    }
