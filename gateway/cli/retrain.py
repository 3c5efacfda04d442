"""`hotswap retrain`: plans by which adapters learn from new feedback by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import click

from gateway.cli.client import as_json_option, fail, find, say, show, table
from gateway.jobs.source import age, seconds

PLANS = "/admin/v1/retraining"


@click.group()
def retrain() -> None:
    """Plans to retrain: when, from which feedback; and what came of it. A proposal is promoted by you."""


@retrain.command("set")
@click.argument("adapter")
@click.option("--corrections", type=int, help="After so many new corrections.")
@click.option("--every", help="So long after the last time, when anything was said since: 12h, 7d, 4w.")
@click.option("--drift", type=float, help="When the share of thumbs up falls by so much, e.g. 0.1.")
@click.option("--from", "route", help="The route whose exchanges are learned from; default: ADAPTER.")
@click.option(
    "--feedback",
    type=click.Choice(["corrected", "up", "any", "all"]),
    default="corrected",
    show_default=True,
    help="Which exchanges: with such feedback, or all.",
)
@click.option("--since", help="Only exchanges not older than that: 30d.")
@click.option("--epochs", "n_epochs", type=int, help="Passes over the rows.")
@click.option("--batch-size", type=int, help="Rows a step.")
@click.option("--learning-rate-multiplier", type=float, help="1 is the recipe's rate.")
@click.option("--accept-licence", "accept", multiple=True, help="Train on this licence; you have read it.")
@as_json_option
def set_(
    adapter: str,
    every: str | None,
    since: str | None,
    feedback: str,
    accept: tuple[str, ...],
    as_json: bool,
    **given: Any,
) -> None:
    """Make the plan of ADAPTER, or change it. At least one of --corrections, --every, --drift."""
    if every is None and given["corrections"] is None and given["drift"] is None:
        fail("say when: --corrections 100, --every 7d or --drift 0.1", code=2)
    body = {
        **{name: value for name, value in given.items() if value is not None},
        "accept": list(accept),
        "feedback": None if feedback == "all" else feedback,
        "every_s": _seconds("--every", every),
        "since_s": _seconds("--since", since),
    }
    plan = find().request("PUT", f"{PLANS}/{quote(adapter, safe='')}", json=body)
    show(plan, as_json, lambda data: lines([data]))
    say(f"next: hotswap retrain ls, or at once: hotswap retrain now {adapter}")


@retrain.command()
@as_json_option
def ls(as_json: bool) -> None:
    """Every plan, how far it is, and what came of its last job."""
    found = find().request("GET", PLANS)["data"]
    show(found, as_json, lines)
    if not found:
        say("nothing is retrained by itself. next: hotswap retrain set ADAPTER --corrections 100")


@retrain.command()
@click.argument("adapter")
@as_json_option
def rm(adapter: str, as_json: bool) -> None:
    """Remove the plan of ADAPTER. Its versions and jobs stay."""
    removed = find().request("DELETE", f"{PLANS}/{quote(adapter, safe='')}")
    show(removed, as_json, lambda data: iter([f"removed the plan of {data['removed']}"]))


@retrain.command()
@click.argument("adapter")
@as_json_option
def now(adapter: str, as_json: bool) -> None:
    """Start the job of ADAPTER's plan, due or not."""
    job = find().request("POST", f"{PLANS}/{quote(adapter, safe='')}/now")
    show(job, as_json, lambda data: iter([data["id"]]))
    say(f"next: hotswap jobs logs --follow {job['id']}")


def lines(plans: list[dict[str, Any]]) -> Iterator[str]:
    """The plans as a table."""
    heads = ("ADAPTER", "FROM", "WHEN", "SINCE THE LAST", "LAST")
    rows = [(plan["adapter"], plan["source"], _when(plan), _new(plan), _last(plan)) for plan in plans]
    return table(heads, rows)


def _when(plan: dict[str, Any]) -> str:
    found = []
    if plan["corrections"] is not None:
        found.append(f"{plan['corrections']} corrections")
    if plan["drift"] is not None:
        found.append(f"thumbs up fall by {plan['drift']:.0%}")
    if plan["every_s"] is not None:
        found.append(f"every {age(plan['every_s'])}")
    return " or ".join(found)


def _new(plan: dict[str, Any]) -> str:
    new = plan["since_last"]
    return f"{new['corrected']} corrected, {new['liked']} of {new['judged']} up"


def _last(plan: dict[str, Any]) -> str:
    problem = plan["problem"] and f"could not start: {plan['problem']}"
    under_way = plan["job"] and f"{plan['job']} is {plan['status']}"
    return problem or plan["result"] or under_way or "-"


def _seconds(option: str, text: str | None) -> int | None:
    try:
        return None if text is None else seconds(text)
    except ValueError as error:
        fail(f"{option}: {error}", code=2)
