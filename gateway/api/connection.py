"""A client's connection: uvicorn's HTTP protocol, with the data plane taken out before ASGI.

uvicorn parses, keeps alive, pipelines, drains at shutdown and serves the control plane as ever. For a request
under /v1 this makes an `Exchange` instead of an ASGI cycle: there is no scope, no task and no message queue
then, which is what most of a small relay's time goes into (docs/data-plane.md has the measurements).

One request of a connection is answered at a time. Another that arrives meanwhile, or while the client does
not read what it was sent, waits in the pipeline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, cast
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.api.exchange import Exchange
from gateway.relay import Outbox

PREFIX = "/v1/"
CONTROL = ("/v1/files", "/v1/fine_tuning/")
"""Of that, what the control plane serves: nobody waits for tokens there, and bodies are large."""
UNIT = b"x-hotswap-unit"
"""Header: whom the client asks for. What is asked for one is treated alike, and can be forgotten together."""

MOST_WAITING = 8
"""Requests of one connection that wait behind its first before it is read no further. While it is read, a
client that leaves is noticed."""

MOST_PIPELINED = 128
"""More of them, which one read may bring, is no client that we know: the connection is refused."""

MOST_WAITING_BYTES = 65_536
"""Of the body of a request that waits, before the connection is read no further."""


class Plane(Protocol):
    """Who serves exchanges. No call raises; each answers the exchange, or sees to it that it will be."""

    @property
    def outbox(self) -> Outbox: ...
    def exchange(self, connection: ClientConnection, method: str, path: str) -> Exchange: ...
    def opened(self, exchange: Exchange, /) -> None:
        """The head is there, and it is this one's turn."""

    def incomplete(self, exchange: Exchange, /) -> None:
        """Some of the body may be there, and more is to come."""

    def ready(self, exchange: Exchange, /) -> None:
        """The body is there."""


class TooManyWaiting(Exception):
    """A connection has sent more requests ahead than any client has reason to."""


class ClientConnection(HttpToolsProtocol):
    """One connection. `plane` serves what is under /v1."""

    def __init__(self, plane: Callable[[], Plane | None], **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self._find_plane = plane
        self._plane: Plane | None = None
        self._reading: Exchange | None = None  # the one whose request is arriving
        self._current: Any = None  # what is being answered: an Exchange, or uvicorn's cycle
        self._upgrading = False
        self._idle_since = 0.0
        self._authorization: bytes | None = None
        self._length: bytes | None = None
        self._unit: bytes | None = None

    # What an exchange calls.

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.loop.create_task(work)
        self.tasks.add(task)  # uvicorn waits for these when it drains
        task.add_done_callback(self.tasks.discard)
        return task

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        self._current = None
        if self.transport.is_closing():
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._look_again_in(self.timeout_keep_alive)
        if self.pipeline:
            # In a turn of its own: a hundred pipelined requests must not nest a hundred calls deep.
            self.loop.call_soon(self._next)
        elif not self.flow.write_paused:
            self.flow.resume_reading()

    def _next(self) -> None:
        """The turn of the first in the pipeline, unless the client must read first."""
        if self._current is not None or self.flow.write_paused or self.transport.is_closing():
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        if len(self.pipeline) < MOST_WAITING:
            self.flow.resume_reading()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """The turn of a request, whichever kind."""
        self._current = cycle
        if not isinstance(cycle, Exchange):
            super()._start_asgi_task(cycle, app)
            return
        assert self._plane is not None  # it made the exchange
        cycle.waiting = False
        self._plane.opened(cycle)
        if cycle.response_complete:
            return
        if cycle.complete:
            self._plane.ready(cycle)
        else:
            self._plane.incomplete(cycle)

    # One timer a connection that looks when it was last used, not one a request: that would cost as much as
    # writing the answer does.

    def _look_again_in(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.is_closing():
            return
        idle = 0.0 if self._current is not None else self.loop.time() - self._idle_since
        if idle < self.timeout_keep_alive:
            self._look_again_in(self.timeout_keep_alive - idle)
        else:
            self.transport.close()

    def _unset_keepalive_if_required(self) -> None:
        """uvicorn's, once a request: the timer above needs no such care."""

    # The transport's callbacks.

    def data_received(self, data: bytes) -> None:
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
            return
        exchange = self._reading
        if exchange is None or exchange.complete or exchange.response_complete:
            return
        if exchange.waiting:
            if len(exchange.body) > MOST_WAITING_BYTES:
                self.flow.pause_reading()
        elif self._plane is not None:
            self._plane.incomplete(exchange)

    def _feed(self, data: bytes) -> None:
        """To the parser. An `Upgrade` (Java's client offers h2c with every request) is overlooked, as HTTP
        allows: its request is read again without it, because the parser takes what follows for no HTTP.
        """
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                if not self._upgrading:  # CONNECT: what follows is no HTTP
                    raise httptools.HttpParserError("CONNECT is not served") from upgrade
                self._upgrading = False
                data = self._without_upgrade() + data[upgrade.args[0] :]
                self.parser = httptools.HttpRequestParser(self)

    def _without_upgrade(self) -> bytes:
        words = [word for name, value in self.headers if name == b"connection" for word in value.split(b",")]
        closes = any(word.strip().lower() == b"close" for word in words)
        dropped = (b"connection", b"upgrade", b"http2-settings")
        kept = [b"%b: %b\r\n" % pair for pair in self.headers if pair[0] not in dropped]
        version = self.parser.get_http_version().encode()
        line = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, version)
        return line + b"".join(kept) + (b"connection: close\r\n\r\n" if closes else b"\r\n")

    def send_400_response(self, msg: str) -> None:
        """uvicorn's, unless something is being answered: then only an end is left."""
        if self._plane is not None:
            self._plane.outbox.flush()
        if self._current is None:
            super().send_400_response(msg)
        else:
            self.transport.close()

    def shutdown(self) -> None:
        if self._plane is not None:
            self._plane.outbox.flush()  # uvicorn may close this connection now
        super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
        waiting: list[Any] = [cycle for cycle, _ in self.pipeline]
        for exchange in (self._current, *waiting):
            if isinstance(exchange, Exchange):
                exchange.client_left()
        # uvicorn tells the one in `cycle`.
        self.cycle = cast(Any, None if isinstance(self._current, Exchange) else self._current)
        self._reading = self._current = None
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        if isinstance(self._current, Exchange) and self._current.transfer is not None:
            self._current.transfer.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._current is None:
            self._next()
        elif isinstance(self._current, Exchange) and self._current.transfer is not None:
            self._current.transfer.resume()

    # The parser's callbacks.

    def on_message_begin(self) -> None:
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._authorization = self._length = self._unit = None
        self._reading = None

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"authorization":
            self._authorization = value
        elif name == b"content-length":
            self._length = value
        elif name == UNIT:
            self._unit = value
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            self._upgrading = self.parser.get_method() != b"CONNECT"
            return
        if len(self.pipeline) >= MOST_PIPELINED:
            raise TooManyWaiting
        self._plane = plane = self._find_plane()
        path, query = self._target()
        if plane is None or not path.startswith(PREFIX) or path.startswith(CONTROL):
            self._to_asgi()
            return
        exchange = plane.exchange(self, self.parser.get_method().decode("ascii"), path)
        exchange.http10 = self.parser.get_http_version() == "1.0"
        exchange.keep_alive = not exchange.http10 and self.parser.should_keep_alive()
        exchange.expect_continue = self.expect_100_continue
        exchange.authorization, exchange.content_length = self._authorization, self._length
        if self._unit is not None:
            exchange.unit = self._unit
        if query:
            exchange.query = query
        self._reading = exchange
        self.cycle = cast(Any, exchange)  # for uvicorn: it asks whether that is complete
        if self._current is None and not self.pipeline and not self.flow.write_paused:
            self._current = exchange
            plane.opened(exchange)
            return
        exchange.waiting = True
        self.pipeline.appendleft((self.cycle, self.app))
        if len(self.pipeline) >= MOST_WAITING:
            self.flow.pause_reading()

    def on_body(self, body: bytes) -> None:
        if self._reading is None:
            super().on_body(body)
        elif not self._reading.response_complete:
            self._reading.add(body)

    def on_message_complete(self) -> None:
        if self._upgrading:
            return  # it comes again, without
        exchange = self._reading
        if exchange is None:
            super().on_message_complete()
            return
        exchange.complete = True
        if not exchange.waiting and not exchange.response_complete and self._plane is not None:
            self._plane.ready(exchange)

    def _target(self) -> tuple[str, bytes]:
        """The path, decoded, and the query, as it is."""
        if self.url[:1] == b"/":
            raw, _, query = self.url.partition(b"?")
        else:
            url = httptools.parse_url(self.url)
            raw, query = url.path or b"", url.query or b""
        path = raw.decode("ascii", "replace")
        return (unquote(path) if "%" in path else path), query

    def _to_asgi(self) -> None:
        url, headers, expect = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()  # makes the scope, which only ASGI needs
        self.headers.extend(headers)
        self.url, self.expect_100_continue = url, expect
        super().on_headers_complete()
