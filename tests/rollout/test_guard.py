"""Evidence of harm: quick where there is much, and rarely false however often it is looked at."""

from __future__ import annotations

import random

import pytest

from gateway.rollout.guard import Guard


def fed(guard: Guard, units: int, candidate: float, stable: float, share: float, seed: int) -> Guard:
    """Units one by one: `share` of them the candidate's, bad with these probabilities."""
    draw = random.Random(seed)
    for _ in range(units):
        if draw.random() < share:
            guard.candidate(draw.random() < candidate)
        else:
            guard.stable(draw.random() < stable)
    return guard


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("rate", [0.01, 0.2])
def test_without_harm_it_rarely_says_so(share: float, rate: float) -> None:
    alpha, runs = 0.05, 400
    false = sum(fed(Guard(), 1000, rate, rate, share, seed).harmful(alpha) for seed in range(runs))
    assert false / runs <= alpha + 2 * (alpha / runs) ** 0.5


def test_drift_of_both_is_no_harm() -> None:
    false = 0
    for seed in range(300):
        draw, guard = random.Random(seed), Guard()
        for at in range(1000):
            bad = draw.random() < (0.02 if at < 500 else 0.5)
            (guard.candidate if draw.random() < (0.05 if at < 500 else 0.5) else guard.stable)(bad)
        false += guard.harmful(0.05)
    assert false / 300 <= 0.05 + 2 * (0.05 / 300) ** 0.5


def test_a_candidate_that_always_fails_is_found_in_a_few_units() -> None:
    guard = Guard()
    while not guard.harmful(0.01 / 6):
        guard.stable(0)
        guard.candidate(1)
        assert guard.pairs <= 20


def test_small_harm_is_found_in_many_units() -> None:
    found = sum(fed(Guard(), 10_000, 0.06, 0.02, 0.5, seed).harmful(0.01 / 6) for seed in range(50))
    assert found >= 45


def test_what_is_within_the_margin_is_no_harm() -> None:
    assert not fed(Guard(0.05), 10_000, 0.06, 0.02, 0.5, 1).harmful(0.01)
    assert fed(Guard(0.05), 10_000, 0.16, 0.02, 0.5, 1).harmful(0.01)


def test_evidence_that_was_enough_stays_enough() -> None:
    guard = Guard()
    for _ in range(30):
        guard.stable(0)
        guard.candidate(1)
    for _ in range(500):
        guard.stable(1)
        guard.candidate(0)
    assert guard.log_wealth < 0 and guard.harmful(0.01)


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
def test_an_outcome_is_between_0_and_1(bad: float) -> None:
    with pytest.raises(ValueError, match="between 0"):
        Guard().candidate(bad)
