"""What a person writes: a preset's name, or a TOML file, and flags over it.

    preset = "balanced"       # quick | balanced | thorough
    rank = 32                 # everything that is left out is resolved from the data and the base

Unknown keys are errors that suggest the nearest known one; what no engine serves is refused with what works.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from training.recipe import unserved
from training.recipe.resolved import Init, Method, TrainingError

PRESETS = ("quick", "balanced", "thorough")
_SUFFIX = ".toml"


class Request(BaseModel):
    """A recipe as it is asked for. None: to be resolved."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)

    preset: Literal["quick", "balanced", "thorough"] = Field(
        "balanced", description="how much it may cost: a look, a good run, the best that the rows give"
    )
    method: Method = Field("sft", description="sft: answers; dpo, kto: preferences; grpo: rewards")
    rank: int | None = Field(None, ge=1, le=512, description="size of the adapter")
    alpha: int | None = Field(None, ge=1, description="the adapter is scaled by alpha / rank")
    learning_rate: float | None = Field(None, gt=0, le=1, description="peak, of a cosine to zero")
    epochs: float | None = Field(None, gt=0, le=100, description="passes over the rows")
    max_steps: int | None = Field(None, ge=1, description="optimizer steps at most")
    batch_size: int | None = Field(None, ge=1, le=4096, description="rows a step")
    warmup: float | None = Field(None, ge=0, lt=1, description="share of the steps until the peak")
    dropout: float | None = Field(None, ge=0, lt=1, description="of the adapter's inputs")
    max_grad_norm: float | None = Field(None, gt=0, description="gradients are clipped to it")
    max_tokens: int | None = Field(None, ge=8, description="longest row, tokens; a longer one is refused")
    gradient_checkpointing: bool | None = Field(
        None, description="compute activations twice instead of keeping them"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="same seed, same rows: same adapter")
    init: Init = Field("default", description="eva: begin from the rows' activations")
    rslora: bool | None = Field(None, description="scale by alpha / sqrt(rank)")
    checkpoint_steps: int | None = Field(None, ge=1, description="a checkpoint every so many steps")
    early_stop: int | None = Field(None, ge=1, description="evaluations without a better one")
    beta: float | None = Field(None, gt=0, le=10, description="dpo, kto: strength of the reference")
    rewards: tuple[str, ...] = Field((), description="grpo: its reward functions")
    validation_share: float | None = Field(None, ge=0, lt=0.9, description="share of rows held out")
    modules: Literal["all-linear"] = Field("all-linear", description="which layers; the fleet serves these")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a recipe that cannot be: on `line` of its file (None: a flag), and what to do."""

    line: int | None
    key: str
    message: str
    fix: str


class BadRecipe(TrainingError):
    """A recipe cannot be read, or asks for what cannot be; `problems` has each."""

    def __init__(self, source: str, problems: Iterable[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        super().__init__(
            "\n".join(
                f"{source}{'' if each.line is None else f':{each.line}'}: {each.message}; {each.fix}"
                for each in self.problems
            )
        )


def load(given: str | None, flags: Mapping[str, Any] | None = None) -> Request:
    """`given` is a preset's name, a TOML file, or None for "balanced"; `flags` that are not None win.

    Raises `BadRecipe` naming every key that is unknown, impossible or not served, with its line.
    """
    table, lines, source = _read(given)
    overrides = {key: value for key, value in (flags or {}).items() if value is not None}
    merged = {**table, **overrides}
    problems = [
        *_unserved(merged, lines, overrides),
        *_unknown(merged, lines, overrides),
    ]
    strange = {problem.key for problem in problems}
    try:
        request = Request.model_validate({key: value for key, value in merged.items() if key not in strange})
    except ValidationError as error:
        problems += _invalid(error, merged, lines, overrides)
        raise BadRecipe(source, problems) from error
    if problems:
        raise BadRecipe(source, sorted(problems, key=lambda each: each.line or 0))
    return request


def _read(given: str | None) -> tuple[dict[str, Any], dict[str, int], str]:
    if given is None or given in PRESETS:
        return {"preset": given or "balanced"}, {}, "recipe"
    file = Path(given)
    try:
        text = file.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        line = file.read_bytes()[: error.start].count(b"\n") + 1
        raise BadRecipe(
            given, [Problem(line, "", "is not UTF-8", f"save it as UTF-8 (iconv -t utf-8 {file.name})")]
        ) from error
    except OSError as error:
        near = difflib.get_close_matches(given, PRESETS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"presets are {', '.join(PRESETS)}"
        raise BadRecipe(
            given,
            [Problem(None, "", f"is no preset and no file ({error.strerror})", f"{hint} A file is TOML")],
        ) from error
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"at line (\d+)", str(error))
        line = int(found[1]) if found else text.count("\n") + 1
        raise BadRecipe(
            given, [Problem(line, "", f"is not TOML: {error}", "write one `key = value` a line")]
        ) from error
    return table, _lines(text), given


def line_of(file: Path, key: str) -> int | None:
    """The line of `key` in a recipe's file, from 1."""
    return _lines(file.read_text(encoding="utf-8")).get(key)


def _lines(text: str) -> dict[str, int]:
    """Key -> its line, from 1. Keys of a recipe stand at the beginning of a line, or name a table."""
    found: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if match := re.match(r"\s*\[*\s*[\"']?([\w.-]+)[\"']?\s*[]=]", line):
            found.setdefault(match[1].partition(".")[0], number)
    return found


def _where(key: str, lines: Mapping[str, int], flags: Mapping[str, Any]) -> int | None:
    return None if key in flags else lines.get(key)


def _unserved(table: Mapping[str, Any], lines: Mapping[str, int], flags: Mapping[str, Any]) -> list[Problem]:
    found = [why for key, value in table.items() if (why := unserved.objection(key, value))]
    return [
        Problem(_where(why.key, lines, flags), why.key, why.reason, f"nearest that works: {why.nearest}")
        for why in found
    ]


def _unknown(table: Mapping[str, Any], lines: Mapping[str, int], flags: Mapping[str, Any]) -> list[Problem]:
    known = list(Request.model_fields)
    found = []
    for key, value in table.items():
        if key in known or unserved.objection(key, value):
            continue
        where = _where(key, lines, flags)
        if key in unserved.known():
            found.append(Problem(where, key, f"{key} is off, as it always is", "take it out"))
            continue
        near = difflib.get_close_matches(_bare(key), known, n=1, cutoff=0.5)
        fix = f"did you mean {near[0]!r}?" if near else "hotswap recipes show lists them all"
        found.append(Problem(where, key, f"{key!r} is no key of a recipe", fix))
    return found


_ALSO = {
    "lr": "learning_rate",
    "r": "rank",
    "lora_r": "rank",
    "lora_alpha": "alpha",
    "num_train_epochs": "epochs",
    "n_epochs": "epochs",
    "per_device_train_batch_size": "batch_size",
    "max_length": "max_tokens",
    "max_seq_length": "max_tokens",
    "target_modules": "modules",
    "save_steps": "checkpoint_steps",
    "patience": "early_stop",
    "reward_funcs": "rewards",
    "init_lora_weights": "init",
}
"""What other tools call our keys (PEFT, transformers, OpenAI): too far apart in letters to be guessed."""


def _bare(key: str) -> str:
    return _ALSO.get(key.lower(), key.lower().replace("-", "_"))


def _invalid(
    error: ValidationError, table: Mapping[str, Any], lines: Mapping[str, int], flags: Mapping[str, Any]
) -> list[Problem]:
    found = []
    for problem in error.errors():
        key = str(problem["loc"][0])
        message = problem["msg"][0].lower() + problem["msg"][1:]
        field = Request.model_fields[key]
        found.append(
            Problem(
                _where(key, lines, flags),
                key,
                f"{key} = {table[key]!r}: {message}",
                f"it is {field.description}; leave it out to have it resolved"
                if not field.is_required()
                else f"it is {field.description}",
            )
        )
    return found
