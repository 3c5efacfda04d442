"""Importing: exchanges that were remembered elsewhere, each of them once.

A piece of a file becomes a segment of the journal, of a writer of its own, and goes to the lake like any:

    1. taken apart, and cleaned, in a process of its own (`gateway.traffic.importing`)
    2. in one transaction: its keys are noted, those that are there already fall out; the rest is written to
       `<number>.staged`, which nobody reads, and made durable; the writer's newest number is noted
    3. `.staged` becomes `.segment`

Killed before the transaction is over, nothing was noted, and what is staged goes away; killed after it, the
next to come does step 3. So a piece is in the journal whole or not at all, and sent again it adds nothing.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
import uuid
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from sqlalchemy import BigInteger, Column, Date, Index, MetaData, Table, Text, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from adapters.version import check_name
from gateway.errors import BadRequest, TooLarge, Unavailable
from gateway.supervise.lock import Lock
from gateway.traffic.importing import Item, Job, Prepared
from gateway.traffic.journal import SPARE_BYTES
from gateway.traffic.policy import MAX_CONSENT, Policies
from gateway.traffic.segment import CLOSED, Header, file_name, frame
from gateway.traffic.writers import (
    close_left,
    last_number,
    note_number,
    own,
    sync_folder,
    take,
    used_bytes,
    writers,
)

Made = TypeVar("Made")

STAGED = ".staged"
MAX_PIECE_BYTES = 16 * 1024 * 1024
MAX_LINES = 5_000
"""Of a piece."""
SHARE = 0.5
"""Of the journal's bytes; beyond it an import waits, for the rest is for what is served."""
MAX_NAME = 200

metadata = MetaData()

_keys = Table(
    "traffic_imported",
    metadata,
    Column("key", Text, primary_key=True),
    Column("gone", Date, nullable=False),
    Index("traffic_imported_gone", "gone"),
)
"""What is there, by a keyed hash, up to the last day on which it is kept."""

_newest = Table(
    "traffic_import_writers",
    metadata,
    Column("writer", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
)
"""The newest segment of a writer whose keys are noted."""

Known = Callable[[str, Sequence[str]], Awaitable[Collection[str]]]
"""Which of these request ids are remembered of a route: what this Hotswap has exported it need not import."""


@dataclass(frozen=True, slots=True)
class Import:
    """Where a piece goes. `source` is its file's name; `consent` takes the place of the policy's."""

    route: str
    source: str
    tenant: str = "default"
    consent: str | None = None
    unit_field: str = ""
    dry_run: bool = False

    def check(self) -> None:
        """Raises `BadRequest`, which names the field, and `AdapterError` for what can be no route's name."""
        check_name(self.route)
        for name in ("source", "tenant"):
            value = getattr(self, name)
            if not value or len(value) > MAX_NAME or not value.isprintable():
                raise BadRequest(f"{name} is 1 to {MAX_NAME} printable characters", param=name)
        if self.consent is not None and (len(self.consent) > MAX_CONSENT or not self.consent.isprintable()):
            raise BadRequest(f"consent is at most {MAX_CONSENT} printable characters", param="consent")


class Imports:
    """For the event loop. One piece at a time; `salt` keys the hashes. `fault` is called where a test may
    kill it."""

    def __init__(
        self,
        engine: AsyncEngine,
        journal: Path,
        policies: Policies,
        salt: bytes,
        known: Known,
        *,
        journal_bytes: int,
        fault: Callable[[str], None] = lambda point: None,
    ) -> None:
        self._engine = engine
        self._journal = journal
        self._policies = policies
        self._salt = salt
        self._known = known
        self._limit_bytes = int(journal_bytes * SHARE)
        self._fault = fault
        self._turn = asyncio.Lock()
        self._owned: tuple[Path, Lock] | None = None

    async def start(self) -> None:
        """Finishes what others have left. Before anybody writes in their folders, whose numbers go on."""
        for folder in await asyncio.to_thread(_with_staged, self._journal):
            lock = take(folder)
            if lock is not None:
                try:
                    await self._settle(folder)
                finally:
                    lock.release()

    async def stop(self) -> None:
        """Lets the folder go."""
        async with self._turn:
            if self._owned is not None:
                self._owned[1].release()
                self._owned = None

    async def take(self, wanted: Import, piece: bytes) -> dict[str, Any]:
        """Imports what `piece` (JSON Lines) has. How many exchanges were imported, how many were there
        already, and which lines, counted from 1, were refused and why.

        Raises `BadRequest` for a route that remembers nothing, `TooLarge`, and `Unavailable` while the
        journal has no room; SQLAlchemy's errors while the database is away. Nothing is imported then.
        """
        job = self._job(wanted)
        if len(piece) > MAX_PIECE_BYTES or piece.count(b"\n") > MAX_LINES:
            raise TooLarge(
                f"A piece has at most {MAX_PIECE_BYTES:,} bytes and {MAX_LINES:,} lines; send several."
            )
        async with self._turn:
            made = await _prepared(job, piece)
            items = {item.key: item for item in made.items}
            known = await self._known(wanted.route, [item.ours for item in items.values() if item.ours])
            fresh = [item for item in items.values() if item.ours not in known]
            imported = await (self._fresh(fresh) if wanted.dry_run else self._put(fresh))
        return {
            "imported": imported,
            "already_there": len(made.items) - imported,
            "refused": msgspec.to_builtins(made.refused),
            "dry_run": wanted.dry_run,
        }

    def _job(self, wanted: Import) -> Job:
        wanted.check()
        policy = self._policies.of(wanted.route, "")
        if policy.capture == "off":
            raise BadRequest(
                f"Nothing is remembered of {wanted.route!r} (capture is off), so nothing is imported. To "
                f"have it: hotswap traffic policy set --route {wanted.route} --capture full",
                code="capture_off",
                param="route",
            )
        return Job(
            route=wanted.route,
            tenant=wanted.tenant,
            source=wanted.source,
            unit_field=wanted.unit_field,
            capture=policy.capture,
            redact=policy.redact,
            keep_days=policy.retention_days,
            consent=policy.consent if wanted.consent is None else wanted.consent,
            salt=self._salt,
            now=time.time(),
        )

    async def _fresh(self, items: Sequence[Item]) -> int:
        """How many of them are not there yet."""
        noted = select(_keys.c.key).where(
            _keys.c.key.in_([item.key for item in items]), _keys.c.gone >= _today()
        )
        async with self._engine.connect() as connection:
            return len(items) - len((await connection.execute(noted)).all())

    async def _put(self, items: Sequence[Item]) -> int:
        if not items:
            return 0
        folder = await self._room(sum(len(item.payload) for item in items))
        await self._settle(folder)
        async with self._engine.begin() as connection:
            await _alone(connection, folder.name)
            await connection.execute(delete(_keys).where(_keys.c.gone < _today()))
            rows = [{"key": item.key, "gone": date.fromisoformat(item.gone)} for item in items]
            rows.sort(key=lambda row: str(row["key"]))  # in one order, or two imports could lock each other
            noted = insert(_keys).values(rows).on_conflict_do_nothing().returning(_keys.c.key)
            new = set((await connection.execute(noted)).scalars())
            self._fault("noted")
            if new:
                payloads = [item.payload for item in items if item.key in new]
                number = await _on_disk(_stage, folder, payloads)
                made = insert(_newest).values(writer=folder.name, number=number)
                made = made.on_conflict_do_update(index_elements=["writer"], set_={"number": number})
                await connection.execute(made)
                self._fault("staged")
        self._fault("committed")
        if new:
            await _on_disk(_publish, folder, number)
        return len(new)

    async def _room(self, size: int) -> Path:
        """The folder of this process's writer, when the journal has room for `size` bytes."""

        def look() -> Path:
            self._journal.mkdir(parents=True, exist_ok=True, mode=0o700)
            disk = os.statvfs(self._journal)
            used, free = used_bytes(self._journal), disk.f_bavail * disk.f_frsize
            if used + size > self._limit_bytes or free < size + SPARE_BYTES:
                raise Unavailable(
                    f"the journal has {used:,} bytes and the disk {free:,} to spare: an import waits until "
                    "the shipper has made room (traffic.journal_bytes; is the lake there?). Send it again",
                    code="journal_full",
                    retry_after_s=5.0,
                )
            if self._owned is None:
                self._owned = own(self._journal)
                # Of a process that is gone: while we hold its folder the shipper does not do that.
                close_left(self._owned[0])
            return self._owned[0]

        return await _on_disk(look)

    async def _settle(self, folder: Path) -> None:
        """Publishes what is staged and noted, and deletes what is staged only. The caller has the folder."""
        if not await _on_disk(lambda: any(folder.glob(f"*{STAGED}"))):
            return
        async with self._engine.begin() as connection:
            await _alone(connection, folder.name)
            newest = select(_newest.c.number).where(_newest.c.writer == folder.name)
            await _on_disk(_publish, folder, (await connection.execute(newest)).scalar_one_or_none() or 0)


def _with_staged(journal: Path) -> list[Path]:
    return [folder for folder in writers(journal) if any(folder.glob(f"*{STAGED}"))]


def _stage(folder: Path, payloads: Sequence[bytes]) -> int:
    """Writes a whole segment beside those that are read; its number. Raises `OSError`."""
    number = last_number(folder) + 1
    note_number(folder, number)
    with (folder / file_name(number, STAGED)).open("xb") as file:
        file.write(Header(uuid.UUID(folder.name), number, time.time()).encode())
        for payload in payloads:
            file.write(frame(payload) + payload)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(folder)
    return number


def _publish(folder: Path, newest: int) -> None:
    """Of what is staged, what is noted can be read from now on; the rest was never there."""
    for path in folder.glob(f"*{STAGED}"):
        if int(path.stem) <= newest:
            path.replace(path.with_suffix(CLOSED))
        else:
            path.unlink()
    sync_folder(folder)


async def _on_disk(work: Callable[..., Made], *given: Any) -> Made:
    """In a thread. Raises `Unavailable` where the disk takes or gives nothing."""
    try:
        return await asyncio.to_thread(work, *given)
    except OSError as error:
        raise Unavailable(
            f"the journal cannot be written: {error.strerror}. Make room there, and send it again",
            code="journal_full",
            retry_after_s=5.0,
        ) from error


async def _alone(connection: AsyncConnection, writer: str) -> None:
    """Until the transaction ends. One of a process that was killed may still be ending: it is waited for."""
    await connection.execute(select(func.pg_advisory_xact_lock(func.hashtext(writer))))


async def _prepared(job: Job, piece: bytes) -> Prepared:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway.traffic.importing", stdin=PIPE, stdout=PIPE
    )
    try:
        said, _ = await process.communicate(msgspec.json.encode(job) + b"\n" + piece)
    finally:
        with suppress(ProcessLookupError):  # it has ended, unless nobody waits for it any more
            process.kill()
    if process.returncode:
        raise Unavailable(
            f"what takes a piece apart ended with status {process.returncode}; send the piece again",
            code="importer_lost",
            retry_after_s=1.0,
        )
    return msgspec.msgpack.decode(said, type=Prepared)


def _today() -> date:
    return datetime.now(UTC).date()
