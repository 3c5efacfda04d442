"""E-mail addresses, found from their '@' outwards, and IPv6 addresses, from their colons."""

from __future__ import annotations

import ipaddress
import re

from gateway.traffic.redact.kinds import Kind, Span

LOCAL, DOMAIN = 64, 253
"""Most characters of either side of the '@' (RFC 5321)."""
BACKWARDS = re.compile(r"[\w.+%'~!#$*^\-]{1,64}")
QUOTED = re.compile(r'"[^"\n]{1,64}"')
LABEL = r"[^\W_](?:[\w\-]{0,62}[^\W_])?"
BEHIND = re.compile(rf"(?:{LABEL}\.){{1,8}}(?:xn--[a-zA-Z0-9\-]{{2,59}}|[^\W\d_]{{2,63}})(?![\w\-])")
LITERAL = re.compile(r"\[(?:IPv6:)?[0-9A-Fa-f.:]{3,45}\]")

COLONS = re.compile(r":[0-9A-Fa-f]{0,4}:")
IPV6 = re.compile(
    r"(?<![\w:.])(?:[0-9A-Fa-f]{1,4}:|::)[0-9A-Fa-f:]{1,38}+(?:(?:\.[0-9]{1,3}){3})?"
    r"(?:%[A-Za-z0-9]{1,15})?(?![\w]|:[0-9A-Fa-f:])"
)


def emails(text: str, spans: list[Span], not_at: frozenset[int]) -> None:
    """Adds the e-mail addresses of `text`; an '@' at one of `not_at` is known to be something else."""
    at = text.find("@")
    done = 0
    while at >= 0:
        if at not in not_at and (end := _domain(text, at + 1)):
            start = _local(text, done, at)
            if start < at and not (text[start:at] == "git" and text[end : end + 1] == ":"):
                spans.append(Span(start, end, Kind.EMAIL))
                done = end
        at = text.find("@", at + 1)


def _domain(text: str, start: int) -> int:
    match = BEHIND.match(text, start, start + DOMAIN + 1) or LITERAL.match(text, start)
    return match.end() if match else 0


def _local(text: str, done: int, at: int) -> int:
    if at and text[at - 1] == '"':
        opening = text.rfind('"', max(done, at - LOCAL), at - 1)
        return opening if opening >= 0 and QUOTED.fullmatch(text, opening, at) else at
    window = text[max(done, at - LOCAL) : at]
    match = BACKWARDS.match(window[::-1])
    if match is None:
        return at
    local = match[0][::-1]
    return at - len(local.lstrip(".+%'~!#$*^-"))


def ipv6(text: str, spans: list[Span]) -> None:
    """Adds the IPv6 addresses of `text`."""
    if COLONS.search(text) is None:
        return
    for match in IPV6.finditer(text):
        written = match[0]
        end = match.end()
        if written.endswith(":") and not written.endswith("::"):
            written, end = written[:-1], end - 1
        if _is_ipv6(written):
            spans.append(Span(match.start(), end, Kind.IPV6))


def _is_ipv6(written: str) -> bool:
    """Valid, and no scope of a programming language: `a::b`, `[1::2]`."""
    address, _, _zone = written.partition("%")
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    groups = [group for group in address.split(":") if group]
    if "::" not in address:
        return True
    if not any(map(str.isdigit, address)):
        return len(groups) >= 3
    return len(groups) >= 3 or (len(groups) == 2 and max(map(len, groups)) >= 3)
