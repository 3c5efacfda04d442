"""Better, worse or neither: a value a unit, compared within its hours."""

from __future__ import annotations

import random

import pytest

from gateway.rollout.goal import LEAST_UNITS, Goal


def run(goal: Goal, units: int, candidate: float, stable: float, seed: int, share: float = 0.5) -> Goal:
    """Units one by one, each with one opinion, looked at after every one of them."""
    draw = random.Random(seed)
    for unit in range(units):
        mine = draw.random() < share
        goal.seen(unit, unit // 1000, candidate=mine)
        goal.said(unit, float(draw.random() < (candidate if mine else stable)))
        goal.look()
    return goal


def test_what_is_much_better_wins_and_what_is_much_worse_loses() -> None:
    assert run(Goal(1000, 0.04), 2500, 0.9, 0.7, 1).verdict == "better"
    assert run(Goal(1000, 0.04), 2500, 0.7, 0.9, 1).verdict == "worse"


def test_it_ends_at_the_horizon_without_a_verdict() -> None:
    goal = run(Goal(300, 0.04), 2000, 0.8, 0.8, 3)
    assert (goal.verdict, goal.decided, goal.looks[-1].share) == ("none", True, 1.0)
    assert goal.look() is None


def test_it_looks_no_oftener_than_information_comes() -> None:
    goal = run(Goal(1000, 0.04), 2500, 0.8, 0.8, 3)
    assert 10 < len(goal.looks) <= 100
    assert all(
        later.share > earlier.share for earlier, later in zip(goal.looks, goal.looks[1:], strict=False)
    )


def test_few_units_say_nothing() -> None:
    goal = run(Goal(100, 0.04), 2 * LEAST_UNITS - 10, 1.0, 0.0, 3)
    assert goal.looks == []


def test_a_drift_with_shares_that_change_is_no_difference() -> None:
    """Early, when few units are the candidate's, all answers are liked; later none is (Simpson's paradox)."""
    goal, draw = Goal(2000, 0.04), random.Random(5)
    for unit in range(6000):
        late = unit >= 3000
        mine = draw.random() < (0.5 if late else 0.05)
        goal.seen(unit, late, candidate=mine)
        goal.said(unit, float(draw.random() < (0.2 if late else 0.9)))
        goal.look()
    assert goal.verdict == "none"
    assert abs(goal.looks[-1].difference) < 0.05


def test_what_comes_late_counts_where_its_unit_was_seen() -> None:
    goal = Goal(1000, 0.04)
    for unit in range(400):
        goal.seen(unit, "first hour", candidate=unit % 2 == 0)
    for unit in range(400):  # hours later
        goal.seen(unit, "second hour", candidate=unit % 2 == 1)  # it stays where it was
        goal.said(unit, 1.0 if unit % 2 == 0 else 0.0)
    found = goal.look()
    assert found is not None and found.difference == 1.0 and found.share == pytest.approx(0.2)


def test_a_unit_counts_once_with_the_mean_of_what_it_said() -> None:
    once, often = Goal(1000, 0.04), Goal(1000, 0.04)
    for unit in range(200):
        for goal, times in ((once, 1), (often, 5)):
            goal.seen(unit, 0, candidate=unit % 2 == 0)
            for _ in range(times):
                goal.said(unit, float(unit % 3 == 0))
    one, other = once.look(), often.look()
    assert one is not None and other is not None
    assert (one.z, one.share) == (pytest.approx(other.z), other.share)


def test_where_all_are_alike_the_error_is_not_0() -> None:
    goal = Goal(1000, 0.04)
    for unit in range(120):
        goal.seen(unit, 0, candidate=unit % 2 == 0)
        goal.said(unit, 1.0)
    found = goal.look()
    assert found is not None and found.error > 0 and found.z == 0


def test_what_was_said_of_an_unknown_unit_is_left_out() -> None:
    goal = Goal(1000, 0.04)
    goal.said("before the rollout", 1.0)
    assert goal.look() is None


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_a_value_is_between_0_and_1(value: float) -> None:
    goal = Goal(1000, 0.04)
    goal.seen(1, 0, candidate=True)
    with pytest.raises(ValueError, match="between 0 and 1"):
        goal.said(1, value)


def test_a_horizon_is_no_handful() -> None:
    with pytest.raises(ValueError, match="at least 100"):
        Goal(99, 0.04)
