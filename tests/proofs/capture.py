"""What it costs to remember every exchange: gateways that do, and one that does not, by turns."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from loadtests.overhead.bench import CLoad, Results, take_turns, told
from loadtests.overhead.cells import Cell, Figures
from loadtests.overhead.processes import Cores, Pinned, free_port
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
PAIRS = int(os.environ.get("CAPTURE_PAIRS", "30"))
SATURATION = Cell("saturation", "64 connections, as fast as it goes", 64, 5)
SHORT = Cell("saturation", "the same, for a moment", 64, 2)
"""The machine's speed drifts by a third within half a minute: short turns, and many."""
STREAMS = Cell("streams", "200 streams, 10 ms between chunks", 200, 5, chunks=64, delay_ms=10, stagger_ms=640)
SHARE = 0.8
"""Of the core: at so much load p99 is compared. Clients that wait for their answers (saturation) let the
gateway do many requests at each look at its sockets; at a given rate it finds them one by one and needs more
CPU for each, so a share of saturation is no share of the core."""
LOOKS = 3
SETTLE_S = 0.3


def prove(folder: Path, base: Path, tools: Path) -> Result:
    result = Result(
        "capture",
        "The overhead proof's mock and load (600-byte answers) on one core; on the other, by turns, a "
        "gateway that remembers nothing, one that remembers everything, and one with strict redaction, each "
        "with its Postgres on the same core; while one is measured, the others are stopped (SIGSTOP). The "
        "journal is written and made durable as always; shipping, a "
        "process of its own, nice, which has another core where there is one, is left for later, because "
        f"here load and gateway take both. Beside that, as figures: `{SHIPPED}`, with the shipper on either "
        f"core. At {SHARE:.0%} load: requests come at the rate at which the gateway that remembers uses "
        f"{SHARE:.0%} of its core. {ROUNDS} rounds, {PAIRS} short ones of saturation; medians (lowest to "
        "highest).",
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

        alone = Alone(load, systems)

        def turns(systems: Sequence[System], *cells: Cell) -> Results:
            return take_turns(alone, engine, systems, cells, ROUNDS, tell)

        fast = take_turns(alone, engine, systems[:2], [SHORT], PAIRS, tell)
        streams = turns(systems[:3], STREAMS)
        strict = turns([systems[2]], SATURATION)
        rate = SHARE * median(fast.values(FULL, "saturation", "per_s"))
        for _ in range(3):  # nearer each time
            cell = Cell("load", f"{rate:,.0f}/s", 64, 5, rate=round(rate))
            seen = take_turns(alone, engine, [systems[1]], [cell], LOOKS, tell)
            rate = SHARE * 1e6 / median(seen.values(FULL, "load", "cpu_us"))
        busy = Cell("busy", f"{rate:,.0f}/s", 64, 5, rate=round(rate))
        beside = turns(systems[:2], busy)
        shipped = turns([systems[0], systems[3]], SATURATION)
    _judge(result, Seen(fast, streams, strict, beside), rate)
    speeds = _ratios(*(shipped.values(name, "saturation", "per_s") for name in (SHIPPED, OFF)))
    added = shipped.added(SHIPPED, OFF, "saturation", "cpu_us")
    result.figure(f"{SHIPPED}: saturation over capture off", told(speeds, digits=3))
    result.figure(f"{SHIPPED}: CPU of the gateway a request, added", told(added, " µs", digits=1))
    return result


class Alone:
    """A load that stops (SIGSTOP) every system but the one before which it is, with all that belongs to them:
    several gateways and their databases, idle as they are, take milliseconds of the core from each other.
    """

    def __init__(self, load: CLoad, systems: Sequence[System]) -> None:
        self._load = load
        self._systems = systems

    def mock(self, port: int) -> Pinned:
        return self._load.mock(port)

    def run(self, mock_port: int, cell: Cell, system: System) -> Figures:
        others = [each for other in self._systems if other.name != system.name for each in _family(other)]
        _each(others, psutil.Process.suspend)
        try:
            time.sleep(SETTLE_S)
            return self._load.run(mock_port, cell, system)
        finally:
            _each(others, psutil.Process.resume)


def _each(processes: Sequence[psutil.Process], do: Callable[[psutil.Process], None]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # a backend of Postgres that has ended meanwhile
            do(process)


def _family(system: System) -> list[psutil.Process]:
    gateway = psutil.Process(system.pid)
    return [gateway, *gateway.children(recursive=True)]


@dataclass(frozen=True, slots=True)
class Seen:
    """What each part of the proof measured."""

    fast: Results
    streams: Results
    strict: Results
    busy: Results


def tell(line: str) -> None:
    print(f"  {line}", flush=True)


def _unpin_shipper(system: System, cores: frozenset[int]) -> None:
    assert system.pid is not None
    for child in psutil.Process(system.pid).children(recursive=True):
        if "gateway.traffic.ship" in child.cmdline():
            for task in Path(f"/proc/{child.pid}/task").iterdir():
                os.sched_setaffinity(int(task.name), cores)


def _judge(result: Result, seen: Seen, rate: float) -> None:
    for name in (OFF, FULL):
        result.figure(f"{name}: requests/s", told(seen.fast.values(name, "saturation", "per_s")))
        spent = seen.fast.values(name, "saturation", "cpu_us")
        result.figure(f"{name}: CPU a request", told(spent, " µs", digits=1))
    for name in (OFF, FULL, STRICT):
        spent = seen.streams.values(name, "streams", "cpu_us")
        result.figure(f"{name}: CPU a chunk", told(spent, " µs", digits=1))
        result.figure(f"{name}: resident, most", f"{seen.streams.memory[name].most / 1e6:.0f} MB")
    speeds = _ratios(*(seen.fast.values(name, "saturation", "per_s") for name in (FULL, OFF)))
    result.must(
        "full capture: saturation ≥ 0.90 of capture off", median(speeds) >= 0.90, told(speeds, digits=3)
    )
    a_request = seen.fast.added(FULL, OFF, "saturation", "cpu_us")
    a_chunk = seen.streams.added(FULL, OFF, "streams", "cpu_us")
    for added, what, most in ((a_request, "request", 8.0), (a_chunk, "chunk", 2.0)):
        result.must(
            f"full capture: ≤ {most:g} µs of CPU a {what}",
            median(added) <= most,
            told(added, " µs", digits=1),
        )
    for name in (OFF, FULL):
        p50, p99 = (told(seen.busy.values(name, "busy", each), " µs") for each in ("p50", "p99"))
        core = median(seen.busy.values(name, "busy", "cpu_us")) * rate / 1e6
        result.figure(f"{name}: at {rate:,.0f} requests/s", f"p50 {p50}, p99 {p99}, {core:.0%} of the core")
    slower = seen.busy.added(FULL, OFF, "busy", "p99")
    result.must(
        f"full capture: p99 within 0.3 ms at {SHARE:.0%} load", median(slower) <= 300, told(slower, " µs")
    )
    strict = seen.strict.values(STRICT, "saturation", "per_s")
    result.must("strict redaction: ≥ 5,000 requests/s", median(strict) >= 5000, told(strict))


def _ratios(one: Sequence[float], other: Sequence[float]) -> list[float]:
    return [left / right for left, right in zip(one, other, strict=True)]
