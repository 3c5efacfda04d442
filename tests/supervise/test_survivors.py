"""What a killed run left is ended; what is somebody else's never."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gateway.supervise import leash, survivors, sweep
from tests.supervise.family import STUBBORN, Family, is_alive, read_pid, wait_until

NO_PID = 2**22 + 1  # above every pid that Linux gives: a broken sweep must find nothing by it


@contextmanager
def stranger(script: str = "exec sleep 1000") -> Iterator[subprocess.Popen[bytes]]:
    """A process that is none of ours, in a session of its own."""
    # A shell's background job inherits an ignored SIGINT, and what is ignored at its start sh cannot trap.
    default = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(["sh", "-c", script], start_new_session=True, preexec_fn=default)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def start_of(pid: int) -> int:
    found = leash.process(pid)
    assert found is not None
    return found.start


def record(folder: Path, **changes: Any) -> Path:
    """A record whose processes are all gone, unless `changes` says otherwise."""
    content = {
        "boot": leash.boot(),
        "leash": [NO_PID, 1],
        "child": [NO_PID, 1],
        "signal": 15,
        "grace": 0.1,
        "log": [0, 0],
        "token": "f" * 32,
    }
    path = folder / "run" / "engine.json"
    path.parent.mkdir()
    path.write_text(json.dumps(content | changes))
    return path


def test_kill_9_of_us_and_the_leash_is_swept(tmp_path: Path) -> None:
    family = Family.start(tmp_path)
    family.kill_us_and_the_leash()
    assert "grandchild" in family.living()  # else there would be nothing to sweep
    assert ["engine"] == sweep(tmp_path)
    assert [] == family.living()


def test_kill_9_of_us_the_leash_and_the_child_is_swept(tmp_path: Path) -> None:
    family = Family.start(tmp_path)
    os.kill(family.leash, signal.SIGSTOP)
    os.kill(family.child, signal.SIGKILL)
    family.kill_us_and_the_leash()
    assert ["engine"] == sweep(tmp_path)
    assert [] == family.living()


def test_a_survivor_without_the_environment_is_known_by_session_and_log(tmp_path: Path) -> None:
    # Postgres and setproctitle overwrite what /proc shows of the environment.
    script = 'env -i sleep 1000 & echo $! > "$0/grandchild"; echo 1 > "$0/daemon"; wait'
    family = Family.start(tmp_path, script=script)
    os.kill(family.leash, signal.SIGSTOP)
    os.kill(family.child, signal.SIGKILL)
    family.kill_us_and_the_leash()
    wait_until(lambda: not is_alive(family.child))
    assert is_alive(family.grandchild)
    sweep(tmp_path)
    assert not is_alive(family.grandchild)


def test_a_leash_that_is_still_ending_its_child_is_waited_for(tmp_path: Path) -> None:
    family = Family.start(tmp_path, grace_s=2, script=STUBBORN)
    family.close()
    assert ["engine"] == sweep(tmp_path)
    assert [] == family.living()


def test_a_child_without_a_leash_gets_its_stop_signal_first(tmp_path: Path) -> None:
    said = tmp_path / "said"
    with stranger(f"trap 'echo interrupted > {said}; exit' INT; while true; do sleep 0.01; done") as process:
        wait_until(lambda: _catches(process.pid, signal.SIGINT))
        record(tmp_path, child=[process.pid, start_of(process.pid)], signal=int(signal.SIGINT), grace=5)
        sweep(tmp_path)
        assert "interrupted\n" == said.read_text()


def test_nothing_left_is_nothing_reported_and_the_record_goes(tmp_path: Path) -> None:
    path = record(tmp_path)
    assert [] == sweep(tmp_path)
    assert not path.exists()


@pytest.mark.parametrize("who", ["leash", "child"])
def test_a_recycled_pid_is_never_touched(tmp_path: Path, who: str) -> None:
    with stranger() as process:
        record(tmp_path, **{who: [process.pid, start_of(process.pid) - 1]})
        assert [] == sweep(tmp_path)
        assert is_alive(process.pid)


def test_a_recycled_session_is_never_touched(tmp_path: Path) -> None:
    script = f"sleep 1000 & echo $! > {tmp_path}/orphan"  # its session's leader is gone
    with stranger(script) as leader:
        leader.wait()
        orphan = read_pid(tmp_path / "orphan")
        record(tmp_path, child=[leader.pid, 1])
        assert [] == sweep(tmp_path)
        assert is_alive(orphan)
        os.kill(orphan, signal.SIGKILL)


def test_records_of_another_boot_or_container_mean_nothing(tmp_path: Path) -> None:
    with stranger() as process:
        path = record(tmp_path, boot="another", child=[process.pid, start_of(process.pid)])
        assert [] == sweep(tmp_path)
        assert is_alive(process.pid)
        assert not path.exists()


@pytest.mark.parametrize("who", ["leash", "child"])
@pytest.mark.parametrize("pid", [1, os.getpid(), os.getppid()])
def test_we_and_process_1_are_never_survivors(tmp_path: Path, who: str, pid: int) -> None:
    # Asked of the function that only looks: a sweep that got this wrong would end the machine.
    run = survivors.Run.read(record(tmp_path, **{who: [pid, start_of(pid)]}))
    assert run is not None
    found = {one.pid for one in run.survivors(leash.processes())}
    assert not {1, os.getpid(), os.getppid()} & found


def test_a_signal_is_not_sent_to_whoever_took_the_pid() -> None:
    with stranger() as process:
        leash.send(leash.Process(process.pid, "S", 1, 1, start_of(process.pid) - 1), signal.SIGKILL)
        leash.send(leash.Process(process.pid, "S", 1, 1, start_of(process.pid)), signal.SIGTERM)
        assert -signal.SIGTERM == process.wait()


def test_a_broken_record_is_removed_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = record(tmp_path)
    path.write_text("{")
    assert [] == sweep(tmp_path)
    assert "not a record" in caplog.text
    assert not path.exists()


def _catches(pid: int, number: int) -> bool:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False
