"""What it costs to remember every exchange: gateways that do, and one that does not, by turns."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import psutil

from loadtests.overhead.bench import CLoad, Results, take_turns, told
from loadtests.overhead.cells import Cell
from loadtests.overhead.processes import Cores, free_port
from loadtests.overhead.systems import System, hotswap
from loadtests.overhead.yardstick import MODEL, Yardstick
from tests.proofs.result import Result, median

NEEDS = "tools"
ROUNDS = int(os.environ.get("CAPTURE_ROUNDS", "7"))
OFF, FULL, STRICT, SHIPPED = "off", "full", "strict", "full, and shipped meanwhile"
LATER = {"HOTSWAP_TRAFFIC__SEGMENT_BYTES": str(8 << 30), "HOTSWAP_TRAFFIC__SEGMENT_AGE_S": "3600"}
"""Nothing is shipped while the gateway's own cost is measured."""
SYSTEMS = {
    OFF: {"HOTSWAP_TRAFFIC__CAPTURE": "off"},
    FULL: {"HOTSWAP_TRAFFIC__CAPTURE": "full", **LATER},
    STRICT: {"HOTSWAP_TRAFFIC__CAPTURE": "full", "HOTSWAP_TRAFFIC__REDACT": "strict", **LATER},
    SHIPPED: {"HOTSWAP_TRAFFIC__CAPTURE": "full"},
}
SATURATION = Cell("saturation", "64 connections, as fast as it goes", 64, 5)
STREAMS = Cell("streams", "200 streams, 10 ms between chunks", 200, 5, chunks=64, delay_ms=10, stagger_ms=640)
SHARE = 0.8
"""Of the core: at so much load p99 is compared. Clients that wait for their answers (saturation) let the
gateway do many requests at each look at its sockets; at a given rate it finds them one by one and needs more
CPU for each, so a share of saturation is no share of the core."""
LOOKS = 3


def prove(folder: Path, base: Path, tools: Path) -> Result:
    result = Result(
        "capture",
        "The overhead proof's mock and load (600-byte answers) on one core; on the other, by turns, a "
        "gateway that remembers nothing, one that remembers everything, and one with strict redaction, each "
        "with its Postgres on the same core. The journal is written and made durable as always; shipping, a "
        "process of its own, nice, which has another core where there is one, is left for later, because "
        f"here load and gateway take both. Beside that, as figures: `{SHIPPED}`, with the shipper on either "
        f"core. At {SHARE:.0%} load: requests come at the rate at which the gateway that remembers uses "
        f"{SHARE:.0%} of its core. {ROUNDS} rounds; medians (lowest to highest).",
    )
    cores = Cores.choose()
    load = CLoad(Yardstick(tools, folder, cores))
    with ExitStack() as stack:
        engine = free_port()
        stack.enter_context(load.mock(engine))
        systems: list[System] = []
        for name, settings in SYSTEMS.items():
            place = folder / name
            place.mkdir()
            entered = hotswap(engine, MODEL, place, cores, name=name, settings=settings)
            # The gateway's own CPU: shipping is done beside it, whenever there is time.
            systems.append(replace(stack.enter_context(entered), tree=False))
            if name == SHIPPED:
                _unpin_shipper(systems[-1], cores.load | cores.gateway)

        def turns(systems: Sequence[System], *cells: Cell) -> Results:
            return take_turns(load, engine, systems, cells, ROUNDS, tell)

        full = turns(systems[:3], SATURATION, STREAMS)
        rate = SHARE * median(full.values(FULL, "saturation", "per_s"))
        for _ in range(2):  # the second at nearly the right rate
            cell = Cell("load", f"{rate:,.0f}/s", 64, 5, rate=round(rate))
            seen = take_turns(load, engine, [systems[1]], [cell], LOOKS, tell)
            rate = SHARE * 1e6 / median(seen.values(FULL, "load", "cpu_us"))
        busy = Cell("busy", f"{rate:,.0f}/s", 64, 5, rate=round(rate))
        beside = turns(systems[:2], busy)
        shipped = turns([systems[0], systems[3]], SATURATION)
    _judge(result, full, beside, rate)
    speeds = _ratios(*(shipped.values(name, "saturation", "per_s") for name in (SHIPPED, OFF)))
    added = shipped.added(SHIPPED, OFF, "saturation", "cpu_us")
    result.figure(f"{SHIPPED}: saturation over capture off", told(speeds, digits=3))
    result.figure(f"{SHIPPED}: CPU of the gateway a request, added", told(added, " µs", digits=1))
    return result


def tell(line: str) -> None:
    print(f"  {line}", flush=True)


def _unpin_shipper(system: System, cores: frozenset[int]) -> None:
    assert system.pid is not None
    for child in psutil.Process(system.pid).children(recursive=True):
        if "gateway.traffic.ship" in child.cmdline():
            for task in Path(f"/proc/{child.pid}/task").iterdir():
                os.sched_setaffinity(int(task.name), cores)


def _judge(result: Result, full: Results, beside: Results, rate: float) -> None:
    for name in (OFF, FULL, STRICT):
        result.figure(f"{name}: requests/s", told(full.values(name, "saturation", "per_s")))
        result.figure(
            f"{name}: CPU a request", told(full.values(name, "saturation", "cpu_us"), " µs", digits=1)
        )
        result.figure(f"{name}: CPU a chunk", told(full.values(name, "streams", "cpu_us"), " µs", digits=1))
        result.figure(f"{name}: resident, most", f"{full.memory[name].most / 1e6:.0f} MB")
    speeds = _ratios(full.values(FULL, "saturation", "per_s"), full.values(OFF, "saturation", "per_s"))
    result.must(
        "full capture: saturation ≥ 0.90 of capture off",
        median(speeds) >= 0.90,
        told(speeds, digits=3),
    )
    for cell, what, most in (("saturation", "request", 8.0), ("streams", "chunk", 2.0)):
        added = full.added(FULL, OFF, cell, "cpu_us")
        result.must(
            f"full capture: ≤ {most:g} µs of CPU a {what}",
            median(added) <= most,
            told(added, " µs", digits=1),
        )
    for name in (OFF, FULL):
        p50, p99 = (told(beside.values(name, "busy", each), " µs") for each in ("p50", "p99"))
        core = median(beside.values(name, "busy", "cpu_us")) * rate / 1e6
        result.figure(f"{name}: at {rate:,.0f} requests/s", f"p50 {p50}, p99 {p99}, {core:.0%} of the core")
    slower = beside.added(FULL, OFF, "busy", "p99")
    result.must(
        f"full capture: p99 within 0.3 ms at {SHARE:.0%} load",
        median(slower) <= 300,
        told(slower, " µs"),
    )
    strict = full.values(STRICT, "saturation", "per_s")
    result.must("strict redaction: ≥ 5,000 requests/s", median(strict) >= 5000, told(strict))


def _ratios(one: Sequence[float], other: Sequence[float]) -> list[float]:
    return [left / right for left, right in zip(one, other, strict=True)]
