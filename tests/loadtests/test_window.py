from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.sample import Outcome
from loadtests.window import Window, ended
from tests.loadtests.samples_made import answered, failed


@given(
    st.integers(0, 500),
    st.lists(st.floats(0, 9.99), min_size=1, max_size=40),
    st.lists(st.floats(0.01, 9.9), max_size=5, unique=True),
)
def test_windows_one_after_the_other_add_up_to_every_token(
    tokens: int, times: list[float], cuts: list[float]
) -> None:
    sample = answered(arrivals=tuple(sorted(times)), output_tokens=tokens)
    edges = [0.0, *sorted(cuts), 10.0]
    # A window's end is start + seconds; what rounding leaves between two is no window's.
    windows = [Window(a, b - a) for a, b in pairwise(edges)]
    if all(x.end == y.start for x, y in pairwise(windows)):
        assert tokens == sum(window.output_tokens(sample) for window in windows)


def test_each_chunk_brings_an_even_part() -> None:
    sample = answered(arrivals=(1.0, 2.0, 3.0, 4.0), output_tokens=8)
    assert [0, 4, 8] == [Window(0.0, s).output_tokens(sample) for s in (1.0, 3.0, 5.0)]


def test_a_whole_answer_comes_at_its_end() -> None:
    sample = answered(arrivals=(), last=3.0, output_tokens=8)
    assert [0, 8] == [Window(0.0, s).output_tokens(sample) for s in (3.0, 3.1)]


def test_a_prompt_counts_where_its_first_token_came() -> None:
    sample = answered(0.0, first=1.5, cached_tokens=4)
    assert [(0, 0), (20, 4)] == [
        (window.input_tokens(sample), window.cached_tokens(sample))
        for window in (Window(0.0, 1.5), Window(1.5, 1.0))
    ]


def test_idle_is_when_nothing_was_open() -> None:
    samples = [
        answered(1.0, last=3.0),
        answered(2.0, last=4.0),
        answered(8.0, last=12.0),
        failed(5.0, sent=None),
    ]
    assert pytest.approx(0.5) == Window(0.0, 10.0).idle_share(samples)


@pytest.mark.parametrize(
    ("expected", "outcome"),
    [
        (float("inf"), Outcome.UNFINISHED),
        (float("inf"), Outcome.TIMEOUT),
        (3.0, Outcome.DROPPED),
        (3.0, Outcome.CONNECT),
    ],
)
def test_a_request_without_an_end_ended_at_once_or_never(expected: float, outcome: Outcome) -> None:
    assert expected == ended(failed(3.0, outcome))
