"""`hotswap files`: what is uploaded to train on, and what training left."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from gateway.cli.client import Gateway, as_json_option, fail, find, say, show, table


@click.group()
def files() -> None:
    """Upload, list, read and remove files."""


@files.command()
@click.option("--purpose", help="Only of this one.")
@as_json_option
def ls(purpose: str | None, as_json: bool) -> None:
    """List files, newest first."""
    params = {"purpose": purpose} if purpose else {}
    found = find().request("GET", "/v1/files", params=params)["data"]

    def lines(data: Any) -> Iterator[str]:
        rows = [
            (each["id"], each["purpose"], f"{each['bytes']:,}", _time(each["created_at"]), each["filename"])
            for each in data
        ]
        return table(("ID", "PURPOSE", "BYTES", "CREATED", "NAME"), rows)

    show(found, as_json, lines)


@files.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--purpose", default="fine-tune", show_default=True)
@as_json_option
def upload(path: Path, purpose: str, as_json: bool) -> None:
    """Upload a file of JSON Lines."""
    made = send(find(), path, purpose)
    show(made, as_json, lambda data: iter([data["id"]]))
    if purpose == "fine-tune":
        say(f"next: hotswap jobs create {made['id']}")


@files.command()
@click.argument("id")
def cat(id: str) -> None:
    """Print what is in a file."""
    import httpx

    gateway = find()
    gateway.request("GET", f"/v1/files/{id}")
    headers = {"authorization": f"Bearer {gateway.key}"}
    with httpx.stream("GET", f"{gateway.url}/v1/files/{id}/content", headers=headers, timeout=60) as answer:
        for chunk in answer.iter_bytes():
            sys.stdout.buffer.write(chunk)


@files.command()
@click.argument("ids", nargs=-1, required=True)
def rm(ids: tuple[str, ...]) -> None:
    """Remove files."""
    gateway = find()
    for id in ids:
        gateway.request("DELETE", f"/v1/files/{id}")
        click.echo(f"removed {id}")


def send(gateway: Gateway, path: Path, purpose: str) -> Any:
    """Uploads a file, as it is read; the file object."""
    if not path.is_file():
        fail(f"{path} is no file; name JSON Lines", code=2)
    with path.open("rb") as content:
        return gateway.request(
            "POST", "/v1/files", files={"file": (path.name, content)}, data={"purpose": purpose}
        )


def _time(at: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
