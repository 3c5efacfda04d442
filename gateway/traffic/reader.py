"""Reading: the lake, and what the journal has that the lake has not yet, as one.

A segment is in the lake when the table says so, whole or not at all, so the two never overlap and nothing is
missing between them. Rows come in batches; nothing holds a whole result but a page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
from arro3.core import RecordBatch
from deltalake import DeltaTable, QueryBuilder

from gateway.traffic.lake import COLUMNS, Lake, batches, batches_of, table_of
from gateway.traffic.query import PAGE_BYTES, Forgotten, Wanted, cursor_of, ordered, where
from gateway.traffic.record import IMPORTED
from gateway.traffic.row import Row, rows_in
from gateway.traffic.second import without_words
from gateway.traffic.segment import CLOSED, OPEN, Damage, NotASegment, number_of

BRIEF = tuple(name for name in COLUMNS if name not in ("messages", "tools", "parameters", "response"))
"""Columns of a list: what is about an exchange."""
BATCH_ROWS = 1_000
"""Of an export that are read, and handed on, at a time: its memory, and its largest piece."""
STORED = (*BRIEF, "tools", "parameters", "response")
"""Columns of a stored completion."""
ABOUT = {
    "at": "cast(at AS bigint) / 1000000.0 AS at",
    **{
        name: name
        for name in ("unit", "key", "tenant", "consent", "redacted", "cut", "error", "finish_reason")
    },
    "imported": f"starts_with(engine, '{IMPORTED}') AS imported",
}
"""What an export may say about each exchange, and how it is asked for. `at` is in seconds since 1970."""
READING = "reading"
"""A folder in the journal's, for what is needed while something is read. It stays: whoever looks for segments
in all folders there (`*/*`) would fail over one that goes meanwhile."""
STATS = f"""
SELECT route, version, starts_with(engine, '{IMPORTED}') AS imported,
       count(*) AS requests,
       count(*) FILTER (WHERE error <> '') AS errors,
       coalesce(sum(prompt), 0) AS prompt,
       coalesce(sum(completion), 0) AS completion,
       coalesce(sum(cached), 0) AS cached,
       approx_percentile_cont(ttft_ms, 0.5) AS ttft_p50_ms,
       approx_percentile_cont(ttft_ms, 0.95) AS ttft_p95_ms,
       approx_percentile_cont(nullif(duration_ms, 0.0), 0.5) AS duration_p50_ms,
       approx_percentile_cont(nullif(duration_ms, 0.0), 0.95) AS duration_p95_ms
"""
"""Of a route and version: counts, tokens, and quantiles by t-digest (accurate to about a percent). What was
imported is counted apart, and took no time of ours."""


class Reader:
    """`forgotten` is honoured at once, before anything of it has been erased. Where rows are `examined` on
    their way to the lake, those of strict routes have no words before."""

    def __init__(
        self, lake: Lake, journal: Path, forgotten: tuple[Forgotten, ...] = (), *, examined: bool = False
    ) -> None:
        self._lake = lake
        self._journal = journal
        self._forgotten = forgotten
        self._row: Callable[[Row], Row] = without_words if examined else lambda row: row

    def page(self, wanted: Wanted, columns: tuple[str, ...] = BRIEF) -> dict[str, Any]:
        """Rows of `columns`, and the cursor of the next page, None after the last."""
        rows = list(self.rows(wanted, columns))
        more = wanted.limit is not None and len(rows) == wanted.limit
        return {"data": rows, "next": cursor_of(rows[-1]["at_us"], rows[-1]["id"]) if more else None}

    def rows(self, wanted: Wanted, columns: tuple[str, ...] = BRIEF) -> Iterator[dict[str, Any]]:
        """Rows as dictionaries, in order; times as `at` (RFC 3339) and `at_us` (microseconds since 1970)."""
        names = [name for name in columns if name != "at"]
        chosen = ", ".join(f'"{name}"' for name in names)
        # Not "AS at": ORDER BY would mean the text then, which has no microseconds and no statistics.
        sql = f"SELECT to_char(at, '%Y-%m-%dT%H:%M:%S%.3fZ') AS said, cast(at AS bigint) AS at_us, {chosen}"
        found = self._query(f"{sql} FROM exchanges WHERE {self._where(wanted)} {ordered(wanted)}")
        yield from ({"at": row.pop("said"), **row} for row in _dicts(found))

    def stored(self, wanted: Wanted) -> dict[str, Any]:
        """A page of what `wanted.stored` may mean, by their ids: rows of `STORED`, and the id that the next
        page is after, None after the last. Ids are looked for first: nobody must read a long history's words.
        """
        way = "ASC" if wanted.oldest_first else "DESC"
        sql = f"SELECT id, cast(at AS bigint) AS at_us FROM exchanges WHERE {self._where(wanted)}"  # noqa: S608
        found = list(_dicts(self._query(f"{sql} ORDER BY id {way} LIMIT {wanted.limit}")))
        ids = [row["id"] for row in found]
        last = ids[-1] if len(ids) == wanted.limit else None
        page: list[dict[str, Any]] = []
        size = 0
        for row in self._whole(found):
            if size > PAGE_BYTES:
                last = page[-1]["id"]
                break
            page.append(row)
            size += sum(len(row[name] or "") for name in ("tools", "parameters", "response"))
        return {"data": page, "next": last}

    def _whole(self, found: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The same rows with all of `STORED`, less those that were forgotten meanwhile."""
        if found:
            times = [row["at_us"] / 1e6 for row in found]
            ids = tuple(row["id"] for row in found)
            rows = self.rows(Wanted(ids=ids, since=min(times), until=max(times) + 1, limit=None), STORED)
            by_id = {row["id"]: row for row in rows}
            yield from (by_id[id] for id in ids if id in by_id)

    def stats(self, wanted: Wanted) -> list[dict[str, Any]]:
        """One row for each route and version, served or imported, the most used first."""
        sql = f"{STATS} FROM exchanges WHERE {self._where(wanted)} GROUP BY route, version, imported"
        return list(_dicts(self._query(f"{sql} ORDER BY requests DESC, route, version, imported")))

    def export(self, wanted: Wanted, *, about: bool = False) -> Iterator[bytes]:
        """Whole exchanges as JSON Lines in OpenAI's chat format: `messages` ends with the answer. With
        `about`, `metadata` tells all that a trainer must know of each (`ABOUT`)."""
        names = "id, route, version, messages, tools, response"
        more = f", {', '.join(ABOUT.values())}" if about else ""
        condition = f"{self._where(wanted)} AND messages IS NOT NULL AND response IS NOT NULL"
        limit = "" if wanted.limit is None else f" LIMIT {wanted.limit}"
        sql = f"SELECT {names}{more} FROM exchanges WHERE {condition}{limit}"  # noqa: S608
        for batch in self._query(sql, BATCH_ROWS):
            columns = [batch.column(name).to_pylist() for name in names.split(", ")]
            told = [batch.column(name).to_pylist() for name in ABOUT] if about else []
            abouts = [dict(zip(ABOUT, row, strict=True)) for row in zip(*told, strict=True)]
            rows = zip(*columns, abouts or repeat({}, batch.num_rows), strict=True)
            yield b"".join(_line(*row) for row in rows)

    def _where(self, wanted: Wanted) -> str:
        return where(wanted, self._forgotten)

    def _query(self, sql: str, batch_rows: int = 8192) -> Iterator[RecordBatch]:
        table, beside = self._now()
        names = ", ".join(f'"{name}"' for name in COLUMNS)
        reading = self._journal / READING
        reading.mkdir(exist_ok=True)
        with TemporaryDirectory(dir=reading) as folder:
            query = QueryBuilder().register("lake", table)
            query.execute(f"SET datafusion.execution.batch_size = {batch_rows}")
            source = f"SELECT {names} FROM lake"  # noqa: S608
            if beside:  # deltalake's engine reads tables and nothing else
                query = query.register("journal", table_of(beside, folder))
                source += f" UNION ALL SELECT {names} FROM journal"  # noqa: S608
            yield from batches(query.execute(f"WITH exchanges AS ({source}) {sql}"))

    def _now(self) -> tuple[DeltaTable, list[RecordBatch]]:
        """The table, and the rows of segments that it does not have, at one moment."""
        while True:
            paths = [path for kind in (CLOSED, OPEN) for path in self._journal.glob(f"*/*{kind}")]
            table = self._lake.table()
            writers = {path.parent.name for path in paths}
            newest = {writer: table.transaction_version(writer) or 0 for writer in writers}
            unshipped = [path for path in paths if number_of(path) > newest[path.parent.name]]
            try:
                return table, list(
                    batches_of(self._row(row) for path in sorted(unshipped) for row in _rows(path))
                )
            except FileNotFoundError:
                continue  # shipped meanwhile, into a newer table than this one


def _rows(path: Path) -> Iterator[Row]:
    """Raises `FileNotFoundError` when it is gone, not only closed."""
    if path.suffix == OPEN and not path.exists():
        path = path.with_suffix(CLOSED)
    with suppress(NotASegment):
        yield from rows_in(path, Damage())  # the shipper tells of what is damaged


def _dicts(batches: Iterator[RecordBatch]) -> Iterator[dict[str, Any]]:
    for batch in batches:
        names = batch.column_names
        columns = [batch.column(name).to_pylist() for name in names]
        for values in zip(*columns, strict=True):
            yield dict(zip(names, values, strict=True))


_string = msgspec.json.Encoder().encode


def _line(
    id: str,
    route: str,
    version: str,
    messages: str,
    tools: str | None,
    response: str,
    about: Mapping[str, Any],
) -> bytes:
    """What is JSON already is joined, not read: `messages` is a list, or a prompt of another endpoint."""
    first = messages.strip()
    said = response.strip()[1:-1]  # without the brackets of the list of choices
    answer = _first(said)
    if not first.startswith("["):
        first = f'[{{"role":"user","content":{first}}}]'
    gap = "" if first[1:-1].strip() == "" else ","
    line = f'{{"messages":{first[:-1]}{gap}{answer}]'
    if tools is not None:
        line += f',"tools":{tools}'
    known = {"id": id, "route": route, "version": version, **about}
    return f'{line},"metadata":{_string(known).decode()}}}\n'.encode()


def _first(choices: str) -> str:
    """The first of several JSON objects with commas between."""
    objects = msgspec.json.decode(f"[{choices}]", type=list[msgspec.Raw])
    return bytes(objects[0]).decode()
