"""A server that stalls shows up in our p99 as it must; in closed loop it does not, so that is no default.

The same as `make prove`'s `stall`, with the time five times shorter.
"""

from __future__ import annotations

import pytest

from loadtests.sample import Outcome
from tests.loadtests.stalling import Stalls, in_closed_loop, in_open_loop, p99

FULL = Stalls(answer_s=0.02, stall_s=2.0, period_s=10.0)
SHORT = Stalls(answer_s=0.004, stall_s=0.4, period_s=2.0)


def test_the_quantile_is_that_of_the_latencies_over_a_period() -> None:
    steps = 100_000
    latencies = sorted(FULL.answered(i * 10 / steps, 0.0) - i * 10 / steps for i in range(steps))
    for share in (0.5, 0.8, 0.9, 0.99, 0.999):
        assert latencies[round(share * steps)] == pytest.approx(FULL.latency(share), abs=0.001)
    assert 1.92 == pytest.approx(FULL.latency(0.99))


def test_an_open_loop_shows_the_stall_and_a_closed_one_does_not() -> None:
    opened = in_open_loop(SHORT, rate=250, periods=2)
    assert {Outcome.OK} == {sample.outcome for sample in opened.samples}
    assert p99(opened) == pytest.approx(SHORT.latency(0.99), rel=0.05)

    closed = in_closed_loop(SHORT, clients=1, periods=2)
    assert {Outcome.OK} == {sample.outcome for sample in closed.samples}
    assert len(closed.samples) > 500
    assert p99(closed) < SHORT.latency(0.99) / 10
