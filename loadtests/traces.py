"""Recorded traffic: when requests came, and how long their prompts and answers were.

- Azure LLM inference traces, 2023 and 2024 (github.com/Azure/AzurePublicDataset): CSV with the columns
  TIMESTAMP, ContextTokens, GeneratedTokens.
- Mooncake (github.com/kvcache-ai/Mooncake): JSON lines with timestamp in milliseconds, input_length,
  output_length, and hash_ids, one a block of 512 tokens: prompts that begin with the same ids begin alike.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from loadtests.arrivals import Trace
from loadtests.section import ScenarioError, nearest
from loadtests.streams import stream
from loadtests.words import texts

BLOCK = 512
"""Tokens of a prompt that one of Mooncake's hash_ids stands for."""

AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")

Count = Annotated[int, msgspec.Meta(ge=0)]


@dataclass(frozen=True, slots=True)
class Row:
    """A recorded request: seconds since the first one, tokens, and the ids of its prompt's blocks if
    known."""

    at: float
    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()


class _Mooncake(msgspec.Struct):
    timestamp: float
    input_length: Count
    output_length: Count
    hash_ids: tuple[Count, ...] = ()


def read(trace: Trace, seconds: float) -> list[Row]:
    """The rows due in the first `seconds` of the replay, in order; 0 tokens count as 1.

    Raises `ScenarioError` with the file, the line and what to do about it.
    """
    rows: list[Row] = []
    lines = _azure(trace.file) if trace.format == "azure" else _mooncake(trace.file)
    last = 0.0
    try:
        for line, row in lines:
            if row.at < last:
                raise ScenarioError(
                    f"{trace.file}, line {line}: it is {last - row.at:g} s before the line above; "
                    "sort the file by time"
                )
            last = row.at
            if row.at / trace.speed >= seconds:
                return rows
            rows.append(
                Row(row.at / trace.speed, max(1, row.input_tokens), max(1, row.output_tokens), row.blocks)
            )
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(
            f"trace {trace.file} cannot be read: {error}; download one (github.com/Azure/AzurePublicDataset, "
            "github.com/kvcache-ai/Mooncake) and give its path as arrivals.file"
        ) from error
    if not rows:
        raise ScenarioError(f"trace {trace.file} holds no requests; give one that does as arrivals.file")
    return rows


def prompts(rows: list[Row], seed: int) -> Iterator[str]:
    """A prompt for each row, of `input_tokens` words.

    Equal block ids are equal words, whichever row they are in, so prompts share the prefixes that the
    recorded ones shared. Words past the last block, or all without block ids, are the row's own.
    """

    @lru_cache(maxsize=4096)
    def block(number: int) -> str:
        return next(texts(stream(seed, f"block/{number}"), np.array([BLOCK])))

    own = np.array([max(0, row.input_tokens - BLOCK * len(row.blocks)) for row in rows], dtype=np.int64)
    for row, rest in zip(rows, texts(stream(seed, "prompts"), own, unique=True), strict=True):
        parts = [block(number) for number in row.blocks[: -(-row.input_tokens // BLOCK)]]
        if parts:
            inside = row.input_tokens - BLOCK * (len(parts) - 1)
            parts[-1] = " ".join(parts[-1].split(" ")[:inside])
        yield " ".join([*parts, rest] if rest else parts)


def _azure(file: Path) -> Iterator[tuple[int, Row]]:
    with file.open(encoding="utf-8-sig", newline="") as text:
        rows = csv.reader(text)
        header = next(rows, [])
        for name in AZURE:
            if name not in header:
                raise ScenarioError(
                    f"{file}, line 1: no column {name}{nearest(name, header)}; an Azure trace begins with "
                    f"the line {','.join(AZURE)}"
                )
        columns = [header.index(name) for name in AZURE]
        first: datetime | None = None
        for row in rows:
            if not row:
                continue
            try:
                when = datetime.fromisoformat(row[columns[0]])
                first = when if first is None else first
                at = (when - first).total_seconds()
                said, answered = (int(row[column]) for column in columns[1:])
                if min(said, answered) < 0:
                    raise ValueError("a count of tokens is below 0")
            except (ValueError, IndexError, TypeError) as error:
                raise ScenarioError(
                    f"{file}, line {rows.line_num}: {','.join(row)!r} is not a request ({error}); write it "
                    "as 2023-11-16 18:15:46.680590,374,44 or remove the line"
                ) from error
            yield rows.line_num, Row(at, said, answered)


def _mooncake(file: Path) -> Iterator[tuple[int, Row]]:
    decoder: Any = msgspec.json.Decoder(_Mooncake)
    first: float | None = None
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = decoder.decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise ScenarioError(
                    f"{file}, line {number}: not a request ({error}); write it as "
                    '{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47]} '
                    "or remove the line"
                ) from error
            first = row.timestamp if first is None else first
            yield (
                number,
                Row((row.timestamp - first) / 1000, row.input_length, row.output_length, row.hash_ids),
            )
