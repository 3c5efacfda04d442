"""What is the same twice, which of two stays, and what only looks the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.training.dataset.candidates import candidate, question
from training.dataset.candidate import Candidate, Kind, Ledger
from training.dataset.dedupe import deduplicated

LONG = "How do I change the address that my monthly statements are sent to, please"
ANSWER = "Open the settings, choose the profile, and write the new address there"


def left(*candidates: Candidate) -> list[Candidate]:
    return deduplicated(candidates, 0.8, Ledger())


def test_the_same_but_for_case_and_space_is_one_row() -> None:
    ledger = Ledger()
    found = deduplicated([candidate(1, "Hello there", "Hi"), candidate(2, "hello  there", "hi")], 0.8, ledger)
    assert (1, {"duplicate": 1}) == (len(found), dict(ledger.counts))


def test_nearly_the_same_question_and_answer_are_one_row() -> None:
    ledger = Ledger()
    near = candidate(2, LONG + " tell me", ANSWER + " too")
    assert 1 == len(deduplicated([candidate(1, LONG, ANSWER), near], 0.8, ledger))
    assert {"near_duplicate": ["rows.jsonl:2"]} == ledger.places


def test_nearly_the_same_question_with_another_answer_stays() -> None:
    assert 2 == len(left(candidate(1, LONG, ANSWER), candidate(2, LONG + "?", "That cannot be changed")))


def test_rows_that_differ_in_a_number_stay() -> None:
    asked = "What is the sum of the two numbers twelve and thirteen, written as 12 + {} in the usual way"
    rows = [candidate(at, asked.format(at), "The sum of the two numbers is what you get") for at in (13, 14)]
    assert rows == left(*rows)


def test_rows_of_different_system_words_stay() -> None:
    assert 2 == len(
        left(candidate(1, LONG, ANSWER, system="Be kind"), candidate(2, LONG, ANSWER, system="Be brief"))
    )


def test_a_correction_stays_and_the_same_answer_of_a_model_goes() -> None:
    own = candidate(1, LONG, ANSWER, kind=Kind.OWN)
    corrected = candidate(2, LONG, ANSWER, kind=Kind.CORRECTED)
    assert [corrected] == left(own, corrected)


def test_of_equal_merit_the_latest_stays() -> None:
    rows = [candidate(at, LONG, ANSWER, at=float(at)) for at in (1, 3, 2)]
    assert [3.0] == [each.at for each in left(*rows)]


def test_a_disliked_answer_does_not_take_the_place_of_one_to_learn() -> None:
    rows = [candidate(1, LONG, ANSWER, kind=Kind.OWN), candidate(2, LONG, ANSWER, kind=Kind.DISLIKED)]
    assert rows == left(*rows)


@given(st.lists(st.integers(0, 8), max_size=20))
def test_what_is_left_has_every_row_once_and_in_the_order_given(numbers: list[int]) -> None:
    rows = [candidate(number, question(number), question(number + 100)) for number in numbers]
    found = left(*rows)
    assert list(dict.fromkeys(numbers)) == [int(each.place.split(":")[1]) for each in found]


@given(st.lists(st.integers(0, 8), max_size=12))
def test_done_twice_it_does_what_it_does_once(numbers: list[int]) -> None:
    rows = [candidate(number, f"{LONG} {question(number)[:9]}", ANSWER) for number in numbers]
    once = left(*rows)
    assert once == left(*once)
