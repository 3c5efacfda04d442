"""JSON from strangers: bounded, one meaning, no surprises later.

Python's own reader takes NaN, lets the last of two equal keys win, and builds strings that Postgres cannot
store (NUL, lone surrogates). Each would be noticed much later and far away, so all are refused here.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from adapters.errors import Refused


def read_object(raw: bytes, what: str, *, code: str) -> dict[str, Any]:
    """The JSON object in `raw`, which is called `what` in messages.

    Raises `Refused` with `code` for anything else: not UTF-8, not JSON, not an object, a repeated key, NaN,
    an infinite number, a string with NUL or a lone surrogate, nesting too deep to read.
    """

    def constant(word: str) -> NoReturn:
        raise ValueError(f"{word} is not JSON")

    def number(digits: str) -> float:
        value = float(digits)
        if not math.isfinite(value):
            raise ValueError(f"the number {digits[:40]} is too large")
        return value

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(items)
        if len(table) != len(items):
            keys = [key for key, _ in items]
            raise ValueError(f"the key {shown(next(k for k in keys if keys.count(k) > 1))} is there twice")
        return table

    try:
        value = json.loads(
            raw.decode("utf-8"), parse_constant=constant, parse_float=number, object_pairs_hook=pairs
        )
        _storable(value)
    except RecursionError as error:
        raise Refused(f"{what} is nested too deeply; write it flat", code=code) from error
    except ValueError as error:
        raise Refused(f"{what} is not usable JSON: {str(error)[:200]}", code=code) from error
    if not isinstance(value, dict):
        raise Refused(f"{what} holds a JSON {type(value).__name__}; it must be an object", code=code)
    return value


def canonical(value: dict[str, Any]) -> bytes:
    """The one way to write `value`: sorted keys, no spaces, ASCII."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode()


def shown(value: object) -> str:
    """`value` as it may stand in a message: printable, one line, at most 120 characters."""
    text = ascii(value)
    return text if len(text) <= 120 else text[:117] + "..."


def _storable(value: Any) -> None:
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError(f"the text {shown(value)} has a NUL or half a surrogate pair")
    elif isinstance(value, dict):
        for key, item in value.items():
            _storable(key)
            _storable(item)
    elif isinstance(value, list):
        for item in value:
            _storable(item)
