"""What the shipper's process has: a lake, and a blocking connection to a migrated database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine

from gateway.db import Database
from gateway.traffic.lake import Lake
from gateway.traffic.rollup import Rollups


@pytest.fixture
def postgres(db: Database) -> Iterator[Engine]:
    engine = create_engine(db.url)
    yield engine
    engine.dispose()


@pytest.fixture
def rollups(postgres: Engine) -> Rollups:
    return Rollups(postgres)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))
