"""Bytes by their sha256, in a local folder: `ROOT/sha256/ab/abcd…`; what is not whole is in `ROOT/staging/`.

A blob appears by one rename of a file that is on disk already, so it is whole or absent. Staged files carry
the lock of whoever writes them; what a killed process left is swept by the next `Blobs`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from adapters.disk import held, refusing_when_full, sync
from gateway.errors import GatewayError

_DIGEST = re.compile(r"[0-9a-f]{64}")


class DiskFull(GatewayError):
    status = 507
    type = "server_error"
    code = "disk_full"


class Staged:
    """A file that grows: its bytes so far are counted and hashed. `write` and `seal` block on the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._hash = hashlib.sha256()
        self._file = path.open("xb")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def write(self, data: bytes) -> None:
        """Raises `DiskFull`."""
        with _full_disk():
            self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    def seal(self) -> str:
        """Everything is on disk; the digest. Raises `DiskFull`."""
        with _full_disk():
            self._file.flush()
            os.fsync(self._file.fileno())
            os.fchmod(self._file.fileno(), 0o444)
        return self._hash.hexdigest()

    def close(self) -> None:
        """Lets go of it, and deletes it unless it was published."""
        self.path.unlink(missing_ok=True)
        self._file.close()


class Blobs:
    """The files under `root`. Everything here blocks on the disk: on an event loop, call it in a thread."""

    def __init__(self, root: Path) -> None:
        self._blobs = root.resolve() / "sha256"
        self._staging = root.resolve() / "staging"
        for folder in (self._blobs, self._staging):
            folder.mkdir(parents=True, exist_ok=True)
        self.sweep()

    @contextmanager
    def staging(self) -> Iterator[Staged]:
        """A new file, gone afterwards unless it was published."""
        with self._door():
            staged = Staged(self._staging / uuid.uuid4().hex)
        try:
            yield staged
        finally:
            staged.close()

    def publish(self, staged: Staged, digest: str) -> None:
        """Puts a sealed file in its place; the same content is there once."""
        target = self.path(digest)
        with _full_disk():
            target.parent.mkdir(exist_ok=True)
            os.replace(staged.path, target)
            sync(target.parent)

    def path(self, digest: str) -> Path:
        """Where the bytes of a digest are, whether or not they are there."""
        if not _DIGEST.fullmatch(digest):
            raise ValueError(f"{digest[:80]!r} is no sha256 digest (64 hex digits)")
        return self._blobs / digest[:2] / digest

    def delete(self, digest: str) -> None:
        """Nothing happens when it is gone already."""
        self.path(digest).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Deletes what killed processes left half written. What a living one writes is locked, and stays."""
        with self._door():
            for path in self._staging.iterdir():
                if path.name == ".lock":
                    continue
                with path.open("rb") as file:
                    try:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        continue
                    path.unlink(missing_ok=True)

    def _door(self) -> AbstractContextManager[None]:
        """Held while a staged file is made and locked, so that no sweep falls between the two."""
        return held(self._staging / ".lock")


def _full_disk() -> AbstractContextManager[None]:
    return refusing_when_full(
        DiskFull,
        "The disk under the files is full; nothing was kept. Free space, or delete files, and upload again.",
    )
