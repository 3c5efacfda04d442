import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from loadtests.arrivals import Arrivals, Constant, Gamma, Poisson, Ramp
from loadtests.streams import stream


def rng(seed: int = 1) -> np.random.Generator:
    return stream(seed, "arrivals")


def variation(times: np.ndarray) -> float:
    """Coefficient of variation of the gaps."""
    gaps = np.diff(times, prepend=0.0)
    return float(gaps.std() / gaps.mean())


def test_constant_arrivals_are_at_exactly_k_over_rate():
    assert [k / 3 for k in range(30)] == Constant(rate=3).offsets(rng(), 10).tolist()


def test_constant_arrivals_leave_out_the_end():
    assert [0.0, 0.5] == Constant(rate=2).offsets(rng(), 1.0).tolist()


def test_poisson_counts_are_within_four_deviations_of_the_rate():
    times = Poisson(rate=50).offsets(rng(), 2000)
    assert 100_000 == pytest.approx(times.size, abs=4 * 100_000**0.5)


def test_poisson_gaps_are_exponential():
    gaps = np.diff(Poisson(rate=50).offsets(rng(), 2000), prepend=0.0)
    shares = [float((gaps > t).mean()) for t in (0.01, 0.02, 0.05)]
    assert np.exp([-0.5, -1.0, -2.5]).tolist() == pytest.approx(shares, abs=0.006)


def test_poisson_counts_a_second_vary_as_much_as_their_mean():
    counts = np.bincount(Poisson(rate=20).offsets(rng(), 5000).astype(int), minlength=5000)
    assert 1.0 == pytest.approx(counts.var() / counts.mean(), abs=0.08)


@pytest.mark.parametrize("cv", [0.2, 1.0, 3.0])
def test_gamma_gaps_have_the_asked_variation_and_rate(cv: float):
    times = Gamma(rate=50, cv=cv).offsets(rng(), 2000)
    assert cv == pytest.approx(variation(times), rel=0.03)
    assert 100_000 == pytest.approx(times.size, abs=4 * cv * 100_000**0.5)


class HalfGaps:
    """Draws gaps of half their mean, so that the first batch ends long before the window does."""

    def standard_gamma(self, shape: float, n: int) -> np.ndarray:
        return np.full(n, shape / 2)

    def standard_exponential(self, n: int) -> np.ndarray:
        return np.full(n, 0.5)


@pytest.mark.parametrize("arrivals", [Poisson(rate=50), Gamma(rate=50, cv=2)])
def test_random_arrivals_reach_the_end_of_the_window_however_short_their_gaps(arrivals):
    assert 9999 == pytest.approx(arrivals.offsets(HalfGaps(), 100).size, abs=1)


def test_a_constant_ramp_spaces_arrivals_by_the_integral_of_the_rate():
    # R(t) = t^2 / 2 for a ramp from 0 to 10 in 10 s, so arrival k is due at sqrt(2 k).
    times = Ramp(rate=0, to_rate=10, process="constant").offsets(rng(), 10)
    assert [(2 * k) ** 0.5 for k in range(50)] == pytest.approx(times.tolist(), abs=1e-9)


def test_a_ramp_down_to_nothing_offers_half_of_its_start_rate():
    times = Ramp(rate=10, to_rate=0, process="constant").offsets(rng(), 10)
    assert 50 == times.size
    assert 10 - (100 - 2 * 49) ** 0.5 == pytest.approx(times[-1], abs=1e-6)


def test_a_poisson_ramp_follows_its_rate():
    times = Ramp(rate=10, to_rate=110).offsets(rng(), 1000)
    quarters = np.histogram(times, bins=4, range=(0, 1000))[0]
    assert [5625, 11875, 18125, 24375] == pytest.approx(quarters.tolist(), rel=0.035)


def test_a_ramp_over_nearly_no_time_offers_nothing():
    for seconds in (0.0, 1.401298464324817e-45):
        assert 0 == Ramp(rate=1, to_rate=2).offsets(np.random.default_rng(0), seconds, 1e-44).size


def test_a_ramp_holds_its_start_rate_through_the_warm_up():
    times = Ramp(rate=2, to_rate=4, process="constant").offsets(rng(), 20, hold_s=10)
    assert [k / 2 for k in range(20)] == times[:20].tolist()
    assert 20 + 30 == times.size


def test_a_flat_ramp_is_constant():
    times = Ramp(rate=3, to_rate=3, process="constant").offsets(rng(), 10)
    assert [k / 3 for k in range(30)] == pytest.approx(times.tolist(), abs=1e-12)


open_loop = st.one_of(
    st.builds(Constant, rate=st.floats(0.01, 50)),
    st.builds(Poisson, rate=st.floats(0.01, 50)),
    st.builds(Gamma, rate=st.floats(0.01, 50), cv=st.floats(0.1, 5)),
    st.builds(
        Ramp,
        rate=st.floats(0.01, 50),
        to_rate=st.floats(0, 50),
        process=st.sampled_from(["poisson", "constant"]),
    ),
)


@given(open_loop, st.floats(0.1, 100), st.floats(0, 1), st.integers(0, 2**32))
def test_all_arrivals_are_in_order_and_inside_the_window(arrivals, seconds, held, seed):
    times = arrivals.offsets(rng(seed), seconds, hold_s=held * seconds)
    assert [] == [t for t in times.tolist() if not 0 <= t < seconds]
    assert sorted(times.tolist()) == times.tolist()


@pytest.mark.parametrize(
    "table",
    [
        {"kind": "constant", "rate": 0},
        {"kind": "poisson", "rate": -1},
        {"kind": "poisson", "rate": float("inf")},
        {"kind": "gamma", "rate": 1, "cv": 0},
        {"kind": "ramp", "rate": 0, "to_rate": 0},
        {"kind": "closed", "concurrency": 0, "requests": 1},
        {"kind": "closed", "concurrency": 1},
        {"kind": "trace", "file": "t.csv", "format": "azure", "speed": 0},
    ],
)
def test_impossible_arrivals_are_refused(table):
    with pytest.raises(ValidationError):
        TypeAdapter(Arrivals).validate_python(table)
