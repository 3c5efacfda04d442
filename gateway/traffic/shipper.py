"""From the journal to the lake, and to the roll-ups, exactly once.

A pass takes what is closed, writer by writer, in the order of their numbers:

    1. rows to the lake, in one commit that carries (writer, newest number)
    2. sums to Postgres, in one transaction that notes (writer, newest number)
    3. the segments are deleted

Killed anywhere, the next pass asks the lake and Postgres how far they are and goes on from there; nothing is
acknowledged by anything else. What is away (the store, Postgres) is waited for: segments stay until both have
them. So do those with a row that the second tier of redaction could not examine.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from arro3.core import RecordBatch

from gateway.traffic.lake import Lake, batches_of
from gateway.traffic.rollup import Group, Rollups, Sums, add_row
from gateway.traffic.row import Row, imported, rows_in
from gateway.traffic.second import Unexamined
from gateway.traffic.segment import CLOSED, Damage, NotASegment, number_of, read_header
from gateway.traffic.writers import close_left, take, writers

log = logging.getLogger("hotswap.traffic")

COMMIT_BYTES = 64 * 1024 * 1024
"""Of segments in one commit, unless the first alone has more."""
BATCH_ROWS = 5_000

FAULTS = ("read", "before commit", "after commit", "before roll-up", "after roll-up", "between deletions")
"""Where a test may kill it."""


@dataclass(slots=True)
class Shipped:
    """What one pass did; `waiting` says why segments of a writer stay, which others' do not wait for."""

    segments: int = 0
    rows: int = 0
    commits: int = 0
    damaged: int = 0
    waiting: list[str] = field(default_factory=list)


class Shipper:
    """`keeps` says which rows go on; the others are left out. `examine` gives what may be shipped of a row of
    a strict route, or raises `Unexamined`. At most `commit_bytes` of segments go into a commit, or one.
    `fault` is called at each of `FAULTS`; tests kill there."""

    def __init__(
        self,
        journal: Path,
        lake: Lake,
        rollups: Rollups,
        *,
        keeps: Callable[[Row], bool] = lambda row: True,
        examine: Callable[[Row], Row] = lambda row: row,
        commit_bytes: int = COMMIT_BYTES,
        fault: Callable[[str], None] = lambda point: None,
    ) -> None:
        self._journal = journal
        self._lake = lake
        self._rollups = rollups
        self._keeps = keeps
        self._examine = examine
        self._commit_bytes = commit_bytes
        self._fault = fault

    def ship(self) -> Shipped:
        """One pass over all writers. Raises what the store or the database raises."""
        done = Shipped()
        for folder in writers(self._journal):
            lock = take(folder)
            if lock is not None:  # its process is gone: what it left open will not grow
                close_left(folder)
                lock.release()
            try:
                while segments := _next(folder, self._commit_bytes):
                    self._ship(folder.name, segments, done)
            except Unexamined as error:
                done.waiting.append(str(error))
        return done

    def _ship(self, writer: str, segments: Sequence[Path], done: Shipped) -> None:
        newest = number_of(segments[-1])
        self._fault("read")
        in_lake, counted = self._lake.shipped(writer), self._rollups.newest(writer)
        sums: dict[Group, Sums] = {}

        def rows() -> Iterator[Row]:
            """Those that the lake lacks; on the way those that the roll-ups lack are summed up, but
            for imported ones: sums are of what was served."""
            for number, row in _rows(segments, writer, min(in_lake, counted), done):
                if not self._keeps(row):
                    continue
                if number > counted and not imported(row):
                    add_row(sums, row)
                if number > in_lake:
                    yield self._examine(row) if row["redacted"] else row

        batches: list[RecordBatch] = list(batches_of(rows(), BATCH_ROWS))
        if in_lake < newest:
            self._fault("before commit")
            if batches and self._lake.append(batches, writer, newest):
                done.commits += 1
                done.rows += sum(batch.num_rows for batch in batches)
            self._fault("after commit")
        if counted < newest:
            self._fault("before roll-up")
            self._rollups.add(writer, newest, sums)
        self._fault("after roll-up")
        for path in segments:
            _discard(path)
            done.segments += 1
            self._fault("between deletions")


def _next(folder: Path, commit_bytes: int) -> list[Path]:
    """The oldest closed segments that go into one commit."""
    chosen: list[Path] = []
    size = 0
    for path in sorted(folder.glob(f"*{CLOSED}"), key=number_of):
        with suppress(FileNotFoundError):  # another shipper was faster
            size += path.stat().st_size
            if chosen and size > commit_bytes:
                break
            chosen.append(path)
    return chosen


def _discard(path: Path) -> None:
    """Deletes a segment that is shipped; one that could not be read is kept under another name."""
    with suppress(FileNotFoundError):  # another shipper was faster
        try:
            read_header(path)
        except NotASegment:
            path.replace(path.with_suffix(".damaged"))
        else:
            path.unlink()


def _rows(segments: Sequence[Path], writer: str, after: int, done: Shipped) -> Iterator[tuple[int, Row]]:
    """Rows with the numbers of their segments, of those after number `after`."""
    for path in segments:
        number, damage = number_of(path), Damage()
        if number <= after:
            continue
        try:
            if str(read_header(path).writer) != writer:
                raise NotASegment(f"{path.name} is of another writer")
            for row in rows_in(path, damage):
                yield number, row
        except NotASegment as error:
            damage.frames += 1
            log.error("%s: %s; it is left out", path, error)  # noqa: TRY400
        if damage.frames:
            done.damaged += damage.frames
            log.error("%s: %d frames, of some records each, are damaged and left out", path, damage.frames)
