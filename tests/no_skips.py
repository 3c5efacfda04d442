"""A pytest plugin: with CI set, a skipped test fails the run; elsewhere it is named at the end.

A test that cannot run because a part is missing proves nothing, so it must not look like one that passed.
Loaded by `make test` with `-p tests.no_skips`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import pytest


@dataclass(eq=False)  # pytest keeps plugins in sets
class NoSkips:
    """Remembers what was skipped, and fails the session for it when `strict`."""

    strict: bool
    skipped: list[str] = field(default_factory=list)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self.skipped.append(f"{report.nodeid}: {_reason(report.longrepr)}")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self.skipped.append(f"{report.nodeid}: {_reason(report.longrepr)}")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.skipped and self.strict and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.skipped:
            verdict = "and that fails the run" if self.strict else "which fails the run in CI"
            terminalreporter.section(f"{len(self.skipped)} skipped, {verdict}", red=self.strict, yellow=True)
            for line in self.skipped:
                terminalreporter.line(line)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(NoSkips(strict=os.environ.get("CI", "") not in ("", "0", "false")))


def _reason(longrepr: Any) -> str:
    return str(longrepr[2]) if isinstance(longrepr, tuple) else str(longrepr)
