"""Two workers behind one port: they share the load, come back, and leave nothing behind."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import TINY, FakeEngine
from tests.house import House, wait_for
from tests.peft_folder import random_adapter

ASK = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}


@pytest.fixture(scope="module")
def pair(
    fake_engine: FakeEngine, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    """A Hotswap with two workers."""
    settings = {
        "HOTSWAP_SERVER__WORKERS": "2",
        "HOTSWAP_BASE__NAME": "tiny",
        "HOTSWAP_ENGINES": f'[{{url = "{fake_engine.url}", api_key_env = "FAKE_KEY"}}]',
        "FAKE_KEY": fake_engine.key,
    }
    with House(tmp_path_factory.mktemp("pair"), tiny_base, settings) as running:
        wait_for("both workers listen", lambda: len(listeners(running)) == 2, 30)
        yield running


def workers(house: House) -> list[psutil.Process]:
    return [p for p in house.processes() if p.cmdline()[-1:] == ["gateway.worker"]]


def listeners(house: House) -> list[psutil.Process]:
    port = int(house.url.rsplit(":", 1)[1])
    return [
        worker
        for worker in workers(house)
        if any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in worker.net_connections())
    ]


def chat(house: House, model: str = "tiny") -> httpx.Response:
    """On a connection of its own, which the kernel deals to either worker."""
    url = house.url + "/v1/chat/completions"
    return httpx.post(url, json={**ASK, "model": model}, headers=house.headers, timeout=30)


def metric(house: House, name: str) -> float:
    text = httpx.get(house.url + "/metrics", headers=house.headers, timeout=30).text
    return sum(s.value for f in text_string_to_metric_families(text) for s in f.samples if s.name == name)


def test_connections_are_dealt_to_both_and_metrics_are_of_both(pair: House) -> None:
    before = metric(pair, "hotswap_exchanges_total")
    assert {200} == {chat(pair).status_code for _ in range(40)}
    assert 40 == metric(pair, "hotswap_exchanges_total") - before
    tallies = sorted((pair.state / "run" / "tally").glob("*.tally"))
    assert 2 == len(tallies)
    assert all(any(tally.read_bytes()) for tally in tallies), "one worker got all of 40 connections"


def test_an_adapter_that_one_worker_registers_is_served_by_both(pair: House, tmp_path: Path) -> None:
    name = pair.add("both", random_adapter(tmp_path / "a", TINY, seed=1))["name"]

    def all_serve() -> bool:
        answers = [chat(pair, "both") for _ in range(20)]
        return all(a.status_code == 200 and a.json()["model"] == name for a in answers)

    wait_for("every worker has heard of it", all_serve, 10)


def test_a_removed_version_keeps_its_files_until_the_next_start(pair: House, tmp_path: Path) -> None:
    version = pair.add("leaving", random_adapter(tmp_path / "a", TINY, seed=2))
    files = pair.state / "adapters" / "sha256" / version["digest"]
    assert pair.cli("adapters", "rm", "leaving", "--yes").returncode == 0
    wait_for(
        "no worker serves it", lambda: {chat(pair, "leaving").status_code for _ in range(20)} == {404}, 10
    )
    assert files.is_dir()
    pair.stop()
    pair.start()
    wait_for("its files are gone", lambda: not files.exists(), 30)


def test_a_killed_worker_is_started_again_while_the_other_serves(pair: House) -> None:
    wait_for("both workers listen", lambda: len(listeners(pair)) == 2, 30)
    killed = workers(pair)[0]
    killed.kill()
    wait_for("it has ended", lambda: not killed.is_running(), 10)
    assert {200} == {chat(pair).status_code for _ in range(10)}
    wait_for("two workers listen again", lambda: len(listeners(pair)) == 2, 30)


def test_sigterm_leaves_nothing_running(pair: House) -> None:
    processes = pair.processes()
    assert pair.process is not None
    pair.process.send_signal(signal.SIGTERM)
    assert pair.process.wait(30) in (0, -signal.SIGTERM)
    assert [] == [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
