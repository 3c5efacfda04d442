"""`hotswap train NAME --data rows.jsonl`: an adapter from rows, checked, tried, trained and registered."""

from __future__ import annotations

import sys
import time
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from gateway.cli.client import Gateway, as_json_option, details, fail, find, say, show

if TYPE_CHECKING:
    from gateway.settings import Settings
    from training.preflight.machine import Machine
    from training.preflight.report import Report
    from training.preflight.run import Ask
    from training.recipe import Recipe
    from training.stop import Stop
    from training.watch import Progress

SHOW_EVERY_S = 5.0


@click.command()
@click.argument("name")
@click.option("--data", required=True, help="JSONL rows, or a dataset: NAME@3f9c2ab71e04, NAME.")
@click.option("--recipe", help="quick, balanced (default), thorough, or a TOML file.")
@click.option("--validation", type=click.Path(path_type=Path), help="JSONL rows kept out; checked for leaks.")
@click.option("--out", type=click.Path(path_type=Path), help="Keep the adapter's folder here.")
@click.option("--epochs", type=float, help="Passes over the rows.")
@click.option("--rank", type=int, help="LoRA rank.")
@click.option("--learning-rate", type=float, help="Peak learning rate.")
@click.option("--batch-size", type=int, help="Rows a step.")
@click.option("--max-steps", type=int, help="Stop after so many steps.")
@click.option("--seed", type=int, help="Same seed, same rows: same adapter.")
@click.option("--set", "others", multiple=True, metavar="KEY=VALUE", help="Any other key of a recipe.")
@click.option("--dry-run", is_flag=True, help="Only check and estimate: seconds, and no torch.")
@click.option("--strict", is_flag=True, help="Take warnings for errors.")
@click.option("--allow", multiple=True, metavar="CHECK", help="Take this check's errors for warnings.")
@click.option(
    "--price", metavar="USD|FILE", help="This machine's price an hour, or a table of prices (TOML)."
)
@click.option("--baseline", type=click.IntRange(0), metavar="N", help="Few-shot rows to ask; 0: none.")
@click.option("--no-trial", is_flag=True, help="Begin at once, without a few steps on trial.")
@click.option("--promote", is_flag=True, help="Make it the stable version of its route at once.")
@click.option("--no-register", is_flag=True, help="Only train; needs --out.")
@as_json_option
def train(
    name: str,
    data: str,
    recipe: str | None,
    validation: Path | None,
    out: Path | None,
    others: Sequence[str],
    dry_run: bool,
    strict: bool,
    allow: Sequence[str],
    price: str | None,
    baseline: int | None,
    no_trial: bool,
    promote: bool,
    no_register: bool,
    as_json: bool,
    **flags: float | int | None,
) -> None:
    """Train an adapter for the prepared base and register it as a new version of NAME.

    A row is {"messages": [...]} (the assistant's messages are learned) or {"prompt": ..., "completion": ...}.
    With held-out rows the version is proved before --promote makes it stable: hotswap adapters prove.
    A dataset is what `hotswap datasets build` made; its held-out rows are the validation. Rows, recipe, base
    and machine are checked first (--dry-run does only that); an error ends the command with 1. Then a few
    steps on trial, then the run.
    """
    if no_register and out is None and not dry_run:
        fail("--no-register needs --out FOLDER, or nothing of the run would be kept", code=2)
    gateway = None if no_register or dry_run else find()  # before the training, not after it
    from adapters.base.manifest import BaseError
    from gateway.settings import SettingsError, load

    try:
        from training.preflight import prices
        from training.preflight.machine import Machine
        from training.preflight.run import Asked, inspect
        from training.recipe import TrainingError

        settings = load()[0]
        from gateway.cli.fleet_limits import fleet_limits

        rows, held_out, lineage = _rows(data, settings.state_dir / "datasets", gateway)
        if "dataset" in lineage:
            say(f"rows of the dataset {lineage['dataset']}")
        machine = Machine.here(settings.state_dir)
        report, resolved = inspect(
            Asked(
                name=name,
                data=rows,
                base=settings.base_path,
                fleet=fleet_limits(settings),
                recipe=recipe,
                flags=flags | _others(others),
                validation=validation or held_out,
                allowed=allow,
                max_adapter_bytes=settings.registry.max_adapter_bytes,
            ),
            machine,
            prices.load(price),
            _asker(settings, baseline),
        )
        if dry_run:
            _finish(report, strict, as_json)
        refuse(report, strict)
        assert resolved is not None
        folder = out or settings.state_dir / "trained" / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
        from training.client import register
        from training.mirror import Mirror
        from training.run import train as run
        from training.stop import on_signals

        with on_signals() as stop:
            if not no_trial:
                _trial(settings, rows, resolved, report, machine, stop)
            say(f"training {name} on {lineage.get('dataset', data)}: loading the base")
            trained = run(
                settings.base_path,
                rows,
                resolved,
                folder,
                show_progress(),
                stop,
                validation=validation or held_out,
                checkpoints=settings.state_dir / "checkpoints",
                store=settings.jobs.checkpoint_store,
                tensorboard=settings.jobs.tensorboard,
                lineage=lineage,
            )
        say(f"trained in {trained.seconds:.0f} s, loss {trained.final_loss:.3f}; kept in {folder}")
        shown: dict[str, Any] = {"folder": str(folder), "steps": trained.steps, "loss": trained.final_loss}
        if gateway is not None:
            shown |= register(folder, name, gateway.url, gateway.key)
            shown |= _prove_and_promote(gateway, shown, validation or held_out, rows, promote)
        if settings.jobs.checkpoint_store is not None:
            Mirror(settings.jobs.checkpoint_store, trained.run).forget()
    except (TrainingError, BaseError, SettingsError) as error:
        fail(str(error))
    except ImportError as error:
        fail(f"training needs its libraries ({error.name} is missing): pip install 'hotswap[training]'")
    show(shown, as_json, lambda data: details({k: v for k, v in data.items() if k != "manifest"}))
    if gateway is not None:
        say(f"next: hotswap run {shown['name']} 'your prompt'")


def _prove_and_promote(
    gateway: Gateway, version: dict[str, Any], held_out: Path | None, learned: Path, promote: bool
) -> dict[str, Any]:
    """Prove the version, where there are held-out rows; make it stable where that is wished and earned."""
    if held_out is None:
        say(f"not proved: there are no held-out rows. hotswap adapters prove {version['name']} --data FILE")
        return {}
    from gateway.cli.prove import lines, proved

    card = proved(gateway, version, held_out, learned)
    for line in lines(card):
        say(line)
    if not promote or version["state"] == "stable":
        return {"proved": card["passed"]}
    ref = quote(version["name"], safe="")
    promoted: dict[str, Any] = gateway.request("POST", f"/admin/v1/adapters/{ref}/promote")
    return promoted


def _others(given: Sequence[str]) -> dict[str, Any]:
    """`--set key=value`, the value as TOML where it is, else as text."""
    found: dict[str, Any] = {}
    for each in given:
        key, equals, value = each.partition("=")
        if not equals:
            fail(f"--set {each} has no value; write --set KEY=VALUE", code=2)
        try:
            found[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[key.strip()] = value.strip()
    return found


def _asker(settings: Settings, count: int | None) -> Ask | None:
    """Asks the base that is up with examples in its prompt; None when no gateway is up, or none is wanted."""
    from gateway.cli.fleet_limits import running

    gateway = None if count == 0 else running(settings)
    if gateway is None:
        if count:
            fail("--baseline asks the base, and no gateway is running. Start one: hotswap up", code=3)
        return None
    from training.preflight.baseline import few_shot

    url, key = f"{gateway.url}/v1", gateway.key
    return lambda rows, held: few_shot(rows, held, url=url, key=key, model=settings.base.name, count=count)


def _passes(report: Report, strict: bool) -> bool:
    return report.verdict == "go" or (report.verdict == "go with warnings" and not strict)


def _finish(report: Report, strict: bool, as_json: bool) -> None:
    """The end of a dry run: the report on stdout, and the verdict as exit code."""
    from training.preflight.report import lines

    show(report.as_dict(), as_json, lambda _: lines(report))
    if _passes(report, strict):
        say(f"next: hotswap train {report.name} --data {report.data}")
        sys.exit(0)
    sys.exit(1)


def refuse(report: Report, strict: bool) -> None:
    """The checklist on stderr; ends the command when the verdict is no."""
    from training.preflight.report import lines

    for line in lines(report):
        say(line)
    if not _passes(report, strict):
        fail("nothing was trained: mend what is marked above, then see it with --dry-run")


def _trial(
    settings: Settings, data: Path, recipe: Recipe, report: Report, machine: Machine, stop: Stop
) -> None:
    """A few steps; what they tell of the speed is kept for the next estimate."""
    from training import trial
    from training.preflight.duration import spoken
    from training.preflight.machine import Speed, today, write_speed
    from training.shape import Shape

    if report.tokens is None or report.steps is None or not trial.worth(recipe, report.rows):
        return
    say(f"trial: {trial.STEPS} steps of {report.steps:,} (--no-trial leaves it out)")
    tried = trial.run(settings.base_path, data, recipe, stop)
    base = Shape.read(settings.base_path)
    speed = tried.tokens_per_s(recipe, report.tokens.total / max(1, report.rows))
    write_speed(
        settings.state_dir, Speed(base.name, base.parameters, machine.device, round(speed, 1), today())
    )
    say(
        f"trial: {tried.step_s:.2f} s a step, loss {tried.first_loss:.3f} to {tried.last_loss:.3f}, peak "
        f"{tried.peak_bytes / 1e9:.2f} GB; the run will take {spoken(tried.step_s * report.steps)}"
    )


def _rows(data: str, shelf: Path, gateway: Gateway | None) -> tuple[Path, Path | None, dict[str, Any]]:
    """The rows of a file; or those of a dataset, its held-out ones, and what the adapter's lineage says.

    Raises `TrainingError` for a dataset that was changed, or that holds rows which were forgotten since.
    """
    if Path(data).exists() or Path(data).suffix or "/" in data:
        return Path(data), None, {}
    from training.dataset.registration import forgotten
    from training.dataset.snapshot import TRAIN, VALIDATION, Shelf
    from training.dataset.sources.traffic import Gateway as Asked
    from training.recipe import TrainingError

    snapshot = Shelf(shelf).find(data)
    snapshot.check()
    if gateway is not None and (
        still := snapshot.holds(forgotten(snapshot, Asked(gateway.url, gateway.key)))
    ):
        raise TrainingError(
            f"{snapshot.reference} holds {still} rows that were forgotten since it was built; take them out "
            f"first: hotswap datasets scrub {snapshot.reference}"
        )
    if snapshot.scrubbed:
        say(f"{snapshot.reference}: {snapshot.scrubbed} rows were forgotten, so this is not all that it was")
    scrubbed = {"dataset_scrubbed_rows": snapshot.scrubbed} if snapshot.scrubbed else {}
    named = {"dataset": snapshot.reference, "dataset_digest": snapshot.digest}
    held_out = snapshot.file(VALIDATION)
    return snapshot.file(TRAIN), held_out if held_out.stat().st_size else None, {**named, **scrubbed}


def show_progress() -> Callable[[Progress], None]:
    """A line at the first step, the last, and every `SHOW_EVERY_S` seconds between."""
    shown = -SHOW_EVERY_S

    def hear(step: Progress) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown >= SHOW_EVERY_S or step.step == step.total:
            shown = now
            say(f"  step {step.step}/{step.total}  loss {step.loss:.3f}  {step.eta_s:.0f} s left")

    return hear
