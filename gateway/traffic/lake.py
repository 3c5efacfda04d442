"""The lake: every exchange as a row of a Delta table, in a folder or an object store.

Partitioned by day, route and days to keep, so that a read of one route's day opens no other files, and what
is too old goes by whole partitions. Written exactly once: a commit carries the journal writer's id and the
number of its newest segment, and is made only when a fresh look at the table shows that it is not there.
`deltalake` (Rust) writes it, and Spark, DuckDB, Polars or Ray read it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from arro3.core import Array, DataType, Field, RecordBatch, RecordBatchReader, Schema
from deltalake import (
    ColumnProperties,
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    QueryBuilder,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import CommitFailedError, TableNotFoundError

from gateway.traffic.query import quoted
from gateway.traffic.row import Row

log = logging.getLogger("hotswap.traffic")

_TEXT, _INT, _FLOAT, _BOOL = DataType.utf8(), DataType.int64(), DataType.float64(), DataType.bool()
_TIME = DataType.timestamp("us", tz="UTC")
COLUMNS: Mapping[str, DataType] = {
    "id": _TEXT,
    "at": _TIME,
    "day": _TEXT,
    "route": _TEXT,
    "keep_days": _INT,
    "version": _TEXT,
    "engine": _TEXT,
    "base": _TEXT,
    "tenant": _TEXT,
    "key": _TEXT,
    "unit": _TEXT,
    "path": _TEXT,
    "status": _INT,
    "outcome": _TEXT,
    "error": _TEXT,
    "finish_reason": _TEXT,
    "streaming": _BOOL,
    "prompt": _INT,
    "completion": _INT,
    "cached": _INT,
    "counted": _BOOL,
    "ttft_ms": _FLOAT,
    "duration_ms": _FLOAT,
    "load_ms": _FLOAT,
    "full": _BOOL,
    "redacted": _BOOL,
    "cut": _BOOL,
    "consent": _TEXT,
    "sample": _FLOAT,
    "messages": _TEXT,
    "tools": _TEXT,
    "parameters": _TEXT,
    "metadata": _TEXT,
    "response": _TEXT,
}
"""What a row has (`gateway.traffic.row`), in order."""
PARTITION = ("day", "route", "keep_days")
SCHEMA = Schema([Field(name, kind, nullable=True) for name, kind in COLUMNS.items()])

CONFIGURATION: Mapping[str, str | None] = {
    # The table's log keeps the least and greatest value of these of every file, and of no others: values of
    # other columns would outlast the rows that they are from.
    "delta.dataSkippingStatsColumns": "at,status",
    "delta.logRetentionDuration": "interval 1 days",
    "delta.deletedFileRetentionDuration": "interval 0 days",
}

ATTEMPTS = 10
"""Commits that may lose against others before a write is given up."""
ROW_GROUP = 20_000
"""Rows that a reader must take at once: what it needs of memory."""

FILE_BYTES = 64 * 1024 * 1024
"""Of a file of the table that is written anew."""

ORPHAN_HOURS = 24
"""Younger ones may be another shipper's, which is about to commit them."""

_COLOUR = re.compile("\x1b\\[[0-9;]*m")
_ALL_DIFFERENT = ("id", "at", "ttft_ms", "duration_ms", "messages", "response")
# Level 1, and no dictionaries of what is never the same: a third less CPU than level 3, for 5 % more bytes.
_WRITER = WriterProperties(
    compression="ZSTD",
    compression_level=1,
    max_row_group_size=ROW_GROUP,
    column_properties={name: ColumnProperties(dictionary_enabled=False) for name in _ALL_DIFFERENT},
)


class StoreError(OSError):
    """The store failed while a query was being read."""


class Lake:
    """One table. `options` are deltalake's own for its store (keys, endpoints). Every call looks at the table
    as it is now; errors of the store are deltalake's `DeltaError`, or `OSError`."""

    def __init__(self, uri: str, options: Mapping[str, str] | None = None) -> None:
        self.uri = uri
        self._options = dict(options or {})

    def table(self) -> DeltaTable:
        """As it is now; made when it is not there."""
        try:
            return DeltaTable(self.uri, storage_options=self._options)
        except TableNotFoundError:
            if "://" not in self.uri:
                Path(self.uri).mkdir(parents=True, exist_ok=True)
            return DeltaTable.create(
                self.uri,
                schema=SCHEMA,
                mode="ignore",
                partition_by=list(PARTITION),
                name="hotswap-traffic",
                configuration=CONFIGURATION,
                storage_options=self._options,
            )

    def shipped(self, writer: str) -> int:
        """The newest segment of a journal writer that is in it; 0 for none."""
        return self.table().transaction_version(writer) or 0

    def append(self, batches: Iterable[RecordBatch], writer: str, number: int) -> bool:
        """Adds rows in one commit, as those of `writer` up to segment `number`; False when they are there
        already. Other writers may commit meanwhile; the same one is refused by the table.
        """
        made = list(batches)

        def write(table: DeltaTable) -> bool:
            if (table.transaction_version(writer) or 0) >= number:
                return False
            write_deltalake(
                table,
                RecordBatchReader.from_batches(SCHEMA, made),
                mode="append",
                writer_properties=_WRITER,
                commit_properties=CommitProperties(
                    app_transactions=[Transaction(writer, number)], max_commit_retries=0
                ),
                post_commithook_properties=PostCommitHookProperties(cleanup_expired_logs=False),
            )
            return True

        return self._commit(write)

    def query(self, sql: str) -> RecordBatchReader:
        """The rows of a query over `lake`, batch by batch; read it by `batches`."""
        return QueryBuilder().register("lake", self.table()).execute(sql)

    def select(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query over `lake`, all of them, as tuples in the order of its columns."""
        found: list[tuple[Any, ...]] = []
        for batch in batches(self.query(sql)):
            columns = [batch.column(name).to_pylist() for name in batch.column_names]
            found += zip(*columns, strict=True)
        return found

    def leave_out(self, part: str, condition: str) -> None:
        """Writes the partition `part` anew without the rows that `condition` means, as they come: memory does
        not grow with it, given one writer (`gateway.traffic.ship.WRITER`). Not by the table's own delete,
        whose condition, and with it what is to be forgotten, would stand in the log.
        """
        names = ", ".join(f'"{name}"' for name in COLUMNS)
        kept = f"SELECT {names} FROM lake WHERE {part} AND NOT ({condition})"  # noqa: S608

        def write(table: DeltaTable) -> bool:
            query = QueryBuilder().register("lake", table)
            # One file after the other: two read at once would be mixed, and no row group be of one time.
            query.execute("SET datafusion.execution.target_partitions = 1")
            write_deltalake(
                table,
                query.execute(kept),
                mode="overwrite",
                predicate=part,
                target_file_size=FILE_BYTES,
                writer_properties=_WRITER,
                # Tried again by deltalake: what others add elsewhere is no reason to write it all anew.
            )
            return True

        self._commit(write)

    def _commit(self, write: Callable[[DeltaTable], bool]) -> bool:
        """What `write` says, of a table that nobody has changed since it looked."""
        for attempt in range(ATTEMPTS):
            try:
                return write(self.table())
            except CommitFailedError as error:
                log.info("a commit to the lake lost against another (%d): %s", attempt + 1, error)
        raise CommitFailedError(f"{ATTEMPTS} commits in a row lost against others'")

    def drop_expired(self, today: date, keep: Mapping[str, int] | None = None) -> list[str]:
        """Drops the partitions that are older than the days they are to be kept, by themselves or, sooner, by
        what `keep` says now of their route. Returns the days that went, as `day/route`. Nothing is rewritten.
        """
        gone: list[str] = []
        for part in self.table().partitions():
            days = min(int(part["keep_days"]), (keep or {}).get(part["route"], 36_500))
            if date.fromisoformat(part["day"]) + timedelta(days=days) < today:
                self.table().delete(
                    f"day = '{part['day']}' AND route = {quoted(part['route'])} "
                    f"AND keep_days = {int(part['keep_days'])}"
                )
                gone.append(f"{part['day']}/{part['route']}")
        return gone

    def compact(self, before: date | None = None) -> Mapping[str, Any]:
        """Makes few files of many, of every partition, or of those of days before `before`."""
        table = self.table()
        filters = None if before is None else [("day", "<", before.isoformat())]
        return table.optimize.compact(
            partition_filters=filters, writer_properties=_WRITER, max_concurrent_tasks=1
        )

    def vacuum(self, hours: int) -> list[str]:
        """Deletes files that the table has not used for `hours`. With 0 older readers lose theirs at once."""
        return self.table().vacuum(hours, dry_run=False, enforce_retention_duration=False)

    def drop_orphans(self) -> list[str]:
        """Deletes files that no commit ever named and that are older than `ORPHAN_HOURS`: what a shipper that
        was killed before its commit left behind, where no forgetting would find it.
        """
        return self.table().vacuum(ORPHAN_HOURS, dry_run=False, enforce_retention_duration=False, full=True)


def batches(found: RecordBatchReader) -> Iterator[RecordBatch]:
    """What a query found, batch by batch. Raises `StoreError` when the store fails on the way."""
    while True:
        try:
            batch = found.read_next_batch()
        except StopIteration:
            return
        except Exception as error:
            if type(error) is not Exception:  # which is all that arro3 says of a stream that broke
                raise
            raise StoreError(str(error)) from error
        yield batch


def reason_of(error: Exception) -> str:
    """In a line: deltalake draws a coloured tree, whose last leaf is why."""
    leaves = _COLOUR.sub("", str(error)).replace("↳", " ").split()
    return " ".join(leaves)[:500] or type(error).__name__


def batch_of(rows: Sequence[Row]) -> RecordBatch:
    """Rows as Arrow columns."""
    arrays = []
    for name, kind in COLUMNS.items():
        values = [row[name] for row in rows]  # type: ignore[literal-required]
        arrays.append(Array(values, _INT).cast(_TIME) if kind == _TIME else Array(values, kind))
    return RecordBatch.from_arrays(arrays, schema=SCHEMA)


def batches_of(rows: Iterable[Row], size: int = ROW_GROUP) -> Iterator[RecordBatch]:
    """The same in batches of at most `size` rows."""
    some: list[Row] = []
    for row in rows:
        some.append(row)
        if len(some) == size:
            yield batch_of(some)
            some = []
    if some:
        yield batch_of(some)


def table_of(batches: Sequence[RecordBatch], folder: str) -> DeltaTable:
    """A table of its own in an empty folder, for a query over both."""
    table = DeltaTable.create(folder, schema=SCHEMA)
    write_deltalake(table, RecordBatchReader.from_batches(SCHEMA, batches), mode="append")
    return table
