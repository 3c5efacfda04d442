"""The fake engine and this package's own generator as a `Load`: no compiler needed, and less exact.

Both are Python and share a core, so they are the bottleneck long before a gateway is. Only differences at low
rates say something; there is no lateness of single chunks, because the fake engine does not stamp them.
"""

from __future__ import annotations

import asyncio
import os
import sys
import urllib.request
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import uvloop

from loadtests.drive import Target, drive
from loadtests.overhead.bench import cpu_s
from loadtests.overhead.cells import Cell, Figures
from loadtests.overhead.processes import Cores, Pinned
from loadtests.overhead.systems import System
from loadtests.percentiles import quantile
from loadtests.plan import plan
from loadtests.sample import Sample
from loadtests.scenario import Scenario

TOKENS = 64
MOST_REQUESTS = 200_000
"""Of a closed loop: more than it can send in the seconds of a cell."""

CELLS = (
    Cell("sequential", "one request after the other", 1, 4),
    Cell("rate-100", "100 requests/s, from the scheduled instant", 64, 4, rate=100),
    Cell("streams-50", "50 streams, 10 ms between chunks", 50, 4, chunks=TOKENS, delay_ms=10),
)


class OwnLoad:
    """Runs cells with `loadtests.drive` on the load's core."""

    def __init__(self, model: str, folder: Path, cores: Cores) -> None:
        self._model = model
        self._folder = folder
        self._cores = cores

    def mock(self, port: int) -> Pinned:
        """The fake engine, while a `with` lasts."""
        command = [sys.executable, "-m", "gateway.cli", "fake-engine", "--port", str(port)]
        command += ["--model", self._model, "--token-delay-ms", "0"]
        url = f"http://127.0.0.1:{port}/health"
        return Pinned(command, self._cores.load, self._folder / "fake-engine.log", url)

    def run(self, mock_port: int, cell: Cell, system: System) -> Figures:
        _shape(mock_port, cell)
        target = Target(f"http://127.0.0.1:{system.port}", system.key)
        ours = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self._cores.load)
        before = cpu_s(system)
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                driven = runner.run(drive(plan(scenario(cell, system.model)), target))
        finally:
            os.sched_setaffinity(0, ours)
        after = cpu_s(system)
        return figures(cell, driven.samples, None if before is None or after is None else after - before)


def scenario(cell: Cell, model: str) -> Scenario:
    """The cell as a scenario for `plan`."""
    arrivals: dict[str, Any] = {"kind": "constant", "rate": cell.rate}
    if cell.rate is None:
        arrivals = {"kind": "closed", "concurrency": cell.connections, "requests": MOST_REQUESTS}
    words = max(1, cell.prompt_bytes // 6)
    return Scenario.model_validate(
        {
            "name": cell.name,
            "seconds": cell.seconds,
            "stream": cell.streams,
            "ignore_eos": True,
            "arrivals": arrivals,
            "routes": {"mix": "weights", "weights": {model: 1}},
            "prompts": {"kind": "lengths", "tokens": words},
            "output": TOKENS,
        }
    )


def figures(cell: Cell, samples: Sequence[Sample], spent_s: float | None) -> Figures:
    """Samples as the yardstick's figures: microseconds, of answers that were whole."""
    whole = [sample for sample in samples if sample.ok]
    chunks = sum(len(sample.arrivals) for sample in whole)
    gaps = [late - early for sample in whole for early, late in pairwise(sample.arrivals)]
    units = chunks if cell.streams else len(whole)
    return Figures(
        answered=len(whole),
        errors=len(samples) - len(whole),
        per_s=units / cell.seconds,
        p50=_us([sample.e2e for sample in whole], 0.5),
        p99=_us([sample.e2e for sample in whole], 0.99),
        ttft_p50=_us([sample.ttft for sample in whole], 0.5) if cell.streams else None,
        ttft_p99=_us([sample.ttft for sample in whole], 0.99) if cell.streams else None,
        gap_p99=_us(gaps, 0.99),
        cpu_us=None if spent_s is None or not units else spent_s / units * 1e6,
    )


def _us(seconds: Sequence[float | None], share: float) -> float | None:
    known = np.sort(np.array([value for value in seconds if value is not None], np.float64))
    return quantile(known, share) * 1e6 if known.size else None


def _shape(mock_port: int, cell: Cell) -> None:
    body = msgspec.json.encode({"token_delay_s": cell.delay_ms / 1000})
    request = urllib.request.Request(f"http://127.0.0.1:{mock_port}/fake/faults", body, method="POST")
    with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 (a URL of ours)
        answer.read()
