"""`hotswap recipes`: what the presets are, and what each resolves to for given rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gateway.cli.client import as_json_option, fail, say, show, table


@click.group()
def recipes() -> None:
    """Show the presets, and what a recipe resolves to."""


@recipes.command(name="show")
@click.argument("recipe", required=False)
@click.option("--data", type=click.Path(path_type=Path), help="JSONL rows; without: a thousand short ones.")
@as_json_option
def show_(recipe: str | None, data: Path | None, as_json: bool) -> None:
    """Every value that RECIPE (quick, balanced, thorough or a TOML file) resolves to, and why.

    Without RECIPE: all presets beside each other.
    """
    from adapters.base.manifest import BaseError
    from gateway.cli.fleet_limits import fleet_limits
    from gateway.settings import SettingsError, load

    try:
        from training.preflight.counts import typical
        from training.recipe import TrainingError
        from training.recipe.request import PRESETS
        from training.recipe.request import load as read
        from training.recipe.resolve import choices
        from training.shape import Shape

        settings = load()[0]
        base, fleet = Shape.read(settings.base_path), fleet_limits(settings)
        rows, tokens = typical(settings.base_path, data)
        names = [recipe] if recipe else list(PRESETS)
        found = {name: choices(read(name), rows, tokens, base, fleet) for name in names}
    except (TrainingError, BaseError, SettingsError) as error:
        fail(str(error))
    shown: dict[str, Any] = {
        name: {each.name: {"value": each.value, "why": each.why} for each in chosen}
        for name, chosen in found.items()
    }
    kinds = [each.name for each in next(iter(found.values()))]

    def lines(data: dict[str, Any]) -> Any:
        if recipe:
            only = data[recipe]
            return table(
                ("", recipe, "why"), [(kind, _text(only[kind]["value"]), only[kind]["why"]) for kind in kinds]
            )
        columns = [[_text(data[name][kind]["value"]) for name in names] for kind in kinds]
        return table(("", *names), [(kind, *values) for kind, values in zip(kinds, columns, strict=True)])

    show(shown, as_json, lines)
    say(f"for {rows:,} rows on {base.name}; the fleet serves rank {fleet.max_rank} ({fleet.source})")
    say("next: hotswap train NAME --data rows.jsonl --recipe balanced --dry-run")


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, tuple):
        return ", ".join(value) or "-"
    return str(value)
