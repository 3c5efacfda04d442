"""What a reader asks for, as SQL over the lake and what the journal has beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from gateway.errors import BadRequest
from gateway.requestid import when
from gateway.traffic.answer import CHAT

MAX_LIMIT = 1000
PAGE_BYTES = 8 * 1024 * 1024
"""After which a page of stored completions is full, whatever its limit."""
NEAR_S = 60.0
"""Between the time in a request's id and its `at`, which a clock that is set may part."""
DAY_S = 86_400.0
EPOCH = datetime.fromtimestamp(0, UTC)
LATEST = 253_402_300_799.0
"""The last second of the year 9999, after which nothing knows a date."""


class Stored(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of chat completions those that were asked with `"store": true`, went well and are remembered whole.

    `model` is a route or a version. `metadata` is what an exchange was asked with, at least, unless it is one
    of `amended`. They come by their ids: those after `after`, and none beyond `upto`. The condition looks for
    text in JSON, and may mean more than these; whoever reads them looks again.
    """

    model: str | None = None
    metadata: dict[str, str] = {}
    amended: tuple[str, ...] = ()
    after: str | None = None
    upto: str | None = None


class Wanted(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which exchanges: every one of the fields that is given must fit. Times are seconds since 1970, `since`
    included and `until` not. `error` is a code, "any" or "none". `text` is somewhere in what was asked or
    answered, whatever its case. `after` is the cursor of an earlier page.
    """

    route: str | None = None
    version: str | None = None
    tenant: str | None = None
    key: str | None = None
    unit: str | None = None
    id: str | None = None
    ids: tuple[str, ...] | None = None
    since: float | None = None
    until: float | None = None
    error: str | None = None
    text: str | None = None
    full: bool = False
    after: str | None = None
    limit: int | None = 50
    oldest_first: bool = False
    stored: Stored | None = None

    def check(self) -> None:
        """Raises `BadRequest`, which names the field."""
        if self.limit is not None and not 1 <= self.limit <= MAX_LIMIT:
            raise BadRequest(f"limit is from 1 to {MAX_LIMIT}", param="limit")
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise BadRequest("since must be before until", param="since")
        for name in ("since", "until"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= LATEST:
                raise BadRequest(f"{name} is in seconds since 1970", param=name)
        if self.after is not None:
            _cursor(self.after)


FORGETTABLE = {"unit": "unit", "key": "key", "request": "id"}
"""What can be forgotten, and the column that names it."""


class Forgotten(msgspec.Struct, frozen=True):
    """What nobody may read any more: exchanges of a unit, of a key, or one by its id, up to `until` (seconds
    since 1970), whether or not they have been erased yet. `also` is the unit as strict routes keep it."""

    kind: str
    value: str
    tenant: str
    until: float
    also: str = ""


def one(id: str) -> Wanted:
    """One exchange, looked for where its id says that it is. Raises `ValueError` for no request id."""
    return Wanted(id=id, since=near(id)[0], until=near(id)[1], limit=1)


def near(id: str) -> tuple[float, float]:
    """When its exchange was: at the earliest and at the latest, seconds since 1970. Raises `ValueError`."""
    at = when(id).timestamp()
    return max(0.0, at - NEAR_S), min(at + NEAR_S, LATEST)


def where(wanted: Wanted, forgotten: Sequence[Forgotten] = ()) -> str:
    """The condition on a row."""
    kept = (f"NOT ({condition_of(*each)})" for each in together(forgotten))
    return " AND ".join((*_conditions(wanted), *kept)) or "true"


def together(forgotten: Iterable[Forgotten]) -> list[tuple[Forgotten, ...]]:
    """Wishes by the condition that says them: requests of one tenant in one, the others in one each. With
    thousands of conditions a query takes seconds, or the whole stack of its process."""
    groups: dict[object, list[Forgotten]] = {}
    for each in forgotten:
        groups.setdefault(each.tenant if each.kind == "request" else each, []).append(each)
    return [tuple(group) for group in groups.values()]


def ordered(wanted: Wanted) -> str:
    """Newest first unless the oldest are wanted first, and how many."""
    way = "ASC" if wanted.oldest_first else "DESC"
    limit = "" if wanted.limit is None else f" LIMIT {wanted.limit}"
    return f"ORDER BY at {way}, id {way}{limit}"


def cursor_of(at_us: int, id: str) -> str:
    """Where a page ended."""
    return f"{at_us}-{id}"


def condition_of(*forgotten: Forgotten) -> str:
    """Which rows one of them means; several are `together`. A request's id is its own, so the newest of their
    times holds for all."""
    first, until = forgotten[0], max(each.until for each in forgotten)
    values = [value for each in forgotten for value in (each.value, each.also) if value]
    named = f"{FORGETTABLE[first.kind]} IN ({', '.join(map(quoted, values))})"
    return f"tenant = {quoted(first.tenant)} AND {named} AND at <= {_time(until)}"


def quoted(text: str) -> str:
    """A string in SQL."""
    return "'" + text.replace("\0", "").replace("'", "''") + "'"


def _conditions(wanted: Wanted) -> Iterator[str]:
    for name in ("route", "version", "tenant", "key", "unit", "id"):
        value = getattr(wanted, name)
        if value is not None:
            yield f"{name} = {quoted(value)}"
    if wanted.ids is not None:
        yield f"id IN ({', '.join(map(quoted, wanted.ids))})" if wanted.ids else "false"
    # Whole days are whole partitions: no times need to be read.
    if wanted.since is not None:
        yield f"day >= '{_day(wanted.since)}'"
        if wanted.since % DAY_S:
            yield f"at >= {_time(wanted.since)}"
    if wanted.until is not None:
        yield f"day {'<=' if wanted.until % DAY_S else '<'} '{_day(wanted.until)}'"
        if wanted.until % DAY_S:
            yield f"at < {_time(wanted.until)}"
    if wanted.error is not None:
        yield {"any": "error <> ''", "none": "error = ''"}.get(
            wanted.error, f"error = {quoted(wanted.error)}"
        )
    if wanted.text is not None:
        found = quoted(wanted.text.lower())
        columns = ("messages", "response", "metadata")
        yield "(" + " OR ".join(f"strpos(lower(coalesce({each}, '')), {found}) > 0" for each in columns) + ")"
    if wanted.full:
        yield '"full"'
    if wanted.after is not None:
        at_us, id = _cursor(wanted.after)
        sign, bound = (">", ">=") if wanted.oldest_first else ("<", "<=")
        day, at = _day(at_us / 1e6), _time(at_us / 1e6)
        yield f"day {bound} '{day}' AND (at {sign} {at} OR (at = {at} AND id {sign} {quoted(id)}))"
    if wanted.stored is not None:
        yield from _stored(wanted.stored, oldest_first=wanted.oldest_first)


def _stored(stored: Stored, *, oldest_first: bool) -> Iterator[str]:
    yield f"path = '{CHAT}' AND status = 200 AND error = '' AND NOT cut"
    yield _holds("parameters", _member("store", True))
    if stored.model is not None:
        yield f"(route = {quoted(stored.model)} OR version = {quoted(stored.model)})"
    if stored.metadata:
        asked = " AND ".join(_holds("metadata", _member(*each)) for each in stored.metadata.items())
        amended = f" OR id IN ({', '.join(map(quoted, stored.amended))})" if stored.amended else ""
        yield f"(({asked}){amended})"
    if stored.after is not None:
        yield from _beyond(stored.after, ">" if oldest_first else "<")
    if stored.upto is not None:
        yield from _beyond(stored.upto, "<=" if oldest_first else ">=")


def _beyond(id: str, sign: str) -> Iterator[str]:
    """On that side of a request id, which says when it was: so files of other days are not opened."""
    earliest, latest = near(id)
    yield f"id {sign} {quoted(id)}"
    if sign.startswith(">"):
        yield f"day >= '{_day(earliest)}' AND at >= {_time(earliest)}"
    else:
        yield f"day <= '{_day(latest)}' AND at <= {_time(latest)}"


def _member(name: str, value: Any) -> str:
    """As it stands in the JSON of an object in a row (`gateway.traffic.row`)."""
    return msgspec.json.encode({name: value})[1:-1].decode()


def _holds(column: str, text: str) -> str:
    return f"strpos(coalesce({column}, ''), {quoted(text)}) > 0"


def _cursor(text: str) -> tuple[int, str]:
    at, dash, id = text.partition("-")
    if not dash or not at.isdigit() or len(at) > 18:
        raise BadRequest("after is no cursor of an earlier page", param="after")
    return int(at), id


def _day(seconds: float) -> str:
    return (EPOCH + timedelta(seconds=seconds)).date().isoformat()


def _time(seconds: float) -> str:
    return f"arrow_cast({round(seconds * 1e6)}, 'Timestamp(Microsecond, Some(\"UTC\"))')"
