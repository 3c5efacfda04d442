"""The overhead bench: its arithmetic, what it refuses, and one turn of it for real."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from loadtests.overhead.bench import Memory, Results, told
from loadtests.overhead.cells import CELLS, Cell, Figures
from loadtests.overhead.processes import CannotBench, Cores, Pinned, free_port
from loadtests.overhead.systems import System
from loadtests.overhead.verdict import bounds, table
from loadtests.overhead.whole import overhead, two_workers
from loadtests.overhead.yardstick import Yardstick, arguments, figures


def of(**given: Any) -> Figures:
    return Figures(**{"answered": 10, "errors": 0, "per_s": 1.0, **given})


def results(*rounds: tuple[Figures, Figures], cell: str = "sequential", rss: int = 100_000_000) -> Results:
    """Rounds of (direct, hotswap) in one cell."""
    return Results(
        [{"direct": {cell: direct}, "hotswap": {cell: ours}} for direct, ours in rounds],
        {"hotswap": Memory(rss, rss)},
    )


def held(found: Results) -> dict[str, bool]:
    return {bound.line: bound.held for bound in bounds(found)}


def test_a_median_over_the_bound_fails_and_one_slow_round_does_not() -> None:
    line = "sequential p50 <= 190 us"
    ours = [150.0, 180.0, 900.0]
    assert held(results(*((of(p50=14.0), of(p50=p)) for p in ours)))[line]
    assert not held(results(*((of(p50=14.0), of(p50=p + 50)) for p in ours)))[line]


def test_what_is_added_is_the_difference_within_each_round() -> None:
    found = results((of(p50=10.0), of(p50=110.0)), (of(p50=500.0), of(p50=620.0)))
    assert [100.0, 120.0] == found.added("hotswap", "direct", "sequential", "p50")


def test_one_late_chunk_in_one_round_is_a_late_chunk() -> None:
    line = "2,000 streams, 100 ms: no chunk late by more than 50 ms"
    rounds = [(of(late_max=1e3), of(late_max=2e4))] * 4
    assert held(results(*rounds, cell="streams-2000"))[line]
    assert not held(results(*rounds, (of(late_max=1e3), of(late_max=50_001.0)), cell="streams-2000"))[line]


def test_errors_and_memory_are_judged_too() -> None:
    good = held(results((of(), of())))
    assert good["no errors in any cell"] and good["RSS < 150 MB after all cells"]
    bad = held(results((of(), of(errors=1)), rss=150_000_000))
    assert not bad["no errors in any cell"] and not bad["RSS < 150 MB after all cells"]


def test_a_figure_that_is_missing_holds_nothing() -> None:
    assert not held(results((of(), of())))["sequential p50 <= 190 us"]


def test_the_table_has_every_figure_once() -> None:
    shown = list(table(results((of(p50=14.0), of(p50=150.0)))))
    assert ("sequential", "hotswap", "p50 us", "150 (150 to 150)") in shown
    assert len(shown) == len(set(shown)) == 4


def test_told_is_the_median_with_the_lowest_and_the_highest() -> None:
    assert "2.0 ms (1.0 to 9.0)" == told([1, 9, 2], " ms", digits=1)
    assert "none" == told([])


def test_cpu_is_counted_for_each_chunk_of_streams_and_for_each_request_otherwise() -> None:
    spread = {"n": 1, "p50": 1.0, "p99": 2.0, "max": 3.0}
    empty = {"n": 0}
    printed = {
        "ok": 5, "okall": 10, "err": 1, "stuck": 2, "noDone": 3, "rps": 5.0, "cps": 7.0, "chunksall": 100,
        "lat": spread, "ttft": spread, "gap": spread, "oneway": empty,
    }  # fmt: skip
    whole = figures(Cell("a", "", 1, 1.0), printed, 0.001)
    streams = figures(Cell("a", "", 1, 1.0, chunks=4), printed, 0.001)
    assert (100.0, 5.0, 6) == (whole.cpu_us, whole.per_s, whole.errors)
    assert (10.0, 7.0, None) == (streams.cpu_us, streams.per_s, streams.late_max)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_a_cells_load_is_what_it_says(cell: Cell) -> None:
    words = arguments(cell, 9200, "hs-key", "mock")
    assert str(cell.connections) == words[words.index("-c") + 1]
    assert cell.streams == ("-S" in words)
    assert (cell.rate is not None) == ("-r" in words)
    # A stream that begins at the very end must end within the 8 s for which the generator waits.
    assert cell.chunks * cell.delay_ms / 1000 < 8


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "x=",
        "x=http://10.0.0.1:80",
        "x=http://127.0.0.1",
        "=http://127.0.0.1:80",
        "x=http://127.0.0.1:80@a",
    ],
)
def test_another_gateway_must_be_named_and_on_loopback(text: str) -> None:
    with pytest.raises(CannotBench, match=r"127|process id"):
        System.parse(text, "mock", None)


def test_another_gateway_may_name_its_process() -> None:
    assert System("x", 80, "m", "k", 42) == System.parse("x=http://127.0.0.1:80@42", "m", "k")
    assert System("x", 80, "m") == System.parse("x=http://localhost:80", "m", None)


def test_tools_without_sources_are_an_error_that_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CannotBench, match=r"mock\.c"):
        Yardstick(tmp_path, tmp_path, Cores(frozenset({0}), frozenset({1})))


def test_an_unknown_cell_names_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(CannotBench, match="sequential"):
        overhead(tmp_path, tools=None, rounds=1, cells=["nothing"])


def test_a_process_that_ends_at_once_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    command = ["sh", "-c", "echo no such flag >&2; exit 3"]
    url = f"http://127.0.0.1:{free_port()}/"
    with (
        pytest.raises(CannotBench, match="no such flag"),
        Pinned(command, frozenset(os.sched_getaffinity(0)), tmp_path / "log", url),
    ):
        pass


def test_two_cores_cannot_tell_what_two_workers_bring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    assert two_workers(tmp_path, tools=tmp_path, rounds=1, tell=print) is None


def test_a_turn_with_the_fake_engine_measures_direct_and_hotswap(tmp_path: Path) -> None:
    told_: list[str] = []
    found = overhead(tmp_path, tools=None, rounds=1, cells=["rate-100"], control=False, tell=told_.append)
    direct, ours = (found.rounds[0][name]["rate-100"] for name in ("direct", "hotswap"))
    assert (400, 0) == (direct.answered, direct.errors) == (ours.answered, ours.errors)
    assert direct.cpu_us is None and ours.cpu_us is not None and ours.cpu_us > 0
    assert found.memory["hotswap"].after > 20e6
    assert 2 == len(told_)
