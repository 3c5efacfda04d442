"""A command on a leash: it and its descendants end when we do."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gateway.supervise import leash, survivors
from gateway.supervise.logfile import Tail, open_log

FOLLOW_INTERVAL_S = 0.1


class Child:
    """One command under `leash`. `start()` may be called again once it has ended.

    `name` names it in `<state_dir>/run/<name>.json`, which `sweep` reads. stdout and stderr go straight to
    `log_path` (appended), so a stall of ours never blocks the command; `on_line` is called with each line of
    it, read back from the file. `env` replaces the environment. `identity` is the (uid, gid) to run as.
    `stop_signal` asks it to end; `grace_s` later it and all its descendants are killed. Restarting is the
    caller's business: `wait()` says when it ended.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | os.PathLike[str]],
        *,
        state_dir: Path,
        log_path: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        identity: tuple[int, int] | None = None,
        stop_signal: int = signal.SIGTERM,
        grace_s: float = 20.0,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        self.name = name
        self.command = [os.fspath(part) for part in command]
        self.log_path = log_path
        self.pid: int | None = None
        self.leash_pid: int | None = None
        self._record = survivors.record_path(state_dir, name)
        self._env = env
        self._cwd = cwd
        self._identity = identity
        self._stop_signal = stop_signal
        self._grace_s = grace_s
        self._on_line = on_line
        self._lifeline: int | None = None
        self._run: asyncio.Task[int] | None = None

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._run is not None and not self._run.done()

    async def start(self) -> int:
        """Start the command; its pid. Raises `OSError` when it cannot be run, naming it."""
        if self.running:
            raise RuntimeError(f"{self.name} already runs as process {self.pid}; stop() it first")
        tail = Tail(self.log_path) if self._on_line else None
        ours, theirs = os.pipe()
        leash_process = await asyncio.to_thread(self._launch, theirs)
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours, "rb", 0)
            )
            kind, _, rest = (await reader.readline()).decode().strip().partition(" ")
        except BaseException:
            self._let_go()
            raise
        self.leash_pid = leash_process.pid
        self.pid = int(rest) if kind == "pid" else None
        # Owned by this object: wait() and stop() await it and see its failure.
        self._run = asyncio.create_task(
            self._follow(leash_process, reader, transport, tail), name=f"child {self.name}"
        )
        if self.pid is None:
            await self.wait()
            number, _, text = rest.partition(" ")
            if kind == "error":
                raise OSError(int(number), f"cannot start {self.name}: {text}", self.command[0])
            raise OSError(f"the leash of {self.name} ended before it started it; see {self.log_path}")
        return self.pid

    async def wait(self) -> int:
        """Wait until it ended and all its descendants with it; its exit code, -n when signal n ended it."""
        if self._run is None:
            raise RuntimeError(f"{self.name} was never started")
        return await asyncio.shield(self._run)

    async def stop(self) -> int:
        """End it: `stop_signal`, `grace_s`, then SIGKILL; its exit code as for `wait()`."""
        self._let_go()
        return await self.wait()

    def _launch(self, report: int) -> subprocess.Popen[bytes]:
        self._record.parent.mkdir(parents=True, exist_ok=True)
        lifeline, self._lifeline = os.pipe()
        environment = {**(os.environ if self._env is None else self._env), leash.MARK: secrets.token_hex(16)}
        identity = "-" if self._identity is None else "{}:{}".format(*self._identity)
        line = [str(self._record), str(lifeline), str(report), str(int(self._stop_signal))]
        line += [str(self._grace_s), identity, *self.command]
        try:
            with open_log(self.log_path) as log:
                return subprocess.Popen(
                    [sys.executable, "-I", "-S", leash.__file__, *line],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    cwd=self._cwd,
                    pass_fds=(lifeline, report),
                    start_new_session=True,  # a Ctrl-C in our terminal is ours to handle
                )
        except BaseException:
            self._let_go()
            raise
        finally:
            os.close(lifeline)
            os.close(report)

    def _let_go(self) -> None:
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None

    async def _follow(
        self,
        leash_process: subprocess.Popen[bytes],
        report: asyncio.StreamReader,
        transport: asyncio.BaseTransport,
        tail: Tail | None,
    ) -> int:
        ended = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                if tail is not None:
                    group.create_task(self._tell_lines(tail, ended))
                last = (await report.read()).decode().strip()
                ended.set()
        finally:
            self._let_go()
            transport.close()
        await asyncio.to_thread(leash_process.wait)
        if last.startswith("exit "):
            return int(last.removeprefix("exit "))
        # The leash itself was killed: the kernel killed the command, what it had started is ours to end.
        await asyncio.to_thread(survivors.end, [self._record])
        return -signal.SIGKILL

    async def _tell_lines(self, tail: Tail, ended: asyncio.Event) -> None:
        assert self._on_line is not None
        last = False
        while not last:
            last = ended.is_set()
            for line in tail.lines():
                self._on_line(line)
            if not last:
                try:
                    await asyncio.wait_for(ended.wait(), FOLLOW_INTERVAL_S)
                except TimeoutError:
                    continue
