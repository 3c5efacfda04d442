"""Files, fine-tuning jobs and their queue, and further names of versions.

The queue is procrastinate's, and so is its schema: it is applied as the installed package has it. A test
holds that to the one this was written with; a newer minor version of procrastinate needs a migration of its
own that applies its `sql/migrations`.
"""

from importlib.util import find_spec
from pathlib import Path

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0008"
down_revision = "0007"

NOW = sa.func.now()
STATUSES = "('validating_files', 'queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled')"
ACTIONS = "'register', 'promote', 'rollback', 'delete', 'collect', 'remove'"


def queue_schema() -> str:
    """procrastinate's own, without importing it."""
    spec = find_spec("procrastinate")
    assert spec is not None and spec.origin is not None
    return (Path(spec.origin).parent / "sql" / "schema.sql").read_text(encoding="utf-8")


def upgrade() -> None:
    op.create_table(
        "files",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("number", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("filename", sa.Text, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
    )
    op.create_index("files_tenant", "files", ["tenant", "number"])
    op.create_index("files_sha256", "files", ["sha256"])
    op.create_table(
        "fine_tuning_jobs",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("number", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("continues", sa.Text),
        sa.Column("adapter", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("version", sa.Text),
        sa.Column("training_file", sa.Text, nullable=False),
        sa.Column("validation_file", sa.Text),
        sa.Column("suffix", sa.Text),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("method", JSONB, nullable=False),
        sa.Column("metadata", JSONB),
        sa.Column("trained_tokens", sa.BigInteger),
        sa.Column("result_files", JSONB, nullable=False),
        sa.Column("error", JSONB),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("estimated_finish", sa.DateTime(timezone=True)),
        sa.Column("queue_id", sa.BigInteger),
        sa.Column("lost", sa.Integer, server_default="0", nullable=False),
        sa.CheckConstraint(f"status IN {STATUSES}", name="fine_tuning_jobs_status_check"),
        sa.UniqueConstraint("name", name="fine_tuning_jobs_name_key"),
    )
    op.create_index("fine_tuning_jobs_tenant", "fine_tuning_jobs", ["tenant", "number"])
    op.create_table(
        "fine_tuning_events",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("job", sa.Text, sa.ForeignKey("fine_tuning_jobs.id", ondelete="CASCADE"), nullable=False),
        sa.Column("level", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("data", JSONB),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
    )
    op.create_index("fine_tuning_events_job", "fine_tuning_events", ["job", "id"])
    op.create_table(
        "fine_tuning_checkpoints",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("job", sa.Text, sa.ForeignKey("fine_tuning_jobs.id", ondelete="CASCADE"), nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("metrics", JSONB, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.UniqueConstraint("job", "step", name="fine_tuning_checkpoints_job_step_key"),
    )
    op.create_table(
        "job_workers",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("devices", sa.Integer, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
    )
    op.create_table(
        "version_names",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("version_id", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_version_names"),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name="fk_version_names_version_id"),
    )
    op.create_index("ix_version_names_version_id", "version_names", ["version_id"])
    _actions(f"{ACTIONS}, 'name'")
    # Many statements at once, and % for its own ends: neither goes with parameters.
    op.get_bind().exec_driver_sql(queue_schema(), execution_options={"no_parameters": True})


def downgrade() -> None:
    for table in ("jobs", "events", "periodic_defers", "workers"):
        op.execute(f"DROP TABLE procrastinate_{table} CASCADE")
    op.execute(
        """
        DO $$
        DECLARE found regprocedure;
        BEGIN
            FOR found IN SELECT oid::regprocedure FROM pg_proc WHERE proname LIKE 'procrastinate\\_%' LOOP
                EXECUTE 'DROP FUNCTION ' || found || ' CASCADE';
            END LOOP;
        END $$
        """
    )
    for kind in ("job_to_defer_v1", "job_event_type", "job_status"):
        op.execute(f"DROP TYPE procrastinate_{kind} CASCADE")
    op.execute("DELETE FROM route_history WHERE action = 'name'")
    _actions(ACTIONS)
    for name in ("version_names", "job_workers", "fine_tuning_checkpoints", "fine_tuning_events"):
        op.drop_table(name)
    op.drop_table("fine_tuning_jobs")
    op.drop_table("files")


def _actions(known: str) -> None:
    op.drop_constraint("ck_route_history_action", "route_history", type_="check")
    op.create_check_constraint("ck_route_history_action", "route_history", f"action IN ({known})")
