"""What takes a piece of a file apart: `python -m gateway.traffic.importing`, a process for each piece.

In a process of its own because it decodes, redacts and hashes; nothing of that may stand in the way of a
request. Standard input is a line of JSON, the job, and then the piece; standard output is what was made of
it. Nothing touches a disk here, and what comes out is cleaned already where the policy says so.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Literal

import msgspec

from gateway.supervise.background import step_back
from gateway.traffic.answer import CHAT
from gateway.traffic.cleaner import cleaned
from gateway.traffic.foreign import Foreign, Unusable, read
from gateway.traffic.record import FULL, IMPORTED, METADATA, Exchanged, encode
from gateway.traffic.redact import redact

AHEAD_S = 86_400.0
"""A clock may be so far ahead of ours."""

_json = msgspec.json.Encoder().encode
_sorted = msgspec.json.Encoder(order="sorted").encode


class Job(msgspec.Struct, frozen=True):
    """Where the exchanges go, and on what terms. `source` is the file's name, `now` is in seconds since 1970.
    `salt` keys the hashes, so that nobody can try texts out on what they leave behind."""

    route: str
    tenant: str
    source: str
    unit_field: str
    capture: Literal["metadata", "full"]
    redact: Literal["off", "strict"]
    keep_days: int
    consent: str
    salt: bytes
    now: float


class Item(msgspec.Struct, array_like=True, frozen=True):
    """One exchange: a record of the journal. `key` is the same whenever it is imported, `gone` (2026-11-24)
    the last day on which it is kept. `ours` is its request id at the Hotswap that exported it."""

    key: str
    gone: str
    ours: str
    payload: bytes


class Refused(msgspec.Struct, frozen=True):
    """`line` counts from 1 in its piece."""

    line: int
    reason: str


class Prepared(msgspec.Struct, array_like=True):
    items: list[Item]
    refused: list[Refused]


def prepare(job: Job, piece: bytes) -> Prepared:
    """What can be imported of the lines of `piece`, and why the others cannot. Empty lines are none."""
    made = Prepared([], [])
    for number, line in _lines(piece):
        try:
            made.items.append(_item(job, read(line, job.unit_field)))
        except Unusable as error:
            made.refused.append(Refused(number, str(error)))
    return made


def _lines(piece: bytes) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(piece.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if line.strip():
            yield number, line


def _item(job: Job, found: Foreign) -> Item:
    """Raises `Unusable`."""
    at = job.now if found.created is None else found.created
    gone = _gone(job, at)
    key = blake2b(_sorted(_same_for_ever(job, found)), digest_size=16, key=job.salt).hexdigest()
    strict = job.redact == "strict"
    request = {**found.request, "imported": {"id": found.id}} if found.id else found.request
    body = _json(found.answer)
    record = Exchanged(
        id=_id(at, key),
        at=at,
        path=CHAT,
        route=job.route,
        version=redact(found.model)[0] if strict else found.model,
        engine=IMPORTED + (redact(job.source)[0] if strict else job.source),
        base="",
        tenant=job.tenant,
        key="",
        unit=found.unit,
        status=200,
        outcome="complete",
        error="",
        ready_s=0.0,
        first_s=None,
        ended_s=0.0,
        loaded_s=None,
        streaming=False,
        level=FULL if job.capture == "full" else METADATA,
        cleaned=False,
        redacted=strict,
        consent=job.consent,
        sample=1.0,
        keep_days=job.keep_days,
        request=_json(request),
        answer=body,
        sent_bytes=len(body),
    )
    if strict or job.capture != "full":
        record = cleaned(record, job.salt)
    return Item(key, gone, found.ours, encode(record))


def _same_for_ever(job: Job, found: Foreign) -> list[object]:
    """What makes an exchange this one and no other, whichever file it is in."""
    messages = [choice["message"] for choice in found.answer["choices"]]
    asked = [found.request["messages"], found.request.get("tools")]
    return [job.route, job.tenant, found.id, found.created, asked, messages]


def _gone(job: Job, at: float) -> str:
    """Raises `Unusable` for an exchange whose time is over, or has not come."""
    day, today = (datetime.fromtimestamp(each, UTC).date() for each in (at, job.now))
    if at > job.now + AHEAD_S:
        raise Unusable(f"is of {day}, which is to come; write in `created` when it was")
    gone = day + timedelta(days=job.keep_days)
    if gone < today:
        raise Unusable(
            f"is of {day}, and {job.route!r} keeps exchanges for {job.keep_days} days; leave it out, or "
            f"keep them longer: hotswap traffic policy set --route {job.route} --retention-days DAYS"
        )
    return gone.isoformat()


def _id(at: float, key: str) -> str:
    """A request id (`gateway.requestid`) with `key` for its random digits."""
    return f"{int(at * 1000):012x}7{key[:3]}8{key[3:18]}"


def main() -> None:
    step_back()  # requests come first
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    sys.stdout.buffer.write(msgspec.msgpack.encode(prepare(job, sys.stdin.buffer.read())))


if __name__ == "__main__":
    main()
