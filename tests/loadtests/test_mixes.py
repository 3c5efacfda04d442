from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from loadtests.mixes import Mix, RoundRobin, Weights, Zipf
from loadtests.streams import stream


def shares(mix: Weights | Zipf | RoundRobin, n: int = 100_000) -> list[float]:
    drawn = Counter(mix.draw(stream(1, "routes"), n).tolist())
    return [drawn[k] / n for k in range(len(mix.routes))]


def test_weights_are_met_in_proportion():
    # Four standard deviations of a share over 100,000 draws are at most 0.0064.
    assert [0.6, 0.3, 0.1] == pytest.approx(shares(Weights(weights={"a": 6, "b": 3, "c": 1})), abs=0.0064)


def test_a_route_of_weight_0_is_never_taken():
    assert [0.0, 1.0, 0.0] == shares(Weights(weights={"a": 0, "b": 2, "c": 0}))


@pytest.mark.parametrize("weight", [0.1, 5e-324])
@pytest.mark.parametrize("u", [0.0, 0.75, 1 - 2**-53])
def test_not_even_rounding_takes_a_route_of_weight_0(u: float, weight: float):
    class Fixed:
        def random(self, n: int) -> np.ndarray:
            return np.full(n, u)

    assert [1] == Weights(weights={"a": 0, "b": weight, "c": 0}).draw(Fixed(), 1).tolist()


@pytest.mark.parametrize("s", [0.0, 1.0, 2.0])
def test_zipf_shares_fall_as_rank_to_the_minus_s(s: float):
    expected = np.arange(1, 21) ** -s / (np.arange(1, 21) ** -s).sum()
    assert expected.tolist() == pytest.approx(shares(Zipf(count=20, s=s)), abs=0.0064)


def test_round_robin_takes_each_route_in_turn():
    mix = RoundRobin(names=("a", "b", "c"))
    assert ["a", "b", "c", "a", "b"] == [mix.routes[k] for k in mix.draw(stream(1, "routes"), 5)]


def test_a_pattern_counts_from_0():
    assert ("tenant-0-v1", "tenant-1-v1") == Zipf(pattern="tenant-{}-v1", count=2).routes


@given(
    st.dictionaries(st.text(min_size=1), st.floats(0, 1e6), min_size=1).filter(lambda w: sum(w.values()) > 0),
    st.integers(0, 2**64),
)
def test_only_routes_with_weight_are_drawn(weights, seed):
    mix = Weights(weights=weights)
    drawn = {mix.routes[k] for k in mix.draw(stream(seed, "routes"), 50)}
    assert set() == {name for name in drawn if not weights[name] > 0}


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"mix": "weights", "weights": {}}, "at least 1"),
        ({"mix": "weights", "weights": {"a": 0}}, "every weight is 0"),
        ({"mix": "weights", "weights": {"a": -1}}, "greater than or equal to 0"),
        ({"mix": "zipf"}, "give either names"),
        ({"mix": "zipf", "names": ["a"], "count": 2}, "give either names"),
        ({"mix": "round_robin", "names": ["a", "a"]}, "repeat"),
        ({"mix": "round_robin", "pattern": "adapter", "count": 2}, "has no {}"),
    ],
)
def test_a_mix_that_cannot_be_drawn_says_why(table, says):
    with pytest.raises(ValidationError, match=says):
        TypeAdapter(Mix).validate_python(table)
