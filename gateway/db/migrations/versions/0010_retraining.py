"""Plans to retrain by themselves, the jobs that they start, and what feedback is of."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0010"
down_revision = "0009"

NOW = sa.func.now()


def upgrade() -> None:
    op.add_column("traffic_feedback", sa.Column("route", sa.Text))
    op.add_column("traffic_feedback", sa.Column("version", sa.Text))
    op.create_index("traffic_feedback_route", "traffic_feedback", ["route", "at"])
    op.add_column("fine_tuning_jobs", sa.Column("plan", sa.Text))
    op.add_column("fine_tuning_jobs", sa.Column("accept", JSONB))
    op.add_column("fine_tuning_jobs", sa.Column("lineage", JSONB))
    op.create_index("fine_tuning_jobs_plan", "fine_tuning_jobs", ["plan", "number"])
    op.create_table(
        "retraining_plans",
        sa.Column("adapter", sa.Text, primary_key=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("route", sa.Text, nullable=False),
        sa.Column("feedback", sa.Text),
        sa.Column("since_s", sa.BigInteger),
        sa.Column("every_s", sa.BigInteger),
        sa.Column("corrections", sa.Integer),
        sa.Column("drift", sa.Float),
        sa.Column("hyperparameters", JSONB, nullable=False),
        sa.Column("accept", JSONB, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.Column("told", sa.Text),
        sa.Column("problem", sa.Text),
    )


def downgrade() -> None:
    op.drop_table("retraining_plans")
    op.drop_index("fine_tuning_jobs_plan", "fine_tuning_jobs")
    op.drop_column("fine_tuning_jobs", "lineage")
    op.drop_column("fine_tuning_jobs", "accept")
    op.drop_column("fine_tuning_jobs", "plan")
    op.drop_index("traffic_feedback_route", "traffic_feedback")
    op.drop_column("traffic_feedback", "version")
    op.drop_column("traffic_feedback", "route")
