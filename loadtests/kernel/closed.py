"""A fixed number of streams, each asking as soon as it was answered: tokens a second of a full batch.

Closed on purpose. The question here is what a step costs with so many rows in it, not what a user waits, so
the batch must stay full; latencies are measured in open loop (`loadtests.drive`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import httpx

from loadtests.streams import stream as random_stream
from loadtests.target import Target

TIMEOUT_S = 300.0
PROMPT_TOKENS = 3
"""Short, so that the time is that of decoding, and still enough for every prompt to differ."""
CONTROL_TOKENS = 100
"""The first ids of a vocabulary, where its control tokens are; none is sent."""


@dataclass(frozen=True, slots=True)
class Spent:
    """`tokens` were generated in `seconds`, from the first send to the last answer."""

    tokens: int
    seconds: float

    @property
    def per_s(self) -> float:
        return self.tokens / self.seconds


class Refused(RuntimeError):
    """The engine answered one of the requests with an error: the figure would be of something else."""


def prompts(seed: int, vocabulary: int) -> Iterator[list[int]]:
    """Prompts of random token ids below `vocabulary`, hardly ever two alike: no prefix cache helps."""
    dice = random_stream(seed, "kernel.prompts")
    while True:
        yield [int(each) for each in dice.integers(CONTROL_TOKENS, vocabulary, PROMPT_TOKENS)]


def drive(target: Target, plan: Sequence[Sequence[str]], tokens: int, asking: Iterator[list[int]]) -> Spent:
    """Every stream of `plan` asks for its models in turn, `tokens` tokens altogether, greedy, never ending
    early. Blocks until all are answered. Raises `Refused`, and `httpx.TransportError` when the engine dies.
    """
    return asyncio.run(_drive(target, plan, tokens, asking))


async def _drive(
    target: Target, plan: Sequence[Sequence[str]], tokens: int, asking: Iterator[list[int]]
) -> Spent:
    limits = httpx.Limits(max_connections=len(plan), max_keepalive_connections=len(plan))
    headers = {"authorization": f"Bearer {target.key}", **target.headers}
    async with httpx.AsyncClient(
        base_url=target.url, headers=headers, timeout=TIMEOUT_S, limits=limits, trust_env=False
    ) as http:
        began = time.monotonic()
        counts = await asyncio.gather(
            *(
                _stream(http, [(model, tokens // len(models), next(asking)) for model in models])
                for models in plan
            )
        )
        return Spent(sum(counts), time.monotonic() - began)


async def _stream(http: httpx.AsyncClient, asked: Sequence[tuple[str, int, list[int]]]) -> int:
    """Tokens that the engine says it generated."""
    count = 0
    for model, tokens, prompt in asked:
        body = {
            "model": model,
            "prompt": prompt,
            "max_tokens": tokens,
            "temperature": 0,
            "ignore_eos": True,
        }
        answer = await http.post("/v1/completions", json=body)
        if answer.status_code != 200:
            raise Refused(f"{model} was answered {answer.status_code}: {answer.text[:300]}")
        count += answer.json()["usage"]["completion_tokens"]
    return count
