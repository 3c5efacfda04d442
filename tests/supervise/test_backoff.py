from __future__ import annotations

from gateway.supervise.backoff import Backoff


def test_each_failed_start_doubles_the_wait_up_to_half_a_minute() -> None:
    backoff = Backoff()
    assert [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0] == [backoff.next_s(0.0) for _ in range(8)]


def test_a_run_that_was_well_for_a_minute_begins_again_at_half_a_second() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.next_s(0.0)
    assert 0.5 == backoff.next_s(60.0)


def test_a_run_that_was_well_for_less_than_a_minute_does_not() -> None:
    backoff = Backoff()
    backoff.next_s(0.0)
    assert 1.0 == backoff.next_s(59.0)
