"""Every text in a decoded JSON body, handed to somebody who rewrites it.

What the first tier left is walked once more: strings, JSON within strings (the arguments of tools), long
numbers, and names of members that are more than identifiers. What only says what something is (a role, an
id, a function's name) is not handed over: whoever took it for a person's name would break the exchange.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from gateway.traffic.redact.tree import CONTAINERS, free_name
from gateway.traffic.unit import NAMED

Rewrite = Callable[[str, str], str]
"""(text, name of the member that holds it or "") -> the text as it may be kept."""

ABOUT = frozenset({"role", "type", "model", "id", "tool_call_id", "call_id", "finish_reason", *NAMED})
"""Members of the API's own objects that say what something is. Those of NAMED are hashes."""
CALLED = frozenset({"arguments", "parameters"})
"""What has one of these is a function, and its `name` is no person's."""
TOKEN = re.compile(r"[A-Za-z_][\w.:/@+\-]{0,127}")
IDENTIFIER = re.compile(r"[A-Za-z_$][\w$.\-]{0,63}")
FEWEST_DIGITS = 6
LARGEST = 10**19


def rewritten(value: Any, rewrite: Rewrite) -> Any:
    """`value` with every text in it as `rewrite` makes it. Raises what `rewrite` raises."""
    return _walk(value, "", rewrite, ours=True)


def _walk(value: Any, name: str, rewrite: Rewrite, *, ours: bool) -> Any:
    """`ours`: an object of the API, not one that somebody put into a string."""
    if isinstance(value, str):
        return _string(value, name, rewrite)
    if isinstance(value, dict):
        return _object(value, rewrite, ours=ours)
    if isinstance(value, list):
        return [_walk(item, name, rewrite, ours=ours) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return _number(value, name, rewrite)
    return value


def _object(members: dict[str, Any], rewrite: Rewrite, *, ours: bool) -> dict[str, Any]:
    about = ABOUT | {"name"} if members.keys() & CALLED else ABOUT
    result: dict[str, Any] = {}
    last: dict[str, int] = {}
    for name, value in members.items():
        key = name if IDENTIFIER.fullmatch(name) else rewrite(name, "")
        if key in result:
            key = free_name(key, result, last)
        told = ours and name in about and isinstance(value, str) and TOKEN.fullmatch(value)
        result[key] = value if told else _walk(value, name, rewrite, ours=ours)
    return result


def _number(value: int, name: str, rewrite: Rewrite) -> int | str:
    digits = str(value)
    if len(digits) < FEWEST_DIGITS or not -LARGEST < value < LARGEST:
        return value
    clean = rewrite(digits, name)
    return value if clean == digits else clean


def _string(text: str, name: str, rewrite: Rewrite) -> str:
    stripped = text.strip()
    if stripped[:1] + stripped[-1:] in CONTAINERS:
        twice = False

        def joined(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
            nonlocal twice
            pairs = list(pairs)
            members = dict(pairs)
            twice = twice or len(members) < len(pairs)
            return members

        try:
            parsed = json.loads(text, object_pairs_hook=joined)
        except ValueError:
            return rewrite(text, name)
        clean = _walk(parsed, "", rewrite, ours=False)
        # Of names that occur twice a decoder sees the last; the others go, for nobody has looked at them.
        if clean == parsed and not twice:
            return text
        compact = '": ' not in text
        return json.dumps(clean, ensure_ascii=False, separators=(",", ":") if compact else None)
    return rewrite(text, name)
