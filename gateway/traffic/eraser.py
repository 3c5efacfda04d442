"""Erasing what is forgotten: from the journal, the lake, and what the roll-ups know of a key.

In the shipper's process, which alone rewrites the table. A wish counts as fulfilled when

    1. every segment that may hold a row of it is shipped: rows of it are left out on the way;
    2. the lake's files that held one are written anew without it;
    3. the old files are deleted, a while later, so that who reads them now may finish. The table's log has no
       values of texts.

Killed between, it begins again: each step done twice does what it does once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, delete, func, select, update

from gateway.traffic.feedback import table as feedback
from gateway.traffic.forgetting import ERASED, OPEN_S, forgotten_of, table
from gateway.traffic.journal import unshipped_before
from gateway.traffic.lake import Lake
from gateway.traffic.query import FORGETTABLE, Forgotten, condition_of, quoted
from gateway.traffic.rollup import make_nameless
from gateway.traffic.row import Row

log = logging.getLogger("hotswap.traffic")

READERS_S = 10.0
"""From a rewrite until the files before it go. A query of a table as it was has ended by then; a long export
may not have, and is to be asked for again."""


class Eraser:
    """Blocking. The shipper asks `keeps` of every row; `erase` fulfils what can be fulfilled now. `clock`
    gives seconds since 1970."""

    def __init__(
        self,
        journal: Path,
        lake: Lake,
        engine: Engine,
        *,
        readers_s: float = READERS_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._journal = journal
        self._lake = lake
        self._engine = engine
        self._readers_s = readers_s
        self._clock = clock
        self._rewritten = clock()  # a process before this one may have, just before it was killed
        self._held: tuple[Forgotten, ...] = ()
        self._left_out: list[str] = []

    def look(self) -> None:
        """Reads the wishes that hold. Raises SQLAlchemy's errors."""
        self._held = tuple(forgotten_of(row) for row in self._rows())

    def keeps(self, row: Row) -> bool:
        """Whether the row may go to the lake."""
        kept = not any(_means(each, row) for each in self._held)
        if not kept:
            self._left_out.append(row["id"])
        return kept

    def erase(self) -> int:
        """Fulfils wishes; how many rows went. Raises what the store and the database raise."""
        erased = 0
        self._forget_feedback(self._left_out)
        self._left_out = []
        for row in self._rows():
            wish = forgotten_of(row)
            closing = self._clock() > wish.until + OPEN_S
            if (row.erased_at is not None and not closing) or unshipped_before(self._journal, wish.until):
                continue
            rows = self._from_lake(wish)
            erased += rows
            if rows:
                self._rewritten = self._clock()
                self._count(row.id, rows)
            if self._clock() >= self._rewritten + self._readers_s:
                self._lake.vacuum(0)
                self._note(row.id, wish, closing=closing)
        return erased

    def _rows(self) -> Sequence[Any]:
        with self._engine.connect() as connection:
            return connection.execute(select(table).where(table.c.closed_at.is_(None))).all()

    def _from_lake(self, forgotten: Forgotten) -> int:
        condition = condition_of(forgotten)
        found = self._lake.query(
            f"SELECT day, route, keep_days, count(*) AS n FROM lake WHERE {condition} "  # noqa: S608 (quoted)
            "GROUP BY day, route, keep_days ORDER BY day"
        ).read_all()
        columns = (found.column(name).to_pylist() for name in ("day", "route", "keep_days", "n"))
        rows = 0
        # One partition after the other: what is rewritten at a time must fit into memory.
        for day, route, keep_days, count in zip(*columns, strict=True):
            where = f"day = {quoted(day)} AND route = {quoted(route)} AND keep_days = {int(keep_days)}"
            ids = self._lake.query(f"SELECT id FROM lake WHERE {where} AND {condition}").read_all()  # noqa: S608
            self._forget_feedback(list(ids.column("id").to_pylist()))
            self._lake.leave_out(where, condition)
            rows += count
        return rows

    def _forget_feedback(self, exchanges: Sequence[str]) -> None:
        """Before the rows go: without them nobody knows which feedback was theirs."""
        if exchanges:
            with self._engine.begin() as connection:
                connection.execute(delete(feedback).where(feedback.c.exchange.in_(exchanges)))

    def _count(self, id: str, rows: int) -> None:
        so_far = func.coalesce(table.c.rows_erased, 0) + rows
        with self._engine.begin() as connection:
            connection.execute(update(table).where(table.c.id == id).values(rows_erased=so_far))

    def _note(self, id: str, wish: Forgotten, *, closing: bool) -> None:
        """That it is fulfilled; at last the value goes, which nothing needs any more."""
        with self._engine.begin() as connection:
            if wish.kind == "key":
                make_nameless(connection, wish.tenant, wish.value)
            change = update(table).where(table.c.id == id)
            change = change.values(
                erased_at=func.coalesce(table.c.erased_at, func.now()),
                rows_erased=func.coalesce(table.c.rows_erased, 0),
            )
            if closing:
                change = change.values(closed_at=func.now(), value=ERASED, also="")
            connection.execute(change)
        log.info("%s is fulfilled", id)


def _means(forgotten: Forgotten, row: Row) -> bool:
    value = row[FORGETTABLE[forgotten.kind]]  # type: ignore[literal-required]
    named = value == forgotten.value or bool(forgotten.also and value == forgotten.also)
    return named and row["tenant"] == forgotten.tenant and row["at"] <= forgotten.until * 1e6
