"""Forgetting: what was asked for one unit, with one key, or in one request is read no more, and then erased.

A wish to forget is a row in Postgres. Every reader leaves out what it means from the moment that it is there.
The shipper's process erases (`gateway.traffic.eraser`): from the journal, which it leaves as segments are
shipped without those rows, and from the lake, whose files are written anew and the old ones deleted.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    MetaData,
    Row,
    Table,
    Text,
    func,
    insert,
    select,
    text,
)
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.errors import BadRequest
from gateway.traffic.policy import CHANNEL
from gateway.traffic.query import FORGETTABLE, Forgotten
from gateway.traffic.unit import HASHED, MAX_UNIT, hashed

metadata = MetaData()

table = Table(
    "traffic_forgotten",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("value", Text, nullable=False),
    Column("also", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("until", DateTime(timezone=True), server_default=func.now(), nullable=False),
    Column("erased_at", DateTime(timezone=True)),
    Column("rows_erased", BigInteger),
    Column("closed_at", DateTime(timezone=True)),
    CheckConstraint("kind IN ('unit', 'key', 'request')", name="traffic_forgotten_kind_check"),
)

OPEN_S = 3600.0
"""A wish holds for so long: an exchange that began before it may still be going on, and another machine's
journal may still be on its way. Then it is erased once more, and the wish itself lets go of the value."""
ERASED = "erased"
"""What stands for the value then."""


class Forgetting:
    """What is not to be read any more, from memory. When the database is down the last snapshot goes on;
    changes raise SQLAlchemy's errors then. `salt` keys the hashes of units that strict routes keep."""

    def __init__(self, engine: AsyncEngine, salt: bytes) -> None:
        self.now: tuple[Forgotten, ...] = ()
        self._engine = engine
        self._salt = salt

    async def refresh(self) -> None:
        """Takes the wishes that hold into memory; at start and on every notification."""
        async with self._engine.connect() as connection:
            rows = await connection.execute(select(table).where(table.c.closed_at.is_(None)))
            self.now = tuple(forgotten_of(row) for row in rows)

    async def add(self, kind: str, value: str, tenant: str) -> dict[str, Any]:
        """Forgets what there is until now; again, what came since. Raises `BadRequest`."""
        if kind not in FORGETTABLE:
            raise BadRequest(f"one of {', '.join(FORGETTABLE)} can be forgotten, not {kind!r}", param="kind")
        if not value or len(value) > MAX_UNIT or "\0" in value:
            raise BadRequest(f"a {kind} is named by 1 to {MAX_UNIT} characters", param="value")
        row = {
            "id": f"forget_{secrets.token_hex(8)}",
            "kind": kind,
            "value": value,
            "also": hashed(value.encode(), self._salt) if kind == "unit" else "",
            "tenant": tenant,
        }
        async with self._engine.begin() as connection:
            made = (await connection.execute(insert(table).values(row).returning(table))).one()
            await connection.execute(text(f"NOTIFY {CHANNEL}"))
        self.now = (*self.now, forgotten_of(made))
        return shown(made)

    def pseudonym(self, unit: str) -> str:
        """What stands for a unit where it need not be known: its keyed hash, which `add` can match with
        it."""
        return unit if not unit or unit.startswith(HASHED) else hashed(unit.encode(), self._salt)

    async def list(self) -> Sequence[dict[str, Any]]:
        """Every wish, the newest first."""
        async with self._engine.connect() as connection:
            rows = await connection.execute(select(table).order_by(table.c.until.desc()))
            return [shown(row) for row in rows]


def forgotten_of(row: Row[Any]) -> Forgotten:
    return Forgotten(row.kind, row.value, row.tenant, row.until.timestamp(), row.also)


def shown(row: Row[Any]) -> dict[str, Any]:
    """As the admin API tells it."""
    return {
        "id": row.id,
        "kind": row.kind,
        "value": row.value,
        "tenant": row.tenant,
        "until": _time(row.until),
        "erased_at": _time(row.erased_at),
        "rows_erased": row.rows_erased,
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="milliseconds")
