"""Who is where, and the fewest moves that mend it when engines, versions or demand have changed."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from gateway.fleet.rendezvous import Electorate
from gateway.fleet.shares import Shares, typical

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ENTER, RETURN = 0.8, 0.4
"""Of what the bound allows beyond an even load. An engine that is above the bound is relieved down to
`ENTER`, and filled up to it; a version goes back to an engine that it prefers when that stays below `RETURN`.
Between these lines demand may rise and fall without moving anything."""
TRIES = 32
"""Versions that an engine above the bound tries to move elsewhere, at most."""
CROWDED = 1.1
"""With more placements than this for each one that engines can keep, their number no longer matters."""


class Assignment:
    """The homes of each version, as positions in `electorate`: `single`, or -1 for one of the `several`.

    `firsts` are the engines that versions prefer. `loads` are in units. `keeps` are the versions that each
    engine can have in its cache. Make it, `begin` or `resume`, `mend`; from then on it is only read.
    """

    def __init__(
        self,
        shares: Shares,
        electorate: Electorate,
        firsts: NDArray[np.int64],
        *,
        bound: float,
        keeps: Mapping[str, int] | None,
    ) -> None:
        import numpy as np

        self.shares = shares
        self.electorate = electorate
        self.firsts = firsts
        self.single: NDArray[np.int64] = np.full(len(shares.names), -1, dtype=np.int64)
        self.several: dict[int, list[int]] = {}
        self.loads: list[float] = []
        self.strength = [weight / typical(electorate.weights) for weight in electorate.weights]
        self.limits = self._up_to(bound)
        self._entries = self._up_to(1 + (bound - 1) * ENTER)
        self._returns = self._up_to(1 + (bound - 1) * RETURN)
        self._counts: list[int] = []
        self._rooms = _rooms(electorate, int(shares.degrees.sum()), keeps)
        self._pieces: list[float] = shares.pieces.tolist()

    def begin(self) -> None:
        """Everyone at the engines that it prefers, however full that makes them."""
        import numpy as np

        degrees = self.shares.degrees
        self.single = np.where(degrees == 1, self.firsts, -1)
        for at in np.flatnonzero(degrees > 1).tolist():
            self.several[at] = self._order(at)[: int(degrees[at])]

    def resume(self, before: Assignment) -> None:
        """Everyone where it was, but for homes that are gone, or that a version is to give up."""
        import numpy as np

        known, degrees = self.shares.known, self.shares.degrees
        where = {name: at for at, name in enumerate(self.electorate.names)}
        now = np.array([*(where.get(name, -1) for name in before.electorate.names), -1], dtype=np.int64)
        old = now[np.where(known >= 0, before.single[known], -1)]
        self.single = np.where(degrees == 1, old, -1)
        for at in np.flatnonzero((degrees > 1) & (old >= 0)).tolist():
            self.several[at] = [int(old[at])]
        for at in np.flatnonzero(np.isin(known, list(before.several))).tolist():
            kept = [int(now[home]) for home in before.several[int(known[at])] if now[home] >= 0]
            self._seat(at, kept[: int(degrees[at])])

    def mend(self) -> None:
        """Homes for those that lack some; relief for engines above the bound; ways back to preferred ones."""
        self._count()
        for at in self._lacking():
            self._complete(at)
        self._relieve()
        self._bring_back()

    def homes(self) -> Iterator[tuple[str, ...]]:
        """Of each version, best first."""
        names = self.electorate.names
        alone = [(name,) for name in names]
        for at, home in enumerate(self.single.tolist()):
            yield alone[home] if home >= 0 else tuple(names[each] for each in self.several[at])

    def with_room(self) -> list[int]:
        """The engines that an unknown version may go to."""
        engines = range(len(self.electorate))
        return [each for each in engines if self._fits(each, 0.0, self._entries)] or list(engines)

    def _up_to(self, line: float) -> list[float]:
        return [line * strength for strength in self.strength]

    def _order(self, at: int) -> list[int]:
        return self.electorate.all_of(int(self.shares.owns[at]))

    def _octave(self, at: int) -> int:
        """Sizes are compared by factors of two, so that gateways whose samples differ choose alike."""
        return math.frexp(self._pieces[at])[1]

    def _homes(self, at: int) -> list[int]:
        home = int(self.single[at])
        return [home] if home >= 0 else self.several.get(at, [])

    def _seat(self, at: int, homes: list[int]) -> None:
        several = self.shares.degrees[at] > 1 or not homes
        self.single[at] = -1 if several else homes[0]
        if several:
            self.several[at] = homes
        else:
            self.several.pop(at, None)

    def _count(self) -> None:
        import numpy as np

        here = self.single >= 0
        pieces = self.shares.pieces[here]
        loads = np.bincount(self.single[here], pieces, minlength=len(self.electorate)).astype(np.float64)
        counts = np.bincount(self.single[here], minlength=len(self.electorate))
        for at, homes in self.several.items():
            loads[homes] += self._pieces[at]
            counts[homes] += 1
        self.loads, self._counts = loads.tolist(), counts.tolist()

    def _lacking(self) -> list[int]:
        import numpy as np

        homeless = [at for at in np.flatnonzero(self.single < 0).tolist() if at not in self.several]
        return homeless + [at for at, homes in self.several.items() if len(homes) < self.shares.degrees[at]]

    def _fits(self, engine: int, piece: float, lines: Sequence[float]) -> bool:
        return self.loads[engine] + piece <= lines[engine] and self._counts[engine] < self._rooms[engine]

    def _complete(self, at: int) -> None:
        """The next engines of its order, full or not: who has to leave a full one is seen afterwards, as it
        would be by a gateway that was just started."""
        homes, order = set(self._homes(at)), self._order(at)
        lacking = int(self.shares.degrees[at]) - len(homes)
        found = [engine for engine in order if engine not in homes][:lacking]
        for engine in found:
            self._add(engine, self._pieces[at], 1)
        self._seat(at, [engine for engine in order if engine in homes or engine in found])

    def _relieve(self) -> None:
        engines = range(len(self.electorate))
        full = [each for each in engines if self.loads[each] > self.limits[each]]
        crowded = [each for each in engines if self._counts[each] > self._rooms[each]]
        held = self._held_by({*full, *crowded})
        for engine in full:
            for at in self._would_relieve(engine, held[engine]):
                if self.loads[engine] <= self._entries[engine]:
                    break
                self._move_away(at, engine)
        for engine in crowded:
            for at in sorted(held[engine], key=lambda at: (self._octave(at), at)):
                if self._counts[engine] <= self._rooms[engine]:
                    break
                if engine in self._homes(at):
                    self._move_away(at, engine)

    def _held_by(self, engines: set[int]) -> dict[int, list[int]]:
        import numpy as np

        held: dict[int, list[int]] = {engine: [] for engine in engines}
        if engines:
            for at in np.flatnonzero(np.isin(self.single, list(engines))).tolist():
                held[int(self.single[at])].append(at)
            for at, homes in self.several.items():
                for engine in engines.intersection(homes):
                    held[engine].append(at)
        return held

    def _would_relieve(self, engine: int, versions: Iterable[int]) -> list[int]:
        """The smallest that is enough by itself first: one move. For want of that, the largest."""
        over = math.frexp(self.loads[engine] - self._entries[engine])[1]

        def rank(at: int) -> tuple[bool, int, int]:
            octave = self._octave(at)
            return (False, octave, at) if octave > over else (True, -octave, at)

        return sorted(versions, key=rank)[:TRIES]

    def _move_away(self, at: int, engine: int) -> None:
        """To the first engine of its order with room; without one it stays."""
        homes, order = set(self._homes(at)), self._order(at)
        for other in order:
            if other not in homes and self._fits(other, self._pieces[at], self._entries):
                return self._swap(at, engine, other, order)

    def _bring_back(self) -> None:
        """Small ones first: they are most of all versions, and the large ones that are left fill the gaps."""
        import numpy as np

        away = np.flatnonzero((self.single >= 0) & (self.single != self.firsts)).tolist()
        for at in sorted([*away, *self.several], key=lambda at: (self._octave(at), at)):
            order = self._order(at)
            rank = {engine: place for place, engine in enumerate(order)}
            for _ in range(int(self.shares.degrees[at])):
                homes = set(self._homes(at))
                last = max(homes, key=rank.__getitem__)
                preferred = (engine for engine in order[: rank[last]] if engine not in homes)
                back = next((e for e in preferred if self._fits(e, self._pieces[at], self._returns)), None)
                if back is None:
                    break
                self._swap(at, last, back, order)

    def _swap(self, at: int, old: int, new: int, order: Sequence[int]) -> None:
        self._add(old, -self._pieces[at], -1)
        self._add(new, self._pieces[at], 1)
        together = {*self._homes(at), new} - {old}
        self._seat(at, [engine for engine in order if engine in together])

    def _add(self, engine: int, piece: float, count: int) -> None:
        self.loads[engine] += piece
        self._counts[engine] += count


def _rooms(electorate: Electorate, placements: int, keeps: Mapping[str, int] | None) -> list[int]:
    """How many versions each engine may be home to."""
    unlimited = [sys.maxsize] * len(electorate)
    if keeps is None:
        return unlimited
    keep = [keeps.get(name, sys.maxsize) for name in electorate.names]
    if placements > CROWDED * sum(keep):
        return unlimited
    total = sum(electorate.weights)
    even = (math.ceil(placements * weight / total) for weight in electorate.weights)
    return [max(each, share) for each, share in zip(keep, even, strict=True)]
