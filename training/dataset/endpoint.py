"""Any OpenAI endpoint as a writer or a judge: many questions at once, each answered once.

What was answered is kept in a folder by the content of the question, so a build that is done again, or that
was killed, asks nothing twice, and comes to the same dataset.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from training.dataset.plan import DatasetError, Endpoint

TRIES = 4
AGAIN = (408, 409, 429, 500, 502, 503, 504)
LONGEST_WAIT_S = 30.0
NEAR = ("localhost", "127.0.0.1", "::1")


class Answers:
    """`kept` is a folder of earlier answers; None keeps none. `wait_s` before the second try, doubled each
    time."""

    def __init__(
        self,
        endpoint: Endpoint,
        kept: Path | None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        wait_s: float = 1.0,
    ) -> None:
        self._endpoint = endpoint
        self._kept = kept
        self._transport = transport
        self._wait_s = wait_s
        self.asked = 0

    def all(self, questions: Sequence[str], *, temperature: float | None = None) -> list[str]:
        """An answer to each, in order. Raises `DatasetError` when the endpoint refuses or stays away."""
        return asyncio.run(self._all(questions, temperature))

    async def _all(self, questions: Sequence[str], temperature: float | None) -> list[str]:
        headers = {}
        if self._endpoint.key_env is not None:
            key = os.environ.get(self._endpoint.key_env)
            if not key:
                raise DatasetError(f"key_env names {self._endpoint.key_env}, which is not set")
            headers["authorization"] = f"Bearer {key}"
        turns = asyncio.Semaphore(self._endpoint.at_once)
        async with httpx.AsyncClient(
            headers=headers, timeout=self._endpoint.timeout_s, transport=self._transport
        ) as http:

            async def one(question: str) -> str:
                async with turns:
                    return await self._one(http, question, temperature)

            try:
                async with asyncio.TaskGroup() as tasks:
                    asking = [tasks.create_task(one(question)) for question in questions]
            except* DatasetError as group:
                raise group.exceptions[0] from None
        return [task.result() for task in asking]

    async def _one(self, http: httpx.AsyncClient, question: str, temperature: float | None) -> str:
        body = {
            "model": self._endpoint.model,
            "messages": [{"role": "user", "content": question}],
            "temperature": self._endpoint.temperature if temperature is None else temperature,
        }
        written = json.dumps([self._endpoint.url, body], sort_keys=True).encode()
        file = None if self._kept is None else self._kept / f"{hashlib.sha256(written).hexdigest()}.json"
        if file is not None and file.is_file():
            return str(json.loads(file.read_bytes()))
        answer = await self._answer(http, body)
        self.asked += 1
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(".part")
            part.write_text(json.dumps(answer))
            part.replace(file)
        return answer

    async def _answer(self, http: httpx.AsyncClient, body: dict[str, Any]) -> str:
        url = f"{self._endpoint.url.rstrip('/')}/chat/completions"
        why = ""
        for attempt in range(TRIES):
            if attempt:
                await asyncio.sleep(min(self._wait_s * 2 ** (attempt - 1), LONGEST_WAIT_S))
            try:
                response = await http.post(url, json=body)
            except httpx.HTTPError as error:
                why = str(error) or type(error).__name__
                continue
            if response.is_success:
                try:
                    return str(response.json()["choices"][0]["message"]["content"] or "")
                except (ValueError, LookupError, TypeError) as error:
                    raise DatasetError(f"{url} answers, but not as OpenAI's API does: {error!r}") from error
            why = f"status {response.status_code}: {response.text[:200]}"
            if response.status_code not in AGAIN:
                break
        raise DatasetError(f"{url} does not answer for {self._endpoint.model} ({why})")


def host_of(url: str) -> str:
    return urlsplit(url).hostname or ""


def may_have_captured(endpoint: Endpoint, hosts: Sequence[str], gateway: str | None) -> None:
    """Raises `DatasetError` unless captured rows may be sent there: this machine, the gateway, or a host that
    the plan names."""
    host = host_of(endpoint.url)
    if host not in (*NEAR, *hosts, host_of(gateway or "")):
        raise DatasetError(
            f"{endpoint.url} would be sent what users asked; name its host when their consent covers that: "
            f'privacy.hosts = ["{host}"]'
        )


def json_in(text: str) -> Any:
    """The first JSON array or object in what a model wrote, fenced or with words around it; None for none."""
    decoder = json.JSONDecoder()
    for begin in re.finditer(r"[\[{]", text):
        try:
            return decoder.raw_decode(text, begin.start())[0]
        except json.JSONDecodeError:
            continue
    return None
