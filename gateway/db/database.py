"""The one way to Postgres: an engine of SQLAlchemy that heals, migrations, and LISTEN."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy import Connection, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

log = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).parent / "migrations"
CONNECT_TIMEOUT_S = 5
CONNECTION = {
    "connect_timeout": CONNECT_TIMEOUT_S,
    "application_name": "hotswap",
    "keepalives_idle": 30,
    "tcp_user_timeout": 30_000,
}
"""For libpq: a server whose machine is gone says nothing, and is given up after so long."""
FIRST_BACK_OFF_S, LAST_BACK_OFF_S = 0.05, 5.0
IDLE_CHECK_S = 30.0
"""A listening connection that hears nothing for this long asks whether the server is still there."""


class DatabaseError(Exception):
    """The database cannot be used as it is; the message says why and what to do."""


class Database:
    """An external Postgres or the embedded one, by `postgresql://user:password@host:port/name`.

    Every connection is tried before use, so a restart of the server costs callers at most an error on what
    was running. Nothing connects before it is used.
    """

    def __init__(self, url: str) -> None:
        self.url = _parse(url)
        self.engine: AsyncEngine = create_async_engine(
            self.url,
            pool_pre_ping=True,
            pool_size=5,
            max_overflow=5,
            pool_timeout=CONNECT_TIMEOUT_S,
            connect_args=CONNECTION,
        )

    async def migrate(self) -> bool:
        """Bring the schema to this version's head; whether anything had to be done.

        One query when it is there already. Several gateways may call it at once: one migrates, the others
        wait for it. Raises `DatabaseError` when the schema is from a newer version than this one.
        """
        try:
            async with self.engine.connect() as connection:
                current = await connection.run_sync(_current_revision)
        except DBAPIError as error:
            raise DatabaseError(
                f"cannot reach Postgres at {self.url.render_as_string()}: {str(error.orig).strip()}"
            ) from error
        if current == head():
            return False
        # Imported here: a gateway whose schema is up to date starts without Alembic.
        from gateway.db.migrations import runner

        await asyncio.to_thread(runner.upgrade, self.url)
        return True

    async def close(self) -> None:
        """Close the pooled connections; the engine can still be used afterwards and would connect anew."""
        await self.engine.dispose()

    async def listen(self, channels: Iterable[str], callback: Callable[[], Awaitable[object]]) -> None:
        """Await `callback()` after each (re)connection and each NOTIFY on `channels`; runs until cancelled.

        A burst of notifications makes one call. After a lost connection it reconnects with back-off; what was
        notified meanwhile is lost, and the call after reconnecting stands for all of it. Database errors of
        `callback` count as a lost connection; any other ends this with that error.
        """
        names = tuple(channels)
        back_off = FIRST_BACK_OFF_S
        while True:
            try:
                async with await self._connect() as connection:
                    for name in names:
                        await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(name)))
                    await callback()
                    back_off = FIRST_BACK_OFF_S
                    while True:
                        heard = False
                        # Takes the whole burst that has arrived, so the call below stands for all of it.
                        async for _ in connection.notifies(timeout=IDLE_CHECK_S, stop_after=1):
                            heard = True
                        await (callback() if heard else connection.execute("SELECT 1"))
            except (psycopg.Error, SQLAlchemyError, OSError) as error:
                what = str(error).partition("\n")[0]
                log.warning("listening on %s stopped: %s; again in %.2f s", ", ".join(names), what, back_off)
            await asyncio.sleep(back_off)
            back_off = min(2 * back_off, LAST_BACK_OFF_S)

    async def _connect(self) -> psycopg.AsyncConnection[tuple[object, ...]]:
        where = self.url.set(drivername="postgresql").render_as_string(hide_password=False)
        return await psycopg.AsyncConnection.connect(
            where,
            autocommit=True,
            connect_timeout=CONNECT_TIMEOUT_S,
            application_name="hotswap listen",
        )


def head() -> str:
    """The newest revision, from the file names `NNNN_what.py` (a test holds them equal to Alembic's view)."""
    return max(path.name[:4] for path in (MIGRATIONS / "versions").glob("[0-9]*_*.py"))


def _current_revision(connection: Connection) -> str | None:
    if connection.scalar(text("SELECT to_regclass('alembic_version')")) is None:
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    if revision is not None and revision > head():
        raise DatabaseError(
            f"the database is at revision {revision}, newer than this hotswap's {head()}: "
            "start the version of hotswap that made it, or a newer one"
        )
    return revision


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # The text may hold a password: it is not shown.
        raise DatabaseError(
            "the database URL does not parse; write postgresql://user:password@host:port/name"
        ) from None
    if parsed.drivername not in ("postgresql", "postgres", "postgresql+psycopg"):
        raise DatabaseError(
            f"database URL {parsed.render_as_string()} is for {parsed.drivername!r}; "
            "hotswap needs Postgres: postgresql://user:password@host:port/name"
        )
    return parsed.set(drivername="postgresql+psycopg")
