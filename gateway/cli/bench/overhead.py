"""`hotswap bench overhead`."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import click

from gateway.cli.client import as_json_option, fail, say, table


@click.command()
@click.option(
    "--tools",
    type=click.Path(path_type=Path),
    help="Folder with mock.c and load.c, the yardstick in C; without it the fake engine, less exactly.",
)
@click.option("--rounds", default=5, show_default=True, help="Turns that each system gets.")
@click.option("--cell", "cells", multiple=True, help="Only this cell; repeat for more.")
@click.option(
    "--against",
    multiple=True,
    metavar="NAME=URL[@PID]",
    help="Another gateway, already standing before the mock on --engine-port.",
)
@click.option("--against-model", default="mock", show_default=True, help="What it calls the model.")
@click.option("--against-key-env", help="Environment variable that holds its key.")
@click.option("--engine-port", type=int, help="Port of the mock, for --against; default: any.")
@as_json_option
def overhead(
    tools: Path | None,
    rounds: int,
    cells: tuple[str, ...],
    against: tuple[str, ...],
    against_model: str,
    against_key_env: str | None,
    engine_port: int | None,
    as_json: bool,
) -> None:
    """What the gateway itself costs: the same load directly and through it, by turns, on pinned cores.

    nginx is measured too, where it is installed, as a control for the speed of this machine today. Exit code
    4 when a bound does not hold.
    """
    from loadtests.overhead.processes import CannotBench
    from loadtests.overhead.systems import System
    from loadtests.overhead.verdict import bounds
    from loadtests.overhead.verdict import table as figures
    from loadtests.overhead.whole import overhead as perform

    if against and engine_port is None:
        fail("--against needs --engine-port: the other gateway must stand before the same mock", code=2)
    key = os.environ.get(against_key_env) if against_key_env else None
    with tempfile.TemporaryDirectory(prefix="hotswap-overhead-") as folder:
        try:
            results = perform(
                Path(folder),
                tools=tools,
                rounds=rounds,
                cells=cells,
                against=[System.parse(text, against_model, key) for text in against],
                engine_port=engine_port,
                tell=say,
            )
        except CannotBench as error:
            fail(str(error))
    held = list(bounds(results)) if tools is not None else []
    if as_json:
        click.echo(
            json.dumps(
                {
                    "rounds": [
                        {name: {cell: asdict(f) for cell, f in of.items()} for name, of in round_.items()}
                        for round_ in results.rounds
                    ],
                    "memory": {name: asdict(memory) for name, memory in results.memory.items()},
                    "bounds": [asdict(bound) for bound in held],
                },
                indent=1,
            )
        )
    else:
        for line in table(("CELL", "SYSTEM", "FIGURE", "MEDIAN (LOWEST TO HIGHEST)"), list(figures(results))):
            click.echo(line)
        click.echo()
        for bound in held:
            click.echo(f"{'holds' if bound.held else 'FAILS'}  {bound.line}: {bound.measured}")
    sys.exit(0 if all(bound.held for bound in held) else 4)
