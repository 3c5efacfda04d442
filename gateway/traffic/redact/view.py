"""A text as a reader understands it, with the way back to the characters it was written in.

Patterns are matched against views and cut out of the text, so that nothing hides a character: full-width and
other digits, zero-width characters, exotic spaces, percent-encoding, HTML entities, JSON escapes.
"""

from __future__ import annotations

import html
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import unquote

HEX = "[0-9A-Fa-f]"
ESCAPE = re.compile(
    rf"%[C-Dc-d]{HEX}%[89ABab]{HEX}|%[Ee]{HEX}(?:%[89ABab]{HEX}){{2}}|%[Ff]{HEX}(?:%[89ABab]{HEX}){{3}}"
    rf"|%{HEX}{{2}}"
    rf"|&(?:\#[0-9]{{1,7}};?|\#[xX]{HEX}{{1,6}};?|[A-Za-z]{{2,24}};)"
    rf"|\\u[dD][89ABab]{HEX}{{2}}\\u[dD][C-Fc-f]{HEX}{{2}}|\\u{HEX}{{4}}|\\u\{{{HEX}{{1,6}}\}}|\\x{HEX}{{2}}"
    r"|\\[nrtbf\"'\\/]"
)
ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "b": " ", "f": " "}
FILLERS = "\u115f\u1160\u3164\uffa0\u2800"
"""Letters and symbols by category that show nothing."""


class View:
    """`text` is matched against; `span` says where in the original a piece of it lies."""

    __slots__ = ("_of", "_offsets", "_points", "text")

    def __init__(
        self, text: str, of: View | None = None, points: Sequence[int] = (), offsets: Sequence[int] = ()
    ) -> None:
        """From `points[i]` on, what `text` shows lies `offsets[i]` further right in `of`."""
        self.text = text
        self._of = of
        self._points = points
        self._offsets = offsets

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Invisible characters right after the piece belong to it."""
        if self._of is None:
            return start, end
        return self._of.span(self._at(start), self._at(end))

    def _at(self, index: int) -> int:
        piece = bisect_right(self._points, index)
        return index + (self._offsets[piece - 1] if piece else 0)

    def rewritten(self, edits: Sequence[tuple[int, int, str]]) -> View:
        """Each `text[start:end]` replaced by a character or by nothing; `edits` are in order."""
        pieces: list[str] = []
        points: list[int] = []
        offsets: list[int] = []
        done = length = 0
        for start, end, character in edits:
            pieces += (self.text[done:start], character)
            length += start - done + len(character)
            done = end
            points.append(length)
            offsets.append(end - length)
        pieces.append(self.text[done:])
        return View("".join(pieces), self, points, offsets)


def folded(text: str) -> View:
    """Digits, letters, spaces and dashes of any script as ASCII; what shows nothing left out."""
    if text.isascii():
        return View(text)
    changed = {}
    hidden = []
    for character in set(text):
        if character > "\x7f" and (plain := fold(character)) != character:
            if plain:
                changed[ord(character)] = plain
            else:
                hidden.append(character)
    if changed:
        text = text.translate(changed)
    view = View(text)
    if hidden:
        places = re.compile(f"[{re.escape(''.join(hidden))}]").finditer(text)
        view = view.rewritten([(*place.span(), "") for place in places])
    return view


def unescaped(view: View) -> View | None:
    """One level of escapes undone, or None when there is nothing to undo."""
    text = view.text
    if "%" not in text and "\\" not in text and "&" not in text:
        return None
    edits = []
    for match in ESCAPE.finditer(text):
        character = _meant(match[0])
        if character is not None:
            edits.append((match.start(), match.end(), character))
    return view.rewritten(edits) if edits else None


def _meant(escape: str) -> str | None:
    if escape[0] == "%":
        character = unquote(escape, errors="replace")
    elif escape[0] == "&":
        character = html.unescape(escape)
    elif escape[1] in "ux" and len(escape) > 2:
        character = _character(escape)
    else:
        character = ESCAPED.get(escape[1], escape[1])
    if len(character) != 1:
        return None
    return character if character.isascii() else fold(character)


def _character(escape: str) -> str:
    if len(escape) == 12:
        high, low = int(escape[2:6], 16), int(escape[8:], 16)
        return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))
    code = int(escape[2:].strip("{}"), 16)
    return chr(code) if code < 0x110000 else ""


@lru_cache(maxsize=8192)
def fold(character: str) -> str:
    """One ASCII character for what looks or counts like one, "" for what does not show, else itself."""
    if character in FILLERS:
        return ""
    digit = unicodedata.digit(character, None)
    if digit is not None:
        return str(digit)
    category = unicodedata.category(character)
    if category in ("Cf", "Mn", "Me"):
        return ""
    if category in ("Zs", "Zl", "Zp"):
        return " "
    if category == "Pd" or character in "\u2212\u2043\u02d7":
        return "-"
    if character in "\u3002\uff61\u2024":
        return "."
    plain = unicodedata.normalize("NFKC", character)
    return plain if len(plain) == 1 and plain.isascii() else character
