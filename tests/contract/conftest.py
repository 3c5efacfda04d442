"""The engines under contract: the fake one, and real vLLM.

`engine` is the vLLM of the session, behind a gateway that looks after it. `small` has two slots, room for
four adapters and vLLM's own LoRA kernel, and nobody else speaks to it: what it holds is up to the test. It is
started here, or runs already: HOTSWAP_TEST_SMALL_ENGINE_URL, with its key in HOTSWAP_TEST_SMALL_ENGINE_KEY.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.base.manifest import BaseManifest
from adapters.store import Store
from gateway.api.enginefiles import EngineFiles
from gateway.fleet.fake_engine import FakeEngine
from gateway.fleet.fake_faults import Faults
from tests.engine import server
from tests.house import free_port
from tests.peft_folder import random_adapter
from tests.relay.serving import serving_in_thread

SLOTS, ROOM = 2, 4


@dataclass(frozen=True)
class Engine:
    """What the tests know of an engine."""

    url: str
    key: str
    base_model: str
    adapter_dir: Path


@dataclass(frozen=True)
class Shelf:
    """Versions that no engine has seen yet, in a store, and a gateway's address where they can be fetched."""

    store: Store
    adapter_dir: Path
    source: str
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def version(self) -> tuple[str, str]:
        """The name and the digest of a new one. All have the same weights."""
        with self.store.staging() as staged:
            shutil.copytree(self.adapter_dir, staged, dirs_exist_ok=True)
            config = json.loads((staged / "adapter_config.json").read_text())
            number = next(self.numbers)
            (staged / "adapter_config.json").write_text(json.dumps(config | {"lora_dropout": number / 10000}))
            digest = self.store.commit(staged)
        return f"contract{number}@{digest[:12]}", digest

    def path(self, digest: str) -> str:
        return str(self.store.path(digest))


@pytest.fixture(scope="module", params=["fake", pytest.param("vllm", marks=pytest.mark.engine)])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if request.param == "vllm":
        yield request.getfixturevalue("real_engine")
        return
    app = FakeEngine(model="base", key="secret", faults=Faults(token_delay_s=0.01))
    with serving_in_thread(app) as port:
        yield Engine(f"http://127.0.0.1:{port}", "secret", "base", _empty_adapter(tmp_path_factory))


@pytest.fixture
def http(engine: Engine) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {engine.key}", "x-request-id": "0123abcd"}
    with httpx.Client(base_url=engine.url, headers=headers, timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module", params=["fake", pytest.param("vllm", marks=pytest.mark.engine)])
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    if request.param == "vllm":
        yield request.getfixturevalue("small_vllm")
        return
    faults = Faults(token_delay_s=0.01, lora_kernel="stock")
    app = FakeEngine(model="base", key="secret", faults=faults, max_loras=SLOTS, max_cpu_loras=ROOM)
    with serving_in_thread(app) as port:
        yield Engine(f"http://127.0.0.1:{port}", "secret", "base", _empty_adapter(tmp_path_factory))


@pytest.fixture(scope="session")
def small_vllm(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("small")
    adapter = random_adapter(folder / "adapter", BaseManifest.read(base_folder), seed=1, scale=0.15)
    if url := os.environ.get("HOTSWAP_TEST_SMALL_ENGINE_URL"):
        yield Engine(url, os.environ["HOTSWAP_TEST_SMALL_ENGINE_KEY"], "base", adapter)
        return
    extra = {"HOTSWAP_KERNEL": "stock", "HOTSWAP_ENGINE_STORE": str(folder / "store")}
    log = folder / "vllm.log"
    with server.serve(
        base_folder, free_port(), log, max_loras=SLOTS, max_cpu_loras=ROOM, extra=extra
    ) as running:
        yield Engine(running.url, server.KEY, "base", adapter)


@pytest.fixture(scope="module")
def shelf(small: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    store = Store(tmp_path_factory.mktemp("store"))
    with serving_in_thread(EngineFiles(store, lambda: {small.key})) as port:
        yield Shelf(store, small.adapter_dir, f"http://127.0.0.1:{port}")


def _empty_adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    (folder / "adapter_config.json").write_text(json.dumps({"r": 8}))
    (folder / "adapter_model.safetensors").write_bytes(b"")
    return folder
