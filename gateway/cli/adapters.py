"""`hotswap adapters …`: the registry, over the admin API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from gateway.cli.client import as_json_option, details, fail, find, say, show, table
from gateway.cli.export import export, push, verify
from gateway.cli.prove import card, prove


@click.group()
def adapters() -> None:
    """Adapters and their versions. A REF is a name, name@v3 or name@3f9c2ab71e04."""


adapters.add_command(prove)
adapters.add_command(card)
adapters.add_command(export)
adapters.add_command(verify)
adapters.add_command(push)


@adapters.command()
@click.argument("name")
@click.argument("source")
@click.option("--promote", is_flag=True, help="Make it the stable version of its route at once.")
@click.option("--assume-base", is_flag=True, help="Accept weights that do not say which base they are for.")
@as_json_option
def add(name: str, source: str, promote: bool, assume_base: bool, as_json: bool) -> None:
    """Register the PEFT folder SOURCE (or a hub id) as a new version of NAME.

    The first version of a name serves its route at once; later ones wait for `promote`.
    """
    from adapters.archive import pack

    gateway = find()
    folder = _folder(source)
    version = gateway.request(
        "POST",
        f"/admin/v1/adapters/{_quote(name)}/versions",
        params={"promote": promote, "assume_base": assume_base},
        content=pack(folder),
        headers={"content-type": "application/x-tar"},
    )
    show(version, as_json, _version_lines)
    if version["state"] == "stable":
        say(f"next: hotswap run {name} 'your prompt'")
    else:
        say(f"next: hotswap run {version['name']} 'prompt', then hotswap adapters promote {version['name']}")


@adapters.command()
@as_json_option
def ls(as_json: bool) -> None:
    """Every adapter: its stable version and how many there are."""
    listed = find().request("GET", "/admin/v1/adapters")["data"]
    headings = ("NAME", "STABLE", "VERSION", "VERSIONS", "BYTES")
    show(
        listed,
        as_json,
        lambda rows: table(
            headings,
            [
                (r["name"], r["stable"]["name"], f"v{r['stable']['number']}", r["versions"], r["size_bytes"])
                for r in rows
            ],
        ),
    )
    if not listed:
        say("no adapters yet. next: hotswap adapters add NAME PATH")


@adapters.command(name="show")
@click.argument("ref")
@as_json_option
def show_(ref: str, as_json: bool) -> None:
    """One adapter with its versions, or one version with its manifest."""
    show(find().request("GET", f"/admin/v1/adapters/{_quote(ref)}"), as_json, _shown_lines)


@adapters.command()
@click.argument("ref")
@click.option("--dry-run", is_flag=True, help="Say what would go, and stop.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json_option
def rm(ref: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Remove a version, or an adapter with all its versions. Running requests are finished first."""
    gateway = find()
    if dry_run or not yes:
        found = gateway.request("GET", f"/admin/v1/adapters/{_quote(ref)}")
        names = [v["name"] for v in found["versions"]] if "versions" in found else [found["name"]]
        say(f"removes {len(names)} version(s): {', '.join(names)}")
        if dry_run:
            return
        click.confirm("remove?", abort=True, err=True)
    removed = gateway.request("DELETE", f"/admin/v1/adapters/{_quote(ref)}")
    show(removed, as_json, lambda data: iter(f"removed {name}" for name in data["removed"]))


@adapters.command()
@click.argument("ref")
@click.option("--force", is_flag=True, help="Also without a passed report card; it is recorded.")
@as_json_option
def promote(ref: str, force: bool, as_json: bool) -> None:
    """Make REF the stable version of its route. It needs a passed report card: hotswap adapters prove."""
    version = find().request("POST", f"/admin/v1/adapters/{_quote(ref)}/promote", params={"force": force})
    show(version, as_json, _version_lines)
    say(f"next: hotswap adapters rollback {version['adapter']} brings the one before it back")


@adapters.command()
@click.argument("name")
@as_json_option
def rollback(name: str, as_json: bool) -> None:
    """Bring the previous stable version of a route back."""
    show(find().request("POST", f"/admin/v1/adapters/{_quote(name)}/rollback"), as_json, _version_lines)


@adapters.command()
@click.argument("a")
@click.argument("b")
@as_json_option
def diff(a: str, b: str, as_json: bool) -> None:
    """What differs between two versions: configuration, weights, lineage."""
    found = find().request("GET", f"/admin/v1/adapters/{_quote(a)}/diff", params={"other": b})
    show(found, as_json, _flat_lines)


@adapters.command()
@as_json_option
def gc(as_json: bool) -> None:
    """Delete the files of versions that nothing may serve again."""
    gone = find().request("POST", "/admin/v1/collect")
    show(gone, as_json, lambda data: iter(f"deleted {name}" for name in data["deleted"]))


@adapters.command()
@click.argument("ref")
@as_json_option
def pin(ref: str, as_json: bool) -> None:
    """Keep the version REF resident at its engines, used or not."""
    done = find().request("POST", f"/admin/v1/adapters/{_quote(ref)}/pin")
    show(done, as_json, lambda data: iter([f"{data['version']} stays resident"]))


@adapters.command()
@click.argument("ref")
@as_json_option
def unpin(ref: str, as_json: bool) -> None:
    """Let the version REF make room for others again."""
    done = find().request("POST", f"/admin/v1/adapters/{_quote(ref)}/unpin")
    show(done, as_json, lambda data: iter([f"{data['version']} may be evicted"]))


def _folder(source: str) -> Path:
    """`source` as a local folder; anything of the form owner/name that is not one comes from the hub."""
    folder = Path(source)
    if folder.is_dir():
        return folder
    if source.count("/") == 1 and not source.startswith((".", "/", "~")):
        return _from_hub(source)
    fail(f"{source!r} is neither a folder nor a hub id (owner/name)")


def _from_hub(repository: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        fail("reading from the hub needs huggingface_hub: pip install 'hotswap[training]'")
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = ["adapter_config.json", "adapter_model.safetensors", "hotswap.json"]
    try:
        return Path(snapshot_download(repository, allow_patterns=wanted))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        fail(
            f"cannot fetch {repository!r} from the hub ({reason}). Download it elsewhere and give its folder"
        )


def _quote(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="@")


def _version_lines(version: dict[str, Any]) -> Iterator[str]:
    yield from details(
        {
            "version": version["name"],
            "number": f"v{version['number']}",
            "state": version["state"],
            "proved": {True: "yes", False: "no: hotswap adapters card", None: "not yet"}[version["proved"]],
            "rank": version["rank"],
            "bytes": version["size_bytes"],
            "created": version["created_at"],
        }
    )
    if version.get("created") is False:
        yield "(the same content was registered before: nothing new was made)"


def _shown_lines(found: dict[str, Any]) -> Iterator[str]:
    if "versions" not in found:
        yield from _version_lines(found)
        yield from _flat_lines({"manifest": found["manifest"]})
        return
    headings = ("VERSION", "NUMBER", "STATE", "RANK", "BYTES", "CREATED")
    rows = [
        (v["name"], f"v{v['number']}", v["state"], v["rank"], v["size_bytes"], v["created_at"])
        for v in found["versions"]
    ]
    yield from table(headings, rows)


def _flat_lines(data: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(data, dict):
        for name, value in data.items():
            yield from _flat_lines(value, f"{prefix}.{name}" if prefix else str(name))
    else:
        yield f"{prefix} = {data}"
