"""ASGI apps and raw TCP servers on real sockets, for as long as a `with` lasts."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from typing import Any, cast

import uvicorn
from uvicorn.server import ServerState

from gateway.api.connection import ClientConnection, Plane

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def until(true: Callable[[], bool], what: str, within_s: float = 5.0) -> float:
    """Waits for a condition; returns the seconds it took, fails with `what` after `within_s`."""
    started = time.monotonic()
    while not true():
        if time.monotonic() - started > within_s:
            raise AssertionError(f"not within {within_s} s: {what}")
        await asyncio.sleep(0.001)
    return time.monotonic() - started


def serving_plane(plane: Plane, keep_alive_s: float = 5.0) -> AbstractAsyncContextManager[int]:
    """Serves a data plane in this event loop, as the gateway does; gives its port. The rest answers 418."""
    return serving(_nothing_else, partial(ClientConnection, lambda: plane), timeout_keep_alive=keep_alive_s)


async def _nothing_else(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 418, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def serving(app: Any, http: Any = "httptools", **more: Any) -> AsyncIterator[int]:
    """Serves `app` in this event loop with uvicorn's protocol, or another one; gives its port.

    Not uvicorn's `Server`: that one looks only every 100 ms whether it should stop.
    """
    config = uvicorn.Config(app, http=http, lifespan="off", log_level="critical", **more)
    config.load()
    protocol: Any = config.http_protocol_class
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: protocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for connection in list(state.connections):
            cast(Any, connection).transport.abort()
        if state.tasks:
            await asyncio.wait(state.tasks, timeout=5)
        assert not state.tasks, "a request was still being served 5 s after its connection was cut"


@contextmanager
def serving_in_thread(app: Any) -> Iterator[int]:
    """Serves `app` in a thread, for clients that block; gives its port."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, http="httptools", lifespan="off", log_level="critical"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    deadline = time.monotonic() + 5
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.001)
    try:
        assert server.started, "the server did not start within 5 s"
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        server.force_exit = True
        thread.join(10)
        listener.close()


@asynccontextmanager
async def talking(talk: Talk) -> AsyncIterator[int]:
    """A raw TCP server that calls `talk` for each connection; gives its port."""
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(handle(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """The head and the body of one request with a content-length."""
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return head, await reader.readexactly(int(value))
    return head, b""


def chunked(*parts: bytes) -> bytes:
    """`parts` as HTTP chunks, without the last, empty one."""
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)


EVENT_STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
