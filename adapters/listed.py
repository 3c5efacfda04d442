"""What the registry tells of many adapters at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adapters.version import Version


@dataclass(frozen=True, slots=True)
class Changes:
    """Every adapter that was changed since a moment, with all its living versions; none when it is gone.

    `at` is the moment that this shows at least, to ask with next time. `whole`: there are no other adapters.
    """

    at: int
    whole: bool
    adapters: Mapping[str, Sequence[Version]]


@dataclass(frozen=True, slots=True)
class Adapter:
    """One adapter, for a list. `size_bytes` and `versions` count what is not deleted."""

    name: str
    stable: Version
    rollback_to: Version | None
    versions: int
    size_bytes: int
