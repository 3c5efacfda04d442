"""The tables of jobs. `jobs.py` and `progress.py` alone read and write them; procrastinate has its own."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    func,
)
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData()

STATUSES = ("validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled")

jobs = Table(
    "fine_tuning_jobs",
    metadata,
    Column("id", Text, primary_key=True),  # ftjob-…
    Column("number", BigInteger, Identity(always=True), nullable=False),  # the order they came in
    Column("tenant", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("model", Text, nullable=False),  # as it was asked for
    Column("continues", Text, nullable=True),  # the version that it goes on from; null: the base
    Column("adapter", Text, nullable=False),  # of which the result becomes a version
    Column("name", Text, nullable=False, unique=True),  # ft:base:tenant:suffix:id, what it will answer to
    Column("version", Text, nullable=True),  # once it is registered
    Column("training_file", Text, nullable=False),
    Column("validation_file", Text, nullable=True),
    Column("suffix", Text, nullable=True),
    Column("seed", BigInteger, nullable=False),
    Column("method", JSONB, nullable=False),
    Column("metadata", JSONB(none_as_null=True), nullable=True),
    Column("trained_tokens", BigInteger, nullable=True),
    Column("result_files", JSONB, nullable=False),
    Column("error", JSONB(none_as_null=True), nullable=True),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("finished_at", DateTime(timezone=True), nullable=True),
    Column("estimated_finish", DateTime(timezone=True), nullable=True),
    Column("queue_id", BigInteger, nullable=True),  # procrastinate's; an older entry of a job is void
    Column("lost", Integer, nullable=False, server_default="0"),  # workers that died with it
    Column("plan", Text, nullable=True),  # of `gateway.retraining`; null: somebody asked for it
    Column("accept", JSONB(none_as_null=True), nullable=True),  # licences that the plan accepts
    Column("lineage", JSONB(none_as_null=True), nullable=True),  # of the dataset that was built for it
    CheckConstraint(f"status IN {STATUSES!r}", name="fine_tuning_jobs_status_check"),
)
Index("fine_tuning_jobs_tenant", jobs.c.tenant, jobs.c.number)
Index("fine_tuning_jobs_plan", jobs.c.plan, jobs.c.number)

events = Table(
    "fine_tuning_events",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("job", Text, ForeignKey("fine_tuning_jobs.id", ondelete="CASCADE"), nullable=False),
    Column("level", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("data", JSONB(none_as_null=True), nullable=True),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)
Index("fine_tuning_events_job", events.c.job, events.c.id)

checkpoints = Table(
    "fine_tuning_checkpoints",
    metadata,
    Column("id", Text, primary_key=True),  # ftckpt-…
    Column("job", Text, ForeignKey("fine_tuning_jobs.id", ondelete="CASCADE"), nullable=False),
    Column("step", Integer, nullable=False),
    Column("name", Text, nullable=False),  # of the model
    Column("metrics", JSONB, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    UniqueConstraint("job", "step", name="fine_tuning_checkpoints_job_step_key"),
)

workers = Table(
    "job_workers",
    metadata,
    Column("name", Text, primary_key=True),
    Column("devices", Integer, nullable=False),
    Column("started_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("seen_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)
