"""Samples on disk: JSON Lines, one request a line, times rounded to the microsecond, defaults left out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from loadtests.sample import Sample

DIGITS = 6


class SamplesError(ValueError):
    """A file that is not a run's samples. The message names the file and the line."""


def save_samples(path: Path, samples: Iterable[Sample]) -> None:
    """Writes `samples` in their order, replacing the file."""
    encode = msgspec.json.Encoder().encode
    with path.open("wb") as file:
        for sample in samples:
            file.write(encode(_row(sample)) + b"\n")


def read_samples(path: Path) -> list[Sample]:
    """The samples that `save_samples` wrote. Raises `SamplesError`, and `OSError` where there is no file."""
    decode = msgspec.json.Decoder(Sample).decode
    samples = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                samples.append(decode(line))
            except msgspec.MsgspecError as error:
                raise SamplesError(
                    f"{path}, line {number}: not a sample ({error}); measure the run again"
                ) from error
    return samples


def _row(sample: Sample) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for field in fields(sample):
        value = getattr(sample, field.name)
        if field.default is not MISSING and value == field.default:
            continue
        if isinstance(value, float):
            value = round(value, DIGITS)
        row[field.name] = value
    if sample.arrivals:
        row["arrivals"] = np.round(sample.arrivals, DIGITS).tolist()
    return row
