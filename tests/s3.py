"""An S3 of somebody else's making on loopback: moto's server, which keeps everything in memory.

In a virtual environment of its own, made once beside the sources: botocore, on which it stands, asks for an
older python-dateutil than the rest of us are pinned to.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

import httpx

from tests.house import free_port, wait_for

PACKAGES = ("moto[s3]==5.2.5", "flask==3.1.3", "flask-cors==6.0.5")
HOME = Path(__file__).parents[1] / ".venv-s3"
BUCKET = "traffic"


class S3:
    """`with S3() as s3:` runs it until the block ends, with one empty bucket, BUCKET."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def options(self, port: int | None = None) -> dict[str, str]:
        """deltalake's for it; `port`: of a way to it."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port or self.port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "anybody",
            "AWS_SECRET_ACCESS_KEY": "anything",
        }

    def hang(self) -> None:
        """It takes connections, and says nothing, until `go_on`."""
        self._send(signal.SIGSTOP)

    def go_on(self) -> None:
        self._send(signal.SIGCONT)

    def kill(self) -> None:
        """kill -9, and with it goes what it kept."""
        self._send(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(10)

    def _send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def __enter__(self) -> S3:
        words = [str(_server()), "-H", "127.0.0.1", "-p", str(self.port)]
        self._process = subprocess.Popen(
            words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=_environment()
        )
        wait_for("the S3 server answers", self._makes_bucket, 60, 0.1)
        return self

    def _makes_bucket(self) -> bool:
        try:
            return httpx.put(f"http://127.0.0.1:{self.port}/{BUCKET}", timeout=10).status_code == 200
        except httpx.TransportError:
            return False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()


def _server() -> Path:
    """The program. Raises `AssertionError` with what pip said when it cannot be installed."""
    made = HOME / "made"
    if not made.exists() or made.read_text() != "\n".join(PACKAGES):
        shutil.rmtree(HOME, ignore_errors=True)
        pip = [str(HOME / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-compile"]
        for words in ([sys.executable, "-m", "venv", str(HOME)], [*pip, *PACKAGES]):
            done = subprocess.run(words, capture_output=True, text=True, env=_environment())
            assert done.returncode == 0, f"{' '.join(words)}: {done.stderr[-2000:]}"
        made.write_text("\n".join(PACKAGES))
    return HOME / "bin" / "moto_server"


def _environment() -> dict[str, str]:
    """Without what would bring our own packages in."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
