"""Checkpoints of a run: which of them are whole, and which is the last."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.disk import sync

if TYPE_CHECKING:
    from training.mirror import Mirror

MARK = "whole.json"
PREFIX = "checkpoint-"
"""Of the folders that transformers writes."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A run after `step` optimizer steps, which took `seconds` and `cpu_seconds` of training until then."""

    folder: Path
    step: int
    seconds: float
    cpu_seconds: float


class Checkpoints:
    """The checkpoints of the run that is known as `run`, in a folder of its own below `folder`, and in an
    object store where there is a `mirror`.

    transformers writes them file by file. One that was cut short by a kill lacks its mark, which is written
    after everything else has reached the disk, and is removed when the run is taken up again.
    """

    def __init__(self, folder: Path, run: str, mirror: Mirror | None = None) -> None:
        self.folder = folder / run
        self._mirror = mirror

    def latest(self) -> Checkpoint | None:
        """The last whole one, here or in the store. What is not whole is removed."""
        if self._mirror is not None:
            self._mirror.fetch(self.folder)
        return max(self.whole(), key=lambda checkpoint: checkpoint.step, default=None)

    def whole(self) -> list[Checkpoint]:
        """Those that are here. What is not whole is removed."""
        found = []
        for folder in self.folder.glob(f"{PREFIX}*"):
            try:
                mark = json.loads((folder / MARK).read_bytes())
            except FileNotFoundError:
                shutil.rmtree(folder)
                continue
            found.append(Checkpoint(folder, **mark))
        return found

    def finish(self, step: int, seconds: float, cpu_seconds: float) -> Checkpoint:
        """Mark what was written for `step` as whole."""
        done = Checkpoint(self.folder / f"{PREFIX}{step}", step, seconds, cpu_seconds)
        for file in done.folder.iterdir():
            sync(file)
        mark = {name: value for name, value in asdict(done).items() if name != "folder"}
        part = done.folder / f".{MARK}"
        part.write_text(json.dumps(mark))
        sync(part)
        part.rename(done.folder / MARK)
        sync(done.folder)
        if self._mirror is not None:
            self._mirror.push(done.folder)
        return done

    def forget(self) -> None:
        """The adapter is on this machine. What a store has stays until it is registered."""
        shutil.rmtree(self.folder, ignore_errors=True)  # processes that share a run may share the folder
