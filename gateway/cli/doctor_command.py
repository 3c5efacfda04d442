"""`hotswap doctor`: what this machine lacks."""

from __future__ import annotations

import sys

import click


@click.command()
@click.option("--fix", is_flag=True, help="Mend what can be mended.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
def doctor(fix: bool, as_json: bool) -> None:
    """Say what this machine has and lacks for serving and training."""
    from gateway.cli.doctor import run

    sys.exit(run(fix=fix, as_json=as_json))
