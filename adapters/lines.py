"""Lines of the registry's tables: how one is found, read and changed. Only `registry.py` calls these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters import tables
from adapters.errors import Conflicting, Unknown
from adapters.history import Action, rollback_target
from adapters.preflight import Inspection
from adapters.strictjson import shown
from adapters.version import Reference, State, Version

_V = tables.versions.c

_N = tables.version_names.c
_NAMES = sa.func.array(
    sa.select(_N.name)
    .where(_N.version_id == _V.id)
    .order_by(_N.name)
    .correlate(tables.versions)
    .scalar_subquery()
).label("names")

_PROVED = _V.card["passed"].as_boolean().label("proved")
_COLUMNS: list[sa.ColumnElement[Any]] = [
    *(column for column in tables.versions.c if column.name != "card"),
    _PROVED,
    _NAMES,
    tables.adapters.c.name.label("adapter"),
]
EVERY = sa.select(*_COLUMNS).join(tables.adapters).order_by(tables.adapters.c.name, _V.number.desc())
LIVE = EVERY.where(_V.state != State.DELETED)
LIVING = LIVE.with_only_columns(
    tables.adapters.c.name.label("adapter"),
    _PROVED,
    _NAMES,
    *(
        column
        for column in tables.versions.c
        if column.name not in ("id", "adapter_id", "inspection", "has_files", "card")
    ),
)
"""What a `Version` needs and no more: for many of them it matters."""
TOTALS = (
    sa.select(
        _V.adapter_id, sa.func.count().label("versions"), sa.func.sum(_V.size_bytes).label("size_bytes")
    )
    .where(_V.state != State.DELETED)
    .group_by(_V.adapter_id)
)
"""How many living versions each adapter has, and their bytes."""


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
        proved=line.proved,
        names=tuple(line.names),
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


def pinned(reference: Reference | str) -> Reference:
    """A reference that names a version. Raises `Conflicting` for one that names a route only."""
    found = parse(reference)
    if found == Reference(found.adapter):
        raise Conflicting(f"{found.adapter!r} names no version; say which: {found.adapter}@v3, or its digest")
    return found


def not_proved(row: sa.Row[Any]) -> str:
    """Why a version may not be promoted, and what to do."""
    name = f"{row.adapter}@v{row.number}"
    why = "its report card is not passed" if row.proved is False else "it has no report card"
    return (
        f"{name} cannot be promoted: {why}. Prove it (hotswap adapters prove {name} --data held-out.jsonl), "
        "look at what failed (hotswap adapters card), or promote it with --force, which is recorded"
    )


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
    connection: AsyncConnection,
    route: str,
    action: Action,
    version_id: int | None,
    by: str,
    forced: bool = False,
) -> None:
    """Write a line of history."""
    await connection.execute(
        insert(tables.route_history).values(
            route=route, action=action, version_id=version_id, by=by, forced=forced
        )
    )


async def point(
    connection: AsyncConnection, route: str, version_id: int, action: Action, by: str, forced: bool = False
) -> None:
    """Make a version the stable one of a route; the one that was becomes retired."""
    if (old := await stable_id(connection, route)) is not None:
        await connection.execute(sa.update(tables.versions).where(_V.id == old).values(state=State.RETIRED))
    await connection.execute(sa.update(tables.versions).where(_V.id == version_id).values(state=State.STABLE))
    pointer = insert(tables.routes).values(name=route, version_id=version_id)
    await connection.execute(
        pointer.on_conflict_do_update(index_elements=["name"], set_={"version_id": version_id})
    )
    await record(connection, route, action, version_id, by, forced)


async def stable_id(connection: AsyncConnection, route: str) -> int | None:
    query = sa.select(tables.routes.c.version_id).where(tables.routes.c.name == route)
    found: int | None = await connection.scalar(query)
    return found


async def rollback_id(connection: AsyncConnection, route: str) -> int | None:
    """The version that a rollback of the route would go to."""
    return (await _rollback_ids(connection, sa.literal(route))).get(route)


async def rollback_ids(connection: AsyncConnection) -> dict[str, int]:
    """The same for every route that has such a version: who was never promoted to twice has none."""
    table = tables.route_history.c
    moved = sa.select(table.route).where(table.action == "promote").group_by(table.route)
    return await _rollback_ids(connection, moved.having(sa.func.count() > 1))


async def _rollback_ids(
    connection: AsyncConnection, routes: sa.Select[tuple[str]] | sa.BindParameter[str]
) -> dict[str, int]:
    table = tables.route_history.c
    query = (
        sa.select(table.route, table.action, table.version_id, _V.state)
        .outerjoin(tables.versions)
        .where(table.route.in_(routes) if isinstance(routes, sa.Select) else table.route == routes)
        .order_by(table.id)
    )
    events: dict[str, list[tuple[str, int | None]]] = {}
    live: set[int] = set()
    for line in await connection.execute(query):
        events.setdefault(line.route, []).append((line.action, line.version_id))
        if line.version_id is not None and line.state != State.DELETED:
            live.add(line.version_id)
    targets = {route: rollback_target(mine, live) for route, mine in events.items()}
    return {route: target for route, target in targets.items() if target is not None}


async def changed(connection: AsyncConnection, since: int) -> tuple[int, list[str]]:
    """The last line of history, and the adapters that lines after `since` are about."""
    table = tables.route_history.c
    last = sa.select(sa.func.max(table.id)).scalar_subquery()
    names = sa.select(table.route).where(table.id > since).distinct().scalar_subquery()
    line = (await connection.execute(sa.select(last, sa.func.array(names)))).one()
    return line[0] or 0, list(line[1])


def surplus(keep: int) -> sa.Select[tuple[int, str]]:
    """Living versions that are neither stable nor among the `keep` newest of their adapter: id and name.

    One that has a name of its own is somebody's model and is no surplus; who wants it away removes it.
    """
    place = sa.func.row_number().over(partition_by=_V.adapter_id, order_by=_V.number.desc()).label("place")
    ranked = (
        sa.select(_V.id, _V.adapter_id, _V.number, _V.state, place)
        .where(_V.state != State.DELETED)
        .subquery()
    )
    adapter = tables.adapters.c
    return (
        sa.select(ranked.c.id, adapter.name)
        .join(tables.adapters, adapter.id == ranked.c.adapter_id)
        .where(ranked.c.place > keep, ranked.c.state != State.STABLE)
        .where(~sa.exists().where(_N.version_id == ranked.c.id))
        .order_by(adapter.name, ranked.c.number.desc())
    )


async def delete(connection: AsyncConnection, which: sa.ColumnElement[bool]) -> list[Version]:
    """Mark versions deleted. Their files stay for now."""
    ids = await connection.scalars(
        sa.update(tables.versions).where(which).values(state=State.DELETED).returning(_V.id)
    )
    return [version(line) for line in await connection.execute(EVERY.where(_V.id.in_(ids.all())))]


def differences(pair: Sequence[sa.Row[Any]], configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of two versions, as `Registry.diff` says it."""
    a, b = pair
    return {
        "a": version(a).name,
        "b": version(b).name,
        "facts": _changes(*(row.inspection | {"size_bytes": row.size_bytes} for row in pair)),
        "config": _changes(*configs),
        "manifest": _changes(a.manifest, b.manifest),
    }


def _changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {key: [a.get(key), b.get(key)] for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)}
