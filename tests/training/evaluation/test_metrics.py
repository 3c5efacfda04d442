"""What an answer is worth."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.evaluation.metrics import METRICS, exact, json_fields, json_valid, rouge_l

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.text(), st.text())
def test_figures_are_between_none_and_one(answer: str, expected: str) -> None:
    values = [metric(answer, expected) for name, metric in METRICS.items() if name != "json_fields"]
    assert all(0 <= value <= 1 for value in values)


@given(JSON, JSON)
def test_fields_are_all_right_exactly_when_the_values_are_equal(one: object, other: object) -> None:
    figure = json_fields(json.dumps(one), json.dumps(other))
    assert (json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)) == (figure == 1)


def test_white_space_around_makes_no_difference() -> None:
    assert (1, 0) == (exact(" yes\n", "yes"), exact("yes!", "yes"))


@pytest.mark.parametrize(("answer", "figure"), [('{"a": 1}', 1), ("12", 1), ('{"a": 1', 0), ("Sure: {}", 0)])
def test_json_and_nothing_else_is_json(answer: str, figure: float) -> None:
    assert figure == json_valid(answer, "")


@pytest.mark.parametrize(
    ("answer", "figure"),
    [
        ('{"intent": "refund", "order": {"id": 7}}', 1),
        ('{"order": {"id": 7}, "intent": "refund"}', 1),
        ('{"intent": "refund", "order": {"id": 8}}', 0.5),
        ('{"intent": "refund"}', 0.5),
        ('{"intent": "refund", "order": {"id": 7}, "more": true}', 2 / 3),
        ('{"intent": "refund", "order": {"id": "7"}}', 0.5),
        ("no idea", 0),
    ],
)
def test_fields_count_one_by_one_and_strange_ones_count_against(answer: str, figure: float) -> None:
    assert figure == pytest.approx(json_fields(answer, '{"intent": "refund", "order": {"id": 7}}'))


def test_an_expected_answer_that_is_no_json_is_an_error_and_no_figure() -> None:
    with pytest.raises(ValueError, match="the expected answer is no JSON: 'refund'"):
        json_fields("{}", "refund")


@pytest.mark.parametrize(
    ("answer", "expected", "figure"),
    [
        # Lin (2004), section 3: of the reference "police killed the gunman", 3 of 4 words, then 2 of 4
        ("police kill the gunman", "police killed the gunman", 0.75),
        ("the gunman kill police", "police killed the gunman", 0.5),
        ("The gunman, police killed.", "police killed the gunman", 0.5),
        ("", "", 1),
        ("", "a word", 0),
    ],
)
def test_rouge_l_is_that_of_the_paper(answer: str, expected: str, figure: float) -> None:
    assert figure == pytest.approx(rouge_l(answer, expected))
