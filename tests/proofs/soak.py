"""An hour of mixed traffic: the gateway's memory does not grow, and nothing fails."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import httpx

from loadtests.run import Asked, run
from loadtests.scenario import load
from loadtests.scrape import Source
from loadtests.slope import slope
from loadtests.target import Target
from tests.conftest import TINY
from tests.house import House, free_port, wait_for
from tests.peft_folder import random_adapter
from tests.proofs.result import Result

SECONDS = float(os.environ.get("SOAK_S", "3600"))
RATE, ADAPTERS = 20.0, 16
SETTLED_S = 300.0
RSS, OWN = "process_resident_memory_bytes", "hotswap_process_private_memory_bytes"
MB = 1e6


def prove(folder: Path, base: Path, data: Path | None) -> Result:
    result = Result(
        "soak",
        f"The `soak` scenario, {SECONDS / 60:.0f} minutes at {RATE:g} requests/s over {ADAPTERS} adapters, "
        "the whole product in front of the fake engine. Memory of the gateway's process, once a second: all "
        "that is resident, and of that what is its own (without pages of files, which the kernel takes back "
        "when others need memory), whose slope is a least-squares line after the first "
        f"{SETTLED_S / 60:.0f} minutes.",
    )
    tiny, key, port = folder / "tiny", secrets.token_hex(16), free_port()
    tiny.mkdir(parents=True)
    TINY.write(tiny)
    words = [sys.executable, "-m", "gateway.cli", "fake-engine", "--port", str(port), "--model", "tiny"]
    engine = subprocess.Popen([*words, "--token-delay-ms", "20"], env={**os.environ, "VLLM_API_KEY": key})
    url = f"http://127.0.0.1:{port}"
    settings = {
        "HOTSWAP_BASE__NAME": "tiny",
        "HOTSWAP_ENGINES": f'[{{url = "{url}", api_key_env = "SOAK_ENGINE_KEY"}}]',
        "SOAK_ENGINE_KEY": key,
    }
    try:
        wait_for("the fake engine answers", lambda: _answers(url, key), 30)
        with House(folder / "house", tiny, settings) as house:
            for number in range(ADAPTERS):
                house.add(f"adapter-{number}", random_adapter(folder / str(number), TINY, seed=number))
            _soak(house, folder, result)
    finally:
        engine.terminate()
        engine.wait(10)
    return result


def _soak(house: House, folder: Path, result: Result) -> None:
    scenario = load("soak", {"seconds": SECONDS, "arrivals.rate": RATE})
    source = Source("gateway", url=f"{house.url}/metrics", key=house.key)
    done = run(scenario, Asked(Target(house.url, house.key), sources=[source]))
    done.metrics.save(folder / "metrics.jsonl")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    begin = rows[0]["at"]
    points = [(row["at"] - begin, row["values"][OWN]) for row in rows if OWN in row["values"]]
    resident = [row["values"][RSS] for row in rows if RSS in row["values"]]
    settled = [(at, rss) for at, rss in points if at >= min(SETTLED_S, SECONDS / 2)]
    group = done.measures.all
    result.figure("requests answered", f"{group.ok:,} of {group.requests:,}")
    tenth = max(1, len(settled) // 10)
    shown = [points[0], settled[0], *settled[tenth::tenth]]
    result.figure("own memory: first, then settled, at ten times", " ".join(
        f"{own / MB:.2f}" for _, own in shown
    ) + " MB")  # fmt: skip
    result.figure("TTFT p50, p99", f"{(group.ttft.p50 or 0) * 1e3:.1f}, {(group.ttft.p99 or 0) * 1e3:.1f} ms")
    grown = slope([at for at, _ in settled], [own / MB for _, own in settled])
    assert grown is not None
    said = f"{grown.per_hour:+.2f} MB an hour [{grown.low:+.2f}, {grown.high:+.2f}]"
    result.must("its own memory grows by less than 1 MB an hour", grown.per_hour < 1.0, said)
    most = max(resident)
    result.must("RSS < 150 MB all the time", most < 150e6, f"{most / MB:.1f} MB at most")
    result.must("every request answered", group.ok == group.requests, f"errors: {dict(group.errors)}")
    result.figure("the generator", done.driven.generator.why or "kept its schedule")


def _answers(url: str, key: str) -> bool:
    try:
        headers = {"authorization": f"Bearer {key}"}
        return httpx.get(f"{url}/health", headers=headers, timeout=2).status_code == 200
    except httpx.TransportError:
        return False
