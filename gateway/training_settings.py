"""The settings of the Files API and of fine-tuning jobs; a part of `gateway.settings`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from gateway.section import GIB, MIB, Section


class EvaluationSettings(Section):
    """`hotswap eval`: answers and who judges them."""

    hosts: tuple[str, ...] = Field(
        (), description="other hosts that may be sent captured rows, whose consent basis must cover it"
    )


class FilesSettings(Section):
    """The Files API: what is uploaded to train on, and what training leaves."""

    max_file_bytes: int = Field(512 * MIB, gt=0, description="largest file accepted; above it 413")
    quota_bytes: int = Field(20 * GIB, gt=0, description="all files together")


class JobsSettings(Section):
    """Fine-tuning jobs: the queue is in Postgres, `hotswap worker` does the work."""

    workers: Literal[0, 1] | None = Field(
        None, description="a worker beside the gateway; default: 1 where hotswap[training] is installed"
    )
    devices: int | None = Field(
        None, ge=1, description="jobs that a worker runs at once; default: one a GPU, 1 without any"
    )
    python: Path | None = Field(
        None, description="interpreter that has hotswap[training]; default: the worker's own"
    )
    folder: Path | None = Field(
        None, description="checkpoints and logs; default <state_dir>/jobs. Workers that share it resume jobs"
    )
    checkpoint_store: str | None = Field(
        None,
        pattern="^(s3|gs|az|file)://",
        description="checkpoints go here too, e.g. s3://bucket/runs: another machine goes on from them",
    )
    tensorboard: Path | None = Field(None, description="a folder that losses are written to, for TensorBoard")
    launch: Literal["local", "ray"] = Field(
        "local", description="where a job's processes run: on this machine, or on the Ray of RAY_ADDRESS"
    )
    processes: int = Field(
        1, ge=1, description="processes that share a job's batches: a GPU each, or cores of a CPU"
    )
    offer_checkpoints: bool = Field(
        True, description="the last checkpoints of a job answer at their names, too; each is a version"
    )
    methods: tuple[Literal["supervised", "dpo", "reinforcement"], ...] = Field(
        ("supervised", "dpo"), description="methods of fine-tuning that the trainer knows; others are refused"
    )
    retrain_every_s: float = Field(60.0, gt=0, description="how often plans to retrain are looked at")
    stop_s: float = Field(30.0, gt=0, description="a trainer that is to stop may take this long to save")
    heartbeat_s: float = Field(10.0, gt=0, description="how often a worker says that it lives")
    lost_after_s: float = Field(
        60.0, gt=0, description="a worker silent for this long is gone, and its jobs go to others"
    )
    attempts: int = Field(5, ge=1, description="workers that a job may lose before it fails")
    webhook_url: str | None = Field(
        None, pattern="^https?://", description="hears of every job that ends, as OpenAI's webhooks do"
    )
    webhook_secret_env: str | None = Field(
        None, description="environment variable with the secret (whsec_…) that webhooks are signed with"
    )

    @model_validator(mode="after")
    def _times_and_secrets(self) -> JobsSettings:
        if self.webhook_url is not None and self.webhook_secret_env is None:
            raise ValueError("webhook_url needs webhook_secret_env: who is called must know who calls")
        if self.lost_after_s <= self.stop_s:
            raise ValueError(
                f"lost_after_s is {self.lost_after_s:g}; it must be above stop_s ({self.stop_s:g}), or a job "
                "could go on in two places"
            )
        return self
