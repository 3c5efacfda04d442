"""The table of keys. Secrets are not in it, only what they hash to."""

from sqlalchemy import CheckConstraint, Column, DateTime, LargeBinary, MetaData, Table, Text, func

DEFAULT_TENANT = "default"
"""Whose keys are that nobody said a tenant of."""

metadata = MetaData()

keys = Table(
    "keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("role", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("tenant", Text, server_default=DEFAULT_TENANT, nullable=False),
    Column("sha256", LargeBinary, nullable=False, unique=True),
    Column("created_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    Column("revoked_at", DateTime(timezone=True)),
    CheckConstraint("role IN ('admin', 'inference')", name="keys_role_check"),
    CheckConstraint("octet_length(sha256) = 32", name="keys_sha256_check"),
)
