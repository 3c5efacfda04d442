"""Small whole answers on a bare ASGI `send`."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.api.errors import error_body
from gateway.errors import GatewayError
from gateway.relay.forward import Send


async def answer_json(send: Send, status: int, content: Any, request_id: str, **headers: str) -> None:
    """A JSON answer with its length, `x-request-id`, and `headers` (`_` stands for `-`)."""
    body = msgspec.json.encode(content)
    await answer(send, status, body, request_id, content_type="application/json", **headers)


async def answer_error(send: Send, error: GatewayError, request_id: str) -> None:
    """`error` in OpenAI's shape."""
    await answer_json(send, error.status, error_body(error), request_id, **error.headers())


async def answer(send: Send, status: int, body: bytes, request_id: str, **headers: str) -> None:
    """Status, headers and body at once."""
    pairs = [(b"x-request-id", request_id.encode()), (b"content-length", b"%d" % len(body))]
    pairs += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body, "more_body": False})
