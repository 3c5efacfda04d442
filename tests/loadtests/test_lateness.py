"""When a run cannot be trusted, and what it says of that."""

from __future__ import annotations

from dataclasses import replace

import pytest

from loadtests.lateness import Kept, judge
from loadtests.scenario import Client

GOOD = Kept(
    lags=[0.001] * 100,
    turns=[0.0005] * 50,
    cpu_share=0.2,
    starved_share=0.0,
    most_open=7,
    dropped=0,
    out_of_files=0,
)


def test_a_generator_in_time_has_nothing_to_say() -> None:
    found = judge([GOOD], Client())
    assert (False, "") == (found.saturated, found.why)
    assert (0.001, 0.0005, 7) == (found.lag_p99, found.turn_p99, found.most_open)


@pytest.mark.parametrize(
    ("kept", "why"),
    [
        (
            replace(GOOD, lags=[0.03] * 100),
            "the generator was late: p99 of its lag was 30.0 ms, and client.max_lag_s allows 10 ms; use more",
        ),
        (
            replace(GOOD, lags=[0.03] * 100, starved_share=0.4),
            "the generator was late: p99 of its lag was 30.0 ms, and client.max_lag_s allows 10 ms; other "
            "processes had its core 40% of the time",
        ),
        (
            replace(GOOD, turns=[0.02] * 50),
            "the generator was too busy to stamp arrivals: its loop was 20.0 ms late",
        ),
        (
            replace(GOOD, dropped=3, out_of_files=3),
            "3 sends were dropped because the generator may not open more",
        ),
    ],
)
def test_a_saturated_generator_says_why(kept: Kept, why: str) -> None:
    found = judge([kept], Client())
    assert found.saturated
    assert found.why.startswith(why)


def test_drops_at_the_most_open_are_said_and_are_not_the_generators() -> None:
    found = judge([replace(GOOD, dropped=5)], Client(max_open=100))
    assert (False, "5 sends were dropped: client.max_open = 100 were in flight") == (
        found.saturated,
        found.why,
    )


def test_of_several_processes_lags_are_pooled_and_the_rest_is_the_worst() -> None:
    late = replace(GOOD, lags=[0.005] * 300, turns=[0.002], cpu_share=0.9, most_open=3)
    found = judge([GOOD, late], Client())
    assert (2, 0.005, 0.002, 0.9, 10) == (
        found.processes,
        found.lag_p50,
        found.turn_p99,
        found.cpu_share,
        found.most_open,
    )


def test_a_run_of_nothing_was_not_late() -> None:
    found = judge([replace(GOOD, lags=[], turns=[])], Client())
    assert (0.0, 0.0, False) == (found.lag_p99, found.turn_p99, found.saturated)
