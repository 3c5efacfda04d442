"""The relay runs on uvloop, so its tests do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import uvloop

from gateway.api.connection import ClientConnection
from gateway.api.exchange import Exchange
from gateway.relay import EngineAnswered, Outbox, Outcome, Transfer, Upstream, UpstreamFailed, UpstreamRequest


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    return {"uvloop": uvloop.new_event_loop}


@dataclass
class Relay:
    """A data plane that forwards every request to one port, and remembers how each one ended."""

    port: int
    upstream: Upstream = field(default_factory=lambda: Upstream(Outbox()))
    ended: list[Outcome | UpstreamFailed | EngineAnswered] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)

    host = "127.0.0.1"
    headers = b"host: engine\r\nauthorization: Bearer engine-key\r\n"

    def exchange(self, connection: ClientConnection, method: str, path: str) -> Exchange:
        return Exchange(connection, self.upstream.outbox, "f" * 32, method, path, self.exchanges.append)

    def opened(self, exchange: Exchange) -> None: ...
    def incomplete(self, exchange: Exchange) -> None: ...

    def ready(self, exchange: Exchange) -> None:
        request = UpstreamRequest(exchange.path, bytes(exchange.body), exchange.id, exchange.began)

        def send() -> None:
            exchange.transfer = transfer = Transfer(self.upstream, self, request, exchange, done)
            if not transfer.send_now():
                exchange.spawn(transfer.send())

        def done(transfer: Transfer) -> None:
            failure = transfer.failure
            if isinstance(failure, UpstreamFailed) and failure.stale:
                send()
                return
            ended = failure or transfer.outcome
            assert ended is not None
            self.ended.append(ended)
            if failure is not None:
                exchange.answer(599, b"")

        send()
