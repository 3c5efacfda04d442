"""API keys: in Postgres by their hash, on the request path from memory."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, cast

from sqlalchemy import Row, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gateway.access import secret as secrets_of
from gateway.access.tables import DEFAULT_TENANT
from gateway.access.tables import keys as table
from gateway.errors import BadRequest, NotFound, Unauthorized

CHANNEL = "hotswap_keys"
"""NOTIFY on it makes every gateway refresh; sent in the transaction of each change."""

MAX_LABEL = 200
TENANT = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

Role = Literal["admin", "inference"]


@dataclass(frozen=True, slots=True)
class Key:
    """A key without its secret. `id` names it in logs and commands; what is remembered of its requests is its
    `tenant`'s, and no other tenant's keys reach it."""

    id: str
    role: Role
    label: str
    tenant: str
    created_at: datetime
    revoked_at: datetime | None = None


class Keys:
    """Every key. Nobody is let in before the first `refresh()`.

    When the database is down the last snapshot goes on; changes raise SQLAlchemy's errors then.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._active: Mapping[bytes, Key] = {}
        # A refresh that read before a revocation must not put its older snapshot over it.
        self._changing = asyncio.Lock()

    def authenticate(self, authorization: bytes | None) -> Key:
        """The key in an Authorization header, from memory alone.

        Raises `Unauthorized` with code `missing_api_key`, or `invalid_api_key` when unknown or revoked.
        """
        secret = secrets_of.from_header(authorization)
        key = self._active.get(secrets_of.digest(secret))
        if key is None:
            raise Unauthorized(
                f"Incorrect API key provided: {secrets_of.masked(secret)}. "
                "`hotswap keys ls` lists the keys, `hotswap keys create` makes one."
            )
        return key

    async def refresh(self) -> None:
        """Take the active keys from the database into memory; at start and on every notification."""
        async with self._changing, self._engine.connect() as connection:
            rows = await connection.execute(select(table).where(table.c.revoked_at.is_(None)))
            self._active = {row.sha256: _key(row) for row in rows}

    async def create(self, role: Role, label: str, tenant: str = DEFAULT_TENANT) -> tuple[Key, str]:
        """A new key and its secret, which is kept nowhere. It works here at once, elsewhere when notified."""
        _check(role, label, tenant)
        secret = secrets_of.make(role)
        async with self._changing:
            async with self._engine.begin() as connection:
                key = await _insert(connection, role, label, tenant, secret)
            self._active = {**self._active, secrets_of.digest(secret): key}
        return key, secret

    async def list(self) -> list[Key]:
        """Every key, revoked ones too, oldest first."""
        async with self._engine.connect() as connection:
            rows = await connection.execute(select(table).order_by(table.c.created_at, table.c.id))
            return [_key(row) for row in rows]

    async def revoke(self, id: str) -> Key:
        """End a key for good: here at once, elsewhere when notified. Again is no error.

        Raises `NotFound`, code `key_not_found`.
        """
        async with self._changing:
            async with self._engine.begin() as connection:
                revoked_at = func.coalesce(table.c.revoked_at, func.now())
                change = update(table).where(table.c.id == id).values(revoked_at=revoked_at)
                row = (await connection.execute(change.returning(table))).one_or_none()
                if row is not None:
                    await _notify(connection)
            if row is None:
                raise NotFound(
                    f"there is no key {id!r}; `hotswap keys ls` lists the ids",
                    code="key_not_found",
                    param="id",
                )
            self._active = {hashed: key for hashed, key in self._active.items() if key.id != id}
        return _key(row)

    async def ensure_admin(self, file: Path) -> bool:
        """Make an admin key and keep its secret in `file` (0600), if there is need; whether there was.

        There is need when no admin key is active, or `file` is missing or holds a secret that the database
        has never seen: whoever owns the file's folder owns this deployment, and must be able to get back in.
        A key in `file` that was revoked while another admin key is active is left alone.
        """
        async with self._changing:
            async with self._engine.begin() as connection:
                await connection.execute(
                    text("SELECT pg_advisory_xact_lock(hashtext(:what))"), {"what": CHANNEL}
                )
                admins = select(func.count()).where(table.c.role == "admin", table.c.revoked_at.is_(None))
                kept = await asyncio.to_thread(secrets_of.read_file, file)
                known = select(func.count()).where(table.c.sha256 == secrets_of.digest(kept or ""))
                if await connection.scalar(admins) and await connection.scalar(known):
                    return False
                secret = secrets_of.make("admin")
                key = await _insert(connection, "admin", "made at start", DEFAULT_TENANT, secret)
                # Before the commit: a crash in between leaves a file whose key is unknown, which the next
                # start replaces; after it, it would leave a key that nobody has.
                await asyncio.to_thread(secrets_of.write_file, file, secret)
            self._active = {**self._active, secrets_of.digest(secret): key}
        return True


async def _insert(connection: AsyncConnection, role: Role, label: str, tenant: str, secret: str) -> Key:
    row = {"id": f"key_{secrets.token_hex(8)}", "role": role, "label": label, "tenant": tenant}
    made = insert(table).values(**row, sha256=secrets_of.digest(secret)).returning(table)
    key = _key((await connection.execute(made)).one())
    await _notify(connection)
    return key


async def _notify(connection: AsyncConnection) -> None:
    await connection.execute(select(func.pg_notify(CHANNEL, "")))


def _key(row: Row[Any]) -> Key:
    return Key(row.id, cast(Role, row.role), row.label, row.tenant, row.created_at, row.revoked_at)


def _check(role: str, label: str, tenant: str) -> None:
    if role not in secrets_of.PREFIXES:
        known = " or ".join(secrets_of.PREFIXES)
        raise BadRequest(f"role {role!r} of a key is unknown: {known}", param="role")
    if len(label) > MAX_LABEL or not label.isprintable():
        raise BadRequest(
            f"label {label[:40]!r} of a key is not usable: at most {MAX_LABEL} printable characters",
            param="label",
        )
    if not TENANT.fullmatch(tenant):
        raise BadRequest(
            f"tenant {tenant[:40]!r} of a key is not usable: 1 to 64 of a-z, 0-9, '-', '_' and '.'",
            param="tenant",
        )
