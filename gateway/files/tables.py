"""The table of the Files API. `files.py` alone reads and writes it."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, DateTime, Identity, Index, MetaData, Table, Text, func

metadata = MetaData()

files = Table(
    "files",
    metadata,
    Column("id", Text, primary_key=True),  # file-…
    Column("number", BigInteger, Identity(always=True), nullable=False),  # the order they came in
    Column("tenant", Text, nullable=False),
    Column("filename", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("expires_at", DateTime(timezone=True), nullable=True),
)
Index("files_tenant", files.c.tenant, files.c.number)
Index("files_sha256", files.c.sha256)
