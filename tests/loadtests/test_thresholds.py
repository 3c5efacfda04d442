import pytest

from loadtests.sample import Outcome
from loadtests.thresholds import METRICS, Threshold, ThresholdError, check
from tests.loadtests.samples_made import answered, failed, reported

SAMPLES = [
    *(answered(float(i), i, route="support") for i in range(8)),
    failed(8.0, Outcome.TIMEOUT, route="sql"),
    answered(9.0, 9, route="sql", version="sql@1"),
]


def missed(*texts: str) -> list[str]:
    return [str(miss) for miss in check(map(Threshold.parse, texts), reported(SAMPLES, 10.0))]


@pytest.mark.parametrize(
    "text",
    [
        "ttft.p99>1",
        "ttft.p99>=0.25",
        "goodput.share<0.99",
        "tokens_per_s<=5",
        "route[support]:errors.share>0.01",
        "phase[storm]:e2e.max>3",
        "version[support@3f9c]:gap.p999>0.1",
        "cost.usd_per_mtok>2.5",
    ],
)
def test_a_threshold_reads_back_as_it_was_written(text: str) -> None:
    assert text == str(Threshold.parse(text))


def test_spaces_do_not_matter() -> None:
    assert Threshold.parse("route[a b]:ttft.p99>1") == Threshold.parse("  route[a b] : ttft.p99 > 1.0 ")


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        ("not a threshold; write METRIC>BOUND", "ttft.p99"),
        ("not a threshold; write METRIC>BOUND", "ttft.p99=1"),
        ("not a threshold; write METRIC>BOUND", "route:ttft.p99>1"),
        ("unknown scope 'rout'; did you mean 'route'", "rout[a]:ttft.p99>1"),
        ("unknown metric 'ttft.p99.9'; did you mean 'ttft.p999'", "ttft.p99.9>1"),
        ("unknown metric 'errors.timeouts'; did you mean 'errors.timeout'", "errors.timeouts>1"),
        ("unknown metric 'zzzzzz'; known: ttft.mean", "zzzzzz>1"),
        ("is of the whole run; leave route", "route[a]:cost.usd_per_mtok>1"),
        ("'1s' is no number", "ttft.p99>1s"),
        ("'nan' is no number", "ttft.p99>nan"),
        ("'inf' is no number", "ttft.p99>inf"),
    ],
)
def test_a_threshold_that_cannot_be_read_says_what_was_meant(expected: str, text: str) -> None:
    with pytest.raises(ThresholdError) as raised:
        Threshold.parse(text)
    assert expected in str(raised.value)


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_has_a_value_in_a_full_report(metric: str) -> None:
    assert [] == missed(f"{metric}>1e9")


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        ([], "errors.share>0.1"),
        (["errors.share>=0.1: it was 0.1"], "errors.share>=0.1"),
        (["requests_per_s<0.95: it was 0.9"], "requests_per_s<0.95"),
        (["requests_per_s<=0.9: it was 0.9"], "requests_per_s<=0.9"),
        ([], "requests_per_s<0.9"),
        (["errors.timeout>0: it was 1"], "errors.timeout>0"),
        ([], "errors.reset>0"),
        (["goodput.share<0.95: it was 0.9"], "goodput.share<0.95"),
        (["ttft.p50>0.05: it was 0.1"], "ttft.p50>0.05"),
        (["route[sql]:errors.share>0.4: it was 0.5"], "route[sql]:errors.share>0.4"),
        ([], "route[support]:errors.share>0.4"),
        (["version[sql@1]:e2e.max>0.1: it was 0.14"], "version[sql@1]:e2e.max>0.1"),
        (["phase[run]:goodput.per_s<1: it was 0.9"], "phase[run]:goodput.per_s<1"),
    ],
)
def test_a_threshold_fails_the_run_where_it_is_true(expected: list[str], text: str) -> None:
    assert expected == missed(text)


def test_a_route_that_the_run_lacks_fails_its_threshold() -> None:
    why = "the run has no route 'legal' (it has 'support', 'sql'), which counts as a failure"
    assert [f"route[legal]:ttft.p99>1: {why}"] == missed("route[legal]:ttft.p99>1")


def test_a_latency_that_nothing_had_fails_its_threshold() -> None:
    report = reported([failed()], 10.0)
    (miss,) = check([Threshold.parse("ttft.p99>1")], report)
    assert {
        "threshold": "ttft.p99>1",
        "value": None,
        "why": "ttft.p99>1: the run has no value for ttft.p99, which counts as a failure",
    } == miss.to_json()


def test_a_run_without_requests_fails_every_threshold() -> None:
    assert ["errors.share>0.5"] == [
        str(miss.threshold) for miss in check([Threshold.parse("errors.share>0.5")], reported([], 10.0))
    ]


def test_goodput_without_an_slo_fails_its_threshold() -> None:
    (miss,) = check([Threshold.parse("goodput.share<0.9")], reported(SAMPLES, 10.0, slo=None))
    assert miss.value is None


@pytest.mark.parametrize(
    ("why", "samples"), [("give --usd-per-hour", SAMPLES), ("no tokens were made", [failed()])]
)
def test_a_cost_that_is_not_known_fails_its_threshold(why: str, samples: list[object]) -> None:
    report = reported(samples, 10.0)  # type: ignore[arg-type]
    if samples is SAMPLES:
        report["cost"] = None
    (miss,) = check([Threshold.parse("cost.usd_per_mtok>1")], report)
    assert why in str(miss)


def test_misses_keep_the_order_asked() -> None:
    assert ["e2e.max>0", "ttft.max>0"] == [text.split(":")[0] for text in missed("e2e.max>0", "ttft.max>0")]
