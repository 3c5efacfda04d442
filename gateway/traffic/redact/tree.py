"""A decoded JSON body: every string in it, every name, every number that could be a card's."""

from __future__ import annotations

import json
from typing import Any

from gateway.traffic.redact.kinds import PLACEHOLDER, Counts, Kind
from gateway.traffic.redact.numbers import card
from gateway.traffic.redact.phones import CUE
from gateway.traffic.redact.secrets import names_secret
from gateway.traffic.redact.text import find, redact

DEPTH = 48
"""Levels of arrays, objects and JSON in strings; what lies deeper is replaced."""
TOKENS = frozenset({"logprobs", "prompt_logprobs", "top_logprobs", "token_ids", "prompt_token_ids"})
"""Members that spell the text once more, token by token, where no pattern finds it."""
PROMPTS = frozenset({"prompt", "input", "tokens"})
LARGEST = 10**19
WORD = 20
"""A word of fewer letters is no personal data, except where its name says so: roles, types, reasons."""
CONTAINERS = ("{}", "[]")


def redact_json(value: Any) -> tuple[Any, Counts]:
    """`value`, of what a JSON decoder returns, redacted; unchanged parts may be shared with it."""
    counts = Counts()
    return _walk(value, "", 0, counts), counts


def _walk(value: Any, name: str, depth: int, counts: Counts) -> Any:
    if isinstance(value, str):
        return _string(value, name, depth, counts)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return _number(value, name, counts)
    if depth >= DEPTH:
        return _replaced(Kind.DEEP, counts)
    if isinstance(value, dict):
        return _object(value, depth, counts)
    if isinstance(value, list | tuple | set | frozenset):
        if name in PROMPTS and _token_ids(value):
            return _replaced(Kind.TOKENS, counts)
        return [_walk(item, name, depth + 1, counts) for item in value]
    return _replaced(Kind.UNKNOWN, counts)


def _object(members: dict[Any, Any], depth: int, counts: Counts) -> dict[Any, Any]:
    result: dict[Any, Any] = {}
    last: dict[str, int] = {}
    for name, value in members.items():
        key = _name(name, counts)
        if key in result:
            key = free_name(str(key), result, last)
        if name in TOKENS and isinstance(value, dict | list | tuple):
            result[key] = _replaced(Kind.TOKENS, counts) if value else value
        else:
            result[key] = _walk(value, name if isinstance(name, str) else "", depth + 1, counts)
    return result


def _name(name: Any, counts: Counts) -> Any:
    if isinstance(name, str):
        if name.replace("_", "").isalpha() and len(name) < WORD:
            return name
        clean, found = redact(name)
        counts.update(found)
        return clean
    return _number(name, "", counts) if isinstance(name, int | float) else name


def free_name(name: str, taken: dict[Any, Any], last: dict[str, int]) -> str:
    """`name` with a number behind that no member has; `last` remembers where to go on."""
    number = last.get(name, 1) + 1
    while f"{name} ({number})" in taken:
        number += 1
    last[name] = number
    return f"{name} ({number})"


def _number(value: float, name: str, counts: Counts) -> Any:
    if isinstance(value, bool):
        return value
    if not -LARGEST < value < LARGEST or value != int(value):
        return value
    digits = str(abs(int(value)))
    if name:
        if len(digits) >= 4 and names_secret(name):
            return _replaced(Kind.SECRET, counts)
        if 7 <= len(digits) <= 15 and CUE.search(name):
            return _replaced(Kind.PHONE, counts)
    if len(digits) >= 13 and card(digits):
        return _replaced(Kind.CARD, counts)
    return value


def _string(text: str, name: str, depth: int, counts: Counts) -> Any:
    if text.isalpha() and len(text) < WORD and not (name and names_secret(name)):
        return text
    stripped = text.strip()
    if stripped[:1] + stripped[-1:] in CONTAINERS:
        parsed, deep = _parsed(stripped)
        if deep or (parsed is not None and depth >= DEPTH):
            return _replaced(Kind.DEEP, counts)
        if parsed is not None:
            return _json(text, parsed, depth, counts)
    if name and stripped and names_secret(name):
        if PLACEHOLDER.fullmatch(stripped):
            return text
        return _replaced(Kind.SECRET, counts)
    if name and len(text) <= 64 and CUE.search(name):
        return _cued(text, counts)
    clean, found = redact(text)
    counts.update(found)
    return clean


def _parsed(text: str) -> tuple[Any, bool]:
    """What the JSON in `text` says, None for none; and whether it is nested too deep to be read."""
    try:
        return json.loads(text), False
    except RecursionError:
        return None, True
    except ValueError:
        return None, False


def _json(text: str, parsed: Any, depth: int, counts: Counts) -> str:
    """JSON in a string stays valid JSON, and as it was when it holds nothing to take out.

    Of names that occur twice a decoder sees the last: then what a look at the text finds is the other.
    """
    before = counts.total
    clean = _walk(parsed, "", depth + 1, counts)
    if counts.total == before and not find(text):
        return text
    compact = '": ' not in text
    return json.dumps(clean, ensure_ascii=False, separators=(",", ":") if compact else None)


def _cued(text: str, counts: Counts) -> str:
    """A string in a member whose name says that it is a phone number."""
    lead = "phone: "
    clean, found = redact(lead + text)
    counts.update(found)
    return clean.removeprefix(lead)


def _token_ids(items: Any) -> bool:
    """Numbers, or arrays of them."""
    flat = [inner for item in items for inner in (item if isinstance(item, list | tuple) else (item,))]
    return len(flat) > 0 and all(isinstance(item, int) and not isinstance(item, bool) for item in flat)


def _replaced(kind: Kind, counts: Counts) -> str:
    counts.add(kind)
    return kind.placeholder
