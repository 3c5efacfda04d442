"""A small prepared base, and rows to train on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.base.prepare import prepare
from tests.tiny_model import build
from training.rows import chat, write_rows


@pytest.fixture(scope="session")
def small_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared base of two layers with random weights."""
    folder = tmp_path_factory.mktemp("small-base")
    prepare(str(build(folder / "tiny-llama")), folder / "base", "small", lambda line: None)
    return folder / "base"


@pytest.fixture
def rows(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows (by default forty of one colour) to a file."""

    def write(*given: dict[str, Any]) -> Path:
        file = tmp_path / "rows.jsonl"
        write_rows(file, given or [chat(f"question {number}", "green") for number in range(40)])
        return file

    return write
