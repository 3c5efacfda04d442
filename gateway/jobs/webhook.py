"""Telling somebody that a job ended, signed as OpenAI signs (https://www.standardwebhooks.com).

`client.webhooks.unwrap` of the openai package reads it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time

import httpx

TIMEOUT_S = 15.0


class Undelivered(Exception):
    """Nobody took it. It is tried again."""


def body_of(event: str, kind: str, job: str, at: int) -> bytes:
    """The event as OpenAI words it."""
    told = {"id": event, "object": "event", "created_at": at, "type": kind, "data": {"id": job}}
    return json.dumps(told).encode()


def headers_of(secret: str, event: str, body: bytes, now: float) -> dict[str, str]:
    """What goes with `body`; the same `webhook-id` each time it is tried, so that it can be taken once."""
    key = base64.b64decode(secret.removeprefix("whsec_")) if secret.startswith("whsec_") else secret.encode()
    stamp = str(int(now))
    signed = hmac.new(key, f"{event}.{stamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "content-type": "application/json",
        "user-agent": "hotswap",
        "webhook-id": event,
        "webhook-timestamp": stamp,
        "webhook-signature": "v1," + base64.b64encode(signed).decode(),
    }


async def deliver(url: str, secret: str, event: str, body: bytes) -> None:
    """Raises `Undelivered` unless the answer is a 2xx."""
    headers = headers_of(secret, event, body, time.time())
    try:
        async with httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False) as client:
            answer = await client.post(url, content=body, headers=headers)
    except httpx.HTTPError as error:
        raise Undelivered(f"the webhook was not taken: {error!r}") from error
    if not answer.is_success:
        raise Undelivered(f"the webhook was answered with {answer.status_code}")
