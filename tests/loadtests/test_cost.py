from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.cost import NO_VERSION, Price, Rates, allocate, cost
from loadtests.sample import Outcome, Sample
from tests.loadtests.samples_made import Slo, answered, failed

names = st.text(min_size=1, max_size=4)
made = st.builds(
    lambda route, version, ins, cached, out, ok: answered(
        1.0,
        route=route,
        version=version if ok else None,
        outcome=Outcome.OK if ok else Outcome.TRUNCATED,
        input_tokens=ins,
        cached_tokens=min(cached, ins),
        output_tokens=out,
    ),
    names,
    names,
    st.integers(0, 5000),
    st.integers(0, 5000),
    st.integers(0, 5000),
    st.booleans(),
)


@given(st.integers(0, 10**15), st.dictionaries(names, st.fractions(0, 10**6), min_size=1))
def test_parts_add_up_to_the_whole_exactly_and_are_off_by_less_than_one(
    total: int, weights: dict[str, Fraction]
) -> None:
    if not sum(weights.values()):
        weights["x"] = Fraction(1)
    parts = allocate(total, weights)
    assert total == sum(parts.values())
    assert all(abs(parts[name] - total * weights[name] / sum(weights.values())) < 1 for name in weights)


@given(st.lists(made, max_size=30), st.floats(0, 1000), st.floats(3, 10_000), st.floats(0.1, 50))
def test_the_shares_of_routes_and_of_versions_add_up_to_the_bill_exactly(
    samples: list[Sample], price: float, seconds: float, weight: float
) -> None:
    bill = cost(samples, Rates(price, output_weight=weight), seconds, starts=0.0)
    for shares in (bill.routes, bill.versions):
        assert bill.nanousd == sum(share.nanousd for share in shares.values()) + bill.unallocated_nanousd


def test_weights_that_add_up_to_nothing_share_nothing() -> None:
    with pytest.raises(ValueError, match="10 cannot be shared"):
        allocate(10, {"a": Fraction(0)})


def test_the_bill_is_price_times_engines_times_time() -> None:
    bill = cost([answered()], Rates(1.8, engines=2), 100.0, starts=0.0)
    assert (pytest.approx(0.1), 100_000_000) == (bill.usd, bill.nanousd)


def test_the_blend_divides_the_bill_by_all_tokens() -> None:
    samples = [answered(input_tokens=600, cached_tokens=100, output_tokens=400)]
    assert pytest.approx(100.0) == cost(samples, Rates(3.6), 100.0, starts=0.0).usd_per_mtok


def test_input_and_output_prices_add_up_to_the_bill() -> None:
    samples = [answered(input_tokens=600, cached_tokens=100, output_tokens=400)]
    bill = cost(samples, Rates(3.6, output_weight=5.0), 100.0, starts=0.0)
    assert bill.usd_per_m_input is not None and bill.usd_per_m_output is not None
    assert pytest.approx(5.0) == bill.usd_per_m_output / bill.usd_per_m_input
    assert pytest.approx(bill.usd) == (500 * bill.usd_per_m_input + 400 * bill.usd_per_m_output) / 1e6


@pytest.mark.parametrize(
    ("expected", "rates"),
    [
        ((4.0, "default"), Rates(1.0)),
        ((4.0, "default"), Rates(1.0, prefill_per_s=100.0)),
        ((20.0, "measured"), Rates(1.0, prefill_per_s=2000.0, decode_per_s=100.0)),
        ((3.0, "given"), Rates(1.0, output_weight=3.0, prefill_per_s=2000.0, decode_per_s=100.0)),
    ],
)
def test_an_output_tokens_weight_is_given_or_measured_or_the_default(
    expected: tuple[float, str], rates: Rates
) -> None:
    assert expected == rates.weight


@pytest.mark.parametrize(
    "fields", [{"usd_per_hour": -1}, {"engines": 0}, {"output_weight": 0}, {"decode_per_s": -1.0}]
)
def test_rates_that_make_no_sense_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        Rates(**({"usd_per_hour": 1.0} | fields))  # type: ignore[arg-type]


def test_only_output_of_requests_that_met_the_slo_divides_the_slo_price() -> None:
    samples = [
        answered(output_tokens=100),
        answered(0.0, first=5.0, output_tokens=300),
        failed(output_tokens=7),
    ]
    assert (
        pytest.approx(1000.0)
        == cost(samples, Rates(3.6), 100.0, starts=0.0, slo=Slo(ttft_s=1.0)).usd_per_mtok_met
    )


def test_without_an_slo_there_is_no_price_of_what_met_it() -> None:
    assert cost([answered()], Rates(3.6), 100.0, starts=0.0, slo=Slo()).usd_per_mtok_met is None


def test_tokens_of_failed_requests_count_for_their_route() -> None:
    samples = [
        answered(route="a", input_tokens=0, output_tokens=30),
        failed(0.0, Outcome.TRUNCATED, route="b", arrivals=(0.5,), output_tokens=10),
    ]
    bill = cost(samples, Rates(3.6), 100.0, starts=0.0)
    assert (0.75, 0.25) == (bill.routes["a"].share, bill.routes["b"].share)
    assert 0.25 == bill.versions[NO_VERSION].share


def test_only_tokens_that_came_in_the_window_are_paid_by_it() -> None:
    samples = [answered(0.5, phase="warmup"), answered(1.5), answered(99.0, first=102.0, arrivals=(102.0,))]
    assert (20, 5) == (lambda tokens: (tokens.input, tokens.output))(
        cost(samples, Rates(1.0), 100.0, starts=1.0).tokens
    )


def test_a_run_without_tokens_leaves_the_bill_unshared() -> None:
    bill = cost([failed()], Rates(3.6), 100.0, starts=0.0, api=Price(1.0, 1.0))
    assert (100_000_000, {}, None, None) == (
        bill.unallocated_nanousd,
        dict(bill.routes),
        bill.usd_per_mtok,
        bill.api,
    )


def test_the_api_price_of_the_same_tokens_and_where_the_machine_breaks_even() -> None:
    samples = [answered(float(i), input_tokens=1000, cached_tokens=400, output_tokens=500) for i in range(10)]
    api = cost(samples, Rates(3.6), 100.0, starts=0.0, api=Price(1.0, 2.0, cached=0.5)).api
    assert api is not None
    # (600 * 1 + 400 * 0.5 + 500 * 2) / 1e6 = 0.0018 USD a request; the machine is 0.001 USD a second.
    assert (pytest.approx(0.018), pytest.approx(0.1 / 0.018)) == (api.usd, api.ratio)
    assert pytest.approx(0.001 / 0.0018) == api.requests_per_s
    assert pytest.approx(0.001 / 0.0018 * 86_400 * 1500) == api.tokens_per_day


def test_cached_input_costs_as_any_input_where_the_api_has_no_price_for_it() -> None:
    samples = [answered(input_tokens=1000, cached_tokens=400, output_tokens=0)]
    api = cost(samples, Rates(3.6), 100.0, starts=0.0, api=Price(1.0, 2.0)).api
    assert api is not None and pytest.approx(0.001) == api.usd
