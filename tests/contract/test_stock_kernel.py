"""What only real vLLM can show on the small engine, which runs vLLM's own LoRA kernel and has two slots."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.contract.conftest import SLOTS, Engine, Shelf
from tests.contract.test_adapters_contract import PATH, ask, held, idle, put, resident

pytestmark = pytest.mark.engine

PROMPTS = ("The capital of France is", "A recipe for bread:", "Once upon a time", "Gravity is")


@pytest.fixture(scope="module")
def small(small_vllm: Engine) -> Engine:
    return small_vllm


@pytest.fixture
def http(small: Engine) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {small.key}"}
    with httpx.Client(base_url=small.url, headers=headers, timeout=60, trust_env=False) as client:
        idle(client)
        for name in held(client):
            client.delete(f"{PATH}/{name}").raise_for_status()
        yield client


def answer(http: httpx.Client, model: str, prompt: str) -> str:
    """Asked again until it is let in."""
    deadline = time.monotonic() + 30
    while True:
        got = ask(http, model, prompt=prompt, max_tokens=12, ignore_eos=True)
        if got.status_code != 503:
            assert got.status_code == 200, got.text
            text: str = got.json()["choices"][0]["text"]
            return text
        assert time.monotonic() < deadline, f"{model} was not let in for 30 s: {got.text}"
        time.sleep(0.02)


def test_base_answers_are_right_while_loud_adapters_fill_all_slots(http: httpx.Client, shelf: Shelf) -> None:
    alone = [answer(http, "base", prompt) for prompt in PROMPTS]
    names = [resident(http, shelf) for _ in range(SLOTS)]
    over = threading.Event()

    def keep_asking(name: str) -> int:
        answered = 0
        while not over.is_set():
            answered += bool(answer(http, name, PROMPTS[0]))
        return answered

    with ThreadPoolExecutor(SLOTS + len(PROMPTS)) as pool:
        beside = [pool.submit(keep_asking, name) for name in names]
        among = list(pool.map(lambda prompt: answer(http, "base", prompt), PROMPTS))
        over.set()
        assert all(future.result() > 0 for future in beside)
    # One may differ: bfloat16 rounds otherwise in a batch of another size.
    assert 1 >= sum(one != other for one, other in zip(alone, among, strict=True))


def test_a_load_that_fails_half_way_leaves_slot_and_cache_free(
    http: httpx.Client, shelf: Shelf, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(shelf.adapter_dir, tmp_path / "misshapen"))
    weights = load_file(folder / "adapter_model.safetensors")
    last = max(name for name in weights if "down_proj.lora_B" in name)
    weights[last] = np.concatenate([weights[last], weights[last]])
    save_file(weights, folder / "adapter_model.safetensors")
    misshapen = Shelf(shelf.store, folder, shelf.source)
    name, digest = misshapen.version()
    kept = resident(http, shelf)
    refused = put(http, misshapen, name, digest)
    assert 500 == refused.status_code, refused.text
    assert [kept] == list(held(http))
    others = [kept, *(resident(http, shelf) for _ in range(SLOTS - 1))]
    assert set(range(SLOTS)) == {held(http)[each]["slot"] for each in others}
    assert all(answer(http, each, PROMPTS[0]) for each in others)
