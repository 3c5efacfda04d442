"""Are the weights that engines multiply with the trained ones, to the last bit?

Log-probabilities cannot tell: one tensor of 420 in another order moves them by less than two engines differ
by rounding (measured: gap 0.081 nats, the base's own 0.103). So each engine tells the digests of what it has
in the slot (`adapters.vllm_plugin.tensors`), and here they are computed of what PEFT saved.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from adapters.vllm_plugin.tensors import digest
from training.lora import layers
from training.recipe import TrainingError

Digests = Mapping[str, list[str]]
"""By the name of a layer: that of A and that of B."""

EVICTED = "evicted"
TRIES = 5
"""An engine answers so when others took the slot in the same moment."""
CANNOT = (None, "sharded", "no_weights")
"""Codes of engines that can never tell: without our plugin, with parts of tensors, without any."""


def trained(folder: Path, dtype: str) -> dict[str, list[str]]:
    """Of the adapter in the folder, as an engine with slots of `dtype` has it: B times its scaling, rounded
    to `dtype` before and after."""
    import torch

    cast = getattr(torch, dtype)
    found = {
        name: digest(layer.a.to(cast), layer.b.to(cast) * layer.scaling)
        for name, layer in layers(folder).items()
    }
    return {name: each for name, each in found.items() if each is not None}


async def served(url: str, key: str, version: str, timeout_s: float = 120.0) -> dict[str, dict[str, Any]]:
    """By engine: `dtype` and `tensors` (`Digests`), or the `problem` for which it can never tell.

    `url` is the gateway's and ends in /v1; `key` an admin's. Raises `TrainingError`, also when an engine that
    could tell did not: no answer is no proof.
    """
    ask = f"{url.rstrip('/').removesuffix('/v1')}/admin/v1/adapters/{quote(version, safe='')}/tensors"
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {key}"}, timeout=timeout_s) as client:
        for attempt in range(TRIES):
            try:
                response = await client.get(ask)
            except httpx.HTTPError as error:
                raise TrainingError(f"no answer from {ask}: {type(error).__name__} {error}") from error
            if not response.is_success:
                raise TrainingError(f"{ask} answered {response.status_code}: {response.text[:300]}")
            told: dict[str, dict[str, Any]] = response.json()["engines"]
            if not any(answer.get("code") == EVICTED for answer in told.values()):
                break
            await asyncio.sleep(attempt)
    for engine, answer in told.items():
        if "problem" in answer and answer.get("code") not in CANNOT:
            raise TrainingError(
                f"engine {engine} did not tell its tensors ({answer['problem']}); prove it again"
            )
    return told


def others(trained: Digests, served: Digests) -> list[str]:
    """The tensors that are not the trained ones, as `model.layers.0.self_attn.q_proj A`."""
    return [
        f"{layer} {half}"
        for layer in sorted({*trained, *served})
        for half, ours, theirs in zip(
            "AB", trained.get(layer, ["", ""]), served.get(layer, ["", ""]), strict=True
        )
        if ours != theirs
    ]
