"""A server that pauses 2 s each 10 s shows up in an open loop's p99 as it must; a closed loop hides it."""

from __future__ import annotations

from pathlib import Path

from tests.loadtests.stalling import Stalls, in_closed_loop, in_open_loop, p99
from tests.proofs.result import Result

STALLS = Stalls(answer_s=0.02, stall_s=2.0, period_s=10.0)
RATE, CLIENTS, PERIODS = 100.0, 2, 3


def prove(folder: Path, base: Path, data: Path | None) -> Result:
    result = Result(
        "stall",
        "A server answers in 20 ms, but nothing for 2 s of each 10 s. Of requests due at even times, the "
        "p-quantile of the latency from when they were due is 0.02 + max(0, 2 - (1 - p) x 10) s. In closed "
        "loop nobody asks while the server is silent, so hardly any request meets the stall.",
    )
    opened = in_open_loop(STALLS, RATE, PERIODS)
    closed = in_closed_loop(STALLS, CLIENTS, PERIODS)
    analytic = STALLS.latency(0.99)
    result.figure("open loop", f"{len(opened.samples)} requests at {RATE:g} a second, {PERIODS} periods")
    result.figure("closed loop", f"{len(closed.samples)} requests of {CLIENTS} clients, {PERIODS} periods")
    result.figure("p99 by the formula", f"{analytic:.3f} s")
    result.figure("lag of the generator, p99", f"{opened.generator.lag_p99 * 1e3:.2f} ms")
    result.must(
        "the open loop's p99 is the formula's within 5 %",
        abs(p99(opened) / analytic - 1) <= 0.05,
        f"{p99(opened):.3f} s",
    )
    result.must(
        "the closed loop's p99 does not show the stall: below 0.1 s",
        p99(closed) < 0.1,
        f"{p99(closed):.3f} s",
    )
    result.must(
        "every request was answered, and the generator kept its schedule",
        all(sample.ok for sample in (*opened.samples, *closed.samples)) and not opened.generator.saturated,
        opened.generator.why or "yes",
    )
    return result
