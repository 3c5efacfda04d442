import pytest

from loadtests.sample import Outcome
from tests.loadtests.samples_made import answered, failed


def test_only_ok_is_ok() -> None:
    assert ["ok"] == [str(outcome) for outcome in Outcome if failed(outcome=outcome).ok]


def test_latencies_run_from_the_scheduled_time() -> None:
    late = answered(1.0, sent=1.4, first=1.5, last=1.9)
    assert (0.5, 0.9) == (pytest.approx(late.ttft), pytest.approx(late.e2e))


def test_lag_is_how_late_the_generator_was_without_the_time_to_connect() -> None:
    assert pytest.approx(0.4) == answered(1.0, begun=1.4, sent=1.6).lag


def test_a_dropped_request_has_no_latency_and_no_lag() -> None:
    dropped = failed(outcome=Outcome.DROPPED, sent=None)
    assert (None, None, None, None) == (dropped.lag, dropped.ttft, dropped.e2e, dropped.tpot)


def test_time_per_token_spreads_what_came_after_the_first_over_the_tokens_after_it() -> None:
    # 2 chunks that hold 5 tokens: the usage counts, not the chunks.
    assert pytest.approx(0.1) == answered(first=1.0, last=1.4, arrivals=(1.0, 1.4), output_tokens=5).tpot


@pytest.mark.parametrize(
    "fields", [{"output_tokens": 1}, {"usage_known": False}, {"first": None}, {"last": None}]
)
def test_there_is_no_time_per_token_without(fields: dict[str, object]) -> None:
    assert answered(**fields).tpot is None
