"""Jobs, events and checkpoints as OpenAI shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Row


def job(row: Row[Any]) -> dict[str, Any]:
    """The `fine_tuning.job` object of a row."""
    method = row.method
    part = method[method["type"]]
    return {
        "object": "fine_tuning.job",
        "id": row.id,
        "model": row.model,
        "created_at": seconds(row.created_at),
        "finished_at": seconds(row.finished_at),
        "estimated_finish": seconds(row.estimated_finish) if row.status == "running" else None,
        "fine_tuned_model": row.name if row.status == "succeeded" else None,
        "organization_id": row.tenant,
        "result_files": row.result_files,
        "status": row.status,
        "validation_file": row.validation_file,
        "training_file": row.training_file,
        "hyperparameters": {
            name: part["hyperparameters"].get(name)
            for name in ("n_epochs", "batch_size", "learning_rate_multiplier")
        },
        "trained_tokens": row.trained_tokens,
        "error": row.error,
        "user_provided_suffix": row.suffix,
        "seed": row.seed,
        "integrations": [],
        "metadata": row.metadata,
        "method": method,
    }


def event(row: Row[Any]) -> dict[str, Any]:
    """The `fine_tuning.job.event` object of a row."""
    return {
        "object": "fine_tuning.job.event",
        "id": f"ftevent-{row.id}",
        "created_at": seconds(row.created_at),
        "level": row.level,
        "message": row.message,
        "data": row.data or {},
        "type": row.type,
    }


def checkpoint(row: Row[Any]) -> dict[str, Any]:
    """The `fine_tuning.job.checkpoint` object of a row."""
    return {
        "object": "fine_tuning.job.checkpoint",
        "id": row.id,
        "created_at": seconds(row.created_at),
        "fine_tuned_model_checkpoint": row.name,
        "fine_tuning_job_id": row.job,
        "metrics": row.metrics,
        "step_number": row.step,
    }


def seconds(at: datetime | None) -> int | None:
    """Unix time."""
    return None if at is None else int(at.timestamp())
