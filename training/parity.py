"""Is the served adapter the trained one? Log-probabilities of the same tokens, from PEFT and from the engine.

An engine and PEFT never agree to the last bit: they add bfloat16 products in different orders. How far they
are apart *without* an adapter is the measure: an adapter that is served as it was trained is as far.

    gap       mean |log p served - log p PEFT|, with the adapter, over all tokens, in nats
    base gap  the same without the adapter
    effect    what the adapter does when served, in units of what it did in training: with d = log p with it
              - log p without it, the slope sum(d_served * d_PEFT) / sum(d_PEFT ** 2) of a regression through
              the origin; 1 is right, 0 is an adapter that was ignored
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from adapters.base.manifest import BaseManifest
from training.quantized import load
from training.recipe import TrainingError
from training.rows import Row

Floats = NDArray[np.float64]

PROBES = 32
"""Rows that are looked at."""
LONGEST = 512
"""Tokens of one that are looked at."""
AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Logs:
    """Log-probabilities of every token but the first, of all probes in a row, in nats."""

    base: Floats
    adapter: Floats


@dataclass(frozen=True, slots=True)
class Parity:
    """Of so many `tokens`; see the module for the formulas. `moved` is the mean of |d_PEFT|, in nats."""

    tokens: int
    gap: float
    base_gap: float
    effect: float
    moved: float


def compare(trained: Logs, served: Logs) -> Parity:
    """What the module's formulas say. Raises `TrainingError` when they cannot say anything."""
    if not trained.base.shape == trained.adapter.shape == served.base.shape == served.adapter.shape:
        raise TrainingError(
            f"the engine told of {served.adapter.size} tokens, {trained.adapter.size} were asked for"
        )
    if trained.base.size == 0:
        raise TrainingError("there are no tokens to compare; give rows of at least two tokens")
    was, done = trained.adapter - trained.base, served.adapter - served.base
    strength = float(was @ was)
    return Parity(
        tokens=int(trained.base.size),
        gap=float(np.abs(served.adapter - trained.adapter).mean()),
        base_gap=float(np.abs(served.base - trained.base).mean()),
        effect=float(was @ done) / strength if strength else 0.0,
        moved=float(np.abs(was).mean()),
    )


def probes(tokenizer: Any, rows: Sequence[Row], count: int = PROBES) -> list[list[int]]:
    """The first `count` rows as the base's template writes them, cut to `LONGEST` tokens."""
    texts = [
        tokenizer.apply_chat_template([message.as_dict() for message in row.messages], tokenize=False)
        for row in rows[:count]
    ]
    return [list(tokenizer(text, add_special_tokens=False)["input_ids"])[:LONGEST] for text in texts]


def peft_logs(base: Path, adapter: Path, asked: Sequence[Sequence[int]]) -> Logs:
    """By PEFT, on the base as it is trained on. Base and adapter are one object, switched off and on."""
    from peft import PeftModel

    return adapter_logs(PeftModel.from_pretrained(load(base, BaseManifest.read(base)), str(adapter)), asked)


def adapter_logs(model: Any, asked: Sequence[Sequence[int]]) -> Logs:
    """Of a `PeftModel`, its adapter switched on and off."""
    with_it = token_logs(model.eval(), asked)
    with model.disable_adapter():
        without = token_logs(model, asked)
    return Logs(without, with_it)


def token_logs(model: Any, asked: Sequence[Sequence[int]]) -> Floats:
    """What a causal language model of transformers says, in evaluation mode: of every token but the first."""
    import torch

    told = []
    for ids in asked:
        row = torch.tensor([list(ids)], device=model.device)
        with torch.no_grad():
            logs = model(row).logits[0, :-1].float().log_softmax(-1)
        told.append(logs.gather(1, row[0, 1:, None])[:, 0].double().cpu().numpy())
    return np.concatenate(told)


async def served_logs(
    url: str, key: str, base: str, adapter: str, asked: Sequence[Sequence[int]], timeout_s: float = 120.0
) -> Logs:
    """By the engine, through the gateway. `url` ends in /v1; `adapter` should be a version, not a route.

    Raises `TrainingError` when the engine cannot be asked.
    """
    gate = asyncio.Semaphore(AT_ONCE)
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(headers=headers, timeout=timeout_s) as client:

        async def logs(model: str, ids: Sequence[int]) -> Floats:
            body = {
                "model": model,
                "prompt": list(ids),
                "max_tokens": 1,
                "temperature": 0,
                "prompt_logprobs": 0,
                "store": False,  # a gateway of ours is not to learn from it
            }
            async with gate:
                try:
                    response = await client.post(f"{url.rstrip('/')}/completions", json=body)
                except httpx.HTTPError as error:
                    raise TrainingError(f"no answer from {url}: {type(error).__name__} {error}") from error
            if not response.is_success:
                raise TrainingError(f"{model} answered {response.status_code}: {response.text[:300]}")
            return _of(response.json()["choices"][0]["prompt_logprobs"], ids)

        # The base first and then the adapter: one slot is enough, whatever else the engine does.
        told = [
            np.concatenate(await asyncio.gather(*(logs(model, ids) for ids in asked)))
            for model in (base, adapter)
        ]
    return Logs(*told)


def _of(told: Sequence[Any], ids: Sequence[int]) -> Floats:
    """Of each token but the first its own log-probability, from vLLM's `prompt_logprobs`."""
    if len(told) != len(ids):
        raise TrainingError(f"the engine told of {len(told)} tokens, {len(ids)} were asked for")
    try:
        return np.array([told[at][str(ids[at])]["logprob"] for at in range(1, len(ids))], np.float64)
    except (KeyError, TypeError) as error:
        raise TrainingError("the engine answered with other tokens than were asked for") from error


async def served_prompt_ids(
    url: str, key: str, model: str, messages: Sequence[dict[str, str]], timeout_s: float = 120.0
) -> list[int]:
    """The tokens that the engine makes of a conversation, by its own template."""
    asked = {"model": model, "messages": list(messages), "max_tokens": 1}
    body = {**asked, "return_token_ids": True, "store": False}
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {key}"}, timeout=timeout_s) as client:
        response = await client.post(f"{url.rstrip('/')}/chat/completions", json=body)
    if not response.is_success:
        raise TrainingError(f"{model} answered {response.status_code}: {response.text[:300]}")
    ids = response.json().get("prompt_token_ids")
    if not isinstance(ids, list):
        raise TrainingError(
            f"the engine does not tell the tokens of a prompt (vLLM's return_token_ids): {model}"
        )
    return [int(token) for token in ids]
