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
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, delete, func, select, update

from gateway.datasets.held import note
from gateway.traffic.amendments import table as amendments
from gateway.traffic.feedback import table as feedback
from gateway.traffic.forgetting import ERASED, OPEN_S, forgotten_of, table
from gateway.traffic.lake import Lake
from gateway.traffic.query import FORGETTABLE, Forgotten, condition_of, quoted, together
from gateway.traffic.rollup import make_nameless
from gateway.traffic.row import Row
from gateway.traffic.writers import unshipped_before

log = logging.getLogger("hotswap.traffic")

READERS_S = 10.0
"""From a rewrite until the files before it go. A query of a table as it was has ended by then; a long export
may not have, and is to be asked for again."""
AT_ONCE = 10_000
"""Ids in one statement: Postgres takes 65,535 parameters."""


@dataclass(frozen=True, slots=True)
class Due:
    """A wish that can be fulfilled now, by its id; `closing`, for the last time."""

    id: str
    wish: Forgotten
    closing: bool


class Eraser:
    """Blocking. The shipper asks `keeps` of every row; `erase` fulfils what can be fulfilled now. `clock`
    gives seconds since 1970.

    What is due is fulfilled together, and what comes meanwhile waits until the old files of that are gone:
    apps may ask for one request after the other, and each rewrite leaves files behind that are as long as
    what it wrote.
    """

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
        self._waiting: list[Due] = []  # for the old files to go
        self._held: list[Forgotten] = []
        self._requests: dict[tuple[str, str], float] = {}
        self._left_out: list[str] = []

    def look(self) -> None:
        """Reads the wishes that hold. Raises SQLAlchemy's errors."""
        held = [forgotten_of(row) for row in self._rows()]
        self._held = [each for each in held if each.kind != "request"]
        self._requests = {(each.tenant, each.value): each.until for each in held if each.kind == "request"}

    def keeps(self, row: Row) -> bool:
        """Whether the row may go to the lake."""
        until = self._requests.get((row["tenant"], row["id"]), 0.0)
        kept = row["at"] > until * 1e6 and not any(_means(each, row) for each in self._held)
        if not kept:
            self._left_out.append(row["id"])
        return kept

    def erase(self) -> int:
        """Fulfils wishes; how many rows went. Raises what the store and the database raise."""
        self._forget_said(self._left_out)
        self._left_out = []
        if self._waiting:
            if not self._settled():
                return 0
            self._finish()
        due = self._due()
        of: dict[Forgotten, list[Due]] = {}
        for each in due:
            of.setdefault(each.wish, []).append(each)
        erased = sum(self._from_lake(wishes, of) for wishes in together(of))
        self._waiting = due
        if due and self._settled():
            self._finish()
        return erased

    def _settled(self) -> bool:
        """Whether nobody reads the files before the last rewrite any more."""
        return self._clock() >= self._rewritten + self._readers_s

    def _finish(self) -> None:
        """The old files go, and with that the wishes that waited are fulfilled."""
        self._lake.vacuum(0)
        for each in self._waiting:
            self._note(each.id, each.wish, closing=each.closing)
        self._waiting = []

    def _rows(self) -> Sequence[Any]:
        with self._engine.connect() as connection:
            return connection.execute(select(table).where(table.c.closed_at.is_(None))).all()

    def _due(self) -> list[Due]:
        found = []
        for row in self._rows():
            wish = forgotten_of(row)
            closing = self._clock() > wish.until + OPEN_S
            if (row.erased_at is None or closing) and not unshipped_before(self._journal, wish.until):
                found.append(Due(row.id, wish, closing))
        return found

    def _from_lake(self, wishes: tuple[Forgotten, ...], of: Mapping[Forgotten, Sequence[Due]]) -> int:
        """Writes anew what holds a row of them; `of` has the ids of wishes."""
        condition = condition_of(*wishes)
        found = self._lake.select(
            f"SELECT DISTINCT day, route, keep_days FROM lake WHERE {condition} ORDER BY day"  # noqa: S608 (quoted)
        )
        erased = 0
        # One partition after the other: what is rewritten at a time must fit into memory.
        for day, route, keep_days in found:
            where = f"day = {quoted(day)} AND route = {quoted(route)} AND keep_days = {int(keep_days)}"
            meant = self._lake.select(f"SELECT id FROM lake WHERE {where} AND {condition}")  # noqa: S608
            ids = [id for (id,) in meant]
            self._forget_said(ids)
            self._lake.leave_out(where, condition)
            self._rewritten = self._clock()
            self._count(wishes, of, ids)
            erased += len(ids)
        return erased

    def _forget_said(self, exchanges: Sequence[str]) -> None:
        """Before the rows go: without them nobody knows what was said of which."""
        for start in range(0, len(exchanges), AT_ONCE):
            some = exchanges[start : start + AT_ONCE]
            with self._engine.begin() as connection:
                for said in (feedback, amendments):
                    connection.execute(delete(said).where(said.c.exchange.in_(some)))

    def _count(
        self, wishes: tuple[Forgotten, ...], of: Mapping[Forgotten, Sequence[Due]], ids: Sequence[str]
    ) -> None:
        """How many rows went by each."""
        gone = Counter(ids)
        with self._engine.begin() as connection:
            for wish in wishes:
                rows = gone[wish.value] if wish.kind == "request" else len(ids)
                so_far = func.coalesce(table.c.rows_erased, 0) + rows
                if rows:
                    named = table.c.id.in_([each.id for each in of[wish]])
                    connection.execute(update(table).where(named).values(rows_erased=so_far))

    def _note(self, id: str, wish: Forgotten, *, closing: bool) -> None:
        """That it is fulfilled; at last the value goes, which nothing needs any more."""
        with self._engine.begin() as connection:
            note(connection)
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
