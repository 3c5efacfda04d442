"""What a manifest tells of a build: where rows came from and on what terms, how long they are, what to
mind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from training.dataset.candidate import Candidate, Kind
from training.dataset.filters import Counter as Tokens
from training.dataset.licences import Judgement
from training.dataset.plan import Plan
from training.dataset.snapshot import sha256_of
from training.dataset.sources import hub, traffic
from training.dataset.sources.uploaded import is_uploaded
from training.dataset.split import Halves

NONE_SAID = "(none said)"
"""The consent basis of rows that have none."""
ENOUGH = 200
"""Rows; several hundred good ones make a visible change."""


def lineage(
    plan: Plan, read: Sequence[int], judgements: Sequence[Judgement], rows: Sequence[Candidate]
) -> dict[str, Any]:
    used = Counter(each.source for each in rows)
    sources = []
    for number, source in enumerate(plan.sources):
        captured = source.location.startswith(traffic.SCHEME)
        bases = Counter(each.consent for each in rows if each.source == number)
        told: dict[str, Any] = {
            "from": source.location.partition("?")[0] if captured else _told(source.location),
            "rows_read": read[number],
            "rows_used": used[number],
            "licence": judgements[number].licence,
            "accepted_by_hand": judgements[number].accepted,
            "consent": {basis or NONE_SAID: count for basis, count in sorted(bases.items())},
        }
        if captured:
            told["filters"] = traffic.wanted(source.location).record()
        elif not source.location.startswith(hub.SCHEME) and not is_uploaded(source.location):
            told["sha256"] = sha256_of(Path(source.location))
        sources.append(told)
    if plan.synthetic.outputs is not None:
        outputs = Path(plan.synthetic.outputs)
        sources.append({"from": outputs.name, "licence": "own", "sha256": sha256_of(outputs)})
    return {
        "sources": sources,
        "base_licence": judgements[-1].licence if len(judgements) > len(sources) else None,
    }


def _told(location: str) -> str:
    """Without the place on this machine."""
    scheme = hub.SCHEME if location.startswith(hub.SCHEME) else ""
    path, mark, query = location.removeprefix(scheme).partition("?")
    return scheme + (Path(path).name if Path(path).exists() else path) + mark + query


def token_counts(
    train: Sequence[Candidate], validation: Sequence[Candidate], tokens: Tokens
) -> dict[str, Any]:
    def of(candidates: Sequence[Candidate]) -> dict[str, int]:
        each = sorted(tokens.of(candidate) for candidate in candidates if candidate.learned)
        return {
            "all": sum(each),
            "learned": sum(tokens.count(one.answer) for one in candidates if one.learned),
            "median_row": each[len(each) // 2] if each else 0,
            "longest_row": each[-1] if each else 0,
        }

    return {"counted_exactly": tokens.exact, "train": of(train), "validation": of(validation)}


def notes(
    plan: Plan, halves: Halves, train: Sequence[Candidate], validation: Sequence[Candidate]
) -> Iterator[str]:
    """What somebody should know before they train on it."""
    learned = sum(each.learned for each in train)
    rows = len(train) + len(validation)
    if learned < ENOUGH:
        yield f"{learned} rows to train on are few: several hundred good ones make a visible change"
    if plan.split.validation and not validation:
        yield (
            f"nothing is left for validation: {halves.largest} of {rows} rows belong together "
            f"(nearly the same "
            "question, or one unit)"
        )
    elif 2 * halves.largest > rows:
        yield f"{halves.largest} of {rows} rows belong together, so validation has only of the rest"
    if plan.privacy.imported == "off" and any(not each.ids for each in train):
        yield (
            "rows that did not come through the gateway were not looked through for personal data; "
            "--redact does it"
        )
    own = sum(each.kind is Kind.OWN for each in train)
    if own:
        yield f"{own} rows are answers of our own models that nobody corrected or liked"
