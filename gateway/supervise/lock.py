"""One run per state directory."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType

ASKERS_S = 0.2
"""`holder()` takes the lock for an instant to ask; somebody who only asks must not turn a start away."""


class Locked(Exception):
    """Another process holds the lock; `pid` is its process id when it is known."""

    def __init__(self, message: str, pid: int | None) -> None:
        super().__init__(message)
        self.pid = pid


class Lock:
    """An flock on `<state_dir>/<name>.lock`; the kernel drops it when we end, however we end.

    The file is never removed: removing it would let two processes lock two files of one name.
    """

    def __init__(self, state_dir: Path, name: str = "hotswap") -> None:
        self.path = state_dir / f"{name}.lock"
        self._state_dir = state_dir
        self._fd: int | None = None

    def acquire(self, *, patience_s: float = ASKERS_S) -> None:
        """Take it or raise `Locked`."""
        self._state_dir.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(0.01)
                    continue
                pid = _read_pid(fd)
                os.close(fd)
                raise Locked(
                    f"{self._state_dir} is in use by process {pid or 'unknown'}; stop it with "
                    "`hotswap down`, or choose another state_dir",
                    pid,
                ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd

    def release(self) -> None:
        """Give it up; nothing when it is not held."""
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None

    def holder(self) -> int | None:
        """Pid of the process that holds it now, or None when nobody does."""
        try:
            fd = os.open(self.path, os.O_RDWR)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read_pid(fd)
        finally:
            os.close(fd)
        return None

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _read_pid(fd: int) -> int | None:
    text = os.pread(fd, 32, 0).strip()
    return int(text) if text.isdigit() else None
