"""A group of commands whose modules are imported when they are called, so that --help answers at once."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import click

Verbs = Mapping[str, tuple[str, str]]
"""Name -> ("module:attribute", one line for --help)."""


class Lazy(click.Group):
    """`@click.group(cls=Lazy, verbs=VERBS)`."""

    def __init__(self, *arguments: object, verbs: Verbs, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self._verbs = verbs

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self._verbs)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in self._verbs:
            return None
        module, _, attribute = self._verbs[name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self._verbs.items()])
