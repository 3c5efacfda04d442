"""What must hold of the gateway, judged on results; and the results as tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from loadtests.overhead.bench import Results, told
from loadtests.overhead.cells import BESIDE, CELLS
from loadtests.overhead.systems import DIRECT, OURS

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Bound:
    """One line that must hold, and what was measured."""

    line: str
    held: bool
    measured: str


def bounds(results: Results, ours: str = OURS) -> Iterator[Bound]:
    """Every bound whose cell was run. Each compares a median over rounds, but for lateness: there every round
    counts, because one late chunk is a late chunk.
    """
    ran = set(results.rounds[0][ours]) if results.rounds else set()

    def least(line: str, values: Sequence[float], bound: float, unit: str) -> Bound:
        return Bound(line, bool(values) and median(values) >= bound, told(values, unit))

    def most(line: str, values: Sequence[float], bound: float, unit: str, digits: int = 0) -> Bound:
        return Bound(line, bool(values) and median(values) <= bound, told(values, unit, digits=digits))

    def added(cell: str, figure: str) -> list[float]:
        return [value / 1000 for value in results.added(ours, DIRECT, cell, figure)]

    if "saturation" in ran:
        values = results.values(ours, "saturation", "per_s")
        yield least("64 connections: >= 22,000 requests/s", values, 22_000, "/s")
    if "sequential" in ran:
        values = results.values(ours, "sequential", "p50")
        yield most("sequential p50 <= 190 us", values, 190, " us")
    if "streams-200" in ran:
        values = results.values(ours, "streams-200", "cpu_us")
        yield most("200 streams, 10 ms: <= 26 us CPU a chunk", values, 26, " us", 1)
        yield most("200 streams: added TTFT p99 <= 1 ms", added("streams-200", "ttft_p99"), 1.0, " ms", 2)
        yield most(
            "200 streams: p99 between chunks within 1 ms of direct",
            added("streams-200", "gap_p99"),
            1,
            " ms",
            2,
        )
    if "streams-2000" in ran:
        late = [value / 1000 for value in results.values(ours, "streams-2000", "late_max")]
        held = bool(late) and max(late) <= 50
        yield Bound(
            "2,000 streams, 100 ms: no chunk late by more than 50 ms", held, told(late, " ms", digits=1)
        )
    if "prompt-400k" in ran:
        yield most("400 KB prompt: <= 3 ms added", added("prompt-400k", "p50"), 3.0, " ms", 2)
    if BESIDE.name in ran:
        late = [value / 1000 for value in results.values(ours, BESIDE.name, "late_max")]
        line = "beside 400 KB prompts: no stream stalls above 5 ms"
        yield Bound(line, bool(late) and median(late) <= 5, told(late, " ms", digits=1))
    if ours in results.memory:
        memory = results.memory[ours]
        measured = f"{memory.after / MIB:.0f} MiB after all cells, {memory.most / MIB:.0f} at most"
        yield Bound("RSS < 150 MB after all cells", memory.after < 150e6, measured)
    errors = sum(
        cell.errors for round_ in results.rounds for cells in round_.values() for cell in cells.values()
    )
    yield Bound("no errors in any cell", errors == 0, f"{errors}")


FIGURES = (
    ("per_s", "a second", 1.0, 0),
    ("p50", "p50 us", 1.0, 0),
    ("p99", "p99 us", 1.0, 0),
    ("ttft_p50", "TTFT p50 us", 1.0, 0),
    ("ttft_p99", "TTFT p99 us", 1.0, 0),
    ("gap_p99", "gap p99 us", 1.0, 0),
    ("late_p50", "late p50 us", 1.0, 0),
    ("late_p99", "late p99 us", 1.0, 0),
    ("late_max", "late max us", 1.0, 0),
    ("cpu_us", "CPU us", 1.0, 1),
)


def table(results: Results) -> Iterator[tuple[str, str, str, str]]:
    """(cell, system, figure, `median (lowest to highest)`), for every figure that there is."""
    for cell in (*CELLS, BESIDE):
        for system in results.rounds[0]:
            for figure, shown, scale, digits in FIGURES:
                values = results.values(system, cell.name, figure)
                if values:
                    yield cell.name, system, shown, told(values, scale=scale, digits=digits)
