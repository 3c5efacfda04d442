"""Every shipped scenario but the soak, shortened, on real vLLM with sixteen adapters."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from loadtests.run import Asked, Run, run
from loadtests.scenario import load
from loadtests.scrape import Source
from loadtests.target import Target
from tests.house import House
from tests.proofs.adapters import variants
from tests.proofs.result import Result

ADAPTERS = 16
SHORTER: dict[str, dict[str, Any]] = {
    "steady": {"seconds": 30, "arrivals.rate": 1},
    "fairness": {"seconds": 30},
    "long-prompts": {"seconds": 30, "arrivals.rate": 0.3},
    "many-short": {"seconds": 20, "arrivals.rate": 2},
    "agents": {"seconds": 30},
    "slow-clients": {"seconds": 30},
    "thrash": {"seconds": 30, "arrivals.rate": 1},
    "storm": {"seconds": 30, "phases.1.routes.count": ADAPTERS},
    "engine-killed": {"arrivals.rate": 1},
}
KILLED = "engine-killed"


def prove(folder: Path, base: Path, data: Path | None) -> Result:
    result = Result(
        "scenarios",
        f"Each scenario once, shortened, on real vLLM (NF4, 8 slots) with {ADAPTERS} adapters, at rates for "
        "two cores. What must hold here is that the run ends with a report and every request with an answer; "
        "the SLOs are goals for larger machines.",
    )
    with House(folder / "house", base) as house:
        for number, adapter in enumerate(variants(base, folder / "adapters", ADAPTERS)):
            house.add(f"adapter-{number}", adapter)
        for name, changes in SHORTER.items():
            done = _run(house, name, changes)
            group = done.measures.all
            first, cold = group.ttft, group.cold_start
            result.figure(
                f"{name}: offered, answered, errors", f"{group.requests}, {group.ok}, {dict(group.errors)}"
            )
            result.figure(f"{name}: TTFT p50, p99", f"{_ms(first.p50)}, {_ms(first.p99)}")
            result.figure(f"{name}: tokens/s", f"{group.tokens_per_s or 0:.1f}")
            result.figure(f"{name}: cold starts, their p50", f"{group.cold_starts}, {_ms(cold.p50)}")
            if name != KILLED:
                result.must(f"{name}: every request answered", group.ok == group.requests, group.ok)
            else:
                after = done.measures.phases["after"]
                result.must(
                    f"{name}: every request answered after the engine is back",
                    after.ok == after.requests > 0,
                    f"{after.ok} of {after.requests}; while it was away {dict(group.errors)}",
                )
    return result


def _run(house: House, name: str, changes: dict[str, Any]) -> Run:
    if name == KILLED:
        os.environ["ENGINE_PID"] = str(house.fleet()[0]["pid"])
    sources = [Source("gateway", url=f"{house.url}/metrics", key=house.key)]
    done = run(load(name, changes), Asked(Target(house.url, house.key), sources=sources))
    print(f"  {name}: {done.report['verdict']} {done.report['why']}", flush=True)
    return done


def _ms(seconds: float | None) -> str:
    return "none" if seconds is None else f"{seconds * 1e3:.0f} ms"
