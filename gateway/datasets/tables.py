"""The room's tables, and the statements that match wishes to forget with what datasets hold."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Insert,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    Update,
    and_,
    column,
    func,
    or_,
    select,
    table,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB, insert

metadata = MetaData()

datasets = Table(
    "datasets",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("lineage", JSONB, nullable=False),
    Column("created_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    Column("scrubbed_rows", BigInteger, server_default="0", nullable=False),
    UniqueConstraint("name", "digest", name="datasets_name_digest"),
)
exchanges = Table(
    "dataset_exchanges",
    metadata,
    Column("dataset_id", BigInteger, ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True),
    Column("exchange", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("unit", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("at", DateTime(timezone=True)),
    Index("dataset_exchanges_exchange", "exchange"),
    Index("dataset_exchanges_unit", "tenant", "unit"),
    Index("dataset_exchanges_key", "tenant", "key"),
)
"""What a dataset holds. `unit` is a keyed hash, never a name."""
forgotten = Table(
    "dataset_forgotten",
    metadata,
    Column("wish", Text, primary_key=True),
    Column("dataset_id", BigInteger, ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True),
    Column("exchange", Text, primary_key=True),
    Column("noted_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    Column("scrubbed_at", DateTime(timezone=True)),
    Index("dataset_forgotten_dataset", "dataset_id", "exchange"),
)
"""Which wish to forget means what of a dataset: it outlives what the wish itself says."""

wishes = table(
    "traffic_forgotten",
    *(column(name) for name in ("id", "kind", "value", "also", "tenant", "until", "closed_at")),
)
"""`gateway.traffic.forgetting` has it."""


def noting() -> Insert:
    """Writes down what the wishes that hold mean; what is there already stays."""
    matches = {
        "request": exchanges.c.exchange == wishes.c.value,
        "unit": exchanges.c.unit.in_([wishes.c.value, wishes.c.also]),
        "key": exchanges.c.key == wishes.c.value,
    }
    every = union_all(  # three joins, each with an index of its own
        *(
            select(wishes.c.id, exchanges.c.dataset_id, exchanges.c.exchange).where(
                wishes.c.closed_at.is_(None),
                wishes.c.kind == kind,
                exchanges.c.tenant == wishes.c.tenant,
                or_(exchanges.c.at.is_(None), exchanges.c.at <= wishes.c.until),
                match,
            )
            for kind, match in matches.items()
        )
    )
    made = insert(forgotten).from_select(["wish", "dataset_id", "exchange"], every)
    return made.on_conflict_do_nothing()


def letting_go() -> Update:
    """Of what was forgotten it is not kept any more whose it was."""
    named = and_(
        forgotten.c.dataset_id == exchanges.c.dataset_id, forgotten.c.exchange == exchanges.c.exchange
    )
    some = or_(exchanges.c.unit != "", exchanges.c.key != "")
    return update(exchanges).where(named, some).values(unit="", key="")
