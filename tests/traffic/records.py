"""Records for tests, as a gateway would make them."""

from __future__ import annotations

import json
from typing import Any

from gateway.requestid import RequestIds
from gateway.traffic.record import FULL, Exchanged

IDS = RequestIds()
AT = 1_795_000_000.0
"""2026-11-18 11:06:40 UTC."""


def record(number: int = 0, **changes: Any) -> Exchanged:
    """An answered question, one of a kind by `number`; `changes` are fields that shall be different."""
    messages = [{"role": "user", "content": f"question {number}"}]
    asked = {"model": "support", "messages": messages, "temperature": 0, "user": f"user-{number % 7}"}
    message = {"role": "assistant", "content": f"answer {number}"}
    answered = {
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": number % 50},
    }
    answer = json.dumps(answered).encode()
    given: dict[str, Any] = {
        "id": next(IDS),
        "at": AT + number,
        "path": "/v1/chat/completions",
        "route": "support",
        "version": "support@3f9c2ab71e04",
        "engine": "127.0.0.1:8000",
        "base": "7" * 64,
        "tenant": "default",
        "key": "key_1",
        "unit": "",
        "status": 200,
        "outcome": "complete",
        "error": "",
        "ready_s": 0.001,
        "first_s": 0.05,
        "ended_s": 0.25,
        "loaded_s": None,
        "streaming": False,
        "level": FULL,
        "cleaned": False,
        "redacted": False,
        "consent": "terms of 2026",
        "sample": 1.0,
        "keep_days": 90,
        "request": json.dumps(asked).encode(),
        "answer": answer,
        "sent_bytes": len(answer),
    }
    return Exchanged(**{**given, **changes})
