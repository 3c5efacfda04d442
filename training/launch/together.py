"""What a process knows of the others that share its run (torch.distributed).

Each learns from its part of every batch, and the first of them does what is done once.

Who started it (`training.launch.local`, `training.launch.on_ray`) said so in the environment variables that
torch and accelerate read too: RANK and WORLD_SIZE.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from training.recipe import Recipe, TrainingError

SHARED = ("sft", "dpo", "kto")
"""Methods whose runs can be shared."""


@dataclass(frozen=True, slots=True)
class Together:
    """Process `rank` of `size`. One alone never waits."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def join(self) -> None:
        """Meets the others; before anything that waits for them. Needs torch."""
        if self.size == 1:
            return
        import torch
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available())

    def wait(self) -> None:
        """Until all have come here."""
        if self.size > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """The block, by the leader before the others."""
        if not self.leads:
            self.wait()
        yield
        if self.leads:
            self.wait()

    def any(self, wish: bool) -> bool:
        """Whether one of them wishes it. All must ask."""
        if self.size == 1:
            return wish
        import torch
        from accelerate import PartialState

        wished = torch.tensor([int(wish)], device=PartialState().device)
        torch.distributed.all_reduce(wished, op=torch.distributed.ReduceOp.MAX)
        return bool(wished.item())


def here() -> Together:
    """This process."""
    return Together(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


def started() -> bool:
    """Whether this process is one that was started to share a run."""
    return "WORLD_SIZE" in os.environ


def part(recipe: Recipe, processes: int) -> int:
    """Rows of a batch that each process takes. Raises `TrainingError` for a run that cannot be shared so."""
    if processes > 1 and recipe.method not in SHARED:
        raise TrainingError(
            f"{recipe.method} is done by one process, and {processes} are asked for; set jobs.processes to 1"
        )
    if recipe.batch_size % processes:
        raise TrainingError(
            f"batches of {recipe.batch_size} rows cannot be shared evenly by {processes} processes; choose a "
            f"batch_size like {-(-recipe.batch_size // processes) * processes}, or other jobs.processes"
        )
    return recipe.batch_size // processes
