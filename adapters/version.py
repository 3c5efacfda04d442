"""Identity: what a version is called, and how the names that people write are read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from adapters.errors import Refused

SHORT = 12
"""Hex digits of the digest in a version's name."""

NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")

FINE_TUNED = re.compile(r"ft(?::[A-Za-z0-9._-]*){4}(?::[a-z0-9-]{1,40})?", re.ASCII)
"""`ft:base:org:suffix:id`, of a checkpoint with `:ckpt-step-N`. No adapter can be called so: of the ':'."""


class State(StrEnum):
    """registered → stable (serves a route) → retired (served once). Deleted leaves the row, not the files."""

    REGISTERED = "registered"
    STABLE = "stable"
    RETIRED = "retired"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Version:
    """One immutable build of an adapter. `digest` is the sha256 over its canonical files, 64 hex digits.

    `names` are further ones that clients may ask for it by, which mean it for good.
    """

    adapter: str
    number: int
    digest: str
    state: State
    size_bytes: int
    rank: int
    manifest: dict[str, Any]
    created_at: datetime
    proved: bool | None = None
    """Whether its report card is passed; None while it has none."""
    names: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The only name that engines know it by, e.g. `support@3f9c2ab71e04`."""
        return f"{self.adapter}@{self.digest[:SHORT]}"


@dataclass(frozen=True, slots=True)
class Reference:
    """What somebody wrote: a route (`support`), `support@v3`, or `support@3f9c2ab71e04` (≥ 12 hex digits)."""

    adapter: str
    number: int | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference | None:
        """None when `text` has not the form of a reference."""
        adapter, at, pin = text.partition("@")
        if not NAME.fullmatch(adapter):
            return None
        if not at:
            return cls(adapter)
        if match := re.fullmatch(r"v([1-9][0-9]{0,8})", pin):
            return cls(adapter, number=int(match[1]))
        if re.fullmatch(rf"[0-9a-f]{{{SHORT},64}}", pin):
            return cls(adapter, digest=pin)
        return None


def check_name(name: str) -> str:
    """`name`, when it can name an adapter: 1 to 63 of a-z 0-9 . _ -, with a letter or digit at both ends.

    Raises `Refused` (code `bad_name`) otherwise.
    """
    if not NAME.fullmatch(name):
        shown = name if len(name) <= 80 else name[:77] + "..."
        raise Refused(
            f"adapter name {shown!r} is not usable: 1 to 63 of a-z, 0-9, '.', '_' and '-', "
            "beginning and ending with a letter or digit",
            code="bad_name",
        )
    return name


def check_fine_tuned_name(name: str) -> str:
    """`name`, when a fine-tuned model may be called so. Raises `Refused` (code `bad_name`) otherwise."""
    if len(name) > 300 or not FINE_TUNED.fullmatch(name):
        shown = name if len(name) <= 80 else name[:77] + "..."
        raise Refused(
            f"{shown!r} is no name of a fine-tuned model: ft:base:org:suffix:id, each of A-Z a-z 0-9 . _ -",
            code="bad_name",
        )
    return name
