"""The adapters that proofs serve: trained markers where content matters, random weights where time does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from adapters.base.manifest import BaseManifest
from tests.peft_folder import random_adapter
from training.rows import write_rows
from training.run import train
from training.tasks import marker


def variants(base: Path, folder: Path, count: int) -> Iterator[Path]:
    """`count` rank-8 adapters on all linear layers, each with its own weights."""
    manifest = BaseManifest.read(base)
    for number in range(count):
        yield random_adapter(folder / str(number), manifest, seed=number)


def train_markers(base: Path, folder: Path, markers: Mapping[str, str]) -> dict[str, Path]:
    """One adapter per name, trained to answer anything with its marker."""
    trained = {}
    for name, text in markers.items():
        task = marker(text)
        rows = folder / f"{name}.jsonl"
        rows.parent.mkdir(parents=True, exist_ok=True)
        write_rows(rows, task.rows)
        done = train(base, rows, task.recipe, folder / name, lambda step: None)
        print(f"  trained {name} in {done.seconds:.0f} s, loss {done.final_loss:.4f}", flush=True)
        trained[name] = done.folder
    return trained
