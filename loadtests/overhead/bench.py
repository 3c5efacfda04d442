"""Taking turns: in every round each cell by every system, in another order each round.

The speed of a shared machine drifts by more than what is measured, so a figure of one system is only compared
with another's of the same round, and told as the median over rounds with its lowest and highest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Protocol

from loadtests.overhead.cells import BESIDE, BESIDE_PROMPTS, Cell, Figures
from loadtests.overhead.processes import Pinned
from loadtests.overhead.systems import System
from loadtests.overhead.yardstick import Yardstick, figures
from loadtests.proc import cost

LEAST_ROUNDS = 5


class Load(Protocol):
    """A mock engine and a generator."""

    def mock(self, port: int, /) -> Pinned: ...
    def run(self, mock_port: int, cell: Cell, system: System, /) -> Figures: ...


class CLoad:
    """The yardstick in C as a `Load`."""

    def __init__(self, yardstick: Yardstick) -> None:
        self._yardstick = yardstick

    def mock(self, port: int) -> Pinned:
        return self._yardstick.mock(port)

    def run(self, mock_port: int, cell: Cell, system: System) -> Figures:
        self._yardstick.shape(mock_port, cell)
        before = cpu_s(system)
        running = self._yardstick.start(cell, system.port, system.key, system.model)
        beside = None
        if cell is BESIDE:
            beside = self._yardstick.start(BESIDE_PROMPTS, system.port, system.key, system.model)
        try:
            printed = self._yardstick.finish(cell, running)
        finally:
            if beside is not None:
                self._yardstick.finish(BESIDE_PROMPTS, beside)
        after = cpu_s(system)
        spent = None if before is None or after is None else after - before
        return figures(cell, printed, spent)


def cpu_s(system: System) -> float | None:
    """CPU seconds that the system's processes have used; None for one whose process is not known."""
    return None if system.pid is None else cost(system.pid, children=system.tree).cpu_s


@dataclass(slots=True)
class Memory:
    """Resident bytes of one process, without its children: after the last cell, and the most at any look."""

    after: int = 0
    most: int = 0

    def look(self, pid: int) -> None:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                self.after = int(line.split()[1]) * 1024
                self.most = max(self.most, self.after)


@dataclass(slots=True)
class Results:
    """`rounds[r][system][cell]`, and the memory of each system whose process is known."""

    rounds: list[dict[str, dict[str, Figures]]] = field(default_factory=list)
    memory: dict[str, Memory] = field(default_factory=dict)

    def values(self, system: str, cell: str, figure: str) -> list[float]:
        """The figure in every round that has it."""
        found = (getattr(round_[system][cell], figure) for round_ in self.rounds if cell in round_[system])
        return [value for value in found if value is not None]

    def added(self, system: str, over: str, cell: str, figure: str) -> list[float]:
        """In every round: the figure of `system` less that of `over`."""
        pairs = zip(self.values(system, cell, figure), self.values(over, cell, figure), strict=True)
        return [one - other for one, other in pairs]


def take_turns(
    load: Load,
    mock_port: int,
    systems: Sequence[System],
    cells: Sequence[Cell],
    rounds: int,
    tell: Callable[[str], None] = lambda line: None,
) -> Results:
    """Measures `cells` on `systems`, `rounds` times. `tell` hears each cell as it ends."""
    results = Results(memory={system.name: Memory() for system in systems if system.pid is not None})
    for number in range(rounds):
        found: dict[str, dict[str, Figures]] = {system.name: {} for system in systems}
        turn = number % len(systems)
        order = [*systems[turn:], *systems[:turn]]
        for cell in cells:
            for system in order:
                figures_ = found[system.name][cell.name] = load.run(mock_port, cell, system)
                if system.pid is not None:
                    results.memory[system.name].look(system.pid)
                tell(f"round {number + 1} of {rounds}, {cell.name}, {system.name}: {_short(figures_)}")
        results.rounds.append(found)
    return results


def told(values: Sequence[float], unit: str = "", scale: float = 1.0, digits: int = 0) -> str:
    """`median (lowest to highest)`."""
    if not values:
        return "none"
    shown = [f"{value * scale:,.{digits}f}" for value in (median(values), min(values), max(values))]
    return f"{shown[0]}{unit} ({shown[1]} to {shown[2]})"


def _short(figures_: Figures) -> str:
    parts: Mapping[str, float | None] = {
        "/s": figures_.per_s,
        " us p50": figures_.p50 if figures_.late_p50 is None else figures_.late_p50,
        " us CPU": figures_.cpu_us,
    }
    text = ", ".join(f"{value:,.0f}{unit}" for unit, value in parts.items() if value is not None)
    return f"{text}, {figures_.errors} errors" if figures_.errors else text
