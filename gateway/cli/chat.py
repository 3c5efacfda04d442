"""One streamed chat answer, for verbs that show one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.cli.client import NO_GATEWAY, Gateway, fail, message_of


@dataclass(frozen=True, slots=True)
class Answer:
    """`model` is the exact version that answered. Times are seconds from sending the request."""

    model: str
    text: str
    first_token_s: float | None
    total_s: float


def stream(
    gateway: Gateway,
    model: str,
    messages: Sequence[Mapping[str, str]],
    *,
    hear: Callable[[str], None] = lambda piece: None,
    **parameters: Any,
) -> Answer:
    """Streams the answer; `hear` gets each piece of text as it comes. Ends the command on a refusal."""
    import httpx

    body = {"model": model, "messages": list(messages), "stream": True, **parameters}
    sent = time.monotonic()
    first: float | None = None
    version, pieces = model, []
    try:
        with httpx.stream(
            "POST",
            f"{gateway.url}/v1/chat/completions",
            json=body,
            headers={"authorization": f"Bearer {gateway.key}"},
            timeout=600,
        ) as response:
            if not response.is_success:
                fail(message_of(response.read().decode(errors="replace"), response.status_code))
            for line in response.iter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                event = json.loads(line[6:])
                if "error" in event:
                    fail(event["error"]["message"])
                version = event["model"]
                for choice in event["choices"]:
                    if piece := choice["delta"].get("content"):
                        first = time.monotonic() - sent if first is None else first
                        pieces.append(piece)
                        hear(piece)
    except httpx.TransportError as error:
        fail(f"no gateway answers at {gateway.url} ({error}). Start one: hotswap up", code=NO_GATEWAY)
    return Answer(version, "".join(pieces), first, time.monotonic() - sent)
