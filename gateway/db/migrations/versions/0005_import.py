"""What was imported, so that it is imported once."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "traffic_imported",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("gone", sa.Date, nullable=False),
    )
    op.create_index("traffic_imported_gone", "traffic_imported", ["gone"])
    op.create_table(
        "traffic_import_writers",
        sa.Column("writer", sa.Text, primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("traffic_import_writers")
    op.drop_table("traffic_imported")
