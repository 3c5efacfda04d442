"""The folders of the journal's writers: whose they are, and what lies there (`gateway.traffic.journal`)."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path

from gateway.supervise.lock import Lock, Locked
from gateway.traffic.segment import CLOSED, HEADER_BYTES, OPEN, NotASegment, number_of, payloads, read_header

LOCK, NUMBER = "writer", "number"


def writers(folder: Path) -> list[Path]:
    """The folders of all writers."""
    return sorted(path.parent for path in folder.glob(f"*/{LOCK}.lock"))


def take(folder: Path) -> Lock | None:
    """The lock of a writer's folder, or None while a process writes there."""
    lock = Lock(folder, LOCK)
    try:
        lock.acquire(patience_s=0)
    except Locked:
        return None
    return lock


def own(root: Path) -> tuple[Path, Lock]:
    """A writer's folder that nobody else writes in, and its lock, held. Raises `OSError`."""
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    for folder in [*writers(root), root / str(uuid.uuid4())]:
        lock = take(folder)
        if lock is not None:
            return folder, lock
    raise AssertionError("a folder with a new name was taken")


def last_number(folder: Path) -> int:
    """The newest that was given in a writer's folder."""
    given = [number_of(path) for kind in (OPEN, CLOSED) for path in folder.glob(f"*{kind}")]
    number = folder / NUMBER
    text = number.read_text().strip() if number.exists() else ""
    return max([*given, int(text) if text.isdigit() else 0])


def note_number(folder: Path, number: int) -> None:
    """So that it is never given again, whatever becomes of its segment."""
    fresh = (folder / NUMBER).with_suffix(".new")
    fresh.write_text(f"{number}\n")
    fresh.replace(folder / NUMBER)


def used_bytes(folder: Path) -> int:
    """Of all segments of all writers."""
    total = 0
    for kind in (OPEN, CLOSED):
        for path in folder.glob(f"*/*{kind}"):
            with contextlib.suppress(FileNotFoundError):  # it was closed, or shipped, meanwhile
                total += path.stat().st_size
    return total


def unshipped_before(folder: Path, moment: float) -> bool:
    """Whether some segment with a record was begun before `moment` (seconds since 1970), or cannot tell."""
    for kind in (OPEN, CLOSED):
        for path in folder.glob(f"*/*{kind}"):
            with contextlib.suppress(FileNotFoundError):  # shipped, or closed: it is seen under that name
                try:
                    if path.stat().st_size > HEADER_BYTES and read_header(path).begun <= moment:
                        return True
                except NotASegment:
                    return True
    return False


def close_left(folder: Path) -> None:
    """Closes what a writer that is no more left open in its `folder`. The caller holds its lock."""
    for path in folder.glob(f"*{OPEN}"):
        try:
            empty = next(payloads(path), None) is None
        except ValueError:
            empty = True  # it was killed before the header was whole
        close_segment(path, empty=empty)


def close_segment(path: Path, *, empty: bool) -> None:
    """Nobody writes to this segment any more; one without a record goes."""
    if empty:
        path.unlink(missing_ok=True)
    else:
        path.replace(path.with_suffix(CLOSED))
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes names in it durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
