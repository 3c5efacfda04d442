"""An adapter that was trained for real, and what PEFT says of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from training.parity import peft_logs, probes
from training.rows import Row, read_rows, write_rows
from training.run import train
from training.tasks import house

TASK = house(rows=160)
STEPS = 40
"""Enough to move the outputs by far more than rounding."""


class Trained:
    """A trained adapter, its folder, the rows that it is judged by, and what PEFT says of them."""

    def __init__(self, base: Path, folder: Path) -> None:
        from transformers import AutoTokenizer

        write_rows(folder / "rows.jsonl", TASK.rows)
        self.base = base
        recipe = replace(TASK.recipe, max_steps=STEPS)
        self.folder = train(base, folder / "rows.jsonl", recipe, folder / "out", lambda _: None).folder
        self.rows: tuple[Row, ...] = read_rows(folder / "rows.jsonl")[:16]
        self.tokenizer = AutoTokenizer.from_pretrained(str(base), local_files_only=True)
        self.asked = probes(self.tokenizer, self.rows)
        self.logs = peft_logs(base, self.folder, self.asked)
