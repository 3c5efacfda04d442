"""A whole Hotswap in a folder of its own: started, killed and stopped as a user would."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import httpx
import psutil

Value = TypeVar("Value")


def wait_for(
    what: str, check: Callable[[], Value | None], deadline_s: float = 60, every_s: float = 0.02
) -> Value:
    """The first value of `check` that is truthy. Raises `AssertionError` naming `what` after the deadline."""
    end = time.monotonic() + deadline_s
    while True:
        value = check()
        if value:
            return value
        assert time.monotonic() < end, f"after {deadline_s} s still not: {what}"
        time.sleep(every_s)


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class House:
    """`with House(folder, base=...) as house:` runs `hotswap up` there until the block ends.

    `settings` are environment values (`HOTSWAP_ENGINE__MAX_LORAS`). `url` and `key` are the running one's.
    """

    def __init__(
        self, folder: Path, base: Path, settings: Mapping[str, str] | None = None, engine: bool = True
    ) -> None:
        self.folder = folder
        self.log = folder / "up.log"
        self.engine = engine
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HOTSWAP_")},
            "HOTSWAP_STATE_DIR": str(folder / "state"),
            "HOTSWAP_BASE__PATH": str(base),
            "HOTSWAP_SERVER__PORT": "0",
            "HOTSWAP_JOBS__WORKERS": "0",  # who tests jobs starts a worker of their own
            "HOTSWAP_CONFIG": str(folder / "hotswap.toml"),
            **(settings or {}),
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def key(self) -> str:
        return (self.state / "admin.key").read_text().strip()

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    def start(self, ready: bool = True, deadline_s: float = 420) -> float:
        """Seconds from the command to a gateway that is ready (`ready`) or merely answers."""
        started = time.monotonic()
        words = [sys.executable, "-m", "gateway.cli", "up", *([] if self.engine else ["--no-engine"])]
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as sink:
            self.process = subprocess.Popen(
                words, env=self.environment, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL
            )
        path = "/readyz" if ready else "/healthz"
        wait_for(f"{path} answers 200 (log: {self.log})", lambda: self._answers(path), deadline_s)
        return time.monotonic() - started

    def _answers(self, path: str) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"hotswap up ended: {self.log.read_text(errors='replace')[-3000:]}")
        try:
            record = json.loads((self.state / "gateway.json").read_text())
            if record["pid"] != self.process.pid:
                return False
            self.url = record["url"]
            return httpx.get(self.url + path, timeout=5).status_code == 200
        except (OSError, ValueError, httpx.TransportError):
            return False

    def stop(self, deadline_s: float = 60) -> None:
        """SIGTERM, and waits until it is gone."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(deadline_s)

    def kill(self) -> None:
        """kill -9 of the gateway process alone."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def fleet(self) -> list[dict[str, Any]]:
        answer = httpx.get(self.url + "/admin/v1/fleet", headers=self.headers, timeout=30)
        answer.raise_for_status()
        data: list[dict[str, Any]] = answer.json()["data"]
        return data

    def add(self, name: str, folder: Path, promote: bool = False) -> dict[str, Any]:
        """Registers a PEFT folder and returns the version. Raises `AssertionError` with the refusal."""
        from adapters.archive import pack

        answer = httpx.post(
            f"{self.url}/admin/v1/adapters/{name}/versions",
            params={"promote": promote, "force": promote},
            content=pack(folder),
            headers=self.headers,
            timeout=120,
        )
        assert answer.status_code == 201, answer.text
        version: dict[str, Any] = answer.json()
        return version

    def cli(self, *words: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "gateway.cli", *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def processes(self) -> list[psutil.Process]:
        """Every process that this house started and that still runs, gateway included."""
        assert self.process is not None
        try:
            gateway = psutil.Process(self.process.pid)
            return [gateway, *gateway.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def __enter__(self) -> House:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
