"""What apps say about stored completions after they were answered."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "traffic_metadata",
        sa.Column("exchange", sa.Text, primary_key=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("metadata", JSONB, nullable=False),
        sa.Column("last_day", sa.Date, nullable=False),
    )
    op.create_index("traffic_metadata_tenant", "traffic_metadata", ["tenant", "exchange"])


def downgrade() -> None:
    op.drop_table("traffic_metadata")
