"""Two by turns, and what may be said of one against the other.

The machine's speed drifts by more than what is compared, so a figure is only held against the other one's of
the same round; the ratio that counts is the median over rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Generic, TypeVar

Measured = TypeVar("Measured")


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure of two, round by round: `reference` is what `subject` is held against."""

    reference: tuple[float, ...]
    subject: tuple[float, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """The subject's over the reference's, of each round."""
        return tuple(mine / other for other, mine in zip(self.reference, self.subject, strict=True))

    @property
    def ratio(self) -> float:
        return median(self.ratios)

    def told(self, digits: int = 0) -> str:
        """`reference → subject, x ratio`, each as `median (lowest to highest)`."""
        sides = f"{spread(self.reference, digits)} → {spread(self.subject, digits)}"
        return f"{sides}, x {spread(self.ratios, 2)}"


@dataclass(frozen=True, slots=True)
class Turns(Generic[Measured]):
    """What was measured on both, round by round."""

    reference: tuple[Measured, ...]
    subject: tuple[Measured, ...]

    def compared(self, figure: Callable[[Measured], float]) -> Compared:
        return Compared(tuple(map(figure, self.reference)), tuple(map(figure, self.subject)))


def by_turns(
    reference: Callable[[], Measured], subject: Callable[[], Measured], rounds: int
) -> Turns[Measured]:
    """Reference, subject, reference, subject…: `rounds` of each."""
    pairs = [(reference(), subject()) for _ in range(rounds)]
    return Turns(tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs))


def spread(values: tuple[float, ...], digits: int = 0) -> str:
    """`median (lowest to highest)`."""
    middle, low, high = (f"{value:,.{digits}f}" for value in (median(values), min(values), max(values)))
    return f"{middle} ({low} to {high})"
