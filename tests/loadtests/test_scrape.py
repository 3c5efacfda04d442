"""Metrics beside a run: read, kept, summed up; a source that fails is named and ends nothing."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.proc import ProcessGone, cost
from loadtests.prometheus import FormatError, Series, parse
from loadtests.scrape import CPU, RSS, Metrics, Source, scraping
from loadtests.slope import slope, student
from tests.house import free_port
from tests.loadtests.servers import Asked, response, said, serving

PAGE = r"""
# HELP vllm:num_requests_running Running now.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a b} \" c"} 3.0
# TYPE tokens counter
tokens_total 1.5e+03 1700000000000
tokens_created 1.7e9
# TYPE ttft histogram
ttft_bucket{le="+Inf"} 4
ttft_sum 2.5
ttft_count 4
# TYPE waits summary
waits{quantile="0.5"} NaN
waits_sum 7
"""


def test_a_page_is_read_series_by_series() -> None:
    assert [
        Series(r'vllm:num_requests_running{engine="0",model_name="a b} \" c"}', 3.0, False),
        Series("tokens_total", 1500.0, True),
        Series("ttft_sum", 2.5, True),
        Series("ttft_count", 4.0, True),
        Series("waits_sum", 7.0, True),
    ] == [each for each in parse(PAGE) if "quantile" not in each.name]
    assert [False] == [each.counts for each in parse(PAGE) if "quantile" in each.name]


@pytest.mark.parametrize("line", ["<html>", "name", "name{a=1 3", "name three", '1name{a="b"} 3'])
def test_what_is_no_page_is_named(line: str) -> None:
    with pytest.raises(FormatError, match="not Prometheus' text format: "):
        parse(line)


def test_a_series_is_summed_up_and_a_restart_begins_at_0() -> None:
    metrics = Metrics([Source("engine")])
    for at, (running, tokens) in enumerate([(1.0, 10.0), (5.0, 30.0), (3.0, 4.0)]):
        metrics.add("engine", float(at), [Series("running", running, False), Series("tokens", tokens, True)])
    series = metrics.summary()["engine"]["series"]
    assert {"first": 1.0, "last": 3.0, "delta": None, "mean": 3.0, "max": 5.0} == series["running"]
    assert {"first": 10.0, "last": 4.0, "delta": 24.0, "mean": 44 / 3, "max": 30.0} == series["tokens"]
    assert 20.0 == metrics.summary(until=1.0)["engine"]["series"]["tokens"]["delta"]


def test_a_series_that_comes_later_is_kept_from_then_on() -> None:
    metrics = Metrics([Source("engine")])
    metrics.add("engine", 1.0, [Series("a", 1.0, False)])
    metrics.add("engine", 2.0, [Series("b", 2.0, False)])
    assert [{"a": 1.0}, {"b": 2.0}] == [row["values"] for row in metrics.rows()]


async def test_sources_are_polled_while_a_run_lasts(tmp_path: Path) -> None:
    heard: list[Asked] = []
    enough = asyncio.Event()

    async def reply(asked: Asked, writer: asyncio.StreamWriter) -> bool:
        heard.append(asked)
        writer.write(
            response(f"# TYPE n counter\nn_total {asked.count}\n".encode(), content_type="text/plain")
        )
        if len(heard) >= 4:
            enough.set()
        return True

    async with (
        serving(reply) as target,
        scraping([Source("engine", f"{target.url}/metrics?x=1", "secret")], every_s=0.05) as metrics,
    ):
        async with asyncio.timeout(10):
            await enough.wait()
    found = metrics.summary()["engine"]
    assert (0, None) == (found["failures"], found["why"])
    assert found["series"]["n_total"]["delta"] == len(heard) - 1 >= 4
    assert heard[0].head.startswith(b"GET /metrics?x=1 HTTP/1.1\r\n")
    assert b"authorization: Bearer secret\r\n" in heard[0].head
    metrics.save(tmp_path / "metrics.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert ("engine", {"n_total": 0.0}) == (rows[0]["source"], rows[0]["values"])
    assert len(heard) == len(rows)


@pytest.mark.parametrize(
    ("page", "why"),
    [
        (response(b"go away", "401 No"), "status 401: go away"),
        (response(b"<html>"), "not Prometheus' text format: '<html>'"),
        (b"", "the server closed the connection before it answered"),
        (b"nonsense\r\n\r\n", "the answer is not HTTP/1.1"),
    ],
)
async def test_a_source_that_fails_is_named_with_its_reason(page: bytes, why: str) -> None:
    async with (
        serving(said(page)) as target,
        scraping([Source("engine", target.url + "/metrics")], every_s=10) as metrics,
    ):
        await asyncio.sleep(0)
    found = metrics.summary()["engine"]
    assert found["why"].startswith(why)
    assert 0 < found["failures"]
    assert (0, {}) == (found["polls"], found["series"])


async def test_sources_that_are_not_there_are_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtests.scrape.TIMEOUT_S", 0.2)

    async def silent(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with serving(silent) as target:
        sources = [
            Source("refused", f"http://127.0.0.1:{free_port()}/metrics"),
            Source("unknown", "http://nowhere.invalid/metrics"),
            Source("silent", target.url + "/metrics"),
            Source("gone", pid=999_999_999),
            Source("nothing"),
            Source("wrong", "engine:8000"),
        ]
        async with scraping(sources, every_s=10) as metrics:
            await asyncio.sleep(0)
    why = {name: found["why"] for name, found in metrics.summary().items()}
    assert why["refused"].startswith("no connection (")
    assert why["unknown"].startswith("host 'nowhere.invalid' cannot be resolved")
    assert "/metrics was not answered within 0.2 s" == why["silent"]
    assert "there is no process 999999999 in /proc" == why["gone"]
    assert "source 'nothing' has neither a URL nor a pid" == why["nothing"]
    assert "is not the URL of a server" in why["wrong"]


async def test_a_process_is_watched_by_its_pid() -> None:
    async with scraping([Source("ourselves", pid=os.getpid())], every_s=0.02) as metrics:
        await asyncio.to_thread(sum, range(5_000_000))
    found = metrics.summary()["ourselves"]
    assert found["series"][RSS]["max"] > 10e6
    assert found["series"][CPU]["last"] > 0


def test_the_cost_of_a_process_is_that_of_its_tree() -> None:
    child = [sys.executable, "-c", "b = bytearray(b'x' * 80_000_000); print(flush=True); input()"]
    alone = cost(os.getpid())
    with subprocess.Popen(child, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        both = cost(os.getpid())
        process.communicate(b"\n")
    assert alone.processes + 1 == both.processes
    assert 80_000_000 <= both.rss_bytes - alone.rss_bytes < 160_000_000
    with pytest.raises(ProcessGone, match=f"there is no process {process.pid} in /proc"):
        cost(process.pid)


def test_the_slope_of_a_line_is_its_own_with_no_doubt() -> None:
    line = slope([0, 60, 120, 180, 240], [10, 11, 12, 13, 14])
    assert line is not None
    assert (60.0, 60.0, 60.0) == pytest.approx((line.per_hour, line.low, line.high))


def test_the_interval_of_a_slope_is_the_textbooks() -> None:
    # y = 1, 3, 2, 5, 4 at x = 0..4: b = 0.8, s^2 = 1.2, se = 0.34641, t(3) = 3.18245.
    line = slope([0, 3600, 7200, 10800, 14400], [1, 3, 2, 5, 4])
    assert line is not None
    assert (0.8, 0.8 - 1.10243, 0.8 + 1.10243) == pytest.approx(
        (line.per_hour, line.low, line.high), rel=5e-3
    )


def test_too_few_points_have_no_slope() -> None:
    assert slope([0, 1, 2, 3], [0, 1, 2, 3]) is None
    assert slope([1] * 9, range(9)) is None


@pytest.mark.parametrize(("freedom", "t"), [(3, 3.18245), (5, 2.57058), (10, 2.22814), (100, 1.98397)])
def test_students_t_is_the_tables(freedom: int, t: float) -> None:
    assert t == pytest.approx(student(freedom), rel=3e-3)
