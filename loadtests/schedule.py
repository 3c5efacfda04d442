"""When each request or session of a run begins, on which route, and in which phase."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from loadtests import traces
from loadtests.arrivals import Arrivals, Closed, Trace
from loadtests.mixes import Mix
from loadtests.scenario import WARMUP, Scenario
from loadtests.streams import stream


@dataclass(frozen=True, slots=True)
class Start:
    """`at` is seconds from the start of the run; `row` is the trace's, where there is one."""

    at: float
    route: str
    row: traces.Row | None = None


@dataclass(frozen=True, slots=True)
class _Stretch:
    """A part of the run with arrivals and routes of its own, from `start` to `end`. A ramp holds for
    `hold_s`."""

    start: float
    end: float
    arrivals: Arrivals
    routes: Mix
    hold_s: float


def starts(scenario: Scenario) -> list[Start]:
    """What begins, in order. Raises `ScenarioError` for a trace that is missing or wrong."""
    found: list[Start] = []
    for number, stretch in enumerate(_stretches(scenario)):
        times, rows = _times(stretch, scenario.seed, number)
        positions = stretch.routes.draw(stream(scenario.seed, f"routes/{number}"), len(times)).tolist()
        routes = stretch.routes.routes
        found += [Start(at, routes[k], row) for at, k, row in zip(times, positions, rows, strict=True)]
    return found


def phases(scenario: Scenario) -> tuple[list[float], list[str]]:
    """When each phase begins, ascending from 0, and its name: `phase_at` reads them."""
    lengths = scenario.phase_seconds
    begins = [round(at, 6) for at in accumulate(lengths.values(), initial=0.0)]
    return begins[:-1], list(lengths)


def phase_at(at: float, begins: list[float], names: list[str]) -> str:
    """The name of the phase that a request due at `at` is part of: it holds its beginning, not its end."""
    return names[bisect_right(begins, at) - 1]


def _stretches(scenario: Scenario) -> Iterator[_Stretch]:
    if not scenario.phases:
        yield _Stretch(0.0, scenario.total_s, scenario.arrivals, scenario.routes, scenario.warmup_s)
        return
    begins, names = phases(scenario)
    ends = [*begins[1:], scenario.total_s]
    if names[0] == WARMUP:
        yield _Stretch(0.0, ends[0], scenario.arrivals, scenario.routes, scenario.warmup_s)
        begins, ends = begins[1:], ends[1:]
    for phase, start, end in zip(scenario.phases, begins, ends, strict=True):
        yield _Stretch(start, end, phase.arrivals or scenario.arrivals, phase.routes or scenario.routes, 0.0)


def _times(stretch: _Stretch, seed: int, number: int) -> tuple[list[float], list[traces.Row | None]]:
    """When requests are due, rounded to the microsecond: a time that rounds up to the end is left out."""
    seconds = stretch.end - stretch.start
    if isinstance(stretch.arrivals, Closed):
        n = stretch.arrivals.warmup_requests + stretch.arrivals.requests
        return [0.0] * n, [None] * n
    rows: list[traces.Row] = []
    if isinstance(stretch.arrivals, Trace):
        rows = traces.read(stretch.arrivals, seconds)
        offsets = np.array([row.at for row in rows])
    else:
        offsets = stretch.arrivals.offsets(stream(seed, f"arrivals/{number}"), seconds, stretch.hold_s)
    times = np.round(stretch.start + offsets, 6)
    kept = int(np.searchsorted(times, stretch.end))
    return times[:kept].tolist(), [*rows[:kept]] if rows else [None] * kept
