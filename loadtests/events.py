"""Server-sent events out of bytes: the `data` of each, in the turn in which its last byte came.

The parts of the format that OpenAI's API and its imitators use (WHATWG HTML, 9.2.6): lines end in LF, CRLF or
CR, an empty line ends an event, lines that begin with a colon are comments, several `data` lines are one
value with LF between them. Other fields are read over.
"""

from __future__ import annotations

from collections.abc import Iterator


class Events:
    """Feed it the pieces of a stream as they arrive; a piece may end anywhere.

    `overrun` is True once an event is longer than `largest` bytes.
    """

    __slots__ = ("_held", "_largest", "_searched", "_waiting", "overrun")

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._waiting = bytearray()  # the start of an event, with LF line ends
        self._searched = 0  # its bytes before this hold no end of an event
        self._held = False  # a CR was the last byte, and an LF may follow
        self.overrun = False

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The data of each event that `piece` completed. Events without data are none."""
        if self._held or b"\r" in piece:
            piece = self._unix(piece)
        if not self._waiting and piece.endswith(b"\n\n"):
            blocks = piece.split(b"\n\n")  # the usual case: whole events
        else:
            self._waiting += piece
            blocks = self._cut()
        for block in blocks:
            data = _data(block)
            if data is not None:
                yield data

    def rest(self) -> bytes | None:
        """What is left when the body is complete: the data of an event that lacks its empty line."""
        block = bytes(self._waiting).strip()
        self._waiting.clear()
        return _data(block)

    def _cut(self) -> list[bytes]:
        end = self._waiting.rfind(b"\n\n", max(0, self._searched - 1))
        if end < 0:
            self._searched = len(self._waiting)
            self.overrun = self._searched > self._largest
            return []
        blocks = bytes(self._waiting[:end]).split(b"\n\n")
        del self._waiting[: end + 2]
        self._searched = len(self._waiting)
        return blocks

    def _unix(self, piece: bytes) -> bytes:
        """LF line ends. A CR at the end is an LF at once; the LF that may still follow it is then none."""
        if self._held and piece.startswith(b"\n"):
            piece = piece[1:]
            self._held = False
        if piece:
            self._held = piece.endswith(b"\r")
        return piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _data(block: bytes) -> bytes | None:
    """The data of one event without its empty line, or None where it has none. Bare JSON is taken for data:
    so some servers send an error when the stream has begun.
    """
    if block.startswith(b"data: ") and b"\n" not in block:
        return block[6:]
    values = [value for line in block.split(b"\n") if (value := _value(line)) is not None]
    if not values:
        return block if block.startswith(b"{") else None
    return b"\n".join(values)


def _value(line: bytes) -> bytes | None:
    if line.startswith(b"data: "):
        return line[6:]
    if line.startswith(b"data:"):
        return line[5:]
    return b"" if line == b"data" else None
