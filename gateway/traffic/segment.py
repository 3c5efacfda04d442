"""A segment: one append-only file of the journal.

    header   MAGIC (8 bytes), writer id (16 bytes), number (u64), when it was begun (f64, seconds since 1970),
             crc32 of the 40 bytes before (u32)
    frame    length (u32), crc32 of the payload (u32), payload (some records: `gateway.traffic.record`)

Integers are little-endian. A file that is still written to ends in `.open`, one that is not in `.segment`.
What follows the last whole frame is a torn tail: of a process that was killed, or of a page that never
reached the disk. It was never acknowledged, and nobody reads it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from isal.isal_zlib import crc32

MAGIC = b"hotswap\x01"
OPEN, CLOSED = ".open", ".segment"
MAX_PAYLOAD_BYTES = 64 * 1024 * 1024
"""A longer payload was never written; such a length is damage."""

_NAME = struct.Struct("<8s16sQd")
_CRC = struct.Struct("<I")
_FRAME = struct.Struct("<II")
HEADER_BYTES = _NAME.size + _CRC.size
FRAME_BYTES = _FRAME.size

pack_frame, pack_frame_into = _FRAME.pack, _FRAME.pack_into
"""Of the payload's length and its checksum."""
checksum = crc32


class NotASegment(ValueError):
    """The file has no whole header of ours."""


@dataclass(frozen=True, slots=True)
class Header:
    """Whose segment, and which of its segments. (writer, number) names it for ever."""

    writer: UUID
    number: int
    begun: float

    def encode(self) -> bytes:
        head = _NAME.pack(MAGIC, self.writer.bytes, self.number, self.begun)
        return head + _CRC.pack(checksum(head))


@dataclass(slots=True)
class Damage:
    """What `payloads` could not read: whole frames whose checksum is wrong, or that hold no records, and
    bytes after the last one."""

    frames: int = 0
    tail_bytes: int = 0


def frame(payload: bytes) -> bytes:
    """What stands before `payload` in a segment."""
    return pack_frame(len(payload), checksum(payload))


def file_name(number: int, suffix: str = CLOSED) -> str:
    return f"{number:012d}{suffix}"


def number_of(path: Path) -> int:
    """Raises `ValueError` for a name that is no segment's."""
    return int(path.stem)


def read_header(path: Path) -> Header:
    """Raises `NotASegment`, `OSError`."""
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    if len(head) < HEADER_BYTES:
        raise NotASegment(f"{path.name} ends within its header")
    magic, writer, number, begun = _NAME.unpack_from(head)
    if magic != MAGIC or _CRC.unpack_from(head, _NAME.size)[0] != checksum(head[: _NAME.size]):
        raise NotASegment(f"{path.name} is no segment of a journal of this version")
    return Header(UUID(bytes=writer), number, begun)


def payloads(path: Path, damage: Damage | None = None) -> Iterator[bytes]:
    """Of every whole frame, in order, one in memory at a time.

    A frame whose checksum is wrong is left out when the next one can be found after it, and counted in
    `damage`. Raises `NotASegment`, `OSError`.
    """
    read_header(path)
    damage = damage if damage is not None else Damage()
    size = path.stat().st_size
    with path.open("rb") as file:
        at = file.seek(HEADER_BYTES)
        while at < size:
            head = file.read(FRAME_BYTES)
            if len(head) < FRAME_BYTES:
                break
            length, crc = _FRAME.unpack(head)
            after = at + FRAME_BYTES + length
            if not 0 < length <= MAX_PAYLOAD_BYTES or after > size:
                break
            payload = file.read(length)
            if len(payload) < length:
                break
            if checksum(payload) == crc:
                yield payload
            elif not _whole_at(file.fileno(), after, size):
                break
            else:
                damage.frames += 1
            at = after
    damage.tail_bytes += size - at


def _whole_at(fd: int, at: int, size: int) -> bool:
    """Whether a whole frame stands there."""
    head = os.pread(fd, FRAME_BYTES, at)
    if len(head) < FRAME_BYTES:
        return False
    length, crc = _FRAME.unpack(head)
    if not 0 < length <= MAX_PAYLOAD_BYTES or at + FRAME_BYTES + length > size:
        return False
    return bool(checksum(os.pread(fd, length, at + FRAME_BYTES)) == crc)
