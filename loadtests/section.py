"""What every table of a scenario file is: frozen, with no key that it does not know, and with errors for
people."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError


class ScenarioError(ValueError):
    """A scenario, or a file that it names, cannot be used. The message says where, what it holds and what to
    do."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def explain(error: ValidationError, root: type[BaseModel], source: str) -> str:
    """`error` as lines of `source: dotted.key = value: what is wrong`, with the nearest known key for unknown
    ones."""
    return "\n".join(f"{source}: {_line(problem, root)}" for problem in error.errors(include_url=False))


def nearest(given: str, known: Iterable[str]) -> str:
    """`; did you mean 'rate'?`, or the list of what is known."""
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; known here: {', '.join(names)}"


def _line(problem: Any, root: type[BaseModel]) -> str:
    tables, path = _tables(problem["loc"], root)
    key = ".".join(path)
    if problem["type"] == "extra_forbidden":
        known = {name for table in tables for name in table.model_fields}
        return f"{key} = {problem['input']!r}: unknown key{nearest(path[-1], known)}"
    if problem["type"] == "missing":
        return f"{key} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "union_tag_invalid":
        tag, tags = problem["ctx"]["tag"], problem["ctx"]["expected_tags"].replace("'", "").split(", ")
        return f"{key}.{_discriminator(problem)} = {tag!r}: unknown{nearest(tag, tags)}"
    if problem["type"] == "union_tag_not_found":
        return f"{key}.{_discriminator(problem)} is missing"
    return f"{key} = {_short(problem['input'])}: {message}" if key else message


def _discriminator(problem: Any) -> str:
    return str(problem["ctx"]["discriminator"]).strip("'")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _tables(loc: Iterable[int | str], root: type[BaseModel]) -> tuple[list[type[BaseModel]], list[str]]:
    """The tables that may hold the last key of `loc`, and `loc` as a person would write it.

    pydantic puts the tag of a union between two keys (`arrivals`, `poisson`, `rat`); it names the table, and
    is left out of what is shown.
    """
    here: list[type[BaseModel]] = [root]
    inside: list[type[BaseModel]] = []
    path: list[str] = []
    for part in loc:
        if tagged := [table for table in inside if _tag(table) == part]:
            here, inside = tagged, []
            continue
        if inside and not isinstance(part, int):
            here, inside = inside, []
        path.append(str(part))
        for table in here:
            if isinstance(part, str) and part in table.model_fields:
                inside = list(_models(table.model_fields[part].annotation))
    return here, path


def _tag(table: type[BaseModel]) -> Any:
    for name in ("kind", "mix"):
        if name in table.model_fields:
            return table.model_fields[name].default
    return None


def _models(annotation: Any) -> Iterable[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _models(part)
