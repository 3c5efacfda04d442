"""Whose file is which: the rows of the Files API. Bytes are in `Blobs`, and go when no row needs them.

Rows and blobs never contradict each other: a blob is published before its row is committed and deleted before
the last row that names it is, both under one lock. A crash in between leaves at most a blob without a row,
which the same upload or nobody finds again.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import string
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gateway.errors import BadRequest, GatewayError, NotFound
from gateway.files.blobs import Blobs, Staged
from gateway.files.tables import files as table

PURPOSES = ("fine-tune", "evals", "eval")
"""What people may upload for. OpenAI's others belong to parts of it that are not here."""
RESULTS = "fine-tune-results"
"""Only training writes these."""
MAX_PAGE = 10_000
MAX_NAME = 512
_FORM = re.compile(r"[A-Za-z0-9_-]{1,100}")
_ID = string.ascii_letters + string.digits
_LOCK = 0x66696C6573
"""Key of the advisory lock under which blobs are published and deleted ("files")."""

_C = table.c


class OverQuota(GatewayError):
    status = 507
    type = "server_error"
    code = "over_quota"


@dataclass(frozen=True, slots=True)
class File:
    """One file. `sha256` names its bytes."""

    id: str
    tenant: str
    filename: str
    purpose: str
    size_bytes: int
    sha256: str
    created_at: datetime
    expires_at: datetime | None

    def shown(self) -> dict[str, Any]:
        """As OpenAI shows it."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.size_bytes,
            "created_at": int(self.created_at.timestamp()),
            "expires_at": None if self.expires_at is None else int(self.expires_at.timestamp()),
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
        }


class Files:
    """Every file. A tenant sees its own; `tenant=None` is the gateway itself, which sees all."""

    def __init__(self, engine: AsyncEngine, blobs: Blobs, *, max_bytes: int, quota_bytes: int) -> None:
        self._engine = engine
        self.blobs = blobs
        self.max_bytes = max_bytes
        self._quota_bytes = quota_bytes

    async def add(
        self, tenant: str, staged: Staged, filename: str, purpose: str, expires_after_s: int | None = None
    ) -> File:
        """Keeps a staged file. Raises `OverQuota`, `DiskFull`."""
        digest = await asyncio.to_thread(staged.seal)
        now = datetime.now(UTC)
        async with self._engine.begin() as connection:
            await _lock(connection)
            await self._expire(connection)
            used = int(
                await connection.scalar(sa.select(sa.func.coalesce(sa.func.sum(_C.size_bytes), 0))) or 0
            )
            if used + staged.size > self._quota_bytes:
                raise OverQuota(
                    f"The file has {staged.size:,} bytes, and {used:,} of {self._quota_bytes:,} are taken. "
                    "Delete files, or raise files.quota_bytes."
                )
            # To its end even when the client leaves: the row must not be rolled back half way through it.
            await asyncio.shield(asyncio.to_thread(self.blobs.publish, staged, digest))
            row: dict[str, Any] = {
                "id": new_id("file-"),
                "tenant": tenant,
                "filename": filename,
                "purpose": purpose,
                "size_bytes": staged.size,
                "sha256": digest,
                "created_at": now,
                "expires_at": None if expires_after_s is None else now + timedelta(seconds=expires_after_s),
            }
            await connection.execute(sa.insert(table).values(row))
        return File(**row)

    async def get(self, id: str, tenant: str | None) -> File:
        """Raises `NotFound`, code `file_not_found`."""
        if not _FORM.fullmatch(id):
            raise NotFound(f"No such File object: {id[:100]!a}", code="file_not_found", param="id")
        async with self._engine.connect() as connection:
            row = (await connection.execute(_mine(tenant).where(_C.id == id))).one_or_none()
        if row is None:
            raise NotFound(f"No such File object: {id[:100]}", code="file_not_found", param="id")
        return _file(row)

    async def list(
        self,
        tenant: str | None,
        *,
        purpose: str | None = None,
        after: str | None = None,
        limit: int = MAX_PAGE,
        ascending: bool = False,
    ) -> tuple[Sequence[File], bool]:
        """A page and whether there are more. Raises `BadRequest` for an `after` that is no file."""
        async with self._engine.connect() as connection:
            query = _mine(tenant)
            if purpose is not None:
                purpose = purpose.replace("\0", "?")  # which Postgres takes in no text
                query = query.where(_C.purpose == purpose)
            if after is not None:
                known = _mine(tenant).with_only_columns(_C.number).where(_C.id == after)
                number = await connection.scalar(known) if _FORM.fullmatch(after) else None
                if number is None:
                    raise BadRequest(
                        f"`after` is {after[:100]!r}, which is no file of yours.",
                        code="invalid_value",
                        param="after",
                    )
                query = query.where(_C.number > number if ascending else _C.number < number)
            order = _C.number.asc() if ascending else _C.number.desc()
            rows = (await connection.execute(query.order_by(order).limit(limit + 1))).all()
        return [_file(row) for row in rows[:limit]], len(rows) > limit

    async def delete(self, id: str, tenant: str | None) -> None:
        """Raises `NotFound`."""
        await self.get(id, tenant)
        async with self._engine.begin() as connection:
            await _lock(connection)
            where = _mine(tenant).with_only_columns(_C.id).where(_C.id == id)
            gone = await connection.execute(
                sa.delete(table).where(_C.id.in_(where)).returning(_C.id, _C.sha256)
            )
            digests = [row.sha256 for row in gone]
            if not digests:
                raise NotFound(f"No such File object: {id[:100]}", code="file_not_found", param="id")
            await self._let_go(connection, digests)

    def path(self, file: File) -> Path:
        """Where its bytes are."""
        return self.blobs.path(file.sha256)

    async def _expire(self, connection: AsyncConnection) -> None:
        gone = await connection.execute(
            sa.delete(table).where(_C.expires_at < sa.func.now()).returning(_C.sha256)
        )
        await self._let_go(connection, [row.sha256 for row in gone])

    async def _let_go(self, connection: AsyncConnection, digests: Sequence[str]) -> None:
        """Deletes bytes that no row names any more; under the lock."""
        kept = set(await connection.scalars(sa.select(_C.sha256).where(_C.sha256.in_(digests))))
        for digest in set(digests) - kept:
            await asyncio.shield(asyncio.to_thread(self.blobs.delete, digest))


def check_upload(filename: str | None, purpose: str | None, size: int) -> tuple[str, str]:
    """The name and the purpose of an upload. Raises `BadRequest` as OpenAI does."""
    if purpose is None:
        raise BadRequest(
            "'purpose' is a required property", code="missing_required_parameter", param="purpose"
        )
    if purpose not in PURPOSES:
        raise BadRequest(
            f"{purpose[:64]!r} is not one of {list(PURPOSES[:2])} - 'purpose'",
            code="invalid_purpose",
            param="purpose",
        )
    name = (filename or "upload.jsonl").replace("\\", "/").rpartition("/")[2]
    name = "".join(letter if letter.isprintable() else "?" for letter in name)[:MAX_NAME] or "upload.jsonl"
    if not size:
        raise BadRequest("The file is empty.", code="empty_file", param="file")
    if purpose == "fine-tune" and not name.lower().endswith((".jsonl", ".ndjson")):
        raise BadRequest(
            f"Invalid file format for Fine-Tuning API: {name[-40:]!r}. Must be .jsonl",
            code="invalid_file_format",
            param="file",
        )
    return name, purpose


def new_id(prefix: str, length: int = 24) -> str:
    """An id as OpenAI's look: a prefix, and letters and digits that nobody guesses."""
    return prefix + "".join(secrets.choice(_ID) for _ in range(length))


async def _lock(connection: AsyncConnection) -> None:
    await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))


def _mine(tenant: str | None) -> sa.Select[Any]:
    query = sa.select(table).where(sa.or_(_C.expires_at.is_(None), _C.expires_at > sa.func.now()))
    return query if tenant is None else query.where(_C.tenant == tenant)


def _file(row: sa.Row[Any]) -> File:
    return File(
        row.id,
        row.tenant,
        row.filename,
        row.purpose,
        row.size_bytes,
        row.sha256,
        row.created_at,
        row.expires_at,
    )
