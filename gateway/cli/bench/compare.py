"""`hotswap bench compare A B`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from gateway.cli.client import as_json_option, fail


@click.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@as_json_option
def compare(a: Path, b: Path, as_json: bool) -> None:
    """What is different in run B against run A (folders), and whether that is more than noise.

    Exit code 4 when B is worse in anything.
    """
    from loadtests.compare import CompareError, Run, tables
    from loadtests.compare import compare as against
    from loadtests.samples import SamplesError
    from loadtests.tables import terminal

    try:
        comparison = against(Run.read(a), Run.read(b))
    except (CompareError, SamplesError) as error:
        fail(str(error))
    click.echo(json.dumps(comparison.to_json(), indent=1) if as_json else terminal(tables(comparison)))
    sys.exit(4 if any(each.verdict == "worse" for each in comparison.differences) else 0)
