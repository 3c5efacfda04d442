"""`hotswap bench search SCENARIO`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.cli.bench.asked import asked_of, scenario_of, sends_requests, telling, told
from gateway.cli.client import fail, say

if TYPE_CHECKING:
    from loadtests.search import Probe


@click.command()
@sends_requests
@click.option("--ttft", type=float, help="SLO: seconds to the first token, from the scheduled send.")
@click.option("--tpot", type=float, help="SLO: seconds for each further token.")
@click.option("--e2e", type=float, help="SLO: seconds to the end of the answer.")
@click.option("--share", type=float, help="Share of requests that must meet it; default: the scenario's.")
@click.option("--from-rate", default=1.0, show_default=True, help="Where to begin, requests a second.")
@click.option("--to-rate", default=10_000.0, show_default=True, help="Look no higher.")
@click.option("--precision", default=0.05, show_default=True, help="Width of the last bracket.")
@click.option("--max-probes", default=40, show_default=True, help="Give up after so many runs.")
def search(
    as_json: bool,
    out: Path,
    ttft: float | None,
    tpot: float | None,
    e2e: float | None,
    share: float | None,
    from_rate: float,
    to_rate: float,
    precision: float,
    max_probes: int,
    **options: Any,
) -> None:
    """Find the highest rate at which SCENARIO meets its SLO with a steady backlog: open-loop runs, bisected.

    Each run lasts the scenario's warm-up and --seconds: long enough for a backlog to show.
    """
    slo = {"slo.ttft_s": ttft, "slo.tpot_s": tpot, "slo.e2e_s": e2e, "slo.share": share}
    settings = [f"{key}={value}" for key, value in slo.items() if value is not None]
    scenario = scenario_of({**options, "settings": [*options["settings"], *settings]})
    if scenario.slo.ttft_s is scenario.slo.tpot_s is scenario.slo.e2e_s is None:
        fail("a search needs an SLO: give --ttft, --tpot or --e2e, or a scenario that has one", code=2)
    asked = asked_of(options)
    from loadtests.processes import ProcessDied
    from loadtests.run import find_rate, folder_for, keep
    from loadtests.search import Search
    from loadtests.tables import tables, terminal
    from loadtests.target import TargetError

    def tell(probe: Probe) -> None:
        told()
        say(f"{probe.rate:g}/s: {'holds' if probe.passed else 'does not hold'} {probe.why}".rstrip())

    try:
        limits = Search(from_rate, to_rate, precision, scenario.slo.share, max_probes)
        found, chosen = find_rate(scenario, asked, limits, tell, telling(scenario.name))
    except (TargetError, ProcessDied) as error:
        fail(str(error))
    except ValueError as error:
        fail(str(error), code=2)
    folder = folder_for(scenario, out)
    keep(chosen, folder)
    click.echo(
        json.dumps(found.to_json(), indent=1) if as_json else terminal(tables(chosen.report)),
    )
    say(f"kept in {folder} (report.html has the knee)")
    sys.exit(0 if found.rate is not None else 4)
