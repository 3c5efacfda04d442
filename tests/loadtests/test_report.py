import json

import pytest

from loadtests.faults import Event
from loadtests.report import public_command, public_url
from loadtests.sample import Outcome
from loadtests.series import MOST_STEPS, boxes, curves, series
from tests.loadtests.samples_made import Slo, answered, failed, queued, reported

LATE = {"lag_p50": 0.5, "lag_p99": 1.0, "lag_max": 2.0, "dropped": 3, "saturated": True, "why": "late by 1 s"}
CALM = [answered(float(i), i) for i in range(10)]


def test_a_run_that_held_everything_is_ok() -> None:
    report = reported(CALM, 10.0, thresholds=["ttft.p99>1"])
    assert ("ok", "", {"asked": ["ttft.p99>1"], "missed": []}) == (
        report["verdict"],
        report["why"],
        report["thresholds"],
    )


def test_a_threshold_that_fails_makes_it_missed() -> None:
    report = reported(CALM, 10.0, thresholds=["ttft.p99>0.05"])
    assert ("missed", "ttft.p99>0.05: it was 0.1") == (report["verdict"], report["why"])


def test_an_slo_that_too_few_met_makes_it_missed() -> None:
    report = reported(CALM, 10.0, slo=Slo(ttft_s=0.05))
    assert ("missed", "0% of requests met the SLO, 99.0% must") == (report["verdict"], report["why"])
    assert {
        "ttft_s": 0.05,
        "tpot_s": None,
        "e2e_s": None,
        "share": 0.99,
        "reached": 0.0,
        "held": False,
    } == report["slo"]


def test_saturated_beats_missed() -> None:
    report = reported(CALM, 10.0, thresholds=["ttft.p99>0.05"], generator=LATE)
    assert ("saturated", "late by 1 s") == (report["verdict"], report["why"])


def test_no_answers_beats_everything() -> None:
    report = reported(
        [failed(), failed(1.0, Outcome.CONNECT)], 10.0, thresholds=["ttft.p99>1"], generator=LATE
    )
    assert "no_answers" == report["verdict"]
    assert "no request was answered as it should be: 1 status_5xx, 1 connect" == report["why"]


def test_a_run_of_slow_clients_only_has_answers() -> None:
    assert "ok" == reported([answered(slow=True)], 10.0, slo=None)["verdict"]


def test_an_slo_without_bounds_is_no_slo() -> None:
    assert reported(CALM, 10.0, slo=Slo())["slo"] is None


def test_a_report_is_json_without_nan() -> None:
    report = reported(queued(1, n=300), 6.0, metrics={"engine": {"x": float("nan"), "y": (1, float("inf"))}})
    assert {"engine": {"x": None, "y": [1, None]}} == json.loads(json.dumps(report, allow_nan=False))[
        "metrics"
    ]


def test_when_and_where_are_in_it() -> None:
    report = reported(CALM, 10.0)
    assert ("2025-10-09T08:53:20+00:00", "lab") == (report["when"], report["machine"]["host"])


@pytest.mark.parametrize(
    ("expected", "url"),
    [
        ("https://host:8443/v1", "https://user:pass@host:8443/v1?key=1#x"),
        ("http://[::1]:8000", "http://token@[::1]:8000"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
    ],
)
def test_a_url_is_shown_without_its_secrets(expected: str, url: str) -> None:
    assert expected == public_url(url)


@pytest.mark.parametrize(
    "given",
    [
        ["--key", "S3CRET"],
        ["--api-key=S3CRET"],
        ["--header", "Authorization: Bearer S3CRET"],
        ["-H", "x-api-key: S3CRET"],
        ["--say", "authorization: bearer S3CRET"],
        ["HOTSWAP_KEY=S3CRET"],
        ["http://u:S3CRET@host/v1"],
        ["--target=http://host/v1?x=S3CRET"],
    ],
)
def test_a_command_is_shown_without_its_secrets(given: list[str]) -> None:
    shown = public_command(["hotswap", *given, "--rate", "5"])
    assert "S3CRET" not in " ".join(shown)
    assert ["--rate", "5"] == shown[-2:]


def test_what_is_no_secret_is_shown() -> None:
    command = ["hotswap", "bench", "run", "steady", "--max-tokens", "64", "--set", "arrivals.rate=20"]
    assert command == public_command(command)


def test_a_key_that_was_echoed_is_hidden_everywhere() -> None:
    samples = [failed(detail="Incorrect API key provided: sk-12345"), answered(1.0, route="sk-12345")]
    report = reported(samples, 10.0, secrets=["sk-12345", ""])
    assert "sk-12345" not in json.dumps(report)
    assert "Incorrect API key provided: ***" == report["errors"]["status_5xx"][0]["detail"]


def test_errors_keep_a_few_different_examples() -> None:
    samples = [failed(float(i), detail=f"reason {i // 2}") for i in range(20)]
    assert ["reason 0", "reason 1", "reason 2"] == [
        example["detail"] for example in reported(samples, 10.0)["errors"]["status_5xx"]
    ]


def test_the_series_count_by_second() -> None:
    samples = [
        answered(0.2),  # ends at 0.34
        answered(0.5, first=1.2, last=2.5, arrivals=(1.2, 2.5), output_tokens=4),
        failed(1.1, last=1.3),
        failed(1.5, Outcome.DROPPED, sent=None),
        failed(1.6, Outcome.UNFINISHED),
    ]
    found = series(samples, 1.0, [Event(1.0, "kill", "ENGINE_PID", 4711)])
    assert (1, 1.0, [2, 3, 0]) == (found["step_s"], found["warmup_s"], found["offered"])
    assert ([1, 0, 1], [0, 2, 0], [1, 2, 1]) == (found["answered"], found["errors"], found["in_flight"])
    assert ([5, 2, 2], [[1.0, "kill"]]) == (found["tokens"], found["events"])
    assert [pytest.approx(0.1), None, None] == found["ttft_p50"]


def test_a_long_run_has_longer_steps() -> None:
    found = series([answered(float(i)) for i in range(0, 3600, 10)])
    assert (6, True) == (found["step_s"], len(found["offered"]) <= MOST_STEPS)


def test_no_samples_have_no_series() -> None:
    assert [] == series([])["offered"]


def test_a_curve_goes_from_the_smallest_to_the_largest_sample() -> None:
    samples = [answered(float(i), first=i + 0.001 * (i + 1)) for i in range(1000)]
    points = curves(samples)["ttft"]
    assert (pytest.approx(0.001), pytest.approx(1.0)) == (points[0][1], points[-1][1])
    assert points == sorted(points)
    middle = min(points, key=lambda point: abs(point[0] - 0.5))
    assert middle[0] == pytest.approx(middle[1], abs=0.01)


def test_one_sample_is_a_curve_of_one_point() -> None:
    assert [[0.5, pytest.approx(0.1)]] == curves([answered()])["ttft"]


def test_boxes_are_of_each_route() -> None:
    samples = [answered(float(i), route="ab"[i % 2], first=i + (0.1, 0.2)[i % 2]) for i in range(10)]
    assert {"a": (pytest.approx(0.1), 5), "b": (pytest.approx(0.2), 5)} == {
        route: (box["p50"], box["n"]) for route, box in boxes(samples).items()
    }


@pytest.mark.parametrize(("expected", "starts"), [(2.0, None), (3.5, 3.5)])
def test_the_window_starts_after_the_warm_up_or_where_it_is_said_to(
    expected: float, starts: float | None
) -> None:
    scenario = {"name": "steady", "warmup_s": 2.0}
    report = reported(CALM, 10.0, scenario=scenario, starts=starts)
    assert (expected, expected) == (report["starts"], report["series"]["warmup_s"])
