"""What a check found: where, what, and what to do about it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum


class Severity(StrEnum):
    """An error forbids the run, a warning does not, a note is only said."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """`check` is the name by which `--allow` takes it; `line` is in `file`, from 1."""

    check: str
    severity: Severity
    message: str
    fix: str = ""
    file: str | None = None
    line: int | None = None

    @property
    def where(self) -> str:
        """`file:line`, as editors take it."""
        return (self.file or "") + ("" if self.line is None else f":{self.line}")

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.message}" + (f". Fix: {self.fix}" if self.fix else "")


STRICT = frozenset({"file", "encoding", "row", "recipe", "base", "template", "too_long"})
"""Checks that nobody may wave through: the run would fail, or its result could not be served."""


def error(check: str, message: str, fix: str, file: str | None = None, line: int | None = None) -> Finding:
    return Finding(check, Severity.ERROR, message, fix, file, line)


def warning(check: str, message: str, fix: str, file: str | None = None, line: int | None = None) -> Finding:
    return Finding(check, Severity.WARNING, message, fix, file, line)


def note(check: str, message: str, file: str | None = None) -> Finding:
    return Finding(check, Severity.NOTE, message, "", file)


def allow(findings: Iterable[Finding], allowed: Collection[str]) -> tuple[Finding, ...]:
    """Errors of the checks in `allowed` become warnings, save those of `STRICT` checks."""
    return tuple(
        replace(each, severity=Severity.WARNING)
        if each.severity is Severity.ERROR and each.check in allowed and each.check not in STRICT
        else each
        for each in findings
    )
