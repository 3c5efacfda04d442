"""`hotswap datasets …`: what adapters are trained on, frozen, with its lineage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.cli.client import as_json_option, fail, find, running, say, show, table

if TYPE_CHECKING:
    from gateway.settings import Settings
    from training.dataset.plan import Plan
    from training.dataset.snapshot import Shelf, Snapshot


@click.group()
def datasets() -> None:
    """Datasets: frozen rows with their lineage. A REF is a name (the last that was built) or
    name@3f9c2ab71e04."""


@datasets.command()
@click.argument("name")
@click.option(
    "--from",
    "sources",
    multiple=True,
    metavar="SOURCE",
    help="A file, traffic://ROUTE?since=7d, file-ID (uploaded), hf://FOLDER.",
)
@click.option("--licence", help="Of the files and hf:// folders; `own` for what is yours.")
@click.option("--accept-licence", "accept", multiple=True, help="Train on this licence; you have read it.")
@click.option("--consent", help="On what basis the files may be used, for the record.")
@click.option("--plan", "plan_file", type=click.Path(path_type=Path), help="All of it in a TOML file.")
@click.option("--validation", type=float, help="Share of rows for validation.")
@click.option("--split", "by", type=click.Choice(["auto", "time", "random"]), help="What goes to validation.")
@click.option("--language", "languages", multiple=True, help="Only rows in it, e.g. en.")
@click.option("--max-tokens", type=int, help="Longest row.")
@click.option("--max-self-generated", type=float, help="Largest share of own models' answers.")
@click.option(
    "--redact", type=click.Choice(["off", "strict", "presidio"]), help="Of what did not come as traffic."
)
@click.option("--skip-bad", is_flag=True, help="Leave bad rows of files out.")
@click.option("--writer", help="OpenAI endpoint that makes rows of documents, or new ones.")
@click.option("--writer-model", help="Its model.")
@click.option("--writer-key-env", help="The variable that holds its key.")
@click.option("--synthetic", type=int, help="So many new rows like the others.")
@click.option("--no-register", is_flag=True, help="Do not tell the gateway; forgetting cannot reach it then.")
@as_json_option
def build(
    name: str,
    plan_file: Path | None,
    no_register: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Build dataset NAME: read, remove duplicates, split, and freeze it."""
    with told():
        from training.dataset.build import Means
        from training.dataset.build import build as run
        from training.dataset.snapshot import ANSWERS
        from training.dataset.sources.uploaded import is_uploaded

        settings = _settings()
        plan = _plan(plan_file, given)
        locations = [source.location for source in plan.sources]
        captured = any(location.startswith("traffic://") for location in locations)
        gateway = _gateway(needed=captured or any(map(is_uploaded, locations)))
        means = Means(
            _shelf(settings),
            gateway=gateway,
            base=_base(settings),
            redact=_redaction(settings, plan.privacy.imported),
            kept=_shelf(settings).folder / ANSWERS,
            say=say,
        )
        built = run(name, plan, means)
        snapshot = built.snapshot
        registered = False
        if gateway is not None and not no_register:
            from training.dataset.registration import register

            register(snapshot, gateway)
            registered = True
    shown = {"reference": snapshot.reference, "created": built.created, "registered": registered}
    show({**shown, **snapshot.manifest}, as_json, lambda _: _report(snapshot))
    if not built.created:
        say(f"the same content was frozen before: {snapshot.reference}")
    if captured and not registered:
        say("the gateway does not know of it: what is forgotten will not be found in it")
    say(f"next: hotswap datasets show {snapshot.reference} --html report.html, or")
    say(f"      hotswap train {name} --data {snapshot.reference}")


@datasets.command()
@click.argument("name", required=False)
@as_json_option
def ls(name: str | None, as_json: bool) -> None:
    """Every dataset here, by name, the newest first."""
    with told():
        found = _shelf(_settings()).all(name)
    headings = ("DATASET", "BUILT", "TRAIN", "VALIDATION", "SCRUBBED", "FROM")
    rows = [_listed(each) for each in found]
    data = [{"reference": each.reference, **each.manifest} for each in found]
    show(data, as_json, lambda _: table(headings, rows))
    if not found:
        say("no datasets yet. next: hotswap datasets build NAME --from rows.jsonl --licence own")


@datasets.command(name="show")
@click.argument("ref")
@click.option("--html", type=click.Path(path_type=Path), help="Write the report as one HTML file.")
@as_json_option
def show_(ref: str, html: Path | None, as_json: bool) -> None:
    """Show what a dataset holds, where it came from, and what was dropped and why."""
    with told():
        snapshot = _shelf(_settings()).find(ref)
        snapshot.check()
        if html is not None:
            from training.dataset.report import page

            try:
                html.write_text(page(snapshot), encoding="utf-8")
            except OSError as error:
                fail(f"cannot write {html}: {error.strerror or error}")
            say(f"written to {html}")
    show({"reference": snapshot.reference, **snapshot.manifest}, as_json, lambda _: _report(snapshot))


@datasets.command()
@click.argument("ref")
@click.option("--dry-run", is_flag=True, help="Say what would go, and stop.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json_option
def rm(ref: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Remove a dataset from this machine. What the gateway knows of it stays: versions learned from it."""
    with told():
        shelf = _shelf(_settings())
        snapshot = shelf.find(ref)
        say(f"removes {snapshot.reference}, {snapshot.rows['train.jsonl']} rows to train on")
        if dry_run:
            return
        if not yes:
            click.confirm("remove?", abort=True, err=True)
        shelf.remove(snapshot)
    show({"removed": snapshot.reference}, as_json, lambda data: iter([f"removed {data['removed']}"]))


@datasets.command()
@click.argument("ref", required=False)
@as_json_option
def scrub(ref: str | None, as_json: bool) -> None:
    """Take out of the datasets here what was forgotten since they were built: of REF, or of all."""
    with told():
        from training.dataset.registration import forgotten, scrubbed

        shelf = _shelf(_settings())
        gateway = _gateway(needed=True)
        assert gateway is not None  # it was needed
        done = []
        for snapshot in [shelf.find(ref)] if ref is not None else shelf.all():
            gone = forgotten(snapshot, gateway)
            rows = shelf.scrub(snapshot, gone)
            after = shelf.find(snapshot.reference)
            scrubbed(after, gone, gateway)
            done.append({"dataset": snapshot.reference, "rows": rows, "scrubbed": after.scrubbed})
    rows_of = [(each["dataset"], each["rows"], each["scrubbed"]) for each in done]
    show(done, as_json, lambda _: table(("DATASET", "NOW", "IN ALL"), rows_of))


@contextmanager
def told() -> Iterator[None]:
    """What a room below cannot do is one line for the user, and exit code 1."""
    from gateway.settings import SettingsError

    try:
        from training.recipe import TrainingError
    except ImportError as error:
        fail(f"{error.name} is missing: pip install 'hotswap[training]'")
    try:
        yield
    except SettingsError as error:
        fail(str(error), code=2)
    except TrainingError as error:
        fail(str(error))
    except ModuleNotFoundError as error:
        fail(f"{error.name} is missing: pip install 'hotswap[training]'")


def _plan(file: Path | None, given: Mapping[str, Any]) -> Plan:
    """The file's plan, with what the command line says in its place."""
    from training.dataset.plan import Plan, plan_of, read_plan

    plan = Plan() if file is None else read_plan(file)
    whole = plan.model_dump(by_alias=True)
    for location in given["sources"]:
        imported = {"licence": given["licence"] or "", "consent": given["consent"] or ""}
        source = {} if location.startswith("traffic://") else {**imported, "skip_bad": given["skip_bad"]}
        whole["source"] = [*whole["source"], {"from": location, **source}]
    options: dict[str, tuple[str, str]] = {
        "validation": ("split", "validation"),
        "by": ("split", "by"),
        "max_tokens": ("filters", "max_tokens"),
        "languages": ("filters", "languages"),
        "max_self_generated": ("caps", "self_generated"),
        "redact": ("privacy", "imported"),
        "synthetic": ("synthetic", "rows"),
        "accept": ("licences", "accept"),
    }
    for name, (part, field) in options.items():
        if given[name] not in (None, ()):
            whole[part] = {**whole[part], field: given[name]}
    if given["writer"] is not None:
        if given["writer_model"] is None:
            fail("--writer needs --writer-model NAME", code=2)
        asked = {"url": given["writer"], "model": given["writer_model"], "key_env": given["writer_key_env"]}
        whole["writer"] = {**(whole["writer"] or {}), **asked}
    return plan_of(whole, "the command line" if file is None else str(file))


def _settings() -> Settings:
    from gateway.settings import load

    return load()[0]


def _shelf(settings: Settings) -> Shelf:
    from training.dataset.snapshot import Shelf

    return Shelf(settings.state_dir / "datasets")


def _gateway(*, needed: bool) -> Any:
    """The running gateway; None when there is none and none is needed."""
    from training.dataset.sources.traffic import Gateway

    found = find() if needed else running()
    return None if found is None else Gateway(found.url, found.key)


def _base(settings: Settings) -> tuple[Path, str] | None:
    from adapters.base.manifest import BaseError, BaseManifest

    try:
        return settings.base_path, BaseManifest.read(settings.base_path).licence
    except BaseError:
        say("no base is prepared: its licence is not looked at, and tokens are estimated")
        return None


def _redaction(settings: Settings, how: str) -> Callable[[str], str] | None:
    """The gateway's own, here: a trainer imports nothing of the gateway."""
    if how == "off":
        return None
    from gateway.traffic.redact import redact

    def strict(text: str) -> str:
        return redact(text)[0]

    if how == "strict":
        return strict
    from gateway.traffic.second import SecondTier, Unexamined, examining

    wanted = settings.traffic.presidio.model_copy(update={"enabled": True})
    examined = examining(wanted)
    assert examined is not None  # it is enabled
    try:
        rewrite = SecondTier(examined).load()
    except Unexamined as error:
        fail(str(error))
    return lambda text: rewrite(strict(text), "")


def _report(snapshot: Snapshot) -> Iterator[str]:
    from training.dataset.report import lines

    return lines(snapshot)


def _listed(snapshot: Snapshot) -> tuple[str, ...]:
    rows = snapshot.rows
    sources = ", ".join(each["from"] for each in snapshot.manifest["lineage"]["sources"])
    counts = (str(rows.get(name, 0)) for name in ("train.jsonl", "validation.jsonl"))
    return (snapshot.reference, snapshot.manifest["built_at"], *counts, str(snapshot.scrubbed), sources)
