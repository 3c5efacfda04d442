"""A real Postgres for tests, and a new database in it for each."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
from sqlalchemy.engine import make_url

from gateway.db import Database, EmbeddedPostgres

_numbers = itertools.count()


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[str]:
    """The URL of a server with its data under `folder`."""
    server = EmbeddedPostgres(folder / "postgres", folder / "postgres.log")
    url = await server.start()
    try:
        yield url
    finally:
        await server.stop()


@asynccontextmanager
async def database(server_url: str) -> AsyncIterator[Database]:
    """A new, empty database."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    async with await psycopg.AsyncConnection.connect(server_url, autocommit=True) as admin:
        await admin.execute(f"CREATE DATABASE {name} STRATEGY wal_log")
        found = Database(make_url(server_url).set(database=name).render_as_string(hide_password=False))
        try:
            yield found
        finally:
            await found.close()
            await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def open_folder() -> Path:
    """A new folder that every user may enter, unlike pytest's."""
    folder = Path(tempfile.mkdtemp(prefix="hotswap-test-"))
    folder.chmod(0o755)
    return folder
