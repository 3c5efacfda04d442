"""A running gateway, from its lock to its last byte.

`serve` holds the state folder's lock, sweeps away what a killed run left, serves until SIGTERM or SIGINT,
drains, and leaves nothing running: by itself, or with workers (`gateway.workers`). `run` is what each process
that listens does.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import uvicorn

from gateway.api.connection import ClientConnection
from gateway.app import ALONE, Place, Say, build
from gateway.memory import keep_steady
from gateway.settings import Settings, SettingsError
from gateway.supervise import Lock, log_to, sweep
from gateway.workers import supervise

BACKLOG = 2048
KEEP_ALIVE_S = 75


def serve(settings: Settings, say: Say) -> None:
    """Serves until told to stop.

    Raises `SettingsError` (port taken), `Locked` (another runs here), or whatever kept the app from starting.
    """
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    with Lock(settings.state_dir):
        for line in sweep(settings.state_dir):
            say(line)
        log_to(settings.log_path / "gateway.log")
        several = settings.server.workers > 1
        if several:
            # A shared socket may be bound beside another deployment's; one that is not tells of it.
            listen(settings.server.host, settings.server.port, shared=False).close()
        with (
            listen(settings.server.host, settings.server.port, shared=several) as listener,
            _recorded(settings.state_dir / "gateway.json", listener),
        ):
            if several:
                # Bound, and never listening: it keeps the port while workers come and go.
                supervise(settings, listener.getsockname()[1], say)
            else:
                listener.listen(BACKLOG)  # who comes early waits instead of being refused
                run(settings, listener, say)


def run(settings: Settings, listener: socket.socket, say: Say, place: Place = ALONE) -> None:
    """Listens and serves until SIGTERM or SIGINT. Raises whatever kept the app from starting."""
    keep_steady()
    port = listener.getsockname()[1]  # which may have been picked
    settings = settings.model_copy(update={"server": settings.server.model_copy(update={"port": port})})
    app = build(settings, say, place)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        backlog=BACKLOG,
        http=partial(ClientConnection, app.plane),  # type: ignore[arg-type] # any protocol factory
        lifespan="on",
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=max(1, round(settings.server.drain_s)),
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except SystemExit:  # uvicorn's own, when the app's start failed
        if app.failure is None:
            raise
    if app.failure is not None:
        raise app.failure


def listen(host: str, port: int, *, shared: bool) -> socket.socket:
    """A socket bound to the address, not yet listening. Others of this user may bind a `shared` one too; the
    kernel then deals new connections out to those that listen. Raises `SettingsError`.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"cannot listen on {host}:{port} ({error.strerror}). Free it, or let one be picked: --port 0"
        ) from error
    listener.setblocking(False)
    return listener


@contextmanager
def _recorded(record: Path, listener: socket.socket) -> Iterator[None]:
    """Says in `record` where we are, while we are."""
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104 (a comparison, not a bind)
    partial = record.with_suffix(".partial")
    partial.write_text(
        json.dumps({"url": f"http://{shown}:{port}", "pid": os.getpid(), "since": time.time()})
    )
    partial.replace(record)
    try:
        yield
    finally:
        record.unlink(missing_ok=True)
