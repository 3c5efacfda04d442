"""`hotswap up` and `hotswap down`: one process to run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from gateway.cli.client import fail, say


@click.command()
@click.option("--detach", "-d", is_flag=True, help="Leave it running; return when it is ready.")
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="Settings file (hotswap.toml)."
)
@click.option("--state-dir", type=click.Path(path_type=Path), help="Folder for everything that is written.")
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on; 0 picks a free one.")
@click.option("--no-engine", is_flag=True, help="Serve without a local engine.")
@click.option(
    "--timeout", default=600.0, show_default=True, help="With --detach: seconds to wait for readiness."
)
def up(
    detach: bool,
    config_file: Path | None,
    state_dir: Path | None,
    host: str | None,
    port: int | None,
    no_engine: bool,
    timeout: float,
) -> None:
    """Start Postgres, the engine and the gateway. Ctrl-C or SIGTERM drains and stops all of it."""
    flags = {
        "state_dir": state_dir,
        "server.host": host,
        "server.port": port,
        "engine.enabled": False if no_engine else None,
    }
    if detach:
        _detached(config_file, flags, sys.argv[1:], timeout)
        return
    from adapters.base.manifest import BaseError
    from gateway.db import DatabaseError, PostgresError
    from gateway.serve import serve
    from gateway.settings import SettingsError, load
    from gateway.supervise import Locked, Unkillable

    started = time.monotonic()
    try:
        serve(
            load(config_file, flags=flags)[0],
            lambda line: say(f"[{time.monotonic() - started:6.1f}s] {line}"),
        )
    except (SettingsError, Locked, Unkillable, BaseError, DatabaseError, PostgresError) as error:
        fail(str(error))


@click.command()
@click.option("--state-dir", type=click.Path(path_type=Path), help="Folder that `hotswap up` was given.")
@click.option("--timeout", default=90.0, show_default=True, help="Seconds to wait for the drain.")
def down(state_dir: Path | None, timeout: float) -> None:
    """Drain and stop the gateway, its engine and its Postgres."""
    from gateway.supervise import Lock

    lock = Lock(_folder(None, state_dir))
    pid = lock.holder()
    if pid is None:
        say("nothing is running")
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout
    while lock.holder() == pid:
        if time.monotonic() > deadline:
            fail(f"process {pid} has not stopped after {timeout:.0f} s; its log says why")
        time.sleep(0.1)
    say("stopped")


def _detached(config_file: Path | None, flags: dict[str, Any], arguments: list[str], timeout: float) -> None:
    from gateway.supervise import Lock

    state = _folder(config_file, flags["state_dir"])
    output = state / "logs" / "up.log"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.touch()
    offset = output.stat().st_size
    if (running := Lock(state).holder()) is not None:
        say(f"already running (process {running})")
        _wait(state, output, offset, timeout, lambda: Lock(state).holder() != running)
        return
    attached = [word for word in arguments if word not in ("--detach", "-d")]
    with output.open("ab") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway.cli", *attached],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )
    _wait(state, output, offset, timeout, lambda: process.poll() is not None)


def _wait(state: Path, output: Path, offset: int, timeout: float, ended: Callable[[], bool]) -> None:
    """Shows progress (what `output` gets after `offset`) until /readyz says yes."""
    import httpx

    deadline = time.monotonic() + timeout
    while True:
        offset = _copy(output, offset)
        if ended():
            _copy(output, offset)
            fail(f"the gateway ended before it was ready; see {output}")
        record = _record(state)
        if record is not None:
            try:
                if httpx.get(record["url"] + "/readyz", timeout=2).status_code == 200:
                    break
            except httpx.TransportError:
                offset = _copy(output, offset)  # it has bound its port and is not serving yet
        if time.monotonic() > deadline:
            fail(f"not ready in time; it goes on starting. See {output}, or stop it: hotswap down")
        time.sleep(0.1)
    _copy(output, offset)
    click.echo(record["url"])
    say("next: hotswap ps, hotswap run MODEL 'prompt', hotswap down")


def _copy(output: Path, offset: int) -> int:
    with output.open("rb") as source:
        source.seek(offset)
        fresh = source.read()
    if fresh:
        click.echo(fresh.decode(errors="replace"), err=True, nl=False)
    return offset + len(fresh)


def _folder(config_file: Path | None, state_dir: Path | None) -> Path:
    from gateway.settings import SettingsError, load

    try:
        return load(config_file, flags={"state_dir": state_dir})[0].state_dir
    except SettingsError as error:
        fail(str(error), code=2)


def _record(state: Path) -> dict[str, Any] | None:
    """What the running gateway wrote about itself; None when it is not running or not yet listening."""
    from gateway.supervise import Lock

    try:
        record: dict[str, Any] = json.loads((state / "gateway.json").read_text())
    except (OSError, ValueError):
        return None
    return record if Lock(state).holder() == record["pid"] else None
