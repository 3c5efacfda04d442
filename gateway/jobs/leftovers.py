"""What a job leaves when it has ended: its log. Rows, checkpoints and weights are elsewhere, or of no use."""

from __future__ import annotations

import shutil
import subprocess
import sys

from gateway.settings import Settings

FORGET_S = 120.0
"""For the store of checkpoints to delete a job's."""


def checkpoint_store(settings: Settings, job: str) -> str | None:
    """The job's own place: two jobs with the same rows must not clear away each other's."""
    store = settings.jobs.checkpoint_store
    return None if store is None else f"{store.rstrip('/')}/{job}"


def clear(settings: Settings, job: str) -> None:
    """Blocks. Nothing happens where the job has no folder."""
    folder = settings.jobs_path / job
    if not folder.is_dir():
        return
    if (store := checkpoint_store(settings, job)) is not None:
        interpreter = str(settings.jobs.python or sys.executable)
        with (folder / "log.txt").open("a") as log:
            words = [interpreter, "-m", "training.mirror", "forget", store]
            subprocess.run(words, stdout=log, stderr=log, timeout=FORGET_S, check=False)
    for path in folder.iterdir():
        if path.name == "log.txt":
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
