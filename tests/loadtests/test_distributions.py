import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from loadtests.distributions import Choice, Distribution, Fixed, LogNormal, Uniform
from loadtests.streams import stream

N = 100_000


def rng() -> np.random.Generator:
    return stream(1, "lengths")


def test_a_number_is_always_itself():
    made = TypeAdapter(Distribution).validate_python(64)
    assert [64, 64] == made.whole(rng(), 2).tolist()


def test_a_uniform_count_takes_both_ends_as_often_as_the_middle():
    counts = np.bincount(Uniform(low=2, high=5).whole(rng(), N))
    assert [0, 0, 0.25, 0.25, 0.25, 0.25] == pytest.approx((counts / N).tolist(), abs=0.006)


def test_a_lognormal_has_its_median_and_its_95th_percentile():
    values = LogNormal(median=60, p95=300).draw(rng(), N)
    assert [60, 300] == pytest.approx(np.quantile(values, [0.5, 0.95]).tolist(), rel=0.03)


def test_a_lognormal_is_cut_at_its_max():
    values = LogNormal(median=60, p95=300, max=200).whole(rng(), N)
    assert 200 == values.max()
    assert 60 == pytest.approx(float(np.median(values)), rel=0.03)


def test_choices_come_as_often_as_their_weights():
    values = Choice(values=(16, 256), weights=(9, 1)).whole(rng(), N)
    assert {16, 256} == set(values.tolist())
    assert 0.9 == pytest.approx(float((values == 16).mean()), abs=0.004)


@given(
    st.one_of(
        st.builds(Fixed, value=st.floats(0, 1000)),
        st.builds(
            lambda a, b: Uniform(low=min(a, b), high=max(a, b)), st.floats(0, 1000), st.floats(0, 1000)
        ),
        st.builds(lambda m, f: LogNormal(median=m, p95=m * f), st.floats(0.1, 1000), st.floats(1, 10)),
        st.builds(Choice, values=st.lists(st.floats(0, 1000), min_size=1).map(tuple)),
    )
)
def test_counts_are_whole_and_at_least_1(distribution):
    counts = distribution.whole(rng(), 20)
    assert np.int64 == counts.dtype
    assert 1 <= counts.min()


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"kind": "uniform", "low": 5, "high": 2}, "swap them"),
        ({"kind": "lognormal", "median": 60, "p95": 30}, "swap them"),
        ({"kind": "choice", "values": [1, 2], "weights": [1]}, "one weight a value"),
        ({"kind": "choice", "values": [1], "weights": [0]}, "every weight is 0"),
        (-1, "greater than or equal to 0"),
        (True, "valid dictionary"),
    ],
)
def test_an_impossible_distribution_says_why(table, says):
    with pytest.raises(ValidationError, match=says):
        TypeAdapter(Distribution).validate_python(table)
