"""What the gateway itself costs, with the yardstick in C: needs its folder (--tools)."""

from __future__ import annotations

import os
from pathlib import Path

from loadtests.overhead.verdict import bounds, table
from loadtests.overhead.whole import overhead, two_workers
from tests.proofs.result import Result, median

NEEDS = "tools"
ROUNDS = 5
WORKERS = "two workers >= 1.8 x one"


def prove(folder: Path, base: Path, tools: Path) -> Result:
    result = Result(
        "overhead",
        "A mock engine and a load generator in C on one core, a gateway worker on the other: real Postgres, "
        "a key checked, a route resolved, every exchange measured, no worker for fine-tuning jobs. "
        "`direct` is without a gateway, nginx is a control for the speed of this machine today, where it is "
        f"installed. {ROUNDS} rounds, taking turns; each figure is the median over rounds (lowest to "
        "highest). `late` is from the mock's write of a chunk to its arrival.",
    )
    results = overhead(folder, tools=tools, rounds=ROUNDS, tell=lambda line: print(f"  {line}", flush=True))
    for cell, system, figure, told in table(results):
        result.figure(f"{cell}, {system}, {figure}", told)
    for bound in bounds(results):
        result.must(bound.line, bound.held, bound.measured)
    ratios = two_workers(folder, tools=tools, rounds=ROUNDS, tell=print)
    if ratios is None:
        cores = len(os.sched_getaffinity(0))
        result.figure(WORKERS, f"cannot tell on {cores} cores: the load needs one, each worker one")
    else:
        result.must(WORKERS, median(ratios) >= 1.8, f"{median(ratios):.2f} x")
    return result
