"""Which stream asks for which model. Pure: nothing is sent here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cell:
    """`streams` at once over `adapters` adapters; `mixed`: half of the streams are the base's at any time."""

    streams: int
    adapters: int
    mixed: bool = False

    @property
    def name(self) -> str:
        adapters = f"{self.adapters} adapter{'' if self.adapters == 1 else 's'}"
        return f"{self.streams} streams, {adapters}{' and base' if self.mixed else ''}"

    def plan(self, base: str, adapters: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """For each stream the models it asks for, one request after the other.

        Adapters are dealt out evenly. Mixed, a stream asks twice, once for the base and once for an adapter,
        and its neighbour the other way round: so half the rows are the base's and yet every adapter is asked.
        """
        if len(adapters) < self.adapters:
            raise ValueError(f"{self.name}: only {len(adapters)} adapters were given")
        if not self.mixed:
            return tuple((adapters[stream % self.adapters],) for stream in range(self.streams))
        half = self.streams // 2
        plan = []
        for stream in range(self.streams):
            second = stream % 2 == 0  # this stream's adapter comes second, after the base
            adapter = adapters[(stream // 2 + (half if second else 0)) % self.adapters]
            plan.append((base, adapter) if second else (adapter, base))
        return tuple(plan)


PURE_AND_MIXED = (False, True)
CELLS = tuple(
    Cell(streams, adapters, mixed)
    for streams, each in ((8, (1, 4, 8)), (32, (1, 4, 8)))
    for adapters in each
    for mixed in PURE_AND_MIXED
)
"""All of these fit into 8 slots."""
WIDE = tuple(Cell(32, 32, mixed) for mixed in PURE_AND_MIXED)
"""As many adapters as streams: with 32 slots the kernel's work, with 8 the engine swaps."""
