"""Rows in a file: JSON Lines, CSV, Parquet."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from training.dataset.candidate import Candidate, Ledger
from training.dataset.plan import DatasetError
from training.dataset.sources.records import Records
from training.rows import SHOWN

BATCH = 1_000


def read_file(file: Path, records: Records, ledger: Ledger) -> Iterator[Candidate]:
    """Every row of the file. Raises `DatasetError`: naming each bad line with its reason, unless the source
    says `skip_bad`; they are dropped as `bad_row` then."""
    readers = {".jsonl": _json_lines, ".ndjson": _json_lines, ".csv": _csv, ".parquet": _parquet}
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise DatasetError(f"{file} is none of {', '.join(readers)}, .txt, .md; convert it, or rename it")
    if not file.is_file():
        raise DatasetError(f"there is no file {file}")
    try:
        yield from candidates(reader(file), file.name, records, ledger)
    except OSError as error:
        raise DatasetError(f"cannot read {file}: {error.strerror or error}") from error


def candidates(
    found: Iterator[tuple[int, Callable[[], Any]]], named: str, records: Records, ledger: Ledger
) -> Iterator[Candidate]:
    """From numbered records, each decoded when it is called. Raises `DatasetError` with the bad ones."""
    reasons: dict[int, str] = {}
    for number, record in found:
        try:
            yield records.candidate(record(), f"{named}:{number}")
        except UnicodeDecodeError:
            reasons[number] = "is not UTF-8"
        except json.JSONDecodeError as error:
            reasons[number] = f"is not JSON: {error.msg} at column {error.colno}"
        except ValueError as error:
            reasons[number] = str(error)
    if not reasons:
        return
    if records.source.skip_bad:
        for number in reasons:
            ledger.drop("bad_row", f"{named}:{number}")
        return
    told = [f"{named}: {len(reasons)} bad rows; mend them, or leave them out with --skip-bad"]
    told += [f"  line {number}: {reason}" for number, reason in list(reasons.items())[:SHOWN]]
    if len(reasons) > SHOWN:
        told.append(f"  and {len(reasons) - SHOWN} more")
    raise DatasetError("\n".join(told))


def _json_lines(file: Path) -> Iterator[tuple[int, Callable[[], Any]]]:
    with file.open("rb") as stream:
        for number, text in enumerate(stream, start=1):
            if text.strip():
                yield number, lambda text=text: json.loads(text)  # type: ignore[misc]


def _csv(file: Path) -> Iterator[tuple[int, Callable[[], Any]]]:
    """Lines are those of the file; a quoted field may have several."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with file.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        try:
            for row in reader:
                yield reader.line_num, lambda row=row: _present(row)  # type: ignore[misc]
        except (csv.Error, UnicodeDecodeError) as error:
            raise DatasetError(f"{file} is not CSV in UTF-8 after line {reader.line_num}: {error}") from error


def _present(row: dict[str | None, Any]) -> dict[str, Any]:
    if None in row:
        raise ValueError("has more fields than the heading; quote what holds a comma")
    return {str(name): value for name, value in row.items() if value != ""}


def _parquet(file: Path) -> Iterator[tuple[int, Callable[[], Any]]]:
    """Numbers are those of the rows, from 1."""
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise DatasetError("reading Parquet needs pyarrow: pip install 'hotswap[training]'") from error
    number = 0
    try:
        with ParquetFile(file) as table:
            for batch in table.iter_batches(BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield number, lambda row=row: row  # type: ignore[misc]
    except pyarrow.ArrowInvalid as error:
        raise DatasetError(f"{file} is not Parquet: {error}") from error
