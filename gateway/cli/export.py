"""`hotswap adapters export`, `verify` and `push`: a version as a folder that runs elsewhere."""

from __future__ import annotations

from pathlib import Path

import click

from gateway.cli.client import fail, find, say
from gateway.cli.prove import card_of, files_of, one_version


@click.command()
@click.argument("ref")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The folder to write.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["merged", "gguf", "adapter"]),
    default="merged",
    show_default=True,
    help="Merged into the base as safetensors, or as GGUF with a Modelfile; or the PEFT folder.",
)
@click.option("--data", type=click.Path(path_type=Path), help="Rows by which it is compared with the served.")
@click.option("--no-check", is_flag=True, help="Do not compare it with what is served.")
@click.option("--sign", "key", type=click.Path(path_type=Path), help="A private key (PEM, EC) to sign with.")
def export(ref: str, out: Path, form: str, data: Path | None, no_check: bool, key: Path | None) -> None:
    """Write a version to a folder that runs without Hotswap, with a model card of where it comes from.

    REF names a version (support@v3). What was merged must say what PEFT and the served version say of the
    rows of --data, or nothing is written.
    """
    if form != "adapter" and data is None and not no_check:
        fail("give --data ROWS.jsonl, to compare it with what is served, or --no-check", code=2)
    from adapters.base.manifest import BaseError
    from gateway.settings import SettingsError, load

    gateway = find()
    version = one_version(gateway, ref)
    try:
        from training.export import export as run
        from training.export.check import Endpoint, compare
        from training.export.export import Exported
        from training.recipe import TrainingError

        settings = load()[0]
        folder = files_of(version, settings)

        def check(written: Path) -> None:
            if data is not None and not no_check and form != "adapter":
                say("comparing it with what is served")
                served = Endpoint(f"{gateway.url}/v1", gateway.key, settings.base.name, version["name"])
                say(compare(settings.base_path, folder, written, data, served).measured)

        card = card_of(gateway, ref) if version["proved"] is not None else None
        run(Exported(version, card, settings.base_path, folder), out, form, key, say, check)
    except (TrainingError, BaseError, SettingsError) as error:
        fail(str(error))
    except ImportError as error:
        extra = "signing" if error.name == "model_signing" else "training"
        fail(f"{error.name} is missing: pip install 'hotswap[{extra}]'")
    say(f"{version['name']} is in {out}")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("to", metavar="oci://HOST/NAME:TAG|hf://ORG/NAME")
@click.option("--insecure", is_flag=True, help="A registry without TLS.")
@click.option("--public", is_flag=True, help="A repository that is made on the hub is not private.")
def push(folder: Path, to: str, insecure: bool, public: bool) -> None:
    """Send an exported FOLDER to an OCI registry (docker login's credentials) or to a hub (HF_TOKEN)."""
    try:
        from training.export.push import push as run
        from training.recipe import TrainingError

        place = run(folder, to, insecure=insecure, public=public, say=say)
    except TrainingError as error:
        fail(str(error))
    except ImportError as error:
        extra = "registry" if error.name == "oras" else "training"
        fail(f"{error.name} is missing: pip install 'hotswap[{extra}]'")
    click.echo(place)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--key", required=True, type=click.Path(path_type=Path), help="The public key, PEM.")
def verify(folder: Path, key: Path) -> None:
    """Is every file of an exported FOLDER as it was signed? Exit code 1 when not."""
    try:
        from training.export.signature import verify as run
        from training.recipe import TrainingError

        run(folder, key)
    except TrainingError as error:
        fail(str(error))
    except ImportError as error:
        fail(f"{error.name} is missing: pip install 'hotswap[signing]'")
    say(f"{folder} is as it was signed")
