"""Rows that come out of the gateway's own traffic: `traffic://ROUTE?since=7d&feedback=up`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from gateway.errors import BadRequest

FEEDBACK = ("any", "up", "down", "corrected")
UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 604800}
_AGE = re.compile(r"([0-9]{1,8})([mhdw])")


@dataclass(frozen=True, slots=True)
class Source:
    """The exchanges of a route: of the last `since_s` seconds, with such feedback; None: all."""

    route: str
    since_s: int | None
    feedback: str | None


def parse(uri: str) -> Source:
    """Raises `BadRequest`, code `invalid_traffic_source`."""
    parts = urlsplit(uri)
    route = unquote(parts.netloc + parts.path)
    if not re.fullmatch(r"[A-Za-z0-9:@._/-]{1,300}", route) or parts.fragment:
        raise _refusal(uri, "it names no route")
    try:
        query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError as error:
        raise _refusal(uri, str(error)) from None
    since = query.pop("since", None)
    feedback = query.pop("feedback", None)
    if query:
        raise _refusal(uri, f"{next(iter(query))!r} is unknown; there are since and feedback")
    try:
        since_s = None if since is None else seconds(since)
    except ValueError as error:
        raise _refusal(uri, f"since is {error}") from None
    if feedback is not None and feedback not in FEEDBACK:
        raise _refusal(uri, f"feedback is {feedback!r}; there are {', '.join(FEEDBACK)}")
    return Source(route, since_s, feedback)


def seconds(text: str) -> int:
    """Of an age: 30m, 12h, 7d, 4w. Raises `ValueError`."""
    found = _AGE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no age; write 30m, 12h, 7d or 4w")
    return int(found[1]) * UNITS[found[2]]


def age(seconds: int) -> str:
    """As it is written, in the largest unit that fits; what is no whole minute is rounded up."""
    unit = next((unit for unit, size in reversed(UNITS.items()) if seconds % size == 0), "m")
    return f"{-(-seconds // UNITS[unit])}{unit}"


def _refusal(uri: str, why: str) -> BadRequest:
    return BadRequest(
        f"training_file {uri[:200]!a} cannot be read: {why}. Write traffic://ROUTE?since=7d&feedback=up.",
        code="invalid_traffic_source",
        param="training_file",
    )
