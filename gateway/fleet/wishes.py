"""What operators want of the fleet: versions that stay resident, engines that take nothing new.

In Postgres, so that it holds for every gateway and outlives them all; read from memory.
"""

from __future__ import annotations

from typing import Literal

from sqlalchemy import CheckConstraint, Column, DateTime, MetaData, Table, Text, delete, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

CHANNEL = "hotswap_fleet"
"""NOTIFY on it makes every gateway refresh; sent in the transaction of each change."""

metadata = MetaData()

table = Table(
    "fleet_wishes",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("since", DateTime(timezone=True), server_default=func.now(), nullable=False),
    CheckConstraint("kind IN ('pinned', 'drained')", name="fleet_wishes_kind_check"),
)

Kind = Literal["pinned", "drained"]


class Wishes:
    """`pinned` are names of versions, `drained` names of engines. When the database is down the last snapshot
    goes on; changes raise SQLAlchemy's errors then."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.pinned: frozenset[str] = frozenset()
        self.drained: frozenset[str] = frozenset()
        self._engine = engine

    async def refresh(self) -> None:
        """Takes all of them from the database into memory; at start and on every notification."""
        async with self._engine.connect() as connection:
            await self._read(connection)

    async def add(self, kind: Kind, name: str) -> None:
        """Wishes it; again is no error."""
        await self._change(insert(table).values(kind=kind, name=name).on_conflict_do_nothing())

    async def remove(self, kind: Kind, name: str) -> None:
        """Wishes it no more; what was not wished is no error."""
        await self._change(delete(table).where(table.c.kind == kind, table.c.name == name))

    async def _change(self, statement: object) -> None:
        async with self._engine.begin() as connection:
            await connection.execute(statement)  # type: ignore[call-overload]
            await connection.execute(text(f"NOTIFY {CHANNEL}"))
            await self._read(connection)

    async def _read(self, connection: AsyncConnection) -> None:
        rows = (await connection.execute(select(table.c.kind, table.c.name))).all()
        self.pinned = frozenset(row.name for row in rows if row.kind == "pinned")
        self.drained = frozenset(row.name for row in rows if row.kind == "drained")
