"""How well the generator kept its own schedule: a run that it did not keep says nothing about the server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loadtests.scenario import Client

STARVED = 0.05
"""The share of the time without a core from which on that is named as the reason for lateness."""


@dataclass(frozen=True, slots=True)
class Generator:
    """Seconds. `lag_...` is from when a request was due to when the generator took it up, of all of them.

    `turn_...` is how late its event loop was for a clock that strikes 20 times a second: it tells of one too
    busy to stamp what arrives, also when nothing is due. `cpu_share` is of one core (1 is all of it).
    `starved_share` of the time it could have run but other processes had the core (Linux; else 0).
    `most_open` requests were in flight at once. Of several processes, `turn_...` and both shares are the
    worst one's, and `most_open` is the sum of each one's most.

    `dropped` sends found `client.max_open` in flight, or no file descriptor left. `saturated`: the run cannot
    be trusted. `why` says why, or that sends were dropped; it is "" when there is nothing to say.
    """

    processes: int
    lag_p50: float
    lag_p99: float
    lag_max: float
    turn_p99: float
    turn_max: float
    cpu_share: float
    starved_share: float
    most_open: int
    dropped: int
    out_of_files: int
    saturated: bool
    why: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Kept:
    """What one process saw of itself; `judge` makes a `Generator` of these."""

    lags: Sequence[float]
    turns: Sequence[float]
    cpu_share: float
    starved_share: float
    most_open: int
    dropped: int
    out_of_files: int


def judge(kept: Sequence[Kept], client: Client) -> Generator:
    """The generator of a run in numbers, and whether it was saturated under the bounds of `client`."""
    lags = np.concatenate([np.asarray(one.lags, np.float64) for one in kept])
    lag = _percentiles(lags)
    turn = tuple(
        max(each) for each in zip(*(_percentiles(np.asarray(one.turns)) for one in kept), strict=True)
    )
    out_of_files = sum(one.out_of_files for one in kept)
    dropped = sum(one.dropped for one in kept)
    starved = max(one.starved_share for one in kept)
    more = "use more processes, a faster machine or a lower rate"
    if starved > STARVED:
        more = f"other processes had its core {starved:.0%} of the time: give it one of its own (taskset)"
    reasons = []
    if lag[1] > client.max_lag_s:
        reasons.append(
            f"the generator was late: p99 of its lag was {lag[1] * 1e3:.1f} ms, and client.max_lag_s allows "
            f"{client.max_lag_s * 1e3:g} ms; {more}"
        )
    if turn[1] > client.max_lag_s:
        reasons.append(
            f"the generator was too busy to stamp arrivals: its loop was {turn[1] * 1e3:.1f} ms late at p99, "
            f"and client.max_lag_s allows {client.max_lag_s * 1e3:g} ms; {more}"
        )
    if out_of_files:
        reasons.append(
            f"{out_of_files} sends were dropped because the generator may not open more files; "
            "raise the limit (ulimit -n) or use more processes"
        )
    saturated = bool(reasons)
    if dropped > out_of_files:
        reasons.append(
            f"{dropped - out_of_files} sends were dropped: client.max_open = {client.max_open} were in flight"
        )
    return Generator(
        processes=len(kept),
        lag_p50=lag[0],
        lag_p99=lag[1],
        lag_max=lag[2],
        turn_p99=turn[1],
        turn_max=turn[2],
        cpu_share=max(one.cpu_share for one in kept),
        starved_share=starved,
        most_open=sum(one.most_open for one in kept),
        dropped=dropped,
        out_of_files=out_of_files,
        saturated=saturated,
        why="; ".join(reasons),
    )


def _percentiles(values: Any) -> tuple[float, float, float]:
    if not len(values):
        return 0.0, 0.0, 0.0
    p50, p99, most = np.percentile(values, (50, 99, 100))
    return float(p50), float(p99), float(most)


def starved_s() -> float:
    """Seconds for which this thread could have run and had no core (Linux, schedstat; elsewhere 0)."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0
