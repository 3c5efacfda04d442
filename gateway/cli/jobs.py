"""`hotswap jobs`: fine-tuning jobs, over the API that the openai package uses."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from gateway.cli.client import as_json_option, details, fail, find, say, show, table

JOBS = "/v1/fine_tuning/jobs"


@click.group()
def jobs() -> None:
    """Create, list, watch, pause and cancel fine-tuning jobs."""


@jobs.command()
@click.argument("training_file")
@click.option("--model", help="The base, or an adapter to go on from; default: the base.")
@click.option("--validation-file", help="Rows that are only measured.")
@click.option("--suffix", help="The adapter that the result is a version of, and a part of its name.")
@click.option("--epochs", type=int, help="Passes over the rows.")
@click.option("--batch-size", type=int, help="Rows a step.")
@click.option("--seed", type=int, help="Same seed, same rows: same adapter.")
@as_json_option
def create(
    training_file: str,
    model: str | None,
    validation_file: str | None,
    suffix: str | None,
    epochs: int | None,
    batch_size: int | None,
    seed: int | None,
    as_json: bool,
) -> None:
    """Train on TRAINING_FILE: a file's id, a JSON Lines file here, or traffic://ROUTE?since=7d&feedback=up."""
    from gateway.cli.files import send

    gateway = find()
    names = {"training_file": training_file, "validation_file": validation_file}
    for name, given in names.items():
        if given is not None and Path(given).is_file():
            names[name] = send(gateway, Path(given), "fine-tune")["id"]
    if model is None:
        model = gateway.request("GET", "/v1/models")["data"][0]["id"]
    chosen = {"n_epochs": epochs, "batch_size": batch_size}
    given_ones = {name: value for name, value in chosen.items() if value is not None}
    body = {
        **{name: value for name, value in names.items() if value is not None},
        "model": model,
        "suffix": suffix,
        "seed": seed,
        "method": {"type": "supervised", "supervised": {"hyperparameters": given_ones}},
    }
    job = gateway.request("POST", JOBS, json=body)
    show(job, as_json, lambda data: iter([data["id"]]))
    say(f"next: hotswap jobs logs --follow {job['id']}")


@jobs.command()
@click.option("--limit", default=20, show_default=True, help="The newest so many.")
@as_json_option
def ls(limit: int, as_json: bool) -> None:
    """List jobs, newest first."""
    found = find().request("GET", JOBS, params={"limit": limit})["data"]

    def lines(data: Any) -> Iterator[str]:
        heads = ("ID", "STATUS", "MODEL", "TRAINING FILE", "CREATED", "RESULT")
        return table(
            heads,
            [
                (job["id"], job["status"], job["model"], job["training_file"], _time(job["created_at"]),
                 job["fine_tuned_model"] or (job["error"] or {}).get("code") or "-")
                for job in data
            ],
        )  # fmt: skip

    show(found, as_json, lines)


@jobs.command("show")
@click.argument("id")
@as_json_option
def show_(id: str, as_json: bool) -> None:
    """Show a job and its checkpoints."""
    gateway = find()
    job = gateway.request("GET", f"{JOBS}/{id}")
    job["checkpoints"] = gateway.request("GET", f"{JOBS}/{id}/checkpoints", params={"limit": 100})["data"]

    def lines(data: Any) -> Iterator[str]:
        plain = {name: _text(value) for name, value in data.items() if name not in ("object", "checkpoints")}
        yield from details(plain)
        for point in data["checkpoints"]:
            yield f"checkpoint {point['step_number']}: {_text(point['metrics'])}"

    show(job, as_json, lines)
    if job["fine_tuned_model"]:
        say(f"next: hotswap run {job['fine_tuned_model']} 'your prompt'")


@jobs.command()
@click.argument("id")
@click.option("--follow", "-f", is_flag=True, help="Go on until the job has ended.")
@as_json_option
def logs(id: str, follow: bool, as_json: bool) -> None:
    """Show a job's events, oldest first. Ends with 1 when a job that was followed did not succeed."""
    gateway = find()
    if not follow:
        found: list[Any] = []
        params: dict[str, Any] = {"limit": 100}
        more = True
        while more:
            page = gateway.request("GET", f"{JOBS}/{id}/events", params=params)
            found += page["data"]
            more, params["after"] = page["has_more"], page["last_id"]
        show(found[::-1], as_json, lambda data: map(_line, data))
        return
    import httpx

    gateway.request("GET", f"{JOBS}/{id}")
    headers = {"authorization": f"Bearer {gateway.key}"}
    url = f"{gateway.url}{JOBS}/{id}/events?stream=true"
    with httpx.stream("GET", url, headers=headers, timeout=60) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                event = json.loads(line.removeprefix("data: "))
                click.echo(json.dumps(event) if as_json else _line(event))
    job = gateway.request("GET", f"{JOBS}/{id}")
    if job["status"] != "succeeded":
        fail(f"{id} is {job['status']}: {(job['error'] or {}).get('message', '')}")
    say(f"next: hotswap run {job['fine_tuned_model']} 'your prompt'")


@jobs.command()
@click.argument("id")
@as_json_option
def cancel(id: str, as_json: bool) -> None:
    """End a job for good."""
    _change(id, "cancel", as_json)


@jobs.command()
@click.argument("id")
@as_json_option
def pause(id: str, as_json: bool) -> None:
    """Have a job save a checkpoint and let go of its device."""
    _change(id, "pause", as_json)


@jobs.command()
@click.argument("id")
@as_json_option
def resume(id: str, as_json: bool) -> None:
    """Put a paused job back into the queue."""
    _change(id, "resume", as_json)


def _change(id: str, verb: str, as_json: bool) -> None:
    job = find().request("POST", f"{JOBS}/{id}/{verb}")
    show(job, as_json, lambda data: iter([f"{data['id']} {data['status']}"]))


def _line(event: Any) -> str:
    return f"{_time(event['created_at'])}  {event['level']:5}  {event['message']}"


def _time(at: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict | list) else "-" if value is None else str(value)
