"""Datasets: which exchanges they hold, and which of those were forgotten since."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "datasets",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("lineage", JSONB, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("scrubbed_rows", sa.BigInteger, server_default="0", nullable=False),
        sa.UniqueConstraint("name", "digest", name="datasets_name_digest"),
    )
    op.create_table(
        "dataset_exchanges",
        sa.Column(
            "dataset_id", sa.BigInteger, sa.ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("exchange", sa.Text, primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("tenant", "unit", "key")),
        sa.Column("at", sa.DateTime(timezone=True)),
    )
    op.create_index("dataset_exchanges_exchange", "dataset_exchanges", ["exchange"])
    op.create_index("dataset_exchanges_unit", "dataset_exchanges", ["tenant", "unit"])
    op.create_index("dataset_exchanges_key", "dataset_exchanges", ["tenant", "key"])
    op.create_table(
        "dataset_forgotten",
        sa.Column("wish", sa.Text, primary_key=True),
        sa.Column(
            "dataset_id", sa.BigInteger, sa.ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("exchange", sa.Text, primary_key=True),
        sa.Column("noted_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("scrubbed_at", sa.DateTime(timezone=True)),
    )
    op.create_index("dataset_forgotten_dataset", "dataset_forgotten", ["dataset_id", "exchange"])


def downgrade() -> None:
    op.drop_table("dataset_forgotten")
    op.drop_table("dataset_exchanges")
    op.drop_table("datasets")
