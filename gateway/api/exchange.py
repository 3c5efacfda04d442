"""One request on the data plane, and its answer, on a client's connection.

It stands where uvicorn's own cycle would (see `gateway.api.connection`), without ASGI's messages between: the
answer is written to the socket in the turn of the loop in which the engine's bytes arrived.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any, Protocol

from gateway.api.errors import error_json
from gateway.errors import GatewayError
from gateway.relay import Outbox, Outcome

_STATUS = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}

MAX_KEPT = 8 * 1024 * 1024
"""Bytes of an answer that are remembered; what comes after is passed on all the same."""


class Connection(Protocol):
    """What an exchange needs of its client's connection."""

    transport: asyncio.Transport

    def spawn(self, work: Coroutine[Any, Any, None], /) -> asyncio.Task[None]: ...
    def on_response_complete(self) -> None: ...


class Transfer(Protocol):
    """What is writing the answer now."""

    def client_left(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Exchange:
    """Method, path, headers and body of a request; then its answer. `on_end` is called once, at the very end.

    `began` is when its head had come (monotonic seconds), `ready` when its body had, `first` when the first
    byte of its answer was written, and `ended` when the last was, or when either side gave up. `pieces` and
    `sent_bytes` count the body of the answer as it was written; `outcome` is known at the end. `memory`,
    `request` and `kept` are the recorder's: where it wants the pieces, `kept` is a list.
    """

    # Slots: with more than thirty attributes CPython (3.11) gives every instance a hash table of its own.
    __slots__ = (
        "_chunked",
        "_connection",
        "_out",
        "_outbox",
        "_task",
        "_timer",
        "authorization",
        "began",
        "body",
        "complete",
        "content_length",
        "ended",
        "engine",
        "error",
        "expect_continue",
        "first",
        "http10",
        "id",
        "keep_alive",
        "kept",
        "key",
        "left",
        "loaded_s",
        "memory",
        "method",
        "on_end",
        "on_over",
        "outcome",
        "path",
        "pieces",
        "query",
        "ready",
        "request",
        "response_complete",
        "response_started",
        "route",
        "sent_bytes",
        "status",
        "streaming",
        "transfer",
        "unit",
        "version",
        "waiting",
    )

    def __init__(
        self,
        connection: Connection,
        outbox: Outbox,
        id: str,
        method: str,
        path: str,
        on_end: Callable[[Exchange], None],
    ) -> None:
        self.id = id
        self.method = method
        self.path = path
        self.began = self.ready = time.monotonic()
        self.on_end = on_end
        self.authorization: bytes | None = None
        self.content_length: bytes | None = None
        self.unit: bytes | None = None  # whom the client says it asks for
        self.http10 = self.expect_continue = False
        self.query = b""  # of its URL, as it was sent
        self.body: bytes | bytearray = b""
        self.complete = False
        self.waiting = False  # behind another request of the same connection
        self.keep_alive = True
        self.first: float | None = None
        self.ended: float | None = None
        self.status = self.pieces = self.sent_bytes = 0
        self.streaming = False
        self.outcome: Outcome | None = None
        self.error: str | None = None  # the code of the refusal that was its answer
        self.key: Any = None  # whose it is, once that is known
        self.route: str | None = None
        self.version: str | None = None
        self.engine: tuple[str, int] | None = None
        self.loaded_s: float | None = None
        self.left = self.response_started = self.response_complete = False
        self.transfer: Transfer | None = None
        self.on_over: Callable[[], None] | None = None  # what was held for it is let go
        self.memory: Any = None  # how it is to be remembered (`gateway.traffic.recorder`), with what
        self.request: bytes | bytearray = b""
        self.kept: list[bytes] | None = None
        self._chunked = False
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._connection = connection
        self._outbox = outbox
        self._out: list[bytes] = []
        outbox.in_flight += 1

    # Its request.

    def add(self, part: bytes) -> None:
        """More of the body."""
        if not self.body:
            self.body = part
        elif isinstance(self.body, bytearray):
            self.body += part
        else:
            self.body = bytearray(self.body) + part

    def proceed(self) -> None:
        """The body is wanted: answers `Expect: 100-continue`."""
        if self.expect_continue and not self.waiting:
            self.expect_continue = False
            self._outbox.write_now(self._connection.transport, b"HTTP/1.1 100 Continue\r\n\r\n")

    def body_within(self, seconds: float, otherwise: Callable[[Exchange], None]) -> None:
        """Calls `otherwise` when the body is not complete in time."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._late, otherwise)

    def _late(self, otherwise: Callable[[Exchange], None]) -> None:
        if not self.complete and not self.response_complete:
            otherwise(self)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Work that takes more than this turn of the loop; it is cancelled when the client leaves."""
        self._task = self._connection.spawn(work)

    # Its answer: `gateway.relay`'s Client.

    def start(self, status: int, headers: bytes, *, length_known: bool, streaming: bool) -> None:
        self.response_started = True
        self.status = status
        self.streaming = streaming
        line = _STATUS.get(status) or b"HTTP/1.1 %d \r\n" % status
        out = [line, b"x-request-id: ", self.id.encode(), b"\r\n", headers]
        if self.expect_continue:
            self.keep_alive = False  # nobody knows whether the body that was not asked for will come
        if self.loaded_s is not None:
            out.append(b"x-hotswap-load-ms: %d\r\n" % round(self.loaded_s * 1000))
        if not length_known:
            if self.http10:
                self.keep_alive = False
            else:
                self._chunked = True
                out.append(b"transfer-encoding: chunked\r\n")
        out.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        self._out = out

    def write(self, piece: bytes) -> None:
        self.pieces += 1
        self.sent_bytes += len(piece)
        if self.kept is not None and self.sent_bytes <= MAX_KEPT:
            self.kept.append(piece)
        if self._chunked:
            self._out.append(b"%x\r\n%b\r\n" % (len(piece), piece))
        else:
            self._out.append(piece)

    def flush(self) -> None:
        out = self._out
        if out and not self.left:
            if self.first is None:
                self.first = time.monotonic()
            send = self._outbox.write_now if self.streaming or not self.keep_alive else self._outbox.write
            send(self._connection.transport, out[0] if len(out) == 1 else b"".join(out))
            self._out = []

    def end(self, outcome: Outcome = Outcome.COMPLETE) -> None:
        if self._chunked:
            self._out.append(b"0\r\n\r\n")
        self.flush()
        self._over(outcome)
        if self.left:
            return
        if not self.keep_alive:
            self._connection.transport.close()
        self._connection.on_response_complete()

    def cut(self) -> None:
        self._over(Outcome.ENGINE_LOST)
        self._outbox.flush()
        if self._chunked or not self.http10:
            self._connection.transport.close()
        else:
            self._connection.transport.abort()  # where the end of the connection is the end of the answer

    def answer(self, status: int, body: bytes, headers: bytes = b"") -> None:
        """A whole answer at once. `headers` are whole lines."""
        if status != 204:
            headers = b"%bcontent-length: %d\r\n" % (headers, len(body))
        self.start(status, headers, length_known=True, streaming=False)
        if body and self.method != "HEAD":
            self.write(body)
        self.end()

    def fail(self, error: GatewayError) -> None:
        """`error` in OpenAI's shape; after the first byte, all that is left is to cut the connection."""
        if self.left or self.response_complete:
            return
        if self.response_started:
            self.cut()
            return
        self.error = error.code
        lines = [b"content-type: application/json\r\n"]
        for name, value in error.headers().items():
            if name == "connection":
                self.keep_alive = value != "close"
            else:
                lines.append(f"{name}: {value}\r\n".encode())
        self.answer(error.status, error_json(error), b"".join(lines))

    # Its client.

    def client_left(self) -> None:
        """Stops whatever is being done for it, now."""
        self.left = True
        if self._task is not None:
            self._task.cancel()
        if self.transfer is not None:
            self.transfer.client_left()
        if not self.response_complete:
            self._over(Outcome.CLIENT_LEFT)

    def _over(self, outcome: Outcome) -> None:
        self.response_complete = True
        self.outcome = outcome
        self._outbox.in_flight -= 1
        self.ended = time.monotonic()
        self.body = b""  # the connection keeps this exchange until its next one
        self.transfer = None
        self._task = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.on_over is not None:
            self.on_over()
            self.on_over = None
        self.on_end(self)
