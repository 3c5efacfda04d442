"""The journal: what is appended is on disk soon, a kill loses nothing older, and a full disk harms nobody."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.traffic import journal as module
from gateway.traffic.journal import Journal, JournalError
from gateway.traffic.segment import CLOSED, OPEN, payloads, read_header
from gateway.traffic.writers import close_left, take, used_bytes, writers

QUICK = {"write_every_s": 0.001, "sync_every_s": 0.005}


@contextmanager
def journal(folder: Path, **settings: Any) -> Iterator[Journal]:
    made = Journal(folder, **{**QUICK, **settings})
    made.start()
    try:
        yield made
    finally:
        made.stop()


def kept(folder: Path, *kinds: str) -> list[bytes]:
    """What a reader of the files finds; a file that is closed or dropped under it, it looks for again."""
    while True:
        paths = sorted(path for kind in kinds or (CLOSED, OPEN) for path in folder.glob(f"*/*{kind}"))
        try:
            return [record for path in paths for record in payloads(path)]
        except FileNotFoundError:
            time.sleep(0.001)


def until(what: Callable[[], object], within_s: float = 5.0) -> None:
    deadline = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.002)


def test_records_are_kept_in_order_and_the_last_segment_is_closed(tmp_path: Path) -> None:
    wanted = [b"record %d" % number * 100 for number in range(3000)]  # five batches and more
    assert sum(map(len, wanted)) > 5 * module.BATCH_BYTES
    with journal(tmp_path) as written:
        assert all(written.append(payload) for payload in wanted)
    assert kept(tmp_path, CLOSED) == wanted
    assert kept(tmp_path, OPEN) == []
    assert (written.appended, written.dropped, written.waiting_bytes) == (3000, 0, 0)


def test_a_record_is_in_the_file_before_the_segment_is_closed(tmp_path: Path) -> None:
    with journal(tmp_path) as written:
        written.append(b"early")
        until(lambda: kept(tmp_path, OPEN) == [b"early"])


def test_segments_are_closed_by_size(tmp_path: Path) -> None:
    with journal(tmp_path, segment_bytes=1000) as written:
        for number in range(100):
            written.append(b"%d" % number * 50)
    sizes = [path.stat().st_size for path in tmp_path.glob(f"*/*{CLOSED}")]
    assert len(sizes) > 5 and max(sizes) < 1200
    assert len(kept(tmp_path)) == 100


def test_a_segment_is_closed_by_age_though_nothing_more_comes(tmp_path: Path) -> None:
    with journal(tmp_path, segment_age_s=0.05) as written:
        written.append(b"lonely")
        until(lambda: kept(tmp_path, CLOSED) == [b"lonely"])


def test_a_process_that_remembers_nothing_leaves_no_segment(tmp_path: Path) -> None:
    with journal(tmp_path):
        pass
    assert used_bytes(tmp_path) == 0


def test_numbers_are_never_given_twice_even_when_everything_was_shipped(tmp_path: Path) -> None:
    numbers = []
    for _ in range(3):
        with journal(tmp_path) as written:
            written.append(b"x")
        (path,) = tmp_path.glob(f"*/*{CLOSED}")
        numbers.append(read_header(path).number)
        path.unlink()
    assert numbers == [1, 2, 3]
    assert len(writers(tmp_path)) == 1  # one writer after another, and one folder


def test_two_at_once_are_two_writers(tmp_path: Path) -> None:
    with journal(tmp_path) as one, journal(tmp_path) as other:
        one.append(b"one")
        other.append(b"other")
    assert sorted(kept(tmp_path)) == [b"one", b"other"]
    headers = [read_header(path) for path in tmp_path.glob(f"*/*{CLOSED}")]
    assert headers[0].writer != headers[1].writer


def test_a_writer_that_writes_is_not_taken(tmp_path: Path) -> None:
    with journal(tmp_path) as written:
        written.append(b"x")
        (folder,) = writers(tmp_path)
        assert take(folder) is None
    lock = take(folder)
    assert lock is not None
    lock.release()


CHILD = """
import sys, time
from pathlib import Path
from gateway.traffic.journal import Journal
journal = Journal(Path(sys.argv[1]), segment_bytes=20_000)
journal.start()
for number in range(1_000_000):
    journal.append(b"%d" % number)
    if number % 20 == 0:
        print(number, time.monotonic(), flush=True)
        time.sleep(0.001)
"""


def test_kill_9_keeps_all_that_is_older_than_a_tenth_of_a_second(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    said = []
    for line in child.stdout:
        said.append(line.split())
        if len(said) == 300:
            killed = time.monotonic()
            os.kill(child.pid, signal.SIGKILL)
            break
    child.wait()
    child.stdout.close()
    (folder,) = writers(tmp_path)
    lock = take(folder)
    assert lock is not None
    close_left(folder)
    lock.release()
    numbers = [int(record) for record in kept(tmp_path, CLOSED)]
    acknowledged = max(int(number) for number, at in said if float(at) < killed - 0.1)
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > acknowledged > 1000


def test_the_next_writer_closes_what_the_last_left_open(tmp_path: Path) -> None:
    with journal(tmp_path) as written:
        written.append(b"before")
    (path,) = tmp_path.glob(f"*/*{CLOSED}")
    path.rename(path.with_suffix(OPEN))
    with journal(tmp_path) as written:
        assert kept(tmp_path, CLOSED) == [b"before"]
        written.append(b"after")
    assert kept(tmp_path, CLOSED) == [b"before", b"after"]


@pytest.mark.parametrize("left", [b"", b"hotswap", b"x" * 100])
def test_a_file_killed_within_its_header_is_swept_away(tmp_path: Path, left: bytes) -> None:
    with journal(tmp_path) as written:
        written.append(b"x")
    (folder,) = writers(tmp_path)
    (folder / f"000000000009{OPEN}").write_bytes(left)
    close_left(folder)
    assert kept(tmp_path, OPEN, CLOSED) == [b"x"]


def test_beyond_its_limit_records_are_dropped_until_there_is_space(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_AGAIN_S", 0.01)
    with (
        journal(tmp_path, segment_bytes=1000, limit_bytes=50_000) as written,
        caplog.at_level(logging.WARNING),
    ):

        def fill() -> bool:
            written.append(b"x" * 400)
            return written.full

        until(fill)
        assert not written.append(b"refused")
        until(lambda: not list(tmp_path.glob(f"*/*{OPEN}")))  # so that all of it can be shipped
        before = kept(tmp_path)
        assert 45_000 < used_bytes(tmp_path) <= 50_000
        for path in tmp_path.glob(f"*/*{CLOSED}"):
            path.unlink()
        until(lambda: not written.full)
        assert written.append(b"again")
    assert kept(tmp_path) == [b"again"]
    assert len(before) + written.dropped + 1 >= written.appended
    said = [record.getMessage() for record in caplog.records]
    assert any("traffic.journal_bytes" in line for line in said)
    assert any("takes records again" in line for line in said)


def test_what_comes_while_it_writes_is_kept_whole_and_in_order(tmp_path: Path) -> None:
    """The batch that is being filled changes hands at any moment."""
    wanted = [b"%d" % number * (1 + number % 50) for number in range(20_000)]
    with journal(tmp_path, write_every_s=0.0, segment_bytes=50_000) as written:
        for payload in wanted:
            written.append(payload)
    assert kept(tmp_path, CLOSED) == wanted
    assert (written.appended, written.dropped, written.waiting_bytes) == (20_000, 0, 0)


def test_a_full_disk_drops_counts_and_leaves_what_was_there_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_AGAIN_S", 0.01)
    full, real = False, module._write_all

    def write(fd: int, data: Any) -> None:
        if not full:
            return real(fd, data)
        os.write(fd, data[: len(data) // 2])  # the disk took half of it
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "_write_all", write)
    with journal(tmp_path) as written:
        written.append(b"before")
        until(lambda: kept(tmp_path) == [b"before"])
        free = 0  # nor is there space when it looks
        monkeypatch.setattr(os, "statvfs", lambda folder: os.statvfs_result((1, 1, 1000, 0, free, *[0] * 5)))
        full = True
        written.append(b"lost")
        until(lambda: written.full)
        assert written.dropped == 1
        full = False
        free = 100
        until(lambda: not written.full)
        written.append(b"after")
    assert kept(tmp_path) == [b"before", b"after"]


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_what_counts_as_dropped_is_not_kept_though_the_disk_took_some_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    real = module._write_all

    def write(fd: int, data: Any) -> None:
        if b"last" not in bytes(data):
            return real(fd, data)
        os.write(fd, data[: int(len(data) * share)])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with journal(tmp_path, write_every_s=0.05) as written:
        written.append(b"before")
        until(lambda: kept(tmp_path) == [b"before"])
        monkeypatch.setattr(module, "_write_all", write)
        for payload in (*[b"x" * 100] * 10, b"last"):  # one batch
            written.append(payload)
        until(lambda: written.dropped)
        assert written.appended == 12
        until(lambda: len(kept(tmp_path)) + written.dropped == 12)
        monkeypatch.setattr(module, "_write_all", real)


def test_it_goes_on_after_the_disk_refused_to_begin_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_AGAIN_S", 0.01)
    refused, real = [0], module._write_all

    def write(fd: int, data: Any) -> None:
        refused[0] += 1
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with journal(tmp_path) as written:
        monkeypatch.setattr(module, "_write_all", write)
        written.append(b"lost")
        until(lambda: refused[0] > 3)  # the record, and then the headers of new segments
        assert written.full
        assert kept(tmp_path) == []
        monkeypatch.setattr(module, "_write_all", real)
        until(lambda: not written.full)
        written.append(b"after")
    assert kept(tmp_path) == [b"after"]
    assert len(list(tmp_path.glob("*/*.segment"))) == 1


def test_it_goes_on_after_a_segment_could_not_be_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, refused = module.close_segment, [0]

    def close(path: Path, *, empty: bool) -> None:
        refused[0] += 1
        if refused[0] == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(path, empty=empty)

    monkeypatch.setattr(module, "close_segment", close)
    with journal(tmp_path, segment_bytes=100) as written:
        for payload in (b"a" * 100, b"b" * 100):
            written.append(payload)
            until(lambda: written.waiting_bytes == 0)
        until(lambda: kept(tmp_path, CLOSED) == [b"b" * 100])
    assert kept(tmp_path, OPEN) == [b"a" * 100]
    assert "could not be closed" in caplog.text
    with journal(tmp_path):
        assert kept(tmp_path, CLOSED) == [b"a" * 100, b"b" * 100]


def test_a_disk_that_hangs_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING_BYTES", 1000)
    hanging = True
    real = module._write_all

    def write(fd: int, data: Any) -> None:
        while hanging:
            time.sleep(0.001)
        real(fd, data)

    with journal(tmp_path) as written:
        monkeypatch.setattr(module, "_write_all", write)
        taken = [written.append(b"x" * 100) for _ in range(30)]
        assert taken.count(True) in range(9, 12) and written.dropped == taken.count(False)
        hanging = False
        until(lambda: written.waiting_bytes == 0)
        assert written.append(b"again")
    assert len(kept(tmp_path)) == taken.count(True) + 1


def test_a_folder_that_cannot_be_written_stops_the_start_with_advice(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("a file")
    with pytest.raises(JournalError, match=r"traffic\.journal"):
        Journal(tmp_path / "journal").start()
