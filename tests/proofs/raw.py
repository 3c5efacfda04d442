"""vLLM as it is: the flags of a house's engines, our plugin for its counters and kernel, and no admission."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from gateway.fleet.launch import launch
from gateway.settings import Settings
from gateway.settings import load as load_settings
from loadtests.target import Target
from tests.house import House, free_port, wait_for

KEY = "engine-key-of-the-proofs"
KEY_ENV = "PROOF_ENGINE_KEY"
WITH_KEY: Mapping[str, str] = {"HOTSWAP_ENGINE__API_KEY_ENV": KEY_ENV, KEY_ENV: KEY}
"""Settings of a house, whose engines then have `KEY`."""
AUTHORIZED = {"authorization": f"Bearer {KEY}"}
READY_WITHIN_S = 300.0
COUNTED = ("disk_loads", "activations", "evictions", "not_now")


@dataclass(frozen=True, slots=True)
class Raw:
    """One vLLM that nobody stands in front of."""

    target: Target

    def load(self, adapters: Mapping[str, Path]) -> None:
        """Registers them by vLLM's own route."""
        with httpx.Client(base_url=self.target.url, headers=AUTHORIZED, timeout=120, trust_env=False) as http:
            for name, path in adapters.items():
                asked = {"lora_name": name, "lora_path": str(path)}
                answer = http.post("/v1/load_lora_adapter", json=asked)
                assert answer.status_code == 200, answer.text


def counters(url: str) -> Counter[str]:
    """What the engine's plugin has counted since its start: `COUNTED`."""
    answer = httpx.get(f"{url}/hotswap/v1/plugin", headers=AUTHORIZED, timeout=60, trust_env=False)
    answer.raise_for_status()
    counted: dict[str, int] = answer.json()["counters"]
    return Counter({name: counted[name] for name in COUNTED})


def house_engines(house: House) -> list[str]:
    """The urls of a house's engines, as soon as all of them serve."""
    wait_for("all engines serve", lambda: {each["status"] for each in house.fleet()} == {"serving"}, 240, 0.5)
    return [str(engine["url"]) for engine in house.fleet()]


@contextmanager
def raw_engines(house: House) -> Iterator[list[Raw]]:
    """As many as the house's settings start, with the same flags and cores, up until the block ends."""
    settings, _ = load_settings(environment=house.environment)
    with ExitStack() as stack:
        started = [
            stack.enter_context(_process(settings, number, house.folder / f"raw-{number}.log"))
            for number in range(settings.engine.count)
        ]
        for process, raw, log in started:
            wait_for(f"vLLM is healthy (log: {log})", lambda: _well(process, raw, log), READY_WITHIN_S, 0.25)  # noqa: B023  used at once
        yield [raw for _, raw, _ in started]


@contextmanager
def _process(
    settings: Settings, number: int, log: Path
) -> Iterator[tuple[subprocess.Popen[bytes], Raw, Path]]:
    port = free_port()
    command = launch(settings, port, KEY, number)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command.argv,
            env={**command.environment, "HOTSWAP_ADMISSION": "off"},
            stdout=sink,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        yield process, Raw(Target(f"http://127.0.0.1:{port}", KEY)), log
    finally:
        _end(process)


def _well(process: subprocess.Popen[bytes], raw: Raw, log: Path) -> bool:
    assert process.poll() is None, f"vLLM ended: {log.read_text(errors='replace')[-3000:]}"
    return healthy(raw.target.url)


def healthy(url: str) -> bool:
    """Whether an engine with `KEY` answers."""
    try:
        return httpx.get(f"{url}/health", headers=AUTHORIZED, timeout=10, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """The server and everything it started: they share its group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        _signal(process, number)
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline and _signal(process, 0):
            time.sleep(0.1)


def _signal(process: subprocess.Popen[bytes], number: int) -> bool:
    """False when nobody is left in its group. 0 only asks."""
    process.poll()  # collects the leader
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return False
    return True
