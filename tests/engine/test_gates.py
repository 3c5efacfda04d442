"""The gates before a real vLLM: they pass what was trained, and each of them sees what it is there for."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapters.base.manifest import BaseManifest
from tests.engine.talk import Talk
from tests.engine.trained import Trained
from tests.peft_folder import random_adapter
from training import gates, tensors
from training.gates import Finding
from training.parity import Logs, compare, peft_logs, served_logs, served_prompt_ids

pytestmark = pytest.mark.engine

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Served:
    """What the engine says with an adapter, and what it has of it in the slot."""

    logs: Logs
    tensors: dict[str, Any]


def served(engine: Talk, folder: Path, asked: list[list[int]]) -> Served:
    """Of the adapter in the folder."""
    name = f"gate-{folder.name}"
    engine.load(name, folder)
    try:
        url = f"{engine.client.base_url}".rstrip("/") + "/v1"
        key = engine.client.headers["authorization"].removeprefix("Bearer ")
        logs = asyncio.run(served_logs(url, key, engine.base, name, asked))
        told = engine.client.get(f"/hotswap/v1/adapters/{name}/tensors")
        assert told.status_code == 200, told.text
        return Served(logs, told.json())
    finally:
        engine.unload(name)


def changed(trained: Trained, folder: Path, change: Callable[[Tensors], Tensors]) -> Path:
    """A copy of the trained adapter with other tensors."""
    shutil.copytree(trained.folder, folder)
    file = folder / "adapter_model.safetensors"
    save_file({name: each.contiguous() for name, each in change(load_file(file)).items()}, file)
    return folder


def findings(trained: Trained, told: Served) -> dict[str, Finding]:
    found = compare(trained.logs, told.logs)
    ours = tensors.trained(trained.folder, told.tensors["dtype"])
    wrong = {"engine": tensors.others(ours, told.tensors["tensors"])}
    every = (
        gates.same_base(found),
        gates.parity(found),
        gates.effect(found),
        gates.tensors(wrong, len(ours)),
    )
    print(every)
    return {each.gate: each for each in every}


def failed(found: dict[str, Finding]) -> set[str]:
    return {gate for gate, each in found.items() if not each.passed}


def test_what_was_trained_passes(trained: Trained, engine: Talk) -> None:
    assert set() == failed(findings(trained, served(engine, trained.folder, trained.asked)))


def ignored(tensors: Tensors) -> Tensors:
    return {name: each * 0 if "lora_B" in name else each for name, each in tensors.items()}


def permuted_layers(tensors: Tensors) -> Tensors:
    def other(name: str) -> str:
        before, number, after = re.split(r"(?<=layers)\.(\d+)\.", name)
        return f"{before}.{(int(number) + 1) % 30}.{after}"

    return {other(name): each for name, each in tensors.items()}


def truncated_rank(tensors: Tensors) -> Tensors:
    def half(name: str, each: torch.Tensor) -> torch.Tensor:
        kept = each.clone()
        if "lora_A" in name:
            kept[kept.shape[0] // 2 :] = 0
        return kept

    return {name: half(name, each) for name, each in tensors.items()}


def one_corrupted(tensors: Tensors) -> Tensors:
    name = next(name for name in tensors if "layers.17" in name and "up_proj.lora_A" in name)
    return tensors | {name: tensors[name].flip(0)}


def one_value(tensors: Tensors) -> Tensors:
    name = next(name for name in tensors if "layers.17" in name and "up_proj.lora_B" in name)
    other = tensors[name].clone()
    other[3, 5] += 0.5
    return tensors | {name: other}


@pytest.mark.parametrize(
    ("change", "caught_by"),
    [
        (ignored, {"parity", "effect", "tensors"}),
        (permuted_layers, {"parity", "tensors"}),
        (truncated_rank, {"parity", "effect", "tensors"}),
        (one_corrupted, {"tensors"}),
        (one_value, {"tensors"}),
    ],
)
def test_what_is_not_the_trained_one_is_caught(
    change: Callable[[Tensors], Tensors],
    caught_by: set[str],
    trained: Trained,
    engine: Talk,
    tmp_path: Path,
) -> None:
    told = served(engine, changed(trained, tmp_path / change.__name__, change), trained.asked)
    assert caught_by <= failed(findings(trained, told))


def test_another_version_under_its_name_is_caught(trained: Trained, engine: Talk, tmp_path: Path) -> None:
    other = random_adapter(tmp_path / "other", BaseManifest.read(trained.base), seed=3, scale=0.02)
    caught_by = {"parity", "effect", "tensors"}
    assert caught_by <= failed(findings(trained, served(engine, other, trained.asked)))


def test_another_base_is_caught_without_the_adapter(trained: Trained, engine: Talk, tmp_path: Path) -> None:
    base = tmp_path / "other-base"
    shutil.copytree(trained.base, base)
    file = base / "model.safetensors"
    weights = load_file(file)
    name = "model.layers.3.mlp.up_proj.weight"
    weights[name] = weights[name] * 1.3
    file.unlink()
    save_file(weights, file, {"format": "pt"})
    told = served(engine, trained.folder, trained.asked)
    elsewhere = peft_logs(base, trained.folder, trained.asked)
    assert not gates.same_base(compare(elsewhere, told.logs)).passed


def test_another_template_is_caught_by_its_tokens(trained: Trained, engine: Talk) -> None:
    messages: list[dict[str, Any]] = [trained.rows[0].messages[0].as_dict()]
    url = f"{engine.client.base_url}".rstrip("/") + "/v1"
    key = engine.client.headers["authorization"].removeprefix("Bearer ")
    told = asyncio.run(served_prompt_ids(url, key, engine.base, messages))

    def ours() -> list[int]:
        text = trained.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return list(trained.tokenizer(text, add_special_tokens=False)["input_ids"])

    right = trained.tokenizer.chat_template
    assert gates.template(ours(), told).passed
    trained.tokenizer.chat_template = right.replace("user", "human").replace("\n", " ")
    try:
        assert not gates.template(ours(), told).passed
    finally:
        trained.tokenizer.chat_template = right


def test_lineage_names_the_base_that_is_served(trained: Trained) -> None:
    claim = json.loads((trained.folder / "hotswap.json").read_text())["base_fingerprint"]
    assert gates.base(claim, BaseManifest.read(trained.base).fingerprint).passed
