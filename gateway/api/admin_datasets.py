"""The control plane's part about datasets: which there are, and what of them was forgotten."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

from gateway.datasets import Datasets, NewDataset


class Scrubbed(BaseModel):
    """`rows` that the dataset has lost in all; `exchanges` that are in none of its files any more."""

    model_config = ConfigDict(extra="forbid")

    rows: int = Field(ge=0)
    exchanges: list[str] = []


def add_datasets(app: FastAPI, datasets: Datasets) -> None:
    """Adds /admin/v1/datasets to the control plane."""

    @app.get("/admin/v1/datasets")
    async def ls(name: str | None = None) -> dict[str, Any]:
        """Every dataset that was told of, with its lineage and the versions that learned from it."""
        return {"data": await datasets.all(name)}

    @app.post("/admin/v1/datasets", status_code=201)
    async def add(body: NewDataset) -> dict[str, Any]:
        """What a frozen dataset holds, so that forgetting reaches it. Many exchanges come in several
        calls."""
        return await datasets.add(body)

    @app.get("/admin/v1/datasets/{reference}/forgotten")
    async def forgotten(reference: str) -> dict[str, Any]:
        """Request ids of what it holds, or held, that was forgotten."""
        return {"data": await datasets.forgotten(reference)}

    @app.post("/admin/v1/datasets/{reference}/scrubbed")
    async def scrubbed(reference: str, body: Scrubbed) -> dict[str, Any]:
        """That they are taken out of its files."""
        await datasets.scrubbed(reference, body.rows, body.exchanges)
        return {"reference": reference, "scrubbed_rows": body.rows}
