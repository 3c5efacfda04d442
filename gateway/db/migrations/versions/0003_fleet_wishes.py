"""What operators want of the fleet: pinned versions, drained engines."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "fleet_wishes",
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("since", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.CheckConstraint("kind IN ('pinned', 'drained')", name="fleet_wishes_kind_check"),
    )


def downgrade() -> None:
    op.drop_table("fleet_wishes")
