"""`GET /engine/v1/versions/{sha256}`: the files of one version for an engine that has not got them.

A plain tar of the canonical files, as `adapters.store` keeps them, so that the engine can compute the digest
that it asked for. Only engines may ask: each by its own key, which the gateway knows anyway. A digest is 64
hex digits or it is unknown; nothing else from outside reaches the file system.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Set
from pathlib import Path
from typing import Any

from adapters.archive import CONFIG, WEIGHTS, pack
from adapters.errors import AdapterError, Unknown
from adapters.store import Store
from gateway.api.errors import MethodNotAllowed, error_json
from gateway.errors import GatewayError, NotFound, Unauthorized

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PREFIX = "/engine/v1/versions/"
_BLOCK = 512

log = logging.getLogger(__name__)


class EngineFiles:
    """An ASGI app for `PREFIX`. `keys` gives the keys of the fleet's engines, asked at every request."""

    def __init__(self, store: Store, keys: Callable[[], Set[str]]) -> None:
        self._store = store
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            folder = await self._find(scope)
        except GatewayError as error:
            await _answer(send, error)
            return
        await _stream(folder, receive, send)

    async def _find(self, scope: Scope) -> Path:
        """The folder of the version that is asked for. Raises `GatewayError`."""
        if not self._admits(scope):
            raise Unauthorized("engines fetch adapter files here, with 'Authorization: Bearer <engine key>'")
        if scope["method"] != "GET":
            raise MethodNotAllowed("versions are only read here: GET", allow="GET")
        digest = scope["path"].removeprefix(PREFIX)
        try:
            folder = self._store.path(digest)
        except Unknown:
            folder = None
        if folder is None or not await asyncio.to_thread(folder.is_dir):
            raise NotFound(f"no version {digest[:80]!r} is in this gateway's store", code="unknown_version")
        return folder

    def _admits(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1:
            return False
        scheme, _, key = given[0].partition(b" ")
        digest = hashlib.sha256(key.strip()).digest()
        right = False
        for known in self._keys():  # all of them: which one it was takes no other time
            expected = hashlib.sha256(known.encode()).digest()
            right |= bool(known) and hmac.compare_digest(digest, expected)
        return right and scheme.lower() == b"bearer"


async def _stream(folder: Path, receive: Receive, send: Send) -> None:
    """The tar, a chunk at a time, each read in a thread; it stops when the engine has left.

    A version that is deleted meanwhile ends the connection early, which the engine takes for a failure.
    """
    chunks = pack(folder)
    try:
        size = await asyncio.to_thread(_tar_bytes, folder)
        chunk = await asyncio.to_thread(_next, chunks)
    except (OSError, AdapterError):
        log.exception("version %s cannot be read", folder.name)
        await _answer(send, GatewayError("the version's files cannot be read; the gateway's log says why"))
        return
    headers = [(b"content-type", b"application/x-tar"), (b"content-length", str(size).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    left = asyncio.get_running_loop().create_task(_until_disconnect(receive))
    try:
        while chunk is not None and not left.done():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            chunk = await asyncio.to_thread(_next, chunks)
        if not left.done():
            await send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        left.cancel()
        await asyncio.wait([left])


def _next(chunks: Iterator[bytes]) -> bytes | None:
    """None at the end. A chunk may be empty."""
    return next(chunks, None)


def _tar_bytes(folder: Path) -> int:
    """The length of what `pack` gives: a header and whole blocks a file, two blocks at the end."""
    sizes = [(folder / name).stat().st_size for name in (CONFIG, WEIGHTS)]
    return sum(_BLOCK + size + -size % _BLOCK for size in sizes) + 2 * _BLOCK


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue


async def _answer(send: Send, error: GatewayError) -> None:
    body = error_json(error)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.encode(), value.encode()) for name, value in error.headers().items()]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
