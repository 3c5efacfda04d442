"""`hotswap ps`: what is resident where."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from gateway.cli.client import as_json_option, find, show, table


@click.command()
@as_json_option
def ps(as_json: bool) -> None:
    """Engines, their state, and the versions each one holds."""
    show(find().request("GET", "/admin/v1/fleet")["data"], as_json, _lines)


def _lines(engines: list[dict[str, Any]]) -> Iterator[str]:
    headings = (
        *("ENGINE", "URL", "STATUS", "DEVICE", "PID", "UPTIME"),
        *("RESTARTS", "IN FLIGHT", "WAITING", "REASON"),
    )
    yield from table(
        headings,
        [
            (
                engine["engine"],
                engine["url"] or "-",
                _status(engine),
                engine["device"] or "-",
                engine["pid"] or "-",
                f"{engine['uptime_s']:.0f}s" if engine["uptime_s"] is not None else "-",
                engine["restarts"],
                engine["in_flight"],
                engine["waiting"],
                engine["ejected"] or engine["reason"] or engine["degraded"] or "",
            )
            for engine in engines
        ],
    )
    rows = [
        (
            version["name"],
            engine["engine"],
            version["residency"] + (", pinned" if version["pinned"] else ""),
            version["in_flight"],
            version["waiting"],
            f"{version['idle_s']:.0f}s" if version["idle_s"] is not None else "-",
        )
        for engine in engines
        for version in engine["versions"]
    ]
    if rows:
        yield ""
        yield from table(("VERSION", "ENGINE", "RESIDENCY", "IN FLIGHT", "WAITING", "IDLE"), rows)


def _status(engine: dict[str, Any]) -> str:
    if engine["ejected"] is not None:
        return "ejected"
    if engine["draining"]:
        return "draining" if engine["in_flight"] else "drained"
    return str(engine["status"])
