"""`hotswap bench scenarios | plan | report`: what sends nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from gateway.cli.bench.asked import need_plots, scenario_of
from gateway.cli.client import as_json_option, fail, say, show, table


@click.command()
@as_json_option
def scenarios(as_json: bool) -> None:
    """The scenarios that come with Hotswap; each is a TOML file to copy and change."""
    from loadtests.scenario import shipped

    def lines(data: list[dict[str, Any]]) -> Iterator[str]:
        yield from table(("SCENARIO", "WHAT IT IS FOR"), [(one["name"], one["says"]) for one in data])

    show([{"name": one.name, "says": one.says} for one in shipped()], as_json, lines)
    say("next: hotswap bench run SCENARIO --routes support=3,base=1")


@click.command()
@click.argument("scenario")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="JSON Lines file to write.")
@click.option("--routes", help="Instead of the scenario's.")
@click.option("--rate", type=float, help="Instead of the scenario's.")
@click.option("--seconds", type=float, help="Length of the measured window.")
@click.option("--seed", type=int, help="Another seed, another plan; the same one, the same plan.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any key of the scenario.")
def plan(out: Path, **options: Any) -> None:
    """Write the plan of SCENARIO: every request that a run would send, and when. Nothing is sent."""
    scenario = scenario_of(options)
    from loadtests.plan import plan as make
    from loadtests.scenario import ScenarioError

    try:
        made = make(scenario)
    except ScenarioError as error:
        fail(str(error), code=2)
    made.save(out)
    click.echo(made.digest)
    say(f"{len(made.requests)} requests over {scenario.total_s:g} s in {out}")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def report(folder: Path) -> None:
    """Make report.md, report.csv and report.html of a run again, and print its tables."""
    need_plots()
    from loadtests.run import write_report
    from loadtests.tables import tables, terminal

    try:
        kept = json.loads((folder / "report.json").read_bytes())
    except (OSError, ValueError) as error:
        fail(f"{folder} holds no run: {error}")
    write_report(kept, folder)
    click.echo(terminal(tables(kept)))
