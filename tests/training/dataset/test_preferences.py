"""Pairs and thumbs: who is preferred to whom."""

from __future__ import annotations

from tests.training.dataset.candidates import candidate
from training.dataset.candidate import Candidate, Kind
from training.dataset.preferences import PAIRS_A_PROMPT, pairs, thumbs


def up(number: int, answer: str, asked: str = "Q") -> Candidate:
    return candidate(number, asked, answer, kind=Kind.LIKED, thumb="up", ids=(f"u{number}",))


def down(number: int, answer: str, asked: str = "Q") -> Candidate:
    return candidate(number, asked, answer, kind=Kind.DISLIKED, thumb="down", ids=(f"d{number}",))


def corrected(answer: str, rejected: str | None, **more: object) -> Candidate:
    return candidate(1, "Q", answer, kind=Kind.CORRECTED, rejected=rejected, **more)


def preferred(*candidates: Candidate) -> list[tuple[str, str]]:
    return [
        (each.row["chosen"][0]["content"], each.row["rejected"][0]["content"]) for each in pairs(candidates)
    ]


def test_a_correction_is_better_than_what_it_replaced() -> None:
    (pair,) = pairs([corrected("right", "wrong", system="S")])
    assert {
        "prompt": [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}],
        "chosen": [{"role": "assistant", "content": "right"}],
        "rejected": [{"role": "assistant", "content": "wrong"}],
    } == pair.row


def test_a_correction_that_says_the_same_is_no_pair() -> None:
    assert [] == preferred(corrected("Same", "same ")) + preferred(corrected("right", None))


def test_of_answers_to_one_question_the_liked_is_better() -> None:
    assert [("good", "bad")] == preferred(up(1, "good"), down(2, "bad"), down(3, "other", asked="Another"))


def test_the_same_question_to_another_system_is_another_question() -> None:
    other = candidate(3, "Q", "bad", kind=Kind.DISLIKED, thumb="down", system="S")
    assert [] == preferred(up(1, "good"), other)


def test_an_answer_that_one_liked_and_another_did_not_is_no_pair() -> None:
    assert [] == preferred(up(1, "same"), down(2, "same"))


def test_many_thumbs_on_one_question_are_a_few_pairs() -> None:
    many = [*(up(at, f"good {at}") for at in range(5)), *(down(at, f"bad {at}") for at in range(5))]
    assert PAIRS_A_PROMPT == len(preferred(*many))


def test_a_pair_knows_both_exchanges() -> None:
    (pair,) = pairs([up(1, "good"), down(2, "bad")])
    assert {"u1", "d2"} == {id for each in pair.made_of for id in each.ids}


def test_thumbs_are_labels_and_a_correction_is_two() -> None:
    rows = [
        each.row
        for each in thumbs([up(1, "good"), down(2, "bad"), corrected("right", "wrong"), candidate(9)])
    ]
    assert [("good", True), ("bad", False), ("right", True), ("wrong", False)] == [
        (row["completion"][0]["content"], row["label"]) for row in rows
    ]
