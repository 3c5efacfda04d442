"""Faults done to a server on purpose, at their time in a run: a signal to a process that the user named.

    [[faults]]
    at_s = 20
    do = "kill"               # or "stop" (it hangs), "continue"
    pid_env = "ENGINE_PID"    # or: pid_file = "engine.pid"

Whom to signal is looked up when the fault is due, because a supervisor may have started a new process since.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtests.scenario import Fault

SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "continue": signal.SIGCONT}


class FaultError(ValueError):
    """A fault names no process, or one that it may not signal."""


@dataclass(frozen=True, slots=True)
class Event:
    """What was done `at` seconds from the start of the run. `failed` is "" or says why nothing was done."""

    at: float
    do: str
    who: str  # the variable or the file that named it
    pid: int | None
    failed: str = ""


class Faults:
    """The faults of a run. Raises `FaultError` at once for one that names no process, or a forbidden one."""

    def __init__(self, faults: Sequence[Fault], environ: Mapping[str, str] = os.environ) -> None:
        self._faults = sorted(faults, key=lambda fault: fault.at_s)
        self._environ = environ
        self.events: list[Event] = []
        for fault in self._faults:
            self._pid(fault)

    async def strike(self, clock: Callable[[], float]) -> None:
        """Does each at its time on `clock` (seconds from the run's start). One that fails is an event too."""
        for fault in self._faults:
            await asyncio.sleep(max(0.0, fault.at_s - clock()))
            self.events.append(self._do(fault, clock))

    def _do(self, fault: Fault, clock: Callable[[], float]) -> Event:
        pid, failed = None, ""
        try:
            pid = self._pid(fault)
            os.kill(pid, SIGNALS[fault.do])
        except FaultError as error:
            failed = str(error)
        except OSError as error:  # no such process, or not ours
            failed = f"{fault.do} of process {pid}: {error.strerror}"
        return Event(round(clock(), 6), fault.do, _who(fault), pid, failed)

    def _pid(self, fault: Fault) -> int:
        who = _who(fault)
        try:
            text = Path(fault.pid_file).read_text() if fault.pid_file else self._environ[fault.pid_env or ""]
        except OSError as error:
            raise FaultError(
                f"fault {fault.do!r}: pid file {who} cannot be read: {error.strerror}"
            ) from error
        except KeyError as error:
            raise FaultError(
                f"fault {fault.do!r}: the environment has no {who}; set it to the pid of the process"
            ) from error
        text = text.strip()
        pid = int(text) if text.isascii() and text.isdecimal() else 0
        if pid <= 1:
            raise FaultError(
                f"fault {fault.do!r}: {who} holds {text[:40]!r}, which is not the pid of a server"
            )
        if pid in _ourselves():
            raise FaultError(
                f"fault {fault.do!r}: {who} holds {pid}, which is this load test or what started it"
            )
        return pid


def _who(fault: Fault) -> str:
    return fault.pid_file or fault.pid_env or ""


def _ourselves() -> set[int]:
    """This process and all that it descends from, as far as /proc tells (elsewhere: its parent)."""
    pids = {os.getpid(), os.getppid()}
    pid = os.getppid()
    while pid > 1:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            break
        pid = int(stat.rpartition(")")[2].split()[1])
        pids.add(pid)
    return pids
