"""A stored chat completion and its messages, in OpenAI's shape, out of what is remembered of the exchange.

What is not remembered is not made up: log probabilities, the engine's fingerprint, parameters that were not
sent, the finish reasons of other choices than the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import msgspec

PREFIX = "chatcmpl-"
AS_SENT = (
    "temperature",
    "top_p",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "response_format",
    "tool_choice",
)
"""Parameters that OpenAI shows beside a stored completion."""

_NULL = msgspec.Raw(b"null")
_encode = msgspec.json.Encoder().encode
_message = msgspec.json.Decoder(dict[str, Any]).decode


class Kept(msgspec.Struct):
    """A row as a reader tells it (`gateway.traffic.row`). What is long stays JSON, passed on as it is."""

    id: str
    at_us: int
    day: str
    keep_days: int
    version: str
    finish_reason: str
    prompt: int | None
    completion: int | None
    cached: int | None
    counted: bool
    redacted: bool
    parameters: dict[str, Any] | None
    metadata: Any
    response: list[msgspec.Raw] | None
    tools: msgspec.Raw = _NULL
    messages: msgspec.Raw = _NULL

    @property
    def last_day(self) -> date:
        """On which it is kept."""
        return date.fromisoformat(self.day) + timedelta(days=self.keep_days)

    def is_stored(self) -> bool:
        """Whether an answer is there, and was asked to be stored. The reader's condition may mean more."""
        return bool(self.response) and (self.parameters or {}).get("store") is True

    def has(self, pairs: Mapping[str, str]) -> bool:
        """Whether its metadata has all of them."""
        known = self.metadata if isinstance(self.metadata, dict) else {}
        return all(known.get(name) == value for name, value in pairs.items())


def completion(kept: Kept) -> dict[str, Any]:
    """For msgspec to encode. `metadata` is what holds now."""
    given = kept.parameters or {}
    return {
        "id": PREFIX + kept.id,
        "object": "chat.completion",
        "created": kept.at_us // 1_000_000,
        "model": kept.version,
        "choices": [_choice(kept, *each) for each in enumerate(kept.response or [])],
        "usage": _usage(kept),
        "metadata": {} if kept.metadata is None else kept.metadata,
        "request_id": kept.id,
        "input_user": given.get("user"),
        "tools": kept.tools,
        **{name: given.get(name) for name in AS_SENT},
    }


def message(kept: Kept, number: int, said: msgspec.Raw) -> dict[str, Any]:
    """One of those that were asked with. Parts of a content stand beside it, as at OpenAI."""
    given = _message(said)
    content = given.get("content")
    parts = content if isinstance(content, list) else None
    beside = {"name": None, "content_parts": parts}
    return {
        **beside,
        **given,
        "content": content if parts is None else None,
        "id": message_id(kept.id, number),
    }


def message_id(id: str, number: int) -> str:
    return f"{PREFIX}{id}-{number}"


def page(items: Sequence[Mapping[str, Any]], *, more: bool) -> bytes:
    """A list as OpenAI answers it."""
    first, last = (items[0]["id"], items[-1]["id"]) if items else (None, None)
    listed = {"object": "list", "data": items, "first_id": first, "last_id": last, "has_more": more}
    return _encode(listed)


def _choice(kept: Kept, index: int, answer: msgspec.Raw) -> dict[str, Any]:
    reason = kept.finish_reason or None
    return {"index": index, "message": answer, "finish_reason": None if index else reason, "logprobs": None}


def _usage(kept: Kept) -> dict[str, Any] | None:
    """As the engine counted; None where it did not."""
    if not kept.counted or kept.prompt is None or kept.completion is None:
        return None
    usage: dict[str, Any] = {
        "prompt_tokens": kept.prompt,
        "completion_tokens": kept.completion,
        "total_tokens": kept.prompt + kept.completion,
    }
    if kept.cached is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": kept.cached}
    return usage
