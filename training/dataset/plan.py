"""What a dataset is to be made of, as a file (TOML) or from the command line. Unknown keys are errors.

[[source]]
from = "traffic://support?since=7d&feedback=up"

[[source]]
from = "faq.csv"
licence = "cc-by-4.0"
columns = { prompt = "question", completion = "answer" }

[split]
validation = 0.1
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from training.recipe import TrainingError

Column = Literal["messages", "prompt", "completion", "system", "unit", "at"]


class DatasetError(TrainingError):
    """A dataset cannot be built or used; the message says what was wrong and what to do."""


class Part(BaseModel):
    """A table of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Source(Part):
    """Rows of one origin.

    `from` is `traffic://ROUTE?since=7d&feedback=up`, a file (.jsonl, .csv, .parquet; .txt and .md are
    documents), `file-ID` of the Files API, or `hf://FOLDER?split=train`. `columns` says which column holds
    what, where the names differ.
    """

    location: str = Field(alias="from", min_length=1)
    licence: str = ""
    consent: str = ""
    columns: Mapping[Column, str] = {}
    skip_bad: bool = False


class Filters(Part):
    """`min_chars` is of the learned answers together, `max_tokens` of the whole row. `languages` are ISO
    639-1 codes, e.g. ["en", "de"]; none given, none looked at."""

    min_chars: int = Field(1, ge=1)
    max_tokens: int = Field(2048, ge=16)
    languages: tuple[str, ...] = ()


class Duplicates(Part):
    """`similarity` is the share of five-character pieces that two texts have in common (Jaccard), from which
    on they count as near duplicates."""

    similarity: float = Field(0.8, ge=0.5, le=1)


class Split(Part):
    """`validation` is a share of the rows. `by`: `time` puts the newest into validation; `random` a stable
    choice by content; `auto` is `time` where every row has one."""

    validation: float = Field(0.1, ge=0, lt=1)
    by: Literal["auto", "time", "random"] = "auto"
    seed: int = 0


class Caps(Part):
    """`self_generated` is the largest share of rows that a model of ours answered and nobody corrected or
    liked. `unit` is the largest share of one unit, which may have `unit_rows` in any case."""

    self_generated: float = Field(0.5, ge=0, le=1)
    unit: float = Field(0.2, gt=0, le=1)
    unit_rows: int = Field(20, ge=1)


class Licences(Part):
    """`accept` are licences that you have read and take the responsibility for, by name."""

    accept: tuple[str, ...] = ()


class Privacy(Part):
    """`imported`: what is done with rows that did not come through a gateway: nothing, its strict redaction,
    or strict and the second tier (`traffic.presidio`). `require_consent` drops traffic without a basis.
    `hosts` are those that captured rows may be sent to when rows are generated from them."""

    imported: Literal["off", "strict", "presidio"] = "off"
    require_consent: bool = False
    hosts: tuple[str, ...] = ()


class Endpoint(Part):
    """Any OpenAI endpoint: `url` ends before `/chat/completions`; `key_env` names the variable with its
    key."""

    url: str
    model: str
    key_env: str | None = None
    at_once: int = Field(4, ge=1, le=64)
    timeout_s: float = Field(120.0, gt=0)
    temperature: float = Field(0.7, ge=0, le=2)


class RewardModel(Part):
    """A sequence classifier with one output, as trl's reward trainer makes them: a folder, or a model of the
    hub. It runs in the build's own process."""

    model: str
    batch: int = Field(8, ge=1, le=256)


class Documents(Part):
    """How documents become pairs: pieces of about `piece_chars`, `pairs` questions each."""

    piece_chars: int = Field(2000, ge=200, le=20_000)
    pairs: int = Field(3, ge=1, le=20)


class Synthetic(Part):
    """`rows` new rows like those that are there, written by `writer` and scored from 0 to 1 by `judge` or
    `reward_model`; those below `min_score` are not kept. `outputs` is a file of good answers, one a line or a
    JSON string a line, for which the inputs are written (reverse generation)."""

    rows: int = Field(0, ge=0)
    outputs: str | None = None
    min_score: float = Field(0.7, ge=0, le=1)
    seed: int = 0


class Plan(Part):
    """All of a build."""

    sources: tuple[Source, ...] = Field((), alias="source")
    filters: Filters = Filters()
    duplicates: Duplicates = Duplicates()
    split: Split = Split()
    caps: Caps = Caps()
    licences: Licences = Licences()
    privacy: Privacy = Privacy()
    preferences: bool = True
    documents: Documents = Documents()
    synthetic: Synthetic = Synthetic()
    writer: Endpoint | None = None
    judge: Endpoint | None = None
    reward_model: RewardModel | None = None

    @model_validator(mode="after")
    def _one_score(self) -> Plan:
        if self.judge is not None and self.reward_model is not None:
            raise ValueError("judge and reward_model both score generated rows; leave one out")
        return self

    def record(self) -> dict[str, Any]:
        """As it goes into the manifest. Sources are told there one by one."""
        return self.model_dump(mode="json", exclude={"sources"})


def read_plan(file: Path) -> Plan:
    """Raises `DatasetError` naming each key that is unknown or has an impossible value."""
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DatasetError(f"cannot read the plan {file}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{file} is not TOML: {error}") from error
    return plan_of(table, str(file))


def plan_of(table: Mapping[str, Any], named: str = "the plan") -> Plan:
    """Raises `DatasetError`."""
    try:
        return Plan.model_validate(table)
    except ValidationError as error:
        lines = "\n".join(f"  {line}" for line in _problems(error))
        raise DatasetError(f"{named} cannot be used:\n{lines}") from error


def _problems(error: ValidationError) -> Iterator[str]:
    for each in error.errors():
        where = ".".join(map(str, each["loc"]))
        if not where:
            yield each["msg"].removeprefix("Value error, ")
            continue
        if each["type"] != "extra_forbidden":
            yield f"{where} = {each['input']!r}: {each['msg']}"
            continue
        near = difflib.get_close_matches(str(each["loc"][-1]), list(_known(Plan)), n=1)
        yield f"{where} is not known" + (f"; did you mean {near[0]!r}?" if near else "")


def _known(part: type[BaseModel]) -> Iterator[str]:
    for name, field in part.model_fields.items():
        yield field.alias or name
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _known(kind)
