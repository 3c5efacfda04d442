"""What a real vLLM multiplies with is what was registered, told through the gateway."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from adapters.base.manifest import BaseManifest
from tests.house import House
from tests.peft_folder import random_adapter
from training.tensors import others, served, trained

pytestmark = pytest.mark.engine


def test_engines_tell_digests_of_the_weights_that_they_serve(
    house: House, base_folder: Path, tmp_path: Path
) -> None:
    folder = random_adapter(tmp_path / "one", BaseManifest.read(base_folder), seed=11)
    version = house.add("digests", folder)["name"]
    body = {"model": version, "prompt": "Hello", "max_tokens": 1}
    httpx.post(
        f"{house.url}/v1/completions", json=body, headers=house.headers, timeout=120
    ).raise_for_status()
    told = asyncio.run(served(f"{house.url}/v1", house.key, version))
    (answer,) = told.values()
    ours = trained(folder, answer["dtype"])
    assert 210 == len(ours)
    assert [] == others(ours, answer["tensors"])
    other = random_adapter(tmp_path / "two", BaseManifest.read(base_folder), seed=12)
    assert 420 == len(others(trained(other, answer["dtype"]), answer["tensors"]))


def test_the_base_has_none(house: House) -> None:
    answer = httpx.get(f"{house.url}/admin/v1/adapters/base/tensors", headers=house.headers)
    assert (409, "the base" in answer.text) == (answer.status_code, True)
