"""`hotswap keys …`: API keys, over the admin API."""

from __future__ import annotations

import click

from gateway.cli.client import as_json_option, find, say, show, table


@click.group()
def keys() -> None:
    """API keys: `inference` for apps, `admin` for everything."""


@keys.command()
@click.option("--role", type=click.Choice(["inference", "admin"]), default="inference", show_default=True)
@click.option("--label", default="", help="What it is for.")
@click.option("--tenant", default="default", show_default=True, help="Whose it is: tenants do not meet.")
@as_json_option
def create(role: str, label: str, tenant: str, as_json: bool) -> None:
    """Make a key. It is shown once; only its hash is kept."""
    made = find().request("POST", "/admin/v1/keys", json={"role": role, "label": label, "tenant": tenant})
    show(made, as_json, lambda key: iter([key["secret"]]))
    say(f"key {made['id']} made; it is not shown again. next: export OPENAI_API_KEY=…")


@keys.command()
@as_json_option
def ls(as_json: bool) -> None:
    """Every key that is in force."""
    headings = ("ID", "ROLE", "TENANT", "LABEL", "CREATED")
    show(
        find().request("GET", "/admin/v1/keys")["data"],
        as_json,
        lambda rows: table(
            headings, [(k["id"], k["role"], k["tenant"], k["label"], k["created_at"]) for k in rows]
        ),
    )


@keys.command()
@click.argument("key_id")
@as_json_option
def revoke(key_id: str, as_json: bool) -> None:
    """Revoke a key, at once."""
    show(
        find().request("DELETE", f"/admin/v1/keys/{key_id}"),
        as_json,
        lambda data: iter([f"revoked {data['revoked']}"]),
    )
