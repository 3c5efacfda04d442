"""Units and their targets: shares as wished, the same every time, and only the difference moves."""

from __future__ import annotations

import math
import time
from itertools import pairwise

import pytest

from gateway.rollout.split import Split

UNITS = [f"unit-{number}".encode() for number in range(100_000)]


def split(salt: str = "s", route: str = "support", **weights: float) -> Split:
    return Split(salt, route, weights)


def test_shares_are_as_wished() -> None:
    for weights in ({"a": 95.0, "b": 5.0}, {"a": 1.0, "b": 1.0}, {"a": 0.2, "b": 0.3, "c": 0.5}):
        chosen = split(**weights)
        found = [chosen.of(unit) for unit in UNITS]
        for target, share in chosen.shares.items():
            assert abs(found.count(target) / len(UNITS) - share) <= 0.003, (weights, target)


def test_from_5_to_25_percent_a_fifth_of_all_units_move_and_none_back() -> None:
    before, after = split(stable=95, candidate=5), split(stable=75, candidate=25)
    moves = [(before.of(unit), after.of(unit)) for unit in UNITS]
    assert ("candidate", "stable") not in moves
    moved = moves.count(("stable", "candidate")) / len(UNITS)
    assert abs(moved - 0.20) <= 0.003


def test_through_all_stages_a_unit_moves_once_at_most() -> None:
    stages = [split(stable=100 - share, candidate=share) for share in (1, 5, 25, 50, 100)]
    for unit in UNITS[:5000]:
        path = [stage.of(unit) for stage in stages]
        assert sum(one != other for one, other in pairwise(path)) <= 1 and path[-1] == "candidate"


def test_another_target_takes_from_all_alike_and_moves_nobody_else() -> None:
    before, after = split(a=1, b=1), split(a=1, b=1, c=1)
    moves = [(before.of(unit), after.of(unit)) for unit in UNITS]
    assert {pair for pair in moves if pair[0] != pair[1]} == {("a", "c"), ("b", "c")}
    assert abs(sum(one != other for one, other in moves) / len(UNITS) - 1 / 3) <= 0.004


def test_other_salts_and_routes_are_other_draws() -> None:
    first = split(stable=9, candidate=1)
    chosen = [unit for unit in UNITS if first.of(unit) == "candidate"]
    for other in (split("t", stable=9, candidate=1), split(route="sales", stable=9, candidate=1)):
        again = sum(other.of(unit) == "candidate" for unit in chosen) / len(chosen)
        assert abs(again - 0.1) < 0.015


def test_it_takes_less_than_5_microseconds() -> None:
    chosen = split(stable=95, candidate=5)
    times = []
    for _ in range(7):
        began = time.perf_counter()
        for unit in UNITS[:10_000]:
            chosen.of(unit)
        times.append((time.perf_counter() - began) / 10_000)
    assert min(times) < 5e-6


def test_a_target_without_weight_answers_nobody() -> None:
    assert {split(a=0, b=3).of(unit) for unit in UNITS[:1000]} == {"b"}


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"a": -1.0, "b": 2.0}, "a: -1"),
        ({"a": math.nan}, "a: nan"),
        ({"a": math.inf}, "a: inf"),
        ({"a": True}, "a: True"),
        ({"a": 0, "b": 0}, "nothing would answer"),
        ({}, "nothing would answer"),
        ({"a": 1e308, "b": 1e308}, "no number"),
    ],
)
def test_weights_that_are_none_are_refused(weights: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Split("s", "support", weights)
