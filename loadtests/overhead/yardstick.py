"""The mock engine and the load generator in C, built from a folder with `mock.c` and `load.c`."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loadtests.overhead.cells import Cell, Figures
from loadtests.overhead.processes import CannotBench, Cores, Pinned, get

MODEL = "mock"
PATH = "/v1/chat/completions"
LATE_END_S = 30.0
"""After a cell's time is over the generator waits for what is still open; then it is given up."""


class Yardstick:
    """Builds the two programs into `folder`, and runs cells with them. Use `mock` around everything."""

    def __init__(self, tools: Path, folder: Path, cores: Cores) -> None:
        """Raises `CannotBench` when the sources or the compiler are missing."""
        self._cores = cores
        self._folder = folder
        self._programs = {name: _build(tools / f"{name}.c", folder / name) for name in ("mock", "load")}

    def mock(self, port: int) -> Pinned:
        """The engine, while a `with` lasts."""
        command = [str(self._programs["mock"]), str(port)]
        return Pinned(command, self._cores.load, self._folder / "mock.log", f"http://127.0.0.1:{port}/health")

    def shape(self, mock_port: int, cell: Cell) -> None:
        """Tells the mock how to stream."""
        query = f"chunks={max(cell.chunks, 1)}&delay_us={round(cell.delay_ms * 1000)}"
        get(f"http://127.0.0.1:{mock_port}/ctl?{query}")

    def start(self, cell: Cell, port: int, key: str | None, model: str) -> subprocess.Popen[str]:
        """The generator, running `cell`; `finish` waits for it."""
        command = [str(self._programs["load"]), *arguments(cell, port, key, model)]
        ours = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self._cores.load)
        try:
            return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        finally:
            os.sched_setaffinity(0, ours)

    def finish(self, cell: Cell, running: subprocess.Popen[str]) -> Mapping[str, Any]:
        """What the generator printed. Raises `CannotBench`."""
        try:
            output, _ = running.communicate(timeout=cell.warm_s + cell.seconds + LATE_END_S)
        except subprocess.TimeoutExpired:
            running.kill()
            running.communicate()
            raise CannotBench(f"the generator did not end its cell {cell.name}") from None
        if running.returncode:
            raise CannotBench(f"the generator failed in cell {cell.name} with status {running.returncode}")
        printed: dict[str, Any] = json.loads(output)
        return printed


def arguments(cell: Cell, port: int, key: str | None, model: str) -> Sequence[str]:
    """`load`'s command line for a cell. The key is a throw-away one of this bench: it may be seen."""
    words = ["-p", str(port), "-m", model, "-u", PATH, "-c", str(cell.connections)]
    words += ["-d", f"{cell.seconds:g}", "-w", f"{cell.warm_s:g}", "-b", str(cell.prompt_bytes)]
    if key:
        words += ["-k", key]
    if cell.rate:
        words += ["-r", f"{cell.rate:g}"]
    if cell.streams:
        words += ["-S", "-s", str(cell.stagger_ms)]
    return words


def figures(cell: Cell, printed: Mapping[str, Any], cpu_s: float | None) -> Figures:
    """The generator's line, and the CPU seconds of the gateway meanwhile, as figures."""

    def of(family: str, share: str) -> float | None:
        spread = printed[family]
        return float(spread[share]) if spread["n"] else None

    # Over all requests, the warm-up's too: CPU was counted over all of them.
    units = printed["chunksall"] if cell.streams else printed["okall"]
    return Figures(
        answered=printed["ok"],
        errors=printed["err"] + printed["stuck"] + printed["noDone"],
        per_s=printed["cps"] if cell.streams else printed["rps"],
        p50=of("lat", "p50"),
        p99=of("lat", "p99"),
        ttft_p50=of("ttft", "p50"),
        ttft_p99=of("ttft", "p99"),
        gap_p99=of("gap", "p99"),
        late_p50=of("oneway", "p50"),
        late_p99=of("oneway", "p99"),
        late_max=of("oneway", "max"),
        cpu_us=None if cpu_s is None or not units else cpu_s / units * 1e6,
    )


def _build(source: Path, program: Path) -> Path:
    if not source.is_file():
        raise CannotBench(f"there is no {source}; --tools names a folder with mock.c and load.c")
    command = ["gcc", "-O2", "-w", "-o", str(program), str(source)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise CannotBench("there is no gcc; install one, or leave --tools out") from None
    if done.returncode:
        raise CannotBench(f"{source} does not compile: {done.stderr.strip()[-500:]}")
    return program
