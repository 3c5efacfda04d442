"""Every check of a run, in the order in which each needs the one before. Seconds, and no torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapters.base.manifest import BaseError
from training.preflight import advice, dataset, duration, memory, serving, template
from training.preflight.advice import Baseline
from training.preflight.chat import Chat, NoChat
from training.preflight.counts import Counted, count, too_long
from training.preflight.findings import Finding, Severity, allow, error
from training.preflight.lines import Examined, examine
from training.preflight.machine import Machine
from training.preflight.prices import Prices
from training.preflight.report import Report
from training.recipe import Recipe, TrainingError
from training.recipe.request import BadRecipe, Request, load
from training.recipe.resolve import Choice, Fleet, choices, recipe
from training.rows import Row
from training.shape import Shape


@dataclass(frozen=True, slots=True)
class Asked:
    """One run as the command line has it. `recipe` is a preset or a file; `flags` win over it."""

    name: str
    data: Path
    base: Path
    fleet: Fleet
    recipe: str | None = None
    flags: Mapping[str, Any] = field(default_factory=dict)
    validation: Path | None = None
    allowed: Collection[str] = ()
    max_adapter_bytes: int | None = None


Ask = Callable[[Sequence[Row], Sequence[Row]], Baseline | None]
"""Asks the base with examples in its prompt: training rows, held-out rows."""


def inspect(
    asked: Asked, machine: Machine, prices: Prices, ask: Ask | None = None
) -> tuple[Report, Recipe | None]:
    """The report, and the recipe when it could be resolved. Never raises for what a user gave; `ask` is only
    called for rows that are fit to be trained on, and may raise `TrainingError`."""
    began = time.monotonic()
    findings: list[Finding] = []
    request = _request(asked, findings)
    base, chat = _base(asked.base, findings)
    train = examine(asked.data)
    findings += train.findings
    counted = None
    if chat is not None:
        findings += template.look(chat, train.rows, train.file)
        findings += dataset.control_tokens(train.rows, chat.specials, train.file)
        if train.rows:
            counted = count(chat, train.rows, train.file)
            findings += counted.findings
    findings += dataset.look(train.rows, train.file)
    held = _validation(asked, train, findings)
    chosen, resolved = _resolve(asked, request, base, counted, train, findings)
    estimates: tuple[memory.Memory | None, duration.Estimate | None] = (None, None)
    if resolved is not None and base is not None and counted is not None:
        findings += too_long(counted, resolved.max_tokens, train.file)
        findings += serving.look(resolved, base, asked.fleet, asked.max_adapter_bytes, counted.tokens)
        estimates = _estimates(resolved, base, counted, train, machine, prices)
        findings += memory.look(estimates[0], machine.free_bytes)
    sound = not any(finding.severity is Severity.ERROR for finding in allow(findings, asked.allowed))
    baseline = ask(train.rows, held) if ask is not None and sound and train.rows else None
    report = Report(
        name=asked.name,
        data=train.file,
        rows=len(train.rows),
        tokens=None if counted is None else counted.tokens,
        steps=None if resolved is None else resolved.steps(kept(resolved, len(train.rows))),
        choices=chosen,
        findings=allow(findings, asked.allowed),
        memory=estimates[0],
        time=estimates[1],
        advice=advice.advise(train.rows, baseline) if train.rows else None,
        seconds=time.monotonic() - began,
    )
    return report, resolved


def kept(resolved: Recipe, rows: int) -> int:
    """Rows that are left to train on."""
    return max(1, rows - round(rows * resolved.validation_share))


def _request(asked: Asked, findings: list[Finding]) -> Request | None:
    try:
        return load(asked.recipe, asked.flags)
    except BadRecipe as bad:
        file = None if bad.source == "recipe" else bad.source
        findings += [error("recipe", each.message, each.fix, file, each.line) for each in bad.problems]
        return None


def _base(folder: Path, findings: list[Finding]) -> tuple[Shape | None, Chat | None]:
    base, chat = None, None
    try:
        base = Shape.read(folder)
        chat = Chat.read(folder)
    except (BaseError, NoChat, TrainingError) as problem:
        message, _, fix = str(problem).partition("; ")
        findings.append(error("base", message, fix or "hotswap base prepare"))
    return base, chat


def _validation(asked: Asked, train: Examined, findings: list[Finding]) -> Sequence[Row]:
    if asked.validation is None:
        return ()
    held = examine(asked.validation)
    findings += held.findings
    findings += dataset.leaks(train.rows, train.file, held.rows, held.file)
    return held.rows


def _resolve(
    asked: Asked,
    request: Request | None,
    base: Shape | None,
    counted: Counted | None,
    train: Examined,
    findings: list[Finding],
) -> tuple[tuple[Choice[Any], ...], Recipe | None]:
    if request is None or base is None or counted is None or not counted.lengths:
        return (), None
    try:
        chosen = choices(request, len(train.rows), counted.tokens, base, asked.fleet)
        return chosen, recipe(chosen)
    except BadRecipe as bad:
        findings += [
            error("recipe", each.message, each.fix, *_line(asked, each.key)) for each in bad.problems
        ]
    except TrainingError as problem:
        message, _, fix = str(problem).removeprefix("recipe: ").partition("; ")
        findings.append(error("recipe", message, fix or "leave it out"))
    return (), None


def _line(asked: Asked, key: str) -> tuple[str | None, int | None]:
    """Where `key` stands, when it was in a file and no flag stood over it."""
    from training.recipe.request import PRESETS, line_of

    if asked.recipe is None or asked.recipe in PRESETS or asked.flags.get(key) is not None:
        return None, None
    return asked.recipe, line_of(Path(asked.recipe), key)


def _estimates(
    resolved: Recipe, base: Shape, counted: Counted, train: Examined, machine: Machine, prices: Prices
) -> tuple[memory.Memory, duration.Estimate]:
    rows = kept(resolved, len(train.rows))
    lengths = [(length.tokens, length.learned) for length in counted.lengths]
    return (
        memory.estimate(base, resolved, memory.Batch.of(lengths, resolved.batch_size), machine.device),
        duration.estimate(base, resolved, counted.tokens, rows, machine, prices),
    )
