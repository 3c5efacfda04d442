"""Lines of the registry's tables: how one is found, read and changed. Only `registry.py` calls these."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters import tables
from adapters.errors import Unknown
from adapters.history import Action, rollback_target
from adapters.preflight import Inspection
from adapters.strictjson import shown
from adapters.version import Reference, State, Version

_V = tables.versions.c

EVERY = (
    sa.select(tables.versions, tables.adapters.c.name.label("adapter"))
    .join(tables.adapters)
    .order_by(tables.adapters.c.name, _V.number.desc())
)
LIVE = EVERY.where(_V.state != State.DELETED)


def version(line: sa.Row[Any]) -> Version:
    return Version(
        adapter=line.adapter,
        number=line.number,
        digest=line.digest,
        state=State(line.state),
        size_bytes=line.size_bytes,
        rank=line.rank,
        manifest=line.manifest,
        created_at=line.created_at,
    )


def inspection(line: sa.Row[Any]) -> Inspection:
    found = line.inspection
    return Inspection(
        rank=found["rank"],
        target_modules=tuple(found["target_modules"]),
        dtype=found["dtype"],
        parameters=found["parameters"],
    )


def parse(reference: Reference | str) -> Reference:
    """`reference`, read when it is text. Raises `Unknown` when the text cannot mean anything."""
    parsed = Reference.parse(reference) if isinstance(reference, str) else reference
    if parsed is None:
        raise Unknown(
            f"{shown(reference)} is no reference; write support, support@v3 or support@3f9c2ab71e04 "
            "(12 or more hex digits)"
        )
    return parsed


async def find(connection: AsyncConnection, reference: Reference) -> sa.Row[Any]:
    """The live version that a reference means; without a pin, the stable one. Raises `Unknown`."""
    query = LIVE.where(tables.adapters.c.name == reference.adapter)
    if reference.number is not None:
        query = query.where(_V.number == reference.number)
    elif reference.digest is not None:
        query = query.where(_V.digest.startswith(reference.digest))
    else:
        query = query.where(_V.state == State.STABLE)
    line = (await connection.execute(query)).one_or_none()
    if line is None:
        pin = f"v{reference.number}" if reference.number else reference.digest
        text = f"{reference.adapter}@{pin}" if pin else reference.adapter
        raise Unknown(f"there is no {shown(text)}; `hotswap adapters ls` lists what there is")
    return line


async def record(
    connection: AsyncConnection, route: str, action: Action, version_id: int | None, by: str
) -> None:
    """Write a line of history."""
    await connection.execute(
        insert(tables.route_history).values(route=route, action=action, version_id=version_id, by=by)
    )


async def point(connection: AsyncConnection, route: str, version_id: int, action: Action, by: str) -> None:
    """Make a version the stable one of a route; the one that was becomes retired."""
    if (old := await stable_id(connection, route)) is not None:
        await connection.execute(sa.update(tables.versions).where(_V.id == old).values(state=State.RETIRED))
    await connection.execute(sa.update(tables.versions).where(_V.id == version_id).values(state=State.STABLE))
    pointer = insert(tables.routes).values(name=route, version_id=version_id)
    await connection.execute(
        pointer.on_conflict_do_update(index_elements=["name"], set_={"version_id": version_id})
    )
    await record(connection, route, action, version_id, by)


async def stable_id(connection: AsyncConnection, route: str) -> int | None:
    query = sa.select(tables.routes.c.version_id).where(tables.routes.c.name == route)
    found: int | None = await connection.scalar(query)
    return found


async def rollback_id(connection: AsyncConnection, route: str) -> int | None:
    """The version that a rollback of the route would go to."""
    table = tables.route_history.c
    events = sa.select(table.action, table.version_id).where(table.route == route).order_by(table.id)
    live = sa.select(_V.id).where(_V.state != State.DELETED)
    return rollback_target(
        [(action, found) for action, found in await connection.execute(events)],
        set((await connection.scalars(live)).all()),
    )


async def delete(connection: AsyncConnection, which: sa.ColumnElement[bool]) -> list[Version]:
    """Mark versions deleted. Their files stay for now."""
    ids = await connection.scalars(
        sa.update(tables.versions).where(which).values(state=State.DELETED).returning(_V.id)
    )
    return [version(line) for line in await connection.execute(EVERY.where(_V.id.in_(ids.all())))]
