"""The metadata of an exchange as an app has set it since, in the place of what it was asked with.

The lake is only added to, so this is a row in Postgres, by the exchange's id. It is read with the exchange,
forgotten with it (`gateway.traffic.eraser`), and goes on the day on which the exchange does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from typing import Any

from sqlalchemy import Column, Connection, Date, Index, MetaData, Table, Text, delete, select
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.errors import BadRequest, Unavailable

MAX_PAIRS, MAX_NAME, MAX_VALUE = 16, 64, 512
"""OpenAI's: pairs, and characters of a key and of a value."""

metadata = MetaData()

table = Table(
    "traffic_metadata",
    metadata,
    Column("exchange", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("metadata", JSONB, nullable=False),
    Column("last_day", Date, nullable=False),
    Index("traffic_metadata_tenant", "tenant", "exchange"),
)


class Amendments:
    """Every call raises `Unavailable` while the database is away."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def put(self, exchange: str, tenant: str, now: Mapping[str, str], last_day: date) -> None:
        """`now` holds of the exchange, which is kept until `last_day`."""
        made = insert(table).values(exchange=exchange, tenant=tenant, metadata=dict(now), last_day=last_day)
        put = made.on_conflict_do_update(
            index_elements=["exchange"], set_={"metadata": made.excluded.metadata}
        )
        with reachable():
            async with self._engine.begin() as connection:
                await connection.execute(put)

    async def of(self, exchanges: Sequence[str]) -> dict[str, Any]:
        """Exchange -> its metadata now; those that nobody changed are not there."""
        if not exchanges:
            return {}
        wanted = select(table.c.exchange, table.c.metadata).where(table.c.exchange.in_(exchanges))
        with reachable():
            async with self._engine.connect() as connection:
                return {row.exchange: row.metadata for row in await connection.execute(wanted)}

    async def holding(
        self, tenant: str, pairs: Mapping[str, str], after: str | None, *, oldest_first: bool, limit: int
    ) -> list[str]:
        """Exchanges of a tenant whose changed metadata has all `pairs`, by their ids, those after `after`."""
        column = table.c.exchange
        wanted = select(column).where(table.c.tenant == tenant, table.c.metadata.contains(dict(pairs)))
        if after is not None:
            wanted = wanted.where(column > after if oldest_first else column < after)
        wanted = wanted.order_by(column if oldest_first else column.desc()).limit(limit)
        with reachable():
            async with self._engine.connect() as connection:
                return list((await connection.execute(wanted)).scalars())


def drop_expired(connection: Connection, today: date) -> None:
    """Drops what was said of exchanges whose last day is over."""
    connection.execute(delete(table).where(table.c.last_day < today))


@contextmanager
def reachable() -> Iterator[None]:
    """Raises `Unavailable` for the database's errors."""
    try:
        yield
    except SQLAlchemyError as error:
        raise Unavailable(
            "Stored completions cannot be read or changed while the database is away; ask again.",
            code="database_unavailable",
            retry_after_s=5.0,
        ) from error


def checked(pairs: Any) -> dict[str, str]:
    """`pairs`, which is JSON, as metadata; none for null. Raises `BadRequest`, which says what is wrong."""
    if pairs is None:
        return {}
    if not isinstance(pairs, dict):
        raise _refusal(f"is an object of strings, or null, and not {type(pairs).__name__}")
    if len(pairs) > MAX_PAIRS:
        raise _refusal(f"has at most {MAX_PAIRS} pairs; this has {len(pairs)}")
    for name, value in pairs.items():
        shown = repr(name[:MAX_NAME])
        if not 0 < len(name) <= MAX_NAME:
            raise _refusal(f"has keys of 1 to {MAX_NAME} characters; {shown} has {len(name)}")
        if not isinstance(value, str):
            raise _refusal(f"has strings for values; that of {shown} is {type(value).__name__}")
        if len(value) > MAX_VALUE:
            raise _refusal(f"has values of up to {MAX_VALUE} characters; that of {shown} has {len(value)}")
        if "\0" in name + value:
            raise _refusal(f"is without NUL characters; {shown} has one")
    return pairs


def _refusal(text: str) -> BadRequest:
    return BadRequest(f"`metadata` {text}.", code="invalid_metadata", param="metadata")
