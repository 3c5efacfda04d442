"""What is remembered of which exchange: settings for all, rows in Postgres for single routes and keys.

A route and a key may both say something: the stricter holds. So a route that must be redacted is, whoever
asks, and a key that wants nothing remembered is not, whatever it asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    Float,
    Integer,
    MetaData,
    Row,
    Table,
    Text,
    delete,
    func,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gateway.errors import BadRequest

CHANNEL = "hotswap_traffic"
"""NOTIFY on it makes every gateway refresh; sent in the transaction of each change."""

Capture = Literal["off", "metadata", "full"]
Redact = Literal["off", "strict"]
Kind = Literal["route", "key"]

CAPTURES: tuple[Capture, ...] = get_args(Capture)
"""Strictest first."""
MAX_CONSENT = 200
KNOWN = 10_000
"""Pairs of route and key whose policy is kept at hand."""

metadata = MetaData()

table = Table(
    "traffic_policies",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("capture", Text),
    Column("sample", Float),
    Column("redact", Text),
    Column("retention_days", Integer),
    Column("consent", Text),
    Column("changed_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
    CheckConstraint("kind IN ('route', 'key')", name="traffic_policies_kind_check"),
)


@dataclass(frozen=True, slots=True)
class Policy:
    """What holds for one exchange. `sample` is the share of exchanges that are remembered at all; `consent`
    is the basis on which they may be, in the operator's own words; rows go after `retention_days`."""

    capture: Capture = "full"
    sample: float = 1.0
    redact: Redact = "off"
    retention_days: int = 90
    consent: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """What one row says; None: nothing about it."""

    kind: Kind
    name: str
    capture: Capture | None = None
    sample: float | None = None
    redact: Redact | None = None
    retention_days: int | None = None
    consent: str | None = None

    def check(self) -> None:
        """Raises `BadRequest`, which names the field."""
        if self.kind not in get_args(Kind) or not self.name or len(self.name) > 200:
            raise BadRequest("a policy is for a route or for a key, by its name", param="kind")
        if self.capture not in (None, *CAPTURES):
            raise BadRequest(f"capture is one of {', '.join(CAPTURES)}", param="capture")
        if self.redact not in (None, *get_args(Redact)):
            raise BadRequest(f"redact is one of {', '.join(get_args(Redact))}", param="redact")
        if self.sample is not None and not 0 <= self.sample <= 1:
            raise BadRequest("sample is a share of exchanges, from 0 to 1", param="sample")
        if self.retention_days is not None and not 1 <= self.retention_days <= 36_500:
            raise BadRequest("retention_days is from 1 to 36500", param="retention_days")
        if self.consent is not None and (len(self.consent) > MAX_CONSENT or not self.consent.isprintable()):
            raise BadRequest(f"consent is at most {MAX_CONSENT} printable characters", param="consent")


def stricter(policy: Policy, rule: Rule | None) -> Policy:
    """What holds when both do. A rule's `consent` takes the place of the other's: it is nearer."""
    if rule is None:
        return policy
    capture = policy.capture if rule.capture is None else min(policy.capture, rule.capture, key=_level)
    return Policy(
        capture=capture,
        sample=policy.sample if rule.sample is None else min(policy.sample, rule.sample),
        redact="strict" if "strict" in (policy.redact, rule.redact) else "off",
        retention_days=min(policy.retention_days, rule.retention_days or policy.retention_days),
        consent=policy.consent if rule.consent is None else rule.consent,
    )


class Policies:
    """Every rule, from memory. When the database is down the last snapshot goes on; changes raise
    SQLAlchemy's errors then."""

    def __init__(self, engine: AsyncEngine, default: Policy) -> None:
        self.default = default
        self._engine = engine
        self._rules: Mapping[tuple[str, str], Rule] = {}
        self._known: dict[tuple[str, str], Policy] = {}

    def of(self, route: str, key: str) -> Policy:
        """What holds for an exchange of `route` (the adapter's name, or the base's) with the key's id."""
        found = self._known.get((route, key))
        if found is None:
            found = self._find(route, key)
            if len(self._known) >= KNOWN:
                self._known.clear()
            self._known[route, key] = found
        return found

    def _find(self, route: str, key: str) -> Policy:
        """A route's rule takes the place of the settings, and can loosen them; a key's only tightens."""
        rule = self._rules.get(("route", route))
        own = self.default
        if rule is not None:
            given = {
                name: getattr(rule, name) for name in Policy.__slots__ if getattr(rule, name) is not None
            }
            own = Policy(**{**{name: getattr(own, name) for name in Policy.__slots__}, **given})
        return stricter(own, self._rules.get(("key", key)))

    def keeps_words(self, key: str, route: str | None = None) -> bool:
        """Whether anything that the key asks is remembered whole: at a route, or at any."""
        routes = (
            ("", *(rule.name for rule in self.rules if rule.kind == "route")) if route is None else (route,)
        )
        policies = (self.of(each, key) for each in routes)
        return any(each.capture == "full" and each.sample > 0 for each in policies)

    @property
    def rules(self) -> list[Rule]:
        """All rows, by kind and name."""
        return [self._rules[at] for at in sorted(self._rules)]

    async def refresh(self) -> None:
        """Takes all of them from the database into memory; at start and on every notification."""
        async with self._engine.connect() as connection:
            await self._read(connection)

    async def put(self, rule: Rule) -> None:
        """The rule for its route or key from now on, in the place of an earlier one. Raises `BadRequest`."""
        rule.check()
        values = {name: getattr(rule, name) for name in Rule.__slots__}
        made = insert(table).values(**values, changed_at=func.now())
        changes = {name: made.excluded[name] for name in (*values, "changed_at")}
        await self._change(made.on_conflict_do_update(index_elements=["kind", "name"], set_=changes))

    async def remove(self, kind: Kind, name: str) -> None:
        """Back to the settings; no rule is no error."""
        await self._change(delete(table).where(table.c.kind == kind, table.c.name == name))

    async def _change(self, statement: Any) -> None:
        async with self._engine.begin() as connection:
            await connection.execute(statement)
            await connection.execute(text(f"NOTIFY {CHANNEL}"))
            await self._read(connection)

    async def _read(self, connection: AsyncConnection) -> None:
        rows = (await connection.execute(select(table))).all()
        self._rules = {(row.kind, row.name): _rule(row) for row in rows}
        self._known = {}


def _rule(row: Row[Any]) -> Rule:
    return Rule(
        cast(Kind, row.kind), row.name, row.capture, row.sample, row.redact, row.retention_days, row.consent
    )


def _level(capture: Capture) -> int:
    return CAPTURES.index(capture)
