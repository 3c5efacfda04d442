"""Content-addressed adapter files: `ROOT/sha256/DIGEST/{adapter_config.json,adapter_model.safetensors}`.

The digest of a version is sha256 over

    b"hotswap-adapter-1\\n"
    then, for adapter_config.json and adapter_model.safetensors in this order:
    the file's name in ASCII, one zero byte, its length as 8 bytes big-endian, its bytes

where adapter_config.json is in canonical form (keys sorted, no spaces, ASCII; `strictjson.canonical`), which
is also how it is stored, and the weights are as they came. Nothing else is kept: what is not in the digest
could change under a version's name.

A folder appears under `sha256/` by one rename of files that are already on disk, and so is whole or absent.
Uploads are staged in `ROOT/staging/`, where each is locked by the process that writes it; what a killed
process left there is swept by the next `Store`.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from adapters.archive import CONFIG, WEIGHTS
from adapters.disk import held, refusing_when_full, sync
from adapters.errors import Refused, StoreFull, Unknown
from adapters.strictjson import canonical, read_object

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Sealed:
    """Staged files in canonical form, on disk, and what they amount to."""

    folder: Path
    digest: str
    size_bytes: int


class Store:
    """The files under `root`. Every method blocks on the disk: on an event loop, call them in a thread."""

    def __init__(self, root: Path) -> None:
        self._files = root.resolve() / "sha256"
        self._staging = root.resolve() / "staging"
        for folder in (self._files, self._staging):
            folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        self.sweep()

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """An empty folder for one upload, gone afterwards unless it was committed."""
        folder = self._staging / uuid.uuid4().hex
        with self._door():
            folder.mkdir(mode=0o755)
            lock = _lock(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if lock is not None:
                os.close(lock)

    def sweep(self) -> None:
        """Delete what killed processes left in staging. What a living one is writing is locked, and stays."""
        with self._door():
            for folder in self._staging.iterdir():
                if folder.is_dir() and (lock := _lock(folder)) is not None:
                    shutil.rmtree(folder)
                    os.close(lock)

    def seal(self, staged: Path) -> Sealed:
        """Bring `staged` into its canonical form, on disk and read-only, and compute its digest.

        Raises `Refused` when the config is missing or not JSON, `StoreFull` when the disk is full.
        """
        with _full_disk():
            config = staged / CONFIG
            for path in (config, staged / WEIGHTS):
                if path.is_symlink() or not path.is_file():
                    raise Refused(f"an adapter needs {path.name} as a plain file", code="missing_file")
            text = canonical(read_object(config.read_bytes(), CONFIG, code="bad_config"))
            config.unlink()
            config.write_bytes(text)
            for path in staged.iterdir():
                if path.name not in (CONFIG, WEIGHTS):
                    path.unlink()
            digest = hashlib.sha256(b"hotswap-adapter-1\n")
            size = 0
            for name in (CONFIG, WEIGHTS):
                with (staged / name).open("rb") as file:
                    length = os.fstat(file.fileno()).st_size
                    digest.update(name.encode() + b"\0" + length.to_bytes(8, "big"))
                    while chunk := file.read(_CHUNK):
                        digest.update(chunk)
                    os.fchmod(file.fileno(), 0o444)
                    os.fsync(file.fileno())
                size += length
            sync(staged)
            return Sealed(staged, digest.hexdigest(), size)

    def publish(self, sealed: Sealed) -> Path:
        """Put sealed files in their place with one rename. Idempotent: the same content is there once."""
        target = self.path(sealed.digest)
        with _full_disk():
            try:
                sealed.folder.rename(target)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                if _size(target) != sealed.size_bytes:  # somebody meddled with the store: heal it
                    self.delete(sealed.digest)
                    sealed.folder.rename(target)
            target.chmod(0o555)
            sync(self._files)
        return target

    def commit(self, staged: Path) -> str:
        """`seal` and `publish`; the digest."""
        sealed = self.seal(staged)
        self.publish(sealed)
        return sealed.digest

    def path(self, digest: str) -> Path:
        """The absolute folder of a digest, whether or not it is there."""
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise Unknown(f"{ascii(digest)[:80]} is not a sha256 digest (64 hex digits)")
        return self._files / digest

    def has(self, digest: str) -> bool:
        """Whether the files of a digest are there."""
        return self.path(digest).is_dir()

    def digests(self) -> list[str]:
        """Every digest whose files are there."""
        return sorted(path.name for path in self._files.iterdir())

    def count(self) -> int:
        """How many digests' files are there."""
        return len(os.listdir(self._files))

    def delete(self, digest: str) -> None:
        """Remove the files of a digest; nothing happens when they are gone already."""
        with self.staging() as bin_:
            target = self.path(digest)
            try:
                target.chmod(0o755)
                target.rename(bin_ / digest)
            except FileNotFoundError:
                return
            sync(self._files)

    def used_bytes(self) -> int:
        """Bytes of all files under their digests."""
        return sum(_size(folder) for folder in self._files.iterdir())

    def _door(self) -> AbstractContextManager[None]:
        """Held while a staging folder is made and locked, so that no sweep falls between the two."""
        return held(self._staging / ".lock")


def _lock(folder: Path) -> int | None:
    """A lock on `folder` that dies with this process; None when somebody else has it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _full_disk() -> AbstractContextManager[None]:
    return refusing_when_full(
        StoreFull,
        "the disk under the adapter store is full; nothing was kept. Free space, or remove versions with "
        "`hotswap adapters rm`, and upload again",
    )
