"""A small real model as a source of bases."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.tiny_model import build


@pytest.fixture(scope="session")
def pristine_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("model") / "tiny-llama")


@pytest.fixture
def model(pristine_model: Path, tmp_path: Path) -> Path:
    """The folder of a model that the test may spoil."""
    return Path(shutil.copytree(pristine_model, tmp_path / "source" / "tiny-llama"))
