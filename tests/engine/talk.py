"""What tests say to an engine."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    first: dict[str, float]
    """The likeliest first tokens with their logprobs."""


@dataclass(frozen=True, slots=True)
class Talk:
    client: httpx.Client
    base: str

    def plugin(self) -> dict[str, Any]:
        answer = self.client.get("/hotswap/v1/plugin")
        answer.raise_for_status()
        body: dict[str, Any] = answer.json()
        return body

    def complete(self, model: str, prompt: str, **more: Any) -> httpx.Response:
        body = {"model": model, "prompt": prompt, "temperature": 0, "ignore_eos": True, **more}
        return self.client.post("/v1/completions", json=body)

    def answer(self, model: str, prompt: str, tokens: int = 12) -> Answer:
        response = self.complete(model, prompt, max_tokens=tokens, logprobs=5)
        assert response.status_code == 200, response.text
        choice = response.json()["choices"][0]
        return Answer(choice["text"], choice["logprobs"]["top_logprobs"][0])

    def at_once(self, asked: Sequence[tuple[str, str]], tokens: int = 12) -> list[Answer]:
        """All (model, prompt) pairs in flight together; answers in their order."""
        with ThreadPoolExecutor(len(asked)) as pool:
            return list(pool.map(lambda pair: self.answer(*pair, tokens=tokens), asked))

    def load(self, name: str, folder: Path) -> None:
        response = self.client.post(
            "/v1/load_lora_adapter", json={"lora_name": name, "lora_path": str(folder)}
        )
        assert response.status_code == 200, response.text

    def unload(self, name: str) -> None:
        response = self.client.post("/v1/unload_lora_adapter", json={"lora_name": name})
        assert response.status_code == 200, response.text


def distance(one: Answer, other: Answer) -> float:
    """The largest difference of a logprob, in nats, among the likely first tokens of both."""
    shared = one.first.keys() & other.first.keys()
    if len(shared) < 3:
        return float("inf")
    return max(abs(one.first[token] - other.first[token]) for token in shared)
