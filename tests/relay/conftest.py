"""The relay runs on uvloop, so its tests do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvloop

from gateway.relay import EngineAnswered, Outcome, Upstream, UpstreamFailed, UpstreamRequest, forward


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    return {"uvloop": uvloop.new_event_loop}


@dataclass
class Relay:
    """An ASGI app that forwards every request to one port, and remembers how each one ended."""

    port: int
    upstream: Upstream = field(default_factory=Upstream)
    ended: list[Outcome | Exception] = field(default_factory=list)

    host = "127.0.0.1"
    authorization = b"Bearer engine-key"

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        request = UpstreamRequest("POST", scope["path"], bytes(body), "f" * 32)
        try:
            self.ended.append(await forward(self.upstream, self, request, receive, send))
        except (UpstreamFailed, EngineAnswered) as error:
            self.ended.append(error)
            await send({"type": "http.response.start", "status": 599, "headers": []})
            await send({"type": "http.response.body", "body": b""})
