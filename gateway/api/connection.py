"""A client's connection: uvicorn's HTTP protocol, with the data plane taken out before ASGI.

uvicorn parses, keeps alive, pipelines, drains at shutdown and serves the control plane as ever. For a request
under /v1 this makes an `Exchange` instead of an ASGI cycle: there is no scope, no task and no message queue
then, which is what most of a small relay's time goes into (docs/data-plane.md has the measurements).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, cast
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.api.exchange import Exchange

PREFIX = "/v1/"

MOST_WAITING = 8
"""Requests of one connection that wait behind its first before it is read no further. While it is read, a
client that leaves is noticed."""


class Plane(Protocol):
    """Who serves exchanges. No call raises; each answers the exchange, or sees to it that it will be."""

    def exchange(self, connection: ClientConnection, method: str, path: str) -> Exchange: ...
    def opened(self, exchange: Exchange, /) -> None:
        """The head is there."""

    def incomplete(self, exchange: Exchange, /) -> None:
        """Some of the body may be there, and more is to come."""

    def ready(self, exchange: Exchange, /) -> None:
        """The body is there."""


class ClientConnection(HttpToolsProtocol):
    """One connection. `plane` serves what is under /v1."""

    def __init__(self, plane: Callable[[], Plane | None], **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self._find_plane = plane
        self._plane: Plane | None = None
        self._reading: Exchange | None = None  # the one whose request is arriving
        self._serving: Exchange | None = None  # the one that is being answered
        self._idle_since = 0.0
        self._authorization: bytes | None = None
        self._length: bytes | None = None

    # What an exchange calls.

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.loop.create_task(work)
        self.tasks.add(task)  # uvicorn waits for these when it drains
        task.add_done_callback(self.tasks.discard)
        return task

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        self._serving = None
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            # In a turn of its own: a thousand pipelined requests must not nest a thousand calls deep.
            self.loop.call_soon(self._start_asgi_task, *self.pipeline.pop())
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._look_again_in(self.timeout_keep_alive)

    # One timer a connection that looks when it was last used, not one a request: that would cost as much as
    # writing the answer does.

    def _look_again_in(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.is_closing():
            return
        busy = self.cycle is not None and not self.cycle.response_complete
        left = (
            self.timeout_keep_alive if busy else self._idle_since + self.timeout_keep_alive - self.loop.time()
        )
        if left > 0:
            self._look_again_in(left)
        else:
            self.transport.close()

    def _unset_keepalive_if_required(self) -> None:
        """uvicorn's, once a request: the timer above needs no such care."""

    # The transport's callbacks.

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        exchange = self._reading
        if exchange is not None and not exchange.complete and self._plane is not None:
            self._plane.incomplete(exchange)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
        waiting: list[Any] = [cycle for cycle, _ in self.pipeline]
        for exchange in (self._serving, *waiting):
            if isinstance(exchange, Exchange):
                exchange.client_left()
        if isinstance(cast(Any, self.cycle), Exchange):
            self.cycle = cast(Any, None)
        self._reading = self._serving = None
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._serving is not None and self._serving.transfer is not None:
            self._serving.transfer.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._serving is not None and self._serving.transfer is not None:
            self._serving.transfer.resume()

    # The parser's callbacks.

    def on_message_begin(self) -> None:
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._authorization = self._length = None
        self._reading = None

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"authorization":
            self._authorization = value
        elif name == b"content-length":
            self._length = value
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._plane = plane = self._find_plane()
        path = self._path()
        if plane is None or not path.startswith(PREFIX):
            self._to_asgi()
            return
        exchange = plane.exchange(self, self.parser.get_method().decode("ascii"), path)
        exchange.http10 = self.parser.get_http_version() == "1.0"
        exchange.keep_alive = not exchange.http10 and self.parser.should_keep_alive()
        exchange.expect_continue = self.expect_100_continue
        exchange.authorization, exchange.content_length = self._authorization, self._length
        self._reading = exchange
        before, self.cycle = self.cycle, cast(Any, exchange)
        if before is None or before.response_complete:
            self._serving = exchange
            plane.opened(exchange)
        else:
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
        exchange = self._reading
        if exchange is None:
            super().on_message_complete()
            return
        exchange.complete = True
        if not exchange.waiting and not exchange.response_complete and self._plane is not None:
            self._plane.ready(exchange)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """The next request of a pipeline (or an ASGI one) may begin."""
        if not isinstance(cycle, Exchange):
            super()._start_asgi_task(cycle, app)
            return
        if self.transport.is_closing():
            cycle.client_left()
            return
        assert self._plane is not None  # it made the exchange
        cycle.waiting = False
        self._serving = cycle
        self._plane.opened(cycle)
        if cycle.complete and not cycle.response_complete:
            self._plane.ready(cycle)

    def _path(self) -> str:
        raw = (
            self.url.partition(b"?")[0] if self.url[:1] == b"/" else httptools.parse_url(self.url).path or b""
        )
        path = raw.decode("ascii", "replace")
        return unquote(path) if "%" in path else path

    def _to_asgi(self) -> None:
        url, headers, expect = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()  # makes the scope, which only ASGI needs
        self.headers.extend(headers)
        self.url, self.expect_100_continue = url, expect
        super().on_headers_complete()
