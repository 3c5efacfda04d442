"""The plans, a row of Postgres each: which adapter learns from which feedback, and when again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field, model_validator
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.errors import NotFound
from gateway.jobs.source import age

metadata = sa.MetaData()

table = sa.Table(
    "retraining_plans",
    metadata,
    sa.Column("adapter", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("route", sa.Text, nullable=False),  # whose exchanges are learned from
    sa.Column("feedback", sa.Text),  # null: all exchanges
    sa.Column("since_s", sa.BigInteger),  # not older than that; null: however old
    sa.Column("every_s", sa.BigInteger),
    sa.Column("corrections", sa.Integer),
    sa.Column("drift", sa.Float),
    sa.Column("hyperparameters", JSONB, nullable=False),
    sa.Column("accept", JSONB, nullable=False),  # licences that are read and accepted
    sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
    sa.Column("told", sa.Text),  # the job whose end was told
    sa.Column("problem", sa.Text),  # why no job could be started
)


class NewPlan(BaseModel):
    """What is asked for; at least one of `every_s`, `corrections` and `drift` (`gateway.retraining.due`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    route: str | None = Field(None, min_length=1, max_length=300)
    feedback: Literal["any", "up", "corrected"] | None = "corrected"
    since_s: int | None = Field(None, ge=60, le=10 * 365 * 86400)
    every_s: int | None = Field(None, ge=60, le=10 * 365 * 86400)
    corrections: int | None = Field(None, ge=1, le=10_000_000)
    drift: float | None = Field(None, gt=0, lt=1)
    n_epochs: int | None = Field(None, ge=1, le=50)
    batch_size: int | None = Field(None, ge=1, le=256)
    learning_rate_multiplier: float | None = Field(None, gt=0, le=1000)
    accept: list[str] = Field([], max_length=20)

    @model_validator(mode="after")
    def _some_time(self) -> NewPlan:
        if self.every_s is None and self.corrections is None and self.drift is None:
            raise ValueError("say when: every_s, corrections or drift")
        return self

    @property
    def hyperparameters(self) -> dict[str, float | int]:
        given = {name: getattr(self, name) for name in ("n_epochs", "batch_size", "learning_rate_multiplier")}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Plan:
    """One row; `adapter` gets the new versions."""

    adapter: str
    tenant: str
    key: str
    route: str
    feedback: str | None
    since_s: int | None
    every_s: int | None
    corrections: int | None
    drift: float | None
    hyperparameters: dict[str, Any]
    accept: list[str]
    created_at: datetime
    told: str | None
    problem: str | None

    @property
    def source(self) -> str:
        """As `training_file` of a job: traffic://ROUTE?since=30d&feedback=corrected."""
        since = None if self.since_s is None else f"since={age(self.since_s)}"
        feedback = None if self.feedback is None else f"feedback={self.feedback}"
        query = "&".join(filter(None, (since, feedback)))
        return f"traffic://{quote(self.route, safe=':@._/-')}{query and '?' + query}"


class Plans:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def all(self) -> list[Plan]:
        """By the adapter's name."""
        async with self._engine.connect() as connection:
            rows = (await connection.execute(sa.select(table).order_by(table.c.adapter))).all()
        return [Plan(**row._mapping) for row in rows]

    async def get(self, adapter: str) -> Plan:
        """Raises `NotFound`."""
        query = sa.select(table).where(table.c.adapter == adapter)
        async with self._engine.connect() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise _none(adapter)
        return Plan(**row._mapping)

    async def put(self, adapter: str, tenant: str, key: str, asked: NewPlan) -> Plan:
        """The adapter's plan from now on, in the place of an earlier one, whose jobs still count."""
        values: dict[str, Any] = {
            **asked.model_dump(exclude={"n_epochs", "batch_size", "learning_rate_multiplier", "route"}),
            "route": asked.route or adapter,
            "tenant": tenant,
            "key": key,
            "hyperparameters": asked.hyperparameters,
            "problem": None,
        }
        made = insert(table).values(adapter=adapter, **values)
        made = made.on_conflict_do_update(index_elements=["adapter"], set_=values)
        async with self._engine.begin() as connection:
            await connection.execute(made)
        return await self.get(adapter)

    async def remove(self, adapter: str) -> None:
        """Its jobs go on, and what they make is not proposed. Raises `NotFound`."""
        async with self._engine.begin() as connection:
            gone = await connection.execute(sa.delete(table).where(table.c.adapter == adapter))
        if gone.rowcount == 0:
            raise _none(adapter)

    async def note(self, adapter: str, **values: str | None) -> None:
        """`told`, `problem`."""
        async with self._engine.begin() as connection:
            await connection.execute(sa.update(table).where(table.c.adapter == adapter).values(values))


def _none(adapter: str) -> NotFound:
    return NotFound(
        f"There is no plan to retrain {adapter[:100]!r}. Make one: hotswap retrain set {adapter[:100]} "
        "--corrections 100",
        code="plan_not_found",
        param="adapter",
    )
