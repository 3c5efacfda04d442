"""Callers are known from memory; changes reach it; only hashes are kept."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.access import CHANNEL, Key, Keys
from gateway.access.tables import keys as table
from gateway.db import Database
from gateway.errors import BadRequest, NotFound, Unauthorized
from tests.supervise.family import eventually


@pytest_asyncio.fixture
async def keys(db: Database) -> Keys:
    found = Keys(db.engine)
    await found.refresh()
    return found


def shown(secret: str) -> bytes:
    return f"Bearer {secret}".encode()


def knows(keys: Keys, secret: str) -> bool:
    try:
        keys.authenticate(shown(secret))
    except Unauthorized:
        return False
    return True


@pytest_asyncio.fixture
async def other(db: Database) -> AsyncIterator[Keys]:
    """The keys as another gateway sees them."""
    second = Database(db.url.render_as_string(hide_password=False))
    found = Keys(second.engine)
    listens = asyncio.Event()

    async def refresh() -> None:
        await found.refresh()
        listens.set()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(second.listen([CHANNEL], refresh))
        await listens.wait()
        yield found
        task.cancel()
    await second.close()


async def test_a_new_key_works_at_once(keys: Keys) -> None:
    key, secret = await keys.create("inference", "an app")
    assert key == keys.authenticate(shown(secret))


@pytest.mark.parametrize(
    ("role", "form"), [("inference", r"hs-[A-Za-z0-9_-]{43}"), ("admin", r"hs-admin-[A-Za-z0-9_-]{43}")]
)
async def test_a_secret_says_what_it_is_and_holds_32_random_bytes(keys: Keys, role: str, form: str) -> None:
    _, secret = await keys.create(role, "x")  # type: ignore[arg-type]
    assert re.fullmatch(form, secret)


async def test_the_database_holds_the_sha256_and_never_the_secret(keys: Keys, db: Database) -> None:
    _, secret = await keys.create("inference", "an app")
    async with db.engine.connect() as connection:
        row = (await connection.execute(select(table))).one()
    assert hashlib.sha256(secret.encode()).digest() == row.sha256
    assert secret not in repr(row)


@pytest.mark.parametrize("header", [None, b"", b"Bearer", b"Bearer  ", b"Basic dTpw", b"hs-abc"])
async def test_no_key_is_told_from_a_wrong_one(keys: Keys, header: bytes | None) -> None:
    with pytest.raises(Unauthorized, match="Authorization: Bearer YOUR_KEY") as refusal:
        keys.authenticate(header)
    assert (401, "missing_api_key") == (refusal.value.status, refusal.value.code)


async def test_an_unknown_key_is_refused_and_recognisable_but_not_repeated(keys: Keys) -> None:
    secret = "hs-abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOwxyz"
    with pytest.raises(Unauthorized, match=r"Incorrect API key provided: hs-abc\*\*\*wxyz") as refusal:
        keys.authenticate(shown(secret))
    assert "invalid_api_key" == refusal.value.code
    assert secret[8:-4] not in refusal.value.message


@pytest.mark.parametrize("secret", ["hunter2", "short-password", "31-characters-are-still-a-secret"[:31]])
async def test_of_a_short_key_nothing_is_shown(keys: Keys, secret: str) -> None:
    with pytest.raises(Unauthorized, match=r"provided: \*\*\*\."):
        keys.authenticate(shown(secret))


async def test_bytes_that_are_no_text_are_just_a_wrong_key(keys: Keys) -> None:
    with pytest.raises(Unauthorized, match=r"\?+") as refusal:
        keys.authenticate(b"Bearer \xff\xfe\x00\r\n" + b"\xf0" * 40)
    refusal.value.message.encode()  # it can be sent


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer "])
async def test_the_scheme_is_read_as_http_reads_it(keys: Keys, scheme: str) -> None:
    key, secret = await keys.create("inference", "an app")
    assert key == keys.authenticate(f"{scheme} {secret}".encode())


async def test_nobody_is_let_in_before_the_first_refresh(keys: Keys, db: Database) -> None:
    _, secret = await keys.create("inference", "an app")
    assert not knows(Keys(db.engine), secret)


async def test_a_revoked_key_is_refused_at_once(keys: Keys) -> None:
    key, secret = await keys.create("inference", "an app")
    await keys.revoke(key.id)
    assert not knows(keys, secret)


async def test_a_revoked_key_stays_refused_after_a_refresh(keys: Keys) -> None:
    key, secret = await keys.create("inference", "an app")
    await keys.revoke(key.id)
    await keys.refresh()
    assert not knows(keys, secret)


async def test_a_refresh_that_read_before_a_revocation_does_not_undo_it(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, secret = await keys.create("inference", "an app")
    has_read, go_on = asyncio.Event(), asyncio.Event()
    execute = AsyncConnection.execute

    async def slow(connection: AsyncConnection, *arguments: Any) -> Any:
        result = await execute(connection, *arguments)
        has_read.set()
        await go_on.wait()
        return result

    monkeypatch.setattr(AsyncConnection, "execute", slow)
    refresh = asyncio.create_task(keys.refresh())
    await has_read.wait()
    monkeypatch.undo()
    revoke = asyncio.create_task(keys.revoke(key.id))
    await asyncio.wait([revoke], timeout=0.5)  # time to overtake the refresh, if it can
    go_on.set()
    await asyncio.gather(refresh, revoke)
    assert not knows(keys, secret)


async def test_revoking_again_keeps_the_first_time(keys: Keys) -> None:
    key, _ = await keys.create("inference", "an app")
    first = await keys.revoke(key.id)
    assert first.revoked_at is not None
    assert first == await keys.revoke(key.id)


async def test_revoking_a_key_that_is_not_there_says_so(keys: Keys) -> None:
    with pytest.raises(NotFound, match=r"no key 'key_none'.*hotswap keys ls") as refusal:
        await keys.revoke("key_none")
    assert "key_not_found" == refusal.value.code


async def test_list_gives_every_key_and_no_secret(keys: Keys) -> None:
    first, secret = await keys.create("admin", "a")
    second, _ = await keys.create("inference", "b")
    revoked = await keys.revoke(second.id)
    assert [first, revoked] == await keys.list()
    assert secret not in repr(await keys.list())


async def test_another_gateway_learns_of_a_new_key(keys: Keys, other: Keys) -> None:
    _, secret = await keys.create("inference", "an app")
    await eventually(lambda: knows(other, secret))


async def test_another_gateway_learns_of_a_revocation(keys: Keys, other: Keys) -> None:
    key, secret = await keys.create("inference", "an app")
    await eventually(lambda: knows(other, secret))
    await keys.revoke(key.id)
    await eventually(lambda: not knows(other, secret))


async def test_keys_work_on_while_the_database_is_down(keys: Keys, db: Database) -> None:
    _, secret = await keys.create("inference", "an app")
    async with db.engine.begin() as connection:
        await connection.execute(text("DROP TABLE keys"))
    with pytest.raises(Exception, match="keys"):
        await keys.refresh()
    assert knows(keys, secret)


async def test_an_unknown_role_is_refused(keys: Keys) -> None:
    with pytest.raises(BadRequest, match=r"role 'root'.*admin or inference"):
        await keys.create("root", "x")  # type: ignore[arg-type]


@pytest.mark.parametrize("label", ["x" * 201, "two\nlines", "\x1b[31m"])
async def test_a_label_that_would_spoil_a_listing_is_refused(keys: Keys, label: str) -> None:
    with pytest.raises(BadRequest, match="label"):
        await keys.create("inference", label)


async def test_the_table_refuses_what_is_no_sha256(db: Database) -> None:
    row = {"id": "x", "role": "admin", "label": "", "sha256": b"short"}
    with pytest.raises(IntegrityError, match="keys_sha256_check"):
        async with db.engine.begin() as connection:
            await connection.execute(table.insert().values(row))


def admin_in(keys: Keys, file: Path) -> Key:
    return keys.authenticate(shown(file.read_text().strip()))


def mode_of(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


async def test_the_first_start_makes_an_admin_key_for_the_owner_only(keys: Keys, tmp_path: Path) -> None:
    file = tmp_path / "new" / "admin.key"
    assert await keys.ensure_admin(file)
    assert "admin" == admin_in(keys, file).role
    assert 0o600 == mode_of(file)


async def test_a_second_start_makes_none(keys: Keys, tmp_path: Path) -> None:
    file = tmp_path / "admin.key"
    await keys.ensure_admin(file)
    before = file.read_text()
    assert not await keys.ensure_admin(file)
    assert before == file.read_text()


async def test_a_lost_file_is_made_again_with_a_new_key(keys: Keys, tmp_path: Path) -> None:
    file = tmp_path / "admin.key"
    await keys.ensure_admin(file)
    os.unlink(file)
    assert await keys.ensure_admin(file)
    assert "admin" == admin_in(keys, file).role


async def test_when_no_admin_key_is_active_one_is_made(keys: Keys, tmp_path: Path) -> None:
    file = tmp_path / "admin.key"
    await keys.ensure_admin(file)
    await keys.revoke(admin_in(keys, file).id)
    assert await keys.ensure_admin(file)
    assert "admin" == admin_in(keys, file).role


async def test_a_file_whose_key_the_database_never_saw_is_made_again(keys: Keys, tmp_path: Path) -> None:
    file = tmp_path / "admin.key"
    await keys.create("admin", "somebody else's")
    file.write_text("hs-admin-of-another-database\n")
    assert await keys.ensure_admin(file)
    assert "admin" == admin_in(keys, file).role


async def test_a_file_whose_key_was_revoked_is_left_while_another_admin_is_there(
    keys: Keys, tmp_path: Path
) -> None:
    file = tmp_path / "admin.key"
    await keys.ensure_admin(file)
    await keys.create("admin", "another")
    await keys.revoke(admin_in(keys, file).id)
    assert not await keys.ensure_admin(file)
