"""Candidates for tests, one of a kind by number."""

from __future__ import annotations

import hashlib
from typing import Any

from training.dataset.candidate import Candidate, Kind
from training.rows import Message

WORDS = [
    "amber",
    "birch",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "grove",
    "haven",
    "inlet",
    "jetty",
    "knoll",
    "larch",
    "mango",
    "north",
    "ocean",
    "pearl",
]


def question(number: int) -> str:
    """Unlike that of any other number."""
    digits = hashlib.sha256(str(number).encode()).hexdigest()
    return " ".join(WORDS[int(digit, 16)] + digits[at] for at, digit in enumerate(digits[:12]))


def candidate(number: int = 0, asked: str | None = None, answer: str | None = None, **more: Any) -> Candidate:
    """`system` and whatever a candidate has beside its messages may be given."""
    system = more.pop("system", None)
    head = () if system is None else (Message("system", system),)
    said = Message("assistant", f"answer {number}" if answer is None else answer, learn=True)
    messages = (*head, Message("user", question(number) if asked is None else asked), said)
    given: dict[str, Any] = {"kind": Kind.FILE, "source": 0, "place": f"rows.jsonl:{number}"}
    return Candidate(messages=messages, **{**given, **more})
