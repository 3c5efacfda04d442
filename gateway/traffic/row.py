"""From a record of the journal to a row of the lake.

A row is flat, and every text that was sent or answered is in it as JSON, in OpenAI's shape. Nothing is left
out: what a request had beside messages and tools is in `parameters`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

import msgspec

from gateway.traffic import answer
from gateway.traffic.answer import Answer
from gateway.traffic.record import IMPORTED, METADATA, Exchanged, decode
from gateway.traffic.segment import Damage, payloads
from gateway.traffic.unit import unit_of

_json = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_answer = msgspec.json.Decoder(Answer).decode

PROMPTS = ("messages", "input", "prompt")
"""What a request says to the model, by the name that its endpoint gives it."""


JSON_COLUMNS = ("messages", "tools", "parameters", "metadata", "response")
"""Columns of a row that hold what was said, as JSON."""


class Row(TypedDict):
    """One exchange in the lake. `day` (UTC, as 2026-11-24), `route` and `keep_days` are its partition.

    `messages`, `tools`, `parameters`, `metadata` and `response` are JSON; the last is a list of assistant
    messages, one a choice. `error` is a code: of the refusal, of an event in the stream, or `engine_lost` or
    `client_left` of an answer that is not whole. Times are milliseconds from the request's head. `completion`
    of an answer without usage is the number of its deltas, and `counted` false then. `engine` of an exchange
    that none of ours answered is `import/` and the name of the file that it came with.
    """

    id: str
    at: int  # microseconds since 1970
    day: str
    route: str
    keep_days: int
    version: str
    engine: str
    base: str
    tenant: str
    key: str
    unit: str
    path: str
    status: int
    outcome: str
    error: str
    finish_reason: str
    streaming: bool
    prompt: int | None
    completion: int | None
    cached: int | None
    counted: bool
    ttft_ms: float | None
    duration_ms: float
    load_ms: float | None
    full: bool
    redacted: bool
    cut: bool
    consent: str
    sample: float
    messages: str | None
    tools: str | None
    parameters: str | None
    metadata: str | None
    response: str | None


def row_of(record: Exchanged) -> Row:
    """Never raises: of a request or an answer that cannot be read, what is known beside it is kept."""
    request = request_of(record)
    said = answer_of(record)
    usage = said.usage
    counted = usage.completion is not None
    reasons = [reason for reason in said.finish_reasons if reason]
    at = datetime.fromtimestamp(record.at, UTC)
    prompt = next((name for name in PROMPTS if name in request), None)
    rest = {name: value for name, value in request.items() if name not in (prompt, "tools", "metadata")}
    known = record.level != METADATA and bool(request)
    return Row(
        id=record.id,
        at=round(record.at * 1e6),
        day=at.date().isoformat(),
        route=record.route,
        keep_days=record.keep_days,
        version=record.version,
        engine=record.engine,
        base=record.base,
        tenant=record.tenant,
        key=record.key,
        unit=record.unit if record.cleaned else unit_of(record.unit, request),
        path=record.path,
        status=record.status,
        outcome=record.outcome,
        error=_error(record, said),
        finish_reason=reasons[0] if reasons else "",
        streaming=record.streaming,
        prompt=usage.prompt,
        completion=usage.completion if counted else (said.deltas or None),
        cached=usage.cached,
        counted=counted,
        ttft_ms=None if record.first_s is None else record.first_s * 1e3,
        duration_ms=record.ended_s * 1e3,
        load_ms=None if record.loaded_s is None else record.loaded_s * 1e3,
        full=record.level != METADATA,
        redacted=record.redacted,
        cut=not record.cleaned and 0 < len(record.answer) < record.sent_bytes,
        consent=record.consent,
        sample=record.sample,
        messages=_text(request.get(prompt)) if prompt else None,
        tools=_text(request["tools"]) if "tools" in request else None,
        parameters=_text(rest) if known else None,
        metadata=_text(request["metadata"]) if "metadata" in request else None,
        response=_text(said.messages) if said.messages else None,
    )


def imported(row: Row) -> bool:
    """Whether it was brought from elsewhere: we have not served it, and it cost us nothing."""
    return row["engine"].startswith(IMPORTED)


def rows_in(path: Path, damage: Damage) -> Iterator[Row]:
    """The rows of a segment's whole payloads; those that hold no records of ours are counted in `damage`.
    Raises `NotASegment`, `OSError`.
    """
    for payload in payloads(path, damage):
        try:
            found = decode(payload)
        except msgspec.MsgspecError:
            damage.frames += 1
        else:
            yield from map(row_of, found)


def request_of(record: Exchanged) -> dict[str, Any]:
    """The body that was sent, decoded; {} where none was kept or it is no JSON object."""
    try:
        request = _decode(record.request) if record.request else {}
    except (msgspec.DecodeError, RecursionError):
        return {}
    return request if isinstance(request, dict) else {}


def answer_of(record: Exchanged) -> Answer:
    """What was answered. Of a cleaned record the answer was taken apart before it was written."""
    if record.cleaned:
        return _answer(record.answer) if record.answer else Answer()
    if record.error:  # what was sent instead of an answer is no model's words
        return Answer()
    return answer.read(record.path, record.answer, streaming=record.streaming)


def cleaned_answer(said: Answer) -> bytes:
    """What stands in a cleaned record for the answer's own bytes."""
    return _json(said)


def _error(record: Exchanged, said: Answer) -> str:
    if record.error or said.error:
        return record.error or said.error or ""
    return record.outcome if record.outcome != "complete" else ""


def _text(value: Mapping[str, Any] | Any) -> str:
    return _json(value).decode()
