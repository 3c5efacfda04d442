"""Exported exchanges with all that a trainer must know of each: on what basis, for whom, what was thought of
it.

For whom is a keyed hash: who learns from traffic keeps what is of one unit together, and forgets it together,
and need not know who that is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

Thought = Callable[[Sequence[str]], Awaitable[Mapping[str, Any]]]
"""Of exchanges by their ids: what holds of those that somebody said something of."""


class Line(msgspec.Struct):
    """A line of an export; what was said stays as it is."""

    messages: msgspec.Raw
    metadata: dict[str, Any]
    tools: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_line = msgspec.json.Decoder(Line).decode
_json = msgspec.json.Encoder().encode


async def examples(
    pieces: AsyncIterator[bytes], thought: Thought, pseudonym: Callable[[str], str]
) -> AsyncIterator[bytes]:
    """The same pieces, each of whole lines, with `feedback` (null for none) and a `unit` that is no name."""
    async for piece in pieces:
        lines = [_line(line) for line in piece.splitlines()]
        said = await thought([line.metadata["id"] for line in lines])
        for line in lines:
            line.metadata["unit"] = pseudonym(line.metadata["unit"])
            line.metadata["feedback"] = said.get(line.metadata["id"])
        yield b"".join(_json(line) + b"\n" for line in lines)
