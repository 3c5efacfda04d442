"""Reading what is to be imported: piece by piece, whatever the file's size."""

from __future__ import annotations

import io
import json
from typing import Any, BinaryIO, cast

import pytest

from gateway.cli import traffic_import
from gateway.cli.traffic_import import MAX_LINE_BYTES, PIECE_BYTES, PIECE_LINES, Requests, pieces


class Endless:
    """A file of `lines` equal lines, none of which is kept."""

    def __init__(self, lines: int, size: int) -> None:
        self._left = lines
        self._line = b"x" * (size - 1) + b"\n"

    def readline(self, limit: int) -> bytes:
        self._left -= 1
        return self._line[:limit] if self._left >= 0 else b""


def read(content: bytes) -> list[tuple[int, list[bytes], list[int]]]:
    return [(piece.first, piece.lines, piece.too_long) for piece in pieces(io.BytesIO(content))]


def test_lines_are_numbered_through_all_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic_import, "PIECE_LINES", 2)
    assert read(b"a\r\n\nb\nc\nd") == [(1, [b"a", b""], []), (3, [b"b", b"c"], []), (5, [b"d"], [])]


def test_a_line_that_is_too_long_is_left_out_and_the_next_is_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(traffic_import, "MAX_LINE_BYTES", 4)
    assert read(b"abcd\nabc\n" + b"x" * 23 + b"\ny\n" + b"z" * 9) == [
        (1, [b"", b"abc", b"", b"y", b""], [1, 3, 5])
    ]


@pytest.mark.parametrize(("lines", "size"), [(100_000, 40), (200, 100_000), (20, MAX_LINE_BYTES)])
def test_a_piece_is_bounded_by_lines_and_by_bytes(lines: int, size: int) -> None:
    seen = 0
    for piece in pieces(cast(BinaryIO, Endless(lines, size))):
        seen += len(piece.lines)
        assert len(piece.lines) <= PIECE_LINES
        assert sum(map(len, piece.lines)) < PIECE_BYTES + MAX_LINE_BYTES
    assert seen == lines


class Named(io.BytesIO):
    name = "input.jsonl"


def batch(*rows: Any) -> Named:
    return Named("\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode())


def asked(id: str, question: str) -> dict[str, Any]:
    body = {"model": "m", "messages": [{"role": "user", "content": question}]}
    return {"custom_id": id, "method": "POST", "url": "/v1/chat/completions", "body": body}


def test_an_answer_of_a_batch_finds_its_request() -> None:
    file = batch(asked("a", "ä?"), asked("b", "why?"))
    requests = Requests(file)
    for id, question in (("b", "why?"), ("a", "ä?")):
        joined = json.loads(requests.beside(json.dumps({"custom_id": id, "response": {}}).encode()))
        assert joined == {"custom_id": id, "response": {}, "request": asked(id, question)}


@pytest.mark.parametrize("line", [b"x", b"[]", b'{"custom_id":"other"}', b'{"custom_id":"a","request":{}}'])
def test_a_line_without_a_request_of_the_batch_stays_as_it_was(line: bytes) -> None:
    assert Requests(batch(asked("a", "?"))).beside(line) == line


@pytest.mark.parametrize(
    ("second", "says"), [({"custom_id": "b"}, "is no chat request"), (asked("a", "!"), "custom_id 'a' again")]
)
def test_a_file_that_is_no_batchs_input_is_refused(
    capsys: pytest.CaptureFixture[str], second: Any, says: str
) -> None:
    with pytest.raises(SystemExit):
        Requests(batch(asked("a", "?"), second))
    told = capsys.readouterr().err
    assert "input.jsonl:2 " in told and says in told
