"""Near duplicates: who is found, and what the measure is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.dataset.candidates import question
from training.dataset.near import Groups, Neighbours, alike, pieces

TEXT = "My card has not arrived and I have been waiting for two weeks now, what shall I do about it?"


def test_case_width_and_space_make_no_difference() -> None:
    assert 1.0 == alike(pieces("Where  is my\nCARD"), pieces("\uff57here is my card"))


def test_texts_of_nothing_in_common_are_not_alike() -> None:
    assert 0.0 == alike(pieces("abcdefgh"), pieces("stuvwxyz"))


def test_the_measure_is_the_share_of_five_character_pieces() -> None:
    # abcde bcdef cdefg against abcde bcdef cdefh: two of four.
    assert 0.5 == alike(pieces("abcdefg"), pieces("abcdefh"))


@given(st.text(max_size=40), st.text(max_size=40))
def test_the_measure_is_the_same_both_ways_and_from_0_to_1(one: str, other: str) -> None:
    there, back = alike(pieces(one), pieces(other)), alike(pieces(other), pieces(one))
    assert there == back and 0 <= there <= 1


@given(st.text(min_size=1, max_size=60))
def test_a_text_has_as_many_pieces_as_it_has_different_windows(text: str) -> None:
    from training.dataset.near import PIECE, plain

    said = plain(text)
    windows = {said[at : at + PIECE] for at in range(max(1, len(said) - PIECE + 1))} if said else set()
    assert len(windows) == pieces(text).size


def test_a_text_with_a_word_changed_is_found_among_a_thousand() -> None:
    texts = [*map(question, range(1000)), TEXT, TEXT.replace("two", "three")]
    neighbours = Neighbours(texts, 0.8)
    for index in range(len(texts) - 1):
        neighbours.add(index)
    assert [1000] == list(neighbours.of(1001))


def test_what_is_below_the_bound_is_no_neighbour() -> None:
    neighbours = Neighbours(["abcdefg", "abcdefh"], 0.51)
    neighbours.add(0)
    assert [] == list(neighbours.of(1))


def test_empty_texts_are_alike() -> None:
    neighbours = Neighbours(["", "  ", "word"], 0.8)
    neighbours.add(0)
    assert ([0], []) == (list(neighbours.of(1)), list(neighbours.of(2)))


def test_hashes_of_pieces_do_not_depend_on_the_process() -> None:
    """A dataset must have the same digest tomorrow."""
    assert [5718913436695043505] == pieces("a").tolist()


def test_what_is_joined_by_steps_is_one_group() -> None:
    groups = Groups(5)
    groups.join(4, 1)
    groups.join(1, 3)
    assert [[0], [1, 3, 4], [2]] == groups.all()


@pytest.mark.parametrize("similarity", [0.8, 0.9])
def test_nearly_every_pair_above_the_bound_is_found(similarity: float) -> None:
    """The exact measure is the judge; hashing may only lose a pair in some hundreds."""
    choice = np.random.default_rng(7)
    texts = []
    for number in range(60):
        words = [question(number * 10 + each) for each in range(3)]
        texts.append(" ".join(words))
        words[int(choice.integers(3))] += f" {int(choice.integers(10))}"
        texts.append(" ".join(words))
    neighbours = Neighbours(texts, similarity)
    found = 0
    for index in range(len(texts)):
        found += len(list(neighbours.of(index)))
        neighbours.add(index)
    sets = [pieces(text) for text in texts]
    exact = sum(
        alike(sets[one], sets[other]) >= similarity for one in range(len(sets)) for other in range(one)
    )
    assert 0.98 * exact <= found <= exact
