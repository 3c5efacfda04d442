"""The memory that a dry run says a training takes, against what it took: each cell a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.proofs.result import Result
from training.preflight.memory import Batch, estimate
from training.recipe import Recipe
from training.shape import Shape

BOUND = 0.15
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Cell:
    """A run: rank, rows a step, tokens a row, and how many of these are learned."""

    rank: int
    batch: int
    tokens: int
    learned: int = 2
    checkpointing: bool = False
    dropout: float = 0.0

    @property
    def recipe(self) -> Recipe:
        return Recipe(
            rank=self.rank,
            batch_size=self.batch,
            gradient_checkpointing=self.checkpointing,
            dropout=self.dropout,
        )

    @property
    def words(self) -> list[str]:
        given = {
            "rank": self.rank,
            "batch": self.batch,
            "tokens": self.tokens,
            "learned": self.learned,
            "dropout": self.dropout,
        }
        words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
        return [*words, "--checkpointing"] if self.checkpointing else words

    def __str__(self) -> str:
        more = (", checkpointing" if self.checkpointing else "") + (", dropout" if self.dropout else "")
        return f"rank {self.rank}, {self.batch} rows of {self.tokens} tokens, {self.learned} learned{more}"


CELLS = (
    Cell(8, 2, 64),
    Cell(64, 2, 64),
    Cell(8, 8, 64),
    Cell(16, 1, 1024),
    Cell(32, 8, 256),
    Cell(16, 8, 256, learned=128),
    Cell(16, 4, 512, learned=400),
    Cell(16, 4, 512, checkpointing=True),
)


def prove(folder: Path, base: Path, data: Path | None) -> Result:
    result = Result(
        "memory_estimate",
        "Peak resident memory of QLoRA training on the default base, two steps each in a process of its "
        "own, against the estimate of `hotswap train --dry-run`, which reads config.json only.",
    )
    shape = Shape.read(base)
    worst = 0.0
    for cell in CELLS:
        measured = peak(cell, base)
        said = estimate(shape, cell.recipe, Batch(cell.batch, cell.tokens, cell.batch * cell.learned)).peak
        off = said / measured - 1
        worst = max(worst, abs(off))
        result.figure(str(cell), f"{measured / 1e6:,.0f} MB, estimated {said / 1e6:,.0f} MB ({off:+.1%})")
    result.must(
        f"every estimate within {BOUND:.0%} of the measured peak", worst <= BOUND, f"{worst:.1%} at most"
    )
    return result


def peak(cell: Cell, base: Path) -> int:
    """Bytes that a run had resident at most."""
    words = [sys.executable, "-m", "tests.proofs.one_run", str(base), *cell.words]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{cell}: {done.stderr[-2000:]}")
    return int(json.loads(done.stdout.splitlines()[-1])["peak"])
