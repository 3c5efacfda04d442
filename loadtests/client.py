"""The HTTP/1.1 client of a run: kept-alive connections to one server, answers stamped as their bytes come in.

Ours, and not aiohttp's, for two reasons. A time taken in `data_received` is the time of the bytes; one taken
in a task that waits for them is later by whatever else the loop had to do. And it costs half the CPU, which
matters when the generator shares its machine with what it measures (against a mock in C on another core: 21 %
of a core, not 44 %, at 2,000 requests a second; 17 %, not 35 %, at 2,000 streams of 10 chunks a second).

Nothing is ever sent twice: a kept-alive connection that the server closed before it answered counts as reset,
because from here it looks like a server that failed. To make that rare, one that was idle for `IDLE_S` is not
used again (uvicorn, which vLLM runs on, closes them after 5 s).
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import httptools

from loadtests.answer import Receiver
from loadtests.sample import Outcome
from loadtests.target import Target, TargetError

IDLE_S = 4.0
CONNECT_S = 10.0
LINGER_S = 1.0
"""How long a connection may take to finish a body whose [DONE] has come, before it is closed."""

SLOW_BUFFER = 4096
"""Bytes that the kernel may take for a slow reader, so that the server notices one."""


class Exchange:
    """One request on its way. `abort` ends it at once; its receiver hears no more."""

    __slots__ = ("connecting", "connection", "data", "receiver", "slow_bytes_per_s")

    def __init__(self, data: bytes, receiver: Receiver, slow_bytes_per_s: int | None) -> None:
        self.data = data
        self.receiver = receiver
        self.slow_bytes_per_s = slow_bytes_per_s
        self.connection: Connection | None = None
        self.connecting: asyncio.Task[None] | None = None

    def abort(self) -> None:
        if self.connection is not None:
            self.connection.abort()
        elif self.connecting is not None:
            self.connecting.cancel()


class Connection(asyncio.BaseProtocol):
    """One connection and the answer that is arriving on it. One request at a time."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.closed = False
        self.used = False
        self.transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._receiver: Receiver | None = None
        self._lingering: asyncio.TimerHandle | None = None
        self._begin()

    def _begin(self) -> None:
        self._headers: list[tuple[bytes, bytes]] = []
        self._pieces: list[bytes] = []
        self._head_due = self._headed = self._complete = self._keep = self._to_the_end = False

    def send(self, exchange: Exchange) -> None:
        """Sends it; its receiver hears the answer."""
        assert self.transport is not None
        self._begin()
        self._receiver = exchange.receiver
        exchange.connection = self
        self.transport.write(exchange.data)
        exchange.data = b""
        exchange.receiver.on_sent(self.client.clock())

    def abort(self) -> None:
        """Closes at once. Nobody is told."""
        self._receiver = None
        self.closed = True
        if self._lingering is not None:
            self._lingering.cancel()
        if self.transport is not None:
            self.transport.abort()

    # asyncio's protocol. Not its class: uvloop takes a subclass of that for one without a buffer of its own.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.transport = cast(asyncio.Transport, transport)  # one of uvloop's is none of asyncio's classes
        self.client.open.add(self)

    def data_received(self, data: bytes) -> None:
        now = self.client.clock()
        broken: Exception | None = None
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            broken = error
            self._keep = False  # this answer may be whole all the same; what follows it is nobody's
        receiver = self._receiver
        if receiver is None:
            self._after(broken, now)
            return
        if self._head_due:
            self._head_due = False
            receiver.on_head(self._parser.get_status_code(), self._headers, now)
        if self._pieces:
            pieces, self._pieces = self._pieces, []
            receiver.on_body(pieces[0] if len(pieces) == 1 else b"".join(pieces), now)
        if self._complete:
            self._receiver = None
            receiver.on_end(now)
            self._keep = self._keep and receiver.whole
            self._free()
        elif receiver.finished:
            self._receiver = None
            if broken or not receiver.whole:
                self.abort()
                return
            self._lingering = asyncio.get_running_loop().call_later(LINGER_S, self.abort)
        elif broken:
            self._lost(Outcome.BAD_BODY, f"the answer is not HTTP/1.1: {broken}", now)

    def eof_received(self) -> None:
        """The transport closes."""

    def _after(self, broken: Exception | None, now: float) -> None:
        """Bytes that nobody waits for: the end of a body whose [DONE] has come, or nothing we asked for."""
        self._pieces.clear()
        if broken or self._lingering is None:
            self.abort()
        elif self._complete:
            self._lingering.cancel()
            self._free()

    def connection_lost(self, error: Exception | None) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
        self.client.lost(self)
        self._parser = None  # it and we keep each other, and nobody collects garbage during a run
        if self._receiver is None or self.closed:
            self.closed = True
            return
        now = self.client.clock()
        if error is None and self._headed and self._to_the_end:
            receiver, self._receiver = self._receiver, None
            self.closed = True
            receiver.on_end(now)
            return
        how = "the server closed the connection" if error is None else f"the connection broke ({error})"
        when = "in its answer" if self._headed else "before it answered"
        self._lost(Outcome.RESET, f"{how} {when}{', which was kept alive' if self.used else ''}", now)

    def _lost(self, outcome: Outcome, detail: str, now: float) -> None:
        receiver = self._receiver
        self.abort()
        if receiver is not None:
            receiver.on_lost(outcome, detail, now)

    def _free(self) -> None:
        """The answer is whole."""
        self._lingering = None
        if self._keep and not self.closed:
            self.used = True
            self.client.keep(self)
        else:
            self.abort()

    # httptools.

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if 100 <= status < 200 or self._headed:
            self._headers = []
            return
        names = {name for name, _ in self._headers}
        framed = b"content-length" in names or b"transfer-encoding" in names
        self._to_the_end = not framed and status not in (204, 304)
        self._head_due = self._headed = True

    def on_body(self, body: bytes) -> None:
        if not self._complete:
            self._pieces.append(body)

    def on_message_complete(self) -> None:
        if self._headed:  # else it was a 1xx, and the answer follows
            self._keep = not self._complete and self._parser.should_keep_alive()
            self._complete = True


class SlowConnection(Connection, asyncio.BufferedProtocol):
    """Reads `rate` bytes a second, in small bites, with next to no buffer behind it. For one request."""

    def __init__(self, client: Client, rate: int) -> None:
        super().__init__(client)
        self._rate = rate
        self._bite = bytearray(max(1, rate // 10))
        self._next: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_BUFFER)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._bite

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._bite[:nbytes]))
        if not self.closed and self.transport is not None:
            self.transport.pause_reading()
            self._next = asyncio.get_running_loop().call_later(nbytes / self._rate, self._resume)

    def abort(self) -> None:
        if self._next is not None:
            self._next.cancel()
        super().abort()

    def connection_lost(self, error: Exception | None) -> None:
        if self._next is not None:
            self._next.cancel()
        super().connection_lost(error)

    def _free(self) -> None:
        self.abort()  # its socket is not like the others

    def _resume(self) -> None:
        if not self.closed and self.transport is not None:
            self.transport.resume_reading()


async def addresses(target: Target) -> list[str]:
    """The host's addresses, looked up once for a whole run. Raises `TargetError` for an unknown name."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise TargetError(
            f"host {target.host!r} cannot be resolved: {error.strerror}; check the URL"
        ) from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Client:
    """Connections to `target` at one of `hosts` (see `addresses`).

    `tasks` own the connections that are being set up; `clock` gives the time of every stamp.
    """

    def __init__(
        self,
        target: Target,
        hosts: Sequence[str],
        tasks: asyncio.TaskGroup,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self.open: set[Connection] = set()
        self.out_of_files = 0
        """Sends that failed because this process may not open more files."""
        self._idle: dict[Connection, float] = {}  # since when; the one used last is last
        self._target = target
        self._tasks = tasks
        self._hosts = list(hosts)
        self._tls = ssl.create_default_context() if target.secure else None
        self._all_lost: asyncio.Event | None = None

    async def warm(self, connections: int) -> None:
        """Opens connections beforehand, as many as the server lets it; the first that fails is the last."""
        while len(self._idle) < connections:
            batch = min(64, connections - len(self._idle))
            made = await asyncio.gather(*(self._connect(None) for _ in range(batch)), return_exceptions=True)
            ready = [each for each in made if isinstance(each, Connection)]
            for connection in ready:
                self.keep(connection)
            if len(ready) < batch:
                return

    def send(self, data: bytes, receiver: Receiver, *, slow_bytes_per_s: int | None = None) -> Exchange:
        """Sends a request at once, or as soon as a new connection is there. `receiver` hears the rest."""
        exchange = Exchange(data, receiver, slow_bytes_per_s)
        connection = self._take() if slow_bytes_per_s is None else None
        if connection is not None:
            connection.send(exchange)
        else:
            exchange.connecting = self._tasks.create_task(self._send_on_new(exchange))
        return exchange

    async def close(self) -> None:
        """Closes every connection."""
        self._all_lost = asyncio.Event()
        for connection in list(self.open):
            connection.abort()
        if self.open:
            await self._all_lost.wait()

    def keep(self, connection: Connection) -> None:
        """Takes a connection for the next request."""
        self._idle[connection] = time.monotonic()

    def lost(self, connection: Connection) -> None:
        """Forgets a connection that has closed."""
        self.open.discard(connection)
        self._idle.pop(connection, None)
        if self._all_lost is not None and not self.open:
            self._all_lost.set()

    def _take(self) -> Connection | None:
        """The connection that was used last, if it may still be used. The others were idle for longer."""
        while self._idle:
            connection, since = self._idle.popitem()
            if connection.closed:
                continue
            if time.monotonic() - since < IDLE_S:
                return connection
            for old in (connection, *self._idle):
                old.abort()
            self._idle.clear()
        return None

    async def _send_on_new(self, exchange: Exchange) -> None:
        try:
            connection = await self._connect(exchange.slow_bytes_per_s)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self.out_of_files += 1
                why = "the generator may not open more files (ulimit -n)"
                exchange.receiver.on_lost(Outcome.DROPPED, why, self.clock())
                return
            timed_out = isinstance(error, TimeoutError) and error.errno is None
            why = f"within {CONNECT_S:g} s" if timed_out else f"({error.strerror or error})"
            exchange.receiver.on_lost(Outcome.CONNECT, f"no connection {why}", self.clock())
            return
        connection.send(exchange)

    async def _connect(self, slow_bytes_per_s: int | None) -> Connection:
        """A new connection. Raises `OSError` (`TimeoutError` is one)."""
        target, loop = self._target, asyncio.get_running_loop()

        def protocol() -> Connection:
            return Connection(self) if slow_bytes_per_s is None else SlowConnection(self, slow_bytes_per_s)

        failed: OSError = OSError("the host has no address")
        async with asyncio.timeout(CONNECT_S):
            for host in self._hosts:
                try:
                    _, connection = await loop.create_connection(
                        protocol,
                        host,
                        target.port,
                        ssl=self._tls,
                        server_hostname=target.host if self._tls else None,
                    )
                except OSError as error:
                    failed = error
                    continue
                if host != self._hosts[0]:
                    self._hosts = [host]  # this one answers: no more detours
                return connection
        try:
            raise failed
        finally:
            del failed  # or it and this frame keep each other: nobody collects garbage during a run
