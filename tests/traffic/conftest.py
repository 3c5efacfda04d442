"""A migrated database for each test of this room."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from gateway.db import Database
from tests.db import server


@pytest_asyncio.fixture
async def db(postgres_url: str) -> AsyncIterator[Database]:
    async with server.database(postgres_url) as found:
        await found.migrate()
        yield found
