"""Rows from what was asked and answered: `traffic://ROUTE?since=7d&feedback=up`, over the gateway's admin
API."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, unquote

import httpx

from training.dataset.candidate import Candidate, Kind, Ledger
from training.dataset.conversation import Unlearnable, conversation
from training.dataset.plan import DatasetError
from training.rows import Message

SCHEME = "traffic://"
SPANS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604_800}
FILTERS = ("version", "tenant", "key", "unit", "error", "feedback", "text")
"""Of a URL, passed on to the export as they are."""
CUT = ("length", "content_filter")
"""Reasons of an end that is not the answer's own."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """Where it is (`http://host:port`) and an admin key."""

    url: str
    key: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a URL says. Times in seconds since 1970. `scores`: metric -> the least that will do."""

    route: str
    params: Mapping[str, Any]
    scores: Mapping[str, float]

    def record(self) -> dict[str, Any]:
        """As it goes into the manifest, with times that everybody reads alike."""
        times = {
            name: datetime.fromtimestamp(self.params[name], UTC).isoformat(timespec="seconds")
            for name in ("since", "until")
            if name in self.params
        }
        units = {"unit": "(one unit)"} if "unit" in self.params else {}  # a name does not go into a manifest
        return {**self.params, **times, **units, **({"min_score": dict(self.scores)} if self.scores else {})}


def wanted(location: str, now: float | None = None) -> Wanted:
    """Reads the URL. Without `error`, only what went well. Raises `DatasetError` naming the parameter."""
    route, _, query = location.removeprefix(SCHEME).partition("?")
    if not route:
        raise DatasetError(f"{location} names no route; write traffic://ROUTE?since=7d")
    params: dict[str, Any] = {"route": unquote(route), "error": "none"}
    scores: dict[str, float] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in ("since", "until"):
            params[name] = _time(name, value, time.time() if now is None else now)
        elif name == "min_score":
            metric, _, least = value.partition(":")
            if not re.fullmatch(r"[01](\.\d+)?", least):
                raise DatasetError(f"{location}: min_score is {value!r}; write METRIC:0.7")
            scores[metric] = float(least)
        elif name in FILTERS:
            params[name] = value
        else:
            known = ", ".join(("since", "until", "min_score", *FILTERS))
            raise DatasetError(f"{location}: {name!r} is not known; traffic:// takes {known}")
    return Wanted(str(params["route"]), params, scores)


def read_traffic(
    asked: Wanted, number: int, gateway: Gateway, ledger: Ledger, *, require_consent: bool
) -> list[Candidate]:
    """Every exchange that can be learned from, the oldest first. Raises `DatasetError`.

    A correction takes the answer's place; what was disliked and not corrected is kept apart. Dropped are
    `tools`, `no_text`, `roles`, `no_answer`, `cut` (the answer is not whole), `low_score`, `no_consent`.
    """
    found = []
    for record in exported(asked, gateway):
        about = record["metadata"]
        try:
            candidate = replace(candidate_of(record), source=number)
        except Unlearnable as error:
            ledger.drop(error.reason, about["id"])
            continue
        scores = (about.get("feedback") or {}).get("scores", {})
        if require_consent and not candidate.consent:
            ledger.drop("no_consent", about["id"])
        elif any(scores.get(metric, -1.0) < least for metric, least in asked.scores.items()):
            ledger.drop("low_score", about["id"])
        else:
            found.append(candidate)
    return sorted(found, key=lambda each: (each.at or 0.0, each.ids))


def candidate_of(record: Mapping[str, Any]) -> Candidate:
    """One line of an export with `about`. Raises `Unlearnable`."""
    about: Mapping[str, Any] = record["metadata"]
    feedback: Mapping[str, Any] = about.get("feedback") or {}
    correction, thumb = feedback.get("correction"), feedback.get("thumb")
    cut = about["cut"] or about["finish_reason"] in CUT
    given = record["messages"]
    rejected = None
    if correction is not None and correction.strip():
        if given and given[-1].get("role") == "assistant" and isinstance(given[-1].get("content"), str):
            rejected = given[-1]["content"] if given[-1]["content"].strip() and not cut else None
        given = [*given[:-1], {"role": "assistant", "content": correction}]
    elif cut:
        raise Unlearnable("cut")
    messages: tuple[Message, ...] = conversation(given, record.get("tools"))
    return Candidate(
        messages=messages,
        kind=_kind(about, bool(correction and correction.strip()), thumb),
        source=0,
        place=about["id"],
        ids=(about["id"],),
        unit=about["unit"],
        key=about["key"],
        tenant=about["tenant"],
        at=about["at"],
        consent=about["consent"],
        licence="own",
        version=about["version"],
        rejected=rejected,
        thumb=thumb,
    )


def _kind(about: Mapping[str, Any], corrected: bool, thumb: str | None) -> Kind:
    if corrected:
        return Kind.CORRECTED
    if thumb is not None:
        return Kind.LIKED if thumb == "up" else Kind.DISLIKED
    return Kind.IMPORTED if about["imported"] else Kind.OWN


def exported(asked: Wanted, gateway: Gateway) -> Iterator[dict[str, Any]]:
    """The export's lines, decoded as they come. Raises `DatasetError` with the gateway's reason."""
    params = {**asked.params, "all": True, "about": True}
    headers = {"authorization": f"Bearer {gateway.key}"}
    url = f"{gateway.url.rstrip('/')}/admin/v1/traffic/export"
    try:
        with httpx.stream("GET", url, params=params, headers=headers, timeout=600) as answer:
            if not answer.is_success:
                answer.read()
                raise DatasetError(f"the gateway does not export {asked.route}: {reason_of(answer)}")
            for text in answer.iter_lines():
                if text:
                    record = json.loads(text)
                    if "at" not in record["metadata"]:
                        raise DatasetError(
                            "the gateway is older than this trainer: its export says too little"
                        )
                    yield record
    except httpx.HTTPError as error:
        raise DatasetError(f"the gateway at {gateway.url} stopped answering ({error}); ask again") from error


def reason_of(answer: httpx.Response) -> str:
    """The message in OpenAI's error body, or the status."""
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status_code}: {answer.text[:200]}"


def _time(name: str, value: str, now: float) -> float:
    if span := re.fullmatch(r"([0-9]+)([smhdw])", value):
        return now - int(span[1]) * SPANS[span[2]]
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise DatasetError(f"{name} is {value!r}; write 7d, 3h, or 2026-11-24T14:00 (UTC)") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
