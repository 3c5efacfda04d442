"""Whom an exchange was for: what it is kept together by, and forgotten by.

The first of: the header `x-hotswap-unit`, `safety_identifier`, `prompt_cache_key`, `user`, and a hash of the
system and the first user message, which a conversation keeps.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from typing import Any

import msgspec

NAMED = ("safety_identifier", "prompt_cache_key", "user")
MAX_UNIT = 256
HASHED = "h:"
"""What a hash begins with: of messages, or of a unit that is not to be known itself."""

_encode = msgspec.json.Encoder(order="sorted").encode


def unit_of(header: str, request: Mapping[str, Any]) -> str:
    """`request` is the decoded body; "" when it tells nothing of whom it is for."""
    if header:
        return header[:MAX_UNIT]
    for value in named(request).values():
        return value
    said = _beginning(request)
    return hashed(_encode(said)) if said else ""


def named(request: Mapping[str, Any]) -> dict[str, str]:
    """The fields that name somebody, the first of which is the unit where no header says another."""
    values = {name: request.get(name) for name in NAMED}
    return {name: value[:MAX_UNIT] for name, value in values.items() if isinstance(value, str) and value}


def hashed(said: bytes, salt: bytes = b"") -> str:
    """128 bits of a hash. With a `salt` nobody without it can try names out."""
    return HASHED + hashlib.blake2b(said, digest_size=16, key=salt).hexdigest()


def new_salt() -> bytes:
    """For `hashed`."""
    return secrets.token_bytes(32)


def _beginning(request: Mapping[str, Any]) -> list[Any]:
    messages = request.get("messages")
    if isinstance(messages, list):
        said: dict[str, Any] = {}
        for message in messages:
            if isinstance(message, dict) and message.get("role") in ("system", "developer", "user"):
                said.setdefault(message["role"], message.get("content"))
        return list(said.items())
    for name in ("input", "prompt"):
        if request.get(name):
            return [request[name]]
    return []
