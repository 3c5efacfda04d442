"""A relay before an engine that is written out byte for byte, and a client as plain."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from gateway.relay import UpstreamFailed
from gateway.relay.upstream import Head
from tests.relay.conftest import Relay
from tests.relay.serving import Talk, serving_plane, talking

WHOLE = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n{"ok":true}'


@contextlib.asynccontextmanager
async def relaying(talk: Talk) -> AsyncIterator[tuple[Relay, int]]:
    """A relay in front of a raw engine, and the relay's port."""
    async with talking(talk) as engine:
        relay = Relay(engine)
        async with serving_plane(relay) as port:
            yield relay, port
        await relay.upstream.close()


class Heard:
    """A receiver that remembers only failures."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self.stale: list[bool] = []

    def on_head(self, head: Head) -> None: ...
    def on_piece(self, piece: bytes) -> None: ...
    def flush(self) -> None: ...
    def on_end(self) -> None: ...

    def on_failure(self, failure: UpstreamFailed) -> None:
        self.failures.append(str(failure))
        self.stale.append(failure.stale)


async def ask(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client's connection, with a request sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /v1/x HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
    return reader, writer


async def whole_answer(port: int) -> tuple[bytes, bytes]:
    """Head and raw body of the answer, read until the connection ends."""
    reader, writer = await ask(port)
    head, _, body = (await asyncio.wait_for(reader.read(), 5)).partition(b"\r\n\r\n")
    writer.close()
    return head, body
