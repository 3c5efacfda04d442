"""Start, drain, kill and start again: the command as users run it, real Postgres, fake engine."""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import TINY, FakeEngine
from tests.house import House, wait_for
from tests.peft_folder import random_adapter

ASK = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}


@pytest.fixture
def own(fake_engine: FakeEngine, tiny_base: Path, tmp_path: Path) -> Iterator[House]:
    """A Hotswap of one's own, to be killed at will."""
    settings = {
        "HOTSWAP_BASE__NAME": "tiny",
        "HOTSWAP_ENGINES": f'[{{url = "{fake_engine.url}", api_key_env = "FAKE_KEY"}}]',
        "FAKE_KEY": fake_engine.key,
    }
    with House(tmp_path, tiny_base, settings) as running:
        yield running


def chat(house: House, model: str = "tiny") -> httpx.Response:
    url = house.url + "/v1/chat/completions"
    return httpx.post(url, json={**ASK, "model": model}, headers=house.headers, timeout=30)


def running(processes: list[psutil.Process]) -> list[psutil.Process]:
    def runs(process: psutil.Process) -> bool:
        try:
            return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False

    return [process for process in processes if runs(process)]


def postmaster(house: House) -> psutil.Process:
    def words(process: psutil.Process) -> list[str]:
        try:
            return process.cmdline()
        except psutil.Error:
            return []

    [found] = [
        p
        for p in house.processes()
        if words(p)[:1] and words(p)[0].endswith("/postgres") and "-D" in words(p)
    ]
    return found


def test_sigterm_lets_a_stream_end_and_leaves_nothing_running(own: House) -> None:
    processes = own.processes()
    body = {**ASK, "stream": True, "max_tokens": 400, "ignore_eos": True}
    lines: list[str] = []
    first = threading.Event()

    def read() -> None:
        url = own.url + "/v1/chat/completions"
        with httpx.stream("POST", url, json=body, headers=own.headers, timeout=30) as response:
            for line in response.iter_lines():
                lines.append(line)
                first.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert first.wait(10)
    assert own.process is not None
    own.process.send_signal(signal.SIGTERM)
    reader.join(30)
    assert [line for line in lines if line][-1] == "data: [DONE]"
    assert own.process.wait(30) in (0, -signal.SIGTERM)
    assert running(processes) == []


def test_after_a_kill_of_the_gateway_up_works_again_with_nothing_left(own: House, tmp_path: Path) -> None:
    name = own.add("kept", random_adapter(tmp_path / "a", TINY, seed=1))["name"]
    before = own.processes()
    own.kill()
    own.start()
    assert running(before) == []
    assert chat(own, "kept").json()["model"] == name


def test_after_a_kill_of_everything_up_works_again(own: House, tmp_path: Path) -> None:
    name = own.add("kept", random_adapter(tmp_path / "a", TINY, seed=1))["name"]
    before = own.processes()
    for process in before:
        if process.is_running():
            process.kill()
    assert own.process is not None
    own.process.wait(10)
    own.start()
    assert running(before) == []
    assert chat(own, name).json()["model"] == name


def test_without_its_database_the_data_plane_answers_and_the_control_plane_recovers(own: House) -> None:
    postmaster(own).kill()
    statuses = {chat(own).status_code for _ in range(20)}
    assert statuses == {200}
    url = own.url + "/admin/v1/adapters"
    wait_for(
        "the control plane is back",
        lambda: httpx.get(url, headers=own.headers, timeout=30).status_code == 200,
        30,
    )


def test_a_second_up_says_who_runs(own: House) -> None:
    second = own.cli("up", "--no-engine", "--port", "0")
    assert second.returncode == 1
    assert own.process is not None
    assert str(own.process.pid) in second.stderr
    assert "hotswap down" in second.stderr


def test_a_taken_port_is_named(own: House, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        other = own.cli("up", "--no-engine", "--state-dir", str(tmp_path / "other"), "--port", port)
    assert other.returncode == 1
    assert f"127.0.0.1:{port}" in other.stderr


def test_detached_up_returns_when_ready_and_down_stops_it(own: House, tmp_path: Path) -> None:
    state = ["--state-dir", str(tmp_path / "detached")]
    up = own.cli("up", "--detach", "--port", "0", *state, timeout=60)
    assert up.returncode == 0, up.stderr
    assert httpx.get(up.stdout.strip() + "/readyz").status_code == 200
    process = psutil.Process(json.loads((tmp_path / "detached" / "gateway.json").read_text())["pid"])
    assert own.cli("up", "--detach", *state, timeout=60).stdout == up.stdout
    assert own.cli("down", *state).returncode == 0
    assert running([process]) == []


def test_a_missing_base_says_how_to_make_one(own: House, tmp_path: Path) -> None:
    own.environment["HOTSWAP_BASE__PATH"] = str(tmp_path / "nothing")
    failed = own.cli("up", "--port", "0", "--state-dir", str(tmp_path / "other"))
    assert failed.returncode == 1
    assert "hotswap base prepare" in failed.stderr


def test_a_removed_version_ends_its_stream_first_and_then_its_files_go(own: House, tmp_path: Path) -> None:
    version = own.add("leaving", random_adapter(tmp_path / "a", TINY, seed=1))
    files = own.state / "adapters" / "sha256" / version["digest"]
    assert files.is_dir()
    body = {**ASK, "model": "leaving", "stream": True, "max_tokens": 800, "ignore_eos": True}
    url = own.url + "/v1/chat/completions"
    with httpx.stream("POST", url, json=body, headers=own.headers, timeout=30) as response:
        lines = response.iter_lines()
        next(lines)
        assert own.cli("adapters", "rm", "leaving", "--yes").returncode == 0
        assert chat(own, "leaving").status_code == 404
        assert files.is_dir()
        assert [line for line in lines if line][-1] == "data: [DONE]"
    wait_for("the files are gone", lambda: not files.exists(), 30)
    assert version["name"] not in own.cli("ps").stdout
