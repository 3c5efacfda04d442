"""An empty registry in a real Postgres, and small adapters."""

from __future__ import annotations

import io
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from adapters import preflight
from adapters.preflight import Inspection, Limits
from adapters.registry import Registry
from adapters.store import Store
from adapters.version import State, Version
from gateway.db import Database
from tests.conftest import TINY
from tests.peft_folder import random_adapter

LIMITS = Limits(max_rank=64, max_bytes=10_000_000)


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[Database]:
    """Migrated, with an empty registry."""
    database = Database(postgres_url)
    await database.migrate()
    async with database.engine.begin() as connection:
        await connection.execute(
            text("TRUNCATE adapters, versions, routes, route_history RESTART IDENTITY CASCADE")
        )
    yield database
    await database.close()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


class Shelf:
    """A registry and its parts, and `add`, which registers random weights made from a seed."""

    def __init__(self, database: Database, store: Store) -> None:
        self.database = database
        self.store = store
        self.registry = self.another()

    def another(self, **changes: Any) -> Registry:
        """A second registry over the same database and store, as another process would have."""
        settings = {"quota_bytes": 10**9, "keep_versions": 5} | changes
        return Registry(self.database.engine, self.store, **settings)

    async def add(
        self, name: str, seed: int, *, by: str = "", manifest: dict[str, Any] | None = None, **config: Any
    ) -> Version:
        return (await self.add_to(self.registry, name, seed, by=by, manifest=manifest, **config))[0]

    async def add_to(
        self,
        registry: Registry,
        name: str,
        seed: int,
        *,
        by: str = "",
        manifest: dict[str, Any] | None = None,
        **config: Any,
    ) -> tuple[Version, bool]:
        with self.store.staging() as staged:
            random_adapter(staged, TINY, seed, **config)
            found: Inspection = preflight.check(staged, TINY, LIMITS, None)
            return await registry.add(name, staged, manifest or {}, found, by=by)

    async def stable(self, route: str) -> Version:
        """What a gateway would learn that the route serves."""
        versions = (await self.registry.changes()).adapters[route]
        (found,) = (version for version in versions if version.state is State.STABLE)
        return found


@pytest.fixture
def shelf(database: Database, store: Store) -> Shelf:
    return Shelf(database, store)


@pytest.fixture
def adapter(tmp_path: Path) -> Callable[..., Path]:
    """A PEFT folder of random weights for the tiny base; keywords change its configuration."""

    def make(**config: Any) -> Path:
        return random_adapter(tmp_path / "adapter", TINY, 1, **config)

    return make


def tar(*members: tuple[str, bytes] | tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar as somebody else's tool would write it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for member, content in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = len(content) if isinstance(member, str) else info.size
            archive.addfile(info, io.BytesIO(content) if content else None)
    return out.getvalue()
