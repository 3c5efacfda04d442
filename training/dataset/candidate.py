"""What may become a row: one conversation with its answer, where it came from, and what was thought of it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from training.rows import Message

EXAMPLES = 3
"""Places that are named of what was dropped for one reason."""


class Kind(StrEnum):
    """What an answer is, the best first: of two that say the same, and within caps, the better one stays."""

    CORRECTED = "corrected"
    LIKED = "liked"
    FILE = "file"
    IMPORTED = "imported"
    DOCUMENT = "document"
    SYNTHETIC = "synthetic"
    OWN = "own"
    DISLIKED = "disliked"

    @property
    def rank(self) -> int:
        return list(Kind).index(self)


@dataclass(frozen=True, slots=True)
class Candidate:
    """`messages` end with the answer, as it is to be learned. `place` is where it stood, for people: a file
    and line, or a request id. `ids` are request ids. `unit` is never a name (a keyed hash of it), "" for
    none; `at` in seconds since 1970. `rejected` is the answer that a correction replaced. `seeds` are request
    ids that a generated row was made from.
    """

    messages: tuple[Message, ...]
    kind: Kind
    source: int
    place: str
    ids: tuple[str, ...] = ()
    seeds: tuple[str, ...] = ()
    unit: str = ""
    key: str = ""
    tenant: str = ""
    at: float | None = None
    consent: str = ""
    licence: str = ""
    version: str = ""
    rejected: str | None = None
    thumb: str | None = None

    @property
    def asked(self) -> tuple[Message, ...]:
        """All before the answer."""
        return self.messages[:-1]

    @property
    def answer(self) -> str:
        return self.messages[-1].content

    @property
    def learned(self) -> bool:
        """Whether it may be a row to imitate; what was disliked only shows what not to say."""
        return self.kind is not Kind.DISLIKED

    @property
    def prompt(self) -> str:
        """What was asked, without the system's words, which many rows share."""
        return "\n".join(message.content for message in self.asked if message.role != "system")

    @property
    def system(self) -> str:
        return self.messages[0].content if self.messages[0].role == "system" else ""

    def row(self) -> dict[str, Any]:
        """In the format of `training.rows`."""
        return {"messages": [_written(message) for message in self.messages]}

    def digest(self) -> str:
        """sha256 of the row, 64 hex digits."""
        return hashlib.sha256(line(self.row()).encode()).hexdigest()


@dataclass(slots=True)
class Ledger:
    """What was dropped and why: counts, and a few places, but no words, which could not be forgotten
    there."""

    counts: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)

    def drop(self, reason: str, place: str, rows: int = 1) -> None:
        self.counts[reason] += rows
        named = self.places.setdefault(reason, [])
        if len(named) < EXAMPLES:
            named.append(place)

    def sift(self, reason: str, candidates: Iterable[tuple[Candidate, bool]]) -> list[Candidate]:
        """Those that are to stay; the others are dropped for `reason`."""
        kept = []
        for candidate, stays in candidates:
            if stays:
                kept.append(candidate)
            else:
                self.drop(reason, candidate.place)
        return kept

    def record(self) -> list[dict[str, Any]]:
        """As it goes into the manifest, the most frequent reason first."""
        return [
            {"reason": reason, "rows": rows, "examples": self.places[reason]}
            for reason, rows in sorted(self.counts.items(), key=lambda each: (-each[1], each[0]))
        ]


def line(value: Any) -> str:
    """JSON on one line, the same for the same value: keys in their order, no spaces, UTF-8 as it is."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _written(message: Message) -> dict[str, Any]:
    written: dict[str, Any] = message.as_dict()
    if message.role == "assistant" and not message.learn:
        written["weight"] = 0
    return written
