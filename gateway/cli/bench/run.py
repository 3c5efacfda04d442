"""`hotswap bench run SCENARIO`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from gateway.cli.bench.asked import EXIT_CODES, asked_of, scenario_of, sends_requests, telling, told
from gateway.cli.client import fail, say


@click.command()
@sends_requests
@click.option("--threshold", "thresholds", multiple=True, help="Fail when it holds: 'ttft.p99>1.0'. For CI.")
def run(as_json: bool, out: Path, thresholds: tuple[str, ...], **options: Any) -> None:
    """Offer the load of SCENARIO (a name from `bench scenarios`, or a TOML file) and measure the answers."""
    scenario = scenario_of(options)
    asked = asked_of(options, thresholds)
    from loadtests.faults import FaultError
    from loadtests.processes import ProcessDied
    from loadtests.run import folder_for, keep
    from loadtests.run import run as perform
    from loadtests.scenario import ScenarioError
    from loadtests.tables import tables, terminal
    from loadtests.target import TargetError
    from loadtests.thresholds import ThresholdError

    try:
        done = perform(scenario, asked, telling(scenario.name))
    except (ScenarioError, ThresholdError, FaultError) as error:
        fail(str(error), code=2)
    except (TargetError, ProcessDied) as error:
        fail(str(error))
    told()
    folder = folder_for(scenario, out)
    keep(done, folder)
    click.echo(json.dumps(done.report, indent=1) if as_json else terminal(tables(done.report)))
    say(f"kept in {folder} (report.html has the plots)\nnext: hotswap bench compare {folder} ANOTHER")
    sys.exit(EXIT_CODES[done.report["verdict"]])
