"""Training rows, one JSON object a line.

- `{"messages": [{"role": "system"|"user"|"assistant", "content": "..."}, ...]}`: OpenAI's chat fine-tuning
  format. Every assistant message is learned, except one with `"weight": 0`.
- `{"prompt": "...", "completion": "..."}`: one user message and its answer.
"""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from training.recipe import TrainingError

Parsed = TypeVar("Parsed")
ROLES = ("system", "user", "assistant")
SHOWN = 10
"""Bad rows that are listed; the rest are counted."""


class BadRow(ValueError):
    """A line is no training row: what it is or has, and how it becomes one."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(f"{what}; {fix}")
        self.what = what
        self.fix = fix


class BadRows(TrainingError):
    """Some lines of the file are no training rows. `reasons` maps line numbers, from 1, to what is wrong."""

    def __init__(self, source: str, reasons: dict[int, str]) -> None:
        listed = [f"  line {line}: {reason}" for line, reason in list(reasons.items())[:SHOWN]]
        if len(reasons) > SHOWN:
            listed.append(f"  and {len(reasons) - SHOWN} more")
        super().__init__(f"{source}: {len(reasons)} bad rows\n" + "\n".join(listed))
        self.source = source
        self.reasons = reasons


@dataclass(frozen=True, slots=True)
class Message:
    """`learn` is true for an answer that the adapter shall give."""

    role: str
    content: str
    learn: bool = False

    def as_dict(self) -> dict[str, str]:
        """As chat templates take it."""
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True, slots=True)
class Row:
    """One conversation; `line` is where it stood, from 1."""

    line: int
    messages: tuple[Message, ...]


def chat(user: str, assistant: str, system: str | None = None) -> dict[str, Any]:
    """One row in the file's format."""
    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return {"messages": messages}


def write_rows(file: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write rows as JSON lines; how many."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    file.write_text("".join(lines), encoding="utf-8")
    return len(lines)


def read_rows(file: Path) -> tuple[Row, ...]:
    """Every row of the file; blank lines are passed over.

    Raises `BadRows` naming each bad line with its reason, `TrainingError` when the file is missing or empty.
    """
    return parsed(file, lambda number, line: Row(number, parse(line)), json.dumps(chat("Q", "A")))


def parsed(file: Path, parse: Callable[[int, bytes], Parsed], example: str) -> tuple[Parsed, ...]:
    """Every line of the file as `parse` makes it of its number and bytes, or refuses with `BadRow`.

    Blank lines are passed over. Raises as `read_rows`; `example` is a line as it should be.
    """
    rows: list[Parsed] = []
    reasons: dict[int, str] = {}
    for number, line in numbered(file):
        try:
            rows.append(parse(number, line))
        except BadRow as bad:
            reasons[number] = str(bad)
    if reasons:
        raise BadRows(str(file), reasons)
    if not rows:
        raise TrainingError(f"{file} holds no rows; write one JSON object a line, e.g. {example}")
    return tuple(rows)


def numbered(file: Path) -> Iterator[tuple[int, bytes]]:
    """Each line that is not blank, with its number from 1. Raises `TrainingError` when it cannot be read."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise TrainingError(f"cannot read rows from {file}: {error.strerror or error}") from error
    for number, line in enumerate(content.removeprefix(codecs.BOM_UTF8).split(b"\n"), start=1):
        if line.strip():
            yield number, line


def parse(line: bytes) -> tuple[Message, ...]:
    """The conversation that one line holds. Raises `BadRow`."""
    return messages_of(value(line))


def value(line: bytes) -> Any:
    """The JSON of one line. Raises `BadRow`."""
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        byte = line[error.start]
        raise BadRow(
            f"is not UTF-8: byte 0x{byte:02x} at column {error.start + 1}"
            f" ({bytes([byte]).decode('cp1252', 'replace')!r} in Windows-1252)",
            "save the file as UTF-8, e.g. iconv -f windows-1252 -t utf-8",
        ) from error
    except json.JSONDecodeError as error:
        raise BadRow(
            f"is not JSON: {error.msg} at column {error.colno}",
            f"write one JSON object a line, e.g. {json.dumps(chat('Q', 'A'))}",
        ) from error
    except RecursionError as error:
        raise BadRow("is nested too deeply to be read", "a row is an object with 'messages'") from error


def digest(file: Path) -> str:
    """sha256 of the file, 64 hex digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def messages_of(row: Any) -> tuple[Message, ...]:
    """The conversation that a decoded line holds. Raises `BadRow`."""
    if not isinstance(row, dict):
        raise BadRow(
            f"is {_kind(row)}, not an object with 'messages', or 'prompt' and 'completion'",
            f"write it as {json.dumps(chat('Q', 'A'))}",
        )
    if "messages" in row:
        only(row, {"messages"}, "the row")
        messages = conversation(row["messages"])
        if not any(message.learn for message in messages):
            raise BadRow(
                "has no assistant message to learn from",
                "add the answer that it shall give, or drop the row",
            )
        return messages
    if "prompt" in row or "completion" in row:
        only(row, {"prompt", "completion"}, "the row")
        for key in ("prompt", "completion"):
            if not isinstance(row.get(key), str) or not row[key].strip():
                raise BadRow(
                    f"{key!r} is {_kind(row.get(key))}", "it must be text; fill it in, or drop the row"
                )
        return Message("user", row["prompt"]), Message("assistant", row["completion"], learn=True)
    raise BadRow(
        f"has {sorted(map(str, row))}", "a row has 'messages', or 'prompt' and 'completion': rename its keys"
    )


def conversation(messages: Any) -> tuple[Message, ...]:
    """A list of messages, each as it must be. Raises `BadRow`."""
    if not isinstance(messages, list) or not messages:
        raise BadRow(f"'messages' is {_kind(messages)}", "it must be a list of messages")
    return tuple(_message(index, message) for index, message in enumerate(messages))


def _message(index: int, message: Any) -> Message:
    where = f"messages[{index}]"
    if not isinstance(message, dict):
        raise BadRow(f"{where} is {_kind(message)}", "it must be an object with 'role' and 'content'")
    only(message, {"role", "content", "weight"}, where)
    role, content, weight = message.get("role"), message.get("content"), message.get("weight", 1)
    if role not in ROLES:
        raise BadRow(f"{where} has role {role!r}", f"known are {', '.join(ROLES)}")
    if role == "system" and index:
        raise BadRow(f"{where} is a system message", "only the first message may be one: move it there")
    if not isinstance(content, str) or (role != "system" and not content.strip()):
        raise BadRow(f"{where} has content {_kind(content)}", "it must be text; fill it in, or drop the row")
    if weight not in (0, 1) or ("weight" in message and role != "assistant"):
        raise BadRow(f"{where} has weight {weight!r}", "an assistant message may have 0 or 1, others none")
    return Message(role, content, learn=role == "assistant" and weight == 1)


def only(found: dict[str, Any], known: set[str], where: str) -> None:
    """Raises `BadRow` with the keys that are not known."""
    if strange := sorted(set(found) - known):
        raise BadRow(
            f"{where} has {', '.join(map(repr, strange))}, which this trainer cannot learn from",
            "leave it out; what matters of it goes into a message's content",
        )


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "blank text" if not value.strip() else f"text {value[:20]!r}"
    if value is None:
        return "missing"
    names = {list: "a list", dict: "an object", bool: "true or false"}
    if isinstance(value, list) and not value:
        return "an empty list"
    return names.get(type(value), f"the value {value!r}")
