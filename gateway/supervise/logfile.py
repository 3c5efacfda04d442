"""Log files: of child processes, appended to by the child itself, rotated when one starts, read back by us;
and of a process of ours."""

from __future__ import annotations

import logging
import logging.handlers
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

ROTATE_BYTES = 16 * 2**20
READ_BYTES = 2**20


def open_log(path: Path) -> BinaryIO:
    """`path` opened for appending, readable by its owner only; moved to `<path>.1` first when it is large."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > ROTATE_BYTES:
        path.replace(path.with_name(path.name + ".1"))
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def log_to(path: Path) -> None:
    """Everything that this process logs goes to `path`, which is rotated: one process a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=20_000_000, backupCount=3)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    for chatty in ("httpx", "httpcore", "alembic", "uvicorn.error"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


class Tail:
    """What is written to a log from now on, line by line; a rotation in between starts the new file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rest = b""
        try:
            status = path.stat()
            self._inode, self._offset = status.st_ino, status.st_size
        except FileNotFoundError:
            self._inode, self._offset = 0, 0

    def lines(self) -> Iterator[str]:
        """The complete lines written since the last call, without their ends."""
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._inode or status.st_size < self._offset:
                    self._inode, self._offset, self._rest = status.st_ino, 0, b""
                file.seek(self._offset)
                while chunk := file.read(READ_BYTES):
                    self._offset += len(chunk)
                    *whole, self._rest = (self._rest + chunk).split(b"\n")
                    for line in whole:
                        yield line.rstrip(b"\r").decode(errors="replace")
        except FileNotFoundError:
            return
