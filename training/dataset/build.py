"""From a plan to a snapshot: read, sift, split, freeze."""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from training.dataset import snapshot as kept
from training.dataset.candidate import Candidate, Ledger
from training.dataset.caps import capped
from training.dataset.dedupe import deduplicated
from training.dataset.endpoint import Answers, may_have_captured
from training.dataset.filters import Counter as Tokens
from training.dataset.filters import counter, filtered
from training.dataset.licences import Judgement, gate
from training.dataset.lineage import lineage, notes, token_counts
from training.dataset.near import Neighbours
from training.dataset.plan import DatasetError, Endpoint, Plan, Source
from training.dataset.preferences import Preferred, pairs, thumbs
from training.dataset.snapshot import Shelf, Snapshot, row_digest
from training.dataset.sources import documents, files, hub, traffic, uploaded
from training.dataset.sources.records import Records
from training.dataset.split import split
from training.dataset.synthetic import judge_of, judged, reversed_from, written

LIBRARIES = ("rensa", "py3langid")


@dataclass(frozen=True, slots=True)
class Means:
    """What a build may use. `base` is the prepared base's folder and licence; `redact` takes personal data
    out of a text; `answers` makes what asks an endpoint (`kept` is where earlier answers lie)."""

    shelf: Shelf
    gateway: traffic.Gateway | None = None
    base: tuple[Path, str] | None = None
    redact: Callable[[str], str] | None = None
    kept: Path | None = None
    answers: Callable[[Endpoint, Path | None], Answers] = Answers
    say: Callable[[str], None] = lambda text: None


@dataclass(frozen=True, slots=True)
class Built:
    """`created` is false when the same content was frozen before."""

    snapshot: Snapshot
    created: bool


def build(name: str, plan: Plan, means: Means) -> Built:
    """Builds the dataset `name`. The same plan, inputs and library versions give the same digest.

    Raises `DatasetError`: nothing may be trained on, nothing is left, or a source cannot be read.
    """
    kept.check_name(name)
    if not plan.sources and plan.synthetic.outputs is None:
        raise DatasetError(
            "a dataset needs a source: --from FILE, traffic://ROUTE?since=7d, file-ID or hf://FOLDER"
        )
    judgements = _gate(plan, means)
    ledger = Ledger()
    read: list[int] = []
    everything: list[Candidate] = []
    for number, source in enumerate(plan.sources):
        found = list(_read(source, number, plan, means, ledger))
        means.say(f"{source.location}: {len(found)} rows")
        read.append(len(found))
        everything += found
    tokens = counter(None if means.base is None else means.base[0])
    rows = _sifted(_redacted(everything, plan, means), plan, tokens, ledger)
    halves = split(
        rows,
        share=plan.split.validation,
        by=plan.split.by,
        similarity=plan.duplicates.similarity,
        seed=plan.split.seed,
    )
    for index in halves.astride:
        ledger.drop("astride_the_cut", rows[index].place)
    train = [rows[index] for index in halves.train]
    validation = [rows[index] for index in halves.validation]
    train += _generated(plan, means, tokens, train, validation, ledger)
    contents = dict(_files(train, validation, preferences=plan.preferences))
    if not any(contents[file] for file in contents if file != kept.ORIGINS):
        raise DatasetError(f"nothing is left to learn from. {_why(ledger)}")
    about = {
        "lineage": lineage(plan, read, judgements, rows),
        "rows_read": len(everything),
        "dropped": ledger.record(),
        "kinds": dict(sorted(Counter(str(each.kind) for each in (*train, *validation)).items())),
        "units": len({(each.tenant, each.unit) for each in (*train, *validation) if each.unit}),
        "tokens": token_counts(train, validation, tokens),
        "split": halves.record(),
        "notes": list(notes(plan, halves, train, validation)),
        "settings": plan.record(),
        "libraries": {each: importlib.metadata.version(each) for each in _installed()},
    }
    return Built(*means.shelf.freeze(name, contents, about))


def _gate(plan: Plan, means: Means) -> list[Judgement]:
    """Of each source; traffic's terms are its consent basis, which each row has."""
    sources = [(source.location, _licence(source)) for source in plan.sources]
    if plan.synthetic.outputs is not None:
        sources.append((plan.synthetic.outputs, "own"))
    return gate(sources, None if means.base is None else means.base[1], plan.licences.accept)


def _licence(source: Source) -> str:
    if source.location.startswith(traffic.SCHEME):
        return "own"
    if source.location.startswith(hub.SCHEME) and not source.licence:
        return hub.licence_of(source.location)
    return source.licence


def _read(source: Source, number: int, plan: Plan, means: Means, ledger: Ledger) -> Iterator[Candidate]:
    location = source.location
    if location.startswith(traffic.SCHEME):
        if means.gateway is None:
            raise DatasetError(f"{location} needs a running gateway: hotswap up")
        asked = traffic.wanted(location)
        yield from traffic.read_traffic(
            asked, number, means.gateway, ledger, require_consent=plan.privacy.require_consent
        )
        return
    records = Records(source, number, _licence(source))
    if uploaded.is_uploaded(location):
        if means.gateway is None:
            raise DatasetError(f"{location} needs a running gateway: hotswap up")
        with uploaded.fetched(location, means.gateway) as file:
            yield from files.read_file(file, records, ledger)
    elif location.startswith(hub.SCHEME):
        yield from hub.read_hub(location, records, ledger)
    elif Path(location).suffix.lower() in documents.SUFFIXES:
        writer = _endpoint(plan.writer, "a document needs a writer, which makes questions of it", means)
        asked_of = (Path(location), number, records.licence, source.consent, plan.documents, writer)
        yield from documents.read_documents(*asked_of, ledger)
    else:
        yield from files.read_file(Path(location), records, ledger)


def _endpoint(endpoint: Endpoint | None, why: str, means: Means) -> Answers:
    if endpoint is None:
        raise DatasetError(f"{why}: --writer URL --writer-model NAME, or [writer] in the plan")
    return means.answers(endpoint, means.kept)


def _redacted(candidates: Sequence[Candidate], plan: Plan, means: Means) -> list[Candidate]:
    """Traffic was cleaned as its route's policy says before it was remembered; what came otherwise is
    here."""
    if plan.privacy.imported == "off":
        return list(candidates)
    redact = means.redact
    if redact is None:
        raise DatasetError(f"privacy.imported = {plan.privacy.imported!r} needs `hotswap datasets build`")
    return [each if each.ids else _without_names(each, redact) for each in candidates]


def _without_names(candidate: Candidate, redact: Callable[[str], str]) -> Candidate:
    messages = tuple(replace(message, content=redact(message.content)) for message in candidate.messages)
    return replace(candidate, messages=messages)


def _sifted(candidates: list[Candidate], plan: Plan, tokens: Tokens, ledger: Ledger) -> list[Candidate]:
    found = filtered(candidates, plan.filters, tokens, ledger)
    found = deduplicated(found, plan.duplicates.similarity, ledger)
    caps = plan.caps
    return capped(
        found, self_generated=caps.self_generated, unit=caps.unit, unit_rows=caps.unit_rows, ledger=ledger
    )


def _generated(
    plan: Plan,
    means: Means,
    tokens: Tokens,
    train: Sequence[Candidate],
    validation: Sequence[Candidate],
    ledger: Ledger,
) -> list[Candidate]:
    """New rows for the training half, none of them near one that is there."""
    wanted = plan.synthetic
    if not wanted.rows and wanted.outputs is None:
        return []
    seeds = [each for each in train if each.learned]
    if any(each.ids for each in seeds) and wanted.rows:
        at = None if means.gateway is None else means.gateway.url
        for endpoint in filter(None, (plan.writer, plan.judge)):
            may_have_captured(endpoint, plan.privacy.hosts, at)
    writer = _endpoint(plan.writer, "rows are generated by a writer", means)
    scorer = None
    if plan.judge is not None:
        scorer = judge_of(means.answers(plan.judge, means.kept))
    elif plan.reward_model is not None:
        from training.dataset import reward  # transformers, and only where it is asked for

        scorer = reward.scorer(plan.reward_model)

    def good(candidates: list[Candidate]) -> list[Candidate]:
        return judged(filtered(candidates, plan.filters, tokens, ledger), wanted.min_score, scorer, ledger)

    like = good(written(wanted, seeds, writer, ledger))
    backwards: list[Candidate] = []
    if wanted.outputs is not None:
        outputs = Path(wanted.outputs)
        backwards = good(reversed_from(outputs, len(plan.sources), "own", writer, ledger))
    there = [*train, *validation]
    made = [*backwards, *like]
    neighbours = Neighbours([each.prompt for each in (*there, *made)], plan.duplicates.similarity)
    for index in range(len(there)):
        neighbours.add(index)
    fresh: list[Candidate] = []
    room = (
        len(backwards) + wanted.rows
    )  # an answer that was given is used; of new rows the best, up to the wish
    for index, candidate in enumerate(made, start=len(there)):
        if next(neighbours.of(index), None) is not None:
            ledger.drop("like_a_row_that_is_there", candidate.place)
            room -= index < len(there) + len(backwards)
        elif len(fresh) < room:
            neighbours.add(index)
            fresh.append(candidate)
    return fresh


def _files(
    train: Sequence[Candidate], validation: Sequence[Candidate], *, preferences: bool
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    origins: list[dict[str, Any]] = []

    def file(name: str, found: Iterator[Preferred]) -> tuple[str, list[dict[str, Any]]]:
        rows: dict[str, dict[str, Any]] = {}
        for each in found:
            if (digest := row_digest(each.row)) not in rows:
                rows[digest] = each.row
                origins.append(_origin(name, len(rows), digest, each.made_of))
        return name, list(rows.values())

    halves = ((train, False), (validation, True))
    for some, last in halves:
        learned = (Preferred(each.row(), (each,)) for each in some if each.learned)
        yield file(kept.VALIDATION if last else kept.TRAIN, learned)
    for some, last in halves if preferences else ():
        yield file(kept.PREFERENCES_VALIDATION if last else kept.PREFERENCES, pairs(some))
        yield file(kept.THUMBS_VALIDATION if last else kept.THUMBS, thumbs(some))
    yield kept.ORIGINS, origins


def _origin(file: str, row: int, digest: str, made_of: Sequence[Candidate]) -> dict[str, Any]:
    first = made_of[0]
    origin: dict[str, Any] = {
        "file": file,
        "row": row,
        "sha256": digest,
        "source": first.source,
        "kind": str(first.kind),
        "place": first.place,
        "ids": sorted({id for each in made_of for id in each.ids}),
        "seeds": sorted({id for each in made_of for id in each.seeds}),
        "unit": first.unit,
        "key": first.key,
        "tenant": first.tenant,
        "at": first.at,
        "consent": first.consent,
        "licence": first.licence,
        "version": first.version,
    }
    return {name: value for name, value in origin.items() if value not in ("", [], None)}


def _why(ledger: Ledger) -> str:
    if not ledger.counts:
        return "The sources hold no rows"
    dropped = ", ".join(f"{rows} {reason}" for reason, rows in ledger.counts.most_common())
    hint = ""
    if ledger.counts["self_generated_cap"]:
        hint = (
            ". Answers of our own models alone teach it nothing new; collect corrections, or set "
            "--max-self-generated 1"
        )
    return f"Dropped: {dropped}{hint}"


def _installed() -> Iterator[str]:
    there: Mapping[str, Any] = importlib.metadata.packages_distributions()
    yield from (each for each in LIBRARIES if each in there)
