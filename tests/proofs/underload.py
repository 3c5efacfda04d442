"""A real engine under load: streams in the background, and what one load and one step cost on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import httpx

from tests.proofs.result import median
from tests.proofs.traffic import Answer, stream

STREAMS, STREAM_TOKENS = 8, 200
PROMPT = "List three short facts about rivers."


@dataclass(frozen=True)
class Costs:
    """Seconds. `load` is cold minus warm first token, `prefill` the warm one, both on an idle engine."""

    load: float
    prefill: float


async def idle_costs(http: httpx.AsyncClient, names: AsyncIterator[str]) -> Costs:
    """Medians over versions that the engine does not hold: without any load on it."""
    cold, warm = [], []
    async for name in names:
        cold.append((await first(http, name)).first_token_s)
        warm.append((await first(http, name)).first_token_s)
    return Costs(max(0.0, median(cold) - median(warm)), median(warm))


async def first(http: httpx.AsyncClient, name: str) -> Answer:
    """A short stream: what counts is its first token."""
    return await stream(http, name, PROMPT, max_tokens=4, ignore_eos=True)


async def cold_then_warm(http: httpx.AsyncClient, name: str, cold: list[float], warm: list[float]) -> int:
    """Asks a version that the engine does not hold, and again; how many of the two failed."""
    failures = 0
    for times in (cold, warm):
        answer = await first(http, name)
        if answer.status != 200 or answer.model != name or not answer.chunks:
            failures += 1
            print(f"  failed: {answer.status} {answer.error[:200]}", flush=True)
            continue
        times.append(answer.first_token_s)
    return failures


class Background:
    """`STREAMS` streams that start again as they end, until the block is left. Keeps every gap.

    The first ones are of different lengths, so that they end one after another from then on: streams in step
    would all be prefilled in one step every half a minute, and whoever asks at even times could meet that
    always, or never.
    """

    def __init__(self, http: httpx.AsyncClient, models: list[str]) -> None:
        self.gaps: list[float] = []
        self.failures = 0
        self.done = 0
        self._over = False
        self._tasks: list[asyncio.Task[None]] = []
        self._run: Callable[[int, int], Awaitable[Answer]] = lambda number, tokens: stream(
            http, models[number % len(models)], f"{number}: {PROMPT}", tokens, ignore_eos=True
        )

    async def __aenter__(self) -> Background:
        self._tasks = [asyncio.create_task(self._loop(number)) for number in range(STREAMS)]
        await asyncio.sleep(3)  # every stream is past its prefill
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._over = True
        await asyncio.gather(*self._tasks)

    async def _loop(self, number: int) -> None:
        tokens = STREAM_TOKENS * (number + 1) // STREAMS
        while not self._over:
            answer = await self._run(number, tokens)
            tokens = STREAM_TOKENS
            self.gaps += answer.gaps_s
            self.done += 1
            self.failures += answer.status != 200 or bool(answer.error)
