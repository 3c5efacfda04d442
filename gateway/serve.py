"""One gateway process, from its lock to its last byte.

Holds the state folder's lock, sweeps away what a killed run left, serves until SIGTERM or SIGINT, drains,
and leaves nothing running.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import socket
import time
from functools import partial
from pathlib import Path

import uvicorn

from gateway.api.connection import ClientConnection
from gateway.app import Say, build
from gateway.settings import Settings, SettingsError
from gateway.supervise import Lock, sweep

BACKLOG = 2048


def serve(settings: Settings, say: Say) -> None:
    """Serves until told to stop.

    Raises `SettingsError` (port taken), `Locked` (another runs here), or whatever kept the app from starting.
    """
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    with Lock(settings.state_dir):
        for line in sweep(settings.state_dir):
            say(line)
        _log_to(settings.log_path / "gateway.log")
        with _listen(settings.server.host, settings.server.port) as listener:
            record = settings.state_dir / "gateway.json"
            _write(record, listener)
            app = build(settings, say)
            config = uvicorn.Config(
                app,
                loop="uvloop",
                http=partial(ClientConnection, app.plane),  # type: ignore[arg-type] # any protocol factory
                lifespan="on",
                ws="none",
                access_log=False,
                log_config=None,
                server_header=False,
                date_header=False,
                timeout_graceful_shutdown=max(1, round(settings.server.drain_s)),
                timeout_keep_alive=75,
            )
            try:
                uvicorn.Server(config).run(sockets=[listener])
            except SystemExit:  # uvicorn's own, when the app's start failed
                if app.failure is None:
                    raise
            finally:
                record.unlink(missing_ok=True)
            if app.failure is not None:
                raise app.failure


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"cannot listen on {host}:{port} ({error.strerror}). Free it, or let one be picked: --port 0"
        ) from error
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


def _write(record: Path, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104 (a comparison, not a bind)
    partial = record.with_suffix(".partial")
    partial.write_text(
        json.dumps({"url": f"http://{shown}:{port}", "pid": os.getpid(), "since": time.time()})
    )
    partial.replace(record)


def _log_to(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=20_000_000, backupCount=3)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    for chatty in ("httpx", "httpcore", "alembic", "uvicorn.error"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
