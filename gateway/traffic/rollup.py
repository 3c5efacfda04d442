"""Sums by the hour in Postgres: what was asked, answered and used, by route, version, tenant and key.

Added in the same transaction that notes which segment they are from, so that a segment counts once however
often its shipping is tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    DateTime,
    Engine,
    Float,
    MetaData,
    Table,
    Text,
    func,
    literal,
    select,
)
from sqlalchemy.dialects.postgresql import Insert, insert

from gateway.traffic.row import Row

metadata = MetaData()

shipped = Table(
    "traffic_shipped",
    metadata,
    Column("writer", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
)

rollups = Table(
    "traffic_rollups",
    metadata,
    Column("hour", DateTime(timezone=True), primary_key=True),
    Column("route", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("tenant", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    Column("prompt", BigInteger, nullable=False),
    Column("completion", BigInteger, nullable=False),
    Column("cached", BigInteger, nullable=False),
    Column("duration_s", Float, nullable=False),
)


@dataclass(slots=True)
class Sums:
    """Of the rows of one hour, route, version, tenant and key. Tokens are those that engines counted, or
    deltas of answers that were cut short; `errors` are rows with an error."""

    requests: int = 0
    errors: int = 0
    prompt: int = 0
    completion: int = 0
    cached: int = 0
    duration_s: float = 0.0

    def add(self, row: Row) -> None:
        self.requests += 1
        self.errors += bool(row["error"])
        self.prompt += row["prompt"] or 0
        self.completion += row["completion"] or 0
        self.cached += row["cached"] or 0
        self.duration_s += row["duration_ms"] / 1e3


Group = tuple[datetime, str, str, str, str]


GROUP = ("hour", "route", "version", "tenant", "key")
SUMS = tuple(each.name for each in fields(Sums))


def add_row(sums: dict[Group, Sums], row: Row) -> None:
    """One more row, in its group of GROUP."""
    at = datetime.fromtimestamp(row["at"] / 1e6, UTC).replace(minute=0, second=0, microsecond=0)
    group = at, row["route"], row["version"], row["tenant"], row["key"]
    sums.setdefault(group, Sums()).add(row)


def make_nameless(connection: Connection, tenant: str, key: str) -> None:
    """The sums of a forgotten key are added to those of no key: totals stay, and name nobody."""
    whose = (rollups.c.tenant == tenant) & (rollups.c.key == key)
    values = {"key": literal("")}
    moved = select(*(values.get(name, rollups.c[name]).label(name) for name in (*GROUP, *SUMS))).where(whose)
    connection.execute(_adding(insert(rollups).from_select([*GROUP, *SUMS], moved)))
    connection.execute(rollups.delete().where(whose))


def _adding(row: Insert) -> Insert:
    """Adds to the sums that are there."""
    more = {name: rollups.c[name] + row.excluded[name] for name in SUMS}
    return row.on_conflict_do_update(index_elements=list(GROUP), set_=more)


class Rollups:
    """Blocking; for the shipper's process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def newest(self, writer: str) -> int:
        """The newest segment of `writer` that is counted; 0 for none."""
        with self._engine.connect() as connection:
            found = connection.scalar(select(shipped.c.number).where(shipped.c.writer == writer))
        return 0 if found is None else int(found)

    def add(self, writer: str, number: int, sums: Mapping[Group, Sums]) -> bool:
        """Counts what `writer` has up to segment `number`; False when it is counted already."""
        with self._engine.begin() as connection:
            note = insert(shipped).values(writer=writer, number=number)
            noted = connection.execute(
                note.on_conflict_do_update(
                    index_elements=["writer"],
                    set_={"number": number},
                    where=shipped.c.number < number,
                ).returning(shipped.c.number)
            ).first()
            if noted is None:
                return False
            for group, counted in sorted(sums.items()):  # in one order, or two shippers could lock each other
                values = dict(zip(GROUP, group, strict=True)) | asdict(counted)
                connection.execute(_adding(insert(rollups).values(**values)))
        return True

    def total(self) -> Sums:
        """Over everything."""
        sums = (func.coalesce(func.sum(rollups.c[name]), 0) for name in SUMS)
        with self._engine.connect() as connection:
            *counts, duration_s = connection.execute(select(*sums)).one()
        return Sums(**dict(zip(SUMS, map(int, counts), strict=False)), duration_s=float(duration_s))
