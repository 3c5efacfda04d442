from __future__ import annotations

import pytest

from gateway.fleet.drain import Drain


def test_before_anything_was_measured_a_request_is_taken_to_last_five_seconds() -> None:
    assert 10 / 5 == Drain().rate(now=0.0, left=0, in_flight=10)
    assert (19 + 1) / (10 / 5) == Drain().retry_after_s(19, now=0.0, left=0, in_flight=10)


def test_an_idle_engine_is_guessed_to_let_one_request_go_in_five_seconds() -> None:
    assert 1 / 5 == Drain().rate(now=0.0, left=0, in_flight=0)


def test_after_a_second_of_waiting_only_what_was_measured_counts() -> None:
    drain = Drain()
    drain.busy(100.0, left=1000)
    assert pytest.approx(30.0) == drain.rate(102.0, left=1060, in_flight=1)
    assert pytest.approx(2.0) == drain.retry_after_s(59, 102.0, left=1060, in_flight=1)


def test_a_fresh_measurement_is_filled_up_with_the_guess_to_one_second() -> None:
    drain = Drain()
    drain.busy(0.0, left=0)
    assert pytest.approx(0.5 * 30 + 0.5 * 2, rel=0.02) == drain.rate(0.5, left=15, in_flight=10)


def test_what_leaves_while_nobody_waits_does_not_count() -> None:
    drain = Drain()
    drain.busy(0.0, left=0)
    drain.idle(2.0, left=20)
    drain.busy(3600.0, left=50_000)
    assert pytest.approx(10.0) == drain.rate(3600.0, left=50_000, in_flight=1)


def test_half_a_minute_after_an_engine_slows_down_the_rate_is_near_the_new_one() -> None:
    drain = Drain()
    drain.busy(0.0, left=0)
    drain.busy(60.0, left=6000)
    assert 10.0 < drain.rate(90.0, left=6030, in_flight=1) < 30.0


def test_an_engine_that_lets_nobody_go_gives_the_longest_retry_after() -> None:
    drain = Drain()
    drain.busy(0.0, left=7)
    assert 120.0 == drain.retry_after_s(0, 60.0, left=7, in_flight=1)


def test_a_retry_after_is_never_below_a_second_nor_above_two_minutes() -> None:
    drain = Drain()
    drain.busy(0.0, left=0)
    assert 1.0 == drain.retry_after_s(0, 10.0, left=1000, in_flight=1)
    assert 120.0 == drain.retry_after_s(1_000_000, 10.0, left=1000, in_flight=1)
