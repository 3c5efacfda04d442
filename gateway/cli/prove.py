"""`hotswap adapters prove` and `card`: may this version take traffic?"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from gateway.cli.client import Gateway, as_json_option, fail, find, say, show, table

if TYPE_CHECKING:
    from gateway.settings import Settings


@click.command()
@click.argument("ref")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Held-out rows, as JSONL.")
@click.option("--learned", type=click.Path(path_type=Path), help="The rows that it was trained on.")
@click.option("--general", type=click.Path(path_type=Path), help="Rows of what it must not forget.")
@click.option("--max-tokens", default=256, show_default=True, help="Of an answer.")
@as_json_option
def prove(
    ref: str, data: Path, learned: Path | None, general: Path | None, max_tokens: int, as_json: bool
) -> None:
    """Measure what the gates judge, through the gateway, and keep the report card with the version.

    REF names a version (support@v3). It is compared with the stable version of its route, and with the base
    where there is none. Exit code 1 when a gate is not passed.
    """
    gateway = find()
    version = one_version(gateway, ref)
    card = proved(gateway, version, data, learned, general, max_tokens)
    show(card, as_json, lines)
    if not card["passed"]:
        failed = ", ".join(found["gate"] for found in card["findings"] if not found["passed"])
        fail(f"{version['name']} is not to be promoted: {failed}")
    say(f"next: hotswap adapters promote {version['name']}")


@click.command()
@click.argument("ref")
@as_json_option
def card(ref: str, as_json: bool) -> None:
    """Show the report card of a version: each gate, what was measured, and its bound."""
    show(card_of(find(), ref), as_json, lines)


def one_version(gateway: Gateway, ref: str) -> dict[str, Any]:
    """The version that REF names, as the admin API shows it; ends with code 2 for the name of an adapter."""
    version: dict[str, Any] = gateway.request("GET", f"/admin/v1/adapters/{quote(ref, safe='')}")
    if "versions" in version:
        fail(f"{ref} names no version; say which: {ref}@v3, or its digest", code=2)
    return version


def files_of(version: dict[str, Any], settings: Settings) -> Path:
    """The folder of a version's files; ends where they are not on this machine."""
    from adapters.store import Store

    folder = Store(settings.store_path).path(version["digest"])
    if not folder.is_dir():
        fail(f"the files of {version['name']} are not on this machine ({folder}); do this where they are")
    return folder


def card_of(gateway: Gateway, ref: str) -> dict[str, Any]:
    """The report card that is kept with a version."""
    kept: dict[str, Any] = gateway.request("GET", f"/admin/v1/adapters/{quote(ref, safe='')}/card")
    return kept


def proved(
    gateway: Gateway,
    version: dict[str, Any],
    data: Path,
    learned: Path | None,
    general: Path | None = None,
    max_tokens: int = 256,
) -> dict[str, Any]:
    """The report card of `version` (as the admin API shows it), measured now and kept with it."""
    from adapters.base.manifest import BaseError
    from gateway.settings import SettingsError, load

    try:
        from training.proving import Candidate
        from training.proving import prove as run
        from training.recipe import TrainingError
        from training.rows import read_rows

        settings = load()[0]
        candidate = Candidate(
            version=version["name"],
            folder=files_of(version, settings),
            stable=_before(gateway, version, settings.base.name),
            learned=read_rows(learned) if learned is not None else (),
            held_out=read_rows(data),
            general=read_rows(general) if general is not None else (),
        )
        manifest = version["manifest"]
        claimed = "" if manifest["base_assumed"] else manifest["base_fingerprint"]
        found = asyncio.run(
            run(
                candidate,
                settings.base_path,
                f"{gateway.url}/v1",
                gateway.key,
                claimed=claimed,
                say=say,
                max_tokens=max_tokens,
            )
        ).record()
    except (TrainingError, BaseError, SettingsError) as error:
        fail(str(error))
    except ImportError as error:
        fail(f"gates need the trainer's libraries ({error.name} is missing): pip install 'hotswap[training]'")
    gateway.request("PUT", f"/admin/v1/adapters/{quote(version['name'], safe='')}/card", json=found)
    return found


def _before(gateway: Gateway, version: dict[str, Any], base: str) -> str:
    """What the version would take the place of."""
    listed = gateway.request("GET", f"/admin/v1/adapters/{quote(version['adapter'], safe='')}")["versions"]
    stable = [each["name"] for each in listed if each["state"] == "stable"]
    return stable[0] if stable and stable[0] != version["name"] else base


def lines(card: dict[str, Any]) -> Iterator[str]:
    """The card as a table."""
    rows = [
        ("passed" if found["passed"] else "FAILED", found["gate"], found["measured"], found["bound"])
        for found in card["findings"]
    ]
    yield f"{card['version']}: {'passed' if card['passed'] else 'not passed'}"
    yield from table(("", "GATE", "MEASURED", "BOUND"), rows)
