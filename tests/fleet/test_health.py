"""An engine that fails is left alone for a while, tried with one request, and led back slowly."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.fleet.health import FLOOR, Health, may_serve


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(clock=clock)


def ejected(clock: Clock) -> Health:
    health = Health(clock=clock)
    health.failed("connection refused", fatal=True)
    return health


def test_failures_below_the_limit_eject_nobody(health: Health) -> None:
    assert [False, False] == [health.failed("timeout") for _ in range(2)]
    assert health.ejected() is None


def test_the_third_failure_in_a_row_ejects_and_only_that_one_says_so(health: Health) -> None:
    assert [False, False, True, False] == [health.failed("timeout") for _ in range(4)]


def test_the_reason_tells_how_many_failures_and_what_the_last_one_was(health: Health) -> None:
    for reason in ("no first byte in 60 s", "no first byte in 60 s", "status 500"):
        health.failed(reason)
    assert "3 failures in a row; the last: status 500" == health.ejected()


def test_a_success_between_failures_begins_the_count_again(health: Health) -> None:
    health.failed("timeout")
    health.failed("timeout")
    health.succeeded()
    assert [False, False, True] == [health.failed("timeout") for _ in range(3)]


def test_a_fatal_failure_ejects_at_once_and_its_reason_counts_nothing(health: Health) -> None:
    assert health.failed("connection refused", fatal=True)
    assert "failed: connection refused" == health.ejected()


def test_after_its_time_it_is_on_probation_and_may_be_asked(clock: Clock) -> None:
    health = ejected(clock)
    clock.now += 1.999
    assert (True, False) == (health.ejected() is not None, health.probation)
    clock.now += 0.001
    assert (None, True) == (health.ejected(), health.probation)


def test_it_says_when_it_is_back(clock: Clock) -> None:
    health = ejected(clock)
    clock.now += 0.5
    assert 1.5 == health.back_in_s()
    clock.now += 7
    assert 0.0 == health.back_in_s()
    assert 0.0 == Health(clock=clock).back_in_s()


def test_one_failure_on_probation_ejects_again(clock: Clock) -> None:
    health = ejected(clock)
    clock.now += 2
    assert health.failed("status 500")
    assert "failed again on probation: status 500" == health.ejected()


def test_each_ejection_takes_twice_as_long_up_to_the_longest(clock: Clock, health: Health) -> None:
    took = []
    for _ in range(7):
        health.failed("connection refused", fatal=True)
        took.append(health.back_in_s())
        clock.now += took[-1]
    assert [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0] == took


def test_a_thousand_ejections_are_no_overflow(clock: Clock, health: Health) -> None:
    for _ in range(2000):
        health.failed("connection refused", fatal=True)
        clock.now += health.back_in_s()
    health.failed("connection refused", fatal=True)
    assert 60.0 == health.back_in_s()


def test_one_success_on_probation_clears_it(clock: Clock) -> None:
    health = ejected(clock)
    clock.now += 2
    health.succeeded()
    assert not health.probation
    assert [False, False, True] == [health.failed("timeout") for _ in range(3)]


def test_an_ejection_is_forgiven_after_ten_base_times_without_a_failure(clock: Clock, health: Health) -> None:
    for _ in range(3):
        health.failed("reset", fatal=True)
        clock.now += health.back_in_s()
        health.succeeded()
    assert 3 == health.ejections
    clock.now += 20
    assert 2 == health.ejections
    clock.now += 20
    health.failed("reset", fatal=True)
    assert 4.0 == health.back_in_s()  # the second that is remembered


def test_a_failure_in_between_begins_the_quiet_again(clock: Clock) -> None:
    health = ejected(clock)
    clock.now += 2
    health.succeeded()
    clock.now += 19
    health.failed("timeout")
    clock.now += 19
    assert 1 == health.ejections
    clock.now += 1
    assert 0 == health.ejections


def test_the_time_of_an_ejection_is_not_quiet(clock: Clock) -> None:
    health = Health(base_s=2, max_s=1000, clock=clock)
    for _ in range(6):
        health.failed("reset", fatal=True)
        clock.now += health.back_in_s()  # 64 s at last, three times what forgives one
    assert 6 == health.ejections


def test_quiet_begins_with_the_boot_that_cut_an_ejection_short(clock: Clock) -> None:
    health = ejected(clock)
    health.recovered()
    clock.now += 20
    assert 0 == health.ejections


def test_failures_during_an_ejection_make_it_no_longer(clock: Clock) -> None:
    health = ejected(clock)
    clock.now += 1
    assert not health.failed("reset", fatal=True)
    assert (1.0, 1) == (health.back_in_s(), health.ejections)


def test_requests_from_before_an_ejection_that_fail_on_probation_eject_nobody(clock: Clock) -> None:
    began = clock.now - 60
    health = ejected(clock)
    clock.now += 2
    assert not health.failed("no byte for 60 s", began=began)
    assert health.probation


@pytest.mark.parametrize("later_s", [1, 3])
def test_an_answer_from_before_an_ejection_neither_ends_it_nor_its_probation(
    clock: Clock, later_s: float
) -> None:
    began = clock.now - 1
    health = ejected(clock)
    before, clock.now = health.ejected(), clock.now + later_s
    health.succeeded(began=began)
    assert (before if later_s < 2 else None, later_s > 2) == (health.ejected(), health.probation)


def test_an_answer_without_a_time_does_not_end_an_ejection(clock: Clock) -> None:
    health = ejected(clock)
    health.succeeded()
    assert health.ejected()


def test_a_request_that_was_tried_during_an_ejection_and_is_answered_ends_it(clock: Clock) -> None:
    health = ejected(clock)
    clock.now += 0.5
    health.succeeded(began=clock.now)
    assert (None, False) == (health.ejected(), health.probation)


def test_an_answer_to_an_old_request_does_not_begin_the_count_again(clock: Clock, health: Health) -> None:
    health.recovered()
    began = clock.now - 1
    health.failed("timeout")
    health.failed("timeout")
    health.succeeded(began=began)
    assert health.failed("timeout")


def test_a_new_boot_may_be_asked_at_once(clock: Clock) -> None:
    health = ejected(clock)
    health.recovered()
    assert (None, False) == (health.ejected(), health.probation)
    assert [False, False, True] == [health.failed("timeout") for _ in range(3)]


def test_failures_of_the_boot_before_do_not_count_against_the_new_one(clock: Clock, health: Health) -> None:
    began = clock.now
    clock.now += 1
    health.recovered()
    assert not health.failed("reset", fatal=True, began=began)


def test_an_engine_that_fails_after_every_start_is_out_for_longer_each_time(
    clock: Clock, health: Health
) -> None:
    took = []
    for _ in range(3):
        health.recovered()
        health.failed("reset", fatal=True)
        took.append(health.back_in_s())
        clock.now += 1
    assert [2.0, 4.0, 8.0] == took


def test_an_engine_that_never_failed_has_its_whole_weight(health: Health) -> None:
    assert 1.0 == health.weight()


def test_weight_rises_in_a_line_after_a_new_boot(clock: Clock, health: Health) -> None:
    health.recovered()
    seen = []
    for _ in range(5):
        seen.append(health.weight())
        clock.now += 2.5
    assert pytest.approx([0.1, 0.325, 0.55, 0.775, 1.0]) == seen


def test_weight_is_least_on_probation_and_rises_once_it_is_passed(clock: Clock) -> None:
    health = ejected(clock)
    assert FLOOR == health.weight()
    clock.now += 9
    assert FLOOR == health.weight()
    health.succeeded()
    assert FLOOR == health.weight()
    clock.now += 5
    assert pytest.approx(0.55) == health.weight()


def test_without_a_slow_start_the_weight_is_whole_at_once(clock: Clock) -> None:
    health = Health(slow_start_s=0, clock=clock)
    health.recovered()
    assert 1.0 == health.weight()


def test_an_ejected_engine_is_not_asked_while_another_is_well(clock: Clock, health: Health) -> None:
    assert [False, True] == may_serve([ejected(clock), health])


def test_when_all_are_ejected_all_may_be_asked(clock: Clock) -> None:
    assert [True, True] == may_serve([ejected(clock), ejected(clock)])


def test_an_engine_on_probation_is_enough_to_spare_the_others(clock: Clock) -> None:
    first = ejected(clock)
    clock.now += 2
    assert [True, False] == may_serve([first, ejected(clock)])


def test_no_engines_are_no_answer() -> None:
    assert [] == may_serve([])


@pytest.mark.parametrize(
    "wrong", [{"consecutive": 0}, {"base_s": 0}, {"base_s": 5, "max_s": 4}, {"slow_start_s": -1}]
)
def test_settings_that_cannot_be_meant_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="at least one failure ejects"):
        Health(**wrong)  # type: ignore[arg-type]


Step = Callable[[Health, Clock], object]


def _advance(seconds: float) -> Step:
    return lambda health, clock: setattr(clock, "now", clock.now + seconds)


STEPS: st.SearchStrategy[Step] = st.one_of(
    st.floats(0, 100).map(_advance),
    st.sampled_from(
        [
            lambda health, clock: health.succeeded(),
            lambda health, clock: health.succeeded(began=clock.now),
            lambda health, clock: health.failed("timeout"),
            lambda health, clock: health.failed("timeout", began=clock.now - 3),
            lambda health, clock: health.failed("reset", fatal=True),
            lambda health, clock: health.recovered(),
        ]
    ),
)


@settings(deadline=None)  # the machine may be busy
@given(st.lists(STEPS, max_size=60))
def test_whatever_happens_an_engine_is_asked_again_within_the_longest_time(steps: list[Step]) -> None:
    clock = Clock()
    health = Health(clock=clock)
    for step in steps:
        step(health, clock)
        assert 0 < health.weight() <= 1
        assert 0 <= health.back_in_s() <= 60
        assert (health.ejected() is not None) == (health.back_in_s() > 0)
        assert health.ejections >= (1 if health.ejected() else 0)
    clock.now += 60
    assert health.ejected() is None
