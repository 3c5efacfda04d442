"""How large each version is, and how many homes it is to have.

Sizes are in *units*: one is what an engine of typical (median) weight has when load is spread evenly.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.fleet.rendezvous import digest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHRINK = 0.7
"""A home is given up when demand has fallen to this part of what had brought it."""
LEAST, MOST = 1e-12, 1e100
"""The least size of a version; the most demand, so that sums and quotients stay numbers."""


@dataclass(frozen=True, eq=False)
class Shares:
    """`names` in the order of their digests (`owns`), which no demand changes; all else is in that order.

    `known` is where each was in the previous shares, -1 for a new one. `unit` is a share of all demand,
    `sizes` the versions' loads in units, `degrees` the homes that each is to have.
    """

    names: tuple[str, ...]
    owns: NDArray[np.uint64]
    known: NDArray[np.int64]
    unit: float
    sizes: NDArray[np.float64]
    degrees: NDArray[np.int64]

    @property
    def pieces(self) -> NDArray[np.float64]:
        """What each version brings to one home."""
        return self.sizes / self.degrees


def typical(weights: Sequence[float]) -> float:
    """The median: engines that are just starting do not move it."""
    return statistics.median(weights)


def check(demand: Mapping[str, float]) -> None:
    """Raises `ValueError` for a demand that is negative, not a number or too much to be added up."""
    for name, load in demand.items():
        if not 0 <= load <= MOST:
            raise ValueError(f"the demand of {name!r} is {load}: give a number from 0 to {MOST:g}")


def measure(
    demand: Mapping[str, float],
    weights: Sequence[float],
    previous: Shares | None,
    *,
    hot: float,
    floor: float,
) -> Shares:
    """`hot` is the most that one home may carry, in units; `floor` the least that a unit is, in demand."""
    import numpy as np

    names, owns, known = _recognised(demand, previous)
    values = np.fromiter((demand[name] for name in names), dtype=np.float64, count=len(names))
    total = float(values.sum())
    if total < 1 / MOST:  # nobody asks for anything: all are alike
        values, total, floor = np.ones(len(names)), float(max(1, len(names))), 0.0
    unit = max(typical(weights) / sum(weights), floor / total)
    sizes = np.maximum(values / (total * unit), LEAST)
    degrees = _degrees(sizes / hot, len(weights))
    if previous is not None:
        held = np.where(known >= 0, previous.degrees[known], degrees)
        degrees = np.clip(held, degrees, _degrees(sizes / (hot * SHRINK), len(weights)))
    return Shares(names, owns, known, unit, sizes, degrees)


def _recognised(
    demand: Mapping[str, float], previous: Shares | None
) -> tuple[tuple[str, ...], NDArray[np.uint64], NDArray[np.int64]]:
    """Names in order, their digests, and where they were before."""
    import numpy as np

    if previous is not None and len(previous.names) == len(demand) and demand.keys() >= set(previous.names):
        return previous.names, previous.owns, np.arange(len(demand))
    was = {} if previous is None else {name: at for at, name in enumerate(previous.names)}
    old = [] if previous is None else previous.owns.tolist()
    found = sorted((old[was[name]] if name in was else digest(name), name) for name in demand)
    names = tuple(name for _, name in found)
    owns = np.array([own for own, _ in found], dtype=np.uint64)
    known = np.fromiter((was.get(name, -1) for name in names), dtype=np.int64, count=len(names))
    return names, owns, known


def _degrees(wanted: NDArray[np.float64], engines: int) -> NDArray[np.int64]:
    """The least of 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, ... that is at least `wanted`."""
    import numpy as np

    wanted = np.maximum(wanted, 1.0)
    steps = np.ceil(np.log2(wanted) * 4 - 1e-9) / 4
    homes = np.where(wanted <= 4, np.ceil(wanted - 1e-9), np.ceil(np.exp2(steps) - 1e-9))
    degrees: NDArray[np.int64] = np.minimum(homes, engines).astype(np.int64)
    return degrees
