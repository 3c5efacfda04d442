"""`hotswap traffic …`: what was asked and answered, and what is remembered of it. Over the admin API."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import quote

import click

from gateway.cli.client import Gateway, as_json_option, fail, find, say, show, table
from gateway.cli.traffic_import import import_

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
_SPANS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class When(click.ParamType):  # type: ignore[type-arg]
    """A time: `2026-11-24`, `2026-11-24T14:00`, or so long ago: `90s`, `15m`, `3h`, `7d`."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if span := re.fullmatch(r"([0-9]+)([smhd])", str(value)):
            return time.time() - int(span[1]) * _SPANS[span[2]]
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no time; write 2026-11-24T14:00 (UTC), or 3h for three hours ago")
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def filters(command: Decorated) -> Decorated:
    """The options that choose exchanges."""
    for option in reversed(
        (
            click.option("--route", help="Only of this route."),
            click.option("--version", help="Only answered by this version, as support@3f9c2ab71e04."),
            click.option("--unit", help="Only for this unit."),
            click.option("--key", help="Only with the key of this id."),
            click.option("--tenant", help="Only of this tenant."),
            click.option("--since", type=When(), help="From then on: 2026-11-24T14:00 (UTC), or 3h ago."),
            click.option("--until", type=When(), help="Before then."),
            click.option("--error", help="Only with this error; `any`, or `none`."),
            click.option("--feedback", help="Only with feedback: any, up, down, or corrected."),
            click.option("--text", help="Only with these words, in the question or in the answer."),
        )
    ):
        command = option(command)
    return command


@click.group()
def traffic() -> None:
    """What was asked and answered: list it, look at it, count it, export it, import it."""


traffic.add_command(import_)


@traffic.command()
@filters
@click.option("--limit", default=20, show_default=True, help="How many, newest first.")
@click.option("--after", help="Go on after this cursor, the `next` of a page.")
@as_json_option
def ls(limit: int, after: str | None, as_json: bool, **chosen: Any) -> None:
    """List exchanges, newest first."""
    page = find().request("GET", "/admin/v1/traffic", params=_given(**chosen, limit=limit, after=after))
    show(page, as_json, lambda data: _listed(data["data"]))
    if page["next"] and not as_json:
        say(f"next: hotswap traffic ls --after {page['next']}, or show ID")


@traffic.command(name="show")
@click.argument("id")
@as_json_option
def show_one(id: str, as_json: bool) -> None:
    """Show one exchange, every word. ID is an answer's id or a request id."""
    show(find().request("GET", f"/admin/v1/traffic/{quote(id, safe='')}"), as_json, _shown)


@traffic.command()
@filters
@click.option("--lines", default=10, show_default=True, help="How many that are there already.")
def tail(lines: int, **chosen: Any) -> None:
    """Show exchanges as they come, until interrupted."""
    gateway = find()
    newest = gateway.request("GET", "/admin/v1/traffic", params=_given(**chosen, limit=lines))["data"]
    rows = list(reversed(newest))
    for line in _listed(rows):
        click.echo(line)
    cursor = _cursor(rows[-1]) if rows else f"{round(time.time() * 1e6)}-"
    while True:
        time.sleep(1)
        asked = _given(**chosen, limit=1000, after=cursor, oldest_first=True)
        rows = gateway.request("GET", "/admin/v1/traffic", params=asked)["data"]
        for line in list(_listed(rows))[1:]:
            click.echo(line)
        cursor = _cursor(rows[-1]) if rows else cursor


@traffic.command()
@filters
@as_json_option
def stats(as_json: bool, **chosen: Any) -> None:
    """Count requests, errors, tokens and times, by route and version."""
    data = find().request("GET", "/admin/v1/traffic/stats", params=_given(**chosen))
    show(data["data"], as_json, _counted)


@traffic.command()
@filters
@click.option("--limit", type=int, help="At most so many; default: all.")
@click.option("--out", type=click.File("wb"), default="-", help="A file; default: standard output.")
def export(limit: int | None, out: Any, **chosen: Any) -> None:
    """Write exchanges as JSON Lines in OpenAI's chat format, ready to train on."""
    gateway = find()
    asked = _given(**chosen, **({"all": True} if limit is None else {"limit": limit}))
    lines = 0
    began = time.monotonic()
    for piece in _stream(gateway, "/admin/v1/traffic/export", asked):
        out.write(piece)
        lines += piece.count(b"\n")
        if sys.stderr.isatty():
            click.echo(f"\r{lines:,} exchanges", nl=False, err=True)
    took = max(time.monotonic() - began, 1e-9)
    say(f"{lines:,} exchanges in {took:.1f} s")


@traffic.command()
@click.option("--unit", help="All that was asked for this unit until now.")
@click.option("--key", help="All that was asked with the key of this id until now.")
@click.option("--request", help="One exchange, by its answer's id or request id.")
@click.option("--tenant", default="default", show_default=True, help="Whose.")
@as_json_option
def forget(tenant: str, as_json: bool, **named: str | None) -> None:
    """Forget exchanges: nobody reads them from now on, and they are erased. `forgotten` tells how far."""
    chosen = [(kind, value) for kind, value in named.items() if value is not None]
    if len(chosen) != 1:
        raise click.UsageError("name one: --unit UNIT, --key KEY_ID or --request ID")
    kind, value = chosen[0]
    wish = {"kind": kind, "value": value, "tenant": tenant}
    done = find().request("POST", "/admin/v1/traffic/forgotten", json=wish)
    show(done, as_json, lambda data: iter([f"{data['id']}: nobody reads it any more; it is being erased"]))


@traffic.command()
@as_json_option
def forgotten(as_json: bool) -> None:
    """Every wish to forget, whether it is fulfilled, and which datasets and versions learned from it."""
    data = find().request("GET", "/admin/v1/traffic/forgotten")["data"]
    headings = ("ID", "KIND", "VALUE", "TENANT", "UNTIL", "ERASED", "ROWS", "DATASETS", "VERSIONS")
    names = ("id", "kind", "value", "tenant", "until", "erased_at", "rows_erased")
    rows = [(*(_or_dash(wish[name]) for name in names), *_learned(wish)) for wish in data]
    show(data, as_json, lambda _: table(headings, rows))
    if any(not each["scrubbed"] for wish in data for each in wish["datasets"]):
        say("next: hotswap datasets scrub, where the datasets are")


def _learned(wish: dict[str, Any]) -> tuple[str, str]:
    held = (
        f"{each['name']} ({each['exchanges']}, {'scrubbed' if each['scrubbed'] else 'not scrubbed'})"
        for each in wish["datasets"]
    )
    return ", ".join(held) or "-", ", ".join(wish["versions"]) or "-"


@traffic.group()
def policy() -> None:
    """What is remembered of which exchange. Where a route's and a key's differ, the stricter holds."""


@policy.command(name="ls")
@as_json_option
def policy_ls(as_json: bool) -> None:
    """Every rule, and what holds without one."""
    show(find().request("GET", "/admin/v1/traffic/policies"), as_json, _rules)


@policy.command(name="set")
@click.option("--route", help="For this route.")
@click.option("--key", help="For the key of this id.")
@click.option("--capture", type=click.Choice(["off", "metadata", "full"]))
@click.option("--sample", type=click.FloatRange(0, 1), help="Share of exchanges that are remembered.")
@click.option("--redact", type=click.Choice(["off", "strict"]))
@click.option("--retention-days", type=click.IntRange(1))
@click.option("--consent", help="On what basis, for the record.")
@as_json_option
def policy_set(route: str | None, key: str | None, as_json: bool, **rule: Any) -> None:
    """Say what is remembered, from now on, in the place of an earlier rule."""
    done = find().request("PUT", _rule_path(route, key), json=_given(**rule))
    show(done, as_json, lambda data: iter([f"{data['kind']} {data['name']}: {_said(data)}"]))


@policy.command(name="rm")
@click.option("--route", help="Of this route.")
@click.option("--key", help="Of the key of this id.")
@as_json_option
def policy_rm(route: str | None, key: str | None, as_json: bool) -> None:
    """Take a rule away; the settings hold again."""
    done = find().request("DELETE", _rule_path(route, key))
    show(done, as_json, lambda data: iter([f"removed {data['removed']}"]))


def _rule_path(route: str | None, key: str | None) -> str:
    if (route is None) == (key is None):
        raise click.UsageError("name one: --route ROUTE or --key KEY_ID")
    kind, name = ("route", route) if route is not None else ("key", key)
    return f"/admin/v1/traffic/policies/{kind}/{quote(str(name), safe='')}"


def _stream(gateway: Gateway, path: str, params: dict[str, Any]) -> Iterator[bytes]:
    import httpx

    from gateway.cli.client import NO_GATEWAY, message_of

    headers = {"authorization": f"Bearer {gateway.key}"}
    try:
        with httpx.stream("GET", gateway.url + path, params=params, headers=headers, timeout=600) as answer:
            if not answer.is_success:
                fail(message_of(answer.read().decode(errors="replace"), answer.status_code))
            yield from answer.iter_bytes()
    except httpx.TransportError as error:
        fail(f"the gateway at {gateway.url} stopped answering ({error})", code=NO_GATEWAY)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _cursor(row: dict[str, Any]) -> str:
    return f"{row['at_us']}-{row['id']}"


def _listed(rows: list[dict[str, Any]]) -> Iterator[str]:
    headings = ("TIME", "ID", "VERSION", "UNIT", "TOKENS", "FIRST", "TOOK", "HOW")
    yield from table(headings, [_line(row) for row in rows])


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    tokens = f"{_or_dash(row['prompt'])}+{_or_dash(row['completion'])}"
    how = row["error"] or row["finish_reason"] or str(row["status"])
    first = "-" if row["ttft_ms"] is None else f"{row['ttft_ms']:.0f} ms"
    took = f"{row['duration_ms']:.0f} ms"
    if row["engine"].startswith("import/"):
        how, took = "imported", "-"
    return (row["at"], row["id"], row["version"], row["unit"][:24], tokens, first, took, how)


def _or_dash(value: Any) -> str:
    return "-" if value is None else str(value)


def _shown(data: dict[str, Any]) -> Iterator[str]:
    words = ("messages", "tools", "parameters", "response")
    for name, value in data.items():
        if name not in (*words, "at_us") and value not in (None, ""):
            yield f"{name:14} {value if not isinstance(value, dict) else json.dumps(value)}"
    for name in words:
        if data[name] is not None:
            yield f"\n{name}:\n{json.dumps(data[name], indent=2, ensure_ascii=False)}"
    if data["messages"] is None:
        yield "\nits words were not kept"


def _counted(rows: list[dict[str, Any]]) -> Iterator[str]:
    headings = (
        "ROUTE",
        "VERSION",
        "REQUESTS",
        "ERRORS",
        "PROMPT",
        "COMPLETION",
        "FIRST P50/P95",
        "TOOK P50/P95",
    )
    yield from table(
        headings,
        [
            (
                row["route"],
                f"{row['version']} (imported)".strip() if row["imported"] else row["version"],
                f"{row['requests']:,}",
                f"{row['errors']:,}",
                f"{row['prompt']:,}",
                f"{row['completion']:,}",
                _quantiles(row["ttft_p50_ms"], row["ttft_p95_ms"]),
                _quantiles(row["duration_p50_ms"], row["duration_p95_ms"]),
            )
            for row in rows
        ],
    )


def _quantiles(p50: float | None, p95: float | None) -> str:
    return "-" if p50 is None or p95 is None else f"{p50:.0f}/{p95:.0f} ms"


def _rules(data: dict[str, Any]) -> Iterator[str]:
    rows = [("(all others)", _said(data["default"]))]
    rows += [(f"{rule['kind']} {rule['name']}", _said(rule)) for rule in data["data"]]
    yield from table(("FOR", "RULE"), rows)


def _said(rule: dict[str, Any]) -> str:
    names = ("capture", "sample", "redact", "retention_days", "consent")
    return ", ".join(f"{name} {rule[name]}" for name in names if rule[name] not in (None, "")) or "nothing"
