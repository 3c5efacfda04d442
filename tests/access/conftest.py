"""One Postgres for the tests of this room, a migrated database for each."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from gateway.db import Database
from tests.db import server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    async with server.running(tmp_path_factory.mktemp("postgres")) as url:
        yield url


@pytest_asyncio.fixture
async def db(postgres_url: str) -> AsyncIterator[Database]:
    async with server.database(postgres_url) as found:
        await found.migrate()
        yield found
