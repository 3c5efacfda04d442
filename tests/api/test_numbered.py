"""Answers of the control plane have a request id, whoever made them."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI

from gateway.api.numbered import Numbered


@pytest.mark.parametrize(("path", "status"), [("/fine", 200), ("/none", 404), ("/broken", 500)])
async def test_every_answer_has_its_own_id(path: str, status: int) -> None:
    app = FastAPI()

    @app.get("/fine")
    async def fine() -> dict[str, bool]:
        return {"ok": True}

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("nobody expected this")

    transport = httpx.ASGITransport(Numbered(app), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as http:
        answers = [await http.get(path) for _ in range(2)]
    assert [status] * 2 == [answer.status_code for answer in answers]
    ids = [answer.headers.get_list("x-request-id") for answer in answers]
    assert [1, 1] == [len(each) for each in ids] and ids[0] != ids[1]
