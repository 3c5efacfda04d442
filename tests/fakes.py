"""Fake engines as processes of their own, to be killed and started again at will."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import httpx

from tests.house import free_port, wait_for

KEY = "FAKE_KEY"
"""The variable in which a gateway finds the key of fake engines."""


class Fake:
    """`with Fake() as fake:` runs `hotswap fake-engine` until the block ends, always on the same port."""

    def __init__(self, model: str = "tiny", token_delay_ms: float = 5.0, key: str | None = None) -> None:
        self.key = key or secrets.token_hex(16)
        self.port = free_port()
        self._model = model
        self._token_delay_ms = token_delay_ms
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        """What a gateway calls it."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.name}"

    def start(self) -> None:
        words = [sys.executable, "-m", "gateway.cli", "fake-engine", "--port", str(self.port)]
        words += ["--model", self._model, "--token-delay-ms", str(self._token_delay_ms)]
        self._process = subprocess.Popen(words, env={**os.environ, "VLLM_API_KEY": self.key})
        wait_for("the fake engine answers", self._answers, 30)

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def state(self) -> dict[str, Any]:
        """What it has seen, e.g. `served` and `loras`."""
        answer = httpx.get(f"{self.url}/fake/state", headers=self._headers, timeout=10)
        answer.raise_for_status()
        told: dict[str, Any] = answer.json()
        return told

    def faults(self, **wanted: Any) -> None:
        """Changes `gateway.fleet.fake_faults.Faults`."""
        httpx.post(
            f"{self.url}/fake/faults", json=wanted, headers=self._headers, timeout=10
        ).raise_for_status()

    @property
    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", headers=self._headers, timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def __enter__(self) -> Fake:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(10)


def before(fakes: Sequence[Fake], base: str = "tiny", **more: str) -> dict[str, str]:
    """The environment of a house before these engines, which have one key; `more` goes with it."""
    listed = ", ".join(f'{{url = "{fake.url}", api_key_env = "{KEY}"}}' for fake in fakes)
    return {"HOTSWAP_BASE__NAME": base, "HOTSWAP_ENGINES": f"[{listed}]", KEY: fakes[0].key, **more}
