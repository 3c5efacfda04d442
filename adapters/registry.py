"""Names and versions: what is registered, which version of each route is stable, what may be deleted.

Every change is one transaction under one advisory lock (registrations are rare, reasoning is dear), and ends
with `NOTIFY hotswap_registry`, so that every gateway replica reads what has changed (`changes`).

Files and rows never contradict each other: files are published before the row that needs them is committed,
and deleted only when no row needs them, both under the lock. A crash in between can leave files without a
row, which `collect` sweeps, but never a row without its files.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from adapters import lines, tables
from adapters.archive import CONFIG
from adapters.errors import Conflicting, OverQuota, Unknown
from adapters.history import Event
from adapters.listed import Adapter, Changes
from adapters.preflight import Inspection
from adapters.store import Sealed, Store
from adapters.strictjson import read_object, shown
from adapters.version import SHORT, Reference, State, Version, check_fine_tuned_name, check_name

CHANNEL = "hotswap_registry"
_LOCK = 0x72656769737472  # "registr"; migrations have another
_V = tables.versions.c
_T = TypeVar("_T")


class Registry:
    """The registry over a database and a store.

    `drain` sees to it that no engine needs a version's files any more, and says whether it could (deleting
    them under an engine can kill it). With it, `add` makes room by itself when the quota is reached; without,
    nothing is deleted until somebody calls `collect` and `forget_files`. `require_card`: `promote` wants a
    passed report card, or force.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        store: Store,
        *,
        quota_bytes: int,
        keep_versions: int,
        require_card: bool = False,
        drain: Callable[[Version], Awaitable[bool]] | None = None,
    ) -> None:
        self._engine = engine
        self._store = store
        self._quota_bytes = quota_bytes
        self._keep_versions = keep_versions
        self._require_card = require_card
        self._drain = drain

    async def add(
        self, name: str, staged: Path, manifest: dict[str, Any], inspection: Inspection, *, by: str = ""
    ) -> tuple[Version, bool]:
        """Register the checked files in `staged` as the next version of `name`; whether it is a new one.

        The first version of an adapter becomes stable at once, later ones wait for `promote`. Content that is
        there already is the version that is there. Raises `Refused` (code `bad_name`), `OverQuota`,
        `StoreFull`, `Conflicting`.
        """
        check_name(name)
        # Postgres takes no NUL and no NaN, and would say so with a much worse message.
        manifest = read_object(json.dumps(manifest).encode(), "the manifest", code="bad_manifest")
        sealed = await _to_the_end(self._store.seal, staged)
        try:
            return await self._add(name, sealed, manifest, inspection, by)
        except OverQuota:
            if not await self.reclaim():
                raise
            return await self._add(name, sealed, manifest, inspection, by)

    async def _add(
        self, name: str, sealed: Sealed, manifest: dict[str, Any], inspection: Inspection, by: str
    ) -> tuple[Version, bool]:
        async with self._change() as connection:
            await connection.execute(insert(tables.adapters).values(name=name).on_conflict_do_nothing())
            adapter = tables.adapters.c
            adapter_id = await connection.scalar(sa.select(adapter.id).where(adapter.name == name))
            same_name = sa.func.left(_V.digest, SHORT) == sealed.digest[:SHORT]
            old = (await connection.execute(lines.EVERY.where(adapter.name == name, same_name))).one_or_none()
            if old is not None and old.digest != sealed.digest:
                raise Conflicting(
                    f"the digest {sealed.digest} shares its first {SHORT} digits with {name}@v{old.number}, "
                    "and engines know versions by these. Change anything in the adapter and register it again"
                )
            if old is not None and old.state != State.DELETED:
                await _to_the_end(self._store.publish, sealed)
                return lines.version(old), False
            await self._check_quota(connection, sealed)
            number = await connection.scalar(
                sa.update(tables.adapters)
                .where(adapter.id == adapter_id)
                .values(last_number=adapter.last_number + 1)
                .returning(adapter.last_number)
            )
            values = {
                "number": number,
                "state": State.REGISTERED,
                "has_files": True,
                "size_bytes": sealed.size_bytes,
                "rank": inspection.rank,
                "inspection": dataclasses.asdict(inspection),
                "manifest": manifest,
                "created_at": sa.func.now(),
            }
            if old is None:
                created = insert(tables.versions).values(
                    adapter_id=adapter_id, digest=sealed.digest, **values
                )
                version_id = await connection.scalar(created.returning(_V.id))
            else:  # it was deleted; the same content comes back under a new number
                version_id = old.id
                await connection.execute(sa.update(tables.versions).where(_V.id == version_id).values(values))
            await lines.record(connection, name, "register", version_id, by)
            if await lines.stable_id(connection, name) is None:
                # Nothing was served before that it could be worse than; that nobody proved it is on record.
                await lines.point(connection, name, version_id, "promote", by, forced=True)
            await _to_the_end(self._store.publish, sealed)
            return lines.version(
                (await connection.execute(lines.EVERY.where(_V.id == version_id))).one()
            ), True

    async def _check_quota(self, connection: AsyncConnection, sealed: Sealed) -> None:
        digests = sa.select(_V.digest, _V.size_bytes).where(_V.has_files).distinct().subquery()
        used = int(await connection.scalar(sa.select(sa.func.sum(digests.c.size_bytes))) or 0)
        shared = await connection.scalar(
            sa.select(_V.id).where(_V.has_files, _V.digest == sealed.digest).limit(1)
        )
        if shared is None and used + sealed.size_bytes > self._quota_bytes:
            raise OverQuota(
                f"the adapter has {sealed.size_bytes} bytes and the registry holds {used} of "
                f"{self._quota_bytes}. Remove versions (hotswap adapters rm), or raise registry.quota_bytes"
            )

    async def adapters(self) -> list[Adapter]:
        """Every adapter that has versions, by name."""
        async with self._engine.connect() as connection:
            stable = (await connection.execute(lines.LIVE.where(_V.state == State.STABLE))).all()
            totals = {line.adapter_id: line for line in await connection.execute(lines.TOTALS)}
            back = await lines.rollback_ids(connection)
            earlier = await connection.execute(lines.LIVE.where(_V.id.in_(back.values())))
            targets = {row.adapter: lines.version(row) for row in earlier}
        return [
            Adapter(
                name=row.adapter,
                stable=lines.version(row),
                rollback_to=targets.get(row.adapter),
                versions=totals[row.adapter_id].versions,
                size_bytes=int(totals[row.adapter_id].size_bytes),
            )
            for row in stable
        ]

    async def versions(self, name: str, *, deleted: bool = False) -> list[Version]:
        """The versions of an adapter, newest first. Raises `Unknown`."""
        async with self._engine.connect() as connection:
            every = (await connection.execute(lines.EVERY.where(tables.adapters.c.name == name))).all()
        if not any(row.state != State.DELETED for row in every):
            raise Unknown(f"there is no adapter {shown(name)}; `hotswap adapters ls` lists them")
        return [lines.version(row) for row in every if deleted or row.state != State.DELETED]

    async def show(self, reference: Reference | str) -> Version:
        """The version that `support@v3`, `support@3f9c…` or, for the stable one, `support` means."""
        async with self._engine.connect() as connection:
            return lines.version(await lines.find(connection, lines.parse(reference)))

    async def inspection(self, reference: Reference | str) -> Inspection:
        """What preflight found in a version when it was registered."""
        async with self._engine.connect() as connection:
            return lines.inspection(await lines.find(connection, lines.parse(reference)))

    async def history(self, route: str) -> list[Event]:
        """Everything that was done to a route and its adapter, oldest first."""
        table = tables.route_history
        query = sa.select(table, _V.number).outerjoin(tables.versions).where(table.c.route == route)
        async with self._engine.connect() as connection:
            rows = (await connection.execute(query.order_by(table.c.id))).all()
        return [Event(row.route, row.action, row.number, row.by, row.at, row.forced) for row in rows]

    async def card(self, reference: Reference | str) -> dict[str, Any] | None:
        """A version's report card, None while it has none. Raises `Unknown`."""
        async with self._engine.connect() as connection:
            line = await lines.find(connection, lines.parse(reference))
            card: dict[str, Any] | None = await connection.scalar(sa.select(_V.card).where(_V.id == line.id))
            return card

    async def grade(self, reference: Reference | str, card: dict[str, Any], *, by: str = "") -> Version:
        """Keep a version's report card, in the place of an earlier one. Raises `Unknown`, `Conflicting`."""
        card = read_object(json.dumps(card).encode(), "the report card", code="bad_card")
        async with self._change() as connection:
            row = await lines.find(connection, lines.pinned(reference))
            await connection.execute(sa.update(tables.versions).where(_V.id == row.id).values(card=card))
            await lines.record(connection, row.adapter, "grade", row.id, by)
            return lines.version((await connection.execute(lines.EVERY.where(_V.id == row.id))).one())

    async def promote(self, reference: Reference | str, *, by: str = "", force: bool = False) -> Version:
        """Make a version the stable one of its adapter's route. Nothing happens when it is.

        Raises `Conflicting` (`not_proved`) without a passed card, where cards are required and no `force`.
        """
        async with self._change() as connection:
            row = await lines.find(connection, lines.pinned(reference))
            if row.state != State.STABLE:
                if self._require_card and not row.proved and not force:
                    raise Conflicting(lines.not_proved(row), code="not_proved")
                await lines.point(connection, row.adapter, row.id, "promote", by, forced=not row.proved)
            return lines.version(await lines.find(connection, Reference(row.adapter)))

    async def call(self, reference: Reference | str, name: str, *, by: str = "") -> Version:
        """Give a version one more name, for good. Nothing happens when it has it.

        Raises `Refused` (code `bad_name`), `Conflicting` when another version is called so.
        """
        check_fine_tuned_name(name)
        async with self._change() as connection:
            row = await lines.find(connection, lines.parse(reference))
            if name not in row.names:
                made = insert(tables.version_names).values(name=name, version_id=row.id)
                new = made.on_conflict_do_nothing().returning(tables.version_names.c.name)
                if await connection.scalar(new) is None:
                    raise Conflicting(f"{name!r} is another version's name already; choose another")
                await lines.record(connection, row.adapter, "name", row.id, by)
            pinned = Reference(row.adapter, number=row.number)
            return lines.version(await lines.find(connection, pinned))

    async def rollback(self, route: Reference | str, *, by: str = "") -> Version:
        """Go back to the version that was stable before. Raises `Conflicting` when there is none."""
        async with self._change() as connection:
            current = await lines.find(connection, lines.parse(route))
            target = await lines.rollback_id(connection, current.adapter)
            if target is None:
                raise Conflicting(
                    f"{current.adapter} has no earlier stable version than v{current.number} that still "
                    "exists; promote one instead (hotswap adapters versions lists them)"
                )
            await lines.point(connection, current.adapter, target, "rollback", by)
            return lines.version(await lines.find(connection, Reference(current.adapter)))

    async def remove(self, reference: Reference | str, *, by: str = "") -> list[Version]:
        """Delete a version, or the whole adapter when no version is named; what was deleted.

        Files stay until `forget_files`. Raises `Conflicting` for a version that is stable.
        """
        async with self._change() as connection:
            which = lines.parse(reference)
            row = await lines.find(connection, which)
            if which != Reference(row.adapter):
                if row.state == State.STABLE:
                    raise Conflicting(
                        f"{row.adapter}@v{row.number} is stable: requests for {row.adapter} go to it. "
                        "Promote "
                        "another version first, or remove the whole adapter"
                    )
                await lines.record(connection, row.adapter, "delete", row.id, by)
                doomed = _V.id == row.id
            else:
                await lines.record(connection, row.adapter, "remove", None, by)
                await connection.execute(sa.delete(tables.routes).where(tables.routes.c.name == row.adapter))
                doomed = sa.and_(_V.adapter_id == row.adapter_id, _V.state != State.DELETED)
            return await lines.delete(connection, doomed)

    async def collect(self) -> list[Version]:
        """Versions whose files may go once no engine needs them: the deleted, and those over `keep_versions`.

        The latter are deleted by this. Never the stable version or the one that a rollback goes to. Files
        that no row knows (a crash fell between file and row) are swept.
        """
        async with self._change() as connection:
            surplus = (await connection.execute(lines.surplus(self._keep_versions))).all()
            kept = {name: await lines.rollback_id(connection, name) for name in {row.name for row in surplus}}
            for row in surplus:
                if row.id != kept[row.name]:
                    await lines.record(connection, row.name, "collect", row.id, "")
                    await lines.delete(connection, _V.id == row.id)
            await self._sweep(connection)
            doomed = await connection.execute(lines.EVERY.where(_V.state == State.DELETED, _V.has_files))
            return [lines.version(row) for row in doomed]

    async def _sweep(self, connection: AsyncConnection) -> None:
        if await connection.scalar(sa.select(_V.id).limit(1)) is None:
            return  # a database that never saw a version is the wrong one for a store full of them
        with_files = sa.select(_V.digest).where(_V.has_files).distinct().subquery()
        count = await connection.scalar(sa.select(sa.func.count()).select_from(with_files))
        if await _to_the_end(self._store.count) <= (count or 0):
            return  # every row has its files, so these are all
        known = set((await connection.scalars(sa.select(_V.digest).where(_V.has_files))).all())
        for digest in await _to_the_end(self._store.digests):
            if digest not in known:
                await _to_the_end(self._store.delete, digest)

    async def forget_files(self, version: Version) -> bool:
        """Delete the files of a deleted version, after the fleet has let go of it.

        False, and nothing happens, when it is not deleted (any more). Files that another adapter's version
        shares stay.
        """
        async with self._change() as connection:
            mine = sa.and_(_V.digest == version.digest, tables.adapters.c.name == version.adapter)
            row = (await connection.execute(lines.EVERY.where(mine))).one_or_none()
            if row is None or row.state != State.DELETED:
                return False
            await connection.execute(
                sa.update(tables.versions).where(_V.id == row.id).values(has_files=False)
            )
            others = sa.select(_V.id).where(_V.digest == version.digest, _V.has_files).limit(1)
            if await connection.scalar(others) is None:
                await _to_the_end(self._store.delete, version.digest)
            return True

    async def reclaim(self) -> list[Version]:
        """Collect, drain and forget: what was freed. Without a `drain`, only orphaned files are swept."""
        doomed = await self.collect()
        if self._drain is None:
            return []
        return [v for v in doomed if await self._drain(v) and await self.forget_files(v)]

    async def diff(self, a: Reference | str, b: Reference | str) -> dict[str, Any]:
        """What differs from version `a` to `b`: {"a", "b", "facts", "config", "manifest"}.

        The last three map each key that differs to [value in a, value in b]; absent is None.
        """
        async with self._engine.connect() as connection:
            rows = [
                await lines.find(connection, lines.parse(a)),
                await lines.find(connection, lines.parse(b)),
            ]
        configs = [await asyncio.to_thread(self._config, row) for row in rows]
        return lines.differences(rows, configs)

    def _config(self, row: sa.Row[Any]) -> dict[str, Any]:
        return read_object((self._store.path(row.digest) / CONFIG).read_bytes(), CONFIG, code="bad_config")

    async def changes(self, since: int = 0) -> Changes:
        """What can be asked for now, of the adapters that were changed after `since` (a `Changes.at`).

        All of them for 0, and when the database is an older one than `since` is from. A moment is a line of
        history: every change writes one, under the lock that makes their order that of the commits. It is
        read before the versions, so what changes between the two is told again next time.
        """
        async with self._engine.connect() as connection:
            at, names = await lines.changed(connection, since)
            whole = since == 0 or at < since
            living = lines.LIVING if whole else lines.LIVING.where(tables.adapters.c.name.in_(names))
            found: dict[str, list[Version]] = {} if whole else {name: [] for name in names}
            if whole or names:
                for row in await connection.execute(living):
                    found.setdefault(row.adapter, []).append(lines.version(row))
        return Changes(at, whole, found)

    @asynccontextmanager
    async def _change(self) -> AsyncIterator[AsyncConnection]:
        async with self._engine.begin() as connection:
            await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            yield connection
            # Only a transaction that wrote something has an id.
            wrote = sa.func.pg_current_xact_id_if_assigned().is_not(None)
            await connection.execute(sa.select(sa.func.pg_notify(CHANNEL, "")).where(wrote))


async def _to_the_end(work: Callable[..., _T], *arguments: object) -> _T:
    """Run `work` in a thread. When cancelled, wait for it all the same: nobody may clean up meanwhile."""
    future = asyncio.get_running_loop().run_in_executor(None, functools.partial(work, *arguments))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        if not future.cancelled():
            future.exception()  # the cancellation is what the caller hears of
        raise
