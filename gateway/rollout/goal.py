"""Is a candidate better than stable? One value a unit, compared within its hours, up to a declared horizon.

A unit's value is the mean of what was said of its exchanges (0 to 1); it may come late, and may change. Units
are compared within the stratum in which they were first seen (an hour of a stage of the rollout), where both
arms met the same days, the same shares and the same waiting for feedback. With n_c and n_s units that have a
value, and means m_c and m_s, in stratum h:

    difference = sum w_h (m_c - m_s) / sum w_h,        w_h = n_c n_s / (n_c + n_s)
    variance   = s^2 / sum w_h,                        s^2 pooled over strata and arms
    Z          = difference / sqrt(variance)
    share      = 2 sum w_h / horizon                   of the information, 1 with `horizon` units an arm

Z is looked at after each `1 / LOOKS` of the information, and compared with O'Brien and Fleming's bounds
(`gateway.rollout.spending`). Requests of one unit are alike:
treated as independent, five of them a unit give 27 % of false decisions (measured).
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal

from gateway.rollout.spending import bounds

LOOKS = 100
LEAST_UNITS = 50
"""An arm, before the first look: a mean of fewer is not normal."""

Verdict = Literal["better", "worse", "none"]


@dataclass(slots=True)
class _Unit:
    stratum: Hashable
    arm: int
    total: float = 0.0
    said: int = 0


@dataclass(slots=True)
class _Cell:
    """Units of one arm in one stratum that have a value."""

    units: int = 0
    total: float = 0.0
    squares: float = 0.0

    def change(self, value: float, sign: int) -> None:
        self.units += sign
        self.total += sign * value
        self.squares += sign * value * value


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen, and what was made of it."""

    share: float
    difference: float
    error: float
    z: float
    bound: float
    verdict: Verdict


class Goal:
    """`horizon` is in units an arm, `alpha` for both sides together."""

    def __init__(self, horizon: int, alpha: float) -> None:
        if horizon < 2 * LEAST_UNITS:
            raise ValueError(f"the horizon is {horizon} units an arm; it must be at least {2 * LEAST_UNITS}")
        if not 0 < alpha < 1:
            raise ValueError(f"alpha is {alpha}; it must be between 0 and 1")
        self._horizon = horizon
        self._alpha = alpha
        self._units: dict[Hashable, _Unit] = {}
        self._cells: dict[Hashable, tuple[_Cell, _Cell]] = {}
        self._weight = 0.0  # of all strata
        self._looked = 0
        self.verdict: Verdict = "none"
        self.looks: list[Look] = []

    def seen(self, unit: Hashable, stratum: Hashable, *, candidate: bool) -> None:
        """A unit's first exchange in the rollout; later ones change nothing."""
        self._units.setdefault(unit, _Unit(stratum, int(candidate)))

    def candidates(self, unit: Hashable) -> bool | None:
        """Whether the unit was seen under the candidate; None: it was not seen."""
        found = self._units.get(unit)
        return None if found is None else found.arm == 1

    def said(self, unit: Hashable, value: float) -> None:
        """Of one exchange of a unit that was seen. Raises `ValueError` for a value outside 0 to 1."""
        if not 0 <= value <= 1:
            raise ValueError(f"a value is {value}; it must be between 0 and 1")
        found = self._units.get(unit)
        if found is None:
            return  # of before the rollout
        pair = self._cells.setdefault(found.stratum, (_Cell(), _Cell()))
        before = _weight(pair)
        if found.said:
            pair[found.arm].change(found.total / found.said, -1)
        found.total += value
        found.said += 1
        pair[found.arm].change(found.total / found.said, 1)
        self._weight += _weight(pair) - before

    @property
    def decided(self) -> bool:
        """Whether there is a verdict, or the horizon was reached without one."""
        return self.verdict != "none" or self._looked == LOOKS

    def look(self) -> Look | None:
        """Looks, if enough has come since the last time; None if not, or when it is decided."""
        if self.decided:
            return None
        share = min(1.0, 2 * self._weight / self._horizon)
        number = math.floor(share * LOOKS)
        if number <= self._looked:
            return None
        both = [(one, other) for one, other in self._cells.values() if one.units > 0 and other.units > 0]
        if self._too_few(both):
            return None
        weights = list(map(_weight, both))
        differences = [
            candidate.total / candidate.units - stable.total / stable.units for stable, candidate in both
        ]
        weight = sum(weights)
        difference = sum(map(math.prod, zip(weights, differences, strict=True))) / weight
        error = math.sqrt(self._spread() / weight)
        bound = bounds(self._alpha, LOOKS)[number - 1]
        self._looked = number
        z = difference / error
        if abs(z) >= bound:
            self.verdict = "better" if z > 0 else "worse"
        found = Look(share, difference, error, z, bound, self.verdict)
        self.looks.append(found)
        return found

    def _too_few(self, both: list[tuple[_Cell, _Cell]]) -> bool:
        return any(sum(pair[arm].units for pair in both) < LEAST_UNITS for arm in (0, 1))

    def _spread(self) -> float:
        """The variance of a unit's value within its arm and stratum, with half a unit at 0 and at 1 added:
        where all were the same, it is not known to be 0."""
        units, squares, groups = 0, 0.0, 0
        for pair in self._cells.values():
            for cell in pair:
                if cell.units > 0:
                    units += cell.units
                    groups += 1
                    squares += cell.squares - cell.total * cell.total / cell.units
        return (max(0.0, squares) + 0.25) / max(1, units - groups + 1)


def _weight(pair: tuple[_Cell, _Cell]) -> float:
    one, other = pair
    return one.units * other.units / (one.units + other.units) if one.units and other.units else 0.0
