"""What the gateway knows of an exchange when it is over, as the journal holds it.

A record is the bytes as they were: what was asked and what was answered are taken apart later, by the
shipper, in a process of its own (`gateway.traffic.answer`). It is a MessagePack array, so new fields go to
the end and have a default. Records are written some at a time, as an array of them: alone, one costs four
times as much to encode.
"""

from __future__ import annotations

import msgspec

FULL, METADATA = 2, 1
"""What a record holds: messages too, or only what is about them."""

IMPORTED = "import/"
"""What `engine` begins with where none of ours answered; the file's name follows. No engine has a slash."""


class Exchanged(msgspec.Struct, array_like=True, tag="exchange", gc=False, frozen=True):
    """One exchange. Times are seconds: `at` since 1970, the others since `at`; None: it did not get so far.

    `request` is the body as the client sent it, `answer` the body as it was passed on, an event stream with
    its framing; of a very long one only the beginning (`gateway.api.exchange.MAX_KEPT`), while `sent_bytes`
    is the length of all of it. `error` is the code of the refusal that was the answer. A `cleaned` record was
    taken apart before it was written (`gateway.traffic.cleaner`): `unit` is final, `request` is empty or
    redacted, and `answer` is what `gateway.traffic.answer` made of it, without its messages or redacted.
    """

    id: str
    at: float
    path: str
    route: str
    version: str
    engine: str
    base: str
    tenant: str
    key: str
    unit: str
    status: int
    outcome: str
    error: str
    ready_s: float
    first_s: float | None
    ended_s: float
    loaded_s: float | None
    streaming: bool
    level: int
    cleaned: bool
    redacted: bool
    consent: str
    sample: float
    keep_days: int
    request: bytes
    answer: bytes
    sent_bytes: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Exchanged]).decode
_decode_one = msgspec.msgpack.Decoder(Exchanged).decode


def encode(*records: Exchanged) -> bytes:
    """A payload of a segment."""
    return _encode(records)


def decode(payload: bytes) -> list[Exchanged]:
    """The records of a payload. Raises `msgspec.MsgspecError` for what holds none of ours."""
    try:
        return _decode(payload)
    except msgspec.ValidationError:
        return [_decode_one(payload)]  # until December 2026 a payload was one record
