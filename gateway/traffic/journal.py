"""The journal: what was remembered, on this machine's disk until the shipper has taken it to the lake.

    <folder>/<writer>/writer.lock           held by the process that writes there
    <folder>/<writer>/number                of the newest segment that was begun
    <folder>/<writer>/000000000042.segment  closed: nobody writes to it any more
    <folder>/<writer>/000000000043.open     written to now, or left by a process that was killed

One process, one writer: it takes a folder that nobody holds, or makes one. `append` only puts records into
memory. A thread writes what is there every `write_every_s`, which is what survives a `kill -9`; another makes
it durable every `sync_every_s`, which is what survives the machine.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
import uuid
from collections import deque
from pathlib import Path

from gateway.traffic.segment import (
    FRAME_BYTES,
    HEADER_BYTES,
    OPEN,
    Header,
    checksum,
    file_name,
    pack_frame_into,
)
from gateway.traffic.writers import (
    close_left,
    close_segment,
    last_number,
    note_number,
    own,
    sync_folder,
    used_bytes,
)

log = logging.getLogger("hotswap.traffic")

MAX_WAITING_BYTES = 64 * 1024 * 1024
"""Records that wait for the disk. Beyond that the disk does not follow, and new ones are dropped."""

BATCH_BYTES = 512 * 1024
"""Payloads are put into batches of at most so much; one that is larger is a batch. A segment ends with a
whole batch."""
SPARE = 4
"""Batches whose memory is kept for the next ones: fresh memory costs more than all else that is done with a
record."""

LOOK_AGAIN_S = 1.0
"""While there is no space, how often it is looked whether the shipper, or somebody, has made some."""

SPARE_BYTES = 64 * 1024 * 1024
SPARE_SHARE = 0.1
"""What must be free again before the disk is written to again: so much, or this share of a small one."""


class _Batch:
    """Payloads one after another, framed: the first `size` bytes of `buffer`."""

    __slots__ = ("buffer", "records", "size")

    def __init__(self, room: int) -> None:
        self.buffer = bytearray(room)
        self.records = self.size = 0


class JournalError(RuntimeError):
    """The journal cannot be written where the settings say."""


class Journal:
    """`append` is called from one thread; what it counts may be read from any.

    A segment is closed when it has `segment_bytes`, or is `segment_age_s` old and not empty. When the
    segments of all writers have `limit_bytes`, or the disk takes no more, new records are dropped and
    counted: serving never waits.
    """

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes: int = 64 * 1024 * 1024,
        segment_age_s: float = 10.0,
        limit_bytes: int = 10 * 1024**3,
        write_every_s: float = 0.05,
        sync_every_s: float = 0.1,
    ) -> None:
        self._root = folder
        self._segment_bytes = segment_bytes
        self._segment_age_s = segment_age_s
        self._batch_bytes = min(BATCH_BYTES, segment_bytes)
        self._limit_bytes = limit_bytes
        self._write_every_s = write_every_s
        self._sync_every_s = sync_every_s
        self._batch = _Batch(self._batch_bytes)
        self._batches: deque[_Batch] = deque()
        self._spare: list[_Batch] = []
        self._taking = threading.Lock()
        self._some = threading.Event()
        self._stopping = False
        self._full = False
        self._threads: list[threading.Thread] = []
        self._finishing: queue.SimpleQueue[tuple[int, Path, int] | None] = queue.SimpleQueue()
        # Each of these is counted up by one thread alone.
        self.appended = self._appended_bytes = self._refused = 0
        self._taken_bytes = self._lost = 0
        # The segment that is written to; the writing thread's own.
        self._fd: int | None = None
        self._path = folder
        self._at = 0
        self._began = 0.0
        self._others_bytes = 0

    @property
    def full(self) -> bool:
        """Records are being dropped for want of space."""
        return self._full

    @property
    def dropped(self) -> int:
        """Records that were not kept."""
        return self._refused + self._lost

    @property
    def waiting_bytes(self) -> int:
        """Of records that are in memory only."""
        return self._appended_bytes - self._taken_bytes

    # From the thread that serves.

    def append(self, payload: bytes, records: int = 1) -> bool:
        """Takes a payload of so many records into memory; False when it is dropped. Never waits."""
        if self._full or self._appended_bytes - self._taken_bytes > MAX_WAITING_BYTES:
            self._refused += records
            return False
        length = len(payload)
        size = FRAME_BYTES + length
        self.appended += records
        self._appended_bytes += size
        with self._taking:
            batch = self._batch
            begin, end = batch.size, batch.size + size
            if end > self._batch_bytes:
                batch = self._next(size)
                begin, end = 0, size
            pack_frame_into(batch.buffer, begin, length, checksum(payload))
            batch.buffer[begin + FRAME_BYTES : end] = payload
            batch.size = end
            batch.records += records
        if not self._some.is_set():
            self._some.set()
        return True

    def _next(self, size: int) -> _Batch:
        """The batch gets no more; one with room for a frame of `size` bytes. Within `_taking`."""
        if self._batch.records:
            self._batches.append(self._batch)
            self._batch = self._spare.pop() if self._spare else _Batch(self._batch_bytes)
        if size > len(self._batch.buffer):
            self._batch = _Batch(size)
        return self._batch

    def start(self) -> None:
        """Takes a writer's folder, closes what was left open there, and begins. Raises `JournalError`."""
        try:
            self._folder, self._lock = own(self._root)
            self._writer = uuid.UUID(self._folder.name)
            close_left(self._folder)
            self._number = last_number(self._folder)
            self._begin()
        except OSError as error:
            raise JournalError(
                f"the journal cannot be written in {self._root}: {error.strerror}. Make room there, or name "
                'another folder (traffic.journal), or remember nothing (traffic.capture = "off")'
            ) from error
        for work in (self._write, self._sync):
            thread = threading.Thread(target=work, name=f"journal{work.__name__}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Writes what is there, closes the segment and lets the folder go."""
        if not self._threads:
            return
        self._stopping = True
        self._some.set()
        for thread in self._threads:
            thread.join()
        self._threads = []
        self._lock.release()

    # The thread that writes.

    def _write(self) -> None:
        while not self._stopping:
            if self._some.wait(self._patience()) and not self._stopping:
                time.sleep(self._write_every_s)
            self._some.clear()
            if self._full:
                with contextlib.suppress(OSError):  # not yet; it is tried again in a while
                    self._look_for_space()
            self._drain()
            if self._due():
                self._end()
                self._begin_or_be_full()
        self._drain()
        self._end()
        self._finishing.put(None)

    def _patience(self) -> float | None:
        """Until there is something to do without a new record."""
        if self._full:
            return LOOK_AGAIN_S
        if self._at > HEADER_BYTES:
            return max(0.0, self._began + self._segment_age_s - time.monotonic())
        return None

    def _due(self) -> bool:
        old = time.monotonic() >= self._began + self._segment_age_s
        return self._fd is not None and self._at > HEADER_BYTES and (old or self._at >= self._segment_bytes)

    def _drain(self) -> None:
        """Writes what waited when it was called; what comes meanwhile waits for the next time."""
        with self._taking:
            self._next(0)
            batches, self._batches = self._batches, deque()
        for batch in batches:
            if self._at > HEADER_BYTES and self._at + batch.size > self._segment_bytes:
                self._end()
                self._begin_or_be_full()
            with memoryview(batch.buffer) as whole:
                self._write_batch(whole[: batch.size], batch.records)
            self._taken_bytes += batch.size
            if len(batch.buffer) == self._batch_bytes and len(self._spare) < SPARE:
                batch.size = batch.records = 0
                self._spare.append(batch)

    def _write_batch(self, batch: memoryview, records: int) -> None:
        if self._full or self._fd is None:
            self._lost += records
            return
        if self._others_bytes + self._at + len(batch) > self._limit_bytes:
            self._lost += records
            self._be_full(f"it has the {self._limit_bytes:,} bytes that it may have (traffic.journal_bytes)")
            return
        try:
            _write_all(self._fd, batch)
        except OSError as error:
            self._lost += records
            self._take_back()
            self._be_full(str(error.strerror))
            return
        self._at += len(batch)

    def _take_back(self) -> None:
        """Off with what the disk took of a batch that it did not take whole: all of it counts as dropped."""
        assert self._fd is not None
        try:
            os.ftruncate(self._fd, self._at)
        except OSError as error:
            log.error("records that count as dropped may be kept all the same: %s", error.strerror)  # noqa: TRY400

    def _be_full(self, why: str) -> None:
        """Drops what comes. What is there is closed, so that it can be shipped: that makes space."""
        self._end()
        if self._full:
            return
        self._full = True
        log.error("the journal takes no records: %s. Requests are served, and not remembered", why)

    def _look_for_space(self) -> None:
        self._others_bytes = used_bytes(self._root) - self._at
        disk = os.statvfs(self._root)
        if self._others_bytes + self._at > self._limit_bytes * 0.9:
            return
        if disk.f_bavail * disk.f_frsize < min(SPARE_BYTES, disk.f_blocks * disk.f_frsize * SPARE_SHARE):
            return
        if self._fd is None:
            self._begin()
        self._full = False
        log.warning("the journal takes records again; %d were dropped so far", self.dropped)

    def _begin_or_be_full(self) -> None:
        try:
            self._begin()
        except OSError as error:
            self._be_full(str(error.strerror))

    def _begin(self) -> None:
        """A new segment. Its number is on disk before it is: no number is ever given twice."""
        self._number += 1
        note_number(self._folder, self._number)
        self._path = self._folder / file_name(self._number, OPEN)
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            _write_all(fd, Header(self._writer, self._number, time.time()).encode())
        except OSError:
            os.close(fd)
            self._path.unlink()
            raise
        self._others_bytes = used_bytes(self._root) - HEADER_BYTES
        self._at, self._began, self._fd = HEADER_BYTES, time.monotonic(), fd

    def _end(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            self._finishing.put((fd, self._path, self._at))
        self._at = 0

    # The thread that makes it durable.

    def _sync(self) -> None:
        durable: tuple[int | None, int] = (None, 0)
        while True:
            try:
                done = self._finishing.get(timeout=self._sync_every_s)
            except queue.Empty:
                now = self._fd, self._at
                if now[0] is not None and now != durable:
                    self._make_durable(now[0], new=now[0] != durable[0])
                    durable = now
                continue
            if done is None:
                return
            fd, path, size = done
            self._make_durable(fd, new=True)
            os.close(fd)
            try:
                close_segment(path, empty=size <= HEADER_BYTES)
            except OSError as error:  # the next start closes it
                log.error("%s could not be closed: %s", path, error.strerror)  # noqa: TRY400
            durable = None, 0

    def _make_durable(self, fd: int, *, new: bool) -> None:
        try:
            os.fdatasync(fd)
            if new:
                sync_folder(self._folder)
        except OSError as error:
            log.error("the journal could not be made durable: %s", error.strerror)  # noqa: TRY400


def _write_all(fd: int, data: bytes | memoryview) -> None:
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, data[written:])
