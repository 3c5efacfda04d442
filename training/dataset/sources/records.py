"""One record of a table or a file, whatever it came in, to a candidate."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

from training.dataset.candidate import Candidate, Kind
from training.dataset.plan import Source
from training.rows import Message, messages_of

GUESSES = {
    "prompt": ("prompt", "question", "instruction", "input", "query", "text"),
    "completion": ("completion", "answer", "response", "output", "label_text"),
    "system": ("system",),
    "unit": ("unit", "user", "user_id", "customer"),
    "at": ("at", "created", "created_at", "timestamp"),
}
"""Columns that are taken for what they are called, where the plan names none; the first that is there."""


@dataclass(frozen=True, slots=True)
class Records:
    """How the records of one source are read. `number` is the source's place in the plan."""

    source: Source
    number: int
    licence: str

    def candidate(self, record: Any, place: str) -> Candidate:
        """Raises `ValueError` with what is wrong and how to mend it."""
        if not isinstance(record, Mapping):
            raise ValueError("is no object; a row has 'messages', or 'prompt' and 'completion'")
        messages = self._messages(record)
        if messages[-1].role != "assistant" or not messages[-1].learn:
            raise ValueError("does not end with an answer to learn; cut it after the last one")
        return Candidate(
            messages=messages,
            kind=Kind.FILE,
            source=self.number,
            place=place,
            unit=pseudonym(self._named(record, "unit")),
            at=moment(self._named(record, "at")),
            consent=self.source.consent,
            licence=self.licence,
        )

    def _messages(self, record: Mapping[str, Any]) -> tuple[Message, ...]:
        column = self.source.columns.get("messages", "messages")
        if record.get(column) is not None:
            return messages_of({"messages": _cleaned(_decoded(record[column]))})
        asked, answered = self._named(record, "prompt"), self._named(record, "completion")
        if asked is None or answered is None:
            missing = "prompt" if asked is None else "completion"
            raise ValueError(
                f"has no {missing!r} among {sorted(map(str, record))}; "
                f'say which column it is: columns = {{ {missing} = "…" }}'
            )
        found = messages_of({"prompt": asked, "completion": answered})
        system = self._named(record, "system")
        return (Message("system", str(system)), *found) if system else found

    def _named(self, record: Mapping[str, Any], what: str) -> Any:
        if (given := self.source.columns.get(what)) is not None:  # type: ignore[call-overload]
            if given not in record:
                raise ValueError(f"has no column {given!r}, which the plan names for {what}")
            return record[given]
        return next((record[name] for name in GUESSES[what] if record.get(name) is not None), None)


def pseudonym(unit: Any) -> str:
    """A hash of a unit that a file names, so that no snapshot holds a name; "" for none."""
    if unit is None or unit == "":
        return ""
    return "f:" + blake2b(str(unit).encode(), digest_size=16).hexdigest()


def moment(value: Any) -> float | None:
    """Seconds since 1970 of a number (seconds, or milliseconds when it is that large) or an ISO 8601 text
    (UTC where it says nothing else). Raises `ValueError`."""
    if value is None or value == "":
        return None
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    try:
        number = float(value)
    except (TypeError, ValueError):
        try:
            return moment(datetime.fromisoformat(str(value)))
        except ValueError:
            raise ValueError(
                f"has the time {value!r}; write 2026-11-24T14:00, or seconds since 1970"
            ) from None
    return number / 1e3 if number > 1e11 else number


def _decoded(value: Any) -> Any:
    """A column of messages, which a CSV has as JSON."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except json.JSONDecodeError as error:
            raise ValueError(f"has messages that are not JSON: {error.msg}") from error
    return list(value) if value is not None and not isinstance(value, dict) else value


def _cleaned(messages: Any) -> Any:
    """Without the members that are there and empty: Parquet gives every message every column."""
    if not isinstance(messages, list):
        return messages
    return [
        {name: value for name, value in message.items() if value is not None}
        if isinstance(message, Mapping)
        else message
        for message in messages
    ]
