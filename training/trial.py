"""A few steps before the many: does it run, learn anything, stay finite, and how fast is it here?"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from training.preflight.duration import PADDING
from training.recipe import Recipe, TrainingError
from training.rows import numbered
from training.run import train
from training.stop import Stop
from training.watch import Progress

STEPS = 4
WORTH_IT = 25
"""A run of fewer steps is its own trial."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What `STEPS` steps showed: seconds a step without the first (which warms up), losses in nats."""

    steps: int
    step_s: float
    first_loss: float
    last_loss: float
    peak_bytes: int

    def tokens_per_s(self, recipe: Recipe, mean_tokens: float) -> float:
        """Tokens trained a second, rows of `mean_tokens` with their padding."""
        return recipe.batch_size * mean_tokens * PADDING / self.step_s


def worth(recipe: Recipe, rows: int) -> bool:
    """Whether a trial costs little of what it may save."""
    return recipe.steps(rows) >= WORTH_IT


def run(base: Path, rows: Path, recipe: Recipe, stop: Stop | None = None, steps: int = STEPS) -> Trial:
    """Train `steps` steps on some of the rows, and throw the adapter away.

    The first step has the longest rows, so that what does not fit in memory fails here; the others are drawn
    by the recipe's seed, so that their time stands for all. Raises `TrainingError` (from the training itself,
    or for a loss that explodes) and `Stopped`.
    """
    seen: list[tuple[float, Progress]] = []
    hear: Callable[[Progress], None] = lambda progress: seen.append((time.monotonic(), progress))  # noqa: E731
    short = replace(recipe, max_steps=steps, checkpoint_steps=None, early_stop=None, validation_share=0.0)
    with tempfile.TemporaryDirectory(prefix="hotswap-trial-") as folder:
        some = Path(folder) / "rows.jsonl"
        some.write_bytes(b"\n".join(chosen(rows, recipe.batch_size, steps, recipe.seed)) + b"\n")
        train(base, some, short, Path(folder) / "adapter", hear, stop)
    if len(seen) < 2:
        raise TrainingError(f"the trial reported {len(seen)} steps of {steps}; train with --no-trial")
    (first_at, first), (last_at, last) = seen[0], seen[-1]
    if last.loss > 2 * first.loss + 1:
        raise TrainingError(
            f"in {steps} steps of the trial the loss rose from {first.loss:.2f} to {last.loss:.2f}; lower "
            f"the learning rate ({recipe.learning_rate:g}), or train with --no-trial"
        )
    return Trial(steps, (last_at - first_at) / (len(seen) - 1), first.loss, last.loss, peak_bytes())


def chosen(rows: Path, batch: int, steps: int, seed: int) -> list[bytes]:
    """Lines for so many steps: a batch of the longest, the rest by chance. Trainers put the longest first."""
    lines = sorted((line for _, line in numbered(rows)), key=len, reverse=True)
    rest = lines[batch:]
    return lines[:batch] + random.Random(seed).sample(rest, min(len(rest), batch * (steps - 1)))  # noqa: S311


def peak_bytes() -> int:
    """Most that this process had resident so far, 0 where the kernel does not tell."""
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return int(text.partition("VmHWM:")[2].split()[0]) * 1024
