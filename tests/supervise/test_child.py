"""A child and its descendants end when they should, whoever is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.supervise import Child
from gateway.supervise.logfile import ROTATE_BYTES
from tests.supervise.family import (
    FAMILY,
    STUBBORN,
    WAITS,
    Family,
    eventually,
    is_alive,
    read_pid,
    wait_until,
)


def child_of(folder: Path, *command: str, **options: object) -> Child:
    options.setdefault("grace_s", 5.0)
    return Child("x", command, state_dir=folder, log_path=folder / "x.log", **options)  # type: ignore[arg-type]


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    started = Family.start(tmp_path)
    yield started
    started.close()


async def test_wait_gives_the_exit_code(tmp_path: Path) -> None:
    child = child_of(tmp_path, "sh", "-c", "exit 3")
    await child.start()
    assert await child.wait() == 3


async def test_wait_gives_minus_the_signal_that_ended_it(tmp_path: Path) -> None:
    child = child_of(tmp_path, "sh", "-c", "kill -9 $$")
    await child.start()
    assert await child.wait() == -signal.SIGKILL


async def test_start_gives_the_pid_of_the_command_itself(tmp_path: Path) -> None:
    child = child_of(tmp_path, "sh", "-c", "echo $$")
    pid = await child.start()
    await child.wait()
    assert str(pid) == (tmp_path / "x.log").read_text().strip()


async def test_a_command_that_does_not_exist_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"cannot start x.*/no/such/command"):
        await child_of(tmp_path, "/no/such/command").start()
    assert [] == list((tmp_path / "run").iterdir())


async def test_it_can_be_started_again_once_it_ended(tmp_path: Path) -> None:
    child = child_of(tmp_path, "sh", "-c", "exit 0")
    pids = set()
    for _ in range(2):
        pids.add(await child.start())
        await child.wait()
    assert len(pids) == 2


async def test_starting_it_while_it_runs_is_an_error(tmp_path: Path) -> None:
    child = child_of(tmp_path, "sleep", "1000")
    await child.start()
    with pytest.raises(RuntimeError, match="already runs"):
        await child.start()
    await child.stop()


async def test_stop_sends_the_stop_signal(tmp_path: Path) -> None:
    child = child_of(
        tmp_path, "sh", "-c", "trap 'exit 7' INT; echo up; while true; do sleep 0.01; done", stop_signal=2
    )
    await child.start()
    await eventually(lambda: "up" in (tmp_path / "x.log").read_text())
    assert await child.stop() == 7


async def test_stop_kills_after_the_grace(tmp_path: Path) -> None:
    child = child_of(tmp_path, "sh", "-c", STUBBORN, str(tmp_path), grace_s=0.3)
    await child.start()
    await eventually(lambda: "ready" in (tmp_path / "x.log").read_text())
    began = time.monotonic()
    assert await child.stop() == -signal.SIGKILL
    assert 0.3 <= time.monotonic() - began < 3


async def test_stop_ends_grandchildren_and_daemons(tmp_path: Path) -> None:
    child = child_of(tmp_path, "sh", "-c", WAITS, str(tmp_path))
    await child.start()
    await eventually(lambda: "ready" in (tmp_path / "x.log").read_text())
    await child.stop()
    assert [] == [name for name in ("grandchild", "daemon") if is_alive(read_pid(tmp_path / name))]


async def test_a_child_that_ends_by_itself_takes_its_descendants_with_it(tmp_path: Path) -> None:
    child = child_of(tmp_path, "sh", "-c", FAMILY + "exit 0", str(tmp_path))
    await child.start()
    assert await child.wait() == 0
    assert [] == [name for name in ("grandchild", "daemon") if is_alive(read_pid(tmp_path / name))]


def test_kill_9_of_us_ends_everything(family: Family) -> None:
    family.parent.kill()
    wait_until(lambda: [] == family.living(), within_s=5)


def test_kill_9_of_us_ends_even_those_that_ignore_sigterm(tmp_path: Path) -> None:
    family = Family.start(tmp_path, grace_s=0.3, script=STUBBORN)
    family.close()
    wait_until(lambda: [] == family.living(), within_s=5)


def test_the_record_goes_when_all_is_over(family: Family, tmp_path: Path) -> None:
    record = tmp_path / "run" / "engine.json"
    assert [family.leash, family.child] == [
        json.loads(record.read_text())[who][0] for who in ("leash", "child")
    ]
    family.parent.kill()
    wait_until(lambda: not record.exists())


def test_kill_9_of_the_leash_kills_the_child(family: Family) -> None:
    os.kill(family.parent.pid, signal.SIGSTOP)  # else it would sweep, and this test shows the kernel's part
    os.kill(family.leash, signal.SIGKILL)
    wait_until(lambda: not is_alive(family.child), within_s=5)
    os.kill(family.parent.pid, signal.SIGCONT)


async def test_kill_9_of_the_leash_ends_everything_and_wait_says_so(tmp_path: Path) -> None:
    child = child_of(tmp_path, "sh", "-c", WAITS, str(tmp_path))
    await child.start()
    await eventually(lambda: "ready" in (tmp_path / "x.log").read_text())
    assert child.leash_pid is not None
    os.kill(child.leash_pid, signal.SIGKILL)
    assert await child.wait() == -signal.SIGKILL
    assert [] == [name for name in ("grandchild", "daemon") if is_alive(read_pid(tmp_path / name))]


async def test_a_ctrl_c_in_our_terminal_does_not_reach_it(tmp_path: Path) -> None:
    child = child_of(tmp_path, "sleep", "1000")
    pid = await child.start()
    assert child.leash_pid is not None
    assert os.getpgrp() not in (os.getpgid(pid), os.getpgid(child.leash_pid))
    await child.stop()


async def test_the_command_starts_with_default_signals(tmp_path: Path) -> None:
    program = "import signal; print([s.name for s in signal.valid_signals() if s < 32 and "
    program += "signal.getsignal(s) is signal.SIG_IGN])"
    # Python itself ignores SIGPIPE and SIGXFSZ.
    child = child_of(tmp_path, sys.executable, "-c", program)
    await child.start()
    await child.wait()
    ignored = (tmp_path / "x.log").read_text()
    assert [] == [name for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM") if name in ignored]


async def test_lines_of_the_log_are_reported_as_they_come_and_to_the_end(tmp_path: Path) -> None:
    lines: list[str] = []
    (tmp_path / "x.log").write_text("of an earlier run\n")
    script = "echo one; while ! test -e go; do sleep 0.01; done; echo two; echo three >&2"
    child = child_of(tmp_path, "sh", "-c", script, cwd=tmp_path, on_line=lines.append)
    await child.start()
    await eventually(lambda: lines == ["one"])
    (tmp_path / "go").touch()
    await child.wait()
    assert ["one", "two", "three"] == lines


async def test_a_stall_of_ours_does_not_block_the_child(tmp_path: Path) -> None:
    # More than a pipe holds, while this test (the reader) does nothing.
    child = child_of(
        tmp_path, "sh", "-c", "head -c 1000000 /dev/zero; touch done", cwd=tmp_path, on_line=print
    )
    await child.start()
    wait_until((tmp_path / "done").exists)  # blocks the event loop: that is the stall
    assert 0 == await child.wait()


async def test_a_large_log_is_rotated_at_start(tmp_path: Path) -> None:
    lines: list[str] = []
    with (tmp_path / "x.log").open("wb") as file:
        file.truncate(ROTATE_BYTES + 1)
    child = child_of(tmp_path, "echo", "fresh", on_line=lines.append)
    await child.start()
    await child.wait()
    assert ("fresh\n", ["fresh"]) == ((tmp_path / "x.log").read_text(), lines)
    assert ROTATE_BYTES + 1 == (tmp_path / "x.log.1").stat().st_size


async def test_cancelling_wait_leaves_the_child_running(tmp_path: Path) -> None:
    child = child_of(tmp_path, "sleep", "1000")
    await child.start()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(child.wait(), 0.05)
    assert child.running
    await child.stop()
