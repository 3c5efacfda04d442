"""What a killed run left behind, and how it is ended without touching anybody else's process."""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gateway.supervise import leash
from gateway.supervise.leash import Process

log = logging.getLogger(__name__)

POLL_S = 0.02
KILL_S = 5.0


class Unkillable(Exception):
    """A process of an earlier run does not die; the message names it and what to do."""


def record_path(state_dir: Path, name: str) -> Path:
    """Where the leash of child `name` keeps its record."""
    return state_dir.absolute() / "run" / f"{name}.json"


def sweep(state_dir: Path) -> list[str]:
    """End what earlier runs in `state_dir` left running; the names of the children that had survivors.

    Blocks until they are gone: each gets its own stop signal (Postgres SIGINT) and its grace first. Call it
    under `Lock`. Raises `Unkillable`.
    """
    return end(sorted(record_path(state_dir, "").parent.glob("*.json")))


def end(records: Iterable[Path]) -> list[str]:
    """As `sweep`, for these records; each is removed once nothing of it runs."""
    runs = [run for path in records if (run := Run.read(path)) is not None]
    started = time.monotonic()
    table = leash.processes()
    names = [run.path.stem for run in runs if run.survivors(table)]
    for run in runs:
        run.ask(table)
    while runs:
        table = leash.processes()
        waited = time.monotonic() - started
        for run in list(runs):
            left = run.survivors(table)
            if not left:
                run.path.unlink(missing_ok=True)
                runs.remove(run)
            elif waited > run.grace_s + 2 * KILL_S:
                pids = ", ".join(str(one.pid) for one in left)
                raise Unkillable(
                    f"process {pids} of an earlier run of {run.path.stem} does not end, not even by SIGKILL; "
                    "end it by hand (or reboot), then start again"
                )
            elif waited > run.grace_s + KILL_S / 2 or not run.leaders(table):
                for one in left:
                    leash.send(one, signal.SIGKILL)
        if runs:
            time.sleep(POLL_S)
    return names


@dataclass(frozen=True, slots=True)
class Run:
    """One child of an earlier run, as its leash recorded it. Pairs are (pid, start in ticks since boot)."""

    path: Path
    leash: tuple[int, int]
    child: tuple[int, int]
    stop_signal: int
    grace_s: float
    log: tuple[int, int]
    token: str

    @classmethod
    def read(cls, path: Path) -> Run | None:
        """None, and the record removed, when it is from another boot or container: its pids mean nothing."""
        try:
            found = json.loads(path.read_text())
            if found["boot"] == leash.boot():
                return cls(
                    path,
                    leash=(found["leash"][0], found["leash"][1]),
                    child=(found["child"][0], found["child"][1]),
                    stop_signal=found["signal"],
                    grace_s=found["grace"],
                    log=(found["log"][0], found["log"][1]),
                    token=found["token"],
                )
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, IndexError, TypeError) as error:
            log.warning("removing %s, which is not a record of a child: %r", path, error)
        path.unlink(missing_ok=True)
        return None

    def leaders(self, table: dict[int, Process]) -> list[Process]:
        """The leash and the child themselves, as far as they live; the leash first."""
        found = (table.get(pid) for pid, _ in (self.leash, self.child))
        starts = (self.leash[1], self.child[1])
        ours = _ourselves(table)
        return [
            one
            for one, start in zip(found, starts, strict=True)
            if one is not None and one.start == start and one.state != "Z" and one.pid not in ours
        ]

    def survivors(self, table: dict[int, Process]) -> list[Process]:
        """Every process that is certainly of this run.

        Certain are: the leash and the child by pid *and* start; whoever descends from them; whoever has the
        token in its environment; and, because Postgres and setproctitle overwrite what /proc shows of the
        environment, whoever is in the child's session and writes to its log. A pid or session id alone is
        never enough: they are recycled. Whatever a record says, process 1, we and those we descend from are
        never of it: a mistake here would end the machine.
        """
        ours = _ourselves(table)
        found = {one.pid: one for one in self.leaders(table)}
        for one in table.values():
            if one.start < self.child[1] or one.pid in ours:
                continue
            if self._has_token(one.pid) or (one.session == self.child[0] and self._writes_log(one.pid)):
                found[one.pid] = one
        # None of these is above us, so we are not below any of them either.
        for one in list(found.values()):
            found |= {below.pid: below for below in leash.descendants(table, one.pid)}
        return [one for one in found.values() if one.state != "Z"]

    def ask(self, table: dict[int, Process]) -> None:
        """Ask for a clean end: the leash does it all; without it the child gets its stop signal."""
        leaders = self.leaders(table)
        if leaders:
            is_leash = leaders[0].pid == self.leash[0]
            leash.send(leaders[0], signal.SIGTERM if is_leash else self.stop_signal)

    def _has_token(self, pid: int) -> bool:
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:  # gone, or somebody else's
            return False
        return f"{leash.MARK}={self.token}".encode() in environment.split(b"\0")

    def _writes_log(self, pid: int) -> bool:
        for number in (1, 2):
            try:
                status = os.stat(f"/proc/{pid}/fd/{number}")
            except OSError:
                continue
            if (status.st_dev, status.st_ino) == self.log:
                return True
        return False


def _ourselves(table: dict[int, Process]) -> set[int]:
    """Process 1, this process and those it descends from."""
    found = {1}
    pid = os.getpid()
    while pid in table and pid not in found:
        found.add(pid)
        pid = table[pid].parent
    return found
