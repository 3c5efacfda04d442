"""Migrations reach head once and together; connections and LISTEN heal."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, NullPool, create_engine, text

import adapters.tables
import gateway.access.tables
import gateway.files.tables
import gateway.jobs.tables
from gateway.datasets import tables as datasets
from gateway.db import Database, DatabaseError, EmbeddedPostgres
from gateway.db.database import head
from gateway.db.migrations import runner
from gateway.fleet import wishes
from gateway.retraining import plans
from gateway.traffic import amendments, feedback, forgetting, imports, policy, rollup, traffic
from tests.supervise.family import eventually

AT_HEAD = """
import asyncio, sys
from gateway.db import Database
migrated = asyncio.run(Database(sys.argv[1]).migrate())
print(migrated, "alembic" in sys.modules)
"""


def url_of(db: Database) -> str:
    return db.url.render_as_string(hide_password=False)


async def revision(db: Database) -> object:
    async with db.engine.connect() as connection:
        return await connection.scalar(text("SELECT version_num FROM alembic_version"))


async def test_an_empty_database_is_brought_to_head(db: Database) -> None:
    assert await db.migrate()
    assert head() == await revision(db)


async def test_a_database_at_head_has_nothing_to_do(db: Database) -> None:
    await db.migrate()
    assert not await db.migrate()


async def test_a_database_at_head_costs_no_import_of_alembic(db: Database) -> None:
    await db.migrate()
    words = [sys.executable, "-c", AT_HEAD, url_of(db)]
    done = await asyncio.to_thread(subprocess.run, words, capture_output=True, text=True, check=True)
    assert ["False", "False"] == done.stdout.split()


async def test_several_gateways_migrate_at_once(db: Database) -> None:
    others = [Database(url_of(db)) for _ in range(4)]
    await asyncio.gather(*(other.migrate() for other in others))
    await asyncio.gather(*(other.close() for other in others))
    assert head() == await revision(db)


async def test_a_migration_that_fails_leaves_nothing_behind(db: Database) -> None:
    async with db.engine.begin() as connection:
        await connection.execute(text("CREATE TABLE keys (mine int)"))
    with pytest.raises(Exception, match='"keys" already exists'):
        await db.migrate()
    async with db.engine.connect() as connection:
        assert await connection.scalar(text("SELECT to_regclass('alembic_version')")) is None


async def test_a_schema_newer_than_this_version_is_refused(db: Database) -> None:
    await db.migrate()
    async with db.engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseError, match=r"9999, newer than .*start the version"):
        await db.migrate()


TABLES = (
    datasets.metadata,
    adapters.tables.metadata,
    gateway.access.tables.metadata,
    wishes.metadata,
    policy.metadata,
    traffic.metadata,
    rollup.metadata,
    forgetting.metadata,
    feedback.metadata,
    imports.metadata,
    amendments.metadata,
    gateway.files.tables.metadata,
    gateway.jobs.tables.metadata,
    plans.metadata,
)
SCHEMA = "c70ec4b400a60ad9592787653aae5ae77ae41bf801d56b5bd2712751a07f2009"
OF_THE_QUEUE = "procrastinate_"


async def test_tables_and_migrations_agree(db: Database) -> None:
    await db.migrate()
    wanted = MetaData()
    for metadata in TABLES:
        for table in metadata.tables.values():
            table.to_metadata(wanted)
    async with db.engine.connect() as connection:
        differences = await connection.run_sync(
            lambda sync: compare_metadata(
                MigrationContext.configure(
                    sync,
                    opts={
                        "compare_type": True,
                        "compare_server_default": True,
                        "include_name": lambda name, kind, _: (
                            kind != "table" or not (name or "").startswith(OF_THE_QUEUE)
                        ),
                    },
                ),
                wanted,
            )
        )
    assert [] == differences


def test_the_schema_of_the_queue_is_the_one_that_was_migrated_to() -> None:
    """A newer procrastinate has another: migrate by its sql/migrations, then renew this."""
    scripts = ScriptDirectory.from_config(runner.config())
    module = scripts.get_revision("0008").module
    assert SCHEMA == hashlib.sha256(module.queue_schema().encode()).hexdigest()


async def test_migrations_go_down_and_up_again(db: Database) -> None:
    await db.migrate()

    def there_and_back() -> None:
        engine = create_engine(db.url, poolclass=NullPool)
        with engine.begin() as connection:
            config = runner.config()
            config.attributes["connection"] = connection
            command.downgrade(config, "base")
            command.upgrade(config, "head")

    await asyncio.to_thread(there_and_back)
    assert head() == await revision(db)


def test_head_by_file_names_is_the_one_head_that_alembic_sees() -> None:
    assert [head()] == ScriptDirectory.from_config(runner.config()).get_heads()


def test_revisions_are_named_by_their_files() -> None:
    scripts = ScriptDirectory.from_config(runner.config())
    names = {Path(script.path).name[:4]: script.revision for script in scripts.walk_revisions()}
    assert [] == [name for name, found in names.items() if name != found]


@pytest.mark.parametrize("url", ["mysql://u:secret@h/d", "postgresql://u:secret@h:port/d", "secret"])
def test_a_url_that_will_not_do_is_refused_without_showing_its_password(url: str) -> None:
    with pytest.raises(DatabaseError, match="postgresql://user:password@host:port/name") as refusal:
        Database(url)
    assert "secret" not in str(refusal.value)


async def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    with pytest.raises(DatabaseError, match=r"127\.0\.0\.1:1/d.*refused") as refusal:
        await Database("postgresql://u:secret@127.0.0.1:1/d").migrate()
    assert "secret" not in str(refusal.value)


class Heard:
    """Counts calls."""

    def __init__(self) -> None:
        self.times = 0

    async def __call__(self) -> None:
        self.times += 1


@asynccontextmanager
async def listening(db: Database, callback: Heard) -> AsyncIterator[asyncio.Task[None]]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(db.listen(["a_channel"], callback))
        await eventually(lambda: callback.times == 1)
        yield task
        task.cancel()


async def notify(db: Database, channel: str, times: int = 1) -> None:
    async with db.engine.begin() as connection:
        for number in range(times):
            await connection.execute(
                text("SELECT pg_notify(:channel, :what)"), {"channel": channel, "what": str(number)}
            )


async def test_listen_calls_back_on_each_notification(db: Database) -> None:
    heard = Heard()
    async with listening(db, heard):
        await notify(db, "a_channel")
        await eventually(lambda: heard.times == 2)
        await notify(db, "a_channel")
        await eventually(lambda: heard.times == 3)


async def test_listen_takes_a_burst_for_one(db: Database) -> None:
    heard = Heard()
    async with listening(db, heard):
        await notify(db, "a_channel", times=100)
        await notify(db, "another")
        await eventually(lambda: heard.times > 1)
        await notify(db, "a_channel")
        await eventually(lambda: heard.times >= 3)
    assert 3 == heard.times


async def test_listen_ends_with_an_error_that_is_not_the_databases(db: Database) -> None:
    async def broken() -> None:
        raise LookupError("a bug")

    with pytest.raises(LookupError, match="a bug"):
        await db.listen(["a_channel"], broken)


async def test_listen_tries_again_when_the_callback_loses_the_database(db: Database) -> None:
    calls = 0

    async def broken_once() -> None:
        nonlocal calls
        calls += 1
        async with db.engine.connect() as connection:
            await connection.execute(text("SELECT 1/0" if calls == 1 else "SELECT 1"))

    task = asyncio.create_task(db.listen(["a_channel"], broken_once))
    await eventually(lambda: calls == 2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_after_a_kill_of_the_server_queries_work_and_listen_calls_back(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "postgres", tmp_path / "log")
    db = Database(await server.start())
    heard = Heard()
    async with listening(db, heard):
        await db.migrate()  # leaves a connection in the pool
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        await eventually(lambda: heard.times == 2)
        assert not await db.migrate()
    await db.close()
    await server.stop()
