"""What an answer is worth beside the one that was expected: figures between 0 and 1, higher is better."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from rapidfuzz.distance import LCSseq

Metric = Callable[[str, str], float]
"""From an answer and the expected one to a figure from 0 to 1."""

_MISSING = object()


def exact(answer: str, expected: str) -> float:
    """1 when they are equal but for white space around, else 0."""
    return float(answer.strip() == expected.strip())


def json_valid(answer: str, expected: str) -> float:
    """1 when the answer is a JSON value and nothing else; what was expected does not matter."""
    return float(_value(answer) is not _MISSING)


def json_fields(answer: str, expected: str) -> float:
    """The share of the expected object's fields, nested ones by their path, that the answer has with the
    same value; fields that nobody expected count as wrong ones: right / (expected + strange).

    For what is no object, 1 when the values are equal. Raises `ValueError` when the expected is no JSON.
    """
    wanted, found = _value(expected), _value(answer)
    if wanted is _MISSING:
        raise ValueError(f"the expected answer is no JSON: {expected[:80]!r}")
    if found is _MISSING:
        return 0.0
    want, have = dict(_leaves(wanted)), dict(_leaves(found))
    right = sum(bool(have.get(path, _MISSING) == value) for path, value in want.items())
    return right / len(want | have)


def rouge_l(answer: str, expected: str) -> float:
    """ROUGE-L's F1 (Lin, 2004): with L the longest common subsequence of words, the harmonic mean of
    L / words of the answer and L / words of the expected. Words are runs of letters and digits, lower case.
    """
    found, wanted = _words(answer), _words(expected)
    if not found or not wanted:
        return float(found == wanted)
    common: int = LCSseq.similarity(found, wanted)
    return 2 * common / (len(found) + len(wanted))


METRICS: Mapping[str, Metric] = {
    "exact": exact,
    "json_valid": json_valid,
    "json_fields": json_fields,
    "rouge_l": rouge_l,
}
"""By name."""


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return _MISSING


def _leaves(value: Any, path: str = "$") -> list[tuple[str, Any]]:
    """Every value that holds no other, by its path. Empty objects and lists are values."""
    if isinstance(value, dict) and value:
        return [leaf for key, each in value.items() for leaf in _leaves(each, f"{path}[{key!r}]")]
    if isinstance(value, list) and value:
        return [leaf for at, each in enumerate(value) for leaf in _leaves(each, f"{path}[{at}]")]
    return [(path, json.dumps(value))]
