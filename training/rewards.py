"""What an answer earns in reinforcement: functions from an answer and the expected one to a figure, by name.

exact                        1 for the expected answer, white space around aside
other                        1 for anything but the expected answer
contains, icontains          1 for an answer that has the expected one in it; icontains ignores case
rouge_l                      the F1 of the longest common subsequence of words (`training.evaluation.metrics`)
fuzzy                        the share of characters that answer and expected one have in common, in order
                             (rapidfuzz's ratio: 2 x the longest common subsequence over both lengths)
json                         1 for a JSON value and nothing else
fields                       the share of the expected JSON object's fields that are right
schema:FILE                  1 for JSON that the JSON Schema in FILE allows
regex:PATTERN                1 for an answer that PATTERN matches as a whole
python:FILE#FUNCTION         what FUNCTION(answer, expected) of an operator's file gives, from 0 to 1
grader:URL#MODEL             what a model at an OpenAI endpoint thinks of it; its key is in
                             HOTSWAP_GRADER_KEY
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from training.ask import ask_all
from training.evaluation.metrics import exact, json_fields, json_valid, rouge_l
from training.recipe import TrainingError

Reward = Callable[[Sequence[str], Sequence[str]], list[float]]
"""From answers and the expected ones, in the same order, to a figure from 0 to 1 for each."""

GRADER_KEY = "HOTSWAP_GRADER_KEY"
RUBRIC = (
    "You grade an answer. Compare it with the reference and reply with one number from 0 (wrong) to 10 (as "
    "good as the reference), and nothing else."
)


def reward(name: str) -> Reward:
    """The reward that a recipe names. Raises `TrainingError` for one that is none, or cannot be read."""
    kind, colon, rest = name.partition(":")
    if not colon and kind in _PLAIN:
        return _each(_PLAIN[kind])
    if colon and kind in _GIVEN and rest:
        return _GIVEN[kind](rest)
    known = [*_PLAIN, *(f"{each}:…" for each in _GIVEN)]
    raise TrainingError(f"there is no reward {name!r}; known are {', '.join(known)}")


def _each(figure: Callable[[str, str], float]) -> Reward:
    def all_of(answers: Sequence[str], expected: Sequence[str]) -> list[float]:
        return [figure(answer, right) for answer, right in zip(answers, expected, strict=True)]

    return all_of


def _schema(file: str) -> Reward:
    from jsonschema import SchemaError
    from jsonschema.validators import validator_for

    try:
        schema = json.loads(Path(file).read_text(encoding="utf-8"))
        checker = validator_for(schema)
        checker.check_schema(schema)
    except (OSError, ValueError, SchemaError) as error:
        raise TrainingError(f"reward schema:{file}: {str(error).splitlines()[0]}") from error
    validator = checker(schema)

    def allowed(answer: str, expected: str) -> float:
        try:
            return float(validator.is_valid(json.loads(answer)))
        except ValueError:
            return 0.0

    return _each(allowed)


def _regex(pattern: str) -> Reward:
    try:
        compiled = re.compile(pattern, re.DOTALL)
    except re.error as error:
        raise TrainingError(f"reward regex:{pattern}: {error}") from error
    return _each(lambda answer, expected: float(compiled.fullmatch(answer.strip()) is not None))


def _python(place: str) -> Reward:
    """A file of the operator's own: it is run as any other program of theirs."""
    file, _, name = place.partition("#")
    spec = importlib.util.spec_from_file_location("hotswap_reward", file)
    if not name or spec is None or spec.loader is None or not Path(file).is_file():
        raise TrainingError(f"reward python:{place}: write python:FILE.py#FUNCTION; the file must be there")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function: Any = getattr(module, name, None)
    if not callable(function):
        raise TrainingError(f"reward python:{place}: the file has no function {name}")

    def figure(answer: str, expected: str) -> float:
        value = float(function(answer, expected))
        if not 0 <= value <= 1:
            raise TrainingError(f"reward python:{place} gave {value}; it must be from 0 to 1")
        return value

    return _each(figure)


def _grader(place: str) -> Reward:
    url, _, model = place.rpartition("#")
    if not url.startswith(("http://", "https://")) or not model:
        raise TrainingError(f"reward grader:{place}: write grader:https://HOST/v1#MODEL")
    key = os.environ.get(GRADER_KEY)
    if key is None:
        raise TrainingError(f"reward grader:{place} needs its key in {GRADER_KEY}")

    def graded(answers: Sequence[str], expected: Sequence[str]) -> list[float]:
        conversations = [
            [
                {"role": "system", "content": RUBRIC},
                {"role": "user", "content": f"Reference:\n{right}\n\nAnswer:\n{answer}"},
            ]
            for answer, right in zip(answers, expected, strict=True)
        ]
        told = asyncio.run(ask_all(conversations, url=url, key=key, model=model, max_tokens=8))
        return [_number(each.text) for each in told]

    return graded


def _number(text: str) -> float:
    """From "8", "8/10" or "Score: 8" to 0.8; 0 for what is no grade."""
    found = re.search(r"\d+(?:\.\d+)?", text)
    return min(1.0, float(found[0]) / 10) if found else 0.0


def _fuzzy(answer: str, expected: str) -> float:
    from rapidfuzz.fuzz import ratio

    return float(ratio(answer.strip(), expected.strip())) / 100


_PLAIN: dict[str, Callable[[str, str], float]] = {
    "exact": exact,
    "other": lambda answer, expected: 1 - exact(answer, expected),
    "contains": lambda answer, expected: float(expected.strip() in answer),
    "icontains": lambda answer, expected: float(expected.strip().casefold() in answer.casefold()),
    "rouge_l": rouge_l,
    "fuzzy": _fuzzy,
    "json": json_valid,
    "fields": json_fields,
}
_GIVEN: dict[str, Callable[[str], Reward]] = {
    "schema": _schema,
    "regex": _regex,
    "python": _python,
    "grader": _grader,
}
