"""Servers that write exactly the bytes that a test wants, on loopback."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from loadtests.target import Target

Reply = Callable[["Asked", asyncio.StreamWriter], Awaitable[bool | None]]


class Asked:
    """One request as it came. `count` is how many came before it."""

    def __init__(self, head: bytes, body: bytes, count: int) -> None:
        self.head, self.body, self.count = head, body, count

    @property
    def json(self) -> dict[str, object]:
        found = json.loads(self.body)
        assert isinstance(found, dict)
        return found


@asynccontextmanager
async def serving(reply: Reply, tls: ssl.SSLContext | None = None) -> AsyncIterator[Target]:
    """A server that answers each request by `reply`, which may return True to keep the connection."""
    count = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = [line for line in head.split(b"\r\n") if line.startswith(b"content-length:")]
                body = await reader.readexactly(int(length[0].split(b":")[1])) if length else b""
                count += 1
                if not await reply(Asked(head, body, count - 1), writer):
                    return
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    try:
        yield Target(f"{'https' if tls else 'http'}://127.0.0.1:{port}", "a-key")
    finally:
        server.close()


def said(data: bytes, *, keep: bool = False) -> Reply:
    """Answers every request with `data`, and closes the connection unless `keep`."""

    async def reply(asked: Asked, writer: asyncio.StreamWriter) -> bool:
        writer.write(data)
        return keep

    return reply


def response(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    """A whole answer with its length."""
    heads = {"content-type": "application/json", **headers, "content-length": str(len(body))}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in heads.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def piece(data: bytes) -> bytes:
    """One piece of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


END = b"0\r\n\r\n"
DONE = b"data: [DONE]\n\n"


def event(content: str | None = "word", finish: str | None = None) -> bytes:
    """One chunk of a chat completion, as an event."""
    delta = {"role": "assistant"} if content is None else {"content": content}
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    return b"data: " + json.dumps({"model": "support-v3", "choices": choices}).encode() + b"\n\n"


def usage(prompt: int = 5, completion: int = 7, cached: int = 2) -> bytes:
    """The last chunk, which has the usage and no choices."""
    counts = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    return b"data: " + json.dumps({"model": "support-v3", "choices": [], "usage": counts}).encode() + b"\n\n"


def stream(*events: bytes) -> bytes:
    """A whole stream in pieces, one an event."""
    return STREAM_HEAD + b"".join(map(piece, events)) + END


WHOLE = json.dumps(
    {
        "model": "support-v3",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 3},
    }
).encode()
GOOD = stream(event(None), event("Hel"), event("lo", "stop"), usage(), DONE)
