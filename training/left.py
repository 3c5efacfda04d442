"""The adapters of a run's checkpoints, as it leaves them beside its result: each can be served on its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adapters.archive import CONFIG, MANIFEST, WEIGHTS
from training.checkpoints import Checkpoint


def leave(checkpoints: Sequence[Checkpoint], into: Path, result: Path, record: Mapping[str, Any]) -> None:
    """Writes the adapter of each checkpoint to `<into>/step-N`. `result` is the folder of the run's own,
    which has the same configuration, and `record` what its hotswap.json holds; of a checkpoint it says its
    steps and no loss."""
    shutil.rmtree(into, ignore_errors=True)
    for checkpoint in checkpoints:
        folder = into / f"step-{checkpoint.step}"
        folder.mkdir(parents=True)
        shutil.copyfile(checkpoint.folder / WEIGHTS, folder / WEIGHTS)
        shutil.copyfile(result / CONFIG, folder / CONFIG)
        known = {name: value for name, value in record["lineage"].items() if not name.endswith("_loss")}
        lineage = {**known, "steps": checkpoint.step, "seconds": round(checkpoint.seconds, 1)}
        (folder / MANIFEST).write_text(json.dumps({**record, "lineage": lineage}, indent=1) + "\n")


def left(folder: Path) -> dict[str, str]:
    """Step to folder, of what was left."""
    return {path.name.removeprefix("step-"): str(path) for path in sorted(folder.glob("step-*"))}
