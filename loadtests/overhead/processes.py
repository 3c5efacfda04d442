"""Processes of a bench: started on a core of their own, waited for, and ended."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

READY_S = 60.0
STOP_S = 40.0


class CannotBench(RuntimeError):
    """Something that the bench needs is missing or does not start; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Where things run: generator and mock on `load`, the gateway on `gateway`."""

    load: frozenset[int]
    gateway: frozenset[int]

    @classmethod
    def choose(cls, workers: int = 1) -> Cores:
        """The first core for the load, the next `workers` for the gateway. Raises `CannotBench`."""
        ours = sorted(os.sched_getaffinity(0))
        if len(ours) < 2:
            raise CannotBench("a bench needs two cores: one for the load, one for the gateway")
        return cls(frozenset(ours[:1]), frozenset(ours[1 : 1 + workers]))


class Pinned:
    """`with Pinned(...)` runs a command on `cores` until the block ends. Its output goes to `log`."""

    def __init__(
        self,
        command: Sequence[str],
        cores: frozenset[int],
        log: Path,
        ready_url: str,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._command = list(command)
        self._cores = cores
        self._log = log
        self._ready_url = ready_url
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Pinned:
        ours = os.sched_getaffinity(0)
        # A child inherits the affinity of the thread that starts it: nothing has to run after the fork.
        os.sched_setaffinity(0, self._cores)
        try:
            with self._log.open("ab") as sink:
                self._process = subprocess.Popen(
                    self._command, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL, env=self._environment
                )
        except OSError as error:
            raise CannotBench(f"cannot start {self._command[0]}: {error.strerror}") from error
        finally:
            os.sched_setaffinity(0, ours)
        try:
            self._until_ready()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _until_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while True:
            if self._process is not None and self._process.poll() is not None:
                raise CannotBench(f"{self._command[0]} ended at once:\n{_tail(self._log)}")
            try:
                get(self._ready_url)
                return
            except OSError as error:
                if time.monotonic() > deadline:
                    message = f"{self._command[0]} is not ready after {READY_S:.0f} s ({error})"
                    raise CannotBench(f"{message}:\n{_tail(self._log)}") from error
            time.sleep(0.05)

    def _end(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def get(url: str) -> bytes:
    """The body at a loopback URL. Raises `OSError` (an error status is one)."""
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 (a URL of ours)
        content: bytes = answer.read()
        return content


def free_port() -> int:
    """A port of the loopback address that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]
