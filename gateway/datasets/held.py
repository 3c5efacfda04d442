"""What datasets hold, as the trainer told it, and what of that was forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ColumnElement, Connection, Row, and_, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from adapters import tables as registry
from adapters.version import SHORT, Reference
from gateway.datasets.tables import datasets, exchanges, forgotten, letting_go, noting
from gateway.errors import BadRequest, NotFound

MOST = 10_000
"""Exchanges in one call."""
NAME = r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?"


class Exchange(BaseModel):
    """One that a dataset holds: its request id, and by what else it can be forgotten. `unit` is a keyed hash;
    `at` in seconds since 1970, 0 where it is not known."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(min_length=1, max_length=200)
    unit: str = Field("", max_length=256)
    key: str = Field("", max_length=200)
    tenant: str = Field("default", max_length=64)
    at: float = Field(0.0, ge=0, lt=1e11)


class NewDataset(BaseModel):
    """A frozen dataset. The exchanges may come in several calls."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=f"^{NAME}$")
    digest: str = Field(pattern="^[0-9a-f]{64}$")
    rows: int = Field(ge=0)
    lineage: dict[str, Any] = Field(default_factory=dict)
    exchanges: list[Exchange] = Field(default_factory=list, max_length=MOST)


class Datasets:
    """In Postgres. Every call raises SQLAlchemy's errors while it is away."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(self, new: NewDataset) -> dict[str, Any]:
        """Takes what a dataset holds; told again, it adds what was not told yet, and changes nothing."""
        values = {"name": new.name, "digest": new.digest, "rows": new.rows, "lineage": new.lineage}
        async with self._engine.begin() as connection:
            await connection.execute(insert(datasets).values(values).on_conflict_do_nothing())
            mine = and_(datasets.c.name == new.name, datasets.c.digest == new.digest)
            id = (await connection.execute(select(datasets.c.id).where(mine))).scalar_one()
            if new.exchanges:
                held = [_held(id, each) for each in new.exchanges]
                await connection.execute(insert(exchanges).on_conflict_do_nothing(), held)
            await _note(connection)
            return (await _shown(connection, datasets.c.id == id))[0]

    async def all(self, name: str | None = None) -> list[dict[str, Any]]:
        """Every one, the newest first."""
        async with self._engine.begin() as connection:
            await _note(connection)
            which = datasets.c.name == name if name is not None else datasets.c.id > 0
            return await _shown(connection, which)

    async def forgotten(self, reference: str) -> list[str]:
        """Request ids of what it holds, or held, that was forgotten. Raises `NotFound`."""
        async with self._engine.begin() as connection:
            id = await _find(connection, reference)
            await _note(connection)
            wanted = select(forgotten.c.exchange).where(forgotten.c.dataset_id == id).distinct()
            return sorted((await connection.execute(wanted)).scalars())

    async def scrubbed(self, reference: str, rows: int, gone: Sequence[str]) -> None:
        """That these exchanges are taken out of its files, which have lost `rows` in all. Raises
        `NotFound`."""
        if len(gone) > MOST:
            raise BadRequest(f"at most {MOST:,} exchanges at a time", param="exchanges")
        async with self._engine.begin() as connection:
            id = await _find(connection, reference)
            mine = update(forgotten).where(forgotten.c.dataset_id == id, forgotten.c.exchange.in_(gone))
            await connection.execute(
                mine.values(scrubbed_at=func.coalesce(forgotten.c.scrubbed_at, func.now()))
            )
            await connection.execute(update(datasets).where(datasets.c.id == id).values(scrubbed_rows=rows))

    async def learned(self) -> dict[str, dict[str, list[Any]]]:
        """Wish to forget -> the datasets that hold, or held, what it means, and the versions that learned
        from those: {"datasets": [{"name", "exchanges", "scrubbed"}], "versions": [name]}. Only those with
        some."""
        async with self._engine.begin() as connection:
            await _note(connection)
            left = func.count().filter(forgotten.c.scrubbed_at.is_(None))
            counted = (
                select(
                    forgotten.c.wish,
                    datasets.c.name,
                    datasets.c.digest,
                    func.count().label("n"),
                    left.label("left"),
                )
                .join(datasets, datasets.c.id == forgotten.c.dataset_id)
                .group_by(forgotten.c.wish, datasets.c.id)
                .order_by(datasets.c.name, datasets.c.digest)
            )
            rows = (await connection.execute(counted)).all()
            versions = await _versions(connection, {row.digest for row in rows})
        told: dict[str, dict[str, list[Any]]] = {}
        for row in rows:
            into = told.setdefault(row.wish, {"datasets": [], "versions": []})
            into["datasets"].append(
                {"name": f"{row.name}@{row.digest[:SHORT]}", "exchanges": row.n, "scrubbed": not row.left}
            )
            fresh = (name for name in versions.get(row.digest, ()) if name not in into["versions"])
            into["versions"] += fresh
        return told


def note(connection: Connection) -> None:
    """Writes down what the wishes that hold mean of datasets, before a wish lets go of what it says. For the
    shipper's process, whose connections block."""
    connection.execute(noting())
    connection.execute(letting_go())


async def _note(connection: AsyncConnection) -> None:
    await connection.run_sync(note)


async def _find(connection: AsyncConnection, reference: str) -> int:
    parsed = Reference.parse(reference)
    if parsed is None or parsed.digest is None:
        raise BadRequest("a dataset is named NAME@ and 12 hex digits of its digest", param="reference")
    mine = and_(
        datasets.c.name == parsed.adapter, datasets.c.digest.startswith(parsed.digest, autoescape=True)
    )
    id: int | None = (await connection.execute(select(datasets.c.id).where(mine))).scalars().first()
    if id is None:
        raise NotFound(f"there is no dataset {reference!r} here", code="dataset_not_found", param="reference")
    return id


async def _shown(connection: AsyncConnection, which: ColumnElement[bool]) -> list[dict[str, Any]]:
    held = select(func.count()).where(exchanges.c.dataset_id == datasets.c.id).scalar_subquery()
    of = forgotten.c.dataset_id == datasets.c.id
    gone = select(func.count(forgotten.c.exchange.distinct())).where(of)
    left = gone.where(forgotten.c.scrubbed_at.is_(None)).scalar_subquery()
    wanted = select(datasets, held.label("held"), gone.scalar_subquery().label("gone"), left.label("left"))
    newest = wanted.where(which).order_by(datasets.c.created_at.desc(), datasets.c.id.desc())
    rows = (await connection.execute(newest)).all()
    versions = await _versions(connection, {row.digest for row in rows})
    return [_told(row, versions.get(row.digest, [])) for row in rows]


def _told(row: Row[Any], versions: list[str]) -> dict[str, Any]:
    return {
        "name": row.name,
        "digest": row.digest,
        "reference": f"{row.name}@{row.digest[:SHORT]}",
        "rows": row.rows,
        "exchanges": row.held,
        "forgotten": row.gone,
        "not_scrubbed": row.left,
        "scrubbed_rows": row.scrubbed_rows,
        "lineage": row.lineage,
        "created_at": row.created_at.astimezone(UTC).isoformat(timespec="milliseconds"),
        "versions": versions,
    }


async def _versions(connection: AsyncConnection, digests: set[str]) -> dict[str, list[str]]:
    """Dataset's digest -> the versions whose lineage names it, that were not deleted."""
    if not digests:
        return {}
    learned = registry.versions.c.manifest["lineage"]["dataset_digest"].astext
    wanted = (
        select(learned.label("dataset"), registry.adapters.c.name, registry.versions.c.digest)
        .join(registry.adapters, registry.adapters.c.id == registry.versions.c.adapter_id)
        .where(learned.in_(digests), registry.versions.c.state != "deleted")
        .order_by(registry.versions.c.id)
    )
    found: dict[str, list[str]] = {}
    for row in await connection.execute(wanted):
        found.setdefault(row.dataset, []).append(f"{row.name}@{row.digest[:SHORT]}")
    return found


def _held(dataset: int, each: Exchange) -> dict[str, Any]:
    at = datetime.fromtimestamp(each.at, UTC) if each.at else None
    return {
        "dataset_id": dataset,
        "exchange": each.id,
        "tenant": each.tenant,
        "unit": each.unit,
        "key": each.key,
        "at": at,
    }
