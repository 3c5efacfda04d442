"""The guard before an engine's routes. In process: an ASGI app behind it, no server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from adapters.vllm_plugin.guard import Guard


async def answer(keys: list[str], *authorization: bytes, kind: str = "http", method: str = "GET") -> Any:
    """What comes out: "passed" when the app behind was reached, else the messages of the refusal."""
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        sent.append({"type": "passed"})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": kind,
        "method": method,
        "path": "/health",
        "headers": [(b"authorization", value) for value in authorization],
    }
    await Guard(app, keys)(scope, None, send)
    return "passed" if sent == [{"type": "passed"}] else sent


@pytest.mark.parametrize("scheme", [b"Bearer", b"bearer", b"BEARER"])
async def test_the_engines_key_opens(scheme):
    assert await answer(["k1", "k2"], scheme + b" k2") == "passed"


@pytest.mark.parametrize(
    "given",
    [(), (b"",), (b"Bearer",), (b"Bearer ",), (b"Bearer k",), (b"Bearer k12",), (b"Basic k1",), (b"k1",)],
)
async def test_anything_else_is_a_401(given):
    assert (await answer(["k1"], *given))[0]["status"] == 401


async def test_two_authorization_headers_are_a_401_even_when_one_is_right():
    assert (await answer(["k1"], b"Bearer k1", b"Bearer other"))[0]["status"] == 401


async def test_a_preflight_request_needs_the_key_too():
    assert (await answer(["k1"], method="OPTIONS"))[0]["status"] == 401


async def test_a_refusal_has_the_shape_of_openai_errors():
    body = json.loads((await answer(["k1"]))[1]["body"])
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["code"] == "invalid_api_key"


async def test_a_refusal_names_no_key():
    assert b"k1-secret" not in (await answer(["k1-secret"], b"Bearer guess"))[1]["body"]


@pytest.mark.parametrize("keys", [[], [""]])
async def test_an_engine_without_a_key_refuses_everybody_and_says_what_to_do(keys):
    start, body = await answer(keys, b"Bearer ")
    assert start["status"] == 401
    assert b"VLLM_API_KEY" in body["body"]


async def test_a_websocket_without_the_key_is_closed():
    assert await answer(["k1"], kind="websocket") == [{"type": "websocket.close", "code": 1008}]


async def test_start_and_stop_of_the_server_pass():
    assert await answer(["k1"], kind="lifespan") == "passed"
