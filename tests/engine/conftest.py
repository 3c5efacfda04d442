"""The real engine, spoken to directly. It is the session's one vLLM, or one that runs already:
HOTSWAP_TEST_ENGINE_URL, with its key in HOTSWAP_TEST_ENGINE_KEY (it must read this machine's files)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from adapters.base.manifest import BaseManifest
from tests.engine.talk import Talk
from tests.engine.trained import Trained
from tests.peft_folder import random_adapter

LOUD = 0.15
"""Standard deviation of B: a random adapter this strong changes every answer."""


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest) -> Iterator[Talk]:
    if url := os.environ.get("HOTSWAP_TEST_ENGINE_URL"):
        real = SimpleNamespace(url=url, key=os.environ["HOTSWAP_TEST_ENGINE_KEY"], base_model="base")
    else:
        real = request.getfixturevalue("real_engine")
    limits = httpx.Limits(max_connections=64)
    headers = {"authorization": f"Bearer {real.key}"}
    with httpx.Client(
        base_url=real.url, headers=headers, timeout=120, limits=limits, trust_env=False
    ) as client:
        yield Talk(client, real.base_model)


@pytest.fixture(scope="session")
def base(base_folder: Path) -> BaseManifest:
    return BaseManifest.read(base_folder)


@pytest.fixture(scope="session")
def trained(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(base_folder, tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="session")
def loud(engine: Talk, base: BaseManifest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Names of as many loud adapters as the engine has slots: the last slot is taken too."""
    count = engine.plugin()["loras"]["max_loras"]
    names = [f"loud{seed}" for seed in range(count)]
    folder = tmp_path_factory.mktemp("loud")
    for seed, name in enumerate(names):
        engine.load(name, random_adapter(folder / name, base, seed=seed, scale=LOUD))
    for name in names:
        engine.answer(name, "Hello", tokens=1)
    yield names
    for name in names:
        engine.unload(name)
