"""The verbs of `hotswap bench`."""

from __future__ import annotations

import click

from gateway.cli.lazy import Lazy, Verbs

VERBS: Verbs = {
    "run": ("gateway.cli.bench.run:run", "Offer a scenario's load and measure what comes back."),
    "search": ("gateway.cli.bench.search:search", "Find the highest rate that meets an SLO."),
    "compare": ("gateway.cli.bench.compare:compare", "Two runs against each other, with significance."),
    "scenarios": ("gateway.cli.bench.look:scenarios", "List the scenarios that come with Hotswap."),
    "plan": ("gateway.cli.bench.look:plan", "Write the requests that a run would send, and send none."),
    "report": ("gateway.cli.bench.look:report", "Make a run's report, tables and page again."),
    "overhead": ("gateway.cli.bench.overhead:overhead", "What the gateway itself costs, against direct."),
}


@click.group(cls=Lazy, verbs=VERBS)
def bench() -> None:
    """Load tests against this gateway, or any OpenAI endpoint (--url).

    \b
    hotswap bench run steady --routes support=3,base=1 --rate 2 --seconds 60
    hotswap bench search steady --routes support --ttft 0.5
    hotswap bench compare bench/steady-1 bench/steady-2

    Exit codes: 0 the run is good; 1 it could not be made; 2 wrong usage; 3 no gateway runs; 4 a threshold or
    the SLO was missed (or `compare` found B worse); 5 the generator was saturated, so the figures are not the
    server's; 6 no request was answered.
    """
