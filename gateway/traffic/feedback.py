"""Feedback: what somebody thought of an answer, by its id. Later feedback amends earlier, field by field.

In Postgres, a row for each time that somebody said something. The same said again is the same row: by the
idempotency key that came with it, or else by its content.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

import msgspec
from sqlalchemy import (
    Column,
    DateTime,
    Index,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    func,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.errors import BadRequest, NotFound, TooLarge, Unavailable
from gateway.traffic.redact import redact_json

MAX_BODY_BYTES = 64 * 1024
MAX_COMMENT, MAX_CORRECTION = 10_000, 50_000
MAX_TAGS, MAX_TAG, MAX_SCORES = 20, 64, 20
PREFIXES = ("chatcmpl-", "cmpl-", "resp_", "embd-")
"""What stands before a request id in an answer's id."""

metadata = MetaData()

table = Table(
    "traffic_feedback",
    metadata,
    Column("id", Text, primary_key=True),
    Column("exchange", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("at", DateTime(timezone=True), server_default=func.clock_timestamp(), nullable=False),
    Column("once", Text, nullable=False),
    Column("said", JSONB, nullable=False),
    Column("route", Text),  # of the exchange; null in rows of before these columns
    Column("version", Text),
    UniqueConstraint("tenant", "exchange", "once", name="traffic_feedback_once"),
    Index("traffic_feedback_exchange", "exchange"),
    Index("traffic_feedback_route", "route", "at"),
)


class Said(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The body of a POST. `id` is the answer's. Scores are by metric, from 0 to 1; `correction` is the answer
    that would have been right. What is said twice with one `idempotency_key` is said once."""

    id: str
    thumb: Literal["up", "down"] | None = None
    scores: dict[str, float] = {}
    correction: str | None = None
    comment: str | None = None
    tags: list[str] = []
    idempotency_key: str | None = None


class Key(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def tenant(self) -> str: ...


Find = Callable[[str], Awaitable[Mapping[str, Any] | None]]
"""What is remembered of an exchange: its tenant, route and version, and whether it is redacted."""


@dataclass(frozen=True, slots=True)
class Opinions:
    """Exchanges with a correction, with a thumb either way, and with a thumb up: the last one of each."""

    corrected: int = 0
    judged: int = 0
    liked: int = 0


_OPINIONS = text(
    """
    SELECT count(*) FILTER (WHERE corrected), count(thumb), count(*) FILTER (WHERE thumb = 'up')
    FROM (
        SELECT bool_or(jsonb_exists(said, 'correction')) AS corrected,
            (array_agg(said ->> 'thumb' ORDER BY at DESC) FILTER (WHERE jsonb_exists(said, 'thumb')))[1]
                AS thumb
        FROM traffic_feedback
        WHERE route = :route AND tenant = :tenant AND at > :since AND at <= :until
        GROUP BY exchange
    ) AS each_exchange
    """
)


class Feedback:
    def __init__(self, engine: AsyncEngine, find: Find) -> None:
        self._engine = engine
        self._find = find

    async def give(self, key: Key, body: bytes | bytearray) -> dict[str, Any]:
        """Takes what somebody says of an exchange of the same tenant, and tells what holds of it now.

        Raises `BadRequest`, `TooLarge`, `NotFound` for an exchange that is unknown, another tenant's or
        forgotten, and `Unavailable` while the database is away.
        """
        said = _parse(body)
        id = bare(said.id)
        found = await self._find(id)
        if found is None or found["tenant"] != key.tenant:
            raise NotFound(
                f"No answer {said.id[:64]!r} is remembered. Feedback takes the `id` of an answer that was "
                "given to a key of the same tenant, a moment after its end, if it was to be stored at all.",
                code="exchange_not_found",
                param="id",
            )
        content = msgspec.to_builtins(said)
        del content["id"]
        content.pop("idempotency_key", None)
        if found["redacted"]:
            content = redact_json(content)[0]
        once = said.idempotency_key or _digest(content)
        row = {"id": f"fb_{secrets.token_hex(12)}", "exchange": id, "tenant": key.tenant, "key": key.id}
        about = {"route": found["route"], "version": found["version"]}
        said_now = insert(table).values(**row, **about, once=once, said=content)
        made = said_now.on_conflict_do_nothing().returning(table.c.id)
        try:
            async with self._engine.begin() as connection:
                new = (await connection.execute(made)).scalar_one_or_none()
        except DBAPIError as error:
            raise Unavailable(
                "Feedback cannot be taken while the database is away; send it again.",
                code="database_unavailable",
                retry_after_s=5.0,
            ) from error
        now = await self.of([id])
        return {"object": "feedback", "id": said.id, "repeated": new is None, "feedback": now[id]}

    async def of(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Exchange -> what holds of it now; those that nobody said anything of are not there."""
        if not ids:
            return {}
        wanted = select(table.c.exchange, table.c.said).where(table.c.exchange.in_(ids)).order_by(table.c.at)
        async with self._engine.connect() as connection:
            rows = (await connection.execute(wanted)).all()
        return amended((row.exchange, row.said) for row in rows)

    async def opinions(self, route: str, tenant: str, since: datetime, until: datetime) -> Opinions:
        """Of the exchanges of a route of which something was said in that time."""
        asked = {"route": route, "tenant": tenant, "since": since, "until": until}
        async with self._engine.connect() as connection:
            return Opinions(*(await connection.execute(_OPINIONS, asked)).one())

    async def exchanges(self, kind: str, limit: int = 10_000) -> list[str]:
        """The newest exchanges with feedback of a kind: any, up, down, corrected. Raises `BadRequest`."""
        conditions = {
            "any": func.true(),
            "up": table.c.said["thumb"].astext == "up",
            "down": table.c.said["thumb"].astext == "down",
            "corrected": table.c.said.has_key("correction"),
        }
        if kind not in conditions:
            raise BadRequest(f"feedback is one of {', '.join(conditions)}", param="feedback")
        newest = func.max(table.c.at).desc()
        wanted = select(table.c.exchange).group_by(table.c.exchange).order_by(newest).limit(limit)
        if kind != "any":
            wanted = wanted.where(conditions[kind])
        async with self._engine.connect() as connection:
            return list((await connection.execute(wanted)).scalars())


def amended(rows: Iterable[tuple[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Rows in the order of their time, joined by exchange: a later field takes an earlier one's place, scores
    by metric; tags add up."""
    joined: dict[str, dict[str, Any]] = {}
    for exchange, said in rows:
        into = joined.setdefault(exchange, {})
        scores = {**into.get("scores", {}), **said.get("scores", {})}
        tags = list(dict.fromkeys([*into.get("tags", []), *said.get("tags", [])]))
        into.update(said)
        into.update({name: value for name, value in (("scores", scores), ("tags", tags)) if value})
    return joined


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()


def bare(id: str) -> str:
    """The request id in an answer's id."""
    for prefix in PREFIXES:
        id = id.removeprefix(prefix)
    return id


def _parse(body: bytes | bytearray) -> Said:
    if len(body) > MAX_BODY_BYTES:
        raise TooLarge(f"Feedback has at most {MAX_BODY_BYTES:,} bytes; this has {len(body):,}. Say less.")
    try:
        said = msgspec.json.decode(body, type=Said)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(
            f"The body is not {{id, thumb?, scores?, correction?, comment?, tags?}}: {error}.",
            code="invalid_feedback",
        ) from error
    problem = _problem(said)
    if problem is not None:
        param, text = problem
        raise BadRequest(f"`{param}` {text}.", code="invalid_feedback", param=param)
    return said


def _problem(said: Said) -> tuple[str, str] | None:
    """The first field that cannot be taken, and why."""
    if not said.id or len(said.id) > 200:
        return "id", "is the id of an answer"
    if len(said.idempotency_key or "") > 200:
        return "idempotency_key", "has at most 200 characters"
    if len(said.comment or "") > MAX_COMMENT:
        return "comment", f"has at most {MAX_COMMENT:,} characters"
    if len(said.correction or "") > MAX_CORRECTION:
        return "correction", f"has at most {MAX_CORRECTION:,} characters"
    if len(said.tags) > MAX_TAGS or any(not 0 < len(tag) <= MAX_TAG for tag in said.tags):
        return "tags", f"are at most {MAX_TAGS}, of 1 to {MAX_TAG} characters each"
    if len(said.scores) > MAX_SCORES or any(not 0 < len(name) <= MAX_TAG for name in said.scores):
        return "scores", f"are at most {MAX_SCORES}, by names of 1 to {MAX_TAG} characters"
    if not all(math.isfinite(score) and 0 <= score <= 1 for score in said.scores.values()):
        return "scores", "are from 0 to 1"
    texts = (said.comment or "", said.correction or "", said.idempotency_key or "", *said.tags, *said.scores)
    if any("\0" in text for text in texts):
        return "comment", "and all other texts are without NUL characters"
    if not (said.thumb or said.scores or said.tags or said.comment or said.correction is not None):
        return "thumb", "or one of scores, correction, comment and tags must be there"
    return None
