"""What a preflight says: a checklist with a verdict, for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from training.preflight.advice import Advice
from training.preflight.duration import Estimate
from training.preflight.findings import Finding, Severity
from training.preflight.memory import Memory
from training.recipe.resolve import Choice, Tokens

SHOWN = 10
"""Findings of one check that are listed; --json has all."""

SECTIONS = {
    "recipe": ("recipe",),
    "base": ("base", "template"),
    "file": ("file", "encoding", "row", "roles", "control_token"),
    "rows": ("few_rows", "duplicates", "conflicts", "same_answer", "near_empty", "echo", "system"),
    "length": ("too_long", "context"),
    "validation": ("leakage",),
    "fleet": ("fleet",),
    "memory": ("memory",),
    "time": ("time",),
}
"""The checklist: a line each, and the checks that it stands for."""


@dataclass(frozen=True, slots=True)
class Report:
    """All that was found out about a run before it. None: could not be known, findings say why."""

    name: str
    data: str
    rows: int
    tokens: Tokens | None
    steps: int | None
    choices: tuple[Choice[Any], ...]
    findings: tuple[Finding, ...]
    memory: Memory | None
    time: Estimate | None
    advice: Advice | None
    seconds: float

    @property
    def verdict(self) -> str:
        """ "no" with any error, "go with warnings" with any warning, "go" else."""
        severities = {finding.severity for finding in self.findings}
        if Severity.ERROR in severities:
            return "no"
        return "go with warnings" if Severity.WARNING in severities else "go"

    def as_dict(self) -> dict[str, Any]:
        """As --json prints it."""
        return {
            "name": self.name,
            "verdict": self.verdict,
            "data": self.data,
            "rows": self.rows,
            "tokens": None if self.tokens is None else asdict(self.tokens),
            "steps": self.steps,
            "recipe": {each.name: {"value": each.value, "why": each.why} for each in self.choices},
            "findings": [asdict(finding) for finding in self.findings],
            "memory": None if self.memory is None else self.memory.as_dict(),
            "time": None if self.time is None else self.time.as_dict(),
            "advice": None if self.advice is None else asdict(self.advice),
            "seconds": round(self.seconds, 2),
        }


def lines(report: Report) -> Iterator[str]:
    """The checklist, then the findings, then what it takes, then advice, then the verdict."""
    for section, checks in SECTIONS.items():
        of_section = [finding for finding in report.findings if finding.check in checks]
        said = _said(report, section)
        if said or of_section:
            yield f"{_mark(of_section)}  {section:<10}  {said or _counted(of_section)}"
        yield from _listed(of_section)
    if report.choices:
        yield ""
        yield from _recipe(report.choices)
    for part in (report.memory, report.time):
        if part is not None:
            yield ""
            yield from part.lines()
    if report.advice is not None:
        yield ""
        yield from report.advice.lines()
    yield ""
    counts = _counted(report.findings)
    yield f"verdict: {report.verdict}" + (f" ({counts})" if counts else "") + f", in {report.seconds:.1f} s"


def _mark(findings: Iterable[Finding]) -> str:
    severities = {finding.severity for finding in findings}
    if Severity.ERROR in severities:
        return "NO  "
    return "warn" if Severity.WARNING in severities else "ok  "


def _said(report: Report, section: str) -> str:
    tokens = report.tokens
    about = "" if tokens is None or tokens.exact else "about "
    match section:
        case "recipe" if report.choices:
            values = {each.name: each.value for each in report.choices}
            return (
                f"{values['method']}, rank {values['rank']}, learning rate {values['learning_rate']:g}, "
                f"{values['epochs']:g} epochs, batch {values['batch_size']}: {report.steps:,} steps"
            )
        case "file":
            return f"{report.data}: {report.rows:,} usable rows"
        case "length" if tokens is not None:
            return (
                f"{about}{tokens.total:,} tokens, {tokens.learned:,} of them learned; longest row "
                f"{tokens.longest:,}, 95 % up to {tokens.typical:,}"
            )
        case "memory" if report.memory is not None:
            return report.memory.summary
        case "time" if report.time is not None:
            return report.time.summary
        case _:
            return ""


def _counted(findings: Iterable[Finding]) -> str:
    counts = {
        severity: sum(finding.severity is severity for finding in findings)
        for severity in (Severity.ERROR, Severity.WARNING)
    }
    return ", ".join(
        f"{count:,} {severity}{'s' * (count != 1)}" for severity, count in counts.items() if count
    )


def _listed(findings: Iterable[Finding]) -> Iterator[str]:
    by_check: dict[str, list[Finding]] = {}
    for finding in findings:
        by_check.setdefault(finding.check, []).append(finding)
    for check, found in by_check.items():
        for finding in found[:SHOWN]:
            yield f"        {finding.severity:<7}  {finding}  [{check}]"
        if len(found) > SHOWN:
            yield f"        and {len(found) - SHOWN:,} more of {check} (--json lists all)"


def _recipe(choices: Iterable[Choice[Any]]) -> Iterator[str]:
    shown = [
        each for each in choices if each.value not in (None, (), False, 0, 0.0) or each.why == "asked for"
    ]
    names = max(len(each.name) for each in shown)
    yield "the recipe, resolved:"
    for each in shown:
        yield f"  {each.name:<{names}}  {each.value!s:<10}  {each.why}"
