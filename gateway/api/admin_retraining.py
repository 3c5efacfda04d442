"""The control plane's part about plans to retrain: /admin/v1/retraining."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request

from adapters.version import check_name
from gateway.retraining import NewPlan, Retraining


def add_retraining(app: FastAPI, retraining: Retraining) -> None:
    """Adds plans to the control plane."""

    @app.get("/admin/v1/retraining")
    async def ls() -> dict[str, Any]:
        """Every plan, what was said since its last job, and what came of that."""
        return {"data": await retraining.list()}

    @app.put("/admin/v1/retraining/{adapter}")
    async def put(adapter: str, body: NewPlan, request: Request) -> dict[str, Any]:
        """The adapter's plan from now on, in the place of an earlier one."""
        check_name(adapter)
        key = request.state.key
        return await retraining.put(adapter, key.tenant, key.id, body)

    @app.delete("/admin/v1/retraining/{adapter}")
    async def remove(adapter: str) -> dict[str, Any]:
        """Its jobs go on; what they make is not proposed."""
        await retraining.plans.remove(adapter)
        return {"removed": adapter}

    @app.post("/admin/v1/retraining/{adapter}/now")
    async def now(adapter: str) -> dict[str, Any]:
        """Its job, due or not."""
        return await retraining.now(adapter)
