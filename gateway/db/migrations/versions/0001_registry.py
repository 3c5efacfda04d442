"""The registry: adapters, versions, routes and what routes pointed to, when and by whom."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "adapters",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True)),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("last_number", sa.Integer, nullable=False, server_default="0"),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("id", name="pk_adapters"),
        sa.UniqueConstraint("name", name="uq_adapters_name"),
    )
    op.create_table(
        "versions",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True)),
        sa.Column("adapter_id", sa.BigInteger, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("has_files", sa.Boolean, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("rank", sa.Integer, nullable=False),
        sa.Column("inspection", JSONB, nullable=False),
        sa.Column("manifest", JSONB, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("id", name="pk_versions"),
        sa.ForeignKeyConstraint(["adapter_id"], ["adapters.id"], name="fk_versions_adapter_id"),
        sa.UniqueConstraint("adapter_id", "number", name="uq_versions_adapter_id_number"),
        sa.CheckConstraint(
            "state IN ('registered', 'stable', 'retired', 'deleted')", name=op.f("ck_versions_state")
        ),
        sa.CheckConstraint("has_files OR state = 'deleted'", name=op.f("ck_versions_files")),
    )
    op.create_index("uq_versions_short", "versions", ["adapter_id", sa.text("left(digest, 12)")], unique=True)
    op.create_index("ix_versions_digest", "versions", ["digest"])
    op.create_table(
        "routes",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("version_id", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_routes"),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name="fk_routes_version_id"),
    )
    op.create_table(
        "route_history",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True)),
        sa.Column("route", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("version_id", sa.BigInteger, nullable=True),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("id", name="pk_route_history"),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name="fk_route_history_version_id"),
        sa.CheckConstraint(
            "action IN ('register', 'promote', 'rollback', 'delete', 'collect', 'remove')",
            name=op.f("ck_route_history_action"),
        ),
    )
    op.create_index("ix_route_history_route", "route_history", ["route", "id"])


def downgrade() -> None:
    for table in ("route_history", "routes", "versions", "adapters"):
        op.drop_table(table)
