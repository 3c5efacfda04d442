"""Samples and reports made up for the tests of what is computed from them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loadtests import report
from loadtests.cost import Price, Rates, cost
from loadtests.measure import measure
from loadtests.sample import Outcome, Sample
from loadtests.thresholds import Threshold


@dataclass(frozen=True, slots=True)
class Slo:
    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None


def answered(at: float = 0.0, index: int = 0, **fields: Any) -> Sample:
    """A good stream: first token after 0.1 s, 5 chunks 0.01 s apart, 5 tokens out, 20 in."""
    first = at + 0.1
    arrivals = tuple(first + 0.01 * i for i in range(5))
    usual: dict[str, Any] = {
        "route": "support",
        "phase": "run",
        "sent": at,
        "first": first,
        "last": arrivals[-1],
        "arrivals": arrivals,
        "status": 200,
        "version": "support@3f9c",
        "input_tokens": 20,
        "output_tokens": 5,
        "usage_known": True,
    }
    return Sample(index, at, **(usual | fields))


def failed(at: float = 0.0, outcome: Outcome = Outcome.STATUS_5XX, **fields: Any) -> Sample:
    """A request that came to nothing."""
    usual: dict[str, Any] = {"route": "support", "phase": "run", "sent": at, "outcome": outcome}
    return Sample(0, at, **(usual | fields))


def queued(
    seed: int, *, n: int = 2000, rate: float = 50.0, servers: int = 10, slower: float = 1.0
) -> list[Sample]:
    """A run against a queue with `servers` places: Poisson arrivals, so that neighbours wait together."""
    draw = random.Random(seed)
    free, at, samples = [0.0] * servers, 0.0, []
    for index in range(n):
        at += draw.expovariate(rate)
        place = free.index(min(free))
        first = max(at, free[place]) + draw.uniform(0.04, 0.06) * slower
        arrivals = [first]
        for _ in range(draw.randint(4, 16)):
            arrivals.append(arrivals[-1] + draw.uniform(0.008, 0.012) * slower)
        free[place] = arrivals[-1]
        samples.append(
            answered(
                at,
                index,
                route=draw.choice(("support", "sql")),
                first=first,
                last=arrivals[-1],
                arrivals=tuple(arrivals),
                output_tokens=len(arrivals),
            )
        )
    return samples


def reported(samples: Sequence[Sample], seconds: float = 40.0, **parts: Any) -> dict[str, Any]:
    """A report of `samples`, with an SLO on the first token and a cost."""
    slo = parts.pop("slo", Slo(ttft_s=0.2))
    usual: dict[str, Any] = {
        "scenario": {"name": "steady", "says": "Two routes.", "seed": 1, "warmup_s": 0.0, "faults": []},
        "plan_digest": "ab" * 32,
        "target": "http://127.0.0.1:8000",
        "command": ["hotswap", "bench", "run", "steady"],
        "started": 1_760_000_000.0,
        "generator": {
            "lag_p50": 0.0002, "lag_p99": 0.001, "lag_max": 0.002, "dropped": 0, "saturated": False, "why": ""
        },
        "cost": cost(samples, Rates(2.0), seconds, starts=0.0, slo=slo, api=Price(0.15, 0.6)),
        "machine": {"host": "lab", "cores": 2},
        "measures": measure(samples, slo, seconds, starts=0.0),
    }  # fmt: skip
    parts["thresholds"] = [Threshold.parse(text) for text in parts.get("thresholds", ())]
    return report.build(samples=samples, slo=slo, **(usual | parts))
