"""How a verb reaches the gateway, and how it shows what came back.

The gateway's address is HOTSWAP_URL or what the running gateway wrote in its state folder; the key is
HOTSWAP_API_KEY or the admin key file there. Data goes to stdout, everything else to stderr.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

NO_GATEWAY = 3
Decorated = TypeVar("Decorated", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Gateway:
    """Where it is and how to authenticate."""

    url: str
    key: str

    def request(self, method: str, path: str, **options: Any) -> Any:
        """The JSON answer. A refusal is printed with its message and ends the command with exit code 1."""
        import httpx

        headers = {"authorization": f"Bearer {self.key}", **options.pop("headers", {})}
        try:
            response = httpx.request(
                method, self.url + path, headers=headers, timeout=options.pop("timeout", 600), **options
            )
        except httpx.TransportError as error:
            fail(f"no gateway answers at {self.url} ({error}). Start one: hotswap up", code=NO_GATEWAY)
        if response.is_success:
            return response.json() if response.content else None
        fail(message_of(response.text, response.status_code))


def message_of(text: str, status: int) -> str:
    """The message inside OpenAI's error body, or the text itself."""
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the gateway answered {status}: {text[:300]}"


def running() -> Gateway | None:
    """The running gateway, None when there is none: for verbs that can do without."""
    if "HOTSWAP_URL" not in os.environ and _recorded(_state_dir()) is None:
        return None
    return find()


def find(state_dir: Path | None = None) -> Gateway:
    """The running gateway. Ends the command with exit code 3 when there is none."""
    folder = state_dir or _state_dir()
    url = os.environ.get("HOTSWAP_URL") or _recorded(folder)
    if url is None:
        fail(f"no gateway is running from {folder}. Start one: hotswap up", code=NO_GATEWAY)
    key = os.environ.get("HOTSWAP_API_KEY")
    if key is None:
        try:
            key = (folder / "admin.key").read_text().strip()
        except OSError:
            fail(f"no API key: set HOTSWAP_API_KEY (there is no readable {folder / 'admin.key'})")
    return Gateway(str(url).rstrip("/"), key)


def _recorded(folder: Path) -> str | None:
    """Where the gateway of that folder says that it listens."""
    try:
        return str(json.loads((folder / "gateway.json").read_text())["url"])
    except (OSError, ValueError, KeyError):
        return None


def _state_dir() -> Path:
    from gateway.settings import SettingsError, load

    try:
        return load()[0].state_dir
    except SettingsError as error:
        fail(str(error), code=2)


def fail(message: str, code: int = 1) -> NoReturn:
    click.echo(f"hotswap: {message}", err=True)
    sys.exit(code)


def say(message: str) -> None:
    """Progress and hints, for people: stderr."""
    click.echo(message, err=True)


def show(data: Any, as_json: bool, lines: Callable[[Any], Iterator[str]]) -> None:
    """Data on stdout: as JSON, or as `lines(data)`."""
    if as_json:
        click.echo(json.dumps(data, indent=2, default=str))
        return
    for line in lines(data):
        click.echo(line)


def table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    """Columns as wide as their widest cell."""
    cells = [list(headings), *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def details(pairs: Mapping[str, Any]) -> Iterator[str]:
    width = max(map(len, pairs), default=0)
    for name, value in pairs.items():
        yield f"{name.ljust(width)}  {value}"


def as_json_option(command: Decorated) -> Decorated:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")(command)
