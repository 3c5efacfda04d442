"""Each line of a file of rows on its own: can it be read, is it a conversation, is its text whole?"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from training.preflight.findings import Finding, error, warning
from training.recipe import TrainingError
from training.rows import BadRow, Message, Row, numbered, parse

_MAGIC = {
    b"\x1f\x8b": ("gzip", "gunzip it"),
    b"PK\x03\x04": ("a zip archive", "unzip it"),
    b"PAR1": ("Parquet", "write it as JSON lines (hotswap data, or pandas' to_json(lines=True))"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd it"),
    b"\xff\xfe": ("UTF-16", "iconv -f utf-16 -t utf-8"),
    b"\xfe\xff": ("UTF-16", "iconv -f utf-16 -t utf-8"),
    b"%PDF": ("a PDF", "rows are JSON lines: a question and its answer each"),
}
_MOJIBAKE = re.compile("[\u00c3\u00c2][\u0080-\u00bf]|\u00e2\u20ac[\u0090-\u2122]")
"""UTF-8 that was read as Windows-1252 and saved again."""
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Examined:
    """The rows that can be used, and everything that is wrong with the others."""

    file: str
    rows: tuple[Row, ...]
    findings: tuple[Finding, ...]


def examine(file: Path) -> Examined:
    """Every line of `file`. Never raises for what is in it: that is what the findings are for."""
    name = str(file)
    if file.is_dir():
        return Examined(name, (), (error("file", "is a folder", "name the JSONL file in it", name),))
    if trouble := _not_lines(file, name):
        return Examined(name, (), (trouble,))
    rows: list[Row] = []
    found: list[Finding] = []
    try:
        for number, line in numbered(file):
            try:
                row = Row(number, parse(line))
            except BadRow as bad:
                check = "encoding" if bad.what.startswith("is not UTF-8") else "row"
                found.append(error(check, bad.what, bad.fix, name, number))
                continue
            trouble_here = [*_roles(row, name), *_text(row, name)]
            found += trouble_here
            if not any(each.severity == "error" for each in trouble_here):
                rows.append(row)
    except TrainingError as missing:
        found.append(error("file", str(missing), "name a file of JSON lines", name))
    if not rows and not found:
        found.append(
            error(
                "file",
                "holds no rows",
                'write one JSON object a line: {"messages": [{"role": "user", "content": "Q"}, '
                '{"role": "assistant", "content": "A"}]}',
                name,
                1,
            )
        )
    return Examined(name, tuple(rows), tuple(found))


def _not_lines(file: Path, name: str) -> Finding | None:
    """The one thing to say of a file that is no JSON lines at all, instead of one thing a line."""
    try:
        with file.open("rb") as stream:
            head = stream.read(4096)
    except OSError as problem:
        return error("file", f"cannot be read: {problem.strerror or problem}", "name a file of rows", name)
    for magic, (what, fix) in _MAGIC.items():
        if head.startswith(magic):
            check = "encoding" if what == "UTF-16" else "file"
            return error(check, f"is {what}, not JSON lines", fix, name, 1)
    if b"\0" in head:
        return error("encoding", "has NUL bytes: it is UTF-16, or binary", "save it as UTF-8", name, 1)
    first = next((line.strip() for line in head.split(b"\n") if line.strip()), b"")
    if first == b"[" or first.startswith(b"[{"):
        return error(
            "file", "is one JSON array", f"write one object a line: jq -c '.[]' {file.name}", name, 1
        )
    if first == b"{":
        return error(
            "file",
            "has objects over several lines",
            f"write each on one line: jq -c . {file.name}",
            name,
            1,
        )
    if first and not first.startswith((b"{", b"[", b"\xef\xbb\xbf")) and _is_table(head):
        columns = first.decode("utf-8", "replace")[:60]
        return error(
            "file",
            f"is a table (CSV) with the columns {columns}",
            "write each line as an object with 'prompt' and 'completion'",
            name,
            1,
        )
    return None


def _is_table(head: bytes) -> bool:
    lines = head.split(b"\n")[:3]
    return len(lines) > 1 and any(lines[0].count(mark) > 0 for mark in (b",", b"\t", b";"))


def _roles(row: Row, name: str) -> Iterator[Finding]:
    """user and assistant by turns, after at most one system message: what every template renders."""
    turns = [(at, message) for at, message in enumerate(row.messages) if message.role != "system"]
    if turns[0][1].role != "user":
        yield error(
            "roles",
            f"messages[{turns[0][0]}] is the assistant's, before any user's",
            "put the user's message before it",
            name,
            row.line,
        )
    for (_, before), (at, message) in itertools.pairwise(turns):
        if before.role == message.role:
            yield error(
                "roles",
                f"messages[{at}] is the {message.role}'s, right after another of the {message.role}'s",
                "merge the two, or put the turn between them back",
                name,
                row.line,
            )
            return
    if turns[-1][1].role == "user":
        yield warning(
            "roles",
            f"messages[{turns[-1][0]}] is a user's with no answer",
            "cut it off, or add the answer",
            name,
            row.line,
        )


def _text(row: Row, name: str) -> Iterator[Finding]:
    for at, message in enumerate(row.messages):
        where = f"messages[{at}]"
        yield from (
            error("encoding", f"{where} {what}", fix, name, row.line) for what, fix in _broken(message)
        )
        if found := _MOJIBAKE.search(message.content):
            right = _repaired(found[0])
            yield warning(
                "encoding",
                f"{where} has {found[0]!r}, which looks like UTF-8 read as Windows-1252 ({right!r})",
                "read the source as UTF-8 and write the rows again",
                name,
                row.line,
            )


def _broken(message: Message) -> Iterator[tuple[str, str]]:
    if "\ufffd" in message.content:
        yield (
            "has U+FFFD, the mark of a character that was lost",
            "read the source in its own encoding and write the rows again",
        )
    if found := _CONTROL.search(message.content):
        yield f"has the control character U+{ord(found[0]):04X}", "remove it"
    if _SURROGATE.search(message.content):
        yield "has half a surrogate pair (\\ud83d alone)", "write the whole character, or remove it"


def _repaired(text: str) -> str:
    try:
        return text.encode("cp1252").decode("utf-8")
    except UnicodeError:
        return "?"
