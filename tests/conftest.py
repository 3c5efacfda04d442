"""Parts that tests share: a prepared base, a whole Hotswap on real vLLM, and one on a fake engine.

The real one starts at most once a session. Nothing is skipped when a part is missing: the test fails and
names it.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from adapters.base.manifest import BaseManifest
from gateway.db import Database
from tests.db import server
from tests.house import House, free_port, wait_for
from tests.peft_folder import random_adapter

REPOSITORY = Path(__file__).parents[1]
TINY = BaseManifest(
    name="tiny",
    fingerprint="7" * 64,
    licence="Apache-2.0",
    source="made by tests",
    known_names=("tiny",),
    linears={
        f"model.layers.{layer}.{module}": shape
        for layer in range(2)
        for module, shape in {"self_attn.q_proj": (16, 16), "mlp.down_proj": (16, 32)}.items()
    },
    hidden_size=16,
    quantization="none",
)


@pytest.fixture(scope="session")
def base_folder() -> Path:
    """The default base, prepared for real: HOTSWAP_TEST_BASE, or made once in the repository's state."""
    if given := os.environ.get("HOTSWAP_TEST_BASE"):
        return Path(given)
    from adapters.base.prepare import prepare

    folder = REPOSITORY / ".hotswap" / "base" / "smollm2-135m-instruct"
    prepare(None, folder, folder.name, lambda line: print(line, file=sys.stderr))
    return folder


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base.json with two small layers and no weights: all that a gateway before a fake engine needs."""
    folder = tmp_path_factory.mktemp("tiny-base")
    TINY.write(folder)
    return folder


@pytest.fixture(scope="session")
def house(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The product on real vLLM with an NF4 base. The one start of vLLM in a test session."""
    key = secrets.token_hex(16)
    settings = {
        "HOTSWAP_ENGINE__API_KEY_ENV": "TEST_ENGINE_KEY",
        "TEST_ENGINE_KEY": key,
        "HOTSWAP_ENGINE__MAX_LORAS": "4",
        "HOTSWAP_ENGINE__START_TIMEOUT_S": "400",  # a machine that does other things too
        "HOTSWAP_BASE__NAME": "base",
    }
    with House(tmp_path_factory.mktemp("house"), base_folder, settings) as running:
        yield running


@dataclass(frozen=True)
class RealEngine:
    """The vLLM inside `house`, for those who speak to it directly."""

    url: str
    key: str
    base_model: str
    adapter_dir: Path


@pytest.fixture(scope="session")
def real_engine(house: House, base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RealEngine:
    folder = random_adapter(
        tmp_path_factory.mktemp("adapter") / "a", BaseManifest.read(base_folder), seed=1, scale=0.02
    )
    return RealEngine(house.fleet()[0]["url"], house.environment["TEST_ENGINE_KEY"], "base", folder)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The one Postgres of a test session. Who kills a server starts one of their own."""
    async with server.running(tmp_path_factory.mktemp("postgres")) as url:
        yield url


@dataclass(frozen=True)
class FakeEngine:
    url: str
    key: str


@pytest.fixture(scope="session")
def fake_engine() -> Iterator[FakeEngine]:
    """The fake engine as its users start it."""
    key, port = secrets.token_hex(16), free_port()
    words = [sys.executable, "-m", "gateway.cli", "fake-engine", "--port", str(port), "--model", "tiny"]
    process = subprocess.Popen([*words, "--token-delay-ms", "5"], env={**os.environ, "VLLM_API_KEY": key})
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for("the fake engine answers", lambda: _healthy(url, key), 30)
        yield FakeEngine(url, key)
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="session")
def fake_house(
    fake_engine: FakeEngine, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    """The whole product, real Postgres and all, in front of the fake engine."""
    settings = {
        "HOTSWAP_BASE__NAME": "tiny",
        "HOTSWAP_ENGINES": f'[{{url = "{fake_engine.url}", api_key_env = "FAKE_KEY"}}]',
        "FAKE_KEY": fake_engine.key,
    }
    with House(tmp_path_factory.mktemp("fake-house"), tiny_base, settings) as running:
        yield running


def _healthy(url: str, key: str) -> bool:
    try:
        headers = {"authorization": f"Bearer {key}"}
        return httpx.get(url + "/health", headers=headers, timeout=2).status_code == 200
    except httpx.TransportError:
        return False


@pytest_asyncio.fixture
async def db(postgres_url: str) -> AsyncIterator[Database]:
    """A migrated database of the test's own."""
    async with server.database(postgres_url) as found:
        await found.migrate()
        yield found
