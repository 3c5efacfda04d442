"""What is taken out, how much of each, and what stands in its place."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

PATTERNS_VERSION = 1
"""Recorded with each row. Raise it whenever a pattern changes, so that older rows can be redacted again."""


class Kind(StrEnum):
    """The eight kinds, then what is replaced whole because nobody can look into it cheaply.

    When matches overlap, the kind that stands first here names the whole.
    """

    IBAN = "IBAN"
    CARD = "CARD"
    KEY = "KEY"
    SECRET = "SECRET"  # noqa: S105 - a kind's name
    EMAIL = "EMAIL"
    IPV6 = "IPV6"
    IPV4 = "IPV4"
    PHONE = "PHONE"
    BASE64 = "BASE64"
    TOKENS = "TOKENS"
    DEEP = "TOO DEEP"
    UNKNOWN = "UNKNOWN"

    @property
    def placeholder(self) -> str:
        return f"[{self.value}]"


CHECKSUMMED = frozenset({Kind.CARD, Kind.IBAN})
OPAQUE = frozenset({Kind.BASE64, Kind.TOKENS, Kind.DEEP, Kind.UNKNOWN})
RANK = {kind: rank for rank, kind in enumerate(Kind)}
PLACEHOLDER = re.compile("|".join(re.escape(kind.placeholder) for kind in Kind))


class Span(NamedTuple):
    """`text[start:end]` is a `kind`."""

    start: int
    end: int
    kind: Kind


@dataclass(slots=True)
class Counts:
    """How often each kind was taken out."""

    found: dict[Kind, int] = field(default_factory=dict)

    def add(self, kind: Kind, times: int = 1) -> None:
        self.found[kind] = self.found.get(kind, 0) + times

    def update(self, other: Counts) -> None:
        for kind, times in other.found.items():
            self.add(kind, times)

    def __bool__(self) -> bool:
        return bool(self.found)

    def __getitem__(self, kind: Kind) -> int:
        return self.found.get(kind, 0)

    @property
    def total(self) -> int:
        return sum(self.found.values())

    @property
    def checksummed(self) -> int:
        """Cards and IBANs: proven by arithmetic, hardly ever wrong."""
        return sum(times for kind, times in self.found.items() if kind in CHECKSUMMED)

    @property
    def matched(self) -> int:
        """Known by their looks only."""
        return self.total - self.checksummed - self.opaque

    @property
    def opaque(self) -> int:
        """Replaced whole: base64, token ids, what lay too deep."""
        return sum(times for kind, times in self.found.items() if kind in OPAQUE)


def merged(spans: Iterable[Span]) -> list[Span]:
    """In order and without overlaps: spans that overlap become one, of the kind that ranks first."""
    result: list[Span] = []
    for span in sorted(spans):
        if result and span.start < result[-1].end:
            last = result[-1]
            kind = min(last.kind, span.kind, key=RANK.__getitem__)
            result[-1] = Span(last.start, max(last.end, span.end), kind)
        else:
            result.append(span)
    return result
