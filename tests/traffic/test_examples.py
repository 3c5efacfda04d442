"""Exports for a trainer: feedback beside each exchange, and no names."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

from gateway.traffic.examples import examples
from gateway.traffic.forgetting import Forgetting
from gateway.traffic.unit import hashed

SALT = b"s" * 32


async def told(*lines: bytes) -> list[dict[str, Any]]:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"".join(line + b"\n" for line in lines)

    async def thought(ids: Sequence[str]) -> dict[str, Any]:
        return {"a": {"thumb": "up"}} if "a" in ids else {}

    pseudonym = Forgetting(cast(Any, None), SALT).pseudonym
    found = [piece async for piece in examples(pieces(), thought, pseudonym)]
    return [json.loads(line) for line in b"".join(found).splitlines()]


def line(id: str, unit: str) -> bytes:
    messages = [{"role": "user", "content": "Where is it?\nTell me, 1.10"}]
    return json.dumps({"messages": messages, "metadata": {"id": id, "unit": unit}}).encode()


async def test_each_exchange_has_what_was_thought_of_it() -> None:
    assert [{"thumb": "up"}, None] == [
        each["metadata"]["feedback"] for each in await told(line("a", ""), line("b", ""))
    ]


async def test_a_unit_is_a_hash_that_a_wish_to_forget_can_match() -> None:
    (found,) = await told(line("a", "alice@example.com"))
    assert hashed(b"alice@example.com", SALT) == found["metadata"]["unit"]


async def test_a_unit_that_is_a_hash_or_nobody_stays_what_it_is() -> None:
    assert ["h:12", ""] == [each["metadata"]["unit"] for each in await told(line("a", "h:12"), line("b", ""))]


async def test_what_was_said_stays_as_it_is() -> None:
    (found,) = await told(line("a", ""))
    assert "Where is it?\nTell me, 1.10" == found["messages"][0]["content"]
