"""Adapter files that an engine keeps for itself: fetched by digest, verified, read-only.

The layout is that of `adapters.store`, and several engines of a machine may share one folder. vLLM reads a
registered adapter's files again whenever it was evicted, and dies when they are gone; so files in use are
*held*: each holder has a shared lock on their folder, which ends with its process, and only folders that
nobody holds are deleted when the shelf is full.

Everything here blocks on disk and network: call it in a thread.
"""

from __future__ import annotations

import fcntl
import http.client
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from adapters.archive import Extractor
from adapters.errors import AdapterError, Refused, StoreFull, TooBig
from adapters.store import Store

VERSIONS = "/engine/v1/versions/"
SILENCE_S = 30.0
"""A source that sends nothing for so long has failed."""
_CHUNK = 1 << 20


class FetchFailed(Exception):
    """`status` and `code` are those of the answer to whoever asked for the adapter."""

    def __init__(self, status: int, message: str, code: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Shelf:
    """The store under `root`, of at most about `max_bytes`, made when it is first needed. `key` is what
    sources want to see.

    Files are held for the names that adapters are loaded under, because one content may have several.
    """

    def __init__(self, root: Path, key: str, max_bytes: int) -> None:
        self._root = root
        self._opened: Store | None = None
        self._key = key
        self._max_bytes = max_bytes
        self._held: dict[str, int] = {}  # name -> descriptor with the lock
        self._door = threading.Lock()

    def get(self, name: str, digest: str, source: str) -> tuple[Path, bool]:
        """The folder of `digest`, held for `name` from now on, and whether it was fetched from `source`.

        Raises `FetchFailed`.
        """
        if self._hold(name, digest):
            return self._store.path(digest), False
        try:
            self._fetch(digest, source)
        except AdapterError as problem:
            raise _refused(problem, f"what {source} sent for {digest}") from problem
        if not self._hold(name, digest):
            raise FetchFailed(500, f"the files of {digest} vanished from this engine's store", "store_failed")
        self.prune()
        return self._store.path(digest), True

    def release(self, name: str) -> None:
        """The engine has forgotten `name`. Its files stay until the room is needed."""
        with self._door:
            lock = self._held.pop(name, None)
        if lock is not None:
            os.close(lock)

    def close(self) -> None:
        for name in list(self._held):
            self.release(name)

    def prune(self) -> None:
        """Delete what nobody holds, oldest first, until the rest fits."""
        excess = self._store.used_bytes() - self._max_bytes
        for digest in sorted(self._store.digests(), key=self._age):
            if excess <= 0:
                return
            folder = self._store.path(digest)
            lock = _lock(folder, fcntl.LOCK_EX)
            if lock is None:
                continue
            try:
                size = sum(path.stat().st_size for path in folder.iterdir())
                self._store.delete(digest)
                excess -= size
            finally:
                os.close(lock)

    @property
    def _store(self) -> Store:
        if self._opened is None:
            with self._door:
                if self._opened is None:
                    self._opened = Store(self._root)
        return self._opened

    def _age(self, digest: str) -> float:
        try:
            return self._store.path(digest).stat().st_mtime
        except FileNotFoundError:  # deleted by another engine meanwhile
            return 0.0

    def _hold(self, name: str, digest: str) -> bool:
        """False when the files are not there, or are being deleted."""
        folder = self._store.path(digest)
        with self._door:
            if name in self._held:
                return True
            lock = _lock(folder, fcntl.LOCK_SH)
            if lock is None:
                return False
            if not self._store.has(digest):  # moved away between open and lock
                os.close(lock)
                return False
            self._held[name] = lock
            os.utime(folder)
            return True

    def _fetch(self, digest: str, source: str) -> None:
        with self._store.staging() as staged:
            with Extractor(staged, max_bytes=self._max_bytes) as extractor:
                for chunk in _download(f"{source}{VERSIONS}{digest}", self._key):
                    extractor.feed(chunk)
                extractor.finish()
            sealed = self._store.seal(staged)
            if sealed.digest != digest:
                message = f"asked {source} for {digest}, and the files that came are {sealed.digest}"
                raise FetchFailed(422, message, "digest_mismatch")
            self._store.publish(sealed)


def _refused(problem: AdapterError, what: str) -> FetchFailed:
    message = f"{what} is not usable: {problem.message}"
    match problem:
        case StoreFull():
            return FetchFailed(507, f"this engine's store is full: {problem.message}", "store_full")
        case TooBig():
            return FetchFailed(413, message, "too_big")
        case Refused(code="truncated"):
            return FetchFailed(502, message, "source_failed")
        case _:
            return FetchFailed(422, message, problem.code or "bad_archive")


def check_source(source: Any, allowed: frozenset[str]) -> str:
    """`source` as an origin (scheme://host[:port]). Raises `FetchFailed` (400) for anything else, and for
    one that is not in `allowed`, unless that is empty."""
    parts = urlsplit(source) if isinstance(source, str) else urlsplit("")
    origin = f"{parts.scheme}://{parts.netloc}"
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise FetchFailed(400, f"source {ascii(source)[:200]} is not http(s)://host[:port]", "bad_source")
    if source.rstrip("/") != origin or not origin.isascii() or not origin.isprintable() or " " in origin:
        raise FetchFailed(400, f"source {ascii(source)[:200]} is not http(s)://host[:port]", "bad_source")
    if allowed and origin not in allowed:
        message = f"this engine takes files only from HOTSWAP_SOURCES ({', '.join(sorted(allowed))})"
        raise FetchFailed(403, message, "source_not_allowed")
    return origin


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The key goes to the source that was named and to nobody else."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _download(url: str, key: str) -> Iterator[bytes]:
    request = urllib.request.Request(url, headers={"authorization": f"Bearer {key}"})  # noqa: S310  http(s)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
    try:
        with opener.open(request, timeout=SILENCE_S) as answer:
            while chunk := answer.read(_CHUNK):
                yield chunk
    except urllib.error.HTTPError as refusal:
        with refusal:
            said = refusal.read(500).decode(errors="replace")
        status, code = (404, "unknown_version") if refusal.code == 404 else (502, "source_failed")
        raise FetchFailed(status, f"{url} answered {refusal.code}: {said}", code) from refusal
    except (OSError, http.client.HTTPException) as problem:
        message = f"{url} could not be fetched: {type(problem).__name__} {problem}"
        raise FetchFailed(502, message, "source_failed") from problem


def _lock(folder: Path, kind: int) -> int | None:
    """A lock of `kind` on a folder; None when it is not there or somebody's lock is in the way."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
