"""A client that leaves stops costing: the engine's running count falls, streaming or not."""

from __future__ import annotations

import json
import re
import secrets
import socket
import time
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tests.house import House, wait_for
from tests.proofs.result import Result, percentile, spread
from tests.proofs.swap import house_base

TIMES = 30


def prove(folder: Path, base: Path, data: Path | None) -> Result:
    result = Result(
        "disconnect",
        "A client closes its socket in the middle of an answer; the engine's own `vllm:num_requests_running` "
        "is polled until it is 0. One engine step is the median gap between two chunks.",
    )
    secret = secrets.token_hex(16)
    house = House(
        folder / "house",
        base,
        {"HOTSWAP_ENGINE__API_KEY_ENV": "PROOF_ENGINE_KEY", "PROOF_ENGINE_KEY": secret},
    )
    with house:
        model = house_base(house)
        engine = house.fleet()[0]["url"]
        step = _step(house, model)
        result.figure("one engine step", f"{step * 1e3:.0f} ms")
        for streaming in (True, False):
            times = [_leave(house, model, engine, secret, streaming) for _ in range(TIMES)]
            what = "streaming" if streaming else "not streaming"
            result.figure(f"{what}: client gone to engine idle", spread(times))
            result.must(
                f"{what}: upstream closed within 100 ms, running count falls within one step after it",
                percentile(times, 1.0) <= 0.1 + step,
                f"max {max(times) * 1e3:.0f} ms against {(0.1 + step) * 1e3:.0f} ms",
            )
    return result


def _leave(house: House, model: str, engine: str, secret: str, streaming: bool) -> float:
    """Seconds from closing the client's socket to an idle engine."""
    where = urlsplit(house.url)
    body = json.dumps(
        {
            "model": model,
            "messages": [{"role": "user", "content": "Count to one thousand."}],
            "max_tokens": 1500,
            "ignore_eos": True,
            "stream": streaming,
        }
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {where.netloc}\r\nauthorization: Bearer {house.key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode()
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=30) as client:
        client.sendall(head + body)
        wait_for("the engine runs it", lambda: _running(engine, secret) == 1, 30)
        time.sleep(0.3)  # well inside the answer
    left = time.monotonic()
    wait_for("the engine is idle", lambda: _running(engine, secret) == 0, 30, every_s=0.002)
    return time.monotonic() - left


def _running(engine: str, secret: str) -> int:
    text = httpx.get(engine + "/metrics", headers={"authorization": f"Bearer {secret}"}, timeout=10).text
    found = re.search(r"^vllm:num_requests_running\{[^}]*\} ([0-9.]+)", text, re.MULTILINE)
    assert found, "the engine's metrics have no vllm:num_requests_running"
    return int(float(found[1]))


def _step(house: House, model: str) -> float:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Count."}],
        "max_tokens": 60,
        "stream": True,
    }
    times = []
    with httpx.stream(
        "POST",
        house.url + "/v1/chat/completions",
        json={**body, "ignore_eos": True},
        headers=house.headers,
        timeout=60,
    ) as response:
        for line in response.iter_lines():
            if line.startswith("data: {"):
                times.append(time.monotonic())
    return percentile([after - before for before, after in pairwise(times)], 0.5)
