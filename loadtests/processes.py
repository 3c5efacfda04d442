"""A run from several processes at once, for loads that one core cannot offer.

Each process reads the whole plan and drives its share: requests take turns, conversations stay whole. The
processes start at one instant of CLOCK_MONOTONIC, which they share; their samples come back by file. What a
process is told comes by its standard input, the key too, so that it shows in no list of processes.

    parent                          child (python -m loadtests.processes)
    {"plan": ..., "share": 1, ...}  →
                                    ← "ready"      its connections are open, its requests encoded
    12345.678                       →              when to start
                                    ← {"at": ...}  progress, twice a second
                                    ← "done"       its samples are in the file
"""

from __future__ import annotations

import asyncio
import os
import selectors
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import msgspec
import uvloop

from loadtests.arrivals import Closed
from loadtests.client import addresses
from loadtests.drive import Driven, Progress, Share, Tell, drive_share
from loadtests.faults import Faults
from loadtests.lateness import judge
from loadtests.plan import Plan
from loadtests.target import Target

HEAD_START_S = 0.25
"""From the last process's being ready to the start."""

GRACE_S = 60.0
"""How much longer than its plan a process may take to hand over its samples."""

READY_S = 600.0


class ProcessDied(RuntimeError):
    """A generator process ended before its share was done, or was never ready. It says which, and why."""


@dataclass(frozen=True, slots=True)
class _Job:
    plan: str
    share: int
    of: int
    url: str
    key: str | None
    headers: Mapping[str, str]
    out: str
    told: bool


def drive_in_processes(
    plan: Plan, target: Target, processes: int, tell: Callable[[Progress], None] | None = None
) -> Driven:
    """As `drive`, from `processes` processes. Blocks until the run is over; `tell` hears of all together.

    Raises what `drive` raises, and `ProcessDied` when a process ends early; the others are then ended too.
    Not for use inside a running loop: it would block it (`asyncio.to_thread`).
    """
    # What is wrong with these is told here, and not by a process.
    Faults(plan.scenario.faults)
    asyncio.run(addresses(target))
    n = _most(plan, processes)
    with tempfile.TemporaryDirectory(prefix="hotswap-bench-") as folder, ExitStack() as stack:
        path = Path(folder, "plan.jsonl")
        plan.save(path)
        children = []
        for i in range(n):
            job = _Job(
                plan=str(path),
                share=i,
                of=n,
                url=target.url,
                key=target.key,
                headers=target.headers,
                out=f"{folder}/{i}.share",
                told=tell is not None,
            )
            children.append(stack.enter_context(_Child(job, Path(folder, f"{i}.err"))))
        for child in children:
            child.say(child.job)
        listen = _Listener(children, tell)
        listen.until("ready", READY_S)
        start = time.monotonic() + HEAD_START_S
        for child in children:
            child.say(start)
        client = plan.scenario.client
        listen.until("done", HEAD_START_S + plan.scenario.total_s + client.drain_s + GRACE_S)
        shares = [msgspec.msgpack.decode(Path(child.job.out).read_bytes(), type=Share) for child in children]
    samples = sorted(
        (sample for share in shares for sample in share.samples), key=lambda sample: sample.index
    )
    events = tuple(event for share in shares for event in share.events)
    return Driven(
        samples,
        min(share.started for share in shares),
        judge([share.kept for share in shares], client),
        events,
    )


def share_of(plan: Plan, share: int, of: int) -> Plan:
    """What process `share` (from 0) `of` that many sends: units in turn, and its part of the limits.

    A unit is a request without a session, or all turns of one session. The first process does the faults.
    """
    units: dict[str | int, int] = {}
    mine = []
    for request in plan.requests:
        unit = units.setdefault(request.index if request.session is None else request.session, len(units))
        if unit % of == share:
            mine.append(request)
    scenario = plan.scenario
    client = scenario.client.model_copy(
        update={"max_open": max(1, _part(scenario.client.max_open, share, of))}
    )
    changed: dict[str, Any] = {"client": client, "faults": scenario.faults if share == 0 else ()}
    if isinstance(scenario.arrivals, Closed):
        concurrency = _part(scenario.arrivals.concurrency, share, of)
        changed["arrivals"] = scenario.arrivals.model_copy(update={"concurrency": concurrency})
    return replace(plan, scenario=scenario.model_copy(update=changed), requests=tuple(mine))


def _part(whole: int, share: int, of: int) -> int:
    """`whole` in `of` parts that add up to it and differ by 1 at most."""
    return whole * (share + 1) // of - whole * share // of


def _most(plan: Plan, processes: int) -> int:
    """No process without anything to do: at most one a request, or one a client of a closed loop."""
    arrivals = plan.scenario.arrivals
    clients = arrivals.concurrency if isinstance(arrivals, Closed) else len(plan.requests)
    return max(1, min(processes, clients))


class _Child:
    """One generator process. Leaving the context kills it if it still runs."""

    def __init__(self, job: _Job, errors: Path) -> None:
        self.job = job
        self.name = f"generator process {job.share + 1} of {job.of}"
        self._errors = errors
        self.progress: Progress | None = None
        self.said: set[str] = set()
        self._line = b""

    def __enter__(self) -> _Child:
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "loadtests.processes"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    @property
    def output(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout

    def say(self, value: Any) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(msgspec.json.encode(value) + b"\n")
        except BrokenPipeError:
            raise self.died() from None

    def hear(self) -> None:
        """Takes in what it has said. Raises `ProcessDied` when that was its last and it was not done."""
        data = os.read(self.output.fileno(), 65536)
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            word = msgspec.json.decode(line)
            if isinstance(word, str):
                self.said.add(word)
            else:
                self.progress = msgspec.convert(word, Progress)
        if not data and "done" not in self.said:
            raise self.died()

    def died(self) -> ProcessDied:
        code = self._process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        last = self._errors.read_text(errors="replace").strip().splitlines()[-1:]
        return ProcessDied(f"{self.name} {how}{': ' + last[0] if last else ''}")


@dataclass
class _Listener:
    children: list[_Child]
    tell: Tell | None
    _told: float = field(default=0.0)

    def until(self, word: str, seconds: float) -> None:
        """Listens until all have said `word`. Raises `ProcessDied` for one that cannot, or takes too long."""
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            for child in self.children:
                selector.register(child.output, selectors.EVENT_READ, child)
            while waiting := [child for child in self.children if word not in child.said]:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise ProcessDied(f"{waiting[0].name} was not {word} after {seconds:g} s")
                for key, _ in selector.select(left):
                    key.data.hear()
                    if word in key.data.said:
                        selector.unregister(key.fileobj)
                self._tell()

    def _tell(self) -> None:
        now = time.monotonic()
        parts = [child.progress for child in self.children if child.progress is not None]
        if self.tell is None or now - self._told < 0.5 or len(parts) < len(self.children):
            return
        self._told = now
        sums = ("due", "sent", "in_flight", "answered", "errors", "dropped")
        self.tell(
            Progress(
                at=max(part.at for part in parts),
                lag_s=max(part.lag_s for part in parts),
                **{name: sum(getattr(part, name) for part in parts) for name in sums},
            )
        )


def _child() -> None:
    """One process: all that it is told comes by standard input, all that it says goes to standard output."""

    def say(value: Any) -> None:
        os.write(1, msgspec.json.encode(value) + b"\n")

    def orphaned() -> None:
        """Ends this process, and so its load, when the one that started it is gone."""
        sys.stdin.buffer.readline()
        os._exit(1)

    async def begin() -> float:
        say("ready")
        line = await asyncio.to_thread(sys.stdin.buffer.readline)
        if not line:
            sys.exit("the load test that started this process is gone")
        threading.Thread(target=orphaned, daemon=True).start()
        return float(line)

    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=_Job)
    plan = share_of(Plan.read(Path(job.plan)), job.share, job.of)
    target = Target(job.url, job.key, job.headers)
    share = uvloop.run(drive_share(plan, target, tell=say if job.told else None, begin=begin))
    Path(job.out).write_bytes(msgspec.msgpack.encode(share, enc_hook=list))
    say("done")


if __name__ == "__main__":
    _child()
