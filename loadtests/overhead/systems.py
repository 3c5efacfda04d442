"""What is compared: no gateway, ours, nginx as a control, and any other by its URL."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from adapters.base.manifest import BaseManifest
from loadtests.overhead.processes import CannotBench, Cores, Pinned, free_port

DIRECT, OURS, CONTROL = "direct", "hotswap", "nginx"
NOTHING_REMEMBERED = {"HOTSWAP_TRAFFIC__CAPTURE": "off"}
"""What remembering costs is measured apart (`python -m tests.proofs capture`)."""


@dataclass(frozen=True, slots=True)
class System:
    """One way to the engine. `pid`, when known: the process whose CPU, with its `tree`'s, and whose memory
    are counted."""

    name: str
    port: int
    model: str
    key: str | None = None
    pid: int | None = None
    tree: bool = True

    @classmethod
    def parse(cls, text: str, model: str, key: str | None) -> System:
        """`NAME=URL` or `NAME=URL@PID`. Raises `CannotBench`; only loopback, because the load is."""
        name, _, rest = text.partition("=")
        url, _, pid = rest.rpartition("@") if "@" in rest else (rest, "", "")
        parts = urlsplit(url)
        if not name or parts.hostname not in ("127.0.0.1", "localhost") or not parts.port:
            raise CannotBench(f"{text!r} is not NAME=http://127.0.0.1:PORT or NAME=http://127.0.0.1:PORT@PID")
        if pid and not pid.isdecimal():
            raise CannotBench(f"{text!r}: {pid!r} is not a process id")
        return cls(name, parts.port, model, key, int(pid) if pid else None)


@contextmanager
def hotswap(
    engine_port: int,
    model: str,
    folder: Path,
    cores: Cores,
    workers: int = 1,
    *,
    name: str = OURS,
    settings: Mapping[str, str] = NOTHING_REMEMBERED,
) -> Iterator[System]:
    """The gateway as `hotswap up` starts it, real Postgres, keys and all, with `model` as its base.

    Without a worker for fine-tuning jobs: everything of it shares one core here, and the gateway is what is
    measured. `settings` are environment variables.
    """
    base = folder / "base"
    base.mkdir(parents=True, exist_ok=True)
    BaseManifest(
        name=model,
        fingerprint="0" * 64,
        licence="none",
        source="a mock",
        known_names=(model,),
        linears={},
        hidden_size=1,
        quantization="none",
    ).write(base)
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HOTSWAP_")}
    environment |= {
        "HOTSWAP_CONFIG": str(folder / "none.toml"),
        "HOTSWAP_STATE_DIR": str(folder / "state"),
        "HOTSWAP_BASE__NAME": model,
        "HOTSWAP_BASE__PATH": str(base),
        "HOTSWAP_SERVER__PORT": str(port),
        "HOTSWAP_SERVER__WORKERS": str(workers),
        "HOTSWAP_ENGINES": f'[{{url = "http://127.0.0.1:{engine_port}"}}]',
        "HOTSWAP_FLEET__REQUIRE_PLUGIN": "false",
        "HOTSWAP_JOBS__WORKERS": "0",
        **settings,
    }
    command = [sys.executable, "-m", "gateway.cli", "up"]
    ready = f"http://127.0.0.1:{port}/readyz"
    with Pinned(command, cores.gateway, folder / "hotswap.log", ready, environment) as started:
        key = (folder / "state" / "admin.key").read_text().strip()
        yield System(name, port, model, key, started.pid)


def has_nginx() -> bool:
    return shutil.which("nginx") is not None


@contextmanager
def nginx(engine_port: int, model: str, folder: Path, cores: Cores) -> Iterator[System]:
    """One nginx worker that passes everything on, unbuffered: what a relay in C costs here and now."""
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, port=port, engine=engine_port))
    command = [shutil.which("nginx") or "nginx", "-c", str(config), "-p", str(folder)]
    with Pinned(command, cores.gateway, folder / "nginx.log", f"http://127.0.0.1:{port}/health") as started:
        yield System(CONTROL, port, model, None, started.pid)


_NGINX = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_max_body_size 16m;
  client_body_buffer_size 1m;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream engine {{ server 127.0.0.1:{engine}; keepalive 4096; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://engine;
      proxy_http_version 1.1;
      proxy_set_header connection "";
      proxy_buffering off;
    }}
  }}
}}
"""
