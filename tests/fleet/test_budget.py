"""Retries are a small share of requests, whatever fails."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.fleet.budget import BATCH, RetryBudget


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0
        self.read = 0

    def __call__(self) -> float:
        self.read += 1
        return self.now


def retries(budget: RetryBudget) -> int:
    """Takes every token that is there."""
    count = 0
    while budget.try_retry():
        count += 1
    return count


def requests(budget: RetryBudget, count: int) -> None:
    for _ in range(count):
        budget.request()


def test_one_request_in_ten_may_be_retried() -> None:
    budget = RetryBudget(0.1, min_per_s=0, clock=Clock())
    requests(budget, 1000)
    assert 100 == retries(budget)


@pytest.mark.parametrize("count", [10, 20, 30, 70])
def test_ten_requests_are_enough_for_a_retry_in_spite_of_binary_fractions(count: int) -> None:
    budget = RetryBudget(0.1, min_per_s=0, clock=Clock())
    for _ in range(count):
        budget.request()
        assert budget.balance > 0  # each is deposited by itself: ten additions of a tenth
    assert count // 10 == retries(budget)


def test_without_a_request_there_is_a_reserve_of_one_a_second() -> None:
    clock = Clock()
    budget = RetryBudget(clock=clock)
    assert 10 == retries(budget)
    clock.now += 3
    assert 3 == retries(budget)


def test_the_reserve_saves_up_for_its_time_to_live_and_no_longer() -> None:
    clock = Clock()
    budget = RetryBudget(clock=clock)
    clock.now += 3600
    assert 10 == retries(budget)


def test_tokens_that_nobody_took_expire_after_ten_seconds() -> None:
    clock = Clock()
    budget = RetryBudget(min_per_s=0, clock=clock)
    requests(budget, 160)
    clock.now += 9
    assert pytest.approx(16) == budget.balance
    clock.now += 1
    assert 0 == budget.balance


def test_each_second_expires_by_itself() -> None:
    clock = Clock()
    budget = RetryBudget(min_per_s=0, ttl_s=3, clock=clock)
    left = []
    for _ in range(3):
        requests(budget, 160)
        clock.now += 1
        left.append(round(budget.balance))
    for _ in range(3):
        clock.now += 1
        left.append(round(budget.balance))
    assert [16, 32, 32, 16, 0, 0] == left


def test_a_retry_takes_what_expires_first() -> None:
    clock = Clock()
    budget = RetryBudget(min_per_s=0, ttl_s=2, clock=clock)
    requests(budget, 160)
    clock.now += 1
    assert pytest.approx(16) == budget.balance
    requests(budget, 160)
    assert all(budget.try_retry() for _ in range(16))
    clock.now += 1
    assert 16 == retries(budget)


def test_what_was_allowed_and_refused_is_counted() -> None:
    budget = RetryBudget(min_per_s=0.2, clock=Clock())
    assert 2 == retries(budget)
    assert (2, 1) == (budget.retries, budget.refused)


def test_a_share_of_nothing_leaves_only_the_reserve() -> None:
    budget = RetryBudget(0, min_per_s=0.1, clock=Clock())
    requests(budget, 1000)
    assert 1 == retries(budget)


def test_the_clock_is_read_once_in_a_batch_of_requests() -> None:
    clock = Clock()
    budget = RetryBudget(clock=clock)
    clock.read = 0
    requests(budget, 10 * BATCH)
    assert 10 == clock.read


@pytest.mark.parametrize("wrong", [{"share": -0.1}, {"min_per_s": -1}, {"ttl_s": 0}])
def test_settings_that_cannot_be_meant_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="none may be negative"):
        RetryBudget(**wrong)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Tick:
    """After `later_s`, so many requests, and an attempt to retry so many."""

    later_s: float
    requests: int
    attempts: int


TICKS = st.lists(
    st.builds(Tick, st.floats(0, 8), st.integers(0, 80), st.integers(0, 40)), min_size=1, max_size=40
)


@settings(deadline=None)  # the machine may be busy
@given(TICKS, st.sampled_from([0.0, 0.1, 0.25, 1.0]), st.sampled_from([0.0, 0.3, 1.0]), st.integers(1, 12))
def test_no_window_has_more_retries_than_its_share_and_reserve_and_what_was_saved_up(
    ticks: list[Tick], share: float, min_per_s: float, ttl_s: int
) -> None:
    clock = Clock()
    budget = RetryBudget(share, min_per_s=min_per_s, ttl_s=ttl_s, clock=clock)
    at: list[tuple[float, int, int]] = []
    for tick in ticks:
        clock.now += tick.later_s
        requests(budget, tick.requests)
        at.append((clock.now, tick.requests, sum(budget.try_retry() for _ in range(tick.attempts))))
    for first, (begin, _, _) in enumerate(at):
        for end, _, _ in at[first:]:
            asked = sum(asked for time, asked, _ in at if begin - ttl_s <= time <= end)
            retried = sum(retried for time, _, retried in at if begin <= time <= end)
            assert retried <= share * asked + min_per_s * (end - begin + ttl_s + 1) + 1e-6


@settings(deadline=None)  # the machine may be busy
@given(st.integers(20, 100), st.integers(11, 30))
def test_steady_traffic_gets_its_share(per_s: int, seconds: int) -> None:
    clock = Clock()
    budget = RetryBudget(0.1, min_per_s=0, clock=clock)
    allowed = 0
    for _ in range(seconds * per_s):
        clock.now += 1 / per_s
        budget.request()
        allowed += budget.try_retry()
    assert allowed == pytest.approx(0.1 * seconds * per_s, abs=2)
