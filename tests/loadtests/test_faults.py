"""Signals to processes that the user named, and to nobody else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from loadtests.drive import drive
from loadtests.faults import FaultError, Faults
from loadtests.scenario import Fault
from tests.house import wait_for
from tests.loadtests.plans import plan
from tests.loadtests.servers import GOOD, said, serving


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        yield process
        process.kill()


def fault(do: str, at_s: float = 0.0, **who: str) -> Fault:
    return Fault.model_validate({"at_s": at_s, "do": do, **(who or {"pid_env": "VICTIM"})})


async def test_each_fault_is_done_at_its_time_and_kept_as_an_event(victim: subprocess.Popen[bytes]) -> None:
    began = time.monotonic()
    faults = Faults(
        [fault("kill", 0.3), fault("stop", 0.1), fault("continue", 0.2)], {"VICTIM": str(victim.pid)}
    )
    await faults.strike(lambda: time.monotonic() - began)
    assert ["stop", "continue", "kill"] == [event.do for event in faults.events]
    assert all(0 <= event.at - due < 0.1 for event, due in zip(faults.events, (0.1, 0.2, 0.3), strict=True))
    assert [("VICTIM", victim.pid, "")] * 3 == [
        (event.who, event.pid, event.failed) for event in faults.events
    ]
    assert -signal.SIGKILL == victim.wait(10)


async def test_a_stopped_process_does_nothing(victim: subprocess.Popen[bytes]) -> None:
    await Faults([fault("stop")], {"VICTIM": str(victim.pid)}).strike(lambda: 0.0)
    wait_for("it is stopped", lambda: psutil.Process(victim.pid).status() == "stopped", 10)


async def test_the_pid_is_read_when_the_fault_is_due(victim: subprocess.Popen[bytes], tmp_path: Path) -> None:
    file = tmp_path / "engine.pid"
    file.write_text("999999999\n")
    faults = Faults([fault("kill", pid_file=str(file))])
    file.write_text(f"{victim.pid}\n")
    await faults.strike(lambda: 0.0)
    assert -signal.SIGKILL == victim.wait(10)


async def test_a_fault_that_cannot_be_done_is_an_event_with_its_reason(tmp_path: Path) -> None:
    file = tmp_path / "engine.pid"
    file.write_text("999999999")
    faults = Faults([fault("kill", pid_file=str(file)), fault("stop", 0.01, pid_file=str(file))])
    await faults.strike(lambda: 0.0)
    assert "kill of process 999999999: No such process" == faults.events[0].failed


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "holds '', which is not the pid of a server"),
        ("-5", "holds '-5', which is not the pid of a server"),
        ("0", "holds '0', which is not the pid of a server"),
        ("1", "holds '1', which is not the pid of a server"),
        ("engine", "holds 'engine', which is not the pid of a server"),
        (str(os.getpid()), "which is this load test or what started it"),
        (str(os.getppid()), "which is this load test or what started it"),
    ],
)
def test_nobody_else_is_signalled(text: str, why: str) -> None:
    with pytest.raises(FaultError, match=why):
        Faults([fault("kill")], {"VICTIM": text})


def test_no_ancestor_is_signalled() -> None:
    for ancestor in psutil.Process().parents():
        with pytest.raises(FaultError):
            Faults([fault("kill")], {"VICTIM": str(ancestor.pid)})


def test_a_fault_without_its_process_is_an_error_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(FaultError, match="the environment has no VICTIM; set it to the pid of the process"):
        Faults([fault("kill")], {})
    with pytest.raises(FaultError, match="cannot be read: No such file"):
        Faults([fault("kill", pid_file=str(tmp_path / "none.pid"))])


async def test_a_run_does_its_faults(
    victim: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VICTIM", str(victim.pid))
    async with serving(said(GOOD)) as target:
        asked = plan([0.0, 0.2], seconds=0.5, faults=[{"at_s": 0.3, "do": "kill", "pid_env": "VICTIM"}])
        run = await drive(asked, target)
    assert ["kill"] == [event.do for event in run.events]
    assert abs(run.events[0].at - 0.3) < 0.1
    assert -signal.SIGKILL == victim.wait(10)
