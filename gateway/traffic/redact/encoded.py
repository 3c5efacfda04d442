"""Text inside base64 or hexadecimal digits: decoded, and replaced whole when it is not plainly harmless."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable

from gateway.traffic.redact.kinds import Kind, Span

LONG = re.compile(r"[A-Za-z0-9+/_\-]{20}")
TOKEN = re.compile(
    r"(?:[A-Za-z0-9+/]{60,76}\r?\n)++[A-Za-z0-9+/]{0,76}+={0,2}|[A-Za-z0-9+/_\-]{20,}+={0,2}",
)
DATA_URL = re.compile(
    r"data:(?P<type>[\w.+/\-]{0,128}+)(?P<parameters>(?:;[\w.+=\-]{1,64}+){0,8}?);base64,"
    r"(?P<data>(?:[A-Za-z0-9+/_%=\-]|\r?\n(?=[A-Za-z0-9+/]{40}))*+)",
    re.IGNORECASE,
)
HEX = re.compile(r"(?:[0-9A-Fa-f]{2})+")
PIECES = re.compile(r"[/_\-]+")
URL_SAFE = str.maketrans("-_", "+/", "\r\n")
BINARY = 128
"""Characters from which base64 of no text is taken for a file, not for an identifier or a signature."""
DEPTH = 3

Finds = Callable[[str, int], bool]
"""Whether a text at this depth of encodings holds anything to take out."""


def encoded(text: str, lower: str, spans: list[Span], finds: Finds, depth: int, *, long: bool) -> None:
    """Adds the data URLs and the base64 of `text`; `long` as `keys` has it."""
    if "data:" in lower:
        for match in DATA_URL.finditer(text):
            if match["data"] and not (_is_text(match["type"]) and _harmless(match["data"], finds, depth)):
                spans.append(Span(*match.span(), Kind.BASE64))
    if not long:
        return
    for match in TOKEN.finditer(text):
        if not _harmless(match[0], finds, depth):
            spans.append(Span(*match.span(), Kind.BASE64))


def _is_text(mime: str) -> bool:
    return mime == "" or mime.lower().startswith("text/") or mime.lower().endswith(("json", "xml"))


def _harmless(token: str, finds: Finds, depth: int) -> bool:
    if depth >= DEPTH:
        return len(token) < BINARY
    plain = token.translate(URL_SAFE).rstrip("=")
    if HEX.fullmatch(plain):
        text = _text(bytes.fromhex(plain))
        if text is not None:
            return not finds(text, depth + 1)
        if plain.isalnum() and len(plain) < 4 * BINARY:
            return True
    text = _text(_decoded(plain))
    if text is not None:
        return not finds(text, depth + 1)
    for piece in PIECES.split(token):
        if 20 <= len(piece) < len(token) and (text := _text(_decoded(piece))) and finds(text, depth + 1):
            return False
    return len(plain) < BINARY or not _mixed(token)


def _mixed(token: str) -> bool:
    """What base64 of a file looks like, and a path or a row of dashes does not."""
    if ("_" in token or "-" in token) and ("/" in token or "+" in token):  # of neither alphabet
        return False
    cases = token != token.lower() and token != token.upper()
    return cases and any(map(str.isdigit, token)) and "//" not in token


def _decoded(token: str) -> bytes:
    token = token[: len(token) - 1] if len(token) % 4 == 1 else token
    try:
        return base64.b64decode(token + "=" * (-len(token) % 4))
    except (binascii.Error, ValueError):
        return b""


def _text(data: bytes) -> str | None:
    """`data` as text, or None when it is none: a token that happens to be of base64's letters."""
    if len(data) < 5:
        return None
    wide = data[1::2].count(0) > len(data) // 3
    try:
        text = data.decode("utf-16-le" if wide else "utf-8")
    except UnicodeDecodeError:
        return None
    shown = sum(map(str.isprintable, text[:4096])) + sum(map(text[:4096].count, "\r\n\t"))
    return text if shown >= 0.95 * min(len(text), 4096) else None
