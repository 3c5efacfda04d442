"""`hotswap config check`: each setting, its value and where it came from."""

from __future__ import annotations

from pathlib import Path

import click

from gateway.cli.client import as_json_option, fail, show, table


@click.group()
def config() -> None:
    """The settings: flag > environment (HOTSWAP_SECTION__KEY) > hotswap.toml > default."""


@config.command()
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings file.")
@as_json_option
def check(config_file: Path | None, as_json: bool) -> None:
    """Print each value and where it came from; exit with 2 when something is wrong."""
    from gateway.settings import SettingsError, describe, load, value_of

    try:
        settings, origin = load(config_file)
    except SettingsError as error:
        fail(str(error), code=2)
    rows = [
        {"key": key, "value": str(value_of(settings, key)), "from": origin[key], "meaning": meaning}
        for key, meaning in describe()
    ]
    headings = ("SETTING", "VALUE", "FROM", "MEANING")
    show(rows, as_json, lambda data: table(headings, [list(row.values()) for row in data]))
