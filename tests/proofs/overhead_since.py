"""Is the gateway as fast as the build whose `overhead` page held every line of speed? They take turns.

Machines differ by days: the same build did 23,679 requests a second on one and 20,600 on another. A ratio of
builds that take turns says what code changed.
"""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from pathlib import Path

from loadtests.overhead.bench import CLoad, take_turns, told
from loadtests.overhead.cells import CELLS
from loadtests.overhead.processes import Cores, free_port
from loadtests.overhead.systems import DIRECT, NOTHING_REMEMBERED, System, hotswap
from loadtests.overhead.yardstick import MODEL, Yardstick
from tests.proofs.result import Result, median

NEEDS = "tools"
ROUNDS = 7
THEN = "59e543d"
"""Its page (docs/proofs/overhead.md of 2026-11-24) held all lines but the one of memory."""
OLD, NEW = "then", "now"
ROOT = Path(__file__).parents[2]
BOUNDS = (
    ("saturation", "per_s", "requests a second", 0.95, float("inf")),
    ("sequential", "p50", "p50 of one after the other", 0.0, 1.05),
    ("streams-200", "cpu_us", "CPU a chunk", 0.0, 1.05),
    ("streams-200", "ttft_p50", "TTFT p50", 0.0, 1.1),
)
FIGURES = (("saturation", "p99"), ("streams-200", "ttft_p99"), ("streams-200", "gap_p99"))


def prove(folder: Path, base: Path, tools: Path) -> Result:
    result = Result(
        "overhead_since",
        f"The overhead proof's cells, with `{OLD}`, commit {THEN}, on whose page every line of speed held, "
        f"and `{NEW}`, by turns on this machine today. {ROUNDS} rounds; medians (lowest to highest), and the "
        f"median of the rounds' ratios {NEW} / {OLD}.",
    )
    old = folder / "old"
    subprocess.run(["git", "clone", "--quiet", "--shared", str(ROOT), str(old)], check=True)
    subprocess.run(["git", "-C", str(old), "checkout", "--quiet", THEN], check=True)
    cores = Cores.choose()
    load = CLoad(Yardstick(tools, folder, cores))
    wanted = {cell for cell, *_ in (*BOUNDS, *FIGURES)}
    with ExitStack() as stack:
        engine = free_port()
        stack.enter_context(load.mock(engine))
        systems = [System(DIRECT, engine, MODEL)]
        for name, source in ((OLD, old), (NEW, ROOT)):
            place = folder / name
            place.mkdir()
            settings = {**NOTHING_REMEMBERED, "PYTHONPATH": str(source)}
            systems.append(
                stack.enter_context(hotswap(engine, MODEL, place, cores, name=name, settings=settings))
            )
        cells = [cell for cell in CELLS if cell.name in wanted]
        found = take_turns(load, engine, systems, cells, ROUNDS, lambda line: print(f"  {line}", flush=True))
    for cell, figure, says, least, most in BOUNDS:
        before, now = (found.values(name, cell, figure) for name in (OLD, NEW))
        ratios = [one / other for one, other in zip(now, before, strict=True)]
        bound = f">= {least:g}" if least else f"<= {most:g}"
        result.must(
            f"{cell}, {says}: {NEW} / {OLD} {bound}",
            least <= median(ratios) <= most,
            f"{told(ratios, digits=3)}: {told(before, digits=1)} then, {told(now, digits=1)} now",
        )
    for cell, figure in FIGURES:
        for name in (DIRECT, OLD, NEW):
            result.figure(f"{cell}, {name}, {figure} us", told(found.values(name, cell, figure)))
    for name in (OLD, NEW):
        result.figure(f"{name}: resident, most", f"{found.memory[name].most / 1e6:.0f} MB")
    return result
