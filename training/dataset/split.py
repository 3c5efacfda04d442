"""Training and validation, so that nothing of the one is in the other.

Rows that belong together stay together: those with nearly the same question, and those of one unit. What
belongs together by steps does too (A is like B, and B is of C's unit). So an adapter is judged by questions
that it was not taught, of people whom it has not heard.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from training.dataset.candidate import Candidate
from training.dataset.near import Groups, Neighbours


@dataclass(frozen=True, slots=True)
class Halves:
    """Indexes of rows. `astride` are those that a cut in time leaves out: of groups that were before the cut
    and after it, the part after. `cut_at` is in seconds since 1970, None where time did not decide."""

    train: list[int]
    validation: list[int]
    astride: list[int]
    groups: int
    largest: int
    by: str
    cut_at: float | None

    def record(self) -> dict[str, Any]:
        """As it goes into the manifest."""
        return {"by": self.by, "cut_at": self.cut_at, "groups": self.groups, "largest_group": self.largest}


def groups(candidates: Sequence[Candidate], similarity: float) -> list[list[int]]:
    """What belongs together, as indexes, each group in order."""
    found = Groups(len(candidates))
    neighbours = Neighbours([candidate.prompt for candidate in candidates], similarity)
    units: dict[tuple[str, str], int] = {}
    for index, candidate in enumerate(candidates):
        for other in neighbours.of(index):
            found.join(index, other)
        neighbours.add(index)
        if candidate.unit:
            found.join(index, units.setdefault((candidate.tenant, candidate.unit), index))
    return found.all()


def split(candidates: Sequence[Candidate], *, share: float, by: str, similarity: float, seed: int) -> Halves:
    """`share` of the rows, rounded, to validation, as nearly as whole groups allow and never more.

    `time`: the newest groups go to validation, and training has nothing from after the cut: a group with rows
    on both sides stays in training with its earlier rows, and its later ones are `astride`. Rows without a
    time count as from before. `random`: groups by a hash of their content and `seed`, so that a row that was
    in validation mostly stays there when rows are added. `auto`: `time` where every row has one.
    """
    together = groups(candidates, similarity)
    largest = max(map(len, together), default=0)
    wanted = round(len(candidates) * share)
    if by == "auto":
        by = "time" if candidates and all(each.at is not None for each in candidates) else "random"
    if by == "time":
        train, validation, astride, cut_at = _by_time(candidates, together, wanted)
    else:
        train, validation = _at_random(candidates, together, wanted, seed)
        astride, cut_at = [], None
    return Halves(train, validation, astride, len(together), largest, by, cut_at)


def _at_random(
    candidates: Sequence[Candidate], together: list[list[int]], wanted: int, seed: int
) -> tuple[list[int], list[int]]:
    def place(group: list[int]) -> str:
        least = min(candidates[index].digest() for index in group)
        return hashlib.sha256(f"{seed}:{least}".encode()).hexdigest()

    train: list[int] = []
    validation: list[int] = []
    for group in sorted(together, key=place):
        fits = len(validation) + len(group) <= wanted
        (validation if fits else train).extend(group)
    return sorted(train), sorted(validation)


def _by_time(
    candidates: Sequence[Candidate], together: list[list[int]], wanted: int
) -> tuple[list[int], list[int], list[int], float | None]:
    """The cut is the earliest moment after which the groups that lie wholly behind it are not too many."""

    def at(index: int) -> float:
        moment = candidates[index].at
        return float("-inf") if moment is None else moment

    begins = [min(map(at, group)) for group in together]
    cut: float | None = None
    rows = 0
    newest_first = sorted(range(len(together)), key=lambda number: -begins[number])
    position = 0
    while position < len(newest_first):
        moment = begins[newest_first[position]]
        same = position  # groups that begin at one moment are on one side
        while same < len(newest_first) and begins[newest_first[same]] == moment:
            rows += len(together[newest_first[same]])
            same += 1
        if rows > wanted or moment == float("-inf"):
            break
        cut, position = moment, same
    train: list[int] = []
    validation: list[int] = []
    astride: list[int] = []
    for group, begin in zip(together, begins, strict=True):
        if cut is not None and begin >= cut:
            validation += group
        else:
            train += [index for index in group if cut is None or at(index) < cut]
            astride += [index for index in group if cut is not None and at(index) >= cut]
    return sorted(train), sorted(validation), sorted(astride), cut
