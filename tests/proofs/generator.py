"""What the load generator itself can offer from one core, against the mock in C on another."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import uvloop

from loadtests.drive import Driven, Target, drive
from loadtests.overhead.processes import Cores, free_port, get
from loadtests.overhead.yardstick import MODEL, Yardstick
from loadtests.plan import plan
from loadtests.scenario import Scenario
from tests.proofs.result import Result

NEEDS = "tools"
SECONDS = 20.0
RATE, STREAMS = 2000, 2000
CHUNKS, DELAY_S = 100, 0.1


def prove(folder: Path, base: Path, tools: Path) -> Result:
    result = Result(
        "generator",
        "The generator on one core, the mock engine in C on the other. Saturated would mean: requests taken "
        "up more than 10 ms late (p99), or the event loop late by as much, or a send dropped.",
    )
    cores = Cores.choose()
    yardstick = Yardstick(tools, folder, cores)
    port = free_port()
    with yardstick.mock(port):
        requests = _drive(_scenario("requests", RATE, stream=False), port, cores)
        _judge(result, f"{RATE:,} requests/s for {SECONDS:.0f} s", requests)
        get(f"http://127.0.0.1:{port}/ctl?chunks={CHUNKS}&delay_us={round(DELAY_S * 1e6)}")
        lasts = (CHUNKS - 1) * DELAY_S
        rate = (
            1.02 * STREAMS / lasts
        )  # a little more than it takes, so that the last ones do not miss the first
        streams = _drive(_scenario("streams", rate, stream=True, warmup_s=lasts), port, cores)
        _judge(result, f"{STREAMS:,} streams, {DELAY_S * 1000:.0f} ms between chunks", streams)
        most = streams.generator.most_open
        result.must(f"{STREAMS:,} streams at once", most >= STREAMS, most)
    return result


def _scenario(name: str, rate: float, *, stream: bool, **more: Any) -> Scenario:
    return Scenario.model_validate(
        {
            "name": name,
            "seconds": SECONDS,
            "stream": stream,
            "arrivals": {"kind": "constant", "rate": rate},
            "routes": {"mix": "weights", "weights": {MODEL: 1}},
            "prompts": {"kind": "lengths", "tokens": 20},
            "output": 64,
            **more,
        }
    )


def _drive(scenario: Scenario, port: int, cores: Cores) -> Driven:
    ours = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores.gateway)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(drive(plan(scenario), Target(f"http://127.0.0.1:{port}")))
    finally:
        os.sched_setaffinity(0, ours)


def _judge(result: Result, what: str, driven: Driven) -> None:
    generator = driven.generator
    lags = (generator.lag_p50, generator.lag_p99, generator.lag_max)
    result.figure(f"{what}: late by p50, p99, max", ", ".join(f"{lag * 1e3:.2f} ms" for lag in lags))
    result.figure(f"{what}: share of its core", f"{generator.cpu_share:.0%}")
    failed = sum(not sample.ok for sample in driven.samples)
    said = generator.why or f"lag p99 {generator.lag_p99 * 1e3:.2f} ms, {len(driven.samples):,} requests"
    result.must(f"{what}: not saturated, every answer whole", not generator.saturated and not failed, said)
