"""`hotswap fleet …`: what happened to the engines, and taking one out of service for a while."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import quote

import click

from gateway.cli.client import as_json_option, find, say, show, table


@click.group()
def fleet() -> None:
    """Engines: their events, and draining. `hotswap ps` shows what they hold."""


@fleet.command()
@click.option("--since", default=0, help="Only events after the one with this id.")
@click.option("--follow", is_flag=True, help="Go on until interrupted.")
@as_json_option
def events(since: int, follow: bool, as_json: bool) -> None:
    """What was loaded, evicted, ejected and recovered lately, and why."""
    gateway = find()
    while True:
        listed = gateway.request("GET", "/admin/v1/fleet/events", params={"since": since})["data"]
        if listed or not follow:
            show(listed, as_json, _lines)
        if not follow:
            return
        since = listed[-1]["id"] if listed else since
        time.sleep(1)


@fleet.command()
@click.argument("engine")
@as_json_option
def drain(engine: str, as_json: bool) -> None:
    """Send nothing new to ENGINE; what runs there ends. It holds until `resume`, restarts included."""
    done = find().request("POST", f"/admin/v1/fleet/{quote(engine)}/drain")
    show(done, as_json, lambda data: iter([f"engine {data['engine']} takes nothing new"]))
    say(f"next: hotswap ps, until it is drained; then hotswap fleet resume {engine}")


@fleet.command()
@click.argument("engine")
@as_json_option
def resume(engine: str, as_json: bool) -> None:
    """Let ENGINE have requests again."""
    done = find().request("POST", f"/admin/v1/fleet/{quote(engine)}/resume")
    show(done, as_json, lambda data: iter([f"engine {data['engine']} takes requests"]))


def _lines(listed: list[dict[str, Any]]) -> Iterator[str]:
    rows = [
        (
            each["id"],
            datetime.fromtimestamp(each["at"]).strftime("%H:%M:%S"),
            each["engine"],
            each["kind"],
            each["version"] or "-",
            each["reason"],
        )
        for each in listed
    ]
    yield from table(("ID", "AT", "ENGINE", "EVENT", "VERSION", "WHY"), rows)
