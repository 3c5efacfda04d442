"""Whose a key is, and what is remembered of which exchange."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("keys", sa.Column("tenant", sa.Text, server_default="default", nullable=False))
    op.create_table(
        "traffic_policies",
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("capture", sa.Text),
        sa.Column("sample", sa.Float),
        sa.Column("redact", sa.Text),
        sa.Column("retention_days", sa.Integer),
        sa.Column("consent", sa.Text),
        sa.Column("changed_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.CheckConstraint("kind IN ('route', 'key')", name="traffic_policies_kind_check"),
    )
    op.create_table(
        "traffic_salt",
        sa.Column("id", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("salt", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "traffic_shipped",
        sa.Column("writer", sa.Text, primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "traffic_rollups",
        sa.Column("hour", sa.DateTime(timezone=True), primary_key=True),
        *(sa.Column(name, sa.Text, primary_key=True) for name in ("route", "version", "tenant", "key")),
        *(
            sa.Column(name, sa.BigInteger, nullable=False)
            for name in ("requests", "errors", "prompt", "completion", "cached")
        ),
        sa.Column("duration_s", sa.Float, nullable=False),
    )
    op.create_table(
        "traffic_forgotten",
        sa.Column("id", sa.Text, primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("kind", "value", "also", "tenant")),
        sa.Column("until", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("erased_at", sa.DateTime(timezone=True)),
        sa.Column("rows_erased", sa.BigInteger),
        sa.Column("closed_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("kind IN ('unit', 'key', 'request')", name="traffic_forgotten_kind_check"),
    )
    op.create_table(
        "traffic_feedback",
        sa.Column("id", sa.Text, primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("exchange", "tenant", "key")),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.func.clock_timestamp(), nullable=False),
        sa.Column("once", sa.Text, nullable=False),
        sa.Column("said", JSONB, nullable=False),
        sa.UniqueConstraint("tenant", "exchange", "once", name="traffic_feedback_once"),
    )
    op.create_index("traffic_feedback_exchange", "traffic_feedback", ["exchange"])


def downgrade() -> None:
    op.drop_table("traffic_feedback")
    op.drop_table("traffic_forgotten")
    op.drop_table("traffic_rollups")
    op.drop_table("traffic_shipped")
    op.drop_table("traffic_salt")
    op.drop_table("traffic_policies")
    op.drop_column("keys", "tenant")
