"""The embedded server starts wherever it is put, survives what kills it, and is nobody else's."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio

from gateway.db import EmbeddedPostgres, PostgresError, account, postgres
from gateway.supervise import Locked, free_port
from tests.db.server import open_folder
from tests.supervise.family import is_alive, wait_until

GATEWAY = """
import asyncio, sys
from pathlib import Path
from gateway.db import EmbeddedPostgres
async def main():
    folder = Path(sys.argv[1])
    server = EmbeddedPostgres(folder / "postgres", folder / "postgres.log")
    print(await server.start(), server.pid, flush=True)
    await asyncio.sleep(1000)
asyncio.run(main())
"""


def embedded(folder: Path) -> EmbeddedPostgres:
    return EmbeddedPostgres(folder / "postgres", folder / "postgres.log")


@pytest.fixture
def reachable() -> Iterator[Path]:
    folder = open_folder()
    yield folder
    shutil.rmtree(folder)


@pytest_asyncio.fixture
async def fresh(tmp_path: Path) -> AsyncIterator[EmbeddedPostgres]:
    """A server with no data directory yet, started by the test and stopped in the end."""
    found = embedded(tmp_path)
    yield found
    await found.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data directory: copying it is quicker than making one."""
    folder = tmp_path_factory.mktemp("made")
    found = embedded(folder)
    await found.start()
    await found.stop()
    return folder


@pytest.fixture
def server(fresh: EmbeddedPostgres, tmp_path: Path, made: Path) -> EmbeddedPostgres:
    """As `fresh`, with a data directory from an earlier, clean run."""
    subprocess.run(["cp", "-a", made / "postgres", made / "postgres.password", tmp_path], check=True)
    return fresh


async def query(url: str, text: str) -> object:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        cursor = await connection.execute(text)
        row = await cursor.fetchone() if cursor.description else None
        return row and row[0]


def user_of(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def capabilities_of(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("CapEff:")[2].split()[0], 16)


def files_with(text: str, folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


async def answers(url: str, text: str) -> object:
    """`query`, tried until the server takes connections."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await query(url, text)
            except psycopg.OperationalError:
                await asyncio.sleep(0.01)


async def test_it_runs_in_a_folder_that_all_may_enter_and_not_as_root(reachable: Path) -> None:
    server = embedded(reachable)
    assert 1 == await query(await server.start(), "SELECT 1")
    assert server.pid is not None
    assert 0 != user_of(server.pid)
    await server.stop()


async def test_it_runs_in_a_closed_folder_and_not_as_root(fresh: EmbeddedPostgres, tmp_path: Path) -> None:
    assert 0o700 == mode_of(tmp_path)
    assert 1 == await query(await fresh.start(), "SELECT 1")
    assert fresh.pid is not None
    assert 0 != user_of(fresh.pid)


async def test_it_may_do_nothing_more_than_pass_closed_folders(server: EmbeddedPostgres) -> None:
    await server.start()
    assert server.pid is not None
    assert capabilities_of(server.pid) in (0, 1 << 2)  # CAP_DAC_READ_SEARCH


def test_where_root_can_become_nobody_of_use_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(account, "_works", lambda *_: False)
    with pytest.raises(PostgresError, match=r"run hotswap as an ordinary user.*database\.url_env"):
        account.choose(tmp_path, Path("/nowhere"))


def test_data_of_another_user_is_an_error_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(PostgresError, match=r"belongs to user .*run as that user"):
        account.choose(tmp_path, Path("/nowhere"))


async def test_it_listens_on_loopback_only_and_on_no_socket_file(server: EmbeddedPostgres) -> None:
    url = await server.start()
    assert "127.0.0.1" == await query(url, "SHOW listen_addresses")
    assert "" == await query(url, "SHOW unix_socket_directories")


async def test_it_wants_its_password(server: EmbeddedPostgres) -> None:
    url = await server.start()
    with pytest.raises(psycopg.OperationalError, match="password"):
        await query(f"postgresql://hotswap:wrong@127.0.0.1:{server.port}/postgres", "SELECT 1")
    assert "on" == await query(url, "SHOW fsync")


async def test_only_its_owner_reads_the_password_and_nothing_else_holds_it(
    fresh: EmbeddedPostgres, tmp_path: Path
) -> None:
    url = await fresh.start()
    password = url.split(":")[2].partition("@")[0]
    assert 0o600 == mode_of(tmp_path / "postgres.password")
    assert ["postgres.password"] == files_with(password, tmp_path)


async def test_a_lost_password_is_replaced(server: EmbeddedPostgres, tmp_path: Path) -> None:
    before = await server.start()
    await server.stop()
    (tmp_path / "postgres.password").unlink()
    after = await server.start()
    assert before.split("@")[0] != after.split("@")[0]
    assert 1 == await query(after, "SELECT 1")


async def test_a_clean_stop_keeps_the_data_and_needs_no_recovery(
    server: EmbeddedPostgres, tmp_path: Path
) -> None:
    await query(await server.start(), "CREATE TABLE kept AS SELECT 7 AS n")
    await server.stop()
    assert 7 == await query(await server.start(), "SELECT n FROM kept")
    assert "not properly shut down" not in (tmp_path / "postgres.log").read_text()


async def test_killed_it_comes_back_on_the_same_port_with_all_that_was_committed(
    server: EmbeddedPostgres,
) -> None:
    url = await server.start()
    await query(url, "CREATE TABLE kept AS SELECT 7 AS n")
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    assert 7 == await answers(url, "SELECT n FROM kept")


async def test_stop_right_after_a_kill_leaves_nothing(server: EmbeddedPostgres, tmp_path: Path) -> None:
    await server.start()
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await server.stop()
    assert [] == postgres._servers(tmp_path / "postgres")


async def test_a_pid_file_whose_pid_is_somebody_elses_does_not_block_a_start(
    server: EmbeddedPostgres, tmp_path: Path
) -> None:
    with stranger_in_pid_file(tmp_path / "postgres") as pid:
        assert 1 == await query(await server.start(), "SELECT 1")
        assert is_alive(pid)


async def test_a_server_left_from_a_killed_run_is_stopped_cleanly_first(
    server: EmbeddedPostgres, tmp_path: Path
) -> None:
    with unsupervised(tmp_path / "postgres") as old:
        assert 1 == await query(await server.start(), "SELECT 1")
        assert 0 == old.wait(5)


async def test_data_that_root_restored_from_a_copy_are_taken(
    fresh: EmbeddedPostgres, tmp_path: Path, made: Path
) -> None:
    shutil.copytree(made / "postgres", tmp_path / "postgres")  # whoever copies owns the copy
    shutil.copy(made / "postgres.password", tmp_path)
    assert 1 == await query(await fresh.start(), "SELECT 1")


async def test_two_runs_on_one_data_directory_are_refused(server: EmbeddedPostgres, tmp_path: Path) -> None:
    url = await server.start()
    with pytest.raises(Locked, match=f"process {os.getpid()}"):
        await embedded(tmp_path).start()
    assert 1 == await query(url, "SELECT 1")


async def test_a_folder_of_something_else_is_refused_and_left_alone(
    fresh: EmbeddedPostgres, tmp_path: Path
) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "thesis.txt").write_text("years")
    with pytest.raises(PostgresError, match="move it away"):
        await fresh.start()
    assert "years" == (tmp_path / "postgres" / "thesis.txt").read_text()


async def test_a_half_made_data_directory_is_made_anew(fresh: EmbeddedPostgres, tmp_path: Path) -> None:
    (tmp_path / "postgres.new" / "base").mkdir(parents=True)
    assert 1 == await query(await fresh.start(), "SELECT 1")


async def test_what_keeps_the_server_from_starting_is_in_the_error(
    server: EmbeddedPostgres, tmp_path: Path
) -> None:
    with (tmp_path / "postgres" / "postgresql.auto.conf").open("a") as file:
        file.write("no_such_setting = 1\n")
    with pytest.raises(PostgresError, match="no_such_setting"):
        await server.start()


async def test_a_port_that_was_taken_meanwhile_is_another_ones(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch, postgres_url: str
) -> None:
    free = free_port()
    taken = int(postgres_url.rpartition(":")[2].partition("/")[0])
    ports = iter([taken, free])
    monkeypatch.setattr("gateway.db.embedded.free_port", lambda: next(ports))
    assert 1 == await query(await server.start(), "SELECT 1")
    assert free == server.port


async def test_kill_9_of_the_gateway_stops_it_cleanly_and_the_next_start_works(
    server: EmbeddedPostgres, tmp_path: Path
) -> None:
    with gateway(tmp_path) as (url, pid):
        await query(url, "CREATE TABLE kept AS SELECT 7 AS n")
    wait_until(lambda: not is_alive(pid))
    assert 7 == await query(await server.start(), "SELECT n FROM kept")
    assert "not properly shut down" not in (tmp_path / "postgres.log").read_text()


@contextmanager
def stranger_in_pid_file(data_dir: Path) -> Iterator[int]:
    """A pid file that names a living process of somebody else."""
    owner = data_dir.stat()
    user = owner.st_uid if os.geteuid() == 0 else None  # Postgres believes a pid of its own user only
    stranger = subprocess.Popen(["sleep", "1000"], user=user, cwd="/")
    stale = data_dir / "postmaster.pid"
    stale.write_text(f"{stranger.pid}\n{data_dir}\n1\n5432\n\n127.0.0.1\n  1 1\nready\n")
    os.chown(stale, owner.st_uid, owner.st_gid)
    yield stranger.pid
    stranger.kill()
    stranger.wait()


@contextmanager
def gateway(folder: Path) -> Iterator[tuple[str, int]]:
    """URL and pid of the server of another process of ours, which is killed in the end."""
    words = [sys.executable, "-c", GATEWAY, str(folder)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url, pid = process.stdout.readline().split()
        yield url, int(pid)
        process.kill()


@contextmanager
def unsupervised(data_dir: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server that nobody looks after."""
    folder = postgres.binaries()
    who = account.choose(data_dir, folder)
    options = ["-p", str(free_port()), "-c", "unix_socket_directories="]
    with subprocess.Popen(
        [*who.prefix, str(folder / "postgres"), "-D", str(data_dir), *options],
        user=who.user,
        group=who.group,
        extra_groups=who.extra_groups,
        stderr=subprocess.DEVNULL,
    ) as process:
        wait_until(lambda: postgres.is_ready(data_dir, process.pid))
        yield process
