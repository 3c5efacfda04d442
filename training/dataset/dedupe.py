"""Rows that say the same twice. What differs in the answer, or in a number, is not the same."""

from __future__ import annotations

import re
from collections.abc import Sequence

from training.dataset.candidate import Candidate, Ledger
from training.dataset.near import Neighbours, alike, pieces, plain

NUMBER = re.compile(r"\d+")


def deduplicated(candidates: Sequence[Candidate], similarity: float, ledger: Ledger) -> list[Candidate]:
    """The same in the same order, without duplicates; of several the best stays (`Kind`), then the latest.

    Exact: system, question and answer are the same but for case, width and space. Near: question and answer,
    each for itself, are at least `similarity` alike, the system's words the same, and all numbers the same
    ("12 + 13" is not "12 + 14", however alike the rest is). Answers that were disliked are compared among
    themselves only: they are no rows to learn, and may be like ones that are.
    """
    by_merit = sorted(range(len(candidates)), key=lambda at: (*_merit(candidates[at]), at))
    exact: set[tuple[object, ...]] = set()
    kept: list[int] = []
    for at in by_merit:
        if (same := _same(candidates[at])) in exact:
            ledger.drop("duplicate", candidates[at].place)
        else:
            exact.add(same)
            kept.append(at)
    texts = [f"{candidates[at].prompt}\n{candidates[at].answer}" for at in kept]
    neighbours = Neighbours(texts, similarity)
    stays: list[int] = []
    for index, at in enumerate(kept):
        if any(_near(candidates[kept[other]], candidates[at], similarity) for other in neighbours.of(index)):
            ledger.drop("near_duplicate", candidates[at].place)
        else:
            neighbours.add(index)
            stays.append(at)
    return [candidates[at] for at in sorted(stays)]


def _merit(candidate: Candidate) -> tuple[int, float]:
    return candidate.kind.rank, -(candidate.at or 0.0)


def _same(candidate: Candidate) -> tuple[object, ...]:
    turns = tuple((message.role, plain(message.content)) for message in candidate.messages)
    return candidate.learned, turns


def _near(left: Candidate, right: Candidate, similarity: float) -> bool:
    if (left.learned, plain(left.system)) != (right.learned, plain(right.system)):
        return False
    for one, other in ((left.prompt, right.prompt), (left.answer, right.answer)):
        if NUMBER.findall(one) != NUMBER.findall(other):
            return False
        if alike(pieces(one), pieces(other)) < similarity:
            return False
    return True
