"""Prometheus' text format, as much of it as a load test reads: the value of each series now.

Buckets of histograms are left out: their sum and count are kept, from which a mean over a run follows. So are
`_created` series, which are dates.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_LINE = re.compile(
    r'([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\})?[ \t]+([^ \t]+)(?:[ \t]+-?\d+)?[ \t]*'
)
_COUNTING = frozenset({"counter", "histogram", "summary"})


class FormatError(ValueError):
    """A line is not Prometheus' text format."""


@dataclass(frozen=True, slots=True)
class Series:
    """The value of one series. `counts` is True for one that only grows: a counter, or a sum or a count."""

    name: str  # with its labels as they were written: x_total{model="a"}
    value: float
    counts: bool


def parse(text: str) -> list[Series]:
    """Every series of a page. Raises `FormatError` with the line that is none."""
    kinds: dict[str, str] = {}
    found = []
    for line in text.split("\n"):
        line = line.strip()
        if line.startswith("#"):
            words = line.split()
            if len(words) >= 4 and words[1] == "TYPE":
                kinds[words[2]] = words[3]
            continue
        if not line:
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise FormatError(f"not Prometheus' text format: {line[:100]!r}")
        name, labels, number = match.groups()
        if name.endswith(("_bucket", "_created")):
            continue
        found.append(Series(name + (labels or ""), _number(number, line), _counts(name, labels, kinds)))
    return found


def _number(text: str, line: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise FormatError(f"not Prometheus' text format: {line[:100]!r}") from error


def _counts(name: str, labels: str | None, kinds: dict[str, str]) -> bool:
    for family in (name, name.removesuffix("_total"), name.removesuffix("_sum"), name.removesuffix("_count")):
        if family in kinds:
            kind = kinds[family]
            # A summary's quantiles go up and down.
            return kind in _COUNTING and not (kind == "summary" and family == name)
    return False
