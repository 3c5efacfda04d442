"""Many questions to one OpenAI endpoint."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import httpx

from training.recipe import TrainingError


@dataclass(frozen=True, slots=True)
class Answered:
    """What came back: `seconds` from sending to the last byte; tokens as the endpoint counted them."""

    id: str
    text: str
    seconds: float
    prompt_tokens: int
    completion_tokens: int


async def ask_all(
    conversations: Sequence[Sequence[Mapping[str, str]]],
    *,
    url: str,
    key: str,
    model: str,
    concurrency: int = 16,
    max_tokens: int = 64,
    timeout_s: float = 120.0,
    progress: Callable[[int, int], None] = lambda done, total: None,
    unremembered: bool = False,
) -> list[Answered]:
    """Ask each conversation once, greedily, `concurrency` at a time; answers in their order.

    `url` ends in /v1. `unremembered`: a gateway of ours is not to learn from what is asked here.
    Raises `TrainingError` at the first answer that is an error: a score with holes would be none.
    """
    gate = asyncio.Semaphore(concurrency)
    done = 0
    async with httpx.AsyncClient(
        headers={"authorization": f"Bearer {key}"},
        timeout=timeout_s,
        limits=httpx.Limits(max_connections=concurrency),
    ) as client:

        async def answer(messages: Sequence[Mapping[str, str]]) -> Answered:
            nonlocal done
            body = {
                "model": model,
                "messages": list(messages),
                "temperature": 0,
                "max_tokens": max_tokens,
            }
            if unremembered:  # not for everybody's endpoint: some refuse what they do not know
                body["store"] = False
            async with gate:
                began = time.monotonic()
                try:
                    response = await client.post(f"{url.rstrip('/')}/chat/completions", json=body)
                except httpx.HTTPError as error:
                    raise TrainingError(f"no answer from {url}: {type(error).__name__} {error}") from error
                seconds = time.monotonic() - began
            if not response.is_success:
                raise TrainingError(f"{model} answered {response.status_code}: {response.text[:300]}")
            told = response.json()
            usage = told.get("usage") or {}
            done += 1
            progress(done, len(conversations))
            return Answered(
                str(told.get("id", "")),
                str(told["choices"][0]["message"]["content"] or ""),
                seconds,
                int(usage.get("prompt_tokens", 0)),
                int(usage.get("completion_tokens", 0)),
            )

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(answer(messages)) for messages in conversations]
        except* TrainingError as errors:
            raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
