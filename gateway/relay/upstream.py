"""The HTTP/1.1 client of the request path: keep-alive connections to engines, parsed by httptools (llhttp).

Measured against the alternatives, it costs a third of aiohttp's CPU a request and a fiftieth of httpx's.
It does only what a relay needs: one request in flight a connection, a body that is already in memory, and
an answer that is handed over in the pieces it arrived in.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from dataclasses import dataclass
from typing import cast

import httptools

HIGH_WATER = 64 * 1024
"""Bytes of an answer waiting for a slow client at which its connection stops reading."""


class UpstreamFailed(Exception):
    """The engine could not be reached, or its connection ended before its answer did.

    `before_first_byte`: nothing of an answer had arrived, so the request may be sent somewhere else.
    """

    def __init__(self, message: str, *, before_first_byte: bool) -> None:
        super().__init__(message)
        self.before_first_byte = before_first_byte


@dataclass(frozen=True, slots=True)
class Head:
    """Status and headers of an answer; header names in lower case."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]

    def get(self, name: bytes) -> bytes | None:
        """The first header called `name` (lower case)."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


class Connection(asyncio.Protocol):
    """One connection, and the answer that is arriving on it. Used by one request at a time."""

    def __init__(self, pool: Upstream, address: tuple[str, int]) -> None:
        self._pool = pool
        self.address = address
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.idle_since = 0.0
        self.reused = False
        self.closed = False
        self._reset()

    def _reset(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self._paused = False
        self._headers: list[tuple[bytes, bytes]] = []
        self._head: Head | None = None
        self._complete = False
        self._ends_with_connection = False
        self._failure: str | None = None
        self._heard = False
        self._aborted = False
        self._busy = False

    # What the relay calls.

    def begin(self, head: bytes, body: bytes) -> None:
        """Sends a request."""
        assert self._transport is not None
        if self.reused:
            self._reset()
        self._busy = True
        self._transport.writelines((head, body) if body else (head,))

    async def head(self) -> Head:
        """Status and headers, as soon as they are there. Raises `UpstreamFailed`."""
        while self._head is None:
            if self._failure is not None:
                raise UpstreamFailed(self._failure, before_first_byte=not self._heard)
            await self._wait()
        return self._head

    async def read(self) -> tuple[bytes, bool]:
        """The next piece of the body, and whether more may follow. Raises `UpstreamFailed`."""
        while not self._chunks:
            if self._complete:
                return b"", False
            if self._failure is not None:
                raise UpstreamFailed(self._failure, before_first_byte=False)
            await self._wait()
        chunk = self._chunks.popleft()
        self._buffered -= len(chunk)
        if self._paused and self._buffered < HIGH_WATER // 2 and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return chunk, not self._complete or bool(self._chunks)

    def abort(self, why: str = "the request was given up") -> None:
        """Closes at once, which is how an engine learns that nobody waits any more."""
        self._aborted = True
        if self._failure is None and not self._complete:
            self._failure = why
        if self._transport is not None and not self.closed:
            self.closed = True
            self._transport.abort()
        self._wake()

    def release(self) -> None:
        """Back to the pool when its answer was read to the end and it may be used again; else closed."""
        clean = self._complete and not self._chunks and not self._paused and not self.closed
        if clean and self._transport is not None and not self._transport.get_write_buffer_size():
            self._busy = False
            self.reused = True
            self._pool.put(self)
        else:
            self.abort()

    def went_stale(self) -> bool:
        """A kept-alive connection that the other side had closed before it read this request."""
        return self.reused and not self._heard and not self._aborted and self._failure is not None

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # asyncio.Protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # No isinstance: a transport of uvloop is none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)
        raw = transport.get_extra_info("socket")
        if raw is not None:
            # One peer's first token waits 43 ms for Nagle; asyncio's default is not a promise.
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        if not self._busy or self._complete:
            # Bytes that nobody asked for: the other side is confused, so nothing more may be sent on this
            # one.
            self._close()
            return
        self._heard = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.abort(f"the engine's answer is not HTTP/1.1: {error}")
            return
        if self._buffered > HIGH_WATER and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        self._pool.lost(self)
        if self._busy and not self._complete and self._failure is None:
            if error is None and self._head is not None and self._ends_with_connection:
                self._complete = True
            else:
                self._failure = f"the engine closed the connection early ({error or 'end of stream'})"
        self._wake()

    # httptools callbacks.

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self._headers = []
            return
        head = Head(status, tuple(self._headers))
        framed = head.get(b"content-length") is not None or head.get(b"transfer-encoding") is not None
        self._ends_with_connection = not framed and status not in (204, 304)
        self._head = head

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)
        self._buffered += len(body)

    def on_message_complete(self) -> None:
        if self._head is None:
            return  # 1xx: the answer itself follows
        self._complete = True
        if not self._parser.should_keep_alive():
            self._close()

    def _close(self) -> None:
        if self._transport is not None and not self.closed:
            self.closed = True
            self._transport.close()


class Upstream:
    """A pool of connections an address, most recently used first.

    `idle_s` is below uvicorn's 5 s keep-alive (vLLM's default), so that a connection is rarely reused
    while the other side closes it; when it happens all the same, the request is sent again on a new
    connection.
    """

    def __init__(self, *, connect_timeout_s: float = 5.0, idle_s: float = 4.0, max_idle: int = 512) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._idle_s = idle_s
        self._max_idle = max_idle
        self._idle: dict[tuple[str, int], list[Connection]] = {}
        self._open: set[Connection] = set()
        self._closing = False
        self._all_lost: asyncio.Event | None = None

    async def send(self, host: str, port: int, head: bytes, body: bytes) -> Connection:
        """A connection on which the request was written. Raises `UpstreamFailed` when none can be made."""
        address = (host, port)
        connection = self._take(address) or await self._connect(address)
        connection.begin(head, body)
        return connection

    async def send_fresh(self, host: str, port: int, head: bytes, body: bytes) -> Connection:
        """As `send`, never on a kept-alive connection."""
        connection = await self._connect((host, port))
        connection.begin(head, body)
        return connection

    async def close(self) -> None:
        """Closes every connection, those in use too."""
        self._closing = True
        if self._open:
            self._all_lost = asyncio.Event()
            for connection in list(self._open):
                connection.abort("the gateway is stopping")
            await self._all_lost.wait()

    @property
    def connections(self) -> int:
        """Open connections, idle ones included."""
        return len(self._open)

    def put(self, connection: Connection) -> None:
        """Takes a connection back for reuse."""
        idle = self._idle.setdefault(connection.address, [])
        if self._closing or len(idle) >= self._max_idle:
            connection.abort()
            return
        connection.idle_since = time.monotonic()
        idle.append(connection)

    def lost(self, connection: Connection) -> None:
        """Forgets a connection that has closed."""
        self._open.discard(connection)
        if self._all_lost is not None and not self._open:
            self._all_lost.set()
        idle = self._idle.get(connection.address)
        if idle is not None and connection in idle:
            idle.remove(connection)
            if not idle:
                del self._idle[connection.address]

    def _take(self, address: tuple[str, int]) -> Connection | None:
        idle = self._idle.get(address)
        if not idle:
            return None
        newest = idle.pop()
        if not newest.closed and time.monotonic() - newest.idle_since < self._idle_s:
            return newest
        # The newest is too old, so all of them are.
        for connection in (newest, *idle):
            connection.abort()
        idle.clear()
        return None

    async def _connect(self, address: tuple[str, int]) -> Connection:
        host, port = address
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await loop.create_connection(lambda: Connection(self, address), host, port)
        except TimeoutError as error:
            message = f"no connection to the engine at {host}:{port} within {self._connect_timeout_s:g} s"
            raise UpstreamFailed(message, before_first_byte=True) from error
        except OSError as error:
            message = f"no connection to the engine at {host}:{port}: {error.strerror or error}"
            raise UpstreamFailed(message, before_first_byte=True) from error
        self._open.add(connection)
        return connection
