"""What the control plane does when bookkeeping fails."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import httpx
import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from adapters.errors import StoreFull
from gateway.api.admin import Admin

LOST = OperationalError("SELECT 1", {}, Exception("no server"))
EXHAUSTED = PoolTimeout("QueuePool limit reached")  # no DBAPIError: nothing was sent to a server


class Registry:
    """Fails once (`failed`), then works when it is asked again (`worked`)."""

    def __init__(self, failure: Exception) -> None:
        self.failure: Exception | None = failure
        self.failed, self.worked = asyncio.Event(), asyncio.Event()

    async def reclaim(self) -> list[Any]:
        failure, self.failure = self.failure, None
        if failure is not None:
            self.failed.set()
            raise failure
        self.worked.set()
        return []

    async def adapters(self) -> list[Any]:
        raise self.failure or AssertionError("it was to fail")


class Keys:
    def authenticate(self, header: bytes | None) -> Any:
        return type("Key", (), {"role": "admin"})


def admin(registry: Registry) -> Admin:
    nothing = cast(Any, None)
    return Admin(
        settings=nothing,
        base=nothing,
        keys=cast(Any, Keys()),
        registry=cast(Any, registry),
        store=nothing,
        routes=nothing,
        fleet=nothing,
        wishes=nothing,
        tally=nothing,
        traffic=None,
        datasets=nothing,
    )


@pytest.mark.parametrize("failure", [LOST, EXHAUSTED, StoreFull("full"), OSError("read only")])
async def test_collecting_goes_on_after_a_failure(failure: Exception) -> None:
    registry = Registry(failure)
    control = admin(registry)
    task = asyncio.create_task(control.keep_collecting())
    async with asyncio.timeout(5):
        await registry.failed.wait()
        control.collect_soon()
        await registry.worked.wait()
    task.cancel()


@pytest.mark.parametrize("failure", [LOST, EXHAUSTED])
async def test_a_database_that_is_away_is_a_503_with_retry_after(failure: Exception) -> None:
    transport = httpx.ASGITransport(admin(Registry(failure)).app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
        answer = await http.get("/admin/v1/adapters")
    assert (503, "2") == (answer.status_code, answer.headers["retry-after"])
    assert "database_unavailable" == answer.json()["error"]["code"]
