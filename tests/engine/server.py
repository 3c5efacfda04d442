"""One real vLLM server, with the plugin or without: the command and environment in one place, and its life.

`python -m tests.engine.server BASE [--no-plugin]` runs one and prints what to set so that
`pytest tests/engine` speaks to it.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import httpx

KEY = "engine-key-of-the-tests"
READY_WITHIN_S = 240


@dataclass(frozen=True, slots=True)
class Server:
    url: str
    log: Path
    process: subprocess.Popen[bytes]
    headers: dict[str, str]

    def client(self, *, timeout_s: float = 120) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers=self.headers, timeout=timeout_s)


def command(base: Path, port: int, max_loras: int, max_cpu_loras: int) -> list[str]:
    room = str(max_cpu_loras)
    return [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(base), "--served-model-name", "base"),
        *("--enable-lora", "--max-loras", str(max_loras), "--max-cpu-loras", room, "--max-lora-rank", "32"),
        *("--quantization", "bitsandbytes", "--load-format", "bitsandbytes"),
        *("--max-model-len", "2048", "--host", "127.0.0.1", "--port", str(port)),
    ]


def environment(*, plugin: bool, extra: Mapping[str, str]) -> dict[str, str]:
    return {
        **os.environ,
        **extra,
        "VLLM_API_KEY": KEY,
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_PLUGINS": "bitsandbytes,hotswap" if plugin else "bitsandbytes",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }


@contextmanager
def serve(
    base: Path,
    port: int,
    log: Path,
    *,
    max_loras: int = 4,
    max_cpu_loras: int = 32,
    plugin: bool = True,
    extra: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Server]:
    """Start it, wait until it is healthy, hand it over, and end it with everything it started.

    `extra` is added to its environment.
    """
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command(base, port, max_loras, max_cpu_loras),
            env=environment(plugin=plugin, extra=extra),
            stdout=sink,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    server = Server(f"http://127.0.0.1:{port}", log, process, {"Authorization": f"Bearer {KEY}"})
    try:
        _await_health(server)
        yield server
    finally:
        _end(process)


def _await_health(server: Server) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    pause = 0.25
    with server.client(timeout_s=5) as client:
        while time.monotonic() < deadline:
            if server.process.poll() is not None:
                raise RuntimeError(f"vLLM ended with {server.process.returncode}:\n{_tail(server.log)}")
            try:
                if client.get("/health").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            _wait(server.process, pause)
    raise RuntimeError(f"vLLM was not ready in {READY_WITHIN_S} s:\n{_tail(server.log)}")


def _wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Until the process ends, at most `seconds`."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def _end(process: subprocess.Popen[bytes]) -> None:
    for sent in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sent)
        except ProcessLookupError:
            break
        _wait(process, 15)
        if process.poll() is not None and sent is signal.SIGTERM:
            # The leader is gone; its group (engine core, workers) may still be on its way out.
            continue
    process.wait(15)


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-30:])


def main() -> None:
    """A vLLM to test against by hand; with --no-plugin the tests of purity and prompt_logprobs must fail."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("base", type=Path)
    parser.add_argument("--port", type=int, default=18101)
    parser.add_argument("--max-loras", type=int, default=4)
    parser.add_argument("--no-plugin", action="store_true")
    given = parser.parse_args()
    log = Path(tempfile.gettempdir()) / f"vllm-{given.port}.log"
    print(f"starting, log in {log}", flush=True)
    with serve(given.base, given.port, log, max_loras=given.max_loras, plugin=not given.no_plugin) as server:
        print(f"HOTSWAP_TEST_ENGINE_URL={server.url} HOTSWAP_TEST_ENGINE_KEY={KEY}", flush=True)
        server.process.wait()


if __name__ == "__main__":
    main()
