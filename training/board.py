"""A run's losses for TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.recipe import TrainingError


def board(folder: Path, run: str, earlier_step: int | None) -> Any:
    """A callback that writes the run's losses to `<folder>/<run>`, for `tensorboard --logdir <folder>`.

    `earlier_step` is that of the checkpoint that the run goes on from: what was written after it is hidden.
    Raises `TrainingError` where TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise TrainingError(
            f"{folder} is for TensorBoard, which is missing: pip install 'hotswap[tensorboard]'"
        ) from error
    from transformers.integrations import TensorBoardCallback

    return TensorBoardCallback(SummaryWriter(str(folder / run), purge_step=earlier_step))
