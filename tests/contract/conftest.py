"""The engine under contract: the fake one, and the vLLM of the session."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.fleet.fake_engine import FakeEngine, Faults
from tests.relay.serving import serving_in_thread


@dataclass(frozen=True)
class Engine:
    """What the tests know of an engine."""

    url: str
    key: str
    base_model: str
    adapter_dir: Path


@pytest.fixture(scope="module", params=["fake", pytest.param("vllm", marks=pytest.mark.engine)])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if request.param == "vllm":
        yield request.getfixturevalue("real_engine")
        return
    folder = tmp_path_factory.mktemp("adapter")
    (folder / "adapter_config.json").write_text(json.dumps({"r": 8}))
    (folder / "adapter_model.safetensors").write_bytes(b"")
    app = FakeEngine(model="base", key="secret", faults=Faults(token_delay_s=0.01))
    with serving_in_thread(app) as port:
        yield Engine(f"http://127.0.0.1:{port}", "secret", "base", folder)


@pytest.fixture
def http(engine: Engine) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {engine.key}", "x-request-id": "0123abcd"}
    with httpx.Client(base_url=engine.url, headers=headers, timeout=60, trust_env=False) as client:
        yield client
