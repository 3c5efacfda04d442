"""One string."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.traffic.redact.addresses import emails, ipv6
from gateway.traffic.redact.encoded import LONG, encoded
from gateway.traffic.redact.keys import keys
from gateway.traffic.redact.kinds import PLACEHOLDER, Counts, Span, merged
from gateway.traffic.redact.numbers import DIGIT, numbers
from gateway.traffic.redact.secrets import STEMS, assigned, userinfo
from gateway.traffic.redact.view import folded, unescaped

SHORTEST = 5
ESCAPES = 3
"""Levels of escapes undone."""
PASSES = 4
"""What a placeholder newly stands beside may match in its turn; hardly ever more than once."""


def redact(text: str) -> tuple[str, Counts]:
    """`text` with placeholders for what it should not hold, and what was taken out."""
    counts = Counts()
    for _ in range(PASSES):
        spans = find(text)
        if not spans:
            break
        text = _replaced(text, spans, counts)
    return text, counts


def finds(text: str, depth: int = 0) -> bool:
    """Whether `text`, found within `depth` encodings, holds anything to take out."""
    return bool(find(text, depth))


def find(text: str, depth: int = 0) -> Sequence[Span]:
    """What `text` holds, in order, without overlaps."""
    if len(text) < SHORTEST:
        return ()
    view = folded(text)
    found = _scan(view.text, depth)
    spans = [Span(*view.span(start, end), kind) for start, end, kind in found]
    for _ in range(ESCAPES):
        deeper = unescaped(view)
        if deeper is None:
            break
        view = deeper
        spans += [Span(*view.span(start, end), kind) for start, end, kind in _scan(view.text, depth)]
    if not spans:
        return ()
    # A placeholder within a match of its own kind is what an earlier pass left: "password=[SECRET]".
    return [span for span in merged(spans) if PLACEHOLDER.sub("", text[span.start : span.end]).strip()]


def _scan(text: str, depth: int) -> list[Span]:
    """Cheap looks first: most texts hold few of the characters that anything expensive begins with."""
    spans: list[Span] = []
    lower = text.lower()
    if len(lower) != len(text):  # a dotted capital I becomes two characters
        lower = "".join(letter.lower() if letter.isascii() else letter for letter in text)
    long = LONG.search(text) is not None
    if "@" in text:
        emails(text, spans, userinfo(text, spans) if "://" in text else frozenset())
    keys(text, lower, spans, long=long)
    if long or "data:" in lower:
        encoded(text, lower, spans, finds, depth, long=long)
    if any(stem in lower for stem in STEMS):
        assigned(text, lower, spans)
    if ":" in text:
        ipv6(text, spans)
    if DIGIT.search(text) is not None:
        numbers(text, spans)
    return spans


def _replaced(text: str, spans: Sequence[Span], counts: Counts) -> str:
    pieces: list[str] = []
    done = 0
    for start, end, kind in spans:
        pieces += (text[done:start], kind.placeholder)
        counts.add(kind)
        done = end
    pieces.append(text[done:])
    return "".join(pieces)
