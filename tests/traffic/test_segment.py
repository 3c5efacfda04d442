"""Segments: every whole record is read, nothing else is."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from gateway.traffic.segment import (
    FRAME_BYTES,
    HEADER_BYTES,
    Damage,
    Header,
    NotASegment,
    frame,
    payloads,
    read_header,
)

HEADER = Header(UUID(int=7), 42, 1_795_000_000.25)
PAYLOADS = [b"first", b"the second one", b"3"]


def write(folder: Path, *parts: bytes) -> Path:
    path = folder / "000000000042.segment"
    path.write_bytes(b"".join(parts))
    return path


def whole(payloads: list[bytes]) -> bytes:
    return b"".join(frame(payload) + payload for payload in payloads)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path, damage = write(tmp_path, HEADER.encode(), whole(PAYLOADS)), Damage()
    assert HEADER == read_header(path)
    assert list(payloads(path, damage)) == PAYLOADS
    assert damage == Damage()


def test_cut_at_every_byte_the_whole_records_are_kept(tmp_path: Path) -> None:
    everything = HEADER.encode() + whole(PAYLOADS)
    ends = [HEADER_BYTES + len(whole(PAYLOADS[:count])) for count in range(len(PAYLOADS) + 1)]
    for size in range(HEADER_BYTES, len(everything) + 1):
        path, damage = write(tmp_path, everything[:size]), Damage()
        kept = sum(end <= size for end in ends) - 1
        assert list(payloads(path, damage)) == PAYLOADS[:kept]
        assert damage == Damage(tail_bytes=size - ends[kept])


@pytest.mark.parametrize("size", range(HEADER_BYTES))
def test_a_cut_header_is_no_segment(tmp_path: Path, size: int) -> None:
    with pytest.raises(NotASegment):
        list(payloads(write(tmp_path, HEADER.encode()[:size])))


def test_every_flipped_byte_of_the_header_is_noticed(tmp_path: Path) -> None:
    head = HEADER.encode()
    for at in range(len(head)):
        broken = head[:at] + bytes([head[at] ^ 0x10]) + head[at + 1 :]
        with pytest.raises(NotASegment):
            read_header(write(tmp_path, broken))


def test_pages_that_never_reached_the_disk_end_it(tmp_path: Path) -> None:
    path, damage = write(tmp_path, HEADER.encode(), whole(PAYLOADS[:2]), bytes(4096)), Damage()
    assert list(payloads(path, damage)) == PAYLOADS[:2]
    assert damage == Damage(tail_bytes=4096)


def test_a_damaged_record_costs_no_other(tmp_path: Path) -> None:
    everything = bytearray(HEADER.encode() + whole(PAYLOADS))
    everything[HEADER_BYTES + FRAME_BYTES] ^= 1
    damage = Damage()
    assert list(payloads(write(tmp_path, bytes(everything)), damage)) == PAYLOADS[1:]
    assert damage == Damage(frames=1)


def test_a_damaged_length_ends_it_rather_than_inventing_records(tmp_path: Path) -> None:
    everything = bytearray(HEADER.encode() + whole(PAYLOADS))
    everything[HEADER_BYTES + 3] = 0x7F  # of the first length: two billion bytes
    assert list(payloads(write(tmp_path, bytes(everything)))) == []
