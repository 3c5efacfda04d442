"""One run from end to end, against the fake engine: what is kept, and what the search finds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.cost import Price, Rates
from loadtests.plan import Plan
from loadtests.run import Asked, Run, find_rate, folder_for, keep, run, write_report
from loadtests.samples import read_samples
from loadtests.scenario import Scenario
from loadtests.scrape import Source
from loadtests.search import Limit, Search
from loadtests.target import Target
from tests.conftest import FakeEngine
from tests.loadtests.plans import scenario

FILES = {
    "plan.jsonl",
    "samples.jsonl",
    "metrics.jsonl",
    "report.json",
    "report.md",
    "report.csv",
    "report.html",
}


def steady(rate: float = 40, seconds: float = 1.0, **more: object) -> Scenario:
    arrivals = {"kind": "constant", "rate": rate}
    routes = {"mix": "weights", "weights": {"tiny": 1}}
    return scenario(seconds, arrivals=arrivals, routes=routes, output=4, **more)


@pytest.fixture
def asked(fake_engine: FakeEngine) -> Asked:
    return Asked(Target(fake_engine.url, fake_engine.key), command=["hotswap", "bench", "run", "steady"])


@pytest.fixture
def done(asked: Asked, fake_engine: FakeEngine) -> Iterator[Run]:
    sources = [Source("engine", url=f"{fake_engine.url}/metrics", key=fake_engine.key)]
    yield run(
        steady(warmup_s=0.5),
        Asked(asked.target, asked.command, sources=sources, rates=Rates(0.45), api=Price(0.15, 0.6)),
    )


def test_every_request_of_the_window_is_answered_and_measured(done: Run) -> None:
    assert ("ok", 40, 40) == (
        done.report["verdict"],
        done.report["measures"]["all"]["requests"],
        done.report["measures"]["all"]["ok"],
    )
    assert 160 == done.report["measures"]["all"]["output_tokens"]
    assert 1.0 == done.report["seconds"]


def test_what_is_kept_can_be_read_again(done: Run, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "run"
    keep(done, folder)
    assert FILES == {file.name for file in folder.iterdir()}
    assert done.plan.digest == Plan.read(folder / "plan.jsonl").digest
    assert len(done.driven.samples) == len(read_samples(folder / "samples.jsonl"))
    assert done.report["plan_digest"] == json.loads((folder / "report.json").read_bytes())["plan_digest"]


def test_a_report_alone_makes_its_page_again(done: Run, tmp_path: Path) -> None:
    keep(done, tmp_path)
    before = (tmp_path / "report.html").read_text()
    (tmp_path / "report.html").unlink()
    write_report(json.loads((tmp_path / "report.json").read_bytes()), tmp_path)
    assert before == (tmp_path / "report.html").read_text()


def test_the_bill_is_of_the_window_and_the_routes_share_it(done: Run) -> None:
    cost = done.report["cost"]
    assert round(0.45 * 1e9 / 3600) == cost["nanousd"]
    assert cost["nanousd"] == sum(share["nanousd"] for share in cost["routes"].values())
    assert cost["api"] is not None


def test_the_engines_metrics_are_in_the_report(done: Run) -> None:
    engine = done.report["metrics"]["engine"]
    assert engine["polls"] >= 2
    assert engine["series"]


def test_no_key_is_in_anything_that_is_kept(done: Run, tmp_path: Path, fake_engine: FakeEngine) -> None:
    keep(done, tmp_path)
    assert [] == [f.name for f in tmp_path.iterdir() if fake_engine.key in f.read_text()]


def test_a_threshold_that_holds_fails_the_run(asked: Asked) -> None:
    failing = Asked(asked.target, thresholds=["requests_per_s<1000"])
    report = run(steady(seconds=0.3), failing).report
    assert "missed" == report["verdict"]
    assert "requests_per_s<1000" in report["why"]


def test_several_processes_send_the_same_requests(asked: Asked) -> None:
    done = run(steady(), Asked(asked.target, processes=2))
    assert list(range(40)) == [sample.index for sample in done.driven.samples]
    assert 2 == done.report["generator"]["processes"]


def test_a_closed_loop_is_measured_over_the_time_that_it_took(asked: Asked) -> None:
    arrivals = {"kind": "closed", "concurrency": 2, "requests": 20}
    closed = scenario(
        30.0, arrivals=arrivals, routes={"mix": "weights", "weights": {"tiny": 1}}, output=4, stream=False
    )
    done = run(closed, asked)
    assert 20 == done.report["measures"]["all"]["ok"]
    assert done.report["seconds"] < 5


def test_a_search_stops_at_the_ceiling_when_everything_holds(asked: Asked) -> None:
    tried = steady(seconds=0.5, slo={"ttft_s": 2.0})
    found, chosen = find_rate(tried, asked, Search(from_rate=10, to_rate=20))
    assert (20, Limit.CEILING) == (found.rate, found.limit)
    assert 20 == chosen.plan.scenario.arrivals.rate  # type: ignore[union-attr]
    assert chosen.report["search"]["rate"] == 20
    seeds = {probe.requests for probe in found.probes}
    assert seeds == {5, 10}


def test_a_search_that_nothing_passes_ends_at_the_floor(asked: Asked) -> None:
    tried = steady(seconds=0.3, slo={"ttft_s": 1e-6})
    found, chosen = find_rate(tried, asked, Search(from_rate=20, to_rate=40))
    assert (None, Limit.FLOOR) == (found.rate, found.limit)
    assert chosen.report["search"]["rate"] is None


def test_arrivals_without_a_rate_cannot_be_searched(asked: Asked) -> None:
    arrivals = {"kind": "closed", "concurrency": 2, "requests": 20}
    with pytest.raises(ValueError, match="constant, poisson or gamma"):
        find_rate(scenario(arrivals=arrivals), asked, Search())


def test_two_runs_of_one_second_get_folders_of_their_own(tmp_path: Path) -> None:
    first = folder_for(steady(), tmp_path)
    first.mkdir()
    assert first != folder_for(steady(), tmp_path)
