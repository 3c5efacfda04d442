"""The registry's tables. `registry.py` is the only reader and writer; migrations are in `gateway/db`."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    false,
    func,
)
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(column_0_label)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

adapters = Table(
    "adapters",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("last_number", Integer, nullable=False, server_default="0"),  # numbers are never used twice
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

versions = Table(
    "versions",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("adapter_id", BigInteger, ForeignKey("adapters.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("digest", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("has_files", Boolean, nullable=False),  # false only once a deleted version's files were forgotten
    Column("size_bytes", BigInteger, nullable=False),
    Column("rank", Integer, nullable=False),
    Column("inspection", JSONB, nullable=False),
    Column("manifest", JSONB, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("card", JSONB, nullable=True),  # what gates found; null until somebody asked them
    UniqueConstraint("adapter_id", "number"),
    CheckConstraint("state IN ('registered', 'stable', 'retired', 'deleted')", name="state"),
    CheckConstraint("has_files OR state = 'deleted'", name="files"),
)
# Engines know a version by 12 digits; two versions of one adapter that share them would be one to an engine.
Index("uq_versions_short", versions.c.adapter_id, func.left(versions.c.digest, 12), unique=True)
Index("ix_versions_digest", versions.c.digest)

routes = Table(
    "routes",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version_id", BigInteger, ForeignKey("versions.id"), nullable=False),
)

version_names = Table(
    "version_names",
    metadata,
    Column("name", Text, primary_key=True),  # what a fine-tuned model is asked for by: ft:base:org:suffix:id
    Column("version_id", BigInteger, ForeignKey("versions.id"), nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)
Index("ix_version_names_version_id", version_names.c.version_id)

route_history = Table(
    "route_history",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("route", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("version_id", BigInteger, ForeignKey("versions.id"), nullable=True),  # null: the whole adapter
    Column("by", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column(
        "forced", Boolean, nullable=False, server_default=false()
    ),  # promoted without a passed report card
    CheckConstraint(
        "action IN ('register', 'promote', 'rollback', 'delete', 'collect', 'remove', 'grade', 'name')",
        name="action",
    ),
)
Index("ix_route_history_route", route_history.c.route, route_history.c.id)
