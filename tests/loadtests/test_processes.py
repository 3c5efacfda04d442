"""A run from several processes: shares that add up, one start, and no hang when one dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import psutil
import pytest

from loadtests.drive import Progress, Target
from loadtests.faults import FaultError
from loadtests.processes import ProcessDied, drive_in_processes, share_of
from loadtests.sample import Outcome
from loadtests.scenario import Closed
from loadtests.target import TargetError
from tests.house import free_port, wait_for
from tests.loadtests.plans import closed, plan
from tests.loadtests.servers import GOOD, Reply, said, serving


@contextlib.contextmanager
def background(reply: Reply) -> Iterator[Target]:
    """`serving` on a loop in a thread of its own, because a run in several processes blocks."""
    loop, ready = asyncio.new_event_loop(), threading.Event()
    found: list[Target] = []

    async def main() -> None:
        async with serving(reply) as target:
            found.append(target)
            ready.set()
            await over.wait()

    over = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    assert ready.wait(10)
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)
        loop.close()


def test_samples_of_all_processes_come_back_in_order() -> None:
    with background(said(GOOD, keep=True)) as target:
        run = drive_in_processes(plan([i / 50 for i in range(50)]), target, 2)
    assert list(range(50)) == [sample.index for sample in run.samples]
    assert {Outcome.OK} == {sample.outcome for sample in run.samples}
    assert all(abs((sample.begun or 9) - sample.at) < 0.2 for sample in run.samples)
    assert 2 == run.generator.processes
    assert sorted(sample.lag or 0.0 for sample in run.samples)[-1] == pytest.approx(run.generator.lag_max)


def test_progress_is_of_all_processes_together() -> None:
    told: list[Progress] = []
    with background(said(GOOD)) as target:
        drive_in_processes(plan([i / 20 for i in range(30)]), target, 2, told.append)
    assert told
    assert told[-1].due > 15


def test_the_key_shows_in_no_list_of_processes() -> None:
    seen: list[str] = []

    def look(progress: Progress) -> None:
        for child in psutil.Process().children():
            seen.append(" ".join(child.cmdline()) + str(child.environ()))

    with background(said(GOOD)) as target:
        drive_in_processes(plan([0.0, 0.7]), target, 2, look)
    assert seen
    assert not any("a-key" in each for each in seen)


def test_a_process_that_dies_ends_the_run_and_is_named() -> None:
    def kill_one() -> None:
        children = wait_for("there are two", lambda: len(found := generators()) == 2 and found, 30)
        os.kill(children[1].pid, signal.SIGKILL)

    def generators() -> list[psutil.Process]:
        return [each for each in psutil.Process().children() if "loadtests.processes" in each.cmdline()]

    killer = threading.Thread(target=kill_one)
    with background(said(GOOD)) as target:
        killer.start()
        with pytest.raises(ProcessDied, match=r"generator process [12] of 2 was killed by signal 9"):
            drive_in_processes(plan([0.0, 30.0]), target, 2)
        killer.join()
    assert [] == generators()


def test_what_a_process_says_before_it_ends_is_in_the_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho first >&2; echo the reason >&2; exit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(broken))
    with pytest.raises(ProcessDied, match=r"generator process [12] of 2 ended with status 3: the reason"):
        drive_in_processes(plan([0.0, 0.1]), Target(f"http://127.0.0.1:{free_port()}"), 2)


def test_a_host_that_nobody_knows_is_told_before_anything_starts() -> None:
    with pytest.raises(TargetError, match="cannot be resolved"):
        drive_in_processes(plan([0.0, 0.1]), Target("http://nowhere.invalid"), 2)


def test_a_wrong_fault_is_told_before_anything_starts() -> None:
    asked = plan([0.0, 0.1], faults=[{"at_s": 0.0, "do": "kill", "pid_env": "NOBODY_SET_THIS"}])
    with pytest.raises(FaultError, match="NOBODY_SET_THIS"):
        drive_in_processes(asked, Target(f"http://127.0.0.1:{free_port()}"), 2)


def test_shares_add_up_and_sessions_stay_whole() -> None:
    sessions = ["a", None, "b", "a", "c", "b", None, "a"]
    whole = plan([float(i) for i in range(8)], sessions=sessions, client={"max_open": 10})
    shares = [share_of(whole, i, 3) for i in range(3)]
    assert list(range(8)) == sorted(request.index for share in shares for request in share.requests)
    owners = [{request.session for request in share.requests} - {None} for share in shares]
    assert 3 == len(list(chain.from_iterable(owners))) == len(set(chain.from_iterable(owners)))
    assert 10 == sum(share.scenario.client.max_open for share in shares)


def test_only_the_first_process_does_the_faults() -> None:
    whole = plan([0.0, 1.0], faults=[{"at_s": 0.5, "do": "kill", "pid_env": "E"}])
    assert [1, 0] == [len(share_of(whole, i, 2).scenario.faults) for i in range(2)]


def test_the_clients_of_a_closed_loop_are_divided() -> None:
    parts = [share_of(closed(20, 5), i, 3).scenario.arrivals for i in range(3)]
    assert 5 == sum(part.concurrency for part in parts if isinstance(part, Closed))
