"""What a route pointed to, when and by whom; and what a rollback therefore goes back to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Action = Literal["register", "promote", "rollback", "delete", "collect", "remove", "grade", "name"]


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a route's history. `version` is a number, None where the whole adapter was removed.

    `forced`: promoted without a report card that all gates passed.
    """

    route: str
    action: Action
    version: int | None
    by: str
    at: datetime
    forced: bool = False


def stables(events: Iterable[tuple[str, int | None]]) -> list[int]:
    """The stable versions that led to the present one, which is last; `events` are (action, version).

    A promotion adds one. A rollback drops what it leaves, so that a second rollback goes further back, and
    none returns to a version that was rolled away from. `remove` forgets all.
    """
    stack: list[int] = []
    for action, version in events:
        if action == "promote" and version is not None:
            stack.append(version)
        elif action == "rollback" and stack:
            stack.pop()
            while stack and stack[-1] != version:
                stack.pop()
        elif action == "remove":
            stack.clear()
    return stack


def rollback_target(events: Iterable[tuple[str, int | None]], live: set[int]) -> int | None:
    """The version that a rollback would make stable: the latest earlier stable one that is still `live`."""
    earlier = stables(events)
    current = earlier.pop() if earlier else None
    return next((version for version in reversed(earlier) if version in live and version != current), None)
