"""The second tier of redaction: rows of strict routes, on their way from the journal to the lake.

In the shipper's process, at its pace. What it cannot examine it does not let through: the segment waits.
"""

from __future__ import annotations

import importlib
import importlib.util
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec

from gateway.traffic.row import JSON_COLUMNS, Row
from gateway.traffic.texts import Rewrite, rewritten

if TYPE_CHECKING:
    from gateway.settings import PresidioSettings

PACKAGES = ("presidio_analyzer", "spacy")

_json = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Unexamined(Exception):
    """A row was not examined, so it must not be shipped. The message says why, and nothing of the row but
    its id."""


@dataclass(frozen=True, slots=True)
class Examining:
    """What the second tier looks for, as the settings say (`traffic.presidio`)."""

    languages: tuple[str, ...] = ("en",)
    models: Mapping[str, str] = field(default_factory=dict)
    entities: tuple[str, ...] = ()
    score: float = 0.4


def examining(settings: PresidioSettings) -> Examining | None:
    """None where it is off. A model in a folder is named by its absolute path."""
    if not settings.enabled:
        return None
    models = {language: _absolute(model) for language, model in settings.models.items()}
    return Examining(settings.languages, models, settings.entities, settings.score)


def missing(wanted: Examining) -> str:
    """What is not installed and how to mend it, "" when everything seems there. Imports none of it."""
    importlib.invalidate_caches()
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            return f"traffic.presidio is on, but {package} is not installed: pip install 'hotswap[presidio]'"
    for language, model in wanted.models.items():
        installed = model.isidentifier() and importlib.util.find_spec(model) is not None
        if not installed and not (Path(model) / "config.cfg").exists():
            return (
                f"traffic.presidio.models.{language} = {model!r} is neither an installed spaCy pipeline nor "
                "a folder with one: pip install its wheel (nothing is downloaded here), or correct the name"
            )
    return ""


def problem(wanted: Examining) -> str:
    """Why it cannot examine anything, "" when it can. Loads everything: some seconds, and its memory."""
    try:
        SecondTier(wanted).load()
    except Unexamined as error:
        return str(error)
    return ""


class SecondTier:
    """Called with a row, it gives the row that may be shipped. What it needs is loaded at the first row, or
    by `load`; both raise `Unexamined`, and may be tried again."""

    def __init__(self, wanted: Examining, load: Callable[[Examining], Rewrite] | None = None) -> None:
        self._wanted = wanted
        self._load = load or _presidio
        self._rewrite: Rewrite | None = None

    def load(self) -> Rewrite:
        if self._rewrite is None:
            self._rewrite = self._load(self._wanted)
        return self._rewrite

    def __call__(self, row: Row) -> Row:
        rewrite = self.load()
        result = dict(row)
        try:
            for name in JSON_COLUMNS:
                text = result[name]
                if isinstance(text, str):
                    value = _decode(text)
                    clean = rewritten(value, rewrite)
                    if clean != value:
                        result[name] = _json(clean).decode()
        except Exception as error:  # noqa: BLE001 (whatever it was, the row is not let through)
            raise Unexamined(
                f"exchange {row['id']} could not be examined ({_where(error)}). Correct traffic.presidio, or "
                f"let this exchange go: hotswap traffic forget --request {row['id']}"
            ) from None  # what a recognizer says of its failure may quote the text
        return cast(Row, result)


def without_words(row: Row) -> Row:
    """What may be shown of a row before it is examined."""
    return cast(Row, {**row, **dict.fromkeys(JSON_COLUMNS)}) if row["redacted"] else row


def _presidio(wanted: Examining) -> Rewrite:
    """Raises `Unexamined` when something of it is missing or cannot be loaded."""
    if problem := missing(wanted):
        raise Unexamined(problem)
    from gateway.traffic.presidio import Presidio  # loads spaCy: a second, and 100 MB

    try:
        return Presidio(wanted).rewrite
    except Unexamined:
        raise
    except Exception as error:
        raise Unexamined(f"traffic.presidio: spaCy or presidio does not load ({error})") from error


def _where(error: Exception) -> str:
    """An error's kind and place, without its text."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} in {Path(frames[-1].filename).name}:{frames[-1].lineno}"


def _absolute(model: str) -> str:
    return str(Path(model).resolve()) if Path(model).is_dir() else model
