"""A steady load of the openai SDK: so many requests a second, every second one streamed, whatever happens."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import httpx
import openai

from tests.house import House

TOKENS = 4


@dataclass(frozen=True, slots=True)
class Answered:
    """A whole answer: when it was asked for, and when its last byte was there (seconds, monotonic)."""

    id: str
    asked: float
    at: float

    @property
    def took_s(self) -> float:
        return self.at - self.asked


class Steady:
    """`run` until `stop`. `failed` says of every request without a whole answer why."""

    def __init__(self, house: House, model: str, per_s: float) -> None:
        self.answered: list[Answered] = []
        self.failed: list[str] = []
        self._url, self._key = f"{house.url}/v1", house.key
        self._model = model
        self._per_s = per_s
        self._over = False

    def stop(self) -> None:
        """Nothing new is asked; `run` ends with the last answer."""
        self._over = True

    async def run(self) -> None:
        began, number = time.monotonic(), 0
        async with (
            openai.AsyncOpenAI(base_url=self._url, api_key=self._key, max_retries=0, timeout=60) as sdk,
            asyncio.TaskGroup() as asking,
        ):
            while not self._over:
                asking.create_task(self._ask(sdk, number))
                number += 1
                await asyncio.sleep(began + number / self._per_s - time.monotonic())

    async def _ask(self, sdk: openai.AsyncOpenAI, number: int) -> None:
        asked = time.monotonic()
        try:
            id = await (self._streamed if number % 2 else self._whole)(sdk, f"question {number}")
        except (openai.OpenAIError, httpx.HTTPError) as error:
            self.failed.append(f"{type(error).__name__}: {error}")
            return
        self.answered.append(Answered(id.removeprefix("chatcmpl-"), asked, time.monotonic()))

    async def _whole(self, sdk: openai.AsyncOpenAI, question: str) -> str:
        answer = await sdk.chat.completions.create(
            model=self._model, messages=[{"role": "user", "content": question}], max_tokens=TOKENS
        )
        return answer.id

    async def _streamed(self, sdk: openai.AsyncOpenAI, question: str) -> str:
        id, finished = "", False
        stream = await sdk.chat.completions.create(
            model=self._model,
            messages=[{"role": "user", "content": question}],
            max_tokens=TOKENS,
            stream=True,
        )
        async for chunk in stream:
            id = chunk.id
            finished = finished or any(choice.finish_reason for choice in chunk.choices)
        if not finished:
            raise openai.OpenAIError("the stream ended in mid-answer")
        return id
