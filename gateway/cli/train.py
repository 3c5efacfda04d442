"""`hotswap train NAME --data rows.jsonl`: an adapter from rows, registered."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.cli.client import as_json_option, details, fail, find, say, show

if TYPE_CHECKING:
    from training.sft import Progress

SHOW_EVERY_S = 5.0


@click.command()
@click.argument("name")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="JSONL rows.")
@click.option("--out", type=click.Path(path_type=Path), help="Keep the adapter's folder here.")
@click.option("--epochs", type=float, help="Passes over the rows.")
@click.option("--rank", type=int, help="LoRA rank.")
@click.option("--learning-rate", type=float, help="Peak learning rate.")
@click.option("--batch-size", type=int, help="Rows a step.")
@click.option("--max-steps", type=int, help="Stop after so many steps.")
@click.option("--seed", type=int, help="Same seed, same rows: same adapter.")
@click.option("--promote", is_flag=True, help="Make it the stable version of its route at once.")
@click.option("--no-register", is_flag=True, help="Only train; needs --out.")
@as_json_option
def train(
    name: str,
    data: Path,
    out: Path | None,
    promote: bool,
    no_register: bool,
    as_json: bool,
    **recipe: float | int | None,
) -> None:
    """Train an adapter for the prepared base and register it as a new version of NAME.

    A row is {"messages": [...]} (the assistant's messages are learned) or {"prompt": ..., "completion": ...}.
    """
    if no_register and out is None:
        fail("--no-register needs --out FOLDER, or nothing of the run would be kept", code=2)
    gateway = None if no_register else find()  # before the training, not after it
    from adapters.base.manifest import BaseError
    from gateway.settings import SettingsError, load

    try:
        from training.client import register
        from training.recipe import Recipe, TrainingError
        from training.sft import train as run
        from training.stop import on_signals

        settings = load()[0]
        folder = out or settings.state_dir / "trained" / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
        chosen = {key: value for key, value in recipe.items() if value is not None}
        say(f"training {name} on {data}: loading the base")
        with on_signals() as stop:
            trained = run(settings.base_path, data, Recipe(**chosen), folder, show_progress(), stop)  # type: ignore[arg-type]
        say(f"trained in {trained.seconds:.0f} s, loss {trained.final_loss:.3f}; kept in {folder}")
        shown: dict[str, Any] = {"folder": str(folder), "steps": trained.steps, "loss": trained.final_loss}
        if gateway is not None:
            shown |= register(folder, name, gateway.url, gateway.key, promote=promote)
    except (TrainingError, BaseError, SettingsError) as error:
        fail(str(error))
    except ImportError as error:
        fail(f"training needs its libraries ({error.name} is missing): pip install 'hotswap[training]'")
    show(shown, as_json, lambda data: details({k: v for k, v in data.items() if k != "manifest"}))
    if gateway is not None:
        say(f"next: hotswap run {shown['name']} 'your prompt'")


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
