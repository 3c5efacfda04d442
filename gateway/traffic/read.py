"""The reader's own process: `python -m gateway.traffic.read`, asked and answered over its standard streams.

A question is a line of JSON. What comes back is frames: kind (1 byte), length (u32), payload. DATA has a
piece of the answer, DONE none, and REFUSED the text and the parameter of a refusal. It ends when nobody asks
any more, which is when its standard input is closed: so also when the gateway was killed.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from gateway.errors import BadRequest, GatewayError, NotFound
from gateway.traffic.query import Forgotten, Wanted
from gateway.traffic.row import JSON_COLUMNS

DATA, DONE, REFUSED = b"=", b".", b"!"
FRAME = struct.Struct("<cI")
PATIENCE = {"retry_timeout": "20s"}
"""With a store that does not answer: somebody waits. deltalake's own is three minutes."""
OPERATIONS = ("page", "show", "stored", "stats", "export", "examples")


class Question(msgspec.Struct, frozen=True):
    """One of OPERATIONS, over a lake (`options` are deltalake's) and the journal beside it. `examined`: a
    second tier of redaction stands between the two."""

    operation: str
    wanted: Wanted
    lake: str
    journal: str
    options: dict[str, str] = {}
    forgotten: tuple[Forgotten, ...] = ()
    examined: bool = False


class Refusal(msgspec.Struct, frozen=True):
    status: int
    message: str
    code: str | None = None
    param: str | None = None


def main() -> None:
    serve(sys.stdin.buffer, sys.stdout.buffer)


def serve(questions: BinaryIO, answers: BinaryIO) -> None:
    """Answers until `questions` ends."""
    from deltalake.exceptions import DeltaError

    from gateway.traffic.lake import reason_of

    def frame(kind: bytes, payload: bytes = b"") -> None:
        answers.write(FRAME.pack(kind, len(payload)) + payload)

    for line in questions:
        try:
            for piece in answer(msgspec.json.decode(line, type=Question)):
                frame(DATA, piece)
            frame(DONE)
        except GatewayError as error:
            refusal = Refusal(error.status, error.message, error.code, error.param)
            frame(REFUSED, msgspec.json.encode(refusal))
        except (DeltaError, OSError) as error:
            said = f"the lake cannot be read now: {reason_of(error)}"
            frame(REFUSED, msgspec.json.encode(Refusal(503, said, "lake_unavailable")))
        answers.flush()


def answer(question: Question) -> Iterator[bytes]:
    """The answer in pieces; JSON, or JSON Lines for an export."""
    from gateway.traffic.lake import COLUMNS, Lake
    from gateway.traffic.reader import Reader

    patience = PATIENCE if "://" in question.lake else {}
    lake = Lake(question.lake, {**patience, **question.options})
    reader = Reader(lake, Path(question.journal), question.forgotten, examined=question.examined)
    wanted = question.wanted
    wanted.check()
    if question.operation == "page":
        yield msgspec.json.encode(reader.page(wanted))
    elif question.operation == "stats":
        yield msgspec.json.encode({"data": reader.stats(wanted)})
    elif question.operation == "export":
        yield from reader.export(wanted)
    elif question.operation == "examples":
        yield from reader.export(wanted, about=True)
    elif question.operation == "show":
        found = next(reader.rows(wanted, tuple(COLUMNS)), None)
        if found is None:
            raise NotFound(
                f"No exchange {(wanted.id or '')[:64]!r} is remembered.",
                code="exchange_not_found",
                param="id",
            )
        yield msgspec.json.encode(_with_json(found))
    elif question.operation == "stored":
        page = reader.stored(wanted)
        yield msgspec.json.encode({**page, "data": [_with_json(row) for row in page["data"]]})
    else:
        raise BadRequest(f"unknown operation {question.operation!r}", param="operation")


def _with_json(row: dict[str, Any]) -> dict[str, Any]:
    """The row, with what is JSON in it as such."""
    for name in JSON_COLUMNS:
        if row.get(name) is not None:
            row[name] = msgspec.Raw(row[name].encode())
    return row


if __name__ == "__main__":
    main()
