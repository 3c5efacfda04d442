"""One request to one engine, and its answer to the client, byte for byte and as it comes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from gateway.relay.upstream import Connection, Head, Upstream, UpstreamFailed

NOT_NOW = b"x-hotswap-not-now"

EXPECTED = (b"application/json", b"text/event-stream")
"""What engines answer with, where they say; anything else is no answer to a request of ours."""

MAX_ERROR_BYTES = 64 * 1024
"""An engine's error answer is read up to here; more of it would help nobody."""


class Engine(Protocol):
    """Where to send it. `headers` are whole lines that it wants of every request: its name, its own key."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def headers(self) -> bytes: ...


class Outcome(StrEnum):
    """How a relayed answer ended."""

    COMPLETE = "complete"
    CLIENT_LEFT = "client_left"
    ENGINE_LOST = "engine_lost"


class Client(Protocol):
    """Who gets the answer. Writes are gathered until `flush` or `end`."""

    def start(self, status: int, headers: bytes, *, length_known: bool, streaming: bool) -> None:
        """The head. `headers` are whole lines, each ending in CRLF; framing is the client's own affair."""

    def write(self, piece: bytes, /) -> None: ...
    def flush(self) -> None: ...
    def end(self, outcome: Outcome) -> None:
        """The last of the answer was written: all of it, or an error event in place of the rest."""

    def cut(self) -> None:
        """The answer will never be whole: break the connection, so that nobody takes it for one."""


@dataclass(slots=True)
class UpstreamRequest:
    """What is posted to the engine. Of the client's headers, none is. `began` is on the monotonic clock.

    The body is dropped when the answer begins: it cannot be sent again then, and the answer may take minutes.
    """

    path: str
    body: bytes
    request_id: str
    began: float


class EngineAnswered(Exception):
    """The engine answered with a status other than 2xx. Nothing was sent to the client yet.

    `not_now`: our plugin there did not let it in, because others' adapters fill the engine's slots.
    """

    def __init__(self, status: int, body: bytes, retry_after: bytes | None, *, not_now: bool = False) -> None:
        super().__init__(f"the engine answered {status}")
        self.status = status
        self.body = body
        self.retry_after = retry_after
        self.not_now = not_now


class Transfer:
    """Carries one answer. Exactly one of `outcome` and `failure` is set when `on_done` is called.

    `failure` means that nothing was sent to the client: the request may be tried elsewhere, or refused. An
    engine's status other than 2xx is one. An engine lost in mid-answer ends an event stream with an error
    event and no `[DONE]`; any other answer is left unfinished and the client's connection cut.
    """

    __slots__ = (
        "_before",
        "_client",
        "_connection",
        "_engine",
        "_error",
        "_head",
        "_last",
        "_on_done",
        "_request",
        "_started",
        "_streaming",
        "_upstream",
        "failure",
        "outcome",
        "pieces",
    )

    def __init__(
        self,
        upstream: Upstream,
        engine: Engine,
        request: UpstreamRequest,
        client: Client,
        on_done: Callable[[Transfer], None],
    ) -> None:
        self._upstream = upstream
        self._engine = engine
        self._request = request
        self._client = client
        self._on_done = on_done
        self._connection: Connection | None = None
        self._head: Head | None = None
        self._error: tuple[Head, bytearray] | None = None
        self._started = False
        self._streaming = False
        self._before = self._last = b""
        self.pieces = 0
        self.outcome: Outcome | None = None
        self.failure: UpstreamFailed | EngineAnswered | None = None

    def send_now(self) -> bool:
        """Sends on a kept-alive connection; False when there is none, and nothing has happened."""
        connection = self._upstream.take((self._engine.host, self._engine.port))
        if connection is None:
            return False
        self._begin(connection)
        return True

    async def send(self) -> None:
        """Sends on a new connection. A failure to connect is the transfer's failure."""
        try:
            connection = await self._upstream.connect((self._engine.host, self._engine.port))
        except UpstreamFailed as failure:
            self.on_failure(failure)
            return
        except asyncio.CancelledError:  # by a client that left, who was told; or by the end of the drain
            self.on_failure(UpstreamFailed("the gateway is stopping"))
            raise
        if self.outcome is None:
            self._begin(connection)
        else:
            connection.abort()

    def client_left(self) -> None:
        """Closes the engine's connection now: it stops working on what nobody waits for."""
        self._finish(Outcome.CLIENT_LEFT)

    @property
    def waits_for_client(self) -> bool:
        """The client reads slower than the engine writes."""
        return self._connection is not None and self._connection.paused

    @property
    def begun(self) -> bool:
        """The engine has begun an answer: its head is there, or more."""
        return self._started or self._head is not None

    def give_up(self, message: str) -> None:
        """The engine was silent for too long."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
        self.on_failure(UpstreamFailed(message))

    def pause(self) -> None:
        """The client reads slower than the engine writes: hold the engine back."""
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        if self._connection is not None:
            self._connection.resume()

    def _begin(self, connection: Connection) -> None:
        self._connection = connection
        connection.begin(_request_head(self._engine, self._request) + self._request.body, self)

    # What the connection calls.

    def on_head(self, head: Head) -> None:
        if 200 <= head.status < 300:
            kind = head.get(b"content-type")
            if kind is not None and not kind.startswith(EXPECTED) and self._connection is not None:
                self._connection.abort()
                self.on_failure(
                    UpstreamFailed(f"the engine answered with {kind[:100]!r}, which is no answer")
                )
                return
            self._head = head
        else:
            self._error = (head, bytearray())

    def _start(self, head: Head) -> None:
        """The answer begins: with its first byte, because vLLM sends the head before it has done anything.
        Until then another engine may be asked.
        """
        streaming, length_known, lines = False, head.status == 204, []
        # Only what describes the body goes on; hop-by-hop, server and date are the server's own.
        for name, value in head.headers:
            if name == b"content-type":
                streaming = value.startswith(b"text/event-stream")
                lines.append(b"content-type: %b\r\n" % value)
            elif name == b"content-length":
                length_known = True
                lines.append(b"content-length: %b\r\n" % value)
            elif name == b"content-encoding":
                lines.append(b"content-encoding: %b\r\n" % value)
        if streaming:
            lines.append(b"cache-control: no-cache\r\nx-accel-buffering: no\r\n")
        took_ms = (time.monotonic() - self._request.began) * 1000
        lines.append(b"openai-processing-ms: %d\r\n" % round(took_ms))
        self._head, self._started, self._streaming = None, True, streaming
        self._request.body = b""
        self._client.start(head.status, b"".join(lines), length_known=length_known, streaming=streaming)

    def on_piece(self, piece: bytes) -> None:
        self.pieces += 1
        if self._error is None:
            if self._head is not None:
                self._start(self._head)
            self._before, self._last = self._last, piece
            self._client.write(piece)
            return
        head, body = self._error
        body += piece
        if len(body) > MAX_ERROR_BYTES and self._connection is not None:
            self._connection.abort()
            self._answered(head, bytes(body))

    def flush(self) -> None:
        if self._started and self.outcome is None:
            self._client.flush()

    def on_end(self) -> None:
        self._connection = None
        if self._error is not None:
            head, body = self._error
            self._answered(head, bytes(body))
            return
        if self._head is not None:
            self._start(self._head)
        self._client.end(Outcome.COMPLETE)
        self._finish(Outcome.COMPLETE)

    def on_failure(self, failure: UpstreamFailed) -> None:
        self._connection = None
        if not self._started:
            self._fail(failure)
        elif self._streaming:
            self._client.write(_lost_event((self._before + self._last)[-2:]))
            self._client.end(Outcome.ENGINE_LOST)
            self._finish(Outcome.ENGINE_LOST)
        else:
            self._client.flush()
            self._client.cut()
            self._finish(Outcome.ENGINE_LOST)

    def _answered(self, head: Head, body: bytes) -> None:
        not_now = head.get(NOT_NOW) is not None
        self._fail(EngineAnswered(head.status, body, head.get(b"retry-after"), not_now=not_now))

    def _fail(self, failure: UpstreamFailed | EngineAnswered) -> None:
        if self.outcome is None and self.failure is None:
            self.failure = failure
            self._on_done(self)

    def _finish(self, outcome: Outcome) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
        if self.outcome is None and self.failure is None:
            self.outcome = outcome
            self._on_done(self)


def _request_head(engine: Engine, request: UpstreamRequest) -> bytes:
    return b"POST %b HTTP/1.1\r\n%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n" % (
        request.path.encode(),
        engine.headers,
        request.request_id.encode(),
        len(request.body),
    )


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
