"""Two vLLM servers with the same flags, one stock, one with our plugin; measurements take turns."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from loadtests.proc import cost
from loadtests.target import Target
from tests.engine.server import KEY, READY_WITHIN_S, command, environment
from tests.engine.talk import Talk
from tests.house import free_port, wait_for

BASE = "base"
CPU_SLOTS = 64


@dataclass(frozen=True)
class Engine:
    """A running vLLM: where load goes, how to talk to it, and what its processes have cost."""

    target: Target
    talk: Talk
    process: subprocess.Popen[bytes]

    def cpu_s(self) -> float:
        """User and system seconds of the server, its engine core and its worker so far."""
        return cost(self.process.pid).cpu_s

    def healthy(self) -> bool:
        try:
            return self.talk.client.get("/health", timeout=10).status_code == 200
        except httpx.TransportError:
            return False

    def complete(self, model: str, prompt: Sequence[int], **more: Any) -> dict[str, Any]:
        """The only choice of a greedy completion of token ids. An error is an `AssertionError`."""
        body = {"model": model, "prompt": list(prompt), "temperature": 0, "ignore_eos": True, **more}
        answer = self.talk.client.post("/v1/completions", json=body)
        assert answer.status_code == 200, answer.text
        choice: dict[str, Any] = answer.json()["choices"][0]
        return choice

    def load(self, adapters: Mapping[str, Path]) -> None:
        for name, folder in adapters.items():
            self.talk.load(name, folder)


@dataclass(frozen=True)
class Pair:
    stock: Engine
    ours: Engine

    def each(self) -> tuple[tuple[str, Engine], ...]:
        return (("stock", self.stock), ("ours", self.ours))


@contextmanager
def pair(base: Path, folder: Path, *, slots: int, rank: int) -> Iterator[Pair]:
    """Both, up until the block ends. `slots` is --max-loras, `rank` is --max-lora-rank."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        engines = [
            stack.enter_context(_engine(base, folder / f"{name}.log", slots, rank, plugin=name == "ours"))
            for name in ("stock", "ours")
        ]
        reported = engines[1].talk.plugin()
        assert reported["lora_kernel"] == "hotswap", reported["self_test"]
        yield Pair(*engines)


@contextmanager
def _engine(base: Path, log: Path, slots: int, rank: int, *, plugin: bool) -> Iterator[Engine]:
    port = free_port()
    words = command(base, port, max_loras=slots, max_cpu_loras=CPU_SLOTS)
    words += ["--dtype", "bfloat16", "--max-lora-rank", str(rank)]  # the rank is said twice: the last counts
    # Stock queues inside the engine, so ours must too: this compares kernels, not admission.
    surroundings = environment(plugin=plugin, extra={"HOTSWAP_ADMISSION": "off"})
    with log.open("wb") as sink:
        process = subprocess.Popen(
            words,
            env=surroundings,
            stdout=sink,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    headers = {"authorization": f"Bearer {KEY}"}
    limits = httpx.Limits(max_connections=128)
    try:
        with httpx.Client(base_url=url, headers=headers, timeout=300, limits=limits, trust_env=False) as http:
            engine = Engine(Target(url, KEY), Talk(http, BASE), process)
            wait_for("vLLM is healthy", lambda: _over(process, log) or engine.healthy(), READY_WITHIN_S, 0.25)
            yield engine
    finally:
        _end(process)


def _over(process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, f"vLLM ended: {log.read_text(errors='replace')[-3000:]}"
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """The server and everything it started: they share its group."""
    for sent, patience_s in ((signal.SIGTERM, 15), (signal.SIGKILL, 15)):
        try:
            os.killpg(process.pid, sent)
        except ProcessLookupError:
            break
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline and _any_left(process):
            time.sleep(0.1)


def _any_left(process: subprocess.Popen[bytes]) -> bool:
    process.poll()  # collects the leader
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True
