"""The embedded server: Postgres as a child process of ours, with a password, on loopback only."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path

from gateway.db import account, postgres
from gateway.db.account import Account
from gateway.db.postgres import PostgresError
from gateway.supervise import Child, Lock, free_port

log = logging.getLogger(__name__)

USER = "hotswap"
DATABASE = "postgres"
READY_TIMEOUT_S = 300.0
"""Recovery after a crash may take long on a slow disk; the process is watched meanwhile."""
READY_POLL_S = 0.01
STOP_GRACE_S = 30.0
FIRST_BACK_OFF_S, LAST_BACK_OFF_S = 0.1, 5.0
HEALTHY_AFTER_S = 30.0
PORT_TRIES = 5

A_PROCESS = 11
"""Connections of one gateway process: a pool of 5 and 5 more in a burst, and one that listens."""

FOR_OTHERS = 20

CONFIGURATION = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    # No replicas and no archive, so no bookkeeping for them; fsync and full_page_writes stay on.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    # Small tables: parallel workers only cost, and need more /dev/shm than Docker gives. Nor I/O workers.
    "max_parallel_workers_per_gather": "0",
    "io_method": "sync",
    "jit": "off",
    "log_line_prefix": "%m [%p] ",
    "timezone": "UTC",
}


class EmbeddedPostgres:
    """A server over `data_dir`, made on first use, restarted on the same port when it dies.

    Beside the data directory stand `<data_dir>.password` (0600) and the lock `<data_dir>.lock`; the record
    for `gateway.supervise.sweep` is under `state_dir` (default: the folder of `data_dir`).
    """

    def __init__(
        self, data_dir: Path, log_path: Path, *, state_dir: Path | None = None, processes: int = 1
    ) -> None:
        self._max_connections = FOR_OTHERS + processes * A_PROCESS
        self.data_dir = data_dir.absolute()
        self.log_path = log_path.absolute()
        self.port: int | None = None
        self._state_dir = (state_dir or self.data_dir.parent).absolute()
        self._lock = Lock(self.data_dir.parent, self.data_dir.name)
        self._password_path = self.data_dir.with_name(self.data_dir.name + ".password")
        self._child: Child | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Pid of the server that runs now."""
        return self._child.pid if self._child is not None and self._child.running else None

    async def start(self) -> str:
        """Make the data directory if there is none, start the server, and wait until it takes connections.

        Returns its URL (`postgresql://…`, with the password). A server that a killed run left on the data
        directory is stopped first. Raises `PostgresError`, or `supervise.Locked` when another process of ours
        runs this data directory.
        """
        self._lock.acquire()
        try:
            folder, who, password = await asyncio.to_thread(self._prepare)
            for tries_left in reversed(range(PORT_TRIES)):
                self.port = free_port()
                try:
                    self._child = await self._launch(folder, who, self.port)
                    break
                except PostgresError as error:
                    if "could not bind" not in str(error) or not tries_left:
                        raise
        except BaseException:
            self._lock.release()
            raise
        # Owned by this object: stop() ends and awaits it.
        self._watch = asyncio.create_task(self._keep_running(folder, who), name="embedded postgres")
        return f"postgresql://{USER}:{password}@127.0.0.1:{self.port}/{DATABASE}"

    async def stop(self) -> None:
        """Stop the server cleanly (fast shutdown: clients are cut, everything committed is kept)."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
        if self._child is not None and self._child.running:
            await self._child.stop()
        self._lock.release()
        if watch is not None and not watch.cancelled():
            watch.result()

    def _prepare(self) -> tuple[Path, Account, str]:
        made = self.data_dir / "PG_VERSION"
        if made.exists():
            folder = postgres.binaries(made.read_text().strip())
            postgres.end_leftover(self.data_dir)
            who = account.choose(self.data_dir, folder)
            if not self._password_path.exists():
                self._reset_password(folder, who)
        else:
            folder = postgres.binaries()
            who = self._make(folder)
        return folder, who, self._password_path.read_text().strip()

    def _make(self, folder: Path) -> Account:
        """initdb into `<data_dir>.new`, then one rename: a crash in between leaves nothing half made."""
        new = self.data_dir.with_name(self.data_dir.name + ".new")
        if new.exists():
            shutil.rmtree(new)
        if self.data_dir.exists() and any(self.data_dir.iterdir()):
            raise PostgresError(
                f"{self.data_dir} is neither empty nor a Postgres data directory: move it away, or choose "
                "another state_dir"
            )
        new.mkdir(mode=0o700)
        who = account.choose(new, folder)
        password = secrets.token_urlsafe(24)
        self._keep_password(password)
        # The password goes through an anonymous file: nothing to leave behind.
        memory = os.memfd_create("password")
        try:
            os.write(memory, password.encode() + b"\n")
            options = ["-U", USER, "-A", "scram-sha-256", f"--pwfile=/proc/self/fd/{memory}", "-D", str(new)]
            options += ["--encoding=UTF8", "--locale=C", "--no-instructions"]
            self._run([str(folder / "initdb"), *options], who, pass_fds=(memory,))
        finally:
            os.close(memory)
        new.rename(self.data_dir)
        return who

    def _keep_password(self, password: str) -> None:
        new = self._password_path.with_name(self._password_path.name + ".new")
        new.unlink(missing_ok=True)
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(password + "\n")
            os.fsync(file.fileno())
        new.replace(self._password_path)

    def _reset_password(self, folder: Path, who: Account) -> None:
        """The password file was lost: set a new one, which whoever owns the data directory may."""
        log.warning("%s is missing; setting a new password", self._password_path)
        server = [str(folder / "postgres"), "--single", "-D", str(self.data_dir), DATABASE]
        password = secrets.token_urlsafe(24)
        self._run(server, who, stdin=f"ALTER USER {USER} PASSWORD '{password}'\n")
        self._keep_password(password)

    def _run(
        self, command: list[str], who: Account, *, stdin: str = "", pass_fds: tuple[int, ...] = ()
    ) -> None:
        done = subprocess.run(
            [*who.prefix, *command],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env=_environment(),
            cwd="/",
            user=who.user,
            group=who.group,
            extra_groups=who.extra_groups,
            pass_fds=pass_fds,
        )
        if done.returncode != 0:
            raise PostgresError(f"{command[0]} failed ({done.returncode}): {done.stderr.strip()[-2000:]}")

    async def _launch(self, folder: Path, who: Account, port: int) -> Child:
        """A started server that takes connections. Raises `PostgresError` with what it said, and ends it."""
        configuration = {**CONFIGURATION, "max_connections": str(self._max_connections)}
        settings = [part for key, value in configuration.items() for part in ("-c", f"{key}={value}")]
        child = Child(
            "postgres",
            [*who.prefix, str(folder / "postgres"), "-D", str(self.data_dir), "-p", str(port), *settings],
            state_dir=self._state_dir,
            log_path=self.log_path,
            env=_environment(),
            cwd=Path("/"),
            identity=who.identity,
            stop_signal=signal.SIGINT,
            grace_s=STOP_GRACE_S,
        )
        offset = _size(self.log_path)
        pid = await child.start()
        deadline = time.monotonic() + READY_TIMEOUT_S
        try:
            while not postgres.is_ready(self.data_dir, pid):
                if not child.running or time.monotonic() > deadline:
                    said = postgres.last_words(self.log_path, offset)
                    raise PostgresError(
                        f"Postgres did not start on port {port}; {self.log_path} says: {said}"
                    )
                await asyncio.sleep(READY_POLL_S)
        except BaseException:
            await child.stop()
            raise
        return child

    async def _keep_running(self, folder: Path, who: Account) -> None:
        assert self._child is not None
        assert self.port is not None
        back_off = FIRST_BACK_OFF_S
        while True:
            started = time.monotonic()
            status = await self._child.wait()
            if time.monotonic() - started > HEALTHY_AFTER_S:
                back_off = FIRST_BACK_OFF_S
            log.error("Postgres ended with status %d; starting it again in %.1f s", status, back_off)
            await asyncio.sleep(back_off)
            back_off = min(2 * back_off, LAST_BACK_OFF_S)
            try:
                await asyncio.to_thread(postgres.end_leftover, self.data_dir)
                self._child = await self._launch(folder, who, self.port)
            except (PostgresError, OSError) as error:
                log.error("Postgres could not be started again: %s", error)  # noqa: TRY400 - it says it all


def _environment() -> dict[str, str]:
    """Nothing of ours: PG* and locale variables would change what the server does."""
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C"}


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def running_url(data_dir: Path) -> str:
    """The URL of the server that another process of ours runs over `data_dir`.

    Raises `PostgresError` when there is none.
    """
    try:
        port = int((data_dir / "postmaster.pid").read_text().splitlines()[3])
        password = data_dir.with_name(data_dir.name + ".password").read_text().strip()
    except (OSError, IndexError, ValueError) as error:
        raise PostgresError(
            f"no Postgres runs over {data_dir}. Start it with `hotswap up`, or name one by database.url_env"
        ) from error
    return f"postgresql://{USER}:{password}@127.0.0.1:{port}/{DATABASE}"
