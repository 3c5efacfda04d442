"""Prompts that somebody wrote: a file of them, or one column of a dataset."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from loadtests.section import ScenarioError, nearest

Messages = tuple[Mapping[str, str], ...]


def read(file: Path, column: str) -> list[Messages]:
    """What each row of `file` says, as chat messages.

    `.txt`: a prompt a line, blank ones left out. `.csv`: the text in `column`. `.jsonl`: the text in
    `column`, or the list in `messages`. Raises `ScenarioError` with the file, the line and what to do about
    it.
    """
    readers = {".txt": _lines, ".csv": _csv, ".jsonl": _jsonl}
    if file.suffix not in readers:
        raise ScenarioError(
            f"prompts in {file}: {file.suffix or 'no suffix'} is not one of {', '.join(readers)}"
        )
    try:
        found = list(readers[file.suffix](file, column))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ScenarioError(f"prompts in {file} cannot be read: {error}") from error
    if not found:
        raise ScenarioError(f"{file} holds no prompts; give a file that does")
    return found


def find(folder: Path, split: str) -> Path:
    """The file of a dataset: the path itself, or `<split>.csv` or `<split>.jsonl` in a folder."""
    if not folder.is_dir():
        return folder
    for name in (f"{split}.csv", f"{split}.jsonl"):
        if (folder / name).is_file():
            return folder / name
    there = sorted(path.name for path in folder.iterdir())
    raise ScenarioError(
        f"dataset {folder} has neither {split}.csv nor {split}.jsonl (it has {', '.join(there) or 'nothing'}"
        "); name one of its files as prompts.path, or set prompts.split"
    )


def _lines(file: Path, column: str) -> Iterator[Messages]:
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            if text := line.strip():
                yield _user(text)


def _csv(file: Path, column: str) -> Iterator[Messages]:
    with file.open(encoding="utf-8-sig", newline="") as text:
        rows = csv.DictReader(text)
        if column not in (header := rows.fieldnames or []):
            raise ScenarioError(
                f"{file}, line 1: no column {column!r}{nearest(column, header)}; set prompts.column"
            )
        for row in rows:
            yield _user(_text(row[column], file, rows.line_num, column))


def _jsonl(file: Path, column: str) -> Iterator[Messages]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row: Any = msgspec.json.decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise ScenarioError(
                    f"{file}, line {number}: not JSON ({error}); mend or remove the line"
                ) from error
            if isinstance(row, dict) and column in row:
                yield _user(_text(row[column], file, number, column))
            elif isinstance(row, dict) and "messages" in row:
                yield _messages(row["messages"], file, number)
            else:
                known = nearest(column, row) if isinstance(row, dict) and row else "; it is no object"
                raise ScenarioError(
                    f"{file}, line {number}: neither {column!r} nor 'messages'{known}; set prompts.column"
                )


def _messages(given: Any, file: Path, line: int) -> Messages:
    try:
        messages = msgspec.convert(given, tuple[dict[str, str], ...])
        made = tuple({"role": message["role"], "content": message["content"]} for message in messages)
    except (msgspec.ValidationError, KeyError) as error:
        raise ScenarioError(
            f'{file}, line {line}: messages must be a list of {{"role": text, "content": text}} ({error})'
        ) from error
    if not made:
        raise ScenarioError(f"{file}, line {line}: messages is empty; remove the line")
    return made


def _text(value: Any, file: Path, line: int, column: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ScenarioError(
            f"{file}, line {line}: {column} = {value!r} is not a text; mend or remove the line"
        )
    return value


def _user(text: str) -> Messages:
    return ({"role": "user", "content": text},)
