"""The adapters that proofs serve: trained markers where content matters, random weights where time does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from adapters.base.manifest import BaseManifest
from tests.peft_folder import random_adapter


def variants(base: Path, folder: Path, count: int) -> Iterator[Path]:
    """`count` rank-8 adapters on all linear layers, each with its own weights."""
    manifest = BaseManifest.read(base)
    for number in range(count):
        yield random_adapter(folder / str(number), manifest, seed=number)


def train_markers(base: Path, folder: Path, markers: Mapping[str, str]) -> dict[str, Path]:
    """One adapter per name, trained to answer anything with its marker."""
    raise NotImplementedError
