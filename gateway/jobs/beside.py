"""A worker beside the gateway: a child process of it, light until it has a job, and on the leash."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from collections.abc import Coroutine
from typing import Any

from gateway.settings import Settings
from gateway.supervise import Child, keep

log = logging.getLogger("hotswap.jobs")

SETTINGS = "HOTSWAP_JOBS_SETTINGS"
DATABASE_URL = "HOTSWAP_JOBS_DATABASE_URL"
AFTER_STOP_S = 10.0
"""What a worker needs after its trainers have saved."""


def has_worker(settings: Settings) -> bool:
    """Whether a worker runs beside this gateway: as the settings say, or where the trainer is installed."""
    if settings.jobs.workers is not None:
        return settings.jobs.workers > 0
    return all(importlib.util.find_spec(name) is not None for name in ("torch", "trl", "peft"))


def keep_working(settings: Settings, database_url: str) -> Coroutine[Any, Any, None]:
    """Keeps the worker's process running, until cancelled."""
    told = settings.model_copy(update={"state_dir": settings.state_dir.absolute()})
    environment = {**os.environ, SETTINGS: told.model_dump_json(), DATABASE_URL: database_url}

    def child() -> Child:
        return Child(
            "jobs-worker",
            [sys.executable, "-m", "gateway.cli", "worker"],
            state_dir=settings.state_dir,
            log_path=settings.log_path / "jobs-worker.out",
            env=environment,
            grace_s=settings.jobs.stop_s + AFTER_STOP_S,
        )

    return keep(child, lambda text: log.error("%s", text))
