"""Requests as proofs send them: timed, streamed, many at a time, over raw httpx."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import httpx


@dataclass
class Answer:
    """One request's outcome. Times are monotonic seconds; `chunks` the arrival of each content chunk."""

    status: int
    model: str = ""
    text: str = ""
    sent: float = 0.0
    chunks: list[float] = field(default_factory=list)
    error: str = ""

    @property
    def first_token_s(self) -> float:
        return self.chunks[0] - self.sent

    @property
    def gaps_s(self) -> list[float]:
        return [after - before for before, after in pairwise(self.chunks)]


def client(url: str, key: str, connections: int = 64) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=url,
        headers={"authorization": f"Bearer {key}"},
        timeout=120,
        limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
    )


async def ask(http: httpx.AsyncClient, model: str, prompt: str, max_tokens: int = 24, **more: Any) -> Answer:
    """One greedy chat completion, not streamed."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "temperature": 0,
        **more,
    }
    sent = time.monotonic()
    response = await http.post("/v1/chat/completions", json=body)
    if response.status_code != 200:
        return Answer(response.status_code, sent=sent, error=response.text)
    data = response.json()
    return Answer(
        200, data["model"], data["choices"][0]["message"]["content"] or "", sent, [time.monotonic()]
    )


async def stream(
    http: httpx.AsyncClient, model: str, prompt: str, max_tokens: int = 24, **more: Any
) -> Answer:
    """One greedy streamed chat completion with the arrival time of each chunk."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        **more,
    }
    answer = Answer(0, sent=time.monotonic())
    async with http.stream("POST", "/v1/chat/completions", json=body) as response:
        answer.status = response.status_code
        if response.status_code != 200:
            answer.error = (await response.aread()).decode(errors="replace")
            return answer
        async for event in events(response):
            now = time.monotonic()
            if "error" in event:
                answer.error = event["error"]["message"]
                break
            answer.model = event["model"]
            if event["choices"] and event["choices"][0]["delta"].get("content"):
                answer.text += event["choices"][0]["delta"]["content"]
                answer.chunks.append(now)
    return answer


async def events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in response.aiter_lines():
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line[6:])


async def at_once(concurrency: int, jobs: list[Any]) -> list[Any]:
    """Awaits the coroutines in `jobs`, at most `concurrency` of them at a time; results in order."""
    gate = asyncio.Semaphore(concurrency)

    async def one(job: Any) -> Any:
        async with gate:
            return await job

    return list(await asyncio.gather(*(one(job) for job in jobs)))
