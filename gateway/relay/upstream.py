"""The HTTP/1.1 client of the request path: keep-alive connections to engines, parsed by httptools (llhttp).

Measured against the alternatives, it costs a third of aiohttp's CPU a request and a fiftieth of httpx's.
It does only what a relay needs: one request in flight a connection, a body that is already in memory, and
an answer that is handed to a `Receiver` by plain calls, in the pieces it arrived in and in the turn of the
loop in which it arrived: a future and a task between the two sockets would cost half as much again a chunk.
"""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import dataclass
from typing import Protocol, cast

import httptools

from gateway.relay.outbox import Outbox


class UpstreamFailed(Exception):
    """The engine could not be reached, or its connection ended before its answer did.

    `stale`: it was a kept-alive connection that the engine had closed before it read this request.
    `fatal`: it refused or reset the connection, as only a process does that is not there (any more).
    """

    def __init__(self, message: str, *, stale: bool = False, fatal: bool = False) -> None:
        super().__init__(message)
        self.stale = stale
        self.fatal = fatal


@dataclass(frozen=True, slots=True)
class Head:
    """Status and headers of an answer; header names in lower case."""

    status: int
    headers: list[tuple[bytes, bytes]]

    def get(self, name: bytes) -> bytes | None:
        """The first header called `name` (lower case)."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


class Receiver(Protocol):
    """Who hears an answer. After `on_end` or `on_failure` the connection is no longer theirs.

    Called from within the parser, so nothing here may raise. `flush` comes once for all that one read of the
    socket brought.
    """

    def on_head(self, head: Head, /) -> None: ...
    def on_piece(self, piece: bytes, /) -> None: ...
    def flush(self) -> None: ...
    def on_end(self) -> None: ...
    def on_failure(self, failure: UpstreamFailed, /) -> None: ...


class Connection(asyncio.Protocol):
    """One connection, and the answer that is arriving on it. Used by one request at a time."""

    __slots__ = (
        "_complete",
        "_ends_with_connection",
        "_head",
        "_headers",
        "_heard",
        "_keep",
        "_parser",
        "_paused",
        "_pool",
        "_receiver",
        "_transport",
        "address",
        "closed",
        "idle_since",
        "reused",
    )

    def __init__(self, pool: Upstream, address: tuple[str, int]) -> None:
        self._pool = pool
        self.address = address
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._receiver: Receiver | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._head: Head | None = None
        self._complete = False
        self._ends_with_connection = False
        self._heard = False
        self._keep = False
        self._paused = False
        self.idle_since = 0.0
        self.reused = False
        self.closed = False

    # What the relay calls.

    def begin(self, request: bytes, receiver: Receiver) -> None:
        """Sends a request; `receiver` hears what becomes of it."""
        assert self._transport is not None
        self._receiver = receiver
        self._headers = []
        self._head = None
        self._complete = self._ends_with_connection = self._heard = self._keep = False
        self._pool.outbox.write(self._transport, request)

    def abort(self) -> None:
        """Closes at once, which is how an engine learns that nobody waits any more. Nobody is told."""
        self._receiver = None
        if self._transport is not None and not self.closed:
            self.closed = True
            self._transport.abort()

    def fail(self, message: str, *, fatal: bool = False) -> None:
        """Closes at once, and tells the receiver why."""
        receiver = self._receiver
        stale = self.reused and not self._heard and not self._pool.closing
        self.abort()
        if receiver is not None:
            receiver.on_failure(UpstreamFailed(message, stale=stale, fatal=fatal))

    def pause(self) -> None:
        """The receiver has enough for now: the engine is held back by TCP."""
        if not self._paused and not self.closed and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused and not self.closed and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    @property
    def paused(self) -> bool:
        """Whether it is we who hold the answer back."""
        return self._paused

    # asyncio.Protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # No isinstance: a transport of uvloop is none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)
        raw = transport.get_extra_info("socket")
        if raw is not None:
            # One peer's first token waits 43 ms for Nagle; asyncio's default is not a promise.
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        receiver = self._receiver
        if receiver is None:
            # Bytes that nobody asked for: the other side is confused, so nothing more may be sent here.
            self.abort()
            return
        self._heard = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._complete:
                self.fail(f"the engine's answer is not HTTP/1.1: {error}")
                return
            self._keep = False  # the answer is whole; what follows it is nobody's
        if self._complete:
            self._end()
        else:
            receiver.flush()

    def connection_lost(self, error: Exception | None) -> None:
        was_closed, self.closed = self.closed, True
        self._pool.lost(self)
        if self._receiver is None or was_closed:
            return
        if error is None and self._head is not None and self._ends_with_connection:
            self._end()
        else:
            reason = f"the engine closed the connection early ({error or 'end of stream'})"
            self.fail(reason, fatal=not self._heard)

    def _end(self) -> None:
        """The answer is whole. Back to the pool first: the receiver may want to send again at once."""
        receiver, self._receiver = self._receiver, None
        # An engine that answers before it has read all of the request is still to read the rest of it.
        unsent = self._transport is not None and self._transport.get_write_buffer_size()
        if self._keep and not self.closed and not unsent:
            self.resume()
            self.reused = True
            self._pool.put(self)
        else:
            self.abort()
        if receiver is not None:
            receiver.on_end()

    # httptools callbacks.

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self._headers = []
            return
        if self._head is not None:
            return  # a second answer to one request
        head = Head(status, self._headers)
        framed = head.get(b"content-length") is not None or head.get(b"transfer-encoding") is not None
        self._ends_with_connection = not framed and status not in (204, 304)
        self._head = head
        if self._receiver is not None:
            self._receiver.on_head(head)

    def on_body(self, body: bytes) -> None:
        if self._receiver is not None and not self._complete:
            self._receiver.on_piece(body)

    def on_message_complete(self) -> None:
        if self._head is None:
            return  # 1xx: the answer itself follows
        self._keep = not self._complete and self._parser.should_keep_alive()
        self._complete = True


class Upstream:
    """A pool of connections an address, most recently used first. Requests go out by `outbox`.

    `idle_s` is below uvicorn's 5 s keep-alive (vLLM's default), so that a connection is rarely reused
    while the other side closes it; when it happens all the same, the request is sent again on a new
    connection.
    """

    def __init__(
        self, outbox: Outbox, *, connect_timeout_s: float = 5.0, idle_s: float = 4.0, max_idle: int = 4096
    ) -> None:
        self.outbox = outbox
        self._connect_timeout_s = connect_timeout_s
        self._idle_s = idle_s
        self._max_idle = max_idle
        self._idle: dict[tuple[str, int], dict[Connection, None]] = {}  # each in order of use
        self._open: set[Connection] = set()
        self.closing = False
        self._all_lost: asyncio.Event | None = None

    def take(self, address: tuple[str, int]) -> Connection | None:
        """An idle connection, when there is one."""
        idle = self._idle.get(address)
        while idle:
            newest, _ = idle.popitem()
            if not newest.closed and time.monotonic() - newest.idle_since < self._idle_s:
                return newest
            newest.abort()
        return None

    async def connect(self, address: tuple[str, int]) -> Connection:
        """A new connection. Raises `UpstreamFailed`."""
        if self.closing:
            raise UpstreamFailed("the gateway is stopping")
        host, port = address
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await loop.create_connection(lambda: Connection(self, address), host, port)
        except TimeoutError as error:
            message = f"no connection to the engine at {host}:{port} within {self._connect_timeout_s:g} s"
            raise UpstreamFailed(message) from error
        except OSError as error:
            message = f"no connection to the engine at {host}:{port}: {error.strerror or error}"
            raise UpstreamFailed(message, fatal=True) from error
        self._open.add(connection)
        return connection

    async def close(self) -> None:
        """Closes every connection, those in use too."""
        self.closing = True
        if self._open:
            self._all_lost = asyncio.Event()
            for connection in list(self._open):
                connection.fail("the gateway is stopping")
            await self._all_lost.wait()

    @property
    def connections(self) -> int:
        """Open connections, idle ones included."""
        return len(self._open)

    def put(self, connection: Connection) -> None:
        """Takes a connection back for reuse."""
        idle = self._idle.setdefault(connection.address, {})
        if self.closing or len(idle) >= self._max_idle:
            connection.abort()
            return
        connection.idle_since = now = time.monotonic()
        # What a burst left behind, oldest first: an engine need not close what nobody uses.
        while idle and now - (oldest := next(iter(idle))).idle_since > self._idle_s:
            del idle[oldest]
            oldest.abort()
        idle[connection] = None

    def lost(self, connection: Connection) -> None:
        """Forgets a connection that has closed."""
        self._open.discard(connection)
        if self._all_lost is not None and not self._open:
            self._all_lost.set()
        idle = self._idle.get(connection.address)
        if idle is not None:
            idle.pop(connection, None)
            if not idle:
                del self._idle[connection.address]
