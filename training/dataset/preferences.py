"""Which of two answers is better, and which answers are good or bad, from corrections and thumbs.

In the shapes that TRL's DPO and KTO trainers take, as conversations: pairs have `prompt`, `chosen` and
`rejected`; thumbs have `prompt`, `completion` and `label`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

from training.dataset.candidate import Candidate, Kind
from training.dataset.near import plain

PAIRS_A_PROMPT = 4
"""From thumbs: ten likes and ten dislikes of one question are not a hundred opinions."""


@dataclass(frozen=True, slots=True)
class Preferred:
    """A row of a file of preferences, and the candidates that it was made of."""

    row: dict[str, Any]
    made_of: tuple[Candidate, ...]


def pairs(candidates: Sequence[Candidate]) -> Iterator[Preferred]:
    """A correction is better than what it replaced; of answers to one question, system and all, one that was
    liked is better than one that was disliked. Two answers that are the same teach nothing."""
    for candidate in candidates:
        if candidate.rejected is not None and plain(candidate.rejected) != plain(candidate.answer):
            yield Preferred(_pair(candidate, candidate.answer, candidate.rejected), (candidate,))
    asked: dict[tuple[tuple[str, str], ...], list[Candidate]] = {}
    for candidate in candidates:
        if candidate.thumb is not None and candidate.kind is not Kind.CORRECTED:
            key = tuple((message.role, plain(message.content)) for message in candidate.asked)
            asked.setdefault(key, []).append(candidate)
    for group in asked.values():
        good = [each for each in group if each.thumb == "up"]
        bad = [each for each in group if each.thumb == "down"]
        differ = ((up, down) for up, down in product(good, bad) if plain(up.answer) != plain(down.answer))
        for up, down in islice(differ, PAIRS_A_PROMPT):
            yield Preferred(_pair(up, up.answer, down.answer), (up, down))


def thumbs(candidates: Sequence[Candidate]) -> Iterator[Preferred]:
    """Each answer that was liked or disliked; a correction is liked, and what it replaced is not."""
    for candidate in candidates:
        if candidate.kind is Kind.CORRECTED:
            yield Preferred(_thumb(candidate, candidate.answer, label=True), (candidate,))
            if candidate.rejected is not None and plain(candidate.rejected) != plain(candidate.answer):
                yield Preferred(_thumb(candidate, candidate.rejected, label=False), (candidate,))
        elif candidate.thumb is not None:
            yield Preferred(_thumb(candidate, candidate.answer, label=candidate.thumb == "up"), (candidate,))


def _pair(of: Candidate, chosen: str, rejected: str) -> dict[str, Any]:
    return {"prompt": _prompt(of), "chosen": [_answer(chosen)], "rejected": [_answer(rejected)]}


def _thumb(of: Candidate, completion: str, *, label: bool) -> dict[str, Any]:
    return {"prompt": _prompt(of), "completion": [_answer(completion)], "label": label}


def _prompt(of: Candidate) -> list[dict[str, str]]:
    return [message.as_dict() for message in of.asked]


def _answer(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}
