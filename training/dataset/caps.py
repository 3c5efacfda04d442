"""No more of one voice than is good: of our own models' answers, and of any one unit."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence

from training.dataset.candidate import Candidate, Kind, Ledger


def capped(
    candidates: Sequence[Candidate], *, self_generated: float, unit: float, unit_rows: int, ledger: Ledger
) -> list[Candidate]:
    """The same in the same order, without what is too much. What was disliked teaches nothing by imitation,
    and does not count.

    A unit has at most the larger of `unit_rows` and `unit` of all rows. Then, of what our own models answered
    and nobody corrected or liked, so much stays that it is at most `self_generated` of all: a model that
    learns from itself loses what is rare (Shumailov et al., Nature 631, 2024). The better stays (`Kind`),
    and among equals a choice by content, which does not change when other rows are added.
    """
    order = sorted(range(len(candidates)), key=lambda at: (candidates[at].kind.rank, _lot(candidates[at])))
    rows = sum(candidate.learned for candidate in candidates)
    most = max(unit_rows, math.floor(unit * rows))
    seen: Counter[tuple[str, str]] = Counter()
    gone: set[int] = set()
    for at in order:
        candidate = candidates[at]
        if not candidate.unit or not candidate.learned:
            continue
        whose = candidate.tenant, candidate.unit
        seen[whose] += 1
        if seen[whose] > most:
            gone.add(at)
            ledger.drop("unit_cap", candidate.place)
    own = [at for at in order if candidates[at].kind is Kind.OWN and at not in gone]
    others = sum(
        candidate.learned and candidate.kind is not Kind.OWN and at not in gone
        for at, candidate in enumerate(candidates)
    )
    for at in own[own_rows(others, self_generated, len(own)) :]:
        gone.add(at)
        ledger.drop("self_generated_cap", candidates[at].place)
    return [candidate for at, candidate in enumerate(candidates) if at not in gone]


def own_rows(others: int, share: float, there: int) -> int:
    """Of `there` self-generated rows so many that they are at most `share` of all: own / (own + others)."""
    if share >= 1:
        return there
    # The small amount stands for 0.3 / 0.7 * 7 being 2.9999999999999996.
    return min(there, math.floor(share / (1 - share) * others + 1e-9))


def _lot(candidate: Candidate) -> str:
    return hashlib.sha256(candidate.digest().encode()).hexdigest()
