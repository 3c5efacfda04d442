"""The trainer as a child process: what it is told (a JSON file) and what it tells (lines of JSON).

    python -m training SPEC.json

    {"event": "started", "hyperparameters": {"n_epochs": 3, ...}}
    {"event": "checked", "rows": 58}                                      of a spec with "check": true
    {"event": "built", "lineage": {...}, "rows": 270, "held_out": 30}     of one with "build"
    {"event": "proved", "card": {...}}                                    of one with "prove"
    {"event": "step", "step": 1, "total": 12, "loss": 4.9, "eta_s": 20.1}
    {"event": "validated", "step": 10, "loss": 4.1, "accuracy": 0.3}
    {"event": "checkpoint", "step": 10}
    {"event": "done", "trained_tokens": 4711, "checkpoints": {"10": ".../step-10"}}
    {"event": "error", "code": "invalid_training_file", "message": "...", "param": "training_file"}

SIGTERM asks it to save a checkpoint and end; started again with the same spec it goes on from there.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.supervise import Child

Command = Callable[[Path], Sequence[str]]
"""From a spec's path to the trainer's command line."""

OURS = ("HOTSWAP_JOBS_", "HOTSWAP_WORKER_", "HOTSWAP_API_KEY")
"""Of our environment, what the trainer has no business to know."""


def local(python: Path | None) -> Command:
    """The trainer on this machine, behind everything that serves requests."""
    interpreter = str(python or sys.executable)
    nice = [sys.executable, "-m", "gateway.supervise.background"]
    return lambda spec: [*nice, interpreter, "-m", "training", str(spec)]


class Trainer:
    """One run of it. Iterate over `events()`; then `status` is how it ended."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        state_dir: Path,
        log: Path,
        device: str | None,
        stop_s: float,
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        self.log = log
        self.status: int | None = None
        environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        if device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = device
        self._child = Child(
            name,
            command,
            state_dir=state_dir,
            log_path=log,
            env=environment | {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"} | dict(secrets or {}),
            grace_s=stop_s,
            on_line=self._lines.put_nowait,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[AsyncIterator[Mapping[str, Any]]]:
        """What it tells, as it tells it, until it has ended; it is stopped when the block is left."""
        await self._child.start()
        ending = asyncio.create_task(self._end())
        try:
            async with aclosing(self._events()) as events:
                yield events
        finally:
            await self._child.stop()
            await ending

    async def stop(self) -> None:
        """SIGTERM, and waits for the end."""
        await self._child.stop()

    async def _end(self) -> None:
        try:
            self.status = await self._child.wait()
        finally:
            self._lines.put_nowait(None)

    async def _events(self) -> AsyncGenerator[Mapping[str, Any], None]:
        while (line := await self._lines.get()) is not None:
            if not line.startswith('{"event"'):
                continue  # a warning of some library; it is in the log
            try:
                event = json.loads(line)
            except ValueError:
                continue
            yield event

    def last_words(self) -> str:
        """The end of its log, for whoever asks why."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - 2000))
                return file.read().decode(errors="replace").strip()[-800:]
        except OSError:
            return ""
