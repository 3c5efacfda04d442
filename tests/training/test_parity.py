"""What is said about served log-probabilities, and which gate says it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training import gates
from training.evaluation.bootstrap import Interval
from training.parity import Logs, Parity, compare
from training.recipe import TrainingError

TOKENS = 2000
NOISE = 0.04


def logs(seed: int = 0, moved: float = 1.0) -> Logs:
    draw = np.random.default_rng(seed)
    base = -draw.exponential(3.0, TOKENS)
    return Logs(base, base + moved * draw.normal(size=TOKENS))


def noisy(of: Logs, seed: int = 1) -> Logs:
    draw = np.random.default_rng(seed)
    return Logs(of.base + NOISE * draw.normal(size=TOKENS), of.adapter + NOISE * draw.normal(size=TOKENS))


def passed(found: Parity) -> tuple[bool, bool, bool]:
    return gates.same_base(found).passed, gates.parity(found).passed, gates.effect(found).passed


def test_a_served_adapter_that_is_the_trained_one_passes() -> None:
    found = compare(logs(), noisy(logs()))
    assert (True, True, True) == passed(found)
    assert found.effect == pytest.approx(1.0, abs=0.01)


def test_an_adapter_that_the_engine_ignored_has_no_effect() -> None:
    trained = logs()
    served = noisy(trained)
    found = compare(trained, Logs(served.base, served.base))
    assert found.effect == pytest.approx(0.0, abs=0.01)
    assert (True, False, False) == passed(found)


def test_another_base_is_seen_without_the_adapter() -> None:
    assert not gates.same_base(compare(logs(0), logs(1))).passed


def test_another_version_is_not_the_trained_one() -> None:
    trained, other = logs(), noisy(logs())
    draw = np.random.default_rng(9)
    swapped = Logs(other.base, other.base + draw.normal(size=TOKENS))
    assert (True, False, False) == passed(compare(trained, swapped))


@given(st.floats(0.0, 0.85) | st.floats(1.15, 3.0))
def test_an_adapter_that_is_scaled_is_not_the_trained_one(scale: float) -> None:
    trained = logs()
    served = noisy(trained)
    found = compare(trained, Logs(served.base, served.base + scale * (served.adapter - served.base)))
    assert not gates.effect(found).passed


def test_an_adapter_that_moves_nothing_has_no_effect_to_compare() -> None:
    trained = logs(moved=0.0)
    assert not gates.effect(compare(trained, noisy(trained))).passed


def test_other_tokens_than_were_asked_for_are_no_comparison() -> None:
    short = logs()
    with pytest.raises(TrainingError, match="the engine told of 1999 tokens, 2000 were asked for"):
        compare(short, Logs(short.base[1:], short.adapter[1:]))


def test_nothing_to_compare_is_no_parity() -> None:
    none = Logs(np.empty(0), np.empty(0))
    with pytest.raises(TrainingError, match="no tokens to compare"):
        compare(none, none)


@pytest.mark.parametrize(
    ("trained", "served", "measured"),
    [
        ([1, 2, 3], [1, 2, 3], "the same (3 tokens)"),
        ([1, 2, 3], [1, 9, 3], "other from token 1 on (3 tokens)"),
        ([1, 2, 3], [1, 2], "other from token 2 on (2 tokens)"),
    ],
)
def test_a_template_is_the_same_by_its_tokens(trained: list[int], served: list[int], measured: str) -> None:
    found = gates.template(trained, served)
    assert (trained == served, measured) == (found.passed, found.measured)


def test_a_card_is_passed_by_all_of_its_gates_and_an_empty_one_is_not() -> None:
    good, bad = gates.base("a" * 64, "a" * 64), gates.base("a" * 64, "b" * 64)
    cards = [gates.ReportCard("v", found) for found in ((good,), (good, bad), ())]
    assert ([True, False, False], ("base",)) == ([card.passed for card in cards], cards[1].failed)


@pytest.mark.parametrize(
    ("finding", "passed"),
    [
        (gates.task_gain(Interval(0.05, 0.01, 0.09), "exact", "v1"), True),
        (gates.task_gain(Interval(0.05, -0.01, 0.11), "exact", "v1"), False),
        (gates.general(Interval(-0.005, -0.02, 0.01), "v1"), True),
        (gates.general(Interval(-0.02, -0.03, -0.01), "v1"), False),
        (gates.leakage(0, 40), True),
        (gates.leakage(1, 40), False),
        (gates.schema(0.99, 0.5), True),
        (gates.schema(0.97, 0.5), False),
        (gates.schema(0.985, 1.0), False),
        (gates.memorised(0.02, 0.01), True),
        (gates.memorised(0.05, 0.01), False),
    ],
)
def test_a_gate_is_passed_within_its_bound_and_not_beyond(finding: gates.Finding, passed: bool) -> None:
    assert passed == finding.passed
