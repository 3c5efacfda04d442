"""One request to an engine, and its answer to the client, byte for byte and as it comes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from gateway.relay.upstream import Connection, Head, Upstream, UpstreamFailed

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

MAX_ERROR_BYTES = 64 * 1024
"""An engine's error answer is read up to here; more of it would help nobody."""

_DESCRIBES_BODY = (b"content-type", b"content-length", b"content-encoding")


class Lease(Protocol):
    """Where to send it. `authorization` is the engine's key as a header value, never the client's."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def authorization(self) -> bytes | None: ...


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """What goes to the engine. Of the client's headers, nothing does."""

    method: str
    path: str
    body: bytes
    request_id: str
    content_type: bytes = b"application/json"


class Outcome(StrEnum):
    """How a relayed answer ended."""

    COMPLETE = "complete"
    CLIENT_LEFT = "client_left"
    ENGINE_LOST = "engine_lost"


class EngineAnswered(Exception):
    """The engine answered with an error status. Nothing was sent to the client yet."""

    def __init__(self, status: int, body: bytes, retry_after: bytes | None) -> None:
        super().__init__(f"the engine answered {status}")
        self.status = status
        self.body = body
        self.retry_after = retry_after


async def forward(
    upstream: Upstream, lease: Lease, request: UpstreamRequest, receive: Receive, send: Send
) -> Outcome:
    """Relays `request`. `receive` has given the whole request body already: it is watched for a disconnect.

    A client that leaves closes the engine's connection at once, while waiting for the answer and during
    it. Raises `UpstreamFailed` or `EngineAnswered` only while nothing has been sent to the client, so the
    caller may try again or answer with an error. An engine lost in mid-answer ends an event stream with
    an error event and no `[DONE]`; any other answer is left unfinished, which makes the server cut the
    client's connection.
    """
    started = time.monotonic()
    exchange = _Exchange(upstream, lease, request)
    watcher = asyncio.get_running_loop().create_task(_watch(receive, exchange))
    try:
        return await _relay(exchange, request, send, started)
    finally:
        exchange.finish()
        # Not awaited: it ends in the next turn of the loop, and a turn costs a tenth of a whole request.
        watcher.cancel()


async def _watch(receive: Receive, exchange: _Exchange) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    exchange.client_left()


async def _relay(exchange: _Exchange, request: UpstreamRequest, send: Send, started: float) -> Outcome:
    try:
        head = await exchange.start()
        if head.status >= 400:
            raise EngineAnswered(
                head.status, await _error_body(exchange.connection), head.get(b"retry-after")
            )
    except UpstreamFailed:
        if exchange.left:
            return Outcome.CLIENT_LEFT
        raise
    streaming = (head.get(b"content-type") or b"").startswith(b"text/event-stream")
    headers = _headers(head, request, streaming, time.monotonic() - started)
    await send({"type": "http.response.start", "status": head.status, "headers": headers})
    connection = exchange.connection
    tail = b""
    try:
        more = True
        while more:
            chunk, more = await connection.read()
            if chunk:
                tail = chunk[-2:] if len(chunk) > 1 else (tail + chunk)[-2:]
            await send({"type": "http.response.body", "body": chunk, "more_body": more})
    except UpstreamFailed:
        if exchange.left:
            return Outcome.CLIENT_LEFT
        if streaming:
            await send({"type": "http.response.body", "body": _lost_event(tail), "more_body": False})
        return Outcome.ENGINE_LOST
    return Outcome.COMPLETE


class _Exchange:
    """The engine's connection of one request, and whether the client is still there."""

    def __init__(self, upstream: Upstream, lease: Lease, request: UpstreamRequest) -> None:
        self._upstream = upstream
        self._to = (lease.host, lease.port, _request_head(lease, request), request.body)
        self._connection: Connection | None = None
        self.left = False

    @property
    def connection(self) -> Connection:
        assert self._connection is not None
        return self._connection

    async def start(self) -> Head:
        """Sends the request and waits for the head of its answer."""
        connection = self._use(await self._upstream.send(*self._to))
        try:
            return await connection.head()
        except UpstreamFailed:
            if not connection.went_stale():
                raise
        return await self._use(await self._upstream.send_fresh(*self._to)).head()

    def _use(self, connection: Connection) -> Connection:
        self._connection = connection
        if self.left:
            connection.abort()
        return connection

    def client_left(self) -> None:
        # Also called once an answer is complete (servers say http.disconnect then, too): harmless by that
        # time.
        self.left = True
        if self._connection is not None:
            self._connection.abort("the client left")

    def finish(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release()


def _request_head(lease: Lease, request: UpstreamRequest) -> bytes:
    host = f"[{lease.host}]" if ":" in lease.host else lease.host
    authorization = b"authorization: " + lease.authorization + b"\r\n" if lease.authorization else b""
    return (
        f"{request.method} {request.path} HTTP/1.1\r\nhost: {host}:{lease.port}\r\n"
        f"x-request-id: {request.request_id}\r\ncontent-length: {len(request.body)}\r\n"
    ).encode() + b"content-type: %b\r\n%b\r\n" % (request.content_type, authorization)


def _headers(
    head: Head, request: UpstreamRequest, streaming: bool, took_s: float
) -> list[tuple[bytes, bytes]]:
    headers = [
        (b"x-request-id", request.request_id.encode()),
        (b"openai-processing-ms", b"%d" % round(took_s * 1000)),
    ]
    # Only what describes the body goes on; hop-by-hop, server and date are the server's own.
    headers += [pair for pair in head.headers if pair[0] in _DESCRIBES_BODY]
    if streaming:
        headers += [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
    return headers


def _lost_event(tail: bytes) -> bytes:
    """An error event on a line of its own, with no `[DONE]` after it: half an answer must not look whole."""
    error = {
        "message": "The engine stopped in mid-answer; what came is incomplete. Send the request again.",
        "type": "server_error",
        "param": None,
        "code": "engine_lost",
    }
    gap = b"" if tail in (b"", b"\n\n") else b"\n\n"
    return gap + b"data: " + json.dumps({"error": error}).encode() + b"\n\n"


async def _error_body(connection: Connection) -> bytes:
    body = b""
    more = True
    while more and len(body) < MAX_ERROR_BYTES:
        chunk, more = await connection.read()
        body += chunk
    return body
