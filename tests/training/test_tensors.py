"""The gate of tensors: what engines tell of what they serve, and what is made of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from adapters.base.manifest import BaseManifest
from tests.peft_folder import random_adapter
from tests.training.dataset.servers import Asked, serving
from training import gates
from training.proving import Candidate, same_tensors
from training.recipe import TrainingError
from training.tensors import others, served, trained

VERSION = "support@3f9c2ab71e04"


@contextmanager
def gateway(*answers: dict[str, Any]) -> Iterator[str]:
    """One that gives these for its engines, each once, and then the last again."""
    left = list(answers)

    def reply(asked: Asked) -> tuple[int, bytes]:
        assert asked.path == f"/admin/v1/adapters/{VERSION.replace('@', '%40')}/tensors"
        assert asked.headers["authorization"] == "Bearer k"
        told = left.pop(0) if len(left) > 1 else left[0]
        return 200, json.dumps({"version": VERSION, "engines": told}).encode()

    with serving(reply) as server:
        yield f"{server.url}/v1"


EVICTED = {"one": {"problem": "it was evicted", "code": "evicted"}}


@pytest.fixture
def adapter(small_base: Path, tmp_path: Path) -> Path:
    return random_adapter(tmp_path / "adapter", BaseManifest.read(small_base), seed=1)


def right(adapter: Path) -> dict[str, Any]:
    return {"dtype": "bfloat16", "tensors": trained(adapter, "bfloat16")}


async def found(adapter: Path, *answers: dict[str, Any]) -> list[gates.Finding]:
    candidate = Candidate(VERSION, adapter, "base", (), ())
    said: list[str] = []
    with gateway(*answers) as url:
        return await same_tensors(candidate, url, "k", said.append)


async def test_the_trained_weights_on_every_engine_pass(adapter: Path) -> None:
    (finding,) = await found(adapter, {"one": right(adapter), "two": right(adapter)})
    assert (True, "all 28 on 2 engines") == (finding.passed, finding.measured)


async def test_one_other_tensor_on_one_engine_does_not(adapter: Path) -> None:
    other = right(adapter)
    other["tensors"]["model.layers.1.mlp.up_proj"][1] = "0" * 32
    (finding,) = await found(adapter, {"one": right(adapter), "two": other})
    assert not finding.passed
    assert "1 of 28 are others at two, first model.layers.1.mlp.up_proj B" == finding.measured


async def test_a_layer_that_is_missing_or_strange_does_not(adapter: Path) -> None:
    ours = trained(adapter, "bfloat16")
    less = dict(ours)
    del less["model.layers.0.mlp.up_proj"]
    assert ["model.layers.0.mlp.up_proj A", "model.layers.0.mlp.up_proj B"] == others(ours, less)
    assert ["x A", "x B"] == others(ours, {**ours, "x": ["1", "2"]})


async def test_engines_that_can_never_tell_leave_the_gate_out(adapter: Path) -> None:
    for code in (None, "sharded", "no_weights"):
        assert [] == await found(adapter, {"one": {"problem": "no", "code": code}})
    (finding,) = await found(adapter, {"one": {"problem": "no", "code": None}, "two": right(adapter)})
    assert "all 28 on 1 engine" == finding.measured


@pytest.mark.parametrize("code", ["lost", "engine_error", "engine_slow"])
async def test_one_that_could_tell_and_does_not_is_no_pass(adapter: Path, code: str) -> None:
    with pytest.raises(TrainingError, match="engine two did not tell its tensors"):
        await found(adapter, {"one": right(adapter), "two": {"problem": "no", "code": code}})


async def test_one_that_was_evicted_is_asked_again(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (finding,) = await found(adapter, EVICTED, {"one": right(adapter)})
    assert finding.passed
    monkeypatch.setattr("training.tensors.TRIES", 2)
    with gateway(EVICTED) as url, pytest.raises(TrainingError, match="did not tell"):
        await served(url, "k", VERSION)
