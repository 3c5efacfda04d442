"""`hotswap traffic import`: what others have remembered, over the admin API, piece by piece.

A file is read as it is sent, so memory does not grow with it. Sent again, it adds nothing, so after a kill,
on either side, the same command completes it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import click

from gateway.cli.client import NO_GATEWAY, Gateway, as_json_option, fail, find, message_of, say, show

PIECE_BYTES, PIECE_LINES = 4 * 1024 * 1024, 4_000
MAX_LINE_BYTES = 8 * 1024 * 1024
"""What /v1 takes of a request by default."""
PATIENCE_S = 600.0
"""How long one piece is tried again while the gateway says that it cannot take it now."""
TELL_EVERY_S = 10.0
"""Progress, where it is not a terminal."""


@dataclass(slots=True)
class Counts:
    """Of lines; empty ones are none."""

    imported: int = 0
    already_there: int = 0
    refused: int = 0

    def __str__(self) -> str:
        return f"{self.imported:,} imported, {self.already_there:,} already there, {self.refused:,} refused"


@click.command(name="import")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(allow_dash=True))
@click.option(
    "--route", required=True, help="Whose traffic it becomes; no adapter of that name is needed yet."
)
@click.option("--consent", help="On what basis, for the record; default: what the route's policy says.")
@click.option("--unit-field", help="Where a line says whom it was for, as metadata.customer.")
@click.option("--tenant", default="default", show_default=True, help="Whose; its keys may give feedback.")
@click.option("--requests", type=click.File("rb"), help="The input file of OpenAI batches.")
@click.option("--skip-bad", is_flag=True, help="Succeed although lines were refused.")
@click.option("--dry-run", is_flag=True, help="Say what would be imported, and stop.")
@as_json_option
def import_(
    files: Sequence[str],
    requests: BinaryIO | None,
    skip_bad: bool,
    dry_run: bool,
    as_json: bool,
    **to: str | None,
) -> None:
    """Import exchanges from JSON Lines: OpenAI's stored completions, its fine-tuning format, batch output,
    {request, response}, or an export of ours. `-` is standard input.

    Each is imported once, however often it is sent. Ends with 1 when lines were refused.
    """
    for name in files:
        if name != "-" and not Path(name).is_file():
            fail(f"{name} is no file; name JSON Lines", code=2)
    sender = Sender(find(), {name: value for name, value in to.items() if value} | {"dry_run": dry_run})
    asked = None if requests is None else Requests(requests)
    for name in files:
        sender.send(name, asked)
    total = sender.counts
    show(asdict(total), as_json, lambda _: iter([f"{total}" + (" (dry run)" if dry_run else "")]))
    if total.refused:
        say("what was refused is told above, line by line; mend it and import again: the rest is there")
    elif not dry_run:
        say(f"next: hotswap traffic ls --route {to['route']}")
    sys.exit(1 if total.refused and not skip_bad else 0)


class Sender:
    """Sends files, tells how far it is, and counts."""

    def __init__(self, gateway: Gateway, params: dict[str, Any]) -> None:
        import httpx

        self.counts = Counts()
        self._url = f"{gateway.url}/admin/v1/traffic/import"
        self._params = params
        self._client = httpx.Client(headers={"authorization": f"Bearer {gateway.key}"}, timeout=600)
        self._told = time.monotonic()

    def send(self, name: str, asked: Requests | None) -> None:
        """One file. A refusal of a whole piece ends the command."""
        source = "stdin" if name == "-" else Path(name).name
        size = 0 if name == "-" else Path(name).stat().st_size
        done = 0
        with ExitStack() as stack:
            file = sys.stdin.buffer if name == "-" else stack.enter_context(Path(name).open("rb"))
            for piece in pieces(file):
                for line in piece.too_long:
                    self._refuse(name, line, f"has more than {MAX_LINE_BYTES:,} bytes; leave it out")
                lines = piece.lines if asked is None else [asked.beside(line) for line in piece.lines]
                if any(line.strip() for line in lines):
                    self._piece(name, source, piece.first, lines)
                done += piece.read
                self._tell(source, done / size if size else None)
        if sys.stderr.isatty():
            click.echo(err=True)

    def _piece(self, name: str, source: str, first: int, lines: Sequence[bytes]) -> None:
        answer = self._ask(f"{name}:{first}", source, b"\n".join(lines))
        self.counts.imported += answer["imported"]
        self.counts.already_there += answer["already_there"]
        for refused in answer["refused"]:
            self._refuse(name, first + refused["line"] - 1, refused["reason"])

    def _refuse(self, name: str, line: int, reason: str) -> None:
        self.counts.refused += 1
        say(f"{name}:{line} {reason}")

    def _ask(self, where: str, source: str, content: bytes) -> Any:
        import httpx

        until = time.monotonic() + PATIENCE_S
        again = "Run it again: what is there already is not imported twice"
        while True:
            try:
                answer = self._client.post(
                    self._url, params={**self._params, "source": source}, content=content
                )
            except httpx.TransportError as error:
                fail(
                    f"the gateway stopped answering at {where} ({error}); so far {self.counts}. {again}",
                    NO_GATEWAY,
                )
            if answer.is_success:
                return answer.json()
            message = message_of(answer.text, answer.status_code)
            if answer.status_code != 503 or time.monotonic() > until:
                fail(f"{where}: {message}; so far {self.counts}. {again}")
            say(f"{where}: waiting, {message}")
            time.sleep(float(answer.headers.get("retry-after", "5")))

    def _tell(self, source: str, share: float | None) -> None:
        far = "" if share is None else f" ({min(share, 1):.0%})"
        if sys.stderr.isatty():
            click.echo(f"\r{source}{far}: {self.counts}", nl=False, err=True)
        elif time.monotonic() > self._told + TELL_EVERY_S:
            self._told = time.monotonic()
            say(f"{source}{far}: {self.counts}")


@dataclass(slots=True)
class Piece:
    """Some lines of a file, the first of which is its line `first`; `read` bytes of it were read for that. In
    the place of one that is too long stands an empty one."""

    first: int
    lines: list[bytes]
    too_long: list[int]
    read: int = 0


def pieces(file: BinaryIO) -> Iterator[Piece]:
    """The whole file, one piece in memory at a time."""
    number, piece = 0, Piece(1, [], [])
    size = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        piece.read += len(line)
        if len(line) > MAX_LINE_BYTES:
            while not line.endswith(b"\n") and (line := file.readline(MAX_LINE_BYTES)):
                piece.read += len(line)
            piece.too_long.append(number)
            line = b""
        piece.lines.append(line.rstrip(b"\r\n"))
        size += len(line)
        if size >= PIECE_BYTES or len(piece.lines) >= PIECE_LINES:
            yield piece
            piece, size = Piece(number + 1, [], []), 0
    if piece.lines:
        yield piece


class Requests:
    """What was asked in a batch, by `custom_id`: its output says only what was answered. Keeps where a
    request stands in the file, not the request. Ends the command where a line is no request of a batch."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._at: dict[str, int] = {}
        at = 0
        for number, line in enumerate(file, 1):
            if line.strip():
                id = _custom_id(line)
                where = f"{file.name}:{number}"
                if id is None:
                    fail(f"{where} is no chat request of a batch: {{custom_id, method, url, body}}")
                if id in self._at:
                    fail(f"{where} has the custom_id {id!r} again; name the input of one batch alone")
                self._at[id] = at
            at += len(line)

    def beside(self, line: bytes) -> bytes:
        """The line with its request; as it was, where it has one or nobody knows it."""
        try:
            answered = json.loads(line)
            at = self._at[answered["custom_id"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            return line
        if answered.get("request") is not None:
            return line
        self._file.seek(at)
        return json.dumps({**answered, "request": json.loads(self._file.readline())}).encode()


def _custom_id(line: bytes) -> str | None:
    """Of a line of a batch's input; None for any other."""
    try:
        request = json.loads(line)
        asked, id = request["body"]["messages"], request["custom_id"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return id if isinstance(asked, list) and isinstance(id, str) else None
