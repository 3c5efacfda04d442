"""A shelf of a test's own, and builds on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.training.dataset.candidates import question
from training.dataset.build import Built, Means, build
from training.dataset.plan import plan_of
from training.dataset.snapshot import Shelf
from training.rows import chat

Build = Callable[..., Built]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "datasets")


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    """Forty rows that are unlike each other."""
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(chat(question(at), f"answer {at}")) + "\n" for at in range(40)))
    return file


@pytest.fixture
def make(shelf: Shelf, rows_file: Path) -> Build:
    """Builds `name` from tables of a plan; from forty rows where nothing else is said."""

    def run(name: str = "support", means: Means | None = None, **tables: Any) -> Built:
        given = {"source": [{"from": str(rows_file), "licence": "own"}], **tables}
        return build(name, plan_of(given), means or Means(shelf))

    return run
