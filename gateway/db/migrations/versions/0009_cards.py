"""Report cards of versions, and promotions without one."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0009"
down_revision = "0008"
ACTIONS = "'register', 'promote', 'rollback', 'delete', 'collect', 'remove', 'name'"


def upgrade() -> None:
    op.add_column("versions", sa.Column("card", JSONB, nullable=True))
    op.add_column("route_history", sa.Column("forced", sa.Boolean, nullable=False, server_default=sa.false()))
    _allow(f"{ACTIONS}, 'grade'")


def downgrade() -> None:
    op.execute("DELETE FROM route_history WHERE action = 'grade'")
    _allow(ACTIONS)
    op.drop_column("route_history", "forced")
    op.drop_column("versions", "card")


def _allow(actions: str) -> None:
    op.drop_constraint(op.f("ck_route_history_action"), "route_history")
    op.create_check_constraint(op.f("ck_route_history_action"), "route_history", f"action IN ({actions})")
